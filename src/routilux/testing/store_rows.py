"""Rows and changes for tests of stores, each with as little as a test wants to say."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

from routilux.ports import (
    Changes,
    EntryRow,
    ItemKey,
    ItemRow,
    JobRow,
    KeyRow,
    LetterRow,
    NoteKey,
    Store,
    WorkerRow,
)

ODD_TEXTS = [
    "a", "A", "", " ", "0", "NULL", "None", "ünïcode 文字 🎉", "\uffff", "\U0010ffff", "line\nbreak\ttab", "x" * 2_000,
    "../../etc/passwd", "a/b\\c:d*?", "100%_", "%s {} $1 :a ?", "'; DROP TABLE workers; --", '"quoted"', "job.",
    "\\x00",
]  # fmt: skip


NO_UNICODE = "caf\udce9.txt"
"""What ``os.listdir()`` makes of a file name that is no UTF-8. Where it comes in an order is up to the store."""


def worker_row(worker_id: str = "w", **fields: Any) -> WorkerRow:
    row = WorkerRow(worker_id, "orders", "fingerprint", "worker", "running", 10_000, 1_700_000_000.25, b"{}")
    return row._replace(**fields)


def item_row(number: int, place: str = "parse.in", worker_id: str = "w", **fields: Any) -> ItemRow:
    row = ItemRow(worker_id, place, number, '["j"]', "load.out", 1_700_000_000.5, b'{"n":%d}' % number)
    return row._replace(**fields)


def entry_row(number: int, kind: str = "log", owner: str = "", worker_id: str = "w") -> EntryRow:
    return EntryRow(worker_id, kind, owner, number, b"entry %d" % number)


def job_row(job_id: str = "j", worker_id: str = "w", **fields: Any) -> JobRow:
    row = JobRow(job_id, worker_id, "orders", "pending", 0, 1_700_000_000.0, None, None, b"{}")
    return row._replace(**fields)


def letter_row(number: int, worker_id: str = "w", **fields: Any) -> LetterRow:
    row = LetterRow(worker_id, number, "orders", "parse.in", '["j"]', "failed", "ValueError: no", 5.0, b"{}")
    return row._replace(**fields)


def key_row(key: str = "k", flow_id: str = "orders", **fields: Any) -> KeyRow:
    row = KeyRow(flow_id, key, "w", "j", "digest", created_at=100.0, expires_at=200.0)
    return row._replace(**fields)


def key_of(row: ItemRow) -> ItemKey:
    return ItemKey(row.worker_id, row.place, row.number)


def changes(**parts: Any) -> Changes:
    """The changes with these parts; workers and jobs may be given as lists of rows."""
    made = Changes()
    for name, part in parts.items():
        setattr(made, name, _BY_ID[name](part) if name in _BY_ID and isinstance(part, list) else part)
    return made


_BY_ID: dict[str, Callable[[Any], Any]] = {
    "workers": lambda rows: {row.worker_id: row for row in rows},
    "jobs": lambda rows: {row.job_id: row for row in rows},
}


def contents(store: Store, worker_ids: list[str], owners: list[str]) -> dict[str, Any]:
    """All that a store gives about these workers; entries of the kinds "log" and "job.trace" of these owners."""
    return {
        "workers": store.workers(),
        "worker": [store.worker(worker_id) for worker_id in worker_ids],
        "places": [store.places(worker_id) for worker_id in worker_ids],
        "items": [store.items(id_, place) for id_ in worker_ids for place in store.places(id_)],
        "notes": [store.notes(worker_id) for worker_id in worker_ids],
        "entries": [
            store.entries(worker_id, kind, owner)
            for worker_id in worker_ids
            for kind in ("log", "job.trace")
            for owner in owners
        ],
        "jobs": store.jobs(),
        "letters": store.letters(),
        "properties": store.properties(),
    }


def changes_of_texts(texts: list[str]) -> Changes:
    """Every text in every field that holds a text."""
    return changes(
        workers=[WorkerRow(text, text, text, text, text, 2, 2.0, _bytes(text)) for text in texts],
        items=[ItemRow(text, text, 1, json.dumps([text]), text, 2.0, _bytes(text)) for text in texts],
        notes={NoteKey(text, text, text, text): _bytes(text) for text in texts},
        entries=[EntryRow(text, text, text, 1, _bytes(text)) for text in texts],
        counts=dict.fromkeys(texts, 1),
        jobs=[JobRow(text, text, text, text, 1, 2.0, None, 3.0, _bytes(text)) for text in texts],
        letters=[
            LetterRow(text, 1, text, text, json.dumps([text]), text, text, 2.0, _bytes(text))
            for text in texts
        ],
        keys=[key_row(text, text, job_id=text) for text in texts],
        properties={text: text for text in texts},
    )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def generation(number: int) -> Changes:
    """Replaces everything by rows that all hold the same number."""
    value = b"%d" % number
    return changes(
        taken=[ItemKey("w", "parse.in", number * 100 - 100 + n) for n in range(20 if number else 0)],
        items=[item_row(number * 100 + n, data=value) for n in range(20)],
        notes={NoteKey("w", "state", "parse", f"{n}"): value for n in range(20)},
        jobs=[job_row(f"{n}", data=value) for n in range(20)],
    )


_WORKERS_OF_JOBS = {"0": "a", "1": "b", "2": "c", "3": "b"}


class RandomChanges:
    """Makes changes that fit what is there; knows only what the reference says."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._number = 0
        self._items: list[ItemKey] = []
        self._letters: list[tuple[str, int]] = []
        self._jobs: list[str] = []

    def learn(self, reference: Store) -> None:
        self._items = [
            key_of(row)
            for worker_id in "abc"
            for place in reference.places(worker_id)
            for row in reference.items(worker_id, place)
        ]
        self._letters = [(row.worker_id, row.number) for row in reference.letters()]
        self._jobs = [job.row.job_id for job in reference.jobs()]

    def next(self, step: int) -> Changes:
        random, made = self._random, Changes()
        made.forgotten = [worker_id for worker_id in "abc" if random.random() < 0.05]
        for worker_id in random.sample("abc", random.randrange(4)):
            made.workers[worker_id] = self._worker(worker_id, step)
        made.items = [self._item(step) for _ in range(random.randrange(12))]
        living = [key for key in self._items if key.worker_id not in made.forgotten]
        made.taken = random.sample(living, random.randrange(len(living) + 1))
        for _ in range(random.randrange(6)):
            made.notes[self._note()] = random.choice([None, random.randbytes(5), b""])
        made.entries = [self._entry() for _ in range(random.randrange(6))]
        made.jobs = {id_: self._job(id_, step) for id_ in random.sample("0123", random.randrange(4))}
        made.counts = {
            id_: random.randrange(-2, 5) for id_ in {*self._jobs, *made.jobs} if random.random() < 0.5
        }
        made.letters = [self._letter(step) for _ in range(random.randrange(3))]
        made.redriven = random.sample(self._letters, random.randrange(len(self._letters) + 1))
        for key in random.sample("xyz", random.choice([0, 0, 0, 1, 2])):
            made.keys.append(
                key_row(key, created_at=float(step), expires_at=float(step + random.randrange(1, 9)))
            )
        return made

    def _fresh(self) -> int:
        self._number += self._random.randrange(1, 4)
        return self._number

    def _worker(self, worker_id: str, step: int) -> WorkerRow:
        status = self._random.choice(["running", "paused", "stopped"])
        return worker_row(worker_id, status=status, updated_at=float(step), data=self._random.randbytes(9))

    def _item(self, step: int) -> ItemRow:
        place, worker_id = self._random.choice(["p.in", "q.in"]), self._random.choice("abc")
        return item_row(self._fresh(), place, worker_id, time=step / 7, data=self._random.randbytes(20))

    def _note(self) -> NoteKey:
        worker_id, kind, owner = self._place_of_values("state", "job.data")
        return NoteKey(worker_id, kind, owner, self._random.choice("mn"))

    def _entry(self) -> EntryRow:
        worker_id, kind, owner = self._place_of_values("log", "job.trace")
        return entry_row(self._fresh(), kind, owner, worker_id)

    def _place_of_values(self, of_worker: str, of_job: str) -> tuple[str, str, str]:
        """A worker, a kind and an owner; what belongs to a job is kept in the job's worker."""
        owner = self._random.choice(["", *"0123"])
        if owner and self._random.random() < 0.7:
            return _WORKERS_OF_JOBS[owner], of_job, owner
        return self._random.choice("abc"), of_worker, owner

    def _job(self, job_id: str, step: int) -> JobRow:
        status = self._random.choice(["pending", "running", "completed", "failed"])
        completed = None if status in ("pending", "running") else float(step)
        return job_row(
            job_id, _WORKERS_OF_JOBS[job_id], status=status, created_at=float(step), completed_at=completed
        )

    def _letter(self, step: int) -> LetterRow:
        ids = json.dumps(self._random.sample("0123", self._random.randrange(3)))
        return letter_row(self._fresh(), self._random.choice("abc"), job_ids=ids, time=float(step // 3))
