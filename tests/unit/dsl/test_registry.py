"""Routine types by name: registered, prototypes, and plugins that are really installed."""

from __future__ import annotations

from typing import Any

import pytest

from routilux import ErrorHandler, Flow, Routine, routine
from routilux.activation_policies import batch_size_policy
from routilux.dsl import ObjectFactory, RoutineRegistry
from routilux.errors import ConfigurationError, DuplicateNameError, InvalidTypeError, InvalidValueError
from tests.unit.dsl.samples import Read, registry, work


def test_classes_functions_factories_and_prototypes() -> None:
    own = registry().register(lambda: Read().set_config(path="made"), "factory", description="reads")
    assert type(own.create("read")) is Read
    assert own.get("read").description == "Reads a file."
    assert own.get("work").description == "Hands on what it gets."
    assert type(own.create("work")) is work
    assert own.create("factory").get_config("path") == "made"
    assert dict(own.create("read_small", path="x").config) == {"size": 5, "path": "x"}
    assert own.get("factory").description == "reads"
    assert {"read", "work", "factory", "read_small", "branch"} <= set(own)
    assert own.name_of(own.create("read_small")) == "read_small"
    assert own.name_of(Read()) == "read"
    assert own.name_of(Routine()) is None
    assert ObjectFactory is RoutineRegistry
    assert RoutineRegistry.get_instance() is RoutineRegistry.get_instance()


def test_as_a_decorator() -> None:
    own = RoutineRegistry(plugins=False)

    @own.routine("tidy", description="tidies")
    @routine
    def clean(**payload: Any) -> dict[str, Any]:
        return payload

    assert type(own.create("tidy")) is clean


def test_a_name_is_given_once() -> None:
    own = registry()
    for register in (
        lambda: own.register(work, "read"),
        lambda: own.register_prototype("read", "work"),
        lambda: own.register(work, "branch"),
    ):
        with pytest.raises(DuplicateNameError, match="exists already"):
            register()
    for name in ("immediate", "other"):
        with pytest.raises(DuplicateNameError):
            own.register_policy("other", lambda: None).register_policy(name, lambda: None)  # type: ignore[arg-type,return-value]
    assert type(own.unregister("read").register(work, "read").create("read")) is work


def test_an_unknown_name_comes_with_the_nearest() -> None:
    own = registry()
    with pytest.raises(
        InvalidValueError, match=r"no routine type 'raed' in the registry; .*'read'"
    ) as caught:
        own.create("raed")
    assert "register it" in str(caught.value)
    with pytest.raises(InvalidValueError):
        own.unregister("raed")
    with pytest.raises(InvalidValueError, match="no activation policy 'x'"):
        own.policy("x")
    with pytest.raises(InvalidValueError, match="no activation policy 'x'"):
        own.unregister_policy("x")
    with pytest.raises(InvalidValueError, match="policy 'immediate' is built in"):
        own.unregister_policy("immediate")
    for name in (5, None, ["read"]):
        with pytest.raises(InvalidValueError, match="no routine type"):
            own.get(name)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match=r"write @registry.routine\(\) or"):
        own.routine(Read)  # type: ignore[arg-type]


class Wrong(Routine):
    def __init__(self, path: str = "") -> None:
        super().__init__()


def fail() -> Routine:
    raise OSError("no disk")


@pytest.mark.parametrize(
    ("source", "name", "message"),
    [
        (5, "x", "expected a class of routines"),
        (int, "x", "a subclass of Routine"),
        (Wrong, "x", "has parameters"),
        (lambda: 5, "x", "expected a routine"),
        (fail, "x", "routine type 'x': its factory fail.. raised OSError: no disk"),
        (
            Read(),
            "x",
            r"expected a class of routines, or a factory, .*write register_prototype\('x', routine\)",
        ),
        (work, "größe", "in ASCII"),
        (work, "a b", "in ASCII"),
        (work, "", "in ASCII"),
        (work, ".a", "in ASCII"),
        (work, 5, "expected text"),
    ],
)
def test_what_cannot_be_registered(source: Any, name: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        RoutineRegistry(plugins=False).register(source, name)


def test_a_routine_can_be_the_prototype_of_others() -> None:
    own, handler = registry(), ErrorHandler("skip")
    model = Read().set_config(path="in.csv", size=7).set_activation_policy(batch_size_policy(3))
    model.set_error_handler(handler).set_concurrency(2).set_timeout(9).set_queue("path", max_queue_length=5)
    own.register_prototype("read_sevens", model, {"mode": "columns"})
    model.set_config(size=8).set_concurrency(4)  # comes too late to be taken over
    made = own.create("read_sevens", path="x.csv")
    assert (type(made), dict(made.config)) == (Read, {"path": "x.csv", "size": 7, "mode": "columns"})
    assert (made.activation_policy, made.error_handler, made.concurrency, made.timeout) == (
        batch_size_policy(3),
        handler,
        2,
        9.0,
    )
    assert (made.slots["path"].max_queue_length, own.get("read_sevens").description) == (5, "Reads a file.")


def test_a_document_names_a_prototype_and_says_what_differs() -> None:
    own = registry().register_prototype("read_threes", Read().set_activation_policy(batch_size_policy(3)))
    flow = Flow("x")
    flow.add_routine(own.create("read_threes", path="a.csv"), "a")
    document = {"a": {"class": "read_threes", "config": {"path": "a.csv"}}}
    assert flow.to_dict(registry=own)["routines"] == document
    loaded = Flow.from_dict(flow.to_dict(registry=own), registry=own)
    assert loaded.routines["a"].activation_policy == batch_size_policy(3)


def test_logic_of_a_prototype_is_taken_over_and_ports_of_its_own_are_refused() -> None:
    def logic(slot_data: Any, policy_message: Any, state: Any) -> None: ...

    own = registry().register_prototype("silent", Read().set_logic(logic))
    assert own.create("silent").own_logic is logic
    model = Read()
    model.add_event("more")
    with pytest.raises(InvalidValueError, match="event 'more' of routine Read is not declared by its class"):
        own.register_prototype("more", model)
    with pytest.raises(InvalidTypeError, match="config of prototype 'x': expected a mapping"):
        own.register_prototype("x", "read", 5)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="a class of routines, or a factory, got 5"):
        own.register_prototype("x", 5)  # type: ignore[arg-type]
    assert "x" not in own


def test_a_prototype_with_a_wrong_config_is_refused_where_it_is_written() -> None:
    with pytest.raises(InvalidValueError, match="no config key 'siz'"):
        registry().register_prototype("small", "read", {"siz": 5})
    with pytest.raises(InvalidTypeError, match="a class or a function"):
        registry().register_policy("x", 5)  # type: ignore[arg-type]
