"""A program with items that kill it, beside others that do no harm. Its orders: the store, the ledger, how it dies.

It says ``ready`` when the worker is open, and at the end what was done and what was set aside.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import resource
import signal
import sys
import threading
from typing import Any

from routilux import Flow, Routine, Runtime
from routilux.activation_policies import batch_size_policy, immediate_policy
from tests.durability.ledger import Ledger

BESIDE = 0.5
"""Seconds that a harmless item takes where nothing dies beside it: they overlap with the deadly ones."""
harmless_runs = threading.Event()
may_end = threading.Event()
"""Never set: harmless items wait for it, so that they run when the process dies."""


def segfault() -> None:
    ctypes.string_at(0)


def leave() -> None:
    os._exit(7)


def eat() -> None:
    """Beyond the limit of memory the system kills: here that of the stack, which needs no rights."""
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    threading.stack_size(64 * 1024)

    def deeper(compare: Any) -> int:
        array = (ctypes.c_int * 2)(2, 1)
        ctypes.CDLL(None).qsort(array, 2, ctypes.sizeof(ctypes.c_int), compare)
        return 0

    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    compare = kind(lambda a, b: deeper(compare))
    sys.setrecursionlimit(10**6)
    eater = threading.Thread(target=deeper, args=(compare,))
    eater.start()
    eater.join()


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)  # as the system does when memory runs out


DEATHS = {"segfault": segfault, "exit": leave, "stack": eat, "killed": be_killed}


class Work(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        for item in slot_data["input"]:
            self.run(item)
            state.shared_log.append(item["name"])

    def run(self, item: dict[str, Any]) -> None:
        world.note(item["name"], os.getpid())
        if item["name"].startswith("deadly"):
            harmless_runs.wait(2 * BESIDE)
            DEATHS[how]()
        elif self.routine_id == "beside":
            harmless_runs.set()
            may_end.wait(BESIDE)


class Batch(Work):
    def __init__(self) -> None:
        super().__init__()
        self.set_activation_policy(batch_size_policy(2))


class Async(Work):
    async def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        await asyncio.sleep(0)
        super().logic(slot_data, policy_message, state)


KINDS = {"plain": Work, "batch": Batch, "async": Async}


def main(url: str, posts: list[tuple[str, str]], kind: str) -> None:
    flow = Flow("deadly")
    flow.add_routine(KINDS[kind](), "work")
    flow.add_routine(Work(), "beside")
    runtime = Runtime(store=url, thread_pool_size=2)
    state = runtime.exec(flow, worker_id="worker")
    if posts:
        runtime.pause(state)
        for routine, name in posts:
            runtime.post(flow, routine, "input", {"name": name})
        runtime.resume(state)
    drained = runtime.wait_until_all_jobs_finished(timeout=60)
    letters = [[letter.data["name"], letter.reason, letter.error] for letter in runtime.dead_letters()]
    done = sorted(state.shared_log)
    statuses = sorted(job.status.value for job in runtime.list_jobs())
    runtime.shutdown()
    print(json.dumps({"drained": drained, "done": done, "letters": letters, "jobs": statuses}))


if __name__ == "__main__":
    url, ledger, how, kind, posts = sys.argv[1:]
    world = Ledger(ledger)
    main(url, json.loads(posts), kind)
