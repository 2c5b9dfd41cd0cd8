"""Evaluating an expression, beside a Python lambda that does the same."""

from __future__ import annotations

import timeit
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from benchmarks.measure import in_turns
from benchmarks.row import Row, Size, compared
from routilux import expressions

TITLE = "One evaluation; reference: a lambda that does the same"


class Scale(NamedTuple):
    evaluations: int
    rounds: int


SCALES: dict[Size, Scale] = {"full": Scale(50_000, 9), "quick": Scale(20_000, 5), "tiny": Scale(10, 1)}

Values = dict[str, Any]

_EVENT = {"data": {"value": 12, "user": {"name": "Ada"}}, "state": {"n": 2}}
_ROW = {"date": "2012-01-31", "wind": 9.5, "precipitation": 30.1, "tags": ["storm", "coast"]}

_CASES: list[tuple[str, Values, Callable[[Values], Any]]] = [
    (
        "data.value > 1 and state.n < 3",
        _EVENT,
        lambda values: values["data"]["value"] > 1 and values["state"]["n"] < 3,
    ),
    (
        "wind > 8 and precipitation > 20",
        _ROW,
        lambda values: values["wind"] > 8 and values["precipitation"] > 20,
    ),
    ("date[0:7]", _ROW, lambda values: values["date"][0:7]),
    ("'coast' in tags", _ROW, lambda values: "coast" in values["tags"]),
    ("wind * 3.6 + 1", _ROW, lambda values: values["wind"] * 3.6 + 1),
    (
        "lower(data.user.name) == 'ada'",
        _EVENT,
        lambda values: values["data"]["user"]["name"].lower() == "ada",
    ),
    ("has(data.user.email)", _EVENT, lambda values: "email" in values["data"]["user"]),
]


def rows(size: Size) -> list[Row]:
    evaluations, rounds = SCALES[size]
    return [
        *(_row(*case, evaluations, rounds) for case in _CASES),
        _compiling(_CASES[0][0], evaluations // 10),
    ]


def _row(text: str, values: Values, reference: Callable[[Values], Any], evaluations: int, rounds: int) -> Row:
    expression = expressions.compile(text)
    assert expression(values) == reference(values)
    runs = {
        "ours": partial(seconds, partial(expression, values), evaluations),
        "other": partial(seconds, partial(reference, values), evaluations),
    }
    costs = in_turns(runs, rounds)
    return compared(text, costs["ours"], costs["other"])


def _compiling(text: str, times: int) -> Row:
    return Row("compiling the first", seconds(partial(expressions.compile, text), times))


def seconds(call: Callable[[], Any], times: int) -> float:
    return timeit.timeit(call, number=times) / times
