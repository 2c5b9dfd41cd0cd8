"""Activation policies: values that decide when a routine is activated, and on which of its items.

A policy decides and does not act. What its ``__call__`` says is the rule; a kernel may keep faster indexes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, ClassVar

from routilux.errors import InvalidTypeError, InvalidValueError, refused, shown, unknown
from routilux.model.checks import checked_flag
from routilux.model.decision import (
    WAIT,
    Decision,
    Fire,
    SlotView,
    SlotViews,
    Wait,
    WaitUntil,
    check_decision,
)
from routilux.model.value import Value

__all__ = [
    "INCOMPLETE", "POLICY_NAMES", "POLICY_NEEDS", "POLICY_OPTIONS", "WAIT", "ActivationPolicy",
    "AllSlotsReadyPolicy", "BatchSizePolicy", "CustomPolicy",
    "Decision", "Fire", "ImmediatePolicy", "SlotView", "SlotViews", "TimeIntervalPolicy", "Wait", "WaitUntil",
    "all_slots_ready_policy", "batch_size_policy", "check_decision", "custom_policy", "immediate_policy",
    "join_key", "lane_key", "lanes_problem", "policy_from_dict", "time_interval_policy",
]  # fmt: skip


INCOMPLETE = "incomplete"
"""The message of ``all_slots_ready_policy(timeout=...)`` for a set that it has given up."""


class ActivationPolicy(Value):
    """When a routine is activated. Subclass it for a rule of your own that can be named and compared.

    The fields of a subclass are its ``__slots__``, set in the constructor with ``self._init(name=value)``.
    ``user_code`` says that the rule may do anything, so it is called outside every lock.
    """

    __slots__ = ()
    name: ClassVar[str] = "policy"
    user_code: ClassVar[bool] = True

    def __call__(self, slots: SlotViews, state: Any) -> Decision:
        raise NotImplementedError(f"{type(self).__name__} must define __call__(slots, state)")

    def to_dict(self) -> dict[str, Any]:
        return {"policy": self.name}


class ImmediatePolicy(ActivationPolicy):
    """One activation per item, in the order of arrival over all slots."""

    __slots__ = ()
    name = "immediate"
    user_code = False

    def __call__(self, slots: SlotViews, state: Any) -> Decision:
        heads = [(view.ids[0], name) for name, view in slots.items() if view]
        return Fire({min(heads)[1]: 1}) if heads else WAIT


class AllSlotsReadyPolicy(ActivationPolicy):
    """When every slot has an item, the oldest of each.

    ``by="job"`` joins only items of one job, any other ``by`` only items with an equal payload value under
    that key. Of several complete sets the one that was completed first goes first.

    A set whose oldest item is ``timeout`` seconds old and that is not complete leaves, with the message
    ``"incomplete"``: through the routine's event ``incomplete`` if it has one, else as dead letters.
    """

    __slots__ = ("by", "timeout")  # in the order of the constructor
    name = "all_slots_ready"
    user_code = False
    by: str | None
    timeout: float | None

    def __init__(self, by: str | None = None, timeout: float | None = None) -> None:
        if by is not None and (not isinstance(by, str) or not by):
            raise refused(InvalidTypeError, "all_slots_ready_policy(by)", by, 'None, "job" or a payload key')
        self._init(by=by, timeout=_seconds("all_slots_ready_policy(timeout)", timeout))

    def __call__(self, slots: SlotViews, state: Any) -> Decision:
        groups = self._groups(slots)
        complete = [group for group in groups if len(group) == len(slots)]
        if complete:
            ids = {name: view.ids for name, view in slots.items()}
            first = min(complete, key=lambda group: max(ids[name][at] for name, at in group.items()))
            return Fire(
                dict.fromkeys(slots, 1) if self.by is None else {name: (first[name],) for name in slots}
            )
        if self.timeout is None or not groups:
            return WAIT
        times = {name: view.times for name, view in slots.items()}
        age = [min(times[name][at] for name, at in group.items()) for group in groups]
        due = min(age) + self.timeout
        if slots.now < due:
            return WaitUntil(due)
        return Fire({name: (at,) for name, at in groups[age.index(min(age))].items()}, INCOMPLETE)

    def _groups(self, slots: SlotViews) -> list[dict[str, int]]:
        """What belongs together: by slot, the position of the oldest item."""
        groups: dict[Hashable, dict[str, int]] = {}
        for name, view in slots.items():
            for key, position in _oldest_by_key(view, self.by).items():
                groups.setdefault(key, {})[name] = position
        return list(groups.values())

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | _given(by=self.by, timeout=self.timeout)


class BatchSizePolicy(ActivationPolicy):
    """When every slot has ``n`` items, exactly ``n`` of each; once the oldest is ``age`` seconds old, at most ``n``.

    On drain the rest at once, at most ``n`` of each, if ``flush`` is true.
    """

    __slots__ = ("n", "age", "flush")  # in the order of the constructor
    name = "batch_size"
    user_code = False
    n: int
    age: float | None
    flush: bool

    def __init__(self, n: int, age: float | None = None, flush: bool = True) -> None:
        if type(n) is not int:
            raise refused(InvalidTypeError, "batch_size_policy(n)", n, "a whole number of items")
        if n < 1:
            raise refused(InvalidValueError, "batch_size_policy(n)", n, "at least 1 item")
        if isinstance(age, bool):
            fix = f"write flush={age} for whether a drain releases the rest"
            raise refused(
                InvalidTypeError, "batch_size_policy(age)", age, "a number of seconds or None", fix=fix
            )
        checked_flag("batch_size_policy(flush)", flush)
        self._init(n=n, age=_seconds("batch_size_policy(age)", age), flush=flush)

    def __call__(self, slots: SlotViews, state: Any) -> Decision:
        if slots and all(len(view) >= self.n for view in slots.values()):
            return Fire(dict.fromkeys(slots, self.n))
        rest = {name: min(self.n, count) for name, count in slots.take_all().items()}
        if not rest or (slots.flushing and self.flush):
            return Fire(rest) if rest else WAIT
        if self.age is None:
            return WAIT
        due = min(slots[name].times[0] for name in rest) + self.age
        return Fire(rest) if slots.now >= due else WaitUntil(due)

    def to_dict(self) -> dict[str, Any]:
        return (
            super().to_dict() | {"size": self.n} | _given(age=self.age, flush=None if self.flush else False)
        )


class TimeIntervalPolicy(ActivationPolicy):
    """At most once per interval, all that is queued. The first item goes at once, the rest at its end.

    A drain does not hurry it: it waits for the end of the interval.
    """

    __slots__ = ("seconds",)
    name = "time_interval"
    user_code = False
    seconds: float

    def __init__(self, seconds: float) -> None:
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            raise refused(InvalidTypeError, "time_interval_policy(seconds)", seconds, "a number of seconds")
        if not 0 <= seconds < float("inf"):
            raise refused(InvalidValueError, "time_interval_policy(seconds)", seconds, "0 seconds or more")
        self._init(seconds=float(seconds))

    def __call__(self, slots: SlotViews, state: Any) -> Decision:
        queued = slots.take_all()
        if not queued:
            return WAIT
        due = slots.now if slots.last_fired is None else slots.last_fired + self.seconds
        return Fire(queued) if slots.now >= due else WaitUntil(due)

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"seconds": self.seconds}


class CustomPolicy(ActivationPolicy):
    """``fn(slots, state)`` decides.

    It returns a decision; or a bool, where ``True`` takes all that is queued; or ``(should_activate,
    data_slice, message)``, where ``data_slice`` maps slots to lists of payloads, of which only the lengths
    count: that many of the oldest are taken. ``None`` for ``data_slice`` takes all. What ``fn`` consumed
    through the views goes before either.
    """

    __slots__ = ("fn",)
    name = "custom"
    fn: Callable[[SlotViews, Any], Any]

    def __init__(self, fn: Callable[[SlotViews, Any], Any]) -> None:
        if not callable(fn):
            raise refused(InvalidTypeError, "custom_policy(fn)", fn, "a callable fn(slots, state)")
        self._init(fn=fn)

    def __call__(self, slots: SlotViews, state: Any) -> Decision:
        match self.fn(slots, state):
            case Fire() | Wait() | WaitUntil() as decision:
                return decision
            case bool(should_activate):
                return _activate(should_activate, None, None, slots)
            case (bool(should_activate), (None | Mapping()) as data_slice, message):
                return _activate(should_activate, data_slice, message, slots)
            case answer:
                raise InvalidTypeError(
                    f"custom policy {self._fn_name()} returned {shown(answer)}; return True or False, "
                    "Fire(take, message), WAIT, WaitUntil(time), or (should_activate, data_slice, message)"
                )

    def to_dict(self) -> dict[str, Any]:
        """Names the function, for people to read; a policy is never made from a name in a file."""
        return super().to_dict() | {"fn": self._fn_name()}

    def _fn_name(self) -> str:
        fn = self.fn
        return f"{getattr(fn, '__module__', '?')}.{getattr(fn, '__qualname__', type(fn).__qualname__)}"


def immediate_policy() -> ImmediatePolicy:
    return ImmediatePolicy()


def all_slots_ready_policy(by: str | None = None, timeout: float | None = None) -> AllSlotsReadyPolicy:
    return AllSlotsReadyPolicy(by, timeout)


def batch_size_policy(n: int, age: float | None = None, flush: bool = True) -> BatchSizePolicy:
    return BatchSizePolicy(n, age, flush)


def time_interval_policy(seconds: float) -> TimeIntervalPolicy:
    return TimeIntervalPolicy(seconds)


def custom_policy(fn: Callable[[SlotViews, Any], Any]) -> CustomPolicy:
    return CustomPolicy(fn)


_FROM_DICT: dict[str, tuple[Callable[..., ActivationPolicy], dict[str, str]]] = {
    "immediate": (ImmediatePolicy, {}),
    "all_slots_ready": (AllSlotsReadyPolicy, {"by": "by", "timeout": "timeout"}),
    "batch_size": (BatchSizePolicy, {"size": "n", "age": "age", "flush": "flush"}),
    "time_interval": (TimeIntervalPolicy, {"seconds": "seconds"}),
}

POLICY_NAMES = tuple(_FROM_DICT)
"""The policies that can be written in a document."""
POLICY_OPTIONS = {name: tuple(arguments) for name, (_, arguments) in _FROM_DICT.items()}
"""What each of them takes there."""
POLICY_NEEDS: dict[str, dict[str, Any]] = {"batch_size": {"size": 1}, "time_interval": {"seconds": 1.0}}
"""What those of them that cannot do without an option need, with a value that is accepted."""


def policy_from_dict(data: Mapping[str, Any]) -> ActivationPolicy:
    """The policy that :meth:`ActivationPolicy.to_dict` wrote; not for custom policies, whose rule is code."""
    name = data.get("policy")
    if name not in _FROM_DICT:
        fix = "set a custom policy in Python, with set_activation_policy()" if name == "custom" else ""
        raise unknown("activation policy", name, _FROM_DICT, where="that a document can name", fix=fix)
    make, arguments = _FROM_DICT[name]
    for key in data.keys() - {"policy"}:
        if key not in arguments:
            raise unknown("option", key, arguments, where=f"of activation policy {name!r}")
    for needed in POLICY_NEEDS.get(name, {}):
        if needed not in data:
            raise InvalidValueError(f"activation policy {name!r} needs {needed!r}")
    return make(**{arguments[key]: value for key, value in data.items() if key != "policy"})


def _seconds(what: str, value: Any) -> float | None:
    """A time that may be left out, in seconds."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise refused(InvalidTypeError, what, value, "a number of seconds or None")
    if not 0 <= value < float("inf"):
        raise refused(InvalidValueError, what, value, "0 seconds or more")
    return float(value)


