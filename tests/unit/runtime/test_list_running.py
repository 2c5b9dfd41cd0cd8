"""What runs now can be asked for, from anywhere."""

from __future__ import annotations

from threading import Event

from routilux import Flow, Runtime, routine
from routilux.runtime.runtime import Running


def test_what_runs_is_named_with_its_worker_flow_and_jobs(routilux_runtime: Runtime) -> None:
    started, go_on = Event(), Event()

    @routine
    def hold(n: int) -> None:
        started.set()
        assert go_on.wait(30)

    flow = Flow("holding")
    flow.add_routine(hold(), "hold")
    routilux_runtime.exec(flow, worker_id="w")
    assert routilux_runtime.list_running() == []
    job = routilux_runtime.post(flow, "hold", "input", {"n": 1}).job_context
    assert started.wait(30)
    [one] = routilux_runtime.list_running()
    go_on.set()
    assert one == Running("hold", "w", "holding", (job.job_id,), one.seconds)
    assert one.seconds >= 0
    assert job.wait(30)
    assert routilux_runtime.wait_until_all_jobs_finished(30)
    assert routilux_runtime.list_running() == []
