"""Dead letters that are kept in the store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from routilux.model.item import DeadLetter
from routilux.runtime.journal import rows
from routilux.runtime.letters import Letters

if TYPE_CHECKING:
    from routilux.runtime.journal.worker import JournaledWorker


class StoredLetters(Letters):
    """Without a limit: they stay until they are put back or removed."""

    def __init__(self, worker: JournaledWorker) -> None:
        super().__init__(worker.engine.letter_room)
        self._worker = worker
        self._taken: dict[int, DeadLetter] = {}

    def __iter__(self) -> Iterator[DeadLetter]:
        journal = self._worker.journal
        self._worker.flush()
        found = journal.store.letters(worker_id=self._worker.worker_id)
        return iter([rows.letter_of(journal.codec, row) for row in found])

    @contextmanager
    def taken_out(self, letter: DeadLetter) -> Iterator[bool]:
        """The post that happens within the block takes the letter out of the store, in the same transaction."""
        mine = self._taken.setdefault(letter.item_id, letter) is letter and letter.item_id in self.item_ids()
        try:
            yield mine
        finally:
            if self._taken.get(letter.item_id) is letter:
                del self._taken[letter.item_id]
