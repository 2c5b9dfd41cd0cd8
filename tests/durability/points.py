"""Named points around the steps of the journal and of the store, at which a program kills itself.

The steps are wrapped from outside: nothing in the product knows of them.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
from typing import Any

_LOG = "routilux.runtime.journal.log:Journal"
_COMMITTER = "routilux.runtime.journal.committer:Committer"
_WORKER = "routilux.runtime.journal.worker:JournaledWorker"
_HANDOVER = "routilux.runtime.journal.handover:Handover"
_NOTES = "routilux.runtime.journal.notes:ActivationNotes"
_ADMISSION = "routilux.runtime.journal.admission:Admission"
_BACKLOG = "routilux.runtime.journal.backlog:Backlog"
_REVIVAL = "routilux.runtime.journal.reopening:Revival"
_OPENER = "routilux.runtime.journal.opening:Opener"
_STORE = "routilux.store.sqlite.store:SqliteStore"
_POSTGRES = "routilux.store.postgres.store:PostgresStore"
STEPS = {
    f"{_LOG}.append": 20,
    f"{_COMMITTER}._next_batch": 8,
    f"{_COMMITTER}._release": 8,
    f"{_COMMITTER}._prune_sometimes": 8,
    "routilux.runtime.journal.flights:Flights.begin": 30,
    "routilux.runtime.journal.flights:Flights.end": 20,
    f"{_COMMITTER}._carry_out": 20,
    f"{_HANDOVER}.hand_over": 20,
    f"{_HANDOVER}._released": 20,
    f"{_HANDOVER}._deliver": 20,
    f"{_WORKER}.may_begin": 20,
    f"{_NOTES}._claim_written": 20,
    f"{_NOTES}.retry": 10,
    f"{_NOTES}.once": 20,
    f"{_WORKER}.admit": 20,
    f"{_ADMISSION}._number": 20,
    f"{_ADMISSION}._deliver": 20,
    f"{_BACKLOG}._load": 20,
    f"{_WORKER}.write_row": 2,
    f"{_REVIVAL}.open": 1,
    f"{_REVIVAL}._states": 1,
    f"{_REVIVAL}._deaths": 1,
    f"{_REVIVAL}._activation": 4,
    f"{_BACKLOG}.open": 1,
    f"{_REVIVAL}.item": 20,
    f"{_REVIVAL}.everything_is_here": 1,
    f"{_OPENER}._count_deaths": 1,
    f"{_OPENER}._open": 1,
    f"{_STORE}._open": 1,
    f"{_STORE}._begin": 1,
    f"{_STORE}._advance": 8,
    f"{_STORE}._committed": 8,
    f"{_STORE}.write": 8,
    f"{_COMMITTER}._prune": 3,
    f"{_LOG}.close": 1,
    f"{_OPENER}.close": 1,
    f"{_STORE}.prune": 3,
    f"{_STORE}._end": 1,
    f"{_POSTGRES}.write": 8,
    f"{_POSTGRES}._send": 8,
    f"{_POSTGRES}._commit": 8,
    "routilux.store.postgres.ownership:Ownership.claim": 1,
    "routilux.store.sqlite.batch:apply": 8,
    "routilux.store.sqlite.mark:MarkFile.write": 8,
}
"""Steps, and how many times each happens soon after a start, roughly."""

POINTS = {
    **{f"{when} {step}": often for step, often in STEPS.items() for when in ("before", "after")},
    "logic begins": 30,
    "logic ends": 30,
}

_wanted: str | None = None
_left = 0


def die_at(point: str | None, count: int) -> None:
    """Kill this process when it comes to the point for the ``count``-th time."""
    global _wanted, _left
    _wanted, _left = point, count
    when, _, step = (point or "").partition(" ")
    if step in STEPS:
        _wrap(step, when)


def reach(point: str) -> None:
    global _left
    if point == _wanted:
        _left -= 1
        if _left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


def found(step: str) -> tuple[Any, str, Any]:
    """The owner of a step, its name there, and the step."""
    module, _, path = step.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    return owner, name, getattr(owner, name)


def _wrap(step: str, when: str) -> None:
    owner, name, inner = found(step)

    @functools.wraps(inner)
    def step_with_point(*args: Any, **kwargs: Any) -> Any:
        if when == "before":
            reach(f"before {step}")
        answer = inner(*args, **kwargs)
        if when == "after":
            reach(f"after {step}")
        return answer

    setattr(owner, name, step_with_point)
