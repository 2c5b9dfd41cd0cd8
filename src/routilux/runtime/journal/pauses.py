"""Pausing and going on, of a worker or a job: first on record, then in effect."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from routilux.runtime.journal.record import Record

if TYPE_CHECKING:
    from routilux.runtime.journal.worker import JournaledWorker
    from routilux.runtime.posting import Reply
    from routilux.runtime.waiting import Waits


class StoredPause:
    """Whether one worker, or one job, is paused. ``on_record`` is what its newest row says.

    Guarantees
        * Nothing starts that the store keeps as paused: going on takes effect when it is written.
        * A pause holds from the call on, which no crash can tell from a moment later, and is shown when it is written.
        * A change that the store refuses is taken back, and the caller hears it.
        * Of changes that overlap, the one that was handed over last decides.

    ``add_row`` puts the row as it is now into a record, ``take_effect`` holds or lets go.
    """

    on_record = False

    def __init__(
        self,
        worker: JournaledWorker,
        add_row: Callable[[Record], None],
        take_effect: Callable[[bool], None],
        hold: Callable[[], None],
    ) -> None:
        self._worker = worker
        self._add_row = add_row
        self._take_effect = take_effect
        self._hold = hold
        self._written = False
        # Handed over and not yet written, and what each says; oldest first.
        self._open: dict[Record, bool] = {}

    def restore(self, paused: bool) -> None:
        """Take over what the store has, or what the caller writes by other means."""
        self.on_record = self._written = paused

    def waits_to_change(
        self, paused: bool, deadline: float | None, reply: Reply | None = None
    ) -> Waits[None]:
        """Returns when it is written and in effect; on the event loop at once, and it is kept until it is written.

        ``reply`` is written with it, to the command by which another runtime asks for it.

        Raises what the store refused it with, and StoreError at the deadline.
        """
        journal, record = self._worker.journal, Record(self._worker)
        if reply is not None:
            record.answers = [reply.of({})]
            record.then(reply.written)
        if paused:
            self._hold()
        hand_over = partial(self._hand_over, record, paused)
        if self._worker.engine.driver.on_loop():
            hand_over()
            journal.wake()
        else:
            cancelled = yield from journal.waits_for(
                record,
                hand_over,
                partial(self._refused, record),
                deadline=deadline,
                withdrawn="the pause is withdrawn" if paused else "it is still paused",
            )
            if cancelled is not None:
                raise cancelled

    def _hand_over(self, record: Record, paused: bool) -> None:
        worker = self._worker
        with worker.journal.lock:
            if worker.stopped:  # it is not this runtime's to pause any more
                raise worker.engine.directory.not_running(worker)
            self.on_record = self._open[record] = paused
            self._add_row(record)
            record.then(partial(self._in_the_store, record, paused))
            worker.journal.append(record)

    def _in_the_store(self, record: Record, paused: bool) -> None:
        with self._worker.journal.lock:
            self._written = paused
            del self._open[record]
            decides = not self._open
        if decides:
            self._take_effect(paused)

    def _refused(self, record: Record) -> None:
        """Nothing of it was written. Rows that were handed over behind it have said what it says.

        At its time-out this is not on the committer: what was handed over before it may be open still, and then
        decides; and what is written meanwhile has the last word.
        """
        worker = self._worker
        with worker.journal.lock:
            is_newest = record in self._open and next(reversed(self._open)) is record
            self._open.pop(record, None)
            if is_newest or not self._open:
                self.on_record = next(reversed(self._open.values()), self._written)
            if is_newest and worker.journal.over is None:
                again = Record(worker)
                self._add_row(again)
                worker.journal.append(again)
            paused, decides = self._written, not self._open
        worker.journal.wake()
        while decides and not worker.stopped:
            self._take_effect(paused)
            with worker.journal.lock:
                decides = not self._open and self._written != paused
                paused = self._written
