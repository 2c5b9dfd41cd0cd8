"""What the end of a worker leaves undone in memory, as one sentence: without it accepted work would vanish silently.

It is found in two looks: what is there when nothing is started any more, and what the end has made of it. What a store
keeps for a worker that is opened again is not lost, and neither is what its caller has cancelled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from routilux.errors import counted
from routilux.model.context import running
from routilux.model.status import JobStatus
from routilux.runtime import waiting_for

if TYPE_CHECKING:
    from routilux.kernel.account import JobAccount
    from routilux.runtime.worker import Worker

MOST_PLACES = 10  # slots or routines that a sentence names


class Remains:
    """Of workers that end now. Made when they start nothing any more; read when they have ended.

    The jobs of logic that ends its own runtime are only told of together with others: it has asked for it.
    """

    def __init__(self, workers: Iterable[Worker]) -> None:
        inside: Any = running.get()
        self._asked: frozenset[JobAccount] = frozenset(() if inside is None else inside.job.members)
        self._workers = [worker for worker in workers if worker.for_good or not worker.journaled]
        self._jobs = [job for worker in self._workers for job in worker.jobs.values()]
        self._queued: list[tuple[str, Any]] = []
        self._parked: Counter[str] = Counter()
        self._lookalikes: list[str] = []
        for worker in self._workers:
            self._look_at(worker)
        self._running = [(a.mailbox.routine_id, a.job) for worker in self._workers for a in worker.running()]

    def sentence(self) -> str:
        """What was lost; empty if nothing was."""
        cancelled = {job.account for job in self._jobs if job.status is JobStatus.CANCELLED}
        parts = []
        if cancelled - self._asked:
            parts.append(f"{counted(len(cancelled), 'open job')} cancelled{self._where(cancelled)}")
        if self._parked:
            parked = counted(self._parked.total(), "item")
            alike = "".join(f"; {text}" for text in self._lookalikes[:MOST_PLACES])
            places = _places(self._parked)
            parts.append(f"{parked} still parked, for partners that have not come: {places}{alike}")
        return "; ".join(parts)

    def _look_at(self, worker: Worker) -> None:
        for node in worker.nodes.values():
            slots = node.mailbox.slots
            parked = node.mailbox.parked_items()
            numbers = {item[0] for item in parked}
            news = [item for item in parked if item[0] not in worker.parked_shown]
            told = [item for item in news if not self._asked.issuperset(item[3].members)]
            self._parked.update(slots[item[1]].qualified_name for item in told)
            alike = waiting_for.lookalikes(node) if told else ""
            if alike:
                self._lookalikes.append(alike)
            items, activations, _ = node.mailbox.snapshot()
            items = [*items, *(item for activation in activations for item in activation.batch)]
            self._queued += [(slots[i[1]].qualified_name, i[3]) for i in items if i[0] not in numbers]

    def _where(self, cancelled: set[JobAccount]) -> str:
        """Where the items of these jobs were."""
        queued = Counter(name for name, account in self._queued if not cancelled.isdisjoint(account.members))
        ran = Counter(name for name, account in self._running if not cancelled.isdisjoint(account.members))
        found = [
            f"{what} {_places(places)}" for what, places in (("running:", ran), ("queued:", queued)) if places
        ]
        return f" ({'; '.join(found)})" if found else ""


def _places(places: Counter[str]) -> str:
    """``"ship.order 3, ship.payment 2"``."""
    named = [f"{name} {n:,}" for name, n in places.most_common(MOST_PLACES)]
    left = len(places) - MOST_PLACES
    return ", ".join([*named, f"and {left:,} more"] if left > 0 else named)
