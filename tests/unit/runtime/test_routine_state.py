"""What a routine remembers is its own: one mapping in each worker, in memory and with a store."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import pytest

from routilux import ErrorHandler, Flow, Routine, Runtime, WorkerState, current, routine
from routilux.activation_policies import immediate_policy
from routilux.errors import (
    InvalidTypeError,
    InvalidValueError,
    NotInActivationError,
    SerializationError,
    UnknownFlowError,
    UnknownRoutineError,
    UnknownWorkerError,
)
from routilux.store.memory import MemoryStore
from routilux.testing import SimulatedRuntime
from routilux.testing.tester import RoutineTester
from tests.waiting import SECONDS

Logic = Callable[[Routine, dict[str, Any]], Any]
PLACES = ("memory", "memory store", "sqlite")
UPDATES = 200


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Options of a runtime."""
    return options(request.param, tmp_path)


@pytest.fixture(params=PLACES[1:])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    return options(request.param, tmp_path)


def options(name: str, path: Path) -> dict[str, Any]:
    if name == "memory":
        return {}
    return {"store": MemoryStore() if name == "memory store" else f"sqlite:///{path / 'state.db'}"}


def remembering(logic: Logic, *, concurrency: int = 1, errors: ErrorHandler | None = None) -> Routine:
    """With slot ``input``, event ``output`` and ``logic(routine, payload)``, plain or async."""

    class Remembering(Routine):
        pass

    made = Remembering()
    made.add_slot("input")
    made.add_event("output")
    made.set_activation_policy(immediate_policy()).set_concurrency(concurrency).set_error_handler(errors)

    async def call_async(slot_data: Any, message: Any, state: Any) -> None:
        await logic(made, slot_data["input"][0])

    def call(slot_data: Any, message: Any, state: Any) -> None:
        logic(made, slot_data["input"][0])

    return made.set_logic(call_async if asyncio.iscoroutinefunction(logic) else call)


def run(
    made: Routine, place: dict[str, Any], payloads: list[dict[str, Any]], id_: str = "mine"
) -> WorkerState:
    """Give a routine these payloads, in this order, and wait until all has ended."""
    flow = Flow("remembers")
    flow.add_routine(made, id_)
    with Runtime(thread_pool_size=8, **place) as runtime:
        worker = runtime.exec(flow)
        for payload in payloads:
            runtime.post(flow, id_, "input", payload)
        assert runtime.wait_until_all_jobs_finished(timeout=60)
        state = worker.routine_states.get(id_, {})
        failures = [job.error for job in runtime.list_jobs() if job.error is not None]
        if failures:
            raise failures[0]
    worker.found = state  # type: ignore[attr-defined]
    return worker


def found(made: Routine, place: dict[str, Any], *payloads: dict[str, Any]) -> dict[str, Any]:
    state: dict[str, Any] = run(made, place, list(payloads)).found  # type: ignore[attr-defined]
    return state


# -- one routine, one state ----------------------------------------------------------------------------------


def test_a_state_is_read_assigned_updated_and_deleted_like_a_dict(place: dict[str, Any]) -> None:
    seen: list[Any] = []

    def logic(routine: Routine, payload: dict[str, Any]) -> None:
        own = routine.state
        own["a"] = 1
        own.update(b=2, c=[3])
        del own["a"]
        seen.append((dict(own), len(own), "a" in own, "b" in own, own.get("a", 0), own.pop("b")))
        with pytest.raises(KeyError):
            own["a"]
        with pytest.raises(KeyError):
            del own["a"]

    assert found(remembering(logic), place, {}) == {"c": [3]}
    assert seen == [({"b": 2, "c": [3]}, 2, False, True, 0, 2)]


def test_two_routines_of_a_class_have_a_state_each_whatever_they_are_called(place: dict[str, Any]) -> None:
    @routine
    def both(n: int) -> dict[str, int]:
        return {"n": n}

    def count(routine: Routine, payload: dict[str, Any]) -> None:
        routine.state.add("seen", payload["n"])

    flow = Flow("two")
    flow.add_routine(both(), "both")
    for side in ("left", "right"):
        flow.add_routine(remembering(count), side)
        flow.connect("both", "output", side, "input")
    with Runtime(**place) as runtime:
        worker = runtime.exec(flow)
        for n in (1, 2):
            runtime.post(flow, "both", "input", {"n": n})
        assert runtime.wait_until_all_jobs_finished(timeout=60)
        assert worker.routine_states == {"left": {"seen": 3}, "right": {"seen": 3}}


