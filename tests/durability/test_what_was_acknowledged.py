"""What is kept of an item is what was acknowledged, whatever user code does with its objects afterwards."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Event, Thread
from typing import Any

import pytest

from routilux import ErrorHandler, ErrorStrategy, Flow, Routine, Runtime, current
from routilux.activation_policies import WAIT, Fire, batch_size_policy, custom_policy, immediate_policy
from routilux.errors import SerializationError, SlotHandlerError, StoreError
from routilux.model.item import StoredForm
from routilux.ports import ItemRow
from routilux.runtime.failures import WRITTEN
from routilux.runtime.journal.backlog import Backlog
from routilux.runtime.journal.handover import Handover
from routilux.store.codec import register
from routilux.store.memory import MemoryStore
from routilux.store.registry import by_class, by_tag
from tests.waiting import SECONDS, eventually

PAYLOAD = {"weight": 7, "tags": ["a"]}


def spoil(item: dict[str, Any]) -> None:
    item.pop("weight")
    item["tags"].append("b")
    item["connection"] = object()


def flow_of(logic: Callable[..., Any], *, flow_id: str = "f", **options: Any) -> Flow:
    """One routine."""
    flow = Flow(flow_id)
    flow.add_routine(routine_of(logic, **options), "r")
    return flow


def routine_of(
    logic: Callable[..., Any],
    *,
    policy: Any = None,
    handler: ErrorHandler | None = None,
    is_async: bool = False,
    capacity: int = 100,
) -> Routine:
    """Its logic is ``logic(routine, items, message, state)``."""

    class Do(Routine):
        def __init__(self) -> None:
            super().__init__()
            self.add_slot("in", max_queue_length=capacity)
            self.add_event("error")
            self.set_activation_policy(policy or immediate_policy())
            self.set_error_handler(handler or ErrorHandler(ErrorStrategy.SKIP))

        if is_async:

            async def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
                logic(self, slot_data["in"], policy_message, state)
        else:

            def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
                logic(self, slot_data["in"], policy_message, state)

    return Do()


# -- dead letters ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [ErrorStrategy.SKIP, ErrorStrategy.CONTINUE, ErrorStrategy.STOP])
def test_a_dead_letter_has_what_was_posted(store: Any, strategy: ErrorStrategy) -> None:
    def fail(routine: Any, items: Any, message: Any, state: Any) -> None:
        spoil(items[0])
        raise ValueError("no")

    flow = flow_of(fail, handler=ErrorHandler(strategy))
    with Runtime(store=store) as runtime:
        runtime.exec(flow, worker_id="w")
        assert runtime.post(flow, "r", "in", PAYLOAD).job_context.wait(SECONDS)
        assert [letter.data for letter in runtime.dead_letters()] == [PAYLOAD]
        assert runtime.health().status == "ok"


def test_dead_letters_of_a_batch_have_what_was_posted(store: Any) -> None:
    def fail(routine: Any, items: Any, message: Any, state: Any) -> None:
        items[1].clear()
        raise ValueError("no")

    flow = flow_of(fail, policy=batch_size_policy(3))
    with Runtime(store=store) as runtime:
        runtime.exec(flow, worker_id="w")
        jobs = [runtime.post(flow, "r", "in", {"n": n}).job_context for n in range(3)]
        assert all(job.wait(SECONDS) for job in jobs)
        assert [letter.data for letter in runtime.dead_letters()] == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_the_event_of_a_failure_has_what_was_posted(store: Any) -> None:
    def fail(routine: Any, items: Any, message: Any, state: Any) -> None:
        spoil(items[0])
        raise ValueError("no")

    flow = flow_of(fail, handler=ErrorHandler(ErrorStrategy.EMIT))
    with Runtime(store=store) as runtime:
        runtime.exec(flow, worker_id="w")
        job = runtime.post(flow, "r", "in", PAYLOAD).job_context
        assert job.wait(SECONDS)
        assert job.outputs[0].data["data"] == PAYLOAD


# -- a later run ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True], ids=["on a thread", "as a task"])
@pytest.mark.parametrize("policy", [immediate_policy(), batch_size_policy(1)], ids=["one", "gathers"])
def test_a_retry_gets_what_the_first_attempt_got(store: Any, policy: Any, is_async: bool) -> None:
    seen: list[Any] = []

    def fail_twice(routine: Any, items: Any, message: Any, state: Any) -> None:
        seen.append(repr(items))
        spoil(items[0])
        if current().attempt < 3:
            raise ConnectionError("not yet")

    handler = ErrorHandler(ErrorStrategy.RETRY, max_retries=5, retry_delay=0.001)
    flow = flow_of(fail_twice, policy=policy, handler=handler, is_async=is_async)
    with Runtime(store=store) as runtime:
        runtime.exec(flow, worker_id="w")
        job = runtime.post(flow, "r", "in", PAYLOAD).job_context
        assert job.wait(SECONDS)
        assert job.status == "completed"
    assert seen == [repr([PAYLOAD])] * 3


class Unreadable(MemoryStore):
    """Reads no items by their keys while it is told so, and says how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses = False
        self.asked = 0

    def items_of(self, keys: Any) -> list[ItemRow]:
        if self.refuses:
            self.asked += 1
            raise StoreError("no connection")
        return super().items_of(keys)


