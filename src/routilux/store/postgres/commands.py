"""Commands to workers that other processes run, as rows, and a connection that hears of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import md5
from threading import Event, Lock, Thread
from typing import Any, Final

import psycopg
from psycopg import sql

from routilux.errors import StoreError
from routilux.ports import Command, Commands
from routilux.store.postgres.address import Address
from routilux.store.postgres.link import Link
from routilux.store.postgres.ownership import Ownership
from routilux.store.postgres.rows import columns, readable, texts
from routilux.store.postgres.statements import statements

_SQL: Final = statements("commands")
_POLL: Final = 1.0  # seconds; a notification can be lost with its connection


class PostgresCommands(Commands):
    """``link`` carries out what is asked for. One connection more listens, from when the first caller wants to hear."""

    def __init__(self, address: Address, link: Link, ownership: Ownership, closing: Event) -> None:
        self._link = link
        self._ownership = ownership
        self._closing = closing
        self._lock = Lock()
        self._listeners: list[Callable[[], None]] = []
        channel = f"routilux_{md5(address.schema.encode(), usedforsecurity=False).hexdigest()}"
        self._listen = sql.SQL("LISTEN {}").format(sql.Identifier(channel))
        self._hearing = Link(address, closing, self._begin_hearing, patience=_POLL)
        self._thread = Thread(target=self._hear, name="routilux-listen", daemon=True)

    def runner(self, worker_id: str) -> str | None:
        holder = self._ownership.holder(worker_id)
        return None if holder is None or holder.seconds <= 0 else str(holder)

    def ask(self, command: Command) -> None:
        (parameters,) = zip(*columns(Command, [command]), strict=True)
        self._link.run(lambda connection: connection.execute(_SQL["ask"], parameters))

    def withdraw(self, command_id: str) -> bool:
        cursor = self._link.run(
            lambda connection: connection.execute(_SQL["withdraw"], [command_id]), again=False
        )
        return cursor.rowcount == 1

    def answers(self, command_ids: Sequence[str]) -> dict[str, bytes]:
        return dict(self._all("answers", command_ids))

    def forget(self, command_ids: Sequence[str]) -> None:
        self._link.run(lambda connection: connection.execute(_SQL["forget"], [texts(command_ids)]))

    def due(self, worker_ids: Sequence[str], known: Sequence[str] = ()) -> list[Command]:
        return [Command(*map(readable, row)) for row in self._all("due", worker_ids, known)]

    def gone(self, command_ids: Sequence[str]) -> list[str]:
        return [str(readable(name)) for (name,) in self._all("gone", command_ids)]

    def _begin_hearing(self, connection: psycopg.Connection) -> None:
        connection.execute(self._listen)

    def _all(self, statement: str, *names: Sequence[str]) -> list[tuple[Any, ...]]:
        parameters = [texts(some) for some in names]
        return self._link.run(
            lambda connection: connection.execute(_SQL[statement], parameters, binary=True).fetchall()
        )

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        with self._lock:
            self._listeners = [*self._listeners, wake]
            if self._thread.ident is None:
                self._thread.start()

        def end() -> None:
            with self._lock:
                self._listeners = [other for other in self._listeners if other is not wake]

        return end

    def close(self) -> None:
        """After the store is told to close."""
        if self._thread.ident is not None:
            self._hearing.break_off()
            self._thread.join()
        self._hearing.close()

    def _hear(self) -> None:
        while not self._closing.is_set():
            try:
                self._hearing.run(_notified)
            except StoreError:
                self._closing.wait(_POLL)
            for wake in self._listeners:
                wake()


def _notified(connection: psycopg.Connection) -> None:
    """Return when there is news, or after a while without any."""
    for _ in connection.notifies(timeout=_POLL, stop_after=1):
        pass
