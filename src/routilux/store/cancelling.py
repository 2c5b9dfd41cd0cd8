"""What it takes to cancel jobs in a store that no process runs."""

from __future__ import annotations

import json
from collections import Counter

from routilux.ports import Changes, ItemKey, Store, StoredJob, WorkerRow


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
    """Those that belong to these jobs and no other."""
    counts: Counter[str] = Counter()
    for place in store.places(worker_id):
        for row in store.items(worker_id, place):
            owners = json.loads(row.job_ids)
            if ids.issuperset(owners):
                changes.taken.append(ItemKey(worker_id, place, row.number))
                counts.subtract(owners)
    changes.counts = dict(counts)
