"""``routilux completion``: scripts for shells, so that Tab completes."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from routilux.cli.command import Call, command
from routilux.cli.screen import print_json, write

EXAMPLES = """
routilux completion bash >> ~/.bashrc
routilux completion zsh >> ~/.zshrc
routilux completion fish > ~/.config/fish/completions/routilux.fish
"""


@command("completion", EXAMPLES)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(call: Call, shell: str) -> None:
    """Print the completion script of a shell; it takes effect in a new one."""
    made = get_completion_class(shell)
    assert made is not None, "click knows all of the choices"
    root = click.get_current_context().find_root().command
    variables = made(root, {}, "routilux", "_ROUTILUX_COMPLETE").source_vars()
    script = made.source_template % variables
    if call.as_json:
        print_json({"shell": shell, "script": script})
    else:
        write(f"{script}\n")
