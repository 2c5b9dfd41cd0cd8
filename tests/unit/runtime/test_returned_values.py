"""What logic and slot handlers return goes nowhere: that is said once, with what to write instead."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from routilux import Flow, Routine, routine
from routilux.activation_policies import all_slots_ready_policy, immediate_policy
from routilux.store.memory import MemoryStore
from routilux.testing import SimulatedRuntime


class Base(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.add_event("output")
        self.set_activation_policy(immediate_policy())


class Returns(Base):
    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> Any:
        return {"n": 1}


class ReturnsLater(Base):
    async def logic(self, slot_data: Any, policy_message: Any, state: Any) -> Any:
        return {"n": 1}


class ReturnsInTime(Returns):
    def __init__(self) -> None:
        super().__init__()
        self.set_timeout(60)


class HandlerReturns(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input", handler=self.take)
        self.add_event("output")

    def take(self, data: Any) -> Any:
        return data


class HandlerReturnsLater(HandlerReturns):
    async def take(self, data: Any) -> Any:
        return data


class Gathers(Returns):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("more")
        self.set_activation_policy(all_slots_ready_policy(timeout=10))


@pytest.fixture(params=["in memory", "with a store"])
def runtime(request: pytest.FixtureRequest) -> Iterator[SimulatedRuntime]:
    with SimulatedRuntime(3, store=MemoryStore() if request.param == "with a store" else None) as runtime:
        yield runtime


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING, "routilux")
    return lambda: [record.getMessage() for record in caplog.records if "returned" in record.getMessage()]


def run(runtime: SimulatedRuntime, logic: Routine, times: int = 3) -> None:
    flow = Flow("f")
    flow.add_routine(logic, "r")
    runtime.exec(flow)
    for n in range(times):
        for slot in logic.slots:
            runtime.post(flow, "r", slot, {"n": n})
    assert runtime.wait_until_all_jobs_finished()
    assert [job.status for job in runtime.list_jobs()] == ["completed"] * times * len(logic.slots)


@pytest.mark.parametrize("kind", [Returns, ReturnsLater, ReturnsInTime, Gathers])
def test_what_logic_returns_is_told_once_with_the_fix(
    runtime: SimulatedRuntime, warnings: Callable[[], list[str]], kind: type[Routine]
) -> None:
    run(runtime, kind())
    assert warnings() == [
        "routine 'r' of flow 'f': its logic returned a dict, which goes nowhere; emit it: "
        "self.emit('output', **result)"
    ]


@pytest.mark.parametrize("kind", [HandlerReturns, HandlerReturnsLater])
def test_what_a_handler_returns_is_told_once_with_the_fix(
    runtime: SimulatedRuntime, warnings: Callable[[], list[str]], kind: type[Routine]
) -> None:
    run(runtime, kind())
    [told] = warnings()
    assert told.startswith(
        "routine 'r' of flow 'f': a handler of its slots returned a dict, which goes nowhere"
    )


@pytest.mark.parametrize(
    ("returned", "events", "fix"),
    [
        (7, ["output"], "returned an int, which goes nowhere; emit it: self.emit('output', value=result)"),
        ({}, ["left", "right"], "emit it: self.emit(EVENT, **result), where EVENT is one of 'left', 'right'"),
        ([], [], "declare an event with add_event('output'), and emit it: self.emit('output', value=result)"),
        (False, ["output"], "returned a bool"),
    ],
)
def test_the_fix_is_that_of_the_value_and_of_the_events(
    runtime: SimulatedRuntime,
    warnings: Callable[[], list[str]],
    returned: object,
    events: list[str],
    fix: str,
) -> None:
    made = Routine()
    made.add_slot("input")
    for event in events:
        made.add_event(event)
    made.set_activation_policy(immediate_policy()).set_logic(lambda *_: returned)
    run(runtime, made)
    [told] = warnings()
    assert fix in told


def test_functions_and_logic_that_returns_nothing_are_not_told(
    runtime: SimulatedRuntime, warnings: Callable[[], list[str]]
) -> None:
    @routine
    def double(n: int) -> dict[str, int]:
        return {"n": 2 * n}

    flow = Flow("f")
    flow.add_routine(double(), "double")
    quiet = Base()
    quiet.set_logic(lambda *_: None)
    flow.add_routine(quiet, "quiet")
    flow.connect("double", "output", "quiet", "input")
    runtime.exec(flow)
    runtime.post(flow, "double", "input", {"n": 1})
    assert runtime.wait_until_all_jobs_finished()
    assert warnings() == []


def test_an_object_that_cannot_be_looked_at_changes_nothing(
    runtime: SimulatedRuntime, warnings: Callable[[], list[str]]
) -> None:
    class Hostile:
        @property
        def __class__(self) -> Any:  # type: ignore[override]
            raise ValueError("do not look")

        def __repr__(self) -> str:
            raise ValueError("do not look")

        def __eq__(self, other: object) -> bool:
            raise ValueError("do not compare")

        __hash__ = None  # type: ignore[assignment]

    logic = Base()
    logic.set_logic(lambda *_: Hostile())
    run(runtime, logic)
    [told] = warnings()
    assert "returned a Hostile" in told
