"""What a routine can ask about the activation that it runs in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from routilux.errors import NotInActivationError
from routilux.model.context import left_behind, running

if TYPE_CHECKING:
    import logging

    from routilux.model.routine_state import RoutineState
    from routilux.runtime.activation import LiveActivation
    from routilux.runtime.job import JobContext
    from routilux.runtime.state import WorkerState

R = TypeVar("R")


class ActivationContext:
    """The running activation, as :func:`current` gives it. Valid in any thread or task that logic started
    with its context."""

    __slots__ = ("_activation",)

    def __init__(self, activation: LiveActivation) -> None:
        self._activation = activation

    @property
    def jobs(self) -> tuple[JobContext, ...]:
        """All jobs whose items this activation took."""
        return tuple(member.job for member in self._activation.job.members)

    @property
    def job(self) -> JobContext:
        """The job; of several the one whose item is the oldest."""
        return self.jobs[0]

    @property
    def state(self) -> WorkerState:
        return self._activation.node.worker.state

    @property
    def routine_state(self) -> RoutineState:
        """What the routine remembers in this worker, as ``self.state`` is for a class of routines.

        In a function that is a routine: ``current().routine_state.add("seen")``.
        """
        return self._activation.routine_state

    @property
    def routine_id(self) -> str:
        return self._activation.mailbox.routine_id

    @property
    def attempt(self) -> int:
        """1 for the first run, 2 for the first retry. A run that a crash has cut off is made again as the same one."""
        return self._activation.attempt

    @property
    def cancelled(self) -> bool:
        """Whether what this activation still produces is not wanted any more."""
        return self._activation.abandoned is not None or self._activation.job.ended

    def check(self) -> None:
        """Raise JobCancelledError, or ExecutionTimeoutError, if the activation is to stop."""
        if self.cancelled:
            raise self._activation.unwanted()

    def progress(self, done: float, total: float | None = None) -> None:
        """Tell how far the work is: shown as ``job.progress``, also when the activation fails. Not kept in a store."""
        for job in self.jobs:
            job.progress = (done, total)

    def idempotency_key(self, name: str = "") -> str:
        """A text that is the same in every attempt of this activation and different for every other one.

        ``name`` tells several calls of one activation apart. With a store it is the same after a crash, and on
        another machine.
        """
        key = self._activation.idempotency_key
        return f"{key}/{name}" if name else key

    def once(self, name: str, call: Callable[[], R]) -> R:
        """The result of ``call()``, which is made once for this activation and ``name``, whatever the attempt.

        In memory the result lasts as long as the activation is retried. With a store it is written before this
        returns, and a later attempt, also in another process, gets what was written; it needs a JSON form. A process
        that dies before it is written makes the call again: give the call an :meth:`idempotency_key` where it can
        take one.
        """
        return self._activation.once(name, call)  # type: ignore[no-any-return]

    async def aonce(self, name: str, call: Callable[[], Awaitable[R]]) -> R:
        """:meth:`once` for coroutines: ``await current().aonce("charge", lambda: client.charge(order))``."""
        return await self._activation.aonce(name, call)  # type: ignore[no-any-return]

    async def acheckpoint(self, value: Any = None) -> None:
        """:meth:`checkpoint` for coroutines."""
        await self._activation.acheckpoint(value)

    def checkpoint(self, value: Any = None) -> None:
        """Note how far the logic has come: another attempt finds ``value`` in :attr:`checkpointed`.

        With a store, everything that the activation has done until now (emits, state, outputs) is written with it
        and takes effect; a failure or a crash does not take it back. It returns when that is written and the slots
        that the routine feeds have room again, so a long activation that reaches a checkpoint now and then keeps
        memory bounded. The value needs a JSON form there.
        """
        self._activation.checkpoint(value)

    @property
    def checkpointed(self) -> Any:
        """What the last :meth:`checkpoint` has noted, in this attempt or an earlier one; None if there was none."""
        return self._activation.checkpointed

    @property
    def log(self) -> logging.LoggerAdapter[Any]:
        """A logger whose records carry what :class:`routilux.logs.ContextFilter` gives them, without the filter."""
        import logging  # only what logs needs it, and it is slow to import

        from routilux.logs import labels

        logger = logging.getLogger(f"routilux.routine.{self.routine_id}")
        return logging.LoggerAdapter(logger, labels(self._activation))


def current() -> ActivationContext:
    """The activation that runs here. Raises NotInActivationError outside of one."""
    activation: Any = running.get()
    if activation is None:
        raise left_behind.get() or NotInActivationError(
            "current() was called outside an activation; call it in a routine's logic, or in a thread or task "
            "that the logic started with contextvars.copy_context()"
        )
    return ActivationContext(activation)


def get_current_job() -> JobContext | None:
    """The job of the running activation; None outside of one."""
    return None if running.get() is None else current().job


def get_current_worker_state() -> WorkerState | None:
    """The state of the worker whose activation runs here; None outside of one."""
    return None if running.get() is None else current().state
