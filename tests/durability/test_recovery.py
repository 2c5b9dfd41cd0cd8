"""What a store gives back when a runtime is opened on it again."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest

from routilux import ErrorHandler, ErrorStrategy, Flow, FlowRegistry, Routine, Runtime
from routilux.activation_policies import time_interval_policy
from routilux.errors import InvalidTypeError, StateError
from routilux.runtime.journal import committer
from routilux.store.memory import MemoryStore
from routilux.testing.simulated import SimulatedRuntime
from tests.durability.flows import Copy, Log, flow_of
from tests.waiting import SECONDS, eventually


class Fails(Log):
    """Fails for the numbers that the class is told."""

    bad: ClassVar[set[int]] = set()

    def __init__(self) -> None:
        super().__init__()
        self.set_error_handler(ErrorHandler(ErrorStrategy.CONTINUE))

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        if slot_data["input"][0]["n"] in self.bad:
            raise ValueError("not this one")
        super().logic(slot_data, policy_message, state)


def leave(store: MemoryStore, flow: Flow, worker_id: str, *numbers: int) -> None:
    """A paused worker with these numbers in its first slot."""
    runtime = Runtime(store=store)
    state = runtime.exec(flow, worker_id=worker_id)
    runtime.pause(state)
    for n in numbers:
        runtime.post(flow, "0", "input", {"n": n}, worker_id=worker_id)
    runtime.shutdown(wait=False)


# -- recover() -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda flow: flow, r"recover\(flows\): expected a list of flows, got <Flow .*write flows=\[flow\]"),
        (lambda flow: "f", r"recover\(flows\): expected a list of flows, got 'f' \(str\)"),
        (lambda flow: 7, r"recover\(flows\): expected a list of flows, got 7 \(int\)"),
        (lambda flow: [flow, "f"], r"recover\(flows\)\[1\]: expected a Flow, got 'f' \(str\)"),
    ],
)
def test_what_is_no_list_of_flows_is_refused(make: Any, said: str) -> None:
    with Runtime(store=MemoryStore()) as runtime, pytest.raises(InvalidTypeError, match=said):
        runtime.recover(flows=make(flow_of(Log())))


def test_recover_opens_what_it_knows_and_says_why_it_leaves_the_rest() -> None:
    store = MemoryStore()
    known, unknown = flow_of(Log(), flow_id="known"), flow_of(Log(), flow_id="unknown")
    changed = flow_of(Log(), flow_id="changed")
    leave(store, known, "a", 1)
    leave(store, unknown, "b", 2)
    leave(store, changed, "c", 3)
    now_changed = flow_of(Log(), Log(), flow_id="changed")
    registry = FlowRegistry()
    registry.register(known)
    with Runtime(store=store, registry=registry) as runtime:
        recovered = runtime.recover(flows=[now_changed])
        assert [state.worker_id for state in recovered] == ["a"]
        assert [(left.worker_id, left.flow_id) for left in recovered.not_reopened] == [
            ("b", "unknown"),
            ("c", "changed"),
        ]
        assert recovered.not_reopened[0].reason.startswith(
            "flow 'unknown' is not registered; give it: recover(flows="
        )
        assert "flow changed" in recovered.not_reopened[1].reason
        (blocked,) = runtime.list_jobs(flow="changed")
        assert (blocked.left, blocked.blocked) == (True, "flow changed")
        (state,) = recovered
        runtime.resume(state)
        assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
        assert list(state.shared_log) == [1]


def test_a_changed_flow_adopts_what_fits_and_sets_the_rest_aside() -> None:
    store = MemoryStore()
    before = Flow("numbers")
    before.add_routine(Log(), "kept")
    before.add_routine(Log(), "gone")
    runtime = Runtime(store=store)
    state = runtime.exec(before, worker_id="worker")
    runtime.pause(state)
    for n, routine in enumerate(["kept", "gone", "kept"]):
        runtime.post(before, routine, "input", {"n": n})
    runtime.shutdown(wait=False)
    after = Flow("numbers")
    after.add_routine(Log(), "kept")
    with Runtime(store=store) as runtime:
        with pytest.raises(StateError, match="flow changed"):
            runtime.exec(after, worker_id="worker")
        state = runtime.exec(after, worker_id="worker", on_flow_change="adopt")
        (letter,) = runtime.dead_letters()
        assert (letter.routine_id, letter.data, letter.reason) == ("gone", {"n": 1}, "flow changed")
        runtime.resume(state)
        assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
        assert list(state.shared_log) == [0, 2]
    with Runtime(store=store) as runtime:  # the flow is the worker's own now
        state = runtime.exec(after, worker_id="worker")
        assert list(state.shared_log) == [0, 2]


def test_a_worker_that_another_runtime_has_is_left_to_it() -> None:
    store = MemoryStore()
    flow = flow_of(Log())
    with Runtime(store=store) as owner, Runtime(store=store) as other:
        state = owner.exec(flow, worker_id="worker")
        recovered = other.recover(flows=[flow])
        assert list(recovered) == []
        assert "StoreLockedError" in recovered.not_reopened[0].reason
        assert other.list_workers() == []
        other.exec(flow, worker_id="worker")  # it is asked, and not run
        posted = other.post(flow, "0", "input", {"n": 1})
        assert posted.job_context.wait(SECONDS)
        assert list(state.shared_log) == [1]
    with Runtime(store=store) as other:
        assert [state.worker_id for state in other.recover(flows=[flow])] == ["worker"]


# -- what survives a kill --------------------------------------------------------------------------------------

KILLED = """
import os, signal
from routilux import ErrorHandler, ErrorStrategy, Runtime
from tests.durability.flows import Log, flow_of
from tests.durability.test_recovery import Retried, url_of
runtime = Runtime(store={url!r}, thread_pool_size=2)
"""


class Retried(Log):
    """Fails in its first attempt, and waits long for the next."""

    delay = 2.0

    def __init__(self) -> None:
        super().__init__()
        handler = ErrorHandler(ErrorStrategy.RETRY, max_retries=3, retry_delay=self.delay)
        self.set_error_handler(handler)

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        from routilux import current

        if current().attempt == 1:
            raise ConnectionError
        super().logic(slot_data, policy_message, state)


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder / 'store.db'}"


def killed(folder: Path, code: str) -> None:
    """Run a program that kills itself at its end."""
    source = KILLED.format(url=url_of(folder)) + code + "\nos.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=Path(__file__).parents[2], capture_output=True, timeout=SECONDS
    )
    assert done.returncode == -9, done.stderr.decode()


def test_a_pause_survives_a_kill_and_so_does_its_end(tmp_path: Path) -> None:
    killed(
        tmp_path,
        """
