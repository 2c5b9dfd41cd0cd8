"""What happened in a run, kept apart from the engine's own books, and the rules that must hold at every moment.

Rules
    * An item that was sent ends exactly once: its activation completed, or it was dropped with a reason, or it is
      parked at the end and counted in ``job.parked``.
    * What a routine is given is what was sent to it, in the order in which it was sent.
    * A slot never holds more than its capacity, and its length is what is really queued.
    * A routine does not overlap itself beyond its concurrency, nor a worker beyond its limit.
    * In a routine with lanes an activation starts only when the one before it with its key has ended for good, and
      takes the items of its key in their order, whatever is paused.
    * A job ends once, and completes only when nothing of it can move.
    * Nothing starts in what is paused or, once it was cancelled, for a job that has ended.

The engine takes an exception of an observer, or of logic, for one of user code. So a breach is noted here and
raised by :meth:`Ledger.raise_breaches`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock, local
from typing import Any, NamedTuple

from routilux.errors import DeadlockError, QueueFullError, RoutiluxError
from routilux.kernel.gathering import UserDecided, _Interval
from routilux.kernel.lanes import Lanes
from routilux.model.context import running
from routilux.ports import Activated, Dropped, Emitted, JobChanged, Record
from routilux.testing.simulated import SimulationStuck
from tests.property.plans import FlowPlan, Plan, RoutinePlan, Trouble, message_of

Key = tuple[str, int]  # a worker and the number of an item in it
Place = tuple[str, str]  # a worker and a routine


class Sent(NamedTuple):
    uid: str
    source: str
    target: str
    jobs: tuple[str, ...]


class Refused(NamedTuple):
    """An emit that raised: it may have reached some of its targets."""

    uid: str


class Ledger:
    """See the module's docstring. It is the run's observer, and the routines report to it."""

    def __init__(self, plan: Plan, tell: Callable[[object], object] = bool) -> None:
        self.plan = plan
        self.tell = tell  # is told everything that happens, in words
        self.breaches: list[str] = []
        self.workers: dict[str, Any] = {}  # the engine's, by id
        self.flows: dict[str, FlowPlan] = {}  # by worker
        self.routines: dict[Place, RoutinePlan] = {}
        self.jobs: dict[str, Any] = {}  # whose post was accepted
        self.sent: dict[Key, Sent] = {}
        self.ended: dict[Key, str] = {}
        self.open: dict[str, set[Key]] = defaultdict(set)  # by job: sent, and not ended
        self.outputs: dict[str, list[str]] = defaultdict(list)  # by job
        self.started = 0
        self.counted: dict[Place, Counter[str]] = defaultdict(Counter)
        self.statuses: dict[str, list[str]] = defaultdict(list)
        self.resting: set[str] = set()  # ids of workers and jobs whose pause has returned
        self.cancelled: set[str] = set()  # ids of jobs whose cancellation has returned to the test
        self.job_pauses = False
        self.stopped: set[str] = set()  # workers that were stopped or cancelled while they had work
        self.running: dict[Any, Place] = {}
        self.at_hand: Callable[[], Any] = bool  # the activation on the thread that tells a record
        self.suspended: set[Any] = set()  # asynchronous logic that may be waiting for room
        self.arrived: dict[tuple[str, str, str], list[int]] = defaultdict(list)  # by connection
        self.taken: dict[tuple[str, str, str], list[int]] = defaultdict(list)
        self._taken_for: dict[Key, tuple[str, ...]] = {}  # the jobs of the whole set
        self.merged: dict[tuple[str, str, str], list[str]] = defaultdict(list)  # uids, by slot
        self._payloads: dict[Key, str] = {}  # uid that a routine was given, by number
        self._emitting: dict[Any, str] = {}
        self._emits: dict[
            tuple[str, str], tuple[str, bool]
        ] = {}  # by worker and uid: the source, whether it returned
        self._returned: set[Any] = set()
        self._lanes: dict[Key, object] = {}
        self._retrying: dict[Place, dict[Any, None]] = defaultdict(dict)
        self._posting = local()
        self._lock = Lock()

    # -- what the test says --------------------------------------------------------------------------------

    def enter(self, state: Any, flow: FlowPlan) -> None:
        self.workers[state.worker_id] = state.control
        self.flows[state.worker_id] = flow
        for routine in flow.routines:
            self.routines[state.worker_id, routine.routine_id] = routine

    def breach(self, what: str) -> None:
        if len(self.breaches) < 20:
            self.breaches.append(what)

    def expect(self, holds: object, what: str) -> None:
        if not holds:
            self.breach(what)

    def raise_breaches(self) -> None:
        if self.breaches:
            raise AssertionError("\n".join(self.breaches))

    @contextmanager
    def posting(self, uid: str) -> Iterator[None]:
        outer = getattr(self._posting, "uid", None)
        self._posting.uid = uid
        try:
            yield
        finally:
            self._posting.uid = outer

    # -- what the routines say -----------------------------------------------------------------------------

    @contextmanager
    def activation(
        self, plan: RoutinePlan, slot_data: Mapping[str, list[dict[str, Any]]], message: Any
    ) -> Iterator[Any]:
        """Around a routine's logic."""
        activation: Any = running.get()
        place = (activation.node.worker.worker_id, plan.routine_id)
        self.tell(f"{plan.routine_id} starts with {activation.key}, attempt {activation.attempt}")
        with self._lock:
            self.started += 1
            self.running[activation] = place
        try:
            with self._lock:
                self._check_start(activation, place, plan)
            self._check_data(activation, place, plan, slot_data, message)
            yield activation
            self._returned.add(activation)
        except (Trouble, RoutiluxError):
            raise
        except Exception as error:
            self.breach(f"{place[1]} failed with something else than planned: {error!r}")
            raise
        finally:
            with self._lock:
                del self.running[activation]

    @contextmanager
    def awaiting(self, activation: Any) -> Iterator[None]:
        """Around an ``await`` of asynchronous logic: behind what it emitted it may wait for room."""
        if activation.outbox:
            self.suspended.add(activation)
        try:
            yield
        finally:
            self.suspended.discard(activation)

    def emit(self, routine: Any, activation: Any, event: str, payload: dict[str, Any]) -> None:
        worker_id, uid = activation.node.worker.worker_id, payload["uid"]
        unwanted = activation.job.ended
        source = f"{routine.routine_id}.{event}"
        self._emitting[activation] = uid
        self._emits[worker_id, uid] = source, False
        try:
            routine.emit(event, **payload)
        except DeadlockError as error:
            self.expect(self.plan.can_lock, f"a dead-lock where none is possible: {error}")
            raise
        except QueueFullError as error:
            allowed = self.plan.features.drops or worker_id in self.stopped
            self.expect(allowed, f"a full slot does not wait: {error}")
            raise
        except SimulationStuck as error:
            self.breach(f"{uid} waits for room for ever: {error}")
            raise
        finally:
            del self._emitting[activation]
        self._emits[worker_id, uid] = source, True
        self.expect(not unwanted, f"{uid} was emitted for a job that had ended")
        if not self.flows[worker_id].targets(routine.routine_id, event):
            with self._lock:
                for member in activation.job.members:
                    self.outputs[member.job.job_id].append(uid)

    def _check_start(self, activation: Any, place: Place, plan: RoutinePlan) -> None:
        worker_id, routine_id = place
        overlap = sum(other == place for other in self.running.values())
        self.expect(overlap <= plan.concurrency, f"{routine_id} runs {overlap} times, of {plan.concurrency}")
        self._check_limit(worker_id)
        jobs = [member.job.job_id for member in activation.job.members]
        self.expect(worker_id not in self.resting, f"{routine_id} starts in a paused worker")
        over = {m.job.job_id for m in activation.job.members if m.status.finished}  # which ends a pause
        held = self.resting.intersection(jobs) - over
        self.expect(not held, f"{routine_id} starts for a paused job of {jobs}")
        self.expect(
            not self.cancelled.issuperset(jobs), f"{routine_id} starts for {jobs}, which was cancelled"
        )
        retrying = self._retrying[place]
        retrying.pop(activation, None)
        for item in activation.batch:
            key = (worker_id, item[0])
            self.expect(
                key not in self.ended, f"{item[2]['uid']} starts after it ended: {self.ended.get(key)}"
            )
            if activation.attempt == 1:
                self.taken[worker_id, item[4], f"{routine_id}.{item[1]}"].append(item[0])
                self._taken_for[key] = tuple(sorted(jobs))
            uid = self._payloads.setdefault(key, item[2]["uid"])
            self.expect(uid == item[2]["uid"], f"item {item[0]} was {uid} and is {item[2]['uid']}")
        if plan.by is not None:
            self._check_lane(activation, place, plan)
        elif plan.concurrency == 1 and activation.attempt == 1 and not self.job_pauses:
            for other in retrying:
                ended = [(worker_id, item[0]) in self.ended for item in other.batch]
                waits = not (other.job.ended or all(ended))  # once its job has ended it is withdrawn
                self.expect(
                    not waits, f"{routine_id} starts something else while {other.key} waits for a retry"
                )

    def _check_lane(self, activation: Any, place: Place, plan: RoutinePlan) -> None:
        lane = lane_of(plan, activation.batch[0])
        self._lanes.update(((place[0], item[0]), lane) for item in activation.batch)
        for other, where in self.running.items():
            beside = where == place and other is not activation and lane_of(plan, other.batch[0]) == lane
            self.expect(not beside, f"{plan.routine_id} runs twice for key {lane}")
        for other in self._retrying[place]:
            ended = [(place[0], item[0]) in self.ended for item in other.batch]
            waits = not (other.job.ended or all(ended)) and lane_of(plan, other.batch[0]) == lane
            self.expect(not waits, f"{plan.routine_id} passes the retry of {other.key} with its key {lane}")

    def _check_limit(self, worker_id: str) -> None:
        flow = self.flows[worker_id]
        limit = 1 if flow.strategy == "sequential" else flow.max_workers
        if limit is None:
            return
        at_work = sum(
            place[0] == worker_id and activation not in self._emitting and activation not in self.suspended
            for activation, place in self.running.items()
        )
        self.expect(at_work <= limit, f"{at_work} activations run at once in {worker_id}, of {limit}")

    def _check_data(
        self,
        activation: Any,
        place: Place,
        plan: RoutinePlan,
        slot_data: Mapping[str, list[dict[str, Any]]],
        message: Any,
    ) -> None:
        by_slot: dict[str, list[dict[str, Any]]] = {}
        for item in activation.batch:
            by_slot.setdefault(item[1], []).append(item[2])
        self.expect(message == message_of(plan.policy, by_slot), f"{place[1]} was told {message!r}")
        self.expect(
            slot_data.keys() == by_slot.keys(), f"{place[1]} was given {list(slot_data)}, not {list(by_slot)}"
        )
        for slot in plan.slots:
            if slot.name not in by_slot:
                continue
            if slot.merge == "queue":
                self.expect(slot_data[slot.name] == by_slot[slot.name], f"{place[1]} was given other data")
            else:
                self._check_merged(place, slot.name, slot.merge, by_slot[slot.name], slot_data[slot.name])

    def _check_merged(
        self,
        place: Place,
        slot: str,
        strategy: str,
        payloads: list[dict[str, Any]],
        given: list[dict[str, Any]],
    ) -> None:
        uids = self.merged[(*place, slot)] + [payload["uid"] for payload in payloads]
        merged = given[0]
        expected = {"append": uids, "custom": uids, "override": uids[-1]}[strategy]
        found = merged.get("all" if strategy == "custom" else "uid") if len(given) == 1 else given
        self.expect(found == expected, f"{place[1]}.{slot} merged {found}, not {expected}")

    # -- what the engine says --------------------------------------------------------------------------------

    def record(self, record: Record) -> None:
        self.tell(record)
        with self._lock:
            match record:
                case Emitted():
                    self._emitted(record)
                case Activated():
                    self._activated(record)
                case Dropped():
                    self._end((record.worker_id, record.number), record.reason)
                    if record.reason.startswith("slot full"):
                        self.counted[record.worker_id, record.target.partition(".")[0]]["dropped"] += 1
                case JobChanged(job_id=job_id, status=status):
                    self.statuses[job_id].append(status)

    def _emitted(self, record: Emitted) -> None:
        key = (record.worker_id, record.number)
        activation = running.get()
        by_post = record.source == "post"
        uid = getattr(self._posting, "uid", None) if by_post else self._emitting.get(activation)
        self.expect(uid is not None, f"item {record.number} was emitted by nobody: {record}")
        self.expect(key not in self.sent, f"item {record.number} was sent twice")
        self.sent[key] = Sent(str(uid), record.source, record.target, record.job_ids)
        self.arrived[record.worker_id, record.source, record.target].append(record.number)
        if key not in self.ended:
            for job_id in record.job_ids:
                self.open[job_id].add(key)
        routine_id, _, slot_name = record.target.partition(".")
        if record.worker_id in self.workers:
            self._check_capacity(self.workers[record.worker_id].nodes[routine_id].mailbox.slots[slot_name])

    def _check_capacity(self, slot: Any) -> None:
        self.expect(
            slot.length <= slot.capacity,
            f"{slot.qualified_name} counts {slot.length} items, of {slot.capacity}",
        )
        if self.plan.interruption is not None:
            queued = len(queued_in(slot))
            self.expect(
                queued <= slot.length, f"{slot.qualified_name} holds {queued} items and counts {slot.length}"
            )

    def _activated(self, record: Activated) -> None:
        place = (record.worker_id, record.routine_id)
        self.counted[place][record.outcome] += 1
        activation: Any = self.at_hand() or running.get()
        ran = activation is not None and activation.mailbox.routine_id == record.routine_id
        if record.outcome == "retried" and ran and activation not in self._returned:
            self._retrying[place][activation] = None  # else its policy has failed, and this is another one
        if record.outcome != "completed":
            return
        self.expect(activation in self._returned, f"{record.routine_id} is completed without its logic")
        merges = {slot.name for slot in self.routines[place].slots if slot.merge != "queue"}
        for item in activation.batch:
            self._end((record.worker_id, item[0]), "completed")
            if item[1] in merges:
                self.merged[(*place, item[1])].append(item[2]["uid"])

    def _end(self, key: Key, how: str) -> None:
        self.expect(key not in self.ended, f"item {key} ends again: {self.ended.get(key)}, and now {how}")
        self.ended[key] = how
        sent = self.sent.get(key)
        if sent is not None:
            for job_id in sent.jobs:
                self.open[job_id].discard(key)

    # -- the end of a job ------------------------------------------------------------------------------------

    def completes(self, account: Any) -> None:
        """An account says that nothing of its job moves any more: count it independently."""
        job = account.job
        worker = self.workers.get(job.worker_id)
        if worker is None:
            return
        parked = {
            (job.worker_id, item[0])
            for node in worker.nodes.values()
            for item in gathered_in(node.mailbox)
            if account in item[3].members
        }
        moving = self.open[job.job_id] - parked
        names = sorted(self.sent[key].uid for key in moving)
        self.expect(not moving, f"{job.job_id} completes while {names} can move")
        self.expect(
            account.parked == len(parked),
            f"{job.job_id} completes with {len(parked)} items parked, and counts {account.parked}",
        )
        for activation, place in self.running.items():
            busy = account in activation.job.members
            self.expect(not busy, f"{job.job_id} completes while {place[1]} runs for it")

    def waits_for_room(self, job: Any) -> bool:
        """Whether all that is left of the job waits for a start that a full slot holds back."""
        worker = self.workers[job.worker_id]
        held_back = {
            (job.worker_id, item[0])
            for node in worker.nodes.values()
            if any(slot.full for slot in node.mailbox.feeds)  # until it has fallen to its watermark
            for item in all_of(node.mailbox)
        }
        parked = {
            (job.worker_id, item[0]) for node in worker.nodes.values() for item in parked_in(node.mailbox)
        }
        return self.open[job.job_id] <= held_back | parked

    # -- the end of a run ------------------------------------------------------------------------------------

    def close(self, runtime: Any) -> None:
        """Check the books; nothing happens any more."""
        left: dict[Key, Any] = {}
        parked: set[Key] = set()
        for worker_id, worker in self.workers.items():
            self._check_worker(worker_id, worker)
            for node in worker.nodes.values():
                left.update({(worker_id, item[0]): item for item in all_of(node.mailbox)})
                parked.update((worker_id, item[0]) for item in parked_in(node.mailbox))
                if worker_id in self.stopped:
                    left.update({(worker_id, item[0]): item for item in stalled_in(node.mailbox)})
        self._check_items(left)
        self._check_emits()
        self._check_order()
        for job in self.jobs.values():
            self._check_job(job, left, parked)
        book = runtime._engine.book
        self.expect(book.open == 0, f"{book.open} jobs are open at the end")
        self.expect(book.pending == 0, f"{book.pending} jobs are pending at the end")
        self.expect(not self.running, f"{list(self.running.values())} run at the end")
        self.expect(not runtime._engine.driver.running(), "the driver runs something at the end")

    def _check_items(self, left: dict[Key, Any]) -> None:
        for key, sent in self.sent.items():
            ends = (key in self.ended) + (key in left)
            self.expect(ends == 1, f"{sent} ended {ends} times: {self.ended.get(key)}, left: {key in left}")
            given = self._payloads.get(key, sent.uid)
            self.expect(given == sent.uid, f"{given} arrived in the place of {sent}")
        for key in (*self.ended, *left, *self._payloads):
            self.expect(key in self.sent, f"item {key} was never sent")

    def _check_emits(self) -> None:
        reached: dict[tuple[str, str], list[str]] = defaultdict(list)
        for (worker_id, _), sent in self.sent.items():
            reached[worker_id, sent.uid].append(sent.target)
        for (worker_id, uid), (source, returned) in self._emits.items():
            wanted = self.flows[worker_id].targets(*source.split("."))
            found = reached[worker_id, uid]
            fits = sorted(found) == sorted(wanted) if returned else len(set(found)) == len(found)
            self.expect(fits, f"{uid} went from {source} to {found}, not to {wanted}")

    def _check_order(self) -> None:
        for (worker_id, source, target), numbers in self.taken.items():
            consumer = self.routines[worker_id, target.partition(".")[0]]
            producer = self.routines.get((worker_id, source.partition(".")[0]))
            if consumer.by is not None:
                self._check_order_of_lanes(worker_id, source, target)
                continue
            if producer is None or not consumer.fifo or max(consumer.concurrency, producer.concurrency) > 1:
                continue
            arrived = self.arrived[worker_id, source, target]
            position = {number: at for at, number in enumerate(arrived)}
            by_jobs: dict[
                tuple[str, ...], int
            ] = {}  # a paused one holds back the sets that have an item of it
            for number in numbers:
                if (worker_id, number) not in self.sent:
                    continue
                jobs = self._taken_for[worker_id, number] if self.job_pauses else ()
                at = position[number]
                in_order = by_jobs.get(jobs, -1) < at
                self.expect(in_order, f"{target} takes {numbers}, which came from {source} as {arrived}")
                by_jobs[jobs] = at

    def _check_order_of_lanes(self, worker_id: str, source: str, target: str) -> None:
        consumer = self.routines[worker_id, target.partition(".")[0]]
        producer = self.routines.get((worker_id, source.partition(".")[0]))
        if producer is None or (producer.concurrency > 1 and producer.by != consumer.by):
            return
        arrived, taken = self.arrived[worker_id, source, target], self.taken[worker_id, source, target]
        lanes: dict[object, list[int]] = defaultdict(list)
        for number in arrived:
            if (worker_id, number) in self._lanes:
                lanes[self._lanes[worker_id, number]].append(number)
        for lane, numbers in lanes.items():
            found = [number for number in taken if number in numbers]
            expected = [number for number in numbers if number in found]
            self.expect(found == expected, f"{target} takes {found} of key {lane}, which came as {numbers}")

    def _check_worker(self, worker_id: str, worker: Any) -> None:
        expect = self.expect
        expect(worker.queue.in_flight == 0, f"{worker.queue.in_flight} turns of {worker_id} never ended")
        expect(not worker.retries, f"{worker_id} waits for retries: {worker.retries}")
        expect(
            not worker.back_pressure.blocked,
            f"{worker_id} has blocked activations: {worker.back_pressure.blocked}",
        )
        expect(
            not worker.gates.activations,
            f"{worker_id} keeps activations at a gate: {worker.gates.activations}",
        )
        for routine_id, node in worker.nodes.items():
            mailbox, counted = node.mailbox, self.counted[worker_id, routine_id]
            expect(mailbox.running == 0, f"{routine_id} has {mailbox.running} running activations")
            if worker_id not in self.stopped:
                expect(not mailbox.queued, f"{routine_id} is promised to be looked at")
                expect(not stalled_in(mailbox), f"{routine_id} has activations to run again")
            for slot in mailbox.slots.values():
                really = len(queued_in(slot))
                expect(
                    slot.length == really,
                    f"{slot.qualified_name} counts {slot.length} items and has {really}",
                )
            found = node.counters()
            ended = counted["completed"] + counted["failed"] + counted["skipped"]
            expect(found["activations"] == ended, f"{routine_id} counts {found}, and had {counted}")
            for name in ("failed", "skipped", "retried", "dropped"):
                expect(found[name] == counted[name], f"{routine_id} counts {found}, and had {counted}")

    def _check_job(self, job: Any, left: dict[Key, Any], parked_keys: set[Key]) -> None:
        account, statuses = job.account, self.statuses[job.job_id]
        of_job = {key for key, item in left.items() if account in item[3].members}
        active, parked = len(of_job - parked_keys), len(of_job & parked_keys)
        # What a job that was over has in a start that is held back, or in a worker that was stopped, stays.
        stays = self.plan.can_lock or self.stopped.intersection(key[0] for key in of_job)
        self.expect(stays or not active, f"{active} items of {job} could move at the end")
        self.expect(account.active == active, f"{job} counts {account.active} active items, and has {active}")
        self.expect(account.parked == parked, f"{job} counts {account.parked} parked items, and has {parked}")
        ends = [status for status in statuses if status in ("completed", "failed", "cancelled")]
        self.expect(ends == [job.status], f"{job} is {job.status} and was {statuses}")
        self.expect(job.finished, f"{job} has not ended")
        outputs = sorted(output.data["uid"] for output in job.outputs)
        self.expect(outputs == sorted(self.outputs[job.job_id]), f"{job} has outputs {outputs}")


