"""Markdown documents as something that runs: their fenced blocks, and what the Python ones print."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
SECONDS_PER_DOCUMENT = 60


class Block(NamedTuple):
    """A fenced block. ``before`` is the text between it and the fenced block before it."""

    language: str
    text: str
    line: int
    before: str


class Failure(NamedTuple):
    line: int
    what: str


def documents() -> list[Path]:
    """The README and every page of the manual."""
    pages = (path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)
    return [ROOT / "README.md", *sorted(pages)]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks_of(text: str) -> list[Block]:
    """All fenced blocks, also those inside lists and quotes, with the number of their first inner line."""
    lines = text.splitlines()
    blocks = []
    end_of_last = 0
    for token in MarkdownIt().parse(text):
        if token.type == "fence" and token.map:
            start, end = token.map
            before = "\n".join(lines[end_of_last:start]).strip()
            blocks.append(Block(token.info.strip(), token.content, start + 2, before))
            end_of_last = end
    return blocks


def expected_outputs(blocks: list[Block]) -> dict[int, str]:
    """Line of a Python block → what the document says that it prints.

    It says so with a ``text`` block that follows, with a single line in between that has the word "prints".
    """
    return {
        code.line: output.text
        for code, output in pairwise(blocks)
        if code.language == "python"
        and output.language == "text"
        and "\n" not in output.before
        and re.search(r"\bprints\b", output.before)
    }


def files_of(blocks: list[Block]) -> dict[str, str]:
    """What the document shows as files, by name: YAML blocks that begin with ``# name.flow.yaml``."""
    named = (
        (re.match(r"# (\S+\.ya?ml)\n", block.text), block) for block in blocks if block.language == "yaml"
    )
    return {match[1]: block.text for match, block in named if match}


def run(path: Path, folder: Path) -> list[Failure]:
    """Run the Python blocks of a document in order, in one namespace and a process of their own.

    The files that the document shows lie in the folder where they run.
    """
    blocks = blocks_of(path.read_text(encoding="utf-8"))
    for name, text in files_of(blocks).items():
        (folder / name).write_text(text, encoding="utf-8")
    code = [(block.line, block.text) for block in blocks if block.language == "python"]
    if not code:
        return []
    try:
        process = subprocess.run(
            [sys.executable, "-X", "dev", str(Path(__file__).with_name("run_blocks.py")), str(path)],
            input=json.dumps(code),
            capture_output=True,
            text=True,
            cwd=folder,
            timeout=SECONDS_PER_DOCUMENT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return [Failure(code[0][0], f"not finished after {SECONDS_PER_DOCUMENT} s\n{error.stderr or ''}")]
    if process.returncode:
        return [Failure(code[0][0], process.stderr)]
    printed = dict(json.loads(process.stdout))
    return [
        Failure(line, f"prints\n{printed[line]}\nand not\n{text}")
        for line, text in expected_outputs(blocks).items()
        if printed[line] != text
    ]
