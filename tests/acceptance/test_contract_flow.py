"""What the contract says of flows: ids, connections, entries, strategies, execute() and its companions, cycles."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from routilux import ConfigurationError, Flow, JobState, Routine, Runtime, StateError
from routilux.activation_policies import all_slots_ready_policy, batch_size_policy, immediate_policy
from routilux.errors import DeadlockError, DuplicateNameError, ExecutionTimeoutError, MissingPolicyError
from tests.acceptance.contract_parts import Stop, chain, ends_here, keeps, part, stops_at
from tests.waiting import SECONDS


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    runtime = Runtime(thread_pool_size=2)
    yield runtime
    assert runtime.shutdown(wait=False, timeout=SECONDS)


def datas(state: JobState) -> list[dict[str, Any]]:
    return [output.data for output in state.outputs]


# -- the template ------------------------------------------------------------------------------------------


def test_a_routine_object_belongs_to_one_flow() -> None:
    subject = part()
    first = chain(subject)
    with pytest.raises(DuplicateNameError, match="chain"):
        Flow("second").add_routine(subject, "a")
    assert first.remove_routine("a") is subject
    assert Flow("second").add_routine(subject, "a") == "a"


def test_ids_are_unique_in_a_flow_and_made_up_if_not_given() -> None:
    flow = chain(part())
    with pytest.raises(DuplicateNameError, match="'a'"):
        flow.add_routine(part(), "a")
    ids = [flow.add_routine(part()) for _ in range(3)]
    assert len({"a", *ids}) == 4
    assert list(flow.routines) == ["a", *ids]


def test_flow_ids_are_made_up_if_not_given() -> None:
    assert Flow().flow_id != Flow().flow_id


def test_a_connection_never_leaves_its_flow() -> None:
    stranger = part()
    chain(stranger)
    flow = chain(part())
    with pytest.raises(ConfigurationError, match="not in flow"):
        flow.connect("a", "output", stranger, "input")
    assert flow.connections == ()


def test_mapping_renames_those_keys_and_passes_the_others() -> None:
    flow = Flow("mapped")
    flow.add_routine(part(), "a")
    flow.add_routine(part(), "b")
    flow.connect("a", "output", "b", "input", mapping={"n": "number"})
    assert datas(flow.execute(entry_params={"n": 1, "other": 2})) == [{"number": 1, "other": 2}]


def test_mapping_of_one_connection_does_not_show_on_another() -> None:
    flow = chain(part(), part())
    flow.add_routine(part(), "c")
    flow.connect("a", "output", "c", "input", mapping={"n": "m"})
    outputs = flow.execute(entry_params={"n": 1}).outputs
    assert {output.routine_id: output.data for output in outputs} == {"b": {"n": 1}, "c": {"m": 1}}


def test_disconnected_event_gives_outputs_again() -> None:
    flow = chain(part(), part(ends_here))
    assert datas(flow.execute(entry_params={"n": 1})) == []
    flow.disconnect("a", "output", "b", "input")
    assert datas(flow.set_entry("a").execute(entry_params={"n": 1})) == [{"n": 1}]


def test_validate_gives_all_problems_at_once_with_severity_code_where_message_and_fix() -> None:
    flow = Flow("wrong")
    for name in ("a", "b"):
        routine = Routine()
        routine.add_slot("input")
        flow.add_routine(routine, name)
    issues = [issue for issue in flow.validate() if issue.severity == "error"]
    assert len(issues) >= 2
    for name in ("a", "b"):
        assert any(name in issue.where for issue in issues)
    for issue in issues:
        assert issue.code
        assert issue.message
        assert issue.fix


def test_no_policy_is_refused_by_exec_naming_the_routine_and_three_policies(runtime: Runtime) -> None:
    subject = Routine().set_logic(lambda slot_data, message, state: None)
    subject.add_slot("input")
    flow = Flow("silent")
    flow.add_routine(subject, "silent_one")
    with pytest.raises(MissingPolicyError, match="silent_one") as caught:
        runtime.exec(flow)
    assert isinstance(caught.value, ConfigurationError)
    named = [
        name
        for name in ("immediate", "all_slots_ready", "batch_size", "time_interval", "custom")
        if f"{name}_policy" in str(caught.value)
    ]
    assert len(named) >= 3
    assert not runtime.list_workers()


# -- entries -----------------------------------------------------------------------------------------------


def test_entry_is_what_set_entry_says() -> None:
    flow = chain(part(), part()).set_entry("b")
    outputs = flow.execute(entry_params={"n": 1}).outputs
    assert [output.routine_id for output in outputs] == ["b"]
    assert [record.routine_id for record in flow.execute(entry_params={}).execution_history] == ["b"]


def test_entry_is_else_the_one_routine_with_a_slot_that_nothing_feeds() -> None:
    state = chain(part(), part()).execute(entry_params={"n": 1})
    assert [record.routine_id for record in state.execution_history] == ["a", "b"]


def test_several_possible_entries_are_refused_naming_them() -> None:
    flow = chain(part())
    flow.add_routine(part(), "other")
    with pytest.raises(ConfigurationError, match=r"'a', 'other'.*set_entry"):
        flow.execute(entry_params={})


def test_entry_given_to_the_call_goes_before_set_entry(runtime: Runtime) -> None:
    flow = chain(part(), part()).set_entry("a")
    assert [r.routine_id for r in flow.execute("b", {}).execution_history] == ["b"]
    state = runtime.exec(flow, entry="b.input", entry_params={})
    assert state.wait(SECONDS)
    assert [r.routine_id for r in state.execution_history] == ["b"]


# -- strategies --------------------------------------------------------------------------------------------


def fan(flow: Flow) -> Flow:
    """``a`` emits three payloads to ``b`` and ``c``, which both feed ``d``."""

    def emits_three(routine: Routine, slot_data: Any, message: Any, state: Any) -> None:
        for n in range(3):
            routine.emit("output", n=n)

    flow.add_routine(part(emits_three), "a")
    for name in ("b", "c"):
        flow.add_routine(part(), name)
        flow.connect("a", "output", name, "input")
    flow.add_routine(part(), "d")
    for name in ("b", "c"):
        flow.connect(name, "output", "d", "input")
    return flow


def order(state: JobState) -> list[tuple[str, ...]]:
    return [(r.routine_id, r.status) for r in state.execution_history]


@pytest.mark.parametrize("threads", [1, 8])
def test_sequential_runs_one_activation_at_a_time_in_a_deterministic_order(threads: int) -> None:
    seen = []
    for _ in range(10):
        with Runtime(thread_pool_size=threads) as runtime:
            state = runtime.exec(fan(Flow("fan", execution_strategy="sequential")), entry_params={})
            assert state.wait(SECONDS)
        assert len(state.execution_history) == 13
        starts = [(r.started_at, r.started_at + r.duration) for r in state.execution_history]
        assert all(end <= start + 1e-9 for (_, end), (start, _) in pairwise(starts))
        seen.append((order(state), datas(state)))
    assert all(one == seen[0] for one in seen)


def test_flow_execute_is_sequential_unless_the_flow_says_otherwise() -> None:
    executions = [fan(Flow("fan")).execute(entry_params={}) for _ in range(10)]
    assert all(order(state) == order(executions[0]) for state in executions)
    assert at_once(Flow("both")) == 1
    assert at_once(Flow("both", execution_strategy="concurrent", max_workers=2)) == 2


def at_once(flow: Flow) -> int:
    """How many of two routines ran at once; the second one waits for the first as long as it may."""
    both = threading.Barrier(2)
    met: list[int] = []

    def meets(routine: Routine, slot_data: Any, message: Any, state: Any) -> None:
        try:
            both.wait(SECONDS if flow.execution_strategy == "concurrent" else 0.05)
            met.append(1)
        except threading.BrokenBarrierError:
            pass

    flow.add_routine(part(), "a")
    for name in ("b", "c"):
        flow.add_routine(part(meets), name)
        flow.connect("a", "output", name, "input")
    assert flow.execute(entry_params={}).status == "completed"
    return max(1, len(met))


def test_worker_under_a_runtime_is_concurrent_unless_the_flow_says_otherwise(runtime: Runtime) -> None:
    both = threading.Barrier(2)
    flow = chain(part(lambda r, d, m, s: both.wait(SECONDS)))
    flow.add_routine(part(lambda r, d, m, s: both.wait(SECONDS)), "b")
    runtime.exec(flow)
    jobs = [runtime.post(flow, name, "input", {}).job_context for name in ("a", "b")]
    for job in jobs:
        job.result(SECONDS)


def test_max_workers_is_the_most_activations_at_once_in_a_worker() -> None:
    lock, now, most = threading.Lock(), [0], [0]

    def counts(routine: Routine, slot_data: Any, message: Any, state: Any) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        with lock:
            now[0] -= 1

    flow = chain(part(counts).set_concurrency(8), flow=Flow("few", max_workers=2))
    with Runtime(thread_pool_size=8) as runtime:
        runtime.exec(flow)
        for _ in range(300):
            runtime.post(flow, "a", "input", {})
    assert 1 <= most[0] <= 2


# -- execute and its companions ----------------------------------------------------------------------------


def test_execute_runs_to_the_end_and_returns_the_job_state() -> None:
    state = chain(part()).execute("a", {"n": 1})
    assert isinstance(state, JobState)
    assert (state.status, state.error, datas(state)) == ("completed", None, [{"n": 1}])
    assert state.job_id


def test_execute_returns_a_failed_state_with_the_error() -> None:
    def fails(routine: Routine, slot_data: Any, message: Any, state: Any) -> None:
        raise LookupError("gone")

    state = chain(part(fails)).execute(entry_params={})
    assert state.status == "failed"
    assert isinstance(state.error.__cause__, LookupError)


def test_execute_leaves_no_threads_and_the_flow_free() -> None:
    before = set(threading.enumerate())
    flow = chain(part())
    flow.execute(entry_params={})
    assert set(threading.enumerate()) <= before
    assert flow.in_use == 0


@pytest.mark.parametrize("where", ["flow", "call"])
def test_execution_that_takes_longer_than_its_time_out_fails(where: str) -> None:
    async def hangs(routine: Routine, slot_data: Any, message: Any, state: Any) -> None:
        import asyncio

        await asyncio.Event().wait()

    flow = chain(part(hangs), flow=Flow("slow", execution_timeout=0.02 if where == "flow" else None))
    state = flow.execute(entry_params={}, timeout=0.02 if where == "call" else None)
    assert state.status == "failed"
    assert isinstance(state.error, ExecutionTimeoutError)


def test_pause_resume_and_wait_for_completion_delegate_to_the_runtime_that_runs_it(runtime: Runtime) -> None:
    stop = Stop()
    flow = chain(part(stops_at(stop)), part())
    state = runtime.exec(flow, entry_params={"n": 1})
    stop.wait()
    assert flow.wait_for_completion(state, 0.001) is False
    pausing = threading.Thread(target=flow.pause, args=(state,))
    pausing.start()
    stop.open.set()
    pausing.join(SECONDS)
    assert not pausing.is_alive()
    assert state.status == "paused"
    assert datas(state) == []
    flow.resume(state)
    assert flow.wait_for_completion(state, SECONDS) is True
    assert (state.status, datas(state)) == ("completed", [{"n": 1}])


def test_cancel_delegates_to_the_runtime_that_runs_it(runtime: Runtime) -> None:
    stop = Stop()
    flow = chain(part(stops_at(stop)), part())
    state = runtime.exec(flow, entry_params={"n": 1})
    stop.wait()
    flow.cancel(state)
    stop.open.set()
    assert flow.wait_for_completion(state, SECONDS) is True
    assert (state.status, datas(state)) == ("cancelled", [])


@pytest.mark.parametrize("call", ["pause", "resume", "cancel"])
def test_companions_refuse_a_state_that_nobody_runs(call: str, tmp_path: Any, runtime: Runtime) -> None:
    path = str(tmp_path / "state.json")
    flow = chain(part())
    flow.execute(entry_params={}).save(path)
    with pytest.raises(StateError, match="job_state="):
        getattr(flow, call)(JobState.load(path))


# -- cycles ------------------------------------------------------------------------------------------------


def counts_down(routine: Routine, slot_data: Any, message: Any, state: Any) -> None:
    for payload in slot_data["input"]:
        n = payload["n"]
        routine.emit("output" if n else "done", n=n - 1 if n else 0)


def looping(width: int = 1, length: int = 1000) -> Flow:
    """``a`` -> ``b`` -> ``a``; ``b`` emits ``width`` times what it gets."""

    def widens(routine: Routine, slot_data: Any, message: Any, state: Any) -> None:
        for payload in slot_data["input"]:
            for _ in range(width):
                routine.emit("output", **payload)

    flow = Flow("looping")
    flow.add_routine(part(counts_down, events=("output", "done"), max_queue_length=length), "a")
    flow.add_routine(part(widens, max_queue_length=length), "b")
    flow.connect("a", "output", "b", "input")
    flow.connect("b", "output", "a", "input")
    return flow.set_entry("a")


@pytest.mark.parametrize("length", [1, 1000])
def test_cycles_are_allowed_and_end(length: int) -> None:
    state = looping(length=length).execute(entry_params={"n": 2_000})
    assert state.status == "completed"
    assert datas(state) == [{"n": 0}]


@pytest.mark.parametrize("threads", [1, 4])
def test_cycle_that_fills_up_raises_a_dead_lock_error_naming_the_path_within_5_seconds(threads: int) -> None:
    with Runtime(thread_pool_size=threads) as runtime:
        state = runtime.exec(looping(width=2, length=4), entry_params={"n": 1_000_000})
        assert state.wait(SECONDS)
    assert state.status == "failed"
    error = state.error if isinstance(state.error, DeadlockError) else state.error.__cause__
    assert isinstance(error, DeadlockError)
    assert "a.output -> b.input -> b.output -> a.input" in str(error) or (
        "b.output -> a.input -> a.output -> b.input" in str(error)
    )


def test_requester_and_responder() -> None:
    replies: list[Any] = []
    asks = Routine().set_activation_policy(immediate_policy())
    asks.add_slot("input")
    asks.add_slot("reply")
    asks.add_event("request")
    asks.set_logic(
        lambda slot_data, message, state: (
            asks.emit("request", **slot_data["input"][0])
            if slot_data["input"]
            else replies.extend(slot_data["reply"])
        )
    )
    flow = Flow("talk")
    flow.add_routine(asks, "asks")
    flow.add_routine(part(), "answers")
    flow.connect("asks", "request", "answers", "input")
    flow.connect("answers", "output", "asks", "reply")
    assert flow.execute(entry_params={"n": 1}).status == "completed"
    assert replies == [{"n": 1}]


@pytest.mark.parametrize("threads", [1, 2])
def test_diamond_whose_join_can_not_come_raises_instead_of_hanging(threads: int) -> None:
    def only_left(routine: Routine, slot_data: Any, message: Any, state: Any) -> None:
        for n in range(10):
            routine.emit("left", n=n)

    flow = Flow("diamond")
    flow.add_routine(part(only_left, events=("left", "right")), "source")
    join = part(ends_here, slots=("left", "right"), policy=all_slots_ready_policy(), max_queue_length=3)
    flow.add_routine(join, "join")
    for side in ("left", "right"):
        flow.connect("source", side, "join", side)
    with Runtime(thread_pool_size=threads) as runtime:
        state = runtime.exec(flow, entry_params={})
        assert state.wait(SECONDS)
    assert state.status == "failed"
    assert "join.left" in str(state.error)
    cause = state.error if isinstance(state.error, DeadlockError) else state.error.__cause__
    assert isinstance(cause, DeadlockError)


@pytest.mark.parametrize("strategy", ["sequential", "concurrent"])
@pytest.mark.parametrize("threads", [1, 3])
def test_endless_producer_is_held_back_by_a_slot_of_one_even_by_one_thread(
    strategy: str, threads: int
) -> None:
    seen: list[Any] = []
    enough = threading.Event()

    def endless(routine: Routine, slot_data: Any, message: Any, state: Any) -> None:
        n = 0
        while True:
            routine.emit("output", n=n)
            n += 1

    def keeps_some(routine: Routine, slot_data: Any, message: Any, state: Any) -> None:
        seen.extend(payload["n"] for payload in slot_data["input"])
        if len(seen) >= 5_000:
            enough.set()

    flow = chain(
        part(endless), part(keeps_some, max_queue_length=1), flow=Flow("endless", execution_strategy=strategy)
    )
    with Runtime(thread_pool_size=threads) as runtime:
        runtime.exec(flow)
        job = runtime.post(flow, "a", "input", {}).job_context
        assert enough.wait(SECONDS)
        assert flow.routines["b"].stats(runtime.list_workers()[0])["queued"] <= 1
        runtime.cancel(job)
        assert job.wait(SECONDS)
    assert seen == list(range(len(seen)))


# -- pictures ----------------------------------------------------------------------------------------------


def test_pictures_name_every_routine_and_connection() -> None:
    flow = chain(part(), part(keeps([])))
    for text in (flow.to_mermaid(), flow.to_dot()):
        assert '"a"' in text
        assert '"b"' in text
        assert "output" in text
    assert flow.to_mermaid().startswith("flowchart LR")
    assert flow.to_dot().startswith('digraph "chain" {')
    bundle = flow._repr_mimebundle_()
    assert bundle["text/vnd.mermaid"] == flow.to_mermaid()
    assert {"text/plain", "text/html"} <= bundle.keys()
    assert "chain" in bundle["text/plain"]


def test_batches_of_a_one_shot_execution_are_released_at_its_end() -> None:
    seen: list[Any] = []

    def emits(routine: Routine, slot_data: Any, message: Any, state: Any) -> None:
        for n in range(7):
            routine.emit("output", n=n)

    batches = part(lambda r, d, m, s: seen.append(len(d["input"])), policy=batch_size_policy(3))
    assert chain(part(emits), batches).execute(entry_params={}).status == "completed"
    assert seen == [3, 3, 1]
