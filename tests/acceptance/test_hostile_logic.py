"""User code may do anything: an activation that goes wrong fails its job, and the runtime goes on."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from routilux import ErrorHandler, Flow, JobContext, Routine, Runtime, SlotHandlerError, StateError, current
from routilux.activation_policies import custom_policy, immediate_policy
from routilux.errors import InvalidTypeError, JobCancelledError, NotInActivationError
from routilux.ports import Task
from tests.waiting import SECONDS


class Calls(Routine):
    """Calls what it finds in the payload; without that emits the payload."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.add_event("output")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        for payload in slot_data["input"]:
            if "call" in payload:
                payload["call"](self)
            else:
                self.emit("output", **payload)


class AwaitsCalls(Calls):
    """The same on the event loop; before the call it lets go of the loop once."""

    async def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        super().logic(slot_data, policy_message, state)


class World:
    def __init__(self, routine: Routine) -> None:
        self.runtime = Runtime(thread_pool_size=1)
        self.flow = Flow("hostile")
        self.flow.add_routine(routine, "only")
        self.worker = self.runtime.exec(self.flow)

    def post(self, **data: Any) -> JobContext:
        return self.runtime.post(self.flow, "only", "input", data).job_context

    def call(self, call: Callable[[Calls], object]) -> JobContext:
        job = self.post(call=call)
        assert job.wait(SECONDS)
        return job

    def lives(self) -> bool:
        """Whether the next job completes on the same worker."""
        job = self.post(n=1)
        return job.wait(SECONDS) and job.status == "completed" and self.worker.status == "running"


