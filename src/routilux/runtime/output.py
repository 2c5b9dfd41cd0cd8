"""Where an execution's outputs go besides its output log."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from routilux.errors import InvalidTypeError

if TYPE_CHECKING:
    from queue import Queue


class OutputRecord(NamedTuple):
    """Something that a routine sent out with ``send_output``; ``time`` is seconds since the epoch."""

    time: float
    job_id: str
    routine_id: str
    output_type: str
    data: dict[str, Any]


class OutputHandler(Protocol):
    """Gets every output of an execution, on the thread of the routine that sent it."""

    def handle(self, output: OutputRecord) -> None: ...


class NullOutputHandler:
    """Takes everything and keeps nothing."""

    def handle(self, output: OutputRecord) -> None:
        return None


class CallbackOutputHandler:
    """Calls a function with each output."""

    def __init__(self, callback: Callable[[OutputRecord], Any]) -> None:
        if not callable(callback):
            raise InvalidTypeError(
                f"CallbackOutputHandler() got a {type(callback).__name__}; give a function that takes one OutputRecord"
            )
        self._callback = callback

    def handle(self, output: OutputRecord) -> None:
        self._callback(output)


class QueueOutputHandler:
    """Puts each output into a ``queue.Queue``: your own, or one without limit."""

    def __init__(self, queue: "Queue[OutputRecord] | None" = None) -> None:
        from queue import Queue  # only where outputs go into one

        self.queue: Queue[OutputRecord] = queue if queue is not None else Queue()

    def handle(self, output: OutputRecord) -> None:
        self.queue.put(output)

    def drain(self) -> list[OutputRecord]:
        """Everything that is in the queue now, oldest first."""
        from queue import Empty

        outputs = []
        while True:
            try:
                outputs.append(self.queue.get_nowait())
            except Empty:
                return outputs
