"""The examples say what a few lines of plain Python say about the same data, and fit a terminal of 80 columns."""

from __future__ import annotations

import csv
import io
import signal
import subprocess
import sys
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from examples import airports, handlers, seattle_weather
from routilux import DeadLetter, Flow, JobState, Runtime
from routilux.testing import simulated
from tests.docs.document import ROOT, blocks_of

EXAMPLES = ROOT / "examples"


def rows_of(name: str) -> list[dict[str, str]]:
    with open(EXAMPLES / "data" / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def shown_in_the_readme() -> str:
    """What the README says that the demo ends with."""
    blocks = blocks_of((ROOT / "README.md").read_text(encoding="utf-8"))
    [text] = [block.text for block in blocks if block.text.startswith("Hottest")]
    return text


class Run(NamedTuple):
    """An execution that has ended, its dead letters, and its flow."""

    state: JobState
    letters: list[DeadLetter]
    flow: Flow


@pytest.fixture(scope="module")
def weather() -> Run:
    """The weather flow, run once on real threads."""
    flow = seattle_weather.build_flow(seconds=0)
    with Runtime(thread_pool_size=4) as runtime:
        state = runtime.exec(flow, entry_params={"path": str(seattle_weather.DATA)})
        assert state.wait(60)
        assert state.status == "completed", state.error
        return Run(state, runtime.dead_letters(job=state.job_id), flow)


class TestSeattleWeather:
    def test_the_file_has_every_day_of_four_years(self) -> None:
        assert len(rows_of("seattle-weather.csv")) == 1461

    def test_months_are_the_sums_of_their_days(self, weather: Run) -> None:
        expected: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for row in rows_of("seattle-weather.csv"):
            month = expected[row["date"][:7].replace("/", "-")]
            month["days"] += 1
            for key, column in {
                "rain": "precipitation",
                "high": "temp_max",
                "low": "temp_min",
                "wind": "wind",
            }.items():
                month[key] += float(row[column])
        months = weather.state.outputs[0].data["months"]
        assert list(months) == list(expected)
        assert {name: pytest.approx(month) for name, month in expected.items()} == months

    def test_storms_are_the_windy_wet_days(self, weather: Run) -> None:
        expected = [
            row["date"].replace("/", "-")
            for row in rows_of("seattle-weather.csv")
            if float(row["wind"]) > 8 and float(row["precipitation"]) > 20
        ]
        assert (
            [storm["date"] for storm in weather.state.outputs[0].data["storms"]] == expected == ["2014-01-11"]
        )

    def test_the_report_names_the_records(self, weather: Run) -> None:
        highs: dict[str, list[float]] = defaultdict(list)
        rain: dict[str, float] = defaultdict(float)
        for row in rows_of("seattle-weather.csv"):
            month = row["date"][:7].replace("/", "-")
            highs[month].append(float(row["temp_max"]))
            rain[month] += float(row["precipitation"])
        means = {month: sum(values) / len(values) for month, values in highs.items()}
        hottest, wettest = max(means, key=means.__getitem__), max(rain, key=rain.__getitem__)
        text = seattle_weather.text_of(**weather.state.outputs[0].data)
        assert f"Hottest      {hottest}, mean high {means[hottest]:.1f} °C" in text
        assert f"Wettest      {wettest}, {rain[wettest]:.1f} mm" in text
        assert f"{sum(rain.values()) / 4:,.1f}" in text.splitlines()[16]

    def test_bad_lines_are_set_aside_with_their_reason(self, weather: Run) -> None:
        letters = weather.letters
        assert [(letter.routine_id, letter.reason) for letter in letters] == [("check", "skipped")] * 3
        assert [letter.data["line"] for letter in letters] == seattle_weather.DAMAGED
        assert [letter.error.partition(":")[0] for letter in letters] == ["ValueError"] * 3
        assert [error.__cause__.args for error in weather.state.job.errors] == [
            (letter.error.partition(": ")[2],) for letter in letters
        ]

    def test_the_station_is_asked_again_on_the_first_of_each_month(self, weather: Run) -> None:
        assert weather.flow.routines["confirm"].stats(weather.state)["retried"] == 48

    def test_nothing_is_left_and_the_progress_is_complete(self, weather: Run) -> None:
        assert weather.state.progress == (1461, 1461)
        queued = {name: step.stats(weather.state)["queued"] for name, step in weather.flow.routines.items()}
        assert queued == dict.fromkeys(weather.flow.routines, 0)

    @pytest.mark.parametrize("seed", range(3))
    def test_every_interleaving_gives_the_same_report(self, weather: Run, seed: int) -> None:
        with simulated(seed) as runtime:
            flow = seattle_weather.build_flow(seconds=0)
            state = runtime.exec(flow, entry_params={"path": str(seattle_weather.DATA)})
            assert state.wait()
            assert [output.data for output in state.outputs] == [
                output.data for output in weather.state.outputs
            ]

    def test_on_a_terminal_one_line_moves_and_is_cleared(self, monkeypatch: Any, capsys: Any) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setattr(seattle_weather, "build_flow", partial(seattle_weather.build_flow, 0))
        assert seattle_weather.main() == 0
        drawn = terminal.getvalue()
        assert drawn.endswith("\r\x1b[K")
        assert "\n" not in drawn
        assert max(map(len, drawn.replace("\x1b[K", "").split("\r"))) < 80
        printed = capsys.readouterr().out
        assert max(map(len, printed.splitlines())) <= 80
        assert shown_in_the_readme() in printed


class TestSeattleWeatherInAStore:
    """The program itself, killed where it happens to be."""

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(EXAMPLES / "seattle_weather.py"), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def printed(self, *arguments: str) -> str:
        with self.start(*arguments) as program:
            out, _ = program.communicate(timeout=60)
        assert program.returncode == 0
        return out

    def kill_in_the_middle(self, *arguments: str) -> None:
        """At the first line of progress that counts a day; no line comes after the last day."""
        with self.start(*arguments) as program:
            assert program.stderr is not None
            counted = next(
                line for line in program.stderr if " of 1,461 days" in line and " 0 of " not in line
            )
            program.kill()
        assert program.returncode == -signal.SIGKILL
        assert counted

    def test_killed_and_started_again_it_reports_what_the_plain_run_does(self, tmp_path: Path) -> None:
        store = f"sqlite:///{tmp_path / 'weather.db'}"
        self.kill_in_the_middle("--store", store)
        assert self.printed("--store", store) == self.printed("--store", store) == self.printed()

    def test_jobs_of_one_store_are_told_apart(self, tmp_path: Path) -> None:
        store = f"sqlite:///{tmp_path / 'weather.db'}"
        with Runtime(store=store) as runtime:
            flow = seattle_weather.build_flow(seconds=0)
            for job_id in ("monday", "tuesday"):
                state = runtime.exec(flow, entry_params={"path": str(seattle_weather.DATA)}, job_id=job_id)
                assert state.wait(60)
        self.printed("--store", store, "--job", "monday")
        with Runtime(store=store) as runtime:
            assert {job.job_id for job in runtime.list_jobs()} == {"monday", "tuesday"}


def test_every_order_is_charged_once_and_shipped_once_although_the_program_is_killed() -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "orders.py")],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )
    told = [line for line in done.stderr.splitlines() if line.startswith("routine ")]
    assert done.returncode == 0
    assert all("HTTP Error 503" in line and "retried in" in line for line in told)
    assert done.stdout.splitlines()[-1] == "Every order was charged once and shipped once"
    assert done.stdout.count("Killed") == 2


