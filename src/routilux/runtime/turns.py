"""Turns: running the activations that a mailbox hands out, and what follows from how each ends.

``run`` is the hot path: one turn keeps a routine on one thread for up to a quantum, so that a hop costs no
hand-off between threads. User code runs here, outside every lock, and nowhere else.
"""

from __future__ import annotations

from itertools import count
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any

from routilux.errors import (
    ExecutionTimeoutError,
    JobCancelledError,
    SlotHandlerError,
    describe,
    name_of,
    shown,
)
from routilux.kernel.activation import OVER, Activation
from routilux.kernel.gathering import Decide, Later
from routilux.kernel.mailbox import Discard, Mailbox
from routilux.model.context import running
from routilux.model.decision import WAIT, Decision, WaitUntil, check_decision
from routilux.model.policy import INCOMPLETE
from routilux.model.recovery import ERROR_EVENT, Continue, Emit, Retry, Skip, Stop
from routilux.model.slot import merge
from routilux.model.status import JobStatus
from routilux.ports import Activated, Task
from routilux.runtime.activation import LiveActivation, Outcome
from routilux.runtime.failures import ERROR, FAILURES, WARNING, failed_with
from routilux.runtime.incomplete import IncompleteSetError
from routilux.tracebacks import described_at, drop_frames, headline, is_a, traceback_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from routilux.kernel.account import JobAccount
    from routilux.model.recovery import ErrorDecision
    from routilux.runtime.nodes import Node
    from routilux.runtime.pool import RunQueue, Seat
    from routilux.runtime.worker import Worker

_PENDING = JobStatus.PENDING
_FAILS = "the job fails"
_LONGEST_DATA = 200  # characters of what was set aside, in a log
set_running = running.set


def run(queue: RunQueue, mailbox: Mailbox, seat: Seat) -> None:
    """Turns of a worker's routines on a thread of the pool, for one quantum altogether."""
    worker: Worker = queue.worker
    clock, driver = worker.engine.now, worker.engine.driver
    limit = clock() + worker.quantum
    ready: Mailbox | None = mailbox
    while ready is not None:
        if ready.node.detached:
            launch(worker, ready, once=queue.limit is not None)
            break
        if _turn(worker, ready, seat, limit):
            worker.schedule(ready)
        ready = queue.follow() if queue.ready and clock() < limit and driver.may_follow(queue) else None
    seat.activation = None
    leave(worker)


def leave(worker: Worker) -> None:
    """A thread or a task is done with a worker for now."""
    if worker.queue.leave():
        worker.engine.driver.submit(worker.queue)
    if worker.bell.waiting:
        worker.bell.ring()
    if (worker.rest.waiting or worker.held_up) and not worker.queue.in_flight:
        worker.came_to_rest()


def _turn(worker: Worker, mailbox: Mailbox, seat: Seat, limit: float) -> bool:
    """Run activations until there is none or the time is over; True: the mailbox has more."""
    now = worker.engine.now()
    seat.activation = None
    try:
        while True:
            if worker.journaled and worker.holds_back(mailbox):
                return False
            answer = mailbox.next(now)
            if not isinstance(answer, Activation):
                if mailbox.freed:
                    worker.room(mailbox)
                if answer is None:
                    return mailbox.waiting and _is_held_up(worker, mailbox, now)
                if not _answer(worker, mailbox, answer, now):
                    return False
                continue
            seat.activation = answer
            if mailbox.freed:
                worker.room(mailbox)
            if answer.spare:
                worker.schedule(mailbox)
            more, now = worker.carry_out(mailbox, seat, answer, limit)
            if mailbox.freed:
                worker.room(mailbox)
            if not more:
                return False
            if now >= limit or worker.queue.held:
                return True
    except BaseException as fault:  # noqa: BLE001 the thread goes on, whatever this is
        return broken_off(worker, mailbox, seat.activation, fault)


