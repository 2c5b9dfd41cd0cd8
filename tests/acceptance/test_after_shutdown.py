"""After ``shutdown()`` every public call returns or raises, with a store or without; none waits for what has ended.

The tables name every public attribute of a class: one that is added without a line here is found.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from routilux import ErrorHandler, Flow, Routine, Runtime
from routilux.activation_policies import immediate_policy
from routilux.errors import RoutiluxError, RuntimeClosedError
from routilux.runtime.job import JobContext
from routilux.runtime.state import JobState, WorkerState
from routilux.store.memory import MemoryStore
from tests.waiting import SECONDS

STORES = ("none", "open", "closed", "sqlite")


class Ended:
    """A runtime that was shut down: it had a paused worker with an open job, a dead letter, and an execution."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.folder = folder
        given = MemoryStore() if kind in ("open", "closed") else None
        store = f"sqlite:///{folder / 's.db'}" if kind == "sqlite" else given
        self.runtime = Runtime(store=store, thread_pool_size=1)
        self.flow = flow_of_one()
        self.worker: WorkerState = self.runtime.exec(self.flow, worker_id="w")
        self.done = self._post("done")
        self._post("fails")
        assert self.runtime.wait_until_all_jobs_finished(timeout=SECONDS)
        self.letters = self.runtime.dead_letters()
        self.failed = self.letters[0].job_ids
        self.once: JobState = self.runtime.exec(self.flow, entry_params={"say": "once"}, job_id="once")
        assert self.once.wait(SECONDS)
        self.runtime.pause(self.worker)
        self.open = self._post("open")
        assert self.runtime.shutdown(wait=False, timeout=SECONDS)
        if kind == "closed":
            assert given is not None
            given.close()

    def record(self, record: Any) -> None:
        """It observes."""

    def watch(self, worker_id: str, flow: Any) -> None:
        """It taps."""

    note = take_back = record

    def _post(self, say: str) -> JobContext:
        return self.runtime.post(self.flow, "a", "input", {"say": say}).job_context

    @property
    def jobs(self) -> list[JobContext]:
        return [self.done, self.open, self.once.job]  # type: ignore[list-item]

    @property
    def states(self) -> list[WorkerState]:
        return [self.worker, self.once]


def flow_of_one() -> Flow:
    def logic(slot_data: Any, message: Any, state: Any) -> None:
        say = slot_data["input"][0]["say"]
        if say == "fails":
            raise ValueError(say)
        state.shared_log.append(say)
        routine.emit("out", say=say)

    flow, routine = Flow("flow"), Routine()
    routine.add_slot("input")
    routine.add_event("out")
    routine.set_activation_policy(immediate_policy()).set_logic(logic)
    routine.set_error_handler(ErrorHandler("continue"))
    flow.add_routine(routine, "a")
    flow.set_entry("a")
    return flow


Call = Callable[[Ended], Any]


def each_of(things: str, call: Callable[[Ended, Any], Any]) -> Call:
    return lambda ended: [attempt(call, ended, thing) for thing in getattr(ended, things)]


def attempt(call: Callable[..., Any], *given: Any, **options: Any) -> Any:
    """What it returns or refuses with; another error than ours is a fault."""
    try:
        return call(*given, **options)
    except (RoutiluxError, OSError) as error:
        return error


def targets(call: Callable[[Runtime, Any], Any]) -> Call:
    """A worker, its id, jobs that have ended and one that has not, and ids that nobody has."""

    def each(ended: Ended) -> list[Any]:
        known = [*ended.states, *ended.jobs, "w", ended.open.job_id, "once", "nothing"]
        return [attempt(call, ended.runtime, target) for target in known]

    return each


