"""How programs end: interrupted, by themselves, from where nobody expects it, and after a fork.

Each test is a program in a process of its own. What it writes to stderr is compared as a whole, so that nothing like
"Exception ignored in" or "Fatal Python error" gets by. Most would never end if their ends waited for their logic; for
how long they wait at most is shown in tests/unit/runtime/test_grace.py.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from _pytest.mark import ParameterSet

from tests.waiting import SECONDS

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and fork are those of POSIX")

MANY_LIVES = (
    110.0  # seconds for a program that makes a runtime for each line of the library that it comes through
)

PRELUDE = """
import asyncio, atexit, contextvars, os, signal, sys, threading, time
from routilux import Flow, FlowRegistry, Routine, Runtime, current, routine
from routilux.activation_policies import batch_size_policy, immediate_policy
from routilux.errors import ForkedRuntimeError

# What a shell starts in the background, it starts with interrupts ignored, and so are the tests then, and this.
signal.signal(signal.SIGINT, signal.default_int_handler)

class Echo(Routine):
    def __init__(self):
        super().__init__()
        self.add_slot("input")
        self.add_event("output")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data, policy_message, state):
        for payload in slot_data["input"]:
            self.emit("output", **payload)

class Endless(Echo):
    def logic(self, slot_data, policy_message, state):
        running.set()
        n = 0
        while True:
            self.emit("output", n=n)
            n += 1

class EndlessAsync(Echo):
    async def logic(self, slot_data, policy_message, state):
        running.set()
        while True:
            self.emit("output")
            await asyncio.sleep(0)

class Blocked(Echo):
    def logic(self, slot_data, policy_message, state):
        running.set()
        threading.Event().wait()

class BlockedAsync(Echo):
    async def logic(self, slot_data, policy_message, state):
        running.set()
        await asyncio.Event().wait()

class Swallows(Echo):
    '''Will not be stopped by anything.'''
    def logic(self, slot_data, policy_message, state):
        running.set()
        while True:
            try:
                self.emit("output")
                time.sleep(0.001)
            except BaseException:
                pass

class Retries(Echo):
    def logic(self, slot_data, policy_message, state):
        running.set()
        raise ValueError

running = threading.Event()

def flow_of(first, flow_id="endless"):
    flow = Flow(flow_id)
    flow.add_routine(first, "first")
    flow.add_routine(Echo(), "second")
    flow.connect("first", "output", "second", "input")
    return flow

def sleep():
    # In slices: CPython misses a signal that arrives just before its main thread blocks.
    while True:
        time.sleep(0.1)

def say(*words):
    # Not print(), whose buffer must not be entered again by the handler of a signal.
    os.write(1, " ".join(map(str, words)).encode() + b"\\n")

