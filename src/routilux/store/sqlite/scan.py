"""Every row of a database, table by table: for checks, exports and repairs.

These statements are made from the fields of the rows, where ``queries.sql`` holds those of the running store.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

from routilux.errors import StoreCorruptError
from routilux.ports import (
    EntryRow,
    ItemRow,
    JobRow,
    KeyRow,
    LetterRow,
    NoteKey,
    PropertyRow,
    Tombstone,
    WorkerRow,
)
from routilux.store.exchange import AnyRow
from routilux.store.sqlite.rows import (
    Fields,
    corrupt,
    opened,
    opened_job,
    opened_key,
    opened_notes,
    opened_property,
)

_CHUNK = 500  # rows that are read at a time: no transaction stays open for longer than these take

Key: TypeAlias = tuple[Any, ...]


class Table(NamedTuple):
    """``key`` are the columns of the primary key, in its order, and ``places`` where they stand in ``columns``."""

    name: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    open: Callable[[Fields], AnyRow]
    places: tuple[int, ...]
    since: int  # the format that has made it

    @classmethod
    def of(
        cls,
        name: str,
        key: tuple[str, ...],
        columns: tuple[str, ...],
        open: Callable[[Fields], AnyRow],
        since: int = 1,
    ) -> Table:
        return cls(name, key, columns, open, tuple(map(columns.index, key)), since)

    def key_of(self, row: Fields) -> Key:
        return tuple([row[place] for place in self.places])

    def select(self, after: Key | None, backwards: bool) -> str:
        beyond, direction = ("<", "DESC") if backwards else (">", "ASC")
        where = f"WHERE ({', '.join(self.key)}) {beyond} ({', '.join('?' * len(self.key))})"
        order = ", ".join(f"{column} {direction}" for column in self.key)
        source = "jobs LEFT JOIN counts USING (job_id)" if self.name == "jobs" else self.name
        return (
            f"SELECT {', '.join(self.columns)} FROM {source} {where if after is not None else ''} "
            f"ORDER BY {order} LIMIT {_CHUNK}"
        )


TABLES: tuple[Table, ...] = (
    Table.of("workers", ("worker_id",), (*WorkerRow._fields, "crc"), lambda row: opened(WorkerRow, [row])[0]),
    Table.of(
        "items",
        ("worker_id", "place", "number"),
        (*ItemRow._fields, "crc"),
        lambda row: opened(ItemRow, [row])[0],
    ),
    Table.of(
        "notes",
        ("worker_id", "owner", "kind", "name"),
        (*NoteKey._fields, "data", "crc"),
        lambda row: opened_notes([row])[0],
    ),
    Table.of(
        "entries",
        ("worker_id", "owner", "kind", "number"),
        (*EntryRow._fields, "crc"),
        lambda row: opened(EntryRow, [row])[0],
    ),
    Table.of("jobs", ("job_id",), (*JobRow._fields, "crc", "items", "balance"), opened_job),
    Table.of(
        "letters",
        ("worker_id", "number"),
        (*LetterRow._fields, "crc"),
        lambda row: opened(LetterRow, [row])[0],
    ),
    Table.of("keys", ("flow_id", "key"), (*KeyRow._fields, "crc"), opened_key),
    Table.of(
        "tombstones",
        ("job_id",),
        (*JobRow._fields, "crc"),
        lambda row: Tombstone(opened(JobRow, [row])[0]),
        since=2,
    ),
    Table.of("properties", ("name",), (*PropertyRow._fields, "crc"), opened_property, since=2),
)


def tables_of(connection: sqlite3.Connection) -> list[Table]:
    """Those that the database has: one of an older format is looked at as it is."""
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return [table for table in TABLES if table.since <= found]


def scan(
    connection: sqlite3.Connection, table: Table, after: Key | None = None, *, backwards: bool = False
) -> Iterator[tuple[Key, AnyRow | StoreCorruptError]]:
    """The rows of a table in the order of its key, beyond a key if given; an error in the place of an altered row.

    Raises StoreCorruptError where the order is broken, and what SQLite raises where it cannot read on.
    """
    altered = 0  # rows since the last whole one: their keys are not to be trusted for going on
    while altered < _CHUNK:
        seen, at = altered, 0
        for at, row in enumerate(connection.execute(table.select(after, backwards), after or ()), start=1):
            if at <= seen:
                continue
            key = table.key_of(row)
            try:
                found: AnyRow | StoreCorruptError = table.open(row)
            except StoreCorruptError as error:
                found, altered = error, altered + 1
            else:
                if after is not None and not (
                    order_of(key) < order_of(after) if backwards else order_of(key) > order_of(after)
                ):
                    raise corrupt(f"order of the {table.name}", key)
                after, altered = key, 0
            yield key, found
        if at < _CHUNK:
            return
    raise corrupt(f"run of {table.name}", after or ())


def order_of(key: Key) -> list[tuple[bool, Any]]:
    """SQLite has BLOBs behind all texts."""
    return [(isinstance(part, bytes), part) for part in key]
