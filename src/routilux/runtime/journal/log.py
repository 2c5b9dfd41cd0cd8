"""The journal of a runtime: records in their order, one committer, and what follows when they are written.

Guarantees
    * Records are written in the order in which they were handed over, as a prefix: what a record rests on is
      durable when it is.
    * What follows from a record is released after it is written, in the same order, on the committer alone.
    * While a batch is written the next one gathers; an idle journal writes at once.
    * A record is lost in no other way than by being refused to the one who waits for it.

The lock is taken before those of mailboxes and states, and never the other way round.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from routilux.errors import (
    StoreCorruptError,
    StoreError,
    StoreFencedError,
    StoreUnknownError,
    describe,
)
from routilux.ports import Codec, Store, load
from routilux.runtime.journal.flights import Flights
from routilux.runtime.journal.record import Record, merged
from routilux.runtime.posting import KeyTaken

if TYPE_CHECKING:
    from routilux.runtime.engine import Engine

BATCH_RECORDS = 512
BATCH_BYTES = 4 * 2**20
MOST_WAITING = 4_096  # records; beyond that nothing new is started
RETRY_SECONDS = 0.25  # until a store that refused is asked again
PRUNE_RECORDS = 20_000  # written between two looks for what is too old
PRUNE_ROWS = 1_000
KEEP_FINISHED_SECONDS = 7 * 86_400.0
KEEP_FINISHED_JOBS = 100_000


def _nothing() -> None:
    return None


def _resolve(future: Any) -> None:
    if not future.done():
        future.set_result(None)


class Journal:
    """Owned by an engine. ``store`` is written by the committer only and read by anybody."""

    def __init__(self, engine: Engine, store: Store) -> None:
        driver = engine.driver
        self.engine = engine
        self.store = store
        self.codec: Codec = load("codec")()
        self.lock = driver.lock()
        self.health: StoreError | None = None  # why the store does not take records at the moment
        self.broken: StoreError | None = None  # why it will not take any again
        self.written = 0
        self._log: deque[Record] = deque()
        self._tasks: deque[Callable[[], None]] = deque()
        self._unsettled: list[Record] | None = None  # a batch of which nobody knows whether it is durable
        self._waiting_mailboxes: deque[tuple[Any, Any]] = deque()
        self._will_ask = False  # a timer is set
        self._asks = False  # whether the store takes records again: with what waits, or with nothing
        self._pruned = 0
        self._attendant = driver.attendant("routilux-journal", self.step)
        self.flights = Flights(store.watch(), driver, self.wake)

    # -- handing over --------------------------------------------------------------------------------------

    def append(self, record: Record) -> None:
        """Hand a record over; the caller holds :attr:`lock`, and calls :meth:`wake` when it has let go of it."""
        worker = record.worker
        if worker is not None:
            worker.unreleased += 1
        self._log.append(record)

    def wake(self) -> None:
        self._attendant.wake()

    def hand_over(self, record: Record) -> None:
        with self.lock:
            self.append(record)
        self.wake()

    def slip_in(self, record: Record) -> None:
        """Hand over a record whose place in the order does not matter; also for whoever holds the lock."""
        self._log.append(record)
        self.wake()

    def written_or_raise(
        self, record: Record, hand_over: Callable[[], None], undo: Callable[[], None] = _nothing
    ) -> None:
        """Hand a record over and wait until it is written and released; raises what the store refused it with.

        ``undo`` is called, once, when it is certain that nothing of it was written: before this raises, or, after a
        StoreUnknownError, perhaps later. Raises KeyTaken where its idempotency key is somebody else's.
        """
        signal = self.engine.driver.signal()
        failure: list[BaseException] = []

        def leave_open(error: BaseException) -> None:
            failure.append(error)
            signal.set()

        def refuse(error: BaseException) -> None:
            undo()
            leave_open(error)

        record.then(signal.set)
        record.refuse, record.leave_open = refuse, leave_open
        if self.broken is not None:
            undo()
            raise self._again(self.broken)
        try:
            hand_over()
        except BaseException:
            undo()
            raise
        self.wake()
        if self.broken is not None:  # since the last look, and the committer may have ended by it
            self._refuse_waiting(self.broken)
        signal.wait(None)
        if failure:
            raise failure[0]

    def kept_or_raise(self, record: Record, hand_over: Callable[[], None]) -> None:
        """Hand a record over and wait until it is written, however often the store has to be asked; raises only when
        it will take nothing any more."""
        signal = self.engine.driver.signal()
        record.then(signal.set)
        record.on_break = signal.set
        if self.broken is not None:
            raise self._again(self.broken)
        hand_over()
        self.wake()
        signal.wait(None)
        if self.broken is not None:
            raise self._again(self.broken)

    async def until_written(self, hand_over: Callable[[], None]) -> None:
        """For coroutines: hand something over, and go on when everything until then is written and released."""
        from asyncio import get_running_loop  # only coroutines come here, and it is slow to import

        loop = get_running_loop()
        written = loop.create_future()
        hand_over()
        behind = Record(None)
        behind.then(partial(loop.call_soon_threadsafe, _resolve, written))
        self.hand_over(behind)
        await written

    def flush(self) -> None:
        """Wait until everything that was handed over until now is written; raises why it can not be."""
        record = Record(None)
        self.written_or_raise(record, lambda: self.hand_over(record))

    def do(self, task: Callable[[], None]) -> None:
        """Do this on the committer, between two batches."""
        self._tasks.append(task)
        self.wake()

    @property
    def is_full(self) -> bool:
        """Whether so much waits to be written that nothing new is to be started."""
        return len(self._log) >= MOST_WAITING

    def start_later(self, worker: Any, mailbox: Any) -> None:
        """Queue this mailbox again when there is room; the caller passes on its promise to see to it."""
        self._waiting_mailboxes.append((worker, mailbox))
        self.wake()

    # -- the committer -------------------------------------------------------------------------------------

    def step(self) -> bool:
        """Write one batch and release it; False if there is nothing to do at the moment."""
        try:
            return self._step()
        except BaseException as error:
            self._break(StoreError(f"the journal of {self.store.name} has failed: {describe(error)}"))
            raise

    def _step(self) -> bool:
        did = self._do_tasks()
        if self._log or self._unsettled is not None or self._asks:
            did = self._commit() or did
        did = self.flights.step() or did
        if not self.is_full and self._waiting_mailboxes:
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
                task()
            except StoreCorruptError as error:
                self._break(error)
                return False
            except StoreError as error:
                self._tasks.append(task)
                self._ask_again(error)
                return False
            did = True
        return did

    def _break(self, error: StoreError) -> None:
        self.broken = self.health = error
        self.engine.warn(f"the store {self.store.name} takes nothing any more: {error}")
        self._refuse_waiting(error)

    def _commit(self) -> bool:
        if self.broken is not None:
            self._refuse_waiting(self.broken)
            return False
        if self._unsettled is not None:
            return self._settle()
        self._asks = False
        batch = self._next_batch()
        try:
            changes, keyed = merged(batch)
            taken = self.store.write(changes)
        except StoreUnknownError as error:
            self._unsettled = batch
            return self._ask_again(error)
        except StoreFencedError as error:
            return self._fenced(batch, error)
        except StoreCorruptError as error:
            self._put_back(batch)
            self._break(error)
            return False
        except StoreError as error:
            return self._refused(batch, error)
        except BaseException:
            self._put_back(batch)  # whoever waits for it hears that the journal has failed
            raise
        if taken:
            return self._keys_taken(batch, [keyed[at] for at in taken])
        self._release(batch)
        return True

    def _next_batch(self) -> list[Record]:
        log, size = self._log, 0
        batch: list[Record] = []
        while log and len(batch) < BATCH_RECORDS and size < BATCH_BYTES:
            record = log.popleft()
            size += record.size
            batch.append(record)
        return batch

    def _release(self, batch: Sequence[Record]) -> None:
        if self.health is not None:
            self.health = None
            self.engine.warn(f"the store {self.store.name} takes records again")
        self.written += len(batch)
        for record in batch:
            record.release()
            worker = record.worker
            if worker is not None:
                with self.lock:
                    worker.unreleased -= 1
                    left = worker.unreleased
                if not left and worker.bell.waiting:
                    worker.bell.ring()
        self._prune_sometimes()

    def _refused(self, batch: list[Record], error: StoreError) -> bool:
        """The store took nothing: whoever waits is told, everything else is kept and tried again."""
        self._ask_again(error)
        kept = self._tell(batch, error)
        self._put_back(kept)
        return not kept

    def _tell(self, batch: Sequence[Record], error: BaseException) -> list[Record]:
        """Refuse what can be refused; returns the others."""
        kept = []
        for record in batch:
            if record.refuse is None:
                kept.append(record)
            else:
                self._forget(record)
                record.refuse(error)
        return kept

    def _forget(self, record: Record) -> None:
        if record.worker is not None:
            with self.lock:
                record.worker.unreleased -= 1

    def _put_back(self, batch: Sequence[Record]) -> None:
        self._log.extendleft(reversed(batch))

    def _ask_again(self, error: StoreError) -> bool:
        """Come back in a while, unless somebody who waits comes first."""
        if self.health is None or type(self.health) is not type(error):
            self.engine.warn(f"the store {self.store.name} takes no records: {error}; trying again")
        self.health = error
        if not self._will_ask:
            self._will_ask = True
            self.engine.driver.call_at(self.engine.now() + RETRY_SECONDS, self._time_to_ask)
        return False

    def _time_to_ask(self) -> None:
        self._will_ask = False
        self._asks = True
        self.wake()

    def _keys_taken(self, batch: Sequence[Record], losers: Sequence[Record]) -> bool:
        """Some keys belong to other jobs: those posts hear it, everything else is written anew."""
        for record in losers:
            self._forget(record)
            assert record.refuse is not None
            record.refuse(KeyTaken())
        self._put_back([record for record in batch if record not in losers])
        return True

    def _settle(self) -> bool:
        """Find out what became of a batch whose commit nobody has answered."""
        batch = self._unsettled or []
        try:
            durable = self.store.settle()
        except StoreError as error:
            unknown = StoreUnknownError(
                f"the connection to {self.store.name} was lost during a commit, and what became of it can not be found "
                f"out yet ({describe(error)}); repeat the post with the same idempotency_key, and it is accepted once"
            )
            for record in batch:
                if record.leave_open is not None:
                    record.leave_open(unknown)  # who waits does so no longer; the record stays in the batch
                    record.told = True
            return self._ask_again(error)
        self._unsettled = None
        if durable:
            self._release(batch)
        else:
            told = [record for record in batch if record.told]
            self._tell(told, StoreError("it was not written"))
            self._put_back([record for record in batch if not record.told])
        return True

    def _fenced(self, batch: Sequence[Record], error: StoreFencedError) -> bool:
        """Another process runs a worker now: nothing of it is written any more, everything else is."""
        lost = [
            record
            for record in batch
            if record.worker is not None and record.worker.worker_id == error.worker_id
        ]
        for record in lost:
            self._forget(record)
            if record.refuse is not None:
                record.refuse(error)
        worker = self.engine.workers.get(error.worker_id or "")
        self._put_back([record for record in batch if record not in lost])
        if worker is not None:
            self.engine.warn(f"worker {error.worker_id} is given up: {error}")
            worker.lost(error)  # type: ignore[attr-defined]
        return bool(lost)

    def _refuse_waiting(self, error: StoreError) -> None:
        waiting = list(self._log)
        self._log.clear()
        self._log.extend(self._tell(waiting, self._again(error)))
        for record in waiting:
            if record.on_break is not None:
                record.on_break()
        self.engine.bell.ring()
        for worker in list(self.engine.workers.values()):
            worker.bell.ring()

    def _again(self, error: StoreError) -> StoreError:
        again = type(error)(str(error))
        again.__cause__ = error
        return again

    def _prune_sometimes(self) -> None:
        if self.written - self._pruned >= PRUNE_RECORDS:
            self._pruned = self.written
            self.do(self._prune)

    def _prune(self) -> None:
        """Remove some of what is too old, and more of it after the next batch as long as there is more."""
        now = self.engine.driver.clock.time()
        try:
            removed = self.store.prune(
                now,
                finished_before=now - KEEP_FINISHED_SECONDS,
                keep_finished=KEEP_FINISHED_JOBS,
                limit=PRUNE_ROWS,
            )
        except StoreError as error:
            self.engine.warn(f"old rows of {self.store.name} can not be removed: {error}")
            return
        if removed >= PRUNE_ROWS:
            self.do(self._prune)

    # -- the end -------------------------------------------------------------------------------------------

    def close(self, deadline: float | None) -> bool:
        """Write what was handed over, and stop. False if the store did not take it until the deadline."""
        ended = self._attendant.close(deadline)
        return ended and not self._log and self._unsettled is None
