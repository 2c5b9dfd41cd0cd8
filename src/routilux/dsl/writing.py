"""From a flow to the document that it is made of again, byte for byte the same each time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from routilux.dsl.classes import Resolver
from routilux.dsl.nodes import MAX_DEPTH, scalar_problem
from routilux.dsl.registry import RoutineRegistry, RoutineType
from routilux.dsl.shape import SLOT_KEYS, VERSION
from routilux.errors import ConfigurationError, SerializationError, shown
from routilux.model.flow import Flow
from routilux.model.policy import POLICY_NAMES, ActivationPolicy, CustomPolicy
from routilux.model.routine import Routine

_PLAIN: Final = re.compile(r"[A-Za-z_./][A-Za-z0-9_./+()=*@-]*( [A-Za-z0-9_./+()=*@<>-]+)*", re.ASCII)
# What YAML 1.1 or 1.2 would read as something else than text.
_AMBIGUOUS: Final = re.compile(
    r"(null|true|false|yes|no|on|off|\.inf|\.nan|\.?[0-9_.+-]*([eE][-+]?[0-9]+)?)", re.IGNORECASE
)
_LONGEST_KEY: Final = 300  # YAML wants the end of a key within 1,024 characters, escapes included


def document_of(flow: Flow, registry: RoutineRegistry, allow_imports: Iterable[str]) -> dict[str, Any]:
    writer = _Writer(registry, Resolver(registry, allow_imports, importing=True))
    document: dict[str, Any] = {"version": VERSION, "flow_id": _name(flow.flow_id, "flow")}
    document |= _given("description", flow.description())
    execution = {
        "strategy": flow.execution_strategy,
        "max_workers": flow.max_workers,
        "timeout": flow.execution_timeout,
    }
    document |= _given("execution", {name: each for name, each in execution.items() if each is not None})
    if flow.error_handler is not None:
        document["error_handler"] = flow.error_handler.to_dict()
    if flow.entry is not None:
        document["entry"] = ".".join(filter(None, flow.entry))
    document["routines"] = {
        _name(routine_id, "routine"): writer.routine(routine) for routine_id, routine in flow.routines.items()
    }
    document |= _given("connections", [_connection(each) for each in flow.connections])
    return document


class _Writer:
    def __init__(self, registry: RoutineRegistry, resolver: Resolver) -> None:
        self._registry, self._resolver = registry, resolver

    def routine(self, routine: Routine) -> dict[str, Any]:
        """What the routine's class and config do not say already."""
        kind = self._type(routine)
        config = {
            key: plain(each, f"$.routines.{routine.routine_id}.config.{key}", str(routine))
            for key, each in routine.config.items()
            if key not in kind.config or repr(kind.config[key]) != repr(each)
        }
        fresh = kind.create().set_config(**routine.config)
        _check_code(routine, fresh)
        flow = routine.flow
        document: dict[str, Any] = {"class": kind.name}
        document |= _given("description", "" if flow is None else flow.description(routine.routine_id))
        document |= _given("config", config)
        policy = routine.activation_policy
        if policy is not None and not _same_policy(policy, fresh.activation_policy):
            document["activation"] = self._policy(routine, policy)
        if routine.error_handler != fresh.error_handler:
            document["error_handler"] = _error_handler(routine)
        if _concurrency(routine) != _concurrency(fresh):
            document["concurrency"] = _concurrency(routine)
        if routine.timeout != fresh.timeout:
            if routine.timeout is None:
                raise _refusal(routine, "timeout", "None, where its class sets one", "set a long time-out")
            document["timeout"] = routine.timeout
        slots = {name: _queue(routine, fresh, name) for name in routine.slots}
        document |= _given("slots", {name: queue for name, queue in slots.items() if queue})
        return document

    def _type(self, routine: Routine) -> RoutineType:
        name = self._registry.name_of(routine)
        if name is not None:
            return self._registry.get(name)
        kind = type(routine)
        dotted = f"{kind.__module__}.{kind.__qualname__}"
        if self._resolver.allows(dotted):
            found = self._resolver.resolve(dotted)
            if isinstance(found, RoutineType) and found.routine_class is kind:
                return found
        fix = f"register it: RoutineRegistry.get_instance().register({kind.__name__})"
        raise _refusal(routine, "class", f"{dotted}, which is not registered", fix)

    def _policy(self, routine: Routine, policy: ActivationPolicy) -> dict[str, Any]:
        fix = "use a built-in policy, register one with register_policy(), or set it in the class"
        data = policy.to_dict()
        name = data.get("policy")
        if name not in POLICY_NAMES:
            try:
                made = self._registry.policy(str(name))(**{key: data[key] for key in data if key != "policy"})
            except (ConfigurationError, TypeError, ValueError):
                made = None
            if made != policy:
                raise _refusal(routine, "activation", f"{shown(policy)}, which is code", fix)
        where = f"$.routines.{routine.routine_id}.activation"
        return {key: plain(each, f"{where}.{key}", str(routine)) for key, each in data.items()}


