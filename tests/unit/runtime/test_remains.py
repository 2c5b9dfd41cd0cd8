"""What the end of a worker in memory leaves undone is told once, by slot."""

from __future__ import annotations

import pytest

from routilux import Flow, Routine, Runtime
from routilux.activation_policies import all_slots_ready_policy
from routilux.store.memory import MemoryStore


class Ship(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("order")
        self.add_slot("payment")
        self.set_activation_policy(all_slots_ready_policy(by="id"))

    def logic(self, slot_data: object, policy_message: object, state: object) -> None:
        return None


def shipping() -> Flow:
    flow = Flow("shipping")
    flow.add_routine(Ship(), "ship")
    return flow


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "work left" in record.getMessage()]


def test_parked_items_are_told_by_slot_when_the_runtime_ends(caplog: pytest.LogCaptureFixture) -> None:
    flow = shipping()
    with Runtime() as runtime:
        runtime.exec(flow)
        for slot, key in [("order", 7), ("order", 8), ("payment", "7")]:
            runtime.post(flow, "ship", slot, {"id": key})
    (line,) = told(caplog)
    assert line.endswith(
        "3 items still parked, for partners that have not come: ship.order 2, ship.payment 1; "
        "'id' is 7 (int) in ship.order and '7' (str) in ship.payment"
    )


@pytest.mark.parametrize("stored", [False, True], ids=["memory", "store"])
def test_parked_items_are_told_when_their_worker_ends_for_good(
    caplog: pytest.LogCaptureFixture, stored: bool
) -> None:
    flow = shipping()
    with Runtime(store=MemoryStore() if stored else None) as runtime:
        worker = runtime.exec(flow)
        runtime.post(flow, "ship", "order", {"id": 7})
        assert runtime.stop(worker)
        assert [letter.reason for letter in runtime.dead_letters()] == ["incomplete"]
    (line,) = told(caplog)
    assert line.endswith("1 item still parked, for partners that have not come: ship.order 1")


@pytest.mark.parametrize("drain", [True, False])
def test_a_paused_job_that_its_worker_drops_is_told(caplog: pytest.LogCaptureFixture, drain: bool) -> None:
    flow = shipping()
    with Runtime() as runtime:
        worker = runtime.exec(flow)
        runtime.pause(worker)
        for slot in ("order", "payment"):
            runtime.post(flow, "ship", slot, {"id": 1})
        runtime.stop(worker, drain=drain)
    (line,) = told(caplog)
    assert "open job" in line
    assert "cancelled" in line


def test_nothing_is_told_where_nothing_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    flow = shipping()
    with Runtime() as runtime:
        worker = runtime.exec(flow)
        for slot in ("order", "payment"):
            runtime.post(flow, "ship", slot, {"id": 1})
        runtime.wait_until_all_jobs_finished()
        runtime.post(flow, "ship", "order", {"id": 2})
        runtime.cancel(worker)
    with Runtime(store=MemoryStore()) as runtime:
        runtime.exec(flow, worker_id="kept")
        runtime.post(flow, "ship", "order", {"id": 2})
    assert told(caplog) == []


@pytest.mark.parametrize("named", [False, True])
def test_a_worker_that_a_store_keeps_under_a_made_up_id_is_told(
    caplog: pytest.LogCaptureFixture, named: bool
) -> None:
    flow, store = shipping(), MemoryStore()
    with Runtime(store=store) as runtime:
        worker = runtime.exec(flow, worker_id="shipping" if named else None)
        runtime.post(flow, "ship", "order", {"id": 7})
    messages = [record.getMessage() for record in caplog.records]
    said = [text for text in messages if "left in the store" in text]
    assert len(said) == (not named)
    assert all(repr(worker.worker_id) in text and "runtime.recover()" in text for text in said)
    assert not told(caplog)
