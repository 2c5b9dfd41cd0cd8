"""What logic logs and prints says where it comes from, and is kept with its job where the runtime is asked to."""

from __future__ import annotations

import asyncio
import contextvars
import io
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from typing import Any

import pytest

from routilux import Flow, JobContext, Routine, Runtime, current
from routilux.activation_policies import batch_size_policy, immediate_policy
from routilux.logs import ContextFilter, LoggedRecord
from routilux.model.recovery import ErrorHandler
from routilux.runtime.job_logs import (
    LATE_BYTES,
    LONGEST,
    LONGEST_PART,
    MOST_BYTES,
    MOST_PARTS,
    MOST_RECORDS,
    JobLogs,
    Printer,
)
from routilux.store.memory import MemoryStore
from routilux.testing.simulated import SimulatedRuntime
from tests.waiting import SECONDS, eventually

log = logging.getLogger("shop.orders")


@pytest.fixture(autouse=True)
def _levels() -> Iterator[None]:
    log.setLevel(logging.INFO)
    yield
    log.setLevel(logging.NOTSET)


def flow_of(logic: Callable[..., Any], policy: Any = None) -> Flow:
    flow, routine = Flow("shop"), Routine()
    routine.add_slot("input")
    routine.add_event("output")
    routine.set_activation_policy(policy or immediate_policy())
    routine.set_logic(logic)
    flow.add_routine(routine, "take")
    return flow


def job_of(logic: Callable[[int], Any], n: int = 1, **options: Any) -> JobContext:
    """The job of one activation, after it has ended."""
    options = {"capture_logs": True, "thread_pool_size": 1, **options}
    with Runtime(**options) as runtime:
        return run(runtime, flow_of(lambda slot_data, message, state: logic(slot_data["input"][0]["n"])), n)


def run(runtime: Runtime, flow: Flow, n: int = 1) -> JobContext:
    runtime.exec(flow)
    job = runtime.post(flow, "take", "input", {"n": n}).job_context
    assert job.wait(timeout=SECONDS)
    return job


def said(job: JobContext) -> list[tuple[str, str, str]]:
    return [(record.level, record.logger, record.message) for record in job.logs]


def root_handlers() -> list[logging.Handler]:
    return list(logging.getLogger().handlers)


# -- logs ------------------------------------------------------------------------------------------------------


def test_what_logic_logs_with_any_logger_is_kept_with_its_job() -> None:
    def logic(n: int) -> None:
        log.info("order %d", n)
        logging.getLogger("other").warning("low on %s", "tea")
        current().log.error("by its own logger")

    job = job_of(logic, 7)
    assert said(job) == [
        ("INFO", "shop.orders", "order 7"),
        ("WARNING", "other", "low on tea"),
        ("ERROR", "routilux.routine.take", "by its own logger"),
    ]
    assert {(record.routine_id, record.attempt, record.traceback) for record in job.logs} == {
        ("take", 1, None)
    }
    assert job.created_at <= job.logs[0].time <= job.logs[-1].time
    assert job.logs_dropped == 0


def test_a_record_that_the_loggers_do_not_let_through_is_not_kept() -> None:
    assert said(job_of(lambda n: log.debug("no"))) == []
    log.setLevel(logging.DEBUG)
    assert said(job_of(lambda n: log.debug("yes"))) == [("DEBUG", "shop.orders", "yes")]


def test_a_logged_exception_is_kept_with_its_traceback() -> None:
    def logic(n: int) -> None:
        try:
            raise LookupError("no such tea")
        except LookupError:
            log.exception("not found")

    (record,) = job_of(logic).logs
    assert record.message == "not found"
    assert record.traceback is not None
    assert record.traceback.splitlines()[0] == "Traceback (most recent call last):"
    assert record.traceback.splitlines()[-1] == "LookupError: no such tea"


def test_what_the_runtime_says_of_a_failure_is_not_kept(caplog: pytest.LogCaptureFixture) -> None:
    """Of async logic it says so in the task of the logic, of plain logic after it."""

    def plain(slot_data: Any, message: Any, state: Any) -> None:
        log.info("trying")
        raise ValueError("no tea")

    async def later(slot_data: Any, message: Any, state: Any) -> None:
        plain(slot_data, message, state)

    for logic in (plain, later):
        with Runtime(thread_pool_size=1, capture_logs=True) as runtime:
            job = run(runtime, flow_of(logic))
        assert said(job) == [("INFO", "shop.orders", "trying")]
        assert job.status == "failed"
    assert sum("failed in attempt 1" in record.getMessage() for record in caplog.records) == 2


