"""What routines log, shown beside the progress of a run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from routilux.cli.command import Call

Aside: TypeAlias = Callable[[Callable[[], None]], None]


class AboveProgress(logging.Handler):
    """Writes log lines to stderr, above what is drawn there. Called on the threads that run logic.

    Failed activations, and what is left at the end, are left to the report of the run, unless it is to be ``verbose``.
    """

    def __init__(self, *, verbose: bool) -> None:
        super().__init__()
        self.aside: Aside = lambda act: act()
        self._verbose = verbose
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(record, "follows") and not self._verbose:
            return
        text = self.format(record)
        self.aside(lambda: print(text, file=sys.stderr, flush=True))


@contextmanager
def logs_shown(call: Call) -> Iterator[AboveProgress]:
    """Show what routines log, from info on; only warnings with ``-q``, everything with ``--debug``.

    With ``-v`` or ``--debug`` each failed activation is shown as it happens.
    """
    logger = logging.getLogger("routilux")
    handler = AboveProgress(verbose=call.verbose or call.debug)
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if call.debug else logging.WARNING if call.quiet else logging.INFO)
    logger.propagate = False
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before
