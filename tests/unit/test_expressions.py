"""The expression language, as tables: what honest expressions mean, and what the others are told."""

from __future__ import annotations

import copy
import datetime
import json
import math
import pickle
import tracemalloc
import warnings
from collections import OrderedDict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from routilux import expressions
from routilux.errors import ConfigurationError
from routilux.expressions import Expression, ExpressionError
from routilux.expressions.limits import MAX_CHARACTERS, MAX_DEPTH, MAX_NODES, MAX_STEPS, MAX_TEXT

PAYLOADS = Path(__file__).parents[1] / "data" / "expression_payloads.txt"

WEATHER = {"date": "2012-01-31", "wind": 9.5, "precipitation": 30.1, "temp_max": 12.8, "weather": "rain"}
SHOP = {
    "data": {"value": 12, "name": "Ada", "tags": ["new", "red"], "_id": 7, "a key": 1, "none": None},
    "state": {"count": 2, "ok": True, "rows": [{"n": 1}, {"n": 2}], "pair": (1, 2)},
    "created": datetime.date(2020, 1, 1),
}


def value_of(text: str, values: dict[str, Any] | None = None) -> Any:
    return expressions.compile(text)(values or {})


def error_of(text: str, values: dict[str, Any] | None = None) -> ExpressionError:
    with pytest.raises(ExpressionError) as caught:
        expressions.compile(text)(values or {})
    return caught.value


HONEST: list[tuple[str, Any]] = [
    # literals
    ("1", 1),
    ("1_000", 1000),
    ("0x1F", 31),
    ("1.5e3", 1500.0),
    (".5", 0.5),
    ("'it\\'s'", "it's"),
    ('"\\u00e9\\n\\x41"', "é\nA"),
    ("'日本'", "日本"),
    ("True", True),
    ("None", None),
    ("[1, 'a', [None]]", [1, "a", [None]]),
    ("[]", []),
    # reading
    ("data.value", 12),
    ("data['a key']", 1),
    ("data['_id']", 7),
    ("data.tags[0]", "new"),
    ("data.tags[-1]", "red"),
    ("data.name[1]", "d"),
    ("state.rows[1].n", 2),
    ("state.pair[1]", 2),
    ("data.name[0:2]", "Ad"),
    ("data.name[:-1]", "Ad"),
    ("data.tags[1:]", ["red"]),
    ("data.tags[:]", ["new", "red"]),
    ("state.pair[:1]", (1,)),
    ("data.tags[5:9]", []),
    # logic
    ("data.value > 10 and state.count < 3", True),
    ("data.value > 10 and state.count > 3", False),
    ("data.value > 99 and data.nothing", False),
    ("data.value or data.nothing", 12),
    ("'' or [] or 'last'", "last"),
    ("1 and 2", 2),
    ("not data.tags", False),
    ("not not 'a'", True),
    ("'big' if data.value > 10 else data.nothing", "big"),
    ("data.nothing if data.value < 10 else 'small'", "small"),
    # comparing
    ("1 == 1.0", True),
    ("True == 1", True),
    ("'1' == 1", False),
    ("None != 0", True),
    ("'a' < 'b'", True),
    ("1 < 2.5 <= 3", True),
    ("1 < 2 > 5", False),
    ("1 < 0 < data.nothing", False),
    ("data.tags == ['new', 'red']", True),
    ("state.pair == [1, 2]", False),
    ("state.rows != [state.rows[0], state.rows[1]]", False),
    ("data == data", True),
    ("data == state", False),
    ("data.none is None", True),
    ("created is None", False),
    ("created is not None", True),
    ("'red' in data.tags", True),
    ("'blue' not in data.tags", True),
    ("'da' in data.name", True),
    ("'value' in data", True),
    ("['n'] in [['n']]", True),
    ("2 in state.pair", True),
    # calculating
    ("1 + 2 * 3 - 4", 3),
    ("7 / 2", 3.5),
    ("7 // 2 + 7 % 4", 6),
    ("-7 // 2", -4),
    ("-data.value", -12),
    ("--1", 1),
    ("(1 + 2) * 3", 9),
    ("'a' + 'b' + data.name", "abAda"),
    # functions
    ("len(data.tags) + len(data.name) + len(state)", 9),
    ("get(data, 'value')", 12),
    ("get(data, 'nothing')", None),
    ("get(data, 'nothing', 5)", 5),
    ("get(data.tags, 9, 'none')", "none"),
    ("get(data.none, 'x', 'none')", "none"),
    ("has(data, 'value')", True),
    ("has(data.tags, 2)", False),
    ("has(data.none, 'x')", False),
    ("has(data.value)", True),
    ("has(data.nothing.at.all)", False),
    ("has(nothing.at[0].all)", False),
    ("has(state.rows[1].n)", True),
    ("has(state.rows[2].n)", False),
    ("has(data.none)", True),
    ("has(data.none.x)", False),
    ("int('12') + int(3.9) + int(True)", 16),
    ("int(' -1_0 ')", -10),
    ("float('1e3') + float(2)", 1002.0),
    ("str(12) + str(1.5) + str(None) + str(True)", "121.5NoneTrue"),
    ("str('as it is')", "as it is"),
    ("str([1, 'a', [None], 0.5])", "[1, 'a', [None], 0.5]"),
    ("str(state)", "{'count': 2, 'ok': True, 'rows': [{'n': 1}, {'n': 2}], 'pair': (1, 2)}"),
    ("str(state.pair[:1])", "(1,)"),
    ("bool(0)", False),
    ("bool(data)", True),
    ("abs(-3)", 3),
    ("round(2.5)", 2),
    ("round(2.345, 2)", 2.35),
    ("round(1234, -2)", 1200),
    ("min(3, 1.5, 2)", 1.5),
    ("max([1, 2])", 2),
    ("max('a', 'b')", "b"),
    ("sum([1, 2, 3.5])", 6.5),
    ("sum([])", 0),
    ("any([0, '', 1])", True),
    ("all([1, []])", False),
    ("lower('ÄB') + upper('ß')", "äbSS"),
    ("strip('  a ')", "a"),
    ("startswith(data.name, 'A') and endswith(data.name, 'a')", True),
    ("contains(data.name, 'd')", True),
    ("contains(data.tags, 'red')", True),
    ("split('a b  c')", ["a", "b", "c"]),
    ("split('a,b,,c', ',')", ["a", "b", "", "c"]),
    # layout
    ("  data.value >  10\n  and state.count\t< 3  ", True),
    ("data . value", 12),
    ("[1,\n 2,\n]", [1, 2]),
]


