"""What is kept too long goes: keys that have expired, finished jobs, stopped workers without jobs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Final

import psycopg

from routilux.ports import FLOOR, PropertyRow
from routilux.store.postgres.rows import opened, readable, sealed, storable
from routilux.store.postgres.statements import statements
from routilux.store.postgres.writing import forgetting, putting

_SQL: Final = statements("pruning")


def prune(connection: psycopg.Connection, now: float, before: float, keep: int, limit: int, name: str) -> int:
    """Within a transaction; ``ports.Store.prune`` says what. Gives the number of rows. ``name`` is the store's."""
    expired = connection.execute(_SQL["expired_keys"], {"now": float(now), "limit": limit}).rowcount
    jobs = _finished_jobs(connection, before, keep, limit)
    outlived = connection.execute(_SQL["outlived_tombstones"], {"limit": limit}).rowcount
    return expired + jobs + outlived + _stopped_workers(connection, limit, name)


def _finished_jobs(connection: psycopg.Connection, before: float, keep: int, limit: int) -> int:
    rows = list(islice(_free_jobs(connection, before, keep, limit), limit))
    if rows:
        worker_ids, job_ids = (list(column) for column in zip(*rows, strict=True))
        connection.execute(_SQL["notes_of_jobs"], [worker_ids, job_ids])
        connection.execute(_SQL["entries_of_jobs"], [worker_ids, job_ids])
        for statement in ("tombstones", "bury", "jobs"):
            connection.execute(_SQL[statement], [job_ids])
    return len(rows)


def _free_jobs(
    connection: psycopg.Connection, before: float, keep: int, limit: int
) -> Iterator[tuple[str, str]]:
    """Worker and id of the finished jobs that may go, as they are stored, page by page."""
    chosen = {
        "before": float(before), "keep": keep, "limit": limit, "time": float("-infinity"), "job_id": "",
    }  # fmt: skip
    while rows := connection.execute(_SQL["finished_jobs"], chosen).fetchall():
        texts = connection.execute(_SQL["jobs_of_letters"]).fetchall()
        named = {storable(job_id) for (text,) in texts for job_id in json.loads(readable(text))}
        yield from ((worker_id, job_id) for worker_id, job_id, _ in rows if job_id not in named)
        _, chosen["job_id"], chosen["time"] = rows[-1]


def _stopped_workers(connection: psycopg.Connection, limit: int, name: str) -> int:
    rows = connection.execute(_SQL["stopped_workers"], {"limit": limit}).fetchall()
    if rows:
        worker_ids, next_numbers = zip(*rows, strict=True)
        _raise_floor(connection, max(next_numbers), name)
        for statement, parameters in forgetting(list(map(readable, worker_ids))):
            connection.execute(statement, parameters)
    return len(rows)


def _raise_floor(connection: psycopg.Connection, number: int, name: str) -> None:
    connection.execute(_SQL["begin_floor"], sealed(PropertyRow, [PropertyRow(FLOOR, "0")]))
    row = connection.execute(_SQL["floor"], [FLOOR], binary=True).fetchone()
    assert row is not None
    floor = max(number, int(opened(PropertyRow, row, name).value))
    for statement, parameters in putting({FLOOR: str(floor)}):
        connection.execute(statement, parameters)
