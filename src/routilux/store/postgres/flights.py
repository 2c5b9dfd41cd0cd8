"""Flight recorders of a store that several processes on one machine have open: one file for each of them.

The files lie in a folder of the user's, among the temporary files: what they hold is of use within one boot, on the
machine where the process died. A process on another machine that takes a worker over does not see them.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from itertools import count
from pathlib import Path

from routilux.store.flight import MappedRecorder


class Flights:
    """Takes the first file that no live process has. Raises OSError where there is no place for one.

    ``suspects`` is what ran in processes that had the same store open, and died.
    """

    def __init__(self, store_name: str) -> None:
        self._stem = sha256(store_name.encode("utf-8", "replace")).hexdigest()[:16]
        self._folder = _folder()
        self.suspects: list[str] = []
        self._lock, self._path = next(self._free())
        try:
            self.recorder = self._opened(self._path)
            self._clear_up()
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        self.recorder.close()
        self._path.unlink(missing_ok=True)
        os.close(self._lock)

    def _opened(self, path: Path) -> MappedRecorder:
        recorder = MappedRecorder(path)
        self.suspects += recorder.suspects()
        return recorder

    def _free(self) -> Iterator[tuple[int, Path]]:
        for number in count():
            path = self._folder / f"{self._stem}.{number}.flight"
            lock = _locked(path)
            if lock is not None:
                yield lock, path

    def _clear_up(self) -> None:
        """Hear the other processes that have died, and remove what they have left."""
        for path in sorted(self._folder.glob(f"{self._stem}.*.flight")):
            lock = None if path == self._path else _locked(path)
            if lock is not None:
                self._opened(path).close()
                path.unlink()
                os.close(lock)


def _locked(path: Path) -> int | None:
    """The lock ends with the process, however that ends. Its file stays: without it two could have the same lock."""
    file = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"routilux-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or folder.is_symlink():
        raise PermissionError(f"{folder} is not a folder of this user alone; remove it")
    return folder