@pytest.mark.parametrize("is_async", [False, True], ids=["on a thread", "as a task"])
def test_a_retry_waits_for_a_store_that_cannot_be_read(is_async: bool) -> None:
    store, seen = Unreadable(), []

    def fail_once(routine: Any, items: Any, message: Any, state: Any) -> None:
        seen.append(repr(items))
        spoil(items[0])
        if len(seen) == 1:
            store.refuses = True
            raise ConnectionError("not yet")

    handler = ErrorHandler(ErrorStrategy.RETRY, max_retries=1, retry_delay=0.001)
    flow = flow_of(fail_once, handler=handler, is_async=is_async)
    with Runtime(store=store, thread_pool_size=1) as runtime:
        runtime.exec(flow, worker_id="w")
        job = runtime.post(flow, "r", "in", PAYLOAD).job_context
        eventually(lambda: store.asked > 1)
        store.refuses = False
        assert job.wait(SECONDS)
        assert job.status == "completed"
    assert seen == [repr([PAYLOAD])] * 2


def test_what_runs_again_because_a_state_has_changed_gets_what_it_got_first(store: Any) -> None:
    seen: list[Any] = []

    def count(routine: Any, items: Any, message: Any, state: Any) -> None:
        seen.append(repr(items))
        spoil(items[0])
        before = state.shared_data.get("n", 0)
        if len(seen) == 1:  # somebody else, who belongs to no activation
            other = Thread(target=lambda: state.shared_data.__setitem__("n", 10))
            other.start()
            other.join()
        state.shared_data["n"] = before + 1

    flow = flow_of(count)
    with Runtime(store=store) as runtime:
        state = runtime.exec(flow, worker_id="w")
        job = runtime.post(flow, "r", "in", PAYLOAD).job_context
        assert job.wait(SECONDS)
        assert state.shared_data["n"] == 11
    assert seen == [repr([PAYLOAD])] * 2


def test_a_later_attempt_hears_what_the_policy_said_first(store: Any) -> None:
    seen: list[Any] = []

    def rule(slots: Any, state: Any) -> Any:
        return Fire({"in": 1}, message={"limits": [1]}) if len(slots["in"]) else WAIT

    def fail_twice(routine: Any, items: Any, message: Any, state: Any) -> None:
        seen.append(repr(message))
        message["limits"].append(object())
        if current().attempt < 3:
            raise ConnectionError("not yet")

    handler = ErrorHandler(ErrorStrategy.RETRY, max_retries=5, retry_delay=0.001)
    flow = flow_of(fail_twice, policy=custom_policy(rule), handler=handler)
    with Runtime(store=store) as runtime:
        runtime.exec(flow, worker_id="w")
        assert runtime.post(flow, "r", "in", {}).job_context.wait(SECONDS)
    assert seen == ["{'limits': [1]}"] * 3


