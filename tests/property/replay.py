"""Plays one plan again and prints it: ``python -m tests.property.replay joins 123``.

With a kind and two seeds it plays all from the first up to the second, and prints one line for each.
"""

from __future__ import annotations

import logging
import sys
from hashlib import sha256

from routilux.ports import Activated, Emitted
from tests.property.plans import KINDS, draw_plan
from tests.property.stage import check


def words(what: object) -> str:
    """What happened, without anything that differs when the same happens again, such as an address."""
    if isinstance(what, Emitted | Activated):
        return str(what._replace(account=what.job_ids))  # type: ignore[arg-type]
    return str(what)


def trace(kind: str, seed: int) -> list[str]:
    """Everything that happens in a run, in order."""
    happened: list[str] = []
    check(seed, KINDS[kind], lambda what: happened.append(words(what)))
    return happened


def summary(kind: str, seed: int) -> str:
    """A line that differs as soon as the runs do."""
    happened = trace(kind, seed)
    digest = sha256("\n".join(happened).encode()).hexdigest()
    return f"{kind} {seed} {len(happened)} {digest[:16]}"


def show(kind: str, seed: int) -> None:
    plan = draw_plan(seed, KINDS[kind])
    for flow in plan.flows:
        print(flow.flow_id, flow.strategy or "", flow.max_workers or "")
        for routine in flow.routines:
            print("   ", routine)
        for connection in flow.connections:
            print("    {}.{} -> {}.{}".format(*connection))
    ledger = check(seed, KINDS[kind], lambda what: print(words(what)))
    print(f"all rules hold: {len(ledger.sent)} items, {len(ledger.jobs)} jobs")


def main(kind: str, seed: int, end: int | None = None) -> None:
    if end is None:
        show(kind, seed)
        return
    logging.disable(logging.CRITICAL)
    for each in range(seed, end):
        print(summary(kind, each))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
