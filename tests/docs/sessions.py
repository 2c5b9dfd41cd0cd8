"""Console blocks of a document as a session: commands that run, and what they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tests.docs.document import SECONDS_PER_DOCUMENT, Block, Failure

ELSEWHERE = "…"  # a line that stands for any lines
_SECONDS = re.compile(r"\b\d+\.\d s\b")


class Command(NamedTuple):
    line: int
    text: str
    expected: list[str]


def commands_of(blocks: list[Block]) -> list[Command]:
    """The commands of all console blocks that use ``routilux``, each with the lines below it."""
    return [command for block in blocks if block.language == "console" for command in _session_of(block)]


def _session_of(block: Block) -> list[Command]:
    """None for a block about other programs only, which are not run."""
    commands: list[Command] = []
    for number, line in enumerate(block.text.splitlines(), block.line):
        if line.startswith("$ "):
            commands.append(Command(number, line[2:], []))
        else:
            commands[-1].expected.append(line)
    return commands if any(command.text.startswith("routilux ") for command in commands) else []


def run_session(commands: list[Command], folder: Path) -> list[Failure]:
    """Run the commands in order; ``cd`` holds for those that follow."""
    scripts = str(Path(sys.executable).parent)
    env = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "PYTHONIOENCODING": "utf-8"}
    failures = []
    for command in commands:
        if command.text.startswith("cd "):
            folder = folder / command.text[3:]
            continue
        done = subprocess.run(
            command.text,
            shell=True,
            cwd=folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=SECONDS_PER_DOCUMENT,
            check=False,
        )
        if not matches(command.expected, done.stdout):
            expected = "\n".join(command.expected)
            failures.append(
                Failure(command.line, f"{command.text} prints\n{done.stdout}\nand not\n{expected}")
            )
    return failures


def matches(expected: list[str], printed: str) -> bool:
    """Whether the lines are those, whatever the seconds and where the document leaves some out."""
    parts = [".*" if line == ELSEWHERE else re.escape(_SECONDS.sub("0.0 s", line)) for line in expected]
    pattern = "\n".join(parts)
    return re.fullmatch(pattern, _SECONDS.sub("0.0 s", printed).removesuffix("\n"), re.DOTALL) is not None
