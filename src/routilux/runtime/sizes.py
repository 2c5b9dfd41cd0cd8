"""How much memory a value takes, roughly and cheaply: a sample stands for the whole of a large container."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Mapping, Set
from itertools import chain, islice
from types import TracebackType
from typing import Any

from routilux.tracebacks import of_user

MOST_LOOKED_AT = 1_000  # values altogether
SAMPLE = 16  # entries of a container
DEEPEST = 4  # containers within containers
UNKNOWN = 256  # bytes of what does not say
_PLAIN = frozenset((str, int, float, bool, type(None), bytes))  # most of what is met, with nothing inside


def estimated_size(value: Any) -> int:
    """Bytes. What is shared is counted as often as it is met; an array of another library says itself."""
    return _Look().size(value, 0)


def size_of_error(error: BaseException | None) -> int:
    """Bytes of what its traceback and those of its causes keep alive: the data in the frames of logic."""
    look, total = _Look(), 0
    while error is not None:
        trace: TracebackType | None = of_user(error)
        while trace is not None:
            for value in trace.tb_frame.f_locals.values():
                if isinstance(value, (Mapping, list, tuple, Set, str, bytes, bytearray)) or _nbytes(value):
                    total += look.size(value, 0)
            trace = trace.tb_next
        error = error.__cause__
    return total


class _Look:
    def __init__(self) -> None:
        self._left = MOST_LOOKED_AT

    def size(self, value: Any, depth: int) -> int:
        self._left -= 1
        if type(value) in _PLAIN:
            return sys.getsizeof(value)
        size = max(_own_size(value), _nbytes(value))
        if depth >= DEEPEST or self._left <= 0:
            return size
        if isinstance(value, (dict, Mapping)):
            return size + self._sample(len(value), chain.from_iterable(value.items()), depth, 2)
        if isinstance(value, (list, tuple, deque, Set)):
            return size + self._sample(len(value), value, depth, 1)
        inner = getattr(value, "__dict__", None)
        return size + self.size(inner, depth + 1) if type(inner) is dict else size

    def _sample(self, length: int, parts: Iterable[Any], depth: int, per_entry: int) -> int:
        looked_at = min(length, SAMPLE)
        if not looked_at:
            return 0
        some = 0
        for part in islice(parts, looked_at * per_entry):
            some += self.size(part, depth + 1)
        return some * length // looked_at


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
