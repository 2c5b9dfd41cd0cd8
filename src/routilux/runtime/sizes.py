"""How much memory a value takes, roughly and cheaply: a sample stands for the whole of a large container."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Mapping, Set
from gc import get_referents
from itertools import chain, islice
from types import BuiltinFunctionType, FrameType, FunctionType, ModuleType, TracebackType
from typing import Any

from routilux.tracebacks import exceptions_of

MOST_LOOKED_AT = 1_000  # values altogether
SAMPLE = 16  # entries of a container
DEEPEST = 4  # containers within containers
UNKNOWN = 256  # bytes of what does not say
_CODE = (
    type,
    ModuleType,
    FunctionType,
    BuiltinFunctionType,
    FrameType,
    TracebackType,
)  # not of one value alone
_PLAIN = frozenset((str, int, float, bool, type(None), bytes))  # most of what is met, with nothing inside


def estimated_size(value: Any) -> int:
    """Bytes. What is shared is counted as often as it is met; an array of another library says itself."""
    return _Look().size(value, 0)


class _Look:
    def __init__(self) -> None:
        self._left = MOST_LOOKED_AT
        self._exceptions: set[int] = set()  # that were counted: each is met along several ways

    def size(self, value: Any, depth: int) -> int:
        self._left -= 1
        if type(value) in _PLAIN:
            return sys.getsizeof(value)
        size = max(_own_size(value), _nbytes(value))
        if depth >= DEEPEST or self._left <= 0:
            return size
        return size + self._inside(value, depth)

    def _inside(self, value: Any, depth: int) -> int:
        """A sample is taken before it is looked at: another thread may change the container meanwhile."""
        try:
            if isinstance(value, (dict, Mapping)):
                length, some = len(value), list(islice(chain.from_iterable(value.items()), 2 * SAMPLE))
            elif isinstance(value, (list, tuple, deque, Set)):
                length, some = len(value), list(islice(value, SAMPLE))
            elif issubclass(type(value), BaseException):
                errors = self._news(exceptions_of(value))
                length, some = len(errors), [part for error in errors[:SAMPLE] for part in _parts(error)]
            else:
                some = _parts(value)
                length, some = len(some), some[:SAMPLE]
        except Exception:  # noqa: BLE001 the class of a user may do anything, and a container change right here
            return 0
        looked_at = min(length, SAMPLE)
        return sum(self.size(part, depth + 1) for part in some) * length // looked_at if looked_at else 0

    def _news(self, errors: list[BaseException]) -> list[BaseException]:
        news = [error for error in errors if id(error) not in self._exceptions]
        self._exceptions.update(map(id, news))
        return news


def _parts(value: Any) -> list[Any]:
    """What an object has, in attributes or slots; of an exception without other exceptions."""
    return [part for part in get_referents(value) if not issubclass(type(part), (*_CODE, BaseException))]


def _own_size(value: Any) -> int:
    try:
        return sys.getsizeof(value)
    except Exception:  # noqa: BLE001 the class of a user may say anything
        return UNKNOWN


def _nbytes(value: Any) -> int:
    try:
        size = value.nbytes
    except Exception:  # noqa: BLE001 as above
        return 0
    return size if type(size) is int else 0
