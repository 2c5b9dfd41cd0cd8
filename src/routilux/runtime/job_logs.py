"""What is kept of what the logic of one job has logged and printed."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable
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
        self._records: OrderedDict[int, LoggedRecord] = OrderedDict()
        self._open: dict[Hashable, int] = {}  # lines whose end has not been printed, and their records
        self._lines: dict[int, Hashable] = {}  # the other way round
        # What came to open lines since, and is not in their records yet.
        self._tails: dict[int, list[str]] = {}
        self._number = 0
        self._bytes = 0
        self._limit = LATE_BYTES if ended else MOST_BYTES
        self.dropped = 0

    def records(self) -> list[LoggedRecord]:
        """Oldest first."""
        with self._lock:
            self._put_tails()
            return list(self._records.values())

    def add(self, record: LoggedRecord) -> None:
        with self._lock:
            self._put(self._next_number(), record)

    def write(self, line: Hashable, text: str, record_of: Callable[[str], LoggedRecord]) -> None:
        """Make a record of each line of a text. The first goes on where the open ``line`` has stopped, and the last
        is left open unless it has ended."""
        with self._lock:
            if "\n" not in text:
                if text:
                    self._go_on(line, text, record_of)
                return
            *whole, rest = text.split("\n")
            for part in whole:
                self._go_on(line, part, record_of)
                number = self._open.pop(line, -1)
                self._lines.pop(number, None)
                self._put_tail(number)
            if rest:
                self._go_on(line, rest, record_of)

    def final_size(self) -> int:
        """Bytes, now that the job has ended. What is said from here on takes the place of what is older."""
        with self._lock:
            self._put_tails()
            self._limit = max(self._bytes, LATE_BYTES)
            return self._bytes + len(self._records) * RECORD_BYTES

    def _go_on(self, line: Hashable, part: str, record_of: Callable[[str], LoggedRecord]) -> None:
        number = self._open.get(line)
        if number is None:
            number = self._open[line] = self._next_number()
            self._lines[number] = line
            self._put(number, record_of(cut(part)))
        elif part:
            tail = self._tails.setdefault(number, [])
            tail.append(part)
            if len(tail) >= MOST_PARTS or len(part) > LONGEST_PART:
                self._put_tail(number)

    def _put_tails(self) -> None:
        for number in list(self._tails):
            self._put_tail(number)

    def _put_tail(self, number: int) -> None:
        """What came to a line goes into its record."""
        tail = self._tails.pop(number, None)
        if tail is not None:
            record = self._records[number]
            self._put(number, record._replace(message=cut("".join((record.message, *tail)))))

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _put(self, number: int, record: LoggedRecord) -> None:
        before = self._records.get(number)
        self._bytes += _size(record) - (0 if before is None else _size(before))
        self._records[number] = record
        while self._bytes > self._limit or len(self._records) > MOST_RECORDS:
            oldest, gone = self._records.popitem(last=False)
            self._bytes -= _size(gone)
            self.dropped += 1
            self._open.pop(self._lines.pop(oldest, None), None)
            self._tails.pop(oldest, None)


def cut(text: str) -> str:
    """The text itself, or its beginning if it is too long to be kept."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _size(record: LoggedRecord) -> int:
    return sys.getsizeof(record.message) + sys.getsizeof(record.traceback)
