"""What a document says, checked as far as that goes without making a routine."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar, get_args

from routilux.dsl.classes import Resolver
from routilux.dsl.nodes import MAX_CONNECTIONS, MAX_ROUTINES, Bad, Node, Path, path_text
from routilux.dsl.problems import Place, Report, value
from routilux.dsl.registry import RoutineRegistry, RoutineType
from routilux.errors import ConfigurationError, describe
from routilux.expressions import ExpressionError
from routilux.expressions import compile as compile_expression
from routilux.model.config import ConfigField, check_config, declared_fields, fields_of
from routilux.model.flow import STRATEGIES
from routilux.model.names import checked_name
from routilux.model.policy import (
    POLICY_NAMES,
    POLICY_NEEDS,
    POLICY_OPTIONS,
    ActivationPolicy,
    policy_from_dict,
)
from routilux.model.recovery import ErrorHandler
from routilux.model.routine import Routine, checked_seconds

T = TypeVar("T")

VERSION: Final = 1
TOP_KEYS: Final = (
    "version", "flow_id", "description", "execution", "error_handler", "entry", "routines", "connections",
)  # fmt: skip
ROUTINE_KEYS: Final = (
    "class", "description", "config", "activation", "error_handler", "concurrency", "timeout", "slots",
)  # fmt: skip
EXECUTION_KEYS: Final = ("strategy", "max_workers", "timeout")
SLOT_KEYS: Final = ("max_queue_length", "watermark", "on_full")
CONCURRENCY_KEYS: Final = ("limit", "by")
CONNECTION_KEYS: Final = ("from", "to", "mapping")
_CODE_KEYS: Final = ("logic", "code", "handler", "lambda", "eval", "exec", "script", "python")
_CODE: Final = re.compile(r"\s*(lambda\b|def\b|async\s+def\b|import\b|from\s+\S+\s+import\b|__import__)")


class RoutineDraft(NamedTuple):
    """What a document says about one routine; ``type`` is missing if its part of the document is not sound."""

    id: str
    key: Place
    node: Node
    type: RoutineType | None
    config: dict[str, Any]
    policy: ActivationPolicy | None
    error_handler: ErrorHandler | None


class ConnectionDraft(NamedTuple):
    node: Node
    source: tuple[str, str]
    target: tuple[str, str]
    mapping: dict[str, Any] | None


class Draft(NamedTuple):
    """A document that has been looked at; what is wrong with it is in the report."""

    root: Node
    flow_id: str
    execution: Mapping[str, Any]
    error_handler: ErrorHandler | None
    routines: Sequence[RoutineDraft]
    connections: Sequence[ConnectionDraft]
    entry: tuple[str, str | None] | None


class Shape:
    """Reads a tree into a :class:`Draft`; reports whatever is not as it should be."""

    def __init__(self, report: Report, registry: RoutineRegistry, resolver: Resolver) -> None:
        self._report, self._registry, self._resolver = report, registry, resolver

    def draft(self, root: Node) -> Draft:
        if not isinstance(root.data, dict):
            message = (
                f"expected a mapping with 'version', 'flow_id' and 'routines', got {value(root.plain())}"
            )
            self.problem("wrong-type", root, message, "begin with 'version: 1'")
            raise self._report.error()
        self._keys(root, TOP_KEYS, required=("version", "flow_id", "routines"))
        self._version(root)
        self._text(root, "description")
        routines = self._routines(root)
        ids = {draft.id for draft in routines}
        return Draft(
            root,
            self._flow_id(root),
            self._execution(root),
            self._error_handler(root),
            routines,
            self._connections(root, ids),
            self._entry(root, ids),
        )

    # -- top -----------------------------------------------------------------------------------------------

    def _version(self, root: Node) -> None:
        node = _child(root, "version")
        if node is None or node.is_bad:
            return
        if type(node.data) is not int or node.data != VERSION:
            message = f"expected version {VERSION}, got {value(node.plain())}"
            self.problem("bad-version", node, message, f"write 'version: {VERSION}'")

    def _flow_id(self, root: Node) -> str:
        node = _child(root, "flow_id")
        if node is None or node.is_bad:
            return "flow"
        name = self._attempt(node, lambda: checked_name("flow", node.plain(), dots=True))
        return self._ascii(name, node.place, node.path) if name else "flow"

    def _execution(self, root: Node) -> dict[str, Any]:
        node = self._mapping(root, "execution")
        if node is None:
            return {}
        self._keys(node, EXECUTION_KEYS)
        given = {name: _sound(_child(node, name)) for name in EXECUTION_KEYS}
        strategy = _child(node, "strategy")
        if strategy is not None and not strategy.is_bad and given["strategy"] not in STRATEGIES:
            message = f"no execution strategy {value(given['strategy'])}"
            self.problem("invalid-value", strategy, message, f"write {' or '.join(STRATEGIES)}")
            given["strategy"] = None
        if not self._count(node, "max_workers"):
            given["max_workers"] = None
        if not self._seconds(node):
            given["timeout"] = None
        return given

    def _entry(self, root: Node, ids: Collection[str]) -> tuple[str, str | None] | None:
        node = _child(root, "entry")
        if node is None or node.is_bad:
            return None
        parts = node.data.split(".") if isinstance(node.data, str) else []
        if not 1 <= len(parts) <= 2 or not all(parts):
            message = f"expected 'routine' or 'routine.slot', got {value(node.plain())}"
            self.problem("bad-end", node, message)
            return None
        if not self._is_routine(node, parts[0], ids):
            return None
        return parts[0], (parts[1] if len(parts) == 2 else None)

    # -- routines ------------------------------------------------------------------------------------------

    def _routines(self, root: Node) -> list[RoutineDraft]:
        node = self._mapping(root, "routines")
        if node is None:
            return []
        if len(node.data) > MAX_ROUTINES:
            message = f"{len(node.data):,} routines, more than {MAX_ROUTINES:,}"
            self.problem("too-many-routines", node, message, "split it into several flows")
            raise self._report.error()
        if not node.data:
            self.problem("empty-flow", node, "a flow has at least one routine", "add one")
        return [self._routine(name, entry.place, entry.node) for name, entry in node.data.items()]

    def _routine(self, name: str, key: Place, node: Node) -> RoutineDraft:
        path: Path = ("routines", name)
        if self._attempt(node, lambda: checked_name("routine", name), key, path):
            self._ascii(name, key, path)
        if not isinstance(node.data, dict):
            if not node.is_bad:
                message = f"expected a mapping with 'class', got {value(node.plain())}"
                self.problem("wrong-type", node, message, "write {class: name}")
            return RoutineDraft(name, key, node, None, {}, None, None)
        self._keys(node, ROUTINE_KEYS, required=("class",), key=key)
        self._text(node, "description")
        self._concurrency(node)
        self._seconds(node)
        self._slots(node)
        kind = self._class(node)
        config = self._mapping(node, "config")
        sound = kind is not None and self._config(kind, node, config, key)
        if kind is not None and kind.routine_class is Routine:
            sound = False  # to be imported if the rest of the document is sound: it cannot be made yet
        return RoutineDraft(
            name,
            key,
            node,
            kind if sound else None,
            {} if config is None else config.plain(),
            self._activation(node),
            self._error_handler(node),
        )

    def _concurrency(self, routine: Node) -> None:
        node = _child(routine, "concurrency")
        if node is None or node.is_bad or not isinstance(node.data, dict):
            self._count(routine, "concurrency")
            return
        self._keys(node, CONCURRENCY_KEYS, required=CONCURRENCY_KEYS)
        self._count(node, "limit")
        by = _child(node, "by")
        if by is not None and not by.is_bad and (not isinstance(by.data, str) or not by.data):
            message = f"expected a payload key, got {value(by.plain())}"
            self.problem("wrong-type", by, message, "write {limit: 20, by: customer}")

    def _class(self, routine: Node) -> RoutineType | None:
        node = _child(routine, "class")
        if node is None or node.is_bad:
            return None
        found = self._resolver.resolve(node.data if isinstance(node.data, str) else node.plain())
        if isinstance(found, RoutineType):
            return found
        near = self._report.near(node.data, found.known)
        self.problem(found.code, node, found.message, found.fix, near)
        return None

    def _config(self, kind: RoutineType, routine: Node, node: Node | None, key: Place) -> bool:
        """Whether the config is what the class declares."""
        here = routine.path
        if node is None and "config" in routine.entries:
            return False
        given = {} if node is None else node.plain()
        whole = routine if node is None else node
        if node is not None and node.has_bad():
            return False
        values = {**kind.config, **given}
        refused = {problem[0] for problem in self._expressions(kind, node)}
        sound = not refused
        for problem in check_config(kind.routine_class, values):
            if any(problem.path == path[: len(problem.path)] for path in refused):
                continue
            sound = False
            found, place = whole.find(problem.path) if node is not None else (routine, key)
            if problem.kind not in ("unknown", "missing"):
                place = found.place
            path = path_text((*here, "config", *problem.path))
            fix = {"unknown": "correct or remove it", "missing": f"add {problem.path[-1]!r}"}.get(
                problem.kind, ""
            )
            self._report.add(f"config-{problem.kind}", place, path, problem.message, fix, problem.nearest)
        return sound

    def _expressions(self, kind: RoutineType, config: Node | None) -> list[tuple[Path, ExpressionError]]:
        """The expressions that are none, reported."""
        fields = declared_fields(kind.routine_class)
        if config is None or not fields:
            return []
        wrong = []
        for node, path in _expression_nodes(fields, config, ()):
            try:
                compile_expression(node.data)
            except ExpressionError as error:
                wrong.append((path, error))
                message = f"{error.problem} (column {error.column} of {value(node.data)})"
                self.problem("bad-expression", node, message, error.fix)
        return wrong

    def _activation(self, routine: Node) -> ActivationPolicy | None:
        node = _child(routine, "activation")
        if node is None or node.is_bad:
            return None
        if not isinstance(node.data, dict):
            if not self._refuse_code(node):
                message = f"expected a mapping, got {value(node.plain())}"
                self.problem("wrong-type", node, message, "write {policy: immediate}")
            return None
        if node.has_bad():
            return None
        policy = _child(node, "policy")
        if policy is None:
            known = ", ".join(self._registry.policy_names())
            self.problem("missing-key", node, "'policy' is missing", f"name one of {known}")
            return None
        if not isinstance(policy.data, str) or policy.data not in self._registry.policy_names():
            if not self._refuse_code(policy):
                near = self._report.near(policy.plain(), self._registry.policy_names())
                message = f"no activation policy {value(policy.plain())} that a document can name"
                self.problem("unknown-policy", policy, message, near=near)
            return None
        if policy.data in POLICY_NAMES:
            return self._known_policy(node, policy.data)
        return self._attempt(node, lambda: self._policy(node.plain()), codes=True)

    def _known_policy(self, node: Node, name: str) -> ActivationPolicy | None:
        """A policy of ours, whose options are looked at one by one, so that every problem is reported."""
        needed = POLICY_NEEDS.get(name, {})
        options = POLICY_OPTIONS[name]
        sound = self._keys(node, ("policy", *options), required=tuple(needed))
        for key, entry in node.entries.items():
            if key not in options:
                continue
            setting = {"policy": name} | needed | {key: entry.node.plain()}
            try:
                policy_from_dict(setting)
            except ConfigurationError as error:
                sound = False
                self.problem(code_of(error), entry.node, _in_a_document(str(error)))
        return policy_from_dict(node.plain()) if sound else None

    def _policy(self, data: dict[str, Any]) -> ActivationPolicy:
        name = data["policy"]
        options = {key: each for key, each in data.items() if key != "policy"}
        make = self._registry.policy(name)
        try:
            made = make(**options)
        except (ConfigurationError, TypeError, ValueError):
            raise
        except Exception as error:  # the code of the user that registered it
            raise ConfigurationError(f"policy {name!r} cannot be made: {describe(error)}") from error
        if not isinstance(made, ActivationPolicy):
            raise ConfigurationError(f"policy {name!r} made {value(made)}, which is no activation policy")
        return made

    def _error_handler(self, parent: Node) -> ErrorHandler | None:
        node = self._mapping(parent, "error_handler")
        if node is None or node.has_bad():
            return None
        sound, where = self._keys(node, ErrorHandler.__slots__), node
        for name, entry in node.entries.items():
            if name in ErrorHandler.__slots__:
                setting = {"strategy": "retry"} | {name: entry.node.plain()}
                made = self._attempt(entry.node, lambda each=setting: ErrorHandler.from_dict(each))  # type: ignore[misc]
                sound = sound and made is not None
                where = entry.node if where is node and name != "strategy" else where
        # Each is sound by itself: together they are refused if the first is one that the strategy does not use.
        return self._attempt(where, lambda: ErrorHandler.from_dict(node.plain())) if sound else None

    def _slots(self, routine: Node) -> None:
        node = self._mapping(routine, "slots")
        if node is None:
            return
        for name, entry in node.entries.items():
            if isinstance(entry.node.data, dict):
                self._keys(entry.node, SLOT_KEYS)
            elif not entry.node.is_bad:
                message = f"expected a mapping, got {value(entry.node.plain())}"
                fix = f"write {value(name)}: {{max_queue_length: 1000}}"
                self.problem("wrong-type", entry.node, message, fix)

    # -- connections ---------------------------------------------------------------------------------------

    def _connections(self, root: Node, ids: Collection[str]) -> list[ConnectionDraft]:
        node = _child(root, "connections")
        if node is None or node.is_bad or node.data is None:
            return []
        if not isinstance(node.data, list):
            message = f"expected a list, got {value(node.plain())}"
            self.problem("wrong-type", node, message, "write '- {from: a.output, to: b.input}'")
            return []
        if len(node.data) > MAX_CONNECTIONS:
            message = f"{len(node.data):,} connections, more than {MAX_CONNECTIONS:,}"
            self.problem("too-many-connections", node, message, "split it into several flows")
            raise self._report.error()
        drafts = [self._connection(each, ids) for each in node.items]
        return [draft for draft in drafts if draft is not None]

    def _connection(self, node: Node, ids: Collection[str]) -> ConnectionDraft | None:
        if not isinstance(node.data, dict):
            if not node.is_bad:
                message = f"expected a mapping, got {value(node.plain())}"
                self.problem("wrong-type", node, message, "write {from: a.output, to: b.input}")
            return None
        sound = self._keys(node, CONNECTION_KEYS, required=("from", "to"))
        source = self._end(node, "from", "event", ids)
        target = self._end(node, "to", "slot", ids)
        mapping = self._mapping(node, "mapping")
        if mapping is None and "mapping" in node.entries:
            return None
        if not sound or source is None or target is None or node.has_bad():
            return None
        return ConnectionDraft(node, source, target, None if mapping is None else mapping.plain())

    def _end(self, connection: Node, key: str, kind: str, ids: Collection[str]) -> tuple[str, str] | None:
        node = _child(connection, key)
        if node is None or node.is_bad:
            return None
        parts = node.data.split(".") if isinstance(node.data, str) else []
        if len(parts) != 2 or not all(parts):
            message = f"expected 'routine.{kind}', got {value(node.plain())}"
            self.problem("bad-end", node, message, f"name a routine and one of its {kind}s")
            return None
        return (parts[0], parts[1]) if self._is_routine(node, parts[0], ids) else None

    def _is_routine(self, node: Node, name: str, ids: Collection[str]) -> bool:
        if name in ids:
            return True
        message = f"no routine {value(name)} in this document"
        self.problem(
            "unknown-routine",
            node,
            message,
            "add it under 'routines', or correct it",
            self._report.near(name, ids),
        )
        return False

    # -- small checks --------------------------------------------------------------------------------------

    def problem(self, code: str, node: Node, message: str, fix: str = "", near: Sequence[str] = ()) -> None:
        self._report.add(code, node.place, path_text(node.path), message, fix, near)

    def _keys(
        self, node: Node, known: Sequence[str], required: Sequence[str] = (), key: Place | None = None
    ) -> bool:
        sound = True
        for name, entry in node.entries.items():
            if name in known:
                continue
            sound = False
            path = path_text((*node.path, name))
            if name in _CODE_KEYS:
                message = f"{value(name)}: code is not accepted in documents"
                fix = "name a registered class or function in 'class'"
                self._report.add("code-not-accepted", entry.place, path, message, fix)
                continue
            fix = f"keys here are {', '.join(known)}"
            near = self._report.near(name, known)
            self._report.add("unknown-key", entry.place, path, f"unknown key {value(name)}", fix, near)
        for name in required:
            if name not in node.entries:
                sound = False
                fix = f"add '{name}: …'"
                path = path_text(node.path)
                self._report.add("missing-key", key or node.place, path, f"{name!r} is missing", fix)
        return sound

    def _mapping(self, parent: Node, name: str) -> Node | None:
        node = _child(parent, name)
        if node is None or node.is_bad or isinstance(node.data, dict):
            return None if node is None or node.is_bad else node
        self.problem(
            "wrong-type", node, f"expected a mapping, got {value(node.plain())}", "write 'key: value' in it"
        )
        return None

    def _text(self, parent: Node, name: str) -> None:
        node = _child(parent, name)
        if node is not None and not node.is_bad and not isinstance(node.data, str):
            self.problem("wrong-type", node, f"expected text, got {value(node.plain())}", "quote it")

    def _count(self, parent: Node, name: str) -> bool:
        node = _child(parent, name)
        if node is None or node.is_bad or (type(node.data) is int and node.data >= 1):
            return node is not None and not node.is_bad
        self.problem("invalid-value", node, f"expected a whole number, at least 1, got {value(node.plain())}")
        return False

    def _seconds(self, parent: Node) -> bool:
        node = _child(parent, "timeout")
        if node is None or node.is_bad:
            return False
        if node.data is None:
            self.problem(
                "invalid-value", node, "expected a number of seconds, got nothing", "leave the key out"
            )
            return False
        return self._attempt(node, lambda: checked_seconds("timeout", node.plain())) is not None

    def _ascii(self, name: str, place: Place, path: Path) -> str:
        if name.isascii():
            return name
        message = f"a name in a document is printable ASCII, got {ascii(name)[:80]}"
        self._report.add(
            "bad-name", place, path_text(path), message, "use letters a to z, digits, '_' and '-'"
        )
        return "flow"

    def _refuse_code(self, node: Node) -> bool:
        """Whether a text is code, which is reported then."""
        if not isinstance(node.data, str) or not _CODE.match(node.data):
            return False
        message = f"code is not accepted in documents: {value(node.data)}"
        self.problem("code-not-accepted", node, message, "name something registered")
        return True

    def _attempt(
        self,
        node: Node,
        make: Callable[[], T],
        place: Place | None = None,
        path: Path | None = None,
        *,
        codes: bool = False,
    ) -> T | None:
        """What ``make`` gives; the ``ConfigurationError`` that it raises is a problem of the node."""
        try:
            return make()
        except (ConfigurationError, TypeError, ValueError) as error:
            near = self._report.near(getattr(error, "name", ""), getattr(error, "known", ()))
            code = code_of(error) if isinstance(error, ConfigurationError) else "invalid-value"
            if codes and isinstance(getattr(error, "name", None), str) and error.name in node.entries:  # type: ignore[union-attr]
                place = node.entries[error.name].place  # type: ignore[union-attr]
            where = path_text(node.path if path is None else path)
            self._report.add(code, place or node.place, where, str(error), near=near)
            return None


def code_of(error: ConfigurationError) -> str:
    """``"unknown-slot"`` for an ``UnknownSlotError``."""
    name = type(error).__name__.removesuffix("Error")
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("-")


_PYTHON: Final = {
    "flush=True": "flush: true",
    "flush=False": "flush: false",
    "True or False": "true or false",
    " or None": "",
    "None, ": "",
}


def _in_a_document(message: str) -> str:
    """What a policy refuses, in the words of a document: its option is named by the place."""
    said = re.sub(r"^\w+_policy\(\w+\): ", "", message)
    for python, document in _PYTHON.items():
        said = said.replace(python, document)
    return said


def _child(node: Node, name: str) -> Node | None:
    entry = node.entries.get(name)
    return None if entry is None else entry.node


def _sound(node: Node | None) -> Any:
    return None if node is None or isinstance(node.data, Bad) else node.plain()


def _expression_nodes(fields: Sequence[ConfigField], config: Node, path: Path) -> Iterator[tuple[Node, Path]]:
    for field in fields:
        node = _child(config, field.name)
        if node is None:
            continue
        if field.expression:
            yield from _texts(node, (*path, field.name))
        inner = _dataclass_in(field.type)
        if inner is not None:
            for each, where in _mappings(node, (*path, field.name)):
                yield from _expression_nodes(fields_of(inner), each, where)


def _texts(node: Node, path: Path) -> Iterator[tuple[Node, Path]]:
    if isinstance(node.data, str):
        yield node, path
    for at, each in _children(node):
        yield from _texts(each, (*path, at))


def _mappings(node: Node, path: Path) -> Iterator[tuple[Node, Path]]:
    """The mapping itself; of a list, or of a mapping of mappings, each in it."""
    if isinstance(node.data, dict):
        yield node, path
    for at, each in _children(node):
        if isinstance(each.data, dict):
            yield each, (*path, at)


def _children(node: Node) -> list[tuple[str | int, Node]]:
    named: list[tuple[str | int, Node]] = [(name, entry.node) for name, entry in node.entries.items()]
    return [*named, *enumerate(node.items)]


def _dataclass_in(kind: Any) -> type | None:
    if isinstance(kind, type) and hasattr(kind, "__dataclass_fields__"):
        return kind
    return next((found for each in get_args(kind) if (found := _dataclass_in(each)) is not None), None)
