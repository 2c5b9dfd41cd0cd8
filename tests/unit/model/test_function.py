from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from routilux.errors import InvalidTypeError, InvalidValueError, RoutiluxError
from routilux.model.flow import Flow
from routilux.model.function import FunctionRoutine, routine
from routilux.model.policy import batch_size_policy, immediate_policy
from routilux.model.recovery import ErrorHandler
from tests.unit.model.samples import refusal, table
from tests.unit.model.test_routine import activation_of


def outcome(kind: type[FunctionRoutine], *payloads: dict[str, Any]) -> list[Any]:
    """What is emitted on ``output`` for these payloads."""
    made = kind()
    with activation_of(made) as activation:
        running = made.bound_logic({"input": list(payloads)}, None, None)
        if made.is_async:

            async def wait() -> None:
                await running

            asyncio.run(wait())
    assert all(call[:2] == ("emit", "output") for call in activation.calls)
    return [call[2] for call in activation.calls]


@routine
def double(value: int, times: int = 2) -> dict[str, Any]:
    """Doubles."""
    return {"value": value * times}


@routine
def rest(value: int, **others: Any) -> dict[str, Any]:
    return {"value": value, "others": others}


@routine
def silent(value: int) -> None: ...


@routine
def each(values: list[int]) -> Iterator[dict[str, Any] | None]:
    for value in values:
        yield {"value": value} if value else None


@routine
async def later(value: int) -> dict[str, Any]:
    await asyncio.sleep(0)
    return {"value": value}


@routine
async def each_later(values: list[int]) -> AsyncIterator[dict[str, Any]]:
    for value in values:
        await asyncio.sleep(0)
        yield {"value": value}


class Stepping:
    """A callable object that gives an async generator."""

    def __init__(self, size: int) -> None:
        self.size = size

    async def __call__(self, n: int) -> AsyncIterator[dict[str, Any]]:
        while n > 1:
            n -= 1
            yield {"step": n}


class Scale:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def times(self, n: int) -> dict[str, Any]:
        return {"n": n * self.factor}


named = routine(name="named")

OUTCOMES: list[tuple[type[FunctionRoutine], list[dict[str, Any]], list[Any]]] = [
    (double, [{"value": 3}], [{"value": 6}]),
    (double, [{"value": 3, "times": 5, "unknown": 1}], [{"value": 15}]),
    (double, [{"value": 1}, {"value": 2}], [{"value": 2}, {"value": 4}]),
    (rest, [{"value": 3, "x": 1, "event": 2}], [{"value": 3, "others": {"x": 1, "event": 2}}]),
    (silent, [{"value": 3}], []),
    (each, [{"values": [1, 0, 2]}], [{"value": 1}, {"value": 2}]),
    (later, [{"value": 3}], [{"value": 3}]),
    (each_later, [{"values": [1, 2]}], [{"value": 1}, {"value": 2}]),
    (named(lambda: {"event": 1, "self": 2}), [{}], [{"event": 1, "self": 2}]),
    (
        named(functools.partial(double.fn, times=3)),
        [{"value": 2}, {"value": 2, "times": 4}],
        [{"value": 6}, {"value": 8}],
    ),
    (routine(Scale(3).times), [{"n": 2}], [{"n": 6}]),
    (named(Stepping(2)), [{"n": 3}], [{"step": 2}, {"step": 1}]),
    (named(lambda *args, **payload: {"seen": payload}), [{"n": 3}], [{"seen": {"n": 3}}]),
]


@table(("kind", "payloads", "emitted"), OUTCOMES)
def test_payload_keys_become_arguments_and_mappings_are_emitted(
    kind: type[FunctionRoutine], payloads: list[dict[str, Any]], emitted: list[Any]
) -> None:
    assert outcome(kind, *payloads) == emitted


@table(
    ("kind", "is_async"),
    [(double, False), (each, False), (later, True), (each_later, True)],
)
def test_the_class_has_one_slot_one_event_and_the_immediate_policy(
    kind: type[FunctionRoutine], is_async: bool
) -> None:
    made = kind()
    assert (list(made.slots), list(made.events), made.effective_policy, made.is_async) == (
        ["input"],
        ["output"],
        immediate_policy(),
        is_async,
    )


