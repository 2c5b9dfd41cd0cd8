"""Custom policies are asked to release what they hold, as the built-in ones are, and may say no."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from routilux import Flow, Routine
from routilux.activation_policies import custom_policy
from routilux.testing import SimulatedRuntime


def gathering_flow(rule: Callable[..., Any]) -> Flow:
    """Items 0, 1, … to a routine that emits the numbers of each batch that its policy takes."""

    class Start(Routine):
        def __init__(self) -> None:
            super().__init__()
            self.add_slot("input")
            self.add_event("item", ["n"])
            self.set_activation_policy(custom_policy(lambda slots, state: True))

        def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            for payload in slot_data["input"]:
                for n in range(payload["count"]):
                    self.emit("item", n=n)

    class Gather(Routine):
        def __init__(self) -> None:
            super().__init__()
            self.add_slot("item")
            self.add_event("batch", ["numbers"])
            self.set_activation_policy(custom_policy(rule))

        def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            self.emit("batch", numbers=[payload["n"] for payload in slot_data["item"]])

    flow = Flow("gathering")
    flow.add_routine(Start(), "start")
    flow.add_routine(Gather(), "gather")
    flow.connect("start", "item", "gather", "item")
    return flow


def at_the_end(slots: Any, state: Any) -> bool:
    return bool(slots.flushing)


def in_threes(slots: Any, state: Any) -> tuple[bool, Any, Any]:
    return len(slots["item"]) >= 3, {"item": slots["item"][:3]}, None


@pytest.mark.routilux(seeds=50)
class TestReleaseOfCustomPolicies:
    def test_a_one_shot_execution_releases_before_its_end(self, routilux_sim: SimulatedRuntime) -> None:
        state = routilux_sim.exec(gathering_flow(at_the_end), entry_params={"count": 5})
        assert state.wait()
        assert state.status == "completed"
        assert [output.data for output in state.outputs] == [{"numbers": [0, 1, 2, 3, 4]}]
        assert state.job.parked == 0

    def test_draining_a_worker_releases(self, routilux_sim: SimulatedRuntime) -> None:
        flow = gathering_flow(at_the_end)
        routilux_sim.exec(flow)
        job = routilux_sim.post(flow, "start", "input", {"count": 4}).job_context
        assert job.wait()
        assert (job.status, job.parked, job.outputs) == ("completed", 4, [])
        assert routilux_sim.wait_until_all_jobs_finished()
        assert [output.data for output in job.outputs] == [{"numbers": [0, 1, 2, 3]}]

    def test_a_policy_that_says_no_ends_the_draining(self, routilux_sim: SimulatedRuntime) -> None:
        flow = gathering_flow(in_threes)
        routilux_sim.exec(flow)
        job = routilux_sim.post(flow, "start", "input", {"count": 5}).job_context
        assert routilux_sim.wait_until_all_jobs_finished()
        assert (job.status, job.parked) == ("completed", 2)
        assert [output.data for output in job.outputs] == [{"numbers": [0, 1, 2]}]

    def test_a_policy_that_has_said_no_is_asked_again_when_more_has_come(
        self, routilux_sim: SimulatedRuntime
    ) -> None:
        flow = gathering_flow(in_threes)
        routilux_sim.exec(flow)
        first = routilux_sim.post(flow, "start", "input", {"count": 2}).job_context
        assert routilux_sim.wait_until_all_jobs_finished()
        assert first.parked == 2
        second = routilux_sim.post(flow, "start", "input", {"count": 1}).job_context
        assert routilux_sim.wait_until_all_jobs_finished()
        assert (first.parked, second.parked) == (0, 0)
        assert [output.data["numbers"] for output in second.outputs] == [[0, 1, 0]]

    def test_a_one_shot_execution_ends_although_the_policy_says_no(
        self, routilux_sim: SimulatedRuntime
    ) -> None:
        state = routilux_sim.exec(gathering_flow(in_threes), entry_params={"count": 4})
        assert state.wait()
        assert (state.status, state.job.parked) == ("completed", 0)
        (letter,) = routilux_sim.dead_letters(worker=state)
        assert (letter.slot, letter.data, letter.reason) == ("item", {"n": 3}, "incomplete")
