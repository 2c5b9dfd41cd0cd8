"""What of each slot is in memory, what waits in the store, and how the one becomes the other."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from threading import current_thread, main_thread
from typing import TYPE_CHECKING

from routilux.errors import StoreError
from routilux.ports import ItemKey
from routilux.runtime.journal.joins import KeyOnly
from routilux.tracebacks import is_a

if TYPE_CHECKING:
    from routilux.kernel.mailbox import SlotQueue
    from routilux.model.item import Item
    from routilux.ports import ItemRow
    from routilux.runtime.journal.record import Record
    from routilux.runtime.journal.worker import JournaledWorker
    from routilux.runtime.nodes import Node


class Stretch:
    """What of a slot is in memory: everything up to ``cursor``.

    When the worker was opened the store had items up to ``tail``; ``added`` counts those that went there since and are
    still to be loaded. Moved under the journal's lock.

    Of a slot that drops its oldest, ``coming`` has what was emitted into it and is not delivered yet, by number:
    to deliver an item and to drop it are the same step, to take it out of there.
    """

    __slots__ = ("added", "coming", "cursor", "loading", "tail")

    def __init__(self, on_full: str) -> None:
        self.coming: OrderedDict[int, Item] | None = OrderedDict() if on_full == "drop_old" else None
        self.added = 0
        self.cursor = -1
        self.tail = -1
        self.loading = False

    @property
    def all_here(self) -> bool:
        return not self.added and self.cursor >= self.tail

    def account_for(self, slot: SlotQueue, number: int, kept: bool) -> None:
        """A new item of the slot: a place is kept for it, or it waits in the store."""
        if kept:
            self.cursor = number
            return
        self.added += 1
        if not slot.beyond:
            slot.mailbox.set_beyond(slot.name, True)

    def take_oldest_coming(self) -> Item | None:
        try:
            return self.coming.popitem(last=False)[1] if self.coming else None
        except KeyError:  # it has just been delivered
            return None

    def forget(self, kept: bool) -> None:
        """An item that was accounted for does not come."""
        self.added -= not kept


class Backlog:
    """Of the slots of one worker.

    Every item is in the store, and the next ones of each slot are in memory as well, as many as there is room for.
    Where some are not (``slot.beyond``), a new item of the slot has no place in memory before they have been loaded:
    nothing is overtaken. Only the committer loads.
    """

    def __init__(self, worker: JournaledWorker) -> None:
        self._worker = worker
        self.stretches: dict[SlotQueue, Stretch] = {}
        self.drops_oldest = False  # any of the slots does
        self.claimed: set[ItemKey] = set()  # items in the store that an activation has

    def add_slots(self, node: Node) -> None:
        for slot in node.mailbox.slots.values():
            self.stretches[slot] = stretch = Stretch(slot.on_full)
            self.drops_oldest = self.drops_oldest or stretch.coming is not None

    @property
    def waits(self) -> bool:
        """Whether items of any slot wait in the store."""
        return any(slot.beyond for slot in self.stretches)

    @property
    def expects(self) -> bool:
        """Whether a place is kept for an item that is on its way."""
        return any(slot.kept for slot in self.stretches)

    @property
    def draws(self) -> bool:
        """Whether items that wait in the store may come: there is room for them, or they complete sets."""
        return any(slot.draws for slot in self.stretches) or self._worker.joins.at_work

    # -- a place for a new item; the caller holds the journal's lock ------------------------------------------

    def place(self, record: Record, slot: SlotQueue, item: Item) -> bool | None:
        """Where an item goes: True to a place that is kept for it, False to the store, None nowhere."""
        mailbox, stretch = slot.mailbox, self.stretches[slot]
        payload = item[2]
        kept = payload is not None and type(payload) is not KeyOnly and mailbox.keep_place(slot.name)
        if not kept and slot.on_full == "drop_new":
            mailbox.drop(slot.name)
            self._worker.dropped(item, slot, "slot full, newest dropped")
            return None
        if stretch.coming is not None:
            if payload is None:  # enough newer ones come behind it
                mailbox.drop(slot.name)
                self._worker.dropped(item, slot, "slot full, oldest dropped")
                return None
            kept = kept or self.make_way(record, slot)
            if kept:
                stretch.coming[item[0]] = item
        stretch.account_for(slot, item[0], kept)
        return kept

    def make_way(self, record: Record, slot: SlotQueue) -> bool:
        """Drop the oldest of a full slot; whether its place is kept for the item that comes instead.

        It is not where that one has to queue in the store behind others, or where all that fills the slot is being
        posted, and may still be refused.
        """
        worker, mailbox, stretch = self._worker, slot.mailbox, self.stretches[slot]
        oldest, at_rest = mailbox.displace(slot.name, keep_place=not slot.beyond)
        if oldest is None and not slot.beyond and mailbox.keep_place(slot.name):
            return True  # the items that were here have started meanwhile
        if oldest is None:
            oldest = None if slot.beyond else stretch.take_oldest_coming()
            if oldest is None:
                return False
            record.displaces = True
            mailbox.drop(slot.name)
        worker.dropped(oldest, slot, "slot full, oldest dropped")
        worker.endings.take_unrun(record, mailbox, [oldest])
        record.then(partial(worker.settle, [oldest]))
        record.then(partial(worker.at_rest, at_rest))
        if mailbox.freed:
            record.then(partial(worker.room, mailbox))
        if slot.beyond:
            record.then(partial(self.load_if_room, slot))
        return not slot.beyond

    def arrives(self, slot: SlotQueue, item: Item) -> bool:
        """An item whose place was kept is written; False if another one has its place now."""
        coming = self.stretches[slot].coming
        return coming is None or coming.pop(item[0], None) is not None

    def cursor(self, slot: SlotQueue) -> int:
        """The number up to which everything is in memory."""
        return self.stretches[slot].cursor

    def loaded_by_key(self, slot: SlotQueue, number: int) -> None:
        with self._worker.journal.lock:
            stretch = self.stretches[slot]
            stretch.added -= number > stretch.tail

    # -- loading ----------------------------------------------------------------------------------------------

    def load_if_room(self, slot: SlotQueue) -> None:
        stretch = self.stretches[slot]
        if stretch.loading or not slot.draws:
            return
        stretch.loading = True
        self._worker.journal.do(partial(self._load, slot), self._worker)

    def load_all(self) -> None:
        """Where there is room, such as that of items which activations have claimed."""
        for slot in self.stretches:
            self.load_if_room(slot)

    def _load(self, slot: SlotQueue) -> None:
        """Bring the next items of a slot into memory, as many as there is room for. On the committer only."""
        worker, stretch = self._worker, self.stretches[slot]
        stretch.loading = False
        if worker.stopped:
            return
        wanted = slot.capacity - slot.length
        if wanted <= 0:  # sets that were complete have taken it
            return
        found = worker.journal.store.items(
            worker.worker_id, slot.qualified_name, after=stretch.cursor, limit=wanted
        )
        for row in found:
            early = worker.joins.is_early(slot, row.number)
            if not early and ItemKey(*row[:3]) not in self.claimed:
                self._revive(slot, row)
            with worker.journal.lock:
                stretch.cursor = row.number
                stretch.added -= row.number > stretch.tail and not early
        if len(found) < wanted:
            with worker.journal.lock:  # the last ones may have been loaded by their key
                stretch.cursor = max(stretch.cursor, stretch.tail)
        if self._is_all_here(slot):
            worker.room(slot.mailbox)
            if not self.waits:
                worker.revival.everything_is_here()
        elif len(found) == wanted:
            self.load_if_room(slot)

    def _revive(self, slot: SlotQueue, row: ItemRow) -> None:
        """Queue an item that has waited in the store; one that cannot be read any more is set aside."""
        try:
            self._worker.revival.item(slot, row)
        except StoreError:
            raise
        except BaseException as error:
            if not is_a(error, Exception) and current_thread() is main_thread():
                raise  # a Ctrl-C while the worker is opened
            self._worker.endings.set_rows_aside([row], "unreadable", error)

    def _is_all_here(self, slot: SlotQueue) -> bool:
        """Whether nothing of the slot waits in the store; then new items go to memory again."""
        with self._worker.journal.lock:
            all_here = self.stretches[slot].all_here
            if all_here and slot.beyond:
                slot.mailbox.set_beyond(slot.name, False)
        return all_here

    # -- opening ----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Bring the first items of every slot; what is behind them stays in the store for now."""
        worker, store = self._worker, self._worker.journal.store
        for slot, stretch in self.stretches.items():
            stretch.tail = store.tail(worker.worker_id, slot.qualified_name)
            head = store.items(worker.worker_id, slot.qualified_name, limit=slot.capacity)
            for row in head:
                stretch.cursor = row.number
                if ItemKey(*row[:3]) not in self.claimed:
                    self._revive(slot, row)
            if stretch.cursor < stretch.tail:
                slot.mailbox.set_beyond(slot.name, True)
        if not self.waits:
            worker.revival.everything_is_here()
