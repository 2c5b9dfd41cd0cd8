"""A document as a tree of nodes that know their place, within limits that hold before anything is built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple, NoReturn, TypeAlias

from routilux.dsl.problems import Place, Report, value

MAX_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 40
MAX_NODES: Final = 10_000
MAX_ROUTINES: Final = 2_000
MAX_CONNECTIONS: Final = 10_000
MAX_INTEGER: Final = 2**53 - 1  # what every reader of JSON keeps exactly

Path: TypeAlias = tuple[str | int, ...]


class Bad(NamedTuple):
    """Stands for what has been reported already; nothing more is said about it."""


class Node:
    """``data`` is a scalar, a list of nodes, or a dict of name to :class:`Entry`; or :class:`Bad`."""

    __slots__ = ("data", "place", "path")
    data: Any
    place: Place
    path: Path

    def __init__(self, data: Any, place: Place, path: Path) -> None:
        self.data, self.place, self.path = data, place, path

    @property
    def is_bad(self) -> bool:
        return isinstance(self.data, Bad)

    @property
    def entries(self) -> Mapping[str, Entry]:
        """Of a mapping; of anything else none."""
        return self.data if isinstance(self.data, dict) else {}

    @property
    def items(self) -> list[Node]:
        """Of a list; of anything else none."""
        return self.data if isinstance(self.data, list) else []

    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.data, dict):
            return {name: entry.node.plain() for name, entry in self.data.items()}
        if isinstance(self.data, list):
            return [node.plain() for node in self.data]
        return None if self.is_bad else self.data

    def has_bad(self) -> bool:
        children = [*self.items, *(entry.node for entry in self.entries.values())]
        return self.is_bad or any(child.has_bad() for child in children)

    def find(self, path: Path) -> tuple[Node, Place]:
        """The node that a path leads to, or the last one on the way; and the place of its key, if it has one."""
        node, place = self, self.place
        for step in path:
            if isinstance(step, int) and isinstance(node.data, list) and step < len(node.data):
                node = node.data[step]
                place = node.place
            elif isinstance(step, str) and step in node.entries:
                entry = node.entries[step]
                node, place = entry.node, entry.place
            else:
                break
        return node, place


class Entry(NamedTuple):
    """One entry of a mapping; ``place`` is the key's."""

    place: Place
    node: Node


