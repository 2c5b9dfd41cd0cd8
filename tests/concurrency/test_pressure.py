"""Full slots on real threads: nobody runs out of memory, nobody starves, and what can never move says so."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from threading import Event, Thread
from time import process_time
from typing import Any, NamedTuple

import pytest

from routilux import Flow, JobContext, Routine, Runtime, current
from routilux.activation_policies import all_slots_ready_policy
from routilux.errors import DeadlockError, ExecutionTimeoutError, QueueFullError
from routilux.testing.simulated import simulated
from tests.acceptance.parts import Held, Step, chain, flow_of, join, outputs_of, step
from tests.waiting import SECONDS, eventually

pools = pytest.mark.parametrize("threads", [1, 2, 8])
strategies = pytest.mark.parametrize("strategy", ["concurrent", "sequential"])


@pytest.fixture(autouse=True)
def nervous_threads() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def post(runtime: Runtime, flow: Flow, data: dict[str, Any] | None = None, **options: Any) -> JobContext:
    return runtime.post(flow, "a", "input", data or {}, **options).job_context


def spreads(n: int, **data: Any) -> Step:
    """Emits ``n`` items for each that comes in."""

    def logic(routine: Routine, payload: Any, state: Any) -> None:
        for i in range(n):
            routine.emit("output", i=i, **data)

    return step(logic)


def ignore(routine: Routine, payload: Any, state: Any) -> None:
    pass


# -- producers that never end ----------------------------------------------------------------------------------


@pools
@strategies
def test_endless_producer_keeps_memory_bounded_and_can_be_cancelled(threads: int, strategy: str) -> None:
    most, enough = [0], Event()

    def endless(routine: Routine, payload: Any, state: Any) -> None:
        while True:
            routine.emit("output")

    def consume(routine: Routine, payload: Any, state: Any) -> None:
        stats = routine.stats()
        most[0] = max(most[0], stats["queued"])
        if stats["activations"] > 2000:
            enough.set()

    flow = chain(step(endless), step(consume, max_queue_length=10), execution_strategy=strategy)
    with Runtime(thread_pool_size=threads) as runtime:
        runtime.exec(flow)
        job = post(runtime, flow)
        assert enough.wait(SECONDS)
        runtime.cancel(job)
        assert job.status == "cancelled"
        assert runtime.wait_until_all_jobs_finished(SECONDS)
    assert most[0] <= 10


@pools
@strategies
def test_endless_producer_into_a_slow_chain_never_locks(threads: int, strategy: str) -> None:
    reached = Event()

    def endless(routine: Routine, payload: Any, state: Any) -> None:
        n = 0
        while not current().cancelled:
            routine.emit("output", n=n)
            n += 1

    def last(routine: Routine, payload: Any, state: Any) -> None:
        assert payload["n"] == state.shared_data.get("next", 0)
        state.shared_data["next"] = payload["n"] + 1
        if payload["n"] > 500:
            reached.set()

    passing = [step(lambda r, payload, s: r.emit("output", **payload), max_queue_length=1) for _ in range(3)]
    flow = chain(step(endless), *passing, step(last, max_queue_length=1), execution_strategy=strategy)
    with Runtime(thread_pool_size=threads) as runtime:
        worker = runtime.exec(flow)
        job = post(runtime, flow)
        assert reached.wait(SECONDS)
        runtime.cancel(job)
        assert runtime.stop(worker, timeout=SECONDS)
    assert [
        record
        for record in worker.execution_history
        if record.status == "failed" and record.routine_id == "e"
    ] == []


@pools
def test_many_producers_share_one_small_slot_and_everything_arrives_once(threads: int) -> None:
    seen: list[tuple[str, int]] = []

    def produce(routine: Routine, payload: Any, state: Any) -> None:
        for n in range(100):
            routine.emit("output", by=routine.routine_id, n=n)

    consumer = step(
        lambda routine, payload, state: seen.append((payload["by"], payload["n"])), max_queue_length=2
    )
    flow = flow_of(step(produce), step(produce), step(produce), consumer)
    for source in "abc":
        flow.connect(source, "output", "d", "input")
    with Runtime(thread_pool_size=threads) as runtime:
        runtime.exec(flow)
        jobs = [runtime.post(flow, source, "input", {}).job_context for source in "abc"]
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        assert {job.status for job in jobs} == {"completed"}
    for source in "abc":
        assert [n for by, n in seen if by == source] == list(range(100))


def test_async_producer_that_awaits_is_held_back_and_loses_nothing() -> None:
    seen: list[int] = []
    most = [0]

    async def produce(routine: Routine, payload: Any, state: Any) -> None:
        for n in range(2000):
            routine.emit("output", n=n)
            await asyncio.sleep(0)

    def consume(routine: Routine, payload: Any, state: Any) -> None:
        most[0] = max(most[0], routine.stats()["queued"])
        seen.append(payload["n"])

    flow = chain(step(produce), step(consume, max_queue_length=5))
    with Runtime(thread_pool_size=1) as runtime:
        runtime.exec(flow)
        job = post(runtime, flow)
        assert job.wait(SECONDS)
        assert job.status == "completed"
    assert seen == list(range(2000))
    assert most[0] <= 5


def test_async_producer_that_never_awaits_gets_an_error_that_says_to_await() -> None:
    held, refused = Held(), Event()
    raised: list[QueueFullError] = []

    async def produce(routine: Routine, payload: Any, state: Any) -> None:
        try:
            while True:
                routine.emit("output")
        except QueueFullError as error:
            raised.append(error)
            refused.set()
            raise

    flow = chain(step(produce), step(held, max_queue_length=5))
    with Runtime(thread_pool_size=1) as runtime:
        runtime.exec(flow)
        job = post(runtime, flow)
        assert refused.wait(SECONDS)
        for fragment in ("async routine 'a'", "b.input", "await asyncio.sleep(0)"):
            assert fragment in str(raised[0])
        held.let_go.set()
        assert job.wait(SECONDS)
        assert job.error.__cause__ is raised[0]


# -- what can never move ---------------------------------------------------------------------------------------


@pools
@strategies
def test_cycle_that_fills_up_raises_naming_its_path_within_5_seconds(threads: int, strategy: str) -> None:
    doubles = step(lambda r, payload, s: [r.emit("output"), r.emit("output")], max_queue_length=20)
    flow = chain(Step(), doubles, step(lambda r, payload, s: r.emit("output"), max_queue_length=20))
    flow.connect("c", "output", "b", "input")
    flow = with_strategy(flow, strategy)
    with Runtime(thread_pool_size=threads) as runtime:
        worker = runtime.exec(flow)
        began = process_time()  # the verdict comes by looking, not by waiting: a busy machine does not count
        job = post(runtime, flow)
        assert job.wait(SECONDS)
        assert process_time() - began < 5
        assert isinstance(job.error.__cause__, DeadlockError)
        assert "b.output -> c.input -> c.output -> b.input" in rotations(str(job.error))
        for fragment in ("b waits in emit() for room in c.input", "c waits in emit() for room in b.input"):
            assert fragment in str(job.error)
        assert "that cannot come" not in str(job.error)
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        assert worker.status == "running"


def with_strategy(flow: Flow, strategy: str) -> Flow:
    """The same flow with another execution strategy."""
    other = Flow(flow.flow_id, execution_strategy=strategy)
    connections = flow.connections
    for routine_id in list(flow.routines):
        other.add_routine(flow.remove_routine(routine_id), routine_id)
    for connection in connections:
        source, target = connection.source, connection.target
        other.connect(source.routine, source, target.routine, target)
    return other


def rotations(text: str) -> str:
    """The text, with a path through the cycle that begins elsewhere turned to begin at b."""
    return text.replace(
        "c.output -> b.input -> b.output -> c.input", "b.output -> c.input -> c.output -> b.input"
    )


@pools
def test_diamond_whose_join_can_never_be_complete_raises_instead_of_waiting(threads: int) -> None:
    """One side sends everything, the other nothing: the join's slot fills up with items that wait for partners."""
    flow = flow_of(spreads(100), step(ignore), sized(5))
    flow.connect("a", "output", "c", "left")
    flow.connect("a", "output", "b", "input")
    flow.connect("b", "output", "c", "right")
    with Runtime(thread_pool_size=threads) as runtime:
        runtime.exec(flow)
        job = post(runtime, flow)
        assert job.wait(SECONDS)
        assert isinstance(job.error.__cause__, DeadlockError)
        for fragment in ("slot 'c.left' is full (5 items)", "wait for items that cannot come any more"):
            assert fragment in str(job.error)


