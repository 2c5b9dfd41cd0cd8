"""Files on disk: which one a payload means, and files that appear only when they are complete."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any

from routilux import ExecutionError
from routilux.routines.settings import Unsuitable


def path_of(given: object, folder: str | None) -> Path:
    """The file that is meant; with a folder it must be inside."""
    if not isinstance(given, str) or not given or "\0" in given:
        raise Unsuitable(f"'path' is the name of a file, not {given!r}"[:200])
    if folder is None:
        return Path(given)
    inside = Path(folder).resolve()
    path = (inside / given).resolve()
    if not path.is_relative_to(inside):
        raise Unsuitable(f"{given!r} is not inside folder {folder!r}"[:200])
    return path


class Draft:
    """A file in the making, beside the one that it will replace: what is known of it fits into a routine's state.

    ``size`` is what has been written for sure. Whatever is behind that comes from an attempt that failed, and is
    cut off before more is written. ``seen`` is what the target was when the draft was begun: if it is something
    else at the end, another program writes to the same path, and nothing of theirs is replaced.
    """

    def __init__(self, target: Path, temporary: Path, size: int, seen: Sequence[int] | None) -> None:
        self.target = target
        self.temporary = temporary
        self.size = size
        self._seen = None if seen is None else list(seen)

    @classmethod
    def begin(cls, target: Path, append: bool) -> Draft:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{token_hex(4)}.part")
        seen = _seen(target)
        temporary.open("xb").close()
        if seen is not None:
            # What only some may read stays so, from the first byte on.
            temporary.chmod(target.stat().st_mode & 0o777 | stat.S_IWUSR)
            if append:
                shutil.copyfile(target, temporary)
                _end_last_line(temporary)
        return cls(target, temporary, temporary.stat().st_size, seen)

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Draft:
        return cls(Path(state["target"]), Path(state["temporary"]), state["size"], state["seen"])

    def as_state(self) -> dict[str, Any]:
        return {
            "target": str(self.target),
            "temporary": str(self.temporary),
            "size": self.size,
            "seen": self._seen,
        }

    def write(self, data: bytes) -> None:
        if not self.temporary.exists():
            self._begin_again()
        with self.temporary.open("r+b") as file:
            if file.seek(0, os.SEEK_END) < self.size:
                raise ExecutionError(
                    f"{str(self.temporary)!r} has lost the end of what was written to it, in a power cut perhaps, or "
                    "it was cut by another program; start a new worker"
                )
            file.truncate(self.size)
            file.seek(self.size)
            file.write(data)
        self.size += len(data)

    def finish(self) -> None:
        """Let the file appear under its name, on disk to the last byte."""
        if _seen(self.target) not in (None, self._seen):
            raise ExecutionError(
                f"{str(self.target)!r} was written by another program while its new content was collected in "
                f"{str(self.temporary)!r}; nothing was replaced; give every writer a path of its own"
            )
        with self.temporary.open("r+b") as file:
            os.fsync(file.fileno())
        self.temporary.replace(self.target)
        _sync_folder(self.target.parent)

    def _begin_again(self) -> None:
        """It was finished, and then what was remembered of that got lost: take it up from the target."""
        now = _seen(self.target)
        if now in (None, self._seen) or self.target.stat().st_size < self.size:
            raise ExecutionError(
                f"{str(self.temporary)!r}, in which the new content of {str(self.target)!r} was collected, is gone, "
                "and with it what was written so far; start a new worker"
            )
        shutil.copyfile(self.target, self.temporary)
        self._seen = now


def _end_last_line(path: Path) -> None:
    """So that what is added begins a line of its own."""
    with path.open("r+b") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def _seen(path: Path) -> list[int] | None:
    """What changes when a file is written or replaced."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return [found.st_ino, found.st_size, found.st_mtime_ns]


def _sync_folder(folder: Path) -> None:
    """So that the new name survives a power cut; Windows cannot, and need not."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
