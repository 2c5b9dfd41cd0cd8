"""What is pruned is needed by nothing that stays; and stores that older versions have pruned too far still open."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from routilux import ErrorHandler, ErrorStrategy, Flow, Routine, Runtime
from routilux.activation_policies import all_slots_ready_policy
from routilux.errors import IdempotencyConflictError, StoreCorruptError, StoreLockedError
from routilux.model.status import JobStatus
from routilux.ports import Store
from routilux.store import check, open_store, prune
from routilux.testing.store_rows import changes
from tests.durability.behind import delete
from tests.durability.flows import Log, flow_of
from tests.waiting import SECONDS


class Pay(Routine):
    """Joins an order with its money."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("order")
        self.add_slot("money")
        self.set_activation_policy(all_slots_ready_policy(by="id"))

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        state.shared_log.append(slot_data["order"][0]["id"])


class Picky(Log):
    """Fails for odd numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.set_error_handler(ErrorHandler(ErrorStrategy.STOP))

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        super().logic(slot_data, policy_message, state)
        if slot_data["input"][0]["n"] % 2:
            raise ValueError("an odd one")


def paying() -> Flow:
    flow = Flow("pay")
    flow.add_routine(Pay(), "pay")
    return flow


@contextmanager
def running(url: str, flow: Flow) -> Iterator[tuple[Runtime, Any]]:
    with Runtime(store=url) as runtime:
        yield runtime, runtime.exec(flow, worker_id="w")


def prune_all(url: str) -> int:
    return prune(url, older_than=0, keep_finished=0)


@contextmanager
def looking(url: str) -> Iterator[Store]:
    with closing(open_store(url)) as store:
        yield store


def test_a_job_that_waits_for_a_partner_is_not_pruned(store_url: str) -> None:
    with running(store_url, paying()) as (runtime, _):
        first = runtime.post("pay", "pay", "order", {"id": "first"}).job_context
        assert first.wait(SECONDS)
        for n in range(5):
            runtime.post("pay", "pay", "order", {"id": n})
            assert runtime.post("pay", "pay", "money", {"id": n}).job_context.wait(SECONDS)
    assert prune_all(store_url) == 10
    with running(store_url, paying()) as (runtime, worker):
        assert runtime.post("pay", "pay", "money", {"id": "first"}).job_context.wait(SECONDS)
        assert list(worker.shared_log)[-1] == "first"
    assert check(store_url) == []


def backlog_of_a_cancelled_job(url: str) -> str:
    """Leave a worker with items of a cancelled job that have not been taken out yet; returns the job's id."""
    with running(url, flow_of(Log())) as (runtime, worker):
        runtime.pause(worker)
        job = runtime.post("numbers", "0", "input", {"n": 1}).job_context
    with looking(url) as store:
        (stored,) = store.jobs()
        store.write(changes(jobs=[stored.row._replace(status="cancelled", completed_at=1.0)]))
    return job.job_id


def test_a_cancelled_job_is_not_pruned_before_its_items_are_gone(store_url: str) -> None:
    job_id = backlog_of_a_cancelled_job(store_url)
    assert prune_all(store_url) == 0
    with running(store_url, flow_of(Log())) as (runtime, worker):
        runtime.resume(worker)
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        assert list(worker.shared_log) == []
        assert runtime.get_job(job_id).status is JobStatus.CANCELLED
    assert prune_all(store_url) == 1


# -- stores that were pruned too far -----------------------------------------------------------------------------


def test_a_worker_opens_whose_item_has_lost_its_job(store_url: str) -> None:
    with running(store_url, paying()) as (runtime, _):
        for n in range(3):
            posted = runtime.post("pay", "pay", "order", {"id": n})
            assert posted.job_context.wait(SECONDS)
    lost = posted.job_id
    delete(store_url, "jobs", f"job_id = '{lost}'")
    if store_url.startswith("sqlite"):
        delete(store_url, "counts", f"job_id = '{lost}'")
    with running(store_url, paying()) as (runtime, worker):
        (letter,) = runtime.dead_letters()
        assert (letter.data, letter.job_ids, letter.reason) == ({"id": 2}, (lost,), "job failed")
        assert f"had items of job {lost!r} (1 in worker 'w') and not the job itself" in letter.error
        job = runtime.get_job(lost)
        assert job.status is JobStatus.FAILED
        assert isinstance(job.error, StoreCorruptError) or "not the job itself" in str(job.error)
        runtime.post("pay", "pay", "money", {"id": 0}).job_context.wait(SECONDS)
        runtime.redrive(letter)
        runtime.post("pay", "pay", "money", {"id": 2}).job_context.wait(SECONDS)
        assert list(worker.shared_log) == [0, 2]
    assert check(store_url) == []
    with running(store_url, paying()) as (runtime, worker):
        assert runtime.dead_letters() == []


