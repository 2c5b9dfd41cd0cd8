"""What a routine class declares about its config, and whether values fit that.

A class says it with a dataclass::

    @dataclass
    class Config:
        path: str = field(metadata={"doc": "the file to read"})           # no default: required
        size: int = field(default=100, metadata={"doc": "rows at once", "min": 1, "max": 10_000})
        mode: str = field(default="rows", metadata={"choices": ("rows", "columns")})
        when: str = field(default="True", metadata={"doc": "which rows", "expression": True})
        routes: list[Route] = field(default_factory=list)                 # a dataclass inside is checked too

    class Read(Routine):
        config_type = Config

``min`` and ``max`` bound a number, or the length of a text, a list or a dict. ``expression`` marks a text in the
language of ``routilux.expressions`` (in a list or dict: its texts). ``check`` is a function that raises
``ConfigurationError``, ``TypeError`` or ``ValueError`` for a value that has the right type and is still wrong.
"""

import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from routilux.errors import ConfigurationError, nearest, shown

if TYPE_CHECKING:
    from routilux.model.routine import Routine

_OPTIONS = ("doc", "min", "max", "choices", "expression", "check")


class ConfigField(NamedTuple):
    """One key of a declared config."""

    name: str
    type: Any
    required: bool
    default: Any
    """``None`` if the key is required."""
    doc: str = ""
    min: float | None = None
    max: float | None = None
    choices: tuple[Any, ...] | None = None
    expression: bool = False
    check: Callable[[Any], object] | None = None


class ConfigProblem(NamedTuple):
    """A value that does not fit: ``kind`` says how, ``path`` leads to it (``key`` first), ``nearest`` are names."""

    key: str
    message: str
    nearest: tuple[str, ...] = ()
    kind: Literal["unknown", "missing", "type", "value"] = "value"
    path: tuple[str | int, ...] = ()


def declared_fields(routine_class: "type[Routine]") -> list[ConfigField] | None:
    """The keys that the config of a routine class may have; ``None`` if the class does not say it."""
    kind = routine_class.config_type
    return None if kind is None else list(fields_of(kind))


@cache
def fields_of(kind: type) -> tuple[ConfigField, ...]:
    """The fields of a config dataclass, in their order."""
    # Loaded already by the module that declared the class.
    from dataclasses import MISSING, fields, is_dataclass

    if not is_dataclass(kind):
        raise ConfigurationError(f"config_type {shown(kind)} is no dataclass; write @dataclass above it")
    hints = _hints(kind)
    found = []
    for each in fields(kind):
        given = each.default_factory is not MISSING
        default = each.default_factory() if each.default_factory is not MISSING else each.default
        required = default is MISSING and not given
        options = {name: each.metadata[name] for name in _OPTIONS if name in each.metadata}
        if options.get("choices") is not None:
            options["choices"] = tuple(options["choices"])
        found.append(
            ConfigField(
                each.name, hints.get(each.name, Any), required, None if required else default, **options
            )
        )
    return tuple(found)


def check_config(
    routine_class: "type[Routine]", values: Mapping[str, Any], *, complete: bool = True
) -> list[ConfigProblem]:
    """Everything about ``values`` that the class's declaration does not allow; nothing if it declares nothing.

    With ``complete`` a required key that is missing is a problem too.
    """
    fields = declared_fields(routine_class)
    return [] if fields is None else list(_field_problems(fields, values, (), complete))


def _field_problems(
    fields: Sequence[ConfigField], values: Mapping[Any, Any], path: tuple[str | int, ...], complete: bool
) -> Iterator[ConfigProblem]:
    by_name = {field.name: field for field in fields}
    for name, value in values.items():
        here = (*path, name)
        if name in by_name:
            yield from _value_problems(by_name[name], value, here)
        else:
            close = tuple(nearest(name, by_name))
            yield _problem(here, "unknown", f"no config key {shown(name)}", close)
    if complete:
        for field in fields:
            if field.required and field.name not in values:
                doc = f" ({field.doc})" if field.doc else ""
                yield _problem((*path, field.name), "missing", f"{field.name!r} is required{doc}")


def _value_problems(field: ConfigField, value: Any, path: tuple[str | int, ...]) -> Iterator[ConfigProblem]:
    wrong = list(_type_problems(value, field.type, path))
    yield from wrong
    if wrong or (value is None and field.choices is None):
        return
    if field.choices is not None and value not in field.choices:
        listed = ", ".join(map(repr, field.choices))
        names = tuple(nearest(value, map(str, field.choices)))
        yield _problem(path, "value", f"expected one of {listed}, got {shown(value)}", names)
        return
    yield from _range_problems(field, value, path)
    if field.check is not None:
        try:
            field.check(value)
        except (ConfigurationError, TypeError, ValueError) as error:
            yield _problem(path, "value", str(error))


