"""Building a flow in one expression, with all problems reported at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self, TypeAlias

from routilux.errors import (
    ConfigurationError,
    FlowValidationError,
    InvalidTypeError,
    InvalidValueError,
    refused,
)
from routilux.model.calls import call_name
from routilux.model.flow import Flow, documents
from routilux.model.recovery import ErrorHandler
from routilux.model.routine import Routine
from routilux.model.validation import Issue, refusal

RoutineSource: TypeAlias = Routine | Callable[[], Routine] | str


class _Step(NamedTuple):
    where: str
    needs: tuple[str, ...]  # routine ids: without them the step is pointless
    adds: str | None
    run: Callable[[Flow], object]


class FlowBuilder:
    """``FlowBuilder("etl").add(Read, "read").add(Write, "write").connect("read.row", "write.input").build()``

    Nothing is looked at before :meth:`build`, so the order of the calls does not matter, except that
    connections deliver in the order in which they were made.

    :param create: makes a routine of a name that :meth:`add` was given; names of the default registry if not given.
    """

    def __init__(
        self,
        flow_id: str | None = None,
        *,
        execution_strategy: str | None = None,
        max_workers: int | None = None,
        execution_timeout: float | None = None,
        create: Callable[[str], Routine] | None = None,
    ) -> None:
        self._flow_id = flow_id
        self._settings: dict[str, Any] = {
            "execution_strategy": execution_strategy,
            "max_workers": max_workers,
            "execution_timeout": execution_timeout,
        }
        self._create = create
        self._routines: list[_Step] = []
        self._wiring: list[_Step] = []

    def add(
        self, routine: RoutineSource, id: str | None = None, config: Mapping[str, Any] | None = None
    ) -> Self:
        """Add a routine: an object, or the class, factory or name that :meth:`build` makes it of."""

        def run(flow: Flow) -> None:
            made = self._make(routine)
            flow.add_routine(made, id)
            if config:
                made.set_config(**config)

        name = id or (routine if isinstance(routine, str) else call_name(routine))
        self._routines.append(_Step(f"routine {name!r}", (), id, run))
        return self

    def connect(self, source: str, target: str, *, mapping: Mapping[str, str] | None = None) -> Self:
        """Connect ``"routine.event"`` to ``"routine.slot"``."""

        def run(flow: Flow) -> None:
            from_routine, event = _split(source, "event")
            to_routine, slot = _split(target, "slot")
            flow.connect(from_routine, event, to_routine, slot, mapping=mapping)

        self._wiring.append(_Step(f"connection {source} -> {target}", _ids(source, target), None, run))
        return self

    def entry(self, target: str) -> Self:
        """Say where the data of a one-shot execution goes in: ``"routine"`` or ``"routine.slot"``."""

        def run(flow: Flow) -> None:
            plain = isinstance(target, str) and "." not in target
            flow.set_entry(*((target,) if plain else _split(target, "slot")))

        self._wiring.append(_Step(f"entry {target}", _ids(target), None, run))
        return self

    def error_handler(self, handler: ErrorHandler) -> Self:
        self._wiring.append(_Step("error handler", (), None, lambda flow: flow.set_error_handler(handler)))
        return self

    def build(self) -> Flow:
        """Make the flow; ``FlowValidationError`` or ``MissingPolicyError`` with all problems if any."""
        flow = Flow(self._flow_id, **self._settings)
        try:
            problems = self._run_steps(flow)
            if problems:
                raise _all_problems(flow, problems)
            flow.check()
        except BaseException:
            for routine_id in list(flow.routines):
                flow.remove_routine(routine_id)  # so that routine objects can be used again
            raise
        return flow

    def _run_steps(self, flow: Flow) -> list[Issue]:
        problems: list[Issue] = []
        failed: set[str | None] = set()
        for step in (*self._routines, *self._wiring):
            if failed.intersection(step.needs):
                continue
            try:
                step.run(flow)
            except ConfigurationError as error:
                problems.append(Issue("error", _code(error), step.where, str(error), fix=""))
                if step.adds not in flow.routines:
                    failed.add(step.adds)
        return problems

    def _make(self, source: object) -> Routine:
        if isinstance(source, Routine):
            return source
        if isinstance(source, str):
            return (self._create or documents().create)(source)
        if not callable(source):
            raise refused(InvalidTypeError, "add()", source, "a routine, a class of routines or a factory")
        routine = source()
        if not isinstance(routine, Routine):
            raise refused(InvalidTypeError, f"add(): what {call_name(source)}() made", routine, "a routine")
        return routine


def _split(end: object, kind: str) -> tuple[str, str]:
    routine_id, dot, name = end.partition(".") if isinstance(end, str) else ("", "", "")
    if not (routine_id and dot and name) or "." in name:
        raise refused(InvalidValueError, f"end of a connection ({kind})", end, f"'routine.{kind}'")
    return routine_id, name


def _ids(*ends: object) -> tuple[str, ...]:
    return tuple(end.partition(".")[0] for end in ends if isinstance(end, str))


def _code(error: ConfigurationError) -> str:
    """``"unknown-routine"`` for an UnknownRoutineError."""
    name = type(error).__name__.removesuffix("Error")
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("-")


def _all_problems(flow: Flow, problems: list[Issue]) -> FlowValidationError:
    issues = problems + flow.validate()
    errors = [issue for issue in issues if issue.severity == "error"]
    return FlowValidationError(refusal(flow.flow_id, errors), flow_id=flow.flow_id, issues=issues)
