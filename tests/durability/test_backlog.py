"""A worker that is opened with far more items than its slots hold: the rest stays in the store until there is room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.backlog import WORKER, fill
from benchmarks.measure import resident_bytes
from routilux import Flow, Routine, Runtime
from routilux.activation_policies import immediate_policy
from tests.waiting import SECONDS

ITEMS = 50_000
MIB = 2**20


class Order(Routine):
    """Counts what it gets, and what does not follow upon what it got before."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input", max_queue_length=100)
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        seen = state.get_routine_state("sink", {"next": 0, "odd": []})
        value = slot_data["input"][0]["value"]
        odd = [] if value == seen["next"] else [value]
        state.set_routine_state("sink", {"next": seen["next"] + 1, "odd": seen["odd"] + odd})


def test_fifty_thousand_waiting_items_are_done_once_in_their_order_and_memory_stays_bounded(
    tmp_path: Path,
) -> None:
    flow = Flow("backlog")
    flow.add_routine(Order(), "sink")
    fill(tmp_path / "store.db", ITEMS, flow=flow)
    before = resident_bytes()
    with Runtime(store=f"sqlite:///{tmp_path / 'store.db'}", durability="process") as runtime:
        state = runtime.exec(flow, worker_id=WORKER)
        assert runtime.list_jobs(limit=1)[0].job_id == "job00000000"
        assert runtime.wait_until_all_jobs_finished(timeout=10 * SECONDS)
        assert state.get_routine_state("sink") == {"next": ITEMS, "odd": []}
        assert runtime.list_jobs(status="pending") + runtime.list_jobs(status="running") == []
        assert resident_bytes() - before < 100 * MIB  # 10,000 finished jobs are kept in memory
