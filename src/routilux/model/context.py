"""The activation that runs in this thread or task, and the contexts in which logic runs.

Every activation has a context of its own, a copy of the one that its job has come from. In it, and in what logic
copies from it for its threads and tasks, ``running`` holds the activation.
"""

from __future__ import annotations

from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from routilux.model.event import Event
    from routilux.model.item import Payload
    from routilux.model.routine import Routine
    from routilux.model.routine_state import RoutineState

    # Nothing else asks for it, and a protocol takes long to make.
    class RunningActivation(Protocol):
        """What a routine needs to know of the activation that it runs in; the runtime's to implement."""

        @property
        def routine(self) -> Routine: ...

        @property
        def routine_id(self) -> str: ...

        @property
        def worker_id(self) -> str: ...

        @property
        def flow_id(self) -> str: ...

        @property
        def job_ids(self) -> tuple[str, ...]:
            """All jobs whose items it took, that of the oldest first."""

        @property
        def attempt(self) -> int:
            """1 for the first run."""

        @property
        def debug(self) -> bool:
            """Whether a mistake that could be warned about is raised instead."""

        @property
        def routine_state(self) -> RoutineState:
            """What the routine remembers in the worker; raises when the activation has ended."""

        def emit(self, event: Event | str, data: Payload) -> None:
            """Send ``data`` to whatever is connected to the event, given by name or as the declared object."""

        def send_output(self, output_type: str, data: Payload) -> None: ...

        def routine_stats(self, routine: Routine, state: Any) -> dict[str, Any]:
            """State and counters of a routine in the worker of ``state``; None means the current worker."""


running: ContextVar[RunningActivation | None] = ContextVar("routilux_activation", default=None)

left_behind: ContextVar[Exception | None] = ContextVar("routilux_left_behind", default=None)
"""In a child process that was forked inside an activation: why there is none any more."""


def context_of_caller() -> Context:
    """A copy of the context of the caller, without the activation that it may be called in."""
    context = copy_context()
    if running.get() is not None:
        context.run(running.set, None)  # it would keep the activation alive, and with it those before it
    return context
