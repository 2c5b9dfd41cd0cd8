"""What the built-in routines hold and remember survives that a worker is saved and resumed elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from routilux import Routine, WorkerState
from routilux.routines import Batch, Debounce, Delay, Merge, Tap, Throttle, Timing
from routilux.testing import simulated
from tests.unit.routines.running import Emitted, flow_of, only, saved_in_the_middle

ONE_TO_FIVE = [{"n": n} for n in range(1, 6)]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Delay().set_config(seconds=60), [("output", {"n": n}) for n in range(1, 6)]),
        (lambda: Batch().set_config(size=5), [("output", {"items": ONE_TO_FIVE, "count": 5})]),
        (lambda: Batch().set_config(size=9, age=60), [("output", {"items": ONE_TO_FIVE, "count": 5})]),
        (
            lambda: Debounce().set_config(seconds=60),
            [*(("superseded", {"n": n}) for n in range(1, 5)), ("output", {"n": 5})],
        ),
        (lambda: Throttle().set_config(seconds=60), [("output", {"n": n}) for n in range(1, 6)]),
        (
            lambda: Throttle().set_config(seconds=60, excess="drop"),
            [("output", {"n": 1}), *(("dropped", {"n": n}) for n in range(2, 6))],
        ),
        (Tap, [("output", {"n": n}) for n in range(1, 6)]),
    ],
)
def test_nothing_is_lost_or_done_twice(
    make: Callable[[], Routine], expected: Emitted, tmp_path: Path
) -> None:
    found = saved_in_the_middle(make, ONE_TO_FIVE[:3], ONE_TO_FIVE[3:], tmp_path / "state")
    assert unique(found) == unique(expected)
    assert {event for event, _ in found} == {event for event, _ in expected}


def test_timing_goes_on_counting(tmp_path: Path) -> None:
    found = saved_in_the_middle(Timing, ONE_TO_FIVE[:3], ONE_TO_FIVE[3:], tmp_path / "state")
    assert [data["timing"]["since_last"] for _, data in found] == [None, 0.0, 0.0, 0.0, 0.0]


def test_a_join_waits_on_with_the_time_that_is_left(tmp_path: Path) -> None:
    path = str(tmp_path / "state")

    def flow() -> Any:
        return flow_of(Merge().set_config(inputs=["a", "b"], by="key", key="id", timeout=60))

    with simulated(1, debug=True) as runtime:
        first = flow()
        worker = runtime.exec(first)
        for number in (1, 2):
            runtime.post(first, "it", "a", {"id": number}, job_id=f"a{number}")
        runtime.run(20.0)
        runtime.pause(worker)
        worker.save(path)
    with simulated(2, debug=True) as runtime:
        second = flow()
        worker = runtime.exec(second, job_state=WorkerState.load(path))
        runtime.resume(worker)
        runtime.post(second, "it", "b", {"id": 2}, job_id="b2")
        runtime.run(39.0)
        outputs = {id(output): output for job in runtime.list_jobs() for output in job.outputs}
        assert [output.event for output in outputs.values()] == ["output"]
        runtime.run(2.0)
        outputs = {id(output): output for job in runtime.list_jobs() for output in job.outputs}
        found = [(output.event, output.data) for output in outputs.values()]
        assert [data["missing"] for data in only("incomplete", found)] == [["b"]]


def unique(found: Emitted) -> list[str]:
    """Batches belong to several jobs, so each of those has them among its outputs; the jobs' order is free."""
    return sorted({repr(each) for each in found})
