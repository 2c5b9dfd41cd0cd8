"""Calls of the command: in this process, or as a process of its own where signals, pipes and exit codes count."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from routilux.cli.app import app
from routilux.cli.settings import PREFIX
from tests.processes import interruptible
from tests.waiting import SECONDS

STEPS = '''
import time
from dataclasses import dataclass

from routilux import Flow, FlowRegistry, Routine, routine
from routilux.activation_policies import immediate_policy


@routine
def even(n):
    """Hands on even numbers."""
    if n % 2:
        raise ValueError(f"{n} is odd")
    return {"n": n}


@routine
def count_up(n):
    for i in range(n):
        yield {"i": i}


@routine
def wait(n, seconds=0.05):
    time.sleep(seconds)
    return {"n": n}


@dataclass
class Order:
    id: int


class Take(Routine):
    def __init__(self):
        super().__init__()
        self.add_slot("order", type=Order)
        self.add_event("taken")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data, policy_message, state):
        self.emit("taken", **slot_data["order"][0])
'''


def write_steps(folder: Path, module: str) -> None:
    """A module of routines, and a document for each of them: even.flow.yaml, count_up.flow.yaml, ..."""
    (folder / f"{module}.py").write_text(STEPS, encoding="utf-8")
    for name in ("even", "count_up", "wait", "Take"):
        document = f"version: 1\nflow_id: {name}\nroutines:\n  it: {{class: {module}.{name}}}\n"
        (folder / f"{name.lower()}.flow.yaml").write_text(document, encoding="utf-8")
    (folder / "routilux.toml").write_text(f'[routines]\nmodules = ["{module}"]\n', encoding="utf-8")


def call(*arguments: str) -> Result:
    """The result of a command line in this process and the current folder; a bug is raised."""
    result = CliRunner().invoke(app, list(arguments), prog_name="routilux")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def environment(**more: str) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return {**ours, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "utf-8", **more}


def process(*arguments: str, folder: Path, text: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """A command line as a process that has ended."""
    return subprocess.run(
        [sys.executable, "-m", "routilux", *arguments],
        cwd=folder,
        input=text,
        capture_output=True,
        encoding="utf-8",
        env=environment(**env),
        timeout=SECONDS,
        check=False,
    )


def started(*arguments: str, folder: Path, **options: Any) -> subprocess.Popen[str]:
    """A command line as a process that runs in the foreground, with pipes."""
    with interruptible():
        return started_as_we_are(*arguments, folder=folder, **options)


def started_as_we_are(*arguments: str, folder: Path, **options: Any) -> subprocess.Popen[str]:
    """It ignores the signals that this process ignores."""
    return subprocess.Popen(
        [sys.executable, "-m", "routilux", *arguments],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=environment(),
        **options,
    )
