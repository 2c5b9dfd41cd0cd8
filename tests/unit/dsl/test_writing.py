"""What a flow is written as, and what cannot be written."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

import routilux
from routilux import ErrorHandler, Flow, Routine
from routilux.activation_policies import batch_size_policy, custom_policy, immediate_policy
from routilux.dsl import dumps_json, dumps_yaml, from_dict, loads_json, loads_yaml, to_dict
from routilux.errors import (
    ConfigurationError,
    FlowInUseError,
    InvalidTypeError,
    InvalidValueError,
    SerializationError,
    UnknownSlotError,
)
from tests.unit.dsl.samples import GOOD, HEAD, Anything, Branch, Read, Route, registry, work

REGISTRY = registry()


def flow_with(routine: Routine) -> Flow:
    flow = Flow("x")
    flow.add_routine(routine, "a")
    return flow


def refusal(routine: Routine) -> SerializationError:
    with pytest.raises(SerializationError) as caught:
        flow_with(routine).to_yaml(registry=REGISTRY)
    assert "routine 'a'" in str(caught.value)
    return caught.value


def test_export_import_export_is_the_identity() -> None:
    flow = loads_yaml(GOOD, registry=REGISTRY)
    assert flow.to_yaml(registry=REGISTRY) == GOOD
    text = flow.to_json(registry=REGISTRY)
    assert loads_json(text, registry=REGISTRY).to_json(registry=REGISTRY) == text
    assert loads_json(text, registry=REGISTRY).to_yaml(registry=REGISTRY) == GOOD
    data = flow.to_dict(registry=REGISTRY)
    assert from_dict(data, registry=REGISTRY).to_dict(registry=REGISTRY) == data == json.loads(text)
    assert Flow.from_dict(data, registry=REGISTRY).fingerprint() == flow.fingerprint()


def test_only_what_differs_from_the_class_is_written() -> None:
    flow = flow_with(Read().set_config(path="x").set_activation_policy(immediate_policy()))
    assert to_dict(flow, registry=REGISTRY) == {
        "version": 1,
        "flow_id": "x",
        "routines": {"a": {"class": "read", "config": {"path": "x"}}},
    }


def test_a_prototype_is_written_by_its_name_without_its_own_config() -> None:
    flow = Flow("x")
    flow.add_routine(REGISTRY.create("read_small", path="x"), "a")
    flow.add_routine(REGISTRY.create("read_small", path="x", size=6), "b")
    text = flow.to_yaml(registry=REGISTRY)
    assert text == (
        f"{HEAD}  a:\n    class: read_small\n    config:\n      path: x\n"
        "  b:\n    class: read_small\n    config:\n      size: 6\n      path: x\n"
    )
    again = loads_yaml(text, registry=REGISTRY)
    assert dict(again.routines["a"].config) == {"size": 5, "path": "x"}
    assert again.to_yaml(registry=REGISTRY) == text


def test_values_of_python_become_plain_data() -> None:
    routine = Branch().set_config(routes=[Route("storm", "wind > 8")], default="calm")
    data = to_dict(flow_with(routine), registry=REGISTRY)
    assert data["routines"]["a"]["config"]["routes"] == [{"name": "storm", "when": "wind > 8"}]
    again = flow_with(work().set_config(pair=(1, (2, 3))))
    assert to_dict(again, registry=REGISTRY)["routines"]["a"]["config"] == {"pair": [1, [2, 3]]}


@pytest.mark.parametrize(
    "value",
    [
        "", " ", "yes", "no", "on", "off", "NULL", "~", "true", "1", "1.5", "1e3", "0o17", "0x1f", "1_000", "1:30",
        "2024-01-01", ".inf", ".nan", "-", "- a", "a: b", "a #b", "#a", "[a]", "{a}", "*a", "&a", "!a", "|", ">", "%a",
        "@a", "`a`", "'a'", '"a"', "a\\b", "a\nb", "\ta", "a\r\n", "a\x00b", "\x85", "\u2028", "\ufeff", "\u202e",
        "größe", "😀", "<<", "=", "---", "...", "a,b", "?", "? a", ":", "a:", " a", "a ", "x" * 5000, "=1+2", "a  b",
        0, -1, 2**53 - 1, 0.1, 1e300, 1e-7, -0.0, True, False, None, [], {}, [[]], [{}], {"a": []},
        [[1, [2]], {"b": {}}],
        [{"a": 1, "b": [1]}, {"a": {"b": 1}}],
        {"yes": 1, "1": 2, "a b": 3, "": 4, "a: b": 5, "größe": 6, "\n": 7, "null": 8},
    ],
)  # fmt: skip
def test_every_value_comes_back_as_it_was(value: Any) -> None:
    flow = flow_with(work().set_config(x=value, nested={"x": value, "list": [value, [value]]}))
    for dumps, loads in ((dumps_yaml, loads_yaml), (dumps_json, loads_json)):
        text = dumps(flow, registry=REGISTRY)
        assert all(character == "\n" or character.isprintable() for character in text)
        again = loads(text, registry=REGISTRY)
        found = again.routines["a"].config
        assert repr(found["x"]) == repr(value)
        assert repr(found["nested"]) == repr({"x": value, "list": [value, [value]]})
        assert dumps(again, registry=REGISTRY) == text


class Unregistered(Routine):
    pass


def test_what_only_code_can_say_is_refused_by_name() -> None:
    assert "Unregistered, which is not registered; register it" in str(refusal(Unregistered()))
    anything = Anything().set_activation_policy(immediate_policy())
    assert "set_logic(), which is code" in str(refusal(anything.set_logic(lambda a, b, c: None)))
    assert "which is code" in str(refusal(Anything().set_activation_policy(custom_policy(lambda s, t: True))))
    more = Anything()
    more.add_slot("more")
    assert "slot 'more'" in str(refusal(more))
    event = Anything()
    event.add_event("more")
    assert refusal(event).path == "$.routines.a.events"
    assert "no policy" not in str(refusal(Read().set_config(path="x").set_timeout(None).set_logic(print)))


@pytest.mark.parametrize("value", [{1, 2}, b"x", object(), float("nan"), 2**53, "\ud800", {1: 2}, len])
def test_config_that_is_no_plain_data(value: Any) -> None:
    error = refusal(work().set_config(x=[{"y": value}]))
    assert error.path is not None
    assert error.path.startswith("$.routines.a.config.x[0].y")


def test_config_that_is_nested_too_deep() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(SerializationError, match="nested too deep"):
        flow_with(work().set_config(x=value)).to_yaml(registry=REGISTRY)


def test_settings_of_a_routine() -> None:
    anything = Anything().set_activation_policy(batch_size_policy(3)).set_concurrency(2).set_timeout(5)
    anything.set_error_handler(ErrorHandler("retry", retryable_exceptions=(OSError,)))
    anything.set_queue("right", max_queue_length=60, watermark=0.5, on_full="error")
    flow = flow_with(anything).set_entry("a", "left").describe("all of it")
    data = flow.to_dict(registry=REGISTRY)
    assert data["entry"] == "a.left"
    assert data["routines"]["a"] == {
        "class": "any",
        "activation": {"policy": "batch_size", "size": 3},
        "error_handler": {"strategy": "retry", "retryable_exceptions": ["OSError"]},
        "concurrency": 2,
        "timeout": 5.0,
        "slots": {"right": {"max_queue_length": 60, "watermark": 0.5, "on_full": "error"}},
    }
    assert Flow.from_dict(data, registry=REGISTRY).to_dict(registry=REGISTRY) == data


def test_lanes_of_a_routine() -> None:
    flow = flow_with(work().set_concurrency(20, by="customer"))
    data = flow.to_dict(registry=REGISTRY)
    assert data["routines"]["a"]["concurrency"] == {"limit": 20, "by": "customer"}
    read = Flow.from_dict(data, registry=REGISTRY)
    assert (read.routines["a"].concurrency, read.routines["a"].concurrency_by) == (20, "customer")
    assert read.to_dict(registry=REGISTRY) == data
    assert read.fingerprint() == flow_with(work()).fingerprint()


def test_names_that_no_document_holds() -> None:
    flow = Flow("größe")
    flow.add_routine(work(), "a")
    with pytest.raises(SerializationError, match="printable ASCII"):
        flow.to_yaml(registry=REGISTRY)


class Own(Routine):
    """Sets in its constructor what only code can say; that is its own, and need not be written."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("a", handler=self.take, merge_strategy=lambda old, new: {**old, **new})
        self.add_slot("b", handler=partial(self.take, more=1))
        self.set_activation_policy(custom_policy(self.decide))

    def take(self, **payload: Any) -> None:
        pass

    def decide(self, slots: Any, state: Any) -> bool:
        return True


