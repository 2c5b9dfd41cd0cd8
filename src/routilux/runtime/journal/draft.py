"""What an activation would change, gathered until it has ended; and the mappings and lists that are kept in a store.

Inside an activation its own changes are seen at once, by it alone. They take effect when it is handed over, together
with everything else that it did, or not at all. Outside of one a change takes effect at once and is written soon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, Any

from routilux.errors import shown
from routilux.model.context import running
from routilux.ports import EntryRow, NoteKey
from routilux.runtime.journal.record import Record

if TYPE_CHECKING:
    from routilux.kernel.mailbox import SlotQueue
    from routilux.model.item import Payload
    from routilux.runtime.journal.worker import JournaledWorker
    from routilux.runtime.nodes import Route
    from routilux.runtime.output import OutputRecord

GONE: Any = object()


class Draft:
    """Belongs to one attempt of an activation."""

    __slots__ = ("emits", "entries", "into", "maps", "notes", "outputs", "payloads", "replaced", "size")

    def __init__(self) -> None:
        self.emits: list[tuple[Route, bytes]] = []
        self.payloads: list[Payload | None] = []  # what receivers of the emits get; made when it is sealed
        self.into: dict[
            SlotQueue, int
        ] = {}  # how many of the emits go to slots that refuse what finds no room
        self.maps: dict[StoredMapping, dict[Any, Any]] = {}
        self.replaced: set[StoredMapping] = set()
        self.notes: dict[NoteKey, bytes | None] = {}
        self.entries: list[tuple[StoredList, Any, bytes]] = []
        self.outputs: list[OutputRecord] = []
        self.size = 0

    def apply(self, record: Record) -> None:
        """Let it take effect in memory, and put its rows into the record. The caller holds the journal's lock."""
        notes = dict(self.notes)
        for mapping, overlay in self.maps.items():
            if mapping in self.replaced:
                notes.update(mapping.without(overlay))
            mapping.apply(overlay)
        if notes:
            record.notes = {**record.notes, **notes}
        if self.entries:
            record.entries = [
                *record.entries,
                *(entry for line in self.entries for entry in line[0].add(*line[1:])),
            ]
        record.size += self.size


class StoredMapping(MutableMapping[Any, Any]):
    """A mapping of a worker. Assign to change: what is changed inside a value is not noticed.

    Keys and values need a JSON form; one that has none raises SerializationError where it is assigned.
    """

    def __init__(self, worker: JournaledWorker, kind: str, owner: str, where: str) -> None:
        self._worker = worker
        self._kind = kind
        self._owner = owner
        self._where = where
        self._values: dict[Any, Any] = {}

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, (StoredMapping, dict)) and dict(self) == dict(other))

    def __getitem__(self, key: Any) -> Any:
        overlay = self._overlay()
        if overlay is None:
            return self._values[key]
        value = overlay[key] if key in overlay else GONE if self._is_replaced() else self._values[key]
        if value is GONE:
            raise KeyError(key)
        return value

    def __setitem__(self, key: Any, value: Any) -> None:
        data = self._worker.encode(value, f"{self._where}[{shown(key)}]")
        self._change(key, value, data)

    def __delitem__(self, key: Any) -> None:
        self[key]  # raises KeyError
        self._change(key, GONE, None)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.copy())

    def __len__(self) -> int:
        return len(self.copy())

    def __repr__(self) -> str:
        return repr(self.copy())

    def copy(self) -> dict[Any, Any]:
        """A plain dict of what is there now."""
        overlay = self._overlay()
        if overlay is None:
            return dict(self._values)
        values = overlay if self._is_replaced() else {**self._values, **overlay}
        return {key: value for key, value in values.items() if value is not GONE}

    def replace(self, values: MutableMapping[Any, Any]) -> None:
        """Have just these values, whatever somebody else adds meanwhile."""
        encoded = {
            key: self._worker.encode(value, f"{self._where}[{shown(key)}]") for key, value in values.items()
        }
        draft = self._worker.draft()
        if draft is None:
            for key in list(self._values):
                if key not in values:
                    del self[key]
        else:
            draft.replaced.add(self)
            draft.maps[self] = {}
        for key, value in values.items():
            self._change(key, value, encoded[key])

    # -- for the journal -----------------------------------------------------------------------------------

    def fill(self, values: dict[Any, Any]) -> None:
        """Take over what was read from the store."""
        self._values.update(values)

    def apply(self, overlay: dict[Any, Any]) -> None:
        for key, value in overlay.items():
            if value is GONE:
                self._values.pop(key, None)
            else:
                self._values[key] = value

    def without(self, overlay: dict[Any, Any]) -> dict[NoteKey, None]:
        """Drop what a replacement does not have; the rows to remove."""
        dropped = [key for key in self._values if key not in overlay]
        for key in dropped:
            del self._values[key]
        return {self._note(key): None for key in dropped}

    def _change(self, key: Any, value: Any, data: bytes | None) -> None:
        draft = self._worker.draft()
        if draft is None:
            record = Record(self._worker)
            record.notes = {self._note(key): data}
            journal = self._worker.journal
            with journal.lock:
                self.apply({key: value})
                journal.append(record)
            journal.wake()
            return
        draft.maps.setdefault(self, {})[key] = value
        draft.notes[self._note(key)] = data
        draft.size += len(data or b"")

    def _note(self, key: Any) -> NoteKey:
        name = name_of_text(key) if type(key) is str else self._worker.encode(key, self._where).decode()
        return NoteKey(self._worker.worker_id, self._kind, self._owner, name)

    def _overlay(self) -> dict[Any, Any] | None:
        activation: Any = running.get()
        if activation is None or activation.node.worker is not self._worker:
            return None
        overlay: dict[Any, Any] | None = activation.draft.maps.get(self)
        return overlay

    def _is_replaced(self) -> bool:
        activation: Any = running.get()
        return self in activation.draft.replaced


@lru_cache(maxsize=4_096)
def name_of_text(key: str) -> str:
    """A key as a note names it, which is its JSON form."""
    import json  # the codec gives the same, at more cost

    return json.dumps(key, ensure_ascii=False)


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
        """What the running activation has added and nobody else sees yet."""
        activation: Any = running.get()
        if activation is None or activation.node.worker is not self._worker:
            return []
        return [value for stored, value, _ in activation.draft.entries if stored is self]
