"""From post to result: how long a caller waits for the smallest piece of work."""

from __future__ import annotations

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

from benchmarks.flows import Stage
from benchmarks.row import Reach, Row, Size, compared
from routilux import Flow, Runtime

TITLE = "Post to result of one routine, p50; reference: submit().result()"


class Scale(NamedTuple):
    calls: int  # in one block; blocks of the two sides take turns
    blocks: int


SCALES: dict[Size, Scale] = {"full": Scale(200, 41), "quick": Scale(200, 11), "tiny": Scale(3, 1)}
POOLS = (4, 1, 16)


def rows(size: Size) -> list[Row]:
    return [_row(pool, *SCALES[size]) for pool in POOLS]


def _row(pool: int, calls: int, blocks: int) -> Row:
    flow = Flow("one")
    flow.add_routine(Stage(), "stage")
    ours: list[float] = []
    reference: list[float] = []
    with Runtime(thread_pool_size=pool) as runtime, ThreadPoolExecutor(pool) as threads:
        runtime.exec(flow)

        def post() -> Any:
            return runtime.post(flow, "stage", "input", {"value": 1}).job_context.result()

        def submit() -> Any:
            return threads.submit(_stage, {"value": 1}).result()

        assert post()[0].data == submit()
        for _ in range(calls):
            post(), submit()
        for _ in range(blocks):
            gc.collect()
            ours.append(_p50(post, calls))
            reference.append(_p50(submit, calls))
    return compared(f"pool of {pool}", ours, reference, Reach(1.0) if pool == POOLS[0] else None)


def _stage(message: dict[str, int]) -> dict[str, int]:
    return {"value": message["value"] + 1}


def _p50(call: Callable[[], Any], calls: int) -> float:
    seconds = []
    for _ in range(calls):
        start = perf_counter()
        call()
        seconds.append(perf_counter() - start)
    return median(seconds)
