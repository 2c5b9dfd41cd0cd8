"""A runtime without threads: the same engine, a virtual clock, and a seeded choice of what happens next.

Every lock of the engine is a place where another virtual thread may be let in, so the interleavings of real
threads become a function of the seed. A seed replays exactly. Time stands still while anything can run and jumps
to the next deadline when nothing can (or, with ``early_timers``, sometimes earlier, as on a slow machine).

A virtual thread has a stack of its own, a thread of the system of which one runs at any moment. It runs until it
ends or waits; then what it interrupted goes on. Logic that really blocks, blocks the simulation.
"""

from __future__ import annotations

import asyncio
import heapq
from _thread import allocate_lock
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import Context
from functools import partial
from itertools import count
from random import Random
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

from routilux.kernel.mailbox import Mailbox
from routilux.ports import TaskRunner
from routilux.runtime import turns
from routilux.runtime.async_loop import AsyncTasks
from routilux.runtime.attendant import OnFault
from routilux.runtime.pool import RunQueue, Seat
from routilux.runtime.runtime import Runtime
from routilux.runtime.timers import Timer
from routilux.runtime.waiting import Condition

if TYPE_CHECKING:
    from routilux.runtime.driver import Driver


class SimulationStuck(RuntimeError):
    """Something is waited for that cannot happen any more: in a real runtime this would hang."""


