"""What the manual promises of runtimes with a store, each promise on the public API.

docs/explanation/durability.md names the test of every promise: those that need more than one page to be shown are
elsewhere. A crash here is a child process that ends by ``os._exit`` in the middle of its work, with a SQLite store.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from routilux import ErrorHandler, ErrorStrategy, Flow, FlowRegistry, Routine, Runtime, current
from routilux.activation_policies import batch_size_policy, immediate_policy
from routilux.errors import (
    ConfigurationError,
    IdempotencyConflictError,
    QueueFullError,
    SerializationError,
    StateError,
    StoreFullError,
    StoreUnknownError,
)
from routilux.ports import Changes
from routilux.store.memory import MemoryStore
from routilux.testing import simulated
from tests.acceptance.parts import flow_of, step
from tests.docs.document import ROOT
from tests.waiting import SECONDS, eventually

KILLED = 9


# -- crashes -----------------------------------------------------------------------------------------------------


def crashed(url: str, body: str, *arguments: object) -> list[str]:
    """The lines that a program prints until it ends by ``os._exit(9)``. It has this module, ``url`` and ``args``."""
    prelude = "import os, sys\nfrom tests.acceptance.test_promises import *\n_, url, *args = sys.argv\n"
    done = subprocess.run(
        [sys.executable, "-c", prelude + textwrap.dedent(body), url, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "DEADLY": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (KILLED, "")
    return done.stdout.splitlines()


def die() -> None:
    sys.stdout.flush()
    os._exit(KILLED)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


@contextmanager
def drained(url: str, flow: Flow) -> Iterator[tuple[Runtime, Any]]:
    """A new runtime with the worker ``w`` as it was left, after everything in it has come to rest."""
    with Runtime(store=url) as runtime:
        worker = runtime.exec(flow, worker_id="w")
        if worker.status == "paused":
            runtime.resume(worker)
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        yield runtime, worker


# -- flows -------------------------------------------------------------------------------------------------------


class Count(Routine):
    """Writes to every place that a routine can write to. Then it dies or raises, if its item says so."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.add_event("output")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        [item] = slot_data["input"]
        state.update_routine_state("a", {"n": state.get_routine_state("a", {"n": 0})["n"] + 1})
        state.shared_data["n"] = state.shared_data.get("n", 0) + 1
        state.shared_log.append(item["n"])
        current().job.set_data("n", item["n"])
        current().job.trace("counted", n=item["n"])
        self.emit("output", **item)
        if item.get("deadly"):
            die_if_deadly()
        if item.get("raises"):
            raise ValueError("after everything else")


def die_if_deadly() -> None:
    """Only a program that is to crash dies here; the next one comes by."""
    if "DEADLY" in os.environ:
        die()


def effects(runtime: Runtime, worker: Any, *job_ids: str) -> list[Any]:
    """What is left of the activations of :class:`Count`."""
    jobs: list[Any] = [runtime.get_job(job_id) for job_id in job_ids]
    traces = [[entry["n"] for entry in job.trace_log if entry["action"] == "counted"] for job in jobs]
    return [
        worker.get_routine_state("a"),
        dict(worker.shared_data),
        list(worker.shared_log),
        [dict(job.data) for job in jobs],
        traces,
        [[output.data["n"] for output in job.outputs] for job in jobs],
    ]


def counting() -> Flow:
    return flow_of(Count())


def collecting(**slot_options: Any) -> Flow:
    """Appends each ``n`` to the shared log."""
    return flow_of(
        step(lambda routine, payload, state: state.shared_log.append(payload["n"]), **slot_options)
    )


def spreading(capacity: int, collect: Any) -> Flow:
    """One activation that emits many items into a small slot."""

    def spread(routine: Any, payload: Any, state: Any) -> None:
        for n in range(payload["count"]):
            routine.emit("output", n=n)

    flow = flow_of(step(spread), step(collect, max_queue_length=capacity))
    flow.connect("a", "output", "b", "input")
    return flow


def collect(routine: Any, payload: Any, state: Any) -> None:
    state.shared_log.append(payload["n"])
    if payload["n"] == 50:
        die_if_deadly()


def calling(file: str) -> Flow:
    """Writes down each call to the outside world, and dies after it."""

    def call(routine: Any, payload: Any, state: Any) -> None:
        with open(file, "a", encoding="utf-8") as calls:
            calls.write(current().idempotency_key("call") + "\n")
        die_if_deadly()

    return flow_of(step(call))


