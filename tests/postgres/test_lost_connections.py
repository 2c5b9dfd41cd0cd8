"""Connections that end at any moment lose nothing, apply nothing twice, and are made again by themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from random import Random
from threading import Condition
from typing import Any

import pytest

from routilux.errors import StoreError, StoreUnknownError
from routilux.store.postgres import PostgresStore
from routilux.testing.store_rows import changes, key_row, worker_row
from tests.postgres.chain import Writer, beginning, length, link
from tests.postgres.conftest import OpenStore
from tests.postgres.server import Server
from tests.waiting import SECONDS, eventually

END_WRITER = "SELECT pg_terminate_backend(backend_pid, 5000) FROM owner"


def end_connections(admin: Any) -> None:
    """All but this one."""
    admin.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE application_name = 'routilux' AND pid <> pg_backend_pid()"
    )


# -- at a known moment -------------------------------------------------------------------------------------


def test_connections_that_ended_while_nothing_was_done_are_made_again(
    open_store: OpenStore, admin: Any
) -> None:
    store = open_store()
    store.claim("w")
    store.write(beginning())
    end_connections(admin)
    assert length(store) == 0
    with pytest.raises(StoreError, match=r"the connection is lost: .*; the next call connects again") as lost:
        store.write(link(0))
    assert not isinstance(lost.value, StoreUnknownError)
    store.write(link(0))
    store.claim("v")
    assert length(store) == 1


@contextmanager
def while_it_is_written(store: PostgresStore, admin: Any) -> Iterator[Future[Any]]:
    """A batch that comes as far as to the items and waits there."""
    with ThreadPoolExecutor(1) as pool, admin.transaction():
        admin.execute("LOCK TABLE item IN EXCLUSIVE MODE")
        writing = pool.submit(store.write, link(0))
        blocked = "SELECT FROM owner JOIN pg_locks ON pg_locks.pid = backend_pid WHERE NOT granted"
        eventually(lambda: admin.execute(blocked).fetchone() is not None)
        yield writing


def test_a_connection_lost_before_the_commit_means_that_nothing_was_written(
    open_store: OpenStore, admin: Any
) -> None:
    store = open_store()
    store.write(beginning())
    with while_it_is_written(store, admin) as writing:
        admin.execute(END_WRITER)
        with pytest.raises(StoreError, match="the connection is lost") as lost:
            writing.result(SECONDS)
    assert not isinstance(lost.value, StoreUnknownError)
    assert length(store) == 0
    store.write(link(0))
    assert length(store) == 1


def test_a_connection_lost_during_the_commit_before_it_took_effect(open_store: OpenStore, admin: Any) -> None:
    store = open_store()
    store.write(beginning())
    admin.execute("""
        CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql
            AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END';
        CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON item DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION wait();
    """)
    with ThreadPoolExecutor(1) as pool, admin.transaction():
        admin.execute("SELECT pg_advisory_xact_lock(1)")
        writing = pool.submit(store.write, link(0))
        blocked = "SELECT FROM owner JOIN pg_locks ON pg_locks.pid = backend_pid WHERE NOT granted"
        eventually(lambda: admin.execute(blocked).fetchone() is not None)
        admin.execute(END_WRITER)
        with pytest.raises(StoreUnknownError, match=r"settle\(\) finds it out"):
            writing.result(SECONDS)
    assert store.settle() is False
    assert length(store) == 0
    store.write(link(0))
    assert (store.settle(), length(store)) == (True, 1)


def test_a_connection_lost_during_the_commit_after_it_took_effect(
    open_store: OpenStore, admin: Any, postgres_server: Server
) -> None:
    """A server that waits for a standby which is not there has committed, and says so to nobody."""
    store = open_store()
    store.write(beginning())
    with postgres_server.setting("synchronous_standby_names", "nobody"), ThreadPoolExecutor(1) as pool:
        writing = pool.submit(store.write, link(0))
        waiting = "SELECT FROM owner JOIN pg_stat_activity AS a ON a.pid = backend_pid WHERE a.wait_event = 'SyncRep'"
        eventually(lambda: admin.execute(waiting).fetchone() is not None)
        admin.execute(END_WRITER)
        with pytest.raises(StoreUnknownError):
            writing.result(SECONDS)
    assert store.settle() is True
    assert length(store) == 1


def test_what_was_never_written_is_not_settled(open_store: OpenStore) -> None:
    assert open_store().settle() is False


def test_a_key_that_is_taken_is_not_the_end_of_the_connection(open_store: OpenStore, admin: Any) -> None:
    store = open_store()
    store.write(changes(keys=[key_row()]))
    pid = admin.execute("SELECT backend_pid FROM owner").fetchone()
    assert store.write(changes(keys=[key_row()], workers=[worker_row()])) == frozenset({0})
    assert store.settle() is False
    assert admin.execute("SELECT backend_pid FROM owner").fetchone() == pid


def test_the_same_key_from_two_processes_at_once_is_given_once(open_store: OpenStore) -> None:
    stores = [open_store() for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        for number in range(20):
            made = [
                changes(
                    keys=[
                        key_row(f"{number}-{n}", worker_id=f"w{at}") for n in (Random(at).sample(range(9), 9))
                    ]
                )
                for at in range(3)
            ]
            results = list(pool.map(lambda store, one: store.write(one), stores, made))
            assert sorted(map(len, results)) == [0, 9, 9]


# -- at random moments -------------------------------------------------------------------------------------


class Progress:
    """Writes the chain, and lets others wait for how far it has come."""

    def __init__(self, store: PostgresStore) -> None:
        self.writer = Writer(store)
        self.number = 0
        self._ended = False
        self._changed = Condition()

    def run(self) -> None:
        """Until it is told to end."""
        try:
            while not self._ended:
                self.writer.write(link(self.number))
                assert self.writer.read() == self.number + 1
                with self._changed:
                    self.number += 1
                    self._changed.notify_all()
        finally:
            self.end()

    def go_on(self, batches: int) -> bool:
        """Wait for so many more; False if it has ended before."""
        with self._changed:
            wanted = self.number + batches
            assert self._changed.wait_for(lambda: self._ended or self.number >= wanted, 2 * SECONDS)
            return not self._ended

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def disturb(
    store: PostgresStore, rounds: int, most_batches: int, disturbance: Callable[[Random], None]
) -> None:
    seed = Random().randrange(2**32)
    random, progress = Random(seed), Progress(store)
    store.claim("w")
    store.write(beginning())
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(progress.run)
        try:
            for at in range(rounds):
                print(f"seed {seed}, round {at}, batch {progress.number}")
                if progress.go_on(random.randint(1, most_batches)):
                    disturbance(random)
            progress.go_on(2)
        finally:
            progress.end()
        writing.result(SECONDS)
    writer = progress.writer
    print(
        f"seed {seed}: {progress.number} batches; {writer.refused} refused, {writer.unknown} unknown, "
        f"{writer.found} of them stored"
    )
    assert length(store) == progress.number


@pytest.mark.parametrize("rounds", [20, pytest.param(2_000, marks=pytest.mark.full)])
def test_connections_ended_at_random_moments(open_store: OpenStore, admin: Any, rounds: int) -> None:
    def end(random: Random) -> None:
        if random.random() < 0.2:
            end_connections(admin)
        else:
            admin.execute(END_WRITER)

    disturb(open_store(), rounds, 8, end)


@pytest.mark.parametrize("rounds", [3, pytest.param(100, marks=pytest.mark.full)])
def test_a_server_stopped_at_once_and_started_again(
    open_store: OpenStore, postgres_server: Server, rounds: int
) -> None:
    def stop_and_start(random: Random) -> None:
        postgres_server.stop("immediate")
        postgres_server.start()

    disturb(open_store(), rounds, 30, stop_and_start)


@pytest.mark.parametrize("durability", ["full", "process"])
def test_a_server_that_crashes_does_not_forget_who_has_opened_the_store(
    open_store: OpenStore, postgres_server: Server, durability: str
) -> None:
    store = open_store(durability=durability)
    postgres_server.stop("immediate")
    postgres_server.start()
    writer = Writer(store)
    writer.write(beginning())
    writer.write(link(0))
    assert length(store) == 1


def test_a_store_outlives_a_restart_of_its_server(open_store: OpenStore, postgres_server: Server) -> None:
    store = open_store()
    store.claim("w")
    store.write(beginning())
    postgres_server.stop("fast")
    with pytest.raises(StoreError, match="no connection: "):
        store.workers()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(length, store)
        postgres_server.start()
        assert reading.result(SECONDS) == 0
    Writer(store).write(link(0))
    assert length(store) == 1