class VirtualClock:
    """Time that only moves when the simulation says so; starts at 0, which is shown as 2020-01-01.

    ``shown_at_zero`` may be moved at any moment: a test sets the clock on the wall.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.shown_at_zero = 1_577_836_800.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.shown_at_zero + self.now


class SimulatedLock:
    """Before the engine takes a lock and after it has let go of it, another virtual thread may be let in.

    Not while a lock is held further out: a strand that came in could need that one, and would wait for ever.
    """

    __slots__ = ("_driver", "_held")

    def __init__(self, driver: SimulatedDriver) -> None:
        self._driver = driver
        self._held = False

    def acquire(self, blocking: bool = True, /) -> bool:
        driver = self._driver
        if not driver.locks_held:
            driver.maybe_interrupt()
        if self._held:
            raise driver.broken(
                "a lock is taken while it is held: real threads would wait for each other here"
            )
        self._held = True
        driver.locks_held += 1
        return True

    def release(self) -> None:
        driver = self._driver
        self._held = False
        driver.locks_held -= 1
        if not driver.locks_held:
            driver.maybe_interrupt()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class SimulatedSignal:
    """Waiting means letting the simulation go on."""

    __slots__ = ("_driver", "_set", "holds", "on_set")

    def __init__(self, driver: SimulatedDriver) -> None:
        self._driver = driver
        self._set = False
        self.holds: Condition | None = None
        self.on_set: Callable[[], object] | None = None

    def set(self) -> None:
        if not self._set:
            self._set = True
            if self.on_set is not None:
                self.on_set()

    def is_set(self) -> bool:
        return self._set

    def wait(self, timeout: float | None, holds: Condition | None = None) -> bool:
        driver = self._driver
        self.holds = holds
        deadline = None if timeout is None else driver.clock.now + timeout
        driver.waiting.append(self)
        try:
            if driver.strand is not None:
                return driver.park(driver.strand, self, deadline)
            while not self._set:
                if not driver.step(deadline):
                    if deadline is None:
                        raise driver.stuck()
                    return False
            return True
        finally:
            driver.waiting.remove(self)


class Unwound(BaseException):
    """The simulation is over: a virtual thread that still waits ends here."""


class LoopTimer(Timer):
    """Of the event loop: it is due also while the runtime ends."""

    __slots__ = ()


class Strand:
    """A virtual thread: a thread of the system that runs only between :meth:`enter` and :meth:`leave`."""

    _unused: ClassVar[list[Strand]] = []

    def __init__(self) -> None:
        self._go, self._back = allocate_lock(), allocate_lock()
        self._go.acquire()
        self._left = True
        self.call: Callable[[], object] = bool
        self._error: BaseException | None = None
        self.overdue = False
        self.seat = Seat()
        Thread(target=self._work, name="simulated", daemon=True).start()

    @classmethod
    def new(cls, call: Callable[[], object]) -> Strand:
        strand = cls._unused.pop() if cls._unused else cls()
        strand.call = call
        strand.seat = Seat()
        return strand

    def enter(self) -> None:
        """Run until it leaves or ends; raises what it raised."""
        back = self._back = allocate_lock()
        back.acquire()
        self._left = False
        self._go.release()
        try:
            back.acquire()
        except KeyboardInterrupt:  # it goes on all the same, and two must not run at once
            if not self._left:
                back.acquire()
            raise
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error

    def leave(self) -> None:
        """Called on it: let who entered go on, until the next one enters."""
        self._let_back()
        self._go.acquire()

    def _let_back(self) -> None:
        self._left = True
        self._back.release()

    def set_overdue(self) -> None:
        self.overdue = True

    def _work(self) -> None:
        while True:
            self._go.acquire()
            try:
                Context().run(self.call)
            except Unwound:
                pass
            except BaseException as error:  # noqa: BLE001 it is raised where this was entered
                self._error = error
            self.call = bool
            self._let_back()
            self._unused.append(self)


class SimulatedDriver:
    """See the module's docstring. ``interrupts`` are calls that may come at any moment, each once."""

    def __init__(
        self,
        seed: int,
        *,
        interruption: float = 0.15,
        early_timers: float = 0.0,
        depth: int = 3,
        life: str = "",
    ) -> None:
        self.seed = seed
        self.clock = VirtualClock()
        self._life = life  # tells the ids of runtimes apart that use one store, one after the other
        self.interrupts: list[Callable[[], object]] = []
        self.steps = 0
        self.locks_held = 0
        self.on_fault: OnFault
        self.fault: BaseException | None = (
            None  # of the engine or of this: not to be taken for one of user code
        )
        self._rng = Random(seed)
        self._interruption = interruption
        self._early_timers = early_timers
        self._depth = depth
        self._queues: list[RunQueue] = []
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = count()
        self._ids = count(1)
        self._seats: list[Seat] = [Seat()]
        self._loop: _VirtualLoop | None = None
        self._tasks: AsyncTasks | None = None
        self._attendants: list[SimulatedAttendant] = []
        self._loop_strand: Strand | None = None  # the one that runs the loop
        self.strand: Strand | None = (
            None  # the virtual thread that runs; None: the one that drives the simulation
        )
        self._parked: dict[Strand, SimulatedSignal] = {}
        self.waiting: list[SimulatedSignal] = []  # what is waited for, on any stack
        self._interrupted = 0  # virtual threads that go on when the one on top has ended
        self._looking = False  # at what is waited for: nothing may change meanwhile
        self._closed = False

    # -- what the engine asks for --------------------------------------------------------------------------

    def lock(self) -> SimulatedLock:
        return SimulatedLock(self)

    def signal(self) -> SimulatedSignal:
        return SimulatedSignal(self)

    def random(self) -> float:
        return self._rng.random()

    def unique(self) -> str:
        return f"{self._life}{next(self._ids):x}_"

    @property
    def quantum(self) -> float:
        """Time stands still within a turn, so a turn is one activation long or as long as there is work."""
        return self._rng.choice((0.0, 0.0, 1.0))

    def note_fault(self, error: BaseException) -> None:
        """Raised here, and by the next step."""
        if not isinstance(error, Unwound):
            self.fault = self.fault or error
        raise error

    def may_follow(self, queue: RunQueue) -> bool:
        return True

    def start(self) -> None:
        return None

    def submit(self, queue: RunQueue) -> None:
        if not self._closed:
            self._queues.append(queue)

    def submit_async(self, mailbox: Mailbox) -> None:
        self._virtual_loop().call_soon(lambda: turns.launch(mailbox.node.worker, mailbox), context=Context())

    def async_runner(self) -> TaskRunner:
        self._virtual_loop()
        assert self._tasks is not None
        return self._tasks

    def attendant(self, name: str, step: Callable[[], bool]) -> SimulatedAttendant:
        attendant = SimulatedAttendant(self, step)
        self._attendants.append(attendant)
        return attendant

    def call_at(self, when: float, call: Callable[[], None]) -> Timer:
        timer = Timer(when, call)
        if not self._closed:
            self.set_timer(timer)
        return timer

    def set_timer(self, timer: Timer) -> None:
        heapq.heappush(self._timers, (timer.time, next(self._order), timer))

    def seat(self) -> Seat:
        return self._seats[-1]

    def away(self) -> AbstractContextManager[None]:
        return nullcontext()

    def running(self) -> list[Any]:
        seats = [*self._seats, *(strand.seat for strand in self._parked)]
        on_seats = [seat.activation for seat in seats if seat.activation is not None]
        return on_seats + (self._tasks.activations() if self._tasks is not None else [])

    def on_loop(self) -> bool:
        return self._loop_strand is not None and self._loop_strand is self.strand

    def runs_here(self, activation: Any, *, in_task: bool) -> bool:
        if self.on_loop():
            return not in_task or (self._tasks is not None and activation is self._tasks.activation_here())
        return not in_task and self.seat().activation is activation

    def leave_behind(self) -> None:
        return None

    def close(self, deadline: float | None) -> bool:
        self._closed = True
        self._queues.clear()
        self._timers = [entry for entry in self._timers if isinstance(entry[2], LoopTimer)]
        heapq.heapify(self._timers)
        while self._parked:
            with suppress(BaseException):  # what it ends with matters no more
                self._resume(next(iter(self._parked)))
        return (
            self._tasks is None or self._loop is None or self._close_loop(self._loop, self._tasks, deadline)
        )

    def _close_loop(self, loop: _VirtualLoop, tasks: AsyncTasks, deadline: float | None) -> bool:
        """Cancel what still runs there; False if it has not ended at the deadline, or cannot end."""
        if self._loop_strand is not None:  # the caller is one of them
            return False
        if not loop.is_closed():
            loop.call_soon(tasks.cancel_all)
        while tasks.activations():
            choices = self._choices()
            if choices:
                self._rng.choice(choices)()
            elif not self._jump(deadline):
                return False
        loop.close()
        return True

    def broken(self, what: str) -> AssertionError:
        """Note a fault of the engine, to be raised by the next step too."""
        fault = self.fault = AssertionError(f"seed {self.seed}: {what}")
        return fault

    def stuck(self) -> SimulationStuck:
        """Something is waited for, and nothing is left to be done."""
        self._find_lost_wake_ups()
        return SimulationStuck(f"seed {self.seed}: nothing can happen any more, but something is waited for")

    # -- what happens next ---------------------------------------------------------------------------------

    def step(self, deadline: float | None = None) -> bool:
        """Let one thing happen; False if nothing can (before the deadline)."""
        if self._closed:
            return False
        if self.fault is not None:
            raise self.fault
        self.steps += 1
        choices = self._choices()
        if choices and not (self._rng.random() < self._early_timers and self._timer_before(deadline)):
            self._rng.choice(choices)()
            return True
        return self._jump(deadline)

    def maybe_interrupt(self) -> None:
        """A lock was released: perhaps another virtual thread is faster now."""
        if (
            self._closed
            or self._looking
            or len(self._seats) > self._depth
            or self._rng.random() >= self._interruption
        ):
            return
        self._interrupted += 1
        try:
            self._interrupt()
        finally:
            self._interrupted -= 1

    def _interrupt(self) -> None:
        if self.interrupts and self._rng.random() < 0.2:
            call = self.interrupts.pop(self._rng.randrange(len(self.interrupts)))
            self.on_new_thread(call)
            return
        if self._rng.random() < self._early_timers and self._timer_before(None):
            self._jump(None)
            return
        choices = self._choices()
        if choices:
            self._rng.choice(choices)()

    def _choices(self) -> list[Callable[[], object]]:
        choices: list[Callable[[], object]] = []
        for queue in self._queues:
            for mailbox in queue.ready:
                choices.append(partial(self._turn, queue, mailbox))
        for strand, signal in self._parked.items():
            if signal.is_set() or strand.overdue:
                choices.append(partial(self._resume, strand))
        if self._loop is not None and self._loop.has_ready() and self._loop_strand is None:
            choices.append(self._run_loop)
        if self._timer_before(self.clock.now):
            choices.append(lambda: self._jump(None))
        choices += [
            attendant.work for attendant in self._attendants if attendant.woken and not attendant.at_work
        ]
        return choices

    def _turn(self, queue: RunQueue, mailbox: Mailbox) -> None:
        """A virtual thread takes this routine's turn."""
        self._queues.remove(queue)
        queue.ready.remove(mailbox)
        queue.ready.appendleft(mailbox)
        taken, again = queue.take()
        if again:
            self._queues.append(queue)
        if taken is not None:
            self.on_new_thread(lambda: turns.run(queue, taken, self._seats[-1]))

    def on_new_thread(self, call: Callable[[], object]) -> None:
        self._switch(Strand.new(call))

    def park(self, strand: Strand, signal: SimulatedSignal, deadline: float | None) -> bool:
        """A virtual thread waits; the simulation goes on without it, until the signal is set or its time is over."""
        timer = None if deadline is None else self.call_at(deadline, strand.set_overdue)
        try:
            while not signal.is_set():
                if self._closed:
                    raise Unwound
                if strand.overdue or (deadline is not None and deadline <= self.clock.now):
                    return False
                self._parked[strand] = signal
                strand.leave()
            return True
        finally:
            strand.overdue = False
            if timer is not None:
                timer.cancel()

    def _resume(self, strand: Strand) -> None:
        del self._parked[strand]
        self._switch(strand)

    def _switch(self, strand: Strand) -> None:
        """Let a virtual thread run until it ends or waits; what it raises is raised here."""
        outer, self.strand = self.strand, strand
        self._seats.append(strand.seat)
        try:
            strand.enter()
        finally:
            self._seats.pop()
            self.strand = outer

    def _jump(self, deadline: float | None) -> bool:
        """Move time to the next timer and let it fire."""
        self._find_lost_wake_ups()
        if not self._timer_before(deadline):
            if deadline is not None:
                self.clock.now = max(self.clock.now, deadline)
            return False
        when, _, timer = heapq.heappop(self._timers)
        self.clock.now = max(self.clock.now, when)
        if timer.call is not None:
            self.on_new_thread(timer.call)
        return True

    def _find_lost_wake_ups(self) -> None:
        """Where nothing is in the middle of anything, what is waited for has not come: else its signal is set."""
        if self._interrupted or self._looking:
            return
        self._looking = True
        try:
            lost = [s for s in self.waiting if not s.is_set() and s.holds is not None and s.holds()]
        finally:
            self._looking = False
        if lost:
            raise self.broken(f"{lost[0].holds} holds, and its waiter was not woken")

    def _timer_before(self, deadline: float | None) -> bool:
        """Whether there is a timer for this time or an earlier one."""
        while self._timers and self._timers[0][2].call is None:
            heapq.heappop(self._timers)
        return bool(self._timers) and (deadline is None or self._timers[0][0] <= deadline)

    # -- asynchronous logic --------------------------------------------------------------------------------

    def _virtual_loop(self) -> _VirtualLoop:
        if self._loop is None:
            self._loop = _VirtualLoop(self)
            self._tasks = AsyncTasks(self._loop)
        return self._loop

    def _run_loop(self) -> None:
        assert self._loop is not None
        loop = self._loop

        def run() -> None:
            self._loop_strand = self.strand
            try:
                loop.run_ready()
            finally:
                self._loop_strand = None

        self.on_new_thread(run)


