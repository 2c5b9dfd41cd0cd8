"""What routine types and policies may be called, so that a document can name them."""

from __future__ import annotations

import re
from typing import Final

from routilux.errors import InvalidTypeError, InvalidValueError, refused

NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z_][A-Za-z0-9_-]*)*", re.ASCII)
_LONGEST: Final = 100


def is_type_name(name: str) -> bool:
    return len(name) <= _LONGEST and NAME.fullmatch(name) is not None


def checked_type_name(name: object, kind: str) -> str:
    """Return the name if a document can use it."""
    where = f"name of a {kind}"
    if not isinstance(name, str):
        raise refused(InvalidTypeError, where, name, "text")
    if not is_type_name(name):
        expected = "letters, digits, '_' and '-', in ASCII, with dots between parts"
        raise refused(InvalidValueError, where, name, expected, fix="give a name such as 'read_csv'")
    return name
