"""Building a flow in one expression, with all problems reported at its end."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple, Self, TypeAlias

from routilux.errors import (
    ConfigurationError,
    FlowValidationError,
    InvalidTypeError,
    InvalidValueError,
    describe,
    refused,
    unknown,
)
from routilux.model.calls import call_name
from routilux.model.flow import Flow, documents
from routilux.model.policy import ActivationPolicy
from routilux.model.recovery import ErrorHandler
from routilux.model.routine import Routine
from routilux.model.validation import Issue, refusal, validate

RoutineSource: TypeAlias = Routine | Callable[[], Routine] | str

LIMITS: Final = ("max_queue_length", "watermark", "on_full")


class _Added(NamedTuple):
    source: RoutineSource
    id: str | None
    settings: Mapping[str, Any]
    description: str

    @property
    def where(self) -> str:
        name = self.source if isinstance(self.source, str) else call_name(self.source)
        return f"routine {self.id or name!r}"


class _Step(NamedTuple):
    where: str
    needs: tuple[str, ...]  # routine ids: without them the step is pointless
    run: Callable[[Flow], object]


class FlowBuilder:
    """``FlowBuilder("etl").add(Read, "read").add(Write, "write").connect("read.row", "write.input").build()``

    It can say all that a document can. Nothing is looked at before :meth:`build`, so the order of the calls does
    not matter, except that connections deliver in the order in which they were made, and that :meth:`remove` and
    :meth:`disconnect` take back what was said before.

    :param create: makes a routine of a name that :meth:`add` was given; the default registry's ``create`` if not
        given, so that names are those of registered routine types.
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
        if create is not None and not callable(create):
            raise refused(InvalidTypeError, "FlowBuilder(create)", create, "a function of a name")
        self._flow_id = flow_id
        self._settings: dict[str, Any] = {
            "execution_strategy": execution_strategy,
            "max_workers": max_workers,
            "execution_timeout": execution_timeout,
        }
        self._create = create
        self._added: list[_Added] = []
        self._connections: dict[tuple[str, str], list[_Step]] = {}
        self._others: list[_Step] = []

    # -- routines ------------------------------------------------------------------------------------------

    def add(
        self,
        routine: RoutineSource,
        id: str | None = None,
        config: Mapping[str, Any] | None = None,
        *,
        activation: ActivationPolicy | None = None,
        error_handler: ErrorHandler | None = None,
        concurrency: int | None = None,
        concurrency_by: str | None = None,
        timeout: float | None = None,
        slots: Mapping[str, Mapping[str, Any]] | None = None,
        description: str = "",
    ) -> Self:
        """Add a routine: an object, or the class, factory or name that :meth:`build` makes it of.

        What is ``None`` stays as the routine has it.

        :param concurrency_by: one activation at a time per value of this payload key; see
            :meth:`Routine.set_concurrency`.
        :param timeout: of one activation, in seconds.
        :param slots: by slot, the limits of its queue: ``{"input": {"max_queue_length": 50, "on_full": "error"}}``.
        """
        settings = {
            "config": config,
            "activation": activation,
            "error_handler": error_handler,
            "concurrency": concurrency,
            "concurrency_by": concurrency_by,
            "timeout": timeout,
            "slots": slots,
        }
        given = {name: value for name, value in settings.items() if value is not None}
        self._added.append(_Added(routine, id, given, description))
        return self

    def remove(self, id: str) -> Self:
        """Take back what was added under this id, with its connections and the entry if that is one of its slots."""
        if id not in self._ids():
            fix = "only what was added with an id can be removed"
            raise unknown("routine", id, self._ids(), where="in this builder", fix=fix)
        self._added = [added for added in self._added if added.id != id]
        self._connections = {
            ends: steps for ends, steps in self._connections.items() if id not in _routine_ids(*ends)
        }
        self._others = [step for step in self._others if id not in step.needs]
        return self

    # -- connections ---------------------------------------------------------------------------------------

    def connect(self, source: str, target: str, *, mapping: Mapping[str, str] | None = None) -> Self:
        """Connect ``"routine.event"`` to ``"routine.slot"``."""

        def run(flow: Flow) -> None:
            from_routine, event = _split(source, "event")
            to_routine, slot = _split(target, "slot")
            flow.connect(from_routine, event, to_routine, slot, mapping=mapping)

        step = _Step(f"connection {source} -> {target}", _routine_ids(source, target), run)
        self._connections.setdefault((str(source), str(target)), []).append(step)
        return self

    def disconnect(self, source: str, target: str) -> Self:
        """Take back a connection."""
        if self._connections.pop((str(source), str(target)), None) is None:
            known = [f"{each[0]} -> {each[1]}" for each in self._connections]
            raise unknown("connection", f"{source} -> {target}", known, where="in this builder")
        return self

    # -- settings ------------------------------------------------------------------------------------------

    def entry(self, target: str) -> Self:
        """Say where the data of a one-shot execution goes in: ``"routine"`` or ``"routine.slot"``."""

        def run(flow: Flow) -> None:
            plain = isinstance(target, str) and "." not in target
            flow.set_entry(*((target,) if plain else _split(target, "slot")))

        self._others.append(_Step(f"entry {target}", _routine_ids(target), run))
        return self

    def error_handler(self, handler: ErrorHandler) -> Self:
        self._others.append(_Step("error handler", (), lambda flow: flow.set_error_handler(handler)))
        return self

    def describe(self, text: str) -> Self:
        """Say in words what the flow is for."""
        self._others.append(_Step("description", (), lambda flow: flow.describe(text)))
        return self

    # -- the end -------------------------------------------------------------------------------------------

    def build(self) -> Flow:
        """Make the flow; ``FlowValidationError`` or ``MissingPolicyError`` with all problems if any."""
        flow = Flow(self._flow_id, **self._settings)
        try:
            problems, unfinished = self._fill(flow)
            if problems:
                raise _all_problems(flow, problems, unfinished)
            flow.check()
        except BaseException:
            for routine_id in list(flow.routines):
                flow.remove_routine(routine_id)  # so that routine objects can be used again
            raise
        return flow

    def __repr__(self) -> str:
        count = sum(map(len, self._connections.values()))
        return f"<FlowBuilder {self._flow_id!r}: {len(self._added)} routines, {count} connections>"

    def _fill(self, flow: Flow) -> tuple[list[Issue], set[str]]:
        """Do all that was said; return what the model refuses, and the routines of which it refuses a setting."""
        problems: list[Issue] = []
        failed: set[str | None] = set()
        refusals: set[tuple[str, str]] = set()
        for added in self._added:
            if not _attempt(problems, added.where, partial(self._add, flow, added, problems, refusals)):
                failed.add(added.id)
        failed -= flow.routines.keys()  # the second of two with one id
        # The config may declare slots and events: without it there is nothing to connect.
        failed.update(routine_id for routine_id, setting in refusals if setting == "config")
        for step in (*(step for steps in self._connections.values() for step in steps), *self._others):
            if not failed.intersection(step.needs):
                _attempt(problems, step.where, partial(step.run, flow))
        return problems, {routine_id for routine_id, _ in refusals}

    def _add(self, flow: Flow, added: _Added, problems: list[Issue], refusals: set[tuple[str, str]]) -> None:
        made = self._made(added.source)
        flow.add_routine(made, added.id)
        for name, value in added.settings.items():
            if not _attempt(problems, added.where, partial(_SETTERS[name], made, value)):
                refusals.add((made.routine_id, name))
        if added.description:
            _attempt(problems, added.where, lambda: flow.describe(added.description, made))

    def _made(self, source: object) -> Routine:
        if isinstance(source, Routine):
            return source
        if isinstance(source, str):
            create = self._create or documents().create
            return _called(lambda: create(source), f"create({source!r})")
        if not callable(source):
            fix = "or the name of a registered routine type"
            raise refused(
                InvalidTypeError, "add()", source, "a routine, a class of routines or a factory", fix=fix
            )
        return _called(source, f"{call_name(source)}()")

    def _ids(self) -> list[str]:
        return [added.id for added in self._added if added.id is not None]