def _range_problems(field: ConfigField, value: Any, path: tuple[str | int, ...]) -> Iterator[ConfigProblem]:
    number = isinstance(value, (int, float))
    if not number and not isinstance(value, Collection):
        return
    size: float = value if number else len(value)
    what = "" if number else "a length of "
    if field.min is not None and not size >= field.min:
        yield _problem(path, "value", f"expected {what}at least {field.min}, got {shown(value)}")
    elif field.max is not None and not size <= field.max:
        yield _problem(path, "value", f"expected {what}at most {field.max}, got {shown(value)}")


# -- one value against one annotation ----------------------------------------------------------------------


def _type_problems(value: Any, kind: Any, path: tuple[str | int, ...]) -> Iterator[ConfigProblem]:
    origin, arguments = get_origin(kind) or kind, get_args(kind)
    if origin is Annotated:
        yield from _type_problems(value, arguments[0], path)
    elif origin in (Union, UnionType):
        yield from _union_problems(value, arguments, path)
    elif origin is Literal:
        if not any(value == each and type(value) is type(each) for each in arguments):
            listed = ", ".join(map(repr, arguments))
            yield _problem(path, "value", f"expected one of {listed}, got {shown(value)}")
    elif not _is_instance(value, origin):
        yield _wrong_type(value, kind, path)
    elif hasattr(origin, "__dataclass_fields__") and not isinstance(value, origin):
        yield from _field_problems(fields_of(origin), value, path, complete=True)
    elif arguments and isinstance(value, Mapping) and len(arguments) == 2:
        for key, each in value.items():
            yield from _type_problems(key, arguments[0], (*path, key))
            yield from _type_problems(each, arguments[1], (*path, key))
    elif arguments and isinstance(value, (list, tuple)):
        yield from _item_problems(value, origin, arguments, path)


def _item_problems(
    value: Sequence[Any], origin: Any, arguments: tuple[Any, ...], path: tuple[str | int, ...]
) -> Iterator[ConfigProblem]:
    fixed = origin is tuple and arguments[-1] is not ...
    if fixed and len(arguments) != len(value):
        yield _problem(path, "value", f"expected {len(arguments)} items, got {len(value)}")
        return
    for number, each in enumerate(value):
        yield from _type_problems(each, arguments[number] if fixed else arguments[0], (*path, number))


def _union_problems(
    value: Any, members: tuple[Any, ...], path: tuple[str | int, ...]
) -> Iterator[ConfigProblem]:
    fitting = [member for member in members if _is_instance(value, get_origin(member) or member)]
    attempts = [list(_type_problems(value, member, path)) for member in fitting or members]
    if not fitting:
        yield _wrong_type(value, " or ".join(map(type_label, members)), path)
    elif all(attempts):
        yield from min(attempts, key=len)  # what looks most like the value is what was meant


def _is_instance(value: Any, kind: Any) -> bool:
    if kind is Any or not isinstance(kind, type):
        return True  # a type variable, a protocol, a Literal: decided elsewhere, or not to be decided
    if kind is float:
        return type(value) is not bool and isinstance(value, (int, float))
    if kind is int:
        return type(value) is not bool and isinstance(value, int)
    if kind is tuple:
        return isinstance(value, (list, tuple))
    if kind is Callable or kind.__name__ == "Callable":
        return callable(value)
    if kind in (Sequence, Collection):
        return isinstance(value, kind) and not isinstance(value, (str, bytes, Mapping))
    if hasattr(kind, "__dataclass_fields__"):
        return isinstance(value, (Mapping, kind))
    return isinstance(value, kind)


_LABELS: dict[Any, str] = {
    str: "text", int: "a whole number", float: "a number", bool: "true or false", NoneType: "null",
    None: "null", list: "a list", tuple: "a list", Sequence: "a list", dict: "a mapping", Mapping: "a mapping",
    Callable: "a callable", Any: "anything",
}  # fmt: skip


def type_label(kind: Any) -> str:
    """An annotation in words."""
    if isinstance(kind, str):
        return kind
    origin = get_origin(kind) or kind
    if origin in (Union, UnionType):
        return " or ".join(map(type_label, get_args(kind)))
    if origin is Literal:
        return "one of " + ", ".join(map(repr, get_args(kind)))
    if hasattr(origin, "__dataclass_fields__"):
        return "a mapping"
    return _LABELS.get(origin) or str(getattr(origin, "__name__", origin))


def _wrong_type(value: Any, kind: Any, path: tuple[str | int, ...]) -> ConfigProblem:
    message = f"expected {type_label(kind)}, got {shown(value)} ({type(value).__name__})"
    return _problem(path, "type", message)


def _problem(
    path: tuple[str | int, ...],
    kind: Literal["unknown", "missing", "type", "value"],
    message: str,
    close: tuple[str, ...] = (),
) -> ConfigProblem:
    return ConfigProblem(str(path[0]), message, close, kind, path)


def _hints(kind: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(kind, include_extras=True)
    except (NameError, TypeError, AttributeError, SyntaxError):
        return {}  # names that cannot be resolved: anything goes
