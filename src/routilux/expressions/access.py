"""Reaching into plain data: keys, indexes, slices, `in`."""

from __future__ import annotations

from itertools import islice
from typing import Final

from routilux.expressions.comparison import same
from routilux.expressions.limits import INTEGER_LIMIT, MAX_TEXT, TEXT_STEP
from routilux.expressions.plain import (
    Steps,
    Value,
    absence,
    elements_of,
    is_scalar,
    is_sequence,
    kind_of,
    spend,
    text_of,
)
from routilux.expressions.problem import ExpressionError, Place, lines, shortened, suggestion

MISSING: Final = object()
_SHOWN_KEYS = 50


def find(owner: Value, key: Value, at: Place) -> Value:
    """What a dict, list, tuple or text holds at a key or index, or `MISSING`."""
    if type(owner) is dict:
        return _find_key(owner, key, at)
    if type(owner) is not str and not is_sequence(owner):
        raise at.error(f"{kind_of(owner)} has no elements to read", absence(owner))
    if type(key) is not int:
        raise at.error(f"an index is an integer, not {kind_of(key)}", "write x[0] for the first element")
    try:
        return owner[key]
    except IndexError:
        return MISSING


def _find_key(owner: dict[Value, Value], key: Value, at: Place) -> Value:
    if not is_scalar(key):
        raise at.error(f"a key is text or a number, not {kind_of(key)}", "take one element of it")
    try:
        return owner[key]
    except KeyError:
        return MISSING


def element(owner: Value, key: Value, at: Place) -> Value:
    """`owner[key]`."""
    found = find(owner, key, at)
    if found is MISSING:
        raise _no_element(owner, key, at)
    return found


def no_key(owner: Value, key: str, at: Place) -> ExpressionError:
    """Why `owner.key` has no value."""
    if type(owner) is not dict:
        return at.error(f".{key} reads a key of a dict, not of {kind_of(owner)}", absence(owner))
    return _no_element(owner, key, at)


def no_name(name: str, values: dict[Value, Value], at: Place) -> ExpressionError:
    """Why a name has no value."""
    hint = suggestion(name, _text_keys(values))
    return at.error(
        f"there is no value named {shortened(name)}", lines(hint, f"if it may be missing: has({name})")
    )


def part(owner: Value, start: Value, stop: Value, steps: Steps, at: Place) -> Value:
    """`owner[start:stop]`."""
    if type(owner) is not str and not is_sequence(owner):
        raise at.error(f"only text and lists have slices, not {kind_of(owner)}", absence(owner))
    for bound in (start, stop):
        if bound is not None and type(bound) is not int:
            raise at.error(
                f"the bounds of a slice are integers, not {kind_of(bound)}", "convert it with int(x)"
            )
    first, last, _ = slice(start, stop).indices(len(owner))
    length = max(0, last - first)
    if type(owner) is str and length > MAX_TEXT:
        raise at.error(
            f"the slice has {length:,} characters; the limit is {MAX_TEXT:,}", "take a shorter one"
        )
    spend(length // TEXT_STEP if type(owner) is str else length, steps, at)
    return owner[first:last]


def holds(item: Value, owner: Value, steps: Steps, at: Place) -> bool:
    """`item in owner`."""
    if type(owner) is dict:
        return _find_key(owner, item, at) is not MISSING
    if type(owner) is str:
        wanted, text = text_of(item, at), text_of(owner, at)
        spend(len(text) // TEXT_STEP, steps, at)
        return wanted in text
    if not is_sequence(owner):
        raise at.error(f"in looks into text, a list or a dict, not into {kind_of(owner)}", absence(owner))
    return _is_among(item, elements_of(owner, steps, at), steps, at)


def _is_among(item: Value, elements: list[Value], steps: Steps, at: Place) -> bool:
    for each in elements:  # noqa: SIM110 - a generator costs more than the comparisons
        if each is item or same(each, item, steps, at):
            return True
    return False


def lacks(item: Value, owner: Value, steps: Steps, at: Place) -> bool:
    """`item not in owner`."""
    return not holds(item, owner, steps, at)


def _no_element(owner: Value, key: Value, at: Place) -> ExpressionError:
    shown = _shown(key)
    default = f"if it may be missing: get(x, {shown}, default)"
    if type(owner) is not dict:
        return at.error(f"index {shown} is out of range: there are {len(owner):,} elements", default)
    hint = suggestion(key, _text_keys(owner)) if type(key) is str else ""
    return at.error(f"there is no key {shown}", lines(hint, default))


def _text_keys(owner: dict[Value, Value]) -> list[str]:
    return [key for key in islice(owner, _SHOWN_KEYS) if type(key) is str]


def _shown(key: Value) -> str:
    if type(key) is str:
        return shortened(key)
    # A longer integer is not written out: Python refuses its digits or takes long over them.
    return repr(key) if type(key) is not int or -INTEGER_LIMIT < key < INTEGER_LIMIT else "…"
