from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from routilux.errors import (
    DuplicateNameError,
    FlowInUseError,
    InvalidTypeError,
    InvalidValueError,
    RoutiluxError,
    StateError,
    UnknownEventError,
    UnknownRoutineError,
    UnknownSlotError,
)
from routilux.model import flow as flow_module
from routilux.model.flow import Flow, bind_execution
from routilux.model.policy import batch_size_policy, custom_policy
from routilux.model.recovery import ErrorHandler
from routilux.model.routine import Routine
from tests.unit.model.samples import Step, chain, refusal, shape, table


def test_a_flow_is_what_was_put_into_it() -> None:
    flow = Flow("etl", execution_strategy="concurrent", max_workers=3, execution_timeout=5)
    first, second = Step(), Step()
    assert (flow.add_routine(first, "a"), flow.add_routine(second, "b")) == ("a", "b")
    connection = flow.connect("a", "output", "b", "input", mapping={"value": "x"})
    handler = ErrorHandler("skip")
    assert flow.set_entry("a", "input").set_error_handler(handler) is flow
    assert (flow.flow_id, flow.execution_strategy, flow.max_workers, flow.execution_timeout, flow.in_use) == (
        "etl",
        "concurrent",
        3,
        5.0,
        0,
    )
    assert (dict(flow.routines), flow.connections) == ({"a": first, "b": second}, (connection,))
    assert (flow.entry, flow.error_handler, repr(flow)) == (
        ("a", "input"),
        handler,
        "<Flow 'etl': 2 routines, 1 connections>",
    )
    assert (first.flow, first.routine_id, connection.ends) == (flow, "a", ("a", "output", "b", "input"))
    assert (connection.source, connection.target) == (first.events["output"], second.slots["input"])
    assert (str(connection), dict(connection.mapping or {})) == ("a.output -> b.input", {"value": "x"})


def test_a_flow_without_an_id_gets_one_of_its_own() -> None:
    ids = {Flow().flow_id for _ in range(100)}
    assert len(ids) == 100
    assert all(flow_id.startswith("flow-") for flow_id in ids)


def test_a_routine_without_an_id_is_named_after_its_class() -> None:
    flow = Flow()
    flow.add_routine(Step(), "Step_2")
    assert [flow.add_routine(Step()) for _ in range(3)] == ["Step", "Step_3", "Step_4"]


def test_routines_slots_and_events_may_be_given_as_objects() -> None:
    flow, first, second = Flow(), Step(), Step()
    flow.add_routine(first, "a")
    flow.add_routine(second, "b")
    flow.connect(first, first.events["output"], second, second.slots["input"])
    flow.set_entry(second, second.slots["input"])
    assert (flow.connections[0].ends, flow.entry) == (("a", "output", "b", "input"), ("b", "input"))
    assert flow.disconnect(first, "output", "b", second.slots["input"]).ends == ("a", "output", "b", "input")
    assert flow.remove_routine(second) is second


def test_connections_are_found_from_both_ends_in_the_order_in_which_they_were_made() -> None:
    flow = chain("a", "b", "c")
    cross = flow.connect("a", "output", "c", "input")
    first, second = flow.connections[:2]
    assert flow.connections_from("a", "output") == (first, cross)
    assert flow.connections_to("c", "input") == (second, cross)
    assert (flow.connections_from("c", "output"), flow.connections_to("a", "input")) == ((), ())
    flow.disconnect("a", "output", "b", "input")
    assert (flow.connections, flow.connections_from("a", "output")) == ((second, cross), (cross,))
    assert (flow.connections_to("b", "input"), flow.connections_to("c", "input")) == ((), (second, cross))


def test_a_removed_routine_takes_its_connections_and_the_entry_with_it() -> None:
    flow = chain("a", "b", "c").set_entry("b")
    removed = flow.remove_routine("b")
    assert (list(flow.routines), flow.connections, flow.entry) == (["a", "c"], (), None)
    assert (removed.flow, removed.routine_id, removed.slots["input"].qualified_name) == (
        None,
        "",
        "Step.input",
    )
    assert Flow().add_routine(removed, "again") == "again"


