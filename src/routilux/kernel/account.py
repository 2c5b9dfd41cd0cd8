"""Exact accounting of jobs: how many items and activations of a job can still move.

Guarantees
    * A count moves before an item becomes visible and after an activation has ended, so "finished" is a
      fact at the moment it is reported and never a guess.
    * ``active`` may be higher than the truth for a moment, never lower; the last move reports the end.
    * Exactly one call reports the end of a job.

An account's lock is a leaf: no other lock is ever taken under it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

from routilux.kernel.locks import Lock, take_contended
from routilux.model.status import JobStatus

NONE: tuple[JobAccount, ...] = ()


class JobAccount:
    """What one job still has to do.

    ``active`` counts items that can move on their own (queued where a policy would take them, held back by a
    pause, in a timer or a retry) and running activations. ``parked`` counts items that wait in a slot until
    an item of another job releases them; they do not hold the job open.
    """

    # Defaults live on the class: an account is made for every post. ``halted`` is in the instance, where every hop
    # reads it in a fraction of the time.
    flush_first = False  # report quiet first, so that partial batches are released before the end
    active = 0
    parked = 0
    posts = 1  # accepted or on their way; the one that makes the job counts from the start, and 0: none was accepted
    named = False  # by its owner, who may post more of it after it has completed
    begun = False  # its first activation has begun, whatever has become of it since
    status = JobStatus.PENDING
    pause_asked = False
    waits = 0  # activations that wait for room in a slot
    paused = (
        False  # nothing of it may start: a pause was asked for, and none of its activations waits for room
    )
    ended = False  # failed or cancelled: nothing of it may start or be queued any more

    def __init__(
        self, lock: Lock, job: Any = None, *, context: Any = None, flush_first: bool = False
    ) -> None:
        self._lock = lock
        self.job = job  # whose account this is: opaque to the kernel
        self.context = context  # that activations of the job run in copies of: opaque to the kernel
        self.halted = False  # paused or ended: the one flag that the hot path reads
        if flush_first:
            self.flush_first = True

    @property
    def members(self) -> tuple[JobAccount, ...]:
        return (self,)

    def add(self, n: int = 1) -> None:
        if not self._lock.acquire(False):
            take_contended(self._lock)
        try:
            self.active += n
        finally:
            self._lock.release()

    def remove(self, n: int = 1) -> tuple[JobAccount, ...]:
        """Take ``n`` ended items or activations off; return the account if that was the last of the job."""
        if not self._lock.acquire(False):
            take_contended(self._lock)
        try:
            self.active -= n
            if self.active:
                return NONE
            return self._quiet()
        finally:
            self._lock.release()

    def park(self) -> tuple[JobAccount, ...]:
        """An active item now waits for others; return the account if nothing else of the job can move."""
        if not self._lock.acquire(False):
            take_contended(self._lock)
        try:
            self.parked += 1
            self.active -= 1
            if self.active:
                return NONE
            return self._quiet()
        finally:
            self._lock.release()

    def unpark(self, n: int = 1) -> None:
        if not self._lock.acquire(False):
            take_contended(self._lock)
        try:
            self.parked -= n
            self.active += n
        finally:
            self._lock.release()

    def start(self) -> bool:
        """Mark the job as running; True for the first call only."""
        if not self._lock.acquire(False):
            take_contended(self._lock)
        try:
            if self.status is not JobStatus.PENDING:
                return False
            self.status = JobStatus.RUNNING
            self.begun = True
            return True
        finally:
            self._lock.release()

    def end(self, status: JobStatus) -> bool:
        """Fail or cancel the job; False if it has ended already. From here on nothing of it may start."""
        with self._lock:
            if self.status.finished:
                return False
            self._end(status)
            return True

    def join(self) -> bool:
        """One more post is on its way, with the credit of its item; False if the job has failed, was cancelled or
        refused."""
        with self._lock:
            if self.ended:
                return False
            self.posts += 1
            self.active += 1
            return True

    def refuse(self) -> bool:
        """A post was refused, whose credit the caller removes next. True: no other was accepted or is on its way, and
        the job, which no caller was given, ends with it."""
        with self._lock:
            if self.status.finished:
                return False
            self.posts -= 1
            if not self.posts:
                self._end(JobStatus.CANCELLED)
            return not self.posts

    def settle(self) -> tuple[JobAccount, ...]:
        """Give back the credit that :meth:`remove` kept while partial batches were being released."""
        with self._lock:
            self.active -= 1
            if self.active or self.status.finished:
                return NONE
            self._complete()
            return (self,)

    def pause(self, asked: bool) -> None:
        with self._lock:
            self.pause_asked = asked and not self.status.finished
            self._obey()

    def begin_wait(self) -> bool:
        """An activation waits for room. It has to end before the job is at rest, so what makes room may start,
        a pause or not. True: something may have been kept back."""
        with self._lock:
            kept_back = self.paused
            self.waits += 1
            self._obey()
            return kept_back

    def end_wait(self) -> None:
        with self._lock:
            self.waits -= 1
            self._obey()

    def _end(self, status: JobStatus) -> None:
        self.status = status
        self.ended, self.pause_asked = True, False  # what it shares with others is not held back by it
        self._obey()

    def _obey(self) -> None:
        self.paused = self.pause_asked and not self.waits
        self.halted = self.paused or self.ended

    def _quiet(self) -> tuple[JobAccount, ...]:
        if self.status.finished:
            return NONE
        if self.flush_first:
            self.active = 1  # kept until settle(): no caller can see the job at rest meanwhile
        else:
            self._complete()
        return (self,)

    def _complete(self) -> None:
        """It has come to rest. A job that has ended cannot be resumed, so what is parked of it is not held back."""
        self.status = JobStatus.COMPLETED
        if self.pause_asked:
            self.pause_asked = False
            self._obey()


class SharedAccount:
    """The accounts of several jobs whose items one activation took; moves all of them together."""

    __slots__ = ("members",)

    def __init__(self, members: tuple[JobAccount, ...]) -> None:
        self.members = members

    @property
    def context(self) -> Any:
        """Of the job that is still open and whose item is the oldest."""
        return next((m.context for m in self.members if not m.status.finished), self.members[0].context)

    @property
    def ended(self) -> bool:
        return all(member.ended for member in self.members)

    @property
    def paused(self) -> bool:
        return any(member.paused for member in self.members)

    @property
    def halted(self) -> bool:
        return self.paused or self.ended

    @property
    def status(self) -> JobStatus:
        """PENDING as long as one member has not started, so that the start of each is noticed."""
        pending = any(member.status is JobStatus.PENDING for member in self.members)
        return JobStatus.PENDING if pending else JobStatus.RUNNING

    def add(self, n: int = 1) -> None:
        for member in self.members:
            member.add(n)

    def remove(self, n: int = 1) -> tuple[JobAccount, ...]:
        return tuple(ended for member in self.members for ended in member.remove(n))

    def park(self) -> tuple[JobAccount, ...]:
        return tuple(ended for member in self.members for ended in member.park())

    def unpark(self, n: int = 1) -> None:
        for member in self.members:
            member.unpark(n)


Account: TypeAlias = JobAccount | SharedAccount


def joined(accounts: Iterable[Account]) -> Account:
    """One account for all jobs of these: itself if it is one job, in the order of first appearance."""
    accounts = list(accounts)
    first = accounts[0]
    if all(account is first for account in accounts):
        return first
    members = tuple(dict.fromkeys(member for account in accounts for member in account.members))
    return members[0] if len(members) == 1 else SharedAccount(members)