class SimulatedAttendant:
    """Takes one step at a moment of the simulation's choice, on a virtual thread of its own."""

    def __init__(self, driver: SimulatedDriver, step: Callable[[], bool]) -> None:
        self._driver = driver
        self._step = step
        self.woken = False
        self.at_work = False

    def wake(self) -> None:
        self.woken = True

    def work(self) -> None:
        self.woken = False
        self._driver.on_new_thread(self._take_a_step)

    def _take_a_step(self) -> None:
        self.at_work = True
        try:
            if self._step():
                self.woken = True
        finally:
            self.at_work = False

    def close(self, deadline: float | None) -> bool:
        if self.at_work:  # the caller came in between, and the step goes on behind that
            return False
        while self._step():
            pass
        return True


class _VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time; its timers are the simulation's."""

    def __init__(self, driver: SimulatedDriver) -> None:
        super().__init__()
        self._driver = driver
        self.calls = 0  # handed over and not yet run

    def time(self) -> float:
        return self._driver.clock.now

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        self.calls += 1
        return super().call_soon(self._counted(callback), *args, context=context)

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)

        def due() -> None:
            if not handle.cancelled():
                self.call_soon(callback, *args, context=context)

        self._driver.set_timer(LoopTimer(when, due))
        return handle

    def has_ready(self) -> bool:
        return self.calls > 0

    def run_ready(self) -> None:
        """Run what is ready now, and nothing that comes from it."""
        super().call_soon(self.stop)
        self.run_forever()

    def _counted(self, callback: Any) -> Any:
        def call(*args: Any) -> Any:
            self.calls -= 1
            return callback(*args)

        return call

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        return None  # the simulation's timer looks at the handle when it is due


