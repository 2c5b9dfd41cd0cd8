"""The pages about the command line: their sessions run, and the reference names what there is."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from routilux.cli import codes
from routilux.cli.app import COMMANDS, app
from routilux.cli.settings import KEYS, VARIABLES
from tests.docs.document import ROOT, Block, blocks_of, documents, name_of
from tests.docs.sessions import Command, commands_of, matches, run_session

REFERENCE = ROOT / "docs" / "reference" / "command_line.md"
SESSIONS = [path for path in documents() if commands_of(blocks_of(path.read_text(encoding="utf-8")))]
COMMON = {"--json", "-q", "--quiet", "--debug"}


@pytest.mark.parametrize("path", SESSIONS, ids=name_of)
def test_sessions_run_and_print_what_the_document_says(path: Path, tmp_path: Path) -> None:
    failures = run_session(commands_of(blocks_of(path.read_text(encoding="utf-8"))), tmp_path)
    assert not failures, "\n".join(f"{name_of(path)}:{failure.line}: {failure.what}" for failure in failures)


def test_the_readme_and_the_tutorial_are_among_them() -> None:
    assert {name_of(path) for path in SESSIONS} >= {"README.md", "docs/tutorial/first_five_minutes.md"}


# -- the reference -------------------------------------------------------------------------------------------


def sections() -> dict[str, str]:
    """By heading, the text below it; the text before the first one under an empty name."""
    parts = re.split(r"^## (.+)$", REFERENCE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def options_in(text: str) -> set[str]:
    return {option for code in re.findall(r"`(-[^`]+)`", text) for option in [code.split()[0]]}


def options_of(name: str) -> set[str]:
    command = app.get_command(click.Context(app), name)
    assert command is not None
    commands = list(command.commands.values()) if isinstance(command, click.Group) else [command]
    options = [each for one in commands for each in one.params if isinstance(each, click.Option)]
    return {name for option in options for name in option.opts} - COMMON


def test_every_command_has_a_section_in_the_order_of_the_help() -> None:
    assert [name for name in sections() if name in COMMANDS] == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_section_names_the_options_of_its_command_and_no_others(name: str) -> None:
    assert options_in(sections()[name]) - {"-", "-i -"} == options_of(name)


def test_options_of_every_command_are_named_above() -> None:
    assert options_in(sections()[""]) == COMMON | {"-h", "--help"}


def test_every_exit_code_is_named() -> None:
    named = {
        int(code)
        for row in re.findall(r"^\| ([0-9, ]+) \|", sections()["Exit codes"], re.MULTILINE)
        for code in row.split(",")
    }
    known = {value for name, value in vars(codes).items() if name.isupper() and isinstance(value, int)}
    assert named == (known - {codes.SIGNALLED}) | {143}


def test_every_key_and_variable_of_the_config_is_named() -> None:
    rows = dict(re.findall(r"^\| `([a-z.]+)` \| `([A-Z_]+)` \|", sections()["Config"], re.MULTILINE))
    keys = {
        f"{key.section}.{name}" if key.section else name: f"ROUTILUX_{key.variable}"
        for name, key in KEYS.items()
    }
    assert rows == keys
    assert set(rows.values()) == set(VARIABLES)


class TestReadingOfSessions:
    def test_commands_carry_the_lines_below_them(self) -> None:
        text = "x\n\n```console\n$ routilux x\nout\n\nmore\n$ two\n```\n"
        assert commands_of(blocks_of(text)) == [
            Command(4, "routilux x", ["out", "", "more"]),
            Command(8, "two", []),
        ]

    def test_blocks_of_other_programs_are_not_run(self) -> None:
        blocks = [Block("console", text, 1, "") for text in ("$ make demo\n", "$ cd x\n$ routilux demo\n")]
        assert [command.text for command in commands_of(blocks)] == ["cd x", "routilux demo"]

    def test_seconds_and_what_is_left_out_do_not_count(self) -> None:
        assert matches(["a 0.1 s", "…", "z"], "a 7.5 s\nb\nc\nz\n")
        assert matches([], "")
        assert not matches(["a"], "a\nb\n")
        assert not matches(["a.c"], "abc\n")

    def test_another_output_is_a_failure(self, tmp_path: Path) -> None:
        [failure] = run_session([Command(3, "echo one", ["two"])], tmp_path)
        assert (failure.line, failure.what) == (3, "echo one prints\none\n\nand not\ntwo")
