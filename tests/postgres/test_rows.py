"""What stands in the tables is what was written, or an error."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import errors

from routilux.errors import StoreCorruptError, StoreDataError, StoreError, StoreFullError
from routilux.ports import ItemKey, ItemRow
from routilux.store.postgres import PostgresStore
from routilux.store.postgres.failures import translated
from routilux.store.postgres.rows import readable, storable
from routilux.testing.store_rows import changes, changes_of_texts, contents, item_row, key_row, worker_row
from tests.postgres.conftest import OpenStore

any_text = st.text(st.characters(codec=None, exclude_categories=()) | st.sampled_from("\0\1\2"))
without_surrogates = st.text(st.characters(codec="utf-8") | st.sampled_from("\0\1\2"))


@given(any_text)
def test_every_text_can_be_stored_and_read_again(text: str) -> None:
    stored = storable(text)
    assert "\0" not in stored
    assert stored.encode().decode() == stored
    assert readable(stored) == text


@given(without_surrogates, without_surrogates)
def test_stored_texts_have_the_order_of_the_texts(one: str, other: str) -> None:
    assert (storable(one).encode() < storable(other).encode()) == (one < other)


def test_a_common_text_is_stored_as_it_is(open_store: OpenStore, admin: Any) -> None:
    open_store().write(changes(workers=[worker_row('naïve "order" \\ 7')]))
    assert admin.execute("SELECT worker_id FROM worker").fetchone() == ('naïve "order" \\ 7',)


def test_half_a_surrogate_pair_is_a_text_too(open_store: OpenStore) -> None:
    store = open_store()
    store.write(changes(items=[item_row(1, "\ud800", "\udfff\0\1")]))
    assert store.places("\udfff\0\1") == ["\ud800"]
    assert store.items("\udfff\0\1", "\ud800") == [item_row(1, "\ud800", "\udfff\0\1")]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE worker SET data = set_byte(data, 0, get_byte(data, 0) # 1)",
        "UPDATE worker SET next_number = next_number + 1",
        "UPDATE worker SET worker_id = 'b'",
        "UPDATE item SET data = '' ",
        "UPDATE item SET number = 2",
        "UPDATE note SET name = 'other'",
        "UPDATE entry SET data = data || 'x'",
        "UPDATE job SET status = 'failed'",
        "UPDATE job SET completed_at = 7",
        "UPDATE job SET items = items + 1",
        "UPDATE letter SET error = NULL",
        "UPDATE key SET job_id = 'other'",
        "UPDATE key SET seal = seal + 1",
    ],
)
def test_a_row_that_was_altered_outside_is_found(open_store: OpenStore, admin: Any, damage: str) -> None:
    store = open_store()
    store.write(changes_of_texts(["a"]))
    admin.execute(damage)
    with pytest.raises(StoreCorruptError, match=r" of '[ab]', .* is not what was written"):
        read_everything(store)


def read_everything(store: PostgresStore) -> None:
    contents(store, ["a", "b"], ["a"])
    store.items_of([ItemKey("a", "a", 1)])
    store.entries("a", "a", "a")
    store.key("a", "a", 150.0)


def test_a_whole_number_is_a_time_too(open_store: OpenStore) -> None:
    store = open_store()
    store.write(changes(items=[item_row(1, time=5), item_row(2, time=6.5)], keys=[key_row(expires_at=300)]))
    assert [row.time for row in store.items("w", "parse.in")] == [5.0, 6.5]


def test_names_that_are_too_long_for_a_key_are_refused_and_nothing_is_written(open_store: OpenStore) -> None:
    store = open_store()
    long = "".join(map(chr, range(0x4E00, 0x4E00 + 3_000)))
    with pytest.raises(StoreDataError, match="ids and names have to stay below 2,700 bytes"):
        store.write(changes(workers=[worker_row()], items=[item_row(1, long)]))
    assert store.workers() == []


@pytest.mark.parametrize(
    "bad",
    [item_row(2**63), item_row(1, data=object()), item_row(1, time="soon")],
    ids=["number", "data", "time"],
)
def test_a_value_that_no_column_takes_is_refused_whole(open_store: OpenStore, bad: ItemRow) -> None:
    store = open_store()
    with pytest.raises(StoreDataError, match=r"nothing was (written|changed)"):
        store.write(changes(workers=[worker_row()], items=[item_row(5), bad]))
    assert store.workers() == []
    store.write(changes(items=[item_row(5)]))
    assert store.tail("w", "parse.in") == 5


def test_more_than_fits_into_one_statement_is_written(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routilux.store.postgres.writing._MOST_BYTES", 1_000)
    rows = [item_row(number, data=bytes(400 * number)) for number in range(1, 8)]
    store = open_store()
    store.write(changes(items=rows))
    assert store.items("w", "parse.in") == rows


def test_tables_that_were_removed_are_named(open_store: OpenStore, admin: Any) -> None:
    store = open_store()
    admin.execute("DROP TABLE note")
    with pytest.raises(
        StoreError, match=r'relation "note" does not exist .*; the tables of the store have gone'
    ):
        store.notes("w")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.DiskFull("could not extend file: No space left on device"), StoreFullError),
        (errors.DataCorrupted("invalid page in block 0"), StoreCorruptError),
        (errors.IndexCorrupted("index is broken"), StoreCorruptError),
        (errors.TooManyConnections("too many clients"), StoreError),
    ],
)
def test_what_the_server_says_has_a_class_of_its_own(error: psycopg.Error, kind: type[StoreError]) -> None:
    found = translated(error, "postgresql://db/flows")
    assert type(found) is kind
    assert str(error) in str(found)
    assert str(found).startswith("postgresql://db/flows: ")


def test_a_batch_waits_for_no_reader_and_a_reader_for_no_batch(open_store: OpenStore, admin: Any) -> None:
    store = open_store()
    with admin.transaction():
        admin.execute("SELECT * FROM item")
        store.write(changes(items=[item_row(1)]))
        assert store.tail("w", "parse.in") == 1


def test_between_two_calls_no_connection_is_inside_a_transaction(open_store: OpenStore, admin: Any) -> None:
    store = open_store()
    store.write(changes(keys=[key_row()]))
    store.write(changes(keys=[key_row()]))
    store.workers()
    store.claim("w")
    store.prune(0.0, finished_before=0.0, keep_finished=0, limit=1)
    states = admin.execute(
        "SELECT DISTINCT state FROM pg_stat_activity WHERE application_name = 'routilux' AND pid <> pg_backend_pid()"
    )
    assert states.fetchall() == [("idle",)]


@pytest.mark.parametrize(("durability", "setting"), [("full", "on"), ("process", "off")])
def test_durability_is_whether_a_commit_waits_for_the_flush(
    open_store: OpenStore, admin: Any, durability: str, setting: str
) -> None:
    store = open_store(durability=durability)
    admin.execute("CREATE TABLE seen AS SELECT ''::text AS setting")
    admin.execute("""
        CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql
            AS 'BEGIN UPDATE seen SET setting = current_setting(''synchronous_commit''); RETURN NULL; END';
        CREATE TRIGGER look AFTER INSERT ON worker FOR EACH ROW EXECUTE FUNCTION look();
    """)
    store.write(changes(workers=[worker_row()]))
    assert admin.execute("SELECT setting FROM seen").fetchone() == (setting,)
