"""``routilux job``: what is in a store, put back and cancelled."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from routilux import Flow, Routine, Runtime
from routilux.activation_policies import all_slots_ready_policy
from routilux.model.policy import ActivationPolicy
from tests.unit.cli.calling import call, process, started
from tests.waiting import SECONDS

STORE = ("--store", "sqlite:///runs.db")


def listed(*arguments: str) -> list[dict[str, object]]:
    """Jobs by the lines of their input, and what is told of them beside times and ids."""
    result = call("job", "list", *STORE, "--json", *arguments)
    assert result.exit_code == 0, result.stderr
    found: list[dict[str, object]] = json.loads(result.stdout)
    return found


def lines(*arguments: str) -> list[object]:
    return [job["metadata"]["line"] for job in listed(*arguments)]  # type: ignore[index]


@pytest.fixture
def run(folder: Path, steps: str) -> None:
    """A run of four items, of which the second and the fourth have failed."""
    (folder / "in.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in (2, 3, 4, 5)))
    assert call("run", "even.flow.yaml", "-i", "in.jsonl", *STORE, "--id", "one").exit_code == 1


@pytest.mark.usefixtures("run")
class TestList:
    def test_tells_all_about_each_job(self, folder: Path, steps: str) -> None:
        first = listed()[1]
        for name in ("job_id", "created_at", "started_at", "completed_at"):
            assert first.pop(name)
        assert first == {
            "run": "one",
            "flow_id": "even",
            "status": "failed",
            "outputs": 0,
            "parked": 0,
            "dead_letters": 1,
            "error": f"SlotHandlerError: routine 'it' failed in attempt 1: ValueError: 3 is odd ({steps}.py:13)",
            "metadata": {"line": 2},
        }

    @pytest.mark.parametrize(
        ("chosen", "found"),
        [
            (["--status", "failed"], [2, 4]),
            (["--status", "completed"], [1, 3]),
            (["--flow", "even"], [1, 2, 3, 4]),
            (["--run", "one"], [1, 2, 3, 4]),
            (["--run", "one", "--status", "cancelled"], []),
            (["--dead-letters"], [2, 4]),
            (["--limit", "3"], [1, 2, 3]),
            (["--dead-letters", "--limit", "1"], [2]),
        ],
    )
    def test_chooses(self, chosen: list[str], found: list[int]) -> None:
        assert lines(*chosen) == found

    def test_pages_follow_each_other(self) -> None:
        first = call("job", "list", *STORE, "--limit", "3", "-o", "jsonl")
        hint = first.stderr.strip().removeprefix("There are more: ")
        assert hint.startswith("--after ")
        assert lines(*hint.split()) == [4]

    def test_a_table_names_what_is_wrong(self) -> None:
        head, *rows = call("job", "list", *STORE, "-o", "table").stdout.splitlines()
        assert head.split() == ["job", "run", "status", "created", "set", "aside", "error"]
        assert (
            "1  SlotHandlerError: routine 'it' failed in attempt 1: ValueError: 3 is odd (steps_" in rows[1]
        )

    def test_none_is_told(self) -> None:
        result = call("job", "list", *STORE, "--status", "cancelled", "-o", "table")
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", "There are no such jobs.\n")

    @pytest.mark.parametrize(
        ("option", "name", "message"),
        [("--run", "on", "no run 'on' in sqlite:///"), ("--flow", "evne", "no flow 'evne' in sqlite:///")],
    )
    def test_a_name_that_the_store_does_not_know_is_refused(
        self, option: str, name: str, message: str
    ) -> None:
        result = call("job", "list", *STORE, option, name)
        assert (result.exit_code, result.stdout) == (2, "")
        assert message in result.stderr
        assert "there is only '" in result.stderr

    def test_a_store_that_is_not_there_is_1(self) -> None:
        result = call("job", "list", "--store", "sqlite:///none.db")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "there is no store at" in result.stderr


@pytest.mark.usefixtures("run")
class TestShow:
    def test_has_the_data_of_what_was_set_aside(self) -> None:
        job_id = str(listed("--status", "failed")[0]["job_id"])
        told = json.loads(call("job", "show", job_id, *STORE, "--json").stdout)
        assert [(letter["reason"], letter["error"], letter["data"]) for letter in told["dead_letters"]] == [
            ("failed", "ValueError: 3 is odd", {"n": 3})
        ]
        text = call("job", "show", job_id, *STORE).stdout
        assert "\ndead letters\nslot      reason  error                 data\nit.input  failed" in text

    def test_has_outputs(self) -> None:
        told = json.loads(call("job", "show", str(listed()[0]["job_id"]), *STORE, "--json").stdout)
        assert told["outputs"] == [{"routine": "it", "event": "output", "data": {"n": 2}}]

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("job_x", "'routilux job list' lists them"),
            ("one", "that is a run: 'routilux job list --run one'"),
        ],
    )
    def test_an_unknown_job_is_refused(self, name: str, message: str) -> None:
        result = call("job", "show", name, *STORE)
        assert (result.exit_code, result.stdout) == (2, "")
        assert message in result.stderr


def ship(policy: ActivationPolicy) -> Routine:
    """Joins orders with payments."""
    routine = Routine()
    routine.add_slot("order")
    routine.add_slot("payment")
    routine.set_activation_policy(policy)
    routine.set_logic(lambda slot_data, message, state: None)
    return routine


class TestParked:
    """What waits for items of others, of a job that a program has posted."""

    def park(self, policy: ActivationPolicy, *payloads: dict[str, Any]) -> str:
        flow = Flow("shipping")
        flow.add_routine(ship(policy), "ship")
        with Runtime(thread_pool_size=1, store=STORE[1]) as runtime:
            runtime.exec(flow, worker_id="w")
            first = runtime.post(flow, "ship", "order", payloads[0]).job_context
            for payload in payloads[1:]:
                runtime.post(flow, "ship", "order", payload, job_id=first.job_id)
            runtime.post(flow, "ship", "order", {"id": 9})
            assert first.wait(SECONDS)
        return first.job_id

    def told(self, job_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(call("job", "show", job_id, *STORE, "--json").stdout)[
            "parked_items"
        ]
        return found

    @pytest.mark.parametrize(
        ("policy", "waits"),
        [
            (all_slots_ready_policy(by="id"), "for a partner (id 2)"),
            (all_slots_ready_policy(), "for items of others"),
        ],
    )
    def test_each_item_is_shown_with_its_slot_its_data_and_what_it_waits_for(
        self, policy: ActivationPolicy, waits: str
    ) -> None:
        job_id = self.park(policy, {"id": 2, "note": "x" * 300})
        assert self.told(job_id) == [
            {"slot": "ship.order", "waits": waits, "data": {"id": 2, "note": "x" * 300}, "error": None}
        ]
        text = call("job", "show", job_id, *STORE).stdout
        assert "\nparked\nslot        waits" in text
        assert f'ship.order  {waits}  {{"id": 2, "note": "xxx' in text
        assert "x" * 200 not in text

    def test_the_first_fifty_are_shown_and_the_others_counted(self) -> None:
        job_id = self.park(all_slots_ready_policy(by="id"), *({"id": n + 10} for n in range(53)))
        assert [item["data"]["id"] for item in self.told(job_id)] == list(range(10, 60))
        assert call("job", "show", job_id, *STORE).stderr == "3 more items are parked\n"

    def test_a_job_without_any_has_none(self, steps: str) -> None:
        call("run", "even.flow.yaml", "-p", "n:=2", *STORE)
        assert self.told(str(listed()[0]["job_id"])) == []


@pytest.mark.usefixtures("run")
class TestRetry:
    def test_what_is_still_wrong_is_set_aside_again(self) -> None:
        result = call("job", "retry", "one", *STORE)
        assert (result.exit_code, result.stdout) == (1, "")
        assert len(listed("--dead-letters")) == 2

    def test_a_job_or_a_run_is_put_back(self, folder: Path, steps: str) -> None:
        module = folder / f"{steps}.py"
        module.write_text(module.read_text().replace("if n % 2:", "if n > 9:"))
        failed = listed("--status", "failed")
        first = process("job", "retry", str(failed[0]["job_id"]), *STORE, folder=folder)
        second = process("job", "retry", "one", *STORE, folder=folder)
        assert [(run.returncode, json.loads(run.stdout)["data"]) for run in (first, second)] == [
            (0, {"n": 3}),
            (0, {"n": 5}),
        ]
        assert listed("--dead-letters") == []
        third = call("job", "retry", "one", *STORE)
        assert third.exit_code == 1
        assert "nothing of 'one' is set aside" in third.stderr

    def test_what_was_retried_is_not_lost(self, folder: Path, steps: str) -> None:
        module = folder / f"{steps}.py"
        module.write_text(module.read_text().replace("if n % 2:", "if n > 4:"))
        failed = listed("--status", "failed")
        assert process("job", "retry", "one", *STORE, folder=folder).returncode == 1
        half = process("run", "even.flow.yaml", *STORE, "--resume", "one", folder=folder)
        assert half.returncode == 1
        assert "which has taken 4 items" in half.stderr
        assert "4 items, 3 outputs, 1 failed" in half.stderr
        assert "5 is odd" in half.stderr
        assert "3 is odd" not in half.stderr
        module.write_text(module.read_text().replace("if n > 4:", "if n > 9:"))
        assert process("job", "retry", "one", *STORE, folder=folder).returncode == 0
        for _ in range(2):  # the first one ends it
            whole = process("run", "even.flow.yaml", *STORE, "--resume", "one", folder=folder)
            assert (whole.returncode, len(whole.stdout.splitlines())) == (0, 4)
            assert "4 items" in whole.stderr
            assert "failed" not in whole.stderr
        assert [job["job_id"] for job in listed("--status", "failed")][:2] == [
            job["job_id"] for job in failed
        ]

    def test_a_cancelled_run_of_which_nothing_was_open_takes_back_what_was_set_aside(self) -> None:
        result = call("job", "cancel", "one", *STORE)
        assert (result.exit_code, result.stdout) == (0, "")
        assert result.stderr == "one has no job that has not ended; nothing was changed.\n"
        retried = call("job", "retry", "one", *STORE)
        assert "3 is odd" in retried.stderr
        assert "has ended for good" not in retried.stderr

    def test_another_document_can_be_named(self, folder: Path) -> None:
        (folder / "even.flow.yaml").rename(folder / "moved.flow.yaml")
        assert "no flow document" in call("job", "retry", "one", *STORE).stderr
        assert call("job", "retry", "one", *STORE, "--flow", "moved.flow.yaml").exit_code == 1
        assert len(listed()) == 6

    def test_an_unknown_one_is_refused(self) -> None:
        result = call("job", "retry", "two", *STORE)
        assert (result.exit_code, "no job 'two' and no run of that id" in result.stderr) == (2, True)


class TestCancel:
    @pytest.fixture(autouse=True)
    def left(self, folder: Path, steps: str) -> None:
        """A run of three items that was killed while it was at the first."""
        (folder / "in.jsonl").write_text("".join(f'{{"n": {n}, "seconds": {30 * n}}}\n' for n in range(3)))
        running = started("run", "wait.flow.yaml", "-i", "in.jsonl", *STORE, "--id", "one", folder=folder)
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdin is not None
        assert running.stdout.readline()
        assert any("of 3 items done" in line for line in running.stderr)
        running.send_signal(signal.SIGKILL)
        with running.stdin, running.stdout, running.stderr:
            running.wait(SECONDS)

    def statuses(self) -> list[object]:
        return [job["status"] for job in listed()]

    def test_a_job_ends_and_the_others_stay(self) -> None:
        last = str(listed()[2]["job_id"])
        result = call("job", "cancel", last, *STORE)
        assert (result.exit_code, result.stdout, result.stderr) == (0, f"{last}\n", "1 cancelled.\n")
        assert self.statuses()[2] == "cancelled"
        assert "cancelled" not in self.statuses()[:2]
        assert call("store", "check", *STORE).exit_code == 0

    def test_a_run_ends_with_all_its_jobs(self) -> None:
        assert call("job", "cancel", "one", *STORE).exit_code == 0
        assert self.statuses() == ["completed", "cancelled", "cancelled"]
        again = call("job", "cancel", "one", *STORE)
        assert (again.exit_code, again.stdout) == (0, "")
        shown = call("run", "wait.flow.yaml", *STORE, "--resume", "one")
        assert (shown.exit_code, json.loads(shown.stdout)["data"]["n"]) == (0, 0)
        assert "of which 2 were cancelled" in shown.stderr

    def test_a_run_goes_on_without_a_cancelled_job(self) -> None:
        for job in listed()[1:]:
            call("job", "cancel", str(job["job_id"]), *STORE)
        shown = call("run", "wait.flow.yaml", *STORE, "--resume", "one")
        assert (shown.exit_code, json.loads(shown.stdout)["data"]["n"]) == (0, 0)

    def test_an_unknown_one_is_refused(self) -> None:
        result = call("job", "cancel", "on", *STORE)
        assert result.exit_code == 2
        assert "no job 'on' and no worker of that id in sqlite:///" in result.stderr


def test_a_command_without_a_store_says_how_to_name_one() -> None:
    for arguments in (["job", "list"], ["store", "check"], ["job", "cancel", "x"]):
        result = call(*arguments)
        assert result.exit_code == 2
        assert (
            f"'routilux {' '.join(arguments[:2])}' needs a store: --store sqlite:///routilux.db"
            in result.stderr
        )


def test_an_unknown_subcommand_is_refused_with_the_nearest() -> None:
    result = call("job", "lst")
    assert (result.exit_code, "no command 'lst'; the nearest are list" in result.stderr) == (2, True)
