"""A worker of a changed flow is adopted with all that hangs on what is gone: set aside, and told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, ClassVar

import pytest

from routilux import ErrorHandler, ErrorStrategy, Flow, Routine, Runtime, current
from routilux.activation_policies import all_slots_ready_policy, batch_size_policy, immediate_policy
from routilux.store import check, look_into
from tests.waiting import SECONDS, eventually


class Joins(Routine):
    """Fails, after it has done something once, until it is told not to."""

    fails: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.set_error_handler(ErrorHandler(ErrorStrategy.RETRY, max_retries=9, retry_delay=86_400.0))

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        if self.fails:
            current().once("paid", lambda: "yes")
            current().checkpoint("here")
            raise ValueError("not yet")
        state.shared_log.append({name: [item["n"] for item in slot_data[name]] for name in slot_data})


class Source(Routine):
    """Emits more than slots hold, from the event that it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("in")
        for event in "abc":
            self.add_event(event, ["n", "m"])
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        (item,) = slot_data["in"]
        for n in item["numbers"]:
            self.emit(item["event"], n=n, m=-n)


class Fails(Joins):
    fails = True


def flow_of(slots: str, policy: Any = None, kind: type[Joins] = Joins, name: str = "r") -> Flow:
    flow, routine = Flow("f"), kind()
    for slot in slots:
        routine.add_slot(slot, max_queue_length=4)
    routine.set_activation_policy(policy or all_slots_ready_policy())
    flow.add_routine(routine, name)
    flow.add_routine(Source(), "src")
    for slot in slots:
        flow.connect("src", slot, name, slot)
    return flow


def notes_of(url: str) -> Counter[str]:
    with closing(look_into(url)) as store:
        return Counter(note.kind for note, _ in store.notes("w"))


def is_to_run_again(url: str) -> bool:
    """Whether the first attempt of an activation is over, and the next one is written down."""
    with closing(look_into(url)) as store:
        return any(note.kind == "activation" and b'"attempt":2' in data for note, data in store.notes("w"))


@contextmanager
def running(url: str, flow: Flow, **how: Any) -> Iterator[tuple[Runtime, Any]]:
    with Runtime(store=url) as runtime:
        yield runtime, runtime.exec(flow, worker_id="w", **how)


def leave_a_retry(url: str, slots: str, policy: Any = None) -> None:
    """One activation waits for its next attempt, and has done something outside."""
    runtime = Runtime(store=url)
    runtime.exec(flow_of(slots, policy, Fails), worker_id="w")
    for n, slot in enumerate(slots):
        runtime.post("f", "r", slot, {"n": n})
    eventually(lambda: is_to_run_again(url))
    runtime.shutdown(wait=False, timeout=SECONDS)
    assert notes_of(url) == {"activation": 1, "once": 1, "checkpoint": 1}


def letters_of(runtime: Runtime) -> list[tuple[str, Any, str]]:
    return sorted((letter.slot, letter.data["n"], letter.reason) for letter in runtime.dead_letters())


def test_a_retry_of_which_a_slot_is_gone_is_set_aside(
    store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    leave_a_retry(store_url, "ab")
    with running(store_url, flow_of("a"), on_flow_change="adopt") as (runtime, worker):
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        assert letters_of(runtime) == [("a", 0, "flow changed"), ("b", 1, "flow changed")]
        assert list(worker.shared_log) == []
        runtime.post("f", "r", "a", {"n": 7}).job_context.wait(SECONDS)
        assert list(worker.shared_log) == [{"a": [7]}]
        assert runtime.health().status == "ok"
    assert "an activation of routine 'r' that had begun cannot go on (flow changed); 2 items" in caplog.text
    assert notes_of(store_url) == {}
    assert check(store_url) == []


def test_a_retry_of_a_routine_that_is_gone_is_set_aside(store_url: str) -> None:
    leave_a_retry(store_url, "ab")
    with running(store_url, flow_of("ab", name="s"), on_flow_change="adopt") as (runtime, _):
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        assert letters_of(runtime) == [("a", 0, "flow changed"), ("b", 1, "flow changed")]
    assert notes_of(store_url) == {}
    assert check(store_url) == []


def test_a_claimed_batch_that_is_half_there_is_set_aside(store_url: str) -> None:
    leave_a_retry(store_url, "ab", batch_size_policy(1))
    with running(store_url, flow_of("b", batch_size_policy(1)), on_flow_change="adopt") as (runtime, _):
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        assert letters_of(runtime) == [("a", 0, "flow changed"), ("b", 1, "flow changed")]
    assert notes_of(store_url) == {}
    assert check(store_url) == []


def test_a_retry_whose_slots_are_all_there_goes_on(store_url: str) -> None:
    leave_a_retry(store_url, "ab")
    with running(store_url, flow_of("abc"), on_flow_change="adopt") as (runtime, _):
        assert runtime.dead_letters() == []
        runtime.shutdown(wait=False, timeout=SECONDS)
    assert notes_of(store_url) == {"activation": 1, "once": 1, "checkpoint": 1}


@pytest.mark.parametrize("event", ["a", "b"])
def test_the_index_of_a_join_goes_with_its_items(store_url: str, event: str) -> None:
    """Where a slot is gone, and where what is left of the flow joins nothing."""
    by_n = all_slots_ready_policy(by="n")
    with running(store_url, flow_of("ab", by_n)) as (runtime, _):
        runtime.post("f", "src", "in", {"event": event, "numbers": [*range(10)]})
        eventually(lambda: notes_of(store_url)["item.join"] == 6)
        runtime.shutdown(wait=False, timeout=SECONDS)
    with running(store_url, flow_of("a", by_n), on_flow_change="adopt") as (runtime, worker):
        if event == "a":
            eventually(lambda: len(worker.shared_log) == 10)
            assert runtime.dead_letters() == []
        else:
            assert letters_of(runtime) == [("b", n, "flow changed") for n in range(10)]
    assert notes_of(store_url) == {}
    assert check(store_url) == []


def test_a_join_by_another_key_finds_what_waits_in_the_store(store_url: str) -> None:
    with running(store_url, flow_of("ab", all_slots_ready_policy(by="n"))) as (runtime, _):
        runtime.post("f", "src", "in", {"event": "a", "numbers": [*range(10)]})
        eventually(lambda: notes_of(store_url)["item.join"] == 6)
        runtime.shutdown(wait=False, timeout=SECONDS)
    with running(store_url, flow_of("ab", all_slots_ready_policy(by="m")), on_flow_change="adopt") as (
        runtime,
        worker,
    ):
        for n in (9, 3, 6, 0):
            runtime.post("f", "r", "b", {"n": 70 + n, "m": -n})
        eventually(lambda: len(worker.shared_log) == 4)
        assert sorted(entry["a"] for entry in worker.shared_log) == [[0], [3], [6], [9]]
    assert notes_of(store_url)["item.join"] <= 6
    assert check(store_url) == []
