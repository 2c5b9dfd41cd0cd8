"""``routilux job``: look at the jobs in a store, and cancel."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

import click

from routilux import JobContext, JobStatus, Runtime, tracebacks
from routilux.cli.app import NamedCommands
from routilux.cli.command import Call, command
from routilux.cli.outputs import as_row
from routilux.cli.reporting import data_text
from routilux.cli.retry import retry
from routilux.cli.screen import json_text, print_json, print_pairs, print_table, write
from routilux.cli.settings import FORMATS
from routilux.cli.stores import looked_into, store_of, store_option
from routilux.errors import describe, shown, unknown
from routilux.model.item import DeadLetter
from routilux.ports import Codec, ItemRow, Store, load
from routilux.store import cancel as cancel_stored

_PAGE: Final = 50
_MOST_NAMES: Final = 1_000  # that are looked through for the nearest
_MOST_PARKED: Final = 50  # items of a job that are shown
_SLICE: Final = 1_000  # items that are read at once
_LONGEST_ERROR: Final = 200  # characters, in a table

EXAMPLES = """
routilux job list --store sqlite:///orders.db --status failed
routilux job show 2f1d9c_7 --store sqlite:///orders.db
routilux job retry orders-4f2a91 --store sqlite:///orders.db
routilux job cancel 2f1d9c_8 --store sqlite:///orders.db
"""
LIST_EXAMPLES = """
routilux job list --store sqlite:///orders.db
routilux job list --status failed --flow orders --json
routilux job list --run orders-4f2a91 --dead-letters
"""
SHOW_EXAMPLES = "routilux job show 2f1d9c_7 --store sqlite:///orders.db"
CANCEL_EXAMPLES = """
routilux job cancel 2f1d9c_7 --store sqlite:///orders.db
routilux job cancel orders-4f2a91
"""


@click.group("job", cls=NamedCommands, epilog=EXAMPLES)
def job() -> None:
    """Look at the jobs in a store, put items back, cancel.

    A run in a store has a job for each item of its input.
    """


# -- list --------------------------------------------------------------------------------------------------


@command("list", LIST_EXAMPLES)
@store_option
@click.option("--status", type=click.Choice([status.value for status in JobStatus]), help="Only these.")
@click.option("--flow", "flow_id", metavar="FLOW_ID", help="Only jobs of this flow.")
@click.option("--run", "run_id", metavar="RUN", help="Only jobs of this run, or worker.")
@click.option("--parked", is_flag=True, help="Only jobs with items that wait for items of others.")
@click.option("--dead-letters", is_flag=True, help="Only jobs with items that were set aside.")
@click.option(
    "--limit", type=click.IntRange(1), default=_PAGE, show_default=True, metavar="N", help="At most so many."
)
@click.option("--after", metavar="JOB", help="Only jobs behind this one: the next page.")
@click.option("-o", "--output", type=click.Choice(FORMATS), help="Form; table on a terminal, else jsonl.")
def list_jobs(call: Call, store: str | None, dead_letters: bool, output: str | None, **chosen: Any) -> None:
    """List the jobs in a store, oldest first, also while a run has it open."""
    with looked_into(store_of(call, store, "'routilux job list'")) as (kept, runtime):
        _check_known(kept, chosen["run_id"], chosen["flow_id"])
        letters = Counter(
            job_id for letter in runtime.dead_letters(worker=chosen["run_id"]) for job_id in letter.job_ids
        )
        found, more = _page(kept, runtime, chosen, letters if dead_letters else None)
        _print_jobs(found, letters, form_of(call, output))
    if more:
        call.say(f"There are more: --after {found[-1].job_id}")
    elif not found:
        call.say("There are no such jobs.")


def _check_known(store: Store, run_id: str | None, flow_id: str | None) -> None:
    """Refuse a run or a flow of which the store has nothing. Jobs are kept longer than the run that took them."""
    if run_id is not None and store.worker(run_id) is None and not store.jobs(worker_id=run_id, limit=1):
        raise unknown("run", run_id, [row.worker_id for row in store.workers()], where=f"in {store.name}")
    if flow_id is None or store.jobs(flow_id=flow_id, limit=1):
        return
    known = {row.flow_id for row in store.workers()} | {
        one.row.flow_id for one in store.jobs(limit=_MOST_NAMES)
    }
    if flow_id not in known:
        raise unknown("flow", flow_id, known, where=f"in {store.name}")


def _page(
    store: Store, runtime: Runtime, chosen: dict[str, Any], letters: Counter[str] | None
) -> tuple[list[JobContext], bool]:
    """Jobs as they were chosen, and whether there are more."""
    after = None if chosen["after"] is None else job_of(store, runtime, chosen["after"])
    found: list[JobContext] = []
    while len(found) <= chosen["limit"]:
        page = runtime.list_jobs(
            status=chosen["status"], flow=chosen["flow_id"], worker=chosen["run_id"], limit=chosen["limit"] + 1,
            parked=chosen["parked"] or None, cursor=after,
        )  # fmt: skip
        found += [each for each in page if letters is None or each.job_id in letters]
        if len(page) <= chosen["limit"]:
            break
        after = page[-1]
    return found[: chosen["limit"]], len(found) > chosen["limit"]


def _print_jobs(jobs: Sequence[JobContext], letters: Counter[str], form: str) -> None:
    if form == "table":
        if jobs:
            print_table(_without_empty([_table_row(each, letters[each.job_id]) for each in jobs]))
        return
    rows = [_job_row(each, letters[each.job_id]) for each in jobs]
    if form == "json":
        print_json(rows)
    else:
        write("".join(f"{json_text(row)}\n" for row in rows))


def _without_empty(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the columns in which no row has anything: a terminal is narrow."""
    filled = {name for row in rows for name, value in row.items() if value not in (None, "")}
    return [{name: value for name, value in row.items() if name in filled} for row in rows]