"""


class Ended(NamedTuple):
    code: int
    out: str
    err: str


class Program:
    def __init__(self, code: str, *options: str) -> None:
        source = PRELUDE + textwrap.dedent(code)
        env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        self.process = subprocess.Popen(
            [sys.executable, *options, "-c", source],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**env, "PYTHONDONTWRITEBYTECODE": "1"},
            start_new_session=True,
        )

    def wait_for(self, word: str) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line != f"{word}\n":
            self.process.kill()
            out, err = self.process.communicate()
            raise AssertionError(f"expected {word!r}, got {line!r}{out}\n{err}")

    def interrupt(self, signum: int = signal.SIGINT) -> None:
        self.process.send_signal(signum)

    def end(self, limit: float = SECONDS) -> Ended:
        try:
            out, err = self.process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            out, err = self.process.communicate()
            raise AssertionError(f"not ended after {limit} s; it had written\n{out}\n{err}") from None
        return Ended(self.process.returncode, out, err)


def run(code: str, *options: str) -> Ended:
    return Program(code, *options).end()


def ended_well(ended: Ended, out: str = "", err: str = "") -> bool:
    """``err`` is a pattern."""
    assert re.fullmatch(err, ended.err), ended.err
    assert ended.out == out
    assert ended.code == 0
    return True


# -- Ctrl-C ------------------------------------------------------------------------------------------------

WAITS = {
    "wait_until_all_jobs_finished": "runtime.wait_until_all_jobs_finished()",
    "wait_until_all_jobs_finished with a timeout": "runtime.wait_until_all_jobs_finished(timeout=1000)",
    "job.wait": "job.wait()",
    "job.result": "job.result(1000)",
    "worker.wait": "worker.wait()",
    "pause": "runtime.pause(worker)",
    "user code": "sleep()",
    "user code that computes": "while True: pass",
    "stop": "runtime.stop(worker)",
    "shutdown": "runtime.shutdown()",
}
LOGIC = ["Endless", "EndlessAsync", "Blocked", "BlockedAsync", "Swallows"]


def every_pair(names: list[str], others: list[str]) -> list[ParameterSet]:
    """All pairs; those that have the first of neither run with the long proofs only."""
    return [
        pytest.param(name, other, marks=() if name == names[0] or other == others[0] else pytest.mark.full)
        for name in names
        for other in others
    ]


@pytest.mark.parametrize(("wait", "logic"), every_pair([*WAITS], LOGIC))
def test_interrupted_program_is_gone_with_the_traceback_of_its_main_thread_only(
    wait: str, logic: str
) -> None:
    program = Program(
        f"""
        with Runtime(thread_pool_size=2) as runtime:
            flow = flow_of({logic}())
            worker = runtime.exec(flow)
            _, job = runtime.post(flow, "first", "input", {{}})
            running.wait()
            say("running")
            {WAITS[wait]}
        """
    )
    program.wait_for("running")
    program.interrupt()
    ended = program.end()
    assert ended.code == -signal.SIGINT
    assert ended.out == ""
    assert only_a_keyboard_interrupt(ended.err), ended.err


STILL_RAN = r"shut down while these routines still ran: [\w, ]+\n"
LOST = r"the runtime was shut down with work left: .*\n"


def only_a_keyboard_interrupt(err: str) -> bool:
    """One traceback; log lines that name what was lost, and what still ran, may stand beside it."""
    rest = re.sub(f"{LOST}|{STILL_RAN}", "", err)
    return rest.startswith("Traceback (most recent call last):\n") and rest.count("Traceback") == 1 and (
        rest.endswith("\nKeyboardInterrupt\n") and not re.search(r"ignored|Fatal|Error|routilux-\d", rest)
    )  # fmt: skip


@pytest.mark.parametrize("times", [2, 5])
def test_impatient_user_who_interrupts_again_and_again_gets_out_too(times: int) -> None:
    program = Program(
        """
        with Runtime(thread_pool_size=2) as runtime:
            flow = flow_of(Swallows())
            runtime.exec(flow)
            runtime.post(flow, "first", "input", {})
            running.wait()
            say("running")
            runtime.wait_until_all_jobs_finished()
        """
    )
    program.wait_for("running")
    for _ in range(times):
        program.interrupt()
        if program.process.poll() is None:
            time.sleep(0.05)  # a finger needs that long
    ended = program.end()
    assert ended.code == -signal.SIGINT
    assert not re.search(r"Fatal|Exception ignored", ended.err), ended.err


def test_interrupted_program_without_a_with_block_is_gone() -> None:
    program = Program(
        """
        runtime = Runtime(thread_pool_size=2)
        flow = flow_of(Endless())
        runtime.exec(flow)
        runtime.post(flow, "first", "input", {})
        running.wait()
        say("running")
        runtime.wait_until_all_jobs_finished()
        """
    )
    program.wait_for("running")
    program.interrupt()
    ended = program.end()
    assert ended.code == -signal.SIGINT
    assert only_a_keyboard_interrupt(ended.err), ended.err


def test_interrupted_flow_execute_is_gone() -> None:
    program = Program(
        """
        threading.Thread(target=lambda: (running.wait(), say("running"))).start()
        flow_of(Endless()).execute("first")
        """
    )
    program.wait_for("running")
    program.interrupt()
    ended = program.end()
    assert ended.code == -signal.SIGINT
    assert only_a_keyboard_interrupt(ended.err), ended.err


def test_interrupted_post_that_waits_for_room_is_gone_and_has_posted_nothing() -> None:
    program = Program(
        """
        runtime = Runtime(thread_pool_size=1, max_queue_size=1)
        flow = flow_of(Echo())
        worker = runtime.exec(flow)
        runtime.pause(worker)
        runtime.post(flow, "first", "input", {})
        try:
            say("running")
            runtime.post(flow, "first", "input", {})
        except KeyboardInterrupt:
            say(len(runtime.list_jobs()))
            runtime.resume(worker)
            say(runtime.wait_until_all_jobs_finished())
        """
    )
    program.wait_for("running")
    program.interrupt()
    assert ended_well(program.end(), "1\nTrue\n")


def test_program_that_catches_the_interrupt_goes_on_with_the_same_runtime() -> None:
    program = Program(
        """
        with Runtime(thread_pool_size=2) as runtime:
            flow = flow_of(BlockedAsync())
            runtime.exec(flow)
            _, job = runtime.post(flow, "first", "input", {})
            running.wait()
            try:
                say("running")
                job.wait()
            except KeyboardInterrupt:
                runtime.cancel(job)
            _, job = runtime.post(flow, "second", "input", {"n": 1})
            say(job.result()[0].data)
        """
    )
    program.wait_for("running")
    program.interrupt()
    assert ended_well(program.end(), "{'n': 1}\n")


def test_interrupted_async_program_is_gone() -> None:
    program = Program(
        """
        async def main():
            async with Runtime(thread_pool_size=1) as runtime:
                flow = flow_of(BlockedAsync())
                runtime.exec(flow)
                _, job = await runtime.apost(flow, "first", "input", {})
                await asyncio.to_thread(running.wait)
                say("running")
                await job

        asyncio.run(main())
        """
    )
    program.wait_for("running")
    program.interrupt()
    ended = program.end()
    assert ended.code == -signal.SIGINT
    assert ended.err.endswith("\nKeyboardInterrupt\n")
    assert not re.search(r"ignored|Fatal|routilux-\d", ended.err)


def test_sigterm_ends_a_program_at_once_as_it_ends_any_other() -> None:
    program = Program(
        """
        with Runtime(thread_pool_size=2) as runtime:
            flow = flow_of(Endless())
            runtime.exec(flow)
            runtime.post(flow, "first", "input", {})
            running.wait()
            say("running")
            runtime.wait_until_all_jobs_finished()
        """
    )
    program.wait_for("running")
    program.interrupt(signal.SIGTERM)
    ended = program.end()
    assert (ended.code, ended.err) == (-signal.SIGTERM, "")


# -- by itself ---------------------------------------------------------------------------------------------

FAILED = r"routine 'first' of flow 'endless' failed in attempt \d+: .*\nTraceback .*\n(  .*\n)+ValueError\n"
STILL_RAN = r"shut down while these routines still ran: [\w, ]+\n"
LOST_BY_STOP = r"(the runtime was shut down|worker '\w+' of flow '\w+' was stopped) with work left: .*\n"
NOT_ENDED = r"not all jobs have ended: .*\n(  - .*\n)+"

LEFT_BEHIND = {
    "running jobs": 'runtime.post(flow, "first", "input", {}); running.wait()',
    "nothing posted": "",
    "finished jobs": 'runtime.post(flow, "second", "input", {}).job_context.wait()',
    "queued jobs": 'for _ in range(500): runtime.post(flow, "second", "input", {})',
    "paused worker": 'runtime.pause(worker); runtime.post(flow, "second", "input", {})',
    "raised exception": 'runtime.post(flow, "first", "input", {}); running.wait(); sys.exit(0)',
}


@pytest.mark.parametrize(("left", "logic"), every_pair([*LEFT_BEHIND], [*LOGIC, "Retries"]))
def test_program_that_never_shuts_down_ends_by_itself_and_cleanly(left: str, logic: str) -> None:
    ended = run(
        f"""
        runtime = Runtime(thread_pool_size=2)
        flow = flow_of({logic}())
        worker = runtime.exec(flow)
        {LEFT_BEHIND[left]}
        """
    )
    assert (ended.code, ended.out) == (0, "")
    assert re.fullmatch(rf"({FAILED}|{LOST}|{STILL_RAN})*", ended.err), ended.err
    if left in ("nothing posted", "finished jobs"):
        assert ended.err == ""
    if left == "paused worker":
        dropped = "1 open job cancelled (queued: second.input 1)"
        assert ended.err == f"the runtime was shut down with work left: {dropped}\n"


def test_program_with_a_runtime_in_a_reference_cycle_ends_cleanly() -> None:
    code = """
        class Holder: pass
        holder = Holder()
        holder.runtime = Runtime(thread_pool_size=1)
        holder.self = holder
        holder.runtime.exec(flow_of(Echo()))
        del holder
        """
    assert ended_well(run(code, "-X", "dev"))


def test_program_that_leaves_its_runtime_in_a_module_ends_cleanly_in_development_mode() -> None:
    code = """
        runtime = Runtime(thread_pool_size=4)
        flow = flow_of(EndlessAsync())
        runtime.exec(flow)
        runtime.post(flow, "first", "input", {})
        running.wait()
        """
    ended = run(code, "-X", "dev")
    assert ended.code == 0
    assert not re.search(r"ignored|Fatal|Traceback|ResourceWarning|never awaited", ended.err), ended.err


def test_program_of_many_runtimes_ends_cleanly() -> None:
    code = """
        runtimes = [Runtime(thread_pool_size=2) for _ in range(20)]
        for number, runtime in enumerate(runtimes):
            flow = flow_of(Blocked(), f"flow {number}")
            runtime.exec(flow)
            runtime.post(flow, "first", "input", {})
        """
    ended = run(code)
    assert ended.code == 0
    assert not re.search(r"ignored|Fatal|Traceback", ended.err)


def test_work_that_ends_soon_ends_before_the_program_does() -> None:
    """No logic is cut in the middle, if it needs less than the grace, here lengthened for a busy machine."""
    code = """
        from routilux.runtime import runtime as module
        module.GRACE_SECONDS = 50.0
        ending = threading.Event()
        atexit.register(ending.set)  # comes before the library's, which was registered earlier
        class Slow(Echo):
            def logic(self, slot_data, policy_message, state):
                running.set()
                ending.wait()
                say("whole")
        runtime = Runtime(thread_pool_size=1)
        flow = flow_of(Slow())
        runtime.exec(flow)
        runtime.post(flow, "first", "input", {})
        running.wait()
        """
    assert ended_well(run(code), "whole\n", LOST)


# -- shutdown from everywhere ------------------------------------------------------------------------------


def test_shutdown_twice_and_from_many_threads_at_once_does_it_once() -> None:
    code = """
        runtime = Runtime(thread_pool_size=2)
        flow = flow_of(Echo())
        worker = runtime.exec(flow)
        for n in range(100):
            runtime.post(flow, "first", "input", {"n": n})
        results = []
        threads = [threading.Thread(target=lambda: results.append(runtime.shutdown())) for _ in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        say(results == [True] * 8, runtime.shutdown(), worker.status, {job.status.value for job in runtime.list_jobs()})
        """
    assert ended_well(run(code), "True True stopped {'completed'}\n")


def test_shutdown_from_atexit() -> None:
    code = """
        runtime = Runtime(thread_pool_size=2)
        flow = flow_of(Echo())
        worker = runtime.exec(flow)
        @atexit.register
        def end():
            for n in range(100):
                runtime.post(flow, "first", "input", {"n": n})
            say(runtime.shutdown(), worker.status, {job.status.value for job in runtime.list_jobs()})
        """
    assert ended_well(run(code), "True stopped {'completed'}\n")


def test_shutdown_from_atexit_registered_before_the_import_comes_last_and_does_no_harm() -> None:
    source = """
import atexit
runtimes = []
atexit.register(lambda: print([runtime.shutdown() for runtime in runtimes]))
from routilux import Flow, Runtime, routine
@routine
def echo(n): return {"n": n}
flow = Flow("f"); flow.add_routine(echo(), "echo")
runtimes.append(Runtime(thread_pool_size=1)); runtimes[0].exec(flow)
runtimes[0].post(flow, "echo", "input", {"n": 1})
"""
    process = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert (process.returncode, process.stdout) == (0, "[True]\n")
    assert re.fullmatch(rf"({LOST})?", process.stderr)  # the job, if it had not ended yet


@pytest.mark.parametrize(
    "how", ["runtime.shutdown()", "runtime.shutdown(wait=False)", "runtime.shutdown(timeout=5)"]
)
@pytest.mark.parametrize("kind", ["", "async "])
def test_shutdown_from_a_routine_returns_at_once_and_the_program_ends(how: str, kind: str) -> None:
    code = f"""
        class Ends(Echo):
            {kind}def logic(self, slot_data, policy_message, state):
                say("before")
                {how}
                say("after")
        runtime = Runtime(thread_pool_size=1)
        flow = flow_of(Ends())
        worker = runtime.exec(flow)
        runtime.post(flow, "first", "input", {{}})
        worker.wait()
        say(runtime.shutdown(), worker.status)
        """
    ended = run(code)
    assert (ended.code, ended.err) == (0, "")
    assert sorted(ended.out.splitlines()) == ["True stopped", "after", "before"]


@pytest.mark.parametrize(
    "wait", ["runtime.wait_until_all_jobs_finished()", "job.wait()", "worker.wait()", "sleep()"]
)
def test_shutdown_from_a_signal_handler_ends_the_wait_that_it_interrupted(wait: str) -> None:
    program = Program(
        f"""
        runtime = Runtime(thread_pool_size=2)
        flow = flow_of(EndlessAsync())
        worker = runtime.exec(flow)
        _, job = runtime.post(flow, "first", "input", {{}})
        running.wait()
        def handler(signum, frame):
            say("stopping", runtime.shutdown(wait=False))
            if {wait == "sleep()"}:
                sys.exit(0)
        signal.signal(signal.SIGTERM, handler)
        say("running")
        {wait}
        say("over", worker.status, job.status)
        """
    )
    program.wait_for("running")
    program.interrupt(signal.SIGTERM)
    over = "" if wait == "sleep()" else "over stopped cancelled\n"
    ended = program.end()
    assert (ended.code, ended.out) == (0, f"stopping True\n{over}")
    assert re.fullmatch(LOST, ended.err), ended.err


def test_shutdown_from_a_signal_handler_in_the_middle_of_posting() -> None:
    program = Program(
        """
        from routilux.errors import StateError
        runtime = Runtime(thread_pool_size=1)
        flow = flow_of(Echo())
        runtime.exec(flow)
        signal.signal(signal.SIGTERM, lambda signum, frame: runtime.shutdown(wait=False))
        say("running")
        try:
            while True:
                runtime.post(flow, "first", "input", {})
        except StateError as error:
            say("closed")
        """
    )
    program.wait_for("running")
    program.interrupt(signal.SIGTERM)
    ended = program.end()
    assert (ended.code, ended.out) == (0, "closed\n")
    assert re.fullmatch(rf"({LOST})?", ended.err), ended.err


@pytest.mark.parametrize(
    "stops", ["runtime.shutdown(wait=False)", "runtime.shutdown()", "runtime.stop(worker)"]
)
@pytest.mark.parametrize(
    "step",
    [
        'runtime.post(flow, "second", "input", {})',
        "runtime.exec(other)",
        "runtime.pause(worker)",
        "runtime.cancel(job)",
        "runtime.stop(worker)",
        "runtime.shutdown()",
        "job.wait()",
        "runtime.list_jobs()",
    ],
)
def test_handler_of_a_signal_may_stop_between_any_two_lines_of_the_library(step: str, stops: str) -> None:
    """The line that is interrupted may hold a lock that is needed to stop: nothing must wait for that."""
    code = f"""
        from routilux.errors import RoutiluxError

        def interrupted_after(lines):
            left = lines
            def trace(frame, event, argument):
                nonlocal left
                if not frame.f_globals.get("__name__", "").startswith("routilux"):
                    return None
                if event == "line":
                    left -= 1
                    if left == 0:
                        sys.settrace(None)
                        {stops}
                return trace
            runtime = Runtime(thread_pool_size=1)
            flow, other = flow_of(Echo()), flow_of(Echo(), "other")
            worker = runtime.exec(flow)
            job = runtime.post(flow, "first", "input", {{}}).job_context
            sys.settrace(trace)
            try:
                {step}
            except RoutiluxError:
                pass
            finally:
                sys.settrace(None)
            runtime.shutdown()
            return left > 0

        lines = 1
        while not interrupted_after(lines):
            lines += 1
        say("ended")
        """
    ended = Program(code).end(MANY_LIVES)
    assert re.fullmatch(rf"({STILL_RAN}|{NOT_ENDED}|{LOST_BY_STOP})*", ended.err), ended.err
    assert (ended.out, ended.code) == ("ended\n", 0)


# -- fork --------------------------------------------------------------------------------------------------

CALLS = {
    "exec": "runtime.exec(other)",
    "exec one-shot": "runtime.exec(other, entry_params={})",
    "post": 'runtime.post(flow, "first", "input", {})',
    "wait_until_all_jobs_finished": "runtime.wait_until_all_jobs_finished()",
    "job.wait": "job.wait()",
    "job.result": "job.result()",
    "worker.wait": "worker.wait()",
    "worker.save": 'worker.save("/dev/null")',
    "pause worker": "runtime.pause(worker)",
    "pause job": "runtime.pause(job)",
    "resume": "runtime.resume(worker)",
    "cancel": "runtime.cancel(job)",
    "stop": "runtime.stop(worker)",
    "redrive": "runtime.redrive()",
    "with": "runtime.__enter__()",
    "get_job": "runtime.get_job(job.job_id)",
    "list_jobs": "runtime.list_jobs()",
    "get_worker": "runtime.get_worker(worker.worker_id)",
    "list_workers": "runtime.list_workers()",
    "dead_letters": "runtime.dead_letters()",
    "set_gate": 'runtime.set_gate(worker, "first", None)',
    "apost": 'asyncio.run(runtime.apost(flow, "first", "input", {}))',
    "ajoin": "asyncio.run(runtime.ajoin())",
}

FORKS = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, about forking with threads
runtime = Runtime(thread_pool_size=2)
flow, other = flow_of(BlockedAsync()), flow_of(Echo(), "other")
worker = runtime.exec(flow)
_, job = runtime.post(flow, "first", "input", {})
running.wait()
child = os.fork()
if child == 0:
    CHILD
else:
    _, status = os.waitpid(child, 0)
    say("parent", os.waitstatus_to_exitcode(status), job.status, worker.status)
    say(runtime.post(flow, "second", "input", {"n": 1}).job_context.result(60)[0].data)
    runtime.cancel(job)
    runtime.shutdown()
"""


def forks(child: str) -> str:
    return FORKS.replace("CHILD", textwrap.indent(textwrap.dedent(child), "    ").strip())


@pytest.mark.parametrize("call", CALLS)
def test_every_call_in_a_forked_child_raises_and_the_child_exits_cleanly(call: str) -> None:
    child = f"""
        try:
            {CALLS[call]}
            say("child: no error")
        except ForkedRuntimeError as error:
            say("create a Runtime in the child" in str(error))
        """
    assert ended_well(run(forks(child)), "True\nparent 0 running running\n{'n': 1}\n")


def test_forked_child_may_leave_the_with_block_of_its_parent() -> None:
    """Nothing of it is there to be shut down, and the child has asked for nothing else."""
    child = """
        say(runtime.__exit__(None, None, None), runtime.shutdown())
        """
    assert ended_well(run(forks(child)), "None True\nparent 0 running running\n{'n': 1}\n")


def test_forked_child_can_use_a_runtime_of_its_own() -> None:
    child = """
        with Runtime(thread_pool_size=1) as mine:
            say("child", mine.exec(other, entry="first", entry_params={"n": 2}).wait(60))
        """
    assert ended_well(run(forks(child)), "child True\nparent 0 running running\n{'n': 1}\n")


def test_forked_child_can_change_a_flow_that_lives_in_the_parent_only() -> None:
    """The parent's workers do not exist in the child."""
    child = """
        with Runtime(thread_pool_size=1) as mine:
            flow.disconnect("first", "output", "second", "input")
            say("child", mine.exec(flow, entry="second", entry_params={"n": 2}).wait(60))
        """
    assert ended_well(run(forks(child)), "child True\nparent 0 running running\n{'n': 1}\n")


def test_child_forked_inside_a_routine_ends_cleanly() -> None:
    code = """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        class Forks(Echo):
            def logic(self, slot_data, policy_message, state):
                child = os.fork()
                if child == 0:
                    try:
                        self.emit("output", n=1)
                    except ForkedRuntimeError:
                        os._exit(7)
                    os._exit(1)
                _, status = os.waitpid(child, 0)
                self.emit("output", code=os.waitstatus_to_exitcode(status))
        with Runtime(thread_pool_size=1) as runtime:
            flow = flow_of(Forks())
            runtime.exec(flow)
            say(runtime.post(flow, "first", "input", {}).job_context.result(60)[0].data)
        """
    assert ended_well(run(code), "{'code': 7}\n")


@pytest.mark.parametrize("kind", ["Echo", "AsyncEcho"])
def test_child_forked_inside_a_routine_can_wait_for_a_runtime_of_its_own(kind: str) -> None:
    code = """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        def forks(emit):
            child = os.fork()
            if child == 0:
                with Runtime(thread_pool_size=1) as mine:
                    flow = flow_of(Echo(), "mine")
                    mine.exec(flow)
                    job = mine.post(flow, "first", "input", {"n": 1}).job_context
                    code = 7 if job.wait(60) and mine.wait_until_all_jobs_finished(60) else 8
                os._exit(code)
            _, status = os.waitpid(child, 0)
            emit("output", code=os.waitstatus_to_exitcode(status))
        class Plain(Echo):
            def logic(self, slot_data, policy_message, state):
                forks(self.emit)
        class Async(Echo):
            async def logic(self, slot_data, policy_message, state):
                forks(self.emit)
        with Runtime(thread_pool_size=1) as runtime:
            flow = flow_of(KIND())
            runtime.exec(flow)
            say(runtime.post(flow, "first", "input", {}).job_context.result(60)[0].data)
        """
    code = code.replace("KIND", "Async" if kind == "AsyncEcho" else "Plain")
    assert ended_well(run(code), "{'code': 7}\n")


def test_child_forked_inside_a_routine_ends_when_the_logic_does() -> None:
    """Its one thread is that of the pool, which has nothing to do there."""
    code = """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        class Forks(Echo):
            def logic(self, slot_data, policy_message, state):
                child = os.fork()
                if child:
                    os.waitpid(child, 0)
                    self.emit("output", n=1)
        with Runtime(thread_pool_size=1) as runtime:
            flow = flow_of(Forks())
            runtime.exec(flow)
            say(runtime.post(flow, "first", "input", {}).job_context.result(60)[0].data)
        """
    assert ended_well(run(code), "{'n': 1}\n")


def test_runtime_made_after_a_fork_of_a_busy_parent_works() -> None:
    """Locks of the library that were held at the moment of the fork are not needed in the child."""
    code = """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        runtime = Runtime(thread_pool_size=4)
        flow, other = flow_of(EndlessAsync()), flow_of(Echo(), "other")
        runtime.exec(flow)
        runtime.post(flow, "first", "input", {})
        codes = []
        for _ in range(20):
            child = os.fork()
            if child == 0:
                with Runtime(thread_pool_size=2) as mine:
                    state = mine.exec(other, entry="first", entry_params={"n": 1})
                    code = 5 if state.wait(60) and state.outputs[0].data == {"n": 1} else 6
                os._exit(code)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        say(codes == [5] * 20)
        runtime.shutdown(wait=False)
        """
    assert ended_well(run(code), "True\n", LOST)


def test_multiprocessing_with_fork_ends_cleanly_with_a_runtime_in_the_parent() -> None:
    code = """
        import multiprocessing, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        runtime = Runtime(thread_pool_size=2)
        runtime.exec(flow_of(Echo()))
        with multiprocessing.get_context("fork").Pool(2) as pool:
            say(pool.map(abs, [-1, -2]))
        """
    assert ended_well(run(code), "[1, 2]\n")


def test_seed_of_the_introduction_ends_by_itself() -> None:
    code = (Path(__file__).with_name("seeds") / "introduction.txt").read_text(encoding="utf-8")
    block = code.rpartition("```python\n")[2].removesuffix("```\n")
    ended = Program(block + '\nsay("end")\n').end()
    assert ended_well(ended, "end\n")
