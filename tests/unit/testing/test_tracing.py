"""A trace keeps what was emitted, on real threads and simulated ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypedDict

import pytest

from routilux import Flow, Routine, Runtime, routine
from routilux.activation_policies import immediate_policy
from routilux.errors import (
    InvalidTypeError,
    InvalidValueError,
    StateError,
    UnknownEventError,
    UnknownRoutineError,
)
from routilux.testing import Emission, SimulatedRuntime, Trace


class Parse(Routine):
    """Emits each number of a line, then what was left over on an event that nothing is connected to."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("line")
        self.add_event("out", ["n"])
        self.add_event("rest")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        words = slot_data["line"][0]["line"].split()
        for word in words:
            if word.isdigit():
                self.emit("out", n=int(word))
        self.emit("rest", words=[word for word in words if not word.isdigit()])


class Count(TypedDict):
    n: int


@routine
def double(value: int) -> dict[str, Any]:
    return {"value": 2 * value}


@routine
async def late(value: int) -> dict[str, Any]:
    await asyncio.sleep(0.001)
    return {"value": value}


def parsing() -> Flow:
    flow = Flow("parsing")
    flow.add_routine(Parse(), "parse")
    flow.add_routine(double(), "double")
    flow.add_routine(late(), "late")
    flow.connect("parse", "out", "double", "input", mapping={"n": "value"})
    flow.connect("parse", "out", "late", "input", mapping={"n": "value"})
    return flow


@pytest.fixture(params=[SimulatedRuntime, Runtime])
def runtime(request: pytest.FixtureRequest) -> Any:
    with request.param() as made:
        yield made


def test_payloads_are_those_that_were_emitted_before_any_mapping(runtime: Runtime) -> None:
    trace = Trace(runtime)
    runtime.exec(parsing(), entry="parse", entry_params={"line": "1 x 2"}).wait()
    assert (trace.emitted("parse.out"), trace.emitted("parse.rest")) == (
        [{"n": 1}, {"n": 2}],
        [{"words": ["x"]}],
    )
    assert trace.emitted("double.output") == [{"value": 2}, {"value": 4}]
    assert sorted(each["value"] for each in trace.emitted("late.output")) == [1, 2]


def test_what_causes_something_comes_before_it(runtime: Runtime) -> None:
    trace = Trace(runtime)
    runtime.exec(parsing(), entry="parse", entry_params={"line": "7"}).wait()
    order = [f"{one.routine_id}.{one.event}" for one in trace]
    assert order.index("parse.out") < min(order.index("double.output"), order.index("late.output"))


def test_a_trace_says_whose_and_when(routilux_sim: SimulatedRuntime) -> None:
    trace, flow = Trace(routilux_sim), parsing()
    routilux_sim.exec(flow, worker_id="w")
    one, two = (routilux_sim.post(flow, "parse", "line", {"line": line}) for line in "12")
    routilux_sim.wait_until_all_jobs_finished()
    for job in (two, two.job_context, two.job_id):
        assert trace.emitted("parse.out", job=job) == [{"n": 2}]
    mine = [each for each in trace.emissions if each.job_ids == (one.job_id,)]
    assert mine[0] == Emission(0.0, "w", (one.job_id,), "parse", "out", {"n": 1})
    assert [each.time for each in mine if each.routine_id == "late"] == [0.001]


def test_a_worker_that_lives_already_is_traced_from_then_on(runtime: Runtime) -> None:
    flow = parsing()
    runtime.exec(flow)
    runtime.post(flow, "parse", "line", {"line": "1"}).job_context.wait()
    trace = Trace(runtime)
    runtime.post(flow, "parse", "line", {"line": "2"}).job_context.wait()
    with trace:
        assert trace.emitted("parse.out") == [{"n": 2}]
    runtime.post(flow, "parse", "line", {"line": "3"}).job_context.wait()
    assert trace.emitted("parse.out") == [{"n": 2}]