def calling_once(file: str) -> Flow:
    """The same through ``once``: the result is stored when it returns."""

    def call() -> str:
        with open(file, "a", encoding="utf-8") as calls:
            calls.write("called\n")
        return "receipt"

    def logic(routine: Any, payload: Any, state: Any) -> None:
        receipt = current().once("call", call)
        die_if_deadly()
        routine.emit("output", receipt=receipt)

    return flow_of(step(logic))


# -- 1 to 3: posts -----------------------------------------------------------------------------------------------


def test_a_post_in_memory_is_queued_and_counted_and_survives_nothing() -> None:
    flow = collecting()
    with Runtime() as runtime:
        worker = runtime.exec(flow, worker_id="w")
        runtime.pause(worker)
        job = runtime.post(flow, "a", "input", {"n": 1}).job_context
        assert (job.status, flow.routines["a"].stats(worker)["queued"]) == ("pending", 1)
        assert runtime.list_jobs(status="pending") == [job]
        runtime.shutdown(wait=False)
    with Runtime() as runtime:
        runtime.exec(flow, worker_id="w")
        assert runtime.get_job(job.job_id) is None


@pytest.mark.parametrize("durability", ["full", "process"])
def test_an_acknowledged_post_survives_the_death_of_the_process(url: str, durability: str) -> None:
    acknowledged = crashed(
        url,
        """
        runtime = Runtime(store=url, durability=args[0])
        flow = collecting()
        runtime.pause(runtime.exec(flow, worker_id="w"))
        for n in range(20):
            print(runtime.post(flow, "a", "input", {"n": n}).job_id)
        die()
        """,
        durability,
    )
    assert len(acknowledged) == 20
    with drained(url, collecting()) as (runtime, worker):
        assert list(worker.shared_log) == list(range(20))
        jobs: list[Any] = [runtime.get_job(job_id) for job_id in acknowledged]
        assert [job.status for job in jobs] == ["completed"] * 20


class FrailStore(MemoryStore):
    """Refuses what it is given as long as it has a ``refusal``; keeps it and does not answer while it is silent."""

    refusal: Exception | None = None
    silent = False

    def write(self, changes: Changes) -> frozenset[int]:
        if self.refusal is not None:
            raise self.refusal
        taken = super().write(changes)
        if self.silent:
            raise StoreUnknownError("the answer was lost")
        return taken

    def settle(self) -> bool:
        if self.silent:
            raise StoreUnknownError("nobody answers")
        return True


def test_a_post_that_the_store_refuses_was_not_accepted() -> None:
    store, flow = FrailStore(), collecting()
    with Runtime(store=store) as runtime:
        worker = runtime.exec(flow)
        store.refusal = StoreFullError("the disk is full")
        with pytest.raises(StoreFullError, match="the disk is full"):
            runtime.post(flow, "a", "input", {"n": 1}, job_id="refused")
        store.refusal = None
        assert runtime.post(flow, "a", "input", {"n": 2}).job_context.wait(SECONDS)
        assert (runtime.get_job("refused"), list(worker.shared_log)) == (None, [2])


def test_a_post_of_which_nobody_knows_is_accepted_once_when_it_is_repeated_with_its_key() -> None:
    store, flow = FrailStore(), collecting()
    with Runtime(store=store) as runtime:
        worker = runtime.exec(flow)
        store.silent = True
        with pytest.raises(StoreUnknownError, match="repeat the post with the same idempotency_key"):
            runtime.post(flow, "a", "input", {"n": 1}, idempotency_key="order-1")
        store.silent = False
        assert runtime.post(flow, "a", "input", {"n": 1}, idempotency_key="order-1").job_context.wait(SECONDS)
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        assert list(worker.shared_log) == [1]


def test_a_payload_without_a_json_form_is_refused_where_it_is_posted_or_emitted_and_named() -> None:
    flow = flow_of(step(lambda routine, payload, state: routine.emit("output", lock=Event())))
    with Runtime(store=MemoryStore()) as runtime:
        runtime.exec(flow)
        with pytest.raises(SerializationError, match=r"post\(\) to 'a\.input' at \$\.order\.client"):
            runtime.post(flow, "a", "input", {"order": {"client": Event()}})
        job = runtime.post(flow, "a", "input", {}).job_context
        assert job.wait(SECONDS)
        assert "routine 'a' event 'output' at $.lock" in str(job.error)


