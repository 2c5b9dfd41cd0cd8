"""Logic that waits: 200 items of 10 ms each, 16 at a time, on threads and as coroutines."""

from __future__ import annotations

import asyncio
import math
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median
from typing import Any, NamedTuple

from benchmarks.flows import Sink, Source
from benchmarks.measure import Run, in_turns
from benchmarks.row import Reach, Row, Size
from routilux import Flow, Runtime

TITLE = "Items of 10 ms, 16 at a time; reference: the waiting; ratio: its share"
AT_ONCE = 16
SECONDS = 0.01


class Scale(NamedTuple):
    items: int
    rounds: int


SCALES: dict[Size, Scale] = {"full": Scale(200, 15), "quick": Scale(200, 5), "tiny": Scale(17, 1)}


class Sleeper(Sink):
    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        time.sleep(SECONDS)


class AsyncSleeper(Sink):
    async def logic(  # type: ignore[override]
        self, slot_data: Any, policy_message: Any, state: Any
    ) -> None:
        await asyncio.sleep(SECONDS)


def rows(size: Size) -> list[Row]:
    items, rounds = SCALES[size]
    runs: dict[str, Run] = {
        "threads": partial(routilux, Sleeper, items),
        "async": partial(routilux, AsyncSleeper, items),
        "the same on an executor": partial(executor, items),
        "the same with asyncio alone": partial(tasks, items),
    }
    ideal = math.ceil(items / AT_ONCE) * SECONDS
    return [
        Row(
            figure,
            median(costs),
            reference=ideal,
            ratio=ideal / median(costs),
            reach=Reach(0.95, at_least=True) if figure in ("threads", "async") else None,
            samples=[ideal / cost for cost in costs],
        )
        for figure, costs in in_turns(runs, rounds).items()
    ]


def routilux(sleeper: type[Sink], items: int) -> float:
    flow = Flow("sleepers")
    flow.add_routine(Source(), "source")
    flow.add_routine(sleeper().set_concurrency(AT_ONCE), "sleeper")
    flow.connect("source", "output", "sleeper", "input")
    with Runtime(thread_pool_size=AT_ONCE) as runtime:
        runtime.exec(flow)
        runtime.post(
            flow, "source", "input", {"count": 1}
        ).job_context.result()  # everything has been started
        start = time.perf_counter()
        runtime.post(flow, "source", "input", {"count": items}).job_context.result()
        return time.perf_counter() - start


def executor(items: int) -> float:
    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(time.sleep, [0.0] * AT_ONCE))
        start = time.perf_counter()
        list(threads.map(time.sleep, [SECONDS] * items))
        return time.perf_counter() - start


def tasks(items: int) -> float:
    async def all_items() -> float:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one() -> None:
            async with gate:
                await asyncio.sleep(SECONDS)

        start = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(items)))
        return time.perf_counter() - start

    return asyncio.run(all_items())
