"""The documents tell the truth: their code runs, prints what they say, and the targets they name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from routilux import Flow
from routilux.dsl import schema
from tests.docs.document import ROOT, Block, blocks_of, documents, expected_outputs, name_of, run

FLOW_SCHEMA = Draft202012Validator(schema())
every_document = pytest.mark.parametrize("path", documents(), ids=name_of)


@every_document
def test_python_blocks_run_and_print_what_the_document_says(path: Path, tmp_path: Path) -> None:
    failures = run(path, tmp_path)
    assert not failures, "\n".join(f"{name_of(path)}:{failure.line}: {failure.what}" for failure in failures)


@every_document
def test_no_python_block_hides_from_the_test_above(path: Path) -> None:
    for block in blocks_of(path.read_text(encoding="utf-8")):
        assert block.language not in {"py", "python3", "pycon"}, f"{name_of(path)}:{block.line}: write python"
        assert not block.language.startswith("{code"), f"{name_of(path)}:{block.line}: use a plain fence"


@every_document
def test_every_flow_that_a_document_shows_is_sound(path: Path) -> None:
    for block in blocks_of(path.read_text(encoding="utf-8")):
        if block.language == "yaml":
            assert re.match(r"# \S+\.flow\.yaml\n", block.text), (
                f"{name_of(path)}:{block.line}: name the file"
            )
            flow = Flow.from_yaml(block.text)
            assert [issue for issue in flow.validate() if issue.severity == "error"] == []
            assert [error.message for error in FLOW_SCHEMA.iter_errors(flow.to_dict())] == []
            assert Flow.from_yaml(flow.to_yaml()).to_yaml() == flow.to_yaml()


@every_document
def test_make_targets_in_shell_blocks_exist(path: Path) -> None:
    named = targets_named(blocks_of(path.read_text(encoding="utf-8")))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert named <= set(re.findall(r"^([a-z][a-z-]*):(?!=)", makefile, re.MULTILINE))


def test_relative_links_of_the_readme_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = [
        target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target
    ]
    assert [target for target in targets if not (ROOT / target).exists()] == []


def targets_named(blocks: list[Block]) -> set[str]:
    return {
        word
        for block in blocks
        if block.language in {"bash", "console", "sh", "shell"}
        for arguments in re.findall(r"^(?:\$ )?make +([^#\n]*)", block.text, re.MULTILINE)
        for word in arguments.split()
        if re.fullmatch(r"[a-z][a-z-]*", word)
    }


class TestReadingOfDocuments:
    def test_blocks_carry_their_first_line_and_the_text_before_them(self) -> None:
        text = "# Title\n\n```python\nprint(1)\n```\n\nIt prints\n\n```text\n1\n```\n"
        assert blocks_of(text) == [
            Block("python", "print(1)\n", 4, "# Title"),
            Block("text", "1\n", 10, "It prints"),
        ]

    def test_blocks_in_lists_lose_their_indentation(self) -> None:
        assert blocks_of("1. One\n\n   ```python\n   if x:\n       y\n   ```\n")[0].text == "if x:\n    y\n"

    def test_a_text_block_is_compared_only_after_a_line_with_prints(self) -> None:
        def expected(between: str) -> dict[int, str]:
            return expected_outputs(blocks_of(f"```python\nf()\n```\n{between}\n```text\nout\n```\n"))

        assert expected("\nprints\n") == {2: "out\n"}
        assert expected("\nThis prints:\n") == {2: "out\n"}
        assert expected("\nThe file now holds:\n") == {}
        assert expected("\nIt prints less.\n\nAnother paragraph.\n") == {}

    def test_targets_are_read_with_and_without_a_prompt(self) -> None:
        text = (
            "```console\n$ make demo\n$ make test PYTHON=python3  # all\n```\n```bash\nmake docs bench\n```\n"
        )
        assert targets_named(blocks_of(text)) == {"demo", "test", "docs", "bench"}


class TestRunningOfDocuments:
    def document(self, folder: Path, text: str) -> Path:
        path = folder / "page.md"
        path.write_text(text, encoding="utf-8")
        return path

    def test_blocks_share_one_namespace(self, tmp_path: Path) -> None:
        text = "```python\nx = 1\n```\n```python\nprint(x)\n```\nprints\n```text\n1\n```\n"
        assert run(self.document(tmp_path, text), tmp_path) == []

    def test_a_named_yaml_block_lies_in_the_folder(self, tmp_path: Path) -> None:
        text = "```yaml\n# a.flow.yaml\nversion: 1\n```\n```python\nprint(open('a.flow.yaml').read(), end='')\n```\n"
        text += "prints\n```text\n# a.flow.yaml\nversion: 1\n```\n"
        assert run(self.document(tmp_path, text), tmp_path) == []

    def test_another_output_is_a_failure(self, tmp_path: Path) -> None:
        text = "```python\nprint(1)\n```\nprints\n```text\n2\n```\n"
        [failure] = run(self.document(tmp_path, text), tmp_path)
        assert failure.line == 2

    def test_an_exception_is_a_failure_that_names_the_line(self, tmp_path: Path) -> None:
        [failure] = run(self.document(tmp_path, "Text\n\n```python\nx = 1\nx / 0\n```\n"), tmp_path)
        assert "ZeroDivisionError" in failure.what
        assert "line 5" in failure.what
