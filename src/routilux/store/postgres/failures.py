"""What PostgreSQL and its driver raise, in the words of Routilux."""

from __future__ import annotations

from typing import Final

import psycopg
from psycopg import errors

from routilux.errors import StoreCorruptError, StoreDataError, StoreError, StoreFullError

_ENDED: Final = (
    "08",
    "57P",
    "25P03",
)  # SQLSTATEs of a connection that the server has ended, by their beginnings
_DAMAGE: Final = (errors.DataCorrupted, errors.IndexCorrupted)
_UNFIT: Final = ("22", "23", "54")  # SQLSTATEs of a row that cannot be written, by their beginnings
_ADVICE: Final[tuple[tuple[type[psycopg.Error], str], ...]] = (
    (
        errors.ReadOnlySqlTransaction,
        "the server only reads, as a standby does; open the store on the primary",
    ),
    (
        errors.InsufficientPrivilege,
        "give this user the rights to the schema of the store, or let its owner open it",
    ),
    (errors.LockNotAvailable, "another process holds the row and does not let go of it"),
    (
        errors.ProgramLimitExceeded,
        "ids and names have to stay below 2,700 bytes together where they make one key",
    ),
    (errors.UndefinedTable, "the tables of the store have gone; restore the database from a backup"),
    (
        errors.ForeignKeyViolation,
        "this store was silent for so long that it was taken for dead; open it again",
    ),
    (errors.UniqueViolation, "a row is there already that was written as a new one"),
)


def is_lost(connection: psycopg.Connection, error: psycopg.Error) -> bool:
    """Whether the connection ended, by the server or on the way, instead of answering with an error."""
    if connection.closed or connection.broken:
        return True
    return (
        error.sqlstate.startswith(_ENDED) if error.sqlstate else isinstance(error, psycopg.OperationalError)
    )


def translated(error: psycopg.Error, name: str, lost: bool = False) -> StoreError:
    """The error to raise from this one, where it is known that nothing was written."""
    said = _said(error)
    if lost:
        return StoreError(f"{name}: the connection is lost: {said}; the next call connects again")
    if isinstance(error, errors.DiskFull):
        return StoreFullError(
            f"{name}: the server has no space left: {said}; nothing was written. Make room there"
        )
    if isinstance(error, _DAMAGE):
        return StoreCorruptError(
            f"{name}: the server found damaged data: {said}; restore the database from a backup"
        )
    advice = next((advice for kind, advice in _ADVICE if isinstance(error, kind)), "nothing was changed")
    return (StoreDataError if _is_unfit(error) else StoreError)(f"{name}: {said}; {advice}")


def _is_unfit(error: psycopg.Error) -> bool:
    """Whether it is because of what was to be written, and not of how the server is."""
    if isinstance(error, errors.ForeignKeyViolation):
        return False
    if error.sqlstate is None:  # the driver has no form for a value
        return isinstance(error, psycopg.DataError | psycopg.ProgrammingError)
    return error.sqlstate.startswith(_UNFIT)


def not_connected(error: psycopg.Error, name: str) -> StoreError:
    return StoreError(
        f"{name}: no connection: {_said(error)}; is the server running, and are the URL and its rights right?"
    )


def _said(error: psycopg.Error) -> str:
    return " ".join(str(error).split()) or type(error).__name__