def test_two_traces_do_not_touch_each_other(routilux_sim: SimulatedRuntime) -> None:
    flow, first = parsing(), Trace(routilux_sim)
    routilux_sim.exec(flow)
    routilux_sim.post(flow, "parse", "line", {"line": "1"}).job_context.wait()
    second = Trace(routilux_sim)
    first.clear()
    routilux_sim.post(flow, "parse", "line", {"line": "2"}).job_context.wait()
    first.close()
    routilux_sim.post(flow, "parse", "line", {"line": "3"}).job_context.wait()
    assert first.emitted("parse.out") == [{"n": 2}]
    assert second.emitted("parse.out") == [{"n": 2}, {"n": 3}]


def test_what_a_receiver_does_to_a_payload_does_not_show(routilux_sim: SimulatedRuntime) -> None:
    @routine
    def source(n: int) -> dict[str, Any]:
        return {"n": n}

    def spoil(slot_data: Any, policy_message: Any, state: Any) -> None:
        slot_data["input"][0].clear()

    flow = Flow("f")
    flow.add_routine(source(), "source")
    flow.add_routine(double().set_logic(spoil), "spoil")
    flow.connect("source", "output", "spoil", "input")
    trace = Trace(routilux_sim)
    routilux_sim.exec(flow, entry_params={"n": 1}).wait()
    assert trace.emitted("source.output") == [{"n": 1}]


def test_an_emit_that_was_refused_is_not_there(routilux_sim: SimulatedRuntime) -> None:
    class Careful(Routine):
        def __init__(self) -> None:
            super().__init__()
            self.add_slot("input")
            self.add_event("output", type=Count)
            self.set_activation_policy(immediate_policy())

        def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            for data in ({"n": 1}, {"n": "x"}, {"n": 2}):
                try:
                    self.emit("output", **data)
                except InvalidTypeError:
                    state.shared_log.append("refused")

    flow = Flow("f")
    flow.add_routine(Careful(), "careful")
    trace = Trace(routilux_sim)
    state = routilux_sim.exec(flow, entry_params={})
    state.wait()
    assert (trace.emitted("careful.output"), list(state.shared_log)) == ([{"n": 1}, {"n": 2}], ["refused"])


def test_a_trace_can_be_printed(routilux_sim: SimulatedRuntime) -> None:
    trace = Trace(routilux_sim)
    routilux_sim.exec(parsing(), entry="parse", entry_params={"line": "x"}).wait()
    assert (str(trace), repr(trace)) == ("0.000 parse.rest {'words': ['x']}", "<Trace of 1 emissions>")


Asking = Callable[[Trace], object]
WRONG: list[tuple[Asking, type[Exception], str]] = [
    (lambda trace: trace.emitted("prase.out"), UnknownRoutineError, "no routine 'prase' .*'parse'"),
    (
        lambda trace: trace.emitted("parse.outt"),
        UnknownEventError,
        "no event 'outt' of routine 'parse'; .*'out'",
    ),
    (lambda trace: trace.emitted("parse.line"), UnknownEventError, "no event 'line' of routine 'parse'"),
    (lambda trace: trace.emitted("parse"), InvalidValueError, "expected 'routine.event', got 'parse'"),
    (lambda trace: trace.emitted(5), InvalidValueError, "expected 'routine.event', got 5"),  # type: ignore[arg-type]
    (lambda trace: trace.emitted("parse.out", job=5), InvalidTypeError, "expected a job, or its id"),  # type: ignore[arg-type]
    (lambda trace: Trace(parsing()), InvalidTypeError, "expected a Runtime or SimulatedRuntime"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("ask", "error", "message"), WRONG)
def test_what_does_not_exist_is_refused_and_not_just_empty(
    routilux_sim: SimulatedRuntime, ask: Asking, error: type[Exception], message: str
) -> None:
    trace = Trace(routilux_sim)
    routilux_sim.exec(parsing())
    with pytest.raises(error, match=message):
        ask(trace)


def test_a_trace_of_nothing_says_so(routilux_sim: SimulatedRuntime) -> None:
    with pytest.raises(StateError, match="no worker has been started since this trace began"):
        Trace(routilux_sim).emitted("parse.out")
