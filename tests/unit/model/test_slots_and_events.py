from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from routilux.errors import DuplicateNameError, InvalidTypeError, InvalidValueError, RoutiluxError
from routilux.model.event import Event
from routilux.model.routine import Routine
from routilux.model.slot import Slot, merge
from tests.unit.model.samples import Step, declared, refusal, table


def add_slot(**settings: Any) -> Slot:
    return Routine().add_slot("a", **settings)


def settings_of(slot: Slot) -> object:
    return (
        slot.name,
        slot.handler,
        slot.merge_strategy,
        slot.merges,
        slot.max_queue_length,
        slot.watermark,
        slot.resume_length,
        slot.on_full,
        slot.type,
    )


def test_a_slot_has_these_settings_by_default() -> None:
    routine = Routine()
    slot = routine.add_slot("input")
    assert settings_of(slot) == ("input", None, "queue", False, 1000, 0.8, 800, "block", None)
    assert (slot.routine, dict(routine.slots)) == (routine, {"input": slot})


def test_an_event_has_these_settings_by_default() -> None:
    routine = Routine()
    event = routine.add_event("output")
    assert (event.name, event.routine, event.output_params, event.type) == ("output", routine, None, None)
    assert dict(routine.events) == {"output": event}
    assert routine.add_event("other", ["x", "y"]).output_params == ("x", "y")


def test_slots_and_events_can_be_defined_by_their_early_names() -> None:
    routine = Routine()
    slot, event = routine.define_slot("a"), routine.define_event("b", ["x"])
    assert (dict(routine.slots), dict(routine.events)) == ({"a": slot}, {"b": event})


def test_slots_and_events_are_qualified_by_their_routine() -> None:
    step = Step()
    assert (repr(step.slots["input"]), repr(step.events["output"])) == (
        "<Slot 'Step.input'>",
        "<Event 'Step.output'>",
    )


@table(
    ("length", "watermark", "resume"),
    [(1000, 0.8, 800), (10, 1, 9), (10, 0.05, 0), (1, 1.0, 0), (1, 0.1, 0), (3, 0.5, 1)],
)
def test_producers_go_on_below_the_capacity(length: int, watermark: float, resume: int) -> None:
    assert add_slot(max_queue_length=length, watermark=watermark).resume_length == resume


@pytest.mark.parametrize("name", ["input", "in put", "größe", "a-b", 'quo"te', "<b>", "x" * 200])
def test_these_are_names(name: str) -> None:
    routine = Routine()
    assert (routine.add_slot(name).name, routine.add_event(name).name) == (name, name)


