"""Brings the tables of a store to the format that this version of Routilux knows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import psycopg
from psycopg import sql

from routilux.errors import StoreError
from routilux.store.postgres.address import Address
from routilux.store.postgres.statements import migrations

OLDEST_SERVER: Final = 140000
_FORMAT_TABLE: Final = b"""
CREATE TABLE IF NOT EXISTS format (version integer PRIMARY KEY, made_at timestamptz NOT NULL DEFAULT clock_timestamp())
"""
# Not to_regclass, which may answer from what the connection remembers from before it had the lock.
_HAS_FORMAT: Final = b"""
SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE relname = 'format' AND nspname = %s
"""


def check_server(connection: psycopg.Connection, address: Address) -> None:
    """What could only fail later is found out now."""
    if connection.info.server_version < OLDEST_SERVER:
        version = connection.info.parameter_status("server_version")
        raise StoreError(f"{address.name}: the server is PostgreSQL {version}; Routilux needs 14 or newer")
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise StoreError(
            f"{address.name}: the database has the encoding {encoding}, and texts of Routilux need UTF8; create it "
            "with ENCODING 'UTF8' TEMPLATE template0"
        )
    if connection.execute("SELECT current_setting('transaction_read_only')").fetchone() == ("on",):
        raise StoreError(
            f"{address.name}: the server only reads, as a standby does; open the store on the primary"
        )


def migrate(
    connection: psycopg.Connection, address: Address, steps: Iterable[tuple[int, bytes]] | None = None
) -> None:
    """All the steps that are missing, in one transaction; other processes that open the store wait meanwhile.

    Raises StoreError for a format that is newer than the last step.
    """
    known = list(migrations() if steps is None else steps)
    newest = known[-1][0]
    if format_of(connection, address.schema) == newest:
        return
    with connection.transaction():
        connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('routilux ' || %s, 0))", [address.schema]
        )
        found = format_of(connection, address.schema)
        if found > newest:
            raise StoreError(
                f"{address.name}: the store has format {found}, and this version of Routilux knows formats up to "
                f"{newest}; update Routilux"
            )
        _take_steps(connection, address.schema, [step for step in known if step[0] > found])


def _take_steps(connection: psycopg.Connection, schema: str, steps: list[tuple[int, bytes]]) -> None:
    # Not CREATE SCHEMA IF NOT EXISTS, which asks for the right to create even where the schema exists.
    if connection.execute("SELECT FROM pg_namespace WHERE nspname = %s", [schema]).fetchone() is None:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    connection.execute(_FORMAT_TABLE)
    for version, statements in steps:
        connection.execute(statements)
        connection.execute("INSERT INTO format (version) VALUES (%s)", [version])


def format_of(connection: psycopg.Connection, schema: str) -> int:
    """0: there is no store yet."""
    if connection.execute(_HAS_FORMAT, [schema]).fetchone() is None:
        return 0
    row = connection.execute("SELECT coalesce(max(version), 0) FROM format").fetchone()
    return 0 if row is None else int(row[0])
