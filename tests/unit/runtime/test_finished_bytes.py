"""Finished jobs are kept within a limit of bytes, with all that they keep alive."""

from __future__ import annotations

import gc
import logging
import os
import tracemalloc
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar, copy_context
from inspect import iscoroutinefunction
from typing import Any

import pytest

from routilux import ErrorHandler, Flow, JobContext, Routine, Runtime, current
from routilux.activation_policies import immediate_policy
from routilux.errors import InvalidValueError, SlotHandlerError
from routilux.model.item import Output
from routilux.runtime.sizes import MOST_LOOKED_AT, SAMPLE, estimated_size
from routilux.store.memory import MemoryStore
from tests.waiting import SECONDS, eventually

MEGA = 2**20
JOBS = 40


@pytest.fixture
def measured() -> Iterator[Callable[[], int]]:
    tracemalloc.start()
    try:
        yield lambda: gc.collect() * 0 + tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def flow_of(logic: Callable[[Routine, Any], object], strategy: str = "stop") -> Flow:
    flow = Flow("f")
    routine = Routine()
    routine.add_slot("input")
    routine.add_event("out")
    routine.add_event("error")
    routine.set_error_handler(ErrorHandler(strategy))
    routine.set_activation_policy(immediate_policy())
    routine.set_logic(logic_of(logic, routine))
    flow.add_routine(routine, "r")
    return flow


def logic_of(logic: Callable[[Routine, Any], Any], routine: Routine) -> Callable[..., Any]:
    if not iscoroutinefunction(logic):
        return lambda slot_data, message, state: logic(routine, state)

    async def awaited(slot_data: Any, message: Any, state: Any) -> None:
        await logic(routine, state)

    return awaited


def blob() -> bytes:
    return os.urandom(MEGA)


def emits(routine: Routine, state: Any) -> None:
    routine.emit("out", blob=blob())


def sets_data(routine: Routine, state: Any) -> None:
    current().job.set_data("blob", [blob()])


def traces(routine: Routine, state: Any) -> None:
    current().job.trace("blob", blob=blob())


class Holder:
    """An object that says nothing about its size."""

    def __init__(self) -> None:
        self.blob = blob()


class Slotted:
    __slots__ = ("blob",)

    def __init__(self) -> None:
        self.blob = blob()


def sets_objects(routine: Routine, state: Any) -> None:
    current().job.set_data("held", [Slotted()])


def fails(routine: Routine, state: Any) -> None:
    data = {"blob": blob(), "held": Holder()}
    raise ValueError(len(data))


async def fails_async(routine: Routine, state: Any) -> None:
    data = {"blob": blob(), "held": Holder()}
    raise ValueError(len(data))


def fails_in_a_handler(routine: Routine, state: Any) -> None:
    try:
        fails(routine, state)
    except ValueError as error:
        raise ExceptionGroup("two", [error, LookupError("b")]) from error


def fails_with_an_original(routine: Routine, state: Any) -> None:
    try:
        fails(routine, state)
    except ValueError as error:
        again = LookupError("x")
        again.orig = [error]  # type: ignore[attr-defined]
        raise again from None


def error_with(**attributes: Any) -> Exception:
    error = LookupError("x")
    vars(error).update(attributes)
    return error


def fails_with_an_argument(routine: Routine, state: Any) -> None:
    raise ValueError([blob()])


def fails_with_an_attribute(routine: Routine, state: Any) -> None:
    raise error_with(held=Holder())


def fails_with_a_slot(routine: Routine, state: Any) -> None:
    raise error_with(held=Slotted())


