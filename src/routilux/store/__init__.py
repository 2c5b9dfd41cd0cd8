"""Where workers, items and jobs are kept, and how a store is opened and operated.

``open_store`` gives the store that a URL names. ``check``, ``export``, ``restore``, ``repair`` and ``prune`` operate
one without a runtime.
"""

from routilux.store.operate import Problem, Repair, check, export, prune, read_export, repair, restore
from routilux.store.urls import open_store

__all__ = ["Problem", "Repair", "check", "export", "open_store", "prune", "read_export", "repair", "restore"]
