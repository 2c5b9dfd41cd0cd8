"""What a store may be told: every transaction is checked against all that came before it.

Rules
    * What an activation did is in one transaction: its entry in the log, the items that it took and emitted, its
      routine's counter, the data and traces of its jobs, their outputs, its merged slots. A failed attempt has none.
    * An item leaves the store with an activation that completed, as a dead letter, because its jobs were cancelled, or
      as the oldest of a full slot that drops; never for no reason, never twice.
    * An item enters it because somebody posted it, drove its letter again, or because it was emitted.
    * Items of a connection are taken in the order of their numbers, with lanes those of a key. No number is used twice.
    * Every job has as many items in the store as are counted for it, and ends once.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from routilux.activation_policies import immediate_policy
from routilux.ports import Changes, ItemKey, ItemRow, JobRow, LetterRow, NoteKey, WorkerRow, load
from tests.durability.witness import Witness
from tests.property.plans import FlowPlan

IMMEDIATE = immediate_policy()
FINISHED = ("completed", "failed", "cancelled")
DROPPING = ("drop_new", "drop_old")


class Audit:
    """See the module's docstring. It keeps books of its own, from the transactions alone."""

    def __init__(self, witness: Witness) -> None:
        self.witness = witness
        self.items: dict[ItemKey, ItemRow] = {}
        self.uids: dict[ItemKey, str] = {}
        self.counts: Counter[str] = Counter()
        self.jobs: dict[str, JobRow] = {}
        self.workers: dict[str, WorkerRow] = {}
        self.letters: dict[tuple[str, int], LetterRow] = {}
        self.posted: dict[str, str] = {}  # uid of a post that was accepted -> its job
        self.completed: set[tuple[str, str, str]] = set()  # worker, place, uid
        self.emitted: set[tuple[str, str, str]] = set()
        self.outputs: dict[str, list[str]] = defaultdict(list)  # of jobs
        self.transactions = 0
        self._completing: list[str] = []
        self._codec = load("codec")()
        self._highest: dict[str, int] = {}  # number of an item, by worker
        self._taken: dict[tuple[Any, ...], int] = {}  # the last number, by worker, source, place (and jobs)
        self._counters: Counter[tuple[str, str]] = Counter()  # completed items, by worker and routine
        self._merged: dict[tuple[str, str], list[str]] = defaultdict(list)

    def is_stored(self, key: ItemKey) -> bool:
        return key in self.items

    def check(self, changes: Changes) -> None:
        """Take note of a transaction that is durable."""
        self.transactions += 1
        self.witness.tell(f"transaction {self.transactions}")
        for worker_id in changes.forgotten:
            self._forget(worker_id)
        self._check_workers(changes)
        self._check_jobs(changes)
        done = [
            _Done(entry.worker_id, self._decode(entry.data))
            for entry in changes.entries
            if entry.kind == "log"
        ]
        unexplained = Counter(ItemKey(*key) for key in changes.taken)
        for one in done:
            self._completed(one, changes, unexplained)
        self._check_outputs(done, changes)
        self._check_letters(changes, unexplained)
        self._check_discarded(unexplained)
        self._check_new_items(done, changes)
        self._check_completed(changes)
        for item in changes.items:
            for job_id in json.loads(item.job_ids):
                self._expect(
                    job_id in self.jobs, f"item {item.number} belongs to {job_id}, which is not there"
                )

    def _decode(self, data: bytes) -> Any:
        return self._codec.decode(data, "audit")

    def _expect(self, holds: object, what: str) -> None:
        self.witness.expect(holds, f"transaction {self.transactions}: {what}")

    def _plan(self, worker_id: str) -> FlowPlan:
        return self.witness.flow_of(self.workers[worker_id].flow_id)

    # -- workers -------------------------------------------------------------------------------------------

    def _forget(self, worker_id: str) -> None:
        left = [key for key in self.items if key.worker_id == worker_id]
        self._expect(not left, f"worker {worker_id} is forgotten with {left}")
        for books in (self._counters, self._merged):
            for key in [key for key in books if key[0] == worker_id]:
                del books[key]
        del self.workers[worker_id]
        self._taken = {key: number for key, number in self._taken.items() if key[0] != worker_id}
        self._highest.pop(worker_id, None)

    def _check_workers(self, changes: Changes) -> None:
        for worker_id, row in changes.workers.items():
            before = self.workers.get(worker_id)
            if before is not None:
                self._expect(
                    before.status in ("running", "paused", row.status),
                    f"worker {worker_id} is {row.status} after its end",
                )
                self._expect(row.next_number >= before.next_number, f"numbers of {worker_id} go back")
            self.workers[worker_id] = row

    # -- activations ---------------------------------------------------------------------------------------

    def _completed(self, one: _Done, changes: Changes, unexplained: Counter[ItemKey]) -> None:
        plan = self.witness.routines[self.workers[one.worker_id].flow_id, one.routine_id]
        first = one.items[0][2]
        planned = plan.attempts_that_fail(first)
        self._expect(one.attempt > planned, f"{one} is committed, and was to fail {planned} times")
        for slot, number, uid, source in one.items:
            place = f"{one.routine_id}.{slot}"
            key = ItemKey(one.worker_id, place, number)
            self._expect(unexplained[key] == 1, f"{one} is committed, and {key} stays in the store")
            unexplained[key] -= 1
            name = (one.worker_id, place, uid)
            self._expect(name not in self.completed, f"{name} is completed twice")
            self.completed.add(name)
            self._check_order(one, place, source, number)
        self._check_merged(one)
        self._check_marks(one, plan.concurrency, changes)
        self.witness.expect(
            self.witness.batches.get(
                ItemKey(one.worker_id, f"{one.routine_id}.{one.items[0][0]}", one.items[0][1])
            ),
            f"{one} never started",
        )

    def _check_order(self, one: _Done, place: str, source: str, number: int) -> None:
        routines, flow_id = self.witness.routines, self.workers[one.worker_id].flow_id
        consumer = routines[flow_id, one.routine_id]
        producer = routines.get((flow_id, source.partition(".")[0]))
        overlaps = producer is not None and producer.concurrency > 1
        row = self.items.get(ItemKey(one.worker_id, place, number))
        if consumer.by is not None and row is not None:
            if overlaps and producer is not None and producer.by != consumer.by:
                return
            lane = row.job_ids if consumer.by == "job" else self._decode(row.data)[consumer.by]
            line: tuple[Any, ...] = (one.worker_id, source, place, "lane", lane)
        elif not consumer.fifo or consumer.concurrency > 1 or overlaps:
            return
        else:
            # A paused job holds back the sets that have an item of it, and other items of their jobs pass them.
            by_jobs = sorted(one.jobs) if self.witness.job_pauses else ()
            line = (one.worker_id, source, place, *by_jobs)
        last = self._taken.get(line, -1)
        self._expect(last < number, f"{place} takes item {number} of {source} after {last}")
        self._taken[line] = number

    def _check_merged(self, one: _Done) -> None:
        plan = self.witness.routines[self.workers[one.worker_id].flow_id, one.routine_id]
        for slot in plan.slots:
            uids = [uid for name, _, uid, _ in one.items if name == slot.name]
            if slot.merge == "queue" or not uids:
                continue
            whole = self._merged[one.worker_id, f"{one.routine_id}.{slot.name}"]
            whole += uids
            wanted = whole[-1] if slot.merge == "override" else whole
            found = one.merged.get(slot.name)
            self._expect(found == wanted, f"{one} was given {found} in {slot.name}, which is {wanted}")

    def _check_marks(self, one: _Done, concurrency: int, changes: Changes) -> None:
        """What it noted beside the log is in the same transaction."""
        self._counters[one.worker_id, one.routine_id] += len(one.items)
        key = NoteKey(one.worker_id, "state", one.routine_id, '"n"')
        self._expect(key in changes.notes, f"{one} is committed without its routine's state")
        later = [entry for entry in changes.entries if entry.kind == "log"]
        last = [
            e
            for e in later
            if e.worker_id == one.worker_id and _routine_of(self._decode(e.data)) == one.routine_id
        ]
        if concurrency == 1 and self._decode(last[-1].data) == one.entry and key in changes.notes:
            found = self._decode(changes.notes[key] or b"null")
            wanted = self._counters[one.worker_id, one.routine_id]
            self._expect(found == wanted, f"{one}: the routine has counted {found} items, of {wanted}")
        data = NoteKey(one.worker_id, "job.data", one.jobs[0], json.dumps(one.key))
        self._expect(data in changes.notes, f"{one} is committed without the data of its job")
        traces = [e for e in changes.entries if e.kind == "job.trace" and e.owner == one.jobs[0]]
        noted = [t for t in map(self._decode, (e.data for e in traces)) if t.get("key") == one.key]
        self._expect(len(noted) == 1, f"{one} is committed with {len(noted)} traces")

    def _check_outputs(self, done: list[_Done], changes: Changes) -> None:
        wanted: Counter[tuple[str, str]] = Counter()
        for one in done:
            plan = self._plan(one.worker_id)
            for event, uid in one.emits:
                if not plan.targets(one.routine_id, event):
                    wanted.update((job_id, uid) for job_id in one.jobs)
        found: Counter[tuple[str, str]] = Counter()
        for entry in changes.entries:
            if entry.kind == "job.output":
                kept = self._decode(entry.data)
                output = kept[0] if isinstance(kept, list) else kept  # of several jobs, with its mark
                uid = output.data["uid"]
                found[entry.owner, uid] += 1
                self.outputs[entry.owner].append(uid)
        self._expect(found == wanted, f"outputs {_difference(found, wanted)}")

    # -- items out -----------------------------------------------------------------------------------------

    def _check_letters(self, changes: Changes, unexplained: Counter[ItemKey]) -> None:
        for letter in changes.redriven:
            self._expect(letter in self.letters, f"letter {letter} is driven again, and is none")
            self.letters.pop(letter, None)
        for row in changes.letters:
            key = ItemKey(row.worker_id, row.place, row.number)
            self._expect(
                unexplained[key] == 1, f"{row.place} item {row.number} is a letter, and stays in the store"
            )
            unexplained[key] -= 1
            self._expect(key in self.items, f"{row} is no item of the store")
            self.letters[row.worker_id, row.number] = row

    def _check_discarded(self, unexplained: Counter[ItemKey]) -> None:
        for key, times in unexplained.items():
            if not times:
                continue
            row = self.items.get(key)
            if row is None:
                self._expect(False, f"{key} is taken, and is not in the store")
                continue
            jobs = json.loads(row.job_ids)
            cancelled = all(self._was_cancelled(job_id) for job_id in jobs)
            slot = self.slot(key)
            self._expect(times == 1, f"{key} is taken {times} times")
            self._expect(cancelled or slot.on_full == "drop_old", f"{key} is gone for no reason")
        for key in unexplained:
            row = self.items.pop(key, None)
            self.uids.pop(key, None)
            if row is not None:
                self.counts.subtract(json.loads(row.job_ids))

    def _was_cancelled(self, job_id: str) -> bool:
        row = self.jobs.get(job_id)
        return row is not None and row.status == "cancelled"

    def slot(self, key: ItemKey) -> Any:
        routine_id, _, name = key.place.rpartition(".")
        routine = self.witness.routines[self.workers[key.worker_id].flow_id, routine_id]
        return next(slot for slot in routine.slots if slot.name == name)

    # -- items in ------------------------------------------------------------------------------------------

    def _check_new_items(self, done: list[_Done], changes: Changes) -> None:
        wanted = Counter(line for one in done for line in self._sent_by(one))
        redriven = Counter(worker_id for worker_id, _ in changes.redriven)
        for row in changes.items:
            key, uid = ItemKey(*row[:3]), self._decode(row.data)["uid"]
            if row.source == "post":
                self._posted(row, uid, redriven)
            else:
                line = (row.worker_id, row.source, row.place, uid)
                self._expect(wanted[line], f"{line} appears, and nobody has emitted it")
                wanted[line] -= 1
                name = (row.worker_id, row.place, uid)
                self._expect(name not in self.emitted, f"{name} is emitted twice")
                self.emitted.add(name)
            self._add(key, row, uid)
        for line, times in wanted.items():
            dropping = times and self.slot(ItemKey(line[0], line[2], 0)).on_full in DROPPING
            self._expect(not times or dropping, f"{line} was emitted, and is not there")

    def _sent_by(self, one: _Done) -> Iterator[tuple[str, str, str, str]]:
        plan = self._plan(one.worker_id)
        for event, uid in one.emits:
            for target in plan.targets(one.routine_id, event):
                yield one.worker_id, f"{one.routine_id}.{event}", target, uid

    def _posted(self, row: ItemRow, uid: str, redriven: Counter[str]) -> None:
        if uid in self.posted and redriven[row.worker_id]:  # a new post may be written together with it
            redriven[row.worker_id] -= 1
            return
        self._expect(uid not in self.posted, f"post {uid} is accepted twice")
        self._expect(uid not in self.witness.refused, f"post {uid} is accepted after it was refused")
        self.posted[uid] = json.loads(row.job_ids)[0]

    def _add(self, key: ItemKey, row: ItemRow, uid: str) -> None:
        highest = self._highest.get(row.worker_id, 0)
        self._expect(row.number > highest, f"{key} comes after number {highest}")
        self._highest[row.worker_id] = max(highest, row.number)
        limit = self.workers[row.worker_id].next_number
        self._expect(row.number < limit, f"{key}: the worker's row allows for numbers below {limit}")
        self.items[key], self.uids[key] = row, uid
        self.counts.update(json.loads(row.job_ids))

    # -- jobs ----------------------------------------------------------------------------------------------

    def _check_jobs(self, changes: Changes) -> None:
        for job_id, row in changes.jobs.items():
            before = self.jobs.get(job_id)
            self._expect((row.status in FINISHED) == (row.completed_at is not None), f"{row} has an odd end")
            if before is not None and before.status in ("failed", "cancelled"):
                self._expect(row.status == before.status, f"{job_id} was {before.status} and is {row.status}")
            self.jobs[job_id] = row
            if row.status == "completed" and (before is None or before.status != "completed"):
                self._completing.append(job_id)
        for item in changes.items:
            for job_id in json.loads(item.job_ids):
                self._expect(
                    job_id in self.jobs, f"item {item.number} belongs to {job_id}, which is not there"
                )
        for key in changes.keys:
            self._expect(key.job_id in self.jobs, f"key {key.key} names {key.job_id}, which is not there")

    def _check_completed(self, changes: Changes) -> None:
        """A job that completes has no items left but such as may wait for others, or were posted to it since."""
        completing, self._completing = self._completing, []
        posted = {ItemKey(*row[:3]) for row in changes.items if row.source == "post"}
        for key, row in self.items.items() if completing else ():
            if key in posted:
                continue
            routine_id = key.place.rpartition(".")[0]
            gathers = (
                self.witness.routines[self.workers[key.worker_id].flow_id, routine_id].policy != IMMEDIATE
            )
            for job_id in set(completing).intersection(json.loads(row.job_ids)):
                self._expect(gathers, f"{job_id} completes, and {key} is left")

    def check_counts(self, counts: dict[str, int]) -> None:
        """The store's own count of each job's items."""
        found = {job_id: n for job_id, n in counts.items() if n}
        wanted = {job_id: n for job_id, n in self.counts.items() if n}
        self._expect(found == wanted, f"counts {found}, items {wanted}")


class _Done:
    """What a completed activation has written into the shared log."""

    def __init__(self, worker_id: str, entry: dict[str, Any]) -> None:
        self.worker_id = worker_id
        self.entry = entry
        self.routine_id: str = entry["routine"]
        self.items: list[tuple[str, int, str, str]] = [tuple(item) for item in entry["items"]]
        self.key: str = entry["key"]
        self.attempt: int = entry["attempt"]
        self.jobs: list[str] = entry["jobs"]
        self.emits: list[tuple[str, str]] = [(event, uid) for event, uid in entry["emits"]]
        self.merged: dict[str, Any] = entry["merged"]

    def __str__(self) -> str:
        return f"{self.key}, attempt {self.attempt},"


def _routine_of(entry: dict[str, Any]) -> str:
    routine_id: str = entry["routine"]
    return routine_id


def _difference(found: Counter[Any], wanted: Counter[Any]) -> str:
    return f"too many: {dict(found - wanted)}, missing: {dict(wanted - found)}"
