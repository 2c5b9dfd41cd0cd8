"""A flow made ready to run in one worker: a node per routine, a route per connection.

Everything that can be looked up once is looked up here, when the worker starts.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from routilux.errors import InvalidTypeError
from routilux.kernel.activation import SlotData, slot_data_type
from routilux.kernel.gathering import Batch
from routilux.kernel.lanes import lanes_for
from routilux.kernel.mailbox import Mailbox, SlotQueue
from routilux.model.graph import same_cycle, upstream_first
from routilux.model.item import Item, Payload
from routilux.model.policy import AllSlotsReadyPolicy, ImmediatePolicy, TimeIntervalPolicy, join_key, lane_key
from routilux.model.recovery import ErrorHandler
from routilux.ports import TaskRunner, load
from routilux.runtime import incomplete

if TYPE_CHECKING:
    from routilux.model.connection import Connection
    from routilux.model.flow import Flow
    from routilux.model.routine import Routine
    from routilux.runtime.worker import Worker

Check = Callable[[Mapping[str, Any]], None]
KeyOf = Callable[[str, Mapping[str, Any]], Hashable]


class Route:
    """From an event to a slot of one worker. ``key_of`` reads the payload key that the slot goes by, if any."""

    __slots__ = (
        "check", "drops_oldest", "key_of", "mailbox", "mapping", "offer", "queue", "refuses", "slot", "source",
        "target", "timed",
    )  # fmt: skip

    def __init__(
        self, source: str, queue: SlotQueue, mapping: Mapping[str, str] | None, check: Check | None
    ) -> None:
        self.source = source
        self.queue = queue
        self.mailbox = queue.mailbox
        self.slot = queue.name
        self.target = queue.qualified_name
        self.mapping = dict(mapping) if mapping else None
        self.check = check  # of the slot, where the check of the event does not say it all
        self.refuses = queue.on_full == "error"
        self.drops_oldest = queue.on_full == "drop_old"
        self.offer = queue.mailbox.node.offer
        self.timed: bool = queue.mailbox.node.timed
        self.key_of: KeyOf | None = queue.mailbox.node.key_of

    def rename(self, data: Payload) -> Payload:
        mapping = self.mapping or {}
        return {mapping.get(key, key): value for key, value in data.items()}


class Node:
    """A routine in a worker, seen from the runtime."""

    __slots__ = (
        "checks", "gathers", "guarded", "is_async", "joins_jobs", "key_of", "keyed", "logic", "mailbox", "merges",
        "offer", "places", "recovery", "refusable", "routes", "routine", "routine_id", "runner", "single",
        "slot_checks", "slot_data", "timed", "timeout", "worker",
    )  # fmt: skip

    def __init__(self, worker: Worker, routine: Routine, recovery: ErrorHandler) -> None:
        self.worker = worker
        self.routine = routine
        self.routine_id: str = routine.routine_id or ""
        self.places = {slot: f"{self.routine_id}.{slot}" for slot in routine.slots}
        policy = routine.effective_policy
        self.joins_jobs = isinstance(policy, AllSlotsReadyPolicy) and policy.by == "job"
        self.logic = incomplete.logic_of(routine, policy)
        self.is_async = routine.is_async
        self.runner: TaskRunner | None = None  # where the logic runs, if it is told to run elsewhere
        self.recovery = routine.error_handler or recovery
        self.timeout = routine.timeout
        self.merges = {
            slot.name: slot.merge_strategy
            for slot in routine.slots.values()
            if slot.merge_strategy != "queue"
        }
        self.checks = _checks(routine.events)
        self.slot_checks = _checks(routine.slots)
        self.key_of = _key_of(routine)
        self.guarded = False  # takes the longer way through a turn
        self.mailbox = self._mailbox(worker, routine)
        self.set_offer(worker.entrance(self.mailbox))
        self.routes: dict[str, tuple[Route, ...]] = {}
        self.keyed = False  # one of its routes leads to a slot that goes by a payload key
        self.refusable = False  # one of its routes leads to a slot that refuses what finds no room

    def set_offer(self, offer: Callable[[Item], int]) -> None:
        """How items get into this routine's slots: straight, or past a gate."""
        self.offer = offer
        self.guarded = bool(self.merges) or self.timeout is not None or self.mailbox.gate is not None

    def _mailbox(self, worker: Worker, routine: Routine) -> Mailbox:
        policy = routine.effective_policy
        # Parked items do not become fewer on their own: their producers go on as soon as there is room at all.
        drains = isinstance(policy, (ImmediatePolicy, TimeIntervalPolicy))
        slots = [
            SlotQueue(
                slot.name,
                slot.max_queue_length,
                slot.resume_length if drains else slot.max_queue_length - 1,
                slot.on_full,
            )
            for slot in routine.slots.values()
        ]
        gathering = lanes_for(policy, [slot.name for slot in slots], routine.concurrency_by, self.places)
        self.gathers = not isinstance(policy, ImmediatePolicy)
        self.single = not self.gathers and len(slots) == 1
        self.timed = gathering is not None and gathering.timed
        self.slot_data: type[SlotData] = slot_data_type(frozenset(slot.name for slot in slots))
        mailbox = Mailbox(
            self.routine_id,
            slots,
            gathering=gathering,
            concurrency=routine.concurrency,
            lock=worker.engine.driver.lock(),
            make=worker.activation_type(self.is_async, tapped=False),
        )
        mailbox.node = self
        return mailbox

    @property
    def detached(self) -> bool:
        """Whether the logic runs somewhere else than on a thread of the pool."""
        return self.is_async or self.runner is not None

    def check_event(self, event: str, data: Payload) -> None:
        check = (self.checks or {}).get(event)
        if check is not None:
            _checked(check, data, f"routine {self.routine_id!r} event {event!r}")
        for route in self.routes[event]:
            if route.check is None and route.key_of is None:
                continue
            arriving = data if route.mapping is None else route.rename(data)
            if route.check is not None:
                where = f"routine {self.routine_id!r} event {event!r} to slot {route.target!r}"
                _checked(route.check, arriving, where)
            if route.key_of is not None:
                route.key_of(route.target, arriving)

    def check_slot(self, slot: str, data: Payload) -> None:
        check = (self.slot_checks or {}).get(slot)
        if check is not None:
            _checked(check, data, f"slot '{self.routine_id}.{slot}'")
        self.check_key(slot, data)

    def check_key(self, slot: str, data: Payload) -> None:
        """Raise an ``InvalidValueError`` where the routine goes by a payload key that this payload does not have."""
        if self.key_of is not None:
            self.key_of(self.places[slot], data)

    def counters(self) -> dict[str, Any]:
        mailbox, parked = self.mailbox, self.mailbox.parked()
        return {
            "activations": mailbox.activations,
            "failed": mailbox.failed,
            "skipped": mailbox.skipped,
            "retried": mailbox.retried,
            "running": mailbox.running,
            "emitted": mailbox.emitted,
            "received": sum(slot.received for slot in mailbox.slots.values()),
            "dropped": sum(slot.dropped for slot in mailbox.slots.values()),
            "queued": sum(slot.length for slot in mailbox.slots.values()),
            "busy_seconds": mailbox.busy,
            "slots": {
                slot.name: {
                    "queued": slot.length,
                    "parked": parked.get(slot.name, 0),
                    "capacity": slot.capacity,
                    "received": slot.received,
                    "dropped": slot.dropped,
                }
                for slot in mailbox.slots.values()
            },
        }

    def data_of(self, batch: Batch) -> SlotData:
        """The payloads of a batch by slot, in order."""
        data = self.slot_data()
        for item in batch:
            if item[1] in data:
                data[item[1]].append(item[2])
            else:
                data[item[1]] = [item[2]]
        return data


