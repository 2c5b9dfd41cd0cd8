"""A routine: a component of a flow, with slots in, events out, a policy that activates it, and logic."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Never, Self, TypeVar

from routilux.errors import (
    DuplicateNameError,
    FlowInUseError,
    InvalidTypeError,
    InvalidValueError,
    MissingPolicyError,
    NotInActivationError,
    RoutiluxError,
    StateError,
    refused,
    shown,
    unknown,
)
from routilux.model.calls import is_async
from routilux.model.config import check_config, declared_fields, fields_of
from routilux.model.context import left_behind, running
from routilux.model.event import Event
from routilux.model.logic import Logic, SlotData, logic_of_handlers, logic_problem
from routilux.model.policy import ActivationPolicy, ImmediatePolicy, lanes_problem
from routilux.model.recovery import ErrorHandler
from routilux.model.routine_state import RoutineState
from routilux.model.slot import Merge, Slot
from routilux.model.types import DeclaredType

if TYPE_CHECKING:
    from routilux.model.flow import Flow

P = TypeVar("P", Slot, Event)

_running_get = running.get
_warned: set[tuple[type, str]] = set()


_OTHER = "; take another name, such as 'my_{}'"
_OWN_ATTRIBUTES = {  # what a class attribute of the same name would hide, and what to write instead
    "state": f"what a routine remembers in a worker{_OTHER.format('state')}",
    "flow": f"the flow that it is in{_OTHER.format('flow')}",
    "routine_id": "its id in the flow, which add_routine() gives it",
    "slots": "made by add_slot(); call that in __init__",
    "events": "made by add_event(); call that in __init__",
    "config": "made by set_config(); call that in __init__",
    "activation_policy": "set by set_activation_policy(); call that in __init__",
    "error_handler": "set by set_error_handler(); call that in __init__",
    "concurrency": "set by set_concurrency(); call that in __init__",
    "timeout": "set by set_timeout(); call that in __init__",
}


class Routine:
    """Subclass it, declare slots, events and a policy in a constructor without parameters, and give it logic.

    One routine object serves every worker of its flow at once, so it holds no state of a run: what changes
    belongs into :attr:`state`, which each worker has its own of. While a worker lives nothing here can be changed.
    Everything that is refused raises a ``ConfigurationError`` or ``FlowInUseError`` and changes nothing.
    """

    config_type: ClassVar[type | None] = None
    """A dataclass that declares the config of the class; see :mod:`routilux.model.config`."""

    # Declarations live in name-mangled attributes: a subclass may use any other name for its own.

    __initialised: bool
    __slots: dict[str, Slot]
    __events: dict[str, Event]
    _config: dict[str, Any]
    __logic: Logic | None
    __policy: ActivationPolicy | None
    __error_handler: ErrorHandler | None
    __concurrency: int
    __concurrency_by: str | None
    __timeout: float | None
    __flow: Flow | None
    __routine_id: str

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, hint in _OWN_ATTRIBUTES.items():
            if getattr(cls, name) is not getattr(Routine, name):
                raise InvalidValueError(
                    f"the class {cls.__name__} has an attribute {name!r} of its own: self.{name} is {hint}"
                )

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        self.__initialised = False
        self.__slots, self.__events, self._config = {}, {}, {}
        self.__logic = self.__policy = self.__error_handler = None
        self.__concurrency, self.__concurrency_by, self.__timeout = 1, None, None
        self.__flow, self.__routine_id = None, ""
        return self

    def __init__(self) -> None:
        self.__initialised = True

    # -- declarations --------------------------------------------------------------------------------------

    def add_slot(
        self,
        name: str,
        *,
        handler: Callable[..., Any] | None = None,
        merge_strategy: str | Merge = "queue",
        max_queue_length: int = 1000,
        watermark: float = 0.8,
        on_full: str = "block",
        type: DeclaredType | None = None,
    ) -> Slot:
        """Declare an input.

        :param handler: the logic for this slot, called with the keys of the payload as arguments.
        :param merge_strategy: ``queue`` keeps items apart; ``override``, ``append`` or a callable
            ``(old, new) -> dict`` hands the logic one dict, merged over all that has arrived in the worker.
        :param watermark: the share of ``max_queue_length`` that a full queue falls to before producers go on.
        :param on_full: ``block`` the producer, raise an ``error``, ``drop_new`` or ``drop_old``.
        :param type: what payloads are checked against.
        """
        self._refuse_while_in_use("add_slot()")
        slot = Slot(
            name,
            self,
            handler=handler,
            merge_strategy=merge_strategy,
            max_queue_length=max_queue_length,
            watermark=watermark,
            on_full=on_full,
            type=type,
        )
        return self._declare("slot", self.__slots, slot)

    def add_event(
        self, name: str, output_params: Iterable[str] | None = None, *, type: DeclaredType | None = None
    ) -> Event:
        """Declare an output; ``output_params`` names the keys that are emitted on it."""
        self._refuse_while_in_use("add_event()")
        return self._declare("event", self.__events, Event(name, self, output_params, type))

    def set_queue(
        self,
        slot: str,
        *,
        max_queue_length: int | None = None,
        watermark: float | None = None,
        on_full: str | None = None,
    ) -> Self:
        """Change the limits of a declared slot; ``None`` leaves a setting as it is. See :meth:`add_slot`."""
        self._refuse_while_in_use("set_queue()")
        if slot not in self.__slots:
            raise self.unknown_slot(slot)
        self.__slots[slot].set_limits(max_queue_length, watermark, on_full)
        return self

    define_slot = add_slot
    define_event = add_event

    def set_config(self, /, **values: Any) -> Self:
        """Set static parameters; those set before keep their values. Checked if ``config_type`` is declared."""
        self._refuse_while_in_use("set_config()")
        if self.config_type is not None:
            self._check_config(values)
        before = self._config.copy()
        self._config.update(values)
        try:
            self.config_changed()
        except BaseException:
            self._config.clear()
            self._config.update(before)
            raise
        return self

    def config_changed(self) -> None:
        """Called after the config has changed; override it to declare slots and events that depend on it.

        May be called with some required keys still missing, and more than once. What it raises undoes the change.
        """

    def set_logic(self, fn: Logic) -> Self:
        """Set the logic, called by position as ``fn(slot_data, policy_message, state)``; plain or async."""
        self._refuse_while_in_use("set_logic()")
        problem = logic_problem(fn, str(self))
        if problem:
            raise problem
        self.__logic = fn
        return self

    def set_activation_policy(self, policy: ActivationPolicy) -> Self:
        self._refuse_while_in_use("set_activation_policy()")
        if not isinstance(policy, ActivationPolicy):
            name = getattr(policy, "__name__", "fn")
            fix = f"call it: {name}()" if name.endswith("_policy") else f"wrap it: custom_policy({name})"
            where = f"activation policy of {self}"
            fix = fix if callable(policy) else "see routilux.activation_policies"
            raise refused(InvalidTypeError, where, policy, "an activation policy", fix=fix)
        self.__policy = policy
        return self

    def set_error_handler(self, handler: ErrorHandler | None) -> Self:
        """Handle failures of this routine differently from the flow's error handler; ``None`` undoes it."""
        self._refuse_while_in_use("set_error_handler()")
        if handler is not None and not isinstance(handler, ErrorHandler):
            raise refused(InvalidTypeError, f"error handler of {self}", handler, "an ErrorHandler")
        self.__error_handler = handler
        return self

    def set_concurrency(self, n: int, *, by: str | None = None) -> Self:
        """Allow ``n`` activations at once in a worker; with 1, the default, there is no overlap.

        With more than 1 what comes of them has no order, and an activation that is tried again holds back its own
        items only.

        :param by: a key of the payloads: at most one activation per value, in order, and different values side by
            side. A retry holds back its own value only. Every payload must have the key, with something hashable.
            ``"job"`` keeps jobs apart instead. An activation takes items of one value: by ``immediate_policy()``,
            or by ``all_slots_ready_policy(by=)`` with the same key.

        ::

            self.set_concurrency(20, by="customer")
        """
        self._refuse_while_in_use("set_concurrency()")
        if type(n) is not int:
            raise refused(InvalidTypeError, f"concurrency of {self}", n, "a whole number")
        if n < 1:
            raise refused(InvalidValueError, f"concurrency of {self}", n, "at least 1")
        if by is not None:
            self._check_lanes(by)
        self.__concurrency, self.__concurrency_by = n, by
        return self

    def set_timeout(self, seconds: float | None) -> Self:
        """Let an activation fail after this many seconds; ``None`` gives it all the time it needs."""
        self._refuse_while_in_use("set_timeout()")
        self.__timeout = checked_seconds(f"timeout of {self}", seconds)
        return self

    # -- while it runs -------------------------------------------------------------------------------------

    def logic(self, slot_data: SlotData, policy_message: Any, state: Any) -> Any:
        """What the routine does; override it (plain or async), or call :meth:`set_logic`. What it has made it emits: a
        value that it returns goes nowhere, and a warning says so once.

        :param slot_data: by slot, the payloads that the policy took. A slot it took none from gives ``[]``.
        :param policy_message: what the policy wants the logic to know, usually ``None``.
        :param state: the ``WorkerState``, in a one-shot execution the ``JobState``.
        """
        raise NotImplementedError(f"{self} has no logic")

    @property
    def state(self) -> RoutineState:
        """What this routine remembers in the worker that it runs in: a mapping to read, assign to and update.

        Only inside an activation of this routine, on any thread or task that belongs to it::

            self.state.add("seen")
            self.state["longest"] = max(self.state.get("longest", 0), length)

        A parameter of the logic may be called ``state`` too: that is the worker's. From outside, and from other
        routines, this is read with ``worker.get_routine_state(routine_id)``.
        """
        activation = _running_get()
        if activation is None or activation.routine is not self:
            raise self._not_in_activation("state", "read worker.get_routine_state(routine_id) from outside")
        return activation.routine_state

    def emit(self, event: Event | str, /, *misplaced: Never, **data: Any) -> None:
        """Send a payload to every slot that the event is connected to.

        Only inside an activation of this routine, on any thread or task that belongs to it. With nothing
        connected the payload becomes an output of the job. Waits while a connected slot is full.

        In a worker with a store it does not wait: the payload, which needs a JSON form, is delivered when the
        activation has ended or reaches a checkpoint, and not at all if it fails.
        """
        activation = _running_get()
        if activation is None or activation.routine is not self:
            raise self._not_in_activation("emit()")
        if misplaced:
            raise _given_by_place("emit", getattr(event, "name", event), misplaced[0])
        activation.emit(event, data)

    def send_output(self, output_type: str, /, *misplaced: Never, **data: Any) -> None:
        """Send to the output handler and the output log of the execution. Only inside an activation.

        The handler hears it at once, and again if the activation is tried again. Neither is kept in a store.
        """
        activation = _running_get()
        if activation is None or activation.routine is not self:
            raise self._not_in_activation("send_output()")
        if not isinstance(output_type, str):
            raise refused(
                InvalidTypeError, f"send_output() of {self}", output_type, "a type of output, as text"
            )
        if misplaced:
            raise _given_by_place("send_output", output_type, misplaced[0])
        activation.send_output(output_type, data)

    def stats(self, state: Any = None) -> dict[str, Any]:
        """State and counters of this routine in a worker.

        :param state: the ``WorkerState`` of the worker; may be left out inside an activation.
        """
        activation = _running_get()
        if activation is not None:
            return activation.routine_stats(self, state)
        if state is None:
            raise self._not_in_activation("stats()")
        counters: dict[str, Any] = state.counters(self.routine_id)
        return {**state.get_routine_state(self.routine_id, {}), **counters}

    # -- looking in ----------------------------------------------------------------------------------------

    @property
    def routine_id(self) -> str:
        """The id in its flow; empty before it is added to one."""
        return self.__routine_id

    @property
    def flow(self) -> Flow | None:
        return self.__flow

    @property
    def slots(self) -> Mapping[str, Slot]:
        return MappingProxyType(self.__slots)

    @property
    def events(self) -> Mapping[str, Event]:
        return MappingProxyType(self.__events)

    @property
    def config(self) -> Mapping[str, Any]:
        return MappingProxyType(self._config)

    def get_config(self, key: str, default: Any = None) -> Any:
        """The value that was set, else ``default`` if given, else the default that ``config_type`` declares. Raises
        InvalidValueError for a key that it does not declare, where no ``default`` is given."""
        if key in self._config or default is not None or self.config_type is None:
            return self._config.get(key, default)
        declared = {field.name: field.default for field in fields_of(self.config_type)}
        if key not in declared:
            raise unknown("config key", key, declared, where=f"of {self}", fix="or give a default")
        return declared[key]

    @property
    def activation_policy(self) -> ActivationPolicy | None:
        """As it was set."""
        return self.__policy

    @property
    def effective_policy(self) -> ActivationPolicy:
        """As it was set; with slot handlers the immediate policy if none was."""
        if self.__policy is not None:
            return self.__policy
        if self.has_handlers:
            return ImmediatePolicy()
        raise MissingPolicyError(f"{self} has no activation policy; call set_activation_policy()")

    @property
    def error_handler(self) -> ErrorHandler | None:
        return self.__error_handler

    @property
    def concurrency(self) -> int:
        return self.__concurrency

    @property
    def concurrency_by(self) -> str | None:
        """The payload key whose values activations are kept apart by, if :meth:`set_concurrency` was given one."""
        return self.__concurrency_by

    @property
    def timeout(self) -> float | None:
        return self.__timeout

    @property
    def has_handlers(self) -> bool:
        return any(slot.handler is not None for slot in self.__slots.values())

    @property
    def own_logic(self) -> Logic | None:
        """What :meth:`set_logic` was given, else the overridden :meth:`logic`, else ``None``."""
        if self.__logic is not None:
            return self.__logic
        inherited = getattr(self.logic, "__func__", None) is Routine.logic
        return None if inherited else self.logic

    @property
    def bound_logic(self) -> Logic:
        """What is called in an activation, as ``logic(slot_data, policy_message, state)``."""
        return self.own_logic or logic_of_handlers(self.__slots)

    @property
    def is_async(self) -> bool:
        return is_async(self.bound_logic)

    @property
    def initialised(self) -> bool:
        """Whether the constructor of a subclass has called ``super().__init__()``."""
        return self.__initialised

    def event_name(self, event: object) -> str:
        """The name of an event, given as name or object; ``UnknownEventError`` if it is not one of these."""
        name = event.name if isinstance(event, Event) and event.routine is self else event
        if isinstance(name, str) and name in self.__events:
            return name
        raise self.unknown_event(event)

    def unknown_event(self, event: object) -> RoutiluxError:
        """The error for an event that this routine does not have."""
        fix = (
            f"declare it with add_event({shown(event)})"
            if isinstance(event, str)
            else "emit one of its own events"
        )
        return unknown("event", event, self.__events, where=f"in {self}", fix=fix, routine_id=self.routine_id)

    def unknown_slot(self, slot: object) -> RoutiluxError:
        """The error for a slot that this routine does not have."""
        return unknown("slot", slot, self.__slots, where=f"in {self}", routine_id=self.routine_id)

    def __str__(self) -> str:
        kind = type(self).__name__
        return f"routine {self.__routine_id!r} ({kind})" if self.__routine_id else f"routine {kind}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.__routine_id!r}>"

    # -- for the flow --------------------------------------------------------------------------------------

    def attach(self, flow: Flow, routine_id: str) -> None:
        """Called by the flow that this routine is added to."""
        self.__flow, self.__routine_id = flow, routine_id

    def detach(self) -> None:
        """Called by the flow that this routine is removed from."""
        self.__flow, self.__routine_id = None, ""

    # -- refusals ------------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: object) -> None:
        activation = _running_get()
        if name == "state":
            if isinstance(value, RoutineState) and activation is not None and activation.routine is self:
                return  # self.state |= ...
            raise InvalidValueError(
                f"{type(self).__name__}.state cannot be assigned: it is what the routine remembers in a worker. Assign "
                "to its keys, inside logic: self.state['key'] = value; for an attribute take another name"
            )
        if activation is not None and activation.routine is self:
            self._assigned_while_running(name, activation.debug)
        if hasattr(Routine, name) and name != "logic" and not name.startswith("__"):
            raise InvalidValueError(
                f"{type(self).__name__}.{name} cannot be assigned: every routine has {name!r} already; "
                f"use its set_… method if it has one, or another name such as 'my_{name}'"
            )
        super().__setattr__(name, value)

    def _assigned_while_running(self, name: str, debug: bool) -> None:
        kind = type(self)
        message = (
            f"{kind.__name__}.{name} is assigned during an activation of {self}, which all workers of its "
            f"flow share; keep it in the worker: self.state[{name!r}] = ..."
        )
        if debug:
            raise StateError(message, routine_id=self.routine_id)
        if (kind, name) not in _warned:
            _warned.add((kind, name))
            warnings.warn(message, RuntimeWarning, stacklevel=3)

    def _declare(self, kind: str, declared: dict[str, P], port: P) -> P:
        if port.name in declared:
            raise DuplicateNameError(
                f"{self} has {kind} {port.name!r} already; choose another name than {shown(list(declared))}",
                routine_id=self.routine_id,
                known=tuple(declared),
            )
        declared[port.name] = port
        return port

    def _check_config(self, values: Mapping[str, Any]) -> None:
        problems = check_config(type(self), values, complete=False)
        if not problems:
            return
        first = problems[0]
        if first.kind == "unknown" and len(first.path) == 1:
            known = [field.name for field in declared_fields(type(self)) or ()]
            raise unknown("config key", first.key, known, where=f"of {self}", routine_id=self.routine_id)
        error = InvalidTypeError if first.kind == "type" else InvalidValueError
        where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first.path)
        close = f"; the nearest are {', '.join(first.nearest)}" if first.nearest else ""
        raise error(f"config{where} of {self}: {first.message}{close}", routine_id=self.routine_id)

    def _check_lanes(self, by: object) -> None:
        where = f"concurrency of {self}"
        if not isinstance(by, str) or not by:
            raise refused(InvalidTypeError, f"{where} (by)", by, 'None, "job" or a payload key')
        problem = None if self.__policy is None else lanes_problem(self.__policy, by)
        if problem is not None:
            raise InvalidValueError(f"{where}: by={by!r}, but {problem[0]}; {problem[1]}")

    def _refuse_while_in_use(self, action: str) -> None:
        flow = self.__flow
        if flow is not None and flow.in_use:
            raise FlowInUseError(
                f"{action} of {self}: flow {flow.flow_id!r} has {flow.in_use} live worker(s), and a routine "
                "stays as it is while one lives; stop them first, or build another flow",
                flow_id=flow.flow_id,
                routine_id=self.routine_id,
            )

    def _not_in_activation(self, what: str, otherwise: str = "") -> Exception:
        activation, gone = _running_get(), left_behind.get()
        if gone is not None and activation is None:
            return gone
        if activation is None:
            reason = (
                "no activation runs in this thread; use it inside the logic. A thread that the logic starts "
                "needs its context: Thread(target=contextvars.copy_context().run, args=(fn,))"
            )
        else:
            reason = f"the activation that runs here is of {activation.routine}; use that one's {what}"
        reason = f"{reason}; {otherwise}" if otherwise else reason
        return NotInActivationError(f"{what} of {self}: {reason}", routine_id=self.routine_id)


def _given_by_place(call: str, name: object, given: object) -> InvalidTypeError:
    data = "**data" if isinstance(given, Mapping) else "key=value"
    fix = f"write {call}({shown(name)}, {data})"
    return refused(
        InvalidTypeError, f"{call}({shown(name)})", given, "a payload as keyword arguments", fix=fix
    )


def checked_seconds(where: str, seconds: object) -> float | None:
    """Return a time-out, or raise a ``ConfigurationError`` if it can be none."""
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise refused(InvalidTypeError, where, seconds, "a number of seconds")
    if not 0 < seconds < float("inf"):
        raise refused(InvalidValueError, where, seconds, "more than 0 seconds", fix="None means no limit")
    return float(seconds)
