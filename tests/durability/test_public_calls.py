"""Any calls in any order, on one store through many runtimes, against a model of a few lines.

The flow has one routine per rule: ``keep`` counts and remembers, ``pass_on`` emits two items to it, ``fail`` fails with
what it is given until its letter is driven again with the switch off.
"""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from routilux import Flow, Routine
from routilux.activation_policies import immediate_policy
from routilux.errors import IdempotencyConflictError, StateError
from routilux.model.context import running
from routilux.runtime import runtime as runtime_module
from routilux.store.claims import Claims
from routilux.store.memory import MemoryStore
from routilux.testing.simulated import SimulatedRuntime

WORKER = "the worker"


def built(switch: dict[str, bool]) -> Flow:
    flow = Flow("calls")
    flow.add_routine(_routine(lambda slot_data, message, state: _keep("keep", slot_data, state)), "keep")
    pass_on = _routine(None)
    pass_on.add_event("out")
    pass_on.set_logic(lambda slot_data, message, state: _pass_on(pass_on, slot_data))
    flow.add_routine(pass_on, "pass_on")
    flow.add_routine(_routine(lambda slot_data, message, state: _fail(switch, slot_data, state)), "fail")
    flow.connect("pass_on", "out", "keep", "input")
    return flow


def _routine(logic: Any) -> Routine:
    routine = Routine()
    routine.add_slot("input", max_queue_length=3)
    routine.set_activation_policy(immediate_policy())
    return routine if logic is None else routine.set_logic(logic)


def _keep(routine_id: str, slot_data: Any, state: Any) -> None:
    (data,) = slot_data["input"]
    state.update_routine_state(routine_id, {"n": state.get_routine_state(routine_id, {}).get("n", 0) + 1})
    state.shared_log.append(data["id"])


def _pass_on(routine: Routine, slot_data: Any) -> None:
    (data,) = slot_data["input"]
    routine.emit("out", id=f"{data['id']}a")
    routine.emit("out", id=f"{data['id']}b")


def _fail(switch: dict[str, bool], slot_data: Any, state: Any) -> None:
    if switch["fails"]:
        raise RuntimeError("it is to fail")
    _keep("fail", slot_data, state)


