"""A mailbox with lanes: one activation at a time and in order per key, different keys side by side."""

from __future__ import annotations

from threading import Lock
from typing import Any

import pytest

from routilux.errors import InvalidValueError
from routilux.kernel.account import JobAccount
from routilux.kernel.activation import Activation
from routilux.kernel.lanes import lanes_for
from routilux.kernel.mailbox import FULL, Discard, Mailbox, SlotQueue
from routilux.model.item import Item
from routilux.model.policy import ActivationPolicy, all_slots_ready_policy, immediate_policy
from routilux.model.status import JobStatus

NOW = 0.0


class Lanes:
    """A mailbox of one routine, and the accounts of the jobs whose items go into it."""

    def __init__(
        self,
        concurrency: int = 10,
        by: str | None = "customer",
        policy: ActivationPolicy | None = None,
        slots: tuple[str, ...] = ("input",),
        capacity: int = 1000,
    ) -> None:
        queues = [SlotQueue(name, capacity, capacity - 1, "block") for name in slots]
        gathering = lanes_for(policy or immediate_policy(), slots, by)
        self.mailbox = Mailbox("work", queues, gathering=gathering, concurrency=concurrency, lock=Lock())
        self.numbers = 0
        self.jobs: dict[str, JobAccount] = {}

    def offer(self, customer: object, slot: str = "input", job: str = "job") -> int:
        return self.mailbox.offer(self.item({"customer": customer}, slot, job))

    def item(self, payload: dict[str, Any], slot: str = "input", job: str = "job") -> Item:
        self.numbers += 1
        account = self.jobs.setdefault(job, JobAccount(Lock()))
        account.add()
        return (self.numbers, slot, payload, account, "post", NOW)

    def start(self) -> Activation | None:
        """The next activation, past what the mailbox has to say before."""
        while isinstance(answer := self.mailbox.next(NOW), Discard):
            pass
        assert answer is None or isinstance(answer, Activation)
        return answer

    def start_all(self) -> list[Activation]:
        return list(iter(self.start, None))


def keys(activations: list[Activation]) -> list[str]:
    return [activation.key for activation in activations]


def test_different_keys_start_side_by_side_and_one_key_one_after_the_other() -> None:
    lanes = Lanes()
    for customer in "aabac":
        lanes.offer(customer)
    first = lanes.start_all()
    assert keys(first) == ["1", "3", "5"]
    lanes.mailbox.finish(first[0], NOW)
    second = lanes.start_all()
    assert keys(second) == ["2"]
    lanes.mailbox.finish(second[0], NOW)
    assert keys(lanes.start_all()) == ["4"]


def test_no_more_than_the_limit_run_at_once() -> None:
    lanes = Lanes(concurrency=2)
    for customer in "abc":
        lanes.offer(customer)
    first = lanes.start_all()
    assert keys(first) == ["1", "2"]
    lanes.mailbox.finish(first[1], NOW)
    assert keys(lanes.start_all()) == ["3"]


@pytest.mark.parametrize("concurrency", [1, 2])
def test_retry_holds_back_its_own_key_and_no_other(concurrency: int) -> None:
    lanes = Lanes(concurrency)
    for customer in "aab":
        lanes.offer(customer)
    retried = lanes.start()
    assert retried is not None
    assert lanes.mailbox.stall(retried, retry=True) == (concurrency == 1)
    others = lanes.start_all()
    assert keys(others) == ["3"]
    lanes.mailbox.finish(others[0], NOW)
    assert lanes.mailbox.go_on(retried)
    again = lanes.start_all()
    assert again == [retried]
    assert lanes.mailbox.finish(retried, NOW)
    assert keys(lanes.start_all()) == ["2"]


def test_retry_without_lanes_holds_back_its_own_item_only() -> None:
    lanes = Lanes(2, by=None)
    for customer in "aab":
        lanes.offer(customer)
    retried = lanes.start()
    assert retried is not None
    lanes.mailbox.stall(retried, retry=True)
    assert keys(lanes.start_all()) == ["2", "3"]


def test_retry_with_a_concurrency_of_one_holds_back_everything() -> None:
    lanes = Lanes(1, by=None)
    lanes.offer("a")
    lanes.offer("b")
    retried = lanes.start()
    assert retried is not None
    assert not lanes.mailbox.stall(retried, retry=True)
    assert lanes.start_all() == []


def test_no_more_is_set_aside_for_a_retry_than_a_slot_holds() -> None:
    lanes = Lanes(2, by=None, capacity=3)
    for _ in range(5):
        assert lanes.offer("a") != FULL
        retried = lanes.start()
        if retried is None:
            break
        lanes.mailbox.stall(retried, retry=True)
    assert len(lanes.mailbox.stalled) == 3
    assert not lanes.mailbox.queued
    assert lanes.mailbox.go_on(next(iter(lanes.mailbox.stalled)))


def test_paused_job_holds_back_its_key_from_where_its_item_is_next() -> None:
    lanes = Lanes(concurrency=1)
    lanes.offer("a", job="first")
    lanes.offer("a", job="paused")
    lanes.offer("a", job="behind")
    lanes.offer("b", job="other")
    lanes.jobs["paused"].pause(True)
    ran = []
    while (activation := lanes.start()) is not None:
        ran.append(activation.key)
        lanes.mailbox.finish(activation, NOW)
    assert ran == ["1", "4"]
    lanes.jobs["paused"].pause(False)
    assert lanes.mailbox.release_held()[0]
    while (activation := lanes.start()) is not None:
        ran.append(activation.key)
        lanes.mailbox.finish(activation, NOW)
    assert ran == ["1", "4", "2", "3"]


