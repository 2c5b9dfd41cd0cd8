"""Which benchmarks there are."""

from __future__ import annotations

from importlib import import_module

from benchmarks.row import Row, Size

NAMES = (
    "hop",
    "latency",
    "fanout",
    "sleepers",
    "monitoring",
    "jobs",
    "idle",
    "startup",
    "stream",
    "fairness",
    "expressions",
    "durable",
    "backlog",
    "peers",
    "files",
)


def measure(name: str, size: Size) -> tuple[str, list[Row]]:
    """The title and the rows of one benchmark, which is a module with a ``TITLE`` and ``rows(size)``."""
    module = import_module(f"benchmarks.{name}")
    return module.TITLE, module.rows(size)
