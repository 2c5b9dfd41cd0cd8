"""Random flows in random interleavings keep every rule of the ledger (see ``ledger.py``)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.property.plans import KINDS
from tests.property.stage import check

CHUNK = 100
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.mark.parametrize("chunk", range(5))
@every_kind
def test_every_rule_holds_in_every_interleaving(kind: str, chunk: int) -> None:
    check_seeds(kind, range(chunk * CHUNK, (chunk + 1) * CHUNK))


# Beyond the seeds that are always played.
BROKEN_ONCE = {
    "the play did not let go what a pause had held that came to its time-out": ("pauses", 30652),
    "the pause of a job that waits for room among its own items never returned": ("everything", 639),
    "what a gate kept for a job that ended meanwhile was kept for ever": ("everything", 20203),
    "a dead-lock was not noticed while the worker was being paused": ("everything", 27825),
    "what came to wait for it was run on a thread that waited for a gate": ("gates", 32510),
    "logic that gave up waiting for room went on beside what ran in its place": ("everything", 28439),
}


@pytest.mark.parametrize("rule", BROKEN_ONCE)
def test_rule_that_was_broken_once_holds(rule: str) -> None:
    kind, seed = BROKEN_ONCE[rule]
    check_seeds(kind, [seed])


@pytest.mark.full
@pytest.mark.parametrize("chunk", range(5, 200))
@every_kind
def test_every_rule_holds_in_many_more_interleavings(kind: str, chunk: int) -> None:
    check_seeds(kind, range(chunk * CHUNK, (chunk + 1) * CHUNK))


def check_seeds(kind: str, seeds: Sequence[int]) -> None:
    for seed in seeds:
        try:
            check(seed, KINDS[kind])
        except BaseException as error:
            error.add_note(f"again: python -m tests.property.replay {kind} {seed}")
            raise
