"""A job as its owner sees it: status, data, trace, outputs, and waiting for its end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

from routilux.errors import (
    ExecutionTimeoutError,
    InsideActivationError,
    JobCancelledError,
    RuntimeClosedError,
    SerializationError,
    StateError,
    StoreError,
    StoreFencedError,
    StoreLockedError,
)
from routilux.kernel.account import JobAccount
from routilux.model.checks import checked_timeout
from routilux.model.context import running
from routilux.model.item import Output
from routilux.model.status import JobStatus
from routilux.runtime.failures import WARNING, write
from routilux.runtime.sizes import estimated_size
from routilux.tracebacks import headline, is_a

if TYPE_CHECKING:
    import asyncio

    from routilux.model.logged import LoggedRecord
    from routilux.runtime.driver import Driver
    from routilux.runtime.job_logs import JobLogs

C = TypeVar("C")

TRACE_LIMIT = 1_000
PENDING, OPEN, OUT = "pending", "open", "out"  # how a job is counted; interned, so ``is`` compares them
OUTPUT_LIMIT = 100_000
ERROR_LIMIT = 1_000


class _Lazy(Generic[C]):
    """A container that is made when it is first asked for; safe if two threads ask at once."""

    def __init__(self, make: Callable[[], C]) -> None:
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> C: ...
    def __get__(self, instance: object | None, owner: type) -> Any:
        if instance is None:
            return self
        kept = vars(instance)
        kept["bulky"] = True
        return kept.setdefault(self._name, self._make())


class ForgottenJob:
    """What is left of a finished job in the history of its worker, where it is known by its id only."""

    __slots__ = ("job_id",)

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id


class JobContext:
    """One piece of work posted into a worker, followed through everything that it causes.

    Safe to read from any thread. ``data`` and ``metadata`` are the owner's (with a store, ``metadata`` are
    kept as they were posted); ``trace_log`` keeps the newest 1,000
    entries, ``outputs`` the first 100,000 (``outputs_dropped`` counts what came after). ``errors`` has the first
    1,000 that the job went on after, each with its ``traceback`` (``errors_dropped`` counts what came after). ``logs``
    has what its routines have logged and printed, where the runtime captures that. Times are seconds since the epoch.

    With a store, ``left`` says of an unfinished job that it is not run in this runtime: its worker is open elsewhere,
    or waits in the store. ``blocked`` says why it cannot be opened, such as ``"flow changed"``; it is looked up for
    jobs that come from ``get_job`` and ``list_jobs``.
    """

    # Defaults live on the class: a job is made for every post, and most never need these.
    error: BaseException | None = None
    blocked: str | None = None  # why a job cannot be gone on with that waits in a store
    bulky = False  # it has more than its counts, times and outputs, and all of it is looked at when it ends
    counted = PENDING  # in the book of jobs, and moved under its lock
    waits_for: Callable[[str], str] | None = None  # what its worker, given by its id, waits for
    is_execution = False  # the one job of a one-shot execution
    left = False  # the job is unfinished, and does not run in this runtime
    lost: StoreError | None = None  # why it does not, where its runtime goes on
    unread: str | None = None  # why an output of it cannot be read from the store
    outputs_dropped = 0
    errors_dropped = 0
    progress: tuple[float, float | None] | None = None
    started_at: float | None = None
    completed_at: float | None = None
    metadata: _Lazy[dict[str, Any]] = _Lazy(dict)
    data: _Lazy[dict[str, Any]] = _Lazy(dict)
    errors: _Lazy[list[BaseException]] = _Lazy(list)
    _trace: deque[dict[str, Any]] | None = None
    _logs: JobLogs | None = None

    def __init__(
        self,
        job_id: str,
        worker_id: str,
        flow_id: str,
        account: JobAccount,
        driver: Driver,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self.job_id = job_id
        self.worker_id = worker_id
        self.flow_id = flow_id
        self.account = account
        if metadata:
            self.metadata = dict(metadata)
            self.bulky = True
        self.created_at = driver.clock.time()
        self.outputs: list[Output] = []  # most jobs have some
        self._driver = driver
        self._waiting: dict[Callable[[], None], None] | None = {}

    @property
    def status(self) -> JobStatus:
        return self.account.status

    @property
    def paused(self) -> bool:
        return self.account.pause_asked

    @property
    def parked(self) -> int:
        """Items that wait in a slot for items of others; they do not hold the job open."""
        return self.account.parked

    @property
    def finished(self) -> bool:
        return self._waiting is None and not self.left

    # -- the owner's notes ---------------------------------------------------------------------------------

    @property
    def trace_log(self) -> list[dict[str, Any]]:
        return list(self._trace) if self._trace is not None else []

    def trace(self, action: str, **details: Any) -> None:
        """Note something in the job's trace, with the time."""
        self.trace_again({"time": self._driver.clock.time(), "action": action, **details})

    def trace_again(self, entry: dict[str, Any]) -> None:
        """Take over an entry of a saved trace."""
        if self._trace is None:
            self.bulky = True
            self._trace = deque(maxlen=TRACE_LIMIT)
        self._trace.append(entry)

    @property
    def logs(self) -> list[LoggedRecord]:
        """What its routines have logged and printed, oldest first, where the runtime was given ``capture_logs=True``
        or ``capture_prints=True``: the newest 1,000 records of 256 KiB. In memory only, also with a store."""
        return [] if self._logs is None else self._logs.records()

    @property
    def logs_dropped(self) -> int:
        """How many older records are not kept any more."""
        return 0 if self._logs is None else self._logs.dropped

    def logs_to_fill(self) -> JobLogs:
        """Where what its routines say is kept."""
        if self._logs is not None:
            return self._logs
        from routilux.runtime.job_logs import JobLogs  # only where something is captured

        self.bulky = True
        logs: JobLogs = vars(self).setdefault("_logs", JobLogs(ended=self.finished))
        return logs

    def set_data(self, key: str, value: Any) -> None:
        self.data[key] = value

    def get_data(self, key: str, default: Any = None) -> Any:
        return self.data.get(key, default)

    # -- waiting -------------------------------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end, at most ``timeout`` seconds; False if it has not come, or the runtime has left the job to
        the next one that opens its worker.

        Raises InsideActivationError in a routine: it would hold the thread that the job may need.
        """
        seconds = None if timeout is None else checked_timeout(timeout)
        waiting = self._waiting
        if waiting is None:
            return not self.left
        if running.get() is not None:
            raise InsideActivationError(
                f"job.wait() of {self.job_id!r} was called inside a routine, where it would hold a thread that the "
                "job may need. Connect an event instead, or 'await job' in an async routine",
                job_id=self.job_id,
            )
        signal = self._driver.signal()
        waiting[signal.set] = None
        try:
            return (self._waiting is None or signal.wait(seconds) or self.finished) and not self.left
        finally:
            waiting.pop(signal.set, None)

    def result(self, timeout: float | None = None) -> list[Output]:
        """Wait for the end and return what was emitted on events that nothing is connected to.

        Raises the job's failure, JobCancelledError for a cancelled job, ExecutionTimeoutError when it
        takes longer than ``timeout`` seconds, RuntimeClosedError for a job that this runtime has left, and
        StoreFencedError for one whose worker another process has taken over, or StoreDataError where a step of it can
        never be written. The failure of a job that was read from a
        store is an ExecutionError with its text, and SerializationError says that an output there cannot be read.
        """
        if not self.wait(timeout) and not self.left:
            why = "" if self.waits_for is None else self.waits_for(self.worker_id)
            raise ExecutionTimeoutError(
                f"job {self.job_id!r} has not ended within {timeout} s; it is {self.status}. "
                f"Wait longer, or look at what waits: {why or 'see its trace_log'}",
                job_id=self.job_id,
            )
        return self._outcome()

    def __await__(self) -> Generator[Any, None, list[Output]]:
        import asyncio  # only await needs it, and it is slow to import

        activation: Any = running.get()
        if activation is not None and self.account in activation.job.members:
            raise StateError(
                f"a routine awaits the end of its own job {self.job_id!r}, which can never come",
                job_id=self.job_id,
            )
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(_resolve, future)
            except RuntimeError:
                pass  # the loop was closed with the task in it: there is no waiter any more

        self.on_end(wake)
        try:
            yield from future.__await__()
        finally:
            self.forget(wake)
        return self._outcome()

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call this at the end, or at once if the job has ended; from any thread."""
        waiting = self._waiting
        if waiting is not None:
            waiting[callback] = None
        if self._waiting is None:
            callback()

    def forget(self, callback: Callable[[], None]) -> None:
        waiting = self._waiting
        if waiting is not None:
            waiting.pop(callback, None)

    def kept_size(self) -> int:
        """Bytes, roughly, of what a job keeps that has ended."""
        kept = vars(self)
        size = estimated_size(self.outputs) if self.outputs else 0
        if self.bulky or self.error is not None:
            size += 0 if self._logs is None else self._logs.final_size()
            for name in ("metadata", "data", "error", "errors", "_trace"):
                if name in kept:
                    size += estimated_size(kept[name])
        return size

    def outlived_by(self, worker: object) -> bool:
        """Whether it is the store that knows how this job goes on in ``worker``: its own one, of the same name, has
        stopped."""
        return False

    def leave_behind(self, driver: Driver) -> None:
        """Called in a forked child, where nothing of the job's runtime may be touched any more."""
        self._driver = driver

    def leave(self) -> None:
        """Its waiters here wait in vain: the job goes on elsewhere, or later."""
        self.left = True
        self.announce_end()

    def announce_end(self) -> None:
        """Wake the waiters. Called once, by the runtime, after status and error are set."""
        waiting, self._waiting = self._waiting, None
        for callback in list(waiting or ()):
            try:
                callback()
            except BaseException as error:  # noqa: BLE001 the others are called all the same
                who = f"a callback at the end of job {self.job_id!r}"
                write(WARNING, f"{who} raised {headline(error)}; the others are called", error)

    def _outcome(self) -> list[Output]:
        if self.left and self.lost is not None:
            elsewhere = is_a(self.lost, (StoreFencedError, StoreLockedError))
            kind, why = (
                (StoreFencedError, "goes on elsewhere")
                if elsewhere
                else (type(self.lost), "waits in the store")
            )
            raise kind(
                f"job {self.job_id!r} is {self.status}, and {why}: {self.lost}",
                job_id=self.job_id,
                worker_id=self.worker_id,
            )
        if self.left:
            raise RuntimeClosedError(
                f"job {self.job_id!r} is {self.status}, and its runtime has stopped; it goes on when the worker "
                f"{self.worker_id!r} is opened again from the store",
                job_id=self.job_id,
            )
        if self.status is JobStatus.CANCELLED:
            raise JobCancelledError(f"job {self.job_id!r} was cancelled", job_id=self.job_id)
        if self.status is JobStatus.FAILED and self.error is not None:
            raise self.error.with_traceback(None)  # not with the frames of those who have asked before
        if self.unread is not None:
            raise SerializationError(
                f"the result of job {self.job_id!r} cannot be read, though it is {self.status}: "
                f"{self.unread}. What can be read of it is in its outputs",
                job_id=self.job_id,
            )
        return self.outputs

    def add_output(self, output: Output) -> None:
        outputs = self.outputs
        if len(outputs) < OUTPUT_LIMIT:
            outputs.append(output)
        else:
            self.outputs_dropped += 1

    def add_error(self, error: BaseException) -> None:
        """Note an error that the job goes on after."""
        if len(self.errors) < ERROR_LIMIT:
            self.errors.append(error)
        else:
            self.errors_dropped += 1

    def __repr__(self) -> str:
        return f"<JobContext {self.job_id} {self.status}{parked_text(self)} of {self.flow_id}>"


def say_accepted(cancelled: BaseException, job: JobContext, but: str = "") -> None:
    """The task that posts was cancelled too late."""
    cancelled.post_was_accepted = True  # type: ignore[attr-defined]
    cancelled.add_note(
        f"the post had been accepted when it was cancelled: job {job.job_id!r} is {job.status}{but}"
    )


def was_accepted(error: BaseException) -> bool:
    return getattr(error, "post_was_accepted", False)


def parked_text(job: JobContext | None) -> str:
    """``", 2 parked"``, or nothing if nothing is."""
    return f", {job.parked} parked" if job is not None and job.parked else ""


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
