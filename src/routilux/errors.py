"""Everything that Routilux raises: one tree, and one place for the wording of its messages.

::

    RoutiluxError
    ├── ConfigurationError            wrong set-up
    │   ├── UnknownFlowError          KeyError
    │   ├── UnknownRoutineError       KeyError
    │   ├── UnknownSlotError          KeyError
    │   ├── UnknownEventError         KeyError
    │   ├── UnknownWorkerError        KeyError
    │   ├── UnknownJobError           KeyError
    │   ├── DuplicateNameError        ValueError
    │   ├── InvalidValueError         ValueError
    │   ├── FlowValidationError       ValueError; has issues
    │   ├── MissingPolicyError        ValueError; has issues
    │   ├── InvalidTypeError          TypeError
    │   └── IncompatibleTypesError    TypeError
    ├── StateError                    right call, wrong moment
    │   ├── FlowInUseError            a worker of the flow lives
    │   ├── FlowChangedError          a stored worker was left by the flow in another shape
    │   ├── RuntimeClosedError
    │   ├── WorkerNotRunningError
    │   ├── NotInActivationError
    │   ├── InsideActivationError     a blocking wait inside a routine
    │   ├── ForkedRuntimeError
    │   └── IdempotencyConflictError
    ├── ExecutionError                the runtime could not carry it out
    │   ├── ExecutionTimeoutError     TimeoutError
    │   ├── QueueFullError
    │   ├── DeadlockError
    │   ├── JobCancelledError
    │   ├── PoisonItemError
    │   └── StoreError
    │       ├── StoreUnknownError
    │       ├── StoreFullError
    │       ├── StoreLockedError
    │       ├── StoreDataError        it can never write this
    │       ├── StoreFencedError      another process has taken the worker over
    │       └── StoreCorruptError
    ├── SlotHandlerError              user code raised; __cause__ is the original
    └── SerializationError            has path, such as "$.order.client"

A message says what was given and where, what was expected, the nearest existing names, and the fix.
:func:`unknown` and :func:`refused` word the common ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar


class RoutiluxError(Exception):
    """The root of the tree. The ids that an error is about are attributes, ``None`` where none applies."""

    flow_id: str | None = None
    routine_id: str | None = None
    slot: str | None = None
    event: str | None = None
    worker_id: str | None = None
    job_id: str | None = None
    known: Sequence[str] = ()
    """The names that exist, where the error is about a name that does not."""
    traceback: str | None = None
    """Of the user's exception that the error stands for, as text, also when it was read back from a store. It is a
    note of the error, so that Python shows it."""

    def __init__(self, message: str = "", **attributes: Any) -> None:
        super().__init__(message)
        self.message = message
        self.__dict__.update(attributes)
        if self.traceback is not None:
            self.add_note(self.traceback.rstrip("\n"))

    def __str__(self) -> str:
        return self.message  # a KeyError would show its repr


class ConfigurationError(RoutiluxError):
    """Wrong set-up: a name, a value or a type that cannot work. Each leaf is a built-in error too."""


class UnknownFlowError(ConfigurationError, KeyError):
    pass


class UnknownRoutineError(ConfigurationError, KeyError):
    pass


class UnknownSlotError(ConfigurationError, KeyError):
    pass


class UnknownEventError(ConfigurationError, KeyError):
    pass


class UnknownWorkerError(ConfigurationError, KeyError):
    pass


class UnknownJobError(ConfigurationError, KeyError):
    pass


class DuplicateNameError(ConfigurationError, ValueError):
    pass


class InvalidValueError(ConfigurationError, ValueError):
    pass


class FlowValidationError(ConfigurationError, ValueError):
    """A flow cannot run as it is; ``issues`` holds everything that was found, warnings included."""

    issues: Sequence[Any] = ()


class MissingPolicyError(ConfigurationError, ValueError):
    """Routines without an activation policy would never run; ``issues`` holds everything that was found."""

    issues: Sequence[Any] = ()


class InvalidTypeError(ConfigurationError, TypeError):
    pass


class IncompatibleTypesError(ConfigurationError, TypeError):
    """The types declared at the two ends of a connection do not fit."""

    field: str | None = None


class StateError(RoutiluxError):
    """The right call at the wrong moment."""


class FlowInUseError(StateError):
    """A flow or one of its routines would be changed while a worker of it lives."""


class FlowChangedError(StateError):
    """A worker in a store was left by a flow of another shape."""


class RuntimeClosedError(StateError):
    pass


class WorkerNotRunningError(StateError):
    pass


class NotInActivationError(StateError):
    pass


class InsideActivationError(StateError):
    """A wait inside a routine for something that needs the routine's own thread."""


class ForkedRuntimeError(StateError):
    pass


class IdempotencyConflictError(StateError):
    """An idempotency key came again with another payload."""


class ExecutionError(RoutiluxError):
    """The runtime could not carry it out."""


class ExecutionTimeoutError(ExecutionError, TimeoutError):
    pass


class QueueFullError(ExecutionError):
    pass


class DeadlockError(ExecutionError):
    pass


class JobCancelledError(ExecutionError):
    pass


