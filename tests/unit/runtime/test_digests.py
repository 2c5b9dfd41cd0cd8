"""What comes again under an idempotency key is the same, or told how it differs; and nothing of it is kept."""

from __future__ import annotations

import array
import gc
import json
import subprocess
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from enum import Enum, Flag
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routilux import Flow, Routine, Runtime
from routilux.activation_policies import immediate_policy
from routilux.errors import (
    IdempotencyConflictError,
    InvalidTypeError,
    InvalidValueError,
    QueueFullError,
    StateError,
)
from routilux.runtime.digests import content_of
from routilux.store.memory import MemoryStore
from tests.waiting import SECONDS

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


class Colour(Enum):
    RED = 1
    BLUE = 2


@dataclass
class Order:
    number: int
    lines: list[str]


class Table:
    """As those of other libraries: == gives no truth value."""

    def __eq__(self, other: object) -> Any:
        raise ValueError("the truth value is ambiguous")

    __hash__ = None  # type: ignore[assignment]


def digest(payload: Any, place: str = "r.input", metadata: Any = None) -> str:
    return content_of(place, payload, metadata or {}).digest


@given(plain, plain)
def test_two_payloads_have_one_digest_if_they_have_one_form(one: Any, two: Any) -> None:
    assert digest({"a": one, "b": two}) == digest({"b": two, "a": one})
    assert (digest(one) == digest(two)) == (_form(one) == _form(two))


