"""Every benchmark runs, at a size that measures nothing, and its table fits. No number is judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import profile_hop, table
from benchmarks.__main__ import main
from benchmarks.catalog import NAMES, measure
from benchmarks.measure import in_turns, resident_bytes
from benchmarks.row import Reach, Row, compared

MODULES_THAT_MEASURE_NOTHING = {
    "__init__",
    "__main__",
    "catalog",
    "flows",
    "measure",
    "profile_hop",
    "row",
    "table",
}
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_gives_rows_that_fit_the_table(name: str) -> None:
    title, rows = measure(name, "tiny")
    assert len(f"{name}: {title}") <= table.WIDTH
    assert rows
    for row in rows:
        assert len(row.figure) <= table.FIGURE_WIDTH
        assert len(table.line(row)) <= table.WIDTH
        assert row.verdict in {"", "ok", "MISSED", "absent"}


def test_the_catalog_holds_every_benchmark() -> None:
    modules = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert modules - MODULES_THAT_MEASURE_NOTHING == set(NAMES)


def test_the_command_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    file = tmp_path / "numbers.json"
    command = [sys.executable, "-m", "benchmarks", "expressions", "--size", "tiny", "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=True)
    lines = done.stdout.splitlines()
    assert table.HEADER in lines
    assert any(line.startswith("date[0:7]") for line in lines)
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["size"] == "tiny"
    assert written["machine"]["cores"]
    assert [row["figure"] for row in written["benchmarks"]["expressions"]][2] == "date[0:7]"


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["hops"])
    assert "'hops'" in capsys.readouterr().err


def test_a_hop_is_taken_apart_into_parts_that_add_up() -> None:
    parts = profile_hop.parts(messages=20, rounds=1)
    whole = parts[0].seconds
    halves = sum(part.seconds for part in parts if part.depth == 1)
    steps = [part.seconds for part in parts if part.depth == 2]
    emission = next(part.seconds for part in parts if part.name.startswith("emit"))
    assert halves == pytest.approx(whole)
    assert sum(steps[:4]) == pytest.approx(emission)


class TestRow:
    def test_the_ratio_is_the_median_of_the_ratios_of_the_rounds(self) -> None:
        row = compared("x", [1.0, 4.0, 9.0], [2.0, 4.0, 3.0], Reach(1.0))
        assert row == Row("x", 4.0, "s", 3.0, 1.0, Reach(1.0), [0.5, 1.0, 3.0])
        assert row.verdict == "ok"

    @pytest.mark.parametrize(
        ("row", "verdict"),
        [
            (Row("x", 1.0), ""),
            (Row("x", None, reach=Reach(1.0)), "absent"),
            (Row("x", 9.0, ratio=0.3, reach=Reach(0.25)), "MISSED"),
            (Row("x", 9.0, ratio=0.96, reach=Reach(0.95, at_least=True)), "ok"),
            (Row("x", 9.0, ratio=0.94, reach=Reach(0.95, at_least=True)), "MISSED"),
            (Row("x", 9.0, reach=Reach(9.0, of="ours")), "ok"),
            (Row("x", 9.0, reach=Reach(9.0)), "MISSED"),
        ],
    )
    def test_the_verdict_is_about_what_the_reach_is_of(self, row: Row, verdict: str) -> None:
        assert row.verdict == verdict


class TestTable:
    @pytest.mark.parametrize(
        ("value", "unit", "text"),
        [
            (3.456e-6, "s", "3.46 µs"),
            (0.0999996, "s", "100.0 ms"),
            (0.9999, "s", "999.9 ms"),
            (2.5, "s", "2.50 s"),
            (512, "B", "0.5 KiB"),
            (-3 * 2**20, "B+", "-3.0 MiB"),
            (0, "B+", "+0.0 KiB"),
            (1_234_567.8, "/s", "1,234,568/s"),
            (2_500_000, "B/s", "2.38 MiB/s"),
            (0.04, "%", "0.0 %"),
            (12, "n", "12"),
        ],
    )
    def test_a_value_carries_its_unit(self, value: float, unit: table.Unit, text: str) -> None:
        assert table.shown(value, unit) == text

    def test_a_line_shows_everything_in_columns(self) -> None:
        row = Row("pool of 4", 3.4e-6, "s", 17e-6, 0.2, Reach(0.25))
        assert table.line(row) == (
            "pool of 4                            3.40 µs    17.0 µs    0.20   ≤ 0.25 ok"
        )
        assert len(table.HEADER) <= table.WIDTH


class TestMeasuring:
    def test_runs_take_turns_after_a_warm_up(self) -> None:
        order: list[str] = []

        def run(name: str) -> float:
            order.append(name)
            return float(len(order))

        costs = in_turns({name: lambda name=name: run(name) for name in "AB"}, rounds=3)  # type: ignore[misc]
        assert "".join(order) == "AB" + "AB" + "BA" + "AB"
        assert costs == {"A": [3.0, 6.0, 7.0], "B": [4.0, 5.0, 8.0]}

    def test_resident_memory_is_that_of_a_python_process(self) -> None:
        assert 2**20 < resident_bytes() < 2**40
