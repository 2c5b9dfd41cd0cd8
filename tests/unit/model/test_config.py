"""Declared config: what a class says about its keys, and what becomes of values that do not fit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from routilux import Flow, Routine
from routilux.errors import ConfigurationError, InvalidTypeError, InvalidValueError
from routilux.model.config import check_config, declared_fields


@dataclass
class Route:
    name: str
    when: str = field(default="True", metadata={"expression": True})


@dataclass
class Config:
    path: str = field(metadata={"doc": "the file to read"})
    size: int = field(default=100, metadata={"min": 1, "max": 1000})
    share: float = 0.5
    mode: str = field(default="rows", metadata={"choices": ("rows", "columns")})
    unit: Literal["s", "ms"] = "s"
    routes: list[Route] = field(default_factory=list)
    names: dict[str, int] | None = None
    pair: tuple[int, int] = (0, 0)


class Read(Routine):
    config_type = Config


def problems(**values: Any) -> list[tuple[str, tuple[str | int, ...]]]:
    return [(problem.kind, problem.path) for problem in check_config(Read, values)]


def test_the_fields_in_their_order_with_defaults_and_options() -> None:
    fields = declared_fields(Read) or []
    assert [each.name for each in fields][:3] == ["path", "size", "share"]
    assert fields[0].required
    assert fields[0].doc == "the file to read"
    assert (fields[1].default, fields[1].min, fields[1].max) == (100, 1, 1000)
    assert declared_fields(Routine) is None


@pytest.mark.parametrize(
    ("values", "kind", "path"),
    [
        ({}, "missing", ("path",)),
        ({"path": 1}, "type", ("path",)),
        ({"path": "a", "size": True}, "type", ("size",)),
        ({"path": "a", "size": 1.0}, "type", ("size",)),
        ({"path": "a", "size": 0}, "value", ("size",)),
        ({"path": "a", "size": 1001}, "value", ("size",)),
        ({"path": "a", "share": "x"}, "type", ("share",)),
        ({"path": "a", "mode": "row"}, "value", ("mode",)),
        ({"path": "a", "unit": "h"}, "value", ("unit",)),
        ({"path": "a", "routes": {}}, "type", ("routes",)),
        ({"path": "a", "routes": [{"when": "x"}]}, "missing", ("routes", 0, "name")),
        ({"path": "a", "routes": [{"name": "x", "wen": "x"}]}, "unknown", ("routes", 0, "wen")),
        ({"path": "a", "names": {"x": "y"}}, "type", ("names", "x")),
        ({"path": "a", "pair": [1]}, "value", ("pair",)),
        ({"path": "a", "pth": 1}, "unknown", ("pth",)),
    ],
)
def test_what_does_not_fit_is_found_at_its_place(
    values: dict[str, Any], kind: str, path: tuple[str | int, ...]
) -> None:
    assert problems(**values) == [(kind, path)]


def test_what_fits_is_no_problem() -> None:
    route = Route("x")
    assert problems(path="a", size=1, share=1, unit="ms", routes=[{"name": "x"}, route], names=None) == []
    assert problems(path="a", names={"x": 1}, pair=[1, 2]) == []


def test_set_config_refuses_and_changes_nothing() -> None:
    read = Read().set_config(path="a")
    with pytest.raises(
        InvalidValueError, match=r"no config key 'pth' of routine Read; the nearest .* 'path'"
    ):
        read.set_config(size=5, pth="b")
    with pytest.raises(InvalidTypeError, match=r"config.size of routine Read: expected a whole number"):
        read.set_config(size="5")
    with pytest.raises(InvalidValueError, match="at most 1000"):
        read.set_config(size=5000)
    assert dict(read.config) == {"path": "a"}


def test_get_config_knows_the_declared_default() -> None:
    read = Read()
    assert (read.get_config("size"), read.get_config("size", 7), read.get_config("other", 5)) == (100, 7, 5)
    with pytest.raises(
        InvalidValueError, match=r"no config key 'siez' of routine Read; .*'size'.*; or give a default"
    ):
        read.get_config("siez")


def test_ports_that_depend_on_the_config() -> None:
    class Branch(Routine):
        def config_changed(self) -> None:
            if "bad" in self.config.values():
                raise InvalidValueError("not this one")
            for name in self.config:
                if name not in self.events:
                    self.add_event(name)

    branch = Branch().set_config(storm=1, calm=2)
    assert list(branch.events) == ["storm", "calm"]
    with pytest.raises(InvalidValueError):
        branch.set_config(other="bad")
    assert list(branch.config) == ["storm", "calm"]


def test_a_config_type_that_is_no_dataclass() -> None:
    class Wrong(Routine):
        config_type = int

    with pytest.raises(ConfigurationError, match="no dataclass"):
        Wrong().set_config(a=1)


def test_a_flow_is_refused_while_a_required_key_is_missing() -> None:
    flow = Flow("reading")
    flow.add_routine(Read(), "read")
    issues = [issue for issue in flow.validate() if issue.code == "config-missing"]
    assert [(issue.severity, issue.where) for issue in issues] == [("error", "routine 'read'")]
    assert "'path' is required" in issues[0].message
    assert issues[0].fix == "call set_config(path=...)"
    flow.routines["read"].set_config(path="a")
    assert [issue for issue in flow.validate() if issue.code.startswith("config")] == []