@pytest.fixture(params=[Calls, AwaitsCalls], ids=["sync", "async"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    world = World(request.param())
    threads = threading.active_count()
    yield world
    assert (
        threading.active_count() <= threads + 2
    )  # the event loop's and the timers', first needed by the test
    assert world.runtime.shutdown(timeout=SECONDS)


class NoText(Exception):
    """Cannot be shown in any way."""

    def __str__(self) -> str:
        raise ValueError("no str")

    def __repr__(self) -> str:
        raise ValueError("no repr")


class ExitsWhenShown(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__


class ShowsNoText(Exception):
    def __str__(self) -> Any:  # type: ignore[override]
        return 5


class Frozen(Exception):
    """Refuses that anything is noted on it."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)


class HugeText(Exception):
    def __str__(self) -> str:
        return "x" * 10_000_000


class Own(BaseException):
    pass


def raises(error: BaseException | type[BaseException]) -> Callable[[Calls], None]:
    def call(_: Calls) -> None:
        raise error

    return call


def recurses(routine: Calls) -> None:
    recurses(routine)


def runs_out_of_memory(_: Calls) -> None:
    bytearray(sys.maxsize)


def raises_in_a_chain(_: Calls) -> None:
    first = ValueError("first")
    first.__context__ = second = KeyError("second")
    second.__context__ = first
    raise first


HOSTILE: dict[str, tuple[Callable[[Calls], None], type[BaseException]]] = {
    "Exception": (raises(Exception("plain")), Exception),
    "SystemExit": (raises(SystemExit(1)), SystemExit),
    "SystemExit without code": (raises(SystemExit), SystemExit),
    "sys.exit": (lambda _: sys.exit("bye"), SystemExit),
    "KeyboardInterrupt": (raises(KeyboardInterrupt), KeyboardInterrupt),
    "RecursionError": (recurses, RecursionError),
    "MemoryError": (runs_out_of_memory, MemoryError),
    "GeneratorExit": (raises(GeneratorExit), GeneratorExit),
    "CancelledError": (raises(asyncio.CancelledError), asyncio.CancelledError),
    "TimeoutError": (raises(TimeoutError), TimeoutError),
    "BaseException": (raises(Own("own")), Own),
    "group": (raises(BaseExceptionGroup("group", [ValueError(1), KeyboardInterrupt()])), BaseExceptionGroup),
    "no text": (raises(NoText()), NoText),
    "exits when shown": (raises(ExitsWhenShown()), ExitsWhenShown),
    "text is no text": (raises(ShowsNoText()), ShowsNoText),
    "frozen": (raises(Frozen("frozen")), Frozen),
    "huge text": (raises(HugeText()), HugeText),
    "circular context": (raises_in_a_chain, ValueError),
    "our own error": (raises(JobCancelledError("made up")), JobCancelledError),
}

LIKE_STOP_ITERATION = {
    # A coroutine turns these into RuntimeError, as Python does.
    "StopIteration": (raises(StopIteration(1)), (StopIteration, RuntimeError)),
    "StopAsyncIteration": (raises(StopAsyncIteration), (StopAsyncIteration, RuntimeError)),
}


@pytest.mark.parametrize("name", [*HOSTILE, *LIKE_STOP_ITERATION])
def test_whatever_logic_raises_fails_its_job_and_the_next_one_completes(name: str, world: World) -> None:
    call, kind = {**HOSTILE, **LIKE_STOP_ITERATION}[name]
    job = world.call(call)
    assert job.status == "failed"
    assert isinstance(job.error, SlotHandlerError)
    assert isinstance(job.error.__cause__, kind)
    assert world.lives()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_failure_is_recorded_with_a_text_of_bounded_length(name: str, world: World) -> None:
    job = world.call(HOSTILE[name][0])
    (record,) = world.worker.execution_history
    (letter,) = world.runtime.dead_letters()
    assert (record.status, record.routine_id, record.job_ids) == ("failed", "only", (job.job_id,))
    for text in (str(job.error), record.error, letter.error):
        assert text
        assert HOSTILE[name][1].__name__ in text
        assert len(text) < 10_000


@pytest.mark.parametrize("name", HOSTILE)
def test_result_raises_the_failure_and_not_what_logic_raised(name: str, world: World) -> None:
    job = world.call(HOSTILE[name][0])
    with pytest.raises(SlotHandlerError, match="routine 'only' failed in attempt 1"):
        job.result()


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("strategy", ["continue", "skip", "retry"])
def test_every_strategy_takes_whatever_logic_raises(name: str, strategy: str) -> None:
    routine = Calls()
    retries = {"max_retries": 1, "retry_delay": 0} if strategy == "retry" else {}
    routine.set_error_handler(ErrorHandler(strategy, **retries))
    world = World(routine)
    with world.runtime:
        job = world.call(HOSTILE[name][0])
        assert job.status == ("failed" if strategy == "retry" else "completed")
        assert len(job.errors) == (0 if strategy == "retry" else 1)
        assert len(world.runtime.dead_letters()) == 1
        assert world.lives()


def test_program_that_exits_in_logic_does_not_exit(world: World) -> None:
    """sys.exit() in a thread of a pool would end that thread only, and silently."""
    for _ in range(20):
        world.call(lambda _: sys.exit(1))
    assert world.lives()


def asked(call: Callable[[Any], object], *_: Any) -> object:
    return call(None)


def test_failing_policy_of_any_kind_fails_the_job(world: World) -> None:
    for name, (call, kind) in HOSTILE.items():
        routine = Calls()
        routine.set_activation_policy(custom_policy(partial(asked, call)))
        flow = Flow(f"policy {name}")
        flow.add_routine(routine, "only")
        worker = world.runtime.exec(flow)
        job = world.runtime.post(flow, "only", "input", {}).job_context
        assert job.wait(SECONDS), name
        assert isinstance(job.error, SlotHandlerError)
        assert isinstance(job.error.__cause__, kind)
        assert worker.status == "running"
    assert world.lives()


def test_failing_merge_function_of_any_kind_fails_the_job(world: World) -> None:
    for name, (call, kind) in HOSTILE.items():
        routine = type(world.flow.routines["only"])()
        routine.add_slot("merged", merge_strategy=partial(asked, call))
        flow = Flow(f"merge {name}")
        flow.add_routine(routine, "only")
        world.runtime.exec(flow)
        job = world.runtime.post(flow, "only", "merged", {}).job_context
        assert job.wait(SECONDS), name
        assert isinstance(job.error, SlotHandlerError)
        assert isinstance(job.error.__cause__, kind)
    assert world.lives()


def test_failing_output_handler_fails_the_activation_that_sent(world: World) -> None:
    class Broken:
        def handle(self, output: Any) -> None:
            raise SystemExit(4)

    world.worker.set_output_handler(Broken())
    job = world.call(lambda routine: routine.send_output("text", line="x"))
    assert (job.status, type(job.error.__cause__)) == ("failed", SystemExit)
    assert world.lives()


def test_broken_observer_never_changes_an_outcome(world: World, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def __init__(self, error: BaseException) -> None:
            self.error = error

        def record(self, record: Any) -> None:
            raise self.error

    for error in (ValueError("broken"), NoText(), HugeText()):
        world.runtime.add_observer(Broken(error))
    assert world.lives()
    assert "ValueError: broken" in caplog.text
    assert len(caplog.text) < 100_000  # ten of each, none longer than a few lines of 2,000 characters


@pytest.mark.parametrize("observer", [object(), print])
def test_what_can_observe_nothing_is_refused(world: World, observer: Any) -> None:
    with pytest.raises(InvalidTypeError, match=r"add_observer\(\): expected an object with a method record"):
        world.runtime.add_observer(observer)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, Own])
def test_observer_that_tries_to_end_the_program_ends_no_thread_of_the_runtime(
    kind: type[BaseException], world: World, caplog: pytest.LogCaptureFixture
) -> None:
    class Ends:
        def record(self, record: Any) -> None:
            if threading.current_thread() is not threading.main_thread():
                raise kind

    world.runtime.add_observer(Ends())
    assert world.lives()
    assert world.lives()
    assert f"observer Ends raised {kind.__name__}" in caplog.text


def test_observer_lets_pass_what_the_handler_of_a_signal_raises_in_the_main_thread(world: World) -> None:
    class Interrupted:
        def record(self, record: Any) -> None:
            if threading.current_thread() is threading.main_thread():
                raise KeyboardInterrupt

    observer = Interrupted()
    world.runtime.add_observer(observer)
    with pytest.raises(KeyboardInterrupt):
        world.post(n=1)
    world.runtime.remove_observer(observer)
    assert world.lives()


def test_event_loop_that_is_closed_while_a_task_awaits_a_job_does_no_harm(world: World) -> None:
    go = threading.Event()
    job = world.post(call=lambda routine: go.wait(SECONDS))
    loop = asyncio.new_event_loop()

    async def awaits() -> None:
        await job

    task = loop.create_task(awaits())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    go.set()
    assert job.wait(SECONDS)
    assert world.lives()
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # what it says is true, and meant


def test_error_handler_whose_classes_fight_back_fails_the_job(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    class Fights(type):
        def __instancecheck__(cls, instance: object) -> bool:
            raise SystemExit

    class Odd(Exception, metaclass=Fights):
        pass

    world.runtime.stop(world.worker)
    world.flow.set_error_handler(ErrorHandler("retry", retryable_exceptions=(Odd,)))
    world.worker = world.runtime.exec(world.flow)
    job = world.call(raises(ValueError("plain")))
    assert (job.status, type(job.error.__cause__)) == ("failed", ValueError)
    assert "the error handler of routine 'only' raised SystemExit" in caplog.text
    assert world.lives()


class Runner:
    """Runs logic at once, and whatever it is told to around it."""

    def __init__(self, before: Callable[[], object] = bool, dones: int = 1) -> None:
        self.before = before
        self.dones = dones
        self.started = threading.Event()
        self.done: Callable[[BaseException | None], None] = print

    def start(self, task: Task, done: Callable[[BaseException | None], None]) -> Callable[[], None]:
        self.before()
        for _ in range(self.dones):
            done(None)
        self.done = done
        self.started.set()
        return self.refuses

    def refuses(self) -> None:
        raise LookupError("cannot be cancelled")

    def close(self) -> None:
        pass


@pytest.mark.parametrize("error", [ValueError("no room"), SystemExit()], ids=repr)
def test_task_runner_that_cannot_start_fails_the_job(error: BaseException, world: World) -> None:
    def before() -> None:
        raise error

    world.runtime.set_runner(world.worker, "only", Runner(before))
    job = world.call(print)
    assert (job.status, job.error.__cause__) == ("failed", error)
    world.runtime.set_runner(world.worker, "only", None)
    assert world.lives()


def test_task_runner_that_says_twice_that_logic_has_ended_is_heard_once(world: World) -> None:
    world.runtime.set_runner(world.worker, "only", Runner(dones=3))
    jobs = [world.post(n=n) for n in range(3)]
    assert all(job.wait(SECONDS) and job.status == "completed" for job in jobs)
    assert world.runtime.wait_until_all_jobs_finished(SECONDS)
    stats = world.flow.routines["only"].stats(world.worker)
    assert (stats["activations"], stats["running"]) == (3, 0)


def test_task_runner_that_cannot_cancel_does_not_keep_a_job_from_being_cancelled(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    runner = Runner(dones=0)
    world.runtime.set_runner(world.worker, "only", runner)
    job = world.post(n=1)
    assert runner.started.wait(SECONDS)
    world.runtime.cancel(job)
    assert job.wait(SECONDS)
    assert job.status == "cancelled"
    assert "raised LookupError: cannot be cancelled" in caplog.text
    runner.done(None)
    world.runtime.set_runner(world.worker, "only", None)
    assert world.lives()


def test_values_that_fight_back_pass_through(world: World) -> None:
    class Fights:
        def __eq__(self, other: object) -> bool:
            raise ValueError("no comparison")

        __hash__ = None  # type: ignore[assignment]

        def __bool__(self) -> bool:
            raise ValueError("no truth")

        def __len__(self) -> int:
            raise ValueError("no length")

        def __repr__(self) -> str:
            raise ValueError("no repr")

        def __copy__(self) -> Any:
            raise ValueError("no copy")

        def __del__(self) -> None:
            pass

    value = Fights()
    job = world.post(value=value)
    assert job.wait(SECONDS)
    assert job.status == "completed"
    assert job.outputs[0].data["value"] is value
    assert repr(job)


def test_payload_key_named_like_a_parameter_of_emit_is_a_key_like_any_other(world: World) -> None:
    data = {"self": 1, "event": 2, "data": 3, "slot": 4}
    job = world.runtime.post(world.flow, "only", "input", data).job_context
    assert job.wait(SECONDS)
    assert [output.data for output in job.outputs] == [data]


def test_what_logic_does_to_its_payload_does_not_show_elsewhere(world: World) -> None:
    mine = {"call": lambda routine: None, "n": 1}

    def clears(routine: Calls) -> None:
        mine.clear()

    mine["call"] = clears
    job = world.runtime.post(world.flow, "only", "input", mine).job_context
    assert job.wait(SECONDS)
    assert job.status == "completed"


# -- threads and tasks of the logic --------------------------------------------------------------------------


def test_thread_of_the_logic_that_has_its_context_may_emit(world: World) -> None:
    def call(routine: Calls) -> None:
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(lambda: routine.emit("output", n=1),))
        thread.start()
        thread.join()

    job = world.call(call)
    assert (job.status, [output.data for output in job.outputs]) == ("completed", [{"n": 1}])


def test_many_threads_of_one_activation_may_emit_at_once(world: World) -> None:
    def call(routine: Calls) -> None:
        with ThreadPoolExecutor(8) as pool:
            for n in range(200):
                pool.submit(contextvars.copy_context().run, routine.emit, "output", n=n)

    job = world.call(call)
    assert sorted(output.data["n"] for output in job.outputs) == list(range(200))


def test_thread_of_the_logic_without_its_context_may_not_emit_and_is_told_how(world: World) -> None:
    raised: list[BaseException] = []

    def call(routine: Calls) -> None:
        def emits() -> None:
            try:
                routine.emit("output", n=1)
            except NotInActivationError as error:
                raised.append(error)

        thread = threading.Thread(target=emits)
        thread.start()
        thread.join()

    job = world.call(call)
    assert (job.status, job.outputs) == ("completed", [])
    assert "contextvars.copy_context().run" in str(raised[0])


def test_thread_that_outlives_its_activation_may_not_emit(world: World) -> None:
    """What it emitted would belong to a job that may have ended."""
    ended, raised = threading.Event(), []

    def emits_late(routine: Calls) -> None:
        assert ended.wait(SECONDS)
        try:
            routine.emit("output", n=1)
        except StateError as error:
            raised.append(error)

    threads: list[threading.Thread] = []

    def call(routine: Calls) -> None:
        context = contextvars.copy_context()
        threads.append(threading.Thread(target=context.run, args=(emits_late, routine)))
        threads[0].start()

    job = world.call(call)
    ended.set()
    threads[0].join(SECONDS)
    assert [type(error) for error in raised] == [NotInActivationError]
    assert "has ended" in str(raised[0])
    assert (job.status, job.outputs) == ("completed", [])
    assert world.lives()


def test_tasks_of_async_logic_have_its_context() -> None:
    class Tasks(Calls):
        async def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:  # type: ignore[override]
            async def emits(n: int) -> None:
                await asyncio.sleep(0)
                self.emit("output", n=n, job=current().job.job_id)

            async with asyncio.TaskGroup() as group:
                for n in range(50):
                    group.create_task(emits(n))

    world = World(Tasks())
    with world.runtime:
        job = world.post()
        assert job.wait(SECONDS)
        assert sorted(output.data["n"] for output in job.outputs) == list(range(50))
        assert {output.data["job"] for output in job.outputs} == {job.job_id}


def test_task_that_outlives_its_activation_may_not_emit() -> None:
    go, tasks, raised = threading.Event(), [], []

    class LeavesATask(Calls):
        async def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:  # type: ignore[override]
            async def emits_late() -> None:
                await asyncio.to_thread(go.wait, SECONDS)
                try:
                    self.emit("output", n=1)
                except StateError as error:
                    raised.append(error)
                finally:
                    done.set()

            tasks.append(asyncio.create_task(emits_late()))

    done = threading.Event()
    world = World(LeavesATask())
    with world.runtime:
        job = world.post()
        assert job.wait(SECONDS)
        go.set()
        assert done.wait(SECONDS)
        assert [type(error) for error in raised] == [NotInActivationError]
        assert (job.status, job.outputs) == ("completed", [])


def test_context_of_one_async_activation_does_not_leak_into_the_next() -> None:
    world = World(AwaitsCalls())
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("of_the_test", default=0)
    seen: list[int] = []

    def call(_: Calls) -> None:
        seen.append(variable.get())
        variable.set(len(seen))

    with world.runtime:
        for _ in range(3):
            world.call(call)
    assert seen == [0, 0, 0]


def test_logic_that_swallows_everything_cannot_keep_its_job_open(world: World) -> None:
    def call(routine: Calls) -> None:
        world.runtime.cancel(current().job)
        for _ in range(3):
            try:
                current().check()
            except BaseException:
                continue

    job = world.call(call)
    assert job.status == "cancelled"
    assert world.lives()


# -- attributes ----------------------------------------------------------------------------------------------


def test_assigning_an_attribute_in_logic_warns_once_for_each_attribute_and_class() -> None:
    class Remembers(Calls):
        pass

    def call(routine: Calls) -> None:
        routine.last = 1  # type: ignore[attr-defined]
        routine.other = 2  # type: ignore[attr-defined]

    world = World(Remembers())
    with world.runtime, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            assert world.call(call).status == "completed"
    messages = [str(warning.message) for warning in caught if warning.category is RuntimeWarning]
    assert len(messages) == 2
    assert "Remembers.last is assigned during an activation of routine 'only'" in messages[0]
    assert "self.state['last'] = ..." in messages[0]
    assert "Remembers.other" in messages[1]


def test_assigning_an_attribute_in_logic_raises_in_debug_mode() -> None:
    routine = Calls()
    flow = Flow("debugged")
    flow.add_routine(routine, "only")
    with Runtime(thread_pool_size=1, debug=True) as runtime:
        runtime.exec(flow)
        job = runtime.post(
            flow, "only", "input", {"call": lambda routine: setattr(routine, "last", 1)}
        ).job_context
        assert job.wait(SECONDS)
        assert isinstance(job.error.__cause__, StateError)
        assert "self.state['last'] = ..." in str(job.error)
        assert not hasattr(routine, "last")


def test_attributes_may_be_assigned_outside_of_activations_and_on_other_routines() -> None:
    routine, other = Calls(), Calls()
    world = World(routine)
    with world.runtime, warnings.catch_warnings():
        warnings.simplefilter("error")
        routine.before = 1  # type: ignore[attr-defined]
        assert world.call(lambda _: setattr(other, "free", 1)).status == "completed"


# -- memory --------------------------------------------------------------------------------------------------


def test_failed_jobs_do_not_keep_what_logic_held_alive_for_ever(world: World) -> None:
    class Held:
        alive = 0

        def __init__(self) -> None:
            Held.alive += 1

        def __del__(self) -> None:
            Held.alive -= 1

    def call(_: Calls) -> None:
        held = Held()
        raise ValueError(id(held))

    job = world.call(call)
    assert Held.alive == 1  # the traceback of the job's error shows it to a debugger
    world.runtime.shutdown()
    del job
    gc.collect()
    assert Held.alive <= 1
