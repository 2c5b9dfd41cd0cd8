"""``routilux run``: what it prints where, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from routilux import Runtime
from routilux.cli.flows import flow_named
from routilux.runtime import snapshots
from tests.unit.cli.calling import call, process

EVEN = ("run", "even.flow.yaml")


def data_of(stdout: str) -> list[dict[str, object]]:
    return [json.loads(line)["data"] for line in stdout.splitlines()]


@pytest.mark.usefixtures("steps")
class TestExitCodes:
    def test_0_when_it_is_done(self) -> None:
        result = call(*EVEN, "-p", "n:=2")
        assert (result.exit_code, data_of(result.stdout)) == (0, [{"n": 2}])
        assert result.stderr.startswith("even: completed after ")
        assert result.stderr.endswith("; 1 output\n")

    def test_1_when_the_flow_fails_and_no_traceback(self) -> None:
        result = call(*EVEN, "-p", "n:=3", "-q")
        assert (result.exit_code, result.stdout) == (1, "")
        (line,) = result.stderr.splitlines()
        assert line.startswith(
            "Error: routine 'it' failed in attempt 1: ValueError: 3 is odd (steps_of_test_"
        )

    def test_debug_shows_the_traceback_of_the_routine(self) -> None:
        result = call(*EVEN, "-p", "n:=3", "--debug")
        assert "Traceback" in result.stderr
        assert 'raise ValueError(f"{n} is odd")' in result.stderr

    def test_3_when_the_document_is_wrong(self, folder: Path) -> None:
        (folder / "bad.flow.yaml").write_text("version: 1\nflow_id: x\nroutines: {a: {class: red_csv}}\n")
        result = call("run", "bad.flow.yaml")
        assert (result.exit_code, result.stdout) == (3, "")
        assert "bad.flow.yaml:3:23" in result.stderr
        assert "read_csv" in result.stderr
        assert "--import MODULE" in result.stderr

    def test_4_when_it_takes_too_long(self) -> None:
        result = call("run", "wait.flow.yaml", "-p", "n:=1", "-p", "seconds:=3", "--timeout", "0.05", "-q")
        assert (result.exit_code, result.stdout) == (4, "")
        assert "has not ended within 0.05 s; give it longer: --timeout SECONDS" in result.stderr

    def test_4_when_the_flow_itself_says_how_long(self, folder: Path) -> None:
        document = (folder / "wait.flow.yaml").read_text() + "execution: {timeout: 0.05}\n"
        (folder / "wait.flow.yaml").write_text(document)
        assert call("run", "wait.flow.yaml", "-p", "n:=1", "-p", "seconds:=3").exit_code == 4


@pytest.mark.usefixtures("steps")
class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["run"], "Missing argument 'FLOW'"),
            (["run", "evn.flow.yaml"], "no registered flow 'evn.flow.yaml'; did you mean even.flow.yaml"),
            (["run", "."], "'.' is a directory, not a flow document; did you mean count_up.flow.yaml"),
            (["run", "/dev/null"], "'/dev/null' is no regular file"),
            ([*EVEN, "-p", "m:=3"], "-p m: no such parameter of it.input in flow 'even'; it takes n"),
            (["run", "take.flow.yaml", "-p", "idd:=3"], "no such parameter of it.order in flow 'Take'; it takes id"),
            (["run", "take.flow.yaml", "-p", "id=3"], "at $.id: expected int, got str"),
            ([*EVEN, "-p", "n"], "-p: expected key=text or key:=json, got 'n' (str)"),
            ([*EVEN, "-i", "nope.csv"], "-i 'nope.csv': no such file; nothing in '.' has such a name"),
            ([*EVEN, "-i", "routilux.tml"], "-i 'routilux.tml': no such file; did you mean routilux.toml?"),
            ([*EVEN, "-i", "no/in.json"], "-i 'no/in.json': no such file; there is no folder 'no'"),
            ([*EVEN, "--entry", "itt"], "no routine 'itt' in flow 'even'; there is only 'it'"),
            ([*EVEN, "--timeout", "0"], "Invalid value for '--timeout'"),
            ([*EVEN, "-o", "xml"], "'xml' is not one of 'table', 'json', 'jsonl'"),
            ([*EVEN, "--wtch"], "No such option '--wtch'. Did you mean '--watch'?"),
            ([*EVEN, "--watch", "-i", "-"], "-i - cannot be read twice"),
            ([*EVEN, "--import", "no_such_module"], "no module 'no_such_module' in "),
            ([*EVEN, "--save-state", "."], "--save-state '.' is a directory"),
            ([*EVEN, "--save-state", "no/state"], "--save-state 'no/state' cannot be written in 'no'"),
            ([*EVEN, "--load-state", "none"], "--load-state 'none' cannot be read: No such file or directory"),
            ([*EVEN, "--load-state", "even.flow.yaml"], "state file 'even.flow.yaml' is not JSON"),
        ],
    )  # fmt: skip
    def test_2_and_nothing_on_stdout(self, arguments: list[str], message: str) -> None:
        result = call(*arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert message in result.stderr
        assert "Traceback" not in result.stderr

    def test_a_wrong_setting_is_refused_with_its_place(self, folder: Path) -> None:
        (folder / "routilux.toml").write_text("threads = 0\n")
        result = call(*EVEN)
        assert (result.exit_code, result.stderr) == (
            2,
            "Error: threads in routilux.toml: expected 1 to 1024 threads, got 0 (int)\n",
        )

    def test_a_flow_that_could_be_entered_in_two_places_wants_entry(self, folder: Path, steps: str) -> None:
        routines = f"  a: {{class: {steps}.even}}\n  b: {{class: {steps}.even}}\n"
        (folder / "two.flow.yaml").write_text(f"version: 1\nflow_id: two\nroutines:\n{routines}")
        assert "--entry ROUTINE.SLOT" in call("run", "two.flow.yaml", "-p", "n:=2").stderr
        result = call("run", "two.flow.yaml", "-p", "n:=2", "--entry", "b")
        assert json.loads(result.stdout) == {"routine": "b", "event": "output", "data": {"n": 2}}

    def test_a_module_that_fails_is_named_with_its_error(self, folder: Path) -> None:
        (folder / "broken_module_of_test.py").write_text("1 / 0\n")
        result = call(*EVEN, "--import", "broken_module_of_test")
        assert (result.exit_code, result.stderr) == (
            2,
            "Error: module 'broken_module_of_test' cannot be imported: ZeroDivisionError: division by zero\n",
        )


@pytest.mark.usefixtures("steps")
class TestInputAndOutput:
    def test_each_line_is_an_item_and_a_failed_one_is_named_by_its_line(self, folder: Path) -> None:
        (folder / "in.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(20)))
        result = call(*EVEN, "-i", "in.jsonl")
        assert result.exit_code == 1
        assert data_of(result.stdout) == [{"n": n} for n in range(0, 20, 2)]
        headline, first, *_, last = result.stderr.splitlines()
        assert headline.endswith("; 20 items, 10 outputs, 10 failed")
        assert first.startswith(
            "Error: line 2: routine 'it' failed in attempt 1: ValueError: 1 is odd (steps"
        )
        assert last == "Error: 5 more items have failed"

    def test_what_stands_before_a_bad_line_is_done(self, folder: Path) -> None:
        (folder / "in.jsonl").write_text('{"n": 2}\n{"n": \n{"n": 4}\n')
        result = call(*EVEN, "-i", "in.jsonl", "-q")
        assert (result.exit_code, data_of(result.stdout)) == (2, [{"n": 2}])
        first, second, rest = result.stderr.splitlines()
        assert first.startswith("Error: in.jsonl, line 2: expected a JSON object on each line")
        assert (
            second
            == "Error: that ends the input; the lines after it were not read. Mend that line, and give the rest:"
        )
        assert rest == "  tail -n +2 in.jsonl | routilux run even.flow.yaml -i -"

    def test_a_payload_that_does_not_fit_is_named_by_its_line(self, folder: Path) -> None:
        (folder / "in.jsonl").write_text('{"id": 2}\n{"id": "x"}\n')
        result = call("run", "take.flow.yaml", "-i", "in.jsonl", "-q")
        assert (result.exit_code, data_of(result.stdout)) == (2, [{"id": 2}])
        assert result.stderr.startswith("Error: line 2: slot 'it.order'")
        assert "Error: that ends the input; the lines after it were not read. Mend that line" in result.stderr

    def test_standard_input(self, folder: Path) -> None:
        done = process(*EVEN, "-i", "-", "-q", folder=folder, text='{"n": 2}\n{"n": 4}\n')
        assert (done.returncode, data_of(done.stdout), done.stderr) == (0, [{"n": 2}, {"n": 4}], "")

    def test_json_is_the_same_as_output_json(self) -> None:
        assert json.loads(call(*EVEN, "-p", "n:=2", "--json").stdout) == [
            {"routine": "it", "event": "output", "data": {"n": 2}}
        ]

    def test_the_config_chooses_the_form_and_a_flag_goes_before_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ROUTILUX_OUTPUT", "table")
        assert call(*EVEN, "-p", "n:=2").stdout == "it.output\nn\n2\n"
        assert data_of(call(*EVEN, "-p", "n:=2", "-o", "jsonl").stdout) == [{"n": 2}]

    def test_outputs_that_are_missing_are_told(self) -> None:
        result = call("run", "count_up.flow.yaml", "-p", "n:=100002")
        assert len(result.stdout.splitlines()) == 100_000
        assert "2 outputs are missing" in result.stderr

    def test_an_error_that_reaches_nobody_is_no_success(self, folder: Path) -> None:
        (folder / "read.flow.yaml").write_text(
            "version: 1\nflow_id: r\nroutines: {read: {class: read_csv}}\n"
        )
        result = call("run", "read.flow.yaml", "-p", "path=none.csv")
        assert result.exit_code == 1
        assert [row["payload"] for row in data_of(result.stdout)] == [{"path": "none.csv"}]
        headline, error, fix = result.stderr.splitlines()
        assert headline.startswith("r: ended with errors after ")
        assert error.startswith("Error: 1 output of read.error reached no routine: cannot read 'none.csv': ")
        assert fix == "Connect it to what is to deal with it: - {from: read.error, to: ROUTINE.SLOT}"

    def test_an_error_that_reaches_nobody_is_named_by_its_line(self, folder: Path) -> None:
        (folder / "read.flow.yaml").write_text(
            "version: 1\nflow_id: r\nroutines: {read: {class: read_csv}}\n"
        )
        (folder / "rows.csv").write_text("a\n1\n")
        paths = ("rows.csv", "none.csv", "neither.csv")
        for count, said in (
            (2, "line 2: 1 output of read.error"),
            (3, "the first of line 2: cannot read 'none.csv'"),
        ):
            (folder / "in.jsonl").write_text("".join(f'{{"path": "{path}"}}\n' for path in paths[:count]))
            result = call("run", "read.flow.yaml", "--entry", "read.path", "-i", "in.jsonl")
            assert result.exit_code == 1
            assert said in result.stderr

    @pytest.mark.parametrize("store", [(), ("--store", "sqlite:///keys.db")])
    def test_a_missing_join_key_names_routine_slot_and_key_and_no_line_of_ours(
        self, folder: Path, store: tuple[str, ...]
    ) -> None:
        (folder / "pay.flow.yaml").write_text(
            "version: 1\nflow_id: pay\nentry: kind.input\nroutines:\n"
            "  kind: {class: branch, config: {routes: [{name: order, when: \"kind == 'order'\"}], default: payment}}\n"
            "  ship: {class: pick, config: {keys: [id]}, concurrency: {limit: 2, by: id}}\n"
            "connections:\n  - {from: kind.order, to: ship.input}\n"
        )
        (folder / "in.jsonl").write_text('{"kind": "order", "id": 1}\n{"kind": "order"}\n')
        result = call("run", "pay.flow.yaml", "-i", "in.jsonl", *store)
        assert result.exit_code == 1
        (line,) = (line for line in result.stderr.splitlines() if line.startswith("Error: line 2"))
        assert line.startswith(
            "Error: line 2: routine 'kind' failed in attempt 1: InvalidValueError: no payload key 'id'"
        )
        assert "slot 'ship.input'" in line
        assert ".py:" not in line

    def test_quiet_does_not_hide_it(self, folder: Path) -> None:
        (folder / "read.flow.yaml").write_text(
            "version: 1\nflow_id: r\nroutines: {read: {class: read_csv}}\n"
        )
        assert (
            "read.error reached no routine"
            in call("run", "read.flow.yaml", "-p", "path=none.csv", "-q").stderr
        )

    def test_errors_that_are_connected_are_dealt_with(self, folder: Path) -> None:
        (folder / "rows.csv").write_text("a,b\n1,2\n1,2,3,4\n")
        (folder / "read.flow.yaml").write_text(
            "version: 1\nflow_id: r\nentry: read.path\nroutines:\n  read: {class: read_csv}\n  bad: {class: count}\n"
            "connections:\n  - {from: read.error, to: bad.input}\n"
        )
        result = call("run", "read.flow.yaml", "-p", "path=rows.csv")
        assert (result.exit_code, "reached no routine" in result.stderr) == (0, False)

    def test_what_was_set_aside_is_told(self, folder: Path) -> None:
        document = (folder / "even.flow.yaml").read_text() + "error_handler: {strategy: skip}\n"
        (folder / "even.flow.yaml").write_text(document)
        (folder / "in.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in (2, 3, 4)))
        result = call(*EVEN, "-i", "in.jsonl")
        assert result.exit_code == 1
        headline, told = result.stderr.splitlines()
        assert "even: ended with errors" in headline
        assert told == (
            'Error: line 2: set aside at it.input (skipped): ValueError: 3 is odd; its data is {"n": 3}'
        )

    @pytest.mark.parametrize("strategy", ["stop", "skip", "continue"])
    @pytest.mark.parametrize(("allowed", "code"), [("1", 1), ("2", 0)])
    def test_lost_items_may_be_allowed_whatever_the_strategy(
        self, folder: Path, strategy: str, allowed: str, code: int
    ) -> None:
        document = (folder / "even.flow.yaml").read_text() + f"error_handler: {{strategy: {strategy}}}\n"
        (folder / "even.flow.yaml").write_text(document)
        (folder / "in.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in (2, 3, 4, 5)))
        result = call(*EVEN, "-i", "in.jsonl", "--allow-errors", allowed)
        assert result.exit_code == code
        assert f", 2 lost, {allowed} allowed\n" in result.stderr
        heads = {line.partition(":")[0] for line in result.stderr.splitlines()[1:]}
        assert heads == ({"Error"} if code else {"Warning"})
        assert result.stderr.startswith("even: completed after ") == (code == 0)

    def test_failures_are_told_once_and_with_their_traceback_if_asked(self) -> None:
        assert "Traceback" not in call(*EVEN, "-p", "n:=3").stderr
        told = call(*EVEN, "-p", "n:=3", "-v").stderr
        assert told.count("Traceback") == 1
        assert 'raise ValueError(f"{n} is odd")' in told

    def test_unknown_keys_of_the_config_warn_and_the_flow_runs(self, folder: Path) -> None:
        (folder / "routilux.toml").write_text((folder / "routilux.toml").read_text() + "[run]\nthread = 1\n")
        result = call(*EVEN, "-p", "n:=2")
        assert result.exit_code == 0
        assert "Warning: routilux.toml: unknown key 'run.thread'" in result.stderr

    def test_a_stream_that_cannot_show_a_character_gets_its_code(self, folder: Path) -> None:
        (folder / "in.json").write_text('{"n": "雨"}')
        document = (folder / "wait.flow.yaml").read_text()
        (folder / "wait.flow.yaml").write_text(document)
        arguments = ("run", "wait.flow.yaml", "-i", "in.json", "-p", "seconds:=0", "-q")
        done = process(*arguments, folder=folder, PYTHONIOENCODING="latin-1")
        assert data_of(done.stdout) == [{"n": "雨"}]
        table = process(*arguments, "-o", "table", folder=folder, PYTHONIOENCODING="latin-1")
        assert (table.returncode, table.stdout) == (0, "it.output\nn\n\\u96e8\n")


@pytest.mark.usefixtures("steps")
class TestStates:
    def test_the_printed_command_has_the_imports(self) -> None:
        result = call(*EVEN, "-p", "n:=2", "--save-state", "state", "--import", "json")
        again = "Go on with: routilux run even.flow.yaml --import json --load-state state"
        assert again in result.stderr

    def test_what_a_run_remembers_goes_into_the_next_one(self, folder: Path) -> None:
        (folder / "sum.flow.yaml").write_text(
            "version: 1\nflow_id: sums\nroutines:\n  count: {class: count}\n", encoding="utf-8"
        )
        first = call("run", "sum.flow.yaml", "-p", "n:=1", "--save-state", "state")
        assert "State saved. Go on with: routilux run sum.flow.yaml --load-state state" in first.stderr
        second = call("run", "sum.flow.yaml", "-p", "n:=2", "--load-state", "state")
        assert [data_of(each.stdout) for each in (first, second)] == [
            [{"n": 1, "count": 1}],
            [{"n": 2, "count": 2}],
        ]

    def test_a_run_that_took_too_long_goes_on_and_prints_nothing_twice(self, folder: Path) -> None:
        (folder / "in.jsonl").write_text("".join(f'{{"n": {n}, "seconds": 0.25}}\n' for n in range(12)))
        first = call("run", "wait.flow.yaml", "-i", "in.jsonl", "--timeout", "1", "--save-state", "state")
        assert first.exit_code == 4
        waiting = snapshots.read("state")["mailboxes"]["it"]["items"]
        assert 0 < len(waiting) < 12
        second = call("run", "wait.flow.yaml", "--load-state", "state")
        assert second.exit_code == 0
        assert data_of(first.stdout) + data_of(second.stdout) == [{"n": n} for n in range(12)]

    def test_what_a_job_had_put_out_before_it_was_saved_is_not_printed_again(
        self, folder: Path, steps: str
    ) -> None:
        (folder / "long.flow.yaml").write_text(
            f"version: 1\nflow_id: long\nroutines:\n  up: {{class: {steps}.count_up}}\n"
            f"  wait: {{class: {steps}.wait}}\n"
            "connections:\n- {from: up.output, to: wait.input, mapping: {i: n}}\n"
        )
        arguments = ("run", "long.flow.yaml", "-p", "n:=60", "--timeout", "1", "--save-state", "state")
        first = call(*arguments)
        assert first.exit_code == 4
        assert len(snapshots.read("state")["jobs"][0]["outputs"]) == len(first.stdout.splitlines()) > 0
        second = call("run", "long.flow.yaml", "--load-state", "state")
        assert data_of(first.stdout) + data_of(second.stdout) == [{"n": n} for n in range(60)]

    def test_a_state_of_another_flow_is_refused(self) -> None:
        call("run", "even.flow.yaml", "-p", "n:=2", "--save-state", "state")
        result = call("run", "wait.flow.yaml", "--load-state", "state")
        assert (result.exit_code, result.stdout) == (2, "")
        assert "was made by flow 'even', and flow 'wait' is not 'even'" in result.stderr

    def test_an_execution_that_a_program_has_saved_goes_on(self, folder: Path, steps: str) -> None:
        flow = flow_named("wait.flow.yaml", (steps,))
        with Runtime(thread_pool_size=1) as runtime:
            holding = runtime.exec(flow, entry_params={"n": 0, "seconds": 0.2})  # keeps the one thread busy
            state = runtime.exec(flow, entry_params={"n": 1, "seconds": 0})
            runtime.pause(state)
            state.save("state")
            runtime.cancel(state)
            runtime.cancel(holding)
        refused = call("run", "wait.flow.yaml", "--load-state", "state", "-p", "n:=2")
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert "which takes no more data" in refused.stderr
        assert data_of(call("run", "wait.flow.yaml", "--load-state", "state").stdout) == [{"n": 1}]
        done = call("run", "wait.flow.yaml", "--load-state", "state", "--save-state", "after")
        assert done.exit_code == 0
        over = call("run", "wait.flow.yaml", "--load-state", "after")
        assert (over.exit_code, over.stdout) == (2, "")
        assert "that execution has completed already" in over.stderr


JOIN = """
from routilux import Routine
from routilux.activation_policies import all_slots_ready_policy


