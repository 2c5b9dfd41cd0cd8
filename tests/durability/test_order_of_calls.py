"""Public calls with a store: first on record, then in effect; refused, they leave everything as it was.

The table "Which comes first" in docs/explanation/durability.md is what is shown here, call by call.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, NamedTuple

import pytest

from routilux import Flow, Routine, current
from routilux.activation_policies import immediate_policy
from routilux.errors import StateError, StoreError
from routilux.ports import Changes
from routilux.runtime import runtime as runtime_module
from routilux.store.claims import Claims
from routilux.store.memory import MemoryStore
from routilux.testing.simulated import SimulatedRuntime

SEEDS = range(12)


class Kept(MemoryStore):
    """Remembers what it was before every write, and refuses as many as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses = 0
        self.lives: list[MemoryStore] = []

    def write(self, changes: Changes) -> frozenset[int]:
        if self.refuses:
            self.refuses -= 1
            raise StoreError("the store is busy")
        self.lives.append(self.as_it_is())
        return super().write(changes)

    def as_it_is(self) -> MemoryStore:
        """What a process finds that opens the store after this one has died here."""
        copy = MemoryStore()
        for name, value in vars(self).items():
            if name in vars(copy) and name not in ("_lock", "_claims", "_commands"):
                setattr(copy, name, deepcopy(value))
        return copy


class Scene:
    """A worker "w" with one routine, which notes what it starts and what the store says of the worker then."""

    def __init__(self, seed: int, store: MemoryStore | None = None) -> None:
        self.store = Kept() if store is None else store
        self.runtime = SimulatedRuntime(seed, store=self.store)
        self.starts: list[tuple[int, str, bool]] = []
        self.fails = False
        self.flow = Flow("f")
        routine = Routine()
        routine.add_slot("input")
        routine.set_activation_policy(immediate_policy()).set_logic(self._logic)
        self.flow.add_routine(routine, "r")
        self.worker = self.runtime.exec(self.flow, worker_id="w")

    def _logic(self, slot_data: Any, message: Any, state: Any) -> None:
        job = current().job
        row, stored = self.store.worker("w"), self.store.job(job.job_id)
        assert row is not None
        assert stored is not None
        self.starts.append((slot_data["input"][0]["n"], row.status, b'"paused":true' in stored.row.data))
        if self.fails:
            raise ValueError("on purpose")

    def post(self, n: int, **options: Any) -> Any:
        return self.runtime.post(self.flow, "r", "input", {"n": n}, **options).job_context

    def job(self, job_id: str) -> Any:
        return self.runtime.get_job(job_id)

    def seen(self) -> Any:
        """What a caller can see of the worker, its jobs and its dead letters."""
        jobs = {job.job_id: (job.status.value, job.paused) for job in self.runtime.list_jobs()}
        letters = [letter.data for letter in self.runtime.dead_letters()]
        return self.worker.status.value, jobs, letters

    def end(self) -> None:
        self.runtime.simulation.close(None)
        runtime_module._open_runtimes.discard(self.runtime)


class Call(NamedTuple):
    prepare: Callable[[Scene], Any]
    do: Callable[[Scene], Any]


def paused_worker(scene: Scene) -> None:
    scene.runtime.pause(scene.worker)
    scene.post(1, job_id="a")


def paused_job(scene: Scene) -> None:
    paused_worker(scene)
    scene.runtime.pause("a")


def dead_letter(scene: Scene) -> None:
    scene.fails = True
    scene.post(1, job_id="a").wait()
    scene.fails = False
    scene.runtime.pause(scene.worker)


CALLS = {
    "pause a worker": Call(bool, lambda scene: scene.runtime.pause(scene.worker)),
    "resume a worker": Call(paused_worker, lambda scene: scene.runtime.resume(scene.worker)),
    "pause a job": Call(paused_worker, lambda scene: scene.runtime.pause("a")),
    "resume a job": Call(paused_job, lambda scene: scene.runtime.resume("a")),
    "cancel a job": Call(paused_worker, lambda scene: scene.runtime.cancel("a")),
    "cancel a worker": Call(paused_worker, lambda scene: scene.runtime.cancel(scene.worker)),
    "post": Call(paused_worker, lambda scene: scene.post(2, job_id="b")),
    "post into a job": Call(paused_worker, lambda scene: scene.post(2, job_id="a")),
    "redrive": Call(dead_letter, lambda scene: scene.runtime.redrive(*scene.runtime.dead_letters())),
}
every_call = pytest.mark.parametrize("name", CALLS)


