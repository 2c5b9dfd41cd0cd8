"""``kill -9`` at random times and at named points around every step of the journal."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.durability.faults import FAULTS
from tests.durability.killing import Loop
from tests.durability.points import STEPS, found
from tests.postgres.server import Server

pytestmark = pytest.mark.skipif(os.name == "nt", reason="SIGKILL is that of POSIX")


def seed_of_this_run() -> int:
    """Another one in every run; ROUTILUX_KILL_SEED gives one again."""
    return int(os.environ.get("ROUTILUX_KILL_SEED") or random.SystemRandom().randrange(10**6))


@pytest.mark.parametrize("step", STEPS)
def test_every_step_at_which_a_program_may_be_killed_exists(step: str) -> None:
    _, _, call = found(step)
    assert callable(call)


def test_what_was_acknowledged_is_done_once_and_in_order_whenever_the_program_is_killed(
    tmp_path: Path,
) -> None:
    loop = Loop(tmp_path, seed_of_this_run(), most_acks=120, most_seconds=0.5)
    for _ in range(3):
        loop.store(kills=20)
    print(loop.score)
    assert loop.score.faults == [], str(loop.score)
    assert loop.score.kills == 60


def test_the_same_holds_on_a_server_that_crashes_too(tmp_path: Path, postgres_server: Server) -> None:
    loop = Loop(tmp_path, seed_of_this_run(), most_acks=120, most_seconds=0.5, server=postgres_server)
    loop.store(kills=10)
    print(loop.score)
    assert loop.score.faults == [], str(loop.score)
    assert loop.score.kills == 10


@pytest.mark.full
def test_two_hundred_kills_with_a_server_that_crashes(tmp_path: Path, postgres_server: Server) -> None:
    loop = Loop(tmp_path, seed_of_this_run(), most_acks=500, most_seconds=5.0, server=postgres_server)
    while loop.score.kills < 200 or loop.score.crashes < 25:
        loop.store(kills=20)
        print(loop.score, flush=True)
        assert loop.score.faults == [], str(loop.score)


@pytest.mark.full
def test_two_thousand_kills_and_a_million_acknowledged_posts(tmp_path: Path) -> None:
    loop = Loop(tmp_path, seed_of_this_run(), most_acks=2_000, most_seconds=20.0)
    while loop.score.kills < 2_000 or loop.score.acknowledged < 1_000_000:
        loop.store(kills=25)
        print(loop.score, flush=True)
        assert loop.score.faults == [], str(loop.score)


@pytest.mark.parametrize(
    "fault",
    [name if name == "forget_the_claims" else pytest.param(name, marks=pytest.mark.full) for name in FAULTS],
)
def test_a_planted_fault_is_seen(tmp_path: Path, fault: str) -> None:
    loop = Loop(tmp_path, seed_of_this_run(), most_acks=100, most_seconds=1.0, fault=fault)
    for _ in range(40):
        loop.store(kills=5)
        if loop.score.faults:
            return
    raise AssertionError(f"{fault} was not seen; {loop.score}")
