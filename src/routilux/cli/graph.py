"""``routilux graph``: a flow as a picture."""

from __future__ import annotations

import subprocess
from typing import Final

import click

from routilux import ConfigurationError, Flow
from routilux.cli.command import Call, command, import_option
from routilux.cli.flows import flow_named
from routilux.cli.screen import print_json, write

_SECONDS: Final = 60  # that Graphviz may take

EXAMPLES = """
routilux graph weather.flow.yaml
routilux graph weather.flow.yaml --format svg > weather.svg
"""


@command("graph", EXAMPLES)
@click.argument("flow", metavar="FLOW")
@click.option(
    "--format",
    "form",
    type=click.Choice(["mermaid", "dot", "svg"]),
    default="mermaid",
    show_default=True,
    help="svg needs the program dot of Graphviz.",
)
@import_option
def graph(call: Call, flow: str, form: str, modules: tuple[str, ...]) -> None:
    """Draw a flow as text: Mermaid (which GitHub and many editors show), DOT, or SVG."""
    drawn = flow_named(flow, (*call.settings.modules, *modules))
    text = {"mermaid": Flow.to_mermaid, "dot": Flow.to_dot, "svg": to_svg}[form](drawn)
    if call.as_json:
        print_json({"flow_id": drawn.flow_id, "format": form, "text": text})
    else:
        write(text)


def to_svg(flow: Flow) -> str:
    """What Graphviz makes of a flow; ConfigurationError if it is not installed or fails."""
    try:
        done = subprocess.run(
            ["dot", "-Tsvg"], input=flow.to_dot().encode(), capture_output=True, timeout=_SECONDS, check=False
        )
    except FileNotFoundError:
        raise ConfigurationError(
            "svg needs the program dot, which is not on the PATH; install Graphviz (the package graphviz of your "
            "system), or take --format dot or mermaid"
        ) from None
    except subprocess.TimeoutExpired:
        message = f"dot has not drawn flow {flow.flow_id!r} within {_SECONDS} s; take --format dot"
        raise ConfigurationError(message) from None
    if done.returncode:
        problem = done.stderr.decode(errors="replace").strip()
        raise ConfigurationError(f"dot cannot draw flow {flow.flow_id!r}: {problem}; look at --format dot")
    return done.stdout.decode()