REFUSED: list[tuple[Callable[[Routine], object], type[RoutiluxError], tuple[str, ...]]] = [
    (lambda r: r.add_slot(""), InvalidValueError, ("name of a slot", "printable")),
    (lambda r: r.add_slot(" a"), InvalidValueError, ("without space at its ends",)),
    (lambda r: r.add_slot("a\nb"), InvalidValueError, ("printable",)),
    (lambda r: r.add_slot("a\x00"), InvalidValueError, ("printable",)),
    (lambda r: r.add_slot("a.b"), InvalidValueError, ("without a dot", "use 'a_b'")),
    (lambda r: r.add_slot("x" * 201), InvalidValueError, ("at most 200",)),
    (lambda r: r.add_slot(3), InvalidTypeError, ("name of a slot", "3 (int)")),
    (lambda r: r.add_event("a.b"), InvalidValueError, ("name of an event", "use 'a_b'")),
    (lambda r: r.add_event(None), InvalidTypeError, ("name of an event",)),
    (
        lambda r: r.add_slot("input"),
        DuplicateNameError,
        ("routine Step", "slot 'input' already", "another name"),
    ),
    (lambda r: r.add_event("output"), DuplicateNameError, ("event 'output' already", "another name")),
    (lambda r: r.add_event("e", "result"), InvalidTypeError, ("output_params", "write ['result']")),
    (lambda r: r.add_event("e", [1]), InvalidTypeError, ("output_params", "1 (int)")),
    (
        lambda r: r.add_slot("s", max_queue_length=0),
        InvalidValueError,
        ("max_queue_length of slot 's'", "1 item"),
    ),
    (lambda r: r.add_slot("s", max_queue_length=True), InvalidTypeError, ("a whole number",)),
    (lambda r: r.add_slot("s", max_queue_length=1.5), InvalidTypeError, ("1.5",)),
    (lambda r: r.add_slot("s", watermark=0), InvalidValueError, ("watermark of slot 's'", "up to 1")),
    (lambda r: r.add_slot("s", watermark=1.1), InvalidValueError, ("watermark", "1.1")),
    (lambda r: r.add_slot("s", watermark=float("nan")), InvalidValueError, ("watermark",)),
    (lambda r: r.add_slot("s", watermark="1"), InvalidTypeError, ("watermark",)),
    (
        lambda r: r.add_slot("s", on_full="drop"),
        InvalidValueError,
        ("no on_full 'drop'", "'drop_new'", "'drop_old'"),
    ),
    (lambda r: r.add_slot("s", on_full=None), InvalidValueError, ("no on_full None",)),
    (
        lambda r: r.add_slot("s", merge_strategy="apend"),
        InvalidValueError,
        ("no merge strategy 'apend'", "'append'"),
    ),
    (lambda r: r.add_slot("s", merge_strategy=1), InvalidTypeError, ("merge_strategy",)),
    (lambda r: r.add_slot("s", handler="f"), InvalidTypeError, ("handler of slot 's'",)),
    (lambda r: r.add_slot("s", type=int), InvalidTypeError, ("type of slot 's'", "a dataclass, a TypedDict")),
    (lambda r: r.add_slot("s", type="Row"), InvalidTypeError, ("type of slot 's'", "'Row' (str)")),
    (lambda r: r.add_event("e", type=dict), InvalidTypeError, ("type of event 'e'", "pydantic model")),
]


@table(("action", "error", "fragments"), REFUSED)
def test_what_cannot_be_declared_is_refused_and_changes_nothing(
    action: Callable[[Routine], object], error: type[RoutiluxError], fragments: tuple[str, ...]
) -> None:
    step = Step()
    before = declared(step)
    refusal(lambda: action(step), error, *fragments)
    assert declared(step) == before


@pytest.mark.parametrize("attribute", ["name", "routine", "type", "max_queue_length", "output_params", "new"])
def test_a_declared_slot_or_event_cannot_be_changed(attribute: str) -> None:
    step = Step()
    for port in (step.slots["input"], step.events["output"]):
        with pytest.raises(AttributeError, match="cannot be changed"):
            setattr(port, attribute, 1)
        with pytest.raises(AttributeError, match="cannot be deleted"):
            delattr(port, attribute)


def keep_smaller(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    old.update(kept=min(old.get("kept", 9), new.pop("x")))
    return old


MERGES: list[tuple[Any, list[dict[str, Any]], dict[str, Any]]] = [
    ("queue", [{"a": 1}, {"b": 2}], {"b": 2}),
    ("override", [{"a": 1, "b": 1}, {"b": 2}], {"a": 1, "b": 2}),
    ("append", [{"a": 1}, {"a": 2, "b": 3}, {"b": 4}], {"a": [1, 2], "b": [3, 4]}),
    (keep_smaller, [{"x": 5}, {"x": 2}, {"x": 7}], {"kept": 2}),
]


@table(("strategy", "arriving", "merged"), MERGES)
def test_data_is_merged_and_no_argument_changed(
    strategy: Any, arriving: list[dict[str, Any]], merged: dict[str, Any]
) -> None:
    held: dict[str, Any] = {}
    for data in arriving:
        before, copies = (
            held,
            ({k: list(v) if isinstance(v, list) else v for k, v in held.items()}, dict(data)),
        )
        held = merge(strategy, held, data)
        assert (before, data) == copies
        assert held is not before
    assert held == merged


def test_a_merge_strategy_that_returns_no_dict_is_named() -> None:
    refusal(lambda: merge(lambda old, new: None, {}, {}), InvalidTypeError, "merge strategy", "None")


def test_a_slot_and_an_event_are_themselves_only() -> None:
    first, second = Step(), Step()
    assert first.slots["input"] != second.slots["input"]
    assert len({first.events["output"], second.events["output"]}) == 2
    assert isinstance(first.events["output"], Event)
