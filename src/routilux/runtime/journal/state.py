"""States and jobs of journaled workers: the same as in memory, on mappings and lists that are kept in the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from routilux.runtime.job import OUTPUT_LIMIT, TRACE_LIMIT, JobContext
from routilux.runtime.journal.draft import StoredList, StoredMapping
from routilux.runtime.state import JobState, SharedLog, WorkerState, check_state, copied

if TYPE_CHECKING:
    from routilux.kernel.account import JobAccount
    from routilux.ports import Store
    from routilux.runtime.journal.worker import JournaledWorker

TRACE_ROWS = 10 * TRACE_LIMIT


class JournaledLog(SharedLog):
    """A shared log whose entries are written to the store."""

    def __init__(self, worker: JournaledWorker, entries: Iterable[Any] = ()) -> None:
        super().__init__(entries)
        self._stored = StoredList(worker, "log", "", self._entries.append, next_number=len(self._entries))

    def append(self, entry: Any) -> None:
        self._stored.put(entry, "shared_log")

    def extend(self, entries: Iterable[Any]) -> None:
        for entry in entries:
            self.append(entry)

    def _view(self) -> list[Any]:
        return [*self._entries, *self._stored.own()]


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
        states = {
            routine_id: copied(stored.copy()) for routine_id, stored in list(self._stored_states.items())
        }
        return {routine_id: state for routine_id, state in states.items() if state}

    def get_routine_state(self, routine_id: str, default: Any = None) -> Any:
        stored = self._stored_states.get(routine_id)
        state = None if stored is None else stored.copy()
        return copied(state) if state else default

    def update_routine_state(self, routine_id: str, values: Mapping[str, Any]) -> None:
        check_state(routine_id, values)
        stored = self.stored_state(routine_id)
        for key, value in values.items():
            stored[key] = value

    def set_routine_state(self, routine_id: str, values: Mapping[str, Any]) -> None:
        check_state(routine_id, values)
        self.stored_state(routine_id).replace(dict(values))

    def stored_state(self, routine_id: str) -> StoredMapping:
        stored = self._stored_states.get(routine_id)
        if stored is None:
            new = StoredMapping(self._worker, "state", routine_id, f"state of routine {routine_id!r}")
            stored = self._stored_states.setdefault(routine_id, new)
        return stored


class JournaledWorkerState(_Journaled, WorkerState):
    """A :class:`WorkerState` in a store."""


class JournaledJobState(_Journaled, JobState):
    """A :class:`JobState` in a store."""


class JournaledJob(JobContext):
    """A job whose data, trace, errors and outputs are kept in the store.

    ``stored`` counts its items in the store; it is moved under the journal's lock. ``final`` is the status that its
    row was last given, if that is one in which it has ended; ``serial`` orders the jobs of a worker.
    """

    stored = 0
    serial = 0
    final: str | None = None

    def __init__(
        self,
        worker: JournaledWorker,
        job_id: str,
        account: JobAccount,
        metadata: dict[str, Any] | None,
    ) -> None:
        super().__init__(job_id, worker.worker_id, worker.flow_id, account, worker.engine.driver, metadata)
        self._worker = worker
        where = f"job {job_id!r}"
        self.data = StoredMapping(worker, "job.data", job_id, f"data of {where}")  # type: ignore[assignment]
        self.trace_list = StoredList(worker, "job.trace", job_id, self.trace_again, limit=TRACE_ROWS)
        self.output_list = StoredList(worker, "job.output", job_id, self.add_output, limit=OUTPUT_LIMIT)
        self.error_list = StoredList(worker, "job.error", job_id, lambda error: None)

    def continue_lists(self, store: Store) -> None:
        """Number what is added behind what the store has."""
        for kind, stored in (
            ("trace", self.trace_list),
            ("output", self.output_list),
            ("error", self.error_list),
        ):
            last = store.entries(self.worker_id, f"job.{kind}", self.job_id, newest=1)
            stored.continue_at(last[0].number + 1 if last else 0)

    def trace(self, action: str, **details: Any) -> None:
        entry = {"time": self._driver.clock.time(), "action": action, **details}
        self.trace_list.put(entry, f"trace of job {self.job_id!r}")
