"""``routilux init``: a first flow with its data, a test and a config, all of which work as they are."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.abc import Traversable
from importlib.resources import files
from pathlib import Path

import click

from routilux.cli.command import Call, command
from routilux.cli.screen import print_json, write
from routilux.errors import InvalidValueError, shown

EXAMPLES = """
routilux init hello
cd hello && routilux run weather.flow.yaml
"""


@command("init", EXAMPLES)
@click.argument("folder", metavar="[DIR]", default=".")
def init(call: Call, folder: str) -> None:
    """Write a flow document, its data, a test and a routilux.toml into a folder, by default this one.

    A file that is there already is never changed: then nothing is written.
    """
    target = Path(folder)
    contents = {target / name: data for name, data in _templates(files("routilux.cli") / "data" / "init")}
    _refuse_existing(target, list(contents))
    for path, data in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    if call.as_json:
        print_json([str(path) for path in contents])
    else:
        write("".join(f"{path}\n" for path in contents))
    enter = "" if target.resolve() == Path.cwd() else f"  cd {folder}\n"
    call.say(
        f"\nTry next\n{enter}  routilux run weather.flow.yaml\n  routilux graph weather.flow.yaml\n  pytest\n"
        "  routilux run weather.flow.yaml --store sqlite:///runs.db"
    )


def _templates(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    """The files below a folder by their path in it."""
    for each in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if each.is_dir():
            if each.name != "__pycache__":
                yield from _templates(each, f"{prefix}{each.name}/")
        else:
            yield prefix + each.name, each.read_bytes()


def _refuse_existing(target: Path, paths: list[Path]) -> None:
    if target.exists() and not target.is_dir():
        raise InvalidValueError(f"{shown(str(target))} is a file; give a folder, which need not exist yet")
    there = [str(path) for path in paths if path.exists()]
    if there:
        raise InvalidValueError(
            f"nothing was written, because {', '.join(there)} {'is' if len(there) == 1 else 'are'} there already; "
            "give another folder: routilux init DIR"
        )
