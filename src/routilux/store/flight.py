"""A flight recorder in a memory-mapped file: what each thread ran when the process died.

A text is written into the page cache and not flushed, which takes well below a microsecond; the system keeps it when
the process is killed, and loses it with the machine. The file is therefore of use only within one boot.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from uuid import UUID

from routilux.errors import InvalidValueError, refused
from routilux.ports import FLIGHT_SEATS, FlightRecorder
from routilux.store.boot import UNKNOWN, boot_id
from routilux.store.space import take_space

SEAT_SIZE = 512  # bytes, the length included
LONGEST = SEAT_SIZE - 2
_SIZE = (FLIGHT_SEATS + 1) * SEAT_SIZE  # the first seat holds the boot
_LENGTH = struct.Struct("<H")


class MappedRecorder(FlightRecorder):
    """Implements ``ports.FlightRecorder`` with one file. A file has one process at a time; the caller sees to it.

    A text of more than 510 bytes in UTF-8 leaves its seat empty: a part of it could be the name of something else.
    Raises OSError where the file cannot be made; the space for it is taken at once, because a thread that writes into
    a mapped file on a full disk would be killed.
    """

    def __init__(self, path: Path) -> None:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            left = os.pread(file, _SIZE, 0)
            os.ftruncate(file, 0)
            take_space(file, _SIZE)
            self._map = mmap.mmap(file, _SIZE)
        finally:
            os.close(file)
        self._suspects = _texts(left)
        self._map[:16] = _boot()

    def suspects(self) -> list[str]:
        """What was in the seats when the process that had the file before died, in the order of the seats."""
        return list(self._suspects)

    def enter(self, seat: int, text: str) -> None:
        if not 0 <= seat < FLIGHT_SEATS:
            raise refused(InvalidValueError, "enter()", seat, f"a seat from 0 to {FLIGHT_SEATS - 1}")
        data = text.encode("utf-8", "surrogatepass")
        if len(data) > LONGEST:
            data = b""
        self._write(seat, _LENGTH.pack(len(data)) + data)

    def leave(self, seat: int) -> None:
        self._write(seat, b"\0\0")

    def _write(self, seat: int, data: bytes) -> None:
        """Nothing once it is closed: logic that was not waited for may still end then."""
        start = (seat + 1) * SEAT_SIZE
        try:
            self._map[start : start + len(data)] = data
        except ValueError:
            if not self._map.closed:
                raise

    def close(self) -> None:
        """Leave nothing behind: a process that comes to this ends in order."""
        self._map[:] = bytes(_SIZE)
        self._map.close()


def _boot() -> bytes:
    return UUID(boot_id()).bytes


def _texts(left: bytes) -> list[str]:
    if len(left) != _SIZE or boot_id() == UNKNOWN or left[:16] != _boot():
        return []
    found = []
    for start in range(SEAT_SIZE, _SIZE, SEAT_SIZE):
        (length,) = _LENGTH.unpack_from(left, start)
        if 0 < length <= LONGEST:
            found.append(left[start + 2 : start + 2 + length].decode("utf-8", "replace"))
    return found
