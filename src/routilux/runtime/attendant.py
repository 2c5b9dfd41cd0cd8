"""A thread that does what is waiting and then sleeps until it is woken."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock, Thread, get_ident

Step = Callable[[], bool]
OnFault = Callable[[str, BaseException, str], object]
"""Told what has come out of a step: what it was, the exception, and what follows."""


class Attendant:
    """Calls ``step`` until it returns False, whenever :meth:`wake` was called.

    No wake-up is lost: one that comes during a step makes for another one. A step that raises is over, and the thread
    goes on.
    """

    def __init__(self, name: str, step: Step, clock: Callable[[], float], on_fault: OnFault) -> None:
        self._step = step
        self._on_fault = on_fault
        self._clock = clock
        self._sleeper = Lock()
        self._sleeper.acquire()
        self._woken = False
        self._closing = False
        self._thread = Thread(target=self._work, name=name, daemon=True)
        self._started = False
        self._start_lock = Lock()

    def wake(self) -> None:
        if self._woken:
            return
        self._woken = True
        if not self._started:
            self._start()
        try:
            self._sleeper.release()
        except RuntimeError:
            pass  # another thread has done it

    def close(self, deadline: float | None) -> bool:
        """Let it do what is waiting and end; False if that took longer than until the deadline."""
        self._closing = True
        self.wake()
        if self._thread.ident != get_ident():
            self._thread.join(None if deadline is None else max(0.0, deadline - self._clock()))
        return not self._thread.is_alive()

    def _start(self) -> None:
        with self._start_lock:
            if not self._started:
                self._started = True
                self._thread.start()

    def _work(self) -> None:
        while True:
            self._sleeper.acquire()
            self._woken = False
            try:
                while self._step():
                    pass
            except BaseException as error:  # noqa: BLE001 the thread goes on, whatever this is
                self._on_fault(f"a step of {self._thread.name}", error, "the thread goes on")
            if self._closing:
                return
