"""A worker has one owner at a time, and whoever has lost it writes nothing to it any more."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random
from threading import Event
from typing import Any

import pytest

from routilux.errors import StoreError, StoreFencedError, StoreLockedError
from routilux.store.postgres import PostgresStore
from routilux.testing.store_rows import changes, contents, item_row, job_row, worker_row
from tests.postgres.chain import beginning, length, link
from tests.postgres.conftest import OpenStore
from tests.postgres.server import Server
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]


def run_out(admin: Any) -> None:
    """Let the leases of all owners run out now."""
    admin.execute("UPDATE owner SET expires = clock_timestamp() - interval '1 second'")


def takes(store: PostgresStore, worker_id: str = "w") -> bool:
    try:
        store.claim(worker_id)
    except StoreLockedError:
        return False
    return True


# -- who has a worker --------------------------------------------------------------------------------------


def test_a_worker_of_another_store_is_locked_and_the_error_says_by_whom(open_store: OpenStore) -> None:
    open_store(owner="orders-1").claim("w")
    with pytest.raises(StoreLockedError) as refused:
        open_store(owner="orders-2").claim("w")
    assert refused.value.worker_id == "w"
    for part in ("worker 'w'", "orders-1", socket.gethostname(), f"process {os.getpid()}", "for another 3"):
        assert part in str(refused.value)


def test_a_worker_is_free_once_it_is_given_up(open_store: OpenStore) -> None:
    first, second = open_store(), open_store()
    first.claim("w")
    first.give_up("w")
    second.claim("w")
    with pytest.raises(StoreLockedError):
        first.claim("w")


def test_a_store_that_is_closed_gives_up_everything(open_store: OpenStore, admin: Any) -> None:
    first = open_store()
    first.claim("w")
    first.claim("v")
    first.close()
    for table in ("owner", "lease", "batch"):
        assert admin.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_an_owner_of_the_same_name_takes_over_at_once(open_store: OpenStore) -> None:
    first, again = open_store(owner="orders"), open_store(owner="orders")
    first.claim("w")
    again.claim("w")
    with pytest.raises(StoreFencedError):
        first.write(beginning())


def test_a_lease_that_is_renewed_does_not_run_out(open_store: OpenStore, admin: Any) -> None:
    first, second = open_store(lease_seconds=0.5), open_store()
    first.claim("w")
    ends: set[Any] = set()

    def renewed() -> bool:
        ends.update(admin.execute("SELECT expires FROM owner ORDER BY owner_id LIMIT 1"))
        return len(ends) > 6  # a second and more

    eventually(renewed)
    assert not takes(second)
    first.write(beginning())


@pytest.mark.parametrize("years", [-10, 10])
def test_clocks_of_the_processes_do_not_matter(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, years: int
) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + years * 31_557_600)
    first, second = open_store(), open_store()
    first.claim("w")
    assert not takes(second)


def test_threads_that_claim_a_worker_at_once_do_not_both_get_it(open_store: OpenStore) -> None:
    store = open_store()
    with ThreadPoolExecutor(4) as pool:
        for at in range(20):
            assert sum(pool.map(lambda _, worker=f"w{at}": takes(store, worker), range(4))) == 1


def test_every_claim_has_an_epoch_of_its_own(open_store: OpenStore, admin: Any) -> None:
    store = open_store()
    epochs = []
    for _ in range(5):
        store.claim("w")
        epochs.extend(admin.execute("SELECT epoch FROM lease"))
        store.give_up("w")
    assert len(set(epochs)) == 5


def test_an_epoch_is_not_given_again_when_the_server_crashes(
    open_store: OpenStore, postgres_server: Server, admin: Any
) -> None:
    """A lease is not flushed, so that the crash forgets it: whoever had it is fenced, and the next claim differs."""
    first, second = open_store(), open_store()
    with postgres_server.setting("wal_writer_delay", "10s"):
        admin.execute("CHECKPOINT")
        first.claim("w")
        postgres_server.stop("immediate")
        postgres_server.start()
    second.claim("w")
    with pytest.raises(StoreFencedError, match="'w'"):
        eventually_writes(first)
    eventually_writes(second)
    assert length(second) == 0


def eventually_writes(store: PostgresStore) -> None:
    """The first call after a crash finds the connection lost."""
    try:
        store.write(beginning())
    except StoreFencedError:
        raise
    except StoreError:
        store.write(beginning())


# -- who hears that a worker is lost -----------------------------------------------------------------------


def test_whoever_lost_a_worker_is_told_once_though_nothing_is_written(
    open_store: OpenStore, admin: Any
) -> None:
    told: list[StoreError] = []
    first, second = open_store(), open_store(owner="orders-2")
    for worker_id in ("v", "w\0\ud800"):
        first.claim(worker_id)
        first.when_lost(worker_id, told.append)
    first._ownership.look_after_leases()
    assert told == []
    run_out(admin)
    second.claim("w\0\ud800")
    for _ in range(2):
        first._ownership.look_after_leases()
    (error,) = told
    assert isinstance(error, StoreFencedError)
    assert error.worker_id == "w\0\ud800"
    assert "orders-2" in str(error)


def test_a_worker_that_was_given_up_is_not_missed(open_store: OpenStore, admin: Any) -> None:
    told: list[StoreError] = []
    first = open_store()
    first.claim("w")
    first.when_lost("w", told.append)
    first.give_up("w")
    open_store().claim("w")
    first._ownership.look_after_leases()
    assert told == []


def test_it_is_told_within_the_time_of_a_renewal(open_store: OpenStore) -> None:
    told = Event()
    first, again = open_store(owner="orders"), open_store(owner="orders")
    first.claim("w")
    first.when_lost("w", lambda error: told.set())
    again.claim("w")
    assert told.wait(30)


def test_a_write_without_a_claim_does_not_take_the_worker_from_its_own_store(
    open_store: OpenStore, admin: Any
) -> None:
    """As between the answer of the server to a claim and the note that is made of it."""
    store = open_store()
    store.claim("w")
    epoch = store._ownership._epochs.pop("w")
    with pytest.raises(StoreLockedError):
        store.write(beginning())
    store._ownership._epochs["w"] = epoch
    store.write(beginning())


# -- fencing -----------------------------------------------------------------------------------------------


def test_whoever_lost_a_worker_writes_nothing(open_store: OpenStore, admin: Any) -> None:
    first, second = open_store(), open_store()
    for worker_id in ("v", "w"):
        first.claim(worker_id)
    first.write(beginning())
    run_out(admin)
    second.claim("w")
    before = contents(second, ["v", "w"], [""])
    with pytest.raises(StoreFencedError, match=r"worker 'w' is run by .* now") as refused:
        first.write(changes(workers=[worker_row("v")], items=[item_row(5)], jobs=[job_row("j", "v")]))
    assert refused.value.worker_id == "w"
    assert contents(second, ["v", "w"], [""]) == before
    first.write(changes(workers=[worker_row("v")]))
    second.write(link(0))


def test_it_stays_so_until_the_worker_is_claimed_again(open_store: OpenStore, admin: Any) -> None:
    first, second = open_store(), open_store()
    first.claim("w")
    run_out(admin)
    second.claim("w")
    second.give_up("w")
    for _ in range(2):
        with pytest.raises(StoreFencedError, match="was given away"):
            first.write(beginning())
    first.give_up("w")
    first.claim("w")
    first.write(beginning())


def test_giving_up_a_lost_worker_leaves_it_to_its_new_owner(open_store: OpenStore, admin: Any) -> None:
    first, second, third = open_store(), open_store(), open_store()
    first.claim("w")
    run_out(admin)
    second.claim("w")
    admin.execute("UPDATE owner SET expires = clock_timestamp() + interval '1 hour'")
    first.give_up("w")
    assert not takes(third)
    second.write(beginning())


def test_a_lease_that_ran_out_but_was_not_taken_over_still_holds(open_store: OpenStore, admin: Any) -> None:
    store = open_store()
    store.claim("w")
    run_out(admin)
    store.write(beginning())


def test_a_worker_that_is_not_claimed_is_written_only_while_nobody_has_it(open_store: OpenStore) -> None:
    first, second = open_store(), open_store()
    second.write(beginning())
    first.claim("w")
    with pytest.raises(StoreLockedError, match="'w'") as refused:
        second.write(changes(workers=[worker_row("v")], items=[item_row(1)]))
    assert refused.value.worker_id == "w"
    assert [row.worker_id for row in first.workers()] == ["w"]
    assert length(first) == 0


def test_writing_without_a_claim_leaves_no_claim(open_store: OpenStore) -> None:
    first, second = open_store(), open_store()
    first.write(beginning())
    second.claim("w")
    second.write(link(0))
    assert length(first) == 1


def test_an_owner_that_was_silent_for_a_week_is_forgotten(open_store: OpenStore, admin: Any) -> None:
    first = open_store()
    first.claim("w")
    admin.execute("UPDATE owner SET expires = clock_timestamp() - interval '8 days'")
    second = open_store()
    second.claim("w")
    with pytest.raises(StoreFencedError):
        first.write(beginning())
    with pytest.raises(StoreError, match="taken for dead; open it again"):
        first.write(changes(workers=[worker_row("v")]))
    with pytest.raises(StoreError, match="taken for dead; open it again"):
        first.claim("v")
    assert second.workers() == []


# -- owners that stop --------------------------------------------------------------------------------------


@contextmanager
def chain_of_another_process(url: str, lease_seconds: float) -> Iterator[subprocess.Popen[str]]:
    """It has claimed the worker and writes."""
    command = [sys.executable, "-m", "tests.postgres.chain", url, str(lease_seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def read_to(process: subprocess.Popen[str], number: int) -> None:
    assert process.stdout is not None
    while int(process.stdout.readline()) < number:
        pass


def rest_of(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    said = process.stdout.read().split()
    assert process.wait(timeout=60) == 0
    return said


LEASE = "SELECT expires, clock_timestamp() FROM owner JOIN lease USING (owner_id) WHERE worker_id = 'w'"


def take_over(store: PostgresStore, admin: Any) -> None:
    """In vain until the lease has run out by the clock of the server, and with the first attempt after that."""
    while True:
        expires, before = admin.execute(LEASE).fetchone()
        if takes(store):
            assert admin.execute("SELECT clock_timestamp() >= %s", (expires,)).fetchone() == (True,)
            return
        assert before < expires
        Event().wait(0.01)


def test_a_killed_owner_is_replaced_when_its_lease_has_run_out(
    url: str, open_store: OpenStore, admin: Any
) -> None:
    store = open_store()
    store.write(beginning())
    with chain_of_another_process(url, 1.5) as process:
        read_to(process, 10)
        process.kill()
        take_over(store, admin)
    number = length(store)
    assert number > 10
    store.write(link(number))


def stop_and_wake(url: str, store: PostgresStore, admin: Any, random: Random) -> None:
    before = length(store)
    with chain_of_another_process(url, 1.0) as process:
        read_to(process, before + random.randrange(20))
        process.send_signal(signal.SIGSTOP)
        take_over(store, admin)
        number = length(store)
        store.write(link(number))
        process.send_signal(signal.SIGCONT)
        *acknowledged, end = rest_of(process)
    assert end == "fenced"
    assert all(int(n) < number for n in acknowledged)
    store.write(link(number + 1))
    assert length(store) == number + 2
    store.give_up("w")


@pytest.mark.parametrize("rounds", [4, pytest.param(200, marks=pytest.mark.full)])
def test_every_owner_that_was_stopped_and_woken_is_fenced(
    url: str, open_store: OpenStore, admin: Any, rounds: int
) -> None:
    seed = Random().randrange(2**32)
    random, store = Random(seed), open_store()
    store.write(beginning())
    for at in range(rounds):
        print(f"seed {seed}, round {at}")
        stop_and_wake(url, store, admin, random)
    print(f"seed {seed}: {rounds} owners stopped, all fenced, {length(store)} batches")


SLOW = """
CREATE TABLE slow ();
CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql
    AS 'BEGIN IF to_regclass(''slow'') IS NOT NULL THEN PERFORM pg_sleep(600); END IF; RETURN NULL; END';
