"""Whatever a user does, what was acknowledged comes to its end, once: see ``hostile.py``."""

from __future__ import annotations

import logging

import pytest

from tests.durability.hostile import check

CHUNK = 300


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """What goes wrong on purpose is told in the log, thousands of times."""
    for name in ("routilux", "routilux.failures"):
        caplog.set_level(logging.CRITICAL, logger=name)


@pytest.mark.parametrize("chunk", range(10))
def test_every_rule_holds_whatever_a_user_does(chunk: int) -> None:
    check_seeds(chunk)


@pytest.mark.full
@pytest.mark.parametrize("chunk", range(10, 400))
def test_every_rule_holds_in_many_more_stories(chunk: int) -> None:
    check_seeds(chunk)


def check_seeds(chunk: int) -> None:
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        try:
            check(seed)
        except BaseException as error:
            error.add_note(f"again: python -m tests.durability.hostile {seed}")
            raise
