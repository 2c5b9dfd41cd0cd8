"""Posts that wait: a refused one takes back only its own, and says why nothing came of it."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Thread
from typing import Any

import pytest

from routilux import Flow, Routine, Runtime
from routilux.activation_policies import immediate_policy
from routilux.errors import (
    ConfigurationError,
    JobCancelledError,
    QueueFullError,
    RuntimeClosedError,
    StateError,
    WorkerNotRunningError,
)
from routilux.runtime import posting
from routilux.store.memory import MemoryStore
from routilux.testing.simulated import SimulatedRuntime, simulated
from tests.acceptance.parts import flow_of, step
from tests.waiting import SECONDS, eventually

stores = pytest.mark.parametrize("store", [None, MemoryStore])


def noting(**options: Any) -> Any:
    return step(lambda routine, payload, state: state.shared_log.append(payload["n"]), **options)


def two_slots() -> Flow:
    """``a`` has room for one item, ``b`` for many."""
    return flow_of(noting(max_queue_length=1), noting())


def options_of(store: Any) -> dict[str, Any]:
    return {} if store is None else {"store": store()}


class Outcome:
    """What a call on a thread of its own, virtual or not, came to."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.value: Any = None
        self.error: BaseException | None = None
        self.ended = False

    def __call__(self) -> None:
        try:
            self.value = self.call()
        except Exception as error:
            self.error = error
        self.ended = True


def on_virtual_thread(runtime: SimulatedRuntime, call: Callable[[], Any]) -> Outcome:
    outcome = Outcome(call)
    runtime.simulation.on_new_thread(outcome)
    return outcome


# -- a refused post takes back only its own --------------------------------------------------------------------


@stores
@pytest.mark.parametrize("seed", range(20))
def test_a_refused_post_leaves_its_job_to_what_others_have_posted_into_it(store: Any, seed: int) -> None:
    flow = two_slots()
    with simulated(seed, **options_of(store)) as runtime:
        worker = runtime.exec(flow)
        runtime.pause(worker)
        runtime.post(flow, "a", "input", {"n": 0})
        post = partial(runtime.post, flow, job_id="J")
        late = on_virtual_thread(runtime, lambda: post("a", "input", {"n": 1}, timeout=5))
        runtime.run(1)
        joined = post("b", "input", {"n": 2}).job_context
        runtime.run(10)
        assert isinstance(late.error, QueueFullError)
        assert (joined.status, runtime.get_job("J")) == ("pending", joined)
        runtime.resume(worker)
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        assert (joined.status, sorted(worker.shared_log)) == ("completed", [0, 2])


@stores
@pytest.mark.parametrize("seed", range(20))
def test_a_job_of_which_every_post_was_refused_ends_for_what_waits_for_it_and_its_id_is_free(
    store: Any, seed: int
) -> None:
    flow = two_slots()
    with simulated(seed, **options_of(store)) as runtime:
        worker = runtime.exec(flow)
        runtime.pause(worker)
        runtime.post(flow, "a", "input", {"n": 0})
        posts = [
            on_virtual_thread(
                runtime,
                lambda t=t: runtime.post(flow, "a", "input", {"n": t}, job_id="J", timeout=t),
            )
            for t in (4, 3, 5)
        ]
        runtime.run(1)
        job = runtime.get_job("J")
        assert job is not None
        waits = on_virtual_thread(runtime, job.wait)
        runtime.run(10)
        assert [type(post.error) for post in posts] == [QueueFullError] * 3
        assert (waits.value, job.status, runtime.get_job("J")) == (True, "cancelled", None)
        again = runtime.post(flow, "b", "input", {"n": 9}, job_id="J").job_context
        runtime.resume(worker)
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        assert (again.status, sorted(worker.shared_log)) == ("completed", [0, 9])


