"""Faults planted in what keeps odd users out, each of which the hostile stories must catch (see ``hostile.py``)."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest

from routilux.runtime.journal.committer import Committer
from routilux.runtime.journal.handover import Handover
from routilux.runtime.journal.mapping import StoredMapping
from routilux.runtime.journal.opening import Opener
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
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
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
