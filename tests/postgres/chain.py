"""A chain of batches, each of which goes on from the one before: what is lost or applied twice shows in the store.

Batch ``n`` takes item ``n``, puts item ``n + 1``, adds entry ``n`` and sets the note to ``n``. Run as a program, with
the URL of a store and the seconds of a lease, it claims the worker and writes the chain until somebody stops it; it
says ``claimed``, then the number of each batch that was acknowledged, and at last ``fenced`` if it was.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from routilux.errors import StoreError, StoreFencedError, StoreUnknownError
from routilux.ports import Changes, ItemKey, NoteKey, Store
from routilux.store.postgres import PostgresStore
from routilux.testing.store_rows import changes, entry_row, item_row, worker_row
from tests.waiting import SECONDS

T = TypeVar("T")
PLACE = "parse.in"
NOTE = NoteKey("w", "state", "parse", "")


def beginning() -> Changes:
    return changes(workers=[worker_row()], items=[item_row(0)])


def link(number: int) -> Changes:
    return changes(
        taken=[ItemKey("w", PLACE, number)],
        items=[item_row(number + 1)],
        entries=[entry_row(number)],
        notes={NOTE: b"%d" % number},
    )


def length(store: Store) -> int:
    """How many batches are stored; all of them whole, once and in order, or AssertionError."""
    entries = store.entries("w", "log", "")
    number = len(entries)
    assert entries == [entry_row(n) for n in range(number)]
    assert store.items("w", PLACE) == [item_row(number)]
    assert store.notes("w") == ([(NOTE, b"%d" % (number - 1))] if number else [])
    return number


@dataclass
class Writer:
    """Writes as the runtime does: what is not stored is written again, what is unknown is found out."""

    store: Store
    refused: int = 0
    unknown: int = 0
    found: int = 0  # of the unknown ones

    def write(self, made: Changes) -> None:
        until = time.monotonic() + SECONDS
        while not self._stored(made, until):
            assert time.monotonic() < until, f"not stored within {SECONDS:.0f} s"

    def _stored(self, made: Changes, until: float) -> bool:
        try:
            self.store.write(made)
        except StoreFencedError:
            raise
        except StoreUnknownError:
            self.unknown += 1
            found = self._settled(until)
            self.found += found
            return found
        except StoreError:
            self.refused += 1
            return False
        return True

    def _settled(self, until: float) -> bool:
        return _answer(self.store.settle, until)

    def read(self) -> int:
        """The number of the last item."""
        return _answer(partial(self.store.tail, "w", PLACE), time.monotonic() + SECONDS)


def _answer(question: Callable[[], T], until: float) -> T:
    """Ask again while the server is away."""
    while True:
        try:
            return question()
        except StoreError:
            if time.monotonic() > until:
                raise


def main(url: str, lease_seconds: str) -> None:
    store = PostgresStore(url, lease_seconds=float(lease_seconds))
    store.claim("w")
    print("claimed", flush=True)
    writer, number = Writer(store), length(store)
    try:
        while True:
            writer.write(link(number))
            print(number, flush=True)
            number += 1
    except StoreFencedError:
        print("fenced", flush=True)
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
