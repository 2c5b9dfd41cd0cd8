"""The three vocabularies of status. String enums: ``job.status == "completed"`` is true."""

from __future__ import annotations

from enum import StrEnum


class WorkerStatus(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    FAILED = "failed"

    ended: bool
    """Whether nothing will run in the worker any more."""

    def __init__(self, value: str) -> None:
        self.ended = value in ("stopped", "failed")


class ExecutionStatus(StrEnum):
    """Of a ``JobState``, which can also be paused."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    finished: bool

    def __init__(self, value: str) -> None:
        self.finished = value in ("completed", "failed", "cancelled")


class JobStatus(StrEnum):
    """Of a ``JobContext``."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    finished: bool  # an attribute, not a property: read for every item that ends

    def __init__(self, value: str) -> None:
        self.finished = value in ("completed", "failed", "cancelled")
