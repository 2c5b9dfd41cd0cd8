"""One transaction of the engine, as statements that each take many rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from sqlite3 import Connection

from routilux.ports import FLOOR, Changes, JobRow, KeyRow, PropertyRow
from routilux.store.sqlite.rows import (
    counted,
    opened_key,
    opened_property,
    readable,
    sealed,
    sealed_note,
    sealed_whole,
)
from routilux.store.sqlite.sql import by_key, put, statement


class Taken(Exception):
    """What is to be written has names that are taken: see ``ports.Store.write``."""

    def __init__(self, names: frozenset[int | str]) -> None:
        self.names = names


def _check_keys(connection: Connection, rows: Sequence[KeyRow]) -> None:
    found = map(opened_key, by_key(connection, "keys_of", [(row.flow_id, row.key) for row in rows]))
    known = {(row.flow_id, row.key): row.expires_at for row in found}
    taken = frozenset(
        at
        for at, row in enumerate(rows)
        if (row.flow_id, row.key) in known and known[row.flow_id, row.key] > row.created_at
    )
    if taken:
        raise Taken(taken)


def _put_jobs(connection: Connection, rows: Sequence[JobRow]) -> None:
    """The statement passes over rows of other jobs, which costs nothing; only then is looked which these are."""
    if put(connection, "jobs_in", [sealed(row) for row in rows]) == len(rows):
        return
    found = by_key(connection, "owners_of_jobs", [(row.job_id,) for row in rows])
    owners = {readable(job_id): [readable(worker_id), serial] for job_id, worker_id, serial in found}
    raise Taken(frozenset(row.job_id for row in rows if owners[row.job_id] != [row.worker_id, row.serial]))


def apply(connection: Connection, changes: Changes) -> None:
    """Run all of it, within the transaction that the caller has begun, and rolls back where this raises."""
    if changes.keys:
        _check_keys(connection, changes.keys)
    _put_jobs(connection, list(changes.jobs.values()))
    if changes.forgotten:
        forget(connection, changes.forgotten)
    put(connection, "workers_in", [sealed(row) for row in changes.workers.values()])
    put(connection, "items_in", [sealed(row) for row in changes.items])
    by_key(connection, "items_out", changes.taken)
    put(
        connection,
        "notes_in",
        [sealed_note(key, data) for key, data in changes.notes.items() if data is not None],
    )
    by_key(connection, "notes_out", [key for key, data in changes.notes.items() if data is None])
    put(connection, "entries_in", [sealed(row) for row in changes.entries])
    put(connection, "counts_in", [counted(job_id, change) for job_id, change in changes.counts.items()])
    put(connection, "letters_in", [sealed(row) for row in changes.letters])
    by_key(connection, "letters_out", changes.redriven)
    put(connection, "keys_in", [sealed_whole(row) for row in changes.keys])
    put(connection, "tombstones_in", [sealed(row) for row in changes.tombstones.values()])
    put_properties(connection, changes.properties)


def put_properties(connection: Connection, properties: Mapping[str, str | None]) -> None:
    rows = [PropertyRow(name, value) for name, value in properties.items() if value is not None]
    put(connection, "properties_in", [sealed_whole(row) for row in rows])
    by_key(connection, "properties_out", [(name,) for name, value in properties.items() if value is None])


def properties(connection: Connection) -> dict[str, str]:
    return dict(map(opened_property, connection.execute(statement("properties"))))


def forget(connection: Connection, worker_ids: Sequence[str]) -> None:
    for name in ("forget_items", "forget_notes", "forget_entries", "forget_workers"):
        by_key(connection, name, [(worker_id,) for worker_id in worker_ids])


def prune(
    connection: Connection, now: float, *, finished_before: float, keep_finished: int, limit: int
) -> int:
    """Remove what ``ports.Store.prune`` says; returns how many keys, jobs and workers that were."""
    keys = connection.execute(statement("expired_keys"), (now, limit)).fetchall()
    by_key(connection, "keys_out", keys)
    jobs = _finished_too_long(connection, finished_before, keep_finished, limit)
    by_key(connection, "notes_of_jobs_out", jobs)
    by_key(connection, "entries_of_jobs_out", jobs)
    for name in ("bury", "counts_out", "jobs_out"):
        by_key(connection, name, [(job_id,) for _, job_id in jobs])
    outlived = connection.execute(statement("outlived_tombstones"), (limit,)).fetchall()
    by_key(connection, "tombstones_out", outlived)
    return len(keys) + len(jobs) + len(outlived) + _stopped_workers(connection, limit)


def _stopped_workers(connection: Connection, limit: int) -> int:
    rows = connection.execute(statement("stopped_without_jobs"), (limit,)).fetchall()
    if rows:
        worker_ids, next_numbers = zip(*rows, strict=True)
        floor = max(int(properties(connection).get(FLOOR, 0)), *next_numbers)
        put_properties(connection, {FLOOR: str(floor)})
        forget(connection, worker_ids)
    return len(rows)


def _finished_too_long(connection: Connection, before: float, keep: int, limit: int) -> list[tuple[str, str]]:
    """Worker and id of the oldest finished jobs: all that ended before a time or are beyond the newest so many, but
    for those of which items are stored or that a letter names."""
    (finished,) = connection.execute(statement("count_finished")).fetchone()
    (old,) = connection.execute(statement("count_finished_before"), (before,)).fetchone()
    reach = max(old, finished - keep)
    if reach <= 0:
        return []
    texts = connection.execute(statement("jobs_of_letters")).fetchall()
    named = {job_id for (text,) in texts for job_id in json.loads(text)}
    oldest = connection.execute(statement("oldest_finished"), (reach,))
    free = (
        (worker_id, job_id)
        for worker_id, job_id, has_items in oldest
        if not has_items and readable(job_id) not in named
    )
    return list(islice(free, limit))
