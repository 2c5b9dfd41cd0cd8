"""The config of a built-in routine as an object, and the expressions in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, field, fields
from functools import lru_cache
from typing import Any, ClassVar, Generic, TypeVar, cast

from routilux import ConfigurationError, Routine
from routilux.activation_policies import ActivationPolicy, immediate_policy
from routilux.expressions import Expression, ExpressionError
from routilux.expressions import compile as compile_expression

S = TypeVar("S")

Payload = dict[str, Any]
SlotData = Mapping[str, Any]


class Configured(Routine, Generic[S]):
    """A routine whose config is one object of its ``config_type``, made anew when the config changes.

    A payload that the routine can do nothing with goes to event ``error`` as ``{"reason": text, "payload": ...}``.
    """

    config_type: ClassVar[type | None]

    def __init__(self) -> None:
        super().__init__()
        self._made: S | None = None
        self._own_policy: ActivationPolicy = immediate_policy()
        self.set_activation_policy(self._own_policy)
        self.declare()
        self.config_changed()

    def declare(self) -> None:
        """The slots and events that every config has."""
        self.add_slot("input")
        self.add_event("output")

    def config_changed(self) -> None:
        kind = cast("type[Any]", self.config_type)
        if missing(kind, self.config):
            self._made = None
            return
        made = kind(**self.config)
        self.prepare(made)
        self._made = made
        if self.activation_policy is self._own_policy:
            self._own_policy = self.policy(made)
            self.set_activation_policy(self._own_policy)

    def prepare(self, settings: S) -> None:
        """Check what no single key tells, and declare the slots and events that depend on the config."""

    def policy(self, settings: S) -> ActivationPolicy:
        """The policy that holds as long as no other one is set."""
        return immediate_policy()

    @property
    def settings(self) -> S:
        if self._made is None:
            keys = ", ".join(missing(cast("type[Any]", self.config_type), self.config))
            raise ConfigurationError(
                f"{self} has no config for {keys}, which it needs; call set_config({keys}=...)"
            )
        return self._made

    def memory(self, state: Any) -> dict[str, Any]:
        """What this routine remembers in this worker; a copy."""
        return cast("dict[str, Any]", state.get_routine_state(self.routine_id, {}))

    def remember(self, state: Any, **values: Any) -> None:
        state.update_routine_state(self.routine_id, values)

    def reject(self, payload: Payload, reason: object) -> None:
        self.emit("error", reason=str(reason), payload=payload)


class EachItem(Configured[S]):
    """Treats every payload on its own; an :class:`Unsuitable` that it raises sends the payload to ``error``."""

    def declare(self) -> None:
        super().declare()
        self.add_event("error", ["reason", "payload"])

    def logic(self, slot_data: SlotData, policy_message: Any, state: Any) -> None:
        for payload in slot_data["input"]:
            try:
                self.treat(payload, state)
            except (Unsuitable, ExpressionError) as problem:
                self.reject(payload, problem)

    def treat(self, payload: Payload, state: Any) -> None:
        raise NotImplementedError


class Unsuitable(Exception):
    """A payload that a routine can do nothing with; the text says why."""


def missing(kind: type[Any], config: Mapping[str, Any]) -> list[str]:
    """The keys that a config dataclass needs and that are not given."""
    return [
        each.name
        for each in fields(kind)
        if each.default is MISSING and each.default_factory is MISSING and each.name not in config
    ]


# -- expressions -------------------------------------------------------------------------------------------


@lru_cache(maxsize=1_000)
def compiled(text: str) -> Expression:
    return compile_expression(text)


def value_of(text: str, payload: Payload) -> Any:
    return compiled(text)(payload)


def key_of(text: str | None, payload: Payload) -> Any:
    """The value that items are told apart by; without an expression all belong together."""
    return None if text is None else compiled(text)(payload)


def refusal_of_key(text: str | None, payload: Payload) -> str | None:
    """Why a payload has no key by this expression, if it has none."""
    try:
        key_text(key_of(text, payload))
    except (ExpressionError, Unsuitable) as problem:
        return str(problem)
    return None


def key_text(value: Any) -> str:
    """The same text for equal keys, and only for those; keys are plain data."""
    try:
        return json.dumps(value, sort_keys=True, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise Unsuitable(f"a key is plain data: {error}"[:200]) from None


def expression(doc: str, **options: Any) -> Any:
    """A config key that holds an expression over the keys of a payload."""
    return _declared(doc, {"expression": True, "check": compiled}, options)


def expressions(doc: str, **options: Any) -> Any:
    """A config key that holds a mapping of names to expressions."""
    return _declared(doc, {"expression": True, "check": _check_values}, options)


def setting(doc: str, **options: Any) -> Any:
    """A config key with its doc, and with ``min``, ``max``, ``choices`` or ``check`` where they apply."""
    return _declared(doc, {}, options)


def _declared(doc: str, metadata: dict[str, Any], options: dict[str, Any]) -> Any:
    of_field = {name: options.pop(name) for name in ("default", "default_factory") if name in options}
    return field(metadata={"doc": doc, **metadata, **options}, **of_field)


def _check_values(texts: Mapping[str, str]) -> None:
    for text in texts.values():
        compiled(text)


# -- fields of payloads ------------------------------------------------------------------------------------


def text_in(payload: Payload, name: str) -> str:
    """The text under a key of a payload."""
    return cast("str", typed_in(payload, name, str, "text"))


def typed_in(payload: Payload, name: str, kind: type, what: str) -> Any:
    value = found_in(payload, name)
    if not isinstance(value, kind):
        raise Unsuitable(f"{name!r} is {type(value).__name__}, not {what}")
    return value


def found_in(payload: Payload, name: str) -> Any:
    if name not in payload:
        known = ", ".join(map(repr, payload)) or "nothing"
        raise Unsuitable(f"the payload has no {name!r}, only {known}"[:500])
    return payload[name]
