"""Flight recorders: what each thread ran when its process died.

A text is written into a memory-mapped file and not flushed, which takes well below a microsecond; the page cache keeps
it when the process is killed, and loses it with the machine. A file is therefore of use only within one boot.

A process has a file of its own, and a lock on it. The file of one that died stays, and tells what that ran, until each
of its texts has been cleared. Several processes may look at it meanwhile.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from uuid import UUID

from routilux.errors import InvalidValueError, refused
from routilux.ports import FLIGHT_SEATS, Death, FlightRecorder
from routilux.store.boot import UNKNOWN, boot_id
from routilux.store.filelock import FileLock
from routilux.store.space import take_space

SEAT_SIZE = 64  # bytes, the length included
LONGEST = SEAT_SIZE - 2
MOST_DEATHS = 64  # of which files are kept
_SIZE = (FLIGHT_SEATS + 1) * SEAT_SIZE  # the first seat holds the boot
_LENGTH = struct.Struct("<H")
_EMPTY = _LENGTH.pack(0)


class MappedRecorder(FlightRecorder):
    """Implements ``ports.FlightRecorder`` with a file, whose content it replaces.

    A text of more than 62 bytes in UTF-8 leaves its seat empty: a part of it could be the name of something else.
    Raises OSError where there is no space for the file; it is taken at once, because a thread that writes into a mapped
    file on a full disk would be killed.
    """

    def __init__(self, path: Path) -> None:
        # Not the file that has the lock: the map keeps it open, in a forked child too.
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.ftruncate(file, 0)
            take_space(file, _SIZE)
            self._map = mmap.mmap(file, _SIZE)
        finally:
            os.close(file)
        self._map[:16] = _boot()
        self.free_seats = list(range(FLIGHT_SEATS))

    def enter(self, seat: int, text: str) -> None:
        if not 0 <= seat < FLIGHT_SEATS:
            raise refused(InvalidValueError, "enter()", seat, f"a seat from 0 to {FLIGHT_SEATS - 1}")
        data = text.encode("utf-8", "surrogatepass")
        if len(data) > LONGEST:
            data = b""
        self._write(seat, _LENGTH.pack(len(data)) + data)

    def leave(self, seat: int) -> None:
        self._write(seat, _EMPTY)

    def _write(self, seat: int, data: bytes) -> None:
        """Nothing once it is closed: logic that was not waited for may still end then."""
        start = (seat + 1) * SEAT_SIZE
        try:
            self._map[start : start + len(data)] = data
        except ValueError:
            if not self._map.closed:
                raise

    def close(self) -> None:
        self._map.close()


class Flights:
    """The files of one store: ``path``, and the same with a number behind it.

    ``recorder`` is that of this process. Raises OSError where there is no place for its file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._own, self._lock = self._take_free()
        try:
            self.recorder = MappedRecorder(self._own)
            self._forget_oldest()
        except BaseException:
            self._own.unlink(missing_ok=True)
            self._lock.close()
            raise

    def deaths(self) -> list[Death]:
        """Of the processes that had the store open before, oldest first."""
        found = (DeadFlight(path) for path in self._dead())
        return [death for death in found if death.texts]

    def close(self) -> None:
        """Leave nothing behind: a process that comes to this ends in order."""
        self.recorder.close()
        self._own.unlink(missing_ok=True)
        self._lock.close()

    def _take_free(self) -> tuple[Path, FileLock]:
        for number in count():
            path = self._numbered(number)
            try:
                lock = FileLock(path, 0o600, os.O_EXCL)
            except (FileExistsError, BlockingIOError):
                continue
            if _is_there(path, lock.file):
                return path, lock
            lock.close()  # another process has just found it empty, and removed it
        raise AssertionError("numbers never end")

    def _numbered(self, number: int) -> Path:
        return self._path if number == 0 else self._path.with_name(f"{self._path.name}.{number}")

    def _dead(self) -> list[Path]:
        """What may be files of processes that died; the first file may be missing."""
        prefix = f"{self._path.name}."
        names = [name for name in os.listdir(self._path.parent) if name.startswith(prefix)]
        numbered = [self._path.with_name(name) for name in names if name[len(prefix) :].isdecimal()]
        others = [path for path in [self._path, *numbered] if path != self._own]
        return sorted(others, key=_changed)

    def _forget_oldest(self) -> None:
        for path in self._dead()[:-MOST_DEATHS]:
            DeadFlight(path).clear_all()


class DeadFlight(Death):
    """Implements ``ports.Death`` with the file of a process. It has no texts where that lives, or ended in order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.texts: list[str] = []
        with suppress(OSError), self._looked_at() as file:
            self.texts = list(_seats(file).values())
            if not self.texts:
                self._remove(file)

    def clear(self, texts: Iterable[str]) -> None:
        wanted = set(texts)
        self.texts = [text for text in self.texts if text not in wanted]
        with suppress(OSError), self._looked_at() as file:
            seats = _seats(file)
            for seat, text in seats.items():
                if text in wanted:
                    os.pwrite(file, _EMPTY, seat)
            if wanted.issuperset(seats.values()):
                self._remove(file)

    def clear_all(self) -> None:
        self.clear(self.texts)

    @contextmanager
    def _looked_at(self) -> Iterator[int]:
        """The open file, which no process takes for its own meanwhile. Raises OSError if one has it."""
        file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            yield file
        finally:
            os.close(file)

    def _remove(self, file: int) -> None:
        """Not while another process looks at it, which then removes it."""
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_there(self._path, file):
            self._path.unlink()


def _is_there(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _boot() -> bytes:
    return UUID(boot_id()).bytes


def _seats(file: int) -> dict[int, str]:
    """What stands where; nothing in a file of another boot, or in what is none of ours."""
    left = os.pread(file, _SIZE + 1, 0)
    if len(left) != _SIZE or boot_id() == UNKNOWN or left[:16] != _boot():
        return {}
    found = {}
    for start in range(SEAT_SIZE, _SIZE, SEAT_SIZE):
        (length,) = _LENGTH.unpack_from(left, start)
        if 0 < length <= LONGEST:
            found[start] = left[start + 2 : start + 2 + length].decode("utf-8", "replace")
    return found