def test_a_post_that_finds_no_room_was_not_accepted() -> None:
    flow = collecting(max_queue_length=1)
    with Runtime(store=MemoryStore()) as runtime:
        worker = runtime.exec(flow)
        runtime.pause(worker)
        runtime.post(flow, "a", "input", {"n": 1})
        with pytest.raises(QueueFullError):
            runtime.post(flow, "a", "input", {"n": 2}, job_id="refused", timeout=0)
        runtime.resume(worker)
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        assert (runtime.get_job("refused"), list(worker.shared_log)) == (None, [1])


def test_a_key_gives_the_first_job_again_after_a_crash_and_another_payload_is_a_conflict(url: str) -> None:
    [job_id] = crashed(
        url,
        """
        runtime = Runtime(store=url)
        flow = collecting()
        runtime.pause(runtime.exec(flow, worker_id="w"))
        print(runtime.post(flow, "a", "input", {"n": 1}, idempotency_key="order-1").job_id)
        die()
        """,
    )
    flow = collecting()
    with drained(url, flow) as (runtime, worker):
        again = runtime.post(flow, "a", "input", {"n": 1}, idempotency_key="order-1")
        with pytest.raises(IdempotencyConflictError, match="'order-1'"):
            runtime.post(flow, "a", "input", {"n": 2}, idempotency_key="order-1")
        assert (again.job_id, again.status, list(worker.shared_log)) == (job_id, "completed", [1])


def test_a_key_is_free_again_after_seven_days() -> None:
    days, flow = 86_400.0, collecting()
    with simulated(1, store=MemoryStore()) as runtime:
        runtime.exec(flow)

        def post() -> str:
            return runtime.post(flow, "a", "input", {"n": 1}, idempotency_key="order-1").job_id

        first = post()
        runtime.simulation.clock.now += 6.9 * days
        assert post() == first
        runtime.simulation.clock.now += 0.2 * days
        assert post() != first


# -- 4 and 5: what takes effect ----------------------------------------------------------------------------------


def test_all_that_an_activation_does_takes_effect_once_although_it_was_cut_in_the_middle(url: str) -> None:
    crashed(
        url,
        """
        runtime = Runtime(store=url)
        flow = counting()
        runtime.exec(flow, worker_id="w")
        runtime.post(flow, "a", "input", {"n": 1}, job_id="first").job_context.wait(SECONDS)
        runtime.post(flow, "a", "input", {"n": 2, "deadly": True}, job_id="second").job_context.wait(SECONDS)
        """,
    )
    with drained(url, counting()) as (runtime, worker):
        assert effects(runtime, worker, "first", "second") == [
            {"n": 2},
            {"n": 2},
            [1, 2],
            [{"n": 1}, {"n": 2}],
            [[1], [2]],
            [[1], [2]],
        ]


def test_what_an_activation_emits_is_delivered_when_it_is_written() -> None:
    store, seen = FrailStore(), list[Any]()

    def watch(routine: Any, payload: Any, state: Any) -> None:
        state.shared_data["step"] = "changed"
        seen.append(state.shared_data["step"])
        routine.emit("output", **payload)
        store.silent = True

    flow = flow_of(step(watch), step(lambda routine, payload, state: seen.append("received")))
    flow.connect("a", "output", "b", "input")
    with Runtime(store=store) as runtime:
        runtime.exec(flow)
        job = runtime.post(flow, "a", "input", {}).job_context
        assert not job.wait(0.3)
        assert seen == ["changed"]
        store.silent = False
        assert job.wait(SECONDS)
        assert seen == ["changed", "received"]


def test_a_failed_activation_leaves_nothing_but_its_dead_letter() -> None:
    flow = flow_of(Count())
    flow.routines["a"].set_error_handler(ErrorHandler(ErrorStrategy.SKIP))
    with Runtime(store=MemoryStore()) as runtime:
        worker = runtime.exec(flow)
        runtime.post(flow, "a", "input", {"n": 1, "raises": True}, job_id="job").job_context.wait(SECONDS)
        assert effects(runtime, worker, "job") == [None, {}, [], [{}], [[]], [[]]]
        [letter] = runtime.dead_letters()
        assert (letter.reason, letter.data) == ("skipped", {"n": 1, "raises": True})


