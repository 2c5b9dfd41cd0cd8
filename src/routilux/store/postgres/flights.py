"""Where the flight recorders of a store in PostgreSQL lie, which several processes on one machine have open.

What they hold is of use within one boot, on the machine where the process died. A process on another machine that
takes a worker over does not see them.
"""

from __future__ import annotations

from routilux.store.flight import Flights
from routilux.store.postgres.machine import beside


def flights_of(store_name: str) -> Flights:
    """Raises OSError where there is no place for them."""
    return Flights(beside(store_name, ".flight"))
