"""What an activation would change, gathered until it has ended; and the mappings and lists that are kept in a store.

Inside an activation its own changes are seen at once, by it alone. They take effect when it is handed over, together
with everything else that it did, or not at all. Outside of one a change takes effect at once and is written soon.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any

from routilux.model.context import running
from routilux.ports import EntryRow, NoteKey
from routilux.runtime.journal.mapping import Share, StoredMapping
from routilux.runtime.journal.record import Record

if TYPE_CHECKING:
    from routilux.kernel.mailbox import SlotQueue
    from routilux.model.item import Payload
    from routilux.runtime.journal.worker import JournaledWorker
    from routilux.runtime.nodes import Route
    from routilux.runtime.output import OutputRecord


class Draft:
    """Belongs to one attempt of an activation."""

    __slots__ = ("emits", "entries", "into", "maps", "notes", "outputs", "payloads", "size")

    def __init__(self) -> None:
        self.emits: list[tuple[Route, bytes]] = []
        self.payloads: list[Payload | None] = []  # what receivers of the emits get; made when it is sealed
        self.into: dict[
            SlotQueue, int
        ] = {}  # how many of the emits go to slots that refuse what finds no room
        self.maps: dict[StoredMapping, Share] = {}
        self.notes: dict[NoteKey, bytes | None] = {}
        self.entries: list[tuple[StoredList, Any, bytes]] = []
        self.outputs: list[OutputRecord] = []
        self.size = 0

    def share(self, mapping: StoredMapping) -> Share:
        """What the attempt has of a mapping."""
        share = self.maps.get(mapping)
        return self.maps.setdefault(mapping, Share()) if share is None else share

    def settle(self) -> None:
        """What was read and changed in place counts as assigned. Raises SerializationError."""
        for mapping, share in self.maps.items():
            if share.lent:
                mapping.settle(share)

    @property
    def changes_state(self) -> bool:
        return any(share.changes for share in self.maps.values())

    def is_outdated(self) -> bool:
        """Whether something that it has read has changed; the caller holds the journal's lock."""
        return any(mapping.is_outdated(share) for mapping, share in self.maps.items())

    def disturbs(self, other: Draft) -> bool:
        """Whether it changes something that the other has read."""
        theirs = other.maps
        return any(
            mapping in theirs and share.disturbs(theirs[mapping]) for mapping, share in self.maps.items()
        )

    def rest_on(self, applied: Draft) -> None:
        """What comes behind a checkpoint rests on what was read before it. Under the same lock as :meth:`apply`."""
        for mapping, share in applied.maps.items():
            mapping.go_on(share, self.share(mapping))

    def apply(self, record: Record) -> None:
        """Let it take effect in memory, and put its rows into the record. The caller holds the journal's lock."""
        notes = dict(self.notes)
        for mapping, share in self.maps.items():
            notes.update(mapping.apply(share))
        if notes:
            record.notes = {**record.notes, **notes}
        if self.entries:
            record.entries = [
                *record.entries,
                *(entry for line in self.entries for entry in line[0].add(*line[1:])),
            ]
        record.size += self.size


class StoredList:
    """A list of a worker that only grows. ``append`` puts a value where people see it.

    Beyond ``limit`` entries nothing more is written; what people see has a limit of its own.
    """

    def __init__(
        self,
        worker: JournaledWorker,
        kind: str,
        owner: str,
        append: Callable[[Any], object],
        *,
        next_number: int = 0,
        limit: int | None = None,
    ) -> None:
        self._worker = worker
        self._kind = kind
        self._owner = owner
        self._append = append
        self._limit = limit
        self.continue_at(next_number)

    def continue_at(self, number: int) -> None:
        """The store has entries below this number."""
        self._next = count(number).__next__

    def put(self, value: Any, where: str) -> None:
        """Add a value: with the running activation, or at once outside of one."""
        data = self._worker.encode(value, where)
        value = self._worker.decode(data, where)  # the caller may change what it has
        draft = self._worker.draft()
        if draft is not None:
            draft.entries.append((self, value, data))
            draft.size += len(data)
            return
        record = Record(self._worker)
        journal = self._worker.journal
        with journal.lock:
            record.entries = self.add(value, data)
            journal.append(record)
        journal.wake()

    def add(self, value: Any, data: bytes) -> list[EntryRow]:
        """Let it take effect, and give its row."""
        self._append(value)
        number = self._next()
        if self._limit is not None and number >= self._limit:
            return []
        return [EntryRow(self._worker.worker_id, self._kind, self._owner, number, data)]

    def own(self) -> list[Any]:
        """What the running activation has added and no other activation sees yet."""
        activation: Any = running.get()
        if activation is None or activation.node.worker is not self._worker:
            return []
        return [value for stored, value, _ in activation.draft.entries if stored is self]
