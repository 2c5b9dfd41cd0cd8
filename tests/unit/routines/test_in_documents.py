"""The built-in routines in flows that are written as documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from routilux import Flow
from routilux.dsl.schema import schema
from routilux.routines import BUILT_IN
from routilux.testing import SimulatedRuntime

WEATHER = """\
version: 1
flow_id: seattle_weather
description: Storm days and monthly totals from daily observations
execution: {strategy: concurrent, timeout: 300}
error_handler: {strategy: retry, max_retries: 3, retry_delay: 0.5, retry_backoff: 2.0}
entry: read.path                     # routine.slot
routines:
  read:    {class: read_csv}
  check:   {class: validate, config: {schema: {type: object, required: [date, precipitation]}}}
  split:   {class: branch, config: {routes: [{name: storm, when: "wind > 8 and precipitation > 20"}], default: calm}}
  monthly: {class: reduce, config: {key: "date[0:7]", fields: {rain: {sum: precipitation}, hottest: {max: temp_max}}}}
  save:    {class: write_jsonl, config: {path: out/storms.jsonl}}
connections:
  - {from: read.row, to: check.input}
  - {from: check.valid, to: split.input}
  - {from: check.valid, to: monthly.input}
  - {from: split.storm, to: save.input, mapping: {date: day}}
"""

CONFIGS: dict[str, dict[str, Any]] = {
    "merge": {"inputs": ["a", "b"], "by": "key", "key": "id", "timeout": 5},
    "branch": {"routes": [{"name": "big", "when": "n > 1"}]},
    "batch": {"size": 7, "age": 2.5},
    "debounce": {"seconds": 1, "key": "id"},
    "throttle": {"items": 2, "excess": "drop"},
    "delay": {"seconds": 1.5},
    "approve": {"key": "id", "timeout": 60},
    "filter": {"when": "n > 1"},
    "reduce": {"fields": {"total": {"sum": "n"}}, "every": 10},
    "validate": {"schema": {"type": "object"}},
    "pick": {"keys": ["a"]},
    "sort": {"by": "n"},
    "template": {"template": "{a}"},
    "clip": {"length": 10},
    "regex_extract": {"pattern": "(a+)+"},
    "change_case": {"case": "snake"},
    "write_csv": {"path": "out.csv", "columns": ["a"]},
    "write_jsonl": {"path": "out.jsonl"},
}


@pytest.mark.routilux(seeds=3)
def test_the_flow_of_the_manual_runs(
    routilux_sim: SimulatedRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    days = ["2012-01-01,0.1,12.8,4.7", "2012-01-02,21.5,10.6,8.5", "2012-02-01,3.0,8.9,2.0"]
    Path("days.csv").write_text("\n".join(["date,precipitation,temp_max,wind", *days]) + "\n")
    state = routilux_sim.exec(Flow.from_yaml(WEATHER), entry_params={"path": "days.csv"})
    assert state.wait()
    assert state.status == "completed"
    months = [output.data for output in state.outputs if output.routine_id == "monthly"]
    assert months == [
        {"key": "2012-01", "rain": 21.6, "hottest": 12.8},
        {"key": "2012-02", "rain": 3.0, "hottest": 8.9},
    ]
    assert [json.loads(line) for line in Path("out/storms.jsonl").read_text().splitlines()] == [
        {"day": "2012-01-02", "precipitation": 21.5, "temp_max": 10.6, "wind": 8.5}
    ]


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_document_of_each_comes_back_as_it_was(name: str) -> None:
    flow = Flow("one")
    flow.add_routine(BUILT_IN[name]().set_config(**CONFIGS.get(name, {})), "it")
    text = flow.to_yaml()
    again = Flow.from_yaml(text)
    assert again.to_yaml() == text
    assert dict(again.routines["it"].config) == CONFIGS.get(name, {})
    assert again.routines["it"].activation_policy == flow.routines["it"].activation_policy
    assert "activation" not in text


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_schema_for_editors_takes_each(name: str) -> None:
    routine = {"class": name, "config": CONFIGS.get(name, {})}
    document = {"version": 1, "flow_id": "one", "routines": {"it": routine}}
    assert [error.message for error in VALIDATOR.iter_errors(document)] == []
    wrong = {**document, "routines": {"it": {**routine, "config": {"nonsense": 1}}}}
    assert list(VALIDATOR.iter_errors(wrong))


VALIDATOR = Draft202012Validator(schema())
