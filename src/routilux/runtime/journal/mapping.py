"""Mappings that are kept in a store: what they hold, and what one attempt of an activation has of them.

Guarantees
    * A mapping and its users share no object that can change: what is assigned is copied, by its JSON form, and so is
      what is read.
    * An attempt that reads a key twice reads the same, whatever takes effect meanwhile.
    * What an attempt has read is known, so that it takes effect only if all of that is still as it was.
    * Equal keys are one key, such as 1, 1.0 and True, and it is the first of them, as in a dict: the store names it so,
      and it is the same after a restart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from routilux.errors import InvalidValueError, SerializationError, refused, shown
from routilux.model.checks import check_key
from routilux.model.context import running
from routilux.model.routine_state import RoutineState, checked_change, checked_number
from routilux.ports import NoteKey
from routilux.runtime.journal.record import Record
from routilux.runtime.sizes import estimated_size

if TYPE_CHECKING:
    from routilux.runtime.journal.worker import JournaledWorker

Notes = dict[NoteKey, bytes | None]

GONE: Any = object()
_SHORT = 150  # characters of a name that always fits beside the ids of its worker and its owner
_ATOMS = frozenset({str, int, float, bool, type(None)})


class Form:
    """A value that can change, held as the bytes that it is read from anew each time."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class Write(NamedTuple):
    """``held`` is what a mapping holds of a value, GONE for none; ``data`` is its row in the store."""

    held: Any
    note: NoteKey
    data: bytes | None


class Share:
    """What one attempt of an activation has read and changed of a mapping."""

    __slots__ = ("added", "lent", "odd", "replaced", "seen", "version", "writes")

    def __init__(self) -> None:
        self.odd = False  # a key that is no plain text was written, which others may equal
        self.seen: dict[Any, Any] = {}  # as they were when they were read first
        self.version: int | None = None  # of the mapping, when all of it was read
        self.lent: dict[
            Any, tuple[Any, bytes]
        ] = {}  # objects that logic may change in place, and their forms
        self.writes: dict[Any, Write] = {}
        self.added: dict[Any, float] = {}  # to numbers that were not read
        self.replaced = False  # what is not in ``writes`` is gone

    def write(self, key: Any, write: Write) -> None:
        """The row of what was written first under an equal key is the one that changes."""
        if self.odd or type(key) is not str:
            self.odd = True
            before = self.writes.get(key)
            if before is not None:
                write = write._replace(note=before.note)
        self.writes[key] = write

    def pop_added(self, key: Any) -> tuple[Any, float]:
        """The first of the equal keys to which something was added, and how much."""
        first = key if type(key) is str else next((one for one in self.added if one == key), key)
        return first, self.added.pop(key, 0)

    @property
    def changes(self) -> bool:
        return bool(self.writes or self.added or self.replaced)

    def disturbs(self, other: Share) -> bool:
        """Whether it changes something that the other has read."""
        if other.version is not None:
            return self.changes
        if self.replaced:
            return bool(other.seen)
        return any(key in other.seen for key in (*self.writes, *self.added))