def fails_with_a_note(routine: Routine, state: Any) -> None:
    error = ValueError("x")
    error.add_note(os.urandom(MEGA // 2).hex())
    raise error


def fails_with_a_cause(routine: Routine, state: Any) -> None:
    raise ValueError("x") from error_with(blob=blob())


def fails_in_a_context(routine: Routine, state: Any) -> None:
    try:
        raise error_with(blob=blob())
    except LookupError:
        raise ValueError("x") from None


def fails_as_a_group(routine: Routine, state: Any) -> None:
    raise ExceptionGroup("two", [ExceptionGroup("one", [error_with(blob=blob())]), ValueError("x")])


def fails_with_many_behind(routine: Routine, state: Any) -> None:
    error = None
    for _ in range(40):
        before, error = error, error_with(blob=os.urandom(MEGA // 40))
        error.__cause__ = before
    assert error is not None
    raise error


def fails_for_what_it_has_not(routine: Routine, state: Any) -> None:
    Holder().nothing  # type: ignore[attr-defined]  # noqa: B018 the exception has the object


def shares(routine: Routine, state: Any) -> None:
    state.shared_data["blob"] = blob()


COUNTED = [
    emits,
    sets_data,
    sets_objects,
    traces,
    fails_with_an_argument,
    fails_with_an_attribute,
    fails_with_a_slot,
    fails_with_a_note,
    fails_with_a_cause,
    fails_in_a_context,
    fails_as_a_group,
    fails_with_many_behind,
    fails_for_what_it_has_not,
]


@pytest.mark.parametrize(
    ("logic", "strategy"), [*((logic, "stop") for logic in COUNTED), (COUNTED[-1], "continue")]
)
def test_jobs_that_have_ended_keep_no_more_than_the_limit(
    measured: Callable[[], int], caplog: pytest.LogCaptureFixture, logic: Any, strategy: str
) -> None:
    caplog.set_level(logging.CRITICAL, logger="routilux")  # pytest keeps what is logged, with its frames
    flow = flow_of(logic, strategy)
    with Runtime(max_finished_bytes=8 * MEGA) as runtime:
        runtime.exec(flow)
        before = measured()
        for _ in range(JOBS):
            runtime.post(flow, "r", "input", {}).job_context.wait(SECONDS)
        assert measured() - before < 12 * MEGA
        assert 4 <= len(runtime.list_jobs()) <= 8


@pytest.mark.parametrize("store", [None, MemoryStore], ids=["memory", "store"])
@pytest.mark.parametrize(
    ("logic", "strategy"),
    [
        (fails, "stop"),
        (fails, "continue"),
        (fails, "skip"),
        (fails, "emit"),
        (fails_async, "stop"),
        (fails_in_a_handler, "stop"),
        (fails_with_an_original, "continue"),
    ],
)
def test_a_failure_keeps_no_frame_alive(
    measured: Callable[[], int], caplog: pytest.LogCaptureFixture, logic: Any, strategy: str, store: Any
) -> None:
    """Its traceback is kept as text: what the frames had in them is gone, and so is what they were given."""
    caplog.set_level(logging.CRITICAL, logger="routilux")
    flow = flow_of(logic, strategy)
    with Runtime(store=None if store is None else store()) as runtime:
        runtime.exec(flow)
        before = measured()
        jobs = [runtime.post(flow, "r", "input", {}).job_context for _ in range(20)]
        assert all(job.wait(SECONDS) for job in jobs)
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        assert measured() - before < 2 * MEGA
        for job in jobs:
            error = job.error or job.errors[0]
            assert isinstance(error, SlotHandlerError)
            assert isinstance(error.__cause__, Exception)
            assert error.__cause__.__traceback__ is None
            assert error.traceback is not None
            assert "raise ValueError(len(data))" in error.traceback or "from None" in error.traceback


def test_what_was_posted_with_a_job_counts(measured: Callable[[], int]) -> None:
    flow = flow_of(lambda routine, state: None)
    with Runtime(max_finished_bytes=8 * MEGA) as runtime:
        runtime.exec(flow)
        before = measured()
        for _ in range(JOBS):
            runtime.post(flow, "r", "input", {}, metadata={"blob": blob()}).job_context.wait(SECONDS)
        assert measured() - before < 12 * MEGA
        assert 4 <= len(runtime.list_jobs()) <= 8


class Caller:
    """What a caller has in its context."""


_caller: ContextVar[Caller | None] = ContextVar("caller", default=None)


@pytest.mark.parametrize("strategy", ["stop", "continue", "skip", "emit"])
@pytest.mark.parametrize("logic", [emits, fails, fails_async])
def test_a_job_that_has_ended_does_not_keep_what_its_caller_had(
    caplog: pytest.LogCaptureFixture, logic: Any, strategy: str
) -> None:
    caplog.set_level(logging.CRITICAL, logger="routilux")
    flow = flow_of(logic, strategy)
    with Runtime() as runtime:
        runtime.exec(flow)

        def post() -> tuple[JobContext, weakref.ref[Caller]]:
            caller = Caller()
            _caller.set(caller)
            return runtime.post(flow, "r", "input", {}).job_context, weakref.ref(caller)

        job, caller = copy_context().run(post)
        assert job.wait(SECONDS)
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        eventually(lambda: gc.collect() < 0 or caller() is None, "the caller's context is gone")


@pytest.mark.parametrize("logic", [emits, shares])
def test_executions_that_have_ended_keep_no_more_than_the_limit(
    measured: Callable[[], int], logic: Any
) -> None:
    flow = flow_of(logic)
    with Runtime(max_finished_bytes=8 * MEGA) as runtime:
        before = measured()
        for _ in range(JOBS):
            runtime.exec(flow, entry_params={}).wait(SECONDS)
        assert measured() - before < 12 * MEGA
        assert 4 <= len(runtime.list_jobs()) <= 8


def test_what_is_forgotten_is_still_in_the_store_and_in_the_hands_of_who_has_it() -> None:
    flow = flow_of(emits)
    with Runtime(store=MemoryStore(), max_finished_bytes=0) as runtime:
        worker = runtime.exec(flow)
        jobs = [runtime.post(flow, "r", "input", {}).job_context for _ in range(3)]
        assert all(job.wait(SECONDS) for job in jobs)
        assert len(jobs[0].outputs[0].data["blob"]) == MEGA
        found = runtime.get_job(jobs[0].job_id)
        assert found is not None
        assert found.outputs == jobs[0].outputs
        assert [record.job_ids for record in worker.execution_history] == [(job.job_id,) for job in jobs]


def test_the_job_that_has_just_ended_is_kept_whatever_its_size() -> None:
    flow = flow_of(emits)
    with Runtime(max_finished_bytes=0) as runtime:
        runtime.exec(flow)
        for _ in range(3):
            job = runtime.post(flow, "r", "input", {}).job_context
            job.wait(SECONDS)
            assert runtime.wait_until_all_jobs_finished(SECONDS)
            assert runtime.list_jobs() == [job]


def test_the_limit_is_a_number_of_bytes() -> None:
    with pytest.raises(InvalidValueError, match=r"Runtime\(max_finished_bytes\)"):
        Runtime(max_finished_bytes=-1)


class Array:
    nbytes = 3 * MEGA


@pytest.mark.parametrize(
    ("value", "least"),
    [
        (b"x" * MEGA, MEGA),
        ([1 << 8 * MEGA], MEGA),
        (["é" * MEGA], MEGA),
        (["語" * MEGA], 2 * MEGA),
        ({"a": [b"x" * MEGA]}, MEGA),
        ([b"x" * 1_000] * 5_000, 5_000_000),
        (Array(), 3 * MEGA),
        ({n: str(n % 10) * 500 for n in range(10_000)}, 5_000_000),
    ],
)
def test_a_size_is_about_what_a_value_takes(value: Any, least: int) -> None:
    assert least <= estimated_size(value) < 3 * least


class Text(str):
    """A text of a user that does not say how long it is."""

    def __len__(self) -> int:
        raise ZeroDivisionError


@pytest.mark.parametrize("count", [1, 3, 2 * SAMPLE])
@pytest.mark.parametrize(
    "data",
    [
        {},
        {"n": 1, "text": "short", "none": None, "x": 0.5},
        {"text": "x" * MEGA},
        {"text": Text("x")},
        {"n": 1 << 8 * MEGA},
        {"n": -1 << 8 * MEGA},
        {"rows": [b"x" * MEGA]},
        {"x" * MEGA: 1},
        {Text("x"): 1},
        {str(n): n for n in range(1_000)},
    ],
)
def test_outputs_take_what_their_payloads_take(data: dict[str, Any], count: int) -> None:
    outputs = [Output("r", "out", data if n == 0 else {"n": n}) for n in range(count)]
    looked_into = estimated_size([outputs, Holder])  # not as a few small mappings
    assert looked_into / 4 < estimated_size(outputs) < 4 * looked_into


def test_an_output_that_its_owner_has_put_there_ends_nothing() -> None:
    assert estimated_size([Output("r", "out", None), "none"]) > 0  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [20, 999])
def test_a_large_entry_among_many_small_ones_counts(count: int) -> None:
    large = b"x" * MEGA
    for value in (
        [b"head"] * count + [large],
        (*range(count), large),
        {**{f"c{n}": n for n in range(count)}, "page": large},
        [*(Output("r", "out", {"n": n}) for n in range(count)), Output("r", "out", {"page": large})],
    ):
        assert MEGA <= estimated_size(value) < 1.5 * MEGA


@pytest.mark.parametrize("large", ["x" * MEGA, b"x" * MEGA, Array()])
@pytest.mark.parametrize("rows", [10, 200, 100_000])
def test_what_is_large_and_shared_counts_once(large: Any, rows: int) -> None:
    once = estimated_size([{"page": large, "n": 0}])
    small = estimated_size([{"page": "", "n": n} for n in range(rows)])
    shared = estimated_size({"rows": [{"page": large, "n": n} for n in range(rows)]})
    assert once <= shared < once + 2 * small
    assert estimated_size([large, [large] * rows]) < once + 10 * rows


def test_large_values_that_are_made_on_the_way_count_each() -> None:
    class Made(Mapping[int, str]):
        def __len__(self) -> int:
            return 10

        def __iter__(self) -> Iterator[int]:
            return iter(range(10))

        def __getitem__(self, n: int) -> str:
            return str(n) * MEGA

    assert estimated_size([{"a": Made()}]) > 10 * MEGA


def test_a_list_whose_parts_were_too_deep_is_looked_into_where_it_is_not() -> None:
    long = [b"x" * 3_000 for _ in range(1_000)]
    assert estimated_size([[[[[long]]]], long]) > 2_000_000


def test_a_size_that_no_memory_has_does_no_harm() -> None:
    class Lies:
        nbytes = 10**400

    lies = Lies()
    assert estimated_size([lies] * 100) > MEGA


@pytest.mark.parametrize("container", [deque, list, set, dict])
def test_a_container_may_change_while_its_size_is_estimated(container: Callable[[], Any]) -> None:
    """What still runs adds to the trace of a job that ends, and a user's thread to its data."""
    value = container()
    add = {deque: deque.append, list: list.append, set: set.add, dict: lambda d, x: d.update({x: x})}[
        container
    ]  # type: ignore[index]

    class Adds:
        def __sizeof__(self) -> int:
            add(value, Adds())
            return 10

    for _ in range(3):
        add(value, Adds())
    assert estimated_size(value) > 30
    assert len(value) > 3


class Refuses(Mapping[str, int]):
    """A mapping of a user that cannot be read."""

    def __getitem__(self, key: str) -> int:
        raise ZeroDivisionError

    def __iter__(self) -> Iterator[str]:
        return iter("abc")

    def __len__(self) -> int:
        return 3


class Lengthless(Refuses):
    def __len__(self) -> int:
        raise ZeroDivisionError


class Dictless:
    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise ZeroDivisionError


@pytest.mark.parametrize("value", [Refuses(), Lengthless(), Dictless()])
def test_a_value_that_cannot_be_read_counts_with_its_own_size(value: Any) -> None:
    assert estimated_size({"a": value, "b": b"x" * MEGA}) > MEGA


def test_a_size_is_found_by_looking_at_few_values() -> None:
    looked_at = 0

    class Counted:
        def __sizeof__(self) -> int:
            nonlocal looked_at
            looked_at += 1
            return 10

    wide: Any = Counted()
    for _ in range(4):
        wide = [wide] * SAMPLE
    endless: list[Any] = []
    endless.extend([endless] * 100)
    assert estimated_size(wide) > 0
    assert estimated_size(endless) > 0
    assert looked_at <= MOST_LOOKED_AT + SAMPLE**2


def test_a_job_with_a_store_that_has_nothing_takes_nothing_when_it_has_ended() -> None:
    flow = flow_of(lambda routine, state: None)
    with Runtime(store=MemoryStore()) as runtime:
        runtime.exec(flow)
        job = runtime.post(flow, "r", "input", {}).job_context
        assert job.wait(SECONDS)
        assert "metadata" not in vars(job)
        assert not job.bulky
