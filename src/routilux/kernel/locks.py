"""Locks that are taken for every item, without a convoy.

A thread that blocks in ``acquire()`` is given the lock while it does not have the interpreter. It then waits for the
interpreter with the lock in its hand, the thread that has the interpreter runs into the lock and blocks, and from
there on every acquisition costs a switch between threads: a convoy, which lasts as long as both use the lock.

So where a lock is taken for every item, it is tried without blocking, and a thread that finds it taken lets the
holder have the interpreter for a moment and tries again. The holder does a few bounded steps and never waits.
``acquire`` and ``release`` are written out there, because a ``with`` costs twice as much.
"""

from __future__ import annotations

from _thread import allocate_lock
from typing import Any, Protocol

MOMENT = 0.00002  # seconds; what the operating system makes of it is enough for a switch


class Lock(Protocol):
    """What the kernel needs of a lock; it is given, and the simulation gives its own."""

    def acquire(self, blocking: bool = True, /) -> bool: ...

    def release(self) -> Any: ...

    def __enter__(self) -> Any: ...

    def __exit__(self, kind: Any, error: Any, trace: Any, /) -> Any: ...


def take_contended(lock: Lock) -> None:
    """Take a lock that was found taken."""
    while not lock.acquire(False):
        _never.acquire(True, MOMENT)


_never = allocate_lock()
_never.acquire()
