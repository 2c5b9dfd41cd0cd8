"""Plays one run again and prints it: ``python -m tests.durability.replay joins 123``.

With a kind and two seeds it plays all from the first up to the second, and prints those that break a rule.
"""

from __future__ import annotations

import logging
import sys
import traceback
from time import process_time

from tests.durability.kinds import KINDS, draw_run
from tests.durability.lives import check


def show(kind: str, seed: int) -> None:
    plan, fate = draw_run(seed, KINDS[kind])
    print(fate)
    for flow in plan.flows:
        print(flow.flow_id, flow.strategy or "", flow.max_workers or "")
        for routine in flow.routines:
            print("   ", routine)
        for connection in flow.connections:
            print("    {}.{} -> {}.{}".format(*connection))
    witness = check(seed, KINDS[kind], print)
    print(f"all rules hold: {witness.started} activations, {len(witness.acknowledged)} posts acknowledged")


def search(kind: str, seed: int, end: int) -> None:
    logging.disable(logging.CRITICAL)
    begun, broken = process_time(), 0
    for each in range(seed, end):
        try:
            check(each, KINDS[kind])
        except Exception as error:
            broken += 1
            last = traceback.format_exception(error)[-4:]
            print(
                f"{kind} {each}: {type(error).__name__}: {str(error)[:300]}",
                *last[:-1] if "-v" in sys.argv else (),
            )
    each_ms = (process_time() - begun) / (end - seed) * 1_000
    print(f"{kind}: {end - seed} seeds, {broken} broken, {each_ms:.1f} ms each")


if __name__ == "__main__":
    kind, *seeds = (argument for argument in sys.argv[1:] if not argument.startswith("-"))
    if len(seeds) == 1:
        show(kind, int(seeds[0]))
    else:
        for each in KINDS if kind == "all" else [kind]:
            search(each, *map(int, seeds))
