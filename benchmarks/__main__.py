"""``python -m benchmarks [name ...] [--quick] [--json FILE]``: measure, and compare with references.

Every benchmark runs in a process of its own, so that none inherits the memory or the threads of another. A number
that is not reached is shown, and is no error: numbers depend on the machine.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benchmarks import table
from benchmarks.catalog import NAMES, measure
from benchmarks.row import Row, Size


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _parser()
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in NAMES:
            parser.error(f"unknown name {name!r}; choose from {', '.join(NAMES)}")
    size: Size = "quick" if options.quick else options.size
    facts = table.machine()
    print(table.machine_shown(facts))
    print(f"\n{table.HEADER}\n{'=' * table.WIDTH}")
    found: dict[str, list[Row]] = {}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as processes:
        for name in options.names or NAMES:
            title, found[name] = processes.submit(measure, name, size).result()
            print(f"{name}: {title}")
            print(*(f"{table.line(row)}" for row in found[name]), sep="\n", end="\n\n", flush=True)
    verdicts = [row.verdict for rows in found.values() for row in rows]
    print(f"Numbers reached: {verdicts.count('ok')}, missed: {verdicts.count('MISSED')}.")
    if options.json is not None:
        options.json.write_text(
            json.dumps(table.as_json(size, facts, found), indent=1) + "\n", encoding="utf-8"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure, and compare with references in the same run.",
    )
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(NAMES))
    parser.add_argument("--size", choices=["full", "quick", "tiny"], default="full")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: the same as --size quick")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all of it, every sample too")
    return parser


if __name__ == "__main__":
    main()
