"""What the contract says of jobs: posting, joining, completion, failure and its strategies, dead letters, limits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import numpy
import pytest

from routilux import ErrorHandler, Flow, Posted, Routine, Runtime, SlotHandlerError, StateError
from routilux.activation_policies import all_slots_ready_policy, batch_size_policy
from routilux.errors import (
    ExecutionTimeoutError,
    IdempotencyConflictError,
    JobCancelledError,
    QueueFullError,
    WorkerNotRunningError,
)
from tests.acceptance.contract_parts import Stop, chain, ends_here, keeps, part, passes_on, stops_at
from tests.waiting import SECONDS, eventually


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    runtime = Runtime(thread_pool_size=2)
    yield runtime
    assert runtime.shutdown(wait=False, timeout=SECONDS)


def fails_on(*numbers: int) -> Any:
    """Passes on what is not one of these."""

    def logic(routine: Routine, slot_data: Any, message: Any, state: Any) -> None:
        for payload in slot_data["input"]:
            if payload["n"] in numbers:
                raise LookupError(f"no {payload['n']}")
        passes_on(routine, slot_data, message, state)

    return logic


def fails_while(broken: list[bool]) -> Any:
    def logic(routine: Routine, slot_data: Any, message: Any, state: Any) -> None:
        if broken:
            raise LookupError

    return logic


def emits(*numbers: int) -> Any:
    def logic(routine: Routine, slot_data: Any, message: Any, state: Any) -> None:
        for n in numbers:
            routine.emit("output", n=n)

    return logic


# -- posting -----------------------------------------------------------------------------------------------


def test_posted_can_be_unpacked_and_be_used_as_the_job(runtime: Runtime) -> None:
    flow = chain(part())
    worker = runtime.exec(flow)
    posted = runtime.post(flow, "a", "input", {"n": 1})
    assert isinstance(posted, Posted)
    state, job = posted
    assert state is worker
    job.result(SECONDS)
    assert (posted.job_id, posted.status) == (job.job_id, "completed")
    assert posted.worker_state is state
    assert posted.job_context is job


def test_post_without_a_worker_says_to_call_exec_first(runtime: Runtime) -> None:
    with pytest.raises(StateError, match=r"runtime\.exec\(flow\) first"):
        runtime.post(chain(part()), "a", "input", {})


def test_post_with_several_workers_needs_worker_id_and_lists_them(runtime: Runtime) -> None:
    flow = chain(part())
    for worker_id in ("one", "two"):
        runtime.exec(flow, worker_id=worker_id)
    with pytest.raises(StateError, match=r"one, two.*worker_id="):
        runtime.post(flow, "a", "input", {})
    assert runtime.post(flow, "a", "input", {}, worker_id="two").worker_state.worker_id == "two"


def test_post_with_the_id_of_an_open_job_joins_it(runtime: Runtime) -> None:
    stop, seen = Stop(), list[Any]()
    flow = chain(part(stops_at(stop)), part(keeps(seen)))
    runtime.exec(flow)
    first = runtime.post(flow, "a", "input", {"n": 1}, job_id="mine", metadata={"k": 1}).job_context
    stop.wait()
    second = runtime.post(flow, "a", "input", {"n": 2}, job_id="mine").job_context
    assert second is first
    assert (first.job_id, first.metadata, len(runtime.list_jobs())) == ("mine", {"k": 1}, 1)
    stop.open.set()
    first.result(SECONDS)
    assert seen == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_post_with_the_id_of_a_job_that_failed_or_was_cancelled_is_refused(
    end: str, runtime: Runtime
) -> None:
    flow = chain(part(fails_on(1)))
    worker = runtime.exec(flow)
    runtime.pause(worker)
    job = runtime.post(flow, "a", "input", {"n": 1}, job_id="mine").job_context
    if end == "cancelled":
        runtime.cancel(job)
    runtime.resume(worker)
    assert job.wait(SECONDS)
    with pytest.raises(StateError, match=f"mine.*{end}"):
        runtime.post(flow, "a", "input", {"n": 2}, job_id="mine")
    assert runtime.list_jobs() == [job]


def test_the_same_idempotency_key_gives_the_first_job_again(runtime: Runtime) -> None:
    seen: list[Any] = []
    flow = chain(part(keeps(seen)))
    runtime.exec(flow)
    posted = [runtime.post(flow, "a", "input", {"n": 1}, idempotency_key="k") for _ in range(3)]
    posted[0].job_context.result(SECONDS)
    posted.append(runtime.post(flow, "a", "input", {"n": 1}, idempotency_key="k"))
    other = runtime.post(flow, "a", "input", {"n": 1}, idempotency_key="other")
    other.job_context.result(SECONDS)
    assert {p.job_id for p in posted} == {posted[0].job_id}
    assert other.job_id != posted[0].job_id
    assert seen == [{"n": 1}, {"n": 1}]
    with pytest.raises(IdempotencyConflictError):
        runtime.post(flow, "a", "input", {"n": 2}, idempotency_key="k")


def test_post_copies_the_data(runtime: Runtime) -> None:
    seen: list[Any] = []
    flow = chain(part(keeps(seen)))
    worker = runtime.exec(flow)
    runtime.pause(worker)
    data = {"n": 1}
    job = runtime.post(flow, "a", "input", data).job_context
    data["n"] = 2
    runtime.resume(worker)
    job.result(SECONDS)
    assert seen == [{"n": 1}]


def test_post_to_a_full_slot_waits_up_to_its_time_out(runtime: Runtime) -> None:
    stop = Stop()
    flow = chain(part(stops_at(stop), max_queue_length=1))
    runtime.exec(flow)
    runtime.post(flow, "a", "input", {})
    stop.wait()
    runtime.post(flow, "a", "input", {})
    with pytest.raises(QueueFullError, match=r"a\.input"):
        runtime.post(flow, "a", "input", {}, timeout=0.01)
    assert len(runtime.list_jobs()) == 2
    stop.open.set()
    assert runtime.post(flow, "a", "input", {}, timeout=SECONDS).job_context.wait(SECONDS)


def test_post_to_a_slot_full_of_parked_items_raises_at_once(runtime: Runtime) -> None:
    flow = chain(
        part(ends_here, slots=("left", "right"), policy=all_slots_ready_policy(), max_queue_length=2)
    )
    runtime.exec(flow)
    for _ in range(2):
        assert runtime.post(flow, "a", "left", {}).job_context.wait(SECONDS)
    with pytest.raises(QueueFullError, match="could make room"):
        runtime.post(flow, "a", "left", {})
    assert runtime.post(flow, "a", "right", {}).job_context.wait(SECONDS)
    assert runtime.post(flow, "a", "left", {}, timeout=SECONDS)


def test_post_with_a_time_out_waits_for_the_partners_that_another_caller_may_post(runtime: Runtime) -> None:
    flow = chain(
        part(ends_here, slots=("left", "right"), policy=all_slots_ready_policy(), max_queue_length=1)
    )
    runtime.exec(flow)
    assert runtime.post(flow, "a", "left", {}).job_context.wait(SECONDS)
    with pytest.raises(
        QueueFullError, match=r"could make room .*partners in a\.right never came.* Post what its items"
    ):
        runtime.post(flow, "a", "left", {}, timeout=0.01)
    posted: list[Posted] = []
    posts = threading.Thread(
        target=lambda: posted.append(runtime.post(flow, "a", "left", {}, timeout=SECONDS))
    )
    posts.start()
    eventually(lambda: len(runtime.list_jobs()) == 2)
    assert runtime.post(flow, "a", "right", {}).job_context.wait(SECONDS)
    posts.join(SECONDS)
    assert [one.job_context.wait(SECONDS) for one in posted] == [True]


def test_post_waits_while_max_queue_size_jobs_are_pending_then_raises() -> None:
    with Runtime(thread_pool_size=1, max_queue_size=2) as runtime:
        flow = chain(part())
        worker = runtime.exec(flow)
        runtime.pause(worker)
        for _ in range(2):
            runtime.post(flow, "a", "input", {})
        with pytest.raises(QueueFullError, match="max_queue_size=2"):
            runtime.post(flow, "a", "input", {}, timeout=0.01)
        assert [job.status for job in runtime.list_jobs()] == ["pending", "pending"]
        runtime.resume(worker)
        assert runtime.post(flow, "a", "input", {}, timeout=SECONDS).job_context.wait(SECONDS)


@pytest.mark.parametrize(("on_full", "left"), [("error", [0, 1]), ("drop_new", [0, 1]), ("drop_old", [2, 3])])
def test_full_slot_drops_nothing_silently(on_full: str, left: list[int], runtime: Runtime) -> None:
    seen: list[Any] = []
    flow = chain(part(keeps(seen), max_queue_length=2, on_full=on_full))
    worker = runtime.exec(flow)
    runtime.pause(worker)
    jobs = []
    for n in range(4):
        try:
            jobs.append(runtime.post(flow, "a", "input", {"n": n}).job_context)
        except QueueFullError:
            assert on_full == "error"
    runtime.resume(worker)
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    assert [payload["n"] for payload in seen] == left
    assert flow.routines["a"].stats(worker)["dropped"] == (0 if on_full == "error" else 2)
    dropped = [job for job in jobs if any(entry["action"] == "dropped" for entry in job.trace_log)]
    assert len(dropped) == (0 if on_full == "error" else 2)
    assert len(jobs) == (2 if on_full == "error" else 4)


# -- what a job shows --------------------------------------------------------------------------------------


def test_job_shows_ids_times_data_metadata_and_trace(runtime: Runtime) -> None:
    flow = chain(part())
    worker = runtime.exec(flow)
    job = runtime.post(flow, "a", "input", {"n": 1}, metadata={"user": "u"}).job_context
    assert job.wait(SECONDS) is True
    assert (job.worker_id, job.flow_id, job.metadata) == (worker.worker_id, "chain", {"user": "u"})
    assert job.created_at <= job.started_at <= job.completed_at
    assert job.error is None
    job.set_data("key", 1)
    assert (job.get_data("key"), job.get_data("other", 2), job.data) == (1, 2, {"key": 1})
    job.trace("noted", why="because")
    assert {"action": "noted", "why": "because"}.items() <= job.trace_log[-1].items()


def test_statuses_compare_as_strings(runtime: Runtime) -> None:
    stop = Stop()
    flow = chain(part(stops_at(stop)))
    worker = runtime.exec(flow)
    assert worker.status == "running"
    running = runtime.post(flow, "a", "input", {}).job_context
    stop.wait()
    pending = runtime.post(flow, "a", "input", {}).job_context
    assert (running.status, pending.status) == ("running", "pending")
    assert f"{running.status}" == "running"
    runtime.cancel(pending)
    stop.open.set()
    assert running.wait(SECONDS)
    assert (running.status, pending.status) == ("completed", "cancelled")
    assert runtime.stop(worker, timeout=SECONDS)
    assert worker.status == "stopped"


def test_wait_returns_false_and_result_raises_when_the_time_is_over(runtime: Runtime) -> None:
    stop = Stop()
    flow = chain(part(stops_at(stop)))
    runtime.exec(flow)
    job = runtime.post(flow, "a", "input", {}).job_context
    stop.wait()
    assert job.wait(0.001) is False
    with pytest.raises(ExecutionTimeoutError, match=job.job_id):
        job.result(0.001)
    stop.open.set()
    assert job.wait(SECONDS) is True


def test_result_raises_the_failure_of_the_job(runtime: Runtime) -> None:
    flow = chain(part(fails_on(1)))
    runtime.exec(flow)
    job = runtime.post(flow, "a", "input", {"n": 1}).job_context
    with pytest.raises(SlotHandlerError) as caught:
        job.result(SECONDS)
    assert isinstance(caught.value.__cause__, LookupError)
    assert (job.status, job.error) == ("failed", caught.value)


def test_result_of_a_cancelled_job_raises(runtime: Runtime) -> None:
    flow = chain(part())
    worker = runtime.exec(flow)
    runtime.pause(worker)
    job = runtime.post(flow, "a", "input", {}).job_context
    runtime.cancel(job)
    with pytest.raises(JobCancelledError):
        job.result(SECONDS)


def test_job_can_be_awaited(runtime: Runtime) -> None:
    flow = chain(part(fails_on(2)))
    runtime.exec(flow)

    async def main() -> None:
        good = (await runtime.apost(flow, "a", "input", {"n": 1})).job_context
        assert [output.data for output in await good] == [{"n": 1}]
        bad = (await runtime.apost(flow, "a", "input", {"n": 2})).job_context
        with pytest.raises(SlotHandlerError):
            await bad
        assert await asyncio.wait_for(good, SECONDS) == good.outputs

    asyncio.run(main())


# -- completion --------------------------------------------------------------------------------------------


def joining(logic: Any = passes_on) -> Flow:
    return chain(part(logic, slots=("left", "right"), policy=all_slots_ready_policy()))


def test_parked_items_do_not_hold_a_job_open_and_are_counted(runtime: Runtime) -> None:
    flow = joining()
    runtime.exec(flow)
    job = runtime.post(flow, "a", "left", {}, job_id="mine").job_context
    assert job.wait(SECONDS)
    assert (job.status, job.parked) == ("completed", 1)
    other = runtime.post(flow, "a", "right", {}).job_context
    assert other.wait(SECONDS)
    assert (job.parked, other.parked) == (0, 0)


def test_activation_that_a_later_item_releases_belongs_to_all_the_jobs_and_so_does_what_it_emits(
    runtime: Runtime,
) -> None:
    flow = chain(
        part(slots=("left", "right"), policy=all_slots_ready_policy()),
        part(lambda r, d, m, s: r.emit("output", end=True)),
    )
    worker = runtime.exec(flow)
    first = runtime.post(flow, "a", "left", {}).job_context
    assert first.wait(SECONDS)
    second = runtime.post(flow, "a", "right", {}).job_context
    assert second.wait(SECONDS)
    assert {record.job_ids for record in worker.execution_history} == {(first.job_id, second.job_id)}
    assert [output.data for output in first.outputs] == [{"end": True}] * 2
    assert [output.data for output in second.outputs] == [{"end": True}] * 2


def test_failure_of_a_released_activation_counts_for_those_that_are_still_open(runtime: Runtime) -> None:
    def fails(routine: Routine, slot_data: Any, message: Any, state: Any) -> None:
        raise LookupError

    flow = joining(fails)
    runtime.exec(flow)
    closed = runtime.post(flow, "a", "left", {}).job_context
    assert closed.wait(SECONDS)
    still_open = runtime.post(flow, "a", "right", {}).job_context
    assert still_open.wait(SECONDS)
    assert (closed.status, still_open.status) == ("completed", "failed")
    assert closed.error is None
    assert runtime.wait_until_all_jobs_finished(SECONDS)


def test_job_is_not_completed_while_an_item_waits_for_a_retry(runtime: Runtime) -> None:
    flow = chain(part(fails_on(1)).set_error_handler(ErrorHandler("retry", retry_delay=3_600)))
    worker = runtime.exec(flow)
    job = runtime.post(flow, "a", "input", {"n": 1}).job_context
    eventually(
        lambda: [entry for entry in job.trace_log if entry["action"] == "retry"],
        "the first attempt has failed",
    )
    assert job.wait(0.05) is False
    assert (job.status, job.parked) == ("running", 0)
    runtime.cancel(job)
    assert job.wait(SECONDS)
    assert worker.status == "running"


def test_partial_batch_is_released_on_drain_and_belongs_to_its_jobs(runtime: Runtime) -> None:
    sizes: list[int] = []
    flow = chain(part(lambda r, d, m, s: sizes.append(len(d["input"])), policy=batch_size_policy(4)))
    runtime.exec(flow)
    jobs = [runtime.post(flow, "a", "input", {}).job_context for _ in range(6)]
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    assert sizes == [4, 2]
    assert [job.parked for job in jobs] == [0] * 6


# -- error strategies --------------------------------------------------------------------------------------


def run_with(runtime: Runtime, handler: ErrorHandler | None, *, own: bool = True) -> tuple[Any, Any, Any]:
    """``a`` emits 1, 2, 3; ``b`` fails on 2; another job goes on."""
    flow = chain(part(emits(1, 2, 3)), part(fails_on(2)), flow=Flow("chain", execution_strategy="sequential"))
    if own:
        flow.routines["b"].set_error_handler(handler)
    else:
        flow.set_error_handler(handler)
    worker = runtime.exec(flow)
    job = runtime.post(flow, "a", "input", {}).job_context
    assert job.wait(SECONDS)
    other = runtime.post(flow, "b", "input", {"n": 7}).job_context
    assert [output.data for output in other.result(SECONDS)] == [{"n": 7}]
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    return worker, job, [record.status for record in worker.execution_history if record.routine_id == "b"]


@pytest.mark.parametrize(
    "handler", [None, ErrorHandler(), ErrorHandler("stop")], ids=["none", "default", "stop"]
)
def test_stop_fails_the_job_at_once_and_sets_its_queued_items_aside(
    handler: ErrorHandler | None, runtime: Runtime
) -> None:
    worker, job, statuses = run_with(runtime, handler)
    assert (job.status, worker.status) == ("failed", "running")
    assert [output.data for output in job.outputs] == [{"n": 1}]
    assert statuses == ["completed", "failed", "completed"]
    letters = runtime.dead_letters(job=job)
    assert [(letter.routine_id, letter.slot, letter.data) for letter in letters] == [
        ("b", "input", {"n": 2}),
        ("b", "input", {"n": 3}),
    ]
    assert "no 2" in letters[0].error


def test_continue_records_the_error_and_the_job_goes_on(runtime: Runtime) -> None:
    _, job, statuses = run_with(runtime, ErrorHandler("continue"))
    assert (job.status, job.error) == ("completed", None)
    assert [output.data for output in job.outputs] == [{"n": 1}, {"n": 3}]
    assert statuses == ["completed", "failed", "completed", "completed"]
    assert [str(error.__cause__) for error in job.errors] == ["no 2"]
    assert [letter.data for letter in runtime.dead_letters(job=job.job_id)] == [{"n": 2}]


def test_skip_records_the_activation_as_skipped_and_its_error(runtime: Runtime) -> None:
    worker, job, statuses = run_with(runtime, ErrorHandler("skip"))
    assert (job.status, job.error) == ("completed", None)
    assert [str(error.__cause__) for error in job.errors] == ["no 2"]
    assert [output.data for output in job.outputs] == [{"n": 1}, {"n": 3}]
    assert statuses == ["completed", "skipped", "completed", "completed"]
    assert [letter.reason for letter in runtime.dead_letters(worker=worker)] == ["skipped"]


@pytest.mark.parametrize(
    ("on_exhausted", "status", "outputs"),
    [("stop", "failed", [1]), ("continue", "completed", [1, 3]), ("skip", "completed", [1, 3])],
)
def test_retry_runs_again_and_then_does_what_on_exhausted_says(
    on_exhausted: str, status: str, outputs: list[int], runtime: Runtime
) -> None:
    handler = ErrorHandler("retry", max_retries=2, retry_delay=0.001, on_exhausted=on_exhausted)
    worker, job, statuses = run_with(runtime, handler)
    assert job.status == status
    assert [output.data["n"] for output in job.outputs] == outputs
    last = "skipped" if on_exhausted == "skip" else "failed"
    assert statuses[:4] == ["completed", "retried", "retried", last]
    attempts = [r.attempt for r in worker.execution_history if r.routine_id == "b"]
    assert attempts[1:4] == [1, 2, 3]
    assert len(job.errors) == (on_exhausted != "stop")


def test_exception_that_is_not_retryable_is_not_retried(runtime: Runtime) -> None:
    handler = ErrorHandler("retry", retryable_exceptions=(OSError,), on_exhausted="continue")
    _, job, statuses = run_with(runtime, handler)
    assert job.status == "completed"
    assert "retried" not in statuses


def test_later_items_of_a_routine_keep_their_order_behind_a_retry(runtime: Runtime) -> None:
    seen: list[int] = []
    failures = [LookupError(), LookupError()]

    def fails_twice(routine: Routine, slot_data: Any, message: Any, state: Any) -> None:
        n = slot_data["input"][0]["n"]
        if n == 1 and failures:
            raise failures.pop()
        seen.append(n)

    handler = ErrorHandler("retry", retry_delay=0.01)
    flow = chain(part(fails_twice).set_error_handler(handler), part(keeps([])))
    runtime.exec(flow)
    for n in range(5):
        runtime.post(flow, "a", "input", {"n": n})
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    assert seen == [0, 1, 2, 3, 4]


def test_no_thread_waits_for_a_retry() -> None:
    with Runtime(thread_pool_size=1) as runtime:
        flow = chain(part(fails_on(1)).set_error_handler(ErrorHandler("retry", retry_delay=3_600)))
        flow.add_routine(part(), "free")
        runtime.exec(flow)
        job = runtime.post(flow, "a", "input", {"n": 1}).job_context
        runtime.post(flow, "free", "input", {}).job_context.result(SECONDS)
        runtime.cancel(job)


def test_handler_of_the_flow_holds_for_routines_without_one_of_their_own(runtime: Runtime) -> None:
    _, job, statuses = run_with(runtime, ErrorHandler("skip"), own=False)
    assert (job.status, statuses[1]) == ("completed", "skipped")


# -- dead letters ------------------------------------------------------------------------------------------


def test_redrive_puts_items_back_each_as_a_new_job_that_names_the_old_one(runtime: Runtime) -> None:
    broken, seen = [True], list[Any]()

    def fails_while_broken(routine: Routine, slot_data: Any, message: Any, state: Any) -> None:
        if broken[0]:
            raise LookupError
        seen.extend(slot_data["input"])

    flow = chain(part(fails_while_broken))
    worker = runtime.exec(flow)
    jobs = [runtime.post(flow, "a", "input", {"n": n}).job_context for n in range(2)]
    assert all(job.wait(SECONDS) for job in jobs)
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    letters = runtime.dead_letters(worker=worker.worker_id)
    assert [letter.job_ids for letter in letters] == [(job.job_id,) for job in jobs]
    broken[0] = False
    again = runtime.redrive(*letters)
    for posted in again:
        posted.job_context.result(SECONDS)
    assert seen == [{"n": 0}, {"n": 1}]
    assert [posted.job_context.metadata for posted in again] == [
        {"redriven_from": [job.job_id]} for job in jobs
    ]
    assert runtime.dead_letters() == []
    assert [job.status for job in jobs] == ["failed", "failed"]


def test_redrive_finds_a_letter_whatever_its_payload_does_when_it_is_compared(runtime: Runtime) -> None:
    flow = chain(part(fails_while(broken := [True])))
    runtime.exec(flow)
    for n in range(3):
        runtime.post(flow, "a", "input", {"array": numpy.arange(3), "n": n})
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    broken.clear()
    letters = runtime.dead_letters()
    runtime.redrive(letters[2])[0].job_context.result(SECONDS)
    assert [letter.data["n"] for letter in runtime.dead_letters()] == [0, 1]


def test_redrive_that_is_refused_a_place_keeps_its_letter(runtime: Runtime) -> None:
    flow = chain(part(fails_while(broken := [True]), max_queue_length=1, on_full="error"))
    worker = runtime.exec(flow)
    runtime.post(flow, "a", "input", {"n": 0})
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    letters = runtime.dead_letters()
    runtime.pause(worker)
    runtime.post(flow, "a", "input", {"n": 1})
    with pytest.raises(QueueFullError):
        runtime.redrive(*letters)
    assert runtime.dead_letters() == letters
    broken.clear()
    runtime.resume(worker)
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    runtime.redrive(*letters)[0].job_context.result(SECONDS)
    assert runtime.dead_letters() == []


def test_letter_that_many_threads_drive_again_at_once_is_driven_again_once(runtime: Runtime) -> None:
    flow = chain(part(fails_while(broken := [True])))
    runtime.exec(flow)
    runtime.post(flow, "a", "input", {})
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    broken.clear()
    letters, refused, start = runtime.dead_letters(), list[StateError](), threading.Barrier(8)

    def redrive() -> None:
        start.wait(SECONDS)
        try:
            runtime.redrive(*letters)
        except StateError as error:
            refused.append(error)

    threads = [threading.Thread(target=redrive) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert (len(refused), len(runtime.list_jobs())) == (7, 2)


def test_redrive_of_a_letter_of_a_worker_that_stopped_is_refused_and_keeps_the_letter(
    runtime: Runtime,
) -> None:
    flow = chain(part(fails_on(1)))
    worker = runtime.exec(flow)
    assert runtime.post(flow, "a", "input", {"n": 1}).job_context.wait(SECONDS)
    assert runtime.stop(worker, timeout=SECONDS)
    letters = runtime.dead_letters()
    with pytest.raises(WorkerNotRunningError, match=worker.worker_id):
        runtime.redrive(*letters)
    assert runtime.dead_letters() == letters
    assert len(letters) == 1


# -- limits ------------------------------------------------------------------------------------------------


def test_the_newest_10_000_finished_jobs_are_kept(runtime: Runtime) -> None:
    flow = chain(part(ends_here))
    runtime.exec(flow)
    jobs = [runtime.post(flow, "a", "input", {}).job_context for _ in range(10_500)]
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    assert len(runtime.list_jobs()) == 10_000
    assert runtime.get_job(jobs[0].job_id) is None
    assert runtime.get_job(jobs[-1].job_id) is jobs[-1]


def test_history_is_limited_to_1_000_records_by_default_and_to_what_is_set(runtime: Runtime) -> None:
    flow = chain(part(ends_here))
    worker = runtime.exec(flow)
    assert (worker.max_history_size, worker.history_ttl_seconds) == (1_000, 3_600)
    for _ in range(1_200):
        runtime.post(flow, "a", "input", {})
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    records = worker.execution_history
    assert len(records) == 1_000
    worker.max_history_size = 10
    assert worker.execution_history == records[-10:]
    worker.history_ttl_seconds = 1e-9
    assert worker.execution_history == []


def test_finished_jobs_and_history_are_kept_for_an_hour() -> None:
    from routilux.testing import simulated

    with simulated(0) as runtime:
        flow = chain(part(ends_here))
        worker = runtime.exec(flow)
        old = runtime.post(flow, "a", "input", {}).job_context
        runtime.run()
        assert old.status == "completed"
        runtime.run(3_590)
        assert runtime.get_job(old.job_id) is old
        assert len(worker.execution_history) == 1
        runtime.run(20)
        assert worker.execution_history == []
        new = runtime.post(flow, "a", "input", {}).job_context
        runtime.run()
        assert runtime.get_job(old.job_id) is None
        assert runtime.list_jobs() == [new]
