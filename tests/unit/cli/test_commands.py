"""The commands beside ``run``: what they print, for people and as JSON."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from routilux import Flow
from routilux.cli.app import COMMANDS
from routilux.routines import BUILT_IN
from tests.docs.document import ROOT
from tests.unit.cli.calling import call, process

DATA = ROOT / "src" / "routilux" / "cli" / "data"
BAD = """version: 1
flow_id: bad
routines:
  read: {class: red_csv}
  pick: {class: pick, config: {keys: [a], key: 1}}
"""


class TestValidate:
    def test_a_valid_document(self, folder: Path) -> None:
        call("init")
        result = call("validate", "weather.flow.yaml")
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout == "weather.flow.yaml: valid; flow 'weather', 3 routines, 2 connections\n"

    def test_all_problems_of_all_documents(self, folder: Path) -> None:
        call("init")
        (folder / "bad.flow.yaml").write_text(BAD)
        result = call("validate", "bad.flow.yaml", "none.flow.yaml", "weather.flow.yaml")
        assert result.exit_code == 3
        assert "bad.flow.yaml: 2 problems" in result.stdout
        assert "bad.flow.yaml:4:17: routines.read.class: unknown routine type 'red_csv'" in result.stdout
        assert "none.flow.yaml: no flow document" in result.stdout
        assert "weather.flow.yaml: valid" in result.stdout

    def test_as_json(self, folder: Path) -> None:
        call("init")
        (folder / "bad.flow.yaml").write_text(BAD)
        result = call("validate", "bad.flow.yaml", "weather.flow.yaml", "--json", "-q")
        bad, good = json.loads(result.stdout)
        assert (result.exit_code, result.stderr) == (3, "")
        assert good == {
            "flow": "weather.flow.yaml", "flow_id": "weather", "valid": True, "problems": [], "warnings": [],
        }  # fmt: skip
        assert [(each["code"], each["line"]) for each in bad["problems"]] == [
            ("unknown-class", 4),
            ("config-unknown", 5),
        ]

    def test_warnings_are_shown_and_do_not_fail(self, folder: Path) -> None:
        (folder / "w.flow.yaml").write_text(
            "version: 1\nflow_id: w\nroutines:\n  a: {class: log}\n  b: {class: log}\n"
        )
        result = call("validate", "w.flow.yaml", "--json")
        assert result.exit_code == 0
        assert [each["severity"] for each in json.loads(result.stdout)[0]["warnings"]] != []
        assert "  warning: " in call("validate", "w.flow.yaml").stdout

    def test_what_is_no_text_or_has_no_permission(self, folder: Path) -> None:
        (folder / "bytes.flow.yaml").write_bytes(b"version: \xff")
        (folder / "empty.flow.yaml").write_bytes(b"")
        result = call("validate", "bytes.flow.yaml", "empty.flow.yaml")
        assert result.exit_code == 3
        assert "byte 0xff is no UTF-8" in result.stdout
        assert "empty.flow.yaml:1:1: expected a mapping" in result.stdout


class TestGraph:
    @pytest.fixture(autouse=True)
    def document(self) -> None:
        call("init")

    def test_mermaid_and_dot_are_those_of_the_flow(self) -> None:
        flow = Flow.load("weather.flow.yaml")
        assert call("graph", "weather.flow.yaml").stdout == flow.to_mermaid()
        assert call("graph", "weather.flow.yaml", "--format", "dot").stdout == flow.to_dot()
        assert json.loads(call("graph", "weather.flow.yaml", "--json").stdout) == {
            "flow_id": "weather", "format": "mermaid", "text": flow.to_mermaid(),
        }  # fmt: skip

    def test_svg_without_graphviz_is_refused_with_two_ways_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")
        result = call("graph", "weather.flow.yaml", "--format", "svg")
        assert (result.exit_code, result.stdout) == (2, "")
        assert "install Graphviz" in result.stderr
        assert "--format dot or mermaid" in result.stderr

    @pytest.mark.skipif(not shutil.which("dot"), reason="Graphviz is not installed")
    def test_svg_is_what_graphviz_draws(self) -> None:
        assert "<svg" in call("graph", "weather.flow.yaml", "--format", "svg").stdout

    def test_svg_comes_from_a_program_that_gets_the_dot_text(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drawing = '#!/bin/sh\nread first\necho "<svg>$1 $first</svg>"\n'
        self.program(folder, drawing, monkeypatch)
        assert call("graph", "weather.flow.yaml", "--format", "svg").stdout == (
            '<svg>-Tsvg digraph "weather" {</svg>\n'
        )

    def test_what_graphviz_complains_of_is_shown(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.program(folder, "#!/bin/sh\necho 'out of ink' >&2\nexit 1\n", monkeypatch)
        result = call("graph", "weather.flow.yaml", "--format", "svg")
        assert result.exit_code == 2
        assert "dot cannot draw flow 'weather': out of ink" in result.stderr

    def program(self, folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        dot = folder / "dot"
        dot.write_text(text)
        dot.chmod(dot.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(folder), prepend=":")


class TestList:
    def test_routines(self) -> None:
        result = call("list", "routines", "--json")
        assert {each["name"] for each in json.loads(result.stdout)} >= set(BUILT_IN)
        assert "read_csv" in call("list", "routines").stdout

    def test_a_routine_with_all_that_it_has(self) -> None:
        [filter_] = json.loads(call("list", "routines", "filter", "--json").stdout)
        assert filter_ == {
            "name": "filter",
            "description": "Hands on the payloads that a condition holds for; the others go to rejected.",
            "slots": ["input"],
            "events": ["output", "error", "rejected"],
            "policy": filter_["policy"],
            "config": [
                {"key": "when", "type": "expression", "required": True, "meaning": "which payloads go on"}
            ],
        }
        text = call("list", "routines", "filter", "read_csv").stdout
        assert "when    expression  required  which payloads go on" in text

    def test_an_unknown_routine_is_refused_with_the_nearest(self) -> None:
        result = call("list", "routines", "redcsv")
        assert (result.exit_code, result.stdout) == (2, "")
        assert "'read_csv'" in result.stderr

    def test_flows_of_the_folder_and_those_below_it(self, folder: Path) -> None:
        call("init", "sub")
        (folder / "bad.flow.yaml").write_text(BAD)
        result = call("list", "flows", "--json")
        bad, weather = json.loads(result.stdout)
        assert (bad["flow"], bad["problems"]) == ("bad.flow.yaml", 2)
        assert weather == {
            "flow": "sub/weather.flow.yaml", "flow_id": "weather", "routines": 3,
            "description": "Adds up days of weather by their kind",
        }  # fmt: skip

    def test_flows_that_a_module_registers_can_be_listed_and_run(self, folder: Path) -> None:
        (folder / "flows_of_test.py").write_text(
            "from routilux import Flow, FlowRegistry, routine\n@routine\ndef echo(n):\n    return {'n': n}\n"
            "flow = Flow('registered_in_test')\nflow.add_routine(echo(), 'echo')\n"
            "FlowRegistry.get_instance().register(flow)\n"
        )
        listed = process("list", "flows", "--import", "flows_of_test", folder=folder)
        assert "registered_in_test" in listed.stdout
        done = process("run", "registered_in_test", "--import", "flows_of_test", "-p", "n:=7", folder=folder)
        assert json.loads(done.stdout)["data"] == {"n": 7}

    def test_an_empty_folder_has_a_hint_and_no_data(self) -> None:
        result = call("list", "flows")
        assert (result.exit_code, result.stdout) == (0, "")
        assert "'routilux init' writes one" in result.stderr


class TestSchema:
    def test_it_accepts_what_init_writes_and_refuses_an_unknown_key(self, folder: Path) -> None:
        call("init")
        validator = Draft202012Validator(json.loads(call("schema").stdout))
        document = Flow.load("weather.flow.yaml").to_dict()
        assert list(validator.iter_errors(document)) == []
        assert list(validator.iter_errors({**document, "routine": {}})) != []


class TestInit:
    FILES = ("data/README.md", "data/weather.csv", "routilux.toml", "test_weather.py", "weather.flow.yaml")

    def test_what_it_writes_is_valid_and_runs(self, folder: Path) -> None:
        assert call("init", "hello").stdout.splitlines() == [f"hello/{name}" for name in self.FILES]
        done = process("run", "weather.flow.yaml", "-q", folder=folder / "hello")
        assert (done.returncode, done.stderr) == (0, "")
        assert {"weather": "snow", "days": 1, "rain_mm": 4.1, "warmest": 4.4} in [
            json.loads(line)["data"] for line in done.stdout.splitlines()
        ]
        assert process("validate", "weather.flow.yaml", folder=folder / "hello").returncode == 0

    def test_its_test_passes(self, folder: Path) -> None:
        call("init", "hello")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
            cwd=folder / "hello", capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        assert "1 passed" in done.stdout

    def test_no_file_is_changed(self, folder: Path) -> None:
        (folder / "routilux.toml").write_text("threads = 2\n")
        result = call("init")
        assert (result.exit_code, result.stdout) == (2, "")
        assert "nothing was written, because routilux.toml is there already" in result.stderr
        assert [path.name for path in folder.iterdir()] == ["routilux.toml"]

    def test_a_file_is_no_folder(self, folder: Path) -> None:
        (folder / "hello").write_text("")
        result = call("init", "hello")
        assert result.exit_code == 2
        assert "'hello' is a file; give a folder" in result.stderr

    def test_as_json(self) -> None:
        assert json.loads(call("init", "--json", "-q").stdout) == list(self.FILES)


class TestDemo:
    def test_it_shows_years_months_and_storms_and_what_to_try_next(self) -> None:
        result = call("demo")
        assert result.exit_code == 0
        assert "2015/12    284.5        8.4" in result.stdout
        assert "2014/01/11           21.3   8.8      14.4" in result.stdout
        assert "2015   365   1139.2     35.0     -3.8" in result.stdout
        assert "routilux init hello" in result.stderr
        assert (
            max(len(line) for line in (result.stdout + result.stderr).splitlines() if "/" not in line) <= 80
        )

    def test_quiet_it_prints_data_only(self) -> None:
        assert call("demo", "-q").stderr == ""

    def test_as_json_all_days_are_counted(self) -> None:
        rows = json.loads(call("demo", "--json").stdout)
        assert [row["data"] for row in rows if row["routine"] == "rows"] == [{"count": 1461, "errors": 0}]

    def test_its_data_is_that_of_the_examples(self) -> None:
        name = "seattle-weather.csv"
        assert (DATA / name).read_bytes() == (ROOT / "examples" / "data" / name).read_bytes()
        whole = (DATA / name).read_text().splitlines()
        assert (DATA / "init" / "data" / "weather.csv").read_text().splitlines() == whole[:15]

    def test_what_it_names_exists(self) -> None:
        told = call("demo").stderr
        named = {line.split()[1] for line in told.splitlines() if line.startswith("  routilux ")}
        assert named == {"init", "list", "graph", "run"} <= set(COMMANDS)


class TestDoctor:
    def test_a_sound_installation(self) -> None:
        result = call("doctor", "--json")
        found = {each["what"]: each for each in json.loads(result.stdout)}
        assert result.exit_code == 0
        assert found["extra cli"]["state"] == "ok"
        assert found["config"]["detail"] == "none in routilux.toml, pyproject.toml and the environment"

    def test_the_config_with_its_sources_and_what_means_nothing(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folder / "routilux.toml").write_text("thread = 1\n[routines]\nmodules = ['no_such_module']\n")
        monkeypatch.setenv("ROUTILUX_TIMEOUT", "5")
        monkeypatch.setenv("ROUTILUX_TIME", "5")
        result = call("doctor", "--json")
        found = [(each["state"], each["what"]) for each in json.loads(result.stdout)]
        assert result.exit_code == 1
        assert found[-5:] == [
            ("ok", "config timeout"),
            ("ok", "config modules"),
            ("warning", "config"),
            ("warning", "config"),
            ("error", "module no_such_module"),
        ]

    def test_what_is_missing_says_how_to_get_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("routilux.cli.doctor.EXTRAS", {"moon": {"no_such_module": "moonlight"}})
        assert "missing extra moon  without moonlight; pip install 'routilux[moon]'" in call("doctor").stdout
