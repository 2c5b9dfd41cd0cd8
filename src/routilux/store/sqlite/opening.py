"""Whether a database is what was left behind: looked at before anything is written."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from routilux.errors import StoreCorruptError, StoreError
from routilux.ports import UNFINISHED
from routilux.store.sqlite import batch
from routilux.store.sqlite.beside import beside
from routilux.store.sqlite.connection import connect, damaged, reading, translated
from routilux.store.sqlite.mark import BrokenMarkError, Mark, read_mark
from routilux.store.sqlite.rows import corrupt, seal
from routilux.store.sqlite.scan import scan, tables_of
from routilux.store.sqlite.schema import Migrations, check_format, format_of, released, schema_of
from routilux.store.sqlite.sql import statement

log = logging.getLogger("routilux.store")

LARGEST_CHECKED_AT_ONCE = 8 * 1024 * 1024  # bytes; about 0.2 s


class State(NamedTuple):
    """The row of the table ``store``: which database this is, and how far its history goes."""

    id: str
    batch: int
    clean: bool


def read_state(connection: sqlite3.Connection) -> State:
    rows = connection.execute(statement("state")).fetchall()
    if len(rows) != 1 or seal(rows[0][:-1]) != rows[0][-1]:
        raise corrupt("state of the store", ())
    id_, batch, clean, _ = rows[0]
    return State(id_, batch, bool(clean))


def exists(path: Path) -> bool:
    """Whether there is a file to open; raises StoreCorruptError if there was one, and it is gone."""
    if path.exists() and path.stat().st_size > 0:
        return True
    mark = mark_of(path)
    if _has_log(path) or (mark is not None and mark.batch):
        raise damaged(path, "the file is missing or empty, but the files beside it tell of a history")
    return False


def inspect(path: Path, migrations: Migrations) -> State | None:
    """The state of the database; None if there is none yet.

    Raises StoreError or StoreCorruptError unless it is whole, as far as its history went. In a small database every
    page and every row are looked at.
    """
    if not exists(path):
        return None
    mark = mark_of(path)  # before the database: a store that is in use goes on
    with translated(path), closing(connect(path, "ro", busy_timeout=5.0)) as connection:
        if _is_blank(connection, path, mark):
            return None
        check_format(connection, path, migrations)
        state = read_state(connection)
        compare(path, state, mark)
        by = unfinished_by(connection)
        if by is not None:
            raise unfinished(path, by)
        if is_small(path):
            for problem in problems(connection, path):
                raise problem
    return state


def unfinished_by(connection: sqlite3.Connection) -> str | None:
    """The call that has begun to fill the store, and has not ended."""
    return batch.properties(connection).get(UNFINISHED) if format_of(connection) > 1 else None


def remove_unfinished(path: Path) -> bool:
    """Make way for a call that fills a new store; False if there is one that is none of the unfinished ones. The caller
    has the lock."""
    if not exists(path):
        return True
    with translated(path), closing(connect(path, "ro", busy_timeout=5.0)) as connection:
        if schema_of(connection):
            check_format(connection, path, released())
            if unfinished_by(connection) is None:
                return False
    for what in (".mark", ".flight", "-wal", "-shm", ""):  # the database last: until then it says what it is
        beside(path, what).unlink(missing_ok=True)
    return True


def _is_blank(connection: sqlite3.Connection, path: Path, mark: Mark | None) -> bool:
    """Whether there are no tables: the process that made the file was ended before the first transaction."""
    if schema_of(connection) or format_of(connection):
        return False
    if mark is not None and mark.batch:
        raise damaged(path, f"it is empty, but batch {mark.batch} was committed")
    return True


def problems(connection: sqlite3.Connection, path: Path) -> Iterator[StoreCorruptError]:
    """What is wrong with the pages, the rows and their order."""
    with reading(connection):
        for (text,) in connection.execute("PRAGMA integrity_check(10)").fetchall():
            if text != "ok":
                yield damaged(path, text)
        for table in tables_of(connection):
            for _, found in scan(connection, table):
                if isinstance(found, StoreCorruptError):
                    yield found


def unfinished(path: Path, by: str) -> StoreError:
    return StoreError(
        f"{path} is not whole: {by} into it has not ended. Run that again, which begins anew, or remove the file"
    )


def mark_of(path: Path) -> Mark | None:
    try:
        return read_mark(beside(path, ".mark"))
    except BrokenMarkError:
        raise damaged(
            path, f"the file {path.name}.mark, which says how far history went, is not readable"
        ) from None


def compare(path: Path, state: State, mark: Mark | None) -> None:
    """Raise StoreCorruptError for a history that went further than the database does."""
    if mark is None:
        _without_mark(path, state)
    elif mark.id != state.id:
        raise StoreCorruptError(
            f"{path} is not the database that {path.name}.mark belongs to: one of them was swapped or copied alone; "
            "put the files of one store together, or remove the mark if the database was copied after close()"
        )
    elif mark.batch > state.batch:
        _behind(path, state, mark)
    elif mark.is_of_this_boot and mark.batch + 1 < state.batch:
        now = mark_of(path) or mark  # a store that is in use may have gone on since the mark was read
        if now.batch + 1 < state.batch:
            raise damaged(
                path,
                f"it is at batch {state.batch}, but {path.name}.mark at {now.batch}: files of different moments",
            )


def _without_mark(path: Path, state: State) -> None:
    """A database that was closed in order can be copied alone; any other needs the files beside it."""
    if not state.clean or _has_log(path):
        raise damaged(
            path,
            f"it was not closed in order, and {path.name}.mark, which says how far history went, is missing",
        )


def _behind(path: Path, state: State, mark: Mark) -> None:
    lost = f"its history ends at batch {state.batch}, but batch {mark.batch} was committed"
    if mark.binds:
        raise damaged(path, lost)
    log.warning(
        '%s: %s. The machine went down, and durability="process" does not cover that; the rest is whole',
        path,
        lost,
    )


def _has_log(path: Path) -> bool:
    wal = _wal(path)
    return wal.exists() and wal.stat().st_size > 0


def _wal(path: Path) -> Path:
    return beside(path, "-wal")


def is_small(path: Path) -> bool:
    """Whether looking at all of it takes no time to speak of."""
    size = sum(file.stat().st_size for file in (path, _wal(path)) if file.exists())
    return size <= LARGEST_CHECKED_AT_ONCE