class Join(Routine):
    capacity = 1000

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("left", max_queue_length=self.capacity)
        self.add_slot("right", max_queue_length=self.capacity)
        self.add_event("output")
        self.set_activation_policy(all_slots_ready_policy())

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        self.emit("output", left=slot_data["left"][0]["i"], right=slot_data["right"][0]["i"])


@pools
@strategies
@pytest.mark.parametrize("capacity", [1, 3, 1000])
def test_diamond_that_can_be_complete_is_whatever_the_size_of_its_slots(
    threads: int, strategy: str, capacity: int
) -> None:
    flow = flow_of(spreads(200), Step(), Step(), sized(capacity), execution_strategy=strategy)
    flow.connect("a", "output", "b", "input")
    flow.connect("a", "output", "c", "input")
    flow.connect("b", "output", "d", "left")
    flow.connect("c", "output", "d", "right")
    with Runtime(thread_pool_size=threads) as runtime:
        runtime.exec(flow)
        job = post(runtime, flow)
        assert job.wait(SECONDS)
        assert (job.status, job.error) == ("completed", None)
        assert [(out["left"], out["right"]) for out in outputs_of(job)] == [(i, i) for i in range(200)]


def sized(capacity: int) -> Routine:
    routine: Routine = type("Sized", (Join,), {"capacity": capacity})()
    return routine


