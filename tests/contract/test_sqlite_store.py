"""The SQLite store does what every store has to do."""

import pytest

from routilux.ports import Store
from routilux.store.sqlite import SqliteStore
from routilux.testing.store_contract import StoreContract


@pytest.mark.parametrize("durability", ["full", "process"])
class TestSqliteStore(StoreContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path, durability):
        self.folder, self.durability, self.opened = tmp_path, durability, 0

    def open_store(self) -> Store:
        self.opened += 1
        return SqliteStore(self.folder / f"{self.opened}.db", self.durability)

    def reopen_store(self, store: Store) -> Store:
        store.close()
        return SqliteStore(store.name.removeprefix("sqlite:///"), self.durability)
