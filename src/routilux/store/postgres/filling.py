"""A store that a call fills, such as a restore: nobody else opens it before that has ended."""

from __future__ import annotations

from typing import Final

import psycopg

from routilux.errors import InvalidValueError, StoreError, StoreLockedError, refused
from routilux.ports import UNFINISHED, PropertyRow
from routilux.store.postgres.address import Address
from routilux.store.postgres.rows import opened
from routilux.store.postgres.statements import statements
from routilux.store.postgres.writing import putting

_SQL: Final = statements("filling")


def unfinished_by(connection: psycopg.Connection, name: str) -> str | None:
    """The call that has begun to fill the store, and has not ended. ``name`` is the store's."""
    row = connection.execute(_SQL["property"], [UNFINISHED], binary=True).fetchone()
    return None if row is None else opened(PropertyRow, row, name).value


def check_finished(connection: psycopg.Connection, name: str) -> None:
    by = unfinished_by(connection, name)
    if by is not None:
        raise StoreError(
            f"{name} is not whole: {by} into it has not ended. Run that again, which begins anew, or drop its schema"
        )


def begin_filling(connection: psycopg.Connection, address: Address, by: str) -> None:
    """Leave the store without rows, marked as unfinished. This connection keeps others from it for as long as it lives.

    Raises InvalidValueError for a store that has rows and is not unfinished.
    """
    if connection.execute(_SQL["lock"], [address.schema]).fetchone() != (True,):
        raise StoreLockedError(f"{address.name} is being filled by another process; wait for its end")
    with connection.transaction():
        has_rows = connection.execute(_SQL["any_row"]).fetchone() == (True,)
        if has_rows and unfinished_by(connection, address.name) is None:
            what = "a store without rows"
            raise refused(InvalidValueError, by, address.name, what, fix="name an empty database")
        for table in _TABLES:
            connection.execute(_SQL[f"empty_{table}"])
        for statement, parameters in putting({UNFINISHED: by}):
            connection.execute(statement, parameters)


_TABLES: Final = ("worker", "item", "note", "entry", "job", "letter", "key", "tombstone", "property")
