"""Hearing what logic prints."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from threading import get_ident, local
from typing import TYPE_CHECKING, Any, TextIO, cast
from weakref import WeakSet

from routilux.model.context import running
from routilux.model.logged import LoggedRecord
from routilux.runtime.capture import Capture, logs_of
from routilux.runtime.job_logs import Printer

if TYPE_CHECKING:
    from routilux.runtime.activation import LiveActivation

running_now = running.get


class HeardOutput:
    """Stands in the place of ``sys.stdout``: everything goes on to it as it comes, and what logic writes is kept.

    Others may keep it for longer than a runtime lives, or wrap it, or put another one in front; it never holds
    anything back.
    """

    def __init__(self, stream: TextIO, capture: PrintCapture) -> None:
        self.stream = stream
        self._capture = capture

    def write(self, text: str) -> int:
        capture = self._capture
        if capture.chained:
            if capture.turn.taken:
                return self.stream.write(text)
            written = self._write_in_turn(text)
        else:
            written = self.stream.write(text)
        activation: Any = running_now()
        if activation is None:
            return written
        if type(text) is not str:
            if not isinstance(text, str):  # what else there is to write is a matter of the stream
                return written
            text = str.__str__(text)
        printer = activation.printers.get(get_ident())
        if printer is None or printer.attempt != activation.attempt:
            printer = capture.begun(activation)
        if printer is not None:
            printer.write(text)
        return written

    def _write_in_turn(self, text: str) -> int:
        self._capture.turn.taken = True
        try:
            return self.stream.write(text)
        finally:
            self._capture.turn.taken = False

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class _Turn(local):
    """Where several of these stand in one chain, the outermost hears for all."""

    taken = False


class _Attempt(Printer):
    """What one thread prints in one attempt of an activation. Looked up once: logic prints in small pieces."""

    __slots__ = ("_activation", "attempt")

    def __init__(self, activation: LiveActivation) -> None:
        super().__init__(logs_of(activation), activation.node.worker.engine.driver.clock.time)
        self._activation = activation
        self.attempt = activation.attempt

    def record(self, time: float, message: str) -> LoggedRecord:
        return LoggedRecord(time, "INFO", "print", message, self._activation.routine_id, self.attempt)


class PrintCapture(Capture):
    def __init__(self) -> None:
        super().__init__()
        self.turn = _Turn()
        self._made: WeakSet[HeardOutput] = WeakSet()
        self.chained = False  # one was put in place while another was still in use, perhaps behind it

    def begun(self, activation: LiveActivation) -> _Attempt | None:
        """None if what it prints is not to be kept."""
        if self.activation() is None:
            return None
        printer = _Attempt(activation)
        printers: dict[int, Any] = vars(activation).setdefault("printers", {})
        printers[get_ident()] = printer
        return printer

    def _put_in_place(self) -> None:
        if sys.stdout is not None and not isinstance(sys.stdout, HeardOutput):
            self.chained = len(self._made) > 0
            heard = HeardOutput(sys.stdout, self)
            self._made.add(heard)
            sys.stdout = cast(TextIO, heard)

    def _take_away(self) -> None:
        if isinstance(
            sys.stdout, HeardOutput
        ):  # else something else stands there now, and is not ours to remove
            sys.stdout = sys.stdout.stream


CAPTURE = PrintCapture()
