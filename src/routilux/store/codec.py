"""Payloads and states as readable JSON, and back exactly as they were.

What JSON knows stands for itself. Everything else is tagged, as ``{"$type": "date", "value": "2026-01-31"}``:
the standard library's value types, NumPy arrays, and your own types after :func:`register`. Reading builds
only what is registered: it never imports, evaluates or unpickles anything that the data names.

Two things come back simpler than they were: a dict subclass as a plain dict, and one object that was in two
places as two equal ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any, get_origin
from uuid import UUID

import msgspec

from routilux.errors import InvalidTypeError, SerializationError, describe, shown
from routilux.ports import Codec
from routilux.store.kinds import PAIRS, READ_ERRORS, Kind, Unfit, numpy_kind
from routilux.store.registry import advice, by_class, by_tag, name_of, register

__all__ = ["MAX_DEPTH", "JsonCodec", "register"]

MAX_DEPTH = 500
"""Levels of JSON that a value may have. A tagged value takes two: its tag and what is in it."""

LONGEST_PATH = 40
"""Steps of a path that an error shows; the middle of a longer one is left out."""


class JsonCodec(Codec):
    """Implements ``ports.Codec``; safe for threads. ``indent`` is spaces per level, 0 for a single line."""

    def __init__(self, indent: int = 0) -> None:
        self._indent = indent

    def encode(self, value: Any, where: str) -> bytes:
        """The same value gives the same bytes, in every process."""
        try:
            data = _encoded(value)
        except Unfit as unfit:
            raise _unwritable(unfit, where) from unfit.__cause__
        except RecursionError:
            raise _too_deep(where) from None
        except RuntimeError as error:
            raise SerializationError(
                f"{where}: {error}; another thread changes it meanwhile, send a copy", path="$"
            ) from error
        return msgspec.json.format(data, indent=self._indent) if self._indent else data

    def decode(self, data: bytes, where: str) -> Any:
        try:
            raw = _decode(data)
            return raw if _is_plain(data) else _revived(raw, 0)
        except Unfit as unfit:
            raise _unreadable(unfit, where) from unfit.__cause__
        except RecursionError:
            raise _too_deep(where) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise SerializationError(f"{where}: not the JSON that was written: {error}", path="$") from error

    def checker(self, type_: Any) -> Callable[[Mapping[str, Any]], None]:
        """A pydantic model checks by its own rules; every other type strictly, without conversion of text.

        An instance of a field's type is taken as it is. Members of an enum may also be given by value, and
        sequences as any list, tuple or set. Raises InvalidTypeError for a type that cannot be checked.
        """
        if hasattr(type_, "model_validate"):
            return _pydantic_checker(type_)
        return _msgspec_checker(type_)


# -- writing -----------------------------------------------------------------------------------------------

_encode = msgspec.json.Encoder().encode
_AS_IS: frozenset[type] = frozenset({str, bool, int, type(None)})
_SURE: frozenset[type] = frozenset({bool, type(None)})  # what remains when text and numbers need a look, too
_TEXT = frozenset({str})
_INT64 = range(-(2**63), 2**64)


def _encoded(value: Any) -> bytes:
    try:
        return _encode(_plain(value, _AS_IS, 0))
    except ValueError:  # lone surrogates, or a number of thousands of digits
        return _encode(_plain(value, _SURE, 0))


def _plain(value: Any, as_is: frozenset[type], depth: int) -> Any:
    """The value in terms of JSON. One frame per level: it must reach MAX_DEPTH before Python's own limit."""
    cls = type(value)
    if cls in as_is:
        return value
    if cls is float and value - value == 0.0:
        return value
    if (cls is int and value in _INT64) or (cls is str and _is_unicode(value)):
        return value
    if depth >= MAX_DEPTH:
        raise Unfit(f"nested deeper than {MAX_DEPTH} levels; send a reference, or store it flat")
    depth += 1
    step = None
    try:
        if cls is list:
            items: list[Any] = []
            for step, item in enumerate(value):  # noqa: B007 - the step is told when it fails
                items.append(item if type(item) in as_is else _plain(item, as_is, depth))
            return items
        kind = _kind_of(cls, value, as_is)
        if kind is None:
            fields = {}
            for step, item in dict.items(value):
                fields[step] = item if type(item) in as_is else _plain(item, as_is, depth)
            return fields
        plain = _plain(kind.write(value), as_is, depth)
        if cls is set or cls is frozenset:
            plain.sort(key=_encode)  # their order differs from process to process
        return {"$type": kind.tag, "value": plain}
    except Unfit as unfit:
        if step is None and isinstance(value, dict):
            step = _key_of_pair(unfit)
        unfit.steps.append((step, value))
        raise


