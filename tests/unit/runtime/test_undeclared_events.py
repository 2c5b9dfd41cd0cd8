"""Every way to emit refuses an event that the routine does not have, with the nearest names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any

import pytest

from routilux import ErrorHandler, Flow, Routine
from routilux.activation_policies import immediate_policy
from routilux.errors import FlowValidationError, InvalidTypeError, UnknownEventError
from routilux.model.event import Event
from routilux.store.memory import MemoryStore
from routilux.testing import SimulatedRuntime, Trace


class Base(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.add_event("output")
        self.set_activation_policy(immediate_policy())


class Emits(Base):
    how: Callable[[Routine], Any]

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        self.how(self)


class EmitsLater(Emits):
    async def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        self.how(self)


class EmitsBehindAnother(Emits):
    async def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        self.emit("output", n=1)
        self.emit("output", n=2)  # finds no room: from here on what is emitted goes behind it
        self.how(self)


class HandlerEmits(Routine):
    how: Callable[[Routine], Any]

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input", handler=self.take)
        self.add_event("output")

    def take(self, data: Any) -> None:
        self.how(self)


def foreign() -> Event:
    return Base().events["output"]


def on_a_thread(routine: Routine) -> None:
    raised: list[BaseException] = []

    def emit() -> None:
        try:
            routine.emit("outptu", n=1)
        except BaseException as error:
            raised.append(error)

    from contextvars import copy_context

    thread = Thread(target=copy_context().run, args=(emit,))
    thread.start()
    thread.join()
    raise raised[0]


WAYS: dict[str, Callable[[Routine], Any]] = {
    "by name": lambda r: r.emit("outptu", n=1),
    "without data": lambda r: r.emit("outptu"),
    "by the event of another routine": lambda r: r.emit(foreign(), n=1),
    "by what is no event": lambda r: r.emit(["output"], n=1),  # type: ignore[arg-type]
    "by the name of a slot": lambda r: r.emit("input", n=1),
    "on a thread": on_a_thread,
}


@pytest.fixture(params=["in memory", "with a store", "traced"])
def runtime(request: pytest.FixtureRequest) -> Iterator[SimulatedRuntime]:
    store = MemoryStore() if request.param == "with a store" else None
    with SimulatedRuntime(3, store=store) as runtime:
        if request.param == "traced":
            Trace(runtime)
        yield runtime


def error_of(
    runtime: SimulatedRuntime, kind: type[Emits | HandlerEmits], how: Callable[[Routine], Any]
) -> BaseException | None:
    routine = kind()
    routine.how = how
    flow, sink = Flow("f"), Base()
    sink.set_queue("input", max_queue_length=1).set_logic(lambda *_: None)
    flow.add_routine(routine, "emits")
    flow.add_routine(sink, "sink")
    flow.connect("emits", "output", "sink", "input")
    runtime.exec(flow)
    job = runtime.post(flow, "emits", "input", {}).job_context
    runtime.run()
    assert job.error is not None
    return job.error.__cause__


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [Emits, EmitsLater, EmitsBehindAnother, HandlerEmits])
def test_an_event_that_a_routine_does_not_have(
    runtime: SimulatedRuntime, kind: type[Emits | HandlerEmits], way: str
) -> None:
    error = error_of(runtime, kind, WAYS[way])
    assert isinstance(error, UnknownEventError)
    assert "there is only 'output'" in str(error)


def test_a_type_of_output_is_text(runtime: SimulatedRuntime) -> None:
    error = error_of(runtime, Emits, lambda routine: routine.send_output(5, n=1))  # type: ignore[arg-type]
    assert isinstance(error, InvalidTypeError)
    assert "send_output() of routine 'emits' (Emits): expected a type of output" in str(error)


def test_a_handler_that_emits_needs_the_event_error_before_anything_runs(runtime: SimulatedRuntime) -> None:
    for handler in (ErrorHandler("emit"), ErrorHandler("retry", on_exhausted="emit")):
        flow = Flow("f")
        flow.add_routine(Base().set_logic(lambda *_: None).set_error_handler(handler), "emits")
        with pytest.raises(
            FlowValidationError, match="has no such event; declare it: add_event\\('error'\\)"
        ):
            runtime.exec(flow)