# -- fairness --------------------------------------------------------------------------------------------------


class Crowd:
    """Logic that counts its items, and begins when it is let go: ``step(crowd)``."""

    def __init__(self) -> None:
        self.held = Held()
        self.done = 0

    def __call__(self, routine: Routine, payload: Any, state: Any) -> None:
        if not self.done:
            self.held(routine, payload, state)
        self.done += 1


@pools
@pytest.mark.parametrize("of", ["another worker", "the same worker"])
def test_fresh_job_overtakes_a_job_with_many_queued_items(threads: int, of: str) -> None:
    """It waits for one quantum per thread, and not for 20,000 items."""
    crowd, before = Crowd(), []
    fresh = step(lambda routine, payload, state: before.append(crowd.done))
    flow = chain(spreads(20_000), step(crowd, max_queue_length=30_000))
    small = flow if of == "the same worker" else Flow("small")
    small.add_routine(fresh, "fresh")
    with Runtime(thread_pool_size=threads) as runtime:
        for each in {flow, small}:
            runtime.exec(each)
        big = post(runtime, flow)
        assert crowd.held.entered.wait(SECONDS)
        job = runtime.post(small, "fresh", "input", {}).job_context
        crowd.held.let_go.set()
        assert job.wait(SECONDS)
        runtime.cancel(big)
    assert before[0] < 10_000


def test_blocked_logic_does_not_hold_up_a_second_thread() -> None:
    held = Held()
    flow, other = flow_of(step(held)), flow_of(Step(), flow_id="other")
    with Runtime(thread_pool_size=2) as runtime:
        runtime.exec(flow)
        runtime.exec(other)
        blocked = post(runtime, flow)
        assert held.entered.wait(SECONDS)
        for n in range(100):
            assert post(runtime, other, {"n": n}).result(SECONDS)[0].data == {"n": n}
        assert blocked.status == "running"
        held.let_go.set()


@pools
def test_every_worker_of_many_gets_its_turn(threads: int) -> None:
    flow = chain(spreads(500), step(ignore, max_queue_length=600))
    with Runtime(thread_pool_size=threads) as runtime:
        workers = [runtime.exec(flow, worker_id=f"w{n}") for n in range(20)]
        jobs = [post(runtime, flow, worker_id=worker.worker_id) for worker in workers]
        assert runtime.wait_until_all_jobs_finished(3 * SECONDS)
        assert {job.status for job in jobs} == {"completed"}
        assert {flow.routines["b"].stats(worker)["activations"] for worker in workers} == {500}


