"""One run of a routine's logic on the items that its policy chose."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from routilux.kernel.account import Account
from routilux.model.item import Payload

if TYPE_CHECKING:
    from routilux.kernel.gathering import Batch
    from routilux.kernel.mailbox import Mailbox

_LONGEST_KEY = 200  # characters; a store has it in names, which an index limits


class SlotData(dict[str, list[Payload]]):
    """The payloads of an activation by slot. A declared slot that nothing was taken from gives ``[]``."""

    declared: frozenset[str] = frozenset()

    def __missing__(self, slot: str) -> list[Payload]:
        if slot in self.declared:
            return []
        raise KeyError(f"no slot {slot!r}; this routine has {sorted(self.declared)}")


@lru_cache(maxsize=1024)
def slot_data_type(declared: frozenset[str]) -> type[SlotData]:
    """The :class:`SlotData` of routines with just these slots; shared by all workers."""
    return type("SlotData", (SlotData,), {"declared": declared})


def _digest(numbers: str, count: int) -> str:
    return f"{numbers.partition('-')[0]}-and-{count - 1}-more-{blake2b(numbers.encode(), digest_size=16).hexdigest()}"


OVER = RuntimeError("the activation has ended")
"""Why an activation that has ended must not produce anything any more, say from a thread that it left behind."""


class Activation:
    """What a mailbox hands out to be run, and takes back when it has ended."""

    # What every activation reads is set in the instance: to read a default of the class takes several times as long.
    lane: Any = None  # its key, in a routine with lanes
    out = True  # its mailbox counts it as running

    def __init__(self, mailbox: Mailbox, batch: Batch, job: Account, started: float) -> None:
        self.mailbox = mailbox
        self.batch = batch
        self.job = job
        self.started = started
        self.attempt = 1
        self.message: Any = None
        self.spare = False  # the mailbox has work for one more thread, and counts on being queued for it
        self.emitted = 0
        self.merged: dict[str, Payload] | None = None  # new merged slot data, kept if the activation succeeds
        self.abandoned: BaseException | None = None  # why what it still produces is not wanted any more

    @property
    def key(self) -> str:
        """The same in every attempt: made of the worker-wide numbers of the items."""
        numbers = "-".join(str(item[0]) for item in self.batch)
        return numbers if len(numbers) <= _LONGEST_KEY else _digest(numbers, len(self.batch))
