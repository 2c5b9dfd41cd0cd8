"""The built-in routines that look at what passes, and what is true of all built-in routines."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from routilux import ConfigurationError, Flow, Routine
from routilux import routines as built_in
from routilux.routines import BUILT_IN, Clock, Count, Log, Tap, Timing, utilities
from routilux.testing import RoutineTester
from tests.unit.routines.running import emitted, over_seeds, saved_in_the_middle, timed


class TestLog:
    @pytest.mark.parametrize(
        ("config", "level", "message"),
        [
            ({}, logging.INFO, "{'n': 1}"),
            ({"message": "n is {n}", "level": "warning"}, logging.WARNING, "n is 1"),
            ({"message": "n is {n}", "max_length": 3}, logging.INFO, "n i"),
        ],
    )
    def test_a_line_for_each_payload(
        self, config: Any, level: int, message: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        assert emitted(Log().set_config(**config), [{"n": 1}]) == [("output", {"n": 1})]
        lines = [(record.name, record.levelno, record.getMessage()) for record in caplog.records]
        assert ("routilux.routine.it", level, message) in lines

    def test_a_template_that_does_not_fit_is_told(self) -> None:
        assert [event for event, _ in emitted(Log().set_config(message="{x}"), [{"n": 1}])] == ["error"]


def test_tap_copies_to_the_output_log() -> None:
    with RoutineTester(Tap().set_config(name="seen", fields=["n"], every=2)) as tester:
        for n in range(3):
            tester.call("input", {"n": n, "x": n})
        assert tester.outputs == [("seen", {"n": 0}), ("seen", {"n": 2})]


class TestCount:
    @over_seeds
    def test_by_key(self, routilux_seed: int) -> None:
        found = emitted(Count().set_config(key="k"), [{"k": k} for k in "aba"], seed=routilux_seed)
        assert sorted((data["k"], data["count"]) for _, data in found) == [("a", 1), ("a", 2), ("b", 1)]

    def test_counts_are_saved(self, tmp_path: Path) -> None:
        found = saved_in_the_middle(Count, [{}, {}], [{}], tmp_path / "state")
        assert [data["count"] for _, data in found] == [1, 2, 3]


@over_seeds
def test_timing(routilux_seed: int) -> None:
    posts = [(time, "input", {}) for time in (0.0, 2.0, 5.0)]
    found = timed(Timing(), posts, seed=routilux_seed)
    assert [data["timing"]["since_last"] for _, _, data in found] == [None, 2.0, 3.0]
    assert [data["timing"]["waited"] for _, _, data in found] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("config", "time"),
    [
        ({}, "2024-10-27T00:30:00+00:00"),
        ({"zone": "Europe/Berlin"}, "2024-10-27T02:30:00+02:00"),
        ({"style": "date"}, "2024-10-27"),
        ({"style": "seconds"}, 1729989000.0),
    ],
)
def test_clock(config: Any, time: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = datetime(2024, 10, 27, 0, 30, tzinfo=UTC)
    monkeypatch.setattr(utilities, "now", moment.astimezone)
    assert emitted(Clock().set_config(**config), [{"n": 1}]) == [("output", {"n": 1, "time": time})]


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (Log, {"level": "loud"}),
        (Log, {"message": "{"}),
        (Tap, {"every": 0}),
        (Count, {"key": "a b"}),
        (Clock, {"zone": "Mars/Olympus"}),
        (Timing, {"name": ""}),
    ],
)
def test_config_that_cannot_work_is_refused(kind: type[Routine], config: dict[str, Any]) -> None:
    routine = kind()
    with pytest.raises(ConfigurationError):
        routine.set_config(**config)
    assert dict(routine.config) == {}


class TestAll:
    def test_every_class_has_a_name_and_is_exported(self) -> None:
        assert {kind.__name__ for kind in BUILT_IN.values()} | {"BUILT_IN"} == set(built_in.__all__)

    @pytest.mark.parametrize("name", BUILT_IN)
    def test_each_says_what_it_does_and_what_every_key_means(self, name: str) -> None:
        kind = BUILT_IN[name]
        assert kind.__doc__
        assert kind.config_type is not None
        fields = kind.config_type.__dataclass_fields__.values()
        assert [each.name for each in fields if not each.metadata.get("doc")] == []

    @pytest.mark.parametrize("name", BUILT_IN)
    def test_each_can_be_made_and_added_without_config(self, name: str) -> None:
        flow = Flow("fresh")
        flow.add_routine(BUILT_IN[name](), "it")
        assert flow.routines["it"].activation_policy is not None
