"""A restore or a repair that was killed leaves no store that anybody takes for a whole one, and begins anew."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from routilux import Runtime
from routilux.errors import InvalidValueError, StoreError, StoreLockedError
from routilux.ports import FLOOR, UNFINISHED, Changes
from routilux.store import check, examine, export, look_into, open_store, prune, read_export, repair, restore
from routilux.store.sqlite import SqliteStore
from routilux.testing.store_rows import changes, entry_row, item_row, job_row, key_row, worker_row

KILLED = """
import os, sys
from routilux.store import exchange, operate, open_store
exchange._BATCH = 5
call, first, second, before = sys.argv[1:]
if second.startswith("sqlite"):
    from routilux.store.sqlite import SqliteStore as Store
else:
    from routilux.store.postgres import PostgresStore as Store
write, left = Store.write, [int(before)]
def killed(store, changes):
    if not left[0]:
        os._exit(9)
    left[0] -= 1
    return write(store, changes)
Store.write = killed
getattr(operate, call)(first, second)
"""


@pytest.fixture
def source(tmp_path: Path) -> str:
    """The URL of a store with 26 rows, and a property."""
    with closing(SqliteStore(tmp_path / "source.db")) as store:
        store.write(
            changes(
                workers=[worker_row(next_number=50)],
                items=[item_row(n) for n in range(10)],
                entries=[entry_row(n) for n in range(10)],
                jobs=[job_row()],
                counts={"j": 10},
                keys=[key_row(f"k{n}") for n in range(3)],
                properties={FLOOR: "40"},
            )
        )
    return f"sqlite:///{tmp_path}/source.db"


def kill(call: str, first: object, second: str, before: int) -> None:
    """Do it in a process that dies before its n-th transaction."""
    command = [sys.executable, "-c", KILLED, call, str(first), second, str(before)]
    assert subprocess.run(command, check=False).returncode == 9


def rows_of(url: str, folder: Path) -> list[Any]:
    export(url, folder / "compared.jsonl")
    return list(read_export(folder / "compared.jsonl"))


def runs(url: str) -> None:
    with Runtime(store=url):
        pass


CALLS: list[Callable[[str], object]] = [
    runs, check, look_into, open_store, prune, lambda url: export(url, "never.jsonl"),
]  # fmt: skip


@pytest.mark.parametrize("before", [0, 1, 4])
def test_a_restore_that_was_killed_is_no_store_and_begins_anew(
    store_url: str, source: str, tmp_path: Path, before: int
) -> None:
    file = tmp_path / "rows.jsonl"
    counts = export(source, file)
    kill("restore", file, store_url, before)
    for call in CALLS:
        with pytest.raises(
            StoreError, match=r"is not whole: restore\(\) into it has not ended\. Run that again"
        ):
            call(store_url)
    assert any(fact.state == "error" and "is not whole" in fact.detail for fact in examine(store_url))
    kill("restore", file, store_url, 1)
    assert restore(file, store_url) == counts
    assert rows_of(store_url, tmp_path) == rows_of(source, tmp_path)
    assert check(store_url) == []
    runs(store_url)


def test_a_repair_that_was_killed_is_no_store_and_begins_anew(
    store_url: str, source: str, tmp_path: Path
) -> None:
    kill("repair", source, store_url, 2)
    with pytest.raises(StoreError, match=r"is not whole: repair\(\) into it has not ended"):
        runs(store_url)
    saved, lost = repair(source, store_url)
    assert (saved["items"], lost) == (10, [])
    assert rows_of(store_url, tmp_path) == rows_of(source, tmp_path)


def test_what_an_unfinished_store_has_can_be_saved(store_url: str, source: str, tmp_path: Path) -> None:
    export(source, tmp_path / "rows.jsonl")
    kill("restore", tmp_path / "rows.jsonl", store_url, 2)
    if store_url.startswith("postgresql"):
        with psycopg.connect(store_url, autocommit=True) as connection:
            connection.execute("DELETE FROM owner")  # as when its lease has run out
    saved, lost = repair(store_url, f"sqlite:///{tmp_path}/saved.db")
    assert saved["items"] > 0
    assert "is not whole: restore() into it has not ended" in lost[0].message
    assert check(f"sqlite:///{tmp_path}/saved.db") == []


def test_a_store_that_is_whole_is_not_filled(store_url: str, source: str, tmp_path: Path) -> None:
    export(source, tmp_path / "rows.jsonl")
    restore(tmp_path / "rows.jsonl", store_url)
    before = rows_of(store_url, tmp_path)
    for call in (lambda: restore(tmp_path / "rows.jsonl", store_url), lambda: repair(source, store_url)):
        with pytest.raises(InvalidValueError, match="expected a store"):
            call()
    assert rows_of(store_url, tmp_path) == before


def test_a_store_is_filled_by_one_at_a_time(store_url: str, source: str, tmp_path: Path) -> None:
    export(source, tmp_path / "rows.jsonl")
    with closing(open_store(store_url, filling="restore()")) as store:
        store.write(changes(workers=[worker_row()]))
        with pytest.raises(StoreLockedError):
            restore(tmp_path / "rows.jsonl", store_url)
        assert store.properties() == {UNFINISHED: "restore()"}
        assert store.worker("w") == worker_row()
        store.write(Changes())
    with pytest.raises(StoreError, match="is not whole"):
        open_store(store_url)
