"""Finished jobs are kept within a limit of bytes, with all that they keep alive."""

from __future__ import annotations

import gc
import logging
import os
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from routilux import ErrorHandler, Flow, Routine, Runtime, current
from routilux.activation_policies import immediate_policy
from routilux.errors import InvalidValueError
from routilux.runtime.sizes import MOST_LOOKED_AT, SAMPLE, estimated_size
from routilux.store.memory import MemoryStore
from tests.waiting import SECONDS

MEGA = 2**20
JOBS = 60


@pytest.fixture
def measured() -> Iterator[Callable[[], int]]:
    tracemalloc.start()
    try:
        yield lambda: gc.collect() * 0 + tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def flow_of(logic: Callable[[Routine, Any], object]) -> Flow:
    flow = Flow("f")
    routine = Routine()
    routine.add_slot("input")
    routine.add_event("out")
    routine.set_error_handler(ErrorHandler("stop"))
    routine.set_activation_policy(immediate_policy())
    routine.set_logic(lambda slot_data, message, state: logic(routine, state))
    flow.add_routine(routine, "r")
    return flow


def blob() -> bytes:
    return os.urandom(MEGA)


def emits(routine: Routine, state: Any) -> None:
    routine.emit("out", blob=blob())


def sets_data(routine: Routine, state: Any) -> None:
    current().job.set_data("blob", [blob()])


def traces(routine: Routine, state: Any) -> None:
    current().job.trace("blob", blob=blob())


def fails(routine: Routine, state: Any) -> None:
    data = {"blob": blob()}
    raise ValueError(len(data))


def shares(routine: Routine, state: Any) -> None:
    state.shared_data["blob"] = blob()


@pytest.mark.parametrize("logic", [emits, sets_data, traces, fails])
def test_jobs_that_have_ended_keep_no_more_than_the_limit(
    measured: Callable[[], int], caplog: pytest.LogCaptureFixture, logic: Any
) -> None:
    caplog.set_level(logging.CRITICAL, logger="routilux")  # pytest keeps what is logged, with its frames
    flow = flow_of(logic)
    with Runtime(max_finished_bytes=8 * MEGA) as runtime:
        runtime.exec(flow)
        before = measured()
        for _ in range(JOBS):
            runtime.post(flow, "r", "input", {}).job_context.wait(SECONDS)
        assert measured() - before < 12 * MEGA
        assert 4 <= len(runtime.list_jobs()) <= 8


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
        ({"a": [b"x" * MEGA]}, MEGA),
        ([b"x" * 1_000] * 5_000, 5_000_000),
        (Array(), 3 * MEGA),
        ({n: str(n % 10) * 500 for n in range(10_000)}, 5_000_000),
    ],
)
def test_a_size_is_about_what_a_value_takes(value: Any, least: int) -> None:
    assert least <= estimated_size(value) < 3 * least


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
