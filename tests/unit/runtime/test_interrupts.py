"""Ctrl-C ends every wait on the main thread, also where the system does not interrupt the call that it waits in."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition, Event, Thread, Timer
from time import monotonic
from typing import Any

import pytest

from routilux import Flow, Routine, Runtime
from routilux.activation_policies import immediate_policy
from routilux.runtime.attendant import Attendant
from routilux.runtime.book import JobBook
from routilux.runtime.journal import admission
from routilux.runtime.journal.log import Journal
from routilux.runtime.pool import RunQueue
from routilux.runtime.timers import Timers
from routilux.runtime.waiting import ThreadSignal
from routilux.runtime.worker import Worker
from routilux.store.memory import MemoryStore
from tests.processes import interruptible
from tests.waiting import SECONDS, eventually

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")


class Step(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input", max_queue_length=1)
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None: ...


def interrupt_without_waking() -> None:
    """The signal is taken by another thread, so that the call in which the main thread blocks goes on."""
    Thread(target=signal.raise_signal, args=(signal.SIGINT,)).start()


def is_interrupted(wait: Callable[[], object]) -> bool:
    try:
        interrupt_without_waking()
        wait()
    except KeyboardInterrupt:
        return True
    return False


@pytest.mark.parametrize("timeout", [None, 1_000.0])
def test_a_signal_that_no_call_was_interrupted_by_ends_a_wait(timeout: float | None) -> None:
    with interruptible():
        assert is_interrupted(lambda: ThreadSignal().wait(timeout))


WAITS: dict[str, Callable[[Runtime, Any, Any], object]] = {
    "wait_until_all_jobs_finished": lambda runtime, worker, job: runtime.wait_until_all_jobs_finished(),
    "job.wait": lambda runtime, worker, job: job.wait(),
    "job.result": lambda runtime, worker, job: job.result(1_000),
    "worker.wait": lambda runtime, worker, job: worker.wait(),
    "post": lambda runtime, worker, job: runtime.post(worker.flow_id, "step", "input", {}, timeout=1_000),
}


@pytest.mark.parametrize("wait", WAITS)
def test_it_ends_every_call_that_waits(wait: str) -> None:
    flow = Flow("interrupted")
    flow.add_routine(Step(), "step")
    with Runtime() as runtime:
        worker = runtime.exec(flow)
        runtime.pause(worker)
        job = runtime.post(flow, "step", "input", {}).job_context
        with interruptible():
            assert is_interrupted(lambda: WAITS[wait](runtime, worker, job))
        runtime.resume(worker)


def test_shutdown_in_a_handler_drains_however_long_the_main_thread_has_waited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("routilux.runtime.waiting.SLICE_SECONDS", 0.001)
    go, running = Event(), Event()

    class Waits(Step):
        def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            running.set()
            go.wait()

    answers: list[bool] = []
    flow = Flow("handled")
    flow.add_routine(Waits(), "step")
    runtime = Runtime()
    runtime.exec(flow)
    job = runtime.post(flow, "step", "input", {}).job_context

    def handler(number: int, frame: Any) -> None:
        go.set()
        answers.append(runtime.shutdown())

    before = signal.signal(signal.SIGTERM, handler)
    try:
        running.wait()
        Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        assert job.wait(SECONDS)
        eventually(lambda: answers)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (answers, job.status) == ([True], "completed")


def interrupted(thread: Thread) -> None:
    raise KeyboardInterrupt


def started_and_interrupted(thread: Thread, start: Callable[[Thread], None] = Thread.start) -> None:
    start(thread)
    raise KeyboardInterrupt


@contextmanager
def ctrl_c(start: Callable[[Thread], None]) -> Iterator[None]:
    """Ctrl-C comes before, or just when, a thread has been started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Thread, "start", start)
        with pytest.raises(KeyboardInterrupt):
            yield


starts = pytest.mark.parametrize("start", [interrupted, started_and_interrupted])


@starts
def test_a_ctrl_c_at_the_start_of_the_thread_of_the_timers_loses_no_later_timer(start: Any) -> None:
    timers, fired, before = Timers(monotonic, lambda *_: None), Event(), threads("routilux-timers")
    with ctrl_c(start):
        timers.call_at(monotonic() + 1_000, bool)
    timers.call_at(monotonic(), fired.set)
    assert fired.wait(SECONDS)
    timers.close()
    assert timers.join(monotonic() + SECONDS)
    eventually(lambda: threads("routilux-timers") <= before)


@starts
def test_a_ctrl_c_at_the_start_of_a_thread_of_the_pool_leaves_nothing_behind(start: Any) -> None:
    flow = Flow("interrupted")
    flow.add_routine(Step(), "step")
    runtime, before = Runtime(), threads("routilux-1")
    with ctrl_c(start):
        runtime.exec(flow)
    assert runtime.shutdown(timeout=SECONDS)
    eventually(lambda: threads("routilux-1") <= before)


