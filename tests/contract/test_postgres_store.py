"""The store in PostgreSQL does what every store has to do, on a server that flushes as one in production does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from routilux.ports import Store
from routilux.store.postgres import PostgresStore
from routilux.testing.store_contract import StoreContract
from tests.postgres.server import Server


class TestPostgresStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _schemas(self, postgres_server: Server) -> Iterator[None]:
        self.server = postgres_server
        self.urls: dict[Store, str] = {}
        yield
        with postgres_server.connect() as connection:
            for url in self.urls.values():
                connection.execute(f"DROP SCHEMA IF EXISTS {url.rpartition('%3D')[2]} CASCADE".encode())

    def open_store(self) -> Store:
        return self._open(self.server.url())

    def reopen_store(self, store: Store) -> Store:
        store.close()
        return self._open(self.urls[store])

    def _open(self, url: str) -> Store:
        store = PostgresStore(url)
        self.urls[store] = url
        return store
