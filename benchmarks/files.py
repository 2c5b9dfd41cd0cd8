"""A CSV file of any size into JSON lines, by two built-in routines, beside a loop of plain Python.

``python -m benchmarks.files --mebibytes 1024`` does it once with a file of that size and prints the progress.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple

from benchmarks.measure import in_turns, resident_bytes
from benchmarks.row import Reach, Row, Size, compared
from routilux import Flow, Runtime
from routilux.routines import ReadCsv, WriteJsonl
from routilux.routines.files import number_of

TITLE = "read_csv to write_jsonl; reference: a loop of plain Python"
MEBIBYTE = 2**20
HEAD = "date,precipitation,temp_max,station,weather\n"
DAYS = [
    f"2012-{n % 12 + 1:02}-{n % 28 + 1:02},{n % 100 / 10},{n % 30}.5,station {n % 97},rain\n"
    for n in range(10_000)
]


class Scale(NamedTuple):
    bytes: int
    rounds: int


SCALES: dict[Size, Scale] = {
    "full": Scale(32 * MEBIBYTE, 3),
    "quick": Scale(8 * MEBIBYTE, 3),
    "tiny": Scale(20_000, 1),
}
Watch = Callable[[float, int], None]  # is told the seconds so far and the resident bytes


def rows(size: Size) -> list[Row]:
    wanted, rounds = SCALES[size]
    with TemporaryDirectory() as folder:
        source, target = Path(folder, "in.csv"), Path(folder, "out.jsonl")
        count = generate(source, wanted)
        resident: list[int] = []
        costs = in_turns(
            {
                "ours": lambda: by_flow(source, target, lambda _, used: resident.append(used)) / count,
                "plain": lambda: by_loop(source, target) / count,
            },
            rounds,
        )
        speed = source.stat().st_size / count / min(costs["ours"])
    growth = max(resident) - resident[0]
    return [
        compared("a row", costs["ours"], costs["plain"]),
        Row("the file", speed, "B/s"),
        Row("memory", growth, "B+", resident[0], None, Reach(20 * MEBIBYTE, of="ours"), resident),
    ]


def generate(path: Path, size: int) -> int:
    """Write a CSV file of at least so many bytes; its number of rows."""
    block = "".join(DAYS)
    written = count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(HEAD)
        while written + len(block) <= size:
            written, count = written + file.write(block), count + len(DAYS)
        for day in DAYS:
            if written >= size:
                break
            written, count = written + file.write(day), count + 1
    return count


def by_flow(source: Path, target: Path, watch: Watch, every: float = 0.5) -> float:
    flow = Flow("copy")
    flow.add_routine(ReadCsv().set_config(path=str(source)), "read")
    flow.add_routine(WriteJsonl().set_config(path=str(target)), "write")
    flow.connect("read", "row", "write", "input")
    with Runtime() as runtime:
        start = perf_counter()
        state = runtime.exec(flow, entry_params={})
        while not state.wait(every):
            watch(perf_counter() - start, resident_bytes())
        seconds = perf_counter() - start
        watch(seconds, resident_bytes())
        state.job.result()
    return seconds


def by_loop(source: Path, target: Path) -> float:
    start = perf_counter()
    with source.open(encoding="utf-8", newline="") as file, target.open("w", encoding="utf-8") as out:
        lines = csv.reader(file, strict=True)
        columns = next(lines)
        for cells in lines:
            row = dict(zip(columns, map(number_of, cells), strict=True))
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    return perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.files", description=TITLE)
    parser.add_argument("--mebibytes", type=int, default=1024, help="size of the file")
    wanted = parser.parse_args().mebibytes * MEBIBYTE
    with TemporaryDirectory() as folder:
        source, target = Path(folder, "in.csv"), Path(folder, "out.jsonl")
        count = generate(source, wanted)
        size = source.stat().st_size / MEBIBYTE
        print(f"{size:,.0f} MiB, {count:,} rows", flush=True)

        def watch(seconds: float, used: int) -> None:
            print(f"{seconds:6.0f} s, {used / MEBIBYTE:.1f} MiB resident", flush=True)

        seconds = by_flow(source, target, watch, every=15)
        with target.open("rb") as file:
            written = sum(1 for _ in file)
        print(f"{size / seconds:.2f} MiB/s, {count / seconds:,.0f} rows/s, {written:,} lines written")


if __name__ == "__main__":
    main()
