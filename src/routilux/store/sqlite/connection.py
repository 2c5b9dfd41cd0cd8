"""Connections to a database, and SQLite's errors in the words of Routilux."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from routilux.errors import StoreCorruptError, StoreDataError, StoreError, StoreFullError, StoreUnknownError

Durability = Literal["full", "process"]

OLDEST_SQLITE = (3, 35, 0)
_SYNCHRONOUS = {"full": "FULL", "process": "NORMAL"}
_STATEMENTS = 256  # that stay prepared in a connection
_WRITER_CACHE = 16 * 1024  # KiB
_PAGES_UNTIL_CHECKPOINT = 2_000
_LARGEST_IDLE_WAL = 64 * 1024 * 1024  # bytes; what a burst made longer is cut when it is used again


def connect(path: Path, mode: Literal["ro", "rw", "rwc"], busy_timeout: float) -> sqlite3.Connection:
    """A connection for any thread, one at a time, that begins no transaction by itself.

    ``busy_timeout`` is in seconds. In the mode "ro" nothing beside the database is removed when it is closed.
    """
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}",
        uri=True,
        timeout=busy_timeout,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_STATEMENTS,
    )
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def open_writer(path: Path, durability: Durability, busy_timeout: float) -> sqlite3.Connection:
    """The one connection that writes and checkpoints; makes the database if there is none."""
    connection = connect(path, "rwc", busy_timeout)
    connection.execute("PRAGMA auto_vacuum = NONE")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[durability]}")
    connection.execute("PRAGMA fullfsync = ON")  # where fsync alone does not reach the disk (macOS)
    connection.execute("PRAGMA secure_delete = OFF")
    connection.execute(f"PRAGMA cache_size = -{_WRITER_CACHE}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_PAGES_UNTIL_CHECKPOINT}")
    connection.execute(f"PRAGMA journal_size_limit = {_LARGEST_IDLE_WAL}")
    return connection


def open_reader(path: Path, busy_timeout: float) -> sqlite3.Connection:
    """A connection that can change nothing, of a store that has its writer in this process."""
    connection = connect(path, "rw", busy_timeout)
    connection.execute("PRAGMA query_only = ON")
    return connection


@contextmanager
def reading(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Several statements that see the same state."""
    connection.execute("BEGIN")
    try:
        yield connection
    finally:
        if connection.in_transaction:
            connection.execute("COMMIT")


@contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """One transaction: all of it, or nothing and the error. Only StoreUnknownError leaves open which."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    except BaseException:
        _roll_back(connection)
        raise
    try:
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        _roll_back(connection)
        if _kind(error) == sqlite3.SQLITE_IOERR:
            raise StoreUnknownError(
                f"the disk failed during the commit ({error}): the transaction may be found in the log after a crash"
            ) from error
        raise


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:  # SQLite does it by itself after some errors
        connection.execute("ROLLBACK")


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise what SQLite and the system raise as StoreError, naming the database and what to do."""
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise _of_sqlite(error, path) from error
    except UnicodeDecodeError as error:  # a name in the schema that is no text any more
        raise damaged(path, str(error)) from error
    except OverflowError as error:
        raise unfit(path, error) from error
    except OSError as error:
        raise of_system(error, path) from error


def of_system(error: OSError, path: Path) -> StoreError:
    if error.errno in _FULL:
        return _full(path, error)
    return StoreError(f"{path}: the store needs to write here and cannot: {error}")


def _of_sqlite(error: Exception, path: Path) -> StoreError:
    kind = _kind(error)
    if kind == sqlite3.SQLITE_FULL:
        return _full(path, error)
    if kind in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or str(error).startswith("Could not decode"):
        return damaged(path, str(error))
    if kind in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreError(
            f"{path}: {_holder(path)} has locked the database for longer than the store waits; nothing was "
            "written; close the other program, or give it another copy"
        )
    if kind in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return StoreError(
            f"{path}: {error}; the database, the files beside it and their folder have to be writable for "
            "this user"
        )
    if kind == sqlite3.SQLITE_CONSTRAINT:
        return StoreDataError(
            f"{path}: a row that should be new is there already ({error}); nothing was written"
        )
    if kind in (sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH) or isinstance(error, _UNFIT):
        return unfit(path, error)
    return StoreError(f"{path}: {error}; nothing was written")


_UNFIT = (sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError)


def unfit(path: Path, error: Exception) -> StoreDataError:
    return StoreDataError(f"{path}: a value cannot be stored: {error}; nothing was written")


def _kind(error: Exception) -> int | None:
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _full(path: Path, error: Exception) -> StoreFullError:
    return StoreFullError(
        f"{path}: no space is left on the disk ({error}); nothing was written; free some space, the store goes on "
        "by itself"
    )


def damaged(path: Path, what: str) -> StoreCorruptError:
    return StoreCorruptError(
        f"{path} is damaged: {what}. routilux.store.check() lists all damage, repair() saves what can be read into "
        "a new database; or restore the file, with all files beside it, from a backup"
    )


_FULL = (errno.ENOSPC, errno.EDQUOT)


def _holder(path: Path) -> str:
    """Who holds a lock on the database, as far as the system tells."""
    pids = sorted(_pids_with_locks([path, path.with_name(f"{path.name}-shm")]) - {os.getpid()})
    return f"process {', '.join(map(str, pids))}" if pids else "another program"


def _pids_with_locks(paths: list[Path]) -> set[int]:
    inodes = {str(path.stat().st_ino) for path in paths if path.exists()}
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return set()
    fields = [line.split() for line in lines]
    return {int(field[-4]) for field in fields if "WRITE" in field and field[-3].rsplit(":", 1)[-1] in inodes}
