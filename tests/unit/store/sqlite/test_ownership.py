"""One process owns a database, for as long as it has it open and lives."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from routilux.errors import ForkedRuntimeError, StoreLockedError
from routilux.store.sqlite import SqliteStore
from routilux.testing.store_rows import changes, item_row, worker_row

OWNER = """
import sys
from routilux.store.sqlite import SqliteStore
store = SqliteStore(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def owner(path):
    """Another process that has the store open."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "open\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_and_told_who_owns_the_database(path, owner):
    expected = (
        rf"{re.escape(str(path))} is in use by process {owner.pid}, since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d"
    )
    with pytest.raises(StoreLockedError, match=expected):
        SqliteStore(path)


def test_a_killed_owner_is_no_obstacle(path, owner):
    owner.kill()
    owner.wait()
    SqliteStore(path).close()


def test_a_second_store_in_one_process_is_refused_too(path, opened):
    store = opened()
    with pytest.raises(StoreLockedError, match=rf"process {os.getpid()} \(this one\)"):
        SqliteStore(path)
    store.write(changes(workers=[worker_row()]))  # the refused one has not disturbed it
    assert store.workers() == [worker_row()]


def test_a_database_is_the_same_by_every_name(path, opened, tmp_path):
    opened()
    (tmp_path / "link.db").symlink_to(path)
    with pytest.raises(StoreLockedError, match=r"store\.db"):
        SqliteStore(tmp_path / "link.db")


def test_closing_gives_the_lock_back(path, opened):
    opened().close()
    opened().close()


def test_what_the_lock_file_holds_does_not_matter(path, opened):
    for content in (b"", b"not json", b"[]", b'{"pid": 1}', b"\xff" * 5_000):
        path.with_name("store.db.lock").write_bytes(content)
        opened().close()
    assert json.loads(path.with_name("store.db.lock").read_bytes()).keys() == {"pid", "since"}


def test_a_forked_child_can_do_nothing_with_the_store(opened, path):
    store = opened()
    store.write(changes(items=[item_row(1)]))

    def use():
        for call in (lambda: store.write(changes()), store.workers, lambda: store.claim("w"), store.jobs):
            with pytest.raises(ForkedRuntimeError, match=f"opened by process {os.getppid()} before a fork"):
                call()
        store.close()

    assert _in_child(use) == 0
    store.write(changes(items=[item_row(2)]))
    store.close()
    assert opened().items("w", "parse.in") == [item_row(1), item_row(2)]


def test_a_forked_child_does_not_keep_the_lock_of_a_parent_that_has_died(path, opened):
    script = """
import os, sys
from routilux.store.sqlite import SqliteStore
store = SqliteStore(sys.argv[1])
if not os.fork():
    print(os.getpid(), flush=True)
    sys.stdin.read()
    os._exit(0)
os.kill(os.getpid(), 9)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    child = int(process.stdout.readline())
    assert process.wait() == -signal.SIGKILL
    os.kill(child, 0)  # the child lives, with everything that it has inherited
    opened().close()
    process.stdin.close()
    process.stdout.close()


def _in_child(call):
    """The exit status of a forked child that has made the call: 0 if it went well."""
    child = os.fork()
    if not child:
        try:
            call()
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
