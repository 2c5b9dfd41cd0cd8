"""A failure is never silent: what the logger ``routilux.failures`` is told, what jobs and dead letters keep of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import time_ns
from typing import Any

import pytest

from routilux import ErrorHandler, ErrorStrategy, Flow, JobContext, Routine, Runtime
from routilux import routine as decorated
from routilux.activation_policies import all_slots_ready_policy, batch_size_policy, immediate_policy
from routilux.errors import ExecutionError, FlowValidationError
from routilux.runtime.failures import ERROR, MOST_KINDS, OTHERS, PERIOD, WARNING, WRITTEN, FailureLog
from routilux.runtime.job import ERROR_LIMIT
from routilux.store.memory import MemoryStore
from routilux.testing import SimulatedRuntime
from tests.waiting import SECONDS, eventually

HERE = Path(__file__).name
_lines = Path(__file__).read_text(encoding="utf-8").splitlines()
LINE = next(n for n, line in enumerate(_lines, 1) if line.endswith(" from error"))
INTERNAL = "no such customer"


def ask(n: int) -> None:
    raise LookupError(f"{INTERNAL}: {n}")


class Asks(Routine):
    """Fails on what is odd; the item is told by the number alone."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.add_event("output")
        self.set_activation_policy(immediate_policy())
        self.set_logic(self.ask)

    def ask(self, slot_data: Any, message: Any, state: Any) -> None:
        (payload,) = slot_data["input"]
        if payload["n"] % 2:
            try:
                ask(payload["n"])
            except LookupError as error:
                raise ValueError("no answer") from error
        self.emit("output", n=payload["n"])


class AsksAsync(Asks):
    async def ask(self, slot_data: Any, message: Any, state: Any) -> None:
        Asks.ask(self, slot_data, message, state)


class WithErrorEvent(Asks):
    def __init__(self) -> None:
        super().__init__()
        self.add_event("error")


@pytest.fixture(params=[None, "memory store"])
def runtime(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    runtime = Runtime(thread_pool_size=2, store=request.param and MemoryStore())
    yield runtime
    assert runtime.shutdown(wait=False, timeout=SECONDS)


def one_job(
    runtime: Runtime, routine: Routine, handler: ErrorHandler | None = None, n: int = 1
) -> JobContext:
    flow = Flow("shop").set_error_handler(handler)
    flow.add_routine(routine, "ask")
    runtime.exec(flow)
    job = runtime.post(flow, "ask", "input", {"n": n}).job_context
    assert job.wait(SECONDS)
    return job


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [
        (record.levelname, record.getMessage().partition(" (worker")[0])
        for record in caplog.records
        if record.name in ("routilux", "routilux.failures")
    ]


BEGIN = f"routine 'ask' of flow 'shop' failed in attempt {{}}: ValueError: no answer ({HERE}:{LINE}); "


@pytest.mark.parametrize("kind", [Asks, AsksAsync])
@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (ErrorHandler("stop"), [("ERROR", "the job fails")]),
        (ErrorHandler("skip"), [("WARNING", "skipped, and what it had is set aside: {'n': 1}")]),
        (ErrorHandler("continue"), [("WARNING", "the job goes on, and what it had is set aside: {'n': 1}")]),
        (
            ErrorHandler("retry", max_retries=1, retry_delay=0.001),
            [("WARNING", "retried in 0.001 s"), ("ERROR", "the job fails")],
        ),
    ],
    ids=["stop", "skip", "continue", "retry"],
)
def test_each_failed_activation_is_logged_with_what_follows(
    kind: type[Asks],
    handler: ErrorHandler,
    expected: list[tuple[str, str]],
    runtime: Runtime,
    caplog: pytest.LogCaptureFixture,
) -> None:
    one_job(runtime, kind(), handler)
    assert told(caplog) == [
        (level, BEGIN.format(attempt) + follows) for attempt, (level, follows) in enumerate(expected, 1)
    ]
    assert caplog.text.count('raise LookupError(f"{INTERNAL}: {n}")') == len(expected)
    assert "runtime/turns.py" not in caplog.text  # our own machinery is left out


