"""``routilux run``: a flow from its document, fed from the command line or a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import click

from routilux import ConfigurationError, Flow, JobState, Runtime, SerializationError, WorkerState
from routilux.cli.codes import DONE, FAILED
from routilux.cli.command import Call, command, import_option
from routilux.cli.flows import flow_named
from routilux.cli.inputs import STDIN, Item, check_input, check_keys, items_of, parameters
from routilux.cli.kept import FoundRun, KeptRun, find_run, named
from routilux.cli.logs import AboveProgress, logs_shown
from routilux.cli.outputs import PRINTERS, Outputs
from routilux.cli.plan import Plan
from routilux.cli.progress import progress_of
from routilux.cli.reporting import Report, RunView, counted, resuming, tell_unheard
from routilux.cli.running import Ending, Run, signals_to
from routilux.cli.settings import FORMATS
from routilux.cli.stores import opened, store_of, store_option
from routilux.cli.watching import watch_files
from routilux.errors import ExecutionTimeoutError, InvalidValueError, describe, shown

EXAMPLES = """
routilux run weather.flow.yaml
routilux run weather.flow.yaml -p path=data/rain.csv -p limit:=10
routilux run orders.flow.yaml -i orders.jsonl -o jsonl > done.jsonl
routilux run orders.flow.yaml -i orders.jsonl --store sqlite:///o.db
routilux run orders.flow.yaml --store sqlite:///o.db --resume orders-4f2a91
routilux run orders.flow.yaml -i orders.jsonl --save-state orders.state
routilux run orders.flow.yaml --load-state orders.state
"""


@command("run", EXAMPLES)
@click.argument("flow", metavar="FLOW")
@click.option(
    "-p",
    "params",
    metavar="KEY=TEXT|KEY:=JSON",
    multiple=True,
    help="A key of the entry's data: text, or JSON. May be repeated.",
)
@click.option(
    "-i",
    "--input",
    "source",
    metavar="FILE|-",
    help="JSON: the entry's data. JSON Lines: an item on each line.",
)
@click.option("--entry", metavar="ROUTINE[.SLOT]", help="Where data goes in, if not at the flow's entry.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(FORMATS),
    help="How outputs are printed: table on a terminal, else jsonl.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="End the run after so many seconds, with exit code 4.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Threads of the pool; one per core if not given.",
)
@click.option(
    "--allow-errors",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Allow N lost items: report what failed, was set aside or is parked as warnings, exit with 0.",
)
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    help="Show each failure as it happens; the first of equal ones with traceback.",
)
@click.option("--watch", is_flag=True, help="Run again whenever the document or the input changes.")
@click.option(
    "--save-state", metavar="FILE", help="Write the state of the run when it ends, however it ends."
)
@click.option("--load-state", metavar="FILE", help="Go on from a state that was written.")
@store_option
@click.option(
    "--id", "run_id", metavar="RUN", help="The id of this run in the store; one is made if not given."
)
@click.option("--resume", metavar="RUN", help="Go on with a run that is in the store.")
@click.option(
    "--on-flow-change",
    type=click.Choice(["refuse", "adopt"]),
    default="refuse",
    help="What --resume does if the flow has changed since.",
)
@import_option
def run(
    call: Call, flow: str, params: tuple[str, ...], watch: bool, modules: tuple[str, ...], **options: Any
) -> int:
    """Run a flow and print what comes out of it: what is emitted on events that nothing is connected to.

    FLOW is a document (*.flow.yaml, *.flow.json), or the name of a flow that an imported module registers.
    """
    call, settings = replace(call, verbose=options["verbose"]), call.settings
    plan = Plan(
        flow,
        options["source"],
        parameters(params),
        options["entry"],
        "json" if call.as_json else options["output"] or settings.output or _usual_output(),
        options["timeout"] or settings.timeout,
        options["threads"] or settings.threads,
        options["save_state"],
        options["load_state"],
        store=_store_of(call, options),
        store_flag=options["store"] is not None,
        run_id=options["run_id"],
        resume=options["resume"],
        on_flow_change=options["on_flow_change"],
        allow_errors=options["allow_errors"],
        modules=modules,
    )
    allowed = (*settings.modules, *modules)
    if not watch:
        return run_plan(call, plan, flow_named(flow, allowed))
    if plan.resume is not None:
        raise InvalidValueError(
            "--watch runs again from the beginning, and --resume goes on; give one of them"
        )
    if plan.source == STDIN:
        raise InvalidValueError(
            "--watch runs again from the beginning, and -i - cannot be read twice; give a file"
        )
    files = [name for name in (flow, plan.source) if name is not None and os.path.isfile(name)]
    return watch_files(call, files, lambda: run_plan(call, plan, flow_named(flow, allowed)))


def run_plan(call: Call, plan: Plan, flow: Flow) -> int:
    """Run a flow once and return the exit code."""
    found = find_run(plan, flow)
    plan = plan if found is None else found.go_on(plan, flow)
    if found is not None and found.ended:
        return show_again(call, plan, found)
    target = _target(flow, plan)
    idle = plan.idle or (plan.load_state is not None and plan.source is None and not plan.given)
    saved = _loaded(plan.load_state, idle)
    check_input(plan.source)
    _check_writable(plan.save_state)
    with logs_shown(call) as logs, opened(plan.store) as store:
        if store is not None and found is None:
            plan = named(store, plan, flow)
        kept = None if store is None else KeptRun(store, plan, target)
        with Runtime(thread_pool_size=plan.threads, store=store) as runtime:
            live = Run(runtime, flow, target, saved, kept)
            _tell_beginning(call, plan, live, found)
            return carry_on(call, plan, live, iter(()) if idle else items_of(plan.source, plan.given), logs)


def carry_on(call: Call, plan: Plan, live: Run, items: Iterator[Item], logs: AboveProgress) -> int:
    """Feed a run that has started, print what comes out of it, and tell how it ended; return the exit code."""
    printer = PRINTERS[plan.output]()
    progress = progress_of(RunView(live), quiet=call.quiet)
    logs.aside = progress.aside
    with signals_to(live.interrupt):
        ending = live.follow(items, printer, progress, plan.timeout or live.flow.execution_timeout)
        saved = _keep(call, live, plan.save_state)
        if ending is not Ending.COMPLETED:
            live.stop()
        printer.add(live.end())
        printer.end()
        if plan.output == "table" and live.outputs.outputs and sys.stdout.isatty():
            call.say()
        code = Report(call, plan, live, ending).tell(saved)
        live.runtime.shutdown(wait=False)
    return code


def show_again(call: Call, plan: Plan, found: FoundRun) -> int:
    """The outputs of a run that has ended."""
    outputs, printer = Outputs(), PRINTERS[plan.output]()
    outputs.add_earlier(found.jobs, found.set_aside)
    printer.add(outputs.end())
    printer.end()
    cancelled = sum(job.status == "cancelled" for job in found.jobs)
    call.say(
        f"Run {found.run_id} has ended; this is what came out of {counted(outputs.jobs, 'item')}"
        + (f", of which {cancelled:,} were cancelled." if cancelled else ".")
    )
    allowed = outputs.lost <= plan.allow_errors
    for job in outputs.failures:
        if job.error is not None:
            call.show(job.error, allowed=allowed)
    tell_unheard(call, outputs, allowed=allowed)
    return DONE if allowed else FAILED


def _tell_beginning(call: Call, plan: Plan, live: Run, found: FoundRun | None) -> None:
    kept = live.kept
    if kept is None:
        return
    if found is not None:
        call.say(f"Going on with run {kept.run_id}, which has taken {counted(kept.taken, 'item')}.")
    else:
        call.say(f"This is run {kept.run_id}. However it ends, go on with it by\n  {resuming(plan)}")
    if plan.idle and found is not None:
        call.say(
            "Its input came from standard input: only what was taken is finished. Give the same input again with -i -."
            if found.begun
            else "It was not begun by this command: only what it has taken is finished."
        )


def _store_of(call: Call, options: Mapping[str, Any]) -> str | None:
    """The store of the run; a run that is saved to a file, or comes from one, has none."""
    files = [f"--{name}-state" for name in ("save", "load") if options[f"{name}_state"]]
    ours = [f"--{name}" for name in ("store", "resume", "id") if options["run_id" if name == "id" else name]]
    if files and ours:
        raise InvalidValueError(
            f"{files[0]} keeps a run in a file, and {ours[0]} in a store; give one of them"
        )
    if options["on_flow_change"] != "refuse" and not options["resume"]:
        raise InvalidValueError("--on-flow-change says how --resume goes on, and has no effect without it")
    if options["run_id"] and options["resume"]:
        raise InvalidValueError("--id names a new run, and --resume goes on with one; give one of them")
    if options["resume"] or options["run_id"]:
        return store_of(call, options["store"], "--resume" if options["resume"] else "--id")
    return None if files else options["store"] or call.settings.store


def _usual_output() -> str:
    return "table" if sys.stdout.isatty() else "jsonl"


def _target(flow: Flow, plan: Plan) -> tuple[str, str]:
    flow.check()
    try:
        target = flow.resolve_entry(plan.entry)
    except ConfigurationError as error:
        if plan.entry is not None:
            raise
        raise InvalidValueError(f"{error}; or name it here: --entry ROUTINE.SLOT") from error
    check_keys(flow, *target, plan.given)
    return target


def _loaded(path: str | None, idle: bool) -> WorkerState | None:
    if path is None:
        return None
    try:
        state = WorkerState.load(path)
    except OSError as error:
        raise InvalidValueError(
            f"--load-state {shown(path)} cannot be read: {error.strerror or error}"
        ) from error
    if state.status in ("completed", "failed", "cancelled"):
        raise InvalidValueError(
            f"--load-state {shown(path)}: that execution has {state.status} already, and there is nothing to go on with"
        )
    if isinstance(state, JobState) and not idle:
        raise InvalidValueError(
            f"--load-state {shown(path)} holds an execution of one job, which takes no more data; leave -i and -p away"
        )
    return state


def _check_writable(path: str | None) -> None:
    """Whether a state can be written, asked before the work is done and not after it."""
    if path is None:
        return
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path) or not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        what = "is a directory" if os.path.isdir(path) else f"cannot be written in {shown(folder)}"
        raise InvalidValueError(
            f"--save-state {shown(path)} {what}; name a file in a folder that you may write to"
        )


def _keep(call: Call, live: Run, path: str | None) -> bool:
    """Save the state if that was asked for; whether it is there."""
    if path is None:
        return False
    try:
        live.save(path, call.say)
    except (ExecutionTimeoutError, SerializationError, OSError) as error:
        call.complain(f"the state could not be saved to {shown(path)}: {describe(error)}")
        return False
    return True