def path_text(path: Path) -> str:
    """``routines.fetch.config[0]``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{_cut(step)}"
    return text.removeprefix(".")


def _cut(step: str) -> str:
    return step if len(step) <= 60 else f"{step[:59]}…"


class Tree:
    """Grows the tree from the events of a reader: ``scalar``, ``open``, ``close``. Without recursion.

    A limit that is passed ends it with :class:`DslError` at once; whatever else is wrong is collected.
    """

    def __init__(self, report: Report) -> None:
        self.report = report
        self.root: Node | None = None
        self._open: list[tuple[Node, _Key | None]] = []
        self._key: _Key | None = None
        self._count = 0

    def scalar(self, data: Any, place: Place) -> None:
        """A value, or the key of a mapping."""
        if self._wants_key:
            self._take_key(data, place)
        else:
            self._put(Node(self._checked(data, place), place, self._path()))

    def open(self, kind: type[dict[str, Any]] | type[list[Any]], place: Place) -> None:
        if self._wants_key:
            self.stop(
                "key-not-text", place, "a key of a mapping is text, not a list or a mapping", "quote it"
            )
        node = Node(kind(), place, self._path())
        self._put(node)
        self._open.append((node, None))
        if len(self._open) > MAX_DEPTH:
            self.stop(
                "too-deep", place, f"nesting deeper than {MAX_DEPTH} levels", "make the document flatter"
            )

    def close(self) -> None:
        node, _ = self._open.pop()
        self._key = None
        if not self._open:
            self.root = node

    def problem(self, code: str, place: Place, message: str, fix: str = "") -> None:
        self.report.add(code, place, path_text(self._path()), message, fix)

    def stop(self, code: str, place: Place, message: str, fix: str = "") -> NoReturn:
        """The problem that ends the reading."""
        self.report.add(code, place, path_text(self._path()), message, fix)
        raise self.report.error()

    @property
    def _wants_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1][0].data, dict) and self._key is None

    def _path(self) -> Path:
        if not self._open:
            return ()
        parent = self._open[-1][0]
        if isinstance(parent.data, list):
            return (*parent.path, len(parent.data))
        name = None if self._key is None else self._key.name
        return parent.path if name is None else (*parent.path, name)

    def _take_key(self, data: Any, place: Place) -> None:
        self._counted(place)
        parent = self._open[-1][0]
        self._key = _Key(None, place)
        if isinstance(data, Bad):
            return
        problem = scalar_problem(data)
        if problem:
            self.problem(problem[0], place, *problem[1:])
        elif not isinstance(data, str):
            self.problem("key-not-text", place, f"a key of a mapping is text, got {value(data)}", "quote it")
        elif data in parent.data:
            first = parent.data[data].place
            at = f"line {first.line}" if first.line else "before"
            message = f"duplicate key {value(data)} in line {place.line}; it is in {at} already"
            self.problem("duplicate-key", place, message, "remove one of the two, or merge them")
        else:
            self._key = _Key(data, place)

    def _put(self, node: Node) -> None:
        self._counted(node.place)
        if not self._open:
            self.root = node
            return
        parent = self._open[-1][0]
        if isinstance(parent.data, list):
            parent.data.append(node)
            return
        if self._key is not None and self._key.name is not None:
            parent.data[self._key.name] = Entry(self._key.place, node)
        self._key = None

    def _counted(self, place: Place) -> None:
        self._count += 1
        if self._count > MAX_NODES:
            self.stop(
                "too-many-nodes", place, f"more than {MAX_NODES:,} nodes", "split it into several flows"
            )

    def _checked(self, data: Any, place: Place) -> Any:
        problem = scalar_problem(data)
        if problem:
            self.problem(problem[0], place, *problem[1:])
            return Bad()
        return data


class _Key(NamedTuple):
    name: str | None  # None: reported, and what belongs to it is left out
    place: Place


def scalar_problem(data: object) -> tuple[str, str, str] | None:
    """Code, message and fix for a scalar that no document may hold."""
    if type(data) is int and abs(data) > MAX_INTEGER:
        return (
            "number-out-of-range",
            "a whole number beyond ±(2^53 - 1), which JSON does not keep exactly",
            "quote it",
        )
    if type(data) is float and not abs(data) < float("inf"):
        return "number-out-of-range", f"number out of range: expected a finite number, got {data}", ""
    if type(data) is str and _lone_surrogate(data):
        return "bad-text", "half of a surrogate pair, which is no character", "write the character itself"
    return None


def _lone_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def tree_of(data: object, report: Report) -> Node:
    """The tree of plain Python data, under the same limits; what is no plain data is reported."""
    tree = Tree(report)
    nowhere = Place()
    for action, given in _walk(data):
        if action == "close":
            tree.close()
        elif action == "open":
            tree.open(given, nowhere)
        elif type(given) in (str, int, float, bool, type(None)):
            tree.scalar(given, nowhere)
        else:
            kind = type(given).__name__
            message = f"expected text, a number, true, false, null, a list or a mapping, got {value(given)} ({kind})"
            tree.problem("unsupported-value", nowhere, message, "write it as one of these")
            tree.scalar(Bad(), nowhere)
    assert tree.root is not None
    return tree.root


def _walk(data: object) -> Iterator[tuple[str, Any]]:
    """Without recursion, lazily: the caller that takes the steps stops at the limits, so cycles end too."""
    waiting: list[tuple[str, Any]] = [("value", data)]
    while waiting:
        action, given = waiting.pop()
        if action == "close":
            yield action, None
        elif isinstance(given, Mapping):
            yield "open", dict
            waiting.append(("close", None))
            for key, each in reversed(list(islice(given.items(), MAX_NODES + 1))):
                waiting += [("value", each), ("key", key)]
        elif isinstance(given, (list, tuple)) and action == "value":
            yield "open", list
            waiting.append(("close", None))
            waiting += [("value", each) for each in reversed(given[: MAX_NODES + 1])]
        else:
            yield "scalar", given
