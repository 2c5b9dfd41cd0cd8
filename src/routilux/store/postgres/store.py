"""The store in PostgreSQL: what it is to the runtime, and how a batch is written."""

from __future__ import annotations

import logging
import math
import struct
from collections.abc import Sequence
from threading import Event, Lock
from typing import Final

import psycopg

from routilux.errors import (
    InvalidTypeError,
    InvalidValueError,
    StoreDataError,
    StoreError,
    StoreUnknownError,
    describe,
    refused,
)
from routilux.ports import Changes, Commands, Death, FlightRecorder, OnLost, Store
from routilux.store.flight import Flights
from routilux.store.postgres.address import address_of
from routilux.store.postgres.commands import PostgresCommands
from routilux.store.postgres.failures import is_lost
from routilux.store.postgres.filling import begin_filling, check_finished
from routilux.store.postgres.flights import flights_of
from routilux.store.postgres.link import Link
from routilux.store.postgres.machine import beside
from routilux.store.postgres.migrating import check_server, migrate
from routilux.store.postgres.ownership import Ownership
from routilux.store.postgres.pruning import prune
from routilux.store.postgres.reading import Reading
from routilux.store.postgres.writing import (
    Statement,
    statements_of,
    taken_names,
    worker_ids_of,
)
from routilux.store.refused import keep_refused

_log = logging.getLogger("routilux.store")

DURABILITIES: Final = ("full", "process")
PATIENCE: Final = 5.0  # seconds that a call tries to connect again
_SWITCH_OFF: Final = "SELECT set_config(name, 'off', false) FROM unnest(%s::text[]) AS setting (name)"
# To switch a way off makes it look dear, and what is dear would be compiled first: so no compiler either.
_OTHER_WAYS: Final = [
    "enable_seqscan", "enable_bitmapscan", "enable_sort", "enable_hashjoin", "enable_mergejoin", "jit",
]  # fmt: skip
# A server may ask for more than a flush, such as a standby that has it too; it stays so.
_FULL: Final = """
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local')
"""


