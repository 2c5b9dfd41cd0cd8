"""A durable runtime that works for long: memory, threads, descriptors and the log of the database stay as they are."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.measure import resident_bytes
from routilux import Runtime
from tests.durability.flows import Copy, Log, flow_of
from tests.waiting import SECONDS

MIB = 2**20
SAMPLES = 10


class Sample(NamedTuple):
    memory: float  # MiB
    threads: int
    descriptors: int
    wal: float  # MiB


def sample(database: Path) -> Sample:
    return Sample(
        round(resident_bytes() / MIB, 1),
        threading.active_count(),
        len(os.listdir("/proc/self/fd")),
        round(database.with_name(f"{database.name}-wal").stat().st_size / MIB, 1),
    )


class Forget(Log):
    """Keeps a sum and no log, which would grow."""

    def logic(self, slot_data: object, policy_message: object, state: object) -> None:
        kept = state.get_routine_state("1", {"sum": 0})  # type: ignore[attr-defined]
        total = kept["sum"] + slot_data["input"][0]["n"]  # type: ignore[index]
        state.set_routine_state("1", {"sum": total})  # type: ignore[attr-defined]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors where Linux lists them")
@pytest.mark.parametrize("jobs", [20_000, pytest.param(1_000_000, marks=pytest.mark.full)])
def test_many_jobs_leave_memory_threads_descriptors_and_the_log_as_they_were(
    tmp_path: Path, jobs: int
) -> None:
    database, flow = tmp_path / "store.db", flow_of(Copy(), Forget())
    series = []
    with Runtime(store=f"sqlite:///{database}", durability="process", thread_pool_size=2) as runtime:
        state = runtime.exec(flow, worker_id="worker")

        def post(numbers: range) -> None:
            for n in numbers:
                runtime.post(flow, "0", "input", {"n": n})

        for part in range(SAMPLES):
            start, posters = part * jobs // SAMPLES, 8
            threads = [
                threading.Thread(target=post, args=(range(start + n, (part + 1) * jobs // SAMPLES, posters),))
                for n in range(posters)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
            series.append(sample(database))
        assert state.get_routine_state("1") == {"sum": jobs * (jobs - 1) // 2}
    print(f"{jobs} jobs, after each tenth (MiB, threads, descriptors, MiB of WAL):")
    for one in series:
        print(*one)
    settled, last = series[SAMPLES // 2], series[-1]  # 10,000 finished jobs are kept in memory
    assert last.memory - settled.memory < 20
    assert last.threads == settled.threads
    assert last.descriptors <= settled.descriptors + 2
    assert max(one.wal for one in series) <= 64
