"""Random flows in random interleavings keep every rule of the ledger (see ``ledger.py``)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from routilux.testing.simulated import SimulationLimit
from tests.property.plans import KINDS
from tests.property.stage import check

CHUNK = 100
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.mark.parametrize("chunk", range(5))
@every_kind
def test_every_rule_holds_in_every_interleaving(kind: str, chunk: int) -> None:
    check_seeds(kind, range(chunk * CHUNK, (chunk + 1) * CHUNK))


def test_rules_that_were_broken_once_hold() -> None:
    """Seeds beyond those that are always played; each has shown a fault."""
    check_seeds(
        "everything", [639]
    )  # the pause of a job that waits for room among its own items never returned


@pytest.mark.full
@pytest.mark.parametrize("chunk", range(5, 200))
@every_kind
def test_every_rule_holds_in_many_more_interleavings(kind: str, chunk: int) -> None:
    check_seeds(kind, range(chunk * CHUNK, (chunk + 1) * CHUNK))


def check_seeds(kind: str, seeds: Sequence[int]) -> None:
    inconclusive = 0
    for seed in seeds:
        try:
            check(seed, KINDS[kind])
        except SimulationLimit:
            inconclusive += 1
        except BaseException as error:
            error.add_note(f"again: python -m tests.property.replay {kind} {seed}")
            raise
    assert inconclusive <= len(seeds) // 10, (
        "the simulation has come to its limits too often to prove anything"
    )
