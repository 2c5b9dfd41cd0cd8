"""Rows with their checksums: how they lie in the database, and how they are taken out of it."""

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
    return crc32(data, crc32(text.encode()))


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
    return job_id, change, crc32(job_id.encode()) - change


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


def checked_count(job_id: object, items: object, balance: object) -> int:
    if isinstance(job_id, str) and isinstance(items, int) and isinstance(balance, int):
        if items + balance == crc32(job_id.encode()):
            return items
    raise corrupt("count", (job_id,))


def opened_key(stored: Fields) -> KeyRow:
    if not _is_sealed(stored[:-1], b"", stored[-1]):
        raise corrupt("key", stored[:2])
    return KeyRow._make(stored[:-1])


def opened_property(stored: Fields) -> PropertyRow:
    if not _is_sealed(stored[:-1], b"", stored[-1]):
        raise corrupt("property", stored[:1])
    return PropertyRow._make(stored[:-1])


def _checked(type_name: str, stored: Fields) -> Fields:
    if not _is_sealed(stored[:-2], stored[-2], stored[-1]):
        kind, width = _KEYS[type_name]
        raise corrupt(kind, stored[:width])
    return stored[:-1]


def _is_sealed(fields: Fields, data: object, crc: object) -> bool:
    return isinstance(data, bytes) and seal(fields, data) == crc


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