def test_record_carries_ids_and_stands_at_the_line_that_failed(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    job = one_job(runtime, Asks())
    (record,) = (record for record in caplog.records if record.name == "routilux.failures")
    ids = vars(record)
    assert (ids["flow_id"], ids["worker_id"], ids["job_id"]) == ("shop", job.worker_id, job.job_id)
    assert (ids["routine_id"], ids["attempt"], record.lineno) == ("ask", 1, LINE)
    assert (record.filename, record.funcName) == (HERE, "ask")


def test_with_the_defaults_of_python_a_failure_is_on_stderr_and_one_line_turns_it_off(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    logger = logging.getLogger("routilux.failures")
    with Runtime() as runtime:
        one_job(runtime, Asks())
        assert "ValueError: no answer" in capfd.readouterr().err
        monkeypatch.setattr(logger, "disabled", True)
        flow = next(iter(runtime.list_workers())).flow_id
        runtime.post(flow, "ask", "input", {"n": 3}).job_context.wait(SECONDS)
        assert capfd.readouterr().err == ""


class Waits(Asks):
    """Joins its items by key with those of a slot that has none."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("partner")
        self.set_activation_policy(all_slots_ready_policy(by="id"))


def test_the_line_that_turns_failures_off_leaves_what_no_job_has_noted(
    runtime: Runtime,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    durable = "memory store" in request.node.name
    monkeypatch.setattr(logging.getLogger("routilux.failures"), "disabled", True)
    flow = Flow("shop").set_error_handler(ErrorHandler("skip"))
    flow.add_routine(Asks(), "ask")
    flow.add_routine(Waits(), "wait")
    runtime.exec(flow)
    for slot, data in (("ask.input", {"n": 1}), ("wait.input", {"n": 1, "id": 7})):
        assert runtime.post(flow, *slot.split("."), data).job_context.wait(SECONDS)
    assert sum(len(job.errors) for job in runtime.list_jobs()) == 1
    runtime.add_observer(Broken())
    runtime.post(flow, "ask", "input", {"n": 2}).job_context.wait(SECONDS)
    runtime.shutdown(timeout=SECONDS)
    lines = [line for _, line in told(caplog)]
    assert [line for line in lines if "observer Broken raised" in line]
    assert not [line for line in lines if "failed in attempt" in line or "was set aside:" in line]
    if not durable:
        assert [line for line in lines if "with work left: " in line]


class Broken:
    def record(self, record: object) -> None:
        raise ValueError("no observer")


@pytest.mark.parametrize("where", ["handler", "filter"])
@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(1)])
def test_handlers_and_filters_that_raise_change_nothing(
    where: str, error: BaseException, runtime: Runtime, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(record: logging.LogRecord) -> Any:
        raise error

    logger, handler = logging.getLogger("routilux.failures"), logging.Handler()
    handler.emit = broken  # type: ignore[method-assign]
    add = logger.addHandler if where == "handler" else logger.addFilter
    remove = logger.removeHandler if where == "handler" else logger.removeFilter
    given: Any = handler if where == "handler" else broken
    add(given)
    try:
        job = one_job(runtime, Asks(), ErrorHandler("skip"))
    finally:
        remove(given)
    assert job.status == "completed"
    assert "while this was logged: routine 'ask' of flow 'shop' failed" in capfd.readouterr().err


# -- equal failures ----------------------------------------------------------------------------------------


class VirtualTime:
    """Drives a log: time passes when it is told to."""

    def __init__(self) -> None:
        self.clock = self
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.step: Callable[[], bool]

    def monotonic(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[[], None]) -> None:
        self.timers.append((when, call))

    def attendant(self, name: str, step: Callable[[], bool]) -> VirtualTime:
        self.step = step
        return self

    def wake(self) -> None:
        self.step()

    def close(self, deadline: float) -> bool:
        self.step()
        return True

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for timer in self.timers if timer[0] <= self.now]
        self.timers = [timer for timer in self.timers if timer[0] > self.now]
        for _, call in due:
            call()


@pytest.fixture
def time() -> VirtualTime:
    return VirtualTime()


@pytest.fixture
def log(time: VirtualTime) -> FailureLog:
    return FailureLog(time)  # type: ignore[arg-type]


def fail(log: FailureLog, times: int, kind: str = "ask failed") -> None:
    for n in range(times):
        log.tell(WARNING, kind, lambda n=n: f"number {n}")  # type: ignore[misc]


def test_equal_failures_are_written_ten_times_and_then_summed_up_once_a_minute(
    log: FailureLog, time: VirtualTime, caplog: pytest.LogCaptureFixture
) -> None:
    fail(log, 1_000)
    assert len(caplog.messages) == WRITTEN
    assert caplog.messages[-1] == "number 9; from now on failures like this are only counted"
    time.pass_by(PERIOD)
    fail(log, 5)
    time.pass_by(PERIOD)
    assert caplog.messages[WRITTEN:] == ["ask failed: 990 more times", "ask failed: 5 more times"]


def test_after_a_minute_without_any_the_next_one_is_written_again(
    log: FailureLog, time: VirtualTime, caplog: pytest.LogCaptureFixture
) -> None:
    fail(log, WRITTEN + 1)
    time.pass_by(PERIOD)
    time.pass_by(PERIOD)
    assert time.timers == []
    fail(log, 1)
    assert caplog.messages[WRITTEN:] == ["ask failed: 1 more times", "number 0"]


def test_what_was_only_counted_is_told_at_the_end_at_its_highest_level(
    log: FailureLog, caplog: pytest.LogCaptureFixture
) -> None:
    fail(log, WRITTEN + 1)
    log.tell(ERROR, "ask failed", str)
    log.close()
    assert told(caplog)[-1] == ("ERROR", "ask failed: 2 more times")


def test_of_equal_failures_the_first_has_its_traceback_and_so_the_first_that_is_worse(
    log: FailureLog, caplog: pytest.LogCaptureFixture
) -> None:
    for level in (WARNING, WARNING, ERROR, WARNING, ERROR):
        log.tell(level, "ask failed", str, ValueError("no answer"))
    log.tell(WARNING, "buy failed", str, ValueError("no shop"))
    assert [record.exc_info is not None for record in caplog.records] == [
        True,
        False,
        True,
        False,
        False,
        True,
    ]
    assert caplog.text.count("ValueError: no answer") == 2


def test_each_bad_row_after_the_first_is_one_line_with_its_place_and_its_item(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    flow = Flow("shop").set_error_handler(ErrorHandler("skip"))
    flow.add_routine(Asks(), "ask")
    runtime.exec(flow)
    for n in (1, 3):
        runtime.post(flow, "ask", "input", {"n": n, "note": "x" * 1_000})
    assert runtime.shutdown(timeout=SECONDS)
    assert caplog.text.count("Traceback") == 2  # of one failure: it has a cause
    first, second = (line for _, line in told(caplog))
    for n, line in ((1, first), (3, second)):
        said, _, item = line.partition(" set aside: ")
        assert said == f"{BEGIN.format(1)}skipped, and what it had is"
        assert item.startswith(f"{{'n': {n}, 'note': 'xxx")
        assert (len(item), item[-1]) == (200, "…")


class BadToShow:
    def __repr__(self) -> str:
        raise SystemExit(3)


def test_items_that_cannot_be_shown_change_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with Runtime() as runtime:
        flow = Flow("shop").set_error_handler(ErrorHandler("skip"))
        flow.add_routine(Asks(), "ask")
        runtime.exec(flow)
        job = runtime.post(flow, "ask", "input", {"n": 1, "x": BadToShow()}).job_context
        assert job.wait(SECONDS)
        assert job.status == "completed"
    assert told(caplog)[0][1].endswith("is set aside: <dict whose repr raises SystemExit>")


def test_kinds_are_bounded_and_more_of_them_count_as_one(
    log: FailureLog, time: VirtualTime, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(MOST_KINDS + 100):
        fail(log, 1, f"routine {n} failed")
    assert len(caplog.messages) == MOST_KINDS + WRITTEN
    time.pass_by(PERIOD)
    assert caplog.messages[-1] == f"{OTHERS}: 90 more times"


def test_every_bad_row_of_a_flow_is_counted(runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    flow = Flow("shop").set_error_handler(ErrorHandler("skip"))
    flow.add_routine(Asks(), "ask")
    runtime.exec(flow)
    for _ in range(50):
        runtime.post(flow, "ask", "input", {"n": 1})
    assert runtime.shutdown(timeout=SECONDS)
    lines = told(caplog)
    assert len(lines) == WRITTEN + 1
    assert (
        lines[-1][1] == f"routine 'ask' of flow 'shop' failed with ValueError at {HERE}:{LINE}: 40 more times"
    )


# -- what is kept ------------------------------------------------------------------------------------------


def test_error_of_a_job_names_the_line_and_has_the_traceback_with_its_causes(runtime: Runtime) -> None:
    error: Any = one_job(runtime, Asks()).error
    assert str(error) == f"routine 'ask' failed in attempt 1: ValueError: no answer ({HERE}:{LINE})"
    first, second = error.traceback.split("The above exception was the direct cause")
    assert "in ask\n    raise LookupError" in first
    assert second.endswith("ValueError: no answer\n")


@pytest.mark.parametrize("strategy", ["skip", "continue"])
def test_what_a_job_went_on_after_has_its_traceback_and_so_has_the_dead_letter(
    strategy: str, runtime: Runtime
) -> None:
    job = one_job(runtime, Asks(), ErrorHandler(strategy))
    (error,) = job.errors
    (letter,) = runtime.dead_letters()
    assert letter.error == "ValueError: no answer"
    assert error.traceback == letter.traceback  # type: ignore[attr-defined]
    assert letter.traceback is not None
    assert letter.traceback.endswith("ValueError: no answer\n")


def test_letter_of_what_waited_for_its_retry_at_the_end_says_how_it_failed_last(
    routilux_sim: SimulatedRuntime,
) -> None:
    flow = Flow("shop").set_error_handler(
        ErrorHandler("retry", max_retries=9, retry_delay=60, retry_backoff=2)
    )
    flow.add_routine(Asks(), "ask")
    routilux_sim.exec(flow)
    job = routilux_sim.post(flow, "ask", "input", {"n": 1}).job_context
    assert routilux_sim.shutdown(timeout=100) is False
    (letter,) = routilux_sim.dead_letters()
    failed, lost = job.errors
    assert (letter.reason, letter.error) == ("not run", "ValueError: no answer")
    assert letter.traceback is not None
    assert letter.traceback == failed.traceback  # type: ignore[attr-defined]
    assert "in ask" in letter.traceback
    assert str(failed).startswith("routine 'ask' failed in attempt 2: ValueError: no answer")
    assert str(lost) == "an item of 'ask.input' was set aside: not run"


def test_tracebacks_are_read_back_from_a_store(tmp_path: Path) -> None:
    url, before = f"sqlite:///{tmp_path / 'shop.db'}", []
    with Runtime(store=url) as runtime:
        for strategy in ("stop", "skip"):
            flow = Flow(strategy).set_error_handler(ErrorHandler(strategy))
            flow.add_routine(Asks(), "ask")
            runtime.exec(flow, worker_id=strategy)
            job = runtime.post(flow, "ask", "input", {"n": 1}, job_id=f"job-{strategy}").job_context
            assert job.wait(SECONDS)
            before += [job.error] if job.error else job.errors
    with Runtime(store=url) as runtime:
        stopped, skipped = (runtime.get_job(f"job-{strategy}") for strategy in ("stop", "skip"))
        assert stopped is not None
        assert skipped is not None
        read: list[Any] = [stopped.error, *skipped.errors]
        assert [error.traceback for error in read] == [error.traceback for error in before]  # type: ignore[attr-defined]
        assert [str(error) for error in read] == [f"SlotHandlerError: {error}" for error in before]
        letters = {letter.worker_id: letter for letter in runtime.dead_letters()}
        assert letters["skip"].error == "ValueError: no answer"
        assert letters["skip"].traceback == read[1].traceback


def test_errors_of_a_job_are_bounded(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    job = one_job(runtime, Asks(), n=2)
    for n in range(ERROR_LIMIT + 3):
        job.add_error(ExecutionError(str(n)))
    assert (len(job.errors), job.errors_dropped) == (ERROR_LIMIT, 3)


# -- events named error ------------------------------------------------------------------------------------


class Reports(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.add_event("error")
        self.set_activation_policy(immediate_policy())
        self.set_logic(self.report)

    def report(self, slot_data: Any, message: Any, state: Any) -> None:
        self.emit("error", reason="no such file", path="a.csv")


def test_event_error_that_reaches_no_routine_is_logged_and_noted(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    job = one_job(runtime, Reports())
    expected = "event 'ask.error' of flow 'shop' is connected to nothing: no such file"
    assert job.status == "completed"
    assert [str(error) for error in job.errors] == [expected]
    assert told(caplog) == [("WARNING", f"{expected} (job {job.job_id})")]
    assert [output.data for output in job.outputs] == [{"reason": "no such file", "path": "a.csv"}]


def test_findings_are_logged_once_per_flow(runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    flow = Flow("shop", execution_strategy="sequential", max_workers=4)
    flow.add_routine(Asks(), "one")
    flow.add_routine(Asks(), "two")
    runtime.exec(flow)
    runtime.exec(flow)
    (line,) = told(caplog)
    assert "max_workers=4 has no effect" in line[1]


# -- EMIT ----------------------------------------------------------------------------------------------------


@dataclass
class Other:
    code: int


class WithTypedErrorEvent(Asks):
    def __init__(self) -> None:
        super().__init__()
        self.add_event("error", type=Other)


class WithErrorEventAsync(WithErrorEvent):
    async def ask(self, slot_data: Any, message: Any, state: Any) -> None:
        Asks.ask(self, slot_data, message, state)


class Collects(Routine):
    capacity = 1_000

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input", max_queue_length=self.capacity)
        self.set_activation_policy(immediate_policy())
        self.set_logic(self.collect)
        self.got: list[dict[str, Any]] = []

    def collect(self, slot_data: Any, message: Any, state: Any) -> None:
        self.got.extend(slot_data["input"])


class CollectsLater(Collects):
    """Has room for one item, and takes none before the gate opens."""

    capacity = 1

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def collect(self, slot_data: Any, message: Any, state: Any) -> None:
        self.gate.wait(SECONDS)
        super().collect(slot_data, message, state)


EMITS = {
    "at once": (ErrorHandler("emit"), 1),
    "exhausted": (
        ErrorHandler("retry", max_retries=2, retry_delay=0.001, on_exhausted=ErrorStrategy.EMIT),
        3,
    ),
}


def with_collector(asks: Routine, collects: Routine, handler: ErrorHandler) -> Flow:
    flow = Flow("shop")
    flow.add_routine(asks.set_error_handler(handler), "ask")
    flow.add_routine(collects, "collect")
    flow.connect("ask", "error", "collect", "input")
    return flow


@pytest.mark.parametrize("kind", [WithErrorEvent, WithErrorEventAsync])
@pytest.mark.parametrize("when", EMITS)
def test_what_failed_leaves_on_the_event_error_and_the_job_goes_on(
    when: str, kind: type[WithErrorEvent], runtime: Runtime
) -> None:
    (handler, attempts), collects = EMITS[when], Collects()
    flow = with_collector(kind(), collects, handler)
    runtime.exec(flow)
    job = runtime.post(flow, "ask", "input", {"n": 1}).job_context
    assert job.wait(SECONDS)
    assert (job.status, job.errors, runtime.dead_letters()) == ("completed", [], [])
    error = f"ValueError: no answer ({HERE}:{LINE})"
    assert collects.got == [{"data": {"n": 1}, "error": error, "attempts": attempts, "routine": "ask"}]


@pytest.mark.parametrize("kind", [WithErrorEvent, WithErrorEventAsync])
def test_every_failure_leaves_although_the_slot_behind_the_event_is_full(
    kind: type[WithErrorEvent], runtime: Runtime
) -> None:
    collects = CollectsLater()
    flow = with_collector(kind(), collects, ErrorHandler("emit"))
    runtime.exec(flow)
    jobs = [runtime.post(flow, "ask", "input", {"n": n}).job_context for n in range(1, 20, 2)]
    collects.gate.set()
    assert all(job.wait(SECONDS) for job in jobs)
    assert sorted(got["data"]["n"] for got in collects.got) == list(range(1, 20, 2))


@pytest.mark.parametrize("when", EMITS)
def test_what_failed_and_reaches_no_routine_is_logged_once_and_keeps_its_traceback(
    when: str, runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    handler, attempts = EMITS[when]
    job = one_job(runtime, WithErrorEvent().set_error_handler(handler))
    (error,) = job.errors
    assert "event 'ask.error' of flow 'shop' is connected to nothing: ValueError: no answer" in str(error)
    assert "in ask" in error.traceback
    assert len(told(caplog)) == attempts
    assert "goes to the event 'error', which is connected to nothing" in told(caplog)[-1][1]


def test_a_function_whose_handler_emits_has_the_event_error(runtime: Runtime) -> None:
    @decorated(error_handler=ErrorHandler("emit"))
    def parse(text: str) -> dict[str, int]:
        return {"n": int(text)}

    collects = Collects()
    flow = Flow("shop")
    flow.add_routine(parse(), "parse")
    flow.add_routine(collects, "collect")
    flow.connect("parse", "error", "collect", "input")
    runtime.exec(flow)
    assert runtime.post(flow, "parse", "input", {"text": "x"}).job_context.wait(SECONDS)
    assert [got["data"] for got in collects.got] == [{"text": "x"}]


def test_with_several_items_the_data_is_by_slot(runtime: Runtime) -> None:
    asks, collects = WithErrorEvent(), Collects()
    asks.set_activation_policy(batch_size_policy(2))
    flow = with_collector(asks, collects, ErrorHandler("emit"))
    runtime.exec(flow)
    for n in (1, 3):
        runtime.post(flow, "ask", "input", {"n": n})
    assert runtime.shutdown(timeout=SECONDS)
    (got,) = collects.got
    assert got["data"] == {"input": [{"n": 1}, {"n": 3}]}
    assert got["error"].startswith("ValueError: too many values to unpack")


def test_unconnected_it_is_an_error_of_the_job(runtime: Runtime) -> None:
    job = one_job(runtime, WithErrorEvent(), ErrorHandler("emit"))
    assert job.status == "completed"
    assert [str(error) for error in job.errors] == [
        f"event 'ask.error' of flow 'shop' is connected to nothing: ValueError: no answer ({HERE}:{LINE})"
    ]


def test_where_it_cannot_leave_the_job_fails_with_the_error_of_the_logic(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    job = one_job(runtime, WithTypedErrorEvent(), ErrorHandler("emit"))
    assert job.status == "failed"
    assert str(job.error) == f"routine 'ask' failed in attempt 1: ValueError: no answer ({HERE}:{LINE})"
    ((level, line),) = told(caplog)
    assert level == "ERROR"
    assert "the event 'error' could not take it (InvalidTypeError" in line


def test_routine_without_an_event_error_is_refused_with_the_fix(runtime: Runtime) -> None:
    flow = Flow("shop").set_error_handler(ErrorHandler("emit"))
    flow.add_routine(Asks(), "ask")
    with pytest.raises(FlowValidationError, match=r"has no such event; declare it: add_event\('error'\)"):
        runtime.exec(flow)


# -- what waits is visible -----------------------------------------------------------------------------------


class Joins(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("left", max_queue_length=5)
        self.add_slot("right")
        self.set_activation_policy(all_slots_ready_policy())
        self.set_logic(lambda slot_data, message, state: None)


def test_what_waits_for_others_is_seen_in_reprs_lists_and_statistics(runtime: Runtime) -> None:
    flow = Flow("shop")
    flow.add_routine(Joins(), "join")
    worker = runtime.exec(flow)
    waits = runtime.post(flow, "join", "left", {"n": 1}).job_context
    assert waits.wait(SECONDS)
    assert repr(waits) == f"<JobContext {waits.job_id} completed, 1 parked of shop>"
    assert runtime.list_jobs(parked=True) == [waits]
    assert runtime.list_jobs(parked=False) == []
    slots = flow.routines["join"].stats(worker)["slots"]
    assert slots["left"] == {"queued": 1, "parked": 1, "capacity": 5, "received": 1, "dropped": 0}
    assert slots["right"] == {"queued": 0, "parked": 0, "capacity": 1_000, "received": 0, "dropped": 0}


def test_jobs_in_a_store_know_what_waits_of_them(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    with Runtime(store=url) as runtime:
        flow = Flow("shop")
        flow.add_routine(Joins(), "join")
        runtime.exec(flow, worker_id="w")
        for slot in ("left", "right", "left"):
            assert runtime.post(flow, "join", slot, {"n": 1}, job_id=f"{slot}-{time_ns()}").job_context.wait(
                SECONDS
            )
        runtime.pause("w")
    with Runtime(store=url) as runtime:
        (waits,) = runtime.list_jobs(parked=True)
        assert (waits.status, waits.parked, len(runtime.list_jobs())) == ("completed", 1, 3)
        assert len(runtime.list_jobs(parked=False)) == 2


@pytest.mark.parametrize("store", [None, MemoryStore], ids=["memory", "store"])
def test_a_batch_that_fails_is_noted_in_its_jobs_that_had_completed(
    store: Any, caplog: pytest.LogCaptureFixture
) -> None:
    flow = Flow("f")
    flow.add_routine(Asks().set_activation_policy(batch_size_policy(3)), "save")
    with Runtime(**({} if store is None else {"store": store()})) as runtime:
        worker = runtime.exec(flow)
        jobs = []
        for _ in range(3):
            jobs.append(runtime.post(flow, "save", "input", {"n": 1}).job_context)
            assert jobs[-1].wait(SECONDS)
        eventually(lambda: len(runtime.dead_letters(worker=worker)) == 3)
        assert [job.status for job in jobs] == ["completed", "completed", "failed"]
        assert [len(job.errors) for job in jobs] == [1, 1, 0]
        assert "routine 'save' failed in attempt 1" in str(jobs[0].errors[0])
    [said] = [record.getMessage() for record in caplog.records if "failed in attempt" in record.getMessage()]
    assert "1 of its 3 jobs fails, the others had completed" in said
    assert f"3 jobs, the first {jobs[2].job_id}" in said


def test_a_failure_is_written_to_a_file_whatever_its_text(tmp_path: Path) -> None:
    """A name of a file in Latin-1, as ``os.listdir()`` gives it, has no UTF-8."""
    handler = logging.FileHandler(tmp_path / "log", encoding="utf-8")
    logging.getLogger("routilux.failures").addHandler(handler)

    class Reads(Asks):
        def ask(self, slot_data: Any, message: Any, state: Any) -> None:
            raise ValueError("cannot read caf\udce9.txt")

    flow = Flow("reads")
    flow.add_routine(Reads(), "reads")
    try:
        with Runtime() as runtime:
            runtime.exec(flow)
            assert runtime.post(flow, "reads", "input", {}).job_context.wait(SECONDS)
    finally:
        logging.getLogger("routilux.failures").removeHandler(handler)
        handler.close()
    assert (tmp_path / "log").read_text(encoding="utf-8").count("cannot read caf\\udce9.txt") >= 2
