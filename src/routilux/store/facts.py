"""What is found about a store when it is looked at as a whole."""

from __future__ import annotations

from typing import NamedTuple


class Fact(NamedTuple):
    """``state`` is ok, warning or error; ``what`` names a side of the store, ``detail`` is for people."""

    state: str
    what: str
    detail: str
