"""A database that is too large to be looked at before it is used is looked at behind the opening."""

import threading

import pytest

from routilux.errors import StoreCorruptError
from routilux.store.sqlite import opening
from routilux.testing.store_rows import changes, item_row, worker_row

ITEMS = [item_row(number, data=b"data of %d " % number * 10) for number in range(1_200)]


@pytest.fixture(autouse=True)
def _every_database_is_large(monkeypatch):
    monkeypatch.setattr(opening, "LARGEST_CHECKED_AT_ONCE", 0)


@pytest.fixture
def filled(path, opened):
    store = opened()
    store.write(changes(workers=[worker_row()], items=ITEMS))
    store.close()
    return path


def end_of_the_check():
    for thread in threading.enumerate():
        if thread.name == "routilux-store-check":
            thread.join()


def alter(path, number):
    content = bytearray(path.read_bytes())
    content[content.index(ITEMS[number].data) + 3] ^= 1
    path.write_bytes(content)


def test_a_whole_one_works(filled, opened):
    store = opened()
    store.write(changes(items=[item_row(5_000)]))
    end_of_the_check()
    assert store.tail("w", "parse.in") == 5_000


def test_damage_stops_the_store_also_where_nobody_has_read_it(filled, opened):
    alter(filled, 1_111)
    store = opened()
    end_of_the_check()
    for call in (lambda: store.write(changes(items=[item_row(5_000)])), store.workers, store.jobs):
        with pytest.raises(
            StoreCorruptError, match=r"the item 'w' / 'parse\.in' / 1111 is not what was written"
        ):
            call()


def test_damage_is_found_by_the_first_read_of_it(filled, opened, monkeypatch):
    monkeypatch.setattr("routilux.store.sqlite.late.tables_of", lambda connection: ())
    alter(filled, 700)
    store = opened()
    end_of_the_check()
    assert store.items("w", "parse.in", limit=700) == ITEMS[:700]
    with pytest.raises(StoreCorruptError, match="/ 700 is not what was written"):
        store.items("w", "parse.in", after=600)
    assert store.items("w", "parse.in", after=700) == ITEMS[701:]


def test_closing_does_not_wait_for_the_end_of_the_check(filled, opened):
    opened().close()
    assert "routilux-store-check" not in [thread.name for thread in threading.enumerate()]
