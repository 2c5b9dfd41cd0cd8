"""The functions of the language. They are no values: a name becomes one of them only where it is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from routilux.expressions.access import MISSING, find, holds
from routilux.expressions.limits import MAX_DEPTH, MAX_NODES, MAX_NUMERAL, MAX_ROUNDING, TEXT_STEP
from routilux.expressions.plain import (
    UNTYPED,
    Steps,
    Value,
    bounded_number,
    bounded_text,
    conversion,
    elements_of,
    entries_of,
    is_number,
    is_plain,
    is_scalar,
    is_sequence,
    kind_of,
    made_text,
    mismatch,
    number_of,
    spend,
    text_of,
    truth,
)
from routilux.expressions.problem import Place, shortened


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the language: how it is called, with how many arguments, and what it does."""

    usage: str
    least: int
    most: int
    run: Callable[..., Value]
    """Called with the node's place, the purse of steps, and the arguments."""


FUNCTIONS: Final[dict[str, Function]] = {}

_BRACKETS: Final[dict[type, str]] = {dict: "{}", list: "[]", tuple: "()"}


def _function(usage: str, least: int, most: int) -> Callable[[Callable[..., Value]], Callable[..., Value]]:
    def register(run: Callable[..., Value]) -> Callable[..., Value]:
        FUNCTIONS[usage.partition("(")[0]] = Function(usage, least, most, run)
        return run

    return register


# ---- looking


@_function("len(x)", 1, 1)
def _len(at: Place, _steps: Steps, value: Value) -> int:
    if type(value) is not str and type(value) is not dict and not is_sequence(value):
        raise at.error(f"{kind_of(value)} has no length", conversion(value, ()))
    return len(value)


@_function("get(x, key, default=None)", 2, 3)
def _get(at: Place, _steps: Steps, owner: Value, key: Value, default: Value = None) -> Value:
    found = MISSING if owner is None else find(owner, key, at)
    return default if found is MISSING else found


@_function("has(x.key) or has(x, key)", 1, 2)
def _has(at: Place, _steps: Steps, owner: Value, key: Value) -> bool:
    """`has(x.key)`, with one argument, is the compiler's: what is missing there must not be an error."""
    return owner is not None and find(owner, key, at) is not MISSING


@_function("contains(x, item)", 2, 2)
def _contains(at: Place, steps: Steps, owner: Value, item: Value) -> bool:
    return holds(item, owner, steps, at)


@_function("any(list)", 1, 1)
def _any(at: Place, steps: Steps, value: Value) -> bool:
    return any(truth(each, at) for each in elements_of(value, steps, at))


@_function("all(list)", 1, 1)
def _all(at: Place, steps: Steps, value: Value) -> bool:
    return all(truth(each, at) for each in elements_of(value, steps, at))


# ---- converting


@_function("bool(x)", 1, 1)
def _bool(at: Place, _steps: Steps, value: Value) -> bool:
    return truth(value, at)


@_function("int(x)", 1, 1)
def _int(at: Place, _steps: Steps, value: Value) -> Value:
    return _numeral(int, value, "int(float(x)) reads a number with decimals", at)


@_function("float(x)", 1, 1)
def _float(at: Place, _steps: Steps, value: Value) -> Value:
    return _numeral(float, value, "take the digits out of it first, such as x[0:4]", at)


def _numeral(convert: type[int | float], value: Value, fix: str, at: Place) -> Value:
    if type(value) is bool:
        return convert(value)
    if type(value) is str:
        return bounded_number(_parsed(convert, value, fix, at), at)
    return bounded_number(convert(bounded_number(number_of(value, at), at)), at)


def _parsed(convert: type[int | float], text: str, fix: str, at: Place) -> Value:
    if len(text) > MAX_NUMERAL:
        raise at.error(
            f"a text of {len(text):,} characters is no number", f"at most {MAX_NUMERAL} characters are read"
        )
    try:
        return convert(text)
    except ValueError:
        raise at.error(f"{shortened(text)} is not a number that {convert.__name__}() reads", fix) from None


@_function("str(x)", 1, 1)
def _str(at: Place, steps: Steps, value: Value) -> str:
    if type(value) is str:
        return value
    pieces: list[str] = []
    _write(value, pieces, steps, at, 0)
    return bounded_text("".join(pieces), at)


