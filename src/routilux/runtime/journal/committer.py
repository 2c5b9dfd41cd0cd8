"""The committer of a journal: it writes records in batches, and does what follows when they are written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from routilux.errors import (
    RoutiluxError,
    RuntimeClosedError,
    StoreCorruptError,
    StoreDataError,
    StoreError,
    StoreFencedError,
    StoreLockedError,
    StoreUnknownError,
    again,
    describe,
)
from routilux.ports import Changes, ItemKey
from routilux.runtime.journal.record import AS_STORED, Record, merged
from routilux.runtime.posting import NameTaken, Withdrawn
from routilux.tracebacks import is_a

if TYPE_CHECKING:
    from routilux.runtime.engine import Engine
    from routilux.runtime.journal.log import Journal
    from routilux.runtime.journal.worker import JournaledWorker

BATCH_RECORDS = 512
BATCH_BYTES = 4 * 2**20
LETTER_BYTES = BATCH_BYTES // 64  # that count for a letter, whose payload is not known yet
RETRY_SECONDS = 0.25  # until a store that refused is asked again
PATIENCE_SECONDS = 10.0  # that a runtime which shuts down bears with a store that takes nothing
PRUNE_RECORDS = 20_000  # written between two looks for what is too old
PRUNE_ROWS = 1_000
_OF_DATA = (
    TypeError,
    ValueError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    RecursionError,
)
KEEP_FINISHED_SECONDS = 7 * 86_400.0
KEEP_FINISHED_JOBS = 100_000


class Task(NamedTuple):
    """Something to be done between two batches; ``suspected`` if it has raised already."""

    call: Callable[[], None]
    worker: JournaledWorker | None
    suspected: bool = False


class Committer:
    """Of one journal, from whose ``log`` it takes. :meth:`step` runs on one thread at a time.

    A batch is written as a whole. What cannot be written now goes back to the front of the log, but for records whose
    owners wait and can be told; a batch of which it is unknown whether it is durable is settled before anything else.
    Whenever the store has taken nothing, all who wait hear it, wherever their records are. Records leave the log, and
    come back to it, under the journal's lock.
    """

    def __init__(self, journal: Journal, engine: Engine, log: deque[Record]) -> None:
        self.health: StoreError | None = None  # why the store does not take records at the moment
        self.broken: StoreError | None = None  # why it will not take any again
        self.over: RoutiluxError | None = (
            None  # why nothing is written any more: it is broken, or the runtime ended
        )
        self._journal = journal
        self._engine = engine
        self._store = journal.store
        self._log = log
        self._tasks: deque[Task] = deque()
        self._batch: list[Record] = []  # on its way to the store
        self._unsettled = False  # it is unknown whether the batch is durable
        self._waiting_mailboxes: deque[tuple[Any, Any]] = deque()
        self._will_ask = False  # a timer is set
        self._asks = False  # whether the store takes records again: with what waits, or with nothing
        self._refuses_since = 0.0
        self._patient_until: float | None = None  # from when on a store that takes nothing is given up
        self._written = 0  # records
        self._pruned = 0  # of them, at the last look for what is too old
        self._most: int | None = None  # records in a batch, while one is looked for that cannot be written
        self._has_lost = False  # a worker, of which nothing is written any more

    @property
    def is_done(self) -> bool:
        """Whether everything that was handed over is written."""
        return not self._log and not self._batch

    def do(self, task: Callable[[], None], worker: JournaledWorker | None = None) -> None:
        """Do this between two batches, for a worker or for all."""
        self._tasks.append(Task(task, worker))
        self._journal.wake()

    def start_later(self, worker: Any, mailbox: Any) -> None:
        """Queue this mailbox again when there is room; the caller passes on its promise to see to it."""
        self._waiting_mailboxes.append((worker, mailbox))
        self._journal.wake()

    # -- a step ------------------------------------------------------------------------------------------

    def step(self) -> bool:
        """Write one batch and release it; False if there is nothing to do at the moment.

        Whatever comes out of it, the next step takes up what is left.
        """
        try:
            return self._step()
        except BaseException as error:  # noqa: BLE001 the journal goes on, whatever this is
            self._engine.fault("a step of the journal", error, "it is tried again")
            return self._ask_again(StoreError(describe(error)))

    def _step(self) -> bool:
        if self._unsettled and self.over is None:
            did = False  # what the tasks would find in the store may be of the batch, and come before its release
        else:
            did = self._do_tasks()
        if self._log or self._unsettled or self._asks:
            did = self._commit() or did
        did = self._journal.flights.step() or did
        if not self._journal.is_full and self._waiting_mailboxes:
            while self._waiting_mailboxes:
                worker, mailbox = self._waiting_mailboxes.popleft()
                worker.schedule(mailbox)
            did = True
        return did

    def _do_tasks(self) -> bool:
        did = False
        for _ in range(len(self._tasks)):
            task = self._tasks.popleft()
            try:
                task.call()
            except StoreCorruptError as error:
                self._break(error)
                return False
            except BaseException as error:  # noqa: BLE001 a store that does not come with the package is user code
                refusal = self._as_store_error(error)
                if task.suspected and is_a(error, _OF_DATA) and task.worker is not None:
                    self.lose(
                        task.worker, _broken_off(task.worker, "a step of loading what waits in the store")
                    )
                    return True
                self._tasks.append(task._replace(suspected=True))
                return self._ask_again(refusal)
            did = True
        return did

    def _commit(self) -> bool:
        if self.over is not None:
            self.refuse_waiting()
            return False
        if self._unsettled:
            return self._settle()
        self._asks = False
        batch = self._next_batch()
        if self._has_lost and self._drop_lost(batch):
            return True
        try:
            changes, keyed = merged(batch)
            if changes.letters:
                self._give_payloads(changes)
            taken = self._store.write(changes)
        except StoreUnknownError as error:
            self._unsettled = True
            return self._ask_again(error)
        except (StoreFencedError, StoreLockedError) as error:
            return self._fenced(batch, error)
        except StoreDataError as error:
            return self._unfit(batch, error)
        except StoreCorruptError as error:
            self._put_back(batch)
            self._break(error)
            return False
        except BaseException as error:  # noqa: BLE001 a store that does not come with the package is user code
            refusal = self._as_store_error(error)
            if is_a(error, _OF_DATA) and self._takes_nothing_at_all() is None:
                return self._unfit(batch, StoreDataError(str(refusal)))
            return self._refused(batch, refusal)
        if taken:
            return self._names_taken(batch, keyed, taken)
        self._release(batch)
        return True

    def _next_batch(self) -> list[Record]:
        log, size = self._log, 0
        batch: list[Record] = []
        most = BATCH_RECORDS if self._most is None else self._most
        with self._journal.lock:
            while log and len(batch) < most and size < BATCH_BYTES:
                record = log.popleft()
                size += record.size
                if record.letters:
                    size += LETTER_BYTES * len(record.letters)
                batch.append(record)
            self._batch = batch
        return batch

    def _give_payloads(self, changes: Changes) -> None:
        """Letters have what was acknowledged, whatever logic has made of it in memory."""
        wanted = [
            ItemKey(row.worker_id, row.place, row.number) for row in changes.letters if row.data is AS_STORED
        ]
        found = {ItemKey(*row[:3]): row.data for row in (*changes.items, *self._store.items_of(wanted))}
        for at, row in enumerate(changes.letters):
            if row.data is AS_STORED:
                data = found.get(ItemKey(row.worker_id, row.place, row.number))
                if data is None:
                    raise StoreDataError(
                        f"{self._store.name} has no item {row.number} of {row.place!r} in worker {row.worker_id!r}, "
                        "which is to become a dead letter"
                    )
                changes.letters[at] = row._replace(data=data)

    def _release(self, batch: Sequence[Record]) -> None:
        if self.health is not None:
            self.health = None
            self._engine.warn(f"the store {self._store.name} takes records again")
        self._written += len(batch)
        self._batch = []
        if self._most is not None:
            with self._journal.lock:
                if not (self._log and self._log[0].suspected):
                    self._most = None
        broken: dict[JournaledWorker, None] = {}
        for record in batch:
            if not self._carry_out(record) and record.worker is not None:
                broken[record.worker] = None
            self._done_with(record)
        for worker in broken:
            self.lose(worker, _broken_off(worker, "what follows from a step"))
        self._prune_sometimes()

    def _done_with(self, record: Record) -> None:
        """A record is released, or refused: its worker may have caught up."""
        worker = record.worker
        if worker is not None and not record.slipped_in:
            with self._journal.lock:
                worker.unreleased -= 1
                left = worker.unreleased
            if not left:
                self._follow(worker.caught_up)

    def _carry_out(self, record: Record) -> bool:
        """Whether all that follows from a record was done."""
        done = True
        for call in record.follows:
            done = self._follow(call) and done
        return (record.wake is None or self._follow(record.wake)) and done

    def _follow(self, call: Callable[[], object]) -> bool:
        """Do what follows from a record that is written or refused. The rest follows whatever this raises."""
        try:
            call()
        except BaseException as error:  # noqa: BLE001 as above
            self._engine.fault("what follows from a record of the journal", error, "the journal goes on")
            return False
        return True

    # -- what the store does not take --------------------------------------------------------------------

    def _refused(self, batch: list[Record], error: StoreError) -> bool:
        """The store took nothing: all who wait are told, everything else is kept and tried again."""
        kept = any(record.refuse is None for record in batch)
        self._put_back(batch)
        self._ask_again(error)  # first: who is told looks at the health
        self._refuse_all(error)
        return not kept and bool(self._log)

    def _refuse_all(self, error: BaseException) -> None:
        """Refuse what waits in the log and can be refused; everything else stays there, in its order."""
        with self._journal.lock:
            waiting = [self._log.popleft() for _ in range(len(self._log))]
            told = [record for record in waiting if record.refuse is not None]
            self._log.extendleft(record for record in reversed(waiting) if record.refuse is None)
        self._tell(told, error)

    def _tell(self, records: Sequence[Record], error: BaseException) -> None:
        """These are neither in the log nor in the batch any more."""
        for record in records:
            assert record.refuse is not None
            self._follow(partial(record.refuse, error))
            self._done_with(record)

    def _put_back(self, records: Sequence[Record]) -> None:
        """The batch is no more; these of it are written later."""
        with self._journal.lock:
            self._batch = []
            self._log.extendleft(reversed(records))

    def _as_store_error(self, error: BaseException) -> StoreError:
        """What a store that keeps to its contract would have raised."""
        if is_a(error, StoreError):
            return error  # type: ignore[return-value]
        self._engine.user_code_failed(f"the store {self._store.name}", error, "it is asked again")
        return StoreError(describe(error))

    def _ask_again(self, error: StoreError) -> bool:
        """Come back in a while, unless a record that is waited for comes first."""
        now = self._engine.now()
        if self.health is None:
            self._refuses_since = now
        if self.health is None or type(self.health) is not type(error):
            self._engine.warn(f"the store {self._store.name} takes no records: {error}; trying again")
        self.health = error
        if self._patient_until is not None and now >= max(
            self._patient_until, self._refuses_since + PATIENCE_SECONDS
        ):
            self._break(error)
        elif not self._will_ask:
            self._will_ask = True
            self._engine.driver.call_at(now + RETRY_SECONDS, self._time_to_ask)
        return False

    def _time_to_ask(self) -> None:
        self._will_ask = False
        self._asks = True
        self._journal.wake()

    def _names_taken(
        self, batch: Sequence[Record], keyed: Sequence[Record], taken: frozenset[int | str]
    ) -> bool:
        """Some keys belong to other jobs, or ids of jobs to others: those posts hear it, everything else is written
        anew. What else says something of such a job says it in vain."""
        with_keys = {keyed[name] for name in taken if isinstance(name, int)}
        losers = [record for record in batch if record in with_keys or record.names_any(taken)]
        told = [record for record in losers if record.refuse is not None]
        for record in losers:
            record.jobs = [row for row in record.jobs if row.job_id not in taken]
            if record.refuse is None:
                record.answers = [answer for answer in record.answers if answer.command_id not in taken]
        self._put_back([record for record in batch if record not in told])
        for record in told:
            withdrawn = any(answer.command_id in taken for answer in record.answers)
            self._tell([record], Withdrawn() if withdrawn else NameTaken())
        return True

    def _settle(self) -> bool:
        """Find out what became of a batch whose commit was not answered."""
        batch = self._batch
        try:
            durable = self._store.settle()
        except BaseException as raised:  # noqa: BLE001 as in a write
            error = self._as_store_error(raised)
            self._ask_again(error)
            self._leave_open(
                f"the connection to {self._store.name} was lost during a commit, and what became of it cannot be "
                f"found out yet ({describe(error)})"
            )
            self._refuse_all(error)
            return False
        self._unsettled = False
        if durable:
            self._release(batch)
        else:
            told = [record for record in batch if record.told]
            self._put_back([record for record in batch if not record.told])
            self._tell(told, StoreError("it was not written"))
        return True

    def _leave_open(self, why: str) -> None:
        """Who waits for a record of the batch does so no longer; it stays there, and its outcome is found out later."""
        with self._journal.lock:
            open_ones = [record for record in self._batch if record.leave_open and not record.told]
            for record in open_ones:
                record.told = True
        for record in open_ones:
            assert record.leave_open is not None
            record.leave_open(_unknown(record, why))

    def withdraw(self, record: Record, what: str) -> None:
        """Its time is over: it is refused if the store has not seen it, and left open if it is just being written.

        ``what`` is true when it has been refused.
        """
        with self._journal.lock:
            waits, is_written = record in self._log, record in self._batch and not record.told
            if waits:
                self._log.remove(record)
            elif is_written:
                record.told = True
        name = self._store.name
        if waits:
            why = "it still writes what came before" if self.health is None else str(self.health)
            self._tell([record], StoreError(f"{name} has not taken it within the time-out ({why}); {what}"))
        elif is_written:
            assert record.leave_open is not None
            record.leave_open(_unknown(record, f"{name} has not answered yet whether it is written"))

    # -- what can never be written -------------------------------------------------------------------------

    def _unfit(self, batch: list[Record], error: StoreDataError) -> bool:
        """The store takes others, but not this batch: find the record that it is for, and take that out of the line.

        Halves of the batch are written, and halves of those, in their order; one alone is tried twice.
        """
        if not batch:
            return self._refused(batch, error)
        if len(batch) == 1 and batch[0].suspected:
            self._most, self._batch = None, []
            self._take_out(batch[0], error)
            return True
        for record in batch:
            record.suspected = True
        self._most = max(1, len(batch) // 2)
        self._put_back(batch)
        return True

    def _takes_nothing_at_all(self) -> BaseException | None:
        """Why the store does not even take changes without rows."""
        try:
            self._store.write(Changes())
        except BaseException as error:  # noqa: BLE001 as in a write
            return error
        return None

    def _take_out(self, record: Record, error: StoreDataError) -> None:
        """Who waits for this record hears that it is refused. Where nobody does, nothing that rests on it may be
        written: its worker stops, and goes on from what is stored when it is opened again."""
        if record.refuse is not None:
            self._tell([record], error)
            return
        kept = self._kept(record, error)
        worker = record.worker
        if worker is None:  # it is no step of a worker, and nothing rests on it
            self._engine.warn(f"a record of the journal can never be written: {error}; {kept}")
            return
        self.lose(worker, StoreDataError(
            f"a step of worker {worker.worker_id!r} of flow {worker.flow_id!r} can never be written: {error}; {kept}. "
            "All that came before it is stored: open the worker again to go on from there",
            worker_id=worker.worker_id,
            flow_id=worker.flow_id,
        ))  # fmt: skip
        self._give_up([record])

    def _kept(self, record: Record, error: StoreDataError) -> str:
        """Where what the record says is kept, for people."""
        try:
            return f"it is kept in {self._store.keep_refused(merged([record])[0], str(error))}"
        except BaseException as raised:  # noqa: BLE001 the record may be of any shape, and the disk may be full
            return f"it could not be kept for a repair ({describe(raised)})"

    # -- workers that others run now -----------------------------------------------------------------------

    def _fenced(self, batch: list[Record], error: StoreError) -> bool:
        """Another process runs a worker now: nothing of it is written any more, everything else is."""
        found = {record.worker for record in batch if record.worker is not None}
        lost = [worker for worker in found if worker.worker_id == error.worker_id]
        if not lost:
            return self._refused(batch, error)
        self._put_back(batch)
        for worker in lost:
            self.lose(worker, error)
        return True

    def lose(self, worker: JournaledWorker, error: StoreError) -> None:
        """Nothing of this worker is written any more, and all who wait for it hear why. Between two batches only."""
        self._has_lost = True
        if worker.failure is None:
            self._engine.warn(f"worker {worker.worker_id!r} is given up: {error}")
            self._follow(partial(worker.lost, error))
        with self._journal.lock:
            waiting = [self._log.popleft() for _ in range(len(self._log))]
            self._log.extend(record for record in waiting if not _is_lost(record))
        self._give_up([record for record in waiting if _is_lost(record)])

    def _drop_lost(self, batch: list[Record]) -> bool:
        """Whether the batch had records of lost workers, where something still runs; then the others are put back."""
        lost = [record for record in batch if _is_lost(record)]
        if lost:
            self._put_back([record for record in batch if not _is_lost(record)])
            self._give_up(lost)
        return bool(lost)

    def _give_up(self, records: Sequence[Record]) -> None:
        """These are neither in the log nor in the batch any more, and their worker is lost."""
        for record in records:
            assert record.worker is not None
            assert record.worker.failure is not None
            tell = record.refuse or record.on_break
            if tell is not None:
                self._follow(partial(tell, again(record.worker.failure)))
            self._done_with(record)

    # -- a store that takes nothing any more -------------------------------------------------------------

    def _break(self, error: StoreError) -> None:
        self.over = self.broken = self.health = error
        self._engine.warn(f"the store {self._store.name} takes nothing any more: {error}")
        self.refuse_waiting()

    def hurry(self) -> None:
        """The runtime ends, and nothing else says when: do not try for ever."""
        self._patient_until = self._engine.now() + PATIENCE_SECONDS

    def end(self) -> None:
        """The runtime has ended, and others may run its workers: nothing is written any more."""
        if self.over is None:
            self.over = RuntimeClosedError(
                f"the runtime was shut down before {self._store.name} had taken this; nothing of it was written"
            )
        self.refuse_waiting()

    def refuse_waiting(self) -> None:
        """Nothing is written any more: all who wait hear it, those who can be told nothing else just wake."""
        assert self.over is not None
        self._leave_open(f"{self._store.name} had not answered whether this is written ({self.over})")
        waiting = [*self._batch, *self._log]
        self._refuse_all(again(self.over))
        for record in waiting:
            if record.on_break is not None:
                record.on_break(self.over)
        self._engine.bell.ring()
        for worker in [*self._engine.workers.values(), *self._engine.stopped.values()]:
            worker.changed()

    # -- what is too old ---------------------------------------------------------------------------------

    def _prune_sometimes(self) -> None:
        if self._written - self._pruned >= PRUNE_RECORDS:
            self._pruned = self._written
            self.do(self._prune)

    def _prune(self) -> None:
        """Remove some of what is too old, and more of it after the next batch as long as there is more."""
        now = self._engine.driver.clock.time()
        try:
            removed = self._store.prune(
                now,
                finished_before=now - KEEP_FINISHED_SECONDS,
                keep_finished=KEEP_FINISHED_JOBS,
                limit=PRUNE_ROWS,
            )
        except StoreError as error:
            self._engine.warn(f"old rows of {self._store.name} cannot be removed: {error}")
            return
        if removed >= PRUNE_ROWS:
            self.do(self._prune)


def _broken_off(worker: JournaledWorker, what: str) -> StoreError:
    return StoreError(
        f"worker {worker.worker_id!r} of flow {worker.flow_id!r} has stopped: {what} was broken off by a fault, which "
        "is logged. All that was written is stored: open the worker again to go on from there",
        worker_id=worker.worker_id,
        flow_id=worker.flow_id,
    )


def _is_lost(record: Record) -> bool:
    return record.worker is not None and record.worker.failure is not None


def _unknown(record: Record, why: str) -> StoreUnknownError:
    return StoreUnknownError(f"{why}; {record.unknown}" if record.unknown else why)
