"""The reading half of the store, on a connection of its own: a reader never waits for a batch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import psycopg

from routilux.ports import (
    EntryRow,
    ItemKey,
    ItemRow,
    JobRow,
    KeyRow,
    LetterRow,
    NoteKey,
    PropertyRow,
    StoredJob,
    WorkerRow,
)
from routilux.store.postgres.link import Link
from routilux.store.postgres.rows import NoteRow, R, columns, opened, opened_job, readable, storable, texts
from routilux.store.postgres.statements import statements

_SQL: Final = statements("reading")


class Reading:
    """The methods of ``ports.Store`` that read. Each is one statement, and so sees whole batches only."""

    def __init__(self, link: Link, name: str) -> None:
        self._reader = link
        self.name = name

    def worker(self, worker_id: str) -> WorkerRow | None:
        return next(iter(self._rows(WorkerRow, "worker", [storable(worker_id)])), None)

    def workers(self) -> list[WorkerRow]:
        return self._rows(WorkerRow, "workers")

    def notes(self, worker_id: str, *, with_jobs: bool = True) -> list[tuple[NoteKey, bytes]]:
        return self._notes("notes" if with_jobs else "notes_without_jobs", [worker_id])

    def notes_of_job(self, worker_id: str, job_id: str) -> list[tuple[NoteKey, bytes]]:
        return self._notes("notes_of_job", [worker_id, job_id])

    def notes_between(
        self, worker_id: str, kind: str, owner: str, *, after: str, before: str, limit: int
    ) -> list[tuple[NoteKey, bytes]]:
        return self._notes("notes_between", [worker_id, kind, owner, after, before], limit)

    def _notes(self, name: str, values: Sequence[str], *more: int) -> list[tuple[NoteKey, bytes]]:
        rows = self._rows(NoteRow, name, [*texts(values), *more])
        return [(NoteKey(*note), data) for *note, data in rows]

    def entries(self, worker_id: str, kind: str, owner: str, *, newest: int | None = None) -> list[EntryRow]:
        return self._rows(EntryRow, "entries", [*texts([worker_id, kind, owner]), newest])[::-1]

    def items(
        self, worker_id: str, place: str, *, after: int = -1, limit: int | None = None
    ) -> list[ItemRow]:
        return self._rows(ItemRow, "items", [*texts([worker_id, place]), after, limit])

    def items_of(self, keys: Sequence[ItemKey]) -> list[ItemRow]:
        return self._rows(ItemRow, "items_of", columns(ItemKey, keys)) if keys else []

    def tail(self, worker_id: str, place: str) -> int:
        return next((number for (number,) in self._fetch("tail", texts([worker_id, place]))), -1)

    def places(self, worker_id: str) -> list[str]:
        return [readable(place) for (place,) in self._fetch("places", {"worker_id": storable(worker_id)})]

    def job(self, job_id: str) -> StoredJob | None:
        found = self._jobs("job", [storable(job_id)])
        if not found:
            found = [StoredJob(row, 0) for row in self._rows(JobRow, "tombstone", [storable(job_id)])]
        return next(iter(found), None)

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
        return self._jobs("jobs", {
            "worker_id": None if worker_id is None else storable(worker_id),
            "flow_id": None if flow_id is None else storable(flow_id),
            "statuses": None if statuses is None else texts(statuses),
            "has_items": has_items,
            "created_after": None if after is None else float(after[0]),
            "job_after": None if after is None else storable(after[1]),
            "limit": limit,
        }, prepare=False)  # fmt: skip

    def letters(self, *, worker_id: str | None = None, job_id: str | None = None) -> list[LetterRow]:
        chosen = {"worker_id": None if worker_id is None else storable(worker_id)}
        rows = self._rows(LetterRow, "letters", chosen)
        return [row for row in rows if job_id is None or job_id in json.loads(row.job_ids)]

    def key(self, flow_id: str, key: str, now: float) -> KeyRow | None:
        return next(iter(self._rows(KeyRow, "key", [*texts([flow_id, key]), float(now)])), None)

    def properties(self) -> dict[str, str]:
        return dict(self._rows(PropertyRow, "properties"))

    def _jobs(self, statement: str, parameters: Any, prepare: bool | None = None) -> list[StoredJob]:
        return [opened_job(row, self.name) for row in self._fetch(statement, parameters, prepare)]

    def _rows(self, kind: type[R], statement: str, parameters: Any = None) -> list[R]:
        return [opened(kind, row, self.name) for row in self._fetch(statement, parameters)]

    def _fetch(self, statement: str, parameters: Any = None, prepare: bool | None = None) -> list[Any]:
        def action(connection: psycopg.Connection) -> list[Any]:
            return connection.execute(_SQL[statement], parameters, prepare=prepare, binary=True).fetchall()

        return self._reader.run(action)
