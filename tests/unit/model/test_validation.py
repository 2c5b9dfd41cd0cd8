from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from routilux.errors import (
    FlowValidationError,
    InvalidTypeError,
    InvalidValueError,
    MissingPolicyError,
    RoutiluxError,
    UnknownRoutineError,
    UnknownSlotError,
)
from routilux.model.entry import resolve_entry
from routilux.model.flow import Flow
from routilux.model.policy import all_slots_ready_policy, batch_size_policy, immediate_policy
from routilux.model.routine import Routine
from routilux.model.validation import Issue
from tests.unit.model.samples import Step, chain, refusal, table


def logic(slot_data: Any, policy_message: Any, state: Any) -> None: ...


async def later(**data: Any) -> None: ...


class TwoParameters(Routine):
    def logic(self, slot_data: Any, state: Any) -> None: ...


class Generating(Routine):
    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> Any:
        yield


class Logical(Routine):
    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None: ...


def join(*slots: str, policy: Any = None) -> Routine:
    routine = Logical().set_activation_policy(policy or all_slots_ready_policy())
    for slot in slots:
        routine.add_slot(slot)
    routine.add_event("output")
    return routine


def with_handlers(**handlers: Any) -> Routine:
    routine = Routine()
    for slot, handler in handlers.items():
        routine.add_slot(slot, handler=handler)
    return routine


def flow_of(**routines: Routine) -> Flow:
    flow = Flow("f")
    for routine_id, routine in routines.items():
        flow.add_routine(routine, routine_id)
    return flow


def one(routine: Routine, **slot: Any) -> Flow:
    """A flow of one routine with slot ``input``."""
    routine.add_slot("input", **slot)
    return flow_of(a=routine)


def source_and(target: Routine, slot: str, **flow_settings: Any) -> Flow:
    flow = Flow("f", **flow_settings)
    flow.add_routine(Step(), "source")
    flow.add_routine(target, "a")
    flow.connect("source", "output", "a", slot)
    return flow


def cycle(*ids: str) -> Flow:
    flow = chain(*ids)
    flow.connect(ids[-1], "output", ids[0], "input")
    return flow


def sequential(routine: Routine, **settings: Any) -> Flow:
    flow = Flow("f", execution_strategy="sequential", **settings)
    flow.add_routine(routine, "a")
    return flow


def beside(flow: Flow, routine: Routine, routine_id: str) -> Flow:
    flow.add_routine(routine, routine_id)
    return flow


