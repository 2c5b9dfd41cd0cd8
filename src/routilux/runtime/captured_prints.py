"""Hearing what logic prints."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from threading import get_ident, local
from typing import TYPE_CHECKING, Any, TextIO, cast

from routilux.model.context import running
from routilux.model.logged import LoggedRecord
from routilux.runtime.capture import Capture, logs_of

if TYPE_CHECKING:
    from routilux.runtime.activation import LiveActivation


class HeardOutput:
    """Stands in the place of ``sys.stdout``: everything goes on to it as it comes, and what logic writes is kept.

    Others may keep it for longer than a runtime lives, or wrap it, or put another one in front; it never holds
    anything back.
    """

    def __init__(self, stream: TextIO, capture: PrintCapture) -> None:
        self.stream = stream
        self._capture = capture

    def write(self, text: str) -> int:
        turn = self._capture.turn
        if turn.taken:
            return self.stream.write(text)
        turn.taken = True
        try:
            written = self.stream.write(text)
        finally:
            turn.taken = False
        if isinstance(text, str):  # what else there is to write is a matter of the stream
            self._capture.keep(text)
        return written

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class _Turn(local):
    """Where two of these stand in one chain, the outer one hears for both."""

    taken = False


class _Line:
    """What one thread prints in one attempt of an activation. Looked up once: logic prints in small pieces."""

    __slots__ = ("_activation", "attempt", "key", "logs")

    def __init__(self, activation: LiveActivation) -> None:
        self._activation = activation
        self.attempt = activation.attempt
        self.key = activation.routine_id, activation.key, activation.attempt, get_ident()
        self.logs = list(logs_of(activation))

    def record(self, message: str) -> LoggedRecord:
        activation = self._activation
        time = activation.node.worker.engine.driver.clock.time()
        return LoggedRecord(time, "INFO", "print", message, activation.routine_id, self.attempt)


class PrintCapture(Capture):
    def __init__(self) -> None:
        super().__init__()
        self.turn = _Turn()

    def keep(self, text: str) -> None:
        activation: Any = running.get()
        if activation is None:
            return
        line = None if activation.lines is None else activation.lines.get(get_ident())
        if line is None or line.attempt != activation.attempt:
            line = self._begun(activation)
            if line is None:
                return
        for logs in line.logs:
            logs.write(line.key, str.__str__(text), line.record)

    def _begun(self, activation: LiveActivation) -> _Line | None:
        """None if what it prints is not to be kept."""
        if self.activation() is None:
            return None
        line = _Line(activation)
        lines: dict[int, Any] = vars(activation).setdefault("lines", {})
        lines[get_ident()] = line
        return line

    def _put_in_place(self) -> None:
        if sys.stdout is not None and not isinstance(sys.stdout, HeardOutput):
            sys.stdout = cast(TextIO, HeardOutput(sys.stdout, self))

    def _take_away(self) -> None:
        if isinstance(
            sys.stdout, HeardOutput
        ):  # else something else stands there now, and is not ours to remove
            sys.stdout = sys.stdout.stream


CAPTURE = PrintCapture()