def test_code_that_was_not_committed_runs_again_with_the_same_key(url: str, tmp_path: Path) -> None:
    file = tmp_path / "calls"
    program = """
        runtime = Runtime(store=url)
        flow = calling(args[0])
        runtime.exec(flow, worker_id="w")
        runtime.post(flow, "a", "input", {}, idempotency_key="order").job_context.wait(SECONDS)
    """
    crashed(url, program, file)
    crashed(url, program, file)
    with drained(url, calling(str(file))):
        first, second, third = file.read_text(encoding="utf-8").splitlines()
    assert first == second == third


def test_once_is_not_called_again_after_it_has_returned(url: str, tmp_path: Path) -> None:
    file = tmp_path / "calls"
    crashed(
        url,
        """
        runtime = Runtime(store=url)
        flow = calling_once(args[0])
        runtime.exec(flow, worker_id="w")
        runtime.post(flow, "a", "input", {}, job_id="job").job_context.wait(SECONDS)
        """,
        file,
    )
    with drained(url, calling_once(str(file))) as (runtime, _):
        job = runtime.get_job("job")
        assert job is not None
        assert [output.data for output in job.outputs] == [{"receipt": "receipt"}]
        assert file.read_text(encoding="utf-8").splitlines() == ["called"]


def checkpointing() -> Flow:
    """Emits five numbers, with a checkpoint behind each second one, and dies in the middle."""

    def logic(routine: Any, payload: Any, state: Any) -> None:
        for n in range(current().checkpointed or 0, 5):
            routine.emit("output", n=n)
            if n % 2 == 1:
                current().checkpoint(n + 1)
            if n == 2:
                die_if_deadly()

    return flow_of(step(logic))


def test_a_checkpoint_is_where_the_next_attempt_goes_on(url: str) -> None:
    crashed(
        url,
        """
        runtime = Runtime(store=url)
        flow = checkpointing()
        runtime.exec(flow, worker_id="w")
        runtime.post(flow, "a", "input", {}, job_id="job").job_context.wait(SECONDS)
        """,
    )
    with Runtime(store=url) as runtime:
        stored = runtime.get_job("job")
        assert stored is not None
        assert [output.data["n"] for output in stored.outputs] == [0, 1]
    with drained(url, checkpointing()) as (runtime, _):
        job = runtime.get_job("job")
        assert job is not None
        assert [output.data["n"] for output in job.outputs] == [0, 1, 2, 3, 4]


def test_a_batch_that_had_begun_has_the_same_items_again(url: str, tmp_path: Path) -> None:
    file = tmp_path / "calls"
    crashed(
        url,
        """
        runtime = Runtime(store=url)
        flow = calling(args[0])
        flow.routines["a"].set_activation_policy(batch_size_policy(2))
        worker = runtime.exec(flow, worker_id="w")
        runtime.pause(worker)
        for n in range(3):
            job = runtime.post(flow, "a", "input", {"n": n}).job_context
        runtime.resume(worker)
        runtime.wait_until_all_jobs_finished(SECONDS)
        """,
        file,
    )
    flow = calling(str(file))
    flow.routines["a"].set_activation_policy(batch_size_policy(2))
    with drained(url, flow):
        keys = file.read_text(encoding="utf-8").splitlines()
    assert len(keys) == 1 + 2 + 1  # the first call, then one for each item of both batches
    assert keys[0] == keys[1] == keys[2] != keys[3]


# -- 6 to 10: items on their way ---------------------------------------------------------------------------------


def test_items_keep_their_order_in_a_small_slot_and_across_a_crash(url: str) -> None:
    crashed(
        url,
        """
        runtime = Runtime(store=url)
        flow = spreading(5, collect)
        runtime.exec(flow, worker_id="w")
        runtime.post(flow, "a", "input", {"count": 200}).job_context.wait(SECONDS)
        """,
    )
    with drained(url, spreading(5, collect)) as (_, worker):
        assert list(worker.shared_log) == list(range(200))


def test_a_slot_has_at_most_its_capacity_in_memory_and_the_rest_waits_in_the_store() -> None:
    longest: list[int] = []

    def look(routine: Any, payload: Any, state: Any) -> None:
        longest.append(routine.stats(state)["queued"])

    flow = spreading(5, look)
    with Runtime(store=MemoryStore()) as runtime:
        runtime.exec(flow)
        runtime.post(flow, "a", "input", {"count": 200}).job_context.result(SECONDS)
    assert len(longest) == 200
    assert max(longest) <= 5


