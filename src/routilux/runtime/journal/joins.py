"""Joins by key whose items wait in the store: they are loaded by key when all others of their set are there.

Guarantees
    * A set of which every slot has an item is activated, whether its items are in memory or wait in the store. The
      oldest of each slot goes first.
    * A slot has at most its capacity of waiting items in memory, and as many again of complete sets.
    * An item is loaded once: by its number, when there is room for it, or by its key before that.

An item that goes to the store takes a note with it, whose name begins with a digest of its key. The note is removed
with the item. All loading happens on the committer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from routilux.errors import StoreError
from routilux.kernel.mailbox import PARKED, Mailbox, SlotQueue
from routilux.model.policy import AllSlotsReadyPolicy
from routilux.ports import ItemKey, ItemRow, NoteKey
from routilux.runtime.journal import rows
from routilux.runtime.journal.keys import digest_of
from routilux.runtime.journal.record import Record

if TYPE_CHECKING:
    from routilux.model.item import Item, Payload
    from routilux.runtime.journal.worker import JournaledWorker
    from routilux.runtime.nodes import Node

KIND = "item.join"
SLICE = 256  # notes or items that are looked at between two batches
AT_ONCE = 16  # notes of one key


class KeyOnly(dict[str, object]):
    """What is kept of a payload that goes to the store in any case: its join key."""

    @classmethod
    def of(cls, payload: Payload, by: str) -> KeyOnly:
        return cls({by: payload[by]})


class Found(NamedTuple):
    """An item of the store that would be joined."""

    slot: SlotQueue
    row: ItemRow
    item: Item


class Join:
    """A routine that joins by key, ``by`` "job" or a key of the payload. ``timed``: nothing parks in it.

    ``after`` is how far a search through all notes has come; None while there is none.
    """

    def __init__(self, mailbox: Mailbox, by: str, *, timed: bool) -> None:
        self.mailbox = mailbox
        self.by = by
        self.timed = timed
        self.slots = tuple(mailbox.slots.values())
        self.early: dict[SlotQueue, set[int]] = {
            slot: set() for slot in self.slots
        }  # loaded by key, not ended
        self.unnoted: dict[
            SlotQueue, int
        ] = {}  # slots whose items an older version has stored, and how far we are
        self.after: str | None = None
        self.again = False  # something may have been missed since the search has begun
        self.queued = False  # the committer will go on with it
        self.asked: deque[None] = deque()  # for searches, by other threads than the committer
        self.arrivals: deque[Item] = deque()  # whose partners are still to be looked for

    @property
    def reaches(self) -> bool:
        """Whether items of it wait in the store."""
        return any(slot.beyond for slot in self.slots)

    @property
    def crowded(self) -> bool:
        """Whether so many sets are complete that no more are loaded at the moment."""
        return any(len(early) >= slot.capacity for slot, early in self.early.items())

    @property
    def roomy(self) -> bool:
        """Whether so few complete sets are left that a search is worth going on with."""
        return all(len(early) <= slot.capacity // 2 for slot, early in self.early.items())

    def digest(self, item: Item) -> str:
        key = rows.job_ids_text(item[3]) if self.by == "job" else item[2][self.by]
        return digest_of(self.by, key)


class Joins:
    """Of one worker."""

    def __init__(self, worker: JournaledWorker) -> None:
        self._worker = worker
        self._joins: dict[Mailbox, Join] = {}
        # Nothing is written meanwhile, and the committer has nothing to do with the worker.
        self.opening = False
        self.notes: dict[ItemKey, NoteKey] = {}  # of items in memory that were loaded from the store

    def add(self, node: Node) -> None:
        policy = _keyed_policy(node.mailbox)
        if policy is not None and policy.by is not None:
            self._joins[node.mailbox] = Join(node.mailbox, policy.by, timed=policy.timeout is not None)

    def entrance(self, mailbox: Mailbox) -> Callable[[Item], int]:
        """How items get into a mailbox. What a join with a time-out takes does not park, which would tell of it."""
        policy = _keyed_policy(mailbox)
        if policy is None or policy.timeout is None:
            return mailbox.take_in
        return partial(self._take_in_timed, mailbox)

    def _take_in_timed(self, mailbox: Mailbox, item: Item) -> int:
        code = mailbox.take_in(item)
        self.entered(mailbox.slots[item[1]], item, code)
        return code

    def knows(self, mailbox: Mailbox) -> bool:
        """Whether partners of what a routine has are found in the store."""
        return mailbox in self._joins

    def of(self, mailbox: Mailbox) -> Join | None:
        """The join of a routine, if items of it wait in the store."""
        join = self._joins.get(mailbox)
        return join if join is not None and join.reaches else None

    def payload_key(self, slot: SlotQueue) -> str | None:
        """The payload key that a slot is joined by; None if it is not joined, or by job."""
        join = self._joins.get(slot.mailbox)
        return None if join is None or join.by == "job" else join.by

    @property
    def at_work(self) -> bool:
        """Whether sets may be complete that are still to be loaded."""
        return any(join.queued or join.asked or join.arrivals for join in self._joins.values())

    # -- items that go to the store, and come from there ------------------------------------------------------

    def note(self, slot: SlotQueue, item: Item) -> dict[NoteKey, bytes | None]:
        """What is written with an item that goes to the store."""
        join = self._joins.get(slot.mailbox)
        return {} if join is None else {self._note(join, slot, item): b""}

    def _note(self, join: Join, slot: SlotQueue, item: Item) -> NoteKey:
        name = _name(join.digest(item), item[0])
        return NoteKey(self._worker.worker_id, KIND, slot.qualified_name, name)

    def is_early(self, slot: SlotQueue, number: int) -> bool:
        """Whether an item was loaded by its key before."""
        join = self._joins.get(slot.mailbox)
        return join is not None and number in join.early[slot]

    def remember(self, slot: SlotQueue, item: Item) -> None:
        """An item comes from the store: its note goes when it does."""
        join = self._joins.get(slot.mailbox)
        if join is not None:
            if not _has_key(join, item):
                return
            key = ItemKey(self._worker.worker_id, slot.qualified_name, item[0])
            self.notes[key] = self._note(join, slot, item)

    def take(self, record: Record, mailbox: Mailbox, keys: Sequence[ItemKey]) -> None:
        """Items end by this record; the caller holds the journal's lock."""
        notes = {note: None for key in keys if (note := self.notes.pop(key, None)) is not None}
        if notes:
            record.notes = {**record.notes, **notes}
            record.then(partial(self._ended, mailbox, list(keys)))

    def _ended(self, mailbox: Mailbox, keys: Sequence[ItemKey]) -> None:
        """They are not in the store any more."""
        join = self._joins[mailbox]
        for key in keys:
            join.early[mailbox.slots[rows.split_place(key.place)[1]]].discard(key.number)
        if join.after is not None and join.roomy:
            self._go_on(join)

    # -- an item has arrived; on the committer ----------------------------------------------------------------

    def entered(self, slot: SlotQueue, item: Item, code: int) -> None:
        """An item is in memory, with what :meth:`Mailbox.take_in` has said: it may wait for one of the store."""
        join = self.of(slot.mailbox)
        if join is not None and (code == PARKED or (join.timed and slot.name in slot.mailbox.company(item))):
            self.arrived(slot, item)

    def arrived(self, slot: SlotQueue, item: Item) -> None:
        """An item is written, and waits in memory or in the store: load what makes its set complete.

        That happens when everything that is written has been delivered: what is older than a partner in the store may
        be on its way to a place in memory. Until then its job does not come to rest.
        """
        join = self.of(slot.mailbox)
        if join is None:
            return
        item[3].add()
        join.arrivals.append(item)
        if self.opening:
            self._look_for_partners(join)
        elif len(join.arrivals) == 1:
            self._worker.journal.do(partial(self._look_for_partners, join), self._worker)

    def _look_for_partners(self, join: Join) -> None:
        """Of what has arrived, between two batches; repeated from where it was if the store cannot be read."""
        worker, arrivals = self._worker, join.arrivals
        while arrivals:
            if join.reaches and not worker.stopped:
                self._complete(join, arrivals[0])
            worker.at_rest(arrivals.popleft()[3].remove())
        worker.caught_up()

    def _complete(self, join: Join, item: Item) -> bool:
        """Load and queue one set of the key of this item, if every slot has an item of it."""
        try:
            return self._completed(join, item)
        except StoreError:
            raise
        except BaseException as error:  # noqa: BLE001 from the class of a key
            who = f"a key of routine {join.mailbox.routine_id!r} of flow {self._worker.flow_id!r}"
            self._worker.engine.user_code_failed(who, error, "its item waits, and is not joined for now")
            return False

    def _completed(self, join: Join, item: Item) -> bool:
        there = join.mailbox.company(item)
        missing = [slot for slot in join.slots if slot.name not in there]
        if not missing or not all(slot.beyond for slot in missing):
            return False
        if join.crowded:
            self._begin(join)
            return False
        found: list[Found] = []
        for slot in missing:
            oldest = next(self._stored(join, slot, join.digest(item), item), None)
            if oldest is None:
                return False
            found.append(oldest)
        self._load(join, found)
        return True

    def _load(self, join: Join, found: Sequence[Found]) -> None:
        """Items that complete a set. Their jobs do not come to rest before all of them are there."""
        worker = self._worker
        for _, _, item in found:
            item[3].add()
        for slot, row, item in found:
            join.early[slot].add(row.number)
            worker.backlog.loaded_by_key(slot, row.number)
            worker.revival.queue(slot, item)
        for _, _, item in found:
            worker.at_rest(item[3].remove())

    def _stored(self, join: Join, slot: SlotQueue, digest: str, like: Item | None) -> Iterator[Found]:
        """Items of a key that wait in the store, oldest first; ``like``: only what would be joined with it."""
        worker, place = self._worker, slot.qualified_name
        after, before = _name(digest, worker.backlog.cursor(slot)), _end(digest)
        while True:
            notes = self._between(place, after, before, AT_ONCE)
            for row in self._rows(slot, notes):
                item = worker.revival.readable(row)
                if item is None or item[3].halted or worker.endings.is_poison(row):
                    continue  # it is dealt with where it is loaded by its number, or when its job goes on
                if like is None or join.mailbox.is_joined(like, item):
                    yield Found(slot, row, item)
            if len(notes) < AT_ONCE:
                return
            after = notes[-1].name

    def _rows(self, slot: SlotQueue, notes: Sequence[NoteKey]) -> list[ItemRow]:
        """The items of these notes that are not in memory. Notes of items that are gone are removed."""
        worker, early = self._worker, self._joins[slot.mailbox].early[slot]
        numbers = {_number(note): note for note in notes}
        keys = [ItemKey(worker.worker_id, note.owner, number) for number, note in numbers.items()]
        found = worker.journal.store.items_of([key for key in keys if key.number not in early])
        there = early.union(row.number for row in found)
        left = [note for number, note in numbers.items() if number not in there]
        if left:
            self._write(dict.fromkeys(left))
        return [row for row in found if ItemKey(*row[:3]) not in worker.backlog.claimed]

    def _between(self, place: str, after: str, before: str, limit: int) -> list[NoteKey]:
        worker = self._worker
        found = worker.journal.store.notes_between(
            worker.worker_id, KIND, place, after=after, before=before, limit=limit
        )
        return [note for note, _ in found]

    def _write(self, notes: dict[NoteKey, bytes | None]) -> None:
        record = Record(self._worker)
        record.notes = notes
        self._worker.journal.hand_over(record)

    # -- a search through everything; on the committer, some of it between two batches -------------------------

    def search(self, mailbox: Mailbox) -> None:
        """Sets may have become complete in another way than by the arrival of an item. From any thread."""
        join = self.of(mailbox)
        if join is not None:
            join.asked.append(None)
            self._worker.journal.do(partial(self._search, join), self._worker)

    def _search(self, join: Join) -> None:
        self._begin(join)
        join.asked.popleft()

    def _begin(self, join: Join) -> None:
        if join.after is not None:
            join.again = True
            return
        join.after = ""
        self._go_on(join)

    def _go_on(self, join: Join) -> None:
        if not join.queued:
            join.queued = True
            self._worker.journal.do(partial(self._step, join), self._worker)

    def _step(self, join: Join) -> None:
        worker = self._worker
        if worker.stopped or not join.reaches:
            join.after, join.again = None, False
        elif join.unnoted:
            self._note_slice(join)
            self._worker.journal.do(partial(self._step, join), self._worker)
            return
        elif join.after is not None and not join.crowded:
            self._search_slice(join)
            if join.after is not None and not join.crowded:
                self._worker.journal.do(partial(self._step, join), self._worker)
                return
        join.queued = False
        worker.caught_up()

    def _search_slice(self, join: Join) -> None:
        """Complete the sets of the next keys, in the order of their digests."""
        assert join.after is not None
        slices = {
            slot: self._between(slot.qualified_name, join.after, "~", SLICE)
            for slot in join.slots
            if slot.beyond
        }
        full = [_digest(notes[-1]) for notes in slices.values() if len(notes) == SLICE]
        digests = sorted({_digest(note) for notes in slices.values() for note in notes})
        if full and digests[0] < min(full):
            digests = [digest for digest in digests if digest < min(full)]
        elif full:
            digests = digests[:1]  # more than a slice of one key
        waiting: dict[str, list[Item]] = {}
        for item in join.mailbox.first_of_sets():
            waiting.setdefault(join.digest(item), []).append(item)
        for digest in digests:
            join.after = digest  # before all of its names
            self._complete_all(join, list(slices), digest, waiting.get(digest, ()))
            if join.crowded:
                return
            join.after = _end(digest)
        if not full:
            join.after = "" if join.again else None
            join.again = False

    def _complete_all(
        self, join: Join, beyond: Sequence[SlotQueue], digest: str, waiting: Sequence[Item]
    ) -> None:
        """Every set of a digest, which may be that of several keys."""
        for item in waiting:
            while not join.crowded and self._complete(join, item):
                pass
        if len(beyond) < len(join.slots):
            return  # every set has an item in memory
        for _, _, item in list(self._stored(join, beyond[0], digest, None)):
            if join.crowded:
                return
            self._complete(join, item)

    def forget_notes(self, place: str) -> None:
        """Nothing is joined at this place any more, or by another key."""
        after = ""
        while notes := self._between(place, after, "~", SLICE):
            self._write(dict.fromkeys(notes))
            after = notes[-1].name

    # -- what an older version has stored ----------------------------------------------------------------------

    def about(self) -> dict[str, dict[str, str]]:
        """What the worker's row says: by which key the notes of its joins are made."""
        by = {join.mailbox.routine_id: join.by for join in self._joins.values()}
        return {"joins": by} if by else {}

    def open(self) -> None:
        """Look for complete sets in the store, of which some may have no notes; when the heads have been loaded."""
        self.opening = False
        known = self._worker.about.pop("joins", {})
        self._worker.about.update(self.about())
        by = self._worker.about.get("joins", {})
        for routine_id in (routine_id for routine_id in known if known[routine_id] != by.get(routine_id)):
            node = self._worker.nodes.get(routine_id)
            for place in () if node is None else node.places.values():
                self.forget_notes(place)
        for join in self._joins.values():
            if known.get(join.mailbox.routine_id) != join.by:
                join.unnoted = {slot: self._worker.backlog.cursor(slot) for slot in join.slots if slot.beyond}
            self.search(join.mailbox)
        if known != self._worker.about.get("joins", {}) and not any(j.unnoted for j in self._joins.values()):
            self._worker.write_row()

    def _note_slice(self, join: Join) -> None:
        """Write the notes of the next items that have none, or others of another key."""
        worker = self._worker
        slot, after = next(iter(join.unnoted.items()))
        found = worker.journal.store.items(worker.worker_id, slot.qualified_name, after=after, limit=SLICE)
        items = [item for row in found if (item := worker.revival.readable(row)) is not None]
        notes = {self._note(join, slot, item): b"" for item in items if _has_key(join, item)}
        if notes:
            self._write(dict(notes))
        if len(found) == SLICE:
            join.unnoted[slot] = found[-1].number
            return
        del join.unnoted[slot]
        if not any(other.unnoted for other in self._joins.values()):
            worker.write_row()


def _keyed_policy(mailbox: Mailbox) -> AllSlotsReadyPolicy | None:
    """The policy of a routine that joins by key; with one slot every item is a set, and comes in its turn."""
    policy = mailbox.node.routine.effective_policy
    joins = isinstance(policy, AllSlotsReadyPolicy) and policy.by is not None and len(mailbox.slots) > 1
    return policy if joins else None


def _has_key(join: Join, item: Item) -> bool:
    return join.by == "job" or join.by in item[2]


def _name(digest: str, number: int) -> str:
    return f"{digest}:{max(number, 0):020}"


def _end(digest: str) -> str:
    """Behind all names of this digest."""
    return f"{digest};"


def _digest(note: NoteKey) -> str:
    return note.name.partition(":")[0]


def _number(note: NoteKey) -> int:
    return int(note.name.partition(":")[2])
