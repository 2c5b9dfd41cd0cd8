"""The command line on a store in PostgreSQL."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from routilux.store.postgres import PostgresStore
from tests.unit.cli.calling import call

DOCUMENT = """
version: 1
flow_id: positive
entry: check.input
routines:
  check: {class: filter, config: {when: "10 // n > 0"}}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "positive.flow.yaml").write_text(DOCUMENT)


def test_a_run_is_kept_looked_at_and_shown_again(url: str) -> None:
    first = call("run", "positive.flow.yaml", "-p", "n:=2", "--store", url, "--id", "one")
    assert first.exit_code == 0, first.stderr
    jobs = json.loads(call("job", "list", "--store", url, "--json").stdout)
    again = call("run", "positive.flow.yaml", "--store", url, "--resume", "one")
    assert (again.exit_code, again.stdout) == (0, first.stdout)
    assert [(job["run"], job["status"], job["outputs"]) for job in jobs] == [("one", "completed", 1)]


def test_doctor_tells_all_about_it(url: str) -> None:
    def facts() -> dict[str, tuple[str, str]]:
        found = json.loads(call("doctor", "--store", url, "--json").stdout)
        return {
            fact["what"].removeprefix("store "): (fact["state"], fact["detail"])
            for fact in found
            if fact["what"].startswith("store")
        }

    before = facts()
    assert (before["server"][0], before["clock"][0]) == ("ok", "ok")
    assert before["format"][1].endswith("yet; the first run makes it")
    PostgresStore(url).close()
    after = facts()
    assert {what: state for what, (state, _) in after.items()} == dict.fromkeys(
        ["server", "clock", "format", "owners", "contents"], "ok"
    )
    assert after["owners"][1] == "no process has it open"


def test_what_looks_does_not_make_a_store(url: str) -> None:
    for arguments in (["job", "list"], ["store", "check"], ["run", "positive.flow.yaml", "--resume", "one"]):
        result = call(*arguments, "--store", url)
        assert (result.exit_code, "there is no store" in result.stderr) == (1, True)


def test_a_job_that_somebody_runs_is_not_cancelled(url: str) -> None:
    call("run", "positive.flow.yaml", "-p", "n:=2", "--store", url, "--id", "one")
    store = PostgresStore(url, owner="the other one")
    try:
        store.claim("one")
        result = call("job", "cancel", "one", "--store", url)
    finally:
        store.close()
    assert (result.exit_code, "the other one" in result.stderr) == (5, True)
