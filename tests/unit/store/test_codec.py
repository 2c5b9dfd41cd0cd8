"""What the codec writes and reads, and what it refuses and how."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
from collections import OrderedDict, defaultdict
from dataclasses import InitVar, dataclass
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from routilux import errors, ports
from routilux.errors import DuplicateNameError, InvalidTypeError, InvalidValueError, SerializationError
from routilux.kernel.activation import slot_data_type
from routilux.model.item import Output
from routilux.model.status import JobStatus
from routilux.store import codec as codec_module
from routilux.store.codec import MAX_DEPTH, JsonCodec, register
from tests.unit.store.samples import (
    Address,
    Celsius,
    Colour,
    Customer,
    Greedy,
    Level,
    Loud,
    Money,
    Names,
    Order,
    Point,
    Rights,
    Size,
    Ticket,
    Trimmed,
    same,
)

CODEC = JsonCodec()
BERLIN = ZoneInfo("Europe/Berlin")


def encode(value):
    return CODEC.encode(value, "here")


def decode(data):
    return CODEC.decode(data, "here")


def there_and_back(value):
    return decode(encode(value))


def refused(call, *arguments):
    with pytest.raises(SerializationError) as caught:
        call(*arguments)
    return caught.value


def nested(levels, wrap=lambda value: [value]):
    return functools.reduce(lambda value, _: wrap(value), range(levels), "core")


# -- forms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (-17, "-17"),
        (2**64 - 1, "18446744073709551615"),
        (1.0, "1.0"),
        (-0.0, "-0.0"),
        (1e300, "1e300"),
        ("naïve 文字", '"naïve 文字"'),
        ("a\n\"b\"\\\x00\x7f", '"a\\n\\"b\\"\\\\\\u0000\x7f"'),
        ([], "[]"),
        ({"b": [1, {}], "a": None}, '{"b":[1,{}],"a":null}'),
        ({"": 1, "$": 2, "type": 3}, '{"":1,"$":2,"type":3}'),
    ],
)  # fmt: skip
def test_what_json_knows_stands_for_itself(value, text):
    assert encode(value).decode() == text
    assert same(there_and_back(value), value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("nan"), '{"$type":"float","value":"nan"}'),
        (float("-inf"), '{"$type":"float","value":"-inf"}'),
        (1 + 2j, '{"$type":"complex","value":[1.0,2.0]}'),
        (Decimal("1.10"), '{"$type":"Decimal","value":"1.10"}'),
        (UUID(int=7), '{"$type":"UUID","value":"00000000-0000-0000-0000-000000000007"}'),
        (b"\x00\xff", '{"$type":"bytes","value":"AP8="}'),
        (date(2026, 1, 31), '{"$type":"date","value":"2026-01-31"}'),
        (time(12, 30), '{"$type":"time","value":"12:30:00"}'),
        (time(12, tzinfo=BERLIN), '{"$type":"time","value":"12:00:00[Europe/Berlin]"}'),
        (datetime(2026, 1, 31, 12), '{"$type":"datetime","value":"2026-01-31T12:00:00"}'),
        (
            datetime(2026, 1, 31, 12, tzinfo=timezone(timedelta(hours=-5))),
            '{"$type":"datetime","value":"2026-01-31T12:00:00-05:00"}',
        ),
        (
            datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1),
            '{"$type":"datetime","value":"2024-10-27T02:30:00+01:00[Europe/Berlin][fold=1]"}',
        ),
        (timedelta(days=-1, microseconds=3), '{"$type":"timedelta","value":[-1,0,3]}'),
        ((1, "a"), '{"$type":"tuple","value":[1,"a"]}'),
        ({3, 1, 2}, '{"$type":"set","value":[1,2,3]}'),
        (frozenset({"b", "a"}), '{"$type":"frozenset","value":["a","b"]}'),
        ({1: "one"}, '{"$type":"dict","value":[[1,"one"]]}'),
        ({"a": 1, (2,): 3}, '{"$type":"dict","value":[["a",1],[{"$type":"tuple","value":[2]},3]]}'),
        ({"$type": "date", "value": 1}, '{"$type":"dict","value":[["$type","date"],["value",1]]}'),
        ("\ud800", '{"$type":"str","value":"7aCA"}'),
        ({"\ud800": 1}, '{"$type":"dict","value":[[{"$type":"str","value":"7aCA"},1]]}'),
        (JobStatus.FAILED, '{"$type":"routilux.JobStatus","value":"FAILED"}'),
        (
            Output("r", "done", {"n": 1}),
            '{"$type":"routilux.Output","value":{"routine_id":"r","event":"done","data":{"n":1}}}',
        ),
        (Celsius(21.5), '{"$type":"weather.Celsius","value":21.5}'),
    ],
)
def test_everything_else_is_tagged(value, text):
    assert encode(value).decode() == text
    assert same(there_and_back(value), value)


@pytest.mark.parametrize(
    "value",
    [
        Colour.RED,
        Colour.ROSE,
        Size.SMALL,
        Level.LOW,
        Rights.READ | Rights.WRITE,
        Rights(0),
        Point(1.5),
        Customer("Ada", Colour.ROSE, [Customer("Bob")]),
        Money(Decimal("1.10")),
        Ticket(7, Money(Decimal(2))),
        Address(streetName="Main", tags={"a", "b"}),
        Order(number=1, customer=Customer("Ada"), address=Address(streetName="x"), note=(1, 2)),
        Names(["a"]),
        {Colour.RED: {Point(1, 2), Point(3)}, Size.SMALL: [Level.LOW]},
        [10**5_000],
        -(2**64),
        {"all": ["\ud800", 10**5_000, {"\udfff": {"a": "\ud800"}}]},
    ],
)
def test_values_of_users_come_back_as_they_were(value):
    assert same(there_and_back(value), value)


@pytest.mark.parametrize(
    "array",
    [
        numpy.arange(6, dtype="int16").reshape(2, 3),
        numpy.array([1.5, numpy.nan, -0.0, numpy.inf]),
        numpy.array(3.0),
        numpy.empty((0, 3), "complex64"),
        numpy.array([True, False]),
        numpy.array(["a", "ünï", ""]),
        numpy.array([b"x", b"yz"]),
        numpy.array(["2026-01-31", "NaT"], "datetime64[ms]"),
        numpy.array([1, 2], ">u4"),
        numpy.float64(1.5),
        numpy.float32("nan"),
        numpy.int8(-1),
        numpy.bool_(True),
        numpy.str_("text"),
        numpy.bytes_(b"x"),
        numpy.datetime64("2026-01-31T12:00", "s"),
        numpy.timedelta64(5, "D"),
    ],
)
def test_numpy_data_comes_back_as_it_was(array):
    assert same(there_and_back([array]), [array])


def test_an_array_that_is_no_block_of_memory():
    transposed = numpy.arange(6).reshape(2, 3).T[::2]
    back = there_and_back(transposed)
    assert back.tolist() == transposed.tolist()
    back[0, 0] = 7  # it can be changed


def test_dict_subclasses_become_plain_dicts():
    slot_data = slot_data_type(frozenset({"input", "other"}))({"input": [{"n": 1}]})
    counted = defaultdict(int, {"a": 1})
    assert same(
        there_and_back([slot_data, counted, OrderedDict(b=1, a=2)]),
        [{"input": [{"n": 1}]}, {"a": 1}, {"b": 1, "a": 2}],
    )


def test_indented_text_says_the_same():
    value = {"a": [1, {"b": (2,)}], "text": "x: [1, {}]"}
    text = JsonCodec(indent=2).encode(value, "here")
    assert text.decode().splitlines()[:3] == ["{", '  "a": [', "    1,"]
    assert decode(text) == value


def test_the_same_value_gives_the_same_bytes_in_every_process():
    code = (
        "from routilux.store.codec import JsonCodec;"
        "print(JsonCodec().encode({frozenset({'a', 'b', str(n), (n, 'x')}) for n in range(20)}, ''))"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in (1, 2)
    ]
    assert outputs[0] == outputs[1] != b""


def test_many_threads_write_and_read_at_once():
    value = {"set": {1, 2, 3}, "customer": Customer("Ada"), "surrogate": "\ud800"}
    expected = encode(value)
    wrong = []

    def work():
        for _ in range(200):
            data = encode(value)
            if data != expected or decode(data) != value:
                wrong.append(data)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_it_is_the_codec_that_comes_with_the_package():
    assert ports.load("codec") is JsonCodec


# -- every value comes back ----------------------------------------------------------------------------------

texts = st.text() | st.text(st.characters(), max_size=3) | st.sampled_from(["$type", "value", "\ud800", "$"])
zones = (
    st.none() | st.timezones() | st.integers(-86_399, 86_399).map(lambda s: timezone(timedelta(seconds=s)))
)
hashable = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(2**70), 2**70), st.floats(), texts, st.binary(),
    st.complex_numbers(), st.decimals(), st.uuids(), st.dates(), st.timedeltas(),
    st.times(timezones=zones), st.datetimes(timezones=zones, allow_imaginary=True),
    st.sampled_from([*Colour, *Size, *Level, *Rights, *JobStatus]),
    st.builds(Money, st.decimals(allow_nan=False), texts), st.builds(Ticket, st.integers()),
)  # fmt: skip
keys = st.recursive(
    hashable.filter(lambda value: not (isinstance(value, Decimal) and value.is_nan()) and value == value),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)


def containers(inner):
    return st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(texts, inner, max_size=4),
        st.dictionaries(keys, inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        st.sets(keys, max_size=4),
        st.frozensets(keys, max_size=4),
        st.builds(Customer, inner, inner, st.lists(inner, max_size=2)),
        st.builds(Point, inner, inner),
    )


@given(st.recursive(hashable, containers, max_leaves=30))
@example({"$type": {"$type": "x", "value": 1}})
@example([-0.0, 0.0, 0, False, 5e-324, 2**63, -(2**63) - 1])
@example({0: "int", "0": "str"})
def test_every_value_comes_back_exactly(value):
    data = encode(value)
    back = decode(data)
    assert same(back, value)
    assert encode(back) == data
    data.decode()  # it is UTF-8 text


# -- refusals ------------------------------------------------------------------------------------------------


class Session:
    def __repr__(self):
        return "<Session 7>"


@dataclass
class Unregistered:
    x: int


class Hidden(Customer):
    """A subclass of a registered class, which is not registered itself."""


class OddZone(tzinfo):
    def utcoffset(self, _):
        return timedelta(0)


@pytest.mark.parametrize(
    ("value", "path", "reason"),
    [
        (
            Session(),
            "$",
            "Session has no JSON form (<Session 7>); call routilux.store.codec.register(Session,",
        ),
        ({"order": {"client": Session()}}, "$.order.client", "encode=..., decode=...), or send a reference"),
        ([1, [2, {"a b": Session()}]], "$[1][1]['a b']", "Session has no JSON form"),
        ({7: {"x": Session()}}, "$[7].x", "Session has no JSON form"),
        ({"a": {Session(): 1}}, "$.a[<Session 7>]", "Session has no JSON form"),
        ({"$type": Session()}, "$['$type']", "Session has no JSON form"),
        (("a", Session()), "$[1]", "Session has no JSON form"),
        (Customer("Ada", friends=[Customer(Session())]), "$.friends[0].name", "Session has no JSON form"),
        ({"x": Unregistered(1)}, "$.x", "call routilux.store.codec.register(Unregistered), or send"),
        ({"x": Hidden("a")}, "$.x", "Hidden has no JSON form"),
        ({"x": print}, "$.x", "builtin_function_or_method has no JSON form"),
        ({"x": Customer}, "$.x", "type has no JSON form"),
        ({"x": (n for n in [])}, "$.x", "generator has no JSON form"),
        ({"x": ValueError("no")}, "$.x", "ValueError has no JSON form (ValueError('no'))"),
        ({"x": bytearray(b"x")}, "$.x", "bytearray has no JSON form"),
        (
            {"x": datetime(2026, 1, 31, tzinfo=OddZone())},
            "$.x",
            "OddZone, which has no JSON form; use zoneinfo",
        ),
        ({"x": numpy.array([Session()])}, "$.x", "dtype object has no JSON form"),
        ({"x": numpy.zeros(2, "i4,f8")}, "$.x", "has no JSON form; turn it into lists"),
        ({"x": numpy.str_("a\0")}, "$.x", "ends with a zero character"),
        ({"x": numpy.ma.masked_array([1])}, "$.x", "MaskedArray has no JSON form"),
    ],
)
def test_a_value_without_a_form_is_named_with_its_place(value, path, reason):
    error = refused(encode, value)
    assert error.path == path
    assert str(error).startswith(f"here at {path}: ")
    assert reason in str(error)


def test_a_repr_that_raises_does_not_hide_the_error():
    class Broken:
        def __repr__(self):
            raise RuntimeError

    assert "whose repr raises RuntimeError" in str(refused(encode, [Broken()]))


def cyclic_list():
    value = [1]
    value.append({"again": value})
    return value


def cyclic_dataclass():
    customer = Customer("Ada")
    customer.friends.append(customer)
    return {"customer": customer}


def cyclic_pairs():
    value = {}
    value[1] = (value,)
    return value


@pytest.mark.parametrize(
    ("value", "path", "first"),
    [
        (cyclic_list(), "$[1].again", "$"),
        (cyclic_dataclass(), "$.customer.friends[0]", "$.customer"),
        (cyclic_pairs(), "$[1][0]", "$"),
    ],
)
def test_a_value_that_contains_itself(value, path, first):
    error = refused(encode, value)
    assert error.path == path
    assert f"it contains itself: it is the same object as {first};" in str(error)


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: {"a": v}], ids=["list", "dict"])
def test_five_hundred_levels_are_the_limit(wrap):
    deepest = nested(MAX_DEPTH, wrap)
    assert there_and_back(deepest) == deepest
    error = refused(encode, wrap(deepest))
    assert "nested deeper than 500 levels" in str(error)
    assert len(str(error)) < 300
    assert "…" in error.path


@pytest.mark.parametrize(
    "wrap",
    [lambda v: (v,), lambda v: frozenset({v}), lambda v: {"$type": v}, lambda v: Customer(v)],
    ids=["tuple", "frozenset", "pairs", "dataclass"],
)
def test_a_tagged_value_takes_more_levels(wrap):
    deep = nested(MAX_DEPTH // 4, wrap)
    assert same(there_and_back(deep), deep)
    assert "nested deeper than 500 levels" in str(refused(encode, nested(MAX_DEPTH, wrap)))


def test_no_depth_is_a_recursion_error():
    refused(encode, nested(20_000))
    refused(encode, nested(20_000, lambda value: {"": (value,)}))
    for data in (b"[" * 100_000, b'{"a":' * 100_000, b'{"$type":' * 100_000, b"[" * 700 + b"]" * 700):
        refused(decode, data)


def test_a_deep_stack_is_no_recursion_error_either():
    def at(depth, call):
        return call() if depth == 0 else at(depth - 1, call)

    room = sys.getrecursionlimit() - 300
    value = nested(MAX_DEPTH // 2, lambda inner: (inner,))
    data = encode(value)
    assert "recursion limit" in str(refused(at, room, lambda: encode(value)))
    assert "nested too deep" in str(refused(at, room, lambda: decode(data)))


def test_a_dict_that_changes_meanwhile():
    class Tricky(dict):
        pass

    changing = {"a": None}

    def grow(_):
        changing[len(changing)] = 1
        return 1

    register(Tricky, encode=grow, decode=Tricky)
    changing["a"] = Tricky()
    assert "another thread changes it" in str(refused(encode, changing))


# -- hostile data --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"", b" ", b"{", b"[1,", b"nul", b"NaN", b"Infinity", b"1 2", b'{"a" 1}', b"{'a': 1}", b'"\xff"', b'"\\ud800"',
        b"\xef\xbb\xbf1", b"1e999", b"1" * 5_000, b'"a\nb"', b"\x80\x04K\x01.", "\x00".encode("utf-16"),
    ],
    ids=lambda data: repr(data[:20]),
)  # fmt: skip
def test_what_is_not_json_is_refused(data):
    error = refused(decode, data)
    assert error.path == "$"
    assert str(error).startswith("here: not the JSON that was written: ")


@pytest.mark.parametrize(
    "text",
    [
        '{"$type": "date"}',
        '{"value": 1, "$type": null}',
        '{"$type": ["date"], "value": 1}',
        '{"$type": {"$type": "str", "value": "ZGF0ZQ=="}, "value": 1}',
        '{"$type": "date", "value": "2026-01-31", "more": 1}',
        '{"$type": "date", "value": 20260131}',
        '{"$type": "date", "value": "2026-02-31"}',
        '{"$type": "date", "value": {"$type": "date", "value": "2026-01-31"}}',
        '{"$type": "datetime", "value": "yesterday"}',
        '{"$type": "datetime", "value": "2026-01-31T12:00:00[Nowhere/Land]"}',
        '{"$type": "datetime", "value": "2026-01-31T12:00:00[Europe]"}',
        '{"$type": "datetime", "value": "2026-01-31T12:00:00[../../../etc/passwd]"}',
        '{"$type": "datetime", "value": "2026-01-31T12:00:00[/etc/localtime]"}',
        '{"$type": "datetime", "value": "2026-01-31T12:00:00[]"}',
        '{"$type": "time", "value": "25:00:00"}',
        '{"$type": "timedelta", "value": [1, 2]}',
        '{"$type": "timedelta", "value": [1, 2, 3.5]}',
        '{"$type": "timedelta", "value": [9999999999, 0, 0]}',
        '{"$type": "Decimal", "value": "one"}',
        '{"$type": "Decimal", "value": [0, [1], 2]}',
        '{"$type": "UUID", "value": "7"}',
        '{"$type": "bytes", "value": "###"}',
        '{"$type": "str", "value": "##"}',
        '{"$type": "int", "value": "ten"}',
        '{"$type": "float", "value": "1.5"}',
        '{"$type": "complex", "value": [1, 2]}',
        '{"$type": "complex", "value": []}',
        '{"$type": "set", "value": [[]]}',
        '{"$type": "frozenset", "value": {"a": 1}}',
        '{"$type": "tuple", "value": "abc"}',
        '{"$type": "tuple", "value": {"$type": "tuple", "value": []}}',
        '{"$type": "dict", "value": [["a"]]}',
        '{"$type": "dict", "value": ["ab"]}',
        '{"$type": "dict", "value": [[[], 1]]}',
        '{"$type": "numpy.ndarray", "value": {}}',
        '{"$type": "numpy.ndarray", "value": {"dtype": "|O", "shape": [1], "data": {"$type": "bytes", "value": ""}}}',
        '{"$type": "numpy.ndarray", "value": {"dtype": "i4,O", "shape": [], "data": {"$type": "bytes", "value": ""}}}',
        '{"$type": "numpy.ndarray", "value": {"dtype": "b,b", "shape":[], "data":{"$type":"bytes", "value": "AAA="}}}',
        '{"$type": "numpy.ndarray", "value": {"dtype": "<i4", "shape": [7], "data": {"$type": "bytes", "value": ""}}}',
        '{"$type": "numpy.ndarray", "value": {"dtype": "<i4", "shape": ["1"], "data": "AAAA"}}',
        '{"$type": "numpy.ndarray", "value": {"dtype": 4, "shape": [1], "data": "AAAA"}}',
        '{"$type": "numpy.generic", "value": {"dtype": "<i1", "shape": [0], "data": {"$type": "bytes", "value": ""}}}',
        '{"$type": "routilux.JobStatus", "value": "ELSE"}',
        '{"$type": "routilux.JobStatus", "value": "__class__"}',
        '{"$type": "routilux.Output", "value": {"routine_id": "r"}}',
        '{"$type": "tests.unit.store.samples.Customer", "value": {}}',
        '{"$type": "tests.unit.store.samples.Customer", "value": {"name": "a", "__class__": 1}}',
        '{"$type": "tests.unit.store.samples.Customer", "value": ["Ada"]}',
        '{"$type": "tests.unit.store.samples.Ticket", "value": {"ticket_id": 1, "__class__": 2}}',
        '{"$type": "tests.unit.store.samples.Order", "value": {"number": "many"}}',
        '{"$type": "tests.unit.store.samples.Rights", "value": 1024}',
        '{"$type": "tests.unit.store.samples.Rights", "value": "READ"}',
        '{"\\u0024type": "os.system", "value": "true"}',
    ],
)  # fmt: skip
def test_tagged_data_that_was_never_written_is_refused(text):
    error = refused(decode, f'{{"a": [0, {text}]}}'.encode())
    assert error.path.startswith("$.a[1]")
    assert str(error).startswith(f"here at {error.path}: ")


def test_the_place_of_wrong_data_is_its_place_in_the_json():
    error = refused(decode, b'{"a": {"$type": "tuple", "value": [1, {"$type": "date", "value": "x"}]}}')
    assert error.path == "$.a.value[1]"


def test_reading_never_imports_what_the_data_names(monkeypatch):
    def forbidden(name, *_, **__):
        raise AssertionError(f"imported {name}")

    monkeypatch.setattr("builtins.__import__", forbidden)
    error = refused(decode, b'{"$type": "antigravity.Flight", "value": {}}')
    assert "no type is registered as 'antigravity.Flight'" in str(error)
    assert "routilux.store.codec.register(Flight)" in str(error)
    assert "antigravity" not in sys.modules


def test_reading_numpy_data_does_not_import_numpy():
    data = encode(numpy.arange(2))
    code = (
        "from routilux.store.codec import JsonCodec; from routilux.errors import SerializationError; import sys\n"
        f"try: JsonCodec().decode({data!r}, 'here')\n"
        "except SerializationError as error: print('numpy' in sys.modules, error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("False here at $: it is NumPy data")
    assert "import numpy first" in run.stdout


@given(st.binary(max_size=40) | st.text('{}[]":,$typevalu\\01e-. ', max_size=60).map(str.encode))
def test_any_bytes_are_a_value_or_a_serialization_error(data):
    try:
        value = decode(data)
    except SerializationError as error:
        assert error.path is not None
    else:
        assert same(there_and_back(value), value)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["a", "", "2026-01-31", "AAAA", "<i4", "RED"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["a", "dtype", "shape", "data", "name"]), inner, max_size=3),
        st.builds(
            lambda tag, value: {"$type": tag, "value": value},
            st.sampled_from(sorted(codec_module.by_tag)),
            inner,
        ),
    ),
    max_leaves=8,
)  # fmt: skip


@given(json_like)
def test_any_tagged_json_is_a_value_or_a_serialization_error(raw):
    import msgspec

    try:
        value = decode(msgspec.json.encode(raw))
    except SerializationError:
        return
    assert same(there_and_back(value), value)


# -- registering ---------------------------------------------------------------------------------------------


def test_an_instance_is_as_it_was_whatever_its_constructor_does():
    greedy = Greedy("x")
    greedy.calls = 7
    back = there_and_back(greedy)
    assert (back.text, back.calls, back.cache) == ("x!", 7, {})
    assert there_and_back(Loud("x")).text == "x!"
    assert there_and_back(Trimmed(text="  x")).text == " x"


def test_a_field_that_was_added_since_gets_its_default():
    assert decode(b'{"$type": "tests.unit.store.samples.Customer", "value": {"name": "Ada"}}') == Customer(
        "Ada"
    )


def test_registering_gives_the_class_back_and_uses_the_name():
    @register
    @dataclass
    class Local:
        x: int

    assert b"test_codec.test_registering_gives_the_class_back_and_uses_the_name.<locals>.Local" in encode(
        Local(1)
    )
    assert register(Local, "short") is Local
    assert encode(Local(1)) == b'{"$type":"short","value":{"x":1}}'


def test_data_under_an_earlier_name_can_still_be_read():
    class Moved(Enum):
        A = 1

    register(Moved, "old.Moved")
    old = encode(Moved.A)
    register(Moved, "new.Moved")
    assert encode(Moved.A) == b'{"$type":"new.Moved","value":"A"}'
    assert decode(old) is Moved.A


def test_a_class_that_is_defined_again_takes_the_place_of_the_old_one():
    def define():
        @register
        @dataclass
        class Reloaded:
            x: int

        return Reloaded

    old, new = define(), define()
    assert type(there_and_back(new(1))) is new
    assert "Reloaded has no JSON form" in str(refused(encode, old(1)))


class Plain:
    pass


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "message"),
    [
        ((7,), {}, InvalidTypeError, r"register\(\): expected a class, got 7 \(int\)"),
        ((Plain,), {}, InvalidTypeError, r"call register\(Plain, encode=..., decode=...\)"),
        ((Plain,), {"encode": str}, InvalidValueError, "both encode= and decode="),
        ((Plain, ""), {"encode": str, "decode": Plain}, InvalidValueError, "non-empty text"),
        ((Plain, 7), {"encode": str, "decode": Plain}, InvalidValueError, "non-empty text"),
        ((Plain, "date"), {"encode": str, "decode": Plain}, DuplicateNameError, "taken by Routilux itself"),
        (
            (Plain, "weather.Celsius"),
            {"encode": str, "decode": Plain},
            DuplicateNameError,
            "taken by .*Celsius",
        ),
        ((dict,), {"encode": str, "decode": dict}, InvalidValueError, "it has a JSON form already"),
        ((datetime,), {"encode": str, "decode": datetime}, InvalidValueError, "it has a JSON form already"),
    ],
)
def test_what_cannot_be_registered(arguments, options, kind, message):
    with pytest.raises(kind, match=message):
        register(*arguments, **options)
    assert "Plain has no JSON form" in str(refused(encode, Plain()))


def test_functions_that_raise():
    class Faulty:
        def __init__(self, written):
            raise KeyError("nothing to read")

    def fail(_):
        raise ZeroDivisionError("in encode")

    register(Faulty, "faulty", encode=fail, decode=Faulty)
    error = refused(encode, {"a": Faulty.__new__(Faulty)})
    assert "ZeroDivisionError: in encode" in str(error)
    assert error.path == "$.a"
    assert isinstance(error.__cause__, ZeroDivisionError)
    error = refused(decode, b'{"$type":"faulty","value":1}')
    assert "KeyError: 'nothing to read'" in str(error)
    assert isinstance(error.__cause__, KeyError)


def test_an_encode_that_gives_what_has_no_form_or_itself():
    class Evasive:
        pass

    register(Evasive, "evasive", encode=lambda value: {"inner": Session()}, decode=Evasive)
    assert refused(encode, [Evasive()]).path == "$[0].inner"
    register(Evasive, "evasive", encode=lambda value: value, decode=Evasive)
    assert "contains itself" in str(refused(encode, [Evasive()]))


def test_a_dataclass_whose_constructor_takes_something_else():
    @register
    @dataclass
    class Opened:
        path: str
        mode: InitVar[str]

        def __post_init__(self, mode):
            pass

    error = refused(there_and_back, Opened("x", "r"))
    assert "missing 1 required positional argument: 'mode'" in str(error)
    assert "register(Opened, encode=..., decode=...)" in str(error)


def test_a_registered_subclass_of_dict_is_tagged():
    class Special(dict):
        pass

    register(Special, "special", encode=dict, decode=Special)
    assert same(there_and_back({"a": Special(x=1)}), {"a": Special(x=1)})


def test_errors_of_the_codec_are_of_the_one_tree():
    assert issubclass(SerializationError, errors.RoutiluxError)
