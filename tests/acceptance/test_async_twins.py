"""The async twins of what blocks: waiting in them costs no thread, on the runtime's loop and on any other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from routilux import Flow, Runtime, current, routine
from routilux.errors import QueueFullError, RuntimeClosedError
from routilux.ports import Changes
from routilux.store.memory import MemoryStore
from tests.acceptance.parts import Held, Step, flow_of, outputs_of, step
from tests.waiting import SECONDS


class NoThreads(Executor):
    """The default executor of a loop that must not use it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        raise AssertionError(f"a thread is used for {fn}")


def without_threads(main: Callable[[], Awaitable[Any]]) -> Any:
    """Run this on a loop whose default executor refuses everything."""

    async def refusing() -> Any:
        asyncio.get_running_loop()._default_executor = NoThreads()  # type: ignore[attr-defined]
        async with asyncio.timeout(SECONDS):
            return await main()

    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(refusing())
    finally:
        loop._default_executor = None  # type: ignore[attr-defined]
        loop.close()


class SlowStore(MemoryStore):
    """Takes nothing while it is held."""

    def __init__(self) -> None:
        super().__init__()
        self.writes, self.let_go = Event(), Event()
        self.let_go.set()

    def write(self, changes: Changes) -> frozenset[int]:
        if not self.let_go.is_set():
            self.writes.set()
            assert self.let_go.wait(SECONDS)
        return super().write(changes)


def noting(seen: list[Any], **options: Any) -> Step:
    return step(lambda routine, payload, state: seen.append(payload["n"]), **options)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


