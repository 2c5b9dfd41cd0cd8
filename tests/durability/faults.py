"""Faults that are planted into the program: each breaks one promise, and the kill loop has to see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from routilux.ports import Changes
from routilux.runtime.activation import LiveActivation
from routilux.runtime.journal.handover import Handover
from routilux.runtime.journal.log import Journal
from routilux.runtime.journal.reopening import Revival
from routilux.store.sqlite.store import SqliteStore


def acknowledge_before_commit() -> None:
    def hand_over_only(self: Journal, record: Any, hand_over: Callable[[], None], undo: Any = None) -> None:
        hand_over()
        self.wake()

    Journal.written_or_raise = hand_over_only  # type: ignore[method-assign]


def write_in_two_transactions() -> None:
    """First what is new, then what has ended: in between there is both."""
    write = SqliteStore.write

    def write_twice(self: SqliteStore, changes: Changes) -> frozenset[int]:
        taken, changes.taken = changes.taken, []
        counts, changes.counts = changes.counts, {}
        refused = write(self, changes)
        if not refused:
            rest = Changes()
            rest.taken, rest.counts = taken, counts
            write(self, rest)
        return refused

    SqliteStore.write = write_twice  # type: ignore[method-assign]


def take_the_key_from_the_attempt() -> None:
    key = LiveActivation.idempotency_key

    def with_attempt(self: Any) -> str:
        return f"{key.fget(self)}/{self.attempt}"  # type: ignore[misc]

    LiveActivation.idempotency_key = property(with_attempt)  # type: ignore[method-assign, assignment]


def forget_the_claims() -> None:
    """A batch that had been claimed is put together anew."""
    Revival._activation = lambda self, note, form, lost: None  # type: ignore[method-assign, assignment]


def forget_what_once_gave() -> None:
    opened = Revival.open

    def open_without(self: Any, row: Any) -> None:
        opened(self, row)
        self._worker.notes.onces.clear()

    Revival.open = open_without  # type: ignore[method-assign]


def deliver_without_writing() -> None:
    """What an activation has emitted is not in the store before it has been consumed."""
    address = Handover._address

    def unwritten(self: Any, draft: Any, activation: Any, record: Any, payloads: Any) -> Any:
        sent = address(self, draft, activation, record, payloads)
        record.items = ()
        return sent

    Handover._address = unwritten  # type: ignore[method-assign]


FAULTS: dict[str, Callable[[], None]] = {
    plant.__name__: plant
    for plant in (
        acknowledge_before_commit,
        write_in_two_transactions,
        take_the_key_from_the_attempt,
        forget_the_claims,
        forget_what_once_gave,
        deliver_without_writing,
    )
}
