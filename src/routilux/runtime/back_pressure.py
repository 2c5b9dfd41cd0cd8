"""Waiting for room in a full slot without standing in the way of what makes room.

An activation that waits for room sleeps, and holds up nothing: it lends its place in the worker, and its seat in the
pool, to what makes room. As soon as there is room it goes on, whatever runs meanwhile; nothing runs on top of it. The
wait ends with an error where nothing that could run would help.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from routilux.errors import DeadlockError, QueueFullError, counted
from routilux.kernel.mailbox import FULL, Mailbox, SlotQueue
from routilux.model.context import running
from routilux.model.graph import cycle_path
from routilux.runtime import waiting_for
from routilux.runtime.directory import job_ended
from routilux.runtime.pool import Place
from routilux.runtime.waiting import Bell, Condition, Lines, Signal, Waits, on_thread

if TYPE_CHECKING:
    from routilux.runtime.activation import LiveActivation
    from routilux.runtime.engine import Engine
    from routilux.runtime.job import JobContext
    from routilux.runtime.worker import Worker

T = TypeVar("T")
LONG_SECONDS = 5.0


class LongWait:
    """Logs once that a wait for room is long; a wait that never sleeps arms nothing. ``about`` says what it is for."""

    __slots__ = ("_about", "_engine", "_timer")

    def __init__(self, engine: Engine, about: Callable[[], str]) -> None:
        self._engine, self._about = engine, about
        self._timer: Any = None

    def begin(self) -> None:
        """The wait is about to sleep, perhaps not for the first time."""
        if self._timer is None:
            self._timer = self._engine.driver.call_at(self._engine.now() + LONG_SECONDS, self._tell)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self) -> None:
        self._engine.warn(f"a post or emit has waited {LONG_SECONDS:g} s {self._about()}")


class Waiter:
    """An activation that waits for room: in a slot of its worker, in ``post()`` also of another one, or, where ``slot``
    is None, among the pending jobs of ``engine``. Either may be of another runtime.

    ``own``: it waits in the very thread or task in which its logic was started. ``in_turn``: it waits for nothing but
    room. ``offering``: it tries to have some, or has it.
    """

    __slots__ = ("activation", "call", "engine", "in_turn", "offering", "own", "place", "slot")

    def __init__(
        self,
        activation: LiveActivation | None,
        engine: Engine,
        slot: SlotQueue | None,
        place: Place,
        call: str,
        *,
        in_task: bool,
    ) -> None:
        self.activation = activation
        self.engine = engine
        self.own = activation is None or activation.waits_itself(in_task=in_task)
        self.slot = slot
        self.place = place
        self.call = call
        self.in_turn = False
        self.offering = False

    @property
    def home(self) -> Worker:
        """The worker of the activation."""
        return self.place.queue.worker  # type: ignore[no-any-return]

    @property
    def is_judged(self) -> bool:
        """Whether it may hear that none can come. Not in a thread or task beside the logic as long as that does not
        wait too: it may be what makes room."""
        if self.own:
            return True
        blocked = list(self.home.back_pressure.blocked)
        return any(other.own for other in blocked if other.activation is self.activation)

    @property
    def workers(self) -> list[Worker]:
        """The workers that are to make room: any of them may start a pending job."""
        if self.slot is None:
            return list(self.engine.workers.values())
        return [self.slot.mailbox.node.worker]

    @property
    def has_room(self) -> bool:
        """Whether there is room, though another may be faster to have it."""
        return not (self.engine.book.crowded if self.slot is None else self.slot.crowded)


class Poster:
    """Who waits in ``post()``: logic, of whatever runtime, or a caller from outside, where ``activation`` is None.

    ``turn`` ends the wait of a task for its turn.
    """

    def __init__(self, engine: Engine, slot: SlotQueue | None, lines: Lines | None) -> None:
        outer: Any = running.get()
        self.activation: LiveActivation | None = outer
        self.in_task = lines is not None
        self.turn = engine.driver.signal()
        self.waiter: Waiter | None = None
        if outer is not None:
            place = Place(outer.node.worker.queue)
            self.waiter = Waiter(outer, engine, slot, place, "post()", in_task=self.in_task)

    def check_goes_on(self) -> None:
        """Raise why the activation is not to go on, if so."""
        if self.activation is not None:
            _check_wanted(self.activation, in_task=self.in_task)
            worker: Worker = self.activation.node.worker
            worker.engine.directory.check_takes(worker)

    def waits(
        self, waits: Waits[T], bell: Bell, jobs: Iterable[JobContext] = (), *, room: bool = True
    ) -> Waits[T]:
        """Around a wait for this bell, which looks again when one of these jobs ends. Inside an activation it lends
        what that has, and looks again when that is not to go on. ``room``: it is what is waited for."""
        waiter, outer = self.waiter, self.activation
        if waiter is None or outer is None:
            with _woken_by_ends(jobs, bell, self.turn):
                return (yield from waits)
        home, jobs = waiter.home.back_pressure, [*jobs, *(member.job for member in outer.job.members)]
        with _woken_by_ends(jobs, bell, self.turn), home.blocks(waiter) if room else nullcontext():
            if self.in_task and waiter.own:
                bell.ring()  # another task of this logic may be the first in the line, and is judged from now on
            return (yield from home.away(waits, waiter.place, in_task=self.in_task))


class BackPressure:
    """Of one worker: who waits inside it for room, and whether any can come."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.blocked: dict[Waiter, None] = {}  # an activation may emit from several threads
        self._flushes = False  # a partial batch was released, for nothing else could make room
        self._doomed: Mailbox | None = None  # waits in front of a slot in which there will be no room
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
        """:meth:`waits_inside`, on this thread. ``refused`` is called where the offer will not be taken."""
        try:
            on_thread(self.waits_inside(slot, offer, activation, in_task=False, holds=holds))
        except BaseException:
            if refused is not None:
                refused()
            raise

    def waits_inside(
        self,
        slot: SlotQueue,
        offer: Callable[[], int],
        activation: LiveActivation | None,
        *,
        in_task: bool,
        holds: Condition | None = None,
    ) -> Waits[int]:
        """An activation needs room in a full slot: wait until the offer is taken."""
        waiter = Waiter(
            activation, self._worker.engine, slot, Place(self._worker.queue), "emit()", in_task=in_task
        )
        # Before its place is lent: no more than makes room runs there during a pause.
        waiter.in_turn = True
        wanted = partial(_check_wanted, activation, in_task=in_task)
        waits = self._waits_for_room(slot, offer, None, waiter, wanted, inside=True, holds=holds)
        waits = self._in_spite_of_pauses(activation, waits)
        with self.blocks(waiter):
            return (yield from self.away(waits, waiter.place, in_task=in_task))

    def _in_spite_of_pauses(self, activation: LiveActivation | None, waits: Waits[T]) -> Waits[T]:
        """A wait for room inside an activation: what a paused job keeps back may be what is in the way. No longer than
        until there is room: a wait for the place of the activation needs nothing to start."""
        members = () if activation is None else activation.job.members
        if [member for member in members if member.begin_wait()]:
            self._worker.let_resumed_go()
        try:
            return (yield from waits)
        finally:
            for member in members:
                member.end_wait()

    def waits_to_post(
        self,
        slot: SlotQueue,
        offer: Callable[[], int],
        job: JobContext,
        deadline: float | None,
        lines: Lines | None,
    ) -> Waits[int]:
        """``post`` needs room in a full slot for an item of a job. Inside an activation, of whatever worker, it lends
        what that has.

        ``lines``: of the event loop whose task posts, None for a thread. Raises also what makes the post pointless: its
        worker or runtime has stopped, its job has ended, or the activation that posts is not to go on.
        """
        worker, poster = self._worker, Poster(self._worker.engine, slot, lines)

        def wanted() -> None:
            poster.check_goes_on()
            worker.engine.directory.check_takes(worker)
            if job.account.ended:
                raise job_ended(job)

        waits = self._waits_for_room(
            slot, offer, deadline, poster.waiter, wanted, lines=lines, turn=poster.turn
        )
        return (yield from poster.waits(waits, worker.bell, [job]))

    @contextmanager
    def blocks(self, waiter: Waiter) -> Iterator[None]:
        """An activation of this very worker can make no room while it waits for some."""
        self.blocked[waiter] = None
        try:
            yield
        finally:
            del self.blocked[waiter]

    def _waits_for_room(
        self,
        slot: SlotQueue,
        offer: Callable[[], int],
        deadline: float | None,
        waiter: Waiter | None,
        wanted: Callable[[], None],
        *,
        inside: bool = False,
        lines: Lines | None = None,
        turn: Signal | None = None,
        holds: Condition | None = None,
    ) -> Waits[int]:
        """Offer an item until it is taken; returns the code of the offer.

        ``wanted`` raises when the wait is not to go on. ``inside``: for logic that emits. Raises DeadlockError (there,
        and in a ring of workers) or QueueFullError (for a post) when nothing that runs could make room, with a
        deadline only then; and QueueFullError at the deadline. ``turn`` also ends the wait of a task for its
        turn.
        """
        worker, code = self._worker, FULL

        def taken() -> bool:
            nonlocal code
            wanted()
            if worker.stopped:
                raise worker.engine.directory.not_running(worker)
            if waiter is not None:
                waiter.in_turn = waiter.offering = True
            code = offer()
            if code == FULL and waiter is not None:
                waiter.offering = False
                self._want_no_more(waiter.place)
            return code != FULL

        def give_up(signal: Signal) -> bool:
            # Activations hear first; and with a time-out it may be a caller from outside that makes room.
            judged = deadline is None and (not self.blocked if waiter is None else waiter.is_judged)
            if judged and self.stuck(inside=inside) and not signal.is_set():
                raise self.deadlock(slot, inside=inside)
            _tell_drains(worker.engine, waiter)
            long_wait.begin()
            return False

        def has_room() -> bool:
            return worker.stopped or not slot.crowded

        def about() -> str:
            return (
                f"for room in slot {slot.qualified_name!r}, which holds at most {slot.capacity:,} items: "
                f"{waiting_for.report(worker)}"
            )

        long_wait = LongWait(worker.engine, about)
        waits = worker.bell.in_turn(
            lines, slot, taken, deadline, before_sleep=give_up, holds=holds or has_room, turn=turn
        )
        try:
            if not (yield from waits):
                if self.stuck(inside=inside):
                    raise self.deadlock(slot, inside=inside)
                raise worker.full_error(slot, "no room came within the time-out")
        finally:
            long_wait.end()
        return code

    def away(self, waits: Waits[T], place: Place, *, in_task: bool) -> Waits[T]:
        """Around a wait of an activation of this worker: others have its place meanwhile.

        A thread lends its seat in the pool too. A task has none: its thread goes on with other tasks.
        """
        worker, abandoned = self._worker, False
        with nullcontext() if in_task else worker.engine.driver.away():
            if place.lend():
                worker.engine.driver.submit(worker.queue)
            worker.bell.ring()  # a waiter that has lent its place, too, may have it back now
            try:
                return (yield from waits)
            except GeneratorExit:
                abandoned = True
                raise
            finally:
                if not abandoned:
                    yield from self._waits_for_place(place)
                self._have_back(place)

    def _waits_for_place(self, place: Place) -> Waits[None]:
        """Logic goes on, with an error or without, when nothing runs in its place any more."""
        worker, queue = self._worker, self._worker.queue
        place.want()

        def free() -> bool:
            return worker.stopped or not queue.at_limit

        try:
            yield from worker.bell.waits_for(lambda: worker.stopped or place.given_back(), None, holds=free)
        finally:
            self._have_back(place)

    def _have_back(self, place: Place) -> None:
        """An activation goes on, whatever runs in its place."""
        place.take_back()
        self._want_no_more(place)

    def _want_no_more(self, place: Place) -> None:
        if place.want_no_more():
            self._worker.engine.driver.submit(place.queue)

    def room(self, freed: tuple[SlotQueue, ...]) -> None:
        """There is room: what waits for it goes on before anything else starts in its place."""
        self._rooms += 1
        for waiter in list(self.blocked):
            if waiter.slot in freed and waiter.in_turn:
                waiter.place.want()

    # -- whether any can come ----------------------------------------------------------------------------------

    def stuck(self, *, inside: bool, timeouts: bool = True) -> bool:
        """Whether nothing that runs or waits for a time can make room: only a caller from outside could.

        For an activation, ``inside``, a pause does not matter: what makes room for it may start all the same.
        ``timeouts``: to wait until incomplete sets are given up counts as a way to room.

        Everything that runs waits inside ``emit()`` or ``post()`` for a full slot, and nothing can be started: here,
        and in all workers whose room is waited for in that way. The mailboxes are looked at one after the other; if
        one has started something meanwhile, the picture is not valid.
        """
        workers = self.waited_for()
        before = [worker.back_pressure._happened() for worker in workers]  # noqa: SLF001
        for worker in workers:
            if not worker.stands_still(inside=inside and worker is self._worker, timeouts=timeouts):
                return False
        after = [worker.back_pressure._happened() for worker in workers]  # noqa: SLF001
        return before == after and workers == self.waited_for()

    def waited_for(self) -> list[Worker]:
        """This worker, the workers in whose slots its activations wait for room, those in whose slots theirs do, and
        so on."""
        found = [self._worker]
        for worker in found:
            for waiter in list(worker.back_pressure.blocked):
                found += [other for other in waiter.workers if other not in found]
        return found

    def stands_still(self, *, inside: bool, timeouts: bool) -> bool:
        """Whether nothing in this worker runs, apart from what waits for room, or can be started."""
        worker = self._worker
        if worker.stopped or worker.gates.activations or (worker.queue.held and not inside):
            return False
        if any(node.mailbox.keeps_back for node in worker.nodes.values()):
            return False
        startable = (node.mailbox.startable(timeouts=timeouts) for node in worker.nodes.values())
        return self.all_wait(own=True) and not any(startable)

    def all_wait(self, *, own: bool) -> bool:
        """Whether all that runs waits for room that is not there, and none is about to try.

        An activation does not end while one of its threads and tasks waits. ``own``: it makes no room either, which is
        known only when its logic itself waits.
        """
        running_now = sum(node.mailbox.running for node in self._worker.nodes.values())
        blocked = list(self.blocked)
        if any(waiter.has_room or waiter.offering for waiter in blocked):
            return False
        return running_now <= len({waiter.activation for waiter in blocked if waiter.own or not own})

    # -- where no logic waits, but routines cannot start ----------------------------------------------------------

    def judge(self) -> bool:
        """Nothing runs. Where items wait in front of a full slot in which there can be no room, the oldest are to
        fail, or, if their partners may be behind the slot's end, to start all the same; True if there are such items,
        or a partial batch was released.

        There can be none where :meth:`stuck` says so, no activation waits (it hears of it first), there is no partial
        batch (these are released first, one after the other, as in a drain), and all slots of the routine behind are
        full: while one has room, a post may still bring the partners of what is there. Where the partners may be behind
        the slot's end, the time-out of incomplete sets makes no room that is worth a wait: it gives up what has a
        partner.
        """
        worker = self._worker
        held_up = self._held_up()
        if held_up is None:
            worker.held_up = any(node.mailbox.waiting for node in worker.nodes.values())
            if self._flushes:
                self._flushes = False
                worker.end_flush()
            return False
        full = self._hopeless(held_up)
        beyond = full is not None and worker.takes_beyond(full.mailbox)
        if worker.stopped or self.blocked or not self.stuck(inside=False, timeouts=not beyond):
            return False
        if worker.flush_one():
            self._flushes = True
            return True
        if beyond:
            starts = held_up.let_pass()
        else:
            self._doomed = held_up
            starts = held_up.look_again()
        if starts:
            worker.schedule(held_up)
        return starts

    def verdict_on(self, mailbox: Mailbox) -> DeadlockError | None:
        """On the turn of a routine that waits for room: what its oldest items fail with, if none can come."""
        if self._doomed is not mailbox:
            return None
        self._doomed = None
        worker = self._worker
        full = self._hopeless(mailbox)
        if full is None or worker.stopped or self.blocked or not self.stuck(inside=False):
            return None
        return self._deadlock(full)

    def _held_up(self) -> Mailbox | None:
        """The routine furthest downstream that could start if there were room, of which there can be none."""
        mailboxes = [node.mailbox for node in reversed(self._worker.nodes.values())]  # built upstream first
        return next((mailbox for mailbox in mailboxes if mailbox.held_up and self._hopeless(mailbox)), None)

    def _hopeless(self, mailbox: Mailbox) -> SlotQueue | None:
        """A full slot that this routine feeds, and into none of whose neighbours another item could come.

        With a store, of the routines with several slots only those count that find partners beyond their full slots.
        """
        worker = self._worker
        for slot in mailbox.feeds:
            neighbours = slot.mailbox.slots.values()
            if slot.full and all(other.crowded for other in neighbours):
                if len(neighbours) == 1 or not worker.journaled or worker.takes_beyond(slot.mailbox):
                    return slot
        return None

    def _happened(self) -> tuple[int, int]:
        return sum(node.mailbox.starts for node in self._worker.nodes.values()), self._rooms

    def deadlock(self, slot: SlotQueue, *, inside: bool) -> QueueFullError | DeadlockError:
        worker = self._worker
        path = self._path(slot)
        if path and len(self.waited_for()) > 1:
            return DeadlockError(
                f"slot {slot.qualified_name!r} of flow {worker.flow_id!r} is full ({slot.length} items) and nothing "
                f"that runs could make room: {path}. Post fewer items per activation, or raise max_queue_length",
                flow_id=worker.flow_id,
                slot=slot.qualified_name,
                worker_id=worker.worker_id,
            )
        if not inside:
            fix = "Post fewer items per activation, or give it a larger max_queue_length"
            if not path:
                fix = "Post what its items wait for, or give its policy a timeout, or it a larger max_queue_length"
            why = path or waiting_for.in_slot(worker, slot)
            return worker.full_error(slot, f"nothing that runs could make room ({why})", fix)
        return self._deadlock(slot)

    def _path(self, slot: SlotQueue) -> str:
        """Who waits for whom from this slot on; empty where nothing that runs waits for room."""
        steps: list[tuple[Worker, str, str]] = []
        seen = [slot]
        while True:
            worker: Worker = seen[-1].mailbox.node.worker
            blocked = list(worker.back_pressure.blocked)
            waiters = {w.activation.mailbox: w for w in blocked if w.activation and w.slot}
            if not waiters:
                break
            waiter = waiters.get(seen[-1].mailbox) or next(iter(waiters.values()))
            routine_id = next(mailbox.routine_id for mailbox, one in waiters.items() if one is waiter)
            steps.append((worker, routine_id, waiting_for.wait_of(waiter)))
            if waiter.slot is None or waiter.slot in seen:
                break
            seen.append(waiter.slot)
        several = len({worker for worker, _, _ in steps}) > 1
        return ", and ".join(
            f"{routine_id} of worker {worker.worker_id!r} {waits}" if several else f"{routine_id} {waits}"
            for worker, routine_id, waits in steps
        )

    def _deadlock(self, slot: SlotQueue) -> DeadlockError:
        worker = self._worker
        if any(item[1] == slot.name for item in slot.mailbox.look().gathered):
            why = f"its items wait for items that cannot come any more ({waiting_for.in_slot(worker, slot)})"
        else:
            why = self._path(slot) or waiting_for.in_slot(worker, slot)
        path = cycle_path(worker.flow, slot.mailbox.routine_id) if slot.cyclic else None
        where = f"the cycle {path} is full" if path else f"slot {slot.qualified_name!r} is full"
        return DeadlockError(
            f"{where} ({counted(slot.length, 'item')}) and nothing that runs could make room: {why}. Emit fewer items "
            "per activation, or raise max_queue_length",
            flow_id=worker.flow.flow_id,
            slot=slot.qualified_name,
            worker_id=worker.worker_id,
        )


