"""One line of the result: a figure of ours, its reference, and the number to reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

Size = Literal["full", "quick", "tiny"]  # tiny shows that a benchmark works; what it measures means nothing
Unit = Literal["s", "B", "B+", "B/s", "/s", "n", "%"]  # "B+" is a growth


@dataclass(frozen=True, slots=True)
class Reach:
    """A limit for the ratio to the reference, or for the figure itself where there is nothing to compare."""

    limit: float
    of: Literal["ratio", "ours"] = "ratio"
    at_least: bool = False

    def met_by(self, row: Row) -> bool:
        value = row.ratio if self.of == "ratio" else row.ours
        if value is None:
            return False
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True, slots=True)
class Row:
    """``ours`` and ``reference`` are medians; ``samples`` holds the ratio of every round.

    ``ours`` is None for what cannot be measured here. Without ``reach`` the row is shown for comparison only.
    """

    figure: str
    ours: float | None
    unit: Unit = "s"
    reference: float | None = None
    ratio: float | None = None
    reach: Reach | None = None
    samples: Sequence[float] = field(default=(), repr=False)

    @property
    def verdict(self) -> str:
        if self.ours is None:
            return "absent"
        if self.reach is None:
            return ""
        return "ok" if self.reach.met_by(self) else "MISSED"


def compared(
    figure: str,
    ours: Sequence[float],
    reference: Sequence[float],
    reach: Reach | None = None,
    unit: Unit = "s",
) -> Row:
    """Two costs that were measured in turn. The ratio is the median of the ratios of the rounds, so that a
    change of the machine's speed on the way falls on both sides of each."""
    ratios = [one / other for one, other in zip(ours, reference, strict=True)]
    return Row(figure, median(ours), unit, median(reference), median(ratios), reach, ratios)
