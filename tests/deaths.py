"""Deaths of processes, as a store in memory would tell them."""

from __future__ import annotations

from collections.abc import Iterable

from routilux.ports import Death


class Died(Death):
    def __init__(self, *texts: str) -> None:
        self.texts: list[str] = list(texts)

    def clear(self, texts: Iterable[str]) -> None:
        done = set(texts)
        self.texts = [text for text in self.texts if text not in done]
