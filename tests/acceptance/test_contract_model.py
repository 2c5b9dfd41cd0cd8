"""The contract of the Python API, sentence by sentence: names, routines, flows, policies, states."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from enum import Enum
from functools import wraps
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from routilux import (
    ErrorHandler,
    ErrorStrategy,
    ExecutionStatus,
    Flow,
    FlowBuilder,
    FlowRegistry,
    JobStatus,
    QueueOutputHandler,
    Routine,
    Runtime,
    WorkerState,
    WorkerStatus,
    routine,
)
from routilux.activation_policies import (
    WAIT,
    Fire,
    WaitUntil,
    all_slots_ready_policy,
    batch_size_policy,
    custom_policy,
    immediate_policy,
    policy_from_dict,
    time_interval_policy,
)
from routilux.errors import ExecutionTimeoutError, FlowInUseError, InvalidTypeError
from tests.acceptance.parts import Step, chain, flow_of, join, outputs_of, step
from tests.waiting import SECONDS


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    with Runtime(thread_pool_size=2) as runtime:
        yield runtime


def results(
    runtime: Runtime, flow: Flow, *payloads: dict[str, Any], at: str = "a.input"
) -> list[dict[str, Any]]:
    """What comes out of a flow for what goes in."""
    runtime.exec(flow)
    jobs = [runtime.post(flow, *at.split("."), payload).job_context for payload in payloads]
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    return [output for job in jobs for output in outputs_of(job)]


# -- routine -------------------------------------------------------------------------------------------------


def test_emit_takes_the_name_or_the_event_and_an_event_emits_itself(runtime: Runtime) -> None:
    def logic(routine: Routine, payload: Any, state: Any) -> None:
        event = routine.events["output"]
        routine.emit("output", by="name")
        routine.emit(event, by="event")
        event.emit(by="itself")

    assert results(runtime, flow_of(step(logic)), {}) == [{"by": "name"}, {"by": "event"}, {"by": "itself"}]


# -- handlers, the early style -------------------------------------------------------------------------------

PAYLOAD = {"x": 1, "y": 2}
HANDLERS: dict[str, tuple[Callable[..., Any], Any]] = {
    "**kwargs gets all": (lambda **kwargs: kwargs, PAYLOAD),
    "a parameter named like a key gets that key": (lambda x: x, 1),
    "others get the rest": (lambda x, **rest: (x, rest), (1, {"y": 2})),
    "keys without a parameter are left out": (lambda y: y, 2),
    "a default stands in for a key that is missing": (lambda x, z=3: (x, z), (1, 3)),
    "a single parameter data gets the whole": (lambda data: data, PAYLOAD),
    "keyword-only parameters count as well": (lambda *, y: y, 2),
}


@pytest.mark.parametrize("style", HANDLERS)
def test_handler_gets_the_payload_by_name(style: str, runtime: Runtime) -> None:
    handler, expected = HANDLERS[style]
    seen: list[Any] = []

    class Early(Routine):
        def __init__(self) -> None:
            super().__init__()
            self.add_slot("input", handler=wrapped)

    @wraps(handler)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        seen.append(handler(*args, **kwargs))

    results(runtime, flow_of(Early()), PAYLOAD)
    assert seen == [expected]


def test_handler_with_a_key_named_data_gets_that_key(runtime: Runtime) -> None:
    seen: list[Any] = []
    early = Routine()
    early.add_slot("input", handler=lambda data: seen.append(data))
    results(runtime, flow_of(early), {"data": 5, "x": 1})
    assert seen == [5]


def test_handler_whose_key_is_missing_fails_the_job_and_says_which(runtime: Runtime) -> None:
    early = Routine()
    early.add_slot("input", handler=lambda z: None)
    flow = flow_of(early)
    runtime.exec(flow)
    _, job = runtime.post(flow, "a", "input", PAYLOAD)
    assert job.wait(SECONDS)
    assert isinstance(job.error.__cause__, InvalidTypeError)
    for fragment in ("'a.input'", "'z'", "'x', 'y'", "mapping="):
        assert fragment in str(job.error)


def test_each_slot_has_its_own_handler_and_the_policy_defaults_to_immediate(runtime: Runtime) -> None:
    class Early(Routine):
        def __init__(self) -> None:
            super().__init__()
            self.add_slot("numbers", handler=self.number)
            self.add_slot("words", handler=self.word)
            self.add_event("output")

        def number(self, n: int) -> None:
            self.emit("output", square=n * n)

        async def word(self, word: str) -> None:
            self.emit("output", upper=word.upper())

    flow = flow_of(Early())
    assert flow.routines["a"].effective_policy == immediate_policy()
    assert results(runtime, flow, {"n": 3}, at="a.numbers") == [{"square": 9}]
    assert outputs_of(posted := runtime.post(flow, "a", "words", {"word": "x"}).job_context) or posted.wait(
        SECONDS
    )
    assert outputs_of(posted) == [{"upper": "X"}]


# -- merge strategies ----------------------------------------------------------------------------------------


class Merges(Routine):
    strategy: Any = "queue"

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input", merge_strategy=self.strategy)
        self.add_event("output")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        self.emit("output", got=[dict(payload) for payload in slot_data["input"]])


def merges(strategy: Any) -> Merges:
    return type(
        "Merging", (Merges,), {"strategy": strategy if isinstance(strategy, str) else staticmethod(strategy)}
    )()


def test_what_a_failed_activation_merged_is_not_kept(runtime: Runtime) -> None:
    def logic(slot_data: Any, policy_message: Any, state: Any) -> None:
        (payload,) = slot_data["input"]
        if 2 in payload["n"]:
            raise ValueError
        routine.emit("output", **payload)

    routine = merges("append").set_logic(logic).set_error_handler(ErrorHandler("skip"))
    assert results(runtime, flow_of(routine), {"n": 1}, {"n": 2}, {"n": 3}) == [{"n": [1]}, {"n": [1, 3]}]


# -- send_output -----------------------------------------------------------------------------------------------


def sends() -> Flow:
    return flow_of(
        step(lambda routine, payload, state: routine.send_output("line", **payload)), flow_id="sends"
    )


def test_output_handlers_of_two_executions_do_not_mix(runtime: Runtime) -> None:
    flow = sends()
    first, second = runtime.exec(flow, worker_id="1"), runtime.exec(flow, worker_id="2")
    first.output_handler, second.output_handler = QueueOutputHandler(), QueueOutputHandler()
    for n in range(20):
        runtime.post(flow, "a", "input", {"n": n}, worker_id=str(n % 2 + 1))
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    assert [record.data["n"] for record in first.output_handler.drain()] == list(range(0, 20, 2))
    assert [record.data["n"] for record in second.output_handler.drain()] == list(range(1, 20, 2))


# -- flow ------------------------------------------------------------------------------------------------------


def test_removed_routine_leaves_no_trace_and_can_be_added_elsewhere() -> None:
    flow = chain(Step(), Step(), Step())
    removed = flow.remove_routine("b")
    assert (list(flow.routines), flow.connections, removed.flow, removed.routine_id) == (
        ["a", "c"],
        (),
        None,
        "",
    )
    assert Flow().add_routine(removed, "elsewhere") == "elsewhere"


def test_payload_for_one_target_does_not_show_what_another_target_does_to_its_own(runtime: Runtime) -> None:
    def clears(routine: Routine, payload: dict[str, Any], state: Any) -> None:
        payload.clear()

    flow = flow_of(Step(), step(clears), Step())
    flow.connect("a", "output", "b", "input")
    flow.connect("a", "output", "c", "input")
    assert results(runtime, flow, {"n": 1}) == [{"n": 1}]


def test_execution_timeout_of_a_flow_holds_for_its_one_shot_executions_and_not_for_workers(
    runtime: Runtime,
) -> None:
    began, release = Event(), Event()

    async def waits(routine: Routine, payload: Any, state: Any) -> None:
        began.set()
        while not release.is_set():
            await asyncio.sleep(0)

    flow = flow_of(step(waits), execution_timeout=0.02)
    worker = runtime.exec(flow)
    _, job = runtime.post(flow, "a", "input", {})
    assert began.wait(SECONDS)
    state = runtime.exec(flow, entry_params={})
    assert state.wait(SECONDS)
    assert isinstance(state.error, ExecutionTimeoutError)
    assert (job.status, worker.status) == ("running", "running")
    release.set()
    assert job.wait(SECONDS)
    assert job.status == "completed"


def test_registry_finds_flows_by_name_and_is_a_thing_of_its_own() -> None:
    registry, flow = FlowRegistry(), flow_of(Step())
    registry.register_by_name("mine", flow).register(flow)
    assert (registry.get("mine"), registry.list_flows(), len(registry)) == (flow, ["flow", "mine"], 2)
    assert "mine" in registry
    assert FlowRegistry.get_instance() is FlowRegistry.get_instance()
    assert FlowRegistry.get_instance() is not registry
    with Runtime(thread_pool_size=1, registry=registry) as runtime:
        assert runtime.exec("mine").flow_id == "flow"
        assert runtime.post("mine", "a", "input", {"n": 1}).job_context.result(SECONDS)[0].data == {"n": 1}
    assert registry.unregister("mine") is flow
    assert registry.list_flows() == ["flow"]


def test_builder_builds_the_same_flow_in_one_expression() -> None:
    built = (
        FlowBuilder("built", execution_strategy="sequential")
        .add(Step, "a", {"limit": 3})
        .add(Step(), "b")
        .connect("a.output", "b.input", mapping={"x": "y"})
        .entry("a.input")
        .error_handler(ErrorHandler("skip"))
        .build()
    )
    assert [str(connection) for connection in built.connections] == ["a.output -> b.input"]
    assert dict(built.routines["a"].config) == {"limit": 3}
    assert (built.entry, built.error_handler) == (("a", "input"), ErrorHandler("skip"))
    assert outputs_of(built.execute(entry_params={"x": 1})) == [{"y": 1}]


def test_a_flow_is_free_again_when_its_last_worker_has_ended(runtime: Runtime) -> None:
    flow = flow_of(Step())
    first, second = runtime.exec(flow), runtime.exec(flow)
    assert flow.in_use == 2
    runtime.stop(first)
    with pytest.raises(FlowInUseError):
        flow.add_routine(Step())
    runtime.stop(second)
    assert flow.add_routine(Step(), "new") == "new"


# -- decorator -------------------------------------------------------------------------------------------------


def test_decorated_function_is_a_routine_class(runtime: Runtime) -> None:
    @routine
    def double(n: int, unit: str = "m") -> dict[str, Any]:
        """Twice as much."""
        return {"n": 2 * n, "unit": unit}

    @routine(name="Counts", concurrency=2)
    def counts(n: int, **rest: Any) -> Iterator[dict[str, Any]]:
        for i in range(n):
            yield {"i": i, **rest}

    @routine
    async def drops(i: int) -> None:
        return None

    flow = chain(double(), counts(), drops())
    assert (double.__name__, double.__doc__, counts.__name__) == ("double", "Twice as much.", "Counts")
    assert flow.routines["b"].concurrency == 2
    assert double.fn(2) == {"n": 4, "unit": "m"}
    assert results(runtime, flow, {"n": 2, "ignored": 1}) == []
    assert runtime.post(flow, "b", "input", {"n": 0}).job_context.wait(SECONDS)
    stats = flow.routines["c"].stats(runtime.list_workers()[0])
    assert stats["activations"] == 4


# -- policies --------------------------------------------------------------------------------------------------

POLICIES = [
    immediate_policy(), all_slots_ready_policy(), all_slots_ready_policy(by="job"), batch_size_policy(3),
    batch_size_policy(3, flush=False), time_interval_policy(0.5),
]  # fmt: skip


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_policy_is_a_value_that_is_named_printed_compared_and_written(policy: Any) -> None:
    assert policy_from_dict(json.loads(json.dumps(policy.to_dict()))) == policy
    assert hash(policy) == hash(policy_from_dict(policy.to_dict()))
    assert type(policy).__name__ in repr(policy)
    assert policy.name in policy.to_dict()["policy"]
    assert [other for other in POLICIES if other == policy] == [policy]
    with pytest.raises(AttributeError):
        policy.name = "other"


def test_immediate_policy_takes_items_one_by_one_in_the_order_of_arrival_over_all_slots(
    runtime: Runtime,
) -> None:
    flow = flow_of(join(immediate_policy()))
    worker = runtime.exec(flow)
    runtime.pause(worker)
    order = "left right right left right left left".split()
    jobs = [runtime.post(flow, "a", slot, {"n": n}).job_context for n, slot in enumerate(order)]
    runtime.resume(worker)
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    for n, (slot, job) in enumerate(zip(order, jobs, strict=True)):
        assert outputs_of(job) == [{"left": [], "right": [], "message": None} | {slot: [{"n": n}]}]
    history = [record.job_ids for record in worker.execution_history]
    assert history == [(job.job_id,) for job in jobs]


def test_all_slots_ready_policy_takes_the_oldest_of_each_slot(runtime: Runtime) -> None:
    flow = flow_of(join(all_slots_ready_policy()))
    runtime.exec(flow)
    for n in range(3):
        assert runtime.post(flow, "a", "left", {"l": n}).job_context.wait(SECONDS)
    jobs = [runtime.post(flow, "a", "right", {"r": n}).job_context for n in range(2)]
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    assert [(out["left"], out["right"]) for job in jobs for out in outputs_of(job)] == [
        ([{"l": n}], [{"r": n}]) for n in range(2)
    ]


def test_all_slots_ready_policy_by_job_joins_only_what_belongs_to_one_job(runtime: Runtime) -> None:
    flow = flow_of(join(all_slots_ready_policy(by="job")))
    runtime.exec(flow)
    for job_id in "xy":
        runtime.post(flow, "a", "left", {"of": job_id}, job_id=job_id)
    for job_id in "yx":
        runtime.post(flow, "a", "right", {"of": job_id}, job_id=job_id)
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    for job_id in "xy":
        (output,) = outputs_of(runtime.get_job(job_id))
        assert (output["left"], output["right"]) == ([{"of": job_id}], [{"of": job_id}])


def test_all_slots_ready_policy_by_a_payload_key_joins_equal_values(runtime: Runtime) -> None:
    flow = flow_of(join(all_slots_ready_policy(by="order")))
    runtime.exec(flow)
    for order in (1, 2, 3):
        runtime.post(flow, "a", "left", {"order": order})
    jobs = [runtime.post(flow, "a", "right", {"order": order}).job_context for order in (3, 1)]
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    assert [(out["left"], out["right"]) for job in jobs for out in outputs_of(job)] == [
        ([{"order": order}], [{"order": order}]) for order in (3, 1)
    ]


def batches(flow: Flow, runtime: Runtime) -> list[int]:
    """How many items each activation of ``a`` took, of five that were posted."""
    sizes: list[int] = []
    flow.routines["a"].set_logic(lambda slot_data, message, state: sizes.append(len(slot_data["input"])))
    runtime.exec(flow)
    for n in range(5):
        runtime.post(flow, "a", "input", {"n": n})
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    return sizes


def with_policy(policy: Any) -> Flow:
    return flow_of(Step().set_activation_policy(policy))


def test_batch_size_policy_takes_exactly_n_and_the_rest_on_drain(runtime: Runtime) -> None:
    assert batches(with_policy(batch_size_policy(2)), runtime) == [2, 2, 1]


def test_batch_size_policy_without_flush_keeps_the_rest(runtime: Runtime) -> None:
    flow = with_policy(batch_size_policy(2, flush=False))
    assert batches(flow, runtime) == [2, 2]
    assert [job.parked for job in runtime.list_jobs()] == [0, 0, 0, 0, 1]


def when_due(slots: Any, state: Any) -> Any:
    due = state.shared_data.setdefault("due", slots.now + 0.01)
    return Fire({"input": len(slots["input"])}) if slots.now >= due else WaitUntil(due)


RULES: dict[str, tuple[Callable[..., Any], list[int]]] = {
    "True takes all": (lambda slots, state: True, [5]),
    "False waits": (lambda slots, state: False, []),
    "a condition": (lambda slots, state: len(slots["input"]) >= 2, [5]),
    "Fire": (lambda slots, state: Fire({"input": 1}), [1, 1, 1, 1, 1]),
    "Fire or WAIT": (lambda slots, state: Fire({"input": 2}) if len(slots["input"]) > 2 else WAIT, [2, 2]),
    "Fire at positions": (
        lambda slots, state: Fire({"input": (1, 3)}) if len(slots["input"]) == 5 else WAIT,
        [2],
    ),
    "WaitUntil": (when_due, [5]),
    "slice": (lambda slots, state: (len(slots["input"]) == 5, {"input": [1, 2, 3]}, None), [3]),
    "no slice takes all": (lambda slots, state: (True, None, None), [5]),
    "get_unconsumed_count": (lambda slots, state: slots["input"].get_unconsumed_count() == 5, [5]),
    "consume_all_new": (lambda slots, state: bool(slots["input"].consume_all_new()), [5]),
    "consume_one_new": (lambda slots, state: bool(slots["input"].consume_one_new()), [1, 1, 1, 1, 1]),
    "consume two": (
        lambda slots, state: bool(slots["input"].consume_one_new() and slots["input"].consume_one_new()),
        [2, 2],
    ),
}


@pytest.mark.parametrize("form", RULES)
def test_custom_policy_answers_in_any_of_its_forms(form: str, runtime: Runtime) -> None:
    rule, sizes = RULES[form]
    taken: list[int] = []
    flow = with_policy(custom_policy(rule))
    flow.routines["a"].set_logic(lambda slot_data, message, state: taken.append(len(slot_data["input"])))
    worker = runtime.exec(flow)
    runtime.pause(worker)
    jobs = [runtime.post(flow, "a", "input", {"n": n}).job_context for n in range(5)]
    runtime.resume(worker)
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    assert taken == sizes
    assert [job.status for job in jobs] == ["completed"] * 5
    assert sum(job.parked for job in jobs) == 5 - sum(sizes)


def test_what_a_custom_policy_consumes_takes_effect_only_if_it_activates(runtime: Runtime) -> None:
    def rule(slots: Any, state: Any) -> Any:
        payload = slots["left"].consume_one_new()
        return bool(payload) and bool(slots["right"].consume_one_new()), None, "both"

    flow = flow_of(join(custom_policy(rule)))
    runtime.exec(flow)
    _, left = runtime.post(flow, "a", "left", {"n": 1})
    assert left.wait(SECONDS)
    assert left.parked == 1
    _, right = runtime.post(flow, "a", "right", {"n": 2})
    assert right.wait(SECONDS)
    assert outputs_of(right) == [{"left": [{"n": 1}], "right": [{"n": 2}], "message": "both"}]


def test_policy_sees_the_state_of_the_worker(runtime: Runtime) -> None:
    flow = with_policy(custom_policy(lambda slots, state: state.shared_data.get("open", False)))
    worker = runtime.exec(flow)
    _, first = runtime.post(flow, "a", "input", {"n": 1})
    assert first.wait(SECONDS)
    assert first.parked == 1
    worker.shared_data["open"] = True
    _, second = runtime.post(flow, "a", "input", {"n": 2})
    assert second.wait(SECONDS)
    assert (first.parked, outputs_of(second)) == (0, [{"n": 1}, {"n": 2}])


# -- states ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (WorkerStatus, "starting running paused stopped failed"),
        (ExecutionStatus, "pending running paused completed failed cancelled"),
        (JobStatus, "pending running completed failed cancelled"),
    ],
)
def test_statuses_are_string_enums(kind: type[Enum], names: str) -> None:
    assert [status.value for status in kind] == names.split()
    for status in kind:
        assert status == status.value
        assert f"{status}" == status.value
        assert status in (status.value, "other")
        assert json.dumps({"status": status}) == f'{{"status": "{status.value}"}}'


def test_routine_state_is_given_as_a_copy_updated_by_merging_and_set_by_replacing(runtime: Runtime) -> None:
    state = runtime.exec(flow_of(Step()))
    assert state.get_routine_state("a") is None
    assert state.get_routine_state("a", {}) == {}
    state.update_routine_state("a", {"x": 1, "deep": {"list": [1]}})
    state.update_routine_state("a", {"y": 2})
    copy = state.get_routine_state("a")
    assert copy == {"x": 1, "y": 2, "deep": {"list": [1]}}
    copy["deep"]["list"].append(2)
    state.routine_states["a"]["x"] = 5
    assert state.get_routine_state("a") == {"x": 1, "y": 2, "deep": {"list": [1]}}
    state.set_routine_state("a", {"z": 3})
    assert state.routine_states == {"a": {"z": 3}}


def test_what_was_given_to_a_routine_state_is_not_changed_through_it(runtime: Runtime) -> None:
    state = runtime.exec(flow_of(Step()))
    mine = {"x": 1}
    state.update_routine_state("a", mine)
    mine["y"] = 2
    assert state.get_routine_state("a") == {"x": 1}
    state.set_routine_state("a", mine)
    mine["z"] = 3
    assert state.get_routine_state("a") == {"x": 1, "y": 2}


def test_shared_data_is_a_mapping_and_shared_log_only_grows(runtime: Runtime) -> None:
    def logic(routine: Routine, payload: Any, state: WorkerState) -> None:
        state.shared_data["last"] = payload["n"]
        state.shared_log.append(payload["n"])

    flow = flow_of(step(logic), step(logic))
    flow.connect("a", "output", "b", "input")
    state = runtime.exec(flow)
    for n in range(10):
        runtime.post(flow, "a", "input", {"n": n})
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    assert state.shared_data == {"last": 9}
    assert list(state.shared_log) == list(range(10))
    assert (len(state.shared_log), state.shared_log[-1], state.shared_log[:2]) == (10, 9, [0, 1])
    for method in ("pop", "clear", "remove", "insert", "__setitem__", "__delitem__"):
        assert not hasattr(state.shared_log, method)


def test_concurrent_updates_of_states_lose_nothing(runtime: Runtime) -> None:
    def logic(routine: Routine, payload: Any, state: WorkerState) -> None:
        state.update_routine_state("a", {str(payload["n"]): True})
        state.shared_log.append(payload["n"])

    flow = flow_of(step(logic).set_concurrency(2))
    state = runtime.exec(flow)
    for n in range(500):
        runtime.post(flow, "a", "input", {"n": n})
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    assert len(state.get_routine_state("a")) == 500
    assert sorted(state.shared_log) == list(range(500))


def test_history_tells_routine_jobs_time_status_attempt_and_error(runtime: Runtime) -> None:
    def fails(routine: Routine, payload: Any, state: Any) -> None:
        if payload["n"]:
            raise ValueError("bad")

    flow = flow_of(step(fails).set_error_handler(ErrorHandler("retry", max_retries=1, retry_delay=0)))
    state = runtime.exec(flow)
    jobs = [runtime.post(flow, "a", "input", {"n": n}).job_context for n in range(2)]
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    assert [(r.routine_id, r.job_ids, r.status, r.attempt, r.error) for r in state.execution_history] == [
        ("a", (jobs[0].job_id,), "completed", 1, None),
        ("a", (jobs[1].job_id,), "retried", 1, "ValueError: bad"),
        ("a", (jobs[1].job_id,), "failed", 2, "ValueError: bad"),
    ]
    for record, job in zip(state.execution_history, [jobs[0], jobs[1], jobs[1]], strict=True):
        assert job.created_at - 0.1 <= record.started_at <= job.completed_at + 0.1
        assert record.duration >= 0


def test_saved_worker_is_the_same_worker_again(tmp_path: Path) -> None:
    flow = chain(Step(), Step())
    with Runtime(thread_pool_size=1) as first:
        worker = first.exec(flow, worker_id="w")
        worker.shared_data["x"] = {"y": [1, 2.5, None, "ü"]}
        worker.shared_log.extend([1, "two"])
        worker.update_routine_state("a", {"n": 1})
        first.pause(worker)
        posted = [first.post(flow, "a", "input", {"n": n}, metadata={"k": n}) for n in range(3)]
        posted[0].job_context.set_data("note", "kept")
        posted[0].job_context.trace("seen", by="me")
        worker.save(tmp_path / "w.json")
    loaded = WorkerState.load(tmp_path / "w.json")
    assert (loaded.worker_id, loaded.flow_id, loaded.status) == ("w", "chain", "paused")
    assert loaded.shared_data == {"x": {"y": [1, 2.5, None, "ü"]}}
    assert list(loaded.shared_log) == [1, "two"]
    assert loaded.get_routine_state("a") == {"n": 1}
    with Runtime(thread_pool_size=1) as second:
        again = second.exec(flow, job_state=loaded)
        assert second.wait_until_all_jobs_finished(SECONDS)
        assert (again.worker_id, again.shared_data) == ("w", loaded.shared_data)
        jobs = [second.get_job(old.job_id) for old in posted]
        assert [(job.status, job.metadata, outputs_of(job)) for job in jobs] == [
            ("completed", {"k": n}, [{"n": n}]) for n in range(3)
        ]
        assert jobs[0].get_data("note") == "kept"
        assert [entry["action"] for entry in jobs[0].trace_log][:1] == ["seen"]


def test_error_handler_has_the_documented_defaults() -> None:
    handler = ErrorHandler()
    assert (
        handler.strategy, handler.max_retries, handler.retry_delay, handler.retry_backoff, handler.max_delay,
        handler.jitter, handler.retryable_exceptions, handler.on_exhausted,
    ) == (ErrorStrategy.STOP, 3, 1.0, 2.0, None, 0.0, (Exception,), ErrorStrategy.STOP)  # fmt: skip
