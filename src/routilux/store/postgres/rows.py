"""Rows as PostgreSQL keeps them.

A text of PostgreSQL has no place for U+0000, and UTF-8 none for half a surrogate pair. U+0001 therefore begins an
escape: U+0001 U+0001 stands for U+0000, U+0001 U+0002 for U+0001, and U+0001 with a character beyond U+FFFF for a
surrogate. All other texts are stored as they are, and texts without surrogates keep their order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeVar, get_type_hints
from zlib import crc32

from routilux.errors import StoreCorruptError, shown
from routilux.ports import (
    Answer,
    Command,
    EntryRow,
    ItemKey,
    ItemRow,
    JobRow,
    KeyRow,
    LetterRow,
    NoteKey,
    PropertyRow,
    StoredJob,
    WorkerRow,
)

Column = list[Any]


class NoteRow(NamedTuple):
    worker_id: str
    kind: str
    owner: str
    name: str
    data: bytes


R = TypeVar("R", WorkerRow, ItemRow, NoteRow, EntryRow, JobRow, LetterRow, KeyRow, PropertyRow)

_ESCAPED: Final = re.compile("[\0\1\ud800-\udfff]")
_ESCAPE: Final = re.compile("\1(.)", re.DOTALL)
_FIRST_SURROGATE: Final = 0xD800
_FIRST_BEYOND: Final = 0x10000


def storable(text: str) -> str:
    return _ESCAPED.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\1{chr(code + 1 if code < 2 else code - _FIRST_SURROGATE + _FIRST_BEYOND)}"


def readable(value: Any) -> Any:
    """What a stored value was; only texts can differ."""
    if isinstance(value, str) and "\1" in value:
        return _ESCAPE.sub(_unescape, value)
    return value


def _unescape(found: re.Match[str]) -> str:
    code = ord(found[1])
    return chr(code - 1 if code < _FIRST_BEYOND else code - _FIRST_BEYOND + _FIRST_SURROGATE)


def texts(column: Iterable[str | None]) -> Column:
    values = list(column)
    if _ESCAPED.search("".join(value for value in values if value)):
        return [value and storable(value) for value in values]
    return values


def _floats(column: Iterable[float | None]) -> Column:
    return [None if value is None else float(value) for value in column]


_STORED: Final[dict[Any, Callable[[Iterable[Any]], Column]]] = {
    str: texts, str | None: texts, int: list, float: _floats, float | None: _floats, bytes: list,
}  # fmt: skip
_ROWS: Final = (
    WorkerRow, ItemRow, ItemKey, NoteRow, NoteKey, EntryRow, JobRow, LetterRow, KeyRow, PropertyRow, Command,
    Answer,
)  # fmt: skip
_COLUMNS: Final[dict[type, list[Callable[[Iterable[Any]], Column]]]] = {
    kind: [_STORED[hint] for hint in get_type_hints(kind).values()] for kind in _ROWS
}


def columns(kind: type, rows: Iterable[Sequence[Any]]) -> list[Column]:
    """The fields of the rows, one list for each column."""
    return [stored(column) for stored, column in zip(_COLUMNS[kind], zip(*rows, strict=True), strict=True)]


def sealed(kind: type, rows: Iterable[Sequence[Any]]) -> list[Column]:
    """The same with the seals as one more column."""
    stored = columns(kind, rows)
    return [*stored, [_seal(row) for row in zip(*stored, strict=True)]]


def balances(job_ids: Column) -> Column:
    """What goes with a count of 0 items."""
    return [crc32(job_id.encode()) for job_id in job_ids]


def opened(kind: type[R], row: Sequence[Any], name: str) -> R:
    """The row that was stored; the last field is its seal. ``name`` is the store's, for the message."""
    *fields, seal = row
    if _seal(fields) != seal:
        raise _altered(kind.__name__, fields, name)
    return kind(*map(readable, fields))


def opened_job(row: Sequence[Any], name: str) -> StoredJob:
    """From the count, its balance, and the row with its seal."""
    items, balance, *fields = row
    if [items + balance] != balances(fields[:1]):
        raise _altered("the count of items", fields, name)
    return StoredJob(opened(JobRow, fields, name), items)


def _altered(what: str, fields: Sequence[Any], name: str) -> StoreCorruptError:
    begins = ", ".join(shown(field) for field in fields[:4])
    return StoreCorruptError(
        f"{name}: {what} of {begins}, … is not what was written; something else has changed it, or it was damaged. "
        "Restore the database from a backup"
    )


def _seal(fields: Sequence[Any]) -> int:
    """Of the values as they are stored. ``ascii`` looks the same in every version of Python."""
    data = fields[-1] if isinstance(fields[-1], bytes) else b""
    head = tuple(fields[:-1] if isinstance(fields[-1], bytes) else fields)
    return crc32(data, crc32(ascii(head).encode("ascii")))
