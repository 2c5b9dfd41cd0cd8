"""What waits for what in a worker, as sentences: why nothing moves, and what to look at first.

Read when something has not ended in time or cannot end. It takes each mailbox's lock once and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from routilux.errors import counted, shown
from routilux.model.item import ParkedItem
from routilux.model.policy import ActivationPolicy, AllSlotsReadyPolicy, BatchSizePolicy, CustomPolicy

if TYPE_CHECKING:
    from routilux.kernel.mailbox import Look, SlotQueue
    from routilux.model.item import Item
    from routilux.runtime.back_pressure import Waiter
    from routilux.runtime.nodes import Node
    from routilux.runtime.worker import Worker

MOST_LINES = 20
MOST_KEYS = 1_000  # of each slot that are compared with those of the others


def sentences(worker: Worker) -> list[str]:
    """One sentence for everything that runs, waits or is held back, upstream first."""
    lines = ["the worker is paused; runtime.resume() lets it go on"] if worker.queue.paused else []
    lines += _running(worker)
    for node in worker.nodes.values():
        lines += _of_node(worker, node)
    return lines


def report(worker: Worker) -> str:
    """The sentences, a line each, after a line that names the worker; empty if nothing waits there."""
    lines = sentences(worker)
    if not lines:
        return ""
    left = len(lines) - MOST_LINES
    more = [f"and {counted(left, 'more reason')}"] if left > 0 else []
    head = f"worker {worker.worker_id!r} of flow {worker.flow_id!r}"
    jobs = counted(len(worker.jobs), "open job")
    return "\n  - ".join([f"{head}, {jobs}:", *lines[:MOST_LINES], *more])


def parked_items(worker: Worker) -> Iterator[ParkedItem]:
    """Each item that waits for others, upstream first, and for which."""
    for node in worker.nodes.values():
        parked = node.mailbox.parked_items()
        policy = node.routine.effective_policy
        by = policy.by if isinstance(policy, AllSlotsReadyPolicy) else None
        there = {(item[1], _key(item, by)) for item in parked}
        for item in parked:
            missing = [name for name in node.mailbox.slots if (name, _key(item, by)) not in there]
            jobs = tuple(member.job.job_id for member in item[3].members)
            yield ParkedItem(node.routine_id, item[1], item[2], jobs, _wanted(node, policy, item, missing))


def _key(item: Item, by: str | None) -> Any:
    """What an item has in common with those that it would be joined with."""
    if by == "job":
        return item[3]
    return None if by is None else item[2].get(by)


def _wanted(node: Node, policy: ActivationPolicy, item: Item, missing: list[str]) -> str:
    if isinstance(policy, AllSlotsReadyPolicy) and missing:
        places = " and ".join(f"{node.routine_id}.{name}" for name in missing)
        if policy.by == "job":
            return f"for a partner of its job in {places}"
        key = "" if policy.by is None else f" ({policy.by} {shown(item[2].get(policy.by))})"
        return f"for a partner in {places}{key}"
    if isinstance(policy, BatchSizePolicy):
        each = " in each slot" if len(node.mailbox.slots) > 1 else ""
        return f"until there are {policy.n:,} items{each}"
    return f"for what {policy!r} needs"


def in_slot(worker: Worker, slot: SlotQueue) -> str:
    """What a slot holds, and why that stays there."""
    node = slot.mailbox.node
    return f"{slot.qualified_name} {_fill(slot)}{_why(worker, node, slot, slot.mailbox.look())}"


def _running(worker: Worker) -> Iterator[str]:
    now = worker.engine.now()
    waits = {waiter.activation: waiter for waiter in list(worker.back_pressure.blocked)}
    for activation in worker.running():
        waiter = waits.get(activation)
        room = "" if waiter is None else f" and {wait_of(waiter)}"
        if waiter is not None and waiter.slot is not None:
            room += f", which {_fill(waiter.slot)}"
        yield f"{activation.mailbox.routine_id} has run for {now - activation.started:.1f} s{room}"


def wait_of(waiter: Waiter) -> str:
    """What an activation waits for in the middle of its logic."""
    slot, home = waiter.slot, waiter.home
    if slot is None:
        most, other = (
            waiter.engine.book.max_pending,
            "" if waiter.engine is home.engine else " of another runtime",
        )
        return f"waits in {waiter.call} until fewer than max_queue_size={most} jobs{other} are pending"
    there = slot.mailbox.node.worker
    other = "" if there is home else f" of worker {there.worker_id!r} of flow {there.flow_id!r}"
    return f"waits in {waiter.call} for room in {slot.qualified_name}{other}"


def _of_node(worker: Worker, node: Node) -> Iterator[str]:
    look = node.mailbox.look()
    yield from _stalled(worker, node, look)
    if look.held:
        yield f"{node.routine_id} keeps {counted(look.held, 'item')} of paused jobs back"
    for slot in node.mailbox.slots.values():
        if look.lengths[slot.name] or slot.beyond:
            yield f"{slot.qualified_name} {_fill(slot)}{_why(worker, node, slot, look)}"


def _stalled(worker: Worker, node: Node, look: Look) -> Iterator[str]:
    now = worker.engine.now()
    for activation, (due, _) in list(worker.retries.items()):
        if activation.mailbox is node.mailbox:
            yield f"{node.routine_id} is tried again in {max(0.0, due - now):.1f} s (attempt {activation.attempt})"
    at_gate = sum(activation.mailbox is node.mailbox for activation in list(worker.gates.activations))
    if at_gate or look.outside:
        yield (
            f"a gate at {node.routine_id} holds {counted(at_gate, 'activation')} and "
            f"{counted(look.outside, 'item')}; runtime.let_go() lets them go on"
        )


def _fill(slot: SlotQueue) -> str:
    held = "is full with" if slot.full or slot.length >= slot.capacity else "holds"
    beyond = " and more in the store" if slot.beyond else ""
    return f"{held} {counted(slot.length, 'item')}{beyond}"


# -- why what is queued in a slot stays there --------------------------------------------------------------------


def _why(worker: Worker, node: Node, slot: SlotQueue, look: Look) -> str:
    here = [item for item in look.gathered if item[1] == slot.name]
    if not here:
        return _why_not_started(node, look)
    policy = node.routine.effective_policy
    if isinstance(policy, AllSlotsReadyPolicy):
        return _no_partner(worker, node, slot, look, policy)
    if isinstance(policy, BatchSizePolicy):
        return f"; {policy!r} waits for {policy.n:,} in each slot"
    return f" that {_named(policy)} has not taken"


def _named(policy: ActivationPolicy) -> str:
    if isinstance(policy, CustomPolicy):
        return f"{policy.name}({getattr(policy.fn, '__name__', type(policy.fn).__name__)})"
    return repr(policy)


def _why_not_started(node: Node, look: Look) -> str:
    if look.stalled:
        return f" behind what {node.routine_id} has to finish first"
    if look.waiting:
        full = [slot for slot in node.mailbox.feeds if slot.full]
        rooms = " and ".join(f"{slot.qualified_name}, which {_fill(slot)}" for slot in full)
        return f"; {node.routine_id} waits for room in {rooms}" if full else ""
    crowd = node.mailbox.crowd()
    by = node.routine.concurrency_by
    return "" if crowd is None else f"; {counted(crowd[1], 'activation')} wait for {by}={shown(crowd[0])}"


def _no_partner(worker: Worker, node: Node, slot: SlotQueue, look: Look, policy: AllSlotsReadyPolicy) -> str:
    present = {item[1] for item in look.gathered}
    others = [other for name, other in node.mailbox.slots.items() if name != slot.name]
    missing = [other for other in others if other.name not in present]
    if not missing:
        alike = _alike(policy.by, look.gathered, slot, others)
        names = " and ".join(other.qualified_name for other in others)
        return f" whose partners in {names} have not come{alike}"
    return " whose partners in " + " and ".join(_missing(worker, other) for other in missing)


def _missing(worker: Worker, slot: SlotQueue) -> str:
    came = "have not come" if slot.received else "never came"
    return f"{slot.qualified_name} {came} ({_feeders(worker, slot)})"


def _feeders(worker: Worker, slot: SlotQueue) -> str:
    """Who feeds a slot, and what those did."""
    found = [
        _did(source, event)
        for source in worker.nodes.values()
        for event, routes in source.routes.items()
        if any(route.queue is slot for route in routes)
    ]
    return "; ".join(found) or "nothing is connected to it, only post() feeds it"


def _did(source: Node, event: str) -> str:
    mailbox = source.mailbox
    emitted = f"has emitted {counted(mailbox.emitted, 'item')}" if mailbox.emitted else "has never emitted"
    failed = f" and failed {counted(mailbox.failed, 'time')}" if mailbox.failed else ""
    return f"{source.routine_id}.{event} feeds it, and {source.routine_id} {emitted}{failed}"


def _alike(by: str | None, gathered: Iterable[Any], slot: SlotQueue, others: list[SlotQueue]) -> str:
    if by is None or by == "job":
        return ""
    keys = _keys(by, gathered)
    here = keys.get(slot.name, {})
    for other in others:
        for text, there in keys.get(other.name, {}).items():
            if text in here:
                return f"; {by!r} looks like {_typed(there)} there and {_typed(here[text])} here"
    return f"; no {by!r} is the same in both"


def lookalikes(node: Node) -> str:
    """Keys in the slots of a join that a reader takes for equal, and that are not: ``17`` and ``'17'``; or nothing."""
    policy = node.routine.effective_policy
    by = policy.by if isinstance(policy, AllSlotsReadyPolicy) else None
    if by is None or by == "job":
        return ""
    seen: dict[str, tuple[str, Any]] = {}
    for slot, keys in _keys(by, node.mailbox.look().gathered).items():
        for text, key in keys.items():
            first, other = seen.setdefault(text, (slot, key))
            if first != slot:
                places = [
                    f"{_typed(k)} in {node.routine_id}.{name}" for name, k in ((first, other), (slot, key))
                ]
                return f"{by!r} is {' and '.join(places)}"
    return ""


def _keys(by: str, gathered: Iterable[Any]) -> dict[str, dict[str, Any]]:
    """The keys in each slot, by how they read."""
    keys: dict[str, dict[str, Any]] = {}
    for item in gathered:
        of_slot = keys.setdefault(item[1], {})
        if len(of_slot) < MOST_KEYS:
            of_slot.setdefault(_folded(item[2].get(by)), item[2].get(by))
    return keys


def _folded(key: Any) -> str:
    return (key if isinstance(key, str) else shown(key)).strip().casefold()


def _typed(key: Any) -> str:
    return f"{shown(key)} ({type(key).__name__})"