def test_a_function_has_its_state_by_the_context(place: dict[str, Any]) -> None:
    @routine
    def count(n: int) -> None:
        current().routine_state.add("seen", n)

    assert found(count(), place, {"n": 1}, {"n": 2}) == {"seen": 3}


def test_threads_that_logic_starts_with_its_context_have_the_state(place: dict[str, Any]) -> None:
    def logic(routine: Routine, payload: dict[str, Any]) -> None:
        with ThreadPoolExecutor(4) as pool:
            for future in [
                pool.submit(contextvars.copy_context().run, routine.state.add, "n") for _ in range(100)
            ]:
                future.result()

    assert found(remembering(logic), place, {}) == {"n": 100}


def test_tasks_that_logic_starts_have_the_state(place: dict[str, Any]) -> None:
    async def logic(routine: Routine, payload: dict[str, Any]) -> None:
        async def one() -> None:
            await asyncio.sleep(0)
            routine.state.add("n")

        await asyncio.gather(*(one() for _ in range(10)))

    assert found(remembering(logic), place, {}) == {"n": 10}


# -- where there is none -------------------------------------------------------------------------------------


def test_outside_of_an_activation_there_is_no_state_and_the_error_says_where_to_read_it() -> None:
    made = remembering(lambda routine, payload: None)
    with pytest.raises(
        NotInActivationError, match=r"state of .*get_routine_state\(routine_id\) from outside"
    ):
        _ = made.state
    with pytest.raises(NotInActivationError):
        _ = current().routine_state


def test_the_state_of_another_routine_is_refused_and_the_error_names_the_one_that_runs() -> None:
    other = remembering(lambda routine, payload: None)

    def logic(routine: Routine, payload: dict[str, Any]) -> None:
        with pytest.raises(NotInActivationError, match="routine 'mine'"):
            _ = other.state

    found(remembering(logic), {}, {})


def test_a_thread_that_is_left_behind_has_no_state_any_more(place: dict[str, Any]) -> None:
    ended, refused = Event(), []

    def logic(routine: Routine, payload: dict[str, Any]) -> None:
        def late() -> None:
            ended.wait(30)
            with pytest.raises(NotInActivationError) as raised:
                routine.state["late"] = True
            refused.append(raised)

        pool.submit(contextvars.copy_context().run, late)

    with ThreadPoolExecutor(1) as pool:
        assert found(remembering(logic), place, {}) == {}
        ended.set()
    assert len(refused) == 1


def test_an_attribute_named_state_is_refused_with_the_fix() -> None:
    class Own(Routine):
        def __init__(self) -> None:
            super().__init__()
            self.state = {}  # type: ignore[misc,assignment]

    with pytest.raises(InvalidValueError, match=r"self\.state\['key'\] = value"):
        Own()


# -- add and change ------------------------------------------------------------------------------------------


def test_add_begins_at_zero_and_takes_numbers_only(place: dict[str, Any]) -> None:
    def logic(routine: Routine, payload: dict[str, Any]) -> None:
        own = routine.state
        own["name"] = "x"
        own.add("n")
        own.add("n", 2.5)
        assert own["n"] == 3.5
        own.add("n", -1)
        assert own["n"] == 2.5
        for key, n in (("name", 1), ("m", "1"), ("m", True)):
            with pytest.raises(InvalidTypeError, match=r"an int or a float.*change\(\)"):
                own.add(key, n)  # type: ignore[arg-type]

    assert found(remembering(logic), place, {}) == {"name": "x", "n": 2.5}


def test_change_returns_what_it_put_there(place: dict[str, Any]) -> None:
    def logic(routine: Routine, payload: dict[str, Any]) -> None:
        assert routine.state.change("seen", lambda seen: [*seen, payload["n"]], []) == [payload["n"]]
        assert routine.state.change("best", lambda best: best or payload["n"]) == payload["n"]

    assert found(remembering(logic), place, {"n": 1}) == {"seen": [1], "best": 1}


