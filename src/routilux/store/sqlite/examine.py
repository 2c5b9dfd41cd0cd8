"""Everything that can be told about a database, or about the place where one is to be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from routilux.errors import StoreError
from routilux.store.facts import Fact
from routilux.store.sqlite.beside import PARTS, RESERVE_SIZE, beside, owner_of
from routilux.store.sqlite.connection import connect, translated
from routilux.store.sqlite.opening import exists
from routilux.store.sqlite.operate import check
from routilux.store.sqlite.schema import check_format, format_of, released

_ENOUGH = 4 * RESERVE_SIZE  # bytes


def examine(path: Path) -> Iterator[Fact]:
    folder = path.parent
    if not folder.is_dir():
        yield Fact("error", "place", f"there is no folder {folder}; make it")
        return
    yield _rights(path)
    yield _space(folder)
    try:
        if path.is_dir() or not exists(path):
            yield _nothing(path)
            return
        yield _owner(path)
        yield _format(path)
        yield from _damage(path)
    except StoreError as error:
        yield Fact("error", "database", str(error))


def _rights(path: Path) -> Fact:
    needed = [file for file in (beside(path, part) for part in PARTS) if file.exists()]
    locked = [str(file) for file in (path.parent, *needed) if not os.access(file, os.W_OK)]
    if locked:
        return Fact("error", "rights", f"this user cannot write {', '.join(locked)}, and a run has to")
    return Fact("ok", "rights", f"{path.parent} can be written")


def _space(folder: Path) -> Fact:
    volume = os.statvfs(folder)
    free = volume.f_bavail * volume.f_frsize
    state = "ok" if free >= _ENOUGH else "warning"
    return Fact(state, "space", f"{free / 2**20:,.0f} MiB are free")


def _nothing(path: Path) -> Fact:
    if path.is_dir():
        return Fact("error", "database", f"{path} is a folder; name a file in it")
    return Fact("ok", "database", f"there is none at {path} yet; the first run makes it")


def _owner(path: Path) -> Fact:
    return Fact("ok", "owner", owner_of(path) or "no process has it open")


def _format(path: Path) -> Fact:
    with translated(path), closing(connect(path, "ro", 5.0)) as connection:
        check_format(connection, path, released())
        found, newest = format_of(connection), len(released())
    more = "" if found == newest else f"; the next run brings it to {newest}"
    return Fact("ok", "format", f"{found}{more}")


def _damage(path: Path) -> Iterator[Fact]:
    whole = True
    for problem in check(path):
        whole = False
        yield Fact("error", "damage", str(problem))
    if whole:
        size = sum(file.stat().st_size for file in (path, beside(path, "-wal")) if file.exists())
        yield Fact("ok", "contents", f"every page and row of {size / 2**20:,.1f} MiB is whole")
