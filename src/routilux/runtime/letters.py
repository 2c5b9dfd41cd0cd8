"""The dead letters of a worker."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from routilux.model.item import DeadLetter

LETTER_LIMIT = 10_000


class Letters:
    """The newest dead letters, oldest first. Safe from any thread.

    A letter is known by the number of its item: payloads are not compared, because not all of them can be.
    """

    def __init__(self) -> None:
        self._kept: deque[_Kept] = deque(maxlen=LETTER_LIMIT)

    def __iter__(self) -> Iterator[DeadLetter]:
        return iter([kept.letter for kept in list(self._kept)])

    @property
    def full(self) -> bool:
        return len(self._kept) == LETTER_LIMIT

    def add(self, letter: DeadLetter) -> None:
        """Keep this one; forget the oldest if it is one too many."""
        self._kept.append(_Kept(letter))

    def item_ids(self) -> set[int]:
        return {letter.item_id for letter in self}

    @contextmanager
    def taken_out(self, letter: DeadLetter) -> Iterator[bool]:
        """Whether it is there, and nobody else takes it out; then it is gone after the block, unless that raises."""
        found = next((kept for kept in list(self._kept) if kept.claim(letter)), None)
        try:
            yield found is not None
        except BaseException:
            if found is not None:
                found.claimed.release()
            raise
        if found is not None:
            try:
                self._kept.remove(found)
            except ValueError:
                pass  # it was the oldest, and was forgotten meanwhile


class _Kept:
    """A letter in its place; equal to nothing but itself."""

    __slots__ = ("claimed", "letter")

    def __init__(self, letter: DeadLetter) -> None:
        self.letter = letter
        self.claimed = Lock()

    def claim(self, letter: DeadLetter) -> bool:
        return self.letter.item_id == letter.item_id and self.claimed.acquire(False)