def test_change_refuses_a_function_that_returns_none_for_what_it_changed_in_place(
    place: dict[str, Any],
) -> None:
    seen: list[Any] = []

    def logic(made: Routine, payload: dict[str, Any]) -> None:
        made.state["rows"] = [1]
        with pytest.raises(InvalidTypeError, match="return the new value"):
            made.state.change("rows", lambda rows: rows.append(2), [])
        with pytest.raises(InvalidTypeError, match="return the new value"):
            made.state.change("new", lambda rows: rows.append(2), [])
        seen.append((made.state.change("none", lambda value: None), "new" in made.state))

    flow = Flow("f")
    flow.add_routine(remembering(logic), "r")
    with Runtime(**place) as runtime:
        runtime.exec(flow)
        runtime.post(flow, "r", "input", {}).job_context.result(30)
    assert seen == [(None, False)]


@pytest.mark.parametrize("how", ["add", "change"])
@pytest.mark.parametrize("kind", ["plain", "async"])
def test_no_update_by_add_or_change_is_lost(place: dict[str, Any], how: str, kind: str) -> None:
    def logic(routine: Routine, payload: dict[str, Any]) -> None:
        if how == "add":
            routine.state.add("n")
        else:
            routine.state.change("n", lambda n: n + 1, 0)

    async def async_logic(routine: Routine, payload: dict[str, Any]) -> None:
        logic(routine, payload)
        await asyncio.sleep(0)

    made = remembering(async_logic if kind == "async" else logic, concurrency=8)
    assert found(made, place, *({} for _ in range(UPDATES))) == {"n": UPDATES}


def test_activations_that_add_at_the_same_time_run_once(stored: dict[str, Any]) -> None:
    both, runs = Barrier(2, timeout=30), []

    def logic(routine: Routine, payload: dict[str, Any]) -> None:
        runs.append(payload)
        routine.state.add("n")
        both.wait()

    assert found(remembering(logic, concurrency=2), stored, {}, {}) == {"n": 2}
    assert len(runs) == 2


# -- with a store: buffered, copied, run again -----------------------------------------------------------------


def plainly(routine: Routine, state: Any) -> None:
    routine.state["n"] = routine.state.get("n", 0) + 1


def by_the_worker(routine: Routine, state: Any) -> None:
    state.update_routine_state("mine", {"n": state.get_routine_state("mine", {}).get("n", 0) + 1})


def in_shared_data(routine: Routine, state: Any) -> None:
    state.shared_data["n"] = state.shared_data.get("n", 0) + 1


def in_place(routine: Routine, state: Any) -> None:
    routine.state.setdefault("seen", []).append(1)
    routine.state["n"] = len(routine.state["seen"])


@pytest.mark.parametrize("update", [plainly, by_the_worker, in_shared_data, in_place])
@pytest.mark.parametrize("kind", ["plain", "async"])
def test_no_plain_update_is_lost_with_a_store(stored: dict[str, Any], update: Any, kind: str) -> None:
    def logic(routine: Routine, payload: dict[str, Any]) -> None:
        update(routine, current().state)

    async def async_logic(routine: Routine, payload: dict[str, Any]) -> None:
        before = asyncio.sleep(0)
        logic(routine, payload)
        await before

    made = remembering(async_logic if kind == "async" else logic, concurrency=8)
    worker = run(made, stored, [{} for _ in range(UPDATES)])
    n = dict(worker.shared_data).get("n") or worker.found["n"]  # type: ignore[attr-defined]
    assert n == UPDATES


def test_an_activation_whose_state_changed_meanwhile_runs_again_as_the_same_attempt(
    stored: dict[str, Any],
) -> None:
    both, runs = Barrier(2, timeout=30), []

    def logic(routine: Routine, payload: dict[str, Any]) -> None:
        context = current()
        n = routine.state.get("n", 0)
        drawn = context.once("drawn", lambda: len(runs))
        runs.append((payload["who"], context.attempt, context.idempotency_key(), drawn))
        if len(runs) <= 2:
            both.wait()
        routine.state["n"] = n + 1
        routine.emit("output", n=n + 1)
        context.state.shared_log.append(n + 1)

    worker = run(remembering(logic, concurrency=2), stored, [{"who": 1}, {"who": 2}])
    assert worker.found == {"n": 2}  # type: ignore[attr-defined]
    assert len(runs) == 3
    assert len(set(runs)) == 2  # the one that lost has the same attempt, key and result
    assert list(worker.shared_log) == [1, 2]
    assert sorted(record.status for record in worker.execution_history) == ["completed", "completed"]


