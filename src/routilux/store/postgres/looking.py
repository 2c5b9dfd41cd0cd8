"""A store that is read and not run, even if processes have its workers."""

from __future__ import annotations

from routilux.store.postgres.operate import check_there
from routilux.store.postgres.store import PostgresStore


def look_into(url: str) -> PostgresStore:
    """A server lends itself to any number of readers: a store that claims nothing disturbs none."""
    check_there(url)
    return PostgresStore(url)
