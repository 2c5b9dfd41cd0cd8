"""``routilux store`` and what ``doctor`` tells about one."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from routilux.store import without_password
from tests.unit.cli.calling import call

URL = "sqlite:///runs.db"
STORE = ("--store", URL)


@pytest.fixture(autouse=True)
def run(folder: Path, steps: str) -> None:
    (folder / "in.jsonl").write_text('{"n": 2}\n{"n": 3}\n')
    assert call("run", "even.flow.yaml", "-i", "in.jsonl", *STORE, "--id", "one").exit_code == 1


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    for at in range(5_000, len(content), 97):
        content[at] ^= 255
    file.write_bytes(content)


def facts(*arguments: str) -> dict[str, tuple[str, str]]:
    found = json.loads(call("doctor", "--json", *arguments).stdout)
    return {
        fact["what"].removeprefix("store "): (fact["state"], fact["detail"])
        for fact in found
        if fact["what"].startswith("store")
    }


class TestCheck:
    def test_0_for_a_whole_one(self) -> None:
        result = call("store", "check", *STORE)
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"{URL}: everything is whole.\n")
        assert json.loads(call("store", "check", *STORE, "--json").stdout) == []

    def test_1_with_every_problem_for_a_damaged_one(self, folder: Path) -> None:
        damage(folder / "runs.db")
        result = call("store", "check", *STORE)
        assert result.exit_code == 1
        assert "routilux.store.check() lists all damage" in result.stdout
        assert "'routilux store repair NEW_URL' saves what can be read" in result.stderr

    def test_a_damaged_one_is_not_run_and_says_what_to_do(self, folder: Path) -> None:
        damage(folder / "runs.db")
        for arguments in (["run", "even.flow.yaml", "-p", "n:=2"], ["job", "list"]):
            result = call(*arguments, *STORE)
            assert (result.exit_code, result.stdout) == (1, "")
            assert "'routilux store check' lists all damage" in result.stderr


class TestExportAndRestore:
    def test_a_store_goes_through_a_file_into_another(self) -> None:
        out = call("store", "export", "rows.jsonl", *STORE)
        back = call("store", "restore", "rows.jsonl", "--store", "sqlite:///copy.db")
        assert (out.exit_code, out.stdout, back.exit_code, back.stdout) == (0, "", 0, "")
        assert out.stderr.replace("exported to", "restored from") == back.stderr
        lists = [call("job", "list", "--store", url, "--json").stdout for url in (URL, "sqlite:///copy.db")]
        assert lists[0] == lists[1]

    def test_stdout_has_the_same_lines_as_a_file(self, folder: Path) -> None:
        call("store", "export", "rows.jsonl", *STORE)
        assert call("store", "export", *STORE, "-q").stdout == (folder / "rows.jsonl").read_text()

    @pytest.mark.parametrize("part", ["", ".mark", "-wal"])
    def test_a_file_of_the_store_is_refused(self, folder: Path, part: str) -> None:
        before = (folder / "runs.db").read_bytes()
        result = call("store", "export", f"runs.db{part}", *STORE)
        assert (result.exit_code, "none of the store itself" in result.stderr) == (2, True)
        assert (folder / "runs.db").read_bytes() == before

    def test_a_file_that_is_not_there_is_refused(self) -> None:
        result = call("store", "restore", "rows.jsonl", "--store", "sqlite:///copy.db")
        assert (result.exit_code, "'rows.jsonl' is no file" in result.stderr) == (2, True)


def test_repair_saves_what_is_whole_and_tells_what_is_lost(folder: Path) -> None:
    whole = call("store", "repair", "sqlite:///whole.db", *STORE)
    assert (whole.exit_code, whole.stdout) == (0, "")
    assert whole.stderr.endswith("saved in sqlite:///whole.db\n")
    damage(folder / "runs.db")
    rest = call("store", "repair", "sqlite:///rest.db", *STORE, "--json")
    told = json.loads(rest.stdout)
    assert (rest.exit_code, bool(told["lost"])) == (1, True)
    refused = call("store", "repair", "sqlite:///rest.db", *STORE)
    assert (refused.exit_code, "a store that does not exist yet" in refused.stderr) == (2, True)


def test_prune_removes_what_has_ended_but_for_jobs_with_dead_letters() -> None:
    assert call("store", "prune", *STORE).stderr == "0 rows removed\n"
    assert json.loads(call("store", "prune", *STORE, "--keep", "0", "--json").stdout)["rows"] > 0
    left = [json.loads(line) for line in call("job", "list", *STORE, "-q").stdout.splitlines()]
    assert [job["dead_letters"] for job in left] == [1]


def test_prune_refuses_what_is_no_number_of_days() -> None:
    result = call("store", "prune", *STORE, "--older-than", "nan")
    assert (result.exit_code, "expected 0 seconds or more, got nan" in result.stderr) == (2, True)


@pytest.mark.parametrize("arguments", [["check"], ["export"], ["prune"], ["repair", "sqlite:///new.db"]])
def test_a_store_that_is_not_there_is_not_made(arguments: list[str], folder: Path) -> None:
    before = {name for name in os.listdir(folder) if name.startswith(("none", "new"))}
    result = call("store", *arguments, "--store", "sqlite:///none.db")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "there is no database at" in result.stderr
    left = {name for name in os.listdir(folder) if name.startswith(("none", "new"))}
    assert (before, left - {"none.db.lock"}) == (set(), set())


class TestDoctor:
    def test_tells_all_about_a_store(self, folder: Path) -> None:
        found = facts(*STORE)
        assert {what: state for what, (state, _) in found.items()} == dict.fromkeys(
            ["rights", "space", "owner", "format", "contents"], "ok"
        )
        assert found["owner"][1] == "no process has it open"
        assert found["rights"][1] == f"{folder} can be written"

    def test_a_place_where_one_can_be_is_well(self) -> None:
        found = facts("--store", "sqlite:///new.db")
        assert found["database"][0] == "ok"
        assert found["database"][1].endswith("new.db yet; the first run makes it")

    def test_damage_is_an_error(self, folder: Path) -> None:
        damage(folder / "runs.db")
        assert call("doctor", *STORE).exit_code == 1

    def test_a_newer_format_is_an_error(self, folder: Path) -> None:
        with closing(sqlite3.connect(folder / "runs.db")) as connection:
            connection.execute("PRAGMA user_version = 99")
        state, detail = facts(*STORE)["database"]
        assert (state, "has format 99" in detail, "install that one" in detail) == ("error", True, True)
        for arguments in (["run", "even.flow.yaml", "-p", "n:=2"], ["job", "list"]):
            assert "was written by a newer version; install that one" in call(*arguments, *STORE).stderr

    def test_what_cannot_be_written_is_named(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "runs.db")
        state, detail = facts(*STORE)["rights"]
        assert (state, detail) == ("error", f"this user cannot write {folder / 'runs.db'}, and a run has to")

    def test_a_server_that_does_not_answer_is_an_error_without_the_password(self) -> None:
        pytest.importorskip("psycopg")
        url = "postgresql://me:secret@127.0.0.1:1/x"
        result = call("doctor", "--store", url)
        assert (result.exit_code, "secret" in result.output) == (1, False)
        assert "no connection" in result.stdout

    def test_the_config_is_shown_without_the_password(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ROUTILUX_STORE", "postgresql://me:secret@127.0.0.1:1/x")
        result = call("doctor")
        assert "postgresql://me:…@127.0.0.1:1/x' from ROUTILUX_STORE" in result.stdout
        assert "secret" not in result.output


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///runs.db", "sqlite:///runs.db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://me:se:cr@et@host:5432/db", "postgresql://me:…@host:5432/db"),
        ("postgresql://host/db?user=me&password=secret&x=1", "postgresql://host/db?user=me&password=…&x=1"),
        ("host=h password=secret user=me", "host=h password=… user=me"),
        ("me:secret@host/db", "me:…@host/db"),
    ],
)
def test_a_password_is_never_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown
