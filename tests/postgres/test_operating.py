"""A store in PostgreSQL can be checked, exported, restored and repaired by its URL."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from routilux.errors import StoreCorruptError, StoreError, StoreLockedError
from routilux.store import check, export, read_export, repair, restore
from routilux.store.memory import MemoryStore
from routilux.testing.store_rows import RandomChanges, changes, changes_of_texts, worker_row
from tests.postgres.conftest import OpenStore
from tests.postgres.server import Server

TEXTS = ["a", "b", "", "\0", "\1", "naïve 文字 🎉"]


def fill(store: Any) -> None:
    store.write(changes_of_texts(TEXTS))
    writer = RandomChanges(Random(7))
    reference = MemoryStore()
    for step in range(10):
        writer.learn(reference)
        made = writer.next(step)
        if not store.write(made):
            reference.write(made)


@pytest.fixture
def other_url(postgres_server: Server) -> Any:
    url = postgres_server.url()
    yield url
    with postgres_server.connect() as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {postgres_server.schema_of(url)} CASCADE".encode())


def everything(url: str, tmp_path: Path) -> list[Any]:
    export(url, tmp_path / "compared")
    return list(read_export(tmp_path / "compared"))


def test_an_export_is_restored_whole(url: str, other_url: str, open_store: OpenStore, tmp_path: Path) -> None:
    fill(open_store())
    counts = export(url, tmp_path / "all.jsonl")
    assert min(counts.values()) > 0
    assert restore(tmp_path / "all.jsonl", other_url) == counts
    assert everything(other_url, tmp_path) == everything(url, tmp_path)
    assert check(other_url) == check(url)


def test_an_export_goes_into_a_store_of_another_kind(url: str, open_store: OpenStore, tmp_path: Path) -> None:
    fill(open_store())
    counts = export(url, tmp_path / "all.jsonl")
    assert restore(tmp_path / "all.jsonl", f"sqlite:///{tmp_path}/all.db") == counts


def test_a_check_names_every_row_that_was_altered(url: str, open_store: OpenStore, admin: Any) -> None:
    store = open_store()
    store.write(changes_of_texts(["a", "b"]))
    assert check(url) == []
    admin.execute(
        "UPDATE item SET data = 'x' WHERE worker_id = 'a'; UPDATE job SET items = 7 WHERE job_id = 'b'"
    )
    messages = [problem.message.partition(": ")[2] for problem in check(url)]
    assert [message.partition(", …")[0] for message in messages] == [
        "ItemRow of 'a', 'a', 1, '[\"a\"]'",
        "the count of items of 'b', 'b', 'b', 'b'",
    ]


def test_what_can_be_read_is_saved(
    url: str, other_url: str, open_store: OpenStore, admin: Any, tmp_path: Path
) -> None:
    store = open_store()
    store.write(changes_of_texts(["a", "b"]))
    store.close()
    admin.execute("UPDATE worker SET data = 'x' WHERE worker_id = 'a'")
    with pytest.raises(StoreCorruptError, match="WorkerRow of 'a'"):
        export(url, tmp_path / "all.jsonl")
    result = repair(url, other_url)
    assert [len(result.lost), result.saved["workers"], result.saved["items"]] == [2, 2, 2]


def test_a_store_that_is_in_use_is_not_repaired(url: str, other_url: str, open_store: OpenStore) -> None:
    store = open_store(owner="orders-1")
    store.write(changes(workers=[worker_row()]))
    with pytest.raises(StoreLockedError, match="is in use by orders-1"):
        repair(url, other_url)


def test_where_there_is_no_store_there_is_nothing_to_check(url: str) -> None:
    with pytest.raises(StoreError, match="there is no store; check the database and the schema"):
        check(url)