def _table_row(each: JobContext, letters: int) -> dict[str, Any]:
    error = "" if each.error is None else str(each.error)
    return {
        "job": each.job_id,
        "run": each.worker_id,
        "status": each.status.value,
        "created": _local(each.created_at),
        "parked": each.parked or None,
        "set aside": letters or None,
        "error": error if len(error) <= _LONGEST_ERROR else f"{error[: _LONGEST_ERROR - 1]}…",
    }


def _job_row(each: JobContext, letters: int) -> dict[str, Any]:
    return {
        "job_id": each.job_id,
        "run": each.worker_id,
        "flow_id": each.flow_id,
        "status": each.status.value,
        "created_at": _utc(each.created_at),
        "started_at": _utc(each.started_at),
        "completed_at": _utc(each.completed_at),
        "outputs": len(each.outputs),
        "parked": each.parked,
        "dead_letters": letters,
        "error": None if each.error is None else str(each.error),
        "metadata": dict(each.metadata),
    }


# -- show --------------------------------------------------------------------------------------------------


@command("show", SHOW_EXAMPLES)
@click.argument("job_id", metavar="JOB")
@store_option
def show(call: Call, job_id: str, store: str | None) -> None:
    """Show a job: its trace, its errors, its outputs, its items that are parked, and those that were set aside."""
    with looked_into(store_of(call, store, "'routilux job show'")) as (kept, runtime):
        found = job_of(kept, runtime, job_id)
        letters = runtime.dead_letters(job=found)
        parked = list(islice(_parked_of(kept, found), _MOST_PARKED))
    if call.as_json:
        print_json(_everything(found, letters, parked))
        return
    row = _job_row(found, len(letters))
    times = {name: _local(getattr(found, name)) for name in ("created_at", "started_at", "completed_at")}
    pairs = {**row, **times, "metadata": json_text(row["metadata"])}
    print_pairs(
        (name.replace("_", " "), str(value)) for name, value in pairs.items() if value not in ("", None)
    )
    _print_part("trace", ({**entry, "time": _local(entry["time"])} for entry in found.trace_log))
    _print_part("errors", ({"error": str(error)} for error in found.errors))
    _print_part(
        "outputs", ({"event": f"{o.routine_id}.{o.event}", "data": json_text(o.data)} for o in found.outputs)
    )
    _print_part("parked", map(_parked_cells, parked))
    _print_part("dead letters", map(_letter_cells, letters))
    traceback = tracebacks.traceback_of(found.error) if found.error is not None else None
    if traceback:
        write(f"\n{traceback}")
    if found.parked > len(parked):
        call.say(f"{found.parked - len(parked):,} more items are parked")


def _print_part(title: str, rows: Iterable[dict[str, Any]]) -> None:
    listed = list(rows)
    if listed:
        write("\n")
        print_table(listed, title=title)


