"""Gathering: which queued items an activation policy would take together, kept up to date item by item.

A policy that looks at every queue at every arrival costs time that grows with the queues. The rules of the
built-in policies are therefore kept incrementally here: ``add`` takes one item and moves what is complete to
``pending``, the mailbox's queue of batches that may be activated at once. The rule itself is written down once,
in ``model.policy``; that these gatherings obey it is property-tested.

An item that no rule would take yet is *parked*: ``add`` says so, and the caller that completes its set unparks it
before the set becomes visible. Every method runs under the mailbox's lock and calls no user code.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from heapq import heappop, heappush
from itertools import groupby
from typing import Any, NamedTuple, Protocol, TypeAlias

from routilux.kernel.account import NONE, Account, JobAccount
from routilux.model.decision import WAIT, Decision, Fire, SlotView, SlotViews, WaitUntil
from routilux.model.item import Item
from routilux.model.policy import (
    INCOMPLETE,
    ActivationPolicy,
    AllSlotsReadyPolicy,
    BatchSizePolicy,
    ImmediatePolicy,
    TimeIntervalPolicy,
    join_key,
)

Batch: TypeAlias = tuple[Item, ...]


FEW = 64  # entries of a heap that are not worth a look


class BatchWithMessage(tuple[Item, ...]):
    """A batch, and what its policy wants the logic to know."""

    message: Any


class Later(NamedTuple):
    """Ask the mailbox again at this time (monotonic seconds)."""

    time: float


class Decide(NamedTuple):
    """The policy is user code: the runtime calls it outside every lock and reports with ``decided``."""

    policy: ActivationPolicy
    views: SlotViews
    edition: int  # of the queues that were shown; a cancel or a pause in between makes the answer void


class Gathering(Protocol):
    """What a mailbox needs from a rule; see the module's docstring.

    ``timed`` says that the rule looks at the times of items.
    """

    timed: bool

    def add(self, item: Item, pending: deque[Batch]) -> bool:
        """Queue the item; True if it is parked now. Raises before anything changes if it cannot be queued."""

    def release(self, now: float, pending: deque[Batch]) -> Later | Decide | None:
        """Nothing is pending: move what is due, or say what would have to happen first."""

    def flush(self, now: float, pending: deque[Batch]) -> bool:
        """Drain: move a partial batch that would otherwise wait for ever; True if there was one."""

    def items(self) -> Iterator[Item]:
        """Everything queued here, in no particular order."""

    def clear(self) -> None:
        """Forget all items; what was parked is counted as active again."""

    def due(self) -> None:
        """A time that ``release`` or the policy asked for has come."""

    @property
    def waiting(self) -> bool:
        """Whether ``release`` would have something to say now."""

    @property
    def moving(self) -> bool:
        """Whether something here will move on its own: undecided, being decided or in a timer."""

    @property
    def gives_up(self) -> bool:
        """Whether what moves here are incomplete sets alone, and a timer is to end them."""

    @property
    def hurries(self) -> bool:
        """Whether what moves here waits for a time alone, and :meth:`flush` has an answer to it."""

    def end_flush(self) -> None:
        """The drain is over."""

    def parked(self) -> Iterator[Item]:
        """Those of :meth:`items` that are counted as parked."""

    def incomplete(self, account: JobAccount) -> list[Item]:
        """Take out parked items that belong only to jobs that have ended, this one among them, where none but an
        item of these jobs could have completed their set. They are counted as active again."""


class _Plain:
    """What most rules have in common."""

    @property
    def gives_up(self) -> bool:
        return False

    def due(self) -> None:
        return None

    def end_flush(self) -> None:
        return None

    def release(self, now: float, pending: deque[Batch]) -> Later | Decide | None:
        return None

    def flush(self, now: float, pending: deque[Batch]) -> bool:
        return False

    def incomplete(self, account: JobAccount) -> list[Item]:
        return []


class _Sets(_Plain):
    """The queues of a rule that takes sets: parked until the set is complete."""

    def __init__(self, slots: Sequence[str], size: int, flushes: bool) -> None:
        self._queues: dict[str, deque[Item]] = {slot: deque() for slot in slots}
        self._size = size
        self._flushes = flushes

    timed = waiting = moving = hurries = False

    def add(self, item: Item, pending: deque[Batch]) -> bool:
        self._queues[item[1]].append(item)
        size = self._size
        for queue in self._queues.values():
            if len(queue) < size:
                return True
        self._move(pending, arrived=item)
        return False

    def flush(self, now: float, pending: deque[Batch]) -> bool:
        if not self._flushes or not any(self._queues.values()):
            return False
        self._move(pending, arrived=None)
        return True

    def items(self) -> Iterator[Item]:
        for queue in self._queues.values():
            yield from queue

    parked = items

    def clear(self) -> None:
        for queue in self._queues.values():
            for item in queue:
                item[3].unpark()
            queue.clear()

    def _move(self, pending: deque[Batch], arrived: Item | None) -> None:
        batch = [
            queue.popleft() for queue in self._queues.values() for _ in range(min(self._size, len(queue)))
        ]
        _unpark([item for item in batch if item is not arrived])
        pending.append(tuple(batch))


class _AgedBatches(_Plain):
    """The queues of a rule that takes sets, or what there is of one once its oldest item has an age.

    Nothing is parked: a timer takes what is incomplete.
    """

    timed = True

    def __init__(self, slots: Sequence[str], policy: BatchSizePolicy) -> None:
        self._queues: dict[str, deque[Item]] = {slot: deque() for slot in slots}
        self._size, self._flushes = policy.n, policy.flush
        self._age = policy.age or 0.0
        self._armed = False  # a timer will ask again

    @property
    def waiting(self) -> bool:
        return not self._armed and self.moving

    @property
    def moving(self) -> bool:
        return any(self._queues.values())

    @property
    def hurries(self) -> bool:
        return self._flushes and self.moving

    def due(self) -> None:
        self._armed = False

    def add(self, item: Item, pending: deque[Batch]) -> bool:
        self._queues[item[1]].append(item)
        if all(len(queue) >= self._size for queue in self._queues.values()):
            self._move(pending)
        return False

    def release(self, now: float, pending: deque[Batch]) -> Later | None:
        if not self.waiting:
            return None
        due = min(queue[0][5] for queue in self._queues.values() if queue) + self._age
        if now < due:
            self._armed = True
            return Later(due)
        self._move(pending)
        return None

    def flush(self, now: float, pending: deque[Batch]) -> bool:
        if not self.hurries:
            return False
        self._move(pending)
        return True

    def items(self) -> Iterator[Item]:
        for queue in self._queues.values():
            yield from queue

    def parked(self) -> Iterator[Item]:
        return iter(())

    def clear(self) -> None:
        for queue in self._queues.values():
            queue.clear()

    def _move(self, pending: deque[Batch]) -> None:
        queues = self._queues.values()
        pending.append(tuple(q.popleft() for q in queues for _ in range(min(self._size, len(q)))))


class Groups(_Plain):
    """Queued items by what they are joined by, and by slot."""

    def __init__(self, slots: Sequence[str], key: Callable[[Item], Hashable]) -> None:
        self._slots = tuple(slots)
        self._key = key
        self._groups: dict[Hashable, dict[str, deque[Item]]] = {}

    def items(self) -> Iterator[Item]:
        for group in self._groups.values():
            for queue in group.values():
                yield from queue

    def company(self, item: Item) -> frozenset[str]:
        """The slots with an item that would be joined with this one, its own included."""
        return frozenset(self._groups.get(self._key(item), ()))

    def is_joined(self, one: Item, other: Item) -> bool:
        """Whether two items of different slots would be joined."""
        return self._key(one) == self._key(other)

    def first_of_sets(self) -> list[Item]:
        """An item of each set that is not complete."""
        return [next(iter(group.values()))[0] for group in self._groups.values()]

    def _heads(self, key: Hashable, group: dict[str, deque[Item]]) -> list[Item]:
        """Take out the oldest item of each slot that has one."""
        batch = []
        for slot in [slot for slot in self._slots if slot in group]:
            queue = group[slot]
            batch.append(queue.popleft())
            if not queue:
                del group[slot]
        if not group:
            del self._groups[key]
        return batch


class _KeyedSets(Groups):
    """One item of every slot, joined by job or by a key of the payload: parked until the set is complete."""

    timed = waiting = moving = hurries = False

    def add(self, item: Item, pending: deque[Batch]) -> bool:
        key = self._key(item)
        group = self._groups.setdefault(key, {})
        if item[1] in group:
            group[item[1]].append(item)
            return True
        group[item[1]] = deque((item,))
        if len(group) < len(self._slots):
            return True
        self._move(key, group, item, pending)
        return False

    def parked(self) -> Iterator[Item]:
        return self.items()

    def incomplete(self, account: JobAccount) -> list[Item]:
        if self._key is not _by_job:
            return []
        over = [key for key in self._groups if _all_over(key, account)]
        left = [item for key in over for queue in self._groups.pop(key).values() for item in queue]
        _unpark(left)
        return left

    def clear(self) -> None:
        for item in self.items():
            item[3].unpark()
        self._groups.clear()

    def _move(
        self, key: Hashable, group: dict[str, deque[Item]], arrived: Item, pending: deque[Batch]
    ) -> None:
        batch = self._heads(key, group)
        _unpark([item for item in batch if item is not arrived])
        pending.append(tuple(batch))


class _TimedSets(Groups):
    """One item of every slot, joined like those; what stays incomplete for a time leaves as ``"incomplete"``.

    Nothing is parked: a timer takes what stays incomplete.
    """

    timed = True
    hurries = False  # the next items may come after this drain

    def __init__(self, slots: Sequence[str], key: Callable[[Item], Hashable], seconds: float) -> None:
        super().__init__(slots, key)
        self._seconds = seconds
        # A heap; of those that have left, some stay in it.
        self._oldest: list[tuple[float, int, Hashable]] = []
        self._here: set[int] = set()  # the numbers of the items that have not left
        self._armed = False  # a timer will ask again

    @property
    def waiting(self) -> bool:
        return bool(self._here) and not self._armed

    @property
    def moving(self) -> bool:
        return bool(self._here)

    @property
    def gives_up(self) -> bool:
        return self._armed

    def due(self) -> None:
        self._armed = False

    def add(self, item: Item, pending: deque[Batch]) -> bool:
        key = self._key(item)
        self._groups.setdefault(key, {}).setdefault(item[1], deque()).append(item)
        self._here.add(item[0])
        heappush(self._oldest, (item[5], item[0], key))
        if len(self._groups[key]) == len(self._slots):
            pending.append(self._leave(key))
        if len(self._oldest) > 2 * len(self._here) + FEW:
            self._oldest = sorted(entry for entry in self._oldest if entry[1] in self._here)
        return False

    def release(self, now: float, pending: deque[Batch]) -> Later | None:
        while not self._armed and self._here:
            time, number, key = self._oldest[0]
            if number not in self._here:
                heappop(self._oldest)
            elif now < time + self._seconds:
                if pending:
                    return None  # the mailbox asks again when these have been handed out
                self._armed = True
                return Later(time + self._seconds)
            else:
                batch = BatchWithMessage(self._leave(key))
                batch.message = INCOMPLETE
                pending.append(batch)
        return None

    def parked(self) -> Iterator[Item]:
        return iter(())

    def clear(self) -> None:
        self._groups.clear()
        self._oldest.clear()
        self._here.clear()

    def _leave(self, key: Hashable) -> Batch:
        batch = self._heads(key, self._groups[key])
        self._here.difference_update(item[0] for item in batch)
        return tuple(batch)


class _Interval(_Plain):
    """All that is queued, at most once per interval."""

    timed = False
    hurries = False  # the interval is a promise, and its timer releases the rest

    def __init__(self, slots: Sequence[str], seconds: float) -> None:
        self._items: deque[Item] = deque()
        self._seconds = seconds
        self._fired: float | None = None
        self._armed = False  # a timer will ask again

    @property
    def waiting(self) -> bool:
        return bool(self._items) and not self._armed

    @property
    def moving(self) -> bool:
        return bool(self._items)

    def due(self) -> None:
        self._armed = False

    def add(self, item: Item, pending: deque[Batch]) -> bool:
        self._items.append(item)
        return False

    def release(self, now: float, pending: deque[Batch]) -> Later | None:
        if not self._items:
            return None
        if self._fired is not None and now < self._fired + self._seconds:
            if self._armed:
                return None
            self._armed = True
            return Later(self._fired + self._seconds)
        self._fired = now
        pending.append(tuple(self._items))
        self._items.clear()
        return None

    def items(self) -> Iterator[Item]:
        return iter(self._items)

    def parked(self) -> Iterator[Item]:
        return iter(())

    def clear(self) -> None:
        self._items.clear()


class UserDecided(_Plain):
    """A policy written by the user, asked whenever something has arrived since its last word.

    Once a drain has asked it to release what it holds, every call says so until the drain is over.
    """

    timed = True

    def __init__(self, slots: Sequence[str], policy: ActivationPolicy) -> None:
        self._queues: dict[str, list[Item]] = {slot: [] for slot in slots}
        self._parked = dict.fromkeys(slots, 0)  # the oldest items of each slot that are counted as parked
        self._policy = policy
        self._fired: float | None = None
        self._fresh = False
        self._asked = False
        self._flushing = False
        self._declined = False  # the policy was asked to release what is here, and wants to wait
        self._edition = 0
        self._timers = 0  # that the policy asked for and that are not due yet

    @property
    def waiting(self) -> bool:
        return self._fresh and not self._asked

    @property
    def moving(self) -> bool:
        return self._fresh or self._asked or (self._timers > 0 and any(self._queues.values()))

    @property
    def hurries(self) -> bool:
        return not (self._fresh or self._asked or self._declined) and any(self._queues.values())

    def add(self, item: Item, pending: deque[Batch]) -> bool:
        self._queues[item[1]].append(item)
        self._fresh = True
        self._declined = False
        return False

    def release(self, now: float, pending: deque[Batch]) -> Decide | None:
        if not self.waiting:
            return None
        self._fresh, self._asked = False, True
        views = {slot: SlotView(slot, tuple(queue)) for slot, queue in self._queues.items()}
        shown = SlotViews(views, now=now, last_fired=self._fired, flushing=self._flushing)
        return Decide(self._policy, shown, self._edition)

    def decided(
        self, asked: Decide, decision: Decision, now: float, pending: deque[Batch]
    ) -> tuple[JobAccount, ...]:
        """Carry out what the policy said; return the jobs that came to rest by it."""
        if asked.edition != self._edition:
            return NONE
        self._asked = False
        if isinstance(decision, Fire):
            self._fired = now
            pending.append(self._take(decision))
            self._fresh = self._fresh or any(self._queues.values())
            return NONE
        if isinstance(decision, WaitUntil):
            self._unpark_all()
            self._timers += 1
            self._declined = asked.views.flushing
            return NONE
        if self._fresh:
            return NONE
        self._declined = asked.views.flushing
        return self._park_all()

    def oldest(self) -> Decision:
        """The decision to take just the oldest item: what a policy that failed is answered with."""
        heads = [(queue[0][0], slot) for slot, queue in self._queues.items() if queue]
        return Fire({min(heads)[1]: 1}) if heads else WAIT

    def due(self) -> None:
        self._timers -= 1
        self._fresh = any(self._queues.values())

    def flush(self, now: float, pending: deque[Batch]) -> bool:
        if not self.hurries:
            return False
        self._unpark_all()  # its answer may be an activation, so nothing of these jobs is at rest until then
        self._fresh = self._flushing = True
        return True

    def end_flush(self) -> None:
        self._flushing = self._declined = False

    def parked(self) -> Iterator[Item]:
        for slot, queue in self._queues.items():
            yield from queue[: self._parked[slot]]

    def items(self) -> Iterator[Item]:
        for queue in self._queues.values():
            yield from queue

    def clear(self) -> None:
        self._unpark_all()
        for queue in self._queues.values():
            queue.clear()
        self._fresh = self._asked = self._declined = False
        self._edition += 1

    def _take(self, fire: Fire) -> Batch:
        batch: list[Item] = []
        for slot, wanted in fire.take.items():
            queue, parked = self._queues[slot], self._parked[slot]
            positions = range(wanted) if isinstance(wanted, int) else wanted
            for position in positions:
                if position < parked:
                    queue[position][3].unpark()
                    self._parked[slot] -= 1
                batch.append(queue[position])
            for position in reversed(positions):
                del queue[position]
        if fire.message is None:
            return tuple(batch)
        with_message = BatchWithMessage(batch)
        with_message.message = fire.message
        return with_message

    def _park_all(self) -> tuple[JobAccount, ...]:
        ended: list[JobAccount] = []
        for slot, queue in self._queues.items():
            for item in queue[self._parked[slot] :]:
                ended.extend(item[3].park())
            self._parked[slot] = len(queue)
        return tuple(ended)

    def _unpark_all(self) -> None:
        for slot, queue in self._queues.items():
            for item in queue[: self._parked[slot]]:
                item[3].unpark()
            self._parked[slot] = 0


def _unpark(items: list[Item]) -> None:
    """Count parked items as active again; neighbours of one job together."""
    for account, same in groupby(items, key=_account):
        account.unpark(sum(1 for _ in same))


def _account(item: Item) -> Account:
    account: Account = item[3]
    return account


def _all_over(key: Any, account: JobAccount) -> bool:
    """Whether a key of jobs has this one, all of them have ended, and no more can be posted of any."""
    return account in key and all(member.status.finished and not member.named for member in key)


def _for_order(item: Item) -> Hashable:
    return None


def _by_job(item: Item) -> Hashable:
    members: tuple[JobAccount, ...] = item[3].members
    return members


def _by_payload_key(by: str, places: Mapping[str, str]) -> Callable[[Item], Hashable]:
    def key_of(item: Item) -> Hashable:
        try:
            key: Hashable = item[2][by]
            hash(key)
        except Exception:  # noqa: BLE001 a class of the user may raise anything
            return join_key(places.get(item[1], item[1]), item[2], by)
        return key

    return key_of


def _joined_by(by: str | None, places: Mapping[str, str]) -> Callable[[Item], Hashable]:
    if by is None:
        return _for_order
    return _by_job if by == "job" else _by_payload_key(by, places)


NO_PLACES: Mapping[str, str] = {}


def gathering_for(
    policy: ActivationPolicy, slots: Sequence[str], places: Mapping[str, str] = NO_PLACES
) -> Gathering | None:
    """The gathering of a policy; None for the immediate policy, whose every item is a batch of its own.

    ``places``: by slot, what it is called where it refuses an item, if that is more than its name.
    """
    match policy:
        case ImmediatePolicy():
            return None
        case AllSlotsReadyPolicy(by=by, timeout=float(seconds)):
            return _TimedSets(slots, _joined_by(by, places), seconds)
        case AllSlotsReadyPolicy(by=None):
            return _Sets(slots, 1, flushes=False)
        case AllSlotsReadyPolicy(by=by):
            return _KeyedSets(slots, _joined_by(by, places))
        case BatchSizePolicy(n=n, age=None, flush=flush):
            return _Sets(slots, n, flushes=flush)
        case BatchSizePolicy():
            return _AgedBatches(slots, policy)
        case TimeIntervalPolicy(seconds=seconds):
            return _Interval(slots, seconds)
        case _:
            return UserDecided(slots, policy)
