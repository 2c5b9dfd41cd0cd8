"""A second runtime looks into a store that another one runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from routilux import Flow, Routine, Runtime
from routilux.activation_policies import immediate_policy
from routilux.errors import StoreError, StoreLockedError
from routilux.store import look_into, open_store


def flow_of(logic: Callable[..., Any]) -> Flow:
    flow, routine = Flow("f"), Routine()
    routine.add_slot("input")
    routine.set_activation_policy(immediate_policy()).set_logic(logic)
    flow.add_routine(routine, "work")
    return flow


def fails(slot_data: Any, message: Any, state: Any) -> None:
    if slot_data["input"][0]["n"]:
        raise ValueError("set aside")


def test_it_shows_what_is_stored_and_acts_not(store_url: str) -> None:
    url, flow = store_url, flow_of(fails)
    with Runtime(store=url) as owner:
        worker = owner.exec(flow, worker_id="w")
        done, failed = (owner.post(flow, "work", "input", {"n": n}).job_context for n in (0, 1))
        assert owner.wait_until_all_jobs_finished(60) is not None
        owner.pause(worker)
        waits = owner.post(flow, "work", "input", {"n": 0}).job_context

        view = look_into(url)
        with Runtime(store=view) as looks:
            shown = [(job.job_id, job.status.value) for job in looks.list_jobs()]
            assert shown == [(done.job_id, "completed"), (failed.job_id, "failed"), (waits.job_id, "pending")]
            (letter,) = looks.dead_letters()
            job = looks.get_job(waits.job_id)
            assert job is not None
            assert job.left
            health = looks.health()
            assert (health.status, f"process {os.getpid()}" in str(health.reason)) == ("read-only", True)
            for act in (
                lambda: looks.exec(flow, worker_id="w"),
                lambda: looks.exec(flow),
                lambda: looks.exec(flow, entry="work.input", entry_params={"n": 0}),
                lambda: looks.post(flow, "work", "input", {"n": 0}),
                lambda: looks.redrive(letter),
                lambda: looks.pause(job),
                lambda: looks.resume(job),
                lambda: looks.cancel(job),
                lambda: looks.post(flow, "work", "input", {"n": 0}, worker_id="w"),
                lambda: looks.pause("w"),
                lambda: looks.resume("w"),
                lambda: looks.cancel("w"),
                lambda: looks.stop("w"),
            ):
                with pytest.raises(StoreLockedError, match=f"run by .*process {os.getpid()}"):
                    act()
            (left,) = looks.recover(flows=[flow]).not_reopened
            assert f"process {os.getpid()}" in left.reason

            later = owner.post(flow, "work", "input", {"n": 0}).job_context
            assert looks.get_job(later.job_id) is not None
            owner.resume(worker)
            assert owner.wait_until_all_jobs_finished(60)
            seen = looks.get_job(later.job_id)
            assert seen is not None
            assert seen.status == "completed"
        view.close()
        assert looks.health().status in ("closed", "read-only")


def test_where_no_process_runs_it_the_error_says_how_to_open_it(store_url: str) -> None:
    url, flow = store_url, flow_of(fails)
    open_store(url).close()
    view = look_into(url)
    with Runtime(store=view) as looks, pytest.raises(StoreError, match="No process runs it") as refused:
        looks.exec(flow)
    assert not isinstance(refused.value, StoreLockedError)
    assert "Runtime(store=" in str(refused.value)
    view.close()


def test_the_error_of_a_second_opening_says_how_to_look(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    with Runtime(store=url), pytest.raises(StoreLockedError, match="look_into"):
        Runtime(store=url)
