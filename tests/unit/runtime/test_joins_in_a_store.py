"""Joins by key find their partners among what waits in the store, in whichever order both come."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest

from routilux import Flow, Routine, Runtime
from routilux.activation_policies import all_slots_ready_policy, immediate_policy
from routilux.ports import Changes
from routilux.runtime.journal.joins import KIND
from routilux.runtime.journal.keys import digest_of
from routilux.store.memory import MemoryStore
from routilux.store.sqlite import SqliteStore
from routilux.testing import simulated
from tests.acceptance.parts import flow_of
from tests.waiting import SECONDS


class Pairs(Routine):
    """Joins by a key; remembers which pairs it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.by: str = "id"

    def logic(self, slot_data: Any, message: Any, state: Any) -> None:
        keys = {payload[self.by] for payloads in slot_data.values() for payload in payloads}
        assert len(keys) == 1
        assert all(len(payloads) == 1 for payloads in slot_data.values())
        state.shared_log.append([[slot, payloads[0]["n"]] for slot, payloads in slot_data.items()])


def pairing(
    *,
    capacity: int,
    slots: tuple[str, ...] = ("left", "right"),
    by: str = "id",
    timeout: float | None = None,
) -> Flow:
    """``a`` emits ``[event, key, n]`` lines in one activation, each into the slot of that name."""
    routine = Pairs()
    for slot in slots:
        routine.add_slot(slot, max_queue_length=capacity)
    routine.set_activation_policy(all_slots_ready_policy(by=by, timeout=timeout))

    class Spread(Routine):
        def __init__(self) -> None:
            super().__init__()
            self.add_slot("input")
            for slot in slots:
                self.add_event(slot)
            self.set_activation_policy(all_slots_ready_policy())

        def logic(self, slot_data: Any, message: Any, state: Any) -> None:
            for event, key, n in slot_data["input"][0]["lines"]:
                self.emit(event, id=key, n=n)

    flow = flow_of(Spread(), routine)
    for slot in slots:
        flow.connect("a", slot, "b", slot)
        flow.add_routine(Spread(), f"to {slot}")  # feeds one slot: another that is full does not hold it back
        flow.connect(f"to {slot}", slot, "b", slot)
    return flow


def send(runtime: Any, slot: str, lines: list[list[Any]]) -> Any:
    """One activation emits these ``[key, n]`` lines into a slot."""
    lines = [[slot, *line] for line in lines]
    return runtime.post("flow", f"to {slot}", "input", {"lines": lines}).job_context


def most_in_memory(runtime: Any, worker: Any) -> int:
    """The most items that a slot of the join has in memory, waiting or in complete sets."""
    return max(slot.length for slot in worker.control.nodes["b"].mailbox.slots.values())


def joined(worker: Any) -> list[Any]:
    return [sorted(pair) for pair in worker.shared_log]


