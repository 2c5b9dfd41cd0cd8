"""Changes a closed store behind its back."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg


def delete(url: str, table: str, where: str = "TRUE") -> None:
    """Remove rows of a closed store behind its back. Tables have the names of those in SQLite."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(Path(url.removeprefix("sqlite:///")))) as connection, connection:
            connection.execute(f"DELETE FROM {table} WHERE {where}")
        return
    table = {"entries": "entry", "properties": "property"}.get(table, table.removesuffix("s"))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"DELETE FROM {table} WHERE {where}".encode())
