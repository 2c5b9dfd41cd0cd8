"""Which workers and jobs a store holds: starting, opening and recovering them, and looking at them from outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple

from routilux.errors import RoutiluxError, RuntimeClosedError, StoreError, describe
from routilux.model.item import DeadLetter
from routilux.model.status import ExecutionStatus, WorkerStatus
from routilux.ports import ItemKey, StoredJob, WorkerRow
from routilux.runtime.job import JobContext
from routilux.runtime.journal import rows
from routilux.runtime.journal.reopening import check_row
from routilux.runtime.journal.state import JournaledJobState, JournaledWorkerState
from routilux.runtime.journal.worker import JournaledWorker

if TYPE_CHECKING:
    from routilux.model.flow import Flow
    from routilux.runtime.engine import Engine
    from routilux.runtime.state import WorkerState


class NotReopened(NamedTuple):
    """A worker of the store that was left as it is, and why."""

    worker_id: str
    flow_id: str
    reason: str


class Recovered(list["WorkerState"]):
    """The states of the workers that were opened; ``not_reopened`` lists the others."""

    not_reopened: list[NotReopened]


class _Closed:
    """Stands for the store of a runtime that has ended, and has closed it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, call: str) -> Any:
        raise RuntimeClosedError(
            f"this runtime has been shut down, and has closed {self.name}: what is only there cannot be read here any "
            "more; create a new Runtime with that store"
        )


def create(engine: Engine, flow: Flow, worker_id: str, one_shot: bool) -> JournaledWorker:
    """A worker that is not yet known to any caller."""
    clock = engine.driver.clock
    kind = JournaledJobState if one_shot else JournaledWorkerState
    state = kind(worker_id, flow.flow_id, clock=clock.monotonic, wall_time=clock.time)
    worker = JournaledWorker(engine, flow, state)
    state.control = worker
    return worker