def test_an_activation_that_emits_more_than_memory_may_hold_is_told_to_use_checkpoints(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("routilux.runtime.journal.activation.DRAFT_EMITS", 100)
    flow = spreading(5, collect)
    with Runtime(store=MemoryStore()) as runtime:
        worker = runtime.exec(flow)
        job = runtime.post(flow, "a", "input", {"count": 101}).job_context
        assert job.wait(SECONDS)
        assert "checkpoint" in str(job.error)
        assert list(worker.shared_log) == []


def test_drops_are_counted_and_traced_and_stay_dropped() -> None:
    store, flow = MemoryStore(), collecting(max_queue_length=2, on_full="drop_old")
    with Runtime(store=store) as runtime:
        worker = runtime.exec(flow, worker_id="w")
        runtime.pause(worker)
        jobs = [runtime.post(flow, "a", "input", {"n": n}).job_context for n in range(3)]
        assert jobs[0].wait(SECONDS)
        assert flow.routines["a"].stats(worker)["dropped"] == 1
        runtime.shutdown(wait=False)
    with Runtime(store=store) as runtime:
        worker = runtime.exec(flow, worker_id="w")
        runtime.resume(worker)
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        first = runtime.get_job(jobs[0].job_id)
        assert first is not None
        assert list(worker.shared_log) == [1, 2]
        assert [entry["reason"] for entry in first.trace_log] == ["slot full, oldest dropped"]


def test_a_retry_waits_the_time_that_was_left_also_after_a_restart() -> None:
    store, times = MemoryStore(), list[tuple[int, float]]()

    def fail_twice() -> Flow:
        def logic(routine: Any, payload: Any, state: Any) -> None:
            times.append((current().attempt, runtime.now))
            if current().attempt < 2:
                raise ConnectionError

        routine = step(logic)
        routine.set_error_handler(ErrorHandler(ErrorStrategy.RETRY, retry_delay=10.0))
        return flow_of(routine)

    with simulated(1, store=store) as runtime:
        flow = fail_twice()
        runtime.exec(flow, worker_id="w")
        runtime.post(flow, "a", "input", {})
        runtime.run(4.0)
        runtime.shutdown(wait=False)
    with simulated(2, store=store) as runtime:
        runtime.simulation.clock.now = 7.0
        runtime.exec(fail_twice(), worker_id="w")
        assert runtime.wait_until_all_jobs_finished()
    assert times == [(1, 0.0), (2, 10.0)]


# -- 11 to 14: pause, cancel, stop, save ---------------------------------------------------------------------------


def test_pauses_of_workers_and_jobs_survive_a_restart(url: str) -> None:
    crashed(
        url,
        """
        runtime = Runtime(store=url)
        flow = collecting()
        worker = runtime.exec(flow, worker_id="w")
        runtime.pause(worker)
        runtime.post(flow, "a", "input", {"n": 1}, job_id="paused")
        runtime.post(flow, "a", "input", {"n": 2}, job_id="other")
        runtime.pause("paused")
        die()
        """,
    )
    with Runtime(store=url) as runtime:
        worker = runtime.exec(collecting(), worker_id="w")
        assert (worker.status, list(worker.shared_log)) == ("paused", [])
        runtime.resume(worker)
        other, paused = runtime.get_job("other"), runtime.get_job("paused")
        assert other is not None
        assert paused is not None
        assert other.wait(SECONDS)
        assert (paused.paused, list(worker.shared_log)) == (True, [2])
        runtime.resume("paused")
        assert paused.wait(SECONDS)
        assert list(worker.shared_log) == [2, 1]


def test_a_cancelled_job_stays_cancelled_after_a_crash(url: str) -> None:
    crashed(
        url,
        """
        runtime = Runtime(store=url)
        flow = collecting()
        runtime.pause(runtime.exec(flow, worker_id="w"))
        runtime.post(flow, "a", "input", {"n": 1}, job_id="cancelled")
        runtime.post(flow, "a", "input", {"n": 2}, job_id="other")
        runtime.cancel("cancelled")
        die()
        """,
    )
    with drained(url, collecting()) as (runtime, worker):
        jobs: list[Any] = [runtime.get_job(job_id) for job_id in ("cancelled", "other")]
        assert [job.status for job in jobs] == ["cancelled", "completed"]
        assert (list(worker.shared_log), runtime.dead_letters()) == ([2], [])


def test_a_named_worker_outlives_its_runtime_and_ends_when_it_is_stopped(url: str) -> None:
    flow = collecting()
    with Runtime(store=url) as runtime:
        runtime.exec(flow, worker_id="w").shared_data["k"] = 1
        runtime.exec(flow, worker_id="other")
    with Runtime(store=url) as runtime:
        assert {state.worker_id for state in runtime.recover(flows=[flow])} == {"w", "other"}
        worker = runtime.get_worker("w")
        assert worker is not None
        assert dict(worker.shared_data) == {"k": 1}
        assert runtime.stop(worker)
    with Runtime(store=url) as runtime:
        assert [state.worker_id for state in runtime.recover(flows=[flow])] == ["other"]
        assert dict(runtime.exec(flow, worker_id="w").shared_data) == {}


def test_a_runtime_that_stops_without_draining_leaves_its_jobs_to_the_next_one(url: str) -> None:
    flow = collecting()
    with Runtime(store=url) as runtime:
        worker = runtime.exec(flow, worker_id="w")
        runtime.pause(worker)
        job = runtime.post(flow, "a", "input", {"n": 1}).job_context
        assert runtime.shutdown(wait=False)
        assert (job.status, job.left, job.wait(SECONDS)) == ("pending", True, False)
    with Runtime(store=url) as runtime:
        [waiting] = runtime.list_jobs()
        assert (waiting.job_id, waiting.status, waiting.left) == (job.job_id, "pending", True)
    with drained(url, flow) as (runtime, _):
        assert [job.status for job in runtime.list_jobs()] == ["completed"]


def test_what_is_not_all_in_memory_is_not_saved_to_a_file(url: str, tmp_path: Path) -> None:
    paused = Event()

    def pause(routine: Any, payload: Any, state: Any) -> None:
        runtime.pause(state)
        paused.set()

    with Runtime(store=url) as runtime:
        flow = spreading(5, pause)
        worker = runtime.exec(flow)
        runtime.post(flow, "a", "input", {"count": 20})
        assert paused.wait(SECONDS)
        runtime.pause(worker)  # returns when what ran has ended
        with pytest.raises(StateError, match="the store is its copy"):
            worker.save(tmp_path / "state.json")
        assert not (tmp_path / "state.json").exists()


# -- 15 to 21: stores --------------------------------------------------------------------------------------------


def test_every_unfinished_worker_is_opened_again_and_what_is_not_is_listed_with_the_reason(url: str) -> None:
    first, second = collecting(), flow_of(Count(), flow_id="unknown")
    with Runtime(store=url) as runtime:
        for flow in (first, second):
            runtime.exec(flow, worker_id=flow.flow_id)
    with Runtime(store=url) as runtime:
        recovered = runtime.recover(flows=[first])
        assert [state.worker_id for state in recovered] == [first.flow_id]
        (left,) = recovered.not_reopened
        assert (left.worker_id, left.flow_id) == ("unknown", "unknown")
        assert left.reason.startswith("flow 'unknown' is not registered; give it: recover(flows=[flow])")


def test_a_misspelt_answer_to_a_changed_flow_adopts_nothing() -> None:
    with Runtime(store=MemoryStore()) as runtime:
        for call in (runtime.recover, partial(runtime.exec, collecting(), worker_id="w")):
            with pytest.raises(ConfigurationError, match="'adopt'"):
                call(on_flow_change="adpot")
        assert runtime.list_workers() == []


def test_an_execution_of_the_same_job_id_is_the_same_execution(url: str) -> None:
    crashed(
        url,
        """
        runtime = Runtime(store=url)
        runtime.exec(counting(), entry_params={"n": 1, "deadly": True}, job_id="2026-11-21").wait(SECONDS)
        """,
    )
    for _ in range(2):  # the first goes on, the second finds it finished
        with Runtime(store=url) as runtime:
            state = runtime.exec(counting(), entry_params={"n": 1}, job_id="2026-11-21")
            assert state.wait(SECONDS)
            assert (state.status, state.get_routine_state("a")) == ("completed", {"n": 1})
            assert [output.data["n"] for output in state.outputs] == [1]
            assert len(runtime.list_jobs()) == 1


def test_a_store_that_takes_nothing_makes_work_wait_and_it_goes_on_by_itself() -> None:
    store, begun = FrailStore(), Event()

    def logic(routine: Any, payload: Any, state: Any) -> None:
        store.refusal = StoreFullError("the disk is full")
        state.shared_log.append(payload["n"])
        begun.set()

    flow = flow_of(step(logic))
    with Runtime(store=store) as runtime:
        worker = runtime.exec(flow)
        job = runtime.post(flow, "a", "input", {"n": 1}).job_context
        assert begun.wait(SECONDS)
        with pytest.raises(StoreFullError):
            runtime.post(flow, "a", "input", {"n": 2})
        assert (job.status.finished, runtime.health()) == (False, ("degraded", "the disk is full"))
        store.refusal = None
        assert job.wait(SECONDS)
        eventually(lambda: runtime.health() == ("ok", None), "the store is asked again")
        assert list(worker.shared_log) == [1]


def test_dead_letters_are_kept_across_a_restart_and_driven_again_once(url: str) -> None:
    flow = counting()
    with Runtime(store=url) as runtime:
        runtime.exec(flow, worker_id="w")
        job = runtime.post(flow, "a", "input", {"n": 1, "raises": True}).job_context
        assert job.wait(SECONDS)
    with Runtime(store=url) as runtime:
        worker = runtime.exec(collecting(), worker_id="w", on_flow_change="adopt")
        [letter] = runtime.dead_letters(worker="w")
        [again] = runtime.redrive(letter)
        assert again.job_context.wait(SECONDS)
        assert (runtime.dead_letters(), list(worker.shared_log)) == ([], [1])
        with pytest.raises(StateError, match="driven again already"):
            runtime.redrive(letter)


def test_finished_jobs_are_listed_page_by_page(url: str) -> None:
    flow = collecting()
    with Runtime(store=url) as runtime:
        runtime.exec(flow, worker_id="w")
        posted = [runtime.post(flow, "a", "input", {"n": n}).job_id for n in range(25)]
    with Runtime(store=url) as runtime:
        pages, cursor = list[list[Any]](), None
        while page := runtime.list_jobs(status="completed", flow=flow, limit=10, cursor=cursor):
            pages.append([job.job_id for job in page])
            cursor = page[-1]
        assert [len(page) for page in pages] == [10, 10, 5]
        assert {job_id for page in pages for job_id in page} == set(posted)


@pytest.mark.parametrize("years", [-10, 10])
def test_clock_jumps_change_no_outcome(years: int, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[float] = []

    def logic(routine: Any, payload: Any, state: Any) -> None:
        times.append(runtime.now)
        if current().attempt < 3:
            raise ConnectionError
        routine.emit("output", n=1)

    routine = step(logic)
    routine.set_error_handler(ErrorHandler(ErrorStrategy.RETRY, retry_delay=10.0, retry_backoff=1.0))
    flow = flow_of(routine)
    with simulated(1, store=MemoryStore()) as runtime:
        runtime.exec(flow)
        job = runtime.post(flow, "a", "input", {}).job_context
        runtime.run(5.0)
        clock = runtime.simulation.clock
        monkeypatch.setattr(clock, "time", lambda: 1_577_836_800.0 + years * 31_557_600 + clock.now)
        assert job.wait()
        assert (times, len(job.outputs)) == ([0.0, 10.0, 20.0], 1)


def test_a_worker_of_a_changed_flow_is_refused_and_its_jobs_blocked_until_it_is_adopted(url: str) -> None:
    before = flow_of(step(lambda routine, payload, state: None), step(lambda routine, payload, state: None))
    with Runtime(store=url) as runtime:
        worker = runtime.exec(before, worker_id="w")
        runtime.pause(worker)
        runtime.post(before, "a", "input", {"n": 1}, job_id="stays")
        runtime.post(before, "b", "input", {"n": 2}, job_id="goes")
        runtime.shutdown(wait=False)
    after = collecting()
    registry = FlowRegistry()
    registry.register(after)
    with Runtime(store=url, registry=registry) as runtime:
        with pytest.raises(StateError, match="on_flow_change='adopt'"):
            runtime.exec(after, worker_id="w")
        assert [job.blocked for job in runtime.list_jobs()] == ["flow changed"] * 2
        assert runtime.recover(flows=[after]) == []
    with Runtime(store=url) as runtime:
        worker = runtime.exec(after, worker_id="w", on_flow_change="adopt")
        runtime.resume(worker)
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        assert list(worker.shared_log) == [1]
        [letter] = runtime.dead_letters()
        assert (letter.reason, letter.routine_id, letter.data) == ("flow changed", "b", {"n": 2})
