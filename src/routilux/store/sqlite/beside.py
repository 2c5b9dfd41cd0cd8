"""The files beside a database: who owns it, and the space that is kept for a full disk."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path

from routilux.errors import StoreLockedError
from routilux.store.filelock import FileLock
from routilux.store.space import take_space

RESERVE_SIZE = 8 * 1024 * 1024  # bytes
"""What SQLite needs to let a full store drain: it writes pages even to delete rows."""

_NEEDED_TO_OPEN = 1024 * 1024  # bytes
_NEEDED_TO_GROW = 2 * RESERVE_SIZE


PARTS = ("", "-wal", "-shm", "-journal", ".mark", ".lock", ".reserve", ".flight", ".refused")


def beside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.name}{what}")


def is_part(database: Path, file: Path) -> bool:
    """Whether a file is one of those of a database, or would be, by whatever name or link."""
    names = {_placed(database), Path(os.path.realpath(database))}
    found = {_placed(file), Path(os.path.realpath(file))}
    parts = [beside(name, part) for name in names for part in PARTS]
    if found & set(parts) or any(str(one).startswith(f"{name}.flight") for one in found for name in names):
        return True
    return file.exists() and any(part.exists() and file.samefile(part) for part in parts)


def _placed(file: Path) -> Path:
    """The name itself, which may be a link, in the folder where it really is."""
    return Path(os.path.realpath(file.parent), file.name)


class OwnerLock:
    """The lock on ``<database>.lock``; the file says whose it is, for people."""

    def __init__(self, database: Path) -> None:
        path = beside(database, ".lock")
        try:
            self._lock = FileLock(path, 0o644)
        except BlockingIOError:
            raise _locked(database, path.read_bytes()) from None
        content = json.dumps({"pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S %z")}).encode()
        os.truncate(self._lock.file, 0)
        os.pwrite(self._lock.file, content, 0)

    def close(self) -> None:
        """Give the lock back. The file stays: removing it would let two owners in, each with a file of its own."""
        self._lock.close()


def owner_of(database: Path) -> str | None:
    """Who has the database, for people; None if no process has."""
    try:
        file = os.open(beside(database, ".lock"), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _named(os.pread(file, 1_000, 0))
    finally:
        os.close(file)
    return None


def _named(owner: bytes) -> str:
    try:
        fields = json.loads(owner)
        here = " (this one)" if fields["pid"] == os.getpid() else ""
        return f"process {fields['pid']}{here}, since {fields['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"


def _locked(database: Path, owner: bytes) -> StoreLockedError:
    return StoreLockedError(
        f"{database} is in use by {_named(owner)}; stop it first: one process at a time owns a SQLite store. To look "
        f"at what is in it meanwhile: Runtime(store=routilux.store.look_into('sqlite:///{database}')). Several "
        "processes can share a store in PostgreSQL"
    )


class Reserve:
    """A file of some MiB that is given up when the disk is full, and made again when there is space.

    Made with ``restore``; a disk that is full already gives up at once what an earlier process has kept.
    """

    def __init__(self, database: Path) -> None:
        self._path = beside(database, ".reserve")
        self._held = False
        if self._path.exists() and self._free() < _NEEDED_TO_OPEN:
            self.give_up()

    def give_up(self) -> None:
        self._path.unlink(missing_ok=True)
        self._held = False

    def restore(self) -> bool:
        """Whether the reserve is there; takes only space of which twice as much is free."""
        if not self._held and self._is_whole():
            self._held = True
        if not self._held and self._free() >= _NEEDED_TO_GROW:
            self._held = self._allocate()
        return self._held

    def shortage(self) -> str:
        """How much space has to be free for :meth:`restore`, and how much is."""
        needed, free = _NEEDED_TO_GROW / 2**20, self._free() / 2**20
        return f"{needed:.0f} MiB have to be free on its volume, and {free:.1f} MiB are"

    def _is_whole(self) -> bool:
        return self._path.exists() and self._path.stat().st_blocks * 512 >= RESERVE_SIZE

    def _free(self) -> int:
        volume = os.statvfs(self._path.parent)
        return volume.f_bavail * volume.f_frsize

    def _allocate(self) -> bool:
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            take_space(file, RESERVE_SIZE)
        except OSError:
            self.give_up()
            return False
        finally:
            os.close(file)
        return True
