"""Questions about the graph that a flow's connections make. Nothing here recurses: chains can be long."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from routilux.model.connection import Connection
    from routilux.model.flow import Flow


def successors(flow: Flow) -> dict[str, tuple[str, ...]]:
    """The ids of the routines that each routine feeds, each once, in the order of their connections."""
    following: dict[str, dict[str, None]] = {routine_id: {} for routine_id in flow.routines}
    for connection in flow.connections:
        following[connection.source.routine.routine_id][connection.target.routine.routine_id] = None
    return {routine_id: tuple(ids) for routine_id, ids in following.items()}


def reachable(flow: Flow, roots: Iterable[str]) -> set[str]:
    """The ids of ``roots`` and of all routines that something leads to from there."""
    following = successors(flow)
    found = set(roots)
    waiting = list(found)
    while waiting:
        new = [routine_id for routine_id in following[waiting.pop()] if routine_id not in found]
        found.update(new)
        waiting.extend(new)
    return found


def cycles(flow: Flow) -> list[frozenset[str]]:
    """The sets of routines that are connected in a circle, each as large as possible."""
    following = successors(flow)
    components = _strongly_connected(following)
    return [ids for ids in components if len(ids) > 1 or any(id_ in following[id_] for id_ in ids)]


def same_cycle(flow: Flow) -> dict[str, int]:
    """For each routine in a cycle the number of that cycle; equal numbers mean the same cycle."""
    return {routine_id: number for number, ids in enumerate(cycles(flow)) for routine_id in ids}


def upstream_first(flow: Flow) -> list[str]:
    """All routine ids so that a routine comes before those that it feeds; those of a cycle stay together."""
    place = {routine_id: number for number, routine_id in enumerate(flow.routines)}
    components = _strongly_connected(successors(flow))  # Tarjan closes what is downstream first
    return [routine_id for ids in reversed(components) for routine_id in sorted(ids, key=place.__getitem__)]


def path_between(flow: Flow, start: str, goal: str) -> tuple[Connection, ...]:
    """A shortest way along connections, not empty if it leads back to its start; empty if there is none."""
    outgoing: dict[str, list[Connection]] = {}
    for connection in flow.connections:
        outgoing.setdefault(connection.source.routine.routine_id, []).append(connection)
    arrived_by: dict[str, Connection] = {}
    waiting = deque([start])
    while waiting and goal not in arrived_by:
        for connection in outgoing.get(waiting.popleft(), ()):
            routine_id = connection.target.routine.routine_id
            if routine_id not in arrived_by:
                arrived_by[routine_id] = connection
                waiting.append(routine_id)
    return _way_back(arrived_by, start, goal)


def describe_path(path: Iterable[Connection]) -> str:
    """``"a.out -> b.in -> b.out -> c.in"``."""
    return " -> ".join(str(connection) for connection in path)


def cycle_path(flow: Flow, routine_id: str) -> str | None:
    """A shortest cycle through a routine, as :func:`describe_path` writes it; ``None`` if there is none."""
    return describe_path(path_between(flow, routine_id, routine_id)) or None


def _way_back(arrived_by: Mapping[str, Connection], start: str, goal: str) -> tuple[Connection, ...]:
    path: list[Connection] = []
    at = goal
    while at in arrived_by and (at != start or not path):
        path.append(arrived_by[at])
        at = path[-1].source.routine.routine_id
    return tuple(reversed(path))


def _strongly_connected(following: Mapping[str, Iterable[str]]) -> list[frozenset[str]]:
    """Tarjan's algorithm with a stack of its own."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    open_nodes: dict[str, None] = {}  # in the order of discovery, not yet in a component
    components: list[frozenset[str]] = []
    for root in following:
        if root in index:
            continue
        walk: list[tuple[str, Iterator[str]]] = []
        _enter(root, following, index, low, open_nodes, walk)
        while walk:
            node, rest = walk[-1]
            for successor in rest:
                if successor not in index:
                    _enter(successor, following, index, low, open_nodes, walk)
                    break
                if successor in open_nodes:
                    low[node] = min(low[node], index[successor])
            else:
                walk.pop()
                if walk:
                    low[walk[-1][0]] = min(low[walk[-1][0]], low[node])
                if low[node] == index[node]:
                    components.append(_close(node, open_nodes))
    return components


def _enter(
    node: str,
    following: Mapping[str, Iterable[str]],
    index: dict[str, int],
    low: dict[str, int],
    open_nodes: dict[str, None],
    walk: list[tuple[str, Iterator[str]]],
) -> None:
    index[node] = low[node] = len(index)
    open_nodes[node] = None
    walk.append((node, iter(following[node])))


def _close(node: str, open_nodes: dict[str, None]) -> frozenset[str]:
    component = set()
    while True:
        last, _ = open_nodes.popitem()
        component.add(last)
        if last == node:
            return frozenset(component)
