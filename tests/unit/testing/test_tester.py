"""One routine alone: what it is called with, and everything that comes of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from routilux import ErrorHandler, ErrorStrategy, Flow, Routine, SlotHandlerError, current, routine
from routilux.activation_policies import all_slots_ready_policy, batch_size_policy, immediate_policy
from routilux.errors import (
    FlowValidationError,
    InvalidTypeError,
    MissingPolicyError,
    StateError,
    UnknownEventError,
    UnknownSlotError,
)
from routilux.testing import RoutineTester


@routine
def parse(line: str) -> Any:
    for word in line.split(";"):
        yield {"n": int(word)}


class Totals(Routine):
    """The early style: handlers, one of which merges."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("add", handler=self.on_add)
        self.add_slot("names", handler=self.on_names, merge_strategy="append")
        self.add_event("total")

    def on_add(self, n: int) -> None:
        state = current().state
        total = (state.get_routine_state("totals") or {"total": 0})["total"] + n
        state.update_routine_state("totals", {"total": total})
        self.emit("total", total=total)

    def on_names(self, name: list[str]) -> None:
        self.send_output("names", names=list(name))


class Join(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("left")
        self.add_slot("right")
        self.add_event("pair")
        self.set_activation_policy(all_slots_ready_policy())

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        self.emit("pair", left=slot_data["left"][0]["n"], right=slot_data["right"][0]["n"])


class Ask(Routine):
    """Fails twice, an hour apart."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.add_event("answer")
        self.set_activation_policy(immediate_policy())
        self.set_error_handler(
            ErrorHandler(ErrorStrategy.RETRY, max_retries=2, retry_delay=3600, retry_backoff=1)
        )

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        if current().attempt < 3:
            raise ConnectionError("not now")
        self.emit("answer", attempt=current().attempt)


def test_a_call_gives_what_was_emitted() -> None:
    with RoutineTester(parse) as tester:
        assert tester.call("input", {"line": "1;2"}) == [("output", {"n": 1}), ("output", {"n": 2})]
        assert tester.call("input", {"line": "3"}) == [("output", {"n": 3})]
        assert tester.emitted("output") == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_handlers_states_and_outputs() -> None:
    with RoutineTester(Totals, routine_id="totals") as tester:
        assert [tester.call("add", {"n": n}) for n in (2, 3)] == [
            [("total", {"total": 2})],
            [("total", {"total": 5})],
        ]
        tester.call("names", {"name": "a"})
        tester.call("names", {"name": "b"})
        assert (tester.routine_state, tester.outputs) == (
            {"total": 5},
            [("names", {"names": ["a"]}), ("names", {"names": ["a", "b"]})],
        )


def test_a_state_can_be_there_before_the_first_call() -> None:
    with RoutineTester(Totals, routine_id="totals") as tester:
        tester.state.update_routine_state("totals", {"total": 10})
        assert tester.call("add", {"n": 1}) == [("total", {"total": 11})]


def test_several_slots_wait_for_each_other() -> None:
    with RoutineTester(Join) as tester:
        assert tester.call("left", {"n": 1}) == []
        assert tester.jobs[0].parked == 1
        assert tester.call("right", {"n": 2}) == [("pair", {"left": 1, "right": 2})]


def test_partial_batches_are_released_by_a_drain() -> None:
    @routine(policy=batch_size_policy(2))
    def each(n: int) -> dict[str, int]:
        return {"n": n}

    with RoutineTester(each) as tester:
        for n in range(3):
            tester.post("input", {"n": n})
        assert tester.emitted("output") == []
        tester.run()
        assert tester.emitted("output") == [{"n": 0}, {"n": 1}]
        assert tester.drain() == [("output", {"n": 2})]


def test_asynchronous_logic_takes_virtual_time() -> None:
    @routine
    async def late(n: int) -> dict[str, int]:
        await asyncio.sleep(3600)
        return {"n": n}

    with RoutineTester(late) as tester:
        tester.post("input", {"n": 1})
        tester.run(3599)
        assert (tester.emitted("output"), tester.now) == ([], 3599.0)
        tester.run(1)
        assert (tester.emitted("output"), tester.now) == ([{"n": 1}], 3600.0)


def test_retries_take_no_time() -> None:
    with RoutineTester(Ask) as tester:
        assert tester.call("input", {}) == [("answer", {"attempt": 3})]
        assert (tester.now, tester.errors) == (7200.0, [])


def test_a_failure_is_raised_by_a_call_and_listed_after_a_post() -> None:
    with RoutineTester(parse) as tester:
        with pytest.raises(SlotHandlerError) as failed:
            tester.call("input", {"line": "1;x"})
        assert isinstance(failed.value.__cause__, ValueError)
        assert tester.emitted("output") == [{"n": 1}]
        job = tester.post("input", {"line": "y"})
        tester.run()
        assert (job.status, [type(error.__cause__) for error in tester.errors]) == (
            "failed",
            [ValueError] * 2,
        )


def test_what_a_routine_goes_on_after_is_listed() -> None:
    @routine(error_handler=ErrorHandler("continue"))
    def careless(n: int) -> dict[str, int]:
        return {"n": 1 // n}

    with RoutineTester(careless) as tester:
        assert tester.call("input", {"n": 0}) == []
        assert [type(error.__cause__) for error in tester.errors] == [ZeroDivisionError]
        assert [letter.data for letter in tester.runtime.dead_letters()] == [{"n": 0}]


def test_a_config_a_registered_name_and_an_object() -> None:
    with RoutineTester("filter", {"when": "n > 1"}) as tester:
        assert [tester.call("input", {"n": n}) for n in (1, 2)] == [
            [("rejected", {"n": 1})],
            [("output", {"n": 2})],
        ]
    made = Join()
    with RoutineTester(made) as tester:
        assert tester.routine is made
    assert Flow("f").add_routine(made, "it") == "it"  # it is free again
    assert tester.emitted("pair") == []


def test_the_seed_is_named_in_a_failure() -> None:
    with pytest.raises(AssertionError) as failed, RoutineTester(parse, seed=7) as tester:
        assert tester.call("input", {"line": "1"}) == []
    assert failed.value.__notes__ == ["simulated with seed 7"]


def test_what_is_not_there_is_named() -> None:
    with RoutineTester(parse) as tester:
        with pytest.raises(UnknownSlotError, match="no slot 'inptu'"):
            tester.call("inptu", {"line": "1"})
        with pytest.raises(InvalidTypeError, match="data is a mapping of names to values"):
            tester.call("input", "1")  # type: ignore[arg-type]
        with pytest.raises(UnknownEventError, match="no event 'out' of routine 'parse'"):
            tester.emitted("out")
        assert tester.jobs == []
    with pytest.raises(StateError):
        tester.call("input", {"line": "1"})
    with pytest.raises(FlowValidationError, match="expected a routine, a class of routines or a factory"):
        RoutineTester(5)  # type: ignore[arg-type]
    with pytest.raises(FlowValidationError, match="no routine type 'flter'"):
        RoutineTester("flter")
    with pytest.raises(MissingPolicyError):
        RoutineTester(type("Lazy", (Routine,), {"logic": lambda self, slot_data, message, state: None}))
