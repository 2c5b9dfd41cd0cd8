"""Logic that posts into another runtime: its wait there ends with its own runtime, worker and job."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import pytest

from routilux import Runtime
from routilux.errors import JobCancelledError, QueueFullError, RuntimeClosedError, WorkerNotRunningError
from routilux.store.memory import MemoryStore
from tests.acceptance.parts import flow_of, step
from tests.waiting import SECONDS, eventually

stores = pytest.mark.parametrize("store", [None, MemoryStore])
in_task = pytest.mark.parametrize("in_task", [False, True], ids=["thread", "task"])


class Posts:
    """Logic that posts into the flow ``sink`` of another runtime, and what came of it."""

    def __init__(self, other: Runtime, *, in_task: bool, **options: Any) -> None:
        self.error: BaseException | None = None
        self.ended = False
        self.waits: Callable[[], object] = bool  # before it posts

        def logic(routine: Any, payload: Any, state: Any) -> None:
            self.waits()
            with self.noted():
                other.post("sink", "a", "input", {}, **options)

        async def async_logic(routine: Any, payload: Any, state: Any) -> None:
            with self.noted():
                await other.apost("sink", "a", "input", {}, **options)

        self.flow = flow_of(step(async_logic if in_task else logic), flow_id="posts")

    @contextmanager
    def noted(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.ended = True


@contextmanager
def another(room: str) -> Iterator[Runtime]:
    """A runtime that stands still, and has no room for a post."""
    with Runtime(max_queue_size=1 if room == "pending" else 100) as runtime:
        sink = flow_of(step(lambda *_: None, max_queue_length=1), flow_id="sink")
        runtime.pause(runtime.exec(sink))
        runtime.post(sink, "a", "input", {}, **({"timeout": 60} if room == "key" else {}))
        yield runtime
        runtime.shutdown(wait=False)


ENDS: dict[str, Callable[[Runtime, Any, Any], Any]] = {
    "shutdown": lambda runtime, worker, job: runtime.shutdown(wait=False, timeout=SECONDS),
    "stop": lambda runtime, worker, job: runtime.stop(worker, drain=False, timeout=SECONDS),
    "cancel": lambda runtime, worker, job: runtime.cancel(job),
}
ENDED = (CancelledError, JobCancelledError, RuntimeClosedError, WorkerNotRunningError)


@stores
@in_task
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("room", ["slot", "pending", "key"])
def test_it_ends_with_what_the_logic_runs_in(room: str, end: str, in_task: bool, store: Any) -> None:
    options = {} if store is None else {"store": store()}
    key = {"idempotency_key": "k"} if room == "key" else {}
    with another(room) as other, Runtime(**options) as runtime:
        if key:  # its first post waits for room
            Thread(target=posted_or_refused, args=(other, key), daemon=True).start()
            eventually(lambda: other._posting._under_way)
        logic = Posts(other, in_task=in_task, **key)
        worker = runtime.exec(logic.flow)
        job = runtime.post(logic.flow, "a", "input", {}).job_context
        eventually(lambda: runtime._engine.workers[worker.worker_id].queue.lent)
        ENDS[end](runtime, worker, job)
        eventually(lambda: logic.ended)
        assert isinstance(logic.error, ENDED)
        assert len(other.list_jobs()) == 1 + (room == "key")


def posted_or_refused(runtime: Runtime, options: dict[str, Any]) -> None:
    try:
        runtime.post("sink", "a", "input", {}, **options)
    except (RuntimeClosedError, WorkerNotRunningError):
        pass


@pytest.mark.parametrize("room", ["slot", "pending"])
def test_a_drain_that_has_begun_is_told_of_a_wait_behind_a_pause_of_another_runtime(room: str) -> None:
    with another(room) as other:
        runtime, answers = Runtime(), []
        logic = Posts(other, in_task=False)
        worker = runtime._engine.workers[runtime.exec(logic.flow).worker_id]
        logic.waits = lambda: eventually(lambda: worker.rest.waiting)
        runtime.post(logic.flow, "a", "input", {})
        thread = Thread(target=lambda: answers.append(runtime.shutdown()), daemon=True)
        thread.start()
        thread.join(SECONDS)
        assert answers == [False]
        assert isinstance(logic.error, ENDED)


def test_logic_hears_that_none_of_the_jobs_that_are_pending_in_another_runtime_can_start() -> None:
    """The only routine of that runtime posts back, and waits itself."""
    with Runtime(max_queue_size=1) as runtime, Runtime(max_queue_size=1) as other:
        failed: list[BaseException] = []

        def posts_to(target: Runtime) -> Any:
            def logic(routine: Any, payload: Any, state: Any) -> None:
                try:
                    for _ in range(3 if payload["left"] else 0):
                        target.post("flow", "a", "input", {"left": payload["left"] - 1})
                except QueueFullError as error:
                    failed.append(error)

            return flow_of(step(logic))

        first, second = posts_to(other), posts_to(runtime)
        runtime.exec(first)
        other.exec(second)
        runtime.post(first, "a", "input", {"left": 4})
        eventually(lambda: runtime.wait_until_all_jobs_finished(1) and other.wait_until_all_jobs_finished(1))
        assert failed
        assert "nothing that runs could start one of them" in str(failed[0])
