"""The journal of a runtime: records in their order, handed over by any thread and written by one committer.

Guarantees
    * Records are written in the order in which they were handed over, as a prefix: what a record rests on is
      durable when it is.
    * What follows from a record is released after it is written, in the same order, on the committer alone.
    * While a batch is written the next one gathers; an idle journal writes at once.
    * A record is lost in no other way than by being refused to the one who waits for it, by the end of the runtime, or
      with its worker, when that is another process's.
    * No caller waits longer than for their time-out, or than until the journal ends.

The lock is taken before those of mailboxes and states, and never the other way round.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from routilux.errors import RoutiluxError, RuntimeClosedError, StoreError, StoreUnknownError, again
from routilux.ports import Codec, JobRow, Store, load
from routilux.runtime.journal.committer import Committer
from routilux.runtime.journal.flights import Flights
from routilux.runtime.journal.record import Record
from routilux.runtime.waiting import Signal, Waits, on_thread
from routilux.tracebacks import is_a

if TYPE_CHECKING:
    from routilux.runtime.engine import Engine
    from routilux.runtime.journal.worker import JournaledWorker

MOST_WAITING = 4_096  # records; beyond that nothing new is started
RELEASE_SECONDS = 1.0  # that an interrupted thread gives a record to be released that is written


def _nothing() -> None:
    return None


class Journal:
    """Owned by an engine. ``store`` is written by the committer only and read by any thread."""

    def __init__(self, engine: Engine, store: Store) -> None:
        driver = engine.driver
        self.engine = engine
        self.store = store
        self.codec: Codec = load("codec")()
        self.lock = driver.lock()
        self._log: deque[Record] = deque()
        self._committer = Committer(self, engine, self._log)
        self._attendant = driver.attendant("routilux-journal", self._committer.step)
        self.flights = Flights(store.watch(), driver, self.wake)
        self.has_ended = False  # its thread, which may be held by the store when the runtime has ended

    @property
    def health(self) -> StoreError | None:
        """Why the store does not take records at the moment."""
        return self._committer.health

    @property
    def broken(self) -> StoreError | None:
        """Why the store will not take any records again."""
        return self._committer.broken

    @property
    def over(self) -> RoutiluxError | None:
        """Why nothing is written any more: it is broken, or its runtime has ended."""
        return self._committer.over

    # -- handing over --------------------------------------------------------------------------------------

    def append(self, record: Record) -> None:
        """Hand a record over; the caller holds :attr:`lock`, and calls :meth:`wake` when it has let go of it."""
        worker = record.worker
        if worker is not None:
            worker.unreleased += 1
        self._log.append(record)
        record.handed_over = True

    def amend(self, jobs: Mapping[str, JobRow]) -> None:
        """Rows of these jobs that wait to be written have the status of these, and their worker has not ended with
        them; the caller holds :attr:`lock`."""
        for record in self._log:
            for at, row in enumerate(record.jobs):
                if row.job_id in jobs:
                    now = jobs[row.job_id]
                    changed = row._replace(status=now.status, completed_at=now.completed_at)
                    record.jobs = [*record.jobs[:at], changed, *record.jobs[at + 1 :]]
                    record.workers = [row for row in record.workers if row.status != "stopped"]

    def strike(self, job_id: str, serial: int) -> None:
        """No row of this job that waits to be written is written; the caller holds :attr:`lock`."""
        for record in self._log:
            if record.names_any((job_id,)):
                record.jobs = [row for row in record.jobs if (row.job_id, row.serial) != (job_id, serial)]

    def wake(self) -> None:
        self._attendant.wake()

    def hand_over(self, record: Record) -> None:
        with self.lock:
            self.append(record)
        self.wake()

    def slip_in(self, record: Record) -> None:
        """Hand over a record whose place in the order does not matter; also for a caller that holds the lock."""
        record.slipped_in = True
        self._log.append(record)
        self.wake()

    def written_or_raise(
        self, record: Record, hand_over: Callable[[], None], undo: Callable[[], None] = _nothing
    ) -> None:
        """:meth:`waits_for`, on this thread."""
        interrupted = on_thread(self.waits_for(record, hand_over, undo))
        if interrupted is not None:
            raise interrupted

    def waits_for(
        self,
        record: Record,
        hand_over: Callable[[], None],
        undo: Callable[[], None] = _nothing,
        *,
        deadline: float | None = None,
        withdrawn: str = "nothing of it was accepted",
    ) -> Waits[BaseException | None]:
        """Hand a record over and wait until it is written and released; raises what the store refused it with.

        ``undo`` is called, once, when it is certain that nothing of it was written: before this raises, or, after a
        StoreUnknownError, perhaps later. Raises NameTaken where its idempotency key, or the id of its job, belongs to
        another, StoreError at the deadline, with ``withdrawn`` as what that means, and StoreUnknownError if it is just
        being written then.

        A cancelled task waits on until it is known what became of the record, and a thread that is interrupted
        withdraws it, as at the deadline. Returns what has interrupted it if it was written all the same; raises that
        if it was not, with a note where it is unknown.
        """
        signal = self.engine.driver.signal()
        failure: list[BaseException] = []

        def leave_open(error: BaseException) -> None:
            failure.append(error)
            signal.set()

        def refuse(error: BaseException) -> None:
            undo()
            leave_open(error)

        record.wake = signal.set
        record.refuse, record.leave_open = refuse, leave_open
        if self.over is not None:
            undo()
            raise again(self.over)
        withdraw = partial(self._withdraw, record, withdrawn)
        interrupted: BaseException | None = None
        try:
            hand_over()
            self._see_to_it()
        except BaseException as error:
            if not self._has(record):
                undo()
                raise
            interrupted = error  # a KeyboardInterrupt behind the append: others may have seen the record
            record.handed_over = True
            self._see_to_it()
        interrupted = yield from self._until_known(signal, deadline, withdraw, interrupted)
        if not failure:
            return interrupted
        if interrupted is None:
            raise failure[0]
        if is_a(failure[0], StoreUnknownError):
            interrupted.add_note(f"it was not known what becomes of it when it was cancelled: {failure[0]}")
        raise interrupted

    def _has(self, record: Record) -> bool:
        with self.lock:
            return record.handed_over or record in self._log

    def _see_to_it(self) -> None:
        """A record that is waited for was handed over."""
        self.wake()
        if self.over is not None:  # since the last look, and the committer may have ended by it
            self._committer.refuse_waiting()

    def _until_known(
        self,
        signal: Signal,
        deadline: float | None,
        withdraw: Callable[[], None],
        interrupted: BaseException | None,
    ) -> Waits[BaseException | None]:
        """Wait for the signal, also in a task that is cancelled; returns the cancellation. ``withdraw`` sets it at the
        deadline, and when a thread is interrupted, or was, unless that is about to happen anyway."""
        cancelled: BaseException | None = None
        while True:
            left = None if deadline is None else deadline - self.engine.now()
            try:
                if interrupted is not None:
                    raise interrupted
                is_set = yield signal, left, None
            except GeneratorExit:
                raise  # a task that nothing resumes; this thread may hold any lock
            except BaseException as error:  # noqa: BLE001 it is raised when it is known what became of the record
                from asyncio import CancelledError  # slow to import, and only tasks are cancelled

                cancelled = cancelled or error
                if not isinstance(error, CancelledError):
                    withdraw()
                    yield (
                        signal,
                        RELEASE_SECONDS,
                        None,
                    )  # not for ever: the interrupted wait may have used it up
                    return cancelled
            else:
                if is_set:
                    return cancelled
                withdraw()
                deadline = None

    def _withdraw(self, record: Record, withdrawn: str) -> None:
        self._committer.withdraw(record, withdrawn)

    def kept_or_raise(self, record: Record, hand_over: Callable[[], None]) -> None:
        """:meth:`waits_to_keep`, on this thread."""
        on_thread(self.waits_to_keep(record, hand_over))

    def waits_to_keep(self, record: Record, hand_over: Callable[[], None]) -> Waits[None]:
        """Hand a record over and wait until it is written, however often the store has to be asked; raises only when
        nothing is written any more, or nothing of its worker."""
        signal = self.engine.driver.signal()
        failure: list[RoutiluxError] = []

        def give_up(error: RoutiluxError) -> None:
            failure.append(error)
            signal.set()

        record.on_break, record.wake = give_up, signal.set
        if self.over is not None:
            raise again(self.over)
        hand_over()
        self._see_to_it()
        yield signal, None, None
        if failure:
            raise again(failure[0])

    def flush(self) -> None:
        """Wait until everything that was handed over until now is written; raises why it cannot be.

        Returns at once when the runtime has ended: what is written then is all that there is.
        """
        on_thread(self.waits_to_flush(None))

    def waits_to_flush(self, deadline: float | None) -> Waits[None]:
        """:meth:`flush`, for threads and tasks."""
        if isinstance(self.over, RuntimeClosedError):
            return
        record = Record(None)
        kept = record.unknown = (
            "what has happened so far is in effect, and is written as soon as the store takes records again"
        )
        cancelled = yield from self.waits_for(
            record, lambda: self.hand_over(record), deadline=deadline, withdrawn=kept
        )
        if cancelled is not None:
            raise cancelled

    def lose(self, worker: JournaledWorker, error: StoreError) -> None:
        """Another process has this worker now: it ends here, and nothing of it is written any more. From any thread."""
        self._committer.do(partial(self._committer.lose, worker, error))

    def do(self, task: Callable[[], None], worker: JournaledWorker) -> None:
        """Do this for a worker on the committer, between two batches."""
        self._committer.do(task, worker)

    @property
    def is_full(self) -> bool:
        """Whether so much waits to be written that nothing new is to be started."""
        return len(self._log) >= MOST_WAITING

    def start_later(self, worker: Any, mailbox: Any) -> None:
        """Queue this mailbox again when there is room; the caller passes on its promise to see to it."""
        self._committer.start_later(worker, mailbox)

    # -- the end -------------------------------------------------------------------------------------------

    def close(self, deadline: float | None) -> bool:
        """Write what was handed over, and stop; all who still wait then are told. False if the store did not take it
        until the deadline."""
        self.has_ended = self._attendant.close(deadline)
        is_done = self.has_ended and self._committer.is_done
        self._committer.end()
        return is_done

    def hurry(self) -> None:
        """The runtime ends, and no deadline says when: give up a store that takes nothing for a while."""
        self._committer.hurry()
