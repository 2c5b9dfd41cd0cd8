"""Faults planted in the engine, each of which the random flows must catch (see ``tests/planting.py``)."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import pytest

from routilux.kernel import account, gathering, mailbox
from routilux.runtime import activation, book, turns, worker
from tests.planting import Change, planted
from tests.property.plans import Features
from tests.property.stage import check

SEEDS = 400


class Fault(NamedTuple):
    name: str
    where: Any  # the class or module that holds the function
    function: str
    old: str
    new: str
    features: Features

    @property
    def change(self) -> Change:
        return Change(self.where, self.function, self.old, self.new)


PLAIN = Features()
FAULTS = (
    Fault(
        "lost wake-up: the end of an activation promises nothing",
        mailbox.Mailbox,
        "finish",
        "            return self._promise()",
        "            return False",
        PLAIN,
    ),
    Fault(
        "lost wake-up: who waits for room is not told",
        worker.Worker,
        "room",
        "if feeder.look_again():",
        "if False:",
        PLAIN,
    ),
    Fault(
        "an item is visible before it is counted",
        activation.LiveActivation,
        "emit",
        "            job.add()\n            try:\n                code = route.offer(item)",
        "            try:\n                code = route.offer(item)\n                job.add()",
        PLAIN,
    ),
    Fault(
        "an activation is settled before its end",
        worker.Worker,
        "conclude",
        "        more = mailbox.finish(activation, now, name)\n",
        "        self.settle(activation.batch)\n        more = mailbox.finish(activation, now, name)\n",
        Features(failures=True),
    ),
    Fault(
        "a set takes the newest items",
        gathering,
        "_Sets",
        "queue.popleft() for queue",
        "queue.pop() for queue",
        Features(batches=True),
    ),
    Fault(
        "an activation that is to run again is not kept, and holds nothing back",
        mailbox.Mailbox,
        "stall",
        "self.stalled[activation] = None",
        "self.stalled.pop(activation, None)",
        Features(failures=True),
    ),
    Fault(
        "a slot takes one item more than it has room for",
        mailbox.Mailbox,
        "offer",
        "if slot.length >= slot.capacity and",
        "if slot.length > slot.capacity and",
        PLAIN,
    ),
    Fault(
        "lost wake-up: who was refused hears of room at the resume length only",
        mailbox.Mailbox,
        "_refuses",
        "slot.refused = True",
        "slot.refused = False",
        Features(async_logic=True),
    ),
    Fault(
        "lost wake-up: the start of an activation that does not run on a thread tells of no room",
        turns,
        "_launch",
        "if activation.mailbox.freed:",
        "if False:",
        Features(async_logic=True),
    ),
    Fault(
        "a set that is complete stays counted as parked",
        account.JobAccount,
        "unpark",
        "            self.parked -= n\n            self.active += n",
        "            self.parked -= 0",
        Features(joins=True),
    ),
    Fault(
        "the timer of an interval does nothing",
        worker.Worker,
        "timer_due",
        "if mailbox.timer_due():",
        "if False:",
        Features(intervals=True),
    ),
    Fault(
        "the end of a job is reported for each thing that ends after it",
        account.JobAccount,
        "remove",
        "            if self.active:\n                return NONE\n",
        "            if self.active > 1:\n                return NONE\n",
        PLAIN,
    ),
    Fault(
        "a job that starts stays counted as pending",
        book.JobBook,
        "started",
        "self.pending -= 1",
        "self.pending -= 0",
        PLAIN,
    ),
    Fault(
        "a cancelled job goes on",
        account.JobAccount,
        "_end",
        "self.ended, self.pause_asked = True, False",
        "self.ended, self.pause_asked = False, False",
        Features(cancels=True),
    ),
    Fault(
        "an item that was dropped stays counted",
        mailbox.Mailbox,
        "_count_out",
        "slot.length -= 1",
        "slot.length -= 0",
        Features(drops=True, cancels=True),
    ),
)


def seeds_until_caught(features: Features) -> int | None:
    for seed in range(SEEDS):
        try:
            check(seed, features)
        except Exception:
            return seed + 1
    return None


def test_nothing_is_caught_where_no_fault_is_planted() -> None:
    for features in {fault.features for fault in FAULTS}:
        assert seeds_until_caught(features) is None, features


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_fault_is_caught(fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    with planted(fault.change):
        caught = seeds_until_caught(fault.features)
    assert caught is not None, f"no seed below {SEEDS} shows the fault"
    print(f"caught after {caught} seeds")
