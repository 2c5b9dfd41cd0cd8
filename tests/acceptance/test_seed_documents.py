"""Every runnable block of the documents that define Routilux runs as printed.

A fragment gets what its document has defined above it. The corrections are those that the contract names, and each
stands here as a replacement of printed text.
"""

from __future__ import annotations

import inspect
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from routilux import Flow, FlowRegistry, JobContext, JobState, Routine, Runtime, StateError, WorkerState
from routilux.activation_policies import immediate_policy
from routilux.errors import InvalidTypeError, UnknownRoutineError, WorkerNotRunningError
from tests.acceptance.seed_blocks import COPIES, ORIGINALS, read, read_original, run
from tests.waiting import SECONDS

INTRODUCTION = read("introduction")
RUNTIME = read("understanding_runtime")

HELLO = {"data": "hello"}


@pytest.fixture(autouse=True)
def registry() -> Iterator[FlowRegistry]:
    """The documents use the default registry: each test gets it empty."""
    registry = FlowRegistry.get_instance()
    registry.clear()
    yield registry
    registry.clear()


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    with Runtime(thread_pool_size=2) as runtime:
        yield runtime


class Echo(Routine):
    """Emits what comes in; stands for the routines that a fragment does not show."""

    def __init__(self) -> None:
        super().__init__()
        for slot in ("input", "trigger", "slot"):
            self.add_slot(slot)
        self.add_event("output")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        for payloads in slot_data.values():
            for payload in payloads:
                self.emit("output", **payload)


def echo_flow(flow_id: str, *routine_ids: str, entry: tuple[str, str] | None = None) -> Flow:
    flow = Flow(flow_id)
    for routine_id in routine_ids:
        flow.add_routine(Echo(), routine_id)
    if entry:
        flow.set_entry(*entry)
    return flow


@pytest.fixture
def my_flow(registry: FlowRegistry) -> Flow:
    """The flow that most fragments of understanding_runtime name."""
    flow = echo_flow("my_flow", "routine", "routine1", "processor", "start")
    registry.register(flow)
    return flow


def outputs_of(job: JobContext | JobState) -> list[dict[str, Any]]:
    return [output.data for output in job.outputs]


# -- the copies --------------------------------------------------------------------------------------------


needs_the_documents = pytest.mark.skipif(
    not ORIGINALS.is_dir(), reason="the documents do not lie beside this checkout"
)


@needs_the_documents
@pytest.mark.parametrize(
    "document", ["architecture", "features", "introduction", "overview", "understanding_runtime"]
)
def test_copied_blocks_are_all_the_python_blocks_of_the_document(document: str) -> None:
    copies = list(read(document).values()) if document in {path.stem for path in COPIES.iterdir()} else []
    python, text = read_original(document, "python"), read_original(document, "text")
    assert [block for block in copies if block not in text] == python


# -- introduction ------------------------------------------------------------------------------------------


def test_event_driven_routine_gets_data_by_slot_and_emits_its_result(runtime: Runtime) -> None:
    kind = run("event_driven", INTRODUCTION["event_driven"])["DataProcessor"]
    flow = Flow("data_processing")
    flow.add_routine(kind(), "processor")
    runtime.exec(flow)
    _, job = runtime.post(flow, "processor", "input", HELLO)
    assert job.wait(SECONDS)
    assert outputs_of(job) == [{"result": "Processed: hello"}]


def test_one_event_reaches_several_slots_and_several_events_one_slot(runtime: Runtime) -> None:
    ids = ("source", "source1", "source2", "processor1", "processor2", "aggregator")
    flow = run("flexible_connections", with_routines(*ids), Echo=Echo)["flow"]
    runtime.exec(flow)
    jobs = [runtime.post(flow, id_, "input", {"from": id_}).job_context for id_ in ids[:3]]
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    came_out = [[(output.routine_id, output.data["from"]) for output in job.outputs] for job in jobs]
    assert sorted(came_out[0]) == [("processor1", "source"), ("processor2", "source")]
    assert came_out[1:] == [[("aggregator", "source1")], [("aggregator", "source2")]]


def test_connecting_routines_that_were_not_added_says_to_add_them_first() -> None:
    with pytest.raises(
        UnknownRoutineError, match=r"'source'.*'my_pipeline'.*add it first with add_routine\(\)"
    ):
        run("flexible_connections", INTRODUCTION["flexible_connections"])