RUNTIME: Mapping[str, Call] = {
    "add_observer": lambda ended: ended.runtime.add_observer(ended),  # type: ignore[arg-type]
    "add_tap": lambda ended: ended.runtime.add_tap(ended),  # type: ignore[arg-type]
    "ajoin": lambda ended: asyncio.run(ended.runtime.ajoin()),
    "apause": targets(lambda runtime, target: asyncio.run(runtime.apause(target))),
    "apost": lambda ended: asyncio.run(ended.runtime.apost(ended.flow, "a", "input", {"say": ""})),
    "ashutdown": lambda ended: asyncio.run(ended.runtime.ashutdown()),
    "astop": targets(lambda runtime, target: asyncio.run(runtime.astop(target))),
    "cancel": targets(lambda runtime, target: runtime.cancel(target)),
    "dead_letters": lambda ended: [
        attempt(ended.runtime.dead_letters, **chosen)
        for chosen in ({}, {"worker": "w"}, {"worker": ended.worker}, {"job": ended.done}, {"job": "nothing"})
    ],
    "default_strategy": lambda ended: ended.runtime.default_strategy,
    "exec": lambda ended: [
        attempt(ended.runtime.exec, ended.flow, **options)
        for options in ({}, {"worker_id": "w"}, {"entry_params": {"say": ""}, "job_id": "once"})
    ],
    "execute": lambda ended: ended.runtime.execute(ended.flow, {"say": ""}, None, None),
    "get_job": lambda ended: [
        attempt(ended.runtime.get_job, job) for job in (ended.open.job_id, "once", "nothing")
    ],
    "get_worker": lambda ended: [ended.runtime.get_worker(worker) for worker in ("w", "nothing")],
    "health": lambda ended: ended.runtime.health(),
    "let_go": lambda ended: ended.runtime.let_go(ended.worker, "a"),
    "list_jobs": lambda ended: [
        attempt(ended.runtime.list_jobs, **chosen)
        for chosen in ({}, {"status": "completed"}, {"worker": "w"}, {"parked": True}, {"cursor": ended.done})
    ],
    "list_running": lambda ended: ended.runtime.list_running(),
    "list_workers": lambda ended: ended.runtime.list_workers(),
    "pause": targets(lambda runtime, target: runtime.pause(target)),
    "post": lambda ended: [
        attempt(ended.runtime.post, ended.flow, "a", "input", {"say": ""}, **options)
        for options in ({}, {"worker_id": "w"}, {"job_id": "new"}, {"idempotency_key": "key"})
    ],
    "recover": lambda ended: ended.runtime.recover(flows=[ended.flow]),
    "redrive": lambda ended: ended.runtime.redrive(*ended.letters),
    "remove_observer": lambda ended: ended.runtime.remove_observer(ended),  # type: ignore[arg-type]
    "remove_tap": lambda ended: ended.runtime.remove_tap(ended),  # type: ignore[arg-type]
    "resume": targets(lambda runtime, target: runtime.resume(target)),
    "set_gate": lambda ended: ended.runtime.set_gate(ended.worker, "a", None),
    "set_runner": lambda ended: ended.runtime.set_runner(ended.worker, "a", None),
    "shutdown": lambda ended: [ended.runtime.shutdown(), ended.runtime.shutdown(wait=False)],
    "stop": targets(lambda runtime, target: runtime.stop(target)),
    "wait_until_all_jobs_finished": lambda ended: ended.runtime.wait_until_all_jobs_finished(),
}

STATE: Mapping[str, Call] = {
    "counters": each_of("states", lambda ended, state: state.counters("a")),
    "error": lambda ended: ended.once.error,
    "errors": lambda ended: ended.once.errors,
    "execution_history": each_of("states", lambda ended, state: state.execution_history),
    "get_routine_state": each_of("states", lambda ended, state: state.get_routine_state("a")),
    "history_ttl_seconds": each_of("states", lambda ended, state: state.history_ttl_seconds),
    "job": lambda ended: ended.once.job,
    "job_id": lambda ended: ended.once.job_id,
    "load": lambda ended: WorkerState.load(str(ended.folder / "saved")),
    "max_history_size": each_of("states", lambda ended, state: state.max_history_size),
    "metadata": each_of("states", lambda ended, state: state.metadata),
    "outputs": lambda ended: ended.once.outputs,
    "parked_items": each_of("states", lambda ended, state: state.parked_items()),
    "progress": lambda ended: ended.once.progress,
    "routine_states": each_of("states", lambda ended, state: state.routine_states),
    "runtime": each_of("states", lambda ended, state: state.runtime),
    "save": each_of("states", lambda ended, state: state.save(str(ended.folder / "saved"))),
    "saved_job": lambda ended: ended.once.saved_job,
    "set_output_handler": each_of("states", lambda ended, state: state.set_output_handler(None)),
    "set_routine_state": each_of("states", lambda ended, state: state.set_routine_state("a", {"n": 1})),
    "shared_data": each_of(
        "states", lambda ended, state: [dict(state.shared_data), state.shared_data.update(n=1)]
    ),
    "shared_log": each_of(
        "states", lambda ended, state: [list(state.shared_log), state.shared_log.append(1)]
    ),
    "state_of": each_of("states", lambda ended, state: state.state_of("a").update(n=1)),
    "status": each_of("states", lambda ended, state: state.status),
    "update_routine_state": each_of("states", lambda ended, state: state.update_routine_state("a", {"n": 1})),
    "wait": each_of("states", lambda ended, state: state.wait()),
}
STATE_INSIDE = {
    "attach",
    "attach_log",
    "body",
    "fill",
    "keep_metadata",
    "kept_size",
    "put_output",
}  # public to other modules only


async def outcome_of(job: JobContext) -> Any:
    return await job


