"""Keeping with its job what logic says; how it is heard is a matter of the modules ``captured_logs`` and
``captured_prints``, which are loaded where they are wanted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from threading import RLock
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from routilux.model.context import running
from routilux.runtime.job import JobContext

if TYPE_CHECKING:
    from routilux.runtime.activation import LiveActivation
    from routilux.runtime.job_logs import JobLogs
    from routilux.runtime.runtime import Runtime


class Capture(ABC):
    """One for the process, in place while any runtime wants it. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = RLock()  # the handler of a signal may shut down a runtime
        self._runtimes: WeakSet[Runtime] = WeakSet()

    def begin(self, runtime: Runtime) -> None:
        """From here on keep what the logic of this runtime says."""
        with self._lock:
            self._runtimes.add(runtime)
            self._put_in_place()

    def refresh(self, runtime: Runtime) -> None:
        """Something else may have taken it away since, such as a configuration of logging."""
        with self._lock:
            if runtime in self._runtimes:
                self._put_in_place()

    def end(self, runtime: Runtime) -> None:
        """Calling it again does nothing."""
        with self._lock:
            self._runtimes.discard(runtime)
            if not self._runtimes:
                self._take_away()

    def end_in_child(self, runtime: Runtime) -> None:
        """The same in a forked child, where a thread of the parent may hold the lock for ever."""
        self._lock = RLock()
        self.end(runtime)

    def activation(self) -> LiveActivation | None:
        """The one that runs here, if what it says is to be kept."""
        activation: Any = running.get()
        if activation is None or activation.node.worker.runtime not in self._runtimes:
            return None
        return activation  # type: ignore[no-any-return]

    @abstractmethod
    def _put_in_place(self) -> None:
        """Begin to hear what is said, unless it does."""

    @abstractmethod
    def _take_away(self) -> None:
        """Leave everything as if it had never been there."""


def logs_of(activation: LiveActivation) -> Iterator[JobLogs]:
    """Those of each of its jobs that is not forgotten."""
    for member in activation.job.members:
        if isinstance(member.job, JobContext):
            yield member.job.logs_to_fill()
