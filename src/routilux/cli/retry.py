"""``routilux job retry``: what was set aside goes back into its slots."""

from __future__ import annotations

import sys
from typing import Any

import click

from routilux import Runtime, StateError
from routilux.cli.command import Call, command, import_option
from routilux.cli.flows import flow_named
from routilux.cli.kept import RetriedRun, begun_of
from routilux.cli.logs import logs_shown
from routilux.cli.plan import Plan
from routilux.cli.run import carry_on
from routilux.cli.running import Run
from routilux.cli.settings import FORMATS
from routilux.cli.stores import looked_into, opened, store_of, store_option
from routilux.errors import InvalidValueError, shown, unknown
from routilux.model.item import DeadLetter
from routilux.ports import Store

_MOST_NAMES = 1_000  # that are looked through for the nearest

EXAMPLES = """
routilux job retry orders-4f2a91 --store sqlite:///orders.db
routilux job retry 2f1d9c_7 --flow orders.flow.yaml
"""


@command("retry", EXAMPLES)
@click.argument("target", metavar="JOB|RUN")
@store_option
@click.option("--flow", "name", metavar="FLOW", help="The document of the flow, if not the one that was run.")
@click.option(
    "--on-flow-change",
    type=click.Choice(["refuse", "adopt"]),
    default="refuse",
    help="What to do if the flow has changed since.",
)
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="End it after so long."
)
@click.option("--threads", type=click.IntRange(1, 1024), metavar="N", help="Threads of the pool.")
@click.option("-o", "--output", type=click.Choice(FORMATS), help="Form; table on a terminal, else jsonl.")
@import_option
def retry(
    call: Call, target: str, store: str | None, name: str | None, modules: tuple[str, ...], **options: Any
) -> int:
    """Put the items of a job, or of a whole run, that were set aside back into their slots, and run them.

    Each becomes a new job. What comes out of them is printed as by 'routilux run'. What else waits in the run goes on
    as well.
    """
    url = store_of(call, store, "'routilux job retry'")
    with looked_into(url) as (kept, runtime):
        letters = _letters_of(kept, runtime, target)
        run_id = letters[0].worker_id
        row = kept.worker(run_id)
        begun = {} if row is None else begun_of(row)
    name = name or begun.get("flow")
    if name is None:
        raise InvalidValueError(
            f"{shown(target)} does not say which document it was run from; give it: --flow FILE"
        )
    form = "table" if sys.stdout.isatty() else "jsonl"
    plan = Plan(
        name,
        output="json" if call.as_json else options["output"] or call.settings.output or form,
        timeout=options["timeout"] or call.settings.timeout,
        threads=options["threads"] or call.settings.threads,
        store=url,
        store_flag=store is not None,
        resume=run_id,
        on_flow_change=options["on_flow_change"],
        modules=modules,
    )
    flow = flow_named(name, (*call.settings.modules, *modules))
    with (
        logs_shown(call) as logs,
        opened(url) as own,
        Runtime(thread_pool_size=plan.threads, store=own) as runtime,
    ):
        assert own is not None
        live = Run(
            runtime, flow, flow.resolve_entry(begun.get("entry")), None, RetriedRun(own, plan, ("", ""))
        )
        for posted in runtime.redrive(*letters):
            live.outputs.add(posted.job_context)
        return carry_on(call, plan, live, iter(()), logs)


def _letters_of(store: Store, runtime: Runtime, target: str) -> list[DeadLetter]:
    """What was set aside of a job or a run, all of it in one run that can take it back."""
    worker, known = store.worker(target), runtime.get_job(target)
    if worker is None and known is None:
        names = [one.row.job_id for one in store.jobs(limit=_MOST_NAMES)] + [
            row.worker_id for row in store.workers()
        ]
        raise unknown("job", target, names, where=f"and no run of that id in {store.name}", job_id=target)
    letters = runtime.dead_letters(job=known) if known is not None else runtime.dead_letters(worker=target)
    if not letters:
        raise StateError(
            f"nothing of {shown(target)} is set aside in {store.name}; there is nothing to retry"
        )
    row = store.worker(letters[0].worker_id)
    if row is None or row.status == "stopped" or row.kind != "worker":
        raise StateError(
            f"{letters[0].worker_id!r} has ended for good, and takes nothing back; 'routilux job show JOB --json' "
            "has the data of what was set aside, for a run of its own"
        )
    return letters
