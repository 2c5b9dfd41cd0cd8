"""What goes into a run: parameters of the command line, and JSON or JSON Lines of a file."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from inspect import Parameter, signature
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, NoReturn

from routilux import Flow
from routilux.errors import InvalidValueError, nearest, refused, shown
from routilux.model.function import FunctionRoutine

STDIN: Final = "-"
MAX_LINE: Final = 64 * 1024 * 1024  # bytes of a line, and of a document


class Item(NamedTuple):
    """A payload, and the line of the input that it stood on; 0 for parameters alone."""

    line: int
    payload: dict[str, Any]


# -- parameters --------------------------------------------------------------------------------------------


def parameters(given: Iterable[str]) -> dict[str, Any]:
    """The payload of ``key=text`` and ``key:=json``; of a key that is given twice the last counts."""
    return dict(map(_parameter, given))


def _parameter(text: str) -> tuple[str, Any]:
    head, sign, value = text.partition("=")
    key = head.removesuffix(":")
    if not sign or not key:
        raise refused(InvalidValueError, "-p", text, "key=text or key:=json", fix="write -p city=Seattle")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise refused(InvalidValueError, f"-p {shown(key)}", value, "text in UTF-8") from None
    return (key, _json_value(key, value)) if head.endswith(":") else (key, value)


def _json_value(key: str, text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        fix = f"for text write -p {key}={text}" if len(text) < 40 else "for text write = instead of :="
        message = f"-p {key}:= takes JSON, got {shown(text)}: {error}; {fix}"
        raise InvalidValueError(message) from None


# -- input -------------------------------------------------------------------------------------------------


def items_of(source: str | None, given: Mapping[str, Any]) -> Iterator[Item]:
    """The payloads of a run, read while it runs; parameters are added to each, and win over its own keys.

    Without a source there is one, the parameters. An input whose first line is a JSON object has one on each
    line; else it is one JSON object as a whole. Raises InvalidValueError naming the line.
    """
    if source is None:
        return iter([Item(0, dict(given))])
    return (Item(line, {**payload, **given}) for line, payload in _read(source))


def _read(source: str) -> Generator[tuple[int, dict[str, Any]], None, None]:
    name = "standard input" if source == STDIN else source
    with _opened(source) as file:
        lines = _lines(file, name)
        first = next(lines, None)
        if first is None:
            raise InvalidValueError(f"{name} is empty; give a JSON object, or one on each line")
        if not _is_object(first[1]):
            yield first[0], _document(first[0], chain([first], lines), name)
            return
        for number, text in chain([first], lines):
            yield number, _object(text, f"{name}, line {number}", "a JSON object on each line")


def _opened(source: str) -> BinaryIO:
    """A reader of its own for standard input: the one of ``sys`` cannot be left while it waits for a line."""
    if source == STDIN:
        return open(0, "rb", closefd=False)
    try:
        return open(source, "rb")
    except IsADirectoryError:
        raise InvalidValueError(
            f"-i {shown(source)} is a directory; give a file of JSON or JSON Lines"
        ) from None
    except FileNotFoundError:
        raise _no_file(source) from None
    except OSError as error:
        raise InvalidValueError(f"-i {shown(source)} cannot be read: {error.strerror or error}") from error


def check_input(source: str | None) -> None:
    """Refuse an input that cannot be opened, before anything starts."""
    if source not in (None, STDIN):
        _opened(str(source)).close()


def _no_file(source: str) -> InvalidValueError:
    folder = Path(source).parent
    if not folder.is_dir():
        return InvalidValueError(f"-i {shown(source)}: no such file; there is no folder {shown(str(folder))}")
    close = _close_files(Path(source).name, folder)
    hint = (
        f"did you mean {', '.join(close)}?" if close else f"nothing in {shown(str(folder))} has such a name"
    )
    return InvalidValueError(f"-i {shown(source)}: no such file; {hint}")


def _close_files(name: str, folder: Path) -> list[str]:
    """Files of a folder with a name that is nearly this one, nearest first."""
    from difflib import get_close_matches  # only when something has gone wrong already

    files = [entry.name for entry in os.scandir(folder) if entry.is_file()]
    return get_close_matches(name, files)


def _lines(file: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    """The lines that are not empty, with their numbers."""
    for number, data in enumerate(iter(lambda: file.readline(MAX_LINE + 1), b""), 1):
        if len(data) > MAX_LINE:
            raise InvalidValueError(f"{name}, line {number}: longer than {MAX_LINE // 2**20} MiB")
        try:
            text = data.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise InvalidValueError(
                f"{name}, line {number}: not UTF-8 (byte {error.object[error.start]:#04x} at {error.start + 1}); "
                "convert it first"
            ) from None
        if text:
            yield number, text


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _document(start: int, lines: Iterable[tuple[int, str]], name: str) -> dict[str, Any]:
    """One JSON object over several lines; empty lines between count for the places of errors."""
    text, number, size = "", start, 0
    for at, line in lines:
        size += len(line)
        if size > MAX_LINE:
            raise InvalidValueError(
                f"{name}: a JSON document longer than {MAX_LINE // 2**20} MiB; use JSON Lines"
            )
        text += "\n" * (at - number) + line
        number = at
    return _object(text, name, "one JSON object, or one on each line", start)


def _object(text: str, where: str, expected: str, start: int = 0) -> dict[str, Any]:
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno + start - 1}, " if start else ""
        message = f"{where}: expected {expected}: {error.msg} at {line}column {error.colno}"
        raise InvalidValueError(message) from None
    except (ValueError, RecursionError) as error:
        raise InvalidValueError(f"{where}: expected {expected}: {error}") from None
    if not isinstance(value, dict):
        raise refused(InvalidValueError, where, value, expected)
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


# -- what the entry knows ----------------------------------------------------------------------------------


def check_keys(flow: Flow, routine_id: str, slot: str, given: Mapping[str, Any]) -> None:
    """Refuse a parameter that the entry cannot know, where it says which keys it takes."""
    known = _keys(flow, routine_id, slot)
    if known is None:
        return
    for key in given:
        if key not in known:
            where = f"of {routine_id}.{slot} in flow {flow.flow_id!r}"
            listed = ", ".join(nearest(key, known)) or "none"
            raise InvalidValueError(f"-p {key}: no such parameter {where}; it takes {listed}")


def _keys(flow: Flow, routine_id: str, slot: str) -> set[str] | None:
    """The keys that a slot takes; None if it takes any."""
    routine = flow.routines[routine_id]
    if isinstance(routine, FunctionRoutine):
        accepted = signature(routine.fn).parameters.values()
        open_ended = any(each.kind is Parameter.VAR_KEYWORD for each in accepted)
        return None if open_ended else {each.name for each in accepted}
    declared = routine.slots[slot].data_type
    return None if declared is None else set(declared.fields)
