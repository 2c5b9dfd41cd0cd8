"""States and jobs of journaled workers: the same as in memory, on mappings and lists that are kept in the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from routilux.errors import SerializationError, StateError
from routilux.runtime.job import ERROR_LIMIT, OUTPUT_LIMIT, TRACE_LIMIT, JobContext
from routilux.runtime.journal.draft import StoredList
from routilux.runtime.journal.mapping import StoredMapping
from routilux.runtime.sizes import estimated_size
from routilux.runtime.state import JobState, SharedLog, WorkerState

if TYPE_CHECKING:
    from routilux.kernel.account import JobAccount
    from routilux.runtime.journal.pauses import StoredPause
    from routilux.runtime.journal.worker import JournaledWorker

S = TypeVar("S")
TRACE_ROWS = 10 * TRACE_LIMIT


class Unread:
    """An entry that cannot be read any more; the store has it still."""

    __slots__ = ("why",)

    def __init__(self, why: str) -> None:
        self.why = why


class JournaledLog(SharedLog):
    """A shared log whose entries are written to the store."""

    def __init__(self, worker: JournaledWorker, entries: Iterable[Any] = ()) -> None:
        super().__init__(entries)
        self._worker = worker
        self._stored = StoredList(worker, "log", "", self._entries.append, next_number=len(self._entries))

    def append(self, entry: Any) -> None:
        self._stored.put(entry, "shared_log")

    def extend(self, entries: Iterable[Any]) -> None:
        for entry in entries:
            self.append(entry)

    def kept(self) -> list[Any]:
        """What all can see of it; nothing of a worker that is run elsewhere."""
        return self._entries

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        found = self._all()[index]
        return _read(found) if isinstance(index, slice) else _read([found])[0]

    def __len__(self) -> int:
        return len(self._all())

    def _view(self) -> list[Any]:
        return _read(self._all())

    def _all(self) -> list[Any]:
        self._worker.check_is_here()
        return [*self._entries, *self._stored.own()]


def _read(entries: list[Any]) -> list[Any]:
    for entry in entries:
        if type(entry) is Unread:
            raise SerializationError(f"shared_log cannot be read: {entry.why}")
    return entries


class _Journaled(WorkerState):
    """Where a journaled state differs; made complete by ``attach``."""

    def attach(self, worker: JournaledWorker) -> None:
        self._worker = worker
        self.shared_data = StoredMapping(worker, "shared", "", "shared_data")  # type: ignore[assignment]
        self._stored_states: dict[str, StoredMapping] = {}
        self.attach_log(())

    def attach_log(self, entries: Iterable[Any]) -> None:
        self.shared_log = JournaledLog(self._worker, entries)

    @property
    def routine_states(self) -> dict[str, dict[str, Any]]:
        self._worker.check_is_here()
        states = {routine_id: stored.copy() for routine_id, stored in list(self._stored_states.items())}
        return {routine_id: state for routine_id, state in states.items() if state}

    def kept_size(self) -> int:
        mappings = sum(stored.kept_size() for stored in [self.shared_data, *self._stored_states.values()])  # type: ignore[attr-defined]
        log: Any = self.shared_log
        return mappings + sum(estimated_size(part) for part in (log.kept(), self.output_log) if part)

    def get_routine_state(self, routine_id: str, default: Any = None) -> Any:
        if routine_id not in self._stored_states:
            self._check_routine(routine_id)
        return self.state_of(routine_id).copy() or default

    def update_routine_state(self, routine_id: str, values: Mapping[str, Any]) -> None:
        self._check_change(routine_id, values)
        self.state_of(routine_id).update(values)

    def set_routine_state(self, routine_id: str, values: Mapping[str, Any]) -> None:
        self._check_change(routine_id, values)
        self.state_of(routine_id).replace(dict(values))

    def state_of(self, routine_id: str) -> StoredMapping:
        stored = self._stored_states.get(routine_id)
        if stored is None:
            new = StoredMapping(self._worker, "state", routine_id, f"state of routine {routine_id!r}")
            stored = self._stored_states.setdefault(routine_id, new)
        return stored


class JournaledWorkerState(_Journaled, WorkerState):
    """A :class:`WorkerState` in a store."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        self._worker.check_is_here()
        return super().metadata


