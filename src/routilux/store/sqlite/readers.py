"""Connections that read, each lent to one thread for the time of one call."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Condition

from routilux.errors import StoreError
from routilux.store.sqlite.connection import open_reader


class Readers:
    """As many as threads have read at the same time. None of them holds a transaction while it is not lent."""

    def __init__(self, path: Path, busy_timeout: float) -> None:
        self._path = path
        self._busy_timeout = busy_timeout
        self._idle: list[sqlite3.Connection] = []
        self._lent = 0
        self._closed = False
        self._changed = Condition()

    @contextmanager
    def lend(self) -> Iterator[sqlite3.Connection]:
        with self._changed:
            self.check_open()
            self._lent += 1
            connection = self._idle.pop() if self._idle else None
        try:
            if connection is None:
                connection = open_reader(self._path, self._busy_timeout)
            yield connection
        finally:
            with self._changed:
                self._lent -= 1
                if connection is not None:
                    self._idle.append(connection)
                self._changed.notify_all()

    def check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed; open a new one")

    def close(self) -> bool:
        """Lend nothing any more and wait for what is lent; False if that was done before."""
        with self._changed:
            first, self._closed = not self._closed, True
            self._changed.wait_for(lambda: not self._lent)
            while self._idle:
                self._idle.pop().close()
        return first
