"""Connections that read, each lent to one thread for the time of one call."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Condition, Lock

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
        # Entered by itself: a Ctrl-C in the Python code by which a condition is entered would leave it locked.
        self._lock = Lock()
        self._changed = Condition(self._lock)

    @contextmanager
    def lend(self) -> Iterator[sqlite3.Connection]:
        connection, lent = None, 0
        try:
            with self._lock:
                self.check_open()
                self._lent += 1
                lent = 1
                if self._idle:
                    connection = self._idle.pop()
            if connection is None:
                connection = open_reader(self._path, self._busy_timeout)
            yield connection
        finally:
            with self._lock:
                self._lent -= lent
                if connection is not None:
                    self._idle.append(connection)
                self._changed.notify_all()

    def check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed; open a new one")

    def close(self) -> bool:
        """Lend nothing any more and wait for what is lent; False if that was done before."""
        with self._lock:
            first, self._closed = not self._closed, True
            self._changed.wait_for(lambda: not self._lent)
            while self._idle:
                self._idle.pop().close()
        return first
