"""A long activation goes on from its last checkpoint, and what it did before that stands, once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from routilux import ErrorHandler, Flow, Routine, Runtime, current
from routilux.activation_policies import immediate_policy
from routilux.errors import ExecutionError, SerializationError
from routilux.runtime.journal import activation as journaled
from routilux.store.memory import MemoryStore
from routilux.testing import SimulatedRuntime

EVERY = 100


class Count(Routine):
    """Emits the numbers below ``n``, with a checkpoint after each hundred, and fails once on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.add_event("number")
        self.set_config(fails_at=-1, checkpoints=True)
        self.set_activation_policy(immediate_policy())
        self.set_error_handler(ErrorHandler("retry", retry_delay=0.01))

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        context = current()
        start = context.checkpointed or 0
        state.shared_log.append(start)
        for n in range(start, slot_data["input"][0]["n"]):
            if n == self.get_config("fails_at") and context.attempt == 1:
                raise ValueError("on the way")
            self.emit("number", n=n)
            if self.get_config("checkpoints") and n % EVERY == EVERY - 1:
                context.checkpoint(n + 1)


class Collect(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("number", max_queue_length=20)
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        state.update_routine_state("collect", {"longest": max(self.longest(state), longest_queue(state))})
        state.shared_data["seen"] = [*state.shared_data.get("seen", []), slot_data["number"][0]["n"]]

    def longest(self, state: Any) -> int:
        return int((state.get_routine_state("collect") or {}).get("longest", 0))


def longest_queue(state: Any) -> int:
    return int(state.counters("collect")["queued"])


def counting(**config: Any) -> Flow:
    flow = Flow("counting")
    flow.add_routine(Count().set_config(**config), "count")
    flow.add_routine(Collect(), "collect")
    flow.connect("count", "number", "collect", "number")
    return flow


@pytest.fixture(params=["simulated", "memory store", "sqlite"])
def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runtime]:
    made: dict[str, Any] = {
        "simulated": lambda: SimulatedRuntime(3, store=MemoryStore()),
        "memory store": lambda: Runtime(thread_pool_size=1, store=MemoryStore()),
        "sqlite": lambda: Runtime(
            thread_pool_size=2, store=f"sqlite:///{tmp_path / 'a.db'}", durability="process"
        ),
    }
    with made[request.param]() as runtime:
        yield runtime


def test_a_failure_takes_back_what_came_after_the_last_checkpoint_and_nothing_else(runtime: Runtime) -> None:
    flow = counting(fails_at=356)
    state = runtime.exec(flow, entry_params={"n": 500}, entry="count")
    assert state.wait(30)
    assert state.status == "completed"
    assert state.shared_data["seen"] == list(range(500))
    assert list(state.shared_log) == [0, 300]


def test_a_checkpoint_waits_until_there_is_room_for_more(runtime: Runtime) -> None:
    state = runtime.exec(counting(), entry_params={"n": 1_000}, entry="count")
    assert state.wait(30)
    assert state.shared_data["seen"] == list(range(1_000))
    assert state.get_routine_state("collect")["longest"] <= 20


def test_nothing_is_left_of_a_checkpoint_when_the_activation_has_ended() -> None:
    store = MemoryStore()
    with SimulatedRuntime(1, store=store) as runtime:
        worker = runtime.exec(counting(fails_at=150), worker_id="w")
        runtime.post("counting", "count", "input", {"n": 300})
        assert runtime.wait_until_all_jobs_finished()
        assert worker.shared_data["seen"] == list(range(300))
    assert {note.kind for note, _ in store.notes("w")} == {"state", "shared"}


def test_in_memory_a_checkpoint_is_found_by_the_next_attempt_too() -> None:
    """What was emitted after it stays emitted there, and is emitted again."""
    with SimulatedRuntime(1) as runtime:
        state = runtime.exec(counting(fails_at=150), entry_params={"n": 200}, entry="count")
        assert state.wait()
        assert list(state.shared_log) == [0, 100]
        assert state.shared_data["seen"] == [*range(150), *range(100, 200)]


def test_a_checkpoint_without_a_json_form_is_refused_where_it_is_made() -> None:
    class Bad(Count):
        def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            current().checkpoint(object())

    flow = Flow("bad")
    flow.add_routine(Bad().set_error_handler(ErrorHandler("stop")), "bad")
    with SimulatedRuntime(1, store=MemoryStore()) as runtime:
        state = runtime.exec(flow, entry_params={"n": 1})
        assert state.wait()
        assert isinstance(state.error, Exception)
        assert isinstance(state.error.__cause__, SerializationError)
        assert "checkpoint of routine 'bad'" in str(state.error.__cause__)


def test_an_activation_that_emits_without_end_is_told_about_checkpoints(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(journaled, "DRAFT_EMITS", 1_000)
    flow = counting(checkpoints=False)
    flow.routines["count"].set_error_handler(ErrorHandler("stop"))
    with SimulatedRuntime(1, store=MemoryStore()) as runtime:
        state = runtime.exec(flow, entry_params={"n": 10_000_000}, entry="count")
        assert state.wait()
        assert isinstance(state.error, Exception)
        assert isinstance(state.error.__cause__, ExecutionError)
        assert "current().checkpoint(position)" in str(state.error.__cause__)
        assert "seen" not in state.shared_data
