"""Executions that are run elsewhere: what the store has of them, and waiting for their end."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from routilux.model.status import ExecutionStatus, JobStatus, WorkerStatus
from routilux.runtime.job import JobContext
from routilux.runtime.journal import rows
from routilux.runtime.journal.state import DetachedJob, JournaledJobState
from routilux.runtime.waiting import in_task, on_own_thread

if TYPE_CHECKING:
    from routilux.model.item import Output
    from routilux.ports import StoredJob
    from routilux.runtime.journal.log import Journal

LOOK_SECONDS = 0.25  # between two looks at the store, for who waits
LOOKS_PER_ASK = 8  # of these, one also asks whether the execution is still run elsewhere


class FollowedJob(DetachedJob):
    """The job of an execution that another runtime runs: what the store has of it, whenever it is looked at.

    Who waits for it also asks for the execution anew, which opens it here where no runtime runs it any more.
    """

    _journal: Journal
    _ask: Callable[[], JobContext]
    _changed: Callable[[], object]
    _seen: StoredJob | None = None

    def follow(
        self, journal: Journal, ask: Callable[[], JobContext], changed: Callable[[], object] = bool
    ) -> None:
        """``ask`` gives the job anew, wherever it runs now; ``changed`` is called when the store has news."""
        self._journal, self._ask, self._changed = journal, ask, changed
        self._looking = journal.engine.driver.lock()
        self.look()

    def look(self) -> None:
        """Take over what the store has now."""
        if self._waiting is None:
            return
        stored = None if self._journal.over is not None else self._journal.store.job(self.job_id)
        if stored is None:  # it cannot be followed any more
            self.leave()
            return
        with self._looking:
            if stored == self._seen or self._waiting is None:
                return
            self._seen = stored
            rows.fill_detached(self._journal, self, stored)
            self._changed()
            if self.account.status.finished:
                self.announce_end()

    @property
    def status(self) -> JobStatus:
        self.look()
        return self.account.status

    @property
    def finished(self) -> bool:
        self.look()
        return super().finished

    def wait(self, timeout: float | None = None) -> bool:
        engine, looks = self._journal.engine, 0
        deadline = engine.deadline(timeout)
        while not self.finished and not self.left:
            left = LOOK_SECONDS if deadline is None else min(LOOK_SECONDS, deadline - engine.now())
            if left <= 0:
                return False
            super().wait(left)
            looks += 1
            if looks % LOOKS_PER_ASK == 0:
                self._wait_for_successor(deadline)
        return not self.left

    def _wait_for_successor(self, deadline: float | None) -> None:
        job = self._ask()
        if not isinstance(job, FollowedJob):
            job.wait(None if deadline is None else max(0.0, deadline - self._journal.engine.now()))

    def __await__(self) -> Generator[Any, None, list[Output]]:
        yield from in_task(on_own_thread(self.wait)).__await__()
        return self._outcome()


class FollowedState(JournaledJobState):
    """The state of such an execution: that of its routines is there when it has ended."""

    job: FollowedJob | None = None

    @property
    def status(self) -> ExecutionStatus:
        if self.job is not None:
            self.job.look()
        return self._status

    @status.setter
    def status(self, status: WorkerStatus | ExecutionStatus) -> None:
        self._status = ExecutionStatus(status.value)

    def wait(self, timeout: float | None = None) -> bool:
        assert self.job is not None
        return self.job.wait(timeout)