class Opener:
    """``create`` makes a worker of a runtime, ``enter`` lets others see it with a status."""

    def __init__(
        self,
        engine: Engine,
        create: Callable[..., Any],
        enter: Callable[[Any, WorkerStatus], None],
    ) -> None:
        assert engine.journal is not None
        self._engine = engine
        self._journal = engine.journal
        self._create = create
        self._enter = enter
        self._claimed: dict[JournaledWorker, None] = {}
        self._count_deaths()

    # -- workers -------------------------------------------------------------------------------------------

    def start(
        self, flow: Flow, worker_id: str | None, on_flow_change: str, metadata: Mapping[str, Any]
    ) -> JournaledWorker:
        """A new worker, or the one that the store holds unfinished."""
        row = None if worker_id is None else self._journal.store.worker(worker_id)
        if row is not None and row.status != "stopped":
            check_row(row, flow, "worker", on_flow_change)
            return self._open(flow, row)
        worker: JournaledWorker = self._create(flow, worker_id, one_shot=False)
        worker.about = {"named": worker_id is not None, **worker.joins.about()}
        if metadata:
            worker.about["metadata"] = dict(metadata)
            worker.state.keep_metadata(metadata)
        self._claim(worker)
        try:
            worker.write_row_now(forget=row is not None)
        except BaseException:
            worker.give_up_claim()
            raise
        self._enter(worker, WorkerStatus.RUNNING)
        return worker

    def begin(self, worker: Any, job_id: str | None, seconds: float | None) -> None:
        """A new one-shot execution, which may take so long; its row is written with its first item."""
        worker.about = {"named": job_id is not None, **worker.joins.about()}
        if seconds is not None:
            worker.about |= {"seconds": seconds, "until": self._engine.driver.clock.time() + seconds}
        worker.put_row_off()
        self._claim(worker)

    def _claim(self, worker: JournaledWorker) -> None:
        self._journal.store.claim(worker.worker_id)
        self._claimed[worker] = None
        worker.on_given_up = partial(self._claimed.pop, worker, None)

    def execution(self, flow: Flow, job_id: str, on_flow_change: str) -> Any:
        """The state of the execution of this job, opened if it has not finished; None if the store has none."""
        stored = self._journal.store.job(job_id)
        row = None if stored is None else self._journal.store.worker(stored.row.worker_id)
        if stored is None or row is None:
            return None
        live = self._engine.workers.get(row.worker_id)
        if live is not None:
            return live.state
        finished = row.status == "stopped"
        check_row(row, flow, "execution", "adopt" if finished else on_flow_change)
        if not finished:
            return self._open(flow, row).state
        worker: JournaledWorker = self._create(flow, row.worker_id, one_shot=True)
        worker.revival.look_at(row, stored)
        return worker.state

    def _open(self, flow: Flow, row: WorkerRow, *, pause: bool = False) -> JournaledWorker:
        worker: JournaledWorker = self._create(flow, row.worker_id, one_shot=row.kind == "execution")
        self._claim(worker)
        worker.hold()
        paused = pause or row.status == "paused"
        try:
            worker.revival.open(row)
            if paused and row.status != "paused":
                worker.pause_on_record()
            worker.revival.set_strangers_aside()
        except BaseException:
            worker.close()
            worker.give_up_claim()
            raise
        if worker.one_shot and not worker.stopped and worker.state.job is None:  # type: ignore[attr-defined]
            self._find_job(worker)
        if worker.stopped:  # nothing of its one job was left
            return worker
        self._enter(worker, WorkerStatus.PAUSED if paused else WorkerStatus.RUNNING)
        if worker.one_shot:
            job = worker.state.job  # type: ignore[attr-defined]
            status = ExecutionStatus.PAUSED if paused else ExecutionStatus(job.status.value)
            worker.set_status(status)
            worker.limit_time()
        worker.joins.open()
        worker.backlog.load_all()
        if not paused:
            worker.release()
        return worker

    def _find_job(self, worker: JournaledWorker) -> None:
        """The process died when the job of an execution had ended and its worker had not, or before it had one."""
        for stored in self._journal.store.jobs(worker_id=worker.worker_id, limit=1):
            worker.revival.adopted(stored)
            return
        worker.state.status = ExecutionStatus.CANCELLED
        worker.close()

    def recover(
        self, find_flow: Callable[[str], Flow | None], on_flow_change: str, *, paused: bool
    ) -> Recovered:
        """Open every unfinished worker whose flow is known; ``paused``: standing still."""
        recovered = Recovered()
        recovered.not_reopened = []
        for row in self._journal.store.workers():
            if row.status == "stopped" or row.worker_id in self._engine.workers:
                continue
            flow = find_flow(row.flow_id)
            try:
                if flow is None:
                    raise StoreError(
                        f"flow {row.flow_id!r} is not registered; give it: recover(flows=[flow]), or register it "
                        "first: FlowRegistry.get_instance().register(flow)"
                    )
                check_row(row, flow, row.kind, on_flow_change)
                recovered.append(self._open(flow, row, pause=paused).state)
            except RoutiluxError as error:
                reason = str(error) if flow is None else describe(error)
                recovered.not_reopened.append(NotReopened(row.worker_id, row.flow_id, reason))
        return recovered

    # -- jobs ----------------------------------------------------------------------------------------------

    def job(self, job_id: str, find_flow: Callable[[str], Flow | None]) -> JobContext | None:
        stored = self._journal.store.job(job_id)
        return None if stored is None else self._shown(stored, find_flow)

    def jobs(
        self,
        find_flow: Callable[[str], Flow | None],
        *,
        status: str | None,
        flow_id: str | None,
        worker_id: str | None,
        parked: bool | None,
        limit: int | None,
        after: tuple[float, str] | None,
    ) -> list[JobContext]:
        """What the store has, with what is live in place of what is stored."""
        self._journal.flush()
        statuses = None if status is None else [status] if status != "running" else ["running", "pending"]
        found: list[JobContext] = []
        while limit is None or len(found) < limit:
            page = self._journal.store.jobs(
                flow_id=flow_id, worker_id=worker_id, statuses=statuses, has_items=parked or None, after=after,
                limit=limit,
            )  # fmt: skip
            shown = [
                self._engine.book.jobs.get(one.row.job_id) or self._shown(one, find_flow) for one in page
            ]
            found += [
                job for job in shown if status in (None, job.status) and parked in (None, job.parked > 0)
            ]
            if limit is None or len(page) < limit:
                break
            after = page[-1].row.created_at, page[-1].row.job_id
        return found[:limit]

    def _shown(self, stored: StoredJob, find_flow: Callable[[str], Flow | None]) -> JobContext:
        """A job that does not live here, as it was last written."""
        job = rows.detached_job(self._journal.codec, self._journal.store, self._engine.driver, stored)
        if job.left:
            job.blocked = self._blocked(stored.row.worker_id, find_flow(stored.row.flow_id))
        return job

    def _blocked(self, worker_id: str, flow: Flow | None) -> str | None:
        """Why nothing can go on with a job that waits in the store."""
        row = self._journal.store.worker(worker_id)
        if flow is None or row is None:
            return None
        return None if row.fingerprint == flow.fingerprint() else "flow changed"

    # -- dead letters --------------------------------------------------------------------------------------

    def letters(self, worker_id: str | None, job_id: str | None) -> list[DeadLetter]:
        self._journal.flush()
        found = self._journal.store.letters(worker_id=worker_id, job_id=job_id)
        return [rows.letter_of(self._journal.codec, row) for row in found]

    # -- what killed the process ---------------------------------------------------------------------------

    def _count_deaths(self) -> None:
        """Remember on which items activations ran when the process that had the store before died."""
        suspects = rows.suspects_of(self._journal.store.suspects())
        known = [ItemKey(*row[:3]) for row in self._journal.store.items_of(suspects)]
        record = rows.deaths_record(self._journal, known)
        if record is not None:
            self._journal.written_or_raise(record, partial(self._journal.hand_over, record))

    # -- the end -------------------------------------------------------------------------------------------

    def is_over(self, worker: Any) -> bool:
        """Whether no caller has named a worker, and it holds nothing to go on with."""
        if worker.about.get("named") or worker.jobs or worker.queue.paused or worker.unreleased:
            return False
        try:
            return not self._journal.store.places(worker.worker_id)
        except StoreError:
            return False

    def close(self, deadline: float | None) -> bool:
        """Write what was handed over; False if the store did not take it until the deadline. Others may run the
        workers then all the same: what was not written is not known to any caller."""
        ended = self._journal.close(deadline)
        for worker in list(self._claimed):
            worker.give_up_claim()
        return ended

    def close_store(self) -> None:
        """It belongs to the runtime, which has ended. A call that the store does not answer is not waited for."""
        store = self._journal.store
        if self._journal.has_ended:
            self._journal.store = _Closed(store.name)
            store.close()
        else:
            Thread(target=store.close, name="routilux-close", daemon=True).start()
