"""The flow that is killed: every way in which items move, all of it ending in one tally.

A piece of work is named ``kind:stream:seq``. Streams are posted by one thread each, in the order of ``seq``, so the
tally can tell what is missing, what came twice and what came out of order.
"""

from __future__ import annotations

import random
from typing import Any
from uuid import uuid4

from routilux import ErrorHandler, ErrorStrategy, Flow, Routine, Runtime, current
from routilux.activation_policies import (
    all_slots_ready_policy,
    batch_size_policy,
    immediate_policy,
    time_interval_policy,
)
from tests.durability.ledger import Ledger
from tests.durability.points import reach

BATCH = 4
LAPS = 3
ENTRANCES = {
    "chain": ("first", "input"),
    "fan": ("fan", "input"),
    "loop": ("loop", "input"),
    "batch": ("batch", "input"),
    "bundle": ("bundle", "input"),
    "retry": ("flaky", "input"),
    "outside": ("outside", "input"),
    "keyed": ("first", "input"),
    "narrow": ("narrow", "input"),
    "pair": ("pair", "input"),
    "long": ("long", "input"),
    "wide": ("wide", "input"),
    "sour": ("sour", "input"),
}
PARTS = 3  # of a long piece of work
ORDERED = ("chain", "fan", "batch", "bundle", "retry", "outside", "keyed")
"""Kinds whose way to the tally is one connection after the other, so their order is kept."""


class World:
    """What is outside of the runtime."""

    ledger: Ledger  # opened by the program
    runtime: Runtime


def name_of(work: dict[str, Any]) -> str:
    return f"{work['kind']}:{work['stream']}:{work['seq']}"


class Step(Routine):
    """Notes each run in the ledger with the key that it was given, and passes its work on."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input", max_queue_length=20)
        self.add_event("output")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        works = [work for payloads in slot_data.values() for work in payloads]
        names = sorted({name_of(work) for work in works})
        lap = works[0].get("laps", 0)
        World.ledger.note(
            "ran", f"{self.routine_id}/{lap}", current().idempotency_key(), names, current().attempt
        )
        reach("logic begins")
        self.act(works)
        reach("logic ends")

    def act(self, works: list[dict[str, Any]]) -> None:
        for work in works:
            self.emit("output", **work)


class First(Step):
    """Begins the job's data, which is added to further on: what was not committed must not be seen."""

    def act(self, works: list[dict[str, Any]]) -> None:
        job = current().job
        job.set_data("steps", job.get_data("steps", 0) + 1)
        super().act(works)


class Loop(Step):
    def __init__(self) -> None:
        super().__init__()
        self.add_event("again")

    def act(self, works: list[dict[str, Any]]) -> None:
        for work in works:
            laps = work.get("laps", 0) + 1
            self.emit("output" if laps >= LAPS else "again", **{**work, "laps": laps})


class Join(Step):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("other", max_queue_length=20)
        self.set_activation_policy(all_slots_ready_policy(by="job"))

    def act(self, works: list[dict[str, Any]]) -> None:
        mine, others = works
        assert name_of(mine) == name_of(others), "joined what does not belong together"
        self.emit("output", **mine)


class Batch(Step):
    def __init__(self) -> None:
        super().__init__()
        self.set_activation_policy(batch_size_policy(BATCH))


class Bundle(Step):
    """Takes what is there: at another time that would be something else."""

    def __init__(self) -> None:
        super().__init__()
        self.set_activation_policy(time_interval_policy(0.01))


class Flaky(Step):
    """Fails on the first attempt at every third piece of work."""

    def __init__(self) -> None:
        super().__init__()
        self.set_error_handler(ErrorHandler(ErrorStrategy.RETRY, max_retries=3, retry_delay=0.005))

    def act(self, works: list[dict[str, Any]]) -> None:
        if works[0]["seq"] % 3 == 0 and current().attempt == 1:
            raise ConnectionError("not this time")
        super().act(works)


class Outside(Step):
    """Calls the outside world: by a key, and once."""

    def act(self, works: list[dict[str, Any]]) -> None:
        (work,) = works
        name = name_of(work)

        def charge() -> str:
            token = uuid4().hex
            World.ledger.note("charged", name, token)
            return token

        token = current().once("charge", charge)
        World.ledger.note("had", name, token)
        self.emit("output", **{**work, "token": token})


class Pair(Step):
    """Sends both halves of a pair on their ways, of which one is longer."""

    def act(self, works: list[dict[str, Any]]) -> None:
        for work in works:
            self.emit("output", **work, pair=name_of(work))


