"""Ctrl-C ends every wait on the main thread, also where the system does not interrupt the call that it waits in."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread, Timer
from time import monotonic
from typing import Any

import pytest

from routilux import Flow, Routine, Runtime
from routilux.activation_policies import immediate_policy
from routilux.runtime.attendant import Attendant
from routilux.runtime.timers import Timers
from routilux.runtime.waiting import ThreadSignal
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


def threads(name: str) -> set[Thread]:
    return {thread for thread in threading.enumerate() if thread.name == name and thread.ident is not None}
