"""What drives a runtime: locks, time, threads. The thread driver is the real one; a simulation brings its own.

Everything that the engine needs from the outside world comes through here, so that the same engine code runs
on threads and under a seeded simulation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Any, Protocol

from routilux.ports import Clock, TaskRunner, load
from routilux.runtime.attendant import Attendant, OnFault, Step
from routilux.runtime.book import unique_prefix
from routilux.runtime.pool import ThreadPool
from routilux.runtime.timers import Timers
from routilux.runtime.waiting import Signal, ThreadSignal

if TYPE_CHECKING:
    from routilux.kernel.locks import Lock as KernelLock
    from routilux.kernel.mailbox import Mailbox
    from routilux.runtime.pool import RunQueue

    # Only annotations name them, and a protocol takes long to make.
    class Cancellable(Protocol):
        def cancel(self) -> None: ...

    class Attending(Protocol):
        def wake(self) -> None: ...
        def close(self, deadline: float | None) -> bool: ...

    class Driver(Protocol):
        @property
        def clock(self) -> Clock: ...

        @property
        def quantum(self) -> float:
            """Seconds that a routine may keep a thread while others wait."""

        on_fault: OnFault
        """Told what has come out of a step on one of the driver's threads, which goes on: what it was, the exception,
        and what follows. The engine sets it."""

        def note_fault(self, error: BaseException) -> None:
            """A step of the engine that never raises has raised. It is logged already."""

        def may_follow(self, queue: RunQueue) -> bool:
            """Whether a thread may go on with another ready routine of the same worker."""

        def lock(self) -> KernelLock: ...
        def signal(self) -> Signal: ...
        def random(self) -> float: ...
        def unique(self) -> str: ...

        def start(self) -> None:
            """Begin to carry out what is submitted."""

        def submit(self, queue: RunQueue) -> None:
            """A worker has ready routines."""

        def submit_async(self, mailbox: Mailbox) -> None:
            """A routine with asynchronous logic is ready; its worker has no limit of activations."""

        def call_at(self, when: float, call: Callable[[], None]) -> Cancellable: ...

        def async_runner(self) -> TaskRunner:
            """Runs asynchronous logic."""

        def attendant(self, name: str, step: Step) -> Attending:
            """Calls ``step`` until it returns False, whenever woken."""

        def away(self) -> AbstractContextManager[None]:
            """Around a wait inside logic on the calling thread: another thread may work in its stead."""

        def running(self) -> list[Any]:
            """Every activation that runs now, in no order."""

        def on_loop(self) -> bool:
            """Whether the calling thread is the one of the event loop."""

        def runs_here(self, activation: Any, *, in_task: bool) -> bool:
            """Whether the calling thread, or the running task, is the one that this activation was handed to."""

        def leave_behind(self) -> None:
            """Called in a forked child: the thread that has forked ends with what it does, and takes no lock for it."""

        def close(self, deadline: float | None) -> bool:
            """Stop everything; False if something still ran at the deadline."""


class SystemClock:
    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)


def _unheard(who: str, error: BaseException, follows: str) -> None:
    return None


class ThreadDriver:
    """A pool of exactly ``size`` threads; one more for timers and one for the event loop when first needed."""

    quantum = 0.002
    lock = staticmethod(Lock)
    signal = staticmethod(ThreadSignal)
    unique = staticmethod(unique_prefix)

    def __init__(self, size: int, run: Callable[..., None], run_async: Callable[..., Any]) -> None:
        self.clock: Clock = SystemClock()
        self.on_fault: OnFault = _unheard
        self._pool = ThreadPool(size, run, self._fault)
        self._timers = Timers(self.clock.monotonic, self._fault)
        self._run_async = run_async
        self._loop: Any = None
        self._loop_lock = Lock()
        self.start = self._pool.start
        self.submit = self._pool.submit
        self.away = self._pool.away
        self.call_at = self._timers.call_at

    def note_fault(self, error: BaseException) -> None:
        return None

    def may_follow(self, queue: RunQueue) -> bool:
        return True

    def random(self) -> float:
        from random import random  # only a retry with jitter asks for it, and it is slow to import

        return random()

    def submit_async(self, mailbox: Mailbox) -> None:
        self._async_loop().submit(mailbox)

    def async_runner(self) -> TaskRunner:
        return self._async_loop()  # type: ignore[no-any-return]

    def attendant(self, name: str, step: Step) -> Attending:
        return Attendant(name, step, self.clock.monotonic, self._fault)

    def running(self) -> list[Any]:
        on_seats = [seat.activation for seat in list(self._pool.seats.values())]
        on_threads = [activation for activation in on_seats if activation is not None]
        return on_threads + (self._loop.activations() if self._loop is not None else [])

    def on_loop(self) -> bool:
        return self._loop is not None and self._loop.ident == get_ident()

    def runs_here(self, activation: Any, *, in_task: bool) -> bool:
        if self.on_loop():
            return (
                not in_task or activation is self._loop.activation_here()
            )  # else the whole loop stands still
        seat = self._pool.seats.get(get_ident())
        return not in_task and seat is not None and seat.activation is activation

    def leave_behind(self) -> None:
        self.on_fault = _unheard
        self._pool.leave_behind()
        if self._loop is not None:
            self._loop.leave_behind()

    def close(self, deadline: float | None) -> bool:
        self._timers.close()
        self._pool.close()
        left = self._pool.join(deadline, self.clock.monotonic)
        ended = self._loop is None or self._loop.close(deadline)
        return self._timers.join(deadline) and ended and not left

    def _async_loop(self) -> Any:
        if self._loop is None:
            with self._loop_lock:
                if self._loop is None:
                    self._loop = load("async runner")(self._run_async, self.clock.monotonic, self._fault)
        return self._loop

    def _fault(self, who: str, error: BaseException, follows: str) -> None:
        self.on_fault(who, error, follows)
