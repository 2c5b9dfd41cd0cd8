"""What the disk, the system and other programs do to a store, and what it says then."""

import errno
import os
import resource
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from routilux.errors import (
    InvalidValueError,
    StoreCorruptError,
    StoreDataError,
    StoreError,
    StoreFullError,
    StoreUnknownError,
)
from routilux.store import flight
from routilux.store.sqlite import SqliteStore
from routilux.store.sqlite.beside import RESERVE_SIZE
from routilux.testing.store_rows import changes, entry_row, item_row, job_row, key_of, worker_row

# -- where a store can be --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", ":memory:", "a\0b"])
def test_only_a_file_outlives_the_process(path):
    with pytest.raises(
        InvalidValueError, match=r"expected the path of a file.*leave the store out: Runtime\(\)"
    ):
        SqliteStore(path)


def test_a_folder_is_no_database(tmp_path):
    with pytest.raises(InvalidValueError, match="expected a file, and this is a folder"):
        SqliteStore(tmp_path)


def test_the_folder_has_to_exist(tmp_path):
    with pytest.raises(InvalidValueError, match=f"a folder that exists; make {tmp_path}/none"):
        SqliteStore(tmp_path / "none" / "a.db")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_durability_is_refused(path):
    with pytest.raises(InvalidValueError, match='expected a durability, "full" or "process", got \'ful\''):
        SqliteStore(path, "ful")
    assert not path.exists()


def test_a_path_may_hold_any_character(tmp_path, opened):
    path = tmp_path / "what? 100%#&'\" é.db"
    opened(path).write(changes(items=[item_row(1)]))
    assert path.exists()


def test_the_database_of_another_program_is_refused_and_left_alone(path):
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE theirs (a)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="a database of another program"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_and_left_alone(path):
    path.write_text("Dear diary, " * 1_000)
    with pytest.raises(StoreCorruptError, match="file is not a database"):
        SqliteStore(path)
    assert path.read_text() == "Dear diary, " * 1_000


def test_an_empty_file_becomes_a_store(path, opened):
    path.touch()
    opened().write(changes(items=[item_row(1)]))


# -- read-only -------------------------------------------------------------------------------------------------


def test_a_read_only_folder_is_found_at_open(small_disk):
    folder = small_disk(20)
    SqliteStore(folder / "a.db").close()
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True, capture_output=True)
    for name in ("a.db", "new.db"):
        with pytest.raises(
            StoreError, match=rf"{name}: the store needs to write here and cannot: .*Read-only"
        ):
            SqliteStore(folder / name)


@pytest.fixture
def read_only_mount():
    """Makes one file read-only for everybody: its mode would mean nothing to root."""
    mounted = []

    def mount(file):
        if subprocess.run(["mount", "--bind", str(file), str(file)], capture_output=True).returncode:
            pytest.skip("mounting is not allowed here")
        mounted.append(file)
        subprocess.run(["mount", "-o", "remount,ro,bind", str(file)], check=True, capture_output=True)

    yield mount
    for file in mounted:
        subprocess.run(["umount", "-l", str(file)], capture_output=True)


def test_a_read_only_file_is_found_at_open(path, read_only_mount):
    SqliteStore(path).close()
    read_only_mount(path)
    with pytest.raises(
        StoreError, match="the files beside it and their folder have to be writable for this user"
    ):
        SqliteStore(path)


# -- another program -------------------------------------------------------------------------------------------


