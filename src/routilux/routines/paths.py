"""Files on disk: which one a payload means, and files that appear only when they are complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex
from typing import Any

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
    cut off before more is written.
    """

    def __init__(self, target: Path, temporary: Path, size: int) -> None:
        self.target = target
        self.temporary = temporary
        self.size = size

    @classmethod
    def begin(cls, target: Path, append: bool) -> Draft:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{token_hex(4)}.part")
        if append and target.exists():
            shutil.copyfile(target, temporary)
        else:
            temporary.open("xb").close()
        return cls(target, temporary, temporary.stat().st_size)

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Draft:
        return cls(Path(state["target"]), Path(state["temporary"]), state["size"])

    def as_state(self) -> dict[str, Any]:
        return {"target": str(self.target), "temporary": str(self.temporary), "size": self.size}

    def write(self, data: bytes) -> None:
        if not self.temporary.exists():  # it was finished, and then what was remembered of that got lost
            shutil.copyfile(self.target, self.temporary)
        with self.temporary.open("r+b") as file:
            file.truncate(self.size)
            file.seek(self.size)
            file.write(data)
        self.size += len(data)

    def finish(self) -> None:
        """Let the file appear under its name, on disk to the last byte."""
        with self.temporary.open("r+b") as file:
            os.fsync(file.fileno())
        self.temporary.replace(self.target)
        _sync_folder(self.target.parent)


def _sync_folder(folder: Path) -> None:
    """So that the new name survives a power cut; Windows cannot, and need not."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
