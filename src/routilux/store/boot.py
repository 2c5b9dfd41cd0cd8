"""Which run of the machine this is: what was in memory only has not survived into another one."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from uuid import UUID

UNKNOWN = str(UUID(int=0))


@cache
def boot_id() -> str:
    """A UUID that changes when the machine is started; ``UNKNOWN`` where the system does not tell."""
    try:
        return str(UUID(Path("/proc/sys/kernel/random/boot_id").read_text().strip()))
    except (OSError, ValueError):
        return UNKNOWN
