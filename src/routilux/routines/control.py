"""Built-in routines for control flow: where items go, when, and together with which others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from math import isqrt
from typing import Any

from routilux import ConfigurationError
from routilux.activation_policies import ActivationPolicy, batch_size_policy
from routilux.routines.policies import (
    NO_KEY,
    AfterDelay,
    AfterQuiet,
    AtRate,
    Decided,
    Join,
    Stamped,
)
from routilux.routines.settings import (
    Configured,
    EachItem,
    Payload,
    SlotData,
    Unsuitable,
    expression,
    key_of,
    key_text,
    refusal_of_key,
    setting,
    value_of,
)

MOST_QUEUED = 1_000
"""What a slot holds unless it is told otherwise; a batch cannot be larger."""

MOST_AHEAD = 1_000_000_000
"""What a slot of a merge by order holds: everything that a branch is ahead of the others."""


# -- branch ------------------------------------------------------------------------------------------------


@dataclass
class Route:
    name: str = setting("the event that the payload goes to")
    when: str = expression("the condition")


@dataclass
class BranchConfig:
    routes: list[Route] = setting("conditions, asked in this order", default_factory=list)
    default: str = setting("the event for what no condition holds for", default="default", min=1)
    mode: str = setting(
        "go to the first route whose condition holds, or to all", default="first", choices=("first", "all")
    )


class Branch(EachItem[BranchConfig]):
    """Sends each payload to the event of the first condition that holds, or of every one."""

    config_type = BranchConfig

    def declare(self) -> None:
        self.add_slot("input")
        self.add_event("error", ["reason", "payload"])

    def prepare(self, settings: BranchConfig) -> None:
        settings.routes = [_route(route) for route in settings.routes]
        if "error" in {settings.default, *(route.name for route in settings.routes)}:
            raise ConfigurationError("a route of 'branch' cannot be named 'error', which is its own event")
        for name in (*(route.name for route in settings.routes), settings.default):
            if name not in self.events:
                self.add_event(name)

    def treat(self, payload: Payload, state: Any) -> None:
        settings = self.settings
        found = (route.name for route in settings.routes if value_of(route.when, payload))
        names = list(found) if settings.mode == "all" else [name for name in [next(found, None)] if name]
        for name in dict.fromkeys(names) or [settings.default]:
            self.emit(name, **payload)


def _route(given: Route | Mapping[str, Any]) -> Route:
    return given if isinstance(given, Route) else Route(**given)


# -- merge -------------------------------------------------------------------------------------------------


@dataclass
class MergeConfig:
    inputs: list[str] = setting("the slots that are joined", min=1)
    need: str | int = setting("how many slots must have an item: 'all', 'any' or a number", default="all")
    by: str = setting(
        "what belongs together: the oldest of each slot, items of one job, or items with an equal key",
        default="order",
        choices=("order", "job", "key"),
    )
    key: str | None = expression("the key, with by: key", default=None)
    timeout: float | None = setting("seconds until an incomplete group is given up", default=None, min=0)
    shape: str = setting(
        "give one key per slot, or the keys of all payloads in one; of equal ones the later slot's",
        default="nested",
        choices=("nested", "flat"),
    )


class Merge(Configured[MergeConfig]):
    """Joins items of several slots into one payload; what stays incomplete goes to ``incomplete``."""

    config_type = MergeConfig

    def declare(self) -> None:
        self.add_event("output")
        self.add_event("incomplete", ["reason", "missing", "payload"])
        self.add_event("error", ["reason", "payload"])

    def prepare(self, settings: MergeConfig) -> None:
        if settings.by == "key" and settings.key is None:
            raise ConfigurationError("merge with by: key needs 'key', an expression such as \"order_id\"")
        if settings.by != "key" and settings.key is not None:
            raise ConfigurationError(f"merge has a 'key' and by: {settings.by}; write by: key")
        _needed(settings)
        _refuse_other_inputs(settings.inputs, self.slots)
        for name in settings.inputs:
            if name not in self.slots:
                length = MOST_AHEAD if _in_order(settings) else MOST_QUEUED
                self.add_slot(name, max_queue_length=length)

    def policy(self, settings: MergeConfig) -> ActivationPolicy:
        if _in_order(settings):
            return batch_size_policy(1)  # one of each; on drain what there is
        return Join(_needed(settings), settings.by, settings.key, settings.timeout)

    def logic(self, slot_data: SlotData, policy_message: Any, state: Any) -> None:
        settings = self.settings
        found = {name: slot_data[name][0] for name in settings.inputs if slot_data[name]}
        if policy_message == NO_KEY:
            for payload in found.values():
                self.reject(payload, refusal_of_key(settings.key, payload))
            return
        if settings.shape == "flat":
            payload = dict(chain.from_iterable(each.items() for each in found.values()))
        else:
            payload = dict(found)
        missing = [name for name in settings.inputs if name not in found]
        if policy_message == "complete" or not missing:
            self.emit("output", **payload)
            return
        reason = (
            f"nothing came within {settings.timeout} s" if policy_message == "timeout" else "no more comes"
        )
        self.emit("incomplete", reason=reason, missing=missing, payload=payload)


def _in_order(settings: MergeConfig) -> bool:
    """Whether every input gives one item to each set, in the order of their coming.

    Then a branch can be ahead of the others by all that it has, and on one thread it has to be: what feeds the others
    runs when it has ended. A slot that made it wait would lock them all, so this one holds what comes.
    """
    return settings.by == "order" and settings.timeout is None and _needed(settings) == len(settings.inputs)


def _refuse_other_inputs(inputs: Sequence[str], slots: Mapping[str, Any]) -> None:
    """Slots stay once they are declared, and the rule joins all there are."""
    if len(set(inputs)) < len(inputs):
        raise ConfigurationError(f"config.inputs of merge: a name stands there twice: {inputs}")
    if not slots.keys() <= set(inputs):
        raise ConfigurationError(
            f"config.inputs of merge: {list(slots)} are declared already and cannot be taken away; make another merge"
        )


def _needed(settings: MergeConfig) -> int:
    number = {"all": len(settings.inputs), "any": 1}.get(str(settings.need), settings.need)
    if not isinstance(number, int) or not 1 <= number <= len(settings.inputs):
        raise ConfigurationError(
            f"config.need of merge: expected 'all', 'any' or 1 to {len(settings.inputs)}, got {settings.need!r}"
        )
    return number


# -- loop --------------------------------------------------------------------------------------------------


@dataclass
class LoopConfig:
    until: str = expression("the condition that ends the loop", default="False")
    max: int = setting("rounds after which the loop is given up", default=100, min=1)
    counter: str = setting("the key that counts the rounds in the payload", default="round", min=1)


class Loop(EachItem[LoopConfig]):
    """Sends a payload round by ``again`` until a condition holds, at most ``max`` times.

    The number of rounds travels in the payload, so what is sent round must keep that key.
    """

    config_type = LoopConfig

    def declare(self) -> None:
        self.add_slot("input")
        for name in ("again", "done", "exhausted"):
            self.add_event(name)
        self.add_event("error", ["reason", "payload"])

    def treat(self, payload: Payload, state: Any) -> None:
        settings = self.settings
        done = payload.get(settings.counter, 0)
        if type(done) is not int:
            raise Unsuitable(f"{settings.counter!r}, which counts the rounds, is {type(done).__name__}")
        counted = {**payload, settings.counter: done}
        if value_of(settings.until, counted):
            self.emit("done", **counted)
        elif done >= settings.max:
            self.emit("exhausted", **counted)
        else:
            self.emit("again", **{**counted, settings.counter: done + 1})


# -- split and batch ---------------------------------------------------------------------------------------


@dataclass
class SplitConfig:
    items: str = expression("the list", default="items")
    name: str = setting("the key that each item is emitted under", default="item", min=1)
    spread: bool = setting("emit the keys of each item, which is a dict, instead", default=False)
    keep: list[str] = setting("keys of the payload that every item gets too", default_factory=list)


class Split(EachItem[SplitConfig]):
    """Emits each item of a list on its own, with its ``index`` and the ``count``."""

    config_type = SplitConfig

    def declare(self) -> None:
        super().declare()
        self.add_event("empty")

    def treat(self, payload: Payload, state: Any) -> None:
        settings = self.settings
        items = value_of(settings.items, payload)
        if not isinstance(items, (list, tuple)):
            raise Unsuitable(f"{settings.items!r} is {type(items).__name__}, not a list")
        if settings.spread and not all(isinstance(item, dict) for item in items):
            raise Unsuitable(f"{settings.items!r} has items that are no dicts, so they cannot be spread")
        if not items:
            self.emit("empty", **payload)
        kept = {name: payload[name] for name in settings.keep if name in payload}
        for index, item in enumerate(items):
            own = item if settings.spread else {settings.name: item}
            self.emit("output", **{**kept, "index": index, "count": len(items), **own})


@dataclass
class BatchConfig:
    size: int = setting("payloads in a batch", default=100, min=1, max=MOST_QUEUED)
    age: float | None = setting(
        "seconds that the oldest payload of a batch waits at most", default=None, min=0
    )


class Batch(Configured[BatchConfig]):
    """Collects payloads and emits them as ``items``: ``size`` of them, fewer after ``age`` and on drain."""

    config_type = BatchConfig

    def declare(self) -> None:
        self.add_slot("input", max_queue_length=MOST_QUEUED)
        self.add_event("output", ["items", "count"])

    def policy(self, settings: BatchConfig) -> ActivationPolicy:
        return batch_size_policy(settings.size, settings.age)

    def logic(self, slot_data: SlotData, policy_message: Any, state: Any) -> None:
        items = list(slot_data["input"])
        self.emit("output", items=items, count=len(items))


# -- time --------------------------------------------------------------------------------------------------


@dataclass
class DelayConfig:
    seconds: float = setting("how long every payload waits", min=0)


class Delay(Configured[DelayConfig]):
    """Hands every payload on after some seconds; no thread waits for that."""

    config_type = DelayConfig

    def policy(self, settings: DelayConfig) -> ActivationPolicy:
        return AfterDelay(settings.seconds)

    def logic(self, slot_data: SlotData, policy_message: Any, state: Any) -> None:
        for payload in slot_data["input"]:
            self.emit("output", **payload)


@dataclass
class DebounceConfig:
    seconds: float = setting("how long nothing else may come", min=0)
    key: str | None = expression(
        "what is debounced on its own; without it, everything together", default=None
    )


class Debounce(EachItem[DebounceConfig]):
    """Hands on the last payload of a burst, once ``seconds`` have passed without another one."""

    config_type = DebounceConfig

    def declare(self) -> None:
        super().declare()
        self.add_event("superseded")

    def policy(self, settings: DebounceConfig) -> ActivationPolicy:
        return AfterQuiet(settings.seconds, settings.key)

    def logic(self, slot_data: SlotData, policy_message: Any, state: Any) -> None:
        event = "superseded" if policy_message == "superseded" else "output"
        for payload in slot_data["input"]:
            problem = refusal_of_key(self.settings.key, payload)
            if problem is not None:
                self.reject(payload, problem)
            else:
                self.emit(event, **payload)


@dataclass
class ThrottleConfig:
    items: int = setting("how many payloads pass", default=1, min=1)
    seconds: float = setting("in how many seconds", default=1.0, min=0)
    excess: str = setting("hold back what is too much, or drop it", default="wait", choices=("wait", "drop"))


class Throttle(Configured[ThrottleConfig]):
    """Lets so many payloads pass per time, evenly spaced; what is too much waits, or goes to ``dropped``."""

    config_type = ThrottleConfig

    def declare(self) -> None:
        super().declare()
        self.add_event("dropped")

    def policy(self, settings: ThrottleConfig) -> ActivationPolicy:
        return AtRate(_spacing(settings)) if settings.excess == "wait" else Stamped()

    def logic(self, slot_data: SlotData, policy_message: Any, state: Any) -> None:
        for payload in slot_data["input"]:
            passes = self.settings.excess == "wait" or self._is_due(policy_message, state)
            self.emit("output" if passes else "dropped", **payload)

    def _is_due(self, policy_message: Any, state: Any) -> bool:
        now = policy_message[0]
        last = self.memory(state).get("passed_at")
        due = last is None or not 0 <= now - last < _spacing(self.settings)  # a resumed clock may be behind
        if due:
            self.remember(state, passed_at=now)
        return due


def _spacing(settings: ThrottleConfig) -> float:
    return settings.seconds / settings.items


# -- dedupe ------------------------------------------------------------------------------------------------


@dataclass
class DedupeConfig:
    key: str | None = expression("what makes two payloads equal; without it, the whole payload", default=None)
    remember: int = setting("how many of the latest keys are remembered at least", default=10_000, min=1)


class Dedupe(EachItem[DedupeConfig]):
    """Hands on the first payload with a key; those that follow go to ``duplicate``."""

    config_type = DedupeConfig

    def declare(self) -> None:
        super().declare()
        self.add_event("duplicate")

    def treat(self, payload: Payload, state: Any) -> None:
        key = self.settings.key
        known = Known(self.memory(state), self.settings.remember)
        if known.add(_digest(key_text(payload if key is None else key_of(key, payload)))):
            self.remember(state, **known.as_state())
            self.emit("output", **payload)
        else:
            self.emit("duplicate", **payload)


class Known:
    """The latest keys: the newest in a list, older ones in frozen sets, which cost nothing to take over."""

    def __init__(self, memory: Mapping[str, Any], least: int) -> None:
        self._newest: list[str] = memory.get("newest", [])
        self._older: list[frozenset[str]] = memory.get("older", [])
        self._least = least
        self._size = max(16, isqrt(least))

    def add(self, key: str) -> bool:
        """Whether the key is new."""
        if key in self._newest or any(key in keys for keys in self._older):
            return False
        self._newest.append(key)
        if len(self._newest) >= self._size:
            self._older.append(frozenset(self._newest))
            self._newest = []
        if (len(self._older) - 1) * self._size >= self._least:
            del self._older[0]
        return True

    def as_state(self) -> dict[str, Any]:
        return {"newest": self._newest, "older": self._older}


def _digest(key: str) -> str:
    return key if len(key) <= 40 else blake2b(key.encode(), digest_size=16).hexdigest()


# -- approve -----------------------------------------------------------------------------------------------


@dataclass
class ApproveConfig:
    key: str | None = expression(
        "what a decision names as its 'key'; without it, decisions go to the oldest", default=None
    )
    timeout: float | None = setting("seconds until a payload is given up", default=None, min=0)


class Approve(Configured[ApproveConfig]):
    """Holds payloads until a decision ``{"approved": bool, "key": ...}`` is posted to slot ``decision``."""

    config_type = ApproveConfig

    def declare(self) -> None:
        self.add_slot("input")
        self.add_slot("decision")
        for name in ("approved", "rejected", "expired"):
            self.add_event(name)
        self.add_event("unmatched", ["reason", "payload"])
        self.add_event("error", ["reason", "payload"])

    def policy(self, settings: ApproveConfig) -> ActivationPolicy:
        return Decided(settings.key, settings.timeout)

    def logic(self, slot_data: SlotData, policy_message: Any, state: Any) -> None:
        waiting: Sequence[Payload] = slot_data["input"]
        decisions: Sequence[Payload] = slot_data["decision"]
        match policy_message:
            case "decided":
                [payload], [decision] = waiting, decisions
                verdict = "approved" if decision["approved"] else "rejected"
                self.emit(verdict, **{**payload, "decision": decision})
            case "expired":
                for payload in waiting:
                    self.emit("expired", **payload)
            case "unmatched":
                for decision in decisions:
                    self.emit("unmatched", reason="nothing with that key waits", payload=decision)
            case "unclear":
                for decision in decisions:
                    self.reject(decision, "a decision has 'approved', which is true or false")
            case _:
                for payload in waiting:
                    self.reject(payload, refusal_of_key(self.settings.key, payload))


__all__ = [
    "Approve", "Batch", "Branch", "Debounce", "Dedupe", "Delay", "Loop", "Merge", "Split", "Throttle",
]  # fmt: skip
