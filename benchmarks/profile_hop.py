"""Where the microseconds of a hop go: ``python -m benchmarks.profile_hop``.

A profiler costs more than a hop, so a hop is taken apart instead. The two halves are timed in a running flow, with
one thread: a source that fills a slot, then a sink that empties it. The steps of each half are timed alone, on the
objects of an idle worker. Steps that are too small or too entangled to be timed alone are in the line "the rest".
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from statistics import median
from threading import Lock
from time import monotonic, perf_counter
from typing import Any, NamedTuple

from benchmarks import hop, table
from benchmarks.flows import Sink, Source, Stage
from routilux import Flow, Runtime
from routilux.kernel.account import JobAccount
from routilux.model.context import running
from routilux.runtime.state import History

POOLS = (2, 4, 16)
WAVE = 500  # messages that are queued at once: a slot has room for them, and the caches too


class Part(NamedTuple):
    """``depth`` 0 is a whole, 1 a half of it, 2 a step of a half."""

    name: str
    seconds: float
    depth: int


class WideStage(Stage):
    capacity = 1_000_000


def parts(messages: int = 20_000, rounds: int = 7) -> list[Part]:
    """The table, top down; each line is a median."""
    whole, *with_more_threads = (
        _median_of(lambda pool=pool: hop.routilux(messages, pool), rounds)  # type: ignore[misc]
        for pool in (1, *POOLS)
    )
    measured = [halves(messages) for _ in range(rounds)]
    emitting = median(first for first, _ in measured)
    turning = median(second for _, second in measured)
    emission, turn, once = steps(messages, rounds)
    return [
        Part("hop in the pipeline, pool of 1", whole, 0),
        Part("emit, from call to return", emitting, 1),
        *_with_rest(emission, emitting),
        Part("an activation of the next stage", turning, 1),
        *_with_rest(turn, turning),
        Part("changing routines, waiting for room", whole - emitting - turning, 1),
        *(
            Part(f"hop in the pipeline, pool of {pool}", cost, 0)
            for pool, cost in zip(POOLS, with_more_threads, strict=True)
        ),
        *once,
    ]


def _with_rest(found: list[Part], half: float) -> list[Part]:
    return [*found, Part("the rest", half - sum(part.seconds for part in found), 2)]


def _median_of(run: Callable[[], float], rounds: int) -> float:
    costs = []
    for _ in range(rounds):
        gc.collect()
        costs.append(run())
    return median(costs)


# -- the two halves ------------------------------------------------------------------------------------------


def halves(messages: int) -> tuple[float, float]:
    """Seconds of one emission into a slot with room, and of one activation on what is queued there."""
    stamps: list[float] = []

    def emit_all(slot_data: Any, policy_message: Any, state: Any) -> None:
        stamps.append(perf_counter())
        for value in range(WAVE):
            source.emit("output", value=value)
        stamps.append(perf_counter())

    def end(slot_data: Any, policy_message: Any, state: Any) -> None:
        if slot_data["input"][0]["value"] + 1 == WAVE:
            stamps.append(perf_counter())

    flow = Flow("halves")
    source = Source().set_logic(emit_all)
    flow.add_routine(source, "source")
    flow.add_routine(Sink().set_logic(end), "sink")
    flow.connect("source", "output", "sink", "input")
    waves = max(1, messages // WAVE)
    with Runtime(thread_pool_size=1) as runtime:
        runtime.exec(flow)
        for _ in range(waves):
            runtime.post(flow, "source", "input", {}).job_context.result()
    starts, middles, ends = stamps[::3], stamps[1::3], stamps[2::3]  # one thread: one after the other
    total = waves * WAVE
    return (sum(middles) - sum(starts)) / total, (sum(ends) - sum(middles)) / total


# -- the steps -----------------------------------------------------------------------------------------------


def steps(messages: int, rounds: int) -> tuple[list[Part], list[Part], list[Part]]:
    """The steps of an emission, those of an activation, and what a turn costs once for all its activations."""

    def timed(name: str, call: Callable[[], object], depth: int = 2) -> Part:
        cost = _median_of(lambda: _loop(call, messages), rounds) - _median_of(
            lambda: _empty(messages), rounds
        )
        return Part(name, cost, depth)

    with _idle_stage() as mailbox:
        account = JobAccount(Lock())
        account.add()  # so that it never comes to rest
        number = count(1).__next__
        history = History(1_000, 3_600, monotonic, monotonic)
        logic = Sink().logic
        slot_data = {"input": [{"value": 1}]}
        item = (0, "input", {"value": 1}, account, "source.output", 0.0)

        def one_turn() -> None:
            mailbox.offer(item)
            mailbox.finish(mailbox.next(0.0), 0.0)

        turn = timed("offer, next and finish of a lone item", one_turn, 0)
        # Last, because it leaves the mailbox full.
        offer = Part(
            "mailbox: offer", _median_of(lambda: _loop(lambda: mailbox.offer(item), messages), rounds), 2
        )
    emission = [
        timed("the item", lambda: (number(), "input", slot_data, account, "source.output", 0.0)),
        timed("job: count the item", account.add),
        offer,
    ]
    activation = [
        timed("context variable", lambda: running.set(None)),
        timed("slot data", lambda: {item[1]: [item[2]]}),
        timed("the logic itself", lambda: logic(slot_data, None, None)),
        timed("clock", monotonic),
        timed("history", lambda: history.append(("stage", account, 0.0, 0.0, "completed", 1, None))),
        timed("job: the item has ended", account.remove),
    ]
    return emission, activation, [turn]


@contextmanager
def _idle_stage() -> Iterator[Any]:
    """The mailbox of a stage in a worker that nobody posts to."""
    flow = Flow("idle")
    flow.add_routine(WideStage(), "stage")
    with Runtime(thread_pool_size=1) as runtime:
        mailbox = runtime.exec(flow).control.nodes["stage"].mailbox
        yield mailbox
        mailbox.extract(lambda item: True)  # they belong to no job that could be told
        runtime.shutdown(wait=False)


def _loop(call: Callable[[], object], times: int) -> float:
    start = perf_counter()
    for _ in range(times):
        call()
    return (perf_counter() - start) / times


def _empty(times: int) -> float:
    """What the loop and the call cost, which belong to no step."""
    return _loop(lambda: None, times)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile_hop", description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000)
    options = parser.parse_args()
    print(table.machine_shown(table.machine()))
    for name, seconds, depth in parts(options.messages):
        print(f"{'  ' * depth + name:<48}{seconds * 1e6:>8.2f} µs")


if __name__ == "__main__":
    main()
