"""A store remembers workers that are not finished, and forgets those that are: no work is done twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from routilux import Flow, Routine, Runtime, WorkerState
from routilux.activation_policies import immediate_policy
from routilux.store.memory import MemoryStore
from routilux.testing import simulated

CALLS: list[int] = []


class Work(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        CALLS.append(slot_data["input"][0]["n"])


class PauseItself(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        state.runtime.pause(state)


def working() -> Flow:
    flow = Flow("working")
    flow.add_routine(Work(), "work")
    return flow


def start_paused_with_one_item(runtime: Runtime) -> WorkerState:
    """Pausing again takes a snapshot with the item in it."""
    flow = working()
    worker: WorkerState = runtime.exec(flow, worker_id="orders")
    runtime.pause(worker)
    runtime.post(flow, "work", "input", {"n": 1})
    runtime.pause(worker)
    return worker


def finish(runtime: Runtime, worker: WorkerState) -> None:
    runtime.resume(worker)
    assert runtime.wait_until_all_jobs_finished()


def finish_and_stop(runtime: Runtime, worker: WorkerState) -> None:
    finish(runtime, worker)
    assert runtime.stop(worker)


def finish_and_shut_down(runtime: Runtime, worker: WorkerState) -> None:
    finish(runtime, worker)
    assert runtime.shutdown()


def cancel(runtime: Runtime, worker: WorkerState) -> None:
    runtime.cancel(worker)


def stop_as_it_is(runtime: Runtime, worker: WorkerState) -> None:
    assert runtime.stop(worker, drain=False)


def shut_down_as_it_is(runtime: Runtime, worker: WorkerState) -> None:
    assert runtime.shutdown(wait=False)


def calls_after(end: Callable[[Runtime, WorkerState], None]) -> list[int]:
    """What the work was called with, until a second worker of the same id has drained."""
    CALLS.clear()
    store = MemoryStore()
    with simulated(1, store=store) as runtime:
        end(runtime, start_paused_with_one_item(runtime))
    with simulated(2, store=store) as runtime:
        runtime.exec(working(), worker_id="orders")
        assert runtime.wait_until_all_jobs_finished()
    return list(CALLS)


@pytest.mark.parametrize("end", [finish_and_stop, finish_and_shut_down])
def test_what_was_finished_is_not_done_again(end: Callable[[Runtime, WorkerState], None]) -> None:
    assert calls_after(end) == [1]


@pytest.mark.parametrize("end", [stop_as_it_is, shut_down_as_it_is])
def test_what_was_not_finished_is_gone_on_with(end: Callable[[Runtime, WorkerState], None]) -> None:
    assert calls_after(end) == [1]


def test_what_was_cancelled_is_gone() -> None:
    assert calls_after(cancel) == []


def test_a_paused_worker_without_work_is_remembered() -> None:
    store = MemoryStore()
    with simulated(1, store=store) as runtime:
        worker = runtime.exec(working(), worker_id="orders")
        worker.update_routine_state("work", {"seen": 3})
        runtime.pause(worker)
    with simulated(2, store=store) as runtime:
        assert runtime.exec(working(), worker_id="orders").get_routine_state("work") == {"seen": 3}


def test_a_routine_may_pause_its_worker() -> None:
    store = MemoryStore()
    flow = Flow("pausing")
    flow.add_routine(PauseItself(), "pause")
    with simulated(1, store=store) as runtime:
        worker = runtime.exec(flow, worker_id="orders")
        job = runtime.post(flow, "pause", "input", {}).job_context
        assert job.wait()
        assert (job.status, worker.status) == ("completed", "paused")
