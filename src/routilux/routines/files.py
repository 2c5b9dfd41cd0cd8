"""Built-in routines for files: read them row by row, and write them so that only complete ones appear.

Readers emit a row at a time and are held back while a slot behind them is full, so a file of any size needs
little memory. Writers collect in a file beside the target and rename it when the flow drains.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TextIO, TypeVar

from routilux import ConfigurationError, current
from routilux.activation_policies import ActivationPolicy
from routilux.routines.formats import strict_json
from routilux.routines.paths import Draft, path_of
from routilux.routines.policies import FLUSH, HoldLast
from routilux.routines.settings import Configured, EachItem, Payload, SlotData, Unsuitable, setting

CHECKPOINT_RECORDS = 1_000
"""So many records a reader goes between two checkpoints: what a store keeps in memory, and what may come again."""

# -- reading -----------------------------------------------------------------------------------------------


def _check_encoding(name: str) -> None:
    try:
        "".encode(name)
    except LookupError:
        raise ValueError(f"no encoding {name!r}; most files are utf-8") from None


@dataclass
class ReadConfig:
    path: str | None = setting("the file, for payloads that name none", default=None, min=1)
    folder: str | None = setting("the folder that a file must be in", default=None, min=1)
    encoding: str = setting("how the text is encoded", default="utf-8", check=_check_encoding)
    max_line: int = setting("characters of a line at most", default=10_000_000, min=1)


class Record(NamedTuple):
    """What a line of a file gave: a payload, or what is wrong with the line."""

    line: int
    payload: Payload
    problem: str | None = None


# How a decoder with the error handler "surrogateescape" writes a byte that is none of its encoding.
_BAD_BYTE = re.compile("[\udc80-\udcff]")


class Lines:
    """The lines of an open file. ``number`` counts them; ``problem`` stays until it is taken."""

    def __init__(self, file: TextIO, settings: ReadConfig) -> None:
        self.number = 0
        self.problem: str | None = None
        self._file, self._settings = file, settings

    def __iter__(self) -> Iterator[str]:
        longest = self._settings.max_line
        for line in iter(partial(self._file.readline, longest + 1), ""):
            self.number += 1
            if len(line) > longest:
                raise Unsuitable(f"line {self.number} is longer than {longest} characters")
            if not line.isascii():
                line = line.removeprefix("\ufeff") if self.number == 1 else line
                self._look_for_bad_bytes(line)
            yield line

    def take_problem(self) -> str:
        problem, self.problem = self.problem, None
        return problem or ""

    def _look_for_bad_bytes(self, line: str) -> None:
        bad = _BAD_BYTE.search(line)
        if bad and self.problem is None:
            self.problem = f"byte 0x{ord(bad[0]) - 0xDC00:02x} is no {self._settings.encoding}"


def _without_bad_bytes(text: str) -> str:
    return _BAD_BYTE.sub("\ufffd", text)


R = TypeVar("R", bound=ReadConfig)


class Reader(EachItem[R], Generic[R]):
    """Reads the file that a payload names under ``path``."""

    event: ClassVar[str] = "row"

    def declare(self) -> None:
        self.add_slot("path")
        self.add_event(self.event)
        self.add_event("done", ["path", "count", "errors"])
        self.add_event("error", ["reason", "payload"])

    def logic(self, slot_data: SlotData, policy_message: Any, state: Any) -> None:
        super().logic({"input": slot_data["path"]}, policy_message, state)

    def treat(self, payload: Payload, state: Any) -> None:
        path = path_of(payload.get("path", self.settings.path), self.settings.folder)
        activation = current()
        count, errors = activation.checkpointed or (0, 0)  # an earlier attempt has come that far
        with closing(self._records_of(path)) as records:
            for record in islice(records, count + errors, None):
                if record.problem is None:
                    count += 1
                    self.emit(self.event, **record.payload)
                else:
                    errors += 1
                    found = {"path": str(path), "line": record.line, **record.payload}
                    self.reject(found, f"line {record.line}: {record.problem}")
                if not (count + errors) % CHECKPOINT_RECORDS:
                    activation.checkpoint((count, errors))
        self.emit("done", path=str(path), count=count, errors=errors)

    def _records_of(self, path: Path) -> Generator[Record, None, None]:
        """Catches what goes wrong while reading, and not what the emitting of a record raises."""
        try:
            with path.open(encoding=self.settings.encoding, errors="surrogateescape", newline="") as file:
                yield from self.records(Lines(file, self.settings))
        except (OSError, UnicodeError, Unsuitable) as error:
            raise Unsuitable(f"cannot read {str(path)!r}: {error}"[:500]) from None

    def records(self, lines: Lines) -> Iterator[Record]:
        raise NotImplementedError


@dataclass
class ReadCsvConfig(ReadConfig):
    delimiter: str = setting("what stands between two cells", default=",", min=1, max=1)
    columns: list[str] | None = setting(
        "the names of the columns, if the first row does not have them", default=None
    )
    numbers: bool | list[str] = setting(
        "make numbers of cells that look like one as JSON writes them: in all columns, none, or these",
        default=True,
    )


class ReadCsv(Reader[ReadCsvConfig]):
    """Emits each row of a CSV file, with the names of the columns as keys."""

    config_type = ReadCsvConfig

    def records(self, lines: Lines) -> Iterator[Record]:
        rows = csv.reader(iter(lines), delimiter=self.settings.delimiter, strict=True)
        columns, end = self.settings.columns, 0
        try:
            for cells in rows:
                if columns is None:
                    columns = _column_names(cells, lines)
                elif lines.problem is not None:
                    payload = {"cells": list(map(_without_bad_bytes, cells))}
                    yield Record(rows.line_num, payload, lines.take_problem())
                elif len(cells) == len(columns):
                    yield Record(rows.line_num, self._row(columns, cells))
                elif cells:
                    problem = f"{len(cells)} cells, and {len(columns)} columns"
                    yield Record(rows.line_num, {"cells": cells}, problem)
                end = rows.line_num
        except csv.Error as error:
            raise Unsuitable(f"the row that begins in line {end + 1}: {error}") from None

    def _row(self, columns: Sequence[str], cells: Sequence[str]) -> Payload:
        numbers = self.settings.numbers
        if isinstance(numbers, bool):
            return dict(zip(columns, map(number_of, cells) if numbers else cells, strict=True))
        return {
            name: number_of(cell) if name in numbers else cell
            for name, cell in zip(columns, cells, strict=True)
        }


def _column_names(cells: list[str], lines: Lines) -> list[str] | None:
    """What the first row with anything in it names; rows before that are none."""
    if lines.problem is not None:
        raise Unsuitable(f"line {lines.number}: {lines.problem}")
    if len(set(cells)) < len(cells):
        raise Unsuitable(f"two columns have the same name: {cells}"[:400])
    return cells or None


_FIRST = frozenset("-0123456789")  # spares most texts the pattern
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")


def number_of(cell: str) -> int | float | str:
    """The number that a cell holds, else its text. ``007`` and numbers of 19 digits are names of something."""
    if cell[:1] not in _FIRST:
        return cell
    match = _NUMBER.fullmatch(cell)
    if match is None:
        return cell
    if match.lastindex is None:
        return int(cell)
    number = float(cell)
    return number if math.isfinite(number) else cell


class ReadJsonl(Reader[ReadConfig]):
    """Emits the JSON object of each line; empty lines are passed over."""

    config_type = ReadConfig

    def records(self, lines: Lines) -> Iterator[Record]:
        for line in lines:
            text = line.strip()
            if lines.problem is not None:
                payload = {"text": _without_bad_bytes(text[:_SHOWN])}
                yield Record(lines.number, payload, lines.take_problem())
            elif text:
                yield _json_record(lines.number, text)


_SHOWN = 1_000  # characters of a line that is no JSON object


def _json_record(number: int, text: str) -> Record:
    try:
        value = strict_json(text)
    except (ValueError, RecursionError) as error:
        return Record(number, {"text": text[:_SHOWN]}, f"no JSON: {error}")
    if not isinstance(value, dict):
        return Record(number, {"text": text[:_SHOWN]}, f"{type(value).__name__}, not an object")
    return Record(number, value)


@dataclass
class ReadLinesConfig(ReadConfig):
    skip_empty: bool = setting("pass over lines with nothing but blanks", default=False)


class ReadLines(Reader[ReadLinesConfig]):
    """Emits each line of a text file, without its end, as ``text`` with its ``number``."""

    config_type = ReadLinesConfig
    event = "line"

    def records(self, lines: Lines) -> Iterator[Record]:
        for line in lines:
            text = line.rstrip("\r\n")
            if lines.problem is not None:
                payload = {"text": _without_bad_bytes(text), "number": lines.number}
                yield Record(lines.number, payload, lines.take_problem())
            elif text.strip() or not self.settings.skip_empty:
                yield Record(lines.number, {"text": text, "number": lines.number})


# -- writing -----------------------------------------------------------------------------------------------


@dataclass
class WriteConfig:
    path: str = setting("the file", min=1)
    folder: str | None = setting("the folder that the file must be in", default=None, min=1)
    existing: str = setting(
        "replace a file that is there, or add to it", default="replace", choices=("replace", "append")
    )


W = TypeVar("W", bound=WriteConfig)


class Writer(Configured[W], Generic[W]):
    """Writes each payload to a file that appears, complete, when the flow drains."""

    def declare(self) -> None:
        self.add_slot("input")
        self.add_event("written", ["path", "count"])
        self.add_event("error", ["reason", "payload"])

    def prepare(self, settings: W) -> None:
        try:
            path_of(settings.path, settings.folder)
        except Unsuitable as problem:
            raise ConfigurationError(f"config.path of {self}: {problem}") from None

    def policy(self, settings: W) -> ActivationPolicy:
        return HoldLast()

    def logic(self, slot_data: SlotData, policy_message: Any, state: Any) -> None:
        memory = self.memory(state)
        draft = self._draft(memory)
        if not memory.get("draft"):
            self.remember(state, draft=draft.as_state(), count=0, columns=None)
            memory = self.memory(state)
        lines: list[bytes] = []
        count, columns = memory["count"], memory["columns"]
        for payload in slot_data["input"]:
            try:
                wanted = columns or self.columns(payload, draft)
                line = self.line(payload, wanted).encode()
            except (Unsuitable, UnicodeEncodeError) as problem:
                self.reject(payload, problem)
                continue
            if not draft.size and not lines:
                lines.append(self.head(wanted).encode())
            lines.append(line)
            count, columns = count + 1, wanted
        draft.write(b"".join(lines))
        if policy_message == FLUSH:
            draft.finish()
        # What is remembered changes last: after a failure the same payloads are written in the same place.
        self.remember(
            state, draft=None if policy_message == FLUSH else draft.as_state(), count=count, columns=columns
        )
        if policy_message == FLUSH:
            self.emit("written", path=str(draft.target), count=count)

    def _draft(self, memory: Payload) -> Draft:
        if memory.get("draft"):
            return Draft.restored(memory["draft"])
        self._refuse_second_writer()
        return Draft.begin(self.target, self.settings.existing == "append")

    @property
    def target(self) -> Path:
        return path_of(self.settings.path, self.settings.folder)

    def _refuse_second_writer(self) -> None:
        """Whichever of the two came last would replace what the other has written."""
        mine = self.target.resolve()
        for name, other in self.flow.routines.items() if self.flow else ():
            if other is not self and isinstance(other, Writer) and other.target.resolve() == mine:
                raise ConfigurationError(
                    f"{self} and routine {name!r} write the same file: {name!r} writes {str(other.target)!r}; "
                    "give each a path of its own, or connect what feeds them to one of the two"
                )

    def columns(self, payload: Payload, draft: Draft) -> list[str]:
        """What is the same in every line, as far as the file or its first payload says."""
        return []

    def head(self, columns: list[str]) -> str:
        return ""

    def line(self, payload: Payload, columns: list[str]) -> str:
        raise NotImplementedError


_json_text = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


class WriteJsonl(Writer[WriteConfig]):
    """Writes each payload as a line of JSON."""

    config_type = WriteConfig

    def line(self, payload: Payload, columns: list[str]) -> str:
        try:
            return _json_text(payload) + "\n"
        except (TypeError, ValueError, RecursionError) as error:
            raise Unsuitable(f"no JSON form: {error}") from None


@dataclass
class WriteCsvConfig(WriteConfig):
    columns: list[str] | None = setting(
        "the columns; without them, the keys of the first payload", default=None, min=1
    )
    delimiter: str = setting("what stands between two cells", default=",", min=1, max=1)
    extra: str = setting(
        "what to do with a payload that has other keys too", default="error", choices=("error", "ignore")
    )


class WriteCsv(Writer[WriteCsvConfig]):
    """Writes each payload as a row of CSV, under a first row with the names of the columns."""

    config_type = WriteCsvConfig

    def columns(self, payload: Payload, draft: Draft) -> list[str]:
        if draft.size:
            return self._columns_there(draft)
        columns = self.settings.columns or list(payload)
        if not columns:
            raise Unsuitable("a payload without keys names no columns")
        return columns

    def _columns_there(self, draft: Draft) -> list[str]:
        """Those of the file that is added to: rows with others, or in another order, would mean something else."""
        with draft.temporary.open(encoding="utf-8-sig", newline="") as file:
            columns = next(csv.reader(file, delimiter=self.settings.delimiter))
        if self.settings.columns not in (None, columns):
            raise ConfigurationError(
                f"{self} adds to {str(draft.target)!r}, which has the columns {columns}; config.columns are "
                f"{self.settings.columns}; leave them out, or write another file"
            )
        return columns

    def head(self, columns: list[str]) -> str:
        return self._row(columns)

    def line(self, payload: Payload, columns: list[str]) -> str:
        extra = [key for key in payload if key not in columns]
        if extra and self.settings.extra == "error":
            raise Unsuitable(f"no column for {', '.join(map(repr, extra))}"[:500])
        cells = [payload.get(column) for column in columns]
        nested = next((name for name, cell in zip(columns, cells, strict=True) if not _fits(cell)), None)
        if nested is not None:
            raise Unsuitable(f"{nested!r} is {type(payload[nested]).__name__}, which is no cell")
        return self._row(cells)

    def _row(self, cells: Sequence[Any]) -> str:
        written = io.StringIO()
        csv.writer(written, delimiter=self.settings.delimiter).writerow(cells)
        # Cells with either half of the writer's own line end are quoted; files have the short one.
        return written.getvalue().removesuffix("\r\n") + "\n"


def _fits(cell: Any) -> bool:
    return not isinstance(cell, (dict, list, tuple, set, frozenset, bytes))
