"""Random flows on a store that fails, in processes that die, keep every promise (see ``audit.py``, ``witness.py``)."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from tests.durability.kinds import KINDS
from tests.durability.lives import check

CHUNK = 72  # seeds of each kind in a test; 5 chunks of 14 kinds are 5,040 runs
BROKEN_ONCE = {
    "numbers that a refused post had asked for were used without a limit in the worker's row": (
        "overlap",
        18,
    ),
    "a post that found no room left its job open": ("joins", 20),
    "what a cancelled activation had merged stayed in memory, and was in no store": ("everything", 247),
    "a cancellation that was refused before its caller went on left the job without an end": ("cancels", 444),
    "an item was gone whose logic had ended well when its job had just failed": ("cancels", 525),
    "the job of an item that was only in the store outlived the cancellation of its worker": ("cancels", 967),
    "what a job shared with others was held back when it was cancelled while it was paused": (
        "everything",
        796,
    ),
    "a refused cancellation stayed on record by a post that was written behind it": ("cancels", 1001),
    "what waits in the store was loaded before what came before it in a commit that was not answered": (
        "claims",
        30362,
    ),
    "room in one slot was told to who had loaded another one of the routine, and nothing was loaded there": (
        "loops",
        238,
    ),
    "a wake-up was taken for lost in the middle of the step that gives it": ("pauses", 31343),
    "a cancellation that was refused was on record for a moment by a row behind it": ("everything", 31063),
    "a pause in the middle of a resume was expected to be the last word": ("lanes", 40212),
    "the audit did not know that a paused job holds back whole sets": (
        "pauses",
        4284,
    ),
    "a job that went on by a post in the middle of its cancellation was not cancelled": ("cancels", 294),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """What a dying process says is not kept."""
    caplog.set_level(logging.CRITICAL)
    caplog.set_level(logging.CRITICAL, logger="asyncio")


@pytest.mark.parametrize("chunk", range(5))
@every_kind
def test_every_promise_holds_in_every_life(kind: str, chunk: int) -> None:
    check_seeds(kind, range(chunk * CHUNK, (chunk + 1) * CHUNK))


@pytest.mark.parametrize(("kind", "seed"), BROKEN_ONCE.values(), ids=list(BROKEN_ONCE))
def test_a_promise_that_was_broken_once_holds(kind: str, seed: int) -> None:
    check_seeds(kind, [seed])


@pytest.mark.full
@pytest.mark.parametrize("chunk", range(5, 999))
@every_kind
def test_every_promise_holds_in_many_more_lives(kind: str, chunk: int) -> None:
    check_seeds(kind, range(chunk * CHUNK, (chunk + 1) * CHUNK))


def check_seeds(kind: str, seeds: Sequence[int]) -> None:
    for seed in seeds:
        try:
            check(seed, KINDS[kind])
        except BaseException as error:
            error.add_note(f"again: python -m tests.durability.replay {kind} {seed}")
            raise