JOB: Mapping[str, Call] = {
    "__await__": each_of("jobs", lambda ended, job: asyncio.run(outcome_of(job))),
    "blocked": each_of("jobs", lambda ended, job: job.blocked),
    "completed_at": each_of("jobs", lambda ended, job: job.completed_at),
    "data": each_of("jobs", lambda ended, job: dict(job.data)),
    "error": each_of("jobs", lambda ended, job: job.error),
    "errors": each_of("jobs", lambda ended, job: job.errors),
    "errors_dropped": each_of("jobs", lambda ended, job: job.errors_dropped),
    "finished": each_of("jobs", lambda ended, job: job.finished),
    "get_data": each_of("jobs", lambda ended, job: job.get_data("n")),
    "left": each_of("jobs", lambda ended, job: job.left),
    "logs": each_of("jobs", lambda ended, job: job.logs),
    "logs_dropped": each_of("jobs", lambda ended, job: job.logs_dropped),
    "metadata": each_of("jobs", lambda ended, job: dict(job.metadata)),
    "on_end": each_of("jobs", lambda ended, job: job.on_end(bool)),
    "outputs": each_of("jobs", lambda ended, job: job.outputs),
    "outputs_dropped": each_of("jobs", lambda ended, job: job.outputs_dropped),
    "parked": each_of("jobs", lambda ended, job: job.parked),
    "paused": each_of("jobs", lambda ended, job: job.paused),
    "progress": each_of("jobs", lambda ended, job: job.progress),
    "result": each_of("jobs", lambda ended, job: job.result()),
    "set_data": each_of("jobs", lambda ended, job: job.set_data("n", 1)),
    "started_at": each_of("jobs", lambda ended, job: job.started_at),
    "status": each_of("jobs", lambda ended, job: job.status),
    "trace": each_of("jobs", lambda ended, job: job.trace("seen")),
    "trace_log": each_of("jobs", lambda ended, job: job.trace_log),
    "wait": each_of("jobs", lambda ended, job: job.wait()),
}
JOB_INSIDE = {
    "add_error", "add_output", "announce_end", "bulky", "counted", "forget", "is_execution", "kept_size", "leave",
    "leave_behind", "logs_to_fill", "lost", "outlived_by", "trace_again", "unread", "waits_for",
}  # fmt: skip

FLOW: Mapping[str, Call] = {
    "cancel": each_of("states", lambda ended, state: ended.flow.cancel(state)),
    "execute": lambda ended: ended.flow.execute("a", {"say": ""}).status,
    "in_use": lambda ended: ended.flow.in_use,
    "pause": each_of("states", lambda ended, state: ended.flow.pause(state)),
    "resume": each_of("states", lambda ended, state: ended.flow.resume(state)),
    "wait_for_completion": each_of("states", lambda ended, state: ended.flow.wait_for_completion(state)),
}

TABLE = {
    **{f"Runtime.{name}": call for name, call in RUNTIME.items()},
    **{f"WorkerState.{name}": call for name, call in STATE.items()},
    **{f"JobContext.{name}": call for name, call in JOB.items()},
    **{f"Flow.{name}": call for name, call in FLOW.items()},
}


@pytest.mark.parametrize(
    ("table", "kind", "inside"),
    [
        (RUNTIME, Runtime, {"mark_forked"}),
        (STATE, WorkerState, STATE_INSIDE),
        (STATE, JobState, STATE_INSIDE),
        (JOB, JobContext, JOB_INSIDE),
    ],
    ids=["Runtime", "WorkerState", "JobState", "JobContext"],
)
def test_the_tables_have_every_public_name(table: Mapping[str, Call], kind: type, inside: set[str]) -> None:
    public = {name for name in dir(kind) if not name.startswith("_")}
    assert public - inside <= set(table)


@pytest.fixture(params=STORES)
def ended(request: pytest.FixtureRequest, tmp_path: Path) -> Ended:
    return Ended(request.param, tmp_path)


def outcome(call: Callable[[], Any]) -> str | None:
    """What is wrong with a call, on a thread of its own: it hangs, or raises what is no error of ours."""
    outcomes: list[str | None] = []

    def run() -> None:
        try:
            attempt(call)
        except BaseException as error:
            outcomes.append(f"raises {error!r}")
        else:
            outcomes.append(None)

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(SECONDS / 4)
    return outcomes[0] if outcomes else "hangs"


def test_each_call_returns_or_raises(ended: Ended) -> None:
    faults = {what: outcome(partial(call, ended)) for what, call in TABLE.items()}
    assert [f"{what} {fault}" for what, fault in faults.items() if fault] == []


@pytest.mark.parametrize("kind", ["none", "open"])
def test_what_can_be_read_in_memory_can_be_read_from_a_store_that_is_open(kind: str, tmp_path: Path) -> None:
    ended = Ended(kind, tmp_path)
    runtime = ended.runtime
    assert {job.job_id for job in runtime.list_jobs()} == {*(job.job_id for job in ended.jobs), *ended.failed}
    assert runtime.dead_letters() == ended.letters
    assert runtime.health() == ("closed", "the runtime has been shut down")
    ended.worker.save(str(tmp_path / "saved"))
    assert list(WorkerState.load(str(tmp_path / "saved")).shared_log) == ["done"]


def test_what_is_only_in_the_store_that_the_runtime_has_closed_is_refused(tmp_path: Path) -> None:
    runtime = Ended("sqlite", tmp_path).runtime
    calls: tuple[Callable[[], Any], ...] = (
        runtime.list_jobs,
        runtime.dead_letters,
        partial(runtime.get_job, "other"),
    )
    for call in calls:
        with pytest.raises(
            RuntimeClosedError, match=r"has closed sqlite:.*create a new Runtime with that store"
        ):
            call()
