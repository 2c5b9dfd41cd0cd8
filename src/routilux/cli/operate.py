"""``routilux store``: what can be done with a store beside running it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import click

from routilux.cli.app import NamedCommands
from routilux.cli.codes import DONE, FAILED
from routilux.cli.command import Call, command
from routilux.cli.screen import print_json, write, write_folded
from routilux.cli.stores import store_of, store_option
from routilux.errors import InvalidValueError, shown
from routilux.store import check as check_store
from routilux.store import export as export_store
from routilux.store import export_lines, without_password
from routilux.store import prune as prune_store
from routilux.store import repair as repair_store
from routilux.store import restore as restore_store

_DAY = 86_400.0  # seconds

EXAMPLES = """
routilux store check --store sqlite:///orders.db
routilux store export orders.jsonl --store sqlite:///orders.db
routilux store restore orders.jsonl --store postgresql://me@host/orders
routilux store repair sqlite:///repaired.db --store sqlite:///orders.db
routilux store prune --older-than 30 --store sqlite:///orders.db
"""


@click.group("store", cls=NamedCommands, epilog=EXAMPLES)
def store() -> None:
    """Check, export, restore, repair and prune a store.

    Data goes to stdout, counts to stderr. The exit code is 0 if all is well, 1 if something is damaged, 5 if another
    process has the store.
    """


@command("check", "routilux store check --store sqlite:///orders.db")
@store_option
def check(call: Call, store: str | None) -> int:
    """Look at every page and row; may be used while a run has the store open.

    Prints what is damaged, or nothing. The exit code is 1 if something is.
    """
    url = store_of(call, store, "'routilux store check'")
    problems = [problem.message for problem in check_store(url)]
    if call.as_json:
        print_json(problems)
    for problem in () if call.as_json else problems:
        write_folded(problem)
    name = without_password(url)
    if problems:
        call.say(
            f"{name}: {len(problems):,} problems. 'routilux store repair NEW_URL' saves what can be read."
        )
    else:
        call.say(f"{name}: everything is whole.")
    return FAILED if problems else DONE


@command("export", "routilux store export --store sqlite:///orders.db > orders.jsonl")
@click.argument("file", metavar="[FILE]", required=False)
@store_option
def export(call: Call, file: str | None, store: str | None) -> None:
    """Write every row as a line of JSON, to stdout or a file; may be used while a run has the store open.

    A file appears when it is whole.
    """
    url = store_of(call, store, "'routilux store export'")
    if file is not None:
        _tell(call, f"exported to {file}", export_store(url, file))
        return
    counts = Counter[str]()
    for line in export_lines(url, counts):
        write(line)
    _tell(call, "exported", counts, to_stdout=False)


@command("restore", "routilux store restore orders.jsonl --store sqlite:///copy.db")
@click.argument("file", metavar="FILE")
@store_option
def restore(call: Call, file: str, store: str | None) -> None:
    """Put the rows of an export into a new store, of whatever kind."""
    if not Path(file).is_file():
        raise InvalidValueError(f"{shown(file)} is no file; give one that 'routilux store export FILE' wrote")
    _tell(
        call, f"restored from {file}", restore_store(file, store_of(call, store, "'routilux store restore'"))
    )


@command("repair", "routilux store repair sqlite:///repaired.db --store sqlite:///orders.db")
@click.argument("new", metavar="NEW_URL")
@store_option
def repair(call: Call, new: str, store: str | None) -> int:
    """Save every row that can be read into a new store. The old one stays as it is.

    Prints what is lost. The exit code is 1 if something is.
    """
    repaired = repair_store(store_of(call, store, "'routilux store repair'"), new)
    lost = [problem.message for problem in repaired.lost]
    if call.as_json:
        print_json({"saved": repaired.saved, "lost": lost})
    for problem in () if call.as_json else lost:
        write_folded(problem)
    _tell(call, f"saved in {without_password(new)}", repaired.saved, to_stdout=False)
    return FAILED if lost else DONE


@command("prune", "routilux store prune --older-than 30 --keep 10000 --store sqlite:///orders.db")
@store_option
@click.option(
    "--older-than", type=click.FloatRange(min=0), default=7, show_default=True, metavar="DAYS",
    help="Remove jobs that ended longer ago.",
)  # fmt: skip
@click.option(
    "--keep", type=click.IntRange(0), default=100_000, show_default=True, metavar="N",
    help="Remove ended jobs beyond the newest so many.",
)  # fmt: skip
def prune(call: Call, store: str | None, older_than: float, keep: int) -> None:
    """Remove old ended jobs, with what they have kept, and ended runs without jobs.

    Jobs with items that wait, or that were set aside, stay. No run may have a SQLite store open.
    """
    url = store_of(call, store, "'routilux store prune'")
    removed = prune_store(url, older_than=older_than * _DAY, keep_finished=keep)
    _tell(call, "removed", {"rows": removed})


def _tell(call: Call, what: str, counts: Mapping[str, int], *, to_stdout: bool = True) -> None:
    """Counts for people on stderr, and with ``--json`` on stdout."""
    if call.as_json and to_stdout:
        print_json(dict(counts))
    listed = ", ".join(f"{count:,} {table}" for table, count in sorted(counts.items())) or "nothing"
    call.say(f"{listed} {what}")


for _command in (check, export, restore, repair, prune):
    store.add_command(_command)
