"""The fingerprint of a flow: whether a stored worker still fits it."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from routilux.model.flow import Flow
    from routilux.model.routine import Routine


def fingerprint(flow: Flow) -> str:
    """A stable hash over ids, slots, events, connections and policies; not over code, limits or order."""
    routines = sorted(_shape(routine) for routine in flow.routines.values())
    connections = sorted(
        (*connection.ends, sorted((connection.mapping or {}).items())) for connection in flow.connections
    )
    shape = repr((flow.flow_id, routines, connections))
    return blake2b(shape.encode(), digest_size=16).hexdigest()


def _shape(routine: Routine) -> tuple[Any, ...]:
    slots = sorted(
        (slot.name, slot.merge_strategy if isinstance(slot.merge_strategy, str) else "custom")
        for slot in routine.slots.values()
    )
    policy = None if routine.activation_policy is None else routine.activation_policy.to_dict()
    if policy and policy["policy"] == "custom":
        policy = {"policy": "custom"}
    return routine.routine_id, slots, sorted(routine.events), sorted((policy or {}).items())
