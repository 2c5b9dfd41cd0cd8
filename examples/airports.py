"""How far are 3,376 airports from a city, and in which direction? Run it: python examples/airports.py [city]

           ┌── distance (async) ──┐
    load ──┤                      ├── join ── group
           └── direction ─────────┘

load       emits one item for each airport, which goes to two routines at once
distance   asks a pretend service: 64 questions wait at the same time, and none of them holds a thread
direction  calculates on a thread of the pool
join       puts together what belongs to one airport, by its code
group      collects states, 200 airports at a time, in the state of the worker
"""

from __future__ import annotations

import asyncio
import csv
import sys
from math import asin, atan2, cos, degrees, radians, sin, sqrt
from pathlib import Path

from routilux import Flow, Routine, Runtime, routine
from routilux.activation_policies import all_slots_ready_policy, batch_size_policy, immediate_policy

DATA = Path(__file__).parent / "data" / "airports.csv"
CITIES = {
    "Anchorage": (61.2176, -149.8997),
    "Chicago": (41.8832, -87.6324),
    "Denver": (39.7392, -104.9903),
    "Honolulu": (21.3099, -157.8581),
    "Miami": (25.7617, -80.1918),
    "Seattle": (47.6062, -122.3321),
}
EARTH_RADIUS_KM = 6371.0
POINTS = ("N", "NE", "E", "SE", "S", "SW", "W", "NW")


@routine
def load(path, city):
    """One item for each airport. The place to measure from travels with it."""
    with open(path, encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            place = (float(line["latitude"]), float(line["longitude"]))
            yield {
                "code": line["iata"],
                "name": line["name"],
                "state": line["state"],
                "from": city,
                "to": place,
            }


class Distance(Routine):
    """Asynchronous logic: it awaits, and up to 64 activations await at once."""

    def __init__(self):
        super().__init__()
        self.add_slot("airport")
        self.add_event("distance", ["code", "name", "state", "km"])
        self.set_config(seconds=0.005)
        self.set_activation_policy(immediate_policy())
        self.set_concurrency(64)

    async def logic(self, slot_data, policy_message, state):
        [airport] = slot_data["airport"]
        km = await ask_for_distance(airport["from"], airport["to"], self.get_config("seconds"))
        self.emit("distance", code=airport["code"], name=airport["name"], state=airport["state"], km=km)


async def ask_for_distance(start, end, seconds):
    """A stand-in for a service on the network."""
    await asyncio.sleep(seconds)
    return haversine(start, end)


class Direction(Routine):
    def __init__(self):
        super().__init__()
        self.add_slot("airport")
        self.add_event("direction", ["code", "direction"])
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data, policy_message, state):
        [airport] = slot_data["airport"]
        point = POINTS[round(bearing(airport["from"], airport["to"]) / 45) % 8]
        self.emit("direction", code=airport["code"], direction=point)


class Join(Routine):
    """Runs when both answers about one airport are there, in whatever order they come."""

    def __init__(self):
        super().__init__()
        self.add_slot("distance")
        self.add_slot("direction")
        self.add_event("airport", ["code", "name", "state", "km", "direction"])
        self.set_activation_policy(all_slots_ready_policy(by="code"))

    def logic(self, slot_data, policy_message, state):
        [distance], [direction] = slot_data["distance"], slot_data["direction"]
        self.emit("airport", **distance, direction=direction["direction"])


class Group(Routine):
    """For each state: how many airports, the sum of their distances, and the nearest one."""

    def __init__(self):
        super().__init__()
        self.add_slot("airport")
        self.set_activation_policy(batch_size_policy(200))

    def logic(self, slot_data, policy_message, state):
        for airport in slot_data["airport"]:
            group = self.state.setdefault(airport["state"], {"airports": 0, "km": 0.0, "nearest": airport})
            group["airports"] += 1
            group["km"] += airport["km"]
            group["nearest"] = min(group["nearest"], airport, key=lambda one: (one["km"], one["code"]))


def build_flow(seconds: float | None = None) -> Flow:
    """The flow; ``seconds`` is how long the service takes to answer."""
    flow = Flow("airports")
    flow.add_routine(load(), "load")
    flow.add_routine(Distance(), "distance")
    flow.add_routine(Direction(), "direction")
    flow.add_routine(Join(), "join")
    flow.add_routine(Group(), "group")
    flow.connect("load", "output", "distance", "airport")
    flow.connect("load", "output", "direction", "airport")
    flow.connect("distance", "distance", "join", "distance")
    flow.connect("direction", "direction", "join", "direction")
    flow.connect("join", "airport", "group", "airport")
    if seconds is not None:
        flow.routines["distance"].set_config(seconds=seconds)
    return flow


# -- on a sphere -----------------------------------------------------------------------------------------------


def haversine(start, end) -> float:
    """The distance in km between two places, each latitude and longitude in degrees."""
    (lat1, lon1), (lat2, lon2) = (map(radians, place) for place in (start, end))
    chord = sin((lat2 - lat1) / 2) ** 2 + cos(lat1) * cos(lat2) * sin((lon2 - lon1) / 2) ** 2
    return 2 * EARTH_RADIUS_KM * asin(sqrt(chord))


def bearing(start, end) -> float:
    """The direction in degrees that the shortest way begins in; 0 is north, 90 is east."""
    (lat1, lon1), (lat2, lon2) = (map(radians, place) for place in (start, end))
    east = sin(lon2 - lon1) * cos(lat2)
    north = cos(lat1) * sin(lat2) - sin(lat1) * cos(lat2) * cos(lon2 - lon1)
    return degrees(atan2(east, north)) % 360


# -- what is shown ---------------------------------------------------------------------------------------------


def main() -> int:
    city = sys.argv[1] if len(sys.argv) > 1 else "Seattle"
    if city not in CITIES:
        print(f"No city {city!r}; choose one of {', '.join(CITIES)}.", file=sys.stderr)
        return 2
    with Runtime() as runtime:
        state = runtime.exec(build_flow(), entry_params={"path": str(DATA), "city": CITIES[city]})
        state.wait()
        if state.status != "completed":
            print(f"The flow has {state.status}: {state.error}", file=sys.stderr)
            return 1
        print(text_of(city, state.get_routine_state("group")))
        print(f"\n{waiting_of(state)}")
    return 0


def text_of(city: str, states: dict[str, dict], limit: int = 15) -> str:
    """The states, nearest first."""
    count = sum(group["airports"] for group in states.values())
    lines = [
        f"{count:,} airports in {len(states)} states, seen from {city}; the {limit} nearest states:",
        "",
        f"{'state':5}{'airports':>10}{'mean km':>9}   {'nearest airport':33}{'km':>8}  direction",
    ]
    for name in sorted(states, key=lambda name: states[name]["nearest"]["km"])[:limit]:
        group = states[name]
        airport = group["nearest"]
        label = f"{airport['code']} {airport['name']}"
        lines.append(
            f"{name:5}{group['airports']:>10,}{group['km'] / group['airports']:>9,.0f}   {label[:32]:33}"
            f"{airport['km']:>8,.1f}  {airport['direction']}"
        )
    return "\n".join(lines)


def waiting_of(state) -> str:
    """How much waiting went on at the same time."""
    waited = state.counters("distance")["busy_seconds"]
    took = state.job.completed_at - state.job.started_at
    return f"NA: the file names no state. {waited:.1f} s of waiting for the service took {took:.1f} s."


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # the with block has stopped the runtime
        print("\nStopped.", file=sys.stderr)
        sys.exit(130)
