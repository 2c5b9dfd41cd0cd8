"""Waiting: one-shot signals, and a bell that wakes whoever waits for a condition.

Nothing in the library sleeps and looks again: whoever waits registers first, looks at the condition, and only
then goes to sleep, so a change in between is never missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Protocol, TypeAlias

from routilux.runtime.checks import LONGEST_SECONDS

Condition: TypeAlias = Callable[[], bool]


class Signal(Protocol):
    """Set once by anybody, waited for by one."""

    def set(self) -> None: ...

    def is_set(self) -> bool: ...

    def wait(self, timeout: float | None, holds: Condition | None = None) -> bool:
        """True when set; False after ``timeout`` seconds.

        ``holds`` says whether what is waited for has come; looking changes nothing. A simulation asks it, to find
        wake-ups that are lost.
        """


class ThreadSignal:
    """A signal made of one lock, which is the cheapest way to put a thread to sleep."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = Lock()
        self._lock.acquire()

    def set(self) -> None:
        try:
            self._lock.release()
        except RuntimeError:
            pass  # set before: one wake-up is enough

    def is_set(self) -> bool:
        return not self._lock.locked()

    def wait(self, timeout: float | None, holds: Condition | None = None) -> bool:
        if timeout is None:
            return self._lock.acquire()
        return self._lock.acquire(timeout=min(max(timeout, 0.0), LONGEST_SECONDS))


class Bell:
    """Wakes everybody who waits for a condition on what this bell belongs to.

    ``waiting`` is read on the hot path: it is empty as long as nobody waits, and then nobody rings.
    """

    __slots__ = ("_clock", "_signal", "waiting")

    def __init__(self, signal: Callable[[], Signal], clock: Callable[[], float]) -> None:
        self._signal = signal
        self._clock = clock
        self.waiting: dict[Signal, None] = {}

    def ring(self) -> None:
        for signal in list(self.waiting):
            signal.set()

    def wait_for(
        self,
        condition: Condition,
        deadline: float | None,
        *,
        before_sleep: Callable[[Signal], bool] | None = None,
        holds: Condition | None = None,
    ) -> bool:
        """Return True once the condition holds, False at the deadline (monotonic seconds).

        ``before_sleep`` may do some of the work that is waited for; True from it means "look again". A condition that
        changes something when it comes true, such as an offer, gives ``holds``, which only looks.
        """
        look = condition if holds is None else holds
        while not condition():
            signal = self._signal()
            with self.heard_by(signal):
                if condition():
                    return True
                if before_sleep is not None and before_sleep(signal):
                    continue
                timeout = None if deadline is None else deadline - self._clock()
                if (timeout is not None and timeout <= 0) or not signal.wait(timeout, look):
                    return condition()
        return True

    @contextmanager
    def heard_by(self, signal: Signal) -> Iterator[None]:
        """Within the block every ring sets the signal."""
        self.waiting[signal] = None
        try:
            yield
        finally:
            self.waiting.pop(signal, None)