def test_a_message_without_a_form_fails_its_activation_and_says_where(
    store: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def rule(slots: Any, state: Any) -> Any:
        return Fire({"in": 1}, message={"x": object()}) if len(slots["in"]) else WAIT

    handler = ErrorHandler(ErrorStrategy.RETRY, max_retries=2, retry_delay=0.001)
    flow = flow_of(lambda *_: None, policy=custom_policy(rule), handler=handler)
    with Runtime(store=store) as runtime:
        runtime.exec(flow, worker_id="w")
        for n in range(2):
            job = runtime.post(flow, "r", "in", {"n": n}).job_context
            assert job.wait(SECONDS)
            assert isinstance(job.error.__cause__, SerializationError)
            assert "policy message of routine 'r' at $.x" in str(job.error)
        assert [letter.data for letter in runtime.dead_letters()] == [{"n": 0}, {"n": 1}]
        assert runtime.health().status == "ok"
    assert not [record for record in caplog.records if "broken off" in record.getMessage()]


# -- metadata --------------------------------------------------------------------------------------------------


def test_metadata_are_those_that_were_posted(store: Any) -> None:
    flow = flow_of(lambda *_: None)
    given = {"by": {"names": ["Ada"]}}
    with Runtime(store=store) as runtime:
        state = runtime.exec(flow, worker_id="w", metadata=given)
        runtime.pause(state)
        job = runtime.post(flow, "r", "in", {}, metadata=given).job_context
        job.metadata["request"] = object()
        job.metadata["by"]["names"].append(object())
        runtime.resume(state)
        assert job.wait(SECONDS)
        runtime.pause(state)
        assert runtime.health().status == "ok"
    with Runtime(store=store) as runtime:
        state = runtime.exec(flow, worker_id="w")
        assert state.metadata == {"by": {"names": ["Ada"]}}
        assert runtime.get_job(job.job_id).metadata == {"by": {"names": ["Ada"]}}


def test_metadata_without_a_form_are_refused_by_the_post(store: Any) -> None:
    flow = flow_of(lambda *_: None)
    with Runtime(store=store) as runtime:
        runtime.exec(flow, worker_id="w")
        with pytest.raises(SerializationError, match=r"metadata of job '.*' at \$\.by"):
            runtime.post(flow, "r", "in", {}, metadata={"by": object()})
        assert runtime.list_jobs() == []
        assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)


# -- user code on threads of ours --------------------------------------------------------------------------------


class Gone:
    """Of a module that the next process does not import."""


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Registers the type; the call takes that back."""
    register(Gone, "tests.Gone", encode=lambda _: "gone", decode=lambda _: Gone())

    def forget() -> None:
        monkeypatch.delitem(by_tag, "tests.Gone")
        monkeypatch.delitem(by_class, Gone)

    return forget


def test_a_job_goes_on_whose_notes_can_not_be_read_any_more(
    store: Any, gone: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Deep in a backlog, so that it is read when the worker runs."""
    caplog.set_level(logging.WARNING)
    seen: list[int] = []

    def note(routine: Any, items: Any, message: Any, state: Any) -> None:
        seen.append(items[0]["n"])

    other = flow_of(lambda *_: None, flow_id="other")
    with Runtime(store=store) as runtime:
        flow = flow_of(note)
        state = runtime.exec(flow, worker_id="w")
        runtime.pause(state)
        for n in range(12):
            metadata = {"what": Gone()} if n == 10 else {}
            job = runtime.post(flow, "r", "in", {"n": n}, metadata=metadata).job_context
            if n == 10:
                odd_id = job.job_id
                job.set_data("what", Gone())
                job.trace("odd", what=Gone())
                job.trace("plain")
    gone()
    with Runtime(store=store) as runtime:
        runtime.exec(other, worker_id="other")
        state = runtime.exec(flow_of(note, capacity=2), worker_id="w", on_flow_change="adopt")
        runtime.resume(state)
        assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
        assert runtime.post(other, "r", "in", {}).job_context.wait(SECONDS)
        assert runtime.health().status == "ok"
        assert runtime.get_job(odd_id).status == "completed"
    assert seen == list(range(12))
    assert "what cannot be read is left out here" in caplog.text
    register(Gone, "tests.Gone", encode=lambda _: "gone", decode=lambda _: Gone())
    with Runtime(store=store) as runtime:  # it is all there still
        job = runtime.get_job(odd_id)
        assert type(job.metadata["what"]) is type(job.data["what"]) is Gone
        assert [entry["action"] for entry in job.trace_log] == ["odd", "plain"]


