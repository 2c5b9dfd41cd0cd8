"""The handler style: a slot names the function that gets its data, and says how data is merged.

    readings ──┬── latest    override: one value for each name, the newest
               ├── diary     append: every value, in a list for each name
               └── records   a function: whatever it makes of old and new

A slot with a merge strategy hands its handler one dict, merged over all that has arrived so far. The merged data
belongs to the worker: a second execution starts from nothing. Run it: python examples/handlers.py
"""

from __future__ import annotations

import sys

from routilux import Flow, Routine

READINGS = [
    {"station": "SEA", "high": 12.8, "rain": 0.0},
    {"station": "BFI", "high": 10.6, "rain": 10.9},
    {"station": "SEA", "high": 11.7, "wind": 2.3},
    {"station": "BFI", "wind": 4.7, "rain": 20.3},
    {"station": "SEA", "high": 8.9, "rain": 1.3, "wind": 6.1},
]


class Readings(Routine):
    """A handler instead of logic: its parameters are keys of the payload."""

    def __init__(self):
        super().__init__()
        self.add_slot("list", handler=self.send_each)
        self.add_event("reading")

    def send_each(self, readings):
        for reading in readings:
            self.emit("reading", **reading)


class Latest(Routine):
    """``override``: later values win, and what a reading does not mention stays as it was."""

    def __init__(self):
        super().__init__()
        self.add_slot("reading", handler=self.show, merge_strategy="override")
        self.add_event("board")

    def show(self, **merged):
        self.emit("board", **merged)


class Diary(Routine):
    """``append``: a list for each key."""

    def __init__(self):
        super().__init__()
        self.add_slot("reading", handler=self.write, merge_strategy="append")
        self.add_event("page", ["highs", "last"])

    def write(self, high=(), station=()):
        self.emit("page", highs=list(high), last=station[-1])


class Records(Routine):
    """A function of old and new."""

    def __init__(self):
        super().__init__()
        self.add_slot("reading", handler=self.announce, merge_strategy=highest)
        self.add_event("record")

    def announce(self, data):
        self.emit("record", **data)


def highest(old, new):
    """The highest value of each key that is a number."""
    numbers = {key: value for key, value in new.items() if isinstance(value, float)}
    return old | {key: max(value, old.get(key, value)) for key, value in numbers.items()}


def build_flow() -> Flow:
    flow = Flow("handlers")
    flow.add_routine(Readings(), "readings")
    for routine_id, target in {"latest": Latest(), "diary": Diary(), "records": Records()}.items():
        flow.add_routine(target, routine_id)
        flow.connect("readings", "reading", routine_id, "reading")
    return flow


def main() -> int:
    state = build_flow().execute("readings", {"readings": READINGS}, timeout=10)
    print(f"{len(READINGS)} readings, one after the other; the execution has {state.status}.\n")
    for routine_id, title in (
        ("latest", "override keeps the newest value of each key"),
        ("diary", "append keeps every value"),
        ("records", "a function keeps the highest"),
    ):
        print(f"{title}:")
        for output in state.outputs:
            if output.routine_id == routine_id:
                print(f"    {line_of(output.data)}")
    return 0


def line_of(data) -> str:
    return "  ".join(f"{key} {data[key]}" for key in sorted(data))


if __name__ == "__main__":
    sys.exit(main())
