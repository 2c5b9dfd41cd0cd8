"""Draining: waiting until nothing in any worker moves any more, which always comes to an end.

A drain ends when every job has ended, at its deadline, or when nothing can move: what runs has ended, no timer is
armed, partial batches are released, and open jobs are left all the same. Then it says what waits for what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from routilux.runtime import waiting_for
from routilux.runtime.waiting import heard_by

if TYPE_CHECKING:
    from routilux.runtime.engine import Engine
    from routilux.runtime.waiting import Waits
    from routilux.runtime.worker import Worker

LONG_SECONDS = 5.0  # after which a drain says that logic goes on posting
LANDING_SECONDS = 1.0  # in which a post that has made its job puts the item into its slot, or waits for room


# What a look at all workers says.
MOVING: Final = "moving"
DONE: Final = "done"  # every job has ended
HELD: Final = "held"  # by a pause or a gate, which a caller can end
STUCK: Final = "stuck"  # open jobs are left, and nothing can move


def waits_until_finished(engine: Engine, deadline: float | None, *, patient: bool) -> Waits[bool]:
    """Whether every job has ended. What is paused, or held by a gate, is told, and waited for if ``patient``; no drain
    can end it.

    Raises what broke the store, and, when all others have done what they could, why a worker was lost meanwhile.
    """
    seen: dict[Worker, None] = {}
    while True:
        workers = list(engine.workers.values())
        seen.update(dict.fromkeys(workers))
        before = _happened(engine)
        drained = []
        for worker in workers:
            drained.append((yield from worker.waits_to_drain(deadline)) or worker.failure is not None)
        if engine.broken is not None:
            raise engine.broken
        rest = look(engine, workers) if all(drained) else MOVING
        if rest is DONE:
            for worker in seen:
                worker.check_kept()
            return True
        if rest is MOVING:
            if not all(drained):
                tell(engine, patient=patient)
                return False
            continue
        waits = patient and rest is HELD
        if waits:
            tell(engine, patient=False)
        until = deadline if waits else _earlier(deadline, engine.now() + LANDING_SECONDS)
        if waits or _is_landing(engine, workers):
            if (yield from _waits_until_it_changes(engine, workers, rest, until)):
                continue
        if not waits:
            if _happened(engine) != before:
                continue  # a post has come in, or logic has started a worker: what was seen is not one picture
            tell(engine, patient=False)
        return False


@contextmanager
def told_if_long(engine: Engine, workers: Callable[[], Iterable[Worker]]) -> Iterator[None]:
    """Around a drain in which logic alone may post. Logic that always posts its successor would never let it end: that
    is said once, with what still comes in."""
    if not engine.book.open:
        yield
        return
    began = engine.driver.clock.time()

    def tell() -> None:
        news = [job for worker in workers() for job in list(worker.jobs.values()) if job.created_at > began]
        if news:
            flows = ", ".join(sorted({repr(job.flow_id) for job in news}))
            engine.warn(
                f"a drain has taken {LONG_SECONDS:g} s, and logic goes on posting jobs, now into flow {flows}. It ends "
                "when no more come: give shutdown() or stop() a timeout, or let the logic stop posting"
            )

    timer = engine.driver.call_at(engine.now() + LONG_SECONDS, tell)
    try:
        yield
    finally:
        timer.cancel()


def _happened(engine: Engine) -> tuple[list[Worker], int, int]:
    """What changes with every post, start and worker that there is meanwhile."""
    workers = list(engine.workers.values())
    return workers, engine.book.open, sum(worker.happened() for worker in workers)


def look(engine: Engine, workers: Iterable[Worker]) -> str:
    if not all(worker.at_a_stop() for worker in workers):
        return MOVING
    if not engine.book.open:
        return DONE
    return HELD if any(worker.is_held for worker in workers if worker.jobs) else STUCK


def tell(engine: Engine, *, patient: bool) -> None:
    """Log what waits for what, each state of a worker once; ``patient``: only where nothing can move."""
    for worker in list(engine.workers.values()):
        if not (patient and not worker.at_a_stop()):
            tell_of(worker)


def tell_of(worker: Worker) -> bool:
    """Log what waits for what in a worker with open jobs; whether there was something to say."""
    text = waiting_for.report(worker) if worker.jobs else ""
    if text:
        worker.engine.warn(f"not all jobs have ended: {text}")
    return bool(text)


def _is_landing(engine: Engine, workers: Iterable[Worker]) -> bool:
    """Whether a job is open of which nothing is queued here: its post may be about to put it there."""
    listed = sum(not job.status.finished for worker in workers for job in list(worker.jobs.values()))
    return engine.book.open > listed or any(worker.misses_items() for worker in workers)


def _waits_until_it_changes(
    engine: Engine, workers: list[Worker], rest: str, deadline: float | None
) -> Waits[bool]:
    """Wait until a look says something else, or other workers are there; False at the deadline."""
    while True:
        signal = engine.driver.signal()
        with heard_by(signal, [engine.bell, *(worker.rest for worker in workers)]):
            if list(engine.workers.values()) != workers or look(engine, workers) is not rest:
                return True
            left = None if deadline is None else deadline - engine.now()
            if (left is not None and left <= 0) or not (yield signal, left, None):
                return False


def _earlier(deadline: float | None, other: float) -> float:
    return other if deadline is None else min(deadline, other)
