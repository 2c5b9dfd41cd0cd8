"""What it takes to cancel jobs in a store that no process runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

from routilux.ports import Changes, ItemKey, ItemRow, NoteKey, Store, StoredJob, WorkerRow
from routilux.store.references import items_of_activation, numbers_of_key


def cancellation(
    store: Store, worker_id: str, jobs: list[StoredJob], over: WorkerRow | None, now: float
) -> Changes:
    """The one transaction: the end of these jobs of a worker, without their items; ``over`` is a worker that ends
    with them."""
    changes = Changes()
    ids = {one.row.job_id for one in jobs}
    for one in jobs:
        changes.jobs[one.row.job_id] = one.row._replace(status="cancelled", completed_at=now)
    if ids:
        _take_items(store, worker_id, ids, changes)
    if over is not None:
        changes.workers[worker_id] = over._replace(status="stopped", updated_at=now)
    return changes


def _take_items(store: Store, worker_id: str, ids: set[str], changes: Changes) -> None:
    """Those that belong to these jobs and no other, but for the items of an activation that has others as well: it goes
    on with all of them. What is noted of them goes too."""
    rows = {(row.place, row.number): row for row in _items_of(store, worker_id, ids)}
    notes = store.notes(worker_id, with_jobs=False)
    for note, data in notes:
        if note.kind == "activation":
            named = items_of_activation(data)
            if rows.keys() >= {*named}:
                changes.notes[note] = None
            for key in named if note not in changes.notes else ():
                rows.pop(key, None)
    numbers = {number for _, number in rows}
    changes.notes.update((note, None) for note, _ in notes if _is_of(note, numbers))
    counts: Counter[str] = Counter()
    for row in rows.values():
        changes.taken.append(ItemKey(worker_id, row.place, row.number))
        counts.subtract(json.loads(row.job_ids))
    changes.counts = dict(counts)


def _items_of(store: Store, worker_id: str, ids: set[str]) -> Iterator[ItemRow]:
    for place in store.places(worker_id):
        for row in store.items(worker_id, place):
            if ids.issuperset(json.loads(row.job_ids)):
                yield row._replace(data=b"")


def _is_of(note: NoteKey, numbers: set[int]) -> bool:
    if note.kind == "crash":
        return int(note.name) in numbers
    return note.kind in ("checkpoint", "once") and not numbers.isdisjoint(numbers_of_key(note))
