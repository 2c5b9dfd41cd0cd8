"""Changes that a database can never take, as lines of JSON in a file beside it: for people who repair it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from routilux.errors import StoreError
from routilux.ports import Changes, StoredJob
from routilux.store.exchange import line_of


def keep_refused(path: Path, changes: Changes, why: str) -> str:
    """Add them to the file; returns where. Rows are those of an export, and ``removed`` says what was to go.

    Raises StoreError where the file cannot be written.
    """
    begin = json.dumps({"refused": why, "time": time.time()})
    text = "".join([f"{begin}\n", *_lines(changes)])
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with open(file, "ab") as out:
            out.write(text.encode())
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise StoreError(f"{path}: refused changes cannot be kept here: {error}") from error
    return str(path)


def _lines(changes: Changes) -> Iterator[str]:
    rows: list[Any] = [
        *changes.workers.values(),
        *changes.items,
        *[(note, value) for note, value in changes.notes.items() if value is not None],
        *changes.entries,
        *[StoredJob(row, changes.counts.get(row.job_id, 0)) for row in changes.jobs.values()],
        *changes.letters,
        *changes.keys,
    ]
    for row in rows:
        try:
            yield line_of(row)
        except Exception:  # noqa: BLE001 a row that cannot be written may be of any shape
            yield f"{json.dumps({'row': repr(row)})}\n"
    removed = {
        "workers": changes.forgotten,
        "items": [list(key) for key in changes.taken],
        "notes": [list(note) for note, value in changes.notes.items() if value is None],
        "letters": [list(letter) for letter in changes.redriven],
    }
    rest = {"removed": removed, "counts": changes.counts, "properties": changes.properties}
    yield f"{json.dumps(rest, default=repr)}\n"
