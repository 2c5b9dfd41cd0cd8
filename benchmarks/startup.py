"""What it takes to begin: whole processes, with the package and without."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

from benchmarks.measure import in_turns
from benchmarks.row import Reach, Row, Size

TITLE = "Whole processes; reference: python -c pass"


class Scale(NamedTuple):
    rounds: int


SCALES: dict[Size, Scale] = {"full": Scale(15), "quick": Scale(15), "tiny": Scale(1)}


def rows(size: Size) -> list[Row]:
    (rounds,) = SCALES[size]
    python, script = sys.executable, Path(sys.executable).with_name("routilux")
    commands = {"bare": [python, "-c", "pass"], "import": [python, "-c", "import routilux"]}
    if script.exists():
        commands["help"] = [str(script), "--help"]
    costs = in_turns({name: partial(seconds, *command) for name, command in commands.items()}, rounds)
    bare = median(costs["bare"])
    more = [whole - without for whole, without in zip(costs["import"], costs["bare"], strict=True)]
    helped = costs.get("help", ())
    return [
        Row("import routilux, on top", median(more), "s", bare, None, Reach(0.050, of="ours"), more),
        Row(
            "routilux --help, whole",
            median(helped) if helped else None,
            "s",
            bare,
            None,
            Reach(0.120, of="ours"),
            helped,
        ),
    ]


def seconds(*command: str) -> float:
    # As installed: the first run writes the bytecode, and what follows is not compiled again each time.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start = perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=env)
    return perf_counter() - start