def _form(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{sorted((key, _form(item)) for key, item in value.items())}}}"
    return f"[{[_form(item) for item in value]}]" if isinstance(value, list) else repr(value)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (Order(1, ["a"]), Order(2, ["a"])),
        (Colour.RED, Colour.BLUE),
        (datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 2, tzinfo=UTC)),
        (Decimal("1.0"), Decimal("1.00")),
        (UUID(int=1), UUID(int=2)),
        (PurePosixPath("a"), PurePosixPath("b")),
        (array.array("d", [1.0]), array.array("f", [1.0])),
        ({1, 2}, {1, 3}),
        (b"ab", b"abc"),
        ([["a"], "b"], ["a", ["b"]]),
        (1, True),
        (float("nan"), None),
    ],
)
def test_different_values_have_different_digests_and_the_same_always_the_same(one: Any, two: Any) -> None:
    assert digest(one) != digest(two)
    assert content_of("r.input", one, {}).objects == ()
    code = (
        "import array; from tests.unit.runtime.test_digests import *\n"
        f"import sys; print(digest({_source(one)}), digest({_source(two)}))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stdout.split() == [digest(one), digest(two)]


def _source(value: Any) -> str:
    match value:
        case Colour():
            return str(value)
        case float():
            return "float('nan')"
        case datetime():
            return f"datetime({value.year}, 1, {value.day}, tzinfo=UTC)"
        case array.array():
            return f"array.{value!r}"
        case _:
            return repr(value)


class Text(str):
    def encode(self, *how: Any) -> bytes:
        raise ZeroDivisionError

    __slots__ = ()


class Id(int):
    """A number that shows itself as it likes."""

    def __repr__(self) -> str:
        return f"<Id at {id(self)}>"


class Access(Flag):
    READ = 1
    WRITE = 2


@dataclass
class Cached:
    number: int
    seen: int = field(default=0, compare=False)


class Zone(tzinfo):
    """As pytz has them: its text says nothing."""

    def utcoffset(self, when: Any) -> timedelta:
        return timedelta(hours=1)


ZONE = Zone()
EQUAL = [
    lambda: 10**5_000,
    lambda: -(10**5_000),
    lambda: Id(7),
    lambda: Text("a"),
    lambda: float("nan"),
    lambda: [float("nan"), {"x": float("inf")}],
    lambda: deque([1, 2]),
    lambda: range(3),
    lambda: Access(0),
    lambda: Access.READ | Access.WRITE,
    lambda: np.zeros((0, 3)),
    lambda: np.zeros(0, dtype="<U3"),
    lambda: np.array(["2020-01-01", "NaT"], dtype="datetime64[D]"),
    lambda: np.datetime64("2020-01-01"),
    lambda: np.timedelta64(1, "s"),
    lambda: np.arange(12).reshape(3, 4)[:, ::2],
    lambda: np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    lambda: np.float64(1.5),
    lambda: memoryview(b""),
    lambda: ZoneInfo("UTC"),
    lambda: datetime(2020, 1, 1, tzinfo=ZoneInfo("UTC")),
    lambda: "x" * 10**7,
    lambda: {"x" * 10**6: 1},
    lambda: nested(140),
]


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("make", EQUAL, ids=[f"value-{n}" for n in range(len(EQUAL))])
def test_what_is_made_anew_has_the_same_digest(make: Callable[[], Any]) -> None:
    assert digest(make()) == digest(make())
    assert content_of("r.input", make(), {}).objects == ()


def test_different_values_have_different_digests() -> None:
    assert len({digest(make()) for make in EQUAL}) == len(EQUAL)


def test_what_is_equal_has_the_same_digest() -> None:
    assert digest(range(0, 3, 2)) == digest(range(0, 4, 2)) != digest(range(0, 5, 2))
    assert digest(range(0)) == digest(range(5, 5)) != digest(range(1))
    assert digest(Cached(1, 2)) == digest(Cached(1, 3)) != digest(Cached(2, 2))
    assert digest(np.array([1, 2, 3, 4])[::2]) == digest(np.array([1, 3]))
    assert digest(np.array([1, 2])) != digest(np.array([1, 2], dtype="i2")) != digest(np.array([[1, 2]]))
    assert digest(10**5_000) != digest(10**5_000 + 1) != digest(Id(1)) != digest(1)


same = st.sampled_from([Table() for _ in range(5)])
mixed = st.recursive(
    same | st.integers() | st.text(max_size=3) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=15,
)


@given(mixed, mixed, st.randoms())
def test_the_order_of_keys_does_not_matter_to_objects_of_unknown_structure(
    one: Any, two: Any, random: Any
) -> None:
    kept, again = content_of("r.input", one, {}), content_of("r.input", _shuffled(one, random), {})
    assert kept.difference(again) is None
    other = content_of("r.input", two, {})
    assert (kept.difference(other) is None) == (_form_with_ids(one) == _form_with_ids(two))


def _shuffled(value: Any, random: Any) -> Any:
    if isinstance(value, list):
        return [_shuffled(item, random) for item in value]
    if not isinstance(value, dict):
        return value
    pairs = [(key, _shuffled(item, random)) for key, item in value.items()]
    random.shuffle(pairs)
    return dict(pairs)


def _form_with_ids(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{sorted((key, _form_with_ids(item)) for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{[_form_with_ids(item) for item in value]}]"
    return str(id(value)) if isinstance(value, Table) else repr(value)


def test_objects_in_sets_and_keys_have_no_order_either() -> None:
    tables = [object.__new__(Keyed) for _ in range(8)]
    one, two = (
        content_of("r.input", dict.fromkeys(tables), {}),
        content_of("r.input", dict.fromkeys(tables[::-1]), {}),
    )
    assert one.difference(two) is None
    one, two = content_of("r.input", set(tables), {}), content_of("r.input", {*reversed(tables)}, {})
    assert one.difference(two) is None
    assert one.difference(content_of("r.input", set(tables[1:]), {})) is not None


class Keyed:
    pass


class Unreadable(dict[str, int]):
    def items(self) -> Any:
        raise ZeroDivisionError("no items")


class Changed(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter("ab")

    def __len__(self) -> int:
        return 2


@dataclass
class Property:
    number: int

    @property
    def number(self) -> int:  # type: ignore[no-redef]
        raise ZeroDivisionError

    @number.setter
    def number(self, value: int) -> None:
        pass


class Odd:
    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise ZeroDivisionError


def endless() -> list[Any]:
    value: list[Any] = []
    value.append({"again": value})
    return value


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: endless(), r"at \$\.a\[1\]\[0\]\.again, a builtins\.list, which contains itself"),
        (
            lambda: nested(10_000),
            r"at \$\.a\[1\](\[0\]){10}…, a builtins\.list, which lies more than 150 levels deep",
        ),
        (
            lambda: object(),
            r"at \$\.a\[1\], a builtins\.object, which cannot be compared .* or post without a key",
        ),
        (
            lambda: Unreadable(),
            r"at \$\.a\[1\], a .*Unreadable, which cannot be read: ZeroDivisionError: no items",
        ),
        (lambda: Changed(), r"at \$\.a\[1\], a .*Changed, which cannot be read: KeyError"),
        (lambda: Property(1), r"at \$\.a\[1\], a .*Property, which cannot be read: ZeroDivisionError"),
        (lambda: Odd(), r"at \$\.a\[1\], a .*Odd, which cannot be read: ZeroDivisionError"),
        (lambda: {"k" * 1_000: object()}, r"at \$\.a\[1\]\.'k{58}…, a builtins\.object"),
    ],
    ids=range(8),
)
def test_what_has_no_digest_is_refused_with_its_place_and_its_type(
    make: Callable[[], Any], said: str
) -> None:
    with pytest.raises(InvalidTypeError, match=said):
        digest({"a": [1, make()]})


def shared(inner: Any, depth: int, make: Callable[[Any, Any], Any]) -> Any:
    """Two ways to what is two levels down, four to what is below, and so on."""
    for _ in range(depth):
        inner = make(inner, inner)
    return inner


@pytest.mark.parametrize(
    "make",
    [lambda *two: list(two), lambda *two: two, lambda one, two: {"a": one, "b": two}],
    ids=["list", "tuple", "dict"],
)
def test_what_is_shared_is_walked_through_once_and_has_the_digest_of_copies(
    make: Callable[[Any, Any], Any],
) -> None:
    assert digest(shared([1, 2], 9, make)) == digest(json.loads(json.dumps(shared([1, 2], 9, make))))
    assert digest(shared([1, 2], 120, make)) != digest(shared([1, 3], 120, make))  # 2**120 ways


def test_objects_in_what_is_shared_are_compared_in_each_of_its_places() -> None:
    one, two = [Table() for _ in range(40)], [Table() for _ in range(40)]
    first, again, other = (content_of("", payload, {}) for payload in ([one, one], [one, one], [one, two]))
    assert first.difference(again) is None
    assert first.difference(other) is not None


@pytest.mark.parametrize("first", [False, True])
def test_what_is_shared_may_not_lie_too_deep_in_any_of_its_places(first: bool) -> None:
    inner: Any = list(range(40))
    for _ in range(80):
        inner = [inner]
    outer: Any = inner
    for _ in range(80):
        outer = [outer]
    with pytest.raises(InvalidTypeError, match="150 levels"):
        digest([inner, outer] if first else [outer, inner])


@given(st.lists(plain, min_size=1, max_size=3), st.data())
def test_sharing_makes_no_difference_to_a_digest(parts: list[Any], data: st.DataObject) -> None:
    for _ in range(7):
        parts.append([data.draw(st.sampled_from(parts)) for _ in range(2)])
    assert digest(parts) == digest(copied(parts))


def copied(value: Any) -> Any:
    if isinstance(value, list):
        return [copied(each) for each in value]
    return {key: copied(each) for key, each in value.items()} if isinstance(value, dict) else value


@given(st.integers() | st.floats() | st.booleans() | st.none() | st.text())
def test_digests_of_plain_values_are_those_that_stores_have(value: Any) -> None:
    shown = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else repr(value).encode()
    made = blake2b(type(value).__name__.encode() + b"\0" + shown, digest_size=12).hexdigest()
    assert digest(value)[26:50] == made


@pytest.fixture
def flow() -> Flow:
    flow = Flow("keys")
    routine = Routine()
    routine.add_slot("input")
    routine.add_slot("other")
    routine.set_activation_policy(immediate_policy()).set_logic(lambda *_: None)
    flow.add_routine(routine, "r")
    return flow


@pytest.fixture(params=["in memory", "with a store"])
def runtime(request: pytest.FixtureRequest, flow: Flow) -> Iterator[Runtime]:
    with Runtime(store=MemoryStore() if request.param == "with a store" else None) as runtime:
        runtime.exec(flow, worker_id="w")
        yield runtime


@pytest.mark.parametrize(
    ("slot", "payload", "metadata", "how"),
    [
        ("other", {"n": 1}, {"m": 1}, "for another slot"),
        ("input", {"n": 2}, {"m": 1}, "with another payload"),
        ("input", {"n": 1}, {"m": 2}, "with other metadata"),
        ("input", {"n": 1}, None, "with other metadata"),
    ],
)
def test_another_slot_payload_or_metadata_under_a_key_is_a_conflict_that_says_so(
    runtime: Runtime, flow: Flow, slot: str, payload: Any, metadata: Any, how: str
) -> None:
    first = runtime.post(flow, "r", "input", {"n": 1}, metadata={"m": 1}, idempotency_key="k")
    first.job_context.wait(30)
    again = runtime.post(flow, "r", "input", {"n": 1}, metadata={"m": 1}, idempotency_key="k")
    assert again.job_id == first.job_id
    with pytest.raises(IdempotencyConflictError, match=f"before {how}"):
        runtime.post(flow, "r", slot, payload, metadata=metadata, idempotency_key="k")


def test_the_first_post_with_a_key_makes_the_job_of_the_given_id(runtime: Runtime, flow: Flow) -> None:
    first = runtime.post(flow, "r", "input", {"n": 1}, job_id="mine", idempotency_key="k")
    assert first.job_id == "mine"
    for job_id in ("mine", None):
        again = runtime.post(flow, "r", "input", {"n": 1}, job_id=job_id, idempotency_key="k")
        assert again.job_id == "mine"
    assert len(runtime.list_jobs()) == 1


def test_another_job_id_under_a_key_is_a_conflict_that_names_both(runtime: Runtime, flow: Flow) -> None:
    first = runtime.post(flow, "r", "input", {"n": 1}, idempotency_key="k")
    with pytest.raises(IdempotencyConflictError, match=f"'mine'.*'{first.job_id}'") as caught:
        runtime.post(flow, "r", "input", {"n": 1}, job_id="mine", idempotency_key="k")
    assert caught.value.job_id == first.job_id
    assert runtime.get_job("mine") is None


def test_items_with_keys_join_a_job_once_each(runtime: Runtime, flow: Flow) -> None:
    runtime.pause("w")
    for key in ("a", "b", "a", "b"):
        runtime.post(flow, "r", "input", {"key": key}, job_id="batch", idempotency_key=key)
    assert runtime.get_worker("w").counters("r")["queued"] == 2
    runtime.resume("w")
    assert runtime.get_job("batch").wait(SECONDS)


def test_a_job_that_takes_no_more_items_refuses_a_key_and_the_key_stays_free(
    runtime: Runtime, flow: Flow
) -> None:
    runtime.pause("w")
    runtime.post(flow, "r", "input", {"n": 1}, job_id="gone")
    runtime.cancel("gone")
    with pytest.raises(StateError, match="'gone' is cancelled"):
        runtime.post(flow, "r", "input", {"n": 1}, job_id="gone", idempotency_key="k")
    assert runtime.post(flow, "r", "input", {"n": 1}, job_id="new", idempotency_key="k").job_id == "new"


@pytest.mark.parametrize("job_id", ["", 7])
def test_what_is_no_job_id_is_refused_beside_a_key(runtime: Runtime, flow: Flow, job_id: Any) -> None:
    runtime.post(flow, "r", "input", {"n": 1}, idempotency_key="k")
    with pytest.raises(InvalidValueError, match="job_id: expected non-empty text"):
        runtime.post(flow, "r", "input", {"n": 1}, job_id=job_id, idempotency_key="k")


def test_a_post_with_a_key_that_was_refused_for_want_of_room_leaves_its_job_open_and_its_key_free(
    runtime: Runtime,
) -> None:
    flow = Flow("narrow")
    routine = Routine()
    routine.add_slot("input", max_queue_length=1)
    routine.set_activation_policy(immediate_policy()).set_logic(lambda *_: None)
    flow.add_routine(routine, "r")
    runtime.exec(flow, worker_id="narrow")
    runtime.pause("narrow")
    runtime.post(flow, "r", "input", {"n": 1}, job_id="batch", idempotency_key="a")
    with pytest.raises(QueueFullError):
        runtime.post(flow, "r", "input", {"n": 2}, job_id="batch", idempotency_key="b", timeout=0)
    assert runtime.get_job("batch").status == "pending"
    runtime.resume("narrow")
    assert runtime.get_job("batch").wait(SECONDS)
    with pytest.raises(IdempotencyConflictError):
        runtime.post(flow, "r", "input", {"n": 3}, job_id="batch", idempotency_key="a")
    assert runtime.post(flow, "r", "input", {"n": 3}, job_id="more", idempotency_key="b").job_id == "more"


def test_a_key_that_an_older_version_has_written_still_gives_its_job(flow: Flow) -> None:
    store = MemoryStore()
    with Runtime(store=store) as runtime:
        runtime.exec(flow, worker_id="w")
        job_id = runtime.post(flow, "r", "input", {"n": 1}, idempotency_key="k").job_id
        ((key, row),) = store._keys.items()
        old = blake2b(json.dumps({"n": 1}, separators=(",", ":")).encode(), digest_size=16).hexdigest()
        store._keys[key] = row._replace(digest=old)
        assert runtime.post(flow, "r", "other", {"n": 1}, idempotency_key="k").job_id == job_id
        with pytest.raises(IdempotencyConflictError, match="with another payload"):
            runtime.post(flow, "r", "input", {"n": 2}, idempotency_key="k")


def test_in_memory_an_object_of_another_library_is_the_same_as_itself_and_as_no_other(flow: Flow) -> None:
    with Runtime() as runtime:
        runtime.exec(flow)
        table = Table()
        payload = {"table": table, "n": float("nan"), "when": datetime(2020, 1, 1, tzinfo=ZONE)}
        first = runtime.post(flow, "r", "input", payload, idempotency_key="k")
        assert runtime.post(flow, "r", "input", dict(payload), idempotency_key="k").job_id == first.job_id
        with pytest.raises(IdempotencyConflictError):
            runtime.post(flow, "r", "input", {**payload, "table": Table()}, idempotency_key="k")


def test_in_memory_a_key_keeps_neither_payload_nor_outputs_and_still_tells_how_its_job_ended(
    flow: Flow,
) -> None:
    class Big:
        pass

    with Runtime() as runtime:
        runtime.exec(flow)
        big = Big()
        job = runtime.post(flow, "r", "input", {"big": big}, idempotency_key="k").job_context
        job.wait(30)
        job.data["big"] = big
        job_id, created_at = job.job_id, job.created_at
        runtime._engine.book.jobs.pop(job_id)  # as when 10,000 others have ended since
        gone = weakref.ref(big)
        other = runtime.post(flow, "r", "input", {"n": 1}).job_context
        other.wait(30)
        runtime._engine.runtime.get_worker(job.worker_id).history.rows.clear()
        del big, job
        gc.collect()
        assert gone() is None
        with pytest.raises(IdempotencyConflictError):
            runtime.post(flow, "r", "input", {"big": Big()}, idempotency_key="k")
        second = runtime.post(flow, "r", "input", {"n": 1}, idempotency_key="k2").job_context
        second.wait(30)
        second_id, second_at = second.job_id, second.created_at
        runtime._engine.book.jobs.pop(second_id)
        runtime._engine.runtime.get_worker(second.worker_id).history.rows.clear()
        del second
        gc.collect()
        again = runtime.post(flow, "r", "input", {"n": 1}, idempotency_key="k2").job_context
        assert (again.job_id, again.created_at, again.status) == (second_id, second_at, "completed")
        assert again.wait(0)
        assert again.result() == []
        assert created_at > 0


def test_three_hundred_keys_of_large_payloads_cost_next_to_nothing(flow: Flow, tmp_path: Path) -> None:
    code = """
import os, tracemalloc
from routilux import Flow, Routine, Runtime
from routilux.activation_policies import immediate_policy
flow = Flow("keys")
routine = Routine()
routine.add_slot("input")
routine.set_activation_policy(immediate_policy()).set_logic(lambda *_: None)
flow.add_routine(routine, "r")
with Runtime() as runtime:
    runtime.exec(flow)
    tracemalloc.start()
    for n in range(300):
        runtime.post(flow, "r", "input", {"blob": os.urandom(10**6)}, idempotency_key=f"k{n}").job_context.wait(30)
    print(tracemalloc.get_traced_memory()[0])
"""
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(said.stdout) < 10 * 2**20
