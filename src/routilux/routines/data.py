"""Built-in routines for data: change, choose, check, sum up and order payloads."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from math import isfinite
from operator import itemgetter
from typing import Any, cast

from routilux import ConfigurationError
from routilux.activation_policies import ActivationPolicy
from routilux.expressions import ExpressionError
from routilux.routines.policies import FLUSH, HoldLast
from routilux.routines.schemas import SchemaCheck, schema_check
from routilux.routines.settings import (
    Configured,
    EachItem,
    Payload,
    SlotData,
    Unsuitable,
    compiled,
    expression,
    expressions,
    found_in,
    key_of,
    key_text,
    setting,
    value_of,
)
from routilux.routines.table import Table

# -- map and filter ----------------------------------------------------------------------------------------


@dataclass
class MapConfig:
    fields: dict[str, str] = expressions("the keys to set, each with its expression", default_factory=dict)
    keep: bool = setting("keep the other keys of the payload", default=True)
    drop: list[str] = setting("keys to leave out", default_factory=list)


class Map(EachItem[MapConfig]):
    """Sets keys of the payload to the values of expressions, which all see the payload as it came."""

    config_type = MapConfig

    def treat(self, payload: Payload, state: Any) -> None:
        settings = self.settings
        values = {name: value_of(text, payload) for name, text in settings.fields.items()}
        kept = payload if settings.keep else {}
        result = {key: value for key, value in {**kept, **values}.items() if key not in settings.drop}
        self.emit("output", **result)


@dataclass
class FilterConfig:
    when: str = expression("which payloads go on")


class Filter(EachItem[FilterConfig]):
    """Hands on the payloads that a condition holds for; the others go to ``rejected``."""

    config_type = FilterConfig

    def declare(self) -> None:
        super().declare()
        self.add_event("rejected")

    def treat(self, payload: Payload, state: Any) -> None:
        self.emit("output" if value_of(self.settings.when, payload) else "rejected", **payload)


# -- reduce ------------------------------------------------------------------------------------------------

Fold = Callable[[Any, Any], Any]
Number = int | float


def _number(value: Any) -> Number:
    if type(value) not in (int, float):
        raise Unsuitable(f"expected a number, got {type(value).__name__}")
    return cast("Number", value)


def _sum(sums: Any, value: Any) -> Any:
    """The sum with what rounding has lost beside it (after Neumaier), so that 0.1 ten times is 1.0."""
    total, lost = sums or (0, 0)
    number = _number(value)
    both = total + number
    if type(both) is float and isfinite(both):
        lost += (total - both) + number if abs(total) >= abs(number) else (number - both) + total
    return [both, lost]


def _min(least: Any, value: Any) -> Any:
    return _number(value) if least is None else min(least, _number(value))


def _max(greatest: Any, value: Any) -> Any:
    return _number(value) if greatest is None else max(greatest, _number(value))


def _mean(sums: Any, value: Any) -> Any:
    total, count = sums or (None, 0)
    return [_sum(total, value), count + 1]


def _collect(runs: Any, value: Any) -> Any:
    """Runs of values, each more than twice as long as the one behind it, so that one more copies few of them."""
    grown = (*(runs or ()), (value,))
    while len(grown) > 1 and len(grown[-2]) < 2 * len(grown[-1]):
        grown = (*grown[:-2], grown[-2] + grown[-1])
    return grown


FOLDS: dict[str, Fold] = {
    "sum": _sum,
    "min": _min,
    "max": _max,
    "mean": _mean,
    "count": lambda count, value: (count or 0) + bool(value),
    "first": lambda first, value: [value] if first is None else first,
    "last": lambda last, value: [value],
    "collect": _collect,
}

RESULTS: dict[str, Callable[[Any], Any]] = {
    "sum": sum,
    "mean": lambda sums: sum(sums[0]) / sums[1],
    "first": lambda value: value[0],
    "last": lambda value: value[0],
    "collect": lambda runs: list(chain.from_iterable(runs)),
}


def _check_folds(fields: Mapping[str, Mapping[str, str]]) -> None:
    for name, fold in fields.items():
        if len(fold) != 1:
            raise ConfigurationError(
                f"field {name!r} needs one fold such as {{sum: price}}, got {dict(fold)!r}"
            )
        [(operation, text)] = fold.items()
        if operation not in FOLDS:
            raise ConfigurationError(
                f"field {name!r} has no fold {operation!r}; there are {', '.join(FOLDS)}"
            )
        compiled(text)


@dataclass
class ReduceConfig:
    fields: dict[str, dict[str, str]] = setting(
        "the results: name, then one of sum min max mean count first last collect with an expression",
        min=1,
        check=_check_folds,
    )
    key: str | None = expression(
        "what is summed up on its own; without it, everything together", default=None
    )
    name: str = setting("the key of a result that holds the value of 'key'", default="key", min=1)
    every: int | None = setting(
        "give a result after so many payloads of a key, and start it afresh", default=None, min=1
    )


class Reduce(Configured[ReduceConfig]):
    """Sums payloads up, by key; results come on drain, and before that after every n payloads of a key.

    With a million payloads and ten keys it remembers ten results. ``collect`` remembers every value. Results of
    keys come in the order in which the keys did.
    """

    config_type = ReduceConfig

    def declare(self) -> None:
        super().declare()
        self.add_event("error", ["reason", "payload"])

    def policy(self, settings: ReduceConfig) -> ActivationPolicy:
        return HoldLast()

    def logic(self, slot_data: SlotData, policy_message: Any, state: Any) -> None:
        memory = self.memory(state)
        groups, begun = Table(memory.get("groups", ())), memory.get("begun", 0)
        results = []
        for payload in slot_data["input"]:
            try:
                text, group = self._folded(groups, payload, begun)
            except (ExpressionError, Unsuitable) as problem:
                self.reject(payload, problem)
                continue
            groups.put(text, group)
            begun += group["count"] == 1
            if group["count"] == self.settings.every:
                results.append(groups.pop(text))
        if policy_message == FLUSH:
            results += sorted(groups.values(), key=itemgetter("number"))
            groups = Table()
        for group in results:
            self.emit("output", **self._result(group))
        self.remember(state, groups=groups.as_state(), begun=begun)

    def _folded(self, groups: Table, payload: Payload, begun: int) -> tuple[str, dict[str, Any]]:
        """The group that a payload belongs to, with the payload in it. Changes nothing."""
        key = key_of(self.settings.key, payload)
        text = key_text(key)
        before = groups.get(text) or {"number": begun, "key": key, "count": 0, "values": {}}
        values = {
            name: FOLDS[operation](before["values"].get(name), value_of(of, payload))
            for name, fold in self.settings.fields.items()
            for operation, of in fold.items()
        }
        return text, {**before, "count": before["count"] + 1, "values": values}

    def _result(self, group: Mapping[str, Any]) -> Payload:
        keyed = {} if self.settings.key is None else {self.settings.name: group["key"]}
        operations = {name: next(iter(fold)) for name, fold in self.settings.fields.items()}
        return keyed | {
            name: RESULTS.get(operation, lambda value: value)(group["values"][name])
            for name, operation in operations.items()
        }


# -- validate ----------------------------------------------------------------------------------------------


def _check_schema(schema: Mapping[str, Any]) -> None:
    try:
        schema_check(schema)
    except ImportError:
        return  # said where it is used


@dataclass
class ValidateConfig:
    schema: dict[str, Any] | None = setting(
        "a JSON Schema; draft 2020-12 if it does not say", default=None, check=_check_schema
    )
    type: Any = setting("in Python: a dataclass, TypedDict, Struct or pydantic model", default=None)


class Validate(Configured[ValidateConfig]):
    """Hands on, by ``valid``, the payloads that fit a JSON Schema or a Python type; others go to ``invalid``."""

    config_type = ValidateConfig

    def declare(self) -> None:
        self._errors: SchemaCheck | None = None
        self.add_slot("input")
        self.add_event("invalid", ["errors", "payload"])

    def prepare(self, settings: ValidateConfig) -> None:
        if settings.schema is not None and settings.type is not None:
            raise ConfigurationError("validate takes 'schema' or 'type', not both")
        if "valid" in self.events and self.events["valid"].type is not settings.type:
            raise ConfigurationError("the type of validate stays once it is set; make another validate")
        if settings.schema is not None:
            self._errors = self._checked_by_schema(settings.schema)
        if "valid" not in self.events and self.config:
            self.add_event("valid", type=settings.type)

    def logic(self, slot_data: SlotData, policy_message: Any, state: Any) -> None:
        if "valid" not in self.events:
            raise ConfigurationError(
                f"{self} has nothing to check by; call set_config(schema=...) or (type=...)"
            )
        for payload in slot_data["input"]:
            errors = self._errors(payload) if self._errors is not None else []
            if not errors:
                errors = self._emitted(payload)
            if errors:
                self.emit("invalid", errors=errors, payload=payload)

    def _emitted(self, payload: Payload) -> list[str]:
        """The event has the type, so emitting checks the payload."""
        try:
            self.emit("valid", **payload)
        except ConfigurationError as error:
            return [str(error)]
        return []

    def _checked_by_schema(self, schema: Mapping[str, Any]) -> SchemaCheck:
        try:
            return schema_check(schema)
        except ImportError:
            raise ConfigurationError(
                f"{self} checks by a JSON Schema, which needs jsonschema; install routilux[routines]"
            ) from None


# -- flatten and pick --------------------------------------------------------------------------------------


@dataclass
class FlattenConfig:
    separator: str = setting("what joins the names of the levels", default=".")
    depth: int | None = setting("how many levels are made one; None for all", default=None, min=1)
    lists: bool = setting("flatten lists too, by index", default=False)


class Flatten(EachItem[FlattenConfig]):
    """Makes nested dicts one level of keys: ``{"a": {"b": 1}}`` becomes ``{"a.b": 1}``."""

    config_type = FlattenConfig

    def treat(self, payload: Payload, state: Any) -> None:
        flat: Payload = {}
        for key, value in self._leaves(payload, "", self.settings.depth or DEEPEST):
            if key in flat:
                raise Unsuitable(f"two values would have the key {key!r}")
            flat[key] = value
        self.emit("output", **flat)

    def _leaves(self, value: Any, path: str, depth: int) -> Iterator[tuple[str, Any]]:
        for name, each in _children(value, self.settings.lists):
            inner = f"{path}{self.settings.separator}{name}" if path else str(name)
            if depth and _children(each, self.settings.lists):
                yield from self._leaves(each, inner, depth - 1)
            elif _children(each, self.settings.lists) and self.settings.depth is None:
                raise Unsuitable(f"{inner[:100]!r} is nested more than {DEEPEST} levels deep")
            else:
                yield inner, each


DEEPEST = 100


def _children(value: Any, lists: bool) -> list[tuple[Any, Any]]:
    if isinstance(value, dict):
        return list(value.items())
    return list(enumerate(value)) if lists and isinstance(value, list) else []


@dataclass
class PickConfig:
    keys: list[str] = setting("the keys to keep, in this order", min=1)
    missing: str = setting(
        "what to do for a key that is not there", default="skip", choices=("skip", "null", "error")
    )


class Pick(EachItem[PickConfig]):
    """Hands on only some keys of the payload."""

    config_type = PickConfig

    def treat(self, payload: Payload, state: Any) -> None:
        match self.settings.missing:
            case "skip":
                picked = {key: payload[key] for key in self.settings.keys if key in payload}
            case "null":
                picked = {key: payload.get(key) for key in self.settings.keys}
            case _:
                picked = {key: found_in(payload, key) for key in self.settings.keys}
        self.emit("output", **picked)


# -- sort --------------------------------------------------------------------------------------------------


@dataclass
class SortConfig:
    by: str = expression("what to order by: numbers, or texts")
    descending: bool = setting("the greatest first", default=False)
    limit: int | None = setting("give, and remember, only so many", default=None, min=1)
    max_items: int = setting("how many payloads are remembered at most", default=100_000, min=1)


Entry = tuple[Any, Payload]
Run = tuple[Entry, ...]


class Sort(Configured[SortConfig]):
    """Emits all payloads in order when the flow drains; equal ones stay in the order in which they came."""

    config_type = SortConfig

    def declare(self) -> None:
        super().declare()
        self.add_event("error", ["reason", "payload"])

    def policy(self, settings: SortConfig) -> ActivationPolicy:
        return HoldLast()

    def logic(self, slot_data: SlotData, policy_message: Any, state: Any) -> None:
        # Every run is in order, and less than half as long as the one before it. Runs are tuples, which
        # are never changed, so reading the state does not copy them.
        runs: list[Run] = self.memory(state).get("runs", [])
        runs.append(self._merged([self._fitting(slot_data["input"], runs)]))
        while len(runs) > 1 and (policy_message == FLUSH or len(runs[-2]) < 2 * len(runs[-1])):
            runs[-2:] = [self._merged(runs[-2:])]
        if policy_message == FLUSH:
            for _, payload in runs.pop():
                self.emit("output", **payload)
        self.remember(state, runs=runs)

    def _fitting(self, payloads: list[Payload], runs: list[Run]) -> Run:
        """The payloads that can be ordered among those before, and that there is room for."""
        room = self.settings.max_items - sum(map(len, runs))
        kind = next((_kind(run[0][0]) for run in runs if run), None)
        fitting: list[Entry] = []
        for payload in payloads:
            try:
                value = value_of(self.settings.by, payload)
                kind = kind or _kind(value)
                if _kind(value) != kind:
                    raise Unsuitable(f"{self.settings.by!r} is {_kind(value)}, and was {kind} before")
                if len(fitting) >= room and self.settings.limit is None:
                    raise Unsuitable(f"sort holds {self.settings.max_items} payloads already")
            except (ExpressionError, Unsuitable) as problem:
                self.reject(payload, problem)
            else:
                fitting.append((value, payload))
        return tuple(fitting)

    def _merged(self, runs: list[Run]) -> Run:
        """One run of all; sorting is stable, and fast on what is in order already."""
        entries = [entry for run in runs for entry in run]
        limit = self.settings.limit
        if limit is None or len(entries) <= limit:
            return tuple(sorted(entries, key=_first, reverse=self.settings.descending))
        choose = heapq.nlargest if self.settings.descending else heapq.nsmallest
        return tuple(choose(limit, entries, key=_first))


def _first(entry: Entry) -> Any:
    return entry[0]


def _kind(value: Any) -> str:
    if type(value) in (int, float) and value == value:  # not a nan, which has no place in an order
        return "a number"
    if isinstance(value, str):
        return "text"
    raise Unsuitable(f"payloads are ordered by a number or a text, not by {value!r}"[:200])
