"""A store that is read and not run, even if processes have its workers."""

from __future__ import annotations

from threading import Event
from typing import Final

import psycopg

from routilux.errors import StoreError, StoreLockedError
from routilux.ports import StoredJob
from routilux.store.looking import View, looked_into
from routilux.store.postgres.address import address_of
from routilux.store.postgres.link import Link
from routilux.store.postgres.migrating import format_of
from routilux.store.postgres.operate import check_there, owners_of
from routilux.store.postgres.reading import Reading
from routilux.store.postgres.rows import storable
from routilux.store.postgres.store import PATIENCE, find_by_key

_READ_ONLY: Final = b"SET default_transaction_read_only = on"


def look_into(url: str) -> PostgresView:
    return PostgresView(url)


class PostgresView(Reading, View):
    """Reads as any process with the store does, through one connection on which the server refuses to write. A server
    lends itself to any number of readers: it registers no owner, and makes or migrates no tables.

    Raises StoreError where there is no store, or one of a newer format.
    """

    def __init__(self, url: str) -> None:
        check_there(url)
        address = address_of(url, None)
        self._closing = Event()
        super().__init__(Link(address, self._closing, _prepare, patience=PATIENCE), address.name)
        self._format = self._reader.run(lambda connection: format_of(connection, address.schema))

    def job(self, job_id: str) -> StoredJob | None:
        if self._format > 1:
            return super().job(job_id)
        return next(iter(self._jobs("job", [storable(job_id)])), None)

    def properties(self) -> dict[str, str]:
        return super().properties() if self._format > 1 else {}

    def close(self) -> None:
        self._closing.set()
        self._reader.close()

    @property
    def only_read(self) -> StoreError:
        looked, opened = looked_into(self.name), "open the store with Runtime(store=url)"
        try:
            owners = self._reader.run(owners_of)
        except StoreError as error:
            return StoreError(f"{looked}. Who runs it cannot be read: {error}")
        if not owners:
            return StoreError(f"{looked}. No process runs it; {opened}")
        return StoreLockedError(
            f"{looked}. It is run by {', '.join(owners)}; act there, or {opened} here too"
        )


def _prepare(connection: psycopg.Connection) -> None:
    find_by_key(connection)
    connection.execute(_READ_ONLY)
