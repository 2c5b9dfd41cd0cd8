"""The dead letters of the workers of a runtime, within a number for each worker and a number of bytes for all."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from sys import getsizeof
from threading import RLock

from routilux.model.item import DeadLetter
from routilux.runtime.sizes import estimated_size

LETTER = 1_000  # bytes of one without its data and the texts of its failure
LETTER_LIMIT = 10_000  # of a worker
LETTER_BYTES = 256 * 2**20  # of a runtime


class LetterRoom:
    """The dead letters of all workers in memory, oldest first, and what they may take."""

    def __init__(self, max_bytes: int) -> None:
        # The handler of a signal may shut down a runtime, which sets aside what is left.
        self.lock = RLock()
        self.max_bytes = max_bytes
        self.bytes = 0
        self._kept: OrderedDict[_Kept, None] = OrderedDict()

    def add(self, kept: _Kept) -> list[DeadLetter]:
        """Returns the oldest ones, which there is no room for any more. The caller holds the lock."""
        self._kept[kept] = kept.worker[kept] = None
        self.bytes += kept.size
        dropped = []
        if len(kept.worker) > LETTER_LIMIT:
            dropped.append(self.remove(next(iter(kept.worker))))
        while self.bytes > self.max_bytes and len(self._kept) > 1:
            dropped.append(self.remove(next(iter(self._kept))))
        return dropped

    def remove(self, kept: _Kept) -> DeadLetter:
        """The caller holds the lock."""
        del self._kept[kept], kept.worker[kept]
        self.bytes -= kept.size
        return kept.letter


class Letters:
    """The newest dead letters of a worker, oldest first. Safe from any thread.

    A letter is known by the number of its item: payloads are not compared, because not all of them can be.
    """

    def __init__(self, room: LetterRoom) -> None:
        self._room = room
        self._kept: OrderedDict[_Kept, None] = OrderedDict()
        self._forgotten = False

    def __iter__(self) -> Iterator[DeadLetter]:
        return iter(self.kept())

    def kept(self, deadline: float | None = None) -> list[DeadLetter]:
        """Those that are kept now. With a store, raises StoreError if it does not answer until the deadline."""
        with self._room.lock:
            return [kept.letter for kept in self._kept]

    def add(self, letter: DeadLetter) -> list[DeadLetter]:
        """Keep this one. Returns the oldest ones, of any worker, that there is no room any more."""
        kept = _Kept(letter, self._kept)
        with self._room.lock:
            return [] if self._forgotten else self._room.add(kept)  # what still ran in it has just ended

    def forget(self) -> None:
        """The worker is not known any more, and neither are its letters."""
        with self._room.lock:
            self._forgotten = True
            for kept in list(self._kept):
                self._room.remove(kept)

    def item_ids(self, deadline: float | None = None) -> set[int]:
        return {letter.item_id for letter in self.kept(deadline)}

    @contextmanager
    def taken_out(self, letter: DeadLetter, deadline: float | None = None) -> Iterator[bool]:
        """Whether it is there, and no other caller takes it out; then it is gone after the block, unless it raises."""
        with self._room.lock:
            found = next((kept for kept in self._kept if kept.is_free(letter)), None)
            if found is not None:
                found.claimed = True
        try:
            yield found is not None
        except BaseException:
            if found is not None:
                found.claimed = False
            raise
        if found is not None:
            with self._room.lock:
                if found in self._kept:  # else it was the oldest, and was dropped meanwhile
                    self._room.remove(found)


class _Kept:
    """A letter in its place; equal to nothing but itself."""

    __slots__ = ("claimed", "letter", "size", "worker")

    def __init__(self, letter: DeadLetter, worker: OrderedDict[_Kept, None]) -> None:
        self.letter = letter
        self.worker = worker  # all of its worker
        self.claimed = False  # moved under the lock
        self.size = (
            LETTER + estimated_size(letter.data) + getsizeof(letter.error) + getsizeof(letter.traceback)
        )

    def is_free(self, letter: DeadLetter) -> bool:
        return not self.claimed and self.letter.item_id == letter.item_id
