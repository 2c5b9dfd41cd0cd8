"""One live instance of a flow: its nodes and routes, its state, its open jobs, and what becomes of them.

A worker decides nothing about items (its mailboxes do) and runs no logic (``turns`` does). It carries out the
effects: queueing what is ready, waking what waits for room, ending jobs, setting items aside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from routilux.errors import ExecutionError, ExecutionTimeoutError, QueueFullError, StoreError, again, describe
from routilux.kernel.account import Account, JobAccount
from routilux.kernel.mailbox import FULL, PARKED, QUEUED, READY, Mailbox, SlotQueue
from routilux.model.item import NOTED, DeadLetter, Item, ParkedItem, Payload
from routilux.model.policy import INCOMPLETE
from routilux.model.status import ExecutionStatus, JobStatus, WorkerStatus
from routilux.ports import Dropped, Emitted, JobChanged, KeyRow, Record, Row, Tap, WorkerChanged
from routilux.runtime import turns, waiting_for
from routilux.runtime.activation import COMPLETED, LiveActivation, Outcome, activation_class
from routilux.runtime.back_pressure import BackPressure
from routilux.runtime.failures import ERROR, FAILURES, WARNING
from routilux.runtime.gates import Gates
from routilux.runtime.job import JobContext, say_accepted
from routilux.runtime.letters import LETTER_LIMIT, Letters
from routilux.runtime.nodes import Node, build_nodes
from routilux.runtime.pool import RunQueue
from routilux.runtime.remains import Remains
from routilux.runtime.state import JobState, WorkerState, check_routine
from routilux.runtime.waiting import Bell, on_thread
from routilux.tracebacks import traceback_of

if TYPE_CHECKING:
    from routilux.model.flow import Flow
    from routilux.runtime.engine import Engine
    from routilux.runtime.posting import Reply
    from routilux.runtime.waiting import Lines, Waits

T = TypeVar("T")
NOT_RUN = "not run"  # the reason of dead letters that a worker has left when it ended


class Worker:
    """See the module's docstring. Implements what :class:`WorkerState` asks of its worker."""

    carry_out = turns.carry_out  # an activation on a thread, and what its mailbox has claimed behind it
    for_good = False  # it ends for good, and is not opened again
    is_refused = False  # it has ended before it had accepted anything
    is_nameless = False  # a store keeps it under an id that no caller has given
    journaled = False  # whether every step is written to a store
    is_elsewhere = False  # another runtime that shares the store runs it; this one asks it by commands
    failure: StoreError | None = None  # why this runtime has given it up, where that was not asked for

    def __init__(self, engine: Engine, flow: Flow, state: WorkerState) -> None:
        driver = engine.driver
        self.engine = engine
        self.runtime = engine.runtime
        self.flow = flow
        self.state = state
        self.worker_id = state.worker_id
        self.flow_id = flow.flow_id
        self.one_shot = isinstance(state, JobState)
        self.sink: Callable[[Row], object] | None = engine.sink  # takes records, if there are observers
        self.taps: tuple[Tap, ...] = ()
        self.bell = Bell(driver.signal, driver.clock.monotonic)
        self.rest = Bell(driver.signal, driver.clock.monotonic)  # rings only when nothing runs any more
        strategy = flow.execution_strategy or engine.default_strategy
        limit = 1 if strategy == "sequential" else flow.max_workers
        self.queue = RunQueue(self, limit, driver.lock())
        self.number = count(1).__next__
        self.nodes: dict[str, Node] = build_nodes(self, flow)
        self.joins_of_jobs = [node.mailbox for node in self.nodes.values() if node.joins_jobs]
        self.jobs: dict[str, JobContext] = {}  # the open ones
        self.letters = self.new_letters()
        self.retries: dict[LiveActivation, tuple[float, Any]] = {}  # when each is due, and its timer
        self.gates = Gates(self)
        self.back_pressure = BackPressure(self)
        self.held_up = False  # a routine waits for room in a slot that it feeds
        self.parked_shown: frozenset[int] = frozenset()  # numbers of items whose wait the user has been shown
        self.accepting = True
        self.closing = False  # only what runs is still waited for
        self.stopped = False
        self.execution_timer: Any = None
        self._waits_for = engine.waits_for  # bound once: every job has it
        self.drains = 0  # that go on now; moved under the lock
        self._drains_lock = driver.lock()

    @property
    def quantum(self) -> float:
        """How long a turn may be. In a sequential worker one activation, so that the order is the queue's."""
        return 0.0 if self.queue.limit == 1 else self.engine.driver.quantum

    # -- effects -------------------------------------------------------------------------------------------

    def schedule(self, mailbox: Mailbox) -> None:
        """A mailbox has work, and the caller holds the promise to see to it."""
        if mailbox.node.is_async and self.queue.limit is None:
            self.engine.driver.submit_async(mailbox)
        else:
            try:
                if self.queue.push(mailbox):
                    self.engine.driver.submit(self.queue)
            except BaseException:  # a Ctrl-C: the promise holds all the same
                self.queue.push_again(mailbox)
                self.engine.driver.submit(self.queue)
                raise
        if self.bell.waiting:
            self.bell.ring()

    def room(self, mailbox: Mailbox) -> None:
        """Slots of this routine have room again: those who feed them, or wait for a place in them, go on."""
        freed = mailbox.take_freed()
        if self.back_pressure.blocked:
            self.back_pressure.room(freed)
        for slot in freed:
            if slot.full:  # there is a place, but a start waits for more of them
                continue
            for feeder in slot.feeders:
                if feeder.look_again():
                    self.schedule(feeder)
        if self.bell.waiting:
            self.bell.ring()

    def changed(self) -> None:
        """Those that wait for room here, or for an end, look anew."""
        self.bell.ring()
        self.rest.ring()

    def came_to_rest(self) -> None:
        """Nothing runs any more: who waits for that looks, and so does what waits for room that may never come."""
        if self.held_up and self.resting():
            self.back_pressure.judge()
        if self.rest.waiting:
            self.rest.ring()

    def look_again(self, mailbox: Mailbox) -> None:
        if mailbox.look_again():
            self.schedule(mailbox)

    def timer_due(self, mailbox: Mailbox) -> None:
        if mailbox.timer_due():
            self.schedule(mailbox)

    def regathered(self, mailbox: Mailbox) -> None:
        """Items of a routine wait for others anew: those that they waited with are paused, gone or there again."""

    def new_letters(self) -> Letters:
        return Letters(self.engine.letter_room)

    def activation_type(self, is_async: bool, *, tapped: bool) -> type[LiveActivation]:
        """What a mailbox of this worker hands out."""
        return activation_class(is_async, tapped=tapped)

    def entrance(self, mailbox: Mailbox) -> Callable[[Item], int]:
        """How items get into a mailbox."""
        return mailbox.offer

    def keep_at_gate(self, mailbox: Mailbox, item: Item) -> bool:
        """A gate holds an item; False if there is no room for it."""
        return mailbox.hold(item)

    def new_job(self, job_id: str, account: JobAccount, metadata: Mapping[str, Any] | None) -> JobContext:
        """A job that is not entered in the book."""
        job = JobContext(job_id, self.worker_id, self.flow_id, account, self.engine.driver, metadata)
        job.waits_for = self._waits_for
        return job

    def may_begin(self, activation: LiveActivation) -> bool:
        """Whether an activation may start now; if not, it was put back and starts later."""
        return True

    def holds_back(self, mailbox: Mailbox) -> bool:
        """Whether nothing is to be started at the moment; then the worker sees to the mailbox later."""
        return False

    def seal(self, activation: LiveActivation) -> None:
        """Logic has ended well; raises what it leaves that cannot be kept."""

    def complete(self, activation: LiveActivation, now: float) -> bool:
        """Logic that ran somewhere else has ended well; True: its mailbox has more, and the caller sees to it."""
        return turns.end(self, activation, now, COMPLETED)

    def interrupted(self, activation: LiveActivation, error: BaseException) -> bool:
        """Whether it is not the logic that failed: what it did does not count, and it is to run again."""
        return False

    def run_again(self, activation: LiveActivation) -> bool:
        """Start an interrupted activation anew; True: its mailbox has more, and the caller sees to it."""
        raise AssertionError("no activation of a worker in memory is interrupted")

    def conclude(self, activation: LiveActivation, now: float, outcome: Outcome) -> bool:
        """An activation has ended for good, its items have, and whatever follows from how it ended.

        It is in the counters before any waiter hears that a job has ended by it. True: its mailbox has more, and the
        caller sees to it.
        """
        mailbox, members = activation.mailbox, activation.job.members
        name, error, noted, fatal, sent_on = outcome
        more = mailbox.finish(activation, now, name)
        if error is not None and not sent_on:
            if activation.job.ended:
                self.set_aside(mailbox, activation.batch)
            else:
                trace = traceback_of(noted or fatal or error)
                for item in activation.batch:
                    self.dead_letter(mailbox, item, name, error, trace)
        for member in members:
            told = outcome.noted_in(member)
            if told is not None:
                member.job.add_error(told)
        if fatal is not None:
            jobs = [member.job for member in members]
            self.end_jobs(jobs, JobStatus.FAILED, fatal, besides=activation.batch)
        self.settle(activation.batch)
        return more

    def merged_before(self, mailbox: Mailbox, slot: str) -> Payload:
        """What a merging slot has merged so far."""
        return mailbox.merged.get(slot, {})

    def renewed(self, activation: LiveActivation) -> bool:
        """Whether an activation that runs again has what it was first given; if not, it was put back until it can."""
        return True

    def unfit_to_run_again(self, activation: LiveActivation) -> BaseException | None:
        """Why a later attempt could not be given what this one was."""
        return None

    def retry_later(self, activation: LiveActivation, when: float, delay: float) -> bool:
        """An activation is to run again at this time, in ``delay`` seconds; ``attempt`` is counted up.

        True: its mailbox has more, and the caller sees to it.
        """
        more = activation.mailbox.stall(activation, retry=True)
        turns.arm_retry(self, activation, when)
        return more

    @property
    def leaves_what_fails(self) -> bool:
        """Whether an activation that raises now has not failed, but was cut off by the end, and runs again later."""
        return False

    def cut_off(self) -> None:
        """The worker has been closed, and nothing that still runs in it is waited for any more."""

    def trace(self, job: JobContext, action: str, **details: Any) -> None:
        """Note what the engine did with a job in the job's trace."""
        job.trace(action, **details)

    def give_up(self, mailbox: Mailbox, items: Sequence[Item]) -> None:
        """Items of ended jobs were found: they are set aside or dropped, and have ended."""
        self.set_aside(mailbox, items)
        self.settle(items)

    def settle(self, items: Iterable[Item]) -> None:
        """These items have ended. Neighbours of one job are settled together."""
        account, n = None, 0
        for item in items:
            if item[3] is account:
                n += 1
                continue
            if account is not None:
                self.at_rest(account.remove(n))
            account, n = item[3], 1
        if account is not None:
            self.at_rest(account.remove(n))

    def at_rest(self, accounts: Iterable[JobAccount]) -> None:
        """Nothing of these jobs moves any more: they are completed, unless a partial batch is released first."""
        for account in accounts:
            if account.status is JobStatus.COMPLETED:
                self._over(account.job)
                continue
            while self.flush_one():
                if not account.remove():
                    break
            else:
                for settled in account.settle():
                    self._over(settled.job)

    def flush_one(self) -> bool:
        """Release one partial batch, the one furthest upstream; False if there is none."""
        now = self.engine.now()
        for node in self.nodes.values():
            if node.mailbox.flush(now):
                self.schedule(node.mailbox)
                return True
        return False

    def set_taps(self, taps: tuple[Tap, ...]) -> None:
        """Show these what is emitted, by activations that start from now on."""
        for tap in taps:
            if tap not in self.taps:
                tap.watch(self.worker_id, self.flow)
        self.taps = taps
        for node in self.nodes.values():
            node.mailbox.make = self.activation_type(node.is_async, tapped=bool(taps))

    def observe(self, record: Record) -> None:
        if self.sink is not None:
            self.sink((type(record), *record))

    # -- items in ------------------------------------------------------------------------------------------

    def admit(
        self,
        node: Node,
        slot: str,
        payload: Payload,
        job: JobContext,
        deadline: float | None,
        lines: Lines | None,
        *,
        key: KeyRow | None = None,
        redriven: DeadLetter | None = None,
        reply: Reply | None = None,
    ) -> Waits[None] | None:
        """Put an item from outside into a slot; its job's account has been moved.

        None if it is in, else what that waits for. Where it raises nothing was accepted, and :meth:`refused` was
        called, unless its outcome is unknown (StoreUnknownError), or the error says that it is in
        (:func:`say_accepted`).
        """
        try:
            item: Item = (self.number(), slot, payload, job.account, "post", self.engine.now())
            queue = node.mailbox.slots[slot]
            code = FULL if lines is not None and queue in lines.waiting else node.offer(item)
            if code == FULL:
                if queue.on_full == "error":
                    raise self.full_error(queue)
                if queue.on_full == "block":
                    return self._wait_and_admit(node, queue, item, deadline, lines)
        except BaseException:
            self.refused(job)
            raise
        try:
            self._entered(code, queue, item)
        except BaseException as error:  # a Ctrl-C: others may have seen the item
            say_accepted(error, job)
            raise
        return None

    def _wait_and_admit(
        self, node: Node, queue: SlotQueue, item: Item, deadline: float | None, lines: Lines | None
    ) -> Waits[None]:
        job: JobContext = item[3].job
        accepted = False

        def offer() -> int:
            nonlocal accepted
            code: int = node.offer(item)
            if code != FULL:
                accepted = True
                self._entered(code, queue, item)
            return code

        try:
            yield from self.back_pressure.waits_to_post(queue, offer, job, deadline, lines)
        except BaseException as error:
            if accepted:
                say_accepted(error, job)
            else:
                self.refused(job)
            raise

    def _entered(self, code: int, slot: SlotQueue, item: Item) -> None:
        """An item from outside is in, or is not to wait until it is."""
        if code == READY:
            self.schedule(slot.mailbox)
        elif code != QUEUED:
            self.accept(code, slot, item, None)
        if self.held_up and not self.queue.in_flight:
            self.came_to_rest()
        if self.sink is not None:
            self.observe_post(item, slot)

    def refused(self, job: JobContext) -> None:
        """A post was refused: its own credit is taken back, and the job only if nothing else was posted into it."""
        if job.account.refuse():
            self.jobs.pop(job.job_id, None)
            self.engine.book.refuse(job)
            if self.one_shot:
                self.discard()
        self.at_rest(job.account.remove())

    def accept(self, code: int, slot: SlotQueue, item: Item, activation: LiveActivation | None) -> None:
        """What an offer said, where it is not simply QUEUED."""
        if code == READY:
            self.schedule(slot.mailbox)
        elif code == PARKED:
            ended = item[3].park()
            if ended:
                self.at_rest(ended)
        elif code == FULL:
            self._enter_full(slot, item, activation)

    def put_in(self, mailbox: Mailbox, item: Item) -> int:
        """Queue an item, whatever the capacity says; its account has been moved. QUEUED, READY or PARKED."""
        code, ended = mailbox.restore(item)
        if ended:
            self.at_rest(ended)
        if code == READY:
            self.schedule(mailbox)
        return code

    def must_wait(self, code: int, slot: SlotQueue) -> bool:
        return code == FULL and slot.on_full == "block"

    def _enter_full(self, slot: SlotQueue, item: Item, activation: LiveActivation | None) -> None:
        match slot.on_full:
            case "error":
                item[3].remove()
                raise self.full_error(slot)
            case "drop_new":
                slot.mailbox.drop(slot.name)
                self.dropped(item, slot, "slot full, newest dropped")
                self.settle([item])
            case "drop_old":
                self._displace(slot, item)
            case _:
                offer = partial(self._offer_and_accept, slot, item, activation)
                self.back_pressure.wait_inside(slot, offer, activation, refused=item[3].remove)

    def _offer_and_accept(self, slot: SlotQueue, item: Item, activation: LiveActivation | None) -> int:
        code: int = slot.mailbox.node.offer(item)
        if code != FULL:
            self.accept(code, slot, item, activation)
        return code

    def _displace(self, slot: SlotQueue, item: Item) -> None:
        code = FULL
        while code == FULL:
            oldest, at_rest = slot.mailbox.displace(slot.name)
            if oldest is not None:
                self.dropped(oldest, slot, "slot full, oldest dropped")
                self.settle([oldest])
            self.at_rest(at_rest)
            code = slot.mailbox.offer(item)
        if slot.mailbox.freed:
            self.room(slot.mailbox)
        self.accept(code, slot, item, None)

    def takes_beyond(self, mailbox: Mailbox) -> bool:
        """Whether more than its slots hold is of use to this routine: it finds there what those in them wait for."""
        return False

    def stands_still(self, *, inside: bool, timeouts: bool) -> bool:
        """Whether nothing that runs or waits for a time here can make room; ``inside``: for an activation;
        ``timeouts``: those of incomplete sets count as well."""
        return self.back_pressure.stands_still(inside=inside, timeouts=timeouts)

    def full_error(self, slot: SlotQueue, why: str = "it is full", fix: str = "") -> QueueFullError:
        if self.queue.paused:
            why = f"{why}, and the worker is paused, until runtime.resume()"
        if not fix:
            wait = "on_full='block' to wait" if slot.on_full == "error" else "post() a longer timeout"
            fix = (
                f"Give it a larger max_queue_length, {wait}, or on_full='drop_old' if the newest matter most"
            )
        return QueueFullError(
            f"slot {slot.qualified_name!r} of flow {self.flow.flow_id!r} holds {slot.length} of at most "
            f"{slot.capacity} items: {why}. {fix}",
            flow_id=self.flow.flow_id,
            slot=slot.qualified_name,
            worker_id=self.worker_id,
        )

    # -- jobs ----------------------------------------------------------------------------------------------

    def started(self, account: Any) -> None:
        """The first activation of a job begins."""
        for member in account.members:
            if member.status is JobStatus.PENDING and member.start():
                self.engine.book.started(member.job)
                if self.one_shot and self.state.status is ExecutionStatus.PENDING:
                    self.state.status = ExecutionStatus.RUNNING
                if self.sink is not None:
                    self._tell(member.job, JobStatus.RUNNING)

    def end_job(self, job: JobContext, status: JobStatus, error: BaseException | None = None) -> bool:
        """Fail or cancel a job at once; False if it has ended already. What is queued of it is taken out."""
        return bool(self.end_jobs([job], status, error))

    def end_jobs(
        self,
        jobs: Iterable[JobContext],
        status: JobStatus,
        error: BaseException | None = None,
        *,
        besides: Iterable[Item] = (),
    ) -> list[JobContext]:
        """Fail or cancel jobs at once; those that had not ended yet. ``besides``: items of theirs that have just ended
        and are still counted. A job that has no others is not looked for in the queues, which may be long."""
        ended = self.mark_ended(jobs, status, error)
        if ended:
            counted = Counter(member for item in besides for member in item[3].members)
            if any(job.account.active + job.account.parked > counted[job.account] for job in ended):
                self.sweep()
                for activation in self.engine.running():
                    if activation.job.ended:
                        activation.ask_to_stop()
            for job in ended:
                self._over(job)
            if any(node.mailbox.keeps_back for node in self.nodes.values()):
                self.let_resumed_go()  # what they shared with others, if they were paused
        return ended

    def mark_ended(
        self, jobs: Iterable[JobContext], status: JobStatus, error: BaseException | None
    ) -> list[JobContext]:
        """Jobs fail or are cancelled; those that had not ended yet. Nothing of them has been taken out so far."""
        ended = [job for job in jobs if job.account.end(status)]
        for job in ended:
            job.error = error
        return ended

    def cancel_job(self, job: JobContext) -> None:
        self.end_job(job, JobStatus.CANCELLED)

    def stored_job(self, job_id: str) -> JobContext | None:
        """A job that is not in the book, from the store."""
        return None

    def key(self, idempotency_key: str, place: str, payload: Payload, metadata: Any) -> KeyRow | None:
        """The row of a key, where keys are stored."""
        return None

    def job_of_key(self, key: KeyRow, payload: Payload) -> JobContext | None:
        """The job that a stored key names. Raises IdempotencyConflictError if it came with something else."""
        return None

    def flush(self, deadline: float | None = None) -> None:
        """Return when everything that has happened until now is kept as safely as it will be.

        On the event loop of the runtime it does not wait: that would hold up all asynchronous logic.
        """
        if not self.engine.driver.on_loop():
            on_thread(self.waits_to_flush(deadline))

    def waits_to_flush(self, deadline: float | None = None) -> Waits[None]:
        """:meth:`flush`, for threads and tasks. Raises StoreError at the deadline."""
        yield from ()

    def check_kept(self) -> None:
        """Raise why nothing of this worker is kept any more, if so."""
        if self.failure is not None:
            raise again(self.failure)

    def sweep(self) -> None:
        """Take out everything that belongs only to jobs that have ended."""
        for node in self.nodes.values():
            mailbox = node.mailbox
            items, at_rest = mailbox.extract(_item_ended)
            withdrawn: Any = mailbox.withdraw(_activation_ended)
            for activation in withdrawn:
                self.drop_activation(activation)
                items = [*items, *activation.batch]
            if items:
                self.give_up(mailbox, items)
                self.room(mailbox)
                self.look_again(mailbox)
                self.regathered(mailbox)
            self.at_rest(at_rest)

    def set_aside(self, mailbox: Mailbox, items: Iterable[Item]) -> None:
        """Items of ended jobs: those of failed jobs become dead letters, those of cancelled ones are gone."""
        for item in items:
            failed = [m for m in item[3].members if m.status is JobStatus.FAILED]
            if failed:
                self.dead_letter(mailbox, item, "job failed", failed[0].job.error)
            elif self.sink is not None:
                self.dropped(item, mailbox.slots[item[1]], "job cancelled")

    def dead_letter(
        self,
        mailbox: Mailbox,
        item: Item,
        reason: str,
        error: BaseException | None,
        traceback: str | None = None,
    ) -> None:
        """Set an item aside. ``traceback`` is that of the error, where it is not the error's own."""
        self.keep_letter(
            DeadLetter(
                self.worker_id,
                self.flow.flow_id,
                mailbox.routine_id,
                item[1],
                item[2],
                tuple(member.job.job_id for member in item[3].members),
                reason,
                None if error is None else describe(error),
                self.engine.driver.clock.time(),
                item[0],
                traceback or (None if error is None else traceback_of(error)),
            )
        )
        if reason not in NOTED:
            why = None if reason == NOT_RUN else error  # that of an earlier attempt has been told
            lost = self.tell_lost(mailbox.node.places[item[1]], reason, why, item[3])
            for member in item[3].members:
                member.job.add_error(lost)
        self.dropped(item, mailbox.slots[item[1]], f"dead letter: {reason}")

    def keep_letter(self, letter: DeadLetter) -> None:
        for dropped in self.letters.add(letter):
            self._tell_dropped(dropped)

    def _tell_dropped(self, letter: DeadLetter) -> None:
        """There was no room for the oldest dead letter any more."""

        def message() -> str:
            most = f"{LETTER_LIMIT:,} of a worker, and {self.engine.letter_room.max_bytes:,} bytes"
            return (
                f"the oldest dead letter is dropped: item {letter.item_id} of {letter.routine_id}.{letter.slot} "
                f"(worker {letter.worker_id}). At most {most} of a runtime are kept: redrive() them in time, give the "
                "runtime a larger max_dead_letter_bytes, or a store, which keeps all"
            )

        kind = f"dead letters of flow {letter.flow_id!r} were dropped"
        self.engine.failures.tell(WARNING, kind, message, about={"follows": "dropped"})

    def tell_lost(
        self, place: str, reason: str, error: BaseException | None, account: Account
    ) -> BaseException:
        """The error that the jobs of an item note when it is set aside although no logic has failed on it."""
        said = f"an item of {place!r} was set aside: {reason if error is None else describe(error)}"
        if error is not None:
            jobs = ", ".join(member.job.job_id for member in account.members)
            logged = f"{said} (flow {self.flow_id!r}, worker {self.worker_id}, job {jobs})"
            kind = f"items of {place!r} of flow {self.flow_id!r} were set aside: {reason}"
            self.engine.failures.tell(
                WARNING, kind, lambda: logged, about={"follows": reason}, logger=FAILURES
            )
        return ExecutionError(said, worker_id=self.worker_id, slot=place)

    def dropped(self, item: Item, slot: SlotQueue, reason: str) -> None:
        jobs = [member.job for member in item[3].members]
        for job in jobs:
            self.trace(job, "dropped", slot=slot.qualified_name, item=item[0], reason=reason)
        if self.sink is not None:
            ids = tuple(job.job_id for job in jobs)
            now = self.engine.now()
            self.observe(Dropped(now, self.worker_id, ids, slot.qualified_name, item[0], reason))

    def drop_activation(self, activation: LiveActivation) -> None:
        """It will not run again: its jobs have ended."""
        self.forget_retry(activation)

    def forget_retry(self, activation: LiveActivation) -> None:
        self.gates.activations.pop(activation, None)
        _, timer = self.retries.pop(activation, (0.0, None))
        if timer is not None:
            timer.cancel()

    def _over(self, job: JobContext) -> None:
        if job.account.parked:
            self._give_up_joins(job.account)
        if self.one_shot:
            self.state.status = ExecutionStatus(job.status.value)
            self.end_execution(job)
            self.engine.book.ended(job, self.worker_id, self.state.kept_size())
        else:
            self.engine.book.ended(job)
        self.jobs.pop(job.job_id, None)
        if self.sink is not None:
            self._tell(job, job.status)
        if self.bell.waiting:
            self.bell.ring()
        if self.rest.waiting and not self.queue.in_flight:  # else what is in flight rings when it leaves
            self.rest.ring()

    def end_execution(self, job: JobContext) -> None:
        """The one job of this worker has ended, and nothing can join what is still parked of it."""
        remains = Remains([self]) if job.account.parked else None
        self.close()
        lost = "" if remains is None else remains.sentence()
        if lost:
            kind = f"executions of flow {self.flow_id!r} ended with items that were still parked"
            said = f"execution {self.worker_id!r} of flow {self.flow_id!r} ended with work left: {lost}"
            self.engine.failures.tell(WARNING, kind, lambda: said, about={"follows": INCOMPLETE})

    def _give_up_joins(self, account: JobAccount) -> None:
        """A job has ended: what waits for partners of the same jobs, all of which have ended, waits in vain."""
        for mailbox in self.joins_of_jobs:
            items = mailbox.incomplete(account)
            if items:
                self.leave_incomplete(mailbox, items)
                self.room(mailbox)

    def leave_incomplete(self, mailbox: Mailbox, items: Sequence[Item]) -> None:
        """No partner of these items can come any more: they become dead letters, and have ended."""
        for item in items:
            self.dead_letter(mailbox, item, INCOMPLETE, None)
        self.settle(items)

    def observe_post(self, item: Item, slot: SlotQueue) -> None:
        self.observe(JobChanged(item[5], self.worker_id, item[3].job.job_id, JobStatus.PENDING.value))
        self.observe(Emitted(item[5], self.worker_id, item[3], "post", slot.qualified_name, item[0]))

    def _tell(self, job: JobContext, status: JobStatus) -> None:
        self.observe(JobChanged(self.engine.now(), self.worker_id, job.job_id, status.value))

    # -- pause, drain, stop --------------------------------------------------------------------------------

    def hold(self) -> None:
        """Start nothing any more."""
        self.queue.hold()

    def release(self) -> None:
        self._go_on_with(self.queue.resume())

    @contextmanager
    def held_for_a_cut(self) -> Iterator[None]:
        """Start nothing within the block, also if it is resumed meanwhile; what was paused, or is, stays so."""
        self.queue.begin_cut()
        try:
            yield
        finally:
            self._go_on_with(self.queue.end_cut())

    def _go_on_with(self, ready: Iterable[Mailbox]) -> None:
        for mailbox in ready:
            self.schedule(mailbox)
        self.changed()

    @property
    def holds_work(self) -> bool:
        return bool(self.jobs) or any(node.mailbox.parked_items() for node in self.nodes.values())

    @property
    def takes_posts(self) -> bool:
        """While it is drained to be stopped it takes those of its own logic, which are part of what it has accepted."""
        drains = not (self.accepting or self.closing or self.stopped or self.for_good)
        return self.accepting or (drains and self.engine.is_called_by_logic(self))

    @property
    def is_over(self) -> bool:
        """Whether it was a one-shot execution and has ended."""
        return self.one_shot and ExecutionStatus(self.state.status).finished

    def waits_to_change_pause(
        self, paused: bool, deadline: float | None = None, reply: Reply | None = None
    ) -> Waits[None]:
        """Pause, or go on. With a store it is written when this returns; raises what the store refused it with, or
        StoreError at the deadline."""
        self.obey_pause(paused)
        yield from ()

    def obey_pause(self, paused: bool) -> None:
        if self.stopped:
            return
        if paused:
            self.hold()
            self.show_status(type(self.state.status)("paused"))
            return
        if self.state.status == "paused":
            self.show_status(type(self.state.status)("running"))
        self.release()

    def waits_to_change_job_pause(
        self, job: JobContext, paused: bool, deadline: float | None = None, reply: Reply | None = None
    ) -> Waits[None]:
        """The same for one job."""
        self.obey_job_pause(job, paused)
        yield from ()

    def obey_job_pause(self, job: JobContext, paused: bool) -> None:
        job.account.pause(paused and not job.status.finished)
        if not paused:
            self.let_resumed_go()

    def let_resumed_go(self) -> None:
        """Jobs are not paused any more: queue again what was kept back of them."""
        for node in self.nodes.values():
            more, ended = node.mailbox.release_held()
            if more:
                self.schedule(node.mailbox)
            self.at_rest(ended)
            self.regathered(node.mailbox)
        self.changed()

    def set_status(self, status: WorkerStatus | ExecutionStatus) -> None:
        self.show_status(status)

    def show_status(self, status: WorkerStatus | ExecutionStatus) -> None:
        self.state.status = status
        if self.sink is not None:
            self.observe(WorkerChanged(self.engine.now(), self.worker_id, self.flow.flow_id, status.value))

    def resting(self) -> bool:
        return self.queue.in_flight == 0

    def quiet(self) -> bool:
        """Whether nothing runs, is due, or waits for a time."""
        return self.resting() and not any(node.mailbox.can_move() for node in self.nodes.values())

    @property
    def is_held(self) -> bool:
        """Whether something waits for a pause to end, or for a gate."""
        if self.queue.paused or self.gates.activations:
            return True
        return any(node.mailbox.keeps_back for node in self.nodes.values())

    def at_a_stop(self) -> bool:
        """Whether nothing moves on its own any more: it runs, is due, or waits for a time that no drain hurries.

        What a pause or a gate holds does not move on its own, and neither does ``emit()`` or ``post()`` that waits for
        room behind it, in this worker or another. The mailboxes are looked at one after the other; the picture is
        valid if nothing was started meanwhile.
        """
        mailboxes = [node.mailbox for node in self.nodes.values()]
        starts = sum(mailbox.starts for mailbox in mailboxes)
        resting = self.resting()
        if not (resting or self._all_wait_inside()) or self._goes_on():
            return False
        if resting and not self.queue.paused and any(mailbox.queued for mailbox in mailboxes):
            return False  # a post has put an item in, and is about to have it seen to
        return self.queue.paused or starts == sum(mailbox.starts for mailbox in mailboxes)

    def _all_wait_inside(self) -> bool:
        """Whether all that runs waits in ``emit()`` or ``post()`` for room, behind what a pause or a gate holds."""
        if not self.back_pressure.blocked:
            return False
        workers = self.back_pressure.waited_for()
        if not any(worker.is_held for worker in workers):
            return False
        moving = any(worker._goes_on() for worker in workers if worker is not self)  # noqa: SLF001
        return not moving and all(worker.back_pressure.all_wait(own=False) for worker in workers)

    def _goes_on(self) -> bool:
        """Whether something here moves although nothing that runs ends."""
        if self.queue.paused:
            return False
        at_gates = Counter(activation.mailbox for activation in list(self.gates.activations))
        return any(node.mailbox.goes_on(at_gates[node.mailbox]) for node in self.nodes.values())

    def happened(self) -> int:
        """Grows with every item that comes in and every activation that starts."""
        mailboxes = [node.mailbox for node in self.nodes.values()]
        received = sum(slot.received for mailbox in mailboxes for slot in mailbox.slots.values())
        return received + sum(mailbox.starts for mailbox in mailboxes)

    def misses_items(self) -> bool:
        """Whether an open job counts items that are in no slot: a post has yet to put them there. Nothing runs."""
        found: Counter[JobAccount] = Counter()
        for node in self.nodes.values():
            items, activations, _ = node.mailbox.snapshot()
            queued = [*items, *(item for activation in activations for item in activation.batch)]
            found.update(member for item in queued for member in item[3].members)
        accounts = [job.account for job in list(self.jobs.values())]
        return any(account.active + account.parked > found[account] for account in accounts)

    def waits_to_drain(self, deadline: float | None) -> Waits[bool]:
        """Return when nothing moves on its own any more, partial batches included; False at the deadline."""
        with self._draining():
            while (yield from self.rest.waits_for(self.at_a_stop, deadline)):
                if self.queue.paused or not (self.flush_one() or self.back_pressure.judge()):
                    if self.at_a_stop():
                        return True
            return False

    @contextmanager
    def _draining(self) -> Iterator[None]:
        """Policies that were asked to release what they hold are told so until the last drain has ended."""
        with self._drains_lock:
            self.drains += 1
        try:
            yield
        finally:
            with self._drains_lock:
                self.drains -= 1
                last = not self.drains
            if last:
                self.end_flush()

    def end_flush(self) -> None:
        """Policies are not asked any more to release what they hold, unless a drain goes on."""
        if not self.drains:
            for node in self.nodes.values():
                node.mailbox.end_flush()

    def cancel_jobs(self) -> None:
        self.end_jobs(list(self.jobs.values()), JobStatus.CANCELLED)

    def end_drained(self) -> None:
        """A drain has done what it could, and the worker ends: what is left in it is not lost without a trace."""
        left = self.set_rest_aside()
        self.cancel_jobs()
        self.settle(left)

    def set_rest_aside(self) -> list[Item]:
        """What is left becomes dead letters: ``incomplete`` where it waited for other items, else ``not run``."""
        left: list[Item] = []
        for node in self.nodes.values():
            mailbox = node.mailbox
            parked = {item[0] for item in mailbox.parked_items()}
            items, _ = mailbox.extract(lambda item: True)
            withdrawn: Any = mailbox.withdraw(lambda activation: True)
            for item in items:
                self.dead_letter(mailbox, item, INCOMPLETE if item[0] in parked else NOT_RUN, None)
            left += items
            for activation in withdrawn:
                self.drop_activation(activation)
                self._set_withdrawn_aside(mailbox, activation)
                left += activation.batch
        return left

    def _set_withdrawn_aside(self, mailbox: Mailbox, activation: LiveActivation) -> None:
        """It will not be tried again: its letters and its jobs say how it failed last, if it has run."""
        error, noted = (None, None) if activation.retried is None else activation.retried[1:3]
        for member in activation.job.members:
            if noted is not None:
                member.job.add_error(noted)
        trace = None if noted is None else traceback_of(noted)
        for item in activation.batch:
            self.dead_letter(mailbox, item, NOT_RUN, error, trace)

    def cancel(self) -> None:
        """Cancel every job, and end for good."""
        self.accepting = False
        self.for_good = True
        self.cancel_jobs()
        self.close()

    def discard(self) -> None:
        """It was not to be: end it, and leave nothing of it."""
        self.is_refused = True
        self.close()

    def close(self) -> None:
        """The end: hand out nothing any more, and let the flow be changed again."""
        if self.stopped:
            return
        self.stopped, self.closing, self.accepting = True, True, False
        self.queue.hold()
        for node in self.nodes.values():
            node.mailbox.close()
        for activation in [*self.retries, *self.gates.activations]:
            self.forget_retry(activation)
        if self.execution_timer is not None:
            self.execution_timer.cancel()
        self.cancel_jobs()  # that were posted in between
        self.settle(self.set_rest_aside())
        self.flow.let_go(self.worker_id)
        self.set_status(self.state.status if self.one_shot else WorkerStatus.STOPPED)
        self.engine.worker_ended(self)
        self.changed()

    def wait_until_stopped(self, timeout: float | None) -> bool:
        self.engine.refuse_inside("wait()")
        deadline = self.engine.deadline(timeout)
        return self.bell.wait_for(lambda: self.stopped, deadline)

    def fail_after(self, seconds: float) -> None:
        """The one job of this worker may take this long."""

        def too_long() -> None:
            for job in list(self.jobs.values()):
                error = ExecutionTimeoutError(
                    f"the execution of flow {self.flow.flow_id!r} has not ended within {seconds} s; give it a longer "
                    "time-out, or look at job.trace_log and execution_history for what took so long",
                    flow_id=self.flow.flow_id,
                    worker_id=self.worker_id,
                )
                kind = f"an execution of flow {self.flow_id!r} took too long"
                self.engine.failures.tell(
                    ERROR,
                    kind,
                    partial(_job_fails, job, error),
                    about={"follows": "the job fails"},
                    logger=FAILURES,
                )
                self.end_job(job, JobStatus.FAILED, error)

        self.execution_timer = self.engine.driver.call_at(self.engine.now() + seconds, too_long)

    def forget_engine(self, gone: Any) -> None:
        """Called in a forked child: nothing of the runtime may be touched any more."""
        self.engine = gone
        self.flow.let_go(self.worker_id)

    # -- looking in ----------------------------------------------------------------------------------------

    def running(self) -> list[LiveActivation]:
        return [a for a in self.engine.running() if a.node.worker is self]

    def counters(self, routine_id: str) -> dict[str, Any]:
        return self.nodes[routine_id].counters()

    def check_routine(self, routine_id: str, fix: str = "") -> None:
        check_routine(routine_id, self.nodes, self.flow_id, fix)

    def parked_items(self) -> list[ParkedItem]:
        mailboxes = [node.mailbox for node in self.nodes.values()]
        self.parked_shown = frozenset(item[0] for mailbox in mailboxes for item in mailbox.parked_items())
        return list(waiting_for.parked_items(self))

    def snapshot(self, use: Callable[[dict[str, Any]], T]) -> T:
        return self.engine.snapshot(self, use)


def _job_fails(job: JobContext, error: BaseException) -> str:
    return f"{error}; the job fails (worker {job.worker_id}, job {job.job_id})"


def _item_ended(item: Item) -> bool:
    ended: bool = item[3].ended
    return ended


def _activation_ended(activation: Any) -> bool:
    ended: bool = activation.job.ended
    return ended
