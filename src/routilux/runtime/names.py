"""Names that are being given: who asks for one and begins what it names does both without another in between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from routilux.runtime.back_pressure import Poster
from routilux.runtime.waiting import Bell, on_thread

if TYPE_CHECKING:
    from routilux.runtime.engine import Engine


class Names:
    """Of one runtime; safe from any thread. Where several runtimes share a store, the store decides between them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._held: dict[tuple[str, str], object] = {}  # by whom
        self._bell = Bell(engine.driver.signal, engine.driver.clock.monotonic)

    @contextmanager
    def held(self, what: str, name: str) -> Iterator[None]:
        """A block for one caller at a time, for each ``name`` of a worker or job; the others wait. Logic that waits
        lends its place."""
        me, held, key = object(), self._held, (what, name)
        poster = Poster(self._engine, None, None)

        def take() -> bool:
            poster.check_goes_on()
            return held.setdefault(key, me) is me

        def give_back() -> None:
            if held.get(key) is me:
                del held[key]
            self._bell.ring()

        try:
            waits = self._bell.waits_for(take, None, holds=lambda: key not in held)
            try:
                on_thread(poster.waits(waits, self._bell, room=False) if key in held else waits)
                yield
            finally:
                give_back()
        except BaseException:
            give_back()  # a Ctrl-C may have come before the other had done it
            raise
