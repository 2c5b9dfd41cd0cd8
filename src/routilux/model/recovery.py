"""What happens to an activation that failed: a decision, carried out by the runtime."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from routilux.errors import InvalidTypeError, InvalidValueError, SerializationError, refused, unknown
from routilux.model.value import Value

T = TypeVar("T")


class ErrorStrategy(StrEnum):
    STOP = "stop"
    CONTINUE = "continue"
    SKIP = "skip"
    RETRY = "retry"
    EMIT = "emit"


ERROR_EVENT: Final = (
    "error"  # where what failed leaves with EMIT; unconnected, what is emitted there reaches no routine
)


class Stop(NamedTuple):
    """The job fails at once; its queued items are set aside."""


class Continue(NamedTuple):
    """The error is recorded, the items go to the dead letters, the job goes on."""


class Skip(NamedTuple):
    """The activation is recorded as skipped, the items go to the dead letters, the job goes on."""


class Emit(NamedTuple):
    """The items leave on the routine's event ``error``, with the error; the job goes on."""


class Retry(NamedTuple):
    """The activation runs again after this many seconds."""

    delay: float


ErrorDecision: TypeAlias = Stop | Continue | Skip | Emit | Retry

_LONGEST_DELAY: Final = 365 * 86_400.0  # what an unlimited backoff ends at: no timer takes infinity
_FINAL: Final[dict[ErrorStrategy, ErrorDecision]] = {
    ErrorStrategy.STOP: Stop(),
    ErrorStrategy.CONTINUE: Continue(),
    ErrorStrategy.SKIP: Skip(),
    ErrorStrategy.EMIT: Emit(),
}


