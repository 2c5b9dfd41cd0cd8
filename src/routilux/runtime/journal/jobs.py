"""The jobs of a worker in the store: what each has there, how it ends, and the keys under which it was posted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from routilux.model.status import JobStatus
from routilux.ports import PLAIN_JOB, JobRow, KeyRow, StoredJob
from routilux.runtime.digests import PARTS, VERSION, Content, content_of
from routilux.runtime.directory import job_left
from routilux.runtime.journal import rows
from routilux.runtime.journal.pauses import StoredPause
from routilux.runtime.journal.record import Record
from routilux.runtime.posting import key_conflict
from routilux.tracebacks import kept

if TYPE_CHECKING:
    from routilux.kernel.account import Account
    from routilux.model.item import Payload
    from routilux.runtime.job import JobContext
    from routilux.runtime.journal.worker import JournaledWorker

KEY_SECONDS = 7 * 86_400.0


class StoredJobs:
    """Moves ``stored`` and ``final`` of the jobs of one worker, and makes their rows.

    Both are moved under the journal's lock, in which the row is handed over as well: a row that was made later is
    written later. A job whose ``final`` is set has its end on its way or written, and gets no other.
    """

    def __init__(self, worker: JournaledWorker) -> None:
        self._worker = worker

    # -- with a record; the caller holds the journal's lock -------------------------------------------------

    def count(self, record: Record, account: Account, n: int) -> None:
        """The store will have ``n`` items more of each of these jobs."""
        if not record.counts:
            record.counts = {}
        counts: Any = record.counts
        for member in account.members:
            job = member.job
            job.stored += n
            counts[job.job_id] = counts.get(job.job_id, 0) + n

    def end_rows(self, record: Record, account: Account, fatal: BaseException | None) -> None:
        """A job that fails by this record, or of which it leaves nothing in the store, ends with it."""
        now: float | None = None
        ended = []
        for member in account.members:
            job = member.job
            if member.status.finished or job.final is not None or (fatal is None and job.stored):
                continue
            status = JobStatus.COMPLETED if fatal is None else JobStatus.FAILED
            if fatal is not None:
                job.error = fatal
            job.final = status.value
            now = self._worker.engine.driver.clock.time() if now is None else now
            ended.append(rows.job_row(self._worker.journal.codec, job, status.value, now))
        if ended:
            record.jobs = [*record.jobs, *ended]
            if self._worker.one_shot and not any(member.job.stored for member in account.members):
                self._worker.add_end(record)

    def note_error(self, record: Record, account: Account, error: BaseException) -> None:
        data = self._worker.encode(kept(error), "error")
        for member in account.members:
            record.entries = [*record.entries, *member.job.error_list.add(error, data)]

    def row(self, job: Any) -> JobRow:
        """A job as it is now; the caller holds the journal's lock."""
        if job.serial is None:  # it ends before it has its first item
            job.serial = self._worker.take_number()
        status = JobStatus(job.final or job.status)
        ended = job.completed_at or self._worker.engine.driver.clock.time() if status.finished else None
        return rows.job_row(self._worker.journal.codec, job, status.value, ended)

    def append_end(self, job: Any) -> None:
        """Hand over the row of a job that has ended, unless it has it already."""
        if job.final != job.status:
            job.final = job.status.value
            self._append_row(job)

    def _append_row(self, job: Any) -> None:
        record = Record(self._worker)
        self._add_row(job, record)
        self._worker.journal.append(record)

    def _add_row(self, job: Any, record: Record) -> None:
        record.jobs = [self.row(job)]

    # -- from outside ---------------------------------------------------------------------------------------

    def end(self, job: JobContext, status: JobStatus, error: BaseException | None) -> bool:
        """The end of a job is seen when it is written; False if it has another one."""
        begun: list[Any] = []
        self._begin_ends(Record(self._worker), [job], status, error, begun)
        self._worker.journal.wake()
        return bool(begun)

    def cancel(self, job: JobContext) -> None:
        """Returns when it is written and nothing of the job starts any more."""
        self._cancel(lambda: [job])

    def cancel_all(self) -> None:
        """The same for every open job of the worker, in one record: also for those that are only in the store."""
        self._worker.flush()  # what the store says of them is as it is here
        self._cancel(self._all_open)

    def _all_open(self) -> list[Any]:
        worker = self._worker
        for job_id in worker.revival.left_in_store():
            worker.revival.job(job_id)
        return list(worker.jobs.values())

    def _cancel(self, jobs: Callable[[], list[Any]]) -> None:
        journal, record = self._worker.journal, Record(self._worker)
        begun: list[Any] = []

        def begin() -> None:
            asked = jobs()
            for job in asked:
                if self._worker.stopped and job.final is None:
                    raise job_left(job, "cancel()")
            self._begin_ends(record, asked, JobStatus.CANCELLED, None, begun)
            if not begun:
                journal.hand_over(record)  # how they end is on its way: return when that is written

        journal.written_or_raise(record, begin, partial(self._not_ended, begun))

    def _begin_ends(
        self,
        record: Record,
        jobs: Iterable[Any],
        status: JobStatus,
        error: BaseException | None,
        begun: list[Any],
    ) -> None:
        """Hand over the end of those jobs that have no other. Until it is written they do not come to rest.

        They are in ``begun`` before the record is handed over: it may be refused before this has returned.
        """
        worker, journal = self._worker, self._worker.journal
        with journal.lock:
            begun += [job for job in jobs if self._is_open(job)]
            for job in begun:
                before, job.error, job.final = job.error, error, status.value
                record.jobs = [*record.jobs, self.row(job)]
                job.error = before
                record.then(partial(worker.end_jobs, [job], status, error))
                record.then(job.account.remove)
            if begun:
                journal.append(record)

    def _is_open(self, job: Any) -> bool:
        """Whether its end is not even on its way; then it is kept from coming to rest.

        One that was to complete with what is on its way may still go on by a post, so it can be ended like others.
        """
        job.account.add()
        if not job.account.status.finished and job.final in (None, JobStatus.COMPLETED):
            return True
        job.account.remove()
        return False

    def _not_ended(self, begun: Iterable[Any]) -> None:
        """The store has refused the end of these jobs. Rows that were handed over behind it say it no more."""
        worker = self._worker
        with worker.journal.lock:
            for job in begun:
                job.final = None
            go_on = {job.job_id: self.row(job) for job in begun if not job.status.finished}
            worker.end_is_due = worker.end_is_due or bool(go_on)
            worker.journal.amend(go_on)
        for job in begun:
            worker.at_rest(job.account.remove())

    def pause_of(self, job: Any) -> StoredPause:
        """Most jobs are never paused, so it is made when it is first asked for."""
        pause: StoredPause | None = job.pause
        if pause is None:
            worker = self._worker
            obey, hold = partial(worker.obey_job_pause, job), partial(job.account.pause, True)
            made = StoredPause(worker, partial(self._add_row, job), obey, hold)
            pause = vars(job).setdefault("pause", made)  # two threads may ask at once
        return pause

    def trace(self, job: Any, action: str, **details: Any) -> None:
        worker = self._worker
        entry = {"time": worker.engine.driver.clock.time(), "action": action, **details}
        data = worker.encode(entry, f"trace of job {job.job_id!r}")
        record = Record(worker)
        record.entries = job.trace_list.add(entry, data)
        worker.journal.slip_in(record)

    # -- found in the store ---------------------------------------------------------------------------------

    def find(self, job_id: str) -> JobContext | None:
        """A job that is not in the book: brought to life if anything of it is left to do here, or may still come, else
        only shown."""
        worker, journal = self._worker, self._worker.journal
        stored = journal.store.job(job_id)
        if stored is None:
            return None
        takes_more = JobStatus(stored.row.status) not in (JobStatus.FAILED, JobStatus.CANCELLED)
        if stored.row.worker_id == worker.worker_id and (stored.items or takes_more):
            return worker.revival.job(job_id)
        return rows.detached_job(journal, stored)

    def key(self, idempotency_key: str, place: str, payload: Payload, metadata: Any) -> KeyRow:
        """The digest is of the JSON forms, which are the same in every process."""
        worker = self._worker
        now = worker.engine.driver.clock.time()
        forms = [
            json.loads(worker.encode(value, f"{what} of idempotency_key {idempotency_key!r}"))
            for what, value in (("payload", payload), ("metadata", metadata))
        ]
        digest = content_of(place, *forms).digest
        return KeyRow(worker.flow_id, idempotency_key, worker.worker_id, "", digest, now, now + KEY_SECONDS)

    def of_key(self, key: KeyRow, payload: Payload) -> JobContext | None:
        """The job that a key names. Raises IdempotencyConflictError if it came with something else."""
        worker = self._worker
        known = worker.journal.store.key(key.flow_id, key.key, key.created_at)
        if known is None:
            return None
        if known.digest.startswith(VERSION):
            how = Content(known.digest).difference(Content(key.digest))
        else:  # it was written when a key stood for a payload only
            how = None if known.digest == self._old_digest(key, payload) else PARTS["payload"]
        if how is not None:
            raise key_conflict(key.flow_id, key.key, known.job_id, how)
        return worker.engine.book.jobs.get(known.job_id) or self.find(known.job_id) or self._pruned(known)

    def _pruned(self, key: KeyRow) -> JobContext:
        """The job of a key, pruned by a version that kept nothing of it: that it has ended is all that is known."""
        row = JobRow(
            key.job_id, key.worker_id, key.flow_id, JobStatus.COMPLETED.value, 1, key.created_at, None, None,
            PLAIN_JOB,
        )  # fmt: skip
        return rows.detached_job(self._worker.journal, StoredJob(row, 0))

    def _old_digest(self, key: KeyRow, payload: Payload) -> str:
        encoded = self._worker.encode(payload, f"payload of idempotency_key {key.key!r}")
        return blake2b(encoded, digest_size=16).hexdigest()
