"""`+ - * / // %` and `-x` on numbers, `+` on text."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from routilux.expressions.limits import MAX_TEXT
from routilux.expressions.plain import (
    Operation,
    Steps,
    Value,
    bounded_number,
    is_number,
    made_text,
    mismatch,
    number_of,
)
from routilux.expressions.problem import Place


def calculation(action: str, operate: Callable[[Value, Value], Any]) -> Operation:
    """An operator on two numbers; `action` is its verb in a message."""

    def calculate(left: Value, right: Value, _steps: Steps, at: Place) -> Value:
        if not (is_number(left) and is_number(right)):
            raise mismatch(action, left, right, at)
        number_of(left, at)
        number_of(right, at)
        try:
            return bounded_number(operate(left, right), at)
        except ZeroDivisionError:
            raise at.error("division by zero", "guard it: a / b if b != 0 else 0") from None

    return calculate


_add_numbers = calculation("add", operator.add)


def add(left: Value, right: Value, steps: Steps, at: Place) -> Value:
    if type(left) is not str or type(right) is not str:
        return _add_numbers(left, right, steps, at)
    if len(left) + len(right) > MAX_TEXT:
        raise at.error(
            f"the text becomes longer than {MAX_TEXT:,} characters", "build it in the routine `template`"
        )
    return made_text(left + right, steps, at)


def negated(value: Value, at: Place) -> Value:
    return -number_of(value, at)