@pytest.mark.parametrize(("text", "result"), HONEST)
def test_an_honest_expression_has_its_value(text: str, result: Any) -> None:
    value = value_of(text, SHOP)
    assert (type(value), value) == (type(result), result)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("wind > 8 and precipitation > 20", True),
        ("date[0:7]", "2012-01"),
        ("weather in ['rain', 'snow']", True),
        ("round(temp_max * 9 / 5 + 32, 1)", 55.0),
        ("'hot' if temp_max > 30 else 'cold' if temp_max < 0 else 'mild'", "mild"),
        ("has(wind) and wind > 8", True),
        ("has(gusts) and gusts > 8", False),
    ],
)
def test_fields_of_a_row_are_names(text: str, result: Any) -> None:
    assert value_of(text, WEATHER) == result


def test_a_value_may_be_named_like_a_function() -> None:
    assert value_of("max > 3 and max([len, 9]) == 9", {"max": 4, "len": 5}) is True


@pytest.mark.parametrize("name", ["größe", "温度", "नमस्ते", "_id"])
def test_names_are_of_any_script(name: str) -> None:
    assert (
        value_of(f"{name} > 1 and row.{name.strip('_')} > 1", {name: 2, "row": {name.strip("_"): 2}}) is True
    )


def test_an_object_that_is_not_plain_is_handed_through() -> None:
    thing = object()
    row = {"row": {"thing": thing}}
    assert value_of("row.thing", row) is thing
    assert value_of("None if row.thing is None else [row.thing]", row) == [thing]
    assert value_of("get(row, 'thing') if has(row.thing) else 0", row) is thing


