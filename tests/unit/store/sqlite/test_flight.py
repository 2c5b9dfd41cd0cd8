"""The flight recorder: what each thread ran when the process died."""

import os
import socket
import subprocess
import sys
from uuid import uuid4

import pytest

from routilux.errors import InvalidValueError
from routilux.ports import FLIGHT_SEATS
from routilux.store import flight
from routilux.store.flight import LONGEST, MOST_DEATHS, SEAT_SIZE, Flights

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


def left_behind(file, *texts):
    """As a process that died leaves its file: nobody has its lock, and nothing was cleared."""
    flights = Flights(file)
    for seat, text in enumerate(texts):
        flights.recorder.enter(seat, text)
    flights._lock.close()


def told(flights):
    return [death.texts for death in flights.deaths()]


def test_a_killed_process_leaves_behind_what_it_ran(path, opened):
    died(path)
    store = opened()
    (death,) = store.deaths()
    assert death.texts == ["é", "ran too", "the last seat"]
    death.clear(["é"])
    store.close()
    again = opened()
    (left,) = again.deaths()
    assert left.texts == ["ran too", "the last seat"]
    left.clear(left.texts)
    assert again.deaths() == []
    assert not path.with_name("store.db.flight").exists()


def test_a_death_is_told_until_it_is_cleared_also_after_the_next_one(path, opened):
    died(path)
    died(path)
    assert [death.texts for death in opened().deaths()] == [["é", "ran too", "the last seat"]] * 2


def test_a_process_that_ends_in_order_leaves_nothing_behind(file):
    flights = Flights(file)
    flights.recorder.enter(0, "runs")
    flights.close()
    assert not file.exists()
    assert told(Flights(file)) == []


def test_what_a_live_process_runs_is_not_told(file):
    first, second = Flights(file), Flights(file)
    first.recorder.enter(0, "runs")
    assert told(second) == told(Flights(file)) == []


def test_a_forked_child_that_lives_on_does_not_hide_the_death(file):
    here, there = socket.socketpair()
    if (child := os.fork()) == 0:
        here.close()
        flights = Flights(file)
        flights.recorder.enter(0, "runs")
        if os.fork() == 0:
            there.send(b"lives")
            there.recv(1)  # until the test has looked
        os._exit(9)
    there.close()
    os.waitpid(child, 0)
    assert here.recv(5) == b"lives"
    assert told(Flights(file)) == [["runs"]]
    here.close()


def test_what_ends_after_it_was_closed_is_not_noted(file):
    flights = Flights(file)
    flights.recorder.enter(0, "runs")
    flights.close()
    flights.recorder.leave(0)
    flights.recorder.enter(0, "another")
    assert told(Flights(file)) == []


def test_another_boot_of_the_machine_has_no_deaths(path, opened, monkeypatch):
    died(path)
    monkeypatch.setattr(flight, "boot_id", lambda: str(uuid4()))
    assert opened().deaths() == []


def test_what_does_not_fit_into_a_seat_leaves_it_empty(file):
    left_behind(file, "short", "x" * LONGEST)
    flights = Flights(file)
    flights.recorder.enter(0, "short")
    flights.recorder.enter(0, "x" * (LONGEST + 1))
    flights._lock.close()
    assert told(Flights(file)) == [["short", "x" * LONGEST]]


@pytest.mark.parametrize(
    "left", [b"", b"x", os.urandom(2_000), bytes((FLIGHT_SEATS + 1) * SEAT_SIZE)], ids=len
)
def test_a_file_that_tells_nothing_is_removed(file, left):
    file.write_bytes(left)
    flights = Flights(file)
    assert told(flights) == []
    flights.recorder.enter(5, "runs")
    flights._lock.close()
    assert not file.exists()
    assert told(Flights(file)) == [["runs"]]


def test_no_more_than_so_many_deaths_are_kept(file):
    for number in range(MOST_DEATHS + 2):
        left_behind(file, f"item {number}")
        os.utime(max(file.parent.iterdir(), key=lambda path: path.stat().st_mtime_ns), (number, number))
    assert told(Flights(file)) == [[f"item {number}"] for number in range(2, MOST_DEATHS + 2)]


@pytest.mark.parametrize("seat", [-1, FLIGHT_SEATS])
def test_there_is_no_seat_beyond_the_last(file, seat):
    with pytest.raises(InvalidValueError, match=f"expected a seat from 0 to {FLIGHT_SEATS - 1}, got {seat}"):
        Flights(file).recorder.enter(seat, "x")
