"""The runtime: starts workers, takes jobs, waits, pauses, cancels, stops."""

from __future__ import annotations

import atexit
import os
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import count
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from routilux.errors import (
    DuplicateNameError,
    ExecutionTimeoutError,
    InvalidTypeError,
    InvalidValueError,
    RuntimeClosedError,
    StateError,
    StoreError,
    StoreLockedError,
    UnknownJobError,
    WorkerNotRunningError,
    refused,
    unknown,
)
from routilux.model.checks import (
    check_methods,
    checked_count,
    checked_flag,
    checked_id,
    checked_name_of,
    checked_timeout,
)
from routilux.model.context import left_behind, running
from routilux.model.flow import Flow
from routilux.model.item import DeadLetter, StoredForm
from routilux.model.registry import FlowRegistry
from routilux.model.status import ExecutionStatus, JobStatus, WorkerStatus
from routilux.ports import Gate, Observer, RowObserver, Store, Tap, TaskRunner, job_ids_of, load
from routilux.runtime import draining, turns
from routilux.runtime.book import FINISHED_BYTES
from routilux.runtime.directory import Directory, not_an_execution
from routilux.runtime.driver import ThreadDriver
from routilux.runtime.engine import Engine, Health
from routilux.runtime.failures import WARNING, write
from routilux.runtime.job import JobContext
from routilux.runtime.letters import LETTER_BYTES
from routilux.runtime.names import Names
from routilux.runtime.posting import (
    NameTaken,
    NoRoom,
    Post,
    Posted,
    Posting,
    Reply,
    check_metadata,
    checked_payload,
)
from routilux.runtime.process import GONE, elsewhere, forked, interrupts_itself
from routilux.runtime.remains import Remains
from routilux.runtime.state import JobState, WorkerState, begin_job
from routilux.runtime.waiting import (
    Lines,
    Waits,
    in_task,
    lines_of_running_loop,
    on_own_thread,
    on_this_thread,
    on_thread,
)
from routilux.runtime.worker import Worker

if TYPE_CHECKING:
    from routilux.runtime.capture import Capture
    from routilux.runtime.driver import Driver
    from routilux.runtime.journal.opening import Opener, Recovered
    from routilux.runtime.nodes import Node

MAX_THREADS = 1024
GRACE_SECONDS = 1.0  # for what still runs when a program is interrupted or ends
DRAINS, SHUT_DOWN = "is shutting down", "has been shut down"  # why nothing is accepted; interned


class Running(NamedTuple):
    """An activation whose logic runs, for this many seconds."""

    routine_id: str
    worker_id: str
    flow_id: str
    job_ids: tuple[str, ...]
    seconds: float


