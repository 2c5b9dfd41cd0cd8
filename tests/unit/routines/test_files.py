"""The built-in routines for files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from routilux import ConfigurationError, Flow, Routine, Runtime
from routilux.routines import ReadCsv, ReadJsonl, ReadLines, WriteCsv, WriteJsonl
from routilux.routines.files import number_of
from routilux.routines.paths import Draft
from tests.unit.routines.running import emitted, only, over_seeds, saved_in_the_middle


def read(routine: Routine, path: Path, content: str | bytes) -> Any:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return emitted(routine, [{"path": str(path)}], slot="path")


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("1", 1), ("-1", -1), ("0", 0), ("1.50", 1.5), ("1e3", 1000.0), ("", ""), ("007", "007"), ("+1", "+1"),
        ("1_0", "1_0"), ("nan", "nan"), ("1e999", "1e999"), ("1234567890123456789", "1234567890123456789"),
        ("0x1", "0x1"), (" 1", " 1"), ("١", "١"),
    ],
)  # fmt: skip
def test_only_what_json_would_call_a_number_is_one(cell: str, value: Any) -> None:
    assert (number_of(cell), type(number_of(cell))) == (value, type(value))


class TestReading:
    def test_csv(self, tmp_path: Path) -> None:
        path = tmp_path / "in.csv"
        found = read(ReadCsv(), path, '\ufeffdate,rain\r\n2012-01-01,0.5\r\n\r\n"a\nb",x,y\r\n"1,2",3\r\n')
        assert only("row", found) == [{"date": "2012-01-01", "rain": 0.5}, {"date": "1,2", "rain": 3}]
        assert only("done", found) == [{"path": str(path), "count": 2, "errors": 1}]
        assert only("error", found) == [
            {
                "reason": "line 5: 3 cells, and 2 columns",
                "payload": {"path": str(path), "line": 5, "cells": ["a\nb", "x", "y"]},
            }
        ]

    @pytest.mark.parametrize(
        ("config", "content", "rows"),
        [
            ({"columns": ["a", "b"]}, "1,2\n", [{"a": 1, "b": 2}]),
            ({"numbers": False}, "a\n1\n", [{"a": "1"}]),
            ({"numbers": ["a"]}, "a,b\n1,2\n", [{"a": 1, "b": "2"}]),
            ({"delimiter": ";"}, "a;b\n1;2\n", [{"a": 1, "b": 2}]),
            ({"encoding": "latin-1"}, "a\nä\n".encode("latin-1"), [{"a": "ä"}]),
            ({}, "", []),
        ],
    )
    def test_forms_of_csv(self, config: Any, content: Any, rows: Any, tmp_path: Path) -> None:
        found = read(ReadCsv().set_config(**config), tmp_path / "in.csv", content)
        assert only("row", found) == rows
        assert only("error", found) == []

    def test_jsonl(self, tmp_path: Path) -> None:
        found = read(ReadJsonl(), tmp_path / "in.jsonl", '{"a": 1}\n\n[1]\n{"a": \n{"b": {}}')
        assert only("row", found) == [{"a": 1}, {"b": {}}]
        assert [data["payload"]["line"] for data in only("error", found)] == [3, 4]

    def test_lines(self, tmp_path: Path) -> None:
        found = read(ReadLines().set_config(skip_empty=True), tmp_path / "in.txt", "one\r\n \ntwo")
        assert only("line", found) == [{"text": "one", "number": 1}, {"text": "two", "number": 3}]

    @pytest.mark.parametrize(
        ("routine", "content", "reason"),
        [
            (ReadCsv(), b"a\n\xff\n", "cannot read"),
            (ReadCsv(), b'a\n"b\n', "cannot read"),
            (ReadCsv(), b"a,a\n1,2\n", "same name"),
            (ReadLines().set_config(max_line=3), b"abcd", "longer than 3"),
        ],
    )
    def test_files_that_cannot_be_read(
        self, routine: Routine, content: bytes, reason: str, tmp_path: Path
    ) -> None:
        fresh = type(routine)().set_config(**routine.config)
        [(event, data)] = read(fresh, tmp_path / "in", content)
        assert event == "error"
        assert reason in data["reason"]

    @pytest.mark.parametrize("path", ["missing.csv", "", None, 7, "../outside.csv", "/etc/passwd", "a\0b"])
    def test_paths_that_name_no_file_in_the_folder(self, path: Any, tmp_path: Path) -> None:
        (tmp_path / "outside.csv").write_text("a\n1\n")
        (tmp_path / "in").mkdir()
        routine = ReadCsv().set_config(folder=str(tmp_path / "in"))
        payload = {} if path is None else {"path": path}
        assert [event for event, _ in emitted(routine, [payload], slot="path")] == ["error"]

    def test_a_large_file_through_a_small_slot(self, tmp_path: Path) -> None:
        source, target = tmp_path / "in.jsonl", tmp_path / "out" / "out.jsonl"
        source.write_text("".join(f'{{"n": {n}}}\n' for n in range(5_000)))
        flow = Flow("copy")
        flow.add_routine(ReadJsonl().set_config(path=str(source)), "read")
        flow.add_routine(WriteJsonl().set_config(path=str(target)), "write")
        flow.connect("read", "row", "write", "input")
        with Runtime(thread_pool_size=2) as runtime:
            state = runtime.exec(flow, entry_params={})
            assert state.wait(60)
            assert state.status == "completed"
        assert target.read_text() == source.read_text()
        assert os.listdir(target.parent) == ["out.jsonl"]


class TestWriting:
    @over_seeds
    def test_jsonl(self, routilux_seed: int, tmp_path: Path) -> None:
        path = tmp_path / "new" / "out.jsonl"
        found = emitted(
            WriteJsonl().set_config(path=str(path)),
            [{"a": "ä"}, {"a": {1}}, {"a": float("nan")}, {}],
            seed=routilux_seed,
        )
        assert path.read_text(encoding="utf-8") == '{"a": "ä"}\n{}\n'
        assert only("written", found) == [{"path": str(path), "count": 2}]
        assert len(only("error", found)) == 2
        assert os.listdir(path.parent) == ["out.jsonl"]

    @over_seeds
    def test_csv(self, routilux_seed: int, tmp_path: Path) -> None:
        path = tmp_path / "out.csv"
        payloads = [{"a": 1, "b": "x,y"}, {"b": None}, {"a": 1, "c": 2}, {"a": []}]
        found = emitted(WriteCsv().set_config(path=str(path)), payloads, seed=routilux_seed)
        assert path.read_text() == 'a,b\n1,"x,y"\n,\n'
        assert [data["payload"] for data in only("error", found)] == payloads[2:]

    def test_csv_with_given_columns(self, tmp_path: Path) -> None:
        path = tmp_path / "out.csv"
        config = {"path": str(path), "columns": ["b", "a"], "extra": "ignore", "delimiter": ";"}
        emitted(WriteCsv().set_config(**config), [{"a": 1, "b": 2, "c": 3}])
        assert path.read_text() == "b;a\n2;1\n"

    @pytest.mark.parametrize(("existing", "content"), [("replace", "a\n1\n"), ("append", "a\n0\n1\n")])
    def test_a_file_that_is_there(self, existing: str, content: str, tmp_path: Path) -> None:
        path = tmp_path / "out.csv"
        path.write_text("a\n0\n")
        emitted(WriteCsv().set_config(path=str(path), existing=existing), [{"a": 1}])
        assert path.read_text() == content

    def test_nothing_appears_before_the_drain_and_saving_in_the_middle_loses_nothing(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "out.jsonl"

        def make() -> WriteJsonl:
            return WriteJsonl().set_config(path=str(path))

        numbers = [{"n": n} for n in range(6)]
        found = saved_in_the_middle(make, numbers[:4], numbers[4:], tmp_path / "state")
        text = path.read_text()
        assert sorted(text.splitlines()) == [f'{{"n": {n}}}' for n in range(6)]
        assert only("written", found)[-1] == {"path": str(path), "count": 6}


class TestDraft:
    def test_what_a_failed_attempt_wrote_is_cut_off(self, tmp_path: Path) -> None:
        draft = Draft.begin(tmp_path / "out", append=False)
        draft.write(b"one\n")
        remembered = draft.as_state()
        draft.write(b"lost\n")
        again = Draft.restored(remembered)
        again.write(b"two\n")
        again.finish()
        assert (tmp_path / "out").read_bytes() == b"one\ntwo\n"

    def test_a_draft_that_was_finished_before_it_was_forgotten_is_written_again(self, tmp_path: Path) -> None:
        draft = Draft.begin(tmp_path / "out", append=False)
        draft.write(b"one\n")
        remembered = draft.as_state()
        draft.write(b"two\n")
        draft.finish()
        again = Draft.restored(remembered)
        again.write(b"two\n")
        again.finish()
        assert (tmp_path / "out").read_bytes() == b"one\ntwo\n"


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (ReadCsv, {"delimiter": "::"}),
        (ReadCsv, {"encoding": "klingon"}),
        (ReadCsv, {"numbers": "yes"}),
        (ReadJsonl, {"path": ""}),
        (ReadLines, {"max_line": 0}),
        (WriteCsv, {"path": "x", "columns": []}),
        (WriteJsonl, {"path": "x", "existing": "ask"}),
        (WriteJsonl, {"path": "../x", "folder": "here"}),
    ],
)
def test_config_that_cannot_work_is_refused(kind: type[Routine], config: dict[str, Any]) -> None:
    routine = kind()
    with pytest.raises(ConfigurationError):
        routine.set_config(**config)
    assert dict(routine.config) == {}