@every_call
@pytest.mark.parametrize("seed", SEEDS)
def test_a_call_that_the_store_refuses_raises_it_and_leaves_everything_as_it_was(
    name: str, seed: int
) -> None:
    scene = Scene(seed)
    CALLS[name].prepare(scene)
    before, starts = scene.seen(), list(scene.starts)
    scene.store.refuses = 1  # type: ignore[attr-defined]
    with pytest.raises(StoreError, match="busy"):
        CALLS[name].do(scene)
    scene.runtime.run()
    assert scene.seen() == before
    assert scene.starts == starts
    CALLS[name].do(scene)
    scene.end()


@every_call
@pytest.mark.parametrize("seed", SEEDS)
def test_a_call_that_was_refused_leaves_nothing_in_the_store(name: str, seed: int) -> None:
    scene = Scene(seed)
    CALLS[name].prepare(scene)
    before = scene.seen()
    scene.store.refuses = 1  # type: ignore[attr-defined]
    with pytest.raises(StoreError):
        CALLS[name].do(scene)
    scene.runtime.run()
    scene.end()
    again = Scene(seed, scene.store.as_it_is())  # type: ignore[attr-defined]
    if not before[1] or before[0] == "paused":  # else it has gone on already
        assert again.seen() == before
    again.end()


@every_call
@pytest.mark.parametrize("seed", SEEDS)
def test_a_process_that_dies_within_a_call_leaves_what_was_before_it_or_what_is_after_it(
    name: str, seed: int
) -> None:
    scene = Scene(seed)
    CALLS[name].prepare(scene)
    scene.seen()
    store: Any = scene.store
    store.lives = []
    CALLS[name].do(scene)
    lives = [store.as_it_is() if not store.lives else store.lives[0], store.as_it_is()]
    found = [_stored(life) for life in lives]
    if name == "cancel a worker":  # its jobs end in one record, and the worker in the next
        found.append(("paused", *found[1][1:]))
    assert all(_stored(life) in found for life in store.lives)
    scene.end()


def _stored(store: MemoryStore) -> Any:
    """What the store holds of the worker and its jobs, but for numbers and times. Items of jobs that have ended are
    given up when the worker is opened."""
    jobs = {
        one.row.job_id: (one.row.status, one.row.data, one.row.completed_at is None and one.items)
        for one in store.jobs()
    }
    row = store.worker("w")
    return row and row.status, jobs, len(store.letters())


@pytest.mark.parametrize("seed", range(60))
def test_nothing_starts_that_the_store_keeps_as_paused(seed: int) -> None:
    scene = Scene(seed)
    paused_job(scene)
    scene.post(2, job_id="b")
    scene.runtime.resume(scene.worker)
    scene.runtime.run()
    scene.runtime.resume("a")
    scene.runtime.run()
    assert scene.starts == [(2, "running", False), (1, "running", False)]
    scene.end()


def test_of_pauses_and_resumes_that_overlap_the_last_decides_in_memory_and_in_the_store() -> None:
    for seed in range(150):
        _overlap(seed)


def _overlap(seed: int) -> None:
    scene = Scene(seed)
    simulation = scene.runtime.simulation
    paused_worker(scene)
    for call in (scene.runtime.resume, scene.runtime.pause, scene.runtime.resume, scene.runtime.pause):
        simulation.interrupts.append(lambda call=call: call(scene.worker))
    scene.runtime.resume(scene.worker)
    scene.runtime.run()
    row = scene.store.worker("w")
    assert row is not None
    assert row.status == scene.worker.status.value
    assert scene.worker.control.queue.paused == (row.status == "paused")  # type: ignore[union-attr]
    scene.end()


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_an_execution_can_be_opened_whenever_its_process_has_died(seed: int, fails: bool) -> None:
    scene = Scene(seed)
    scene.fails = fails
    scene.runtime.exec(scene.flow, entry_params={"n": 1}, job_id="once").wait()
    scene.runtime.run()
    scene.end()
    for life in [*scene.store.lives, scene.store.as_it_is()]:  # type: ignore[attr-defined]
        again = Scene(seed, life)
        again.fails = fails
        again.runtime.recover(flows=[again.flow])
        again.runtime.run()
        state = again.runtime.exec(again.flow, entry_params={"n": 1}, job_id="once")
        assert state.job is not None
        state.job.wait()
        assert state.status == ("failed" if fails else "completed")
        assert len(again.starts) <= 1
        again.end()