flow = flow_of(Log())
for worker_id in ("paused", "resumed"):
    state = runtime.exec(flow, worker_id=worker_id)
    runtime.pause(state)
runtime.resume(state)
job = runtime.post(flow, "0", "input", {"n": 0}, worker_id="paused")
""",
    )
    flow = flow_of(Log())
    with Runtime(store=url_of(tmp_path)) as runtime:
        paused = runtime.exec(flow, worker_id="paused")
        resumed = runtime.exec(flow, worker_id="resumed")
        assert (paused.status, resumed.status) == ("paused", "running")
        runtime.post(flow, "0", "input", {"n": 1}, worker_id="resumed").job_context.wait(SECONDS)
        assert (list(paused.shared_log), list(resumed.shared_log)) == ([], [1])
        runtime.resume(paused)
        assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
        assert list(paused.shared_log) == [0]


def test_the_pause_of_a_job_survives_a_kill(tmp_path: Path) -> None:
    killed(
        tmp_path,
        """
flow = flow_of(Log())
state = runtime.exec(flow, worker_id="worker")
runtime.pause(state)
for n in range(2):
    job = runtime.post(flow, "0", "input", {"n": n}, job_id=f"job {n}").job_context
runtime.pause("job 0")
runtime.resume(state)
job.wait()
""",
    )
    with Runtime(store=url_of(tmp_path)) as runtime:
        state = runtime.exec(flow_of(Log()), worker_id="worker")
        assert list(state.shared_log) == [1]
        assert runtime.get_job("job 0").paused
        runtime.resume("job 0")
        assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
        assert list(state.shared_log) == [1, 0]


def test_a_retry_survives_a_kill_and_comes_not_too_early(tmp_path: Path) -> None:
    began = time.time()
    killed(
        tmp_path,
        """
