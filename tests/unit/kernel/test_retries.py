"""Activations that are to run again: their order, and what they cost where there are many."""

from __future__ import annotations

import sys
from threading import Lock
from typing import Any

import pytest

from routilux.kernel.account import JobAccount
from routilux.kernel.activation import Activation
from routilux.kernel.mailbox import READY, Mailbox, SlotQueue
from routilux.model.item import Item

MANY = 3_000


def mailbox_of(concurrency: int) -> Mailbox:
    slot = SlotQueue("input", 2 * MANY, 1, "error")
    return Mailbox("only", [slot], gathering=None, concurrency=concurrency, lock=Lock())


def item(number: int, account: JobAccount) -> Item:
    account.add()
    return number, "input", {}, account, "post", 0.0


def with_due_retries(account: JobAccount) -> tuple[Mailbox, list[Any]]:
    mailbox = mailbox_of(MANY)
    activations: list[Any] = []
    for number in range(MANY):
        mailbox.offer(item(number, account))
        activations.append(mailbox.next(0.0))
    for activation in activations:
        mailbox.stall(activation, retry=True)
    for activation in activations:
        mailbox.go_on(activation)
    return mailbox, activations


def test_more_due_retries_of_a_paused_job_than_the_stack_is_deep_wait_until_it_is_resumed() -> None:
    account = JobAccount(Lock())
    mailbox, activations = with_due_retries(account)
    assert sys.getrecursionlimit() < MANY
    account.pause(True)
    assert mailbox.next(0.0) is None
    account.pause(False)
    assert mailbox.release_held() == (True, ())
    assert [mailbox.next(0.0) for _ in activations] == activations


class Counted(Activation):
    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return self is other

    __hash__ = object.__hash__


@pytest.mark.parametrize("resumed", [True, False], ids=["resumed", "withdrawn"])
def test_no_activation_is_compared_with_all_others(resumed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counted, "compared", 0)
    account = JobAccount(Lock())
    mailbox = mailbox_of(MANY)
    mailbox.make = Counted
    for number in range(MANY):
        mailbox.offer(item(number, account))
    activations = [mailbox.next(0.0) for _ in range(MANY)]
    account.pause(True)
    for activation in activations:
        assert isinstance(activation, Counted)
        mailbox.put_back(activation, over=False)
    if resumed:
        account.pause(False)
        mailbox.release_held()
    else:
        assert len(mailbox.withdraw(lambda activation: True)) == MANY
    assert Counted.compared <= MANY


def test_what_a_run_has_not_started_keeps_its_place_however_its_activations_end() -> None:
    """In front of what has come since, and counted."""
    account = JobAccount(Lock())
    mailbox = mailbox_of(1)
    for number in range(4):
        mailbox.offer(item(number, account))
    first: Any = mailbox.next(0.0)
    assert mailbox.offer(item(4, account)) != READY
    assert mailbox.finish(first, 0.0, "failed")
    assert mailbox.slots["input"].length == 4
    second: Any = mailbox.next(0.0)
    third: Any = mailbox.follow(second, 0.0)
    assert not mailbox.stall(third, retry=True)
    assert mailbox.go_on(third)
    assert mailbox.next(0.0) is third
    numbers = []
    while mailbox.finish(third, 0.0):
        third = mailbox.next(0.0)
        numbers.append(third.batch[0][0])
    assert [first.batch[0][0], second.batch[0][0], *numbers] == [0, 1, 3, 4]
    assert mailbox.slots["input"].length == 0