CREATE TRIGGER be_slow AFTER INSERT ON item FOR EACH ROW EXECUTE FUNCTION be_slow();
"""


def test_an_owner_that_was_stopped_inside_its_transaction_does_not_hold_the_worker(
    url: str, open_store: OpenStore, admin: Any
) -> None:
    """No time-out of the server ends it: the server is at work, and waits neither for a lock nor for its client."""
    store = open_store()
    store.write(beginning())
    with chain_of_another_process(url, 1.0) as process:
        read_to(process, 3)
        admin.execute(SLOW)
        asleep = (
            "SELECT FROM owner JOIN pg_stat_activity AS a ON a.pid = backend_pid WHERE wait_event = 'PgSleep'"
        )
        eventually(lambda: admin.execute(asleep).fetchone() is not None)
        process.send_signal(signal.SIGSTOP)
        take_over(store, admin)
        admin.execute("DROP TABLE slow")
        number = length(store)
        store.write(link(number))
        process.send_signal(signal.SIGCONT)
        assert rest_of(process)[-1] == "fenced"
    assert length(store) == number + 1


def test_two_that_want_a_worker_at_once_do_not_both_get_it(open_store: OpenStore) -> None:
    stores = [open_store() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for at in range(20):
            assert sum(pool.map(lambda store, worker=f"w{at}": takes(store, worker), stores)) == 1