@stores
@pytest.mark.parametrize("seed", range(200))
def test_posts_into_one_job_that_come_while_it_is_refused_are_posted_or_refused_whole(
    store: Any, seed: int
) -> None:
    flow = two_slots()
    with simulated(seed, interruption=0.5, **options_of(store)) as runtime:
        worker = runtime.exec(flow)
        runtime.pause(worker)
        runtime.post(flow, "a", "input", {"n": 0})
        refused = on_virtual_thread(
            runtime, lambda: runtime.post(flow, "a", "input", {"n": 1}, job_id="J", timeout=1)
        )
        joins = [Outcome(lambda: runtime.post(flow, "b", "input", {"n": 2}, job_id="J")) for _ in range(3)]
        for join in joins:
            runtime.interrupt_with(partial(runtime.simulation.on_new_thread, join))
        runtime.run(10)
        runtime.resume(worker)
        runtime.run()
        assert isinstance(refused.error, QueueFullError)
        started = [join for join in joins if join.ended]
        assert [join.error for join in started] == [None] * len(started)
        assert sorted(worker.shared_log) == [0, *[2] * len(started)]
        assert runtime.wait_until_all_jobs_finished(SECONDS)


@stores
def test_a_cancelled_apost_leaves_its_job_to_what_others_have_posted_into_it(store: Any) -> None:
    flow = two_slots()

    async def main() -> None:
        async with Runtime(**options_of(store)) as runtime:
            worker = runtime.exec(flow)
            await runtime.apause(worker)
            await runtime.apost(flow, "a", "input", {"n": 0})
            late = asyncio.ensure_future(runtime.apost(flow, "a", "input", {"n": 1}, job_id="J"))
            while runtime.get_job("J") is None:
                await asyncio.sleep(0)
            joined = (await runtime.apost(flow, "b", "input", {"n": 2}, job_id="J")).job_context
            late.cancel()
            with pytest.raises(asyncio.CancelledError):
                await late
            runtime.resume(worker)
            await joined
            assert sorted(worker.shared_log) == [0, 2]

    run(main)


# -- keys ------------------------------------------------------------------------------------------------------


def test_a_key_whose_post_waits_is_kept_however_many_others_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "REMEMBERED_KEYS", 3)
    flow = two_slots()
    with simulated(1) as runtime:
        worker = runtime.exec(flow)
        runtime.pause(worker)
        runtime.post(flow, "a", "input", {"n": 0})
        post = partial(runtime.post, flow, idempotency_key="first")
        waiting = [
            on_virtual_thread(runtime, partial(post, "a", "input", {"n": 1}, timeout=t)) for t in (9, 5)
        ]
        for n in range(10):
            runtime.post(flow, "b", "input", {"n": n}, idempotency_key=f"other {n}")
        waiting.append(on_virtual_thread(runtime, partial(post, "a", "input", {"n": 1})))
        runtime.run(10)
        assert [type(outcome.error) for outcome in waiting[:2]] == [QueueFullError] * 2
        runtime.resume(worker)
        runtime.run()
        assert waiting[2].value.status == "completed"
        assert runtime.post(flow, "a", "input", {"n": 1}, idempotency_key="first").job_id == (
            waiting[2].value.job_id
        )
        assert sorted(worker.shared_log) == sorted([0, 1, *range(10)])
        newest = runtime.post(flow, "b", "input", {"n": 9}, idempotency_key="other 9")
        assert newest.status == "completed"
        assert sorted(worker.shared_log) == sorted([0, 1, *range(10)])


# -- what ends a wait -------------------------------------------------------------------------------------------

ENDS: dict[str, tuple[Callable[[Any, Any], Any], type[Exception], str]] = {
    "stop": (lambda r, worker: r.stop(worker, drain=False), WorkerNotRunningError, "has stopped"),
    "cancel the worker": (lambda r, worker: r.cancel(worker), StateError, "has stopped|'J' is cancelled"),
    "shutdown": (lambda r, worker: r.shutdown(wait=False), RuntimeClosedError, "has been shut down"),
    "cancel the job": (lambda r, worker: r.cancel("J"), StateError, "'J' is cancelled"),
}
ends = pytest.mark.parametrize("end", ENDS)


