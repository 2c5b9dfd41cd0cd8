"""The result as text, 80 columns wide, and as JSON."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from benchmarks.row import Row, Size, Unit

WIDTH = 80
FIGURE_WIDTH = 33
_COLUMNS = f"{{:<{FIGURE_WIDTH}}} {{:>10}} {{:>10}} {{:>7}} {{:>8}} {{:<6}}"
HEADER = _COLUMNS.format("figure", "ours", "reference", "ratio", "reach", "").rstrip()


def line(row: Row) -> str:
    """One row of the table."""
    return _COLUMNS.format(
        row.figure,
        "-" if row.ours is None else shown(row.ours, row.unit),
        "-" if row.reference is None else shown(abs(row.reference), "B" if row.unit == "B+" else row.unit),
        "-" if row.ratio is None else f"{row.ratio:.2f}",
        reach_shown(row),
        row.verdict,
    ).rstrip()


def reach_shown(row: Row) -> str:
    if row.reach is None:
        return ""
    limit, of, at_least = row.reach.limit, row.reach.of, row.reach.at_least
    if of == "ratio":
        return f"{'≥' if at_least else '≤'} {limit:.2f}"
    if row.unit == "%":
        return f"{limit:.0f} %"
    text = shown(limit, "B" if row.unit == "B+" else row.unit).replace(".0 ", " ")
    return text if limit == 0 else f"{'≥' if at_least else '≤'} {text}"


def shown(value: float, unit: Unit) -> str:
    """A value with its unit, in at most ten characters."""
    match unit:
        case "s":
            return _seconds(value)
        case "B":
            return _bytes(value)
        case "B+":
            return ("+" if value >= 0 else "-") + _bytes(abs(value))
        case "B/s":
            return f"{value / 2**20:.2f} MiB/s"
        case "/s":
            return f"{value:,.0f}/s"
        case "%":
            return f"{value:.1f} %"
        case "n":
            return f"{value:,.0f}"


def _seconds(value: float) -> str:
    for factor, unit in ((1e6, "µs"), (1e3, "ms")):
        if value * factor < 1000:
            return f"{value * factor:.{2 if value * factor < 10 else 1}f} {unit}"
    return f"{value:.2f} s"


def _bytes(value: float) -> str:
    return f"{value / 2**10:.1f} KiB" if value < 2**20 else f"{value / 2**20:.1f} MiB"


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "routilux": version("routilux"),
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),  # asked for by name: new in 3.13
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    }


def machine_shown(facts: Mapping[str, Any]) -> str:
    gil = "" if facts["gil"] else ", without GIL"
    load = "" if facts["load"] is None else f", load {facts['load']}"
    return (
        f"routilux {facts['routilux']}, {facts['implementation']} {facts['python']}{gil}, "
        f"{facts['system']}, {facts['cores']} cores{load}"
    )


def as_json(size: Size, facts: Mapping[str, Any], found: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Seconds, bytes, items per second, percent; ``samples`` in the order in which they were taken."""
    return {
        "size": size,
        "machine": dict(facts),
        "benchmarks": {
            name: [{**asdict(row), "verdict": row.verdict} for row in rows] for name, rows in found.items()
        },
    }