def _concurrency(routine: Routine) -> int | dict[str, Any]:
    limit, by = routine.concurrency, routine.concurrency_by
    return limit if by is None else {"limit": limit, "by": by}


def _check_code(routine: Routine, fresh: Routine) -> None:
    """Refuse what only code can have set: logic, handlers, ports that the class does not declare."""
    if not _same_code(routine.own_logic, fresh.own_logic):
        raise _refusal(
            routine, "logic", "set with set_logic(), which is code", "write a class, or use @routine"
        )
    for kind, mine, declared in (
        ("slot", routine.slots, fresh.slots),
        ("event", routine.events, fresh.events),
    ):
        odd = sorted(mine.keys() ^ declared.keys())
        if odd:
            found = f"{kind} {odd[0]!r}, which its class with this config does not declare in the same way"
            raise _refusal(routine, f"{kind}s", found, "declare it in the constructor or in config_changed()")
    for name, slot in routine.slots.items():
        other = fresh.slots[name]
        merged = slot.merge_strategy == other.merge_strategy or _same_code(
            slot.merge_strategy, other.merge_strategy
        )
        if not merged or not _same_code(slot.handler, other.handler) or slot.type is not other.type:
            found = f"slot {name!r} with a handler, type or merge strategy that its class does not give it"
            raise _refusal(routine, "slots", found, "declare it in the constructor of the class")
    if routine.activation_policy is None and fresh.activation_policy is not None:
        raise _refusal(routine, "activation", "no policy, where its class sets one", "set one")