@stores
@ends
def test_a_post_that_waits_for_room_says_what_has_ended(store: Any, end: str) -> None:
    act, error, text = ENDS[end]
    flow = two_slots()
    with Runtime(**options_of(store)) as runtime, posted_when_paused(runtime, flow) as worker:
        outcome = Outcome(lambda: runtime.post(flow, "a", "input", {"n": 1}, job_id="J"))
        thread = Thread(target=outcome)
        thread.start()
        eventually(lambda: runtime._engine.workers[worker.worker_id].bell.waiting)
        act(runtime, worker)
        thread.join(SECONDS)
        assert isinstance(outcome.error, error)
        assert re.search(text, str(outcome.error))


@contextmanager
def posted_when_paused(runtime: Runtime, flow: Flow) -> Iterator[Any]:
    worker = runtime.exec(flow)
    runtime.pause(worker)
    runtime.post(flow, "a", "input", {"n": 0})
    yield worker


@stores
@ends
def test_aposts_that_wait_for_room_say_what_has_ended_also_behind_others(store: Any, end: str) -> None:
    act, error, text = ENDS[end]
    flow = two_slots()

    async def main() -> None:
        runtime = Runtime(**options_of(store))
        with posted_when_paused(runtime, flow) as worker:
            first = asyncio.ensure_future(runtime.apost(flow, "a", "input", {"n": 1}, job_id="first"))
            second = asyncio.ensure_future(runtime.apost(flow, "a", "input", {"n": 1}, job_id="J"))
            while runtime.get_job("J") is None:
                await asyncio.sleep(0)
            await asyncio.to_thread(act, runtime, worker)
            [failed] = await asyncio.gather(second, return_exceptions=True)
            assert isinstance(failed, error)
            assert re.search(text, str(failed))
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
        await runtime.ashutdown(wait=False)

    run(main)


@ends
def test_a_post_that_waits_among_the_pending_jobs_says_what_has_ended(end: str) -> None:
    act, error, text = ENDS[end]
    flow, other = two_slots(), flow_of(noting(), flow_id="other")
    with Runtime(max_queue_size=1) as runtime:
        runtime.pause(runtime.exec(other))
        worker = runtime.exec(flow)
        runtime.post(other, "a", "input", {"n": 0})
        outcome = Outcome(lambda: runtime.post(flow, "a", "input", {"n": 1}, job_id="J"))
        thread = Thread(target=outcome)
        thread.start()
        eventually(lambda: runtime._engine.bell.waiting)
        if end == "cancel the job":  # there is none yet
            act, error, text = ENDS["stop"]
        act(runtime, worker)
        thread.join(SECONDS)
        assert isinstance(outcome.error, error)
        assert re.search(text, str(outcome.error))
        runtime.shutdown(wait=False)


def test_a_post_in_logic_that_is_cancelled_ends() -> None:
    full = two_slots()
    with Runtime() as runtime:

        def logic(routine: Any, payload: Any, state: Any) -> None:
            runtime.post(full, "a", "input", {"n": 1})

        flow = flow_of(step(logic), flow_id="posting")
        with posted_when_paused(runtime, full) as worker:
            runtime.exec(flow)
            job = runtime.post(flow, "a", "input", {}).job_context
            eventually(lambda: runtime._engine.workers[worker.worker_id].bell.waiting)
            runtime.cancel(job)
            eventually(lambda: not runtime.list_running())
            with pytest.raises(JobCancelledError):
                job.result(SECONDS)
            assert len(runtime.list_jobs(flow=full)) == 1
            runtime.resume(worker)


# -- a place in the worker ----------------------------------------------------------------------------------------


