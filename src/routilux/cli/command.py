"""What every command has: options, settings, an example in its help, and errors without a traceback."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from routilux.cli.app import write_examples
from routilux.cli.codes import CLOSED_PIPE, DONE, FAILED, IN_USE, INVALID, TIMED_OUT, USAGE
from routilux.cli.screen import folded
from routilux.cli.settings import Settings, read_settings
from routilux.errors import (
    ConfigurationError,
    ExecutionTimeoutError,
    FlowValidationError,
    MissingPolicyError,
    RoutiluxError,
    SerializationError,
    StoreLockedError,
)


@dataclass(frozen=True)
class Call:
    """One call of a command: the settings that hold for it, and how it speaks."""

    settings: Settings
    as_json: bool = False
    quiet: bool = False
    debug: bool = False
    verbose: bool = False
    """Show each failure of a run as it happens."""

    def say(self, text: str = "") -> None:
        """Progress, hints and warnings: to stderr, unless it is to be quiet."""
        if not self.quiet:
            click.echo(folded(text, sys.stderr), err=True)

    def complain(self, text: str) -> None:
        """What has gone wrong: to stderr, always."""
        click.echo(folded(f"Error: {text}", sys.stderr), err=True)

    def warn(self, text: str) -> None:
        """What has gone wrong and is allowed to: to stderr, always."""
        click.echo(folded(f"Warning: {text}", sys.stderr), err=True)

    def show(self, error: BaseException, where: str = "", *, allowed: bool = False) -> None:
        """An error as its message; with ``--debug`` its traceback before that. One that is ``allowed`` is a warning."""
        tell = self.warn if allowed else self.complain
        if self.debug:
            traceback.print_exception(error)
        if isinstance(error, OSError) and error.filename and not isinstance(error, RoutiluxError):
            tell(f"{where}{error.filename}: {error.strerror}")
        else:
            tell(f"{where}{str(error) or type(error).__name__}")


class Command(click.Command):
    """A command whose function takes a :class:`Call` first and returns an exit code or None."""

    def invoke(self, ctx: click.Context) -> Any:
        as_json, quiet, debug = (ctx.params.pop(name) for name in ("as_json", "quiet", "debug"))
        call = Call(Settings(), as_json, quiet, debug)
        try:
            settings = read_settings()
            ctx.obj = call = Call(settings, as_json, quiet or settings.quiet, debug or settings.debug)
            for warning in settings.warnings:
                call.say(f"Warning: {warning}")
            code = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            _silence_stdout()
            code = CLOSED_PIPE
        except (RoutiluxError, OSError) as error:
            call.show(error)
            _tell_hint(call, error)
            code = code_of(error)
        return ctx.exit(code or DONE)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(self.epilog, formatter)


def _tell_hint(call: Call, error: BaseException) -> None:
    from routilux.cli.flows import hint_for  # only errors come here

    hint = hint_for(error)
    if hint:
        call.say(hint)


def code_of(error: BaseException) -> int:
    """The exit code that an error stands for, unless it is the failure of a flow."""
    from routilux.dsl import DslError  # dear to import, and only errors come here

    if isinstance(error, (DslError, FlowValidationError, MissingPolicyError)):
        return INVALID
    if isinstance(error, (ConfigurationError, SerializationError)):
        return USAGE
    if isinstance(error, StoreLockedError):
        return IN_USE
    return TIMED_OUT if isinstance(error, ExecutionTimeoutError) else FAILED


def command(name: str, examples: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a command of a function; its help ends with the examples, one a line."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        made = click.command(name, cls=Command, epilog=examples)(click.pass_obj(function))
        made.params += [
            click.Option(["--json", "as_json"], is_flag=True, help="Print JSON."),
            click.Option(["-q", "--quiet"], is_flag=True, help="No progress and no hints."),
            click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."),
        ]
        return made

    return decorate


def import_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """The option ``--import``, for commands that deal with flows."""
    return click.option(
        "--import",
        "modules",
        metavar="MODULE",
        multiple=True,
        help="Import this module: its routines and flows can be named. May be repeated.",
    )(function)


def _silence_stdout() -> None:
    """The reader has gone: what is still buffered goes nowhere, and no error comes of it at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
