"""Commands between runtimes that share a store: those that this one asks, and those that it carries out for others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from routilux import errors
from routilux.errors import (
    ExecutionError,
    ExecutionTimeoutError,
    RoutiluxError,
    RuntimeClosedError,
    StoreError,
    WorkerNotRunningError,
    describe,
)
from routilux.ports import Command
from routilux.runtime.journal.record import Record
from routilux.runtime.posting import Reply, Withdrawn

if TYPE_CHECKING:
    from routilux.ports import Commands
    from routilux.runtime.engine import Engine
    from routilux.runtime.journal.log import Journal
    from routilux.runtime.waiting import Signal, Waits

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
        self._ready: deque[tuple[Errand, int]] = (
            deque()
        )  # errands whose wait has ended, and which wait that was
        self._awaited: dict[str, Signal] = {}
        self._answers: dict[str, bytes] = {}
        self.applicants: dict[
            str, Callable[[], bool]
        ] = {}  # workers that this runtime would run, and what tries to

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
        ExecutionTimeoutError, and the answer has a second more to come, as it names what still runs. ``is_done`` says
        that it has come about without an answer.
        """
        codec, driver = self._journal.codec, self._engine.driver
        self.open()
        if kind == REST and deadline is not None:
            deadline += 2 * LOOK_SECONDS
        command_id = f"command_{driver.unique()}"
        data = codec.encode(dict(about), f"{kind} of worker {worker_id!r}")
        signal = self._awaited[command_id] = driver.signal()
        try:
            self._commands.ask(Command(command_id, worker_id, kind, data))
            self._look_later()
            while command_id not in self._answers and not is_done():
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
            self._commands.withdraw(command_id)
            return {}
        self._commands.forget([command_id])
        return _read(codec.decode(found, f"the answer to {command_id}"))

    def _withdraw(self, command_id: str, worker_id: str, kind: str) -> None:
        """Raises where nothing has happened; else its answer has come."""
        if self._commands.withdraw(command_id):
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
        self._answers.update(self._commands.answers([command_id]))

    def _interrupted(self, command_id: str, error: BaseException) -> None:
        """A task was cancelled, or a thread interrupted: it is withdrawn, or the error says that it has happened."""
        try:
            withdrawn = isinstance(error, RoutiluxError) or self._commands.withdraw(command_id)
        except StoreError:
            return
        if not withdrawn:
            found = self._commands.answers([command_id]).get(command_id)
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
            if self._awaited or self.applicants:
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
        workers = [worker.worker_id for worker in list(self._engine.workers.values())]
        for command in self._commands.due(workers) if workers else ():
            if command.command_id not in self._under_way:
                self._begin(command)

    def _begin(self, command: Command) -> None:
        worker: Any = self._engine.workers.get(command.worker_id)
        if worker is None:
            return
        reply = Reply(command.command_id, command.worker_id, self._journal.codec)
        try:
            about = self._journal.codec.decode(command.data, f"command {command.command_id!r}")
            waits = self._kinds[command.kind](worker, about, reply)
        except Exception as error:  # noqa: BLE001 what another version asks may be anything
            self._answer(worker, reply, None, error)
            return
        errand = Errand(self, self._engine, waits, partial(self._end, worker, reply))
        self._under_way[command.command_id] = errand
        errand.begin()

    def _end(
        self, worker: Any, reply: Reply, value: Mapping[str, Any] | None, error: BaseException | None
    ) -> None:
        self._under_way.pop(reply.command_id, None)
        self._answer(worker, reply, value, error)

    def _answer(
        self, worker: Any, reply: Reply, value: Mapping[str, Any] | None, error: BaseException | None
    ) -> None:
        """Unless it is written already, withdrawn, or left to whoever runs the worker next."""
        left = worker.stopped and not worker.for_good and isinstance(error, WorkerNotRunningError)
        if reply.is_written or left or isinstance(error, (Withdrawn, RuntimeClosedError)):
            return
        record = Record(worker)
        record.answers = [reply.of(dict(value or {}) if error is None else _written(error))]
        self._journal.hand_over(record)


class Errand:
    """A wait that no thread is blocked by: it is resumed by the desk when what it waits for has come."""

    def __init__(
        self,
        desk: Desk,
        engine: Engine,
        waits: Waits[Mapping[str, Any]],
        end: Callable[[Mapping[str, Any] | None, BaseException | None], None],
    ) -> None:
        self._desk = desk
        self._engine = engine
        self._waits = waits
        self._end = end
        self._wait = 0
        self._signal: Signal | None = None
        self._timer: Any = None

    def begin(self) -> None:
        self._go_on(lambda: next(self._waits))

    def resume(self, wait: int) -> None:
        """Unless that wait has ended already."""
        signal = self._signal
        if wait != self._wait or signal is None:
            return
        signal.on_set = None
        if self._timer is not None:
            self._timer.cancel()
        self._go_on(lambda: self._waits.send(signal.is_set()))

    def _go_on(self, step: Callable[[], tuple[Signal, float | None, Any]]) -> None:
        self._wait += 1
        self._signal = self._timer = None
        try:
            signal, timeout, _ = step()
        except StopIteration as end:
            self._end(end.value, None)
            return
        except BaseException as error:  # noqa: BLE001 it is the answer
            self._end(None, error)
            return
        self._signal = signal
        wake = partial(self._desk.resume, self, self._wait)
        if timeout is not None:
            self._timer = self._engine.driver.call_at(self._engine.now() + max(0.0, timeout), wake)
        signal.on_set = wake
        if signal.is_set():
            wake()


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
