"""What comes again under an idempotency key is the same, or told how it differs; and nothing of it is kept."""

from __future__ import annotations

import array
import gc
import json
import subprocess
import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routilux import Flow, Routine, Runtime
from routilux.activation_policies import immediate_policy
from routilux.errors import IdempotencyConflictError, InvalidTypeError
from routilux.runtime.digests import content_of
from routilux.store.memory import MemoryStore

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


def test_what_contains_itself_and_what_nothing_can_refer_to_is_refused_with_its_place() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(InvalidTypeError, match="contains itself"):
        digest(endless)
    with pytest.raises(
        InvalidTypeError, match=r"at \$\.a\[1\], a builtins\.object, .* or post without a key"
    ):
        digest({"a": [1, object()]})


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
        payload = {"table": table, "n": float("nan")}
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
