"""Names of flows, routines, slots and events."""

from __future__ import annotations

from routilux.errors import InvalidTypeError, InvalidValueError, refused

_LONGEST = 200


def checked_name(kind: str, name: object, *, dots: bool = False) -> str:
    """Return the name if it can be one; a dot is refused because it separates: ``"routine.slot"``."""
    where = f"name of a {kind}" if kind != "event" else "name of an event"
    if not isinstance(name, str):
        raise refused(InvalidTypeError, where, name, "text")
    if not name or name != name.strip() or not name.isprintable():
        raise refused(InvalidValueError, where, name, "printable text without space at its ends")
    if len(name) > _LONGEST:
        raise refused(InvalidValueError, where, name, f"at most {_LONGEST} characters")
    if "." in name and not dots:
        fix = f"a dot separates routine and slot, so use {name.replace('.', '_')!r}"
        raise refused(InvalidValueError, where, name, "a name without a dot", fix=fix)
    return name
