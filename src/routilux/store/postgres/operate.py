"""What can be done with a store beside running it: look at every row, and save what can be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import psycopg
from psycopg import IsolationLevel

from routilux.errors import StoreCorruptError, StoreError, StoreLockedError
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
from routilux.store.postgres.address import Address, address_of
from routilux.store.postgres.failures import not_connected, translated
from routilux.store.postgres.filling import check_finished, unfinished_by
from routilux.store.postgres.migrating import format_of
from routilux.store.postgres.rows import NoteRow, opened, opened_job, readable
from routilux.store.postgres.statements import migrations, statements

_SQL: Final = statements("scanning")
_OWNERS: Final = b"SELECT name, host, pid FROM owner WHERE expires > clock_timestamp() ORDER BY name"


def check_there(url: str) -> None:
    """Raises StoreError where there is no store, or one of another format."""
    address = address_of(url, None)
    with _looking_at(address) as connection:
        _check_ready(connection, address)


def check(url: str) -> Iterator[StoreCorruptError]:
    """Every row that is not what was written. Raises StoreError where there is no store, or one of another format, or
    that is not whole yet."""
    check_there(url)
    return (found for found in _everything(url) if isinstance(found, StoreCorruptError))


def rows(url: str) -> Iterator[AnyRow]:
    """Every row, all of one moment. Raises StoreCorruptError at the first that cannot be read."""
    check_there(url)
    for found in _everything(url):
        if isinstance(found, StoreCorruptError):
            raise found
        yield found


def salvage(url: str) -> Iterator[AnyRow | StoreCorruptError]:
    """Every row that can be read, and an error for each that cannot. No store may have it open."""
    address = address_of(url, None)
    with _looking_at(address) as connection:
        by = unfinished_by(connection, address.name) if format_of(connection, address.schema) > 1 else None
        if by is not None:
            yield StoreCorruptError(f"{address.name} is not whole: {by} into it has not ended")
        owners = owners_of(connection)
    if owners:
        raise StoreLockedError(f"{address.name} is in use by {', '.join(owners)}")
    yield from _everything(url)


def owners_of(connection: psycopg.Connection) -> list[str]:
    """The processes that have the store open, for people."""
    return [
        f"{readable(name)} (host {readable(host)}, process {pid})"
        for name, host, pid in connection.execute(_OWNERS)
    ]


def _everything(url: str) -> Iterator[AnyRow | StoreCorruptError]:
    address = address_of(url, None)
    with _looking_at(address) as connection, connection.transaction():
        made = format_of(connection, address.schema)
        for table, open_row in _TABLES.items():
            if made < _SINCE.get(table, 1):
                continue
            yield from _scan(connection, table, partial(open_row, address.name), address)


def _scan(
    connection: psycopg.Connection, table: str, open_row: Callable[[Sequence[Any]], AnyRow], address: Address
) -> Iterator[AnyRow | StoreCorruptError]:
    """Where the server itself finds damage, the rest of the table is given up, and the others are read."""
    try:
        with connection.transaction(), connection.cursor(f"scan_{table}") as cursor:
            cursor.format = psycopg.pq.Format.BINARY
            for row in cursor.execute(_SQL[table]):
                try:
                    yield open_row(row)
                except StoreCorruptError as error:
                    yield error
    except psycopg.Error as error:
        damage = translated(error, address.name)
        if not isinstance(damage, StoreCorruptError):
            raise damage from error
        damage.__cause__ = error
        yield damage


@contextmanager
def _looking_at(address: Address) -> Iterator[psycopg.Connection]:
    try:
        connection = psycopg.connect(**address.parameters, autocommit=True, client_encoding="utf8")
    except psycopg.Error as error:
        raise not_connected(error, address.name) from error
    with connection:
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        connection.execute("SELECT set_config('search_path', quote_ident(%s), false)", [address.schema])
        _check_format(connection, address)
        yield connection


def _check_format(connection: psycopg.Connection, address: Address) -> None:
    found, newest = format_of(connection, address.schema), max(number for number, _ in migrations())
    if found == 0:
        raise StoreError(f"{address.name}: there is no store; check the database and the schema")
    if found > newest:
        raise StoreError(
            f"{address.name}: the store has format {found}, and this version of Routilux knows formats up to {newest}; "
            "update Routilux"
        )


def _check_ready(connection: psycopg.Connection, address: Address) -> None:
    if format_of(connection, address.schema) > 1:
        check_finished(connection, address.name)


def _note(name: str, row: Sequence[Any]) -> tuple[NoteKey, bytes]:
    *note, data = opened(NoteRow, row, name)
    return NoteKey(*note), data


_TABLES: Final[dict[str, Callable[[str, Sequence[Any]], AnyRow]]] = {
    "worker": lambda name, row: opened(WorkerRow, row, name),
    "item": lambda name, row: opened(ItemRow, row, name),
    "note": _note,
    "entry": lambda name, row: opened(EntryRow, row, name),
    "job": lambda name, row: opened_job(row, name),
    "letter": lambda name, row: opened(LetterRow, row, name),
    "key": lambda name, row: opened(KeyRow, row, name),
    "tombstone": lambda name, row: Tombstone(opened(JobRow, row, name)),
    "property": lambda name, row: opened(PropertyRow, row, name),
}
_SINCE: Final = {"tombstone": 2, "property": 2}  # the formats that have made these tables
