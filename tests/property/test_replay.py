"""A seed determines a run: not the hashes of strings, not where objects lie, not what was played before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.property.plans import KINDS
from tests.property.replay import summary

ROOT = Path(__file__).parents[2]
SEEDS = range(90, 112)


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