def test_a_letter_that_can_not_be_read_does_not_keep_others_from_being_driven_again(
    store: Any, gone: Callable[[], None]
) -> None:
    def fail(routine: Any, items: Any, message: Any, state: Any) -> None:
        raise ValueError("no")

    flow = flow_of(fail)
    with Runtime(store=store) as runtime:
        runtime.exec(flow, worker_id="w")
        for payload in ({"what": Gone()}, {"n": 1}):
            assert runtime.post(flow, "r", "in", payload).job_context.wait(SECONDS)
        letters = runtime.dead_letters()
        gone()
        [posted] = runtime.redrive(letters[1])
        assert posted.job_context.wait(SECONDS)
        unread = [letter for letter in runtime.dead_letters() if isinstance(letter.data, StoredForm)]
        assert [letter.item_id for letter in unread] == [letters[0].item_id]
        assert unread[0].data["what"]["$type"] == "tests.Gone"
        with pytest.raises(SerializationError, match=r"no type is registered as 'tests\.Gone'"):
            runtime.redrive(*unread)


class Raises:
    def holds_item(self, *_: Any) -> bool:
        raise ValueError("a gate")

    def holds_activation(self, *_: Any) -> bool:
        raise ValueError("a gate")


def test_a_gate_that_raises_sets_one_item_aside(store: Any) -> None:
    flow, other = flow_of(lambda *_: None), flow_of(lambda *_: None, flow_id="other")
    with Runtime(store=store) as runtime:
        state = runtime.exec(flow, worker_id="w")
        runtime.exec(other, worker_id="other")
        runtime.set_gate(state, "r", Raises())
        job = runtime.post(flow, "r", "in", {"n": 1}).job_context
        assert job.wait(SECONDS)
        assert [letter.data for letter in runtime.dead_letters()] == [{"n": 1}]
        assert "a gate" in str(job.errors[0])
        assert runtime.post(other, "r", "in", {}).job_context.wait(SECONDS)
        runtime.set_gate(state, "r", None)
        assert runtime.post(flow, "r", "in", {"n": 2}).job_context.wait(SECONDS)
        assert runtime.health().status == "ok"


def test_a_merging_slot_is_as_it_was_when_an_attempt_has_failed(store: Any) -> None:
    seen: list[str] = []

    class Collect(Routine):
        def __init__(self) -> None:
            super().__init__()
            self.add_slot("in", merge_strategy="append")
            self.set_activation_policy(immediate_policy())
            self.set_error_handler(ErrorHandler(ErrorStrategy.RETRY, max_retries=2, retry_delay=0.001))

        def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            [merged] = slot_data["in"]
            seen.append(repr(merged))
            if current().attempt == 1:
                merged["n"][0]["tags"].append("spoilt")
                raise ConnectionError("not yet")

    flow = Flow("f")
    flow.add_routine(Collect(), "r")
    with Runtime(store=store) as runtime:
        runtime.exec(flow, worker_id="w")
        for _ in range(2):
            assert runtime.post(flow, "r", "in", {"n": {"tags": []}}).job_context.wait(SECONDS)
    assert seen == ["{'n': [{'tags': []}]}"] * 2 + ["{'n': [{'tags': []}, {'tags': []}]}"] * 2


