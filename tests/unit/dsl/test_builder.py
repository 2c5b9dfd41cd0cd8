"""A builder says all that a document can say, and is refused for the same reasons."""

from __future__ import annotations

from typing import Any

import pytest

from routilux import ErrorHandler, Flow, FlowBuilder, RoutineRegistry
from routilux.activation_policies import batch_size_policy
from routilux.dsl import DslError
from routilux.errors import FlowValidationError
from tests.unit.dsl.samples import GOOD, HEAD, registry


def test_a_builder_can_say_all_that_a_document_can() -> None:
    own = registry()
    flow = (
        FlowBuilder(
            "weather",
            execution_strategy="concurrent",
            max_workers=4,
            execution_timeout=300,
            create=own.create,
        )
        .describe("Storm days")
        .error_handler(ErrorHandler("retry", retry_delay=0.5))
        .entry("read.path")
        .add(
            "read",
            "read",
            {"path": "in.csv"},
            activation=batch_size_policy(2),
            error_handler=ErrorHandler("skip"),
            concurrency=3,
            timeout=2.5,
            slots={"path": {"max_queue_length": 5, "on_full": "drop_old"}},
            description="one: file",
        )
        .add("choose", "choose", {"routes": [{"name": "storm", "when": "wind > 8"}]})
        .add("work", "save")
        .connect("read.row", "choose.input", mapping={"date": "day"})
        .connect("choose.storm", "save.input")
        .build()
    )
    assert flow.to_yaml(registry=own) == GOOD
    assert flow.fingerprint() == Flow.from_yaml(GOOD, registry=own).fingerprint()


def test_names_are_those_of_the_default_registry() -> None:
    flow = FlowBuilder("f").add("filter", "keep", {"when": "n > 1"}).build()
    assert type(flow.routines["keep"]) is RoutineRegistry.get_instance().get("filter").routine_class


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"source": "raed"}, "  a: {class: raed}\n", "raed"),
    ({"config": {"siz": 5}}, "  a: {class: read, config: {path: x, siz: 5}}\n", "siz'"),
    ({"config": {"path": "x", "size": 0}}, "  a: {class: read, config: {path: x, size: 0}}\n", "size"),
    ({}, "  a: {class: read}\n", "path"),
    ({"timeout": 0}, "  a: {class: read, config: {path: x}, timeout: 0}\n", "more than 0 seconds"),
]


@pytest.mark.parametrize(("options", "text", "fragment"), WRONG, ids=[row[2] for row in WRONG])
def test_both_refuse_the_same(options: dict[str, Any], text: str, fragment: str) -> None:
    own = registry()
    given = {"source": "read", "config": {"path": "x"} if "timeout" in options else None, **options}
    builder = FlowBuilder("x", create=own.create).add(given.pop("source"), "a", **given)
    with pytest.raises(FlowValidationError) as built:
        builder.build()
    with pytest.raises(DslError) as loaded:
        Flow.from_yaml(HEAD + text, registry=own)
    assert fragment in str(built.value)
    assert fragment in str(loaded.value)
