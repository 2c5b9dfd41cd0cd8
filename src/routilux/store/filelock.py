"""Locks of the operating system on files, which end with their process, however that ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from weakref import WeakSet


class FileLock:
    """Has the lock on a file, which is made if there is none. Raises BlockingIOError while another has it.

    The lock belongs to the open ``file``: a second one in the same process does not get it either. A forked child
    would share it, and would keep it for as long as it lives: children close the file before they do anything else.
    """

    def __init__(self, path: Path, mode: int, flags: int = 0) -> None:
        self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | flags, mode)
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(self.file)
            raise
        _held.add(self)

    def close(self) -> None:
        """Give the lock back; the file stays."""
        _held.discard(self)
        os.close(self.file)


_held: WeakSet[FileLock] = WeakSet()


def _let_go_in_child() -> None:
    for lock in list(_held):
        lock.close()


os.register_at_fork(after_in_child=_let_go_in_child)
