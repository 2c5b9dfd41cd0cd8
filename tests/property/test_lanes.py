"""Random keys, failures and pauses in lanes: what happens to one key happens to no other."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from routilux import ErrorHandler, Flow, Routine
from routilux.activation_policies import immediate_policy
from routilux.testing import SimulatedRuntime
from tests.property.plans import Trouble


@dataclass
class Run:
    """What a routine with lanes did, in the simulated runtime, whose time moves only when nothing can run."""

    limit: int
    delays: dict[int, float]  # by number of the item: it fails once, and is tried again after this time
    clock: Any = None
    at_work: list[tuple[str, int]] = field(default_factory=list)
    most: int = 0
    done: dict[str, list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))
    twice: list[str] = field(default_factory=list)

    def begin(self, key: str, n: int) -> None:
        if any(other == key for other, _ in self.at_work):
            self.twice.append(key)
        self.at_work.append((key, n))
        self.most = max(self.most, len(self.at_work))

    def end(self, key: str, n: int) -> None:
        self.at_work.remove((key, n))
        if self.delays.pop(n, None) is not None:
            raise Trouble(n)
        self.done[key].append((n, self.clock.now))


class Work(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input", max_queue_length=1000)
        self.set_activation_policy(immediate_policy())


def lanes(run: Run, limit: int, delay: float, *, is_async: bool) -> Flow:
    def plain(slot_data: Any, message: Any, state: Any) -> None:
        payload = slot_data["input"][0]
        payload["was"] = key = payload.pop("key", payload.get("was"))  # what logic does to it does not matter
        run.begin(key, payload["n"])
        run.end(key, payload["n"])

    async def asynchronous(slot_data: Any, message: Any, state: Any) -> None:
        plain(slot_data, message, state)

    work = Work()
    work.set_logic(asynchronous if is_async else plain)
    work.set_error_handler(ErrorHandler("retry", max_retries=1, retry_delay=delay))
    work.set_concurrency(limit, by="key")
    flow = Flow("lanes")
    flow.add_routine(work, "work")
    return flow


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
@pytest.mark.parametrize("seed", range(60))
def test_retry_delays_its_own_key_and_no_other(seed: int, is_async: bool) -> None:
    rng = Random(seed)
    delay, limit = rng.choice((1.0, 60.0)), rng.choice((1, 2, 5))
    keys = [rng.choice("abcdef") for _ in range(rng.randint(1, 40))]
    fails = {n for n in range(len(keys)) if rng.random() < 0.2}
    run = Run(limit, dict.fromkeys(fails, delay))
    with SimulatedRuntime(seed=seed, interruption=rng.choice((0.0, 0.1, 0.3))) as runtime:
        run.clock = runtime.simulation.clock
        runtime.exec(lanes(run, limit, delay, is_async=is_async))
        for n, key in enumerate(keys):
            runtime.post("lanes", "work", "input", {"key": key, "n": n})
        runtime.wait_until_all_jobs_finished()
    expected: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for n, key in enumerate(keys):
        before = expected[key][-1][1] if expected[key] else 0.0
        expected[key].append((n, before + delay * (n in fails)))
    assert run.twice == []
    assert run.most <= limit
    assert run.done == expected
