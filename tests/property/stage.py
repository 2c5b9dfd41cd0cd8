"""Plays a plan: builds its flows, posts, and meddles with what runs at moments that the seed chooses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from random import Random
from typing import Any, NamedTuple

from routilux import Flow, Routine
from routilux.errors import ExecutionTimeoutError, QueueFullError, StateError
from routilux.kernel.account import JobAccount
from routilux.runtime import book
from routilux.testing.simulated import SimulatedRuntime, SimulationStuck, simulated
from tests.property.ledger import Ledger
from tests.property.plans import PATIENCE, Features, FlowPlan, Plan, RoutinePlan, Trouble, draw, draw_plan

LONGEST_RUN = 200_000  # moments at which another virtual thread could come in


def check(seed: int, features: Features, tell: Callable[[object], object] = bool) -> Ledger:
    """Play the plan of a seed in the simulation, and raise what breaks a rule."""
    plan = draw_plan(seed, features)
    ledger = Ledger(plan, tell)
    options = {"interruption": plan.interruption, "early_timers": plan.early_timers}
    with (
        simulated(seed, max_queue_size=plan.max_pending, **options) as runtime,
        watched(ledger),
        ledger_first(ledger),
    ):
        _limit(runtime)
        ledger.at_hand = lambda: runtime.simulation.seat().activation
        runtime.add_observer(ledger)
        try:
            SimulatedPlay(plan, runtime, ledger).play()
        finally:
            runtime.simulation.interrupts.clear()  # the end of a play that failed is not meddled with
        ledger.close(runtime)
    ledger.raise_breaches()
    return ledger


@contextmanager
def ledger_first(ledger: Ledger) -> Iterator[None]:
    """What went wrong first says more than what came of it."""
    try:
        yield
    except Exception as error:
        for breach in ledger.breaches:
            error.add_note(breach)
        raise


@contextmanager
def watched(ledger: Ledger) -> Iterator[None]:
    """Within the block the ledger is asked at the very moment in which an account says that its job is done."""

    class WatchedAccount(JobAccount):
        __slots__ = ()

        def _quiet(self) -> tuple[JobAccount, ...]:
            return self._checked(super()._quiet())

        def settle(self) -> tuple[JobAccount, ...]:
            return self._checked(super().settle())

        def _checked(self, quiet: tuple[JobAccount, ...]) -> tuple[JobAccount, ...]:
            if quiet and self.status == "completed":
                ledger.completes(self)
            return quiet

    original, book.JobAccount = book.JobAccount, WatchedAccount  # type: ignore[attr-defined,misc]
    try:
        yield
    finally:
        book.JobAccount = original  # type: ignore[attr-defined,misc]


def _limit(runtime: SimulatedRuntime) -> None:
    """Something that goes round and round without an end is reported, too."""
    simulation, left = runtime.simulation, LONGEST_RUN
    interrupt = simulation.maybe_interrupt

    def counted() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise SimulationStuck(f"seed {simulation.seed}: it does not come to rest")
        interrupt()

    simulation.maybe_interrupt = counted  # type: ignore[method-assign]


# -- flows -----------------------------------------------------------------------------------------------------


class Stage(NamedTuple):
    """Where routines run: what they report to, and what they do at a moment when others could run."""

    ledger: Ledger
    breathe: Callable[[], object]


def build(flow_plan: FlowPlan, logic_of: Callable[[Routine, RoutinePlan], Callable[..., Any]]) -> Flow:
    flow = Flow(flow_plan.flow_id, execution_strategy=flow_plan.strategy, max_workers=flow_plan.max_workers)
    for plan in flow_plan.routines:
        routine = _routine(plan)
        flow.add_routine(routine.set_logic(logic_of(routine, plan)), plan.routine_id)
    for connection in flow_plan.connections:
        flow.connect(*connection)
    return flow


def _routine(plan: RoutinePlan) -> Routine:
    routine = Routine()
    for slot in plan.slots:
        routine.add_slot(
            slot.name,
            max_queue_length=slot.capacity,
            watermark=slot.watermark,
            on_full=slot.on_full,
            merge_strategy=_collect if slot.merge == "custom" else slot.merge,
        )
    for event in plan.events:
        routine.add_event(event)
    routine.set_activation_policy(plan.policy)
    routine.set_concurrency(plan.concurrency, by=plan.by)
    routine.set_timeout(plan.timeout)
    routine.set_error_handler(plan.handler)
    return routine


def _collect(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    return {"all": [*old.get("all", ()), new["uid"]]}


class Nap(NamedTuple):
    seconds: float


class Emission(NamedTuple):
    event: str
    payload: dict[str, Any]


def _logic_of(routine: Routine, plan: RoutinePlan, stage: Stage) -> Callable[..., Any]:
    return _async_logic(routine, plan, stage) if plan.is_async else _logic(routine, plan, stage)


def _logic(routine: Routine, plan: RoutinePlan, stage: Stage) -> Callable[..., None]:
    def logic(slot_data: Any, message: Any, state: Any) -> None:
        with stage.ledger.activation(plan, slot_data, message) as activation:
            for step in doings(plan, activation.batch, activation.attempt, stage.ledger):
                if isinstance(step, Emission):
                    stage.ledger.emit(routine, activation, *step)
                else:
                    stage.breathe()

    return logic


def _async_logic(routine: Routine, plan: RoutinePlan, stage: Stage) -> Callable[..., Any]:
    async def logic(slot_data: Any, message: Any, state: Any) -> None:
        with stage.ledger.activation(plan, slot_data, message) as activation:
            for step in doings(plan, activation.batch, activation.attempt, stage.ledger):
                if isinstance(step, Emission):
                    stage.ledger.emit(routine, activation, *step)
                else:
                    with stage.ledger.awaiting(activation):
                        await asyncio.sleep(step.seconds)

    return logic


def doings(plan: RoutinePlan, batch: Any, attempt: int, ledger: Ledger) -> Iterator[Nap | Emission]:
    """What an activation does with each of its items, one after the other."""
    first = batch[0][2]["uid"]
    fails = attempt <= plan.attempts_that_fail(first)
    moment = draw(first, plan.routine_id, "moment", 3) if fails else None
    if moment == 0:
        raise Trouble(first)
    for item in batch:
        if draw(item[2]["uid"], plan.routine_id, "naps", 3) == 0:
            yield Nap(draw(item[2]["uid"], "nap", 4) / 4)
        yield from _emissions(plan, item[1], item[2], attempt, ledger)
        if moment == 1:
            raise Trouble(first)
    if moment == 2:
        raise SystemExit(first) if draw(first, "exits", 4) == 0 else Trouble(first)


def _emissions(
    plan: RoutinePlan, slot: str, payload: dict[str, Any], attempt: int, ledger: Ledger
) -> Iterator[Emission]:
    uid, life = payload["uid"], payload["life"]
    if not life:
        return
    for event in plan.events:
        how_many = {1: (1, 1, 1, 0), 2: (1, 2, 0, 1), 4: (1, 0, 6, 1)}[plan.spread]
        for n in range(how_many[draw(uid, plan.routine_id, event, "many", 4)]):
            if len(ledger.sent) < PATIENCE:
                child = f"{uid}.{plan.routine_id}{slot[1:]}{event}{n}{'~' * (attempt - 1)}"
                yield Emission(event, {"uid": child, "life": life - 1, "key": payload["key"]})


class RandomGate:
    """Holds what the names of the items say, until it is opened."""

    def __init__(self, breathe: Callable[[], object]) -> None:
        self._breathe = breathe

    def holds_activation(self, worker_id: str, routine_id: str, slot_data: Any) -> bool:
        holds = draw(routine_id, sorted(map(len, slot_data.values())), "gate", 2) == 0
        self._breathe()
        return holds

    def holds_item(self, worker_id: str, routine_id: str, slot: str, data: Any) -> bool:
        holds = draw(data["uid"], "gate", 3) == 0
        self._breathe()
        return holds


# -- plays -----------------------------------------------------------------------------------------------------


class Play:
    """What is done to the workers of a plan from outside. Driven by its own generator, so a seed replays."""

    def __init__(self, plan: Plan, runtime: Any, ledger: Ledger) -> None:
        self.plan = plan
        self.runtime = runtime
        self.ledger = ledger
        self.rng = Random(f"play {plan.seed}")
        self.states: list[Any] = []
        self.gates: set[tuple[str, str]] = set()
        self.held: set[str] = set()  # workers and jobs whose pause came to its time-out
        self.posts = 0
        self.resumes = 0  # begun
        self.resuming = 0  # begun and not ended

    def breathe(self) -> None:
        """A moment at which others could run."""

    def start(self) -> None:
        for flow_plan in self.plan.flows:
            stage = Stage(self.ledger, self.breathe)
            flow = build(flow_plan, partial(_logic_of, stage=stage))
            state = self.runtime.exec(flow, worker_id=f"worker of {flow_plan.flow_id}")
            self.states.append(state)
            self.ledger.enter(state, flow_plan)

    # -- what may be done at any moment --------------------------------------------------------------------

    def post(self, timeout: float | None) -> None:
        state = self.rng.choice(self.states)
        flow_plan = self.ledger.flows[state.worker_id]
        sources = [
            place for place in flow_plan.places if not any(place == c[2:] for c in flow_plan.connections)
        ]
        place = self.rng.choice(sources or flow_plan.places)
        if self.rng.random() < 0.2:
            place = self.rng.choice(flow_plan.places)
        self.posts += 1
        uid = str(self.posts)
        payload = {"uid": uid, "life": self.plan.life, "key": draw(uid, "key", 3)}
        job_id = self._open_job(state) if self.rng.random() < 0.15 else None
        try:
            with self.ledger.posting(uid):
                posted = self.runtime.post(
                    state.flow_id,
                    *place,
                    payload,
                    worker_id=state.worker_id,
                    job_id=job_id or f"job {uid}",
                    timeout=timeout,
                )
        except QueueFullError:
            return
        except StateError as error:
            allowed = job_id is not None or state.worker_id in self.ledger.stopped
            self.ledger.expect(allowed, f"post {uid} was refused: {error}")
            return
        self.ledger.jobs[posted.job_id] = posted.job_context

    def _open_job(self, state: Any) -> str | None:
        open_jobs = [
            job.job_id
            for job in self.ledger.jobs.values()
            if job.worker_id == state.worker_id and not job.status.finished
        ]
        return self.rng.choice(open_jobs) if open_jobs else None

    def pause(self, timeout: float | None) -> None:
        target = self._target()
        if target is None:
            return
        id_ = getattr(target, "job_id", None) or target.worker_id
        self.ledger.job_pauses = self.ledger.job_pauses or target not in self.states
        resumes = self.resumes
        try:
            self.runtime.pause(target, timeout=timeout)
        except ExecutionTimeoutError:  # it stays held
            if self.resumes == resumes:
                self.held.add(id_)
            return
        except StateError as error:
            self.ledger.expect(id_ in self.ledger.stopped, f"the pause of {id_} was refused: {error}")
            return
        undone = self.resuming or self.resumes != resumes  # perhaps by a resume that it came in the middle of
        stays = id_ in self.ledger.stopped or (target not in self.states and target.finished)
        if not undone and not stays:  # what has stopped or ended stays as it is
            self.ledger.resting.add(id_)

    def resume(self) -> None:
        target = self._target()
        if target is not None:
            self._resume(target)

    def _resume(self, target: Any) -> None:
        id_ = getattr(target, "job_id", None) or target.worker_id
        self.resumes += 1
        if id_ not in self.ledger.stopped:
            self.ledger.resting.discard(id_)
            self.held.discard(id_)
            self.resuming += 1
            try:
                self.runtime.resume(target)
            except StateError as error:  # its worker may be stopped in the middle of this
                self.ledger.expect(id_ in self.ledger.stopped, f"going on of {id_} was refused: {error}")
            self.resuming -= 1

    def cancel(self) -> None:
        jobs = list(self.ledger.jobs.values())
        if jobs and self.rng.random() < 0.85:
            self.runtime.cancel(self.rng.choice(jobs))
        else:
            self.cancel_worker()

    def cancel_worker(self) -> None:
        state = self.rng.choice(self.states)
        self.ledger.stopped.add(state.worker_id)
        self.runtime.cancel(state)

    def gate(self) -> None:
        """Set a gate, let something go at one, or take it away."""
        state = self.rng.choice(self.states)
        if state.worker_id in self.ledger.stopped:
            return
        routine = self.rng.choice(self.ledger.flows[state.worker_id].routines)
        with suppress(StateError):  # its worker is stopped in the middle of this
            self._gate(state, routine)

    def _gate(self, state: Any, routine: RoutinePlan) -> None:
        what = self.rng.choice(("set", "one", "everything", "away"))
        if what == "set":
            self.gates.add((state.worker_id, routine.routine_id))
            self.runtime.set_gate(state, routine.routine_id, RandomGate(self.breathe))
        elif what == "away":
            self.runtime.set_gate(state, routine.routine_id, None)
        else:
            self.runtime.let_go(state, routine.routine_id, everything=what == "everything")

    def _target(self) -> Any:
        jobs = list(self.ledger.jobs.values())
        return self.rng.choice([*jobs, *self.states * 2]) if jobs else self.rng.choice(self.states)

    # -- the end -------------------------------------------------------------------------------------------

    def let_everything_go(self) -> None:
        self.ledger.resting.clear()
        self.held.clear()
        while self.gates:  # one may be set in the middle of this
            worker_id, routine_id = min(self.gates)
            self.gates.discard((worker_id, routine_id))
            with suppress(StateError):  # its worker is stopped
                self.runtime.set_gate(worker_id, routine_id, None)
        for job in self.ledger.jobs.values():
            self._resume(job)
        for state in self.states:
            self._resume(state)


class SimulatedPlay(Play):
    """In the simulation some of it comes in the middle of something else."""

    def __init__(self, plan: Plan, runtime: SimulatedRuntime, ledger: Ledger) -> None:
        super().__init__(plan, runtime, ledger)
        self.simulation = runtime.simulation
        self.step_of_engine = runtime.simulation.step
        self.simulation.step = self.step_or_let_go  # type: ignore[method-assign]
        self.letting_go = False

    def breathe(self) -> None:
        self.simulation.maybe_interrupt()

    def step_or_let_go(self, deadline: float | None = None) -> bool:
        """Who waits for what a gate or an earlier pause keeps can only be helped from here."""
        if self.step_of_engine(deadline):
            return True
        if deadline is not None or self.letting_go:
            return False
        self.letting_go = True
        try:
            return self._let_go_in_the_middle() or self._let_go_for_who_waits()
        finally:
            self.letting_go = False

    def _let_go_in_the_middle(self) -> bool:
        """Whether something can happen now; what is in the way may be a pause that has only begun."""
        paused = any(job.paused for job in self.ledger.jobs.values()) or any(
            worker.queue.paused and not worker.stopped for worker in self.ledger.workers.values()
        )
        if not (self.gates or paused) or len(self.simulation._seats) == 1:
            return False
        self.let_everything_go()
        return self.step_of_engine(None)

    def _let_go_for_who_waits(self) -> bool:
        """Whether somebody who waits, in the middle of nothing, can go on or look again."""
        keeps = self.gates or self.ledger.resting or self.held
        if not keeps or not self.simulation.waiting or len(self.simulation._seats) > 1:
            return False
        self.let_everything_go()
        return any(signal.is_set() for signal in self.simulation.waiting) or self.step_of_engine(None)

    def play(self) -> None:
        self.start()
        features = self.plan.features
        meddling: list[Callable[[], object]] = []
        if features.pauses:
            meddling += [lambda: self.pause(0.0), lambda: self.pause(0.0), self.resume, self.resume]
        if features.cancels:
            meddling += [self.cancel, self.cancel]
        if features.gates:
            meddling += [self.gate] * 3
        for call in meddling:
            if self.rng.random() < 0.6:
                self.runtime.interrupt_with(call)
        for _ in range(self.plan.roots):
            self.post(self._patience())
            self.step()
            if meddling and self.rng.random() < 0.4:
                self.meddle()
        self.finish()

    def meddle(self) -> None:
        """Something from outside, while nothing is in the middle of anything."""
        features = self.plan.features
        choices: list[Callable[[], object]] = []
        if features.pauses:
            choices += [lambda: self.pause(None), self.resume]
        if features.cancels:
            choices += [self.cancel]
        if features.gates:
            choices += [self.gate]
        self.rng.choice(choices)()
        if features.cancels:
            self.ledger.cancelled.update(
                j.job_id for j in self.ledger.jobs.values() if j.status == "cancelled"
            )
        self.step()

    def step(self) -> None:
        """Let a few things happen."""
        if self.rng.random() < 0.2:
            self.runtime.run(seconds=self.rng.choice((0.0, 0.5, 2.0)))
            return
        for _ in range(self.rng.choice((0, 0, 1, 2, 5, 10))):
            self.simulation.step()

    def _patience(self) -> float | None:
        waits_safely = not self.plan.can_wait_for_ever and self.plan.max_pending > 2
        return None if waits_safely else self.rng.choice((0.0, 1.0, 5.0))

    def _left_open(self, job: Any) -> None:
        """Nothing moves any more, but the job is open: its items may only wait for room that is not there."""
        locked = self.plan.can_lock and self.ledger.waits_for_room(job)
        self.ledger.expect(locked, f"{job} is left open, and nothing moves any more")
        self.runtime.cancel(job)

    def finish(self) -> None:
        self.step()
        self.let_everything_go()
        self.runtime.run()
        self.simulation.interrupts.clear()
        self.let_everything_go()  # what a gate or a pause that came late has held
        self.runtime.run()
        while left_open := [job for job in self.ledger.jobs.values() if not job.finished]:
            self._left_open(left_open[0])
            self.runtime.run()
        self.ledger.raise_breaches()
        self.runtime.wait_until_all_jobs_finished()
        self.runtime.run()
