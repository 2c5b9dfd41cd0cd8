"""The routines that several benchmarks are made of. Their logic is as short as it can be."""

from __future__ import annotations

from typing import Any, ClassVar

from routilux import Flow, Routine
from routilux.activation_policies import immediate_policy

STAGES = 5


class Source(Routine):
    """Emits ``count`` messages from one activation."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.add_event("output")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        for value in range(slot_data["input"][0]["count"]):
            self.emit("output", value=value)


class Sink(Routine):
    """Ends a message; give it another logic to look at what comes."""

    capacity: ClassVar[int] = 1000  # the library's default

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input", max_queue_length=self.capacity)
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        slot_data["input"][0]["value"] + 1


class Stage(Sink):
    """Passes a message on."""

    def __init__(self) -> None:
        super().__init__()
        self.add_event("output")

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        self.emit("output", value=slot_data["input"][0]["value"] + 1)


def pipeline(flow_id: str = "pipeline", *, stage: type[Stage] = Stage, sink: Sink | None = None) -> Flow:
    """Five stages, ``stage_1`` to ``stage_5``, behind a ``source``. The last stage is the sink."""
    stages: list[Routine] = [stage() for _ in range(STAGES - 1)]
    flow = Flow(flow_id)
    before = flow.add_routine(Source(), "source")
    for n, routine in enumerate([*stages, sink or Sink()], 1):
        flow.add_routine(routine, f"stage_{n}")
        flow.connect(before, "output", f"stage_{n}", "input")
        before = f"stage_{n}"
    return flow
