"""What logic has logged or printed, as it is kept with a job."""

from __future__ import annotations

from typing import NamedTuple


class LoggedRecord(NamedTuple):
    """One thing that logic said, with a logger or with ``print``.

    ``time`` is in seconds since the epoch, ``level`` the name of the level, such as ``"WARNING"``. ``logger`` is
    the name of the logger; what was printed has ``"print"`` there and the level ``"INFO"``. ``message`` has its
    arguments filled in; of one that is longer than 16,384 characters the beginning is kept. ``attempt`` is 1 for the
    first run of the logic. ``traceback`` is that of ``log.exception()`` or ``exc_info=``, as text.
    """

    time: float
    level: str
    logger: str
    message: str
    routine_id: str
    attempt: int
    traceback: str | None = None
