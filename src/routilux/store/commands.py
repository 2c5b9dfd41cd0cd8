"""Commands between runtimes of one process that share a store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from threading import Lock

from routilux.ports import Answer, Command, Commands
from routilux.store.claims import Claims

MOST_DUE = 1_000


class MemoryCommands(Commands):
    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._lock = Lock()
        self._asked: dict[str, Command] = {}
        self._answered: dict[str, bytes] = {}
        self._listeners: list[Callable[[], None]] = []

    def runner(self, worker_id: str) -> str | None:
        return "another runtime with the same store" if self._claims.has(worker_id) else None

    def ask(self, command: Command) -> None:
        with self._lock:
            if command.command_id not in self._answered:
                self._asked.setdefault(command.command_id, command)
        self._wake()

    def withdraw(self, command_id: str) -> bool:
        with self._lock:
            return self._asked.pop(command_id, None) is not None

    def answers(self, command_ids: Sequence[str]) -> dict[str, bytes]:
        with self._lock:
            return {name: self._answered[name] for name in command_ids if name in self._answered}

    def forget(self, command_ids: Sequence[str]) -> None:
        with self._lock:
            for name in command_ids:
                self._answered.pop(name, None)

    def due(self, worker_ids: Sequence[str]) -> list[Command]:
        wanted = set(worker_ids)
        with self._lock:
            return [command for command in self._asked.values() if command.worker_id in wanted][:MOST_DUE]

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        self._listeners = [*self._listeners, wake]

        def end() -> None:
            self._listeners = [other for other in self._listeners if other is not wake]

        return end

    # -- for the store, whose lock makes these one step -----------------------------------------------------

    def waits(self, answer: Answer) -> bool:
        with self._lock:
            return answer.command_id in self._asked

    def take(self, answers: Iterable[Answer]) -> None:
        with self._lock:
            for answer in answers:
                del self._asked[answer.command_id]
                self._answered[answer.command_id] = answer.data
        self._wake()

    def _wake(self) -> None:
        for wake in self._listeners:
            wake()
