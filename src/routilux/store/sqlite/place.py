"""Whether the files of an open database are still the ones that were opened."""

from __future__ import annotations

import os
from pathlib import Path

from routilux.errors import StoreError
from routilux.store.sqlite.beside import beside
from routilux.store.sqlite.connection import damaged


class Place:
    """Looked at before every transaction: what is written into a file that was removed is lost with the process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._wal = beside(path, "-wal")
        self._database_is = _identity(os.stat(path))
        self._wal_is = _identity(os.stat(self._wal))
        self._size = os.stat(path).st_size

    def check(self) -> None:
        """Raise StoreError if a file was removed or swapped, StoreCorruptError if the database was cut."""
        try:
            now = os.stat(self._path)
            same = _identity(now) == self._database_is and _identity(os.stat(self._wal)) == self._wal_is
        except FileNotFoundError:
            same, now = False, None
        if not same:
            raise StoreError(
                f"{self._path} or its -wal file was removed or replaced while the store was open; nothing was written. "
                "Close the store, put the files back, and open it again"
            )
        if now is not None and now.st_size < self._size:
            raise damaged(
                self._path, f"it had {self._size} bytes and has {now.st_size}: something has cut it"
            )
        if now is not None:
            self._size = now.st_size


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
