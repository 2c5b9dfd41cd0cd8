"""A flow: routines, connections and static settings. A template, without any state of a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from routilux.errors import (
    DuplicateNameError,
    FlowInUseError,
    InvalidTypeError,
    InvalidValueError,
    StateError,
    refused,
    unknown,
)
from routilux.model import entry, graph, validation
from routilux.model.calls import parameters_of_constructor
from routilux.model.connection import Connection, check_mapping, check_types
from routilux.model.ends import find_event, find_slot
from routilux.model.names import checked_name
from routilux.model.recovery import ErrorHandler
from routilux.model.routine import Routine, checked_seconds

if TYPE_CHECKING:
    from routilux.model.event import Event
    from routilux.model.slot import Slot
    from routilux.model.validation import Issue

    # Only annotations name them, and a protocol takes long to make.
    class Execution(Protocol):
        """What runs flows. The model cannot import the runtime, so the runtime binds itself on import."""

        def execute(
            self,
            flow: Flow,
            entry_routine_id: str | None,
            entry_params: Mapping[str, Any] | None,
            timeout: float | None,
        ) -> Any: ...
        def pause(self, state: Any) -> None: ...
        def resume(self, state: Any) -> None: ...
        def cancel(self, state: Any) -> None: ...
        def wait_for_completion(self, state: Any, timeout: float | None) -> bool: ...

    class Documents(Protocol):
        """What reads and writes flows as documents, and knows routine types by name.

        The modules of ``routilux.dsl``, which the model cannot import.
        """

        def create(self, name: str) -> Routine: ...
        def from_dict(self, data: Mapping[str, Any], **options: Any) -> Flow: ...
        def loads_yaml(self, text: str | bytes, **options: Any) -> Flow: ...
        def loads_json(self, text: str | bytes, **options: Any) -> Flow: ...
        def load(self, path: str | os.PathLike[str], **options: Any) -> Flow: ...
        def to_dict(self, flow: Flow, **options: Any) -> dict[str, Any]: ...
        def dumps_yaml(self, flow: Flow, **options: Any) -> str: ...
        def dumps_json(self, flow: Flow, **options: Any) -> str: ...
        def save(self, flow: Flow, path: str | os.PathLike[str], **options: Any) -> None: ...


STRATEGIES: Final = ("sequential", "concurrent")


_execution: Execution | None = None


def bind_execution(execution: Execution) -> None:
    """Called once, by the runtime package."""
    global _execution
    _execution = execution


def _bound_execution() -> Execution:
    if _execution is None:
        raise StateError("there is no runtime to run a flow with yet; import routilux.runtime first")
    return _execution


_load_documents: Callable[[], Documents] | None = None


def bind_documents(load: Callable[[], Documents]) -> None:
    """Called once, by ``routilux.ports``; ``load`` is called when a document is first read or written."""
    global _load_documents
    _load_documents = load


def documents() -> Documents:
    assert _load_documents is not None, "routilux.ports binds it, which the runtime imports"
    return _load_documents()


class Flow:
    """Add routines, connect their events to slots, then give it to a runtime, any number of times.

    While a worker of the flow lives, everything that would change it raises :class:`FlowInUseError`. Whatever
    is refused changes nothing. Build a flow on one thread.

    :param flow_id: made up if not given.
    :param execution_strategy: ``"sequential"`` is one activation at a time in a worker, in a deterministic
        order; ``"concurrent"`` is as many as the pool allows; ``None`` leaves it to what runs the flow.
    :param max_workers: the most activations at once in a worker.
    :param execution_timeout: seconds that a one-shot execution may take.
    """

    def __init__(
        self,
        flow_id: str | None = None,
        *,
        execution_strategy: str | None = None,
        max_workers: int | None = None,
        execution_timeout: float | None = None,
    ) -> None:
        if flow_id is None:
            flow_id = f"flow-{os.urandom(6).hex()}"
        self._flow_id = checked_name("flow", flow_id, dots=True)
        self._execution_strategy = _strategy(execution_strategy)
        self._max_workers = _max_workers(max_workers)
        self._execution_timeout = checked_seconds("execution_timeout", execution_timeout)
        self._routines: dict[str, Routine] = {}
        self._connections: dict[tuple[Event, Slot], Connection] = {}
        self._by_event: dict[tuple[str, str], tuple[Connection, ...]] = {}
        self._by_slot: dict[tuple[str, str], tuple[Connection, ...]] = {}
        self._entry: tuple[str, str | None] | None = None
        self._error_handler: ErrorHandler | None = None
        self._workers: set[str] = set()
        self._descriptions: dict[str, str] = {}

    # -- routines ------------------------------------------------------------------------------------------

    def add_routine(self, routine: Routine, routine_id: str | None = None) -> str:
        """Add a routine and return its id, which is made of its class's name if none is given."""
        self._refuse_while_in_use("add_routine()")
        self._check_routine(routine)
        if routine_id is None:
            routine_id = self._free_id(type(routine).__name__)
        elif checked_name("routine", routine_id) in self._routines:
            raise DuplicateNameError(
                f"flow {self._flow_id!r} has a routine {routine_id!r} already "
                f"({type(self._routines[routine_id]).__name__}); choose another id, or remove that one first",
                flow_id=self._flow_id,
                routine_id=routine_id,
                known=tuple(self._routines),
            )
        self._routines[routine_id] = routine
        routine.attach(self, routine_id)
        return routine_id

    def remove_routine(self, routine_id: str | Routine) -> Routine:
        """Take a routine out, with its connections and the entry if that is one of its slots; return it."""
        self._refuse_while_in_use("remove_routine()")
        routine = self._find_routine(routine_id, "to remove")
        removed = routine.routine_id
        self._set_connections(c for c in self.connections if removed not in (c.ends[0], c.ends[2]))
        del self._routines[removed]
        self._descriptions.pop(removed, None)
        if self._entry is not None and self._entry[0] == removed:
            self._entry = None
        routine.detach()
        return routine

    # -- connections ---------------------------------------------------------------------------------------

    def connect(
        self,
        source: str | Routine,
        event: str | Event,
        target: str | Routine,
        slot: str | Slot,
        *,
        mapping: Mapping[str, str] | None = None,
    ) -> Connection:
        """Let everything that is emitted on an event enter a slot.

        :param mapping: ``{source key: target key}``, renamed on the way; other keys pass unchanged.
        """
        self._refuse_while_in_use("connect()")
        from_event, to_slot = self._find_ends(source, event, target, slot)
        connection = Connection(from_event, to_slot, self._checked_mapping(mapping, from_event, to_slot))
        if (from_event, to_slot) in self._connections:
            raise DuplicateNameError(
                f"{connection} is connected already in flow {self._flow_id!r}; each item would arrive twice. "
                "To change the mapping, disconnect() first",
                flow_id=self._flow_id,
            )
        self._put(connection)
        return connection

    def disconnect(
        self, source: str | Routine, event: str | Event, target: str | Routine, slot: str | Slot
    ) -> Connection:
        """Undo a connection; return it."""
        self._refuse_while_in_use("disconnect()")
        from_event, to_slot = self._find_ends(source, event, target, slot)
        connection = self._connections.get((from_event, to_slot))
        if connection is None:
            wanted = f"{from_event.qualified_name} -> {to_slot.qualified_name}"
            where = f"in flow {self._flow_id!r}"
            raise unknown(
                "connection", wanted, map(str, self.connections), where=where, flow_id=self._flow_id
            )
        self._set_connections(c for c in self.connections if c is not connection)
        return connection

    def connections_from(self, routine_id: str, event_name: str) -> tuple[Connection, ...]:
        """In the order in which they were made, which is the order of delivery. Raises UnknownRoutineError and
        UnknownEventError."""
        found = self._by_event.get((routine_id, event_name), ())
        if not found:
            self._find_routine(routine_id, "to look at").event_name(event_name)
        return found

    def connections_to(self, routine_id: str, slot_name: str) -> tuple[Connection, ...]:
        """In the order in which they were made. Raises UnknownRoutineError and UnknownSlotError."""
        found = self._by_slot.get((routine_id, slot_name), ())
        if not found:
            find_slot(self._find_routine(routine_id, "to look at"), slot_name)
        return found

    # -- settings ------------------------------------------------------------------------------------------

    def set_entry(self, routine_id: str | Routine, slot: str | Slot | None = None) -> Self:
        """Say where the data of a one-shot execution goes in; ``slot`` may be left out if it is clear."""
        self._refuse_while_in_use("set_entry()")
        routine = self._find_routine(routine_id, "to enter by")
        name = None if slot is None else find_slot(routine, slot).name
        self._entry = (routine.routine_id, name)
        return self

    def set_error_handler(self, handler: ErrorHandler | None) -> Self:
        """Say what happens when an activation fails, for the routines that do not say it themselves."""
        self._refuse_while_in_use("set_error_handler()")
        if handler is not None and not isinstance(handler, ErrorHandler):
            where = f"error handler of flow {self._flow_id!r}"
            raise refused(InvalidTypeError, where, handler, "an ErrorHandler")
        self._error_handler = handler
        return self

    def describe(self, text: str, routine_id: str | Routine | None = None) -> Self:
        """Say in words what the flow, or one of its routines, is for; an empty text takes it back."""
        self._refuse_while_in_use("describe()")
        if not isinstance(text, str):
            raise refused(InvalidTypeError, f"description in flow {self._flow_id!r}", text, "text")
        key = "" if routine_id is None else self._find_routine(routine_id, "to describe").routine_id
        self._descriptions[key] = text
        return self

    # -- looking in ----------------------------------------------------------------------------------------

    def description(self, routine_id: str | None = None) -> str:
        """What :meth:`describe` was given for the flow, or for a routine; empty if nothing. Raises
        UnknownRoutineError."""
        if routine_id is not None:
            self._find_routine(routine_id, "to look at")
        return self._descriptions.get(routine_id or "", "")

    @property
    def flow_id(self) -> str:
        return self._flow_id

    @property
    def execution_strategy(self) -> str | None:
        return self._execution_strategy

    @property
    def max_workers(self) -> int | None:
        return self._max_workers

    @property
    def execution_timeout(self) -> float | None:
        return self._execution_timeout

    @property
    def routines(self) -> Mapping[str, Routine]:
        return MappingProxyType(self._routines)

    @property
    def connections(self) -> tuple[Connection, ...]:
        return tuple(self._connections.values())

    @property
    def error_handler(self) -> ErrorHandler | None:
        return self._error_handler

    @property
    def entry(self) -> tuple[str, str | None] | None:
        """What :meth:`set_entry` was given: routine id, and slot or ``None``."""
        return self._entry

    def resolve_entry(self, given: str | None = None) -> tuple[str, str]:
        """Where ``entry_params`` go: routine id and slot; ``ConfigurationError`` if that is not clear."""
        return entry.resolve_entry(self, given)

    def validate(self) -> list[Issue]:
        """Everything that is wrong or looks wrong, errors first; empty if all is well."""
        return validation.validate(self)

    def check(self) -> list[Issue]:
        """Raise ``MissingPolicyError`` or ``FlowValidationError`` if :meth:`validate` finds an error.

        Returns what only looks wrong.
        """
        return validation.check(self)

    def fingerprint(self) -> str:
        """Equal for flows of the same shape, in every process; see :mod:`routilux.model.fingerprint`."""
        from routilux.model.fingerprint import fingerprint  # only where something is stored

        return fingerprint(self)

    def cycle_path(self, routine_id: str) -> str | None:
        """A shortest cycle through a routine, as ``"a.out -> b.in -> b.out -> a.in"``, or ``None``. Raises
        UnknownRoutineError."""
        self._find_routine(routine_id, "to look at")
        return graph.cycle_path(self, routine_id)

    def to_mermaid(self) -> str:
        from routilux.model import diagram  # few draw one

        return diagram.to_mermaid(self)

    def to_dot(self) -> str:
        from routilux.model import diagram

        return diagram.to_dot(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """For notebooks."""
        from routilux.model import diagram

        return {
            "text/vnd.mermaid": diagram.to_mermaid(self),
            "text/html": diagram.to_html(self),
            "text/plain": repr(self),
        }

    def __repr__(self) -> str:
        counts = f"{len(self._routines)} routines, {len(self._connections)} connections"
        return f"<Flow {self._flow_id!r}: {counts}>"

    # -- as a document -------------------------------------------------------------------------------------
    # Options of all: ``registry=`` (a RoutineRegistry; the default one if not given), and ``allow_imports=`` (a
    # tuple of packages from which classes may be named by dotted path; none if not given).

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], **options: Any) -> Flow:
        """The flow of a document; ``DslError`` with all problems at once if it is not right."""
        return documents().from_dict(data, **options)

    @classmethod
    def from_yaml(cls, text: str | bytes, **options: Any) -> Flow:
        """As :meth:`from_dict`, of YAML 1.2; problems name line and column."""
        return documents().loads_yaml(text, **options)

    @classmethod
    def from_json(cls, text: str | bytes, **options: Any) -> Flow:
        return documents().loads_json(text, **options)

    @classmethod
    def load(cls, path: str | os.PathLike[str], **options: Any) -> Flow:
        """As :meth:`from_yaml`, of a file ``*.yaml`` or ``*.yml``, or as :meth:`from_json` of ``*.json``."""
        return documents().load(path, **options)

    def to_dict(self, **options: Any) -> dict[str, Any]:
        """The document that :meth:`from_dict` makes this flow of; ``SerializationError`` if there is none."""
        return documents().to_dict(self, **options)

    def to_yaml(self, **options: Any) -> str:
        return documents().dumps_yaml(self, **options)

    def to_json(self, **options: Any) -> str:
        return documents().dumps_json(self, **options)

    def save(self, path: str | os.PathLike[str], **options: Any) -> None:
        """Write a file ``*.yaml``, ``*.yml`` or ``*.json``, whole or not at all."""
        documents().save(self, path, **options)

    # -- running -------------------------------------------------------------------------------------------

    def execute(
        self,
        entry_routine_id: str | None = None,
        entry_params: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> Any:
        """Run one job to its end, on a runtime of its own; return its ``JobState``. ``timeout``: seconds."""
        return _bound_execution().execute(self, entry_routine_id, entry_params, timeout)

    def pause(self, state: Any) -> None:
        """Pause the execution of a ``JobState`` or ``WorkerState``, in the runtime that runs it."""
        _bound_execution().pause(state)

    def resume(self, state: Any) -> None:
        _bound_execution().resume(state)

    def cancel(self, state: Any) -> None:
        _bound_execution().cancel(state)

    def wait_for_completion(self, state: Any, timeout: float | None = None) -> bool:
        """Whether the execution has ended within ``timeout`` seconds."""
        return _bound_execution().wait_for_completion(state, timeout)

    @property
    def in_use(self) -> int:
        """The number of live workers."""
        return len(self._workers)

    def hold(self, worker_id: str) -> None:
        """Called by the runtime when a worker starts: nothing of the flow may change until ``let_go``."""
        self._workers.add(worker_id)

    def let_go(self, worker_id: str) -> None:
        """Called by the runtime when a worker has ended."""
        self._workers.discard(worker_id)

    # -- inside --------------------------------------------------------------------------------------------

    def _check_routine(self, routine: object) -> None:
        where = f"add_routine() of flow {self._flow_id!r}"
        if isinstance(routine, type) and issubclass(routine, Routine):
            fix = f"add an object: {routine.__name__}()"
            raise refused(InvalidTypeError, where, routine, "a routine", fix=fix)
        if not isinstance(routine, Routine):
            raise refused(InvalidTypeError, where, routine, "a routine, an object of a subclass of Routine")
        kind = type(routine).__name__
        if not routine.initialised:
            raise InvalidValueError(f"{where}: {kind}.__init__ must begin with super().__init__()")
        parameters = parameters_of_constructor(type(routine))
        if parameters:
            raise InvalidTypeError(
                f"{where}: {kind}.__init__ has parameters {parameters}, and a routine is restored from its "
                f"class and config alone; take them with {kind}().set_config({parameters[0]}=...) instead"
            )
        if routine.flow is not None:
            place = "this flow" if routine.flow is self else f"flow {routine.flow.flow_id!r}"
            raise DuplicateNameError(
                f"{where}: {routine} belongs to {place} already; make another object with {kind}()",
                flow_id=self._flow_id,
                routine_id=routine.routine_id,
            )

    def _free_id(self, name: str) -> str:
        candidate, number = name, 1
        while candidate in self._routines:
            number += 1
            candidate = f"{name}_{number}"
        return candidate

    def _find_routine(self, routine: object, what_for: str) -> Routine:
        if isinstance(routine, Routine):
            if routine.flow is self:
                return routine
            raise InvalidValueError(
                f"{routine} is not in flow {self._flow_id!r}; add it first with add_routine()",
                flow_id=self._flow_id,
            )
        if not isinstance(routine, str):
            raise refused(
                InvalidTypeError, f"routine {what_for}", routine, "the id of a routine, or the routine"
            )
        if routine not in self._routines:
            where = f"in flow {self._flow_id!r} {what_for}"
            fix = "add it first with add_routine()"
            ids = {"flow_id": self._flow_id, "routine_id": routine}
            raise unknown("routine", routine, self._routines, where=where, fix=fix, **ids)
        return self._routines[routine]

    def _find_ends(self, source: object, event: object, target: object, slot: object) -> tuple[Event, Slot]:
        from_routine = self._find_routine(source, "to connect from")
        to_routine = self._find_routine(target, "to connect to")
        return find_event(from_routine, event, to_routine, slot), find_slot(to_routine, slot)

    def _checked_mapping(self, mapping: Any, event: Event, slot: Slot) -> Mapping[str, str] | None:
        check_mapping(mapping, event)
        check_types(event, slot, mapping)
        return mapping or None

    def _put(self, connection: Connection) -> None:
        source, event, target, slot = connection.ends
        self._connections[connection.source, connection.target] = connection
        self._by_event[source, event] = (*self._by_event.get((source, event), ()), connection)
        self._by_slot[target, slot] = (*self._by_slot.get((target, slot), ()), connection)

    def _set_connections(self, connections: Any) -> None:
        kept = list(connections)
        self._connections, self._by_event, self._by_slot = {}, {}, {}
        for connection in kept:
            self._put(connection)

    def _refuse_while_in_use(self, action: str) -> None:
        if self._workers:
            raise FlowInUseError(
                f"{action}: flow {self._flow_id!r} has {self.in_use} live worker(s), and a flow stays "
                "as it is while one lives; stop them first, or build another flow",
                flow_id=self._flow_id,
            )


def _strategy(strategy: str | None) -> str | None:
    if strategy is not None and strategy not in STRATEGIES:
        raise unknown("execution strategy", strategy, STRATEGIES)
    return strategy


def _max_workers(n: int | None) -> int | None:
    if n is None:
        return None
    if type(n) is not int:
        raise refused(InvalidTypeError, "max_workers", n, "a whole number")
    if n < 1:
        raise refused(InvalidValueError, "max_workers", n, "at least 1")
    return n