def _key_of_pair(unfit: Unfit) -> Any:
    """The key, in place of the two steps through a list of pairs."""
    del unfit.steps[-1:]
    return unfit.steps.pop()[1][0] if unfit.steps else None


def _kind_of(cls: type, value: Any, as_is: frozenset[type]) -> Kind | None:
    """How this value is tagged; None for a dict that JSON can hold as it is."""
    kind = by_class.get(cls)
    if kind is not None:
        return kind
    if isinstance(value, dict):
        keys = dict.keys(value)
        fits = "$type" not in keys and _TEXT.issuperset(map(type, keys))
        return None if fits and (as_is is _AS_IS or all(map(_is_unicode, keys))) else PAIRS
    kind = numpy_kind(value)
    if kind is None:
        raise Unfit(
            f"{name_of(cls)} has no JSON form ({shown(value)}); {advice(cls)}, or send a reference to it"
        )
    return kind


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# -- reading -----------------------------------------------------------------------------------------------

_decode = msgspec.json.Decoder().decode
_NESTED = (dict, list)


def _is_plain(data: bytes) -> bool:
    """Whether nothing in it can be tagged or nested too deep. An escape could spell a tag."""
    brackets = data.count(b"[") + data.count(b"{")
    return brackets <= MAX_DEPTH and b'"$type"' not in data and b"\\u" not in data


def _revived(raw: Any, depth: int) -> Any:
    """The value, in place. One frame per level, as for writing."""
    if depth >= MAX_DEPTH:
        raise Unfit(f"nested deeper than {MAX_DEPTH} levels, which is never written")
    depth += 1
    step: Any = None
    try:
        if type(raw) is list:
            for step, item in enumerate(raw):
                if type(item) in _NESTED:
                    raw[step] = _revived(item, depth)
        elif type(raw) is dict:
            for step, item in raw.items():
                if type(item) in _NESTED:
                    raw[step] = _revived(item, depth)
            step = None
            if "$type" in raw:
                return _read_tagged(raw)
        return raw
    except Unfit as unfit:
        unfit.steps.append((step, raw))
        raise


def _read_tagged(raw: dict[str, Any]) -> Any:
    tag = raw["$type"]
    if raw.keys() != {"$type", "value"} or type(tag) is not str:
        raise Unfit(
            'an object with a "$type" has a "value" and nothing else; this was not written by Routilux'
        )
    kind = by_tag.get(tag)
    if kind is None:
        name = tag.rpartition(".")[2]
        raise Unfit(
            f"no type is registered as {shown(tag)}; import the module that defines it and call "
            f"routilux.store.codec.register({name if name.isidentifier() else 'YourType'}) before reading"
        )
    value = raw["value"]
    if kind.form is not object and type(value) is not kind.form:
        raise Unfit(f"a {tag} is written as {kind.form.__name__}, this is {type(value).__name__}")
    try:
        return kind.read(value)
    except READ_ERRORS as error:
        raise Unfit(f"{shown(value)} is no {tag}: {describe(error)}") from error


# -- errors ------------------------------------------------------------------------------------------------


def _unwritable(unfit: Unfit, where: str) -> SerializationError:
    steps = unfit.steps[::-1]
    seen: dict[int, int] = {}
    for at, (_, container) in enumerate(steps):
        first = seen.setdefault(id(container), at)
        if first != at:
            path, again = _path(steps[:first]), _path(steps[:at])
            reason = f"it contains itself: it is the same object as {path}; send an id in its place"
            return SerializationError(f"{where} at {again}: {reason}", path=again)
    path = _path(steps)
    return SerializationError(f"{where} at {path}: {unfit.reason}", path=path)


def _unreadable(unfit: Unfit, where: str) -> SerializationError:
    path = _path(unfit.steps[::-1])
    return SerializationError(f"{where} at {path}: {unfit.reason}", path=path)


def _too_deep(where: str) -> SerializationError:
    return SerializationError(
        f"{where}: nested too deep for Python's recursion limit; send a reference, or store it flat", path="$"
    )