@stores
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("timeout", [1.0, None])
def test_a_post_in_sequential_logic_that_had_room_in_time_returns_when_it_has_its_place_again(
    timeout: float | None, seed: int, store: Any
) -> None:
    ran: list[tuple[int, float]] = []
    returned: list[tuple[int, float]] = []
    with simulated(seed, **options_of(store)) as runtime:

        def posts(routine: Any, payload: Any, state: Any) -> None:
            for n in range(2):
                runtime.post("flow", "b", "input", {"n": n}, timeout=timeout)
                returned.append((n, runtime.now))

        async def takes_long(routine: Any, payload: Any, state: Any) -> None:
            ran.append((payload["n"], runtime.now))
            await asyncio.sleep(5)

        flow = flow_of(step(posts), step(takes_long, max_queue_length=1), execution_strategy="sequential")
        runtime.exec(flow)
        job = runtime.post(flow, "a", "input", {}).job_context
        assert runtime.wait_until_all_jobs_finished()
        assert (job.status, job.error) == ("completed", None)
        assert ran == [(0, 0.0), (1, 5.0)]
        assert returned == [(0, 0.0), (1, 5.0)]
        assert len(runtime.list_jobs()) == 3


@stores
@pytest.mark.parametrize("seed", range(10))
def test_a_post_in_sequential_logic_that_had_no_room_in_time_raises_when_it_has_its_place_again(
    seed: int, store: Any
) -> None:
    raised: list[float] = []
    with simulated(seed, **options_of(store)) as runtime:

        def posts(routine: Any, payload: Any, state: Any) -> None:
            with pytest.raises(QueueFullError):
                runtime.post("sink", "a", "input", {"n": 1}, timeout=1)
            raised.append(runtime.now)

        async def takes_long(routine: Any, payload: Any, state: Any) -> None:
            await asyncio.sleep(5)

        flow = flow_of(step(posts), step(takes_long), flow_id="flow", execution_strategy="sequential")
        sink = flow_of(noting(max_queue_length=1), flow_id="sink")
        runtime.exec(flow)
        with posted_when_paused(runtime, sink) as worker:
            jobs = [runtime.post(flow, name, "input", {}).job_context for name in "ab"]
            runtime.run()
            runtime.resume(worker)
        assert runtime.wait_until_all_jobs_finished()
        assert {job.status for job in jobs} == {"completed"}
        assert all(now in (5.0, 6.0) for now in raised)
        assert len(runtime.list_jobs(flow="sink")) == 1


# -- time-outs ----------------------------------------------------------------------------------------------------

CALLS: dict[str, Callable[[Runtime, Flow, Any, Any, Any], Any]] = {
    "post": lambda r, f, w, j, t: r.post(f, "a", "input", {"n": 1}, timeout=t),
    "post with a key": lambda r, f, w, j, t: r.post(
        f, "a", "input", {"n": 1}, timeout=t, idempotency_key="k"
    ),
    "redrive": lambda r, f, w, j, t: r.redrive(timeout=t),
    "drain": lambda r, f, w, j, t: r.wait_until_all_jobs_finished(t),
    "pause": lambda r, f, w, j, t: r.pause(w, timeout=t),
    "stop": lambda r, f, w, j, t: r.stop(w, timeout=t),
    "shutdown": lambda r, f, w, j, t: r.shutdown(timeout=t),
    "job.wait": lambda r, f, w, j, t: j.wait(t),
    "job.result": lambda r, f, w, j, t: j.result(t),
    "state.wait": lambda r, f, w, j, t: w.wait(t),
    "execute": lambda r, f, w, j, t: flow_of(noting(), flow_id="e").execute("a", {"n": 1}, timeout=t),
    "wait_for_completion": lambda r, f, w, j, t: f.wait_for_completion(w, t),
    "listener.take": lambda r, f, w, j, t: r.monitor.listen().take(t),
    "apost": lambda r, f, w, j, t: run(lambda: r.apost(f, "a", "input", {"n": 1}, timeout=t)),
    "ajoin": lambda r, f, w, j, t: run(lambda: r.ajoin(t)),
    "apause": lambda r, f, w, j, t: run(lambda: r.apause(w, timeout=t)),
    "astop": lambda r, f, w, j, t: run(lambda: r.astop(w, timeout=t)),
    "ashutdown": lambda r, f, w, j, t: run(lambda: r.ashutdown(timeout=t)),
}


