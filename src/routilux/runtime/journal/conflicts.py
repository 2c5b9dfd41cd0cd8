"""Activations that rest on a state that has changed meanwhile, and run again.

Guarantees
    * What an activation changes takes effect only if everything that it has read is still as it was. One that changes
      nothing has read what was there at the time, which is good enough.
    * Nothing of a run that does not count has left: it runs again as the same attempt.
    * The first to hand over wins, so one always gets through. Those that have lost go first, one after the other: what
      the one reads whose turn it is, no other activation changes until it has ended, or ``TURN_SECONDS`` are over.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from routilux.runtime.journal.draft import Draft
    from routilux.runtime.journal.worker import JournaledWorker

TURN_SECONDS = 10.0


class StateConflict(BaseException):
    """Ends the run of an activation at a checkpoint; no error of the user's, so it passes ``except Exception``."""


class Conflicts:
    """Of one worker. ``first`` is the activation whose turn it is; moved under the journal's lock."""

    def __init__(self, worker: JournaledWorker) -> None:
        self._worker = worker
        self.first: Any = None
        self._limit: Any = None  # the timer that ends its turn
        self._waiting: deque[Any] = deque()  # put back, until it is their turn

    def stands(self, activation: Any, draft: Draft) -> bool:
        """Whether what an activation did may take effect. The caller holds the lock."""
        if activation.in_conflict:
            return False
        if not draft.changes_state:
            return True
        first = self.first
        if first is not None and first is not activation and draft.disturbs(first.draft):
            return False
        return not draft.is_outdated()

    def run_again(self, activation: Any) -> bool:
        """Put it back until it is its turn; True: its mailbox has more, and the caller sees to it."""
        worker, mailbox = self._worker, activation.mailbox
        activation.renew()
        with worker.journal.lock:
            more: bool = mailbox.stall(activation, retry=False)
            if self.first is None:
                self.first = activation
            elif self.first is not activation:
                self._waiting.append(activation)
        if self.first is activation:
            self._limit_turn(activation)
            more = mailbox.go_on(activation) or more
        if activation.job.ended:  # it ended meanwhile
            worker.sweep()
        return more

    def over(self, activation: Any) -> None:
        """It has ended, or its turn is over: the next one goes on."""
        while activation is not None:
            with self._worker.journal.lock:
                if self.first is not activation:
                    return
                limit, self._limit = self._limit, None
                self.first = following = self._waiting.popleft() if self._waiting else None
            if limit is not None:
                limit.cancel()
            activation = None if following is None or self._begin_turn(following) else following

    def _begin_turn(self, activation: Any) -> bool:
        """False: it does not exist any more."""
        mailbox = activation.mailbox
        self._limit_turn(activation)
        there = activation in mailbox.stalled
        if mailbox.go_on(activation):
            self._worker.schedule(mailbox)
        return there

    def _limit_turn(self, activation: Any) -> None:
        """One that runs for an hour, or was paused, must not stand in the way of the others."""
        if self._limit is None:
            engine = self._worker.engine
            self._limit = engine.driver.call_at(engine.now() + TURN_SECONDS, lambda: self.over(activation))
