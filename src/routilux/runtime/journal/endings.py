"""How items end: taken out of the store with what they led to, or set aside as dead letters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from routilux.errors import PoisonItemError, describe
from routilux.model.item import NOTED
from routilux.model.policy import INCOMPLETE
from routilux.model.status import JobStatus
from routilux.ports import ItemKey, ItemRow, LetterRow, NoteKey
from routilux.runtime.journal import rows
from routilux.runtime.journal.record import AS_STORED, Record
from routilux.tracebacks import joined, kept, traceback_of

if TYPE_CHECKING:
    from routilux.kernel.account import Account
    from routilux.kernel.mailbox import Mailbox
    from routilux.model.item import Item
    from routilux.runtime.journal.worker import JournaledWorker

Lost: TypeAlias = "Sequence[tuple[Account, BaseException]]"
"""The jobs of items that were set aside, and what they hear of it."""


class Endings:
    """Of the items of one worker.

    An item leaves the store, and the counts of its jobs, by the record that says what became of it. In memory it
    ends when that is written. ``deaths`` counts those of processes while an activation ran on an item.
    """

    def __init__(self, worker: JournaledWorker) -> None:
        self._worker = worker
        self.deaths: dict[ItemKey, int] = {}

    def take(self, record: Record, mailbox: Mailbox, items: Iterable[Item]) -> None:
        """These items have ended; the caller holds the journal's lock."""
        worker, places = self._worker, mailbox.node.places
        keys = [ItemKey(worker.worker_id, places[item[1]], item[0]) for item in items]
        record.taken = [*record.taken, *keys] if record.taken else keys
        if worker.joins.notes:
            worker.joins.take(record, mailbox, keys)
        count = worker.stored_jobs.count
        for item in items:
            count(record, item[3], -1)
        self._forget_deaths(record, keys)

    def forget_deaths(self, record: Record, mailbox: Mailbox, items: Iterable[Item]) -> None:
        """Their activation has come further since: no death before it is held against them any more."""
        places = mailbox.node.places
        self._forget_deaths(
            record, [ItemKey(self._worker.worker_id, places[item[1]], item[0]) for item in items]
        )

    def _forget_deaths(self, record: Record, keys: Iterable[ItemKey]) -> None:
        if self.deaths:
            known = [key for key in keys if self.deaths.pop(key, None) is not None]
            record.notes = {**record.notes, **{rows.crash_note(*key): None for key in known}}

    def take_unrun(self, record: Record, mailbox: Mailbox, items: Sequence[Item]) -> None:
        """These items end without an activation: what one of an earlier process has noted goes with them."""
        self.take(record, mailbox, items)
        left = self._worker.notes.forget_items({item[0] for item in items})
        if left:
            record.notes = {**record.notes, **left}

    def is_poison(self, row: ItemRow) -> bool:
        return self.deaths.get(ItemKey(*row[:3]), 0) >= rows.POISON_DEATHS

    def letters(
        self,
        mailbox: Mailbox,
        items: Iterable[Item],
        reason: str,
        error: BaseException | None,
        traceback: str | None = None,
    ) -> list[LetterRow]:
        """The dead letters of items; those of jobs that were all cancelled have none."""
        letters = []
        text = None if error is None else joined(describe(error), traceback or traceback_of(error))
        for item in items:
            statuses = {member.status for member in item[3].members}
            if statuses == {JobStatus.CANCELLED}:
                continue
            why = "job failed" if JobStatus.FAILED in statuses else reason
            letters.append(self._letter(mailbox.node.places[item[1]], item, why, text))
            self._worker.dropped(item, mailbox.slots[item[1]], f"dead letter: {why}")
        return letters

    def letters_of_ended(self, mailbox: Mailbox, items: Sequence[Item]) -> list[LetterRow]:
        """Those of items whose jobs have ended, so that nothing comes of them."""
        return self.letters(mailbox, items, "job failed", _failure_of(items))

    def _letter(self, place: str, item: Item, reason: str, error: str | None) -> LetterRow:
        """Its payload is the one that is stored: logic may have changed the one in memory."""
        worker, time = self._worker, self._worker.engine.driver.clock.time()
        job_ids = rows.job_ids_text(item[3])
        return LetterRow(
            worker.worker_id, item[0], worker.flow_id, place, job_ids, reason, error, time, AS_STORED
        )

    def give_up(self, mailbox: Mailbox, items: Sequence[Item]) -> None:
        """Items of ended jobs were found."""
        self._set_aside(Record(self._worker), mailbox, items, "job failed", _failure_of(items))

    def leave_incomplete(self, mailbox: Mailbox, items: Sequence[Item]) -> None:
        """No partner of these items can come any more."""
        self._set_aside(Record(self._worker), mailbox, items, INCOMPLETE, None)

    def poisoned(
        self, mailbox: Mailbox, items: Sequence[Item], error: PoisonItemError, activation: Any = None
    ) -> None:
        """Items that killed the process again and again are set aside, and the flow goes on. An execution fails with
        the item that it was begun with: nothing else says what it was to do."""
        record = Record(self._worker)
        if activation is not None:
            self._worker.notes.forget(activation, record)
        is_entry = self._worker.one_shot and any(item[4] == "post" for item in items)
        self._set_aside(record, mailbox, items, "poison", error, error if is_entry else None)

    def unfit(self, mailbox: Mailbox, item: Item, error: BaseException) -> None:
        """An item that cannot be queued is set aside, and the flow goes on."""
        reason = "not queued"
        if mailbox.node.key_of is not None:
            reason = "no join key" if mailbox.node.gathers else "no key"
        self._set_aside(Record(self._worker), mailbox, [item], reason, error)

    def _set_aside(
        self,
        record: Record,
        mailbox: Mailbox,
        items: Sequence[Item],
        reason: str,
        error: BaseException | None,
        fatal: BaseException | None = None,
    ) -> None:
        """``fatal``: the jobs of these items fail with it."""
        journal = self._worker.journal
        record.letters = self.letters(mailbox, items, reason, error)
        lost = self._lost(mailbox, items, reason, error)
        with journal.lock:
            self._note(record, lost)
            self.take_unrun(record, mailbox, items)
            if fatal is not None:
                for item in items:
                    self._worker.stored_jobs.end_rows(record, item[3], fatal)
                record.then(partial(self._fail, list(items), fatal))
            record.then(partial(self._worker.settle, list(items)))
            journal.append(record)
        journal.wake()

    def _fail(self, items: Sequence[Item], fatal: BaseException) -> None:
        jobs = {member.job.job_id: member.job for item in items for member in item[3].members}
        self._worker.end_jobs(jobs.values(), JobStatus.FAILED, fatal, besides=items)

    def dead_letter(
        self, mailbox: Mailbox, item: Item, reason: str, error: BaseException | None, traceback: str | None
    ) -> None:
        """Set one item aside that nothing else accounts for."""
        journal, record = self._worker.journal, Record(self._worker)
        record.letters = self.letters(mailbox, [item], reason, error, traceback)
        lost = self._lost(mailbox, [item], reason, error)
        with journal.lock:
            self._note(record, lost)
            self.take_unrun(record, mailbox, [item])
            journal.append(record)
        journal.wake()

    def _lost(
        self, mailbox: Mailbox, items: Sequence[Item], reason: str, error: BaseException | None
    ) -> Lost:
        """What the jobs of items hear that are set aside although no logic has failed on them. It is logged here."""
        if reason in NOTED:
            return []
        places = mailbox.node.places
        return [(item[3], self._worker.tell_lost(places[item[1]], reason, error, item[3])) for item in items]

    def _note(self, record: Record, lost: Lost) -> None:
        """The caller holds the journal's lock."""
        for account, error in lost:
            self._worker.stored_jobs.note_error(record, account, error)

    def set_rows_aside(
        self,
        items: Sequence[ItemRow],
        reason: str,
        error: BaseException | None = None,
        notes: Mapping[NoteKey, None] = MappingProxyType({}),
    ) -> None:
        """Items of the store that cannot come into memory; their payloads stay as they are. What is noted of
        activations that had any of them goes with them, and these notes. An execution fails with the item that it was
        begun with, as in :meth:`poisoned`."""
        worker, journal = self._worker, self._worker.journal
        record, time = Record(worker), worker.engine.driver.clock.time()
        text = None if error is None else kept(error)
        accounts = [worker.revival.account_of(row) for row in items]
        lost = [
            (account, worker.tell_lost(row.place, reason, error, account))
            for row, account in zip(items, accounts, strict=True)
        ]
        record.letters = [
            LetterRow(
                worker.worker_id, row.number, worker.flow_id, row.place, row.job_ids, reason, text, time, row.data
            )
            for row in items
        ]  # fmt: skip
        record.taken = [ItemKey(*row[:3]) for row in items]
        fatal = error if worker.one_shot and any(row.source == "post" for row in items) else None
        with journal.lock:
            self._note(record, lost)
            record.notes = {
                **record.notes, **notes, **worker.notes.forget_items({row.number for row in items}),
                **{rows.crash_note(*key): None for key in record.taken if self.deaths.pop(key, None) is not None},
            }  # fmt: skip
            for account in accounts:
                worker.stored_jobs.count(record, account, -1)
            if fatal is not None:
                for account in accounts:
                    worker.stored_jobs.end_rows(record, account, fatal)
                jobs = {member.job.job_id: member.job for account in accounts for member in account.members}
                record.then(partial(worker.end_jobs, list(jobs.values()), JobStatus.FAILED, fatal))
            for account in accounts:
                record.then(partial(_come_to_rest, worker, account))
            journal.append(record)
        journal.wake()


def _come_to_rest(worker: JournaledWorker, account: Account) -> None:
    worker.at_rest(account.remove())


def _failure_of(items: Iterable[Item]) -> BaseException | None:
    failed = (m.job.error for item in items for m in item[3].members if m.status is JobStatus.FAILED)
    return next(failed, None)
