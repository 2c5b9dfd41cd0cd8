"""How much memory a value takes, roughly and cheaply: a sample stands for the whole of a large container."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Mapping, Set
from itertools import chain, islice
from types import TracebackType
from typing import Any, TypeVar

from routilux.tracebacks import cause_of, of_user

MOST_LOOKED_AT = 1_000  # values altogether
SAMPLE = 16  # entries of a container
DEEPEST = 4  # containers within containers
UNKNOWN = 256  # bytes of what does not say
_DATA = (Mapping, list, tuple, Set, str, bytes, bytearray)
_PLAIN = frozenset((str, int, float, bool, type(None), bytes))  # most of what is met, with nothing inside
_NOTHING: tuple[int, list[Any]] = (0, [])

T = TypeVar("T")


def estimated_size(value: Any) -> int:
    """Bytes. What is shared is counted as often as it is met; an array of another library says itself."""
    return _Look().size(value, 0)


def size_of_error(error: BaseException | None) -> int:
    """Bytes of what its traceback and those of its causes keep alive: the data in the frames of logic."""
    look, total = _Look(), 0
    seen: set[int] = set()  # causes may go round in a circle
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        trace: TracebackType | None = of_user(error)
        while trace is not None:
            total += sum(look.size_of_data(value) for value in trace.tb_frame.f_locals.values())
            trace = trace.tb_next
        error = cause_of(error)
    return total


class _Look:
    def __init__(self) -> None:
        self._left = MOST_LOOKED_AT

    def size(self, value: Any, depth: int) -> int:
        self._left -= 1
        if type(value) in _PLAIN:
            return sys.getsizeof(value)
        size = max(_asked(sys.getsizeof, value, UNKNOWN), _asked(_nbytes, value, 0))
        if depth >= DEEPEST or self._left <= 0:
            return size
        length, some = _asked(_sample, value, _NOTHING)
        looked_at = min(length, SAMPLE)
        inside = sum(self.size(part, depth + 1) for part in some)
        return size + inside * length // looked_at if looked_at else size

    def size_of_data(self, value: Any) -> int:
        """Of a value that is a container, a text or an array; 0 of any other."""
        return self.size(value, 0) if _asked(_is_data, value, unknown=False) else 0


def _asked(ask: Callable[[Any], T], value: Any, unknown: T) -> T:
    """The class of a user may do anything, and another thread may change a container right here."""
    try:
        return ask(value)
    except BaseException:  # noqa: BLE001
        return unknown


def _sample(value: Any) -> tuple[int, list[Any]]:
    """How long a container is, and some of what is in it: taken before it is looked at."""
    if isinstance(value, (dict, Mapping)):
        return len(value), list(islice(chain.from_iterable(value.items()), 2 * SAMPLE))
    if isinstance(value, (list, tuple, deque, Set)):
        return len(value), list(islice(value, SAMPLE))
    inner = getattr(value, "__dict__", None)
    return (1, [inner]) if type(inner) is dict else (0, [])


def _is_data(value: Any) -> bool:
    return isinstance(value, _DATA) or bool(_nbytes(value))


def _nbytes(value: Any) -> int:
    size = value.nbytes
    return size if type(size) is int else 0
