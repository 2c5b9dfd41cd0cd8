"""Immutable records: what a dataclass would give, without the price of importing dataclasses."""

from __future__ import annotations

from typing import Any, NoReturn


class Frozen:
    """Attributes are set once, by :meth:`_init`, and never again."""

    __slots__ = ()

    def _init(self, **fields: Any) -> None:
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        kind = type(self).__name__
        raise AttributeError(f"{kind}.{name} cannot be changed; make a new {kind}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be deleted")


class Value(Frozen):
    """Equal, hashed, printed and copied by its fields: ``__slots__``, in the order of the constructor."""

    __slots__ = ()

    def _fields(self) -> dict[str, Any]:
        slots: tuple[str, ...] = getattr(type(self), "__slots__", ())
        return {name: getattr(self, name) for name in slots}

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other) or not isinstance(other, Value):
            return NotImplemented
        return self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash((type(self), *self._fields().values()))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self._fields().items())
        return f"{type(self).__name__}({fields})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(self._fields().values())