def _called(make: Callable[[], object], call: str) -> Routine:
    try:
        made = make()
    except ConfigurationError:
        raise
    except Exception as error:  # the code of a class or factory
        raise InvalidValueError(f"add(): {call} raised {describe(error)}") from error
    if not isinstance(made, Routine):
        raise refused(InvalidTypeError, f"add(): what {call} made", made, "a routine")
    return made


def _attempt(problems: list[Issue], where: str, change: Callable[[], object]) -> bool:
    """Whether the model accepts a change; if not, it is one more problem."""
    try:
        change()
    except ConfigurationError as error:
        problems.append(Issue("error", _code(error), where, str(error), fix=""))
        return False
    return True


def _set_config(routine: Routine, config: object) -> None:
    if not isinstance(config, Mapping) or not all(isinstance(key, str) for key in config):
        raise refused(InvalidTypeError, f"config of {routine}", config, "a mapping with text keys")
    routine.set_config(**config)


def _set_concurrency(routine: Routine, n: int) -> None:
    routine.set_concurrency(n, by=routine.concurrency_by)


def _set_queues(routine: Routine, slots: object) -> None:
    if not isinstance(slots, Mapping):
        raise refused(InvalidTypeError, f"slots of {routine}", slots, "a mapping of slot to limits")
    for name, limits in slots.items():
        if not isinstance(limits, Mapping):
            fix = f"write {{{name!r}: {{'max_queue_length': 50}}}}"
            raise refused(InvalidTypeError, f"slot {name!r} of {routine}", limits, "its limits", fix=fix)
        for key in limits:
            if key not in LIMITS:
                raise unknown("limit", key, LIMITS, where=f"of slot {name!r} of {routine}")
        routine.set_queue(name, **limits)


_SETTERS: Final[Mapping[str, Callable[[Routine, Any], object]]] = {
    "config": _set_config,
    "activation": Routine.set_activation_policy,
    "error_handler": Routine.set_error_handler,
    "concurrency": _set_concurrency,
    "concurrency_by": lambda routine, by: routine.set_concurrency(routine.concurrency, by=by),
    "timeout": Routine.set_timeout,
    "slots": _set_queues,
}


def _split(end: object, kind: str) -> tuple[str, str]:
    routine_id, dot, name = end.partition(".") if isinstance(end, str) else ("", "", "")
    if not (routine_id and dot and name) or "." in name:
        raise refused(InvalidValueError, f"end of a connection ({kind})", end, f"'routine.{kind}'")
    return routine_id, name


def _routine_ids(*ends: object) -> tuple[str, ...]:
    return tuple(end.partition(".")[0] for end in ends if isinstance(end, str))


def _code(error: ConfigurationError) -> str:
    """``"unknown-routine"`` for an UnknownRoutineError."""
    name = type(error).__name__.removesuffix("Error")
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("-")


def _all_problems(flow: Flow, problems: list[Issue], unfinished: set[str]) -> FlowValidationError:
    issues = problems + validate(flow, unfinished=unfinished)
    errors = [issue for issue in issues if issue.severity == "error"]
    return FlowValidationError(refusal(flow.flow_id, errors), flow_id=flow.flow_id, issues=issues)
