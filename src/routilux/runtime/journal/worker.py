"""A worker whose every step is a record: where it differs from one in memory, and its row in the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from routilux.errors import (
    RoutiluxError,
    SerializationError,
    StateError,
    StoreCorruptError,
    StoreError,
    WorkerNotRunningError,
    describe,
)
from routilux.kernel.account import JobAccount
from routilux.kernel.activation import OVER
from routilux.kernel.mailbox import Mailbox
from routilux.model.context import running
from routilux.model.item import DeadLetter, Item, Payload
from routilux.model.status import ExecutionStatus, JobStatus, WorkerStatus
from routilux.ports import Activated, KeyRow, NoteKey, WorkerRow
from routilux.runtime import turns
from routilux.runtime.activation import COMPLETED, LiveActivation, Outcome
from routilux.runtime.journal import rows
from routilux.runtime.journal.activation import DRAFT_BYTES, JournaledActivation, TappedJournaledActivation
from routilux.runtime.journal.admission import Admission
from routilux.runtime.journal.backlog import Backlog
from routilux.runtime.journal.committer import RETRY_SECONDS
from routilux.runtime.journal.conflicts import Conflicts, StateConflict
from routilux.runtime.journal.draft import Draft
from routilux.runtime.journal.endings import Endings
from routilux.runtime.journal.handover import Handover
from routilux.runtime.journal.jobs import StoredJobs
from routilux.runtime.journal.joins import Joins
from routilux.runtime.journal.letters import StoredLetters
from routilux.runtime.journal.mapping import Form
from routilux.runtime.journal.notes import ActivationNotes
from routilux.runtime.journal.pauses import StoredPause
from routilux.runtime.journal.record import Record
from routilux.runtime.journal.reopening import Revival
from routilux.runtime.journal.state import JournaledJob
from routilux.runtime.letters import Letters
from routilux.runtime.worker import Worker
from routilux.tracebacks import is_a

if TYPE_CHECKING:
    from routilux.model.flow import Flow
    from routilux.runtime.engine import Engine
    from routilux.runtime.job import JobContext
    from routilux.runtime.nodes import Node
    from routilux.runtime.pool import Seat
    from routilux.runtime.posting import Reply
    from routilux.runtime.waiting import Lines, Waits

T = TypeVar("T")
VALUE_BYTES = 256 * 2**20  # of one value as JSON, on every store; databases take less than 1 GB
NUMBERS_AHEAD = 1_000  # that the worker's row allows for, so that it is not written for every item


class JournaledWorker(Worker):
    """What is not its own business it leaves to its parts, each of which owns one state.

    ``handover`` makes a record of what an activation did, ``endings`` of how items end, ``stored_jobs`` of what becomes
    of jobs; ``notes`` keeps what a later attempt needs, ``conflicts`` runs again what rests on old state, ``backlog``
    knows what of a slot is in memory, ``joins`` finds partners in the store, and ``revival`` brings back what another
    process has left.
    """

    journaled = True
    on_given_up: Callable[[], object] = staticmethod(bool)  # told when it does
    is_cut_off = False  # nothing that still runs in it is recorded any more; set under the journal's lock

    def __init__(self, engine: Engine, flow: Flow, state: Any) -> None:
        assert engine.journal is not None
        self.journal = engine.journal
        self.unreleased = 0  # records handed over and not yet released; moved under the journal's lock
        self.next_number = 1
        self.number_limit = 1  # of the worker's row
        self.row_is_due = False  # it has none yet
        self.forgets = False  # its first row replaces that of a former life, and what was kept with it
        self.end_is_due = True  # none of its rows says that it has ended; moved under the journal's lock
        self.is_claimed = False
        self._giving_up = engine.driver.lock()
        self.about: dict[str, Any] = {}  # what else the worker's row says
        self.metadata_form: bytes | None = None  # that it was started with
        self.stored_jobs = StoredJobs(self)
        self.endings = Endings(self)
        self.backlog = Backlog(self)
        self.joins = Joins(self)
        self.notes = ActivationNotes(self)
        self.handover = Handover(self)
        self.conflicts = Conflicts(self)
        self.revival = Revival(self)
        self.pause = StoredPause(self, self._add_row, self.obey_pause, self.hold)
        super().__init__(engine, flow, state)
        self.number = self._take_number_now
        places = [place for node in self.nodes.values() for place in node.places.values()]
        self.flight_texts = {place: rows.flight_prefix(self.worker_id, place) for place in places}
        state.attach(self)
        for node in self.nodes.values():
            self.backlog.add_slots(node)
            self.joins.add(node)

    def encode(self, value: Any, where: str) -> bytes:
        data = self.journal.codec.encode(value, where)
        if len(data) > VALUE_BYTES:
            raise SerializationError(
                f"{where}: a value of {len(data):,} bytes as JSON, and a store takes up to {VALUE_BYTES:,}; store it "
                "elsewhere, and send a reference to it",
                path="$",
            )
        return data

    def decode(self, data: bytes, where: str) -> Any:
        return self.journal.codec.decode(data, where)

    def draft(self) -> Draft | None:
        """Of the activation of this worker that runs here; None outside of one."""
        activation: Any = running.get()
        if activation is None or activation.node.worker is not self:
            self._check_keeps()
            return None
        if activation.abandoned is not None:
            raise activation.unwanted()
        draft: Draft = activation.draft
        return draft

    def _check_keeps(self) -> None:
        """What is changed behind the end of a worker would be kept nowhere, or get in the way of who runs it now."""
        self.check_is_here()
        if self.stopped:
            raise WorkerNotRunningError(
                f"worker {self.worker_id!r} of flow {self.flow_id!r} has stopped in this runtime, and nothing of it or "
                "of its jobs can be changed here; open it again with runtime.exec() or runtime.recover(), and use the "
                "state or the job that it gives",
                worker_id=self.worker_id,
                flow_id=self.flow_id,
            )

    def check_is_here(self) -> None:
        """There is nothing to read or to change in memory of what another process runs."""
        if self.is_elsewhere:
            raise StateError(
                f"worker {self.worker_id!r} of flow {self.flow_id!r} is run by another process, and nothing of its "
                "state can be read or changed here; do it there, or post() an item and let a routine do it",
                worker_id=self.worker_id,
                flow_id=self.flow_id,
            )

    # -- how it differs from a worker in memory --------------------------------------------------------------

    def activation_type(self, is_async: bool, *, tapped: bool) -> type[LiveActivation]:
        return TappedJournaledActivation if tapped else JournaledActivation

    def entrance(self, mailbox: Mailbox) -> Callable[[Item], int]:
        return self.joins.entrance(mailbox)

    def keep_at_gate(self, mailbox: Mailbox, item: Item) -> bool:
        mailbox.hold_kept(item)
        return True

    def new_job(self, job_id: str, account: JobAccount, metadata: Mapping[str, Any] | None) -> JournaledJob:
        job = JournaledJob(self, job_id, account, metadata)
        job.waits_for = self._waits_for
        return job

    def carry_out(self, mailbox: Mailbox, seat: Seat, activation: Any, limit: float) -> tuple[bool, float]:
        """An activation, and what its mailbox has claimed behind it."""
        node: Node = mailbox.node
        clock = self.engine.now
        while True:
            if activation.job.status is JobStatus.PENDING:
                self.started(activation.job)
            context = activation.job.context.copy()
            context.run(turns.set_running, activation)
            try:
                if activation.is_used and not self.renewed(activation):
                    return False, clock()
                slot_data = node.data_of(activation.batch)
                if (activation.job.halted and turns.put_back(activation)) or (
                    (node.guarded or node.gathers) and not turns.begin(self, activation, slot_data)
                ):
                    return False, clock()
                if not activation.takes_off():
                    return False, clock()
                if (result := context.run(node.logic, slot_data, activation.message, self.state)) is not None:
                    turns.tell_of_result(activation, result)
                turns.end_guarded(activation)
                self.seal(activation)
            except BaseException as error:  # noqa: BLE001 user code may raise anything, SystemExit included
                now = clock()
                return turns.failed(self, activation, error, now), now
            finally:
                activation.landed()
            now = clock()
            if not self._completed(activation, now):
                return self.run_again(activation), now
            crowded = self.journal.is_full or self.queue.held
            following = mailbox.follow(activation, now) if now < limit and not crowded else None
            if following is None:
                return mailbox.finish(activation, now), now
            seat.activation = activation = following
            if mailbox.freed:
                self.room(mailbox)

    def complete(self, activation: Any, now: float) -> bool:
        if not self._completed(activation, now):
            return self.run_again(activation)
        more: bool = activation.mailbox.finish(activation, now)
        return more

    def _completed(self, activation: Any, now: float) -> bool:
        """Hand over an activation that has ended well; False: it is to run again."""
        activation.abandoned = OVER
        if not activation.draft.maps:
            self._note_completed(activation, now)
            return self.handover.hand_over(activation, COMPLETED)
        note = partial(self._note_completed, activation, now)
        return self.handover.hand_over(activation, COMPLETED, note)

    def interrupted(self, activation: Any, error: BaseException) -> bool:
        return activation.in_conflict or is_a(error, StateConflict)

    def run_again(self, activation: Any) -> bool:
        return self.conflicts.run_again(activation)

    def _note_completed(self, activation: Any, now: float) -> None:
        routine_id, job, started = activation.mailbox.routine_id, activation.job, activation.started
        self.state.history.append((routine_id, job, started, now, "completed", activation.attempt, None))
        if self.sink is not None:
            duration, attempt = now - started, activation.attempt
            self.sink((Activated, now, self.worker_id, job, routine_id, attempt, duration, "completed"))

    def may_begin(self, activation: Any) -> bool:
        """Activations of policies that gather are written down first: a later attempt has the same items."""
        if activation.claimed or not activation.node.gathers:
            return True
        self.notes.claim(activation)
        return False

    def merged_before(self, mailbox: Mailbox, slot: str) -> Payload:
        """A copy, which an attempt that fails may have changed."""
        merged: Any = mailbox.merged.get(slot)
        if not merged:
            return {}
        where = f"merged slot '{mailbox.routine_id}.{slot}'"
        form = merged.data if type(merged) is Form else self.encode(merged, where)
        copy: Payload = self.decode(form, where)
        return copy

    def renewed(self, activation: Any) -> bool:
        if not activation.is_used:
            return True
        try:
            activation.renew_payloads()
        except StoreCorruptError:
            raise
        except StoreError:
            mailbox, now = activation.mailbox, self.engine.now()
            if mailbox.stall(activation, retry=False):
                self.schedule(mailbox)
            turns.arm_retry(self, activation, now + RETRY_SECONDS)
            if activation.job.ended:  # it ended meanwhile
                self.sweep()
                self.forget_retry(activation)
            return False
        return True

    def unfit_to_run_again(self, activation: Any) -> BaseException | None:
        try:
            self.notes.keep_message(activation)
        except BaseException as error:  # noqa: BLE001 a registered type of the user may raise anything
            return error
        return None

    def retry_later(self, activation: Any, when: float, delay: float) -> bool:
        return self.notes.retry(activation, when, delay)

    def drop_activation(self, activation: Any) -> None:
        super().drop_activation(activation)
        self.notes.drop(activation)
        if self.conflicts.first is activation:
            self.conflicts.over(activation)

    def holds_back(self, mailbox: Mailbox) -> bool:
        """Whether so much waits to be written that this mailbox is to wait; it is queued again later."""
        if not self.journal.is_full:
            return False
        self.journal.start_later(self, mailbox)
        return True

    def seal(self, activation: Any) -> None:
        """Nothing may fail behind this: merged slots and changed states are encoded, and emits read back."""
        if activation.draft.maps:
            activation.draft.settle()
        if activation.draft.size > DRAFT_BYTES:
            raise activation.too_much()
        if activation.draft.emits:
            self.handover.seal(activation.draft)
        for slot, merged in (activation.merged or {}).items():
            routine_id = activation.mailbox.routine_id
            note = NoteKey(self.worker_id, "merged", routine_id, slot)
            where = f"merged slot '{routine_id}.{slot}'"
            form = activation.draft.notes[note] = self.encode(merged, where)
            activation.merged[slot] = self.decode(form, where)

    def conclude(self, activation: Any, now: float, outcome: Outcome) -> bool:
        self.handover.hand_over(activation, outcome)
        more: bool = activation.mailbox.finish(activation, now, outcome.name)
        return more

    def give_up(self, mailbox: Mailbox, items: Sequence[Item]) -> None:
        if items:
            self.endings.give_up(mailbox, items)

    def dead_letter(
        self,
        mailbox: Mailbox,
        item: Item,
        reason: str,
        error: BaseException | None,
        traceback: str | None = None,
    ) -> None:
        self.endings.dead_letter(mailbox, item, reason, error, traceback)

    def regathered(self, mailbox: Mailbox) -> None:
        self.joins.search(mailbox)

    # -- jobs ------------------------------------------------------------------------------------------------

    def end_job(self, job: JobContext, status: JobStatus, error: BaseException | None = None) -> bool:
        return self.stored_jobs.end(job, status, error)

    def cancel_job(self, job: JobContext) -> None:
        self.stored_jobs.cancel(job)

    def mark_ended(
        self, jobs: Iterable[JobContext], status: JobStatus, error: BaseException | None
    ) -> list[JobContext]:
        """Under the journal's lock, so that their rows are written before any caller takes out their items."""
        with self.journal.lock:
            ended = super().mark_ended(jobs, status, error)
            for job in ended:
                self.stored_jobs.append_end(job)
        return ended

    def _over(self, job: Any) -> None:
        with self.journal.lock:
            self.stored_jobs.append_end(job)
        self.journal.wake()
        super()._over(job)

    def waits_to_change_pause(
        self, paused: bool, deadline: float | None = None, reply: Reply | None = None
    ) -> Waits[None]:
        return self.pause.waits_to_change(paused, deadline, reply)

    def waits_to_change_job_pause(
        self, job: JobContext, paused: bool, deadline: float | None = None, reply: Reply | None = None
    ) -> Waits[None]:
        return self.stored_jobs.pause_of(job).waits_to_change(paused, deadline, reply)

    def trace(self, job: JobContext, action: str, **details: Any) -> None:
        self.stored_jobs.trace(job, action, **details)

    def stored_job(self, job_id: str) -> JobContext | None:
        return self.stored_jobs.find(job_id)

    def key(self, idempotency_key: str, place: str, payload: Payload, metadata: Any) -> KeyRow:
        return self.stored_jobs.key(idempotency_key, place, payload, metadata)

    def job_of_key(self, key: KeyRow, payload: Payload) -> JobContext | None:
        return self.stored_jobs.of_key(key, payload)

    # -- work comes in ---------------------------------------------------------------------------------------

    def admit(
        self,
        node: Node,
        slot: str,
        payload: Payload,
        job: Any,
        deadline: float | None,
        lines: Lines | None,
        *,
        key: KeyRow | None = None,
        redriven: DeadLetter | None = None,
        reply: Reply | None = None,
    ) -> Waits[None]:
        """The item and its job are written when this has ended."""
        try:
            admission = Admission(self, node, slot, payload, job)
        except BaseException:
            self.refused(job)
            raise
        try:
            late = yield from admission.waits_for_place(deadline, lines)
            if late and deadline is not None:
                deadline += late
            yield from admission.waits_to_be_written(key, redriven, deadline, reply)
        except BaseException:
            admission.end_unwritten()
            raise

    def takes_beyond(self, mailbox: Mailbox) -> bool:
        return self.joins.knows(mailbox)

    def stands_still(self, *, inside: bool, timeouts: bool) -> bool:
        """Nothing makes room: and nothing that could is about to come, still to be written, or to be loaded."""
        if self.backlog.expects or self._journal_owes or self.backlog.draws:
            return False
        return super().stands_still(inside=inside, timeouts=timeouts)

    def room(self, mailbox: Mailbox) -> None:
        super().room(mailbox)
        # Only now: what it has taken note of is not told to another caller, who may have made that room.
        for slot in mailbox.slots.values():
            if slot.beyond:
                self.backlog.load_if_room(slot)

    # -- its row ---------------------------------------------------------------------------------------------

    def take_number(self) -> int:
        """The caller holds the journal's lock. The worker's row goes ahead in a record that cannot be refused."""
        number = self.next_number
        self.next_number = number + 1
        if number >= self.number_limit:
            self.number_limit = number + NUMBERS_AHEAD
            self._append_row()
        return number

    def _take_number_now(self) -> int:
        with self.journal.lock:
            number = self.take_number()
        self.journal.wake()
        return number

    def row(self) -> WorkerRow:
        paused = self.pause.on_record
        over = not self.end_is_due or (self.stopped and self.for_good)
        return WorkerRow(
            self.worker_id,
            self.flow_id,
            self.flow.fingerprint(),
            "execution" if self.one_shot else "worker",
            "stopped" if over else "paused" if paused else "running",
            self.number_limit,
            self.engine.driver.clock.time(),
            rows.with_metadata(self.encode(self.about, f"worker {self.worker_id!r}"), self.metadata_form),
        )

    def write_row(self) -> None:
        with self.journal.lock:
            self._append_row()
        self.journal.wake()

    def _append_row(self) -> None:
        """The row as it is now; the caller holds the journal's lock, so that no older one can come later."""
        record = Record(self)
        self._add_row(record)
        self.journal.append(record)

    def _add_row(self, record: Record) -> None:
        record.workers = [self.row()]

    def begin_life(self, first_number: int, former: WorkerRow | None, *, named: bool) -> None:
        """It is new in the store, and its first row is due; ``former`` is that of the last worker of its name.

        ``incarnation`` counts how often the name was opened, ``first_number`` tells jobs of this life from older ones.
        """
        before = 0
        if former is not None:  # older versions have not counted
            before = rows.about_of(self.journal.codec, former).get("incarnation", 0)
        self.about = {
            "named": named, "incarnation": before + 1, "first_number": first_number, **self.joins.about()
        }  # fmt: skip
        self.next_number = first_number
        self.number_limit = first_number + NUMBERS_AHEAD
        self.row_is_due, self.forgets = True, former is not None

    def add_first_row(self, record: Record) -> None:
        """That of an execution comes with its job and its first item: refused, none of them is in the store."""
        self.row_is_due = False
        self._add_row(record)
        if self.forgets:
            record.forgotten = [self.worker_id]

    def add_end(self, record: Record) -> None:
        """An execution ends with its job, of which nothing is left; the caller holds the journal's lock."""
        self.end_is_due = False
        self._add_row(record)

    def write_row_now(self) -> None:
        """Write the first row of a worker, in place of what the store had under its id."""
        record = Record(self)
        self.add_first_row(record)
        self.journal.written_or_raise(record, partial(self.journal.hand_over, record))

    def pause_on_record(self) -> None:
        """The store has it as paused when this returns; raises what it refused that with."""
        self.pause.restore(True)
        record = Record(self)
        self._add_row(record)
        self.journal.written_or_raise(record, partial(self.journal.hand_over, record))

    def limit_time(self) -> None:
        """An execution that was opened again has the time that was left to it, however the clock was moved."""
        seconds = self.about.get("seconds")
        if seconds is not None:
            left = self.about["until"] - self.engine.driver.clock.time()
            self.fail_after(min(seconds, max(0.0, left)))

    # -- coming to rest, and the end ---------------------------------------------------------------------------

    def set_status(self, status: WorkerStatus | ExecutionStatus) -> None:
        super().set_status(status)
        if not self.stopped:
            self.pause.restore(status in (WorkerStatus.PAUSED, ExecutionStatus.PAUSED))
        if self.end_is_due and not self.row_is_due and (self.for_good or not self.stopped):
            self.write_row()

    @property
    def over(self) -> RoutiluxError | None:
        """Why nothing of this worker is written any more."""
        return self.failure or self.journal.over

    def quiet(self) -> bool:
        return self.over is not None or (not self._journal_owes and super().quiet())

    def at_a_stop(self) -> bool:
        return self.over is not None or (not self._journal_owes and super().at_a_stop())

    @property
    def is_nameless(self) -> bool:  # type: ignore[override]
        return not (self.one_shot or self.about.get("named"))

    @property
    def _journal_owes(self) -> bool:
        """Whether something is still to be written and released, or to be loaded for a join."""
        return bool(self.unreleased) or self.joins.at_work

    def misses_items(self) -> bool:
        return not self.backlog.waits and super().misses_items()

    def cancel(self) -> None:
        """Its jobs are cancelled on record first: what the store refuses has not happened.

        After that nothing is refused any more: it returns when the store has taken the worker's end too.
        """
        self.stored_jobs.cancel_all()
        super().cancel()
        if not self.engine.driver.on_loop():
            behind = Record(None)
            self.journal.kept_or_raise(behind, partial(self.journal.hand_over, behind))
            self.check_kept()

    def cancel_jobs(self) -> None:
        """At the end of the worker: for good, or only for this runtime."""
        if self.for_good:
            self.end_jobs(list(self.jobs.values()), JobStatus.CANCELLED)
            return
        for job in list(self.jobs.values()):
            self.jobs.pop(job.job_id, None)
            job.lost = self.failure
            self.engine.book.leave(job)

    def end_drained(self) -> None:
        self.cancel_jobs()  # what is left stays in the store

    def set_rest_aside(self) -> list[Item]:
        if self.for_good:
            super().set_rest_aside()
        return []

    def leave_incomplete(self, mailbox: Mailbox, items: Sequence[Item]) -> None:
        self.endings.leave_incomplete(mailbox, items)

    def waits_to_flush(self, deadline: float | None = None) -> Waits[None]:
        yield from self.journal.waits_to_flush(deadline)
        self.check_kept()

    def caught_up(self) -> None:
        """The journal may owe this worker nothing any more: what waits for that looks anew."""
        if self.held_up and self.resting():
            self.came_to_rest()
        if self.bell.waiting or self.rest.waiting:
            self.changed()

    def resting(self) -> bool:
        return (not self.unreleased or self.over is not None) and super().resting()

    def snapshot(self, use: Callable[[dict[str, Any]], T]) -> T:
        if self.is_elsewhere:
            raise StateError(
                f"worker {self.worker_id!r} is run by another process, and nothing of it is in memory here; export the "
                "store, which has all of it",
                worker_id=self.worker_id,
            )
        if self.backlog.waits:
            raise StateError(
                f"worker {self.worker_id!r} has more items in the store than in memory, which a file cannot take "
                "over; the store is its copy: export it, or let the worker get on with its queue",
                worker_id=self.worker_id,
            )
        return super().snapshot(use)

    def new_letters(self) -> Letters:
        return StoredLetters(self)

    def waits_to_drain(self, deadline: float | None) -> Waits[bool]:
        return self.over is None and (yield from super().waits_to_drain(deadline))

    def forget_engine(self, gone: Any) -> None:
        super().forget_engine(gone)
        self.journal = gone

    def close(self) -> None:
        if self.one_shot and self.state.status in ("completed", "failed", "cancelled"):
            self.for_good = True
        if self.stopped:
            return
        super().close()
        if self.failure is None:
            self._give_up_behind_all()

    def _give_up_behind_all(self) -> None:
        """What follows from the records of a worker that ends, such as taking out what was queued, are records too."""
        last = Record(None)
        last.then(lambda: self._give_up_behind_all() if self.unreleased else self.give_up_claim())
        self.journal.slip_in(last)

    @property
    def leaves_what_fails(self) -> bool:
        return (self.closing or self.stopped) and not self.for_good

    def cut_off(self) -> None:
        """The next runtime that opens the worker runs it again: nothing of it may come behind that."""
        if self.for_good:
            return
        with self.journal.lock:
            self.is_cut_off = True
        for activation in self.running():
            activation.cut_off()
            activation.ask_to_stop()

    def give_up_claim(self) -> None:
        """Others may run this worker now: everything of it is written, or nothing is any more.

        Who comes second waits until they may. To give it up twice would take it from who has claimed it since.
        """
        with self._giving_up:
            if not self.is_claimed:
                return
            try:
                self.journal.store.give_up(self.worker_id)
            except StoreError as error:
                self.engine.warn(f"worker {self.worker_id} is not given up: {describe(error)}")
            self.is_claimed = False
        self.on_given_up()

    def lost(self, error: StoreError) -> None:
        """Another process runs this worker now, or a step of it cannot be written: nothing more of it is recorded here,
        not even the end that it was to come to."""
        with self.journal.lock:
            self.failure, self.is_cut_off, self.for_good = error, True, False
        self.close()
        self.cut_off()
        self.give_up_claim()
        self.changed()
