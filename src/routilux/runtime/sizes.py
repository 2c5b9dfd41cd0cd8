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
OUTPUT = 256  # of one without entries
SHORT = 64  # characters of a text that is no more than an entry
ENTRY = 160  # bytes of a number or a short text, with its place and its name
LARGE_VALUE = 4_096  # bytes; what takes as many is counted once, however often it is met
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
    """Bytes. An array of another library says itself.

    What is large by itself, such as a long text, is counted once; what is small as often as it is met.
    """
    look = _Look()
    size = look.size(value, 0, 1)
    return size - int(look.excess) if look.excess else size


def size_of_outputs(outputs: list[Output]) -> int:
    """The same for the outputs of a job, at a fraction of the cost where they are a few numbers and short texts."""
    if len(outputs) > SAMPLE:
        return estimated_size(outputs)
    size = len(outputs) * OUTPUT
    try:
        for output in outputs:
            data = output[2]
            if len(data) > SAMPLE:
                return estimated_size(outputs)
            for key, value in data.items():
                kind = type(value)
                if not (kind is int and -LARGE < value < LARGE) and kind not in _NUMBERS:
                    if kind is not str or len(value) > SHORT:
                        return estimated_size(outputs)
                size += ENTRY + len(key)
    except BaseException:  # noqa: BLE001 its owner may have put anything there, and may change it right here
        return estimated_size(outputs)
    return size


class _Look:
    # By id: what is large, and for how much more than its size it stands, as one of a sample; kept, so that its id is
    # not used again. Most values have nothing that is large.
    _large: dict[int, tuple[Any, float]] | None = None
    excess = 0.0  # bytes that shared large values were counted for beyond their size

    def __init__(self) -> None:
        self._left = MOST_LOOKED_AT
        self._exceptions: set[int] = set()  # that were counted: each is met along several ways

    def size(self, value: Any, depth: int, stands_for: float) -> int:
        """A sample is taken before it is looked at: another thread may change the container meanwhile.

        ``stands_for``: how many values it stands for, as part of a sample.
        """
        kind: type = type(value)
        entry = _OF_AN_ENTRY.get(kind)
        size = max(_own_size(value), _nbytes(value)) if entry is None else CONTAINER + entry * len(value)
        if size >= LARGE_VALUE:
            size = self._once(value, size, stands_for)
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
        if length > SAMPLE:
            stands_for = stands_for * length / SAMPLE
        total = 0
        for part in some:
            kind = type(part)
            if kind is str:
                size_of_text = TEXT + len(part) * (1 if part.isascii() else 2)
                if size_of_text >= LARGE_VALUE:
                    size_of_text = self._once(part, size_of_text, stands_for)
                total += size_of_text
            elif kind in _NUMBERS or (kind is int and -LARGE < part < LARGE):
                total += NUMBER
            else:
                total += self.size(part, depth + 1, stands_for)
        return size + (total if length <= SAMPLE else total * length // SAMPLE)

    def _once(self, value: Any, size: int, stands_for: float) -> int:
        if self._large is None:
            self._large = {}
        known = self._large.get(id(value))
        self._large[id(value)] = value, size * (stands_for - 1) if known is None else 0.0
        if known is None:
            return size
        self.excess += known[1]
        return 0

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
    return min(size, sys.maxsize) if type(size) is int else 0