# -- one at a time -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [False, True])
def test_routine_never_overlaps_itself_in_a_worker_unless_it_says_so(asynchronous: bool) -> None:
    inside, most = [0], [0]

    def enter() -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])

    def plain(routine: Routine, payload: Any, state: Any) -> None:
        enter()
        for _ in range(50):
            pass
        inside[0] -= 1

    async def waiting(routine: Routine, payload: Any, state: Any) -> None:
        enter()
        await asyncio.sleep(0)
        inside[0] -= 1

    flow = flow_of(step(waiting if asynchronous else plain))
    with Runtime(thread_pool_size=8) as runtime:
        runtime.exec(flow)
        for _ in range(300):
            post(runtime, flow)
        assert runtime.wait_until_all_jobs_finished(SECONDS)
    assert most[0] == 1


@pytest.mark.parametrize("asynchronous", [False, True])
def test_concurrency_of_a_routine_is_used_and_never_exceeded(asynchronous: bool) -> None:
    together = Event()
    inside, most = set(), [0]

    def enter(job: JobContext) -> None:
        inside.add(job.job_id)
        most[0] = max(most[0], len(inside))
        if len(inside) == 3:
            together.set()

    def plain(routine: Routine, payload: Any, state: Any) -> None:
        enter(current().job)
        assert together.wait(SECONDS)
        inside.discard(current().job.job_id)

    async def waiting(routine: Routine, payload: Any, state: Any) -> None:
        enter(current().job)
        while not together.is_set():
            await asyncio.sleep(0)
        inside.discard(current().job.job_id)

    flow = flow_of(step(waiting if asynchronous else plain).set_concurrency(3))
    with Runtime(thread_pool_size=8) as runtime:
        runtime.exec(flow)
        for _ in range(100):
            post(runtime, flow)
        assert runtime.wait_until_all_jobs_finished(SECONDS)
    assert most[0] == 3


@pools
def test_one_event_to_both_slots_of_a_join_joins_each_item_with_itself(threads: int) -> None:
    flow = flow_of(spreads(300), join(all_slots_ready_policy()))
    flow.connect("a", "output", "b", "left")
    flow.connect("a", "output", "b", "right")
    with Runtime(thread_pool_size=threads) as runtime:
        runtime.exec(flow)
        job = post(runtime, flow)
        assert job.wait(SECONDS)
        assert [(out["left"][0]["i"], out["right"][0]["i"]) for out in outputs_of(job)] == [
            (i, i) for i in range(300)
        ]


# -- posts of a routine to another worker --------------------------------------------------------------------------


def posts(n: int, runtime: Runtime, flow: Flow, **slot_options: Any) -> Step:
    """Posts ``n`` items to ``flow``; a full slot there makes it wait, and help."""

    def logic(routine: Routine, payload: Any, state: Any) -> None:
        for i in range(n):
            runtime.post(flow, "a", "input", {"i": i})

    return step(logic, **slot_options)


class Overlap:
    """How many activations of a worker ran at once."""

    def __init__(self) -> None:
        self.running = self.most = self.started = 0
        self.begun, self.go = Event(), Event()

    def __call__(self, routine: Routine, payload: Any, state: Any) -> None:
        self.running += 1
        self.started += 1
        self.most = max(self.most, self.running)
        if payload.get("stops"):
            self.begun.set()
            assert self.go.wait(SECONDS)
        self.running -= 1


def test_who_posts_to_a_full_slot_of_a_sequential_worker_helps_only_when_nothing_runs_there() -> None:
    overlap = Overlap()
    target = Flow("target", execution_strategy="sequential")
    target.add_routine(step(overlap, max_queue_length=1), "a")
    target.add_routine(step(overlap), "slow")
    with Runtime(thread_pool_size=2) as runtime:
        worker = runtime.exec(target)
        source = flow_of(posts(5, runtime, target), flow_id="source")
        runtime.exec(source)
        runtime.post(target, "slow", "input", {"stops": True})
        assert overlap.begun.wait(SECONDS)
        job = post(runtime, source)
        eventually(lambda: worker.control.bell.waiting)
        assert (overlap.started, overlap.most) == (1, 1)
        overlap.go.set()
        assert job.wait(SECONDS)
        assert runtime.wait_until_all_jobs_finished(SECONDS)
    assert (job.status, overlap.started, overlap.most) == ("completed", 6, 1)


