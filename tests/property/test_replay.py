"""A seed determines a run: not the hashes of strings, not where objects lie, not what was played before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from routilux import Flow, Routine
from routilux.activation_policies import immediate_policy
from routilux.testing.simulated import simulated
from tests.property.plans import KINDS
from tests.property.replay import summary

ROOT = Path(__file__).parents[2]
SEEDS = range(90, 112)
ALONGSIDE = 30  # as many workers, so that an order by addresses would differ between some of them


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_replays_in_this_process_and_in_one_with_other_hashes(kind: str) -> None:
    here = [summary(kind, seed) for seed in reversed(SEEDS)]
    found = subprocess.run(
        [sys.executable, "-m", "tests.property.replay", kind, str(SEEDS.start), str(SEEDS.stop)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "4711"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.splitlines() == here[::-1]


def test_the_order_in_which_routines_help_does_not_depend_on_addresses() -> None:
    orders = set()
    with simulated(0) as runtime:
        for n in range(ALONGSIDE):
            worker = runtime.exec(fan(f"fan {n}")).control
            beyond = worker.paths.beyond(worker.nodes["source"].mailbox)
            before = worker.paths.to(worker.nodes["sink"].mailbox)
            orders.add(tuple(mailbox.routine_id for mailbox in (*beyond, *before)))
    assert len(orders) == 1


def fan(flow_id: str) -> Flow:
    """A source, eight routines beside each other, a sink."""
    flow = Flow(flow_id)
    for routine_id in ("source", *"abcdefgh", "sink"):
        flow.add_routine(relay(), routine_id)
    for middle in "abcdefgh":
        flow.connect("source", "output", middle, "input")
        flow.connect(middle, "output", "sink", "input")
    return flow


def relay() -> Routine:
    routine = Routine()
    routine.add_slot("input")
    routine.add_event("output")
    return routine.set_activation_policy(immediate_policy()).set_logic(lambda *_: None)
