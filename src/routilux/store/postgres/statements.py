"""The SQL of the store, from the files beside this one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files

_FOLDER = files(__package__) / "sql"
_NAME = re.compile(r"^-- :(\w+)\n", re.MULTILINE)


def statements(file: str) -> dict[str, bytes]:
    """The statements of a file by their names: each follows a line ``-- :name``."""
    _, *parts = _NAME.split((_FOLDER / f"{file}.sql").read_text(encoding="utf-8"))
    bodies = (
        "\n".join(line for line in part.splitlines() if not line.startswith("--")) for part in parts[1::2]
    )
    return {name: body.strip().encode() for name, body in zip(parts[::2], bodies, strict=True)}


def migrations() -> Iterator[tuple[int, bytes]]:
    """The steps from one format of the store to the next: the number of the new format, and what makes it."""
    folder = _FOLDER / "migrations"
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        yield int(entry.name[:4]), entry.read_bytes()
