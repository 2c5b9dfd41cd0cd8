"""Plays one plan again and prints it: ``python -m tests.property.replay joins 123``."""

from __future__ import annotations

import sys

from tests.property.plans import KINDS, draw_plan
from tests.property.stage import check


def main(kind: str, seed: int) -> None:
    plan = draw_plan(seed, KINDS[kind])
    for flow in plan.flows:
        print(flow.flow_id, flow.strategy or "", flow.max_workers or "")
        for routine in flow.routines:
            print("   ", routine)
        for connection in flow.connections:
            print("    {}.{} -> {}.{}".format(*connection))
    ledger = check(seed, KINDS[kind], print)
    print(f"all rules hold: {len(ledger.sent)} items, {len(ledger.jobs)} jobs")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
