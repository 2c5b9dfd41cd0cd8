from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from inspect import signature
from typing import Any

import pytest

from routilux.errors import InvalidTypeError, InvalidValueError, RoutiluxError, SerializationError
from routilux.model.recovery import Continue, ErrorDecision, ErrorHandler, ErrorStrategy, Retry, Skip, Stop
from tests.unit.model.samples import refusal, table

YEAR = 365 * 86_400.0


@table(
    ("strategy", "decision"),
    [("stop", Stop()), ("continue", Continue()), (ErrorStrategy.SKIP, Skip())],
)
def test_strategies_that_do_not_retry_decide_at_once(strategy: str, decision: ErrorDecision) -> None:
    assert ErrorHandler(strategy).decide(ValueError(), 1, 0.5) == decision


def delays(attempts: int = 4, random: float = 0.5, **settings: Any) -> list[ErrorDecision]:
    handler = ErrorHandler("retry", **settings)
    return [handler.decide(ValueError(), attempt, random) for attempt in range(1, attempts + 1)]


RETRIES: list[tuple[list[ErrorDecision], list[ErrorDecision]]] = [
    (delays(), [Retry(1.0), Retry(2.0), Retry(4.0), Stop()]),
    (delays(max_retries=0, attempts=1), [Stop()]),
    (delays(max_retries=1, on_exhausted="skip", attempts=2), [Retry(1.0), Skip()]),
    (delays(retry_delay=0.5, retry_backoff=1, attempts=3), [Retry(0.5)] * 3),
    (delays(max_delay=1.5, attempts=3), [Retry(1.0), Retry(1.5), Retry(1.5)]),
    (delays(jitter=0.5, random=0.0, attempts=2), [Retry(0.5), Retry(1.0)]),
    (delays(jitter=0.5, random=0.75, attempts=1), [Retry(1.25)]),
    (delays(jitter=0.5, random=0.75, max_delay=1, attempts=1), [Retry(1.0)]),
]


@table(("decided", "expected"), RETRIES)
def test_retries_wait_longer_each_time_until_they_are_exhausted(
    decided: list[ErrorDecision], expected: list[ErrorDecision]
) -> None:
    assert decided == expected


def test_a_delay_stays_finite_however_often_is_retried() -> None:
    handler = ErrorHandler("retry", max_retries=10**9)
    assert handler.decide(ValueError(), 10**6, 0.5) == Retry(YEAR)
    instant = ErrorHandler("retry", max_retries=10**9, retry_delay=0)
    assert instant.decide(ValueError(), 10**6, 0.5) == Retry(0.0)


@table(
    ("listed", "exception", "decision"),
    [
        ((Exception,), KeyboardInterrupt(), Continue()),
        ((TimeoutError, KeyError), KeyError(), Retry(1.0)),
        ((TimeoutError, KeyError), ValueError(), Continue()),
        (OSError, TimeoutError(), Retry(1.0)),
        ([KeyboardInterrupt], KeyboardInterrupt(), Retry(1.0)),
    ],
)
def test_only_what_is_listed_is_retried(
    listed: Any, exception: BaseException, decision: ErrorDecision
) -> None:
    handler = ErrorHandler("retry", retryable_exceptions=listed, on_exhausted="continue")
    assert handler.decide(exception, 1, 0.5) == decision


BAD: list[tuple[dict[str, Any], type[RoutiluxError], tuple[str, ...]]] = [
    ({"strategy": "retyr"}, InvalidValueError, ("no error strategy 'retyr'", "'retry'")),
    ({"strategy": 3}, InvalidTypeError, ("ErrorHandler(strategy)", "an ErrorStrategy")),
    ({"max_retries": -1}, InvalidValueError, ("max_retries", "0 or more")),
    ({"max_retries": True}, InvalidTypeError, ("max_retries", "a whole number")),
    ({"retry_delay": -0.1}, InvalidValueError, ("retry_delay", "0 or more")),
    ({"retry_delay": float("nan")}, InvalidValueError, ("retry_delay",)),
    ({"retry_delay": "1"}, InvalidTypeError, ("retry_delay", "a number")),
    ({"retry_backoff": 0.5}, InvalidValueError, ("retry_backoff", "1 or more")),
    ({"max_delay": float("inf")}, InvalidValueError, ("max_delay",)),
    ({"jitter": 1.5}, InvalidValueError, ("jitter", "from 0 to 1")),
    ({"retryable_exceptions": ()}, InvalidValueError, ("at least one", "ErrorStrategy.STOP")),
    ({"retryable_exceptions": "ValueError"}, InvalidTypeError, ("exception classes",)),
    ({"retryable_exceptions": (int,)}, InvalidTypeError, ("exception classes",)),
    ({"on_exhausted": "retry"}, InvalidValueError, ("on_exhausted", "stop, continue, skip or emit")),
]


