"""A store that fails in every way in which a store may fail, and processes that die around it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from routilux.errors import StoreCorruptError, StoreDataError, StoreError, StoreFullError, StoreUnknownError
from routilux.ports import Changes
from routilux.store.claims import Claims
from routilux.store.memory import MemoryStore
from tests.durability.audit import Audit


class Death(BaseException):
    """The process has died here. Nothing that it still does on its way out reaches the store."""


class FrailStore(MemoryStore):
    """Keeps what it has acknowledged, over many processes. ``trouble`` is the chance that a write goes wrong.

    ``moment`` is called where a process may die, ``others`` where other threads go on while this one writes.
    """

    def __init__(self, rng: Random, audit: Audit) -> None:
        super().__init__()
        self.audit = audit
        self.trouble = 0.0
        self.dead = False
        self.moment: Callable[[str], None] = bool  # type: ignore[assignment]
        self.others: Callable[[], None] = bool  # type: ignore[assignment]
        self.spend: Callable[[float], None] = bool  # type: ignore[assignment]
        self._rng = rng
        self.full = 0  # writes that find no space, still
        self._blames = Random(str(rng.getstate()[1][:4]))
        self._blamed: set[Any] = (
            set()
        )  # rows of batches that were, wrongly: these are taken when they come again
        self._unsure = 0  # times that nobody can say what became of the last write, still
        self._written = False  # what became of it

    def rise(self) -> None:
        """Another process opens the store; nobody holds its workers any more."""
        self.dead = False
        self._claims = Claims()

    def write(self, changes: Changes) -> frozenset[int]:
        self._alive()
        self.moment("before a write")
        self.others()
        fault = self.fault()
        if fault == "full":
            raise StoreFullError("no space left")
        rows = {*changes.items, *changes.taken, *changes.entries, *changes.jobs.values(), *changes.notes}
        if fault == "refused" and rows and not rows & self._blamed and self._blames.random() < 0.3:
            fault = "unfit"
        if fault == "unfit":
            self._blamed |= rows
            raise StoreDataError("something in this cannot be written")
        if fault == "refused":
            raise StoreError("the store is busy")
        if fault == "slow":
            self.spend(self._rng.choice((0.1, 1.0, 20.0)))
        if fault == "damaged":
            raise StoreCorruptError("a row was altered")
        lost = fault == "lost" and self._rng.random() < 0.5
        taken = frozenset() if lost else super().write(changes)
        written = not lost and not taken
        if written:
            self.audit.check(changes)
            self.audit.check_counts(self._counts)
        self.moment("after a write")
        self.others()
        if fault == "lost":
            self._written, self._unsure = written, self._rng.choice((0, 0, 1, 3))
            raise StoreUnknownError("the connection was lost")
        return taken

    def settle(self) -> bool:
        self._alive()
        self.moment("before it is settled")
        if self._unsure:
            self._unsure -= 1
            raise StoreError("still no connection")
        return self._written

    def _alive(self) -> None:
        if self.dead:
            raise Death

    def fault(self) -> str:
        """What goes wrong with this write; nothing, mostly."""
        if self.full:
            self.full -= 1
            return "full"
        if self._rng.random() >= self.trouble:
            return ""
        fault = self._rng.choice(("full", "refused", "refused", "slow", "lost", "lost"))
        if fault == "full":
            self.full = self._rng.choice((0, 2, 5))
        return fault


READS = (
    "worker",
    "workers",
    "notes",
    "entries",
    "items",
    "items_of",
    "tail",
    "places",
    "job",
    "jobs",
    "letters",
    "key",
)
FAILURES = (
    "full",
    "refused",
    "unfit",
    "lost",
    "slow",
    "damaged",
)  # the reads know only "refused" and "damaged"


class FailsOnce(FrailStore):
    """Its call number ``n``, counted over all methods, fails in one way, and no other does."""

    def __init__(self, rng: Random, audit: Audit, n: int, failure: str) -> None:
        super().__init__(rng, audit)
        self.n = n
        self.failure = failure
        self.calls = 0
        self.failed_in = ""

    def is_failing(self, name: str) -> bool:
        self.calls += 1
        if self.calls == self.n:
            self.failed_in = name
        return self.calls == self.n

    def fault(self) -> str:
        return self.failure if self.is_failing("write") else ""


def _failing(name: str) -> Callable[..., Any]:
    read = getattr(MemoryStore, name)

    def call(self: FailsOnce, *args: Any, **options: Any) -> Any:
        if self.is_failing(name) and self.failure == "refused":
            raise StoreError("the store is busy")
        if self.failed_in == name and self.calls == self.n and self.failure == "damaged":
            raise StoreCorruptError("a row was altered")
        return read(self, *args, **options)

    return call


for _name in READS:
    setattr(FailsOnce, _name, _failing(_name))
