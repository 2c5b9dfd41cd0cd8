"""Finding the event and the slot that a caller means, and naming the nearest ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from routilux.errors import InvalidTypeError, InvalidValueError, refused
from routilux.model.event import Event
from routilux.model.slot import Slot

if TYPE_CHECKING:
    from routilux.model.routine import Routine


def find_event(source: Routine, event: object, target: Routine, slot: object) -> Event:
    """The event of ``source``; ``target`` and ``slot`` are the other end, to see whether they are swapped."""
    if isinstance(event, Slot) or isinstance(slot, Event):
        raise _swapped(source, _name(event), target, _name(slot))
    if isinstance(event, Event):
        if event.routine is not source:
            raise InvalidValueError(f"event {event.qualified_name!r} is not one of {source}")
        return event
    if not isinstance(event, str):
        raise refused(InvalidTypeError, f"event of {source}", event, "the name of an event, or the event")
    if event not in source.events:
        if event in source.slots:
            raise _swapped(source, event, target, _name(slot))
        raise source.unknown_event(event)
    return source.events[event]


def find_slot(routine: Routine, slot: object) -> Slot:
    if isinstance(slot, Slot):
        if slot.routine is not routine:
            raise InvalidValueError(f"slot {slot.qualified_name!r} is not one of {routine}")
        return slot
    if not isinstance(slot, str):
        raise refused(InvalidTypeError, f"slot of {routine}", slot, "the name of a slot, or the slot")
    if slot not in routine.slots:
        raise routine.unknown_slot(slot)
    return routine.slots[slot]


def _name(port: object) -> object:
    return port.name if isinstance(port, (Slot, Event)) else port


def _swapped(source: Routine, event: object, target: Routine, slot: object) -> InvalidValueError:
    first = (
        f"{event!r} is a slot of {source}" if event in source.slots else f"{slot!r} is an event of {target}"
    )
    ids = f"{target.routine_id!r}, {slot!r}, {source.routine_id!r}, {event!r}"
    hint = (
        f"connect({ids})"
        if event in source.slots and slot in target.events
        else "connect(source, event, target, slot)"
    )
    return InvalidValueError(
        f"connect() goes from an event to a slot, but {first}; the ends are swapped? Write {hint}",
        routine_id=source.routine_id,
    )