@table(("settings", "error", "fragments"), BAD)
def test_bad_settings_are_refused(
    settings: dict[str, Any], error: type[RoutiluxError], fragments: tuple[str, ...]
) -> None:
    refusal(lambda: ErrorHandler(**settings), error, *fragments)


GIVEN: list[tuple[str, Any]] = [
    ("max_retries", 3),
    ("retry_delay", 1.0),
    ("retry_backoff", 2.0),
    ("max_delay", None),
    ("jitter", 0.0),
    ("retryable_exceptions", (Exception,)),
    ("on_exhausted", "stop"),
]


@pytest.mark.parametrize("strategy", ["stop", "continue", "skip", "emit"])
@pytest.mark.parametrize(("name", "default"), GIVEN)
def test_a_setting_of_a_retry_is_refused_where_nothing_is_retried(
    strategy: str, name: str, default: Any
) -> None:
    fix = f"leave it out, or give the strategy 'retry' with on_exhausted='{strategy}'"
    refusal(
        lambda: ErrorHandler(strategy, **{name: default}),
        InvalidValueError,
        f"{name} would have no effect",
        fix,
    )
    assert ErrorHandler("retry", **{name: default}) == ErrorHandler("retry")


def test_a_forgotten_strategy_is_told() -> None:
    refusal(
        lambda: ErrorHandler(max_retries=5, jitter=0.1),
        InvalidValueError,
        "ErrorHandler(strategy='stop'): max_retries, jitter would have no effect",
        "leave them out, or give the strategy 'retry'",
    )
    refusal(
        lambda: ErrorHandler.from_dict({"retryable_exceptions": ["OSError"]}), InvalidValueError, "no effect"
    )


def test_all_settings_are_listed_above() -> None:
    assert ["strategy", *(name for name, _ in GIVEN)] == list(signature(ErrorHandler).parameters)
    assert [str(each) for each in signature(ErrorHandler).parameters.values()][1].endswith("= 3")


@pytest.mark.parametrize("strategy", list(ErrorStrategy))
def test_every_handler_can_be_copied_pickled_written_and_read(strategy: ErrorStrategy) -> None:
    plain, set_up = ErrorHandler(strategy), ErrorHandler("retry", max_retries=7, on_exhausted="skip")
    for handler in (plain, set_up):
        assert pickle.loads(pickle.dumps(handler)) == copy.deepcopy(handler) == copy.copy(handler) == handler
        assert ErrorHandler.from_dict(handler.to_dict()) == handler


WRITTEN: list[tuple[ErrorHandler, dict[str, Any]]] = [
    (ErrorHandler(), {"strategy": "stop"}),
    (
        ErrorHandler("retry", max_retries=5, retry_delay=2, jitter=0.1, max_delay=60),
        {"strategy": "retry", "max_retries": 5, "retry_delay": 2.0, "max_delay": 60.0, "jitter": 0.1},
    ),
    (
        ErrorHandler("retry", retryable_exceptions=(OSError, KeyError), on_exhausted="skip"),
        {"strategy": "retry", "retryable_exceptions": ["OSError", "KeyError"], "on_exhausted": "skip"},
    ),
]


@table(("handler", "data"), WRITTEN)
def test_an_error_handler_is_a_value_that_can_be_written_and_read(
    handler: ErrorHandler, data: dict[str, Any]
) -> None:
    same = ErrorHandler.from_dict(data)
    assert (same, hash(same), handler.to_dict(), repr(same)) == (handler, hash(handler), data, repr(handler))


def test_only_built_in_exceptions_can_be_written_and_read() -> None:
    handler = ErrorHandler("retry", retryable_exceptions=(RoutiluxError,))
    error = refusal(handler.to_dict, SerializationError, "routilux.errors.RoutiluxError", "built-in")
    assert isinstance(error, SerializationError)
    assert error.path == "$.retryable_exceptions"


READS: list[tuple[Callable[[], object], type[RoutiluxError], tuple[str, ...]]] = [
    (
        lambda: ErrorHandler.from_dict({"retryable_exceptions": ["TimeOutError"]}),
        InvalidValueError,
        ("no built-in exception 'TimeOutError'", "'TimeoutError'"),
    ),
    (
        lambda: ErrorHandler.from_dict({"retryable_exceptions": ["open", 3]}),
        InvalidValueError,
        ("no built-in exception 'open'",),
    ),
    (
        lambda: ErrorHandler.from_dict({"retryable_exceptions": "OSError"}),
        InvalidTypeError,
        ("a list of names",),
    ),
    (
        lambda: ErrorHandler.from_dict({"max_retry": 3}),
        InvalidValueError,
        ("no setting 'max_retry'", "'max_retries'"),
    ),
]


@table(("read", "error", "fragments"), READS)
def test_an_error_handler_is_not_read_from_what_was_not_written(
    read: Callable[[], object], error: type[RoutiluxError], fragments: tuple[str, ...]
) -> None:
    refusal(read, error, *fragments)
