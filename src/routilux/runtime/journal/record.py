"""What one step of a worker changes: written as a whole, and then released."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import TYPE_CHECKING

from routilux.errors import RoutiluxError
from routilux.ports import (
    Answer,
    Changes,
    EntryRow,
    ItemKey,
    ItemRow,
    JobRow,
    KeyRow,
    LetterRow,
    NoteKey,
    WorkerRow,
)

if TYPE_CHECKING:
    from routilux.runtime.journal.worker import JournaledWorker


AS_STORED = b""
"""The data of a letter that gets the payload of its item, which the same record takes out of the store."""


class Record:
    """See ``ports.Changes`` for what the rows mean.

    ``then`` adds what follows, once it is written. ``refuse`` is set where a caller waits that can be told
    that nothing of it was written; a record without it is kept until the store takes it.
    """

    # Defaults live on the class: a record is made for every activation, and most have few kinds of rows.
    forgotten: Sequence[str] = ()
    workers: Sequence[WorkerRow] = ()
    items: Sequence[ItemRow] = ()
    taken: Sequence[ItemKey] = ()
    displaces = False  # what it takes may be new: an item that was dropped before it was written
    notes: Mapping[NoteKey, bytes | None] = {}
    entries: Sequence[EntryRow] = ()
    jobs: Sequence[JobRow] = ()
    counts: Mapping[str, int] = {}
    letters: Sequence[LetterRow] = ()
    redriven: Sequence[tuple[str, int]] = ()
    key: KeyRow | None = None
    answers: Sequence[Answer] = ()
    size = 0  # bytes of payloads, roughly
    follows: Sequence[Callable[[], object]] = ()
    refuse: Callable[[BaseException], None] | None = None
    leave_open: Callable[[BaseException], None] | None = None  # tells the waiter that its outcome is unknown
    # Tells who waits why it will not be written any more.
    on_break: Callable[[RoutiluxError], None] | None = None
    wake: Callable[[], object] | None = (
        None  # tells who waits that it is written, and all that follows is done
    )
    unknown = ""  # what is to be done, or is true, while its outcome is unknown
    suspected = False  # of being what the store cannot write
    told = False  # it has been left open
    handed_over = False  # it is in the log, or was
    slipped_in = False  # its worker does not count it

    def __init__(self, worker: JournaledWorker | None) -> None:
        self.worker = worker

    def then(self, call: Callable[[], object]) -> None:
        """Do this when the record is written, after what was asked for before."""
        self.follows = (*self.follows, call)

    def names_any(self, job_ids: Container[object]) -> bool:
        """Whether it has the row of any of these jobs, or the answer to any of these commands."""
        return any(row.job_id in job_ids for row in self.jobs) or any(
            answer.command_id in job_ids for answer in self.answers
        )


def merged(records: Sequence[Record]) -> tuple[Changes, list[Record]]:
    """All that these records change, and which of them has which key of ``Changes.keys``."""
    changes = Changes()
    keyed: list[Record] = []
    displaced = False
    counts = changes.counts
    for record in records:
        changes.items += record.items
        changes.taken += record.taken
        displaced = displaced or record.displaces
        for job_id, count in record.counts.items():
            counts[job_id] = counts.get(job_id, 0) + count
        for row in record.jobs:
            changes.jobs[row.job_id] = row
        if record.notes:
            changes.notes.update(record.notes)
        if record.entries:
            changes.entries += record.entries
        if record.letters or record.redriven:
            changes.letters += record.letters
            changes.redriven += record.redriven
        if record.answers:
            changes.answers += record.answers
        if record.workers or record.forgotten:
            changes.forgotten += record.forgotten
            changes.workers.update({row.worker_id: row for row in record.workers})
        if record.key is not None:
            changes.keys.append(record.key)
            keyed.append(record)
    if displaced:
        _cancel_out(changes)
    changes.counts = {job_id: count for job_id, count in counts.items() if count}
    return changes, keyed


def _cancel_out(changes: Changes) -> None:
    """Neither write nor remove what would be written and removed at once."""
    both = {ItemKey(*row[:3]) for row in changes.items}.intersection(changes.taken)
    changes.items = [row for row in changes.items if ItemKey(*row[:3]) not in both]
    changes.taken = [key for key in changes.taken if key not in both]
