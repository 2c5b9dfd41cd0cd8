"""A worker that another process has taken over ends alone, with an error for whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from routilux import ErrorHandler, ErrorStrategy, Flow, Routine, current
from routilux.activation_policies import immediate_policy
from routilux.errors import (
    RuntimeClosedError,
    StoreError,
    StoreFencedError,
    StoreLockedError,
    WorkerNotRunningError,
)
from routilux.ports import Changes, OnLost
from routilux.runtime import runtime as runtime_module
from routilux.store.memory import MemoryStore
from routilux.store.postgres.writing import worker_ids_of
from routilux.testing.simulated import SimulatedRuntime

SEEDS = range(12)


class Shared(MemoryStore):
    """Its workers can be taken over, as by another process; ``refusal`` is what a write to one raises then."""

    refusal: type[StoreError] = StoreFencedError

    def __init__(self) -> None:
        super().__init__()
        self.taken: set[str] = set()
        self.on_lost: dict[str, OnLost] = {}
        self.written: list[set[str]] = []  # the workers of each batch

    def when_lost(self, worker_id: str, call: OnLost) -> None:
        self.on_lost[worker_id] = call

    def write(self, changes: Changes) -> frozenset[int]:
        workers = worker_ids_of(changes)
        for worker_id in workers & self.taken:
            raise self.refusal(f"worker {worker_id!r} is run by another", worker_id=worker_id)
        self.written.append(workers)
        return super().write(changes)

    def tell(self, worker_id: str) -> None:
        """The store finds out that the worker is another's, while nothing is written."""
        self.on_lost[worker_id](
            StoreFencedError(f"worker {worker_id!r} is run by another", worker_id=worker_id)
        )


class Scene:
    """Two workers of one runtime: what ``logic`` of the first does is up to the test, that of the second is short."""

    def __init__(self, seed: int, logic: Callable[..., None], **slot: Any) -> None:
        self.store = Shared()
        self.runtime = SimulatedRuntime(seed, store=self.store)
        self.flow, self.other = flow_of("lost", logic, **slot), flow_of("other", lambda n: None)
        self.worker = self.runtime.exec(self.flow, worker_id="lost")
        self.runtime.exec(self.other, worker_id="other")

    def post(self, n: int = 0, **options: Any) -> Any:
        return self.runtime.post(self.flow, "work", "input", {"n": n}, **options).job_context

    def others_go_on(self) -> None:
        assert self.runtime.post(self.other, "work", "input", {"n": 0}).job_context.wait(60)


def flow_of(flow_id: str, logic: Callable[..., None], **slot: Any) -> Flow:
    flow, routine = Flow(flow_id), Routine()
    routine.add_slot("input", **slot)
    routine.set_activation_policy(immediate_policy())
    routine.set_error_handler(ErrorHandler(ErrorStrategy.RETRY, max_retries=1, retry_delay=0.1))
    routine.set_logic(lambda slot_data, message, state: logic(slot_data["input"][0]["n"]))
    flow.add_routine(routine, "work")
    return flow


@contextmanager
def scene(seed: int, logic: Callable[..., None] = bool, **slot: Any) -> Iterator[Scene]:
    made = Scene(seed, logic, **slot)
    try:
        yield made
        made.others_go_on()
        assert made.worker.status == "stopped"
        health = made.runtime.health()
        cure = "to go on with it here, ask for it again: exec(flow, worker_id='lost'), or recover()"
        told = ("degraded", f"worker 'lost' is run by another ({cure})")
        assert (health.status, health.reason) == told
        assert made.runtime.shutdown(timeout=60)
    finally:
        made.runtime.simulation.close(None)
        runtime_module._open_runtimes.discard(made.runtime)


@pytest.mark.parametrize("refusal", [StoreFencedError, StoreLockedError])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_post_hears_it_and_leaves_nothing(seed: int, refusal: type[StoreError]) -> None:
    with scene(seed) as at:
        at.store.refusal = refusal
        at.store.taken.add("lost")
        with pytest.raises(refusal, match="run by another") as refused:
            at.post()
        assert refused.value.worker_id == "lost"
        with pytest.raises(WorkerNotRunningError, match=r"has been given up .*run by another"):
            at.post(worker_id="lost")
        assert at.store.jobs(worker_id="lost") == []


@pytest.mark.parametrize("seed", SEEDS)
def test_a_worker_that_is_idle_ends_when_the_store_finds_it_out(seed: int) -> None:
    with scene(seed) as at:
        at.runtime.run()
        at.store.taken.add("lost")
        at.store.tell("lost")
        at.runtime.run()
        assert at.worker.status == "stopped"
        at.store.tell("lost")  # it may be found out twice, as by a batch at the same time


