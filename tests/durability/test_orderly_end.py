"""An orderly end leaves what runs exactly as a kill does: nothing of it is recorded, and it runs again.

Each end is a program of its own on a SQLite store, with an activation in a worker and a one-shot execution, both in
their second attempt. ``kill -9`` is one of the ends, and all the others have to leave the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from routilux import ErrorHandler, Flow, Routine, Runtime, current
from routilux.activation_policies import immediate_policy
from tests.durability.killing import ROOT
from tests.waiting import SECONDS

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")

PRELUDE = """
import asyncio, atexit, os, signal, sys, threading, time
from routilux import current, Runtime
from tests.durability.test_orderly_end import flow_of

# What a shell starts in the background, it starts with interrupts ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
begun = threading.Semaphore(0)

def begin():
    if current().attempt == 1:
        raise ValueError("the first attempt fails")
    begun.release()

async def waits(n):
    begin()
    await asyncio.Event().wait()

async def returns(n):
    begin()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        current().state.shared_log.append("too late")

async def emits(n):
    begin()
    try:
        await asyncio.Event().wait()
    finally:
        current().state.shared_log.append("too late")

async def raises(n):
    begin()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise OSError("the connection was closed") from None

async def checkpoints(n):
    begin()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await current().acheckpoint("too late")

def plain(n):
    begin()
    threading.Event().wait()

def posts(n):
    begin()
    while True:
        current().state.runtime.post("f", "r", "input", {"n": 9})

def open_():
    global runtime
    runtime = Runtime(store=url, thread_pool_size=4)
    flow = flow_of(globals()[logic])
    runtime.exec(flow, worker_id="w")
    runtime.post(flow, "r", "input", {"n": 1}, idempotency_key="key")
    runtime.exec(flow, entry_params={"n": 2}, job_id="b")
    begun.acquire()
    begun.acquire()
    runtime.list_jobs()  # waits until the failures of the first attempts are written
    os.write(1, b"begun\\n")
"""
ENDS = {
    "kill -9": "open_(); os.kill(os.getpid(), signal.SIGKILL)",
    "Ctrl-C": "open_(); signal.raise_signal(signal.SIGINT)",
    "a handler of SIGTERM": """
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        open_(); signal.raise_signal(signal.SIGTERM); time.sleep(60)
    """,
    "a handler that shuts down": """
        signal.signal(signal.SIGTERM, lambda *_: runtime.shutdown(wait=False))
        open_(); signal.raise_signal(signal.SIGTERM)
    """,
    "sys.exit": "open_(); sys.exit(0)",
    "the end of the program": "open_()",
    "shutdown(wait=False)": "open_(); runtime.shutdown(wait=False)",
    "shutdown(timeout=)": "open_(); runtime.shutdown(timeout=0.2)",
    "stop(drain=False)": "open_(); runtime.stop('w', drain=False, timeout=0.2); runtime.shutdown(wait=False)",
    "stop(timeout=)": "open_(); runtime.stop('w', timeout=0.2); runtime.shutdown(wait=False)",
    "a block that is left by an exception": """
        open_()
        with runtime:
            raise ValueError("on purpose")
    """,
    "a cancelled application": """
        async def main():
            open_()
            async with runtime:
                asyncio.current_task().cancel()
                await asyncio.sleep(60)
        try:
            asyncio.run(main())
        except asyncio.CancelledError:
            pass
    """,
}
ASYNC = ["waits", "returns", "emits", "raises", "checkpoints"]


def flow_of(logic: Any) -> Flow:
    flow = Flow("f")
    routine = Routine()
    routine.add_slot("input")
    routine.set_activation_policy(immediate_policy())
    routine.set_error_handler(ErrorHandler("retry", retry_delay=0.0, max_retries=3))
    if logic.__name__ in (*ASYNC, "finish_async"):

        async def run_async(slot_data: Any, message: Any, state: Any) -> None:
            await logic(slot_data["input"][0]["n"])

        routine.set_logic(run_async)
    else:
        routine.set_logic(lambda slot_data, message, state: logic(slot_data["input"][0]["n"]))
    flow.add_routine(routine, "r")
    return flow


def ended(folder: Path, end: str, logic: str) -> str:
    """Run a program to its end; the URL of the store that it leaves."""
    url = f"sqlite:///{folder / 'store.db'}"
    source = f"url, logic = {url!r}, {logic!r}\n{PRELUDE}\n{textwrap.dedent(ENDS[end])}"
    done = subprocess.run(
        [sys.executable, "-c", source],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.stdout == "begun\n", done.stderr
    assert "ignored" not in done.stderr
    return url


def found(url: str) -> Any:
    """What the next process finds, and what becomes of it: attempts, keys, log, letters, and how the jobs end."""
    attempts: dict[int, tuple[int, str]] = {}

    def finish(n: int) -> None:
        attempts[n] = current().attempt, current().idempotency_key("x").partition("/")[2]
        current().state.shared_log.append(f"done {n}")

    with Runtime(store=url) as runtime:
        flow = flow_of(finish)
        worker = runtime.exec(flow, worker_id="w")
        execution = runtime.exec(flow, entry_params={"n": 2}, job_id="b")
        job = runtime.post(flow, "r", "input", {"n": 1}, idempotency_key="key").job_context
        assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
        return {
            "attempts": attempts,
            "logs": [list(worker.shared_log), list(execution.shared_log)],
            "jobs": [(one.status.value, one.errors) for one in (job, execution.job)],
            "traces": [[entry["action"] for entry in one.trace_log] for one in (job, execution.job)],
            "letters": runtime.dead_letters(),
        }


AS_AFTER_A_KILL = {
    "logs": [["done 1"], ["done 2"]],
    "jobs": [("completed", []), ("completed", [])],
    "traces": [["retry"], ["retry"]],
    "letters": [],
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("logic", ["waits", "plain"])
def test_every_end_leaves_what_runs_as_a_kill_does(tmp_path: Path, end: str, logic: str) -> None:
    left = found(ended(tmp_path, end, logic))
    attempts = left.pop("attempts")
    assert {n: attempt for n, (attempt, _) in attempts.items()} == {1: 2, 2: 2}, json.dumps(attempts)
    assert left == AS_AFTER_A_KILL


SOME_ENDS = ["shutdown(wait=False)", "stop(drain=False)", "sys.exit"]


@pytest.mark.parametrize("end", SOME_ENDS)
@pytest.mark.parametrize("logic", ASYNC[1:])
def test_what_logic_does_about_the_end_is_discarded(tmp_path: Path, end: str, logic: str) -> None:
    left = found(ended(tmp_path, end, logic))
    attempts = left.pop("attempts")
    assert {n: attempt for n, (attempt, _) in attempts.items()} == {1: 2, 2: 2}
    assert left == AS_AFTER_A_KILL


@pytest.mark.parametrize("end", SOME_ENDS)
def test_logic_that_fails_because_a_call_is_refused_at_the_end_has_not_failed(
    tmp_path: Path, end: str
) -> None:
    left = found(ended(tmp_path, end, "posts"))
    assert left["attempts"][1][0] == 2
    assert left["jobs"][0] == ("completed", [])
    assert left["logs"][0].count("done 1") == 1
    assert left["traces"][0] == ["retry"]
