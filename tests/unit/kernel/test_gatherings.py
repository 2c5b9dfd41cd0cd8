"""A gathering takes exactly what its policy, asked after every arrival about the whole queues, would take."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routilux.activation_policies import (
    all_slots_ready_policy,
    batch_size_policy,
    immediate_policy,
    time_interval_policy,
)
from routilux.kernel import gathering
from routilux.kernel.account import JobAccount
from routilux.kernel.gathering import gathering_for
from routilux.model.decision import Fire, SlotView, SlotViews
from routilux.model.item import Item
from routilux.model.policy import ActivationPolicy

SLOTS = ("a", "b", "c")
POLICIES: list[ActivationPolicy] = [
    all_slots_ready_policy(),
    all_slots_ready_policy(by="job"),
    all_slots_ready_policy(by="key"),
    batch_size_policy(1),
    batch_size_policy(2),
    batch_size_policy(3),
    batch_size_policy(2, flush=False),
]
TIMED: list[ActivationPolicy] = [
    all_slots_ready_policy(timeout=10),
    all_slots_ready_policy(by="job", timeout=10),
    all_slots_ready_policy(by="key", timeout=10),
    batch_size_policy(2, age=10),
    batch_size_policy(2, age=10, flush=False),
]
arrivals = st.lists(st.tuples(st.sampled_from(SLOTS), st.integers(0, 3)), max_size=40)


def items_of(drawn: list[tuple[str, int]]) -> list[Item]:
    jobs = [JobAccount(Lock()) for _ in range(4)]
    for job in jobs:
        job.active = len(drawn)
    return [
        (number, slot, {"key": which}, jobs[which], "post", float(number))
        for number, (slot, which) in enumerate(drawn, 1)
    ]


def by_the_rule(
    policy: ActivationPolicy, items: list[Item], flushing: bool, later: float = 0.0
) -> list[set[int]]:
    queues: dict[str, list[Item]] = {slot: [] for slot in SLOTS}
    taken = []
    for item in items:
        queues[item[1]].append(item)
        taken += _fired(policy, queues, flushing=False)
    if later:
        taken += _fired(policy, queues, flushing=False, now=later)
    return taken + (_fired(policy, queues, flushing=True) if flushing else [])


def _fired(
    policy: ActivationPolicy, queues: dict[str, list[Item]], *, flushing: bool, now: float = 0.0
) -> list[set[int]]:
    taken = []
    while True:
        views = {slot: SlotView(slot, tuple(queue)) for slot, queue in queues.items()}
        decision = policy(SlotViews(views, now=now, last_fired=None, flushing=flushing), None)
        if not isinstance(decision, Fire):
            return taken
        batch = set()
        for slot, wanted in decision.take.items():
            positions = range(wanted) if isinstance(wanted, int) else wanted
            batch |= {queues[slot][position][0] for position in positions}
            queues[slot] = [item for item in queues[slot] if item[0] not in batch]
        taken.append(batch)


def by_the_gathering(
    policy: ActivationPolicy, items: list[Item], flushing: bool, later: float = 0.0
) -> list[set[int]]:
    gathered = gathering_for(policy, SLOTS)
    assert gathered is not None
    pending: deque[Any] = deque()
    for item in items:
        if gathered.add(item, pending):
            item[3].park()
    taken = _taken(pending)
    while later and gathered.waiting and gathered.release(later, pending) is None:
        taken += _taken(pending)  # a mailbox asks when nothing is pending
    while flushing and gathered.flush(0.0, pending):
        pass
    return taken + _taken(pending)


def _taken(pending: deque[Any]) -> list[set[int]]:
    taken = [{item[0] for item in batch} for batch in pending]
    pending.clear()
    return taken


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@pytest.mark.parametrize("flushing", [False, True])
@given(drawn=arrivals)
def test_a_gathering_obeys_its_rule(
    policy: ActivationPolicy, flushing: bool, drawn: list[tuple[str, int]]
) -> None:
    items = items_of(drawn)
    assert by_the_gathering(policy, items, flushing) == by_the_rule(policy, items, flushing)


@pytest.mark.parametrize("policy", TIMED, ids=repr)
@pytest.mark.parametrize("flushing", [False, True])
@given(drawn=arrivals, later=st.floats(0, 60))
def test_a_gathering_obeys_its_rule_as_time_goes_by(
    policy: ActivationPolicy, flushing: bool, drawn: list[tuple[str, int]], later: float
) -> None:
    items = items_of(drawn)
    expected = by_the_rule(policy, items, flushing, later)
    assert by_the_gathering(policy, items, flushing, later) == expected
    assert all(item[3].parked == 0 for item in items), "what a timer takes is not parked"


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@given(drawn=arrivals)
def test_what_no_rule_takes_is_parked_and_nothing_else(
    policy: ActivationPolicy, drawn: list[tuple[str, int]]
) -> None:
    items = items_of(drawn)
    taken = {number for batch in by_the_gathering(policy, items, False) for number in batch}
    for job in {item[3] for item in items}:
        left = sum(item[3] is job and item[0] not in taken for item in items)
        assert (job.parked, job.active) == (left, len(drawn) - left)


def test_every_item_is_a_batch_of_its_own_under_the_immediate_policy() -> None:
    assert gathering_for(immediate_policy(), SLOTS) is None


def test_an_interval_takes_the_first_at_once_and_the_rest_at_its_end() -> None:
    gathered = gathering_for(time_interval_policy(10.0), SLOTS)
    assert gathered is not None
    pending: deque[Any] = deque()
    first, *rest = items_of([("a", 0), ("b", 0), ("a", 1)])
    assert gathered.add(first, pending) is False
    assert (gathered.release(0.0, pending), [*pending]) == (None, [(first,)])
    pending.clear()
    for item in rest:
        gathered.add(item, pending)
    assert gathered.release(4.0, pending) == gathering.Later(10.0)
    assert (gathered.flush(5.0, pending), [*pending]) == (False, [])
    gathered.due()
    gathered.release(10.0, pending)
    assert [*pending] == [tuple(rest)]


@pytest.mark.parametrize("off_by", [-1, 1])
def test_a_set_of_another_size_would_be_seen(off_by: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made: Callable[..., Any] = gathering._Sets

    def wrong(slots: Any, size: int, flushes: bool) -> Any:
        return made(slots, size + off_by, flushes)

    monkeypatch.setattr(gathering, "_Sets", wrong)
    items = items_of([(slot, 0) for _ in range(6) for slot in SLOTS])
    policy = batch_size_policy(2)
    assert by_the_gathering(policy, items, False) != by_the_rule(policy, items, False)