class PostgresStore(Reading, Store):
    """Implements ``ports.Store`` in a PostgreSQL database (14 or newer), for several processes at once.

    ``url`` is ``postgresql://user:password@host:port/database``, with any parameter of libpq behind a ``?``. The
    tables live in a schema of their own: ``schema``, else the first one in the search path that the ``options`` of
    the URL set, else ``routilux``. They are made, and brought to the newest format, when a store is opened.

    ``durability``: with "full" a batch is flushed before ``write`` returns; with "process" it survives the end of
    this process, and the last moments before a crash of the server can be lost.

    A claimed worker belongs to this store alone, and its lease is renewed each second, or three times within a shorter
    ``lease_seconds``. When this process stops, others can take it over after that time, by the clock of the server. A
    process that has lost a worker can write nothing to it: StoreFencedError. ``owner`` names this process in messages.
    Give one only if the name is never in use twice at the same time: who comes with the same name takes over at once,
    without waiting.

    A worker that no process has claimed can be written; it is claimed for as long as the transaction lasts.

    ``filling`` is as in ``routilux.store.open_store``.

    Lost connections are made again by the next call, which tries for 5 seconds.

    Raises InvalidValueError and InvalidTypeError for arguments, and StoreError when the server cannot be reached,
    only reads, is too old, or holds a store of a newer format.
    """

    def __init__(
        self,
        url: str,
        *,
        durability: str = "full",
        owner: str | None = None,
        lease_seconds: float = 10.0,
        schema: str | None = None,
        filling: str | None = None,
    ) -> None:
        _check(durability, owner, lease_seconds)
        self._address = address_of(url, schema)
        self._durability = durability
        self._lease_seconds = lease_seconds
        self._filling = filling
        self._batch = 0  # the number of the last one that was tried
        self._acknowledged = 0  # and of the last one that was written
        self._closing = Event()
        self._flights: Flights | None = None
        self._flights_wanted = True
        self._flights_lock = Lock()
        self._ownership = Ownership(self._address, owner, lease_seconds)
        self._writer = Link(self._address, self._closing, self._prepare_writer, patience=PATIENCE)
        super().__init__(
            Link(self._address, self._closing, find_by_key, patience=PATIENCE), self._address.name
        )
        self._commands = PostgresCommands(self._address, self._reader, self._ownership, self._closing)
        try:
            self._reader.run(self._make_ready, again=False)
            self._ownership.register()
            self._writer.run(lambda connection: None, again=False)
        except BaseException:
            self.close()
            raise

    def _make_ready(self, connection: psycopg.Connection) -> None:
        check_server(connection, self._address)
        migrate(connection, self._address)
        if self._filling is None:
            check_finished(connection, self.name)
        else:
            begin_filling(connection, self._address, self._filling)

    def _prepare_writer(self, connection: psycopg.Connection) -> None:
        milliseconds = max(1, round(self._lease_seconds * 1000))
        find_by_key(connection)
        connection.execute("SET synchronous_commit = off" if self._durability == "process" else _FULL)
        # Who waits longer for a lock, or stands still within a transaction, has lost its leases by then.
        connection.execute(f"SET lock_timeout = {milliseconds}".encode())
        connection.execute(f"SET idle_in_transaction_session_timeout = {milliseconds}".encode())
        self._ownership.take_over_writing(connection)

    # -- writing -------------------------------------------------------------------------------------------

    def write(self, changes: Changes) -> frozenset[int | str]:
        """As ``ports.Store`` says. Raises StoreFencedError, with ``worker_id``, where a claimed worker has been taken
        over, and StoreLockedError where a worker that was not claimed has an owner."""
        try:
            worker_ids = worker_ids_of(changes)
            batch = list(statements_of(changes))
            return self._writer.run(
                lambda connection: self._write(connection, changes, worker_ids, batch), again=False
            )
        except (TypeError, ValueError, OverflowError, struct.error) as error:  # from the forms of values
            raise StoreDataError(
                f"{self.name}: a value cannot be stored: {describe(error)}; nothing was written"
            ) from error

    def _write(
        self,
        connection: psycopg.Connection,
        changes: Changes,
        worker_ids: set[str],
        batch: Sequence[Statement],
    ) -> frozenset[int | str]:
        if not worker_ids and not batch:
            return frozenset()
        self._batch += 1
        try:
            taken = self._send(connection, changes, worker_ids, batch)
        except BaseException:
            _roll_back(connection)
            raise
        if taken:
            _roll_back(connection)
        else:
            self._commit(connection)
            self._acknowledged = self._batch
        return taken

    def _send(
        self,
        connection: psycopg.Connection,
        changes: Changes,
        worker_ids: set[str],
        batch: Sequence[Statement],
    ) -> frozenset[int | str]:
        """Everything but the commit, in one round trip. Gives the names that are taken."""
        rights = self._ownership.rights(worker_ids)
        try:
            with connection.pipeline():
                connection.execute("BEGIN")
                rights.ask(connection)
                noted = self._ownership.begin(connection, self._batch, self._acknowledged)
                answers = [connection.execute(statement, parameters) for statement, parameters in batch]
                rights.give_back(connection)
        except psycopg.Error:
            rights.check()  # where a worker has been lost, its rows are another's, and any refusal follows from that
            raise
        rights.check()
        if noted.rowcount != 1:
            _roll_back(connection)
            self._check_remembered(connection)
        return taken_names(changes, batch, answers)

    def _commit(self, connection: psycopg.Connection) -> None:
        try:
            done = connection.execute("COMMIT")
        except psycopg.Error as error:
            if not is_lost(connection, error):
                raise
            connection.close()
            raise StoreUnknownError(
                f"{self.name}: the connection was lost during the commit, so it is not known whether the batch is "
                "stored; settle() finds it out"
            ) from error
        if done.statusmessage != "COMMIT":
            raise StoreError(f"{self.name}: the server has rolled the batch back; nothing was written")

    def keep_refused(self, changes: Changes, why: str) -> str:
        """In a file of this machine, among the temporary files: one for each store and user."""
        try:
            path = beside(self.name, ".refused")
        except OSError as error:
            raise StoreError(f"{self.name}: there is no place to keep refused changes: {error}") from error
        return keep_refused(path, changes, why)

    def settle(self) -> bool:
        """As ``ports.Store`` says: connects again, ends the connection that was lost, and looks the batch up."""
        found = self._writer.run(self._ownership.last_batch)
        if found == self._batch > 0:
            self._acknowledged = self._batch
            return True
        return False

    def _check_remembered(self, connection: psycopg.Connection) -> None:
        """Raise what the server has forgotten: this store, or batches that it had acknowledged."""
        found = self._ownership.last_batch(connection)
        if found is None:
            raise StoreError(
                f"{self.name}: this store was silent for so long that it was taken for dead; open it again"
            )
        if found < self._acknowledged:
            self._acknowledged = found
            why = (
                "the server has forgotten what it had acknowledged, as in a crash with durability='process', or when a "
                "standby that lagged behind has taken its place"
            )
            self._ownership.give_up_all(connection, why)
            raise StoreError(
                f"{self.name}: {why}; nothing was written, and every worker has to be opened again"
            )

    def prune(self, now: float, *, finished_before: float, keep_finished: int, limit: int) -> int:
        """As ``ports.Store`` says. The limits hold for all that is in the database, whichever process runs it."""

        def action(connection: psycopg.Connection) -> int:
            with connection.transaction():
                return prune(connection, now, finished_before, keep_finished, limit, self.name)

        return self._writer.run(action)

    # -- ownership -----------------------------------------------------------------------------------------

    def claim(self, worker_id: str) -> None:
        """Raises StoreLockedError, which names the owner and says how long its lease runs, where there is one."""
        self._check_open()
        self._ownership.claim(worker_id)

    def when_lost(self, worker_id: str, call: OnLost) -> None:
        """Within a second after another process has taken it over, or after this one can find that out again."""
        self._ownership.when_lost(worker_id, call)

    def give_up(self, worker_id: str) -> None:
        self._ownership.give_up(worker_id)

    @property
    def commands(self) -> Commands:
        return self._commands

    # -- the flight recorder -------------------------------------------------------------------------------

    def watch(self) -> FlightRecorder | None:
        flights = self._open_flights()
        return None if flights is None else flights.recorder

    def deaths(self) -> Sequence[Death]:
        """Those of processes on this machine, of the same user and within one boot: see ``flights``."""
        flights = self._open_flights()
        return [] if flights is None else flights.deaths()

    def _open_flights(self) -> Flights | None:
        """When a runtime asks: a caller that only looks at the store needs no file."""
        with self._flights_lock:
            if self._flights is None and self._flights_wanted:
                self._flights_wanted = False
                try:
                    self._flights = flights_of(self.name)
                except OSError as error:
                    _log.warning(
                        "%s: no flight recorder, poisonous items will not be recognised: %s", self.name, error
                    )
            return self._flights

    # -- the end -------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give up all workers and close the connections. A batch that is being written is waited for."""
        self._closing.set()
        self._commands.close()
        self._writer.close()
        self._reader.close()
        self._ownership.close()
        with self._flights_lock:
            self._flights_wanted = False
            if self._flights is not None:
                self._flights.close()
                self._flights = None

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise StoreError("the store is closed; open a new one")