flow = flow_of(Retried())
state = runtime.exec(flow, worker_id="worker")
job = runtime.post(flow, "0", "input", {"n": 0}).job_context
while not job.trace_log:
    job.wait(0.01)
runtime.list_jobs()  # returns when what was decided is written
""",
    )
    with Runtime(store=url_of(tmp_path)) as runtime:
        state = runtime.exec(flow_of(Retried()), worker_id="worker")
        assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
        assert list(state.shared_log) == [0]
        assert time.time() - began >= Retried.delay
        (record,) = [entry for entry in state.execution_history if entry.status == "completed"]
        assert record.attempt == 2


@pytest.mark.parametrize("later", [0.5, 1.5, 3_600])
def test_a_retry_comes_after_a_restart_when_the_time_is_over_that_was_left(later: float) -> None:
    store, flow = MemoryStore(), flow_of(Retried())
    runtime = SimulatedRuntime(store=store)
    runtime.exec(flow, worker_id="worker")
    job = runtime.post(flow, "0", "input", {"n": 0}).job_context
    runtime.run(0.25)
    assert [entry["action"] for entry in job.trace_log][-1] == "retry"
    runtime.shutdown(wait=False)
    with SimulatedRuntime(store=store) as again:
        again.simulation.clock.shown_at_zero += later
        state = again.exec(flow, worker_id="worker")
        assert again.wait_until_all_jobs_finished()
        assert list(state.shared_log) == [0]
        assert again.now == pytest.approx(max(0, Retried.delay - later))


class Interval(Log):
    def __init__(self) -> None:
        Routine.__init__(self)
        self.add_slot("input")
        self.set_activation_policy(time_interval_policy(0.2))

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        state.shared_log.append([item["n"] for item in slot_data["input"]])


def test_what_an_interval_has_kept_back_comes_after_a_restart() -> None:
    store = MemoryStore()
    flow = flow_of(Interval())
    runtime = Runtime(store=store)
    state = runtime.exec(flow, worker_id="worker")
    runtime.post(flow, "0", "input", {"n": 0})
    eventually(lambda: len(state.shared_log) == 1, "the first item comes at once")
    for n in (1, 2):
        runtime.post(flow, "0", "input", {"n": n})
    runtime.shutdown(wait=False)
    with Runtime(store=store) as again:
        state = again.exec(flow, worker_id="worker")
        assert again.wait_until_all_jobs_finished(timeout=SECONDS)
        assert [n for taken in state.shared_log for n in taken] == [0, 1, 2]


# -- one-shot executions ----------------------------------------------------------------------------------------


def test_the_same_job_id_is_the_same_execution_across_restarts(tmp_path: Path) -> None:
    flow = flow_of(Copy(), Log())
    with Runtime(store=url_of(tmp_path)) as runtime:
        first = runtime.exec(flow, entry_params={"n": 1}, job_id="2026-11-21")
        assert runtime.exec(flow, entry_params={"n": 1}, job_id="2026-11-21") is first
        first.wait(SECONDS)
    with Runtime(store=url_of(tmp_path)) as runtime:
        again = runtime.exec(flow, entry_params={"n": 1}, job_id="2026-11-21")
        assert (again.status, list(again.shared_log), again.job_id) == ("completed", [1], "2026-11-21")
        assert len(runtime.list_jobs()) == 1


def test_an_execution_that_was_killed_goes_on_under_its_job_id(tmp_path: Path) -> None:
    killed(
        tmp_path,
        """
