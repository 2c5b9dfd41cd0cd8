"""The program that is killed. It takes its orders as JSON: see ``Orders``.

To its output it writes a line for everything that the world may rely on: ``ready``, then ``acked``, ``refused`` or
``unknown`` with the name of a piece of work; at the end of a drain, what is in the state.
"""

from __future__ import annotations

import json
import logging
import os
import random
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from threading import Event, Thread
from typing import Any

from routilux import Runtime
from routilux.errors import (
    ExecutionTimeoutError,
    QueueFullError,
    SerializationError,
    StateError,
    StoreError,
    StoreUnknownError,
)
from routilux.ports import Store
from routilux.runtime.journal import committer
from routilux.store.postgres import PostgresStore
from routilux.store.urls import open_store
from tests.durability import points, works
from tests.durability.faults import FAULTS
from tests.durability.ledger import Ledger

THREADS = 3
WORKER = "worker"


@dataclass
class Orders:
    url: str
    ledger: str
    durability: str
    round: int
    seed: int
    posts: int
    """How many each thread posts at most; 0: drain instead."""
    keyed: list[int] = field(default_factory=list)
    """Where each thread goes on with its stream of posts that have a key."""
    point: str | None = None
    count: int = 1
    fault: str | None = None

    def text(self) -> str:
        return json.dumps(asdict(self))


def say(*words: Any) -> None:
    os.write(1, (json.dumps(words) + "\n").encode())  # one write: whole lines only


def expected(record: logging.LogRecord) -> bool:
    """Logic that fails, what looks odd about the flow, a server that was stopped, and posts that wait while an item
    that may be poison runs alone: the log does not matter."""
    usual = ("flow 'works': ", "the store postgresql:", "error ignored", "a post or emit has waited 5 s")
    return hasattr(record, "follows") or record.getMessage().startswith(usual)


def main(orders: Orders) -> None:
    for name in ("routilux", "routilux.failures", "psycopg"):
        logging.getLogger(name).addFilter(lambda record: not expected(record))
    works.World.ledger = Ledger(orders.ledger)
    if orders.fault is not None:
        FAULTS[orders.fault]()
    points.die_at(orders.point, orders.count)
    committer.PRUNE_RECORDS, committer.KEEP_FINISHED_JOBS = 300, 100
    flow = works.build()
    runtime = works.World.runtime = Runtime(store=opened(orders), thread_pool_size=4)
    state = runtime.exec(flow, worker_id=WORKER)
    left = runtime.recover(flows=[works.build_night()]).not_reopened
    if left:
        say("not reopened", left)
    say("ready")
    over = Event()
    if orders.posts:
        threads = [Thread(target=post, args=(runtime, orders, thread)) for thread in range(THREADS)]
        meddler = Thread(target=meddle, args=(runtime, state, orders, over))
        for thread in (*threads, meddler):
            thread.start()
        for thread in threads:
            thread.join()
        over.set()
        meddler.join()
        with suppress(StoreError):
            go_on(runtime, state)
            runtime.wait_until_all_jobs_finished(timeout=120)
    else:
        say("state", report(runtime, state, drain(runtime, state)))
    runtime.shutdown()
    say("closed")


def opened(orders: Orders) -> Store:
    if orders.url.startswith("sqlite"):
        return open_store(orders.url, durability=orders.durability)
    # Who comes with the same name takes over at once: the one before is dead.
    return PostgresStore(orders.url, durability=orders.durability, owner="killed")


def post(runtime: Runtime, orders: Orders, thread: int) -> None:
    rng = random.Random(f"{orders.seed}/{orders.round}/{thread}")
    for kind, seq in sequences(orders, thread, rng):
        stream = f"t{thread}" if kind == "keyed" else f"r{orders.round}t{thread}"
        work = {"kind": kind, "stream": stream, "seq": seq}
        name = works.name_of(work)
        key = name if kind == "keyed" else None
        say(accepted(runtime, kind, work, key), name)
        if rng.random() < 0.02:
            refuse(runtime, work)


