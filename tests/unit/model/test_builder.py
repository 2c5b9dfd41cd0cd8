from __future__ import annotations

from collections.abc import Callable
from typing import Any

from routilux.errors import (
    FlowValidationError,
    InvalidTypeError,
    InvalidValueError,
    MissingPolicyError,
    RoutiluxError,
    UnknownRoutineError,
)
from routilux.model.builder import FlowBuilder
from routilux.model.flow import Flow
from routilux.model.policy import batch_size_policy
from routilux.model.recovery import ErrorHandler
from routilux.model.routine import Routine
from tests.unit.model.samples import Step, refusal, table


class NoPolicy(Routine):
    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None: ...


class WithParameters(Step):
    def __init__(self, size: int = 1) -> None:
        super().__init__()


class Failing(Step):
    def __init__(self) -> None:
        raise OSError("no disk")


SHARED = Step()


def test_a_flow_is_built_in_one_expression() -> None:
    step, handler = Step(), ErrorHandler("skip")
    flow = (
        FlowBuilder("etl", execution_strategy="concurrent", max_workers=2, execution_timeout=9)
        .connect("a.output", "b.input", mapping={"value": "x"})
        .connect("b.output", "c.input")
        .entry("b.input")
        .add(Step, "a", {"size": 3})
        .add(step, "b")
        .add(lambda: Step(), "c")
        .add(Step)
        .error_handler(handler)
        .build()
    )
    assert (flow.flow_id, flow.execution_strategy, flow.max_workers, flow.execution_timeout) == (
        "etl",
        "concurrent",
        2,
        9.0,
    )
    assert (list(flow.routines), flow.routines["b"], dict(flow.routines["a"].config)) == (
        ["a", "b", "c", "Step"],
        step,
        {"size": 3},
    )
    assert [str(connection) for connection in flow.connections] == [
        "a.output -> b.input",
        "b.output -> c.input",
    ]
    assert (flow.connections[0].mapping, flow.entry, flow.error_handler) == (
        {"value": "x"},
        ("b", "input"),
        handler,
    )


def test_a_builder_of_classes_builds_again_and_again() -> None:
    builder = FlowBuilder("etl").add(Step, "a").entry("a")
    first, second = builder.build(), builder.build()
    assert (first.entry, second.entry) == (("a", None), ("a", None))
    assert first.routines["a"] is not second.routines["a"]


def test_names_are_made_into_routines_by_what_was_given() -> None:
    made: list[str] = []

    def create(name: str) -> Routine:
        made.append(name)
        return Step()

    flow = FlowBuilder(create=create).add("read_csv", "read").add("log").build()
    assert (made, list(flow.routines)) == (["read_csv", "log"], ["read", "Step"])


def test_what_was_said_can_be_taken_back() -> None:
    flow = (
        FlowBuilder("etl")
        .add(Step, "a")
        .add(Step, "b")
        .add(NoPolicy, "c")
        .connect("a.output", "b.input", mapping={"value": "x"})
        .connect("b.output", "c.input")
        .connect("b.output", "a.input")
        .entry("c")
        .remove("c")
        .disconnect("a.output", "b.input")
        .connect("a.output", "b.input")
        .build()
    )
    assert (list(flow.routines), [str(each) for each in flow.connections], flow.entry) == (
        ["a", "b"],
        ["b.output -> a.input", "a.output -> b.input"],
        None,
    )
    assert flow.connections[1].mapping is None


def test_a_routine_is_set_up_where_it_is_added() -> None:
    handler = ErrorHandler("skip")
    flow = (
        FlowBuilder("etl")
        .describe("moves things")
        .add(
            Step,
            "a",
            {"size": 3},
            activation=batch_size_policy(5),
            error_handler=handler,
            concurrency=2,
            timeout=9,
            slots={"input": {"max_queue_length": 7, "on_full": "error"}},
            description="takes steps",
        )
        .build()
    )
    step = flow.routines["a"]
    assert (
        dict(step.config),
        step.activation_policy,
        step.error_handler,
        step.concurrency,
        step.timeout,
    ) == (
        {"size": 3},
        batch_size_policy(5),
        handler,
        2,
        9.0,
    )
    assert (step.slots["input"].max_queue_length, step.slots["input"].on_full) == (7, "error")
    assert (flow.description(), flow.description("a")) == ("moves things", "takes steps")


def test_without_that_names_are_those_of_a_document() -> None:
    flow = (
        FlowBuilder("storms", execution_strategy="sequential")
        .add("read_csv", "read")
        .add("filter", "storms", config={"when": "wind > 8"})
        .connect("read.row", "storms.input", mapping={"speed": "wind"})
        .entry("read.path")
        .build()
    )
    assert flow.to_dict() == Flow.from_dict(flow.to_dict()).to_dict()
    assert flow.to_dict()["routines"]["storms"] == {"class": "filter", "config": {"when": "wind > 8"}}
    wrong = FlowBuilder("storms").add("filter", "storms", config={"when": "wind >"})
    refusal(wrong.build, FlowValidationError, "config.when")


def test_all_problems_are_found_at_once() -> None:
    builder = (
        FlowBuilder("etl")
        .add(Step, "a")
        .add(Step, "a")
        .add(NoPolicy, "b")
        .add(WithParameters, "c")
        .connect("a.outptu", "b.input")
        .connect("a.output", "d.input")
        .connect("c.output", "a.input")
        .connect("a", "b.x.y")
        .entry("e")
    )
    error = refusal(builder.build, FlowValidationError, "flow 'etl' cannot run, 7 problems:")
    assert isinstance(error, FlowValidationError)
    assert [(i.code, i.where) for i in error.issues if i.severity == "error"] == [
        ("duplicate-name", "routine 'a'"),
        ("invalid-type", "routine 'c'"),
        ("unknown-event", "connection a.outptu -> b.input"),
        ("unknown-routine", "connection a.output -> d.input"),
        ("invalid-value", "connection a -> b.x.y"),
        ("unknown-routine", "entry e"),
        ("no-policy", "routine 'b'"),
    ]