def test_retry_of_a_paused_job_keeps_its_key() -> None:
    lanes = Lanes()
    lanes.offer("a", job="paused")
    lanes.offer("a", job="behind")
    lanes.offer("b", job="other")
    retried = lanes.start()
    assert retried is not None
    lanes.mailbox.stall(retried, retry=True)
    lanes.jobs["paused"].pause(True)
    lanes.mailbox.go_on(retried)
    assert keys(lanes.start_all()) == ["3"]
    lanes.jobs["paused"].pause(False)
    lanes.mailbox.release_held()
    assert lanes.start_all() == [retried]


@pytest.mark.parametrize("how", ["withdrawn", "put back"])
def test_activation_of_a_job_that_has_ended_gives_its_key_to_the_next(how: str) -> None:
    lanes = Lanes()
    lanes.offer("a", job="cancelled")
    lanes.offer("a", job="behind")
    first = lanes.start()
    assert first is not None
    lanes.jobs["cancelled"].end(JobStatus.CANCELLED)
    if how == "put back":
        lanes.mailbox.put_back(first, over=True)
    else:
        lanes.mailbox.stall(first, retry=True)
        lanes.mailbox.withdraw(lambda activation: activation.job.ended)
    assert keys(lanes.start_all()) == ["2"]


def test_items_that_are_taken_out_let_the_next_of_their_key_start() -> None:
    lanes = Lanes()
    lanes.offer("a", job="cancelled")
    lanes.offer("a", job="behind")
    removed, _ = lanes.mailbox.extract(lambda item: item[3] is lanes.jobs["cancelled"])
    assert [item[0] for item in removed] == [1]
    assert keys(lanes.start_all()) == ["2"]


def test_oldest_item_makes_room_and_its_key_goes_on() -> None:
    lanes = Lanes(capacity=3)
    for customer in "aab":
        lanes.offer(customer)
    assert lanes.offer("c") == FULL
    oldest, _ = lanes.mailbox.displace("input")
    assert oldest is not None
    assert oldest[0] == 1
    lanes.offer("c")
    assert sorted(keys(lanes.start_all())) == ["2", "3", "5"]


def test_exchange_hands_out_the_next_of_the_key_when_nothing_else_is_pending() -> None:
    lanes = Lanes()
    lanes.offer("a")
    lanes.offer("a")
    first = lanes.start()
    assert first is not None
    second = lanes.mailbox.exchange(first, NOW)
    assert second is not None
    assert (second.key, second.lane, lanes.mailbox.running) == ("2", "a", 1)
    assert lanes.mailbox.exchange(second, NOW) is None
    lanes.mailbox.finish(second, NOW)
    assert (lanes.mailbox.running, lanes.mailbox.activations) == (0, 2)
    assert lanes.mailbox.slots["input"].length == 0


def test_joins_by_the_same_key_go_in_lanes() -> None:
    lanes = Lanes(policy=all_slots_ready_policy(by="customer"), slots=("order", "payment"))
    for slot in ("order", "order", "payment", "payment"):
        lanes.offer("a", slot)
    lanes.offer("b", "order")
    lanes.offer("b", "payment")
    first = lanes.start_all()
    assert keys(first) == ["1-3", "5-6"]
    lanes.mailbox.finish(first[0], NOW)
    assert keys(lanes.start_all()) == ["2-4"]


def test_snapshot_has_what_waits_in_lanes_and_a_restored_retry_holds_back_its_key_again() -> None:
    lanes = Lanes()
    for customer in "aab":
        lanes.offer(customer)
    retried = lanes.start()
    assert retried is not None
    lanes.mailbox.stall(retried, retry=True)
    items, again, _ = lanes.mailbox.snapshot()
    assert ([item[0] for item in items], again) == ([2, 3], [retried])
    copy = Lanes()
    restored = copy.mailbox.restore_stalled(retried.batch, retried.job, 2, NOW)
    for item in items:
        copy.mailbox.restore(item)
    assert keys(copy.start_all()) == ["3"]
    copy.mailbox.go_on(restored)
    assert copy.start_all() == [restored]
    copy.mailbox.finish(restored, NOW)
    assert keys(copy.start_all()) == ["2"]


def test_key_that_fills_the_slot_is_known() -> None:
    lanes = Lanes()
    assert lanes.mailbox.crowd() is None
    for customer in "abaab":
        lanes.offer(customer)
    assert lanes.mailbox.crowd() == ("a", 2)


@pytest.mark.parametrize("payload", [{"other": 1}, {"customer": []}])
def test_payload_without_a_key_is_refused_before_anything_changes(payload: dict[str, Any]) -> None:
    lanes = Lanes()
    with pytest.raises(InvalidValueError, match="payload key 'customer'"):
        lanes.mailbox.offer(lanes.item(payload))
    assert lanes.mailbox.slots["input"].length == 0
    assert lanes.start_all() == []
