"""What no store allows that is only looked into, of whatever kind it is."""

from __future__ import annotations

from collections.abc import Sequence

from routilux.errors import StoreError
from routilux.ports import Changes, Death, FlightRecorder, OnLost, Store


def looked_into(what: object) -> str:
    """How the error begins with which a view refuses to act."""
    return f"{what} is only looked into: what is shown is what is stored, and nothing can be changed here"


class View(Store):
    """It owns nothing, and a runtime with it looks and acts not: what would change something raises ``only_read``."""

    @property
    def only_read(self) -> StoreError:
        raise NotImplementedError

    @property
    def commands(self) -> None:
        return None

    def write(self, changes: Changes) -> frozenset[int | str]:
        if any(getattr(changes, name) for name in Changes.__slots__):
            raise self.only_read
        return frozenset()

    def keep_refused(self, changes: Changes, why: str) -> str:
        raise self.only_read

    def settle(self) -> bool:
        return False

    def prune(self, now: float, *, finished_before: float, keep_finished: int, limit: int) -> int:
        raise self.only_read

    def claim(self, worker_id: str) -> None:
        raise self.only_read

    def when_lost(self, worker_id: str, call: OnLost) -> None:
        """Never: no worker was claimed."""

    def give_up(self, worker_id: str) -> None:
        pass

    def watch(self) -> FlightRecorder | None:
        return None

    def deaths(self) -> Sequence[Death]:
        return []
