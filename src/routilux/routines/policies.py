"""The activation policies of the built-in routines: values made of their config."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

from routilux.activation_policies import (
    WAIT,
    ActivationPolicy,
    Decision,
    Fire,
    SlotView,
    SlotViews,
    WaitUntil,
)
from routilux.expressions import ExpressionError
from routilux.routines.settings import Unsuitable, key_of, key_text

NO_KEY = "no key"
"""The message of a policy for an item alone that has no key, which its logic refuses."""
FLUSH = "flush"
"""The message of a policy that releases what is held: nothing more is to come for now."""


class HoldLast(ActivationPolicy):
    """All but the newest item at once; on drain the newest too, with the message ``"flush"``.

    So a routine that sums up sees its items as they come, keeps few of them queued, and is told of the end.
    """

    __slots__ = ()
    name = "hold_last"

    def __call__(self, slots: SlotViews, state: Any) -> Decision:
        queued = len(slots["input"])
        if slots.flushing and queued:
            return Fire({"input": queued}, FLUSH)
        return Fire({"input": queued - 1}) if queued > 1 else WAIT


class Stamped(ActivationPolicy):
    """One item at a time, with the message ``(now, time of the item)`` in monotonic seconds."""

    __slots__ = ()
    name = "stamped"

    def __call__(self, slots: SlotViews, state: Any) -> Decision:
        view = slots["input"]
        return Fire({"input": 1}, (slots.now, view.times[0])) if view else WAIT


class AfterDelay(ActivationPolicy):
    """Every item when it is ``seconds`` old."""

    __slots__ = ("seconds",)
    name = "after_delay"
    seconds: float

    def __init__(self, seconds: float) -> None:
        self._init(seconds=float(seconds))

    def __call__(self, slots: SlotViews, state: Any) -> Decision:
        return _when_old(slots["input"].times, self.seconds, slots.now)


class AfterQuiet(ActivationPolicy):
    """The newest item of a key once ``seconds`` have passed without another; older ones of the key at once.

    The message is ``"superseded"`` for the older ones.
    """

    __slots__ = ("seconds", "key")
    name = "after_quiet"
    seconds: float
    key: str | None

    def __init__(self, seconds: float, key: str | None = None) -> None:
        self._init(seconds=float(seconds), key=key)

    def __call__(self, slots: SlotViews, state: Any) -> Decision:
        view = slots["input"]
        newest = {key: position for position, key in enumerate(keys_of(view, self.key))}
        if len(newest) < len(view):
            kept = set(newest.values())
            first = next(position for position in range(len(view)) if position not in kept)
            return Fire({"input": (first,)}, "superseded")
        return _when_old(view.times, self.seconds, slots.now)


class AtRate(ActivationPolicy):
    """One item at a time, with at least ``seconds`` between two."""

    __slots__ = ("seconds",)
    name = "at_rate"
    seconds: float

    def __init__(self, seconds: float) -> None:
        self._init(seconds=float(seconds))

    def __call__(self, slots: SlotViews, state: Any) -> Decision:
        if not slots["input"]:
            return WAIT
        due = slots.now if slots.last_fired is None else slots.last_fired + self.seconds
        return Fire({"input": 1}) if slots.now >= due else WaitUntil(due)


class Join(ActivationPolicy):
    """Items of ``need`` different slots that belong together: the oldest of each slot.

    ``by`` is ``"order"``, ``"job"`` or ``"key"``. What stays incomplete is released after ``timeout`` seconds and
    on drain, what has no key at once. The message is ``"complete"``, ``"timeout"``, ``"flush"`` or ``"no key"``.
    """

    __slots__ = ("need", "by", "key", "timeout")
    name = "join"
    need: int
    by: str
    key: str | None
    timeout: float | None

    def __init__(self, need: int, by: str, key: str | None = None, timeout: float | None = None) -> None:
        self._init(need=need, by=by, key=key, timeout=timeout)

    def __call__(self, slots: SlotViews, state: Any) -> Decision:
        by_key = self._groups(slots)
        if not by_key:
            return WAIT
        keyless = next((key for key in by_key if isinstance(key, NoKey)), None)
        if keyless is not None:
            return _fire(by_key[keyless], NO_KEY)
        groups = list(by_key.values())
        complete = [group for group in groups if len(group) >= self.need]
        if complete:
            return _fire(min(complete, key=lambda group: completed_at(group, slots, self.need)), "complete")
        due = [(oldest(group, slots), number) for number, group in enumerate(groups)]
        time, first = min(due)
        if self.timeout is not None and time + self.timeout <= slots.now:
            return _fire(groups[first], "timeout")
        if slots.flushing:
            return _fire(groups[first], FLUSH)
        return WAIT if self.timeout is None else WaitUntil(time + self.timeout)

    def _groups(self, slots: SlotViews) -> dict[Hashable, dict[str, int]]:
        """By key what belongs together: by slot, the position of the oldest item."""
        groups: dict[Hashable, dict[str, int]] = {}
        for name, view in slots.items():
            for position, key in enumerate(self._keys(view)):
                groups.setdefault(key, {}).setdefault(name, position)
        return groups

    def _keys(self, view: SlotView) -> list[Hashable]:
        if self.by == "order":
            return [0] * min(1, len(view))
        if self.by == "job":
            return list(view.jobs)
        return keys_of(view, self.key)


class Decided(ActivationPolicy):
    """A decision with the item that it is about; an item alone after ``timeout`` seconds.

    The message is ``"decided"``, ``"unmatched"`` for a decision about nothing that waits, ``"unclear"`` for one
    that does not say yes or no, ``"expired"``, or ``"no key"`` for an item that no decision could name.
    """

    __slots__ = ("key", "timeout")
    name = "decided"
    key: str | None
    timeout: float | None

    def __init__(self, key: str | None = None, timeout: float | None = None) -> None:
        self._init(key=key, timeout=timeout)

    def __call__(self, slots: SlotViews, state: Any) -> Decision:
        waiting, decisions = slots["input"], slots["decision"]
        keys = keys_of(waiting, self.key)
        keyless = next((at for at, key in enumerate(keys) if isinstance(key, NoKey)), None)
        if keyless is not None:
            return Fire({"input": (keyless,)}, NO_KEY)
        if decisions:
            return self._decided(decisions[0], keys)
        if self.timeout is None or not waiting:
            return WAIT
        answer = _when_old(waiting.times, self.timeout, slots.now)
        return answer._replace(message="expired") if isinstance(answer, Fire) else answer

    def _decided(self, decision: dict[str, Any], keys: list[Hashable]) -> Decision:
        if type(decision.get("approved")) is not bool:
            return Fire({"decision": 1}, "unclear")
        wanted = None if self.key is None else _key_given(decision)
        if keys and (self.key is None or wanted in keys):
            at = 0 if self.key is None else keys.index(wanted)
            return Fire({"input": (at,), "decision": 1}, "decided")
        return Fire({"decision": 1}, "unmatched")


def _when_old(times: Sequence[float], seconds: float, now: float) -> Decision:
    """The oldest item when it is so old. Alone: what is emitted for it belongs to its job and no other."""
    if not times:
        return WAIT
    due = min(times) + seconds
    return Fire({"input": (times.index(min(times)),)}) if due <= now else WaitUntil(due)


class NoKey(NamedTuple):
    """Stands for the key of an item that has none; equal to no other."""

    item: int


def keys_of(view: SlotView, text: str | None) -> list[Hashable]:
    """A key for each item of a slot."""
    return [_key(payload, text, number) for payload, number in zip(view, view.ids, strict=True)]


def completed_at(group: dict[str, int], slots: SlotViews, need: int) -> int:
    """The number of the item that made the group complete."""
    return sorted(slots[name].ids[position] for name, position in group.items())[need - 1]


def oldest(group: dict[str, int], slots: SlotViews) -> float:
    return min(slots[name].times[position] for name, position in group.items())


def _key(payload: dict[str, Any], text: str | None, number: int) -> Hashable:
    try:
        return _comparable(key_of(text, payload))
    except (ExpressionError, Unsuitable):
        return NoKey(number)


def _key_given(decision: dict[str, Any]) -> Hashable:
    try:
        return _comparable(decision.get("key"))
    except Unsuitable:
        return None


def _comparable(value: Any) -> Hashable:
    """Equal for equal keys, and only for those: ``1``, ``1.0``, ``True`` and ``"1"`` are four."""
    kind = type(value)
    return (kind, value) if kind is str or kind is int else key_text(value)


def _fire(group: dict[str, int], message: str) -> Fire:
    return Fire({name: (position,) for name, position in group.items()}, message)
