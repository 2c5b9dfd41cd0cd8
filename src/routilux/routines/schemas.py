"""JSON Schemas: the one place that knows jsonschema."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from routilux import ConfigurationError
from routilux.routines.patterns import found, pattern
from routilux.routines.settings import Unsuitable

MOST_ERRORS = 20
LONGEST_ERROR = 500

SchemaCheck = Callable[[Mapping[str, Any]], list[str]]


def schema_check(schema: Mapping[str, Any]) -> SchemaCheck:
    """What says which rules of a schema a payload breaks; draft 2020-12 if the schema does not name its own.

    Nothing is ever fetched, and patterns are matched in linear time. ImportError without jsonschema.
    """
    from jsonschema import Draft202012Validator, exceptions, validators
    from referencing import Registry

    kind = validators.validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except exceptions.SchemaError as error:
        raise ConfigurationError(f"the schema is wrong at {error.json_path}: {error.message}") from None

    for each in _patterns(schema):
        pattern(each)  # refuses what RE2 does not take
    _check_references(schema)

    def matched(validator: Any, wanted: str, value: Any, schema: Any) -> Any:
        if isinstance(value, str) and not found(wanted, value):
            yield exceptions.ValidationError(f"{value!r} does not match {wanted!r}")

    def by_pattern(validator: Any, wanted: Mapping[str, Any], value: Any, schema: Any) -> Any:
        for each, rules in wanted.items() if isinstance(value, dict) else ():
            for key in value:
                if found(each, key):
                    yield from validator.descend(value[key], rules, path=key, schema_path=each)

    def additional(validator: Any, allowed: Any, value: Any, schema: Mapping[str, Any]) -> Any:
        extra = _additional_keys(schema, value) if isinstance(value, dict) else []
        if isinstance(allowed, dict):
            for key in extra:
                yield from validator.descend(value[key], allowed, path=key)
        elif extra and not allowed:
            names = ", ".join(map(repr, extra))
            yield exceptions.ValidationError(f"additional properties are not allowed: {names}")

    rules = {"pattern": matched, "patternProperties": by_pattern, "additionalProperties": additional}
    validator = validators.extend(kind, rules)(schema, registry=Registry())

    def errors(payload: Mapping[str, Any]) -> list[str]:
        try:
            broken = sorted(validator.iter_errors(payload), key=lambda error: str(error.json_path))
        except RecursionError:
            return ["$: nested too deep to be checked, or the schema refers to itself without end"]
        except Unsuitable as problem:
            return [f"$: {problem}"]
        return [f"{error.json_path}: {error.message}"[:LONGEST_ERROR] for error in broken[:MOST_ERRORS]]

    return errors


def _check_references(schema: Mapping[str, Any]) -> None:
    """Refuse what refers to nothing in the schema itself: nothing else is looked up when a payload is checked."""
    from referencing import Registry, Resource, exceptions
    from referencing.jsonschema import DRAFT202012

    if any("$id" in each for each in _objects(schema) if each is not schema):
        return  # each has a base of its own, which only a walk through a payload tells
    resource = Resource.from_contents(schema, default_specification=DRAFT202012)
    base = resource.id() or ""
    resolver = Registry().with_resource(base, resource).crawl().resolver(base)
    for reference in [each["$ref"] for each in _objects(schema) if isinstance(each.get("$ref"), str)]:
        try:
            resolver.lookup(reference)
        except exceptions.Unresolvable:
            raise ConfigurationError(
                f"the schema has no {reference!r}, which it refers to; put it under '$defs' and write "
                "'#/$defs/name': nothing is fetched"
            ) from None


def _objects(schema: Any) -> Iterator[Mapping[str, Any]]:
    """The schema and all mappings in it that are no data."""
    if isinstance(schema, list):
        for each in schema:
            yield from _objects(each)
    elif isinstance(schema, Mapping):
        yield schema
        for key, value in schema.items():
            if key not in _DATA:
                yield from _objects(value)


def _additional_keys(schema: Mapping[str, Any], value: Mapping[str, Any]) -> list[str]:
    patterns = schema.get("patternProperties", ())
    return [
        key
        for key in value
        if key not in schema.get("properties", ()) and not any(found(each, key) for each in patterns)
    ]


_DATA = ("const", "default", "enum", "examples")


def _patterns(schema: Any) -> Iterator[str]:
    """The regular expressions in a schema."""
    if isinstance(schema, list):
        for each in schema:
            yield from _patterns(each)
    elif isinstance(schema, Mapping):
        if isinstance(schema.get("pattern"), str):
            yield schema["pattern"]
        for key, value in schema.items():
            if key == "patternProperties" and isinstance(value, Mapping):
                yield from value
            if key == "unevaluatedProperties":
                raise ConfigurationError(
                    "the schema has 'unevaluatedProperties', which is not supported, as its patterns would not be "
                    "matched in linear time; write 'additionalProperties'"
                )
            if key not in _DATA:
                yield from _patterns(value)
