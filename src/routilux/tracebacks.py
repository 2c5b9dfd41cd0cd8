"""The traceback of an exception as text: bounded, without our own machinery, and as a store keeps it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from gc import get_referents
from types import CodeType, TracebackType
from typing import Any, Final

from routilux.errors import ExecutionError, RoutiluxError, describe, name_of

LONGEST: Final = 16_384  # characters of a traceback
_LONGEST_LINE: Final = 2_000  # the text of an exception may be a whole payload
_HEADLINE: Final = 300
_FRAMES: Final = (40, 8, 2)  # the innermost frames of each exception: as many as fit
_MOST_STACKS: Final = 256
_UNNAMED: Final = ("__main__", "builtins")
_MOST_BEHIND: Final = 100_000  # exceptions, and containers that they have
_CONTAINERS: Final = (tuple, list, dict)
_stacks: dict[tuple[tuple[CodeType, int], ...], str] = {}
_NOT_PLAIN: Final = (BaseExceptionGroup, NameError, AttributeError, ImportError, SyntaxError)
_BEHIND: Final = "\x1e"  # separates the text of an error from its traceback where both are one text

# What Python itself has noted on an exception. The attributes may run code of the user's class.
_READERS: Final = BaseException.__dict__
cause_of: Callable[[BaseException], BaseException | None] = _READERS["__cause__"].__get__
_context_of: Callable[[BaseException], BaseException | None] = _READERS["__context__"].__get__
_suppresses_context: Callable[[BaseException], bool] = _READERS["__suppress_context__"].__get__
_trace_of: Callable[[BaseException], TracebackType | None] = _READERS["__traceback__"].__get__
_attributes_of: Callable[[BaseException], dict[str, Any]] = _READERS["__dict__"].__get__

_PACKAGE: Final = os.path.dirname(__file__) + os.sep
_MACHINERY: Final = tuple(f"{_PACKAGE}{part}{os.sep}" for part in ("runtime", "model", "kernel", "store"))
_LIBRARY: Final = (os.path.dirname(os.__file__) + os.sep, "<frozen ")
_INSTALLED: Final = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


def of_user(error: BaseException) -> TracebackType | None:
    """The traceback from where our own machinery has called the user's code; all of it if it never did.

    That of an error which we have raised on purpose ends at the user's line as well: it says itself what is wrong.
    None if there is no such line.
    """
    if is_a(error, RoutiluxError):
        steps = list(_steps(error))
        own = [n for n, step in enumerate(steps) if _rank(step.tb_frame.f_code.co_filename) >= 0]
        return _chained(steps[own[0] : own[-1] + 1]) if own else None
    trace = step = _trace_of(error)
    while step is not None and _rank(step.tb_frame.f_code.co_filename) < 0:
        step = step.tb_next
    return step or trace


def is_a(error: BaseException, kinds: type | tuple[type, ...]) -> bool:
    """``isinstance``, whatever the error says of its class."""
    return issubclass(type(error), kinds)


def is_of_user(filename: str) -> bool:
    """Whether neither this library nor Python itself has this file."""
    return _rank(filename) > 1


def place_of(error: BaseException) -> str:
    """``"rows.py:12"``: the innermost line of the user's own code, or of what it called; empty if there is none, as
    where a built-in routine fails.

    Own code is what is neither of Python nor installed beside it. Where all of it is, what is not Python's counts.
    """
    step = innermost(error)
    return "" if step is None else f"{_name(step.tb_frame.f_code.co_filename)}:{step.tb_lineno}"


def innermost(error: BaseException) -> TracebackType | None:
    """The step of a traceback that :func:`place_of` names."""
    found, best, step = None, 1, _trace_of(error)
    while step is not None:
        rank = _rank(step.tb_frame.f_code.co_filename)
        if rank >= best:
            found, best = step, rank
        step = step.tb_next
    return found


def described_at(error: BaseException) -> str:
    """``"ValueError: what it says (rows.py:12)"``."""
    place = place_of(error)
    return f"{describe(error)} ({place})" if place else describe(error)


def headline(error: BaseException) -> str:
    """:func:`described_at` in one line that is not too long for a log."""
    lines = describe(error).splitlines() or [""]
    said = lines[0] if len(lines) == 1 and len(lines[0]) <= _HEADLINE else f"{lines[0][: _HEADLINE - 1]}…"
    place = place_of(error)
    return f"{said} ({place})" if place else said


def formatted(error: BaseException) -> str | None:
    """The traceback of an exception with its causes and, for a group, its members; None if it has none.

    At most :data:`LONGEST` characters: of a long one the innermost frames stay. It shows no variables.
    """
    trace = of_user(error)
    if trace is None and cause_of(error) is None and not is_a(error, BaseExceptionGroup):
        return None
    text = ""
    try:
        for frames in _FRAMES:
            text = (_plain if _is_plain(error) else _whole)(error, trace, frames)
            if len(text) <= LONGEST:
                return text
    except BaseException as raised:  # noqa: BLE001 parts of an exception are user code
        return f"{describe(error)}\n(its traceback cannot be read: {name_of(raised)})\n"
    return f"{text[: LONGEST // 2]}\n…\n{text[3 - LONGEST // 2 :]}"


def _whole(error: BaseException, trace: TracebackType | None, frames: int) -> str:
    import traceback  # only failures need it

    whole = traceback.TracebackException(type(error), error, trace, limit=-frames, compact=True)
    return "".join(map(_cut, whole.format()))


def _is_plain(error: BaseException) -> bool:
    """Whether its traceback is a stack and its text: nothing stands behind it, and Python adds nothing to it."""
    alone = cause_of(error) is None and (_context_of(error) is None or _suppresses_context(error))
    return alone and not is_a(error, _NOT_PLAIN) and not hasattr(error, "__notes__")


def _plain(error: BaseException, trace: TracebackType | None, frames: int) -> str:
    """The same as :func:`_whole`, at a tenth of its cost: most failures come from the same lines again and again."""
    steps, step = [], trace
    while step is not None:
        steps.append((step.tb_frame.f_code, step.tb_lasti))
        step = step.tb_next
    key = tuple(steps[-frames:])
    stack = _stacks.get(key)
    if stack is None:
        import traceback

        lines = traceback.format_list(traceback.extract_tb(trace, limit=-frames))
        stack = "".join(["Traceback (most recent call last):\n", *map(_cut, lines)])
        if len(_stacks) >= _MOST_STACKS:
            _stacks.clear()
        _stacks[key] = stack
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ in _UNNAMED else f"{kind.__module__}.{kind.__qualname__}"
    try:
        said = str(error)
    except BaseException:  # noqa: BLE001 as Python itself shows it
        said = "<exception str() failed>"
    return stack + _cut(f"{name}: {said}\n" if said else f"{name}\n")


# -- what an exception keeps alive ---------------------------------------------------------------------------


def exceptions_of(error: BaseException) -> list[BaseException]:
    """The exception, those behind it, the members of groups, and those in its arguments and attributes.

    Nothing is asked of the exceptions themselves, which are user code.
    """
    found, queue, seen = [], deque([error]), {id(error)}
    while queue:
        value: object = queue.popleft()
        if issubclass(type(value), BaseException):
            found.append(value)
        for part in get_referents(value):
            kind = type(part)
            if (kind in _CONTAINERS and len(part) <= _MOST_BEHIND) or issubclass(kind, BaseException):
                if id(part) not in seen and len(seen) <= _MOST_BEHIND:
                    seen.add(id(part))
                    queue.append(part)
    return found  # type: ignore[return-value]


def drop_frames(error: BaseException) -> None:
    """Let go of the frames of an exception, whose text is kept: they keep all their variables alive, and so do the
    frames that called them, down to what was posted and to what its caller had in its context."""
    for one in exceptions_of(error):
        BaseException.with_traceback(one, None)


# -- as one text -------------------------------------------------------------------------------------------


def kept(error: BaseException) -> str:
    """An error as a store keeps it: what :func:`describe` says of it, and its traceback. See :func:`read_back`."""
    return joined(describe(error), traceback_of(error))


def traceback_of(error: BaseException) -> str | None:
    """The traceback that an error of ours was given, or that of a foreign exception."""
    if is_a(error, RoutiluxError):
        text = _attributes_of(error).get("traceback")
        return text if type(text) is str else None
    return formatted(error)


def joined(text: str, traceback: str | None) -> str:
    return text if traceback is None else f"{text}{_BEHIND}{traceback.replace(_BEHIND, ' ')}"


def parted(text: str) -> tuple[str, str | None]:
    """The two texts that :func:`joined` has put together. What older versions have written has no traceback."""
    said, behind, traceback = text.rpartition(_BEHIND)
    return (said, traceback) if behind else (text, None)


def read_back(text: str, job_id: str) -> ExecutionError:
    """An error that was kept, as far as it can be known again."""
    said, traceback = parted(text)
    return ExecutionError(said, job_id=job_id, traceback=traceback)


# -- parts -------------------------------------------------------------------------------------------------


def _steps(error: BaseException) -> Iterator[TracebackType]:
    step = _trace_of(error)
    while step is not None:
        yield step
        step = step.tb_next


def _chained(steps: list[TracebackType]) -> TracebackType | None:
    """A traceback of these steps alone."""
    chain = None
    for step in reversed(steps):
        chain = TracebackType(chain, step.tb_frame, step.tb_lasti, step.tb_lineno)
    return chain


@lru_cache(maxsize=1_024)
def _rank(filename: str) -> int:
    """How likely it is that the user wrote this; below 0 for our machinery."""
    if filename.startswith(_MACHINERY):
        return -1
    if filename.startswith(_PACKAGE):
        return 0
    if _has(filename, _INSTALLED):
        return 2
    return 1 if filename.startswith(_LIBRARY) else 3


_name = lru_cache(maxsize=1_024)(os.path.basename)


def _has(filename: str, parts: Iterable[str]) -> bool:
    return any(part in filename for part in parts)


def _cut(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…\n"
