"""What every test shares: hypothesis profiles, and the order's seed beside a failure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.postgres.server import Server, private_server

# No deadlines: a test that is judged by the clock fails on a busy machine.
settings.register_profile("routilux", deadline=None, print_blob=True)
settings.register_profile("full", deadline=None, print_blob=True, max_examples=2000)
settings.load_profile("routilux")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """Started by the first test that asks for it, one in each process of the tests."""
    with private_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A store of each kind, which is not made yet."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/store.db"
        return
    server: Server = request.getfixturevalue("postgres_server")
    url = server.url()
    yield url
    with server.connect() as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {server.schema_of(url)} CASCADE".encode())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """With ``-q`` the header is not shown, and the seed with it."""
    seed = config.getoption("randomly_seed", None)
    if seed is not None and terminalreporter.stats.get("failed"):
        terminalreporter.write_line(f"The same order again: pytest --randomly-seed={seed}")
