"""Every activation runs in a context of its own: what logic sets in a context variable is seen by no other."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from routilux import ErrorHandler, ErrorStrategy, Routine, Runtime, current, routine
from routilux.activation_policies import all_slots_ready_policy
from routilux.store.memory import MemoryStore
from routilux.testing.simulated import SimulatedRuntime
from tests.acceptance.parts import chain, flow_of, join, step
from tests.waiting import SECONDS

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


def seen_and_set(name: str) -> dict[str, str]:
    seen = tenant.get()
    tenant.set(name)
    return {"name": name, "saw": seen}


@routine
def plain(name: str) -> dict[str, str]:
    return seen_and_set(name)


@routine
async def in_a_task(name: str) -> dict[str, str]:
    await asyncio.sleep(0)
    return seen_and_set(name)


@routine
def generator(name: str) -> Iterator[dict[str, str]]:
    yield seen_and_set(name)
    assert tenant.get() == name


@routine
async def async_generator(name: str) -> AsyncIterator[dict[str, str]]:
    yield seen_and_set(name)
    await asyncio.sleep(0)
    assert tenant.get() == name


KINDS = [plain, in_a_task, generator, async_generator]


@pytest.fixture(params=["memory", "store"])
def runtime(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    with Runtime(thread_pool_size=1, store=MemoryStore() if request.param == "store" else None) as runtime:
        yield runtime


@pytest.mark.parametrize("kind", KINDS)
def test_what_logic_sets_is_not_seen_by_the_next_job(runtime: Runtime, kind: Any) -> None:
    flow = flow_of(kind())
    runtime.exec(flow)
    jobs = [runtime.post(flow, "a", "input", {"name": name}).job_context for name in ("alice", "bob")]
    assert [job.result(SECONDS)[0].data["saw"] for job in jobs] == ["nobody", "nobody"]
    assert tenant.get() == "nobody"


@pytest.mark.parametrize("kind", KINDS)
def test_what_logic_sets_is_not_seen_by_the_routine_behind_it(runtime: Runtime, kind: Any) -> None:
    flow = chain(kind(), step(lambda r, payload, state: r.emit("output", saw=tenant.get())))
    runtime.exec(flow)
    job = runtime.post(flow, "a", "input", {"name": "alice"}).job_context
    assert job.result(SECONDS)[0].data == {"saw": "nobody"}


@pytest.mark.parametrize("kind", KINDS)
def test_logic_has_the_context_of_the_caller_of_post(runtime: Runtime, kind: Any) -> None:
    flow = flow_of(kind())
    runtime.exec(flow)

    def post(name: str) -> Any:
        tenant.set(name)
        return runtime.post(flow, "a", "input", {"name": "logic"}).job_context

    jobs = [contextvars.copy_context().run(post, name) for name in ("alice", "bob")]
    assert [job.result(SECONDS)[0].data["saw"] for job in jobs] == ["alice", "bob"]


def test_logic_has_the_context_of_the_task_that_posts(runtime: Runtime) -> None:
    flow = flow_of(plain())
    runtime.exec(flow)

    async def post(name: str) -> str:
        tenant.set(name)
        outputs = await (await runtime.apost(flow, "a", "input", {"name": "logic"})).job_context
        saw: str = outputs[0].data["saw"]
        return saw

    async def main() -> list[str]:
        return await asyncio.gather(post("alice"), post("bob"))

    assert asyncio.run(main()) == ["alice", "bob"]


def test_an_execution_has_the_context_of_its_caller(runtime: Runtime) -> None:
    def execute() -> list[Any]:
        tenant.set("alice")
        one_shot = runtime.exec(flow_of(plain()), entry_params={"name": "logic"})
        assert one_shot.wait(SECONDS)
        states = [one_shot, flow_of(plain()).execute("a", {"name": "logic"})]
        return [state.outputs[0].data["saw"] for state in states]

    assert contextvars.copy_context().run(execute) == ["alice", "alice"]


def test_every_routine_of_a_job_has_the_context_of_its_caller(runtime: Runtime) -> None:
    flow = chain(step(lambda r, payload, state: r.emit("output", saw=[tenant.get()])), in_behind())
    runtime.exec(flow)

    def post() -> Any:
        tenant.set("alice")
        return runtime.post(flow, "a", "input", {}).job_context

    assert contextvars.copy_context().run(post).result(SECONDS)[0].data == {"saw": ["alice", "alice"]}


def in_behind() -> Routine:
    async def behind(routine: Routine, payload: Any, state: Any) -> None:
        routine.emit("output", saw=[*payload["saw"], tenant.get()])

    return step(behind)


def test_an_attempt_does_not_see_what_the_one_before_it_has_set(runtime: Runtime) -> None:
    def logic(routine: Routine, payload: Any, state: Any) -> None:
        seen = seen_and_set("first attempt")
        if current().attempt == 1:
            raise ValueError("once more")
        routine.emit("output", **seen)

    again = step(logic).set_error_handler(ErrorHandler(ErrorStrategy.RETRY, max_retries=1, retry_delay=0.0))
    flow = flow_of(again)
    runtime.exec(flow)
    job = runtime.post(flow, "a", "input", {}).job_context
    assert job.result(SECONDS)[0].data["saw"] == "nobody"


def test_an_activation_of_several_jobs_has_the_context_of_the_oldest_that_is_open(runtime: Runtime) -> None:
    joins = join(all_slots_ready_policy())
    joins.set_logic(lambda slot_data, message, state: joins.emit("output", saw=tenant.get()))
    flow = flow_of(joins)
    runtime.exec(flow)

    def post(name: str, slot: str) -> Any:
        tenant.set(name)
        return runtime.post(flow, "a", slot, {}).job_context

    parked = contextvars.copy_context().run(post, "alice", "left")
    assert parked.wait(SECONDS)  # completed: its item waits for that of another job
    newest = contextvars.copy_context().run(post, "bob", "right")
    assert newest.result(SECONDS)[0].data["saw"] == "bob"


def test_a_reopened_job_has_the_context_in_which_the_runtime_was_made() -> None:
    store, flow = MemoryStore(), flow_of(plain())

    def leave() -> None:
        tenant.set("caller of the first")
        with Runtime(store=store) as runtime:
            runtime.pause(runtime.exec(flow, worker_id="kept"))
            runtime.post(flow, "a", "input", {"name": "x"}, job_id="job")

    def open_again() -> Any:
        tenant.set("maker of the second")
        runtime = Runtime(store=store)
        tenant.set("caller of resume")
        with runtime:
            runtime.resume(runtime.exec(flow, worker_id="kept"))
            job = runtime.get_job("job")
            assert job is not None
            return job.result(SECONDS)[0].data["saw"]

    contextvars.copy_context().run(leave)
    assert contextvars.copy_context().run(open_again) == "maker of the second"


def test_a_post_inside_logic_has_the_context_of_that_logic_and_not_its_activation(runtime: Runtime) -> None:
    target = flow_of(plain(), flow_id="target")
    posted: list[Any] = []

    def logic(routine: Routine, payload: Any, state: Any) -> None:
        tenant.set("set in logic")
        posted.append(runtime.post(target, "a", "input", {"name": "x"}).job_context)

    source = flow_of(step(logic), flow_id="source")
    worker = runtime.exec(target)
    runtime.exec(source)
    runtime.pause(worker)
    runtime.post(source, "a", "input", {}).job_context.result(SECONDS)
    assert "routilux_activation" not in {
        variable.name for variable, value in posted[0].account.context.items() if value is not None
    }
    runtime.resume(worker)
    assert posted[0].result(SECONDS)[0].data["saw"] == "set in logic"


def test_a_job_that_has_ended_keeps_nothing_of_the_context_of_its_caller(runtime: Runtime) -> None:
    class Request:
        pass

    request: ContextVar[Request] = ContextVar("request")
    flow = flow_of(plain())
    runtime.exec(flow)

    def post() -> tuple[Any, Any]:
        mine = Request()
        request.set(mine)
        return weakref.ref(mine), runtime.post(flow, "a", "input", {"name": "x"}).job_context

    kept, job = contextvars.copy_context().run(post)
    job.result(SECONDS)
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    runtime.post(flow, "a", "input", {"name": "next"}).job_context.result(SECONDS)
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize("kind", ["thread", "task"])
def test_what_logic_starts_with_its_context_finds_its_activation(runtime: Runtime, kind: str) -> None:
    def tell(routine: Routine) -> None:
        routine.emit("output", found=current().routine_id, saw=tenant.get())

    def with_thread(routine: Routine, payload: Any, state: Any) -> None:
        tenant.set("logic")
        thread = threading.Thread(target=contextvars.copy_context().run, args=(tell, routine))
        thread.start()
        thread.join(SECONDS)

    async def with_task(routine: Routine, payload: Any, state: Any) -> None:
        tenant.set("logic")

        async def told() -> None:
            tell(routine)

        await asyncio.create_task(told())

    flow = flow_of(step(with_thread if kind == "thread" else with_task))
    runtime.exec(flow)
    job = runtime.post(flow, "a", "input", {}).job_context
    assert job.result(SECONDS)[0].data == {"found": "a", "saw": "logic"}


@pytest.mark.parametrize("seed", range(20))
def test_what_runs_inside_the_emit_of_another_activation_sees_nothing_of_it(seed: int) -> None:
    saw: list[str] = []

    def producer(routine: Routine, payload: Any, state: Any) -> None:
        tenant.set("producer")
        for n in range(20):
            routine.emit("output", n=n)
            assert tenant.get() == "producer"

    def consumer(routine: Routine, payload: Any, state: Any) -> None:
        saw.append(tenant.get())
        tenant.set("consumer")

    runtime = SimulatedRuntime(seed, thread_pool_size=1)
    flow = chain(step(producer), step(consumer, max_queue_length=1))
    runtime.exec(flow)
    runtime.post(flow, "a", "input", {})
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    runtime.shutdown(wait=False)
    assert saw == ["nobody"] * 20
