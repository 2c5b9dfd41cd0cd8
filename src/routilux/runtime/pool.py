"""The shared pool: as many threads run as were asked for, and a fair queue of workers in front of them.

Guarantees
    * Workers take turns: a worker is in the queue at most once, so one with a thousand ready routines delays
      another by no more than one quantum per thread.
    * No wake-up is lost: a thread announces that it is idle before it looks for work a last time.
    * At most one thread is being woken at a time. The one that wakes looks whether there is work for another. So
      short logic, which never lets go of the interpreter, wakes hardly any thread, and blocking logic, which does,
      wakes the next thread at once.
    * A thread that waits inside logic lends its seat: a spare thread works meanwhile, and the waiting one goes on when
      a seat is free. So ``size`` threads run, however many wait, and none waits on top of another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, Thread, current_thread, get_ident
from typing import TYPE_CHECKING, Any

from routilux.kernel.locks import take_contended
from routilux.runtime.attendant import OnFault

if TYPE_CHECKING:
    from routilux.kernel.locks import Lock as KernelLock
    from routilux.kernel.mailbox import Mailbox


class RunQueue:
    """The ready routines of one worker, and how many of its activations may run at once.

    ``limit`` is 1 for a sequential worker and None for no limit. While it is ``held`` nothing is handed out: it is
    ``paused``, or a cut is made. Neither of them ends the other.

    Asynchronous logic that waits for room cannot help itself: it lends its place to what makes room, also
    while the queue is held, for it has to end before the worker is at rest.
    """

    __slots__ = (
        "_cuts",
        "_lock",
        "held",
        "in_flight",
        "lent",
        "limit",
        "listed",
        "paused",
        "ready",
        "wanted",
        "worker",
    )

    def __init__(self, worker: Any, limit: int | None, lock: KernelLock) -> None:
        self.worker = worker
        self.limit = limit
        self.ready: deque[Mailbox] = deque()
        self.in_flight = 0
        self.lent = 0
        self.wanted = 0  # lent places whose activations are about to go on: nothing starts in them any more
        self.held = False
        self.paused = False
        self._cuts = 0
        self.listed = False  # waits in the pool's queue, or is about to
        self._lock = lock

    def push(self, mailbox: Mailbox) -> bool:
        """Add a ready routine; True: the caller lists this queue in the pool."""
        if not self._lock.acquire(False):
            take_contended(self._lock)
        try:
            self.ready.append(mailbox)
            return self._list()
        finally:
            self._lock.release()

    def push_again(self, mailbox: Mailbox) -> None:
        """:meth:`push` was interrupted, or what follows it: the caller lists this queue, perhaps once more.

        A routine that is ready twice, and a queue that is listed twice, only make a thread look in vain.
        """
        with self._lock:
            if mailbox not in self.ready:
                self.ready.append(mailbox)
            self.listed = True

    def take(self) -> tuple[Mailbox | None, bool]:
        """The routine whose turn it is, and whether to list this queue again for another thread."""
        if not self._lock.acquire(False):
            take_contended(self._lock)
        try:
            self.listed = False
            if not self.ready or self._shut():
                return None, False
            self.in_flight += 1
            return self.ready.popleft(), self._list()
        finally:
            self._lock.release()

    def follow(self) -> Mailbox | None:
        """The next routine for a thread that has one of this worker in hand already; None: it leaves."""
        if not self._lock.acquire(False):
            take_contended(self._lock)
        try:
            if not self.ready or self._closed:
                return None
            return self.ready.popleft()
        finally:
            self._lock.release()

    def enter(self) -> bool:
        """Begin an activation that did not come through :meth:`take`; False while held."""
        with self._lock:
            if self._closed:
                return False
            self.in_flight += 1
            return True

    def lend(self) -> bool:
        """An activation waits for room; True: the caller lists this queue in the pool."""
        with self._lock:
            self.lent += 1
            return self._list()

    def give_back(self) -> bool:
        """A waiting activation goes on; False if its place is taken."""
        with self._lock:
            if self.at_limit:
                return False
            self.lent -= 1
            return True

    def want(self) -> None:
        """There is room for a waiting activation: it goes on before anything else starts in its place."""
        with self._lock:
            self.wanted += 1

    def want_no_more(self) -> bool:
        """It goes on, or another has taken the room; True: the caller lists the queue in the pool."""
        with self._lock:
            self.wanted -= 1
            return self._list()

    def take_back(self) -> None:
        """A waiting activation goes on, whatever is in its place."""
        with self._lock:
            self.lent -= 1

    @property
    def at_limit(self) -> bool:
        """Whether no more may start, apart from what is already in hand."""
        return self.limit is not None and self.in_flight - self.lent >= self.limit

    def leave(self) -> bool:
        """A turn has ended; True: the caller lists this queue in the pool."""
        if not self._lock.acquire(False):
            take_contended(self._lock)
        try:
            self.in_flight -= 1
            return self._list()
        finally:
            self._lock.release()

    def hold(self) -> None:
        with self._lock:
            self.held = self.paused = True

    def resume(self) -> list[Mailbox]:
        """Go on; the routines that became ready meanwhile, to be queued again."""
        with self._lock:
            self.paused = False
            return self._go_on()

    def begin_cut(self) -> None:
        with self._lock:
            self._cuts += 1
            self.held = True

    def end_cut(self) -> list[Mailbox]:
        """As :meth:`resume`."""
        with self._lock:
            self._cuts -= 1
            return self._go_on()

    def _go_on(self) -> list[Mailbox]:
        if self.paused or self._cuts:
            return []
        self.held = False
        ready = [*self.ready]
        self.ready.clear()
        return ready

    def _list(self) -> bool:
        if self.listed or not self.ready or self._shut():
            return False
        self.listed = True
        return True

    @property
    def _closed(self) -> bool:
        """Whether it is held, and none who waits for room needs what is ready."""
        return self.held and self.lent <= self.wanted

    def _shut(self) -> bool:
        if self._closed:
            return True
        return self.limit is not None and self.in_flight - self.lent + self.wanted >= self.limit


class Place:
    """The place of an activation that waits for room: what makes room may run in it meanwhile."""

    __slots__ = ("lent", "queue", "wanted")

    def __init__(self, queue: RunQueue) -> None:
        self.queue = queue
        self.lent = False
        self.wanted = False

    def lend(self) -> bool:
        """True: the caller lists the queue in the pool."""
        if self.lent:
            return False
        self.lent = True
        return self.queue.lend()

    def want(self) -> None:
        """There is room. Called by the thread that made it."""
        if self.lent and not self.wanted:
            self.wanted = True
            self.queue.want()

    def want_no_more(self) -> bool:
        """True: the caller lists the queue in the pool."""
        if not self.wanted:
            return False
        self.wanted = False
        return self.queue.want_no_more()

    def given_back(self) -> bool:
        """Whether the activation has its place again; False while another one runs in it."""
        if self.lent and self.queue.give_back():
            self.lent = False
        return not self.lent

    def take_back(self) -> None:
        """Have it back, whatever runs in it."""
        if self.lent:
            self.lent = False
            self.queue.take_back()


class Seat:
    """What a thread runs right now."""

    __slots__ = ("activation",)

    def __init__(self) -> None:
        self.activation: Any = None


class ThreadPool:
    """``run(queue, mailbox, seat)`` is called on the threads for one turn of a routine."""

    def __init__(self, size: int, run: Callable[[RunQueue, Mailbox, Seat], None], on_fault: OnFault) -> None:
        self.size = size
        self._on_fault = on_fault
        self.seats: dict[int, Seat] = {}
        self._run = run
        self._queue: deque[RunQueue] = deque()
        self._idle: list[Any] = []  # the lock that each idle thread sleeps on
        self._spare: list[Any] = []  # the same, of threads that have no seat
        self._returning: deque[Any] = (
            deque()
        )  # the same, of threads that have waited and go on with the next seat
        self._free = 0  # lent seats that no thread has taken
        self._lock = Lock()
        self._waking = False
        self._closing = False
        self._threads: set[Thread] = set()

    def start(self) -> None:
        """Start the threads, once."""
        with self._lock:
            if self._threads or self._closing:
                return
            for n in range(1, self.size + 1):
                self._start_thread(n)

    def submit(self, queue: RunQueue) -> None:
        self._queue.append(queue)
        if self._idle:
            if not self._waking:
                self._wake_one()
        elif self._free:
            self._seat_spare()

    def close(self) -> None:
        """End each thread as soon as it has nothing in hand; what is queued stays queued."""
        with self._lock:
            self._closing = True
            sleepers = [*self._idle, *self._spare, *self._returning]
            self._idle, self._spare = [], []
            self._returning.clear()
        for sleeper in sleepers:
            sleeper.release()

    def leave_behind(self) -> None:
        """Called in a forked child: the thread that has forked ends with what it does."""
        self._closing = True

    def join(self, deadline: float | None, clock: Callable[[], float]) -> list[Thread]:
        """Wait for the threads; those that still run at the deadline."""
        threads = [thread for thread in list(self._threads) if thread.ident != get_ident()]
        for thread in threads:
            thread.join(None if deadline is None else max(0.0, deadline - clock()))
        return [thread for thread in threads if thread.is_alive()]

    # -- lending a seat ----------------------------------------------------------------------------------------

    @contextmanager
    def away(self) -> Iterator[None]:
        """Around a wait on a thread of the pool: another has its seat. No matter on any other thread."""
        if get_ident() not in self.seats:
            yield
            return
        self._lend_seat()
        try:
            yield
        finally:
            self._have_seat()

    def _lend_seat(self) -> None:
        with self._lock:
            if not self._returning:
                self._free += 1
                sleeper = None
            else:
                sleeper = self._returning.popleft()
        if sleeper is not None:
            sleeper.release()
        elif self._queue:
            self._seat_spare()

    def _have_seat(self) -> None:
        """Return when this thread has a seat: a free one, that of an idle thread, or the next that becomes free."""
        with self._lock:
            if self._closing:
                return
            if self._free:
                self._free -= 1
                return
            if self._idle:
                self._spare.append(self._idle.pop())
                return
            sleeper = Lock()
            sleeper.acquire()
            self._returning.append(sleeper)
        sleeper.acquire()

    def _seat_spare(self) -> None:
        """There is work and a free seat."""
        with self._lock:
            if not self._free or self._closing:
                return
            self._free -= 1
            if self._spare:
                self._spare.pop().release()
            else:
                self._start_thread(len(self._threads) + 1)

    def _give_seat(self, sleeper: Any) -> bool:
        """Let a thread that has waited have this one's seat; False: this one is not needed any more."""
        with self._lock:
            if not self._returning or self._closing:
                return True
            returning = self._returning.popleft()
            stays = len(self._spare) < self.size
            if stays:
                self._spare.append(sleeper)
        returning.release()
        if stays:
            sleeper.acquire()
        return stays

    # -- working -----------------------------------------------------------------------------------------------

    def _start_thread(self, n: int) -> None:
        """Under the lock, so that a join finds none that has not started."""
        thread = Thread(target=self._work, name=f"routilux-{n}", daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except BaseException:  # a Ctrl-C, perhaps before it is started
            self._threads.discard(thread)
            raise

    def _wake_one(self) -> None:
        if not self._lock.acquire(False):
            take_contended(self._lock)
        try:
            if self._waking or not self._idle:
                return
            self._waking = True
            sleeper = self._idle.pop()
        finally:
            self._lock.release()
        sleeper.release()

    def _work(self) -> None:
        self._threads.add(current_thread())  # a Ctrl-C may have come when it had just been started
        seat = self.seats[get_ident()] = Seat()
        sleeper = Lock()
        sleeper.acquire()
        while not self._closing:
            if self._returning and not self._give_seat(sleeper):
                break
            try:
                queue = self._queue.popleft()
            except IndexError:
                self._sleep(sleeper)
                continue
            mailbox, again = queue.take()
            if again:
                self._queue.append(queue)
            if self._queue:
                if self._idle:
                    if not self._waking:
                        self._wake_one()
                elif self._free:
                    self._seat_spare()
            if mailbox is not None:
                try:
                    self._run(queue, mailbox, seat)
                except BaseException as error:  # noqa: BLE001 the thread goes on, whatever this is
                    self._on_fault("a thread of the pool", error, "it goes on")
        self.seats.pop(get_ident(), None)
        self._threads.discard(current_thread())

    def _sleep(self, sleeper: Any) -> None:
        with self._lock:
            if self._closing or self._returning:
                return
            self._idle.append(sleeper)
            if self._queue:  # it came between the last look and the announcement
                self._idle.pop()
                return
        sleeper.acquire()
        self._waking = False
