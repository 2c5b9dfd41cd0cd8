"""What is said about failures: the first of a kind with its traceback, and of equal ones no more than can be read."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from threading import Lock, current_thread, main_thread
from typing import TYPE_CHECKING, Any, Final

from routilux.errors import describe, name_of
from routilux.tracebacks import formatted, innermost, is_a, of_user, place_of

if TYPE_CHECKING:
    from routilux.runtime.driver import Attending, Driver

LOGGER: Final = "routilux"
FAILURES: Final = "routilux.failures"
"""What jobs have in ``error`` and ``errors`` too: its own logger, so that it can be turned off alone."""
# As in ``logging``, which is imported when there is something to say: it is slow to import.
WARNING: Final = 30
ERROR: Final = 40
WRITTEN: Final = 10  # of each kind; those that follow are counted
PERIOD: Final = 60.0  # seconds between two lines that say how many there were
MOST_KINDS: Final = 1_000
PATIENCE: Final = 1.0  # seconds that the end of a runtime waits for a handler that takes its time
OTHERS: Final = "many different things failed"


class _Count:
    """Of the failures of one kind, told by one logger."""

    __slots__ = ("level", "untold", "written")

    def __init__(self) -> None:
        self.written = 0
        self.untold = 0  # since the last line that said how many there were
        self.level = WARNING


class FailureLog:
    """Writes failures to a logger, on the thread on which they happen. Safe from any thread.

    Of each kind the first 10 are written: the first one with its traceback, and so the first one at a higher level.
    Those that follow are counted, and a line a minute says how many they were, until a minute passes without any. It
    keeps 1,000 kinds; more of them count as one for each logger, with a traceback each.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._lock = Lock()
        self._counts: dict[tuple[str, str], _Count] = {}  # by logger and kind
        self._writer: Attending | None = None  # writes the lines that are due: a handler may take its time
        self._due = False  # the writer will be woken

    def tell(
        self,
        level: int,
        kind: str,
        message: Callable[[], str],
        error: BaseException | None = None,
        about: Mapping[str, Any] | None = None,
        *,
        logger: str = LOGGER,
    ) -> None:
        """Write a failure unless there were many of its kind, with the traceback of ``error`` if it is news.

        ``kind`` is what failures have in common that are equal for a reader, as a sentence: see :func:`failed_with`.
        ``message`` is only called if it is written.
        """
        written, news = self._written(logger, kind, level)
        if written <= WRITTEN:
            more = "; from now on failures like this are only counted" if written == WRITTEN else ""
            write(level, f"{message()}{more}", error, about, traced=news, logger=logger)

    def close(self) -> None:
        """Say what has only been counted so far; a handler that takes its time is not waited for."""
        if self._writer is not None:
            self._writer.close(self._driver.clock.monotonic() + PATIENCE)

    def _written(self, logger: str, kind: str, level: int) -> tuple[int, bool]:
        """How many of this kind there were with this one, as far as they are written; it counts the others.

        And whether this one is news: the first of its kind, or the first at so high a level.
        """
        with self._lock:
            if (logger, kind) not in self._counts and len(self._counts) >= MOST_KINDS:
                kind = OTHERS
            count = self._counts.setdefault((logger, kind), _Count())
            news = not count.written or level > count.level or kind == OTHERS
            count.level = max(count.level, level)
            if count.written < WRITTEN:
                count.written += 1
                return count.written, news
            count.untold += 1
            first, self._due = not self._due, True
        if first:
            self._wake_later()
        return WRITTEN + 1, False

    def _wake_later(self) -> None:
        if self._writer is None:
            self._writer = self._driver.attendant("routilux-log", self._step)
        self._driver.call_at(self._driver.clock.monotonic() + PERIOD, self._writer.wake)

    def _step(self) -> bool:
        if self._sum_up():
            self._wake_later()
        return False

    def _sum_up(self) -> bool:
        """Write a line for each kind of which some were only counted; whether to look again in a while."""
        lines = []
        with self._lock:
            for (logger, kind), count in list(self._counts.items()):
                if count.untold:
                    lines.append((count.level, f"{kind}: {count.untold:,} more times", logger))
                    count.untold = 0
                elif count.written == WRITTEN or len(self._counts) >= MOST_KINDS:
                    del self._counts[logger, kind]  # the next one is news again
            self._due = any(count.written == WRITTEN for count in self._counts.values())
        for level, line, logger in lines:
            write(level, line, about={"follows": "counted"}, logger=logger)
        return self._due


def failed_with(who: str, error: BaseException) -> str:
    """The kind of a failure: who failed, with what, and on which line."""
    place = place_of(error)
    return f"{who} failed with {name_of(error)}{f' at {place}' if place else ''}"


def write(
    level: int,
    message: str,
    error: BaseException | None = None,
    about: Mapping[str, Any] | None = None,
    *,
    traced: bool = True,
    logger: str = LOGGER,
) -> None:
    """Write to a logger of Routilux. A handler or filter that raises is told on stderr, as ``logging`` does it.

    ``about`` becomes attributes of the record, which stands at the line that failed and, if it is ``traced``, has the
    traceback of ``error``.
    """
    import logging

    to = logging.getLogger(logger)
    if not to.isEnabledFor(level):
        return
    place = None if error is None else innermost(error)
    file, line, name = __file__, 0, None
    if place is not None:
        code, line = place.tb_frame.f_code, place.tb_lineno
        file, name = code.co_filename, code.co_name
    trace = (type(error), error, of_user(error)) if error is not None and traced else None
    try:
        record = to.makeRecord(logger, level, file, line, _encodable(message), (), trace, name, about)
        if error is not None and traced:
            trace_text = (formatted(error) or describe(error)).rstrip("\n")
            record.exc_text = _encodable(trace_text)  # bounded, as logging's is not
        to.handle(record)
    except BaseException as raised:  # a handler or a filter: it never changes an outcome
        if not is_a(raised, Exception) and current_thread() is main_thread():
            raise  # the handler of a signal may have raised it, and wants to end the program
        if logging.raiseExceptions:
            _tell_as_logging_does(message)


def _tell_as_logging_does(message: str) -> None:
    import traceback

    try:
        sys.stderr.write(f"--- Logging error ---\nwhile this was logged: {message}\n")
        traceback.print_exc()
    except Exception:  # noqa: BLE001 stderr may be closed, and the exception is of the user
        pass


def _encodable(text: str) -> str:
    """Halves of surrogate pairs, as in a file name in Latin-1, are escaped: a handler that writes UTF-8 would raise."""
    return text.encode("utf-8", "backslashreplace").decode()