# -- what is in a mailbox, without its lock ------------------------------------------------------------------------


def lane_of(plan: RoutinePlan, item: Any) -> object:
    """What the routine keeps this item apart by."""
    if plan.by == "job":
        return tuple(member.job.job_id for member in item[3].members)
    return item[2][plan.by]


def gathered_in(mailbox: Any) -> list[Any]:
    """Items that may be waiting until others arrive."""
    gathering = mailbox._gathering
    if isinstance(gathering, Lanes):
        gathering = gathering.inner
    return [] if gathering is None or isinstance(gathering, _Interval) else list(gathering.items())


def parked_in(mailbox: Any) -> list[Any]:
    """Items that are counted as waiting until others arrive."""
    gathering = mailbox._gathering
    if not isinstance(gathering, UserDecided):
        return gathered_in(mailbox)
    return [item for slot, queue in gathering._queues.items() for item in queue[: gathering._parked[slot]]]


def all_of(mailbox: Any) -> list[Any]:
    """Every item in the mailbox, except those of activations that were handed out."""
    batches = [*mailbox.pending, *mailbox.claimed]
    gathered = [] if mailbox._gathering is None else mailbox._gathering.items()
    outside = [item for slot in mailbox.slots.values() for item in slot.held or ()]
    return [*(item for batch in batches for item in batch), *gathered, *mailbox._held, *outside]


def stalled_in(mailbox: Any) -> list[Any]:
    """The items of activations that are to run again."""
    activations = [*mailbox.stalled, *mailbox.prepared, *mailbox._held_prepared]
    return [item for activation in activations for item in activation.batch]


def queued_in(slot: Any) -> list[Any]:
    return [item for item in all_of(slot.mailbox) if item[1] == slot.name]