def test_what_follows_only_from_another_problem_is_not_reported() -> None:
    builder = (
        FlowBuilder("etl").add(Step, "b").add(WithParameters, "a").connect("a.output", "b.input").entry("a")
    )
    refusal(builder.build, FlowValidationError, "1 problem:", "WithParameters")


@table(
    ("kind", "settings", "said"),
    [
        ("merge", {"config": {"inputs": ["left", "right"], "by": "id"}}, "config.by"),
        ("merge", {"config": {"inputs": ["left", "right"], "need": 3}}, "config.need"),
        (NoPolicy, {"activation": "now"}, "expected an activation policy, got 'now'"),
        (
            Step,
            {"activation": batch_size_policy(2_000), "slots": {"input": {"max_queue_length": "x"}}},
            "got 'x'",
        ),
    ],
)
def test_what_follows_only_from_a_setting_that_is_refused_is_not_reported(
    kind: Any, settings: dict[str, Any], said: str
) -> None:
    builder = FlowBuilder("etl").add(kind, "a", **settings).add(Step, "b")
    if kind == "merge":
        builder.connect("b.output", "a.left").entry("a.left")
    refusal(builder.build, FlowValidationError, "1 problem:", said)


def test_a_flow_that_only_lacks_policies_is_refused_as_such() -> None:
    refusal(FlowBuilder("etl").add(NoPolicy, "b").build, MissingPolicyError, "routine 'b' of flow 'etl'")


def test_routine_objects_are_free_again_after_a_refusal() -> None:
    step = Step()
    refusal(FlowBuilder().add(step, "a").entry("b").build, FlowValidationError)
    assert step.flow is None
    assert FlowBuilder().add(step, "a").build().routines["a"] is step


@table(
    ("build", "error", "fragments"),
    [
        (
            FlowBuilder().add(3).build,
            FlowValidationError,
            ("add()", "a routine, a class of routines or a factory"),
        ),
        (FlowBuilder().add("lgo").build, FlowValidationError, ("no routine type 'lgo'", "'log'")),
        (FlowBuilder().add(Failing).build, FlowValidationError, ("Failing() raised OSError: no disk",)),
        (FlowBuilder().add(Step, "a", ["x"]).build, FlowValidationError, ("config of", "['x'] (list)")),
        (FlowBuilder().add(Step, "a", {1: 2}).build, FlowValidationError, ("config of", "text keys")),
        (
            FlowBuilder().add(Step, "a", activation="immediate", concurrency=0, timeout="x").build,
            FlowValidationError,
            ("3 problems:", "an activation policy", "at least 1", "a number of seconds"),
        ),
        (
            FlowBuilder().add(Step, "a", slots={"inptu": {"on_full": "error"}}).build,
            FlowValidationError,
            ("no slot 'inptu'", "'input'"),
        ),
        (
            FlowBuilder().add(Step, "a", slots={"input": {"max_length": 5}}).build,
            FlowValidationError,
            ("no limit 'max_length' of slot 'input'", "'max_queue_length'"),
        ),
        (
            FlowBuilder().add(Step, "a", slots={"input": 5}).build,
            FlowValidationError,
            ("its limits", "5 (int)"),
        ),
        (FlowBuilder().add(Step, "a", slots=["input"]).build, FlowValidationError, ("slot to limits",)),
        (FlowBuilder().add(Step, "a", description=5).build, FlowValidationError, ("description", "text")),
        (
            FlowBuilder().add(SHARED, "a").add(SHARED, "b").build,
            FlowValidationError,
            ("belongs to this flow",),
        ),
        (lambda: FlowBuilder(create=5), InvalidTypeError, ("FlowBuilder(create)", "5 (int)")),
        (
            lambda: FlowBuilder().add(Step, "read").remove("raed"),
            UnknownRoutineError,
            ("no routine 'raed' in this builder", "'read'"),
        ),
        (
            lambda: FlowBuilder().connect("a.out", "b.in").disconnect("a.out", "b.inn"),
            InvalidValueError,
            ("no connection 'a.out -> b.inn' in this builder", "'a.out -> b.in'"),
        ),
        (FlowBuilder().add(dict).build, FlowValidationError, ("what dict() made", "{} (dict)")),
        (FlowBuilder("a\nb").build, InvalidValueError, ("name of a flow",)),
        (FlowBuilder(max_workers="2").build, InvalidTypeError, ("max_workers",)),
        (FlowBuilder("f").build, FlowValidationError, ("has no routines",)),
        (FlowBuilder().add(Step, "a").entry("a.").build, FlowValidationError, ("'routine.slot'",)),
        (FlowBuilder().add(Step, "a").error_handler("skip").build, FlowValidationError, ("an ErrorHandler",)),
    ],
)
def test_what_cannot_be_built_is_named(
    build: Callable[[], object], error: type[RoutiluxError], fragments: tuple[str, ...]
) -> None:
    refusal(build, error, *fragments)


def test_lanes_of_a_routine() -> None:
    flow = FlowBuilder("lanes").add(Step, "a", concurrency=20, concurrency_by="customer").build()
    step = flow.routines["a"]
    assert (step.concurrency, step.concurrency_by) == (20, "customer")
    kept = FlowBuilder("kept").add(Step().set_concurrency(3, by="customer"), "a", concurrency=5).build()
    assert (kept.routines["a"].concurrency, kept.routines["a"].concurrency_by) == (5, "customer")