def _roll_back(connection: psycopg.Connection) -> None:
    """A connection that cannot even do that is of no use any more; the server then rolls back by itself."""
    try:
        connection.execute("ROLLBACK")
    except psycopg.Error:
        connection.close()


def find_by_key(connection: psycopg.Connection) -> None:
    """Every statement finds its rows by a key. What the planner believes about the size of a queue is often wrong."""
    connection.execute(_SWITCH_OFF, [_OTHER_WAYS])


def _check(durability: object, owner: object, lease_seconds: object) -> None:
    where = "PostgresStore"
    if durability not in DURABILITIES:
        raise refused(InvalidValueError, f"{where}(durability=)", durability, '"full" or "process"')
    if owner is not None and not (isinstance(owner, str) and owner):
        raise refused(InvalidTypeError, f"{where}(owner=)", owner, "a name, which is text, or None")
    if isinstance(lease_seconds, bool) or not isinstance(lease_seconds, int | float):
        raise refused(InvalidTypeError, f"{where}(lease_seconds=)", lease_seconds, "a number of seconds")
    if not 0.1 <= lease_seconds <= 3600 or math.isnan(lease_seconds):
        raise refused(InvalidValueError, f"{where}(lease_seconds=)", lease_seconds, "0.1 to 3,600 seconds")
