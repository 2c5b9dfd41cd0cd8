"""What it takes to cancel a job in a store that nobody runs."""

from __future__ import annotations

import json

from routilux.ports import Changes, ItemKey, Store, StoredJob


def cancellation(store: Store, stored: StoredJob, now: float) -> Changes:
    """The one transaction: the end of the job, without its items, and without a worker that lived for it alone."""
    changes, row = Changes(), stored.row
    changes.jobs[row.job_id] = row._replace(status="cancelled", completed_at=now)
    changes.taken = _items_of(store, row.worker_id, row.job_id)
    changes.counts[row.job_id] = -len(changes.taken)
    worker = store.worker(row.worker_id)
    if worker is not None and worker.kind == "execution":
        changes.workers[row.worker_id] = worker._replace(status="stopped", updated_at=now)
    return changes


def _items_of(store: Store, worker_id: str, job_id: str) -> list[ItemKey]:
    """The items that belong to this job and no other."""
    return [
        ItemKey(worker_id, place, row.number)
        for place in store.places(worker_id)
        for row in store.items(worker_id, place)
        if json.loads(row.job_ids) == [job_id]
    ]