class PoisonItemError(ExecutionError):
    """Activations on this item have killed the process again and again."""


class StoreError(ExecutionError):
    """The store refused: nothing was accepted."""


class StoreUnknownError(StoreError):
    """It is not known whether it was written. A post with an idempotency key is repeated with that."""


class StoreFullError(StoreError):
    pass


class StoreLockedError(StoreError):
    pass


class StoreFencedError(StoreError):
    """Another process has taken the worker ``worker_id`` over: nothing of it can be written here any more."""


class StoreDataError(StoreError):
    """What was to be written can not be, and could not be later: it is too large, or its row is there already."""


class StoreCorruptError(StoreError):
    pass


class SlotHandlerError(RoutiluxError):
    """User code raised; ``__cause__`` is the original. ``attempt`` counts from 1."""

    job_ids: tuple[str, ...] = ()
    attempt: int = 1


class SerializationError(RoutiluxError):
    """A value cannot be written or read; ``path`` says where in the value, as ``"$.order.client"``."""

    path: str | None = None


# -- wording -----------------------------------------------------------------------------------------------

E = TypeVar("E", bound=RoutiluxError)

_UNKNOWN: dict[str, type[ConfigurationError]] = {
    "flow": UnknownFlowError,
    "routine": UnknownRoutineError,
    "slot": UnknownSlotError,
    "event": UnknownEventError,
    "worker": UnknownWorkerError,
    "job": UnknownJobError,
}

_LONGEST_NAME = 100  # compared and shown up to here: a hostile name must not cost time
_MOST_NAMES = 1_000
_LONGEST_TEXT = 4_000


def unknown(
    kind: str, name: object, known: Iterable[str], *, where: str = "", fix: str = "", **attributes: Any
) -> ConfigurationError:
    """The error for a name that does not exist.

    ``kind`` is one of flow, routine, slot, event, worker and job, and chooses the class; with any other kind
    it is an :class:`InvalidValueError`. ``where`` reads on from the name: ``"in flow 'etl'"``.
    """
    names = tuple(known)
    place = f" {where}" if where else ""
    message = f"no {kind} {shown(name)}{place}; {_existing(name, names, kind)}"
    error = _UNKNOWN.get(kind, InvalidValueError)
    return error(f"{message}; {fix}" if fix else message, name=name, known=names, **attributes)


def refused(
    error: type[E], where: str, given: object, expected: str, *, fix: str = "", **attributes: Any
) -> E:
    """The error for a value that cannot be accepted: where it was given, what it is, what was expected."""
    message = f"{where}: expected {expected}, got {shown(given)} ({type(given).__name__})"
    return error(f"{message}; {fix}" if fix else message, **attributes)


def again(error: E) -> E:
    """The same error for another one who waits; this one is its cause."""
    same = type(error)(str(error))
    vars(same).update(vars(error))
    same.__cause__ = error
    return same


def nearest(name: object, known: Iterable[str], n: int = 3) -> list[str]:
    """The ``n`` known names that look most like ``name``, best first."""
    from difflib import SequenceMatcher  # only when something has gone wrong already

    given = str(name)[:_LONGEST_NAME].lower()
    names = sorted(known)
    if len(names) > _MOST_NAMES:
        alike = [other for other in names if other[:1].lower() == given[:1]]
        names = (alike or names)[:_MOST_NAMES]
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2(given)
    ratios = []
    for other in names:
        matcher.set_seq1(other[:_LONGEST_NAME].lower())
        ratios.append((-matcher.ratio(), other))
    return [other for _, other in sorted(ratios)[:n]]


def counted(number: int, noun: str) -> str:
    """``1 item``, ``2,000 items``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shown(value: object, limit: int = _LONGEST_NAME) -> str:
    """``repr(value)``, shortened, and safe when the repr raises."""
    try:
        text = str.__str__(repr(value))  # a subclass of str may do anything
    except BaseException as error:  # noqa: BLE001 - user code, and nothing may escape from a message
        text = f"<{name_of(value)} whose repr raises {name_of(error)}>"
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


_name = type.__dict__["__name__"].__get__


def name_of(value: object) -> str:
    """The name of its class, whatever the metaclass makes of ``__name__``."""
    name: str = _name(type(value))
    return name


def describe(exception: BaseException) -> str:
    """``"ValueError: what it says"``, shortened, and safe when its ``__str__`` or ``__repr__`` raises."""
    name = name_of(exception)
    try:
        text = str.__str__(str(exception))  # a subclass of str may do anything
    except BaseException as error:  # noqa: BLE001 - user code, and nothing may escape from a failure's own text
        text = f"<its text cannot be read: {name_of(error)}>"
    described = f"{name}: {text}" if text else name
    return described if len(described) <= _LONGEST_TEXT else f"{described[: _LONGEST_TEXT - 1]}…"


def _existing(name: object, known: Sequence[str], kind: str) -> str:
    close = nearest(name, known) if known else []
    if not close:
        return "there is none"
    listed = ", ".join(shown(other) for other in close)
    if len(close) == len(known):
        return f"there is only {listed}" if len(close) == 1 else f"there are {listed}"
    return f"the nearest of {len(known)} are {listed}"