class TestAirports:
    @pytest.mark.parametrize("city", ["Seattle", "Miami"])
    def test_states_are_grouped_as_plain_python_groups_them(self, city: str) -> None:
        place = airports.CITIES[city]
        expected: dict[str, list[tuple[float, str]]] = defaultdict(list)
        for row in rows_of("airports.csv"):
            there = (float(row["latitude"]), float(row["longitude"]))
            expected[row["state"]].append((airports.haversine(place, there), row["iata"]))
        with Runtime(thread_pool_size=2) as runtime:
            flow = airports.build_flow(seconds=0)
            state = runtime.exec(flow, entry_params={"path": str(airports.DATA), "city": place})
            assert state.wait(60)
            assert state.status == "completed", state.error
        groups = state.get_routine_state("group")
        assert sum(group["airports"] for group in groups.values()) == 3376
        assert {name: group["airports"] for name, group in groups.items()} == {
            name: len(found) for name, found in expected.items()
        }
        for name, found in expected.items():
            nearest = groups[name]["nearest"]
            assert (nearest["km"], nearest["code"]) == min(found)
            assert groups[name]["km"] == pytest.approx(sum(km for km, _ in found))

    def test_distance_and_direction_of_known_places(self) -> None:
        seattle, miami = airports.CITIES["Seattle"], airports.CITIES["Miami"]
        assert airports.haversine(seattle, miami) == pytest.approx(4398, abs=10)
        assert airports.bearing(seattle, miami) == pytest.approx(109, abs=3)
        assert airports.haversine((0, 0), (0, 180)) == pytest.approx(20015, abs=1)

    def test_an_unknown_city_is_refused_with_the_known_ones(self, monkeypatch: Any, capsys: Any) -> None:
        monkeypatch.setattr(sys, "argv", ["airports.py", "Atlantis"])
        assert airports.main() == 2
        assert "Anchorage" in capsys.readouterr().err


class TestHandlers:
    def outputs(self) -> dict[str, list[dict[str, Any]]]:
        state = handlers.build_flow().execute("readings", {"readings": handlers.READINGS}, timeout=60)
        assert state.status == "completed", state.error
        by_routine: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for output in state.outputs:
            by_routine[output.routine_id].append(output.data)
        return by_routine

    def test_each_merge_strategy_merges_in_its_way(self) -> None:
        latest: dict[str, Any] = {}
        highs: list[float] = []
        records: dict[str, float] = {}
        expected: dict[str, list[dict[str, Any]]] = {"latest": [], "diary": [], "records": []}
        for reading in handlers.READINGS:
            latest = latest | reading
            highs = highs + ([reading["high"]] if "high" in reading else [])
            numbers = {key: value for key, value in reading.items() if key != "station"}
            records = records | {key: max(value, records.get(key, value)) for key, value in numbers.items()}
            expected["latest"].append(latest)
            expected["diary"].append({"highs": highs, "last": reading["station"]})
            expected["records"].append(records)
        assert self.outputs() == expected

    def test_a_second_execution_starts_from_nothing(self) -> None:
        assert self.outputs() == self.outputs()


@pytest.mark.parametrize("name", ["airports", "handlers"])
def test_runs_as_a_program_within_80_columns(name: str) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    told = [line for line in done.stderr.splitlines() if line.startswith("routine ")]
    assert done.returncode == 0
    assert all("HTTP Error 503" in line and "retried in" in line for line in told)
    assert max(map(len, done.stdout.splitlines())) <= 80
