"""What no database can write fails where it is made; what is refused all the same is taken out of the line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex
from threading import Event
from typing import Any

import pytest

from routilux import ErrorHandler, ErrorStrategy, Flow, Routine, Runtime, current
from routilux.activation_policies import batch_size_policy, immediate_policy
from routilux.errors import InvalidValueError, SerializationError, StoreDataError
from routilux.model import checks
from routilux.ports import Changes
from routilux.runtime.journal import worker
from routilux.store.memory import MemoryStore
from tests.waiting import SECONDS, eventually

NO_UNICODE = os.fsdecode(b"caf\xe9.txt")  # what os.listdir() gives for a file name in Latin-1
ODD = [NO_UNICODE, "nul\0", "\1\ud800\0", ""]
TOO_LONG = token_hex(1_500)  # for an index of PostgreSQL

Logic = Callable[[Routine, dict[str, Any], Any], None]


def flow_of(logic: Logic, flow_id: str = "f", *, batch: int = 1) -> Flow:
    """One routine, which does with the first of its items what the test says."""

    class Do(Routine):
        def __init__(self) -> None:
            super().__init__()
            self.add_slot("in", max_queue_length=max(1_000, batch))
            self.add_event("out")
            self.set_activation_policy(immediate_policy() if batch == 1 else batch_size_policy(batch))
            self.set_error_handler(ErrorHandler(ErrorStrategy.SKIP))

        def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            logic(self, slot_data["in"][0], state)

    flow = Flow(flow_id)
    flow.add_routine(Do(), "r")
    return flow


def nothing(routine: Routine, item: dict[str, Any], state: Any) -> None:
    pass


OTHER = flow_of(nothing, "other")


# -- texts -----------------------------------------------------------------------------------------------------


def use_as_key(routine: Routine, item: dict[str, Any], state: Any) -> None:
    state.update_routine_state("r", {item["text"]: item["text"]})
    state.shared_data[item["text"]] = [item["text"]]
    current().job.set_data(item["text"], 1)


def use_as_name(routine: Routine, item: dict[str, Any], state: Any) -> None:
    assert current().once(item["text"], lambda: item["text"]) == item["text"]


def use_as_error(routine: Routine, item: dict[str, Any], state: Any) -> None:
    raise ValueError(item["text"])


def use_as_trace(routine: Routine, item: dict[str, Any], state: Any) -> None:
    current().job.trace(item["text"], **{item["text"] or "x": item["text"]})
    state.shared_log.append(item["text"])
    routine.emit("out", **{item["text"] or "x": item["text"]})
    routine.send_output(item["text"], text=item["text"])


@pytest.mark.parametrize("text", ODD, ids=["no Unicode", "NUL", "an escape", "empty"])
@pytest.mark.parametrize("use", [use_as_key, use_as_name, use_as_error, use_as_trace])
def test_any_text_is_written_and_read_back(store: Any, use: Logic, text: str) -> None:
    flow = flow_of(use)
    with Runtime(store=store) as runtime:
        runtime.exec(flow, worker_id="w")
        job = runtime.post(
            flow, "r", "in", {"text": text}, metadata={text: text}, idempotency_key=f"k{text}"
        ).job_context
        assert job.wait(SECONDS)
        assert runtime.health().status == "ok"
        job_id = job.job_id
    with Runtime(store=store) as runtime:
        state = runtime.exec(flow, worker_id="w")
        job = runtime.get_job(job_id)
        assert job.status == "completed"
        assert job.metadata == {text: text}
        if use is use_as_key:
            assert state.get_routine_state("r") == {text: text}
            assert dict(state.shared_data) == {text: [text]}
            assert job.data == {text: 1}
        if use is use_as_error:
            [letter] = runtime.dead_letters()
            assert (letter.data, letter.error) == (
                {"text": text},
                f"ValueError: {text}" if text else "ValueError",
            )
            assert text in str(job.errors[0])
        if use is use_as_trace:
            assert job.trace_log[0]["action"] == text
            assert list(state.shared_log) == [text]
            assert job.outputs[0].data == {text or "x": text}
        again = runtime.post(
            flow, "r", "in", {"text": text}, metadata={text: text}, idempotency_key=f"k{text}"
        )
        assert again.job_context.job_id == job_id


# -- what is too long or too large --------------------------------------------------------------------------


@pytest.mark.parametrize("use", [use_as_key, use_as_name])
def test_a_name_that_no_index_takes_fails_where_it_is_given(store: Any, use: Logic) -> None:
    flow = flow_of(use)
    with Runtime(store=store) as runtime:
        runtime.exec(flow, worker_id="w")
        runtime.exec(OTHER, worker_id="other")
        job = runtime.post(flow, "r", "in", {"text": TOO_LONG}).job_context
        assert job.wait(SECONDS)
        [error] = job.errors
        assert isinstance(error.__cause__, InvalidValueError)
        assert "at most 2,600 bytes" in str(error)
        assert "of state of routine 'r'" in str(error) or "name of once() in routine 'r'" in str(error)
        assert runtime.post(OTHER, "r", "in", {}).job_context.wait(SECONDS)
        assert runtime.health().status == "ok"


def test_a_call_of_once_is_not_made_under_a_name_that_cannot_be_kept() -> None:
    calls: list[int] = []
    flow = flow_of(lambda routine, item, state: current().once(TOO_LONG, lambda: calls.append(1)))
    with Runtime(store=MemoryStore()) as runtime:
        runtime.exec(flow, worker_id="w")
        assert runtime.post(flow, "r", "in", {}).job_context.wait(SECONDS)
    assert calls == []


def test_a_key_of_a_post_that_no_index_takes_is_refused(store: Any) -> None:
    with Runtime(store=store) as runtime:
        runtime.exec(OTHER, worker_id="w")
        with pytest.raises(InvalidValueError, match=r"idempotency_key: expected a text .* not 3,005"):
            runtime.post(OTHER, "r", "in", {}, idempotency_key=TOO_LONG)
        assert runtime.list_jobs() == []


def test_a_batch_of_any_size_can_be_claimed(store: Any) -> None:
    """What is noted of a claim is named by its items."""
    seen: list[str] = []

    def note(routine: Routine, item: dict[str, Any], state: Any) -> None:
        current().once("a", lambda: 1)
        seen.append(current().idempotency_key("a"))

    flow = flow_of(note, batch=700)
    with Runtime(store=store) as runtime:
        state = runtime.exec(flow, worker_id="w")
        runtime.pause(state)
        for n in range(700):
            runtime.post(flow, "r", "in", {"n": 10**9 + n})
        runtime.resume(state)
        assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
        assert runtime.health().status == "ok"
    [key] = seen
    assert len(key) < 100


@pytest.mark.parametrize("where", ["payload", "state", "output"])
def test_a_value_that_no_database_takes_fails_where_it_is_made(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(worker, "VALUE_BYTES", 10_000)

    def make(routine: Routine, item: dict[str, Any], state: Any) -> None:
        if where == "state":
            state.shared_data["large"] = "x" * 10_001
        if where == "output":
            routine.emit("out", large="x" * 10_001)

    flow = flow_of(make)
    with Runtime(store=MemoryStore()) as runtime:
        runtime.exec(flow, worker_id="w")
        if where == "payload":
            with pytest.raises(
                SerializationError, match=r"post\(\) to 'r.in': a value of 10,.* up to 10,000"
            ):
                runtime.post(flow, "r", "in", {"large": "x" * 10_001})
            return
        job = runtime.post(flow, "r", "in", {}).job_context
        assert job.wait(SECONDS)
        assert isinstance(job.errors[0].__cause__, SerializationError)


def test_an_activation_that_changes_too_much_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "DRAFT_BYTES", 10_000)

    def change(routine: Routine, item: dict[str, Any], state: Any) -> None:
        for n in range(20):
            state.shared_data[n] = "x" * 1_000

    flow = flow_of(change)
    with Runtime(store=MemoryStore()) as runtime:
        state = runtime.exec(flow, worker_id="w")
        job = runtime.post(flow, "r", "in", {}).job_context
        assert job.wait(SECONDS)
        assert "current().checkpoint" in str(job.errors[0])
        assert dict(state.shared_data) == {}


# -- a record that is refused all the same --------------------------------------------------------------------


def lengthen(routine: Routine, item: dict[str, Any], state: Any) -> None:
    if item["text"]:
        state.shared_data[item["text"]] = 1
    state.shared_log.append(item["n"])


def refuses_long_names(store: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A bug of ours: nothing looks how long a name is, before the database does. Only PostgreSQL has such a limit."""
    monkeypatch.setattr(checks, "KEY_BYTES", 10**9)
    if isinstance(store, str) and store.startswith("postgres"):
        return store
    from routilux.store import open_store

    inner = open_store(store) if isinstance(store, str) else store
    write = inner.write

    def refusing(changes: Changes) -> frozenset[int]:
        if any(len(note.name) > 2_700 for note in changes.notes):
            raise StoreDataError("a name is too long")
        return write(changes)

    monkeypatch.setattr(inner, "write", refusing)
    return inner


