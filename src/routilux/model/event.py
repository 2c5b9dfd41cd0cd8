"""A named output of a routine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Never

from routilux.errors import InvalidTypeError, refused
from routilux.model.names import checked_name
from routilux.model.types import DataType, DeclaredType, data_type
from routilux.model.value import Frozen

if TYPE_CHECKING:
    from routilux.model.routine import Routine


class Event(Frozen):
    """Declared by ``Routine.add_event``.

    ``output_params`` names the keys of what is emitted, for people and for the check of mappings; ``None``
    says nothing about them. ``type`` is what emitted payloads are checked against.
    """

    __slots__ = ("data_type", "name", "output_params", "routine", "type")

    name: str
    routine: Routine
    output_params: tuple[str, ...] | None
    type: DeclaredType | None
    data_type: DataType | None

    def __init__(
        self,
        name: str,
        routine: Routine,
        output_params: Iterable[str] | None = None,
        type: DeclaredType | None = None,
    ) -> None:
        self._init(
            name=checked_name("event", name),
            routine=routine,
            output_params=_params(name, output_params),
            type=type,
            data_type=None if type is None else data_type(type, f"type of event {name!r}"),
        )

    @property
    def qualified_name(self) -> str:
        """``"routine.event"``; the class stands for a routine that is in no flow yet."""
        return f"{self.routine.routine_id or type(self.routine).__name__}.{self.name}"

    def emit(self, /, *misplaced: Never, **data: Any) -> None:
        """The same as ``routine.emit`` with this event."""
        self.routine.emit(self, *misplaced, **data)

    def __repr__(self) -> str:
        return f"<Event {self.qualified_name!r}>"


def _params(event: str, params: object) -> tuple[str, ...] | None:
    if params is None:
        return None
    where = f"output_params of event {event!r}"
    if isinstance(params, (str, bytes)) or not isinstance(params, Iterable):
        raise refused(InvalidTypeError, where, params, "a list of names", fix=f"write [{params!r}]")
    names = tuple(params)
    for name in names:
        if not isinstance(name, str):
            raise refused(InvalidTypeError, where, name, "text")
    return names
