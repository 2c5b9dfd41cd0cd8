"""The flight recorder: what each thread ran when the process died."""

import os
import subprocess
import sys
from uuid import uuid4

import pytest

from routilux.errors import InvalidValueError
from routilux.ports import FLIGHT_SEATS
from routilux.store import flight
from routilux.store.flight import LONGEST, MappedRecorder

DIES = """
import os, sys
from routilux.store.sqlite import SqliteStore
store = SqliteStore(sys.argv[1])
recorder = store.watch()
recorder.enter(0, "ended")
recorder.enter(3, "a longer one")
recorder.enter(3, "é")
recorder.enter(9, "ran too")
recorder.enter(1023, "the last seat")
recorder.leave(0)
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def file(tmp_path):
    return tmp_path / "a.flight"


def died(path):
    assert subprocess.run([sys.executable, "-c", DIES, str(path)]).returncode == -9


def test_a_killed_process_leaves_behind_what_it_ran(path, opened):
    died(path)
    store = opened()
    assert store.suspects() == ["é", "ran too", "the last seat"]
    store.close()
    assert opened().suspects() == []


def test_a_process_that_ends_in_order_leaves_nothing_behind(file):
    recorder = MappedRecorder(file)
    recorder.enter(0, "runs")
    recorder.close()
    assert MappedRecorder(file).suspects() == []


def test_what_ends_after_it_was_closed_is_not_noted(file):
    recorder = MappedRecorder(file)
    recorder.enter(0, "runs")
    recorder.close()
    recorder.leave(0)
    recorder.enter(0, "another")
    assert MappedRecorder(file).suspects() == []


def test_another_boot_of_the_machine_has_no_suspects(path, opened, monkeypatch):
    died(path)
    monkeypatch.setattr(flight, "boot_id", lambda: str(uuid4()))
    assert MappedRecorder(path.with_name("store.db.flight")).suspects() == []


def test_what_does_not_fit_into_a_seat_leaves_it_empty(file):
    recorder = MappedRecorder(file)
    recorder.enter(0, "short")
    recorder.enter(0, "x" * (LONGEST + 1))
    recorder.enter(1, "x" * LONGEST)
    assert MappedRecorder(file).suspects() == ["x" * LONGEST]


@pytest.mark.parametrize("left", [b"", b"x", os.urandom(2_000), bytes(FLIGHT_SEATS * 512)], ids=len)
def test_a_file_that_is_none_of_its_own_is_replaced(file, left):
    file.write_bytes(left)
    recorder = MappedRecorder(file)
    assert recorder.suspects() == []
    recorder.enter(5, "runs")
    assert MappedRecorder(file).suspects() == ["runs"]


@pytest.mark.parametrize("seat", [-1, FLIGHT_SEATS])
def test_there_is_no_seat_beyond_the_last(file, seat):
    with pytest.raises(InvalidValueError, match=f"expected a seat from 0 to {FLIGHT_SEATS - 1}, got {seat}"):
        MappedRecorder(file).enter(seat, "x")
