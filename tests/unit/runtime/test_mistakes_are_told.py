"""What a caller got wrong and would not have noticed: it is refused, with what to write instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from routilux import Flow, FlowRegistry, Runtime, WorkerState, routine
from routilux.errors import ConfigurationError, InvalidTypeError, UnknownFlowError
from routilux.store.memory import MemoryStore
from routilux.testing import SimulatedRuntime
from tests.waiting import SECONDS


@routine
def double(n: int) -> dict[str, int]:
    return {"n": 2 * n}


@pytest.fixture
def flow() -> Flow:
    flow = Flow("doubles")
    flow.add_routine(double(), "double")
    return flow


@pytest.fixture
def runtime(flow: Flow) -> Iterator[Runtime]:
    with Runtime(store=MemoryStore()) as runtime:
        runtime.exec(flow, worker_id="w")
        runtime.post(flow, "double", "input", {"n": 1}, job_id="j").job_context.result(SECONDS)
        yield runtime


URL = "give a URL, such as Runtime(store='sqlite:///routilux.db', durability=...)"
NEW: dict[str, tuple[Callable[[], Any], str]] = {
    "durability without a store": (lambda: Runtime(durability="process"), f"the runtime has no store; {URL}"),
    "durability of an open store": (
        lambda: Runtime(store=MemoryStore(), durability="process"),
        f"the runtime has a store that is open already; {URL}",
    ),
    "durability": (lambda: Runtime(durability="ful"), "no durability 'ful'"),
    "debug": (lambda: Runtime(debug="no"), "Runtime(debug): expected True or False, got 'no'"),
    "enable_monitoring": (
        lambda: Runtime(enable_monitoring="no"),
        "Runtime(enable_monitoring): expected True",
    ),
    "capture_logs": (lambda: Runtime(capture_logs=0), "Runtime(capture_logs): expected True or False, got 0"),
    "capture_prints": (lambda: Runtime(capture_prints="no"), "Runtime(capture_prints): expected True"),
    "registry": (lambda: Runtime(registry={}), "Runtime(registry): expected a FlowRegistry, got {}"),
}  # type: ignore[arg-type]


@pytest.mark.parametrize("mistake", NEW)
def test_a_runtime(mistake: str) -> None:
    make, message = NEW[mistake]
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert message in str(caught.value)


CALLS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "get_job": (lambda r: r.get_job(r.get_job("j")), "get_job(): expected text, got <JobContext j"),
    "get_worker": (lambda r: r.get_worker(r.get_worker("w")), "give the worker_id of the worker"),
    "cursor": (lambda r: r.list_jobs(cursor="j"), "list_jobs(cursor): expected a JobContext, got 'j'"),
    "recover one flow": (lambda r: r.recover(flows=r.flow), "recover(flows): expected a list of flows"),
    "recover a name": (lambda r: r.recover(flows="doubles"), "write flows=[flow]"),
    "recover names": (
        lambda r: r.recover(flows=["doubles"]),
        "recover(flows)[0]: expected a Flow, got 'doubles'",
    ),
    "paused": (lambda r: r.recover(paused="no"), "recover(paused): expected True or False, got 'no'"),
    "drain": (lambda r: r.stop("w", drain="no"), "stop(drain): expected True or False, got 'no'"),
    "wait": (lambda r: r.shutdown("no"), "shutdown(wait): expected True or False, got 'no'"),
    "everything": (
        lambda r: r.let_go("w", "double", everything="no"),
        "let_go(everything): expected True or",
    ),
    "tap": (lambda r: r.add_tap(print), "add_tap(): expected a tap with the method watch(), got <built-in"),
    "gate": (lambda r: r.set_gate("w", "double", print), "a gate with the method holds_activation()"),
    "runner": (lambda r: r.set_runner("w", "double", print), "a runner with the method start()"),
    "output handler": (
        lambda r: r.get_worker("w").set_output_handler(print),
        "set_output_handler(): expected an output handler with the method handle()",
    ),
}


@pytest.mark.parametrize("mistake", CALLS)
def test_a_call(runtime: Any, flow: Flow, mistake: str) -> None:
    call, message = CALLS[mistake]
    runtime.flow = flow
    with pytest.raises(InvalidTypeError) as caught:
        call(runtime)
    assert message in str(caught.value)
    runtime.post(flow, "double", "input", {"n": 2}).job_context.result(SECONDS)


def test_an_empty_registry_is_not_taken_for_none(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    everybodys = FlowRegistry()
    everybodys.register(flow)
    monkeypatch.setattr(FlowRegistry, "get_instance", lambda: everybodys)
    own = FlowRegistry()
    with Runtime(registry=own) as runtime:
        with pytest.raises(UnknownFlowError):
            runtime.exec("doubles")
        own.register(flow)
        runtime.exec("doubles")
    with Runtime() as runtime:
        runtime.exec("doubles")


def test_what_is_changed_in_a_state_from_a_file_is_there_when_it_is_resumed(
    flow: Flow, tmp_path: Path
) -> None:
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    with Runtime() as runtime:
        worker = runtime.exec(flow)
        worker.update_routine_state("double", {"seen": 1})
        worker.save(first)
    loaded = WorkerState.load(first)
    loaded.update_routine_state("double", {"seen": 5})
    loaded.shared_data["by"] = "Ada"
    loaded.shared_log.append("looked at")
    loaded.save(second)
    for state in (loaded, WorkerState.load(second)):
        with Runtime() as runtime:
            worker = runtime.exec(flow, job_state=state)
            assert worker.get_routine_state("double") == {"seen": 5}
            assert (worker.shared_data, list(worker.shared_log)) == ({"by": "Ada"}, ["looked at"])


def test_a_state_from_a_file_takes_no_flow_in_another_shape(flow: Flow, tmp_path: Path) -> None:
    path = str(tmp_path / "state")
    with Runtime() as runtime:
        runtime.exec(flow).save(path)
    with Runtime() as runtime, pytest.raises(ConfigurationError, match="got on_flow_change= too"):
        runtime.exec(flow, job_state=WorkerState.load(path), on_flow_change="adopt")


@pytest.mark.parametrize("stored", [False, True])
def test_pages_go_on_behind_a_job_that_has_another_status_by_now(flow: Flow, stored: bool) -> None:
    with SimulatedRuntime(3, store=MemoryStore() if stored else None) as runtime:
        worker = runtime.exec(flow)
        runtime.pause(worker)
        ids = [runtime.post(flow, "double", "input", {"n": n}).job_id for n in range(4)]
        [first] = runtime.list_jobs(status="pending", limit=1)
        runtime.cancel(first)
        following = runtime.list_jobs(status="pending", cursor=first)
        assert [job.job_id for job in following] == ids[1:]


def test_pages_go_on_behind_a_job_that_is_forgotten(flow: Flow) -> None:
    with SimulatedRuntime(3) as runtime:
        runtime.exec(flow)
        jobs = []
        for n in range(4):
            jobs.append(runtime.post(flow, "double", "input", {"n": n}).job_context)
            runtime.run(1)
        runtime._engine.book.jobs.pop(jobs[1].job_id)  # as when 10,000 others have ended since
        assert runtime.list_jobs(cursor=jobs[1]) == jobs[2:]
