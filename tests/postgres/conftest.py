"""Stores on the server of this process, each test with tables of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from routilux.store.postgres import PostgresStore
from tests.postgres.server import Server

OpenStore = Callable[..., PostgresStore]


@pytest.fixture
def url(postgres_server: Server) -> Iterator[str]:
    url = postgres_server.url()
    yield url
    with postgres_server.connect() as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {postgres_server.schema_of(url)} CASCADE".encode())


@pytest.fixture
def admin(postgres_server: Server, url: str) -> Iterator[Any]:
    """A connection to the same tables that belongs to no store."""
    with closing(postgres_server.connect(postgres_server.schema_of(url))) as connection:
        yield connection


@pytest.fixture
def open_store(url: str) -> Iterator[OpenStore]:
    """Opens stores on the same tables. No lease is renewed or runs out within a test, unless it says so."""
    with ExitStack() as stack:
        yield lambda **arguments: stack.enter_context(
            closing(PostgresStore(url, **{"lease_seconds": 3600.0, **arguments}))
        )
