"""Everything that can be told about a store in PostgreSQL, or about the database where one is to be."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import psycopg

from routilux.errors import StoreError
from routilux.store.facts import Fact
from routilux.store.postgres.address import Address, address_of
from routilux.store.postgres.failures import not_connected
from routilux.store.postgres.migrating import check_server, format_of
from routilux.store.postgres.operate import check, owners_of
from routilux.store.postgres.statements import migrations

_LARGEST_DIFFERENCE: Final = 2.0  # seconds; leases run by the server's clock, and people read both


def examine(url: str) -> Iterator[Fact]:
    address = address_of(url, None)
    try:
        with _connected(address) as connection:
            connection.execute("SELECT set_config('search_path', quote_ident(%s), false)", [address.schema])
            yield from _server(connection, address)
            found = format_of(connection, address.schema)
            yield _format(found, address)
            if not 0 < found <= _newest():
                return
            owners = ", ".join(owners_of(connection)) or "no process has it open"
            yield Fact("ok", "owners", owners)
        yield from _damage(url)
    except StoreError as error:
        yield Fact("error", "server", str(error))


def _connected(address: Address) -> psycopg.Connection:
    try:
        return psycopg.connect(**address.parameters, autocommit=True, client_encoding="utf8")
    except psycopg.Error as error:
        raise not_connected(error, address.name) from error


def _server(connection: psycopg.Connection, address: Address) -> Iterator[Fact]:
    check_server(connection, address)
    number = connection.info.server_version
    yield Fact("ok", "server", f"PostgreSQL {number // 10_000}.{number % 10_000} at {address.name}")
    before = time.time()
    row = connection.execute("SELECT extract(epoch FROM clock_timestamp())").fetchone()
    assert row is not None
    difference = float(row[0]) - (before + time.time()) / 2
    state = "ok" if abs(difference) <= _LARGEST_DIFFERENCE else "warning"
    yield Fact(
        state, "clock", f"the server's is {abs(difference):.1f} s {'ahead' if difference > 0 else 'behind'}"
    )


def _format(found: int, address: Address) -> Fact:
    newest = _newest()
    if not found:
        return Fact(
            "ok", "format", f"there is no store in schema {address.schema} yet; the first run makes it"
        )
    if found > newest:
        return Fact("error", "format", f"{found}, and this version of Routilux knows formats up to {newest}")
    return Fact(
        "ok", "format", f"{found}" if found == newest else f"{found}; the next run brings it to {newest}"
    )


def _newest() -> int:
    return max(number for number, _ in migrations())


def _damage(url: str) -> Iterator[Fact]:
    whole = True
    for problem in check(url):
        whole = False
        yield Fact("error", "damage", str(problem))
    if whole:
        yield Fact("ok", "contents", "every row is whole")
