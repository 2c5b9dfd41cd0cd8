"""Processes that tests start and interrupt."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interruptible() -> Iterator[None]:
    """What is started here can be interrupted, also if these tests run in the background.

    A shell that starts a job with ``&`` has it ignore SIGINT and SIGQUIT, as ``nohup`` does with SIGHUP, and a child
    inherits what is ignored. A handler is not inherited: the child has the default instead.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def in_the_background() -> Iterator[None]:
    """What is started here ignores SIGINT, as a job of a shell in the background does."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