class Match(Join):
    """Joins the halves by a key of theirs, and fails on the first attempt at every fifth pair."""

    def __init__(self) -> None:
        super().__init__()
        self.set_activation_policy(all_slots_ready_policy(by="pair"))
        self.set_error_handler(ErrorHandler(ErrorStrategy.RETRY, max_retries=3, retry_delay=0.005))

    def act(self, works: list[dict[str, Any]]) -> None:
        if works[0]["seq"] % 5 == 0 and current().attempt == 1:
            raise ConnectionError("not this time")
        super().act(works)


class Long(Step):
    """Sends its parts on one after the other, with a checkpoint behind each."""

    def act(self, works: list[dict[str, Any]]) -> None:
        (work,) = works
        for part in range(current().checkpointed or 0, PARTS):
            self.emit("output", **{**work, "kind": f"part {part}"})
            current().checkpoint(part + 1)
        self.emit("output", **work)


class Wide(Step):
    """Several at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.set_concurrency(4)


class Sour(Step):
    """Fails at random, and is driven again until it does not."""

    def __init__(self) -> None:
        super().__init__()
        self.set_error_handler(ErrorHandler(ErrorStrategy.SKIP))

    def act(self, works: list[dict[str, Any]]) -> None:
        if random.random() < 0.3:
            raise ValueError("sour")
        super().act(works)


class Night(Step):
    """Of a one-shot execution: what it does is counted by the worker, once."""

    def act(self, works: list[dict[str, Any]]) -> None:
        for work in works:
            World.runtime.post("works", "tally", "input", work, idempotency_key=name_of(work))


class Narrow(Step):
    """Its slot refuses what it has no room for."""

    def __init__(self) -> None:
        Routine.__init__(self)
        self.add_slot("input", max_queue_length=2, on_full="error")
        self.add_event("output")
        self.set_activation_policy(immediate_policy())


class Tally(Step):
    """Counts every piece of work in its state: what is below ``low`` has come, and what is in ``beyond``."""

    def act(self, works: list[dict[str, Any]]) -> None:
        for work in works:
            self._count(work)

    def _count(self, work: dict[str, Any]) -> None:
        state, name = current().state, name_of(work)
        counts = state.get_routine_state("tally", {})
        stream, seq = f"{work['kind']}:{work['stream']}", work["seq"]
        low, beyond = counts.get(stream, (0, []))
        if seq < low or seq in beyond:
            self._complain(state, "twice", name)
        if work["kind"] in ORDERED and beyond and seq < max(beyond):
            self._complain(state, "out of order", name)
        here = sorted({*beyond, seq})
        while here and here[0] == low:
            low += 1
            del here[0]
        state.update_routine_state("tally", {stream: [low, here]})
        if work["kind"] == "chain":
            state.shared_log.append(name)
            if current().job.get_data("steps") != 2:
                self._complain(state, "data of the job", name)
        if work["kind"] == "outside":
            state.shared_data[name] = work["token"]

    def _complain(self, state: Any, what: str, name: str) -> None:
        faults = state.get_routine_state("tally", {}).get("faults", [])
        state.update_routine_state("tally", {"faults": [*faults, f"{what}: {name}"]})


def build() -> Flow:
    flow = Flow("works")
    for name, routine in {
        "first": First(),
        "second": First(),
        "fan": Step(),
        "left": Step(),
        "right": Step(),
        "join": Join(),
        "loop": Loop(),
        "batch": Batch(),
        "bundle": Bundle(),
        "flaky": Flaky(),
        "outside": Outside(),
        "narrow": Narrow(),
        "pair": Pair(),
        "detour": Step(),
        "match": Match(),
        "long": Long(),
        "wide": Wide(),
        "sour": Sour(),
        "tally": Tally(),
    }.items():
        flow.add_routine(routine, name)
    for source, target, slot in [
        ("first", "second", "input"),
        ("fan", "left", "input"),
        ("fan", "right", "input"),
        ("left", "join", "input"),
        ("right", "join", "other"),
        ("pair", "match", "input"),
        ("pair", "detour", "input"),
        ("detour", "match", "other"),
    ]:
        flow.connect(source, "output", target, slot)
    flow.connect("loop", "again", "loop", "input")
    counted = (
        "second", "join", "loop", "batch", "bundle", "flaky", "outside", "narrow", "match", "long", "wide", "sour",
    )  # fmt: skip
    for source in counted:
        flow.connect(source, "output", "tally", "input")
    return flow


def build_night() -> Flow:
    flow = Flow("night")
    flow.add_routine(Night(), "night")
    return flow