def _write(value: Value, pieces: list[str], steps: Steps, at: Place, depth: int) -> None:
    """Python's `repr`, at a price for each element; values that hold themselves end at the depth limit."""
    if depth > MAX_DEPTH:
        raise at.error(f"the value is nested deeper than {MAX_DEPTH}", "write a part of it")
    if not is_plain(value):
        raise at.error(f"{kind_of(value)} cannot be written as text", UNTYPED)
    if is_scalar(value):
        pieces.append(_scalar_text(value, steps, at))
        return
    brackets = _BRACKETS[type(value)]
    pieces.append(brackets[0])
    before = ""
    for each in _members(value, steps, at):
        pieces.append(before)
        before = ", "
        if type(value) is dict:
            pieces.append(_scalar_text(each[0], steps, at) + ": ")
        _write(each[1] if type(value) is dict else each, pieces, steps, at, depth + 1)
    pieces.append(",)" if type(value) is tuple and len(value) == 1 else brackets[1])


def _members(value: Value, steps: Steps, at: Place) -> list[Any]:
    return entries_of(value, steps, at) if type(value) is dict else elements_of(value, steps, at)


def _scalar_text(value: Value, steps: Steps, at: Place) -> str:
    if type(value) is str:
        return made_text(repr(text_of(value, at)), steps, at)
    return repr(number_of(value, at) if type(value) is int else value)


# ---- calculating


@_function("abs(number)", 1, 1)
def _abs(at: Place, _steps: Steps, value: Value) -> Value:
    return abs(number_of(value, at))


@_function("round(number, digits=0)", 1, 2)
def _round(at: Place, _steps: Steps, value: Value, digits: Value = None) -> Value:
    number = bounded_number(number_of(value, at), at)
    if digits is None:
        return bounded_number(round(number), at)
    if type(digits) is not int or not -MAX_ROUNDING <= digits <= MAX_ROUNDING:
        problem = f"the digits of round are an integer between -{MAX_ROUNDING} and {MAX_ROUNDING}"
        raise at.error(problem, "write round(x, 2)")
    return bounded_number(round(number, digits), at)


@_function("min(list) or min(a, b, ...)", 1, MAX_NODES)
def _min(at: Place, steps: Steps, *values: Value) -> Value:
    return min(_orderable(values, steps, at))


@_function("max(list) or max(a, b, ...)", 1, MAX_NODES)
def _max(at: Place, steps: Steps, *values: Value) -> Value:
    return max(_orderable(values, steps, at))


def _orderable(values: tuple[Value, ...], steps: Steps, at: Place) -> list[Value]:
    elements = elements_of(values[0] if len(values) == 1 else values, steps, at)
    if not elements:
        raise at.error("the list is empty", "guard it: max(x) if len(x) > 0 else 0")
    first = elements[0]
    for each in elements:
        if type(first) is str and type(each) is str:
            spend(len(text_of(each, at)) // TEXT_STEP, steps, at)
        elif not (is_number(first) and is_number(each)):
            raise mismatch("compare", first, each, at)
    return elements


@_function("sum(list)", 1, 1)
def _sum(at: Place, steps: Steps, value: Value) -> Value:
    return bounded_number(sum(number_of(each, at) for each in elements_of(value, steps, at)), at)


# ---- text


@_function("lower(text)", 1, 1)
def _lower(at: Place, steps: Steps, text: Value) -> str:
    return made_text(str.lower(text_of(text, at)), steps, at)


@_function("upper(text)", 1, 1)
def _upper(at: Place, steps: Steps, text: Value) -> str:
    return made_text(str.upper(text_of(text, at)), steps, at)


@_function("strip(text)", 1, 1)
def _strip(at: Place, steps: Steps, text: Value) -> str:
    return made_text(str.strip(text_of(text, at)), steps, at)


@_function("startswith(text, start)", 2, 2)
def _startswith(at: Place, _steps: Steps, text: Value, start: Value) -> bool:
    return str.startswith(text_of(text, at), text_of(start, at))


@_function("endswith(text, end)", 2, 2)
def _endswith(at: Place, _steps: Steps, text: Value, end: Value) -> bool:
    return str.endswith(text_of(text, at), text_of(end, at))


@_function("split(text, separator=None)", 1, 2)
def _split(at: Place, steps: Steps, text: Value, separator: Value = None) -> list[str]:
    whole = text_of(text, at)
    if separator is not None and not text_of(separator, at):
        raise at.error("the separator is empty", "write split(text) to split at blanks")
    spend(len(whole) // TEXT_STEP, steps, at)
    # One split more than the purse can pay, so that the purse, not the text, bounds the work.
    parts = str.split(whole, separator, steps[0] + 1)
    spend(len(parts), steps, at)
    return parts
