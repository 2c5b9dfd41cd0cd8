"""A name means one thing: an execution, a worker or a job of that name is there once, whoever asks for it, and when."""

from __future__ import annotations

import asyncio
import linecache
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from threading import Barrier, Event, Thread
from typing import Any, ClassVar

import pytest

from routilux import Flow, JobState, Runtime, current
from routilux.errors import (
    DuplicateNameError,
    FlowChangedError,
    JobCancelledError,
    QueueFullError,
    RoutiluxError,
    RuntimeClosedError,
    SerializationError,
    StateError,
    StoreCorruptError,
    StoreError,
    StoreUnknownError,
    WorkerNotRunningError,
)
from routilux.ports import Changes, Store
from routilux.runtime.book import unique_prefix
from routilux.runtime.driver import ThreadDriver
from routilux.runtime.journal import following
from routilux.runtime.journal.jobs import StoredJobs
from routilux.runtime.journal.opening import Opener
from routilux.runtime.names import Names
from routilux.runtime.runtime import _open_runtimes
from routilux.runtime.state import WorkerState
from routilux.store.memory import MemoryStore
from routilux.store.postgres import PostgresStore
from routilux.store.sqlite import SqliteStore
from routilux.testing.simulated import SimulatedRuntime, simulated
from tests.acceptance.parts import Held, chain, flow_of, outputs_of, step
from tests.planting import Change, planted
from tests.waiting import SECONDS, eventually

OpenStore = Callable[[], Store]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    """The same store for each runtime that asks: another owner of it, where it can have several."""
    with ExitStack() as stack:
        if request.param == "postgres":
            server = request.getfixturevalue("postgres_server")
            url = server.url()
            yield lambda: stack.enter_context(closing(PostgresStore(url, lease_seconds=3600.0)))
            return
        store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "names.db")
        stack.enter_context(closing(store))
        yield lambda: store


@pytest.fixture
def open_runtime(open_store: OpenStore) -> Iterator[Callable[[], Runtime]]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Runtime(store=open_store()))


class Die(MemoryStore):
    """The process that writes dies in the moment before or after one of the writes."""

    def __init__(self, write: int, *, before: bool) -> None:
        super().__init__()
        self._dies, self._before = write, before
        self._writes = 0
        self.dead = False

    def write(self, changes: Changes) -> frozenset[int | str]:
        if self.dead:
            raise StoreError("this process is dead")
        self._writes += 1
        if self._writes == self._dies and self._before:
            self.dead = True
            raise StoreError("this process is dead")
        taken = super().write(changes)
        self.dead = self._writes == self._dies
        return taken

    def rise(self) -> None:
        self.dead, self._dies = False, -1
        self._claims = type(self._claims)()


def counting() -> tuple[Flow, list[Any]]:
    """A flow that notes what it was given, in a list and in its own state, and passes it on."""
    given: list[Any] = []

    def logic(routine: Any, payload: Any, state: Any) -> None:
        given.append(payload.get("n"))
        state.update_routine_state("a", {"n": payload.get("n")})
        routine.emit("output", **payload)

    return chain(step(logic)), given


