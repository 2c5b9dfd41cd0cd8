"""`==` and `<` on plain data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from routilux.expressions.limits import MAX_DEPTH, TEXT_STEP
from routilux.expressions.plain import (
    UNTYPED,
    Operation,
    Steps,
    Value,
    elements_of,
    entries_of,
    is_plain,
    is_scalar,
    kind_of,
    mismatch,
    spend,
)
from routilux.expressions.problem import Place

_ABSENT = object()


def equal(left: Value, right: Value, steps: Steps, at: Place) -> bool:
    if is_scalar(left) and is_scalar(right):
        return bool(left == right)
    return same(left, right, steps, at)


def unequal(left: Value, right: Value, steps: Steps, at: Place) -> bool:
    return not equal(left, right, steps, at)


def ordering(test: Callable[[Value, Value], Any]) -> Operation:
    """`<` and its like, on two numbers or two texts."""

    def compare(left: Value, right: Value, _steps: Steps, at: Place) -> Any:
        kind, other = type(left), type(right)
        if (kind is int or kind is float) and (other is int or other is float):
            return test(left, right)
        if kind is str and other is str:
            return test(left, right)
        raise mismatch("compare", left, right, at)

    return compare


def same(left: Value, right: Value, steps: Steps, at: Place, depth: int = 0) -> bool:
    """Python's `==`, at a price for each element; values that hold themselves end at the depth limit."""
    _check_comparable(left, right, at, depth)
    spend(_price(left, right), steps, at)
    if is_scalar(left) and is_scalar(right):
        return bool(left == right)
    if type(left) is not type(right) or len(left) != len(right):
        return False
    if left is right:
        return True
    if type(left) is dict:
        return _same_entries(left, right, steps, at, depth + 1)
    pairs = zip(elements_of(left, steps, at), elements_of(right, steps, at), strict=False)
    return all(one is two or same(one, two, steps, at, depth + 1) for one, two in pairs)


def _check_comparable(left: Value, right: Value, at: Place, depth: int) -> None:
    for value in (left, right):
        if not is_plain(value):
            raise at.error(f"{kind_of(value)} cannot be compared", UNTYPED)
    if depth > MAX_DEPTH:
        raise at.error(f"the value is nested deeper than {MAX_DEPTH}", "compare a part of it")


def _same_entries(left: Value, right: Value, steps: Steps, at: Place, depth: int) -> bool:
    others = dict(entries_of(right, steps, at))
    for key, value in entries_of(left, steps, at):
        other = others.get(key, _ABSENT)
        if other is _ABSENT or not (value is other or same(value, other, steps, at, depth)):
            return False
    return True


def _price(left: Value, right: Value) -> int:
    if type(left) is str and type(right) is str and len(left) == len(right):
        return 1 + len(left) // TEXT_STEP
    return 1
