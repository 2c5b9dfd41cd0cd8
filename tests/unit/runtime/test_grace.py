"""How long the end of a program waits for what runs: for one second, which all its runtimes share."""

from __future__ import annotations

import weakref

import pytest

from routilux import Runtime
from routilux.runtime import runtime as module
from routilux.runtime.driver import ThreadDriver
from routilux.runtime.runtime import GRACE_SECONDS, stop_open_runtimes
from routilux.testing.simulated import SimulatedRuntime


class NotingRuntime(SimulatedRuntime):
    """Keeps for how many seconds the end would wait for what runs; no time passes meanwhile."""

    grace: float | None = None

    def _create_driver(self) -> ThreadDriver:
        driver = super()._create_driver()
        close = driver.close

        def noting(deadline: float | None) -> bool:
            assert deadline is not None, "the end waits without a limit"
            self.grace = deadline - driver.clock.monotonic()
            return close(deadline)

        driver.close = noting  # type: ignore[method-assign]
        return driver  # type: ignore[return-value]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_a_block_that_is_left_by_an_exception_waits_for_one_second_at_most(
    error: type[BaseException],
) -> None:
    runtime = NotingRuntime()
    with pytest.raises(error), runtime:
        raise error
    assert runtime.grace == GRACE_SECONDS == 1.0


def test_shutdown_that_does_not_wait_gives_what_runs_one_second() -> None:
    runtime = NotingRuntime()
    runtime.shutdown(wait=False)
    assert runtime.grace == GRACE_SECONDS


def test_all_runtimes_of_a_program_that_ends_share_one_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes 0.4 s, and nothing is left for the last."""
    ours = [NotingRuntime() for _ in range(4)]
    monkeypatch.setattr(module, "_open_runtimes", weakref.WeakSet(ours))
    times = iter([10.0, 10.0, 10.4, 10.8, 11.2])
    monkeypatch.setattr(module, "monotonic", lambda: next(times))
    stop_open_runtimes()
    graces = [runtime.grace or 0.0 for runtime in ours]
    assert sorted(graces, reverse=True) == pytest.approx([1.0, 0.6, 0.2, 0.0])


def test_a_runtime_is_stopped_at_the_end_of_the_program_until_it_has_been_shut_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    still_open: weakref.WeakSet[Runtime] = weakref.WeakSet()
    monkeypatch.setattr(module, "_open_runtimes", still_open)
    with Runtime(thread_pool_size=1) as runtime:
        assert list(still_open) == [runtime]
    assert list(still_open) == []
