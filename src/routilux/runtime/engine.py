"""What all workers of a runtime share: the driver, the book of jobs, the observers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar
from weakref import WeakSet

from routilux.errors import InsideActivationError, InvalidTypeError, name_of, refused
from routilux.model.checks import checked_timeout
from routilux.model.context import running
from routilux.ports import Observer, Row, RowObserver, Store, Tap, load, record_of
from routilux.runtime import waiting_for
from routilux.runtime.book import JobBook
from routilux.runtime.failures import ERROR, WARNING, FailureLog, failed_with, write
from routilux.runtime.letters import LetterRoom
from routilux.runtime.waiting import Bell
from routilux.tracebacks import headline, is_a

if TYPE_CHECKING:
    from routilux.model.flow import Flow
    from routilux.model.validation import Issue
    from routilux.runtime.activation import LiveActivation
    from routilux.runtime.directory import Directory
    from routilux.runtime.driver import Driver
    from routilux.runtime.journal.log import Journal
    from routilux.runtime.names import Names
    from routilux.runtime.worker import Worker


class Health(NamedTuple):
    """``status`` is ``"ok"``; ``"degraded"`` while the store takes nothing and is asked again and again, or a worker
    that was given up is not open here again; ``"failed"`` when the store will take nothing any more; ``"closed"`` when
    the runtime has been shut down; ``"read-only"`` with a store that is only looked into. ``reason`` says why."""

    status: str
    reason: str | None


STOPPED_LIMIT = 1_000
MOST_WARNED = 1_000
_told: WeakSet[Flow] = WeakSet()  # flows whose findings were logged, in whatever runtime
T = TypeVar("T")
Taker: TypeAlias = Callable[[Row], object]


class Engine:
    """Owned by a :class:`~routilux.runtime.Runtime`; its parts are safe from any thread."""

    def __init__(
        self,
        runtime: Any,
        driver: Driver,
        *,
        max_pending: int,
        max_finished_bytes: int,
        max_dead_letter_bytes: int,
        debug: bool,
        default_strategy: str,
        store: Store | None = None,
    ) -> None:
        self.runtime = runtime
        self.driver = driver
        driver.on_fault = self.fault
        self.now = driver.clock.monotonic
        self.bell = Bell(driver.signal, driver.clock.monotonic)  # the book's
        self.failures = FailureLog(driver)
        self.book = JobBook(driver, max_pending, max_finished_bytes, self.bell, self._forget)
        self.letter_room = LetterRoom(max_dead_letter_bytes)
        self.debug = debug
        self.default_strategy = default_strategy
        self.sink: Taker | None = None  # takes records, if there are observers
        self.taps: tuple[Tap, ...] = ()  # are shown what is emitted
        self.workers: dict[str, Worker] = {}
        self.stopped: dict[str, Worker] = {}
        self.next_number = 1  # of items: no worker in memory that has ended has used it, or higher ones
        self.elsewhere: dict[LiveActivation, None] = {}  # what task runners run that the driver does not know
        self.directory: Directory  # of who can be reached by name; the runtime's
        self.names: Names  # that are being given; the runtime's
        self.check_open: Callable[[str], None]  # raises when nothing is accepted any more; the runtime's
        self.journal: Journal | None = None if store is None else load("journal")(self, store)
        self._observers: tuple[Observer | RowObserver, ...] = ()
        self._warned: OrderedDict[str, None] = OrderedDict()

    def health(self) -> Health:
        """Whether what happens is kept, and all workers go on that were not stopped."""
        if self.only_read is not None:
            return Health("read-only", str(self.only_read))
        given_up = [
            f"{worker.failure} (to go on with it here, ask for it again: exec(flow, worker_id={worker_id!r}), or "
            "recover())"
            for worker_id, worker in list(self.stopped.items())
            if worker.failure is not None
            and worker_id not in self.workers
            and worker_id not in self.directory.elsewhere
        ]
        if self.journal is None or (self.journal.health is None and not given_up):
            return Health("ok", None)
        if self.journal.health is None:
            return Health("degraded", "; ".join(given_up))
        return Health("failed" if self.journal.broken is not None else "degraded", str(self.journal.health))

    @property
    def only_read(self) -> BaseException | None:
        """Why nothing can be changed here, where the store is only looked into."""
        return None if self.journal is None else self.journal.store.only_read

    def waits_for(self, worker_id: str) -> str:
        """What waits for what in a worker that lives here, as text for an error; empty if it does not."""
        worker = self.workers.get(worker_id)
        return "" if worker is None else waiting_for.report(worker)

    @property
    def broken(self) -> BaseException | None:
        """Why nothing can be written any more, so that nothing can go on."""
        return None if self.journal is None else self.journal.broken

    def running(self) -> list[Any]:
        """Every activation that runs now, wherever it does, in no order."""
        return [*self.driver.running(), *list(self.elsewhere)]

    def worker_ended(self, worker: Worker) -> None:
        """Keep the newest of the stopped workers readable, without those that were refused."""
        if self.workers.get(worker.worker_id) is worker and not worker.is_refused:
            self.stopped[worker.worker_id] = worker  # first: at no moment is it unknown
        if not worker.journaled:
            self.next_number = max(self.next_number, worker.number())
        self.directory.leave(worker)
        if self.workers.get(worker.worker_id) is worker:
            del self.workers[worker.worker_id]
        for worker_id in list(self.stopped)[:-STOPPED_LIMIT]:
            self._forget(worker_id)
        self.bell.ring()  # posts that wait for room among the pending jobs, and would go to this worker

    def _forget(self, worker_id: str) -> None:
        """A stopped worker is not kept any more: too many newer ones are, or the job of its execution is forgotten."""
        worker = self.stopped.pop(worker_id, None)
        if worker is not None:
            worker.letters.forget()

    def snapshot(self, worker: Worker, use: Callable[[dict[str, Any]], T]) -> T:
        from routilux.runtime import cut  # only save and load need it

        return cut.take(worker, use)

    def is_called_by_logic(self, of: Worker | None = None) -> bool:
        """Whether the caller is logic that runs in this runtime, or in this worker; its threads and tasks count."""
        activation: Any = running.get()
        if activation is None or activation.abandoned is not None:
            return False
        worker: Worker = activation.node.worker
        return worker.engine is self and of in (None, worker)

    def refuse_inside(self, call: str) -> None:
        """A blocking call inside a routine would hold a thread that what it waits for may need."""
        activation: Any = running.get()
        if activation is not None:
            raise InsideActivationError(
                f"{call} was called inside routine {activation.routine.routine_id!r}, where it would wait for "
                "itself. Call it from outside, or emit an event and go on in the routine connected to it",
                routine_id=activation.routine.routine_id,
            )

    def deadline(self, timeout: float | None) -> float | None:
        """When a given time-out will have passed; refuses what is none."""
        seconds = checked_timeout(timeout)
        return None if seconds is None else self.now() + seconds

    # -- observers -----------------------------------------------------------------------------------------

    def add_observer(self, observer: Observer | RowObserver) -> None:
        if not any(callable(getattr(observer, name, None)) for name in ("record", "take_row")):
            raise refused(
                InvalidTypeError, "add_observer()", observer, "an object with a method record(record)"
            )
        self._set_observers((*self._observers, observer))

    def remove_observer(self, observer: Observer | RowObserver) -> None:
        self._set_observers(tuple(other for other in self._observers if other is not observer))

    def set_taps(self, taps: tuple[Tap, ...]) -> None:
        self.taps = taps
        for worker in list(self.workers.values()):
            worker.set_taps(taps)

    def warn(self, message: str) -> None:
        """Log each warning once; after 1,000 others it is news again."""
        if message in self._warned:
            return
        self._warned[message] = None
        if len(self._warned) > MOST_WARNED:
            with suppress(KeyError):  # another thread has forgotten them
                self._warned.popitem(last=False)
        write(WARNING, message)

    def tell_findings(self, flow: Flow, findings: Iterable[Issue]) -> None:
        """Log what looks wrong with a flow, when it is run for the first time.

        Several ways in are a finding for entry_params alone, and those say so by an error.
        """
        if flow not in _told:
            _told.add(flow)
            for finding in findings:
                if finding.code != "several-entries":
                    self.warn(f"flow {flow.flow_id!r}: {finding}")

    def user_code_failed(
        self, who: str, error: BaseException, follows: str, alike: str | None = None
    ) -> None:
        """Log that code of the user raised which is no logic, with what follows from it. ``alike`` says who failed in
        the words of all those that are counted as one kind, if ``who`` is one of many."""

        def message() -> str:
            return f"{who} raised {headline(error)}; {follows}"

        self.failures.tell(WARNING, failed_with(alike or who, error), message, error)

    def fault(self, who: str, error: BaseException, follows: str) -> None:
        """Log what has come out of a step of ours that never raises. The thread goes on; a simulation does not."""

        def message() -> str:
            return f"{who} was broken off by {headline(error)}; {follows}"

        self.failures.tell(ERROR, failed_with(who, error), message, error)
        self.driver.note_fault(error)

    def _set_observers(self, observers: tuple[Observer | RowObserver, ...]) -> None:
        self._observers = observers
        takers = [self._taker(observer) for observer in observers]
        self.sink = _all(takers) if len(takers) > 1 else takers[0] if takers else None
        for worker in list(self.workers.values()):
            worker.sink = self.sink

    def _taker(self, observer: Any) -> Taker:
        """A function that takes rows for this observer and never raises."""
        take: Taker = getattr(observer, "take_row", None) or (lambda row: observer.record(record_of(row)))

        def take_safely(row: Row) -> None:
            try:
                take(row)
            except BaseException as error:  # an observer never changes an outcome
                if not is_a(error, Exception) and current_thread() is main_thread():
                    raise  # the handler of a signal may have raised it, and wants to end the program
                self.user_code_failed(f"observer {name_of(observer)}", error, "it goes on being called")

        return take_safely


def _all(takers: list[Taker]) -> Taker:
    def take(row: Row) -> None:
        for taker in takers:
            taker(row)

    return take