class PublicCalls(RuleBasedStateMachine):
    """``expected`` is what the log has to hold when everything has come to rest, in no order."""

    jobs: Bundle[str] = Bundle("jobs")

    @initialize(seed=st.integers(0, 1_000))
    def open_first(self, seed: int) -> None:
        self.seed = seed
        self.store = MemoryStore()
        self.switch = {"fails": True}
        self.lives = 0
        self.paused_worker = False
        self.jobs_known: dict[str, str] = {}  # job -> where it was posted to
        self.paused_jobs: set[str] = set()
        self.cancelled: set[str] = set()  # that may have run or not
        self.redriven: set[str] = set()
        self.keys: dict[str, tuple[str, str]] = {}
        self.noted: dict[str, int] = {}
        self.posts = 0
        self._open()

    def _open(self) -> None:
        self.lives += 1
        self.runtime = SimulatedRuntime(self.seed + self.lives, store=self.store)
        self.flow = built(self.switch)
        self.worker = self.runtime.exec(self.flow, worker_id=WORKER)

    # -- calls -----------------------------------------------------------------------------------------------

    @rule(
        target=jobs,
        routine=st.sampled_from(["keep", "pass_on", "fail"]),
        key=st.none() | st.sampled_from("abc"),
    )
    def post(self, routine: str, key: str | None) -> str:
        self.posts += 1
        data = {"id": f"p{self.posts}"} if key is None else {"id": f"k{key}"}
        if self._is_crowded(routine):
            return self._any_job()
        try:
            posted = self.runtime.post(self.flow, routine, "input", data, idempotency_key=key)
        except IdempotencyConflictError:
            assert key is not None
            assert self.keys[key][1] != routine, (
                "only another slot is a conflict: the payload is always the same"
            )
            return self.keys[key][0]
        if key is not None and key in self.keys:
            assert (posted.job_id, routine) == self.keys[key]
            return posted.job_id
        if key is not None:
            self.keys[key] = (posted.job_id, routine)
        assert posted.job_id not in self.jobs_known
        self.jobs_known[posted.job_id] = f"{routine} {data['id']}"
        return posted.job_id

    def _is_crowded(self, routine: str) -> bool:
        """A paused worker never makes room, and post() would wait for it."""
        return self.worker.control.nodes[routine].mailbox.slots["input"].length >= 3

    def _any_job(self) -> str:
        return next(iter(self.jobs_known), "none")

    @rule(key=st.sampled_from("abc"))
    def a_key_with_another_payload_is_refused(self, key: str) -> None:
        if key in self.keys:
            with pytest.raises(IdempotencyConflictError):
                self.runtime.post(self.flow, "keep", "input", {"id": "other"}, idempotency_key=key)

    @rule(steps=st.integers(1, 30))
    def let_things_happen(self, steps: int) -> None:
        for _ in range(steps):
            self.runtime.simulation.step()

    @rule()
    def pause_worker(self) -> None:
        self.runtime.pause(self.worker)
        self.paused_worker = True

    @rule()
    def resume_worker(self) -> None:
        self.runtime.resume(self.worker)
        self.paused_worker = False

    @rule(job=jobs)
    def pause_job(self, job: str) -> None:
        if self._is_open(job):
            self.runtime.pause(job)
            self.paused_jobs.add(job)

    @rule(job=jobs)
    def resume_job(self, job: str) -> None:
        if job in self.paused_jobs and self._is_open(job):
            self.runtime.resume(job)
            self.paused_jobs.discard(job)

    @rule(job=jobs)
    def cancel_job(self, job: str) -> None:
        if self._is_open(job):
            found = self.runtime.get_job(job)
            self.runtime.cancel(found)
            assert found.status in ("cancelled", "completed", "failed")
            if found.status == "cancelled":
                self.cancelled.add(job)

    @rule(on=st.booleans())
    def redrive(self, on: bool) -> None:
        letters = self.runtime.dead_letters(worker=self.worker)
        if not letters or self._is_crowded("fail"):
            return
        self.switch["fails"] = on
        (posted,) = self.runtime.redrive(letters[0])
        self.redriven.update(letters[0].job_ids)
        self.jobs_known[posted.job_id] = f"fail {letters[0].data['id']}"

    @rule(name=st.sampled_from("xyz"), value=st.integers())
    def write_state(self, name: str, value: int) -> None:
        self.worker.update_routine_state("pass_on", {name: value})
        self.noted[name] = value

    # -- ends ------------------------------------------------------------------------------------------------

    @rule(drain=st.booleans())
    def stop_and_open(self, drain: bool) -> None:
        """A worker that is drained has ended for good; what it remembers goes with it."""
        if drain:
            return
        assert self.runtime.stop(self.worker, drain=False)
        self.worker = self.runtime.exec(self.flow, worker_id=WORKER)
        self._is_as_before()

    @rule()
    def shut_down_and_open(self) -> None:
        assert self.runtime.shutdown(wait=False)
        self._open()
        self._is_as_before()

    @rule()
    def die_and_open(self) -> None:
        """State that was written from outside is on its way for a moment: it is asked to be written first."""
        self.runtime.list_jobs()
        self._bury()
        self.store._claims = Claims()
        self._open()
        self._is_as_before()

    def _bury(self) -> None:
        running.set(None)
        self.runtime.simulation.close(None)
        runtime_module._open_runtimes.discard(self.runtime)

    def _is_as_before(self) -> None:
        assert self.worker.status == ("paused" if self.paused_worker else "running")
        assert self.worker.get_routine_state("pass_on", {}) == self.noted
        for job in self.paused_jobs:
            found = self.runtime.get_job(job)
            assert found is not None
            assert found.paused or found.status.finished

    # -- what holds --------------------------------------------------------------------------------------------

    def _is_open(self, job: str) -> bool:
        found = self.runtime.get_job(job)
        return found is not None and not found.status.finished and not found.left

    @invariant()
    def every_job_is_listed_once(self) -> None:
        if not hasattr(self, "jobs_known"):
            return
        listed = [job.job_id for job in self.runtime.list_jobs()]
        assert sorted(listed) == sorted(self.jobs_known)
        statuses = {job.job_id: job.status for job in self.runtime.list_jobs()}
        assert all(statuses[job] == "cancelled" for job in self.cancelled)

    @rule()
    def come_to_rest(self) -> None:
        """Everything is resumed; every item has had its effect once, and what failed is a letter."""
        for job in sorted(self.paused_jobs):
            found = self.runtime.get_job(job)
            assert found is not None
            self.runtime.resume(found)
        self.paused_jobs.clear()
        self.resume_worker()
        assert self.runtime.wait_until_all_jobs_finished()
        self._check_log()

    def _check_log(self) -> None:
        log = sorted(self.worker.shared_log)
        counted = [self.worker.get_routine_state(name, {}).get("n", 0) for name in ("keep", "fail")]
        assert sum(counted) == len(log)
        assert len(set(log)) == len(log), "something was done twice"
        letters = {letter.data["id"] for letter in self.runtime.dead_letters(worker=self.worker)}
        statuses = {job.job_id: job.status for job in self.runtime.list_jobs()}
        for job, what in self.jobs_known.items():
            routine, _, name = what.partition(" ")
            made = [f"{name}a", f"{name}b"] if routine == "pass_on" else [name]
            match statuses[job]:
                case "completed":
                    assert set(made) <= set(log), f"{what} is completed, and not done"
                case "failed":
                    assert name in letters or job in self.redriven, f"{what} has failed without a letter"
                case status:
                    assert status == "cancelled", f"{what} is {status} at rest"
                    assert job in self.cancelled

    def teardown(self) -> None:
        if not hasattr(self, "runtime"):
            return
        try:
            self.come_to_rest()
        finally:
            if not self.runtime.shutdown(wait=False):
                raise StateError("the runtime does not end")


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


WITHOUT_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)  # a run of 50 calls takes its time


class TestPublicCalls(PublicCalls.TestCase):
    settings = settings(
        max_examples=200, stateful_step_count=50, deadline=None, print_blob=True, phases=WITHOUT_SHRINKING
    )


@pytest.mark.full
class TestPublicCallsForLong(PublicCalls.TestCase):
    settings = settings(
        max_examples=20_000, stateful_step_count=100, deadline=None, print_blob=True, phases=WITHOUT_SHRINKING
    )
