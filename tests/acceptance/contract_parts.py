"""Small parts that the tests of the contract build flows of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from threading import Event
from typing import Any

from routilux import Flow, Routine
from routilux.activation_policies import ActivationPolicy, immediate_policy
from tests.waiting import SECONDS

Logic = Callable[[Routine, Any, Any, Any], Any]


def passes_on(routine: Routine, slot_data: Any, message: Any, state: Any) -> None:
    """Emits every payload."""
    for payloads in slot_data.values():
        for payload in payloads:
            routine.emit("output", **payload)


def ends_here(routine: Routine, slot_data: Any, message: Any, state: Any) -> None:
    """Does nothing."""


def part(
    logic: Logic = passes_on,
    *,
    slots: Sequence[str] = ("input",),
    events: Sequence[str] = ("output",),
    policy: ActivationPolicy | None = None,
    **slot_options: Any,
) -> Routine:
    """A routine with this logic, which gets the routine first."""
    routine = Routine()
    for slot in slots:
        routine.add_slot(slot, **slot_options)
    for event in events:
        routine.add_event(event)
    return routine.set_activation_policy(policy or immediate_policy()).set_logic(partial(logic, routine))


def chain(*routines: Routine, flow: Flow | None = None) -> Flow:
    """A flow of ``a``, ``b``, ``c`` …, each output connected to the next input."""
    flow = Flow("chain") if flow is None else flow
    names = "abcdefgh"[: len(routines)]
    for name, routine in zip(names, routines, strict=True):
        flow.add_routine(routine, name)
    for source, target in pairwise(names):
        flow.connect(source, "output", target, "input")
    return flow


class Stop:
    """Where logic tells that it has come, and waits until it may go on."""

    def __init__(self) -> None:
        self.reached = Event()
        self.open = Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self.open.wait(SECONDS)

    def wait(self) -> None:
        assert self.reached.wait(SECONDS)


def stops_at(stop: Stop) -> Logic:
    def logic(routine: Routine, slot_data: Any, message: Any, state: Any) -> None:
        stop()
        passes_on(routine, slot_data, message, state)

    return logic


def keeps(seen: list[Any]) -> Logic:
    """Notes each payload."""

    def logic(routine: Routine, slot_data: Any, message: Any, state: Any) -> None:
        for payloads in slot_data.values():
            seen.extend(payloads)

    return logic
