"""Faults planted in what keeps odd users out, each of which the hostile stories must catch (see ``hostile.py``)."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest

from routilux.runtime.journal import rows
from routilux.runtime.journal.committer import Committer
from routilux.runtime.journal.endings import Endings
from routilux.runtime.journal.handover import Handover
from routilux.runtime.journal.mapping import Share, StoredMapping
from routilux.runtime.journal.opening import Opener
from routilux.runtime.journal.reopening import Revival
from routilux.runtime.journal.worker import JournaledWorker
from routilux.runtime.names import Names
from routilux.runtime.posting import Posting
from routilux.store.memory import MemoryStore
from tests.durability.hostile import check
from tests.planting import Change, planted

SEEDS = 600


class Fault(NamedTuple):
    name: str
    changes: tuple[Change, ...]


FAULTS = (
    Fault(
        "an execution is asked for and begun in two steps",
        (
            Change(Names, "held", "return held.setdefault(key, me) is me", "return True"),
            Change(Posting, "begin", "if not created[1]:", "if False:"),
            Change(MemoryStore, "_is_of_another", "return known is not None and", "return False and"),
        ),
    ),
    Fault(
        "numbers are used again by the next worker of a name",
        (Change(Opener, "_begin_life", "first = max(first, former.next_number)", "pass"),),
    ),
    Fault(
        "numbers are used again when the row of a worker was removed",
        (Change(Opener, "_begin_life", "if named:", "if False:"),),
    ),
    Fault(
        "a worker that was lost goes on",
        (Change(JournaledWorker, "lost", "        self.close()\n", "        pass\n"),),
    ),
    Fault(
        "who waits for a worker that was lost is not told",
        (Change(Committer, "_give_up", "if tell is not None:", "if False:"),),
    ),
    Fault(
        "a gate that raises is not fenced",
        (
            Change(
                Handover,
                "deliver",
                "        except BaseException as error:",
                "        except SystemExit as error:",
            ),
        ),
    ),
    Fault(
        "a key of a state has any length",
        (Change(StoredMapping, "_note", "check_key(", "bool and (lambda *_: None)("),),
    ),
    Fault(
        "a job is removed while an item is of it",
        (
            Change(
                MemoryStore,
                "_finished_too_long",
                "needed.update(job_id for job_id, items in self._counts.items() if items > 0)",
                "pass",
            ),
        ),
    ),
    Fault(
        "an activation goes on without a slot that the flow had",
        (
            Change(
                Revival, "_activation", "if node is None or not set(", "if node is None or False and not set("
            ),
        ),
    ),
    Fault(
        "a letter has what logic has made of its payload",
        (Change(Endings, "_letter", "time, AS_STORED", "time, worker.encode(item[2], 'letter')"),),
    ),
    Fault(
        "metadata are encoded again with every row of a job",
        (
            Change(
                rows,
                "_about_job",
                "metadata = job.metadata_form",
                "metadata = codec.encode(dict(job.metadata), 'metadata') if vars(job).get('metadata') else None",
            ),
        ),
    ),
    Fault(
        "equal keys of a state are two rows",
        (Change(Share, "write", "if before is not None:", "if False:"),),
    ),
)


RARE = ("equal keys of a state are two rows", "numbers are used again when the row of a worker was removed")
"""What takes hundreds of stories to show."""


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, marks=pytest.mark.full if fault.name in RARE else (), id=fault.name)
        for fault in FAULTS
    ],
)
def test_a_planted_fault_is_caught(fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("routilux", "routilux.failures"):
        caplog.set_level(logging.CRITICAL, logger=name)
    with ExitStack() as stack:
        for change in fault.changes:
            stack.enter_context(planted(change))
        assert any(breaks(seed) for seed in range(SEEDS)), f"{fault.name}: not caught in {SEEDS} stories"


def breaks(seed: int) -> Any:
    try:
        check(seed)
    except Exception as error:
        return error
    return None
