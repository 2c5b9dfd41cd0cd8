"""Waiting for room in a full slot without standing in the way of what makes room.

Who waits inside an activation holds a thread, and perhaps the place that another activation needs. So the wait is
spent running what is ready, the furthest downstream first, or it lends its place; and it ends with an error where
nothing that could run would help.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from routilux.errors import DeadlockError, QueueFullError
from routilux.kernel.mailbox import FULL, Mailbox, SlotQueue
from routilux.model.context import running
from routilux.model.graph import cycle_path
from routilux.runtime import waiting_for
from routilux.runtime.pool import Place, Seat
from routilux.runtime.waiting import Lines, Signal, Waits, on_thread

if TYPE_CHECKING:
    from routilux.runtime.activation import LiveActivation
    from routilux.runtime.worker import Worker

T = TypeVar("T")


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


class BackPressure:
    """Of one worker: who waits inside it for room, and what can be done about it."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        # Who waits inside emit(), for which slot, on which seat. An activation may emit from several threads.
        self.blocked: dict[object, tuple[LiveActivation | None, SlotQueue, Seat]] = {}

    # -- waiting -----------------------------------------------------------------------------------------------

    def wait_inside(
        self,
        slot: SlotQueue,
        offer: Callable[[], int],
        activation: LiveActivation | None,
        *,
        refused: Callable[[], object] | None = None,
    ) -> None:
        """An activation needs room in a full slot: help until the offer is taken; ``refused``: it will not be."""
        worker, waiting = self._worker, object()
        place = Place(worker.queue)
        self.blocked[waiting] = (activation, slot, worker.engine.driver.seat())
        try:
            with self.wait_of(activation):
                on_thread(self._waits_for_room(slot, offer, None, activation, place, helps=True))
        except BaseException:
            if refused is not None:
                refused()
            raise
        finally:
            del self.blocked[waiting]
            on_thread(self._waits_for_place(place))

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

    def waits_to_post(
        self, slot: SlotQueue, offer: Callable[[], int], deadline: float | None, lines: Lines | None
    ) -> Waits[int]:
        """``post`` needs room in a full slot. Inside an activation, of whatever worker, it gives its place away.

        The loop of the runtime belongs to all asynchronous logic: what waits on it does not help.
        """
        outer: Any = running.get()
        helps = outer is not None and (lines is None or not self._worker.engine.driver.on_loop())
        waits = self._waits_for_room(slot, offer, deadline, None, None, helps=helps, lines=lines)
        with self._blocked_inside(outer, slot):
            return (yield from lending_its_place(waits))

    @contextmanager
    def _blocked_inside(self, outer: Any, slot: SlotQueue) -> Iterator[None]:
        """An activation of this very worker can make no room while it waits for some."""
        if outer is None or outer.node.worker is not self._worker:
            yield
            return
        waiting = object()
        seat = Seat() if outer.node.is_async else self._worker.engine.driver.seat()
        self.blocked[waiting] = (outer, slot, seat)
        try:
            yield
        finally:
            del self.blocked[waiting]

    def _waits_for_room(
        self,
        slot: SlotQueue,
        offer: Callable[[], int],
        deadline: float | None,
        activation: LiveActivation | None,
        place: Place | None,
        *,
        helps: bool,
        lines: Lines | None = None,
    ) -> Waits[int]:
        """Offer an item until it is taken; returns the code of the offer.

        On a thread that runs an activation the wait is spent running what makes room, so a pool of one thread
        can not lock itself out. What can not run on a thread is started in the place of the activation, which is
        not to go on before it has its place back. Raises DeadlockError (inside) or QueueFullError (outside) when
        nothing that runs could make room, and QueueFullError at the deadline.
        """
        worker, code = self._worker, FULL

        def taken() -> bool:
            nonlocal code
            if activation is not None and (activation.abandoned is not None or activation.job.ended):
                raise activation.unwanted()
            if worker.stopped:
                raise worker.full_error(slot, "its worker has stopped")
            code = offer()
            return code != FULL

        def help_or_give_up(signal: Signal) -> bool:
            if self._make_room(slot, place, on_thread=helps):
                return True
            inside = activation is not None
            if worker.stuck(inside=inside) and not signal.is_set():
                raise self.deadlock(slot, inside=inside)
            if worker.rest.waiting:
                worker.rest.ring()  # a drain does not wait for this one behind a pause or a gate
            long_wait.begin()
            return False

        def has_room() -> bool:
            return worker.stopped or not (slot.full if activation and worker.journaled else slot.crowded)

        long_wait = LongWait(worker, slot)
        waits = worker.bell.in_turn(
            lines, slot, taken, deadline, before_sleep=help_or_give_up, holds=has_room
        )
        try:
            if not (yield from waits):
                raise worker.full_error(slot, "no room came within the time-out")
        finally:
            long_wait.end()
        return code

    def away(self, waits: Waits[T]) -> Waits[T]:
        """Around a wait of an activation for what post() needs, in another worker perhaps."""
        place = Place(self._worker.queue)
        abandoned = False
        if self._worker.queue.limit is not None:
            self._offer_place(place)
        try:
            return (yield from waits)
        except GeneratorExit:
            abandoned = True
            raise
        finally:
            if abandoned:
                place.take_back()
            else:
                yield from self._waits_for_place(place)

    def _offer_place(self, place: Place) -> None:
        """Others may run in the place of who waits."""
        worker = self._worker
        if place.lend():
            worker.engine.driver.submit(worker.queue)
        worker.bell.ring()  # who waits for a place looks anew

    def _waits_for_place(self, place: Place) -> Waits[None]:
        """Logic goes on, with an error or without, when nothing runs in its place any more."""
        worker = self._worker
        try:
            yield from worker.bell.waits_for(
                lambda: worker.stopped or place.given_back(), None, holds=lambda: worker.stopped
            )
        finally:
            place.take_back()

    # -- what makes room ---------------------------------------------------------------------------------------

    def help(self) -> bool:
        """Run what is ready inside an activation on this thread, the furthest downstream first; False if nothing is."""
        outer: Any = running.get()
        return self._run_one(self._ready(), in_place=outer.node.worker is self._worker)

    def _make_room(self, slot: SlotQueue, place: Place | None, *, on_thread: bool) -> bool:
        """Run one thing that leads to room, here or in the place of who waits; False if there is none."""
        helpers = (
            self._helpers(slot) if on_thread and (place is not None or not self._worker.queue.held) else []
        )
        if on_thread and place is None:
            helpers += self._detached(slot)
        if place is None or not helpers or place.given_back():
            if self._run_one(helpers, in_place=place is not None):
                return True
        return place is not None and self._lend(place, slot)

    def _run_one(self, mailboxes: list[Mailbox], *, in_place: bool) -> bool:
        worker = self._worker
        return any(worker.engine.run_nested(worker, mailbox, in_place=in_place) for mailbox in mailboxes)

    def _helpers(self, slot: SlotQueue) -> list[Mailbox]:
        """What is ready and can be run on this thread while somebody on it waits for room in a slot.

        What leads to a routine that waits further down on this thread could come to wait for that one. So it is run
        only if room can come in no other way.
        """
        worker = self._worker
        consumers = worker.paths.beyond(slot.mailbox)
        before = sum(mailbox.starts for mailbox in consumers)
        seated = worker.engine.driver.seat().activations()
        below = {mailbox for activation in seated for mailbox in worker.paths.to(activation.mailbox)}
        ready = self._ready()
        safe = [mailbox for mailbox in ready if mailbox not in below]
        if safe or slot.length < slot.capacity or self._at_work(consumers, ready):
            return safe
        return ready if before == sum(mailbox.starts for mailbox in consumers) else []

    def _ready(self) -> list[Mailbox]:
        """What can be run on this thread, the furthest downstream first."""
        nodes = reversed(self._worker.nodes.values())  # built upstream first
        return [node.mailbox for node in nodes if not node.detached and node.mailbox.has_work_now()]

    def _detached(self, slot: SlotQueue) -> list[Mailbox]:
        """What makes room in a slot, and is started from a thread but does not run on it."""
        return [m for m in self._worker.paths.beyond(slot.mailbox) if m.node.detached and m.queued]

    def _lend(self, place: Place, slot: SlotQueue) -> bool:
        """What can not run on this thread may run in its place; True if something of it was started."""
        worker = self._worker
        if worker.queue.limit is None and not worker.queue.held:
            return False  # there is room for all
        launched = False
        for mailbox in self._detached(slot):
            if place.given_back():
                launched = worker.engine.launch(worker, mailbox)
                break
        if worker.queue.limit is not None and not place.lent:
            self._offer_place(place)
        return launched

    # -- whether any can come ----------------------------------------------------------------------------------

    def _at_work(self, consumers: Collection[Mailbox], risky: list[Mailbox]) -> bool:
        """Whether one of the consumers runs, and does not wait itself, or will start without help: of its own
        accord, or when a gate or a paused job lets it."""
        waiting = {a for a, _, _ in list(self.blocked.values()) if a is not None and a.mailbox in consumers}
        if sum(mailbox.running for mailbox in consumers) > len(waiting):
            return True
        if any(mailbox.keeps_back for mailbox in consumers):
            return True
        return any(mailbox.startable() for mailbox in consumers if mailbox not in risky)

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
        before = sum(mailbox.starts for mailbox in mailboxes)
        running_now = sum(mailbox.running for mailbox in mailboxes)
        blocked = list(self.blocked.values())
        if running_now > len({activation for activation, _, _ in blocked}):
            return False
        # Who waits below another on the same thread can not go on before that one does.
        on_top = {seat: slot for _, slot, seat in blocked}
        if any(slot.length < slot.capacity for slot in on_top.values()):
            return False
        if any(mailbox.startable() for mailbox in mailboxes):
            return False
        return before == sum(mailbox.starts for mailbox in mailboxes)

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


def lending_its_place(waits: Waits[T]) -> Waits[T]:
    """A wait that may happen inside an activation: then others run in its place meanwhile."""
    outer: Any = running.get()
    return waits if outer is None else outer.node.worker.back_pressure.away(waits)
