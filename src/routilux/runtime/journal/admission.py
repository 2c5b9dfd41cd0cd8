"""A post from outside: written together with its job, its key and the letter that it drives again, or refused."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from routilux.kernel.mailbox import FULL, QUEUED
from routilux.model.status import JobStatus
from routilux.ports import ItemRow, KeyRow
from routilux.runtime.job import say_accepted
from routilux.runtime.journal import rows
from routilux.runtime.journal.record import Record

if TYPE_CHECKING:
    from routilux.model.item import DeadLetter, Item, Payload
    from routilux.runtime.journal.worker import JournaledWorker
    from routilux.runtime.nodes import Node
    from routilux.runtime.posting import Reply
    from routilux.runtime.waiting import Lines, Waits

KEYED = "repeat the post with the same idempotency_key, and it is accepted once"
UNKEYED = (
    "the post may have been accepted; repeated, it would be accepted once only if it had an idempotency_key"
)


class Admission:
    """One item on its way into a slot of a worker, on behalf of a caller that waits in ``post()``.

    ``kept`` says whether a place is kept for it in memory; False sends it to the store, None drops it. It is numbered
    and accounted for under the journal's lock, as its record is appended, and delivered on the committer.
    """

    def __init__(self, worker: JournaledWorker, node: Node, slot: str, payload: Payload, job: Any) -> None:
        self._worker = worker
        self._job = job
        self._place = node.places[slot]
        self._queue = node.mailbox.slots[slot]
        self._form = worker.encode(payload, f"post() to {self._place!r}")
        self._payload = worker.decode(self._form, self._place)
        node.check_key(slot, self._payload)  # as it will be joined: what was read back counts
        self._kept: bool | None = None
        self._displaces = False  # the oldest item of the slot goes when this one is handed over
        self._item: Item | None = None  # what is on its way, from when it is handed over
        self._record: Record | None = None
        self._taken_back = False

    def waits_for_place(self, deadline: float | None, lines: Lines | None) -> Waits[float]:
        """Raises QueueFullError where there is none, or none until the deadline.

        Returns for how long, in seconds, logic had one then, and waited for its own place in its worker.
        """
        worker, queue = self._worker, self._queue
        lined_up = lines is not None and queue in lines.waiting
        if not lined_up and self._offer() != FULL:
            return 0.0
        match queue.on_full:
            case "error":
                raise worker.full_error(queue)
            case "drop_new":
                pass
            case "drop_old":
                self._displaces, self._kept = True, False
            case _:
                return (yield from self._waits_for_room(deadline, lines))
        return 0.0

    def _waits_for_room(self, deadline: float | None, lines: Lines | None) -> Waits[float]:
        worker, queue = self._worker, self._queue
        now, offered = worker.engine.now, 0.0

        def offer() -> int:
            nonlocal offered
            offered = now()
            return self._offer()

        yield from worker.back_pressure.waits_to_post(queue, offer, self._job, deadline, lines)
        return now() - offered

    def _offer(self) -> int:
        if not self._queue.mailbox.keep_place(self._queue.name):
            return FULL
        self._kept = True
        return QUEUED

    # -- handing over ----------------------------------------------------------------------------------------

    def waits_to_be_written(
        self,
        key: KeyRow | None,
        redriven: DeadLetter | None,
        deadline: float | None,
        reply: Reply | None = None,
    ) -> Waits[None]:
        """Returns when it is written and delivered; raises what it was refused with, and StoreError at the deadline."""
        record = self._record = Record(self._worker)
        record.size = len(self._form)
        record.key = None if key is None else key._replace(job_id=self._job.job_id)
        record.unknown = UNKEYED if key is None else KEYED
        record.redriven = () if redriven is None else ((redriven.worker_id, redriven.item_id),)
        if reply is not None:
            record.answers = [reply.of({"job_id": self._job.job_id})]
            record.then(reply.written)
        record.then(self._deliver)

        hand_over = partial(self._hand_over, record)
        cancelled = yield from self._worker.journal.waits_for(
            record, hand_over, self.take_back, deadline=deadline
        )
        if cancelled is not None:
            yield from self._waits_to_cancel(key, cancelled, deadline)
            raise cancelled

    def _waits_to_cancel(
        self, key: KeyRow | None, cancelled: BaseException, deadline: float | None
    ) -> Waits[None]:
        """The task that posts was cancelled too late: the item is written.

        A job that has not begun is cancelled with it, unless others have posted into it too, or it has a key: who
        repeats the post with that gets this job. Until that is written, the next runtime would run it.
        """
        job = self._job
        if job.account.posts == 1 and key is None and not job.account.begun:
            self._worker.end_jobs([job], JobStatus.CANCELLED)
        if job.status is not JobStatus.CANCELLED:
            say_accepted(cancelled, job)
            return
        journal, record = self._worker.journal, Record(None)
        try:
            yield from journal.waits_for(record, partial(journal.hand_over, record), deadline=deadline)
        except GeneratorExit:
            raise
        except BaseException:  # noqa: BLE001 the first one is raised
            say_accepted(cancelled, job, ", which may not be written")

    def _hand_over(self, record: Record) -> None:
        worker = self._worker
        with worker.journal.lock:
            worker.engine.directory.check_takes(worker)  # what is written behind its end would never be seen
            if self._displaces:
                self._displace()
            self._number(record)
            worker.journal.append(record)

    def _displace(self) -> None:
        """Drop the oldest, by a record of its own: what was dropped stays so if this item is refused."""
        record = Record(self._worker)
        self._kept = self._worker.backlog.make_way(record, self._queue)
        self._worker.journal.append(record)

    def _number(self, record: Record) -> None:
        worker, job, queue = self._worker, self._job, self._queue
        number = worker.take_number()
        item = (number, queue.name, self._payload, job.account, "post", worker.engine.now())
        if self._kept is None:
            queue.mailbox.drop(queue.name)
            worker.dropped(item, queue, "slot full, newest dropped")
        else:
            self._account_for(record, item)
        job.serial = number if job.serial is None else job.serial
        if job.final == JobStatus.COMPLETED and not job.status.finished:
            job.final = None  # it was to complete with what is on its way, and goes on with this item
        record.jobs = [worker.stored_jobs.row(job)]
        if worker.row_is_due:
            worker.add_first_row(record)

    def _account_for(self, record: Record, item: Item) -> None:
        worker, queue, account = self._worker, self._queue, self._job.account
        if self._kept and queue.beyond:  # others came first, and wait in the store
            queue.mailbox.give_place(queue.name)
            self._kept = False
        worker.backlog.stretches[queue].account_for(queue, item[0], bool(self._kept))
        wall, job_ids = worker.engine.driver.clock.time(), rows.job_ids_text(account)
        record.items = [ItemRow(worker.worker_id, self._place, item[0], job_ids, "post", wall, self._form)]
        if not self._kept:
            record.notes = worker.joins.note(queue, item)
        worker.stored_jobs.count(record, account, 1)
        self._item = item

    # -- what becomes of it ----------------------------------------------------------------------------------

    def _deliver(self) -> None:
        """It is written. On the committer only."""
        worker, job, queue, item = self._worker, self._job, self._queue, self._item
        if item is None:
            worker.at_rest(job.account.remove())
        else:
            if self._kept:
                worker.handover.deliver(queue.mailbox.node.offer, queue.mailbox, item)
            else:
                worker.handover.waits_in_store(queue, item)
            if worker.sink is not None:
                worker.observe_post(item, queue)
        if job.account.ended:
            worker.sweep()

    def end_unwritten(self) -> None:
        """It has failed: take it back, unless the journal has its record and sees to that, or has done so."""
        if not self._taken_back and (self._record is None or not self._record.handed_over):
            self.take_back()

    def take_back(self) -> None:
        """Nothing of it was written, and the item, if it had come so far, does not come."""
        self._taken_back = True
        worker, queue = self._worker, self._queue
        if self._item is not None:
            with worker.journal.lock:
                self._job.stored -= 1
                worker.backlog.stretches[queue].forget(bool(self._kept))
        if self._kept:
            queue.mailbox.give_place(queue.name)
            worker.room(queue.mailbox)
        elif self._item is not None:
            worker.backlog.load_if_room(queue)
        worker.refused(self._job)
