"""Space on a disk that is really taken, where a file alone would be a promise."""

from __future__ import annotations

import os


def take_space(file: int, size: int) -> None:
    """Give a new file this many bytes, and the blocks for them; raises OSError if the disk has not got them."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.pwrite(file, bytes(size), 0)