class Uninitialised(Routine):
    def __init__(self) -> None:
        self.add_slot("input")


class WithParameters(Routine):
    def __init__(self, size: int = 3) -> None:
        super().__init__()


class Cooperative(Routine):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()


class TwoSlots(Step):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("other")
        self.add_event("error")


def test_a_constructor_that_only_passes_on_arguments_is_parameterless() -> None:
    assert Flow().add_routine(Cooperative(), "a") == "a"


elsewhere = chain("x")
stranger = elsewhere.routines["x"]

REFUSED: list[tuple[Callable[[Flow], object], type[RoutiluxError], tuple[str, ...]]] = [
    # routines
    (
        lambda f: f.add_routine(Step(), "a"),
        DuplicateNameError,
        ("flow 'line'", "routine 'a' already (Step)", "another id"),
    ),
    (lambda f: f.add_routine(Step(), "a.b"), InvalidValueError, ("name of a routine", "use 'a_b'")),
    (lambda f: f.add_routine(Step(), ""), InvalidValueError, ("name of a routine",)),
    (lambda f: f.add_routine(Step(), 3), InvalidTypeError, ("name of a routine", "3 (int)")),
    (
        lambda f: f.add_routine(Step),
        InvalidTypeError,
        ("add_routine() of flow 'line'", "add an object: Step()"),
    ),
    (lambda f: f.add_routine("a"), InvalidTypeError, ("an object of a subclass of Routine",)),
    (lambda f: f.add_routine(stranger), DuplicateNameError, ("routine 'x' (Step)", "flow 'line'", "Step()")),
    (lambda f: f.add_routine(f.routines["a"], "z"), DuplicateNameError, ("belongs to this flow already",)),
    (
        lambda f: f.add_routine(Uninitialised()),
        InvalidValueError,
        ("Uninitialised.__init__", "super().__init__()"),
    ),
    (
        lambda f: f.add_routine(WithParameters()),
        InvalidTypeError,
        ("WithParameters.__init__ has parameters ['size']", "WithParameters().set_config(size=...)"),
    ),
    (
        lambda f: f.remove_routine("A"),
        UnknownRoutineError,
        ("no routine 'A' in flow 'line'", "'a', 'b', 'c'"),
    ),
    (
        lambda f: f.remove_routine(stranger),
        InvalidValueError,
        ("routine 'x'", "not in flow 'line'", "add_routine()"),
    ),
    # ends of connections
    (
        lambda f: f.connect("aa", "output", "b", "input"),
        UnknownRoutineError,
        ("no routine 'aa' in flow 'line' to connect from", "'a'", "add it first with add_routine()"),
    ),
    (lambda f: f.connect("a", "output", "d", "input"), UnknownRoutineError, ("'d'", "to connect to")),
    (
        lambda f: f.connect(3, "output", "b", "input"),
        InvalidTypeError,
        ("routine to connect from", "3 (int)"),
    ),
    (lambda f: f.connect(stranger, "output", "b", "input"), InvalidValueError, ("not in flow 'line'",)),
    (
        lambda f: f.connect("c", "outptu", "b", "input"),
        UnknownEventError,
        ("no event 'outptu' in routine 'c' (TwoSlots)", "'output'", "add_event('outptu')"),
    ),
    (
        lambda f: f.connect("a", "output", "c", "inptu"),
        UnknownSlotError,
        ("no slot 'inptu' in routine 'c' (TwoSlots)", "'input', 'other'"),
    ),
    (lambda f: f.connect("a", 1, "b", "input"), InvalidTypeError, ("event of routine 'a'", "1 (int)")),
    (lambda f: f.connect("a", "output", "b", None), InvalidTypeError, ("slot of routine 'b'", "None")),
    (
        lambda f: f.connect("b", "input", "c", "error"),
        InvalidValueError,
        ("'input' is a slot of routine 'b'", "swapped", "connect('c', 'error', 'b', 'input')"),
    ),
    (
        lambda f: f.connect("b", "input", "c", "input"),
        InvalidValueError,
        ("'input' is a slot of routine 'b'", "connect(source, event, target, slot)"),
    ),
    (
        lambda f: f.connect("b", f.routines["b"].slots["input"], "c", "error"),
        InvalidValueError,
        ("swapped", "connect('c', 'error', 'b', 'input')"),
    ),
    (
        lambda f: f.connect("a", "output", "c", f.routines["c"].events["error"]),
        InvalidValueError,
        ("'error' is an event of routine 'c'", "connect(source, event, target, slot)"),
    ),
    (
        lambda f: f.connect("a", stranger.events["output"], "b", "input"),
        InvalidValueError,
        ("event 'x.output'",),
    ),
    (
        lambda f: f.connect("c", "output", "b", stranger.slots["input"]),
        InvalidValueError,
        ("slot 'x.input'",),
    ),
    (
        lambda f: f.connect("a", "output", "b", "input"),
        DuplicateNameError,
        ("a.output -> b.input", "flow 'line'", "arrive twice", "disconnect() first"),
    ),
    (
        lambda f: f.disconnect("a", "output", "c", "input"),
        InvalidValueError,
        ("no connection 'a.output -> c.input'", "'a.output -> b.input'"),
    ),
    # mappings
    (
        lambda f: connected(f, {"value": "x", "key": "x"}),
        InvalidValueError,
        ("['value', 'key']", "'x'", "lost"),
    ),
    (
        lambda f: connected(f, ["value"]),
        InvalidTypeError,
        ("mapping of event 'c.output'", "{source key: target key}"),
    ),
    (lambda f: connected(f, {"value": 1}), InvalidTypeError, ("names of payload keys", "1 (int)")),
    (lambda f: connected(f, {"": "x"}), InvalidTypeError, ("names of payload keys",)),
    (lambda f: connected(f, {"valeu": "x"}), InvalidValueError, ("no output parameter 'valeu'", "'value'")),
    (
        lambda f: connected(f, {"value": "key"}),
        InvalidValueError,
        ("'value' would arrive as 'key'", "lost", "rename"),
    ),
    # settings
    (lambda f: f.set_entry("aa"), UnknownRoutineError, ("no routine 'aa'", "to enter by")),
    (lambda f: f.set_entry("a", "output"), UnknownSlotError, ("no slot 'output' in routine 'a'", "'input'")),
    (lambda f: f.set_error_handler("retry"), InvalidTypeError, ("error handler of flow 'line'",)),
    (lambda f: Flow("a\nb"), InvalidValueError, ("name of a flow", "printable")),
    (lambda f: Flow(3), InvalidTypeError, ("name of a flow",)),
    (lambda f: Flow(execution_strategy="parallel"), InvalidValueError, ("no execution strategy 'parallel'",)),
    (lambda f: Flow(max_workers=0), InvalidValueError, ("max_workers", "at least 1")),
    (lambda f: Flow(max_workers=True), InvalidTypeError, ("max_workers", "a whole number")),
    (lambda f: Flow(execution_timeout=0), InvalidValueError, ("execution_timeout", "more than 0")),
]