class OwnLogic(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("a")
        self.set_logic(lambda slot_data, message, state: None)
        self.set_activation_policy(immediate_policy())


def test_code_that_the_class_sets_is_no_obstacle() -> None:
    own = registry().register(Own).register(OwnLogic)
    flow = flow_with(Own())
    flow.add_routine(OwnLogic(), "b")
    text = flow.to_yaml(registry=own)
    assert text == f"{HEAD}  a:\n    class: Own\n  b:\n    class: OwnLogic\n"
    assert loads_yaml(text, registry=own).to_yaml(registry=own) == text


def test_the_limits_of_a_slot_can_be_changed() -> None:
    anything = Anything()
    left = anything.slots["left"]
    anything.set_queue("left", max_queue_length=10).set_queue("left", watermark=0.5, on_full="error")
    assert anything.slots["left"] is left
    assert (left.max_queue_length, left.resume_length, left.on_full) == (10, 5, "error")
    with pytest.raises(InvalidValueError, match="at least 1 item"):
        anything.set_queue("left", on_full="block", max_queue_length=0)
    assert (left.max_queue_length, left.on_full) == (10, "error")
    with pytest.raises(UnknownSlotError, match="no slot 'lef'"):
        anything.set_queue("lef", max_queue_length=1)
    flow = flow_with(anything)
    flow.hold("worker")
    with pytest.raises(FlowInUseError):
        anything.set_queue("left", max_queue_length=1)


def test_descriptions_go_with_their_routine() -> None:
    flow = flow_with(Anything()).describe("all").describe("one", "a")
    assert (flow.description(), flow.description("a")) == ("all", "one")
    flow.remove_routine("a")
    flow.add_routine(Anything(), "a")
    assert flow.description("a") == ""
    with pytest.raises(InvalidTypeError):
        flow.describe(5)  # type: ignore[arg-type]


def test_the_names_of_the_dsl_are_public() -> None:
    assert routilux.RoutineRegistry is routilux.ObjectFactory
    assert issubclass(routilux.DslError, ConfigurationError)
    with pytest.raises(AttributeError, match="no attribute 'RoutineRegistri'"):
        _ = routilux.RoutineRegistri
