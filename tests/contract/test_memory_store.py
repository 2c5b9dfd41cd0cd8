"""The memory store does what every store has to do."""

from routilux.ports import Store, load
from routilux.store.memory import MemoryStore
from routilux.testing.store_contract import StoreContract


class TestMemoryStore(StoreContract):
    def open_store(self) -> Store:
        return MemoryStore()

    def test_it_is_the_one_that_comes_with_the_package(self):
        assert load("memory store") is MemoryStore
