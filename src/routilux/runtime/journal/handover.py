"""From an activation that has ended to its record, and from the record to those who get what was emitted."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from routilux.kernel.mailbox import FULL, PARKED, QUEUED, READY
from routilux.model.status import JobStatus
from routilux.ports import Emitted, ItemRow, NoteKey
from routilux.runtime.journal import rows
from routilux.runtime.journal.conflicts import StateConflict
from routilux.runtime.journal.draft import Draft
from routilux.runtime.journal.joins import KeyOnly
from routilux.runtime.journal.record import Record
from routilux.runtime.waiting import in_task
from routilux.tracebacks import traceback_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from routilux.kernel.mailbox import Mailbox, SlotQueue
    from routilux.model.item import Item, Payload
    from routilux.runtime.activation import Outcome
    from routilux.runtime.journal.worker import JournaledWorker
    from routilux.runtime.nodes import Route

Sent: TypeAlias = tuple["Route", "Item", bool]
"""An item on its way, and whether a place was kept for it; if not, it waits in the store."""


class Handover:
    """Of the activations of one worker.

    Under the journal's lock an activation takes effect as a whole: its items have ended, what it emitted is numbered
    and has a place, its jobs are counted, and the record of it all is appended. When that is written, on the
    committer, what was emitted is delivered and the items end in memory too.
    """

    def __init__(self, worker: JournaledWorker) -> None:
        self._worker = worker

    def hand_over(self, activation: Any, outcome: Outcome, note: Callable[[], None] | None = None) -> bool:
        """What it did becomes one record. The next activation of its routine starts after this.

        ``note`` is called when it is written, before anything follows from it. False: what it rests on has changed
        meanwhile, nothing of it takes effect, and it is to run again.
        """
        worker = self._worker
        journal, record, job = worker.journal, Record(worker), activation.job
        draft, activation.draft = activation.draft, Draft()
        name, error, noted, fatal, sent_on = outcome
        if sent_on:
            error = None
        wanted = error is None and not job.ended
        if not wanted:
            activation.merged = None  # what the store does not keep stays out of memory too
        elif len(draft.payloads) != len(draft.emits):  # a thread that was left behind has just emitted
            self.seal(draft)
        if error is not None:
            trace = traceback_of(noted or fatal or error)
            record.letters = worker.endings.letters(activation.mailbox, activation.batch, name, error, trace)
        elif not wanted:
            record.letters = worker.endings.letters_of_ended(activation.mailbox, activation.batch)
        if note is not None:
            record.then(note)
        with journal.lock:
            if worker.is_cut_off:
                return True
            if wanted and draft.maps and not worker.conflicts.stands(activation, draft):
                return False
            worker.notes.forget(activation, record)
            sent = self._apply(draft, activation, record) if wanted else []
            worker.endings.take(record, activation.mailbox, activation.batch)
            if error is not None:
                for member in job.members:
                    told = outcome.noted_in(member)
                    if told is not None:
                        worker.stored_jobs.note_error(record, member, told)
            worker.stored_jobs.end_rows(record, job, fatal)
            record.then(partial(self._released, activation, sent, fatal))
            journal.append(record)
        journal.wake()
        if worker.conflicts.first is activation:
            worker.conflicts.over(activation)
        return True

    def checkpoint(self, activation: Any, value: Any) -> None:
        """What the activation did until now takes effect; returns when it is written and there is room for more.

        On the event loop of the runtime it does not wait: that would hold up all asynchronous logic.
        """
        worker, journal = self._worker, self._worker.journal
        record, hand_over = self._checkpoint(activation, value)
        if worker.engine.driver.on_loop():
            hand_over()
            journal.wake()
            return
        journal.kept_or_raise(record, hand_over)
        for slot in activation.mailbox.feeds:
            if slot.full:
                worker.back_pressure.wait_inside(
                    slot, partial(_room, slot), activation, holds=partial(_has_room, slot)
                )

    async def checkpoint_async(self, activation: Any, value: Any) -> None:
        """For a coroutine, on whatever loop: what the activation did takes effect, and it is written."""
        record, hand_over = self._checkpoint(activation, value)
        await in_task(self._worker.journal.waits_to_keep(record, hand_over))

    def _checkpoint(self, activation: Any, value: Any) -> tuple[Record, Callable[[], None]]:
        """The record of a checkpoint, and what hands it over."""
        worker, journal = self._worker, self._worker.journal
        routine_id, record = activation.mailbox.routine_id, Record(worker)
        data = worker.encode(value, f"checkpoint of routine {routine_id!r}")
        if activation.abandoned is not None or activation.job.ended:
            raise activation.unwanted()
        draft = activation.draft
        draft.settle()
        self.seal(draft)
        record.notes = {rows.checkpoint_note(worker.worker_id, routine_id, activation.key): data}
        # One that only notes again where an earlier attempt was has got nowhere.
        comes_further = bool(worker.endings.deaths) and data != worker.encode(
            activation.checkpointed, f"checkpoint of routine {routine_id!r}"
        )

        def hand_over() -> None:
            with journal.lock:
                if worker.is_cut_off:
                    activation.cut_off()
                    raise activation.unwanted()
                if draft.maps and not worker.conflicts.stands(activation, draft):
                    activation.in_conflict = True
                    raise StateConflict
                if len(draft.payloads) != len(draft.emits):  # another thread of it has just emitted
                    self.seal(draft)
                activation.draft, activation.has_checkpoint = Draft(), True
                sent = self._apply(draft, activation, record)
                if comes_further:
                    worker.endings.forget_deaths(record, activation.mailbox, activation.batch)
                activation.draft.rest_on(draft)
                record.then(partial(self._send, activation, sent))
                journal.append(record)

        return record, hand_over

    # -- what was emitted -----------------------------------------------------------------------------------

    def seal(self, draft: Draft) -> None:
        """What receivers get is what was stored, read back; None for what has no place in memory anyway.

        It may call code of registered types, so it happens while the activation can still fail.
        """
        decode, joined_by = self._worker.decode, self._worker.joins.payload_key
        left: dict[SlotQueue, int] = {}
        older = _older_than_fit(draft) if self._worker.backlog.drops_oldest else {}
        payloads: list[Payload | None] = []
        for route, form in draft.emits:
            queue = route.queue
            if older and queue in older:
                older[queue] -= 1
                wanted = older[queue] < 0
            else:
                left[queue] = room = left.get(queue, queue.capacity) - 1
                wanted = room >= 0
                if not wanted and (by := joined_by(queue)) is not None:
                    payloads.append(KeyOnly.of(decode(form, route.target), by))
                    continue
            payloads.append(decode(form, route.target) if wanted else None)
        draft.payloads = payloads

    def _apply(self, draft: Draft, activation: Any, record: Record) -> list[Sent]:
        """What an activation did takes effect; the caller holds the journal's lock."""
        worker = self._worker
        sent = self._address(draft, activation, record) if draft.emits else []
        draft.apply(record)
        worker.state.output_log.extend(draft.outputs)
        if sent:
            worker.stored_jobs.count(record, activation.job, len(sent))
        return sent

    def _address(self, draft: Draft, activation: Any, record: Record) -> list[Sent]:
        """Number what was emitted, in its order, and find a place for each item: in memory, or in the store."""
        worker, job = self._worker, activation.job
        worker_id, wall = worker.worker_id, worker.engine.driver.clock.time()
        take_number, place, job_ids = worker.take_number, worker.backlog.place, rows.job_ids_text(job)
        items: list[ItemRow] = []
        notes: dict[NoteKey, bytes | None] = {}
        sent: list[Sent] = []
        for (route, form), payload in zip(draft.emits, draft.payloads, strict=False):
            time = worker.engine.now() if route.timed else activation.started
            item: Any = (take_number(), route.slot, payload, job, route.source, time)
            kept = place(record, route.queue, item)
            if kept is None:
                continue
            items.append(ItemRow(worker_id, route.target, item[0], job_ids, route.source, wall, form))
            sent.append((route, item, kept))
            if not kept:
                notes |= worker.joins.note(route.queue, item)
        record.items = items
        if notes:
            record.notes = {**record.notes, **notes}
        return sent

    # -- when it is written; on the committer ---------------------------------------------------------------

    def _released(self, activation: Any, sent: list[Sent], fatal: BaseException | None) -> None:
        """Its items are delivered, and those that it took have ended."""
        worker, job = self._worker, activation.job
        self._send(activation, sent)
        if fatal is not None:
            jobs = [member.job for member in job.members]
            worker.end_jobs(jobs, JobStatus.FAILED, fatal, besides=activation.batch)
        worker.settle(activation.batch)

    def _send(self, activation: Any, sent: list[Sent]) -> None:
        job = activation.job
        if sent:
            job.add(len(sent))
            for line in sent:
                self._deliver(activation, *line)
            if job.halted and job.ended:
                self._worker.sweep()

    def _deliver(self, activation: Any, route: Route, item: Item, kept: bool) -> None:
        worker = self._worker
        if not kept:
            self.waits_in_store(route.queue, item)
        elif not route.drops_oldest or worker.backlog.arrives(route.queue, item):
            self.deliver(route.offer, route.mailbox, item)
        else:
            return
        sink = worker.sink
        if sink is not None:
            sink((Emitted, activation.started, worker.worker_id, item[3], item[4], route.target, item[0]))

    def deliver(self, offer: Callable[[Item], int], mailbox: Mailbox, item: Item) -> None:
        """An item takes the place that was kept for it. What cannot be queued is set aside: the journal goes on."""
        try:
            code = offer(item)
        except BaseException as error:  # noqa: BLE001 from a gate, or from the class of a key
            mailbox.give_place(item[1])
            self._worker.endings.unfit(mailbox, item, error)
            self._worker.room(mailbox)
            return
        if code == READY:
            self._worker.schedule(mailbox)
        elif code == PARKED:
            self._park(mailbox, item)

    def _park(self, mailbox: Mailbox, item: Item) -> None:
        worker, job = self._worker, item[3]
        if worker.joins.of(mailbox) is None:
            ended = job.park()
            if ended:
                worker.at_rest(ended)
            return
        job.add()  # it does not come to rest before the partner has been looked for
        job.park()
        worker.joins.arrived(mailbox.slots[item[1]], item)
        worker.at_rest(job.remove())

    def waits_in_store(self, slot: SlotQueue, item: Item) -> None:
        """An item is written for which no place was kept."""
        worker = self._worker
        worker.backlog.load_if_room(slot)
        worker.joins.arrived(slot, item)


def _older_than_fit(draft: Draft) -> dict[SlotQueue, int]:
    """How many of the emits into each slot that drops its oldest are dropped for those behind them."""
    numbers: dict[SlotQueue, int] = {}
    for route, _ in draft.emits:
        if route.drops_oldest:
            numbers[route.queue] = numbers.get(route.queue, 0) + 1
    return {queue: number - queue.capacity for queue, number in numbers.items()}


def _has_room(slot: SlotQueue) -> bool:
    return not slot.full


def _room(slot: SlotQueue) -> int:
    """As an offer would answer."""
    return FULL if slot.full else QUEUED