class SimulatedRuntime(Runtime):
    """A :class:`~routilux.Runtime` that is a function of its seed.

    Everything happens while something is waited for: ``wait_until_all_jobs_finished()``, ``job.wait()``,
    :meth:`run`. ``interruption`` is the chance that another virtual thread comes in between at a lock,
    ``early_timers`` the chance that a timer is due before what could run has run.
    """

    def __init__(
        self, seed: int = 0, *, interruption: float = 0.15, early_timers: float = 0.0, **options: Any
    ) -> None:
        self.seed = seed
        self._interruption = interruption
        self._early_timers = early_timers
        options.setdefault("thread_pool_size", 4)
        self._life = _next_life(options.get("store"))
        super().__init__(**options)

    def _create_driver(self) -> Driver:
        self.simulation = SimulatedDriver(
            self.seed, interruption=self._interruption, early_timers=self._early_timers, life=self._life
        )
        return self.simulation

    @property
    def now(self) -> float:
        """Virtual seconds since the start."""
        return self.simulation.clock.now

    def run(self, seconds: float | None = None) -> None:
        """Let everything happen that can, or everything within so many virtual seconds."""
        deadline = None if seconds is None else self.now + seconds
        while self.simulation.step(deadline):
            pass

    def interrupt_with(self, call: Callable[[], object]) -> None:
        """Do this once, at a moment that the seed chooses, perhaps in the middle of something else."""
        self.simulation.interrupts.append(call)

    def __repr__(self) -> str:
        return f"SimulatedRuntime(seed={self.seed})"


_lives: WeakKeyDictionary[Any, int] = WeakKeyDictionary()


def _next_life(store: Any) -> str:
    """Ids are a function of the seed, so a second runtime on the same store needs others than the first."""
    if store is None or isinstance(store, str):
        return ""
    _lives[store] = lives = _lives.get(store, 0) + 1
    return "" if lives == 1 else f"{lives}_"


@contextmanager
def simulated(seed: int, **options: Any) -> Iterator[SimulatedRuntime]:
    """A simulated runtime whose seed is named in whatever goes wrong."""
    runtime = SimulatedRuntime(seed, **options)
    try:
        yield runtime
    except BaseException as error:
        error.add_note(f"simulated with seed {seed}")
        raise
    finally:
        runtime.shutdown(wait=False)
