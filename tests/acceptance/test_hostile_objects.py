"""Code of the user that raises where nothing should: no thread of the runtime ends, and all else goes on.

After each attack the same holds: another flow completes a job, so does the attacked one, a drain ends, and
``shutdown()`` returns True. A thread that ends with an exception fails its test by itself.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from threading import Event, current_thread, main_thread
from typing import Any

import pytest

from routilux import ErrorHandler, Flow, JobContext, Routine, Runtime, SlotHandlerError, routine
from routilux.activation_policies import custom_policy, immediate_policy
from routilux.errors import StoreError
from routilux.kernel.mailbox import Mailbox
from routilux.ports import Changes, Task
from routilux.runtime.journal.record import Record
from routilux.store.memory import MemoryStore
from tests.waiting import SECONDS, eventually


class Boom(RuntimeError):
    pass


DUNDERS = [
    "__bool__", "__contains__", "__copy__", "__deepcopy__", "__delattr__", "__dir__", "__eq__", "__format__",
    "__getattribute__", "__hash__", "__iter__", "__len__", "__reduce__", "__reduce_ex__", "__repr__", "__setattr__",
    "__sizeof__", "__str__",
]  # fmt: skip
NOTED = [
    "__cause__", "__class__", "__context__", "__dict__", "__notes__", "__suppress_context__", "__traceback__", "args",
    "with_traceback",
]  # fmt: skip
RAISED = [Boom, SystemExit, KeyboardInterrupt, GeneratorExit]


def raises(kind: type[BaseException]) -> Callable[..., Any]:
    def method(*_: Any, **__: Any) -> Any:
        raise kind("raised by a method of the user")

    return method


def hostile(base: type, kind: type[BaseException] = Boom) -> Any:
    """An instance of a class whose every method raises."""
    return type(f"Hostile{base.__name__}", (base,), dict.fromkeys(DUNDERS, raises(kind)))()


def that_hides(name: str, kind: type[BaseException]) -> BaseException:
    """An exception that cannot be asked for one thing."""
    hidden = property(raises(kind), raises(kind))
    return type("Hides", (Exception,), {name: hidden})()  # type: ignore[no-any-return]


class NamelessMeta(type):
    def __getattribute__(cls, name: str) -> Any:
        if name in ("__name__", "__qualname__", "__module__", "__mro__"):
            raise Boom(name)
        return super().__getattribute__(name)


class Nameless(Exception, metaclass=NamelessMeta):
    pass


class OddText(str):
    __format__ = __len__ = __bool__ = __str__ = __repr__ = raises(Boom)


class HasOddText(Exception):
    def __str__(self) -> str:
        return OddText("odd")


def in_a_circle() -> BaseException:
    one, two = ValueError(1), ValueError(2)
    one.__cause__, two.__cause__ = two, one
    return one


def caused() -> BaseException:
    error = ValueError("outer")
    error.__cause__ = hostile(Exception)
    return error


def in_context() -> BaseException:
    error = ValueError("outer")
    error.__context__ = hostile(BaseException)
    return error


EXCEPTIONS: dict[str, Callable[[], BaseException]] = {
    **{
        f"{base.__name__}, its methods raise {kind.__name__}": lambda base=base, kind=kind: hostile(base, kind)
        for base in (Exception, BaseException, SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError)
        for kind in RAISED
    },
    **{
        f"hides {name} behind {kind.__name__}": lambda name=name, kind=kind: that_hides(name, kind)
        for name in NOTED
        for kind in (Boom, SystemExit)
    },
    "hidden name": lambda: Nameless(),
    "odd text": lambda: HasOddText(),
    "hostile cause": caused,
    "causes in a circle": in_a_circle,
    "hostile context": in_context,
    "member of a group": lambda: BaseExceptionGroup("group", [hostile(Exception)]),
}  # fmt: skip


class Plain(Routine):
    """Raises what ``make`` of its class gives, for a payload that asks for it."""

    make: Callable[[], BaseException] = staticmethod(Boom)

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.add_event("output")
        self.add_event("error")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        for payload in slot_data["input"]:
            if payload["raise"]:
                raise Plain.make()
            self.emit("output", n=1)


class Awaits(Plain):
    async def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        super().logic(slot_data, policy_message, state)


@routine
def yields(**data: Any) -> Iterator[dict[str, Any]]:
    yield {"n": 1}
    if data["raise"]:
        raise Plain.make()


@routine
async def yields_async(**data: Any) -> AsyncIterator[dict[str, Any]]:
    yield {"n": 1}
    await asyncio.sleep(0)
    if data["raise"]:
        raise Plain.make()


KINDS: dict[str, Callable[[], Routine]] = {
    "plain": Plain,
    "async": Awaits,
    "generator": yields,
    "async generator": yields_async,
}


class World:
    """The flow that is attacked, and another one."""

    def __init__(self, store: Any, make: Callable[[], Routine], handler: ErrorHandler | None = None) -> None:
        self.runtime = Runtime(thread_pool_size=1, store=store)
        self.flow, self.other = Flow("attacked"), Flow("other")
        for flow in (self.flow, self.other):
            flow.add_routine(make(), "only")
        if handler is not None:
            self.flow.set_error_handler(handler)
        self.worker = self.runtime.exec(self.flow)
        self.runtime.exec(self.other)

    def post(self, flow: Flow, **data: Any) -> JobContext:
        return self.runtime.post(flow, "only", "input", {"raise": False, **data}).job_context

    def check_lives(self) -> None:
        for flow in (self.other, self.flow):
            job = self.post(flow)
            assert job.wait(SECONDS)
            assert job.status == "completed", flow.flow_id
        assert self.runtime.wait_until_all_jobs_finished(SECONDS)

    def end(self) -> None:
        self.check_lives()
        assert self.runtime.health().status == "ok"
        assert self.runtime.shutdown(timeout=SECONDS)
        assert self.runtime.health().status == "closed"


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    return None if request.param == "memory" else f"sqlite:///{tmp_path / 'store.db'}"


# -- exceptions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strategy", ["stop", "retry", "continue", "skip"])
def test_an_exception_whose_methods_raise_fails_its_job_and_nothing_else(
    kind: str, strategy: str, store: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    retries = {"max_retries": 1, "retry_delay": 0} if strategy == "retry" else {}
    world = World(store, KINDS[kind], ErrorHandler(strategy, **retries))
    for name, make in EXCEPTIONS.items():
        monkeypatch.setattr(Plain, "make", staticmethod(make))
        job = world.post(world.flow, **{"raise": True})
        assert job.wait(SECONDS), name
        assert job.status == ("failed" if strategy in ("stop", "retry") else "completed"), name
        assert isinstance(job.error or job.errors[0], SlotHandlerError), name
        world.check_lives()
    assert len(world.runtime.dead_letters()) == len(EXCEPTIONS)
    world.end()


def test_an_exception_whose_methods_raise_is_sent_on(
    store: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(store, Plain, ErrorHandler("emit"))
    for name, make in EXCEPTIONS.items():
        monkeypatch.setattr(Plain, "make", staticmethod(make))
        job = world.post(world.flow, **{"raise": True})
        assert job.wait(SECONDS), name
        assert [output.event for output in job.outputs] == ["error"], name
    world.end()


def test_a_failure_that_cannot_be_read_names_its_class_and_its_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(None, Plain)
    monkeypatch.setattr(Plain, "make", staticmethod(lambda: hostile(Exception)))
    job = world.post(world.flow, **{"raise": True})
    assert job.wait(SECONDS)
    for text in (str(job.error), caplog.text):
        assert "HostileException: <its text cannot be read: Boom> (test_hostile_objects.py:" in text
    world.end()


# -- code of the user that is no logic -----------------------------------------------------------------------


def broken_policy(world: World, kind: type[BaseException]) -> None:
    broken = Plain()
    broken.set_activation_policy(custom_policy(raises(kind)))
    attack_by(world, broken)


def policy_with_a_hostile_answer(world: World, kind: type[BaseException]) -> None:
    broken = Plain()
    broken.set_activation_policy(custom_policy(lambda *_: hostile(object, kind)))
    attack_by(world, broken)


def broken_merge(world: World, kind: type[BaseException]) -> None:
    broken = Plain()
    broken.add_slot("merged", merge_strategy=raises(kind))
    attack_by(world, broken, "merged")


def broken_retryable(world: World, kind: type[BaseException]) -> None:
    fights = type("Fights", (type,), {"__instancecheck__": raises(kind), "__subclasscheck__": raises(kind)})
    odd = fights("Odd", (Exception,), {})
    broken = Plain()
    broken.set_error_handler(ErrorHandler("retry", retryable_exceptions=(odd,)))
    attack_by(world, broken, **{"raise": True})


def attack_by(world: World, broken: Routine, slot: str = "input", **data: Any) -> None:
    flow = Flow(f"broken {id(broken)}")
    flow.add_routine(broken, "only")
    world.runtime.exec(flow)
    job = world.runtime.post(flow, "only", slot, {"raise": False, **data}).job_context
    assert job.wait(SECONDS)
    assert job.status == "failed"


def broken_gate(world: World, kind: type[BaseException]) -> None:
    class Gate:
        holds_activation = staticmethod(raises(kind))

        def holds_item(self, *_: Any) -> bool:
            return False

    world.runtime.set_gate(world.worker, "only", Gate())
    job = world.post(world.flow)
    assert job.wait(SECONDS)
    assert job.status == "failed"
    world.runtime.set_gate(world.worker, "only", None)


def broken_observer(world: World, kind: type[BaseException]) -> None:
    class Observer:
        def record(self, record: Any) -> None:
            in_the_runtime(kind)

    observed(world, Observer())


def broken_row_observer(world: World, kind: type[BaseException]) -> None:
    class Observer:
        def take_row(self, row: Any) -> None:
            in_the_runtime(kind)

    observed(world, Observer())


def in_the_runtime(kind: type[BaseException]) -> None:
    if current_thread() is not main_thread():
        raise kind


def observed(world: World, observer: Any) -> None:
    world.runtime.add_observer(observer)
    job = world.post(world.flow)
    assert job.wait(SECONDS)
    world.runtime.remove_observer(observer)


def broken_tap(world: World, kind: type[BaseException]) -> None:
    class Tap:
        note = take_back = staticmethod(raises(kind))

        def watch(self, *_: Any) -> None:
            pass

    tap = Tap()
    world.runtime.add_tap(tap)
    job = world.post(world.flow)
    assert job.wait(SECONDS)
    assert job.status == "failed"
    world.runtime.remove_tap(tap)


def broken_callback(world: World, kind: type[BaseException]) -> None:
    called: list[int] = []
    job = world.post(world.flow, **{"raise": True})
    for callback in (raises(kind), lambda: called.append(1)):
        try:
            job.on_end(callback)
        except kind:  # it had ended, and this is the caller's own
            pass
    assert job.wait(SECONDS)
    eventually(lambda: called)


def broken_runner(world: World, kind: type[BaseException]) -> None:
    class Runner:
        def start(self, task: Task, done: Callable[[BaseException | None], None]) -> Callable[[], None]:
            raise kind

        def close(self) -> None:
            pass

    world.runtime.set_runner(world.worker, "only", Runner())  # type: ignore[arg-type]
    job = world.post(world.flow)
    assert job.wait(SECONDS)
    assert job.status == "failed"
    world.runtime.set_runner(world.worker, "only", None)


def runner_that_cannot_cancel(world: World, kind: type[BaseException]) -> None:
    dones: list[Callable[[BaseException | None], None]] = []

    class Runner:
        def start(self, task: Task, done: Callable[[BaseException | None], None]) -> Callable[[], None]:
            dones.append(done)
            return raises(kind)

        def close(self) -> None:
            pass

    world.runtime.set_runner(world.worker, "only", Runner())  # type: ignore[arg-type]
    job = world.post(world.flow)
    eventually(lambda: dones)
    world.runtime.cancel(job)
    dones[0](hostile(Exception, kind))
    world.runtime.set_runner(world.worker, "only", None)


def broken_log_handler(world: World, kind: type[BaseException]) -> None:
    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            in_the_runtime(kind)

    handler = Handler()
    logging.getLogger("routilux").addHandler(handler)
    try:
        job = world.post(world.flow, **{"raise": True})
        assert job.wait(SECONDS)
        assert job.status == "failed"
    finally:
        logging.getLogger("routilux").removeHandler(handler)


ATTACKS = [
    broken_policy, policy_with_a_hostile_answer, broken_merge, broken_retryable, broken_gate, broken_observer,
    broken_row_observer, broken_tap, broken_callback, broken_runner, runner_that_cannot_cancel, broken_log_handler,
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
@pytest.mark.parametrize("kind", ["plain", "async"])
def test_code_that_is_no_logic_may_raise_anything(
    attack: Callable[[World, type[BaseException]], None], kind: str, store: str | None, capsys: Any
) -> None:
    world = World(store, KINDS[kind])
    for raised in RAISED:
        attack(world, raised)
        world.check_lives()
    world.end()


# -- payloads ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", RAISED)
def test_payloads_whose_methods_raise_pass_through_and_may_fail(kind: type[BaseException]) -> None:
    world = World(None, Plain)
    for asked in (False, True):
        job = world.post(world.flow, value=hostile(object, kind), **{"raise": asked})
        assert job.wait(SECONDS)
        assert job.status == ("failed" if asked else "completed")
    for container in (hostile(dict, kind), hostile(list, kind), hostile(set, kind), hostile(str, kind)):
        job = world.post(world.flow, value=container, **{"raise": True})
        assert job.wait(SECONDS)
        assert job.status == "failed"
    world.end()


@pytest.mark.parametrize("kind", RAISED)
def test_payloads_that_a_store_cannot_take_fail_what_emits_them(
    kind: type[BaseException], tmp_path: Path
) -> None:
    class Sends(Plain):
        def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            if slot_data["input"][0]["raise"]:
                self.emit("output", value=hostile(object, kind))

    world = World(f"sqlite:///{tmp_path / 'store.db'}", Sends)
    job = world.post(world.flow, **{"raise": True})
    assert job.wait(SECONDS)
    assert job.status == "failed"
    world.end()


class Unlike:
    """Of one hash, and not to be compared."""

    def __init__(self, kind: type[BaseException]) -> None:
        self.kind = kind

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        raise self.kind


@pytest.mark.parametrize("kind", RAISED)
def test_keys_that_cannot_be_compared_fail_what_emits_them(kind: type[BaseException]) -> None:
    class Sends(Plain):
        def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            if slot_data["input"][0]["raise"]:
                for _ in range(3):
                    self.emit("output", key=Unlike(kind))

    class Takes(Plain):
        def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            pass

    world = World(None, Plain)
    flow = Flow("keys")
    flow.add_routine(Sends(), "sends")
    takes = Takes()
    takes.set_concurrency(2, by="key")
    flow.add_routine(takes, "takes")
    flow.connect("sends", "output", "takes", "input")
    world.runtime.exec(flow)
    job = world.runtime.post(flow, "sends", "input", {"raise": True}).job_context
    assert job.wait(SECONDS)
    assert job.status == "failed"
    world.end()


# -- the event loop ------------------------------------------------------------------------------------------


def stops_the_loop() -> None:
    asyncio.get_running_loop().stop()


def leaves_a_task_that_exits() -> None:
    async def exits() -> None:
        raise SystemExit(3)

    tasks.append(asyncio.get_running_loop().create_task(exits()))


def leaves_a_call_that_interrupts() -> None:
    asyncio.get_running_loop().call_soon(raises(KeyboardInterrupt))


def breaks_the_factory_of_tasks() -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(raises(SystemExit))
    loop.call_later(0.01, loop.set_task_factory, None)


tasks: list[Any] = []


@pytest.mark.parametrize(
    "attack",
    [stops_the_loop, leaves_a_task_that_exits, leaves_a_call_that_interrupts, breaks_the_factory_of_tasks],
)
def test_logic_cannot_end_the_event_loop(attack: Callable[[], None], store: str | None) -> None:
    class Attacks(Awaits):
        async def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:  # type: ignore[override]
            if slot_data["input"][0]["raise"]:
                attack()
            await asyncio.sleep(0)

    world = World(store, Attacks)
    for _ in range(3):
        assert world.post(world.flow, **{"raise": True}).wait(SECONDS)
        eventually(lambda: completes(world))
    world.end()
    for task in tasks:
        task.exception()
    tasks.clear()


def completes(world: World) -> bool:
    job = world.post(world.flow)
    return job.wait(SECONDS) and job.status == "completed"


# -- threads of the runtime ----------------------------------------------------------------------------------


class Failing(MemoryStore):
    """Raises what no store should, as often as it is told to."""

    fails = 0
    kind: type[BaseException] = Boom

    def write(self, changes: Changes) -> frozenset[int]:
        if self.fails:
            self.fails -= 1
            raise self.kind("not an error of a store")
        return super().write(changes)


@pytest.mark.parametrize("kind", [Boom, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_store_that_raises_anything_has_refused_and_is_asked_again(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    store = Failing()
    store.kind = kind
    world = World(store, Plain)
    store.fails = 1
    with pytest.raises(StoreError, match=f"{kind.__name__}: not an error of a store"):
        world.post(world.flow)
    world.check_lives()
    assert "takes no records" in caplog.text
    world.end()


def test_what_follows_from_a_record_may_raise_and_the_journal_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(MemoryStore(), Plain)
    journal = world.runtime._engine.journal
    assert journal is not None
    record = Record(None)
    followed: list[int] = []
    record.then(raises(SystemExit))
    record.then(lambda: followed.append(1))
    journal.hand_over(record)
    journal.flush()
    assert followed == [1]
    assert "what follows from a record of the journal was broken off by SystemExit" in caplog.text
    world.end()


@pytest.mark.parametrize("kind", RAISED)
def test_a_timer_and_an_attendant_that_raise_end_no_thread(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    world = World(None, Plain)
    driver = world.runtime._engine.driver
    called: list[str] = []
    attendant = driver.attendant("attends", raises(kind))
    attendant.wake()
    driver.call_at(driver.clock.monotonic(), raises(kind))
    driver.call_at(driver.clock.monotonic(), lambda: called.append("timer"))
    eventually(lambda: called)
    eventually(lambda: "a step of attends was broken off" in caplog.text)
    assert attendant.close(None)
    assert f"a timer was broken off by {kind.__name__}" in caplog.text
    world.end()


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_fault_of_the_engine_in_a_turn_fails_the_job_and_gives_everything_back(
    kind: str, store: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(store, KINDS[kind])
    for place in ("interrupted", "started", "conclude"):
        worker = world.runtime._engine.workers[world.worker.worker_id]
        with monkeypatch.context() as fault:
            fault.setattr(worker, place, raises(Boom))
            job = world.post(world.flow, **{"raise": True})
            assert job.wait(SECONDS), place
        assert job.status == "failed", place
        world.check_lives()
    assert "the turn of routine 'only' of flow 'attacked' was broken off by Boom" in caplog.text
    world.end()


# -- the end, and much of it ---------------------------------------------------------------------------------


def test_a_log_handler_that_blocks_does_not_hold_up_what_is_summed_up_at_the_end() -> None:
    """The lines that say how many more there were."""
    go, blocked = Event(), Event()

    class Blocks(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "more times" in record.getMessage():
                blocked.set()
                go.wait(SECONDS)

    handler = Blocks()
    world = World(None, Plain)
    for _ in range(12):
        assert world.post(world.flow, **{"raise": True}).wait(SECONDS)
    logging.getLogger("routilux").addHandler(handler)
    try:
        assert world.runtime.shutdown(timeout=SECONDS)
        assert not go.is_set()
        assert blocked.wait(SECONDS)
    finally:
        go.set()
        logging.getLogger("routilux").removeHandler(handler)


def test_no_thread_of_the_runtime_is_left_when_shutdown_returns(store: str | None) -> None:
    before = set(threading.enumerate())
    world = World(store, Awaits, ErrorHandler("retry", max_retries=1, retry_delay=0))
    assert world.post(world.flow, **{"raise": True}).wait(SECONDS)
    world.runtime._engine.driver.call_at(world.runtime._engine.now() + 1_000, bool)
    world.end()
    assert set(threading.enumerate()) <= before


def test_shutdown_waits_for_the_timer_that_runs() -> None:
    begun, go, done = Event(), Event(), Event()

    def timer() -> None:
        begun.set()
        go.wait(SECONDS)
        done.set()

    world = World(None, Plain)
    engine = world.runtime._engine
    engine.driver.call_at(engine.now(), timer)
    assert begun.wait(SECONDS)
    assert not world.runtime.shutdown(timeout=0)
    go.set()
    eventually(lambda: world.runtime.shutdown(timeout=0))
    assert done.is_set()


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_failure_looks_through_no_queue_in_which_there_is_nothing_of_its_job(
    kind: str, store: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    extract = Mailbox.extract
    world = World(store, KINDS[kind])
    world.runtime.pause(world.worker)
    jobs = [world.post(world.flow, **{"raise": True}) for _ in range(100)]
    monkeypatch.setattr(
        Mailbox, "extract", lambda self, of: (looked.append(self.routine_id), extract(self, of))[1]
    )
    world.runtime.resume(world.worker)
    assert all(job.wait(SECONDS) and job.status == "failed" for job in jobs)
    assert not looked
    world.end()


def test_what_is_queued_of_a_job_that_fails_is_taken_out(store: str | None) -> None:
    world = World(store, Plain)
    world.runtime.pause(world.worker)
    for asked in (True, True, True):
        world.runtime.post(world.flow, "only", "input", {"raise": asked}, job_id="one")
    world.runtime.resume(world.worker)
    job = world.runtime.get_job("one")
    assert job.wait(SECONDS)
    assert job.status == "failed"
    eventually(lambda: len(world.runtime.dead_letters()) == 3)
    world.end()


def test_a_warning_is_logged_once_until_a_thousand_others_have_come(caplog: pytest.LogCaptureFixture) -> None:
    world = World(None, Plain)
    warn = world.runtime._engine.warn
    for n in (*range(1_500), 1_499, 0):
        warn(f"warning {n} of the test")
    said = [record.getMessage() for record in caplog.records if "of the test" in record.getMessage()]
    assert said == [f"warning {n} of the test" for n in (*range(1_500), 0)]
    world.end()
