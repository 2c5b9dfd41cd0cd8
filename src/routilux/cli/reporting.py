"""What is told about a run: a line while it goes on, and a report at its end."""

from __future__ import annotations

import shlex
from typing import Final

from routilux.cli.codes import DONE, FAILED, SIGNALLED, TIMED_OUT
from routilux.cli.command import Call, code_of
from routilux.cli.inputs import STDIN
from routilux.cli.plan import Plan
from routilux.cli.running import Ending, Run

_MOST_LETTERS: Final = 5


class RunView:
    """A run in one line, and its routines in one line each."""

    def __init__(self, live: Run) -> None:
        self._live = live
        self._width = max(map(len, live.flow.routines))

    def summary(self) -> str:
        live = self._live
        outputs = live.outputs
        parts = [f"{live.flow.flow_id}: {live.seconds:.1f} s"]
        if outputs.jobs > 1:
            parts.append(f"{outputs.done:,} of {outputs.jobs:,} items done")
        parts += [_counted(outputs.outputs, "output")]
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
        failed = ending is Ending.COMPLETED and (live.outputs.failed or live.feeder.error)
        self._ending = Ending.FAILED if failed else ending

    def tell(self, kept: bool) -> int:
        """Say how it ended; return the exit code."""
        outputs = self._live.outputs
        self._call.say(self._headline())
        self._tell_letters()
        if outputs.rejected:
            self._call.say(
                f"{_counted(outputs.rejected, 'output')} came from events named 'error': look at the reasons"
            )
        if outputs.dropped:
            self._call.say(
                f"{outputs.dropped:,} outputs are missing: a job keeps the first 100,000 of its own"
            )
        if self._ending is Ending.FAILED:
            self._tell_failures()
        if self._ending is Ending.TIMED_OUT:
            self._call.complain(self._too_long())
        if kept or self._ending in (Ending.TIMED_OUT, Ending.INTERRUPTED):
            self._tell_how_to_go_on(kept)
        return self._code()

    def _headline(self) -> str:
        live, outputs = self._live, self._live.outputs
        count = f"{_counted(outputs.jobs, 'item')}, " if outputs.jobs != 1 else ""
        failed = f", {outputs.failed:,} failed" if outputs.failed and outputs.jobs > 1 else ""
        made = _counted(outputs.outputs, "output")
        return f"{live.flow.flow_id}: {self._ending} after {live.seconds:.1f} s; {count}{made}{failed}"

    def _tell_failures(self) -> None:
        outputs, feeder = self._live.outputs, self._live.feeder
        if feeder.error is not None:
            self._call.show(feeder.error, f"line {feeder.reached}: " if feeder.reached > feeder.line else "")
        for job in outputs.failures:
            if job.error is not None:
                line = job.metadata.get("line")
                self._call.show(job.error, f"line {line}: " if line else "")
        if outputs.failed > len(outputs.failures):
            self._call.complain(f"{outputs.failed - len(outputs.failures):,} more items have failed")

    def _tell_letters(self) -> None:
        letters = self._live.runtime.dead_letters(worker=self._live.state)
        for letter in letters[:_MOST_LETTERS] if self._ending is not Ending.FAILED else ():
            reason = f": {letter.error}" if letter.error else ""
            self._call.say(f"Set aside at {letter.routine_id}.{letter.slot} ({letter.reason}){reason}")
        if len(letters) > _MOST_LETTERS and self._ending is not Ending.FAILED:
            self._call.say(f"… and {len(letters) - _MOST_LETTERS:,} more were set aside")

    def _too_long(self) -> str:
        seconds = self._plan.timeout or self._live.flow.execution_timeout
        return f"flow {self._live.flow.flow_id!r} has not ended within {seconds:g} s; give it longer: --timeout SECONDS"

    def _tell_how_to_go_on(self, kept: bool) -> None:
        plan, feeder = self._plan, self._live.feeder
        again = f"routilux run {shlex.quote(plan.name)}"
        if not kept:
            self._call.say("Nothing of the run is kept. With --save-state FILE it can be gone on with.")
            return
        state = f"--load-state {shlex.quote(str(plan.save_state))}"
        if plan.source is None or feeder.exhausted:
            self._call.say(f"State saved. Go on with: {again} {state}")
            return
        self._call.say(f"State saved. Input was taken up to line {feeder.line:,}. Go on with:")
        rest = f"tail -n +{feeder.line + 1} {shlex.quote(plan.source)} | " if plan.source != STDIN else ""
        self._call.say(f"  {rest}{again} {state} -i -")

    def _code(self) -> int:
        if self._ending is Ending.INTERRUPTED:
            return SIGNALLED + self._live.interrupted_by
        if self._ending is Ending.FAILED and self._live.feeder.error is not None:
            return code_of(self._live.feeder.error)
        return {Ending.TIMED_OUT: TIMED_OUT, Ending.FAILED: FAILED}.get(self._ending, DONE)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
