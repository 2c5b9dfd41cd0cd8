"""The high-water file: how far the history of a database went, kept outside of it.

SQLite recovers from a write-ahead log by taking what has valid checksums, from the start to the first that has not.
One flipped bit therefore makes history shorter, without an error. The file beside the database holds the number of the
last committed transaction; a database that is opened with a lower one has lost some.

The number is written after the commit and never flushed. With the durability "full" it is thus never ahead of the
database, whatever happens. With "process" the file may reach the disk before the database does when the machine dies:
the file names the boot of the machine in which it was written, and only within one boot, or after a store was closed in
order, must it not be ahead. Two slots are written in turn, so that one of them is whole after a cut in a write.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import NamedTuple
from uuid import UUID
from zlib import crc32

from routilux.store.boot import UNKNOWN, boot_id

_SLOT = struct.Struct("<16s16sQ??")  # id, boot, batch, flushed, clean
_CHECK = struct.Struct("<I")
_SLOT_SIZE = 64


class Mark(NamedTuple):
    """``flushed``: each commit was on the disk before this was written. ``clean``: the store was closed in order."""

    id: str
    boot: str
    batch: int
    flushed: bool
    clean: bool

    @property
    def binds(self) -> bool:
        """Whether no honest crash can have left the database behind this mark."""
        return self.flushed or self.clean or self.is_of_this_boot

    @property
    def is_of_this_boot(self) -> bool:
        return self.boot == boot_id() != UNKNOWN


class BrokenMarkError(Exception):
    """No slot of the file is whole."""


class MarkFile:
    """Open for writing. Not safe from several threads at once."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def write(self, mark: Mark) -> None:
        os.pwrite(self._file, _packed(mark), mark.batch % 2 * _SLOT_SIZE)

    def begin(self, mark: Mark) -> None:
        """Replace whatever the file held: an older slot with a higher number would hide this one."""
        os.pwrite(self._file, 2 * _packed(mark), 0)

    def flush(self) -> None:
        os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)


def read_mark(path: Path) -> Mark | None:
    """The newest whole slot; None if there is no file, or nothing was written into it yet."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    slots = [content[:_SLOT_SIZE], content[_SLOT_SIZE : 2 * _SLOT_SIZE]]
    marks = [mark for mark in map(_unpacked, slots) if mark is not None]
    if marks:
        return max(marks, key=lambda mark: mark.batch)
    if any(content):
        raise BrokenMarkError
    return None


def _packed(mark: Mark) -> bytes:
    ids = UUID(mark.id).bytes, UUID(mark.boot).bytes
    packed = _SLOT.pack(*ids, mark.batch, mark.flushed, mark.clean)
    return (packed + _CHECK.pack(crc32(packed))).ljust(_SLOT_SIZE, b"\0")


def _unpacked(slot: bytes) -> Mark | None:
    if len(slot) < _SLOT.size + _CHECK.size:
        return None
    packed = slot[: _SLOT.size]
    if not any(packed) or _CHECK.unpack_from(slot, _SLOT.size) != (crc32(packed),):
        return None
    id_, boot, batch, flushed, clean = _SLOT.unpack(packed)
    return Mark(str(UUID(bytes=id_)), str(UUID(bytes=boot)), batch, flushed, clean)
