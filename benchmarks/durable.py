"""Durable activations on SQLite that survive a power cut, beside what the disk takes in single commits."""

from __future__ import annotations

import sqlite3
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import quantiles
from threading import Thread
from time import perf_counter
from typing import NamedTuple

from benchmarks.flows import Sink, Stage
from benchmarks.measure import in_turns
from benchmarks.row import Reach, Row, Size, compared
from routilux import Flow, Runtime

TITLE = "Durable activations on SQLite; reference: one flushed commit"

POSTERS = 16
PACE = 1_000  # posts a second, for the latency of post()
MANY = Reach(0.0001, "ours")  # seconds: 10,000 activations a second


class Scale(NamedTuple):
    jobs: int
    single: int
    posts: int
    rounds: int


SCALES: dict[Size, Scale] = {
    "full": Scale(8_000, 400, 3_000, 5),
    "quick": Scale(2_000, 100, 500, 2),
    "tiny": Scale(64, 4, 20, 1),
}
STAGES = 5


def rows(size: Size) -> list[Row]:
    jobs, single, posts, rounds = SCALES[size]
    with folder() as where:
        url = f"sqlite:///{where / 'many.db'}"
        costs = in_turns(
            {
                "many": partial(pipeline_cost, url, jobs, 128),
                "one": partial(pipeline_cost, f"sqlite:///{where / 'one.db'}", single, 1),
                "raw": partial(raw_commit_cost, where, 4 * single),
            },
            rounds,
        )
        return [
            compared("128 in flight, an activation", costs["many"], costs["raw"], MANY),
            compared("one in flight, an activation", costs["one"], costs["raw"], Reach(2.0)),
            Row(
                "post() at 1,000/s, 99 of 100",
                post_p99(where, posts),
                "s",
                reach=Reach(0.005, "ours"),
            ),
        ]


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="routilux-bench-", dir=".") as name:
        yield Path(name)


def durable_pipeline() -> Flow:
    """Five stages behind each other, and nothing in front: a job is one message through all of them."""
    flow = Flow("durable_pipeline")
    stages = [Stage() for _ in range(STAGES - 1)]
    for n, routine in enumerate([*stages, Sink()]):
        flow.add_routine(routine, f"stage_{n}")
        if n:
            flow.connect(f"stage_{n - 1}", "output", f"stage_{n}", "input")
    return flow


def pipeline_cost(url: str, jobs: int, in_flight: int) -> float:
    """Seconds an activation, with so many jobs under way at any time."""
    posters = min(POSTERS, in_flight)
    flow = durable_pipeline()
    with Runtime(thread_pool_size=4, store=url) as runtime:
        runtime.exec(flow)

        def post(count: int) -> None:
            under_way: deque = deque()
            for value in range(count):
                if len(under_way) == in_flight // posters:
                    under_way.popleft().wait()
                under_way.append(runtime.post(flow, "stage_0", "input", {"value": value}).job_context)
            for job in under_way:
                job.wait()

        threads = [Thread(target=post, args=(jobs // posters,)) for _ in range(posters)]
        start = perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return (perf_counter() - start) / (jobs // posters * posters * STAGES)


def raw_commit_cost(where: Path, commits: int) -> float:
    """Seconds for one row in one flushed transaction."""
    connection = sqlite3.connect(where / "raw.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS item (number INTEGER PRIMARY KEY, data BLOB)")
    start = perf_counter()
    for _ in range(commits):
        connection.execute("INSERT INTO item (data) VALUES (?)", (b'{"value":1}',))
    cost = (perf_counter() - start) / commits
    connection.close()
    return cost


def post_p99(where: Path, posts: int) -> float:
    """What one of a hundred posts takes at least, when they come at an even pace."""
    flow = durable_pipeline()
    with Runtime(thread_pool_size=4, store=f"sqlite:///{where / 'paced.db'}") as runtime:
        runtime.exec(flow)
        seconds = []
        begin = perf_counter()
        for n in range(posts):
            while perf_counter() < begin + n / PACE:
                pass  # an even pace: a sleep would be late by as much as is measured here
            start = perf_counter()
            runtime.post(flow, "stage_0", "input", {"value": n})
            seconds.append(perf_counter() - start)
        runtime.wait_until_all_jobs_finished()
    return quantiles(seconds, n=100)[98]