def test_pause_and_save_wait_for_what_somebody_else_runs_to_make_room(tmp_path: Path) -> None:
    overlap = Overlap()
    target = flow_of(step(overlap, max_queue_length=1), flow_id="target")
    with Runtime(thread_pool_size=1) as runtime:
        worker = runtime.exec(target)
        source = flow_of(step(lambda routine, payload, state: fill(runtime, target)), flow_id="source")
        runtime.exec(source)
        job = post(runtime, source)
        assert overlap.begun.wait(SECONDS)  # on the one thread there is, where the source waits
        with pytest.raises(ExecutionTimeoutError, match="still run: a"):
            runtime.pause(worker, timeout=0)
        overlap.go.set()
        runtime.pause(worker, timeout=SECONDS)
        assert overlap.running == 0
        worker.save(tmp_path / "state.json")
        runtime.resume(worker)
        assert job.wait(SECONDS)


def fill(runtime: Runtime, flow: Flow) -> None:
    for stops in (True, False, False):
        runtime.post(flow, "a", "input", {"stops": stops})


@pools
@strategies
def test_workers_that_post_to_each_other_make_room_for_each_other(threads: int, strategy: str) -> None:
    seen: list[int] = []
    with Runtime(thread_pool_size=threads) as runtime:
        there, back = (Flow(name, execution_strategy=strategy) for name in ("there", "back"))
        there.add_routine(posts(20, runtime, back), "source")
        there.add_routine(step(lambda r, payload, s: seen.append(payload["i"]), max_queue_length=2), "a")
        back.add_routine(posts(3, runtime, there, max_queue_length=2), "a")
        runtime.exec(there)
        runtime.exec(back)
        job = runtime.post(there, "source", "input", {}).job_context
        assert job.wait(SECONDS)
        assert runtime.wait_until_all_jobs_finished(SECONDS)
    assert seen == [0, 1, 2] * 20


@pytest.mark.parametrize("to", ["itself", "another"])
def test_one_thread_starts_the_async_logic_that_makes_room_for_a_post_to_a_sequential_worker(to: str) -> None:
    seen: list[int] = []

    async def keep(slot_data: Any, policy_message: Any, state: Any) -> None:
        await asyncio.sleep(0)
        seen.append(slot_data["input"][0]["i"])

    flow = Flow("target", execution_strategy="sequential")
    with Runtime(thread_pool_size=1) as runtime:
        flow.add_routine(step(ignore, max_queue_length=1).set_logic(keep), "a")
        source = flow if to == "itself" else Flow("source")
        source.add_routine(posts(5, runtime, flow), "source")
        for each in {flow, source}:
            runtime.exec(each)
        job = runtime.post(source, "source", "input", {}).job_context
        assert job.wait(SECONDS)
        assert runtime.wait_until_all_jobs_finished(SECONDS)
    assert seen == [0, 1, 2, 3, 4]


# -- a place that is free is told at once ------------------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [False, True])
def test_post_goes_on_when_the_item_before_it_starts_and_not_when_that_has_ended(asynchronous: bool) -> None:
    held, waiting = Held(), Event()

    async def hold(routine: Routine, payload: Any, state: Any) -> None:
        held.entered.set()
        while not held.let_go.is_set():
            await asyncio.sleep(0.001)

    flow = flow_of(step(hold if asynchronous else held, max_queue_length=1))
    with Runtime(thread_pool_size=1) as runtime:
        worker = runtime.exec(flow)
        runtime.pause(worker)
        jobs = [post(runtime, flow)]
        poster = Thread(target=lambda: (waiting.set(), jobs.append(post(runtime, flow))))
        poster.start()
        assert waiting.wait(SECONDS)
        runtime.resume(worker)
        assert held.entered.wait(SECONDS)
        poster.join(SECONDS)
        assert not poster.is_alive(), "the slot is empty while the first activation runs"
        assert [job.status for job in jobs] == ["running", "pending"]
        held.let_go.set()
        assert runtime.wait_until_all_jobs_finished(SECONDS)


