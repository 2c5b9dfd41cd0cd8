"""Hearing what logic logs, with whatever logger."""

from __future__ import annotations

import logging

from routilux.errors import describe, shown
from routilux.logs import ContextFilter
from routilux.model.logged import LoggedRecord
from routilux.runtime.capture import Capture, logs_of
from routilux.runtime.failures import FAILURES, LOGGER
from routilux.runtime.job_logs import LONGEST, cut
from routilux.tracebacks import formatted

_context = ContextFilter()
_OWN = frozenset((LOGGER, FAILURES, "routilux.store"))  # not routilux.routine: there routines log


class KeepingHandler(logging.Handler):
    """Stands first at the root logger, so that the handlers behind it find in each record where it comes from."""

    def __init__(self, capture: LogCapture) -> None:
        super().__init__()
        self._capture = capture

    def createLock(self) -> None:  # noqa: N802 the name is logging's
        """The arguments of a message are user code: no lock is held while they are formatted."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        _context.filter(record)
        self._capture.keep(record)
        if _is_alone(self, record):
            _last_resort(record)
        return True


class LogCapture(Capture):
    def __init__(self) -> None:
        super().__init__()
        self._handler = KeepingHandler(self)

    def keep(self, record: logging.LogRecord) -> None:
        activation = self.activation()
        if activation is None or record.name in _OWN:  # what the runtime says of it may come in its context
            return
        kept = LoggedRecord(
            activation.node.worker.engine.driver.clock.time(),
            record.levelname,
            record.name,
            _message(record),
            activation.routine_id,
            activation.attempt,
            _traceback(record),
        )
        for logs in logs_of(activation):
            logs.add(kept)

    def _put_in_place(self) -> None:
        handlers = logging.getLogger().handlers
        if self._handler not in handlers:
            handlers.insert(0, self._handler)

    def _take_away(self) -> None:
        logging.getLogger().removeHandler(self._handler)


def _message(record: logging.LogRecord) -> str:
    try:
        return cut(str.__str__(record.getMessage()))
    except Exception as error:  # noqa: BLE001 the message and its arguments are of the user
        return f"{shown(record.msg, LONGEST // 2)} (its arguments cannot be shown: {describe(error)})"


def _traceback(record: logging.LogRecord) -> str | None:
    error = record.exc_info[1] if record.exc_info else None
    text = formatted(error) if error is not None else record.stack_info
    return None if text is None else cut(text.rstrip("\n"))


def _is_alone(ours: logging.Handler, record: logging.LogRecord) -> bool:
    """Whether Python would find no handler for this record without ours."""
    root = logging.getLogger()
    if root.handlers != [ours]:
        return False
    logger = root.manager.loggerDict.get(record.name)
    while isinstance(logger, logging.Logger) and logger is not root:
        if logger.handlers:
            return False
        logger = logger.parent
    return True


def _last_resort(record: logging.LogRecord) -> None:
    """What Python does with a record that no handler takes: a warning appears on stderr."""
    if logging.lastResort is not None and record.levelno >= logging.lastResort.level:
        logging.lastResort.handle(record)


CAPTURE = LogCapture()
