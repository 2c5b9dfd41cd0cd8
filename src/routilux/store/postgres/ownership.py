"""Which workers this store may write, and that it alone may.

An open store is an *owner*: a row that it renews on a thread of its own, and that runs out when its process stops. A
claimed worker is a *lease* of its owner with an epoch that no other claim ever had. Every batch checks the epochs of
its workers and locks their leases, so that a lease is taken over between two batches and never within one.

An epoch is drawn, not counted: what a server counts without a flush it counts again after a crash. A lease that the
crash made it forget is lost to its owner like one that was taken over.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterable, Iterator
from secrets import randbits
from threading import Event, Lock, Thread
from typing import Final, NamedTuple

import psycopg

from routilux.errors import StoreError, StoreFencedError, StoreLockedError
from routilux.ports import OnLost
from routilux.store.postgres.address import Address
from routilux.store.postgres.link import Link
from routilux.store.postgres.rows import readable, storable, texts
from routilux.store.postgres.statements import statements

_log = logging.getLogger("routilux.store")
_SQL: Final = statements("ownership")
_LOCK_TIMEOUT: Final = 250  # milliseconds; how long a claim waits for a transaction of the owner before
_END_TIMEOUT: Final = 5_000  # milliseconds; how long the end of a connection is waited for
_TRIES: Final = 20
_EPOCH_BITS: Final = 63
_RENEW_SECONDS: Final = 1.0  # at most, between two looks at the leases


class Holder(NamedTuple):
    """Who has a worker; ``seconds`` are left of its lease, below zero when it has run out."""

    owner_id: int
    name: str
    host: str
    pid: int
    seconds: float

    def __str__(self) -> str:
        return f"{readable(self.name)} (host {readable(self.host)}, process {self.pid})"


class Ownership:
    """Safe from any thread. ``same_name`` is the name that was given; an owner without one never had it before."""

    def __init__(self, address: Address, name: str | None, lease_seconds: float) -> None:
        self._address = address
        self._same_name = None if name is None else storable(name)
        self._seconds = lease_seconds
        self._claiming = Lock()  # one at a time: the server takes two claims of one owner for the same
        self._lock = Lock()
        self._epochs: dict[str, int] = {}
        self._on_lost: dict[str, OnLost] = {}  # of the claims whose loss is to be told
        self._owner_id = 0
        self._closing = Event()
        # Shorter than the lease: a lease that cannot be renewed in time is lost anyway.
        self._link = Link(address, self._closing, _prepare, patience=lease_seconds / 3)
        self._thread = Thread(target=self._renew, name="routilux-lease", daemon=True)

    # -- the owner -----------------------------------------------------------------------------------------

    def register(self) -> None:
        host, pid = socket.gethostname(), os.getpid()
        name = self._same_name or storable(f"{host}:{pid}")

        def action(connection: psycopg.Connection) -> int:
            with connection.transaction():
                connection.execute(
                    "SET LOCAL synchronous_commit = on"
                )  # a server that crashes must not forget it
                connection.execute(_SQL["forget_silent"])
                connection.execute(_SQL["forget_commands"])
                new = connection.execute(
                    _SQL["register"], [name, storable(host), pid, self._seconds]
                ).fetchone()
            assert new is not None
            return int(new[0])

        self._owner_id = self._link.run(action, again=False)
        self._thread.start()

    def close(self) -> None:
        """Everything is given up; if the server cannot be reached, the leases run out."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        self._link.close(lambda connection: connection.execute(_SQL["unregister"], [self._owner_id]))

    def _renew(self) -> None:
        while not self._closing.wait(min(self._seconds / 3, _RENEW_SECONDS)):
            try:
                self.look_after_leases()
            except StoreError:
                continue  # the next turn tries again; what is lost meanwhile is found by the batch that needs it
            except Exception:  # noqa: BLE001 without this thread all leases run out
                _log.exception("the leases of this process could not be renewed; it is tried again")

    def look_after_leases(self) -> None:
        """Renew them, and tell those who have lost theirs."""
        parameters = [self._seconds, self._owner_id]
        self._link.run(lambda connection: connection.execute(_SQL["renew"], parameters))
        with self._lock:
            epochs = {worker_id: self._epochs[worker_id] for worker_id in self._on_lost}
        if epochs:
            held = self._link.run(lambda connection: self.check(connection, epochs).fetchall())
            for worker_id in epochs.keys() - {readable(worker_id) for (worker_id,) in held}:
                self._tell_lost(worker_id, epochs[worker_id])

    def _tell_lost(self, worker_id: str, epoch: int) -> None:
        error = _fenced(worker_id, self.holder(worker_id))
        with self._lock:
            if self._epochs.get(worker_id) != epoch:
                return  # it was given up meanwhile
            on_lost = self._on_lost.pop(worker_id, None)
        if on_lost is not None:
            on_lost(error)

    # -- claims --------------------------------------------------------------------------------------------

    def claim(self, worker_id: str, on_lost: OnLost | None) -> None:
        with self._claiming:
            self._claim(worker_id, on_lost)

    def _claim(self, worker_id: str, on_lost: OnLost | None) -> None:
        with self._lock:
            if worker_id in self._epochs:
                raise StoreLockedError(
                    f"worker {worker_id!r} is run by another runtime with the same store; shut that one down first",
                    worker_id=worker_id,
                )
        for _ in range(_TRIES):
            epoch = self._link.run(lambda connection: self._taken(connection, worker_id))
            if epoch is not None:
                with self._lock:
                    self._epochs[worker_id] = epoch
                    if on_lost is not None:
                        self._on_lost[worker_id] = on_lost
                return
            holder = self.holder(worker_id)
            if holder is not None and holder.seconds > 0:
                raise _locked(worker_id, holder)
        raise StoreLockedError(
            f"worker {worker_id!r} is wanted by several processes at once", worker_id=worker_id
        )

    def give_up(self, worker_id: str) -> None:
        with self._lock:
            epoch = self._epochs.pop(worker_id, None)
            self._on_lost.pop(worker_id, None)
        if epoch is not None and not self._closing.is_set():
            parameters = [storable(worker_id), epoch]
            self._link.run(lambda connection: connection.execute(_SQL["give_up"], parameters))

    def holder(self, worker_id: str) -> Holder | None:
        return self._link.run(lambda connection: _holder(connection, worker_id))

    def _taken(self, connection: psycopg.Connection, worker_id: str) -> int | None:
        """The epoch of the new lease; None while the worker has an owner."""
        try:
            row = self.take(connection, [worker_id], again=True).fetchone()
            return None if row is None else int(row[1])
        except psycopg.errors.LockNotAvailable:
            # An owner that was stopped in the middle of a batch holds its lease as long as its connection lives.
            holder = _holder(connection, worker_id)
            if holder is not None and holder.seconds <= 0:
                connection.execute(
                    _SQL["end_writer"], {"owner_id": holder.owner_id, "patience": _END_TIMEOUT}
                )
        return None

    # -- batches -------------------------------------------------------------------------------------------

    def rights(self, worker_ids: set[str]) -> Rights:
        """To write these workers in one batch; they have to be asked for as a part of it."""
        with self._lock:
            epochs = {worker_id: self._epochs[worker_id] for worker_id in worker_ids & self._epochs.keys()}
        return Rights(self, epochs, sorted(worker_ids - epochs.keys()))

    def check(self, connection: psycopg.Connection, epochs: dict[str, int]) -> psycopg.Cursor:
        """Gives the workers that are this owner's, and keeps them so until the end of the transaction."""
        return connection.execute(_SQL["held"], [texts(epochs), list(epochs.values())])

    def take(
        self, connection: psycopg.Connection, worker_ids: list[str], *, again: bool = False
    ) -> psycopg.Cursor:
        """Gives the workers that were free, with their epochs; they are this owner's from now on. ``again``: also those
        that were."""
        parameters = {
            "owner_id": self._owner_id,
            "worker_ids": texts(worker_ids),
            "epochs": [randbits(_EPOCH_BITS) for _ in worker_ids],
            "same_name": self._same_name,
            "again": again,
        }
        return connection.execute(_SQL["take"], parameters)

    def give_back(self, connection: psycopg.Connection, worker_ids: list[str]) -> None:
        connection.execute(_SQL["give_back"], [texts(worker_ids), self._owner_id])

    def begin(self, connection: psycopg.Connection, number: int, acknowledged: int) -> psycopg.Cursor:
        """Note the number of the batch as a part of it; no row where the server does not have the acknowledged one."""
        return connection.execute(_SQL["begin_batch"], [number, self._owner_id, acknowledged])

    def last_batch(self, connection: psycopg.Connection) -> int | None:
        """None: this owner is not known any more."""
        row = connection.execute(_SQL["last_batch"], [self._owner_id]).fetchone()
        return None if row is None else int(row[0])

    def give_up_all(self, connection: psycopg.Connection, why: str) -> None:
        """What this process knows of its workers is not what the store has: all are lost to it."""
        connection.execute(_SQL["give_up_all"], [self._owner_id])
        with self._lock:
            told, self._on_lost = self._on_lost, {}
        for worker_id, on_lost in told.items():
            on_lost(
                StoreFencedError(f"worker {worker_id!r} has to be opened again: {why}", worker_id=worker_id)
            )

    def take_over_writing(self, connection: psycopg.Connection) -> None:
        """For a new connection that is to write: the one before must have ended, and all that it had begun."""
        connection.execute(_SQL["end_writer"], {"owner_id": self._owner_id, "patience": _END_TIMEOUT})
        connection.execute(_SQL["begin_writer"], [self._owner_id])


