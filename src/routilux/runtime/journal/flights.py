"""What runs, noted to find out why the process died; and that what may have killed it runs alone.

A process that dies leaves behind the notes of all that it ran, and only one of them was the cause. So an item on
which processes have died before, all but the last time that is allowed, gets a flight of its own: it waits until
nothing else runs, nothing is started beside it, and a death is then held against it alone. Neither lasts long:
an item that waits for others, or runs for an hour, must not stand in the way of everything else.

Guarantees
    * Of two that begin at the same time one sees the other: each enters itself before it looks.
    * An activation that is told to wait is let go later, in its order within its routine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from routilux.ports import ItemKey
from routilux.runtime.journal import rows

if TYPE_CHECKING:
    from routilux.ports import FlightRecorder
    from routilux.runtime.driver import Driver

ALONE_SECONDS = 10.0  # that others wait for one that runs alone, and it for them


class Flights:
    """``wake`` makes the committer call :meth:`step`. Without a recorder nothing is noted, and nothing waits."""

    def __init__(self, recorder: FlightRecorder | None, driver: Driver, wake: Callable[[], None]) -> None:
        self._recorder = recorder
        self._driver = driver
        self._wake = wake
        self._free_seats = [] if recorder is None else recorder.free_seats
        self._flying: dict[
            Any, int | None
        ] = {}  # activations, and their seats; beyond those they are not noted
        self._suspects: deque[Any] = deque()  # that wait to fly alone
        self._alone: Any = None  # the one whose turn it is
        self._until = 0.0  # when its turn is over, or it begins although others fly
        self._others: deque[Any] = deque()  # that wait until it is over

    def begin(self, activation: Any) -> bool:
        """Note that an activation begins; False: it was put back, and starts later."""
        if self._recorder is None:
            return True
        try:
            seat = self._free_seats.pop()
        except IndexError:
            seat = None
        self._flying[activation] = seat
        if self._alone is not None and activation is not self._alone:
            self._wait(activation, self._others)
            return False
        if self._alone is None and _is_suspect(activation) and not activation.tried_alone:
            self._wait(activation, self._suspects)
            return False
        if seat is not None:
            self._recorder.enter(seat, _text(activation, alone=activation is self._alone))
        return True

    def end(self, activation: Any) -> None:
        """It has ended, or was put back; may be called again."""
        seat = self._flying.pop(activation, None)
        if seat is not None and self._recorder is not None:
            self._recorder.leave(seat)
            self._free_seats.append(seat)
        if activation is self._alone:
            self._alone = None
        if self._suspects or self._others or self._alone is not None:
            self._wake()

    def step(self) -> bool:
        """Give a suspect its turn, and the others theirs; True if there was something to do. On the committer."""
        if self._alone is not None:
            return self._go_ahead(self._alone)
        if self._suspects:
            self._alone = self._suspects.popleft()
            self._limit_turn()
            return True
        did = bool(self._others)
        while self._others:
            _let_go(self._others.popleft())
        return did

    def _wait(self, activation: Any, where: deque[Any]) -> None:
        mailbox, worker = activation.mailbox, activation.node.worker
        if activation.timer is not None:
            activation.timer.cancel()
        activation.merged = None
        if mailbox.stall(activation, retry=False):
            worker.schedule(mailbox)
        where.append(activation)
        self.end(activation)
        self._wake()
        if activation.job.ended:  # it ended meanwhile
            worker.sweep()

    def _go_ahead(self, suspect: Any) -> bool:
        """Let the suspect start when nothing else flies or its wait is over, and the others when its time is."""
        over = self._driver.clock.monotonic() >= self._until
        if suspect.tried_alone:
            if over:
                self._alone = None
            return over
        if self._flying and not over:
            return False
        suspect.tried_alone = True
        self._limit_turn()
        if not _let_go(suspect):
            self._alone = None
        return True

    def _limit_turn(self) -> None:
        self._until = self._driver.clock.monotonic() + ALONE_SECONDS
        self._driver.call_at(self._until, self._wake)


def _let_go(activation: Any) -> bool:
    """False if it does not exist any more."""
    mailbox = activation.mailbox
    there = activation in mailbox.stalled
    if mailbox.go_on(activation):
        activation.node.worker.schedule(mailbox)
    return there


def _is_suspect(activation: Any) -> bool:
    worker, places = activation.node.worker, activation.node.places
    if not worker.endings.deaths:
        return False
    keys = (ItemKey(worker.worker_id, places[item[1]], item[0]) for item in activation.batch)
    return any(worker.endings.deaths.get(key, 0) >= rows.POISON_DEATHS - 1 for key in keys)


def _text(activation: Any, *, alone: bool) -> str:
    node, item = activation.node, activation.batch[0]
    return rows.flight_text(node.worker.flight_texts[node.places[item[1]]], item[0], alone=alone)