def test_numbers_that_are_none_come_in_but_are_not_made() -> None:
    row = {"gap": math.nan, "far": math.inf}
    assert value_of("far > 1 and -far < 1 and not gap > 1 and gap != gap and abs(far) == far", row) is True
    for text in ("gap + 1", "far * 0", "1e308 * 10", "sum([gap])", "int(gap)", "round(far)", "float('nan')"):
        assert "not finite" in str(error_of(text, row))


def test_integers_have_at_most_256_bits() -> None:
    largest = 2**256 - 1
    assert value_of("x + 0 == x", {"x": largest}) is True
    assert value_of("x > 1 and x == x", {"x": 1 << 100_000}) is True
    for text in (
        "x + 1",
        "x * x",
        "-x - 1",
        "int(str(x) + '0')",
        "sum([x, 1])",
        "round(y)",
        "y // 2",
        "str(y)",
    ):
        assert "256 bits" in str(error_of(text, {"x": largest, "y": 1 << 300}))


# Each is (expression, values, column, what the message must contain).
REFUSED: list[tuple[str, dict[str, Any], int, str]] = [
    # the text
    ("", {}, 1, "is empty"),
    (" \n ", {}, 1, "is empty"),
    ("a > 1 \u202e", {}, 7, "U+202E"),
    ("'a\x00b'", {}, 3, "'\\u0000'"),
    ("a = 1", {}, 3, "write =="),
    ("a && b", {}, 3, "write and"),
    ("2 ** 3", {}, 3, "multiplication"),
    ("a # why", {}, 3, "comments"),
    ("{1: 2}", {}, 1, "list"),
    ("x == “a”", {}, 6, "straight quotes"),
    ("'open", {}, 1, "same quote"),
    ("'a\nb'", {}, 1, "same quote"),
    ("f'{a}'", {}, 1, "prefix"),
    ("'a' 'b'", {}, 5, "comma"),
    ("'''a'''", {}, 3, "side by side"),
    ("'\\d'", {}, 2, "unknown escape \\d"),
    ("'\\N{BULLET}'", {}, 2, "unknown escape \\N"),
    ("'\\ud800'", {}, 2, "unknown escape \\u"),
    ("1if a else 2", {}, 1, "blank after the number"),
    ("(a", {}, 1, "never closed"),
    ("a)", {}, 2, "closes nothing"),
    ("(a]", {}, 3, "closes nothing"),
    ("__name__", {}, 1, "two leading underscores"),
    ("data.__class__", {}, 6, "two leading underscores"),
    ("data._id", {}, 6, "write ['_id']"),
    ("\uff4c\uff45\uff4e(data)", {}, 1, "write 'len'"),
    ("data.\uff4bey", {}, 6, "write 'key'"),
    # the grammar
    ("a and", {}, 6, "ends too early"),
    ("a b", {}, 3, "not an expression"),
    ("  é b", {}, 5, "not an expression"),
    ("data.class", {}, 6, "x['class']"),
    ("lambda: 1", {}, 1, "a lambda"),
    ("[x for x in y]", {}, 1, "comprehension"),
    ("(1, 2)", {}, 1, "write a list"),
    ("1 + [*a]", {}, 6, "starred"),
    ("+1", {}, 1, "leave it out"),
    ("x[::2]", {}, 3, "no step"),
    ("a is b", {}, 1, "None only"),
    ("1 @ 2", {}, 3, "not part of the language"),
    ("...", {}, 1, "ellipsis"),
    ("1e999", {}, 1, "not finite"),
    # functions
    ("lenn(data)", {}, 1, "nearest: 'len'"),
    ("1 + data.clear()", {}, 5, "values are not called"),
    ("len()", {}, 1, "write len(x)"),
    ("get(1)", {}, 1, "write get(x, key, default=None)"),
    ("has('a')", {}, 5, "has(x.key)"),
    ("'%s' % 1", {}, 1, "only operator on text is +"),
    # names and keys
    ("wind > 8 and rain > 1", WEATHER, 14, "no value named 'rain'"),
    ("temp_mx", WEATHER, 1, "'temp_max'"),
    ("data.valeu", SHOP, 6, "nearest: 'value'"),
    ("'é' + data.valeu", SHOP, 12, "get(x, 'valeu', default)"),
    ("data['valeu']", SHOP, 6, "nearest: 'value'"),
    ("data.tags[2]", SHOP, 11, "there are 2 elements"),
    ("data.none.x", SHOP, 11, "x is not None"),
    ("data.name.x", SHOP, 11, "not of text"),
    ("data.value[0]", SHOP, 12, "no elements"),
    ("data.tags['a']", SHOP, 11, "an index is an integer"),
    ("data.tags[True]", SHOP, 11, "not bool"),
    ("data[data]", SHOP, 6, "a key is text or a number"),
    ("data[0:1]", SHOP, 6, "slices, not dict"),
    ("data.name['a':]", SHOP, 11, "bounds of a slice"),
    # types
    ("data.name > 3", SHOP, 1, "float(x)"),
    ("data.none > 3", SHOP, 1, "x is not None"),
    ("True > 0", {}, 1, "a bool is no number"),
    ("1 + True", {}, 1, "int(x)"),
    ("1 + 'a'", {}, 1, "cannot add int and text"),
    ("data.name * 3", SHOP, 1, "cannot multiply text and int"),
    ("data.tags + data.tags", SHOP, 1, "cannot add list and list"),
    ("-data.name", SHOP, 2, "a number is expected"),
    ("1 in 2", {}, 1, "in looks into"),
    ("1 in 'a'", {}, 1, "text is expected"),
    ("created > 1", SHOP, 1, "'date' (not plain data)"),
    ("created == created", SHOP, 1, "cannot be compared"),
    ("1 and not created", SHOP, 11, "neither true nor false"),
    ("created.year", SHOP, 9, "not plain data"),
    ("created in [1]", SHOP, 1, "cannot be compared"),
    ("str([created])", SHOP, 1, "cannot be written"),
    ("lower(1)", {}, 1, "text is expected"),
    ("sum('a')", {}, 1, "a list is expected"),
    ("sum(['a'])", {}, 1, "a number is expected"),
    ("min([])", {}, 1, "the list is empty"),
    ("min(1, 'a')", {}, 1, "cannot compare int and text"),
    ("len(1)", {}, 1, "no length"),
    ("int('twelve')", {}, 1, "'twelve' is not a number"),
    ("int('1.5')", {}, 1, "int(float(x))"),
    ("int('" + "9" * 300 + "')", {}, 1, "300 characters"),
    ("float('1' + '0' * 2)", {}, 13, "only operator on text"),
    ("split('a', '')", {}, 1, "separator is empty"),
    ("round(1, 10000000)", {}, 1, "between -100 and 100"),
    ("round(1.5, 1.0)", {}, 1, "between -100 and 100"),
    ("1 / 0", {}, 1, "division by zero"),
    ("1 + 1 % 0.0", {}, 5, "division by zero"),
]


