"""Pause, resume, cancel and stop from other threads, in the middle of the work."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any

import pytest

from routilux import Flow, JobContext, Routine, Runtime, WorkerState
from routilux.activation_policies import all_slots_ready_policy, batch_size_policy
from routilux.errors import ExecutionTimeoutError, QueueFullError, RuntimeClosedError, StateError
from routilux.kernel.account import JobAccount
from routilux.kernel.activation import Activation
from routilux.kernel.mailbox import Mailbox, SlotQueue
from tests.acceptance.parts import Held, Step, chain, flow_of, join, outputs_of, step
from tests.waiting import SECONDS, eventually


@pytest.fixture(autouse=True)
def nervous_threads() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def post(runtime: Runtime, flow: Flow, data: dict[str, Any] | None = None, **options: Any) -> JobContext:
    return runtime.post(flow, "a", "input", data or {}, **options).job_context


class Watched:
    """Logic that knows how much of it runs now: ``step(watched)``."""

    def __init__(self, passing: bool = True) -> None:
        self.lock = Lock()
        self.running = Counter[str]()
        self.started = 0
        self.some = Event()
        self.passing = passing

    def __call__(self, routine: Routine, payload: Any, state: Any) -> None:
        with self.lock:
            self.running[payload["job"]] += 1
            self.started += 1
            if self.started > 20:
                self.some.set()
        if self.passing:
            routine.emit("output", **payload)
        with self.lock:
            self.running[payload["job"]] -= 1


def names(kind: str, worker: Any, posted: Any) -> Any:
    """A target in each form that it can be given in."""
    return {
        "worker state": worker,
        "worker id": worker.worker_id,
        "job": posted.job_context,
        "job id": posted.job_id,
        "posted": posted,
    }[kind]


@pytest.mark.parametrize("kind", ["worker state", "worker id", "job", "job id", "posted"])
def test_target_is_given_as_its_state_or_its_id(kind: str) -> None:
    with Runtime(thread_pool_size=2) as runtime:
        flow = flow_of(Step())
        worker = runtime.exec(flow)
        runtime.pause(worker)
        posted = runtime.post(flow, "a", "input", {"n": 1})
        runtime.resume(worker) if "worker" not in kind else None
        target = names(kind, worker, posted)
        runtime.pause(target)
        second = runtime.post(flow, "a", "input", {"n": 2}).job_context
        assert second.wait(0 if "worker" in kind else SECONDS) is ("worker" not in kind)
        runtime.resume(target)
        assert posted.job_context.wait(SECONDS)
        third = runtime.post(flow, "a", "input", {"n": 3})
        runtime.cancel(target if "worker" in kind else third)
        assert third.job_context.wait(SECONDS)
        assert worker.status == ("stopped" if "worker" in kind else "running")


# -- pause -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_when_the_pause_of_a_worker_returns_nothing_runs_and_nothing_starts(threads: int) -> None:
    watched = Watched()
    flow = chain(step(watched), step(watched), step(Watched(passing=False)))
    with Runtime(thread_pool_size=threads) as runtime:
        worker = runtime.exec(flow)
        for _ in range(300):
            post(runtime, flow, {"job": "any"})
        for _ in range(20):
            runtime.pause(worker)
            with watched.lock:
                before = watched.started, sum(watched.running.values())
            assert worker.status == "paused"
            assert before[1] == 0
            post(runtime, flow, {"job": "any"})
            with watched.lock:
                assert (watched.started, sum(watched.running.values())) == before
            runtime.resume(worker)
            assert worker.status == "running"
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        assert {job.status for job in runtime.list_jobs()} == {"completed"}


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_when_the_pause_of_a_job_returns_nothing_of_it_runs_and_others_go_on(threads: int) -> None:
    watched = Watched()
    many = step(lambda routine, payload, state: [routine.emit("output", **payload) for _ in range(300)])
    flow = chain(many, step(watched), step(Watched(passing=False)))
    with Runtime(thread_pool_size=threads) as runtime:
        runtime.exec(flow)
        job, other = post(runtime, flow, {"job": "one"}), post(runtime, flow, {"job": "other"})
        assert watched.some.wait(SECONDS)
        for _ in range(10):
            runtime.pause(job)
            with watched.lock:
                assert watched.running["one"] == 0
            runtime.resume(job)
        runtime.pause(job)
        assert other.wait(SECONDS)
        assert other.status == "completed"
        assert job.status in ("running", "completed")
        runtime.resume(job)
        assert job.wait(SECONDS)
        assert (job.status, len(job.outputs)) == ("completed", 0)
        assert flow.routines["c"].stats(runtime.list_workers()[0])["activations"] == 600


def test_pause_that_takes_too_long_names_what_still_runs_and_stays() -> None:
    held = Held()
    with Runtime(thread_pool_size=1) as runtime:
        flow = flow_of(step(held))
        worker = runtime.exec(flow)
        first, second = post(runtime, flow, {"n": 1}), post(runtime, flow, {"n": 2})
        assert held.entered.wait(SECONDS)
        for target in (worker, first):
            with pytest.raises(ExecutionTimeoutError, match=r"these routines of worker .* still run: a"):
                runtime.pause(target, timeout=0.01)
        held.let_go.set()
        assert second.wait(0) is False
        assert worker.status == "paused"
        runtime.resume(first)
        runtime.resume(worker)
        assert second.wait(SECONDS)


@pytest.mark.parametrize("threads", [1, 2])
def test_pause_of_a_worker_lets_what_runs_end_although_it_waits_for_room(threads: int) -> None:
    """Its own thread runs what makes room, and nothing else starts."""
    begun, paused = Event(), Event()

    def many(routine: Routine, payload: Any, state: Any) -> None:
        begun.set()
        assert paused.wait(SECONDS)
        for n in range(20):
            routine.emit("output", n=n)

    flow = chain(step(many), step(lambda routine, payload, state: None, max_queue_length=2))
    with Runtime(thread_pool_size=threads) as runtime:
        worker = runtime.exec(flow)
        job = post(runtime, flow)
        assert begun.wait(SECONDS)
        pausing = Thread(target=runtime.pause, args=(worker,))
        pausing.start()
        eventually(lambda: worker.status == "paused")
        paused.set()
        pausing.join(SECONDS)
        assert not pausing.is_alive()
        stats = flow.routines["b"].stats(worker)
        assert (stats["queued"], stats["activations"]) == (2, 18)
        runtime.resume(worker)
        assert job.wait(SECONDS)
        assert job.status == "completed"


@pytest.mark.parametrize("threads", [1, 2])
def test_pause_of_a_job_lets_what_runs_end_although_it_waits_for_room_among_its_own_items(
    threads: int,
) -> None:
    begun, paused = Event(), Event()

    def many(routine: Routine, payload: Any, state: Any) -> None:
        begun.set()
        assert paused.wait(SECONDS)
        for n in range(20):
            routine.emit("output", n=n)

    def see(routine: Routine, payload: Any, state: Any) -> None:
        if payload["n"] == 17:  # its start made room for the last
            eventually(lambda: not job.account.waits)
        seen.append(payload["n"])

    seen: list[int] = []
    flow = chain(step(many), step(see, max_queue_length=2))
    with Runtime(thread_pool_size=threads) as runtime:
        runtime.exec(flow)
        job = post(runtime, flow)
        assert begun.wait(SECONDS)
        with pytest.raises(ExecutionTimeoutError, match="still run: a"):
            runtime.pause(job, timeout=0)
        paused.set()
        runtime.pause(job, timeout=SECONDS)
        at_rest = list(seen)
        assert job.paused
        assert at_rest in (
            list(range(17)),
            list(range(18)),
        )  # its start made room; it may be put back before its logic
        runtime.resume(job)
        assert job.wait(SECONDS)
        assert (job.status, seen) == ("completed", list(range(20)))


def test_paused_worker_runs_nothing_also_not_to_make_room_for_somebody_else() -> None:
    """A routine that posts to a full slot of another worker helps that one along, but not if it is paused."""
    watched = Watched(passing=False)
    other = flow_of(step(watched, max_queue_length=1), flow_id="other")
    raised: list[QueueFullError] = []

    def posts(routine: Routine, payload: Any, state: Any) -> None:
        try:
            for _ in range(3):
                runtime.post(other, "a", "input", {"job": "x"}, timeout=0.02)
        except QueueFullError as error:
            raised.append(error)

    with Runtime(thread_pool_size=1) as runtime:
        flow = flow_of(step(posts))
        runtime.exec(flow)
        paused = runtime.exec(other)
        runtime.pause(paused)
        assert post(runtime, flow).wait(SECONDS)
        assert (len(raised), watched.started) == (1, 0)
        runtime.resume(paused)


def test_pause_is_kept_while_items_arrive_retries_are_due_and_batches_fill() -> None:
    flow = chain(Step(), Step().set_activation_policy(batch_size_policy(2)))
    with Runtime(thread_pool_size=2) as runtime:
        worker = runtime.exec(flow)
        runtime.pause(worker)
        jobs = [post(runtime, flow, {"n": n}) for n in range(4)]
        assert runtime.wait_until_all_jobs_finished(timeout=0.02) is False
        assert {job.status for job in jobs} == {"pending"}
        assert worker.execution_history == []
        runtime.resume(worker)
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        assert {job.status for job in jobs} == {"completed"}


# -- save ------------------------------------------------------------------------------------------------------


def begun_saving(worker: Any, path: Path) -> Thread:
    """A thread that saves and waits for what runs; returns as soon as it holds the worker."""
    saving = Thread(target=worker.save, args=(path,))
    saving.start()
    eventually(lambda: worker.control.queue.held)
    return saving


def waits_for(event: Event, begun: Event, seen: list[int]) -> Step:
    def logic(routine: Routine, payload: Any, state: Any) -> None:
        begun.set()
        assert event.wait(SECONDS)
        seen.append(payload["n"])

    return step(logic)


def test_pause_in_the_middle_of_a_save_lasts_beyond_it(tmp_path: Path) -> None:
    go, begun, seen = Event(), Event(), list[int]()
    flow = flow_of(waits_for(go, begun, seen))
    with Runtime(thread_pool_size=2) as runtime:
        worker = runtime.exec(flow)
        jobs = [post(runtime, flow, {"n": n}) for n in range(2)]
        assert begun.wait(SECONDS)
        saving = begun_saving(worker, tmp_path / "state.json")
        with pytest.raises(ExecutionTimeoutError):
            runtime.pause(worker, timeout=0)
        go.set()
        saving.join(SECONDS)
        runtime.pause(worker)
        assert (seen, [job.status for job in jobs]) == ([0], ["completed", "pending"])
        runtime.resume(worker)
        assert jobs[1].wait(SECONDS)


def test_resume_in_the_middle_of_a_save_takes_effect_after_it(tmp_path: Path) -> None:
    go, begun, seen = Event(), Event(), list[int]()
    flow = flow_of(waits_for(go, begun, seen))
    with Runtime(thread_pool_size=2) as runtime:
        worker = runtime.exec(flow)
        jobs = [post(runtime, flow, {"n": n}) for n in range(2)]
        assert begun.wait(SECONDS)
        saving = begun_saving(worker, tmp_path / "state.json")
        runtime.resume(worker)
        assert worker.control.queue.held
        go.set()
        saving.join(SECONDS)
        assert jobs[1].wait(SECONDS)
    queued = WorkerState.load(tmp_path / "state.json").saved["mailboxes"]["a"]["items"]
    assert [item["data"] for item in queued] == [{"n": 1}]


@pytest.mark.parametrize("end", ["shutdown", "stop"])
def test_worker_that_is_being_saved_is_drained_like_any_other(end: str, tmp_path: Path) -> None:
    go, begun, seen = Event(), Event(), list[int]()
    flow = flow_of(waits_for(go, begun, seen))
    runtime = Runtime(thread_pool_size=2)
    worker = runtime.exec(flow)
    jobs = [post(runtime, flow, {"n": n}) for n in range(5)]
    assert begun.wait(SECONDS)
    saving = begun_saving(worker, tmp_path / "state.json")
    ending = Thread(
        target=runtime.shutdown if end == "shutdown" else runtime.stop,
        args=() if end == "shutdown" else (worker,),
    )
    ending.start()
    go.set()
    ending.join(SECONDS)
    saving.join(SECONDS)
    runtime.shutdown()
    assert (seen, [job.status for job in jobs]) == ([0, 1, 2, 3, 4], ["completed"] * 5)


def test_saved_payloads_are_those_of_the_cut_whatever_logic_does_to_them_later(tmp_path: Path) -> None:
    flow = flow_of(step(lambda routine, payload, state: payload["seen"].append(1)))
    path = tmp_path / "state.json"
    with Runtime(thread_pool_size=2) as runtime:
        worker = runtime.exec(flow)
        runtime.pause(worker)
        for n in range(900):
            post(runtime, flow, {"n": n, "seen": []})
        runtime.resume(worker)
        worker.save(path)
    queued = WorkerState.load(path).saved["mailboxes"]["a"]["items"]
    assert [item["data"] for item in queued] == [{"n": n, "seen": []} for n in range(900 - len(queued), 900)]


def test_workers_that_are_saved_from_several_threads_go_on_after_the_last(tmp_path: Path) -> None:
    seen: list[int] = []
    flow = flow_of(step(lambda routine, payload, state: seen.append(payload["n"])))
    with Runtime(thread_pool_size=2) as runtime:
        worker = runtime.exec(flow)
        saving = [Thread(target=worker.save, args=(tmp_path / f"{n}.json",)) for n in range(8)]
        for thread in saving:
            thread.start()
        for n in range(200):
            post(runtime, flow, {"n": n})
        for thread in saving:
            thread.join(SECONDS)
        assert runtime.wait_until_all_jobs_finished(SECONDS)
    assert seen == list(range(200))
    for n in range(8):
        body = WorkerState.load(tmp_path / f"{n}.json").saved
        ended = [row[3] for row in body["history"]]
        numbers = [item["data"]["n"] for item in body["mailboxes"]["a"]["items"]]
        assert numbers == list(range(len(ended), len(ended) + len(numbers)))


# -- cancel ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_when_cancel_returns_nothing_of_the_job_starts_any_more_and_its_items_are_gone(threads: int) -> None:
    started: list[str] = []
    some = Event()

    def counts(routine: Routine, payload: Any, state: Any) -> None:
        started.append(payload["job"])
        if len(started) > 50:
            some.set()

    def many(routine: Routine, payload: Any, state: Any) -> None:
        number = 3000 if payload["job"] == "other" else 10**9  # the other one has no end
        for _ in range(number):
            routine.emit("output", **payload)

    flow = chain(step(many).set_concurrency(2), step(counts, max_queue_length=50))
    with Runtime(thread_pool_size=threads) as runtime:
        worker = runtime.exec(flow)
        job, other = post(runtime, flow, {"job": "one"}), post(runtime, flow, {"job": "other"})
        assert some.wait(SECONDS)
        runtime.cancel(job)
        assert job.status == "cancelled"
        of_job = flow.routines["b"].stats(worker)["running"] + started.count("one")
        assert other.wait(SECONDS)
        assert started.count("one") <= of_job
        assert (other.status, started.count("other")) == ("completed", 3000)
        assert flow.routines["b"].stats(worker)["queued"] == 0
        assert runtime.dead_letters(job=job) == []


def test_cancelled_worker_takes_all_its_jobs_with_it() -> None:
    held = Held()
    with Runtime(thread_pool_size=2) as runtime:
        flow = flow_of(step(held))
        worker = runtime.exec(flow)
        jobs = [post(runtime, flow, {"n": n}) for n in range(5)]
        assert held.entered.wait(SECONDS)
        runtime.cancel(worker)
        assert {job.status for job in jobs} == {"cancelled"}
        assert (worker.status, flow.in_use) == ("stopped", 0)
        with pytest.raises(StateError):
            post(runtime, flow)
        held.let_go.set()


def test_cancel_of_what_has_ended_changes_nothing() -> None:
    with Runtime(thread_pool_size=1) as runtime:
        flow = flow_of(Step())
        worker = runtime.exec(flow)
        job = post(runtime, flow, {"n": 1})
        assert job.wait(SECONDS)
        runtime.cancel(job)
        assert (job.status, outputs_of(job)) == ("completed", [{"n": 1}])
        runtime.stop(worker)
        runtime.cancel(worker)
        assert worker.status == "stopped"


def test_cancel_of_one_of_two_jobs_leaves_what_belongs_to_both() -> None:
    with Runtime(thread_pool_size=1) as runtime:
        flow = flow_of(join(all_slots_ready_policy()), Step())
        flow.connect("a", "output", "b", "input")
        runtime.exec(flow)
        left = runtime.post(flow, "a", "left", {"n": 1}).job_context
        assert left.wait(SECONDS)
        right = runtime.post(flow, "a", "right", {"n": 2}).job_context
        assert right.wait(SECONDS)
        assert len(right.outputs) == 1


@pytest.mark.parametrize("threads", [1, 4])
def test_job_ends_exactly_once_however_it_ends(threads: int) -> None:
    """Cancelled, failed and completed at the same moment: everybody sees one end."""
    with Runtime(thread_pool_size=threads) as runtime:
        flow = chain(Step(), step(lambda routine, payload, state: 1 / (payload["n"] % 2)))
        runtime.exec(flow)
        for n in range(300):
            job = post(runtime, flow, {"n": n})
            ends: list[str] = []
            job.on_end(lambda job=job, ends=ends: ends.append(job.status))
            runtime.cancel(job)
            assert job.wait(SECONDS)
            assert ends == [job.status]
            assert job.status in ("cancelled", "completed", "failed")
        assert runtime.wait_until_all_jobs_finished(SECONDS)


# -- all at once -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_everybody_intervenes_at_once_and_every_job_ends(seed: int) -> None:
    """Threads post, pause, resume and cancel for a while; then everything comes to its end, and nothing is left."""
    random = Random(seed)
    flow = flow_of(
        step(lambda routine, payload, state: [routine.emit("output", n=n) for n in range(5)]),
        step(lambda routine, payload, state: routine.emit("output", **payload), max_queue_length=3),
        step(lambda routine, payload, state: routine.emit("output", **payload), max_queue_length=3),
        Step().set_activation_policy(batch_size_policy(3)),
    )
    for source, target in ("ab", "ac", "bd", "cd"):
        flow.connect(source, "output", target, "input")
    jobs: list[JobContext] = []
    stop = Event()
    errors: list[BaseException] = []
    runtime = Runtime(thread_pool_size=random.choice([1, 2, 4]))
    worker = runtime.exec(flow)

    def forever(action: Any) -> None:
        try:
            while not stop.is_set():
                action()
        except BaseException as error:
            errors.append(error)

    def posts() -> None:
        try:
            jobs.append(post(runtime, flow, timeout=0.01))
        except QueueFullError:
            pass
        if len(jobs) > 400:
            stop.set()

    def pauses(target: Any) -> None:
        try:
            runtime.pause(target, timeout=0.05)
        except ExecutionTimeoutError:
            pass  # what runs waits for room that items of a paused job take up
        finally:
            runtime.resume(target)

    def pauses_the_worker() -> None:
        pauses(worker)

    def pauses_a_job() -> None:
        if jobs:
            pauses(random.choice(jobs))

    def cancels() -> None:
        if jobs:
            runtime.cancel(random.choice(jobs))
        runtime.wait_until_all_jobs_finished(timeout=0.001)

    threads = [
        Thread(target=forever, args=(action,))
        for action in (posts, posts, pauses_the_worker, pauses_a_job, cancels)
    ]
    for thread in threads:
        thread.start()
    deadline = monotonic() + SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - monotonic()))
    stop.set()
    for thread in threads:
        thread.join(SECONDS)
    assert errors == []
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    assert {job.status for job in jobs} <= {"completed", "cancelled"}
    for routine in flow.routines.values():
        stats = routine.stats(worker)
        assert (stats["queued"], stats["running"], stats["failed"]) == (0, 0, stats["failed"])
    assert all(job.parked == 0 for job in jobs if job.status == "completed")
    assert runtime.shutdown(timeout=SECONDS)


@pytest.mark.parametrize("seed", range(4))
def test_shutdown_in_the_middle_of_everything_ends_everything(seed: int) -> None:
    random = Random(seed)
    many = step(lambda routine, payload, state: [routine.emit("output") for _ in range(20)])
    flow = chain(many, step(lambda routine, payload, state: None, max_queue_length=3))
    runtime = Runtime(thread_pool_size=random.choice([1, 2, 4]), max_queue_size=10)
    worker = runtime.exec(flow)
    jobs: list[JobContext] = []
    some = Event()

    def posts() -> None:
        try:
            while True:
                jobs.append(post(runtime, flow))
                if len(jobs) > 50:
                    some.set()
        except (RuntimeClosedError, StateError):
            pass

    threads = [Thread(target=posts) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert some.wait(SECONDS)
    assert runtime.shutdown(wait=random.random() < 0.5, timeout=SECONDS)
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive()
    assert {job.status for job in jobs} <= {"completed", "cancelled"}
    assert (worker.status, flow.in_use) == ("stopped", 0)
    assert [job for job in runtime.list_jobs() if job.status not in ("completed", "cancelled")] == []


# -- a flag that changes while it is looked at ---------------------------------------------------------------------


class Restless(JobAccount):
    """An account whose job may be paused or resumed between any two looks at it."""

    random = Random()

    @property
    def paused(self) -> bool:  # type: ignore[override]
        return self.random.random() < 0.05

    @paused.setter
    def paused(self, paused: bool) -> None:
        pass


@pytest.mark.parametrize("seed", range(20))
def test_no_item_is_lost_while_its_job_is_paused_and_resumed_again_and_again(seed: int) -> None:
    slot = SlotQueue("input", 100, 50, "block")
    mailbox = Mailbox("a", [slot], gathering=None, concurrency=1, lock=Lock())
    account = Restless(Lock())
    account.random = Random(seed)
    account.halted = True
    for number in range(20):
        account.add()
        mailbox.offer((number, "input", {}, account, "post", 0.0))
    handed_out: list[int] = []
    for _ in range(2000):
        answer = mailbox.next(0.0)
        if isinstance(answer, Activation):
            handed_out += [item[0] for item in answer.batch]
            mailbox.finish(answer, 0.0)
        mailbox.release_held()
        kept = [item[0] for item in mailbox.snapshot()[0]]
        assert sorted([*handed_out, *kept]) == list(range(20))
    assert (len(handed_out), slot.length) == (20, 0)
