"""What can be done with a database beside running it: look at every row, and save what can be read."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from routilux.errors import StoreCorruptError, StoreError
from routilux.ports import JobRow, StoredJob
from routilux.store.exchange import AnyRow
from routilux.store.references import UNCOUNTED
from routilux.store.sqlite.beside import OwnerLock
from routilux.store.sqlite.connection import connect, reading, translated
from routilux.store.sqlite.opening import (
    compare,
    exists,
    mark_of,
    problems,
    read_state,
    unfinished,
    unfinished_by,
)
from routilux.store.sqlite.rows import Fields, checked_count, opened, readable
from routilux.store.sqlite.scan import Key, Table, order_of, scan, tables_of
from routilux.store.sqlite.schema import check_format, released

_BUSY_TIMEOUT = 5.0  # seconds
_JUMPS = 62  # over damage: 1, 2, 4, ... numbers

Unreadable = (StoreCorruptError, sqlite3.DatabaseError)


def check_there(path: Path) -> None:
    """Raises StoreError where there is no store, or one of another program or a newer format."""
    with _looking_at(path) as connection:
        _check_ready(connection, path)


def _check_ready(connection: sqlite3.Connection, path: Path) -> None:
    check_format(connection, path, released())
    by = unfinished_by(connection)
    if by is not None:
        raise unfinished(path, by)


def check(path: Path) -> Iterator[StoreCorruptError]:
    """Every problem of a database, which may be in use. Raises StoreError for one of another program or format, or that
    is not whole yet."""
    told = ""  # both say the same of what is no database
    for look in (_history, _contents):
        try:
            yield from look(path)
        except StoreCorruptError as error:
            if str(error) != told:
                yield error
            told = str(error)


def _history(path: Path) -> Iterator[StoreCorruptError]:
    mark = mark_of(path)  # before the database: a store that is in use goes on
    with _looking_at(path) as connection:
        _check_ready(connection, path)
        compare(path, read_state(connection), mark)
    yield from ()


def _contents(path: Path) -> Iterator[StoreCorruptError]:
    with _looking_at(path) as connection:
        yield from problems(connection, path)


def rows(path: Path) -> Iterator[AnyRow]:
    """Every row, all of one moment. Raises StoreCorruptError at the first that cannot be read."""
    with _looking_at(path) as connection:
        _check_ready(connection, path)
        with reading(connection):
            for table in tables_of(connection):
                for _, found in scan(connection, table):
                    if isinstance(found, StoreCorruptError):
                        raise found
                    yield found


def salvage(path: Path) -> Iterator[AnyRow | StoreCorruptError]:
    """Every row that can be read, and an error for each row or run of rows that cannot. No store may have it open.

    A job whose count cannot be read has ``UNCOUNTED`` items.
    """
    lock = OwnerLock(path)
    try:
        with _looking_at(path) as connection:
            try:
                compare(path, read_state(connection), mark_of(path))
            except StoreCorruptError as error:
                yield error
            by = unfinished_by(connection)
            if by is not None:
                yield StoreCorruptError(str(unfinished(path, by)))
            for table in tables_of(connection):
                if table.name == "jobs":
                    yield from _salvage_jobs(connection)
                else:
                    yield from _salvage(connection, table)
    finally:
        lock.close()


@contextmanager
def _looking_at(path: Path) -> Iterator[sqlite3.Connection]:
    if not exists(path):
        raise StoreError(f"there is no database at {path}; check the path")
    with translated(path), closing(connect(path, "ro", _BUSY_TIMEOUT)) as connection:
        yield connection


def _job_alone(row: Fields) -> StoredJob:
    return StoredJob(opened(JobRow, [row])[0], 0)


_JOBS = Table.of("jobs", ("job_id",), (*JobRow._fields, "crc"), _job_alone)


def _salvage_jobs(connection: sqlite3.Connection) -> Iterator[AnyRow | StoreCorruptError]:
    """Apart from their counts, which may be damaged by themselves."""
    counts, unread = dict[str, int](), 0
    try:
        for job_id, items, balance in connection.execute("SELECT job_id, items, balance FROM counts"):
            known = readable(job_id)
            try:
                counts[known] = checked_count(known, items, balance)
            except StoreCorruptError as error:
                counts[known] = UNCOUNTED
                yield error
    except sqlite3.DatabaseError as error:
        unread = UNCOUNTED
        yield StoreCorruptError(f"the counts of items cannot be read to their end: {error}")
    for found in _salvage(connection, _JOBS):
        if isinstance(found, StoredJob):
            found = found._replace(items=counts.get(found.row.job_id, unread))
        yield found


def _salvage(connection: sqlite3.Connection, table: Table) -> Iterator[AnyRow | StoreCorruptError]:
    """Read forwards; where that fails, jump over the damage, and read backwards from there as far as it goes."""
    after: Key | None = None
    while True:
        try:
            for key, found in scan(connection, table, after):
                after = after if isinstance(found, StoreCorruptError) else key
                yield found
            return
        except Unreadable as error:
            yield _gap(table, after, error)
        landed = _beyond_damage(connection, table, after)
        yield from reversed(list(_backwards(connection, table, after, landed and landed[0])))
        if landed is None:
            return
        after, first = landed
        yield first


def _beyond_damage(
    connection: sqlite3.Connection, table: Table, after: Key | None
) -> tuple[Key, AnyRow] | None:
    """A row behind the damage; None if there is no telling where one would be."""
    if after is None or not isinstance(after[-1], int):
        return None
    for power in range(_JUMPS):
        try:
            key, found = next(scan(connection, table, (*after[:-1], after[-1] + 2**power)))
        except Unreadable:
            continue
        except (StopIteration, OverflowError):
            return None
        if not isinstance(found, StoreCorruptError):
            return key, found
    return None


def _backwards(
    connection: sqlite3.Connection, table: Table, after: Key | None, start: Key | None
) -> Iterator[AnyRow]:
    """The rows before ``start``, or from the end, down to the damage."""
    try:
        for key, found in scan(connection, table, start, backwards=True):
            if after is not None and order_of(key) <= order_of(after):
                return
            if not isinstance(found, StoreCorruptError):
                yield found
    except Unreadable:
        return  # the other side of the damage, which has been told


def _gap(table: Table, after: Key | None, error: Exception) -> StoreCorruptError:
    where = "from the first on" if after is None else f"after {' / '.join(map(repr, after))}"
    gap = StoreCorruptError(f"{table.name} {where} cannot be read up to the next readable one: {error}")
    gap.__cause__ = error
    return gap