def test_the_class_looks_like_the_function_and_gives_it_back() -> None:
    assert (double.__name__, double.__doc__, double.__module__) == ("double", "Doubles.", __name__)
    assert (double.fn(4), double().fn(4), double.__wrapped__(4)) == ({"value": 8},) * 3


def test_options_apply_to_every_routine_of_the_class() -> None:
    handler = ErrorHandler("skip")

    @routine(name="Halve", policy=batch_size_policy(3), concurrency=4, timeout=2, error_handler=handler)
    def halve(value: int) -> dict[str, Any]:
        return {"value": value // 2}

    made = halve()
    assert (halve.__name__, made.effective_policy, made.concurrency, made.timeout, made.error_handler) == (
        "Halve",
        batch_size_policy(3),
        4,
        2.0,
        handler,
    )


def test_it_can_be_added_to_a_flow_under_its_name() -> None:
    flow = Flow("f")
    assert (flow.add_routine(double()), flow.add_routine(double()), flow.validate()[0].code) == (
        "double",
        "double_2",
        "several-entries",
    )


WRONG: list[tuple[Callable[[], object], type[RoutiluxError], tuple[str, ...]]] = [
    (lambda: outcome(double, {"times": 3}), InvalidTypeError, ("function double needs 'value'", "['times']")),
    (
        lambda: outcome(named(lambda: 5), {}),
        InvalidTypeError,
        ("returned", "5 (int)", "{'result': value}", "None"),
    ),
    (lambda: outcome(named(lambda: {1: 2}), {}), InvalidTypeError, ("a mapping with text keys",)),
    (lambda: outcome(named(lambda: (yield 5)), {}), InvalidTypeError, ("yielded", "5 (int)")),
    (lambda: routine(3), InvalidTypeError, ("@routine", "a function", "@routine(name=...)")),
    (lambda: routine("name"), InvalidTypeError, ("@routine",)),
    (lambda: routine(int), InvalidTypeError, ("@routine", "a function", "subclass Routine")),
    (lambda: routine(double), InvalidTypeError, ("@routine", "is one already, so leave the decorator out")),
    (lambda: routine(Scale.times), InvalidTypeError, ("not a method", "a subclass of Routine")),
    (lambda: routine(lambda n: {}), InvalidValueError, ("a function with a name", "routine(name='double')")),
    (lambda: routine(functools.partial(double.fn)), InvalidValueError, ("a function with a name",)),
    (lambda: named(lambda a, /: None), InvalidTypeError, ("positional-only",)),
    (lambda: named(lambda n, *rest: None), InvalidTypeError, ("*rest would never get anything", "**rest")),
    (lambda: routine(name="a.b")(lambda: None), InvalidValueError, ("without a dot",)),
    (lambda: routine(name=5)(lambda: None), InvalidTypeError, ("name of a routine",)),
    (
        lambda: routine(name="n", concurrency=0)(lambda: None),
        InvalidValueError,
        ("concurrency", "at least 1"),
    ),
    (lambda: routine(name="n", policy="immediate")(lambda: None), InvalidTypeError, ("activation policy",)),
    (
        lambda: routine(name="n", timeout="5")(lambda: None),
        InvalidTypeError,
        ("timeout", "a number of seconds"),
    ),
    (lambda: routine(name="n", error_handler="skip")(lambda: None), InvalidTypeError, ("an ErrorHandler",)),
]


@table(("action", "error", "fragments"), WRONG)
def test_what_cannot_work_is_named(
    action: Callable[[], object], error: type[RoutiluxError], fragments: tuple[str, ...]
) -> None:
    refusal(action, error, *fragments)


def test_lanes_of_a_function() -> None:
    @routine(concurrency=20, concurrency_by="customer")
    def charge(customer: str) -> None: ...

    made = charge()
    assert (made.concurrency, made.concurrency_by) == (20, "customer")
