"""Whichever call of the store fails, and however: the right error, nothing lost or twice, nobody waits for ever."""

from __future__ import annotations

import logging
from dataclasses import replace
from random import Random

import pytest

from routilux.errors import StoreCorruptError, StoreError, StoreFullError, StoreUnknownError
from tests.durability.frail import FAILURES, FailsOnce
from tests.durability.kinds import KINDS, Fate, draw_run
from tests.durability.lives import Lives

LONGEST_HANG = 30.0  # virtual seconds that a failure may cost; a slow write takes 20 of them
SEED = 33
ERRORS = {  # that a post may be refused with; one that is slow, or blamed once, refuses nothing
    "full": {StoreFullError},
    "refused": {StoreError},
    "lost": {StoreUnknownError},
    "slow": set(),
    "unfit": set(),
    "damaged": {StoreCorruptError},
}


def play(kind: str, seed: int, n: int, failure: str) -> tuple[FailsOnce, float]:
    """Two lives of a flow, and how many seconds they took; the n-th call fails."""
    plan, _ = draw_run(seed, KINDS[kind])
    lives = Lives(replace(plan, roots=6), Fate(lives=0, trouble=0.0, ten_years=False), bool)
    store = lives.store = FailsOnce(Random(n), lives.audit, n, failure)
    lives.run()
    lives.witness.raise_breaches()
    unexpected = set(lives.errors) - ERRORS[failure]
    assert not unexpected, f"a post was refused with {unexpected}"
    return store, lives.seconds


def fail_each_call(kind: str, failure: str) -> None:
    calls, store = 0, None
    seconds = play(kind, SEED, 0, "slow")[1]  # without a failure
    while store is None or store.failed_in:
        calls += 1
        try:
            store, took = play(kind, SEED, calls, failure)
            assert took < seconds + LONGEST_HANG, f"it takes {took} s, of {seconds}"
        except BaseException as error:
            error.add_note(f"call {calls} of {kind}, seed {SEED}, fails: {failure}")
            raise
    print(f"{kind}, seed {SEED}: {calls - 1} calls failed ({failure})")
    assert calls > 15


@pytest.mark.parametrize("failure", FAILURES)
def test_every_call_may_fail(failure: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    fail_each_call("failures", failure)


@pytest.mark.full
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_call_may_fail_in_every_kind_of_flow(
    kind: str, failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    fail_each_call(kind, failure)
