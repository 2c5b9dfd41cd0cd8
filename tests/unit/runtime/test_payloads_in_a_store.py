"""With a store, a receiver gets what was stored, read back; what cannot be read back fails where it was sent."""

from __future__ import annotations

from typing import Any

import pytest

from routilux import Flow, Runtime, routine
from routilux.errors import SerializationError
from routilux.store.codec import register
from routilux.store.memory import MemoryStore
from routilux.testing import SimulatedRuntime


class Written:
    """Can be written, and not read."""


def _read(form: str) -> Written:
    raise ValueError("no longer known")


register(Written, "tests.Written", encode=lambda written: "written", decode=_read)


@routine
def send(n: int) -> dict[str, Any]:
    return {"value": Written() if n == 1 else [n, (n, {n})]}


@routine
async def send_later(n: int) -> dict[str, Any]:
    return {"value": Written() if n == 1 else [n, (n, {n})]}


@routine
def keep(value: Any) -> dict[str, Any]:
    value.append("changed")
    return {"kept": value}


@pytest.mark.parametrize("sender", [send, send_later], ids=["on a thread", "as a task"])
@pytest.mark.parametrize("threads", [False, True], ids=["simulated", "threads"])
def test_what_can_not_be_read_back_fails_its_sender_and_nothing_else(sender: Any, threads: bool) -> None:
    flow = Flow("sending")
    flow.add_routine(sender(), "send")
    flow.add_routine(keep(), "keep")
    flow.connect("send", "output", "keep", "input")
    make: Any = Runtime if threads else SimulatedRuntime
    with make(store=MemoryStore()) as runtime:
        runtime.exec(flow, worker_id="w")
        jobs = [runtime.post(flow, "send", "input", {"n": n}).job_context for n in range(3)]
        assert all(job.wait(30) for job in jobs)
        assert [job.status for job in jobs] == ["completed", "failed", "completed"]
        assert isinstance(jobs[1].error.__cause__, SerializationError)
        assert [output.data for output in jobs[2].outputs] == [{"kept": [2, (2, {2}), "changed"]}]
        assert [letter.data for letter in runtime.dead_letters()] == [{"n": 1}]
