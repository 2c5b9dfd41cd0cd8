"""What comes out: each output once, no job followed for longer than needed, and the forms of printing."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from routilux import Flow, JobContext, Output, Routine, routine
from routilux.activation_policies import all_slots_ready_policy
from routilux.cli.outputs import PRINTERS, Outputs
from routilux.cli.screen import json_text, print_table
from routilux.testing import SimulatedRuntime


class Pair(Routine):
    """Joins one item of each slot, and so the jobs of two posts."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("left")
        self.add_slot("right")
        self.add_event("pair")
        self.set_activation_policy(all_slots_ready_policy())

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        self.emit("pair", left=slot_data["left"][0]["n"], right=slot_data["right"][0]["n"])


@routine
def echo(n: int) -> dict[str, int]:
    return {"n": n}


@routine
def fail(n: int) -> None:
    raise ValueError(f"no {n}")


def flow_of(kind: type[Routine]) -> Flow:
    flow = Flow("example")
    flow.add_routine(kind(), "it")
    return flow


def posted(runtime: SimulatedRuntime, outputs: Outputs, slot: str, n: int) -> JobContext:
    job = runtime.post("example", "it", slot, {"n": n}).job_context
    outputs.add(job)
    return job


def test_an_output_of_two_jobs_comes_once() -> None:
    outputs = Outputs()
    with SimulatedRuntime() as runtime:
        runtime.exec(flow_of(Pair))
        taken = []
        for slot, n in (("left", 1), ("right", 2), ("left", 3), ("right", 4)):
            posted(runtime, outputs, slot, n).wait()
            taken.append(outputs.take(lambda: False))
    assert taken == [
        [],
        [Output("it", "pair", {"left": 1, "right": 2})],
        [],
        [Output("it", "pair", {"left": 3, "right": 4})],
    ]
    assert (outputs.jobs, outputs.completed, outputs.outputs) == (4, 4, 2)


def test_a_parked_job_is_followed_and_an_ended_one_is_not() -> None:
    outputs = Outputs()
    with SimulatedRuntime() as runtime:
        runtime.exec(flow_of(Pair))
        posted(runtime, outputs, "left", 1).wait()
        outputs.take(lambda: False)
        assert (outputs.completed, outputs.followed) == (0, 1)
        posted(runtime, outputs, "right", 2).wait()
        outputs.take(lambda: False)
        assert (outputs.completed, outputs.followed) == (2, 0)


def test_while_draining_nothing_is_let_go() -> None:
    outputs = Outputs()
    with SimulatedRuntime() as runtime:
        runtime.exec(flow_of(echo))
        posted(runtime, outputs, "input", 1).wait()
        assert outputs.take(lambda: True) == [Output("it", "output", {"n": 1})]
        assert (outputs.followed, outputs.done) == (1, 1)
        assert (outputs.end(), outputs.followed, outputs.completed) == ([], 0, 1)


def test_outputs_that_are_known_already_do_not_come_again() -> None:
    outputs = Outputs()
    with SimulatedRuntime() as runtime:
        runtime.exec(flow_of(echo))
        job = runtime.post("example", "it", "input", {"n": 1}).job_context
        job.wait()
        outputs.add(job, taken=1)
        assert outputs.end() == []


def test_failures_are_counted_and_the_first_are_kept() -> None:
    outputs = Outputs()
    with SimulatedRuntime() as runtime:
        runtime.exec(flow_of(fail))
        jobs = [posted(runtime, outputs, "input", n) for n in range(8)]
        runtime.wait_until_all_jobs_finished()
        outputs.end()
    assert outputs.failed == 8
    assert outputs.failures == jobs[:5]


# -- printing ----------------------------------------------------------------------------------------------

OUTPUTS = [
    Output("read", "row", {"n": 1, "text": "one"}),
    Output("read", "row", {"n": 20, "more": [1]}),
    Output("done", "output", {}),
]


def printed(form: str, outputs: list[Output], capsys: pytest.CaptureFixture[str]) -> str:
    printer = PRINTERS[form]()
    for output in outputs:
        printer.add([output])
    printer.end()
    return capsys.readouterr().out


def test_json_lines_have_routine_event_and_data(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed("jsonl", OUTPUTS, capsys).splitlines()
    assert [json.loads(line) for line in lines] == [
        {"routine": "read", "event": "row", "data": {"n": 1, "text": "one"}},
        {"routine": "read", "event": "row", "data": {"n": 20, "more": [1]}},
        {"routine": "done", "event": "output", "data": {}},
    ]


def test_json_is_one_array_of_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed("jsonl", OUTPUTS, capsys).splitlines()
    assert json.loads(printed("json", OUTPUTS, capsys)) == [json.loads(line) for line in lines]
    assert json.loads(printed("json", [], capsys)) == []


def test_a_table_stands_for_each_event_in_the_order_of_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed("table", OUTPUTS, capsys) == (
        "done.output\n1 × no data\n\nread.row\n n  text  more\n 1  one\n20        [1]\n"
    )


def test_nothing_is_cut_on_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([{"text": "x" * 1_000}])
    assert capsys.readouterr().out == f"text\n{'x' * 1_000}\n"


def test_wide_characters_and_what_moves_the_cursor_keep_the_columns(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table([{"name": "西雅图", "n": 1}, {"name": "a\x1b[2J\n[red]", "n": 22}])
    assert capsys.readouterr().out == "name          n\n西雅图        1\na·[2J·[red]  22\n"


def test_what_has_no_json_form_gets_the_nearest() -> None:
    value = {
        "day": date(2012, 1, 1),
        "sum": Decimal("1.5"),
        "bad": float("nan"),
        1: {2},
        "raw": b"\xff",
        "t": (1,),
    }
    assert json.loads(json_text(value)) == {
        "day": "2012-01-01", "sum": "1.5", "bad": None, "1": [2], "raw": "/w==", "t": [1],
    }  # fmt: skip


def test_a_value_that_holds_itself_ends() -> None:
    value: dict[str, Any] = {}
    value["self"] = value
    assert '"…"' in json_text(value)
