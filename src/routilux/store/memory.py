"""A store in memory: the reference for every store, and the one for tests. It outlives a runtime, not a process."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

from routilux.errors import StoreDataError, StoreError
from routilux.ports import (
    FLOOR,
    Changes,
    Commands,
    Death,
    EntryRow,
    FlightRecorder,
    ItemKey,
    ItemRow,
    JobRow,
    KeyRow,
    LetterRow,
    NoteKey,
    OnLost,
    Store,
    StoredJob,
    WorkerRow,
)
from routilux.store.claims import Claims
from routilux.store.commands import MemoryCommands

OPEN_STATUSES = ("pending", "running")


class MemoryStore(Store):
    """Implements ``ports.Store``. Rows are tuples of text, numbers and bytes, so nothing that it gives is shared."""

    name = "memory"

    def __init__(self) -> None:
        self._lock = Lock()
        self._closed = False
        self._workers: dict[str, WorkerRow] = {}
        self._items: dict[tuple[str, str], dict[int, ItemRow]] = {}
        self._numbers: dict[tuple[str, str], list[int]] = {}  # of the items at a place, rising
        self._notes: dict[NoteKey, bytes] = {}
        self._names: dict[tuple[str, str, str], list[str]] = {}  # of notes, by worker, kind and owner, rising
        self._entries: dict[tuple[str, str, str], dict[int, EntryRow]] = {}
        self._jobs: dict[str, JobRow] = {}
        self._counts: dict[str, int] = {}  # of the stored items of a job
        self._letters: dict[tuple[str, int], LetterRow] = {}
        self._keys: dict[tuple[str, str], KeyRow] = {}
        self._properties: dict[str, str] = {}
        self._tombstones: dict[str, JobRow] = {}
        self._claims = Claims()
        self._commands = MemoryCommands(self._claims, self._lock)
        self.refused: list[tuple[Changes, str]] = []  # changes that can never be written, and why

    @property
    def commands(self) -> Commands:
        return self._commands

    # -- writing -------------------------------------------------------------------------------------------

    def write(self, changes: Changes) -> frozenset[int | str]:
        with self._opened():
            taken = self._taken(changes)
            if not taken:
                self._check_new(changes)
                self._apply(changes)
                self._commands.take(changes.answers)
        if changes.answers and not taken:
            self._commands.wake()
        return taken

    def keep_refused(self, changes: Changes, why: str) -> str:
        self.refused.append((changes, why))
        return "its list of refused changes"

    def settle(self) -> bool:
        raise StoreError("a store in memory always knows what was written; there is nothing to settle")

    def _is_taken(self, row: KeyRow) -> bool:
        known = self._keys.get((row.flow_id, row.key))
        return known is not None and known.expires_at > row.created_at

    def _taken(self, changes: Changes) -> frozenset[int | str]:
        keys = frozenset(at for at, row in enumerate(changes.keys) if self._is_taken(row))
        if keys:
            return keys
        jobs = (row.job_id for row in changes.jobs.values() if self._is_of_another(row))
        return frozenset([*jobs, *self._commands.refused(changes.answers)])

    def _check_new(self, changes: Changes) -> None:
        """Rows that have to be new are."""
        forgotten = changes.forgotten
        items, letters = self._items, self._letters
        seen: set[object] = set()
        for item in changes.items:
            if item.number in items.get(item[:2], ()) and item.worker_id not in forgotten:
                raise self._not_new(item)
            seen.add(item[:3])
        for letter in changes.letters:
            if letter[:2] in letters:
                raise self._not_new(letter)
            seen.add(letter[:2])
        for entry in changes.entries:
            of = entry[:3]
            if entry.number in self._entries.get(of, ()) and (of[0] not in forgotten or _of_job(of[1])):
                raise self._not_new(entry)
            seen.add(entry[:4])
        if len(seen) < len(changes.items) + len(changes.letters) + len(changes.entries):
            raise self._not_new("one of the rows")

    def _is_of_another(self, row: JobRow) -> bool:
        known = self._jobs.get(row.job_id)
        return known is not None and (known.worker_id, known.serial) != (row.worker_id, row.serial)

    def _not_new(self, row: object) -> StoreDataError:
        return StoreDataError(f"{self.name}: {row} should be new, and is there already; nothing was written")

    def _apply(self, changes: Changes) -> None:
        for worker_id in changes.forgotten:
            self._forget(worker_id)
        self._workers.update(changes.workers)
        for item in changes.items:
            place = item.worker_id, item.place
            self._items.setdefault(place, {})[item.number] = item
            insort(self._numbers.setdefault(place, []), item.number)
        for key in changes.taken:
            self._take(key)
        for note, value in changes.notes.items():
            if value is None:
                self._drop_note(note)
            else:
                self._put_note(note, value)
        for entry in changes.entries:
            self._entries.setdefault((entry.worker_id, entry.kind, entry.owner), {})[entry.number] = entry
        self._jobs.update(changes.jobs)
        for job_id, count in changes.counts.items():
            self._counts[job_id] = self._counts.get(job_id, 0) + count
        self._letters.update({(row.worker_id, row.number): row for row in changes.letters})
        for letter in changes.redriven:
            self._letters.pop(letter, None)
        self._keys.update({(row.flow_id, row.key): row for row in changes.keys})
        self._tombstones.update(changes.tombstones)
        for name, text in changes.properties.items():
            if text is None:
                self._properties.pop(name, None)
            else:
                self._properties[name] = text

    def _put_note(self, note: NoteKey, value: bytes) -> None:
        if note not in self._notes:
            insort(self._names.setdefault(note[:3], []), note.name)
        self._notes[note] = value

    def _drop_note(self, note: NoteKey) -> None:
        if self._notes.pop(note, None) is None:
            return
        names = self._names[note[:3]]
        del names[bisect_left(names, note.name)]
        if not names:
            del self._names[note[:3]]

    def _take(self, key: ItemKey) -> None:
        place = key.worker_id, key.place
        if self._items.get(place, {}).pop(key.number, None) is None:
            return
        numbers = self._numbers[place]
        del numbers[bisect_left(numbers, key.number)]
        if not numbers:
            del self._numbers[place], self._items[place]

    def _forget(self, worker_id: str) -> None:
        for place in [place for place in self._items if place[0] == worker_id]:
            del self._items[place], self._numbers[place]
        for note in [note for note in self._notes if note.worker_id == worker_id and not _of_job(note.kind)]:
            self._drop_note(note)
        for of in [of for of in self._entries if of[0] == worker_id and not _of_job(of[1])]:
            del self._entries[of]
        self._workers.pop(worker_id, None)

    # -- reading -------------------------------------------------------------------------------------------

    def worker(self, worker_id: str) -> WorkerRow | None:
        with self._opened():
            return self._workers.get(worker_id)

    def workers(self) -> list[WorkerRow]:
        with self._opened():
            return [row for _, row in sorted(self._workers.items())]

    def notes(self, worker_id: str, *, with_jobs: bool = True) -> list[tuple[NoteKey, bytes]]:
        return self._sorted_notes(
            lambda note: (
                note.worker_id == worker_id and (with_jobs or not note.kind.startswith(("job.", "item.")))
            )
        )

    def notes_of_job(self, worker_id: str, job_id: str) -> list[tuple[NoteKey, bytes]]:
        return self._sorted_notes(
            lambda note: note[::2] == (worker_id, job_id) and note.kind.startswith("job.")
        )

    def notes_between(
        self, worker_id: str, kind: str, owner: str, *, after: str, before: str, limit: int
    ) -> list[tuple[NoteKey, bytes]]:
        with self._opened():
            names = self._names.get((worker_id, kind, owner), [])
            found = names[bisect_right(names, after) : bisect_left(names, before)][:limit]
            notes = [NoteKey(worker_id, kind, owner, name) for name in found]
            return [(note, self._notes[note]) for note in notes]

    def _sorted_notes(self, wanted: Callable[[NoteKey], bool]) -> list[tuple[NoteKey, bytes]]:
        with self._opened():
            return sorted((note, value) for note, value in self._notes.items() if wanted(note))

    def entries(self, worker_id: str, kind: str, owner: str, *, newest: int | None = None) -> list[EntryRow]:
        with self._opened():
            rows = [row for _, row in sorted(self._entries.get((worker_id, kind, owner), {}).items())]
            return rows if newest is None else rows[max(0, len(rows) - newest) :]

    def items(
        self, worker_id: str, place: str, *, after: int = -1, limit: int | None = None
    ) -> list[ItemRow]:
        with self._opened():
            numbers = self._numbers.get((worker_id, place), [])
            start = bisect_right(numbers, after)
            wanted = numbers[start:] if limit is None else numbers[start : start + limit]
            return [self._items[worker_id, place][number] for number in wanted]

    def items_of(self, keys: Sequence[ItemKey]) -> list[ItemRow]:
        with self._opened():
            found = (self._items.get((key.worker_id, key.place), {}).get(key.number) for key in keys)
            return [row for row in found if row is not None]

    def tail(self, worker_id: str, place: str) -> int:
        with self._opened():
            numbers = self._numbers.get((worker_id, place))
            return numbers[-1] if numbers else -1

    def places(self, worker_id: str) -> list[str]:
        with self._opened():
            return sorted(place for owner, place in self._items if owner == worker_id)

    def job(self, job_id: str) -> StoredJob | None:
        with self._opened():
            row = self._jobs.get(job_id) or self._tombstones.get(job_id)
            return None if row is None else StoredJob(row, self._counts.get(job_id, 0))

    def jobs(
        self,
        *,
        worker_id: str | None = None,
        flow_id: str | None = None,
        statuses: Sequence[str] | None = None,
        has_items: bool | None = None,
        after: tuple[float, str] | None = None,
        limit: int | None = None,
    ) -> list[StoredJob]:
        def wanted(row: JobRow) -> bool:
            return (
                (worker_id is None or row.worker_id == worker_id)
                and (flow_id is None or row.flow_id == flow_id)
                and (statuses is None or row.status in statuses)
                and has_items in (None, self._counts.get(row.job_id, 0) > 0)
                and (after is None or _order(row) > after)
            )

        with self._opened():
            rows = sorted((row for row in self._jobs.values() if wanted(row)), key=_order)
            return [StoredJob(row, self._counts.get(row.job_id, 0)) for row in rows[:limit]]

    def letters(self, *, worker_id: str | None = None, job_id: str | None = None) -> list[LetterRow]:
        with self._opened():
            rows = [
                row
                for row in self._letters.values()
                if (worker_id is None or row.worker_id == worker_id)
                and (job_id is None or job_id in json.loads(row.job_ids))
            ]
            return sorted(rows, key=lambda row: (row.time, row.worker_id, row.number))

    def key(self, flow_id: str, key: str, now: float) -> KeyRow | None:
        with self._opened():
            row = self._keys.get((flow_id, key))
            return row if row is not None and row.expires_at > now else None

    def properties(self) -> dict[str, str]:
        with self._opened():
            return dict(self._properties)

    # -- limits --------------------------------------------------------------------------------------------

    def prune(self, now: float, *, finished_before: float, keep_finished: int, limit: int) -> int:
        with self._opened():
            expired = [key for key, row in self._keys.items() if row.expires_at <= now][:limit]
            for key in expired:
                del self._keys[key]
            named = {row.job_id for row in self._keys.values()}
            old = self._finished_too_long(finished_before, keep_finished)[:limit]
            for row in old:
                self._prune_job(row)
                if row.job_id in named:
                    self._tombstones[row.job_id] = row
            outlived = self._oldest_tombstones(limit) - named
            for job_id in outlived:
                del self._tombstones[job_id]
            stopped = self._stopped_without_jobs()[:limit]
            for worker in stopped:
                self._properties[FLOOR] = str(max(int(self._properties.get(FLOOR, 0)), worker.next_number))
                self._forget(worker.worker_id)
            return len(expired) + len(old) + len(outlived) + len(stopped)

    def _finished_too_long(self, before: float, keep: int) -> list[JobRow]:
        finished = [row for row in self._jobs.values() if row.status not in OPEN_STATUSES]
        finished.sort(key=lambda row: (row.completed_at or 0.0, row.job_id))
        beyond = len(finished) - keep
        old = [row for at, row in enumerate(finished) if at < beyond or (row.completed_at or 0.0) < before]
        needed = {job_id for letter in self._letters.values() for job_id in json.loads(letter.job_ids)}
        needed.update(job_id for job_id, items in self._counts.items() if items > 0)
        return [row for row in old if row.job_id not in needed]

    def _oldest_tombstones(self, limit: int) -> set[str]:
        rows = sorted(self._tombstones.values(), key=lambda row: (row.completed_at or 0.0, row.job_id))
        return {row.job_id for row in rows[:limit]}

    def _prune_job(self, row: JobRow) -> None:
        del self._jobs[row.job_id]
        self._counts.pop(row.job_id, None)
        for note in [
            note for note in self._notes if note.owner == row.job_id and note.kind.startswith("job.")
        ]:
            self._drop_note(note)
        for of in [of for of in self._entries if of[2] == row.job_id and of[1].startswith("job.")]:
            del self._entries[of]

    def _stopped_without_jobs(self) -> list[WorkerRow]:
        with_jobs = {row.worker_id for row in self._jobs.values()}
        rows = self._workers.values()
        return [row for row in rows if row.status == "stopped" and row.worker_id not in with_jobs]

    # -- ownership -----------------------------------------------------------------------------------------

    def claim(self, worker_id: str) -> None:
        with self._opened():
            self._claims.take(worker_id)

    def when_lost(self, worker_id: str, call: OnLost) -> None:
        """Never: no other process has a worker of this store."""

    def give_up(self, worker_id: str) -> None:
        self._claims.give_up(worker_id)

    def watch(self) -> FlightRecorder | None:
        return None

    def deaths(self) -> Sequence[Death]:
        return []

    def close(self) -> None:
        """Nothing can be read or written any more."""
        with self._lock:
            self._closed = True

    @contextmanager
    def _opened(self) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise StoreError("the store is closed; open a new one")
            yield


def _of_job(kind: str) -> bool:
    return kind.startswith("job.")


def _order(row: JobRow) -> tuple[float, str]:
    return row.created_at, row.job_id
