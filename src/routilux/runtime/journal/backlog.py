"""What of each slot is in memory, what waits in the store, and how the one becomes the other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from routilux.ports import ItemKey

if TYPE_CHECKING:
    from routilux.kernel.mailbox import Mailbox, SlotQueue
    from routilux.model.item import Item
    from routilux.runtime.journal.record import Record
    from routilux.runtime.journal.worker import JournaledWorker
    from routilux.runtime.nodes import Node


class Stretch:
    """What of a slot is in memory: everything up to ``cursor``.

    When the worker was opened the store had items up to ``tail``; ``added`` counts those that went there since and are
    still to be loaded. Moved under the journal's lock.
    """

    __slots__ = ("added", "cursor", "loading", "tail")

    def __init__(self) -> None:
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

    def forget(self, kept: bool) -> None:
        """An item that was accounted for does not come."""
        self.added -= not kept


class Backlog:
    """Of the slots of one worker.

    Every item is in the store, and the next ones of each slot are in memory as well, as many as there is room for.
    Where some are not (``slot.beyond``), a new item of the slot has no place in memory before they have been loaded:
    nothing is overtaken. Only the committer loads. ``freed`` lets those go on who wait for room.
    """

    def __init__(self, worker: JournaledWorker, freed: Callable[[Mailbox], None]) -> None:
        self._worker = worker
        self._freed = freed
        self.stretches: dict[SlotQueue, Stretch] = {}
        self.claimed: set[ItemKey] = set()  # items in the store that an activation has

    def add_slots(self, node: Node) -> None:
        for slot in node.mailbox.slots.values():
            self.stretches[slot] = Stretch()

    @property
    def waits(self) -> bool:
        """Whether items of any slot wait in the store."""
        return any(slot.beyond for slot in self.stretches)

    @property
    def draws(self) -> bool:
        """Whether there is room for items that wait in the store."""
        return any(slot.draws for slot in self.stretches)

    # -- a place for a new item; the caller holds the journal's lock ------------------------------------------

    def place(self, record: Record, slot: SlotQueue, item: Item) -> bool | None:
        """Where an item goes: True to a place that is kept for it, False to the store, None nowhere."""
        mailbox = slot.mailbox
        kept = item[2] is not None and mailbox.keep_place(slot.name)
        if not kept and slot.on_full == "drop_new":
            mailbox.drop(slot.name)
            self._worker.dropped(item, slot, "slot full, newest dropped")
            return None
        if not kept and slot.on_full == "drop_old" and not slot.beyond:
            kept = self.displace(record, slot)
        self.stretches[slot].account_for(slot, item[0], kept)
        return kept

    def displace(self, record: Record, slot: SlotQueue) -> bool:
        """Make room by dropping the oldest; False if what is in the slot is still on its way."""
        worker = self._worker
        oldest, at_rest = slot.mailbox.displace(slot.name)
        if oldest is None:
            return False
        worker.dropped(oldest, slot, "slot full, oldest dropped")
        worker.endings.take(record, slot.mailbox, [oldest])
        record.then(partial(worker.settle, [oldest]))
        record.then(partial(worker.at_rest, at_rest))
        kept = slot.mailbox.keep_place(slot.name)
        if slot.mailbox.freed:
            record.then(partial(worker.room, slot.mailbox))
        return kept

    # -- loading ----------------------------------------------------------------------------------------------

    def load_if_room(self, slot: SlotQueue) -> None:
        stretch = self.stretches[slot]
        if stretch.loading or not slot.draws:
            return
        stretch.loading = True
        self._worker.journal.do(partial(self._load, slot))

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
        found = worker.journal.store.items(
            worker.worker_id, slot.qualified_name, after=stretch.cursor, limit=wanted
        )
        for row in found:
            if ItemKey(*row[:3]) not in self.claimed:
                worker.revival.item(slot, row)
            with worker.journal.lock:
                stretch.cursor = row.number
                stretch.added -= row.number > stretch.tail
        if self._is_all_here(slot):
            self._freed(slot.mailbox)
            if not self.waits:
                worker.revival.everything_is_here()
        elif len(found) == wanted:
            self.load_if_room(slot)

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
                    worker.revival.item(slot, row)
            if stretch.cursor < stretch.tail:
                slot.mailbox.set_beyond(slot.name, True)
        if not self.waits:
            worker.revival.everything_is_here()
