"""Rows with their checksums: how they lie in the database, and how they are taken out of it.

UTF-8 has no place for half a surrogate pair, which is what Python makes of a file name that is no UTF-8. A text that
has one lies in the database as a BLOB, which no column of texts converts; all others are texts. The texts keep their
order, and the BLOBs come behind them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar
from zlib import crc32

from routilux.errors import StoreCorruptError, shown
from routilux.ports import (
    EntryRow,
    ItemRow,
    JobRow,
    KeyRow,
    LetterRow,
    NoteKey,
    PropertyRow,
    StoredJob,
    WorkerRow,
)

Fields = Sequence[Any]
R = TypeVar("R", WorkerRow, ItemRow, EntryRow, JobRow, LetterRow)


def seal(fields: Fields, data: bytes = b"") -> int:
    """CRC-32 over all fields of a row and its blob.

    Texts go in as they are: their repr depends on which characters this version of Python knows.
    """
    text = "\0".join([field if isinstance(field, str) else repr(field) for field in fields])
    try:
        return crc32(data, crc32(text.encode()))
    except UnicodeEncodeError:
        return crc32(data, crc32(_as_blob(text)))


def storable(values: Sequence[Any]) -> list[Any]:
    """Values for a statement that SQLite does not take as they are."""
    return [
        _as_blob(value) if isinstance(value, str) and not _is_unicode(value) else value for value in values
    ]


def readable(value: Any) -> Any:
    """A text as it was, from a column of texts."""
    return value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else value


def _as_blob(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def sealed(row: Fields) -> Fields:
    """A row that ends with its blob, as it is stored."""
    return *row, seal(row[:-1], row[-1])


def sealed_note(note: NoteKey, data: bytes) -> Fields:
    return *note, data, seal(note, data)


def sealed_whole(row: KeyRow | PropertyRow) -> Fields:
    """A row without a blob, as it is stored."""
    return *row, seal(row)


def counted(job_id: str, change: int) -> Fields:
    """A change of a job's count, and what balances it."""
    return job_id, change, _balance(job_id) - change


def _balance(job_id: str) -> int:
    return crc32(_as_blob(job_id))


def opened(type_: type[R], stored: Iterable[Fields]) -> list[R]:
    """Rows that end with blob and checksum; raises StoreCorruptError for the first that was altered."""
    return [type_._make(_checked(type_.__name__, row)) for row in stored]


def opened_notes(stored: Iterable[Fields]) -> list[tuple[NoteKey, bytes]]:
    return [(NoteKey._make(row[:4]), row[4]) for row in (_checked("NoteKey", row) for row in stored)]


def opened_job(stored: Fields) -> StoredJob:
    *row, items, balance = stored
    job = JobRow._make(_checked("JobRow", row))
    if items is None:
        return StoredJob(job, 0)
    return StoredJob(job, checked_count(job.job_id, items, balance))


def checked_count(job_id: str, items: object, balance: object) -> int:
    """``job_id`` as it is read, not as it is stored."""
    if isinstance(items, int) and isinstance(balance, int) and items + balance == _balance(job_id):
        return items
    raise corrupt("count", (job_id,))


def opened_key(stored: Fields) -> KeyRow:
    return KeyRow._make(_checked_whole("key", 2, stored))


def opened_property(stored: Fields) -> PropertyRow:
    return PropertyRow._make(_checked_whole("property", 1, stored))


def _checked_whole(kind: str, width: int, stored: Fields) -> Fields:
    """The fields of a row without a blob."""
    fields = _sealed_fields(stored[:-1], b"", stored[-1])
    if fields is None:
        raise corrupt(kind, stored[:width])
    return fields


def _checked(type_name: str, stored: Fields) -> Fields:
    fields, data = stored[:-2], stored[-2]
    if isinstance(data, bytes):
        whole = _sealed_fields(fields, data, stored[-1])
        if whole is not None:
            return *whole, data
    kind, width = _KEYS[type_name]
    raise corrupt(kind, stored[:width])


def _sealed_fields(fields: Fields, data: bytes, crc: object) -> Fields | None:
    """The fields of a row as they were written; None if these were altered. Hardly any has a text that is a BLOB."""
    if seal(fields, data) == crc:
        return fields
    try:
        read = [readable(field) for field in fields]
    except UnicodeDecodeError:
        return None
    return read if seal(read, data) == crc else None


_KEYS = {
    "WorkerRow": ("worker", 1), "ItemRow": ("item", 3), "NoteKey": ("note", 4), "EntryRow": ("entry", 4),
    "JobRow": ("job", 1), "LetterRow": ("letter", 2),
}  # fmt: skip
"""What a row is called, and how many of its first fields say which one it is."""


def corrupt(kind: str, key: Fields) -> StoreCorruptError:
    return StoreCorruptError(
        f"the {kind} {' / '.join(map(shown, key))} is not what was written: its checksum does not fit; "
        "the file was altered outside, or the disk is failing. routilux.store.check() lists all damage, "
        "repair() saves what can be read into a new database"
    )