def test_every_job_of_a_worker_may_be_lost(store_url: str) -> None:
    with running(store_url, flow_of(Log())) as (runtime, worker):
        runtime.pause(worker)
        jobs = [runtime.post("numbers", "0", "input", {"n": n}).job_id for n in range(40)]
    delete(store_url, "jobs")
    if store_url.startswith("sqlite"):
        delete(store_url, "counts")
    with running(store_url, flow_of(Log())) as (runtime, worker):
        runtime.resume(worker)
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        runtime.shutdown()
    with looking(store_url) as store:
        assert {one.row.status for one in store.jobs()} == {"failed"}
        assert {one.row.job_id for one in store.jobs()} == set(jobs)
        assert {one.items for one in store.jobs()} == {0}
        assert len(store.letters()) == 40


# -- keys --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1])
def test_a_key_whose_job_was_pruned_answers_with_how_it_ended(store_url: str, n: int) -> None:
    with running(store_url, flow_of(Picky())) as (runtime, _):
        first = runtime.post("numbers", "0", "input", {"n": n}, idempotency_key="k").job_context
        assert first.wait(SECONDS)
        runtime.redrive(*runtime.dead_letters())
        runtime.wait_until_all_jobs_finished(SECONDS)
        for letter in runtime.dead_letters():  # a letter would keep the job
            assert letter.job_ids != (first.job_id,)
    assert prune_all(store_url) >= 1
    with running(store_url, flow_of(Picky())) as (runtime, worker):
        assert first.job_id not in [job.job_id for job in runtime.list_jobs()]
        again = runtime.post("numbers", "0", "input", {"n": n}, idempotency_key="k", timeout=SECONDS)
        assert (again.job_id, again.status) == (first.job_id, first.status)
        assert again.job_context.created_at == first.created_at
        assert again.job_context.completed_at is not None
        assert (again.job_context.error is None) == (n == 0)
        with pytest.raises(IdempotencyConflictError):
            runtime.post("numbers", "0", "input", {"n": 7}, idempotency_key="k", timeout=SECONDS)
        assert list(worker.shared_log) == [0][n:]  # it is not done again


def test_a_key_of_a_job_of_which_nothing_was_kept_answers_that_it_has_ended(store_url: str) -> None:
    """Format 1 kept nothing of a job that was pruned."""
    with running(store_url, flow_of(Log())) as (runtime, _):
        first = runtime.post("numbers", "0", "input", {"n": 1}, idempotency_key="k").job_context
        assert first.wait(SECONDS)
    prune_all(store_url)
    delete(store_url, "tombstones")
    with running(store_url, flow_of(Log())) as (runtime, worker):
        again = runtime.post("numbers", "0", "input", {"n": 1}, idempotency_key="k", timeout=SECONDS)
        assert (again.job_id, again.status) == (first.job_id, JobStatus.COMPLETED)
        assert again.job_context.wait(SECONDS)
        assert list(worker.shared_log) == [1]


def test_a_key_is_free_when_it_has_expired(store_url: str) -> None:
    with running(store_url, flow_of(Log())) as (runtime, _):
        first = runtime.post("numbers", "0", "input", {"n": 1}, idempotency_key="k").job_context
        assert first.wait(SECONDS)
    prune_all(store_url)
    with looking(store_url) as store:
        assert store.job(first.job_id) is not None
        store.prune(time.time() + 8 * 86_400, finished_before=0.0, keep_finished=10, limit=10)
        assert store.job(first.job_id) is None
    with running(store_url, flow_of(Log())) as (runtime, worker):
        again = runtime.post("numbers", "0", "input", {"n": 2}, idempotency_key="k").job_context
        assert again.wait(SECONDS)
        assert again.job_id != first.job_id
        assert list(worker.shared_log) == [1, 2]


def test_beside_a_runtime_it_is_safe_or_refused(store_url: str) -> None:
    flow = flow_of(Log())
    place = (flow, "0", "input")
    with running(store_url, flow) as (runtime, _):
        runtime.post(*place, {"n": 1}, job_id="j", idempotency_key="k").job_context.result(SECONDS)
        if store_url.startswith("sqlite"):
            with pytest.raises(StoreLockedError, match=f"process {os.getpid()}"):
                prune_all(store_url)
            return
        assert prune_all(store_url) > 0
        assert runtime.post(*place, {"n": 1}, idempotency_key="k").job_context.job_id == "j"
        runtime.post(*place, {"n": 2}, job_id="j2").job_context.result(SECONDS)
        assert {"j2"} <= {job.job_id for job in runtime.list_jobs()}
    assert check(store_url) == []
