"""The same five steps in libraries that commit every step, side by side. They are measured where they are installed:
``make bench-peers`` makes an environment of their own for them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import NamedTuple, TypedDict

from benchmarks.durable import STAGES, folder, pipeline_cost, raw_commit_cost
from benchmarks.measure import in_turns
from benchmarks.row import Reach, Row, Size, compared

TITLE = "Five durable steps on SQLite; reference: the library named"


class Scale(NamedTuple):
    jobs: int
    peer_jobs: int
    rounds: int


SCALES: dict[Size, Scale] = {
    "full": Scale(8_000, 100, 3),
    "quick": Scale(2_000, 30, 1),
    "tiny": Scale(64, 2, 1),
}


def rows(size: Size) -> list[Row]:
    jobs, peer_jobs, rounds = SCALES[size]
    with folder() as where:
        ours = {
            128: partial(pipeline_cost, f"sqlite:///{where / 'many.db'}", jobs, 128),
            1: partial(pipeline_cost, f"sqlite:///{where / 'one.db'}", peer_jobs, 1),
        }
        found = [
            _beside(name, in_flight, ours[in_flight], partial(peer, where, peer_jobs), rounds)
            for name, peer in PEERS.items()
            for in_flight in ours
        ]
        costs = in_turns({"ours": ours[128], "raw": partial(raw_commit_cost, where, 1_000)}, rounds)
        return [*found, compared("single commits, 128 in flight", costs["ours"], costs["raw"])]


def _beside(
    name: str, in_flight: int, ours: Callable[[], float], peer: Callable[[], float], rounds: int
) -> Row:
    """A step of ours beside a step of theirs; theirs run one job after the other, as their users call them."""
    figure = f"{name}, {in_flight} of ours in flight"
    reach = Reach(1 / 20) if in_flight == 128 else None
    if find_spec(name) is None:
        return Row(figure, None, reach=reach)
    costs = in_turns({"ours": ours, "peer": peer}, rounds)
    return compared(figure, costs["ours"], costs["peer"], reach)


def dbos(where: Path, jobs: int) -> float:
    """Seconds a step of workflows of five steps."""
    from dbos import DBOS

    DBOS(
        config={
            "name": "steps",
            "system_database_url": f"sqlite:///{where / 'dbos.db'}",
            "log_level": "ERROR",
        }
    )

    @DBOS.step()
    def step(value: int) -> int:
        return value + 1

    @DBOS.workflow()
    def steps(value: int) -> int:
        for _ in range(STAGES):
            value = step(value)
        return value

    DBOS.launch()
    try:
        start = perf_counter()
        for value in range(jobs):
            if steps(value) != value + STAGES:
                raise AssertionError("the steps did not run")
        return (perf_counter() - start) / (jobs * STAGES)
    finally:
        DBOS.destroy(destroy_registry=True)


def langgraph(where: Path, jobs: int) -> float:
    """Seconds a step of graphs of five nodes, whose checkpoints are written before the next node starts."""
    from langgraph.checkpoint.sqlite import SqliteSaver
    from langgraph.graph import StateGraph

    class State(TypedDict):
        value: int

    graph = StateGraph(State)
    for n in range(STAGES):
        graph.add_node(f"step_{n}", lambda state: {"value": state["value"] + 1})
        if n:
            graph.add_edge(f"step_{n - 1}", f"step_{n}")
    graph.set_entry_point("step_0")
    graph.set_finish_point(f"step_{STAGES - 1}")
    with sqlite3.connect(where / "langgraph.db", check_same_thread=False) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        app = graph.compile(checkpointer=SqliteSaver(connection))
        first = next(_threads)
        start = perf_counter()
        for value in range(jobs):
            config = {"configurable": {"thread_id": f"{first}-{value}"}}
            if app.invoke({"value": value}, config, durability="sync")["value"] != value + STAGES:
                raise AssertionError("the nodes did not run")
        cost = (perf_counter() - start) / (jobs * STAGES)
    connection.close()
    return cost


_threads = iter(range(1_000_000))
PEERS = {"dbos": dbos, "langgraph": langgraph}
