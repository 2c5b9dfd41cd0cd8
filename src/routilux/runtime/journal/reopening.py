"""A worker made from its rows: state first, then what was being done, then the heads of its queues."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from operator import is_
from typing import TYPE_CHECKING, Any

from routilux.errors import FlowChangedError, StateError, StoreCorruptError, StoreError, describe
from routilux.kernel.account import Account, joined
from routilux.kernel.mailbox import QUEUED, Mailbox, SlotQueue
from routilux.model.item import Item
from routilux.model.status import ExecutionStatus, JobStatus
from routilux.ports import EntryRow, ItemKey, ItemRow, JobRow, NoteKey, Store, StoredJob, WorkerRow
from routilux.runtime import turns
from routilux.runtime.journal import rows
from routilux.runtime.journal.mapping import Form
from routilux.runtime.journal.record import Record
from routilux.runtime.journal.state import Unread
from routilux.runtime.state import begin_job
from routilux.tracebacks import kept

if TYPE_CHECKING:
    from routilux.model.flow import Flow
    from routilux.runtime.job import JobContext
    from routilux.runtime.journal.state import JournaledJob
    from routilux.runtime.journal.worker import JournaledWorker

FLOW_CHANGED = "flow changed"
UNREADABLE = "unreadable"
_PAGE = 1_000  # items that are read at a time where all of them are looked at
OPEN = (JobStatus.PENDING.value, JobStatus.RUNNING.value)


class Revival:
    """Brings rows of one worker back into memory; used by the thread that opens it, and by the committer after that."""

    def __init__(self, worker: JournaledWorker) -> None:
        self._worker = worker
        # Jobs that are not there, if any was missed.
        self._lost: dict[str, tuple[int, int, float]] | None = None
        self._idle_jobs_known = True  # there are no open jobs without items that were not looked at

    # -- opening -------------------------------------------------------------------------------------------

    def open(self, row: WorkerRow) -> None:
        """Fill a new worker, which is held."""
        worker = self._worker
        worker.joins.opening = True
        worker.next_number = worker.number_limit = row.next_number
        worker.about = rows.about_of(worker.journal.codec, row)
        worker.about["incarnation"] = worker.about.get("incarnation", 0) + 1  # written as it is entered
        worker.metadata_form = rows.metadata_form(row.data)
        with rows.left_out(self._leave_out):
            worker.state.keep_metadata(rows.metadata_of(worker.journal.codec, row))
        worker.pause.restore(row.status == "paused")
        notes = rows.by_kind(worker.journal.store.notes(worker.worker_id, with_jobs=False))
        self._states(notes)
        self._deaths(notes.get("crash", ()))
        for note, value in notes.get("once", ()):
            worker.notes.onces[note.owner, note.name] = value
        lost = self._checkpoints(notes.get("checkpoint", ()))
        for note, value in notes.get("activation", ()):
            self._activation(note, value, lost.pop((note.owner, note.name), None))
        for (routine_id, key), error in lost.items():
            self._set_items_aside(routine_id, key, error)
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
        doubles: list[NoteKey] = []
        for note, value in notes.get("state", ()):
            with rows.left_out(self._leave_out):
                doubles += state.state_of(note.owner).fill([(note, self._key(note), value)])
        for note, value in notes.get("shared", ()):
            with rows.left_out(self._leave_out):
                doubles += state.shared_data.fill([(note, self._key(note), value)])
        self._remove(doubles)
        for note, value in notes.get("merged", ()):
            node = worker.nodes.get(note.owner)
            if node is not None and note.name in node.mailbox.slots:
                node.mailbox.merged[note.name] = self._merged(value)
            else:
                worker.engine.warn(
                    f"worker {worker.worker_id!r}: the flow has no slot '{note.owner}.{note.name}' any more; its "
                    "merged data stays in the store and is not used"
                )
        log = worker.journal.store.entries(worker.worker_id, "log", "")
        state.attach_log([self._entry(entry) for entry in log])

    def _merged(self, form: bytes) -> Any:
        """As a mailbox has it; what cannot be read raises where the next item is merged with it."""
        try:
            return self._worker.decode(form, self._where())
        except Exception:  # noqa: BLE001 reading it may call code of registered types
            return Form(form)

    def _entry(self, entry: EntryRow) -> Any:
        try:
            return self._worker.decode(entry.data, f"shared_log[{entry.number}] of {self._where()}")
        except Exception as error:  # noqa: BLE001 reading it may call code of registered types
            return Unread(describe(error))

    def _checkpoints(self, notes: Iterable[tuple[NoteKey, bytes]]) -> dict[tuple[str, str], Exception]:
        """What activations have noted that are to run again; of those that cannot be read, why, by routine and key."""
        lost: dict[tuple[str, str], Exception] = {}
        for note, value in notes:
            known = note.owner, note.name
            self._worker.notes.checkpoints[known] = None
            try:
                self._worker.notes.checkpoints[known] = self._worker.decode(value, self._where())
            except Exception as error:  # noqa: BLE001 reading it may call code of registered types
                lost[known] = error
        return lost

    def _set_items_aside(self, routine_id: str, key: str, error: Exception) -> None:
        """Items of an activation that cannot go on where it was, and is not to do again what it has done."""
        worker = self._worker
        node = worker.nodes.get(routine_id)
        places = () if node is None else node.places.values()
        keys = [
            ItemKey(worker.worker_id, place, int(number)) for place in places for number in key.split("-")
        ]
        left = worker.journal.store.items_of(keys)
        worker.backlog.claimed.update(ItemKey(*row[:3]) for row in left)
        if left:
            worker.endings.set_rows_aside(left, UNREADABLE, error)

    def _remove(self, doubles: Iterable[NoteKey]) -> None:
        notes = dict.fromkeys(doubles)
        if notes and not self._worker.stopped:
            record = Record(self._worker)
            record.notes = notes
            self._worker.journal.hand_over(record)

    def _key(self, note: NoteKey) -> Any:
        return self._worker.decode(note.name.encode(), self._where())

    def _deaths(self, notes: Any) -> None:
        worker = self._worker
        for note, value in notes:
            key = ItemKey(worker.worker_id, note.owner, int(note.name))
            worker.endings.deaths[key] = worker.decode(value, self._where())

    def _activation(self, note: NoteKey, form: bytes, lost: Exception | None) -> None:
        """One that had been claimed, or waits for a retry: its items stay together. Where the flow, or the store, does
        not have all of it any more, or it cannot be read, what is left of it is set aside. ``lost``: why its
        checkpoint cannot be read."""
        worker = self._worker
        node = worker.nodes.get(note.owner)
        about, message_form = rows.parted(worker.journal.codec, form, "message", self._where())
        keys = [ItemKey(worker.worker_id, place, number) for place, number in about["items"]]
        found = worker.journal.store.items_of(keys)
        if node is None or not set(node.places.values()).issuperset(key.place for key in keys):
            self._dissolve(note, found, FLOW_CHANGED)
            return
        if len(found) < len(keys):
            self._dissolve(note, found, "incomplete")
            return
        try:
            if lost is not None:
                raise lost
            message = worker.decode(message_form, f"policy message of routine {note.owner!r}")
            batch = tuple(self.revived(row) for row in found)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 reading it may call code of registered types
            self._dissolve(note, found, UNREADABLE, error)
            return
        worker.backlog.claimed.update(keys)
        for item in batch:
            worker.joins.remember(node.mailbox.slots[item[1]], item)
        account = joined([item[3] for item in batch])
        now, wall = worker.engine.now(), worker.engine.driver.clock.time()
        activation: Any = node.mailbox.restore_stalled(batch, account, about["attempt"], now)
        activation.keep_key(note.name)
        activation.message = message
        activation.claimed = activation.noted = True
        if self._is_poison(node.mailbox, [activation], keys):
            return
        left = min(about["delay"], max(0.0, about["due"] - wall))
        turns.arm_retry(worker, activation, now + left)

    def _dissolve(
        self, note: NoteKey, left: Sequence[ItemRow], reason: str, error: Exception | None = None
    ) -> None:
        """An activation that cannot go on. Its items are not queued again: they would run under another key, and what
        it has done outside would be done again, unseen."""
        worker = self._worker
        worker.backlog.claimed.update(ItemKey(*row[:3]) for row in left)
        worker.engine.warn(
            f"worker {worker.worker_id!r}: an activation of routine {note.owner!r} that had begun cannot go on "
            f"({reason}); {len(left)} items of it become dead letters"
        )
        worker.endings.set_rows_aside(left, reason, error, notes={note: None})

    def set_strangers_aside(self) -> None:
        """Items of slots that the flow does not have any more become dead letters."""
        worker, store = self._worker, self._worker.journal.store
        known = {slot.qualified_name for slot in worker.backlog.stretches}
        for place in store.places(worker.worker_id):
            if place in known:
                continue
            for row in _all_items(store, worker.worker_id, place):
                if ItemKey(*row[:3]) not in worker.backlog.claimed:
                    worker.endings.set_rows_aside([row], FLOW_CHANGED)
            worker.joins.forget_notes(place)

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
            worker.endings.poisoned(
                mailbox, [item], rows.poison(row.place, row.number, deaths, one_shot=worker.one_shot)
            )
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
                mailbox,
                activation.batch,
                rows.poison(first.place, first.number, deaths, one_shot=worker.one_shot),
                activation,
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
            return self.adopted(worker.journal.store.job(job_id) or self._lost_job(job_id))

    def _lost_job(self, job_id: str) -> StoredJob:
        """A job of which the store has items, and not the row: older versions have pruned such jobs, and a store may
        be damaged. Nobody knows whether it was cancelled, so nothing of it runs: it is written as failed, and its
        items become dead letters, which can be driven again. The caller holds the journal's lock.
        """
        worker, journal = self._worker, self._worker.journal
        if self._lost is None:
            self._lost = self._items_without_job()
        items, first, created_at = self._lost[job_id]
        error = StoreCorruptError(
            f"{journal.store.name} had items of job {job_id!r} ({items} in worker {worker.worker_id!r}) and not the "
            "job itself, so nothing of it was run; look at its dead letters, and put them back with redrive()",
            worker_id=worker.worker_id,
            job_id=job_id,
        )
        about = {"metadata": {}, "paused": False, "error": kept(error), "outputs_dropped": 0}
        row = JobRow(
            job_id, worker.worker_id, worker.flow_id, JobStatus.FAILED.value, first, created_at, None,
            worker.engine.driver.clock.time(), journal.codec.encode(about, f"job {job_id!r}"),
        )  # fmt: skip
        record = Record(worker)
        record.jobs, record.counts = [row], {job_id: items}
        journal.append(record)
        journal.wake()
        worker.engine.warn(str(error))
        return StoredJob(row, items)

    def _items_without_job(self) -> dict[str, tuple[int, int, float]]:
        """Of each job that is not there: how many items it has in the worker, the number of the first, and its time."""
        worker, store = self._worker, self._worker.journal.store
        found: dict[str, tuple[int, int, float]] = {}
        there: set[str] = set()
        for place in store.places(worker.worker_id):
            for row in _all_items(store, worker.worker_id, place):
                for job_id in rows.job_ids_of(row.job_ids):
                    if job_id not in found and (job_id in there or store.job(job_id) is not None):
                        there.add(job_id)
                        continue
                    items, first, time = found.get(job_id, (0, row.number, row.time))
                    found[job_id] = items + 1, min(first, row.number), min(time, row.time)
        return found

    def _known(self, job_id: str) -> JournaledJob | None:
        worker = self._worker
        known: Any = worker.jobs.get(job_id) or worker.engine.book.jobs.get(job_id)
        if known is None or known.worker_id != worker.worker_id or known.left or known.outlived_by(worker):
            return None
        return known  # type: ignore[no-any-return]

    def adopted(self, stored: StoredJob) -> JournaledJob:
        """A job as the store has it, entered in the book."""
        worker, row = self._worker, stored.row
        job: Any = worker.engine.book.restored(worker, row.job_id, None)
        leave_out = partial(self._tell_left_out, f"job {row.job_id!r}")
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

    def _leave_out(self, error: BaseException) -> None:
        self._tell_left_out(f"worker {self._worker.worker_id!r}", error)

    def _tell_left_out(self, what: str, error: BaseException) -> None:
        worker = self._worker
        # Later: a log handler is user code, and the caller holds the journal's lock.
        worker.journal.do(partial(rows.tell_left_out, worker.engine, worker.flow_id, what, error), worker)

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


def _all_items(store: Store, worker_id: str, place: str) -> Iterator[ItemRow]:
    after = -1
    while page := store.items(worker_id, place, after=after, limit=_PAGE):
        yield from page
        after = page[-1].number