@pytest.mark.parametrize("timeout", [-1, -0.001, math.nan, "5", True])
@pytest.mark.parametrize("call", CALLS)
def test_a_time_out_that_is_none_is_refused_and_named(call: str, timeout: Any) -> None:
    flow = flow_of(noting())
    with Runtime(enable_monitoring=True) as runtime:
        worker = runtime.exec(flow)
        job = runtime.post(flow, "a", "input", {"n": 0}).job_context
        job.wait(SECONDS)
        with pytest.raises(ConfigurationError, match=r"timeout.*seconds"):
            CALLS[call](runtime, flow, worker, job, timeout)
        assert worker.status == "running"
        assert len(runtime.list_jobs()) == 1


def run(main: Callable[[], Awaitable[Any]]) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(SECONDS):
            return await main()

    return asyncio.run(limited())


@pytest.mark.parametrize("job_id", [None, "batch"])
@pytest.mark.parametrize("seed", range(20))
def test_a_keyed_apost_that_is_cancelled_when_it_was_accepted_keeps_its_key(
    seed: int, job_id: str | None
) -> None:
    seen: list[int] = []
    ids: list[str] = []
    flow = Flow("f", execution_strategy="sequential")
    send, take = Routine(), Routine()
    for each, length in ((send, 10), (take, 1)):
        each.add_slot("input", max_queue_length=length)
        each.set_activation_policy(immediate_policy())

    async def sends(slot_data: Any, message: Any, state: Any) -> None:
        await runtime.apost(flow, "take", "input", {"n": 0}, job_id=job_id)
        for timeout in (0.5, 100):
            try:
                async with asyncio.timeout(timeout):
                    posted = await runtime.apost(
                        flow, "take", "input", {"n": 1}, job_id=job_id, idempotency_key="K"
                    )
                ids.append(posted.job_id)
            except TimeoutError:
                await asyncio.sleep(0.1 * (seed % 5))

    async def takes(slot_data: Any, message: Any, state: Any) -> None:
        seen.append(slot_data["input"][0]["n"])
        await asyncio.sleep(1)

    flow.add_routine(send.set_logic(sends), "send")
    flow.add_routine(take.set_logic(takes), "take")
    with simulated(seed) as runtime:
        runtime.exec(flow)
        runtime.post(flow, "send", "input", {})
        assert runtime.wait_until_all_jobs_finished()
    assert (seen, len(ids)) == ([0, 1], 1)


@stores
def test_what_fails_of_a_job_that_has_completed_is_told_and_noted_there(
    store: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def fail_at_two(_: Routine, payload: dict[str, Any], __: Any) -> None:
        if payload["n"] == 2:
            raise ValueError("two")

    flow = flow_of(step(fail_at_two))
    with Runtime(**options_of(store)) as runtime:
        worker = runtime.exec(flow)
        job = runtime.post(flow, "a", "input", {"n": 1}, job_id="import").job_context
        assert job.wait(SECONDS)
        assert runtime.post(flow, "a", "input", {"n": 2}, job_id="import").job_context.status == "completed"
        eventually(lambda: len(job.errors) == 1)
        [letter] = runtime.dead_letters(worker=worker)
    assert (job.status, job.error, letter.data) == ("completed", None, {"n": 2})
    assert "ValueError: two" in str(job.errors[0])
    [said] = [
        record.getMessage() for record in caplog.records if "failed in attempt 1" in record.getMessage()
    ]
    assert "its job had completed; what it had is set aside: {'n': 2}" in said