def carry_out(
    worker: Worker, mailbox: Mailbox, seat: Seat, activation: Any, limit: float
) -> tuple[bool, float]:
    """An activation, and what its mailbox has claimed behind it: no lock is taken between them.

    Returns whether the mailbox has more, which the caller sees to, and the time.
    """
    node: Node = mailbox.node
    logic, state, clock, single = node.logic, worker.state, worker.engine.now, node.single
    routine_id, queue, bell = mailbox.routine_id, worker.queue, worker.bell
    sink, worker_id = worker.sink, worker.worker_id
    note = state.history.append
    go_on = mailbox.exchange if mailbox.exchanges and single else mailbox.follow
    unsettled = 0  # ended items of the job of ``activation``, still counted as active
    while True:
        batch, job = activation.batch, activation.job
        if job.status is _PENDING:
            worker.started(job)
        context = job.context.copy()
        context.run(set_running, activation)
        if single:
            item = batch[0]
            slot_data = {item[1]: [item[2]]}
        else:
            slot_data = node.data_of(batch)
        try:
            if (job.halted and put_back(activation)) or (
                node.guarded and not begin(worker, activation, slot_data)  # a gate keeps it
            ):
                worker.at_rest(job.remove(unsettled) if unsettled else ())
                return False, clock()
            if (result := context.run(logic, slot_data, activation.message, state)) is not None:
                tell_of_result(activation, result)
            if node.guarded:
                end_guarded(activation)
        except BaseException as error:  # noqa: BLE001 user code may raise anything, SystemExit included
            now = clock()
            if unsettled:
                worker.at_rest(job.remove(unsettled))
            return failed(worker, activation, error, now), now
        activation.abandoned = OVER
        now = clock()
        note((routine_id, job, activation.started, now, "completed", activation.attempt, None))
        if sink is not None:
            duration = now - activation.started
            sink((Activated, now, worker_id, job, routine_id, activation.attempt, duration, "completed"))
        following: Any = go_on(activation, now) if now < limit and not queue.held else None
        if following is None:
            break
        seat.activation = activation = following
        if following.spare:
            worker.schedule(mailbox)
        if mailbox.freed:
            worker.room(mailbox)
        unsettled += 1
        if activation.job is not job:
            ended = job.remove(unsettled)
            unsettled = 0
            if ended:
                worker.at_rest(ended)
    more = mailbox.finish(activation, now)
    if single:
        ended = job.remove(unsettled + 1)
        if ended:
            worker.at_rest(ended)
    else:
        worker.settle(batch)
    if bell.waiting:
        bell.ring()
    return more, now


# -- before logic ------------------------------------------------------------------------------------------


def put_back(activation: LiveActivation) -> bool:
    """A job is over or paused since this was handed out: it must not start any more, or not yet.

    The caller that pauses or ends a job sets that first and looks at what runs then; here it is the other way round.
    """
    worker, mailbox, job = activation.node.worker, activation.mailbox, activation.job
    over = job.ended
    if not over and not job.paused:
        return False
    if activation.timer is not None:
        activation.timer.cancel()
    activation.merged = None
    if mailbox.put_back(activation, over):
        worker.schedule(mailbox)
    if over:
        worker.drop_activation(activation)
        worker.give_up(mailbox, activation.batch)
    return True


def begin(worker: Worker, activation: LiveActivation, slot_data: dict[str, Any]) -> bool:
    """The longer way to a start: gate, merged slots, time-out. False if a gate keeps the activation."""
    mailbox, node = activation.mailbox, activation.node
    if not worker.may_begin(activation):
        return False
    if mailbox.gate is not None and not activation.released:
        if mailbox.gate.holds_activation(worker.worker_id, mailbox.routine_id, slot_data):
            if mailbox.stall(activation, retry=False):
                worker.schedule(mailbox)
            worker.gates.activations[activation] = None
            if activation.job.ended or worker.stopped:  # it ended while the gate was asked
                worker.sweep()
                worker.forget_retry(activation)  # it may have been withdrawn before it was noted
            elif mailbox.gate is None:  # the gate was taken away meanwhile
                worker.gates.let_go(node, everything=True)
            return False
    if node.merges:
        _merge(mailbox, activation, slot_data)
    if node.timeout is not None:
        when = worker.engine.now() + node.timeout
        activation.timer = worker.engine.driver.call_at(when, lambda: _timed_out(worker, activation))
    return True