@pytest.fixture(params=["memory", "memory store", "sqlite"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    stores = {"memory": None, "memory store": MemoryStore(), "sqlite": f"sqlite:///{tmp_path}/store.db"}
    return stores[request.param]


# -- waiting for room ----------------------------------------------------------------------------------------------


def test_ten_thousand_waiting_aposts_cost_no_thread_and_arrive_in_their_order() -> None:
    n, seen = 10_000, list[int]()
    flow = flow_of(noting(seen, max_queue_length=5))

    async def main() -> None:
        async with Runtime(thread_pool_size=1) as runtime:
            worker = runtime.exec(flow)
            await runtime.apause(worker)
            before = {*threading.enumerate()}
            posts = [asyncio.ensure_future(runtime.apost(flow, "a", "input", {"n": i})) for i in range(n)]
            await until(lambda: worker.counters("a")["queued"] == 5)
            new = {thread.name for thread in threading.enumerate() if thread not in before}
            assert new <= {"routilux-timers"}  # the one of the runtime, which tells of long waits
            runtime.resume(worker)
            await asyncio.gather(*posts)
            assert await runtime.ajoin(SECONDS)

    without_threads(main)
    assert seen == list(range(n))


def test_waiting_aposts_hold_up_neither_shutdown_nor_the_threads_of_the_application() -> None:
    async def main() -> None:
        runtime = Runtime()
        flow = flow_of(step(lambda *_: None, max_queue_length=1))
        worker = runtime.exec(flow)
        await runtime.apause(worker)
        posts = [asyncio.ensure_future(runtime.apost(flow, "a", "input", {})) for _ in range(200)]
        await until(lambda: worker.counters("a")["queued"] == 1)
        assert await asyncio.to_thread(lambda: 7) == 7
        await runtime.ashutdown(wait=False)
        outcomes = await asyncio.gather(*posts, return_exceptions=True)
        assert [isinstance(outcome, RuntimeClosedError) for outcome in outcomes[1:]] == [True] * 199

    asyncio.run(asyncio.wait_for(main(), SECONDS))


@pytest.mark.parametrize("strategy", ["concurrent", "sequential"])
def test_async_logic_that_waits_for_room_elsewhere_holds_no_thread(strategy: str) -> None:
    @routine(concurrency=4)
    async def square(n: int) -> dict[str, int]:
        return {"n": await asyncio.to_thread(lambda: n * n)}

    @routine(concurrency=50)
    async def ask(n: int) -> dict[str, int]:
        posted = await runtime.apost("squares", "square", "input", {"n": n})
        return {"n": (await posted.job_context)[0].data["n"]}

    squares, asking = Flow("squares"), Flow("asking", execution_strategy=strategy)
    squares.add_routine(square().set_queue("input", max_queue_length=2), "square")
    asking.add_routine(ask(), "ask")
    with Runtime(thread_pool_size=1) as runtime:
        runtime.exec(squares)
        runtime.exec(asking)
        jobs = [runtime.post(asking, "ask", "input", {"n": i}).job_context for i in range(50)]
        assert [job.result(SECONDS)[0].data["n"] for job in jobs] == [i * i for i in range(50)]


def test_more_aposts_in_async_logic_than_jobs_may_be_pending_wait_their_turn() -> None:
    seen: list[int] = []

    @routine(concurrency=200)
    async def feed(n: int) -> None:
        await runtime.apost("sink", "a", "input", {"n": n})

    feeding = Flow("feeding")
    feeding.add_routine(feed().set_queue("input", max_queue_length=500), "feed")
    with Runtime(max_queue_size=20) as runtime:
        sink = runtime.exec(flow_of(noting(seen), flow_id="sink"))
        runtime.exec(feeding)
        runtime.pause(sink)
        jobs = [runtime.post(feeding, "feed", "input", {"n": i}).job_context for i in range(15)]
        runtime.resume(sink)
        jobs += [runtime.post(feeding, "feed", "input", {"n": i}).job_context for i in range(15, 100)]
        for job in jobs:
            job.result(SECONDS)
        assert runtime.wait_until_all_jobs_finished(SECONDS)
    assert sorted(seen) == list(range(100))


def test_async_logic_that_fills_its_own_slot_is_told_that_no_room_can_come() -> None:
    @routine
    async def feed(n: int) -> None:
        for i in range(n):
            await runtime.apost("feeding", "feed", "input", {"n": 0 * i})

    feeding = Flow("feeding")
    feeding.add_routine(feed().set_queue("input", max_queue_length=2), "feed")
    with Runtime() as runtime:
        runtime.exec(feeding)
        job = runtime.post(feeding, "feed", "input", {"n": 5}).job_context
        assert job.wait(SECONDS)
        assert isinstance(job.error.__cause__, QueueFullError)  # type: ignore[union-attr]


def test_apost_gives_up_at_its_time_out_also_behind_others() -> None:
    flow = flow_of(step(lambda *_: None, max_queue_length=1))

    async def main() -> None:
        async with Runtime() as runtime:
            worker = runtime.exec(flow)
            await runtime.apause(worker)
            await runtime.apost(flow, "a", "input", {})
            first = asyncio.ensure_future(runtime.apost(flow, "a", "input", {}))
            await asyncio.sleep(0)
            for timeout in (0, 0.01):
                with pytest.raises(QueueFullError):
                    await runtime.apost(flow, "a", "input", {}, timeout=timeout)
            runtime.resume(worker)
            await first

    without_threads(main)


# -- cancelling ----------------------------------------------------------------------------------------------------


def test_an_apost_that_is_cancelled_while_it_waits_never_runs_and_leaves_no_gap() -> None:
    seen: list[int] = []
    flow = flow_of(noting(seen, max_queue_length=1))

    async def main() -> None:
        async with Runtime() as runtime:
            worker = runtime.exec(flow)
            await runtime.apause(worker)
            posts = [asyncio.ensure_future(runtime.apost(flow, "a", "input", {"n": i})) for i in range(50)]
            await until(lambda: worker.counters("a")["queued"] == 1)
            for post in posts[1:40]:
                post.cancel()
            await asyncio.wait(posts[1:40])
            assert all(post.cancelled() for post in posts[1:40])
            runtime.resume(worker)
            await asyncio.gather(*posts[:1], *posts[40:])
            assert await runtime.ajoin(SECONDS)
            assert len(runtime.list_jobs()) == 11

    without_threads(main)
    assert seen == [0, *range(40, 50)]


def test_an_apost_that_is_cancelled_while_it_is_written_does_not_begin() -> None:
    seen: list[int] = []
    flow, store = flow_of(noting(seen)), SlowStore()

    async def main() -> None:
        async with Runtime(store=store) as runtime:
            worker = runtime.exec(flow)
            await runtime.apause(worker)
            store.let_go.clear()
            post = asyncio.ensure_future(runtime.apost(flow, "a", "input", {"n": 1}))
            await until(store.writes.is_set)
            post.cancel()
            await asyncio.sleep(0)
            store.let_go.set()
            with pytest.raises(asyncio.CancelledError):
                await post
            assert [job.status for job in runtime.list_jobs()] == ["cancelled"]
            runtime.resume(worker)
            assert await runtime.ajoin(SECONDS)

    without_threads(main)
    assert seen == []


def test_a_cancelled_apost_with_a_key_says_that_it_was_accepted_and_its_key_gives_the_job() -> None:
    seen: list[int] = []
    flow, store = flow_of(noting(seen)), SlowStore()

    async def main() -> None:
        async with Runtime(store=store) as runtime:
            runtime.exec(flow)
            store.let_go.clear()
            post = asyncio.ensure_future(
                runtime.apost(flow, "a", "input", {"n": 1}, idempotency_key="order 1")
            )
            await until(store.writes.is_set)
            post.cancel()
            await asyncio.sleep(0)
            store.let_go.set()
            with pytest.raises(asyncio.CancelledError) as caught:
                await post
            again = await runtime.apost(flow, "a", "input", {"n": 1}, idempotency_key="order 1")
            assert again.job_id in caught.value.__notes__[0]
            assert await runtime.ajoin(SECONDS)

    without_threads(main)
    assert seen == [1]


# -- loops of the application --------------------------------------------------------------------------------------


def test_a_loop_that_is_closed_with_waiting_aposts_in_it_leaves_nothing_behind() -> None:
    seen: list[int] = []
    flow = flow_of(noting(seen, max_queue_length=1))
    with Runtime() as runtime:
        worker = runtime.exec(flow)
        runtime.pause(worker)
        runtime.post(flow, "a", "input", {"n": 0})
        loop = asyncio.new_event_loop()
        tasks = [loop.create_task(runtime.apost(flow, "a", "input", {"n": i})) for i in range(1, 2_000)]
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        runtime.resume(worker)
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        assert not [task for task in tasks if task.done()]
        for task in tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
    assert seen == [0]


def test_a_loop_that_stands_still_does_not_hold_up_the_tasks_of_another() -> None:
    seen: list[int] = []
    flow = flow_of(noting(seen, max_queue_length=1))
    with Runtime() as runtime:
        worker = runtime.exec(flow)
        runtime.pause(worker)
        runtime.post(flow, "a", "input", {"n": 0})
        still, other = asyncio.new_event_loop(), asyncio.new_event_loop()
        waiting = still.create_task(runtime.apost(flow, "a", "input", {"n": 1}))
        still.run_until_complete(asyncio.sleep(0))
        going_on = other.create_task(runtime.apost(flow, "a", "input", {"n": 2}))
        other.run_until_complete(asyncio.sleep(0))
        runtime.resume(worker)
        other.run_until_complete(asyncio.wait_for(going_on, SECONDS))
        still.run_until_complete(asyncio.wait_for(waiting, SECONDS))
        for loop in (still, other):
            loop.close()
        assert runtime.wait_until_all_jobs_finished(SECONDS)
    assert sorted(seen) == [0, 1, 2]


def test_tasks_of_many_loops_post_at_the_same_time(stored: Any) -> None:
    seen: list[int] = []
    flow = flow_of(noting(seen, max_queue_length=3))

    def posts(start: int) -> None:
        async def main() -> None:
            await asyncio.gather(
                *(runtime.apost(flow, "a", "input", {"n": i}) for i in range(start, start + 50))
            )

        without_threads(main)

    with Runtime(store=stored) as runtime:
        runtime.exec(flow)
        threads = [threading.Thread(target=posts, args=(start,)) for start in range(0, 200, 50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        assert runtime.wait_until_all_jobs_finished(SECONDS)
    assert sorted(seen) == list(range(200))


def test_a_loop_that_is_closed_while_it_waits_for_the_store_does_not_stop_the_journal() -> None:
    store = SlowStore()

    def logic(routine: Any, payload: Any, state: Any) -> None:
        loop = asyncio.new_event_loop()
        store.let_go.clear()
        task = loop.create_task(current().acheckpoint(1))
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        store.let_go.set()
        task._log_destroy_pending = False  # type: ignore[attr-defined]

    flow = flow_of(step(logic))
    with Runtime(store=store) as runtime:
        runtime.exec(flow)
        job = runtime.post(flow, "a", "input", {"n": 1}).job_context
        job.result(SECONDS)
        assert runtime.health().status == "ok"


# -- the other twins -----------------------------------------------------------------------------------------------


def test_no_async_twin_uses_the_executor_of_its_loop(stored: Any) -> None:
    flow = flow_of(Step())

    async def main() -> list[Any]:
        async with Runtime(store=stored) as runtime:
            worker = runtime.exec(flow)
            first = (await runtime.apost(flow, "a", "input", {"n": 1})).job_context
            await first
            await runtime.apause(worker)
            second = (await runtime.apost(flow, "a", "input", {"n": 2})).job_context
            await runtime.apause(second)
            runtime.resume(second)
            runtime.resume(worker)
            assert await runtime.ajoin(SECONDS)
            assert await runtime.astop(worker)
            assert await runtime.ashutdown()
            return [*outputs_of(first), *outputs_of(second)]

    assert without_threads(main) == [{"n": 1}, {"n": 2}]


def test_the_loop_goes_on_while_shutdown_waits_for_logic() -> None:
    held = Held()
    flow = flow_of(step(held))

    async def main() -> bool:
        runtime = Runtime()
        runtime.exec(flow)
        await runtime.apost(flow, "a", "input", {"n": 1})
        await until(held.entered.is_set)
        ending = asyncio.ensure_future(runtime.ashutdown())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not ending.done()
        held.let_go.set()
        return await ending

    assert without_threads(main) is True


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    left = [thread for thread in threading.enumerate() if thread.name == "routilux-close"]
    for thread in left:
        thread.join(SECONDS)
