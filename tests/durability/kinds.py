"""Which plans are played on a store that fails, and how often its processes die."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from tests.property.plans import Features, FlowPlan, Plan, RoutinePlan, draw_plan

KINDS = {
    "chains": Features(several_workers=True),
    "overlap": Features(overlap=True, few_at_once=True),
    "joins": Features(joins=True, batches=True, intervals=True),
    "custom": Features(custom=True, joins=True),
    "loops": Features(loops=True, overlap=True),
    "failures": Features(failures=True, joins=True, batches=True),
    "async": Features(async_logic=True, overlap=True, few_at_once=True, failures=True),
    "claims": Features(intervals=True, custom=True, async_logic=True),
    "merges": Features(merges=True, failures=True),
    "drops": Features(drops=True, batches=True),
    "pauses": Features(pauses=True, failures=True, joins=True),
    "cancels": Features(cancels=True, failures=True, joins=True, batches=True),
    "lanes": Features(lanes=True, overlap=True, joins=True, failures=True, pauses=True),
    "everything": Features(
        **{name: name not in ("gates", "timeouts", "lanes") for name in Features.__annotations__}
    ),
}
MOST_ITEMS = 150  # that a run emits, about


@dataclass(frozen=True)
class Fate:
    """What happens to the processes of a run, and to their store."""

    lives: int  # processes that end before their time
    trouble: float  # the chance that a write goes wrong
    ten_years: bool  # whether the clock on the wall is set by ten years between two lives


def draw_run(seed: int, features: Features) -> tuple[Plan, Fate]:
    """A plan of the in-memory proofs with smaller slots and fewer items, and a fate."""
    plan, rng = draw_plan(seed, features), Random(f"fate {seed}")
    flows = tuple(replace(flow, routines=tuple(map(_smaller, flow.routines))) for flow in plan.flows)
    fate = Fate(
        lives=rng.choice((0, 1, 1, 2, 3)),
        trouble=rng.choice((0.0, 0.0, 0.05, 0.2)),
        ten_years=rng.random() < 0.2,
    )
    return replace(plan, flows=flows, life=min(plan.life, 4), roots=min(plan.roots, 8)), fate


def _smaller(routine: RoutinePlan) -> RoutinePlan:
    return replace(routine, spread=min(routine.spread, 2))


def sources(flow: FlowPlan) -> list[tuple[str, str]]:
    """Places that nothing feeds; all if there are none."""
    fed = {connection[2:] for connection in flow.connections}
    return [place for place in flow.places if place not in fed] or flow.places
