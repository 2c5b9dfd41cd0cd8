"""The small language of conditions and fields: `compile(text)` gives an `Expression`, called with values.

It has Python's spelling and is never Python. What it has means what it means in Python; all else is refused
with `ExpressionError`, at its column, when the text is compiled if that is possible.

=================== ======================================================================================
names               `wind`; looked up in the values of the call; in any script, without look-alike letters
keys, indexes       `order.client`, `order["a key"]`, `rows[0]`; `.key` is only ever a key of a dict
slices              `date[0:7]`, of texts and lists, without a step
literals            numbers, texts in single or double quotes, `True`, `False`, `None`, lists `[a, b]`
operators           `and or not`, `== != < <= > >=` (chained too), `in`, `not in`, `is None`,
                    `is not None`, `+ - * / // %` on numbers, `+` on texts, `a if b else c`
functions           `len get has contains any all`, `bool int float str`, `abs round min max sum`,
                    `lower upper strip startswith endswith split`
=================== ======================================================================================

Where it is narrower than Python:

- Numbers are `int` and `float`. A bool is none: it is not added or ordered, though `True == 1` holds as in
  Python.
- Calculations make no `inf` or `nan`; both are errors, as is `float("nan")`. Such a value that comes in can
  be compared.
- `<` orders two numbers or two texts. `in` looks into a text, a list or the keys of a dict.
- `_key` after a dot is refused, and so are Python's keywords; write `["_key"]` and `["class"]`.
- Line breaks are blanks; there are no comments.
- Functions are no values, and a value named like a function (`max > 3`) does not hide it.

`has(order.client)` is true if that can be read, whatever is missing on the way; `has(x, key)` and
`get(x, key, default)` take keys of dicts and indexes of lists.

Values are plain data, by exact type: dict, list, tuple, str, int, float, bool, None. Any other object may be
handed through as the result and compared by `is None`; an operation on it is refused (see `plain`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from routilux.expressions.compiler import Run, compiled
from routilux.expressions.limits import MAX_STEPS
from routilux.expressions.problem import ExpressionError

__all__ = ["Expression", "ExpressionError", "compile"]


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression: immutable, equal by its text, safe to call from several threads at once."""

    text: str
    names: frozenset[str] = field(compare=False, repr=False)
    """The top-level names that it reads."""
    _run: Run = field(compare=False, repr=False)

    def __call__(self, values: Mapping[str, Any]) -> Any:
        """The value for these values, or `ExpressionError`.

        The mapping itself belongs to the caller and is trusted; its values are not. They are never changed,
        and parts of them may be in the result.
        """
        if type(values) is not dict:
            values = _picked(values, self.names)
        return self._run(values, [MAX_STEPS])

    def __reduce__(self) -> tuple[Any, ...]:
        return compile, (self.text,)


def compile(text: str, names: Iterable[str] | None = None) -> Expression:
    """The expression of a text, or `ExpressionError`. With `names`, it may read those and no others."""
    if not isinstance(text, str):
        raise ExpressionError(f"an expression is text, not {type(text).__name__}", fix="quote it")
    exact = str.__str__(text)
    read, run = compiled(exact, None if names is None else frozenset(names))
    return Expression(exact, read, run)


def _picked(values: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    if not issubclass(type(values), Mapping):
        raise ExpressionError("an expression is called with a mapping of names to values", fix="pass a dict")
    return {name: values[name] for name in names if name in values}
