"""``--watch``: the same again, whenever a file has changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from threading import Event
from typing import Final

from routilux.cli.codes import INTERRUPTED
from routilux.cli.command import Call, code_of
from routilux.errors import RoutiluxError

_SECONDS_BETWEEN_LOOKS: Final = 0.3


def watch_files(call: Call, files: Sequence[str], act: Callable[[], int]) -> int:
    """Act now and after each change of a file, until a signal ends it; return the exit code of that."""
    never = Event()
    try:
        while True:
            seen = _stamps(files)
            code = _acted(call, act)
            if code >= INTERRUPTED:
                return code
            call.say(f"Watching {', '.join(files)}; Ctrl-C ends it.")
            while _stamps(files) == seen:
                never.wait(_SECONDS_BETWEEN_LOOKS)
            call.say()
    except KeyboardInterrupt:
        call.say()
        return INTERRUPTED


def _acted(call: Call, act: Callable[[], int]) -> int:
    """What is wrong with the document is shown, and the next change may repair it."""
    try:
        return act()
    except RoutiluxError as error:
        call.show(error)
        return code_of(error)


def _stamps(files: Sequence[str]) -> list[tuple[int, int] | None]:
    return [_stamp(file) for file in files]


def _stamp(file: str) -> tuple[int, int] | None:
    try:
        status = os.stat(file)
    except FileNotFoundError:
        return None  # an editor may be about to put the new one there
    return status.st_mtime_ns, status.st_size
