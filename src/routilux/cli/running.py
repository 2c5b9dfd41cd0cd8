"""One run of a flow: a worker, a thread that feeds it, and what is told and printed meanwhile."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from threading import Event, Thread
from time import monotonic
from types import FrameType
from typing import Any, Final

from routilux import Flow, JobState, Output, Runtime, WorkerState
from routilux.cli.inputs import Item
from routilux.cli.kept import KeptRun
from routilux.cli.outputs import Outputs, Printer
from routilux.cli.progress import Progress
from routilux.errors import (
    ExecutionTimeoutError,
    IdempotencyConflictError,
    InvalidValueError,
    QueueFullError,
    RoutiluxError,
    RuntimeClosedError,
    StoreError,
)

TICK: Final = 0.1  # seconds between two looks
PATIENCE: Final = 0.5  # seconds that a post waits before it looks whether the run has been stopped
GRACE: Final = 60.0  # seconds for what runs to end, when a run that has been stopped is saved


LAST_SECOND: Final = 1.0  # for what runs to end, when a run that a store holds is stopped


class Ending(StrEnum):
    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    INTERRUPTED = "interrupted"


class Feeder(Thread):
    """Posts the items of a run, waits until all that they cause has ended, and rings.

    A thread of its own, because an input may be a pipe on which nothing comes for hours.
    """

    def __init__(self, run: Run, items: Iterator[Item]) -> None:
        super().__init__(name="routilux-input", daemon=True)
        self._run = run
        self._items = items
        self.stopped = False
        self.line = 0
        """The last line that was taken."""
        self.reached = 0
        """The line that was tried last."""
        self.exhausted = False
        self.draining = False
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            if self._feed():
                self.draining = True
                self._run.runtime.wait_until_all_jobs_finished()
        except RuntimeClosedError:
            pass  # the run was ended
        except StoreError as error:
            self.error = error
        finally:
            self._run.wake.set()

    def _feed(self) -> bool:
        """Post all items, or those before one that cannot be read or is not accepted; False if stopped."""
        try:
            for item in self._items:
                self.reached = item.line
                if not self._post(item):
                    return False
                self.line = item.line
            self.exhausted = True
        except Exception as error:  # noqa: BLE001 - the thread that waits for this one shows it or raises it
            self.error = None if self.stopped else error
        return not self.stopped

    def stop(self) -> None:
        """Post nothing more. It may still wait for its input, which cannot be ended, or for the jobs."""
        self.stopped = True
        if not self.draining:
            self.join(2 * PATIENCE)

    def _post(self, item: Item) -> bool:
        """Post an item as soon as there is room; False if the run has been stopped meanwhile."""
        while not self.stopped:
            start = monotonic()
            try:
                self._run.post(item, PATIENCE)
            except QueueFullError:
                if monotonic() - start < PATIENCE:
                    raise  # nothing that runs could make room
                continue
            return True
        return False


class Run:
    """A worker of a flow from its start to its end. Use it on the main thread, where signals arrive."""

    def __init__(
        self,
        runtime: Runtime,
        flow: Flow,
        target: tuple[str, str],
        saved: WorkerState | None = None,
        kept: KeptRun | None = None,
    ) -> None:
        self.runtime = runtime
        self.flow = flow
        self.target = target
        self.outputs = Outputs()
        self.wake = Event()
        self.interrupted_by = 0
        """The number of the signal that asked for an end."""
        self.kept = kept
        self._started = monotonic()
        self.state: WorkerState = (
            runtime.exec(flow, job_state=saved) if kept is None else kept.start(runtime, flow)
        )
        if saved is not None and saved.saved is not None:
            self._follow(saved.saved["jobs"])

    def _follow(self, rows: list[dict[str, Any]]) -> None:
        """The jobs that a saved state brought with it; their outputs up to then have been printed."""
        for row in rows:
            job = self.runtime.get_job(row["job_id"])
            if job is not None:
                self.outputs.add(job, taken=len(row["outputs"]))

    def post(self, item: Item, timeout: float) -> None:
        """Post an item and follow its job. One that a run in a store has taken before is not posted again."""
        notes = {"line": item.line} if item.line else None
        key = None if self.kept is None else self.kept.key(item.line)
        try:
            posted = self.runtime.post(
                self.flow, *self.target, item.payload, worker_id=self.state.worker_id, metadata=notes,
                idempotency_key=key, timeout=timeout,
            )  # fmt: skip
        except IdempotencyConflictError as error:
            raise InvalidValueError(
                f"the run has taken something else as {f'line {item.line}' if item.line else 'its data'} before "
                f"(job {error.job_id!r}); give the input that it was begun with, or begin a run of its own"
            ) from error
        if self.kept is None or posted.job_id not in self.kept.earlier:
            self.outputs.add(posted.job_context)

    def end(self) -> list[Output]:
        """The last outputs, and those of jobs that the store had before."""
        if self.kept is not None and self.kept.earlier:
            jobs = self.runtime.list_jobs(worker=self.state.worker_id)
            letters = self.runtime.dead_letters(worker=self.state.worker_id)
            self.outputs.add_earlier(
                [job for job in jobs if job.job_id in self.kept.earlier],
                (job_id for letter in letters for job_id in letter.job_ids),
            )
        return self.outputs.end()

    @property
    def seconds(self) -> float:
        return monotonic() - self._started

    def follow(
        self, items: Iterator[Item], printer: Printer, progress: Progress, timeout: float | None
    ) -> Ending:
        """Feed, print and tell until the run has ended, or has to."""
        self.feeder = Feeder(self, items)
        self.feeder.start()
        try:
            ending = self._wait(printer, progress, timeout)
        finally:
            progress.end()
        error = self.feeder.error
        if error is not None and not isinstance(error, RoutiluxError | OSError):
            raise error
        return ending

    def _wait(self, printer: Printer, progress: Progress, timeout: float | None) -> Ending:
        deadline = None if timeout is None else self._started + timeout
        while not self.wake.wait(TICK if deadline is None else max(0.0, min(TICK, deadline - monotonic()))):
            self._print(printer, progress)
            progress.tick()
            if deadline is not None and monotonic() >= deadline:
                return Ending.TIMED_OUT
        return Ending.INTERRUPTED if self.interrupted_by else Ending.COMPLETED

    def _print(self, printer: Printer, progress: Progress) -> None:
        new = self.outputs.take(lambda: self.feeder.draining)
        if new:
            progress.aside(lambda: printer.add(new))

    def stop(self) -> None:
        """Let nothing go on; what a store holds stays there."""
        self.feeder.stopped = True
        if self.kept is None:
            self.runtime.cancel(self.state)
        else:
            self.runtime.stop(self.state, drain=False, timeout=LAST_SECOND)
        self.feeder.stop()

    def save(self, path: str, say: Callable[[str], None]) -> None:
        """Write the state as it is; what runs ends first. ExecutionTimeoutError if it takes too long for that."""
        if not isinstance(self.state, JobState) or self.state.status == "running":
            self._pause(say)
        self.feeder.stop()
        self.state.save(path)

    def _pause(self, say: Callable[[str], None]) -> None:
        try:
            self.runtime.pause(self.state, timeout=PATIENCE)
        except ExecutionTimeoutError:
            say("Saving the state as soon as what runs has ended. Ctrl-C gives up.")
            self.runtime.pause(self.state, timeout=GRACE)

    def interrupt(self, number: int) -> None:
        self.interrupted_by = number
        self.wake.set()


@contextmanager
def signals_to(interrupt: Callable[[int], None]) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM asks for an end; the next one does not ask.

    A signal that is ignored stays ignored: that is how a shell keeps Ctrl-C from what it has in the background.
    """
    defaults: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    heard = [number for number in defaults if signal.getsignal(number) is not signal.SIG_IGN]

    def first(number: int, frame: FrameType | None) -> None:
        for each in heard:
            signal.signal(each, defaults[each])
        interrupt(number)

    before = {number: signal.signal(number, first) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
