"""The Python blocks of the documents that define what Routilux is, by name, as printed there."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

from tests.docs.document import ROOT, blocks_of

COPIES = Path(__file__).with_name("seeds")
ORIGINALS = ROOT.parent / "shared" / "seeds"
"""The documents themselves, where they lie beside the checkout."""


def read(document: str) -> dict[str, str]:
    """The blocks of a document by the heading that stands above each."""
    blocks = blocks_of((COPIES / f"{document}.txt").read_text(encoding="utf-8"))
    return {block.before.rpartition("## ")[2]: block.text for block in blocks}


def read_original(document: str, language: str) -> list[str]:
    """The blocks of an original, without indentation and without the options of their directives."""
    text = (ORIGINALS / f"{document}.rst").read_text(encoding="utf-8")
    directive = re.compile(rf"^( *)\.\. code-block:: {language}\n((?:\1 +.*\n| *\n)*)", re.MULTILINE)
    blocks = [textwrap.dedent(block[2]) for block in directive.finditer(text)]
    return [re.sub(r"\A(?::.*\n)*\n*", "", block).rstrip() + "\n" for block in blocks]


def run(name: str, code: str, **surroundings: Any) -> dict[str, Any]:
    """Run a block as the body of a program that has defined ``surroundings`` before; what it defines."""
    namespace: dict[str, Any] = {"__name__": "__main__", **surroundings}
    exec(compile(code, name, "exec"), namespace)
    return namespace
