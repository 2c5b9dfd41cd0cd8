"""Small routines and flows, and the two questions that most tests here ask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest

from routilux.errors import RoutiluxError
from routilux.model.flow import Flow
from routilux.model.policy import immediate_policy
from routilux.model.routine import Routine


class Step(Routine):
    """Slot ``input``, event ``output``."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.add_event("output", ["value", "key"])
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        pass


def chain(*ids: str, flow_id: str = "line") -> Flow:
    """Steps connected one after the other."""
    flow = Flow(flow_id)
    for routine_id in ids:
        flow.add_routine(Step(), routine_id)
    for source, target in pairwise(ids):
        flow.connect(source, "output", target, "input")
    return flow


def shape(flow: Flow) -> object:
    """Everything that a mutation could change."""
    return (
        {routine_id: (routine, declared(routine)) for routine_id, routine in flow.routines.items()},
        [(connection.ends, connection.mapping) for connection in flow.connections],
        {c.ends: flow.connections_from(*c.ends[:2]) for c in flow.connections},
        {c.ends: flow.connections_to(*c.ends[2:]) for c in flow.connections},
        flow.entry,
        flow.error_handler,
    )


def declared(routine: Routine) -> object:
    return (
        dict(routine.slots),
        dict(routine.events),
        dict(routine.config),
        routine.activation_policy,
        routine.error_handler,
        routine.concurrency,
        routine.timeout,
        routine.own_logic,
        routine.flow,
        routine.routine_id,
    )


def refusal(action: Callable[[], object], error: type[RoutiluxError], *fragments: str) -> RoutiluxError:
    """The error that the action raises: of this class, with these fragments in its message."""
    with pytest.raises(error) as caught:
        action()
    for fragment in fragments:
        assert fragment in str(caught.value)
    return caught.value


def table(names: tuple[str, ...] | str, rows: Sequence[Any]) -> pytest.MarkDecorator:
    """Run a test for each row, which goes by its number."""
    return pytest.mark.parametrize(names, rows, ids=[str(number) for number in range(len(rows))])
