"""The store in PostgreSQL does what every store has to do, on a server that flushes as one in production does."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from routilux.ports import Store
from routilux.store.postgres import PostgresStore
from routilux.testing.store_contract import StoreContract
from tests.postgres.server import Server

TABLES = (
    "owner",
    "worker",
    "item",
    "note",
    "entry",
    "job",
    "letter",
    "key",
    "property",
    "tombstone",
)  # lease and batch go with their owner


class TestPostgresStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _stores(
        self, postgres_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> Iterator[None]:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # for the flight recorder
        self.server = postgres_server
        self.urls: dict[Store, str] = {}
        yield
        for url in set(self.urls.values()):
            with postgres_server.connect(postgres_server.schema_of(url)) as connection:
                connection.execute("; ".join(f"DELETE FROM {table}" for table in TABLES).encode())
            postgres_server.empty_stores.append(url)

    def open_store(self) -> Store:
        return self._open(self.server.empty_stores.pop() if self.server.empty_stores else self.server.url())

    def reopen_store(self, store: Store) -> Store:
        store.close()
        return self._open(self.urls[store])

    def _open(self, url: str) -> Store:
        store = PostgresStore(url)
        self.urls[store] = url
        return store
