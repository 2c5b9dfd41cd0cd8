"""Workers that wait for work: 1,000 of them, and what they cost."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from collections.abc import Callable
from time import process_time, sleep
from typing import NamedTuple

from benchmarks.flows import Stage, pipeline
from benchmarks.measure import resident_bytes
from benchmarks.row import Reach, Row, Size
from routilux import Flow, Runtime

TITLE = "1,000 idle workers"
KIBIBYTE = 2**10


class Scale(NamedTuple):
    workers: int
    seconds: float


SCALES: dict[Size, Scale] = {"full": Scale(1_000, 2.0), "quick": Scale(1_000, 2.0), "tiny": Scale(20, 0.02)}


def rows(size: Size) -> list[Row]:
    workers, seconds = SCALES[size]
    threads, each, busy = idle(_one_routine, workers, seconds, resident_bytes)
    _, each_of_pipeline, _ = idle(pipeline, workers, 0.0, resident_bytes)
    traced = {name: _traced(flow, workers) for name, flow in (("1", _one_routine), ("6", pipeline))}
    limit = Reach(16 * KIBIBYTE, of="ours")
    return [
        Row("threads added", threads, "n", reach=Reach(0, of="ours")),
        Row(f"processor over {seconds:g} s", busy, "%", reach=Reach(0.05, of="ours")),
        Row("each of 1 routine, resident", each, "B", reach=limit),
        Row("each of 1 routine, allocated", traced["1"], "B", reach=limit),
        Row("each of 6 routines, resident", each_of_pipeline, "B"),
        Row("each of 6 routines, allocated", traced["6"], "B"),
    ]


def _one_routine() -> Flow:
    flow = Flow("one")
    flow.add_routine(Stage(), "stage")
    return flow


def idle(
    make: Callable[[], Flow], workers: int, seconds: float, memory: Callable[[], int]
) -> tuple[int, float, float]:
    """Threads added, bytes for each worker, and percent of one processor, measured after a first worker."""
    flow = make()
    with Runtime(thread_pool_size=4) as runtime:
        runtime.exec(flow)
        gc.collect()
        threads, before = threading.active_count(), memory()
        for _ in range(workers):
            runtime.exec(flow)
        gc.collect()
        each = (memory() - before) / workers
        used = process_time()
        sleep(seconds)
        busy = (process_time() - used) / seconds * 100 if seconds else 0.0
        return threading.active_count() - threads, each, busy


def _traced(make: Callable[[], Flow], workers: int) -> float:
    """The same by what Python has allocated, which knows nothing of pages and arenas."""
    tracemalloc.start()
    try:
        return idle(make, workers, 0.0, lambda: tracemalloc.get_traced_memory()[0])[1]
    finally:
        tracemalloc.stop()
