"""The command as a whole: help, errors of usage, and what is loaded for them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from routilux import __version__
from routilux.cli.app import COMMANDS, app
from tests.unit.cli.calling import call, environment, process


def paths() -> list[str]:
    """Every command as it is called; those of a group with the name of the group before them."""
    context = click.Context(app)
    found = []
    for name in COMMANDS:
        command = app.get_command(context, name)
        inside = command.list_commands(context) if isinstance(command, click.Group) else []
        found += [f"{name} {each}" for each in inside] or [name]
    return found


every_command = pytest.mark.parametrize("name", [*paths(), "job", "store"])


def test_help_names_every_command_and_what_it_does() -> None:
    text = " ".join(call("--help").stdout.split())
    assert [f"{name} {entry.summary}" in text for name, entry in COMMANDS.items()] == [True] * len(COMMANDS)


@every_command
def test_help_of_a_command_ends_with_examples_of_that_command(name: str) -> None:
    text = call(*name.split(), "--help").stdout
    _, _, examples = text.partition("\nExamples:\n")
    assert f"  routilux {name}" in examples
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("name", paths())
def test_every_command_takes_the_common_options(name: str) -> None:
    context, command = click.Context(app), None
    for part in name.split():
        group = command or app
        assert isinstance(group, click.Group)
        command = group.get_command(context, part)
    assert command is not None
    options = {option for parameter in command.params for option in parameter.opts}
    assert options >= {"--json", "--quiet", "--debug"}


def test_help_loads_neither_commands_nor_what_they_need(folder: Path) -> None:
    code = (
        "import json, sys\nfrom routilux.cli import main\n"
        "main(['--help'])\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=environment(), check=True, cwd=folder
    )
    loaded = set(json.loads(done.stderr))
    assert {name for name in loaded if name.startswith("routilux.cli.")} == {
        "routilux.cli.app",
        "routilux.cli.codes",
    }
    assert not loaded & {"rich", "yaml", "msgspec", "asyncio", "routilux.dsl", "routilux.routines", "tomllib"}


def test_version() -> None:
    assert call("--version").stdout == f"routilux {__version__}\n"


def test_an_unknown_command_is_refused_with_the_nearest(folder: Path) -> None:
    done = process("valdate", folder=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no command 'valdate'; the nearest are validate" in done.stderr


@pytest.mark.parametrize("package", ["click", "rich"])
def test_without_the_extra_it_says_how_to_install_it(package: str, folder: Path) -> None:
    code = (
        f"import sys\nsys.modules[{package!r}] = None\nfrom routilux.cli import main\n"
        "sys.exit(main(['list', 'routines']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=folder
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == f"Error: the command line needs the package {package}: pip install 'routilux[cli]'\n"
    )


def test_completion_of_every_shell_names_the_command() -> None:
    for shell in ("bash", "zsh", "fish"):
        script = call("completion", shell).stdout
        assert "_ROUTILUX_COMPLETE" in script
        assert json.loads(call("completion", shell, "--json").stdout) == {
            "shell": shell,
            "script": script[:-1],
        }


def test_a_shell_is_told_the_commands(folder: Path) -> None:
    words = {"_ROUTILUX_COMPLETE": "bash_complete", "COMP_WORDS": "routilux va", "COMP_CWORD": "1"}
    assert process(folder=folder, **words).stdout == "plain,validate\n"
