"""Snapshots in memory: the reference for every store."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import Any

from routilux.errors import InvalidTypeError, StoreError, refused, shown
from routilux.ports import Store
from routilux.store.codec import JsonCodec


class MemoryStore(Store):
    """Implements ``ports.Store``. Keeps snapshots encoded, so that nothing it gives back is shared."""

    def __init__(self) -> None:
        self._codec = JsonCodec()
        self._lock = Lock()
        self._snapshots: dict[str, bytes] | None = {}  # None: closed

    def put(self, worker_id: str, snapshot: Mapping[str, Any]) -> None:
        _check_id(worker_id)
        encoded = self._codec.encode(dict(snapshot), _where(worker_id))
        with self._lock:
            self._open()[worker_id] = encoded

    def get(self, worker_id: str) -> dict[str, Any] | None:
        with self._lock:
            encoded = self._open().get(worker_id)
        if encoded is None:
            return None
        snapshot: dict[str, Any] = self._codec.decode(encoded, _where(worker_id))
        return snapshot

    def worker_ids(self) -> list[str]:
        """In the order of their names."""
        with self._lock:
            return sorted(self._open())

    def delete(self, worker_id: str) -> None:
        """Forget a worker; nothing happens if the store does not know it."""
        with self._lock:
            self._open().pop(worker_id, None)

    def close(self) -> None:
        with self._lock:
            self._snapshots = None

    def _open(self) -> dict[str, bytes]:
        if self._snapshots is None:
            raise StoreError("the store is closed; open a new one")
        return self._snapshots


def _check_id(worker_id: object) -> None:
    if not isinstance(worker_id, str):
        raise refused(InvalidTypeError, "put()", worker_id, "a worker id, which is text")


def _where(worker_id: str) -> str:
    return f"snapshot of worker {shown(worker_id)}"