def test_a_fault_in_what_follows_from_a_step_stops_its_worker_and_shows(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory may differ from what is stored then: it goes on from the store, when it is opened again."""
    flow, other = flow_of(lambda *_: None), flow_of(lambda *_: None, flow_id="other")
    released = Handover._released

    def broken(self: Any, activation: Any, *more: Any) -> None:
        if activation.worker_id == "w":
            raise KeyError("a fault of ours")
        released(self, activation, *more)

    with Runtime(store=store) as runtime:
        runtime.exec(flow, worker_id="w")
        runtime.exec(other, worker_id="other")
        with monkeypatch.context() as patched:
            patched.setattr(Handover, "_released", broken)
            job = runtime.post(flow, "r", "in", {}).job_context
            assert job.wait(SECONDS) is False
            with pytest.raises(StoreError, match="waits in the store: worker 'w' of flow 'f' has stopped"):
                job.result()
            health = runtime.health()
            assert (health.status, "worker 'w' of flow 'f' has stopped" in str(health.reason)) == (
                "degraded",
                True,
            )
            assert runtime.post(other, "r", "in", {}).job_context.wait(SECONDS)
        runtime.exec(flow, worker_id="w")
        assert runtime.get_job(job.job_id).status == "completed"
        assert runtime.health().status == "ok"


def test_a_fault_in_loading_what_waits_in_the_store_stops_its_worker(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow, other = flow_of(lambda *_: None, capacity=2), flow_of(lambda *_: None, flow_id="other")
    flow.add_routine(routine_of(lambda routine, *_: [routine.emit("error", n=n) for n in range(10)]), "s")
    flow.connect("s", "error", "r", "in")

    def broken(self: Any, slot: Any) -> None:
        raise KeyError("a fault of ours")

    with Runtime(store=store) as runtime:
        runtime.exec(flow, worker_id="w")
        runtime.exec(other, worker_id="other")
        with monkeypatch.context() as patched:
            patched.setattr(Backlog, "_load", broken)
            job = runtime.post(flow, "s", "in", {}).job_context
            assert job.wait(SECONDS) is False
            assert "a step of loading" in str(runtime.health().reason)
            assert runtime.post(other, "r", "in", {}).job_context.wait(SECONDS)
        runtime.exec(flow, worker_id="w")
        assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
        assert runtime.get_job(job.job_id).status == "completed"
        assert runtime.health().status == "ok"


def test_jobs_of_the_store_are_shown_although_a_value_of_one_can_not_be_read(
    store: Any, gone: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    def give(routine: Routine, items: Any, message: Any, state: Any) -> None:
        current().job.set_data("odd", Gone())
        current().job.set_data("plain", 1)

    flow = flow_of(give)
    with Runtime(store=store) as runtime:
        runtime.exec(flow, worker_id="w")
        for metadata in ({"what": Gone()}, {"n": 1}):
            posted = runtime.post(flow, "r", "in", {}, metadata=metadata)
            assert posted.job_context.wait(SECONDS)
        gone()
        runtime._engine.book.jobs.clear()  # as in another process
        first, second = runtime.list_jobs()
        assert (dict(first.metadata), dict(second.metadata)) == ({}, {"n": 1})
        assert first.get_data("plain") == second.get_data("plain") == 1
        assert "no type is registered as 'tests.Gone'" in caplog.text


# -- types that are gone ----------------------------------------------------------------------------------------------


def again() -> None:
    register(Gone, "tests.Gone", encode=lambda _: "gone", decode=lambda _: Gone())


def left(
    store: Any, flow: Flow, *payloads: dict[str, Any], metadata: dict[str, Any] | None = None
) -> Runtime:
    """A runtime whose worker ``w`` is paused, and has these items in its queue."""
    runtime = Runtime(store=store)
    runtime.pause(runtime.exec(flow, worker_id="w", metadata=metadata or {}))
    for n, payload in enumerate(payloads):
        runtime.post(flow, "r", "in", payload, job_id=f"j{n}")
    return runtime


def test_an_item_at_the_head_that_can_not_be_read_is_set_aside_and_the_rest_goes_on(
    store: Any, gone: Callable[[], None]
) -> None:
    seen: list[int] = []

    def note(routine: Any, items: Any, message: Any, state: Any) -> None:
        seen.append(items[0]["n"])

    flow = flow_of(note)
    left(store, flow, {"n": 0, "what": Gone()}, {"n": 1}).shutdown(wait=False)
    gone()
    with Runtime(store=store) as runtime:
        runtime.resume(runtime.exec(flow_of(note), worker_id="w"))
        assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
        assert seen == [1]
        assert [(letter.job_ids, letter.reason) for letter in runtime.dead_letters()] == [
            (("j0",), "unreadable")
        ]
        assert "no type is registered as 'tests.Gone'" in str(runtime.get_job("j0").errors[0])
        assert runtime.health().status == "ok"
        again()
        runtime.redrive(*runtime.dead_letters())
        assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
    assert seen == [1, 0]


def test_jobs_with_items_that_can_not_be_read_can_be_cancelled(store: Any, gone: Callable[[], None]) -> None:
    flow = flow_of(lambda *_: None)
    left(store, flow, {}, {"what": Gone()}).shutdown(wait=False)
    gone()
    with Runtime(store=store) as runtime:
        runtime.exec(flow_of(lambda *_: None, capacity=1), worker_id="w", on_flow_change="adopt")
        runtime.cancel("j1")
        assert runtime.get_job("j1").status == "cancelled"


def notes_of(runtime: Runtime) -> dict[str, bytes]:
    return {note.kind: data for note, data in runtime._engine.journal.store.notes("w")}


@pytest.mark.parametrize("where", ["item", "message", "checkpoint"])
def test_an_activation_that_was_to_run_again_and_can_not_be_read_is_set_aside(
    store: Any, gone: Callable[[], None], where: str
) -> None:
    """It is neither run without its checkpoint, nor by another message; and it keeps nothing else from going on."""
    seen: list[int] = []

    def rule(slots: Any, state: Any) -> Any:
        message = {"what": Gone()} if where == "message" and not seen else {}
        return Fire({"in": 1}, message=message) if len(slots["in"]) else WAIT

    def fail(routine: Any, items: Any, message: Any, state: Any) -> None:
        seen.append(items[0]["n"])
        if items[0]["n"] == 0:
            if where == "checkpoint":
                current().checkpoint({"what": Gone()})
            raise OSError("not now")

    def flow() -> Flow:
        again_later = ErrorHandler(ErrorStrategy.RETRY, max_retries=3, retry_delay=3_600.0)
        return flow_of(fail, policy=custom_policy(rule), handler=again_later)

    with Runtime(store=store) as runtime:
        runtime.exec(flow(), worker_id="w")
        runtime.post("f", "r", "in", {"n": 0, "what": Gone() if where == "item" else None}, job_id="j0")
        eventually(lambda: b'"attempt":2' in notes_of(runtime).get("activation", b""))
        runtime.shutdown(wait=False, timeout=SECONDS)
    gone()
    with Runtime(store=store) as runtime:
        runtime.exec(flow(), worker_id="w")
        assert runtime.post("f", "r", "in", {"n": 1}).job_context.wait(SECONDS)
        assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
        assert seen == [0, 1]
        assert [(letter.data["n"], letter.reason) for letter in runtime.dead_letters()] == [(0, "unreadable")]
        assert notes_of(runtime) == {}
        assert runtime.health().status == "ok"


def test_an_item_whose_checkpoint_can_not_be_read_is_set_aside(store: Any, gone: Callable[[], None]) -> None:
    """Its process died while it ran, so that there is no note of an activation."""
    held, go_on = Event(), Event()

    def note(routine: Any, items: Any, message: Any, state: Any) -> None:
        current().checkpoint({"what": Gone()})
        held.set()
        assert go_on.wait(SECONDS)

    runtime = Runtime(store=store)
    runtime.exec(flow_of(note), worker_id="w")
    runtime.post("f", "r", "in", {"n": 0}, job_id="j0")
    assert held.wait(SECONDS)
    runtime.shutdown(wait=False, timeout=0.0)
    go_on.set()
    gone()
    seen: list[int] = []
    with Runtime(store=store) as runtime:
        runtime.exec(
            flow_of(lambda routine, items, message, state: seen.append(items[0]["n"])), worker_id="w"
        )
        assert runtime.post("f", "r", "in", {"n": 1}).job_context.wait(SECONDS)
        assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
        assert seen == [1]
        assert [(letter.data["n"], letter.reason) for letter in runtime.dead_letters()] == [(0, "unreadable")]
        assert notes_of(runtime) == {}


def test_a_worker_opens_whose_state_can_not_be_read_and_reading_it_says_where(
    store: Any, gone: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    def flow() -> Flow:
        return flow_of(lambda routine, items, message, state: routine.state.add("n"))

    runtime = left(store, flow(), {}, metadata={"what": Gone()})
    state: Any = runtime.get_worker("w")
    state.update_routine_state("r", {"odd": Gone(), "n": 1})
    state.shared_data.update({"odd": Gone(), "plain": 1})
    state.shared_data[Gone()] = 2
    state.shared_log.extend([0, Gone()])
    runtime.shutdown(wait=False, timeout=SECONDS)
    gone()
    with Runtime(store=store) as runtime:
        state = runtime.exec(flow(), worker_id="w")
        runtime.resume(state)
        assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
        with pytest.raises(SerializationError, match=r"state of routine 'r'\['odd'\] at .*'tests.Gone'"):
            state.get_routine_state("r")
        with pytest.raises(SerializationError, match=r"shared_data\['odd'\] at .*'tests.Gone'"):
            state.shared_data["odd"]
        assert state.shared_data["plain"] == 1
        for read in (list, lambda log: log[1], lambda log: log[:], repr):
            with pytest.raises(SerializationError, match=r"shared_log\[1\] .*'tests.Gone'"):
                read(state.shared_log)
        state.shared_log.append(2)
        assert (len(state.shared_log), state.shared_log[0], state.shared_log[-1]) == (3, 0, 2)
        assert dict(state.metadata) == {}
        assert "reading worker 'w' of flow 'f' raised" in caplog.text
    again()
    with Runtime(store=store) as runtime:  # it is all there still
        state = runtime.exec(flow(), worker_id="w")
        assert type(state.metadata["what"]) is type(state.shared_log[1]) is Gone
        values = state.get_routine_state("r")
        assert (type(values["odd"]), values["n"]) == (Gone, 2)
        assert sorted(map(str, state.shared_data.values()))[:2] == ["1", "2"]


def test_what_a_slot_has_merged_and_can_not_be_read_fails_what_is_merged_with_it(
    store: Any, gone: Callable[[], None]
) -> None:
    """It is neither forgotten nor written over."""

    def flow() -> Flow:
        flow, routine = Flow("f"), Routine()
        routine.add_slot("in", handler=lambda data: None, merge_strategy="override")
        flow.add_routine(routine, "r")
        return flow

    with Runtime(store=store) as runtime:
        runtime.exec(flow(), worker_id="w")
        assert runtime.post("f", "r", "in", {"what": Gone()}).job_context.wait(SECONDS)
        before = notes_of(runtime)
    gone()
    with Runtime(store=store) as runtime:
        runtime.exec(flow(), worker_id="w")
        with pytest.raises(SlotHandlerError, match=r"merged slot 'r.in' at .*'tests.Gone'"):
            runtime.post("f", "r", "in", {"n": 1}).job_context.result(SECONDS)
        assert notes_of(runtime) == before
        assert runtime.health().status == "ok"


def test_an_execution_fails_whose_own_item_can_not_be_read(store: Any, gone: Callable[[], None]) -> None:
    """Nothing else says what it was to do."""
    held, go_on = Event(), Event()

    def hold(routine: Any, items: Any, message: Any, state: Any) -> None:
        held.set()
        assert go_on.wait(SECONDS)

    flow = flow_of(hold)
    runtime = Runtime(store=store)
    runtime.exec(flow, entry_params={"what": Gone()}, job_id="one")
    assert held.wait(SECONDS)
    runtime.shutdown(wait=False, timeout=0.0)
    go_on.set()
    gone()
    with Runtime(store=store) as runtime:
        state = runtime.exec(flow, entry_params={}, job_id="one")
        with pytest.raises(SerializationError, match=r"tests\.Gone"):
            state.job.result(SECONDS)
        assert runtime.get_job("one").status == "failed"
        assert [letter.reason for letter in runtime.dead_letters()] == ["unreadable"]
    with Runtime(store=store) as runtime:
        assert runtime.get_job("one").status == "failed"
        assert runtime.recover(flows=[flow]) == []


def test_a_result_that_can_not_be_read_is_not_an_empty_one(store: Any, gone: Callable[[], None]) -> None:
    class Gives(Routine):
        def __init__(self) -> None:
            super().__init__()
            self.add_slot("in")
            self.add_event("out")
            self.set_activation_policy(immediate_policy())

        def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            self.emit("out", n=1)
            self.emit("out", what=Gone())

    flow = Flow("f")
    flow.add_routine(Gives(), "r")
    with Runtime(store=store) as runtime:
        assert runtime.exec(flow, entry_params={}, job_id="one").wait(SECONDS)
        runtime.exec(flow, worker_id="w")
        assert runtime.post(flow, "r", "in", {}, job_id="two").job_context.wait(SECONDS)
    gone()
    with Runtime(store=store) as runtime:
        for job in (
            runtime.exec(flow, entry_params={}, job_id="one").job,
            runtime.get_job("two"),
        ):
            with pytest.raises(SerializationError, match=rf"output 1 of job '{job.job_id}'.*'tests.Gone'"):
                job.result(SECONDS)
            assert [output.data for output in job.outputs] == [{"n": 1}]
        again()
        assert len(runtime.get_job("two").result(SECONDS)) == 2


def test_many_jobs_with_values_that_can_not_be_read_are_told_as_one_kind(
    gone: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore()
    flow = flow_of(lambda *_: None)
    with Runtime(store=store) as runtime:
        runtime.exec(flow, worker_id="w")
        for _ in range(30):
            runtime.post(flow, "r", "in", {}, metadata={"what": Gone()})
        assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
    gone()
    with Runtime(store=store) as runtime:
        assert len(runtime.list_jobs()) == 30
    assert len(caplog.records) == WRITTEN + 1
    assert "reading workers and jobs of flow 'f' failed with SerializationError: 20 more times" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_job_of_a_worker_that_was_stopped_goes_on_in_the_next_one_of_its_name(store: Any) -> None:
    """In the runtime that has run it as in another one."""

    def note(routine: Any, items: Any, message: Any, state: Any) -> None:
        current().job.set_data("n", items[0]["n"])
        current().job.trace("noted")

    flow = flow_of(note)
    with Runtime(store=store) as runtime:
        for n in range(3):
            worker = runtime.exec(flow, worker_id="w")
            job = runtime.post(flow, "r", "in", {"n": n}, job_id="j").job_context
            assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
            assert (job.status, job.errors, job.get_data("n")) == ("completed", [], n)
            assert runtime.get_job("j").get_data("n") == n
            runtime.stop(worker)
        assert runtime.dead_letters() == []
    with Runtime(store=store) as runtime:
        assert (runtime.get_job("j").get_data("n"), len(runtime.get_job("j").trace_log)) == (2, 3)
