"""What the contract says of routines: declarations, logic, handlers, merging, types, outputs."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest

from routilux import (
    CallbackOutputHandler,
    Flow,
    JobState,
    NullOutputHandler,
    QueueOutputHandler,
    Routine,
    Runtime,
    WorkerState,
    current,
    routine,
)
from routilux.activation_policies import all_slots_ready_policy, batch_size_policy, immediate_policy
from routilux.errors import (
    FlowInUseError,
    IncompatibleTypesError,
    InvalidTypeError,
    NotInActivationError,
    SlotHandlerError,
)
from routilux.runtime.output import OutputRecord
from tests.acceptance.contract_parts import chain, keeps, part, passes_on
from tests.waiting import SECONDS


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    runtime = Runtime(thread_pool_size=2)
    yield runtime
    assert runtime.shutdown(wait=False, timeout=SECONDS)


def handled(handler: Callable[..., Any], *payloads: dict[str, Any], **options: Any) -> None:
    """Each payload through a slot with this handler, in one worker."""
    subject = Routine()
    subject.add_slot("input", handler=handler, **options)
    flow = Flow("handled")
    flow.add_routine(subject, "only")
    with Runtime(thread_pool_size=1) as runtime:
        runtime.exec(flow)
        for payload in payloads:
            runtime.post(flow, "only", "input", payload).job_context.result(SECONDS)


# -- import paths ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        *(
            f"routilux:{name}"
            for name in (
                "Routine Flow Runtime Slot Event Connection ErrorHandler ErrorStrategy WorkerState JobState JobContext "
                "FlowRegistry FlowBuilder QueueOutputHandler CallbackOutputHandler NullOutputHandler OutputHandler "
                "WorkerStatus ExecutionStatus JobStatus RoutiluxError ConfigurationError StateError ExecutionError "
                "SlotHandlerError SerializationError routine get_current_job get_current_worker_state current"
            ).split()
        ),
        "routilux.activation_policies:immediate_policy",
        "routilux.activation_policies:all_slots_ready_policy",
        "routilux.activation_policies:batch_size_policy",
        "routilux.activation_policies:time_interval_policy",
        "routilux.activation_policies:custom_policy",
        "routilux.runtime:Runtime",
        "routilux.job_state:JobState",
        "routilux.monitoring.flow_registry:FlowRegistry",
    ],
)
def test_import_path_works(path: str) -> None:
    module, _, name = path.partition(":")
    assert getattr(importlib.import_module(module), name) is not None


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("routilux.runtime", "Runtime"),
        ("routilux.job_state", "JobState"),
        ("routilux.monitoring.flow_registry", "FlowRegistry"),
    ],
)
def test_both_import_paths_give_the_same_thing(path: str, name: str) -> None:
    assert getattr(importlib.import_module(path), name) is getattr(importlib.import_module("routilux"), name)


# -- declarations ------------------------------------------------------------------------------------------


def test_define_slot_and_define_event_are_the_same_as_add() -> None:
    subject = Routine()
    slot = subject.define_slot("input", max_queue_length=7, on_full="error")
    event = subject.define_event("output", ["n"])
    assert subject.slots["input"] is slot
    assert (slot.max_queue_length, slot.on_full) == (7, "error")
    assert subject.events["output"] is event


def test_defaults_of_a_slot() -> None:
    slot = Routine().add_slot("input")
    assert (slot.max_queue_length, slot.watermark, slot.on_full, slot.merge_strategy) == (
        1000,
        0.8,
        "block",
        "queue",
    )


def test_setters_return_the_routine() -> None:
    subject = Routine()
    assert subject.set_config(n=1).set_logic(lambda a, b, c: None) is subject
    assert subject.set_activation_policy(immediate_policy()).set_error_handler(None) is subject
    assert subject.set_concurrency(2).set_timeout(1) is subject


@pytest.mark.parametrize("view", ["slots", "events", "config"])
def test_mappings_of_a_routine_are_read_only(view: str) -> None:
    with pytest.raises(TypeError):
        getattr(Routine(), view)["x"] = 1


@pytest.mark.parametrize("name", ["slots", "events", "config", "routine_id", "flow"])
def test_what_a_routine_shows_can_not_be_assigned(name: str) -> None:
    with pytest.raises((AttributeError, ValueError), match=name):
        setattr(Routine(), name, {})


def test_get_config_gives_what_was_set_or_the_default() -> None:
    subject = Routine().set_config(a=1).set_config(b=2)
    assert (subject.get_config("a"), subject.get_config("b"), subject.get_config("c", 3)) == (1, 2, 3)
    assert subject.get_config("c") is None


def test_config_is_frozen_while_any_worker_of_the_flow_lives(runtime: Runtime) -> None:
    subject = part()
    flow = chain(subject)
    first, second = runtime.exec(flow), runtime.exec(flow)
    assert runtime.stop(first, timeout=SECONDS)
    with pytest.raises(FlowInUseError, match="live worker"):
        subject.set_config(n=1)
    assert not subject.config
    assert runtime.stop(second, timeout=SECONDS)
    assert subject.set_config(n=1).get_config("n") == 1


# -- logic -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "logic",
    [
        lambda slot_data, policy_message, state: state.shared_log.append(slot_data["input"]),
        lambda slot_data, policy_message, job_state: job_state.shared_log.append(slot_data["input"]),
        lambda slot_data, policy_message, worker_state: worker_state.shared_log.append(slot_data["input"]),
        lambda d, /, *rest: rest[1].shared_log.append(d["input"]),
    ],
    ids=["state", "job_state", "worker_state", "positional"],
)
def test_logic_is_called_by_position_so_its_parameters_have_any_names(logic: Callable[..., Any]) -> None:
    state = chain(part().set_logic(logic)).execute(entry_params={"n": 1})
    assert state.status == "completed"
    assert state.shared_log == [[{"n": 1}]]


def test_logic_may_be_overridden_or_set_plain_or_async(runtime: Runtime) -> None:
    seen = []

    class Plain(Routine):
        def __init__(self) -> None:
            super().__init__()
            self.add_slot("input")
            self.set_activation_policy(immediate_policy())

        def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            seen.append("plain")

    class Async(Plain):
        async def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            seen.append("async")

    async def function(slot_data: Any, policy_message: Any, state: Any) -> None:
        seen.append("async function")

    for subject in (Plain(), Async(), Plain().set_logic(function)):
        assert chain(subject).execute(entry_params={}).status == "completed"
    assert seen == ["plain", "async", "async function"]


def test_state_is_the_worker_state_and_in_a_one_shot_execution_the_job_state(runtime: Runtime) -> None:
    states: list[Any] = []
    flow = chain(part(lambda routine, slot_data, message, state: states.append(state)))
    worker = runtime.exec(flow)
    runtime.post(flow, "a", "input", {}).job_context.result(SECONDS)
    one_shot = runtime.exec(flow, entry_params={})
    assert one_shot.wait(SECONDS)
    assert states == [worker, one_shot]
    assert type(worker) is WorkerState
    assert type(one_shot) is JobState


@pytest.mark.parametrize("slots", [("input",), ("input", "other")])
def test_slot_data_answers_both_idioms_and_gives_an_empty_list_for_another_declared_slot(
    slots: tuple[str, ...],
) -> None:
    seen = []

    def logic(routine: Routine, slot_data: Any, message: Any, state: Any) -> None:
        seen.append((slot_data.get("input", [{}])[0], slot_data["input"], list(slot_data)))
        if "other" in routine.slots:
            seen.append((slot_data["other"], slot_data.get("other", [{}])[0], "other" in slot_data))

    flow = chain(part(logic, slots=slots)).set_entry("a", "input")
    assert flow.execute(entry_params={"n": 1}).status == "completed"
    assert seen[0] == ({"n": 1}, [{"n": 1}], ["input"])
    assert seen[1:] == ([([], {}, False)] if len(slots) == 2 else [])


def test_slot_data_refuses_a_slot_that_is_not_declared() -> None:
    flow = chain(part(lambda r, d, m, s: d["inputs"], slots=("input", "other"))).set_entry("a", "input")
    state = flow.execute(entry_params={})
    assert state.status == "failed"
    assert "inputs" in str(state.error)


def test_emit_outside_an_activation_is_refused() -> None:
    with pytest.raises(NotInActivationError, match="emit"):
        part().emit("output", n=1)


def test_a_routine_never_overlaps_itself_in_a_worker(runtime: Runtime) -> None:
    at_once: list[int] = []
    subject = part(lambda r, d, m, s: at_once.append(r.stats()["running"]))
    flow = chain(subject)
    runtime.exec(flow)
    for n in range(200):
        runtime.post(flow, "a", "input", {"n": n})
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    assert at_once == [1] * 200


# -- handlers ----------------------------------------------------------------------------------------------


def test_handler_with_kwargs_gets_all_keys() -> None:
    seen = []
    handled(lambda **kwargs: seen.append(kwargs), {"a": 1, "b": 2})
    assert seen == [{"a": 1, "b": 2}]


def test_handler_parameter_named_like_a_key_gets_that_key() -> None:
    seen = []
    handled(lambda b, a=0: seen.append((a, b)), {"a": 1, "b": 2, "c": 3}, {"b": 5})
    assert seen == [(1, 2), (0, 5)]


def test_single_handler_parameter_data_that_is_no_key_gets_the_whole_dict() -> None:
    seen = []
    handled(lambda data: seen.append(data), {"a": 1, "b": 2}, {"data": 7, "b": 2})
    assert seen == [{"a": 1, "b": 2}, 7]


def test_handler_parameter_that_nobody_emits_fails_the_job_and_says_so() -> None:
    with pytest.raises(SlotHandlerError, match="'missing'"):
        handled(lambda missing: None, {"a": 1})


def test_handlers_may_be_methods_and_async() -> None:
    seen = []

    class Early(Routine):
        def __init__(self) -> None:
            super().__init__()
            self.add_slot("one", handler=self.on_one)
            self.add_slot("two", handler=self.on_two)
            self.add_event("output")

        def on_one(self, n: int) -> None:
            seen.append(("one", n))
            self.emit("output", n=n)

        async def on_two(self, data: dict[str, Any]) -> None:
            seen.append(("two", data))

    flow = Flow("early")
    flow.add_routine(Early(), "early")
    flow.connect("early", "output", "early", "two")
    assert flow.execute("early.one", {"n": 4}).status == "completed"
    assert seen == [("one", 4), ("two", {"n": 4})]


def test_with_a_handler_the_policy_defaults_to_the_immediate_one() -> None:
    subject = Routine()
    subject.add_slot("input", handler=lambda data: None)
    assert subject.effective_policy == immediate_policy()
    assert subject.activation_policy is None


# -- merge strategies --------------------------------------------------------------------------------------

ARRIVALS = ({"a": 1, "b": 1}, {"b": 2}, {"a": 3, "c": 3})


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("queue", [{"a": 1, "b": 1}, {"b": 2}, {"a": 3, "c": 3}]),
        ("override", [{"a": 1, "b": 1}, {"a": 1, "b": 2}, {"a": 3, "b": 2, "c": 3}]),
        ("append", [{"a": [1], "b": [1]}, {"a": [1], "b": [1, 2]}, {"a": [1, 3], "b": [1, 2], "c": [3]}]),
        (
            lambda old, new: {"sum": old.get("sum", 0) + sum(new.values())},
            [{"sum": 2}, {"sum": 4}, {"sum": 10}],
        ),
    ],
    ids=["queue", "override", "append", "callable"],
)
def test_merge_strategy_gives_the_handler(strategy: Any, expected: list[dict[str, Any]]) -> None:
    seen: list[Any] = []
    handled(lambda **data: seen.append(data), *ARRIVALS, merge_strategy=strategy)
    assert seen == expected


def test_queue_is_the_default_merge_strategy() -> None:
    seen: list[Any] = []
    handled(lambda **data: seen.append(data), *ARRIVALS)
    assert seen == list(ARRIVALS)


def test_merged_data_never_leaks_into_another_execution() -> None:
    seen: list[Any] = []
    flow = chain(part(keeps(seen), merge_strategy="append"))
    for n in range(3):
        assert flow.execute(entry_params={"n": n}).status == "completed"
    assert seen == [{"n": [0]}, {"n": [1]}, {"n": [2]}]


def test_merged_data_belongs_to_the_worker(runtime: Runtime) -> None:
    seen: list[Any] = []
    flow = chain(part(keeps(seen), merge_strategy="append"))
    workers = [runtime.exec(flow).worker_id for _ in range(2)]
    for n in range(4):
        runtime.post(flow, "a", "input", {"n": n}, worker_id=workers[n % 2]).job_context.result(SECONDS)
    assert seen == [{"n": [0]}, {"n": [1]}, {"n": [0, 2]}, {"n": [1, 3]}]


def test_merged_data_is_saved_with_the_worker(tmp_path: Path) -> None:
    seen: list[Any] = []
    flow = chain(part(keeps(seen), merge_strategy="append"))
    path = str(tmp_path / "worker.json")
    with Runtime(thread_pool_size=1) as runtime:
        state = runtime.exec(flow)
        runtime.post(flow, "a", "input", {"n": 1}).job_context.result(SECONDS)
        state.save(path)
    with Runtime(thread_pool_size=1) as runtime:
        runtime.exec(flow, job_state=WorkerState.load(path))
        runtime.post(flow, "a", "input", {"n": 2}).job_context.result(SECONDS)
    assert seen == [{"n": [1]}, {"n": [1, 2]}]


# -- typed ports -------------------------------------------------------------------------------------------


@dataclass
class Person:
    name: str
    age: int


class PersonDict(TypedDict):
    name: str
    age: int


class PersonStruct(msgspec.Struct):
    name: str
    age: int


class PersonModel(pydantic.BaseModel):
    name: str
    age: int


@dataclass
class Address:
    street: str


KINDS = [Person, PersonDict, PersonStruct, PersonModel]


def typed(event_type: Any, slot_type: Any) -> Flow:
    source, target = part(events=()), part(slots=())
    source.add_event("output", type=event_type)
    target.add_slot("input", type=slot_type)
    return chain(source, target)


@pytest.mark.parametrize("slot_type", KINDS)
@pytest.mark.parametrize("event_type", KINDS)
def test_ends_with_the_same_fields_can_be_connected_whatever_kind_of_type(
    event_type: Any, slot_type: Any
) -> None:
    flow = typed(event_type, slot_type)
    state = flow.execute(entry_params={"name": "Ada", "age": 36})
    assert [output.data for output in state.outputs] == [{"name": "Ada", "age": 36}]


@pytest.mark.parametrize("kind", KINDS)
def test_incompatible_ends_are_refused_by_connect(kind: Any) -> None:
    with pytest.raises(IncompatibleTypesError, match="street"):
        typed(kind, Address)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", [{"name": "Ada", "age": "old"}, {"name": "Ada"}], ids=["type", "missing"])
@pytest.mark.parametrize("end", ["event", "slot", "both"])
def test_payload_is_checked_when_emitted(kind: Any, wrong: dict[str, Any], end: str) -> None:
    flow = typed(kind if end != "slot" else None, kind if end != "event" else None)
    state = flow.execute(entry_params=wrong)
    assert state.status == "failed"
    assert isinstance(state.error, SlotHandlerError)
    assert isinstance(state.error.__cause__, InvalidTypeError)
    assert "age" in str(state.error)
    assert not state.outputs


@pytest.mark.parametrize("kind", KINDS)
def test_payload_is_checked_when_posted(kind: Any, runtime: Runtime) -> None:
    subject = part(slots=())
    subject.add_slot("input", type=kind)
    flow = chain(subject)
    runtime.exec(flow)
    with pytest.raises(InvalidTypeError, match="age"):
        runtime.post(flow, "a", "input", {"name": "Ada", "age": "old"})
    assert not runtime.list_jobs()


# -- stats and outputs -------------------------------------------------------------------------------------


def test_stats_gives_state_and_counters_of_the_current_or_the_given_worker(runtime: Runtime) -> None:
    inside = []

    def logic(routine: Routine, slot_data: Any, message: Any, state: Any) -> None:
        state.update_routine_state("a", {"total": state.get_routine_state("a", {}).get("total", 0) + 1})
        inside.append(routine.stats())
        passes_on(routine, slot_data, message, state)

    flow = chain(part(logic))
    first, second = runtime.exec(flow), runtime.exec(flow)
    for worker_id in (first.worker_id, first.worker_id, second.worker_id):
        runtime.post(flow, "a", "input", {}, worker_id=worker_id).job_context.result(SECONDS)
    assert [stats["total"] for stats in inside] == [1, 2, 1]
    stats = flow.routines["a"].stats(first)
    assert (stats["total"], stats["activations"], stats["emitted"], stats["received"]) == (2, 2, 2, 2)
    assert (stats["running"], stats["queued"], stats["failed"]) == (0, 0, 0)
    assert flow.routines["a"].stats(second)["activations"] == 1
    with pytest.raises(NotInActivationError, match="stats"):
        flow.routines["a"].stats()


def sends(routine: Routine, slot_data: Any, message: Any, state: Any) -> None:
    for payload in slot_data["input"]:
        routine.send_output("result", **payload)


class Own:
    def __init__(self) -> None:
        self.outputs: list[OutputRecord] = []

    def handle(self, output: OutputRecord) -> None:
        self.outputs.append(output)


def test_send_output_reaches_every_kind_of_handler_and_the_output_log(runtime: Runtime) -> None:
    flow = chain(part(sends))
    worker = runtime.exec(flow)
    queue, called, own = QueueOutputHandler(), [], Own()
    for handler in (queue, CallbackOutputHandler(called.append), own, NullOutputHandler(), None):
        worker.output_handler = handler
        runtime.post(flow, "a", "input", {"n": 1}).job_context.result(SECONDS)
    log = list(worker.output_log)
    assert [(o.routine_id, o.output_type, o.data) for o in log] == [("a", "result", {"n": 1})] * 5
    assert [job.job_id for job in runtime.list_jobs()] == [output.job_id for output in log]
    assert queue.drain() == log[:1]
    assert called == log[1:2]
    assert own.outputs == log[2:3]


def test_send_output_outside_an_activation_is_refused() -> None:
    with pytest.raises(NotInActivationError, match="send_output"):
        part().send_output("result", n=1)


def test_what_is_emitted_on_an_event_that_nothing_is_connected_to_is_an_output_of_the_job(
    runtime: Runtime,
) -> None:
    def logic(routine: Routine, slot_data: Any, message: Any, state: Any) -> None:
        routine.emit("output", n=1)
        routine.emit("side", n=2)

    flow = chain(part(logic, events=("output", "side")), part())
    runtime.exec(flow)
    job = runtime.post(flow, "a", "input", {}).job_context
    outputs = job.result(SECONDS)
    assert [tuple(output) for output in outputs] == [("a", "side", {"n": 2}), ("b", "output", {"n": 1})]
    assert job.outputs == outputs


def test_activation_of_several_jobs_gives_its_outputs_to_each(runtime: Runtime) -> None:
    flow = chain(part(lambda r, d, m, s: r.emit("output", n=len(d["input"])), policy=batch_size_policy(2)))
    runtime.exec(flow)
    jobs = [runtime.post(flow, "a", "input", {}).job_context for _ in range(2)]
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    assert [[output.data for output in job.outputs] for job in jobs] == [[{"n": 2}]] * 2


# -- the decorator -----------------------------------------------------------------------------------------


def test_decorated_function_is_a_routine_that_takes_keys_and_emits_what_it_returns() -> None:
    @routine
    def double(n: int) -> dict[str, int]:
        """Twice as much."""
        return {"n": 2 * n}

    @routine(name="Each")
    def each(n: int) -> Iterator[dict[str, int]]:
        for i in range(n):
            yield {"i": i, "attempt": current().attempt}

    state = chain(double(), each()).execute(entry_params={"n": 1, "more": 0})
    assert [output.data for output in state.outputs] == [{"i": 0, "attempt": 1}, {"i": 1, "attempt": 1}]
    assert double.__doc__ == "Twice as much."
    assert each.__name__ == "Each"


def test_policy_of_a_routine_with_several_slots_sees_them_all(runtime: Runtime) -> None:
    seen: list[Any] = []
    flow = chain(
        part(
            lambda r, d, m, s: seen.append(dict(d)), slots=("left", "right"), policy=all_slots_ready_policy()
        )
    )
    runtime.exec(flow)
    runtime.post(flow, "a", "left", {"n": 1})
    runtime.post(flow, "a", "right", {"n": 2})
    assert runtime.wait_until_all_jobs_finished(SECONDS)
    assert seen == [{"left": [{"n": 1}], "right": [{"n": 2}]}]
