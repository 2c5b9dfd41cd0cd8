"""Waiting: every test waits for a condition, for as long as a busy machine may need."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event
from typing import Final

SECONDS: Final = 60.0
"""A deadline for what comes true at once on an idle machine. It passes only when something is wrong, and before the
suite's ``faulthandler_timeout`` does."""


def eventually(condition: Callable[[], object], what: str = "", seconds: float = SECONDS) -> None:
    """Wait for something that no event tells of."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not within {seconds} s: {what or condition}"
        Event().wait(0.005)
