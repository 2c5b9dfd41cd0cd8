"""Two runtimes serve one worker: one runs it, the other asks it, and takes it over when it is free."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from threading import Event, Thread, current_thread
from typing import Any

import pytest

from routilux import Flow, Routine, Runtime
from routilux.activation_policies import immediate_policy
from routilux.errors import (
    DuplicateNameError,
    ExecutionTimeoutError,
    IdempotencyConflictError,
    JobCancelledError,
    QueueFullError,
    StateError,
    StoreError,
    StoreUnknownError,
    UnknownJobError,
    WorkerNotRunningError,
)
from routilux.ports import MOST_DUE, Answer, Changes, Command, Commands, Store
from routilux.runtime.journal.opening import Opener
from routilux.store.memory import MemoryStore
from tests.postgres.conftest import OpenStore
from tests.postgres.test_ownership import run_out
from tests.waiting import eventually

SECONDS = 60
ASKS = "routilux-commands"
ROOT = Path(__file__).parents[2]
Stores = Callable[[], Store]


class Work(Routine):
    """Goes on when it may; what it is told to raise it raises."""

    def __init__(self, **slot: Any) -> None:
        super().__init__()
        self.add_slot("input", **slot)
        self.add_event("out")
        self.set_activation_policy(immediate_policy())
        self.done: list[Any] = []
        self.may_go_on = Event()
        self.may_go_on.set()

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        self.may_go_on.wait(SECONDS)
        (item,) = slot_data["input"]
        if item["n"] == "fail":
            raise ValueError("as it was told")
        self.done.append(item["n"])
        self.emit("out", n=item["n"])


class Side:
    """A runtime with its own flow, as a process would have it."""

    def __init__(self, store: Store, **slot: Any) -> None:
        self.work = Work(**slot)
        self.flow = Flow("orders")
        self.flow.add_routine(self.work, "work")
        self.runtime = Runtime(store=store, thread_pool_size=2)
        self.state = self.runtime.exec(self.flow, worker_id="orders")

    def post(self, n: Any = 0, **options: Any) -> Any:
        return self.runtime.post(self.flow, "work", "input", {"n": n}, **options).job_context


@pytest.fixture(params=["memory", "postgres"])
def stores(request: pytest.FixtureRequest) -> Iterator[Stores]:
    if request.param == "postgres":
        yield request.getfixturevalue("open_store")
        return
    store = MemoryStore()
    yield lambda: store


@pytest.fixture
def sides(stores: Stores) -> Iterator[tuple[Side, Side]]:
    owner = Side(stores(), max_queue_length=2)
    other = Side(stores(), max_queue_length=2)
    yield owner, other
    for side in (owner, other):
        side.work.may_go_on.set()
        side.runtime.shutdown(timeout=5)


def test_both_serve_and_one_runs_it(sides: tuple[Side, Side]) -> None:
    owner, other = sides
    jobs = [side.post(n) for n, side in enumerate((owner, other, other))]
    assert [job.result(SECONDS)[0].data for job in jobs] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert (owner.work.done, other.work.done) == ([0, 1, 2], [])
    assert [job.status for job in jobs] == ["completed"] * 3
    assert other.state.status == "running"
    assert other.runtime.exec(other.flow, worker_id="orders") is other.state


def test_a_failure_is_told(sides: tuple[Side, Side]) -> None:
    _, other = sides
    job = other.post("fail")
    with pytest.raises(Exception, match="as it was told"):
        job.result(SECONDS)
    assert [letter.data for letter in other.runtime.dead_letters()] == [{"n": "fail"}]


def test_a_post_is_refused_as_it_would_be_where_the_worker_runs(sides: tuple[Side, Side]) -> None:
    owner, other = sides
    first = other.post(1, idempotency_key="k")
    assert (
        other.post(1, idempotency_key="k").job_id == first.job_id == owner.post(1, idempotency_key="k").job_id
    )
    with pytest.raises(IdempotencyConflictError) as refused:
        other.post(2, idempotency_key="k")
    assert refused.value.job_id == first.job_id
    assert first.wait(SECONDS)
    owner.runtime.cancel(cancelled := _held(owner))
    owner.work.may_go_on.set()
    with pytest.raises(StateError, match="cancelled"):
        other.post(3, job_id=cancelled.job_id)
    assert other.post(4, job_id="named").job_id == "named"


def _held(side: Side) -> Any:
    side.work.may_go_on.clear()
    return side.post("held")


def test_a_post_waits_for_room_and_what_is_withdrawn_has_not_happened(sides: tuple[Side, Side]) -> None:
    owner, other = sides
    owner.runtime.pause(owner.state)
    for n in (1, 2):
        other.post(n)
    with pytest.raises((StoreError, QueueFullError)):
        other.post(3, timeout=0.2)
    posted: list[Any] = []
    waiting = Thread(target=lambda: posted.append(other.post(4)))
    waiting.start()
    owner.runtime.resume(owner.state)
    waiting.join(SECONDS)
    assert posted[0].wait(SECONDS)
    assert owner.runtime.wait_until_all_jobs_finished(SECONDS)
    assert owner.work.done == [1, 2, 4]


def test_pause_resume_and_cancel_reach_it(sides: tuple[Side, Side]) -> None:
    owner, other = sides
    other.runtime.pause(other.state)
    assert owner.state.status == "paused"
    jobs = [other.post(n) for n in (1, 2)]
    other.runtime.cancel(jobs[0])
    with pytest.raises(JobCancelledError):
        jobs[0].result(SECONDS)
    found = other.runtime.get_job(jobs[1].job_id)
    assert found is not None
    other.runtime.pause(found)
    other.runtime.resume(other.state)
    assert not found.wait(0.1)
    other.runtime.resume(found)
    assert found.wait(SECONDS)
    assert (owner.work.done, owner.state.status) == ([2], "running")


@pytest.mark.parametrize("what", ["worker", "job"])
def test_a_pause_that_times_out_where_logic_runs_is_kept_and_told(
    sides: tuple[Side, Side], stores: Stores, what: str
) -> None:
    owner, other = sides
    owner.work.may_go_on.clear()
    job = other.post(1)
    eventually(owner.runtime.list_running)
    target = other.state if what == "worker" else job
    with pytest.raises(
        ExecutionTimeoutError, match=r"paused, but after 0\.2 s these routines .* still run: work"
    ):
        other.runtime.pause(target, timeout=0.2)
    if what == "worker":
        assert (owner.state.status, other.state.status) == ("paused", "paused")
        row = stores().worker("orders")
        assert row is not None
        assert row.status == "paused"
    else:
        found = owner.runtime.get_job(job.job_id)
        assert found is not None
        assert found.account.paused
    owner.work.may_go_on.set()
    other.runtime.pause(target)
    other.runtime.resume(target)
    assert job.wait(SECONDS)
    assert other.post(2).wait(SECONDS)


def test_a_pause_that_nobody_takes_has_not_happened(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, other = sides
    assert owner.runtime._opener is not None
    monkeypatch.setattr(owner.runtime._opener.desk, "_begin", lambda command: None)
    with pytest.raises(StoreError, match="nothing of it has happened"):
        other.runtime.pause(other.state, timeout=0.2)
    assert (owner.state.status, other.state.status) == ("running", "running")


def test_a_pause_that_is_withdrawn_while_it_is_written_is_taken_back(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, other = sides
    assert other.runtime._opener is not None
    assert other.runtime._opener.desk is not None
    commands = other.runtime._opener.desk._commands
    assert owner.runtime._opener is not None
    desk: Any = owner.runtime._opener.desk
    begin = desk._begin

    ended = Event()

    def late(command: Any) -> None:
        assert commands.withdraw(command.command_id)
        begin(command)

    answer = desk.answer
    monkeypatch.setattr(desk, "_begin", late)
    monkeypatch.setattr(desk, "answer", lambda *result: (answer(*result), ended.set()))
    data = desk._journal.codec.encode({"job_id": None, "seconds": None}, "a command")
    commands.ask(Command("withdrawn", "orders", "pause", data))
    assert ended.wait(SECONDS)
    eventually(lambda: owner.state.status == "running")
    monkeypatch.undo()
    assert owner.post(1).wait(SECONDS)


def test_a_dead_letter_is_driven_again_where_its_worker_runs(sides: tuple[Side, Side]) -> None:
    owner, other = sides
    job = other.post("fail")
    with pytest.raises(Exception, match="as it was told"):
        job.result(SECONDS)
    with pytest.raises(StateError, match=r"is run by .*; call redrive\(\) in that process"):
        other.runtime.redrive(*other.runtime.dead_letters())
    assert len(owner.runtime.dead_letters()) == 1


def test_what_has_ended_is_cancelled_or_paused_without_asking(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, other = sides
    job = other.post(1)
    assert job.wait(SECONDS)
    assert owner.runtime._opener is not None
    monkeypatch.setattr(owner.runtime._opener.desk, "_begin", lambda command: None)
    other.runtime.cancel(job)
    other.runtime.pause(job, timeout=0.1)
    other.runtime.resume(job)
    assert job.status == "completed"


def test_its_state_is_not_read_as_empty_here(sides: tuple[Side, Side]) -> None:
    owner, other = sides
    owner.state.shared_data["k"] = 1
    for read in (
        lambda: other.state.get_routine_state("work"),
        lambda: other.state.routine_states,
        lambda: other.state.shared_data.get("k"),
        lambda: dict(other.state.shared_data),
        lambda: list(other.state.shared_log),
        lambda: other.state.metadata,
    ):
        with pytest.raises(StateError, match="is run by another process"):
            read()
    owner.runtime.shutdown()
    eventually(lambda: other.runtime.list_workers() == [other.state] and not other.state._worker.is_elsewhere)
    assert other.state.shared_data["k"] == 1


def test_an_execution_is_cancelled_from_elsewhere(sides: tuple[Side, Side]) -> None:
    owner, other = sides
    owner.work.may_go_on.clear()
    params = {"n": 1}
    runs = owner.runtime.exec(owner.flow, entry="work.input", entry_params=params, job_id="once")
    shown = other.runtime.exec(other.flow, entry="work.input", entry_params=params, job_id="once")
    other.runtime.cancel(shown)
    assert (runs.status, shown.status) == ("cancelled", "cancelled")
    with pytest.raises(JobCancelledError):
        shown.job.result(SECONDS)


def test_the_whole_worker_is_cancelled(sides: tuple[Side, Side]) -> None:
    _, other = sides
    other.runtime.pause(other.state)
    job = other.post(1)
    other.runtime.cancel(other.state)
    with pytest.raises(JobCancelledError):
        job.result(SECONDS)
    eventually(lambda: other.state.status == "stopped")
    with pytest.raises(WorkerNotRunningError):
        other.post(2)


def test_a_task_posts_and_awaits(sides: tuple[Side, Side]) -> None:
    _, other = sides

    async def main() -> Any:
        posted = await other.runtime.apost(other.flow, "work", "input", {"n": 1}, timeout=SECONDS)
        return await posted.job_context

    assert asyncio.run(main())[0].data == {"n": 1}


def test_a_task_that_is_cancelled_has_posted_nothing(sides: tuple[Side, Side]) -> None:
    owner, other = sides
    owner.runtime.pause(owner.state)
    for n in (1, 2):
        other.post(n)

    async def main() -> None:
        task = asyncio.ensure_future(other.runtime.apost(other.flow, "work", "input", {"n": 3}))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    owner.runtime.resume(owner.state)
    assert owner.runtime.wait_until_all_jobs_finished(SECONDS)
    assert owner.work.done == [1, 2]


def test_when_the_owner_stops_the_other_goes_on_with_the_same_state(sides: tuple[Side, Side]) -> None:
    owner, other = sides
    owner.runtime.pause(owner.state)
    jobs = [other.post(n) for n in (1, 2)]
    owner.runtime.shutdown(wait=False)
    posted: list[Any] = []
    waiting = Thread(target=lambda: posted.append(other.post(3, timeout=SECONDS)))
    waiting.start()
    eventually(lambda: other.state.status == "paused" and other.runtime.list_workers() == [other.state])
    other.runtime.resume(other.state)
    waiting.join(SECONDS)
    assert [job.wait(SECONDS) for job in (*jobs, *posted)] == [True] * 3
    assert (owner.work.done, other.work.done) == ([], [1, 2, 3])
    assert other.post(4).wait(SECONDS)


def test_a_post_that_waits_where_the_worker_runs_is_carried_out_by_the_next_owner(
    sides: tuple[Side, Side],
) -> None:
    owner, other = sides
    owner.runtime.pause(owner.state)
    for n in (1, 2):
        other.post(n)
    posted: list[Any] = []
    waiting = Thread(target=lambda: posted.append(other.post(3, timeout=SECONDS)))
    waiting.start()
    assert owner.runtime._opener is not None
    desk = owner.runtime._opener.desk
    assert desk is not None
    eventually(lambda: desk._under_way)
    owner.runtime.shutdown(wait=False)
    eventually(lambda: other.runtime.list_workers() == [other.state])
    other.runtime.resume(other.state)
    waiting.join(SECONDS)
    assert posted[0].wait(SECONDS)
    assert other.work.done == [1, 2, 3]


def test_a_drain_waits_for_what_was_posted_elsewhere(sides: tuple[Side, Side]) -> None:
    owner, other = sides
    owner.runtime.pause(owner.state)
    job = other.post(1)
    assert not other.runtime.wait_until_all_jobs_finished(0.1)
    owner.runtime.resume(owner.state)
    assert other.runtime.wait_until_all_jobs_finished(SECONDS)
    assert job.status == "completed"


def test_its_state_is_changed_where_it_runs(sides: tuple[Side, Side]) -> None:
    owner, other = sides
    with pytest.raises(StateError, match="is run by another process"):
        other.state.update_routine_state("work", {"n": 1})
    with pytest.raises(StateError, match="is run by another process"):
        other.state.shared_log.append(1)
    owner.state.update_routine_state("work", {"n": 1})
    assert other.post(1).wait(SECONDS)


def test_asked_for_again_it_is_the_same_worker(sides: tuple[Side, Side]) -> None:
    owner, other = sides
    owner.runtime.pause(owner.state)
    eventually(lambda: other.state.status == "paused")
    owner.runtime.resume(owner.state)
    owner.runtime.shutdown()
    try:
        assert other.runtime.exec(other.flow, worker_id="orders") is other.state
    except DuplicateNameError:
        pass  # it has been taken over, and is a live worker
    assert other.post(1).wait(SECONDS)
    assert other.runtime.recover(flows=[other.flow], wait=True) == []
    assert other.work.done == [1]


def test_a_worker_that_its_owner_stops_for_good_ends_here_too(sides: tuple[Side, Side]) -> None:
    owner, other = sides
    assert owner.runtime.stop(owner.state)
    eventually(lambda: other.state.status == "stopped")
    with pytest.raises(WorkerNotRunningError):
        other.post(1)
    again = other.runtime.exec(other.flow, worker_id="orders")
    assert other.post(2).wait(SECONDS)
    assert again.status == "running"


def test_stop_here_leaves_it_to_its_owner(sides: tuple[Side, Side]) -> None:
    owner, other = sides
    assert other.runtime.stop(other.state)
    with pytest.raises(WorkerNotRunningError):
        other.post(1)
    assert owner.post(2).wait(SECONDS)


def test_recover_reaches_what_others_run_if_it_is_to_wait(stores: Stores) -> None:
    owner = Side(stores())
    flow = Flow("orders")
    flow.add_routine(Work(), "work")
    with Runtime(store=stores()) as other:
        assert [left.worker_id for left in other.recover(flows=[flow]).not_reopened] == ["orders"]
        found = other.recover(flows=[flow], wait=True)
        assert ([state.worker_id for state in found], found.not_reopened) == (["orders"], [])
        assert other.post(flow, "work", "input", {"n": 1}).job_context.wait(SECONDS)
        owner.runtime.shutdown()
        eventually(lambda: other.list_workers() == found)
        assert other.post(flow, "work", "input", {"n": 2}).job_context.wait(SECONDS)


def test_a_passing_error_of_a_take_over_does_not_end_it(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stores()
    owner, other = Side(stores()), Side(store)
    state, read, failures = other.state, store.notes, [StoreError("not now")]

    def notes(*args: Any, **options: Any) -> Any:
        if failures:
            raise failures.pop()
        return read(*args, **options)

    owner.work.may_go_on.clear()
    job = other.post(1)
    owner.state.shared_data["kept"] = [1]
    monkeypatch.setattr(store, "notes", notes)
    owner.runtime.shutdown(wait=False, timeout=0)
    owner.work.may_go_on.set()
    try:
        assert job.wait(SECONDS)
        assert not failures
        eventually(lambda: "orders" in other.runtime._engine.workers)
        assert other.post(2, timeout=SECONDS).wait(SECONDS)
        assert other.work.done[-2:] == [1, 2]
        assert other.runtime._engine.workers["orders"].state is state
        assert (state.status, state.shared_data["kept"], state.control.stopped) == ("running", [1], False)
    finally:
        other.runtime.shutdown(timeout=5)


def test_a_runtime_that_has_been_shut_down_takes_nothing_over(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stores()
    owner, other = Side(stores()), Side(store)
    claim, is_asked, may_answer = store.claim, Event(), Event()

    def silent(worker_id: str, *args: Any) -> None:
        if not may_answer.is_set() and other.runtime._closed is None and current_thread().name == ASKS:
            is_asked.set()
            may_answer.wait(SECONDS)
        claim(worker_id, *args)

    monkeypatch.setattr(store, "claim", silent)
    assert owner.runtime.shutdown(timeout=SECONDS)
    assert is_asked.wait(SECONDS)
    other.runtime.shutdown(timeout=0.1)
    may_answer.set()
    eventually(lambda: not other.runtime._opener.desk._attendant._thread.is_alive())
    third = Side(stores())
    assert "orders" in third.runtime._engine.workers
    assert third.runtime.shutdown(timeout=SECONDS)


def test_two_that_ask_for_one_execution_by_its_job_and_its_worker_get_it(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stores()
    write, is_written, may_write = store.write, Event(), Event()

    def held(changes: Any) -> Any:
        if changes.jobs:
            is_written.set()
            may_write.wait(SECONDS)
        return write(changes)

    monkeypatch.setattr(store, "write", held)
    states: list[Any] = []

    def ask(store: Store) -> None:
        flow = Flow("once")
        flow.add_routine(Work(), "work")
        runtime = Runtime(store=store, thread_pool_size=2)
        stack.callback(runtime.shutdown, timeout=SECONDS)
        options: dict[str, Any] = {"entry": "work.input", "entry_params": {"n": 1}}
        try:
            states.append(runtime.exec(flow, job_id="J", worker_id="W", **options))
        except StoreError as error:
            states.append(error)

    with ExitStack() as stack:
        stack.callback(may_write.set)
        first = Thread(target=ask, args=(store,))
        first.start()
        assert is_written.wait(SECONDS)
        looked, look = Event(), Opener.is_being_begun

        def is_being_begun(self: Opener, worker_id: str) -> bool:
            looked.set()
            return look(self, worker_id)

        monkeypatch.setattr(Opener, "is_being_begun", is_being_begun)
        second = Thread(target=ask, args=(stores(),))
        second.start()
        assert looked.wait(SECONDS)
        assert states == []
        may_write.set()
        for thread in (first, second):
            thread.join(SECONDS)
        assert [state.job_id for state in states] == ["J", "J"]
        assert all(state.wait(SECONDS) for state in states)


def test_a_job_that_runs_elsewhere_is_reached_by_its_id(sides: tuple[Side, Side]) -> None:
    owner, other = sides
    owner.work.may_go_on.clear()
    running, waiting = owner.post(0), owner.post(1)
    other.runtime.pause(waiting.job_id)
    assert waiting.paused
    other.runtime.resume(waiting.job_id)
    assert not waiting.paused
    other.runtime.cancel(waiting.job_id)
    assert waiting.status == "cancelled"
    owner.work.may_go_on.set()
    assert running.wait(SECONDS)
    other.runtime.cancel(running.job_id)
    assert running.status == "completed"
    with pytest.raises(UnknownJobError, match="'no job'"):
        other.runtime.cancel("no job")


def test_a_dead_owner_is_replaced_and_its_commands_are_found(
    open_store: OpenStore, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    owner, other = Side(store), Side(open_store())
    assert owner.runtime._opener is not None
    desk = owner.runtime._opener.desk
    assert desk is not None
    desk._closed = True  # it hears nothing any more and renews nothing, as if its process stood still
    monkeypatch.setattr(store._ownership, "look_after_leases", bool)
    posted: list[Any] = []
    waiting = Thread(target=lambda: posted.append(other.post(1)))
    waiting.start()
    eventually(lambda: admin.execute("SELECT count(*) FROM command").fetchone() == (1,))
    run_out(admin)
    waiting.join(SECONDS)
    assert posted[0].wait(SECONDS)
    assert (owner.work.done, other.work.done) == ([], [1])
    monkeypatch.undo()
    eventually(lambda: owner.state.status == "stopped")
    for side in (other, owner):
        side.runtime.shutdown()
    assert admin.execute("SELECT count(*) FROM command").fetchone() == (0,)


OWNER = """
import sys
from routilux.store.postgres import PostgresStore
from tests.postgres.test_commands import Side
side = Side(PostgresStore(sys.argv[1], lease_seconds=1))
print("runs", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("seed", range(2))
def test_nothing_that_was_accepted_is_lost_when_the_owner_is_killed(
    url: str, open_store: OpenStore, seed: int
) -> None:
    """Each post is accepted once, by the one or the other, or is refused and was not accepted."""
    random = Random(seed)
    command = [sys.executable, "-c", OWNER, url]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "runs\n"
        other = Side(open_store())
        assert other.state is not None
        killed_at = random.randrange(5, 40)
        accepted: dict[int, Any] = {}
        for n in range(60):
            if n == killed_at:
                process.kill()
            accepted[n] = other.post(n, idempotency_key=f"{n}", timeout=SECONDS)
    assert [job.result(SECONDS)[0].data["n"] for job in accepted.values()] == list(range(60))
    assert other.runtime.list_workers() == [other.state]
    store = other.runtime._engine.journal.store  # type: ignore[union-attr]
    assert len(store.jobs(worker_id="orders")) == 60
    assert set(other.work.done) >= set(range(killed_at + 1, 60))
    other.runtime.shutdown()


class Held:
    """Writes of a store wait while they may not go on."""

    def __init__(self, store: Store) -> None:
        self.store, self.write = store, store.write
        self.may_go_on, self.waits, self.looks = Event(), Event(), 0
        self.may_go_on.set()
        assert store.commands is not None
        self._due = store.commands.due
        store.write = self._held  # type: ignore[method-assign]
        store.commands.due = self._counted  # type: ignore[method-assign]

    def _held(self, changes: Changes) -> frozenset[int | str]:
        if changes.jobs and not self.may_go_on.is_set():
            self.waits.set()
            self.may_go_on.wait(SECONDS)
        return self.write(changes)

    def _counted(self, *arguments: Any) -> list[Command]:
        self.looks += 1
        return self._due(*arguments)


def test_a_refused_post_is_not_begun_again_while_its_answer_waits_to_be_written(stores: Stores) -> None:
    store = stores()
    owner = Side(store, max_queue_length=1, on_full="error")
    other = Side(stores(), max_queue_length=1, on_full="error")
    held = Held(store)
    idle = Flow("idle")
    idle.add_routine(Work(), "work")
    owner.runtime.exec(idle, worker_id="idle")
    try:
        owner.work.may_go_on.clear()
        running = owner.post("a")
        eventually(lambda: running.status == "running")
        owner.post("b")
        held.may_go_on.clear()
        Thread(target=owner.runtime.post, args=(idle, "work", "input", {"n": 0}), daemon=True).start()
        assert held.waits.wait(SECONDS)
        refused: list[BaseException] = []

        def post() -> None:
            try:
                other.post("c")
            except QueueFullError as error:
                refused.append(error)

        posting = Thread(target=post, daemon=True)
        posting.start()
        eventually(lambda: bool(_with_answers(owner)))
        owner.work.may_go_on.set()  # there is room now
        eventually(lambda: "b" in owner.work.done)
        before = held.looks
        assert store.commands is not None
        ask = Command("command_other", "idle", "pause", owner.runtime._engine.journal.codec.encode({}, ""))
        store.commands.ask(ask)
        eventually(lambda: held.looks >= before + 2 or len(_with_answers(owner)) > 1)
        assert len([one for one in _with_answers(owner) if one.command_id != "command_other"]) == 1
        held.may_go_on.set()
        posting.join(SECONDS)
        assert len(refused) == 1
        assert owner.runtime.wait_until_all_jobs_finished(SECONDS)
        assert owner.work.done == ["a", "b"]
    finally:
        held.may_go_on.set()
        for side in (owner, other):
            side.work.may_go_on.set()
            side.runtime.shutdown(timeout=5)


def _with_answers(side: Side) -> list[Answer]:
    journal = side.runtime._engine.journal
    assert journal is not None
    with journal.lock:
        return [answer for record in list(journal._log) for answer in record.answers]


def _asked(store: Store, *commands: Command) -> Commands:
    assert store.commands is not None
    for command in commands:
        store.commands.ask(command)
    return store.commands


def test_two_answers_to_one_command_are_not_written(stores: Stores) -> None:
    store = stores()
    store.claim("w")
    commands = _asked(store, Command("a", "w", "post", b""), Command("b", "w", "post", b""))
    changes = Changes()
    changes.answers = [Answer("a", "w", b"1"), Answer("b", "w", b"2"), Answer("a", "w", b"3")]
    changes.properties = {"written": "yes"}
    assert store.write(changes) == {"a"}
    assert commands.answers(["a", "b"]) == {}
    assert "written" not in store.properties()
    assert [command.command_id for command in commands.due(["w"])] == ["a", "b"]
    store.give_up("w")


def test_commands_that_are_known_hide_no_others_and_posts_come_last(stores: Stores) -> None:
    store = stores()
    posts = [Command(f"post_{n}", "w", "post", b"") for n in range(MOST_DUE + 1)]
    commands = _asked(
        store, *posts, Command("resume", "w", "resume", b""), Command("elsewhere", "v", "post", b"")
    )
    first = [command.command_id for command in commands.due(["w"])]
    assert first == ["resume", *(f"post_{n}" for n in range(MOST_DUE - 1))]
    left = [f"post_{n}" for n in (MOST_DUE - 1, MOST_DUE)]
    assert [command.command_id for command in commands.due(["w", "v"], first)] == [*left, "elsewhere"]
    assert commands.withdraw("post_3")
    assert commands.gone(["post_3", "post_4", "never"]) == ["post_3", "never"]


def test_what_was_withdrawn_waits_no_longer_where_the_worker_runs(sides: tuple[Side, Side]) -> None:
    owner, other = sides
    owner.runtime.pause(owner.state)
    for n in (1, 2):
        owner.post(n)

    async def withdrawn() -> None:
        options: dict[str, Any] = {"idempotency_key": "k"}
        task = asyncio.ensure_future(other.runtime.apost(other.flow, "work", "input", {"n": 3}, **options))
        await asyncio.to_thread(eventually, lambda: len(owner.runtime._engine.book.jobs) == 3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(withdrawn())
    eventually(lambda: len(owner.runtime._engine.book.jobs) == 2)
    owner.runtime.resume(owner.state)
    assert owner.post(4, idempotency_key="k").wait(SECONDS)
    assert owner.runtime.wait_until_all_jobs_finished(SECONDS)
    assert owner.work.done == [1, 2, 4]


def fail_once(of: Any, name: str, *, done: bool = False) -> None:
    """The next call raises; if ``done``, after it has had its effect."""
    right = getattr(of, name)

    def failing(*arguments: Any) -> Any:
        setattr(of, name, right)
        if done:
            right(*arguments)
        raise StoreError("the connection is lost; the next call connects again")

    setattr(of, name, failing)


def test_an_answer_counts_though_the_store_fails_behind_it(stores: Stores) -> None:
    mine = stores()
    owner, other = Side(stores()), Side(mine)
    try:
        commands = mine.commands
        fail_once(commands, "forget")
        assert other.post(1).wait(SECONDS)
        answers = commands.answers

        def answered(command_ids: Any) -> dict[str, bytes]:
            found = answers(command_ids)
            if found:
                fail_once(mine, "job")
            return found

        commands.answers = answered
        assert other.post(2).wait(SECONDS)
        assert owner.work.done == [1, 2]
    finally:
        for side in (owner, other):
            side.runtime.shutdown(timeout=5)


def test_where_the_store_fails_in_the_middle_it_says_that_it_is_unknown(sides: tuple[Side, Side]) -> None:
    owner, other = sides
    commands = other.runtime._engine.journal.store.commands
    owner.runtime.pause(owner.state)
    for n in (1, 2):
        owner.post(n)
    fail_once(commands, "withdraw")
    with pytest.raises(StoreUnknownError, match="same idempotency_key"):
        other.post(3, timeout=0.3, idempotency_key="k")
    fail_once(commands, "ask", done=True)
    with pytest.raises(StoreError, match="connection is lost") as refused:
        other.post(4)  # it could be withdrawn
    assert type(refused.value) is StoreError
    fail_once(commands, "ask")
    with pytest.raises(StoreUnknownError, match="same idempotency_key"):
        other.post(5)
    owner.runtime.resume(owner.state)
    assert other.post(3, idempotency_key="k").wait(SECONDS)
    assert owner.runtime.wait_until_all_jobs_finished(SECONDS)
    assert owner.work.done == [1, 2, 3]


def test_in_memory_nothing_is_withdrawn_while_its_answer_is_written() -> None:
    class Slow(MemoryStore):
        def _apply(self, changes: Changes) -> None:
            withdrawing.start()
            withdrawing.join(0.2)  # it waits for the lock
            super()._apply(changes)

    store, withdrawn = Slow(), []
    commands = _asked(store, Command("a", "w", "post", b""))
    withdrawing = Thread(target=lambda: withdrawn.append(commands.withdraw("a")))
    changes = Changes()
    changes.answers = [Answer("a", "w", b"1")]
    assert not store.write(changes)
    withdrawing.join(SECONDS)
    assert (withdrawn, commands.answers(["a"])) == ([False], {"a": b"1"})
