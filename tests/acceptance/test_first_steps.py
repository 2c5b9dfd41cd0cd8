"""The path of somebody who is new: the built wheel in a fresh environment, from the demo to a run that was killed.

Its parts are tested one by one in ``tests/unit/cli`` and by the tutorial; this is the whole, without the checkout.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 300

pytestmark = [pytest.mark.full, pytest.mark.skipif(os.name == "nt", reason="kill -9 is different there")]

STORE = ("--store", "sqlite:///runs.db")


def run(*arguments: str | Path, folder: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, arguments)), cwd=folder, env=environment(path), capture_output=True, encoding="utf-8",
        timeout=SECONDS, check=False,
    )  # fmt: skip


def environment(programs: Path | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ROUTILUX_", "PYTHON"))}
    first = "" if programs is None else f"{programs}{os.pathsep}"
    return {**kept, "PATH": f"{first}{kept['PATH']}", "PYTHONIOENCODING": "utf-8"}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel; what the wheel needs comes from the environment of the tests."""
    place = tmp_path_factory.mktemp("fresh")
    for command in (
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", place, ROOT],
        [sys.executable, "-m", "venv", place / "env"],
    ):
        assert run(*command, folder=place).returncode == 0
    [wheel] = place.glob("routilux-*.whl")
    python = place / "env" / "bin" / "python"
    assert run(python, "-m", "pip", "install", "-q", "--no-deps", wheel, folder=place).returncode == 0
    own = run(
        python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=place
    ).stdout.strip()
    (Path(own) / "needed.pth").write_text(f"{sysconfig.get_path('purelib')}\n")  # behind the wheel itself
    return python.parent


def test_the_path_from_the_demo_to_a_run_that_was_killed(programs: Path, tmp_path: Path) -> None:
    def call(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = run(programs / "routilux", *arguments, folder=folder, path=programs)
        assert done.returncode == code, done.stderr
        return done

    folder = tmp_path
    where = run(programs / "python", "-c", "import routilux; print(routilux.__file__)", folder=folder).stdout
    assert where.startswith(str(programs.parent))
    assert "Try next" in call("demo").stderr
    call("init", "hello")
    assert "nothing was written" in call("init", "hello", code=2).stderr

    folder = tmp_path / "hello"
    document = folder / "weather.flow.yaml"
    right = document.read_text()
    document.write_text(right.replace("class: reduce", "class: redcue"))
    assert "nearest: reduce" in call("validate", "weather.flow.yaml", code=3).stdout
    document.write_text(right)
    call("validate", "weather.flow.yaml")
    whole = call("run", "weather.flow.yaml", "-p", "path=data/weather.csv").stdout

    slow = right.replace("  summary:", "  slow: {class: throttle, config: {items: 4}}\n  summary:").replace(
        "to: summary.input", "to: slow.input}\n  - {from: slow.output, to: summary.input"
    )
    document.write_text(slow)
    kill_after_first_output(programs, folder)
    [job] = json.loads(call("job", "list", *STORE, "--json").stdout)
    assert job["status"] in ("pending", "running")
    assert job["metadata"]["params"] == {"path": "data/weather.csv"}
    assert call("run", "weather.flow.yaml", *STORE, "--resume", job["run"]).stdout == whole
    assert call("run", "weather.flow.yaml", *STORE, "--resume", job["run"]).stdout == whole

    document.write_text(right)
    tested = run(programs / "python", "-m", "pytest", "-q", folder=folder, path=programs)
    assert (tested.returncode, "1 passed" in tested.stdout) == (0, True), tested.stdout


def kill_after_first_output(programs: Path, folder: Path) -> None:
    running = subprocess.Popen(
        [programs / "routilux", "run", "weather.flow.yaml", "-p", "path=data/weather.csv", *STORE],
        cwd=folder, env=environment(programs), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert running.stdout is not None
    with running.stdout:
        assert running.stdout.readline()
        running.send_signal(signal.SIGKILL)
        assert running.wait(SECONDS) == -signal.SIGKILL
