"""The format of the database: numbered migrations, each in one transaction.

A migration that was once released is never changed; a new one is added with the next number. The schema of a new
database is what all of them leave, one after the other.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from functools import cache
from importlib.resources import files
from pathlib import Path

from routilux.errors import StoreError
from routilux.store.sqlite.connection import damaged

APPLICATION_ID = 0x526F7578  # "Roux": what `file` and SQLite show for a database of Routilux

Migrations = Sequence[str]


@cache
def released() -> Migrations:
    """The migrations that come with the package; the first one makes format 1."""
    folder = files("routilux.store.sqlite").joinpath("migrations")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return tuple(folder.joinpath(name).read_text("utf-8") for name in names)


def format_of(connection: sqlite3.Connection) -> int:
    """The number of migrations that have been applied; 0 for an empty database."""
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return found


def migrate(connection: sqlite3.Connection, migrations: Migrations) -> None:
    """Apply those that are missing, within the transaction that the caller has begun."""
    for number in range(format_of(connection), len(migrations)):
        for sql in _statements(migrations[number]):
            connection.execute(sql)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {len(migrations)}")


def check_format(connection: sqlite3.Connection, path: Path, migrations: Migrations) -> None:
    """Refuse a database of another program or of a newer format, and a schema that was altered."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if application != APPLICATION_ID:
        raise StoreError(
            f"{path} is a database of another program, or its header is damaged: expected the application id "
            f"{APPLICATION_ID}, got {application}; name another file, or restore it from a backup"
        )
    number = format_of(connection)
    if number > len(migrations):
        raise StoreError(
            f"{path} has format {number}, and this version of Routilux knows formats up to {len(migrations)}: "
            "it was written by a newer version; install that one"
        )
    if schema_of(connection) != _schema_of(tuple(migrations[:number])):
        raise damaged(path, f"its tables are not those of format {number}")


def schema_of(connection: sqlite3.Connection) -> list[tuple[str, str, str | None]]:
    return connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name").fetchall()


@cache
def _schema_of(migrations: Migrations) -> list[tuple[str, str, str | None]]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate(connection, migrations)
        return schema_of(connection)


def _statements(script: str) -> list[str]:
    """The statements of a script, each ending with a line: ``executescript`` would commit first."""
    found, begun = [], ""
    for line in script.splitlines(keepends=True):
        begun += line
        if sqlite3.complete_statement(begun):
            found.append(begun.strip())
            begun = ""
    return found
