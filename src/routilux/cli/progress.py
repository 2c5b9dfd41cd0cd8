"""How a run is going, on stderr: lines that are redrawn on a terminal, else a line now and then, or nothing."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from threading import RLock
from time import monotonic
from typing import Final, Protocol

SECONDS_BETWEEN_LINES: Final = 2.0
_FEWEST_ROWS: Final = 4


class View(Protocol):
    """What can be told about a run."""

    def summary(self) -> str:
        """One line."""

    def details(self) -> list[str]:
        """A line for each routine."""


class Progress(Protocol):
    def tick(self) -> None:
        """Called some ten times a second."""

    def aside(self, act: Callable[[], None]) -> None:
        """Write something else, above what is drawn."""

    def end(self) -> None:
        """Leave nothing behind."""


class Silent:
    def tick(self) -> None:
        pass

    def aside(self, act: Callable[[], None]) -> None:
        act()

    def end(self) -> None:
        pass


class Lines(Silent):
    """A line every two seconds, if it says something new."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._last = ""
        self._next = monotonic() + SECONDS_BETWEEN_LINES

    def tick(self) -> None:
        now = monotonic()
        if now < self._next:
            return
        self._next = now + SECONDS_BETWEEN_LINES
        line = self._view.summary()
        if line != self._last:
            self._last = line
            print(line, file=sys.stderr, flush=True)


class Live:
    """A few lines that are drawn over themselves; they fit the terminal, whatever its size is by then.

    Threads that log write above them, so one lock holds for all that is drawn.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._drawn = 0
        self._lock = RLock()

    def tick(self) -> None:
        columns, rows = shutil.get_terminal_size()
        lines = [self._view.summary(), *self._view.details()]
        most = max(_FEWEST_ROWS, rows - 2)
        if len(lines) > most:
            lines = [*lines[: most - 1], f"  … and {len(lines) - most + 1} more"]
        text = "".join(f"{_cut(line, columns - 1)}\x1b[K\n" for line in lines)
        with self._lock:
            self._draw(f"{text}\x1b[J", len(lines))

    def aside(self, act: Callable[[], None]) -> None:
        with self._lock:
            self.end()
            act()

    def end(self) -> None:
        with self._lock:
            if self._drawn:
                self._draw("\x1b[J", 0)

    def _draw(self, text: str, lines: int) -> None:
        sys.stderr.write(self._up() + text)
        sys.stderr.flush()
        self._drawn = lines

    def _up(self) -> str:
        return f"\r\x1b[{self._drawn}A" if self._drawn else "\r"


def progress_of(view: View, *, quiet: bool) -> Progress:
    if quiet:
        return Silent()
    return Live(view) if sys.stderr.isatty() else Lines(view)


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else f"{line[: max(0, width - 1)]}…"