@pytest.mark.parametrize("seed", range(50))
def test_no_seed_of_the_simulation_lets_a_post_wait_for_a_slot_that_has_room(seed: int) -> None:
    async def naps(routine: Routine, payload: Any, state: Any) -> None:
        await asyncio.sleep(1_000)

    flow = flow_of(step(naps, max_queue_length=1))
    with simulated(seed) as runtime:
        runtime.exec(flow)
        for n in range(3):
            post(runtime, flow)
            assert runtime.now <= max(0, n - 1) * 1_000
        runtime.wait_until_all_jobs_finished()
        assert runtime.now == 3_000


# -- rings -------------------------------------------------------------------------------------------------------


class Ring(NamedTuple):
    """Routines in a circle; each passes on what it gets."""

    capacities: list[int]
    concurrencies: list[int]
    tokens: list[int]  # by slot, at the beginning
    strategy: str

    def flow(self, hops: int) -> Flow:
        def pass_on(routine: Routine, payload: Any, state: Any) -> None:
            if payload["n"] < hops:
                routine.emit("output", n=payload["n"] + 1)

        flow = Flow("ring", execution_strategy=self.strategy)
        for n, (capacity, concurrency) in enumerate(zip(self.capacities, self.concurrencies, strict=True)):
            flow.add_routine(step(pass_on, max_queue_length=capacity).set_concurrency(concurrency), f"r{n}")
        for n in range(len(self.capacities)):
            flow.connect(f"r{n}", "output", f"r{(n + 1) % len(self.capacities)}", "input")
        return flow

    def start(self, runtime: Runtime, flow: Flow) -> list[JobContext]:
        worker = runtime.exec(flow)
        runtime.pause(worker)
        places = [f"r{n}" for n, tokens in enumerate(self.tokens) for _ in range(tokens)]
        jobs = [runtime.post(flow, place, "input", {"n": 0}).job_context for place in places]
        runtime.resume(worker)
        return jobs


def drawn_ring(seed: int) -> Ring:
    rng = Random(seed)
    capacities = [rng.randint(1, 4) for _ in range(rng.randint(2, 5))]
    return Ring(
        capacities,
        [rng.choice((1, 1, 2, 3)) for _ in capacities],
        [rng.choice((capacity, rng.randint(1, capacity))) for capacity in capacities],
        rng.choice(("concurrent", "concurrent", "sequential")),
    )


def runs_on(ring: Ring, threads: int, hops: int) -> None:
    with Runtime(thread_pool_size=threads) as runtime:
        jobs = ring.start(runtime, ring.flow(hops))
        assert runtime.wait_until_all_jobs_finished(SECONDS), f"{ring} stands still"
        assert [job.error for job in jobs if job.error] == [], ring


@pools
def test_ring_of_two_that_is_as_full_as_can_be_runs_for_ever(threads: int) -> None:
    runs_on(Ring([2, 2], [1, 1], [2, 2], "concurrent"), threads, hops=1_000)


@pools
@pytest.mark.parametrize("seed", range(15))
def test_ring_whose_tokens_fit_runs_for_ever(seed: int, threads: int) -> None:
    runs_on(drawn_ring(seed), threads, hops=200)


@pytest.mark.full
@pools
@pytest.mark.parametrize("seed", range(15, 300))
def test_many_more_rings_whose_tokens_fit_run_for_ever(seed: int, threads: int) -> None:
    runs_on(drawn_ring(seed), threads, hops=500)


@pytest.mark.parametrize("seed", range(60))
def test_no_seed_of_the_simulation_locks_a_ring_whose_tokens_fit(seed: int) -> None:
    with simulated(seed) as runtime:
        ring = drawn_ring(seed)
        jobs = ring.start(runtime, ring.flow(hops=30))
        runtime.wait_until_all_jobs_finished()
        assert [job.error for job in jobs if job.error] == [], ring
