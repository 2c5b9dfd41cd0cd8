"""The public face of job states; see :mod:`routilux.runtime.state`."""

from routilux.runtime.job import JobContext
from routilux.runtime.state import JobState, WorkerState

__all__ = ["JobContext", "JobState", "WorkerState"]
