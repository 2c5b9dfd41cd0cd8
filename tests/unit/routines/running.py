"""Running one built-in routine in a simulated runtime, and what it emitted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from routilux import Flow, Routine
from routilux.testing import RoutineTester, simulated

Payload = Mapping[str, Any]
Emitted = list[tuple[str, dict[str, Any]]]
over_seeds = pytest.mark.routilux(seeds=5)


def flow_of(routine: Routine) -> Flow:
    flow = Flow("one_routine")
    flow.add_routine(routine, "it")
    return flow


def emitted(routine: Routine, payloads: Iterable[Payload], *, seed: int = 0, slot: str = "input") -> Emitted:
    """All that a routine emits for payloads that are posted in one moment, in order, after the drain."""
    return emitted_at(routine, [(0.0, slot, payload) for payload in payloads], seed=seed)


def emitted_at(routine: Routine, posts: Iterable[tuple[float, str, Payload]], *, seed: int = 0) -> Emitted:
    """The same for payloads that are posted at virtual times, in seconds."""
    return [(event, data) for _, event, data in timed(routine, posts, seed=seed)]


def timed(
    routine: Routine, posts: Iterable[tuple[float, str, Payload]], *, seed: int = 0, drain: bool = True
) -> list[tuple[float, str, dict[str, Any]]]:
    """With the virtual time of each emission."""
    with RoutineTester(routine, routine_id="it", seed=seed) as tester:
        for time, slot, payload in posts:
            tester.run(time - tester.now)
            tester.post(slot, payload)
        tester.run()
        if drain:
            tester.drain()
        assert tester.errors == []
    return [(one.time, one.event, one.data) for one in tester.trace]


def only(event: str, found: Emitted) -> list[dict[str, Any]]:
    return [data for name, data in found if name == event]


def saved_in_the_middle(
    make: Any, before: Iterable[Payload], after: Iterable[Payload], path: Any, *, slot: str = "input"
) -> Emitted:
    """What a routine emits when the worker is saved between two groups of payloads and resumed elsewhere."""
    from routilux import WorkerState

    first = flow_of(make())
    with simulated(1, debug=True) as runtime:
        worker = runtime.exec(first)
        jobs = [
            runtime.post(first, "it", slot, dict(payload), job_id=f"first{n}").job_context
            for n, payload in enumerate(before)
        ]
        while any(job.status == "pending" for job in jobs) and runtime.simulation.step(0.0):
            pass
        outputs = {job.job_id: job.outputs for job in jobs}
        runtime.pause(worker)
        worker.save(str(path))
    second = flow_of(make())
    with simulated(2, debug=True) as runtime:
        worker = runtime.exec(second, job_state=WorkerState.load(str(path)))
        runtime.resume(worker)
        for n, payload in enumerate(after):
            runtime.post(second, "it", slot, dict(payload), job_id=f"second{n}")
        assert runtime.wait_until_all_jobs_finished()
        jobs = runtime.list_jobs()
        assert [job.error for job in jobs if job.error is not None] == []
        outputs |= {job.job_id: job.outputs for job in jobs}
    return [(output.event, dict(output.data)) for job in outputs.values() for output in job]
