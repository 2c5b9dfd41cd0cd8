"""The feed: what happens in a runtime, as records for listeners.

Without listeners it costs nothing: the feed observes the runtime only while it has listeners. A slow listener loses
the oldest records, counted, and never holds anything up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from threading import Event, Lock
from types import TracebackType
from typing import Protocol

from routilux.model.checks import checked_timeout
from routilux.ports import Record, Row, RowObserver, record_of


class Observed(Protocol):
    """What a feed needs from a runtime."""

    def add_observer(self, observer: RowObserver) -> None: ...

    def remove_observer(self, observer: RowObserver) -> None: ...


class Listener:
    """The newest records since it was opened. Use it as a context manager, or call :meth:`close`."""

    def __init__(self, feed: Feed, limit: int) -> None:
        self._feed = feed
        self._rows: deque[Row] = deque(maxlen=limit)
        self._arrived = Event()
        self._sleeping = False
        self._seen = 0
        self.received = 0
        self.closed = False

    @property
    def missed(self) -> int:
        """Records that were lost because they were not taken in time."""
        return self.received - self._seen - len(self._rows)

    def take_row(self, row: Row) -> None:
        self.received += 1
        self._rows.append(row)
        if self._sleeping:
            self._arrived.set()

    def take(self, timeout: float | None = 0.0) -> list[Record]:
        """All records that are there, oldest first; waits up to ``timeout`` seconds for the first one."""
        if timeout != 0.0:
            self._wait(checked_timeout(timeout))
        records = []
        while self._rows:
            records.append(record_of(self._rows.popleft()))
        self._seen += len(records)
        return records

    def _wait(self, timeout: float | None) -> None:
        self._arrived.clear()
        self._sleeping = True  # from here on a record rings
        try:
            if not self._rows and not self.closed:
                self._arrived.wait(timeout)
        finally:
            self._sleeping = False

    def __iter__(self) -> Iterator[Record]:
        """Records as they come, until the listener or the runtime is closed."""
        while True:
            records = self.take(None)
            yield from records
            if self.closed and not records:
                return

    def close(self) -> None:
        self._feed.forget(self)

    def end(self) -> None:
        """Called by the feed: nothing comes any more."""
        self.closed = True
        self._arrived.set()

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Feed:
    """The monitor of a runtime: ``runtime.monitor.listen()``."""

    def __init__(self, runtime: Observed) -> None:
        self._runtime = runtime
        self._listeners: tuple[Listener, ...] = ()
        self._observer: RowObserver = self
        self._lock = Lock()
        self._closed = False

    def listen(self, limit: int = 10_000) -> Listener:
        """Keep at most ``limit`` records that have not been taken."""
        listener = Listener(self, limit)
        with self._lock:
            if self._closed:
                listener.end()
                return listener
            self._serve((*self._listeners, listener))
        return listener

    def forget(self, listener: Listener) -> None:
        with self._lock:
            self._serve(tuple(other for other in self._listeners if other is not listener))
        listener.end()

    def take_row(self, row: Row) -> None:
        for listener in self._listeners:
            listener.take_row(row)

    def _serve(self, listeners: tuple[Listener, ...]) -> None:
        """Observe the runtime for these: for one alone without a step in between."""
        before, self._listeners = self._listeners, listeners
        if before:
            self._runtime.remove_observer(self._observer)
        if listeners:
            self._observer = listeners[0] if len(listeners) == 1 else self
            self._runtime.add_observer(self._observer)

    def close(self) -> None:
        """The runtime has shut down."""
        with self._lock:
            self._closed = True
            listeners, self._listeners = self._listeners, ()
        for listener in listeners:
            listener.end()