def test_an_activation_that_only_reads_or_only_assigns_runs_once(stored: dict[str, Any]) -> None:
    both, runs = Barrier(3, timeout=30), []

    def logic(routine: Routine, payload: dict[str, Any]) -> None:
        runs.append(payload)
        if payload["how"] == "reads":
            routine.state.get("n")
        else:
            routine.state["n"] = payload["how"]
        both.wait()

    run(remembering(logic, concurrency=3), stored, [{"how": how} for how in ("reads", "a", "b")])
    assert len(runs) == 3


def test_a_failed_attempt_leaves_nothing_with_a_store_and_its_changes_in_memory(
    place: dict[str, Any],
) -> None:
    def logic(routine: Routine, payload: dict[str, Any]) -> None:
        routine.state.add("attempts")
        routine.state.setdefault("seen", []).append(current().attempt)
        if current().attempt == 1:
            raise ValueError("at first")

    errors = ErrorHandler("retry", retry_delay=0.0)
    wanted = {"attempts": 1, "seen": [2]} if place else {"attempts": 2, "seen": [1, 2]}
    assert found(remembering(logic, errors=errors), place, {}) == wanted


def test_values_are_copied_where_they_come_in_and_go_out_of_a_store(stored: dict[str, Any]) -> None:
    def logic(routine: Routine, payload: dict[str, Any]) -> None:
        mine = {"a": [1]}
        routine.state["kept"] = mine
        mine["a"].append(2)  # the caller's own
        routine.state["kept"]["a"].append(3)
        given = current().state.get_routine_state("mine")
        given["kept"]["a"].append(4)  # a copy
        taken = routine.state.change("changed", lambda old: old, mine)
        taken["a"].append(5)

    state = found(remembering(logic), stored, {})
    assert state == {"kept": {"a": [1, 3]}, "changed": {"a": [1, 2]}}


def test_what_is_changed_in_place_needs_a_json_form_and_fails_the_activation(stored: dict[str, Any]) -> None:
    def logic(routine: Routine, payload: dict[str, Any]) -> None:
        routine.state.setdefault("seen", []).append(object())

    with pytest.raises(Exception) as raised:  # noqa: PT011 the cause is looked at
        found(remembering(logic), stored, {})
    assert isinstance(raised.value.__cause__ or raised.value, SerializationError)
    assert "state of routine 'mine'['seen']" in str(raised.value)


def test_a_checkpoint_keeps_the_state_and_what_comes_behind_it_rests_on_what_was_read_before() -> None:
    runs: list[tuple[str, Any]] = []

    async def logic(routine: Routine, payload: dict[str, Any]) -> None:
        context = current()
        runs.append((payload["who"], context.checkpointed))
        if payload["who"] == "fast":
            await asyncio.sleep(2)
            routine.state.add("n", 10)
            return
        n = context.checkpointed
        if n is None:
            n = routine.state.get("n", 0)
            routine.state["begun"] = True
            await context.acheckpoint(n)
        await asyncio.sleep(5)
        routine.state["n"] = routine.state.get("n", 0) + 1

    flow = Flow("checks")
    flow.add_routine(remembering(logic, concurrency=2), "mine")
    with SimulatedRuntime(store=MemoryStore()) as runtime:
        worker = runtime.exec(flow)
        for who in ("slow", "fast"):
            runtime.post(flow, "mine", "input", {"who": who})
        runtime.run()
        assert worker.get_routine_state("mine") == {"begun": True, "n": 11}
    assert sorted(runs, key=str) == [("fast", None), ("slow", 0), ("slow", None)]


# -- mistakes that debug mode shows ----------------------------------------------------------------------------


def test_a_name_that_a_state_does_not_have_is_refused_with_the_nearest(place: dict[str, Any]) -> None:
    def logic(routine: Routine, payload: dict[str, Any]) -> None:
        routine.state["n"] = 1
        assert routine.state.copy() == {"n": 1}
        assert not hasattr(routine.state, "__array__")
        routine.state.ad("n")  # type: ignore[attr-defined]

    flow = Flow("one")
    flow.add_routine(remembering(logic), "count")
    with Runtime(**place) as runtime:
        runtime.exec(flow)
        job = runtime.post(flow, "count", "input", {}).job_context
        assert job.wait(SECONDS)
    for fragment in (
        "no attribute 'ad' of the state of routine 'count'",
        "are 'add', ",
        "in brackets: ['ad']",
    ):
        assert fragment in str(job.error)


