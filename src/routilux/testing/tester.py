"""One routine alone, on a simulated runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from routilux.model.builder import FlowBuilder
from routilux.model.recovery import ERROR_EVENT
from routilux.model.routine import Routine
from routilux.runtime.job import JobContext
from routilux.runtime.state import WorkerState
from routilux.testing.simulated import SimulatedRuntime
from routilux.testing.tracing import Trace

Emitted = list[tuple[str, dict[str, Any]]]


class RoutineTester:
    """Calls the slots of one routine, and shows what comes of it.

    ::

        with RoutineTester(Parse) as tester:
            assert tester.call("input", {"line": "1;2"}) == [("out", {"n": 1}), ("out", {"n": 2})]

    The routine runs in a worker of its own, with its policy, error handler, merge strategies and time-outs, on a
    :class:`SimulatedRuntime` in debug mode: time is virtual, and async logic runs on a virtual event loop.

    :param routine: an object, a class or factory, or the name of a registered routine type.
    :param config: set before the routine is used.
    :param routine_id: what the routine is called, where its logic asks; the name of its class if not given.
    :param seed, options: of the simulated runtime.
    """

    def __init__(
        self,
        routine: Routine | Callable[[], Routine] | str,
        config: Mapping[str, Any] | None = None,
        *,
        routine_id: str | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        self.runtime = SimulatedRuntime(seed, **{"debug": True, **options})
        self._flow = FlowBuilder("routine_tester").add(routine, routine_id, config).build()
        [self.routine] = self._flow.routines.values()
        self._routine_id = self.routine.routine_id
        self.trace = Trace(self.runtime)
        self.state: WorkerState = self.runtime.exec(self._flow)
        """The state of the worker, which the logic gets as its third argument."""
        self.jobs: list[JobContext] = []
        """One for each call and post, in order."""

    # -- putting in ----------------------------------------------------------------------------------------

    def call(self, slot: str, data: Mapping[str, Any]) -> Emitted:
        """Post to a slot, let everything happen that comes of it, and return what was emitted meanwhile.

        That is ``(event, payload)`` for each emission, retries that wait for virtual hours included. Raises the
        failure of the job, if it fails; :meth:`post` does not. Items that a policy waits for more with stay
        in their slot.
        """
        before = len(self.trace)
        self.post(slot, data).result()
        return self._pairs(before)

    def post(self, slot: str, data: Mapping[str, Any]) -> JobContext:
        """Post to a slot and let nothing happen yet; :meth:`run` and :meth:`drain` do."""
        job = self.runtime.post(self._flow, self._routine_id, slot, data).job_context
        self.jobs.append(job)
        return job

    def run(self, seconds: float | None = None) -> None:
        """Let everything happen that can, or what can within so many virtual seconds."""
        self.runtime.run(seconds)

    def drain(self) -> Emitted:
        """Let everything end, partial batches included; return what was emitted meanwhile."""
        before = len(self.trace)
        self.runtime.wait_until_all_jobs_finished()
        return self._pairs(before)

    # -- looking at what came of it ------------------------------------------------------------------------

    def emitted(self, event: str) -> list[dict[str, Any]]:
        """The payloads of an event since the beginning."""
        return self.trace.emitted(f"{self._routine_id}.{event}")

    @property
    def routine_state(self) -> dict[str, Any]:
        """A copy of what the routine remembers under its own id."""
        remembered: dict[str, Any] = self.state.get_routine_state(self._routine_id, {})
        return remembered

    @property
    def outputs(self) -> list[tuple[str, dict[str, Any]]]:
        """What was sent with ``send_output``: type and data."""
        return [(one.output_type, one.data) for one in self.state.output_log]

    @property
    def errors(self) -> list[BaseException]:
        """What has failed, in the order of the jobs: what a job went on after, and what it failed of.

        What the routine emits on an event ``error`` is in :meth:`emitted`: the tester hears every event.
        """
        return [
            error
            for job in self.jobs
            for error in [*job.errors, *(() if job.error is None else (job.error,))]
            if getattr(error, "event", None) != ERROR_EVENT
        ]

    @property
    def now(self) -> float:
        """Virtual seconds since the start."""
        return self.runtime.now

    # -- the end -------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop; the routine is free again, and what came of it can still be looked at."""
        self.runtime.shutdown(wait=False)
        if self._routine_id in self._flow.routines:
            self._flow.remove_routine(self._routine_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(f"simulated with seed {self.runtime.seed}")
        self.close()

    def __repr__(self) -> str:
        return f"<RoutineTester of {self._routine_id!r}, {len(self.trace)} emissions>"

    def _pairs(self, start: int) -> Emitted:
        return [(one.event, dict(one.data)) for one in self.trace.emissions[start:]]
