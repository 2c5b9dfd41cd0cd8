"""Where in a flow a log record comes from."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from routilux.model.context import running
from routilux.model.logged import LoggedRecord

if TYPE_CHECKING:
    from routilux.model.context import RunningActivation

__all__ = ["ContextFilter", "LoggedRecord", "labels"]

_OUTSIDE: Final[dict[str, Any]] = {
    "flow_id": "", "worker_id": "", "routine_id": "", "job_id": "", "job_ids": (), "attempt": 0,
}  # fmt: skip


def labels(activation: RunningActivation) -> dict[str, Any]:
    """What a log record says of the activation that it was made in."""
    job_ids = activation.job_ids
    return {
        "flow_id": activation.flow_id,
        "worker_id": activation.worker_id,
        "routine_id": activation.routine_id,
        "job_id": job_ids[0],
        "job_ids": job_ids,
        "attempt": activation.attempt,
    }


class ContextFilter(logging.Filter):
    """Gives each record ``flow_id``, ``worker_id``, ``routine_id``, ``job_id``, ``job_ids`` and ``attempt``.

    They are those of the activation that logs, in any of its threads and tasks that have its context. Outside of one
    the texts are empty, ``job_ids`` is ``()`` and ``attempt`` 0, so a format may name them always. What a record has
    already, from ``extra=`` or from another such filter, stays. It lets every record through. Add it to the handlers
    that are to show them, not to a logger, whose filters do not see what its children log::

        handler = logging.StreamHandler()
        handler.addFilter(ContextFilter())
        handler.setFormatter(logging.Formatter("%(levelname)s %(routine_id)s %(job_id)s: %(message)s"))
        logging.basicConfig(handlers=[handler])
    """

    def filter(self, record: logging.LogRecord) -> bool:
        activation, known = running.get(), vars(record)
        for name, value in (_OUTSIDE if activation is None else labels(activation)).items():
            known.setdefault(name, value)
        if known["job_id"] and not known["job_ids"]:  # a failure, which is told outside of the activation
            known["job_ids"] = (known["job_id"],)
        return True
