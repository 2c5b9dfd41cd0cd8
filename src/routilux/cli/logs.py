"""What routines log, shown beside the progress of a run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from routilux.cli.command import Call

Aside: TypeAlias = Callable[[Callable[[], None]], None]


class _AboveProgress(logging.Handler):
    """Writes log lines to stderr, above what is drawn there. Called on the threads that run logic."""

    def __init__(self, aside: Aside) -> None:
        super().__init__()
        self._aside = aside
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        self._aside(lambda: print(text, file=sys.stderr, flush=True))


@contextmanager
def logs_shown(call: Call, aside: Aside) -> Iterator[None]:
    """Show what routines log, from info on; only warnings with ``-q``, everything with ``--debug``."""
    logger = logging.getLogger("routilux")
    handler = _AboveProgress(aside)
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if call.debug else logging.WARNING if call.quiet else logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before