@starts
def test_a_ctrl_c_at_the_start_of_an_attendant_leaves_one_that_does_every_step(start: Any) -> None:
    at_work, most, steps = [0], [0], [0]

    def step() -> bool:
        at_work[0] += 1
        most[0] = max(most[0], at_work[0])
        steps[0] += 1
        at_work[0] -= 1
        return False

    attendant = Attendant("routilux-attending", step, monotonic, lambda *_: None)
    with ctrl_c(start):
        attendant.wake()
    for n in range(1, 20):
        attendant.wake()
        eventually(lambda n=n: steps[0] >= n)
    eventually(lambda: len(threads("routilux-attending")) == 1)
    assert attendant.close(monotonic() + SECONDS)
    assert not threads("routilux-attending")
    assert most == [1]


@starts
def test_a_ctrl_c_at_the_start_of_the_journal_loses_nothing(start: Any) -> None:
    flow = Flow("interrupted")
    flow.add_routine(Step(), "step")
    runtime = Runtime(store=MemoryStore())
    with ctrl_c(start):
        runtime.exec(flow)
    runtime.exec(flow)
    assert runtime.post(flow, "step", "input", {}).job_context.wait(SECONDS)
    assert runtime.shutdown(timeout=SECONDS)


# -- inside post() -----------------------------------------------------------------------------------------


@contextmanager
def ctrl_c_in(owner: Any, name: str, *, behind: bool) -> Iterator[None]:
    """Ctrl-C comes in the next call of this function: before it has done anything, or behind all that it does."""
    call, left = getattr(owner, name), [1]

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        if not left or threading.current_thread() is not threading.main_thread():
            return call(*args, **kwargs)
        left.clear()
        if behind:
            call(*args, **kwargs)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, interrupted)
        yield


def interrupted_post(owner: Any, name: str, *, behind: bool, store: Any = None) -> KeyboardInterrupt:
    """A post is interrupted there; what comes out of it, once the runtime has been found to go on as if nothing had
    happened. ``owner``: None for the driver of the runtime."""
    ran: list[int] = []

    class Notes(Step):
        def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            ran.append(slot_data["input"][0]["n"])

    flow = Flow("interrupted")
    flow.add_routine(Notes(), "step")
    with Runtime(store=store) as runtime:
        worker = runtime.exec(flow)
        interrupted = runtime._engine.driver if owner is None else owner
        with pytest.raises(KeyboardInterrupt) as raised, ctrl_c_in(interrupted, name, behind=behind):
            runtime.post(flow, "step", "input", {"n": 1})
        assert runtime.post(flow, "step", "input", {"n": 2}, timeout=SECONDS).job_context.wait(SECONDS)
        assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
        assert [job.status for job in runtime.list_jobs(worker=worker)] == ["completed"] * len(ran)
    accepted = hasattr(raised.value, "__notes__")
    assert ran == ([1, 2] if accepted else [2])
    return raised.value


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("step", [(None, "submit"), (RunQueue, "push")], ids=["submit", "push"])
def test_a_post_that_was_interrupted_when_its_item_was_in_is_accepted(step: Any, behind: bool) -> None:
    error = interrupted_post(*step, behind=behind)
    assert "had been accepted" in error.__notes__[0]


IN_MEMORY = [(JobBook, "create"), (Worker, "new_job"), (Worker, "admit")]


@pytest.mark.parametrize("step", IN_MEMORY, ids=[name for _, name in IN_MEMORY])
def test_a_post_that_was_interrupted_before_that_leaves_nothing(step: Any) -> None:
    assert not hasattr(interrupted_post(*step, behind=False), "__notes__")


WITH_A_STORE = [(admission, "Record"), (admission.Admission, "waits_to_be_written"), (Journal, "waits_for")]


@pytest.mark.parametrize("step", WITH_A_STORE, ids=[name for _, name in WITH_A_STORE])
def test_nor_does_one_into_a_store_that_had_its_place(step: Any) -> None:
    assert not hasattr(interrupted_post(*step, behind=False, store=MemoryStore()), "__notes__")


def test_a_ctrl_c_leaves_no_lock_of_the_timers_taken() -> None:
    timers, fired = Timers(monotonic, lambda *_: None), Event()
    timers.call_at(monotonic() + 1_000, bool)
    with ctrl_c_in(Condition, "__enter__", behind=True):
        timers.call_at(monotonic(), fired.set)
    assert fired.wait(SECONDS)
    timers.close()
    assert timers.join(monotonic() + SECONDS)


@pytest.mark.parametrize("behind", [False, True])
def test_a_timer_is_on_time_that_was_set_with_a_ctrl_c(behind: bool) -> None:
    timers, fired = Timers(monotonic, lambda *_: None), Event()
    timers.call_at(monotonic() + 1_000, bool)
    with pytest.raises(KeyboardInterrupt), ctrl_c_in(Condition, "notify", behind=behind):
        timers.call_at(monotonic(), fired.set)
    assert fired.wait(SECONDS)
    timers.close()
    assert timers.join(monotonic() + SECONDS)


def threads(name: str) -> set[Thread]:
    return {thread for thread in threading.enumerate() if thread.name == name and thread.ident is not None}
