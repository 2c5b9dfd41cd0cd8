"""Exact plain data: what a value is, and the bounds of what an operation reads and makes.

No attribute of a value is read. A value is asked for its type, which runs no code of the user, and the type is
compared by `is`, because hashing a type or comparing it by `==` asks its metaclass. What is not exactly a
`dict`, `list`, `tuple`, `str`, `int`, `float`, `bool` or `None` may be carried from a name to the result and
be compared by `is None`, and that is all.

One thing is left to the dict itself: looking up a key compares it with a stored key of the same hash. A dict
whose keys are objects of the caller's own classes runs their `__eq__` in that case.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from routilux.expressions.limits import INTEGER_LIMIT, MAX_STEPS, MAX_TEXT, TEXT_STEP
from routilux.expressions.problem import ExpressionError, Place, shortened

Value: TypeAlias = Any
Steps: TypeAlias = list[int]
"""A purse: one cell with the steps that are left."""
Operation: TypeAlias = Callable[[Value, Value, Steps, Place], Value]
"""What an operator does with its two operands."""

# `type(x).__name__` would ask a metaclass; the slot of `type` itself does not.
_name_slot: Final[Callable[[type], str]] = type.__dict__["__name__"].__get__

_INFINITY: Final = float("inf")
UNTYPED: Final = "turn it into text, a number, a list or a dict in a routine before this one"


def is_scalar(value: Value) -> bool:
    kind = type(value)
    return kind is str or kind is int or kind is float or kind is bool or value is None


def is_plain(value: Value) -> bool:
    kind = type(value)
    return kind is dict or kind is list or kind is tuple or is_scalar(value)


def is_number(value: Value) -> bool:
    kind = type(value)
    return kind is int or kind is float


def is_sequence(value: Value) -> bool:
    kind = type(value)
    return kind is list or kind is tuple


def kind_of(value: Value) -> str:
    """A value's type in the words of a message; never its content."""
    if value is None:
        return "None"
    if not is_plain(value):
        return f"{shortened(_name_of(value))} (not plain data)"
    return "text" if type(value) is str else _name_of(value)


def _name_of(value: Value) -> str:
    return str.__str__(_name_slot(type(value)))


def truth(value: Value, at: Place) -> bool:
    if not is_plain(value):
        raise at.error(
            f"{kind_of(value)} is neither true nor false here", "test it with `is None` or `is not None`"
        )
    return bool(value)


def spend(amount: int, steps: Steps, at: Place) -> None:
    steps[0] -= amount
    if steps[0] < 0:
        fix = "look at a slice such as x[0:1000], or count in a routine of your own"
        raise at.error(f"the evaluation takes more than {MAX_STEPS:,} steps", fix)


def text_of(value: Value, at: Place) -> str:
    """The value, if it is a text that an operation may read."""
    if type(value) is not str:
        raise at.error(f"text is expected here, not {kind_of(value)}", conversion(value, ""))
    return bounded_text(value, at)


def bounded_text(text: str, at: Place) -> str:
    if len(text) > MAX_TEXT:
        problem = f"a text of {len(text):,} characters is too long; the limit is {MAX_TEXT:,}"
        raise at.error(problem, "take a part of it, such as x[0:1000]")
    return text


def made_text(text: str, steps: Steps, at: Place) -> str:
    """A text that an operation made: bounded, and paid for."""
    spend(len(text) // TEXT_STEP, steps, at)
    return bounded_text(text, at)


def number_of(value: Value, at: Place) -> Value:
    """The value, if it is a number that a calculation may take."""
    if not is_number(value):
        raise at.error(f"a number is expected here, not {kind_of(value)}", conversion(value, 0))
    return bounded_number(value, at) if type(value) is int else value


def bounded_number(number: Value, at: Place) -> Value:
    """A number that a calculation made: a finite float, or an integer of at most 256 bits."""
    if type(number) is int:
        if -INTEGER_LIMIT < number < INTEGER_LIMIT:
            return number
        raise at.error(
            "the integer has more than 256 bits", "calculate with float(x), or in a routine of your own"
        )
    if -_INFINITY < number < _INFINITY:
        return number
    raise at.error("the number is not finite", "guard it: no calculation makes inf or nan")


def elements_of(value: Value, steps: Steps, at: Place) -> list[Value]:
    """The elements, paid for and copied in one go, so that another thread may change the list meanwhile."""
    if not is_sequence(value):
        raise at.error(f"a list is expected here, not {kind_of(value)}", absence(value))
    spend(len(value), steps, at)
    return list(value)


def entries_of(value: dict[Value, Value], steps: Steps, at: Place) -> list[tuple[Value, Value]]:
    """The keys and values, paid for and copied in one go; keys are scalars."""
    spend(len(value), steps, at)
    entries = list(dict.items(value))
    for key, _ in entries:
        if not is_scalar(key):
            raise at.error(f"the dict has a key that is {kind_of(key)}", UNTYPED)
    return entries


def mismatch(action: str, left: Value, right: Value, at: Place) -> ExpressionError:
    return at.error(f"cannot {action} {kind_of(left)} and {kind_of(right)}", conversion(left, right))


def conversion(value: Value, other: Value) -> str:
    """How two values come together; the second may just stand for what is expected."""
    if not is_plain(value) or not is_plain(other):
        return UNTYPED
    if value is None or other is None:
        return "guard it: x is not None and ..., or give a default: get(x, key, default)"
    if type(value) is bool or type(other) is bool:
        return "a bool is no number here: write int(x), or test it with and, or, not"
    if is_scalar(value) and is_scalar(other):
        return "convert one with float(x), int(x) or str(x)"
    return "take one element, such as x[0]"


def absence(owner: Value) -> str:
    """What to do about a value that should have had elements."""
    if owner is None:
        return "guard it: x is not None and ..., or use get(x, key, default)"
    return "" if is_plain(owner) else UNTYPED
