"""The JSON Schema of documents: what is registered is what it allows."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from routilux.dsl import loads_yaml, schema, to_dict
from tests.unit.dsl.samples import GOOD, registry

jsonschema = pytest.importorskip("jsonschema")
REGISTRY = registry()


@pytest.fixture(scope="module")
def validator() -> Any:
    made = schema(REGISTRY)
    assert json.loads(json.dumps(made)) == made
    jsonschema.Draft202012Validator.check_schema(made)
    return jsonschema.Draft202012Validator(made)


@pytest.fixture
def document() -> dict[str, Any]:
    return copy.deepcopy(to_dict(loads_yaml(GOOD, registry=REGISTRY), registry=REGISTRY))


def test_it_allows_what_the_loader_allows(validator: Any, document: dict[str, Any]) -> None:
    validator.validate(document)
    document["routines"]["save"]["class"] = "mypkg.work.clean"
    validator.validate(document)
    for handler in (
        {},
        {"strategy": "skip"},
        {"strategy": "retry", "max_retries": 3, "on_exhausted": "skip"},
    ):
        document["routines"]["save"]["error_handler"] = handler
        validator.validate(document)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d.update(version=2),
        lambda d: d.update(extra=1),
        lambda d: d.pop("flow_id"),
        lambda d: d["routines"].update(x={"class": "raed"}),
        lambda d: d["routines"].update(x={"class": "read"}),
        lambda d: d["routines"]["read"]["config"].update(size=0),
        lambda d: d["routines"]["read"]["config"].update(siz=5),
        lambda d: d["routines"]["read"]["config"].update(mode="x"),
        lambda d: d["routines"]["read"].update(activation={"policy": "batch_size"}),
        lambda d: d["routines"]["read"].update(error_handler={"strategy": "rety"}),
        lambda d: d["routines"]["read"].update(error_handler={"strategy": "skip", "max_retries": 3}),
        lambda d: d["routines"]["read"].update(error_handler={"max_retries": 3}),
        lambda d: d["routines"]["choose"]["config"]["routes"].append({"when": "x"}),
        lambda d: d["connections"].append({"from": "a", "to": "b.c"}),
        lambda d: d["execution"].update(timeout=0),
    ],
    ids=map(str, range(15)),
)
def test_it_refuses_what_the_loader_refuses(
    validator: Any, document: dict[str, Any], spoil: Callable[[dict[str, Any]], object]
) -> None:
    spoil(document)
    assert not validator.is_valid(document)


def test_it_describes_what_is_registered() -> None:
    made = schema(REGISTRY)
    names = [each.get("const") for each in made["$defs"]["routine"]["properties"]["class"]["anyOf"]]
    assert {"read", "read_small", "work", "branch"} <= set(names)
    assert made["$defs"]["config.read"]["properties"]["size"] == {
        "type": "integer", "minimum": 1, "maximum": 1000, "default": 100,
    }  # fmt: skip
    assert made["$defs"]["config.read"]["properties"]["path"]["description"] == "the file"
    assert made["$defs"]["config.read"]["required"] == ["path"]
