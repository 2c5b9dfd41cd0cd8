"""Routines and flows that several acceptance tests use."""

from __future__ import annotations

from collections.abc import Callable
from inspect import iscoroutinefunction
from itertools import pairwise
from threading import Event
from typing import Any

from routilux import Flow, JobContext, Routine, WorkerState
from routilux.activation_policies import ActivationPolicy, immediate_policy
from tests.waiting import SECONDS

Logic = Callable[[Any, Any, Any], Any]


class Step(Routine):
    """One slot, one event; emits what comes in. Give it other logic with ``step(fn)``."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.add_event("output")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> Any:
        for payload in slot_data["input"]:
            self.emit("output", **payload)


class Join(Routine):
    """Two slots; emits what the policy took, by slot."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("left")
        self.add_slot("right")
        self.add_event("output")

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        self.emit("output", left=slot_data["left"], right=slot_data["right"], message=policy_message)


def step(fn: Callable[..., Any], **slot_options: Any) -> Step:
    """A step with this logic: ``fn(routine, payload, state)`` for each payload."""

    class Made(Step):
        def __init__(self) -> None:
            Routine.__init__(self)
            self.add_slot("input", **slot_options)
            self.add_event("output")
            self.set_activation_policy(immediate_policy())

    routine = Made()

    def logic(slot_data: Any, policy_message: Any, state: Any) -> None:
        for payload in slot_data["input"]:
            fn(routine, payload, state)

    async def async_logic(slot_data: Any, policy_message: Any, state: Any) -> None:
        for payload in slot_data["input"]:
            await fn(routine, payload, state)

    routine.set_logic(async_logic if iscoroutinefunction(fn) else logic)
    return routine


def join(policy: ActivationPolicy) -> Join:
    routine = Join()
    routine.set_activation_policy(policy)
    return routine


def flow_of(*routines: Routine, flow_id: str = "flow", **options: Any) -> Flow:
    """A flow of routines ``a``, ``b``, ``c`` and so on, not connected."""
    flow = Flow(flow_id, **options)
    for letter, routine in zip("abcdefgh", routines, strict=False):
        flow.add_routine(routine, letter)
    return flow


def chain(*routines: Routine, flow_id: str = "chain", **options: Any) -> Flow:
    """A flow of routines ``a``, ``b``, ``c`` and so on, each connected to the next."""
    flow = flow_of(*routines, flow_id=flow_id, **options)
    ids = list(flow.routines)
    for source, target in pairwise(ids):
        flow.connect(source, "output", target, "input")
    return flow


class Held:
    """Logic that stays inside until it is let go: ``step(held)``. Emits its payload then."""

    def __init__(self) -> None:
        self.entered = Event()
        self.let_go = Event()

    def __call__(self, routine: Routine, payload: dict[str, Any], state: WorkerState) -> None:
        self.entered.set()
        assert self.let_go.wait(SECONDS)
        routine.emit("output", **payload)


def outputs_of(job: JobContext | Any) -> list[dict[str, Any]]:
    return [output.data for output in job.outputs]
