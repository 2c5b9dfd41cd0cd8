"""The text of a traceback: what it holds, how long it may be, and how it is kept."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from routilux import tracebacks
from routilux.errors import ExecutionError, SlotHandlerError

HERE = Path(__file__).name


def raised(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("it raised nothing")


def plain() -> None:
    raise ValueError("what")


def with_cause() -> None:
    try:
        plain()
    except ValueError as error:
        raise KeyError("x") from error


def in_context() -> None:
    try:
        plain()
    finally:
        raise KeyError("x")


def without_context() -> None:
    try:
        plain()
    except ValueError:
        raise KeyError("x") from None


def group() -> None:
    raise ExceptionGroup("both", [raised(plain), raised(with_cause)])  # type: ignore[list-item]


def with_a_note() -> None:
    error = ValueError("what")
    error.add_note("in line 7")
    raise error


def guessed() -> None:
    Path().exist  # type: ignore[attr-defined]  # noqa: B018


def in_the_library() -> None:
    json.loads("{")


class Unreadable(Exception):
    def __str__(self) -> str:
        raise SystemExit


def unreadable() -> None:
    raise Unreadable


def without_a_text() -> None:
    raise ValueError


@pytest.mark.parametrize(
    "call",
    [
        plain,
        with_cause,
        in_context,
        without_context,
        group,
        with_a_note,
        guessed,
        in_the_library,
        unreadable,
        without_a_text,
    ],
)
def test_it_is_what_python_shows(call: Callable[[], None]) -> None:
    error = raised(call)
    whole = "".join(traceback.format_exception(error))
    for _ in range(2):  # the second time the stack is known already
        assert tracebacks.formatted(error) == whole


def deep(n: int) -> None:
    if n:
        deeper(n - 1)
    raise ValueError("deep")


def deeper(n: int) -> None:
    deep(n)


def test_of_many_frames_the_innermost_stay() -> None:
    text = tracebacks.formatted(raised(lambda: deep(300)))
    assert text is not None
    assert len(text) <= tracebacks.LONGEST
    assert text.endswith('    raise ValueError("deep")\nValueError: deep\n')


def test_a_text_as_long_as_a_payload_is_cut() -> None:
    def huge() -> None:
        raise ValueError("x" * 1_000_000)

    text = tracebacks.formatted(raised(huge))
    assert text is not None
    assert len(text) <= tracebacks.LONGEST
    assert "raise ValueError(" in text


def test_many_causes_are_cut_in_the_middle() -> None:
    def chain() -> None:
        error: BaseException | None = None
        for n in range(200):
            try:
                raise ValueError(n) from error
            except ValueError as one:
                error = one
        assert error is not None
        raise error

    text = tracebacks.formatted(raised(chain))
    assert text is not None
    assert len(text) <= tracebacks.LONGEST
    assert "ValueError: 0\n" in text
    assert text.endswith("ValueError: 199\n")


class Hostile(Exception):
    def __str__(self) -> str:
        raise SystemExit

    def __getattribute__(self, name: str) -> Any:
        if name == "__notes__":
            raise KeyboardInterrupt
        return super().__getattribute__(name)


def test_an_exception_that_raises_when_it_is_shown_has_a_text_all_the_same() -> None:
    def hostile() -> None:
        raise Hostile

    text = tracebacks.formatted(raised(hostile))
    assert text is not None
    assert "Hostile" in text


def test_without_a_traceback_there_is_none() -> None:
    assert tracebacks.formatted(ValueError("never raised")) is None
    assert tracebacks.place_of(ValueError("never raised")) == ""


def test_variables_are_never_shown() -> None:
    def logs_in() -> None:
        password = "se" + "cret"
        raise ValueError(len(password))

    assert "secret" not in str(tracebacks.formatted(raised(logs_in)))


@pytest.mark.parametrize("call", [plain, in_the_library])
def test_place_is_the_innermost_line_of_the_users_own_code(call: Callable[[], None]) -> None:
    line = call.__code__.co_firstlineno + 1
    assert tracebacks.place_of(raised(call)) == f"{HERE}:{line}"


@pytest.mark.parametrize("text", ["", "ValueError: what", "two\nlines", "with \x1e in it"])
@pytest.mark.parametrize("trace", ["Traceback …\n", "with \x1e in it"])
def test_text_and_traceback_are_one_text_and_two_again(text: str, trace: str) -> None:
    assert tracebacks.parted(tracebacks.joined(text, trace)) == (text, trace.replace("\x1e", " "))


def test_a_text_of_an_older_version_has_no_traceback() -> None:
    assert tracebacks.parted("ValueError: what") == ("ValueError: what", None)


def test_an_error_of_ours_keeps_the_traceback_that_it_was_given() -> None:
    error = SlotHandlerError("routine 'a' failed", traceback="Traceback …\n")
    read = tracebacks.read_back(tracebacks.kept(error), "job-1")
    assert (type(read), str(read), read.traceback, read.job_id) == (
        ExecutionError,
        "SlotHandlerError: routine 'a' failed",
        "Traceback …\n",
        "job-1",
    )
