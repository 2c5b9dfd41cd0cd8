"""What a worker remembers: routine states, shared data, shared log, history, outputs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from threading import RLock
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, overload

from routilux.errors import InsideActivationError, InvalidTypeError, StateError, unknown
from routilux.model.checks import check_methods, checked_count, checked_duration, checked_timeout
from routilux.model.context import running
from routilux.model.item import Output, ParkedItem
from routilux.model.routine_state import RoutineState
from routilux.model.status import ExecutionStatus, WorkerStatus
from routilux.runtime.job import JobContext, parked_text
from routilux.runtime.memory_state import MemoryState, WatchedState, look_at_change, look_at_read, watched
from routilux.runtime.output import OutputHandler, OutputRecord
from routilux.runtime.sizes import estimated_size

OUTPUT_LOG_LIMIT = 1_000
T = TypeVar("T")

if TYPE_CHECKING:
    # Only annotations name it, and a protocol takes long to make.
    class WorkerControl(Protocol):
        """What a state asks of the worker that it belongs to."""

        runtime: Any

        def snapshot(self, use: Callable[[dict[str, Any]], T]) -> T:
            """Give a consistent cut to ``use``; the worker is held until that returns."""

        def wait_until_stopped(self, timeout: float | None) -> bool: ...

        def counters(self, routine_id: str) -> dict[str, Any]: ...

        def check_routine(self, routine_id: str, fix: str = "") -> None:
            """Raises UnknownRoutineError for one that the flow does not have."""

        def parked_items(self) -> list[ParkedItem]: ...


class ExecutionRecord(NamedTuple):
    """One activation that has ended. ``started_at`` is seconds since the epoch, ``duration`` seconds."""

    routine_id: str
    job_ids: tuple[str, ...]
    started_at: float
    duration: float
    status: str  # completed, failed, skipped, retried
    attempt: int
    error: str | None


class SharedLog(Sequence[Any]):
    """A list that only grows; appending is safe from any thread."""

    def __init__(self, entries: Iterable[Any] = ()) -> None:
        self._entries = list(entries)

    def append(self, entry: Any) -> None:
        self._entries.append(entry)

    def extend(self, entries: Iterable[Any]) -> None:
        self._entries.extend(entries)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        return self._view()[index]

    def __len__(self) -> int:
        return len(self._view())

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._view()))

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, (SharedLog, list)) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"SharedLog({self._view()!r})"

    def _view(self) -> list[Any]:
        """What a reader sees here."""
        return self._entries


class History:
    """The newest activations of a worker, bounded by number and by age."""

    __slots__ = ("_clock", "_offset", "_ttl", "append", "rows")

    def __init__(self, size: int, ttl: float, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        # A row is (routine_id, account, started, ended, status, attempt, error): what the hot path has at hand.
        self.rows: deque[tuple[str, Any, float, float, str, int, str | None]] = deque(maxlen=size)
        self.append = self.rows.append
        self._ttl = ttl
        self._clock = clock
        self._offset = wall() - clock()

    @property
    def size(self) -> int:
        return self.rows.maxlen or 0

    def resize(self, size: int) -> None:
        self.rows = deque(self.rows, maxlen=size)
        self.append = self.rows.append

    @property
    def ttl(self) -> float:
        return self._ttl

    @ttl.setter
    def ttl(self, seconds: float) -> None:
        self._ttl = seconds

    def restore(self, records: Iterable[Sequence[Any]]) -> None:
        """Take over the records of a snapshot; where an account would be their rows have the ids of the jobs."""
        for routine_id, job_ids, started_at, duration, *outcome in records:
            started = started_at - self._offset
            self.append((routine_id, tuple(job_ids), started, started + duration, *outcome))

    def records(self) -> list[ExecutionRecord]:
        oldest = self._clock() - self._ttl
        while self.rows and self.rows[0][3] < oldest:
            self.rows.popleft()
        return [self._record(*row) for row in list(self.rows)]

    def _record(
        self,
        routine_id: str,
        account: Any,
        started: float,
        ended: float,
        status: str,
        attempt: int,
        error: str | None,
    ) -> ExecutionRecord:
        restored = isinstance(account, tuple)
        jobs = account if restored else tuple(member.job.job_id for member in account.members)
        return ExecutionRecord(
            routine_id, jobs, started + self._offset, ended - started, status, attempt, error
        )


class WorkerState:
    """The state of one live instance of a flow. Every method is safe from any thread.

    Logic receives it as its third argument. A worker's state lives as long as the worker; ``save`` writes it,
    with everything that is queued, to a file that ``load`` reads back.

    With a store, routine states, ``shared_data`` and ``shared_log`` are kept there. What logic changes is seen by
    itself at once, and by others when its activation has ended. What is changed from outside takes effect at once and
    is written soon; ``runtime.pause``, ``stop`` and ``shutdown`` return when it is.
    """

    status: WorkerStatus | ExecutionStatus

    def __init__(
        self,
        worker_id: str,
        flow_id: str,
        *,
        clock: Callable[[], float],
        wall_time: Callable[[], float],
        max_history_size: int = 1_000,
        history_ttl_seconds: float = 3_600,
    ) -> None:
        self.worker_id = worker_id
        self.flow_id = flow_id
        self.status = self._first_status()
        self.shared_data: dict[str, Any] = {}
        self.shared_log = SharedLog()
        self.output_handler: OutputHandler | None = None
        self.output_log: deque[OutputRecord] = deque(maxlen=OUTPUT_LOG_LIMIT)
        self.history = History(max_history_size, history_ttl_seconds, clock, wall_time)
        self.control: WorkerControl | None = None  # None: read from a file and not resumed
        self.saved: Mapping[str, Any] | None = None
        self.lock = RLock()
        self._routine_states: dict[str, dict[str, Any]] = {}
        self._metadata: Mapping[str, Any] = {}

    def _first_status(self) -> WorkerStatus | ExecutionStatus:
        return WorkerStatus.STARTING

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What ``exec(metadata=)`` was given when the worker was started for the first time."""
        return self._metadata

    def keep_metadata(self, metadata: Mapping[str, Any]) -> None:
        self._metadata = MappingProxyType(dict(metadata))

    # -- routine states ------------------------------------------------------------------------------------

    @property
    def routine_states(self) -> dict[str, dict[str, Any]]:
        """A copy of all routine states."""
        with self.lock:
            return {routine_id: copied(state) for routine_id, state in self._routine_states.items()}

    def get_routine_state(self, routine_id: str, default: Any = None) -> Any:
        """A copy of a routine's state, or ``default`` if it has none. Raises UnknownRoutineError where the flow has no
        such routine, and no state of it was left by one that had."""
        if running.get() is not None:
            look_at_read(self, routine_id)
        with self.lock:
            state = self._routine_states.get(routine_id)
            if state is not None:
                return copied(state)
        self._check_routine(routine_id)
        return default

    def update_routine_state(self, routine_id: str, values: Mapping[str, Any]) -> None:
        """Merge these keys into a routine's state. Raises UnknownRoutineError where the flow has no such routine."""
        self._check_change(routine_id, values)
        with self.lock:
            self._routine_states.setdefault(routine_id, {}).update(values)

    def state_of(self, routine_id: str) -> RoutineState:
        """A routine's state itself; what its logic has as ``self.state``."""
        kind = WatchedState if watched(running.get()) else MemoryState
        return kind(self._routine_states, routine_id, self.lock)

    def set_routine_state(self, routine_id: str, values: Mapping[str, Any]) -> None:
        """Replace a routine's state. Raises UnknownRoutineError where the flow has no such routine."""
        self._check_change(routine_id, values)
        with self.lock:
            self._routine_states[routine_id] = dict(values)

    def _check_change(self, routine_id: str, values: Mapping[str, Any]) -> None:
        check_state(routine_id, values)
        fix = "logic has its own state in self.state; what belongs to no routine goes into shared_data"
        self._check_routine(routine_id, fix)
        if running.get() is not None:
            look_at_change(self, routine_id, values)

    def _check_routine(self, routine_id: str, fix: str = "") -> None:
        if self.control is not None:
            self.control.check_routine(routine_id, fix)
        elif self.saved is not None:
            check_routine(routine_id, self.saved["mailboxes"], self.flow_id, fix)

    # -- history and outputs -------------------------------------------------------------------------------

    @property
    def execution_history(self) -> list[ExecutionRecord]:
        """The newest activations, oldest first; at most ``max_history_size`` and ``history_ttl_seconds`` old."""
        return self.history.records()

    @property
    def max_history_size(self) -> int:
        return self.history.size

    @max_history_size.setter
    def max_history_size(self, size: int) -> None:
        self.history.resize(checked_count("max_history_size", size, 0))

    @property
    def history_ttl_seconds(self) -> float:
        return self.history.ttl

    @history_ttl_seconds.setter
    def history_ttl_seconds(self, seconds: float) -> None:
        self.history.ttl = checked_duration("history_ttl_seconds", seconds)

    def set_output_handler(self, handler: OutputHandler | None) -> None:
        """Give it what is sent with ``send_output``; None takes it away. InvalidTypeError if it has no ``handle``."""
        if handler is not None:
            check_methods("set_output_handler()", handler, "an output handler", "handle")
        self.output_handler = handler

    def put_output(self, output: OutputRecord) -> None:
        """Log an output and give it to the output handler, whose exception goes to the routine that sent it."""
        self.output_log.append(output)
        if self.output_handler is not None:
            self.output_handler.handle(output)

    def kept_size(self) -> int:
        """Bytes, roughly, of what it keeps when its worker has stopped."""
        kept = self.routine_states, dict(self.shared_data), list(self.shared_log), self.output_log
        return sum(estimated_size(part) for part in kept if part)

    # -- the worker ----------------------------------------------------------------------------------------

    @property
    def runtime(self) -> Any:
        """The runtime that runs this worker; None for a state that was read from a file."""
        return None if self.control is None else self.control.runtime

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the worker has stopped, at most ``timeout`` seconds; False if it has not."""
        checked_timeout(timeout)
        if self.control is None:
            return True
        return self.control.wait_until_stopped(timeout)

    def counters(self, routine_id: str) -> dict[str, Any]:
        """What a routine has done and what waits in it; empty for a state that was read from a file. Raises
        UnknownRoutineError."""
        self._check_routine(routine_id)
        return {} if self.control is None else self.control.counters(routine_id)

    def parked_items(self) -> list[ParkedItem]:
        """What waits for items of others in the worker, and for which; what only a store holds is left out."""
        return [] if self.control is None else self.control.parked_items()

    def save(self, path: str) -> None:
        """Write a consistent cut to a file: state, queues, retries, jobs.

        A running worker is held while the cut is made and encoded. The file is readable JSON with a version and a
        checksum, and replaces an older one atomically. Raises SerializationError naming the value that has no
        JSON form; then no file is touched. Raises InsideActivationError in a routine.
        """
        if running.get() is not None:
            raise InsideActivationError(
                f"save() of {self.worker_id!r} was called inside a routine, which cannot be cut in the middle. "
                "Save from outside, for example after runtime.pause(worker)"
            )
        from routilux.runtime import snapshots  # only save and load need it, and it is slow to import

        if self.control is not None:
            snapshots.replace(path, self.control.snapshot(snapshots.encoded))
        elif self.saved is not None:
            snapshots.write(path, self.body())
        else:
            raise StateError(f"worker {self.worker_id!r} was never started; there is nothing to save")

    @classmethod
    def load(cls, path: str) -> WorkerState:
        """Read a file that ``save`` wrote; give the result to ``runtime.exec(flow, job_state=...)``.

        All or nothing: SerializationError for a file that is cut, changed, foreign or of a newer format.
        """
        from routilux.runtime import snapshots  # only save and load need it, and it is slow to import

        body = snapshots.read(path)
        state = cls._detached(body)
        state.saved = body
        state.fill(body)
        state.status = type(state.status)(body["status"])
        return state

    @classmethod
    def _detached(cls, body: Mapping[str, Any]) -> WorkerState:
        import time  # a state read from a file has no runtime to ask

        kind = JobState if body["kind"] == "execution" else WorkerState
        if not issubclass(kind, cls):
            raise StateError(
                f"the file holds the state of a worker of flow {body['flow_id']!r}, not of a one-shot execution; "
                "read it with WorkerState.load()"
            )
        return kind(body["worker_id"], body["flow_id"], clock=time.monotonic, wall_time=time.time)

    def body(self) -> Mapping[str, Any]:
        """What was read from a file, with what has been changed in it since."""
        return {
            **(self.saved or {}),
            "routine_states": self.routine_states,
            "shared_data": dict(self.shared_data),
            "shared_log": list(self.shared_log),
        }

    def fill(self, body: Mapping[str, Any]) -> None:
        """Take over what a snapshot remembers."""
        self._routine_states = {key: dict(value) for key, value in body["routine_states"].items()}
        self.shared_data = dict(body["shared_data"])
        self.shared_log = SharedLog(body["shared_log"])
        self.output_log.extend(OutputRecord(*row) for row in body["output_log"])
        self.keep_metadata(body.get("metadata", {}))  # older versions have kept none
        self.history.restore(body["history"])

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.worker_id} {self.status} of {self.flow_id}>"


class JobState(WorkerState):
    """The state of a one-shot execution: a worker that lives for exactly one job.

    ``job`` is that job, a :class:`JobContext`; None in a state that was read from a file.
    """

    job: JobContext | None = None
    saved_job: Mapping[str, Any] | None = None

    def _first_status(self) -> ExecutionStatus:
        return ExecutionStatus.PENDING

    @property
    def job_id(self) -> str:
        if self.job is not None:
            return self.job.job_id
        return "" if self.saved_job is None else str(self.saved_job["job_id"])

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Those of its job."""
        if self.job is not None:
            return self.job.metadata
        return {} if self.saved_job is None else self.saved_job["metadata"]

    @property
    def error(self) -> BaseException | None:
        """Why the execution failed."""
        return None if self.job is None else self.job.error

    @property
    def errors(self) -> list[BaseException]:
        """What the execution went on after: CONTINUE, SKIP, an unconnected event ``error``, an item set aside."""
        return [] if self.job is None else self.job.errors

    @property
    def progress(self) -> tuple[float, float | None] | None:
        """What a routine has last told with ``current().progress(done, total)``."""
        return None if self.job is None else self.job.progress

    @property
    def outputs(self) -> list[Output]:
        """What was emitted on events that nothing is connected to."""
        if self.job is not None:
            return self.job.outputs
        saved = self.saved_job or {"outputs": ()}
        return [Output(*row) for row in saved["outputs"]]

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.worker_id} {self.status}{parked_text(self.job)} of {self.flow_id}>"
        )

    def fill(self, body: Mapping[str, Any]) -> None:
        super().fill(body)
        self.saved_job = body["jobs"][0] if body["jobs"] else None


def begin_job(state: Any, job: JobContext) -> None:
    """The state is that of the execution of this job."""
    state.job, job.is_execution = job, True


def check_state(routine_id: Any, values: Any) -> None:
    if not isinstance(routine_id, str):
        raise InvalidTypeError(f"a routine id is text, got {type(routine_id).__name__}: {routine_id!r}")
    if not isinstance(values, Mapping):
        raise InvalidTypeError(
            f"the state of routine {routine_id!r} is a mapping, got {type(values).__name__}; "
            f"write update_routine_state({routine_id!r}, {{'key': value}})"
        )


def check_routine(routine_id: object, known: Mapping[str, Any], flow_id: str, fix: str = "") -> None:
    if routine_id not in known:
        raise unknown("routine", routine_id, known, where=f"in flow {flow_id!r}", fix=fix, flow_id=flow_id)


def copied(value: Any) -> Any:
    """A copy down through plain dicts and lists, so that no caller changes a state from outside."""
    if type(value) is dict:
        return {key: copied(item) for key, item in value.items()}
    if type(value) is list:
        return [copied(item) for item in value]
    return value
