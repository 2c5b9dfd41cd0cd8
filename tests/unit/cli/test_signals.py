"""Ctrl-C, SIGTERM and closed pipes, in processes of their own. Each waits for a first line, never for a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import in_the_background
from tests.unit.cli.calling import environment, process, started, started_as_we_are
from tests.waiting import SECONDS

pytestmark = [
    pytest.mark.usefixtures("steps"),
    pytest.mark.skipif(os.name == "nt", reason="signals and closed pipes are different there"),
]


def items(seconds: float, n: int) -> str:
    return "".join(f'{{"n": {each}, "seconds": {seconds}}}\n' for each in range(n))


def numbers(*texts: str) -> list[int]:
    return [json.loads(line)["data"]["n"] for text in texts for line in text.splitlines()]


def interrupted(
    *arguments: str, folder: Path, number: signal.Signals = signal.SIGINT
) -> subprocess.CompletedProcess[str]:
    """A run that gets a signal after its first output."""
    running = started("run", "wait.flow.yaml", *arguments, folder=folder)
    assert running.stdout is not None
    first = running.stdout.readline()
    running.send_signal(number)
    out, err = rest_of(running)
    return subprocess.CompletedProcess(arguments, running.returncode, first + out, err)


def rest_of(running: subprocess.Popen[str]) -> tuple[str, str]:
    """What a process still prints until its end. ``communicate()`` would lose what is read ahead of a line."""
    assert running.stdin is not None
    assert running.stdout is not None
    assert running.stderr is not None
    with running.stdin, running.stdout, running.stderr:
        texts = running.stdout.read(), running.stderr.read()
    running.wait(SECONDS)
    return texts


def test_ctrl_c_ends_a_run_with_130_and_says_how_to_keep_it(folder: Path) -> None:
    (folder / "in.jsonl").write_text(items(0.02, 1_000))
    done = interrupted("-i", "in.jsonl", folder=folder)
    assert done.returncode == 130
    assert numbers(done.stdout) == list(range(len(done.stdout.splitlines())))
    headline, hint = done.stderr.splitlines()[-2:]
    assert headline.startswith("wait: interrupted after ")
    assert hint == "Nothing of the run is kept. With --store sqlite:///FILE.db it can be resumed."


def test_sigterm_ends_it_the_same_way_with_143(folder: Path) -> None:
    (folder / "in.jsonl").write_text(items(0.02, 1_000))
    done = interrupted("-i", "in.jsonl", folder=folder, number=signal.SIGTERM)
    assert done.returncode == 143
    assert "wait: interrupted after " in done.stderr


def test_an_interrupted_run_goes_on_from_its_state_with_the_command_that_it_prints(folder: Path) -> None:
    (folder / "in.jsonl").write_text(items(0.002, 1_500))
    first = interrupted("-i", "in.jsonl", "--save-state", "state", folder=folder)
    assert first.returncode == 130
    *_, told, command = first.stderr.splitlines()
    if not told.endswith("Go on with:"):  # all of the input had been taken
        command = command.partition("Go on with: ")[2]
    command = command.replace("routilux run", f"{sys.executable} -m routilux run -q -p seconds:=0")
    second = subprocess.run(
        command, shell=True, cwd=folder, capture_output=True, text=True, env=environment(), timeout=SECONDS, check=False
    )  # fmt: skip
    assert (second.returncode, second.stderr) == (0, "")
    assert sorted(numbers(first.stdout, second.stdout)) == list(range(1_500))


def test_an_input_on_which_nothing_comes_does_not_hold_up_the_end(folder: Path) -> None:
    running = started("run", "wait.flow.yaml", "-i", "-", folder=folder)
    assert running.stdin is not None
    assert running.stdout is not None
    running.stdin.write(items(0, 1))
    running.stdin.flush()
    assert numbers(running.stdout.readline()) == [0]  # an output comes before the input has ended
    running.send_signal(signal.SIGINT)
    assert running.wait(SECONDS) == 130
    rest_of(running)


def test_logic_that_goes_on_does_not_hold_up_the_end(folder: Path) -> None:
    (folder / "in.jsonl").write_text(items(0, 1) + '{"n": 1, "seconds": 40}\n')
    done = interrupted("-i", "in.jsonl", folder=folder)
    assert done.returncode == 130
    assert "shut down while these routines still ran: it" in done.stderr


def test_a_second_ctrl_c_gives_up_at_once(folder: Path) -> None:
    (folder / "in.jsonl").write_text(items(0, 1) + '{"n": 1, "seconds": 40}\n')
    running = started("run", "wait.flow.yaml", "-i", "in.jsonl", "--save-state", "state", folder=folder)
    assert running.stdout is not None
    assert running.stderr is not None
    assert numbers(running.stdout.readline()) == [0]
    running.send_signal(signal.SIGINT)
    for line in running.stderr:
        if line.startswith("Saving the state as soon as what runs has ended"):
            break
    running.send_signal(signal.SIGINT)
    _, err = rest_of(running)
    assert running.returncode == 130
    assert "Traceback" not in err
    assert not (folder / "state").exists()


def test_a_run_in_the_background_goes_on_when_the_foreground_is_interrupted(folder: Path) -> None:
    """A terminal sends Ctrl-C to the background too, if the shell has no job control; there it is ignored."""
    (folder / "in.jsonl").write_text(items(0.002, 200))
    with in_the_background():
        running = started_as_we_are("run", "wait.flow.yaml", "-i", "in.jsonl", folder=folder)
    assert running.stdout is not None
    first = running.stdout.readline()
    running.send_signal(signal.SIGINT)
    out, err = rest_of(running)
    assert (running.returncode, numbers(first, out)) == (0, list(range(200)))
    assert err.splitlines()[-1].startswith("wait: completed")


def test_a_run_in_the_background_ends_on_sigterm_and_ignores_ctrl_c_while_it_does(folder: Path) -> None:
    (folder / "in.jsonl").write_text(items(0, 1) + '{"n": 1, "seconds": 2}\n')
    with in_the_background():
        running = started_as_we_are(
            "run", "wait.flow.yaml", "-i", "in.jsonl", "--save-state", "state", folder=folder
        )
    assert running.stdout is not None
    assert running.stderr is not None
    assert numbers(running.stdout.readline()) == [0]
    running.send_signal(signal.SIGTERM)
    assert any(line.startswith("Saving the state as soon as") for line in running.stderr)
    running.send_signal(signal.SIGINT)
    rest_of(running)
    assert (running.returncode, (folder / "state").exists()) == (143, True)


@pytest.mark.parametrize("form", ["jsonl", "json"])
def test_a_closed_pipe_ends_a_run_without_a_traceback(form: str, folder: Path) -> None:
    running = started("run", "count_up.flow.yaml", "-p", "n:=90000", "-o", form, "-q", folder=folder)
    assert running.stdout is not None
    running.stdout.readline()
    running.stdout.close()
    assert running.stderr is not None
    assert running.stderr.read() == ""
    running.stderr.close()
    assert running.stdin is not None
    running.stdin.close()
    assert running.wait(SECONDS) == 141


@pytest.mark.parametrize(
    "arguments", [("--help",), ("list", "routines", "-q"), ("schema",), ("validate", "even.flow.yaml")]
)
def test_a_pipe_that_is_closed_from_the_beginning_shows_no_traceback(
    arguments: tuple[str, ...], folder: Path
) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "routilux", *arguments],
        stdout=write, stderr=subprocess.PIPE, cwd=folder, env=environment(), timeout=SECONDS, check=False, text=True,
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_watch_runs_again_after_a_change_and_survives_a_mistake(folder: Path) -> None:
    document = folder / "even.flow.yaml"
    text = document.read_text()
    running = started("run", "even.flow.yaml", "-p", "n:=2", "--watch", folder=folder)
    assert running.stdout is not None
    assert running.stderr is not None

    def told(beginning: str) -> None:
        assert running.stderr is not None
        assert any(line.startswith(beginning) for line in running.stderr)

    told("Watching even.flow.yaml")
    document.write_text(text + "oops: [\n")
    told("Error: even.flow.yaml: 1 problem")
    told("Watching even.flow.yaml")
    document.write_text(text)
    told("even: completed")
    told("Watching even.flow.yaml")
    running.send_signal(signal.SIGINT)
    out, _ = rest_of(running)
    assert running.returncode == 130
    assert numbers(out) == [2, 2]


def test_a_run_without_a_reader_of_its_messages_does_its_work(folder: Path) -> None:
    assert process("run", "even.flow.yaml", "-p", "n:=2", "-q", folder=folder).stderr == ""
