"""Ctrl-C ends every wait on the main thread, also where the system does not interrupt the call that it waits in."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from threading import Event, Thread, Timer
from time import monotonic
from typing import Any

import pytest

from routilux import Flow, Routine, Runtime
from routilux.activation_policies import immediate_policy
from routilux.runtime.timers import Timers
from routilux.runtime.waiting import ThreadSignal
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


def test_a_ctrl_c_before_the_thread_of_the_timers_is_started_loses_no_later_timer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timers, fired = Timers(monotonic, lambda *_: None), Event()
    with monkeypatch.context() as patch:
        patch.setattr(Thread, "start", raises_interrupt)
        with pytest.raises(KeyboardInterrupt):
            timers.call_at(monotonic() + 1_000, bool)
    timers.call_at(monotonic(), fired.set)
    assert fired.wait(SECONDS)
    timers.close()
    assert timers.join(monotonic() + SECONDS)


def test_a_ctrl_c_before_a_thread_of_the_pool_is_started_leaves_nothing_to_join(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flow = Flow("interrupted")
    flow.add_routine(Step(), "step")
    runtime = Runtime()
    with monkeypatch.context() as patch:
        patch.setattr(Thread, "start", raises_interrupt)
        with pytest.raises(KeyboardInterrupt):
            runtime.exec(flow)
    assert runtime.shutdown(timeout=SECONDS)


def raises_interrupt(thread: Thread) -> None:
    raise KeyboardInterrupt
