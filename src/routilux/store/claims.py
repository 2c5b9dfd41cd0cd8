"""Which workers are run by a runtime of this process."""

from __future__ import annotations

from threading import Lock

from routilux.errors import StoreLockedError, shown


class Claims:
    """For a store that has one process: a worker has one runtime at a time."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._claimed: set[str] = set()

    def take(self, worker_id: str) -> None:
        with self._lock:
            if worker_id in self._claimed:
                raise StoreLockedError(
                    f"worker {shown(worker_id)} is run by another runtime with the same store; "
                    "shut that one down first",
                    worker_id=worker_id,
                )
            self._claimed.add(worker_id)

    def has(self, worker_id: str) -> bool:
        with self._lock:
            return worker_id in self._claimed

    def give_up(self, worker_id: str) -> None:
        with self._lock:
            self._claimed.discard(worker_id)
