"""Who is there: flows, workers, jobs and routines by their names and ids, and what to say where one is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from routilux.errors import InvalidTypeError, StateError, WorkerNotRunningError, shown, unknown
from routilux.model.flow import Flow
from routilux.model.registry import FlowRegistry
from routilux.ports import JobRow
from routilux.runtime.job import JobContext
from routilux.runtime.state import JobState, WorkerState

if TYPE_CHECKING:
    from routilux.runtime.engine import Engine
    from routilux.runtime.nodes import Node
    from routilux.runtime.worker import Worker


def job_left(job: JobContext, call: str) -> StateError:
    why = "" if job.blocked is None else f", blocked ({job.blocked})"
    return StateError(
        f"{call}: job {job.job_id!r} is {job.status}{why} and does not run in this runtime; worker {job.worker_id!r} "
        f"of flow {job.flow_id!r} keeps it in the store, or runs it in another process. Open that worker here with "
        "runtime.recover() or runtime.exec(), and call it again",
        job_id=job.job_id,
        worker_id=job.worker_id,
        flow_id=job.flow_id,
    )


def not_an_execution(job: JobContext | JobRow, flow: Flow) -> StateError:
    return StateError(
        f"job {job.job_id!r} is one of worker {job.worker_id!r} of flow {job.flow_id!r}, not an execution of flow "
        f"{flow.flow_id!r}; give another job_id",
        job_id=job.job_id,
    )


def job_ended(job: JobContext) -> StateError:
    job_id = job.job_id
    return StateError(f"job {job_id!r} is {job.status}; post with a new job_id, or with none", job_id=job_id)


class Directory:
    """Safe from any thread."""

    def __init__(self, engine: Engine, registry: FlowRegistry | None) -> None:
        self._engine = engine
        self._registry = FlowRegistry.get_instance() if registry is None else registry
        self._by_flow: dict[str, tuple[Worker, ...]] = {}  # those that take jobs
        self.elsewhere: dict[str, Worker] = {}  # that other runtimes run
        self._given: WeakValueDictionary[str, Flow] = WeakValueDictionary()  # also what was refused
        self._lock = engine.driver.lock()

    def enter(self, worker: Worker) -> None:
        """From here on jobs can be posted to this worker."""
        with self._lock:
            known = self._by_flow.get(worker.flow_id, ())
            if worker not in known:
                self._by_flow[worker.flow_id] = (*known, worker)

    def leave(self, worker: Worker) -> None:
        with self._lock:
            left = tuple(other for other in self._by_flow.get(worker.flow_id, ()) if other is not worker)
            if left:
                self._by_flow[worker.flow_id] = left
            else:
                self._by_flow.pop(worker.flow_id, None)

    def flow(self, flow: str | Flow) -> Flow:
        if isinstance(flow, Flow):
            return flow
        if not isinstance(flow, str):
            raise InvalidTypeError(
                f"a flow is given by its registered name or as a Flow, got {type(flow).__name__}: {shown(flow)}"
            )
        return self._registry.get(flow)

    def give(self, flow: Flow) -> None:
        """The runtime has been given this flow, which may not fit what the store has."""
        self._given[flow.flow_id] = flow

    def given_flow(self, flow_id: str) -> Flow | None:
        """The one that was given last under this id, or else :meth:`known_flow`."""
        return self._given.get(flow_id) or self.known_flow(flow_id)

    def known_flow(self, flow_id: str) -> Flow | None:
        """The flow that is registered under this id, or runs here."""
        if flow_id in self._registry:
            return self._registry.get(flow_id)
        return next((worker.flow for worker in self._all() if worker.flow_id == flow_id), None)

    def check_known(self, flow: str | Flow | None, worker: str | WorkerState | None) -> None:
        """Refuse names that nothing has: no flow or worker that was there, and no job that is kept."""
        jobs = list(self._engine.book.jobs.values())
        if isinstance(flow, str) and all(job.flow_id != flow for job in jobs):
            self._posted_to(flow)
        if isinstance(worker, str) and all(job.worker_id != worker for job in jobs):
            self.worker(worker)

    def check_job(self, job_id: object) -> None:
        """Refuse the id of a job that has never been here. Where jobs were forgotten, any may have been one of them."""
        book = self._engine.book
        if not isinstance(job_id, str) or not (job_id in book.jobs or book.has_forgotten):
            raise unknown("job", job_id, list(book.jobs), where="in this runtime")

    def worker_of(self, flow: str | Flow, worker_id: str | None) -> Worker:
        """The worker that a post goes to."""
        flow_id = flow if isinstance(flow, str) else self.flow(flow).flow_id
        if worker_id is None:
            workers = self._by_flow.get(flow_id) or self._by_flow.get(self._posted_to(flow).flow_id, ())
            if len(workers) != 1:
                raise self._not_one(flow, flow_id, workers)
            if not workers[0].takes_posts:
                raise self.not_running(workers[0])
            return workers[0]
        worker = self.worker(worker_id)
        if not worker.takes_posts or worker.one_shot:
            raise self.not_running(worker)
        if flow_id != worker.flow.flow_id and self.flow(flow) is not worker.flow:
            raise StateError(
                f"worker {worker_id!r} runs flow {worker.flow.flow_id!r}, not {flow_id!r}; give the id of a worker "
                "of that flow",
                worker_id=worker_id,
            )
        return worker

    def _posted_to(self, flow: str | Flow) -> Flow:
        """The flow of a post, when no worker of that id takes jobs: the ids of flows that ran count as known."""
        if not isinstance(flow, str) or flow in self._registry:
            return self.flow(flow)
        seen = {worker.flow_id: worker.flow for worker in self._all()}
        if flow in seen:
            return seen[flow]
        known = sorted({*self._registry.list_flows(), *seen})
        fix = "start it with runtime.exec(flow), and post to the flow or to its id"
        raise unknown("flow", flow, known, where="in the registry or in this runtime", fix=fix, flow_id=flow)

    def _all(self) -> list[Worker]:
        return [*self._engine.stopped.values(), *self._engine.workers.values()]

    def _fix(self, flow: Flow | None, name: str) -> str:
        """How to start the flow: by its name only where the registry knows it by that."""
        known = name in self._registry and flow in (None, self._registry.get(name))
        return f"runtime.exec({name!r})" if known else "runtime.exec(flow)"

    def _not_one(self, flow: str | Flow, flow_id: str, workers: Sequence[Worker]) -> BaseException:
        if self._engine.only_read is not None:
            return self._engine.only_read
        if not workers:
            fix = self._fix(flow if isinstance(flow, Flow) else None, flow_id)
            own = self._posted_to(flow).flow_id
            old = [worker for worker in self._all() if worker.flow_id == own and not worker.one_shot]
            why = "; its worker has stopped" if len(old) == 1 else "; its workers have stopped" if old else ""
            again = "again" if old else "first"
            return WorkerNotRunningError(
                f"flow {flow_id!r} has no worker{why}; call {fix} {again}", flow_id=flow_id
            )
        ids = sorted(worker.worker_id for worker in workers)
        return StateError(
            f"flow {flow_id!r} has {len(ids)} workers: {', '.join(ids)}; say which with worker_id=",
            flow_id=flow_id,
            known=ids,
        )

    def not_running(self, worker: Worker) -> WorkerNotRunningError:
        why = "runs just one job" if worker.one_shot and not worker.stopped else "has stopped"
        if worker.failure is not None:
            why = f"has been given up ({worker.failure})"
        flow_id = worker.flow.flow_id
        return WorkerNotRunningError(
            f"worker {worker.worker_id!r} of flow {flow_id!r} {why}; call {self._fix(worker.flow, flow_id)} for one "
            "that takes jobs",
            worker_id=worker.worker_id,
            flow_id=flow_id,
        )

    def check_runs(self, worker: Worker) -> None:
        if worker.stopped:
            raise self.not_running(worker)

    def check_takes(self, worker: Worker) -> None:
        """Refuse a post that has begun, and whose worker or runtime has stopped since."""
        if worker.closing or worker.stopped:
            self._engine.check_open("post()")
            raise self.not_running(worker)

    def worker_that_runs(self, job: JobContext, call: str) -> Worker:
        """The worker in which an unfinished job goes on. Raises StateError if that is not in this runtime."""
        worker = self._engine.workers.get(job.worker_id) or self._engine.stopped.get(job.worker_id)
        if worker is not None and not job.left:
            return worker
        raise self._engine.only_read or job_left(job, call)

    def unknown_place(self, worker: Worker, routine_id: Any, slot: Any) -> Exception:
        routine = worker.flow.routines.get(routine_id) if isinstance(routine_id, str) else None
        if routine is None:
            return unknown(
                "routine", routine_id, worker.flow.routines, where=f"in flow {worker.flow.flow_id!r}"
            )
        return routine.unknown_slot(slot)

    def worker(self, worker_id: str) -> Worker:
        worker = None
        if isinstance(worker_id, str):
            worker = self.found(worker_id)
        if worker is None:
            known = [*self._engine.workers, *self.elsewhere, *self._engine.stopped]
            raise self._engine.only_read or unknown("worker", worker_id, known, where="in this runtime")
        return worker

    def found(self, worker_id: str) -> Worker | None:
        engine = self._engine
        return engine.workers.get(worker_id) or self.elsewhere.get(worker_id) or engine.stopped.get(worker_id)

    def live(self, target: str | WorkerState) -> Worker:
        """A worker that has not stopped."""
        found = self.target(target)
        if isinstance(found, JobContext) or found.stopped:
            raise StateError(f"{target!r} is not a live worker")
        return found

    def node(self, worker: Worker, routine_id: str) -> Node:
        node = worker.nodes.get(routine_id)
        if node is None:
            raise self.unknown_place(worker, routine_id, None)
        return node

    def target(self, target: Any) -> Worker | JobContext:
        """A worker or a job, given as its state or by its id."""
        engine = self._engine
        if isinstance(target, JobContext):
            return self._job(target.job_id) or target
        if isinstance(target, WorkerState):
            own_job = target.job if isinstance(target, JobState) else None
            if own_job is not None and self.found(target.worker_id) is None:
                return own_job  # of an execution that is run elsewhere, or has ended
            return self.worker(target.worker_id)
        if not isinstance(target, str):
            raise InvalidTypeError(
                "expected a WorkerState, a JobContext or the id of either, "
                f"got {type(target).__name__}: {shown(target)}"
            )
        job = self._job(target)
        if job is not None:
            return job
        if self.found(target) is not None:
            return self.worker(target)
        known = [*engine.workers, *engine.book.jobs]
        raise self._engine.only_read or unknown(
            "job", target, known, where="and no worker of that id in this runtime"
        )

    def _job(self, job_id: str) -> JobContext | None:
        """A job as its worker here has it, though all of it may still wait in the store."""
        engine = self._engine
        known = engine.book.jobs.get(job_id)
        if known is not None or engine.journal is None:
            return known
        stored = engine.journal.store.job(job_id)
        worker = None if stored is None else engine.workers.get(stored.row.worker_id)
        return None if worker is None else worker.stored_job(job_id)
