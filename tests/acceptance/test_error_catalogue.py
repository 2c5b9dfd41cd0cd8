"""What is refused, how it says so, and that a refused call changes nothing.

One row for each mistake: what is done wrong, the error of ours, the built-in error that it also is, and what its
message must say: what was given and where, what was expected, the nearest names, the fix.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from routilux import (
    CallbackOutputHandler,
    ConfigurationError,
    Connection,
    ErrorHandler,
    ExecutionError,
    Flow,
    FlowBuilder,
    FlowRegistry,
    JobState,
    RoutiluxError,
    Routine,
    Runtime,
    SerializationError,
    StateError,
    WorkerState,
    current,
    routine,
)
from routilux.activation_policies import (
    all_slots_ready_policy,
    batch_size_policy,
    custom_policy,
    immediate_policy,
    time_interval_policy,
)
from routilux.errors import (
    DuplicateNameError,
    FlowInUseError,
    FlowValidationError,
    IdempotencyConflictError,
    IncompatibleTypesError,
    InsideActivationError,
    InvalidTypeError,
    InvalidValueError,
    MissingPolicyError,
    NotInActivationError,
    QueueFullError,
    RuntimeClosedError,
    UnknownEventError,
    UnknownFlowError,
    UnknownJobError,
    UnknownRoutineError,
    UnknownSlotError,
    UnknownWorkerError,
    WorkerNotRunningError,
)
from tests.waiting import SECONDS

NOW = 0.01  # a time-out that is meant to pass


@dataclass
class Order:
    number: int


@dataclass
class Person:
    name: str


class Echo(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.add_event("output")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        for payload in slot_data["input"]:
            self.emit("output", **payload)


class Fails(Echo):
    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        raise ZeroDivisionError("as it must")


class Join(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("left", max_queue_length=1)
        self.add_slot("right", max_queue_length=1)
        self.set_activation_policy(all_slots_ready_policy())

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        pass


class Small(Echo):
    """A slot for one item, that refuses the second."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("narrow", max_queue_length=1)
        self.add_slot("strict", max_queue_length=1, on_full="error")
        self.add_slot("typed", type=Order)
        self.add_event("order", type=Order)


class Probe(Echo):
    """Runs what it is given inside an activation."""

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        for payload in slot_data["input"]:
            try:
                payload["call"](self)
            except Exception as error:
                payload["raised"].append(error)


def etl() -> Flow:
    flow = Flow("etl")
    for routine_id in ("read", "parse", "save"):
        flow.add_routine(Echo(), routine_id)
    flow.add_routine(Join(), "join")
    flow.add_routine(Small(), "small")
    flow.connect("read", "output", "parse", "input")
    flow.connect("parse", "output", "save", "input")
    return flow


def single(flow_id: str, routine: Routine) -> Flow:
    flow = Flow(flow_id)
    flow.add_routine(routine, "only")
    return flow