HOUR = 3_600.0


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("order", ["one after the other", "alternating", "right first"])
@pytest.mark.parametrize("timeout", [None, HOUR])
def test_reversed_keys_are_all_joined_in_bounded_memory(seed: int, order: str, timeout: float | None) -> None:
    n = 60
    left = [["left", key, key] for key in range(n)]
    right = [["right", key, key] for key in reversed(range(n))]
    lines = {
        "one after the other": [*left, *right],
        "alternating": [line for pair in zip(left, right, strict=True) for line in pair],
        "right first": [*right, *left],
    }[order]
    store = MemoryStore()
    with simulated(seed, store=store) as runtime:
        worker = runtime.exec(pairing(capacity=5, timeout=timeout), worker_id="w")
        job = runtime.post("flow", "a", "input", {"lines": lines}).job_context
        while not job.status.finished and runtime.simulation.step():
            assert most_in_memory(runtime, worker) <= 2 * 5
        assert runtime.now < HOUR
        assert job.status == "completed"
        assert sorted(joined(worker)) == [[["left", key], ["right", key]] for key in range(n)]
        assert store.places("w") == []
        assert [note for note, _ in store.notes("w") if note.kind == KIND] == []


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("timeout", [None, HOUR])
@pytest.mark.parametrize("lives", [1, 2])
def test_an_item_with_a_place_in_memory_finds_its_partner_in_the_store(
    seed: int, timeout: float | None, lives: int
) -> None:
    """Most of the left items wait in the store when the right ones come, one at a time."""
    n, store = 30, MemoryStore()
    for life in range(lives):
        with simulated(seed + 100 * life, store=store) as runtime:
            worker = runtime.exec(pairing(capacity=4, timeout=timeout), worker_id="w")
            if life == 0:
                send(runtime, "left", [[key, key] for key in range(n)])
                runtime.run(1.0)
            for key in reversed(range(n // lives * life, n // lives * (life + 1))):
                send(runtime, "right", [[key, key]])
            runtime.run(1.0)
            assert sorted(joined(worker)) == [
                [["left", key], ["right", key]] for key in range(n // lives * (life + 1))
            ]
            runtime.shutdown(wait=False)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("by", ["id", "job"])
@pytest.mark.parametrize("at_once", [True, False])
def test_of_equal_keys_the_oldest_of_each_slot_are_joined(seed: int, by: str, at_once: bool) -> None:
    """Some have a place in memory, which they have not taken yet when others are in the store already."""
    lines = [[slot, "key", n] for n in range(6) for slot in ("left", "right")]
    with simulated(seed, store=MemoryStore()) as runtime:
        flow = pairing(capacity=2, by=by)
        flow.routines["b"].by = "id"  # type: ignore[attr-defined]
        worker = runtime.exec(flow, worker_id="w")
        runtime.pause(worker)
        for sent in [lines] if at_once else [lines[n : n + 4] for n in range(0, 12, 4)]:
            runtime.post("flow", "a", "input", {"lines": sent}, job_id="one" if by == "job" else None)
        runtime.resume(worker)
        runtime.run()
        assert joined(worker) == [[["left", n], ["right", n]] for n in range(6)]


def one_by_one(capacity: int, *, is_async: bool = False, timeout: float | None = None) -> Flow:
    """``left`` and ``right`` each pass on one item of the join in an activation."""

    class Pass(Routine):
        def __init__(self) -> None:
            super().__init__()
            self.add_slot("input", max_queue_length=4_000)
            self.add_event("output")
            self.set_activation_policy(immediate_policy())

        def logic(self, slot_data: Any, message: Any, state: Any) -> None:
            self.emit("output", **slot_data["input"][0])

    class AsyncPass(Pass):
        async def logic(self, slot_data: Any, message: Any, state: Any) -> None:  # type: ignore[override]
            self.emit("output", **slot_data["input"][0])

    flow, pairs = Flow("flow"), Pairs()
    for slot in ("left", "right"):
        pairs.add_slot(slot, max_queue_length=capacity)
    flow.add_routine(pairs.set_activation_policy(all_slots_ready_policy(by="id", timeout=timeout)), "b")
    for slot in ("left", "right"):
        flow.add_routine(AsyncPass() if is_async else Pass(), slot)
        flow.connect(slot, "output", "b", slot)
    return flow


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("timeout", [None, HOUR])
def test_feeders_of_a_full_join_go_on_where_the_partners_can_only_be_behind_them(
    seed: int, is_async: bool, timeout: float | None
) -> None:
    n = 30
    with simulated(seed, store=MemoryStore()) as runtime:
        worker = runtime.exec(one_by_one(5, is_async=is_async, timeout=timeout), worker_id="w")
        for slot, keys in (("left", range(n)), ("right", reversed(range(n)))):
            for key in keys:
                runtime.post("flow", slot, "input", {"id": key, "n": key})
        while len(worker.shared_log) < n and runtime.simulation.step():
            assert most_in_memory(runtime, worker) <= 2 * 5
        assert sorted(joined(worker)) == [[["left", key], ["right", key]] for key in range(n)]
        assert runtime.wait_until_all_jobs_finished()
        assert runtime.now < HOUR


def test_while_a_post_waits_for_a_full_join_its_time_out_makes_room() -> None:
    with simulated(1, store=MemoryStore()) as runtime:
        worker = runtime.exec(one_by_one(1, timeout=60.0), worker_id="w")
        for slot, key in (("left", 1), ("right", 2), ("left", 3)):
            runtime.post("flow", "b", slot, {"id": key, "n": key}, timeout=HOUR)
        assert worker.counters("b")["slots"]["left"]["queued"] == 1
        assert runtime.dead_letters()[0].data == {"id": 1, "n": 1}


def test_while_a_slot_of_a_join_has_room_its_feeders_wait_for_a_post() -> None:
    with simulated(1, store=MemoryStore()) as runtime:
        worker = runtime.exec(one_by_one(5), worker_id="w")
        for key in range(20):
            runtime.post("flow", "left", "input", {"id": key, "n": key})
        runtime.run()
        assert worker.counters("b")["slots"]["left"]["queued"] == 5
        assert worker.counters("left")["queued"] == 15


def test_two_thousand_one_by_one_in_reversed_order_are_joined_on_sqlite(tmp_path: Path) -> None:
    n = 2_000
    with Runtime(store=SqliteStore(tmp_path / "s.db", durability="process"), max_queue_size=2 * n) as runtime:
        worker = runtime.exec(one_by_one(20), worker_id="w")
        runtime.pause(worker)
        for slot, keys in (("left", range(n)), ("right", reversed(range(n)))):
            for key in keys:
                runtime.post("flow", slot, "input", {"id": key, "n": key})
        runtime.resume(worker)
        assert runtime.wait_until_all_jobs_finished(timeout=4 * SECONDS)
        assert sorted(joined(worker)) == [[["left", key], ["right", key]] for key in range(n)]


@pytest.mark.parametrize("timeout", [None, HOUR])
def test_three_thousand_and_three_thousand_reversed_join_on_sqlite(
    tmp_path: Path, timeout: float | None
) -> None:
    n = 3_000
    lines = [*(["left", key, key] for key in range(n)), *(["right", key, key] for key in reversed(range(n)))]
    with Runtime(store=SqliteStore(tmp_path / "s.db", durability="process")) as runtime:
        worker = runtime.exec(pairing(capacity=1_000, timeout=timeout), worker_id="w")
        job = runtime.post("flow", "a", "input", {"lines": lines}).job_context
        assert job.wait(4 * SECONDS)
        assert job.status == "completed"
        assert sorted(joined(worker)) == [[["left", key], ["right", key]] for key in range(n)]


@pytest.mark.parametrize("cuts", [0, 1, 3])
@pytest.mark.parametrize("seed", range(30))
def test_every_complete_set_is_joined_exactly_once_whenever_the_program_ends(seed: int, cuts: int) -> None:
    rng = Random(f"joins {seed} {cuts}")
    slots = ("left", "right", "third")[: rng.choice((2, 2, 3))]
    capacity, keys = rng.randint(1, 5), rng.randint(1, 12)
    store, sent = MemoryStore(), Counter[tuple[str, Any]]()
    numbers = iter(range(10_000))
    for life in range(cuts + 1):
        with simulated(seed + 1_000 * life, store=store) as runtime:
            worker = runtime.exec(pairing(capacity=capacity, slots=slots), worker_id="w")
            for _ in range(rng.randint(1, 6)):
                lines = [[rng.randrange(keys), next(numbers)] for _ in range(rng.randint(0, 12))]
                slot = rng.choice(slots)
                send(runtime, slot, lines)
                sent.update((slot, key) for key, _ in lines)
                for _ in range(rng.choice((0, 3, 10, 40))):
                    runtime.simulation.step()
            if life < cuts:
                continue  # what is on its way waits for the next life
            runtime.run()
            log = joined(worker)
            waiting = Counter(
                (slot, worker.control.decode(row.data, "")["id"])
                for slot in slots
                for row in store.items("w", f"b.{slot}")
            )
            for slot in slots:  # those that are held back because their slot is full have emitted nothing
                held = [
                    worker.control.decode(row.data, "")["lines"]
                    for row in store.items("w", f"to {slot}.input")
                ]
                sent.subtract((slot, key) for lines in held for _, key, _ in lines)
            assert not [key for key in range(keys) if all(waiting[slot, key] for slot in slots)]
            assert len(log) == sum(min(sent[slot, key] for slot in slots) for key in range(keys))
            taken = [tuple(item) for joined_set in log for item in joined_set]
            assert len(set(taken)) == len(taken)
            notes = {note for note, _ in store.notes("w") if note.kind == KIND}
            stored = {(place, row.number) for place in store.places("w") for row in store.items("w", place)}
            assert {(note.owner, int(note.name.partition(":")[2])) for note in notes} <= stored


@pytest.mark.parametrize("seed", range(10))
def test_what_an_older_version_has_stored_without_notes_is_found_too(seed: int) -> None:
    store, n = MemoryStore(), 30
    with simulated(seed, store=store) as runtime:
        worker = runtime.exec(pairing(capacity=3), worker_id="w")
        send(runtime, "left", [[key, key] for key in range(n)])
        runtime.run()
        runtime.shutdown(wait=False)
    as_before_notes(store)
    with simulated(seed + 100, store=store) as runtime:
        worker = runtime.exec(pairing(capacity=3), worker_id="w")
        send(runtime, "right", [[key, key] for key in reversed(range(n))])
        runtime.run()
        assert sorted(joined(worker)) == [[["left", key], ["right", key]] for key in range(n)]
        assert store.notes("w", with_jobs=False) == []


def as_before_notes(store: MemoryStore) -> None:
    changes, row = Changes(), store.worker("w")
    assert row is not None
    changes.workers = {"w": row._replace(data=b'{"named":true}')}
    changes.notes = {note: None for note, _ in store.notes("w") if note.kind == KIND}
    assert changes.notes
    store.write(changes)


@pytest.mark.parametrize("seed", range(10))
def test_items_of_one_job_are_joined_from_the_store(seed: int) -> None:
    store = MemoryStore()
    with simulated(seed, store=store) as runtime:
        flow = pairing(capacity=2, by="job")
        flow.routines["b"].by = "n"  # type: ignore[attr-defined]
        worker = runtime.exec(flow, worker_id="w")
        runtime.pause(worker)
        for n in range(20):
            slots = ("left", "right") if n % 2 else ("right", "left")
            runtime.post("flow", "a", "input", {"lines": [[slot, None, n] for slot in slots]})
        runtime.resume(worker)
        runtime.run()
        assert sorted(joined(worker)) == [[["left", n], ["right", n]] for n in range(20)]
        assert store.places("w") == []


@pytest.mark.parametrize("seed", range(10))
def test_a_partner_of_a_paused_job_is_joined_when_its_job_goes_on(seed: int) -> None:
    with simulated(seed, store=MemoryStore()) as runtime:
        worker = runtime.exec(pairing(capacity=2), worker_id="w")
        first = send(runtime, "left", [[key, key] for key in range(10)])
        runtime.run(0.0)
        runtime.pause(first)
        send(runtime, "right", [[key, key] for key in reversed(range(10))])
        runtime.run()
        runtime.resume(first)
        runtime.run()
        assert sorted(joined(worker)) == [[["left", key], ["right", key]] for key in range(10)]


def test_equal_keys_have_one_digest_and_others_have_not() -> None:
    same = [(1, 1.0, True, Decimal(1)), ("a", type("Name", (str,), {})("a")), ((1, "b"), (1.0, "b"))]
    for keys in same:
        assert len({digest_of("id", key) for key in keys}) == 1, keys
    others = [
        0,
        1,
        "1",
        b"1",
        None,
        "",
        "-",
        (1,),
        ("1",),
        ((),),
        date(2026, 1, 1),
        datetime(2026, 1, 1),
        "\ud800",
    ]
    assert len({digest_of("id", key) for key in others}) == len(others)
    assert digest_of("id", 1) != digest_of("key", 1)


def test_keys_that_share_a_digest_are_told_apart() -> None:
    keys = [frozenset({n}) for n in range(20)]
    assert len({digest_of("id", key) for key in keys}) == 1
    with simulated(3, store=MemoryStore()) as runtime:
        worker = runtime.exec(pairing(capacity=2), worker_id="w")
        left = [["left", key, n] for n, key in enumerate(keys)]
        right = [["right", key, n] for n, key in reversed([*enumerate(keys)])]
        runtime.post("flow", "a", "input", {"lines": [*left, *right]})
        runtime.run()
        assert sorted(joined(worker)) == [[["left", n], ["right", n]] for n in range(20)]


def test_a_join_in_memory_alone_writes_no_notes() -> None:
    store = MemoryStore()
    with Runtime(store=store) as runtime:
        worker = runtime.exec(pairing(capacity=10), worker_id="w")
        lines = [[slot, n, n] for slot in ("left", "right") for n in range(5)]
        job = runtime.post("flow", "a", "input", {"lines": lines}).job_context
        assert job.wait(SECONDS)
        assert len(worker.shared_log) == 5