def _merge(mailbox: Mailbox, activation: LiveActivation, slot_data: dict[str, Any]) -> None:
    """Put the payloads of merging slots together with what the worker has merged before."""
    activation.merged = {}
    for slot, strategy in activation.node.merges.items():
        payloads = slot_data.get(slot)
        if payloads:
            merged = activation.node.worker.merged_before(mailbox, slot)
            for payload in payloads:
                merged = merge(strategy, merged, payload)
            slot_data[slot] = [merged]
            activation.merged[slot] = merged


def _timed_out(worker: Worker, activation: LiveActivation) -> None:
    """An activation has taken too long. A thread cannot be stopped: what it still does is not wanted."""
    activation.abandoned = ExecutionTimeoutError(
        f"routine {activation.mailbox.routine_id!r} has not ended within {activation.node.timeout} s "
        f"(attempt {activation.attempt}). Give it a longer set_timeout(), or let it look at current().cancelled",
        routine_id=activation.mailbox.routine_id,
        worker_id=worker.worker_id,
    )
    if not activation.ask_to_stop() and isinstance(_decide(worker, activation, activation.abandoned), Stop):
        tell(worker, activation, activation.abandoned, ERROR, "the job fails")
        for member in activation.job.members:
            worker.end_job(member.job, JobStatus.FAILED, activation.abandoned)


def end_guarded(activation: LiveActivation) -> None:
    if activation.timer is not None:
        activation.timer.cancel()
    if activation.abandoned is not None:
        raise activation.abandoned


# -- what a mailbox answers instead of an activation ---------------------------------------------------------


def _answer(worker: Worker, mailbox: Mailbox, answer: Later | Decide | Discard, now: float) -> bool:
    """Do what the mailbox asks for; True: it may have an activation now."""
    match answer:
        case Later(time=time):
            worker.engine.driver.call_at(time, lambda: worker.timer_due(mailbox))
            return False
        case Decide():
            return _let_policy_decide(worker, mailbox, answer, now)
        case Discard():
            worker.give_up(mailbox, answer.items)
            worker.at_rest(answer.ended)
            worker.regathered(mailbox)
            worker.room(mailbox)
            return mailbox.look_again()


def _is_held_up(worker: Worker, mailbox: Mailbox, now: float) -> bool:
    """A routine waits for room in a slot that it feeds. If none can come its oldest items fail; True: it has more."""
    worker.held_up = True
    error = worker.back_pressure.verdict_on(mailbox)
    if error is None:
        return False
    answer: Any = mailbox.next(now, regardless=True)
    if not isinstance(answer, Activation):
        return answer is not None and _answer(worker, mailbox, answer, now)
    return _failed_at_once(worker, answer, error, now)


def _let_policy_decide(worker: Worker, mailbox: Mailbox, asked: Decide, now: float) -> bool:
    try:
        decision: Decision = asked.policy(asked.views, worker.state)
        check_decision(decision, asked.views)
    except BaseException as error:  # noqa: BLE001 the policy is user code
        return _policy_failed(worker, mailbox, asked, error, now)
    more, ended = mailbox.decided(asked, decision, now)
    if isinstance(decision, WaitUntil):
        worker.engine.driver.call_at(decision.time, lambda: worker.timer_due(mailbox))
    worker.at_rest(ended)
    if decision is WAIT and worker.bell.waiting:
        worker.bell.ring()
    return more


def _policy_failed(worker: Worker, mailbox: Mailbox, asked: Decide, error: BaseException, now: float) -> bool:
    """The activation that the policy should have decided about fails with it; its item is the oldest."""
    activation: Any = mailbox.claim_oldest(asked, now)
    return activation is not None and _failed_at_once(worker, activation, error, now)


