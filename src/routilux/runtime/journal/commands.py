"""Commands between runtimes that share a store: those that this one asks, and those that it carries out for others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from routilux import errors
from routilux.errors import (
    ExecutionError,
    ExecutionTimeoutError,
    RoutiluxError,
    RuntimeClosedError,
    StoreDataError,
    StoreError,
    StoreFullError,
    StoreUnknownError,
    WorkerNotRunningError,
    describe,
)
from routilux.ports import MOST_DUE, Command
from routilux.runtime.journal.record import Record
from routilux.runtime.posting import Reply, Withdrawn

if TYPE_CHECKING:
    from routilux.ports import Commands
    from routilux.runtime.engine import Engine
    from routilux.runtime.journal.log import Journal
    from routilux.runtime.waiting import Signal, Waits

UNSURE_POST = (
    "repeat it with the same idempotency_key, and it is accepted once; without one it may be accepted twice"
)
REST = "rest"  # the command that waits until what ran of something that is paused has ended
LOOK_SECONDS = 0.5  # between two looks at the store, where something is waited for and no news came

Kinds: TypeAlias = "Mapping[str, Callable[[Any, dict[str, Any], Reply], Waits[Mapping[str, Any]]]]"
"""What carries out a command, by its kind: it is given a worker that runs here, what the command says, and the reply,
which it may have written with what it does; what it returns is the answer otherwise."""


class Desk:
    """Of one runtime.

    Guarantees
        * A command is carried out once, or withdrawn: its answer is a part of the batch that has its effect, or comes
          behind an effect that can be repeated.
        * What a command waits for holds up no other one, and no thread.
    """

    def __init__(self, engine: Engine, journal: Journal, commands: Commands, kinds: Kinds) -> None:
        self._engine = engine
        self._journal = journal
        self._commands = commands
        self._kinds = kinds
        self._attendant = engine.driver.attendant("routilux-commands", self._step)
        self._end_listening: Callable[[], None] | None = None
        self._is_news = False  # there may be commands, or answers
        self._has_timer = False
        self._closed = False
        self._under_way: dict[str, Errand] = {}
        # Errands whose wait has ended, and which wait that was.
        self._ready: deque[tuple[Errand, int]] = deque()
        self._awaited: dict[str, Signal] = {}
        self._answers: dict[str, bytes] = {}
        self._heard: list[str] = []  # commands whose answers the store can forget
        # Workers that this runtime would run, and what tries to.
        self.applicants: dict[str, Callable[[], bool]] = {}

    def open(self) -> None:
        """A worker runs here, or one that runs elsewhere is wanted: from here on there may be news."""
        if self._end_listening is None:
            self._end_listening = self._commands.listen(self._news)

    def close(self, deadline: float | None) -> bool:
        """Carry out nothing any more; who waits for an answer is told."""
        if self._end_listening is None:
            return True
        self._closed = True
        self._end_listening()
        for signal in list(self._awaited.values()):
            signal.set()
        return self._attendant.close(deadline)

    def runner(self, worker_id: str) -> str | None:
        return self._commands.runner(worker_id)

    def apply_for(self, worker_id: str, claim: Callable[[], bool]) -> None:
        """Try again and again to run this worker here, until ``claim`` says that it is settled."""
        self.applicants[worker_id] = claim
        self.open()
        self._look_later()

    # -- asking --------------------------------------------------------------------------------------------

    def asks(
        self,
        worker_id: str,
        kind: str,
        about: Mapping[str, Any],
        deadline: float | None,
        *,
        is_done: Callable[[], bool] = bool,
    ) -> Waits[dict[str, Any]]:
        """Ask whoever runs the worker, and wait for the answer; raises what that raises.

        StoreError at the deadline, and nothing has happened then; of "rest", which only waits for what is paused,
        ExecutionTimeoutError, and the answer has a second more to come, as it names what still runs. StoreUnknownError
        where the store fails and does not say whether it has happened. ``is_done`` says that it has come about without
        an answer.
        """
        codec, driver = self._journal.codec, self._engine.driver
        self.open()
        if kind == REST and deadline is not None:
            deadline += 2 * LOOK_SECONDS
        command_id = f"command_{driver.unique()}"
        data = codec.encode(dict(about), f"{kind} of worker {worker_id!r}")
        signal = self._awaited[command_id] = driver.signal()
        try:
            self._ask(Command(command_id, worker_id, kind, data))
            self._look_later()
            while command_id not in self._answers and not _holds(is_done):
                left = None if deadline is None else deadline - self._engine.now()
                if self._closed or (left is not None and left <= 0):
                    self._withdraw(command_id, worker_id, kind)
                    break
                yield signal, LOOK_SECONDS if left is None else min(left, LOOK_SECONDS), None
                if signal.is_set() and command_id not in self._answers:
                    signal = self._awaited[command_id] = driver.signal()
        except GeneratorExit:
            raise  # a task that nothing resumes; this thread may hold any lock
        except BaseException as error:
            self._interrupted(command_id, error)
            raise
        finally:
            self._awaited.pop(command_id, None)
        found = self._answers.pop(command_id, None)
        if found is None:  # it is done without an answer
            with suppress(StoreError):
                self._commands.withdraw(command_id)
            return {}
        try:
            self._commands.forget([command_id])
        except StoreError:
            self._heard.append(command_id)
            self._look_later()
        return _read(codec.decode(found, f"the answer to {command_id}"))

    def _ask(self, command: Command) -> None:
        """Raises where it is not asked, or not known to be; else it is, or its answer has come."""
        try:
            self._commands.ask(command)
        except (StoreDataError, StoreFullError):
            raise
        except StoreError as error:
            if self._is_withdrawn(command.command_id, command.worker_id, command.kind):
                raise
            if command.command_id not in self._answers:  # it may be on its way to the store
                raise _unknown(command.worker_id, command.kind, error) from error

    def _is_withdrawn(self, command_id: str, worker_id: str, kind: str) -> bool:
        """False if its answer, which is kept, was faster, or if the store does not know of it."""
        try:
            if self._commands.withdraw(command_id):
                return True
            self._answers.update(self._commands.answers([command_id]))
        except StoreError as error:
            if command_id not in self._answers:
                raise _unknown(worker_id, kind, error) from error
        return False

    def _withdraw(self, command_id: str, worker_id: str, kind: str) -> None:
        """Raises where nothing has happened; else its answer has come."""
        if self._is_withdrawn(command_id, worker_id, kind):
            if kind == REST:
                asked = self._commands.runner(worker_id) or "the process that ran it"
                raise ExecutionTimeoutError(
                    f"pause() of worker {worker_id!r}: it is paused, and nothing new starts, but {asked} has not said "
                    "whether what ran has ended; call pause() again with a longer timeout",
                    worker_id=worker_id,
                )
            if self._closed:
                raise RuntimeClosedError(
                    f"{kind}(): this runtime has been shut down; nothing of it has happened"
                )
            runner = self._commands.runner(worker_id)
            why = "no process runs it at the moment" if runner is None else f"{runner} has not taken it yet"
            raise StoreError(
                f"{kind}() to worker {worker_id!r}: nothing of it has happened within the time-out; {why}",
                worker_id=worker_id,
            )
        if command_id not in self._answers:
            raise _unknown(worker_id, kind, StoreError("its row is gone"))

    def _interrupted(self, command_id: str, error: BaseException) -> None:
        """A task was cancelled, or a thread interrupted: it is withdrawn, or the error says that it has happened."""
        try:
            withdrawn = isinstance(error, RoutiluxError) or self._commands.withdraw(command_id)
            found = None if withdrawn else self._commands.answers([command_id]).get(command_id)
        except StoreError as failure:
            error.add_note(f"it was not known whether it is carried out when it was interrupted: {failure}")
            return
        if not withdrawn:
            about = {} if found is None else self._journal.codec.decode(found, command_id)
            error.add_note(f"it had been carried out when it was interrupted: {about.get('job_id') or about}")

    # -- carrying out --------------------------------------------------------------------------------------

    def _news(self) -> None:
        self._is_news = True
        self._attendant.wake()

    def resume(self, errand: Errand, wait: int) -> None:
        self._ready.append((errand, wait))
        self._attendant.wake()

    def _look_later(self) -> None:
        if not self._has_timer and not self._closed:
            self._has_timer = True
            self._engine.driver.call_at(self._engine.now() + LOOK_SECONDS, self._time_to_look)

    def _time_to_look(self) -> None:
        self._has_timer = False
        self._news()

    def _step(self) -> bool:
        if self._closed:
            return False
        while self._ready:
            errand, wait = self._ready.popleft()
            errand.resume(wait)
        if self._is_news:
            self._is_news = False
            try:
                self._look()
            except StoreError:
                pass  # the next look comes within a second
            if self._awaited or self.applicants or self._heard:
                self._look_later()
        return bool(self._ready) or self._is_news

    def _look(self) -> None:
        for worker_id, claim in list(self.applicants.items()):
            if claim():
                self.applicants.pop(worker_id, None)
        if self._awaited:
            for command_id, data in self._commands.answers(list(self._awaited)).items():
                signal = self._awaited.get(command_id)
                if signal is not None:
                    self._answers[command_id] = data
                    signal.set()
        if self._heard:
            heard = list(self._heard)
            self._commands.forget(heard)
            del self._heard[: len(heard)]
        if self._under_way:
            self._end_withdrawn()
        workers = [worker.worker_id for worker in list(self._engine.workers.values())]
        for errand in list(self._under_way.values()):
            if errand.has_ended and not errand.is_current:
                self._over(errand)
        known = [name for name, errand in list(self._under_way.items()) if errand.is_current]
        due = self._commands.due(workers, known) if workers else []
        for command in due:
            self._begin(command)
        if len(due) >= MOST_DUE:
            self._is_news = True  # there may be more

    def _end_withdrawn(self) -> None:
        """Who asked for these waits no more, so nothing waits for room on their behalf. Of one whose record is handed
        over, the store says whether it was withdrawn."""
        for command_id in self._commands.gone(list(self._under_way)):
            errand = self._under_way.get(command_id)
            if errand is not None and not errand.reply.is_handed_over:
                errand.interrupt(Withdrawn())

    def _begin(self, command: Command) -> None:
        worker: Any = self._engine.workers.get(command.worker_id)
        if worker is None:
            return
        reply = Reply(command.command_id, command.worker_id, self._journal.codec)
        errand = self._under_way[command.command_id] = Errand(self, self._engine, worker, reply)
        try:
            about = self._journal.codec.decode(command.data, f"command {command.command_id!r}")
            waits = self._kinds[command.kind](worker, about, reply)
        except Exception as error:  # noqa: BLE001 what another version asks may be anything
            self.answer(errand, None, error)
            return
        errand.begin(waits)

    def answer(self, errand: Errand, value: Mapping[str, Any] | None, error: BaseException | None) -> None:
        """Unless it is written already, withdrawn, or left to whoever runs the worker next. It stays under way until
        its answer is written, so that no look begins it again."""
        worker, reply = errand.worker, errand.reply
        left = worker.stopped and not worker.for_good and isinstance(error, WorkerNotRunningError)
        if reply.is_written or left or isinstance(error, (Withdrawn, RuntimeClosedError)):
            self._over(errand)
            return
        record = Record(worker)
        record.answers = [reply.of(dict(value or {}) if error is None else _written(error))]
        record.then(partial(self._over, errand))
        self._journal.hand_over(record)

    def _over(self, errand: Errand) -> None:
        if self._under_way.get(errand.reply.command_id) is errand:
            self._under_way.pop(errand.reply.command_id, None)


class Errand:
    """A wait that no thread is blocked by: it is resumed by the desk when what it waits for has come."""

    def __init__(
        self,
        desk: Desk,
        engine: Engine,
        worker: Any,
        reply: Reply,
    ) -> None:
        self.worker = worker
        self.reply = reply
        self._desk = desk
        self._engine = engine
        self._waits: Waits[Mapping[str, Any]]
        self._wait = 0
        self._signal: Signal | None = None
        self._timer: Any = None

    @property
    def is_current(self) -> bool:
        """Whether the worker still runs here: one of its name that does so later is asked anew."""
        return self._engine.workers.get(self.worker.worker_id) is self.worker

    @property
    def has_ended(self) -> bool:
        return self._signal is None

    def begin(self, waits: Waits[Mapping[str, Any]]) -> None:
        self._waits = waits
        self._go_on(lambda: next(waits))

    def resume(self, wait: int) -> None:
        """Unless that wait has ended already."""
        if wait == self._wait:
            self._leave_wait(lambda signal: self._waits.send(signal.is_set()))

    def interrupt(self, error: Exception) -> None:
        """End what it waits for with this error."""
        self._leave_wait(lambda _: self._waits.throw(error))

    def _leave_wait(self, step: Callable[[Signal], tuple[Signal, float | None, Any]]) -> None:
        signal = self._signal
        if signal is None:
            return
        signal.on_set = None
        if self._timer is not None:
            self._timer.cancel()
        self._go_on(lambda: step(signal))

    def _go_on(self, step: Callable[[], tuple[Signal, float | None, Any]]) -> None:
        self._wait += 1
        self._signal = self._timer = None
        try:
            signal, timeout, _ = step()
        except StopIteration as end:
            self._desk.answer(self, end.value, None)
            return
        except BaseException as error:  # noqa: BLE001 it is the answer
            self._desk.answer(self, None, error)
            return
        self._signal = signal
        wake = partial(self._desk.resume, self, self._wait)
        if timeout is not None:
            self._timer = self._engine.driver.call_at(self._engine.now() + max(0.0, timeout), wake)
        signal.on_set = wake
        if signal.is_set():
            wake()


def _holds(is_done: Callable[[], bool]) -> bool:
    """A store that does not answer says nothing of it; the next look comes within a second."""
    try:
        return is_done()
    except StoreError:
        return False


def _unknown(worker_id: str, kind: str, error: StoreError) -> StoreUnknownError:
    advice = (
        UNSURE_POST if kind == "post" else "call it again, which changes nothing where it was carried out"
    )
    return StoreUnknownError(
        f"{kind}() to worker {worker_id!r}: it is not known whether it has been carried out, or will be "
        f"({describe(error)}); {advice}",
        worker_id=worker_id,
    )


def _written(error: BaseException) -> dict[str, Any]:
    attributes = {
        name: value for name, value in vars(error).items() if isinstance(value, str) and name[0] != "_"
    }
    kind = type(error).__name__ if isinstance(error, RoutiluxError) else ""
    return {"error": kind, "message": str(error) if kind else describe(error), "attributes": attributes}


def _read(answer: dict[str, Any]) -> dict[str, Any]:
    """What was answered; raises the error that it stands for."""
    if "error" not in answer:
        return answer
    kind = getattr(errors, answer["error"], ExecutionError) if answer["error"] else ExecutionError
    attributes = {name: value for name, value in answer["attributes"].items() if name != "message"}
    raise kind(answer["message"], **attributes)