def test_each_attempt_keeps_what_it_has_logged() -> None:
    def logic(slot_data: Any, message: Any, state: Any) -> None:
        log.info("trying")
        if current().attempt < 3:
            raise OSError("down")

    flow = flow_of(logic)
    flow.routines["take"].set_error_handler(ErrorHandler("retry", max_retries=3, retry_delay=0))
    with Runtime(thread_pool_size=1, capture_logs=True) as runtime:
        job = run(runtime, flow)
    assert [record.attempt for record in job.logs if record.logger == "shop.orders"] == [1, 2, 3]


def test_asynchronous_logic_and_its_tasks_are_kept_apart() -> None:
    async def logic(slot_data: Any, message: Any, state: Any) -> None:
        async def part(name: str) -> None:
            await asyncio.sleep(0)
            log.info("%s of %s", name, slot_data["input"][0]["n"])

        await asyncio.gather(part("a"), part("b"))

    flow = flow_of(logic)
    flow.routines["take"].set_concurrency(10)
    with Runtime(thread_pool_size=1, capture_logs=True) as runtime:
        runtime.exec(flow)
        jobs = [runtime.post(flow, "take", "input", {"n": n}).job_context for n in range(20)]
        assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
    assert [[record.message for record in job.logs] for job in jobs] == [
        [f"a of {n}", f"b of {n}"] for n in range(20)
    ]


def test_a_thread_of_logic_is_heard_with_a_copy_of_its_context_and_not_without() -> None:
    def logic(n: int) -> None:
        context = contextvars.copy_context()
        for target, text in ((context.run, "with"), (lambda call, text: call(text), "without")):
            thread = threading.Thread(target=target, args=(log.info, text))
            thread.start()
            thread.join()

    assert [record.message for record in job_of(logic).logs] == ["with"]


def test_records_of_an_activation_of_several_jobs_are_kept_with_each() -> None:
    flow = flow_of(lambda slot_data, message, state: log.info("both"), batch_size_policy(2))
    with Runtime(thread_pool_size=1, capture_logs=True) as runtime:
        runtime.exec(flow)
        jobs = [runtime.post(flow, "take", "input", {"n": n}).job_context for n in range(2)]
        assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
    assert [said(job) for job in jobs] == [[("INFO", "shop.orders", "both")]] * 2


def test_runtimes_in_one_process_keep_what_their_own_activations_say() -> None:
    """Also where the logic of one posts to the other, which copies its context."""
    inner_jobs: list[JobContext] = []
    inner_flow = flow_of(lambda *given: (log.info("inner"), print("inner")))

    with (
        Runtime(thread_pool_size=1) as deaf,
        Runtime(thread_pool_size=1, capture_logs=True) as hears_logs,
        Runtime(thread_pool_size=1, capture_prints=True) as hears_prints,
        Runtime(thread_pool_size=1, capture_logs=True, capture_prints=True) as outer,
    ):
        inner = (deaf, hears_logs, hears_prints)
        for runtime in inner:
            runtime.exec(inner_flow)

        def logic(*given: Any) -> None:
            log.info("outer before")
            inner_jobs.extend(runtime.post(inner_flow, "take", "input", {}).job_context for runtime in inner)
            print("outer after")

        job = run(outer, flow_of(logic))
        assert all(inner_job.wait(timeout=SECONDS) for inner_job in inner_jobs)
    assert [record.message for record in job.logs] == ["outer before", "outer after"]
    assert [said(inner_job) for inner_job in inner_jobs] == [
        [],
        [("INFO", "shop.orders", "inner")],
        [("INFO", "print", "inner")],
    ]


def test_what_is_logged_outside_of_an_activation_is_kept_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    with Runtime(thread_pool_size=1, capture_logs=True) as runtime:
        job = run(runtime, flow_of(lambda *given: log.info("inside")))
        log.info("outside")
    assert [record.message for record in job.logs] == ["inside"]
    assert caplog.messages == ["inside", "outside"]