def _failed_at_once(worker: Worker, activation: Any, error: BaseException, now: float) -> bool:
    """An activation was handed out only to fail."""
    mailbox = activation.mailbox
    try:
        if activation.spare:
            worker.schedule(mailbox)
        worker.room(mailbox)
        if activation.job.status is _PENDING:
            worker.started(activation.job)
        return failed(worker, activation, error, now)
    except BaseException as fault:  # noqa: BLE001 as in a turn
        return broken_off(worker, mailbox, activation, fault)


# -- when logic has failed -----------------------------------------------------------------------------------


def failed(worker: Worker, activation: LiveActivation, error: BaseException, now: float) -> bool:
    """An activation has raised; True: its mailbox has more, and the caller sees to it.

    An interruption of the program is no failure of the logic that it happens to meet: it leaves the runtime.
    """
    if _interrupts(error):
        raise error
    if activation.timer is not None:
        activation.timer.cancel()
    if activation.abandoned is not None:
        error = activation.abandoned
    activation.merged = None
    if activation.job.ended:
        if not _is_told(activation, error):
            tell(worker, activation, error, WARNING, "its job has ended already")
        drop_frames(error)
        return end(worker, activation, now, Outcome("failed", error))
    if is_a(error, IncompleteSetError):
        drop_frames(error)
        return end(worker, activation, now, Outcome(INCOMPLETE, error))
    if worker.leaves_what_fails:
        activation.abandoned = OVER
        return False
    if worker.interrupted(activation, error):
        return worker.run_again(activation)
    match _decide(worker, activation, error):
        case Retry(delay=delay):
            unfit = worker.unfit_to_run_again(activation)
            if unfit is not None:
                tell(
                    worker, activation, error, ERROR, f"it cannot run again ({describe(unfit)}), and {_FAILS}"
                )
                return end(
                    worker, activation, now, Outcome("failed", error, fatal=_wrapped(activation, error))
                )
            tell(worker, activation, error, WARNING, f"retried in {delay:.3g} s")
            return _retry(worker, activation, error, now, delay)
        case Skip():
            tell(worker, activation, error, WARNING, "skipped, and what it had is set aside", lost=True)
            return end(worker, activation, now, Outcome("skipped", error, noted=_wrapped(activation, error)))
        case Continue():
            follows = "the job goes on, and what it had is set aside"
            tell(worker, activation, error, WARNING, follows, lost=True)
            return end(worker, activation, now, Outcome("failed", error, noted=_wrapped(activation, error)))
        case Emit():
            return _send_on(worker, activation, error, now)
        case Stop():
            follows = _who_fails(activation.job.members)
            tell(worker, activation, error, ERROR, follows, lost=follows is not _FAILS)
            return end(worker, activation, now, Outcome("failed", error, fatal=_wrapped(activation, error)))


def _who_fails(members: Sequence[JobAccount]) -> str:
    """What a failure for good means for the jobs of its activation."""
    done = sum(member.status.finished for member in members)
    if not done:
        return _FAILS
    if done == len(members):
        had = "its job had completed" if done == 1 else "its jobs had completed"
    else:
        fail = len(members) - done
        had = f"{fail} of its {len(members)} jobs fail{'s' if fail == 1 else ''}, the others had completed"
    return f"{had}; what it had is set aside"


def broken_off(worker: Worker, mailbox: Mailbox, activation: Any, fault: BaseException) -> bool:
    """Something has come out of a turn that is no failure of logic: ours, or of user code that must not raise.

    Nothing that the turn held stays held: its ``activation``, None if there was none, and its jobs have failed. True:
    the mailbox has more, and the caller sees to it. An interruption of the program is raised again.
    """
    more, who = False, f"the turn of routine {mailbox.routine_id!r} of flow {worker.flow_id!r}"
    if not _interrupts(fault):
        worker.engine.fault(who, fault, "it is given up" if activation is None else "the job fails")
    if activation is not None and not worker.leaves_what_fails:
        try:
            more = _fail_for_good(worker, activation, fault)
        except BaseException as another:  # noqa: BLE001 the thread goes on all the same
            worker.engine.fault(who, another, "nothing but its jobs ends")
            if activation.out:
                more = mailbox.finish(activation, worker.engine.now(), "failed")
            _end_jobs_of(worker, activation, fault)
        more = mailbox.look_again() or more
    if not _interrupts(fault):
        return more
    if more:
        worker.schedule(mailbox)
    raise fault


