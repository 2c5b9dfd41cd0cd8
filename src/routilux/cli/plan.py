"""What one run is to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Plan:
    """What one run is to do, from the command line and the config."""

    name: str
    source: str | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    entry: str | None = None
    output: str = "table"
    timeout: float | None = None
    threads: int | None = None
    save_state: str | None = None
    load_state: str | None = None
    store: str | None = None
    store_flag: bool = False
    """Whether the store stands on the command line, and not in the config."""
    run_id: str | None = None
    resume: str | None = None
    on_flow_change: str = "refuse"
    allow_errors: int = 0
    """How many items may be lost before the exit code says so."""
    modules: tuple[str, ...] = ()
    """What the command line imports, beside the modules of the config."""
    idle: bool = False
    """Go on with what is there, and take no input."""
