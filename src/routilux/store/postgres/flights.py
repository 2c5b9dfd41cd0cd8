"""Where the flight recorders of a store in PostgreSQL lie, which several processes on one machine have open.

A folder of the user's, among the temporary files: what they hold is of use within one boot, on the machine where the
process died. A process on another machine that takes a worker over does not see them.
"""

from __future__ import annotations

import os
import tempfile
from hashlib import sha256
from pathlib import Path

from routilux.store.flight import Flights


def flights_of(store_name: str) -> Flights:
    """Raises OSError where there is no place for them."""
    stem = sha256(store_name.encode("utf-8", "replace")).hexdigest()[:16]
    return Flights(_folder() / f"{stem}.flight")


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"routilux-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or folder.is_symlink():
        raise PermissionError(f"{folder} is not a folder of this user alone; remove it")
    return folder
