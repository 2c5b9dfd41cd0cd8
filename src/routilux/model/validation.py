"""Everything that is wrong with a flow, found at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

from routilux.errors import ConfigurationError, FlowValidationError, MissingPolicyError
from routilux.model.calls import is_async
from routilux.model.config import check_config
from routilux.model.entry import resolve_entry, unfed_slots
from routilux.model.graph import cycle_path, cycles, reachable, same_cycle
from routilux.model.logic import logic_of_handlers, logic_problem
from routilux.model.policy import AllSlotsReadyPolicy, BatchSizePolicy, lanes_problem
from routilux.model.recovery import ERROR_EVENT

if TYPE_CHECKING:
    from routilux.model.flow import Flow
    from routilux.model.routine import Routine


class Issue(NamedTuple):
    """Something that is wrong (``error``: the flow is refused) or looks wrong (``warning``).

    ``code`` is stable, ``where`` and ``message`` are for people, ``fix`` says what to do, unless the message
    says it.
    """

    severity: Literal["error", "warning"]
    code: str
    where: str
    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}; {self.fix}" if self.fix else f"{self.where}: {self.message}"


POLICY_CHOICE = (
    "call set_activation_policy() with immediate_policy() (each item at once), all_slots_ready_policy() "
    "(one item of every slot together) or batch_size_policy(n) (n items at a time)"
)


def validate(flow: Flow, *, unfinished: Collection[str] = ()) -> list[Issue]:
    """All issues of a flow; errors first, in the order of its routines.

    Of routines that are ``unfinished`` it says nothing: a setting was refused, and what is said would follow from that.
    """
    issues = [issue for issues_of in _RULES for issue in issues_of(flow)]
    for routine_id, routine in flow.routines.items():
        if routine_id not in unfinished:
            issues += _routine_issues(routine)
    return sorted(issues, key=lambda issue: issue.severity)


def check(flow: Flow) -> list[Issue]:
    """Raise an error that lists all errors of a flow, if it has any; else return the warnings."""
    issues = validate(flow)
    errors = [issue for issue in issues if issue.severity == "error"]
    if not errors:
        return issues
    if all(issue.code == "no-policy" for issue in errors):
        routines = ", ".join(issue.where for issue in errors)
        message = f"{routines} of flow {flow.flow_id!r}: no activation policy, so it would never run"
        raise MissingPolicyError(f"{message}; {POLICY_CHOICE}", flow_id=flow.flow_id, issues=issues)
    raise FlowValidationError(refusal(flow.flow_id, errors), flow_id=flow.flow_id, issues=issues)


def refusal(flow_id: str, errors: list[Issue]) -> str:
    """The message that lists errors, one a line."""
    count = "1 problem" if len(errors) == 1 else f"{len(errors)} problems"
    lines = "".join(f"\n  {number}. {issue}" for number, issue in enumerate(errors, 1))
    return f"flow {flow_id!r} cannot run, {count}:{lines}"


# -- one routine -------------------------------------------------------------------------------------------


def _routine_issues(routine: Routine) -> Iterator[Issue]:
    where = f"routine {routine.routine_id!r}"
    if routine.activation_policy is None and not routine.has_handlers:
        message = "has no activation policy, so it would never run"
        yield Issue("error", "no-policy", where, message, POLICY_CHOICE)
    yield from _logic_issues(routine, where)
    yield from _config_issues(routine, where)
    yield from _batch_issues(routine)
    yield from _error_event_issues(routine, where)
    yield from _lanes_issues(routine)
    if routine.concurrency > 1:
        yield from _overlap_issues(routine)


def _logic_issues(routine: Routine, where: str) -> Iterator[Issue]:
    logic = routine.own_logic
    if logic is None and not routine.has_handlers:
        fix = "call set_logic(fn), override logic(), or give its slots a handler="
        yield Issue("error", "no-logic", where, "has no logic", fix)
    if logic is not None:
        problem = logic_problem(logic, where)
        if problem:
            yield Issue("error", "logic-signature", where, str(problem), fix="")
        if routine.has_handlers:
            slots = [slot.name for slot in routine.slots.values() if slot.handler]
            message = f"has logic and a handler for {slots}, of which only the logic would run"
            yield Issue("error", "logic-and-handlers", where, message, "keep one of the two")
    elif routine.has_handlers:
        yield from _handler_issues(routine, where)


def _handler_issues(routine: Routine, where: str) -> Iterator[Issue]:
    without = [slot.name for slot in routine.slots.values() if slot.handler is None]
    if without:
        message = f"has handlers, but none for {without}, so nothing would run for what arrives there"
        yield Issue("error", "slot-without-handler", where, message, "give every slot a handler=")
        return
    try:
        logic_of_handlers(routine.slots)
    except ConfigurationError as problem:
        yield Issue("error", "handler-signature", where, str(problem), fix="")
        return
    handlers = [slot.handler for slot in routine.slots.values()]
    if len({is_async(handler) for handler in handlers}) > 1:
        message = "has plain and async handlers; the plain ones hold up the event loop while they run"
        yield Issue("warning", "mixed-handlers", where, message, "make all of them async, or none")


def _config_issues(routine: Routine, where: str) -> Iterator[Issue]:
    """What ``set_config`` could not see: that a required key was never set."""
    for problem in check_config(type(routine), routine.config):
        fix = f"call set_config({problem.key}=...)"
        yield Issue("error", f"config-{problem.kind}", where, f"config: {problem.message}", fix)


def _batch_issues(routine: Routine) -> Iterator[Issue]:
    policy = routine.activation_policy
    if not isinstance(policy, BatchSizePolicy):
        return
    for slot in routine.slots.values():
        if policy.n > slot.max_queue_length:
            message = (
                f"holds at most {slot.max_queue_length} items, so a batch of {policy.n} can never be complete"
            )
            fix = f"set max_queue_length={policy.n} or more, or a smaller batch"
            yield Issue("error", "batch-over-capacity", f"slot {slot.qualified_name!r}", message, fix)


def _error_event_issues(routine: Routine, where: str) -> Iterator[Issue]:
    handler = routine.error_handler or (routine.flow and routine.flow.error_handler)
    if handler and handler.emits and ERROR_EVENT not in routine.events:
        message = f"sends what fails out of its event {ERROR_EVENT!r}, and has no such event"
        fix = f"declare it: add_event({ERROR_EVENT!r}), or give the routine an error handler with another strategy"
        yield Issue("error", "no-error-event", where, message, fix)


def _lanes_issues(routine: Routine) -> Iterator[Issue]:
    """What ``set_concurrency(by=)`` could not see: a policy that was set behind it."""
    by, policy = routine.concurrency_by, routine.activation_policy
    problem = None if by is None or policy is None else lanes_problem(policy, by)
    if problem is not None:
        where, (took, fix) = f"routine {routine.routine_id!r}", problem
        yield Issue("error", "lanes-policy", where, f"set_concurrency(by={by!r}), but {took}", fix)


def _overlap_issues(routine: Routine) -> Iterator[Issue]:
    for slot in routine.slots.values():
        if slot.merges:
            message = f"merges data, which activations that overlap ({routine.concurrency}) would mix up"
            fix = "set_concurrency(1), or merge_strategy='queue'"
            yield Issue("error", "merge-overlap", f"slot {slot.qualified_name!r}", message, fix)
    flow = routine.flow
    if flow is not None and flow.execution_strategy == "sequential":
        message = f"may overlap itself ({routine.concurrency}), but the flow runs one activation at a time"
        where = f"routine {routine.routine_id!r}"
        yield Issue("warning", "sequential-overlap", where, message, "execution_strategy='concurrent'")


# -- the flow as a whole -----------------------------------------------------------------------------------


def _settings(flow: Flow) -> Iterator[Issue]:
    where = f"flow {flow.flow_id!r}"
    if not flow.routines:
        yield Issue("error", "empty-flow", where, "has no routines", "add one with add_routine()")
    if flow.execution_strategy == "sequential" and (flow.max_workers or 1) > 1:
        message = (
            f"max_workers={flow.max_workers} has no effect: a sequential flow runs one activation at a time"
        )
        yield Issue("warning", "sequential-workers", where, message, "execution_strategy='concurrent'")


def _entries(flow: Flow) -> Iterator[Issue]:
    candidates = list(unfed_slots(flow))
    if flow.entry is None and len(candidates) > 1:
        message = f"has several routines with a slot that nothing feeds: {candidates}"
        fix = f"say where entry_params go: set_entry({candidates[0]!r})"
        yield Issue("warning", "several-entries", f"flow {flow.flow_id!r}", message, fix)


def _unfed(flow: Flow) -> Iterator[Issue]:
    entry = _entry_or_none(flow)
    for routine_id, unfed in unfed_slots(flow).items():
        routine = flow.routines[routine_id]
        if flow.entry is None and len(unfed) == len(routine.slots):
            continue  # a way in, as a whole
        for slot in unfed:
            if (routine_id, slot) != entry:
                yield _unfed_issue(routine, slot, joins=len(unfed) < len(routine.slots))


def _unfed_issue(routine: Routine, slot: str, *, joins: bool) -> Issue:
    where = f"slot '{routine.routine_id}.{slot}'"
    fix = "connect an event to it, post() to it, or remove it"
    if joins and isinstance(routine.activation_policy, (AllSlotsReadyPolicy, BatchSizePolicy)):
        message = "nothing feeds it, and the routine waits for an item in every slot"
        return Issue("warning", "join-not-fed", where, message, fix)
    return Issue("warning", "slot-not-fed", where, "nothing feeds it", fix)


def _unreachable(flow: Flow) -> Iterator[Issue]:
    unfed = unfed_slots(flow)
    found = reachable(flow, unfed if flow.entry is None else [flow.entry[0]])
    lost = [routine_id for routine_id in flow.routines if routine_id not in found]
    closed = _closed_cycles(flow, unfed.keys())
    for routine_id in lost:
        where = f"routine {routine_id!r}"
        cycle = closed.get(routine_id)
        if not flow.routines[routine_id].slots:
            message = "has no slots, so nothing can activate it"
            yield Issue("warning", "no-slots", where, message, "declare one with add_slot()")
        elif cycle is None and routine_id not in unfed:
            message = "nothing leads to it from where data enters"
            yield Issue("warning", "unreachable", where, message, "connect it, or remove it")
        elif cycle is not None and routine_id == min(cycle, key=lost.index):
            message = f"nothing leads into the cycle {cycle_path(flow, routine_id)}"
            fix = f"set_entry({routine_id!r}), or connect something to it"
            yield Issue("warning", "cycle-without-entry", where, message, fix)


def _closed_cycles(flow: Flow, unfed: Collection[str]) -> dict[str, frozenset[str]]:
    """By routine id, the cycle that it is in, if only the cycle itself feeds that."""
    number = same_cycle(flow)
    opened = {number.get(routine_id) for routine_id in unfed}
    for connection in flow.connections:
        source, _, target, _ = connection.ends
        if number.get(source) != number.get(target):
            opened.add(number.get(target))
    found = cycles(flow)
    return {routine_id: found[at] for routine_id, at in number.items() if at not in opened}


def _entry_or_none(flow: Flow) -> tuple[str, str] | None:
    try:
        return resolve_entry(flow)
    except ConfigurationError:
        return None


_RULES = (_settings, _entries, _unfed, _unreachable)