def test_exec_with_entry_params_returns_at_once_and_the_wait_sees_the_end() -> None:
    flow = echo_flow("my_pipeline", "source", entry=("source", "input"))
    program = run("runtime_based_execution", INTRODUCTION["runtime_based_execution"], flow=flow)
    with program["runtime"]:
        assert program["job_state"].status == "completed"
        assert outputs_of(program["job_state"]) == [HELLO]


def test_error_handler_of_the_flow_retries_until_it_works() -> None:
    flow = Flow("fails_twice")
    failures = iter([ConnectionError("first"), ConnectionError("second")])

    class Fails(Echo):
        def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            for error in failures:
                raise error
            super().logic(slot_data, policy_message, state)

    flow.add_routine(Fails(), "fails")
    faster = INTRODUCTION["error_handling"].replace("retry_delay=1.0", "retry_delay=0.0")  # printed: 1.0
    run("error_handling", faster, flow=flow)
    state = flow.execute("fails.input", HELLO, timeout=SECONDS)
    assert outputs_of(state) == [HELLO]
    assert [record.status for record in state.execution_history] == ["retried", "retried", "completed"]


def test_error_handler_as_printed_waits_one_second_and_retries_three_times() -> None:
    flow = Flow("any")
    run("error_handling", INTRODUCTION["error_handling"], flow=flow)
    handler = flow.error_handler
    assert handler is not None
    assert (handler.strategy, handler.max_retries, handler.retry_delay) == ("retry", 3, 1.0)


