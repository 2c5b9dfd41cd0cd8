"""History never gets shorter without an error: the mark beside a database, and what a dead machine may lose."""

import logging
import shutil
from contextlib import closing
from random import Random
from uuid import uuid4

import pytest

from routilux.errors import StoreCorruptError, StoreUnknownError
from routilux.store.boot import boot_id
from routilux.store.sqlite import SqliteStore
from routilux.store.sqlite.connection import connect, open_writer
from routilux.store.sqlite.mark import Mark, MarkFile, read_mark
from routilux.store.sqlite.opening import compare, read_state
from routilux.testing.store_rows import changes, item_row

FILES = ["store.db", "store.db-wal", "store.db.mark"]


@pytest.fixture
def crash(tmp_path):
    """What a process leaves behind that is killed after some writes: returns the folder of the copied files."""

    def leave(durability="full", writes=20):
        living = tmp_path / "living"
        shutil.rmtree(living, ignore_errors=True)
        living.mkdir()
        store = SqliteStore(living / "store.db", durability)
        for number in range(writes):
            store.write(changes(items=[item_row(number)]))
        folder = tmp_path / f"crash-{uuid4()}"
        folder.mkdir()
        for name in FILES:
            shutil.copy(living / name, folder / name)
        store.close()
        return folder / "store.db"

    return leave


def beside(path, suffix):
    return path.with_name(path.name + suffix)


def flip_a_bit(file, at):
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def machine_restarts(path):
    """Let the mark be one that an earlier boot has written."""
    mark = read_mark(beside(path, ".mark"))
    file = MarkFile(beside(path, ".mark"))
    file.begin(mark._replace(boot=str(uuid4())))
    file.close()


def test_a_killed_process_loses_nothing(crash, opened):
    assert opened(crash()).tail("w", "parse.in") == 19