def _same_code(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    return one is other or (_code_of(one) is not None and _code_of(one) is _code_of(other))


def _code_of(fn: Any) -> Any:
    """The code that a callable runs: inside a partial, of a method, of an object with ``__call__``."""
    while hasattr(fn, "func") and hasattr(fn, "keywords"):
        fn = fn.func
    fn = getattr(fn, "__func__", fn)
    return getattr(fn, "__code__", None) or getattr(type(fn).__call__, "__code__", None)


def _same_policy(one: ActivationPolicy, other: ActivationPolicy | None) -> bool:
    if isinstance(one, CustomPolicy) and isinstance(other, CustomPolicy):
        return _same_code(one.fn, other.fn)
    return one == other


def _error_handler(routine: Routine) -> dict[str, Any]:
    if routine.error_handler is None:
        raise _refusal(
            routine, "error_handler", "None, where its class sets one", "set the one that is meant"
        )
    return routine.error_handler.to_dict()


def _queue(routine: Routine, fresh: Routine, name: str) -> dict[str, Any]:
    mine, declared = routine.slots[name], fresh.slots[name]
    return {key: getattr(mine, key) for key in SLOT_KEYS if getattr(mine, key) != getattr(declared, key)}


def _connection(connection: Any) -> dict[str, Any]:
    source, event, target, slot = connection.ends
    document: dict[str, Any] = {"from": f"{source}.{event}", "to": f"{target}.{slot}"}
    return document | _given("mapping", dict(connection.mapping or {}))


def _given(name: str, value: Any) -> dict[str, Any]:
    return {name: value} if value else {}


def _name(name: str, kind: str) -> str:
    if not name.isascii():
        raise SerializationError(
            f"{kind} {name!r} cannot be written: names in documents are printable ASCII; choose another id",
            path=f"$.{kind}s.{name}",
        )
    return name


def _refusal(routine: Routine, key: str, found: str, fix: str) -> SerializationError:
    return SerializationError(
        f"{routine} cannot be written to a document: it has {key}: {found}; {fix}",
        path=f"$.routines.{routine.routine_id}.{key}",
        routine_id=routine.routine_id,
    )


def plain(given: Any, path: str, owner: str, depth: int = 4) -> Any:
    """A config value as plain data; ``SerializationError`` at its path for what a document cannot hold."""
    if depth > MAX_DEPTH:
        raise SerializationError(
            f"{owner}: {path} is nested too deep to be written; make it flatter", path=path
        )
    if hasattr(type(given), "__dataclass_fields__"):
        given = {name: getattr(given, name) for name in type(given).__dataclass_fields__}
    if isinstance(given, Mapping):
        return {
            _key(key, path, owner): plain(each, f"{path}.{key}", owner, depth + 1)
            for key, each in given.items()
        }
    if isinstance(given, (list, tuple)):
        return [plain(each, f"{path}[{at}]", owner, depth + 1) for at, each in enumerate(given)]
    if isinstance(given, str):
        given = str.__str__(given)
    problem = scalar_problem(given)
    if problem is None and type(given) in (str, int, float, bool, type(None)):
        return given
    reason = problem[1] if problem else f"a {type(given).__name__}, which is no plain data"
    raise SerializationError(
        f"{owner} cannot be written to a document: {path} is {shown(given)}, {reason}; use text, numbers, lists "
        "and dicts",
        path=path,
    )


def _key(key: object, path: str, owner: str) -> str:
    if not isinstance(key, str) or len(key) > _LONGEST_KEY or scalar_problem(key):
        expected = f"text of up to {_LONGEST_KEY} characters"
        raise SerializationError(
            f"{owner} cannot be written to a document: {path} has the key {shown(key)}; keys are {expected}",
            path=path,
        )
    return str.__str__(key)


# -- text --------------------------------------------------------------------------------------------------


def json_text(document: Mapping[str, Any]) -> str:
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    return "".join(c if c == "\n" or c.isprintable() else _json_escape(c) for c in text) + "\n"


def _json_escape(character: str) -> str:
    return json.dumps(character)[1:-1]


def yaml_text(document: Mapping[str, Any]) -> str:
    """Block style, two spaces; connections and what is empty in flow style. Own code, so that it never changes."""
    lines: list[str] = []
    for name, value in document.items():
        if name == "connections":
            lines.append("connections:")
            lines += [f"  - {_flow(each)}" for each in value]
        else:
            _block(f"{name}:", value, "", lines)
    return "\n".join(lines) + "\n"


def _block(head: str, value: Any, indent: str, lines: list[str]) -> None:
    if isinstance(value, Mapping) and value:
        lines.append(f"{indent}{head}")
        for name, each in value.items():
            _block(f"{_scalar(name)}:", each, f"{indent}  ", lines)
    elif isinstance(value, list) and value:
        lines.append(f"{indent}{head}")
        for each in value:
            _item(each, f"{indent}  ", lines)
    else:
        lines.append(f"{indent}{head} {_flow(value)}")


def _item(value: Any, indent: str, lines: list[str]) -> None:
    """One item of a list; the first key of a mapping stands beside its dash."""
    if not isinstance(value, Mapping) or not value:
        lines.append(f"{indent}- {_flow(value)}")
        return
    for number, (name, each) in enumerate(value.items()):
        at = len(lines)
        _block(f"{_scalar(name)}:", each, f"{indent}  ", lines)
        if number == 0:
            lines[at] = f"{indent}- {lines[at].lstrip()}"


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(name)}: {_flow(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if _PLAIN.fullmatch(value) and not _AMBIGUOUS.fullmatch(value):
        return str(value)
    return '"' + "".join(map(_yaml_character, value)) + '"'


_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def _yaml_character(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
