"""Progress: redrawn in place on a terminal, lines elsewhere, and never wider than the terminal."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from routilux.cli.progress import Lines, Live, Silent, progress_of
from tests.unit.cli.calling import environment
from tests.waiting import SECONDS

UP_AND_CLEAR = "\r\x1b[{}A\x1b[J"


class Rows:
    """A view of so many routines."""

    def __init__(self, rows: int, width: int = 10) -> None:
        self.rows, self.width = rows, width

    def summary(self) -> str:
        return f"flow: {self.rows} rows"

    def details(self) -> list[str]:
        return ["x" * self.width] * self.rows


@pytest.fixture(autouse=True)
def small_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("LINES", "10")


def test_live_lines_are_drawn_over_and_leave_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    live = Live(Rows(1))
    drawn = "flow: 1 rows\x1b[K\nxxxxxxxxxx\x1b[K\n\x1b[J"
    live.tick()
    assert capsys.readouterr().err == f"\r{drawn}"
    live.tick()
    assert capsys.readouterr().err == f"\r\x1b[2A{drawn}"
    live.end()
    assert capsys.readouterr().err == UP_AND_CLEAR.format(2)
    live.end()
    assert capsys.readouterr().err == ""


def test_something_else_is_written_above_what_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    live = Live(Rows(0))
    live.tick()
    live.aside(lambda: print("data", file=sys.stderr))
    live.tick()
    drawn = "flow: 0 rows\x1b[K\n\x1b[J"
    assert capsys.readouterr().err == f"\r{drawn}{UP_AND_CLEAR.format(1)}data\n\r{drawn}"


def test_live_lines_fit_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Live(Rows(100, width=50)).tick()
    lines = plain(capsys.readouterr().err)
    assert lines == ["flow: 100 rows", *["x" * 18 + "…"] * 6, "  … and 94 more"]


def test_lines_come_when_they_are_due_and_say_something_new(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([0.0, 1.0, 2.0, 3.0, 4.5, 7.0])
    monkeypatch.setattr("routilux.cli.progress.monotonic", lambda: next(times))
    view = Rows(1)
    lines = Lines(view)
    for rows in (2, 3, 4, 3, 5):
        view.rows = rows
        lines.tick()
    assert capsys.readouterr().err == "flow: 3 rows\nflow: 5 rows\n"


def test_what_is_shown_depends_on_the_stream() -> None:
    assert isinstance(progress_of(Rows(1), quiet=False), Lines)
    assert type(progress_of(Rows(1), quiet=True)) is Silent


# -- a real terminal -----------------------------------------------------------------------------------------


def on_terminal(*arguments: str, folder: Path, columns: int = 80) -> str:
    """What a command writes to a terminal of that width, on stdout and stderr."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {name: value for name, value in environment().items() if name not in ("COLUMNS", "LINES")}
    running = subprocess.Popen(
        [sys.executable, "-m", "routilux", *arguments],
        stdin=its, stdout=its, stderr=its, cwd=folder, env=env | {"TERM": "xterm"},
    )  # fmt: skip
    os.close(its)
    data = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        while chunk := read_or_end(terminal):
            data += chunk
    running.wait(SECONDS)
    return data.decode()


def read_or_end(terminal: io.FileIO) -> bytes:
    try:
        return terminal.read(4096) or b""
    except OSError:  # Linux says so when the other side is closed
        return b""


def plain(text: str) -> list[str]:
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]|\r", "", text).splitlines()


@pytest.mark.parametrize("columns", [80, 50])
def test_on_a_terminal_nothing_is_wider_than_it(columns: int, folder: Path) -> None:
    for arguments in (("list", "routines"), ("list", "routines", "reduce", "map"), ("validate", "no " * 60)):
        lines = plain(on_terminal(*arguments, folder=folder, columns=columns))
        assert [line for line in lines if len(line) > columns] == []


def test_on_a_terminal_a_run_shows_tables(folder: Path, steps: str) -> None:
    lines = plain(on_terminal("run", "even.flow.yaml", "-p", "n:=2", folder=folder))
    assert lines[-5:-1] == ["it.output", "n", "2", ""]
    assert lines[-1].startswith("even: completed after ")