class World:
    """A runtime in which something lives already, so that a refused call could do damage."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry = FlowRegistry()
        self.etl, self.twins, self.draft = etl(), single("twins", Echo()), etl()
        self.failing, self.probe = single("failing", Fails()), single("probe", Probe())
        self.probe.add_routine(Echo(), "neighbour")
        self.registry.register(self.etl).register(self.twins).register_by_name("draft", self.draft)
        self.runtime = Runtime(thread_pool_size=1, registry=self.registry)
        self.worker = self.runtime.exec("etl", worker_id="main")
        self.runtime.exec("twins", worker_id="twin-1")
        self.runtime.exec("twins", worker_id="twin-2")
        self.runtime.exec(self.probe)
        self.worker.set_routine_state("read", {"kept": 1})
        self.job = self.post("read", "input", {"n": 1}, job_id="done").job_context
        assert self.job.wait(SECONDS)

    def post(self, routine_id: str, slot: str, data: Any, **options: Any) -> Any:
        return self.runtime.post("etl", routine_id, slot, data, **options)

    def inside(self, call: Callable[[Routine], object]) -> None:
        """Call this inside an activation of routine "only" of flow "probe", and raise what it raises."""
        raised: list[Exception] = []
        payload = {"call": call, "raised": raised}
        _, job = self.runtime.post(self.probe, "only", "input", payload)
        assert job.wait(SECONDS)
        if raised:
            raise raised[0]

    def picture(self) -> dict[str, Any]:
        """Everything that a refused call must leave as it is."""
        flows = (self.etl, self.twins, self.draft, self.failing, self.probe)
        return {
            "flows": [flow.fingerprint() for flow in flows],
            "routines": [dict(flow.routines) for flow in flows],
            "connections": [flow.connections for flow in flows],
            "config": [dict(routine.config) for flow in flows for routine in flow.routines.values()],
            "registered": self.registry.list_flows(),
            "jobs": [(job.job_id, job.status) for job in self.runtime.list_jobs() if job.flow_id != "probe"],
            "workers": [(worker.worker_id, worker.status) for worker in self.runtime.list_workers()],
            "states": [worker.routine_states for worker in self.runtime.list_workers()],
            "queued": self.etl.routines["small"].stats(self.worker)["queued"],
            "dead letters": self.runtime.dead_letters(),
            "files": sorted((path.name, path.read_bytes()) for path in self.folder.iterdir()),
        }


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.runtime.shutdown(wait=False)


class Row(NamedTuple):
    what: str
    action: Callable[[World], object]
    error: type[RoutiluxError]
    also: type[Exception]
    """The class that somebody catches who does not know ours, or the branch of the tree that it belongs to."""
    says: tuple[str, ...]


def check(row: Row, world: World, before: dict[str, Any]) -> RoutiluxError:
    with pytest.raises(row.error) as caught:
        row.action(world)
    assert type(caught.value) is row.error
    assert isinstance(caught.value, row.also)
    assert isinstance(caught.value, RoutiluxError)
    message = str(caught.value)
    assert [fragment for fragment in row.says if fragment not in message] == [], message
    assert world.picture() == before
    return caught.value


def rows(*table: tuple[Any, ...]) -> Any:
    parsed = [Row(*row[:4], tuple(row[4:])) for row in table]
    return pytest.mark.parametrize("row", parsed, ids=[row.what for row in parsed])


# -- names -------------------------------------------------------------------------------------------------


@rows(
    ("flow to exec", lambda w: w.runtime.exec("elt"), UnknownFlowError, KeyError,
     "no flow 'elt' in the registry", "'etl'", "register"),
    ("flow to post to", lambda w: w.runtime.post("elt", "read", "input", {}), UnknownFlowError, KeyError,
     "no flow 'elt'", "'etl'"),
    ("routine to post to", lambda w: w.post("raed", "input", {}), UnknownRoutineError, KeyError,
     "no routine 'raed' in flow 'etl'", "the nearest of 5 are 'read'"),
    ("slot to post to", lambda w: w.post("read", "imput", {}), UnknownSlotError, KeyError,
     "no slot 'imput' in routine 'read' (Echo)", "'input'"),
    ("slot of several", lambda w: w.post("small", "narow", {}), UnknownSlotError, KeyError,
     "no slot 'narow' in routine 'small'", "the nearest of 4 are 'narrow'"),
    ("routine to connect from", lambda w: w.draft.connect("raed", "output", "save", "input"),
     UnknownRoutineError, KeyError, "no routine 'raed' in flow 'etl' to connect from", "'read'", "add_routine()"),
    ("routine to connect to", lambda w: w.draft.connect("read", "output", "svae", "input"),
     UnknownRoutineError, KeyError, "no routine 'svae' in flow 'etl' to connect to", "'save'", "add_routine()"),
    ("event to connect", lambda w: w.draft.connect("read", "outptu", "save", "input"),
     UnknownEventError, KeyError, "no event 'outptu' in routine 'read' (Echo)", "'output'", "add_event('outptu')"),
    ("slot to connect", lambda w: w.draft.connect("read", "output", "save", "imput"),
     UnknownSlotError, KeyError, "no slot 'imput' in routine 'save' (Echo)", "'input'"),
    ("event to emit", lambda w: w.inside(lambda self: self.emit("outputs")), UnknownEventError, KeyError,
     "no event 'outputs' in routine 'only' (Probe)", "'output'", "add_event('outputs')"),
    ("routine to enter by", lambda w: w.runtime.exec("draft", entry="raed"), UnknownRoutineError, KeyError,
     "no routine 'raed' in flow 'etl'", "'read'"),
    ("slot to enter by", lambda w: w.runtime.exec("draft", entry="read.imput"), UnknownSlotError, KeyError,
     "no slot 'imput' in routine 'read'", "'input'"),
    ("routine of set_entry", lambda w: w.draft.set_entry("raed"), UnknownRoutineError, KeyError,
     "no routine 'raed' in flow 'etl' to enter by", "'read'"),
    ("slot of set_entry", lambda w: w.draft.set_entry("read", "imput"), UnknownSlotError, KeyError,
     "no slot 'imput' in routine 'read'", "'input'"),
    ("routine to remove", lambda w: w.draft.remove_routine("raed"), UnknownRoutineError, KeyError,
     "no routine 'raed' in flow 'etl' to remove", "'read'"),
    ("connection to undo", lambda w: w.draft.disconnect("read", "output", "save", "input"),
     InvalidValueError, ValueError, "no connection 'read.output -> save.input' in flow 'etl'",
     "'read.output -> parse.input'"),
    ("flow to unregister", lambda w: w.registry.unregister("elt"), UnknownFlowError, KeyError,
     "no flow 'elt'", "'etl'"),
    ("worker to post to", lambda w: w.post("read", "input", {}, worker_id="mian"), UnknownWorkerError, KeyError,
     "no worker 'mian' in this runtime", "'main'"),
    ("worker of dead letters", lambda w: w.runtime.dead_letters(worker="mian"), UnknownWorkerError, KeyError,
     "no worker 'mian' in this runtime", "'main'"),
    ("job to cancel", lambda w: w.runtime.cancel("dome"), UnknownJobError, KeyError,
     "no job 'dome'", "no worker of that id", "'done'"),
    ("job to pause", lambda w: w.runtime.pause("dome"), UnknownJobError, KeyError, "no job 'dome'", "'done'"),
    ("job to resume", lambda w: w.runtime.resume("dome"), UnknownJobError, KeyError, "no job 'dome'", "'done'"),
    ("worker to pause", lambda w: w.runtime.pause("mian"), UnknownJobError, KeyError, "'mian'", "'main'"),
    ("worker to stop", lambda w: w.runtime.stop("mian"), UnknownJobError, KeyError, "'mian'", "'main'"),
    ("merge strategy", lambda w: Echo().add_slot("x", merge_strategy="apend"), InvalidValueError, ValueError,
     "no merge strategy 'apend' of slot 'x'", "'append'", "callable"),
    ("on_full", lambda w: Echo().add_slot("x", on_full="drop"), InvalidValueError, ValueError,
     "no on_full 'drop' of slot 'x'", "'drop_new'", "'drop_old'"),
    ("execution strategy", lambda w: Flow("x", execution_strategy="paralel"), InvalidValueError, ValueError,
     "no execution strategy 'paralel'", "'sequential'", "'concurrent'"),
    ("error strategy", lambda w: ErrorHandler("retrie"), InvalidValueError, ValueError,
     "no error strategy 'retrie'", "'retry'"),
    ("renamed key", lambda w: rename_an_unknown_key(), InvalidValueError, ValueError,
     "no output parameter 'vaule' of event 'a.named' to rename", "'value'"),
)  # fmt: skip
def test_unknown_name_is_refused_and_the_nearest_names_are_given(row: Row, world: World) -> None:
    check(row, world, world.picture())


def rename_an_unknown_key() -> Connection:
    source = Echo()
    source.add_event("named", ["value"])
    flow = Flow("mapping")
    flow.add_routine(source, "a")
    flow.add_routine(Echo(), "b")
    source_event = source.events["named"]
    assert source_event.output_params == ("value",)
    return flow.connect("a", "named", "b", "input", mapping={"vaule": "number"})


@pytest.mark.parametrize(
    "name", ["x" * 1_000_000, "\x00", "etl\n", "", None, 5, ("etl",), ["etl"], object(), float("nan")]
)
def test_hostile_name_is_refused_with_a_short_message(name: Any, world: World) -> None:
    for call in (
        lambda: world.runtime.exec(name),
        lambda: world.runtime.post(name, "read", "input", {}),
        lambda: world.post(name, "input", {}),
        lambda: world.post("read", name, {}),
        lambda: world.runtime.cancel(name),
        lambda: world.runtime.pause(name),
        lambda: world.runtime.resume(name),
        lambda: world.runtime.stop(name),
        lambda: world.draft.connect(name, "output", "save", "input"),
        lambda: world.draft.connect("read", name, "save", "input"),
        lambda: world.draft.connect("read", "output", "save", name),
        lambda: world.draft.set_entry(name),
        lambda: world.draft.remove_routine(name),
        lambda: world.registry.unregister(name),
        lambda: world.registry.get(name),
    ):
        before = world.picture()
        with pytest.raises(ConfigurationError) as caught:
            call()
        assert len(str(caught.value)) < 1_000
        assert world.picture() == before


# -- set-up ------------------------------------------------------------------------------------------------


def without_policy() -> Flow:
    flow = etl()
    flow.add_routine(NoPolicy(), "lonely")
    return flow


class NoPolicy(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        pass


class Named(Echo):
    def __init__(self, name: str = "") -> None:
        super().__init__()


class Unborn(Echo):
    def __init__(self) -> None:
        pass


@rows(
    ("ends swapped", lambda w: w.draft.connect("save", "input", "read", "output"), InvalidValueError, ValueError,
     "'input' is a slot of routine 'save'", "swapped", "connect('read', 'output', 'save', 'input')"),
    ("routine id taken", lambda w: w.draft.add_routine(Echo(), "read"), DuplicateNameError, ValueError,
     "flow 'etl' has a routine 'read' already (Echo)", "choose another id"),
    ("slot taken", lambda w: w.draft.routines["read"].add_slot("input"), DuplicateNameError, ValueError,
     "routine 'read' (Echo) has slot 'input' already", "choose another name"),
    ("event taken", lambda w: w.draft.routines["read"].add_event("output"), DuplicateNameError, ValueError,
     "routine 'read' (Echo) has event 'output' already", "choose another name"),
    ("connected twice", lambda w: w.draft.connect("read", "output", "parse", "input"), DuplicateNameError, ValueError,
     "read.output -> parse.input is connected already in flow 'etl'", "disconnect() first"),
    ("flow name taken", lambda w: w.registry.register_by_name("etl", Flow("x")), DuplicateNameError, ValueError,
     "another flow is registered as 'etl' already", "replace=True"),
    ("worker id taken", lambda w: w.runtime.exec("twins", worker_id="main"), DuplicateNameError, ValueError,
     "worker_id 'main' is taken by a live worker of flow 'etl'", "give another id, or stop that worker first"),
    ("worker id taken, one-shot", lambda w: w.runtime.exec("twins", worker_id="main", entry_params={}),
     DuplicateNameError, ValueError, "worker_id 'main' is taken", "stop that worker first"),
    ("routine in two flows", lambda w: Flow("x").add_routine(w.etl.routines["read"]), DuplicateNameError, ValueError,
     "add_routine() of flow 'x'", "belongs to flow 'etl' already", "make another object with Echo()"),
    ("routine twice in a flow", lambda w: w.draft.add_routine(w.draft.routines["read"], "again"),
     DuplicateNameError, ValueError, "belongs to this flow already", "make another object with Echo()"),
    ("no policy", lambda w: w.runtime.exec(without_policy()), MissingPolicyError, ValueError,
     "routine 'lonely' of flow 'etl'", "immediate_policy()", "all_slots_ready_policy()", "batch_size_policy(n)"),
    ("no logic", lambda w: w.runtime.exec(single("x", Routine())), FlowValidationError, ValueError,
     "routine 'only'", "has no logic", "set_logic(fn)"),
    ("logic with two parameters", lambda w: Echo().set_logic(lambda slot_data, state: None),
     InvalidTypeError, TypeError, "logic of routine Echo", "logic(slot_data, policy_message, state)",
     "(slot_data, state)", "three parameters"),
    ("logic that cannot be called", lambda w: Echo().set_logic(5), InvalidTypeError, TypeError,
     "logic of routine Echo", "callable logic(slot_data, policy_message, state)", "5 (int)"),
    ("policy not called", lambda w: Echo().set_activation_policy(immediate_policy), InvalidTypeError, TypeError,
     "activation policy of routine Echo", "call it: immediate_policy()"),
    ("policy not wrapped", lambda w: Echo().set_activation_policy(lambda slots, state: True),
     InvalidTypeError, TypeError, "activation policy of routine Echo", "custom_policy("),
    ("policy of no kind", lambda w: Echo().set_activation_policy("immediate"), InvalidTypeError, TypeError,
     "'immediate' (str)", "routilux.activation_policies"),
    ("class instead of object", lambda w: w.draft.add_routine(Echo), InvalidTypeError, TypeError,
     "add an object: Echo()"),
    ("no routine at all", lambda w: w.draft.add_routine("read"), InvalidTypeError, TypeError,
     "'read' (str)", "subclass of Routine"),
    ("constructor with parameters", lambda w: w.draft.add_routine(Named()), InvalidTypeError, TypeError,
     "Named.__init__ has parameters ['name']", "Named().set_config(name=...)"),
    ("super().__init__() forgotten", lambda w: w.draft.add_routine(Unborn()), InvalidValueError, ValueError,
     "Unborn.__init__ must begin with super().__init__()"),
    ("reserved attribute", lambda w: setattr(Echo(), "emit", None), InvalidValueError, ValueError,
     "Echo.emit cannot be assigned", "'my_emit'"),
    ("dot in a name", lambda w: w.draft.add_routine(Echo(), "a.b"), InvalidValueError, ValueError,
     "name of a routine", "'a.b'", "'a_b'"),
    ("mapping of two keys to one", lambda w: w.draft.connect("read", "output", "save", "input",
     mapping={"a": "x", "b": "x"}), InvalidValueError, ValueError, "read.output", "['a', 'b']", "'x'"),
    ("mapping of no kind", lambda w: w.draft.connect("read", "output", "save", "input", mapping="a"),
     InvalidTypeError, TypeError, "mapping of event 'read.output'", "{source key: target key}"),
    ("types that do not fit", lambda w: connect_person_to_order(), IncompatibleTypesError, TypeError,
     "event 'a.person' (Person)", "slot 'b.typed' (Order)", "'number'", "mapping="),
    ("type without fields", lambda w: Echo().add_slot("x", type=int), InvalidTypeError, TypeError,
     "type of slot 'x'", "a dataclass, a TypedDict, a msgspec Struct or a pydantic model"),
    ("several entries", lambda w: w.runtime.exec("draft", entry_params={}), InvalidValueError, ValueError,
     "flow 'etl' has several routines with a slot that nothing feeds: ['read', 'join', 'small']",
     "set_entry('read')"),
    ("several entry slots", lambda w: w.runtime.exec("draft", entry="join", entry_params={}),
     InvalidValueError, ValueError, "routine 'join' could be entered by several slots", "'left'", "'right'"),
    ("batch larger than its slot", lambda w: w.runtime.exec(batch_over_capacity()), FlowValidationError, ValueError,
     "only.input", "at most 1000", "batch of 2000", "max_queue_length=2000"),
    ("decorated class", lambda w: routine(Echo), InvalidTypeError, TypeError, "@routine", "a function"),
    ("builder with a typing error", lambda w: FlowBuilder("x").add(Echo, "a").connect("a.output", "b.input").build(),
     FlowValidationError, ValueError, "connection a.output -> b.input", "no routine 'b'", "'a'"),
    ("store of no kind", lambda w: Runtime(store=5), InvalidTypeError, TypeError, "Runtime(store)", "5", "sqlite:///routilux.db"),
    ("output callback of no kind", lambda w: CallbackOutputHandler(5), InvalidTypeError, TypeError,
     "CallbackOutputHandler()", "int", "a function that takes one OutputRecord"),
    ("error handler of no kind", lambda w: w.draft.set_error_handler("retry"), InvalidTypeError, TypeError,
     "error handler of flow 'etl'", "'retry' (str)", "an ErrorHandler"),
)  # fmt: skip
def test_wrong_set_up_is_refused_and_the_fix_is_named(row: Row, world: World) -> None:
    check(row, world, world.picture())


def connect_person_to_order() -> Connection:
    source = Echo()
    source.add_event("person", type=Person)
    flow = Flow("typed")
    flow.add_routine(source, "a")
    flow.add_routine(Small(), "b")
    return flow.connect("a", "person", "b", "typed")


def batch_over_capacity() -> Flow:
    routine = Echo()
    routine.set_activation_policy(batch_size_policy(2000))
    return single("batch", routine)


# -- switches ----------------------------------------------------------------------------------------------

SWITCHES: dict[str, Callable[[World, Any], object]] = {
    "Runtime(enable_monitoring)": lambda w, on: Runtime(enable_monitoring=on),
    "Runtime(debug)": lambda w, on: Runtime(debug=on),
    "Runtime(capture_logs)": lambda w, on: Runtime(capture_logs=on),
    "Runtime(capture_prints)": lambda w, on: Runtime(capture_prints=on),
    "recover(paused)": lambda w, on: w.runtime.recover(paused=on),
    "stop(drain)": lambda w, on: w.runtime.stop("main", drain=on),
    "shutdown(wait)": lambda w, on: w.runtime.shutdown(on),
    "list_jobs(parked)": lambda w, on: w.runtime.list_jobs(parked=on),
    "register(replace)": lambda w, on: FlowRegistry().register(w.draft, replace=on),
    "batch_size_policy(flush)": lambda w, on: batch_size_policy(5, flush=on),
}


@pytest.mark.parametrize("value", ["yes", 1, object()])
@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_is_true_or_false(name: str, value: Any, world: World) -> None:
    says = (f"{name}: expected True or False, got ",)
    row = Row("", lambda w: SWITCHES[name](w, value), InvalidTypeError, TypeError, says)
    check(row, world, world.picture())


# -- numbers -----------------------------------------------------------------------------------------------

# What takes a number, the name that its message uses, and a value too small (None: nothing is too small).
NUMBERS: dict[str, tuple[Callable[[World, Any], object], str, Any]] = {
    "thread_pool_size": (lambda w, n: Runtime(thread_pool_size=n), "thread_pool_size", 0),
    "max_queue_size": (lambda w, n: Runtime(max_queue_size=n), "max_queue_size", 0),
    "max_queue_length": (lambda w, n: Echo().add_slot("x", max_queue_length=n), "max_queue_length of slot 'x'", 0),
    "watermark": (lambda w, n: Echo().add_slot("x", watermark=n), "watermark of slot 'x'", 0),
    "batch_size_policy": (lambda w, n: batch_size_policy(n), "batch_size_policy(n)", 0),
    "time_interval_policy": (lambda w, n: time_interval_policy(n), "time_interval_policy(seconds)", -1),
    "set_concurrency": (lambda w, n: Echo().set_concurrency(n), "concurrency of routine Echo", 0),
    "set_timeout": (lambda w, n: Echo().set_timeout(n), "timeout of routine Echo", 0),
    "max_workers": (lambda w, n: Flow(max_workers=n), "max_workers", 0),
    "execution_timeout": (lambda w, n: Flow(execution_timeout=n), "execution_timeout", 0),
    "max_retries": (lambda w, n: ErrorHandler(max_retries=n), "ErrorHandler(max_retries)", -1),
    "retry_delay": (lambda w, n: ErrorHandler(retry_delay=n), "ErrorHandler(retry_delay)", -1),
    "retry_backoff": (lambda w, n: ErrorHandler(retry_backoff=n), "ErrorHandler(retry_backoff)", 0.5),
    "max_delay": (lambda w, n: ErrorHandler(max_delay=n), "ErrorHandler(max_delay)", -1),
    "jitter": (lambda w, n: ErrorHandler(jitter=n), "ErrorHandler(jitter)", -0.1),
    "max_history_size": (lambda w, n: setattr(w.worker, "max_history_size", n), "max_history_size", -1),
    "history_ttl_seconds": (lambda w, n: setattr(w.worker, "history_ttl_seconds", n), "history_ttl_seconds", -1),
    "list_jobs": (lambda w, n: w.runtime.list_jobs(limit=n), "limit", -1),
    "post": (lambda w, n: w.post("read", "input", {}, timeout=n), "timeout", None),
    "redrive": (lambda w, n: w.runtime.redrive(timeout=n), "timeout", None),
    "wait_until_all_jobs_finished": (lambda w, n: w.runtime.wait_until_all_jobs_finished(n), "timeout", None),
    "pause": (lambda w, n: w.runtime.pause("main", timeout=n), "timeout", None),
    "stop": (lambda w, n: w.runtime.stop("main", timeout=n), "timeout", None),
    "shutdown": (lambda w, n: w.runtime.shutdown(timeout=n), "timeout", None),
    "WorkerState.wait": (lambda w, n: w.worker.wait(n), "timeout", None),
    "JobContext.wait": (lambda w, n: w.job.wait(n), "timeout", None),
    "JobContext.result": (lambda w, n: w.job.result(n), "timeout", None),
    "Flow.execute": (lambda w, n: w.draft.execute("read", {}, timeout=n), "timeout", None),
    "Flow.wait_for_completion": (lambda w, n: w.draft.wait_for_completion(w.worker, n), "timeout", None),
}  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    "value", [True, False, "5", [5], object()], ids=["True", "False", "text", "list", "object"]
)
def test_a_number_is_a_number_and_not_a_bool_or_text(name: str, value: Any, world: World) -> None:
    set_to, shown, _ = NUMBERS[name]
    check(
        Row(name, lambda w: set_to(w, value), InvalidTypeError, TypeError, (shown,)), world, world.picture()
    )


@pytest.mark.parametrize(
    "name", [name for name, (_, _, too_small) in NUMBERS.items() if too_small is not None]
)
def test_a_number_that_is_too_small_is_refused(name: str, world: World) -> None:
    set_to, shown, too_small = NUMBERS[name]
    for value in (too_small, -1, -(10**30)):
        row = Row(name, lambda w, n=value: set_to(w, n), InvalidValueError, ValueError, (shown, str(value)))
        check(row, world, world.picture())


@pytest.mark.parametrize("name", [name for name, (_, shown, _) in NUMBERS.items() if shown == "timeout"])
def test_a_timeout_that_is_no_number_is_refused(name: str, world: World) -> None:
    set_to, shown, _ = NUMBERS[name]
    row = Row(name, lambda w: set_to(w, float("nan")), InvalidValueError, ValueError, (shown, "nan"))
    check(row, world, world.picture())


@pytest.mark.parametrize("size", [1025, 10**30])
def test_a_pool_has_at_most_1024_threads(size: int) -> None:
    with pytest.raises(InvalidValueError, match=r"thread_pool_size.*from 1 to 1024"):
        Runtime(thread_pool_size=size)


# -- moments -----------------------------------------------------------------------------------------------


def closed(w: World) -> Runtime:
    runtime = Runtime(thread_pool_size=1, registry=w.registry)
    runtime.shutdown()
    return runtime


def no_posts(w: World) -> Any:
    """Post to the only worker of a flow after it was stopped."""
    with Runtime(thread_pool_size=1, registry=w.registry) as runtime:
        runtime.stop(runtime.exec("draft", worker_id="short"))
        runtime.post("draft", "read", "input", {}, worker_id="short")


def posted_by_name(w: World) -> Any:
    registry = FlowRegistry().register(w.failing)
    with Runtime(thread_pool_size=1, registry=registry) as runtime:
        runtime.post("failing", "only", "input", {})


def late(w: World) -> Any:
    with Runtime(thread_pool_size=1, registry=w.registry) as runtime:
        runtime.stop(runtime.exec(single("late", Echo())))
        runtime.post("late", "only", "input", {})


def almost(w: World) -> Any:
    with Runtime(thread_pool_size=1, registry=w.registry) as runtime:
        runtime.exec(single("early", Echo()))
        runtime.post("erly", "only", "input", {})


def worker_of_a_one_shot(w: World) -> Any:
    with Runtime(thread_pool_size=1, registry=w.registry) as runtime:
        state = runtime.exec(single("x", Echo()), entry_params={})
        assert state.wait(SECONDS)
        runtime.post("x", "only", "input", {}, worker_id=state.worker_id)


@rows(
    ("post before exec", lambda w: w.runtime.post(w.failing, "only", "input", {}), WorkerNotRunningError, StateError,
     "flow 'failing' has no worker", "call runtime.exec(flow) first"),
    ("post by name before exec", lambda w: posted_by_name(w), WorkerNotRunningError, StateError,
     "flow 'failing' has no worker", "call runtime.exec('failing') first"),
    ("post when the only worker has stopped", lambda w: late(w), WorkerNotRunningError, StateError,
     "flow 'late' has no worker", "its worker has stopped", "call runtime.exec(flow) again"),
    ("post to a flow that is running, by almost its id", lambda w: almost(w), UnknownFlowError, KeyError,
     "no flow 'erly'", "'early'", "runtime.exec(flow)"),
    ("post after shutdown", lambda w: closed(w).post("etl", "read", "input", {}), RuntimeClosedError, StateError,
     "post()", "has been shut down", "create a new Runtime"),
    ("exec after shutdown", lambda w: closed(w).exec("etl"), RuntimeClosedError, StateError,
     "exec()", "has been shut down", "create a new Runtime"),
    ("with after shutdown", lambda w: closed(w).__enter__(), RuntimeClosedError, StateError,
     "has been shut down", "create a new Runtime"),
    ("post to a stopped worker", no_posts, WorkerNotRunningError, StateError,
     "worker 'short' of flow 'etl' has stopped", "runtime.exec(flow)"),
    ("post to a one-shot execution", worker_of_a_one_shot, WorkerNotRunningError, StateError,
     "of flow 'x'", "runtime.exec(flow)"),
    ("several workers", lambda w: w.runtime.post("twins", "only", "input", {}), StateError, StateError,
     "flow 'twins' has 2 workers: twin-1, twin-2", "worker_id="),
    ("worker of another flow", lambda w: w.runtime.post("etl", "read", "input", {}, worker_id="twin-1"),
     StateError, StateError, "worker 'twin-1' runs flow 'twins', not 'etl'"),
    ("job of another worker", lambda w: w.runtime.post("twins", "only", "input", {}, worker_id="twin-1",
     job_id="done"), StateError, StateError, "job 'done' belongs to worker 'main'", "new job_id"),
    ("emit outside an activation", lambda w: w.etl.routines["read"].emit("output"), NotInActivationError, StateError,
     "emit() of routine 'read' (Echo)", "inside the logic", "contextvars.copy_context()"),
    ("emit by another routine", lambda w: w.inside(lambda self: w.probe.routines["neighbour"].emit("output")),
     NotInActivationError, StateError, "emit() of routine 'neighbour'", "routine 'only' (Probe)"),
    ("emit of another's event", lambda w: w.inside(lambda self: self.emit(w.probe.routines["neighbour"].events[
     "output"])), UnknownEventError, KeyError, "in routine 'only' (Probe)", "emit one of its own events"),
    ("event.emit of another routine", lambda w: w.inside(lambda self: w.probe.routines["neighbour"].events[
     "output"].emit()), NotInActivationError, StateError, "emit() of routine 'neighbour'"),
    ("send_output outside", lambda w: w.etl.routines["read"].send_output("text"), NotInActivationError, StateError,
     "send_output() of routine 'read'", "inside the logic"),
    ("stats of no worker", lambda w: w.etl.routines["read"].stats(), NotInActivationError, StateError,
     "stats() of routine 'read'"),
    ("current() outside", lambda w: current(), NotInActivationError, StateError,
     "current() was called outside an activation", "contextvars.copy_context()"),
    ("job.wait inside", lambda w: w.inside(lambda self: current().job.wait()), InsideActivationError, StateError,
     "job.wait()", "inside a routine", "Connect an event instead", "await job"),
    ("job.result inside", lambda w: w.inside(lambda self: current().job.result()), InsideActivationError, StateError,
     "inside a routine"),
    ("worker.wait inside", lambda w: w.inside(lambda self: w.worker.wait()), InsideActivationError, StateError,
     "wait()", "inside routine 'only'"),
    ("drain inside", lambda w: w.inside(lambda self: w.runtime.wait_until_all_jobs_finished()), InsideActivationError,
     StateError, "wait_until_all_jobs_finished()", "inside routine 'only'", "from outside"),
    ("stop inside", lambda w: w.inside(lambda self: w.runtime.stop(w.worker)), InsideActivationError, StateError,
     "stop()", "inside routine 'only'", "from outside"),
    ("execute inside", lambda w: w.inside(lambda self: w.etl.execute("read", {})), InsideActivationError, StateError,
     "execute()", "inside routine 'only'", "from outside"),
    ("save inside", lambda w: w.inside(lambda self: w.worker.save(w.folder / "state.json")), InsideActivationError,
     StateError, "save() of 'main'", "inside a routine", "runtime.pause(worker)"),
    ("resume of a live state", lambda w: w.runtime.exec("etl", job_state=w.worker), StateError, StateError,
     "load(path)", "'main' is live already", "runtime.resume(state)"),
    ("same key, other payload", lambda w: post_twice_with_a_key(w), IdempotencyConflictError, StateError,
     "idempotency_key 'k' was used on flow 'x' before with another payload", "a key of its own"),
    ("redrive of what was driven again", lambda w: redrive_twice(w), StateError, StateError,
     "does not keep the dead letter of item 1 any more", "driven again already", "runtime.post('failing'"),
    ("redrive to a dead worker", lambda w: redrive_too_late(w), WorkerNotRunningError, StateError,
     "does not live any more", "runtime.post('failing', 'only', 'input', letter.data)"),
    ("pause of a loaded state", lambda w: w.draft.pause(loaded(w)), StateError, StateError,
     "was read from a file", "runtime.exec(flow, job_state=state)"),
)  # fmt: skip
def test_right_call_at_the_wrong_moment_is_refused(row: Row, world: World) -> None:
    check(row, world, world.picture())


def post_twice_with_a_key(w: World) -> Any:
    with Runtime(thread_pool_size=1) as runtime:
        flow = single("x", Echo())
        runtime.exec(flow)
        first = runtime.post(flow, "only", "input", {"n": 1}, idempotency_key="k")
        try:
            runtime.post(flow, "only", "input", {"n": 2}, idempotency_key="k")
        finally:
            assert runtime.list_jobs() == [first.job_context]


def redrive_twice(w: World) -> Any:
    with Runtime(thread_pool_size=1) as runtime:
        runtime.exec(w.failing)
        runtime.post(w.failing, "only", "input", {})
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        letters = runtime.dead_letters()
        runtime.redrive(*letters)
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        jobs = runtime.list_jobs()
        try:
            runtime.redrive(*letters)
        finally:
            assert runtime.list_jobs() == jobs


def redrive_too_late(w: World) -> Any:
    with Runtime(thread_pool_size=1) as runtime:
        worker = runtime.exec(w.failing)
        runtime.post(w.failing, "only", "input", {})
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        letters = runtime.dead_letters()
        assert runtime.stop(worker)
        try:
            runtime.redrive(*letters)
        finally:
            assert runtime.dead_letters() == letters


def loaded(w: World) -> WorkerState:
    path = w.folder.parent / "loaded.json"
    w.worker.save(path)
    return WorkerState.load(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda flow: flow.add_routine(Echo(), "new"),
        lambda flow: flow.remove_routine("save"),
        lambda flow: flow.connect("read", "output", "save", "input"),
        lambda flow: flow.disconnect("read", "output", "parse", "input"),
        lambda flow: flow.set_entry("read"),
        lambda flow: flow.set_error_handler(ErrorHandler()),
        lambda flow: flow.routines["read"].add_slot("new"),
        lambda flow: flow.routines["read"].add_event("new"),
        lambda flow: flow.routines["read"].set_config(limit=1),
        lambda flow: flow.routines["read"].set_logic(lambda slot_data, message, state: None),
        lambda flow: flow.routines["read"].set_activation_policy(batch_size_policy(2)),
        lambda flow: flow.routines["read"].set_error_handler(ErrorHandler()),
        lambda flow: flow.routines["read"].set_concurrency(2),
        lambda flow: flow.routines["read"].set_timeout(1),
    ],
    ids="add_routine remove_routine connect disconnect set_entry set_error_handler add_slot add_event set_config "
    "set_logic set_activation_policy routine.set_error_handler set_concurrency set_timeout".split(),
)
def test_a_flow_stays_as_it_is_while_a_worker_lives(change: Callable[[Flow], object], world: World) -> None:
    says = ("'etl' has 1 live worker(s)", "stop them first", "build another flow")
    check(Row("", lambda w: change(w.etl), FlowInUseError, StateError, says), world, world.picture())
    world.runtime.stop("main")
    change(world.etl)


def test_config_cannot_be_changed_through_what_it_gives(world: World) -> None:
    routine = world.etl.routines["read"]
    with pytest.raises(TypeError):
        routine.config["limit"] = 1  # type: ignore[index]
    with pytest.raises(TypeError):
        world.etl.routines["new"] = Echo()  # type: ignore[index]
    assert routine.get_config("limit") is None


# -- data --------------------------------------------------------------------------------------------------


class Unshowable:
    def __repr__(self) -> str:
        raise ValueError("no repr")


@rows(
    ("data that is no mapping", lambda w: w.post("read", "input", [1, 2]), InvalidTypeError, TypeError,
     "post() to 'read.input'", "a mapping of names to values", "list", "{'value': ...}"),
    ("data that cannot be shown", lambda w: w.post("read", "input", Unshowable()), InvalidTypeError, TypeError,
     "post() to 'read.input'", "Unshowable"),
    ("keys that are no text", lambda w: w.post("read", "input", {1: 2}), InvalidTypeError, TypeError,
     "post() to 'read.input'", "keys of data are text", "int"),
    ("keys that cannot be shown", lambda w: w.post("read", "input", {Unshowable(): 2}), InvalidTypeError, TypeError,
     "post() to 'read.input'", "Unshowable"),
    ("entry_params that are no mapping", lambda w: w.runtime.exec("draft", entry="read", entry_params=[1]),
     InvalidTypeError, TypeError, "entry_params of flow 'etl'", "list"),
    ("payload of another type", lambda w: w.post("small", "typed", {"number": "one"}), InvalidTypeError, TypeError,
     "slot 'small.typed'", "int", "number"),
    ("entry_params of another type", lambda w: w.runtime.exec("draft", entry="small.typed", entry_params={}),
     InvalidTypeError, TypeError, "slot 'small.typed'", "number"),
    ("flow of no kind", lambda w: w.runtime.exec(5), InvalidTypeError, TypeError,
     "registered name or as a Flow", "int"),
    ("flow that cannot be shown", lambda w: w.runtime.exec(Unshowable()), InvalidTypeError, TypeError, "Unshowable"),
    ("target that cannot be shown", lambda w: w.runtime.cancel(Unshowable()), InvalidTypeError, TypeError,
     "a WorkerState, a JobContext or the id of either", "Unshowable"),
    ("worker id of no kind", lambda w: w.runtime.exec("draft", worker_id=5), InvalidValueError, ValueError,
     "worker_id", "non-empty text", "5"),
    ("worker id that is empty", lambda w: w.runtime.exec("draft", worker_id=""), InvalidValueError, ValueError,
     "worker_id", "non-empty text"),
    ("job id of no kind", lambda w: w.post("read", "input", {}, job_id=5), InvalidValueError, ValueError,
     "job_id", "non-empty text", "5"),
    ("empty idempotency key", lambda w: w.post("read", "input", {}, idempotency_key=""), InvalidValueError,
     ValueError, "idempotency_key", "1 character or more", "''", "leave it out"),
    ("idempotency key of no kind", lambda w: w.post("read", "input", {}, idempotency_key=["k"]), InvalidTypeError,
     TypeError, "idempotency_key", "text", "['k']"),
    ("metadata of no kind", lambda w: w.post("read", "input", {}, metadata=5), InvalidTypeError, TypeError,
     "metadata", "mapping", "5"),
    ("routine state of no kind", lambda w: w.worker.update_routine_state("read", [1]), InvalidTypeError, TypeError,
     "state of routine 'read'", "mapping", "list"),
    ("routine id of a state", lambda w: w.worker.set_routine_state(5, {}), InvalidTypeError, TypeError,
     "routine id", "int"),
    ("job to stop", lambda w: w.runtime.stop("done"), InvalidTypeError, TypeError, "stop() takes a worker",
     "'done'", "runtime.cancel(job)"),
    ("status to list", lambda w: w.runtime.list_jobs(status="complete"), InvalidValueError, ValueError,
     "no job status 'complete'", "'completed'"),
)  # fmt: skip
def test_wrong_data_is_refused(row: Row, world: World) -> None:
    check(row, world, world.picture())


# -- room --------------------------------------------------------------------------------------------------


def test_full_slot_that_says_error_refuses_at_once(world: World) -> None:
    world.runtime.pause("main")
    world.post("small", "strict", {"n": 1})
    says = (
        "slot 'small.strict' of flow 'etl' holds 1 of at most 1 items",
        "max_queue_length",
        "on_full='drop_old'",
    )
    row = Row("", lambda w: w.post("small", "strict", {"n": 2}), QueueFullError, ExecutionError, says)
    error = check(row, world, world.picture())
    assert (error.flow_id, error.slot, error.worker_id) == ("etl", "small.strict", "main")


def test_full_slot_that_blocks_refuses_when_the_timeout_has_passed(world: World) -> None:
    world.runtime.pause("main")
    world.post("small", "narrow", {"n": 1})
    says = ("slot 'small.narrow' of flow 'etl' holds 1 of at most 1 items", "time-out", "longer timeout")
    row = Row(
        "", lambda w: w.post("small", "narrow", {"n": 2}, timeout=NOW), QueueFullError, ExecutionError, says
    )
    check(row, world, world.picture())


def test_post_to_a_full_join_that_nothing_can_release_is_refused_at_once(world: World) -> None:
    parked = world.post("join", "left", {"n": 1}).job_context
    assert parked.wait(SECONDS)
    says = ("slot 'join.left' of flow 'etl' holds 1 of at most 1 items", "nothing that runs could make room")
    row = Row("", lambda w: w.post("join", "left", {"n": 2}), QueueFullError, ExecutionError, says)
    check(row, world, world.picture())
    assert parked.parked == 1


def test_too_many_pending_jobs_are_refused_when_the_timeout_has_passed(world: World) -> None:
    with Runtime(thread_pool_size=1, max_queue_size=2) as runtime:
        flow = single("x", Echo())
        worker = runtime.exec(flow)
        runtime.pause(worker)
        jobs = [runtime.post(flow, "only", "input", {}).job_context for _ in range(2)]
        says = (
            "2 jobs are pending, of at most max_queue_size=2",
            "time-out",
            "longer timeout",
            "more threads",
        )
        for timeout in (0, NOW):
            row = Row("", lambda w, t=timeout: runtime.post(flow, "only", "input", {}, timeout=t), QueueFullError,
                      ExecutionError, says)  # fmt: skip
            check(row, world, world.picture())
        assert runtime.list_jobs() == jobs
        runtime.resume(worker)
        runtime.post(flow, "only", "input", {}, timeout=SECONDS)


def test_too_many_pending_jobs_are_refused_inside_a_routine_where_none_of_them_could_start(
    world: World,
) -> None:
    raised: list[BaseException] = []
    workers: list[list[WorkerState]] = []
    with Runtime(thread_pool_size=1, max_queue_size=1) as runtime:

        class Posts(Echo):
            def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
                if slot_data["input"][0]:
                    return
                runtime.post(posting, "only", "input", {"again": True})
                for call in (
                    lambda: runtime.post(posting, "only", "input", {"again": True}),
                    lambda: runtime.exec(other, entry_params={}),
                ):
                    try:
                        call()
                    except QueueFullError as error:
                        raised.append(error)
                    workers.append(runtime.list_workers())

        posting, other = single("posting", Posts()), single("other", Echo())
        expected = [runtime.exec(posting)]
        _, job = runtime.post(posting, "only", "input", {})
        assert job.wait(SECONDS)
        assert job.status == "completed", job.error
        assert [str(error).count("nothing that runs could start one of them") for error in raised] == [1, 1]
        assert workers == [expected, expected]


# -- policies and logic that go wrong ------------------------------------------------------------------------


def raises(slots: Any, state: Any) -> Any:
    raise LookupError("policy at a loss")


@pytest.mark.parametrize(
    ("fn", "cause", "says"),
    [
        (raises, LookupError, "policy at a loss"),
        (lambda slots, state: "yes", InvalidTypeError, "custom policy"),
        (lambda slots, state: (True, {"input": [1, 2, 3]}, None), InvalidValueError, "0 to 1 items"),
        (lambda slots, state: (True, {"imput": [1]}, None), UnknownSlotError, "'input'"),
        (lambda slots, state: slots["imput"], UnknownSlotError, "'input'"),
        (lambda slots, state: (True, {}, None), InvalidValueError, "takes nothing"),
    ],
    ids=[
        "raises",
        "returns nonsense",
        "takes too much",
        "takes from nowhere",
        "looks nowhere",
        "takes nothing",
    ],
)
def test_policy_that_goes_wrong_fails_the_job_and_the_runtime_goes_on(
    fn: Callable[..., Any], cause: type[Exception], says: str, world: World
) -> None:
    routine = Echo()
    routine.set_activation_policy(custom_policy(fn))
    flow = single("misjudged", routine)
    worker = world.runtime.exec(flow)
    _, job = world.runtime.post(flow, "only", "input", {"n": 1})
    assert job.wait(SECONDS)
    with pytest.raises(RoutiluxError, match="routine 'only' failed in attempt 1") as caught:
        job.result()
    assert isinstance(caught.value.__cause__, cause)
    assert says in str(caught.value)
    assert (job.status, worker.status) == ("failed", "running")
    assert [letter.data for letter in world.runtime.dead_letters(worker=worker)] == [{"n": 1}]
    assert world.post("read", "input", {"n": 2}).job_context.result(SECONDS)[0].data == {"n": 2}


def test_payload_of_another_type_is_refused_where_it_is_emitted(world: World) -> None:
    class Emits(Small):
        def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            self.emit("order", number="one")

    flow = single("emits", Emits())
    world.runtime.exec(flow)
    _, job = world.runtime.post(flow, "only", "input", {})
    assert job.wait(SECONDS)
    assert isinstance(job.error.__cause__, InvalidTypeError)
    assert "routine 'only' event 'order'" in str(job.error)
    assert job.outputs == []


# -- files -------------------------------------------------------------------------------------------------


@rows(
    ("shared data", lambda w: save_with(w, shared_data={"client": threading.Lock()}), SerializationError,
     RoutiluxError, "$.shared_data.client", "lock", "worker 'main'"),
    ("routine state", lambda w: save_with(w, routine_state={"deep": [1, {"it": object()}]}), SerializationError,
     RoutiluxError, "$.routine_states.read.deep[1].it", "object"),
    ("shared log", lambda w: save_with(w, shared_log=[{"fn": print}]), SerializationError, RoutiluxError,
     "$.shared_log[0].fn", "builtin_function_or_method"),
)  # fmt: skip
def test_state_that_has_no_json_form_is_refused_on_save_and_the_old_file_stays(
    row: Row, world: World
) -> None:
    world.worker.save(world.folder / "state.json")
    error = check(row, world, world.picture())
    assert isinstance(error, SerializationError)
    assert error.path == row.says[0]
    assert world.worker.status == "running"
    assert world.post("read", "input", {"n": 2}).job_context.wait(SECONDS)


def save_with(
    w: World,
    *,
    shared_data: dict[str, Any] | None = None,
    shared_log: list[Any] | None = None,
    routine_state: dict[str, Any] | None = None,
) -> None:
    before = w.worker.routine_states
    w.worker.shared_data.update(shared_data or {})
    w.worker.shared_log.extend(shared_log or [])
    if routine_state:
        w.worker.set_routine_state("read", routine_state)
    try:
        w.worker.save(w.folder / "state.json")
    finally:
        if routine_state:
            w.worker.set_routine_state("read", before["read"])


def test_queued_payload_that_has_no_json_form_is_named_by_its_place(world: World) -> None:
    world.runtime.pause("main")
    world.post("parse", "input", {"order": {"client": threading.Lock()}})
    with pytest.raises(SerializationError, match="lock") as caught:
        world.worker.save(world.folder / "state.json")
    assert caught.value.path == "$.mailboxes.parse.items[0].data.order.client"
    assert list(world.folder.iterdir()) == []


def damaged(change: Callable[[bytes], bytes]) -> Callable[[World], object]:
    def action(w: World) -> object:
        path = w.folder.parent / "damaged.json"
        w.worker.save(path)
        path.write_bytes(change(path.read_bytes()))
        return WorkerState.load(path)

    return action


def newer(data: bytes) -> bytes:
    return data.replace(b'"version": 1', b'"version": 2', 1)


@rows(
    ("cut", damaged(lambda data: data[: len(data) // 2]), SerializationError, RoutiluxError,
     "damaged.json", "is cut off", "a whole file"),
    ("empty", damaged(lambda data: b""), SerializationError, RoutiluxError, "is empty", "older copy"),
    ("foreign JSON", damaged(lambda data: b'{"a": 1}'), SerializationError, RoutiluxError,
     "is no saved state", "a file that save() wrote"),
    ("no JSON", damaged(lambda data: b"%PDF-1.7 }"), SerializationError, RoutiluxError, "is not JSON", "save()"),
    ("no text", damaged(lambda data: b"\xff\xfe}"), SerializationError, RoutiluxError, "is not JSON", "save()"),
    ("newer", damaged(newer), SerializationError, RoutiluxError, "newer Routilux: version 2", "upgrade Routilux"),
    ("changed", damaged(lambda data: data.replace(b'"main"', b'"mine"', 1)), SerializationError, RoutiluxError,
     "was changed after it was written", "unchanged copy"),
    ("deeply nested", damaged(lambda data: b"[" * 100_000 + b"]" * 100_000), SerializationError, RoutiluxError,
     "damaged.json"),
    ("state of a worker as that of an execution", lambda w: load_as_job_state(w), StateError, RoutiluxError,
     "a worker of flow 'etl'", "WorkerState.load()"),
    ("resumed with another flow", lambda w: resume_elsewhere(w, "twins"), SerializationError, RoutiluxError,
     "worker 'main'", "flow 'etl'", "flow 'twins' is not 'etl'"),
    ("resumed with a changed flow", lambda w: resume_elsewhere(w, changed_etl()), SerializationError, RoutiluxError,
     "worker 'main'", "flow 'etl' has changed since"),
    ("resumed by a path", lambda w: w.runtime.exec("etl", job_state="x.json"), InvalidTypeError, TypeError,
     "exec(job_state)", "got 'x.json'", "read it with JobState.load(path)"),
    ("resumed with more", lambda w: w.runtime.exec("etl", job_state=loaded(w), worker_id="new", entry_params={},
     entry="read", metadata={}), InvalidValueError, ValueError,
     "entry_params=, entry=, worker_id=, metadata=", "a resumed state keeps its own"),
    ("a list of letters", lambda w: w.runtime.redrive([]), InvalidTypeError, TypeError,
     "redrive()", "expected dead letters, got []", "redrive(*letters)"),
    ("resumed beside the original", lambda w: w.runtime.exec("etl", job_state=loaded(w)), DuplicateNameError,
     ValueError, "worker_id 'main' is taken"),
)  # fmt: skip
def test_file_that_does_not_fit_is_refused_and_nothing_is_started(row: Row, world: World) -> None:
    check(row, world, world.picture())


def load_as_job_state(w: World) -> JobState:
    path = w.folder.parent / "worker.json"
    w.worker.save(path)
    return JobState.load(path)


def resume_elsewhere(w: World, flow: Any) -> Any:
    return w.runtime.exec(flow, job_state=loaded(w))


def changed_etl() -> Flow:
    flow = etl()
    flow.connect("read", "output", "save", "input")
    return flow


def test_file_that_is_not_there_is_the_error_of_the_operating_system(world: World) -> None:
    with pytest.raises(FileNotFoundError):
        WorkerState.load(world.folder / "nowhere.json")
    with pytest.raises(OSError, match="nowhere"):
        world.worker.save(world.folder / "nowhere" / "state.json")
    assert list(world.folder.iterdir()) == []


def test_every_cut_is_told_from_what_never_was_a_saved_state(world: World) -> None:
    world.post("join", "left", {"text": "\x00 \\ ü \u2028", "numbers": [-1.5e-300, 1e300, True, None]})
    path = world.folder / "state.json"
    world.worker.save(path)
    whole = path.read_bytes().rstrip()
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(SerializationError, match="is cut off after"):
            WorkerState.load(path)


def test_every_changed_byte_is_refused_unless_it_means_the_same(world: World) -> None:
    path = world.folder / "state.json"
    world.worker.save(path)
    whole = path.read_bytes()
    original = WorkerState.load(path).saved
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            changed = WorkerState.load(path).saved
        except SerializationError:
            continue
        assert changed == original  # white space, or a digit that no float has
