"""Equal keys of a state are one key, the first of them, in memory, in the store, and after a restart: as in a dict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any, ClassVar

import pytest

from routilux import Flow, Routine, Runtime
from routilux.activation_policies import immediate_policy
from routilux.errors import InvalidValueError
from routilux.store.memory import MemoryStore
from tests.waiting import SECONDS, eventually

KEYS = [
    "a",
    "1",
    "",
    1,
    True,
    1.0,
    2,
    2.0,
    0,
    False,
    -0.0,
    None,
    (1, "a"),
    (True, "a"),
    (1.0, "a"),
    2**60,
    float(2**60),
]


class Does(Routine):
    """Does with its state, and the shared data, what the test says."""

    steps: ClassVar[list[Callable[[Any], None]]] = []

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        for step in self.steps:
            for mapping in (self.state, state.shared_data):
                step(mapping)


def flow() -> Flow:
    made = Flow("f")
    made.add_routine(Does(), "r")
    return made


def exact(mapping: Any) -> list[tuple[str, Any]]:
    return sorted((f"{type(key).__name__} {key!r}", value) for key, value in dict(mapping).items())


def draw(random: Random) -> tuple[bool, Callable[[Any], None]]:
    """Whether it deletes, and a step."""
    key, value = random.choice(KEYS), random.randrange(100)
    kind = random.choice(["set", "set", "delete", "update", "add", "read and delete", "default"])

    def step(mapping: Any) -> None:
        if kind == "set":
            mapping[key] = value
        elif kind == "delete":
            mapping.pop(key, None)
        elif kind == "update":
            mapping.update({key: value, "a": value})
        elif kind == "add":
            if isinstance(mapping, dict):
                mapping[key] = mapping.get(key, 0) + value
            else:
                mapping.add(key, value)
        elif kind == "default":
            mapping.setdefault(key, value)
        elif key in mapping:
            del mapping[key]

    return "delete" in kind, step


def lives(store: MemoryStore) -> Iterator[tuple[Runtime, Any]]:
    while True:
        with Runtime(store=store) as runtime:
            yield runtime, runtime.exec(flow(), worker_id="w")


@pytest.mark.parametrize("seed", range(30))
def test_a_state_in_a_store_is_what_a_dict_is(seed: int) -> None:
    random, model = Random(seed), dict[Any, Any]()
    for runtime, worker in lives(MemoryStore()):
        assert exact(worker.get_routine_state("r") or {}) == exact(model), f"seed {seed}"
        assert exact(worker.shared_data) == exact(model), f"seed {seed}"
        if random.random() < 0.1:
            return
        for _ in range(random.randrange(4)):
            # What one activation deletes and sets again keeps its name; in a dict it would get the new one.
            drawn = sorted((draw(random) for _ in range(random.randrange(1, 4))), key=lambda one: one[0])
            Does.steps = [step for _, step in drawn]
            for step in Does.steps:
                step(model)
            if random.random() < 0.5:
                assert runtime.post("f", "r", "input", {}).job_context.wait(SECONDS)
                continue
            for step in Does.steps:
                step(worker.state_of("r"))
                step(worker.shared_data)
        assert exact(worker.shared_data) == exact(model), f"seed {seed}"


def test_a_state_that_is_set_is_just_that() -> None:
    store = MemoryStore()
    for n, (_, worker) in enumerate(lives(store)):
        if n == 2:
            assert exact(worker.get_routine_state("r")) == exact({True: "b", "kept": 3})
            assert len([note for note, _ in store.notes("w") if note.kind == "state"]) == 2
            return
        worker.update_routine_state("r", {"draft": 1, 1: "a", 2: "x"})
        worker.set_routine_state("r", {True: "b", "kept": 3})


def test_a_state_is_set_and_updated_as_a_whole() -> None:
    """What was changed by one call is in the store together, or not at all."""
    written: list[int] = []

    class Counts(MemoryStore):
        def write(self, changes: Any) -> Any:
            written.append(len(changes.notes))
            return super().write(changes)

    for _, worker in lives(Counts()):
        written.clear()
        worker.update_routine_state("r", {str(n): n for n in range(50)})
        eventually(lambda: any(written))
        assert [n for n in written if n] == [50]
        return


def test_rows_that_an_older_version_made_of_equal_keys_become_one() -> None:
    from routilux.ports import NoteKey
    from routilux.testing.store_rows import changes

    store = MemoryStore()
    for n, (_, worker) in enumerate(lives(store)):
        if n == 0:
            worker.shared_data["a"] = 0
        elif n == 1:
            assert dict(worker.shared_data) == {"a": 0, 1: "new"}
            del worker.shared_data[1.0]
        else:
            assert dict(worker.shared_data) == {"a": 0}
            return
        if n == 0:
            eventually(lambda: store.notes("w"))
            store.write(
                changes(
                    notes={
                        NoteKey("w", "shared", "", "1"): b'"old"',
                        NoteKey("w", "shared", "", "true"): b'"new"',
                    }
                )
            )


def test_a_key_that_equals_nothing_is_refused() -> None:
    for _, worker in lives(MemoryStore()):
        with pytest.raises(
            InvalidValueError, match="key of shared_data: expected a key that equals itself, got nan"
        ):
            worker.shared_data[float("nan")] = 1
        assert dict(worker.shared_data) == {}
        return
