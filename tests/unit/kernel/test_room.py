"""FULL is a promise: the very call that makes room reports the slot, whatever kind of slot it is."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any

import pytest

from routilux.activation_policies import all_slots_ready_policy, custom_policy
from routilux.kernel.account import JobAccount
from routilux.kernel.activation import Activation
from routilux.kernel.gathering import Decide, gathering_for
from routilux.kernel.mailbox import FULL, Mailbox, SlotQueue
from routilux.model.item import Item
from routilux.model.policy import ActivationPolicy


def mailbox_of(
    capacity: int, policy: ActivationPolicy | None = None, concurrency: int = 1, resume_length: int = 0
) -> Mailbox:
    slot = SlotQueue("s", capacity, resume_length, "block")
    gathering = None if policy is None else gathering_for(policy, ["s"])
    return Mailbox("r", [slot], gathering=gathering, concurrency=concurrency, lock=Lock())


def item(number: int) -> Item:
    account = JobAccount(Lock(), flush_first=False)
    account.active = 1
    return (number, "s", {}, account, "post", 0.0)


def filled(mailbox: Mailbox) -> Mailbox:
    """Full, and a caller has been told so."""
    slot = mailbox.slots["s"]
    for number in range(slot.capacity - slot.length):
        assert mailbox.offer(item(number)) != FULL
    assert mailbox.offer(item(100)) == FULL
    assert mailbox.freed == ()
    return mailbox


def started(mailbox: Mailbox) -> Activation:
    activation = mailbox.next(0.0)
    assert isinstance(activation, Activation)
    return activation


def starts_one(mailbox: Mailbox) -> None:
    started(mailbox)


def follows(mailbox: Mailbox, activation: Activation) -> Activation:
    """The one that a run goes on with."""
    following = mailbox.follow(activation, 0.0)
    assert following is not None
    return following


def displaces(mailbox: Mailbox) -> None:
    assert mailbox.displace("s")[0] is not None


def extracts(mailbox: Mailbox) -> None:
    assert mailbox.extract(lambda item: item[0] == 1)[0]


def screens(mailbox: Mailbox) -> None:
    from routilux.model.status import JobStatus

    head = mailbox.pending[0][0]
    head[3].end(JobStatus.CANCELLED)
    mailbox.next(0.0)


def gives_a_place(mailbox: Mailbox) -> None:
    mailbox.give_place("s")


ROOM = [starts_one, displaces, extracts, screens, gives_a_place]


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("make_room", ROOM)
def test_call_that_makes_room_reports_the_slot_to_who_was_refused(
    make_room: Callable[[Mailbox], None], concurrency: int
) -> None:
    """Between capacity and resume length, too, and without anything that feeds the slot."""
    mailbox = filled(mailbox_of(5, concurrency=concurrency))
    make_room(mailbox)
    assert mailbox.take_freed() == (mailbox.slots["s"],)
    assert mailbox.slots["s"].full, "a start waits for the resume length"
    assert mailbox.offer(item(101)) != FULL
    assert mailbox.offer(item(102)) == FULL


@pytest.mark.parametrize("make_room", ROOM)
def test_nothing_is_reported_where_no_caller_was_refused(make_room: Callable[[Mailbox], None]) -> None:
    mailbox = mailbox_of(5)
    for number in range(5):
        mailbox.offer(item(number))
    make_room(mailbox)
    assert mailbox.freed == ()


def test_run_reports_each_place_that_it_frees_for_who_was_refused() -> None:
    mailbox = filled(mailbox_of(5))
    activation = started(mailbox)
    assert mailbox.take_freed()
    for number in range(101, 105):
        assert mailbox.offer(item(number)) != FULL
        assert mailbox.offer(item(200)) == FULL
        activation = follows(mailbox, activation)
        assert mailbox.take_freed() == (mailbox.slots["s"],)


def test_slot_that_is_full_has_an_exact_length_while_a_run_takes_from_it() -> None:
    mailbox = mailbox_of(4)
    slot = mailbox.slots["s"]
    for number in range(4):
        mailbox.offer(item(number))
    activation = started(mailbox)
    for left in (2, 1, 0):
        activation = follows(mailbox, activation)
        assert slot.length == left or not slot.full


def test_slot_is_not_called_full_for_items_that_a_run_has_started() -> None:
    mailbox = mailbox_of(4)
    slot = mailbox.slots["s"]
    for number in range(3):
        mailbox.offer(item(number))
    follows(mailbox, follows(mailbox, started(mailbox)))
    for number in range(3, 6):
        mailbox.offer(item(number))
        assert not slot.full
    mailbox.offer(item(6))
    assert (slot.length, slot.full) == (4, True)


def test_place_is_refused_and_reported_like_an_item() -> None:
    mailbox = mailbox_of(1)
    assert mailbox.keep_place("s")
    assert not mailbox.keep_place("s")
    mailbox.give_place("s")
    assert mailbox.take_freed() == (mailbox.slots["s"],)


def test_place_is_kept_until_its_item_comes_or_does_not() -> None:
    mailbox = mailbox_of(2)
    slot = mailbox.slots["s"]
    assert mailbox.keep_place("s")
    assert mailbox.keep_place("s")
    assert (slot.length, slot.kept) == (2, 2)
    mailbox.take_in(item(0))
    assert (slot.length, slot.kept) == (2, 1)
    mailbox.give_place("s")
    assert (slot.length, slot.kept) == (1, 0)
    mailbox.keep_place("s")
    mailbox.displace("s", keep_place=True)
    assert (slot.length, slot.kept) == (2, 2)
    mailbox.hold_kept(item(1))
    assert (slot.length, slot.kept) == (2, 1)


def test_gate_that_finds_no_place_hears_of_the_next() -> None:
    mailbox = mailbox_of(1)
    mailbox.offer(item(0))
    assert not mailbox.hold(item(1))
    starts_one(mailbox)
    assert mailbox.take_freed() == (mailbox.slots["s"],)


def test_who_is_refused_because_more_waits_elsewhere_hears_when_nothing_does() -> None:
    mailbox = mailbox_of(3)
    mailbox.set_beyond("s", True)
    assert not mailbox.keep_place("s")
    assert mailbox.take_freed() == ()
    assert mailbox.set_beyond("s", False) == (mailbox.slots["s"],)
    assert mailbox.keep_place("s")


def test_policy_that_takes_items_or_fails_reports_the_room() -> None:
    def takes_one(slots: Any, state: Any) -> Any:
        return True

    mailbox = filled(mailbox_of(2, custom_policy(takes_one)))
    asked = mailbox.next(0.0)
    assert isinstance(asked, Decide)
    assert mailbox.claim_oldest(asked, 0.0) is not None
    assert mailbox.take_freed() == (mailbox.slots["s"],)


def test_set_that_is_taken_reports_the_room_of_each_of_its_slots() -> None:
    slots = [SlotQueue(name, 1, 0, "block") for name in "st"]
    policy = all_slots_ready_policy()
    mailbox = Mailbox("r", slots, gathering=gathering_for(policy, ["s", "t"]), concurrency=1, lock=Lock())
    for number, slot in enumerate("stst"):
        code = mailbox.offer((number, slot, {}, item(0)[3], "post", 0.0))
        assert (code == FULL) == (number > 1)
    starts_one(mailbox)
    assert mailbox.take_freed() == tuple(slots)
