"""A name that nothing has is told with the nearest names, by every call that takes one; a typo never reads as none.

The table has a line for each public method with such a parameter: a method without a line fails. What answers "none"
all the same has to say why.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from routilux import (
    Flow,
    FlowBuilder,
    FlowRegistry,
    JobContext,
    JobState,
    Routine,
    Runtime,
    WorkerState,
    routine,
)
from routilux.dsl.registry import RoutineRegistry
from routilux.errors import ConfigurationError, UnknownJobError, UnknownRoutineError
from routilux.runtime.context import ActivationContext
from routilux.store.memory import MemoryStore
from routilux.testing import RoutineTester, SimulatedRuntime, Trace

NAMES = {
    "entry", "event", "event_name", "flow", "job", "job_id", "key", "name", "output_type", "routine", "routine_id",
    "slot", "slot_name", "source", "target", "worker", "worker_id",
}  # fmt: skip
PUBLIC = (
    Runtime, SimulatedRuntime, WorkerState, JobState, JobContext, ActivationContext, Flow, FlowBuilder, FlowRegistry,
    RoutineRegistry, Routine, Trace, RoutineTester,
)  # fmt: skip


@routine
def double(n: int) -> dict[str, int]:
    return {"n": 2 * n}


class World(NamedTuple):
    """A flow with a routine "double", a worker "w" of it, and a job "j" that has ended."""

    runtime: Runtime
    flow: Flow
    worker: WorkerState
    trace: Trace
    tester: RoutineTester
    registry: RoutineRegistry
    flows: FlowRegistry
    builder: FlowBuilder


@pytest.fixture
def world() -> Iterator[World]:
    flow, free = Flow("doubles"), Flow("other")
    flow.add_routine(double(), "double")
    free.add_routine(double(), "double")
    registry, flows = RoutineRegistry(plugins=False), FlowRegistry()
    flows.register(free)
    registry.register(double, "double")
    with Runtime(registry=flows) as runtime, RoutineTester(double()) as tester:
        trace = Trace(runtime)
        worker = runtime.exec(flow, worker_id="w")
        runtime.post(flow, "double", "input", {"n": 1}, job_id="j").job_context.result()
        yield World(runtime, flow, worker, trace, tester, registry, flows, FlowBuilder("built").add(double()))


Call = Callable[[World], Any]


def free(world: World) -> Flow:
    """A flow that no worker holds."""
    return world.flows.get("other")


REFUSED: dict[str, tuple[str, Call]] = {
    # the call, the name that is near, and how it is made
    "Runtime.post(flow)": ("doubles", lambda w: w.runtime.post("doubels", "double", "input", {"n": 1})),
    "Runtime.post(routine_id)": ("double", lambda w: w.runtime.post(w.flow, "doubel", "input", {"n": 1})),
    "Runtime.post(slot)": ("input", lambda w: w.runtime.post(w.flow, "double", "inptu", {"n": 1})),
    "Runtime.post(worker_id)": (
        "'w'", lambda w: w.runtime.post(w.flow, "double", "input", {"n": 1}, worker_id="W"),
    ),
    "Runtime.exec(flow)": ("other", lambda w: w.runtime.exec("doubels")),
    "Runtime.exec(entry)": ("double", lambda w: w.runtime.exec(w.flow, entry_params={"n": 1}, entry="doubel")),
    "Runtime.pause(target)": ("'w'", lambda w: w.runtime.pause("W")),
    "Runtime.resume(target)": ("'w'", lambda w: w.runtime.resume("W")),
    "Runtime.cancel(target)": ("'w'", lambda w: w.runtime.cancel("W")),
    "Runtime.stop(worker)": ("'w'", lambda w: w.runtime.stop("W")),
    "Runtime.list_jobs(flow)": ("doubles", lambda w: w.runtime.list_jobs(flow="doubels")),
    "Runtime.list_jobs(worker)": ("'w'", lambda w: w.runtime.list_jobs(worker="W")),
    "Runtime.list_workers(flow)": ("doubles", lambda w: w.runtime.list_workers(flow="doubels")),
    "Runtime.dead_letters(worker)": ("'w'", lambda w: w.runtime.dead_letters(worker="W")),
    "Runtime.dead_letters(job)": ("'j'", lambda w: w.runtime.dead_letters(job="J")),
    "Runtime.set_gate(worker)": ("'w'", lambda w: w.runtime.set_gate("W", "double", None)),
    "Runtime.set_gate(routine_id)": ("double", lambda w: w.runtime.set_gate("w", "doubel", None)),
    "Runtime.let_go(worker)": ("'w'", lambda w: w.runtime.let_go("W", "double")),
    "Runtime.let_go(routine_id)": ("double", lambda w: w.runtime.let_go("w", "doubel")),
    "Runtime.set_runner(worker)": ("'w'", lambda w: w.runtime.set_runner("W", "double", None)),
    "Runtime.set_runner(routine_id)": ("double", lambda w: w.runtime.set_runner("w", "doubel", None)),
    "WorkerState.counters(routine_id)": ("double", lambda w: w.worker.counters("doubel")),
    "WorkerState.get_routine_state(routine_id)": ("double", lambda w: w.worker.get_routine_state("doubel", {})),
    "WorkerState.set_routine_state(routine_id)": ("double", lambda w: w.worker.set_routine_state("doubel", {})),
    "WorkerState.update_routine_state(routine_id)": (
        "double", lambda w: w.worker.update_routine_state("doubel", {}),
    ),
    "Flow.connect(source)": ("double", lambda w: free(w).connect("doubel", "output", "double", "input")),
    "Flow.connect(event)": ("output", lambda w: free(w).connect("double", "outptu", "double", "input")),
    "Flow.connect(target)": ("double", lambda w: free(w).connect("double", "output", "doubel", "input")),
    "Flow.connect(slot)": ("input", lambda w: free(w).connect("double", "output", "double", "inptu")),
    "Flow.disconnect(source)": ("double", lambda w: free(w).disconnect("doubel", "output", "double", "input")),
    "Flow.disconnect(event)": ("output", lambda w: free(w).disconnect("double", "outptu", "double", "input")),
    "Flow.disconnect(target)": ("double", lambda w: free(w).disconnect("double", "output", "doubel", "input")),
    "Flow.disconnect(slot)": ("input", lambda w: free(w).disconnect("double", "output", "double", "inptu")),
    "Flow.connections_from(routine_id)": ("double", lambda w: w.flow.connections_from("doubel", "output")),
    "Flow.connections_from(event_name)": ("output", lambda w: w.flow.connections_from("double", "outptu")),
    "Flow.connections_to(routine_id)": ("double", lambda w: w.flow.connections_to("doubel", "input")),
    "Flow.connections_to(slot_name)": ("input", lambda w: w.flow.connections_to("double", "inptu")),
    "Flow.cycle_path(routine_id)": ("double", lambda w: w.flow.cycle_path("doubel")),
    "Flow.describe(routine_id)": ("double", lambda w: free(w).describe("text", "doubel")),
    "Flow.description(routine_id)": ("double", lambda w: w.flow.description("doubel")),
    "Flow.remove_routine(routine_id)": ("double", lambda w: free(w).remove_routine("doubel")),
    "Flow.set_entry(routine_id)": ("double", lambda w: free(w).set_entry("doubel")),
    "Flow.set_entry(slot)": ("input", lambda w: free(w).set_entry("double", "inptu")),
    "FlowBuilder.add(routine)": ("reduce", lambda w: w.builder.add("redcue").build()),
    "FlowBuilder.connect(source)": ("double", lambda w: w.builder.connect("doubel", "double").build()),
    "FlowBuilder.connect(target)": ("double", lambda w: w.builder.connect("double", "doubel").build()),
    "FlowBuilder.disconnect(source)": ("double", lambda w: w.builder.disconnect("doubel", "double")),
    "FlowBuilder.disconnect(target)": ("double", lambda w: w.builder.disconnect("double", "doubel")),
    "FlowBuilder.entry(target)": ("double", lambda w: w.builder.entry("doubel").build()),
    "FlowRegistry.get(name)": ("other", lambda w: w.flows.get("othre")),
    "FlowRegistry.get_by_name(name)": ("other", lambda w: w.flows.get_by_name("othre")),
    "FlowRegistry.unregister(name)": ("other", lambda w: w.flows.unregister("othre")),
    "RoutineRegistry.get(name)": ("double", lambda w: w.registry.get("doubel")),
    "RoutineRegistry.create(name)": ("double", lambda w: w.registry.create("doubel")),
    "RoutineRegistry.unregister(name)": ("double", lambda w: w.registry.unregister("doubel")),
    "RoutineRegistry.policy(name)": ("immediate", lambda w: w.registry.policy("imediate")),
    "RoutineRegistry.unregister_policy(name)": ("immediate", lambda w: w.registry.unregister_policy("imediate")),
    "Routine.event_name(event)": ("output", lambda w: w.flow.routines["double"].event_name("outptu")),
    "Routine.set_queue(slot)": ("input", lambda w: free(w).routines["double"].set_queue("inptu")),
    "Trace.emitted(event)": ("output", lambda w: w.trace.emitted("double.outptu")),
    "Trace.emitted(job)": ("'j'", lambda w: w.trace.emitted("double.output", job="J")),
    "RoutineTester.call(slot)": ("input", lambda w: w.tester.call("inptu", {"n": 1})),
    "RoutineTester.post(slot)": ("input", lambda w: w.tester.post("inptu", {"n": 1})),
    "RoutineTester.emitted(event)": ("output", lambda w: w.tester.emitted("outptu")),
}  # fmt: skip

TWINS = {"apause": "pause", "apost": "post", "astop": "stop"}
"""Coroutines that do what their twin does, by the same code."""

ANSWERED = {
    "Runtime.get_job(job_id)": "None says that there is none, as the type does",
    "Runtime.get_worker(worker_id)": "None says that there is none, as the type does",
    "JobContext.get_data(key)": "the keys are the caller's; a default is what it asks for",
    "Routine.get_config(key)": "the keys are the caller's, unless there is a config_type: test_config",
    "ActivationContext.idempotency_key(name)": "the name is the caller's",
    "RoutineRegistry.name_of(routine)": "a routine, no name",
}

MADE = {  # what makes, or is given, something of that name
    "Runtime.exec(job_id)", "Runtime.exec(worker_id)", "Runtime.post(job_id)",
    "Runtime.execute(flow)", "Runtime.execute(entry)",  # of Flow.execute, with its own
    "JobContext.outlived_by(worker)", "JobContext.set_data(key)", "JobContext.trace_again(entry)",
    "ActivationContext.once(name)", "ActivationContext.aonce(name)",
    "Flow.add_routine(routine)", "Flow.add_routine(routine_id)", "Flow.hold(worker_id)", "Flow.let_go(worker_id)",
    "FlowRegistry.register(flow)", "FlowRegistry.register_by_name(name)", "FlowRegistry.register_by_name(flow)",
    "RoutineRegistry.register(source)", "RoutineRegistry.register(name)", "RoutineRegistry.register_policy(name)",
    "RoutineRegistry.register_prototype(name)", "RoutineRegistry.routine(name)",
    "Routine.add_event(name)", "Routine.add_slot(name)", "Routine.define_event(name)", "Routine.define_slot(name)",
    "Routine.attach(flow)", "Routine.attach(routine_id)", "Routine.send_output(output_type)",
    "Routine.unknown_event(event)", "Routine.unknown_slot(slot)",
    "Routine.emit(event)",  # in logic: test_undeclared_events
    "Trace.watch(worker_id)", "Trace.watch(flow)", "WorkerState.state_of(routine_id)",
}  # fmt: skip


def own_methods(cls: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name, method in inspect.getmembers(cls, inspect.isfunction):
        inherited = any(getattr(base, name, None) is method for base in cls.__mro__[1:])
        if not name.startswith("_") and not inherited:
            yield TWINS.get(name, name), method


def test_every_public_method_that_takes_a_name_has_a_line() -> None:
    found = {
        f"{cls.__name__}.{name}({parameter})"
        for cls in PUBLIC
        for name, method in own_methods(cls)
        for parameter in inspect.signature(method).parameters
        if parameter in NAMES
    }
    lines = [*REFUSED, *ANSWERED, *MADE]
    assert found == set(lines)
    assert len(lines) == len(set(lines))


@pytest.mark.parametrize("call", REFUSED)
def test_an_unknown_name_is_told_with_the_nearest(world: World, call: str) -> None:
    near, make = REFUSED[call]
    with pytest.raises(ConfigurationError) as caught:
        make(world)
    assert near in str(caught.value)


class TestWhatMayHaveBeenForgotten:
    """A question about what was there once has an answer."""

    def test_dead_letters_of_a_job_that_was_forgotten(self, world: World) -> None:
        with Runtime(max_finished_bytes=0) as runtime:
            runtime.exec(world.flow, worker_id="v")
            for job_id in ("first", "second", "third"):
                job = runtime.post(
                    world.flow, "double", "input", {"n": 1}, job_id=job_id, worker_id="v"
                ).job_context
                job.result()
                job.data["big"] = "x" * 1_000
            runtime._engine.book._take_old(float("inf"))  # as when 10,000 others have ended since
            assert runtime.dead_letters(job="first") == []

    def test_dead_letters_of_a_job_that_is_given_as_itself(self, world: World) -> None:
        job = world.runtime.get_job("j")
        assert job is not None
        with Runtime() as other:
            assert other.dead_letters(job=job) == []

    def test_a_store_may_have_forgotten_any_worker_and_job(self) -> None:
        with Runtime(store=MemoryStore()) as runtime:
            assert runtime.dead_letters(job="gone") == runtime.dead_letters(worker="gone") == []
            assert runtime.list_jobs(worker="gone") == runtime.list_jobs(flow="gone") == []

    @pytest.mark.parametrize("stored", [False, True])
    def test_the_state_of_a_routine_that_the_flow_has_no_longer(self, tmp_path: Path, stored: bool) -> None:
        store = MemoryStore() if stored else None
        flow, path = Flow("shrinks"), str(tmp_path / "state")
        for name in ("kept", "removed"):
            flow.add_routine(double(), name)
        with Runtime(store=store) as runtime:
            worker = runtime.exec(flow, worker_id="w")
            worker.update_routine_state("removed", {"n": 1})
            if not stored:
                worker.save(path)
        if not stored:
            loaded = WorkerState.load(path)
            assert loaded.get_routine_state("removed") == {"n": 1}
            assert loaded.get_routine_state("kept", "none") == "none"
            for call in (loaded.get_routine_state, loaded.counters):
                with pytest.raises(UnknownRoutineError, match="removed"):
                    call("remvoed")
            return
        flow.remove_routine("removed")
        with Runtime(store=store) as runtime:
            worker = runtime.exec(flow, worker_id="w", on_flow_change="adopt")
            assert worker.get_routine_state("removed") == {"n": 1}
            with pytest.raises(UnknownRoutineError, match="kept"):
                worker.get_routine_state("kpet")

    def test_a_registered_flow_without_workers(self, world: World) -> None:
        with Runtime(registry=world.flows) as runtime:
            assert runtime.list_workers(flow="other") == runtime.list_workers(flow=world.flow) == []


def test_an_id_that_is_no_text_is_refused_as_well(world: World) -> None:
    with pytest.raises(UnknownJobError):
        world.runtime.dead_letters(job=7)  # type: ignore[arg-type]
    with pytest.raises(UnknownRoutineError, match="double"):
        world.worker.get_routine_state(world.flow.routines["double"])  # type: ignore[arg-type]
