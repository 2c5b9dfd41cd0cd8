"""The contract of lives and ends: of runtimes, workers, executions, jobs, and what holds when threads meet."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from threading import Barrier, Event, Thread
from time import monotonic
from typing import Any

import pytest

from routilux import (
    ErrorHandler,
    Flow,
    JobContext,
    JobState,
    Routine,
    Runtime,
    SlotHandlerError,
    WorkerState,
    current,
    get_current_job,
    get_current_worker_state,
)
from routilux.activation_policies import batch_size_policy
from routilux.errors import (
    JobCancelledError,
    QueueFullError,
    RoutiluxError,
    RuntimeClosedError,
    StateError,
    WorkerNotRunningError,
)
from routilux.runtime import draining
from routilux.store.memory import MemoryStore
from routilux.testing.simulated import simulated
from tests.acceptance.parts import Held, Step, chain, flow_of, outputs_of, step
from tests.waiting import SECONDS, eventually


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    with Runtime(thread_pool_size=2) as runtime:
        yield runtime


def ignore(routine: Routine, payload: Any, state: Any) -> None:
    pass


def fails(routine: Routine, payload: Any, state: Any) -> None:
    raise ValueError("bad")


def post(runtime: Runtime, flow: Flow, data: dict[str, Any] | None = None, **options: Any) -> JobContext:
    return runtime.post(flow, "a", "input", data or {}, **options).job_context


def at_once(threads: int, call: Callable[[int], Any]) -> list[Any]:
    """What each thread got; they begin together."""
    answers: list[Any] = []
    barrier = Barrier(threads)

    def begin(n: int) -> None:
        barrier.wait(SECONDS)
        answers.append(call(n))

    running = [Thread(target=begin, args=(n,)) for n in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(SECONDS)
    return answers


# -- a runtime and its end -----------------------------------------------------------------------------------


def test_pool_has_one_thread_for_each_core_if_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, threads in ((7, 7), (None, 1)):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        with Runtime() as runtime:
            assert (runtime.thread_pool_size, runtime.max_queue_size) == (threads, 1000)


def test_leaving_the_block_drains_partial_batches_included() -> None:
    sizes: list[int] = []
    routine = Step().set_activation_policy(batch_size_policy(10))
    routine.set_logic(lambda slot_data, message, state: sizes.append(len(slot_data["input"])))
    flow = flow_of(routine)
    with Runtime(thread_pool_size=1) as runtime:
        worker = runtime.exec(flow)
        jobs = [post(runtime, flow) for _ in range(13)]
    assert sizes == [10, 3]
    assert [job.status for job in jobs] == ["completed"] * 13
    assert worker.status == "stopped"


def test_leaving_an_async_block_drains_without_blocking_the_loop() -> None:
    async def logic(routine: Routine, payload: Any, state: Any) -> None:
        await asyncio.sleep(0)
        routine.emit("output", **payload)

    async def main() -> JobContext:
        flow = flow_of(step(logic))
        async with Runtime(thread_pool_size=1) as runtime:
            runtime.exec(flow)
            return (await runtime.apost(flow, "a", "input", {"n": 1})).job_context

    assert outputs_of(asyncio.run(main())) == [{"n": 1}]


def test_shutdown_says_whether_everything_ended_in_time_and_may_be_called_again() -> None:
    held = Held()
    flow = flow_of(step(held))
    runtime = Runtime(thread_pool_size=1)
    runtime.exec(flow)
    job = post(runtime, flow)
    assert held.entered.wait(SECONDS)
    assert runtime.shutdown(timeout=0.01) is False
    assert job.status == "cancelled"
    held.let_go.set()
    with Runtime(thread_pool_size=1) as other:
        other.exec(flow)
    assert [other.shutdown(), other.shutdown(), other.shutdown(wait=False)] == [True] * 3


def test_nothing_is_accepted_while_a_runtime_shuts_down() -> None:
    held = Held()
    flow = flow_of(step(held))
    runtime = Runtime(thread_pool_size=1)
    runtime.exec(flow)
    job = post(runtime, flow, {"n": 1})
    assert held.entered.wait(SECONDS)
    answers: list[bool] = []
    thread = Thread(target=lambda: answers.append(runtime.shutdown()))
    thread.start()
    refused: list[StateError] = []
    deadline = monotonic() + SECONDS
    while not refused and monotonic() < deadline:
        try:
            post(runtime, flow, {"n": 2}, timeout=0)
        except RuntimeClosedError as error:
            refused.append(error)
        except QueueFullError:
            continue  # it has not begun yet, and this loop is quick
    assert "is shutting down" in str(refused[0])
    held.let_go.set()
    thread.join(SECONDS)
    assert (answers, job.status) == ([True], "completed")


def test_two_runtimes_in_one_process_share_nothing() -> None:
    flow = flow_of(Step())
    with Runtime(thread_pool_size=1) as one, Runtime(thread_pool_size=1) as other:
        one.exec(flow, worker_id="w")
        other.exec(flow, worker_id="w")
        assert post(one, flow, {"n": 1}, job_id="same").wait(SECONDS)
        assert other.get_job("same") is None
        assert post(other, flow, {"n": 2}, job_id="same").result(SECONDS)[0].data == {"n": 2}


def test_stop_that_takes_too_long_stops_all_the_same(runtime: Runtime) -> None:
    held = Held()
    flow = flow_of(step(held))
    worker = runtime.exec(flow)
    job = post(runtime, flow)
    assert held.entered.wait(SECONDS)
    assert runtime.stop(worker, timeout=0.01) is False
    assert (worker.status, job.status) == ("stopped", "cancelled")
    held.let_go.set()


@pytest.mark.parametrize("ends", ["stop", "shutdown"])
def test_end_of_a_paused_worker_does_not_wait_for_what_cannot_move(ends: str) -> None:
    flow = flow_of(Step())
    runtime = Runtime(thread_pool_size=1)
    worker = runtime.exec(flow)
    runtime.pause(worker)
    job = post(runtime, flow)
    if ends == "stop":
        assert runtime.stop(worker, timeout=SECONDS) is False
    assert runtime.shutdown(timeout=SECONDS) is (ends == "stop")
    assert (worker.status, job.status) == ("stopped", "cancelled")


def test_shutdown_in_a_routine_is_false_and_tells_of_its_own_job_together_with_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    posted, answers = Event(), []

    def logic(routine: Any, payload: Any, state: Any) -> None:
        assert posted.wait(SECONDS)
        answers.extend([runtime.shutdown(), runtime.shutdown()])

    flow = flow_of(step(logic))
    runtime = Runtime(thread_pool_size=1)
    runtime.exec(flow)
    jobs = [post(runtime, flow) for _ in range(3)]
    posted.set()
    assert all(job.wait(SECONDS) for job in jobs)
    assert runtime.shutdown(timeout=SECONDS) is True  # it waits for the routine
    assert (answers, {job.status.value for job in jobs}) == ([False, False], {"cancelled"})
    assert "with work left: 3 open jobs cancelled (running: a 1; queued: a.input 2)" in caplog.text


def test_shutdown_of_another_runtime_in_a_routine_is_true_if_nothing_is_left_in_it(runtime: Runtime) -> None:
    answers = []

    def logic(routine: Any, payload: Any, state: Any) -> None:
        for pauses in (False, True):
            other, idle = Runtime(thread_pool_size=1), flow_of(Step(), flow_id="idle")
            worker = other.exec(idle)
            if pauses:
                other.pause(worker)
                post(other, idle)
            answers.append(other.shutdown())

    flow = flow_of(step(logic))
    runtime.exec(flow)
    assert post(runtime, flow).result(SECONDS) == []
    assert answers == [True, False]


# -- executions and workers ----------------------------------------------------------------------------------


def test_exec_returns_before_the_execution_has_ended(runtime: Runtime) -> None:
    held = Held()
    state = runtime.exec(flow_of(step(held)), entry_params={"n": 1})
    assert isinstance(state, JobState)
    assert held.entered.wait(SECONDS)
    assert (state.status, state.outputs, state.error) == ("running", [], None)
    held.let_go.set()
    assert state.wait(SECONDS)
    assert (state.status, outputs_of(state)) == ("completed", [{"n": 1}])
    assert runtime.get_job(state.job_id).worker_id == state.worker_id


def test_executions_of_one_flow_are_isolated_from_each_other(runtime: Runtime) -> None:
    def counts(routine: Routine, payload: Any, state: WorkerState) -> None:
        seen = state.get_routine_state("a", {}).get("seen", 0) + 1
        state.update_routine_state("a", {"seen": seen})
        state.shared_data["n"] = payload["n"]
        routine.emit("output", seen=seen)

    flow = flow_of(step(counts))
    states = [runtime.exec(flow, entry_params={"n": n}) for n in range(50)]
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    assert [outputs_of(state) for state in states] == [[{"seen": 1}]] * 50
    assert [state.shared_data["n"] for state in states] == list(range(50))
    assert (runtime.list_workers(), flow.in_use) == ([], 0)
    with pytest.raises(WorkerNotRunningError):
        post(runtime, flow, worker_id=states[0].worker_id)


def test_entry_and_metadata_and_worker_id_can_be_given(runtime: Runtime) -> None:
    flow = chain(Step(), Step())
    state = runtime.exec(flow, entry="b.input", entry_params={"n": 1}, worker_id="mine", metadata={"k": "v"})
    assert state.wait(SECONDS)
    assert [record.routine_id for record in state.execution_history] == ["b"]
    assert (state.worker_id, runtime.get_job(state.job_id).metadata) == ("mine", {"k": "v"})


def test_of_several_workers_one_is_chosen_by_its_id(runtime: Runtime) -> None:
    flow = flow_of(Step())
    workers = [runtime.exec(flow, worker_id=f"w{n}") for n in range(3)]
    for n, worker in enumerate(workers):
        assert runtime.post(flow, "a", "input", {"n": n}, worker_id=worker.worker_id).worker_state is worker
    runtime.stop(workers[0])
    runtime.stop(workers[2])
    assert runtime.post("flow", "a", "input", {}).worker_state is workers[1]


# -- posts of many threads -------------------------------------------------------------------------------------


def test_threads_that_post_one_new_job_id_at_once_make_one_job() -> None:
    flow = flow_of(Step())
    with Runtime(thread_pool_size=2) as runtime:
        runtime.exec(flow)
        for attempt in range(50):
            jobs = at_once(
                8, lambda n, attempt=attempt: post(runtime, flow, {"n": n}, job_id=f"job {attempt}")
            )
            assert len(set(map(id, jobs))) == 1
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        assert len(runtime.list_jobs()) == 50
        assert {len(job.outputs) for job in runtime.list_jobs()} == {8}


def test_threads_that_post_one_key_at_once_make_one_job() -> None:
    flow = flow_of(Step())
    with Runtime(thread_pool_size=2) as runtime:
        worker = runtime.exec(flow)
        for attempt in range(50):
            jobs = at_once(8, lambda _, attempt=attempt: post(runtime, flow, idempotency_key=str(attempt)))
            assert len(set(map(id, jobs))) == 1
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        assert len(worker.execution_history) == 50


def test_key_of_a_refused_post_is_free_again(runtime: Runtime) -> None:
    flow = flow_of(step(ignore, max_queue_length=1, on_full="error"))
    worker = runtime.exec(flow)
    runtime.pause(worker)
    post(runtime, flow)
    with pytest.raises(QueueFullError):
        post(runtime, flow, {"n": 1}, idempotency_key="k")
    runtime.resume(worker)
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    assert post(runtime, flow, {"n": 2}, idempotency_key="k").wait(SECONDS)


def test_posts_of_one_thread_to_one_slot_keep_their_order(runtime: Runtime) -> None:
    order: list[tuple[int, int]] = []
    flow = flow_of(step(lambda routine, payload, state: order.append((payload["by"], payload["n"]))))
    runtime.exec(flow)
    at_once(4, lambda by: [post(runtime, flow, {"by": by, "n": n}) for n in range(200)])
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    for by in range(4):
        assert [n for one, n in order if one == by] == list(range(200))


DROPS = {
    "drop_new": [{"n": 0}, {"n": 1}, {"n": 2}],
    "drop_old": [{"n": 0}, {"n": 8}, {"n": 9}],
}


@pytest.mark.parametrize("on_full", DROPS)
def test_every_drop_of_a_full_slot_is_counted_and_traced(on_full: str, runtime: Runtime) -> None:
    held = Held()
    flow = flow_of(step(held, max_queue_length=2, on_full=on_full))
    worker = runtime.exec(flow)
    jobs = [post(runtime, flow, {"n": 0})]
    assert held.entered.wait(SECONDS)
    jobs += [post(runtime, flow, {"n": n}) for n in range(1, 10)]
    held.let_go.set()
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    assert [output for job in jobs for output in outputs_of(job)] == DROPS[on_full]
    assert flow.routines["a"].stats(worker)["dropped"] == 7
    traced = [entry for job in jobs for entry in job.trace_log if entry["action"] == "dropped"]
    assert [entry["slot"] for entry in traced] == ["a.input"] * 7
    assert [job.status for job in jobs] == ["completed"] * 10


# -- awaiting ----------------------------------------------------------------------------------------------------


def test_awaiting_a_job_raises_its_failure_or_its_cancellation_and_can_time_out(runtime: Runtime) -> None:
    async def main() -> None:
        with pytest.raises(SlotHandlerError):
            await post(runtime, bad)
        job = post(runtime, held_flow)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await job
        runtime.cancel(job)
        with pytest.raises(JobCancelledError):
            await job

    held = Held()
    bad, held_flow = flow_of(step(fails), flow_id="bad"), flow_of(step(held), flow_id="held")
    runtime.exec(bad)
    runtime.exec(held_flow)
    asyncio.run(main())
    held.let_go.set()


def test_routine_that_awaits_its_own_job_is_told_that_it_never_ends(runtime: Runtime) -> None:
    async def waits(routine: Routine, payload: Any, state: Any) -> None:
        await get_current_job()

    flow = flow_of(step(waits))
    runtime.exec(flow)
    job = post(runtime, flow)
    assert job.wait(SECONDS)
    assert "awaits the end of its own job" in str(job.error)


def test_async_routine_may_await_the_job_that_it_posted_elsewhere(runtime: Runtime) -> None:
    other = flow_of(Step(), flow_id="other")

    async def asks(routine: Routine, payload: Any, state: Any) -> None:
        outputs = await (await runtime.apost(other, "a", "input", payload)).job_context
        routine.emit("output", got=outputs[0].data)

    flow = flow_of(step(asks))
    runtime.exec(other)
    runtime.exec(flow)
    assert post(runtime, flow, {"n": 1}).result(SECONDS)[0].data == {"got": {"n": 1}}


def test_async_twins_do_not_block_the_loop_while_they_wait(runtime: Runtime) -> None:
    held = Held()
    flow = flow_of(step(held, max_queue_length=1))

    async def main() -> list[Any]:
        runtime.exec(flow)
        first = await runtime.apost(flow, "a", "input", {"n": 1})
        await asyncio.to_thread(held.entered.wait, SECONDS)
        second = await runtime.apost(flow, "a", "input", {"n": 2})
        third = asyncio.ensure_future(runtime.apost(flow, "a", "input", {"n": 3}))
        joined = asyncio.ensure_future(runtime.ajoin(SECONDS))
        for _ in range(10):
            await asyncio.sleep(0)  # the loop goes on although both wait
        assert not third.done()
        assert not joined.done()
        held.let_go.set()
        jobs = [first.job_context, second.job_context, (await third).job_context]
        assert await joined
        return [output for job in jobs for output in outputs_of(job)]

    assert asyncio.run(main()) == [{"n": 1}, {"n": 2}, {"n": 3}]


# -- retries and time-outs -----------------------------------------------------------------------------------------


def test_retries_wait_longer_each_time_up_to_the_longest_delay() -> None:
    attempts: list[float] = []

    def logic(routine: Routine, payload: Any, state: Any) -> None:
        attempts.append(runtime.now)
        raise ValueError

    handler = ErrorHandler("retry", max_retries=3, retry_delay=2, retry_backoff=2.0, max_delay=5)
    flow = flow_of(step(logic).set_error_handler(handler))
    with simulated(0) as runtime:
        runtime.exec(flow)
        assert post(runtime, flow).wait()
    assert attempts == [0, 2, 2 + 4, 2 + 4 + 5]


def test_only_retryable_exceptions_are_retried_and_the_rest_is_treated_as_exhausted(runtime: Runtime) -> None:
    attempts: list[int] = []

    def logic(routine: Routine, payload: Any, state: Any) -> None:
        attempts.append(current().attempt)
        raise (KeyError if payload["other"] else OSError)

    handler = ErrorHandler(
        "retry", max_retries=1, retry_delay=0, retryable_exceptions=(OSError,), on_exhausted="skip"
    )
    flow = flow_of(step(logic).set_error_handler(handler))
    runtime.exec(flow)
    for other, expected in ((True, [1]), (False, [1, 2])):
        attempts.clear()
        job = post(runtime, flow, {"other": other})
        assert job.wait(SECONDS)
        assert (attempts, job.status) == (expected, "completed")


def test_time_out_can_be_retried() -> None:
    async def slow_at_first(routine: Routine, payload: Any, state: Any) -> None:
        if current().attempt == 1:
            await asyncio.sleep(1000)
        routine.emit("output", attempt=current().attempt)

    handler = ErrorHandler("retry", max_retries=1, retry_delay=0)
    flow = flow_of(step(slow_at_first).set_timeout(2).set_error_handler(handler))
    with simulated(0) as runtime:
        runtime.exec(flow)
        assert post(runtime, flow).result()[0].data == {"attempt": 2}
        assert runtime.now == 2


# -- the running activation ------------------------------------------------------------------------------------


def test_current_gives_a_logger_that_knows_the_job_and_takes_the_progress(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    same: list[bool] = []

    def logic(routine: Routine, payload: Any, state: Any) -> None:
        here = current()
        here.progress(1, 4)
        here.check()
        here.log.warning("looked at %s", payload)
        same.extend([get_current_job() is here.job, get_current_worker_state() is state])

    flow = flow_of(step(logic))
    worker = runtime.exec(flow)
    with caplog.at_level(logging.WARNING):
        job = post(runtime, flow, {"n": 1})
        assert job.wait(SECONDS)
    assert (same, job.progress) == ([True, True], (1, 4))
    (record,) = (record for record in caplog.records if record.name.startswith("routilux.routine"))
    assert record.getMessage() == "looked at {'n': 1}"
    assert (record.job_id, record.worker_id) == (job.job_id, worker.worker_id)  # type: ignore[attr-defined]


def test_idempotency_key_is_the_same_in_every_attempt_and_different_otherwise(runtime: Runtime) -> None:
    keys: list[str] = []

    def logic(routine: Routine, payload: Any, state: Any) -> None:
        keys.append(current().idempotency_key("mail"))
        keys.append(current().idempotency_key("bill"))
        if current().attempt < 3:
            raise ValueError

    flow = flow_of(step(logic).set_error_handler(ErrorHandler("retry", retry_delay=0)))
    runtime.exec(flow)
    for _ in range(2):
        assert post(runtime, flow).wait(SECONDS)
    assert keys[0:2] == keys[2:4] == keys[4:6]
    assert keys[6:8] == keys[8:10] == keys[10:12]
    assert len(set(keys)) == 4


@pytest.mark.parametrize("asynchronous", [False, True])
def test_cancelled_activation_is_asked_to_stop(asynchronous: bool, runtime: Runtime) -> None:
    entered, seen = Event(), []

    def checks(routine: Routine, payload: Any, state: Any) -> None:
        entered.set()
        try:
            while True:
                current().check()
        except JobCancelledError:
            seen.append(current().cancelled)
            raise

    async def awaits(routine: Routine, payload: Any, state: Any) -> None:
        entered.set()
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            seen.append(current().cancelled)
            raise

    flow = flow_of(step(awaits if asynchronous else checks))
    worker = runtime.exec(flow)
    job = post(runtime, flow)
    assert entered.wait(SECONDS)
    runtime.cancel(job)
    assert job.status == "cancelled"
    assert runtime.stop(worker, timeout=SECONDS)
    assert seen == [True]


@pytest.mark.parametrize("store", [None, MemoryStore])
@pytest.mark.parametrize("call", ["post", "apost", "exec"])
def test_what_logic_posts_while_its_runtime_drains_is_part_of_what_was_accepted(
    store: Any, call: str
) -> None:
    held, seen = Held(), []
    sink = flow_of(step(lambda routine, payload, state: seen.append(payload["n"])), flow_id="sink")

    def send(routine: Routine, payload: Any, state: Any) -> None:
        held(routine, payload, state)
        if call == "exec":
            runtime.exec(sink, entry_params=payload)
        else:
            runtime.post("sink", "a", "input", payload, worker_id="sink")

    async def asend(routine: Routine, payload: Any, state: Any) -> None:
        held.entered.set()
        while not held.let_go.is_set():
            await asyncio.sleep(0.001)
        await runtime.apost("sink", "a", "input", payload)

    source = flow_of(step(asend if call == "apost" else send), flow_id="source")
    with Runtime(thread_pool_size=2, **({} if store is None else {"store": store()})) as runtime:
        worker = runtime.exec(source)
        runtime.exec(sink, worker_id="sink")
        jobs = [post(runtime, source, {"n": n}) for n in range(3)]
        assert held.entered.wait(SECONDS)
        ends = Thread(target=runtime.shutdown)
        ends.start()
        eventually(lambda: refuses(runtime, source))
        held.let_go.set()
        ends.join(SECONDS)
    assert not ends.is_alive()
    assert worker.status == "stopped"
    assert [job.status for job in jobs] == ["completed"] * 3
    assert sorted(seen) == [0, 1, 2]


def test_a_worker_that_is_stopped_takes_what_its_own_logic_posts_while_it_drains(runtime: Runtime) -> None:
    held, seen = Held(), []

    def count_down(routine: Routine, payload: Any, state: Any) -> None:
        held(routine, payload, state)
        seen.append(payload["n"])
        if payload["n"]:
            runtime.post(flow, "a", "input", {"n": payload["n"] - 1})

    flow = flow_of(step(count_down))
    worker = runtime.exec(flow)
    post(runtime, flow, {"n": 3})
    assert held.entered.wait(SECONDS)
    answers: list[bool] = []
    ends = Thread(target=lambda: answers.append(runtime.stop(worker)))
    ends.start()
    eventually(lambda: refuses(runtime, flow))
    held.let_go.set()
    ends.join(SECONDS)
    assert (answers, seen) == ([True], [3, 2, 1, 0])


@pytest.mark.parametrize(
    "ends", [lambda runtime, worker: runtime.shutdown(), Runtime.stop], ids=["shutdown", "stop"]
)
def test_a_drain_that_logic_keeps_going_says_so(
    ends: Callable[[Runtime, WorkerState], bool],
    runtime: Runtime,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(draining, "LONG_SECONDS", 0.01)

    def tick(routine: Routine, payload: Any, state: Any) -> None:
        if "logic goes on posting jobs, now into flow 'f'" not in caplog.text:
            runtime.post(flow, "a", "input", {})

    flow = flow_of(step(tick), flow_id="f")
    worker = runtime.exec(flow)
    post(runtime, flow)
    assert ends(runtime, worker)
    assert "logic goes on posting jobs, now into flow 'f'" in caplog.text


def refuses(runtime: Runtime, flow: Flow) -> bool:
    """Whether nothing is accepted from outside any more."""
    with pytest.raises(RoutiluxError) as refused:
        runtime.post(flow, "nowhere", "input", {})
    return isinstance(refused.value, (RuntimeClosedError, WorkerNotRunningError))
