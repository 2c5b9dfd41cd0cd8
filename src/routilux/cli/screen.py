"""What goes to stdout: text, JSON and tables. Whole on a pipe; on a terminal, within its width."""

from __future__ import annotations

import base64
import json
import math
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, time
from typing import Any, Final, TextIO

_TEXT_TYPES: Final = (date, time)


def write(text: str) -> None:
    """Write to stdout at once, so that a reader gets it, and a closed pipe shows."""
    if text:
        sys.stdout.write(text)
        sys.stdout.flush()


def folded(text: str, stream: TextIO) -> str:
    """Long lines with line ends where a terminal would break words; on a pipe, and where indented, as they are."""
    columns = shutil.get_terminal_size().columns
    if not stream.isatty() or all(len(line) < columns for line in text.splitlines()):
        return text
    from textwrap import fill  # only terminals need it

    return "\n".join(
        line
        if len(line) < columns or line[:1].isspace()
        else fill(line, columns - 1, break_on_hyphens=False, break_long_words=False)
        for line in text.splitlines()
    )


def write_folded(text: str) -> None:
    write(f"{folded(text, sys.stdout)}\n")


# -- JSON --------------------------------------------------------------------------------------------------


def json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON of anything: what has no JSON form becomes the nearest that has one, or its ``repr``."""
    ascii_only = (sys.stdout.encoding or "ascii").lower().replace("-", "") != "utf8"
    try:
        text = json.dumps(value, ensure_ascii=ascii_only, allow_nan=False, indent=indent)
    except (TypeError, ValueError, RecursionError):
        text = json.dumps(_plain(value), ensure_ascii=ascii_only, allow_nan=False, indent=indent)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def print_json(value: Any) -> None:
    write(f"{json_text(value, indent=2)}\n")


def _plain(value: Any, depth: int = 0) -> Any:
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if depth > 100:
        return "…"
    if isinstance(value, Mapping):
        return {str(key): _plain(each, depth + 1) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(each, depth + 1) for each in value]
    return _text_of(value)


def _text_of(value: Any) -> str:
    if isinstance(value, _TEXT_TYPES):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value)


# -- tables ------------------------------------------------------------------------------------------------


def print_table(rows: Sequence[Mapping[str, Any]], *, title: str = "") -> None:
    """A column for each key, numbers to the right. On a terminal that is too narrow, cells are folded."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[_cell(row[column]) if column in row else "" for column in columns] for row in rows]
    right = [all(_is_number(row.get(column)) for row in rows) for column in columns]
    draw = _drawn if sys.stdout.isatty() else _aligned
    lines = [title] if title else []
    lines += (
        draw([_visible(column) for column in columns], cells, right)
        if columns
        else [f"{len(rows)} × no data"]
    )
    write("".join(f"{line.rstrip()}\n" for line in lines))


def _aligned(head: list[str], cells: list[list[str]], right: list[bool]) -> Iterator[str]:
    from rich.cells import cell_len  # a Chinese character takes two columns

    table = [head, *cells]
    widths = [max(cell_len(row[at]) for row in table) for at in range(len(head))]
    for row in table:
        padded = []
        for text, width, to_the_right in zip(row, widths, right, strict=True):
            blank = " " * (width - cell_len(text))
            padded.append(blank + text if to_the_right else text + blank)
        yield "  ".join(padded)


def _drawn(head: list[str], cells: list[list[str]], right: list[bool]) -> list[str]:
    """Within the width of the terminal; a reader at a terminal reads few rows, and rich takes its time."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name, to_the_right in zip(head, right, strict=True):
        table.add_column(Text(name), justify="right" if to_the_right else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    console = Console(file=sys.stdout, highlight=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get().splitlines()


def print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """Names and what they stand for, in two columns."""
    listed = list(pairs)
    width = max((len(name) for name, _ in listed), default=0)
    write("".join(f"{name:{width}}  {text}".rstrip() + "\n" for name, text in listed))


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return _visible(value)
    return "" if value is None else json_text(value)


def _visible(text: str) -> str:
    """Without what would move the cursor or ring the bell."""
    return "".join(character if character.isprintable() else "·" for character in text)
