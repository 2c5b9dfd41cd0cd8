"""A routine in a worker: its queues, what runs, what is retried. The unit of ownership.

Guarantees
    * Every method is short, never blocks, calls no user code and reads no clock.
    * All state is moved under one lock, which is given (the simulated runtime gives its own kind).
    * At most one caller is told to queue the mailbox at a time: ``queued`` says that a caller has promised to
      call :meth:`Mailbox.next`. A promise is never lost: the caller that clears ``queued`` looks for work afterwards.
    * Items of one slot are handed out in the order in which they were offered. A retry, an activation that a
      gate holds, and a held item keep everything behind them. With a concurrency of more than 1 a retry and what a
      gate holds keep nothing behind them; with lanes, their key alone, and order holds per key.
    * No more activations are stalled than one, or with a concurrency of more than 1 or lanes, than the slots hold
      items: what is set aside for later is bounded like what is queued.
    * The number of items in a slot never exceeds its capacity.
    * FULL is a promise: the very call that makes room in the slot reports it in ``freed``, and its caller tells those
      who were refused. This holds for every slot, with feeders or without, in a cycle or not, and as soon as one place
      is free: only a start waits for the resume length. While a slot is full its length is exact.

A routine with one slot, the immediate policy and no concurrency is handed out in *runs*: its thread claims all that
is pending under one lock and takes one item after the other without a lock. What is claimed and not started still
counts as queued, and a caller that needs it back takes it back under the lock.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from routilux.kernel.account import NONE, Account, JobAccount, joined
from routilux.kernel.activation import Activation
from routilux.kernel.gathering import (
    Batch,
    BatchWithMessage,
    Decide,
    Gathering,
    Groups,
    Later,
    UserDecided,
)
from routilux.kernel.lanes import Lanes
from routilux.kernel.locks import Lock, take_contended
from routilux.model.decision import Decision
from routilux.model.item import Item, Payload

T = TypeVar("T")
QUEUED: Final = 0  # accepted; nothing to do
READY: Final = 1  # accepted; the caller queues the mailbox
PARKED: Final = 2  # accepted; waits for other items: the caller parks it in its account
FULL: Final = 3  # refused: the slot has no room


class SlotQueue:
    """The length and limits of one slot in one worker; guarded by its mailbox's lock."""

    __slots__ = (
        "beyond", "capacity", "cyclic", "dropped", "feeders", "full", "held", "kept", "length", "mailbox", "name",
        "on_full", "received", "refused", "resume_length",
    )  # fmt: skip

    def __init__(self, name: str, capacity: int, resume_length: int, on_full: str) -> None:
        self.name = name
        self.capacity = capacity
        self.resume_length = resume_length
        self.on_full = on_full
        self.length = 0  # of what is here, and of what is on its way to a place that was kept for it
        self.kept = 0  # such places
        self.beyond = False  # more of this slot is kept elsewhere, and comes after what is here
        self.full = False  # from reaching the capacity until it has fallen to the resume length
        self.refused = (
            False  # a caller was told that there is no room, and hears of the first place that is free
        )
        self.received = 0
        self.dropped = 0
        self.held: deque[Item] | None = None  # items kept outside by a gate, and all that came behind them
        self.mailbox: Mailbox
        self.feeders: tuple[Mailbox, ...] = ()  # whose start waits while this slot is full
        self.cyclic = False  # fed from inside a cycle: no start waits for it

    @property
    def qualified_name(self) -> str:
        return f"{self.mailbox.routine_id}.{self.name}"

    @property
    def crowded(self) -> bool:
        """Whether there is no place for one more item; exact also while a run takes items."""
        return self.beyond or self.length >= self.capacity

    @property
    def draws(self) -> bool:
        """Whether what is kept elsewhere may come: there is more, and room for it."""
        return self.beyond and self.length <= self.resume_length


class Discard:
    """Items whose job has ended were found in a queue; the runtime settles their accounts."""

    __slots__ = ("ended", "items")

    def __init__(self, items: list[Item], ended: tuple[JobAccount, ...]) -> None:
        self.items = items
        self.ended = ended


class Look(NamedTuple):
    """What waits in a mailbox at a moment."""

    lengths: dict[str, int]  # by slot
    gathered: tuple[Item, ...]  # which its policy has not taken
    stalled: int  # activations in a retry or at a gate
    outside: int  # items that a gate keeps outside the slots
    held: int  # items of paused jobs
    waiting: bool  # for room in one of the slots that it feeds


