"""The statements in ``queries.sql``, by name and by the size of a chunk."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.resources import files
from sqlite3 import Connection, Cursor
from typing import Any

from routilux.store.sqlite.rows import storable

CHUNKS = (256, 64, 16, 4, 1)
"""Rows go into a statement by so many at a time: few texts, so that every statement stays prepared; and one step of
SQLite for many rows, because after each step a busy interpreter may keep a thread waiting for milliseconds."""


@cache
def statement(name: str, rows: int = 1) -> str:
    """The statement of this name, with the part in braces repeated for each row."""
    return re.sub(r"\{(.*?)\}", lambda group: ", ".join([group[1]] * rows), _named()[name])


@cache
def _named() -> dict[str, str]:
    text = files("routilux.store.sqlite").joinpath("queries.sql").read_text("utf-8")
    _, *parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}


def chunks(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    start = 0
    for size in CHUNKS:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size


def run(connection: Connection, sql: str, values: Sequence[Any]) -> Cursor:
    try:
        return connection.execute(sql, values)
    except UnicodeEncodeError:
        return connection.execute(sql, storable(values))


def put(connection: Connection, name: str, rows: Sequence[Sequence[Any]]) -> int:
    """Run a statement that takes whole rows; returns how many of them it has written."""
    written = 0
    for part in chunks(rows):
        values = [value for row in part for value in row]
        written += run(connection, statement(name, len(part)), values).rowcount
    return written


def by_key(connection: Connection, name: str, keys: Iterable[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """Run a statement that takes a prefix and the last parts of keys; returns what it selects."""
    groups: dict[Sequence[Any], list[Any]] = {}
    for key in keys:
        groups.setdefault(key[:-1], []).append(key[-1])
    found: list[tuple[Any, ...]] = []
    for prefix, lasts in groups.items():
        for part in chunks(lasts):
            found += run(connection, statement(name, len(part)), [*prefix, *part])
    return found
