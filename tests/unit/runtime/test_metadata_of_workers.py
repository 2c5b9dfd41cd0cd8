"""What a worker was started with, as ``state.metadata``: in memory, in a store, and in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from routilux import Flow, Runtime, WorkerState, routine
from routilux.errors import InvalidTypeError, SerializationError
from routilux.store.memory import MemoryStore


@routine
def double(n: int) -> dict[str, int]:
    return {"n": 2 * n}


@pytest.fixture
def flow() -> Flow:
    flow = Flow("doubles")
    flow.add_routine(double(), "double")
    flow.set_entry("double")
    return flow


def test_a_worker_shows_what_it_was_started_with(flow: Flow) -> None:
    with Runtime() as runtime:
        given = {"by": "Ada"}
        state = runtime.exec(flow, metadata=given)
        given["by"] = "Bob"
        assert state.metadata == {"by": "Ada"}
        assert runtime.exec(flow).metadata == {}


def test_an_execution_shows_those_of_its_job(flow: Flow) -> None:
    with Runtime() as runtime:
        state = runtime.exec(flow, entry_params={"n": 1}, metadata={"by": "Ada"})
        assert state.metadata == state.job.metadata == {"by": "Ada"}


def test_a_worker_that_is_opened_again_has_those_of_the_first_time(flow: Flow) -> None:
    store = MemoryStore()
    for given in ({"by": "Ada"}, {"by": "Bob"}, None):
        with Runtime(store=store) as runtime:
            assert runtime.exec(flow, worker_id="w", metadata=given).metadata == {"by": "Ada"}


def test_a_file_keeps_them(flow: Flow, tmp_path: Path) -> None:
    path = str(tmp_path / "state")
    with Runtime() as runtime:
        runtime.exec(flow, metadata={"by": "Ada"}).save(path)
    with Runtime() as runtime:
        assert runtime.exec(flow, job_state=WorkerState.load(path)).metadata == {"by": "Ada"}


def test_a_file_keeps_those_of_an_execution(flow: Flow, tmp_path: Path) -> None:
    path = str(tmp_path / "state")
    with Runtime() as runtime:
        state = runtime.exec(flow, entry_params={"n": 1}, metadata={"by": "Ada"})
        state.wait()
        state.save(path)
    assert WorkerState.load(path).metadata == {"by": "Ada"}


def test_what_is_no_mapping_is_refused(flow: Flow) -> None:
    with Runtime() as runtime, pytest.raises(InvalidTypeError, match="metadata"):
        runtime.exec(flow, metadata="Ada")  # type: ignore[arg-type]


def test_what_the_store_cannot_keep_is_refused_and_nothing_has_started(flow: Flow) -> None:
    with Runtime(store=MemoryStore()) as runtime:
        with pytest.raises(SerializationError):
            runtime.exec(flow, worker_id="w", metadata={"by": object()})
        assert runtime.list_workers() == []
        runtime.exec(flow, worker_id="w", metadata={"by": "Ada"})
