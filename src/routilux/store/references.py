"""What rows say of each other: which of them are missing, and rows in which none is.

A key and a letter may outlive the job that they name, and an index of items (``item.`` notes) its items: stores of
format 1 have such rows, and nothing rests on them.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from routilux.ports import (
    FLOOR,
    PLAIN_JOB,
    EntryRow,
    ItemRow,
    JobRow,
    LetterRow,
    NoteKey,
    PropertyRow,
    StoredJob,
    WorkerRow,
)
from routilux.store.exchange import AnyRow

UNCOUNTED = -1  # items of a job whose count cannot be read
_UNKNOWN_NUMBERS = 1_000_000  # that a worker may have used beyond those of its rows that are left


class Dangling(NamedTuple):
    """Something that is missing, and what is put in its place where the rows are saved."""

    what: str
    mended: str


class _Group:
    """What is left of a worker, or of a job."""

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()  # by what they are called
        self.highest = 0  # number of an item
        self.used = 0  # the highest number that is named anywhere
        self.first: tuple[float, int] | None = None  # time and number of an item
        self.flow_id: str | None = None
        self.worker_id = ""
        self.is_open = False  # there is something to go on with

    def add_item(self, row: ItemRow) -> None:
        self.rows["items"] += 1
        self.highest = max(self.highest, row.number)
        self.first = min(self.first or (row.time, row.number), (row.time, row.number))
        self.is_open = True

    def __str__(self) -> str:
        return " and ".join(f"{n:,} {what}" for what, n in self.rows.items())


class References:
    """Of all rows of a store, in the order in which stores give them: workers, items, and then what names those."""

    def __init__(self, rows: Iterable[AnyRow]) -> None:
        self._workers: dict[str, WorkerRow] = {}
        self._jobs: dict[str, StoredJob] = {}
        self._of_workers: defaultdict[str, _Group] = defaultdict(_Group)
        self._of_jobs: defaultdict[str, _Group] = defaultdict(_Group)
        # Of items, and their places, by worker.
        self._numbers: defaultdict[str, dict[int, str]] = defaultdict(dict)
        self._places: dict[str, str] = {}
        self._notes: list[tuple[NoteKey, str]] = []  # that name an item which is not there, and how
        self._floor = 0
        for row in rows:
            self._look_at(row)

    def _look_at(self, row: AnyRow) -> None:
        match row:
            case WorkerRow():
                self._workers[row.worker_id] = row
            case ItemRow():
                self._of_workers[row.worker_id].add_item(row)
                self._numbers[row.worker_id][row.number] = self._places.setdefault(row.place, row.place)
                for job_id in json.loads(row.job_ids):
                    self._of_jobs[job_id].add_item(row)
                    self._of_jobs[job_id].worker_id = row.worker_id
            case EntryRow():
                self._count("entries", row.worker_id, row.kind, row.owner)
            case StoredJob(job):
                self._jobs[job.job_id] = row._replace(row=job._replace(data=b""))
                group = self._of_workers[job.worker_id]
                group.rows["jobs"] += 1
                group.flow_id, group.used = job.flow_id, max(group.used, job.serial)
                group.is_open = group.is_open or job.status in ("pending", "running")
            case LetterRow():
                if row.worker_id in self._of_workers or row.worker_id in self._workers:
                    group = self._of_workers[row.worker_id]
                    group.flow_id, group.used = row.flow_id, max(group.used, row.number)
            case PropertyRow(name, value):
                self._floor = int(value) if name == FLOOR else self._floor
            case (NoteKey() as note, bytes() as data):
                self._count("notes", note.worker_id, note.kind, note.owner)
                missing = self._missing_items(note, data)
                if missing:
                    self._notes.append((note, missing[0]))
            case _:
                pass  # a key, a tombstone

    def _count(self, what: str, worker_id: str, kind: str, owner: str) -> None:
        if kind.startswith("job."):
            self._of_jobs[owner].rows[what] += 1
            self._of_jobs[owner].worker_id = worker_id
        else:
            self._of_workers[worker_id].rows[what] += 1

    def _missing_items(self, note: NoteKey, data: bytes) -> list[str]:
        """The items that a note names and that are not there, for people."""
        there = self._numbers.get(note.worker_id, {})
        if note.kind == "activation":
            named = items_of_activation(data)
            return [f"{place} / {number}" for place, number in named if there.get(number) != place]
        if note.kind == "crash":
            return [] if there.get(int(note.name)) == note.owner else [f"{note.owner} / {note.name}"]
        if note.kind in ("checkpoint", "once"):
            return [str(number) for number in sorted(numbers_of_key(note)) if number not in there]
        return []

    # -- what is missing -----------------------------------------------------------------------------------

    def dangling(self) -> Iterator[Dangling]:
        for worker_id in self._lost_workers():
            group = self._of_workers[worker_id]
            what = f"worker {worker_id!r} is not there, and {group} of it are"
            if group.flow_id is None:
                yield Dangling(what, "nothing says of which flow it was: all of that is lost")
            else:
                yield Dangling(
                    what,
                    f"made anew, without its metadata; on_flow_change='adopt' opens it by flow {group.flow_id!r}",
                )
        for job_id in self._lost_jobs():
            yield Dangling(
                f"job {job_id!r} is not there, and {self._of_jobs[job_id]} of it are",
                "made anew as failed; its items become dead letters when its worker is opened",
            )
        for job_id, stored in self._jobs.items():
            items = self._of_jobs[job_id].rows["items"] if job_id in self._of_jobs else 0
            if stored.items not in (UNCOUNTED, items):
                what = f"job {job_id!r} has {items:,} items, and {stored.items:,} are counted"
                yield Dangling(what, "counted anew; an item that is missing is lost")
        for note, missing in self._notes:
            name = " / ".join(map(repr, (note.worker_id, note.kind, note.owner, note.name)))
            what = f"the note {name} names item {missing}, which is not there"
            yield Dangling(what, "left out; what else it names is queued as if it had not begun")
        for worker_id, row in self._workers.items():
            highest = self._of_workers[worker_id].highest if worker_id in self._of_workers else 0
            if highest >= row.next_number:
                what = f"worker {worker_id!r} has item {highest:,}, and would use {row.next_number:,} for its next one"
                yield Dangling(what, "it goes on behind that")

    def _lost_workers(self) -> list[str]:
        return [one for one, group in self._of_workers.items() if group.rows and one not in self._workers]

    def _lost_jobs(self) -> list[str]:
        return [job_id for job_id in self._of_jobs if job_id not in self._jobs]

    # -- rows in which nothing is missing --------------------------------------------------------------------

    def mended(self, rows: Iterable[AnyRow], now: float) -> Iterator[AnyRow]:
        """The same rows, each as it can stay, and those that are made anew."""
        for row in rows:
            mended = self._mended(row)
            if mended is not None:
                yield mended
        for worker_id in self._lost_workers():
            group = self._of_workers[worker_id]
            if group.flow_id is not None:
                status = "running" if group.is_open else "stopped"
                number = max(group.highest, group.used, self._floor) + _UNKNOWN_NUMBERS
                yield WorkerRow(worker_id, group.flow_id, "", "worker", status, number, now, b"{}")
        for job_id in self._lost_jobs():
            left = self._of_jobs[job_id]
            flow_id = self._flow_of(left.worker_id)
            if flow_id is not None:
                time, number = left.first or (now, 1)
                lost = JobRow(job_id, left.worker_id, flow_id, "failed", number, time, None, now, PLAIN_JOB)
                yield StoredJob(lost, left.rows["items"])

    def _flow_of(self, worker_id: str) -> str | None:
        """None for a worker of which nothing can be saved."""
        row = self._workers.get(worker_id)
        return self._of_workers[worker_id].flow_id if row is None else row.flow_id

    def _mended(self, row: AnyRow) -> AnyRow | None:
        match row:
            case WorkerRow():
                highest = self._of_workers[row.worker_id].highest
                return row._replace(next_number=max(row.next_number, highest + 1))
            case StoredJob(job):
                return StoredJob(job, self._of_jobs[job.job_id].rows["items"])
            case ItemRow() | EntryRow() if self._flow_of(row.worker_id) is None:
                return None
            case (NoteKey() as note, bytes() as data):
                if self._flow_of(note.worker_id) is None:
                    return None
                return None if self._missing_items(note, data) else row
            case _:
                return row


def items_of_activation(data: bytes) -> list[tuple[str, int]]:
    """Place and number of each item that the note of an activation names."""
    return [(place, number) for place, number in json.loads(data)["items"]]


def numbers_of_key(note: NoteKey) -> set[int]:
    """The numbers in the key of the activation to which a checkpoint, or a result of once(), belongs."""
    key = note.name if note.kind == "checkpoint" else note.owner.rpartition("/")[2]
    return {int(number) for number in key.split("-") if number.isdigit()}
