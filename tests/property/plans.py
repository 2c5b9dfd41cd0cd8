"""Random flows and what is done to them: a plan is a function of its seed and of the features that it may use.

What a routine does with an item depends on nothing but the item: how many it emits, how long it naps, and in
which attempts it fails are drawn from a checksum of the item's name. So a plan can be played twice, in any
interleaving, and every item is expected to do the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any
from zlib import crc32

from routilux.activation_policies import (
    all_slots_ready_policy,
    batch_size_policy,
    custom_policy,
    immediate_policy,
    time_interval_policy,
)
from routilux.model.decision import WAIT, Fire, SlotViews, WaitUntil
from routilux.model.policy import ActivationPolicy, AllSlotsReadyPolicy, ImmediatePolicy
from routilux.model.recovery import ErrorHandler

PATIENCE = 400  # items in a run, about: flows that multiply stop emitting there


class Trouble(Exception):
    """What the routines of a plan fail with."""


@dataclass(frozen=True)
class Features:
    """What a plan may make use of."""

    joins: bool = False
    batches: bool = False
    intervals: bool = False
    custom: bool = False
    loops: bool = False
    failures: bool = False
    async_logic: bool = False
    overlap: bool = False  # concurrency above 1
    lanes: bool = False  # one at a time per key
    merges: bool = False
    drops: bool = False
    timeouts: bool = False
    pauses: bool = False
    cancels: bool = False
    gates: bool = False
    several_workers: bool = False
    few_at_once: bool = False  # sequential, max_workers


KINDS = {
    "chains": Features(several_workers=True),
    "overlap": Features(overlap=True, few_at_once=True, several_workers=True),
    "joins": Features(joins=True, batches=True, intervals=True),
    "custom": Features(custom=True, joins=True),
    "loops": Features(loops=True, overlap=True),
    "failures": Features(failures=True, joins=True, batches=True),
    "async": Features(async_logic=True, overlap=True, few_at_once=True, failures=True),
    "merges": Features(merges=True, failures=True),
    "drops": Features(drops=True, batches=True),
    "timeouts": Features(timeouts=True, async_logic=True),
    "pauses": Features(pauses=True, failures=True, joins=True),
    "cancels": Features(cancels=True, failures=True, joins=True, batches=True),
    "gates": Features(gates=True, failures=True),
    "everything": Features(**dict.fromkeys(Features.__annotations__, True) | {"lanes": False}),
    "lanes": Features(lanes=True, overlap=True, joins=True, failures=True, few_at_once=True),
    "lanes and trouble": Features(**dict.fromkeys(Features.__annotations__, True)),
}


@dataclass(frozen=True)
class SlotPlan:
    name: str
    capacity: int = 1000
    watermark: float = 0.8
    on_full: str = "block"
    merge: str = "queue"


@dataclass(frozen=True)
class RoutinePlan:
    routine_id: str
    slots: tuple[SlotPlan, ...]
    events: tuple[str, ...]
    policy: ActivationPolicy
    fifo: bool = True  # the policy takes the oldest of a slot first
    spread: int = 1  # the most that is emitted on an event for an item
    concurrency: int = 1
    by: str | None = None  # of the concurrency
    is_async: bool = False
    timeout: float | None = None
    handler: ErrorHandler | None = None
    fails: str = "never"  # sometimes, at first

    def attempts_that_fail(self, uid: str) -> int:
        """How many attempts fail before one succeeds."""
        dice = draw(uid, self.routine_id, "fails", 12)
        if self.fails == "at first":
            return (0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3)[dice]
        if self.fails == "sometimes":
            return 1_000_000 if dice < 3 else 0
        return 0


@dataclass(frozen=True)
class FlowPlan:
    flow_id: str
    routines: tuple[RoutinePlan, ...]
    connections: tuple[tuple[str, str, str, str], ...]
    strategy: str | None = None
    max_workers: int | None = None

    @property
    def places(self) -> list[tuple[str, str]]:
        """Where data can be posted to."""
        return [(routine.routine_id, slot.name) for routine in self.routines for slot in routine.slots]

    def targets(self, routine_id: str, event: str) -> list[str]:
        return [f"{c[2]}.{c[3]}" for c in self.connections if c[:2] == (routine_id, event)]


@dataclass(frozen=True)
class Plan:
    seed: int
    features: Features
    flows: tuple[FlowPlan, ...]  # one worker each
    interruption: float
    early_timers: float
    max_pending: int
    life: int  # the longest chain of items that come from one another
    roots: int  # how much is posted

    @property
    def can_lock(self) -> bool:
        """Whether a full slot may be one that nothing but a new item could empty."""
        features = self.features
        return features.joins or features.batches or features.custom or features.loops

    @property
    def can_wait_for_ever(self) -> bool:
        """Whether a post may find a slot full that only the test itself could empty."""
        return self.features.pauses or self.features.gates or self.features.cancels


def draw(*what: object) -> int:
    """A number below the last argument, which is a function of the arguments before."""
    *names, below = what
    assert isinstance(below, int)
    return crc32("/".join(map(str, names)).encode()) % below


# -- drawing a plan --------------------------------------------------------------------------------------------


def draw_plan(seed: int, features: Features) -> Plan:
    rng = Random(seed)
    size = rng.choice((1, 1, 2)) if features.several_workers else 1
    return Plan(
        seed=seed,
        features=features,
        flows=tuple(draw_flow(rng, features, f"flow{n}") for n in range(size)),
        interruption=rng.choice((0.0, 0.1, 0.15, 0.2, 0.3)),
        early_timers=rng.choice((0.0, 0.0, 0.05)),
        max_pending=rng.choice((1, 2, 1000, 1000, 1000)),
        life=rng.randint(2, 6),
        roots=rng.choice((1, 2, 4, 6, 8, 12)),
    )


def draw_flow(rng: Random, features: Features, flow_id: str) -> FlowPlan:
    size = rng.randint(1, 5)
    routines = tuple(draw_routine(rng, features, "abcdefgh"[n]) for n in range(size))
    connections: dict[tuple[str, str, str, str], None] = {}
    for n, target in enumerate(routines):
        for slot in target.slots:
            for _ in range(rng.choice((0, 1, 1, 1, 2))):
                sources = routines if features.loops and rng.random() < 0.3 else routines[:n]
                if sources:
                    source = rng.choice(sources[-3:] if rng.random() < 0.7 else sources)
                    event = rng.choice(source.events)
                    connections[source.routine_id, event, target.routine_id, slot.name] = None
    strategy, max_workers = None, None
    if features.few_at_once:
        strategy, max_workers = rng.choice(((None, None), ("sequential", None), (None, 1), (None, 2)))
    return FlowPlan(flow_id, routines, tuple(connections), strategy, max_workers)


def draw_routine(rng: Random, features: Features, routine_id: str) -> RoutinePlan:
    policy, most_slots, fifo = rng.choice(kinds_of_policy(features))(rng)
    is_async = features.async_logic and rng.random() < 0.5
    plan = RoutinePlan(
        routine_id=routine_id,
        slots=tuple(
            draw_slot(rng, features, f"s{n}", least=getattr(policy, "n", 1))
            for n in range(rng.randint(1, most_slots))
        ),
        events=("x", "y")[: rng.choice((1, 1, 2))],
        policy=policy,
        fifo=fifo,
        spread=rng.choice((1, 1, 2, 4)),
        concurrency=rng.choice((1, 2, 3)) if features.overlap else 1,
        is_async=is_async,
    )
    if any(slot.merge != "queue" for slot in plan.slots):
        plan = replace(plan, concurrency=1)
    if features.lanes and not any(slot.merge != "queue" for slot in plan.slots) and rng.random() < 0.8:
        plan = replace(plan, by=draw_lanes(rng, policy))
    if features.timeouts and rng.random() < 0.5:
        plan = replace(plan, timeout=0.5, handler=draw_handler(rng))
    if features.failures and rng.random() < 0.6:
        plan = replace(
            plan, fails=rng.choice(("at first", "at first", "sometimes")), handler=draw_handler(rng)
        )
    return plan


def draw_lanes(rng: Random, policy: ActivationPolicy) -> str | None:
    """What activations of this policy can be kept apart by."""
    if isinstance(policy, ImmediatePolicy):
        return rng.choice(("key", "key", "job"))
    return policy.by if isinstance(policy, AllSlotsReadyPolicy) else None


def draw_slot(rng: Random, features: Features, name: str, least: int) -> SlotPlan:
    capacity = max(least, rng.choice((1, 2, 3, 5, 1000)))
    return SlotPlan(
        name,
        capacity,
        watermark=rng.choice((0.2, 0.5, 0.8, 1.0)),
        on_full=rng.choice(("block", "drop_new", "drop_old", "error")) if features.drops else "block",
        merge=rng.choice(("queue", "override", "append", "custom")) if features.merges else "queue",
    )


def draw_handler(rng: Random) -> ErrorHandler:
    strategy = rng.choice(("stop", "continue", "skip", "retry", "retry", "retry"))
    if strategy != "retry":
        return ErrorHandler(strategy)
    return ErrorHandler(
        strategy,
        max_retries=rng.choice((1, 2, 3)),
        retry_delay=rng.choice((0.0, 0.5, 1.0)),
        retry_backoff=rng.choice((1.0, 2.0)),
        jitter=rng.choice((0.0, 0.1)),
        on_exhausted=rng.choice(("stop", "continue", "skip")),
    )


# -- policies --------------------------------------------------------------------------------------------------

Drawn = tuple[ActivationPolicy, int, bool]  # the policy, the most slots, whether it takes the oldest first


def kinds_of_policy(features: Features) -> list[Callable[[Random], Drawn]]:
    kinds: list[Callable[[Random], Drawn]] = [draw_immediate]
    kinds += [draw_join] * 2 * features.joins
    kinds += [draw_batch] * features.batches
    kinds += [draw_interval] * features.intervals
    kinds += [draw_custom] * 2 * features.custom
    return kinds


def draw_immediate(rng: Random) -> Drawn:
    return immediate_policy(), 2, True


def draw_join(rng: Random) -> Drawn:
    by = rng.choice((None, "job", "key"))
    return all_slots_ready_policy(by), 3, by is None


def draw_batch(rng: Random) -> Drawn:
    return batch_size_policy(rng.randint(1, 3), flush=rng.random() < 0.6), 2, True


def draw_interval(rng: Random) -> Drawn:
    return time_interval_policy(rng.choice((0.5, 1.0, 3.0))), 2, True


def draw_custom(rng: Random) -> Drawn:
    fn, fifo = rng.choice(
        ((all_of_two, True), (one_of_the_fullest, True), (now_and_then, True), (picky, False), (moody, True))
    )
    return custom_policy(fn), 2, fifo


def all_of_two(slots: SlotViews, state: Any) -> bool:
    """Waits for company; a drain releases the rest."""
    return sum(map(len, slots.values())) >= 2 or slots.flushing


def one_of_the_fullest(slots: SlotViews, state: Any) -> Any:
    view = max(slots.values(), key=len)
    return view.consume_one_new() is not None, None, f"from {view.name}"


def now_and_then(slots: SlotViews, state: Any) -> Any:
    """At most once in a second, by its own clock."""
    queued = slots.take_all()
    if not queued:
        return WAIT
    due = 0.0 if slots.last_fired is None else slots.last_fired + 1.0
    return Fire(queued, "now") if slots.now >= due else WaitUntil(due)


def picky(slots: SlotViews, state: Any) -> Any:
    """Leaves some items where they are until something else arrives with them, or until a drain."""
    take = {
        name: [at for at, payload in enumerate(view) if slots.flushing or draw(payload["uid"], "picky", 3)]
        for name, view in slots.items()
    }
    return Fire(take, "picked") if any(take.values()) else WAIT


def moody(slots: SlotViews, state: Any) -> Any:
    """Raises about some items."""
    if not slots.take_all():
        return WAIT
    if any(draw(payload["uid"], "moody", 6) == 0 for view in slots.values() for payload in view[:1]):
        raise RuntimeError("not this one")
    return True


def message_of(policy: ActivationPolicy, slots: dict[str, Any]) -> object:
    """What a routine with this policy is told about these items; ... where only the policy knows."""
    fn = getattr(policy, "fn", None)
    if fn is one_of_the_fullest:
        return f"from {next(iter(slots))}"
    return {now_and_then: "now", picky: "picked"}.get(fn)  # type: ignore[call-overload]
