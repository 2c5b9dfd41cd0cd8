from __future__ import annotations

import inspect
import pickle
import re

import pytest

from routilux import errors
from routilux.errors import (
    ConfigurationError,
    ExecutionTimeoutError,
    InvalidTypeError,
    InvalidValueError,
    RoutiluxError,
    SerializationError,
    SlotHandlerError,
    UnknownJobError,
    UnknownSlotError,
    describe,
    nearest,
    refused,
    shown,
    unknown,
)

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, RoutiluxError)]


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class HostileError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_the_docstring_draws_every_class_under_its_base() -> None:
    tree = errors.__doc__ or ""
    drawn = {}
    above: dict[int, str] = {}
    for indent, name, bases in re.findall(r"^([ │├└─]*)(\w+Error)(.*)$", tree, re.MULTILINE):
        depth = (len(indent) - 4) // 4
        above[depth] = name
        drawn[name] = (above.get(depth - 1), re.findall(r"[A-Z]\w*Error", bases))
    declared = {
        kind.__name__: (
            None if kind is RoutiluxError else kind.__bases__[0].__name__,
            [base.__name__ for base in kind.__bases__[1:]],
        )
        for kind in CLASSES
    }
    assert drawn == declared


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_shows_its_message_keeps_its_ids_and_can_be_pickled(kind: type[RoutiluxError]) -> None:
    error = pickle.loads(pickle.dumps(kind("it's so", flow_id="etl", worker_id=None)))
    assert (type(error), str(error), error.flow_id, error.worker_id, error.slot) == (
        kind,
        "it's so",
        "etl",
        None,
        None,
    )


@pytest.mark.parametrize("kind", [k for k in CLASSES if k.__bases__[0] is ConfigurationError])
def test_every_configuration_error_is_a_built_in_error_too(kind: type[RoutiluxError]) -> None:
    assert issubclass(kind, (KeyError, ValueError, TypeError))


def test_a_time_out_is_a_built_in_time_out() -> None:
    with pytest.raises(TimeoutError, match="too slow"):
        raise ExecutionTimeoutError("too slow", job_id="j")


def test_errors_of_user_code_and_of_values_say_where() -> None:
    handler = SlotHandlerError("x", routine_id="parse", job_ids=("a", "b"), attempt=2)
    assert (handler.routine_id, handler.job_ids, handler.attempt) == ("parse", ("a", "b"), 2)
    assert SerializationError("x", path="$.order.client").path == "$.order.client"


def test_an_unknown_name_is_reported_with_place_nearest_names_and_fix() -> None:
    known = ["output", "input", "inputs", "trigger", "zzz"]
    error = unknown("slot", "inptu", known, where="in routine 'parse'", fix="add it", routine_id="parse")
    assert str(error) == (
        "no slot 'inptu' in routine 'parse'; the nearest of 5 are 'input', 'inputs', 'output'; add it"
    )
    assert (type(error), error.known, error.routine_id) == (UnknownSlotError, tuple(known), "parse")


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ([], "no job 'x'; there is none"),
        (["a"], "no job 'x'; there is only 'a'"),
        (["b", "a"], "no job 'x'; there are 'a', 'b'"),
    ],
)
def test_few_existing_names_are_all_shown(known: list[str], expected: str) -> None:
    error = unknown("job", "x", known)
    assert (type(error), str(error)) == (UnknownJobError, expected)


def test_an_unknown_kind_of_name_is_an_invalid_value() -> None:
    assert type(unknown("colour", "x", [])) is InvalidValueError


def test_a_refused_value_is_reported_with_place_type_expectation_and_fix() -> None:
    error = refused(InvalidTypeError, "set_timeout()", "5", "a number", fix="write 5", routine_id="a")
    assert str(error) == "set_timeout(): expected a number, got '5' (str); write 5"
    assert error.routine_id == "a"


def test_nearest_is_best_first_whatever_the_case_and_ends_in_time() -> None:
    assert nearest("READ", ["write", "read", "ready", "x"]) == ["read", "ready", "write"]
    assert nearest("a", []) == []
    assert nearest(3, ["3", "4"], n=1) == ["3"]
    names = [f"routine_{number}" for number in range(20_000)]
    assert nearest("routine_7" + "x" * 1_000_000, names, n=1)


def test_hostile_objects_cannot_break_a_message() -> None:
    assert shown(Hostile()) == "<Hostile whose repr raises RuntimeError>"
    assert shown("x" * 500) == "'" + "x" * 98 + "…"
    assert describe(HostileError()) == "HostileError: <its text cannot be read: RuntimeError>"
    assert describe(ValueError("no")) == "ValueError: no"
    assert describe(ValueError()) == "ValueError"
