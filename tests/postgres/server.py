"""A private PostgreSQL server for the tests; the keeper beside this file runs it and clears it away."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from urllib.parse import quote

import psycopg

KEEPER = Path(__file__).with_name("keeper.py")


class Server:
    """One for a process of the tests. Nothing is shared: each test takes a schema of its own."""

    def __init__(self) -> None:
        # Not in pytest's folders: those are closed to other users, and the path of a socket has to be short.
        self.folder = Path(tempfile.mkdtemp(prefix="routilux-pg-"))
        self.empty_stores: list[
            str
        ] = []  # URLs to use again: to delete rows is much faster than to make tables
        self._schemas = count(1)
        self._keeper = subprocess.Popen(
            [sys.executable, str(KEEPER), str(self.folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8",
            start_new_session=True,  # an interrupt from the keyboard is for the tests; the keeper then clears up
        )  # fmt: skip
        try:
            self._answer()
        except RuntimeError:
            self.close()
            raise

    def url(self, schema: str | None = None, user: str = "routilux") -> str:
        """Where a store can be opened; without a schema, in one that nobody else uses."""
        schema = schema or f"test_{next(self._schemas)}"
        return f"postgresql://{user}@/postgres?host={quote(str(self.folder), safe='')}&options=-csearch_path%3D{schema}"

    @staticmethod
    def schema_of(url: str) -> str:
        return url.rpartition("%3D")[2]

    def connect(self, schema: str = "public") -> psycopg.Connection:
        return psycopg.connect(self.url(schema), autocommit=True)

    def stop(self, mode: str) -> None:
        self._command(f"stop {mode}")

    def start(self) -> None:
        self._command("start")

    @contextmanager
    def setting(self, name: str, value: str) -> Iterator[None]:
        """The server runs with this setting, one that it takes up without a restart."""
        with closing(self.connect()) as connection:
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
            connection.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            with closing(self.connect()) as connection:  # the server may have been started again
                connection.execute("SET synchronous_commit = local")
                connection.execute(f"ALTER SYSTEM RESET {name}".encode())
                connection.execute("SELECT pg_reload_conf()")

    def close(self) -> None:
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.close()
        self._keeper.wait(timeout=60)
        self._keeper.stdout.close()

    def _command(self, line: str) -> None:
        assert self._keeper.stdin is not None
        self._keeper.stdin.write(f"{line}\n")
        self._keeper.stdin.flush()
        self._answer()

    def _answer(self) -> None:
        assert self._keeper.stdout is not None
        said = self._keeper.stdout.readline().strip()
        if said != "ok":
            raise RuntimeError(f"no PostgreSQL server for the tests: {said or 'its keeper has died'}")


@contextmanager
def private_server() -> Iterator[Server]:
    server = Server()
    try:
        yield server
    finally:
        server.close()