def _given(**options: Any) -> dict[str, Any]:
    """The options of a policy that are not left at None."""
    return {name: value for name, value in options.items() if value is not None}


def _activate(
    should_activate: bool, data_slice: Mapping[str, Sequence[Any]] | None, message: Any, slots: SlotViews
) -> Decision:
    if not should_activate:
        return WAIT
    take = slots.take_consumed()
    if not take:
        sizes = None if data_slice is None else {slot: len(data) for slot, data in data_slice.items()}
        take = slots.take_all() if sizes is None else sizes
    return Fire(take, message) if take or data_slice is not None else WAIT


def _oldest_by_key(view: SlotView, by: str | None) -> dict[Hashable, int]:
    """The position of the oldest item with each key; of all of them without a key."""
    if by is None:
        return {None: 0} if view else {}
    keys = view.jobs if by == "job" else [join_key(view.name, payload, by) for payload in view]
    return {key: position for position, key in reversed(list(enumerate(keys)))}


def join_key(slot: str, payload: Mapping[str, Any], by: str) -> Hashable:
    """The value that ``all_slots_ready_policy(by)`` joins a payload by; an error if it cannot be one."""
    return _payload_key(slot, payload, by, "to join", "is joined by", "or join by='job'")


def lane_key(slot: str, payload: Mapping[str, Any], by: str) -> Hashable:
    """The value that ``set_concurrency(n, by=)`` keeps apart; an error if it cannot be one."""
    fix = "or set the concurrency without by"
    return _payload_key(slot, payload, by, "to order", "is ordered by", fix)


def _payload_key(
    slot: str, payload: Mapping[str, Any], by: str, purpose: str, used: str, else_: str
) -> Hashable:
    if by not in payload:
        fix = f"emit {by!r} too, {else_}"
        raise unknown("payload key", by, map(str, payload), where=f"{purpose} slot {slot!r} by", fix=fix)
    key = payload[by]
    try:
        hash(key)
    except Exception:  # noqa: BLE001 a class of the user may raise anything
        where = f"payload key {by!r} that slot {slot!r} {used}"
        raise refused(InvalidValueError, where, key, "something hashable, such as text or a number") from None
    return key  # type: ignore[no-any-return]


def lanes_problem(policy: ActivationPolicy, by: str) -> tuple[str, str] | None:
    """Why activations of a policy have no single value of a payload key, and the fix; None if they have one."""
    if isinstance(policy, ImmediatePolicy):
        return None
    if isinstance(policy, AllSlotsReadyPolicy):
        if policy.by == by:
            return None
        joins = "one item of each slot" if policy.by is None else f"items joined by {policy.by!r}"
        fix = f"join them by the same key: all_slots_ready_policy(by={by!r})"
    else:
        joins = "several items" if policy.name in POLICY_NAMES else "any items"
        fix = "use immediate_policy()"
    took = f"an activation takes {joins}, which may differ in {by!r}"
    return took, f"{fix}, or set the concurrency without by"
