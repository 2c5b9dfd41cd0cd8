"""Keeps workers in PostgreSQL, for several processes. Needs psycopg 3: the extra ``routilux[postgres]``."""

from routilux.store.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