LOCKER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
connection.execute("COMMIT")
"""


def test_a_program_that_locks_the_database_is_named_after_the_time_out(path, opened):
    store = opened(busy_timeout=0.05)
    locker = subprocess.Popen(
        [sys.executable, "-c", LOCKER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert locker.stdout.readline() == "locked\n"
    with pytest.raises(StoreError, match=rf"process {locker.pid} has locked the database") as refused:
        store.write(changes(items=[item_row(1)]))
    assert isinstance(refused.value.__cause__, sqlite3.OperationalError)
    assert store.items("w", "parse.in") == []  # readers are not held up
    locker.communicate("")
    store.write(changes(items=[item_row(2)]))
    assert store.items("w", "parse.in") == [item_row(2)]


# -- files that go away ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["store.db", "store.db-wal"])
@pytest.mark.parametrize("by", ["removed", "swapped"])
def test_a_file_that_goes_away_while_the_store_is_open_stops_every_write(
    path, opened, name, by, tmp_path, caplog
):
    store = opened()
    store.write(changes(items=[item_row(1)]))
    (tmp_path / name).rename(tmp_path / "kept")
    if by == "swapped":
        (tmp_path / name).write_bytes((tmp_path / "kept").read_bytes())
    with pytest.raises(StoreError, match="removed or replaced while the store was open; nothing was written"):
        store.write(changes(items=[item_row(2)]))
    store.close()
    assert "closed without a last checkpoint" in caplog.text
    (tmp_path / "kept").rename(tmp_path / name)
    assert opened().items("w", "parse.in") == [item_row(1)]


def test_a_database_that_is_cut_while_it_is_open_stops_every_write(path, opened):
    store = opened()
    store.write(changes(items=[item_row(n, data=bytes(1_000)) for n in range(100)]))
    os.truncate(path, path.stat().st_size - 4_096)
    with pytest.raises(StoreCorruptError, match="something has cut it"):
        store.write(changes(items=[item_row(200)]))


# -- rows that the store cannot take ---------------------------------------------------------------------------


def test_an_item_that_is_there_already_is_refused_whole(opened):
    store = opened()
    store.write(changes(items=[item_row(1)]))
    with pytest.raises(StoreDataError, match="a row that should be new is there already"):
        store.write(changes(items=[item_row(2), item_row(1)], jobs=[job_row()]))
    assert store.items("w", "parse.in") == [item_row(1)]
    assert store.jobs() == []


@pytest.mark.parametrize("bad", [item_row(2**63), item_row(1, data=object())], ids=["number", "object"])
def test_a_value_that_sqlite_does_not_know_is_refused_whole(opened, bad):
    store = opened()
    with pytest.raises(StoreDataError, match=r"a value cannot be stored: .*nothing was written"):
        store.write(changes(workers=[worker_row()], items=[item_row(5), bad]))
    assert store.workers() == []
    store.write(changes(items=[item_row(5)]))


def test_a_value_that_is_larger_than_sqlite_takes_is_refused_whole(opened):
    store = opened()
    store._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 100_000)
    with pytest.raises(StoreDataError, match=r"a value cannot be stored: .*too big; nothing was written"):
        store.write(changes(workers=[worker_row()], items=[item_row(1, data=bytes(200_000))]))
    assert store.workers() == []
    store.write(changes(items=[item_row(1)]))


# -- a full disk -----------------------------------------------------------------------------------------------


def test_a_full_store_refuses_growth_drains_and_goes_on_when_there_is_space(small_disk):
    folder = small_disk(48)
    (folder / "ballast").write_bytes(bytes(24 * 1024 * 1024))
    with closing(SqliteStore(folder / "a.db")) as store:
        taken = _write_until_full(store)
        assert store.items("w", "parse.in") == taken  # everything that was acknowledged, and nothing else
        with pytest.raises(
            StoreFullError, match=r"16 MiB have to be free .* are; what is stored can be worked off"
        ):
            store.write(changes(items=[item_row(10**6)]))

        _fill(folder / "more", leave=RESERVE_SIZE // 2)
        for row in taken:  # each activation takes an item, emits a small one and notes something
            after = row._replace(place="next.in", data=b"done")
            store.write(changes(taken=[key_of(row)], items=[after], entries=[entry_row(row.number)]))
        assert [len(store.items("w", place)) for place in ("parse.in", "next.in")] == [0, len(taken)]

        with pytest.raises(
            StoreFullError, match=r"16 MiB have to be free .* are; what is stored can be worked off"
        ):
            store.write(changes(items=[item_row(10**6)]))
        (folder / "ballast").unlink()
        store.write(changes(items=[item_row(10**6)]))
        assert (folder / "a.db.reserve").stat().st_size == RESERVE_SIZE
        assert store.tail("w", "parse.in") == 10**6


def _write_until_full(store):
    """The items that were acknowledged before the disk was full."""
    written = []
    try:
        for number in range(10_000):
            rows = [item_row(number * 4 + n, data=bytes(5_000)) for n in range(4)]
            store.write(changes(items=rows, counts={"j": 4}))
            written += rows
    except StoreFullError as error:
        assert "no space is left on the disk" in str(error)
    return written


def _fill(file, leave):
    volume = os.statvfs(file.parent)
    size = max(0, volume.f_bavail * volume.f_frsize - leave)
    with open(file, "wb") as out:
        os.posix_fallocate(out.fileno(), 0, size) if size else None


def test_a_store_on_a_full_disk_can_be_opened_read_and_drained(small_disk):
    folder = small_disk(20)
    with closing(SqliteStore(folder / "a.db")) as store:
        store.write(changes(items=[item_row(n) for n in range(500)]))
    _fill(folder / "ballast", leave=0)
    with closing(SqliteStore(folder / "a.db")) as store:
        store.write(changes(taken=[key_of(item_row(n)) for n in range(499)]))
        assert store.items("w", "parse.in") == [item_row(499)]
        with pytest.raises(StoreFullError):
            store.write(changes(items=[item_row(1_000)]))


def test_a_disk_that_is_full_from_the_start_is_found_at_open(small_disk):
    folder = small_disk(1)
    _fill(folder / "ballast", leave=0)
    with pytest.raises(StoreFullError, match="no space is left"):
        SqliteStore(folder / "a.db")


def test_without_a_place_for_the_recorder_the_store_works_and_says_what_is_missing(
    path, opened, caplog, monkeypatch
):
    def no_space(file: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(flight, "take_space", no_space)
    store = opened()
    assert store.watch() is None
    assert store.deaths() == []
    assert not path.with_name("store.db.flight").exists()
    assert "no flight recorder, poisonous items will not be recognised" in caplog.text
    store.write(changes(items=[item_row(1)]))


# -- a disk that fails -----------------------------------------------------------------------------------------


@pytest.fixture
def file_size_limit():
    """Lets every write beyond a size fail, with an error that is not the one of a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_failed_commit_is_settled_and_the_number_of_its_batch_given_again(path, opened, file_size_limit):
    store = opened()
    store.write(changes(items=[item_row(1)]))
    file_size_limit(path.with_name("store.db-wal").stat().st_size)
    with pytest.raises(StoreError) as failed:
        store.write(changes(items=[item_row(2, data=bytes(100_000))]))
    file_size_limit(resource.RLIM_INFINITY)
    if isinstance(failed.value, StoreUnknownError):
        assert store.settle() is False
    assert store.items("w", "parse.in") == [item_row(1)]
    store.write(changes(items=[item_row(3)]))
    store.close()
    assert opened().items("w", "parse.in") == [item_row(1), item_row(3)]


def test_there_is_nothing_to_settle_after_a_write_that_has_ended(opened):
    store = opened()
    store.write(changes(items=[item_row(1)]))
    with pytest.raises(StoreError, match="there is nothing to settle"):
        store.settle()


def test_errors_of_the_system_come_from_their_cause(small_disk):
    folder = small_disk(1)
    _fill(folder / "ballast", leave=0)
    with pytest.raises(StoreFullError) as full:
        SqliteStore(folder / "a.db")
    cause = full.value.__cause__
    assert isinstance(cause, sqlite3.Error) or (isinstance(cause, OSError) and cause.errno == errno.ENOSPC)
