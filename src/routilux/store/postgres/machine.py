"""Files of this machine that belong to a store in PostgreSQL, as others lie beside a database of SQLite.

They lie in a folder of the user's, among the temporary files.
"""

from __future__ import annotations

import os
import tempfile
from hashlib import sha256
from pathlib import Path


def beside(store_name: str, what: str) -> Path:
    """Raises OSError where there is no place for it."""
    return _folder() / f"{sha256(store_name.encode('utf-8', 'replace')).hexdigest()[:16]}{what}"


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"routilux-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or folder.is_symlink():
        raise PermissionError(f"{folder} is not a folder of this user alone; remove it")
    return folder
