"""What is kept of what the logic of one job has logged and printed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable
from sys import getsizeof
from threading import RLock
from typing import Final

from routilux.model.logged import LoggedRecord

MOST_RECORDS: Final = 1_000
MOST_BYTES: Final = 256 * 2**10  # of their texts
LATE_BYTES: Final = (
    4 * 2**10
)  # for what is said after the end of the job, whose size has been counted by then
LONGEST: Final = 16_384  # characters of a message
MOST_PARTS: Final = 32  # of a line, that are put together at once
LONGEST_PART: Final = 64  # characters of one that may wait for that
RECORD_BYTES: Final = 200  # that a record takes beside its texts


class JobLogs:
    """The newest records of a job, at most 1,000 of 256 KiB. Safe from any thread.

    ``ended``: the job has ended already, and logic of it goes on.
    """

    def __init__(self, *, ended: bool) -> None:
        # What logs may be a signal handler or a finalizer that comes in between on the same thread.
        self._lock = RLock()
        self._entries: OrderedDict[int, tuple[int, LoggedRecord | OpenLine]] = (
            OrderedDict()
        )  # with their bytes
        self._number = 0
        self._bytes = 0
        self._limit = LATE_BYTES if ended else MOST_BYTES
        self.dropped = 0

    def records(self) -> list[LoggedRecord]:
        """Oldest first."""
        with self._lock:
            return [
                entry.record() if isinstance(entry, OpenLine) else entry
                for _, entry in self._entries.values()
            ]

    def add(self, record: LoggedRecord) -> None:
        self.put(getsizeof(record.message) + getsizeof(record.traceback), record)

    def put(self, size: int, entry: LoggedRecord | OpenLine) -> int:
        """Keep it behind all others; its number."""
        with self._lock:
            self._number = number = self._number + 1
            self._entries[number] = size, entry
            self._bytes += size
            if self._bytes > self._limit or len(self._entries) > MOST_RECORDS:
                self._drop_oldest()
        return number

    def replace(self, number: int, size: int, entry: LoggedRecord | OpenLine) -> int:
        """Keep it in the place of the entry of this number, or behind all others if that was dropped; its number."""
        with self._lock:
            before = self._entries.get(number)
            if before is None:
                return self.put(size, entry)
            self._entries[number] = size, entry
            self._bytes += size - before[0]
            if self._bytes > self._limit:
                self._drop_oldest()
        return number

    def final_size(self) -> int:
        """Bytes, now that the job has ended. What is said from here on takes the place of what is older."""
        with self._lock:
            self._limit = max(self._bytes, LATE_BYTES)
            return self._bytes + len(self._entries) * RECORD_BYTES

    def _drop_oldest(self) -> None:
        while self._bytes > self._limit or len(self._entries) > MOST_RECORDS:
            _, (size, _) = self._entries.popitem(last=False)
            self._bytes -= size
            self.dropped += 1


class OpenLine:
    """A line whose end has not been printed. The parts that have come are put together when it is read."""

    __slots__ = ("_printer", "_time", "numbers", "parts")

    def __init__(self, printer: Printer, time: float, text: str) -> None:
        self._printer = printer
        self._time = time
        self.parts = [text]
        self.numbers: list[int] = []  # in the logs of the printer

    def record(self) -> LoggedRecord:
        text = "".join(self.parts)
        return self._printer.record(self._time, text if len(text) <= LONGEST else cut(text))


class Printer(ABC):
    """Makes a record of each line that one thread prints, in the logs of one or more jobs.

    A line that goes on after it was dropped as the oldest is kept again as the newest.
    """

    __slots__ = ("_line", "_logs", "_time")

    def __init__(self, logs: Iterable[JobLogs], time: Callable[[], float]) -> None:
        self._logs = tuple(logs)
        self._time = time
        self._line: OpenLine | None = None

    @abstractmethod
    def record(self, time: float, message: str) -> LoggedRecord: ...

    def write(self, text: str) -> None:
        """The first line goes on where the last one has stopped; what follows the last newline is left open."""
        if text == "\n":  # as print() ends a line
            self._end("")
        elif "\n" in text:
            *whole, text = text.split("\n")
            for part in whole:
                self._end(part)
            if text:
                self._begin(text)
        elif (line := self._line) is not None:
            parts = line.parts
            parts.append(text)
            if len(parts) > MOST_PARTS or len(text) > LONGEST_PART:
                self._put_together(line)
        elif text:
            self._begin(text)

    def _begin(self, text: str) -> None:
        self._line = line = OpenLine(self, self._time(), cut(text))
        size = getsizeof(text)
        for logs in self._logs:
            line.numbers.append(logs.put(size, line))

    def _end(self, text: str) -> None:
        line, self._line = self._line, None
        if line is None:
            record = self.record(self._time(), cut(text))
            for logs in self._logs:
                logs.add(record)
            return
        if text:
            line.parts.append(text)
        record = line.record()
        size = getsizeof(record.message)
        for number, logs in zip(line.numbers, self._logs, strict=True):
            logs.replace(number, size, record)

    def _put_together(self, line: OpenLine) -> None:
        count = len(line.parts)  # the handler of a signal may print more
        text = cut("".join(line.parts[:count]))
        line.parts[:count] = [text]
        size = getsizeof(text)
        line.numbers = [
            logs.replace(number, size, line) for number, logs in zip(line.numbers, self._logs, strict=True)
        ]


def cut(text: str) -> str:
    """The text itself, or its beginning if it is too long to be kept."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
