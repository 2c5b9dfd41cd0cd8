"""What a policy says with its decision reaches the logic, in every attempt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from routilux import ErrorHandler, Flow, JobState, Routine, current
from routilux.activation_policies import Fire, custom_policy
from routilux.testing import SimulatedRuntime, simulated


def telling_flow(rule: Callable[..., Any], *, failures: int = 0) -> Flow:
    """One routine that emits what its policy has told it, after so many failures."""

    class Tell(Routine):
        def __init__(self) -> None:
            super().__init__()
            self.add_slot("input")
            self.add_event("told", ["message"])
            self.set_activation_policy(custom_policy(rule))
            self.set_error_handler(ErrorHandler("retry", max_retries=5, retry_delay=10))

        def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            if current().attempt <= failures:
                raise ConnectionError("not yet")
            self.emit("told", message=policy_message)

    flow = Flow("telling")
    flow.add_routine(Tell(), "tell")
    return flow


def told(state: JobState) -> list[Any]:
    assert state.status == "completed", state.error
    return [output.data["message"] for output in state.outputs]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda slots, state: Fire({"input": 1}, {"why": "one is enough"}), {"why": "one is enough"}),
        (lambda slots, state: (True, None, "all"), "all"),
        (lambda slots, state: Fire({"input": 1}, 0), 0),
        (lambda slots, state: True, None),
    ],
)
def test_the_message_of_a_decision_is_the_second_argument_of_the_logic(
    rule: Callable[..., Any], message: Any, routilux_sim: SimulatedRuntime
) -> None:
    state = routilux_sim.exec(telling_flow(rule), entry_params={})
    state.wait()
    assert told(state) == [message]


def test_every_attempt_gets_the_message(routilux_sim: SimulatedRuntime) -> None:
    state = routilux_sim.exec(
        telling_flow(lambda slots, state: (True, None, "again"), failures=2), entry_params={}
    )
    state.wait()
    assert told(state) == ["again"]


def test_a_retry_that_was_saved_gets_the_message(tmp_path: Path) -> None:
    path = str(tmp_path / "state.json")
    flow = telling_flow(lambda slots, state: (True, None, "saved"), failures=1)
    with simulated(1) as runtime:
        state = runtime.exec(flow, entry_params={})
        runtime.run(5)  # the retry waits for another five seconds
        state.save(path)
    with simulated(2) as runtime:
        state = runtime.exec(flow, job_state=JobState.load(path))
        state.wait()
        assert told(state) == ["saved"]
