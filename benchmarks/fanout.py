"""Fan-out and join: a message goes to ten routines, and their results meet again by job."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Event, Lock
from time import perf_counter
from typing import Any, NamedTuple

from benchmarks.flows import Stage
from benchmarks.measure import in_turns
from benchmarks.row import Reach, Row, Size, compared
from routilux import Flow, Routine, Runtime
from routilux.activation_policies import all_slots_ready_policy, immediate_policy

TITLE = "Fan-out to 10, join by job, per message; reference: submit and a counter"
WIDTH = 10


class Scale(NamedTuple):
    messages: int
    rounds: int


SCALES: dict[Size, Scale] = {"full": Scale(2_000, 9), "quick": Scale(1_000, 3), "tiny": Scale(5, 1)}
POOLS = (4, 1, 2, 16)


class Spread(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        for n in range(WIDTH):
            self.add_event(f"to_{n}")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        value = slot_data["input"][0]["value"]
        for n in range(WIDTH):
            self.emit(f"to_{n}", value=value + n)


class Join(Routine):
    def __init__(self) -> None:
        super().__init__()
        for n in range(WIDTH):
            self.add_slot(f"from_{n}")
        self.set_activation_policy(all_slots_ready_policy(by="job"))

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        sum(slot_data[f"from_{n}"][0]["value"] for n in range(WIDTH))


def fan() -> Flow:
    flow = Flow("fan")
    flow.add_routine(Spread(), "spread")
    flow.add_routine(Join(), "join")
    for n in range(WIDTH):
        flow.add_routine(Stage(), f"branch_{n}")
        flow.connect("spread", f"to_{n}", f"branch_{n}", "input")
        flow.connect(f"branch_{n}", "output", "join", f"from_{n}")
    return flow


def rows(size: Size) -> list[Row]:
    return [_row(pool, *SCALES[size]) for pool in POOLS]


def _row(pool: int, messages: int, rounds: int) -> Row:
    runs = {"ours": partial(routilux, messages, pool), "other": partial(executor, messages, pool)}
    costs = in_turns(runs, rounds)
    reach = Reach(0.35) if pool == POOLS[0] else None
    return compared(f"pool of {pool}", costs["ours"], costs["other"], reach)


def routilux(messages: int, pool: int) -> float:
    """Each message is posted, as a job of its own."""
    flow = fan()
    with Runtime(thread_pool_size=pool) as runtime:
        state = runtime.exec(flow)
        start = perf_counter()
        for value in range(messages):
            runtime.post(flow, "spread", "input", {"value": value})
        runtime.wait_until_all_jobs_finished()
        seconds = perf_counter() - start
        assert state.counters("join")["activations"] == messages
    return seconds / messages


def executor(messages: int, pool: int) -> float:
    """Each message is submitted; its task submits ten, the last of which submits the join."""
    with ThreadPoolExecutor(pool) as threads:
        fans = [_Fan(threads, {"value": value}) for value in range(messages)]
        start = perf_counter()
        for one in fans:
            threads.submit(one.spread)
        for one in fans:
            one.ended.wait()
        return (perf_counter() - start) / messages


class _Fan:
    """What a message needs to be followed without a framework."""

    def __init__(self, threads: ThreadPoolExecutor, message: dict[str, int]) -> None:
        self.threads = threads
        self.message = message
        self.results: dict[int, dict[str, int]] = {}
        self.lock = Lock()
        self.ended = Event()

    def spread(self) -> None:
        for n in range(WIDTH):
            self._submit(n, {"value": self.message["value"] + n})

    def _submit(self, n: int, message: dict[str, int]) -> Future[None]:
        return self.threads.submit(self.branch, n, message)

    def branch(self, n: int, message: dict[str, int]) -> None:
        result = {"value": message["value"] + 1}
        with self.lock:
            self.results[n] = result
            last = len(self.results) == WIDTH
        if last:
            self.threads.submit(self.join)

    def join(self) -> None:
        sum(self.results[n]["value"] for n in range(WIDTH))
        self.ended.set()
