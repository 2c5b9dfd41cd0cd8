"""Lanes: activations of one routine side by side, one at a time and in order per key.

A batch whose key is free goes to ``pending``, the mailbox's queue of what may be started, and takes its key with it.
Those that come behind it wait in the lane of that key until its activation has ended for good; a retry, a gate or a
paused job therefore holds back its own key and no other. What is in ``pending`` can all run side by side.

Every method runs under the mailbox's lock. The key is read when an item comes in, and once more when its activation is
made, before logic has seen the payload; afterwards it is the activation that remembers it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

from routilux.errors import InvalidValueError
from routilux.kernel.account import JobAccount
from routilux.kernel.gathering import NO_PLACES, Batch, Decide, Gathering, Later, gathering_for
from routilux.model.item import Item
from routilux.model.policy import ActivationPolicy, lane_key


class Lanes:
    """A gathering around the one of the policy, which is None for the immediate policy.

    ``by`` is a payload key, or ``"job"`` for one activation of a job at a time.
    """

    def __init__(self, by: str, inner: Gathering | None, places: Mapping[str, str] = NO_PLACES) -> None:
        self._places = places
        self._by = None if by == "job" else by
        self.inner = inner
        self.timed = inner is not None and inner.timed
        self._complete: deque[Batch] = deque()  # what the inner gathering has just released
        # By key: what waits behind the batch that is pending or was handed out; None as long as nothing does.
        self._behind: dict[Hashable, deque[Batch] | None] = {}
        self._barred: set[Hashable] = (
            set()
        )  # keys whose next item a paused job keeps back: nothing else has them
        self._again: list[Hashable] = []  # of retries that had begun together before the routine had lanes
        self._kept: set[Hashable] = set()  # what :meth:`clear` leaves

    # -- as a gathering ------------------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        return self.inner is not None and self.inner.waiting

    @property
    def moving(self) -> bool:
        return self.inner is not None and self.inner.moving

    def due(self) -> None:
        if self.inner is not None:
            self.inner.due()

    def add(self, item: Item, pending: deque[Batch]) -> bool:
        if self.inner is None:
            self._line_up(self.key_of(item), (item,), pending)
            return False
        self.key_of(item)  # refused before anything changes
        parked = self.inner.add(item, self._complete)
        self._line_up_complete(pending)
        return parked

    def release(self, now: float, pending: deque[Batch]) -> Later | Decide | None:
        if self.inner is None:
            return None
        answer = self.inner.release(now, self._complete)
        self._line_up_complete(pending)
        return answer

    def flush(self, now: float, pending: deque[Batch]) -> bool:
        if self.inner is None or not self.inner.flush(now, self._complete):
            return False
        self._line_up_complete(pending)
        return True

    def items(self) -> Iterator[Item]:
        for waiting in self._behind.values():
            for batch in waiting or ():
                yield from batch
        if self.inner is not None:
            yield from self.inner.items()

    def parked(self) -> Iterator[Item]:
        return iter(()) if self.inner is None else self.inner.parked()

    def incomplete(self, account: JobAccount) -> list[Item]:
        return [] if self.inner is None else self.inner.incomplete(account)

    def end_flush(self) -> None:
        if self.inner is not None:
            self.inner.end_flush()

    @property
    def gives_up(self) -> bool:
        return self.inner is not None and self.inner.gives_up

    @property
    def hurries(self) -> bool:
        return self.inner is not None and self.inner.hurries

    @property
    def gathered(self) -> Iterator[Item]:
        """What waits for other items, and not for its key."""
        return iter(()) if self.inner is None else self.inner.items()

    def clear(self) -> None:
        """Forget what is queued. What was handed out keeps its key, and so does what a paused job keeps back."""
        self._behind = dict.fromkeys(self._kept)
        if self.inner is not None:
            self.inner.clear()

    # -- keys ----------------------------------------------------------------------------------------------

    def key_of(self, item: Item) -> Hashable:
        by = self._by
        if by is None:
            members: Hashable = item[3].members
            return members
        try:
            key: Hashable = item[2][by]
            hash(key)
        except Exception:  # noqa: BLE001 a class of the user may raise anything
            return lane_key(self._places.get(item[1], item[1]), item[2], by)
        return key

    def take_again(self, batch: Batch) -> Hashable:
        """An activation of another time comes back, to be tried again; what is queued comes behind it.

        Logic may have taken the key out of its payload, or may have begun before there were lanes: then it is alone.
        """
        try:
            key = self.key_of(batch[0])
        except InvalidValueError:
            key = object()
        if key in self._behind:
            self._again.append(key)
        else:
            self._behind[key] = None
        return key

    def give_back(self, key: Hashable, pending: deque[Batch]) -> None:
        """The activation that had this key has ended for good: the next one of its lane may start."""
        if self._again and key in self._again:
            self._again.remove(key)
            return
        waiting = self._behind[key]
        if waiting:
            pending.append(waiting.popleft())
        else:
            del self._behind[key]

    def next_of(self, key: Hashable) -> Batch | None:
        """What is pending as soon as the activation that has this key gives it back."""
        waiting = self._behind[key]
        return waiting[0] if waiting and key not in self._again else None

    def bar(self, held: Iterable[Item], pending: Iterable[Batch]) -> None:
        """Paused jobs keep just these items back, and with them their keys. To be followed by :meth:`clear`."""
        queued = {self.key_of(batch[0]) for batch in pending}
        handed_out = self._behind.keys() - queued - self._barred
        self._barred = {self.key_of(item) for item in held}
        self._kept = handed_out | self._barred

    def crowd(self) -> tuple[Hashable, int] | None:
        """The key that most of what is queued waits for, and how many activations wait for it; None if none does."""
        lanes = ((len(waiting), key) for key, waiting in self._behind.items() if waiting)
        waiting, key = max(lanes, key=lambda lane: lane[0], default=(0, None))
        return (key, waiting) if waiting else None

    # -- lining up -----------------------------------------------------------------------------------------

    def _line_up_complete(self, pending: deque[Batch]) -> None:
        while self._complete:
            batch = self._complete.popleft()
            self._line_up(self.key_of(batch[0]), batch, pending)

    def _line_up(self, key: Hashable, batch: Batch, pending: deque[Batch]) -> None:
        behind = self._behind
        if key not in behind:
            behind[key] = None
            pending.append(batch)
        elif (waiting := behind[key]) is None:
            behind[key] = deque((batch,))
        else:
            waiting.append(batch)


def lanes_for(
    policy: ActivationPolicy, slots: Sequence[str], by: str | None, places: Mapping[str, str] = NO_PLACES
) -> Gathering | None:
    """The gathering of a policy, in lanes if ``by`` is given; ``places``: see :func:`gathering_for`."""
    inner = gathering_for(policy, slots, places)
    return inner if by is None else Lanes(by, inner, places)
