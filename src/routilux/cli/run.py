"""``routilux run``: a flow from its document, fed from the command line or a file."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from routilux import ConfigurationError, Flow, JobState, Runtime, SerializationError, WorkerState
from routilux.cli.command import Call, command, import_option
from routilux.cli.flows import flow_named
from routilux.cli.inputs import STDIN, check_input, check_keys, items_of, parameters
from routilux.cli.logs import logs_shown
from routilux.cli.outputs import PRINTERS
from routilux.cli.plan import Plan
from routilux.cli.progress import progress_of
from routilux.cli.reporting import Report, RunView
from routilux.cli.running import Ending, Run, signals_to
from routilux.cli.settings import FORMATS
from routilux.cli.watching import watch_files
from routilux.errors import ExecutionTimeoutError, InvalidValueError, describe, shown

EXAMPLES = """
routilux run weather.flow.yaml
routilux run weather.flow.yaml -p path=data/rain.csv -p limit:=10
routilux run orders.flow.yaml -i orders.jsonl -o jsonl > done.jsonl
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
@click.option("--watch", is_flag=True, help="Run again whenever the document or the input changes.")
@click.option(
    "--save-state", metavar="FILE", help="Write the state of the run when it ends, however it ends."
)
@click.option("--load-state", metavar="FILE", help="Go on from a state that was written.")
@import_option
def run(
    call: Call, flow: str, params: tuple[str, ...], watch: bool, modules: tuple[str, ...], **options: Any
) -> int:
    """Run a flow and print what comes out of it: what is emitted on events that nothing is connected to.

    FLOW is a document (*.flow.yaml, *.flow.json), or the name of a flow that an imported module registers.
    """
    settings = call.settings
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
    )
    allowed = (*settings.modules, *modules)
    if not watch:
        return run_plan(call, plan, flow_named(flow, allowed))
    if plan.source == STDIN:
        raise InvalidValueError(
            "--watch runs again from the beginning, and -i - cannot be read twice; give a file"
        )
    files = [name for name in (flow, plan.source) if name is not None and os.path.isfile(name)]
    return watch_files(call, files, lambda: run_plan(call, plan, flow_named(flow, allowed)))


def run_plan(call: Call, plan: Plan, flow: Flow) -> int:
    """Run a flow once and return the exit code."""
    target = _target(flow, plan)
    idle = plan.load_state is not None and plan.source is None and not plan.given
    saved = _loaded(plan.load_state, idle)
    check_input(plan.source)
    _check_writable(plan.save_state)
    printer = PRINTERS[plan.output]()
    with Runtime(thread_pool_size=plan.threads) as runtime:
        live = Run(runtime, flow, target, saved)
        progress = progress_of(RunView(live), quiet=call.quiet)
        items = iter(()) if idle else items_of(plan.source, plan.given)
        with signals_to(live.interrupt), logs_shown(call, progress.aside):
            ending = live.follow(items, printer, progress, plan.timeout or flow.execution_timeout)
            kept = _keep(call, live, plan.save_state)
            if ending is not Ending.COMPLETED:
                live.stop()
            printer.add(live.outputs.end())
            printer.end()
            if plan.output == "table" and live.outputs.outputs and sys.stdout.isatty():
                call.say()
            code = Report(call, plan, live, ending).tell(kept)
            runtime.shutdown(wait=False)
    return code


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