def test_the_worker_of_a_refused_record_stops_and_all_others_go_on(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    flow = flow_of(lengthen)
    opened = refuses_long_names(store, monkeypatch)
    runtime = Runtime(store=opened)
    runtime.exec(flow, worker_id="w")
    runtime.exec(OTHER, worker_id="other")
    first = runtime.post(flow, "r", "in", {"n": 1, "text": ""}).job_context
    assert first.wait(SECONDS)
    job = runtime.post(flow, "r", "in", {"n": 2, "text": TOO_LONG}).job_context
    assert job.wait(SECONDS) is False
    with pytest.raises(StoreDataError, match=r"a step of worker 'w' of flow 'f' can never be written"):
        job.result()
    assert runtime.post(OTHER, "r", "in", {}).job_context.wait(SECONDS)
    health = runtime.health()
    assert health.status == "degraded"
    assert "worker 'w' of flow 'f'" in str(health.reason)
    assert sum("'w' is given up" in record.message for record in caplog.records) == 1
    assert runtime.shutdown(timeout=SECONDS)
    if isinstance(store, str):
        [path] = [*tmp_path.rglob("*.refused")]
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert str(path) in str(health.reason)
        assert lines[0]["refused"]
        assert any(TOO_LONG in line["row"]["name"] for line in lines if line.get("table") == "notes")
        assert lines[-1]["removed"]["items"] == [["w", "r.in", job.account.job.serial]]
    else:
        assert TOO_LONG in str(store.refused[0][0].notes)

    monkeypatch.undo()
    if store is not opened and isinstance(store, str) and not store.startswith("postgres"):
        opened.close()
    with Runtime(store=store) as again:  # the limit is looked at again, so the routine itself fails
        state = again.exec(flow, worker_id="w")
        assert again.wait_until_all_jobs_finished(timeout=SECONDS)
        assert list(state.shared_log) == [1]
        assert [letter.data["n"] for letter in again.dead_letters()] == [2]
        assert again.health().status == "ok"


class Particular(MemoryStore):
    """Refuses records that have a certain item, and holds the writes of others until all are there."""

    def __init__(self, error: type[Exception]) -> None:
        super().__init__()
        self.goes = Event()
        self.goes.set()
        self.sizes: list[int] = []  # of the writes, in entries of the log
        self._error = error

    def write(self, changes: Changes) -> frozenset[int]:
        assert self.goes.wait(SECONDS)
        entries = [row for row in changes.entries if row.kind == "log"]
        self.sizes.append(len(entries))
        if any(row.data == b"13" for row in entries):
            raise self._error("not this one")
        return super().write(changes)


@pytest.mark.parametrize("error", [StoreDataError, KeyError])
@pytest.mark.parametrize("many", [1, 40])
def test_one_record_among_many_is_found(error: type[Exception], many: int) -> None:
    store = Particular(error)
    bad, good = flow_of(lengthen, "bad"), flow_of(lengthen, "good")
    with Runtime(store=store, thread_pool_size=2) as runtime:
        runtime.exec(bad, worker_id="bad")
        state = runtime.exec(good, worker_id="good")
        for flow in (good, bad):
            runtime.pause("good" if flow is good else "bad")
        jobs = [runtime.post(good, "r", "in", {"n": 100 + n, "text": ""}).job_context for n in range(many)]
        lost = [runtime.post(bad, "r", "in", {"n": 13 + n, "text": ""}).job_context for n in range(3)]
        runtime.resume("good")
        runtime.resume("bad")
        assert all(job.wait(SECONDS) for job in jobs)
        assert [job.wait(SECONDS) for job in lost] == [False] * 3
        assert runtime.health().status == "degraded"
        assert runtime.post(good, "r", "in", {"n": 1, "text": ""}).job_context.wait(SECONDS)
        assert list(state.shared_log) == [*range(100, 100 + many), 1]
    assert len(store.refused) == 1
    with Runtime(store=store) as again:
        assert list(again.exec(good, worker_id="good").shared_log) == [*range(100, 100 + many), 1]


def test_who_waits_for_a_refused_record_hears_it_and_the_worker_goes_on() -> None:
    class Picky(MemoryStore):
        def write(self, changes: Changes) -> frozenset[int]:
            if any(b"bad" in row.data for row in changes.items):
                raise StoreDataError("not this one")
            return super().write(changes)

    store = Picky()
    with Runtime(store=store) as runtime:
        runtime.exec(OTHER, worker_id="w")
        with pytest.raises(StoreDataError, match="not this one"):
            runtime.post(OTHER, "r", "in", {"what": "bad"})
        assert runtime.post(OTHER, "r", "in", {"what": "good"}).job_context.wait(SECONDS)
        assert runtime.health().status == "ok"
        assert len(runtime.list_jobs()) == 1
    assert store.refused == []


def test_a_store_that_takes_nothing_at_all_is_asked_again() -> None:
    """An exception of any class does not say that a record is to blame."""

    class Broken(MemoryStore):
        breaks = Event()

        def write(self, changes: Changes) -> frozenset[int]:
            if self.breaks.is_set():
                raise KeyError("a bug")
            return super().write(changes)

    store = Broken()
    with Runtime(store=store) as runtime:
        state = runtime.exec(OTHER, worker_id="w")
        store.breaks.set()
        state.shared_data["a"] = 1
        eventually(lambda: runtime.health().status == "degraded")
        store.breaks.clear()
        eventually(lambda: runtime.health().status == "ok")
        assert runtime.post(OTHER, "r", "in", {}).job_context.wait(SECONDS)
        assert dict(state.shared_data) == {"a": 1}
    assert store.refused == []
