"""What the store remembers of activations that have begun: claims, retries, checkpoints, and what once() gave."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Set
from functools import partial
from typing import TYPE_CHECKING, Any

from routilux.errors import shown
from routilux.model.checks import check_key
from routilux.ports import NoteKey
from routilux.runtime import turns
from routilux.runtime.journal import rows
from routilux.runtime.journal.draft import Draft
from routilux.runtime.journal.record import Record
from routilux.runtime.waiting import in_task

if TYPE_CHECKING:
    from routilux.runtime.journal.worker import JournaledWorker


class ActivationNotes:
    """Of the activations of one worker.

    A later attempt has what an earlier one left here, in this process or the next: the same items, the last
    checkpoint, the same results. All of it is removed by the record of how the activation ended.
    """

    def __init__(self, worker: JournaledWorker) -> None:
        self._worker = worker
        self.checkpoints: dict[tuple[str, str], Any] = {}  # of activations that are to run again
        self.onces: dict[tuple[str, str], bytes] = {}

    # -- claims and retries ---------------------------------------------------------------------------------

    def claim(self, activation: Any) -> None:
        """Write down which items it has; it starts when that is written."""
        worker, journal, mailbox = self._worker, self._worker.journal, activation.mailbox
        activation.claimed = True
        record = Record(worker)
        self.keep_message(activation)
        record.notes = {self._note(activation): self._about(activation, 0.0)}
        activation.noted = True
        record.then(partial(self._claim_written, activation))
        with journal.lock:  # the caller that withdraws it removes its note behind this record
            more = mailbox.stall(activation, retry=False)
            journal.append(record)
        journal.wake()
        if more:
            worker.schedule(mailbox)
        if activation.job.ended:  # it ended meanwhile
            worker.sweep()

    def _claim_written(self, activation: Any) -> None:
        if activation.mailbox.go_on(activation):
            self._worker.schedule(activation.mailbox)

    def keep_message(self, activation: Any) -> None:
        """A later attempt gets what the policy said first. Raises SerializationError for what has no JSON form."""
        if activation.message_form is None:
            where = f"policy message of routine {activation.mailbox.routine_id!r}"
            activation.message_form = self._worker.encode(activation.message, where)

    def retry(self, activation: Any, when: float, delay: float) -> bool:
        """It is to run again on the same items at this time, once that is written; nothing of this attempt stays."""
        worker, journal = self._worker, self._worker.journal
        activation.draft, activation.is_used = Draft(), True
        if worker.conflicts.first is activation:
            worker.conflicts.over(activation)
        activation.claimed = activation.noted = True
        record = Record(worker)
        record.notes = {self._note(activation): self._about(activation, delay)}
        record.then(partial(turns.arm_retry, worker, activation, when))
        with journal.lock:  # as for a claim
            more: bool = activation.mailbox.stall(activation, retry=True)
            journal.append(record)
        journal.wake()
        return more

    def _about(self, activation: Any, delay: float) -> bytes:
        worker, mailbox = self._worker, activation.mailbox
        about = {
            "items": [[mailbox.node.places[item[1]], item[0]] for item in activation.batch],
            "attempt": activation.attempt,
            "delay": delay,
            "due": worker.engine.driver.clock.time() + delay,
        }
        data = worker.encode(about, f"activation of routine {mailbox.routine_id!r}")
        return rows.with_member(data, "message", activation.message_form)

    def _note(self, activation: Any) -> NoteKey:
        return rows.activation_note(self._worker.worker_id, activation.mailbox.routine_id, activation.key)

    # -- results that are kept ------------------------------------------------------------------------------

    def once(self, activation: Any, name: str, call: Callable[[], Any]) -> Any:
        """The stored result of ``call``, or the one of calling it now, which is stored before this returns."""
        known = self._name(activation, name, "once")
        where = f"result of once({shown(name)}) in routine {activation.mailbox.routine_id!r}"
        data = self.onces.get(known)
        if data is None:
            data, record = self._result(known, call(), where)
            journal = self._worker.journal
            journal.kept_or_raise(record, partial(self._hand_over, activation, record))
            self.onces[known] = data
        return self._worker.decode(data, where)

    async def once_async(self, activation: Any, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        """:meth:`once` for a coroutine, which does not hold the event loop while it waits."""
        known = self._name(activation, name, "aonce")
        where = f"result of aonce({shown(name)}) in routine {activation.mailbox.routine_id!r}"
        data = self.onces.get(known)
        if data is None:
            data, record = self._result(known, await call(), where)
            journal = self._worker.journal
            await in_task(journal.waits_to_keep(record, partial(self._hand_over, activation, record)))
            self.onces[known] = data
        return self._worker.decode(data, where)

    def _name(self, activation: Any, name: str, call: str) -> tuple[str, str]:
        """Owner and name of the note of a result; refused before the call is made if no store takes it."""
        owner = activation.idempotency_key
        where = f"name of {call}() in routine {activation.mailbox.routine_id!r}"
        check_key(where, name, (self._worker.worker_id, owner, "once", name))
        return owner, name

    def _hand_over(self, activation: Any, record: Record) -> None:
        worker, journal = self._worker, self._worker.journal
        with journal.lock:
            if worker.is_cut_off:
                activation.cut_off()
                raise activation.unwanted()
            journal.append(record)
        journal.wake()

    def _result(self, known: tuple[str, str], result: Any, where: str) -> tuple[bytes, Record]:
        data, record = self._worker.encode(result, where), Record(self._worker)
        record.notes = {NoteKey(self._worker.worker_id, "once", *known): data}
        return data, record

    # -- the end --------------------------------------------------------------------------------------------

    def forget(self, activation: Any, record: Record) -> None:
        """It will not run again: the record removes what is noted of it, in place of other notes."""
        notes: dict[NoteKey, bytes | None] = {}
        if activation.noted:
            notes[self._note(activation)] = None
            activation.noted = False
        if activation.has_checkpoint:
            routine_id = activation.mailbox.routine_id
            notes[rows.checkpoint_note(self._worker.worker_id, routine_id, activation.key)] = None
            activation.has_checkpoint = False
        if self.onces:
            key = activation.idempotency_key
            for known in [known for known in self.onces if known[0] == key]:
                del self.onces[known]
                notes[NoteKey(self._worker.worker_id, "once", *known)] = None
        if notes:
            record.notes = notes

    def forget_items(self, numbers: Set[int]) -> dict[NoteKey, None]:
        """What is noted of activations that have any of these items, to be removed with them."""
        worker_id, notes = self._worker.worker_id, dict[NoteKey, None]()
        for routine_id, key in [known for known in self.checkpoints if _has_any(known[1], numbers)]:
            del self.checkpoints[routine_id, key]
            notes[rows.checkpoint_note(worker_id, routine_id, key)] = None
        for known in [known for known in self.onces if _has_any(known[0].rpartition("/")[2], numbers)]:
            del self.onces[known]
            notes[NoteKey(worker_id, "once", *known)] = None
        return notes

    def drop(self, activation: Any) -> None:
        """The same with a record of its own, if anything is noted."""
        record = Record(self._worker)
        self.forget(activation, record)
        if record.notes:
            self._worker.journal.hand_over(record)


def _has_any(key: str, numbers: Set[int]) -> bool:
    """Whether the key of an activation names any of these items."""
    return any(int(number) in numbers for number in key.split("-"))