def _fail_for_good(worker: Worker, activation: Any, fault: BaseException) -> bool:
    """An activation and its jobs fail, however far it has come; True: its mailbox has more."""
    if activation.timer is not None:
        activation.timer.cancel()
    activation.merged = None
    if activation.out:
        fatal = _wrapped(activation, fault)
        return end(worker, activation, worker.engine.now(), Outcome("failed", fault, fatal=fatal))
    _end_jobs_of(worker, activation, fault)
    return False


def _end_jobs_of(worker: Worker, activation: Any, fault: BaseException) -> None:
    fatal = _wrapped(activation, fault)
    for member in activation.job.members:
        worker.end_job(member.job, JobStatus.FAILED, fatal)


def _interrupts(error: BaseException) -> bool:
    """Whether it is the user who interrupts the program."""
    return is_a(error, KeyboardInterrupt) and current_thread() is main_thread()


def _send_on(worker: Worker, activation: LiveActivation, error: BaseException, now: float) -> bool:
    """The items of a failed activation are emitted on the routine's event ``error``, and it has ended with that."""
    try:
        activation.emit_failure(error)
        worker.seal(activation)
    except BaseException as raised:  # noqa: BLE001 the event may have no room, or a type that this is not of
        activation.abandoned = None
        follows = f"the event {ERROR_EVENT!r} could not take it ({describe(raised)}), and the job fails"
        tell(worker, activation, error, ERROR, follows)
        return end(worker, activation, now, Outcome("failed", error, fatal=_wrapped(activation, error)))
    heard = activation.node.routes[ERROR_EVENT]
    unheard = "" if heard else ", which is connected to nothing"
    tell(worker, activation, error, WARNING, f"its data goes to the event {ERROR_EVENT!r}{unheard}")
    drop_frames(error)
    return end(worker, activation, now, Outcome("failed", error, sent_on=True))


def _is_told(activation: LiveActivation, error: BaseException) -> bool:
    """Whether the job ended with this very error, or the logic was told that its job is over."""
    told = error is activation.abandoned or is_a(error, JobCancelledError)
    return told or name_of(error) == "CancelledError"


def tell(
    worker: Worker,
    activation: LiveActivation,
    error: BaseException,
    level: int,
    follows: str,
    *,
    lost: bool = False,
) -> None:
    """Log a failed activation, with what follows from it and, if it is ``lost``, a short form of what it had."""
    routine_id, attempt, members = activation.mailbox.routine_id, activation.attempt, activation.job.members
    who = f"routine {routine_id!r} of flow {worker.flow_id!r}"
    jobs = [member.job.job_id for member in sorted(members, key=lambda member: member.status.finished)]

    def message() -> str:
        of = f"job {jobs[0]}" if len(jobs) == 1 else f"{len(jobs)} jobs, the first {jobs[0]}"
        had = f": {shown(activation.data(), _LONGEST_DATA)}" if lost else ""
        said = f"{who} failed in attempt {attempt}: {headline(error)}; {follows}{had}"
        return f"{said} (worker {worker.worker_id}, {of})"

    about = {
        "flow_id": worker.flow_id,
        "worker_id": worker.worker_id,
        "routine_id": routine_id,
        "job_id": jobs[0],
        "attempt": attempt,
        "follows": follows,
    }
    worker.engine.failures.tell(level, failed_with(who, error), message, error, about, logger=FAILURES)


