"""Which classes can be saved, and how: the kinds that come with Routilux, and those that are registered."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, Flag
from threading import Lock
from typing import Any, TypeVar

from routilux.errors import DuplicateNameError, InvalidTypeError, InvalidValueError, describe, refused
from routilux.model.item import Output
from routilux.model.status import ExecutionStatus, JobStatus, WorkerStatus
from routilux.store.kinds import BIG_INT, SPECIAL_FLOAT, STANDARD, SURROGATES, TAGS, Kind, Unfit

C = TypeVar("C", bound=type)

by_class: dict[type, Kind] = {**STANDARD, str: SURROGATES, int: BIG_INT, float: SPECIAL_FLOAT}
by_tag: dict[str, Kind] = dict(TAGS)
_owners: dict[str, type] = {}
_lock = Lock()


def register(
    cls: C,
    name: str | None = None,
    *,
    encode: Callable[[Any], Any] | None = None,
    decode: Callable[[Any], Any] | None = None,
) -> C:
    """Let instances of exactly this class be saved and read back. Returns the class: it is a decorator, too.

    Enums, NamedTuples, dataclasses, msgspec Structs and pydantic models need no functions: their fields are
    saved and given to the constructor again. (Not saved: InitVars, and private attributes of models. Models
    with aliases need pydantic 2.11.) Otherwise ``encode`` gives something that has a form, and ``decode`` takes
    it back.

    ``name`` stands in the data, by default "module.Class"; give one to classes of ``__main__`` and to classes
    that may move. A class can have several: all are read, and the one registered last is written.

    Safe for threads. Raises InvalidTypeError and InvalidValueError for what cannot be registered, and
    DuplicateNameError for a name that another class has.
    """
    where = "register()"
    if not isinstance(cls, type):
        raise refused(InvalidTypeError, where, cls, "a class")
    if (encode is None) != (decode is None):
        raise InvalidValueError(f"register({cls.__name__}): give both encode= and decode=, or neither")
    if cls in STANDARD or cls in (dict, list, str, int, float, bool, type(None)):
        raise InvalidValueError(f"register({cls.__name__}): it has a JSON form already")
    tag = name_of(cls) if name is None else name
    if not isinstance(tag, str) or not tag:
        raise refused(InvalidValueError, f"{where} name=", name, "non-empty text")
    kind = structure(cls) if encode is None or decode is None else Kind("", object, encode, decode)
    if kind is None:
        raise InvalidTypeError(
            f"register({cls.__name__}): only enums, NamedTuples, dataclasses, msgspec Structs and pydantic "
            f"models can be saved by their fields; call register({cls.__name__}, encode=..., decode=...)"
        )
    _enter(cls, kind._replace(tag=tag, write=_guarded(kind.write, cls), read=_guarded(kind.read, cls)))
    return cls


def _enter(cls: type, kind: Kind) -> None:
    with _lock:
        owner = _owners.get(kind.tag)
        if kind.tag in TAGS or (owner is not None and name_of(owner) != name_of(cls)):
            taken = "Routilux itself" if owner is None else name_of(owner)
            raise DuplicateNameError(
                f"register({cls.__name__}): the name {kind.tag!r} is taken by {taken}; give another name="
            )
        if owner is not None and owner is not cls:  # defined again, as by a reload
            by_class.pop(owner, None)
        _owners[kind.tag] = cls
        by_tag[kind.tag] = kind
        by_class[cls] = kind


def _guarded(function: Callable[[Any], Any], cls: type) -> Callable[[Any], Any]:
    """User code may raise anything."""

    def call(value: Any) -> Any:
        try:
            return function(value)
        except (Unfit, RecursionError):
            raise
        except Exception as error:  # user code
            raise Unfit(
                f"{name_of(cls)}: {describe(error)}; if its fields are not what its constructor takes, call "
                f"routilux.store.codec.register({cls.__name__}, encode=..., decode=...)"
            ) from error

    return call


def structure(cls: Any) -> Kind | None:
    """How a class that says what it consists of is written and read; None for any other."""
    if issubclass(cls, Flag):
        return Kind("", int, lambda value: value.value, cls)
    if issubclass(cls, Enum):
        return Kind("", str, lambda value: value.name, lambda name: cls[name])
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return Kind("", dict, lambda value: value._asdict(), lambda fields: cls(**fields))
    if hasattr(cls, "__dataclass_fields__"):
        return _dataclass_kind(cls)
    if hasattr(cls, "__struct_fields__"):
        return _struct_kind(cls)
    if hasattr(cls, "model_validate") and hasattr(cls, "model_fields"):
        return _pydantic_kind(cls)
    return None


def _dataclass_kind(cls: Any) -> Kind:
    from dataclasses import fields  # loaded already by the module that made the dataclass

    names = [field.name for field in fields(cls)]
    late = {field.name for field in fields(cls) if not field.init}

    def write(value: Any) -> dict[str, Any]:
        return {name: getattr(value, name) for name in names if hasattr(value, name)}

    def read(stored: dict[str, Any]) -> Any:
        value = cls(**{name: item for name, item in stored.items() if name not in late})
        for name, item in stored.items():  # as it was, whatever __post_init__ makes of it
            object.__setattr__(value, name, item)
        return value

    return Kind("", dict, write, read)


def _struct_kind(cls: Any) -> Kind:
    names: tuple[str, ...] = cls.__struct_fields__

    def write(value: Any) -> dict[str, Any]:
        return {name: getattr(value, name) for name in names}

    def read(stored: dict[str, Any]) -> Any:
        value = cls(**stored)
        for name, item in stored.items():
            getattr(cls, name).__set__(value, item)  # a frozen one, too
        return value

    return Kind("", dict, write, read)


def _pydantic_kind(cls: Any) -> Kind:
    def write(value: Any) -> dict[str, Any]:
        return {name: getattr(value, name) for name in cls.model_fields} | (value.model_extra or {})

    def read(stored: dict[str, Any]) -> Any:
        fields = cls.model_fields
        if fields.keys() == {"root"} and getattr(cls, "__pydantic_root_model__", False):
            value = cls.model_validate(stored["root"])
        elif any(field.validation_alias for field in fields.values()):
            value = cls.model_validate(stored, by_name=True, by_alias=False)
        else:
            value = cls.model_validate(stored)
        value.__dict__.update({name: stored[name] for name in fields if name in stored})
        return value

    return Kind("", dict, write, read)


def name_of(cls: type) -> str:
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def advice(cls: type) -> str:
    """How to register this class."""
    functions = "" if structure(cls) is not None else ", encode=..., decode=..."
    return f"call routilux.store.codec.register({cls.__name__}{functions})"


for _own in (WorkerStatus, ExecutionStatus, JobStatus, Output):
    register(_own, f"routilux.{_own.__name__}")
