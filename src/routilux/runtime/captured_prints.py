"""Hearing what logic prints."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import partial
from threading import get_ident, local
from typing import TYPE_CHECKING, Any, TextIO, cast

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
        with self._capture.first_to_hear() as first:
            written = self.stream.write(text)
        if first and isinstance(text, str):  # what else there is to write is a matter of the stream
            self._capture.keep(text)
        return written

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class _Turn(local):
    """Where two of these stand in one chain, the outer one hears for both."""

    depth = 0

    def __enter__(self) -> bool:
        self.depth += 1
        return self.depth == 1

    def __exit__(self, *raised: object) -> None:
        self.depth -= 1


class PrintCapture(Capture):
    def __init__(self) -> None:
        super().__init__()
        self._turn = _Turn()

    def first_to_hear(self) -> _Turn:
        return self._turn

    def keep(self, text: str) -> None:
        activation = self.activation()
        if activation is None:
            return
        line = (activation.routine_id, activation.key, activation.attempt, get_ident())
        record_of = partial(_record, activation, activation.node.worker.engine.driver.clock.time())
        for logs in logs_of(activation):
            logs.write(line, str.__str__(text), record_of)

    def _put_in_place(self) -> None:
        if sys.stdout is not None and not isinstance(sys.stdout, HeardOutput):
            sys.stdout = cast(TextIO, HeardOutput(sys.stdout, self))

    def _take_away(self) -> None:
        if isinstance(
            sys.stdout, HeardOutput
        ):  # else something else stands there now, and is not ours to remove
            sys.stdout = sys.stdout.stream


def _record(activation: LiveActivation, time: float, message: str) -> LoggedRecord:
    return LoggedRecord(time, "INFO", "print", message, activation.routine_id, activation.attempt)


CAPTURE = PrintCapture()