def keys(flow_id: str = "chain") -> tuple[Flow, list[str]]:
    """A flow that collects the keys that others know its effects by."""
    seen: list[str] = []

    def logic(routine: Any, payload: Any, state: Any) -> None:
        seen.append(current().idempotency_key("charge"))
        if payload.get("fails"):
            raise ValueError("not this one")

    return chain(step(logic), flow_id=flow_id), seen


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """What these return or raise, called on a thread each."""
    barrier, results = Barrier(len(calls)), [None] * len(calls)

    def run(at: int) -> None:
        barrier.wait(SECONDS)
        try:
            results[at] = calls[at]()
        except Exception as error:  # looked at by the test
            results[at] = error

    threads = [Thread(target=run, args=(at,)) for at in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    return results


# -- one execution of a job_id -----------------------------------------------------------------------------------


def test_threads_that_ask_for_one_job_id_get_one_execution(open_runtime: Callable[[], Runtime]) -> None:
    runtime = open_runtime()
    flow, given = counting()
    for n in range(20):
        ask = lambda n=n: runtime.exec(flow, entry_params={"n": n}, job_id=f"night {n}")  # noqa: E731
        states = at_once([ask] * 4)
        assert all(state is states[0] for state in states)
        assert states[0].wait(SECONDS)
    assert given == list(range(20))


def test_threads_of_a_runtime_in_memory_get_one_execution() -> None:
    with Runtime(thread_pool_size=4) as runtime:
        flow, given = counting()
        for n in range(50):
            states = at_once([lambda n=n: runtime.exec(flow, entry_params={"n": n}, job_id=f"night {n}")] * 4)
            assert all(state is states[0] for state in states)
            assert states[0].wait(SECONDS)
        assert given == list(range(50))


@pytest.mark.parametrize("store", [None, "memory"])
@pytest.mark.parametrize("seed", range(60))
def test_virtual_threads_get_one_execution_whatever_comes_in_between(seed: int, store: str | None) -> None:
    flow, given = counting()
    kept = MemoryStore() if store else None
    with simulated(seed, store=kept, interruption=0.5) as runtime:
        states: list[Any] = []
        stored: list[bool] = []

        def ask() -> None:
            states.append(runtime.exec(flow, entry_params={"n": 1}, job_id="night"))
            stored.append(kept is None or kept.job("night") is not None)

        for _ in range(3):
            runtime.interrupt_with(ask)
        ask()
        runtime.run()
        states.append(runtime.exec(flow, entry_params={"n": 1}, job_id="night"))
        assert given == [1]
        assert all(stored)
        assert len(set(map(id, states))) == 1
        assert states[0].status == "completed"
        assert len(runtime.list_jobs()) == 1


def test_runtimes_that_ask_for_one_job_id_get_one_execution(open_runtime: Callable[[], Runtime]) -> None:
    runtimes = [open_runtime(), open_runtime()]
    flows = [counting(), counting()]
    for n in range(10):
        asks = [
            lambda n=n, runtime=runtime, flow=flow: runtime.exec(flow, entry_params={"n": n}, job_id=f"j{n}")
            for runtime, (flow, _) in zip(runtimes, flows, strict=True)
        ]
        states = at_once(asks * 2)
        assert all(state.wait(SECONDS) for state in states)
        for state in states:
            assert (state.status, state.job.result(SECONDS)[0].data) == ("completed", {"n": n})
            assert state.get_routine_state("a") == {"n": n}
    given = [n for _, seen in flows for n in seen]
    assert sorted(given) == list(range(10))


def test_who_asks_elsewhere_sees_it_run_and_end(open_runtime: Callable[[], Runtime]) -> None:
    first, second = open_runtime(), open_runtime()
    held = Held()
    runs = first.exec(chain(step(held)), entry_params={"n": 1}, job_id="j")
    assert held.entered.wait(SECONDS)
    shown = second.exec(chain(step(Held())), entry_params={"n": 2}, job_id="j")
    assert isinstance(shown, JobState)
    assert (shown.status, shown.job_id, shown.worker_id) == ("pending", "j", runs.worker_id)
    assert not shown.wait(0)
    assert not shown.job.finished
    journal = second._engine.journal
    assert journal is not None
    if journal.store.commands is None:  # else it is cancelled there
        with pytest.raises(StateError, match=r"does not run in this runtime.*or runs it in another process"):
            second.cancel(shown)
    held.let_go.set()
    assert shown.wait(SECONDS)
    assert (shown.status, outputs_of(shown)) == ("completed", [{"n": 1}])
    again = second.exec(chain(step(Held())), entry_params={"n": 3}, job_id="j")
    assert outputs_of(again) == [{"n": 1}]


def test_who_awaits_it_elsewhere_hears_how_it_has_ended(open_runtime: Callable[[], Runtime]) -> None:
    first, second = open_runtime(), open_runtime()
    held = Held()
    runs = first.exec(chain(step(held)), entry_params={}, job_id="j")
    assert held.entered.wait(SECONDS)
    shown = second.exec(chain(step(Held())), entry_params={}, job_id="j")
    first.cancel(runs)

    async def end() -> None:
        await shown.job

    with pytest.raises(JobCancelledError):
        asyncio.run(end())
    assert shown.status == "cancelled"
    held.let_go.set()


def test_who_waits_for_one_that_nobody_runs_any_more_goes_on_with_it(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "LOOK_SECONDS", 0.01)
    held = Held()
    first = Runtime(store=open_store())
    first.exec(chain(step(held)), entry_params={"n": 1}, job_id="j")
    assert held.entered.wait(SECONDS)
    with Runtime(store=open_store()) as second:
        flow, given = counting()
        shown = second.exec(flow, entry_params={"n": 2}, job_id="j")
        assert shown.status == "pending"
        first.shutdown(wait=False, timeout=0)
        assert shown.job.result(SECONDS)[0].data == {"n": 1}
        assert given == [1]
        held.let_go.set()


def test_a_runtime_that_has_ended_follows_nothing(open_store: OpenStore) -> None:
    held = Held()
    with Runtime(store=open_store()) as first:
        first.exec(chain(step(held)), entry_params={}, job_id="j")
        assert held.entered.wait(SECONDS)
        with Runtime(store=open_store()) as second:
            shown = second.exec(chain(step(Held())), entry_params={}, job_id="j")
        with pytest.raises(RuntimeClosedError, match="its runtime has stopped"):
            shown.job.result(SECONDS)
        held.let_go.set()


def test_a_finished_one_is_shown_as_often_as_it_is_asked_for(open_store: OpenStore) -> None:
    flow, given = counting()
    with Runtime(store=open_store()) as runtime:
        assert runtime.exec(flow, entry_params={"n": 1}, job_id="j").wait(SECONDS)
    with Runtime(store=open_store()) as runtime:
        for _ in range(3):
            state = runtime.exec(counting()[0], entry_params={"n": 2}, job_id="j")
            assert (state.status, outputs_of(state), state.routine_states) == (
                "completed", [{"n": 1}], {"a": {"n": 1}},
            )  # fmt: skip
            assert state.wait(0)
            assert state.job.wait(0)
    assert given == [1]


def test_in_memory_a_finished_one_is_known_as_long_as_its_job_is() -> None:
    flow, given = counting()
    with Runtime() as runtime:
        for n in range(1_100):
            runtime.exec(flow, entry_params={"n": n}, job_id=f"j{n}").wait(SECONDS)
        for n in (0, 1_099):
            state = runtime.exec(flow, entry_params={"n": n}, job_id=f"j{n}")
            assert (state.status, outputs_of(state)) == ("completed", [{"n": n}])
        assert given == list(range(1_100))


@pytest.mark.parametrize("place", ["a", "b"])
@pytest.mark.parametrize("with_store", [True, False])
def test_who_waits_for_room_keeps_the_name_from_nobody(with_store: bool, place: str) -> None:
    """Not from logic either, on which that room depends: it lends its place, or hears that nothing can make room."""
    asked, states = Event(), []
    inner = chain(step(lambda routine, payload, state: routine.emit("output", **payload)), flow_id="inner")

    def logic(routine: Any, payload: Any, state: Any) -> None:
        if payload["n"] == 0:
            assert asked.wait(SECONDS)
            states.append(runtime.exec(inner, entry_params={"n": 7}, job_id="j"))

    flow = flow_of(step(logic), step(logic), flow_id="outer")
    with Runtime(
        store=MemoryStore() if with_store else None, thread_pool_size=1, max_queue_size=1
    ) as runtime:
        runtime.exec(flow, worker_id="w")
        first = runtime.post(flow, "a", "input", {"n": 0}).job_context
        eventually(lambda: first.status == "running")
        runtime.post(
            flow, place, "input", {"n": 1}
        )  # it is pending, and in "a" as long as the first one runs
        outer = Thread(target=lambda: states.append(runtime.exec(inner, entry_params={"n": 7}, job_id="j")))
        outer.start()
        eventually(lambda: runtime._engine.bell.waiting)
        asked.set()
        outer.join(SECONDS)
        assert first.wait(SECONDS)
        assert first.status == ("failed" if place == "a" else "completed")
        assert (len(states), len(set(map(id, states)))) == (1 if place == "a" else 2, 1)
        assert states[0].wait(SECONDS)
        assert outputs_of(states[0]) == [{"n": 7}]
        assert place == "b" or isinstance(first.error.__cause__, QueueFullError)


def test_a_job_of_a_worker_is_no_execution(open_store: OpenStore) -> None:
    flow, _ = counting()
    with Runtime(store=open_store()) as runtime:
        runtime.exec(flow, worker_id="w")
        runtime.post(flow, "a", "input", {"n": 1}, job_id="j").job_context.wait(SECONDS)
        with pytest.raises(
            StateError, match="job 'j' is one of worker 'w' of flow 'chain', not an execution"
        ):
            runtime.exec(flow, entry_params={"n": 2}, job_id="j")
    with Runtime(store=open_store()) as runtime:
        with pytest.raises(
            StateError, match="job 'j' is one of worker 'w' of flow 'chain', not an execution"
        ):
            runtime.exec(flow, entry_params={"n": 2}, job_id="j")
        assert [job.job_id for job in runtime.list_jobs()] == ["j"]


def test_a_post_cannot_take_the_id_of_a_job_elsewhere(open_runtime: Callable[[], Runtime]) -> None:
    first, second = open_runtime(), open_runtime()
    flow, given = counting()
    other, seen = counting()
    first.exec(flow, worker_id="one")
    second.exec(other, worker_id="two")
    asks = [
        lambda: first.post(flow, "a", "input", {"n": 1}, job_id="j"),
        lambda: second.post(other, "a", "input", {"n": 2}, job_id="j"),
    ]
    results = at_once(asks)
    refused = [result for result in results if isinstance(result, StateError)]
    assert len(refused) == 1
    assert "'j'" in str(refused[0])
    [posted] = [result for result in results if not isinstance(result, Exception)]
    assert posted.job_context.wait(SECONDS)
    assert len([*given, *seen]) == 1
    stored = first.get_job("j")
    assert stored is not None
    assert stored.worker_id == posted.worker_state.worker_id


def test_a_post_with_a_key_cannot_take_the_id_of_a_job_elsewhere_either(
    open_runtime: Callable[[], Runtime],
) -> None:
    runtimes, flows = [open_runtime(), open_runtime()], [counting(), counting()]
    for at, (runtime, (flow, _)) in enumerate(zip(runtimes, flows, strict=True)):
        runtime.exec(flow, worker_id=f"w{at}")
    results = at_once(
        [
            lambda at=at: runtimes[at].post(
                flows[at][0], "a", "input", {}, job_id="j", idempotency_key=f"k{at}"
            )
            for at in range(2)
        ]
    )
    assert sorted(type(result).__name__ for result in results) == ["Posted", "StateError"]


class CtrlC(KeyboardInterrupt):
    """One that a test has sent."""


def interrupted_at(line: int, functions: set[str], call: Callable[[], Any]) -> bool:
    """Whether a Ctrl-C has come before this line, of those that the call runs of these functions."""
    lines = count(1)

    def is_of_lock(frame: Any) -> bool:
        """Where a block ends no signal is handled before its lock is given back, but lines are traced."""
        return linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith("with ")

    def look(frame: Any, event: str, _: Any) -> Any:
        if event == "line" and not is_of_lock(frame) and next(lines) == line:
            raise CtrlC
        return look

    def trace(frame: Any, event: str, _: Any) -> Any:
        ours = frame.f_code.co_name in functions and "routilux" in frame.f_code.co_filename
        return look if ours else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except CtrlC:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("with_store", [False, True])
def test_a_ctrl_c_keeps_no_idempotency_key(with_store: bool) -> None:
    flow, _ = counting()
    with Runtime(store=MemoryStore() if with_store else None) as runtime:
        runtime.exec(flow)
        parts = {"once", "_first_with", "_settle"}
        post = lambda n: runtime.post(flow, "a", "input", {"n": n}, idempotency_key=f"{n}")  # noqa: E731
        n = 1
        while interrupted_at(n, parts, partial(post, n)):
            assert runtime._posting._under_way == {}
            assert post(n).job_context.wait(SECONDS)
            n += 1
        assert n > 20


def test_a_ctrl_c_keeps_no_name() -> None:
    with Runtime(store=MemoryStore()) as runtime:
        names = runtime._engine.names

        def hold() -> None:
            with names.held("worker", "w"):
                pass

        n = 1
        while interrupted_at(n, {"held", "take", "give_back"}, hold):
            assert names._held == {}
            n += 1
        assert n > 10


def test_a_completed_job_that_only_the_store_has_takes_more_items(open_store: OpenStore) -> None:
    with Runtime(store=open_store()) as runtime:
        flow, _ = counting()
        runtime.exec(flow, worker_id="w")
        assert runtime.post(flow, "a", "input", {"n": 1}, job_id="j").job_context.wait(SECONDS)
    with Runtime(store=open_store()) as runtime:
        flow, given = counting()
        runtime.exec(flow, worker_id="w")
        job = runtime.post(flow, "a", "input", {"n": 2}, job_id="j").job_context
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        eventually(lambda: len(job.outputs) == 2)
        assert (given, job.status, outputs_of(job)) == ([2], "completed", [{"n": 1}, {"n": 2}])
    with Runtime(store=open_store()) as runtime:
        stored = runtime.get_job("j")
        assert stored is not None
        assert (stored.status, outputs_of(stored)) == ("completed", [{"n": 1}, {"n": 2}])


def test_an_id_that_a_user_has_given_is_not_made_up_again() -> None:
    with Runtime() as runtime:
        flow, given = counting()
        worker = runtime.exec(flow)
        runtime.pause(worker)
        first = runtime.post(flow, "a", "input", {"n": 0}).job_id
        number = int(first[-1]) + 1
        jobs = [runtime.post(flow, "a", "input", {"n": 1}, job_id=f"{first[:-1]}{number}").job_context]
        jobs += [runtime.post(flow, "a", "input", {"n": n}).job_context for n in (2, 3)]
        assert len({job.job_id for job in jobs}) == 3
        runtime.resume(worker)
        assert all(job.wait(SECONDS) for job in jobs)
        assert [outputs_of(job) for job in jobs] == [[{"n": n}] for n in (1, 2, 3)]
        assert given == [0, 1, 2, 3]


@pytest.mark.parametrize("seed", range(60))
def test_a_post_does_not_join_the_execution_that_comes_in_between(seed: int) -> None:
    flow, given = counting()
    with simulated(seed, interruption=0.5) as runtime:
        runtime.exec(flow, worker_id="w")
        refused: list[Exception] = []
        asked: list[bool] = []

        def execute() -> None:
            asked.append(True)
            try:
                runtime.exec(flow, entry_params={"n": "exec"}, job_id="j")
            except StateError as error:
                refused.append(error)

        runtime.interrupt_with(execute)
        try:
            runtime.post(flow, "a", "input", {"n": "post"}, job_id="j", worker_id="w")
        except StateError as error:
            refused.append(error)
        runtime.simulation.interrupts.clear()
        if not asked:
            execute()
        runtime.run()
        assert len(given) + len(refused) == 2
        assert given in (["post"], ["exec"])


# -- killed at any moment ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["exec", "recover"])
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("write", range(1, 7))
def test_an_execution_is_whole_whenever_its_process_dies(write: int, before: bool, how: str) -> None:
    store = Die(write, before=before)
    flow, _ = counting()
    acknowledged = False
    first = SimulatedRuntime(7, store=store)
    try:
        first.exec(flow, entry_params={"n": 1}, job_id="j")
        acknowledged = True
        first.run(0.5)
    except StoreError:
        pass
    first.simulation.close(None)
    _open_runtimes.discard(first)
    store.rise()
    with simulated(8, store=store) as second:
        flow, _ = counting()
        if how == "recover":
            recovered = second.recover(flows=[flow])
            assert recovered.not_reopened == []
            second.run()
            assert bool(store.job("j")) >= acknowledged
        state = second.exec(flow, entry_params={"n": 2}, job_id="j")
        second.run()
        assert state.status == "completed"
        assert outputs_of(state) == [{"n": 1}] or (not acknowledged and outputs_of(state) == [{"n": 2}])
        assert [job.status for job in second.list_jobs()] == ["completed"]
    [row] = store.workers()
    assert row.status == "stopped"


def test_the_end_of_an_execution_is_one_transaction_with_that_of_its_job() -> None:
    class Seen(MemoryStore):
        ends: ClassVar[list[tuple[list[str], list[str]]]] = []

        def write(self, changes: Changes) -> frozenset[int | str]:
            jobs = [row.status for row in changes.jobs.values()]
            workers = [row.status for row in changes.workers.values()]
            self.ends.append((jobs, workers))
            return super().write(changes)

    with simulated(1, store=Seen()) as runtime:
        runtime.exec(counting()[0], entry_params={"n": 1}, job_id="j")
        runtime.run()
        written = [end for end in Seen.ends if end != ([], [])]
        assert written == [(["pending"], ["running"]), (["completed"], ["stopped"])]


class Refuses(MemoryStore):
    """Takes some of the writes only when they come again, and says of some that it does not know."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._rng = Random(seed)
        self._written = False

    def write(self, changes: Changes) -> frozenset[int | str]:
        fate = self._rng.random()
        if fate < 0.2:
            raise StoreError("the store is busy")
        if fate < 0.3:
            self._written = self._rng.random() < 0.5 and not super().write(changes)
            raise StoreUnknownError("the connection was lost")
        return super().write(changes)

    def settle(self) -> bool:
        return self._written


@pytest.mark.parametrize("seed", range(100))
def test_an_execution_and_its_job_end_alike_whatever_the_store_refuses(seed: int) -> None:
    store = Refuses(seed)
    flow, _ = counting()
    with simulated(seed, store=store, interruption=0.5) as runtime:

        def meddle(call: Callable[[Any], object]) -> None:
            with suppress(RoutiluxError):
                call("j")

        for call in (runtime.cancel, runtime.pause, runtime.resume, runtime.cancel)[: seed % 5]:
            runtime.interrupt_with(partial(meddle, call))
        state: Any = None
        while state is None:
            with suppress(StoreError, WorkerNotRunningError):  # or it was cancelled before it was accepted
                state = runtime.exec(flow, entry_params={"n": 1}, job_id="j")
            for row in store.jobs():
                assert store.worker(row.row.worker_id) is not None
        runtime.run()
        runtime.simulation.interrupts.clear()
        while not state.job.finished:
            with suppress(StoreError):
                runtime.resume(state.job)
            runtime.run()
        job, row = store.job("j"), store.worker(state.worker_id)
        if job is None or row is None:  # it was cancelled before it was accepted
            assert (job, row, state.status) == (None, None, "cancelled")
            return
        assert (job.row.status, row.status) == (state.status, "stopped")
        assert store.places(state.worker_id) == []


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_what_an_older_version_has_left_half_ended_comes_to_its_end(status: str) -> None:
    """It wrote the end of the job and that of its worker one after the other."""
    store = MemoryStore()
    flow, _ = counting()
    with Runtime(store=store) as runtime:
        state = runtime.exec(flow, entry_params={"n": 1}, job_id="j")
        assert state.wait(SECONDS)
        runtime.exec(flow, worker_id="other")
    changes, job = Changes(), store.job("j")
    assert job is not None
    row = store.worker(state.worker_id)
    assert row is not None
    changes.workers[row.worker_id] = row._replace(status="running")
    changes.jobs["j"] = job.row._replace(status=status)
    store.write(changes)
    with Runtime(store=store) as runtime:
        recovered = runtime.recover(flows=[flow])
        assert sorted(str(one.status) for one in recovered) == sorted([status, "running"])
        assert recovered.not_reopened == []
        assert [one.worker_id for one in runtime.list_workers()] == ["other"]
        again = runtime.exec(flow, entry_params={}, job_id="j")
        assert again.status == status
        runtime.pause("other")  # behind what was written before
        ended = store.worker(state.worker_id)
        assert ended is not None
        assert ended.status == "stopped"


def test_a_refused_execution_leaves_nothing(open_store: OpenStore) -> None:
    store = open_store()
    with Runtime(store=store) as runtime:
        for options in ({}, {"job_id": "j"}, {"worker_id": "w"}):
            with pytest.raises(SerializationError):
                runtime.exec(counting()[0], entry_params={}, metadata={"x": object()}, **options)
            with pytest.raises(SerializationError):
                runtime.exec(counting()[0], entry_params={"x": object()}, **options)
        assert (runtime.list_workers(), runtime.list_jobs(), runtime.get_worker("w")) == ([], [], None)
        assert (store.workers(), store.jobs()) == ([], [])
        state = runtime.exec(counting()[0], entry_params={"n": 1}, job_id="j", worker_id="w")
        assert state.wait(SECONDS)


# -- a name that is used again -----------------------------------------------------------------------------------


def test_a_name_used_again_gives_no_key_twice(open_store: OpenStore) -> None:
    seen: list[str] = []
    for _ in range(3):
        with Runtime(store=open_store()) as runtime:
            flow, these = keys()
            for _ in range(2):
                worker = runtime.exec(flow, worker_id="w")
                for n in range(3):
                    runtime.post(flow, "a", "input", {"n": n})
                assert runtime.stop(worker, timeout=SECONDS)
            seen += these
    assert len(seen) == len(set(seen)) == 18


def test_a_name_used_again_gives_no_key_twice_when_its_row_was_removed(open_store: OpenStore) -> None:
    store = open_store()
    seen: list[str] = []
    for life in range(3):
        with Runtime(store=store) as runtime:
            flow, these = keys()
            worker = runtime.exec(flow, worker_id="w")
            runtime.post(flow, "a", "input", {}).job_context.wait(SECONDS)
            assert runtime.stop(worker, timeout=SECONDS)
            seen += these
        while store.prune(4e9, finished_before=4e9, keep_finished=0, limit=100):
            pass
        assert store.workers() == [], life
    assert len(seen) == len(set(seen)) == 3


def test_in_memory_a_name_used_again_gives_no_key_twice() -> None:
    with Runtime() as runtime:
        flow, seen = keys()
        for _ in range(3):
            worker = runtime.exec(flow, worker_id="w")
            runtime.post(flow, "a", "input", {}).job_context.wait(SECONDS)
            runtime.stop(worker)
            runtime.exec(flow, entry_params={}, worker_id="once").wait(SECONDS)
    assert len(seen) == len(set(seen)) == 6


def test_letters_and_jobs_of_a_former_life_stay_and_can_be_driven_again(open_store: OpenStore) -> None:
    with Runtime(store=open_store()) as runtime:
        for life in range(2):
            flow, _ = keys()
            worker = runtime.exec(flow, worker_id="w")
            runtime.post(flow, "a", "input", {"fails": True, "life": life}, job_id=f"j{life}")
            assert runtime.stop(worker, timeout=SECONDS)
        letters = runtime.dead_letters(worker="w")
        assert [letter.data["life"] for letter in letters] == [0, 1]
        assert len({letter.item_id for letter in letters}) == 2
        flow, seen = keys()
        runtime.exec(flow, worker_id="w")
        [posted] = runtime.redrive(letters[0])
        assert posted.job_context.wait(SECONDS)
        assert len(seen) == 1
        jobs = [runtime.get_job(f"j{life}") for life in range(2)]
        assert [job and job.status for job in jobs] == ["failed", "failed"]
        assert sorted(letter.data["life"] for letter in runtime.dead_letters(worker="w")) == [0, 1]


def test_every_opening_is_another_incarnation(open_store: OpenStore) -> None:
    store = open_store()
    seen = []
    for life in range(4):
        with Runtime(store=store) as runtime:
            flow, _ = counting()
            worker = runtime.exec(flow, worker_id="w")
            runtime._engine.journal.flush()  # type: ignore[union-attr]
            row = store.worker("w")
            assert row is not None
            seen.append(runtime._engine.journal.codec.decode(row.data, "w")["incarnation"])  # type: ignore[union-attr]
            if life == 1:
                runtime.stop(worker)
    assert seen == [1, 2, 3, 4]


def test_an_execution_by_the_name_of_a_former_one_does_not_stand_for_its_job(open_store: OpenStore) -> None:
    flow, given = counting()
    with Runtime(store=open_store()) as runtime:
        assert runtime.exec(flow, entry_params={"n": 1}, worker_id="nightly", job_id="mon").wait(SECONDS)
        held = Held()
        second = chain(step(held))
        live = runtime.exec(second, entry_params={"n": 2}, worker_id="nightly", job_id="tue")
        monday = runtime.exec(flow, entry_params={"n": 3}, job_id="mon")
        assert (monday.status, outputs_of(monday)) == ("completed", [{"n": 1}])
        held.let_go.set()
        assert live.wait(SECONDS)
    with Runtime(store=open_store()) as runtime:
        states = {day: runtime.exec(flow, entry_params={"n": 3}, job_id=day) for day in ("mon", "tue")}
        assert {day: outputs_of(state) for day, state in states.items()} == {
            "mon": [{"n": 1}], "tue": [{"n": 2}],
        }  # fmt: skip
    assert given == [1]


# -- whose name it is --------------------------------------------------------------------------------------------


def test_the_name_of_a_worker_is_none_for_an_execution_nor_the_other_way_round(open_store: OpenStore) -> None:
    store = open_store()
    flow, given = counting()
    with Runtime(store=store) as runtime:
        runtime.exec(flow, worker_id="stays")
        assert runtime.stop(runtime.exec(flow, worker_id="stopped"))
        assert runtime.exec(flow, entry_params={"n": 1}, worker_id="once").wait(SECONDS)
    before = store.workers()
    with Runtime(store=store) as runtime:
        for name in ("stays", "stopped"):
            with pytest.raises(StateError, match=f"worker '{name}' of the store is a worker that takes jobs"):
                runtime.exec(flow, entry_params={"n": 2}, worker_id=name)
        with pytest.raises(StateError, match="worker 'once' of the store is a one-shot execution"):
            runtime.exec(flow, worker_id="once")
        assert store.workers() == before
        assert runtime.list_workers() == []
        assert [state.worker_id for state in runtime.recover(flows=[flow])] == ["stays"]
    assert given == [1]


def test_an_execution_cannot_take_the_name_of_an_unfinished_one(open_store: OpenStore) -> None:
    held = Held()
    first = Runtime(store=open_store())
    first.exec(chain(step(held)), entry_params={"n": 1}, worker_id="w", job_id="j")
    assert held.entered.wait(SECONDS)
    first.shutdown(wait=False, timeout=0)
    held.let_go.set()
    with Runtime(store=open_store()) as second:
        flow, given = counting()
        with pytest.raises(DuplicateNameError, match=r"'w' is taken by an unfinished execution.*its job_id"):
            second.exec(flow, entry_params={"n": 2}, worker_id="w", job_id="other")
        assert second.exec(flow, entry_params={"n": 2}, job_id="j").wait(SECONDS)
        assert given == [1]


@pytest.mark.parametrize("with_store", [True, False])
def test_threads_that_start_a_worker_of_one_name_start_it_once(with_store: bool) -> None:
    with Runtime(store=MemoryStore() if with_store else None) as runtime:
        flow, _ = counting()
        for n in range(20):
            results = at_once([lambda n=n: runtime.exec(flow, worker_id=f"w{n}")] * 4)
            started = [result for result in results if isinstance(result, WorkerState)]
            refused = [result for result in results if isinstance(result, DuplicateNameError)]
            assert (len(started), len(refused)) == (1, 3)
            assert runtime.get_worker(f"w{n}") is started[0]
        assert len(runtime.list_workers()) == 20


@pytest.mark.parametrize("seed", range(60))
def test_a_name_whose_worker_just_stops_is_free_or_taken(seed: int) -> None:
    with simulated(seed, store=MemoryStore(), interruption=0.5) as runtime:
        flow, _ = counting()
        worker = runtime.exec(flow, worker_id="w")
        refused: list[DuplicateNameError] = []
        started: list[Any] = []

        def again() -> None:
            try:
                started.append(runtime.exec(flow, worker_id="w"))
            except DuplicateNameError as error:
                refused.append(error)

        runtime.interrupt_with(again)
        runtime.stop(worker)
        runtime.run()
        if refused or not started:
            again()
        assert [state.status for state in started] == ["running"]
        runtime.stop("w")


@pytest.mark.parametrize("seed", range(40))
def test_recover_and_exec_open_a_worker_once_whatever_comes_in_between(seed: int) -> None:
    store = MemoryStore()
    flow, given = counting()
    with simulated(seed, store=store) as runtime:
        runtime.pause(runtime.exec(flow, worker_id="w"))
        runtime.post(flow, "a", "input", {"n": 1}, worker_id="w")
    with simulated(seed, store=store, interruption=0.5) as runtime:
        results: list[Any] = []

        def open_it() -> None:
            try:
                results.append(runtime.exec(flow, worker_id="w"))
            except DuplicateNameError:
                results.append(None)

        runtime.interrupt_with(open_it)
        recovered = runtime.recover(flows=[flow])
        assert recovered.not_reopened == []
        runtime.run()
        assert len(recovered) + len([result for result in results if result]) == 1
        runtime.resume("w")
        runtime.run()
        assert given == [1]


# -- ids that are made up ----------------------------------------------------------------------------------------


def test_ids_that_are_made_up_have_64_random_bits() -> None:
    ids = {unique_prefix() for _ in range(1_000)}
    assert len(ids) == 1_000
    assert {len(bytes.fromhex(one)) for one in ids} == {8}


def test_an_id_that_the_store_has_is_drawn_again(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether of a worker, of an execution or of a job: nothing is overwritten."""
    for life in range(2):
        drawn = (text for n in count() for text in ["same", f"{life} {n}"])
        monkeypatch.setattr(ThreadDriver, "unique", staticmethod(lambda drawn=drawn: next(drawn)))
        with Runtime(store=open_store()) as runtime:
            flow, given = counting()
            for n in range(3):
                assert runtime.exec(flow, entry_params={"n": n}).wait(SECONDS)
            worker = runtime.exec(flow)
            for n in range(3, 6):
                assert runtime.post(flow, "a", "input", {"n": n}).job_context.wait(SECONDS)
            assert given == list(range(6))
            runtime.stop(worker)
    with Runtime(store=open_store()) as runtime:
        jobs = runtime.list_jobs()
        assert [outputs_of(job) for job in jobs] == [[{"n": n}] for n in range(6)] * 2
        assert len({job.job_id for job in jobs}) == 12
        executions = [job.worker_id for at, job in enumerate(jobs) if at % 6 < 3]
        assert len(set(executions)) == 6


def test_a_simulation_goes_on_with_a_store_that_has_its_ids(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/simulated.db"
    for _ in range(2):
        with simulated(1, store=url) as runtime:
            for n in range(20):
                runtime.exec(counting()[0], entry_params={"n": n})
            runtime.run()
            jobs = runtime.list_jobs()
    assert sorted(job.outputs[0].data["n"] for job in jobs) == sorted([*range(20)] * 2)


def test_where_no_id_is_free_it_is_refused(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ThreadDriver, "unique", staticmethod(lambda: "same"))
    with Runtime(store=open_store()) as runtime:
        flow, given = counting()
        assert runtime.exec(flow, entry_params={"n": 1}).wait(SECONDS)
        with pytest.raises(DuplicateNameError, match=r"has worker_id 'worker_same', which is made up again"):
            runtime.exec(flow, entry_params={"n": 2})
        assert given == [1]


# -- claimed first, read afterwards ------------------------------------------------------------------------------


def between_list_and_claim(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, call: Callable[[], None]
) -> None:
    """``call`` happens elsewhere when this runtime has seen a worker in the store and has not claimed it yet."""
    store = runtime._engine.journal.store  # type: ignore[union-attr]
    claim, calls = store.claim, [call]

    def late(*arguments: Any) -> None:
        if calls:
            calls.pop()()
        claim(*arguments)

    monkeypatch.setattr(store, "claim", late)


@pytest.mark.parametrize("how", ["exec", "recover"])
def test_what_another_owner_does_before_the_claim_is_seen(
    how: str, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow, seen = keys()
    first = Runtime(store=open_store())
    worker = first.exec(flow, worker_id="w")
    second_flow, others = keys()
    with Runtime(store=open_store()) as second:

        def elsewhere() -> None:
            for n in range(1_200):
                first.post(flow, "a", "input", {"n": n})
            assert first.wait_until_all_jobs_finished(SECONDS)
            first.pause(worker)
            first.shutdown()

        between_list_and_claim(second, monkeypatch, elsewhere)
        if how == "recover":
            recovered = second.recover(flows=[second_flow])
            assert recovered.not_reopened == []
            [state] = recovered
        else:
            state = second.exec(second_flow, worker_id="w")
        assert state.status == "paused"
        second.resume(state)
        for n in range(3):
            second.post(second_flow, "a", "input", {"n": n})
        assert second.wait_until_all_jobs_finished(SECONDS)
    assert len(set(seen) | set(others)) == 1_203


def test_what_ends_elsewhere_before_the_claim_is_not_opened(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow, _ = counting()
    first = Runtime(store=open_store())
    worker = first.exec(flow, worker_id="w")
    with Runtime(store=open_store()) as second:
        between_list_and_claim(
            second, monkeypatch, lambda: (first.stop(worker), first.shutdown())[0] and None
        )
        recovered = second.recover(flows=[counting()[0]])
        assert (list(recovered), recovered.not_reopened) == ([], [])


def damage(store: Store, worker_id: str, **fields: Any) -> None:
    changes, row = Changes(), store.worker(worker_id)
    assert row is not None
    changes.workers[worker_id] = row._replace(**fields)
    store.write(changes)


def test_one_worker_that_cannot_be_opened_keeps_no_other_from_it(open_store: OpenStore) -> None:
    store = open_store()
    flow, given = counting()
    with Runtime(store=store) as runtime:
        for name in "abcd":
            runtime.pause(runtime.exec(flow, worker_id=name))
            runtime.post(flow, "a", "input", {"n": name}, worker_id=name)
    sound = {name: store.worker(name) for name in "bc"}
    damage(store, "b", data=b"[1, 2]")
    damage(store, "c", data=b"no JSON")
    with Runtime(store=store) as runtime:
        recovered = runtime.recover(flows=[flow])
        assert [state.worker_id for state in recovered] == ["a", "d"]
        assert [left.worker_id for left in recovered.not_reopened] == ["b", "c"]
        assert all(left.reason for left in recovered.not_reopened)
        assert [runtime.get_worker(name) for name in "bc"] == [None, None]
        for name, row in sound.items():
            assert row is not None
            damage(store, name, data=row.data)
        again = runtime.recover(flows=[flow])
        assert [state.worker_id for state in again] == ["b", "c"]
        for name in "abcd":
            runtime.resume(name)
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        assert sorted(given) == list("abcd")


def test_an_execution_whose_worker_is_lost_is_told(open_store: OpenStore) -> None:
    store = open_store()
    held = Held()
    first = Runtime(store=store)
    state = first.exec(chain(step(held)), entry_params={"n": 1}, job_id="j")
    assert held.entered.wait(SECONDS)
    first.shutdown(wait=False, timeout=0)
    held.let_go.set()
    changes = Changes()
    changes.forgotten = [state.worker_id]
    store.write(changes)
    said = r"has job 'j' as .*, and no worker.*repair the store"
    with Runtime(store=store) as runtime, pytest.raises(StoreCorruptError, match=said):
        runtime.exec(counting()[0], entry_params={"n": 2}, job_id="j")


def test_a_changed_flow_does_not_keep_the_end_of_an_execution_from_who_asks(open_store: OpenStore) -> None:
    with Runtime(store=open_store()) as runtime:
        assert runtime.exec(counting()[0], entry_params={"n": 1}, job_id="j").wait(SECONDS)
        runtime.pause(runtime.exec(counting()[0], worker_id="w"))
    with Runtime(store=open_store()) as runtime:
        changed = chain(step(Held()), step(Held()))
        assert runtime.exec(changed, entry_params={"n": 1}, job_id="j").status == "completed"
        with pytest.raises(FlowChangedError):
            runtime.exec(changed, worker_id="w")


# -- files -------------------------------------------------------------------------------------------------------


def test_a_file_with_the_ids_of_other_jobs_is_refused_and_nothing_has_changed(tmp_path: Path) -> None:
    path = str(tmp_path / "state.json")
    flow, given = counting()
    with Runtime() as runtime:
        worker = runtime.exec(flow, worker_id="w")
        runtime.pause(worker)
        runtime.post(flow, "a", "input", {"n": 1}, job_id="j")
        worker.save(path)
        runtime.resume(worker)
        runtime.stop(worker)
        resumed = runtime.exec(flow, job_state=WorkerState.load(path))
        runtime.resume(resumed) if resumed.status == "paused" else None
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        runtime.stop(resumed)
    assert given == [1, 1]
    with Runtime() as runtime:
        other = runtime.exec(flow, worker_id="other")
        job = runtime.post(flow, "a", "input", {"n": 2}, job_id="j").job_context
        assert job.wait(SECONDS)
        with pytest.raises(DuplicateNameError, match="job 'j' of the saved worker 'w' is known here"):
            runtime.exec(flow, job_state=WorkerState.load(path))
        assert runtime.get_job("j") is job
        assert runtime.list_workers() == [other]


# -- faults ------------------------------------------------------------------------------------------------------


def one_execution() -> None:
    for seed in range(60):
        test_virtual_threads_get_one_execution_whatever_comes_in_between(seed, "memory")


def one_execution_of_two_runtimes() -> None:
    """The second one asks when the first has looked and has not written yet."""
    store = MemoryStore()
    flows = [counting(), counting()]
    with Runtime(store=store) as first, Runtime(store=store) as second:
        claim, calls = store.claim, [lambda: second.exec(flows[1][0], entry_params={"n": 2}, job_id="j")]

        def late(*arguments: Any) -> None:
            if calls:
                assert calls.pop()().wait(SECONDS)
            claim(*arguments)

        store.claim = late  # type: ignore[method-assign]
        assert first.exec(flows[0][0], entry_params={"n": 1}, job_id="j").wait(SECONDS)
    assert [given for _, given in flows] == [[], [2]]


def shared() -> OpenStore:
    store = MemoryStore()
    return lambda: store


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        (Change(Names, "held", "held.setdefault(key, me) is me", "True"), one_execution),
        (
            Change(MemoryStore, "_is_of_another", "known is not None", "False"),
            one_execution_of_two_runtimes,
        ),
        (
            Change(Opener, "_begin_life", "first = max(first, former.next_number)", "pass"),
            lambda: test_a_name_used_again_gives_no_key_twice(shared()),
        ),
        (
            Change(Opener, "_begin_life", "int(self._journal.store.properties().get(FLOOR, 0))", "1"),
            lambda: test_a_name_used_again_gives_no_key_twice_when_its_row_was_removed(shared()),
        ),
        (
            Change(StoredJobs, "end_rows", "self._worker.add_end(record)", "pass"),
            test_the_end_of_an_execution_is_one_transaction_with_that_of_its_job,
        ),
        (
            Change(Opener, "_goes_on", "        worker.close()\n", "        return True\n"),
            lambda: test_what_an_older_version_has_left_half_ended_comes_to_its_end("completed"),
        ),
    ],
    ids=lambda value: value.function + " " + value.old[:20] if isinstance(value, Change) else "",
)
def test_a_fault_is_caught(fault: Change, check: Callable[[], None]) -> None:
    with planted(fault), pytest.raises((AssertionError, RoutiluxError)):
        check()
