"""What a policy is shown, and what it may answer."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple, TypeAlias, overload

from routilux.errors import InvalidTypeError, InvalidValueError, refused, unknown
from routilux.model.item import Item, Payload


class Fire(NamedTuple):
    """Activate the routine now, on these items.

    ``take`` says by slot what is taken: a number takes that many of the oldest, a sequence of positions takes
    just those (ascending, 0 is the oldest). ``message`` is handed to the logic as ``policy_message``.
    """

    take: Mapping[str, int | Sequence[int]]
    message: Any = None


class Wait:
    """Not before something else arrives. Use the one instance, ``WAIT``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "WAIT"

    def __reduce__(self) -> str:
        return "WAIT"


WAIT: Final = Wait()


class WaitUntil(NamedTuple):
    """Ask again at this time (the ``now`` of the views: monotonic seconds), or when something arrives."""

    time: float


Decision: TypeAlias = Fire | Wait | WaitUntil


class SlotView(Sequence[Payload]):
    """The payloads queued in one slot, oldest first; read-only.

    ``ids``, ``jobs`` and ``times`` run parallel to the payloads: the numbers of the items, a key that is equal
    for items of the same job or jobs, and when the activation that emitted them began, or they were posted
    (monotonic seconds, like the ``now`` of the views). ``consumed`` counts what the policy means to take, as
    noted by :meth:`consume_one_new` and :meth:`consume_all_new`; nothing leaves the queue unless the policy
    activates.
    """

    __slots__ = ("_items", "consumed", "name")

    def __init__(self, name: str, items: Sequence[Item]) -> None:
        self.name = name
        self.consumed = 0
        self._items = items

    @property
    def ids(self) -> Sequence[int]:
        return [item[0] for item in self._items]

    @property
    def jobs(self) -> Sequence[Any]:
        return [getattr(item[3], "members", item[3]) for item in self._items]

    @property
    def times(self) -> Sequence[float]:
        return [item[5] for item in self._items]

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Payload]:
        return (item[2] for item in self._items)

    @overload
    def __getitem__(self, index: int) -> Payload: ...
    @overload
    def __getitem__(self, index: slice) -> list[Payload]: ...
    def __getitem__(self, index: int | slice) -> Payload | list[Payload]:
        if isinstance(index, slice):
            return [item[2] for item in self._items[index]]
        return self._items[index][2]

    def __repr__(self) -> str:
        return f"SlotView({self.name!r}, {list(self)!r})"

    def get_unconsumed_count(self) -> int:
        return len(self._items) - self.consumed

    def consume_all_new(self) -> list[Payload]:
        """Mean to take all that is left; return it."""
        new = self[self.consumed :]
        self.consumed = len(self._items)
        return new

    def consume_one_new(self) -> Payload | None:
        """Mean to take the oldest that is left; return it, or ``None`` if nothing is."""
        if self.consumed == len(self._items):
            return None
        self.consumed += 1
        return self[self.consumed - 1]


class SlotViews(Mapping[str, SlotView]):
    """All slots of a routine as its policy sees them.

    ``now`` and ``last_fired`` are monotonic seconds; ``last_fired`` is ``None`` before the first activation.
    ``flushing``: the worker drains and asks to release what would otherwise wait for more.
    """

    __slots__ = ("_views", "flushing", "last_fired", "now")

    def __init__(
        self,
        views: Mapping[str, SlotView],
        *,
        now: float,
        last_fired: float | None = None,
        flushing: bool = False,
    ) -> None:
        self._views = views
        self.now = now
        self.last_fired = last_fired
        self.flushing = flushing

    def __getitem__(self, slot: str) -> SlotView:
        view = self._views.get(slot)
        if view is None:
            raise unknown("slot", slot, self._views, where="of this routine")
        return view

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def __repr__(self) -> str:
        return f"SlotViews({dict(self._views)!r}, now={self.now!r})"

    def take_all(self) -> dict[str, int]:
        """All that is queued, in the form that :class:`Fire` takes."""
        return {name: len(view) for name, view in self._views.items() if len(view)}

    def take_consumed(self) -> dict[str, int]:
        """What the views were told to consume, in the form that :class:`Fire` takes."""
        return {name: view.consumed for name, view in self._views.items() if view.consumed}


def check_decision(decision: object, views: SlotViews) -> Decision:
    """Return the decision; raise a ``ConfigurationError`` if what is queued does not allow it."""
    if isinstance(decision, (Wait, WaitUntil)):
        return decision
    if not isinstance(decision, Fire):
        expected = "Fire, WAIT or WaitUntil"
        raise refused(InvalidTypeError, "the answer of an activation policy", decision, expected)
    if not isinstance(decision.take, Mapping):
        expected = "a mapping of slot to number or positions"
        raise refused(InvalidTypeError, "Fire.take", decision.take, expected)
    taken = sum(_checked_take(views[slot], wanted) for slot, wanted in decision.take.items())
    if not taken:
        raise InvalidValueError("Fire takes nothing; take at least one item, or answer WAIT")
    return decision


def _checked_take(view: SlotView, wanted: object) -> int:
    where = f"Fire.take[{view.name!r}]"
    if isinstance(wanted, int) and not isinstance(wanted, bool):
        if not 0 <= wanted <= len(view):
            raise refused(InvalidValueError, where, wanted, f"0 to {len(view)} items, all that is queued")
        return wanted
    if isinstance(wanted, Sequence) and all(type(position) is int for position in wanted):
        ascending = all(before < after for before, after in pairwise(wanted))
        if not ascending or (wanted and not 0 <= wanted[0] <= wanted[-1] < len(view)):
            raise refused(InvalidValueError, where, wanted, f"ascending positions from 0 to {len(view) - 1}")
        return len(wanted)
    raise refused(InvalidTypeError, where, wanted, "a number of items or a sequence of positions")