def _path(steps: list[tuple[Any, Any]]) -> str:
    parts = [_step(step) for step, _ in steps]
    if len(parts) > LONGEST_PATH:
        parts[LONGEST_PATH // 2 : -LONGEST_PATH // 2] = ["…"]
    return "$" + "".join(parts)


def _step(step: Any) -> str:
    if step is None:
        return ""
    if isinstance(step, str) and step.isidentifier():
        return f".{step}"
    return f"[{shown(step)}]"


# -- checking payloads -------------------------------------------------------------------------------------

_NATIVE = (bytes, bytearray, datetime, date, time, timedelta, UUID, Decimal)  # no text in place of these


def _msgspec_checker(type_: Any) -> Callable[[Mapping[str, Any]], None]:
    def convert(payload: Any) -> Any:
        return msgspec.convert(
            payload, type_, from_attributes=True, builtin_types=_NATIVE, dec_hook=_instance
        )

    def check(payload: Mapping[str, Any]) -> None:
        try:
            try:
                convert(payload)
            except msgspec.ValidationError:
                convert(_by_value(payload, enums, others))
        except msgspec.ValidationError as error:
            raise TypeError(_problem(str(error))) from error
        except RecursionError:
            raise TypeError("at $: nested too deep") from None
        except Exception as error:  # from the type's own __post_init__
            raise TypeError(f"at $: {describe(error)}") from error

    try:
        enums, others = _classes(msgspec.inspect.type_info(type_))
    except Exception as error:  # from the annotations: unknown names, unions msgspec refuses
        raise InvalidTypeError(
            f"payloads of type {shown(type_)} cannot be checked: {describe(error)}; define what its "
            "annotations name at the top of the module, and annotate a field that can be anything with object"
        ) from error
    return check


def _classes(info: msgspec.inspect.Type) -> tuple[tuple[type[Enum], ...], tuple[type, ...]]:
    """The enums that a type names, and the classes that msgspec knows nothing about."""
    found: dict[int, Any] = {}
    waiting: list[Any] = [info]
    while waiting:
        part = waiting.pop()
        if isinstance(part, tuple):
            waiting.extend(part)
        elif isinstance(part, (msgspec.inspect.Type, msgspec.inspect.Field)) and id(part) not in found:
            found[id(part)] = part
            waiting.extend(getattr(part, name) for name in part.__struct_fields__)
    enums = [part.cls for part in found.values() if isinstance(part, msgspec.inspect.EnumType)]
    others = [part.cls for part in found.values() if isinstance(part, msgspec.inspect.CustomType)]
    classes = [get_origin(cls) or cls for cls in others if cls is not object]
    return tuple(enums), tuple(cls for cls in classes if not getattr(cls, "_is_protocol", False))


def _instance(type_: Any, value: Any) -> Any:
    """Asked about classes that msgspec does not know: an instance is taken as it is."""
    cls = get_origin(type_) or type_
    if hasattr(cls, "model_validate") and isinstance(value, Mapping):
        return _validated(cls, value)
    if not isinstance(value, cls):
        raise TypeError(f"Expected `{cls.__name__}`, got `{type(value).__name__}`")
    return value


def _by_value(given: Any, enums: tuple[type[Enum], ...], others: tuple[type, ...]) -> Any:
    """msgspec takes a member of an enum by its value only, and numbers only of exactly int and float."""
    if isinstance(given, enums):
        return given.value
    if isinstance(given, others):
        return given
    if isinstance(given, Mapping):
        return {_by_value(key, enums, others): _by_value(item, enums, others) for key, item in given.items()}
    if isinstance(given, (list, tuple, set, frozenset)):
        return [_by_value(item, enums, others) for item in given]
    if isinstance(given, float):
        return float(given)
    return int(given) if isinstance(given, IntEnum) else given


def _problem(text: str) -> str:
    """msgspec's message in our order: the place first."""
    what, _, place = text.replace("`", "").rpartition(" - at ")
    if not what:
        what, place = place, "$"
    return f"at {place}: {what[:1].lower()}{what[1:]}"


def _pydantic_checker(model: Any) -> Callable[[Mapping[str, Any]], None]:
    def check(payload: Mapping[str, Any]) -> None:
        _validated(model, payload)

    return check


def _validated(model: Any, payload: Mapping[str, Any]) -> Any:
    try:
        return model.model_validate(payload)
    except Exception as error:  # pydantic's own error, or a validator's
        raise TypeError(_pydantic_problem(error)) from error


def _pydantic_problem(error: Exception) -> str:
    problems = getattr(error, "errors", None)
    if problems is None:
        return f"at $: {describe(error)}"
    first = problems()[0]
    place = _path([(step, None) for step in first["loc"]])
    got = "" if first["type"] == "missing" else f", got {type(first['input']).__name__}"
    return f"at {place}: {first['msg'][:1].lower()}{first['msg'][1:]}{got}"
