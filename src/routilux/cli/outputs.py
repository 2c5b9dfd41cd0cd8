"""What comes out of a run, each output once, and how it is printed."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from routilux import JobContext, Output
from routilux.cli.screen import json_text, print_table, write
from routilux.model.item import SharedOutput

MOST_FAILURES = 5


class _Followed(NamedTuple):
    number: int
    job: JobContext
    taken: int


class Outputs:
    """Follows jobs and hands on what they emit on events that nothing is connected to.

    Jobs may be added on any thread; one thread takes. An activation on items of several jobs gives its outputs
    to each of them; here each comes once. A job is followed until nothing can come of it any more, so that an
    input without end needs little memory.
    """

    def __init__(self) -> None:
        self._added: deque[tuple[JobContext, int]] = deque()
        self._followed: deque[_Followed] = deque()
        self._shown: deque[tuple[int, Output]] = deque()  # with the number of the newest job then
        self._shown_marks: set[int | str] = set()
        self._newest = 0
        self._retried: Counter[str] = Counter()
        self._set_aside: frozenset[str] = frozenset()
        self.jobs = 0
        self.completed = 0
        self.failed = 0
        self.lost = 0
        """Jobs that have failed, and of the others each item that was set aside, waits in vain, or reached nothing."""
        self.parked = 0
        """Items that wait for others; those of jobs that can still end are not counted before :meth:`end`."""
        self.outputs = 0
        self.unheard: Counter[str] = Counter()
        """Events named ``error`` that nothing is connected to, and how often."""
        self.reasons: dict[str, str] = {}
        """What each of them said first."""
        self.lines: dict[str, int | None] = {}
        """The line of the input of which each of them said that."""
        self.dropped = 0
        self.failures: list[JobContext] = []
        """The first jobs that have failed."""

    def add(self, job: JobContext, taken: int = 0) -> None:
        """Follow a job, of which so many outputs are known already."""
        self._added.append((job, taken))

    def add_earlier(self, jobs: Sequence[JobContext], set_aside: Iterable[str]) -> None:
        """Follow jobs of which some may stand for what others had set aside, and ``set_aside`` are those of which
        something still is: what was retried is no item of its own, and its first attempt is not lost."""
        self._retried = Counter(job_id for job in jobs for job_id in retried_by(job))
        self._set_aside = frozenset(set_aside)
        for job in jobs:
            self.add(job)

    def take(self, draining: Callable[[], bool]) -> list[Output]:
        """What is new. While the flow drains, ended jobs can still get outputs, and none is let go.

        ``draining`` is asked after a job was found at rest: draining would have moved what is parked.
        """
        while self._added:
            job, taken = self._added.popleft()
            self._newest += 1
            self.jobs += not (self._retried and retried_by(job))
            self._followed.append(_Followed(self._newest, job, taken))
        new: list[Output] = []
        for _ in range(len(self._followed)):
            followed = self._followed.popleft()
            job = followed.job
            ended = job.finished and not job.parked and not draining()  # asked before the outputs are read
            fresh = job.outputs[followed.taken :]
            for output in filter(self._is_new, fresh):
                new.append(output)
                if output.event == "error":
                    self._note_unheard(output, job)
            if ended:
                self._count(job)
            else:
                self._followed.append(followed._replace(taken=followed.taken + len(fresh)))
        self._forget()
        self.outputs += len(new)
        return new

    def _note_unheard(self, output: Output, job: JobContext) -> None:
        place = f"{output.routine_id}.{output.event}"
        self.unheard[place] += 1
        self.reasons.setdefault(place, str(output.data.get("reason", "")))
        self.lines.setdefault(place, job.metadata.get("line"))

    def end(self) -> list[Output]:
        """The last outputs; every job that is still followed is counted as it is."""
        new = self.take(lambda: True)
        while self._followed:
            self._count(self._followed.popleft().job)
        return new

    @property
    def done(self) -> int:
        """Jobs that have ended, well or not."""
        open_jobs = sum(not followed.job.finished for followed in self._followed)
        return self.jobs - open_jobs

    @property
    def followed(self) -> int:
        """Jobs of which something can still come."""
        return len(self._followed) + len(self._added)

    def _count(self, job: JobContext) -> None:
        retried = self._retried[job.job_id]
        failed = job.status == "failed" and (not retried or job.job_id in self._set_aside)
        self.dropped += job.outputs_dropped
        self.completed += job.status == "completed"
        self.failed += failed
        self.parked += job.parked
        if job.status == "failed":
            self.lost += failed
        else:
            self.lost += max(0, len(job.errors) + job.errors_dropped - retried) + job.parked
        if failed and len(self.failures) < MOST_FAILURES:
            self.failures.append(job)

    def _is_new(self, output: Output) -> bool:
        mark = _mark_of(output)
        if mark in self._shown_marks:
            return False
        self._shown_marks.add(mark)
        self._shown.append((self._newest, output))
        return True

    def _forget(self) -> None:
        """An output can come again only by a job that was followed when it came first."""
        oldest = self._followed[0].number if self._followed else self._newest + 1
        while self._shown and self._shown[0][0] < oldest:
            self._shown_marks.discard(_mark_of(self._shown.popleft()[1]))


def retried_by(job: JobContext) -> list[str]:
    """The jobs of which this one has an item that was set aside; see ``Runtime.redrive``."""
    source = job.metadata.get("redriven_from")
    return source if isinstance(source, list) else []


def _mark_of(output: Output) -> int | str:
    """The same for one output in several jobs: it is one object, or was read from a store once for each of them."""
    return output.mark if isinstance(output, SharedOutput) else id(output)


class Printer(Protocol):
    """Prints outputs on stdout."""

    def add(self, outputs: list[Output]) -> None: ...

    def end(self) -> None: ...


def as_row(output: Output) -> dict[str, Any]:
    return {"routine": output.routine_id, "event": output.event, "data": output.data}


class JsonLines:
    """One output on each line, as soon as it is there."""

    def add(self, outputs: list[Output]) -> None:
        write("".join(f"{json_text(as_row(output))}\n" for output in outputs))

    def end(self) -> None:
        pass


class JsonArray:
    """All outputs in one array, each on a line of its own."""

    def __init__(self) -> None:
        self._before = "[\n"

    def add(self, outputs: list[Output]) -> None:
        for output in outputs:
            write(f"{self._before}  {json_text(as_row(output))}")
            self._before = ",\n"

    def end(self) -> None:
        write("[]\n" if self._before == "[\n" else "\n]\n")


class Tables:
    """At the end, a table for each event that gave something, by name: which came first may differ from run to run."""

    def __init__(self) -> None:
        self._rows: dict[str, list[dict[str, Any]]] = {}

    def add(self, outputs: list[Output]) -> None:
        for output in outputs:
            self._rows.setdefault(f"{output.routine_id}.{output.event}", []).append(output.data)

    def end(self) -> None:
        for number, (event, rows) in enumerate(sorted(self._rows.items())):
            if number:
                write("\n")
            print_table(rows, title=event)


PRINTERS: dict[str, type[JsonLines | JsonArray | Tables]] = {
    "table": Tables,
    "json": JsonArray,
    "jsonl": JsonLines,
}
