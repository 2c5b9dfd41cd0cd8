"""A connection from an event to a slot."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from routilux.errors import IncompatibleTypesError, InvalidTypeError, InvalidValueError, refused, unknown
from routilux.model.types import mismatch_between
from routilux.model.value import Value

if TYPE_CHECKING:
    from routilux.model.event import Event
    from routilux.model.slot import Slot


class Connection(Value):
    """Made by ``Flow.connect``: what is emitted on ``source`` enters ``target``.

    ``mapping`` renames keys of the payload on the way; the others pass unchanged.
    """

    __slots__ = ("source", "target", "mapping")  # in the order of the constructor
    source: Event
    target: Slot
    mapping: Mapping[str, str] | None

    def __init__(self, source: Event, target: Slot, mapping: Mapping[str, str] | None = None) -> None:
        frozen = MappingProxyType(dict(mapping)) if mapping else None
        self._init(source=source, target=target, mapping=frozen)

    @property
    def ends(self) -> tuple[str, str, str, str]:
        """Routine id and event, routine id and slot."""
        return (
            self.source.routine.routine_id,
            self.source.name,
            self.target.routine.routine_id,
            self.target.name,
        )

    def __hash__(self) -> int:
        return hash((self.source, self.target))

    def __str__(self) -> str:
        return f"{self.source.qualified_name} -> {self.target.qualified_name}"


def check_mapping(mapping: object, event: Event) -> None:
    """Raise a ``ConfigurationError`` if a mapping cannot rename what the event emits."""
    where = f"mapping of event {event.qualified_name!r}"
    if mapping is None:
        return
    if not isinstance(mapping, Mapping):
        raise refused(InvalidTypeError, where, mapping, "a dict {source key: target key}")
    for name in (*mapping, *mapping.values()):
        if not isinstance(name, str) or not name:
            raise refused(InvalidTypeError, where, name, "names of payload keys")
    targets = list(mapping.values())
    if len(set(targets)) < len(targets):
        twice = next(name for name in targets if targets.count(name) > 1)
        sources = [name for name, target in mapping.items() if target == twice]
        raise InvalidValueError(
            f"{where}: {sources} would all arrive as {twice!r}, so that all but one are lost; "
            "give each a target key of its own"
        )
    if event.output_params is not None:
        _check_declared(mapping, event, event.output_params, where)


def check_types(event: Event, slot: Slot, mapping: Mapping[str, str] | None) -> None:
    """Raise an ``IncompatibleTypesError`` if both ends declare a type and the slot's is not filled."""
    if event.data_type is None or slot.data_type is None:
        return
    mismatch = mismatch_between(event.data_type, slot.data_type, mapping)
    if mismatch:
        raise IncompatibleTypesError(
            f"event {event.qualified_name!r} ({event.data_type.name}) does not fit slot "
            f"{slot.qualified_name!r} ({slot.data_type.name}): field {mismatch.field!r} needs "
            f"{mismatch.expected}, and the event gives {mismatch.found}; "
            "change one of the types, or rename with mapping=",
            field=mismatch.field,
            routine_id=slot.routine.routine_id,
            slot=slot.name,
        )


def _check_declared(mapping: Mapping[str, str], event: Event, declared: tuple[str, ...], where: str) -> None:
    for source, target in mapping.items():
        if source not in declared:
            place = f"of event {event.qualified_name!r} to rename"
            raise unknown("output parameter", source, declared, where=place)
        if target in declared and target not in mapping:
            raise InvalidValueError(
                f"{where}: {source!r} would arrive as {target!r}, which the event emits too, so that one "
                f"is lost; choose another target key, or rename {target!r} as well"
            )
