"""Logic that has started threads and tasks: where one of them waits for room, another may be what makes some."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest

from routilux import Flow, JobContext, Runtime
from routilux.activation_policies import all_slots_ready_policy
from routilux.errors import QueueFullError
from routilux.store.memory import MemoryStore
from routilux.testing.simulated import simulated
from tests.acceptance.parts import Join, flow_of, step
from tests.waiting import SECONDS, eventually

stores = pytest.mark.parametrize("store", [None, MemoryStore])


class SmallJoin(Join):
    """Two slots of one place each."""

    def __init__(self) -> None:
        super(Join, self).__init__()
        for name in ("left", "right"):
            self.add_slot(name, max_queue_length=1)
        self.set_activation_policy(all_slots_ready_policy())

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        state.shared_log.append((slot_data["left"][0]["n"], slot_data["right"][0]["n"]))


def options_of(store: Any) -> dict[str, Any]:
    return {} if store is None else {"store": store()}


def blocked(runtime: Runtime) -> int:
    return sum(len(worker.back_pressure.blocked) for worker in runtime._engine.workers.values())


def fan_and_join(runtime: Runtime, logic: Callable[..., Any]) -> tuple[JobContext, Any]:
    """A job of a worker with this logic, beside a worker whose join it posts to."""
    joins = Flow("joins")
    joins.add_routine(SmallJoin(), "join")
    state = runtime.exec(joins)
    fan = flow_of(step(logic), flow_id="fan")
    runtime.exec(fan)
    return runtime.post(fan, "a", "input", {}).job_context, state


@stores
@pytest.mark.parametrize("seed", range(20))
def test_tasks_of_async_logic_post_to_both_slots_of_a_join(seed: int, store: Any) -> None:
    with simulated(seed, **options_of(store)) as runtime:

        async def posts(slot: str, seconds: float) -> None:
            for n in range(3):
                await asyncio.sleep(seconds)
                await runtime.apost("joins", "join", slot, {"n": n})

        async def logic(routine: Any, payload: Any, state: Any) -> None:
            await asyncio.gather(posts("left", 0), posts("right", 1))

        job, state = fan_and_join(runtime, logic)
        assert runtime.wait_until_all_jobs_finished()
        assert (job.status, job.error) == ("completed", None)
        assert list(state.shared_log) == [(0, 0), (1, 1), (2, 2)]


@stores
def test_a_thread_of_logic_posts_to_one_slot_of_a_join_and_the_logic_to_the_other(store: Any) -> None:
    failed: list[BaseException] = []
    done: list[int] = []
    with Runtime(thread_pool_size=2, **options_of(store)) as runtime:

        def left() -> None:
            try:
                for n in range(3):
                    runtime.post("joins", "join", "left", {"n": n})
                    done.append(n)
            except Exception as error:
                failed.append(error)

        def logic(routine: Any, payload: Any, state: Any) -> None:
            thread = Thread(target=contextvars.copy_context().run, args=(left,))
            thread.start()
            eventually(lambda: failed or blocked(runtime))
            for n in range(3):
                eventually(lambda n=n: failed or n in done)
                runtime.post("joins", "join", "right", {"n": n})
            thread.join()

        job, state = fan_and_join(runtime, logic)
        assert job.wait(SECONDS)
        assert (job.status, failed) == ("completed", [])
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        assert list(state.shared_log) == [(0, 0), (1, 1), (2, 2)]


def test_a_thread_of_logic_emits_to_one_slot_of_a_join_and_the_logic_to_the_other() -> None:
    failed: list[BaseException] = []
    done: list[int] = []
    with Runtime(thread_pool_size=2) as runtime:

        def left(routine: Any) -> None:
            try:
                for n in range(3):
                    routine.emit("output", n=n)
                    done.append(n)
            except Exception as error:
                failed.append(error)

        def logic(routine: Any, payload: Any, state: Any) -> None:
            thread = Thread(target=contextvars.copy_context().run, args=(left, routine))
            thread.start()
            eventually(lambda: failed or blocked(runtime))
            for n in range(3):
                eventually(lambda n=n: failed or n in done)
                routine.emit("other", n=n)
            thread.join()

        fan = step(logic)
        fan.add_event("other")
        flow = flow_of(fan)
        flow.add_routine(SmallJoin(), "join")
        flow.connect("a", "output", "join", "left")
        flow.connect("a", "other", "join", "right")
        state = runtime.exec(flow)
        job = runtime.post(flow, "a", "input", {}).job_context
        assert job.wait(SECONDS)
        assert (job.status, failed) == ("completed", [])
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        assert list(state.shared_log) == [(0, 0), (1, 1), (2, 2)]


@pytest.mark.parametrize("seed", range(20))
def test_a_task_waits_among_the_pending_jobs_for_what_the_logic_cancels(seed: int) -> None:
    with simulated(seed, max_queue_size=1) as runtime:

        async def logic(routine: Any, payload: Any, state: Any) -> None:
            if payload["n"]:
                return
            first = (await runtime.apost("fan", "a", "input", {"n": 1})).job_context
            second = asyncio.ensure_future(runtime.apost("fan", "a", "input", {"n": 2}))
            await asyncio.sleep(1)
            runtime.cancel(first)
            await second

        runtime.exec(flow_of(step(logic), flow_id="fan"))
        job = runtime.post("fan", "a", "input", {"n": 0}).job_context
        assert runtime.wait_until_all_jobs_finished()
        assert (job.status, job.error) == ("completed", None)


@stores
@pytest.mark.parametrize("seed", range(20))
def test_where_the_logic_waits_too_both_hear_that_none_can_come(seed: int, store: Any) -> None:
    outcomes: list[Any] = []
    with simulated(seed, **options_of(store)) as runtime:

        async def left(n: int) -> None:
            await runtime.apost("joins", "join", "left", {"n": n})

        async def logic(routine: Any, payload: Any, state: Any) -> None:
            await left(0)
            task = asyncio.ensure_future(left(1))
            await asyncio.sleep(1)
            assert not task.done()
            with pytest.raises(QueueFullError):
                await left(2)
            await runtime.apost("joins", "join", "right", {"n": 0})
            outcomes.extend(await asyncio.gather(task, return_exceptions=True))

        job, state = fan_and_join(runtime, logic)
        assert job.wait()
        assert (job.status, job.error) == ("completed", None)
        assert [type(outcome) for outcome in outcomes] == [QueueFullError]
        runtime.run()
        assert list(state.shared_log) == [(0, 0)]


@pytest.mark.parametrize("seed", range(20))
def test_another_activation_is_not_refused_while_the_logic_of_one_whose_task_waits_still_runs(
    seed: int,
) -> None:
    """``a`` has one task that waits in front of the join, and brings its partners later; ``b`` feeds it too."""
    with simulated(seed) as runtime:

        async def waits(routine: Any) -> None:
            await runtime.apost("flow", "join", "left", {"n": 1})

        async def logic(routine: Any, payload: Any, state: Any) -> None:
            await runtime.apost("flow", "join", "left", {"n": 0})
            task = asyncio.ensure_future(waits(routine))
            await asyncio.sleep(2)
            for n in range(3):
                await runtime.apost("flow", "join", "right", {"n": n})
            await task

        async def feeds(routine: Any, payload: Any, state: Any) -> None:
            await asyncio.sleep(1)
            await runtime.apost("flow", "join", "left", {"n": 2})

        flow = flow_of(step(logic), step(feeds))
        flow.add_routine(SmallJoin(), "join")
        state = runtime.exec(flow)
        jobs = [runtime.post(flow, name, "input", {}).job_context for name in ("a", "b")]
        assert runtime.wait_until_all_jobs_finished()
        assert [(job.status, job.error) for job in jobs] == [("completed", None)] * 2
        assert sorted(left for left, _ in state.shared_log) == [0, 1, 2]