def test_recover_can_bring_everything_back_standing_still() -> None:
    """Say, in the morning after an incident; and what was brought back so stays so in the next runtime."""
    scene = Scene(0)
    scene.runtime.pause(scene.worker)
    scene.post(1, job_id="a")
    life = scene.store.as_it_is()  # type: ignore[attr-defined]
    life._workers["w"] = life._workers["w"]._replace(status="running")
    scene.end()
    for _ in range(2):
        runtime = SimulatedRuntime(0, store=life)
        (state,) = runtime.recover(flows=[scene.flow], paused=True)
        runtime.run()
        assert (state.status, runtime.get_job("a").status) == ("paused", "pending")  # type: ignore[union-attr]
        assert life.worker("w").status == "paused"  # type: ignore[union-attr]
        assert scene.starts == []
        runtime.shutdown(wait=False)
    scene.store = life
    runtime = SimulatedRuntime(0, store=life)
    (state,) = runtime.recover(flows=[scene.flow])
    assert state.status == "paused"
    runtime.resume(state)
    runtime.run()
    assert scene.starts == [(1, "running", False)]
    runtime.shutdown()


def test_a_worker_that_can_not_be_written_as_paused_is_not_opened() -> None:
    scene = Scene(0)
    scene.post(1, job_id="a").wait()
    scene.end()
    store: Any = scene.store
    store._claims = Claims()
    runtime = SimulatedRuntime(0, store=store)
    store.refuses = 1
    recovered = runtime.recover(flows=[scene.flow], paused=True)
    assert [(left.worker_id, "the store is busy" in left.reason) for left in recovered.not_reopened] == [
        ("w", True)
    ]
    assert runtime.list_workers() == []
    (state,) = runtime.recover(flows=[scene.flow], paused=True)
    assert state.status == "paused"
    runtime.shutdown()


def test_a_job_that_is_left_is_not_changed_by_a_runtime_that_does_not_run_it() -> None:
    scene = Scene(0)
    paused_worker(scene)
    old = scene.job("a")
    scene.runtime.stop(scene.worker, drain=False)
    left = scene.job("a")
    calls = {
        "pause": lambda: scene.runtime.pause(left),
        "resume": lambda: scene.runtime.resume(left),
        "cancel": lambda: scene.runtime.cancel(left),
        "set_data": lambda: left.set_data("x", 1),
        "trace": lambda: left.trace("x"),
        "set_data of the old one": lambda: old.set_data("x", 1),
        "trace of the old one": lambda: old.trace("x"),
        "state": lambda: scene.worker.update_routine_state("r", {"x": 1}),
        "shared_data": lambda: scene.worker.shared_data.update(x=1),
        "pause the worker": lambda: scene.runtime.pause(scene.worker),
        "resume the worker": lambda: scene.runtime.resume(scene.worker),
    }
    for call in calls.values():
        with pytest.raises(StateError, match="'w'"):
            call()
    assert not left.wait(0)
    with pytest.raises(StateError, match="opened again"):
        left.result(0)
    scene.worker = scene.runtime.exec(scene.flow, worker_id="w")
    scene.runtime.resume(scene.worker)
    scene.runtime.run()
    assert scene.job("a").status == "completed"
    scene.end()


@pytest.mark.parametrize("seed", SEEDS)
def test_an_exec_that_the_store_refuses_leaves_no_worker_behind(seed: int) -> None:
    scene = Scene(seed)
    store: Any = scene.store
    for options in (
        {"worker_id": "new"},
        {"entry_params": {"n": 1}},
        {"entry_params": {"n": 1}, "job_id": "once"},
    ):
        scene.seen()  # everything is written
        store.refuses = 1
        with pytest.raises(StoreError, match="busy"):
            scene.runtime.exec(scene.flow, **options)
        scene.runtime.run()
        assert [row.worker_id for row in store.workers()] == ["w"]
        assert [state.worker_id for state in scene.runtime.list_workers()] == ["w"]
        assert scene.runtime.list_jobs() == []
    assert scene.starts == []
    scene.end()
