"""Stores of every kind that come with the package."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from routilux.store.memory import MemoryStore


@pytest.fixture(params=["sqlite", "postgres", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a runtime is given, empty; one after the other gets the same."""
    match request.param:
        case "sqlite":
            return f"sqlite:///{tmp_path}/store.db"
        case "postgres":
            url = request.getfixturevalue("postgres_server").url()
            monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where the files of the machine lie
            return url
    return MemoryStore()
