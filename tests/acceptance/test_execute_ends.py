"""``Flow.execute`` returns at its limit, and an interruption of the program is no failure of a routine."""

from __future__ import annotations

import signal
import threading
from threading import Event
from typing import Any

import pytest

from routilux import ErrorHandler, ErrorStrategy, Runtime
from routilux.errors import ExecutionTimeoutError, InsideActivationError
from routilux.testing.simulated import simulated
from tests.acceptance.parts import Step, flow_of, step
from tests.waiting import SECONDS


@pytest.mark.parametrize("given", ["timeout", "execution_timeout"])
def test_execute_returns_at_its_limit_although_logic_goes_on(given: str) -> None:
    began, let_go, ended = Event(), Event(), Event()

    def logic(routine: Any, payload: Any, state: Any) -> None:
        began.set()
        assert let_go.wait(SECONDS)
        ended.set()

    limit = 0.05
    while not began.is_set():  # on a busy machine the limit may pass before the logic begins
        options = {"execution_timeout": limit} if given == "execution_timeout" else {}
        flow = flow_of(step(logic), **options)
        state = flow.execute("a", {}, timeout=limit if given == "timeout" else None)
        limit *= 2
    assert state.status == "failed"
    assert isinstance(state.error, ExecutionTimeoutError)
    assert not ended.is_set()  # it has returned while the logic still runs
    assert flow.in_use == 0
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("routilux-")]
    assert all(thread.daemon for thread in threads)
    let_go.set()
    for thread in threads:
        thread.join(SECONDS)
    assert ended.is_set()
    assert not any(thread.is_alive() for thread in threads)


def test_execute_waits_for_no_other_logic_behind_its_limit_when_the_job_has_failed() -> None:
    let_go, began = Event(), Event()

    def waits(routine: Any, payload: Any, state: Any) -> None:
        began.set()
        assert let_go.wait(SECONDS)

    def fails(routine: Any, payload: Any, state: Any) -> None:
        assert began.wait(SECONDS)
        raise ValueError("broken")

    flow = flow_of(Step(), step(waits), step(fails), execution_strategy="concurrent", max_workers=3)
    flow.connect("a", "output", "b", "input")
    flow.connect("a", "output", "c", "input")
    state = flow.execute("a", {}, timeout=0.5)
    assert state.status == "failed"
    assert not let_go.is_set()
    let_go.set()


def test_execute_in_a_routine_is_refused_before_anything_is_started(caplog: pytest.LogCaptureFixture) -> None:
    inner = flow_of(Step(), flow_id="inner")

    def logic(routine: Any, payload: Any, state: Any) -> None:
        before = set(threading.enumerate())
        with pytest.raises(InsideActivationError, match=r"^execute\(\) was called inside routine 'a'"):
            inner.execute("a", {})
        assert before.issuperset(threading.enumerate())

    flow = flow_of(step(logic))
    with Runtime() as runtime:
        runtime.exec(flow)
        assert runtime.post(flow, "a", "input", {}).job_context.result(SECONDS) == []
    assert "cancelled" not in caplog.text


@pytest.mark.parametrize("kind", ["plain", "async"])
@pytest.mark.parametrize("strategy", [ErrorStrategy.CONTINUE, ErrorStrategy.SKIP, ErrorStrategy.RETRY])
def test_an_interrupt_on_the_main_thread_is_raised_whatever_the_strategy(strategy: Any, kind: str) -> None:
    """The main thread only waits while logic runs, in a simulation too."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)

    def plain(routine: Any, payload: Any, state: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    async def in_a_task(routine: Any, payload: Any, state: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    interrupted = step(plain if kind == "plain" else in_a_task).set_error_handler(ErrorHandler(strategy))
    flow = flow_of(interrupted)
    with simulated(0) as runtime:
        runtime.exec(flow)
        job = runtime.post(flow, "a", "input", {}).job_context
        try:
            with pytest.raises(KeyboardInterrupt):
                job.wait(SECONDS)
        finally:
            signal.signal(signal.SIGINT, usual)
        assert job.errors == []


def test_logic_that_raises_an_interrupt_itself_on_a_thread_of_the_pool_has_failed() -> None:
    def logic(routine: Any, payload: Any, state: Any) -> None:
        raise KeyboardInterrupt

    flow = flow_of(step(logic))
    with Runtime() as runtime:
        runtime.exec(flow)
        job = runtime.post(flow, "a", "input", {}).job_context
        assert job.wait(SECONDS)
        assert job.status == "failed"
