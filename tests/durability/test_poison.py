"""Items that kill the process are set aside after three deaths; what ran beside them is not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import pytest

from routilux import Flow, Routine, Runtime, current
from routilux.activation_policies import immediate_policy
from routilux.errors import PoisonItemError, StoreError
from routilux.ports import FLIGHT_SEATS, Changes, FlightRecorder
from routilux.runtime.journal import flights
from routilux.runtime.journal.rows import flight_key, flight_prefix, flight_text
from routilux.store.flight import LONGEST
from routilux.store.memory import MemoryStore
from tests.deaths import Died
from tests.durability import ledger
from tests.durability.killing import PATIENCE, ROOT

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")

HARMLESS = [("work", "fine 1"), ("work", "fine 2"), ("beside", "long 1"), ("beside", "long 2")]


class Program:
    """Started again and again on one store, until it comes to its end."""

    def __init__(self, folder: Path, how: str, kind: str = "plain") -> None:
        self._arguments = [f"sqlite:///{folder / 'store.db'}", str(folder / "ledger"), how, kind]
        self._ledger = folder / "ledger"

    def run(self, posts: list[tuple[str, str]]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tests.durability.deadly", *self._arguments, json.dumps(posts)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    def until_it_lives(self, posts: list[tuple[str, str]], most: int = 12) -> tuple[int, dict[str, Any]]:
        """How many times it died, and what it says in the end."""
        for deaths in range(most):
            ended = self.run(posts if deaths == 0 else [])
            if ended.returncode == 0:
                return deaths, json.loads(ended.stdout)
            assert ended.returncode in (7, -signal.SIGKILL, -signal.SIGSEGV, -signal.SIGABRT), ended.stderr
        raise AssertionError(f"it has died {most} times")

    def runs(self) -> Counter[str]:
        return Counter(name for name, _ in ledger.entries(self._ledger))


@pytest.mark.parametrize("how", ["segfault", "exit", "stack", "killed"])
def test_an_item_that_kills_the_process_is_set_aside_after_three_deaths_and_the_flow_goes_on(
    tmp_path: Path, how: str
) -> None:
    program = Program(tmp_path, how)
    deaths, said = program.until_it_lives([("work", "fine 1"), ("work", "deadly"), ("work", "fine 2")])
    assert deaths == 3
    ((name, reason, error),) = said.pop("letters")
    assert (name, reason) == ("deadly", "poison")
    assert error.startswith("PoisonItemError: item ")
    assert "slot 'work.input'" in error
    assert said == {"drained": True, "done": ["fine 1", "fine 2"], "jobs": ["completed"] * 3}
    assert program.runs()["deadly"] == 3


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_items_that_run_beside_a_deadly_one_are_not_set_aside(tmp_path: Path, kind: str) -> None:
    program = Program(tmp_path, "exit", kind)
    deaths, said = program.until_it_lives([("work", "deadly"), *HARMLESS])
    assert deaths == 3
    assert [name for name, _, _ in said["letters"]] == ["deadly"]
    assert said["done"] == sorted(name for _, name in HARMLESS)


def test_several_deadly_items_are_set_aside_one_after_the_other(tmp_path: Path) -> None:
    program = Program(tmp_path, "exit")
    deadly = [("work", "deadly 1"), ("beside", "deadly 2"), ("work", "deadly 3")]
    deaths, said = program.until_it_lives([*deadly, *HARMLESS])
    assert sorted(name for name, _, _ in said["letters"]) == ["deadly 1", "deadly 2", "deadly 3"]
    assert said["done"] == sorted(name for _, name in HARMLESS)
    assert max(program.runs().values()) <= deaths


def test_items_that_are_taken_together_are_set_aside_together(tmp_path: Path) -> None:
    program = Program(tmp_path, "exit", "batch")
    posts = [("work", "fine 1"), ("work", "deadly"), ("work", "fine 2"), ("work", "fine 3")]
    deaths, said = program.until_it_lives(posts)
    assert deaths == 3
    assert [name for name, _, _ in said["letters"]] == ["fine 1", "deadly"]
    assert said["done"] == ["fine 2", "fine 3"]


class Recorded(MemoryStore, FlightRecorder):
    """Keeps what ran, and says which processes before died while they did it."""

    def __init__(self) -> None:
        super().__init__()
        self.free_seats = list(range(FLIGHT_SEATS))
        self.seats: list[int] = []
        self.entered: list[str] = []
        self.died: list[Died] = []

    def watch(self) -> FlightRecorder:
        return self

    def deaths(self) -> list[Died]:
        return self.died

    def enter(self, seat: int, text: str) -> None:
        self.seats.append(seat)
        self.entered.append(text)

    def leave(self, seat: int) -> None:
        pass


@pytest.mark.parametrize("seconds", [0.05, 60.0])
def test_a_suspect_runs_alone_but_does_not_stand_in_the_way_for_long(
    monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """It waits for what runs beside it, which comes when its time alone is over, or when it has ended."""
    monkeypatch.setattr(flights, "ALONE_SECONDS", seconds)
    beside_ran = Event()
    order: list[str] = []

    class Suspect(Routine):
        def __init__(self) -> None:
            super().__init__()
            self.add_slot("input")
            self.set_activation_policy(immediate_policy())

        def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            again.post(flow, "beside", "input", {})
            beside_ran.wait(PATIENCE if seconds < 1 else 0.2)
            order.append("suspect")

    class Beside(Suspect):
        def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            order.append("beside")
            beside_ran.set()

    flow = Flow("beside")
    flow.add_routine(Suspect(), "suspect")
    flow.add_routine(Beside(), "beside")
    store = Recorded()
    runtime = Runtime(store=store)
    runtime.pause(runtime.exec(flow, worker_id="worker"))
    runtime.post(flow, "suspect", "input", {})
    runtime.shutdown(wait=False)
    number = store.items("worker", "suspect.input")[0].number
    prefix = flight_prefix("worker", "suspect.input")
    store.died = [Died(flight_text(prefix, number, alone=False)) for _ in range(2)]
    with Runtime(store=store, thread_pool_size=2) as again:
        again.resume(again.exec(flow, worker_id="worker"))
        assert again.wait_until_all_jobs_finished(timeout=PATIENCE)
    assert flight_text(prefix, number, alone=True) in store.entered
    assert order == (["beside", "suspect"] if seconds < 1 else ["suspect", "beside"])


def one_routine(flow_id: str, logic: Callable[..., Any] = lambda slot_data, message, state: None) -> Flow:
    flow, routine = Flow(flow_id), Routine()
    routine.add_slot("input")
    flow.add_routine(routine.set_activation_policy(immediate_policy()).set_logic(logic), "work")
    return flow


def test_runtimes_on_one_store_have_seats_of_their_own() -> None:
    both_run = Barrier(2)

    store = Recorded()
    with Runtime(store=store) as first, Runtime(store=store) as second:
        for name, runtime in (("a", first), ("b", second)):
            flow = one_routine(name, lambda slot_data, message, state: both_run.wait(PATIENCE))
            runtime.exec(flow, worker_id=name)
            runtime.post(flow, "work", "input", {})
        assert first.wait_until_all_jobs_finished(PATIENCE)
        assert second.wait_until_all_jobs_finished(PATIENCE)
    assert len(set(store.seats)) == 2
    assert len(store.free_seats) == FLIGHT_SEATS


@pytest.mark.parametrize("worker_id", ["w", "w" * 520, "w\0\ud800:1!"])
def test_any_item_fits_into_the_flight_recorder(worker_id: str) -> None:
    place, number = f"{'r' * 200}.input", 2**63 - 1
    prefix = flight_prefix(worker_id, place)
    for alone in (False, True):
        text = flight_text(prefix, number, alone=alone)
        assert len(text.encode()) <= LONGEST
        assert flight_key(worker_id, {prefix: place}, text) == (worker_id, place, number)
    assert flight_key(worker_id, {}, flight_text(prefix, 1, alone=True)) is None
    assert flight_key(worker_id, {prefix: place}, "torn") is None


def test_deaths_that_were_not_counted_are_counted_when_the_worker_is_opened() -> None:
    """The store refuses the count: the worker is not opened, and nothing is forgotten."""

    class Refuses(Recorded):
        refusal: StoreError | None = None

        def write(self, changes: Changes) -> frozenset[int]:
            if self.refusal is not None and any(note.kind == "crash" for note in changes.notes):
                raise self.refusal
            return super().write(changes)

    flow = one_routine("flow")
    store = Refuses()
    with Runtime(store=store) as runtime:
        runtime.pause(runtime.exec(flow, worker_id="w"))
        runtime.post(flow, "work", "input", {})
    number = store.items("w", "work.input")[0].number
    text = flight_text(flight_prefix("w", "work.input"), number, alone=False)
    other = flight_text(flight_prefix("another", "work.input"), number, alone=False)
    gone = flight_text(flight_prefix("w", "work.input"), number + 1, alone=False)
    store.died = [Died(text, other, gone) for _ in range(2)]
    store.refusal = StoreError("busy")
    with Runtime(store=store) as runtime, pytest.raises(StoreError, match="busy"):
        runtime.exec(flow, worker_id="w")
    assert [death.texts for death in store.died] == [[text, other, gone]] * 2
    store.refusal = None
    with Runtime(store=store) as runtime:
        runtime.exec(flow, worker_id="w")
    assert [death.texts for death in store.died] == [[other]] * 2
    assert [value for note, value in store.notes("w") if note.kind == "crash"] == [b"2"]


def test_only_what_ran_alone_counts_and_the_others_are_forgotten_at_once() -> None:
    flow = one_routine("flow")
    store = Recorded()
    with Runtime(store=store) as runtime:
        runtime.pause(runtime.exec(flow, worker_id="w"))
        runtime.post(flow, "work", "input", {})
    number = store.items("w", "work.input")[0].number
    alone = flight_text(flight_prefix("another", "work.input"), 1, alone=True)
    store.died = [Died(flight_text(flight_prefix("w", "work.input"), number, alone=False), alone)]
    with Runtime(store=store) as runtime:
        runtime.exec(flow, worker_id="w")
    assert store.died[0].texts == [alone]
    assert [note for note, _ in store.notes("w") if note.kind == "crash"] == []


def entry_left_in(store: Recorded) -> tuple[Flow, str, int]:
    """An execution whose process died at work: its flow, its worker, and the number of its first item."""
    entered, ends = Event(), Event()

    def stuck(slot_data: Any, message: Any, state: Any) -> None:
        entered.set()
        ends.wait(PATIENCE)

    with Runtime(store=store) as runtime:
        state = runtime.exec(one_routine("night", stuck), entry_params={"rows": 5}, job_id="n1")
        assert entered.wait(PATIENCE)
        runtime.shutdown(wait=False)
        ends.set()
    (row,) = store.items(state.worker_id, "work.input")
    return one_routine("night"), state.worker_id, row.number


def test_an_execution_whose_entry_is_set_aside_fails_and_says_what_to_do() -> None:
    store = Recorded()
    flow, worker_id, number = entry_left_in(store)
    text = flight_text(flight_prefix(worker_id, "work.input"), number, alone=False)
    store.died = [Died(text) for _ in range(3)]
    with Runtime(store=store) as runtime:
        state = runtime.exec(flow, entry_params={"rows": 5}, job_id="n1")
        assert state.wait(PATIENCE)
        assert state.status.value == "failed"
        with pytest.raises(PoisonItemError, match="under another job_id"):
            state.job.result(PATIENCE)
        assert [letter.reason for letter in runtime.dead_letters()] == ["poison"]
    with Runtime(store=store) as runtime:
        assert runtime.get_job("n1").status == "failed"


@pytest.mark.parametrize(("known", "left"), [(1, [1]), (2, [])])
def test_deaths_count_until_a_checkpoint_comes_further(known: int, left: list[int]) -> None:
    """``known`` tells where an attempt before has noted that it was; this one notes 1 again, or comes to 2."""
    died, noted = Event(), Event()
    positions = iter([1, known])

    def logic(slot_data: Any, message: Any, state: Any) -> None:
        current().checkpoint(next(positions))
        noted.set()
        died.wait(PATIENCE)

    flow, store = one_routine("flow", logic), Recorded()
    with Runtime(store=store) as runtime:
        runtime.exec(flow, worker_id="w")
        runtime.post(flow, "work", "input", {})
        assert noted.wait(PATIENCE)
        runtime.shutdown(wait=False)
        died.set()
    (row,) = store.items("w", "work.input")
    store.died = [Died(flight_text(flight_prefix("w", "work.input"), row.number, alone=False))]
    died.clear()
    noted.clear()
    with Runtime(store=store) as runtime:
        runtime.exec(flow, worker_id="w")
        assert noted.wait(PATIENCE)
        crashes = [json.loads(value) for note, value in store.notes("w") if note.kind == "crash"]
        runtime.shutdown(wait=False)
        died.set()
    assert crashes == left
