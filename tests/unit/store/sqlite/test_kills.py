"""A process that is killed at any moment: what it has acknowledged is there, in order, and the store can be opened."""

import os
import select
import signal
from contextlib import closing
from random import Random

import pytest

from routilux.store.sqlite import SqliteStore
from routilux.testing.store_rows import changes, entry_row, item_row, key_of, worker_row

HISTORY = 50  # items that are kept queued: older ones are taken


def write_for_ever(path, durability, acknowledge):
    """One item after the other, each with a note of itself; older ones are taken in the same transaction."""
    store = SqliteStore(path, durability)
    for number in range(store.tail("w", "parse.in") + 1, 10**9):
        rows = [item_row(number, data=b"%d" % number * 50)]
        taken = [key_of(item_row(number - HISTORY))] if number >= HISTORY else []
        store.write(changes(workers=[worker_row(next_number=number + 1)], items=rows, taken=taken,
                            entries=[entry_row(number)]))  # fmt: skip
        os.write(acknowledge, b"%d\n" % number)


def run_and_kill(random, path, durability):
    """The last number that was acknowledged by a process that lived for a moment; -1 if none was."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            write_for_ever(path, durability, writer)
        finally:
            os._exit(1)  # only an error comes here
    os.close(writer)
    with os.fdopen(reader, "rb", buffering=0) as acknowledgements:
        wait_a_moment(random, acknowledgements)
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status), "the store could not be opened or written"
        numbers = acknowledgements.read().split()
    return int(numbers[-1]) if numbers else -1


def wait_a_moment(random, acknowledgements):
    """Into the opening, or beyond the first acknowledgement, which shows that the store was opened."""
    if random.random() < 0.6:
        select.select([acknowledgements], [], [])
    signal.sigtimedwait([], random.uniform(0, 0.05))


def check(store):
    """The number of the last item, after a look at everything that was written with it."""
    tail = store.tail("w", "parse.in")
    first = max(0, tail - HISTORY + 1)
    assert [row.number for row in store.items("w", "parse.in")] == list(range(first, tail + 1))
    assert [row.number for row in store.entries("w", "log", "")] == list(range(tail + 1))
    assert [row.next_number for row in store.workers()] == ([tail + 1] if tail >= 0 else [])
    return tail


def prove(path, durability, seed, kills):
    random, last = Random(seed), -1
    for _ in range(kills):
        last = max(last, run_and_kill(random, path, durability))
        if random.random() < 0.5:  # else the next one follows upon a kill
            with closing(SqliteStore(path, durability)) as store:
                assert check(store) >= last, f"seed {seed}"
    print(f"seed {seed}: {kills} kills, {last + 1} items acknowledged, none lost")


@pytest.mark.parametrize("durability", ["full", "process"])
def test_a_kill_loses_nothing_that_was_acknowledged(path, durability):
    prove(path, durability, seed=Random().randrange(10**9), kills=20)


@pytest.mark.full
@pytest.mark.parametrize("durability", ["full", "process"])
def test_a_thousand_kills_lose_nothing_that_was_acknowledged(path, durability):
    prove(path, durability, seed=Random().randrange(10**9), kills=1_000)
