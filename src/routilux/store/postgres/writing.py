"""The statements that carry out a set of changes: one for each table and kind of change,
and more of them for large values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import psycopg

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
    PropertyRow,
    WorkerRow,
)
from routilux.store.postgres.rows import Column, NoteRow, balances, columns, sealed, storable, texts
from routilux.store.postgres.statements import statements

Statement = tuple[bytes, Sequence[Any]]

_SQL: Final = statements("writing")
_MOST_BYTES: Final = 128 * 2**20  # of the values in one statement; the server takes less than 1 GiB
_FORGET: Final = ("forget_items", "forget_notes", "forget_entries", "forget_workers")


def worker_ids_of(changes: Changes) -> set[str]:
    """Every worker that is written to."""
    found = {*changes.forgotten, *changes.workers}
    found.update(row.worker_id for row in changes.jobs.values())
    found.update(note.worker_id for note in changes.notes)
    found.update(worker_id for worker_id, _ in changes.redriven)
    for rows in (
        changes.items,
        changes.taken,
        changes.entries,
        changes.letters,
        changes.keys,
        changes.answers,
    ):
        found.update(row.worker_id for row in rows)
    return found


def taken_names(
    changes: Changes, batch: Sequence[Statement], answers: Sequence[psycopg.Cursor]
) -> frozenset[int | str]:
    """What ``ports.Store.write`` returns: the keys that the server has not found free, or else the jobs."""
    taken: frozenset[int | str] = frozenset()
    for (statement, _), answer in zip(batch, answers, strict=True):
        if statement == _SQL["put_keys"]:
            free = set(answer)
            stored = zip(*columns(KeyRow, changes.keys)[:2], strict=True)
            taken = frozenset(at for at, key in enumerate(stored) if key not in free)
        elif statement == _SQL["put_jobs"] and answer.rowcount != len(changes.jobs):
            taken = taken or _missing(changes.jobs, answer)
        elif statement == _SQL["put_answers"] and answer.rowcount != len(changes.answers):
            taken = taken or _missing((row.command_id for row in changes.answers), answer)
    return taken


def _missing(names: Iterable[str], written: psycopg.Cursor) -> frozenset[str]:
    """Those that no row was written for, and those that were given twice."""
    found = {name for (name,) in written}
    given = Counter(iter(names))  # of a mapping, the keys
    return frozenset(name for name, times in given.items() if times > 1 or storable(name) not in found)


def statements_of(changes: Changes) -> Iterator[Statement]:
    """In the order in which they have to run."""
    if changes.keys:
        yield _SQL["put_keys"], sealed(KeyRow, changes.keys)
    if changes.forgotten:
        yield from forgetting(changes.forgotten)
    if changes.workers:  # before all that belongs to a worker: a process that prunes it holds its row
        yield _SQL["put_workers"], sealed(WorkerRow, changes.workers.values())
    if changes.items:
        yield from _put("put_items", ItemRow, changes.items)
    if changes.taken:
        yield _SQL["take_items"], columns(ItemKey, changes.taken)
    yield from _of_notes(changes)
    if changes.entries:
        yield from _put("put_entries", EntryRow, changes.entries)
    yield from _of_jobs(changes)
    if changes.letters:
        yield from _put("put_letters", LetterRow, changes.letters)
    if changes.redriven:
        worker_ids, numbers = zip(*changes.redriven, strict=True)
        yield _SQL["remove_letters"], [texts(worker_ids), list(numbers)]
    if changes.tombstones:
        yield _SQL["put_tombstones"], sealed(JobRow, changes.tombstones.values())
    yield from putting(changes.properties)
    if changes.answers:
        yield _SQL["put_answers"], columns(Answer, changes.answers)
        yield _SQL["notify"], []


def _put(name: str, kind: type, rows: Sequence[Sequence[Any]]) -> Iterator[Statement]:
    """Rows that end with their data, so many at a time as the server takes in one statement."""
    start = size = 0
    for at, row in enumerate(rows):
        length = len(row[-1])
        if size and size + length > _MOST_BYTES:
            yield _SQL[name], sealed(kind, rows[start:at])
            start, size = at, 0
        size += length
    yield _SQL[name], sealed(kind, rows[start:])


def forgetting(worker_ids: Sequence[str]) -> Iterator[Statement]:
    parameters: list[Column] = [texts(worker_ids)]
    for name in _FORGET:
        yield _SQL[name], parameters


def putting(properties: Mapping[str, str | None]) -> Iterator[Statement]:
    put = [PropertyRow(name, value) for name, value in properties.items() if value is not None]
    removed = [name for name, value in properties.items() if value is None]
    if put:
        yield _SQL["put_properties"], sealed(PropertyRow, put)
    if removed:
        yield _SQL["remove_properties"], [texts(removed)]


def _of_notes(changes: Changes) -> Iterator[Statement]:
    put = [(*note, value) for note, value in changes.notes.items() if value is not None]
    removed = [note for note, value in changes.notes.items() if value is None]
    if put:
        yield from _put("put_notes", NoteRow, put)
    if removed:
        yield _SQL["remove_notes"], columns(NoteKey, removed)


def _of_jobs(changes: Changes) -> Iterator[Statement]:
    if changes.jobs:
        stored = sealed(JobRow, changes.jobs.values())
        yield _SQL["put_jobs"], [*stored, balances(stored[0])]
    if changes.counts:
        yield _SQL["add_counts"], [texts(changes.counts), list(changes.counts.values())]
