"""From a draft to a flow: what the model refuses is collected with its place, not raised one by one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from routilux.dsl.classes import Resolver
from routilux.dsl.nodes import Node, path_text
from routilux.dsl.problems import Place, Report, value
from routilux.dsl.registry import RoutineRegistry
from routilux.dsl.shape import SLOT_KEYS, ConnectionDraft, Draft, RoutineDraft, Shape, code_of
from routilux.errors import ConfigurationError, UnknownEventError, UnknownSlotError, describe
from routilux.model.flow import Flow
from routilux.model.routine import Routine

_QUOTED_ID: Final = re.compile(r"(?:routine|slot) '([^'.]+)")
# These are attempts, not slips: nothing at all is made of such a document.
_ENDS_IT: Final = frozenset(["bad-class-name", "code-not-accepted"])


def flow_of(root: Node, report: Report, registry: RoutineRegistry, allow_imports: Iterable[str]) -> Flow:
    """The flow that a document describes, or ``DslError`` with all that is wrong with it."""
    text_is_sound = not report.codes
    allowed = tuple(allow_imports) if not isinstance(allow_imports, str) else allow_imports
    draft = Shape(report, registry, Resolver(registry, allowed, importing=False)).draft(root)
    if not text_is_sound or report.codes & _ENDS_IT:
        report.raise_if_any()
    if allowed and not report.codes:  # nothing is imported before the whole document has passed
        draft = Shape(report, registry, Resolver(registry, allowed, importing=True)).draft(root)
    flow = _Builder(draft, report).build()
    report.raise_if_any()
    return flow


class _Builder:
    def __init__(self, draft: Draft, report: Report) -> None:
        self._draft, self._report = draft, report
        execution = draft.execution
        self._flow = Flow(
            draft.flow_id,
            execution_strategy=execution.get("strategy"),
            max_workers=execution.get("max_workers"),
            execution_timeout=execution.get("timeout"),
        )

    def build(self) -> Flow:
        for draft in self._draft.routines:
            self._add(draft)
        for connection in self._draft.connections:
            self._connect(connection)
        self._settings()
        self._validate()
        return self._flow

    def _add(self, draft: RoutineDraft) -> None:
        if draft.type is None:
            return
        made = self._made(draft)
        if made is None or not self._attempt(draft.node, lambda: self._flow.add_routine(made, draft.id)):
            return
        node = draft.node
        if draft.policy is not None:
            made.set_activation_policy(draft.policy)
        if draft.error_handler is not None:
            made.set_error_handler(draft.error_handler)
        if "concurrency" in node.entries:
            self._set_concurrency(made, node.entries["concurrency"].node)
        if "timeout" in node.entries:
            self._attempt(node, lambda: made.set_timeout(node.entries["timeout"].node.data), quiet=True)
        if "slots" in node.entries:
            self._set_queues(made, node.entries["slots"].node)
        if "description" in node.entries and isinstance(node.entries["description"].node.data, str):
            self._flow.describe(node.entries["description"].node.data, made)

    def _made(self, draft: RoutineDraft) -> Routine | None:
        """The routine with its config; whatever its class raises is a problem of the document."""
        assert draft.type is not None
        entry = draft.node.entries.get("config") or draft.node.entries["class"]
        try:
            return draft.type.create().set_config(**draft.config)
        except ConfigurationError as error:
            self._report.add(code_of(error), entry.node.place, path_text(entry.node.path), str(error))
        except Exception as error:  # noqa: BLE001 - user code
            message = f"class {draft.type.name!r} cannot be made: {describe(error)}"
            self._report.add("class-failed", entry.node.place, path_text(entry.node.path), message)
        return None

    def _set_concurrency(self, routine: Routine, node: Node) -> None:
        given = node.plain() if isinstance(node.data, dict) else {"limit": node.data, "by": None}
        limit, by = given.get("limit"), given.get("by")
        if type(limit) is int and limit >= 1 and (by is None or (isinstance(by, str) and by)):
            self._attempt(node, lambda: routine.set_concurrency(limit, by=by))

    def _set_queues(self, routine: Routine, slots: Node) -> None:
        for name, entry in slots.entries.items():
            if name not in routine.slots:
                error = routine.unknown_slot(name)
                near = self._report.near(name, routine.slots)
                path = path_text((*slots.path, name))
                self._report.add("unknown-slot", entry.place, path, str(error), near=near)
                continue
            for key, setting in entry.node.entries.items():
                if key in SLOT_KEYS and not setting.node.is_bad:
                    self._set_queue(routine, name, key, setting.node)

    def _set_queue(self, routine: Routine, slot: str, key: str, node: Node) -> None:
        if node.data is None:
            message = "expected a value, got nothing"
            self._report.add("invalid-value", node.place, path_text(node.path), message, "leave the key out")
        else:
            self._attempt(node, lambda: routine.set_queue(slot, **{key: node.plain()}))

    def _connect(self, draft: ConnectionDraft) -> None:
        routines = self._flow.routines
        if draft.source[0] not in routines or draft.target[0] not in routines:
            return  # what is wrong with the routine has been said
        if self._is_turned_round(draft):
            return
        self._attempt(
            draft.node, lambda: self._flow.connect(*draft.source, *draft.target, mapping=draft.mapping)
        )

    def _is_turned_round(self, draft: ConnectionDraft) -> bool:
        """Whether an end names a slot where an event belongs, or the other way round; reported then."""
        routines = self._flow.routines
        (source, event), (target, slot) = draft.source, draft.target
        from_slot = event not in routines[source].events and event in routines[source].slots
        to_event = slot not in routines[target].slots and slot in routines[target].events
        swapped = f"write {{from: {target}.{slot}, to: {source}.{event}}}"
        if from_slot:
            events = ", ".join(routines[source].events) or "none"
            fix = swapped if to_event else f"events of {value(source)}: {events}"
            message = f"{value(f'{source}.{event}')} is a slot, and a connection goes from an event to a slot"
            self._report.add("swapped-ends", *_end(draft.node, "from"), message, fix)
        elif to_event:
            slots = ", ".join(routines[target].slots) or "none"
            message = (
                f"{value(f'{target}.{slot}')} is an event, and a connection goes from an event to a slot"
            )
            self._report.add(
                "swapped-ends", *_end(draft.node, "to"), message, f"slots of {value(target)}: {slots}"
            )
        return from_slot or to_event

    def _settings(self) -> None:
        root, flow = self._draft.root, self._flow
        if self._draft.error_handler is not None:
            flow.set_error_handler(self._draft.error_handler)
        if "description" in root.entries and isinstance(root.entries["description"].node.data, str):
            flow.describe(root.entries["description"].node.data)
        entry = self._draft.entry
        if entry is not None and entry[0] in flow.routines:
            self._attempt(root.entries["entry"].node, lambda: flow.set_entry(*entry))

    def _validate(self) -> None:
        """What the model finds wrong in the flow as far as it was built."""
        places = {draft.id: (draft.key, draft.node) for draft in self._draft.routines}
        for issue in self._flow.validate():
            found = _QUOTED_ID.match(issue.where)
            if issue.severity == "error" and found and found[1] in places:
                key, node = places[found[1]]
                message = f"{issue.where} {issue.message}"
                self._report.add(issue.code, key, path_text(node.path), message, issue.fix)

    def _attempt(self, node: Node, change: Callable[[], Any], *, quiet: bool = False) -> bool:
        """Whether the model accepts a change; if not, that is a problem of the node, unless it is known."""
        try:
            change()
        except ConfigurationError as error:
            if not quiet:
                near = self._report.near(getattr(error, "name", ""), error.known)
                place, path = _place_of(error, node)
                self._report.add(code_of(error), place, path, str(error), near=near)
            return False
        return True


def _place_of(error: ConfigurationError, node: Node) -> tuple[Place, str]:
    """The end of a connection that the error is about, else the node."""
    key = {UnknownEventError: "from", UnknownSlotError: "to"}.get(type(error), "")
    return _end(node, key) if key in node.entries else (node.place, path_text(node.path))


def _end(node: Node, key: str) -> tuple[Place, str]:
    found = node.entries[key].node
    return found.place, path_text(found.path)
