"""What gates hold at the routines of a worker, and letting it go."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from routilux.kernel.mailbox import FULL, QUEUED

if TYPE_CHECKING:
    from routilux.model.item import Item
    from routilux.ports import Gate
    from routilux.runtime.activation import LiveActivation
    from routilux.runtime.nodes import Node
    from routilux.runtime.worker import Worker


class Gates:
    """Of one worker. ``activations`` are those that a gate holds; items that it holds are kept by their mailboxes.

    A gate may be taken away while it is asked: the caller that has put something behind it looks once more, and lets it
    go.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.activations: dict[LiveActivation, None] = {}

    def set_gate(self, node: Node, gate: Gate | None) -> None:
        """Ask this gate at a routine and its slots, or none (None); routes lead through it only while it is set."""
        node.mailbox.gate = gate
        entrance = self._worker.entrance(node.mailbox)
        node.set_offer(entrance if gate is None else partial(self._offer_through, gate, node, entrance))
        for source in self._worker.nodes.values():
            for routes in source.routes.values():
                for route in routes:
                    if route.mailbox is node.mailbox:
                        route.offer = node.offer
        if gate is None:
            self.let_go(node, everything=True)

    def let_go(self, node: Node, *, everything: bool) -> int:
        """Let go what a gate holds at a routine: activations first, then items; returns how much that was."""
        gone = self._let_activations_go(node, everything)
        if everything or not gone:
            gone += self._let_items_go(node, everything)
        self._worker.changed()
        return gone

    def _let_activations_go(self, node: Node, everything: bool) -> int:
        gone = 0
        for activation in [a for a in list(self.activations) if a.mailbox is node.mailbox]:
            if gone and not everything:
                return gone
            del self.activations[activation]
            activation.released = True
            if node.mailbox.go_on(activation):
                self._worker.schedule(node.mailbox)
            gone += 1
        return gone

    def _let_items_go(self, node: Node, everything: bool) -> int:
        worker, mailbox, gone = self._worker, node.mailbox, 0
        for slot in mailbox.slots:
            while (everything or not gone) and mailbox.held_item(slot) is not None:
                more, parked = mailbox.let_in(slot)
                for item in parked:
                    worker.at_rest(item[3].park())
                if parked:
                    worker.regathered(mailbox)
                if more:
                    worker.schedule(mailbox)
                gone += 1
        return gone

    def _offer_through(self, gate: Gate, node: Node, entrance: Callable[[Item], int], item: Item) -> int:
        worker = self._worker
        if not gate.holds_item(worker.worker_id, node.routine_id, item[1], item[2]):
            return entrance(item)
        held = worker.keep_at_gate(node.mailbox, item)
        if node.mailbox.gate is None:
            self.let_go(node, everything=True)
        return QUEUED if held else FULL
