"""A worker made from its rows: state first, then what was being done, then the heads of its queues."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from operator import is_
from typing import TYPE_CHECKING, Any

from routilux.errors import FlowChangedError, StateError, StoreCorruptError, StoreError
from routilux.kernel.account import Account, joined
from routilux.kernel.mailbox import QUEUED, Mailbox, SlotQueue
from routilux.model.item import Item
from routilux.model.status import ExecutionStatus, JobStatus
from routilux.ports import ItemKey, ItemRow, NoteKey, StoredJob, WorkerRow
from routilux.runtime import turns
from routilux.runtime.journal import rows
from routilux.runtime.state import begin_job

if TYPE_CHECKING:
    from routilux.model.flow import Flow
    from routilux.runtime.job import JobContext
    from routilux.runtime.journal.state import JournaledJob
    from routilux.runtime.journal.worker import JournaledWorker

OPEN = (JobStatus.PENDING.value, JobStatus.RUNNING.value)


class Revival:
    """Brings rows of one worker back into memory; used by the thread that opens it, and by the committer after that."""

    def __init__(self, worker: JournaledWorker) -> None:
        self._worker = worker
        self._idle_jobs_known = True  # there are no open jobs without items that were not looked at

    # -- opening -------------------------------------------------------------------------------------------

    def open(self, row: WorkerRow) -> None:
        """Fill a new worker, which is held."""
        worker = self._worker
        worker.joins.opening = True
        worker.next_number = worker.number_limit = row.next_number
        worker.about = worker.decode(row.data, self._where())
        worker.about["incarnation"] = worker.about.get("incarnation", 0) + 1  # written as it is entered
        worker.state.keep_metadata(worker.about.pop("metadata", {}))
        worker.metadata_form = rows.metadata_form(row.data)
        worker.pause.restore(row.status == "paused")
        notes = rows.by_kind(worker.journal.store.notes(worker.worker_id, with_jobs=False))
        self._states(notes)
        self._deaths(notes.get("crash", ()))
        for note, value in notes.get("once", ()):
            worker.notes.onces[note.owner, note.name] = value
        for note, value in notes.get("checkpoint", ()):
            worker.notes.checkpoints[note.owner, note.name] = worker.decode(value, self._where())
        for note, value in notes.get("activation", ()):
            self._activation(note, worker.decode(value, self._where()))
        self._idle_jobs_known = False
        worker.backlog.open()

    def look_at(self, job: JobContext, *, with_states: bool) -> None:
        """Fill the worker of an execution in which nothing will run here; ``with_states``: with what it has left."""
        worker = self._worker
        state: Any = worker.state
        worker.stopped, worker.accepting = True, False
        worker.hold()
        begin_job(state, job)
        state.status = ExecutionStatus(job.account.status.value)
        if with_states:
            self._states(rows.by_kind(worker.journal.store.notes(worker.worker_id, with_jobs=False)))

    def _states(self, notes: Mapping[str, Any]) -> None:
        worker = self._worker
        state: Any = worker.state
        for note, value in notes.get("state", ()):
            state.state_of(note.owner).fill([(self._key(note), value)])
        for note, value in notes.get("shared", ()):
            state.shared_data.fill([(self._key(note), value)])
        for note, value in notes.get("merged", ()):
            node = worker.nodes.get(note.owner)
            if node is not None:
                node.mailbox.merged[note.name] = worker.decode(value, self._where())
        log = worker.journal.store.entries(worker.worker_id, "log", "")
        state.attach_log([worker.decode(entry.data, self._where()) for entry in log])

    def _key(self, note: NoteKey) -> Any:
        return self._worker.decode(note.name.encode(), self._where())

    def _deaths(self, notes: Any) -> None:
        worker = self._worker
        for note, value in notes:
            key = ItemKey(worker.worker_id, note.owner, int(note.name))
            worker.endings.deaths[key] = worker.decode(value, self._where())

    def _activation(self, note: NoteKey, about: Mapping[str, Any]) -> None:
        """One that had been claimed, or waits for a retry: its items stay together."""
        worker = self._worker
        node = worker.nodes.get(note.owner)
        keys = [ItemKey(worker.worker_id, place, number) for place, number in about["items"]]
        found = worker.journal.store.items_of(keys)
        if node is None or not found:
            return  # an item whose routine is gone is set aside with the others of its place
        worker.backlog.claimed.update(keys)
        batch = tuple(self.revived(row) for row in found)
        for item in batch:
            worker.joins.remember(node.mailbox.slots[item[1]], item)
        account = joined([item[3] for item in batch])
        now, wall = worker.engine.now(), worker.engine.driver.clock.time()
        activation: Any = node.mailbox.restore_stalled(batch, account, about["attempt"], now)
        activation.keep_key(note.name)
        activation.message = about["message"]
        activation.claimed = activation.noted = True
        if self._is_poison(node.mailbox, [activation], keys):
            return
        left = min(about["delay"], max(0.0, about["due"] - wall))
        turns.arm_retry(worker, activation, now + left)

    def strangers(self) -> list[str]:
        """Places of items whose slot the flow does not have."""
        worker = self._worker
        known = {slot.qualified_name for slot in worker.backlog.stretches}
        return [place for place in worker.journal.store.places(worker.worker_id) if place not in known]

    # -- items ---------------------------------------------------------------------------------------------

    def item(self, slot: SlotQueue, row: ItemRow) -> None:
        """Queue an item that was in the store."""
        worker, mailbox = self._worker, slot.mailbox
        item = self.revived(row)
        if item[3].ended:
            worker.give_up(mailbox, [item])
            return
        deaths = worker.endings.deaths.get(ItemKey(*row[:3]), 0)
        if deaths >= rows.POISON_DEATHS:
            worker.endings.poisoned(mailbox, [item], rows.poison(row.place, row.number, deaths))
            return
        if worker.joins.of(mailbox) is None:
            self.queue(slot, item)
            return
        item[3].add()  # its job does not come to rest before its partner has been looked for
        worker.joins.entered(slot, item, self.queue(slot, item))
        worker.at_rest(item[3].remove())

    def queue(self, slot: SlotQueue, item: Item) -> int:
        """Queue it, whatever the capacity says; QUEUED, READY or PARKED."""
        worker, mailbox = self._worker, slot.mailbox
        worker.joins.remember(slot, item)
        try:
            return worker.put_in(mailbox, item)
        except BaseException as error:  # noqa: BLE001 an older version, or another flow, has let it in
            worker.endings.unfit(mailbox, item, error)
            return QUEUED

    def readable(self, row: ItemRow) -> Item | None:
        """An item as it would be queued; None if it cannot be read any more, which is found out by its turn."""
        try:
            return self.revived(row)
        except StoreError:
            raise
        except BaseException:  # noqa: BLE001 reading it may call code of registered types
            return None

    def revived(self, row: ItemRow) -> Item:
        worker, clock = self._worker, self._worker.engine.driver.clock
        data = worker.decode(row.data, f"item {row.number} of {row.place!r} in {worker.journal.store.name}")
        age = max(0.0, clock.time() - row.time)
        slot = rows.split_place(row.place)[1]
        return (row.number, slot, data, self.account_of(row), row.source, clock.monotonic() - age)

    def account_of(self, row: ItemRow) -> Account:
        return joined([self.job(job_id).account for job_id in rows.job_ids_of(row.job_ids)])

    def _is_poison(self, mailbox: Mailbox, activations: list[Any], keys: list[ItemKey]) -> bool:
        worker = self._worker
        deaths = max((worker.endings.deaths.get(key, 0) for key in keys), default=0)
        if deaths < rows.POISON_DEATHS:
            return False
        for activation in activations:
            mailbox.withdraw(partial(is_, activation))
            first = keys[0]
            worker.endings.poisoned(
                mailbox, activation.batch, rows.poison(first.place, first.number, deaths), activation
            )
        return True

    # -- jobs ----------------------------------------------------------------------------------------------

    def job(self, job_id: str) -> JournaledJob:
        """The job of an item, from the book or from the store."""
        known = self._known(job_id)
        if known is not None:
            return known
        worker = self._worker
        with worker.journal.lock:  # another thread may bring it here at the same time
            known = self._known(job_id)
            if known is not None:
                return known
            stored = worker.journal.store.job(job_id)
            if stored is not None:
                return self.adopted(stored)
        raise StoreCorruptError(
            f"{worker.journal.store.name} has an item of job {job_id!r} and not the job; repair the store",
            worker_id=worker.worker_id,
            job_id=job_id,
        )

    def _known(self, job_id: str) -> JournaledJob | None:
        worker = self._worker
        known: Any = worker.jobs.get(job_id) or worker.engine.book.jobs.get(job_id)
        return known if known is not None and known.worker_id == worker.worker_id and not known.left else None

    def adopted(self, stored: StoredJob) -> JournaledJob:
        """A job as the store has it, entered in the book."""
        worker, row = self._worker, stored.row
        job: Any = worker.engine.book.restored(worker, row.job_id, None)
        leave_out = partial(self._tell_left_out, row.job_id)
        about, following = rows.fill_job(worker.journal.codec, worker.journal.store, job, row, leave_out)
        job.metadata_form = rows.metadata_form(row.data)
        job.continue_lists(following)
        data = rows.job_data(worker.journal.codec, worker.journal.store, row, leave_out)
        if data:
            job.data.fill(data)
        status = JobStatus(
            row.status
        )  # what is completed stays so, whatever becomes of items that were parked
        if not status.finished:
            status = JobStatus.RUNNING if row.started_at is not None else JobStatus.PENDING
        job.stored, job.serial = stored.items, row.serial
        job.final = status.value if status.finished else None
        account = job.account
        account.active = stored.items
        account.status = status
        account.begun = job.started_at is not None
        account.ended = account.halted = status in (JobStatus.FAILED, JobStatus.CANCELLED)
        account.pause(about["paused"] and not status.finished)
        if account.pause_asked:
            worker.stored_jobs.pause_of(job).restore(True)
        worker.engine.book.adopt(job)
        if status.finished:
            job.announce_end()
        else:
            worker.jobs[job.job_id] = job
        if worker.one_shot:
            begin_job(worker.state, job)
        return job  # type: ignore[no-any-return]

    def _tell_left_out(self, job_id: str, error: BaseException) -> None:
        worker = self._worker
        who, follows = (
            f"reading job {job_id!r} of flow {worker.flow_id!r}",
            "what cannot be read is left out here",
        )
        # Later: a log handler is user code, and the caller holds the journal's lock.
        worker.journal.do(partial(worker.engine.user_code_failed, who, error, follows), worker)

    def left_in_store(self) -> list[str]:
        """Open jobs of which nothing has come into memory so far."""
        worker = self._worker
        if self._idle_jobs_known and not worker.backlog.waits:
            return []
        stored = worker.journal.store.jobs(worker_id=worker.worker_id, statuses=OPEN)
        return [one.row.job_id for one in stored if one.row.job_id not in worker.jobs]

    def everything_is_here(self) -> None:
        """Open jobs of which nothing is left have come to rest when no runtime was there to see it."""
        if self._idle_jobs_known:
            return
        self._idle_jobs_known = True
        worker = self._worker
        stored = worker.journal.store.jobs(worker_id=worker.worker_id, statuses=OPEN, has_items=False)
        for one in stored:
            if one.row.job_id not in worker.jobs:
                job = self.adopted(one)
                job.account.add()
                worker.at_rest(job.account.remove())

    def _where(self) -> str:
        return f"worker {self._worker.worker_id!r} in {self._worker.journal.store.name}"


def check_row(row: WorkerRow, flow: Flow, kind: str, on_flow_change: str) -> None:
    """Refuse to open a worker that does not fit; nothing has been changed."""
    if row.flow_id != flow.flow_id:
        raise StateError(
            f"worker {row.worker_id!r} of the store belongs to flow {row.flow_id!r}, not to {flow.flow_id!r}; give "
            "another worker_id, or the flow that it belongs to",
            worker_id=row.worker_id,
            flow_id=flow.flow_id,
        )
    check_kind(row, kind)
    if row.fingerprint != flow.fingerprint() and on_flow_change == "refuse":
        raise FlowChangedError(
            f"worker {row.worker_id!r} was left by flow {flow.flow_id!r} in another shape: its jobs are blocked (flow "
            "changed). Open it with the flow that it was left by, or with on_flow_change='adopt': items of slots that "
            "are gone become dead letters",
            worker_id=row.worker_id,
            flow_id=flow.flow_id,
        )


def check_kind(row: WorkerRow, kind: str) -> None:
    """A name is one of a worker or of an execution, as long as the store has anything of it."""
    if row.kind != kind:
        what = {"worker": "a worker that takes jobs", "execution": "a one-shot execution"}
        raise StateError(
            f"worker {row.worker_id!r} of the store is {what[row.kind]}, not {what[kind]}; give another worker_id",
            worker_id=row.worker_id,
        )


def set_strangers_aside(worker: JournaledWorker) -> None:
    """Items of slots that the flow does not have any more become dead letters."""
    for place in worker.revival.strangers():
        for row in worker.journal.store.items(worker.worker_id, place):
            worker.endings.set_row_aside(row, "flow changed")
