"""With a store the rules of a slot are those of memory, and no payload can stop the journal."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from routilux import ErrorHandler, Flow, Routine, Runtime
from routilux.activation_policies import (
    all_slots_ready_policy,
    batch_size_policy,
    custom_policy,
    immediate_policy,
    time_interval_policy,
)
from routilux.errors import InvalidValueError, QueueFullError, RoutiluxError
from routilux.ports import Changes, ItemKey
from routilux.store.codec import register
from routilux.store.memory import MemoryStore
from routilux.testing import simulated
from tests.acceptance.parts import Step, flow_of, join, step
from tests.waiting import SECONDS

UNFIT = {
    "no key": {"x": 1},
    "a key that cannot be hashed": {"id": [1]},
    "a key that cannot be hashed further in": {"id": (1, [2])},
}
unfit = pytest.mark.parametrize("payload", UNFIT.values(), ids=list(UNFIT))
stored = pytest.mark.parametrize("stored", [False, True], ids=["in memory", "with a store"])


class Loud:
    """Can be hashed; what is read back cannot."""

    def __init__(self, text: str, *, hashable: bool = True) -> None:
        self.text, self.hashable = text, hashable

    def __hash__(self) -> int:
        if not self.hashable:
            raise ZeroDivisionError("no hash")
        return hash(self.text)


register(
    Loud,
    encode=lambda loud: {"text": loud.text},
    decode=lambda data: Loud(**data, hashable=False),
    name="loud",
)


def joining(source: Step | None = None, **options: Any) -> Flow:
    """``a`` emits into both slots of ``b``, which joins by ``id``."""
    flow = flow_of(
        source or step(lambda routine, payload, state: routine.emit("output", **payload)),
        join(all_slots_ready_policy(by="id")),
    )
    for slot in ("left", "right"):
        flow.connect("a", "output", "b", slot, **options)
    return flow


def store_if(stored: bool) -> MemoryStore | None:
    return MemoryStore() if stored else None


# -- payloads without a join key -------------------------------------------------------------------------------


@unfit
@stored
def test_a_post_without_a_join_key_is_refused_and_nothing_of_it_is_there(
    payload: dict[str, Any], stored: bool
) -> None:
    with Runtime(store=store_if(stored)) as runtime:
        runtime.exec(joining(), worker_id="w")
        with pytest.raises(InvalidValueError, match=r"'id'.*'b\.left'|'b\.left'.*'id'"):
            runtime.post("flow", "b", "left", payload)
        assert runtime.list_jobs() == []
        assert runtime.health().status == "ok"
        assert runtime.post("flow", "a", "input", {"id": 1}).job_context.wait(SECONDS)


@unfit
@stored
def test_an_emit_without_a_join_key_raises_in_the_logic_before_anything_is_sent(
    payload: dict[str, Any], stored: bool
) -> None:
    raised: list[BaseException] = []

    def logic(routine: Any, given: Any, state: Any) -> None:
        try:
            routine.emit("output", **given["emit"])
        except InvalidValueError as error:
            raised.append(error)
        routine.emit("output", id=1)

    with Runtime(store=store_if(stored)) as runtime:
        worker = runtime.exec(joining(step(logic)), worker_id="w")
        job = runtime.post("flow", "a", "input", {"emit": payload}).job_context
        assert job.wait(SECONDS)
        assert [output.data["left"] for output in job.outputs] == [[{"id": 1}]]
        assert len(raised) == 1
        assert worker.flow_id == "flow"


@stored
def test_the_key_that_counts_is_the_one_that_a_mapping_gives(stored: bool) -> None:
    with Runtime(store=store_if(stored)) as runtime:
        flow = joining(mapping={"number": "id"})
        runtime.exec(flow, worker_id="w")
        job = runtime.post("flow", "a", "input", {"number": 1}).job_context
        assert job.wait(SECONDS)
        assert job.status == "completed"
        assert len(job.outputs) == 1
        renamed = runtime.post("flow", "a", "input", {"other": 1}).job_context
        renamed.wait(SECONDS)
        assert renamed.status == "failed"
        assert isinstance(renamed.error.__cause__, InvalidValueError)


@stored
def test_an_execution_whose_parameters_have_no_join_key_is_refused(stored: bool) -> None:
    flow = flow_of(join(all_slots_ready_policy(by="id")))
    with Runtime(store=store_if(stored)) as runtime:
        with pytest.raises(InvalidValueError, match="id"):
            runtime.exec(flow, entry_params={"x": 1}, entry="a.left")
        assert runtime.list_jobs() == []
        flow.add_routine(step(lambda *_: None), "free to be changed")


def test_what_is_read_back_is_the_key_that_counts() -> None:
    with Runtime(store=MemoryStore()) as runtime:
        runtime.exec(joining(), worker_id="w")
        with pytest.raises(InvalidValueError, match="hashable"):
            runtime.post("flow", "b", "left", {"id": Loud("hello")})
        job = runtime.post("flow", "a", "input", {"id": 1}).job_context
        assert job.wait(SECONDS)
        assert runtime.health().status == "ok"


def test_an_item_without_a_join_key_of_an_older_version_is_a_dead_letter_and_the_rest_goes_on() -> None:
    store = MemoryStore()
    with Runtime(store=store) as runtime:
        runtime.exec(joining(), worker_id="w")
        for n in range(3):
            assert runtime.post("flow", "b", "left", {"id": n}).job_context.wait(SECONDS)
        runtime.shutdown(wait=False)
    alter(store, "b.left", 1, b'{"x": 1}')
    with Runtime(store=store) as runtime:
        runtime.exec(joining(), worker_id="w")
        assert runtime.post("flow", "b", "right", {"id": 2}).job_context.wait(SECONDS)
        assert [(letter.reason, letter.data) for letter in runtime.dead_letters()] == [
            ("no join key", {"x": 1})
        ]
        assert runtime.health().status == "ok"
        assert len(store.items("w", "b.left")) == 1
        with pytest.raises(InvalidValueError, match="id"):
            runtime.redrive(runtime.dead_letters()[0])
        assert len(runtime.dead_letters()) == 1


def alter(store: MemoryStore, place: str, at: int, data: bytes) -> None:
    """Give an item of the store another payload."""
    row = store.items("w", place)[at]
    for kind, value in (("taken", ItemKey(*row[:3])), ("items", row._replace(data=data))):
        changes = Changes()
        getattr(changes, kind).append(value)
        store.write(changes)


def test_an_item_beyond_a_full_slot_that_can_not_be_read_any_more_is_a_dead_letter() -> None:
    store = MemoryStore()
    seen: list[int] = []

    def flow() -> Flow:
        return flow_of(step(lambda routine, payload, state: seen.append(payload["n"]), max_queue_length=2))

    with Runtime(store=store) as runtime:
        worker = runtime.exec(flow(), worker_id="w")
        runtime.pause(worker)
        for n in range(2):
            runtime.post("flow", "a", "input", {"n": n})
        runtime.shutdown(wait=False)
    beyond(store, "a.input", b'{"$type": "nobody.knows.it", "value": 1}', b'{"n": 2}')
    with Runtime(store=store) as runtime:
        worker = runtime.exec(flow(), worker_id="w")
        runtime.resume(worker)
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        assert seen == [0, 1, 2]
        assert runtime.health().status == "ok"
        assert [letter.reason for letter in store.letters()] == ["unreadable"]


def beyond(store: MemoryStore, place: str, *payloads: bytes) -> None:
    """Put items behind the last one of a place."""
    last = store.items("w", place)[-1]
    changes = Changes()
    changes.items = [last._replace(number=last.number + 1 + n, data=data) for n, data in enumerate(payloads)]
    changes.counts = {store.jobs()[-1].row.job_id: len(payloads)}
    store.write(changes)


def test_a_dead_letter_has_the_stored_payload_where_logic_has_put_something_without_a_form_into_it() -> None:
    def logic(routine: Any, payload: Any, state: Any) -> None:
        payload["lock"] = object()
        raise OSError("no")

    with Runtime(store=MemoryStore()) as runtime:
        runtime.exec(flow_of(step(logic)), worker_id="w")
        runtime.post("flow", "a", "input", {"n": 1}).job_context.wait(SECONDS)
        assert [letter.data for letter in runtime.dead_letters()] == [{"n": 1}]
        assert runtime.health().status == "ok"


# -- full slots ------------------------------------------------------------------------------------------------


def spreading(on_full: str, count: int, consume: Callable[..., Any], **source: Any) -> Flow:
    """One activation of ``a`` emits ``count`` items into a slot of three."""

    def spread(routine: Any, payload: Any, state: Any) -> None:
        for n in range(count):
            routine.emit("output", n=n)

    spreader = step(spread)
    if source:
        spreader.set_error_handler(ErrorHandler(**source))
    flow = flow_of(spreader, step(consume, max_queue_length=3, on_full=on_full))
    flow.connect("a", "output", "b", "input")
    return flow


@pytest.mark.parametrize(("on_full", "left"), [("drop_old", [6, 7, 8]), ("drop_new", [0, 1, 2])])
@pytest.mark.parametrize("seed", range(5))
def test_drops_are_those_of_memory_where_one_activation_emits_more_than_fits(
    on_full: str, left: list[int], seed: int
) -> None:
    store, seen = MemoryStore(), list[int]()
    flow = spreading(on_full, 9, lambda routine, payload, state: seen.append(payload["n"]))
    with simulated(seed, store=store) as runtime:
        worker = runtime.exec(flow, worker_id="w")
        job = runtime.post("flow", "a", "input", {}).job_context
        runtime.run()
        assert (job.status, seen) == ("completed", left)
        assert flow.routines["b"].stats(worker)["dropped"] == 6
        reasons = {entry["reason"] for entry in job.trace_log if entry["action"] == "dropped"}
        assert reasons == {f"slot full, {'oldest' if on_full == 'drop_old' else 'newest'} dropped"}
        assert store.items("w", "b.input") == []


def test_the_oldest_of_an_earlier_activation_is_dropped_although_it_is_not_written_yet() -> None:
    seen: list[int] = []

    def spread(routine: Any, payload: Any, state: Any) -> None:
        for n in payload["all"]:
            routine.emit("output", n=n)

    for seed in range(20):
        seen.clear()
        flow = flow_of(
            step(spread),
            step(
                lambda routine, payload, state: seen.append(payload["n"]),
                max_queue_length=3,
                on_full="drop_old",
            ),
        )
        flow.connect("a", "output", "b", "input")
        with simulated(seed, store=MemoryStore()) as runtime:
            worker = runtime.exec(flow, worker_id="w")
            jobs = [
                runtime.post("flow", "a", "input", {"all": all_}).job_context for all_ in ([0, 1], [2, 3, 4])
            ]
            runtime.run()
            assert [job.status for job in jobs] == ["completed", "completed"]
            dropped = flow.routines["b"].stats(worker)["dropped"]
            assert len(seen) + dropped == 5, (seed, seen)
            assert seen == sorted(seen)
            assert seen[-2:] == [
                3,
                4,
            ]  # what is just being delivered cannot be dropped any more, but what follows it


def test_an_emit_into_a_full_slot_that_refuses_raises_in_the_logic() -> None:
    refused: list[int] = []

    def spread(routine: Any, payload: Any, state: Any) -> None:
        for n in range(9):
            try:
                routine.emit("output", n=n)
            except QueueFullError:
                refused.append(n)

    seen: list[int] = []
    flow = flow_of(
        step(spread),
        step(lambda routine, payload, state: seen.append(payload["n"]), max_queue_length=3, on_full="error"),
    )
    flow.connect("a", "output", "b", "input")
    with simulated(1, store=MemoryStore()) as runtime:
        runtime.exec(flow, worker_id="w")
        job = runtime.post("flow", "a", "input", {}).job_context
        runtime.run()
        assert (job.status, seen, refused) == ("completed", [0, 1, 2], [3, 4, 5, 6, 7, 8])


def test_an_activation_that_a_full_slot_refuses_leaves_nothing() -> None:
    store, seen = MemoryStore(), list[int]()
    flow = spreading("error", 9, lambda routine, payload, state: seen.append(payload["n"]))
    with simulated(1, store=store) as runtime:
        runtime.exec(flow, worker_id="w")
        job = runtime.post("flow", "a", "input", {}).job_context
        runtime.run()
        assert (job.status, seen) == ("failed", [])
        assert isinstance(job.error.__cause__, QueueFullError)
        assert "emitted 3 more" in str(job.error.__cause__)
        assert store.places("w") == []


def test_what_was_emitted_into_a_slot_that_others_have_filled_waits_in_the_store() -> None:
    seen: list[str] = []
    flow = Flow("flow")
    for routine_id in ("a", "b"):

        def spread(routine: Any, payload: Any, state: Any, me: str = routine_id) -> None:
            for n in range(2):
                routine.emit("output", n=f"{me}{n}")
            if me == "a":  # the other one ends first, and fills the slot
                state.control.runtime.post("flow", "b", "input", {}, timeout=None)
                while worker.control.nodes["b"].mailbox.activations == 0:
                    assert runtime.simulation.step()

        flow.add_routine(step(spread), routine_id)
    flow.add_routine(
        step(lambda routine, payload, state: seen.append(payload["n"]), max_queue_length=3, on_full="error"),
        "c",
    )
    for routine_id in ("a", "b"):
        flow.connect(routine_id, "output", "c", "input")
    # The logic drives the simulation itself, which it cannot inside a step of the committer.
    with simulated(1, interruption=0.0, store=MemoryStore()) as runtime:
        worker = runtime.exec(flow, worker_id="w")
        gate_closed = Closed()
        worker.control.gates.set_gate(worker.control.nodes["c"], gate_closed)
        job = runtime.post("flow", "a", "input", {}).job_context
        runtime.run()
        assert seen == []
        worker.control.gates.set_gate(worker.control.nodes["c"], None)
        runtime.run()
        assert job.status == "completed"
        assert seen == ["b0", "b1", "a0", "a1"]


class Closed:
    """A gate that lets nothing start."""

    def holds_activation(self, *_: object) -> bool:
        return True

    def holds_item(self, *_: object) -> bool:
        return False


# -- anything into everything ----------------------------------------------------------------------------------

POLICIES: tuple[Callable[[], Any], ...] = (
    immediate_policy,
    lambda: all_slots_ready_policy(),
    lambda: all_slots_ready_policy(by="id"),
    lambda: all_slots_ready_policy(by="job"),
    lambda: batch_size_policy(2),
    lambda: time_interval_policy(0.5),
    lambda: custom_policy(lambda slots, state: len(slots["left"][0]["id"]) > 1),
)
MERGES: tuple[Any, ...] = ("queue", "override", "append", lambda old, new: {"sum": old["sum"] + new["id"]})


def draw_payload(rng: Random) -> dict[str, Any]:
    values: tuple[Any, ...] = (
        1, 1.5, float("nan"), None, True, "text", "", "\ud800", b"bytes", [1], (1, 2), (1, [2]), {"a": 1},
        {1: 2}, frozenset({1}), {1}, object(), Loud("a"), Loud("b", hashable=False), 2**80, "x" * 300,
    )  # fmt: skip
    names = ("id", "sum", "$type", "", "other", "id")
    return {rng.choice(names): rng.choice(values) for _ in range(rng.randrange(4))}


class TakesAnything(Routine):
    """Emits what it takes, and spoils it."""

    def __init__(self) -> None:
        super().__init__()
        self.add_event("output")
        self.set_error_handler(ErrorHandler("continue"))

    def logic(self, slot_data: Any, message: Any, state: Any) -> None:
        for payloads in slot_data.values():
            for payload in payloads:
                emitted = dict(payload)
                payload["seen"] = object()
                self.emit("output", **emitted)


def draw_flow(rng: Random) -> Flow:
    """Two routines of two slots each, the one behind the other."""
    flow = Flow("flow")
    for routine_id in ("a", "b"):
        routine = TakesAnything()
        options: dict[str, Any] = {
            "merge_strategy": rng.choice(MERGES),
            "max_queue_length": rng.choice((2, 3, 100)),
            "on_full": rng.choice(("error", "drop_new", "drop_old")),
        }
        for slot in ("left", "right"):
            routine.add_slot(slot, **options)
        routine.set_activation_policy(rng.choice(POLICIES)())
        flow.add_routine(routine, routine_id)
    for slot in ("left", "right"):
        flow.connect("a", "output", "b", slot, mapping=rng.choice((None, {"other": "id"})))
    return flow


@pytest.mark.parametrize("seed", range(60))
def test_no_payload_stops_the_journal_or_the_next_opening(seed: int) -> None:
    store = MemoryStore()
    for life in range(2):
        rng, flow = Random(f"payloads {seed} {life}"), draw_flow(Random(f"flow {seed}"))
        with simulated(seed, store=store) as runtime:
            runtime.exec(flow, worker_id="w")
            for _ in range(20):
                try:
                    runtime.post("flow", rng.choice("ab"), rng.choice(("left", "right")), draw_payload(rng))
                except (RoutiluxError, TypeError):
                    pass  # refused where it was posted
                if rng.random() < 0.4:
                    runtime.run(seconds=1.0)
            runtime.run(seconds=5.0)
            health = runtime.health()
            assert health.status == "ok", health
            runtime.dead_letters()


def test_what_an_activation_merged_whose_job_was_cancelled_meanwhile_is_discarded_with_it() -> None:
    seen: list[list[str]] = []

    class Merging(Routine):
        def __init__(self) -> None:
            super().__init__()
            self.add_slot("input", merge_strategy=lambda old, new: {"all": [*old.get("all", ()), new["n"]]})
            self.set_activation_policy(immediate_policy())

        def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            seen.append(slot_data["input"][0]["all"])
            if seen[-1][-1] == "cancelled":
                state.control.runtime.cancel("job cancelled")

    store, flow = MemoryStore(), flow_of(Merging())
    with simulated(1, store=store) as runtime:
        runtime.exec(flow, worker_id="w")
        for n in ("first", "cancelled", "second"):
            runtime.post("flow", "a", "input", {"n": n}, job_id=f"job {n}")
            runtime.run()
    with simulated(2, store=store) as runtime:
        runtime.recover(flows=[flow])
        runtime.post("flow", "a", "input", {"n": "third"})
        runtime.run()
    assert seen == [["first"], ["first", "cancelled"], ["first", "second"], ["first", "second", "third"]]


@stored
def test_what_a_paused_job_shares_with_others_goes_on_when_it_is_cancelled(stored: bool) -> None:
    def spread(slot_data: Any, policy_message: Any, state: Any) -> None:
        state.control.runtime.pause("job paused")  # from here on what comes of both is held back
        batching.emit("output", n=len(slot_data["input"]))

    seen: list[int] = []
    batching = step(lambda routine, payload, state: None)
    batching.set_activation_policy(batch_size_policy(2)).set_logic(spread)
    flow = flow_of(batching, step(lambda routine, payload, state: seen.append(payload["n"])))
    flow.connect("a", "output", "b", "input")
    with simulated(1, store=store_if(stored)) as runtime:
        runtime.exec(flow, worker_id="w")
        jobs = [
            runtime.post("flow", "a", "input", {}, job_id=f"job {name}").job_context
            for name in ("parked", "paused")
        ]
        runtime.run()
        assert (seen, [job.status for job in jobs]) == ([], ["completed", "running"])
        runtime.cancel("job paused")
        runtime.run()
        assert (seen, [job.status for job in jobs]) == ([2], ["completed", "cancelled"])
