"""What callers were told and what routines saw, over all lives of a store; it outlives every process that dies.

Rules
    * What ``post()`` has acknowledged is in the store at that moment; what it has refused never is.
    * An item is given to a routine only while it is durable, and always with the same others and the same key.
    * Nothing starts in what is paused, in this life or in an earlier one, or for a job whose cancellation returned.
    * A routine does not overlap itself beyond its concurrency; no slot holds more than its capacity in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from routilux import current
from routilux.model.context import running
from routilux.ports import ItemKey
from tests.property.ledger import lane_of, queued_in
from tests.property.plans import FlowPlan, Plan, RoutinePlan, message_of, moody

MOST_BREACHES = 20


class Witness:
    """See the module's docstring. A breach is noted where it is seen, and raised by :meth:`raise_breaches`."""

    def __init__(self, plan: Plan, tell: Callable[[object], object] = bool) -> None:
        self.plan = plan
        self.tell = tell
        self.breaches: list[str] = []
        self.flows = {flow.flow_id: flow for flow in plan.flows}
        self.routines = {(f.flow_id, r.routine_id): r for f in plan.flows for r in f.routines}
        self.acknowledged: dict[str, str] = {}  # uid of a post -> its job
        self.refused: set[str] = set()
        self.open_posts: set[str] = set()  # nobody was told what became of them
        self.cancel_asked: set[str] = set()  # jobs and workers
        self.cancelled: set[str] = set()  # jobs whose cancellation has returned
        self.resting: set[str] = set()  # workers and jobs whose pause has returned
        self.job_pauses = False
        self.batches: dict[ItemKey, tuple[tuple[int, ...], str]] = {}  # what each item was given with
        self.attempts: dict[str, int] = {}  # the last one, by idempotency key
        self.stalled: set[str] = set()  # routines of which an item failed because none could start
        self.started = 0
        self.emitted = 0
        self.running: dict[Any, tuple[str, str]] = {}
        self.is_stored: Callable[[ItemKey], bool]

    def breach(self, what: str) -> None:
        self.tell(f"BREACH {what}")
        if len(self.breaches) < MOST_BREACHES:
            self.breaches.append(what)

    def expect(self, holds: object, what: str) -> None:
        if not holds:
            self.breach(what)

    def raise_breaches(self) -> None:
        if self.breaches:
            raise AssertionError("\n".join(self.breaches))

    # -- what routines see -----------------------------------------------------------------------------------

    @contextmanager
    def activation(self, plan: RoutinePlan, slot_data: Any, message: Any) -> Iterator[Any]:
        activation: Any = running.get()
        worker = activation.node.worker
        self.started += 1
        self.tell(
            f"{worker.worker_id} {plan.routine_id} starts {activation.key}, attempt {activation.attempt}"
        )
        self.running[activation] = place = (worker.worker_id, plan.routine_id)
        try:
            overlap = sum(other == place for other in self.running.values())
            self.expect(overlap <= plan.concurrency, f"{place} runs {overlap} times, of {plan.concurrency}")
            if plan.by is not None:
                lane = lane_of(plan, activation.batch[0])
                same = sum(
                    other == place and lane_of(plan, each.batch[0]) == lane
                    for each, other in self.running.items()
                )
                self.expect(same == 1, f"{place} runs {same} times for key {lane}")
            self._check_start(worker, activation, plan)
            self._check_data(activation, plan, slot_data, message)
            yield activation
        finally:
            del self.running[activation]

    def _check_start(self, worker: Any, activation: Any, plan: RoutinePlan) -> None:
        worker_id, where = worker.worker_id, f"{plan.routine_id} with {activation.key}"
        jobs = {member.job.job_id for member in activation.job.members}
        self.expect(worker_id not in self.resting, f"{where} starts in the paused worker {worker_id}")
        over = {m.job.job_id for m in activation.job.members if m.status.finished}  # which ends a pause
        held = self.resting & jobs - over
        self.expect(not held, f"{where} starts for a paused job of {sorted(jobs)}")
        self.expect(not jobs <= self.cancelled, f"{where} starts for {sorted(jobs)}, which was cancelled")
        numbers, key = tuple(item[0] for item in activation.batch), current().idempotency_key()
        for item in activation.batch:
            stored = ItemKey(worker_id, f"{plan.routine_id}.{item[1]}", item[0])
            self.expect(self.is_stored(stored), f"{where} starts with {stored}, which is not in the store")
            before = self.batches.setdefault(stored, (numbers, key))
            self.expect(
                before == (numbers, key), f"{stored} was given as {before}, and now as {(numbers, key)}"
            )
        last = self.attempts.get(key, 0)
        # The policy may have failed in the place of the logic, or there was no room to start.
        unseen = getattr(plan.policy, "fn", None) is moody or plan.routine_id in self.stalled
        follows = unseen or activation.attempt <= last + 1
        self.expect(follows, f"{where} makes attempt {activation.attempt} after {last}")
        self.attempts[key] = max(last, activation.attempt)
        self.check_capacity(worker)

    def _check_data(self, activation: Any, plan: RoutinePlan, slot_data: Any, message: Any) -> None:
        by_slot: dict[str, list[Any]] = {}
        for item in activation.batch:
            by_slot.setdefault(item[1], []).append(item[2])
        self.expect(message == message_of(plan.policy, by_slot), f"{plan.routine_id} was told {message!r}")
        for slot in plan.slots:
            if slot.merge == "queue" and slot.name in by_slot:
                found = slot_data[slot.name]
                self.expect(found == by_slot[slot.name], f"{plan.routine_id} was given {found}")

    def check_capacity(self, worker: Any) -> None:
        for node in worker.nodes.values():
            for slot in node.mailbox.slots.values():
                held, most = len(queued_in(slot)), slot.capacity
                name = slot.qualified_name
                join = worker.joins.of(node.mailbox)
                complete = (
                    0 if join is None else len(join.early[slot])
                )  # loaded because their sets are complete
                self.expect(complete <= most, f"{name} has {complete} items of complete sets, of {most}")
                waiting = slot.length - complete
                self.expect(waiting <= most, f"{name} counts {waiting} items, of {most}")
                self.expect(held <= slot.length, f"{name} holds {held} items and counts {slot.length}")

    # -- what callers are told -------------------------------------------------------------------------------

    def flow_of(self, flow_id: str) -> FlowPlan:
        return self.flows[flow_id]
