"""A running activation: what a routine's ``emit`` and ``send_output`` reach."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from routilux.errors import (
    JobCancelledError,
    NotInActivationError,
    QueueFullError,
    RoutiluxError,
    SlotHandlerError,
    shown,
)
from routilux.kernel.activation import OVER, Activation
from routilux.kernel.mailbox import PARKED, QUEUED, READY
from routilux.model.item import Item, Output, Payload
from routilux.model.recovery import ERROR_EVENT
from routilux.model.status import JobStatus
from routilux.ports import Emission, Emitted, job_ids_of
from routilux.runtime.failures import FAILURES, WARNING
from routilux.runtime.output import OutputRecord
from routilux.tracebacks import described_at, traceback_of

if TYPE_CHECKING:
    from routilux.kernel.account import Account, JobAccount
    from routilux.kernel.gathering import Batch
    from routilux.kernel.mailbox import Mailbox
    from routilux.model.event import Event
    from routilux.model.routine import Routine
    from routilux.model.routine_state import RoutineState
    from routilux.runtime.nodes import Node, Route

OUTBOX_LIMIT = 1_000
LONGEST_REASON = 1_000


class Outcome(NamedTuple):
    """How an activation has ended for good. ``name`` is what the history says of it.

    Its items are set aside with ``error``, unless they were ``sent_on``: emitted once more, on the event ``error``.
    ``noted`` is added to the errors of its jobs, ``fatal`` fails them; to a job that has completed it is added.
    """

    name: str
    error: BaseException | None = None
    noted: BaseException | None = None
    fatal: BaseException | None = None
    sent_on: bool = False

    def noted_in(self, job: JobAccount) -> BaseException | None:
        """What is added to the errors of one of its jobs."""
        return self.fatal if self.noted is None and job.status is JobStatus.COMPLETED else self.noted


COMPLETED = Outcome("completed")


class LiveActivation(Activation):
    """See the module's docstring. ``cancel`` asks asynchronous logic to stop."""

    timer: Any = None  # of the routine's time-out
    released = False  # a gate has let it go: it is not asked again
    cancel: Any = None
    failure: BaseException | None = None  # that it sends out of the event ``error``
    retried: Outcome | None = None  # how its last attempt has failed
    done_once: dict[str, Any] | None = None
    reads: set[Any] | None = None  # keys of its routine's state, where a mistake with them is looked for
    printers: Mapping[int, Any] = {}  # of its threads, where what they print is kept
    checkpointed: Any = None  # what the last checkpoint of this attempt or an earlier one has noted

    def __init__(self, mailbox: Mailbox, batch: Batch, job: Account, started: float) -> None:
        # As in Activation.__init__: no call for every activation.
        self.mailbox = mailbox
        self.batch = batch
        self.job = job
        self.started = started
        self.attempt = 1
        self.message = None
        self.spare = False
        self.emitted = 0
        self.merged = None
        self.abandoned = None
        node: Node = mailbox.node
        self.node = node
        self.routine: Routine = node.routine

    @property
    def debug(self) -> bool:
        return self.node.worker.engine.debug

    @property
    def routine_id(self) -> str:
        return self.mailbox.routine_id

    @property
    def worker_id(self) -> str:
        return self.node.worker.worker_id

    @property
    def flow_id(self) -> str:
        return self.node.worker.flow_id

    @property
    def job_ids(self) -> tuple[str, ...]:
        return job_ids_of(self.job)

    @property
    def routine_state(self) -> RoutineState:
        if self.abandoned is not None:
            raise self.unwanted()
        return self.node.worker.state.state_of(self.mailbox.routine_id)

    @property
    def idempotency_key(self) -> str:
        """The same in every attempt of this activation, different for every other one."""
        return f"{self.node.worker.worker_id}/{self.mailbox.routine_id}/{self.key}"

    def emit(self, event: Event | str, data: Payload) -> None:
        node = self.node
        try:
            routes = node.routes[event]  # type: ignore[index]
        except (KeyError, TypeError):  # an Event, or what is no event
            event = self.routine.event_name(event)
            routes = node.routes[event]
        if node.checks is not None:
            node.check_event(str(event), data)
        job = self.job
        if self.abandoned is not None or (job.halted and job.ended):
            raise self.unwanted()
        self.emitted += 1
        if not routes:
            self._put_out(str(event), data)
            return
        worker = node.worker
        sink = worker.sink
        last = routes[-1]
        for route in routes:
            payload = data if route is last else data.copy()
            if route.mapping is not None:
                payload = route.rename(payload)
            # The clock is read only for a slot whose policy looks at the times of items.
            time = worker.engine.now() if route.timed else self.started
            item = (worker.number(), route.slot, payload, job, route.source, time)
            job.add()
            try:
                code = route.offer(item)
            except BaseException:
                job.remove()
                raise
            if code == READY:
                worker.schedule(route.mailbox)
            elif code == PARKED:
                ended = job.park()
                if ended:
                    worker.at_rest(ended)
            elif code != QUEUED:
                self._unusual(code, route, item)
            if sink is not None:
                sink((Emitted, self.started, worker.worker_id, job, item[4], route.target, item[0]))
        if job.halted and job.ended:  # it ended while the items were on their way
            worker.sweep()
            raise self.unwanted()

    def data(self) -> Payload:
        """What it was given: the data of its one item, or those of each slot."""
        return self.batch[0][2] if len(self.batch) == 1 else dict(self.node.data_of(self.batch))

    def emit_failure(self, failure: BaseException) -> None:
        """Send what it had out of the event ``error``; the logic has failed, and has ended."""
        self.failure = failure
        self.abandoned = None  # a time-out has abandoned the logic, and not this
        self.emit(
            ERROR_EVENT,
            {
                "data": self.data(),
                "error": described_at(failure),
                "attempts": self.attempt,
                "routine": self.mailbox.routine_id,
            },
        )

    def send_output(self, output_type: str, data: Payload) -> None:
        worker = self.node.worker
        for member in self.job.members:
            time = worker.engine.driver.clock.time()
            worker.state.put_output(
                OutputRecord(time, member.job.job_id, self.mailbox.routine_id, output_type, data)
            )

    def takes_off(self) -> bool:
        """The logic begins; False if it was put back instead, and begins later."""
        return True

    def landed(self) -> None:
        """The logic has ended, one way or the other."""

    def once(self, name: str, call: Callable[[], Any]) -> Any:
        """What ``call`` has returned in this attempt or an earlier one."""
        if self.done_once is None:
            self.done_once = {}
        if name not in self.done_once:
            self.done_once[name] = call()
        return self.done_once[name]

    async def aonce(self, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        """:meth:`once` for coroutines."""
        if self.done_once is None:
            self.done_once = {}
        if name not in self.done_once:
            self.done_once[name] = await call()
        return self.done_once[name]

    async def acheckpoint(self, value: Any) -> None:
        self.checkpoint(value)

    def checkpoint(self, value: Any) -> None:
        """Note how far the logic has come. In memory everything that it did has taken effect already."""
        self.checkpointed = value

    def routine_stats(self, routine: Routine, state: Any) -> dict[str, Any]:
        state = self.node.worker.state if state is None else state
        routine_id = routine.routine_id or ""
        return {**state.get_routine_state(routine_id, {}), **state.counters(routine_id)}

    def ask_to_stop(self) -> bool:
        """Ask logic that runs somewhere else to stop; False if it cannot be asked."""
        cancel = self.cancel  # it is taken away by the thread on which the logic ends
        if cancel is None:
            return False
        try:
            cancel()
        except BaseException as error:  # noqa: BLE001 a runner that does not come with the package is user code
            who = f"the task runner of routine {self.mailbox.routine_id!r}"
            self.node.worker.engine.user_code_failed(who, error, "it was asked to stop an activation")
        return True

    def waits_itself(self, *, in_task: bool) -> bool:
        """Whether the calling thread or task is the one in which the logic was started, and not one that it has
        started. Taken for granted where that is not known, as of a runner that does not come with the package, and
        when the logic has ended."""
        node = self.node
        if node.runner is not None or self.failure is not None:
            return True
        return node.worker.engine.driver.runs_here(self, in_task=in_task)

    def cut_off(self) -> None:
        """The runtime ends, and does not wait for the logic any more."""

    def unwanted(self) -> BaseException:
        """Why what this activation produces is not wanted any more."""
        if self.abandoned is OVER:
            return NotInActivationError(
                f"an activation of routine {self.mailbox.routine_id!r} has ended, and a thread or task that it left "
                "behind still works for it; let the logic wait for its threads",
                routine_id=self.mailbox.routine_id,
            )
        if self.abandoned is not None:
            return self.abandoned
        jobs = ", ".join(f"{member.job.job_id} is {member.status}" for member in self.job.members)
        return JobCancelledError(
            f"routine {self.mailbox.routine_id!r} goes on for a job that has ended ({jobs}); what it emits is "
            "discarded. Look at current().cancelled, or let this exception end the logic",
            routine_id=self.mailbox.routine_id,
        )

    def _unusual(self, code: int, route: Route, item: Item) -> None:
        self.node.worker.accept(code, route.queue, item, self)

    def _put_out(self, event: str, data: Payload) -> None:
        output = Output(self.mailbox.routine_id, event, data)
        for member in self.job.members:
            member.job.add_output(output)
        if event == ERROR_EVENT:
            error = self.tell_unheard(data)
            for member in self.job.members:
                member.job.add_error(error)

    def tell_unheard(self, data: Payload) -> RoutiluxError:
        """Log what was emitted on an event ``error`` that nothing is connected to; the error that the job notes."""
        worker, routine_id, jobs = self.node.worker, self.mailbox.routine_id, job_ids_of(self.job)
        place = f"{routine_id}.{ERROR_EVENT}"
        texts = [data[key] for key in ("error", "reason") if isinstance(data.get(key), str) and data[key]]
        said = texts[0] if texts else shown(data)
        error = SlotHandlerError(
            f"event {place!r} of flow {worker.flow_id!r} is connected to nothing: {said[:LONGEST_REASON]}",
            routine_id=routine_id,
            event=ERROR_EVENT,
            job_ids=jobs,
            attempt=self.attempt,
            traceback=None if self.failure is None else traceback_of(self.failure),
        )
        if self.failure is not None:
            error.__cause__ = self.failure
            return error  # its failure is logged, with where it went
        kind = f"what was emitted on {place!r} of flow {worker.flow_id!r} reached no routine"
        worker.engine.failures.tell(
            WARNING,
            kind,
            lambda: f"{error} (job {jobs[0]})",
            about={"follows": "noted"},
            logger=FAILURES,
        )
        return error


class AsyncActivation(LiveActivation):
    """Asynchronous logic must not block its loop: what finds no room goes to an outbox.

    The runtime empties the outbox before the logic goes on after its next ``await``, so a producer that awaits
    anything is held back; one that never does gets an error when the outbox is full.
    """

    outbox: deque[tuple[Route, Item]] | None = None
    needs_loop = True

    def emit(self, event: Event | str, data: Payload) -> None:
        if self.outbox:
            self._emit_behind(event, data)
        else:
            super().emit(event, data)

    def emit_failure(self, failure: BaseException) -> None:
        """The logic has ended, and the outbox is not emptied any more: what finds no room goes beyond the capacity.

        That is at most one item for each activation that runs, as none starts while the slot is full.
        """
        super().emit_failure(failure)
        for route, item in self._taken_outbox():
            self.node.worker.put_in(route.mailbox, item)

    def _taken_outbox(self) -> deque[tuple[Route, Item]]:
        outbox, self.outbox = self.outbox, None
        return outbox or deque()

    def _emit_behind(self, event: Event | str, data: Payload) -> None:
        """Something waits in the outbox already: keep the order of emission behind it."""
        name = self.routine.event_name(event)
        if self.node.checks is not None:
            self.node.check_event(name, data)
        if self.abandoned is not None or self.job.ended:
            raise self.unwanted()
        self.emitted += 1
        routes = self.node.routes[name]
        if not routes:
            self._put_out(name, data)
        worker = self.node.worker
        for route in routes:
            payload = data.copy() if route.mapping is None else route.rename(data)
            item = (worker.number(), route.slot, payload, self.job, route.source, worker.engine.now())
            self.job.add()
            self._put_by(route, item)
            if worker.sink is not None:
                worker.sink(
                    (Emitted, self.started, worker.worker_id, self.job, item[4], route.target, item[0])
                )

    def _unusual(self, code: int, route: Route, item: Item) -> None:
        worker = self.node.worker
        if worker.must_wait(code, route.queue) and worker.engine.driver.on_loop():
            self._put_by(route, item)
        else:
            super()._unusual(code, route, item)

    def _put_by(self, route: Route, item: Item) -> None:
        if self.outbox is None:
            self.outbox = deque()
        if len(self.outbox) >= OUTBOX_LIMIT:
            item[3].remove()
            raise QueueFullError(
                f"async routine {self.mailbox.routine_id!r} has emitted {OUTBOX_LIMIT} items to full slots "
                f"({route.target}) without awaiting anything; write 'await asyncio.sleep(0)' in its loop, so that "
                "the runtime can hold it back",
                routine_id=self.mailbox.routine_id,
                slot=route.target,
            )
        self.outbox.append((route, item))


class TappedActivation(LiveActivation):
    """Shows to the worker's taps what it emits. A class of its own, so that without a tap nothing is asked."""

    def emit(self, event: Event | str, data: Payload) -> None:
        worker = self.node.worker
        emission = Emission(
            worker.engine.now(),
            worker.worker_id,
            job_ids_of(self.job),
            self.mailbox.routine_id,
            self.routine.event_name(event),
            data.copy(),
        )
        taps = worker.taps
        for tap in taps:
            tap.note(emission)
        try:
            super().emit(event, data)
        except BaseException:
            for tap in taps:
                tap.take_back(emission)
            raise


class TappedAsyncActivation(TappedActivation, AsyncActivation):
    pass


def activation_class(is_async: bool, *, tapped: bool) -> type[LiveActivation]:
    """What the mailbox of a routine makes its activations of."""
    if tapped:
        return TappedAsyncActivation if is_async else TappedActivation
    return AsyncActivation if is_async else LiveActivation
