"""What is told about a run: a line while it goes on, and a report at its end."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

from routilux.cli.codes import DONE, FAILED, SIGNALLED, TIMED_OUT
from routilux.cli.command import Call, code_of
from routilux.cli.inputs import STDIN
from routilux.cli.kept import KeptRun, as_options
from routilux.cli.outputs import Outputs
from routilux.cli.plan import Plan
from routilux.cli.running import Ending, Run
from routilux.cli.screen import json_text
from routilux.errors import counted
from routilux.model.item import DeadLetter, ParkedItem
from routilux.store import without_password

__all__ = ["Report", "RunView", "counted", "data_text", "resuming", "tell_unheard"]

_MOST_LETTERS: Final = 5
_LONGEST_DATA: Final = 200  # characters


class RunView:
    """A run in one line, and its routines in one line each."""

    def __init__(self, live: Run) -> None:
        self._live = live
        self._width = max(map(len, live.flow.routines))

    def summary(self) -> str:
        live = self._live
        outputs = live.outputs
        parts = [f"{live.flow.flow_id}: {live.seconds:.1f} s"]
        if live.kept is not None and live.kept.earlier:
            parts.append(f"{counted(live.kept.taken, 'item')} from before")
        if outputs.jobs > 1:
            parts.append(f"{outputs.done:,} of {outputs.jobs:,} items done")
        parts += [counted(outputs.outputs, "output")]
        if outputs.failed:
            parts.append(f"{outputs.failed:,} failed")
        return ", ".join(parts)

    def details(self) -> list[str]:
        return [self._detail(routine_id) for routine_id in self._live.flow.routines]

    def _detail(self, routine_id: str) -> str:
        counters = self._live.state.counters(routine_id)
        line = f"  {routine_id:{self._width}}  {'▸' if counters['running'] else ' '}"
        line += f" {counters['activations']:9,} done {counters['queued']:6,} queued"
        return line + "".join(
            f", {counters[name]:,} {name}" for name in ("retried", "skipped", "failed") if counters[name]
        )


class Report:
    """The end of a run, in words."""

    def __init__(self, call: Call, plan: Plan, live: Run, ending: Ending) -> None:
        self._call, self._plan, self._live = call, plan, live
        self._allowed = live.outputs.lost <= plan.allow_errors
        """Whether what was lost is a matter of warnings, not of errors."""
        failed = live.feeder.error or (live.outputs.failed and not self._allowed)
        self._ending = Ending.FAILED if failed and ending is Ending.COMPLETED else ending
        self._going_on = ending is not Ending.COMPLETED or live.feeder.error is not None

    def tell(self, kept: bool) -> int:
        """Say how it ended; return the exit code."""
        outputs = self._live.outputs
        self._call.say(self._headline())
        if outputs.dropped:
            self._call.say(
                f"{outputs.dropped:,} outputs are missing: a job keeps the first 100,000 of its own"
            )
        if self._ending in (Ending.COMPLETED, Ending.FAILED):
            self._tell_failures()
        self._tell_letters()
        self._tell_parked()
        if self._ending is Ending.TIMED_OUT:
            self._call.complain(self._too_long())
        tell_unheard(self._call, outputs, allowed=self._allowed)
        if self._live.kept is not None:
            self._tell_what_is_stored(self._live.kept)
        elif kept or self._ending in (Ending.TIMED_OUT, Ending.INTERRUPTED):
            self._tell_how_to_go_on(kept)
        return self._code()

    def _headline(self) -> str:
        live, outputs = self._live, self._live.outputs
        count = f"{counted(outputs.jobs, 'item')}, " if outputs.jobs != 1 else ""
        made = counted(outputs.outputs, "output")
        lossy = self._ending is Ending.COMPLETED and not self._allowed
        ending = "ended with errors" if lossy else self._ending
        parked = f", {outputs.parked:,} parked" if outputs.parked else ""
        return (
            f"{live.flow.flow_id}: {ending}{parked} after {live.seconds:.1f} s; {count}{made}{self._losses()}"
        )

    def _losses(self) -> str:
        outputs, allowed = self._live.outputs, self._plan.allow_errors
        if allowed and outputs.lost:
            return f", {outputs.lost:,} lost, {allowed:,} allowed"
        failed = f", {outputs.failed:,} failed" if outputs.failed and outputs.jobs > 1 else ""
        others = outputs.lost - outputs.failed - outputs.parked
        return f"{failed}, {others:,} lost" if others else failed

    def _tell_failures(self) -> None:
        outputs, feeder = self._live.outputs, self._live.feeder
        if feeder.error is not None:
            self._call.show(feeder.error, f"line {feeder.reached}: " if feeder.reached > feeder.line else "")
            if feeder.line and not feeder.exhausted:
                self._call.complain(f"that ends the input; the lines after it were not read. {self._rest()}")
        for job in outputs.failures:
            if job.error is not None:
                line = job.metadata.get("line")
                self._call.show(job.error, f"line {line}: " if line else "", allowed=self._allowed)
        if outputs.failed > len(outputs.failures):
            self._complain(f"{outputs.failed - len(outputs.failures):,} more items have failed")

    def _rest(self) -> str:
        """How to go on behind a line that has ended the input; --allow-errors is for items, and it is none."""
        plan, line = self._plan, self._live.feeder.line + 1
        if self._live.kept is not None:
            return "Mend that line, and go on as below: what was taken is not taken again"
        if plan.source in (None, STDIN):
            return "Mend that line, and give the rest"
        entry = f" --entry {shlex.quote(plan.entry)}" if plan.entry else ""
        given = f" {as_options(plan.given)}" if plan.given else ""
        again = f"routilux run {shlex.quote(plan.name)}{_imports(plan)}{entry}{given} -i -"
        return (
            f"Mend that line, and give the rest:\n  tail -n +{line} {shlex.quote(str(plan.source))} | {again}"
        )

    def _tell_letters(self) -> None:
        """What was set aside of jobs that have not failed: those are told of already."""
        letters = self._live.runtime.dead_letters(worker=self._live.state)
        others = (letter for letter in letters if not self._is_of_a_failure(letter))
        for letter in islice(others, _MOST_LETTERS):
            self._complain(self._lost(letter))
        more = sum(1 for _ in others)
        if more:
            self._complain(f"{more:,} more items were set aside")

    def _tell_parked(self) -> None:
        """What waits for items that have not come; more of it may be in the store."""
        left = self._live.outputs.parked
        if not left:
            return
        for item in islice(self._live.state.parked_items(), min(left, _MOST_LETTERS)):
            where = f"{item.routine_id}.{item.slot}"
            self._complain(
                f"{self._line(item)}waits in {where} {item.waits}; its data is {data_text(item.data)}"
            )
            left -= len(item.job_ids)
        if left > 0:
            self._complain(f"{left:,} more items are parked")

    def _complain(self, text: str) -> None:
        (self._call.warn if self._allowed else self._call.complain)(text)

    def _is_of_a_failure(self, letter: DeadLetter) -> bool:
        jobs = map(self._live.runtime.get_job, letter.job_ids)
        return any(job is not None and job.status == "failed" for job in jobs)

    def _lost(self, letter: DeadLetter) -> str:
        reason = f": {letter.error}" if letter.error else ""
        where = f"set aside at {letter.routine_id}.{letter.slot} ({letter.reason}){reason}"
        return f"{self._line(letter)}{where}; its data is {data_text(letter.data)}"

    def _line(self, item: DeadLetter | ParkedItem) -> str:
        """Where in the input an item comes from: ``"line 2: "``, or nothing."""
        job = self._live.runtime.get_job(item.job_ids[0]) if item.job_ids else None
        line = None if job is None else job.metadata.get("line")
        return f"line {line}: " if line else ""

    def _too_long(self) -> str:
        seconds = self._plan.timeout or self._live.flow.execution_timeout
        return f"flow {self._live.flow.flow_id!r} has not ended within {seconds:g} s; give it longer: --timeout SECONDS"

    def _tell_how_to_go_on(self, kept: bool) -> None:
        plan, feeder = self._plan, self._live.feeder
        again = f"routilux run {shlex.quote(plan.name)}{_imports(plan)}"
        if not kept:
            self._call.say("Nothing of the run is kept. With --store sqlite:///FILE.db it can be resumed.")
            return
        state = f"--load-state {shlex.quote(str(plan.save_state))}"
        if plan.source is None or feeder.exhausted:
            self._call.say(f"State saved. Go on with: {again} {state}")
            return
        self._call.say(f"State saved. Input was taken up to line {feeder.line:,}. Go on with:")
        rest = f"tail -n +{feeder.line + 1} {shlex.quote(plan.source)} | " if plan.source != STDIN else ""
        self._call.say(f"  {rest}{again} {state} -i -")

    def _tell_what_is_stored(self, kept: KeptRun) -> None:
        """A run that is over is ended in the store; else it waits there, and this says for what."""
        if not self._going_on and kept.end(self._live.runtime):
            return
        letters = len(self._live.runtime.dead_letters(worker=kept.run_id))
        if letters:
            again = f"{_imports(self._plan)}{store_flag(self._plan)} {shlex.quote(kept.run_id)}"
            self._call.say(
                f"{counted(letters, 'item')} set aside and kept. Look at them, and put them back, with\n"
                f"  routilux job list --dead-letters{store_flag(self._plan)} --run {shlex.quote(kept.run_id)}\n"
                f"  routilux job retry{again}"
            )
        if self._going_on:
            self._call.say(f"Everything up to here is kept. Go on with:\n  {resuming(self._plan)}")

    def _code(self) -> int:
        if self._ending is Ending.INTERRUPTED:
            return SIGNALLED + self._live.interrupted_by
        if self._ending is Ending.FAILED and self._live.feeder.error is not None:
            return code_of(self._live.feeder.error)
        if self._ending is Ending.TIMED_OUT:
            return TIMED_OUT
        return DONE if self._allowed else FAILED


def data_text(data: Mapping[str, Any]) -> str:
    """As JSON, cut where a line would be too long to read."""
    text = json_text(data)
    return text if len(text) <= _LONGEST_DATA else f"{text[: _LONGEST_DATA - 1]}…"


def tell_unheard(call: Call, outputs: Outputs, *, allowed: bool) -> None:
    """What routines could do nothing with, and nothing else was there for."""
    complain = call.warn if allowed else call.complain
    for place, count in outputs.unheard.items():
        reason, line = outputs.reasons[place], outputs.lines[place]
        of = f"line {line}: " if line else ""
        said = f": {reason}" if reason else ""
        if count == 1:
            complain(f"{of}1 output of {place} reached no routine{said}")
        else:
            first = f", the first of line {line}" if line else ", the first" if said else ""
            complain(f"{count:,} outputs of {place} reached no routine{first}{said}")
    if outputs.unheard:
        call.say(
            f"Connect it to what is to deal with it: - {{from: {next(iter(outputs.unheard))}, to: ROUTINE.SLOT}}"
        )


def resuming(plan: Plan) -> str:
    """The command that goes on with the run of a plan; what else it needs, the store knows."""
    again = f" -i {STDIN}" if plan.source == STDIN else ""
    run_id = shlex.quote(str(plan.resume or plan.run_id))
    allowed = f" --allow-errors {plan.allow_errors}" if plan.allow_errors else ""
    options = f"{_imports(plan)}{store_flag(plan)} --resume {run_id}{again}{allowed}"
    return f"routilux run {shlex.quote(plan.name)}{options}"


def _imports(plan: Plan) -> str:
    return "".join(f" --import {shlex.quote(name)}" for name in plan.modules)


def store_flag(plan: Plan) -> str:
    """As it stands on the command line, but for a password; empty where the config names the store."""
    return f" --store {shlex.quote(without_password(plan.store))}" if plan.store_flag else ""
