"""Whichever call of the store fails, and however: the right error, nothing lost, nothing twice, nobody waits for ever."""

from __future__ import annotations

import logging
from dataclasses import replace
from random import Random

import pytest

from routilux.errors import StoreCorruptError, StoreError, StoreFullError
from tests.durability.frail import FAILURES, FailsOnce
from tests.durability.kinds import KINDS, Fate, draw_run
from tests.durability.lives import Lives

LONGEST_HANG = 30.0  # virtual seconds that a failure may cost; a slow write takes 20 of them
SEED = 7
ERRORS = {  # that a post may be refused with; one that is slow, or lost and found again, is not
    "full": {StoreFullError},
    "refused": {StoreError},
    "lost": set(),
    "slow": set(),
    "damaged": {StoreCorruptError},
}


def play(kind: str, n: int, failure: str) -> tuple[FailsOnce, float]:
    """Two lives of a flow, and how many seconds they took; the n-th call fails."""
    plan, _ = draw_run(SEED, KINDS[kind])
    lives = Lives(replace(plan, roots=6), Fate(lives=0, trouble=0.0, ten_years=False), bool)
    store = lives.store = FailsOnce(Random(n), lives.audit, n, failure)
    lives.run()
    lives.witness.raise_breaches()
    unexpected = set(lives.errors) - ERRORS[failure]
    assert not unexpected, f"a post was refused with {unexpected}"
    return store, lives.seconds


def fail_each_call(kind: str, failure: str) -> None:
    n, failed = 0, 0
    _, usual = play(kind, 0, failure)
    while True:
        n += 1
        try:
            store, seconds = play(kind, n, failure)
            assert seconds < usual + LONGEST_HANG, f"it takes {seconds} s, of {usual}"
        except BaseException as error:
            error.add_note(f"call {n} of {kind}, seed {SEED}, fails: {failure}")
            raise
        if not store.failed_in:
            break
        failed += 1
    print(f"{kind}, seed {SEED}: {failed} calls failed, each in a run of its own: {failure}")
    assert failed > 20


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
