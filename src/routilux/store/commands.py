"""Commands between runtimes of one process that share a store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from threading import Lock

from routilux.ports import MOST_DUE, Answer, Command, Commands
from routilux.store.claims import Claims


class MemoryCommands(Commands):
    """``lock`` is that of the store: what a batch answers waits until the batch is applied."""

    def __init__(self, claims: Claims, lock: Lock) -> None:
        self._claims = claims
        self._lock = lock
        self._asked: dict[str, Command] = {}
        self._answered: dict[str, bytes] = {}
        self._listeners: list[Callable[[], None]] = []

    def runner(self, worker_id: str) -> str | None:
        return "another runtime with the same store" if self._claims.has(worker_id) else None

    def ask(self, command: Command) -> None:
        with self._lock:
            if command.command_id not in self._answered:
                self._asked.setdefault(command.command_id, command)
        self.wake()

    def withdraw(self, command_id: str) -> bool:
        with self._lock:
            withdrawn = self._asked.pop(command_id, None) is not None
        if withdrawn:
            self.wake()
        return withdrawn

    def answers(self, command_ids: Sequence[str]) -> dict[str, bytes]:
        with self._lock:
            return {name: self._answered[name] for name in command_ids if name in self._answered}

    def forget(self, command_ids: Sequence[str]) -> None:
        with self._lock:
            for name in command_ids:
                self._answered.pop(name, None)

    def due(self, worker_ids: Sequence[str], known: Sequence[str] = ()) -> list[Command]:
        wanted, passed_over = set(worker_ids), set(known)
        with self._lock:
            found = [
                command
                for command in self._asked.values()
                if command.worker_id in wanted and command.command_id not in passed_over
            ]
        return sorted(found, key=lambda command: command.kind == "post")[:MOST_DUE]

    def gone(self, command_ids: Sequence[str]) -> list[str]:
        with self._lock:
            return [name for name in command_ids if name not in self._asked and name not in self._answered]

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        self._listeners = [*self._listeners, wake]

        def end() -> None:
            self._listeners = [other for other in self._listeners if other is not wake]

        return end

    # -- for the store, under the lock ----------------------------------------------------------------------

    def refused(self, answers: Iterable[Answer]) -> set[str]:
        """The commands that do not wait any more, or that have two of these answers."""
        given = Counter(answer.command_id for answer in answers)
        return {name for name, times in given.items() if times > 1 or name not in self._asked}

    def take(self, answers: Iterable[Answer]) -> None:
        for answer in answers:
            del self._asked[answer.command_id]
            self._answered[answer.command_id] = answer.data

    # -------------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        for wake in self._listeners:
            wake()
