"""Waiting for room in a full slot without standing in the way of what makes room.

An activation that waits for room sleeps, and holds up nothing: it lends its place in the worker, and its seat in the
pool, to what makes room. As soon as there is room it goes on, whatever runs meanwhile; nothing runs on top of it. The
wait ends with an error where nothing that could run would help.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from routilux.errors import DeadlockError, QueueFullError
from routilux.kernel.mailbox import FULL, Mailbox, SlotQueue
from routilux.model.context import running
from routilux.model.graph import cycle_path
from routilux.runtime import waiting_for
from routilux.runtime.pool import Place
from routilux.runtime.waiting import Condition, Signal

if TYPE_CHECKING:
    from routilux.runtime.activation import LiveActivation
    from routilux.runtime.worker import Worker


LONG_SECONDS = 5.0


class LongWait:
    """Says once what a long wait for room is for, and who is behind it; a wait that never sleeps arms nothing."""

    __slots__ = ("_slot", "_timer", "_worker")

    def __init__(self, worker: Worker, slot: SlotQueue) -> None:
        self._worker, self._slot = worker, slot
        self._timer: Any = None

    def begin(self) -> None:
        """The wait is about to sleep, perhaps not for the first time."""
        if self._timer is None:
            engine = self._worker.engine
            self._timer = engine.driver.call_at(engine.now() + LONG_SECONDS, self._tell)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self) -> None:
        worker, slot = self._worker, self._slot
        worker.engine.warn(
            f"a post or emit has waited {LONG_SECONDS:g} s for room in slot {slot.qualified_name!r}, which "
            f"holds at most {slot.capacity:,} items: {waiting_for.report(worker)}"
        )


class Waiter:
    """An activation that waits for room. ``offering``: it is about to go on, or to find that there is none."""

    __slots__ = ("activation", "offering", "place", "slot")

    def __init__(self, activation: LiveActivation | None, slot: SlotQueue, place: Place) -> None:
        self.activation = activation
        self.slot = slot
        self.place = place
        self.offering = True


class BackPressure:
    """Of one worker: who waits inside it for room, and whether any can come."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.blocked: dict[Waiter, None] = {}  # an activation may emit from several threads
        self._rooms = 0  # how often there was news of room; only ever grows

    # -- waiting -----------------------------------------------------------------------------------------------

    def wait_inside(
        self,
        slot: SlotQueue,
        offer: Callable[[], int],
        activation: LiveActivation | None,
        *,
        refused: Callable[[], object] | None = None,
        holds: Condition | None = None,
    ) -> None:
        """An activation needs room in a full slot: wait until the offer is taken; ``refused``: it will not be."""
        try:
            with self.wait_of(activation), self.away(activation, slot) as waiter:
                self.wait_for_room(slot, offer, None, waiter, inside=True, holds=holds)
        except BaseException:
            if refused is not None:
                refused()
            raise

    @contextmanager
    def wait_of(self, activation: LiveActivation | None) -> Iterator[None]:
        """Around a wait for room inside an activation: what a paused job keeps back may be what is in the way."""
        members = () if activation is None else activation.job.members
        if [member for member in members if member.begin_wait()]:
            self._worker.let_resumed_go()
        try:
            yield
        finally:
            for member in members:
                member.end_wait()

    def post(self, slot: SlotQueue, offer: Callable[[], int], deadline: float | None) -> int:
        """:meth:`wait_for_room` for an item from outside, which may come from inside some activation."""
        outer: Any = running.get()
        if outer is None:
            return self.wait_for_room(slot, offer, deadline)
        here = outer.node.worker is self._worker
        with outer.node.worker.back_pressure.away(outer, slot if here else None) as waiter:
            return self.wait_for_room(slot, offer, deadline, waiter)

    def wait_for_room(
        self,
        slot: SlotQueue,
        offer: Callable[[], int],
        deadline: float | None,
        waiter: Waiter | None = None,
        *,
        inside: bool = False,
        holds: Condition | None = None,
    ) -> int:
        """Offer an item until it is taken; returns the code of the offer.

        Raises DeadlockError (inside) or QueueFullError (outside) when nothing that runs could make room, and
        QueueFullError at the deadline.
        """
        worker, code = self._worker, FULL

        def taken() -> bool:
            nonlocal code
            if inside and waiter is not None:
                _check_wanted(waiter.activation)
            if worker.stopped:
                raise worker.full_error(slot, "its worker has stopped")
            if waiter is not None:
                waiter.offering = True
            code = offer()
            if code == FULL and waiter is not None:
                waiter.offering = False
                self._want_no_more(waiter.place)
            return code != FULL

        def give_up(signal: Signal) -> bool:
            if worker.stuck(inside=inside) and not signal.is_set():
                raise self.deadlock(slot, inside=inside)
            if worker.rest.waiting:
                worker.rest.ring()  # a drain does not wait for this one behind a pause or a gate
            long_wait.begin()
            return False

        def has_room() -> bool:
            return worker.stopped or not slot.crowded

        long_wait = LongWait(worker, slot)
        try:
            if not worker.bell.wait_for(taken, deadline, before_sleep=give_up, holds=holds or has_room):
                raise worker.full_error(slot, "no room came within the time-out")
        finally:
            long_wait.end()
        return code

    @contextmanager
    def away(self, activation: LiveActivation | None, slot: SlotQueue | None) -> Iterator[Waiter | None]:
        """Around a wait of an activation of this worker: others have its place and its seat.

        ``slot``: of this worker, that it waits for; None if it waits for something else.
        """
        worker, place = self._worker, Place(self._worker.queue)
        waiter = None if slot is None else Waiter(activation, slot, place)
        with worker.engine.driver.away():
            if waiter is not None:
                self.blocked[waiter] = None
            if place.lend():
                worker.engine.driver.submit(worker.queue)
            worker.bell.ring()  # a waiter that has lent its place, too, may have it back now
            try:
                yield waiter
            finally:
                if waiter is not None:
                    del self.blocked[waiter]
                self._take_back(place)

    def room(self, freed: tuple[SlotQueue, ...]) -> None:
        """There is room: who waits for it goes on before anything else starts in its place."""
        self._rooms += 1
        for waiter in list(self.blocked):
            if waiter.slot in freed:
                waiter.place.want()

    def _want_no_more(self, place: Place) -> None:
        if place.want_no_more():
            self._worker.engine.driver.submit(self._worker.queue)

    def _take_back(self, place: Place) -> None:
        """Logic goes on, with an error or without, when nobody runs in its place any more."""
        worker, queue = self._worker, self._worker.queue
        place.want()

        def free() -> bool:
            return worker.stopped or not queue.at_limit

        try:
            worker.bell.wait_for(lambda: worker.stopped or place.given_back(), None, holds=free)
        finally:
            place.take_back()
            self._want_no_more(place)

    # -- whether any can come ----------------------------------------------------------------------------------

    def help(self) -> bool:
        """Run what is ready inside an activation on this thread, the furthest downstream first; False if nothing is."""
        worker = self._worker
        outer: Any = running.get()
        in_place = outer.node.worker is worker
        nodes = reversed(worker.nodes.values())  # built upstream first
        ready = [node.mailbox for node in nodes if not node.detached and node.mailbox.has_work_now()]
        return any(worker.engine.run_nested(worker, mailbox, in_place=in_place) for mailbox in ready)

    def stuck(self, *, inside: bool) -> bool:
        """Whether nothing that runs or waits for a time can make room: only somebody from outside could.

        For an activation, ``inside``, a pause does not matter: what makes room for it may start all the same.

        Everything that runs waits inside ``emit()`` for a full slot, and nothing can be started. The mailboxes
        are looked at one after the other; if one has started something meanwhile, the picture is not valid.
        """
        worker = self._worker
        if worker.gates.activations or (worker.queue.held and not inside):
            return False
        mailboxes = [node.mailbox for node in worker.nodes.values()]
        if any(mailbox.keeps_back for mailbox in mailboxes):
            return False
        before = self._happened(mailboxes)
        running_now = sum(mailbox.running for mailbox in mailboxes)
        blocked = list(self.blocked)
        if running_now > len({waiter.activation for waiter in blocked}):
            return False
        if any(waiter.offering or not waiter.slot.crowded for waiter in blocked):
            return False
        if any(mailbox.startable() for mailbox in mailboxes):
            return False
        return before == self._happened(mailboxes)

    def _happened(self, mailboxes: list[Mailbox]) -> tuple[int, int]:
        return sum(mailbox.starts for mailbox in mailboxes), self._rooms

    def deadlock(self, slot: SlotQueue, *, inside: bool) -> QueueFullError | DeadlockError:
        worker = self._worker
        if not inside:
            return worker.full_error(
                slot, "nothing that runs could make room (its items wait for other items)"
            )
        path = cycle_path(worker.flow, slot.mailbox.routine_id) if slot.cyclic else None
        where = f"the cycle {path} is full" if path else f"slot {slot.qualified_name!r} is full"
        return DeadlockError(
            f"{where} ({slot.length} items) and nothing that runs could make room: its items wait for items that "
            "can not come any more. Emit fewer items per activation, or raise max_queue_length",
            flow_id=worker.flow.flow_id,
            slot=slot.qualified_name,
            worker_id=worker.worker_id,
        )


def _check_wanted(activation: LiveActivation | None) -> None:
    if activation is not None and (activation.abandoned is not None or activation.job.ended):
        raise activation.unwanted()
