"""A drain always comes to an end, releases what it can, and says what waits for what."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from routilux import Flow, Routine, Runtime
from routilux.activation_policies import (
    WAIT,
    ActivationPolicy,
    Fire,
    WaitUntil,
    all_slots_ready_policy,
    batch_size_policy,
    custom_policy,
    immediate_policy,
)
from routilux.errors import ExecutionTimeoutError
from routilux.store.memory import MemoryStore
from routilux.testing import SimulatedRuntime
from tests.waiting import SECONDS


class Step(Routine):
    """Hands every payload on."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input", max_queue_length=5)
        self.add_event("output")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        for payload in slot_data["input"]:
            self.emit("output", **payload)


class Collect(Step):
    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        self.emit("output", rows=[payload["n"] for payload in slot_data["input"]])


class Join(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("left", max_queue_length=3)
        self.add_slot("right")
        self.add_event("output")

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        self.emit("output", left=slot_data["left"][0]["key"], right=slot_data["right"][0]["key"])


class TellingJoin(Join):
    def __init__(self) -> None:
        super().__init__()
        self.add_event("incomplete")


def joining(policy: ActivationPolicy, join: Callable[[], Join] = Join) -> Flow:
    """Two branches, ``a`` and ``b``, that come together in ``join``."""
    flow = Flow("joining")
    flow.add_routine(Step(), "a")
    flow.add_routine(Step(), "b")
    flow.add_routine(join().set_activation_policy(policy), "join")
    flow.connect("a", "output", "join", "left")
    flow.connect("b", "output", "join", "right")
    return flow


def collecting(policy: ActivationPolicy) -> Flow:
    flow = Flow("collecting")
    flow.add_routine(Collect().set_activation_policy(policy), "collect")
    return flow


def now(runtime: Runtime) -> float:
    return runtime._engine.now()


@pytest.mark.routilux(seeds=30)
class TestDrain:
    def test_ends_where_partners_never_come_and_says_so_once(
        self, routilux_sim: SimulatedRuntime, caplog: pytest.LogCaptureFixture
    ) -> None:
        flow = joining(all_slots_ready_policy(by="key"))
        routilux_sim.exec(flow)
        for key in range(5):
            routilux_sim.post(flow, "a", "input", {"key": key})
        assert not routilux_sim.wait_until_all_jobs_finished()
        assert not routilux_sim.wait_until_all_jobs_finished()
        (told,) = [r.getMessage() for r in caplog.records if "not all jobs have ended" in r.getMessage()]
        assert "join.left is full with 3 items whose partners in join.right never came" in told
        assert "b.output feeds it, and b has never emitted" in told
        assert "a.input holds 2 items; a waits for room in join.left" in told

    def test_names_keys_that_look_alike(
        self, routilux_sim: SimulatedRuntime, caplog: pytest.LogCaptureFixture
    ) -> None:
        flow = joining(all_slots_ready_policy(by="key"))
        routilux_sim.exec(flow)
        routilux_sim.post(flow, "b", "input", {"key": "2"})
        for key in range(5):
            routilux_sim.post(flow, "a", "input", {"key": key})
        assert not routilux_sim.wait_until_all_jobs_finished()
        assert "'key' looks like '2' (str) there and 2 (int) here" in caplog.text

    def test_leaves_dead_letters_of_what_could_not_run(self, routilux_sim: SimulatedRuntime) -> None:
        flow = joining(all_slots_ready_policy(by="key"))
        worker = routilux_sim.exec(flow)
        for key in range(5):
            routilux_sim.post(flow, "a", "input", {"key": key})
        assert routilux_sim.shutdown() is False
        letters = [(x.routine_id, x.data["key"], x.reason) for x in routilux_sim.dead_letters(worker=worker)]
        assert sorted(letters) == [
            ("a", 3, "not run"),
            ("a", 4, "not run"),
            *(("join", key, "incomplete") for key in range(3)),
        ]

    def test_goes_on_when_partners_come_after_it_gave_up(self, routilux_sim: SimulatedRuntime) -> None:
        flow = joining(all_slots_ready_policy(by="key"))
        routilux_sim.exec(flow)
        for key in range(5):
            routilux_sim.post(flow, "a", "input", {"key": key})
        assert not routilux_sim.wait_until_all_jobs_finished()
        for key in range(5):
            routilux_sim.post(flow, "b", "input", {"key": key})
        assert routilux_sim.wait_until_all_jobs_finished()
        assert not routilux_sim.dead_letters()

    def test_does_not_wait_for_a_pause_at_the_end(
        self, routilux_sim: SimulatedRuntime, caplog: pytest.LogCaptureFixture
    ) -> None:
        flow = joining(all_slots_ready_policy(by="key"))
        routilux_sim.exec(flow)
        routilux_sim.pause(routilux_sim.list_workers()[0])
        job = routilux_sim.post(flow, "a", "input", {"key": 1}).job_context
        assert routilux_sim.shutdown() is False
        assert (job.status, [x.reason for x in routilux_sim.dead_letters()]) == ("cancelled", ["not run"])
        assert "the worker is paused" in caplog.text

    def test_does_not_wait_for_a_paused_job_at_the_end(
        self, routilux_sim: SimulatedRuntime, caplog: pytest.LogCaptureFixture
    ) -> None:
        flow = joining(all_slots_ready_policy(by="key"))
        routilux_sim.exec(flow)
        routilux_sim.pause(routilux_sim.list_workers()[0])
        job = routilux_sim.post(flow, "a", "input", {"key": 1}).job_context
        routilux_sim.pause(job)
        routilux_sim.resume(routilux_sim.list_workers()[0])
        assert routilux_sim.shutdown() is False
        assert "a keeps 1 item of paused jobs back" in caplog.text

    def test_with_nothing_open_ends_well_although_the_worker_is_paused(
        self, routilux_sim: SimulatedRuntime
    ) -> None:
        routilux_sim.pause(routilux_sim.exec(joining(all_slots_ready_policy(by="key"))))
        assert routilux_sim.shutdown() is True

    def test_stop_of_a_worker_in_which_nothing_can_move_is_false(
        self, routilux_sim: SimulatedRuntime
    ) -> None:
        flow = joining(all_slots_ready_policy(by="key"))
        worker = routilux_sim.exec(flow)
        for key in range(5):
            routilux_sim.post(flow, "a", "input", {"key": key})
        assert routilux_sim.stop(worker) is False
        assert routilux_sim.shutdown() is True

    def test_asks_a_policy_with_an_armed_timer_at_once(self, routilux_sim: SimulatedRuntime) -> None:
        seen: list[bool] = []

        def hundred_or_an_hour(slots: Any, state: Any) -> Any:
            waiting = len(slots["input"])
            seen.append(slots.flushing)
            if not waiting:
                return WAIT
            if slots.flushing:
                return Fire({"input": 1})
            return WaitUntil(slots.now + 3_600)

        flow = collecting(custom_policy(hundred_or_an_hour))
        routilux_sim.exec(flow)
        for n in range(3):
            routilux_sim.post(flow, "collect", "input", {"n": n})
        start = now(routilux_sim)
        assert routilux_sim.wait_until_all_jobs_finished()
        assert now(routilux_sim) - start < 3_600
        assert seen[-3:] == [True, True, True]
        seen.clear()
        job = routilux_sim.post(flow, "collect", "input", {"n": 3}).job_context
        assert not job.wait(1.0)
        assert seen == [False]

    def test_a_batch_with_an_age_leaves_full_old_or_drained(self, routilux_sim: SimulatedRuntime) -> None:
        flow = collecting(batch_size_policy(2, age=10))
        routilux_sim.exec(flow)
        jobs = [routilux_sim.post(flow, "collect", "input", {"n": n}).job_context for n in range(3)]
        start = now(routilux_sim)
        assert [job.wait(SECONDS) for job in jobs[:2]] == [True, True]
        assert not jobs[2].wait(5.0)
        assert jobs[2].wait(SECONDS)
        assert 9 < now(routilux_sim) - start < 12
        last = routilux_sim.post(flow, "collect", "input", {"n": 3}).job_context
        start = now(routilux_sim)
        assert routilux_sim.wait_until_all_jobs_finished()
        assert now(routilux_sim) - start < 9
        assert [output.data["rows"] for output in last.outputs] == [[3]]

    def test_a_set_that_stays_incomplete_leaves_after_its_time(self, routilux_sim: SimulatedRuntime) -> None:
        flow = joining(all_slots_ready_policy(by="key", timeout=10))
        routilux_sim.exec(flow)
        lonely = routilux_sim.post(flow, "a", "input", {"key": 1}).job_context
        pair = [routilux_sim.post(flow, where, "input", {"key": 2}).job_context for where in "ab"]
        assert [job.wait(SECONDS) for job in pair] == [True, True]
        assert lonely.wait(SECONDS)
        assert (lonely.status, len(lonely.errors)) == ("completed", 1)
        (letter,) = routilux_sim.dead_letters()
        assert (letter.routine_id, letter.slot, letter.reason) == ("join", "left", "incomplete")
        assert letter.error == "IncompleteSetError: no partner came within 10 s in right for key=1"

    def test_each_incomplete_set_leaves_after_a_time_of_its_own(self, routilux_sim: SimulatedRuntime) -> None:
        flow = joining(all_slots_ready_policy(by="key", timeout=10))
        routilux_sim.exec(flow)
        jobs = []
        for key in range(3):
            jobs.append(routilux_sim.post(flow, "a", "input", {"key": key}).job_context)
            routilux_sim.run(seconds=4)
        assert [job.wait(SECONDS) for job in jobs] == [True] * 3
        assert len(routilux_sim.dead_letters()) == 3

    def test_a_set_that_stays_incomplete_leaves_by_an_event_of_that_name(
        self, routilux_sim: SimulatedRuntime
    ) -> None:
        flow = joining(all_slots_ready_policy(timeout=10), TellingJoin)
        routilux_sim.exec(flow)
        job = routilux_sim.post(flow, "a", "input", {"key": 1}).job_context
        (output,) = job.result(SECONDS)
        assert (output.event, output.data) == (
            "incomplete",
            {
                "reason": "no partner came within 10 s",
                "missing": ["right"],
                "payload": {"left": {"key": 1}},
            },
        )
        assert not routilux_sim.dead_letters()

    def test_items_joined_by_job_leave_when_their_jobs_have_ended(
        self, routilux_sim: SimulatedRuntime
    ) -> None:
        flow = joining(all_slots_ready_policy(by="job"))
        routilux_sim.exec(flow)
        jobs = [routilux_sim.post(flow, "a", "input", {"key": key}).job_context for key in range(9)]
        assert routilux_sim.wait_until_all_jobs_finished()
        letters = routilux_sim.dead_letters()
        assert sorted((x.data["key"], x.reason, x.job_ids) for x in letters) == [
            (key, "incomplete", (job.job_id,)) for key, job in enumerate(jobs)
        ]
        assert {(job.status.value, job.parked) for job in jobs} == {("completed", 0)}

    def test_what_a_named_job_may_still_complete_stays(self, routilux_sim: SimulatedRuntime) -> None:
        flow = joining(all_slots_ready_policy(by="job"))
        routilux_sim.exec(flow)
        job = routilux_sim.post(flow, "a", "input", {"key": 1}, job_id="mine").job_context
        assert routilux_sim.wait_until_all_jobs_finished()
        assert (job.status, job.parked) == ("completed", 1)
        routilux_sim.post(flow, "b", "input", {"key": 2}, job_id="mine")
        assert routilux_sim.wait_until_all_jobs_finished()
        assert [output.data for output in job.outputs] == [{"left": 1, "right": 2}]

    def test_parked_items_of_a_worker_that_ends_leave(self, routilux_sim: SimulatedRuntime) -> None:
        flow = joining(all_slots_ready_policy(by="key"))
        worker = routilux_sim.exec(flow)
        job = routilux_sim.post(flow, "a", "input", {"key": 1}).job_context
        assert routilux_sim.stop(worker)
        assert [(x.slot, x.reason) for x in routilux_sim.dead_letters()] == [("left", "incomplete")]
        assert (job.parked, [entry["action"] for entry in job.trace_log]) == (0, ["dropped"])

    def test_a_result_that_does_not_come_says_what_waits(self, routilux_sim: SimulatedRuntime) -> None:
        flow = joining(all_slots_ready_policy(by="key"))
        routilux_sim.exec(flow)
        jobs = [routilux_sim.post(flow, "a", "input", {"key": key}).job_context for key in range(5)]
        with pytest.raises(ExecutionTimeoutError, match=r"join.left is full with 3 items"):
            jobs[-1].result(1.0)

    def test_a_post_that_waits_long_says_so_once(
        self, routilux_sim: SimulatedRuntime, caplog: pytest.LogCaptureFixture
    ) -> None:
        flow = collecting(immediate_policy())
        worker = routilux_sim.exec(flow)
        routilux_sim.pause(worker)
        with caplog.at_level(logging.WARNING, "routilux"):
            for n in range(6):
                try:
                    routilux_sim.post(flow, "collect", "input", {"n": n}, timeout=30)
                except Exception as error:  # the last finds no room
                    assert n == 5, error
        told = [r.getMessage() for r in caplog.records if "has waited 5 s for room" in r.getMessage()]
        assert len(told) == 1
        assert "slot 'collect.input', which holds at most 5 items" in told[0]


def test_a_store_keeps_what_a_drain_could_not_finish() -> None:
    store, flow = MemoryStore(), joining(all_slots_ready_policy(by="key"))
    with Runtime(store=store, thread_pool_size=1) as runtime:
        runtime.exec(flow, worker_id="w")
        for key in range(5):
            runtime.post(flow, "a", "input", {"key": key})
    with Runtime(store=store, thread_pool_size=1) as runtime:
        runtime.exec(flow, worker_id="w")
        for key in range(5):
            runtime.post(flow, "b", "input", {"key": key})
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        assert not runtime.dead_letters()
        assert sum(len(job.outputs) for job in runtime.list_jobs()) == 10


def test_the_time_of_a_set_survives_a_restart() -> None:
    store, flow = MemoryStore(), joining(all_slots_ready_policy(by="key", timeout=0.2))
    with Runtime(store=store, thread_pool_size=1) as runtime:
        runtime.exec(flow, worker_id="w")
        runtime.pause("w")
        runtime.post(flow, "join", "left", {"key": 1}, job_id="lonely")
    with Runtime(store=store, thread_pool_size=1) as runtime:
        runtime.exec(flow, worker_id="w")
        runtime.resume("w")
        job = runtime.get_job("lonely")
        assert job is not None
        assert job.wait(SECONDS)
        assert [letter.reason for letter in runtime.dead_letters()] == ["incomplete"]


def test_an_error_in_the_block_is_not_hidden_by_what_is_left() -> None:
    flow = joining(all_slots_ready_policy(by="key"))

    def fails() -> None:
        with Runtime(thread_pool_size=1) as runtime:
            runtime.exec(flow)
            for key in range(4):
                runtime.post(flow, "a", "input", {"key": key})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
