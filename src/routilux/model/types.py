"""Declared types of payloads: which fields they have, and whether two of them fit.

Dataclasses, TypedDicts, msgspec Structs and pydantic models are recognised by what they look like, and no
library is imported. What cannot be proved wrong fits: an unresolved forward reference, a type variable, a
protocol.
"""

import sys
import typing
from collections.abc import Iterator, Mapping
from types import SimpleNamespace, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    NotRequired,
    Required,
    TypeAlias,
    Union,
    get_args,
    get_origin,
)

from routilux.errors import InvalidTypeError, refused

DeclaredType: TypeAlias = type[Any]
_Seen: TypeAlias = dict[tuple[Any, Any], bool]  # pairs of types under way or decided: types can be recursive


class Field(NamedTuple):
    annotation: Any
    required: bool


class Mismatch(NamedTuple):
    """Where two types do not fit."""

    field: str
    expected: str
    found: str


class DataType(NamedTuple):
    """A type of payloads and the fields that it has."""

    name: str
    fields: Mapping[str, Field]


def data_type(kind: object, where: str) -> DataType:
    """The fields of a declared type; an ``InvalidTypeError`` if it is none that has fields."""
    fields = _fields(kind)
    if fields is None or not isinstance(kind, type):
        expected = "a dataclass, a TypedDict, a msgspec Struct or a pydantic model"
        raise refused(InvalidTypeError, where, kind, expected)
    return DataType(kind.__name__, fields)


def mismatch_between(
    source: DataType, target: DataType, mapping: Mapping[str, str] | None
) -> Mismatch | None:
    """The first field of ``target`` that ``source``, with its keys renamed, does not fill."""
    renamed = {(mapping or {}).get(name, name): field for name, field in source.fields.items()}
    return next(_field_mismatches(renamed, target.fields, {}), None)


# -- fields ------------------------------------------------------------------------------------------------


def _fields(kind: Any) -> dict[str, Field] | None:
    """The fields of a structured type by name; None if it has none."""
    if not isinstance(kind, type):
        return None
    if hasattr(kind, "__dataclass_fields__"):
        return dict(_dataclass_fields(kind))
    if hasattr(kind, "__required_keys__"):
        return {name: _typed_dict_field(name, hint, kind) for name, hint in _hints(kind).items()}
    if hasattr(kind, "__struct_fields__"):
        return _struct_fields(kind)
    if hasattr(kind, "model_fields"):
        models = kind.model_fields.items()
        return {name: Field(field.annotation, field.is_required()) for name, field in models}
    return None


def _typed_dict_field(name: str, hint: Any, kind: Any) -> Field:
    marked = get_origin(hint)  # __required_keys__ does not see the mark where annotations are text
    required = marked is Required or (marked is not NotRequired and name in kind.__required_keys__)
    return Field(_bare(hint), required)


def _dataclass_fields(kind: Any) -> Iterator[tuple[str, Field]]:
    from dataclasses import MISSING, fields  # loaded already by the module that made the dataclass

    hints = _hints(kind)
    for field in fields(kind):
        required = field.init and field.default is MISSING and field.default_factory is MISSING
        yield field.name, Field(hints.get(field.name, Any), required)


def _struct_fields(kind: Any) -> dict[str, Field]:
    names: tuple[str, ...] = kind.__struct_fields__
    defaults: tuple[Any, ...] = kind.__struct_defaults__  # of the last fields
    first = len(names) - len(defaults)
    required = {
        name for at, name in enumerate(names) if at < first or repr(defaults[at - first]) == "NODEFAULT"
    }
    hints = _hints(kind)
    return {name: Field(hints.get(name, Any), name in required) for name in names}


def _hints(kind: type) -> dict[str, Any]:
    """The annotations of a class and its bases; Any for a name that cannot be resolved."""
    hints: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        names = vars(sys.modules.get(base.__module__, SimpleNamespace()))
        for name, hint in vars(base).get("__annotations__", {}).items():
            holder = SimpleNamespace(__annotations__={name: hint})
            try:
                hints[name] = typing.get_type_hints(holder, names, include_extras=True)[name]
            except (NameError, TypeError, AttributeError, SyntaxError):
                hints[name] = Any
    return {name: hint for name, hint in hints.items() if get_origin(hint) is not ClassVar}


def _bare(annotation: Any) -> Any:
    """The annotation without ``Annotated``, ``Required``, ``NotRequired`` and new types."""
    while True:
        if get_origin(annotation) in (Annotated, Required, NotRequired):
            annotation = get_args(annotation)[0]
        elif hasattr(annotation, "__supertype__"):  # a NewType
            annotation = annotation.__supertype__
        else:
            return annotation


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, UnionType)


def _label(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


# -- one type against another ------------------------------------------------------------------------------


def _field_mismatches(
    source: Mapping[str, Field], target: Mapping[str, Field], seen: _Seen
) -> Iterator[Mismatch]:
    for name, wanted in target.items():
        given = source.get(name)
        expected = _label(wanted.annotation)
        if given is None:
            if wanted.required:
                yield Mismatch(name, expected, "nothing")
        elif wanted.required and not given.required:
            yield Mismatch(name, expected, f"{_label(given.annotation)}, which may be left out")
        elif not _assignable(given.annotation, wanted.annotation, seen):
            yield Mismatch(name, expected, _label(given.annotation))


def _assignable(source: Any, target: Any, seen: _Seen) -> bool:
    source, target = _bare(source), _bare(target)
    if source == target or source is Any or target in (Any, object):
        return True
    if _is_union(source):
        return all(_assignable(member, target, seen) for member in get_args(source))
    if _is_union(target):
        return any(_assignable(source, member, seen) for member in get_args(target))
    if get_origin(source) is Literal:
        return _literal_fits(get_args(source), target, seen)
    return get_origin(target) is not Literal and _class_fits(source, target, seen)


def _literal_fits(values: tuple[Any, ...], target: Any, seen: _Seen) -> bool:
    if get_origin(target) is Literal:
        return set(values) <= set(get_args(target))
    return all(_assignable(type(value), target, seen) for value in values)


def _class_fits(source: Any, target: Any, seen: _Seen) -> bool:
    source_class, target_class = get_origin(source) or source, get_origin(target) or target
    if not (isinstance(source_class, type) and isinstance(target_class, type)):
        return True
    if _fields(target_class) is not None:
        return _structure_fits(source_class, target_class, seen)
    if not _is_subclass(source_class, target_class):
        return False
    source_args, target_args = _arguments(source), _arguments(target)
    if len(source_args) != len(target_args):
        return not (source_args and target_args and source_class is tuple)
    return all(_assignable(*pair, seen) for pair in zip(source_args, target_args, strict=True))


def _structure_fits(source: type, target: type, seen: _Seen) -> bool:
    source_fields, target_fields = _fields(source), _fields(target)
    if source_fields is None or target_fields is None:
        return issubclass(source, Mapping)  # a dict may have what is needed
    pair = (source, target)
    if pair not in seen:
        seen[pair] = True  # what holds for the outside is assumed inside
        seen[pair] = next(_field_mismatches(source_fields, target_fields, seen), None) is None
    return seen[pair]


def _arguments(annotation: Any) -> tuple[Any, ...]:
    return tuple(argument for argument in get_args(annotation) if argument is not ...)


def _is_subclass(source: type, target: type) -> bool:
    if (target is float and source is int) or (target is complex and source in (int, float)):
        return True
    if hasattr(target, "__get_pydantic_core_schema__"):
        return True  # takes more than its own instances
    try:
        return issubclass(source, target)
    except TypeError:
        return True  # a protocol that cannot be asked