class Join(Routine):
    def __init__(self):
        super().__init__()
        self.add_slot("left")
        self.add_slot("right")
        self.set_activation_policy(all_slots_ready_policy())

    def logic(self, slot_data, message, state):
        pass
"""


def told(stderr: str) -> list[str]:
    """The lines of the report; what validate() finds in the flow comes before them."""
    return [line for line in stderr.splitlines() if not line.startswith("WARNING routilux: flow ")]


def test_what_waits_for_others_at_the_end_is_told_and_counts_as_lost(folder: Path) -> None:
    (folder / "joins_left_and_right.py").write_text(JOIN)
    (folder / "join.flow.yaml").write_text(
        "version: 1\nflow_id: j\nentry: join.left\nroutines:\n  join: {class: joins_left_and_right.Join}\n"
    )
    arguments = ("run", "join.flow.yaml", "--import", "joins_left_and_right", "-p", "n:=1")
    result = call(*arguments)
    assert (result.exit_code, ", 1 parked after" in result.stderr) == (1, True)
    line = 'waits in join.left for a partner in join.right; its data is {"n": 1}'
    assert result.stderr.endswith(f"\nError: {line}\n")
    assert told(call(*arguments, "-q").stderr) == [f"Error: {line}"]
    allowed = call(*arguments, "--allow-errors", "1")
    assert (allowed.exit_code, "j: completed, 1 parked after" in allowed.stderr) == (0, True)
    assert allowed.stderr.endswith(f"; 0 outputs, 1 lost, 1 allowed\nWarning: {line}\n")


@pytest.mark.parametrize("store", [(), ("--store", "sqlite:///w.db")], ids=["memory", "store"])
def test_what_is_parked_is_told_with_its_line_its_key_and_what_it_waits_for(
    folder: Path, store: tuple[str, ...]
) -> None:
    (folder / "joins_by_id.py").write_text(JOIN.replace("policy()", "policy(by='id')"))
    (folder / "join.flow.yaml").write_text(
        "version: 1\nflow_id: j\nentry: join.left\nroutines:\n  join: {class: joins_by_id.Join}\n"
    )
    (folder / "in.jsonl").write_text("".join(f'{{"id": {n}}}\n' for n in range(7)))
    result = call("run", "join.flow.yaml", "--import", "joins_by_id", "-i", "in.jsonl", "-q", *store)
    expected = [
        f'Error: line {n + 1}: waits in join.left for a partner in join.right (id {n}); its data is {{"id": {n}}}'
        for n in range(5)
    ]
    assert (result.exit_code, told(result.stderr)) == (1, [*expected, "Error: 2 more items are parked"])


def test_a_batch_that_is_not_full_is_told_at_the_end(folder: Path) -> None:
    (folder / "packs.py").write_text(
        "from routilux import Routine\nfrom routilux.activation_policies import batch_size_policy\n\n\n"
        "class Pack(Routine):\n    def __init__(self):\n        super().__init__()\n        self.add_slot('input')\n"
        "        self.set_activation_policy(batch_size_policy(10, flush=False))\n\n"
        "    def logic(self, slot_data, message, state):\n        pass\n"
    )
    (folder / "pack.flow.yaml").write_text("version: 1\nflow_id: p\nroutines:\n  pack: {class: packs.Pack}\n")
    result = call("run", "pack.flow.yaml", "--import", "packs", "-p", "n:=1", "-q")
    line = 'Error: waits in pack.input until there are 10 items; its data is {"n": 1}\n'
    assert (result.exit_code, result.stderr) == (1, line)
