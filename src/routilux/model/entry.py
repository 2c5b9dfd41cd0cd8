"""Where the data of a one-shot execution goes in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from routilux.errors import InvalidTypeError, InvalidValueError, refused, unknown

if TYPE_CHECKING:
    from routilux.model.flow import Flow


def unfed_slots(flow: Flow) -> dict[str, list[str]]:
    """By routine id, the slots that no connection leads to; routines without such a slot are left out."""
    unfed = {
        routine_id: [slot for slot in routine.slots if not flow.connections_to(routine_id, slot)]
        for routine_id, routine in flow.routines.items()
    }
    return {routine_id: slots for routine_id, slots in unfed.items() if slots}


def resolve_entry(flow: Flow, given: str | None = None) -> tuple[str, str]:
    """The routine and slot that ``entry_params`` go to; ``ConfigurationError`` if that is not clear.

    ``given`` is "routine" or "routine.slot"; else what ``set_entry`` said, else the one routine with a slot
    that nothing feeds.
    """
    if given is not None:
        return _given(flow, given)
    if flow.entry is None:
        return _only_candidate(flow)
    routine_id, slot = flow.entry
    return (routine_id, slot) if slot is not None else (routine_id, entry_slot(flow, routine_id))


def entry_slot(flow: Flow, routine_id: str) -> str:
    """The slot of a routine that data enters by: its only one, else the only one that nothing feeds."""
    slots = list(flow.routines[routine_id].slots)
    unfed = unfed_slots(flow).get(routine_id, [])
    if len(slots) == 1:
        return slots[0]
    if len(unfed) == 1:
        return unfed[0]
    if not slots:
        problem = f"routine {routine_id!r} has no slot to enter by"
        raise InvalidValueError(f"{problem}; declare one with add_slot()", routine_id=routine_id)
    raise InvalidValueError(
        f"routine {routine_id!r} could be entered by several slots: {unfed or slots}; "
        f"say which: set_entry({routine_id!r}, {(unfed or slots)[0]!r})",
        flow_id=flow.flow_id,
        routine_id=routine_id,
        known=tuple(slots),
    )


def _given(flow: Flow, given: str) -> tuple[str, str]:
    if not isinstance(given, str):
        raise refused(InvalidTypeError, "entry", given, "text such as 'routine' or 'routine.slot'")
    routine_id, _, slot = given.partition(".")
    routine = flow.routines.get(routine_id)
    if routine is None:
        raise unknown(
            "routine", routine_id, flow.routines, where=f"in flow {flow.flow_id!r}", flow_id=flow.flow_id
        )
    if slot and slot not in routine.slots:
        raise routine.unknown_slot(slot)
    return routine_id, slot or entry_slot(flow, routine_id)


def _only_candidate(flow: Flow) -> tuple[str, str]:
    candidates = list(unfed_slots(flow))
    if len(candidates) == 1:
        return candidates[0], entry_slot(flow, candidates[0])
    if not candidates:
        known = list(flow.routines)
        problem = "has no routine with a slot that nothing feeds"
    else:
        known = candidates
        problem = f"has several routines with a slot that nothing feeds: {candidates}"
    example = f"set_entry({known[0]!r})" if known else "add_routine(...)"
    raise InvalidValueError(
        f"flow {flow.flow_id!r} {problem}, so it is not clear where entry_params go; call flow.{example}",
        flow_id=flow.flow_id,
        known=tuple(known),
    )
