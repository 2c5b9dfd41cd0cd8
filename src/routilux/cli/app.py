"""The command group. A command's module is imported when the command is used: ``--help`` stays fast."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final, NamedTuple

import click

from routilux import __version__
from routilux.cli.codes import CLOSED_PIPE, INTERRUPTED
from routilux.errors import nearest


class Entry(NamedTuple):
    """Where a command is, and what it does in one line, so that help needs no import."""

    source: str
    summary: str


COMMANDS: Final = {
    "run": Entry("routilux.cli.run:run", "Run a flow and print what comes out."),
    "validate": Entry("routilux.cli.validate:validate", "Check flow documents; every problem at once."),
    "graph": Entry("routilux.cli.graph:graph", "Draw a flow as Mermaid, DOT or SVG."),
    "list": Entry("routilux.cli.listing:listing", "List routines or flows."),
    "job": Entry("routilux.cli.job:job", "Look at the jobs in a store, put items back, cancel."),
    "store": Entry("routilux.cli.operate:store", "Check, export, repair and prune a store."),
    "schema": Entry("routilux.cli.schema:schema", "Print the JSON Schema of flow documents, for editors."),
    "init": Entry("routilux.cli.init:init", "Write a first flow with data, a test and a config."),
    "demo": Entry("routilux.cli.demo:demo", "Run the weather flow that comes with Routilux."),
    "doctor": Entry("routilux.cli.doctor:doctor", "Check the installation and the config."),
    "completion": Entry("routilux.cli.completion:completion", "Print the completion script of a shell."),
}


class NamedCommands(click.Group):
    """Refuses a command that is not there with the nearest that are; its help ends with its epilog as examples."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            close = ", ".join(nearest(args[0], known))
            ctx.fail(f"no command {args[0]!r}; the nearest are {close}")
        return super().resolve_command(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(self.epilog, formatter)


def write_examples(examples: str | None, formatter: click.HelpFormatter) -> None:
    """A command line on each line, as it is."""
    if examples:
        with formatter.section("Examples"):
            for line in examples.strip().splitlines():
                formatter.write(f"  {line.strip()}\n")


class Group(NamedCommands):
    """Knows its commands by name and imports the one that is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.source.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", prog_name="routilux", message="%(prog)s %(version)s")
def app() -> None:
    """Run and check flows of Routilux.

    \b
    Begin with
      routilux demo             a flow over four years of weather
      routilux init hello       a flow of your own
      routilux COMMAND --help   every command has an example
    """


def run_app(arguments: list[str]) -> int:
    """The exit code of a command line."""
    _be_lenient_about_encodings()
    try:
        result: Any = app.main(arguments, prog_name="routilux", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo("Interrupted.", err=True)
        return INTERRUPTED
    except SystemExit:  # click's answer to a closed pipe
        return CLOSED_PIPE
    return result if type(result) is int else 0


def _be_lenient_about_encodings() -> None:
    """A terminal that cannot show a character gets its code instead of a traceback."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