class StoredMapping(RoutineState):
    """A mapping of a worker. Keys and values need a JSON form, else SerializationError is raised where one is assigned.

    An object that was read, and is changed in place, counts as assigned when the activation ends.
    """

    __slots__ = ("_held", "_kind", "_odd", "_owner", "_version", "_where", "_worker")

    def __init__(self, worker: JournaledWorker, kind: str, owner: str, where: str) -> None:
        self._worker = worker
        self._kind = kind
        self._owner = owner
        self._where = where
        self._held: dict[Any, Any] = {}  # moved under the journal's lock
        self._odd: dict[Any, NoteKey] = {}  # the rows of those keys in it that are no plain text
        self._version = 0  # goes up with every change

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, (StoredMapping, dict)) and dict(self) == dict(other))

    # -- reading -------------------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        share = self._share()
        if share is None:
            return self._read(self._held[key], key)
        if key in share.lent:
            return share.lent[key][0]
        held = self._seen(share, key)
        if held is GONE:
            raise KeyError(key)
        value = self._read(held, key)
        if type(held) is Form:
            share.lent[key] = (value, held.data)
        return value

    def __contains__(self, key: object) -> bool:
        share = self._share()
        return key in self._held if share is None else self._seen(share, key) is not GONE

    def __iter__(self) -> Iterator[Any]:
        return iter(self._everything(self._share()))

    def __len__(self) -> int:
        return len(self._everything(self._share()))

    def __repr__(self) -> str:
        return repr(self.copy())

    def copy(self) -> dict[Any, Any]:
        """A plain dict of what is there now, which can be changed without any effect here."""
        share = self._share()
        values = {key: self._read(held, key) for key, held in self._everything(share).items()}
        if share is not None:
            for key, (value, _) in share.lent.items():
                values[key] = self._worker.decode(self._encoded(key, value), self._where)
        return values

    # -- changing ------------------------------------------------------------------------------------------

    def __setitem__(self, key: Any, value: Any) -> None:
        self._put(key, self._write(key, value))

    def __delitem__(self, key: Any) -> None:
        if key not in self:
            raise KeyError(key)
        self._put(key, Write(GONE, self._note(key), None))

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """What is there now: a copy of ``default``, which can be changed in place, if nothing was."""
        if key not in self:
            self[key] = default
        return self[key]

    def add(self, key: Any, n: float = 1) -> None:
        where = f"{self._where}[{shown(key)}]"
        checked_number(f"what is added to {where}", n)
        if self._worker.draft() is None:
            self.change(key, lambda value: checked_number(where, value) + n, 0)
            return
        share: Any = self._share()
        with self._worker.state.lock:
            known = self._now(share, key)
            value = 0 if known is GONE else self._read(known, key)
            total = checked_number(where, value) + share.added.get(key, 0) + n
            if key in share.writes or key in share.seen or share.replaced:
                share.write(key, self._write(key, total))
            else:
                share.added[key] = share.added.get(key, 0) + n

    def change(self, key: Any, fn: Callable[[Any], Any], default: Any = None) -> Any:
        while True:
            before = self._held_now(key)
            old = default if before is GONE else self._lent_or_read(key, before)
            new = checked_change(f"{self._where}[{shown(key)}]", old, fn(old))
            write = self._write(key, new)
            if self._put_if(key, before, write):
                return self._read(write.held, key)

    def update(self, other: Any = (), /, **values: Any) -> None:
        """All of it takes effect together."""
        writes = {key: self._write(key, value) for key, value in dict(other, **values).items()}
        if self._worker.draft() is not None:
            for key, write in writes.items():
                self._put(key, write)
        elif writes:
            together = Share()
            together.writes = writes
            self._take_effect(together)

    def replace(self, values: Mapping[Any, Any]) -> None:
        """Have just these values, whatever is added elsewhere meanwhile."""
        writes = {key: self._write(key, value) for key, value in values.items()}
        draft = self._worker.draft()
        whole = Share() if draft is None else draft.share(self)
        whole.writes, whole.replaced = writes, True
        whole.odd = any(type(key) is not str for key in writes)
        whole.added.clear()
        whole.lent.clear()
        if draft is None:
            self._take_effect(whole)
        else:
            draft.size += sum(len(write.data or b"") for write in writes.values())

    def kept_size(self) -> int:
        """Bytes, roughly, of what it holds; nothing of that is read."""
        held = {key: value.data if type(value) is Form else value for key, value in self._held.copy().items()}
        return estimated_size(held) if held else 0

    # -- for the journal -----------------------------------------------------------------------------------

    def fill(self, forms: Iterable[tuple[NoteKey, Any, bytes]]) -> list[NoteKey]:
        """Take over rows: their names, keys, and the forms of their values. What cannot be read raises when it is.

        Returns rows that have to go: older versions have made one for each of several equal keys.
        """
        doubles = []
        for note, key, data in forms:
            held: Any = Form(data)
            try:
                value = self._worker.decode(data, self._where)
            except Exception:  # noqa: BLE001 from the code of a registered type, or because it is not registered
                pass
            else:
                held = value if type(value) in _ATOMS else held
            if key in self._odd:
                doubles.append(note)
            elif type(key) is not str:
                self._odd[key] = note
            self._held[key] = held
        return doubles

    def settle(self, share: Share) -> None:
        """What was read and then changed in place is written. Raises SerializationError."""
        for key, (value, data) in list(share.lent.items()):
            write = self._write(key, value)
            if write.data != data:
                share.write(key, write)
                share.lent[key] = (value, write.data or b"")

    def is_outdated(self, share: Share) -> bool:
        """Whether something that the attempt has read has changed; the caller holds the journal's lock."""
        if share.version is not None and share.version != self._version:
            return True
        held = self._held
        for key, seen in share.seen.items():
            if held.get(key, GONE) is not seen:
                return True
        return bool(share.added) and any(self._total(key, n) is None for key, n in share.added.items())

    def apply(self, share: Share) -> Notes:
        """Let an attempt's changes take effect; their rows. The caller holds the journal's lock."""
        notes: Notes = {}
        odd = self._odd
        if share.replaced:
            notes.update((odd.get(key) or self._note(key), None) for key in self._held)
            self._held.clear()
            odd.clear()
        for key, n in share.added.items():
            share.write(key, self._write(key, self._total(key, n)))
        for key, (held, note, data) in share.writes.items():
            if odd or type(key) is not str:
                note = self._row_of(key, note, gone=held is GONE)
            notes[note] = data
            if held is GONE:
                self._held.pop(key, None)
            else:
                self._held[key] = held
        if share.writes or share.replaced:
            self._version += 1
        return notes

    def _row_of(self, key: Any, note: NoteKey, *, gone: bool) -> NoteKey:
        """The row of the equal key that is held; ``note`` if there is none. The caller lets the change take effect."""
        if key not in self._held:
            if type(key) is not str and not gone:
                self._odd[key] = note
            return note
        if key in self._odd:
            return self._odd.pop(key) if gone else self._odd[key]
        return note if type(key) is str else self._note(next(held for held in self._held if held == key))

    def go_on(self, applied: Share, following: Share) -> None:
        """What an attempt knows of this mapping behind a checkpoint; under the same lock as :meth:`apply`."""
        if applied.version is not None:
            following.version = self._version
        for key in (*applied.seen, *applied.lent):
            following.seen.setdefault(key, self._held.get(key, GONE))
        following.lent.update(applied.lent)

    # -- what is there -------------------------------------------------------------------------------------

    def _share(self) -> Share | None:
        """What the activation that runs here has of this mapping; None outside of one."""
        activation: Any = running.get()
        if activation is None or activation.node.worker is not self._worker:
            self._worker.check_is_here()
            return None
        share: Share = activation.draft.share(self)
        return share

    def _seen(self, share: Share, key: Any) -> Any:
        """What the attempt sees under a key, noted as read."""
        held = self._now(share, key)
        if key in share.writes or share.replaced:
            return held
        share.seen.setdefault(key, held)
        if key in share.added:
            with self._worker.state.lock:
                first, n = share.pop_added(key)
                share.write(first, self._write(first, (0 if held is GONE else held) + n))
            return share.writes[key].held
        return held

    def _now(self, share: Share, key: Any) -> Any:
        """The same, not noted, and without what was added."""
        if key in share.writes:
            return share.writes[key].held
        if share.replaced:
            return GONE
        return share.seen[key] if key in share.seen else self._held.get(key, GONE)

    def _everything(self, share: Share | None) -> dict[Any, Any]:
        """What is held under every key; an attempt has read it all."""
        if share is None:
            return self._held.copy()
        if share.version is None:
            share.version = self._version
        for key in list(share.added):
            self._seen(share, key)
        held = {} if share.replaced else {**self._held, **share.seen}
        held.update({key: write.held for key, write in share.writes.items()})
        return {key: value for key, value in held.items() if value is not GONE}

    def _held_now(self, key: Any) -> Any:
        share = self._share()
        return self._held.get(key, GONE) if share is None else self._seen(share, key)

    def _lent_or_read(self, key: Any, held: Any) -> Any:
        """A value for :meth:`change`: a copy of its own, of what logic has made of it until now."""
        share = self._share()
        if share is not None and key in share.lent:
            return self._worker.decode(self._encoded(key, share.lent[key][0]), self._where)
        return self._read(held, key)

    def _total(self, key: Any, n: float) -> Any:
        """A number with ``n`` added; None if that is no number any more."""
        value = self._held.get(key, 0)
        if type(value) is not int and type(value) is not float:
            return None
        try:
            return value + n
        except OverflowError:
            return None

    # -- one value -----------------------------------------------------------------------------------------

    def _put(self, key: Any, write: Write) -> None:
        draft = self._worker.draft()
        if draft is None:
            alone = Share()
            alone.writes[key] = write
            self._take_effect(alone)
            return
        share = draft.share(self)
        with self._worker.state.lock:
            if share.added and key in share.added:
                first, _ = share.pop_added(key)
                if first is not key:
                    key, write = first, write._replace(note=self._note(first))
            if share.lent:
                share.lent.pop(key, None)
            share.write(key, write)
        draft.size += len(write.data or b"")

    def _put_if(self, key: Any, before: Any, write: Write) -> bool:
        """Put it there if nothing else was since ``before``."""
        draft = self._worker.draft()
        if draft is not None:
            with self._worker.state.lock:
                if self._seen(draft.share(self), key) is not before:
                    return False
                self._put(key, write)
            return True
        alone = Share()
        alone.writes[key], alone.seen[key] = write, before
        return self._take_effect(alone)

    def _take_effect(self, share: Share) -> bool:
        """Change it from outside of an activation: at once, and written soon. False if it is outdated."""
        journal, record = self._worker.journal, Record(self._worker)
        with journal.lock:
            if self.is_outdated(share):
                return False
            record.notes = self.apply(share)
            journal.append(record)
        journal.wake()
        return True

    def _write(self, key: Any, value: Any) -> Write:
        data = self._encoded(key, value)
        return _new_write((value if type(value) in _ATOMS else Form(data), self._note(key), data))

    def _encoded(self, key: Any, value: Any) -> bytes:
        try:
            return self._worker.encode(value, self._where)
        except SerializationError:
            pass  # said again with the key: to show that takes as long as to encode a number
        return self._worker.encode(value, f"{self._where}[{shown(key)}]")

    def _read(self, held: Any, key: Any) -> Any:
        return self._worker.decode(held.data, f"{self._where}[{shown(key)}]") if type(held) is Form else held

    def _note(self, key: Any) -> NoteKey:
        name = name_of_text(key) if type(key) is str else None
        if name is None:
            if key != key:
                raise refused(InvalidValueError, f"key of {self._where}", key, "a key that equals itself")
            name = self._worker.encode(key, self._where).decode()
        if len(name) > _SHORT:
            check_key(f"key of {self._where}", key, (self._worker.worker_id, self._kind, self._owner, name))
        return _new_key((self._worker.worker_id, self._kind, self._owner, name))


# As the classes do it, without a call of Python.
_new_write: Callable[[tuple[Any, NoteKey, bytes | None]], Write] = partial(tuple.__new__, Write)
_new_key: Callable[[tuple[str, str, str, str]], NoteKey] = partial(tuple.__new__, NoteKey)


@lru_cache(maxsize=4_096)
def name_of_text(key: str) -> str | None:
    """A key as a note names it, which is its JSON form; None for half a surrogate pair, which JSON has no form for."""
    import json  # the codec gives the same, at more cost

    name = json.dumps(key, ensure_ascii=False)
    try:
        name.encode()
    except UnicodeEncodeError:
        return None
    return name
