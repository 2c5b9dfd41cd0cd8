"""One connection to the server that lives as long as its store, however often it is lost."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Event, RLock
from typing import Final, TypeVar

import psycopg
from psycopg.types.numeric import Int8BinaryDumper

from routilux.errors import StoreError
from routilux.store.postgres.address import Address
from routilux.store.postgres.failures import is_lost, not_connected, translated

T = TypeVar("T")
_FIRST_DELAY: Final = 0.05  # seconds
_LONGEST_DELAY: Final = 1.0


class Link:
    """Runs actions on its connection, one at a time and from any thread.

    The connection is made by the first action, and made again by the next one after it was lost; then attempts
    are repeated for ``patience`` seconds. ``prepare`` is called with every new connection. Everything that the
    driver raises is translated.
    """

    def __init__(
        self,
        address: Address,
        closing: Event,
        prepare: Callable[[psycopg.Connection], None],
        *,
        patience: float,
    ) -> None:
        self._address = address
        self._closing = closing
        self._prepare = prepare
        self._patience = patience
        self._lock = RLock()
        self._connection: psycopg.Connection | None = None
        self._was_open = False

    def run(self, action: Callable[[psycopg.Connection], T], *, again: bool = True) -> T:
        """``again``: the action may be repeated on a new connection when the first is lost on the way."""
        with self._lock:
            connection = self._open()
            try:
                return action(connection)
            except psycopg.Error as error:
                lost = is_lost(connection, error)
                if not lost:
                    raise translated(error, self._address.name) from error
                connection.close()
                if not again:
                    raise translated(error, self._address.name, lost) from error
            return self.run(action, again=False)

    def break_off(self) -> None:
        """Let the action that runs end with its connection. From any thread."""
        connection = self._connection
        if connection is not None and not connection.closed:
            with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as other:
                other.shutdown(socket.SHUT_RDWR)

    def close(self, farewell: Callable[[psycopg.Connection], object] = lambda connection: None) -> None:
        """``farewell`` is the last action; without a connection there is none."""
        with self._lock:
            if self._connection is not None and not self._connection.closed:
                try:
                    farewell(self._connection)
                except psycopg.Error:
                    pass  # it was lost unnoticed
                self._connection.close()

    def _open(self) -> psycopg.Connection:
        if self._closing.is_set():
            raise StoreError("the store is closed; open a new one")
        if self._connection is None or self._connection.closed:
            self._connection = self._connected()
            self._was_open = True
        return self._connection

    def _connected(self) -> psycopg.Connection:
        """A server that restarts comes back within seconds; one that was never there is reported at once."""
        until = time.monotonic() + (self._patience if self._was_open else 0.0)
        delay = _FIRST_DELAY
        while True:
            try:
                return self._attempt()
            except psycopg.Error as error:
                if time.monotonic() + delay > until or self._closing.wait(delay):
                    raise not_connected(error, self._address.name) from error
            delay = min(2 * delay, _LONGEST_DELAY)

    def _attempt(self) -> psycopg.Connection:
        connection = psycopg.connect(**self._address.parameters, autocommit=True, client_encoding="utf8")
        try:
            connection.adapters.register_dumper(
                int, Int8BinaryDumper
            )  # one type, and so one plan, for all numbers
            connection.execute(
                "SELECT set_config('search_path', quote_ident(%s), false)", [self._address.schema]
            )
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection
