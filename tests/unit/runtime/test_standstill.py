"""Where items wait in front of a slot in which there can be no room, the oldest of them fails, and says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from routilux import ErrorHandler, Flow, Routine, Runtime
from routilux.activation_policies import (
    WAIT,
    Fire,
    all_slots_ready_policy,
    batch_size_policy,
    custom_policy,
    immediate_policy,
)
from routilux.errors import DeadlockError
from routilux.store.memory import MemoryStore
from routilux.testing.simulated import simulated

SECONDS = 60
CAPACITY = 10


def all_parts(slots: Any, state: Any) -> Any:
    n = len(slots["input"])
    return Fire({"input": n}) if n and n == slots["input"][0]["of"] else WAIT


class Split(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.add_event("output")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Any, message: Any, state: Any) -> None:
        n = slot_data["input"][0]["n"]
        for _ in range(n):
            self.emit("output", of=n)


class Fetch(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.add_event("output")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Any, message: Any, state: Any) -> None:
        self.emit("output", **slot_data["input"][0])


class AsyncFetch(Fetch):
    async def logic(self, slot_data: Any, message: Any, state: Any) -> None:  # type: ignore[override]
        self.emit("output", **slot_data["input"][0])


class Pack(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input", max_queue_length=CAPACITY)

    def logic(self, slot_data: Any, message: Any, state: Any) -> None:
        state.shared_log.append(len(slot_data["input"]))


def flow_of(fetches: int = 1, fetch: type[Routine] = Fetch, policy: Any = None, **options: Any) -> Flow:
    """``split``, as many fetching routines as are wanted, and ``pack``, which takes all or nothing."""
    flow = Flow("parts", **options)
    flow.add_routine(Split(), "split")
    before = "split"
    for n in range(fetches):
        flow.add_routine(fetch(), f"fetch{n}")
        flow.connect(before, "output", f"fetch{n}", "input")
        before = f"fetch{n}"
    flow.add_routine(Pack().set_activation_policy(policy or custom_policy(all_parts)), "pack")
    flow.connect(before, "output", "pack", "input")
    return flow


def assert_stalled(failure: BaseException | None) -> None:
    assert failure is not None
    error = failure.__cause__
    assert isinstance(error, DeadlockError)
    for fragment in ("slot 'pack.input' is full", f"{CAPACITY} items", "custom(all_parts)", "has not taken"):
        assert fragment in str(error)


def store_options(store: str | None, folder: Path) -> dict[str, Any]:
    if store is None:
        return {}
    return {"store": f"sqlite:///{folder}/parts.db" if store == "sqlite" else MemoryStore()}


@pytest.mark.parametrize("store", [None, "memory", "sqlite"])
@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("strategy", ["concurrent", "sequential"])
@pytest.mark.parametrize("fetch", [Fetch, AsyncFetch])
@pytest.mark.parametrize("fetches", [1, 3])
def test_job_whose_parts_fill_a_slot_fails_and_names_the_slot_and_its_policy(
    fetches: int, fetch: type[Routine], strategy: str, threads: int, store: str | None, tmp_path: Path
) -> None:
    flow = flow_of(fetches, fetch, execution_strategy=strategy)
    with Runtime(thread_pool_size=threads, **store_options(store, tmp_path)) as runtime:
        worker = runtime.exec(flow)
        too_many = runtime.post(flow, "split", "input", {"n": CAPACITY + 1}).job_context
        assert too_many.wait(SECONDS)
        assert too_many.status == "failed"
        assert_stalled(too_many.error)
        fits = runtime.post(flow, "split", "input", {"n": CAPACITY}).job_context
        assert fits.wait(SECONDS)
        assert (fits.status, list(worker.shared_log)) == ("completed", [CAPACITY])


@pytest.mark.parametrize("fetch", [Fetch, AsyncFetch])
def test_execution_whose_parts_fill_a_slot_ends(fetch: type[Routine]) -> None:
    state = flow_of(fetch=fetch).execute("split", {"n": CAPACITY + 1}, timeout=SECONDS)
    assert state.status == "failed"
    assert_stalled(state.job.error)


def test_error_handler_of_the_routine_decides_about_each_item_that_can_not_start() -> None:
    flow = flow_of()
    flow.routines["fetch0"].set_error_handler(ErrorHandler("continue"))
    with Runtime() as runtime:
        runtime.exec(flow)
        job = runtime.post(flow, "split", "input", {"n": CAPACITY + 3}).job_context
        assert job.wait(SECONDS)
        assert (job.status, len(job.errors)) == ("completed", 3)
        assert len(runtime.dead_letters()) == 3
        late = runtime.post(flow, "fetch0", "input", {"of": 99}).job_context
        assert late.wait(SECONDS)
        assert (late.status, len(late.errors)) == ("completed", 1)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("stored", [False, True])
def test_standstill_is_found_in_every_interleaving(seed: int, stored: bool) -> None:
    flow = flow_of(2)
    with simulated(seed, interruption=0.3, **({"store": MemoryStore()} if stored else {})) as runtime:
        runtime.exec(flow)
        job = runtime.post(flow, "split", "input", {"n": CAPACITY + 1}).job_context
        runtime.run()
        assert job.status == "failed"
        assert_stalled(job.error)


@pytest.mark.parametrize("seed", range(40))
def test_what_a_pause_keeps_back_is_no_standstill(seed: int) -> None:
    flow = flow_of(2, policy=immediate_policy())
    with simulated(seed, interruption=0.3) as runtime:
        worker = runtime.exec(flow)
        job = runtime.post(flow, "split", "input", {"n": CAPACITY + 5}).job_context
        runtime.interrupt_with(lambda: runtime.pause(worker))
        runtime.run()
        assert job.errors == []
        runtime.resume(worker)
        runtime.run()
        assert (job.status, len(worker.shared_log)) == ("completed", CAPACITY + 5)


def join() -> Flow:
    class Join(Routine):
        def __init__(self) -> None:
            super().__init__()
            self.add_slot("left", max_queue_length=CAPACITY)
            self.add_slot("right", max_queue_length=CAPACITY)
            self.set_activation_policy(all_slots_ready_policy())

        def logic(self, slot_data: Any, message: Any, state: Any) -> None:
            state.shared_log.append(1)

    flow = Flow("join")
    flow.add_routine(Split(), "split")
    flow.add_routine(Fetch(), "fetch")
    flow.add_routine(Join(), "join")
    flow.connect("split", "output", "fetch", "input")
    flow.connect("fetch", "output", "join", "left")
    return flow


def test_partners_that_come_later_by_post_are_waited_for_while_nothing_is_in_front_of_the_slot() -> None:
    flow = join()
    with Runtime() as runtime:
        worker = runtime.exec(flow)
        job = runtime.post(flow, "split", "input", {"n": CAPACITY}).job_context
        assert job.wait(SECONDS)
        assert (job.status, job.errors) == ("completed", [])
        partners = [runtime.post(flow, "join", "right", {}).job_context for _ in range(CAPACITY)]
        assert all(partner.wait(SECONDS) for partner in partners)
        assert len(worker.shared_log) == CAPACITY
        assert runtime.dead_letters() == []


def test_a_drain_releases_the_partial_batch_that_fills_a_slot_before_anything_fails() -> None:
    flow = flow_of(policy=batch_size_policy(CAPACITY))
    with Runtime() as runtime:
        worker = runtime.exec(flow)
        job = runtime.post(flow, "split", "input", {"n": 2 * CAPACITY + 3}).job_context
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        assert (job.status, list(worker.shared_log)) == ("completed", [CAPACITY, CAPACITY, 3])