state = runtime.exec(flow_of(Retried()), entry_params={"n": 1}, job_id="one")
while not state.job.trace_log:
    state.job.wait(0.01)
runtime.list_jobs()
""",
    )
    with Runtime(store=url_of(tmp_path)) as runtime:
        again = runtime.exec(flow_of(Retried()), entry_params={"n": 1}, job_id="one")
        assert again.wait(SECONDS)
        assert (again.status, list(again.shared_log)) == ("completed", [1])
        assert [job.job_id for job in runtime.list_jobs()] == ["one"]


# -- jobs and letters --------------------------------------------------------------------------------------------


def test_ten_thousand_finished_jobs_are_listed_page_by_page(tmp_path: Path) -> None:
    store = MemoryStore()
    flow = flow_of(Log())
    with Runtime(store=store, thread_pool_size=2) as runtime:
        runtime.exec(flow, worker_id="worker")
        posted = [runtime.post(flow, "0", "input", {"n": n}).job_id for n in range(10_000)]
        assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
    with Runtime(store=store) as runtime:
        runtime.exec(flow, worker_id="worker")
        assert runtime.list_jobs(limit=0) == []
        listed: list[str] = []
        page = runtime.list_jobs(limit=999, status="completed")
        while page:
            listed += [job.job_id for job in page]
            page = runtime.list_jobs(limit=999, status="completed", cursor=page[-1])
        assert sorted(listed) == sorted(posted)
        assert len(set(listed)) == len(listed)


def test_dead_letters_are_driven_again_after_a_restart_once() -> None:
    store = MemoryStore()
    flow = flow_of(Fails())
    Fails.bad = {1, 2}
    with Runtime(store=store) as runtime:
        runtime.exec(flow, worker_id="worker")
        for n in range(4):
            runtime.post(flow, "0", "input", {"n": n})
        assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
    Fails.bad = {2}
    with Runtime(store=store) as runtime:
        state = runtime.exec(flow, worker_id="worker")
        letters = runtime.dead_letters(worker=state)
        assert [(one.data["n"], one.reason, one.error) for one in letters] == [
            (n, "failed", "ValueError: not this one") for n in (1, 2)
        ]
        for posted in runtime.redrive(*letters):
            assert posted.job_context.wait(SECONDS)
        with pytest.raises(StateError, match="does not keep"):
            runtime.redrive(letters[0])
        assert list(state.shared_log) == [0, 3, 1]
    with Runtime(store=store) as runtime:
        state = runtime.exec(flow, worker_id="worker")
        (letter,) = runtime.dead_letters(worker=state)
        assert (letter.data, list(state.shared_log)) == ({"n": 2}, [0, 3, 1])


def test_finished_jobs_are_kept_up_to_a_limit_and_the_file_does_not_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer, "KEEP_FINISHED_JOBS", 500)
    monkeypatch.setattr(committer, "PRUNE_RECORDS", 400)
    monkeypatch.setattr(committer, "PRUNE_ROWS", 100)
    sizes = []
    flow = flow_of(Log())
    with Runtime(store=url_of(tmp_path), durability="process", thread_pool_size=2) as runtime:
        state = runtime.exec(flow, worker_id="worker")
        for n in range(6_000):
            runtime.post(flow, "0", "input", {"n": n})
            if n % 2_000 == 1_999:
                assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
                sizes.append((tmp_path / "store.db").stat().st_size)
        assert len(runtime.list_jobs()) <= 500 + 400
        assert len(state.shared_log) == 6_000
    print("size of the file after each 2,000 jobs:", sizes)
    assert sizes[-1] < 2 * sizes[0]
