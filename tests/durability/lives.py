"""Plays a plan on one store, in several processes one after the other, most of which die before their time."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from random import Random
from typing import Any

from routilux import Routine, current
from routilux.errors import (
    DeadlockError,
    ExecutionTimeoutError,
    QueueFullError,
    StateError,
    StoreCorruptError,
    StoreError,
    StoreUnknownError,
    WorkerNotRunningError,
)
from routilux.kernel.mailbox import Mailbox
from routilux.model.context import running
from routilux.ports import ItemKey
from routilux.runtime import runtime as runtime_module
from routilux.runtime.back_pressure import BackPressure
from routilux.runtime.journal import committer
from routilux.store.references import References
from routilux.testing.simulated import SimulatedRuntime, SimulationStuck
from tests.durability.audit import DROPPING, FINISHED, Audit
from tests.durability.frail import Death, FrailStore
from tests.durability.kinds import MOST_ITEMS, Fate, draw_run, sources
from tests.durability.witness import Witness
from tests.property.ledger import all_of, queued_in, stalled_in
from tests.property.plans import Features, FlowPlan, Plan, RoutinePlan, Trouble, draw
from tests.property.stage import Emission, Nap, build

LONGEST_LIFE = 100_000  # moments at which another virtual thread could come in
TEN_YEARS = 315_360_000.0


def check(seed: int, features: Features, tell: Callable[[object], object] = bool) -> Witness:
    """Play the run of a seed, and raise what breaks a rule."""
    plan, fate = draw_run(seed, features)
    lives = Lives(plan, fate, tell)
    try:
        lives.run()
    except Exception as error:
        for breach in lives.witness.breaches:
            error.add_note(breach)
        raise
    lives.witness.raise_breaches()
    return lives.witness


class Lives:
    """One store, and what happens to it."""

    def __init__(self, plan: Plan, fate: Fate, tell: Callable[[object], object]) -> None:
        self.plan = plan
        self.fate = fate
        self.rng = Random(f"lives {plan.seed}")
        self.witness = Witness(plan, tell)
        self.audit = Audit(self.witness)
        self.witness.is_stored = self.audit.is_stored
        self.store = FrailStore(Random(f"store {plan.seed}"), self.audit)
        self.errors: list[type[StoreError]] = []  # that callers of post() were given
        self.seconds = 0.0  # that all lives took
        self.wall = 1_577_836_800.0
        self.posts = 0
        self.keyed: dict[str, tuple[Any, ...]] = {}  # posts with a key that are still to be accepted
        self.generation: dict[str, int] = {}  # of the worker of a flow: a new one after each that was stopped

    def run(self) -> None:
        usual, verdict_on = committer.BATCH_RECORDS, BackPressure.verdict_on

        def noted(back_pressure: BackPressure, mailbox: Mailbox) -> DeadlockError | None:
            verdict = verdict_on(back_pressure, mailbox)
            if verdict is not None:
                self.witness.stalled.add(mailbox.routine_id)
            return verdict

        BackPressure.verdict_on = noted  # type: ignore[method-assign]
        try:
            self._run()
        finally:
            committer.BATCH_RECORDS = usual
            BackPressure.verdict_on = verdict_on  # type: ignore[method-assign]

    def _run(self) -> None:
        for number in range(self.fate.lives):
            self.witness.tell(f"life {number}")
            self._live(Life(self, number), mortal=True)
            self._look_for_what_is_missing()
        self.witness.tell("the last life")
        number = self.fate.lives
        while not self._live(Life(self, number), mortal=False):
            number += 1  # a store that fails may have ended it
        self.witness.tell("afterwards")
        self._live(Life(self, number + 1), mortal=False, afterwards=True)
        self._look_for_what_is_missing()

    def _look_for_what_is_missing(self) -> None:
        """Every row that another one names is in the store."""
        for one in References(self.store.rows()).dangling():
            self.witness.expect(False, one.what)

    def _live(self, life: Life, *, mortal: bool, afterwards: bool = False) -> bool:
        """Whether it has come to its own end."""
        try:
            if mortal:
                life.draw_death(self.rng)
            life.begin(0.0 if afterwards else self.fate.trouble)
            if afterwards:
                life.look_around()
            else:
                life.act(mortal)
                life.leave() if mortal else life.finish()
        except BaseException as error:
            if not life.dead and not isinstance(error, StoreCorruptError):
                life.bury()
                raise
            life.how = life.how or str(error)
            life.bury()
            self.witness.tell(f"it has died {life.how}")
        self.seconds += life.runtime.now
        self.wall = life.wall() + self.rng.choice((0.0, 1.0, 1000.0))
        if self.fate.ten_years:
            self.wall += self.rng.choice((TEN_YEARS, -TEN_YEARS))
        return not life.dead


class Life:
    """One process that has the store open."""

    def __init__(self, lives: Lives, number: int) -> None:
        plan = lives.plan
        self.lives = lives
        self.plan = plan
        self.witness = lives.witness
        self.audit = lives.audit
        self.store = lives.store
        self.rng = Random(f"life {plan.seed} {number}")
        self.dead = False
        self.how = ""
        self._moments = 0
        self._dies_at: int | None = None
        self._dies_in: tuple[str, int] | None = None
        self.resumes = 0  # begun
        self.resuming = 0  # begun and not ended
        self.stopped: set[str] = set()  # workers that were told to end for good
        self.posting: set[str] = set()  # posts with a key that are on their way
        self.states: dict[str, Any] = {}  # by flow
        self.store.rise()
        committer.BATCH_RECORDS = self.rng.choice((1, 2, 512))
        try:
            self.runtime = self._open(number)
        except StoreError:
            self.runtime = self._open(number)  # the store has refused
        self.simulation = self.runtime.simulation
        self.simulation.clock.shown_at_zero = lives.wall
        self._interrupt = self.simulation.maybe_interrupt
        self.simulation.maybe_interrupt = self._pass  # type: ignore[method-assign]
        self._step = self.simulation.step
        self.simulation.step = self._step_or_let_go  # type: ignore[method-assign]
        self._letting_go = False
        self.cancelling: Counter[str] = Counter()  # calls that have not returned, by worker
        self.between = 0  # calls that were made in the middle of something else, and have not returned
        self.store.moment, self.store.others, self.store.spend = self.moment, self.others, self._spend

    def _open(self, number: int) -> SimulatedRuntime:
        plan = self.plan
        return SimulatedRuntime(
            plan.seed + 1_000_003 * number,
            store=self.store,
            max_queue_size=plan.max_pending,
            interruption=plan.interruption,
            early_timers=plan.early_timers,
        )

    def wall(self) -> float:
        return float(self.simulation.clock.time())

    # -- death -----------------------------------------------------------------------------------------------

    def draw_death(self, rng: Random) -> None:
        kind = rng.randrange(5)
        if kind < 3:
            self._dies_at = rng.choice((rng.randrange(60), rng.randrange(400), rng.randrange(2_000)))
        elif kind == 3:
            where = rng.choice(
                ("before a write", "after a write", "after a write", "in logic", "before it is settled")
            )
            self._dies_in = (where, rng.choice((rng.randrange(8), rng.randrange(40))))

    def moment(self, where: str) -> None:
        """The process may die here."""
        self._check_alive()
        self._moments += 1
        if self._moments > LONGEST_LIFE:
            raise SimulationStuck(f"seed {self.plan.seed}: it does not come to rest")
        if self._dies_at is not None and self._moments > self._dies_at:
            self.die(where)
        if self._dies_in is not None and self._dies_in[0] == where:
            if not self._dies_in[1]:
                self.die(where)
            self._dies_in = (where, self._dies_in[1] - 1)

    def die(self, where: str) -> None:
        self.dead = self.store.dead = True
        self.how = where
        self.simulation.fault = Death()  # type: ignore[assignment]
        raise Death

    def _check_alive(self) -> None:
        if self.dead:
            raise Death

    def bury(self) -> None:
        """Give back what the process held of this one."""
        self.dead = self.store.dead = True
        self.simulation.fault = None
        self.simulation.maybe_interrupt = lambda: None  # type: ignore[method-assign]
        running.set(None)
        self.simulation.close(None)
        runtime_module._open_runtimes.discard(self.runtime)

    # -- other virtual threads ---------------------------------------------------------------------------------

    def _pass(self) -> None:
        if self.simulation._closed:
            return
        self.moment("in between")
        if any(attendant.at_work for attendant in self.simulation._attendants):
            if self.rng.random() < self.plan.interruption / 2:
                self.others()
        else:
            self._interrupt()

    def others(self) -> None:
        """While the committer is at work, others run what needs no answer from it."""
        simulation = self.simulation
        if simulation._closed or simulation.locks_held or len(simulation._seats) > 3:
            return
        simulation._interrupted += 1  # the committer is in the middle of something
        try:
            for _ in range(self.rng.choice((0, 0, 0, 1, 2))):
                choices = simulation._choices()
                if choices:
                    self.rng.choice(choices)()
        finally:
            simulation._interrupted -= 1

    def _spend(self, seconds: float) -> None:
        self.simulation.clock.now += seconds

    def _step_or_let_go(self, deadline: float | None = None) -> bool:
        """Who waits for what a pause keeps can only be helped from here."""
        if self._step(deadline):
            return True
        if deadline is not None or self._letting_go or not self.plan.features.pauses:
            return False
        self._letting_go = True
        try:
            if not self.let_everything_go():
                return False
        finally:
            self._letting_go = False
        waiting = self.simulation.waiting
        return any(signal.is_set() for signal in waiting) or self._step(None)

    # -- the beginning -----------------------------------------------------------------------------------------

    def begin(self, trouble: float) -> None:
        self.store.trouble = trouble
        flows = {plan.flow_id: build(plan, self._logic_of) for plan in self.plan.flows}
        recovered = self._insist(partial(self.runtime.recover, flows=flows.values()))
        if recovered.not_reopened:  # the store has refused
            again = self._insist(partial(self.runtime.recover, flows=flows.values()))
            self.witness.expect(not again.not_reopened, f"not reopened: {again.not_reopened}")
            recovered = [*recovered, *again]
        for state in recovered:
            self.states[state.flow_id] = state
            paused = state.worker_id in self.witness.resting
            self.witness.expect(
                not paused or state.status == "paused", f"{state.worker_id} is paused no longer"
            )
        for flow_id, flow in flows.items():
            if flow_id not in self.states:
                generation = self.lives.generation[flow_id] = self.lives.generation.get(flow_id, -1) + 1
                self.states[flow_id] = self._insist(
                    lambda flow=flow, n=generation: self.runtime.exec(
                        flow, worker_id=f"worker {n} of {flow.flow_id}"
                    )
                )

    def _insist(self, call: Callable[[], Any]) -> Any:
        """Try again as long as the store refuses."""
        for _ in range(1_000):
            try:
                result = call()
            except StoreError:
                self._check_alive()
                if self.runtime._engine.broken is not None:
                    raise
                continue
            self._check_alive()
            return result
        raise AssertionError("the store refuses for ever")

    # -- what is done from outside -------------------------------------------------------------------------------

    def act(self, mortal: bool) -> None:
        features = self.plan.features
        meddling: list[Callable[[], object]] = []
        if features.pauses:
            meddling += [self.pause, self.pause, self.resume]
        if features.cancels:
            meddling += [self.cancel, self.cancel]
        if features.failures:
            meddling += [self.redrive]
        for call in meddling:
            if self.rng.random() < 0.3:
                self.runtime.interrupt_with(partial(self._in_between, call))
        if self.rng.random() < 0.3:
            self.runtime.interrupt_with(partial(self._in_between, self.post))
        for _ in range(self.rng.randint(0, self.plan.roots)):
            self.post()
            self.step()
            if meddling and self.rng.random() < 0.4:
                self.rng.choice(meddling)()
                self.step()

    def _in_between(self, call: Callable[[], object]) -> None:
        """What goes wrong here is not for whoever was interrupted."""
        self.between += 1
        try:
            with suppress(StoreCorruptError):
                call()
        finally:
            self.between -= 1

    def _let_them_return(self) -> None:
        """Calls that came in between may still wait; the process is left, in order, when they have returned."""
        while self.between and (self.simulation.step() or self.let_everything_go()):
            pass

    def step(self) -> None:
        if self.rng.random() < 0.2:
            self.runtime.run(seconds=self.rng.choice((0.0, 0.5, 2.0)))
            return
        for _ in range(self.rng.choice((0, 0, 1, 2, 5, 10))):
            self.simulation.step()

    def post(self) -> None:
        repeated = [uid for uid in self.lives.keyed if uid not in self.posting]
        if repeated and not self.lives.fate.ten_years and self.rng.random() < 0.7:
            uid = self.rng.choice(repeated)
            self._post(uid, *self.lives.keyed[uid])
            return
        flow = self.rng.choice(self.plan.flows)
        place = self.rng.choice(flow.places if self.rng.random() < 0.2 else sources(flow))
        self.lives.posts += 1
        uid = str(self.lives.posts)
        keyed = self.rng.random() < 0.25
        job_id = None if keyed else f"job {uid}"
        joins = not keyed and self.rng.random() < 0.15
        open_jobs = [
            j.job_id for j in self._open_jobs() if j.worker_id == self.states[flow.flow_id].worker_id
        ]
        if joins and open_jobs:
            job_id = self.rng.choice(open_jobs)
        if keyed:
            self.lives.keyed[uid] = (flow, place, None)
        self._post(uid, flow, place, job_id)

    def _post(self, uid: str, flow: FlowPlan, place: tuple[str, str], job_id: str | None) -> None:
        self.posting.add(uid)
        try:
            self._post_now(uid, flow, place, job_id)
        finally:
            self.posting.discard(uid)

    def _post_now(self, uid: str, flow: FlowPlan, place: tuple[str, str], job_id: str | None) -> None:
        witness, state = self.witness, self.states[flow.flow_id]
        witness.refused.discard(uid)
        in_doubt = uid in witness.open_posts  # nobody was told what became of it the last time
        witness.open_posts.add(uid)
        payload = {"uid": uid, "life": self.plan.life, "key": draw(uid, "key", 3)}
        key = f"key {uid}" if uid in self.lives.keyed else None
        witness.tell(f"post {uid} to {'.'.join(place)} of {state.worker_id}, job {job_id}, key {key}")
        try:
            posted = self.runtime.post(
                flow.flow_id, *place, payload, worker_id=state.worker_id, job_id=job_id, idempotency_key=key,
                timeout=self._patience(),
            )  # fmt: skip
        except StoreUnknownError:
            self._check_alive()
            self.lives.errors.append(StoreUnknownError)
            witness.tell(f"post {uid}: nobody knows")
            return
        except (StoreError, QueueFullError, StateError) as error:
            self._check_alive()
            if isinstance(error, StoreError):
                self.lives.errors.append(type(error))
            witness.tell(f"post {uid}: {error}")
            known = f"job {uid}" != job_id or state.worker_id in self.stopped
            witness.expect(not isinstance(error, StateError) or known, f"post {uid} was refused: {error}")
            if in_doubt and isinstance(error, WorkerNotRunningError):
                return  # it was not even asked whether the first call was accepted, and stays in doubt
            witness.expect(
                uid not in self.audit.posted, f"post {uid} was refused, and is in the store: {error}"
            )
            if uid not in self.audit.posted:
                witness.refused.add(uid)
            witness.open_posts.discard(uid)
            return
        self._check_alive()
        witness.open_posts.discard(uid)
        witness.acknowledged[uid] = posted.job_id
        self.lives.keyed.pop(uid, None)
        dropped = self.audit.slot(_place(state.worker_id, place)).on_full in DROPPING
        there = self.audit.posted.get(uid, posted.job_id if dropped else None)
        witness.expect(there == posted.job_id, f"post {uid} is acknowledged, and is in the store as {there}")
        witness.expect(
            posted.job_id in self.audit.jobs, f"post {uid} is acknowledged, and its job is not stored"
        )

    def _patience(self) -> float | None:
        features = self.plan.features
        waits_safely = not features.pauses and not features.cancels and self.plan.max_pending > 2
        return None if waits_safely else self.rng.choice((0.0, 1.0, 5.0))

    def _open_jobs(self) -> list[Any]:
        """In the store's order, live ones and those that wait there."""
        jobs = self._insist(lambda: self.runtime.list_jobs())
        return [job for job in jobs if not job.status.finished]

    def _target(self) -> Any:
        return self.rng.choice([*self._open_jobs(), *self.states.values(), *self.states.values()])

    def pause(self) -> None:
        target = self._target()
        id_ = getattr(target, "job_id", None) or target.worker_id
        self.witness.job_pauses |= hasattr(target, "account")
        self.witness.tell(f"pause {id_}")
        resumes = (
            None if self.resuming else self.resumes
        )  # a resume that it came in the middle of may be the later
        try:
            self.runtime.pause(target, timeout=self.rng.choice((0.0, None)))
        except (ExecutionTimeoutError, StoreError):
            self._check_alive()
            return
        except StateError as error:
            self._check_alive()
            self.witness.expect(target.worker_id in self.stopped, f"the pause of {id_} was refused: {error}")
            return
        self._check_alive()
        self.witness.tell(f"{id_} rests")
        stopped = target.worker_id in self.stopped
        if self.resumes == resumes and not stopped:
            self.witness.resting.add(id_)

    def resume(self) -> None:
        self._resume(self._target())

    def _resume(self, target: Any) -> None:
        id_ = getattr(target, "job_id", None) or target.worker_id
        self.resumes += 1
        self.witness.resting.discard(id_)
        if target.worker_id in self.stopped:
            return
        self.witness.tell(f"resume {id_}")
        self.resuming += 1
        try:
            self.runtime.resume(target)
        except StoreError:  # it is paused still
            self._check_alive()
            return
        except StateError as error:  # its worker may be stopped in the middle of this
            self._check_alive()
            self.witness.expect(target.worker_id in self.stopped, f"going on of {id_} was refused: {error}")
            return
        finally:
            self.resuming -= 1
        self._check_alive()
        self.witness.resting.discard(id_)

    def cancel(self) -> None:
        jobs = self._open_jobs()
        if jobs and self.rng.random() < 0.9:
            self._cancel_job(self.rng.choice(jobs))
        else:
            self._cancel_worker()

    def _cancel_job(self, job: Any) -> None:
        self.witness.cancel_asked.add(job.job_id)
        self.witness.tell(f"cancel {job.job_id}")
        try:
            self.runtime.cancel(job)
        except StoreError:
            self._check_alive()
            return
        self._check_alive()
        self.witness.expect(job.status.finished, f"{job} was cancelled, and has not ended")
        if job.status == "cancelled":
            self.witness.tell(f"{job.job_id} is cancelled")
            self.witness.cancelled.add(job.job_id)
            stored = self.audit.jobs[job.job_id].status
            self.witness.expect(
                stored == "cancelled", f"{job.job_id} is cancelled, and {stored} in the store"
            )

    def _cancel_worker(self) -> None:
        flow_id = self.rng.choice([*self.states])
        state = self.states[flow_id]
        self.stopped.add(state.worker_id)
        self.cancelling[state.worker_id] += 1
        self.witness.cancel_asked.add(state.worker_id)
        self.witness.tell(f"cancel {state.worker_id}")
        try:
            self.runtime.cancel(state)
        except StoreError:
            self._check_alive()
            others = self.cancelling[state.worker_id] > 1  # which this one came in the middle of
            if not others and not state.control.stopped:
                self.stopped.discard(state.worker_id)
        finally:
            self.cancelling[state.worker_id] -= 1

    def redrive(self) -> None:
        letters = self._insist(lambda: self.runtime.dead_letters())
        live = {state.worker_id for state in self.states.values()} - self.stopped
        mine = [letter for letter in letters if letter.worker_id in live]
        if not mine:
            return
        letter = self.rng.choice(mine)
        self.witness.tell(f"redrive {letter.item_id}")
        try:
            self.runtime.redrive(letter, timeout=0.0)
        except (StoreError, QueueFullError, StateError):
            self._check_alive()  # a StateError: somebody else has driven it again in the middle of this

    # -- the end -------------------------------------------------------------------------------------------------

    def let_everything_go(self) -> bool:
        """Resume whatever is paused; whether anything was."""
        jobs = [job for job in list(self.runtime._engine.book.jobs.values()) if job.paused]
        states = [state for state in self.states.values() if state.status == "paused"]
        paused = [target for target in (*jobs, *states) if target.worker_id not in self.stopped]
        self.witness.resting.clear()
        for target in paused:
            self._resume(target)
        return bool(paused)

    def leave(self) -> None:
        """Nobody has died; the process ends, in order or without a word."""
        how = self.rng.choice(("shutdown", "at once", "die"))
        if how == "die":
            self.die("at last")
        self.simulation.interrupts.clear()
        self._let_them_return()
        if how == "shutdown":
            self.store.trouble = 0.0
            self.store.full = 0
        self.runtime.shutdown(wait=False)
        self._check_alive()

    def finish(self) -> None:
        """Nothing goes wrong any more: everything comes to its end."""
        self.store.trouble = 0.0
        self.store.full = 0
        self.step()
        self.runtime.run()
        self.simulation.interrupts.clear()
        while self.let_everything_go():
            self.runtime.run()
        self._let_them_return()
        while self.lives.keyed and not self.lives.fate.ten_years:
            uid = next(iter(self.lives.keyed))
            flow = self.lives.keyed[uid][0]
            if self.states[flow.flow_id].worker_id in self.stopped:
                del self.lives.keyed[uid]
            else:
                self._post(uid, *self.lives.keyed[uid])
                self.runtime.run()
                if uid in self.lives.keyed and uid in self.witness.refused:
                    del self.lives.keyed[uid]  # no room
        while left := self._open_jobs():
            self._left_open(left[0])
        self.witness.raise_breaches()
        self.runtime.wait_until_all_jobs_finished()
        self.runtime.run()
        self.look_around()

    def _left_open(self, job: Any) -> None:
        """Its items may only wait for room that is not there."""
        worker = self.states[job.flow_id].control
        full = any(slot.full for node in worker.nodes.values() for slot in node.mailbox.slots.values())
        self.witness.expect(self.plan.can_lock and full, f"{job} is left open, and nothing moves any more")
        self.witness.cancel_asked.add(job.job_id)
        self.runtime.cancel(job)
        self.runtime.run()

    def look_around(self) -> None:
        """Nothing happens any more: what is in the store is what is in memory, and what it should be."""
        witness, audit = self.witness, self.audit
        started = witness.started
        self.runtime.run()
        witness.expect(started == witness.started, "something starts again that had ended")
        self._check_items()
        self._check_notes()
        self._check_left()
        for job_id, row in audit.jobs.items():
            self._check_job(job_id, row)
        found = self._insist(self.runtime.dead_letters)
        letters = sorted((letter.worker_id, letter.item_id) for letter in found)
        witness.expect(letters == sorted(audit.letters), f"letters {letters}, of {sorted(audit.letters)}")
        book = self.runtime._engine.book
        witness.expect((book.open, book.pending) == (0, 0), f"{book.open} open, {book.pending} pending jobs")
        witness.raise_breaches()
        self.runtime.shutdown()

    def _check_items(self) -> None:
        for state in self.states.values():
            worker = state.control
            if worker.stopped:
                continue
            self.witness.check_capacity(worker)
            for slot in worker.backlog.stretches:
                kept = slot.length - len(queued_in(slot))
                self.witness.expect(not kept, f"{slot.qualified_name} keeps {kept} places for nothing")
            here = {item[0] for node in worker.nodes.values() for item in all_of(node.mailbox)}
            stored = {key.number for key in self.audit.items if key.worker_id == state.worker_id}
            beyond = any(
                slot.beyond for node in worker.nodes.values() for slot in node.mailbox.slots.values()
            )
            same = here <= stored if beyond else here == stored
            self.witness.expect(
                same, f"{state.worker_id} has items {sorted(here)}, its store {sorted(stored)}"
            )
            self._check_joins(state)
            stalled = [item for node in worker.nodes.values() for item in stalled_in(node.mailbox)]
            self.witness.expect(not stalled, f"{stalled} wait to run again")
            self._check_state(state)

    def _check_joins(self, state: Any) -> None:
        """No set is complete and not joined, wherever its items are; but sets may wait for room behind them."""
        waiting: dict[tuple[str, Any], set[str]] = {}
        routines = {
            routine_id: routine.policy.by  # type: ignore[attr-defined]
            for (flow_id, routine_id), routine in self.witness.routines.items()
            if flow_id == state.flow_id
            and getattr(routine.policy, "by", None) is not None
            and not state.control.nodes[routine_id].mailbox.pending
        }
        for key, row in self.audit.items.items():
            routine_id, _, slot = key.place.rpartition(".")
            over = all(self.audit.jobs[job_id].status != "completed" for job_id in json.loads(row.job_ids))
            if key.worker_id == state.worker_id and routine_id in routines and not over:
                by = routines[routine_id]
                joined_by = row.job_ids if by == "job" else self.audit._decode(row.data)[by]
                waiting.setdefault((routine_id, joined_by), set()).add(slot)
        for (routine_id, joined_by), slots in waiting.items():
            whole = {slot.name for slot in self.witness.routines[state.flow_id, routine_id].slots}
            self.witness.expect(slots != whole, f"{routine_id} has not joined its items of {joined_by}")

    def _check_state(self, state: Any) -> None:
        for (worker_id, routine_id), n in self.audit._counters.items():
            plan = self.witness.routines[state.flow_id, routine_id] if worker_id == state.worker_id else None
            if plan is not None:
                found = state.get_routine_state(routine_id)
                whole = found["n"] == n == len(found["uids"])
                self.witness.expect(whole, f"{routine_id} remembers {found}, of {n} items")

    def _check_notes(self) -> None:
        left = [note for note in self.store._notes if note.kind in ("activation", "once", "crash")]
        live = {state.worker_id for state in self.states.values() if not state.control.stopped}
        self.witness.expect(not [n for n in left if n.worker_id in live], f"notes are left: {left}")

    def _check_job(self, job_id: str, row: Any) -> None:
        expect = self.witness.expect
        expect(row.status in FINISHED, f"{job_id} is {row.status} at the end")
        asked = job_id in self.witness.cancel_asked or row.worker_id in self.witness.cancel_asked
        expect(row.status != "cancelled" or asked, f"{job_id} is cancelled, and nobody has asked for it")
        job = self._insist(partial(self.runtime.get_job, job_id))
        expect(job is not None and job.status == row.status, f"{job} is shown, {row.status} is stored")
        outputs = [output.data["uid"] for output in job.outputs]  # type: ignore[union-attr]
        expect(
            outputs == self.audit.outputs[job_id], f"{job_id} has {outputs}, of {self.audit.outputs[job_id]}"
        )

    def _check_left(self) -> None:
        """Of ended jobs nothing is left but what waits in the store for room that is not there."""
        cursors = {
            (state.worker_id, slot.qualified_name): stretch.cursor
            for state in self.states.values()
            for slot, stretch in state.control.backlog.stretches.items()
            if slot.beyond
        }
        for key, row in self.audit.items.items():
            statuses = {self.audit.jobs[job_id].status for job_id in json.loads(row.job_ids)}
            waits = key.number > cursors.get((key.worker_id, key.place), key.number)
            waits = waits or self.audit.workers[key.worker_id].status == "stopped"  # goes with the worker
            self.witness.expect(waits or "completed" in statuses, f"{key} is left, and its jobs have ended")

    # -- what routines do ----------------------------------------------------------------------------------------

    def _logic_of(self, routine: Routine, plan: RoutinePlan) -> Callable[..., Any]:
        def logic(slot_data: Any, message: Any, state: Any) -> None:
            self.moment("in logic")
            with self.witness.activation(plan, slot_data, message) as activation:
                for step in self._doings(plan, activation, slot_data, state):
                    if isinstance(step, Emission):
                        routine.emit(step.event, **step.payload)
                    else:
                        self.simulation.maybe_interrupt()

        async def async_logic(slot_data: Any, message: Any, state: Any) -> None:
            self.moment("in logic")
            with self.witness.activation(plan, slot_data, message) as activation:
                for step in self._doings(plan, activation, slot_data, state):
                    if isinstance(step, Emission):
                        routine.emit(step.event, **step.payload)
                    else:
                        await asyncio.sleep(step.seconds)

        return async_logic if plan.is_async else logic

    def _doings(
        self, plan: RoutinePlan, activation: Any, slot_data: Any, state: Any
    ) -> Iterator[Nap | Emission]:
        """Emits for each item, leaves its marks everywhere, and perhaps fails before, between or behind it all."""
        first = activation.batch[0][2]["uid"]
        fails = activation.attempt <= plan.attempts_that_fail(first)
        moment = draw(first, plan.routine_id, "moment", 3) if fails else None
        if moment == 0:
            raise Trouble(first)
        emits: list[tuple[str, str]] = []
        for item in activation.batch:
            if draw(item[2]["uid"], plan.routine_id, "naps", 3) == 0:
                yield Nap(draw(item[2]["uid"], "nap", 4) / 4)
            for emission in self._emissions(plan, item[1], item[2]):
                yield emission
                emits.append((emission.event, emission.payload["uid"]))
            if moment == 1:
                raise Trouble(first)
        self._leave_marks(plan, activation, slot_data, state, emits)
        if moment == 2:
            raise SystemExit(first) if draw(first, "exits", 4) == 0 else Trouble(first)

    def _leave_marks(
        self, plan: RoutinePlan, activation: Any, slot_data: Any, state: Any, emits: list[tuple[str, str]]
    ) -> None:
        context = current()
        key = context.idempotency_key()
        self._count(plan, activation, state)
        context.job.set_data(key, activation.attempt)
        context.job.trace("worked", key=key)
        merged = {
            slot.name: slot_data[slot.name][0]["all" if slot.merge == "custom" else "uid"]
            for slot in plan.slots
            if slot.merge != "queue" and slot.name in slot_data
        }
        state.shared_log.append(
            {
                "routine": plan.routine_id,
                "items": [[item[1], item[0], item[2]["uid"], item[4]] for item in activation.batch],
                "key": key,
                "attempt": activation.attempt,
                "jobs": [job.job_id for job in context.jobs],
                "emits": [list(emit) for emit in emits],
                "merged": merged,
            }
        )

    def _count(self, plan: RoutinePlan, activation: Any, state: Any) -> None:
        """Count the items in the routine's state, in any of the ways that there are to change it."""
        n, own = len(activation.batch), current().routine_state
        way = draw(activation.batch[0][2]["uid"], plan.routine_id, "counts", 5)
        if way == 0:
            counted = state.get_routine_state(plan.routine_id, {}).get("n", 0)
            self.simulation.maybe_interrupt()
            state.update_routine_state(plan.routine_id, {"n": counted + n})
        elif way == 1:
            counted = own.get("n", 0)
            self.simulation.maybe_interrupt()
            own["n"] = counted + n
        elif way == 2:
            own.change("n", lambda counted: counted + n, 0)
        elif way == 3:
            own.add("n", n)
        else:
            own.setdefault("n", 0)
            own.add("n", n)
        uids = own.setdefault("uids", [])
        self.simulation.maybe_interrupt()
        uids += [item[2]["uid"] for item in activation.batch]  # noticed at the end

    def _emissions(self, plan: RoutinePlan, slot: str, payload: dict[str, Any]) -> Iterator[Emission]:
        uid, life = payload["uid"], payload["life"]
        if not life or self.witness.emitted >= MOST_ITEMS:
            return
        for event in plan.events:
            how_many = {1: (1, 1, 1, 0), 2: (1, 2, 0, 1)}[plan.spread]
            for n in range(how_many[draw(uid, plan.routine_id, event, "many", 4)]):
                self.witness.emitted += 1
                child = f"{uid}.{plan.routine_id}{slot[1:]}{event}{n}"
                yield Emission(event, {"uid": child, "life": life - 1, "key": payload["key"]})


def _place(worker_id: str, place: tuple[str, str]) -> ItemKey:
    return ItemKey(worker_id, ".".join(place), 0)