def _letter_cells(letter: DeadLetter) -> dict[str, Any]:
    return {
        "slot": f"{letter.routine_id}.{letter.slot}",
        "reason": letter.reason,
        "error": letter.error,
        "data": json_text(letter.data),
    }


def _parked_of(store: Store, found: JobContext) -> Iterator[dict[str, Any]]:
    """The items of a job that wait for items of others, and for which, as far as that is known without the flow."""
    worker = store.worker(found.worker_id)
    if not found.parked or worker is None:
        return
    codec, where = load("codec")(), f"worker {worker.worker_id!r} in {store.name}"
    joins: Mapping[str, str] = codec.decode(worker.data, where).get("joins", {})
    ours = json.dumps(found.job_id)
    for place in store.places(worker.worker_id):
        by = joins.get(place.rpartition(".")[0])
        for row in _items_at(store, worker.worker_id, place):
            if ours in row.job_ids:
                yield {"slot": place, **_parked_item(codec, row, by)}


def _items_at(store: Store, worker_id: str, place: str) -> Iterator[ItemRow]:
    rows = store.items(worker_id, place, limit=_SLICE)
    while rows:
        yield from rows
        rows = store.items(worker_id, place, after=rows[-1].number, limit=_SLICE)


def _parked_item(codec: Codec, row: ItemRow, by: str | None) -> dict[str, Any]:
    try:
        data = codec.decode(row.data, f"item {row.number} of {row.place!r}")
    except Exception as error:  # noqa: BLE001 a type that only the program knows, or its code
        return {"waits": None, "data": None, "error": describe(error)}
    waits = "for items of others" if by is None else f"for a partner ({by} {shown(data.get(by))})"
    return {"waits": waits, "data": data, "error": None}


def _parked_cells(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "slot": item["slot"],
        "waits": item["waits"] or item["error"],
        "data": "" if item["data"] is None else data_text(item["data"]),
    }


def _everything(found: JobContext, letters: list[DeadLetter], parked: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        **_job_row(found, len(letters)),
        "trace": [{**entry, "time": _utc(entry["time"])} for entry in found.trace_log],
        "traceback": None if found.error is None else tracebacks.traceback_of(found.error),
        "errors": [str(error) for error in found.errors],
        "outputs": [as_row(output) for output in found.outputs],
        "parked_items": parked,
        "dead_letters": [{**letter._asdict(), "time": _utc(letter.time)} for letter in letters],
        "data": dict(found.data),
    }


# -- cancel ------------------------------------------------------------------------------------------------


@command("cancel", CANCEL_EXAMPLES)
@click.argument("target", metavar="JOB|RUN")
@store_option
def cancel(call: Call, target: str, store: str | None) -> None:
    """Cancel a job, or a run with all its jobs: what is queued of them is gone.

    It needs a store that no process has open; a run that goes on is cancelled by Ctrl-C first.
    """
    cancelled = cancel_stored(store_of(call, store, "'routilux job cancel'"), target)
    if call.as_json:
        print_json(cancelled)
    else:
        write("".join(f"{job_id}\n" for job_id in cancelled))
    if cancelled:
        call.say(f"{len(cancelled):,} cancelled.")
    else:
        call.say(f"{target} has no job that has not ended; nothing was changed.")


# -- parts -------------------------------------------------------------------------------------------------


def job_of(store: Store, runtime: Runtime, job_id: str) -> JobContext:
    """Raises UnknownJobError with the nearest that there are."""
    found = runtime.get_job(job_id)
    if found is not None:
        return found
    if store.worker(job_id) is not None:
        fix = f"that is a run: 'routilux job list --run {job_id}' lists its jobs"
        raise unknown("job", job_id, [], where=f"in {store.name}", fix=fix, job_id=job_id)
    known = [one.row.job_id for one in store.jobs(limit=_MOST_NAMES)]
    raise unknown(
        "job", job_id, known, where=f"in {store.name}", fix="'routilux job list' lists them", job_id=job_id
    )


def form_of(call: Call, given: str | None) -> str:
    if call.as_json:
        return "json"
    return given or call.settings.output or ("table" if sys.stdout.isatty() else "jsonl")


def _utc(seconds: float | None) -> str | None:
    return (
        None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    )


def _local(seconds: float | None) -> str:
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}"


for _command in (list_jobs, show, retry, cancel):
    job.add_command(_command)
