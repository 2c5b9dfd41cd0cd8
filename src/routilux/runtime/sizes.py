"""How much memory a value takes, roughly and cheaply: a sample stands for the whole of a large container."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Mapping, Set
from functools import lru_cache
from gc import get_referents
from itertools import chain, islice
from types import BuiltinFunctionType, FrameType, FunctionType, ModuleType, TracebackType
from typing import Any

from routilux.model.item import Output

MOST_LOOKED_AT = 1_000  # values altogether
SAMPLE = 16  # entries of a container
SCANNED = 1_000  # entries of a container that are looked through for a large one, which no sample may miss
DEEPEST = 4  # samples within samples
UNKNOWN = 256  # bytes of what does not say
# Python takes its time to say the size of what most values consist of.
NUMBER = 32  # bytes of one, more or less
LARGE = 2**64  # numbers below take no more
TEXT = 49  # bytes of an empty one
CONTAINER = 64  # the same
MAPPING = 256  # of an empty one, in an output
SHORT = 64  # characters of a text that is no more than an entry
ENTRY = 160  # bytes of a number or a short text, with its place and its name
LARGE_VALUE = 4_096  # bytes; what takes as many is counted once, however often it is met
_OF_AN_ENTRY: dict[type, int] = {dict: 40, list: 8, tuple: 8, Output: 8}
_SEVERAL = (list, deque)
_TEXTS = frozenset((str, bytes, bytearray))
_NUMBERS = frozenset((float, bool, type(None)))
_NOT_COUNTED = (
    type,
    ModuleType,
    FunctionType,
    BuiltinFunctionType,
    FrameType,
    TracebackType,
)  # not of one value alone
_MAPPING, _ENTRIES, _ERROR, _ATTRIBUTES, _NOTHING = "mapping", "entries", "error", "attributes", "nothing"


def estimated_size(value: Any) -> int:
    """Bytes. An array of another library says itself.

    What is large by itself, such as a long text, is counted once; what is small as often as it is met.
    """
    try:
        size = _small_size(value)
    except BaseException:  # noqa: BLE001 a user may have put anything there, and may change it right here
        size = None
    return _size(value) if size is None else size


def _small_size(value: Any) -> int | None:
    """At a fraction of the cost: of a mapping of a few numbers and short texts, or of a few of them. None: of others.

    Nearly all payloads, outputs and traces are like that.
    """
    mappings = (
        (value,)
        if type(value) is dict
        else value
        if type(value) in _SEVERAL and len(value) <= SAMPLE
        else None
    )
    if mappings is None:
        return None
    size = CONTAINER
    for mapping in mappings:
        if type(mapping) is Output:
            mapping = mapping[2]
        if type(mapping) is not dict or len(mapping) > SAMPLE:
            return None
        size += MAPPING
        for key, part in mapping.items():
            kind = type(part)
            if not (kind is int and -LARGE < part < LARGE) and kind not in _NUMBERS:
                if kind is not str or len(part) > SHORT:
                    return None
            size += ENTRY + len(key)
    return size


def _size(value: Any) -> int:
    total, left = 0.0, MOST_LOOKED_AT
    errors: set[int] = set()  # that were counted: each is met along several ways
    # By id: what is large, and for how much more than its size it was counted, as one of a sample; kept, so that its id
    # is not used again.
    large: dict[int, tuple[Any, float]] = {}
    # What is still to be looked at, for how many values each of them stands, and within how many samples. What a
    # container has is taken out before it is looked at: another thread may change it meanwhile.
    levels: list[tuple[list[Any], float, int]] = [([value], 1.0, 0)]
    for parts, stands_for, depth in levels:
        size = 0
        for part in parts:
            kind: type = type(part)
            shape: str | None = None
            if kind is str:
                own = TEXT + (len(part) if part.isascii() else 2 * len(part))
                if own < LARGE_VALUE:
                    size += own
                    continue
            elif kind in _NUMBERS or (kind is int and -LARGE < part < LARGE):
                size += NUMBER
                continue
            elif kind in _OF_AN_ENTRY:
                own, shape = (
                    CONTAINER + _OF_AN_ENTRY[kind] * len(part),
                    _MAPPING if kind is dict else _ENTRIES,
                )
            else:
                shape = _shape(kind)
                if shape is _NOTHING or (shape is _ERROR and id(part) in errors):
                    continue
                own = max(_own_size(part), _nbytes(part))
                if shape is _ERROR:
                    errors.add(id(part))
            if own >= LARGE_VALUE:
                _, excess = large.get(id(part), (None, None))
                large[id(part)] = part, own * (stands_for - 1) if excess is None else 0.0
                if excess is not None:
                    total -= excess
                    continue
            size += own
            if shape is None or left <= 0:
                continue
            try:
                length, some, outstanding = _sample(part, shape)
            except BaseException:  # noqa: BLE001 the class of a user may do anything, and a container change right here
                continue
            left -= len(some) + len(outstanding)
            parts += outstanding
            if length <= SAMPLE:
                parts += some
            elif depth < DEEPEST:
                levels.append((some, stands_for * length / SAMPLE, depth + 1))
        total += size * stands_for
    return int(total)


def _sample(value: Any, shape: str) -> tuple[int, list[Any], list[Any]]:
    """How many entries a value has, what some of them have in them, and those that are large, which are not among
    them. Large ones are looked for in up to :data:`SCANNED` entries."""
    if shape is _MAPPING:
        entries, outstanding = _evenly(value.items(), len(value), lambda entry: _is_large(entry[1]))
        return (
            len(value) - len(outstanding),
            list(chain.from_iterable(entries)),
            list(chain.from_iterable(outstanding)),
        )
    if shape is _ENTRIES:
        entries, outstanding = _evenly(value, len(value), _is_large)
        return len(value) - len(outstanding), entries, outstanding
    parts = get_referents(value)  # what is in attributes, slots, arguments, and behind an error
    return len(parts), parts[:SAMPLE], []


def _evenly(value: Any, length: int, is_large: Callable[[Any], bool]) -> tuple[list[Any], list[Any]]:
    if length <= SAMPLE:
        return list(islice(value, SAMPLE)), []
    if length > SCANNED:
        some = value[:: length // SAMPLE] if type(value) in (list, tuple) else value
        return list(islice(some, SAMPLE)), []
    entries = list(islice(value, SCANNED))
    outstanding = [entry for entry in entries if is_large(entry)]
    if outstanding:
        entries = [entry for entry in entries if not is_large(entry)]
    return entries[:: max(1, len(entries) // SAMPLE)][:SAMPLE], outstanding


def _is_large(entry: Any) -> bool:
    """Whether it is, or has in it, a long text or many bytes."""
    kind = type(entry)
    if kind in _TEXTS:
        return len(entry) >= LARGE_VALUE
    if kind is Output:
        entry, kind = entry[2], type(entry[2])
    if kind is dict:
        return any(type(part) in _TEXTS and len(part) >= LARGE_VALUE for part in list(entry.values()))
    return False


@lru_cache(maxsize=256)
def _shape(kind: type) -> str:
    """What there is in values of a type: remembered, because it takes long to ask for."""
    if issubclass(kind, _NOT_COUNTED):
        return _NOTHING
    if issubclass(kind, Mapping):
        return _MAPPING
    if issubclass(kind, (list, tuple, deque, Set)):
        return _ENTRIES
    return _ERROR if issubclass(kind, BaseException) else _ATTRIBUTES


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