def connected(flow: Flow, mapping: Any) -> object:
    return flow.connect("c", "output", "b", "input", mapping=mapping)


@table(("action", "error", "fragments"), REFUSED)
def test_what_cannot_be_done_is_refused_and_changes_nothing(
    action: Callable[[Flow], object], error: type[RoutiluxError], fragments: tuple[str, ...]
) -> None:
    flow = chain("a", "b").set_entry("a").set_error_handler(ErrorHandler("skip"))
    flow.add_routine(TwoSlots(), "c")
    before, before_elsewhere = shape(flow), shape(elsewhere)
    refusal(lambda: action(flow), error, *fragments)
    assert (shape(flow), shape(elsewhere)) == (before, before_elsewhere)


CHANGES: list[Callable[[Flow], object]] = [
    lambda f: f.add_routine(Step()),
    lambda f: f.remove_routine("a"),
    lambda f: f.connect("b", "output", "a", "input"),
    lambda f: f.disconnect("a", "output", "b", "input"),
    lambda f: f.set_entry("b"),
    lambda f: f.set_error_handler(None),
]


@table("change", CHANGES)
def test_nothing_changes_while_a_worker_lives(change: Callable[[Flow], object]) -> None:
    flow = chain("a", "b")
    for worker_id in ("w1", "w2", "w1"):
        flow.hold(worker_id)
    before = shape(flow)
    fragments = ("flow 'line'", "2 live worker(s)", "stop them first")
    assert refusal(lambda: change(flow), FlowInUseError, *fragments).flow_id == "line"
    assert shape(flow) == before
    for worker_id in ("w1", "w2", "w1"):
        flow.let_go(worker_id)
    assert flow.in_use == 0
    change(flow)