class Mailbox:
    """See the module's docstring. ``make`` builds the runtime's kind of :class:`Activation`."""

    __slots__ = (
        "_claim_size", "_gathering", "_held", "_held_prepared", "_lanes", "_lock", "_may_pass", "_only_slot",
        "_stall_limit",
        "activations", "busy", "claimed", "closed", "concurrency", "emitted", "exchanges", "failed", "feeds",
        "freed", "gate", "make", "merged", "node", "pending", "prepared", "queued", "retried", "returned",
        "routine_id", "running", "skipped", "slots", "stalled", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        routine_id: str,
        slots: Sequence[SlotQueue],
        *,
        gathering: Gathering | None,
        concurrency: int,
        lock: Lock,
        make: Callable[[Mailbox, Batch, Account, float], Activation] = Activation,
    ) -> None:
        self.routine_id = routine_id
        self.slots = {slot.name: slot for slot in slots}
        for slot in slots:
            slot.mailbox = self
        self.concurrency = concurrency
        self.feeds: tuple[SlotQueue, ...] = ()  # a start waits while one of these is full
        self.gate: Any = None  # asked by the runtime, outside the lock
        self.node: Any = None  # the runtime's side of this routine: opaque here
        self._lock = lock
        self.make = make
        self._gathering = gathering
        self._lanes = gathering if isinstance(gathering, Lanes) else None
        alone = concurrency == 1 and self._lanes is None
        self._stall_limit = 1 if alone else max(concurrency, *(slot.capacity for slot in slots), 1)
        self.pending: deque[Batch] = deque()  # complete batches, each one activation
        self.claimed: deque[Batch] = (
            deque()
        )  # the rest of a run: only its thread takes from it without the lock
        self._claim_size = 0  # how many of the claimed items are still counted in the slot's length
        runs = gathering is None and concurrency == 1 and len(slots) == 1
        self._only_slot = slots[0] if runs else None
        self.exchanges = not runs and (concurrency > 1 or self._lanes is not None)
        self.freed: tuple[
            SlotQueue, ...
        ] = ()  # slots that have room again; the caller that made it tells the feeders and those refused
        self.prepared: deque[Activation] = deque()  # retries that are due, activations let go by a gate
        self.stalled: dict[Activation, None] = {}  # retries in a timer, held by a gate
        self._held: list[Item] = []  # items of paused jobs
        self._held_prepared: list[Activation] = []  # retries of paused jobs
        self.merged: dict[str, Payload] = {}  # merged data by slot
        self.running = 0
        self.queued = False
        self.waiting = False  # for room in one of the slots that it feeds
        self._may_pass = False  # one start does not wait for it
        self.closed = False
        self.activations = self.failed = self.skipped = self.retried = self.returned = self.emitted = 0
        self.busy = 0.0

    # -- items in ------------------------------------------------------------------------------------------

    def offer(self, item: Item) -> int:
        """Queue an item: QUEUED, READY, PARKED or FULL. Its account must have been moved before."""
        if not self._lock.acquire(False):
            take_contended(self._lock)
        try:
            slot = self.slots[item[1]]
            if slot.length >= slot.capacity and self._refuses(slot):
                return FULL
            if slot.held is not None:
                if self._lanes is not None:
                    self._lanes.key_of(item)
                slot.held.append(item)
                self._count_in(slot)
                return QUEUED
            gathering = self._gathering
            if gathering is None:
                self.pending.append((item,))
            elif gathering.add(item, self.pending):
                self._count_in(slot)
                return PARKED
            slot.length = length = slot.length + 1
            slot.received += 1
            if length >= slot.capacity:
                self._fill(slot)
            if gathering is not None:
                return QUEUED if self.queued or not self._promise() else READY
            if self.queued or self.running >= self.concurrency or self.waiting:
                return QUEUED
            if self.stalled and len(self.stalled) >= self._stall_limit:
                return QUEUED
            self.queued = True
            return READY
        finally:
            self._lock.release()

    def keep_place(self, slot_name: str) -> bool:
        """Keep a place for an item that is on its way; False if there is none, or others wait for one elsewhere."""
        if not self._lock.acquire(False):
            take_contended(self._lock)
        try:
            slot = self.slots[slot_name]
            if (slot.beyond or slot.length >= slot.capacity) and self._refuses(slot):
                return False
            slot.length += 1
            slot.kept += 1
            if slot.length >= slot.capacity:
                self._fill(slot)
            return True
        finally:
            self._lock.release()

    def give_place(self, slot_name: str) -> None:
        """The item that a place was kept for does not come."""
        with self._lock:
            slot = self.slots[slot_name]
            slot.kept -= 1
            self._count_out(slot)

    def take_in(self, item: Item) -> int:
        """Queue an item whose place was kept: QUEUED, READY or PARKED. Its account must have been moved before."""
        if not self._lock.acquire(False):
            take_contended(self._lock)
        try:
            slot = self.slots[item[1]]
            slot.received += 1
            if slot.held is not None:
                slot.held.append(item)
                code = QUEUED
            elif self._gather(item):
                code = PARKED
            else:
                code = READY if self._promise() else QUEUED
            slot.kept -= 1
            return code
        finally:
            self._lock.release()

    def set_beyond(self, slot_name: str, beyond: bool) -> tuple[SlotQueue, ...]:
        """Whether more of a slot is kept elsewhere; while it is, the slot counts as full. Returns what was freed."""
        with self._lock:
            slot = self.slots[slot_name]
            slot.beyond = beyond
            slot.full = beyond or slot.length >= slot.capacity
            if not slot.full and (slot.feeders or slot.refused):
                slot.refused = False
                self.freed = (*self.freed, slot)
            return self.freed

    def room(self, slot_name: str) -> int:
        """How many items the slot would take now; none while more of it is kept elsewhere."""
        slot = self.slots[slot_name]
        if self._claim_size:
            with self._lock:
                self._count_started(slot)
        return 0 if slot.beyond else max(0, slot.capacity - slot.length)

    def displace(
        self, slot_name: str, *, keep_place: bool = False
    ) -> tuple[Item | None, tuple[JobAccount, ...]]:
        """Make room by taking out the oldest item of a slot; also the jobs that are at rest because of it.

        ``keep_place``: its place is kept for the item that comes instead.
        """
        with self._lock:
            self._take_back()
            slot = self.slots[slot_name]
            oldest, ended = self._take_oldest(slot)
            if oldest is not None:
                slot.dropped += 1
                if keep_place:
                    slot.kept += 1
                else:
                    self._count_out(slot)
            return oldest, ended

    def drop(self, slot_name: str) -> None:
        """Count an item that was not let in."""
        with self._lock:
            self.slots[slot_name].dropped += 1

    # -- activations out -----------------------------------------------------------------------------------

    def next(self, now: float, *, regardless: bool = False) -> Activation | Decide | Later | Discard | None:
        """What is to be done next, if anything; ends the promise that ``queued`` stands for.

        ``regardless`` of the room in the slots that it feeds.
        """
        if not self._lock.acquire(False):
            take_contended(self._lock)
        try:
            self.queued = False
            if self.running >= self.concurrency or self.closed:
                return None
            if (self._held or self._held_prepared) and (resumed := self._let_resumed_go()) is not None:
                return resumed
            if self.prepared and (activation := self._start_prepared(now)) is not None:
                return activation
            if self.stalled and len(self.stalled) >= self._stall_limit:
                return None
            for slot in self.feeds:
                if slot.full and not regardless:
                    if not self._may_pass:
                        self.waiting = True
                        return None
                    self._may_pass = False
                    break
            pending = self.pending
            if not pending:
                if self._gathering is None:
                    return None
                answer = self._gathering.release(now, pending)
                if not pending:
                    return answer
            batch = pending[0]
            job = batch[0][3] if len(batch) == 1 else joined([item[3] for item in batch])
            if job.halted and (screened := self._screen()) is not None:
                return screened
            pending.popleft()
            self.running += 1
            activation = self.make(self, batch, job, now)
            if isinstance(batch, BatchWithMessage):
                activation.message = batch.message
            for item in batch:
                slot = self.slots[item[1]]
                slot.length -= 1
                if slot.full:
                    self._make_room(slot)
            if self._only_slot is not None:
                self.claimed, self.pending = pending, self.claimed
                self._claim_size = len(pending)
                return activation
            if self._lanes is not None:
                activation.lane = self._lanes.key_of(batch[0])
            if self.running < self.concurrency and self._has_work():
                self.queued = activation.spare = True
            return activation
        finally:
            self._lock.release()

    def follow(self, activation: Activation, now: float) -> Activation | None:
        """:meth:`finish` and the next of a run, for the thread that claimed it; None: go on with :meth:`finish`.

        Takes no lock: the one thread that pops competes only with a caller that takes everything back.
        """
        if not self.claimed or self._held:
            return None
        for slot in self.feeds:
            if slot.full:
                return None
        try:
            batch = self.claimed.popleft()
        except IndexError:
            return None
        job = batch[0][3]
        if job.halted:
            self.claimed.appendleft(batch)
            return None
        if self._only_slot.full:  # type: ignore[union-attr]
            self._count_now()
        self.activations += 1
        self.busy += now - activation.started
        self.emitted += activation.emitted
        if activation.merged is not None:
            self.merged.update(activation.merged)
        return self.make(self, batch, job, now)

    def _count_now(self) -> None:
        """A run has made room where some was waited for."""
        if not self._lock.acquire(False):
            take_contended(self._lock)
        try:
            if self._only_slot is not None:
                self._count_started(self._only_slot)
        finally:
            self._lock.release()

    def exchange(self, activation: Activation, now: float) -> Activation | None:
        """:meth:`finish` and :meth:`next` under one lock, for a routine that may overlap itself.

        The next activation is of one item, and nothing has to be done or asked before it. None: nothing has ended
        yet, go on with :meth:`finish`.
        """
        if not self._lock.acquire(False):
            take_contended(self._lock)
        try:
            pending, lanes = self.pending, self._lanes
            if pending:
                batch: Batch | None = pending[0]
            else:
                batch = None if lanes is None else lanes.next_of(activation.lane)
            if batch is None or len(batch) > 1 or batch[0][3].halted or self.closed:
                return None
            if self.prepared or self._held or self._held_prepared:
                return None
            if self.stalled and len(self.stalled) >= self._stall_limit:
                return None
            for slot in self.feeds:
                if slot.full:
                    return None
            self.activations += 1
            self.busy += now - activation.started
            self.emitted += activation.emitted
            if activation.merged is not None:
                self.merged.update(activation.merged)
            following = self.make(self, batch, batch[0][3], now)
            if lanes is not None:
                lanes.give_back(activation.lane, pending)
                following.lane = lanes.key_of(batch[0])
            pending.popleft()
            slot = self.slots[batch[0][1]]
            slot.length -= 1
            if slot.full:
                self._make_room(slot)
            if not self.queued and self.running < self.concurrency and self._has_work():
                self.queued = following.spare = True
            return following
        finally:
            self._lock.release()

    def take_freed(self) -> tuple[SlotQueue, ...]:
        with self._lock:
            freed, self.freed = self.freed, ()
            return freed

    def decided(self, asked: Decide, decision: Decision, now: float) -> tuple[bool, tuple[JobAccount, ...]]:
        """Carry out a user policy's word; whether to call :meth:`next`, and the jobs that came to rest."""
        with self._lock:
            gathering = self._user_decided()
            ended = gathering.decided(asked, decision, now, self.pending)
            return self._promise(), ended

    def claim_oldest(self, asked: Decide, now: float) -> Activation | None:
        """A user's policy failed: hand out the oldest item, so that the failure has a place to go."""
        with self._lock:
            gathering = self._user_decided()
            gathering.decided(asked, gathering.oldest(), now, self.pending)
            if not self.pending:
                return None
            batch = self.pending.pop()
            self.running += 1
            activation = self.make(self, batch, joined([item[3] for item in batch]), now)
            for item in batch:
                self._count_out(self.slots[item[1]])
            return activation

    def timer_due(self) -> bool:
        """A time that :meth:`next` or a policy asked for has come; True: queue the mailbox."""
        with self._lock:
            if self._gathering is not None:
                self._gathering.due()
            return self._promise()

    def flush(self, now: float) -> bool:
        """Drain: release a partial batch; True: queue the mailbox."""
        with self._lock:
            if self.closed or self._gathering is None or not self._gathering.flush(now, self.pending):
                return False
            return self._promise()

    def end_flush(self) -> None:
        """The drain is over: a policy is not asked to release what it holds any more."""
        with self._lock:
            if self._gathering is not None:
                self._gathering.end_flush()

    def incomplete(self, account: JobAccount) -> list[Item]:
        """A job has ended: take out parked items that nothing can complete any more. They are active again."""
        with self._lock:
            left = [] if self._gathering is None else self._gathering.incomplete(account)
            for item in left:
                self._count_out(self.slots[item[1]])
            return left

    def finish(self, activation: Activation, now: float, outcome: str = "completed") -> bool:
        """An activation has ended for good. True: there is more, and the caller has promised to see to it."""
        if not self._lock.acquire(False):
            take_contended(self._lock)
        try:
            activation.out = False
            if outcome != "completed":
                self.failed += outcome == "failed"
                self.skipped += outcome == "skipped"
            self.running -= 1
            self.activations += 1
            self.busy += now - activation.started
            self.emitted += activation.emitted
            if activation.merged is not None:
                self.merged.update(activation.merged)
            if self._lanes is not None:
                self._lanes.give_back(activation.lane, self.pending)
            if self.claimed or self._claim_size:
                self._end_run()
            return self._promise()
        finally:
            self._lock.release()

    # -- retries and gates ---------------------------------------------------------------------------------

    def stall(self, activation: Activation, *, retry: bool) -> bool:
        """Keep a claimed activation back, for a retry or at a gate; with concurrency 1 all else waits behind it."""
        with self._lock:
            self._end_run()
            self.running -= 1
            activation.out = False
            self.stalled[activation] = None
            self.retried += retry
            self.returned += not retry
            return self._promise()

    def put_back(self, activation: Activation, over: bool) -> bool:
        """Take back what was handed out and has not begun: its job is paused, or over. True: queue the mailbox."""
        with self._lock:
            self._end_run()
            self.running -= 1
            activation.out = False
            self.returned += 1
            if over:
                self._leave_lane(activation)
            else:
                (self._held_prepared if activation.job.paused else self.prepared).append(activation)
            return self._promise()

    def go_on(self, activation: Activation) -> bool:
        """A retry is due, or a gate lets an activation go. True: queue the mailbox."""
        with self._lock:
            if activation in self.stalled:  # else it was withdrawn meanwhile
                del self.stalled[activation]
                self.prepared.append(activation)
            return self._promise()

    def withdraw(self, unwanted: Callable[[Activation], bool]) -> list[Activation]:
        """Take out activations that wait to run again but must not: their jobs have ended."""
        with self._lock:
            stalled, wanted_stalled = _divided(self.stalled, unwanted)
            prepared, wanted = _divided(self.prepared, unwanted)
            held, self._held_prepared = _divided(self._held_prepared, unwanted)
            removed = [*stalled, *prepared, *held]
            if removed:
                self.stalled, self.prepared = dict.fromkeys(wanted_stalled), deque(wanted)
            for activation in removed:
                self._leave_lane(activation)
            return removed

    def hold(self, item: Item) -> bool:
        """A gate keeps this item outside its slot, and with it all that follows; False if the slot is full."""
        with self._lock:
            slot = self.slots[item[1]]
            if slot.length >= slot.capacity and self._refuses(slot):
                return False
            if self._lanes is not None:
                self._lanes.key_of(item)
            if slot.held is None:
                slot.held = deque()
            slot.held.append(item)
            self._count_in(slot)
            return True

    def hold_kept(self, item: Item) -> None:
        """A gate keeps this item outside its slot, where a place was kept for it."""
        with self._lock:
            slot = self.slots[item[1]]
            slot.received += 1
            slot.kept -= 1
            if slot.held is None:
                slot.held = deque()
            slot.held.append(item)

    def held_item(self, slot_name: str) -> Item | None:
        """The item at the head of those that a gate keeps outside a slot."""
        with self._lock:
            held = self.slots[slot_name].held
            return held[0] if held else None

    def let_in(self, slot_name: str) -> tuple[bool, list[Item]]:
        """Let the first held item in; whether to queue the mailbox, and which items are parked now."""
        with self._lock:
            slot = self.slots[slot_name]
            parked: list[Item] = []
            if slot.held:
                item = slot.held.popleft()
                if self._gather(item):
                    parked.append(item)
            if not slot.held:
                slot.held = None
            return self._promise(), parked

    # -- back-pressure, pause, cancel ----------------------------------------------------------------------

    def look_again(self) -> bool:
        """A slot that this mailbox feeds may have room again. True: queue the mailbox."""
        with self._lock:
            self.waiting = False
            return self._promise()

    def let_pass(self) -> bool:
        """The next start does not wait for room in the slots that this mailbox feeds. True: queue the mailbox."""
        with self._lock:
            self.waiting, self._may_pass = False, True
            return self._promise()

    def release_held(self) -> tuple[bool, tuple[JobAccount, ...]]:
        """A job goes on: put its items back in their order; whether to queue, and the jobs now at rest."""
        with self._lock:
            resumed = self._let_resumed_go()
            return self._promise(), NONE if resumed is None else resumed.ended

    def extract(self, unwanted: Callable[[Item], bool]) -> tuple[list[Item], tuple[JobAccount, ...]]:
        """Take out all queued items that are unwanted; those, and the jobs that are at rest now."""
        with self._lock:
            self._take_back()
            removed, kept = _divided(self._queued_items(), unwanted)
            removed_held, self._held = _divided(self._held, unwanted)
            removed += removed_held
            for slot in self.slots.values():
                if slot.held:
                    removed_outside, kept_outside = _divided(slot.held, unwanted)
                    removed += removed_outside
                    slot.held = deque(kept_outside) or None
            if not removed:
                return [], NONE
            ended = self._rebuild(kept)
            for item in removed:
                self._count_out(self.slots[item[1]])
            return removed, ended

    def close(self) -> None:
        """Hand out nothing any more."""
        with self._lock:
            self.closed = True

    @property
    def starts(self) -> int:
        """How many activations were started; only ever grows."""
        return self.activations + self.running + self.retried + self.returned

    # -- looking in ----------------------------------------------------------------------------------------

    def can_move(self) -> bool:
        """Whether something is running here, due, or in a timer."""
        with self._lock:
            if self.running or self.stalled or self.prepared or self._held or self._held_prepared:
                return True
            if self.closed:
                return False
            if any(slot.draws for slot in self.slots.values()):
                return True
            if self.waiting:
                return False
            return bool(self.pending) or (self._gathering is not None and self._gathering.moving)

    def goes_on(self, at_gates: int) -> bool:
        """Whether something moves here while no paused job is resumed, no gate lets go what it holds (this many
        activations), no drain hurries what waits for a time, and what runs does not end."""
        with self._lock:
            if self.prepared or len(self.stalled) > at_gates:
                return True
            if self.closed or self.stalled:
                return False
            if any(slot.draws for slot in self.slots.values()):
                return True
            if self.waiting or self.running >= self.concurrency:
                return False
            gathering = self._gathering
            return bool(self.pending) or (
                gathering is not None and gathering.moving and not gathering.hurries
            )

    def look(self) -> Look:
        """What waits here, and for what."""
        with self._lock:
            if self._lanes is not None:
                gathered = tuple(self._lanes.gathered)
            else:
                gathered = () if self._gathering is None else tuple(self._gathering.items())
            lengths = {name: slot.length for name, slot in self.slots.items()}
            outside = sum(len(slot.held or ()) for slot in self.slots.values())
            return Look(lengths, gathered, len(self.stalled), outside, len(self._held), self.waiting)

    def parked_items(self) -> list[Item]:
        with self._lock:
            return [] if self._gathering is None else list(self._gathering.parked())

    @property
    def keeps_back(self) -> bool:
        """Whether something waits here until its job is resumed or it is let go at a gate."""
        return bool(self._held or self._held_prepared or any(slot.held for slot in self.slots.values()))

    @property
    def held_up(self) -> bool:
        """Whether something could start here, if there were room in the slots that it feeds."""
        with self._lock:
            return self.waiting and not self.closed and self._has_work()

    def startable(self, *, timeouts: bool = True) -> bool:
        """Whether :meth:`next` could hand out something now, or once a timer or a gate says so.

        ``timeouts``: the timer that ends incomplete sets counts too.
        """
        with self._lock:
            if self.closed:
                return False
            if self.stalled:
                return True
            if self.running >= self.concurrency or (
                any(slot.full for slot in self.feeds) and not self.prepared
            ):
                return False
            gathering = self._gathering
            return bool(self.prepared or self.pending) or (
                gathering is not None and gathering.moving and (timeouts or not gathering.gives_up)
            )

    def parked(self) -> dict[str, int]:
        """How many items of each slot wait for others."""
        with self._lock:
            return {} if self._gathering is None else Counter(item[1] for item in self._gathering.parked())

    def crowd(self) -> tuple[Hashable, int] | None:
        """The key that fills the slots of a routine with lanes; None without lanes, and if no key is waited for."""
        with self._lock:
            return None if self._lanes is None else self._lanes.crowd()

    def company(self, item: Item) -> frozenset[str]:
        """Of a join by key: the slots with an item here that would be joined with this one, its own included."""
        with self._lock:
            return self._joined().company(item)

    def is_joined(self, one: Item, other: Item) -> bool:
        """Of a join by key: whether two items of different slots would be joined."""
        return self._joined().is_joined(one, other)

    def first_of_sets(self) -> list[Item]:
        """Of a join by key: an item of each set that is not complete."""
        with self._lock:
            return self._joined().first_of_sets()

    def snapshot(self) -> tuple[list[Item], list[Activation], dict[str, Payload]]:
        """Queued items in their order, claimed activations that are due again, merged data. Nothing may run."""
        with self._lock:
            self._take_back()
            outside = [item for slot in self.slots.values() for item in slot.held or ()]
            items = sorted([*self._queued_items(), *self._held, *outside], key=_number)
            return items, [*self.prepared, *self._held_prepared, *self.stalled], dict(self.merged)

    def restore(self, item: Item) -> tuple[int, tuple[JobAccount, ...]]:
        """Queue an item of a snapshot, whatever the capacity says: it was in the slot before."""
        with self._lock:
            slot = self.slots[item[1]]
            parked = self._gather(item)
            self._count_in(slot)
            if parked:
                return PARKED, item[3].park()
            return (READY if self._promise() else QUEUED), NONE

    def restore_stalled(self, batch: Batch, job: Account, attempt: int, now: float) -> Activation:
        """An activation of a snapshot that waits to run again, in its place before what is queued."""
        with self._lock:
            activation = self.make(self, batch, job, now)
            activation.attempt = attempt
            activation.out = False
            if self._lanes is not None:
                activation.lane = self._lanes.take_again(batch)
            self.stalled[activation] = None
            return activation

    # -- under the lock ------------------------------------------------------------------------------------

    def _has_work(self) -> bool:
        if self.prepared:
            return True
        if self.stalled and len(self.stalled) >= self._stall_limit:
            return False
        return bool(self.pending) or (self._gathering is not None and self._gathering.waiting)

    def _promise(self) -> bool:
        """Whether the caller must see to it that :meth:`next` is called."""
        if self.queued or self.running >= self.concurrency or (self.waiting and not self.prepared):
            return False
        self.queued = not self.closed and self._has_work()
        return self.queued

    def _start_prepared(self, now: float) -> Activation | None:
        while self.prepared:
            activation = self.prepared.popleft()
            if activation.job.paused:
                self._held_prepared.append(activation)
                continue
            activation.started = now
            activation.abandoned = None
            activation.out = True
            self.running += 1
            activation.spare = self.queued = self.running < self.concurrency and self._has_work()
            return activation
        return None

    def _leave_lane(self, activation: Activation) -> None:
        if self._lanes is not None:
            self._lanes.give_back(activation.lane, self.pending)

    def _gather(self, item: Item) -> bool:
        if self._gathering is None:
            self.pending.append((item,))
            return False
        return self._gathering.add(item, self.pending)

    def _count_in(self, slot: SlotQueue) -> None:
        slot.length += 1
        slot.received += 1
        if slot.length >= slot.capacity:
            self._fill(slot)

    def _count_out(self, slot: SlotQueue) -> None:
        slot.length -= 1
        if slot.full:
            self._make_room(slot)

    def _fill(self, slot: SlotQueue) -> None:
        """A slot has reached its capacity, unless a run has started some of it meanwhile."""
        if self._claim_size:
            self._count_started(slot)
        if slot.length >= slot.capacity:
            slot.full = True

    def _refuses(self, slot: SlotQueue) -> bool:
        """Whether a slot has no room; then the caller is told of the first place that is free."""
        slot.refused = True
        if self._claim_size:
            self._count_started(slot)
        return slot.crowded

    def _make_room(self, slot: SlotQueue) -> None:
        """A slot that counts as full has become shorter: note who is to hear of it."""
        news = slot.refused and not slot.beyond and slot.length < slot.capacity
        if news:
            slot.refused = False
        if slot.length <= slot.resume_length:
            slot.full = slot.beyond
            news = news or slot.beyond or bool(slot.feeders)
        if news and slot not in self.freed:
            self.freed = (*self.freed, slot)

    def _count_started(self, slot: SlotQueue) -> None:
        """Stop counting what a run has started meanwhile."""
        started = self._claim_size - len(self.claimed)
        self._claim_size -= started
        slot.length -= started
        if slot.full and started:
            self._make_room(slot)

    def _end_run(self) -> None:
        """What the activation that ends has not started goes back to the front of the queue. Nothing competes with
        that: the run was this activation's."""
        left = self.claimed
        still = len(left)
        if left:
            left.extend(self.pending)
            self.pending.clear()
            self.claimed, self.pending = self.pending, left
        self._count_run(still)

    def _take_back(self) -> None:
        """End a run whose thread may go on taking from it meanwhile."""
        back: list[Batch] = []
        try:
            while True:
                back.append(self.claimed.popleft())
        except IndexError:  # also when the thread of the run took the last one
            pass
        self.pending.extendleft(reversed(back))
        self._count_run(len(back))

    def _count_run(self, back: int) -> None:
        """A run has ended, and so many of its items have gone back."""
        slot = self._only_slot
        if slot is None:
            return
        slot.length -= self._claim_size - back
        self._claim_size = 0
        if slot.full:
            self._make_room(slot)
        elif slot.length >= slot.capacity:  # the run gave back one that had been counted out
            slot.full = True

    def _take_oldest(self, slot: SlotQueue) -> tuple[Item | None, tuple[JobAccount, ...]]:
        name, kept = slot.name, [*(item for item in self._held if item[1] == slot.name), *(slot.held or ())]
        if self._gathering is None and not kept:  # the common case: it is one of the first
            for position, batch in enumerate(self.pending):
                if batch[0][1] == name:
                    del self.pending[position]
                    return batch[0], NONE
            return None, NONE
        queued = [*self._queued_items()]
        oldest = min((item for item in (*queued, *kept) if item[1] == name), key=_number, default=None)
        if oldest in queued:
            return oldest, self._rebuild([item for item in queued if item is not oldest])
        if oldest in self._held:
            self._held.remove(oldest)
            if self._lanes is not None:  # its key waits for it no longer
                return oldest, self._rebuild(queued)
        elif slot.held is not None and oldest is not None:
            slot.held.remove(oldest)
            slot.held = slot.held or None
        return oldest, NONE

    def _queued_items(self) -> Iterator[Item]:
        for batch in self.pending:
            yield from batch
        if self._gathering is not None:
            yield from self._gathering.items()

    def _screen(self) -> Discard | None:
        """Set aside items of paused jobs, take out items of ended ones; None if all may go on."""
        ended_items, others = _divided(self._queued_items(), _ended)
        paused, going_on = _divided(others, _paused if self._lanes is None else self._paused_in_turn())
        if not ended_items and not paused:
            return None
        self._held += paused
        at_rest = self._rebuild(going_on)
        for item in ended_items:
            self._count_out(self.slots[item[1]])
        return Discard(ended_items, at_rest)

    def _paused_in_turn(self) -> Callable[[Item], bool]:
        """In lanes an item is set aside when its turn has come: its key waits for it, and for nothing behind it."""
        next_of_lanes = {item[0] for batch in self.pending for item in batch}
        return lambda item: item[0] in next_of_lanes and _paused(item)

    def _let_resumed_go(self) -> Discard | None:
        """Put back in its place what belongs to jobs that go on, before anything that came later passes it."""
        self._held_prepared, gone_on = _divided(self._held_prepared, _rests)
        self.prepared.extend(gone_on)
        self._held, resumed = _divided(self._held, _paused)
        if not resumed:
            return None
        self._take_back()
        return Discard([], self._rebuild([*self._queued_items(), *resumed]))

    def _rebuild(self, items: list[Item]) -> tuple[JobAccount, ...]:
        """Queue exactly these items again, in the order of their numbers; return the jobs now at rest."""
        items.sort(key=_number)
        if self._lanes is not None:
            self._lanes.bar(self._held, self.pending)
        self.pending.clear()
        if self._gathering is not None:
            self._gathering.clear()
        at_rest: list[JobAccount] = []
        for item in items:
            if self._gather(item):
                at_rest.extend(item[3].park())
        return tuple(at_rest)

    def _joined(self) -> Groups:
        gathering = self._gathering if self._lanes is None else self._lanes.inner
        assert isinstance(gathering, Groups)
        return gathering

    def _user_decided(self) -> UserDecided:
        assert isinstance(self._gathering, UserDecided)
        return self._gathering


def _divided(items: Iterable[T], by: Callable[[T], bool]) -> tuple[list[T], list[T]]:
    """Those that it is true of, and the others. Asks once: a job can be paused and resumed at any moment."""
    yes: list[T] = []
    no: list[T] = []
    for item in items:
        (yes if by(item) else no).append(item)
    return yes, no


def _ended(item: Item) -> bool:
    ended: bool = item[3].ended
    return ended


def _rests(activation: Activation) -> bool:
    return activation.job.paused


def _paused(item: Item) -> bool:
    paused: bool = item[3].paused
    return paused


def _number(item: Item) -> int:
    return item[0]