class Runtime:
    """Executes flows on one shared pool of threads and one event loop. Every method is safe from any thread.

    ``thread_pool_size``: threads for all workers, 1 to 1024, by default one per core. ``max_queue_size``: jobs
    that may have been accepted and not yet started; ``post`` waits beyond that. ``max_finished_bytes``: what finished
    jobs may keep in memory, by an estimate of their outputs, data, traces and errors, and of the states of one-shot
    executions; the oldest are forgotten first, and a store still has them. ``max_dead_letter_bytes``: what the dead
    letters of all workers may take in memory; the oldest are dropped, and the log says so. ``enable_monitoring``: keep
    a feed of what happens as ``runtime.monitor``. ``registry``: where names of flows are looked up, by default
    ``FlowRegistry.get_instance()``. ``store``: where every step is written, as a URL (``"sqlite:///routilux.db"``,
    ``"postgresql://…"``), which this runtime opens and closes, or an open ``Store``, which it does not close; None
    keeps everything in memory. ``durability``: what an acknowledged step of a store given by its URL survives,
    ``"full"``, the default, a power cut, ``"process"`` the end of the process. ``debug``: raise where a routine changes
    its own attributes, instead of warning. ``capture_logs``: keep with each job, as ``job.logs``, what its routines log
    with any logger, and let the handlers of the root logger see where it comes from. ``capture_prints``: keep there
    what they print, too; it is printed all the same.

    As a context manager it drains and stops at the end of the block, and stops without draining when the block
    is left by an exception. Workers that were given an id, and whatever is unfinished, are left in the store.

    Raises StoreError for a store that cannot be opened or written: StoreLockedError where another process has it,
    StoreCorruptError where it is damaged.
    """

    def __init__(
        self,
        *,
        thread_pool_size: int | None = None,
        max_queue_size: int = 1000,
        max_finished_bytes: int = FINISHED_BYTES,
        max_dead_letter_bytes: int = LETTER_BYTES,
        enable_monitoring: bool = False,
        registry: FlowRegistry | None = None,
        store: str | Store | None = None,
        durability: str = "full",
        debug: bool = False,
        capture_logs: bool = False,
        capture_prints: bool = False,
    ) -> None:
        switches = {
            "debug": debug,
            "enable_monitoring": enable_monitoring,
            "capture_logs": capture_logs,
            "capture_prints": capture_prints,
        }
        for name, switch in switches.items():
            checked_flag(f"Runtime({name})", switch)
        if registry is not None and not isinstance(registry, FlowRegistry):
            raise refused(InvalidTypeError, "Runtime(registry)", registry, "a FlowRegistry")
        size = os.cpu_count() or 1 if thread_pool_size is None else thread_pool_size
        self.thread_pool_size = checked_count("Runtime(thread_pool_size)", size, 1, MAX_THREADS)
        self.max_queue_size = checked_count("Runtime(max_queue_size)", max_queue_size, 1)
        self._own_store = opened = _opened_store(store, durability)
        self._engine = Engine(
            self,
            self._create_driver(),
            max_pending=max_queue_size,
            max_finished_bytes=checked_count("Runtime(max_finished_bytes)", max_finished_bytes, 0),
            max_dead_letter_bytes=checked_count("Runtime(max_dead_letter_bytes)", max_dead_letter_bytes, 0),
            debug=debug,
            default_strategy=self.default_strategy,
            store=opened or store,  # type: ignore[arg-type]
        )
        self._engine.check_open = self._check_open
        self._directory = self._engine.directory = Directory(self._engine, registry)
        self._engine.names = Names(self._engine)
        self._posting = Posting(self._engine)
        self._closed: str | None = None  # why nothing is accepted any more
        self._forked = False
        self._gave_up = False  # stopped, and did not wait any longer for what still ran
        self._opener: Opener | None = None
        if self._engine.journal is not None:
            self._opener = load("opener")(
                self._engine,
                self._create,
                self._enter,
                {
                    "post": self._post_of_another,
                    "pause": self._pause_of_another,
                    "rest": self._rest_of_another,
                    "resume": self._resume_of_another,
                    "cancel": self._cancel_of_another,
                },
            )
        self.monitor: Any = load("monitor")(self) if enable_monitoring else None
        wanted = (("log capture", capture_logs), ("print capture", capture_prints))
        self._captures: tuple[Capture, ...] = tuple(load(name) for name, asked in wanted if asked)
        _open_runtimes.add(self)
        for capture in self._captures:
            capture.begin(self)

    default_strategy = "concurrent"

    def _create_driver(self) -> Driver:
        return ThreadDriver(self.thread_pool_size, turns.run, _launch)

    # -- start ---------------------------------------------------------------------------------------------

    def exec(
        self,
        flow: str | Flow,
        *,
        entry_params: Mapping[str, Any] | None = None,
        entry: str | None = None,
        job_state: WorkerState | None = None,
        worker_id: str | None = None,
        job_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        on_flow_change: str = "refuse",
    ) -> Any:
        """Start a worker of a flow and return at once.

        Without ``entry_params`` it lives until it is stopped, and its :class:`WorkerState` is returned; jobs
        come by :meth:`post`. With ``entry_params`` it is a one-shot execution of exactly one job, which begins
        at ``entry`` ("routine" or "routine.slot", by default the flow's entry), and its :class:`JobState` is
        returned; ``job_id`` names its job, and the same name gives the same execution again, whoever asks for it at the
        same time. ``job_state`` resumes a state that was loaded, with its own worker id, job and data; nothing but the
        flow is given with it. ``metadata`` are those of the job of an execution, and of a worker those that its
        ``state.metadata`` shows.

        With a store, ``worker_id`` opens the worker that the store holds unfinished, with its queues, state, retries
        and pauses, or starts it. The same holds for ``job_id``; ``metadata`` and ``entry_params`` count only the first
        A worker that another process runs with the same PostgreSQL store is served by both: what is posted here,
        paused, resumed or cancelled is carried out there, and it is run here as soon as nobody runs it any more.

        Raises UnknownFlowError, MissingPolicyError, FlowValidationError, DuplicateNameError for a worker id that is
        taken, or for a loaded state with the id of a job that is known here, SerializationError for a saved state of
        another flow, StateError for a stored worker that does not fit the flow or is of the other kind, and for a
        ``job_id`` of a job that is no execution of this flow, StoreError, StoreLockedError for a worker that another
        runtime runs and that cannot be reached. Then nothing was started.
        """
        self._check_open("exec()")
        if job_state is not None:
            given = {
                "entry_params": entry_params,
                "entry": entry,
                "worker_id": worker_id,
                "job_id": job_id,
                "metadata": metadata,
                "on_flow_change": None if on_flow_change == "refuse" else on_flow_change,
            }
            _check_resumed(job_state, [name for name, value in given.items() if value is not None])
        flow = self._directory.flow(flow)
        self._directory.give(flow)
        self._engine.tell_findings(flow, flow.check())
        if job_state is not None:
            return self._resume(flow, job_state)
        one_shot = entry_params is not None or entry is not None
        _check_flow_change(on_flow_change)
        if metadata is not None:
            check_metadata(metadata)
        if not one_shot:
            if job_id is not None:
                raise InvalidValueError(
                    f"exec(job_id={job_id!r}) names the job of a one-shot execution; give entry_params too, or post() "
                    "a job of that id into the worker",
                    job_id=job_id,
                )
            return self._start(flow, worker_id, on_flow_change, metadata or {}).state
        target = flow.resolve_entry(entry)
        data = checked_payload(entry_params or {}, "entry_params of flow", flow.flow_id)
        if job_id is None:
            return self._execute(flow, target, data, worker_id, metadata)
        checked_id("job_id", job_id)
        begin = partial(self._begin_execution, flow, target, data, worker_id, metadata, job_id=job_id)
        while True:
            try:
                with self._engine.names.held("job", job_id):
                    return self._known_execution(flow, job_id, on_flow_change) or begin()
            except NameTaken:
                continue  # elsewhere, since it was looked for
            except StoreLockedError:
                if not (worker_id and self._opener and self._opener.is_being_begun(worker_id)):
                    raise
                # Another runtime may be about to write this very job.
                on_thread(self._opener.waits_for_news(None))
                self._check_open("exec()")
            except NoRoom:
                on_thread(self._posting.waits_for_room())

    def execute(
        self, flow: Flow, entry_params: Mapping[str, Any], entry: str | None, timeout: float | None
    ) -> JobState:
        """A one-shot execution from beginning to end; it fails if it takes longer than ``timeout`` seconds."""
        self._engine.refuse_inside("execute()")
        checked_timeout(timeout)
        self._check_open("execute()")
        self._engine.tell_findings(flow, flow.check())
        data = checked_payload(entry_params, "entry_params of flow", flow.flow_id)
        state = self._execute(flow, flow.resolve_entry(entry), data, None, None, timeout)
        state.wait()
        return state

    def _execute(
        self,
        flow: Flow,
        target: tuple[str, str],
        data: dict[str, Any],
        worker_id: str | None,
        metadata: Mapping[str, Any] | None,
        timeout: float | None = None,
    ) -> JobState:
        """An execution of a job whose id is made up, and drawn again where the store has it."""
        while True:
            try:
                return self._begin_execution(flow, target, data, worker_id, metadata, timeout)
            except NameTaken:
                self._engine.book.draw_prefix()

    def _begin_execution(
        self,
        flow: Flow,
        target: tuple[str, str],
        data: dict[str, Any],
        worker_id: str | None,
        metadata: Mapping[str, Any] | None,
        timeout: float | None = None,
        job_id: str | None = None,
    ) -> JobState:
        seconds = min((s for s in (timeout, flow.execution_timeout) if s is not None), default=None)
        with self._name_held(worker_id):
            worker = self._begun(flow, worker_id, job_id, seconds)
            try:
                worker.nodes[target[0]].check_slot(target[1], data)
                self._enter(worker)
            except BaseException:
                worker.discard()
                raise
        state = worker.state
        assert isinstance(state, JobState)
        post = Post(worker, worker.nodes[target[0]], target[1], data, job_id, metadata, None, None)
        try:
            job = on_thread(self._posting.begin(post))
        except BaseException:
            worker.discard()
            raise
        begin_job(state, job)
        if seconds is not None:
            worker.fail_after(seconds)
        on_thread(self._posting.offer_first(post, job))
        return state

    def _begun(self, flow: Flow, worker_id: str | None, job_id: str | None, seconds: float | None) -> Worker:
        """The worker of a new execution, which no caller knows yet."""
        if self._opener is None:
            return self._create(flow, worker_id, one_shot=True)
        self._check_worker_id(worker_id)
        return self._opener.begin(flow, worker_id, job_id, seconds)

    def _name_held(self, worker_id: str | None) -> AbstractContextManager[None]:
        """Around what looks for a worker of this name and starts it."""
        self._check_worker_id(worker_id)
        return nullcontext() if worker_id is None else self._engine.names.held("worker", worker_id)

    def _known_execution(self, flow: Flow, job_id: str, on_flow_change: str) -> JobState | None:
        """The execution of this job, if there is one, here or in the store."""
        known = self._engine.book.jobs.get(job_id)
        if known is None:
            return None if self._opener is None else self._opener.execution(flow, job_id, on_flow_change)
        worker = self._engine.workers.get(known.worker_id) or self._engine.stopped.get(known.worker_id)
        state = None if worker is None else worker.state
        if known.flow_id != flow.flow_id or not known.is_execution:
            raise not_an_execution(known, flow)
        if isinstance(state, JobState) and state.job is known:
            return state
        found: JobState | None = None
        if self._opener is not None:
            found = self._opener.execution(flow, job_id, on_flow_change)
        return found or self._remembered(known)

    def _remembered(self, job: JobContext) -> JobState:
        """A finished execution of which only the job is kept."""
        clock = self._engine.driver.clock
        state = JobState(job.worker_id, job.flow_id, clock=clock.monotonic, wall_time=clock.time)
        begin_job(state, job)
        state.status = ExecutionStatus(job.status.value)
        return state

    def _start(
        self, flow: Flow, worker_id: str | None, on_flow_change: str, metadata: Mapping[str, Any]
    ) -> Worker:
        with self._name_held(worker_id):
            if self._opener is not None:
                self._check_worker_id(worker_id)
                return self._opener.start(flow, worker_id, on_flow_change, metadata)
            worker = self._create(flow, worker_id, one_shot=False)
            worker.state.keep_metadata(metadata)
            self._enter(worker)
            return worker

    def recover(
        self,
        *,
        flows: Iterable[Flow] = (),
        on_flow_change: str = "refuse",
        paused: bool = False,
        wait: bool = False,
    ) -> Recovered:
        """Open every worker that the store holds unfinished and whose flow is registered, or one of ``flows``.

        Returns a list of their states, which has an attribute ``not_reopened``: a list of what was left as it is,
        each with ``worker_id``, ``flow_id`` and ``reason``. A paused worker stays paused. Workers that are open
        already are passed over. ``on_flow_change``: see :meth:`exec`. Raises StateError without a store.

        ``paused=True`` brings everything back standing still, to be looked at before it goes on: each worker is
        written as paused, and opened then. :meth:`resume` lets one go on, also in a later runtime.

        ``wait=True``: workers that other processes run are reached there, as by :meth:`exec`, and opened here when
        those run them no more.
        """
        self._check_open("recover()")
        _check_flow_change(on_flow_change)
        checked_flag("recover(paused)", paused)
        checked_flag("recover(wait)", wait)
        given = {flow.flow_id: flow for flow in _checked_flows(flows)}
        if self._opener is None:
            raise StateError(
                "recover() opens what a store holds; give the runtime one: Runtime(store='sqlite:///…')"
            )
        for flow in given.values():
            self._directory.give(flow)

        def find(flow_id: str) -> Flow | None:
            return given.get(flow_id) or self._directory.known_flow(flow_id)

        return self._opener.recover(find, on_flow_change, paused=paused, wait=wait)

    def _resume(self, flow: Flow, saved: WorkerState) -> WorkerState:
        if saved.saved is None:
            raise StateError(
                f"job_state= takes a state read with {type(saved).__name__}.load(path); worker "
                f"{saved.worker_id!r} is live already. To go on with a paused one call runtime.resume(state)"
            )
        if self._opener is not None:
            raise StateError(
                "exec(job_state=...) resumes a saved file, and this runtime has a store that holds its workers; resume "
                "the file in a runtime without a store"
            )
        from routilux.runtime import cut  # only save and load need it

        body = saved.body()
        cut.check(body, flow)
        with self._name_held(body["worker_id"]):
            cut.check_jobs(body, self._engine.book.jobs)
            worker = self._create(flow, body["worker_id"], one_shot=body["kind"] == "execution")
            worker.hold()
            self._enter(worker)
        cut.restore(worker, body)
        state = worker.state
        if state.status in (WorkerStatus.PAUSED, ExecutionStatus.PENDING):
            worker.set_status(type(state.status)("running"))
        worker.release()
        return state

    def _create(self, flow: Flow, worker_id: str | None, *, one_shot: bool) -> Worker:
        engine = self._engine
        number = 1
        if worker_id is None:
            worker_id = f"worker_{engine.driver.unique()}"
        else:  # another may have had the name, and what its numbers stand for is known outside
            number = engine.next_number
        self._check_worker_id(worker_id)
        if engine.journal is not None:
            return load("journaled worker")(engine, flow, worker_id, one_shot)  # type: ignore[no-any-return]
        kind = JobState if one_shot else WorkerState
        clock = engine.driver.clock
        state = kind(worker_id, flow.flow_id, clock=clock.monotonic, wall_time=clock.time)
        worker = Worker(engine, flow, state)
        worker.number = count(number).__next__
        state.control = worker
        return worker

    def _check_worker_id(self, worker_id: str | None) -> None:
        if worker_id is not None:
            checked_id("worker_id", worker_id)
        live = None if worker_id is None else self._engine.workers.get(worker_id)
        if live is not None:
            raise DuplicateNameError(
                f"worker_id {worker_id!r} is taken by a live worker of flow {live.flow.flow_id!r}; give another id, or "
                "stop that worker first",
                worker_id=worker_id,
            )

    def _enter(self, worker: Worker, status: WorkerStatus = WorkerStatus.RUNNING) -> None:
        """From here on the worker is live."""
        for capture in self._captures:
            capture.refresh(self)
        self._engine.driver.start()
        worker.flow.hold(worker.worker_id)
        self._engine.workers[worker.worker_id] = worker
        if self._engine.taps:
            worker.set_taps(self._engine.taps)
        if not worker.one_shot:
            self._directory.enter(worker)
            worker.set_status(status)
        if self._closed is SHUT_DOWN:  # since the call began: who shut down may not have seen this worker
            worker.close()
            self._check_open("exec()")

    # -- post ----------------------------------------------------------------------------------------------

    def post(
        self,
        flow: str | Flow,
        routine_id: str,
        slot: str,
        data: Mapping[str, Any],
        *,
        worker_id: str | None = None,
        job_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Posted:
        """Put data into a slot of the flow's worker, as a new job.

        ``job_id`` names the job, or joins one that this worker knows. A completed one takes more items and stays
        completed; what fails of them is added to its ``errors``. Join a job while it is open, or post without a
        ``job_id``. ``idempotency_key``: the same key on the same flow gives the first job again, and refuses the
        ``job_id`` of another.

        Waits at most ``timeout`` seconds (None: as long as it takes) while ``max_queue_size`` jobs are pending, the
        slot is full, or the store has not written it. Without a time-out it is refused at once where nothing that runs
        could make room, such as in a join that is full of items without partners; with one it waits, for another caller
        may post the partners. Logic that waits lends its place, in a sequential worker or under ``max_workers``: it
        goes on, accepted or refused in time, when what runs in that place has ended, which may be later.

        When it returns, the item is queued and the job is counted; with a store both are committed. When it raises
        nothing was accepted: UnknownFlowError, UnknownRoutineError, UnknownSlotError, StateError (no worker, failed or
        cancelled job), InvalidTypeError, QueueFullError, IdempotencyConflictError, RuntimeClosedError; with a store
        also SerializationError and StoreError. What others have posted into the same job stays. A wait ends with
        WorkerNotRunningError when the worker stops, RuntimeClosedError when the runtime is shut down, StateError when
        the job is cancelled; in logic also with DeadlockError in a ring of workers that wait for each other, and with
        JobCancelledError when the logic is not to go on. Only StoreUnknownError leaves open whether it was: repeat the
        post with the same ``idempotency_key``, which a store keeps for 7 days.
        """
        posted = self._begin_post(
            flow, routine_id, slot, data, worker_id, job_id, metadata, idempotency_key, timeout, None
        )
        return posted if isinstance(posted, Posted) else on_thread(posted)

    def _begin_post(
        self,
        flow: str | Flow,
        routine_id: str,
        slot: str,
        data: Mapping[str, Any],
        worker_id: str | None,
        job_id: str | None,
        metadata: Mapping[str, Any] | None,
        idempotency_key: str | None,
        timeout: float | None,
        lines: Lines | None,
    ) -> Posted | Waits[Posted]:
        """Check a post and make it; where it has to wait for something first, what is returned makes it."""
        if self._closed is not None:
            self._check_open("post()")
        worker = self._directory.worker_of(flow, worker_id)
        node, payload = self._checked_item(worker, routine_id, slot, data)
        deadline = None if timeout is None else self._engine.deadline(timeout)
        if metadata is not None:
            check_metadata(metadata)
        if worker.is_elsewhere:
            place = {"routine": routine_id, "slot": slot, "data": payload}
            about = {"job_id": job_id, "metadata": metadata, "key": idempotency_key, "seconds": timeout}
            return self._waits_to_post_elsewhere(worker, {**place, **about}, deadline)
        if idempotency_key is not None:
            post = Post(worker, node, slot, payload, job_id, metadata, deadline, lines)
            return self._posting.once(post, idempotency_key)
        return self._posting.post(worker, node, slot, payload, job_id, metadata, deadline, lines)

    def _checked_item(
        self, worker: Worker, routine_id: str, slot: str, data: Mapping[str, Any]
    ) -> tuple[Node, dict[str, Any]]:
        """Where an item goes, and a copy of its data; refuses what cannot be posted there."""
        try:
            node = worker.nodes.get(routine_id)
            known = node is not None and slot in node.mailbox.slots
        except TypeError:  # cannot be hashed, so it is no name
            node, known = None, False
        if node is None or not known:
            raise self._directory.unknown_place(worker, routine_id, slot)
        payload = checked_payload(data, "post() to", routine_id, slot)
        if node.slot_checks is not None or node.key_of is not None:
            node.check_slot(slot, payload)
        return node, payload

    # -- between runtimes that share a store ---------------------------------------------------------------

    def _waits_to_post_elsewhere(
        self, worker: Worker, about: Mapping[str, Any], deadline: float | None
    ) -> Waits[Posted]:
        assert self._opener is not None
        assert self._opener.desk is not None
        answer = yield from self._opener.desk.asks(worker.worker_id, "post", about, deadline)
        job = self._opener.followed(answer["job_id"], worker.worker_id, worker.flow_id)
        return Posted(worker.state, job)

    def _asked_elsewhere(
        self,
        found: Worker | JobContext,
        call: str,
        seconds: float | None = None,
        **more: Any,
    ) -> Waits[bool]:
        """Whether another runtime that runs this has been asked, and has done it."""
        opener = self._opener
        if opener is None or opener.desk is None:
            return False
        job_id = found.job_id if isinstance(found, JobContext) else None
        worker_id = found.worker_id
        if isinstance(found, Worker):
            if not found.is_elsewhere:
                return False
        elif found.finished or worker_id in self._engine.workers or not opener.is_reached(worker_id):
            return False

        def is_done() -> bool:
            row = opener.stored_worker(worker_id) if job_id is None and call == "cancel" else None
            return row is not None and row.status == "stopped"

        about = {"job_id": job_id, "seconds": seconds, **more}
        yield from opener.desk.asks(worker_id, call, about, self._engine.deadline(seconds), is_done=is_done)
        return True

    def _post_of_another(self, worker: Worker, about: dict[str, Any], reply: Reply) -> Waits[dict[str, Any]]:
        self._check_open("post()")
        if not worker.takes_posts or worker.one_shot:
            raise self._directory.not_running(worker)
        node, payload = self._checked_item(worker, about["routine"], about["slot"], about["data"])
        deadline = self._engine.deadline(about["seconds"])
        job_id, metadata = about["job_id"], about["metadata"]
        post = Post(worker, node, about["slot"], payload, job_id, metadata, deadline, None, reply)
        posted = yield from self._posting.carried_out(post, about["key"])
        return {"job_id": posted.job_id}

    def _pause_of_another(self, worker: Worker, about: dict[str, Any], reply: Reply) -> Waits[dict[str, Any]]:
        found = self._target(about["job_id"] or worker.state)
        yield from self._hold(found, self._engine.deadline(about["seconds"]), reply)
        return {}

    def _rest_of_another(self, worker: Worker, about: dict[str, Any], reply: Reply) -> Waits[dict[str, Any]]:
        found = self._target(about["job_id"] or worker.state)
        yield from self._waits_for_rest(found, about["timeout"], self._engine.deadline(about["seconds"]))
        return {}

    def _resume_of_another(
        self, worker: Worker, about: dict[str, Any], reply: Reply
    ) -> Waits[dict[str, Any]]:
        yield from self._waits_to_resume(about["job_id"] or worker.state)
        return {}

    def _cancel_of_another(
        self, worker: Worker, about: dict[str, Any], reply: Reply
    ) -> Waits[dict[str, Any]]:
        yield from ()
        self.cancel(about["job_id"] or worker.state)
        return {}

    # -- look up -------------------------------------------------------------------------------------------

    def get_job(self, job_id: str) -> JobContext | None:
        """The job, or None if it is not known (any more: 10,000 finished jobs are kept, for an hour, in
        ``max_finished_bytes``; a store keeps 100,000, for a week)."""
        job = self._engine.book.jobs.get(checked_name_of("get_job()", job_id, "the job_id of the job"))
        if job is None and self._opener is not None:
            return self._opener.job(job_id, self._directory.given_flow)
        return job

    def list_jobs(
        self,
        *,
        status: str | None = None,
        flow: str | Flow | None = None,
        worker: str | WorkerState | None = None,
        parked: bool | None = None,
        limit: int | None = None,
        cursor: JobContext | None = None,
    ) -> list[JobContext]:
        """Jobs in the order in which they were posted, those of a store included.

        ``status``, ``flow`` and ``worker`` choose among them, ``parked`` those that have items which wait for items
        of others, or those that have none. ``cursor``: only those that come after this one, such
        as the last of the page before. A job of a worker that is not open here has ``left`` set, and ``blocked``
        where its flow has changed.

        Without a store, a flow or a worker that is given by a name which nothing here has raises UnknownFlowError or
        UnknownWorkerError. In a store the jobs of another program may be all that is left of them: there are none then.
        """
        if status is not None and status not in [known.value for known in JobStatus]:
            raise unknown("job status", status, [known.value for known in JobStatus])
        if parked is not None:
            checked_flag("list_jobs(parked)", parked)
        if limit is not None:
            checked_count("list_jobs(limit)", limit, 0)
        if cursor is not None and not isinstance(cursor, JobContext):
            fix = "give the last job of the page before, such as page[-1]"
            raise refused(InvalidTypeError, "list_jobs(cursor)", cursor, "a JobContext", fix=fix)
        flow_id = flow.flow_id if isinstance(flow, Flow) else flow
        worker_id = worker.worker_id if isinstance(worker, WorkerState) else worker
        if self._opener is not None:
            after = None if cursor is None else (cursor.created_at, cursor.job_id)
            find = self._directory.given_flow
            return self._opener.jobs(
                find,
                status=status,
                flow_id=flow_id,
                worker_id=worker_id,
                parked=parked,
                limit=limit,
                after=after,
            )
        jobs = list(self._engine.book.jobs.values())
        found = [
            job
            for job in jobs
            if status in (None, job.status)
            and flow_id in (None, job.flow_id)
            and worker_id in (None, job.worker_id)
            and parked in (None, job.parked > 0)
        ]
        if not found:
            self._directory.check_known(flow, worker)
        return (found if cursor is None else _after(cursor, jobs, found))[:limit]

    def get_worker(self, worker_id: str) -> WorkerState | None:
        """The state of a live worker, or of one of the newest 1,000 stopped ones.

        That of a one-shot execution is kept as long as its job is.
        """
        checked_name_of("get_worker()", worker_id, "the worker_id of the worker")
        worker = self._directory.found(worker_id)
        return None if worker is None else worker.state

    def list_workers(self, *, flow: str | Flow | None = None) -> list[WorkerState]:
        """The states of all live workers, one-shot executions included. Raises UnknownFlowError for a name that no
        flow here has had."""
        flow_id = flow.flow_id if isinstance(flow, Flow) else flow
        workers = list(self._engine.workers.values())
        found = [worker.state for worker in workers if flow_id is None or worker.flow.flow_id == flow_id]
        if not found:
            self._directory.check_known(flow, None)
        return found

    def dead_letters(
        self, *, worker: str | WorkerState | None = None, job: str | JobContext | None = None
    ) -> list[DeadLetter]:
        """Items that were set aside, oldest first.

        The newest 10,000 of each worker are kept, in ``max_dead_letter_bytes``, and those of a one-shot execution as
        long as its job; a store keeps all.

        Without a store, an id that was never here raises UnknownWorkerError or UnknownJobError; there are none of a
        job that may have been forgotten. A store may have forgotten any worker or job, and there are none then.
        """
        worker_id = worker.worker_id if isinstance(worker, WorkerState) else worker
        job_id = job.job_id if isinstance(job, JobContext) else job
        if self._opener is not None:
            return self._opener.letters(worker_id, job_id)
        if worker_id is not None and not isinstance(worker, WorkerState):
            self._directory.worker(worker_id)  # refuses an unknown id
        workers = [*self._engine.stopped.values(), *self._engine.workers.values()]
        found = [
            letter
            for worker in workers
            for letter in worker.letters
            if worker_id in (None, letter.worker_id) and (job_id is None or job_id in letter.job_ids)
        ]
        if not found and job_id is not None and not isinstance(job, JobContext):
            self._directory.check_job(job_id)
        return sorted(found, key=lambda letter: letter.time)

    def redrive(self, *letters: DeadLetter, timeout: float | None = None) -> list[Posted]:
        """Put set-aside items back into their slots, each as a new job that names the old one.

        A letter is put back once; when ``post`` refuses it, it stays. ``timeout`` is in seconds, for all of them
        together: QueueFullError, or with a store StoreError, at its end. Its worker has to be open. Raises
        StateError for one that is not kept (any more), and SerializationError for one with a payload that cannot be
        read here, before anything is posted.
        """
        checked_timeout(timeout)
        self._check_open("redrive()")
        for letter in letters:
            if not isinstance(letter, DeadLetter):
                raise refused(
                    InvalidTypeError,
                    "redrive()",
                    letter,
                    "dead letters",
                    fix="write runtime.redrive(*letters)",
                )
        workers = [self._worker_of(letter) for letter in letters]
        deadline = self._engine.deadline(timeout)
        kept = {worker: worker.letters.item_ids(deadline) for worker in set(workers)}
        for worker, letter in zip(workers, letters, strict=True):
            if letter.item_id not in kept[worker]:
                raise _letter_gone(letter)
            if isinstance(letter.data, StoredForm):
                raise letter.data.error
        return [
            self._redrive(worker, letter, deadline) for worker, letter in zip(workers, letters, strict=True)
        ]

    def _worker_of(self, letter: DeadLetter) -> Worker:
        """The worker that has set this letter aside, if it can take it back."""
        worker = self._engine.workers.get(letter.worker_id)
        desk = None if self._opener is None else self._opener.desk
        runner = None if worker is not None or desk is None else desk.runner(letter.worker_id)
        if runner is not None:
            raise StateError(
                f"redrive(): worker {letter.worker_id!r} of the dead letter is run by {runner}, and only there can it "
                "be driven again; call redrive() in that process. Nothing has been done here",
                worker_id=letter.worker_id,
            )
        if worker is None or worker.one_shot:
            raise self._engine.only_read or WorkerNotRunningError(
                f"worker {letter.worker_id!r} of the dead letter does not live any more; post its data to a live "
                f"worker: {_as_post(letter)}",
                worker_id=letter.worker_id,
            )
        return worker

    def _redrive(self, worker: Worker, letter: DeadLetter, deadline: float | None) -> Posted:
        node = worker.nodes.get(letter.routine_id)
        if node is None or letter.slot not in node.mailbox.slots:
            raise self._directory.unknown_place(worker, letter.routine_id, letter.slot)
        if not worker.accepting:
            raise self._directory.not_running(worker)
        node.check_slot(letter.slot, letter.data)
        with worker.letters.taken_out(letter, deadline) as there:
            if not there:
                raise _letter_gone(letter)
            return on_thread(self._posting.redrive(worker, node, letter, deadline))

    def health(self) -> Health:
        """Whether what happens is kept: until the runtime is shut down, and with a store while that takes it."""
        health = self._engine.health()
        if self._closed is SHUT_DOWN and health.status != "failed":
            return Health("closed", "the runtime has been shut down")
        return health

    def list_running(self) -> list[Running]:
        """The activations whose logic runs now, the longest-running first."""
        now = self._engine.now()
        found = [
            Running(
                activation.mailbox.routine_id,
                activation.node.worker.worker_id,
                activation.node.worker.flow_id,
                job_ids_of(activation.job),
                now - activation.started,
            )
            for activation in self._engine.driver.running()
        ]
        return sorted(found, key=lambda one: -one.seconds)

    # -- wait ----------------------------------------------------------------------------------------------

    def wait_until_all_jobs_finished(self, timeout: float | None = None) -> bool:
        """Drain: wait until every job has ended; policies that hold a partial batch release it, at once.

        False when ``timeout`` seconds have passed, and as soon as open jobs are left of which nothing can move, such
        as items behind a full slot whose partners never came: then a warning says, once, what waits for what. What is
        paused, or held by a gate, is told and waited for. So are jobs of a worker that was named here by :meth:`exec`
        and that another process runs. Raises InsideActivationError in a routine.
        """
        self._engine.refuse_inside("wait_until_all_jobs_finished()")
        return on_thread(self._waits_until_finished(self._engine.deadline(timeout)))

    def _waits_until_finished(self, deadline: float | None) -> Waits[bool]:
        opener = self._opener
        while (yield from draining.waits_until_finished(self._engine, deadline, patient=True)):
            if opener is None or not opener.has_open_jobs_elsewhere():
                return True
            if not (yield from opener.waits_for_news(deadline)):
                return False
        return False

    # -- pause, resume, cancel -----------------------------------------------------------------------------

    def pause(self, target: str | WorkerState | JobContext, *, timeout: float | None = None) -> None:
        """Hold a worker or a job. When it returns nothing new starts and what ran has ended.

        Posts are still accepted. Raises ExecutionTimeoutError, naming what still runs, after ``timeout``
        seconds; the target stays held. In a routine it returns at once and holds what comes next. A finished job stays
        as it is. With a store a pause outlives the runtime. Raises StateError for a worker that has stopped, and for a
        job that does not run in this runtime.

        StoreError: the store did not take it, and the target goes on; or, at the time-out, it is paused and not all
        that has ended is written, as the error says. StoreUnknownError: the store does not say whether it is paused;
        it is held until that is known.
        """
        on_thread(self._waits_to_pause(target, timeout))

    def _waits_to_pause(self, target: str | WorkerState | JobContext, timeout: float | None) -> Waits[None]:
        found = self._target(target)
        deadline = self._engine.deadline(timeout)
        if not (yield from self._asked_elsewhere(found, "pause", timeout)):
            yield from self._hold(found, deadline)
            yield from self._waits_for_rest(found, timeout, deadline)
            return
        self._show_elsewhere(found, WorkerStatus.PAUSED)
        if running.get() is None:
            left = None if deadline is None else max(0.0, deadline - self._engine.now())
            yield from self._asked_elsewhere(found, "rest", left, timeout=timeout)

    def _hold(
        self, found: Worker | JobContext, deadline: float | None, reply: Reply | None = None
    ) -> Waits[None]:
        """It is paused, and that is written, when this ends."""
        if isinstance(found, JobContext):
            if not found.finished:
                worker = self._directory.worker_that_runs(found, "pause()")
                yield from worker.waits_to_change_job_pause(found, True, deadline, reply)
        elif not found.is_over:
            self._directory.check_runs(found)
            yield from found.waits_to_change_pause(True, deadline, reply)

    def _waits_for_rest(
        self, found: Worker | JobContext, timeout: float | None, deadline: float | None
    ) -> Waits[None]:
        """What ran of something that is paused has ended, and is written, when this ends."""
        if isinstance(found, JobContext):
            if found.finished:
                return
            worker, account = self._directory.worker_that_runs(found, "pause()"), found.account

            def concerns(activation: Any) -> bool:
                return account in activation.job.members

            def at_rest() -> bool:
                return not any(concerns(activation) for activation in worker.running())

            yield from self._waits_until(worker, at_rest, concerns, timeout, deadline)
        elif found.is_over:
            return
        else:
            worker = found
            yield from self._waits_until(worker, worker.resting, lambda activation: True, timeout, deadline)
        yield from worker.waits_to_flush(deadline)

    def _show_elsewhere(self, found: Worker | JobContext, status: WorkerStatus) -> None:
        """At once, and not when the store is looked at next."""
        if isinstance(found, Worker) and found.is_elsewhere and not found.stopped:
            found.state.status = status

    def _waits_until(
        self,
        worker: Worker,
        at_rest: Callable[[], bool],
        concerns: Callable[[Any], bool],
        timeout: float | None,
        deadline: float | None,
    ) -> Waits[None]:
        if running.get() is not None:
            return
        if not (yield from worker.bell.waits_for(at_rest, deadline)):
            names = sorted({a.mailbox.routine_id for a in worker.running() if concerns(a)})
            if not names:  # all that is missing is on its way to the store
                yield from worker.waits_to_flush(deadline)
                if at_rest():
                    return
            raise ExecutionTimeoutError(
                f"paused, but after {timeout} s these routines of worker {worker.worker_id!r} still run: "
                f"{', '.join(names)}. Nothing new starts; wait for them with a longer timeout",
                worker_id=worker.worker_id,
            )

    def resume(self, target: str | WorkerState | JobContext) -> None:
        """Let a paused worker or job go on. With a store it does so when that is written, before this returns.

        StoreError: the store did not take it, and the target is still paused. Raises StateError for a worker that has
        stopped, and for a job that does not run in this runtime; a finished job stays as it is.
        """
        on_thread(self._waits_to_resume(target))

    def _waits_to_resume(self, target: str | WorkerState | JobContext) -> Waits[None]:
        found = self._target(target)
        if (yield from self._asked_elsewhere(found, "resume")):
            self._show_elsewhere(found, WorkerStatus.RUNNING)
            return
        if isinstance(found, Worker):
            self._directory.check_runs(found)
            yield from found.waits_to_change_pause(False)
        elif not found.finished:
            runs_it = self._directory.worker_that_runs(found, "resume()")
            yield from runs_it.waits_to_change_job_pause(found, False)
        else:  # it may have ended while it was paused, and something was kept back of it
            worker = self._engine.workers.get(found.worker_id)
            if worker is not None:
                worker.obey_job_pause(found, False)

    def cancel(self, target: str | WorkerState | JobContext) -> None:
        """Cancel a job, or every job of a worker and the worker with them.

        When it returns none of its activations will start, its queued items are gone, running ones are asked to
        stop, and what they still produce is discarded; with a store this is written. A finished target stays as it
        is. Raises StateError for a job that does not run in this runtime, and StoreError where the store did not take
        it: then nothing was cancelled.
        """
        found = self._target(target)
        if on_thread(self._asked_elsewhere(found, "cancel")):
            return
        if isinstance(found, JobContext):
            if not found.finished:
                self._directory.worker_that_runs(found, "cancel()").cancel_job(found)
            return
        if not found.stopped:
            found.cancel()

    # -- stop ----------------------------------------------------------------------------------------------

    def stop(self, worker: str | WorkerState, *, drain: bool = True, timeout: float | None = None) -> bool:
        """Stop a worker: accept nothing new but from its own logic, let everything in it finish, or only what runs now.

        In a paused worker nothing can finish, so it is not drained. False if something still ran after
        ``timeout`` seconds, and if ``drain`` has left open jobs, because the worker is paused or nothing in it can
        move; then the worker is stopped all the same, and its open jobs are cancelled. Stopping a stopped worker does
        nothing. With a store, a worker that was drained has ended for good; one that was not keeps its jobs there, and
        goes on with them when it is opened again. StoreError: it has stopped, and the store has not taken all that has
        ended, at most a second after ``timeout``.
        """
        found = self._stopped_target(worker, drain)
        if found.stopped or self._let_go(found):
            return True
        self._engine.refuse_inside("stop()")
        deadline = self._engine.deadline(timeout)
        if isinstance(self._engine.driver, ThreadDriver) and running.get() is None and interrupts_itself():
            return elsewhere(partial(self.stop, worker, drain=drain, timeout=timeout))
        return on_thread(self._waits_to_stop(found, drain, deadline))

    def _let_go(self, worker: Worker) -> bool:
        """Whether it is another runtime that runs the worker; then this one asks it no more."""
        if not worker.is_elsewhere or self._opener is None:
            return False
        self._opener.let_go(worker)  # type: ignore[arg-type]
        return True

    def _stopped_target(self, worker: str | WorkerState, drain: bool) -> Worker:
        checked_flag("stop(drain)", drain)
        found = self._target(worker)
        if isinstance(found, JobContext):
            raise InvalidTypeError(
                f"stop() takes a worker, got the job {found.job_id!r}; call runtime.cancel(job)"
            )
        return found

    def _waits_to_stop(self, worker: Worker, drain: bool, deadline: float | None) -> Waits[bool]:
        worker.accepting = False
        asked, drain = drain, drain and not worker.queue.paused
        with draining.told_if_long(self._engine, lambda: [worker]):
            ended = not drain or (yield from worker.waits_to_drain(deadline))
        worker.check_kept()
        told = drain and draining.tell_of(worker)
        worker.hold()
        left = asked and bool(worker.jobs)
        worker.for_good = drain and ended
        remains = Remains([] if told else [worker])
        worker.closing = True
        worker.end_drained() if drain else worker.cancel_jobs()
        ended = (yield from worker.bell.waits_for(worker.resting, deadline)) and ended
        worker.close()
        self._tell_lost(f"worker {worker.worker_id!r} of flow {worker.flow_id!r} was stopped", remains)
        worker.cut_off()
        yield from worker.waits_to_flush(self._with_grace(deadline))
        return ended and not left

    def _with_grace(self, deadline: float | None) -> float | None:
        """When a store has to have taken what is left, if what ran has needed all the time."""
        return None if deadline is None else max(deadline, self._engine.now() + GRACE_SECONDS)

    def shutdown(self, wait: bool = True, *, timeout: float | None = None) -> bool:
        """Accept nothing new from outside, and stop. ``wait`` drains first; what logic posts meanwhile is part of it.

        False if something still ran after ``timeout`` seconds (without ``wait``: one second, if not given), and if
        the drain has left open jobs of which nothing can move, such as those of a paused worker, which it does not
        wait for; what that was is in the log. Calling it again does nothing. In a routine it never waits, and is False
        if anything is left, the routine itself included; a caller that shuts down outside after that waits for what
        the routine could not wait for. Safe in the handler of a signal.

        With a store, what is not finished stays there; its jobs have ``left`` set, and who waits for them is told. It
        is also False when the store did not take all that has ended, at most a second after ``timeout``, or, without
        one, when it has taken nothing for 10 seconds.
        """
        checked_flag("shutdown(wait)", wait)
        if self._forked:
            return True
        deadline = self._engine.deadline(timeout)
        inside = running.get() is not None
        if isinstance(self._engine.driver, ThreadDriver) and not inside and interrupts_itself():
            return elsewhere(partial(self.shutdown, wait, timeout=timeout))
        return on_thread(self._waits_to_shut_down(wait, deadline, inside, on_this_thread))

    def _waits_to_shut_down(
        self,
        wait: bool,
        deadline: float | None,
        inside: bool,
        join: Callable[[Callable[[], bool]], Waits[bool]],
    ) -> Waits[bool]:
        """``join`` carries out what waits for the runtime's own threads."""
        if not wait and deadline is None:
            deadline = self._engine.now() + GRACE_SECONDS
        if self._closed is SHUT_DOWN:
            if inside:
                return not self._engine.running()
            return (yield from join(partial(self._wait_for_the_rest, deadline)))
        drained = True
        if deadline is None and self._engine.journal is not None:
            self._engine.journal.hurry()
        if wait and not inside:
            self._closed = DRAINS
            drained = yield from self._drain_all(deadline)
        self._end_starts()
        self._closed = SHUT_DOWN
        self._end_starts()  # of workers that came in meanwhile; those that come now see that it is over
        workers = list(self._engine.workers.values())
        if inside:
            drained = not self._engine.running() and not any(worker.jobs for worker in workers)
        tells = wait and not (inside or drained)
        told = [worker for worker in workers if tells and worker.jobs]  # by the drain
        drained = drained and not any(worker.jobs for worker in workers if wait and not worker.journaled)
        remains = Remains(worker for worker in workers if worker not in told)
        unfinished = [worker for worker in workers if worker.is_nameless and worker.holds_work]
        for worker in workers:
            worker.for_good = self._opener is not None and self._opener.is_over(worker)
            worker.end_drained() if wait and not inside else worker.cancel_jobs()
            worker.close()
        self._tell_lost("the runtime was shut down", remains)
        for worker in unfinished:
            if not worker.for_good:
                self._tell_left(worker)
        stopped = partial(self._end_threads, workers, deadline, inside)
        return (yield from join(stopped) if not inside else on_this_thread(stopped)) and drained

    def _end_starts(self) -> None:
        """Nothing starts any more. All workers first: logic of one may wait in post() for another, and what fails
        because this runtime is over is left, where a store keeps it."""
        for worker in list(self._engine.workers.values()):
            worker.hold()
            worker.closing = True

    def _tell_lost(self, what: str, remains: Remains) -> None:
        lost = remains.sentence()
        if lost:
            write(WARNING, f"{what} with work left: {lost}", about={"follows": "dropped"})

    def _tell_left(self, worker: Worker) -> None:
        write(
            WARNING,
            f"worker {worker.worker_id!r} of flow {worker.flow_id!r} is left in the store with unfinished work. Its id "
            "was made up, so the next exec() starts another one: runtime.recover() goes on with it, and "
            "exec(flow, worker_id=...) with one that has a name",
            about={"follows": "left"},
        )

    def _wait_for_the_rest(self, deadline: float | None) -> bool:
        """Everything has been stopped, in a routine perhaps, where it could not wait for what ran."""
        ended = self._engine.driver.close(self._engine.now() if self._gave_up else deadline)
        if ended:
            self._is_over()
        return ended

    def _drain_all(self, deadline: float | None) -> Waits[bool]:
        try:
            with draining.told_if_long(self._engine, lambda: list(self._engine.workers.values())):
                return (yield from draining.waits_until_finished(self._engine, deadline, patient=False))
        except StoreError:
            return False  # nothing can be written any more; that has been said where it was found

    def _end_threads(self, workers: Iterable[Worker], deadline: float | None, inside: bool) -> bool:
        """Close what this runtime has opened; every worker has been stopped."""
        engine = self._engine
        still = {a.mailbox.routine_id for a in engine.running()} if not inside else set()
        ended = engine.driver.close(engine.now() if inside else deadline)
        self._gave_up = not ended and not inside
        for worker in workers:
            worker.cut_off()
        if self.monitor is not None:
            self.monitor.close()
        if self._opener is not None:
            ended = self._opener.close(self._with_grace(engine.now() if inside else deadline)) and ended
            if self._own_store is not None:
                self._opener.close_store()
        if not ended and still and not inside:
            engine.warn(f"shut down while these routines still ran: {', '.join(sorted(still))}")
        engine.failures.close()
        if ended or not inside:
            self._is_over()
        return ended or inside

    def _is_over(self) -> None:
        _open_runtimes.discard(self)
        for capture in self._captures:
            capture.end(self)

    def __enter__(self) -> Runtime:
        self._check_open("with")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown(wait=kind is None)

    # -- async twins ---------------------------------------------------------------------------------------

    async def apost(
        self,
        flow: str | Flow,
        routine_id: str,
        slot: str,
        data: Mapping[str, Any],
        *,
        worker_id: str | None = None,
        job_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> Posted:
        """:meth:`post` for coroutines, on any event loop. Waiting holds no thread, and is first come first served among
        the tasks of one loop.

        A task that is cancelled while it waits has posted nothing. With a store it may be cancelled when its item is
        on its way to being written: then it waits until that is known; a job that has not begun is cancelled with it,
        and one that has begun, or was posted with an ``idempotency_key``, goes on, which a note on the
        ``CancelledError`` says.
        """
        posted = self._begin_post(
            flow,
            routine_id,
            slot,
            data,
            worker_id,
            job_id,
            metadata,
            idempotency_key,
            timeout,
            lines_of_running_loop(),
        )
        return posted if isinstance(posted, Posted) else await in_task(posted)

    async def ajoin(self, timeout: float | None = None) -> bool:
        """:meth:`wait_until_all_jobs_finished` for coroutines; waiting holds no thread."""
        self._engine.refuse_inside("ajoin()")
        deadline = self._engine.deadline(timeout)
        return await in_task(self._waits_until_finished(deadline))

    async def apause(self, target: str | WorkerState | JobContext, *, timeout: float | None = None) -> None:
        """:meth:`pause` for coroutines; waiting holds no thread."""
        await in_task(self._waits_to_pause(target, timeout))

    async def astop(
        self, worker: str | WorkerState, *, drain: bool = True, timeout: float | None = None
    ) -> bool:
        """:meth:`stop` for coroutines; waiting holds no thread. A task that is cancelled leaves the worker as far as
        it has come: it accepts nothing any more."""
        found = self._stopped_target(worker, drain)
        if found.stopped or self._let_go(found):
            return True
        self._engine.refuse_inside("astop()")
        return await in_task(self._waits_to_stop(found, drain, self._engine.deadline(timeout)))

    async def ashutdown(self, wait: bool = True, *, timeout: float | None = None) -> bool:
        """:meth:`shutdown` for coroutines. Draining holds no thread; one thread of its own, at the very end, waits for
        those of the runtime."""
        checked_flag("ashutdown(wait)", wait)
        if self._forked:
            return True
        deadline, inside = self._engine.deadline(timeout), running.get() is not None
        return await in_task(self._waits_to_shut_down(wait, deadline, inside, on_own_thread))

    async def __aenter__(self) -> Runtime:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.ashutdown(kind is None)

    # -- seams ---------------------------------------------------------------------------------------------

    def add_observer(self, observer: Observer | RowObserver) -> None:
        """Tell this observer what happens in all workers, from now on. InvalidTypeError if it has no ``record``."""
        self._engine.add_observer(observer)

    def remove_observer(self, observer: Observer | RowObserver) -> None:
        self._engine.remove_observer(observer)

    def add_tap(self, tap: Tap) -> None:
        """Show this tap what all workers emit, from now on. InvalidTypeError if it lacks a method."""
        check_methods("add_tap()", tap, "a tap", "watch", "note", "take_back")
        self._engine.set_taps((*self._engine.taps, tap))

    def remove_tap(self, tap: Tap) -> None:
        self._engine.set_taps(tuple(other for other in self._engine.taps if other is not tap))

    def set_gate(self, worker: str | WorkerState, routine_id: str, gate: Gate | None) -> None:
        """Ask this gate before activations of the routine start and before items enter its slots; None: ask
        no caller any more, and let go what is held. InvalidTypeError if it lacks a method."""
        if gate is not None:
            check_methods("set_gate()", gate, "a gate", "holds_activation", "holds_item")
        found = self._directory.live(worker)
        node = self._directory.node(found, routine_id)
        found.gates.set_gate(node, gate)

    def let_go(self, worker: str | WorkerState, routine_id: str, *, everything: bool = False) -> int:
        """Let go what a gate holds at a routine: the oldest, or everything; returns how much that was."""
        checked_flag("let_go(everything)", everything)
        found = self._directory.live(worker)
        return found.gates.let_go(self._directory.node(found, routine_id), everything=everything)

    def set_runner(self, worker: str | WorkerState, routine_id: str, runner: TaskRunner | None) -> None:
        """Run the logic of a routine somewhere else from now on; None: on the pool again. InvalidTypeError if it has no
        method ``start``."""
        if runner is not None:
            check_methods("set_runner()", runner, "a runner", "start")
        found = self._directory.live(worker)
        self._directory.node(found, routine_id).runner = runner

    # -- inside --------------------------------------------------------------------------------------------

    def _target(self, target: Any) -> Worker | JobContext:
        if self._forked:
            raise forked("this call")
        try:
            return self._directory.target(target.job_context if isinstance(target, Posted) else target)
        except UnknownJobError:
            if self._opener is None or (job := self.get_job(target)) is None:
                raise
            return job  # whose worker another runtime runs, or nobody

    def mark_forked(self) -> None:
        """Called in a child process after a fork: the threads of this runtime do not exist there.

        Locks may be held by them for ever, so nothing of it is touched any more; its flows are free.
        """
        self._forked = True
        self._closed = "belongs to another process"
        for capture in self._captures:
            capture.end_in_child(self)
        self._engine.driver.leave_behind()
        others = list(self._directory.elsewhere.values())
        engine, self._engine, self._directory, self._posting = self._engine, GONE, GONE, GONE
        if self._opener is not None:
            self._opener = GONE
        for worker in [*engine.workers.values(), *engine.stopped.values(), *others]:
            worker.forget_engine(GONE)
        for job in list(engine.book.jobs.values()):
            job.leave_behind(GONE)
        activation: Any = running.get()
        if activation is not None and activation.node.worker.runtime is self:
            activation.abandoned = forked("emit()")
            left_behind.set(activation.abandoned)
            running.set(None)  # the child may wait for a runtime of its own

    def _check_open(self, call: str) -> None:
        """Raise if nothing is accepted any more. While it drains, logic may go on as before: its calls are part of what
        was accepted."""
        if self._closed is None or (self._closed is DRAINS and self._engine.is_called_by_logic()):
            return
        if self._forked:
            raise forked(call)
        raise RuntimeClosedError(f"{call}: this runtime {self._closed}; create a new Runtime")


# -- checks ------------------------------------------------------------------------------------------------


def _opened_store(store: Any, durability: str) -> Store | None:
    """The store of a URL, which the runtime closes; None where it was given an open one, or none."""
    if durability not in ("full", "process"):
        raise unknown("durability", durability, ["full", "process"])
    if isinstance(store, str):
        return load("store of a URL")(store, durability=durability)  # type: ignore[no-any-return]
    if store is None or callable(getattr(store, "write", None)):
        if durability != "full":
            has = "no store" if store is None else "a store that is open already"
            raise InvalidValueError(
                f"Runtime(durability={durability!r}) has no effect, as the runtime has {has}; give a URL, such as "
                "Runtime(store='sqlite:///routilux.db', durability=...), or leave it out"
            )
        return None
    raise refused(
        InvalidTypeError,
        "Runtime(store)",
        store,
        "a URL such as 'sqlite:///routilux.db', or a Store such as routilux.store.memory.MemoryStore()",
    )


def _checked_flows(flows: object) -> list[Flow]:
    if isinstance(flows, (str, Flow)) or not isinstance(flows, Iterable):
        raise refused(InvalidTypeError, "recover(flows)", flows, "a list of flows", fix="write flows=[flow]")
    found = list(flows)
    for at, flow in enumerate(found):
        if not isinstance(flow, Flow):
            fix = "flows that are registered are found without it"
            raise refused(InvalidTypeError, f"recover(flows)[{at}]", flow, "a Flow", fix=fix)
    return found


def _check_resumed(state: Any, given: list[str]) -> None:
    if not isinstance(state, WorkerState):
        raise refused(
            InvalidTypeError,
            "exec(job_state)",
            state,
            "a state that was loaded",
            fix="read it with JobState.load(path) or WorkerState.load(path)",
        )
    if given:
        raise InvalidValueError(
            f"exec(job_state=...) got {', '.join(f'{name}=' for name in given)} too; a resumed state keeps its own "
            "worker id, job and data: call exec(flow, job_state=state), and post() what is new",
            worker_id=state.worker_id,
        )


def _check_flow_change(on_flow_change: str) -> None:
    if on_flow_change not in ("refuse", "adopt"):
        raise unknown("on_flow_change", on_flow_change, ["refuse", "adopt"])


def _after(cursor: JobContext, jobs: list[JobContext], found: list[JobContext]) -> list[JobContext]:
    """Those of ``found`` that come after a job, which need not be one of them: its status may be another by now."""
    ids = [job.job_id for job in jobs]
    if cursor.job_id in ids:
        after = set(ids[ids.index(cursor.job_id) + 1 :])
        return [job for job in found if job.job_id in after]
    place = cursor.created_at, cursor.job_id  # it is forgotten
    return [job for job in found if (job.created_at, job.job_id) > place]


def _as_post(letter: DeadLetter) -> str:
    return f"runtime.post({letter.flow_id!r}, {letter.routine_id!r}, {letter.slot!r}, letter.data)"


def _letter_gone(letter: DeadLetter) -> StateError:
    return StateError(
        f"worker {letter.worker_id!r} does not keep the dead letter of item {letter.item_id} any more: it was driven "
        "again already, or was dropped for newer ones, which the log says. Look at runtime.dead_letters(), or post its "
        "data: "
        f"{_as_post(letter)}",
        worker_id=letter.worker_id,
    )


def _launch(mailbox: Any) -> None:
    turns.launch(mailbox.node.worker, mailbox)


# -- the end of the process --------------------------------------------------------------------------------

_open_runtimes: weakref.WeakSet[Runtime] = weakref.WeakSet()


@atexit.register
def stop_open_runtimes() -> None:
    """A program that ends without shutdown(): stop quietly, without draining, all within one grace period."""
    deadline = monotonic() + GRACE_SECONDS
    for runtime in list(_open_runtimes):
        runtime.shutdown(wait=False, timeout=max(0.0, deadline - monotonic()))


def _mark_forked() -> None:
    for runtime in list(_open_runtimes):
        runtime.mark_forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mark_forked)
