"""A one-shot execution tells what it went on after."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from routilux import ErrorHandler, ErrorStrategy, Flow, JobState, routine


@routine
def price(name: str) -> Mapping[str, Any]:
    return {"price": {"milk": 1.2}[name]}


@pytest.mark.parametrize("strategy", [ErrorStrategy.CONTINUE, ErrorStrategy.SKIP])
def test_errors_that_an_execution_went_on_after(strategy: ErrorStrategy) -> None:
    flow = Flow("shop")
    flow.set_error_handler(ErrorHandler(strategy))
    flow.add_routine(price(), "price")
    state = flow.execute("price", {"name": "coffee"})
    assert (state.status, state.error) == ("completed", None)
    assert [str(error) for error in state.errors] == [
        "routine 'price' failed in attempt 1: KeyError: 'coffee' (test_errors_of_an_execution.py:16)"
    ]


def test_state_that_was_read_from_a_file_has_no_job_and_no_errors(tmp_path: Path) -> None:
    flow = Flow("shop")
    flow.add_routine(price(), "price")
    path = str(tmp_path / "state.json")
    flow.execute("price", {"name": "milk"}).save(path)
    state = JobState.load(path)
    assert isinstance(state, JobState)
    assert (state.job, state.errors) == (None, [])
