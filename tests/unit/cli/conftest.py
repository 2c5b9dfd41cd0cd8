"""A folder of its own for each test, which is the current one, and an environment without settings."""

from __future__ import annotations

import os
import sys
from itertools import count
from pathlib import Path

import pytest

from routilux.cli.settings import PREFIX
from tests.unit.cli.calling import write_steps

_numbers = count(1)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def steps(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module of routines in the folder, which its routilux.toml names."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module = f"steps_of_test_{next(_numbers)}"
    write_steps(folder, module)
    return module