def tell_of_result(activation: LiveActivation, result: object) -> None:
    """Warn, once for each routine, of something that logic has returned: it goes nowhere."""
    node = activation.node
    kind, events = name_of(result), list(node.routine.events)
    what = "its logic" if node.routine.own_logic is not None else "a handler of its slots"
    emit = f"self.emit({'EVENT' if len(events) > 1 else repr([*events, 'output'][0])}, "
    emit += "**result)" if kind == "dict" else "value=result)"
    declare = "" if events else "declare an event with add_event('output'), and "
    choice = f", where EVENT is one of {', '.join(map(repr, events))}" if len(events) > 1 else ""
    node.worker.engine.warn(
        f"routine {node.routine_id!r} of flow {node.worker.flow_id!r}: {what} returned {_a(kind)}, which goes nowhere; "
        f"{declare}emit it: {emit}{choice}"
    )


def _a(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def end(worker: Worker, activation: LiveActivation, now: float, outcome: Outcome) -> bool:
    """See :meth:`Worker.conclude`; it is in the history before any waiter hears that a job has ended by it."""
    activation.abandoned = OVER
    _note(worker, activation, now, outcome.name, outcome.error)
    more = worker.conclude(activation, now, outcome)
    if worker.bell.waiting:
        worker.bell.ring()
    return more


def _retry(
    worker: Worker, activation: LiveActivation, error: BaseException, now: float, delay: float
) -> bool:
    _note(worker, activation, now, "retried", error)
    mailbox = activation.mailbox
    details = {"routine": mailbox.routine_id, "attempt": activation.attempt, "delay": delay}
    for member in activation.job.members:
        worker.trace(member.job, "retry", **details, error=describe(error))
    activation.retried = Outcome("retried", error, noted=_wrapped(activation, error))
    activation.attempt += 1
    activation.abandoned = OVER  # until it starts again
    more = worker.retry_later(activation, now + delay, delay)
    if activation.job.ended:  # it ended while the retry was being set up
        worker.sweep()
        worker.forget_retry(activation)
    return more


def arm_retry(worker: Worker, activation: LiveActivation, when: float) -> None:
    """Run a stalled activation again at this time, unless it was taken out or its worker has stopped meanwhile."""

    def due() -> None:
        worker.retries.pop(activation, None)
        if activation.mailbox.go_on(activation):
            worker.schedule(activation.mailbox)
        elif worker.bell.waiting:  # it has to wait for its turn: an activation that waits for room looks anew
            worker.bell.ring()

    if worker.stopped or activation not in activation.mailbox.stalled:
        return
    worker.retries[activation] = (when, None)
    timer = worker.engine.driver.call_at(when, due)
    if activation in worker.retries:
        worker.retries[activation] = (when, timer)


def _decide(worker: Worker, activation: LiveActivation, error: BaseException) -> ErrorDecision:
    try:
        return activation.node.recovery.decide(error, activation.attempt, worker.engine.driver.random())
    except BaseException as raised:  # noqa: BLE001 the retryable exceptions are classes of the user
        who = f"the error handler of routine {activation.mailbox.routine_id!r}"
        worker.engine.user_code_failed(who, raised, "the job fails")
        return Stop()


def _wrapped(activation: LiveActivation, error: BaseException) -> BaseException:
    """What a job fails with: the user's exception is its cause; an error of ours needs no wrapping.

    It has been logged by now, and what is kept of it has no frames any more.
    """
    if activation.abandoned is not None:
        drop_frames(activation.abandoned)
        return activation.abandoned
    wrapped = SlotHandlerError(
        f"routine {activation.mailbox.routine_id!r} failed in attempt {activation.attempt}: {described_at(error)}",
        routine_id=activation.mailbox.routine_id,
        traceback=traceback_of(error),
        job_ids=tuple(member.job.job_id for member in activation.job.members),
        attempt=activation.attempt,
    )
    drop_frames(error)
    wrapped.__cause__ = error
    return wrapped


def _note(
    worker: Worker, activation: LiveActivation, now: float, outcome: str, error: BaseException | None
) -> None:
    text = None if error is None else describe(error)
    routine_id = activation.mailbox.routine_id
    row = (routine_id, activation.job, activation.started, now, outcome, activation.attempt, text)
    worker.state.history.append(row)
    if worker.sink is not None:
        duration = now - activation.started
        job, attempt = activation.job, activation.attempt
        worker.sink((Activated, now, worker.worker_id, job, routine_id, attempt, duration, outcome))


# -- logic that runs somewhere else ----------------------------------------------------------------------------


def launch(worker: Worker, mailbox: Mailbox, *, once: bool = False) -> None:
    """Start everything that a routine with asynchronous or remote logic has ready, or just one activation.

    The caller holds the promise to see to the mailbox, and passes it on.
    """
    if worker.journaled and worker.holds_back(mailbox):
        return
    while worker.queue.enter():
        now = worker.engine.now()
        activation: Any = None
        again = leaves_later = False
        try:
            answer = mailbox.next(now)
            if isinstance(answer, Activation):
                activation, again = answer, answer.spare
                leaves_later = _launch(worker, activation)
            elif answer is None:
                again = mailbox.waiting and _is_held_up(worker, mailbox, now)
            else:
                again = _answer(worker, mailbox, answer, now)
        except BaseException as fault:  # noqa: BLE001 as in a turn
            again = broken_off(worker, mailbox, activation, fault) or again
        if again and once and activation is not None:
            worker.schedule(mailbox)
            again = False
        if not leaves_later:
            leave(worker)
        if not again:
            return
    if worker.queue.push(mailbox):  # it was held for a moment
        worker.engine.driver.submit(worker.queue)


def _launch(worker: Worker, activation: LiveActivation) -> bool:
    """Start an activation; False if it was put back. Else :func:`end_detached` leaves for it."""
    if activation.mailbox.freed:
        worker.room(activation.mailbox)
    if activation.job.status is _PENDING:
        worker.started(activation.job)
    node = activation.node
    try:
        if not worker.renewed(activation):
            return False
        slot_data = node.data_of(activation.batch)
        if (activation.job.halted and put_back(activation)) or not begin(worker, activation, slot_data):
            return False
    except BaseException as error:  # noqa: BLE001 a merge function, or a registered type, is user code
        end_detached(activation, error)
        return True
    context = activation.job.context.copy()
    context.run(set_running, activation)
    task = Task(node.logic, slot_data, activation.message, worker.state, activation, context)
    runner = node.runner or worker.engine.driver.async_runner()
    done = Done(activation)
    if node.runner is not None:
        worker.engine.elsewhere[activation] = None
    try:
        activation.cancel = runner.start(task, done)
    except BaseException as error:  # noqa: BLE001 a runner that does not come with the package is user code
        done(error)
    if activation.job.ended:  # it ended while this was being started
        activation.ask_to_stop()
    return True


class Done:
    """What a task runner calls when logic has ended. Only the first call counts, from whatever thread."""

    __slots__ = ("_activation", "_calls")

    def __init__(self, activation: LiveActivation) -> None:
        self._activation = activation
        self._calls = count().__next__

    def __call__(self, error: BaseException | None) -> None:
        if self._calls() == 0:
            activation = self._activation
            activation.node.worker.engine.elsewhere.pop(activation, None)  # before a caller looks what runs
            end_detached(activation, error)


def end_detached(activation: LiveActivation, error: BaseException | None) -> None:
    """Logic that ran somewhere else has ended."""
    worker = activation.node.worker
    activation.cancel = None
    try:
        if _has_more(worker, activation, error, worker.engine.now()):
            worker.schedule(activation.mailbox)
    finally:
        leave(worker)


def _has_more(worker: Worker, activation: LiveActivation, error: BaseException | None, now: float) -> bool:
    """What follows from how it ended; True: its mailbox has more, and the caller sees to it."""
    try:
        try:
            if error is not None:
                raise error
            end_guarded(activation)
            worker.seal(activation)
        except BaseException as raised:  # noqa: BLE001 the outcome of user code
            return failed(worker, activation, raised, now)
        return worker.complete(activation, now)
    except BaseException as fault:  # noqa: BLE001 as in a turn
        return broken_off(worker, activation.mailbox, activation, fault)