@pytest.mark.parametrize("update", [plainly, by_the_worker])
def test_debug_mode_warns_of_an_update_that_could_be_lost(update: Any) -> None:
    made = remembering(lambda routine, payload: update(routine, current().state), concurrency=2)
    lost = r"reads 'n' of its state and then assigns it.*self\.state\.add\('n'\)"
    with (
        RoutineTester(made, routine_id="mine") as tester,
        pytest.warns(RuntimeWarning, match=lost),
    ):
        tester.call("input", {})


def test_debug_mode_warns_of_a_change_to_the_state_of_another_routine() -> None:
    made = remembering(lambda routine, payload: current().state.update_routine_state("count", {"n": 1}))
    foreign = r"'left' changes the state of routine 'count'.*self\.state"
    flow = Flow("two")
    flow.add_routine(made, "left")
    flow.add_routine(remembering(lambda routine, payload: None), "count")
    with SimulatedRuntime(debug=True) as runtime:
        runtime.exec(flow)
        job = runtime.post(flow, "left", "input", {}).job_context
        with pytest.warns(RuntimeWarning, match=foreign):
            job.wait(SECONDS)


def test_debug_mode_is_quiet_about_right_updates() -> None:
    def logic(routine: Routine, payload: dict[str, Any]) -> None:
        routine.state.add("n")
        routine.state.change("m", lambda m: m + 1, 0)
        routine.state["last"] = payload

    with RoutineTester(remembering(logic, concurrency=2)) as tester:
        tester.call("input", {})
        tester.call("input", {})
        assert tester.routine_state == {"n": 2, "m": 2, "last": {}}


def test_a_mapping_can_be_merged_into_it(place: dict[str, Any]) -> None:
    def merges(routine: Routine, payload: dict[str, Any]) -> None:
        routine.state |= {"a": payload["n"], "b": 2}  # type: ignore[misc]
        state = current().routine_state
        state |= [("c", 3)]

    flow = Flow("f")
    flow.add_routine(remembering(merges), "mine")
    with Runtime(**place, debug=True) as runtime:
        worker = runtime.exec(flow)
        runtime.post(flow, "mine", "input", {"n": 1}).job_context.result(SECONDS)
        assert worker.get_routine_state("mine") == {"a": 1, "b": 2, "c": 3}


def test_the_state_of_a_routine_that_the_flow_does_not_have_is_refused(place: dict[str, Any]) -> None:
    flow = Flow("f")
    flow.add_routine(remembering(lambda routine, payload: None), "mine")
    with Runtime(**place) as runtime:
        worker = runtime.exec(flow)
        for change in (worker.update_routine_state, worker.set_routine_state):
            with pytest.raises(
                UnknownRoutineError,
                match="no routine 'mime' in flow 'f'; there is only 'mine'; logic has its own state",
            ):
                change("mime", {"n": 1})
        assert worker.routine_states == {}


def test_names_of_flows_and_workers_that_nothing_has_are_refused() -> None:
    flow = Flow("etl")
    flow.add_routine(remembering(lambda routine, payload: None), "mine")
    with Runtime() as runtime:
        worker = runtime.exec(flow, worker_id="w")
        assert runtime.list_jobs(flow="etl") == runtime.list_jobs(worker="w") == []
        with pytest.raises(UnknownFlowError, match=r"no flow 'elt' .*'etl'"):
            runtime.list_jobs(flow="elt")
        with pytest.raises(UnknownWorkerError, match="no worker 'x' in this runtime; there is only 'w'"):
            runtime.list_jobs(worker="x")
        assert runtime.list_jobs(flow=Flow("other")) == []
        runtime.stop(worker)
        assert runtime.list_jobs(flow="etl", worker="w", status="failed") == []
    with Runtime(store=MemoryStore()) as runtime:
        assert runtime.list_jobs(flow="elt") == runtime.list_jobs(worker="x") == []