def test_arguments_that_cannot_be_formatted_reach_neither_logic_nor_the_other_records(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Hostile:
        def __str__(self) -> str:
            raise ZeroDivisionError("no text")

        __repr__ = __str__

    monkeypatch.setattr(logging, "raiseExceptions", False)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])

    def logic(n: int) -> None:
        log.info("a %s", Hostile())
        log.info("%d of %d", n)
        log.info(Hostile())
        log.info("fine")

    job = job_of(logic)
    assert job.status.value == "completed"
    assert [record.message for record in job.logs] == [
        "'a %s' (its arguments cannot be shown: ZeroDivisionError: no text)",
        "'%d of %d' (its arguments cannot be shown: TypeError: not enough arguments for format string)",
        "<Hostile whose repr raises ZeroDivisionError> (its arguments cannot be shown: ZeroDivisionError: no text)",
        "fine",
    ]


def test_a_handler_that_raises_takes_nothing_from_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("disk full")

    monkeypatch.setattr(logging.getLogger(), "handlers", [Broken()])
    job = job_of(lambda n: log.info("before the disk was full"))
    assert [record.message for record in job.logs if record.logger == "shop.orders"] == [
        "before the disk was full"
    ]
    assert job.status.value == "failed"  # as without the capture: logging passes it on to the logic


def test_formatting_holds_no_lock() -> None:
    """Text that is made with the help of another thread, which logs too."""

    class Asks:
        def __str__(self) -> str:
            context = contextvars.copy_context()
            thread = threading.Thread(target=lambda: context.run(log.info, "asked"))
            thread.start()
            thread.join(SECONDS)
            return "dead lock" if thread.is_alive() else "answered"

    root = logging.getLogger()
    before, root.handlers[:] = root_handlers(), []
    try:
        job = job_of(lambda n: log.info("%s", Asks()))
    finally:
        root.handlers[:] = before
    assert [record.message for record in job.logs] == ["asked", "answered"]


def test_with_a_store_logs_are_kept_in_memory_and_nothing_of_them_in_the_store() -> None:
    store = MemoryStore()
    job = job_of(lambda n: log.info("order"), store=store)
    assert said(job) == [("INFO", "shop.orders", "order")]
    with Runtime(store=store) as runtime:
        read = runtime.get_job(job.job_id)
        assert read is not None
        assert (read.status.value, read.logs, read.logs_dropped) == ("completed", [], 0)


def test_times_are_those_of_the_runtime() -> None:
    times = []
    for _ in range(2):
        with SimulatedRuntime(seed=3, capture_logs=True) as runtime:
            job = run(runtime, flow_of(lambda *given: log.info("order")))
        times.append([record.time - job.created_at for record in job.logs])
    assert times[0] == times[1]
    assert len(times[0]) == 1


# -- where the handler stands ----------------------------------------------------------------------------------


def test_without_the_switches_nothing_is_installed() -> None:
    handlers, stdout = root_handlers(), sys.stdout
    with Runtime(thread_pool_size=1) as runtime:
        job = run(runtime, flow_of(lambda *given: (log.info("order"), print("order"))))
        assert root_handlers() == handlers
        assert sys.stdout is stdout
        assert job.logs == []
        assert "_logs" not in vars(job)


