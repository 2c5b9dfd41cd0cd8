"""What each event has emitted in a run, for tests that look inside a flow."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Lock
from types import TracebackType
from typing import Any, Self

from routilux.errors import InvalidTypeError, InvalidValueError, StateError, refused, unknown
from routilux.model.flow import Flow
from routilux.ports import Emission
from routilux.runtime.job import JobContext
from routilux.runtime.posting import Posted
from routilux.runtime.runtime import Runtime
from routilux.runtime.state import JobState


class Trace:
    """Records what routines emit on a runtime, real or simulated, from now on until it is closed.

    ::

        trace = Trace(runtime)
        runtime.exec(flow, entry_params={"line": "1;2"}).wait()
        assert trace.emitted("parse.out") == [{"n": 1}, {"n": 2}]

    It keeps payloads as they were emitted (a copy of the outer dict), before the mapping of any connection, and
    whether anything is connected to the event or not. Everything is kept, so it is for tests and not for services.
    What is emitted by an activation that fails later is in it too, because it was delivered.
    """

    def __init__(self, runtime: Runtime) -> None:
        if not isinstance(runtime, Runtime):
            fix = "make one, give it here, and call its exec() after that"
            raise refused(InvalidTypeError, "Trace()", runtime, "a Runtime or SimulatedRuntime", fix=fix)
        self._runtime = runtime
        self._lock = Lock()
        self._emissions: list[Emission] = []
        self._events: dict[str, dict[str, None]] = {}  # by routine, of all flows that were watched
        runtime.add_tap(self)

    # -- what was emitted ----------------------------------------------------------------------------------

    def emitted(
        self, event: str, *, job: str | JobContext | Posted | JobState | None = None
    ) -> list[dict[str, Any]]:
        """The payloads that were emitted on an event, written ``"routine.event"``, oldest first.

        :param job: only those that belong to this job.

        Raises UnknownRoutineError, UnknownEventError and UnknownJobError for names that nothing has had.
        """
        routine_id, name = self._checked(event)
        job_id = _job_id(job)
        if isinstance(job, str):
            self._check_job(job)
        return [
            dict(one.data)
            for one in self.emissions
            if (one.routine_id, one.event) == (routine_id, name) and (job_id is None or job_id in one.job_ids)
        ]

    @property
    def emissions(self) -> tuple[Emission, ...]:
        """All that was emitted, in the order in which it was begun, with time, worker and jobs."""
        with self._lock:
            return tuple(self._emissions)

    def clear(self) -> None:
        """Forget what was emitted so far."""
        with self._lock:
            self._emissions.clear()

    def close(self) -> None:
        """Record nothing any more; what was recorded can still be read."""
        self._runtime.remove_tap(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._emissions)

    def __iter__(self) -> Iterator[Emission]:
        return iter(self.emissions)

    def __str__(self) -> str:
        """A line for each emission, for people."""
        return "\n".join(f"{one.time:.3f} {one.routine_id}.{one.event} {one.data!r}" for one in self)

    def __repr__(self) -> str:
        return f"<Trace of {len(self)} emissions>"

    # -- what the runtime shows ----------------------------------------------------------------------------

    def watch(self, worker_id: str, flow: Flow) -> None:
        """Called by the runtime when a worker starts."""
        with self._lock:
            for routine_id, routine in flow.routines.items():
                self._events.setdefault(routine_id, {}).update(dict.fromkeys(routine.events))

    def note(self, emission: Emission) -> None:
        """Called by the runtime."""
        with self._lock:
            self._emissions.append(emission)

    def take_back(self, emission: Emission) -> None:
        """Called by the runtime when an emit has raised."""
        with self._lock:
            at = next(at for at in reversed(range(len(self._emissions))) if self._emissions[at] is emission)
            del self._emissions[at]

    # -- checks --------------------------------------------------------------------------------------------

    def _checked(self, event: object) -> tuple[str, str]:
        """A test that asks for a name that does not exist would always find nothing."""
        if not self._events:
            raise StateError(
                "emitted(): no worker has been started since this trace began; make the Trace, then call exec()"
            )
        routine_id, dot, name = event.partition(".") if isinstance(event, str) else ("", "", "")
        if not (routine_id and dot and name):
            raise refused(InvalidValueError, "emitted()", event, "'routine.event'")
        if routine_id not in self._events:
            raise unknown("routine", routine_id, self._events, where="in the flows that were traced")
        if name not in self._events[routine_id]:
            raise unknown("event", name, self._events[routine_id], where=f"of routine {routine_id!r}")
        return routine_id, name

    def _check_job(self, job_id: str) -> None:
        known = {known for one in self.emissions for known in one.job_ids}
        if job_id not in known and self._runtime.get_job(job_id) is None:
            raise unknown("job", job_id, known, where="in the runtime that is traced")


def _job_id(job: object) -> str | None:
    if job is None or isinstance(job, str):
        return job
    if isinstance(job, (JobContext, Posted, JobState)):
        return job.job_id
    fix = "give what post() or exec(entry_params=...) has returned"
    raise refused(InvalidTypeError, "emitted(job)", job, "a job, or its id", fix=fix)
