"""What the contract says of the runtime: looking up, pausing, cancelling, stopping, time-outs, seams."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from routilux import Flow, JobContext, Routine, Runtime, StateError, current, get_current_job
from routilux.activation_policies import custom_policy, time_interval_policy
from routilux.errors import ExecutionTimeoutError, QueueFullError, RuntimeClosedError
from routilux.model.context import running
from routilux.ports import Task
from routilux.store.memory import MemoryStore
from routilux.testing import simulated
from tests.acceptance.contract_parts import Stop, chain, ends_here, keeps, part, stops_at
from tests.waiting import SECONDS


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    runtime = Runtime(thread_pool_size=2)
    yield runtime
    assert runtime.shutdown(wait=False, timeout=SECONDS)


def test_lists_filter_by_flow_status_and_limit(runtime: Runtime) -> None:
    one, two = chain(part(), flow=Flow("one")), chain(part(), flow=Flow("two"))
    first, second = runtime.exec(one), runtime.exec(two)
    runtime.pause(second)
    done = runtime.post(one, "a", "input", {}).job_context
    done.result(SECONDS)
    waiting = [runtime.post(two, "a", "input", {}).job_context for _ in range(2)]
    assert runtime.list_jobs() == [done, *waiting]
    assert runtime.list_jobs(status="completed") == [done]
    assert runtime.list_jobs(flow=two) == runtime.list_jobs(flow="two") == waiting
    assert runtime.list_jobs(flow="two", status="pending", limit=1) == waiting[:1]
    assert runtime.list_workers() == [first, second]
    assert runtime.list_workers(flow=two) == [second]
    assert runtime.get_worker(first.worker_id) is first
    assert runtime.get_job("nobody") is runtime.get_worker("nobody") is None


# -- pause, resume, cancel ---------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["worker", "worker id", "job", "job id"])
def test_pause_returns_when_what_ran_has_ended_and_posts_are_still_accepted(
    target: str, runtime: Runtime
) -> None:
    stop, seen = Stop(), list[Any]()
    flow = chain(part(stops_at(stop)), part(keeps(seen)))
    worker = runtime.exec(flow)
    job = runtime.post(flow, "a", "input", {"n": 1}).job_context
    stop.wait()
    what: Any = {"worker": worker, "worker id": worker.worker_id, "job": job, "job id": job.job_id}[target]
    with pytest.raises(ExecutionTimeoutError, match="a"):
        runtime.pause(what, timeout=0.01)
    pausing = threading.Thread(target=runtime.pause, args=(what,))
    pausing.start()
    assert pausing.is_alive()
    stop.open.set()
    pausing.join(SECONDS)
    assert not pausing.is_alive()
    assert seen == []
    posted = runtime.post(flow, "a", "input", {"n": 2}).job_context
    if target.startswith("job"):
        assert posted.wait(SECONDS)
        assert seen == [{"n": 2}]
    else:
        assert (posted.status, worker.status) == ("pending", "paused")
    runtime.resume(what)
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    assert sorted(payload["n"] for payload in seen) == [1, 2]


def test_cancelled_job_starts_nothing_any_more_and_what_it_still_emits_is_discarded(runtime: Runtime) -> None:
    stop, seen = Stop(), list[Any]()
    flow = chain(part(stops_at(stop)), part(keeps(seen)))
    worker = runtime.exec(flow)
    job = runtime.post(flow, "a", "input", {"n": 1}).job_context
    stop.wait()
    runtime.cancel(job.job_id)
    assert job.status == "cancelled"
    stop.open.set()
    assert runtime.post(flow, "a", "input", {"n": 2}).job_context.wait(SECONDS)
    assert (seen, worker.status) == ([{"n": 2}], "running")
    runtime.cancel(job)
    assert job.status == "cancelled"


def test_cancelling_a_worker_cancels_every_job_and_the_worker(runtime: Runtime) -> None:
    flow = chain(part())
    worker = runtime.exec(flow)
    runtime.pause(worker)
    jobs = [runtime.post(flow, "a", "input", {}).job_context for _ in range(3)]
    runtime.cancel(worker)
    assert [job.status for job in jobs] == ["cancelled"] * 3
    assert worker.status == "stopped"
    assert flow.in_use == 0


# -- stop and shutdown -------------------------------------------------------------------------------------


def test_stop_drains_and_says_whether_everything_ended(runtime: Runtime) -> None:
    stop, seen = Stop(), list[Any]()
    flow = chain(part(stops_at(stop)), part(keeps(seen)))
    first = runtime.exec(flow)
    job = runtime.post(flow, "a", "input", {"n": 1}).job_context
    stop.wait()
    assert runtime.stop(first, timeout=0.01) is False
    assert (first.status, job.status) == ("stopped", "cancelled")
    stop.open.set()
    second = runtime.exec(flow)
    for n in range(20):
        runtime.post(flow, "a", "input", {"n": n})
    assert runtime.stop(second, timeout=SECONDS) is True
    assert runtime.stop(second) is True
    assert seen == [{"n": n} for n in range(20)]


def test_shutdown_drains_and_accepts_nothing_any_more() -> None:
    seen: list[Any] = []
    runtime = Runtime(thread_pool_size=1)
    flow = chain(part(keeps(seen)))
    runtime.exec(flow)
    for n in range(20):
        runtime.post(flow, "a", "input", {"n": n})
    assert runtime.shutdown(timeout=SECONDS) is True
    assert len(seen) == 20
    assert runtime.shutdown() is True
    with pytest.raises(RuntimeClosedError):
        runtime.exec(flow)


def test_leaving_the_block_by_an_exception_stops_without_draining() -> None:
    seen: list[Any] = []
    jobs: list[JobContext] = []
    flow = chain(part(keeps(seen)))

    def leaves() -> None:
        with Runtime(thread_pool_size=1) as runtime:
            runtime.pause(runtime.exec(flow))
            jobs.append(runtime.post(flow, "a", "input", {}).job_context)
            raise LookupError

    with pytest.raises(LookupError):
        leaves()
    assert (seen, jobs[0].status) == ([], "cancelled")


def test_wait_until_all_jobs_finished_says_false_on_time_out_and_is_refused_in_a_routine(
    runtime: Runtime,
) -> None:
    stop = Stop()
    flow = chain(part(stops_at(stop)))
    flow.add_routine(part(lambda r, d, m, s: s.runtime.wait_until_all_jobs_finished()), "waits")
    runtime.exec(flow)
    runtime.post(flow, "a", "input", {})
    stop.wait()
    assert runtime.wait_until_all_jobs_finished(0.01) is False
    job = runtime.post(flow, "waits", "input", {}).job_context
    assert job.wait(SECONDS)
    assert isinstance(job.error.__cause__ or job.error, StateError)
    stop.open.set()
    assert runtime.wait_until_all_jobs_finished(SECONDS) is True


def test_async_twins() -> None:
    async def main() -> JobContext:
        async with Runtime(thread_pool_size=1) as runtime:
            flow = chain(part())
            worker = runtime.exec(flow)
            job = (await runtime.apost(flow, "a", "input", {"n": 1})).job_context
            assert await runtime.ajoin(SECONDS) is True
            assert job.status == "completed"
            await runtime.apause(worker)
            last = (await runtime.apost(flow, "a", "input", {"n": 2})).job_context
            runtime.resume(worker)
        return last

    assert asyncio.run(main()).status == "completed"


# -- time-outs and back-pressure ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_activation_that_takes_longer_than_its_time_out_fails(kind: str, runtime: Runtime) -> None:
    stop = Stop()

    async def hangs(routine: Routine, slot_data: Any, message: Any, state: Any) -> None:
        await asyncio.Event().wait()

    flow = chain(part(hangs if kind == "async" else stops_at(stop)).set_timeout(0.02))
    runtime.exec(flow)
    job = runtime.post(flow, "a", "input", {}).job_context
    assert job.wait(SECONDS)
    assert job.status == "failed"
    assert isinstance(job.error, ExecutionTimeoutError)
    stop.open.set()
    assert job.outputs == []


@pytest.mark.parametrize("awaits", [False, True])
def test_async_producer_is_held_back_if_it_awaits_and_gets_an_error_if_not(
    awaits: bool, runtime: Runtime
) -> None:
    stop, made = Stop(), [0]

    async def produces(routine: Routine, slot_data: Any, message: Any, state: Any) -> None:
        for n in range(5_000):
            routine.emit("output", n=n)
            made[0] = n
            if awaits:
                await asyncio.sleep(0)

    flow = chain(part(produces), part(stops_at(stop), max_queue_length=10))
    runtime.exec(flow)
    job = runtime.post(flow, "a", "input", {}).job_context
    stop.wait()
    if awaits:
        assert job.wait(0.05) is False
        assert made[0] < 100
        stop.open.set()
        assert len(job.result(SECONDS)) == 5_000
    else:
        stop.open.set()
        assert job.wait(SECONDS)
        assert isinstance(job.error.__cause__ or job.error, QueueFullError)


# -- seams -------------------------------------------------------------------------------------------------


class HoldsAll:
    def holds_activation(self, *_: Any) -> bool:
        return True

    def holds_item(self, *_: Any) -> bool:
        return False


def test_gate_holds_activations_until_they_are_let_go(runtime: Runtime) -> None:
    seen: list[Any] = []
    flow = chain(part(keeps(seen)))
    worker = runtime.exec(flow)
    runtime.set_gate(worker, "a", HoldsAll())
    job = runtime.post(flow, "a", "input", {"n": 1}).job_context
    assert job.wait(0.02) is False
    assert seen == []
    assert runtime.let_go(worker, "a") == 1
    job.result(SECONDS)
    second = runtime.post(flow, "a", "input", {"n": 2}).job_context
    assert second.wait(0.02) is False
    runtime.set_gate(worker, "a", None)
    second.result(SECONDS)
    assert seen == [{"n": 1}, {"n": 2}]


class OwnRunner:
    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="own")

    def start(self, task: Task, done: Callable[[BaseException | None], None]) -> Callable[[], None]:
        def call() -> None:
            assert task.context[running] is task.activation
            try:
                task.context.run(task.logic, task.slot_data, task.message, task.state)
            except BaseException as error:
                done(error)
            else:
                done(None)

        self.pool.submit(call)
        return lambda: None

    def close(self) -> None:
        self.pool.shutdown()


def test_own_task_runner_runs_the_logic(runtime: Runtime) -> None:
    threads: list[str] = []

    def logic(routine: Routine, slot_data: Any, message: Any, state: Any) -> None:
        threads.append(threading.current_thread().name)
        routine.emit("output", **slot_data["input"][0])

    flow = chain(part(logic))
    worker = runtime.exec(flow)
    runner = OwnRunner()
    runtime.set_runner(worker, "a", runner)
    assert [o.data for o in runtime.post(flow, "a", "input", {"n": 1}).job_context.result(SECONDS)] == [
        {"n": 1}
    ]
    runtime.set_runner(worker, "a", None)
    runtime.post(flow, "a", "input", {}).job_context.result(SECONDS)
    runner.close()
    assert threads[0].startswith("own")
    assert not threads[1].startswith("own")


def test_store_keeps_a_paused_worker() -> None:
    store, seen = MemoryStore(), list[Any]()
    flow = chain(part(keeps(seen)))
    with Runtime(thread_pool_size=1, store=store) as runtime:
        worker = runtime.exec(flow, worker_id="w")
        worker.shared_data["k"] = 1
        runtime.pause(worker)
        runtime.post(flow, "a", "input", {"n": 1})
        assert [row.status for row in store.workers()] == ["paused"]
        runtime.shutdown(wait=False)
    assert seen == []
    with Runtime(thread_pool_size=1, store=store) as runtime:
        worker = runtime.exec(flow, worker_id="w")
        if worker.status == "paused":
            runtime.resume(worker)
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        assert (seen, worker.shared_data) == ([{"n": 1}], {"k": 1})


# -- context and state -------------------------------------------------------------------------------------


def test_current_gives_what_runs_and_nothing_outside(runtime: Runtime) -> None:
    seen: list[Any] = []

    def logic(routine: Routine, slot_data: Any, message: Any, state: Any) -> None:
        here = current()
        here.progress(1, 2)
        here.check()
        keys = {here.idempotency_key("x"), here.idempotency_key("x"), here.idempotency_key("y")}
        seen.append((here.job, here.state, here.routine_id, here.attempt, here.cancelled, len(keys)))

    flow = chain(part(logic))
    worker = runtime.exec(flow)
    job = runtime.post(flow, "a", "input", {}).job_context
    job.result(SECONDS)
    assert seen == [(job, worker, "a", 1, False, 2)]
    assert job.progress == (1, 2)
    assert get_current_job() is None
    with pytest.raises(StateError):
        current()


def test_200_workers_of_one_flow_do_not_share_state(runtime: Runtime) -> None:
    def counts(routine: Routine, slot_data: Any, message: Any, state: Any) -> None:
        n = state.get_routine_state("a", {"n": 0})["n"] + slot_data["input"][0]["n"]
        state.update_routine_state("a", {"n": n})
        state.shared_data["n"] = n
        state.shared_log.append(n)

    flow = chain(part(counts))
    workers = [runtime.exec(flow) for _ in range(200)]
    for number, worker in enumerate(workers):
        for _ in range(2):
            runtime.post(flow, "a", "input", {"n": number}, worker_id=worker.worker_id)
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    for number, worker in enumerate(workers):
        assert worker.get_routine_state("a") == {"n": 2 * number}
        assert worker.shared_data == {"n": 2 * number}
        assert worker.shared_log == [number, 2 * number]
        worker.get_routine_state("a")["n"] = -1
        assert worker.get_routine_state("a") == {"n": 2 * number}


# -- policies ----------------------------------------------------------------------------------------------


def test_time_interval_takes_the_first_at_once_and_the_rest_at_the_end_of_the_interval() -> None:
    seen: list[Any] = []
    with simulated(0) as runtime:
        flow = chain(
            part(
                lambda r, d, m, s: seen.append((round(runtime.now), len(d["input"]))),
                policy=time_interval_policy(10),
            )
        )
        runtime.exec(flow)
        runtime.post(flow, "a", "input", {})
        runtime.run(1)
        jobs = [runtime.post(flow, "a", "input", {}).job_context for _ in range(3)]
        runtime.run()
        assert [job.status for job in jobs] == ["completed"] * 3
    assert seen == [(0, 1), (10, 3)]


def test_custom_policy_hands_its_message_to_the_logic_and_takes_what_it_consumed(runtime: Runtime) -> None:
    seen: list[Any] = []

    def pairs(slots: Any, state: Any) -> Any:
        view = slots["input"]
        if view.get_unconsumed_count() < 2:
            view.consume_all_new()
            return False, None, "not yet"
        return True, {"input": [view.consume_one_new(), view.consume_one_new()]}, "two"

    flow = chain(part(lambda r, d, m, s: seen.append((m, d["input"])), policy=custom_policy(pairs)))
    runtime.exec(flow)
    for n in range(5):
        runtime.post(flow, "a", "input", {"n": n})
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    assert seen == [("two", [{"n": 0}, {"n": 1}]), ("two", [{"n": 2}, {"n": 3}])]


def test_one_shot_worker_ends_with_its_job(runtime: Runtime) -> None:
    flow = chain(part(ends_here))
    state = runtime.exec(flow, entry_params={}, metadata={"k": 1})
    assert state.wait(SECONDS)
    assert (state.status, state.job.metadata, runtime.list_workers()) == ("completed", {"k": 1}, [])