class JournaledJobState(_Journaled, JobState):
    """A :class:`JobState` in a store."""


class DetachedJob(JobContext):
    """A job that does not live in this runtime, as it was last written: to be read, and not changed."""

    def clear(self) -> None:
        """Forget what was read before."""
        for name in ("metadata", "data", "errors", "_trace", "unread"):
            vars(self).pop(name, None)
        self.outputs = []

    def freeze(self) -> None:
        self.data = MappingProxyType(self.data)  # type: ignore[assignment]

    def set_data(self, key: str, value: Any) -> None:
        raise self._only_read(f"set_data({key!r})")

    def trace(self, action: str, **details: Any) -> None:
        raise self._only_read(f"trace({action!r})")

    def _only_read(self, call: str) -> StateError:
        return StateError(
            f"{call}: job {self.job_id!r} is {self.status}, and was read from the store, where its worker "
            f"{self.worker_id!r} keeps it; change it in the runtime in which that worker is open",
            job_id=self.job_id,
            worker_id=self.worker_id,
        )


class JournaledJob(JobContext):
    """A job whose data, trace, errors and outputs are kept in the store.

    ``stored`` counts its items in the store; it is moved under the journal's lock. ``final`` is the status that its
    row was last given, if that is one in which it has ended; ``serial`` orders the jobs of a worker, and is given with
    the first row; ``pause`` is made when it is first paused.
    """

    stored = 0
    serial: int | None = None
    final: str | None = None
    pause: StoredPause | None = None

    def __init__(
        self,
        worker: JournaledWorker,
        job_id: str,
        account: JobAccount,
        metadata: Mapping[str, Any] | None,
    ) -> None:
        # Fixed from here on: what the owner changes in ``metadata`` is not stored.
        self.metadata_form: bytes | None = None
        if metadata:
            where = f"metadata of job {job_id!r}"
            self.metadata_form = worker.encode(dict(metadata), where)
            metadata = worker.decode(self.metadata_form, where)
        super().__init__(job_id, worker.worker_id, worker.flow_id, account, worker.engine.driver, metadata)
        self._stored: dict[str, Any] = {}
        self._worker = worker

    def outlived_by(self, worker: object) -> bool:
        return self._worker is not worker and self._worker.stopped

    # Most jobs never need these, and two threads may ask at once: both get what the first has made.

    @property
    def data(self) -> StoredMapping:  # type: ignore[override]
        where = f"data of job {self.job_id!r}"
        return self._made("data", lambda: StoredMapping(self._worker, "job.data", self.job_id, where))

    @property
    def trace_list(self) -> StoredList:
        return self._made("trace", lambda: self._list("job.trace", self.trace_again, TRACE_ROWS))

    @property
    def output_list(self) -> StoredList:
        return self._made("output", lambda: self._list("job.output", self.add_output, OUTPUT_LIMIT))

    @property
    def error_list(self) -> StoredList:
        return self._made("error", lambda: self._list("job.error", self.add_error, ERROR_LIMIT))

    def _made(self, name: str, make: Callable[[], S]) -> S:
        made: S | None = self._stored.get(name)
        if made is None:
            made = self._stored.setdefault(name, make())
        return made

    def _list(self, kind: str, append: Callable[[Any], object], limit: int | None) -> StoredList:
        return StoredList(self._worker, kind, self.job_id, append, limit=limit)

    def kept_size(self) -> int:
        data = self._stored.get("data")
        return super().kept_size() + (0 if data is None else data.kept_size())

    def continue_lists(self, following: Mapping[str, int]) -> None:
        """Number what is added behind what the store has."""
        lists = (
            {"trace": self.trace_list, "output": self.output_list, "error": self.error_list}
            if following
            else {}
        )
        for kind, number in following.items():
            lists[kind].continue_at(number)

    def trace(self, action: str, **details: Any) -> None:
        entry = {"time": self._driver.clock.time(), "action": action, **details}
        self.trace_list.put(entry, f"trace of job {self.job_id!r}")
