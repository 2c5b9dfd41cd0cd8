"""Lanes in a worker, in memory and with a store: what is refused, what goes on, what a reopened store keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from routilux import ErrorHandler, Flow, Runtime, routine
from routilux.activation_policies import batch_size_policy
from routilux.errors import FlowValidationError, InvalidValueError
from routilux.store.memory import MemoryStore
from routilux.testing import SimulatedRuntime


@routine
def source(payload: dict[str, Any]) -> dict[str, Any]:
    return payload


@routine
def audit(**payload: Any) -> dict[str, Any]:
    return payload


@routine(concurrency=4, concurrency_by="customer")
def charge(customer: Any, n: int) -> dict[str, Any]:
    return {"customer": customer, "n": n}


def fanned_out() -> Flow:
    """A source whose items go to two routines, of which the second has lanes."""
    flow = Flow("charges")
    for routine_id, each in (("source", source()), ("audit", audit()), ("charge", charge())):
        flow.add_routine(each, routine_id)
    flow.connect("source", "output", "audit", "input")
    flow.connect("source", "output", "charge", "input")
    return flow


@pytest.fixture(params=["memory", "store"])
def options(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    return {} if request.param == "memory" else {"store": f"sqlite:///{tmp_path}/lanes.db"}


@pytest.mark.parametrize("payload", [{"n": 1}, {"n": 1, "customer": ["a"]}], ids=["missing", "unhashable"])
def test_payload_without_its_key_is_refused_before_anything_is_accepted(
    options: dict[str, Any], payload: dict[str, Any]
) -> None:
    with Runtime(**options) as runtime:
        state = runtime.exec(fanned_out())
        with pytest.raises(InvalidValueError, match="payload key 'customer'"):
            runtime.post("charges", "charge", "input", payload)
        job = runtime.post("charges", "source", "input", {"payload": payload}).job_context
        assert job.wait(30)
        assert (job.status, type(job.error.__cause__)) == ("failed", InvalidValueError)
        assert state.counters("audit")["received"] == 0
        good = runtime.post("charges", "charge", "input", {"customer": "a", "n": 1}).job_context
        assert good.result(30)[0].data == {"customer": "a", "n": 1}


def test_policy_that_is_set_behind_lanes_is_refused_when_the_flow_runs() -> None:
    flow = Flow("batches")
    flow.add_routine(charge().set_activation_policy(batch_size_policy(2)), "charge")
    with Runtime() as runtime, pytest.raises(FlowValidationError, match="may differ in 'customer'"):
        runtime.exec(flow)


def failing(limit: int, by: str | None, ran: list[tuple[str, int]]) -> Flow:
    """The item 1, of customer ``bad``, fails once."""
    failed: list[int] = []

    @routine(concurrency=limit, concurrency_by=by, error_handler=ErrorHandler("retry", retry_delay=600.0))
    def call(customer: str, n: int) -> None:
        if n == 1 and not failed:
            failed.append(n)
            raise ConnectionError(customer)
        ran.append((customer, n))

    flow = Flow("calls")
    flow.add_routine(call(), "call")
    return flow


@pytest.mark.parametrize("stored", [False, True], ids=["memory", "store"])
@pytest.mark.parametrize(
    ("limit", "by", "at_once"),
    [
        (1, None, []),
        (3, None, [("bad", 2), ("good", 3)]),
        (3, "customer", [("good", 3)]),
        (1, "customer", [("good", 3)]),
    ],
)
def test_what_a_retry_holds_back(
    limit: int, by: str | None, at_once: list[tuple[str, int]], stored: bool
) -> None:
    ran: list[tuple[str, int]] = []
    with SimulatedRuntime(**({"store": MemoryStore()} if stored else {})) as runtime:
        runtime.exec(failing(limit, by, ran))
        for n, customer in enumerate(("bad", "bad", "good"), 1):
            runtime.post("calls", "call", "input", {"customer": customer, "n": n})
        runtime.run(seconds=300.0)
        assert sorted(ran) == at_once
        runtime.wait_until_all_jobs_finished()
    assert sorted(ran) == [("bad", 1), ("bad", 2), ("good", 3)]
    if by is not None:
        assert [n for customer, n in ran if customer == "bad"] == [1, 2]


def test_retry_in_a_reopened_store_holds_back_its_key_again() -> None:
    store, ran = MemoryStore(), []
    with SimulatedRuntime(store=store) as runtime:
        runtime.exec(failing(3, "customer", ran), worker_id="w")
        for n, customer in enumerate(("bad", "bad", "good"), 1):
            runtime.post("calls", "call", "input", {"customer": customer, "n": n})
        runtime.run(seconds=10.0)
        runtime.shutdown(wait=False)
    assert ran == [("good", 3)]
    with SimulatedRuntime(store=store) as runtime:
        again: list[tuple[str, int]] = []
        flow = failing(3, "customer", again)
        flow.routines["call"].set_error_handler(ErrorHandler("retry", retry_delay=600.0))
        runtime.exec(flow, worker_id="w")
        runtime.post("calls", "call", "input", {"customer": "good", "n": 4})
        runtime.run(seconds=10.0)
        assert again == [("good", 4)]
        runtime.wait_until_all_jobs_finished()
    assert [n for customer, n in again if customer == "bad"] == [1, 2]