def accepted(runtime: Runtime, kind: str, work: dict[str, Any], key: str | None) -> str:
    while True:
        try:
            if kind == "night":
                begin_night(runtime, work)
            else:
                runtime.post(
                    "works", *works.ENTRANCES[kind], work, metadata={"kind": kind}, idempotency_key=key
                )
        except StoreUnknownError:
            if key is None and kind != "night":
                return "unknown"
        except QueueFullError:
            return "refused"
        except StoreError:
            if kind != "night":
                return "refused"
        else:
            return "acked"


def begin_night(runtime: Runtime, work: dict[str, Any]) -> None:
    """An execution, which is asked for once more: that is the same one."""
    night, name = works.build_night(), works.name_of(work)
    for _ in range(2):
        runtime.exec(night, entry_params=work, entry="night.input", job_id=name)


def meddle(runtime: Runtime, state: Any, orders: Orders, over: Event) -> None:
    """Pauses the worker and its jobs, lets them go on, and drives dead letters again."""
    rng = random.Random(f"{orders.seed}/{orders.round}/meddler")
    while not over.wait(rng.uniform(0, 0.05)):
        with suppress(StoreError):
            jobs = [
                job
                for job in runtime.list_jobs(status="running", worker=state, limit=20)
                if job.metadata.get("kind") not in works.ORDERED  # others pass what is paused
            ]
            with suppress(ExecutionTimeoutError, StateError):  # it still runs, or has ended
                runtime.pause(rng.choice([state, *jobs]), timeout=0.01)
        with suppress(StoreError):
            go_on(runtime, state)
            drive_again(runtime, state)


def go_on(runtime: Runtime, state: Any) -> None:
    """Whatever is paused, also by the program before."""
    jobs = [job for job in runtime.list_jobs(worker=state) if job.paused]
    for target in (state, *jobs):
        with suppress(StateError):  # the job has ended
            runtime.resume(target)


def drive_again(runtime: Runtime, state: Any) -> bool:
    """Whether there was a letter that may be driven again."""
    letters = [letter for letter in runtime.dead_letters(worker=state) if letter.reason != "poison"]
    for letter in letters:
        with suppress(StateError, QueueFullError):
            runtime.redrive(letter, timeout=1.0)
    return bool(letters)


def drain(runtime: Runtime, state: Any) -> bool:
    go_on(runtime, state)
    while runtime.wait_until_all_jobs_finished(timeout=120):
        if not drive_again(runtime, state):
            return True
    return False


def refuse(runtime: Runtime, work: dict[str, Any]) -> None:
    """What has no JSON form is refused, and is then nowhere."""
    odd = {**work, "stream": "refused", "what": object()}
    try:
        runtime.post("works", "first", "input", odd)
    except SerializationError:
        return
    say("accepted what it should refuse", works.name_of(odd))


def sequences(orders: Orders, thread: int, rng: random.Random) -> Iterator[tuple[str, int]]:
    seqs = dict.fromkeys([*works.ENTRANCES, "night"], 0)
    seqs["keyed"] = orders.keyed[thread]
    kinds = list(seqs)
    for _ in range(orders.posts):
        kind = rng.choice(kinds)
        yield kind, seqs[kind]
        seqs[kind] += 1


def report(runtime: Runtime, state: Any, drained: bool) -> dict[str, Any]:
    letters = runtime.dead_letters()  # those of executions too
    tally = state.get_routine_state("tally", {})
    faults = sorted(tally.pop("faults", []))
    return {
        "drained": drained,
        "tally": tally,
        "faults": faults,
        "log": list(state.shared_log),
        "tokens": dict(state.shared_data),
        "letters": [[works.name_of(letter.data), letter.reason, letter.error] for letter in letters],
        "open": [job.job_id for one in ("pending", "running") for job in runtime.list_jobs(status=one)],
        "failed": [[job.job_id, str(job.error)] for job in runtime.list_jobs(status="failed")],
    }


if __name__ == "__main__":
    main(Orders(**json.loads(sys.argv[1])))
