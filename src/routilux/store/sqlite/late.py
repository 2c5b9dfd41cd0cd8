"""Every row of a large database is looked at behind the opening, which does not wait for it."""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path
from threading import Event, Thread

from routilux.errors import StoreCorruptError, StoreError
from routilux.store.sqlite.connection import open_reader, translated
from routilux.store.sqlite.scan import scan, tables_of

log = logging.getLogger("routilux.store")


class LateCheck:
    """One thread that reads all tables in short transactions, and remembers the first damage."""

    def __init__(self, path: Path, busy_timeout: float) -> None:
        self._path = path
        self._busy_timeout = busy_timeout
        self._stopped = Event()
        self._found: str | None = None
        self._thread = Thread(target=self._run, name="routilux-store-check", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise StoreCorruptError if damage was found so far."""
        if self._found is not None:
            raise StoreCorruptError(self._found)

    def close(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            with translated(self._path), closing(open_reader(self._path, self._busy_timeout)) as connection:
                for table in tables_of(connection):
                    for _, found in scan(connection, table):
                        if isinstance(found, StoreCorruptError):
                            raise found
                        if self._stopped.is_set():
                            return
        except StoreCorruptError as error:
            self._found = error.message
            log.error("%s", error)
        except StoreError as error:
            log.warning("the check behind the opening was given up: %s", error)