class _Default:
    """Stands for a default that was not given."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __repr__(self) -> str:
        return repr(self.value)


def _default(value: T) -> T:
    return _Default(value)  # type: ignore[return-value]


_EXCEPTION: Final = _default((Exception,))
_STOP: Final = _default(ErrorStrategy.STOP)


class ErrorHandler(Value):
    """A strategy for failed activations, with the settings of a retry.

    ``retry_delay`` and ``max_delay`` are seconds. The n-th retry waits
    ``retry_delay * retry_backoff ** (n - 1)``, at most ``max_delay``, varied by up to ``jitter`` (a
    fraction: 0.1 is ± 10 %). What is not an instance of ``retryable_exceptions``, or has been retried
    ``max_retries`` times, is treated by ``on_exhausted``. With a strategy that retries nothing, to give any of these
    raises InvalidValueError.

    ``EMIT``, as the strategy or as ``on_exhausted``, sends what failed out of the routine's event ``error``, with
    the keys ``data`` (the payload; where the activation had several items, lists of payloads by slot), ``error`` (its
    text), ``attempts`` and ``routine``. The job goes on::

        ErrorHandler("retry", max_retries=3, on_exhausted=ErrorStrategy.EMIT)
    """

    __slots__ = (
        "strategy", "max_retries", "retry_delay", "retry_backoff", "max_delay", "jitter",
        "retryable_exceptions", "on_exhausted",
    )  # fmt: skip

    strategy: ErrorStrategy
    max_retries: int
    retry_delay: float
    retry_backoff: float
    max_delay: float | None
    jitter: float
    retryable_exceptions: tuple[type[BaseException], ...]
    on_exhausted: ErrorStrategy

    def __init__(
        self,
        strategy: ErrorStrategy | str = ErrorStrategy.STOP,
        max_retries: int = _default(3),
        retry_delay: float = _default(1.0),
        retry_backoff: float = _default(2.0),
        max_delay: float | None = _default(None),
        jitter: float = _default(0.0),
        retryable_exceptions: Iterable[type[BaseException]] | type[BaseException] = _EXCEPTION,
        on_exhausted: ErrorStrategy | str = _STOP,
    ) -> None:
        settings = {
            "max_retries": max_retries,
            "retry_delay": retry_delay,
            "retry_backoff": retry_backoff,
            "max_delay": max_delay,
            "jitter": jitter,
            "retryable_exceptions": retryable_exceptions,
            "on_exhausted": on_exhausted,
        }
        given = [name for name, value in settings.items() if not isinstance(value, _Default)]
        values: dict[str, Any] = {
            name: value.value if isinstance(value, _Default) else value for name, value in settings.items()
        }
        most = values["max_delay"]
        self._init(
            strategy=_strategy("strategy", strategy),
            max_retries=_count("max_retries", values["max_retries"]),
            retry_delay=_number("retry_delay", values["retry_delay"], least=0.0),
            retry_backoff=_number("retry_backoff", values["retry_backoff"], least=1.0),
            max_delay=None if most is None else _number("max_delay", most, least=0.0),
            jitter=_number("jitter", values["jitter"], least=0.0, most=1.0),
            retryable_exceptions=_exceptions(values["retryable_exceptions"]),
            on_exhausted=_strategy("on_exhausted", values["on_exhausted"]),
        )
        if self.on_exhausted is ErrorStrategy.RETRY:
            raise refused(
                InvalidValueError, "ErrorHandler(on_exhausted)", "retry", "stop, continue, skip or emit"
            )
        if given and self.strategy is not ErrorStrategy.RETRY:
            own = str(self.strategy)
            raise InvalidValueError(
                f"ErrorHandler(strategy={own!r}): {', '.join(given)} would have no effect, as {own!r} retries "
                f"nothing; leave {'it' if len(given) == 1 else 'them'} out, or give the strategy 'retry' with "
                f"on_exhausted={own!r}"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return (
            super().__reduce__() if self.strategy is ErrorStrategy.RETRY else (type(self), (self.strategy,))
        )

    @property
    def emits(self) -> bool:
        """Whether what failed may leave on the event ``error``."""
        retries = self.strategy is ErrorStrategy.RETRY
        return (self.on_exhausted if retries else self.strategy) is ErrorStrategy.EMIT

    def decide(self, exception: BaseException, attempt: int, random: float) -> ErrorDecision:
        """What to do after a failed attempt. ``attempt`` counts from 1, ``random`` is from 0 to below 1."""
        if self.strategy is not ErrorStrategy.RETRY:
            return _FINAL[self.strategy]
        if attempt > self.max_retries or not isinstance(exception, self.retryable_exceptions):
            return _FINAL[self.on_exhausted]
        return Retry(self._delay(attempt, random))

    def to_dict(self) -> dict[str, Any]:
        """The strategy, and every setting that is not the default."""
        fields = self._fields() | {
            "strategy": str(self.strategy),
            "on_exhausted": str(self.on_exhausted),
            "retryable_exceptions": [_builtin_name(kind) for kind in self.retryable_exceptions],
        }
        return {
            name: value for name, value in fields.items() if name == "strategy" or value != _DEFAULTS[name]
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ErrorHandler:
        for key in data:
            if key not in cls.__slots__:
                raise unknown("setting", key, cls.__slots__, where="of an error handler")
        if "retryable_exceptions" not in data:
            return cls(**data)
        names = data["retryable_exceptions"]
        if isinstance(names, str) or not isinstance(names, Iterable):
            raise refused(
                InvalidTypeError, "retryable_exceptions", names, "a list of names of built-in exceptions"
            )
        return cls(**{**data, "retryable_exceptions": tuple(_builtin_exception(name) for name in names)})

    def _delay(self, attempt: int, random: float) -> float:
        limit = _LONGEST_DELAY if self.max_delay is None else self.max_delay
        try:
            delay = min(self.retry_delay * self.retry_backoff ** (attempt - 1), limit)
        except OverflowError:
            delay = limit if self.retry_delay else 0.0
        return min(delay * (1 + self.jitter * (2 * random - 1)), limit)


_DEFAULTS: Final[dict[str, Any]] = {
    "strategy": "stop",
    "max_retries": 3,
    "retry_delay": 1.0,
    "retry_backoff": 2.0,
    "max_delay": None,
    "jitter": 0.0,
    "retryable_exceptions": ["Exception"],
    "on_exhausted": "stop",
}


def _strategy(name: str, value: object) -> ErrorStrategy:
    if not isinstance(value, str):
        raise refused(InvalidTypeError, f"ErrorHandler({name})", value, "an ErrorStrategy or its name")
    try:
        return ErrorStrategy(value)
    except ValueError:
        raise unknown("error strategy", value, map(str, ErrorStrategy)) from None


def _count(name: str, value: object) -> int:
    if type(value) is not int:
        raise refused(InvalidTypeError, f"ErrorHandler({name})", value, "a whole number")
    if value < 0:
        raise refused(InvalidValueError, f"ErrorHandler({name})", value, "0 or more")
    return value


def _number(name: str, value: object, *, least: float, most: float | None = None) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise refused(InvalidTypeError, f"ErrorHandler({name})", value, "a number")
    if not least <= value < float("inf") or (most is not None and value > most):
        expected = f"{least:g} or more" if most is None else f"from {least:g} to {most:g}"
        raise refused(InvalidValueError, f"ErrorHandler({name})", value, expected)
    return float(value)


def _exceptions(value: object) -> tuple[type[BaseException], ...]:
    where = "ErrorHandler(retryable_exceptions)"
    kinds = value if isinstance(value, Iterable) and not isinstance(value, str) else (value,)
    checked = []
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise refused(InvalidTypeError, where, kind, "exception classes")
        checked.append(kind)
    if not checked:
        raise refused(
            InvalidValueError, where, value, "at least one", fix="to retry nothing use ErrorStrategy.STOP"
        )
    return tuple(checked)


def _builtin_name(kind: type[BaseException]) -> str:
    name = kind.__name__
    if getattr(builtins, name, None) is not kind:
        raise SerializationError(
            f"{kind.__module__}.{kind.__qualname__} at $.retryable_exceptions cannot be written: only "
            "built-in exceptions are found again by name; use one of those, or set the handler in Python",
            path="$.retryable_exceptions",
        )
    return name


def _builtin_exception(name: object) -> type[BaseException]:
    kind = getattr(builtins, name, None) if isinstance(name, str) else None
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        known = (key for key, value in vars(builtins).items() if isinstance(value, type))
        exceptions = [key for key in known if issubclass(getattr(builtins, key), BaseException)]
        raise unknown("built-in exception", name, exceptions, where="to retry")
    return kind
