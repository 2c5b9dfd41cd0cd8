"""A thread that does what is waiting and then sleeps until it is woken."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock, Thread, current_thread

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
        self._sleeper = Lock()  # held as long as nothing has woken it
        self._sleeper.acquire()
        self._closing = False
        self._name = name
        self._thread: Thread | None = None
        self._start_lock = Lock()

    def wake(self) -> None:
        if not self._sleeper.locked():
            return
        if self._thread is None:
            self._start()
        try:
            self._sleeper.release()
        except RuntimeError:
            pass  # another thread has done it

    def close(self, deadline: float | None) -> bool:
        """Let it do what is waiting and end; False if that took longer than until the deadline."""
        self._closing = True
        self.wake()
        thread = self._thread
        assert thread is not None
        if thread is not current_thread():
            thread.join(None if deadline is None else max(0.0, deadline - self._clock()))
        return not thread.is_alive()

    def _start(self) -> None:
        with self._start_lock:
            if self._thread is None:
                thread = Thread(target=self._work, name=self._name, daemon=True)
                thread.start()
                self._thread = thread  # only now: a Ctrl-C may come before it is started

    def _is_chosen(self) -> bool:
        """Whether this thread does the work: another one may, if a Ctrl-C came when this one had just been started."""
        with self._start_lock:
            self._thread = self._thread or current_thread()
            return self._thread is current_thread()

    def _work(self) -> None:
        if not self._is_chosen():
            return
        while True:
            self._sleeper.acquire()
            try:
                while self._step():
                    pass
            except BaseException as error:  # noqa: BLE001 the thread goes on, whatever this is
                self._on_fault(f"a step of {self._name}", error, "the thread goes on")
            if self._closing:
                return
