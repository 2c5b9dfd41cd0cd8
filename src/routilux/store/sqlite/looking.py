"""A database that is read and not run, even if a process owns it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from routilux.errors import StoreError, StoreLockedError
from routilux.store.looking import View, looked_into
from routilux.store.sqlite.beside import owner_of
from routilux.store.sqlite.connection import connect, translated
from routilux.store.sqlite.opening import inspect
from routilux.store.sqlite.schema import format_of, released
from routilux.store.sqlite.store import SqliteStore

_BUSY_TIMEOUT = 5.0  # seconds


def look_into(path: Path) -> SqliteView:
    return SqliteView(path)


class SqliteView(View, SqliteStore):
    """Reads as the store of its process does, through one connection that can write nothing.

    Raises StoreError where there is no store, for a database of another program or a newer format, and
    StoreCorruptError for one that is damaged, as the store itself does.
    """

    def __init__(self, path: Path) -> None:
        self._path = Path(os.path.realpath(path))
        self.name = f"sqlite:///{self._path}"
        if inspect(self._path, released()) is None:
            raise StoreError(f"there is no store at {self._path}; check the path")
        self._lock = Lock()
        with translated(self._path):
            self._connection = connect(self._path, "ro", _BUSY_TIMEOUT)
            self._format = format_of(self._connection)

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        with self._lock, translated(self._path):
            yield self._connection

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @property
    def only_read(self) -> StoreError:
        looked, owner = looked_into(self._path), owner_of(self._path)
        if owner is None:
            return StoreError(f"{looked}. No process runs it; open it with Runtime(store={self.name!r})")
        return StoreLockedError(f"{looked}. It is run by {owner}; act there, or stop that and open the store")
