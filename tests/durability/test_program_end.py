"""How programs with a store end while they are busy, and what a fork may do: nothing is cut, nothing is said."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest

from routilux import Runtime
from tests.durability.flows import Copy, Log, flow_of
from tests.durability.killing import ROOT
from tests.processes import interruptible
from tests.waiting import SECONDS

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and fork are those of POSIX")

PRELUDE = """
import atexit, os, signal, sys, threading, time

over, late = threading.Event(), []

@atexit.register  # runs after what the library registers, as it is registered before
def let_the_late_go_on():
    over.set()
    for done in late:
        done.wait(30)

from routilux import Runtime
from routilux.errors import ForkedRuntimeError, StoreLockedError
from tests.durability.flows import Copy, Log, flow_of

posted = [0]

def sleep():
    # In slices: CPython misses a signal that arrives just before its main thread blocks.
    while True:
        time.sleep(0.1)

def post():
    while True:
        try:
            runtime.post(flow, "0", "input", {"n": posted[0]})
        except Exception:
            return
        posted[0] += 1

class Hang(Log):
    def logic(self, slot_data, policy_message, state):
        running.set()
        threading.Event().wait()

class Late(Log):
    '''Goes on when the end has stopped waiting for it.'''
    def logic(self, slot_data, policy_message, state):
        late.append(threading.Event())
        running.set()
        over.wait()
        try:
            super().logic(slot_data, policy_message, state)
        finally:
            late[-1].set()

running = threading.Event()
runtime = Runtime(store=url, thread_pool_size=2)

def end_in_order(*_):
    runtime.shutdown(wait=False)
    sys.exit(0)

def busy(last, on_sigterm=signal.SIG_DFL):
    global flow
    signal.signal(signal.SIGTERM, on_sigterm)
    flow = flow_of(Copy(), Copy(), last)
    runtime.exec(flow, worker_id="worker")
    threading.Thread(target=post, daemon=True).start()
    while posted[0] < 50:
        time.sleep(0.001)
    os.write(1, b"busy\\n")
"""


class Ended(NamedTuple):
    code: int
    err: str


def run(folder: Path, code: str, signum: int | None = None) -> Ended:
    url = f"sqlite:///{folder / 'store.db'}"
    source = f"url = {url!r}\n{PRELUDE}\n{textwrap.dedent(code)}"
    with interruptible():
        process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-c", source],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    if signum is not None and line:
        process.send_signal(signum)
    try:
        _, err = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # shows where its threads are
        _, err = process.communicate()
        raise AssertionError(f"not ended after {SECONDS} s:\n{err}") from None
    return Ended(process.returncode, err)


def is_whole(folder: Path, *, last: type[Log] = Log) -> None:
    """What was left behind goes on, and every number up to the last is there once."""
    with Runtime(store=f"sqlite:///{folder / 'store.db'}") as runtime:
        state = runtime.exec(flow_of(Copy(), Copy(), last()), worker_id="worker", on_flow_change="adopt")
        assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
        done = list(state.shared_log)
        assert len(done) >= 50
        assert done == list(range(len(done)))


ENDS = {
    "the end of main": ("", None, 0),
    "sys.exit": ("sys.exit(3)", None, 3),
    "an exception": ("raise ValueError('on purpose')", None, 1),
    "Ctrl-C": ("sleep()", signal.SIGINT, -signal.SIGINT),
    "Ctrl-C while it drains": ("runtime.shutdown()", signal.SIGINT, -signal.SIGINT),
    "SIGTERM": ("sleep()", signal.SIGTERM, -signal.SIGTERM),
    "SIGTERM that ends it in order": (
        "sleep()",
        signal.SIGTERM,
        0,
    ),
    "a block that is left by an exception": ("with runtime:\n    raise ValueError('on purpose')", None, 1),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_busy_program_ends_and_nothing_is_cut(tmp_path: Path, end: str) -> None:
    code, signum, expected = ENDS[end]
    handler = "end_in_order" if "in order" in end else "signal.SIG_DFL"
    ended = run(tmp_path, f"busy(Log(), {handler})\n{code}", signum)
    assert ended.code == expected
    err = re.sub(r"\A(worker worker is left before|shut down while).*\n", "", ended.err)
    if expected == 1:
        assert err.endswith("ValueError: on purpose\n")
        assert err.count("Traceback") == 1
    elif expected == -signal.SIGINT:
        assert err.endswith("KeyboardInterrupt\n")
        assert err.count("Traceback") == 1
    else:
        assert err == ""
    assert not re.search(r"ignored|Fatal|routilux-\d|StoreError", err)
    is_whole(tmp_path)


@pytest.mark.parametrize("logic", ["Hang", "Late"])
def test_logic_that_does_not_end_with_the_program_is_left_behind_and_runs_again(
    tmp_path: Path, logic: str
) -> None:
    ended = run(tmp_path, f"busy({logic}())\nrunning.wait()")
    assert ended.code == 0
    assert ended.err == "shut down while these routines still ran: 2\n"
    is_whole(tmp_path)


FORKED = """
busy(Log())
state = runtime.get_worker("worker")
child = os.fork()
if child == 0:
    calls = {
        "exec": lambda: runtime.exec(flow),
        "post": lambda: runtime.post(flow, "0", "input", {}),
        "recover": lambda: runtime.recover(),
        "get_job": lambda: runtime.get_job("x"),
        "list_jobs": lambda: runtime.list_jobs(),
        "get_worker": lambda: runtime.get_worker("worker"),
        "list_workers": lambda: runtime.list_workers(),
        "dead_letters": lambda: runtime.dead_letters(),
        "redrive": lambda: runtime.redrive(),
        "wait": lambda: runtime.wait_until_all_jobs_finished(timeout=1),
        "pause": lambda: runtime.pause("worker"),
        "resume": lambda: runtime.resume("worker"),
        "cancel": lambda: runtime.cancel("worker"),
        "stop": lambda: runtime.stop("worker"),
        "health": lambda: runtime.health(),
        "list_running": lambda: runtime.list_running(),
    }
    wrong = []
    for name, call in calls.items():
        try:
            call()
            wrong.append(f"{name} returned")
        except ForkedRuntimeError:
            pass
        except BaseException as error:
            wrong.append(f"{name} raised {error!r}")
    try:
        Runtime(store=url)
        wrong.append("the store was opened twice")
    except StoreLockedError as error:
        if str(os.getppid()) not in str(error):
            wrong.append(f"not the parent's: {error}")
    runtime.shutdown()
    sys.stderr.write("".join(f"{line}\\n" for line in wrong))
    sys.stderr.flush()
    sys.exit(5 if wrong else 0)
_, status = os.waitpid(child, 0)
before = posted[0]
while posted[0] < before + 20:
    time.sleep(0.001)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_forked_child_can_call_nothing_and_the_parent_goes_on_with_its_lock(tmp_path: Path) -> None:
    ended = run(tmp_path, FORKED)
    assert (ended.code, ended.err) == (0, "")
    is_whole(tmp_path)
