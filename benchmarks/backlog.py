"""Opening a worker that has a million items waiting in its store: how long until the first one is done."""

from __future__ import annotations

import shutil
from pathlib import Path
from threading import Event
from time import perf_counter
from typing import Any, NamedTuple

from benchmarks.durable import folder
from benchmarks.flows import Sink
from benchmarks.measure import resident_bytes
from benchmarks.row import Reach, Row, Size
from routilux import Flow, Runtime
from routilux.ports import Changes, ItemRow, JobRow, NoteKey, Store, load

TITLE = "Opening a worker with a backlog, SQLite"
WORKER = "backlog"
PLACE = "sink.input"
CHUNK = 5_000
MEBIBYTE = 2**20


class Scale(NamedTuple):
    items: int
    rounds: int


SCALES: dict[Size, Scale] = {"full": Scale(1_000_000, 5), "quick": Scale(100_000, 2), "tiny": Scale(50, 1)}


class Ready(NamedTuple):
    seconds: float  # from nothing to the first activation that has ended
    grown: float  # bytes


def rows(size: Size) -> list[Row]:
    items, rounds = SCALES[size]
    found = []
    for title, with_data in ((f"{items:,} items", False), (f"{items:,} items, job data", True)):
        with folder() as where:
            fill(where / "store.db", items, with_data=with_data)
            ready = [open_it(where) for _ in range(rounds)]
        seconds = sorted(one.seconds for one in ready)[rounds // 2]
        found.append(Row(f"{title}: ready", seconds, "s", reach=Reach(1.0, of="ours")))
        found.append(Row(f"{title}: memory", max(one.grown for one in ready), "B+"))
    return found


class First(Sink):
    """Tells that it has run, and holds on: only the opening is measured."""

    done: Event
    go_on: Event

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        if self.done.is_set():
            self.go_on.wait()
        self.done.set()


def backlog_flow() -> Flow:
    flow = Flow("backlog")
    flow.add_routine(First(), "sink")
    return flow


def fill(path: Path, items: int, *, with_data: bool = False, flow: Flow | None = None) -> None:
    """Leave a worker with so many items, each of a job of its own, as posts would have left it."""
    url = f"sqlite:///{path}"
    with Runtime(store=url, durability="process") as runtime:
        runtime.exec(flow or backlog_flow(), worker_id=WORKER)
    store: Store = load("store of a URL")(url, durability="process")
    row = store.worker(WORKER)
    assert row is not None
    first = row.next_number
    for start in range(0, items, CHUNK):
        changes = Changes()
        for n in range(start, min(start + CHUNK, items)):
            _add(changes, row.flow_id, first + n, n, with_data=with_data)
        changes.workers[WORKER] = row._replace(next_number=first + items)
        store.write(changes)
    store.close()


def _add(changes: Changes, flow_id: str, number: int, n: int, *, with_data: bool) -> None:
    job_id, time = f"job{n:08}", 1_700_000_000.0 + n / 1_000
    about = b'{"metadata":{},"paused":false,"error":null,"outputs_dropped":0}'
    changes.items.append(ItemRow(WORKER, PLACE, number, f'["{job_id}"]', "post", time, b'{"value":%d}' % n))
    changes.jobs[job_id] = JobRow(job_id, WORKER, flow_id, "pending", number, time, None, None, about)
    changes.counts[job_id] = 1
    if with_data:
        changes.notes[NoteKey(WORKER, "job.data", job_id, '"customer"')] = b'"somebody"'


def open_it(where: Path) -> Ready:
    """Open a copy, so that every round finds the same."""
    for file in where.glob("copy.db*"):
        file.unlink()
    for file in where.glob("store.db*"):
        shutil.copy(file, where / file.name.replace("store", "copy"))
    flow = backlog_flow()
    First.done, First.go_on = Event(), Event()
    before, start = resident_bytes(), perf_counter()
    runtime = Runtime(store=f"sqlite:///{where / 'copy.db'}", thread_pool_size=1)
    runtime.exec(flow, worker_id=WORKER)
    First.done.wait()
    ready = Ready(perf_counter() - start, resident_bytes() - before)
    First.go_on.set()
    runtime.shutdown(wait=False)
    return ready