@pytest.mark.parametrize("how", ["once", "checkpoint", "fail", "emit nothing"])
@pytest.mark.parametrize("seed", SEEDS)
def test_logic_that_waits_for_the_store_is_cut_off_and_its_job_goes_on_elsewhere(seed: int, how: str) -> None:
    raised: list[BaseException] = []

    def logic(n: int) -> None:
        at.store.taken.add("lost")
        try:
            if how == "once":
                current().once("charge", lambda: 1)
            elif how == "checkpoint":
                current().checkpoint(1)
            elif how == "fail":
                raise ValueError("to be retried")
        except (StoreFencedError, RuntimeClosedError) as error:
            raised.append(error)
            raise

    with scene(seed, logic) as at:
        job = at.post()
        assert job.wait(60) is False
        assert (job.left, job.status) == (True, "running")
        with pytest.raises(StoreFencedError, match="goes on elsewhere: worker 'lost' is run by another"):
            job.result(60)
        at.runtime.run()
        assert len(raised) == (how in ("once", "checkpoint"))
        assert at.store.places("lost") == ["work.input"]
        assert at.store.letters() == []


@pytest.mark.parametrize("seed", SEEDS)
def test_activations_that_end_one_after_the_other_leave_nothing(seed: int) -> None:
    with scene(seed) as at:
        at.runtime.pause(at.worker)
        jobs = [at.post(n) for n in range(3)]
        at.runtime.resume(at.worker)
        at.store.taken.add("lost")
        assert [job.wait(60) for job in jobs] == [False] * 3
        at.runtime.run()
        assert len(at.store.items("lost", "work.input")) == 3


@pytest.mark.parametrize("seed", SEEDS)
def test_a_drain_ends_when_the_others_have_done_their_work(seed: int) -> None:
    def fail(n: int) -> None:
        raise ValueError("to be retried, in 0.1 s")

    with scene(seed, fail) as at:
        simulation = at.runtime.simulation
        at.post()
        other = at.runtime.post(at.other, "work", "input", {"n": 0}).job_context
        at.store.taken.add("lost")
        simulation.call_at(simulation.clock.monotonic() + 0.05, lambda: at.store.tell("lost"))
        with pytest.raises(StoreFencedError, match="run by another"):
            at.runtime.wait_until_all_jobs_finished(60)
        assert other.status == "completed"
        assert at.runtime.wait_until_all_jobs_finished(60)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_comes_late_is_not_written_although_nobody_has_the_worker_any_more(seed: int) -> None:
    with scene(seed) as at:
        worker: Any = at.runtime._engine.workers["lost"]
        at.runtime.pause(at.worker)
        job = at.post()
        at.store.taken.add("lost")
        at.store.tell("lost")
        at.runtime.run()
        assert job.left
        at.store.taken.clear()  # the other process has stopped
        at.store.written.clear()
        worker.trace(job, "late")
        worker.write_row()
        at.others_go_on()
        assert set().union(*at.store.written) == {"other"}


@pytest.mark.parametrize("call", ["pause", "stop", "cancel"])
@pytest.mark.parametrize("seed", SEEDS)
def test_pause_stop_and_cancel_raise_it(seed: int, call: str) -> None:
    with scene(seed) as at:
        at.store.taken.add("lost")
        with pytest.raises(StoreFencedError, match="run by another"):
            getattr(at.runtime, call)(at.worker)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_post_that_waits_for_room_hears_it(seed: int) -> None:
    with scene(seed, max_queue_length=1) as at:
        at.runtime.pause(at.worker)
        at.post()
        at.store.taken.add("lost")
        at.runtime.simulation.call_at(
            at.runtime.simulation.clock.monotonic() + 1, lambda: at.store.tell("lost")
        )
        with pytest.raises(WorkerNotRunningError, match="has been given up"):
            at.post(timeout=60)


@pytest.mark.parametrize("seed", SEEDS)
def test_opened_again_it_goes_on_and_health_is_good(seed: int) -> None:
    done: list[int] = []
    with_taken = [True]

    def logic(n: int) -> None:
        if with_taken:
            at.store.taken.add("lost")
        else:
            done.append(n)

    at = Scene(seed, logic)
    at.post(1)
    at.runtime.run()
    assert at.runtime.health().status == "degraded"
    with_taken.clear()
    at.store.taken.clear()  # the other process has stopped
    worker = at.runtime.exec(at.flow, worker_id="lost")
    at.post(2)
    assert at.runtime.wait_until_all_jobs_finished(60)
    assert (done, worker.status, at.runtime.health()) == ([1, 2], "running", ("ok", None))
    assert at.runtime.shutdown()
