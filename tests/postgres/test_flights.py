"""What ran when a process died is told to the next one that opens the same store on the same machine."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from routilux.store.postgres.flights import flights_of
from tests.postgres.conftest import OpenStore

ROOT = Path(__file__).parents[2]
DIES = """
import os, sys, tempfile
from routilux.store.postgres import PostgresStore
tempfile.tempdir = sys.argv[2]
stores = [PostgresStore(sys.argv[1]) for _ in range(2)]
for at, store in enumerate(stores):
    store.watch().enter(at, f"item {at}")
os._exit(1)
"""


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"routilux-{os.getuid()}"


def test_deaths_of_every_process_are_told_to_all_until_they_are_cleared(
    url: str, open_store: OpenStore, folder: Path
) -> None:
    died = subprocess.run([sys.executable, "-c", DIES, url, str(folder.parent)], cwd=ROOT, check=False)
    assert died.returncode == 1
    first, second = open_store(), open_store()
    for store in (first, second):
        store.watch()
        assert sorted(text for death in store.deaths() for text in death.texts) == ["item 0", "item 1"]
    for death in first.deaths():
        death.clear(death.texts)
    assert first.deaths() == second.deaths() == []
    first.close()
    second.close()
    assert list(folder.iterdir()) == []


def test_a_store_that_nobody_watches_takes_nothing(open_store: OpenStore, folder: Path) -> None:
    open_store().workers()
    assert not folder.exists()


def test_stores_of_other_names_do_not_hear_of_it(folder: Path) -> None:
    first = flights_of("a")
    first.recorder.enter(0, "item 1")
    first._lock.close()
    again, other = flights_of("a"), flights_of("b")
    assert [[death.texts for death in flights.deaths()] for flights in (again, other)] == [[["item 1"]], []]


def test_without_a_place_there_is_no_recorder_and_a_warning_says_why(
    open_store: OpenStore, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir()
    folder.chmod(0o777)  # somebody else could have made it
    store = open_store()
    assert (store.watch(), store.deaths()) == (None, [])
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        f"no flight recorder, poisonous items will not be recognised: {folder} is not a folder of this user alone; "
        "remove it"
    ]
