"""The book of jobs of a runtime: who is there, how many are pending or open, how long the finished are kept."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias

from routilux.errors import QueueFullError
from routilux.kernel.account import JobAccount
from routilux.kernel.locks import take_contended
from routilux.model.context import context_of_caller
from routilux.runtime.job import OPEN, OUT, PENDING, ForgottenJob, JobContext

if TYPE_CHECKING:
    from routilux.runtime.driver import Driver
    from routilux.runtime.waiting import Bell
    from routilux.runtime.worker import Worker

FINISHED_LIMIT = 10_000
FINISHED_SECONDS = 3_600.0
FINISHED_BYTES = 64 * 2**20
_Finished: TypeAlias = tuple[
    float, str, int, str | None
]  # when, the job, bytes, the worker that ended with it


class JobBook:
    """Safe from any thread. ``max_pending`` limits the jobs that have been accepted and not yet started."""

    def __init__(
        self, driver: Driver, max_pending: int, max_bytes: int, bell: Bell, forget: Callable[[str], object]
    ) -> None:
        self.jobs: dict[str, JobContext] = {}
        self.max_pending = max_pending
        self._resume_at = int(max_pending * 0.8)  # who waits for room is woken for many jobs, not for each
        self.pending = 0
        self.open = 0
        self.bell = bell  # rings when none is open any more, and when there is room for pending ones again
        self._driver = driver
        self._lock = driver.lock()
        self._finished: deque[_Finished] = deque()  # moved under the lock, and so are the bytes
        self._bytes = 0
        self._max_bytes = max_bytes
        self._forget_worker = forget
        self.has_forgotten = False  # a job that is not here may have been
        self._numbers = count(1)
        self.draw_prefix()
        self.context = context_of_caller()  # for what has no caller any more: the runtime's

    def draw_prefix(self) -> None:
        """Of the ids that are made up from now on."""
        self._prefix = f"job_{self._driver.unique()}"

    def create(
        self, worker: Worker, job_id: str | None, metadata: Mapping[str, Any] | None
    ) -> tuple[JobContext, bool] | None:
        """A new job, counted as pending and open, with the credit of its first item; None if too many are pending.

        False beside it: another thread has just made the job of that id, and it is that one.
        """
        if not self._lock.acquire(False):
            take_contended(self._lock)
        if self.pending >= self.max_pending:
            self._lock.release()
            return None
        self.pending += 1
        self.open += 1
        try:  # a Ctrl-C comes between calls only: from here on
            self._lock.release()
            account = JobAccount(
                self._driver.lock(), context=context_of_caller(), flush_first=worker.one_shot
            )
            account.active = 1  # before any caller can know the job
            if job_id is None:
                job_id = f"{self._prefix}{next(self._numbers):x}"
            else:
                account.named = True
            job = account.job = worker.new_job(job_id, account, metadata)
        except BaseException:
            self._uncount()
            raise
        try:
            entered = self.jobs.setdefault(job_id, job)
            if entered is job:
                worker.jobs[job_id] = job
                return job, True
        except BaseException:
            if self.jobs.get(job_id) is job:
                worker.refused(job)
            else:
                self._uncount()
            raise
        self._uncount()
        if account.named:
            return entered, False
        return self.create(worker, None, metadata)  # somebody has given a job the id that was made up

    def _uncount(self) -> None:
        """A job was counted as pending and open, and is not made."""
        with self._lock:
            self.pending -= 1
            self.open -= 1

    @property
    def crowded(self) -> bool:
        """Whether there is no place for one more pending job."""
        return self.pending >= self.max_pending

    def full_error(self, why: str) -> QueueFullError:
        return QueueFullError(
            f"{self.pending} jobs are pending, of at most max_queue_size={self.max_pending}: {why}. "
            "Give post() a longer timeout, or the runtime a larger max_queue_size or more threads"
        )

    def has_room(self) -> bool:
        """Whether those who wait for room for a pending job have been woken."""
        return self.pending <= self._resume_at

    def restored(self, worker: Worker, job_id: str, metadata: Mapping[str, Any] | None) -> JobContext:
        """A job that is not entered in the book."""
        account = JobAccount(self._driver.lock(), context=self.context, flush_first=worker.one_shot)
        job = account.job = worker.new_job(job_id, account, metadata)
        return job

    def adopt(self, job: JobContext) -> None:
        """Enter a job of a snapshot; an unfinished one counts as open."""
        self.jobs[job.job_id] = job
        job.account.named = True  # it may have been
        with self._lock:
            if job.status.finished:
                job.counted, size = OUT, job.kept_size()
                self._finished.append((self._driver.clock.time(), job.job_id, size, None))
                self._bytes += size
                return
            job.counted = OPEN if job.account.begun else PENDING
            self.open += 1
            self.pending += job.counted is PENDING

    def started(self, job: JobContext) -> None:
        job.started_at = self._driver.clock.time()
        if not self._lock.acquire(False):
            take_contended(self._lock)
        try:
            if job.counted is not PENDING:
                return  # it was left, or has ended, between its start and this
            job.counted = OPEN
            self.pending -= 1
            ring = self.pending == self._resume_at
        finally:
            self._lock.release()
        if ring and self.bell.waiting:
            self.bell.ring()

    def refuse(self, job: JobContext) -> None:
        """Take back a job of which no item was accepted; what waits for it is told that it is cancelled."""
        job.completed_at = self._driver.clock.time()
        job.account.context = self.context
        with self._lock:
            self._count_out(job)
        self.jobs.pop(job.job_id, None)
        job.announce_end()
        if self.bell.waiting:
            self.bell.ring()

    def leave(self, job: JobContext) -> None:
        """The job goes on where this runtime does not see it: it is not open here any more, and has not ended."""
        with self._lock:
            if job.counted is OUT:
                return  # it has just ended
            self._count_out(job)
            job.left = True
        self.jobs.pop(job.job_id, None)
        job.account.context = self.context
        job.announce_end()
        if self.bell.waiting:
            self.bell.ring()

    def _count_out(self, job: JobContext) -> None:
        """It is not open any more. Ending, leaving and starting may meet: each count is moved once, under the lock."""
        self.open -= job.counted is not OUT
        self.pending -= job.counted is PENDING
        job.counted = OUT

    def ended(self, job: JobContext, execution: str | None = None, size: int = 0) -> None:
        """The job has its final status: stamp it, wake its waiters, forget old ones.

        ``execution`` is the worker that has ended with it and is kept as long as the job is, ``size`` what its state
        takes.
        """
        job.completed_at = self._driver.clock.time()
        job.account.context = self.context  # what its caller had in it is not kept
        job.announce_end()  # first: waking a thread takes longer than what is left to do here
        finished = self._finished
        size += job.kept_size()
        oldest = job.completed_at - FINISHED_SECONDS
        too_old: Sequence[Any] = ()
        if not self._lock.acquire(False):
            take_contended(self._lock)
        try:
            was_pending = job.counted is PENDING
            if job.counted is OUT:
                job.left = False  # it was left at this very moment, and has ended all the same
            else:
                job.counted = OUT
                self.open -= 1
                self.pending -= was_pending
            ring = self.open == 0 or (was_pending and self.pending <= self._resume_at)
            finished.append((job.completed_at, job.job_id, size, execution))
            self._bytes += size
            if len(finished) > FINISHED_LIMIT or finished[0][0] < oldest or self._bytes > self._max_bytes:
                too_old = self._take_old(oldest)
        finally:
            self._lock.release()
        for old in too_old:
            self._forget(old)
        if ring and self.bell.waiting:
            self.bell.ring()

    def _take_old(self, oldest: float) -> list[_Finished]:
        """Those beyond a limit, but never the one that has just ended; the caller holds the lock."""
        finished, taken = self._finished, []
        self.has_forgotten = True
        while len(finished) > 1 and (
            len(finished) > FINISHED_LIMIT or finished[0][0] < oldest or self._bytes > self._max_bytes
        ):
            old = finished.popleft()
            self._bytes -= old[2]
            taken.append(old)
        return taken

    def _forget(self, old: _Finished) -> None:
        _, job_id, _, execution = old
        job = self.jobs.pop(job_id, None)
        if execution is not None:
            self._forget_worker(execution)
        if job is not None and old[2] and not (job.account.active or job.account.parked):
            job.account.job = ForgottenJob(job_id)  # the history of the worker keeps the account


def unique_prefix() -> str:
    """Distinguishes the ids of this runtime from those of all others."""
    return os.urandom(8).hex()
