"""Runs in a store: killed, interrupted, failed, and resumed."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path

import pytest

from routilux import Runtime
from routilux.cli.flows import flow_named
from routilux.cli.running import Run
from routilux.errors import RuntimeClosedError
from tests.unit.cli.calling import call, process, started
from tests.waiting import SECONDS

pytestmark = pytest.mark.usefixtures("steps")

STORE = ("--store", "sqlite:///runs.db")
SUM = """
version: 1
flow_id: sum
entry: slow.input
routines:
  slow: {{class: {module}.wait}}
  total: {{class: reduce, config: {{key: "n % 3", name: rest, fields: {{count: {{count: n}}, sum: {{sum: n}}}}}}}}
connections:
  - {{from: slow.output, to: total.input}}
"""


def data_of(stdout: str) -> list[dict[str, object]]:
    return [json.loads(line)["data"] for line in stdout.splitlines()]


def numbers(stdout: str) -> list[object]:
    return sorted(data["n"] for data in data_of(stdout))


def write_items(folder: Path, n: int, seconds: float = 0.002) -> None:
    (folder / "in.jsonl").write_text("".join(f'{{"n": {i}, "seconds": {seconds}}}\n' for i in range(n)))


def killed(
    *arguments: str, folder: Path, number: signal.Signals, after: str | None = None
) -> tuple[int, str]:
    """The code and the messages of a run that gets a signal after its first output, or after a message."""
    running = started("run", *arguments, folder=folder)
    assert running.stdout is not None
    assert running.stderr is not None
    assert running.stdin is not None
    told = ""
    if after is None:
        assert running.stdout.readline()
    else:
        while after not in told:
            line = running.stderr.readline()
            assert line, f"{after!r} is not in {told}"
            told += line
    running.send_signal(number)
    with running.stdin, running.stdout, running.stderr:
        running.stdout.read()
        told += running.stderr.read()
    return running.wait(SECONDS), told


class TestGoingOn:
    def test_after_a_kill_every_output_comes_once(self, folder: Path) -> None:
        write_items(folder, 300)
        code, told = killed(
            "wait.flow.yaml", "-i", "in.jsonl", *STORE, "--id", "one", folder=folder, number=signal.SIGKILL
        )
        assert code == -signal.SIGKILL
        assert told.startswith(
            "This is run one. However it ends, go on with it by\n"
            "  routilux run wait.flow.yaml --store sqlite:///runs.db --resume one\n"
        )
        second = process("run", "wait.flow.yaml", *STORE, "--resume", "one", folder=folder)
        assert second.returncode == 0, second.stderr
        assert numbers(second.stdout) == list(range(300))
        assert second.stderr.startswith("Going on with run one, which has taken ")

    def test_figures_are_those_of_a_run_that_nothing_has_disturbed(self, folder: Path, steps: str) -> None:
        (folder / "sum.flow.yaml").write_text(SUM.format(module=steps))
        write_items(folder, 400, 0.01)
        whole = process("run", "sum.flow.yaml", "-i", "in.jsonl", "-q", folder=folder)
        killed(
            "sum.flow.yaml", "-i", "in.jsonl", *STORE, "--id", "one", folder=folder, number=signal.SIGKILL,
            after="items done",
        )  # fmt: skip
        first = process("run", "sum.flow.yaml", *STORE, "--resume", "one", "-q", folder=folder)
        again = process("run", "sum.flow.yaml", *STORE, "--resume", "one", "-q", folder=folder)
        assert (first.returncode, again.returncode) == (0, 0)
        assert [Counter(run.stdout.splitlines()) for run in (first, again)] == [
            Counter(whole.stdout.splitlines())
        ] * 2

    def test_ctrl_c_leaves_everything_and_says_how_to_go_on(self, folder: Path) -> None:
        write_items(folder, 300, 0.01)
        code, told = killed(
            "wait.flow.yaml", "-i", "in.jsonl", *STORE, "--id", "one", folder=folder, number=signal.SIGINT
        )
        assert code == 130
        assert told.splitlines()[-2:] == [
            "Everything up to here is kept. Go on with:",
            "  routilux run wait.flow.yaml --store sqlite:///runs.db --resume one",
        ]
        second = process("run", "wait.flow.yaml", *STORE, "--resume", "one", "-q", folder=folder)
        assert (second.returncode, numbers(second.stdout)) == (0, list(range(300))), second.stderr

    def test_the_store_of_the_config_needs_no_flag(self, folder: Path) -> None:
        with (folder / "routilux.toml").open("r+") as config:
            text = config.read()
            config.seek(0)
            config.write(f'store = "sqlite:///runs.db"\n{text}')
        result = call(
            "run", "wait.flow.yaml", "-p", "n:=1", "-p", "seconds:=3", "--timeout", "0.05", "--id", "one"
        )
        assert result.exit_code == 4
        assert "is kept. Go on with:\n  routilux run wait.flow.yaml --resume one\n" in result.stderr

    def test_the_printed_command_has_the_imports_and_what_may_be_lost(self, folder: Path, steps: str) -> None:
        (folder / "routilux.toml").unlink()
        options = ("--import", steps, "--allow-errors", "2")
        (folder / "in.jsonl").write_text('{"n": 1}\noops\n')
        data = ("-i", "in.jsonl")
        first = process("run", "wait.flow.yaml", *data, *options, *STORE, "--id", "one", folder=folder)
        assert first.returncode == 2, first.stderr
        (folder / "in.jsonl").write_text('{"n": 1}\n{"n": 2}\n')
        printed = first.stderr.splitlines()[-1].split()
        assert printed == [
            "routilux",
            "run",
            "wait.flow.yaml",
            "--import",
            steps,
            *STORE,
            "--resume",
            "one",
            *options[2:],
        ]
        second = process(*printed[1:], folder=folder)
        assert (second.returncode, numbers(second.stdout)) == (0, [1, 2]), second.stderr

    def test_the_command_that_puts_items_back_has_the_imports(self, folder: Path, steps: str) -> None:
        (folder / "routilux.toml").unlink()
        first = process(
            "run", "even.flow.yaml", "-p", "n:=1", "--import", steps, *STORE, "--id", "one", folder=folder
        )
        assert first.stderr.splitlines()[-1] == f"  routilux job retry --import {steps} {' '.join(STORE)} one"

    def test_a_run_that_has_ended_shows_its_outputs_again(self) -> None:
        first = call("run", "even.flow.yaml", "-p", "n:=2", *STORE, "--id", "one")
        again = call("run", "even.flow.yaml", *STORE, "--resume", "one")
        assert (first.exit_code, again.exit_code, again.stdout) == (0, 0, first.stdout)
        assert again.stderr == "Run one has ended; this is what came out of 1 item.\n"
        other = call("run", "even.flow.yaml", *STORE, "--resume", "one", "-p", "n:=4")
        assert (other.exit_code, other.stdout) == (2, "")
        assert "was begun with -p n:=2, which cannot be changed" in other.stderr

    @pytest.mark.parametrize("other", ["n:=true", "n:=1.0"])
    def test_a_parameter_of_another_type_is_another_one(self, other: str) -> None:
        call("run", "even.flow.yaml", "-p", "n:=1", *STORE, "--id", "one")
        resumed = call("run", "even.flow.yaml", *STORE, "--resume", "one", "-p", other)
        assert (resumed.exit_code, resumed.stdout) == (2, "")
        assert "was begun with -p n:=1, which cannot be changed" in resumed.stderr

    def test_standard_input_is_given_again_and_taken_once(self, folder: Path) -> None:
        lines = "".join(f'{{"n": {n}, "seconds": 0}}\n' for n in range(3))
        first = process(
            "run", "wait.flow.yaml", "-i", "-", *STORE, "--id", "one", folder=folder, text=lines + "oops\n"
        )
        assert (first.returncode, numbers(first.stdout)) == (2, [0, 1, 2])
        assert first.stderr.endswith("--resume one -i -\n")
        text = lines + '{"n": 3, "seconds": 0}\n'
        second = process(
            "run", "wait.flow.yaml", "-i", "-", *STORE, "--resume", "one", folder=folder, text=text
        )
        assert (second.returncode, numbers(second.stdout)) == (0, [0, 1, 2, 3])

    def test_without_it_what_was_taken_is_finished(self, folder: Path) -> None:
        lines = '{"n": 0, "seconds": 0}\noops\n'
        process("run", "wait.flow.yaml", "-i", "-", *STORE, "--id", "one", folder=folder, text=lines)
        second = process("run", "wait.flow.yaml", *STORE, "--resume", "one", folder=folder)
        assert (second.returncode, numbers(second.stdout)) == (0, [0])
        assert "Its input came from standard input: only what was taken is finished." in second.stderr

    def test_files_may_have_other_names_meanwhile(self, folder: Path) -> None:
        (folder / "in.jsonl").write_text('{"n": 0, "seconds": 0}\noops\n')
        first = call("run", "wait.flow.yaml", "-i", "in.jsonl", *STORE, "--id", "one")
        assert (first.exit_code, numbers(first.stdout)) == (2, [0])
        (folder / "wait.flow.yaml").rename(folder / "renamed.flow.yaml")
        (folder / "in.jsonl").unlink()
        (folder / "moved.jsonl").write_text('{"n": 0, "seconds": 0}\n{"n": 1, "seconds": 0}\n')
        second = call("run", "renamed.flow.yaml", "-i", "moved.jsonl", *STORE, "--resume", "one")
        assert (second.exit_code, numbers(second.stdout)) == (0, [0, 1]), second.stderr

    def test_a_run_that_was_stopped_before_its_first_item_goes_on_as_it_was_begun(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def stop(*_: object, **__: object) -> None:
            raise RuntimeClosedError("stopped before the first post")

        begun = ("wait.flow.yaml", "-p", "n:=7", "-p", "seconds:=0", "--entry", "it.input")
        with monkeypatch.context() as patch:
            patch.setattr(Run, "post", stop)
            first = call("run", *begun, *STORE, "--id", "one")
        assert first.stdout == ""
        second = call("run", "wait.flow.yaml", *STORE, "--resume", "one")
        assert (second.exit_code, numbers(second.stdout)) == (0, [7]), second.stderr

    def test_a_worker_of_a_program_is_finished_and_given_nothing(self, steps: str) -> None:
        flow = flow_named("wait.flow.yaml", [steps])
        with Runtime(store="sqlite:///runs.db") as runtime:
            worker = runtime.exec(flow, worker_id="one")
            runtime.post(flow, "it", "input", {"n": 3, "seconds": 0}, worker_id=worker.worker_id)
        result = call("run", "wait.flow.yaml", *STORE, "--resume", "one")
        assert (result.exit_code, numbers(result.stdout)) == (0, [3]), result.stderr
        assert "It was not begun by this command: only what it has taken is finished." in result.stderr

    def test_a_changed_flow_is_refused_and_adopted(self, folder: Path) -> None:
        document = folder / "wait.flow.yaml"
        write_items(folder, 300, 0.01)
        killed(
            "wait.flow.yaml", "-i", "in.jsonl", *STORE, "--id", "one", folder=folder, number=signal.SIGKILL
        )
        document.write_text(document.read_text() + "connections: []\n" + "error_handler: {strategy: skip}\n")
        document.write_text(
            document.read_text().replace("  it:", "  also: {class: count}\n  it:") + "entry: it.input\n"
        )
        refused = call("run", "wait.flow.yaml", *STORE, "--resume", "one")
        assert refused.exit_code == 1
        assert "in another shape" in refused.stderr
        assert "--on-flow-change adopt" in refused.stderr
        adopted = call("run", "wait.flow.yaml", *STORE, "--resume", "one", "--on-flow-change", "adopt")
        assert (adopted.exit_code, numbers(adopted.stdout)) == (0, list(range(300)))


class TestRefused:
    @pytest.fixture(autouse=True)
    def runs(self, folder: Path, steps: str) -> None:
        (folder / "in.jsonl").write_text('{"n": 2}\n{"n": 3}\n')
        assert call("run", "even.flow.yaml", "-i", "in.jsonl", *STORE, "--id", "evens-1").exit_code == 1
        assert (
            call(
                "run", "wait.flow.yaml", "-p", "n:=1", "-p", "seconds:=0", *STORE, "--id", "waits-1"
            ).exit_code
            == 0
        )

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--resume", "evens-1"], "--resume needs a store: --store sqlite:///routilux.db, the variable"),
            ([*STORE, "--resume", "evns-1"], "no such run in sqlite:///"),
            ([*STORE, "--resume", "evns-1"], "evens-1, waits-1; unfinished: evens-1 (2 of 2 items done)"),
            ([*STORE, "--resume", "waits-1"], "is a run of flow 'wait', not of 'even'"),
            ([*STORE, "--id", "evens-1"], "has a run of this id; go on with it by --resume evens-1"),
            ([*STORE, "--id", "a", "--resume", "evens-1"], "--id names a new run, and --resume goes on with one"),
            ([*STORE, "--resume", "evens-1", "-p", "n:=4"], "was begun with no parameters, which cannot be changed"),
            ([*STORE, "--on-flow-change", "adopt"], "--on-flow-change says how --resume goes on"),
            ([*STORE, "--resume", "evens-1", "--watch"], "--watch runs again from the beginning"),
            ([*STORE, "--save-state", "s"], "--save-state keeps a run in a file, and --store in a store"),
            (["--store", "runs.db"], "store: expected a URL, such as sqlite:///relative.db"),
            (["--store", "mysql://me:secret@host/db"], "no kind of store 'mysql' in 'mysql://me:…@host/db'"),
        ],
    )  # fmt: skip
    def test_usage_is_2_and_says_what_to_do(self, arguments: list[str], message: str) -> None:
        result = call("run", "even.flow.yaml", *arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert message in result.stderr
        assert "secret" not in result.stderr

    def test_another_input_is_found_at_its_line(self, folder: Path) -> None:
        (folder / "in.jsonl").write_text('{"n": 2}\n{"n": 5}\n')
        result = call("run", "even.flow.yaml", *STORE, "--resume", "evens-1")
        assert result.exit_code == 2
        assert "the run has taken something else as line 2 before" in result.stderr

    def test_another_entry_is_named(self, folder: Path, steps: str) -> None:
        document = folder / "even.flow.yaml"
        document.write_text(f"{document.read_text()}  other: {{class: {steps}.even}}\nentry: it.input\n")
        (folder / "odd.jsonl").write_text('{"n": 3}\n')
        call("run", "even.flow.yaml", "-i", "odd.jsonl", *STORE, "--id", "two")
        same = call("run", "even.flow.yaml", *STORE, "--resume", "two", "--entry", "it")
        assert "set aside and kept" in same.stderr
        result = call("run", "even.flow.yaml", *STORE, "--resume", "two", "--entry", "other")
        assert (result.exit_code, result.stdout) == (2, "")
        assert "--entry: run 'two' was begun at 'it.input', which cannot be changed" in result.stderr

    def test_a_store_that_is_not_there_is_not_made(self, folder: Path) -> None:
        result = call("run", "even.flow.yaml", "--store", "sqlite:///none.db", "--resume", "evens-1")
        assert (result.exit_code, (folder / "none.db").exists()) == (1, False)
        assert "there is no store at" in result.stderr

    def test_what_a_run_has_failed_on_is_kept_and_told(self) -> None:
        result = call("run", "even.flow.yaml", *STORE, "--resume", "evens-1")
        assert (result.exit_code, data_of(result.stdout)) == (1, [{"n": 2}])
        assert (
            "line 2: SlotHandlerError: routine 'it' failed in attempt 1: ValueError: 3 is odd"
            in result.stderr
        )
        assert result.stderr.endswith(
            "1 item set aside and kept. Look at them, and put them back, with\n"
            "  routilux job list --dead-letters --store sqlite:///runs.db --run evens-1\n"
            "  routilux job retry --store sqlite:///runs.db evens-1\n"
        )


def test_another_process_that_has_the_store_is_named(folder: Path) -> None:
    running = started("run", "wait.flow.yaml", "-i", "-", *STORE, "--id", "one", folder=folder)
    assert running.stdin is not None
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdin.write('{"n": 1, "seconds": 0}\n')
    running.stdin.flush()
    assert numbers(running.stdout.readline()) == [1]
    second = call("run", "even.flow.yaml", "-p", "n:=2", *STORE)
    cancelled = call("job", "cancel", "one", *STORE)
    looked = call("job", "list", *STORE, "--json")
    doctor = call("doctor", *STORE)
    with running.stdin, running.stdout, running.stderr:
        running.stdin.close()
        running.stderr.read()
    assert running.wait(SECONDS) == 0
    for result in (second, cancelled):
        assert result.exit_code == 5
        assert f"is in use by process {running.pid}, since 20" in result.stderr
    assert [job["status"] for job in json.loads(looked.stdout)] == ["completed"]
    assert f"process {running.pid}, since 20" in doctor.stdout
