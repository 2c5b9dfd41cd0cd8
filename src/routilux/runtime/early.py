"""The early style: ``flow.execute()`` and its companions, on top of the same runtime."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import Any

from routilux.errors import StateError
from routilux.model.checks import checked_timeout
from routilux.model.flow import Flow, bind_execution
from routilux.runtime.runtime import Runtime
from routilux.runtime.state import JobState, WorkerState


class _OwnRuntime(Runtime):
    """A runtime for one execution, sequential unless the flow says otherwise."""

    default_strategy = "sequential"


class EarlyStyle:
    """What :class:`~routilux.Flow` delegates to."""

    def execute(
        self,
        flow: Flow,
        entry_routine_id: str | None,
        entry_params: Mapping[str, Any] | None,
        timeout: float | None,
    ) -> JobState:
        checked_timeout(timeout)
        threads = flow.max_workers if flow.execution_strategy == "concurrent" else 1
        runtime = _OwnRuntime(thread_pool_size=threads)
        limit = min((s for s in (timeout, flow.execution_timeout) if s is not None), default=None)
        until = None if limit is None else monotonic() + limit
        try:
            state = runtime.execute(flow, entry_params or {}, entry_routine_id, timeout)
        except BaseException:
            runtime.shutdown(wait=False)
            raise
        # Logic that cannot be stopped goes on behind the limit, on a thread that keeps no program from its end.
        runtime.shutdown(timeout=None if until is None else max(0.0, until - monotonic()))
        return state

    def pause(self, state: WorkerState) -> None:
        self._runtime_of(state).pause(state)

    def resume(self, state: WorkerState) -> None:
        self._runtime_of(state).resume(state)

    def cancel(self, state: WorkerState) -> None:
        self._runtime_of(state).cancel(state)

    def wait_for_completion(self, state: WorkerState, timeout: float | None) -> bool:
        return state.wait(timeout)

    def _runtime_of(self, state: WorkerState) -> Runtime:
        runtime = state.runtime
        if runtime is None:
            raise StateError(
                f"{type(state).__name__} {state.worker_id!r} was read from a file and does not run; "
                "call runtime.exec(flow, job_state=state) first"
            )
        return runtime  # type: ignore[no-any-return]


bind_execution(EarlyStyle())