FOUND: list[tuple[Callable[[], Flow], list[tuple[str, str, str, tuple[str, ...]]]]] = [
    # flows without issues
    (lambda: chain("a", "b", "c"), []),
    (lambda: cycle("a", "b").set_entry("a"), []),
    (lambda: source_and(join("x"), "x"), []),
    (lambda: flow_of(a=join("x", "y")), []),
    (lambda: flow_of(a=with_handlers(input=print)), []),
    (lambda: sequential(Step(), max_workers=1), []),
    # errors
    (lambda: Flow("f"), [("error", "empty-flow", "flow 'f'", ("add_routine()",))]),
    (
        lambda: one(Routine().set_logic(logic)),
        [
            (
                "error",
                "no-policy",
                "routine 'a'",
                ("immediate_policy()", "all_slots_ready_policy()", "batch_size_policy("),
            )
        ],
    ),
    (
        lambda: flow_of(a=Routine()),
        [
            ("error", "no-policy", "routine 'a'", ()),
            ("error", "no-logic", "routine 'a'", ("set_logic(fn)", "override logic()", "handler=")),
            ("warning", "no-slots", "routine 'a'", ("add_slot()",)),
        ],
    ),
    (
        lambda: one(TwoParameters().set_activation_policy(immediate_policy())),
        [
            (
                "error",
                "logic-signature",
                "routine 'a'",
                ("logic(slot_data, policy_message, state)", "(slot_data, state)"),
            )
        ],
    ),
    (
        lambda: one(Generating().set_activation_policy(immediate_policy())),
        [("error", "logic-signature", "routine 'a'", ("generator", "self.emit()"))],
    ),
    (
        lambda: one(Routine().set_logic(logic).set_activation_policy(immediate_policy()), handler=print),
        [("error", "logic-and-handlers", "routine 'a'", ("['input']", "keep one"))],
    ),
    (
        lambda: flow_of(a=with_handlers(x=print, y=None)),
        [("error", "slot-without-handler", "routine 'a'", ("['y']", "handler="))],
    ),
    (
        lambda: flow_of(a=with_handlers(x=lambda a, /, b: None)),
        [("error", "handler-signature", "routine 'a'", ("'a.x'", "positional-only"))],
    ),
    (
        lambda: one(Logical().set_activation_policy(batch_size_policy(11)), max_queue_length=10),
        [
            (
                "error",
                "batch-over-capacity",
                "slot 'a.input'",
                ("at most 10", "batch of 11", "max_queue_length=11"),
            )
        ],
    ),
    (
        lambda: one(
            Logical().set_activation_policy(immediate_policy()).set_concurrency(2), merge_strategy="append"
        ),
        [("error", "merge-overlap", "slot 'a.input'", ("overlap (2)", "set_concurrency(1)"))],
    ),
    (
        lambda: flow_of(
            a=Step().set_concurrency(2, by="customer").set_activation_policy(batch_size_policy(2))
        ),
        [("error", "lanes-policy", "routine 'a'", ("by='customer'", "several items", "immediate_policy()"))],
    ),
    # warnings
    (
        lambda: flow_of(a=with_handlers(x=print, y=later)),
        [("warning", "mixed-handlers", "routine 'a'", ("event loop",))],
    ),
    (
        lambda: sequential(Step(), max_workers=4),
        [("warning", "sequential-workers", "flow 'f'", ("max_workers=4", "concurrent"))],
    ),
    (
        lambda: sequential(Step().set_concurrency(2)),
        [("warning", "sequential-overlap", "routine 'a'", ("(2)", "concurrent"))],
    ),
    (
        lambda: flow_of(a=Step(), b=Step()),
        [("warning", "several-entries", "flow 'f'", ("['a', 'b']", "set_entry('a')"))],
    ),
    (
        lambda: flow_of(a=Step(), b=Step()).set_entry("b"),
        [("warning", "slot-not-fed", "slot 'a.input'", ("post()",))],
    ),
    (
        lambda: source_and(join("x", "y", policy=immediate_policy()), "x").set_entry("source"),
        [("warning", "slot-not-fed", "slot 'a.y'", ("connect an event",))],
    ),
    (
        lambda: source_and(join("x", "y"), "x").set_entry("source"),
        [("warning", "join-not-fed", "slot 'a.y'", ("an item in every slot",))],
    ),
    (
        lambda: source_and(join("x", "y", policy=batch_size_policy(2)), "y"),
        [
            ("warning", "several-entries", "flow 'f'", ("['source', 'a']",)),
            ("warning", "join-not-fed", "slot 'a.x'", ()),
        ],
    ),
    (
        lambda: chain("a", "b", "c").set_entry("b"),
        [("warning", "slot-not-fed", "slot 'a.input'", ())],
    ),
    (
        lambda: beside(cycle("b", "c"), Step(), "a"),
        [
            (
                "warning",
                "cycle-without-entry",
                "routine 'b'",
                ("b.output -> c.input -> c.output -> b.input", "'b'"),
            )
        ],
    ),
    (
        lambda: cycle("a"),
        [("warning", "cycle-without-entry", "routine 'a'", ("a.output -> a.input", "set_entry('a')"))],
    ),
    (
        lambda: fed_by_a_closed_cycle(),
        [
            ("warning", "cycle-without-entry", "routine 'a'", ()),
            ("warning", "unreachable", "routine 'c'", ("connect it, or remove it",)),
        ],
    ),
]


def fed_by_a_closed_cycle() -> Flow:
    flow = beside(cycle("a", "b"), Step(), "c")
    flow.connect("b", "output", "c", "input")
    return flow


@table(("make", "expected"), FOUND)
def test_issues(make: Callable[[], Flow], expected: list[tuple[str, str, str, tuple[str, ...]]]) -> None:
    issues = make().validate()
    assert [(issue.severity, issue.code, issue.where) for issue in issues] == [row[:3] for row in expected]
    for issue, row in zip(issues, expected, strict=True):
        assert [fragment for fragment in row[3] if fragment not in str(issue)] == []


def test_a_flow_without_errors_is_accepted_whatever_it_is_warned_about() -> None:
    for make, expected in FOUND:
        if all(row[0] == "warning" for row in expected):
            make().check()


def test_missing_policies_are_refused_by_name_with_three_to_choose_from() -> None:
    flow = flow_of(a=Logical(), b=Logical(), c=Step())
    error = refusal(
        flow.check,
        MissingPolicyError,
        "routine 'a', routine 'b' of flow 'f'",
        "never run",
        "immediate_policy()",
        "all_slots_ready_policy()",
        "batch_size_policy(n)",
    )
    assert isinstance(error, MissingPolicyError)
    assert (error.flow_id, list(error.issues)) == ("f", flow.validate())


