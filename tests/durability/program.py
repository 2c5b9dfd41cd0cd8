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
from dataclasses import asdict, dataclass, field
from threading import Thread
from typing import Any

from routilux import Runtime
from routilux.errors import QueueFullError, SerializationError
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
    """Logic that fails, and what looks odd about the flow: the log of both is not looked at."""
    return hasattr(record, "follows") or record.getMessage().startswith("flow 'works': ")


def main(orders: Orders) -> None:
    for name in ("routilux", "routilux.failures"):
        logging.getLogger(name).addFilter(lambda record: not expected(record))
    works.World.ledger = Ledger(orders.ledger)
    if orders.fault is not None:
        FAULTS[orders.fault]()
    points.die_at(orders.point, orders.count)
    flow = works.build()
    runtime = Runtime(store=orders.url, durability=orders.durability, thread_pool_size=4)
    state = runtime.exec(flow, worker_id=WORKER)
    say("ready")
    if orders.posts:
        threads = [Thread(target=post, args=(runtime, orders, thread)) for thread in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    drained = runtime.wait_until_all_jobs_finished(timeout=120)
    if not orders.posts:
        say("state", report(runtime, state, drained))
    runtime.shutdown()
    say("closed")


def post(runtime: Runtime, orders: Orders, thread: int) -> None:
    rng = random.Random(f"{orders.seed}/{orders.round}/{thread}")
    for kind, seq in sequences(orders, thread, rng):
        stream = f"t{thread}" if kind == "keyed" else f"r{orders.round}t{thread}"
        work = {"kind": kind, "stream": stream, "seq": seq}
        name = works.name_of(work)
        key = name if kind == "keyed" else None
        try:
            runtime.post("works", *works.ENTRANCES[kind], work, idempotency_key=key)
        except QueueFullError:
            say("refused", name)
        else:
            say("acked", name)
        if rng.random() < 0.02:
            refuse(runtime, work)


def refuse(runtime: Runtime, work: dict[str, Any]) -> None:
    """What has no JSON form is refused, and is then nowhere."""
    odd = {**work, "stream": "refused", "what": object()}
    try:
        runtime.post("works", "first", "input", odd)
    except SerializationError:
        return
    say("accepted what it should refuse", works.name_of(odd))


def sequences(orders: Orders, thread: int, rng: random.Random) -> Iterator[tuple[str, int]]:
    seqs = dict.fromkeys(works.ENTRANCES, 0)
    seqs["keyed"] = orders.keyed[thread]
    kinds = list(seqs)
    for _ in range(orders.posts):
        kind = rng.choice(kinds)
        yield kind, seqs[kind]
        seqs[kind] += 1


def report(runtime: Runtime, state: Any, drained: bool) -> dict[str, Any]:
    letters = runtime.dead_letters(worker=state)
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
        "failed": [str(job.error) for job in runtime.list_jobs(status="failed")],
    }


if __name__ == "__main__":
    main(Orders(**json.loads(sys.argv[1])))
