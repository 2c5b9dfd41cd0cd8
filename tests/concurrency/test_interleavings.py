"""Rules about what may come in between, each on the smallest flow that shows it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from routilux import ErrorHandler, Flow, Routine
from routilux.activation_policies import all_slots_ready_policy, immediate_policy
from routilux.errors import DeadlockError, ExecutionTimeoutError, QueueFullError, StateError
from routilux.model.context import running
from routilux.model.policy import ActivationPolicy
from routilux.ports import Activated, Dropped, Emitted, Record
from routilux.runtime.waiting import heard_by
from routilux.store.memory import MemoryStore
from routilux.testing.simulated import SimulatedRuntime, simulated


def routine(
    logic: Callable[[Routine, dict[str, list[dict[str, Any]]]], object],
    policy: ActivationPolicy | None = None,
    **slots: dict[str, Any],
) -> Routine:
    """With slot ``input``, or the given ones, event ``output``, and ``logic(routine, slot_data)``."""
    made = Routine()
    for name, options in (slots or {"input": {}}).items():
        made.add_slot(name, **options)
    made.add_event("output")
    made.set_activation_policy(policy or immediate_policy())
    return made.set_logic(lambda slot_data, message, state: logic(made, slot_data))


def async_routine(logic: Callable[[Routine], Any], **slots: dict[str, Any]) -> Routine:
    made = routine(ignore, **slots)

    async def call(slot_data: Any, message: Any, state: Any) -> None:
        await logic(made)

    return made.set_logic(call)


async def emit_five(routine: Routine) -> None:
    for n in range(5):
        routine.emit("output", n=n)
    await asyncio.sleep(1)
    routine.emit("output", n=5)


class Numbers:
    """Notes the numbers of items."""

    def __init__(self, runtime: SimulatedRuntime) -> None:
        self.runtime = runtime
        self.emitted: list[int] = []
        self.ended: list[int] = []

    def record(self, record: Record) -> None:
        match record:
            case Emitted(number=number):
                self.emitted.append(number)
            case Dropped(number=number):
                self.ended.append(number)
            case Activated(outcome="completed"):
                activation: Any = self.runtime.simulation.seat().activation or running.get()
                self.ended += [item[0] for item in activation.batch]


def pass_on(routine: Routine, slot_data: dict[str, list[dict[str, Any]]]) -> None:
    for payload in slot_data["input"]:
        routine.emit("output", **payload)


def emit_three(routine: Routine, slot_data: dict[str, list[dict[str, Any]]]) -> None:
    for n in range(3):
        routine.emit("output", n=slot_data["input"][0]["n"] + n)


def ignore(routine: Routine, slot_data: dict[str, list[dict[str, Any]]]) -> None:
    pass


every_seed = pytest.mark.parametrize("seed", range(30))


def test_a_producer_of_a_join_starts_as_soon_as_there_is_room() -> None:
    """Nothing takes parked items on its own, so a producer must not wait until fewer are left."""
    flow = Flow("f")
    flow.add_routine(routine(pass_on), "producer")
    join = routine(
        ignore, all_slots_ready_policy(), left={"max_queue_length": 4, "watermark": 0.25}, right={}
    )
    flow.add_routine(join, "join")
    flow.connect("producer", "output", "join", "left")
    with simulated(0) as runtime:
        runtime.exec(flow)
        for n in range(4):
            runtime.post(flow, "producer", "input", {"n": n})
        runtime.run()
        runtime.post(flow, "join", "right", {})
        runtime.run()
        fifth = runtime.post(flow, "producer", "input", {"n": 4})
        runtime.run()
        assert (fifth.status, fifth.job_context.parked) == ("completed", 1)


@every_seed
def test_a_post_waits_for_room_in_a_slot_that_is_full_of_items_about_to_be_written(seed: int) -> None:
    """What other callers have kept a place for comes, and then leaves again."""
    flow = Flow("f")
    seen: list[int] = []
    take = routine(
        lambda _, slot_data: seen.append(slot_data["input"][0]["n"]), input={"max_queue_length": 1}
    )
    flow.add_routine(take, "take")
    with simulated(seed, store=MemoryStore(), interruption=0.5) as runtime:
        runtime.exec(flow)
        for n in range(4):
            runtime.interrupt_with(partial(runtime.post, flow, "take", "input", {"n": n}))
        runtime.post(flow, "take", "input", {"n": 4})
        while runtime.simulation.interrupts:
            runtime.simulation.maybe_interrupt()
        assert runtime.wait_until_all_jobs_finished()
    assert sorted(seen) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("stored", [False, True], ids=["memory", "store"])
@every_seed
def test_an_apost_that_is_cancelled_while_it_waits_for_its_place_is_withdrawn_or_accepted(
    seed: int, stored: bool
) -> None:
    """In a sequential worker a post inside logic has its item in before it may go on."""
    flow = Flow("f", execution_strategy="sequential")
    sent: list[int] = []
    accepted: list[int] = []
    seen: list[int] = []

    async def send(_: Routine) -> None:
        for n in range(6):
            try:
                async with asyncio.timeout(0.5 + 0.25 * (n % 3)):
                    await runtime.apost(flow, "take", "input", {"n": n})
                    sent.append(n)
            except TimeoutError as error:
                if getattr(error.__cause__, "__notes__", ()):
                    accepted.append(n)

    async def take(slot_data: Any, message: Any, state: Any) -> None:
        await asyncio.sleep(1 if seed % 2 else 0.25)
        seen.append(slot_data["input"][0]["n"])

    flow.add_routine(async_routine(send), "send")
    flow.add_routine(routine(ignore, input={"max_queue_length": 1}).set_logic(take), "take")
    with simulated(seed, store=MemoryStore() if stored else None) as runtime:
        state = runtime.exec(flow)
        runtime.post(flow, "send", "input", {})
        assert runtime.wait_until_all_jobs_finished()
        assert state.counters("take")["queued"] == 0
        assert all(job.status.finished for job in runtime.list_jobs())
    assert sorted(seen) == sorted(sent + accepted)


@every_seed
def test_a_slot_counts_what_failed_asynchronous_logic_has_left_in_it(seed: int) -> None:
    async def emit_three_and_fail(routine: Routine) -> None:
        for n in range(3):
            routine.emit("output", n=n)
        raise ValueError("on purpose")

    flow = Flow("f")
    source = async_routine(emit_three_and_fail)
    source.add_event("error")
    flow.add_routine(source.set_error_handler(ErrorHandler("emit")), "source")
    flow.add_routine(routine(ignore, input={"max_queue_length": 1}), "sink")
    flow.connect("source", "output", "sink", "input")
    flow.connect("source", "error", "sink", "input")
    with simulated(seed) as runtime:
        state = runtime.exec(flow)
        runtime.post(flow, "source", "input", {})
        runtime.run()
        counters = state.counters("sink")
    assert (counters["activations"], counters["queued"]) == (4, 0)


@every_seed
def test_merged_data_is_kept_over_a_run_of_items(seed: int) -> None:
    """A thread that takes several items in one go leaves behind what one by one would have left."""
    flow = Flow("f")
    seen: list[list[int]] = []
    collect = routine(
        lambda _, slot_data: seen.append(slot_data["input"][0]["n"]), input={"merge_strategy": "append"}
    )
    flow.add_routine(collect, "collect")
    with simulated(seed) as runtime:
        runtime.exec(flow)
        for n in range(4):
            runtime.post(flow, "collect", "input", {"n": n})
        runtime.run()
    assert seen == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]


@pytest.mark.parametrize("steps", range(5))
@every_seed
def test_asynchronous_logic_ends_when_it_is_cancelled_and_does_not_begin_after_that(
    seed: int, steps: int
) -> None:
    began: list[bool] = []

    async def logic(routine: Routine) -> None:
        began.append(job.finished)
        await asyncio.sleep(1)

    flow = Flow("f")
    flow.add_routine(async_routine(logic), "napper")
    with simulated(seed) as runtime:
        state = runtime.exec(flow)
        job = runtime.post(flow, "napper", "input", {}).job_context
        for _ in range(steps):
            runtime.simulation.step()
        runtime.cancel(job)
        runtime.run()
        assert flow.routines["napper"].stats(state)["running"] == 0
        assert began in ([], [False])


@every_seed
def test_what_waits_for_room_behind_asynchronous_logic_is_never_lost(seed: int) -> None:
    """An observer is told of each item once, and of its end, also when the job ends while items wait."""
    flow = Flow("f")
    flow.add_routine(async_routine(emit_five), "producer")
    flow.add_routine(routine(ignore, input={"max_queue_length": 1}), "consumer")
    flow.connect("producer", "output", "consumer", "input")
    with simulated(seed) as runtime:
        observer = Numbers(runtime)
        runtime.add_observer(observer)
        runtime.exec(flow)
        job = runtime.post(flow, "producer", "input", {}).job_context
        runtime.interrupt_with(lambda: runtime.cancel(job))
        runtime.run()
    assert sorted(observer.emitted) == sorted(observer.ended)
    assert job.account.active == 0


@every_seed
def test_every_job_is_counted_once_when_its_worker_is_cancelled_during_the_post(seed: int) -> None:
    flow = Flow("f")
    flow.add_routine(routine(ignore), "consumer")
    with simulated(seed, interruption=0.3) as runtime:
        state = runtime.exec(flow)
        runtime.interrupt_with(lambda: runtime.cancel(state))
        jobs = []
        for n in range(4):
            with suppress(StateError):
                jobs.append(runtime.post(flow, "consumer", "input", {"n": n}).job_context)
        runtime.run()
        assert all(job.finished for job in jobs)
        assert runtime.wait_until_all_jobs_finished(timeout=0)
        assert (runtime._engine.book.open, runtime._engine.book.pending) == (0, 0)


@every_seed
def test_a_job_that_is_cancelled_while_it_starts_is_not_pending_any_more(seed: int) -> None:
    flow = Flow("f")
    flow.add_routine(routine(ignore), "consumer")
    with simulated(seed, interruption=0.3) as runtime:
        runtime.exec(flow)
        for _ in range(10):
            job = runtime.post(flow, "consumer", "input", {}).job_context
            runtime.interrupt_with(partial(runtime.cancel, job))
        runtime.run()
        assert (runtime._engine.book.open, runtime._engine.book.pending) == (0, 0)


@every_seed
def test_items_of_a_job_that_was_paused_keep_their_order(seed: int) -> None:
    """Also those that a routine in front of them emits while the job is being resumed."""
    taken: list[int] = []
    flow = Flow("f")
    flow.add_routine(routine(emit_three), "producer")
    flow.add_routine(routine(lambda _, slot_data: taken.append(slot_data["input"][0]["n"])), "consumer")
    flow.connect("producer", "output", "consumer", "input")
    with simulated(seed, interruption=0.3) as runtime:
        runtime.exec(flow)
        job = runtime.post(flow, "producer", "input", {"n": 0}, job_id="j").job_context
        runtime.simulation.step()
        runtime.pause(job)
        runtime.post(flow, "producer", "input", {"n": 3}, job_id="j")
        runtime.run()
        runtime.resume(job)
        runtime.run()
    assert taken == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("kind", ["plain", "async"])
@pytest.mark.parametrize("command", ["pause", "cancel"])
@every_seed
def test_nothing_of_a_job_starts_once_its_pause_or_cancellation_has_returned(
    seed: int, command: str, kind: str
) -> None:
    returned: list[bool] = []
    late: list[bool] = []

    async def look(routine: Routine) -> None:
        late.extend(returned)

    def stop() -> None:
        with suppress(ExecutionTimeoutError):  # something of it runs
            getattr(runtime, command)(job, **({"timeout": 0} if command == "pause" else {}))
            returned.append(True)

    flow = Flow("f")
    if kind == "plain":
        flow.add_routine(routine(lambda _, slot_data: late.extend(returned)), "consumer")
    else:
        flow.add_routine(async_routine(look).set_timeout(1), "consumer")
    with simulated(seed, interruption=0.3) as runtime:
        runtime.exec(flow)
        job = runtime.post(flow, "consumer", "input", {}).job_context
        runtime.interrupt_with(stop)
        runtime.run()
    assert not late


class Keeper:
    """A gate that keeps everything, after it has done something else."""

    def __init__(self, first: Callable[[], object] = bool) -> None:
        self._first = first

    def holds_activation(self, *question: object) -> bool:
        self._first()
        return True

    def holds_item(self, *question: object) -> bool:
        self._first()
        return True


class ActivationKeeper(Keeper):
    def holds_item(self, *question: object) -> bool:
        return False


@pytest.mark.parametrize("gate", [Keeper, ActivationKeeper])
@pytest.mark.parametrize("end", ["set_gate", "cancel"])
def test_a_gate_that_is_taken_away_while_it_is_asked_keeps_nothing(gate: type[Keeper], end: str) -> None:
    def first() -> None:
        if end == "set_gate":
            runtime.set_gate(state, "consumer", None)
        else:
            runtime.cancel("j")

    flow = Flow("f")
    flow.add_routine(routine(ignore), "consumer")
    with simulated(0) as runtime:
        state = runtime.exec(flow)
        runtime.post(flow, "consumer", "input", {}, job_id="j") if end == "cancel" else None
        runtime.set_gate(state, "consumer", gate(first))
        job = runtime.post(flow, "consumer", "input", {}, job_id="j").job_context
        runtime.run()
        assert job.finished
        assert job.account.active == 0


@pytest.mark.parametrize("keeper", ["gate", "pause"])
def test_a_post_waits_for_room_while_somebody_keeps_what_fills_the_slot(keeper: str) -> None:
    """Nothing that runs could make room, but who keeps the items can at any time."""
    flow = Flow("f")
    flow.add_routine(routine(ignore, input={"max_queue_length": 1}), "consumer")
    with simulated(0) as runtime:
        state = runtime.exec(flow)
        if keeper == "gate":
            runtime.set_gate(state, "consumer", Keeper())
        first = runtime.post(flow, "consumer", "input", {}).job_context
        if keeper == "pause":
            runtime.pause(first)
        with pytest.raises(QueueFullError):
            runtime.post(flow, "consumer", "input", {}, timeout=5)
        assert runtime.now == 5


@pytest.mark.parametrize("keeper", ["gate", "pause"])
def test_the_oldest_item_makes_room_for_the_newest_also_while_somebody_keeps_it(keeper: str) -> None:
    flow = Flow("f")
    taken: list[int] = []
    take = routine(
        lambda _, slot_data: taken.append(slot_data["input"][0]["n"]),
        input={"max_queue_length": 1, "on_full": "drop_old"},
    )
    flow.add_routine(take, "consumer")
    with simulated(0) as runtime:
        state = runtime.exec(flow)
        if keeper == "gate":
            runtime.set_gate(state, "consumer", Keeper())
        first = runtime.post(flow, "consumer", "input", {"n": 1}).job_context
        if keeper == "pause":
            runtime.pause(first)
            runtime.run()
        runtime.post(flow, "consumer", "input", {"n": 2})
        runtime.set_gate(state, "consumer", None)
        runtime.run()
    assert (taken, first.status) == ([2], "completed")


def test_a_job_ends_when_the_partner_of_its_item_is_displaced() -> None:
    flow = Flow("f")
    join = routine(
        ignore, all_slots_ready_policy(), left={"max_queue_length": 1, "on_full": "drop_old"}, right={}
    )
    flow.add_routine(join, "join")
    with simulated(0, interruption=0.0) as runtime:
        runtime.exec(flow)
        jobs = [runtime.post(flow, "join", slot, {}).job_context for slot in ("left", "right", "left")]
        runtime.run()
        assert [job.finished for job in jobs] == [True, True, True]


def test_a_cycle_that_fills_up_below_its_own_helper_is_a_dead_lock() -> None:
    """There is room for whoever waits below on the same thread, but it cannot go on before its helper has."""

    def three(routine: Routine, slot_data: dict[str, list[dict[str, Any]]]) -> None:
        for life in slot_data["input"]:
            for _ in range(3 * (life["life"] > 0)):
                routine.emit("output", life=life["life"] - 1)

    flow = Flow("f")
    flow.add_routine(routine(three, input={"max_queue_length": 1}), "first")
    flow.add_routine(routine(pass_on, input={"max_queue_length": 1}).set_concurrency(2), "second")
    flow.connect("first", "output", "second", "input")
    flow.connect("second", "output", "first", "input")
    with simulated(0, interruption=0.0) as runtime:
        runtime.exec(flow)
        job = runtime.post(flow, "first", "input", {"life": 3}).job_context
        runtime.run()
        assert job.status == "failed"
        assert isinstance(job.error.__cause__, DeadlockError)


@pytest.mark.parametrize("seed", range(300))
def test_a_chain_never_locks_however_small_its_slots_are(seed: int) -> None:
    """A thread that waits for room helps only those that will not come to wait for it."""

    def twice(routine: Routine, slot_data: dict[str, list[dict[str, Any]]]) -> None:
        routine.emit("output")
        routine.emit("output")

    flow = Flow("f")
    for name in "abcd":
        flow.add_routine(routine(ignore if name == "d" else twice, input={"max_queue_length": 1}), name)
    for source, target in pairwise("abcd"):
        flow.connect(source, "output", target, "input")
    with simulated(seed, interruption=0.3) as runtime:
        runtime.exec(flow)
        jobs = [runtime.post(flow, "a", "input", {}).job_context for _ in range(3)]
        runtime.run()
        assert {job.status for job in jobs} == {"completed"}


@every_seed
def test_the_pause_of_a_job_returns_when_its_asynchronous_logic_has_ended(seed: int) -> None:
    async def nap(routine: Routine) -> None:
        await asyncio.sleep(1)

    flow = Flow("f")
    flow.add_routine(async_routine(nap), "napper")
    with simulated(seed) as runtime:
        runtime.exec(flow)
        job = runtime.post(flow, "napper", "input", {}).job_context
        runtime.run(seconds=0.5)
        runtime.pause(job)
        assert runtime.now == 1


@pytest.mark.parametrize("what", ["job", "worker", "gate"])
def test_who_waits_for_room_looks_anew_when_what_was_kept_is_let_go(what: str) -> None:
    """What kept an item could have made room; once it is let go, perhaps nothing can any more."""
    flow = Flow("f")
    flow.add_routine(routine(ignore), "consumer")
    with simulated(0) as runtime:
        state = runtime.exec(flow)
        job = runtime.post(flow, "consumer", "input", {}).job_context
        runtime.run()
        signal = runtime.simulation.signal()
        with heard_by(signal, [state.control.bell]):
            if what == "gate":
                runtime.let_go(state, "consumer")
            else:
                runtime.resume(job if what == "job" else state)
        assert signal.is_set()


@every_seed
def test_asynchronous_logic_that_fills_its_own_cycle_fails_with_a_dead_lock(seed: int) -> None:
    """It does not block its thread, but it must not wait for ever either; what found no room is not lost."""

    async def five(routine: Routine) -> None:
        for _ in range(5):
            routine.emit("output")
        await asyncio.sleep(0)

    flow = Flow("f")
    flow.add_routine(async_routine(five, input={"max_queue_length": 2}), "own")
    flow.connect("own", "output", "own", "input")
    with simulated(seed) as runtime:
        observer = Numbers(runtime)
        runtime.add_observer(observer)
        runtime.exec(flow)
        job = runtime.post(flow, "own", "input", {}).job_context
        runtime.run()
        assert job.status == "failed"
        assert isinstance(job.error.__cause__, DeadlockError)
    assert sorted(observer.emitted) == sorted(observer.ended)


async def emit_five_more(routine: Routine) -> None:
    for n in range(5):
        routine.emit("output", n=n)
    await asyncio.sleep(1)


@pytest.mark.parametrize(
    "options", [{"execution_strategy": "sequential"}, {"max_workers": 1}, {"max_workers": 2}]
)
@pytest.mark.parametrize("kinds", ["async async", "async plain", "plain async"])
@every_seed
def test_whoever_waits_for_room_lends_its_place_to_whoever_makes_it(
    seed: int, kinds: str, options: dict[str, Any]
) -> None:
    """However few may run at once; and no more do."""

    def emit(routine: Routine, slot_data: dict[str, list[dict[str, Any]]]) -> None:
        for n in range(5):
            routine.emit("output", n=n)

    async def nap(routine: Routine) -> None:
        await asyncio.sleep(1)

    first, second = kinds.split()
    flow = Flow("f", **options)
    slots = {"input": {"max_queue_length": 1}}
    flow.add_routine(async_routine(emit_five_more) if first == "async" else routine(emit), "producer")
    flow.add_routine(
        async_routine(nap, **slots) if second == "async" else routine(ignore, **slots), "consumer"
    )
    flow.connect("producer", "output", "consumer", "input")
    with simulated(seed) as runtime:
        runtime.exec(flow)
        job = runtime.post(flow, "producer", "input", {}).job_context
        runtime.run()
        assert job.status == "completed"


@pytest.mark.parametrize("target", ["worker", "job"])
@pytest.mark.parametrize("kinds", ["async async", "async plain", "plain async", "plain plain"])
@every_seed
def test_a_pause_ends_for_whoever_waits_for_room(seed: int, kinds: str, target: str) -> None:
    """What ran when the pause came has to end, so what makes room for it may still start."""

    def emit(routine: Routine, slot_data: dict[str, list[dict[str, Any]]]) -> None:
        for n in range(5):
            routine.emit("output", n=n)

    async def nap(routine: Routine) -> None:
        await asyncio.sleep(1)

    first, second = kinds.split()
    flow = Flow("f")
    slots = {"input": {"max_queue_length": 1}}
    flow.add_routine(async_routine(emit_five_more) if first == "async" else routine(emit), "producer")
    flow.add_routine(
        async_routine(nap, **slots) if second == "async" else routine(ignore, **slots), "consumer"
    )
    flow.connect("producer", "output", "consumer", "input")
    with simulated(seed, interruption=0.3) as runtime:
        state = runtime.exec(flow)
        job = runtime.post(flow, "producer", "input", {}).job_context
        for _ in range(3):
            runtime.simulation.step()
        paused = state if target == "worker" else job
        runtime.pause(paused)
        assert not runtime._engine.driver.running()
        started = [node.mailbox.starts for node in state.control.nodes.values()]
        runtime.run()
        assert started == [node.mailbox.starts for node in state.control.nodes.values()]
        runtime.resume(paused)
        runtime.run()
        assert job.status == "completed"


@pytest.mark.parametrize("kind", ["async", "plain"])
@every_seed
def test_logic_that_gives_up_waiting_for_room_has_its_place_again_before_it_goes_on(
    seed: int, kind: str
) -> None:
    """In a sequential worker what makes room runs in its place, and must not run beside what comes of the error."""
    at_work, beside = [0], list[int]()

    async def nap(routine: Routine) -> None:
        at_work[0] += 1
        await asyncio.sleep(1)
        at_work[0] -= 1

    def emit(routine: Routine, slot_data: dict[str, list[dict[str, Any]]]) -> None:
        try:
            for n in range(5):
                routine.emit("output", n=n)
        finally:
            beside.append(at_work[0])

    async def emit_and_wait(routine: Routine) -> None:
        for n in range(5):
            routine.emit("output", n=n)
        try:
            await asyncio.sleep(0)
        finally:
            beside.append(at_work[0])

    flow = Flow("f", execution_strategy="sequential")
    producer = async_routine(emit_and_wait) if kind == "async" else routine(emit)
    flow.add_routine(producer.set_timeout(1.5).set_error_handler(ErrorHandler("continue")), "producer")
    flow.add_routine(async_routine(nap, input={"max_queue_length": 1}), "consumer")
    flow.connect("producer", "output", "consumer", "input")
    with simulated(seed) as runtime:
        runtime.exec(flow)
        job = runtime.post(flow, "producer", "input", {}).job_context
        runtime.run()
        assert (job.status, len(job.errors), beside) == ("completed", 1, [0])


# -- posts inside logic while too many jobs are pending ------------------------------------------------------------


def floods(
    flow: Flow, n: int, runtime: Callable[[], SimulatedRuntime], refused: list[str]
) -> Callable[..., object]:
    def logic(slot_data: Any, message: Any, state: Any) -> None:
        for i in range(n) if not slot_data["input"][0] else ():
            try:
                runtime().post(flow, "take", "input", {"n": i})
            except QueueFullError as error:
                refused.append(str(error))

    return logic


def floods_async(
    flow: Flow, n: int, runtime: Callable[[], SimulatedRuntime], refused: list[str]
) -> Callable[..., object]:
    async def logic(slot_data: Any, message: Any, state: Any) -> None:
        for i in range(n) if not slot_data["input"][0] else ():
            try:
                await runtime().apost(flow, "take", "input", {"n": i})
            except QueueFullError as error:
                refused.append(str(error))

    return logic


each_flood = pytest.mark.parametrize("flood", [floods, floods_async])


@pytest.mark.parametrize("strategy", ["sequential", "concurrent"])
@pytest.mark.parametrize("where", ["its own worker", "another worker"])
@each_flood
@every_seed
def test_logic_that_posts_more_jobs_than_may_be_pending_waits_until_they_start(
    seed: int, flood: Callable[..., Any], where: str, strategy: str
) -> None:
    seen: list[int] = []
    refused: list[str] = []
    flow, other = Flow("f", execution_strategy=strategy), Flow("other", execution_strategy=strategy)
    target = flow if where == "its own worker" else other
    source = routine(ignore)
    take = routine(lambda _, slot_data: seen.append(slot_data["input"][0]["n"]))
    flow.add_routine(source, "source")
    target.add_routine(take, "take")
    with simulated(seed, max_queue_size=3) as runtime:
        source.set_logic(flood(target, 10, lambda: runtime, refused))
        runtime.exec(flow)
        if target is other:
            runtime.exec(other)
        job = runtime.post(flow, "source", "input", {})
        assert runtime.wait_until_all_jobs_finished()
    assert (job.status, refused, seen) == ("completed", [], list(range(10)))


@each_flood
@every_seed
def test_it_is_refused_where_nothing_could_start_one_of_them(seed: int, flood: Callable[..., Any]) -> None:
    """Its own routine, which runs one activation at a time, is to take what it posts."""
    refused: list[str] = []
    flow = Flow("f")
    source = routine(ignore)
    flow.add_routine(source, "take")
    with simulated(seed, max_queue_size=3) as runtime:
        source.set_logic(flood(flow, 5, lambda: runtime, refused))
        runtime.exec(flow)
        job = runtime.post(flow, "take", "input", {})
        assert runtime.wait_until_all_jobs_finished()
    assert job.status == "completed"
    assert [text.count("nothing that runs could start one of them") for text in refused] == [1, 1]


@pytest.mark.parametrize("end", ["resume", "cancel", "stop"])
@each_flood
@every_seed
def test_it_waits_behind_a_pause_of_another_worker(seed: int, flood: Callable[..., Any], end: str) -> None:
    refused: list[str] = []
    flow, other = Flow("f"), Flow("other")
    source = routine(ignore)
    flow.add_routine(source, "source")
    other.add_routine(routine(ignore), "take")
    with simulated(seed, max_queue_size=3) as runtime:
        source.set_logic(flood(other, 5, lambda: runtime, refused))
        runtime.exec(flow)
        held = runtime.exec(other)
        runtime.pause(held)
        job = runtime.post(flow, "source", "input", {})
        runtime.run()
        assert job.status == "running"
        if end == "resume":
            runtime.resume(held)
        elif end == "cancel":
            runtime.cancel(job.job_context)
        else:
            runtime.cancel(held)
        runtime.run()
        assert job.status == {"resume": "completed", "cancel": "cancelled", "stop": "failed"}[end]
        assert refused == []


@pytest.mark.parametrize("kind", ["plain", "async"])
@every_seed
def test_a_keyed_post_inside_logic_lends_its_place_while_the_first_with_its_key_waits(
    seed: int, kind: str
) -> None:
    seen: list[int] = []
    ids: list[str] = []
    flow = Flow("f", execution_strategy="sequential")
    source = routine(ignore)
    take = routine(
        lambda _, slot_data: seen.append(slot_data["input"][0]["n"]), input={"max_queue_length": 1}
    )
    flow.add_routine(source, "source")
    flow.add_routine(take, "take")
    key: dict[str, Any] = {"idempotency_key": "K"}

    def logic(slot_data: Any, message: Any, state: Any) -> None:
        ids.append(runtime.post(flow, "take", "input", {"n": 1}, **key).job_id)

    async def async_logic(slot_data: Any, message: Any, state: Any) -> None:
        ids.append((await runtime.apost(flow, "take", "input", {"n": 1}, **key)).job_id)

    with simulated(seed, interruption=0.5) as runtime:
        source.set_logic(async_logic if kind == "async" else logic)
        worker = runtime.exec(flow)
        runtime.pause(worker)
        runtime.post(flow, "take", "input", {"n": 0})
        runtime.post(flow, "source", "input", {})
        runtime.simulation.on_new_thread(
            lambda: ids.append(runtime.post(flow, "take", "input", {"n": 1}, **key).job_id)
        )
        runtime.resume(worker)
        assert runtime.wait_until_all_jobs_finished()
    assert (seen, len(ids), len(set(ids))) == ([0, 1], 2, 1)
