"""Random programs change states at the same time, and it is as if they had done so one after the other.

Each activation runs a small program of reads, assignments, changes in place, ``add`` and ``change`` on its routine's
state and on ``shared_data``, with other activations in between. In ``shared_log``, which takes effect with it, it
notes what it has seen. Afterwards the programs are run one after the other, in that order, on plain dicts, and must
see the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from copy import deepcopy
from random import Random
from typing import Any, NamedTuple

import pytest

from routilux import ErrorHandler, Flow, Routine, WorkerState, current
from routilux.activation_policies import immediate_policy
from routilux.store.memory import MemoryStore
from routilux.testing.simulated import SimulatedRuntime

CHUNK = 60
READS = ("read", "read all", "look")
CHANGES = ("assign", "append", "add", "change", "replace")
STEPS = (*READS, *CHANGES, *CHANGES, "remove")
ROUTINES = ("left", "right")


class Step(NamedTuple):
    what: str
    shared: bool  # on shared_data, else on the routine's own state
    key: str
    n: int


class Program(NamedTuple):
    routine_id: str
    steps: list[Step]
    fails: bool  # in its first attempt, at the end


@pytest.mark.parametrize("kind", ["plain", "async"])
@pytest.mark.parametrize("chunk", range(5))
def test_states_are_those_of_activations_one_after_the_other(kind: str, chunk: int) -> None:
    again = 0
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        try:
            again += play(seed, is_async=kind == "async")
        except BaseException as error:
            error.add_note(f"seed {seed}, {kind}")
            raise
    assert again > CHUNK // 20, f"only {again} runs did not count, too few to show anything"


def play(seed: int, *, is_async: bool) -> int:
    """Run the programs of a seed, check what has come of them, and return how many runs did not count."""
    rng = Random(seed)
    programs = [draw_program(rng) for _ in range(rng.randrange(2, 12))]
    runs: list[int] = []
    with SimulatedRuntime(seed, interruption=0.08, store=MemoryStore(), thread_pool_size=8) as runtime:
        flow = Flow("states")
        for routine_id in ROUTINES:
            pause = runtime.simulation.maybe_interrupt
            routine = player(programs, runs, pause, is_async=is_async)
            flow.add_routine(routine.set_concurrency(rng.randrange(1, 9)), routine_id)
        worker = runtime.exec(flow)
        for number, program in enumerate(programs):
            runtime.post(flow, program.routine_id, "program", {"number": number})
        runtime.run()
        check_serial(programs, worker)
    return len(runs) - len(programs) - sum(program.fails for program in programs)


def draw_program(rng: Random) -> Program:
    steps = []
    for _ in range(rng.randrange(1, 6)):
        what = rng.choice(STEPS)
        key = rng.choice("xy") if what == "append" else rng.choice("abxy" if what in READS else "ab")
        steps.append(Step(what, rng.random() < 0.4, key, rng.randrange(100)))
    return Program(rng.choice(ROUTINES), steps, rng.random() < 0.2)


def player(programs: list[Program], runs: list[int], pause: Callable[[], None], *, is_async: bool) -> Routine:
    made = Routine()
    made.add_slot("program")
    made.set_activation_policy(immediate_policy())
    made.set_error_handler(ErrorHandler("retry", retry_delay=0.0))

    def steps(slot_data: Any, state: Any) -> Iterator[None]:
        number = slot_data["program"][0]["number"]
        runs.append(number)
        program, seen = programs[number], []
        for step in program.steps:
            yield
            seen.append(perform(step, state.shared_data if step.shared else made.state))
        yield
        if program.fails and current().attempt == 1:
            raise ValueError("in the first attempt")
        state.shared_log.append([number, seen])

    def logic(slot_data: Any, message: Any, state: Any) -> None:
        for _ in steps(slot_data, state):
            for _ in range(6):
                pause()

    async def async_logic(slot_data: Any, message: Any, state: Any) -> None:
        for _ in steps(slot_data, state):
            await asyncio.sleep(0)

    return made.set_logic(async_logic if is_async else logic)


def perform(step: Step, state: Any) -> Any:
    """Make a step on a state, or on the dict that stands for it; what it sees."""
    _, _, key, n = step
    match step.what:
        case "read":
            return deepcopy(state.get(key))
        case "read all":
            return sorted([name, value] for name, value in state.copy().items())
        case "look":
            return [key in state, len(state)]
        case "assign":
            state[key] = n
        case "append":
            state.setdefault(key, []).append(n)
        case "add":
            state.add(key, n)
        case "change":
            return state.change(key, lambda value: value * 2 + n, 1)
        case "replace":
            state.replace({key: n})
        case "remove":
            return state.pop(key, None)
    return None


class Plain(dict[str, Any]):
    """What stands for a state."""

    def add(self, key: str, n: int) -> None:
        self[key] = self.get(key, 0) + n

    def change(self, key: str, fn: Callable[[int], int], default: int) -> int:
        self[key] = fn(self.get(key, default))
        return int(self[key])

    def replace(self, values: dict[str, Any]) -> None:
        self.clear()
        self.update(values)


def check_serial(programs: list[Program], worker: WorkerState) -> None:
    log = list(worker.shared_log)
    assert sorted(number for number, _ in log) == list(range(len(programs)))
    shared, own = Plain(), {routine_id: Plain() for routine_id in ROUTINES}
    for number, seen in log:
        program = programs[number]
        if changes(program, seen):
            states = [shared if step.shared else own[program.routine_id] for step in program.steps]
            sees = [deepcopy(perform(*step)) for step in zip(program.steps, states, strict=True)]
            assert seen == sees, f"{program} takes effect behind {log[: log.index([number, seen])]}"
    assert dict(worker.shared_data) == shared
    assert worker.routine_states == {routine_id: state for routine_id, state in own.items() if state}


def changes(program: Program, seen: list[Any]) -> bool:
    """What only reads has seen what was there at the time."""
    return any(
        step.what in CHANGES or (step.what == "remove" and saw is not None)
        for step, saw in zip(program.steps, seen, strict=True)
    )