MAPPINGS: list[tuple[dict[str, str] | None, dict[str, str] | None]] = [
    (None, None),
    ({}, None),
    ({"value": "x"}, {"value": "x"}),
    ({"value": "key", "key": "value"}, {"value": "key", "key": "value"}),
]


@table(("mapping", "kept"), MAPPINGS)
def test_a_mapping_belongs_to_the_connection(
    mapping: dict[str, str] | None, kept: dict[str, str] | None
) -> None:
    flow = Flow()
    flow.add_routine(Step(), "a")
    flow.add_routine(Step(), "b")
    connection = flow.connect("a", "output", "b", "input", mapping=mapping)
    if mapping:
        mapping["later"] = "change"
    assert connection.mapping == kept


def test_without_declared_parameters_any_key_can_be_renamed() -> None:
    source = Step()
    source.add_event("free")
    flow = Flow()
    flow.add_routine(source, "a")
    assert flow.connect("a", "free", "a", "input", mapping={"anything": "x"}).mapping == {"anything": "x"}


# -- fingerprint -------------------------------------------------------------------------------------------


def branched(*, order: int = 1, **change: Any) -> Flow:
    """a feeds b and c; made in one order or the other, and changed in one way."""
    flow = Flow(change.get("flow_id", "f"))
    made = {name: TwoSlots() for name in "abc"}
    for name in "abc"[::order]:
        flow.add_routine(made[name], name)
    for target in "bc"[::order]:
        flow.connect("a", "output", target, "input", mapping=change.get("mapping"))
    if "policy" in change:
        made["b"].set_activation_policy(change["policy"])
    if "slot" in change:
        made["b"].add_slot("new", merge_strategy=change["slot"])
    if "event" in change:
        made["b"].add_event("new")
    return flow


def test_the_fingerprint_does_not_depend_on_order_code_or_process() -> None:
    same = branched()
    same.routines["a"].set_logic(lambda a, b, c: None).set_config(x=1).set_concurrency(3)
    assert branched().fingerprint() == branched(order=-1).fingerprint() == same.fingerprint()
    code = "from tests.unit.model.test_flow import branched; print(branched().fingerprint())"
    other = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert other.stdout.strip() == branched().fingerprint()


def test_the_fingerprint_depends_on_the_shape() -> None:
    flows = [
        branched(),
        branched(flow_id="g"),
        branched(mapping={"value": "x"}),
        branched(policy=batch_size_policy(2)),
        branched(policy=batch_size_policy(3)),
        branched(policy=custom_policy(print)),
        branched(slot="queue"),
        branched(slot="append"),
        branched(slot=max),
        branched(event=True),
    ]
    assert len({flow.fingerprint() for flow in flows}) == len(flows)


# -- execution ---------------------------------------------------------------------------------------------


class Recorder:
    def __init__(self) -> None:
        self.calls: list[Any] = []

    def __getattr__(self, name: str) -> Callable[..., str]:
        return lambda *args: self.calls.append((name, *args)) or name


def test_execution_is_delegated_to_what_was_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_module, "_execution", None)
    flow = Flow()
    refusal(flow.execute, StateError, "import routilux.runtime")
    recorder = Recorder()
    bind_execution(recorder)
    answers = (
        flow.execute("a", {"x": 1}, timeout=3),
        flow.pause("state"),
        flow.resume("state"),
        flow.cancel("state"),
        flow.wait_for_completion("state", 5),
    )
    assert answers == ("execute", None, None, None, "wait_for_completion")
    assert recorder.calls == [
        ("execute", flow, "a", {"x": 1}, 3),
        ("pause", "state"),
        ("resume", "state"),
        ("cancel", "state"),
        ("wait_for_completion", "state", 5),
    ]
