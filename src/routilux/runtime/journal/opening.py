"""Which workers and jobs a store holds: starting, opening and recovering them, and looking at them from outside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple

from routilux.errors import (
    DuplicateNameError,
    RuntimeClosedError,
    StoreCorruptError,
    StoreDataError,
    StoreError,
    StoreLockedError,
    again,
    describe,
)
from routilux.model.item import DeadLetter
from routilux.model.status import ExecutionStatus, JobStatus, WorkerStatus
from routilux.ports import FLOOR, Death, ItemKey, StoredJob, WorkerRow
from routilux.runtime.directory import not_an_execution
from routilux.runtime.job import JobContext
from routilux.runtime.journal import rows
from routilux.runtime.journal.commands import Desk, Kinds
from routilux.runtime.journal.following import LOOK_SECONDS, FollowedJob, FollowedState
from routilux.runtime.journal.reopening import OPEN, check_kind, check_row
from routilux.runtime.journal.state import JournaledJobState, JournaledWorkerState
from routilux.runtime.journal.worker import JournaledWorker

if TYPE_CHECKING:
    from routilux.model.flow import Flow
    from routilux.runtime.engine import Engine
    from routilux.runtime.state import WorkerState
    from routilux.runtime.waiting import Waits


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

    only_read = None

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, call: str) -> Any:
        raise RuntimeClosedError(
            f"this runtime has been shut down, and has closed {self.name}: what is only there cannot be read here any "
            "more; create a new Runtime with that store"
        )


def create(
    engine: Engine,
    flow: Flow,
    worker_id: str,
    one_shot: bool,
    kind: type[JournaledJobState] = JournaledJobState,
) -> JournaledWorker:
    """A worker that is not yet known to any caller; ``kind`` is that of the state of an execution."""
    clock = engine.driver.clock
    state = (kind if one_shot else JournaledWorkerState)(
        worker_id, flow.flow_id, clock=clock.monotonic, wall_time=clock.time
    )
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
        kinds: Kinds,
    ) -> None:
        assert engine.journal is not None
        self._engine = engine
        self._journal = engine.journal
        self._create = create
        self._enter = enter
        self._claimed: dict[str, JournaledWorker] = {}
        commands = self._journal.store.commands
        self.desk = None if commands is None else Desk(engine, self._journal, commands, kinds)

    # -- workers -------------------------------------------------------------------------------------------

    def start(
        self, flow: Flow, worker_id: str | None, on_flow_change: str, metadata: Mapping[str, Any]
    ) -> JournaledWorker:
        """A new worker, or the one that the store holds unfinished."""
        if worker_id in self._engine.directory.elsewhere:
            return self._elsewhere(flow, worker_id, on_flow_change)
        try:
            worker, row = self._claimed_for(flow, worker_id, one_shot=False)
        except StoreLockedError:
            if worker_id is None or self.desk is None:
                raise
            return self._elsewhere(flow, worker_id, on_flow_change)
        if row is not None and row.status != "stopped":
            return self._open(worker, row, "worker", on_flow_change)
        try:
            self._begin_life(worker, row, "worker", named=worker_id is not None)
            if metadata:
                where = f"metadata of worker {worker.worker_id!r}"
                worker.metadata_form = worker.encode(dict(metadata), where)
                worker.state.keep_metadata(worker.decode(worker.metadata_form, where))
            worker.write_row_now()
        except BaseException:
            worker.give_up_claim()
            raise
        self._enter(worker, WorkerStatus.RUNNING)
        return worker

    # -- workers that other runtimes run -------------------------------------------------------------------

    def _elsewhere(self, flow: Flow, worker_id: str, on_flow_change: str) -> JournaledWorker:
        """A worker that is asked by commands, until this runtime can claim it."""
        known: Any = self._engine.directory.elsewhere.get(worker_id)
        row = self._journal.store.worker(worker_id)
        if row is not None and row.status != "stopped":
            check_row(row, flow, "worker", on_flow_change)
        if known is not None:
            return known  # type: ignore[no-any-return]
        worker: JournaledWorker = self._create(flow, worker_id, one_shot=False)
        self._engine.driver.start()
        self._stand_by(worker, row)
        assert self.desk is not None
        self.desk.apply_for(worker_id, partial(self._apply, self.desk, worker_id, on_flow_change))
        return worker

    def _stand_by(self, worker: JournaledWorker, row: WorkerRow | None) -> None:
        """From here on the worker stands for one that another runtime runs."""
        worker.is_elsewhere = True
        worker.hold()
        _show(worker, row)
        worker.flow.hold(worker.worker_id)
        self._engine.directory.elsewhere[worker.worker_id] = worker
        self._engine.directory.enter(worker)

    def _apply(self, desk: Desk, worker_id: str, on_flow_change: str) -> bool:
        """Run the worker here if no other runtime does any more; True when there is nothing left to try."""
        worker: Any = self._engine.directory.elsewhere.get(worker_id)
        if worker is None or worker.stopped:
            return True
        try:
            if desk.runner(worker.worker_id) is not None:
                _show(worker, self._journal.store.worker(worker.worker_id))
                return False
            row = self._claim(worker)
        except StoreError:
            return False
        except RuntimeClosedError:
            return True
        if row is None or row.status == "stopped":
            worker.give_up_claim()
            self.let_go(worker)  # who ran it has stopped it for good
            return True
        try:
            self._open(worker, row, "worker", on_flow_change)
        except RuntimeClosedError:
            pass
        except Exception as error:  # noqa: BLE001 as in recover()
            if isinstance(error, StoreError) and not isinstance(error, (StoreCorruptError, StoreDataError)):
                self._stand_by(_renewed(worker), row)
                return False
            self._engine.warn(f"worker {worker.worker_id!r} cannot be taken over: {describe(error)}")
        self._engine.directory.elsewhere.pop(worker.worker_id, None)
        worker.is_elsewhere = False
        return True

    def let_go(self, worker: JournaledWorker) -> None:
        """This runtime has nothing to do any more with a worker that another one runs."""
        self._engine.directory.elsewhere.pop(worker.worker_id, None)
        worker.close()

    def begin(
        self, flow: Flow, worker_id: str | None, job_id: str | None, seconds: float | None
    ) -> JournaledWorker:
        """A new one-shot execution, which may take so long; its row is written with its first item."""
        worker, row = self._claimed_for(flow, worker_id, one_shot=True)
        try:
            if row is not None and row.status != "stopped":
                check_kind(row, "execution")
                raise _is_taken(row)
            self._begin_life(worker, row, "execution", named=worker_id is not None)
        except BaseException:
            worker.give_up_claim()
            raise
        worker.about["named"] = job_id is not None
        if seconds is not None:
            worker.about |= {"seconds": seconds, "until": self._engine.driver.clock.time() + seconds}
        return worker

    def _claimed_for(
        self, flow: Flow, worker_id: str | None, *, one_shot: bool
    ) -> tuple[JournaledWorker, WorkerRow | None]:
        """A worker that is to run here, and what the store has under its id. No id that is made up is there."""
        drawn: set[str] = set()
        while True:
            worker: JournaledWorker = self._create(flow, worker_id, one_shot=one_shot)
            row = self._claim(worker)
            if row is None or worker_id is not None:
                return worker, row
            worker.give_up_claim()
            if worker.worker_id in drawn:
                raise DuplicateNameError(
                    f"{self._journal.store.name} has worker_id {worker.worker_id!r}, which is made up again and again; "
                    "give one",
                    worker_id=worker.worker_id,
                )
            drawn.add(worker.worker_id)

    def _claim(self, worker: JournaledWorker) -> WorkerRow | None:
        """From here on this runtime alone writes the worker; what the store has of it is read only now.

        Raises StoreLockedError where it is run elsewhere, and what ended this runtime where something has. One that has
        just stopped here is waited for.
        """
        worker_id = worker.worker_id
        leaving = self._claimed.get(worker_id)
        if leaving is not None and leaving.stopped:
            gone = lambda: self._claimed.get(worker_id) is not leaving or self._journal.over is not None  # noqa: E731
            self._engine.bell.wait_for(gone, None)
        self._journal.store.claim(worker_id)
        self._journal.store.when_lost(worker_id, partial(self._journal.lose, worker))
        if self.desk is not None:
            self.desk.open()
        worker.on_given_up = partial(self._given_up, worker)
        worker.is_claimed = True
        self._claimed[worker_id] = worker
        try:
            if self._journal.over is not None:  # who ended it may not have seen this claim
                raise again(self._journal.over)
            return self._journal.store.worker(worker_id)
        except BaseException:
            worker.give_up_claim()
            raise

    def _given_up(self, worker: JournaledWorker) -> None:
        if self._claimed.get(worker.worker_id) is worker:
            del self._claimed[worker.worker_id]
        self._engine.bell.ring()

    def _begin_life(
        self, worker: JournaledWorker, former: WorkerRow | None, kind: str, *, named: bool
    ) -> None:
        """Its numbers begin where none of its name were used, not even by one whose row was removed since: what is made
        of them, such as the keys that others know effects by, is never given twice."""
        first = 1
        if named:
            first = max(first, int(self._journal.store.properties().get(FLOOR, 0)))
        if former is not None:
            check_kind(former, kind)
            first = max(first, former.next_number)
        worker.begin_life(first, former, named=named)

    def execution(self, flow: Flow, job_id: str, on_flow_change: str) -> Any:
        """The state of the execution of this job, opened if it has not finished; None if the store has none.

        One that is run elsewhere is only shown, and followed as far as it is waited for.
        """
        stored = self._journal.store.job(job_id)
        if stored is None:
            return None
        worker_id = stored.row.worker_id
        with self._engine.names.held("worker", worker_id):
            live: Any = self._engine.workers.get(worker_id)
            if live is not None and live.one_shot and live.state.job_id == job_id:
                return live.state
            row = self._journal.store.worker(worker_id)
            if stored.row.flow_id != flow.flow_id or (row is not None and row.kind != "execution"):
                raise not_an_execution(stored.row, flow)
            if row is None or row.status == "stopped" or not self._is_of(row, stored):
                return self._shown(flow, row, job_id)
            worker: JournaledWorker = self._create(flow, worker_id, one_shot=True)
            try:
                row = self._claim(worker)
            except StoreLockedError:
                return self._followed(flow, stored, on_flow_change)
            if row is not None and row.status != "stopped":
                return self._open(worker, row, "execution", on_flow_change).state
            worker.give_up_claim()  # it has ended since
            return self._shown(flow, row, job_id)

    def _is_of(self, row: WorkerRow, stored: StoredJob) -> bool:
        """Whether a job is one of the worker of this row, and not of a former one of its name."""
        first_number: int = rows.about_of(self._journal.codec, row).get("first_number", 0)
        return stored.row.serial >= first_number

    def _open(
        self,
        worker: JournaledWorker,
        row: WorkerRow,
        kind: str,
        on_flow_change: str,
        *,
        pause: bool = False,
    ) -> JournaledWorker:
        """Make the worker that was claimed from its row, and let it go on; or raise, and it is left as it was."""
        try:
            check_row(row, worker.flow, kind, on_flow_change)
            worker.hold()
            self._make(worker, row, pause=pause)
        except BaseException:
            worker.close()  # which gives it back behind all that it has written
            raise
        return worker

    def _make(self, worker: JournaledWorker, row: WorkerRow, *, pause: bool) -> None:
        paused = pause or row.status == "paused"
        self._count_deaths(worker)
        worker.revival.open(row)
        if paused and row.status != "paused":
            worker.pause_on_record()
        worker.revival.set_strangers_aside()
        if worker.one_shot and not self._goes_on(worker):
            return
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

    def _goes_on(self, worker: JournaledWorker) -> bool:
        """Whether the job of an execution has not ended; where it has, so does the worker, which did not come to that
        when its process died. One without a job was stopped before it had any."""
        state: Any = worker.state
        if state.job is None:
            for stored in self._journal.store.jobs(worker_id=worker.worker_id):
                if stored.row.serial >= worker.about.get("first_number", 0):
                    worker.revival.adopted(stored)
        if state.job is not None and not state.job.status.finished:
            return True
        state.status = (
            ExecutionStatus.CANCELLED if state.job is None else ExecutionStatus(state.job.status.value)
        )
        worker.close()
        return False

    def recover(
        self, find_flow: Callable[[str], Flow | None], on_flow_change: str, *, paused: bool, wait: bool
    ) -> Recovered:
        """Open every unfinished worker whose flow is known; ``paused``: standing still; ``wait``: those that other
        runtimes run as soon as they do not."""
        recovered = Recovered()
        recovered.not_reopened = []
        for row in self._journal.store.workers():
            if row.status == "stopped" or row.worker_id in self._engine.directory.elsewhere:
                continue
            flow = find_flow(row.flow_id)
            try:
                if flow is None:
                    raise StoreError(
                        f"flow {row.flow_id!r} is not registered; give it: recover(flows=[flow]), or register it "
                        "first: FlowRegistry.get_instance().register(flow)"
                    )
                try:
                    recovered += self._recovered(flow, row, on_flow_change, paused=paused)
                except StoreLockedError:
                    if not wait or row.kind != "worker" or self.desk is None:
                        raise
                    recovered.append(self._elsewhere(flow, row.worker_id, on_flow_change).state)
            except Exception as error:  # noqa: BLE001 what is damaged, or code of registered types, may raise anything
                reason = str(error) if flow is None else describe(error)
                recovered.not_reopened.append(NotReopened(row.worker_id, row.flow_id, reason))
        return recovered

    def _recovered(
        self, flow: Flow, row: WorkerRow, on_flow_change: str, *, paused: bool
    ) -> list[WorkerState]:
        """The state of a worker that was listed as unfinished; nothing if it is live here, or has ended since."""
        with self._engine.names.held("worker", row.worker_id):
            if row.worker_id in self._engine.workers:
                return []
            worker: JournaledWorker = self._create(flow, row.worker_id, one_shot=row.kind == "execution")
            claimed = self._claim(worker)
            if claimed is None or claimed.status == "stopped":
                worker.give_up_claim()
                return []
            return [self._open(worker, claimed, row.kind, on_flow_change, pause=paused).state]

    # -- executions that are not run here --------------------------------------------------------------------

    def _shown(self, flow: Flow, row: WorkerRow | None, job_id: str) -> WorkerState | None:
        """An execution that has ended by its row, which was read before its job; None if it is forgotten by now.

        What its routines have left is gone when a later one has its name.
        """
        stored = self._journal.store.job(job_id)
        if stored is None:
            return None
        if not JobStatus(stored.row.status).finished:
            raise StoreCorruptError(
                f"{self._journal.store.name} has job {stored.row.job_id!r} as {stored.row.status}, and no worker that "
                "goes on with it; repair the store",
                worker_id=stored.row.worker_id,
                job_id=stored.row.job_id,
            )
        worker = create(self._engine, flow, stored.row.worker_id, one_shot=True)
        job = rows.detached_job(self._journal, stored)
        worker.revival.look_at(job, with_states=row is not None and self._is_of(row, stored))
        return worker.state

    def _followed(self, flow: Flow, stored: StoredJob, on_flow_change: str) -> WorkerState:
        """An execution that another runtime runs."""
        job_id, worker_id = stored.row.job_id, stored.row.worker_id
        job = rows.new_detached(self._journal, FollowedJob, job_id, worker_id, flow.flow_id)
        worker = create(self._engine, flow, worker_id, one_shot=True, kind=FollowedState)

        def changed() -> None:
            worker.revival.look_at(job, with_states=job.account.status.finished)

        def ask() -> JobContext:
            state = self.execution(flow, job_id, on_flow_change)
            return job if state is None else state.job

        job.follow(self._journal, ask, changed)
        return worker.state

    # -- jobs ----------------------------------------------------------------------------------------------

    def job(self, job_id: str, find_flow: Callable[[str], Flow | None]) -> JobContext | None:
        stored = self._journal.store.job(job_id)
        if stored is None:
            return None
        is_open = not JobStatus(stored.row.status).finished and self.is_reached(stored.row.worker_id)
        return self.followed(*stored.row[:3]) if is_open else self._detached(stored, find_flow)

    def stored_worker(self, worker_id: str) -> WorkerRow | None:
        return self._journal.store.worker(worker_id)

    def has_open_jobs_elsewhere(self) -> bool:
        """Whether workers that other runtimes run for this one too have jobs that have not ended."""
        workers = list(self._engine.directory.elsewhere)
        store = self._journal.store
        return any(store.jobs(worker_id=worker_id, statuses=OPEN, limit=1) for worker_id in workers)

    def waits_for_news(self, deadline: float | None) -> Waits[bool]:
        """Of workers that other runtimes run; False at the deadline."""
        left = LOOK_SECONDS if deadline is None else min(LOOK_SECONDS, deadline - self._engine.now())
        if left <= 0:
            return False
        yield self._engine.driver.signal(), left, None
        return True

    def is_reached(self, worker_id: str) -> bool:
        """Whether another runtime runs the worker, and can be asked."""
        return (
            self.desk is not None
            and worker_id not in self._claimed
            and self.desk.runner(worker_id) is not None
        )

    def is_being_begun(self, worker_id: str) -> bool:
        """Whether of a worker that another runtime has claimed nothing is written yet that goes on."""
        row = self._journal.store.worker(worker_id)
        return row is None or row.status == "stopped"

    def followed(self, job_id: str, worker_id: str, flow_id: str) -> FollowedJob:
        """A job of a worker that another runtime runs."""
        job = rows.new_detached(self._journal, FollowedJob, job_id, worker_id, flow_id)
        with suppress(StoreError):  # it was accepted; the next look shows how it is
            job.follow(self._journal, lambda: self._engine.book.jobs.get(job_id, job))
        return job

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
                self._engine.book.jobs.get(one.row.job_id) or self._detached(one, find_flow) for one in page
            ]
            found += [
                job for job in shown if status in (None, job.status) and parked in (None, job.parked > 0)
            ]
            if limit is None or len(page) < limit:
                break
            after = page[-1].row.created_at, page[-1].row.job_id
        return found[:limit]

    def _detached(self, stored: StoredJob, find_flow: Callable[[str], Flow | None]) -> JobContext:
        """A job that does not live here, as it was last written."""
        job = rows.detached_job(self._journal, stored)
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

    def _count_deaths(self, worker: JournaledWorker) -> None:
        """Hold the deaths of processes against the items of this worker that they ran. A process that dies before that
        is written leaves it to the next one."""
        places = {prefix: place for place, prefix in worker.flight_texts.items()}
        found: list[tuple[Death, dict[str, ItemKey]]] = []
        for death in self._journal.store.deaths():
            suspects = rows.suspects_of(death.texts)
            if len(suspects) < len(death.texts):
                death.clear(set(death.texts).difference(suspects))
            keys = {text: rows.flight_key(worker.worker_id, places, text) for text in suspects}
            ours = {text: key for text, key in keys.items() if key is not None}
            if ours:
                found.append((death, ours))
        deaths = Counter(key for _, ours in found for key in ours.values())
        there = [ItemKey(*row[:3]) for row in self._journal.store.items_of(list(deaths))]
        if there:
            record = rows.deaths_record(worker, {key: deaths[key] for key in there})
            self._journal.written_or_raise(record, partial(self._journal.hand_over, record))
        for death, ours in found:
            death.clear(ours)

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
        if self.desk is not None:
            self.desk.close(deadline)
        for applicant in list(self._engine.directory.elsewhere.values()):
            self.let_go(applicant)  # type: ignore[arg-type]
        ended = self._journal.close(deadline)
        for worker in list(self._claimed.values()):
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


def _renewed(worker: JournaledWorker) -> JournaledWorker:
    """In place of a worker that could not be opened now, and has ended over that: its callers keep its state."""
    renewed = JournaledWorker(worker.engine, worker.flow, worker.state)
    for routine_id, node in worker.nodes.items():
        renewed.nodes[routine_id].runner = node.runner
    worker.state.control = renewed
    return renewed


def _show(worker: JournaledWorker, row: WorkerRow | None) -> None:
    """Let the state of a worker that runs elsewhere say what the store does."""
    is_paused = row is not None and row.status == "paused"
    worker.state.status = WorkerStatus.PAUSED if is_paused else WorkerStatus.RUNNING


def _is_taken(row: WorkerRow) -> DuplicateNameError:
    return DuplicateNameError(
        f"worker_id {row.worker_id!r} is taken by an unfinished execution of flow {row.flow_id!r} in the store; give "
        "another id, or go on with that one: exec() with its job_id, or recover()",
        worker_id=row.worker_id,
    )
