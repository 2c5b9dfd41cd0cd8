"""What is kept too long goes: keys that have expired, finished jobs, stopped workers without jobs."""

from __future__ import annotations

from typing import Final

import psycopg

from routilux.store.postgres.statements import statements
from routilux.store.postgres.writing import forgetting

_SQL: Final = statements("pruning")


def prune(connection: psycopg.Connection, now: float, before: float, keep: int, limit: int) -> int:
    """Within a transaction; ``ports.Store.prune`` says what. Gives the number of rows."""
    expired = connection.execute(_SQL["expired_keys"], {"now": float(now), "limit": limit}).rowcount
    return expired + _finished_jobs(connection, before, keep, limit) + _stopped_workers(connection, limit)


def _finished_jobs(connection: psycopg.Connection, before: float, keep: int, limit: int) -> int:
    chosen = {"before": float(before), "keep": keep, "limit": limit}
    rows = connection.execute(_SQL["finished_jobs"], chosen).fetchall()
    if rows:
        worker_ids, job_ids = (list(column) for column in zip(*rows, strict=True))
        connection.execute(_SQL["notes_of_jobs"], [worker_ids, job_ids])
        connection.execute(_SQL["entries_of_jobs"], [worker_ids, job_ids])
        connection.execute(_SQL["jobs"], [job_ids])
    return len(rows)


def _stopped_workers(connection: psycopg.Connection, limit: int) -> int:
    rows = connection.execute(_SQL["stopped_workers"], {"limit": limit}).fetchall()
    if rows:
        for statement, parameters in forgetting([worker_id for (worker_id,) in rows]):
            connection.execute(statement, parameters)
    return len(rows)
