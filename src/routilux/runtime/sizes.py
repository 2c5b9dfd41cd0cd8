"""How much memory a value takes, roughly and cheaply: a sample stands for the whole of a large container."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Mapping, Set
from functools import lru_cache
from gc import get_referents
from itertools import chain, islice
from types import BuiltinFunctionType, FrameType, FunctionType, ModuleType, TracebackType
from typing import Any

from routilux.model.item import Output
from routilux.tracebacks import exceptions_of

MOST_LOOKED_AT = 1_000  # values altogether
SAMPLE = 16  # entries of a container
DEEPEST = 4  # containers within containers
UNKNOWN = 256  # bytes of what does not say
# Python takes its time to say the size of what most values consist of.
NUMBER = 32  # bytes of one, more or less
LARGE = 2**64  # numbers below take no more
TEXT = 49  # bytes of an empty one
CONTAINER = 64  # the same
_OF_AN_ENTRY: dict[type, int] = {dict: 40, list: 8, tuple: 8, Output: 8}
_NUMBERS = frozenset((float, bool, type(None)))
_NO_PARTS = (
    BaseException,
    type,
    ModuleType,
    FunctionType,
    BuiltinFunctionType,
    FrameType,
    TracebackType,
)  # not of one value alone, or looked at elsewhere
_MAPPING, _ENTRIES, _ERROR = "mapping", "entries", "error"


def estimated_size(value: Any) -> int:
    """Bytes. What is shared is counted as often as it is met; an array of another library says itself."""
    return _Look().size(value, 0)


class _Look:
    def __init__(self) -> None:
        self._left = MOST_LOOKED_AT
        self._exceptions: set[int] = set()  # that were counted: each is met along several ways

    def size(self, value: Any, depth: int) -> int:
        """A sample is taken before it is looked at: another thread may change the container meanwhile."""
        kind: type = type(value)
        entry = _OF_AN_ENTRY.get(kind)
        size = max(_own_size(value), _nbytes(value)) if entry is None else CONTAINER + entry * len(value)
        if depth >= DEEPEST or self._left <= 0:
            return size
        try:
            shape = _MAPPING if kind is dict else _ENTRIES if entry is not None else _shape(kind)
            if shape is _MAPPING:
                length, some = len(value), list(islice(chain.from_iterable(value.items()), 2 * SAMPLE))
            elif shape is _ENTRIES:
                length, some = len(value), list(islice(value, SAMPLE))
            else:
                length, some = self._sample_of_object(value, shape)
        except BaseException:  # noqa: BLE001 the class of a user may do anything, and a container change right here
            return size
        self._left -= len(some)
        total = 0
        for part in some:
            kind = type(part)
            if kind is str:
                total += TEXT + len(part) * (1 if part.isascii() else 2)
            elif kind in _NUMBERS or (kind is int and -LARGE < part < LARGE):
                total += NUMBER
            else:
                total += self.size(part, depth + 1)
        return size + (total if length <= SAMPLE else total * length // SAMPLE)

    def _sample_of_object(self, value: Any, shape: str | None) -> tuple[int, list[Any]]:
        if shape is _ERROR:
            errors = self._news(exceptions_of(value))
            return len(errors), [part for error in errors[:SAMPLE] for part in _parts(error)]
        parts = _parts(value)
        return len(parts), parts[:SAMPLE]

    def _news(self, errors: list[BaseException]) -> list[BaseException]:
        news = [error for error in errors if id(error) not in self._exceptions]
        self._exceptions.update(map(id, news))
        return news


def _parts(value: Any) -> list[Any]:
    """What an object has, in attributes or slots; of an exception without other exceptions."""
    return [part for part in get_referents(value) if not issubclass(type(part), _NO_PARTS)]


@lru_cache(maxsize=256)
def _shape(kind: type) -> str | None:
    """What there is in values of a type: remembered, because it takes long to ask for. None: attributes or slots."""
    if issubclass(kind, Mapping):
        return _MAPPING
    if issubclass(kind, (list, tuple, deque, Set)):
        return _ENTRIES
    return _ERROR if issubclass(kind, BaseException) else None


def _own_size(value: Any) -> int:
    try:
        return sys.getsizeof(value)
    except BaseException:  # noqa: BLE001 the class of a user may say anything
        return UNKNOWN


def _nbytes(value: Any) -> int:
    try:
        size = getattr(value, "nbytes", 0)
    except BaseException:  # noqa: BLE001 as above
        return 0
    return size if type(size) is int else 0
