"""Faults planted in the durable engine, each of which the random lives must catch (see ``tests/planting.py``)."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import pytest

from routilux.kernel.mailbox import Mailbox
from routilux.runtime.context import ActivationContext
from routilux.runtime.journal.admission import Admission
from routilux.runtime.journal.backlog import Backlog
from routilux.runtime.journal.committer import Committer
from routilux.runtime.journal.conflicts import Conflicts
from routilux.runtime.journal.draft import Draft
from routilux.runtime.journal.endings import Endings
from routilux.runtime.journal.handover import Handover
from routilux.runtime.journal.jobs import StoredJobs
from routilux.runtime.journal.log import Journal
from routilux.runtime.journal.mapping import StoredMapping
from routilux.runtime.journal.notes import ActivationNotes
from routilux.runtime.journal.reopening import Revival
from routilux.runtime.journal.worker import JournaledWorker
from tests.durability.kinds import KINDS
from tests.durability.lives import check
from tests.planting import Change, planted

SEEDS = 400


class Fault(NamedTuple):
    name: str
    kind: str
    where: Any
    function: str
    old: str
    new: str


FAULTS = (
    Fault(
        "a record that was blamed once is left out",
        "failures",
        Committer,
        "_unfit",
        "if len(batch) == 1 and batch[0].suspected:",
        "if len(batch) == 1:",
    ),
    Fault(
        "a post is acknowledged before it is written",
        "chains",
        Journal,
        "waits_for",
        "yield from self._until_known(signal, deadline, withdraw, interrupted)",
        "yield from ()",
    ),
    Fault(
        "an activation is two transactions",
        "chains",
        Handover,
        "hand_over",
        "            worker.endings.take(record, activation.mailbox, activation.batch)\n",
        "            journal.append(record)\n            record = Record(worker)\n"
        "            worker.endings.take(record, activation.mailbox, activation.batch)\n",
    ),
    Fault(
        "what follows is released before it is written",
        "chains",
        Committer,
        "_commit",
        "            changes, keyed = merged(batch)\n",
        "            changes, keyed = merged(batch)\n"
        "            for record in batch:\n                self._carry_out(record)\n"
        "                record.follows = ()\n",
    ),
    Fault(
        "the key is made of the attempt",
        "failures",
        ActivationContext,
        "idempotency_key",
        "key = self._activation.idempotency_key",
        'key = f"{self._activation.idempotency_key}/{self._activation.attempt}"',
    ),
    Fault(
        "what an activation has read may have changed",
        "loops",
        Conflicts,
        "stands",
        "return not draft.is_outdated()",
        "return True",
    ),
    Fault(
        "what is changed in place is not noticed",
        "chains",
        StoredMapping,
        "settle",
        "if write.data != data:",
        "if False:",
    ),
    Fault(
        "the claim of an activation is not written",
        "claims",
        JournaledWorker,
        "may_begin",
        "if activation.claimed or not activation.node.gathers:",
        "if True:",
    ),
    Fault(
        "lost wake-up of the committer",
        "chains",
        Handover,
        "hand_over",
        "        journal.wake()",
        "        pass",
    ),
    Fault(
        "a refused batch is put back the wrong way round",
        "failures",
        Committer,
        "_put_back",
        "reversed(records)",
        "records",
    ),
    Fault(
        "the count of a job is not moved with its item",
        "chains",
        Endings,
        "take",
        "count(record, item[3], -1)",
        "pass",
    ),
    Fault(
        "the note of an activation outlives it",
        "joins",
        ActivationNotes,
        "forget",
        "notes[self._note(activation)] = None",
        "pass",
    ),
    Fault(
        "items that wait in the store are overtaken",
        "loops",
        Mailbox,
        "keep_place",
        "if (slot.beyond or slot.length >= slot.capacity) and",
        "if slot.length >= slot.capacity and",
    ),
    Fault(
        "numbers are used again after a restart",
        "chains",
        Revival,
        "open",
        "worker.next_number = worker.number_limit = row.next_number",
        "worker.next_number = worker.number_limit = row.next_number - 1_000",
    ),
    Fault(
        "a key is not written with its job",
        "chains",
        Admission,
        "waits_to_be_written",
        "record.key = None if key is None else key._replace(job_id=self._job.job_id)",
        "record.key = None",
    ),
    Fault(
        "an item becomes a letter and stays",
        "failures",
        Handover,
        "hand_over",
        "            worker.endings.take(record, activation.mailbox, activation.batch)\n",
        "            worker.endings.take(record, activation.mailbox, activation.batch if error is None else ())\n",
    ),
    Fault(
        "a commit that nobody knows of counts as refused",
        "chains",
        Committer,
        "_commit",
        "            self._unsettled = True\n            return self._ask_again(error)",
        "            return self._refused(batch, error)",
    ),
)
MORE_FAULTS = (
    Fault(
        "a commit that nobody knows of counts as written",
        "chains",
        Committer,
        "_commit",
        "            self._unsettled = True\n            return self._ask_again(error)",
        "            self._release(batch)\n            return True",
    ),
    Fault(
        "what is settled is taken for its opposite",
        "chains",
        Committer,
        "_settle",
        "if durable:",
        "if not durable:",
    ),
    Fault(
        "a refused post is not undone",
        "chains",
        Journal,
        "waits_for",
        "            undo()\n            leave_open(error)",
        "            leave_open(error)",
    ),
    Fault(
        "the place of a refused post stays kept",
        "chains",
        Admission,
        "take_back",
        "queue.mailbox.give_place(queue.name)",
        "pass",
    ),
    Fault(
        "the pause of a worker is not written",
        "pauses",
        JournaledWorker,
        "row",
        'else "paused" if paused else "running"',
        'else "running"',
    ),
    Fault(
        "the pause of a job is not restored",
        "pauses",
        Revival,
        "adopted",
        'account.pause(about["paused"] and not status.finished)',
        "pass",
    ),
    Fault(
        "merged slots are not restored",
        "merges",
        Revival,
        "_states",
        "if node is not None:",
        "if False:",
    ),
    Fault(
        "an item is passed over when a slot is loaded",
        "loops",
        Backlog,
        "_load",
        "stretch.cursor = row.number",
        "stretch.cursor = row.number + 1",
    ),
    Fault(
        "claimed items are queued as well",
        "joins",
        Backlog,
        "open",
        "if ItemKey(*row[:3]) not in self.claimed:",
        "if True:",
    ),
    Fault(
        "notes of a record are replaced",
        "joins",
        Draft,
        "apply",
        "record.notes = {**record.notes, **notes}",
        "record.notes = notes",
    ),
    Fault(
        "a failed activation leaves what it has done",
        "failures",
        Handover,
        "hand_over",
        "wanted = error is None and not job.ended",
        "wanted = True",
    ),
    Fault(
        "a job is written as completed while it has items",
        "chains",
        StoredJobs,
        "end_rows",
        "(fatal is None and job.stored)",
        "False",
    ),
    Fault(
        "a cancellation returns before it is written",
        "cancels",
        StoredJobs,
        "_cancel",
        "journal.written_or_raise(record, begin, partial(self._not_ended, begun))",
        "begin()",
    ),
    Fault(
        "an item that made room stays in the store",
        "drops",
        Backlog,
        "make_way",
        "worker.endings.take(record, mailbox, [oldest])",
        "pass",
    ),
    Fault(
        "a letter that was driven again stays",
        "failures",
        Admission,
        "waits_to_be_written",
        "record.redriven = () if redriven is None else ((redriven.worker_id, redriven.item_id),)",
        "record.redriven = ()",
    ),
    Fault(
        "of several jobs only one is counted",
        "joins",
        StoredJobs,
        "count",
        "for member in account.members:",
        "for member in account.members[:1]:",
    ),
    Fault(
        "a refused record stays counted as on its way",
        "chains",
        Committer,
        "_forget",
        "record.worker.unreleased -= 1",
        "record.worker.unreleased -= 0",
    ),
    Fault(
        "the end of a job is written behind its items",
        "cancels",
        JournaledWorker,
        "mark_ended",
        "                self.stored_jobs.append_end(job)\n",
        "                pass\n",
    ),
    Fault(
        "a completed job is open again after a restart",
        "joins",
        Revival,
        "adopted",
        "if not status.finished:\n            status",
        "if not (status.finished and not stored.items):\n            status",
    ),
)


def seeds_until_caught(kind: str) -> int | None:
    for seed in range(SEEDS):
        try:
            check(seed, KINDS[kind])
        except Exception:
            return seed + 1
    return None


def is_caught(fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    caplog.set_level(logging.CRITICAL, logger="asyncio")
    with planted(Change(fault.where, fault.function, fault.old, fault.new)):
        caught = seeds_until_caught(fault.kind)
    assert caught is not None, f"no seed below {SEEDS} of {fault.kind} shows the fault"
    print(f"caught after {caught} seeds of {fault.kind}")


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_fault_is_caught(fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    is_caught(fault, caplog)


@pytest.mark.full
@pytest.mark.parametrize("fault", MORE_FAULTS, ids=[fault.name for fault in MORE_FAULTS])
def test_more_faults_are_caught(fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    is_caught(fault, caplog)
