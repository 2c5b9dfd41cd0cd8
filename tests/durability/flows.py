"""Small flows on a store."""

from __future__ import annotations

from typing import Any

from routilux import Flow, Routine
from routilux.activation_policies import immediate_policy


class Copy(Routine):
    """Passes on what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.add_event("output")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        for item in slot_data["input"]:
            self.emit("output", **item)


class Log(Copy):
    """Writes the number of what it gets into the shared log."""

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        for item in slot_data["input"]:
            state.shared_log.append(item["n"])


def flow_of(*routines: Routine, flow_id: str = "numbers") -> Flow:
    """A chain of these routines, called "0", "1" and so on."""
    flow = Flow(flow_id)
    for at, routine in enumerate(routines):
        flow.add_routine(routine, str(at))
        if at:
            flow.connect(str(at - 1), "output", str(at), "input")
    return flow