class Rights:
    """The rights of one batch: workers that were claimed, and others that are borrowed while it is written.

    ``ask`` and ``give_back`` send their statements; what the server has said is looked at by ``check``.
    """

    def __init__(self, ownership: Ownership, epochs: dict[str, int], borrowed: list[str]) -> None:
        self._ownership = ownership
        self._epochs = epochs
        self._borrowed = borrowed
        self._held: psycopg.Cursor | None = None
        self._lent: psycopg.Cursor | None = None

    def ask(self, connection: psycopg.Connection) -> None:
        if self._epochs:
            self._held = self._ownership.check(connection, self._epochs)
        if self._borrowed:
            self._lent = self._ownership.take(connection, self._borrowed)

    def give_back(self, connection: psycopg.Connection) -> None:
        if self._borrowed:
            self._ownership.give_back(connection, self._borrowed)

    def check(self) -> None:
        """Raise StoreFencedError or StoreLockedError where a right was not given. No answer is no refusal."""
        for worker_id in _refused(self._epochs, self._held):
            raise _fenced(worker_id, self._ownership.holder(worker_id))
        for worker_id in _refused(self._borrowed, self._lent):
            raise _locked(worker_id, self._ownership.holder(worker_id))


def _refused(worker_ids: Iterable[str], answer: psycopg.Cursor | None) -> Iterator[str]:
    if answer is not None and answer.pgresult is not None:
        given = {worker_id for worker_id, *_ in answer}
        yield from (worker_id for worker_id in worker_ids if storable(worker_id) not in given)


def _locked(worker_id: str, holder: Holder | None) -> StoreLockedError:
    who = "another process" if holder is None else str(holder)
    left = (
        ""
        if holder is None
        else f"; its lease runs for another {max(0.0, holder.seconds):.1f} s unless it is renewed"
    )
    return StoreLockedError(
        f"worker {worker_id!r} is run by {who}{left}. Shut that process down, or wait until its lease has run out",
        worker_id=worker_id,
    )


def _fenced(worker_id: str, holder: Holder | None) -> StoreFencedError:
    who = "was given away meanwhile" if holder is None else f"is run by {holder} now"
    return StoreFencedError(
        f"worker {worker_id!r} {who}: the lease of this process had run out. Nothing was written; stop the worker here",
        worker_id=worker_id,
    )


def _holder(connection: psycopg.Connection, worker_id: str) -> Holder | None:
    row = connection.execute(_SQL["holder"], [storable(worker_id)]).fetchone()
    return None if row is None else Holder(*row)


def _prepare(connection: psycopg.Connection) -> None:
    # A lease needs no flush of its own: the first batch under it flushes it too, and without it nothing is written.
    connection.execute("SET synchronous_commit = off")
    connection.execute(f"SET lock_timeout = {_LOCK_TIMEOUT}".encode())
