"""Workers whose logic posts into each other's full slots: a ring in which nothing can move fails and names its path,
and one that waits behind a pause is told."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from routilux import Flow, Runtime
from routilux.errors import DeadlockError
from routilux.store.memory import MemoryStore
from routilux.testing.simulated import simulated
from tests.acceptance.parts import chain, flow_of, step
from tests.waiting import SECONDS

stores = pytest.mark.parametrize("store", [None, MemoryStore])


def options_of(store: Any) -> dict[str, Any]:
    return {} if store is None else {"store": store()}


def posting(n: int, size: int, runtime: Callable[[], Runtime], **options: Any) -> Any:
    """Posts two items for each into the next flow of a ring, ``left`` times over: more than the slots hold."""

    def logic(routine: Any, payload: Any, state: Any) -> None:
        for _ in range(2 if payload["left"] else 0):
            runtime().post(f"flow{(n + 1) % size}", "a", "input", {"left": payload["left"] - 1})

    return step(logic, max_queue_length=2, **options)


def async_posting(n: int, size: int, runtime: Callable[[], Runtime], **options: Any) -> Any:
    async def logic(routine: Any, payload: Any, state: Any) -> None:
        for _ in range(2 if payload["left"] else 0):
            await runtime().apost(f"flow{(n + 1) % size}", "a", "input", {"left": payload["left"] - 1})

    return step(logic, max_queue_length=2, **options)


def ring(size: int, runtime: Callable[[], Runtime], make: Any = posting, **options: Any) -> list[Flow]:
    return [flow_of(make(n, size, runtime), flow_id=f"flow{n}", **options) for n in range(size)]


@stores
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("seed", range(30))
def test_a_ring_of_workers_that_is_full_fails_and_names_its_path(seed: int, size: int, store: Any) -> None:
    with simulated(seed, **options_of(store)) as runtime:
        workers = [runtime.exec(flow) for flow in ring(size, lambda: runtime)]
        runtime.post("flow0", "a", "input", {"left": 6})
        assert runtime.wait_until_all_jobs_finished(60)
        assert_found(runtime, [worker.worker_id for worker in workers])


@stores
@pytest.mark.parametrize("make", [posting, async_posting])
@pytest.mark.parametrize("strategy", ["concurrent", "sequential"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", [2, 3])
def test_a_ring_on_threads_and_in_tasks(
    size: int, threads: int, strategy: str, make: Any, store: Any
) -> None:
    with Runtime(thread_pool_size=threads, **options_of(store)) as runtime:
        flows = ring(size, lambda: runtime, make, execution_strategy=strategy)
        workers = [runtime.exec(flow) for flow in flows]
        runtime.post("flow0", "a", "input", {"left": 6})
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        assert_found(runtime, [worker.worker_id for worker in workers])


def failures(runtime: Runtime) -> list[BaseException]:
    return [job.error.__cause__ for job in runtime.list_jobs(status="failed") if job.error is not None]


def assert_found(runtime: Runtime, worker_ids: list[str]) -> None:
    found = failures(runtime)
    assert found
    assert {type(error) for error in found} == {DeadlockError}
    texts = [str(error) for error in found]
    whole = [text for text in texts if all(f"a of worker {worker_id!r}" in text for worker_id in worker_ids)]
    assert whole, texts
    assert "waits in post() for room in a.input of worker" in whole[0]


@pytest.mark.parametrize("seed", range(30))
def test_a_ring_of_a_post_and_an_emit_fails_in_either_place(seed: int) -> None:
    """``a`` emits into the full ``b``, which posts into the other worker's ``c``, which posts into ``a``."""
    with simulated(seed) as runtime:

        def emits(routine: Any, payload: Any, state: Any) -> None:
            for _ in range(3 if payload["left"] else 0):
                routine.emit("output", left=payload["left"] - 1)

        def posts_to(flow: str) -> Any:
            return step(
                lambda routine, payload, state: [runtime.post(flow, "a", "input", payload) for _ in range(2)],
                max_queue_length=2,
            )

        flow = chain(step(emits, max_queue_length=2), posts_to("other"), flow_id="own")
        flow.connect("b", "output", "a", "input")  # so that the start of a does not wait for room
        workers = [runtime.exec(flow), runtime.exec(flow_of(posts_to("own"), flow_id="other"))]
        runtime.post("own", "a", "input", {"left": 4})
        assert runtime.wait_until_all_jobs_finished(60)
        assert failures(runtime)
        assert {type(error) for error in failures(runtime)} == {DeadlockError}
        assert any(all(worker.worker_id in str(error) for worker in workers) for error in failures(runtime))


@stores
@pytest.mark.parametrize("seed", range(20))
def test_a_ring_with_room_never_fails(seed: int, store: Any) -> None:
    seen = []
    with simulated(seed, **options_of(store)) as runtime:

        def logic(routine: Any, payload: Any, state: Any) -> None:
            seen.append(payload["n"])
            if payload["n"]:
                other = "flow1" if state.flow_id == "flow0" else "flow0"
                runtime.post(other, "a", "input", {"n": payload["n"] - 1})

        for name in ("flow0", "flow1"):
            runtime.exec(flow_of(step(logic, max_queue_length=1), flow_id=name))
        for _ in range(2):  # of the three that fit
            runtime.post("flow0", "a", "input", {"n": 30})
        runtime.run()
        assert failures(runtime) == []
        assert sorted(seen) == sorted([*range(31)] * 2)


@stores
@pytest.mark.parametrize("seed", range(10))
def test_logic_that_posts_into_a_paused_worker_is_told_by_a_drain_and_goes_on(
    seed: int, store: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with simulated(seed, **options_of(store)) as runtime:
        sink = flow_of(step(lambda *_: None, max_queue_length=1), flow_id="sink")

        def logic(routine: Any, payload: Any, state: Any) -> None:
            for _ in range(3):
                runtime.post("sink", "a", "input", {})

        flow = flow_of(step(logic), flow_id="posting")
        paused, worker = runtime.exec(sink), runtime.exec(flow)
        runtime.pause(paused)
        job = runtime.post(flow, "a", "input", {}).job_context
        with caplog.at_level(logging.WARNING, "routilux"):
            assert not runtime.wait_until_all_jobs_finished(30)
        place = f"a.input of worker {paused.worker_id!r} of flow 'sink'"
        assert f"waits in post() for room in {place}, which is full with 1 item" in caplog.text
        assert worker.status == "running"
        runtime.resume(paused)
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        assert job.status == "completed"


@stores
@pytest.mark.parametrize("seed", range(10))
def test_a_shutdown_ends_where_logic_posts_into_a_paused_worker(seed: int, store: Any) -> None:
    with simulated(seed, **options_of(store)) as runtime:
        sink = flow_of(step(lambda *_: None, max_queue_length=1), flow_id="sink")
        flow = flow_of(
            step(lambda *_: [runtime.post("sink", "a", "input", {}) for _ in range(3)]), flow_id="posting"
        )
        runtime.pause(runtime.exec(sink))
        runtime.exec(flow)
        job = runtime.post(flow, "a", "input", {}).job_context
        runtime.run(1)
        runtime.shutdown()
        assert job.left if store else job.finished
        assert runtime.list_running() == []
