"""The reference of documents and of expressions says what the code says: every key, code, function and limit."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from routilux import ErrorHandler, Routine
from routilux.dsl import nodes, shape
from routilux.expressions import limits
from routilux.expressions.functions import FUNCTIONS
from routilux.model.policy import POLICY_NAMES
from tests.docs.document import ROOT

REFERENCE = ROOT / "docs" / "reference"
DOCUMENTS = (REFERENCE / "documents.md").read_text(encoding="utf-8")
EXPRESSIONS = (REFERENCE / "expressions.md").read_text(encoding="utf-8")


def table(heading: str, text: str = DOCUMENTS) -> list[list[str]]:
    """The rows of the first table under a heading, each as its cells."""
    section = re.split(rf"^#+ {re.escape(heading)}$", text, maxsplit=1, flags=re.MULTILINE)[1]
    rows = re.search(r"^\|[-|]+\|\n((?:\|.*\|\n)+)", section, re.MULTILINE)
    assert rows, heading
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in rows[1].splitlines()]


@pytest.mark.parametrize(
    ("heading", "keys"),
    [
        ("The document", shape.TOP_KEYS),
        ("execution", shape.EXECUTION_KEYS),
        ("routines", shape.ROUTINE_KEYS),
        ("slots", shape.SLOT_KEYS),
        ("connections", shape.CONNECTION_KEYS),
        ("error_handler", ErrorHandler.__slots__),
        ("activation", POLICY_NAMES),
    ],
)
def test_every_key_has_a_row_and_no_other(heading: str, keys: tuple[str, ...]) -> None:
    assert [row[0].strip("`| ") for row in table(heading)] == list(keys)


def test_defaults_are_those_of_the_code() -> None:
    handler = ErrorHandler()
    given = {row[0].strip("`| "): row[2].strip("`") for row in table("error_handler")}
    assert given == {
        "strategy": str(handler.strategy),
        "max_retries": str(handler.max_retries),
        "retry_delay": str(handler.retry_delay),
        "retry_backoff": str(handler.retry_backoff),
        "max_delay": "none",
        "jitter": str(handler.jitter),
        "retryable_exceptions": "[Exception]",
        "on_exhausted": str(handler.on_exhausted),
    }
    routine = Routine()
    slot = routine.add_slot("a")
    given = {row[0].strip("`| "): row[2].strip("`") for row in table("slots")}
    assert given == {key: str(getattr(slot, key)) for key in shape.SLOT_KEYS}
    given = {row[0].strip("`| "): row[2].strip("`") for row in table("routines")}
    assert (given["concurrency"], given["timeout"]) == (str(routine.concurrency), "none")


def codes_in_the_code() -> set[str]:
    """What the loader calls its problems: the first argument of whatever reports one."""
    found = {"bad-text"}  # in a tuple
    for path in Path(nodes.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if name in {"add", "problem", "stop", "Refusal"}:
                    found.add(str(node.args[0].value))
    return found


def test_every_code_of_a_problem_is_listed() -> None:
    listed = {code for row in table("Problems") for code in re.findall(r"`([a-z-]+)`", row[0])}
    assert codes_in_the_code() <= listed


def test_limits_of_documents_are_those_of_the_code() -> None:
    assert {row[0].strip("| "): row[1] for row in table("What is read, and what is not")} == {
        "text": f"{nodes.MAX_BYTES // 1024} KiB",
        "nesting": f"{nodes.MAX_DEPTH} levels",
        "nodes": f"{nodes.MAX_NODES:,}",
        "routines": f"{nodes.MAX_ROUTINES:,}",
        "connections": f"{nodes.MAX_CONNECTIONS:,}",
        "whole numbers": "±(2^53 − 1)",
    }
    assert nodes.MAX_INTEGER == 2**53 - 1


def test_every_function_of_expressions_has_a_row_with_its_usage() -> None:
    rows = table("Functions", EXPRESSIONS)
    listed = {usage for row in rows for usage in re.findall(r"`([^`]+)`", row[0])}
    usages = {usage for function in FUNCTIONS.values() for usage in function.usage.split(" or ")}
    assert listed == usages


def test_limits_of_expressions_are_those_of_the_code() -> None:
    assert {row[0].strip("| "): row[1] for row in table("Limits", EXPRESSIONS)} == {
        "length": f"{limits.MAX_CHARACTERS:,} characters",
        "parts": f"{limits.MAX_NODES}",
        "nesting": f"{limits.MAX_DEPTH}",
        "steps of an evaluation": f"{limits.MAX_STEPS:,}",
        "text that is read or made": f"{limits.MAX_TEXT // 1024} KiB",
        "whole numbers": f"{limits.INTEGER_LIMIT.bit_length() - 1} bits",
    }