def _checked(check: Check, data: Payload, where: str) -> None:
    try:
        check(data)
    except TypeError as error:
        raise InvalidTypeError(f"{where}: the payload does not have the declared type: {error}") from error


def _checks(ports: Mapping[str, Any]) -> dict[str, Check] | None:
    """A payload check for each event or slot that declares a type; None if none does."""
    typed = {name: port.type for name, port in ports.items() if port.type is not None}
    if not typed:
        return None
    codec = load("codec")()
    return {name: codec.checker(type_) for name, type_ in typed.items()}


def _key_of(routine: Routine) -> KeyOf | None:
    """What reads, or refuses, the payload key that the items of a routine are joined or kept apart by."""
    policy, by = routine.effective_policy, routine.concurrency_by
    if isinstance(policy, AllSlotsReadyPolicy) and policy.by is not None and policy.by != "job":
        return partial(join_key, by=policy.by)
    return None if by is None or by == "job" else partial(lane_key, by=by)


def build_nodes(worker: Worker, flow: Flow) -> dict[str, Node]:
    """The nodes of a worker, connected."""
    fallback = flow.error_handler or ErrorHandler()
    nodes = {
        routine_id: Node(worker, flow.routines[routine_id], fallback) for routine_id in upstream_first(flow)
    }
    for routine_id, node in nodes.items():
        for event in node.routine.events:
            routes = [_route(connection, nodes) for connection in flow.connections_from(routine_id, event)]
            node.routes[event] = tuple(routes)
            node.keyed = node.keyed or any(route.key_of is not None for route in routes)
            node.refusable = node.refusable or any(route.refuses for route in routes)
            if node.checks is None and _checks_first(routes):
                node.checks = {}
    _connect_back_pressure(flow, nodes)
    return nodes


def _route(connection: Connection, nodes: dict[str, Node]) -> Route:
    source, event, target, slot = connection.ends
    node = nodes[target]
    same = connection.source.type is connection.target.type and not connection.mapping
    check = None if same else (node.slot_checks or {}).get(slot)
    return Route(f"{source}.{event}", node.mailbox.slots[slot], connection.mapping, check)


def _checks_first(routes: Sequence[Route]) -> bool:
    """Whether an emit looks at its payload before anything happens. A slot that is alone refuses it in time itself."""
    if any(route.check for route in routes):
        return True
    alone = len(routes) == 1 and not routes[0].mailbox.node.worker.journaled
    return any(route.key_of and not (alone and route.queue.on_full != "drop_old") for route in routes)


def _connect_back_pressure(flow: Flow, nodes: dict[str, Node]) -> None:
    """Who waits for room in whose slots. Inside a cycle none does, or the loop would stand still."""
    cycle = same_cycle(flow)
    feeders: dict[SlotQueue, dict[Mailbox, None]] = {}
    for routine_id, node in nodes.items():
        for routes in node.routes.values():
            for route in routes:
                inside = cycle.get(routine_id)
                if inside is not None and inside == cycle.get(route.mailbox.routine_id):
                    route.queue.cyclic = True
                elif route.queue.on_full == "block":
                    feeders.setdefault(route.queue, {})[node.mailbox] = None
    for queue, mailboxes in feeders.items():
        queue.feeders = tuple(mailboxes)
        for mailbox in mailboxes:
            mailbox.feeds = (*mailbox.feeds, queue)