@pytest.mark.parametrize(("text", "values", "column", "fragment"), REFUSED)
def test_a_refusal_says_where_and_what_to_do(
    text: str, values: dict[str, Any], column: int, fragment: str
) -> None:
    error = error_of(text, values)
    assert (error.text, error.column) == (text, column)
    assert fragment in str(error)


def test_the_message_points_at_the_column() -> None:
    assert str(error_of("wind > 8 and rain > 1", {"wind": 9, "rainy": 1})).splitlines() == [
        "there is no value named 'rain' (column 14)",
        "    wind > 8 and rain > 1",
        "                 ^",
        "nearest: 'rainy', 'wind'",
        "if it may be missing: has(rain)",
    ]


def test_a_long_text_is_cut_around_the_column() -> None:
    message = str(error_of("1 and " * 40 + "rain", {})).splitlines()
    assert max(map(len, message)) < 120
    assert message[1][message[2].index("^") :] == "rain"


def payloads() -> list[Any]:
    rows = [line.split("\t") for line in PAYLOADS.read_text(encoding="utf-8").splitlines() if line[0] != "#"]
    return [pytest.param(json.loads(literal), id=f"{key}-{kind}") for key, kind, _, literal in rows]


@pytest.mark.parametrize("payload", payloads())
@pytest.mark.parametrize("values", [{"data": {}, "state": {}}, SHOP], ids=["empty", "filled"])
def test_a_hostile_payload_is_refused(payload: str, values: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        error_of(payload, values)


def test_no_hostile_payload_takes_more_than_16_mebibytes() -> None:
    peaks: dict[str, int] = {}
    for parameters in payloads():
        [payload] = parameters.values
        tracemalloc.start()
        try:
            error_of(payload, SHOP)
            peaks[parameters.id] = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert {name: peak for name, peak in peaks.items() if peak >= 16 * 1024 * 1024} == {}


# ---- names


def test_the_names_that_an_expression_reads() -> None:
    expression = expressions.compile("a.b > c and has(d.e) and len(f[g]) == 1 or None")
    assert expression.names == {"a", "c", "d", "f", "g"}


def test_known_names_are_checked_when_it_is_compiled() -> None:
    known = ["wind", "temp_max", "temp_min"]
    assert expressions.compile("wind > temp_max", known).names == {"wind", "temp_max"}
    for text, column, fragment in [
        ("wind > temp_mx", 8, "nearest: 'temp_max'"),
        ("has(win)", 5, "nearest: 'wind'"),
        ("wind == true", 9, "write True"),
        ("wind > len", 8, "to call the function: len(x)"),
    ]:
        with pytest.raises(ExpressionError, match="no value named") as caught:
            expressions.compile(text, known)
        assert caught.value.column == column
        assert fragment in str(caught.value)


# ---- objects


def test_expressions_are_values() -> None:
    one, same, other = (expressions.compile(text) for text in ("a > 1", "a > 1", "a>1"))
    assert one == same != other
    assert len({one, same, other}) == 2
    assert repr(one) == "Expression(text='a > 1')"
    with pytest.raises(AttributeError):
        one.text = "b"  # type: ignore[misc]


def test_expressions_can_be_copied() -> None:
    expression = expressions.compile("a > 1")
    for twin in (copy.deepcopy(expression), pickle.loads(pickle.dumps(expression))):
        assert isinstance(twin, Expression)
        assert twin == expression
        assert twin({"a": 2}) is True


def test_errors_belong_to_the_tree_and_can_be_pickled() -> None:
    error = error_of("a = 1")
    assert isinstance(error, ConfigurationError)
    assert isinstance(error, ValueError)
    twin = pickle.loads(pickle.dumps(error))
    assert (str(twin), twin.text, twin.column, twin.fix) == (str(error), error.text, error.column, error.fix)


def test_any_mapping_gives_values() -> None:
    expression = expressions.compile("a > 1 and has(b)")
    assert expression(MappingProxyType({"a": 2, "b": 1})) is True
    assert expression(OrderedDict(a=2)) is False
    with pytest.raises(ExpressionError, match="no value named 'a'"):
        expression(MappingProxyType({}))
    with pytest.raises(ExpressionError, match="a mapping"):
        expression([("a", 2)])  # type: ignore[arg-type]


def test_only_text_is_compiled() -> None:
    class Text(str):
        __slots__ = ()

    assert type(expressions.compile(Text("a > 1")).text) is str
    with pytest.raises(ExpressionError, match="an expression is text, not int"):
        expressions.compile(5)  # type: ignore[arg-type]


def test_subclasses_of_plain_types_are_not_plain() -> None:
    assert "'OrderedDict' (not plain data)" in str(error_of("a.b", {"a": OrderedDict(b=1)}))


def test_a_value_is_never_changed() -> None:
    values = copy.deepcopy(SHOP)
    for text, _ in HONEST:
        value_of(text, values)
    assert values == SHOP


# ---- limits: the last one that passes, and the first that does not


def just_within(text: str, values: dict[str, Any] | None = None) -> None:
    value_of(text, values)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_the_length_of_an_expression_is_limited() -> None:
    just_within("1" + " " * (MAX_CHARACTERS - 1))
    assert "1,000 characters" in str(error_of("1" + " " * MAX_CHARACTERS))


def test_the_number_of_nodes_is_limited() -> None:
    just_within("[" + "1," * (MAX_NODES - 1) + "]")
    assert "more than 200 parts" in str(error_of("[" + "1," * MAX_NODES + "]"))


def test_the_depth_is_limited() -> None:
    just_within("-" * (MAX_DEPTH - 1) + "1")
    just_within("(" * MAX_DEPTH + "1" + ")" * MAX_DEPTH)
    assert "deeper than 40" in str(error_of("-" * MAX_DEPTH + "1"))
    assert "deeper than 40" in str(error_of("(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1)))


@pytest.mark.parametrize("text", ["sum(x)", "min(x)", "any(x)", "9 in x", "len(x[:])", "contains(x, 9)"])
def test_the_steps_of_an_evaluation_are_limited(text: str) -> None:
    just_within(text, {"x": [0] * (MAX_STEPS // 2)})
    assert "20,000 steps" in str(error_of(text, {"x": [0] * (MAX_STEPS + 1)}))


def test_the_steps_of_all_operations_add_up() -> None:
    half = {"x": [0] * (MAX_STEPS // 2)}
    just_within("sum(x) + sum(x)", half)
    assert "20,000 steps" in str(error_of("sum(x) + sum(x) + sum([1])", half))


def test_every_evaluation_has_its_own_steps() -> None:
    expression = expressions.compile("sum(x)")
    assert [expression({"x": [0] * MAX_STEPS}) for _ in range(3)] == [0, 0, 0]


def test_the_length_of_text_is_limited() -> None:
    longest = {"x": "a" * MAX_TEXT, "y": "a" * (MAX_TEXT + 1), "many": "a " * MAX_STEPS}
    just_within("len(lower(x)) + len(strip(x)) + len(y[1:]) and 'b' in x and y == y and len(y)", longest)
    for text in (
        "x + 'b'",
        "lower(y)",
        "'a' in y",
        "y[:]",
        "str([x])",
        "upper('ß' + x[1:])",
        "startswith(y, 'a')",
    ):
        assert "65,53" in str(error_of(text, longest))
    assert "20,000 steps" in str(error_of("split(many)", longest))


@pytest.mark.parametrize("text", ["x == y", "x in [y]", "str(x)"])
def test_the_depth_of_a_value_is_limited(text: str) -> None:
    just_within(text, {"x": nested(MAX_DEPTH - 1), "y": nested(MAX_DEPTH - 1)})
    assert "deeper than 40" in str(error_of(text, {"x": nested(100_000), "y": nested(100_000)}))


def test_values_that_hold_themselves_come_to_an_end() -> None:
    one: list[Any] = []
    one.append(one)
    other: dict[str, Any] = {}
    other["x"] = [other, other]
    twin: dict[str, Any] = {}
    twin["x"] = [twin, twin]
    values = {"one": one, "other": other, "twin": twin}
    assert value_of("one == one and one in one", values) is True
    for text in ("other == twin", "str(one)", "str(other)", "other in [twin]"):
        error_of(text, values)


def shared(levels: int) -> list[Any]:
    value: list[Any] = [1, 1]
    for _ in range(levels):
        value = [value, value]
    return value


def test_values_that_share_parts_are_paid_for_each_time() -> None:
    for text in ("x == y", "str(x)", "x in [y]"):
        assert "20,000 steps" in str(error_of(text, {"x": shared(30), "y": shared(30)}))


def test_long_texts_in_lists_are_paid_for() -> None:
    one, other = "a" * 1_000_000 + "b", "a" * 1_000_000 + "c"
    assert "steps" in str(error_of("x in y", {"x": one, "y": [other] * 1_000}))
    assert "limit" in str(error_of("max(y)", {"y": [one, other]}))


BOMBS = [
    "[" + ",".join(["t + t"] * 60) + "]",
    "[" + ",".join(["split(t, 'a')"] * 30) + "]",
    "[" + ",".join(["x[:]"] * 60) + "]",
    "len(str([t, t, t, t, x, x]))",
    "split(t, '')",
    "upper(t) + upper(t)",
    "x == y and x == y",
]


@pytest.mark.parametrize("text", BOMBS)
def test_an_evaluation_takes_at_most_16_mebibytes(text: str) -> None:
    values = {"t": "\U0001f4a3" * (MAX_TEXT // 2), "x": list(range(9_000)), "y": list(range(9_000))}
    expression = expressions.compile(text)
    tracemalloc.start()
    try:
        expression(values)
    except ExpressionError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 16 * 1024 * 1024
