"""What the manual promises of a runtime with a store, one test or more for each promise, by its number there.

What happens is a function of ``SEED``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from routilux import ErrorHandler, Flow, Routine, current
from routilux.activation_policies import all_slots_ready_policy, batch_size_policy, immediate_policy
from routilux.errors import (
    IdempotencyConflictError,
    JobCancelledError,
    RuntimeClosedError,
    StateError,
    StoreError,
    StoreFullError,
    StoreUnknownError,
)
from routilux.ports import Changes
from routilux.runtime import runtime as runtime_module
from routilux.runtime.journal.rows import flight_prefix, flight_text
from routilux.store.claims import Claims
from routilux.store.memory import MemoryStore
from routilux.testing.simulated import SimulatedRuntime, simulated
from tests.deaths import Died

SEED = 5
TEN_YEARS = 315_360_000.0


class Moody(MemoryStore):
    """Raises what it is told to, once; ``died`` are the processes before that did not end in order."""

    def __init__(self) -> None:
        super().__init__()
        self.refusals: list[Exception] = []
        self.written = False
        self.died: list[Died] = []

    def write(self, changes: Changes) -> frozenset[int]:
        if not self.refusals:
            return super().write(changes)
        error = self.refusals.pop(0)
        if isinstance(error, StoreUnknownError) and self.written:
            super().write(changes)
        raise error

    def settle(self) -> bool:
        if self.refusals:
            raise self.refusals.pop(0)
        return self.written

    def deaths(self) -> list[Died]:
        return self.died


_homes: list[Home] = []


@pytest.fixture(autouse=True)
def _nothing_is_left_open() -> Iterator[None]:
    """The event loop of a simulation that a test leaves would be found open later, by the garbage collector."""
    yield
    while _homes:
        _homes.pop().die()


class Home:
    """One store, and the runtimes that open it one after the other."""

    def __init__(self, make: Callable[[], Flow]) -> None:
        self.store = Moody()
        self.make = make
        self.wall = 0.0  # seconds by which the clock on the wall was moved
        _homes.append(self)
        self.open()

    def open(self, **options: Any) -> None:
        self.runtime = SimulatedRuntime(SEED, store=self.store)
        self.runtime.simulation.clock.shown_at_zero += self.wall
        self.flow = self.make()
        self.worker = self.runtime.exec(self.flow, worker_id="orders", **options)

    def die(self) -> None:
        """The process is gone without a word."""
        self.runtime.simulation.close(None)
        runtime_module._open_runtimes.discard(self.runtime)
        self.store._claims = Claims()

    def post(self, n: int = 1, **options: Any) -> Any:
        return self.runtime.post(self.flow, "work", "input", {"n": n}, **options).job_context

    def numbers(self) -> list[int]:
        """What waits in the slot of ``work``, in the store."""
        return [json.loads(row.data)["n"] for row in self.store.items("orders", "work.input")]


def flow_of(
    logic: Callable[..., Any], handler: ErrorHandler | None = None, **slot: Any
) -> Callable[[], Flow]:
    def make() -> Flow:
        flow = Flow("orders")
        routine = Routine()
        routine.add_slot("input", **slot)
        routine.add_event("out")
        routine.set_activation_policy(immediate_policy()).set_error_handler(handler)
        routine.set_logic(lambda slot_data, message, state: logic(routine, slot_data["input"][0]["n"], state))
        flow.add_routine(routine, "work")
        return flow

    return make


def logs(routine: Routine, n: int, state: Any) -> None:
    state.shared_log.append(n)


def test_1_in_memory_a_post_that_returned_is_queued_and_its_job_is_counted() -> None:
    with simulated(SEED) as runtime:
        flow = flow_of(logs)()
        worker = runtime.exec(flow)
        job = runtime.post(flow, "work", "input", {"n": 1}).job_context
        assert (job.status, runtime.list_jobs()) == ("pending", [job])
        assert job.wait()
        assert list(worker.shared_log) == [1]


def test_2_a_post_that_returned_is_committed_with_its_job() -> None:
    home = Home(flow_of(logs))
    job = home.post()
    assert home.numbers() == [1]
    stored = home.store.job(job.job_id)
    assert stored is not None
    assert (stored.row.status, stored.items) == ("pending", 1)


@pytest.mark.parametrize("error", [StoreError("busy"), StoreFullError("no space")])
def test_2_a_post_that_the_store_refused_was_not_accepted(error: StoreError) -> None:
    home = Home(flow_of(logs))
    home.runtime.run()
    home.store.refusals = [error]
    with pytest.raises(type(error)):
        home.post()
    assert (home.runtime.list_jobs(), home.numbers()) == ([], [])
    assert home.post(2).wait()


@pytest.mark.parametrize("written", [True, False])
def test_2_after_a_lost_commit_the_post_with_its_key_is_accepted_once(written: bool) -> None:
    home = Home(flow_of(logs))
    home.runtime.run()
    home.store.written = written
    home.store.refusals = [StoreUnknownError("lost"), StoreError("still lost")]
    with pytest.raises(StoreUnknownError, match="idempotency_key"):
        home.post(idempotency_key="order 1")
    home.post(idempotency_key="order 1")
    assert home.runtime.wait_until_all_jobs_finished()
    assert list(home.worker.shared_log) == [1]
    assert len(home.runtime.list_jobs()) == 1


def test_3_a_key_gives_the_first_job_also_after_a_restart_and_refuses_another_payload() -> None:
    home = Home(flow_of(logs))
    job_id = home.post(idempotency_key="order 1").job_id
    home.die()
    home.open()
    assert home.post(idempotency_key="order 1").job_id == job_id
    with pytest.raises(IdempotencyConflictError):
        home.post(2, idempotency_key="order 1")


def test_3_a_key_is_remembered_for_seven_days() -> None:
    home = Home(flow_of(logs))
    job_id = home.post(idempotency_key="order 1").job_id
    clock = home.runtime.simulation.clock
    clock.shown_at_zero += 7 * 86_400 - 1
    assert home.post(idempotency_key="order 1").job_id == job_id
    clock.shown_at_zero += 2
    assert home.post(idempotency_key="order 1").job_id != job_id


def test_4_what_an_activation_did_takes_effect_together_or_not_at_all() -> None:
    fails = [True]

    def logic(routine: Routine, n: int, state: Any) -> None:
        state.shared_log.append(n)
        state.shared_data["last"] = n
        state.update_routine_state("work", {"seen": n})
        current().job.set_data("n", n)
        current().job.trace("worked")
        routine.emit("out", n=n)
        if fails[0]:
            raise RuntimeError("not yet")

    def left(job: Any) -> Any:
        worker = home.worker
        traces = [entry["action"] for entry in job.trace_log if entry["action"] == "worked"]
        outputs = [output.data for output in job.outputs]
        return (
            [*worker.shared_log],
            dict(worker.shared_data),
            worker.routine_states,
            dict(job.data),
            traces,
            outputs,
        )

    home = Home(flow_of(logic, ErrorHandler("continue")))
    failed = home.post(1)
    assert failed.wait()
    assert left(failed) == ([], {}, {}, {}, [], [])
    fails[0] = False
    done = home.post(2)
    assert done.wait()
    home.die()
    home.open()
    shown = home.runtime.get_job(done.job_id)
    assert left(shown) == ([2], {"last": 2}, {"work": {"seen": 2}}, {"n": 2}, ["worked"], [{"n": 2}])


def test_4_what_ends_well_after_its_job_has_failed_takes_no_effect_and_is_a_dead_letter() -> None:
    def make() -> Flow:
        routine = Routine()
        routine.add_slot("input")
        routine.set_activation_policy(immediate_policy())

        async def logic(slot_data: Any, message: Any, state: Any) -> None:
            if slot_data["input"][0]["n"] == 2:
                raise ValueError("not this one")
            await asyncio.sleep(5)
            state.shared_log.append("took effect")

        flow = Flow("orders")
        flow.add_routine(routine.set_logic(logic).set_concurrency(2), "work")
        return flow

    home = Home(make)
    job = home.post(1)
    home.post(2, job_id=job.job_id)
    home.runtime.run()
    assert job.status == "failed"
    letters = {letter.data["n"]: letter.reason for letter in home.runtime.dead_letters()}
    assert letters == {1: "job failed", 2: "failed"}
    assert list(home.worker.shared_log) == []
    assert home.numbers() == []
    home.runtime.shutdown()


def test_5_the_key_of_an_activation_is_the_same_in_every_attempt_also_after_a_crash() -> None:
    keys: list[str] = []

    def logic(routine: Routine, n: int, state: Any) -> None:
        keys.append(f"{current().attempt} {current().idempotency_key('mail')}")
        if len(keys) < 4:
            raise RuntimeError("not yet")

    home = Home(flow_of(logic, ErrorHandler("retry", max_retries=9, retry_delay=10.0)))
    home.post()
    home.runtime.run(seconds=15.0)
    home.die()
    home.open()
    assert home.runtime.wait_until_all_jobs_finished()
    key = keys[0].removeprefix("1 ")
    assert keys == [f"{attempt} {key}" for attempt in (1, 2, 3, 4)]


def test_5_the_items_of_a_gathered_activation_stay_together_after_a_crash() -> None:
    seen: list[tuple[str, list[int]]] = []

    def make() -> Flow:
        flow, routine = Flow("orders"), Routine()
        routine.add_slot("input")
        routine.set_activation_policy(batch_size_policy(2))
        routine.set_error_handler(ErrorHandler("retry", max_retries=1, retry_delay=100.0))

        def logic(slot_data: Any, message: Any, state: Any) -> None:
            seen.append((current().idempotency_key(), [data["n"] for data in slot_data["input"]]))
            if len(seen) == 1:
                raise RuntimeError("not yet")

        flow.add_routine(routine.set_logic(logic), "work")
        return flow

    home = Home(make)
    for n in (1, 2, 3):
        home.post(n)
    home.runtime.run(seconds=1.0)
    home.die()
    home.open()
    home.runtime.run(seconds=200.0)
    assert [numbers for _, numbers in seen] == [[1, 2], [1, 2]]
    assert seen[0] == seen[1]


def test_5_what_was_done_once_is_not_done_again() -> None:
    calls: list[int] = []

    def charge() -> int:
        calls.append(1)
        return len(calls)

    def logic(routine: Routine, n: int, state: Any) -> None:
        state.shared_log.append(current().once("charge", charge))
        if current().attempt == 1:
            raise RuntimeError("not yet")

    home = Home(flow_of(logic, ErrorHandler("retry", retry_delay=10.0)))
    home.post()
    home.runtime.run(seconds=1.0)
    home.die()
    home.open()
    assert home.runtime.wait_until_all_jobs_finished()
    assert (calls, list(home.worker.shared_log)) == ([1], [1])


def test_5_a_retry_starts_when_the_store_has_it() -> None:
    attempts: list[int] = []

    def logic(routine: Routine, n: int, state: Any) -> None:
        attempts.append(current().attempt)
        if current().attempt == 1:
            home.store.refusals = [StoreError("busy")] * 10
            raise RuntimeError("not yet")
        assert [note.kind for note, _ in home.store.notes("orders")] == ["activation"]

    home = Home(flow_of(logic, ErrorHandler("retry", retry_delay=0.0)))
    job = home.post()
    home.runtime.run(1.0)
    assert attempts == [1]
    home.runtime.run()
    assert (attempts, job.status) == ([1, 2], "completed")


def test_6_order_is_kept_through_a_retry_and_a_crash() -> None:
    def logic(routine: Routine, n: int, state: Any) -> None:
        if n == 2 and current().attempt == 1:
            raise RuntimeError("not yet")
        state.shared_log.append(n)

    home = Home(flow_of(logic, ErrorHandler("retry", retry_delay=10.0), max_queue_length=3))
    for n in range(1, 4):
        home.post(n)
    home.runtime.run(seconds=1.0)
    home.die()
    home.open()
    for n in range(4, 8):
        home.post(n)
    assert home.runtime.wait_until_all_jobs_finished()
    assert list(home.worker.shared_log) == [1, 2, 3, 4, 5, 6, 7]


def test_7_what_a_full_slot_drops_is_counted_and_in_the_trace_after_a_restart() -> None:
    home = Home(flow_of(logs, max_queue_length=1, on_full="drop_new"))
    home.runtime.pause(home.worker)
    home.post(1)
    job = home.post(2)
    assert home.worker.control.nodes["work"].counters()["dropped"] == 1
    assert job.wait()
    home.die()
    home.open()
    shown = home.runtime.get_job(job.job_id)
    assert shown is not None
    assert [entry["action"] for entry in shown.trace_log] == ["dropped"]


def test_8_a_slot_keeps_its_capacity_in_memory_and_the_rest_in_the_store() -> None:
    def spread(routine: Routine, n: int, state: Any) -> None:
        for at in range(n):
            routine.emit("out", n=at)

    def make() -> Flow:
        flow = flow_of(spread)()
        sink = Routine()
        sink.add_slot("input", max_queue_length=3)
        sink.set_activation_policy(immediate_policy())
        most: list[int] = []

        def logic(slot_data: Any, message: Any, state: Any) -> None:
            most.append(state.control.nodes["sink"].mailbox.slots["input"].length)
            assert max(most) <= 3
            state.shared_log.append(slot_data["input"][0]["n"])

        flow.add_routine(sink.set_logic(logic), "sink")
        flow.connect("work", "out", "sink", "input")
        return flow

    home = Home(make)
    job = home.post(50)
    assert job.wait()
    assert job.status == "completed"
    assert list(home.worker.shared_log) == list(range(50))


@pytest.mark.parametrize("jump", [0.0, TEN_YEARS, -TEN_YEARS])
def test_9_and_19_a_retry_goes_on_with_the_time_that_was_left_whatever_the_clock_on_the_wall(
    jump: float,
) -> None:
    times: list[float] = []

    def logic(routine: Routine, n: int, state: Any) -> None:
        times.append(home.runtime.now)
        if len(times) == 1:
            raise RuntimeError("not yet")

    home = Home(flow_of(logic, ErrorHandler("retry", retry_delay=100.0)))
    home.post()
    home.runtime.run(seconds=60.0)
    home.die()
    home.wall = 60.0 + jump
    home.open()
    assert home.runtime.wait_until_all_jobs_finished()
    assert (
        times[1] == {0.0: 40.0, TEN_YEARS: 0.0, -TEN_YEARS: 100.0}[jump]
    )  # never longer than it was to wait


@pytest.mark.parametrize("jump", [TEN_YEARS, -TEN_YEARS])
def test_19_a_clock_that_jumps_changes_no_outcome(jump: float) -> None:
    home = Home(flow_of(logs))
    for n in range(3):
        home.post(n)
        home.runtime.simulation.clock.shown_at_zero += jump
    assert home.runtime.wait_until_all_jobs_finished()
    assert list(home.worker.shared_log) == [0, 1, 2]
    assert {job.status.value for job in home.runtime.list_jobs()} == {"completed"}


def test_10_an_item_on_which_the_process_has_died_three_times_is_set_aside() -> None:
    home = Home(flow_of(logs))
    home.runtime.pause(home.worker)
    poisoned = home.post(1)
    home.post(2)
    number = home.store.items("orders", "work.input")[0].number
    for _ in range(3):
        home.die()
        home.store.died.append(Died(flight_text(flight_prefix("orders", "work.input"), number, alone=False)))
        home.open()
    home.runtime.resume(home.worker)
    assert home.runtime.wait_until_all_jobs_finished()
    (letter,) = home.runtime.dead_letters()
    assert (letter.item_id, letter.reason, letter.job_ids) == (number, "poison", (poisoned.job_id,))
    assert list(home.worker.shared_log) == [2]


def test_11_a_paused_worker_starts_nothing_takes_posts_and_stays_paused_after_a_restart() -> None:
    home = Home(flow_of(logs))
    home.runtime.pause(home.worker)
    home.post(1)
    home.die()
    home.open()
    home.post(2)
    home.runtime.run()
    assert (home.worker.status, list(home.worker.shared_log)) == ("paused", [])
    home.runtime.resume(home.worker)
    assert home.runtime.wait_until_all_jobs_finished()
    assert list(home.worker.shared_log) == [1, 2]


def test_11_a_paused_job_stays_paused_after_a_restart_and_others_go_on() -> None:
    home = Home(flow_of(logs))
    kept = home.post(1)
    home.runtime.pause(kept)
    home.die()
    home.open()
    other = home.post(2)
    assert other.wait()
    assert list(home.worker.shared_log) == [2]
    home.runtime.resume(kept.job_id)
    assert home.runtime.wait_until_all_jobs_finished()
    assert list(home.worker.shared_log) == [2, 1]


def test_12_nothing_of_a_cancelled_job_starts_also_after_a_restart() -> None:
    home = Home(flow_of(logs))
    home.runtime.pause(home.worker)
    job = home.post(1)
    home.runtime.cancel(job)
    with pytest.raises(JobCancelledError):
        job.result()
    home.die()
    home.open()
    home.runtime.resume(home.worker)
    home.runtime.run()
    shown = home.runtime.get_job(job.job_id)
    assert shown is not None
    assert (shown.status, list(home.worker.shared_log), home.numbers()) == ("cancelled", [], [])


def test_12_a_job_that_waits_in_the_store_is_cancelled_like_any_other() -> None:
    home = Home(flow_of(logs, max_queue_length=1000))
    home.runtime.pause(home.worker)
    jobs = [home.post(n) for n in range(3)]
    home.die()
    home.make = flow_of(logs, max_queue_length=1)
    home.open(on_flow_change="adopt")
    home.runtime.cancel(jobs[2].job_id)
    home.runtime.resume(home.worker)
    assert home.runtime.wait_until_all_jobs_finished()
    assert list(home.worker.shared_log) == [0, 1]


def test_12_jobs_that_wait_in_the_store_are_cancelled_with_their_worker() -> None:
    home = Home(flow_of(logs, max_queue_length=1000))
    home.runtime.pause(home.worker)
    jobs = [home.post(n) for n in range(3)]
    home.die()
    home.make = flow_of(logs, max_queue_length=1)
    home.open(on_flow_change="adopt")
    home.runtime.cancel(home.worker)
    stored = [home.store.job(job.job_id) for job in jobs]
    assert [one.row.status for one in stored if one is not None] == ["cancelled"] * 3


def test_12_a_cancellation_that_the_store_refuses_can_be_repeated() -> None:
    home = Home(flow_of(logs))
    home.runtime.pause(home.worker)
    job = home.post(1)
    for target in (job, home.worker):
        home.store.refusals = [StoreError("busy")]
        with pytest.raises(StoreError):
            home.runtime.cancel(target)
        assert (job.status, home.post(2).status, home.worker.status) == ("pending", "pending", "paused")
    home.runtime.cancel(job)
    home.runtime.cancel(home.worker)
    stored = home.store.job(job.job_id)
    assert (job.status, stored and stored.row.status) == ("cancelled", "cancelled")
    assert home.worker.status == "stopped"


def test_13_shutdown_accepts_nothing_new_commits_and_may_be_called_again() -> None:
    home = Home(flow_of(logs))
    home.post(1)
    assert home.runtime.shutdown()
    assert home.runtime.shutdown()
    with pytest.raises(RuntimeClosedError):
        home.post(2)
    home.open()
    assert list(home.worker.shared_log) == [1]


def test_13_a_worker_that_is_stopped_without_draining_goes_on_when_it_is_opened_again() -> None:
    home = Home(flow_of(logs))
    home.runtime.pause(home.worker)
    home.post(1)
    assert home.runtime.stop(home.worker, drain=False)
    home.worker = home.runtime.exec(home.flow, worker_id="orders")
    home.runtime.resume(home.worker)
    assert home.runtime.wait_until_all_jobs_finished()
    assert list(home.worker.shared_log) == [1]


def test_15_what_was_not_committed_runs_again_and_what_was_does_not() -> None:
    started: list[int] = []

    def logic(routine: Routine, n: int, state: Any) -> None:
        started.append(n)
        state.shared_log.append(n)

    home = Home(flow_of(logic))
    assert home.post(1).wait()
    home.store.refusals = [StoreError("busy")] * 100
    with pytest.raises(StoreError):
        home.post(2)
    home.store.refusals = []
    home.post(3)
    home.store.refusals = [StoreError("busy")] * 100
    home.runtime.run(seconds=1.0)
    assert started == [1, 3]
    home.die()
    home.store.refusals = []
    home.open()
    assert home.runtime.wait_until_all_jobs_finished()
    assert started == [1, 3, 3]
    assert list(home.worker.shared_log) == [1, 3]


def changed() -> Flow:
    """The flow of :func:`flow_of` without its old slot."""
    flow = Flow("orders")
    routine = Routine()
    routine.add_slot("other")
    routine.set_activation_policy(all_slots_ready_policy()).set_logic(lambda *_: None)
    flow.add_routine(routine, "work")
    return flow


def test_21_a_worker_of_another_flow_is_refused_and_its_jobs_are_listed_as_blocked() -> None:
    home = Home(flow_of(logs))
    home.runtime.pause(home.worker)
    job = home.post(1)
    home.die()
    home.make = changed
    with pytest.raises(StateError, match="flow changed"):
        home.open()
    recovered = home.runtime.recover(flows=[home.flow])
    assert [left.worker_id for left in recovered.not_reopened] == ["orders"]
    home.runtime.exec(home.flow, worker_id="another")
    (listed,) = home.runtime.list_jobs()
    assert (listed.job_id, listed.left, listed.blocked) == (job.job_id, True, "flow changed")


def test_21_an_adopted_worker_sets_items_of_slots_that_are_gone_aside() -> None:
    home = Home(flow_of(logs))
    home.runtime.pause(home.worker)
    job = home.post(1)
    home.die()
    home.make = changed
    home.open(on_flow_change="adopt")
    home.runtime.resume(home.worker)
    assert home.runtime.wait_until_all_jobs_finished()
    (letter,) = home.runtime.dead_letters()
    assert (letter.reason, letter.data, letter.job_ids) == ("flow changed", {"n": 1}, (job.job_id,))
