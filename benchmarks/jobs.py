"""A service that runs for ever: jobs through one worker, and the memory that stays behind."""

from __future__ import annotations

from time import perf_counter
from typing import NamedTuple

from benchmarks.flows import Stage
from benchmarks.measure import resident_bytes
from benchmarks.row import Reach, Row, Size
from routilux import Flow, Runtime

TITLE = "Jobs through one worker; reference: resident memory after the first jobs"
MEBIBYTE = 2**20


class Scale(NamedTuple):
    jobs: int
    first: int


SCALES: dict[Size, Scale] = {
    "full": Scale(1_000_000, 100_000),
    "quick": Scale(200_000, 100_000),
    "tiny": Scale(200, 100),
}


def rows(size: Size) -> list[Row]:
    jobs, first = SCALES[size]
    resident: list[int] = []
    flow = Flow("service")
    flow.add_routine(Stage(), "stage")
    with Runtime(thread_pool_size=4) as runtime:
        state = runtime.exec(flow)
        start = perf_counter()
        for n in range(1, jobs + 1):
            runtime.post(flow, "stage", "input", {"value": n})
            if n % first == 0:
                resident.append(resident_bytes())
        runtime.wait_until_all_jobs_finished()
        seconds = perf_counter() - start
        assert state.counters("stage")["activations"] == jobs
    growth = max(resident[1:]) - resident[0]
    return [
        Row(
            f"memory, job {first:,} to {jobs:,}",
            growth,
            "B+",
            resident[0],
            reach=Reach(20 * MEBIBYTE, of="ours"),
            samples=resident,
        ),
        Row("jobs, posted by one thread", jobs / seconds, "/s"),
    ]
