"""The store in one SQLite database, from the standard library."""

from routilux.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
