"""Rows of every kind as lines of JSON, and into another store."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from routilux.errors import StoreCorruptError
from routilux.ports import (
    UNFINISHED,
    Changes,
    EntryRow,
    ItemRow,
    JobRow,
    KeyRow,
    LetterRow,
    NoteKey,
    PropertyRow,
    Store,
    StoredJob,
    Tombstone,
    WorkerRow,
)

AnyRow: TypeAlias = (
    WorkerRow
    | ItemRow
    | tuple[NoteKey, bytes]
    | EntryRow
    | StoredJob
    | LetterRow
    | KeyRow
    | Tombstone
    | PropertyRow
)

FORMAT = 2
FORMATS = (1, 2)  # that can be read; the first has neither tombstones nor properties
TABLES: dict[str, Any] = {
    "workers": WorkerRow, "items": ItemRow, "entries": EntryRow, "letters": LetterRow, "keys": KeyRow,
    "tombstones": Tombstone, "properties": PropertyRow,
}  # fmt: skip
_NAMES = {row: name for name, row in TABLES.items()}
_BATCH = 500  # rows in one transaction


def table_of(row: AnyRow) -> str:
    if isinstance(row, StoredJob):
        return "jobs"
    return _NAMES.get(type(row), "notes")


def to_lines(rows: Iterable[AnyRow], counts: Counter[str]) -> Iterator[str]:
    """A line for each row, between a first one with the format and a last one with the counts."""
    yield _line({"routilux_export": FORMAT})
    for row in rows:
        counts[table_of(row)] += 1
        yield line_of(row)
    yield _line({"end": dict(counts)})


def line_of(row: AnyRow) -> str:
    return _line({"table": table_of(row), "row": _to_fields(row)})


def from_lines(lines: Iterable[str]) -> Iterator[AnyRow]:
    """The rows again. Raises StoreCorruptError, naming the line, for what is no whole export."""
    counts: Counter[str] = Counter()
    end = None
    for number, line in enumerate(lines, start=1):
        if end is not None:
            raise _unreadable(number, "it comes after the end")
        read = _parsed(number, line)
        if number == 1:
            _check_first(read)
        elif "end" in read:
            end = read["end"]
        else:
            row = _from_line(number, read)
            counts[table_of(row)] += 1
            yield row
    if end != dict(counts):
        raise StoreCorruptError(
            f"the export is not whole: {dict(counts)} rows were read, and its last line says {end}; export again"
        )


def into(store: Store, rows: Iterable[AnyRow]) -> Counter[str]:
    """Write rows into a store that is being filled; returns how many there were of each table. By the last transaction
    it is whole."""
    written: Counter[str] = Counter()
    changes = Changes()
    for row in rows:
        _add(changes, row)
        written[table_of(row)] += 1
        if written.total() % _BATCH == 0:
            store.write(changes)
            changes = Changes()
    changes.properties[UNFINISHED] = None
    store.write(changes)
    return written


def _add(changes: Changes, row: AnyRow) -> None:
    match row:
        case WorkerRow():
            changes.workers[row.worker_id] = row
        case ItemRow():
            changes.items.append(row)
        case EntryRow():
            changes.entries.append(row)
        case StoredJob(job, items):
            changes.jobs[job.job_id] = job
            changes.counts[job.job_id] = items
        case LetterRow():
            changes.letters.append(row)
        case KeyRow():
            changes.keys.append(row)
        case Tombstone(job):
            changes.tombstones[job.job_id] = job
        case PropertyRow(name, value):
            changes.properties[name] = value
        case (note, data):
            changes.notes[note] = data


def _to_fields(row: AnyRow) -> dict[str, Any]:
    fields: dict[str, Any]
    if isinstance(row, StoredJob):
        fields = {**row.row._asdict(), "items": row.items}
    elif isinstance(row, Tombstone):
        fields = row.row._asdict()
    elif isinstance(row, WorkerRow | ItemRow | EntryRow | LetterRow | KeyRow | PropertyRow):
        fields = row._asdict()
    else:
        fields = {**row[0]._asdict(), "data": row[1]}
    return {name: _text(value) if isinstance(value, bytes) else value for name, value in fields.items()}


def _from_line(number: int, read: dict[str, Any]) -> AnyRow:
    try:
        table, fields = read["table"], dict(read["row"])
        if "data" in fields:
            fields["data"] = _bytes(fields["data"])
        if table == "jobs":
            return StoredJob(items=fields.pop("items"), row=JobRow(**fields))
        if table == "tombstones":
            return Tombstone(JobRow(**fields))
        if table == "notes":
            data = fields.pop("data")
            return NoteKey(**fields), data
        row: AnyRow = TABLES[table](**fields)
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(number, f"no row can be made of it: {error!r}") from error
    return row


def _check_first(read: dict[str, Any]) -> None:
    if read.get("routilux_export") not in FORMATS:
        raise _unreadable(1, f'expected {{"routilux_export": {FORMAT}}}, the first line of an export')


def _parsed(number: int, line: str) -> dict[str, Any]:
    try:
        read = json.loads(line)
    except ValueError as error:
        raise _unreadable(number, f"it is no JSON: {error}") from error
    if not isinstance(read, dict):
        raise _unreadable(number, "it is no JSON object")
    return read


def _unreadable(number: int, why: str) -> StoreCorruptError:
    return StoreCorruptError(f"line {number} of the export cannot be read: {why}")


def _line(value: dict[str, Any]) -> str:
    line = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        line.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        line = json.dumps(value, separators=(",", ":"))
    return line + "\n"


def _text(data: bytes) -> str | dict[str, str]:
    """Readable where it can be; what the codec writes always can."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(data).decode()}


def _bytes(value: str | dict[str, str]) -> bytes:
    return value.encode() if isinstance(value, str) else b64decode(value["base64"], validate=True)
