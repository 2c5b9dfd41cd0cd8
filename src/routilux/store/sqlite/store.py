"""A store in one SQLite database, owned by one process."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar, get_args
from uuid import uuid4

from routilux.errors import (
    ForkedRuntimeError,
    InvalidValueError,
    StoreError,
    StoreFullError,
    StoreUnknownError,
    refused,
)
from routilux.ports import (
    UNFINISHED,
    Changes,
    Death,
    EntryRow,
    FlightRecorder,
    ItemKey,
    ItemRow,
    KeyRow,
    LetterRow,
    NoteKey,
    OnLost,
    Store,
    StoredJob,
    WorkerRow,
)
from routilux.store.boot import boot_id
from routilux.store.claims import Claims
from routilux.store.flight import Flights
from routilux.store.refused import keep_refused
from routilux.store.sqlite import batch
from routilux.store.sqlite.beside import OwnerLock, Reserve, beside
from routilux.store.sqlite.connection import (
    OLDEST_SQLITE,
    Durability,
    open_writer,
    reading,
    translated,
    unfit,
    writing,
)
from routilux.store.sqlite.late import LateCheck
from routilux.store.sqlite.mark import Mark, MarkFile
from routilux.store.sqlite.opening import State, inspect, is_small, read_state, remove_unfinished
from routilux.store.sqlite.place import Place
from routilux.store.sqlite.readers import Readers
from routilux.store.sqlite.rows import opened, opened_job, opened_key, opened_notes, readable, seal
from routilux.store.sqlite.schema import Migrations, migrate, released
from routilux.store.sqlite.sql import by_key, run, statement

log = logging.getLogger("routilux.store")

T = TypeVar("T")


class SqliteStore(Store):
    """Implements ``ports.Store``. ``durability`` says what a committed transaction survives: "full" everything that
    the disk does, "process" the end of the process but not of the machine.

    ``busy_timeout`` is how many seconds a statement waits for another program that has locked the database.
    ``migrations`` replaces the formats that this version knows, for tests of upgrades. ``filling`` is as in
    ``routilux.store.open_store``.

    Raises StoreLockedError where another store owns the database, StoreCorruptError where it is damaged or shorter
    than it was, and StoreError where it cannot be written: all before anything is changed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        durability: Durability = "full",
        *,
        busy_timeout: float = 5.0,
        migrations: Migrations | None = None,
        filling: str | None = None,
    ) -> None:
        self._path = _database(path)
        if durability not in get_args(Durability):
            raise refused(InvalidValueError, "SqliteStore()", durability, 'a durability, "full" or "process"')
        _check_version()
        self.name = f"sqlite:///{self._path}"
        self._flushed = durability == "full"
        self._pid = os.getpid()
        self._writing = Lock()
        self._claims = Claims()
        self._unsettled: int | None = None
        self._format = len(migrations or released())  # an older one is only looked into
        self._late: LateCheck | None = None
        with ExitStack() as opened_so_far, translated(self._path):
            self._open(opened_so_far, durability, busy_timeout, migrations or released(), filling)
            self._opened = opened_so_far.pop_all()

    # -- opening and closing -------------------------------------------------------------------------------

    def _open(
        self,
        opened: ExitStack,
        durability: Durability,
        busy_timeout: float,
        migrations: Migrations,
        filling: str | None,
    ) -> None:
        """Each step leaves what it has opened in ``opened``, which gives it back in the other order."""
        lock = OwnerLock(self._path)
        opened.callback(lock.close)
        if filling is not None and not remove_unfinished(self._path):
            what = "a store that does not exist yet"
            raise refused(InvalidValueError, filling, self.name, what, fix="name a new file")
        self._reserve = Reserve(self._path)
        found = inspect(self._path, migrations) or State(str(uuid4()), 0, clean=True)
        self._id, self._batch = found.id, found.batch
        self._reserve.restore()
        self._mark = MarkFile(beside(self._path, ".mark"))
        opened.callback(self._mark.close)
        self._mark.begin(self._mark_at(self._batch))  # before the database says that it needs one
        self._connection = open_writer(self._path, durability, busy_timeout)
        opened.callback(self._connection.close)
        self._draining(lambda: self._begin(migrations, filling))
        self._place = Place(self._path)
        self._flights = self._open_flights(opened)
        self._readers = Readers(self._path, busy_timeout)
        opened.callback(self._readers.close)
        if not is_small(self._path):
            self._late = LateCheck(self._path, busy_timeout)
            opened.callback(self._late.close)

    def _begin(self, migrations: Migrations, filling: str | None) -> None:
        """Migrate, and note in the main file that from here on the files beside it are needed."""
        with writing(self._connection) as connection:
            migrate(connection, migrations)
            if not self._batch:
                connection.execute(statement("begin_state"), (self._id, 0, 0, 0))
            if filling is not None:
                batch.put_properties(connection, {UNFINISHED: filling})
            self._advance(connection, clean=False)
        self._committed(self._batch + 1)
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _open_flights(self, opened: ExitStack) -> Flights | None:
        try:
            flights = Flights(beside(self._path, ".flight"))
        except OSError as error:
            log.warning(
                "%s: no flight recorder, poisonous items will not be recognised: %s", self._path, error
            )
            return None
        opened.callback(flights.close)
        return flights

    def close(self) -> None:
        """Wait for the calls that run, and give back everything. Nothing can be read or written any more."""
        if os.getpid() != self._pid:
            return  # the parent's connections and files are not ours to close
        with self._writing:
            if self._readers.close():
                if self._late is not None:
                    self._late.close()
                self._end()
                self._opened.close()

    def _end(self) -> None:
        """Note that everything is in the main file, so that it can be copied alone."""
        try:
            self._place.check()
            with translated(self._path):
                with writing(self._connection) as connection:
                    self._advance(connection, clean=True)
                self._batch += 1
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                self._mark.begin(self._mark_at(self._batch, clean=True))
                self._mark.flush()
        except StoreError as error:
            log.warning("closed without a last checkpoint, the next opening makes up for it: %s", error)

    def _mark_at(self, batch: int, *, clean: bool = False) -> Mark:
        return Mark(self._id, boot_id(), batch, self._flushed, clean)

    # -- writing -------------------------------------------------------------------------------------------

    def write(self, changes: Changes) -> frozenset[int | str]:
        with self._writer():
            if _grows(changes) and not self._reserve.restore():
                raise StoreFullError(
                    f"{self._path}: the disk was full and has not enough space yet: {self._reserve.shortage()}; what "
                    "is stored can be worked off, but nothing can be added"
                )
            return self._draining(lambda: self._commit(changes), may_retry=not _grows(changes))

    def _commit(self, changes: Changes) -> frozenset[int | str]:
        try:
            with translated(self._path), self._transaction() as connection:
                try:
                    batch.apply(connection, changes)
                except (TypeError, ValueError) as error:  # from the forms of values
                    raise unfit(self._path, error) from error
        except batch.Taken as refusal:
            return refusal.names
        return frozenset()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One batch: a transaction with the next number, which is then in the mark as well."""
        self._unsettled = None
        try:
            with writing(self._connection) as connection:
                yield connection
                self._advance(connection, clean=False)
        except StoreUnknownError:
            self._unsettled = self._batch + 1
            raise
        self._committed(self._batch + 1)

    def _advance(self, connection: sqlite3.Connection, *, clean: bool) -> None:
        state = self._id, self._batch + 1, int(clean)
        connection.execute(statement("advance"), (*state[1:], seal(state)))

    def _committed(self, batch: int) -> None:
        """The mark follows at once: it is never more than one batch behind within one boot."""
        try:
            self._mark.write(self._mark_at(batch))
        except OSError as error:
            self._unsettled = batch
            raise StoreUnknownError(f"{self._path}: committed, but the mark was not: {error}") from error
        self._batch, self._unsettled = batch, None

    def _draining(self, commit: Callable[[], T], *, may_retry: bool = True) -> T:
        """Commit; where the disk is full, once more with the space of the reserve."""
        try:
            return commit()
        except StoreFullError:
            self._reserve.give_up()
            if not may_retry:
                raise
        return commit()

    def keep_refused(self, changes: Changes, why: str) -> str:
        return keep_refused(beside(self._path, ".refused"), changes, why)

    def settle(self) -> bool:
        with self._writer(), translated(self._path):
            if self._unsettled is None:
                raise StoreError(
                    f"{self._path}: how the last write ended is known; there is nothing to settle"
                )
            if read_state(self._connection).batch == self._unsettled:
                self._committed(self._unsettled)
                return True
            with self._transaction():
                pass  # takes the place in the log of what may have been written of the other one
            return False

    def prune(self, now: float, *, finished_before: float, keep_finished: int, limit: int) -> int:
        with self._writer():
            return self._draining(lambda: self._prune(now, finished_before, keep_finished, limit))

    def _prune(self, now: float, finished_before: float, keep_finished: int, limit: int) -> int:
        with translated(self._path), self._transaction() as connection:
            return batch.prune(
                connection, now, finished_before=finished_before, keep_finished=keep_finished, limit=limit
            )

    @contextmanager
    def _writer(self) -> Iterator[None]:
        """The right to use the connection that writes."""
        self._check_process()
        with self._writing:
            self._readers.check_open()
            self._check_whole()
            self._place.check()
            yield

    # -- reading -------------------------------------------------------------------------------------------

    def worker(self, worker_id: str) -> WorkerRow | None:
        rows = opened(WorkerRow, self._select("worker", worker_id))
        return rows[0] if rows else None

    def workers(self) -> list[WorkerRow]:
        return opened(WorkerRow, self._select("workers"))

    def notes(self, worker_id: str, *, with_jobs: bool = True) -> list[tuple[NoteKey, bytes]]:
        return opened_notes(self._select("notes" if with_jobs else "notes_without_jobs", worker_id))

    def notes_of_job(self, worker_id: str, job_id: str) -> list[tuple[NoteKey, bytes]]:
        return opened_notes(self._select("notes_of_job", worker_id, job_id))

    def notes_between(
        self, worker_id: str, kind: str, owner: str, *, after: str, before: str, limit: int
    ) -> list[tuple[NoteKey, bytes]]:
        return opened_notes(self._select("notes_between", worker_id, kind, owner, after, before, limit))

    def entries(self, worker_id: str, kind: str, owner: str, *, newest: int | None = None) -> list[EntryRow]:
        rows = opened(EntryRow, self._select("newest_entries", worker_id, kind, owner, _limit(newest)))
        return rows[::-1]

    def items(
        self, worker_id: str, place: str, *, after: int = -1, limit: int | None = None
    ) -> list[ItemRow]:
        return opened(ItemRow, self._select("items", worker_id, place, after, _limit(limit)))

    def items_of(self, keys: Sequence[ItemKey]) -> list[ItemRow]:
        with self._reader() as connection, reading(connection):
            rows = opened(ItemRow, by_key(connection, "items_of", keys))
        found = {(row.worker_id, row.place, row.number): row for row in rows}
        return [found[key] for key in keys if key in found]

    def tail(self, worker_id: str, place: str) -> int:
        rows = opened(ItemRow, self._select("last_item", worker_id, place))
        return rows[0].number if rows else -1

    def places(self, worker_id: str) -> list[str]:
        return [readable(row[0]) for row in self._select("places", worker_id)]

    def job(self, job_id: str) -> StoredJob | None:
        rows = self._select("job", job_id) or (self._select("tombstone", job_id) if self._format > 1 else [])
        return opened_job(rows[0]) if rows else None

    def jobs(
        self,
        *,
        worker_id: str | None = None,
        flow_id: str | None = None,
        statuses: Sequence[str] | None = None,
        has_items: bool | None = None,
        after: tuple[float, str] | None = None,
        limit: int | None = None,
    ) -> list[StoredJob]:
        if statuses is not None and not statuses:
            return []
        conditions = {
            "worker_id = ?": () if worker_id is None else (worker_id,),
            "flow_id = ?": () if flow_id is None else (flow_id,),
            f"status IN ({', '.join('?' * len(statuses or ()))})": statuses or (),
            "(coalesce(items, 0) > 0) = ?": () if has_items is None else (has_items,),
            "(created_at, job_id) > (?, ?)": after or (),
        }
        wanted = {condition: values for condition, values in conditions.items() if values}
        sql = statement("jobs").replace("[conditions]", " AND ".join(wanted) or "TRUE")
        values = [value for values in wanted.values() for value in values]
        with self._reader() as connection:
            return [opened_job(row) for row in run(connection, sql, [*values, _limit(limit)]).fetchall()]

    def letters(self, *, worker_id: str | None = None, job_id: str | None = None) -> list[LetterRow]:
        stored = self._select("letters") if worker_id is None else self._select("letters_of", worker_id)
        rows = opened(LetterRow, stored)
        return rows if job_id is None else [row for row in rows if job_id in json.loads(row.job_ids)]

    def key(self, flow_id: str, key: str, now: float) -> KeyRow | None:
        with self._reader() as connection:
            rows = by_key(connection, "keys_of", [(flow_id, key)])
        row = opened_key(rows[0]) if rows else None
        return row if row is not None and row.expires_at > now else None

    def properties(self) -> dict[str, str]:
        with self._reader() as connection:
            return batch.properties(connection) if self._format > 1 else {}

    def _select(self, name: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._reader() as connection:
            return run(connection, statement(name), values).fetchall()

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        self._check_process()
        self._check_whole()
        with translated(self._path), self._readers.lend() as connection:
            yield connection

    def _check_whole(self) -> None:
        if self._late is not None:
            self._late.check()

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise ForkedRuntimeError(
                f"{self._path} was opened by process {self._pid} before a fork; open a store of its own in this one, "
                "on another database"
            )

    # -- ownership -----------------------------------------------------------------------------------------

    def claim(self, worker_id: str) -> None:
        self._check_process()
        self._readers.check_open()
        self._claims.take(worker_id)

    def when_lost(self, worker_id: str, call: OnLost) -> None:
        """Never: no other process has a worker of this store."""

    def give_up(self, worker_id: str) -> None:
        self._claims.give_up(worker_id)

    def watch(self) -> FlightRecorder | None:
        return None if self._flights is None else self._flights.recorder

    def deaths(self) -> Sequence[Death]:
        return [] if self._flights is None else self._flights.deaths()


def _grows(changes: Changes) -> bool:
    """Whether more is added than is worked off; what changes nothing asks whether that were possible."""
    asks = not any(getattr(changes, kind) for kind in Changes.__slots__)
    return asks or len(changes.items) > len(changes.taken)


def _limit(limit: int | None) -> int:
    return -1 if limit is None else limit


def _database(given: str | os.PathLike[str]) -> Path:
    """The file that the path names, whatever links lead to it: the files beside it have to be beside it."""
    text = os.fspath(given)
    if not isinstance(text, str) or text in ("", ":memory:") or "\0" in text:
        raise refused(
            InvalidValueError, "SqliteStore()", given, "the path of a file",
            fix="for a store in memory that outlives nothing, leave the store out: Runtime()",
        )  # fmt: skip
    path = Path(os.path.realpath(text))
    if path.is_dir() or not path.parent.is_dir():
        what = (
            "a file, and this is a folder"
            if path.is_dir()
            else f"a file in a folder that exists; make {path.parent}"
        )
        raise refused(InvalidValueError, "SqliteStore()", text, what)
    return path


def _check_version() -> None:
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        raise StoreError(
            f"this Python comes with SQLite {sqlite3.sqlite_version}, and the store needs {oldest} or newer; "
            "use a newer Python"
        )
