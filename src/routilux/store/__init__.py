"""Where workers, items and jobs are kept, and how a store is opened and operated.

``open_store`` gives the store that a URL names. ``look_into`` gives it to read, also while another process has it open.
``check``, ``export``, ``restore``, ``repair``, ``prune`` and ``cancel`` operate one without a runtime; ``examine``
tells all about it.
"""

from routilux.store.facts import Fact
from routilux.store.operate import (
    Problem,
    Repair,
    cancel,
    check,
    examine,
    export,
    export_lines,
    prune,
    read_export,
    repair,
    restore,
)
from routilux.store.urls import look_into, open_store, without_password

__all__ = [
    "Fact",
    "Problem",
    "Repair",
    "cancel",
    "check",
    "examine",
    "export",
    "export_lines",
    "look_into",
    "open_store",
    "prune",
    "read_export",
    "repair",
    "restore",
    "without_password",
]
