"""Faults of the disk, the database, the clock and the process, seen from the runtime's side."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import pytest

from routilux import ErrorHandler, ErrorStrategy, Runtime
from routilux.activation_policies import time_interval_policy
from routilux.errors import StoreCorruptError, StoreError, StoreFullError, StoreLockedError
from routilux.ports import Changes
from routilux.store.memory import MemoryStore
from tests.durability.flows import Copy, Log, flow_of
from tests.waiting import SECONDS, eventually

if TYPE_CHECKING:
    from routilux.runtime.driver import Driver

MIB = 2**20
YEARS = 10 * 365 * 86_400.0


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder / 'store.db'}"


# -- disk full ---------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 48 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)]
    if not sys.platform.startswith("linux") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system in memory")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def post_until_full(runtime: Runtime, flow: Any, payload: str) -> int:
    """How many were acknowledged."""
    for n in range(10_000):
        try:
            runtime.post(flow, "0", "input", {"n": n, "payload": payload})
        except StoreFullError:
            return n
    raise AssertionError("the disk never became full")


def fill(ballast: Path) -> None:
    """Until nothing is left."""
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_full_disk_refuses_posts_loses_nothing_and_work_goes_on_when_space_returns(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ballast = small_disk / "ballast"
    with Runtime(store=url_of(small_disk), thread_pool_size=2) as runtime:
        flow = flow_of(Copy(), Log())
        state = runtime.exec(flow, worker_id="worker")
        ballast.write_bytes(bytes(28 * MIB))
        runtime.pause(state)
        acknowledged = post_until_full(runtime, flow, "x" * 20_000)
        assert acknowledged > 10
        status, reason = runtime.health()
        assert status == "degraded"
        assert "space" in str(reason)
        with pytest.raises(StoreFullError):
            runtime.post(flow, "0", "input", {"n": -1, "payload": "x" * 20_000})
        ballast.unlink()
        runtime.resume(state)
        assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
        eventually(lambda: runtime.health().status == "ok", "the store takes records again")
        assert list(state.shared_log) == list(range(acknowledged))
        runtime.post(flow, "0", "input", {"n": acknowledged})
        assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
    with Runtime(store=url_of(small_disk)) as again:
        state = again.exec(flow, worker_id="worker")
        assert list(state.shared_log) == list(range(acknowledged + 1))


def test_activations_wait_while_the_disk_is_full_and_their_results_come_once(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    big = "x" * 200_000

    class Grow(Copy):
        def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            for item in slot_data["input"]:
                self.emit("output", n=item["n"], payload=big)

    with Runtime(store=url_of(small_disk), thread_pool_size=2) as runtime:
        flow = flow_of(Grow(), Log())
        state = runtime.exec(flow, worker_id="worker")
        runtime.pause(state)
        for n in range(60):
            runtime.post(flow, "0", "input", {"n": n})
        fill(ballast)
        Thread(target=runtime.resume, args=(state,), daemon=True).start()
        eventually(lambda: runtime.health().status == "degraded", "nothing can be written")
        assert not runtime.wait_until_all_jobs_finished(timeout=0.5)
        ballast.unlink()
        assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
        assert list(state.shared_log) == list(range(60))


# -- the database is not ours, or not there ---------------------------------------------------------------


def test_a_store_that_another_process_has_open_is_refused_with_its_pid_and_its_start(tmp_path: Path) -> None:
    code = (
        "import sys; from routilux import Runtime\n"
        f"runtime = Runtime(store={url_of(tmp_path)!r}); print('open', flush=True); sys.stdin.read()"
    )
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(StoreLockedError) as caught:
            Runtime(store=url_of(tmp_path))
        assert f"process {other.pid}" in str(caught.value)
        assert time.strftime("%Y-%m-%d") in str(caught.value)
        other.communicate("")
    Runtime(store=url_of(tmp_path)).shutdown()


def test_a_folder_that_can_not_be_written_is_found_at_open(small_disk: Path) -> None:
    Runtime(store=url_of(small_disk)).shutdown()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreError, match="writ"):
        Runtime(store=url_of(small_disk))


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_database_that_is_gone_while_it_runs_is_noticed_by_everybody(tmp_path: Path, how: str) -> None:
    runtime = Runtime(store=url_of(tmp_path))
    flow = flow_of(Copy(), Log())
    runtime.exec(flow, worker_id="worker")
    runtime.post(flow, "0", "input", {"n": 0})
    assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
    database = tmp_path / "store.db"
    if how == "removed":
        database.unlink()
    else:
        database.rename(tmp_path / "away.db")
        sqlite3.connect(database).close()
        database.write_bytes(b"something else")
    with pytest.raises(StoreError, match=r"store\.db"):
        runtime.post(flow, "0", "input", {"n": 1})
    assert runtime.health().status in ("degraded", "failed")
    assert runtime.shutdown(timeout=1) is False


def test_a_database_that_is_damaged_while_it_runs_stops_everything_with_the_reason(tmp_path: Path) -> None:
    """Items that wait in the store are read back from it; there the damage is found."""
    begun, go_on = Event(), Event()

    class Burst(Copy):
        def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            for n in range(1_500):
                self.emit("output", n=n)

    class Slow(Log):
        def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            begun.set()
            go_on.wait(SECONDS)
            super().logic(slot_data, policy_message, state)

    runtime = Runtime(store=url_of(tmp_path), thread_pool_size=2)
    flow = flow_of(Burst(), Slow())
    runtime.exec(flow, worker_id="worker")
    runtime.post(flow, "0", "input", {})
    assert begun.wait(SECONDS)
    other = sqlite3.connect(tmp_path / "store.db", timeout=SECONDS)
    with other:
        other.execute("UPDATE items SET data = x'00' WHERE number > (SELECT max(number) FROM items) - 100")
    other.close()
    go_on.set()
    with pytest.raises(StoreCorruptError, match="not what was written"):
        runtime.wait_until_all_jobs_finished(timeout=SECONDS)
    with pytest.raises(StoreCorruptError, match="not what was written"):
        runtime.post(flow, "0", "input", {})
    assert runtime.health().status == "failed"
    runtime.shutdown(timeout=5)


# -- stores that refuse, and that take their time ------------------------------------------------------------


class Refusing(MemoryStore):
    """Takes nothing while ``refuses`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses = Event()
        self.asked = Event()

    def write(self, changes: Changes) -> frozenset[int]:
        if self.refuses.is_set():
            self.asked.set()
            raise StoreError("not now; nothing was written")
        return super().write(changes)


def test_shutdown_from_a_store_that_refuses_ends_at_its_time_out_and_says_so() -> None:
    store = Refusing()
    runtime = Runtime(store=store, thread_pool_size=2)
    flow = flow_of(Copy(), Log())
    runtime.exec(flow, worker_id="worker")
    runtime.post(flow, "0", "input", {"n": 0})
    assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
    store.refuses.set()
    with pytest.raises(StoreError, match="not now"):
        runtime.post(flow, "0", "input", {"n": 1})
    assert runtime.shutdown(timeout=0.5) is False
    store.refuses.clear()
    with Runtime(store=store) as again:
        state = again.exec(flow, worker_id="worker")
        assert again.wait_until_all_jobs_finished(timeout=SECONDS)
        assert list(state.shared_log) == [0]


def test_shutdown_with_unwritten_work_returns_false_and_the_work_is_done_by_the_next(tmp_path: Path) -> None:
    store = Refusing()
    entered, go_on = Event(), Event()

    class Wait(Log):
        def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            entered.set()
            go_on.wait(SECONDS)
            super().logic(slot_data, policy_message, state)

    runtime = Runtime(store=store, thread_pool_size=2)
    flow = flow_of(Wait())
    runtime.exec(flow, worker_id="worker")
    runtime.post(flow, "0", "input", {"n": 0})
    assert entered.wait(SECONDS)
    store.refuses.set()
    go_on.set()
    assert store.asked.wait(SECONDS)
    assert runtime.shutdown(timeout=0.5) is False
    store.refuses.clear()
    with Runtime(store=store) as again:
        state = again.exec(flow, worker_id="worker")
        assert again.wait_until_all_jobs_finished(timeout=SECONDS)
        assert list(state.shared_log) == [0]


def test_a_store_that_breaks_its_promises_is_asked_again_and_nobody_waits_for_ever(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is no StoreError is a fault of the store: it is shown with its traceback, and has refused."""

    class Broken(MemoryStore):
        breaks = Event()

        def write(self, changes: Changes) -> frozenset[int]:
            if self.breaks.is_set():
                raise ZeroDivisionError
            return super().write(changes)

    store = Broken()
    runtime = Runtime(store=store, thread_pool_size=2)
    flow = flow_of(Copy(), Log())
    runtime.exec(flow, worker_id="worker")
    store.breaks.set()
    for _ in range(2):
        with pytest.raises(StoreError, match="ZeroDivisionError"):
            runtime.post(flow, "0", "input", {"n": 0})
    assert runtime.health().status == "degraded"
    assert "in write\n    raise ZeroDivisionError" in caplog.text
    store.breaks.clear()
    assert runtime.post(flow, "0", "input", {"n": 0}).job_context.wait(SECONDS)
    assert runtime.health().status == "ok"
    assert runtime.shutdown(timeout=SECONDS)


def test_posts_wait_while_another_program_has_locked_the_database(tmp_path: Path) -> None:
    posted: list[float] = []
    with Runtime(store=url_of(tmp_path), thread_pool_size=2) as runtime:
        flow = flow_of(Copy(), Log())
        state = runtime.exec(flow, worker_id="worker")
        other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")

        def post(thread: int) -> None:
            for n in range(5):
                runtime.post(flow, "0", "input", {"n": thread * 5 + n})
                posted.append(time.monotonic())

        threads = [Thread(target=post, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        Event().wait(3.0)
        assert posted == []
        released = time.monotonic()
        other.execute("ROLLBACK")
        other.close()
        for thread in threads:
            thread.join()
        assert min(posted) >= released
        assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
        assert sorted(state.shared_log) == list(range(20))


# -- clocks --------------------------------------------------------------------------------------------------


class Jumping:
    """A clock whose time of day jumps, as one that is set anew; the monotonic one does not."""

    jump = 0.0
    monotonic = staticmethod(time.monotonic)

    def time(self) -> float:
        return time.time() + self.jump


class JumpingRuntime(Runtime):
    def _create_driver(self) -> Driver:
        driver = super()._create_driver()
        driver.clock = self.jumping = Jumping()  # type: ignore[misc]
        return driver


@pytest.mark.parametrize("years", [YEARS, -YEARS])
def test_jumps_of_the_clock_change_no_outcome(tmp_path: Path, years: float) -> None:
    attempts: list[int] = []

    class Retried(Copy):
        def __init__(self) -> None:
            super().__init__()
            self.set_error_handler(ErrorHandler(ErrorStrategy.RETRY, max_retries=2, retry_delay=0.1))

        def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            attempts.append(slot_data["input"][0]["n"])
            runtime.jumping.jump = years if runtime.jumping.jump == 0 else 0.0
            if len(attempts) % 2:
                raise ConnectionError
            super().logic(slot_data, policy_message, state)

    class Interval(Log):
        def __init__(self) -> None:
            super().__init__()
            self.set_activation_policy(time_interval_policy(0.05))

    flow = flow_of(Retried(), Interval())
    with JumpingRuntime(store=url_of(tmp_path), thread_pool_size=2) as runtime:
        state = runtime.exec(flow, worker_id="worker")
        jobs = [runtime.post(flow, "0", "input", {"n": n}).job_context for n in range(6)]
        assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
        assert list(state.shared_log) == list(range(6))
        assert attempts == [n for n in range(6) for _ in range(2)]
        assert {job.status.value for job in jobs} == {"completed"}
    attempts.clear()
    with JumpingRuntime(store=url_of(tmp_path), thread_pool_size=2) as runtime:
        runtime.jumping.jump = years
        state = runtime.exec(flow, worker_id="worker")
        runtime.post(flow, "0", "input", {"n": 6})
        assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
        assert list(state.shared_log) == list(range(7))


def test_a_retry_waits_no_longer_than_its_delay_although_the_clock_was_set_back(tmp_path: Path) -> None:
    failed = Event()

    class Fails(Log):
        def __init__(self) -> None:
            super().__init__()
            self.set_error_handler(ErrorHandler(ErrorStrategy.RETRY, max_retries=2, retry_delay=0.5))

        def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            if not failed.is_set():
                failed.set()
                raise ConnectionError
            super().logic(slot_data, policy_message, state)

    flow = flow_of(Fails())
    with JumpingRuntime(store=url_of(tmp_path)) as first:
        first.exec(flow, worker_id="worker")
        first.post(flow, "0", "input", {"n": 0})
        assert failed.wait(SECONDS)
        first.shutdown(wait=False)
    second = JumpingRuntime(store=url_of(tmp_path))
    second.jumping.jump = -YEARS
    with second:
        state = second.exec(flow, worker_id="worker")
        assert second.wait_until_all_jobs_finished(timeout=SECONDS)
        assert list(state.shared_log) == [0]
