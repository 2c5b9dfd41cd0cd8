"""A simulated runtime that its own logic shuts down ends as one on threads does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from routilux import Runtime
from routilux.errors import InsideActivationError, RuntimeClosedError
from routilux.store.memory import MemoryStore
from routilux.testing import SimulatedRuntime
from tests.acceptance.parts import flow_of, step
from tests.waiting import SECONDS

stores = pytest.mark.parametrize("store", [None, MemoryStore])
SHORT = 0.01
MAKES: dict[str, Callable[..., Runtime]] = {"threads": Runtime}
for seed in range(10):
    MAKES[f"seed {seed}"] = lambda seed=seed, **options: SimulatedRuntime(seed, interruption=0.3, **options)
runtimes = pytest.mark.parametrize("make", MAKES.values(), ids=list(MAKES))


def options_of(store: Any) -> dict[str, Any]:
    return {} if store is None else {"store": store()}


class Ends:
    """Logic that shuts its runtime down, and what it was answered, beside the logic ``others``."""

    def __init__(self, runtime: Runtime, *, wait: bool, others: Any = None) -> None:
        self.answers: list[bool] = []
        flows = {"ends": step(self.logic)} | ({} if others is None else {"others": step(others)})
        self.runtime, self.wait = runtime, wait
        for flow_id, routine in flows.items():
            runtime.exec(flow_of(routine, flow_id=flow_id))

    def begin(self) -> Any:
        try:
            return self.runtime.post("ends", "a", "input", {}).job_context
        except RuntimeClosedError:  # a post into a store waits, and it is too late already when it returns
            return None

    def logic(self, routine: Any, payload: Any, state: Any) -> None:
        self.answers.append(self.runtime.shutdown(self.wait))


def is_gone(job: Any) -> bool:
    return job is None or job.left or job.status == "cancelled"


@stores
@runtimes
@pytest.mark.parametrize("wait", [True, False])
def test_shutdown_in_logic_is_false_and_the_next_one_waits_for_what_ran(
    wait: bool, make: Callable[..., Runtime], store: Any
) -> None:
    runtime = make(**options_of(store))
    ends = Ends(runtime, wait=wait)
    job = ends.begin()
    if job is not None:
        job.wait(SECONDS)
    assert runtime.shutdown(timeout=SECONDS)
    assert ends.answers == [False]
    assert is_gone(job)


@runtimes
def test_a_task_that_tidies_up_when_it_is_cancelled_is_waited_for_by_the_next_shutdown(
    make: Callable[..., Runtime],
) -> None:
    tidied: list[bool] = []
    runtime = make()

    async def tidies(routine: Any, payload: Any, state: Any) -> None:
        ends.begin()
        try:
            await asyncio.sleep(SECONDS)
        finally:
            await asyncio.sleep(SHORT)
            tidied.append(True)

    ends = Ends(runtime, wait=False, others=tidies)
    job = runtime.post("others", "a", "input", {}).job_context
    job.wait(SECONDS)
    assert runtime.shutdown(timeout=SECONDS)
    assert (ends.answers, tidied) == ([False], [True])


@runtimes
def test_shutdown_in_logic_while_a_task_waits_for_the_store(make: Callable[..., Runtime]) -> None:
    runtime = make(store=MemoryStore())

    async def posts(routine: Any, payload: Any, state: Any) -> None:
        for _ in range(20):
            await runtime.apost("ends", "a", "input", {})

    ends = Ends(runtime, wait=True, others=posts)
    job = runtime.post("others", "a", "input", {}).job_context
    job.wait(SECONDS)
    assert runtime.shutdown(timeout=SECONDS)
    assert ends.answers == [False] * len(ends.answers) != []
    assert is_gone(job) or job.status == "failed"
    assert runtime.list_running() == []


@runtimes
def test_ashutdown_in_async_logic(make: Callable[..., Runtime]) -> None:
    answers: list[bool] = []
    runtime = make()

    async def ends(routine: Any, payload: Any, state: Any) -> None:
        answers.append(await runtime.ashutdown())

    runtime.exec(flow_of(step(ends)))
    job = runtime.post("flow", "a", "input", {}).job_context
    job.wait(SECONDS)
    assert runtime.shutdown(timeout=SECONDS)
    assert (answers, job.status) == ([False], "cancelled")


@runtimes
def test_stop_in_logic_is_refused(make: Callable[..., Runtime]) -> None:
    refused: list[BaseException] = []
    with make() as runtime:

        def stops(routine: Any, payload: Any, state: Any) -> None:
            with pytest.raises(InsideActivationError) as raised:
                runtime.stop(state.worker_id)
            refused.append(raised.value)

        runtime.exec(flow_of(step(stops)))
        assert runtime.post("flow", "a", "input", {}).job_context.wait(SECONDS)
    assert len(refused) == 1
