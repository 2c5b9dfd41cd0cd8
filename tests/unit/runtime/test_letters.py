"""Dead letters in memory are kept within limits, and what is dropped for that is told."""

from __future__ import annotations

import gc
import os
import tracemalloc

import pytest

from routilux import ErrorHandler, Flow, Runtime, WorkerState, routine
from routilux.errors import InvalidValueError, StateError
from routilux.model.item import DeadLetter
from routilux.runtime import letters as module
from tests.waiting import SECONDS, eventually

MEGA = 2**20


@routine
def fails(n: int, blob: bytes) -> None:
    raise ValueError(n)


def flow_of(flow_id: str = "f") -> Flow:
    flow = Flow(flow_id)
    flow.add_routine(fails(), "fails")
    flow.set_error_handler(ErrorHandler("continue"))
    return flow


def post(runtime: Runtime, flow: Flow, worker: WorkerState, n: int, size: int) -> None:
    payload = {"n": n, "blob": os.urandom(size)}
    job = runtime.post(flow, "fails", "input", payload, worker_id=worker.worker_id).job_context
    assert job.wait(SECONDS)


def numbers(letters: list[DeadLetter]) -> list[int]:
    return [letter.data["n"] for letter in letters]


def test_they_take_no_more_bytes_than_the_limit_and_the_log_counts_what_is_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    flow = flow_of()
    tracemalloc.start()
    try:
        with Runtime(max_dead_letter_bytes=4 * MEGA) as runtime:
            workers = [runtime.exec(flow), runtime.exec(flow)]
            before = tracemalloc.get_traced_memory()[0]
            for n in range(30):
                post(runtime, flow, workers[n % 2], n, MEGA)
                caplog.clear() if n < 3 else None  # pytest keeps what is logged, with its frames
            kept = numbers(runtime.dead_letters())
            caplog_text = caplog.text
            caplog.clear()
            gc.collect()
            assert tracemalloc.get_traced_memory()[0] - before < 6 * MEGA
            assert sorted(kept) == list(
                range(30 - len(kept), 30)
            )  # the oldest went first, of whichever worker
            assert len(kept) == 3
            assert "item 1 of fails.input" in caplog_text
            assert "max_dead_letter_bytes" in caplog_text
            assert "from now on failures like this are only counted" in caplog_text
    finally:
        tracemalloc.stop()
    assert "dead letters of flow 'f' were dropped: 17 more times" in caplog.text


def test_of_each_worker_the_newest_are_kept(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LETTER_LIMIT", 3)
    flow = flow_of()
    with Runtime() as runtime:
        quiet, busy = runtime.exec(flow), runtime.exec(flow)
        post(runtime, flow, quiet, 0, 1)
        for n in range(1, 6):
            post(runtime, flow, busy, n, 1)
        assert numbers(runtime.dead_letters(worker=quiet)) == [0]
        assert numbers(runtime.dead_letters(worker=busy)) == [3, 4, 5]
    dropped = [r.getMessage() for r in caplog.records if "is dropped" in r.getMessage()]
    assert len(dropped) == 2


def test_the_newest_is_kept_whatever_its_size() -> None:
    flow = flow_of()
    with Runtime(max_dead_letter_bytes=0) as runtime:
        worker = runtime.exec(flow)
        post(runtime, flow, worker, 1, 10)
        first = runtime.dead_letters()
        post(runtime, flow, worker, 2, 10)
        assert numbers(runtime.dead_letters()) == [2]
        with pytest.raises(StateError, match="was dropped for newer ones"):
            runtime.redrive(*first)


def test_what_was_put_back_or_is_forgotten_makes_room(caplog: pytest.LogCaptureFixture) -> None:
    flow = flow_of()
    with Runtime(max_dead_letter_bytes=4 * MEGA, max_finished_bytes=0) as runtime:
        worker = runtime.exec(flow)
        post(runtime, flow, worker, 1, 10)
        for n in range(2, 12):
            runtime.exec(flow, entry_params={"n": n, "blob": os.urandom(MEGA)}).wait(SECONDS)
        eventually(lambda: numbers(runtime.dead_letters()) == [1, 11])
        for _ in range(3):
            (job,) = runtime.redrive(*runtime.dead_letters(worker=worker))
            assert job.job_context.wait(SECONDS)
        assert numbers(runtime.dead_letters(worker=worker)) == [1]
        assert runtime._engine.letter_room.bytes < 2 * MEGA
    assert "is dropped" not in caplog.text


def test_the_limit_is_a_number_of_bytes() -> None:
    with pytest.raises(InvalidValueError, match=r"Runtime\(max_dead_letter_bytes\)"):
        Runtime(max_dead_letter_bytes=-1)