def test_saved_job_state_is_loaded_and_resumed(
    registry: FlowRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As printed the execution has ended before it is saved: resuming it gives its result, and runs nothing."""
    monkeypatch.chdir(tmp_path)
    registry.register(echo_flow("my_flow", "only", entry=("only", "input")))
    with Runtime(thread_pool_size=1) as runtime:
        job_state = runtime.exec("my_flow", entry_params=HELLO)
        assert job_state.wait(SECONDS)
        block = INTRODUCTION["serialization"].replace("runtime.exec(", "resumed = runtime.exec(")
        resumed = run("serialization", block, job_state=job_state, runtime=runtime)["resumed"]
        assert isinstance(resumed, JobState)
        assert (resumed.job_id, resumed.status) == (job_state.job_id, "completed")
        assert outputs_of(resumed) == [HELLO]
        assert resumed.wait(SECONDS)
        assert runtime.list_workers() == []
    history = [record._replace(started_at=0, duration=0) for record in job_state.execution_history]
    assert [record._replace(started_at=0, duration=0) for record in resumed.execution_history] == history
    assert len(history) == 1


def test_job_state_that_was_saved_while_paused_goes_on_when_it_is_resumed(
    registry: FlowRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flow = echo_flow("my_flow", "first", "second", entry=("first", "input"))
    flow.connect("first", "output", "second", "input")
    registry.register(flow)
    with Runtime(thread_pool_size=1) as first:
        blocker, release = hold_the_only_thread(first)
        paused = first.exec("my_flow", entry_params=HELLO)
        first.pause(paused)
        release.set()
        assert blocker.wait(SECONDS)
        assert paused.status == "paused"
        paused.save("state.json")
    with Runtime(thread_pool_size=1) as second:
        block = INTRODUCTION["serialization"].replace('job_state.save("state.json")\n', "")
        block = block.replace("runtime.exec(", "resumed = runtime.exec(")
        resumed = run("serialization", block, runtime=second)["resumed"]
        assert resumed.wait(SECONDS)
        assert (resumed.job_id, resumed.status) == (paused.job_id, "completed")
        assert outputs_of(resumed) == [HELLO]


def test_routine_with_a_constructor_parameter_is_refused_and_the_way_out_is_named() -> None:
    wrong, right = parts(INTRODUCTION["parameterless_constructor"], "class ")
    flow = Flow("any")
    kind = run("wrong", wrong, Routine=Routine)["MyRoutine"]
    with pytest.raises(InvalidTypeError, match=r"has parameters \['name'\].*set_config\(name=\.\.\.\)"):
        flow.add_routine(kind("x"))
    assert dict(flow.routines) == {}
    routine = run("right", right, Routine=Routine)["MyRoutine"]()
    flow.add_routine(routine, "mine")
    assert dict(routine.config) == {"name": "my_routine", "timeout": 30}


@pytest.mark.parametrize("debug", [False, True])
def test_attribute_changed_in_logic_is_warned_about_and_refused_in_debug_mode(debug: bool) -> None:
    wrong, _ = parts(INTRODUCTION["no_instance_variables"], "def ")
    counting = Echo()
    counting.counter = 0  # type: ignore[attr-defined]
    counting.set_logic(run("wrong", wrong, self=counting)["logic"])
    flow = Flow("any")
    flow.add_routine(counting, "counting")
    with Runtime(thread_pool_size=1, debug=debug) as runtime:
        runtime.exec(flow)
        if debug:
            _, job = runtime.post(flow, "counting", "input", {})
            assert job.wait(SECONDS)
            assert isinstance(job.error.__cause__, StateError)
            return
        with pytest.warns(RuntimeWarning, match=r"Echo\.counter is assigned during an activation"):
            assert runtime.post(flow, "counting", "input", {}).job_context.wait(SECONDS)


def test_counter_in_the_routine_state_counts_every_activation(runtime: Runtime) -> None:
    _, right = parts(INTRODUCTION["no_instance_variables"], "def ")
    counting = Echo()
    counting.set_logic(run("right", right, routine_id="counting")["logic"])
    flow = Flow("any")
    flow.add_routine(counting, "counting")
    worker = runtime.exec(flow)
    for _ in range(50):
        runtime.post(flow, "counting", "input", {})
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    assert worker.get_routine_state("counting") == {"count": 50}


def test_correct_usage_keeps_config_state_and_business_data_apart(runtime: Runtime, tmp_path: Path) -> None:
    program = run("correct_usage", INTRODUCTION["correct_usage"])
    state = runtime.exec(program["flow"], entry_params={"n": 1})
    assert state.wait(SECONDS)
    assert state.status == "completed"
    assert state.get_routine_state("processor") == {"processed": True}
    assert state.shared_data == {"last_processed": {"input": [{"n": 1}]}}
    assert list(state.shared_log) == [{"action": "process", "data": {"input": [{"n": 1}]}}]
    assert dict(program["processor"].config) == {"threshold": 10, "timeout": 30}
    state.save(tmp_path / "state.json")
    assert JobState.load(tmp_path / "state.json").shared_data == state.shared_data


def test_getting_started_runs_and_ends_without_shutdown(tmp_path: Path) -> None:
    shown = INTRODUCTION["getting_started"] + "print(job_state.status, job_state.outputs[0].data)\n"
    program = tmp_path / "getting_started.py"
    program.write_text(shown, encoding="utf-8")
    process = subprocess.run(
        [sys.executable, "-X", "dev", str(program)], capture_output=True, text=True, timeout=60, check=False
    )
    expected = "completed {'result': \"Processed: {'data': 'Hello'}\"}\n"
    assert (process.stdout, process.stderr, process.returncode) == (expected, "", 0)


def test_introduction_read_from_top_to_bottom_is_one_program(
    registry: FlowRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks on one page share their names: flow, registry, runtime, job_state."""
    monkeypatch.chdir(tmp_path)
    ids = ("source", "source1", "source2", "processor1", "processor2", "aggregator")
    top = [INTRODUCTION["event_driven"], with_routines(*ids), 'flow.set_entry("source", "input")\n']
    page = [*top, *(INTRODUCTION[name] for name in ("runtime_based_execution", "error_handling"))]
    name_of_flow = 'registry.register_by_name("my_flow", flow)\n'  # the last block calls my_pipeline my_flow
    program = run("introduction", "\n".join([*page, name_of_flow, INTRODUCTION["serialization"]]), Echo=Echo)
    with program["runtime"] as runtime:
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        assert sorted(output.routine_id for output in program["saved_state"].outputs) == [
            "processor1",
            "processor2",
        ]


def with_routines(*routine_ids: str) -> str:
    """The fragment that connects routines, with the routines added first."""
    flow = 'flow = Flow(flow_id="my_pipeline")\n'
    added = "".join(f"flow.add_routine(Echo(), {routine_id!r})\n" for routine_id in routine_ids)
    return INTRODUCTION["flexible_connections"].replace(flow, flow + added)


def parts(block: str, keyword: str) -> tuple[str, str]:
    """The wrong and the right version of a block that shows both."""
    at = block.rindex(f"\n{keyword}")
    return block[:at], block[at:]


def hold_the_only_thread(runtime: Runtime) -> tuple[JobContext, Event]:
    """A job that keeps a pool of one busy until the event is set; everything else stays queued."""
    entered, release = Event(), Event()

    class Blocker(Echo):
        def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            entered.set()
            assert release.wait(SECONDS)

    flow = Flow(f"blocker-{next(_numbers)}")
    flow.add_routine(Blocker(), "blocker")
    runtime.exec(flow)
    _, job = runtime.post(flow, "blocker", "input", {})
    assert entered.wait(SECONDS)
    return job, release


_numbers = count()


# -- understanding_runtime: fragments ----------------------------------------------------------------------


def test_leaving_the_with_block_shuts_the_runtime_down(my_flow: Flow) -> None:
    program = run("context_manager", RUNTIME["context_manager"])
    assert program["worker_state"].status == "stopped"
    assert my_flow.in_use == 0
    with pytest.raises(StateError, match="shut down"):
        program["runtime"].exec("my_flow")


def test_manual_cleanup_is_equivalent(my_flow: Flow) -> None:
    work = RUNTIME["manual_cleanup"].replace("# ... do work ...", 'worker_state = runtime.exec("my_flow")')
    program = run("manual_cleanup", work, Runtime=Runtime)
    assert program["worker_state"].status == "stopped"
    assert my_flow.in_use == 0


def test_runtime_takes_the_documented_parameters() -> None:
    with run("parameters", RUNTIME["parameters"], Runtime=Runtime)["runtime"] as runtime:
        assert (runtime.thread_pool_size, runtime.max_queue_size) == (4, 1000)
        assert runtime.monitor is not None


def test_exec_returns_the_state_of_a_running_worker(
    my_flow: Flow, capsys: pytest.CaptureFixture[str]
) -> None:
    program = run("exec", RUNTIME["exec"])
    with program["runtime"]:
        state = program["worker_state"]
        assert type(state) is WorkerState
        assert capsys.readouterr().out == (
            f"Worker ID: {state.worker_id}\nFlow ID: my_flow\nStatus: running\n"
        )


def test_what_post_returns_answers_job_id(my_flow: Flow, capsys: pytest.CaptureFixture[str]) -> None:
    program = run("post", RUNTIME["post"], Runtime=Runtime)
    posted = program["job_context"]
    assert capsys.readouterr().out == f"Job ID: {posted.job_id}\n"
    assert outputs_of(posted.job_context) == [{"key": "value"}]


def test_what_post_returns_unpacks_into_worker_state_and_job_context(runtime: Runtime, my_flow: Flow) -> None:
    runtime.exec("my_flow")
    program = run("post_return_value", RUNTIME["post_return_value"], runtime=runtime)
    state, job = program["worker_state"], program["job_context"]
    assert (type(state), type(job)) == (WorkerState, JobContext)
    assert job.wait(SECONDS)
    for attribute in re.findall(r"#   - (\w+):", RUNTIME["post_return_value"]):
        assert hasattr(state, attribute) or hasattr(job, attribute)
    assert (state.flow_id, state.status, job.status, job.data, job.trace_log) == (
        "my_flow", "running", "completed", {}, [],
    )  # fmt: skip


def test_wait_until_all_jobs_finished_waits_for_all_that_was_posted(my_flow: Flow) -> None:
    runtime = run("wait_until_all_jobs_finished", RUNTIME["wait_until_all_jobs_finished"], Runtime=Runtime)[
        "runtime"
    ]
    assert [job.status for job in runtime.list_jobs()] == ["completed"] * 5


def test_waiting_with_and_without_a_timeout(runtime: Runtime, my_flow: Flow) -> None:
    runtime.exec("my_flow")
    runtime.post("my_flow", "processor", "input", {})
    run("timeouts", RUNTIME["timeouts"], runtime=runtime)
    assert [job.status for job in runtime.list_jobs()] == ["completed"]


def test_job_is_polled_by_its_id(my_flow: Flow, capsys: pytest.CaptureFixture[str]) -> None:
    # The one slip that the contract corrects: the worker's state comes first.
    corrected = RUNTIME["polling"].replace("job_ctx, _ = runtime.post(", "_, job_ctx = runtime.post(")
    run("polling", corrected, Runtime=Runtime)
    assert capsys.readouterr().out == "Job finished: completed\n"


def test_single_shot(my_flow: Flow) -> None:
    runtime = run("single_shot", RUNTIME["single_shot"], Runtime=Runtime)["runtime"]
    assert [job.status for job in runtime.list_jobs()] == ["completed"]


def test_continuous_processing_ends_when_its_source_raises(my_flow: Flow) -> None:
    class SourceEnded(Exception):
        pass

    class Clock:
        @staticmethod
        def sleep(seconds: float) -> None:
            assert seconds == 0.1

    readings = iter(range(20))
    made: list[Runtime] = []

    def get_data_from_source() -> int:
        for reading in readings:
            return reading
        raise SourceEnded

    def make() -> Runtime:
        made.append(Runtime(thread_pool_size=2))
        return made[-1]

    with pytest.raises(SourceEnded):
        run(
            "continuous",
            RUNTIME["continuous"],
            Runtime=make,
            time=Clock,
            get_data_from_source=get_data_from_source,
        )
    jobs = made[0].list_jobs()
    assert len(jobs) == 20
    assert {job.status for job in jobs} <= {"completed", "cancelled"}
    assert my_flow.in_use == 0


def test_batching_posts_full_batches_and_the_rest(my_flow: Flow) -> None:
    runtime = run("batching", RUNTIME["batching"], Runtime=Runtime, data_source=range(250))["runtime"]
    sizes = [len(job.outputs[0].data["batch"]) for job in runtime.list_jobs()]
    assert sizes == [100, 100, 50]


def test_posting_before_exec_is_an_error_that_names_exec_and_the_right_order_works(
    registry: FlowRegistry,
) -> None:
    registry.register(echo_flow("flow", "routine"))
    wrong, right = parts(RUNTIME["posting_before_exec"], "# RIGHT")
    with Runtime() as runtime:
        with pytest.raises(
            WorkerNotRunningError, match=r"'flow' has no worker; call runtime\.exec\('flow'\) first"
        ):
            run("wrong", wrong, runtime=runtime)
        assert runtime.list_workers() == []
        assert runtime.list_jobs() == []
        run("right", right, runtime=runtime)
    assert [job.status for job in runtime.list_jobs()] == ["completed"]


@pytest.mark.parametrize("name", [name for name in RUNTIME if name.endswith("_signature")])
def test_documented_signatures_can_be_called_by_position(name: str) -> None:
    text = RUNTIME[name].replace("\n", "")
    method, arguments = re.search(r"runtime\.(\w+)\((.*?)\)(?: ->|$)", text).groups()  # type: ignore[union-attr]
    documented = re.findall(r"(\w+): ", arguments)
    actual = list(inspect.signature(getattr(Runtime, method)).parameters.values())[1:]
    by_position = [p.name for p in actual if p.kind is not p.KEYWORD_ONLY]
    # What the page calls flow_id also takes a Flow, and is called flow.
    expected = ["flow" if parameter == "flow_id" else parameter for parameter in documented]
    assert by_position[: len(expected)] == expected


# -- understanding_runtime: the complete example -----------------------------------------------------------


def masked(text: str) -> list[str]:
    """The lines with ids masked. The page's code prints "Job job_…" where its output has "job_…"."""
    return [re.sub(r"(?:Job )?\b(job|worker)_\w+\b(?!')", r"<\1>", line) for line in text.splitlines()]


def in_page_order(lines: list[str]) -> list[str]:
    """Put "Waiting…" where the page has it.

    The page's first job runs while the main thread goes on, so nothing orders what the two print: a thread that is
    held up between its last post() and its print comes second. Each of them keeps the order of its own lines.
    """
    waiting = "Waiting for jobs to complete..."
    rest = [line for line in lines if line != waiting]
    at = rest.index("Posting jobs...") + 1
    return [*rest[:at], waiting, *rest[at:]] if waiting in lines else rest


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_complete_example_prints_what_the_page_says_200_times_in_a_row(
    threads: int, registry: FlowRegistry
) -> None:
    program = RUNTIME["complete_example"].replace("thread_pool_size=2", f"thread_pool_size={threads}")
    expected = masked(RUNTIME["complete_example_output"])
    for _ in range(200):
        registry.clear()
        with redirect_stdout(io.StringIO()) as printed:
            run("complete_example", program)
        lines = masked(printed.getvalue())
        assert lines.index("Waiting for jobs to complete...") < lines.index("Results:")
        assert in_page_order(lines) == expected
