"""Waiting: one-shot signals, and a bell that wakes all that wait for a condition.

Nothing in the library sleeps and looks again: a waiter registers first, looks at the condition, and only then goes
to sleep, so a change in between is never missed.

What waits on a thread and in a task alike is written once, as a generator that yields the signals that it waits for
(:data:`Waits`). :func:`on_thread` carries it out by blocking the thread, :func:`in_task` by awaiting a future.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Lock, Thread, local
from time import monotonic
from typing import Any, Generic, Protocol, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from routilux.model.checks import LONGEST_SECONDS

SLICE_SECONDS = 0.5
"""CPython misses a signal that arrives just before its main thread blocks: Ctrl-C is heard at the end of a slice."""
T = TypeVar("T")
Condition: TypeAlias = Callable[[], bool]


class Signal(Protocol):
    """Set once by any thread, waited for by one. ``on_set`` is called when it is set, by the thread that sets it."""

    on_set: Callable[[], object] | None

    def set(self) -> None: ...

    def is_set(self) -> bool: ...

    def wait(self, timeout: float | None, holds: Condition | None = None) -> bool:
        """True when set; False after ``timeout`` seconds.

        ``holds`` says whether what is waited for has come; looking changes nothing. A simulation asks it, to find
        wake-ups that are lost.
        """


Waits: TypeAlias = Generator[tuple[Signal, float | None, Condition | None], bool, T]
"""Yields a signal and the arguments of ``Signal.wait``, and is sent what that would return."""


class ThreadSignal:
    """A signal made of one lock, which is the cheapest way to put a thread to sleep."""

    __slots__ = ("_lock", "on_set")

    def __init__(self) -> None:
        self._lock = Lock()
        self._lock.acquire()
        self.on_set: Callable[[], object] | None = None

    def set(self) -> None:
        try:
            self._lock.release()
        except RuntimeError:
            return  # set before: one wake-up is enough
        on_set = self.on_set
        if on_set is not None:
            on_set()

    def is_set(self) -> bool:
        return not self._lock.locked()

    def wait(self, timeout: float | None, holds: Condition | None = None) -> bool:
        left = LONGEST_SECONDS if timeout is None else max(timeout, 0.0)
        if left <= SLICE_SECONDS:
            return self._lock.acquire(timeout=left)
        if self._lock.acquire(timeout=SLICE_SECONDS):
            return True
        until = monotonic() + left - SLICE_SECONDS
        while (left := until - monotonic()) > SLICE_SECONDS:
            if self._lock.acquire(timeout=SLICE_SECONDS):
                return True
        return self._lock.acquire(timeout=max(left, 0.0))


class Bell:
    """Wakes everybody who waits for a condition on what this bell belongs to.

    ``waiting`` is read on the hot path: it is empty as long as there are no waiters, and then it is not rung.
    """

    __slots__ = ("_clock", "_signal", "waiting")

    def __init__(self, signal: Callable[[], Signal], clock: Callable[[], float]) -> None:
        self._signal = signal
        self._clock = clock
        self.waiting: dict[Signal, None] = {}

    def ring(self) -> None:
        for signal in list(self.waiting):
            signal.set()

    def wait_for(self, condition: Callable[[], bool], deadline: float | None) -> bool:
        """:meth:`waits_for`, on this thread."""
        return on_thread(self.waits_for(condition, deadline))

    def waits_for(
        self,
        condition: Condition,
        deadline: float | None,
        *,
        before_sleep: Callable[[Signal], bool] | None = None,
        holds: Condition | None = None,
        also: Callable[[], Iterable[Bell]] = tuple,
    ) -> Waits[bool]:
        """Return True once the condition holds, False at the deadline (monotonic seconds).

        ``before_sleep`` may do some of the work that is waited for; True from it means "look again". A condition that
        changes something when it comes true, such as an offer, gives ``holds``, which only looks. The bells of
        ``also`` are heard too.
        """
        look = condition if holds is None else holds
        while not condition():
            signal = self._signal()
            with heard_by(signal, [self, *also()]):
                if condition():
                    return True
                if before_sleep is not None and before_sleep(signal):
                    continue
                timeout = self._left(deadline)
                if (timeout is not None and timeout <= 0) or not (yield signal, timeout, look):
                    return condition()
        return True

    def in_turn(
        self,
        lines: Lines | None,
        about: Hashable,
        condition: Callable[[], bool],
        deadline: float | None,
        *,
        before_sleep: Callable[[Signal], bool] | None = None,
        holds: Condition | None = None,
        turn: Signal | None = None,
        also: Callable[[], Iterable[Bell]] = tuple,
    ) -> Waits[bool]:
        """:meth:`waits_for`, first come first served among the tasks of one event loop that wait ``about`` the same.

        Only the first in the line hears the bell, so that a ring costs what it lets go and not what waits. Setting
        ``turn`` makes another one look at the condition before its turn, which is then to raise.
        """
        waits = self.waits_for(condition, deadline, before_sleep=before_sleep, holds=holds, also=also)
        if lines is None:
            return (yield from waits)
        with lines.place(about, turn or self._signal()) as place:
            if not place.is_first and not (yield place.signal, self._left(deadline), None):
                return False
            return (yield from waits)

    def _left(self, deadline: float | None) -> float | None:
        return None if deadline is None else deadline - self._clock()


@contextmanager
def heard_by(signal: Signal, bells: Sequence[Bell]) -> Iterator[None]:
    """Within the block every ring of one of these sets the signal."""
    for bell in bells:
        bell.waiting[signal] = None
    try:
        yield
    finally:
        for bell in bells:
            bell.waiting.pop(signal, None)


# -- carrying it out -----------------------------------------------------------------------------------------


def on_thread(waits: Waits[T]) -> T:
    """Carry it out on this thread, which sleeps meanwhile."""
    try:
        signal, timeout, holds = next(waits)
        while True:
            try:
                is_set = signal.wait(timeout, holds)
            except BaseException as error:  # noqa: BLE001 a KeyboardInterrupt: it is for what waits
                signal, timeout, holds = waits.throw(error)
            else:
                signal, timeout, holds = waits.send(is_set)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


async def in_task(waits: Waits[T]) -> T:
    """Carry it out in the running task: waiting costs no thread.

    A cancellation is thrown into ``waits``, which undoes what it has begun. Where the loop is closed with the task in
    it, the next signal ends ``waits`` in its place.
    """
    from asyncio import get_running_loop  # only coroutines come here, and it is slow to import

    loop = get_running_loop()
    try:
        signal, timeout, _ = next(waits)
        while True:
            try:
                is_set = await _is_set(signal, timeout, loop, waits)
            except BaseException as error:  # noqa: BLE001 a cancellation: it is for what waits
                signal, timeout, _ = waits.throw(error)
            else:
                signal, timeout, _ = waits.send(is_set)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


async def _is_set(signal: Signal, timeout: float | None, loop: Any, waits: Waits[Any]) -> bool:
    future = loop.create_future()

    def wake() -> None:
        try:
            loop.call_soon_threadsafe(_resolve, future)
        except RuntimeError:  # the loop was closed with the task in it, which nothing can resume
            _abandon(waits)

    signal.on_set = wake
    if signal.is_set():
        return True
    timer = (
        None
        if timeout is None
        else loop.call_later(min(max(timeout, 0.0), LONGEST_SECONDS), _resolve, future)
    )
    try:
        await future
        return signal.is_set()
    finally:
        signal.on_set = None
        if timer is not None:
            timer.cancel()


def on_this_thread(call: Callable[[], T]) -> Waits[T]:
    """A call that blocks, as a wait that is carried out on a thread."""
    yield from ()
    return call()


def on_own_thread(call: Callable[[], T]) -> Waits[T]:
    """A call that blocks, as a wait that is carried out in a task: it has a thread of its own meanwhile."""
    done, answer = ThreadSignal(), Outcome[T]()

    def run() -> None:
        answer.of(call)
        done.set()

    Thread(target=run, name="routilux-close", daemon=True).start()
    yield done, None, None
    return answer.get()


class Outcome(Generic[T]):
    """What a call has returned or raised, for another thread."""

    def of(self, call: Callable[[], T]) -> None:
        try:
            self._value = call()
        except BaseException as error:  # noqa: BLE001 it is raised where the outcome is asked for
            self._error = error

    def get(self) -> T:
        if self._error is not None:
            raise self._error
        return self._value

    _error: BaseException | None = None
    _value: T


def _resolve(future: Any) -> None:
    if not future.done():
        future.set_result(None)


class _Abandoned(local):
    """What a thread has found abandoned; ending one may find the next, which is not ended inside it."""

    def __init__(self) -> None:
        self.found: deque[Waits[Any]] = deque()
        self.at_it = False


_abandoned = _Abandoned()


def _abandon(waits: Waits[Any]) -> None:
    """End ``waits`` as a cancellation would, on this thread."""
    _abandoned.found.append(waits)
    if _abandoned.at_it:
        return
    _abandoned.at_it = True
    try:
        while _abandoned.found:
            with suppress(ValueError):  # another thread ends it already
                _abandoned.found.popleft().close()
    finally:
        _abandoned.at_it = False


# -- lines ---------------------------------------------------------------------------------------------------


class Lines:
    """The tasks of one event loop that wait for their turn, by what they wait for. Used on the loop's thread only."""

    def __init__(self) -> None:
        self.waiting: dict[Hashable, OrderedDict[Signal, None]] = {}

    @contextmanager
    def place(self, about: Hashable, signal: Signal) -> Iterator[PlaceInLine]:
        """A place at the end of a line; leaving the block, at whatever place, lets the next one come."""
        line = self.waiting.setdefault(about, OrderedDict())
        line[signal] = None
        try:
            yield PlaceInLine(signal, len(line) == 1)
        finally:
            was_first = next(iter(line)) is signal
            del line[signal]
            if not line:
                self.waiting.pop(about, None)
            elif was_first:
                next(iter(line)).set()


class PlaceInLine:
    """``signal`` is set when it has become the first place."""

    __slots__ = ("is_first", "signal")

    def __init__(self, signal: Signal, is_first: bool) -> None:
        self.signal = signal
        self.is_first = is_first


_lines: WeakKeyDictionary[Any, Lines] = WeakKeyDictionary()
_lines_lock = Lock()


def lines_of_running_loop() -> Lines:
    """Each loop has its own: one that stands still holds up no other."""
    from asyncio import get_running_loop  # only coroutines come here, and it is slow to import

    loop = get_running_loop()
    with _lines_lock:
        return _lines.setdefault(loop, Lines())