def _check_wanted(activation: LiveActivation | None, *, in_task: bool) -> None:
    """What async logic has emitted leaves its outbox although the logic has taken too long."""
    if activation is None:
        return
    if activation.job.ended or (activation.abandoned is not None and not in_task):
        raise activation.unwanted()


def waits_to_create(
    engine: Engine,
    create: Callable[[], bool],
    deadline: float | None,
    lines: Lines | None,
    about: Callable[[], str],
) -> Waits[bool]:
    """``post`` needs room among the pending jobs of a runtime; False at the deadline.

    ``create`` is called until it answers True; ``about`` says what a long wait is for. Inside an activation, of
    whatever runtime, it raises QueueFullError where nothing that runs could start one of them, and what ends the
    activation.
    """
    poster, long_wait = Poster(engine, None, lines), LongWait(engine, about)
    waiter = poster.waiter

    def created() -> bool:
        poster.check_goes_on()
        if waiter is None:
            return create()
        waiter.offering = True
        waiter.offering = create()
        return waiter.offering

    def give_up(signal: Signal) -> bool:
        if waiter is not None:
            if waiter.is_judged and waiter.home.back_pressure.stuck(inside=True) and not signal.is_set():
                raise engine.book.full_error("nothing that runs could start one of them")
            _tell_drains(engine, waiter)
        long_wait.begin()
        return False

    def bells() -> list[Bell]:
        return [] if waiter is None else [worker.bell for worker in [waiter.home, *waiter.workers]]

    waits = engine.bell.in_turn(
        lines,
        engine.book,
        created,
        deadline,
        before_sleep=give_up,
        holds=engine.book.has_room,
        turn=poster.turn,
        also=bells,
    )
    try:
        return (yield from poster.waits(waits, engine.bell))
    finally:
        long_wait.end()


def _tell_drains(engine: Engine, waiter: Waiter | None) -> None:
    """A drain does not wait for what waits for room behind a pause or a gate, of whatever runtime that is."""
    for one in {engine} if waiter is None else {engine, waiter.home.engine}:
        for worker in list(one.workers.values()):
            if worker.rest.waiting:
                worker.rest.ring()


@contextmanager
def _woken_by_ends(jobs: Iterable[JobContext], bell: Bell, turn: Signal) -> Iterator[None]:
    """What waits for the bell, or for its turn to hear it, looks again when one of these jobs ends."""

    def wake() -> None:
        turn.set()
        bell.ring()

    for job in jobs:
        job.on_end(wake)
    try:
        yield
    finally:
        for job in jobs:
            job.forget(wake)
