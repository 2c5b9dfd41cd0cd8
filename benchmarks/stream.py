"""A long stream through narrow slots: order, speed, and memory that stays where it is."""

from __future__ import annotations

from time import perf_counter
from typing import Any, NamedTuple

from benchmarks.flows import STAGES, Sink, Stage, pipeline
from benchmarks.measure import resident_bytes
from benchmarks.row import Reach, Row, Size
from routilux import Runtime

TITLE = "A long stream, 5 stages, slots of 100; reference: resident memory before"
MEBIBYTE = 2**20
CAPACITY = 100


class Scale(NamedTuple):
    items: int
    first: int  # after so many the memory has what it keeps: finished jobs, history


SCALES: dict[Size, Scale] = {
    "full": Scale(1_000_000, 100_000),
    "quick": Scale(200_000, 100_000),
    "tiny": Scale(300, 100),
}


class NarrowStage(Stage):
    capacity = CAPACITY


class NarrowSink(Sink):
    capacity = CAPACITY


class Watch:
    """What the last stage sees. Its concurrency is one, so nothing here needs a lock."""

    def __init__(self, scale: Scale) -> None:
        self.next = STAGES - 1  # each stage before has added one
        self.wrong = 0
        self.resident: list[int] = []
        self._first, self._step = scale.first, max(1, scale.first // 10)

    def see(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        value = slot_data["input"][0]["value"]
        self.wrong += value != self.next
        self.next = value + 1
        seen = value - STAGES + 2
        if seen >= self._first and seen % self._step == 0:
            self.resident.append(resident_bytes())


class Passage(NamedTuple):
    rate: float
    wrong: int
    resident: list[int]


def rows(size: Size) -> list[Row]:
    scale = SCALES[size]
    passages = {
        "one activation, pool of 1": stream(scale, 1, endless=True),
        "one activation, pool of 4": stream(scale, 4, endless=True),
        "posted, pool of 4": stream(scale, 4, endless=False),  # last: finished jobs leave free memory behind
    }
    found = [
        Row(
            "items lost or out of order",
            sum(passage.wrong for passage in passages.values()),
            "n",
            reach=Reach(0, of="ours"),
        )
    ]
    for name, (rate, _, resident) in passages.items():
        growth = max(resident[1:]) - resident[0]
        limit = Reach(20 * MEBIBYTE, of="ours")
        found.append(Row(f"{name}, memory", growth, "B+", resident[0], None, limit, resident))
        found.append(Row(f"{name}, items", rate, "/s"))
    return found


def stream(scale: Scale, pool: int, *, endless: bool) -> Passage:
    """``endless``: a single activation of a source emits all items. Otherwise each is posted, as a job."""
    items = scale.items
    watch = Watch(scale)
    sink = NarrowSink()
    sink.set_logic(watch.see)
    flow = pipeline(stage=NarrowStage, sink=sink)
    with Runtime(thread_pool_size=pool) as runtime:
        runtime.exec(flow)
        start = perf_counter()
        if endless:
            runtime.post(flow, "source", "input", {"count": items}).job_context.result()
        else:
            for value in range(items):
                runtime.post(flow, "stage_1", "input", {"value": value})
            runtime.wait_until_all_jobs_finished()
        seconds = perf_counter() - start
    lost = items - (watch.next - STAGES + 1)
    return Passage(items / seconds, watch.wrong + lost, watch.resident)