def test_without_the_switches_no_module_for_them_is_loaded() -> None:
    code = (
        "import sys, routilux\nroutilux.Runtime().shutdown()\n"
        "print(sorted(name for name in sys.modules if name in ('logging', 'routilux.logs') or 'captur' in name))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("drained", [True, False])
def test_the_last_runtime_that_ends_takes_everything_away(drained: bool) -> None:
    handlers, stdout = root_handlers(), sys.stdout
    first, second = (Runtime(thread_pool_size=1, capture_logs=True, capture_prints=True) for _ in "ab")
    assert len(root_handlers()) == len(handlers) + 1
    assert sys.stdout is not stdout
    first.shutdown(wait=drained)
    first.shutdown(wait=drained)
    assert len(root_handlers()) == len(handlers) + 1
    job = run(second, flow_of(lambda *given: (log.info("still"), print("heard"))))
    assert [record.message for record in job.logs] == ["still", "heard"]
    second.shutdown(wait=drained)
    assert root_handlers() == handlers
    assert sys.stdout is stdout


def test_a_runtime_that_its_own_logic_shuts_down_leaves_nothing_behind() -> None:
    handlers = root_handlers()
    runtime = Runtime(thread_pool_size=1, capture_logs=True)
    job = run(runtime, flow_of(lambda *given: (log.info("so far"), runtime.shutdown())))
    assert runtime.shutdown(timeout=SECONDS)
    assert [record.message for record in job.logs] == ["so far"]
    assert root_handlers() == handlers


def test_a_handler_that_a_configuration_has_removed_is_back_with_the_next_worker() -> None:
    with Runtime(thread_pool_size=1, capture_logs=True) as runtime:
        for handler in set(root_handlers()):
            if type(handler).__name__ == "KeepingHandler":
                logging.getLogger().removeHandler(handler)
        assert said(run(runtime, flow_of(lambda *given: log.info("order")))) == [
            ("INFO", "shop.orders", "order")
        ]


def test_where_logging_is_not_set_up_warnings_still_appear_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    quiet = logging.getLogger("shop.quiet")
    quiet.addHandler(logging.NullHandler())

    def logic(n: int) -> None:
        log.info("an info")
        log.warning("a warning")
        quiet.warning("has a handler")

    job_of(logic)
    assert capsys.readouterr().err == "a warning\n"


# -- the filter ------------------------------------------------------------------------------------------------


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What a handler with the filter writes."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(ContextFilter())
    handler.setFormatter(
        logging.Formatter("%(flow_id)s/%(worker_id)s/%(routine_id)s/%(job_id)s/%(attempt)d: %(message)s")
    )
    found: list[str] = []
    handler.emit = lambda record: found.append(handler.format(record))  # type: ignore[method-assign]
    log.addHandler(handler)
    yield found
    log.removeHandler(handler)


def test_a_filter_alone_says_where_a_record_comes_from(lines: list[str]) -> None:
    with Runtime(thread_pool_size=1) as runtime:
        flow = flow_of(lambda *given: log.info("inside"))
        runtime.exec(flow, worker_id="w")
        runtime.post(flow, "take", "input", {}, job_id="j").job_context.wait(timeout=SECONDS)
        log.info("outside")
    assert lines == ["shop/w/take/j/1: inside", "////0: outside"]


def test_a_filter_leaves_what_a_record_has(lines: list[str]) -> None:
    log.info("from a queue", extra={"job_id": "j", "attempt": 2})
    assert lines == ["///j/2: from a queue"]


def test_a_failure_that_is_told_outside_of_its_activation_names_its_jobs() -> None:
    record = logging.makeLogRecord({"job_id": "j"})
    assert ContextFilter().filter(record)
    assert record.job_ids == ("j",)  # type: ignore[attr-defined]


def test_capturing_lets_the_handlers_of_the_root_logger_see_where_a_record_comes_from(
    caplog: pytest.LogCaptureFixture,
) -> None:
    job = job_of(lambda n: log.info("order"))
    record: Any = caplog.records[0]
    assert (record.flow_id, record.routine_id, record.job_id, record.job_ids, record.attempt) == (
        "shop",
        "take",
        job.job_id,
        (job.job_id,),
        1,
    )


# -- limits ----------------------------------------------------------------------------------------------------


def record_of(message: str) -> LoggedRecord:
    return LoggedRecord(0.0, "INFO", "print", message, "take", 1)


class Lines(Printer):
    def __init__(self, logs: list[JobLogs]) -> None:
        super().__init__(logs, lambda: 0.0)

    def record(self, time: float, message: str) -> LoggedRecord:
        return record_of(message)


def test_the_newest_thousand_records_are_kept_and_the_others_counted() -> None:
    def logic(n: int) -> None:
        for number in range(n):
            log.info("%d", number)

    job = job_of(logic, MOST_RECORDS + 7)
    assert [record.message for record in job.logs] == [str(n) for n in range(7, MOST_RECORDS + 7)]
    assert job.logs_dropped == 7


def test_records_are_kept_within_their_bytes() -> None:
    logs = JobLogs(ended=False)
    for n in range(100):
        logs.add(record_of(f"{n:04}" * 2_500))
    kept = [record.message[:4] for record in logs.records()]
    assert kept == [f"{n:04}" for n in range(100 - len(kept), 100)]
    assert MOST_BYTES * 0.9 < sum(len(record.message) for record in logs.records()) <= MOST_BYTES
    assert logs.dropped == 100 - len(kept)


def test_of_a_message_that_is_too_long_the_beginning_is_kept() -> None:
    (record,) = job_of(lambda n: log.info("x" * 10**6)).logs
    assert record.message == "x" * (LONGEST - 1) + "…"


def test_logs_count_in_the_size_of_finished_jobs() -> None:
    def logic(*given: Any) -> None:
        for _ in range(10):
            log.info("x" * 10_000)

    flow = flow_of(logic)
    with Runtime(thread_pool_size=1, capture_logs=True, max_finished_bytes=350_000) as runtime:
        runtime.exec(flow)
        for _ in range(10):
            assert runtime.post(flow, "take", "input", {}).job_context.wait(timeout=SECONDS)
        eventually(lambda: len(runtime.list_jobs()) == 3)


def test_what_is_said_after_the_end_of_a_job_takes_the_place_of_what_is_older() -> None:
    logs = JobLogs(ended=False)
    for n in range(5):
        logs.add(record_of(f"{n}" * 5_000))
    size = logs.final_size()
    for n in range(5, 8):
        logs.add(record_of(f"{n}" * 5_000))
    assert [record.message[0] for record in logs.records()] == ["3", "4", "5", "6", "7"]
    assert logs.final_size() == size
    late = JobLogs(ended=True)
    for n in range(100):
        late.add(record_of(f"{n:02}" * 50))
    assert 0 < sum(len(record.message) for record in late.records()) <= LATE_BYTES


# -- prints ----------------------------------------------------------------------------------------------------


def printing(logic: Callable[[int], Any], **options: Any) -> JobContext:
    return job_of(logic, capture_prints=True, capture_logs=False, **options)


def test_what_logic_prints_is_printed_and_kept_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    def logic(n: int) -> None:
        print("order", n)
        print("two\nlines")
        print("one ", end="")
        print("line", end="", flush=True)
        print()
        print()
        sys.stdout.writelines(["no ", "end"])
        print("elsewhere", file=sys.stderr)

    job = printing(logic)
    assert [record.message for record in job.logs] == ["order 1", "two", "lines", "one line", "", "no end"]
    assert {record[1:3] + record[4:] for record in job.logs} == {("INFO", "print", "take", 1, None)}
    assert capsys.readouterr().out == "order 1\ntwo\nlines\none line\n\nno end"


def test_lines_of_two_threads_do_not_mix(capsys: pytest.CaptureFixture[str]) -> None:
    def logic(n: int) -> None:
        context, begun, done = contextvars.copy_context(), threading.Event(), threading.Event()

        def other() -> None:
            print("c", end="")
            begun.set()
            assert done.wait(SECONDS)
            print("d")

        print("a", end="")
        thread = threading.Thread(target=lambda: context.run(other))
        thread.start()
        assert begun.wait(SECONDS)
        print("b")
        done.set()
        thread.join()

    assert [record.message for record in printing(logic).logs] == ["ab", "cd"]
    assert capsys.readouterr().out == "acb\nd\n"


def test_prints_and_logs_are_kept_in_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    def logic(n: int) -> None:
        print("first")
        log.info("second")
        print("third")

    assert said(job_of(logic, capture_prints=True)) == [
        ("INFO", "print", "first"),
        ("INFO", "shop.orders", "second"),
        ("INFO", "print", "third"),
    ]


def test_what_is_redirected_goes_where_it_was_sent(capsys: pytest.CaptureFixture[str]) -> None:
    target = io.StringIO()

    def logic(n: int) -> None:
        with redirect_stdout(target):
            print("into a file")
        print("as before")

    assert [record.message for record in printing(logic).logs] == ["as before"]
    assert target.getvalue() == "into a file\n"
    assert capsys.readouterr().out == "as before\n"


def test_an_output_that_was_put_in_front_meanwhile_stays_and_loses_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Front:
        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def write(self, text: str) -> int:
            return int(self.stream.write(text))

        def flush(self) -> None:
            self.stream.flush()

    monkeypatch.setattr(sys, "stdout", sys.stdout)  # puts back what pytest has there
    runtime = Runtime(thread_pool_size=1, capture_prints=True)
    sys.stdout = front = Front(sys.stdout)  # type: ignore[assignment]
    job = run(runtime, flow_of(lambda *given: print("heard once")))
    runtime.shutdown()
    assert [record.message for record in job.logs] == ["heard once"]
    assert sys.stdout is front  # type: ignore[comparison-overlap]
    print("afterwards")
    assert capsys.readouterr().out == "heard once\nafterwards\n"


def test_an_output_that_is_kept_in_front_of_ours_for_the_next_runtime_hears_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Front(io.StringIO):
        def write(self, text: str) -> int:
            return ours.write(text)

    monkeypatch.setattr(sys, "stdout", sys.stdout)
    with Runtime(thread_pool_size=1, capture_prints=True):
        ours = sys.stdout
    sys.stdout = Front()
    assert [record.message for record in printing(lambda n: print("heard once")).logs] == ["heard once"]
    assert capsys.readouterr().out == "heard once\n"


def test_an_output_that_has_replaced_ours_is_left_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    runtime = Runtime(thread_pool_size=1, capture_prints=True)
    sys.stdout = other = io.StringIO()
    runtime.shutdown()
    assert sys.stdout is other


def test_the_output_is_still_the_file_that_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    stdout = sys.stdout
    with Runtime(thread_pool_size=1, capture_prints=True):
        assert (sys.stdout.encoding, sys.stdout.isatty(), sys.stdout.buffer) == (
            stdout.encoding,
            stdout.isatty(),
            stdout.buffer,
        )
        assert sys.stdout.write("abc") == 3
        with pytest.raises(TypeError):
            sys.stdout.write(b"abc")  # type: ignore[arg-type]


def test_a_line_that_never_ends_is_bounded_and_goes_with_the_oldest() -> None:
    logs = JobLogs(ended=False)
    endless = Lines([logs])
    for _ in range(LONGEST):
        endless.write("xy")
    assert [len(record.message) for record in logs.records()] == [LONGEST]
    others = [Lines([logs]) for _ in range(MOST_RECORDS)]
    for line in others:
        line.write("open")
    assert logs.dropped == 1
    assert {record.message for record in logs.records()} == {"open"}
    endless.write("\n")
    assert len(logs.records()) == MOST_RECORDS
    assert logs.records()[-1].message.startswith("xy")  # it is the newest again
    assert logs.dropped == 2


def test_a_line_that_is_not_dropped_in_all_of_its_jobs_keeps_its_place_there() -> None:
    few, many = JobLogs(ended=False), JobLogs(ended=False)
    line = Lines([few, many])
    line.write("begun ")
    for n in range(MOST_RECORDS):
        many.add(record_of(str(n)))
    few.add(record_of("behind"))
    line.write("and")
    line.write(" ended\n")
    assert [record.message for record in few.records()] == ["begun and ended", "behind"]
    assert [record.message for record in many.records()][-1] == "begun and ended"


@pytest.mark.parametrize("part", ["x" * 10_000, "xy"])
def test_what_is_printed_to_open_lines_is_kept_within_its_bytes(part: str) -> None:
    logs = JobLogs(ended=False)
    lines = [Lines([logs]) for _ in range(100)]
    for line in lines:
        for _ in range(3_000 // len(part) + 2):
            line.write(part)
    assert (
        sum(len(record.message) for record in logs.records()) <= MOST_BYTES + 100 * MOST_PARTS * LONGEST_PART
    )
    for line in lines:
        line.write("\n")
    assert sum(len(record.message) for record in logs.records()) <= MOST_BYTES


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_of_logic_prints_and_logs_as_before() -> None:
    code = """
import logging, os, sys
from tests.unit.runtime.test_captured_logs import flow_of, run
from routilux import Runtime

def logic(*given):
    if os.fork() == 0:
        logging.warning("child logs")
        print("child prints", flush=True)
        os._exit(0)
    os.wait()

runtime = Runtime(thread_pool_size=1, capture_logs=True, capture_prints=True)
job = run(runtime, flow_of(logic))
runtime.shutdown()
print(len(job.logs))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=SECONDS
    )
    assert (done.stdout, done.returncode) == ("child prints\n0\n", 0), done.stderr
    assert "child logs" in done.stderr
