"""How things are measured: in turns, after a warm-up, with the same garbage collection for all."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Mapping
from typing import TypeVar

Run = Callable[[], float]  # one whole measurement, prepared and cleaned up inside; returns the cost
K = TypeVar("K")


def in_turns(runs: Mapping[K, Run], rounds: int) -> dict[K, list[float]]:
    """The costs of each run. Every round runs all of them, each time beginning with the next one (A B, B A, A B).

    The collector is run before each measurement and stays on during it, as in a program of a user.
    """
    costs: dict[K, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    names = list(runs)
    for n in range(rounds):
        start = n % len(names)
        for name in names[start:] + names[:start]:
            gc.collect()
            costs[name].append(runs[name]())
    return costs


def resident_bytes() -> int:
    """Memory of this process that is in use now; where the system does not say, the highest so far."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return _highest_resident_bytes()


def _highest_resident_bytes() -> int:
    import resource  # not on every system

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
