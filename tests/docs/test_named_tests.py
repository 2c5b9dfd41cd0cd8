"""Tests that the documents name exist, and every promise has one."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs.document import ROOT, documents, name_of

NAMED = re.compile(r"`(tests/[\w/]+\.py)::([\w:]+)`")
PROMISES = ROOT / "docs" / "explanation" / "durability.md"


@cache
def names_in(path: Path) -> frozenset[str]:
    """``test_name``, ``TestClass`` and ``TestClass::test_name``, without the brackets of parameters."""
    if not path.exists():
        return frozenset()
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        names |= names_of(node)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}::{name}" for inner in node.body for name in names_of(inner)}
    return frozenset(names)


def names_of(node: ast.stmt) -> set[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name} if node.name.lower().startswith("test") else set()
    return set()


@pytest.mark.parametrize("path", documents(), ids=name_of)
def test_tests_that_a_document_names_exist(path: Path) -> None:
    named = NAMED.findall(path.read_text(encoding="utf-8"))
    assert [f"{file}::{name}" for file, name in named if name not in names_in(ROOT / file)] == []


def test_each_sentence_of_a_promise_names_a_test() -> None:
    text = PROMISES.read_text(encoding="utf-8").partition("### 22.")[0]
    sections = re.split(r"^### \d+\. ", text, flags=re.MULTILINE)[1:]
    assert len(sections) == 21
    sentences = [item for section in sections for item in re.split(r"^- ", section, flags=re.MULTILINE)[1:]]
    assert [sentence for sentence in sentences if not NAMED.search(sentence)] == []


def test_names_are_read_from_the_code() -> None:
    here = names_in(ROOT / "tests" / "docs" / "test_documents.py")
    assert {"test_python_blocks_run_and_print_what_the_document_says", "TestRunningOfDocuments"} <= here
    assert "TestRunningOfDocuments::test_blocks_share_one_namespace" in here
    assert not {"TestRunningOfDocuments::document", "targets_named", "every_document"} & here
