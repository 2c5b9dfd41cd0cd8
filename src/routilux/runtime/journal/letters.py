"""Dead letters that are kept in the store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from routilux.errors import StoreError, StoreUnknownError
from routilux.model.item import DeadLetter
from routilux.ports import LetterRow
from routilux.runtime.journal import rows
from routilux.runtime.letters import Letters

if TYPE_CHECKING:
    from routilux.runtime.journal.worker import JournaledWorker


class StoredLetters(Letters):
    """Without a limit: they stay until they are put back or removed."""

    def __init__(self, worker: JournaledWorker) -> None:
        super().__init__(worker.engine.letter_room)
        self._worker = worker
        self._taken: dict[int, object] = {}  # who takes out the item of this number

    def kept(self, deadline: float | None = None) -> list[DeadLetter]:
        codec = self._worker.journal.codec
        return [rows.letter_of(codec, row) for row in self._rows(deadline)]

    def item_ids(self, deadline: float | None = None) -> set[int]:
        """No payload is read: one that cannot be read stands in no other's way."""
        return {row.number for row in self._rows(deadline)}

    def _rows(self, deadline: float | None) -> list[LetterRow]:
        journal = self._worker.journal
        try:
            self._worker.flush(deadline)
        except StoreUnknownError as error:  # what is unknown is not of who reads
            raise StoreError(
                f"the dead letters of worker {self._worker.worker_id!r} cannot be read: {journal.store.name} has not "
                "answered whether what came before is written"
            ) from error
        return journal.store.letters(worker_id=self._worker.worker_id)

    @contextmanager
    def taken_out(self, letter: DeadLetter, deadline: float | None = None) -> Iterator[bool]:
        """The post that happens within the block takes the letter out of the store, in the same transaction."""
        me = object()  # two callers may have the same letter
        if self._taken.setdefault(letter.item_id, me) is not me:
            yield False
            return
        try:
            yield letter.item_id in self.item_ids(deadline)
        finally:
            del self._taken[letter.item_id]