def test_all_errors_are_refused_at_once() -> None:
    error = refusal(
        flow_of(a=Logical(), b=Routine().set_activation_policy(immediate_policy())).check,
        FlowValidationError,
        "flow 'f' cannot run, 2 problems:",
        "1. routine 'a': has no activation policy",
        "2. routine 'b': has no logic",
    )
    assert isinstance(error, FlowValidationError)
    assert {issue.code for issue in error.issues} == {"no-policy", "no-logic", "no-slots"}


def test_an_issue_reads_as_a_sentence() -> None:
    assert str(Issue("error", "x", "routine 'a'", "is wrong", "mend it")) == "routine 'a': is wrong; mend it"


# -- the entry ---------------------------------------------------------------------------------------------


def test_a_long_chain_is_checked_in_time() -> None:
    flow = chain(*(f"r{number}" for number in range(2_000)))
    assert flow.validate() == []


ENTRIES: list[tuple[Callable[[], Flow], tuple[str, str]]] = [
    (lambda: chain("a", "b"), ("a", "input")),
    (lambda: chain("a", "b").set_entry("b"), ("b", "input")),
    (lambda: flow_of(a=Step(), b=Step()).set_entry("b"), ("b", "input")),
    (lambda: cycle("a", "b").set_entry("b"), ("b", "input")),
    (lambda: flow_of(a=join("x", "y")).set_entry("a", "y"), ("a", "y")),
    (lambda: source_and(join("x", "y"), "x").set_entry("a"), ("a", "y")),
]


@table(("make", "expected"), ENTRIES)
def test_the_entry_is_what_was_set_else_the_one_slot_that_nothing_feeds(
    make: Callable[[], Flow], expected: tuple[str, str]
) -> None:
    assert make().resolve_entry() == expected


GIVEN: list[tuple[Callable[[], Flow], str, tuple[str, str]]] = [
    (lambda: chain("a", "b"), "b", ("b", "input")),
    (lambda: chain("a", "b").set_entry("a"), "b.input", ("b", "input")),
    (lambda: source_and(join("x", "y"), "x"), "a", ("a", "y")),
    (lambda: source_and(join("x", "y"), "x"), "a.x", ("a", "x")),
]


@table(("make", "given", "expected"), GIVEN)
def test_an_entry_that_is_given_goes_before_all_else(
    make: Callable[[], Flow], given: str, expected: tuple[str, str]
) -> None:
    assert resolve_entry(make(), given) == expected


@table(
    ("given", "error", "fragments"),
    [
        ("bb", UnknownRoutineError, ("no routine 'bb' in flow 'line'", "'b'")),
        ("b.x", UnknownSlotError, ("no slot 'x' in routine 'b'", "'input'")),
        (3, InvalidTypeError, ("entry", "'routine.slot'", "3 (int)")),
    ],
)
def test_an_entry_that_is_given_must_exist(
    given: Any, error: type[RoutiluxError], fragments: tuple[str, ...]
) -> None:
    refusal(lambda: resolve_entry(chain("a", "b"), given), error, *fragments)


NO_ENTRY: list[tuple[Callable[[], Flow], tuple[str, ...]]] = [
    (lambda: Flow("f"), ("flow 'f'", "no routine", "flow.add_routine(...)")),
    (
        lambda: cycle("a", "b"),
        ("flow 'line'", "no routine with a slot that nothing feeds", "flow.set_entry('a')"),
    ),
    (lambda: flow_of(a=Step(), b=Step()), ("several routines", "['a', 'b']", "flow.set_entry('a')")),
    (lambda: flow_of(a=join("x", "y")), ("several slots: ['x', 'y']", "set_entry('a', 'x')")),
    (lambda: flow_of(a=Routine()).set_entry("a"), ("routine 'a' has no slot", "add_slot()")),
]


@table(("make", "fragments"), NO_ENTRY)
def test_an_entry_that_is_not_clear_is_refused(make: Callable[[], Flow], fragments: tuple[str, ...]) -> None:
    refusal(make().resolve_entry, InvalidValueError, *fragments)


@pytest.mark.parametrize("error", [FlowValidationError, MissingPolicyError])
def test_a_refused_flow_is_a_value_error(error: type[RoutiluxError]) -> None:
    assert issubclass(error, ValueError)
