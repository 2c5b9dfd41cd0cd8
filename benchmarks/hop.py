"""A hop: from the emission of a message by one stage to the end of its processing in the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event, Lock
from time import perf_counter
from typing import NamedTuple

from benchmarks.flows import STAGES, pipeline
from benchmarks.measure import in_turns
from benchmarks.row import Reach, Row, Size, compared
from routilux import Runtime

TITLE = "Hop in a 5-stage pipeline; reference: one ThreadPoolExecutor.submit per hop"


class Scale(NamedTuple):
    messages: int
    rounds: int


SCALES: dict[Size, Scale] = {"full": Scale(10_000, 15), "quick": Scale(10_000, 3), "tiny": Scale(50, 1)}
POOLS = (4, 1, 2, 16)


def rows(size: Size) -> list[Row]:
    messages, rounds = SCALES[size]
    found = [
        _pair(
            f"pool of {pool}",
            partial(routilux, messages, pool),
            partial(executor, messages, pool),
            rounds,
            Reach(0.25) if pool == 4 else None,
        )
        for pool in POOLS
    ]
    found.append(
        _pair(
            "pool of 4, a job per message",
            partial(routilux_jobs, messages, 4),
            partial(executor, messages, 4),
            rounds,
        )
    )
    found.append(
        _pair(
            "pool of 4, to an asyncio.Queue",
            partial(routilux, messages, 4),
            partial(queues, messages),
            rounds,
            Reach(6.0),
        )
    )
    found.append(
        _pair(
            "pool of 4, with lanes to without",
            partial(routilux, messages, 4, lanes=8),
            partial(routilux, messages, 4),
            rounds,
            Reach(1.5),
        )
    )
    return found


def _pair(
    figure: str,
    ours: Callable[[], float],
    other: Callable[[], float],
    rounds: int,
    reach: Reach | None = None,
) -> Row:
    costs = in_turns({"ours": ours, "other": other}, rounds)
    return compared(figure, costs["ours"], costs["other"], reach)


def routilux(messages: int, pool: int, lanes: int | None = None) -> float:
    """One job: the source's activation emits all messages. History is on, slots hold 1,000.

    ``lanes``: so many activations of a stage at once, each of another key.
    """
    flow = pipeline()
    for n in range(1, STAGES + 1) if lanes else ():
        flow.routines[f"stage_{n}"].set_concurrency(lanes, by="value")
    with Runtime(thread_pool_size=pool) as runtime:
        state = runtime.exec(flow)
        start = perf_counter()
        runtime.post(flow, "source", "input", {"count": messages}).job_context.result()
        seconds = perf_counter() - start
        assert state.counters(f"stage_{STAGES}")["activations"] == messages
    return seconds / (messages * STAGES)


def routilux_jobs(messages: int, pool: int) -> float:
    """Every message is posted, as a job that is followed to its end; posting is the first of its hops."""
    flow = pipeline()
    with Runtime(thread_pool_size=pool) as runtime:
        state = runtime.exec(flow)
        start = perf_counter()
        for value in range(messages):
            runtime.post(flow, "stage_1", "input", {"value": value})
        runtime.wait_until_all_jobs_finished()
        seconds = perf_counter() - start
        assert state.counters(f"stage_{STAGES}")["activations"] == messages
    return seconds / (messages * STAGES)


def executor(messages: int, pool: int) -> float:
    """Each stage's task submits the next stage's."""
    ended, lock, all_ended = 0, Lock(), Event()

    def stage(number: int, message: dict[str, int]) -> None:
        nonlocal ended
        value = message["value"] + 1
        if number < STAGES:
            threads.submit(stage, number + 1, {"value": value})
            return
        with lock:
            ended += 1
            if ended == messages:
                all_ended.set()

    with ThreadPoolExecutor(pool) as threads:
        start = perf_counter()
        for value in range(messages):
            threads.submit(stage, 1, {"value": value})
        all_ended.wait()
        seconds = perf_counter() - start
    return seconds / (messages * STAGES)


def queues(messages: int) -> float:
    """Each stage is a coroutine with a queue in front of it."""
    return asyncio.run(_queues(messages))


async def _queues(messages: int) -> float:
    line: list[asyncio.Queue[dict[str, int]]] = [asyncio.Queue() for _ in range(STAGES)]

    async def stage(number: int) -> None:
        inbox, outbox = line[number], line[number + 1] if number + 1 < STAGES else None
        for _ in range(messages):
            message = await inbox.get()
            value = message["value"] + 1
            if outbox is not None:
                await outbox.put({"value": value})

    stages = [asyncio.create_task(stage(number)) for number in range(STAGES)]
    await asyncio.sleep(0)
    start = perf_counter()
    for value in range(messages):
        await line[0].put({"value": value})
    await asyncio.gather(*stages)
    return (perf_counter() - start) / (messages * STAGES)
