"""Routilux, an event-driven workflow engine: routines with slots and events, wired into flows, run by a runtime."""

from typing import Any

from routilux._version import __version__
from routilux.errors import (
    ConfigurationError,
    ExecutionError,
    RoutiluxError,
    SerializationError,
    SlotHandlerError,
    StateError,
)
from routilux.model.builder import FlowBuilder
from routilux.model.connection import Connection
from routilux.model.event import Event
from routilux.model.flow import Flow
from routilux.model.function import routine
from routilux.model.item import DeadLetter, Output
from routilux.model.recovery import ErrorHandler, ErrorStrategy
from routilux.model.registry import FlowRegistry
from routilux.model.routine import Routine
from routilux.model.slot import Slot
from routilux.model.status import ExecutionStatus, JobStatus, WorkerStatus
from routilux.runtime.context import current, get_current_job, get_current_worker_state
from routilux.runtime.job import JobContext
from routilux.runtime.output import (
    CallbackOutputHandler,
    NullOutputHandler,
    OutputHandler,
    QueueOutputHandler,
)
from routilux.runtime.posting import Posted
from routilux.runtime.runtime import Runtime
from routilux.runtime.state import JobState, WorkerState

__all__ = [
    "CallbackOutputHandler",
    "ConfigurationError",
    "Connection",
    "DeadLetter",
    "DslError",
    "ErrorHandler",
    "ErrorStrategy",
    "Event",
    "ExecutionError",
    "ExecutionStatus",
    "Flow",
    "FlowBuilder",
    "FlowRegistry",
    "JobContext",
    "JobState",
    "JobStatus",
    "NullOutputHandler",
    "ObjectFactory",
    "Output",
    "OutputHandler",
    "Posted",
    "QueueOutputHandler",
    "RoutiluxError",
    "Routine",
    "RoutineRegistry",
    "Runtime",
    "SerializationError",
    "Slot",
    "SlotHandlerError",
    "StateError",
    "WorkerState",
    "WorkerStatus",
    "__version__",
    "current",
    "get_current_job",
    "get_current_worker_state",
    "routine",
]


def __getattr__(name: str) -> Any:
    """The names of ``routilux.dsl``, which is imported when the first of them is used."""
    if name in ("DslError", "ObjectFactory", "RoutineRegistry"):
        from importlib import import_module

        return getattr(import_module("routilux.dsl"), name)
    raise AttributeError(f"module 'routilux' has no attribute {name!r}")
