"""A JSON Schema of documents, made from what is registered, for editors that complete and check."""

from __future__ import annotations

import collections.abc
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from routilux.dsl.nodes import MAX_CONNECTIONS, MAX_ROUTINES, scalar_problem
from routilux.dsl.registry import RoutineRegistry, RoutineType
from routilux.dsl.shape import VERSION
from routilux.model.config import ConfigField, declared_fields, fields_of
from routilux.model.flow import STRATEGIES
from routilux.model.recovery import ErrorStrategy
from routilux.model.slot import ON_FULL

_END: Final = {"type": "string", "pattern": r"^[^.]+\.[^.]+$"}
_SECONDS: Final = {"type": "number", "exclusiveMinimum": 0}
_COUNT: Final = {"type": "integer", "minimum": 1}
_SIMPLE: Final[dict[Any, dict[str, Any]]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    NoneType: {"type": "null"},
    None: {"type": "null"},
}


def schema(registry: RoutineRegistry | None = None) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12). What a broken package offers is left out, with a warning."""
    known = registry or RoutineRegistry.get_instance()
    types = known.types()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Routilux flow",
        **_object(
            {
                "version": {"const": VERSION},
                "flow_id": {"type": "string", "minLength": 1, "maxLength": 200},
                "description": {"type": "string"},
                "execution": _object(
                    {"strategy": {"enum": list(STRATEGIES)}, "max_workers": _COUNT, "timeout": _SECONDS}
                ),
                "error_handler": {"$ref": "#/$defs/error_handler"},
                "entry": {"type": "string", "pattern": r"^[^.]+(\.[^.]+)?$"},
                "routines": {
                    "type": "object",
                    "propertyNames": {"pattern": r"^[^.]+$"},
                    "minProperties": 1,
                    "maxProperties": MAX_ROUTINES,
                    "additionalProperties": {"$ref": "#/$defs/routine"},
                },
                "connections": {
                    "type": ["array", "null"],
                    "maxItems": MAX_CONNECTIONS,
                    "items": _object(
                        {
                            "from": {**_END, "description": "routine.event"},
                            "to": {**_END, "description": "routine.slot"},
                            "mapping": {"type": "object", "additionalProperties": {"type": "string"}},
                        },
                        "from",
                        "to",
                    ),
                },
            },
            "version",
            "flow_id",
            "routines",
        ),
        "$defs": {
            "error_handler": _error_handler(),
            "activation": _activation(known),
            "routine": _routine(types),
            **{f"config.{kind.name}": _config(kind) for kind in types},
        },
    }


def _routine(types: list[RoutineType]) -> dict[str, Any]:
    names = [{"const": kind.name} | _described(kind.description) for kind in types]
    properties = {
        "class": {"anyOf": [*names, {"type": "string", "pattern": r"\."}]},
        "description": {"type": "string"},
        "config": {"type": "object"},
        "activation": {"$ref": "#/$defs/activation"},
        "error_handler": {"$ref": "#/$defs/error_handler"},
        "concurrency": {
            "anyOf": [
                _COUNT,
                _object({"limit": _COUNT, "by": {"type": "string", "minLength": 1}}, "limit", "by"),
            ]
        },
        "timeout": _SECONDS,
        "slots": {
            "type": "object",
            "additionalProperties": _object(
                {
                    "max_queue_length": _COUNT,
                    "watermark": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
                    "on_full": {"enum": list(ON_FULL)},
                }
            ),
        },
    }
    return {**_object(properties, "class"), "allOf": [_when(kind) for kind in types]}


def _when(kind: RoutineType) -> dict[str, Any]:
    then: dict[str, Any] = {"properties": {"config": {"$ref": f"#/$defs/config.{kind.name}"}}}
    if any(
        field.required and field.name not in kind.config
        for field in declared_fields(kind.routine_class) or ()
    ):
        then["required"] = ["config"]
    return {"if": {"properties": {"class": {"const": kind.name}}}, "then": then}


def _config(kind: RoutineType) -> dict[str, Any]:
    fields = declared_fields(kind.routine_class)
    return {"type": "object"} if fields is None else _fields(fields, given=set(kind.config))


def _fields(fields: collections.abc.Iterable[ConfigField], given: set[str]) -> dict[str, Any]:
    listed = list(fields)
    required = [field.name for field in listed if field.required and field.name not in given]
    return _object({field.name: _field(field) for field in listed}, *required)


def _field(field: ConfigField) -> dict[str, Any]:
    made = _of(field.type) | _described(field.doc)
    if field.choices is not None:
        made["enum"] = list(field.choices)
    low, high = _BOUNDS.get(made.get("type"), ("", ""))
    if low and field.min is not None:
        made[low] = field.min
    if high and field.max is not None:
        made[high] = field.max
    if not field.required and field.default is not None and _is_plain(field.default):
        made["default"] = field.default
    return made


_BOUNDS: Final[dict[Any, tuple[str, str]]] = {
    "string": ("minLength", "maxLength"),
    "array": ("minItems", "maxItems"),
    "object": ("minProperties", "maxProperties"),
    "integer": ("minimum", "maximum"),
    "number": ("minimum", "maximum"),
}


def _of(kind: Any) -> dict[str, Any]:
    """The schema of an annotation; ``{}``, which allows everything, for what has none."""
    origin, arguments = get_origin(kind) or kind, get_args(kind)
    if origin is Annotated:
        return _of(arguments[0])
    if origin in (Union, UnionType):
        return {"anyOf": [_of(each) for each in arguments]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in _SIMPLE:
        return dict(_SIMPLE[origin])
    if hasattr(origin, "__dataclass_fields__"):
        return _fields(fields_of(origin), set())
    if origin in (list, tuple, collections.abc.Sequence, collections.abc.Collection):
        fixed = origin is tuple and arguments and arguments[-1] is not ...
        return {"type": "array"} if fixed or not arguments else {"type": "array", "items": _of(arguments[0])}
    if origin in (dict, collections.abc.Mapping):
        return {"type": "object"} | ({"additionalProperties": _of(arguments[1])} if arguments else {})
    return {}


def _activation(registry: RoutineRegistry) -> dict[str, Any]:
    built_in = [
        _object({"policy": {"const": "immediate"}}, "policy"),
        _object(
            {
                "policy": {"const": "all_slots_ready"},
                "by": {"type": "string", "minLength": 1},
                "timeout": {"type": "number", "minimum": 0},
            },
            "policy",
        ),
        _object(
            {
                "policy": {"const": "batch_size"},
                "size": _COUNT,
                "age": {"type": "number", "minimum": 0},
                "flush": {"type": "boolean"},
            },
            "policy",
            "size",
        ),
        _object(
            {"policy": {"const": "time_interval"}, "seconds": {"type": "number", "minimum": 0}},
            "policy",
            "seconds",
        ),
    ]
    names = {each["properties"]["policy"]["const"] for each in built_in}
    others = [
        {"type": "object", "properties": {"policy": {"const": name}}, "required": ["policy"]}
        for name in registry.policy_names()
        if name not in names
    ]
    return {"anyOf": [*built_in, *others]}


def _error_handler() -> dict[str, Any]:
    strategies = [str(each) for each in ErrorStrategy]
    least = {"type": "number", "minimum": 0}
    retries = {"properties": {"strategy": {"const": str(ErrorStrategy.RETRY)}}, "required": ["strategy"]}
    return _object(
        {
            "strategy": {"enum": strategies},
            "max_retries": {"type": "integer", "minimum": 0},
            "retry_delay": least,
            "retry_backoff": {"type": "number", "minimum": 1},
            "max_delay": {"anyOf": [least, {"type": "null"}]},
            "jitter": {"type": "number", "minimum": 0, "maximum": 1},
            "retryable_exceptions": {"type": "array", "items": {"type": "string"}, "minItems": 1},
            "on_exhausted": {"enum": [each for each in strategies if each != "retry"]},
        }
    ) | {"if": retries, "else": {"propertyNames": {"const": "strategy"}}}


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    made = {"type": "object", "properties": properties, "additionalProperties": False}
    return made | ({"required": list(required)} if required else {})


def _described(text: str) -> dict[str, Any]:
    return {"description": text} if text else {}


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return type(value) in (str, int, float, bool) and scalar_problem(value) is None
