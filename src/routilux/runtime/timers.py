"""Timers: one thread, started with the first timer, that calls short functions when they are due."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from threading import Condition, Lock, Thread, current_thread

from routilux.runtime.attendant import OnFault


class Timer:
    """Something that is to happen at a time (monotonic seconds)."""

    __slots__ = ("call", "time")

    def __init__(self, time: float, call: Callable[[], None]) -> None:
        self.time = time
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """It will not be called, unless it is being called right now."""
        self.call = None


class Timers:
    def __init__(self, clock: Callable[[], float], on_fault: OnFault) -> None:
        self._clock = clock
        self._on_fault = on_fault
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = count()
        # Entered by itself: a Ctrl-C in the Python code by which a condition is entered would leave it locked.
        self._lock = Lock()
        self._changed = Condition(self._lock)
        self._thread: Thread | None = None
        self._closed = False

    def call_at(self, time: float, call: Callable[[], None]) -> Timer:
        timer = Timer(time, call)
        with self._lock:
            if self._closed:
                return timer
            heapq.heappush(self._heap, (time, next(self._order), timer))
            if self._thread is None:
                thread = Thread(target=self._run, name="routilux-timers", daemon=True)
                thread.start()
                self._thread = thread  # only now: a Ctrl-C may come before it is started
            elif self._heap[0][2] is timer:
                self._wake()
        return timer

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._heap.clear()
            self._wake()

    def join(self, deadline: float | None) -> bool:
        """Wait for the end of the thread; False if it still runs at the deadline."""
        thread = self._thread
        if thread is None or thread is current_thread():
            return True
        thread.join(None if deadline is None else max(0.0, deadline - self._clock()))
        return not thread.is_alive()

    def _wake(self) -> None:
        """Let the thread look anew; under the lock."""
        try:
            self._changed.notify()
        except BaseException:  # a Ctrl-C: the thread has something new to see all the same
            self._changed.notify()
            raise

    def _run(self) -> None:
        with self._lock:
            # A Ctrl-C may have come when it had just been started.
            self._thread = self._thread or current_thread()
            if self._thread is not current_thread():
                return
        while True:
            with self._lock:
                timer = self._next_due()
                if self._closed:
                    return
            call = timer.call if timer is not None else None
            if call is not None:
                try:
                    call()
                except BaseException as error:  # noqa: BLE001 the other timers are due all the same
                    self._on_fault("a timer", error, "the others go on")

    def _next_due(self) -> Timer | None:
        """Wait for the next timer that is due; under the lock."""
        while not self._closed:
            if not self._heap:
                self._changed.wait()
                continue
            remaining = self._heap[0][0] - self._clock()
            if remaining <= 0:
                return heapq.heappop(self._heap)[2]
            self._changed.wait(min(remaining, 3_600.0))
        return None
