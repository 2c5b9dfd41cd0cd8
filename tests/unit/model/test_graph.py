from __future__ import annotations

import random

from routilux.model.flow import Flow
from routilux.model.graph import (
    cycle_path,
    cycles,
    describe_path,
    path_between,
    reachable,
    same_cycle,
    successors,
)
from tests.unit.model.samples import Step, chain, table

Edges = list[tuple[int, int]]


def graph(size: int, edges: Edges) -> Flow:
    flow = Flow("g")
    for number in range(size):
        flow.add_routine(Step(), str(number))
    for source, target in edges:
        flow.connect(str(source), "output", str(target), "input")
    return flow


CYCLES: list[tuple[int, Edges, list[set[str]]]] = [
    (0, [], []),
    (3, [(0, 1), (1, 2)], []),
    (1, [(0, 0)], [{"0"}]),
    (3, [(0, 1), (1, 0), (1, 2)], [{"0", "1"}]),
    (4, [(0, 1), (1, 0), (2, 3), (3, 2)], [{"0", "1"}, {"2", "3"}]),
    (4, [(0, 1), (1, 2), (2, 0), (2, 3), (3, 1)], [{"0", "1", "2", "3"}]),
    (3, [(0, 1), (0, 2), (1, 2)], []),
]


@table(("size", "edges", "expected"), CYCLES)
def test_cycles_are_as_large_as_possible(size: int, edges: Edges, expected: list[set[str]]) -> None:
    found = cycles(graph(size, edges))
    assert sorted(map(sorted, found)) == sorted(map(sorted, expected))


def test_cycles_agree_with_reachability_on_random_graphs() -> None:
    for seed in range(60):
        chance = random.Random(seed)
        size = chance.randint(1, 9)
        pairs = [(a, b) for a in range(size) for b in range(size) if chance.random() < 0.2]
        flow = graph(size, pairs)
        after = {id_: reachable(flow, successors(flow)[id_]) for id_ in flow.routines}
        number = same_cycle(flow)
        for a in flow.routines:
            for b in flow.routines:
                together = b in after[a] and a in after[b]
                assert together == (a in number and number.get(a) == number.get(b)), (seed, a, b)
            assert (cycle_path(flow, a) is not None) == (a in after[a]), (seed, a)


def test_a_long_chain_and_a_long_cycle_do_not_recurse() -> None:
    flow = chain(*map(str, range(10_000)))
    assert (cycles(flow), len(path_between(flow, "0", "9999"))) == ([], 9_999)
    flow.connect("9999", "output", "0", "input")
    assert cycles(flow) == [frozenset(flow.routines)]
    assert len(path_between(flow, "5", "5")) == 10_000


def test_a_path_is_a_shortest_one_and_can_be_read() -> None:
    flow = graph(4, [(0, 1), (1, 2), (2, 3), (0, 2), (3, 0)])
    path = path_between(flow, "0", "3")
    assert describe_path(path) == "0.output -> 2.input -> 2.output -> 3.input"
    assert cycle_path(flow, "1") == (
        "1.output -> 2.input -> 2.output -> 3.input -> 3.output -> 0.input -> 0.output -> 1.input"
    )
    assert (path_between(flow, "0", "x"), cycle_path(chain("a", "b"), "a")) == ((), None)
    assert flow.cycle_path("0") == cycle_path(flow, "0")


def test_neighbours_are_named_once() -> None:
    flow = chain("a", "b")
    flow.routines["b"].add_slot("other")
    flow.connect("a", "output", "b", "other")
    assert (successors(flow), reachable(flow, ["b"])) == ({"a": ("b",), "b": ()}, {"b"})
