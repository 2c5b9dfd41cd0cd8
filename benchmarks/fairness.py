"""Fairness: how long one small job waits beside a job of 100,000 items that have come before it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from statistics import median
from time import perf_counter, sleep
from typing import Any, NamedTuple

from benchmarks.flows import Sink, Source, Stage
from benchmarks.row import Reach, Row, Size
from routilux import Flow, Runtime

TITLE = "A fresh job beside a job of 100,000 items, pool of 2; reference: alone"
POOL = 2


class Scale(NamedTuple):
    items: int
    samples: int
    pause: float


SCALES: dict[Size, Scale] = {
    "full": Scale(100_000, 30, 0.05),
    "quick": Scale(100_000, 30, 0.02),
    "tiny": Scale(500, 3, 0.0),
}


class Busy(Sink):
    """Keeps the interpreter for 200 µs."""

    capacity = 100_000

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        until = perf_counter() + 0.0002
        while perf_counter() < until:
            pass


class Waiting(Sink):
    """Keeps its thread for 5 ms."""

    capacity = 100_000

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        sleep(0.005)


def rows(size: Size) -> list[Row]:
    items, samples, pause = SCALES[size]
    return [
        row
        for name, kind in (("busy 200 µs each", Busy), ("waiting 5 ms each", Waiting))
        for row in _rows(name, *beside(kind, items, samples, pause))
    ]


def _rows(name: str, alone: list[float], beside: list[float]) -> list[Row]:
    reach = Reach(0.050, of="ours")
    return [
        Row(f"{name}: median delay", _of(median, beside), "s", median(alone), None, reach, beside),
        Row(f"{name}: longest delay", _of(max, beside), "s", max(alone)),
    ]


def _of(which: Callable[[list[float]], float], delays: list[float]) -> float | None:
    return which(delays) if delays else None


def beside(kind: type[Sink], items: int, samples: int, pause: float) -> tuple[list[float], list[float]]:
    """Delays of the small job alone, and while the big one keeps every thread of the pool."""
    big, small = Flow("big"), Flow("small")
    big.add_routine(Source(), "source")
    big.add_routine(kind().set_concurrency(POOL), "crowd")
    big.connect("source", "output", "crowd", "input")
    small.add_routine(Stage(), "stage")
    with Runtime(thread_pool_size=POOL) as runtime:
        state = runtime.exec(big)
        runtime.exec(small)
        alone = delays(runtime, small, samples, pause)
        job = runtime.post(big, "source", "input", {"count": items}).job_context
        while state.counters("crowd")["received"] < items:
            sleep(0.001)  # until everything is queued
        found = delays(runtime, small, samples, pause)
        crowded = state.counters("crowd")["queued"] > 0  # else it has ended too early to say anything
        runtime.cancel(job)
    return alone, found if crowded else []


def delays(runtime: Runtime, flow: Flow, samples: int, pause: float) -> list[float]:
    pauses = Random(1)  # uneven, so that the samples do not fall into step with the crowd
    found = []
    for _ in range(samples):
        sleep(pause * pauses.uniform(0.5, 1.5))
        start = perf_counter()
        runtime.post(flow, "stage", "input", {"value": 1}).job_context.result()
        found.append(perf_counter() - start)
    return found
