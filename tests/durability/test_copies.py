"""What a caller hands over is what is stored: changing it later changes nothing, before a restart and after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from routilux import Flow, Routine, Runtime
from routilux.activation_policies import immediate_policy
from routilux.errors import FlowChangedError
from tests.durability.killing import PATIENCE


def flow_of(*routine_ids: str, logic: Any = lambda slot_data, message, state: None) -> Flow:
    flow = Flow("flow")
    for routine_id in routine_ids:
        routine = Routine()
        routine.add_slot("input")
        flow.add_routine(routine.set_activation_policy(immediate_policy()).set_logic(logic), routine_id)
    return flow


def test_an_entry_of_the_shared_log_is_a_copy(tmp_path: Path) -> None:
    def logic(slot_data: Any, message: Any, state: Any) -> None:
        row = {"n": [1]}
        state.shared_log.append(row)
        row["n"].append(2)

    url, flow = f"sqlite:///{tmp_path / 'store.db'}", flow_of("work", logic=logic)
    with Runtime(store=url) as runtime:
        worker = runtime.exec(flow, worker_id="w")
        assert runtime.post(flow, "work", "input", {}).job_context.wait(PATIENCE)
        assert list(worker.shared_log) == [{"n": [1]}]
    with Runtime(store=url) as runtime:
        assert list(runtime.exec(flow, worker_id="w").shared_log) == [{"n": [1]}]


def test_metadata_of_a_worker_and_of_a_job_are_copies(tmp_path: Path) -> None:
    url, flow = f"sqlite:///{tmp_path / 'store.db'}", flow_of("work")
    of_worker, of_job = {"tags": ["new"]}, {"tags": ["new"]}
    with Runtime(store=url) as runtime:
        worker = runtime.exec(flow, worker_id="w", metadata=of_worker)
        runtime.pause(worker)
        job = runtime.post(flow, "work", "input", {}, metadata=of_job, job_id="j").job_context
        of_worker["tags"].append("sent")
        of_job["tags"].append("sent")
        assert worker.metadata == job.metadata == {"tags": ["new"]}
    with Runtime(store=url) as runtime:
        worker = runtime.exec(flow, worker_id="w")
        job = runtime.get_job("j")
        assert job is not None
        assert worker.metadata == job.metadata == {"tags": ["new"]}


@pytest.mark.parametrize("how", ["exec", "recover"])
def test_a_job_says_that_the_flow_that_was_given_does_not_fit(tmp_path: Path, how: str) -> None:
    url, flow = f"sqlite:///{tmp_path / 'store.db'}", flow_of("work")
    with Runtime(store=url) as runtime:
        runtime.pause(runtime.exec(flow, worker_id="w"))
        runtime.post(flow, "work", "input", {}, job_id="j")
    changed = flow_of("work", "more")
    with Runtime(store=url) as runtime:
        if how == "exec":
            with pytest.raises(FlowChangedError):
                runtime.exec(changed, worker_id="w")
        else:
            runtime.recover(flows=[changed])
        job = runtime.get_job("j")
        assert job is not None
        assert job.blocked == "flow changed"
        assert [job.blocked for job in runtime.list_jobs()] == ["flow changed"]
