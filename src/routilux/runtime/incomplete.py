"""What becomes of a set that ``all_slots_ready_policy(timeout=...)`` has given up.

It leaves in an activation of its own, which runs no logic: through the routine's event ``incomplete``, or, without
one, as dead letters. So it is counted, written and released like everything else that an activation does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from routilux.errors import shown
from routilux.model.policy import INCOMPLETE, ActivationPolicy, AllSlotsReadyPolicy

if TYPE_CHECKING:
    from routilux.model.routine import Routine


class IncompleteSetError(Exception):
    """Ends the activation of a set that was given up; its items become dead letters, and no job fails."""


def logic_of(routine: Routine, policy: ActivationPolicy) -> Callable[..., Any]:
    """The logic of a routine; in front of it, where its policy gives sets up, what is done with those."""
    logic = routine.bound_logic
    if not isinstance(policy, AllSlotsReadyPolicy) or policy.timeout is None:
        return logic
    by, reason = policy.by, f"no partner came within {policy.timeout:g} s"

    def give_up(slot_data: Mapping[str, Any]) -> None:
        missing = [name for name in routine.slots if not slot_data[name]]
        if INCOMPLETE not in routine.events:
            key = "" if by is None or by == "job" else f" for {by}={shown(_first(slot_data)[by])}"
            raise IncompleteSetError(f"{reason} in {', '.join(missing)}{key}")
        payload = {name: slot_data[name][0] for name in routine.slots if slot_data[name]}
        routine.emit(INCOMPLETE, reason=reason, missing=missing, payload=payload)

    if routine.is_async:

        async def complete_or_not(slot_data: Any, policy_message: Any, state: Any) -> Any:
            return (
                give_up(slot_data)
                if policy_message == INCOMPLETE
                else await logic(slot_data, policy_message, state)
            )

        return complete_or_not

    def complete_or_given_up(slot_data: Any, policy_message: Any, state: Any) -> Any:
        return give_up(slot_data) if policy_message == INCOMPLETE else logic(slot_data, policy_message, state)

    return complete_or_given_up


def _first(slot_data: Mapping[str, Any]) -> Any:
    """A payload of the set; there is one."""
    return next(payloads[0] for payloads in slot_data.values() if payloads)