def test_a_flipped_bit_in_the_log_is_found_at_open(crash):
    """SQLite alone takes what stands before the bit, and says nothing."""
    path = crash()
    wal = beside(path, "-wal")
    size = wal.stat().st_size
    flip_a_bit(wal, Random(3).randrange(size // 2, size))
    before = wal.read_bytes()
    with pytest.raises(StoreCorruptError, match=r"its history ends at batch \d+, but batch 21 was committed"):
        SqliteStore(path)
    assert wal.read_bytes() == before  # what comes after the bit can still be looked at


@pytest.mark.parametrize("durability", ["full", "process"])
def test_a_log_that_is_gone_is_found_at_open(crash, durability):
    path = crash(durability)
    beside(path, "-wal").unlink()
    with pytest.raises(StoreCorruptError, match="batch 1, but batch 21 was committed"):
        SqliteStore(path)


def test_with_full_durability_no_restart_of_the_machine_excuses_a_loss(crash):
    path = crash("full")
    machine_restarts(path)
    beside(path, "-wal").unlink()
    with pytest.raises(StoreCorruptError, match="its history ends at batch 1"):
        SqliteStore(path)


def test_with_process_durability_a_restart_of_the_machine_may_cost_the_newest_batches_and_is_told(
    crash, opened, caplog
):
    path = crash("process")
    machine_restarts(path)
    beside(path, "-wal").unlink()
    with caplog.at_level(logging.WARNING):
        store = opened(path, durability="process")
    assert store.tail("w", "parse.in") == -1
    assert "its history ends at batch 1, but batch 21 was committed. The machine went down" in caplog.text
    store.write(changes(items=[item_row(7)]))
    store.close()
    assert opened(path).tail("w", "parse.in") == 7


def test_after_closing_in_order_a_restart_excuses_nothing(path):
    for number in range(2):
        store = SqliteStore(path, "process")
        store.write(changes(items=[item_row(number)]))
        store.close()
        if not number:
            shutil.copy(path, beside(path, ".old"))
    machine_restarts(path)
    shutil.copy(beside(path, ".old"), path)
    with pytest.raises(StoreCorruptError, match="its history ends at batch 3, but batch 6 was committed"):
        SqliteStore(path)


def test_a_database_that_was_closed_in_order_can_be_copied_alone(path, opened, tmp_path):
    store = opened()
    store.write(changes(items=[item_row(1)]))
    store.close()
    (tmp_path / "copy").mkdir()
    shutil.copy(path, tmp_path / "copy" / "store.db")
    assert opened(tmp_path / "copy" / "store.db").tail("w", "parse.in") == 1


def test_a_database_that_was_not_closed_in_order_needs_its_mark(crash):
    for also in ([], ["-wal"]):
        path = crash()
        for suffix in (".mark", *also):
            beside(path, suffix).unlink()
        with pytest.raises(StoreCorruptError, match=r"not closed in order, and store\.db\.mark.*is missing"):
            SqliteStore(path)


def test_a_database_that_is_gone_is_missed(crash, opened):
    path = crash()
    path.unlink()
    with pytest.raises(
        StoreCorruptError, match="is missing or empty, but the files beside it tell of a history"
    ):
        SqliteStore(path)
    assert not path.exists()


def test_the_mark_of_another_store_is_refused(crash, path, tmp_path):
    SqliteStore(tmp_path / "other.db").close()
    SqliteStore(path).close()
    shutil.copy(tmp_path / "other.db.mark", beside(path, ".mark"))
    with pytest.raises(StoreCorruptError, match=r"is not the database that store\.db\.mark belongs to"):
        SqliteStore(path)


def test_a_store_that_goes_on_while_it_is_looked_at_is_not_damaged(path, opened):
    store = opened()
    before = read_mark(path.with_name(f"{path.name}.mark"))
    for number in range(3):
        store.write(changes(items=[item_row(number)]))
    with closing(connect(path, "ro", 5.0)) as connection:
        compare(path, read_state(connection), before)


def test_one_broken_slot_of_the_mark_is_no_damage_and_two_are(crash, opened):
    path = crash()
    flip_a_bit(beside(path, ".mark"), 20)
    opened(path).close()
    for at in (20, 84):
        flip_a_bit(beside(path, ".mark"), at)
    with pytest.raises(StoreCorruptError, match="which says how far history went, is not readable"):
        SqliteStore(path)


def test_a_process_that_is_killed_while_it_makes_the_store_is_no_obstacle(path, opened, tmp_path):
    """First the mark, then the file, then its tables: each moment of it can be opened."""
    mark = MarkFile(beside(path, ".mark"))
    opened().close()
    path.unlink()
    mark.begin(Mark(str(uuid4()), boot_id(), 0, flushed=True, clean=False))
    mark.close()
    opened().close()
    path.unlink()
    beside(path, ".mark").unlink()
    open_writer(path, "full", 1.0).close()
    assert path.stat().st_size > 0  # a database in WAL mode, without tables
    opened().write(changes(items=[item_row(1)]))


def test_a_commit_whose_mark_failed_can_be_settled(opened, monkeypatch):
    store = opened()

    def fails(self, mark):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(MarkFile, "write", fails)
        with pytest.raises(StoreUnknownError, match="committed, but the mark was not"):
            store.write(changes(items=[item_row(1)]))
    assert store.settle() is True
    store.write(changes(items=[item_row(2)]))
    store.close()
    assert opened().items("w", "parse.in") == [item_row(1), item_row(2)]


def test_the_mark_is_read_as_it_was_written(tmp_path):
    file = MarkFile(tmp_path / "mark")
    assert read_mark(tmp_path / "mark") is None
    marks = [Mark(str(uuid4()), boot_id(), batch, batch % 3 == 0, batch % 2 == 0) for batch in range(6)]
    for mark in marks:
        file.write(mark)
        assert read_mark(tmp_path / "mark") == mark
    file.begin(marks[0])
    assert read_mark(tmp_path / "mark") == marks[0]
    file.close()
