"""The built-in routines for files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from routilux import ConfigurationError, ErrorHandler, ExecutionError, Flow, Routine, Runtime, current
from routilux.activation_policies import immediate_policy
from routilux.routines import Dedupe, ReadCsv, ReadJsonl, ReadLines, Split, WriteCsv, WriteJsonl
from routilux.routines.files import number_of
from routilux.routines.paths import Draft
from routilux.store.memory import MemoryStore
from routilux.testing import SimulatedRuntime, simulated
from tests.unit.routines.running import emitted, only, over_seeds, saved_in_the_middle


class Picky(Routine):
    """Hands lines on and raises at a bad one."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.add_event("output", ["text"])
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        [line] = slot_data["input"]
        if line["text"] == "bad":
            raise ValueError("a bad line")
        self.emit("output", text=line["text"])


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
            (ReadCsv(), b"a,\xff\n1,2\n", "line 1: byte 0xff is no utf-8"),
            (ReadCsv(), b'a\n"b\nc\n', "the row that begins in line 2: unexpected end of data"),
            (ReadCsv(), b'a\n"b' + b"x\n" * 100_000, "line 2: field larger than field limit"),
            (ReadCsv(), b"a,a\n1,2\n", "two columns have the same name: ['a', 'a']"),
            (ReadCsv().set_config(encoding="utf-16"), b"\xff\xfea", "truncated data"),
            (ReadLines().set_config(max_line=3), b"abcd", "longer than 3"),
        ],
    )
    def test_files_that_cannot_be_read(
        self, routine: Routine, content: bytes, reason: str, tmp_path: Path
    ) -> None:
        fresh = type(routine)().set_config(**routine.config)
        [(event, data)] = read(fresh, tmp_path / "in", content)
        assert (event, data["payload"]) == ("error", {"path": str(tmp_path / "in")})
        assert data["reason"].startswith(f"cannot read '{tmp_path / 'in'}': ")
        assert reason in data["reason"]

    def test_a_quote_that_never_closes_ends_the_file_after_the_rows_before_it(self, tmp_path: Path) -> None:
        found = read(ReadCsv(), tmp_path / "in.csv", 'a\n1\n2\n"3\n4\n')
        assert [event for event, _ in found] == ["row", "row", "error"]
        assert "line 4" in found[-1][1]["reason"]

    @pytest.mark.parametrize(
        ("routine", "event", "content", "good", "bad"),
        [
            (ReadCsv(), "row", b"a,b\n1,x\n2,\xffy\n3,z\n", [{"a": 1, "b": "x"}, {"a": 3, "b": "z"}],
             {"line": 3, "cells": ["2", "\ufffdy"]}),
            (ReadJsonl(), "row", b'{"a": 1}\n{"a": "\xff"}\n{"a": 3}\n', [{"a": 1}, {"a": 3}],
             {"line": 2, "text": '{"a": "\ufffd"}'}),
            (ReadLines(), "line", b"\xc3\xa4\n\xff\n", [{"text": "ä", "number": 1}],
             {"line": 2, "text": "\ufffd", "number": 2}),
        ],
    )  # fmt: skip
    def test_a_line_with_a_byte_that_is_no_text_is_told_and_the_others_go_on(
        self, routine: Routine, event: str, content: bytes, good: Any, bad: Any, tmp_path: Path
    ) -> None:
        found = read(type(routine)(), tmp_path / "in", content)
        assert only(event, found) == good
        [error] = only("error", found)
        assert error["reason"] == f"line {bad['line']}: byte 0xff is no utf-8"
        assert error["payload"] == {"path": str(tmp_path / "in"), **bad}
        assert only("done", found) == [{"path": str(tmp_path / "in"), "count": len(good), "errors": 1}]

    @pytest.mark.parametrize(
        ("routine", "content"),
        [(ReadCsv(), ""), (ReadCsv(), "a,b\n"), (ReadCsv(), "\n\n"), (ReadJsonl(), ""), (ReadLines(), "")],
    )
    def test_a_file_with_nothing_in_it_is_done(self, routine: Routine, content: str, tmp_path: Path) -> None:
        found = read(type(routine)(), tmp_path / "in", content)
        assert found == [("done", {"path": str(tmp_path / "in"), "count": 0, "errors": 0})]

    @pytest.mark.parametrize(
        ("routine", "event", "content", "payload"),
        [
            (ReadCsv(), "row", "\ufeffa,b\r\n1,x\r\n", {"a": 1, "b": "x"}),
            (ReadJsonl(), "row", '\ufeff{"a": 1}\r\n', {"a": 1}),
            (ReadLines(), "line", "\ufeffone\r\n", {"text": "one", "number": 1}),
        ],
    )
    def test_byte_order_marks_and_line_ends_of_windows_are_no_data(
        self, routine: Routine, event: str, content: str, payload: Any, tmp_path: Path
    ) -> None:
        assert only(event, read(type(routine)(), tmp_path / "in", content)) == [payload]

    def test_a_thousand_columns(self, tmp_path: Path) -> None:
        names = [f"c{n}" for n in range(1_000)]
        row = dict(zip(names, range(1_000), strict=True))
        source, target = tmp_path / "in.csv", tmp_path / "out.csv"
        emitted(WriteCsv().set_config(path=str(source)), [row, row])
        found = emitted(ReadCsv().set_config(path=str(source)), [{}], slot="path")
        assert only("row", found) == [row, row]
        emitted(WriteCsv().set_config(path=str(target)), only("row", found))
        assert target.read_bytes() == source.read_bytes()

    def test_numbers_that_are_no_json_are_no_json(self, tmp_path: Path) -> None:
        found = read(ReadJsonl(), tmp_path / "in", '{"a": NaN}\n{"a": -Infinity}\n')
        assert [data["reason"] for data in only("error", found)] == [
            "line 1: no JSON: NaN is no JSON",
            "line 2: no JSON: -Infinity is no JSON",
        ]

    def test_a_retried_reading_begins_at_the_top_and_dedupe_makes_each_row_one(self, tmp_path: Path) -> None:
        """A reading that fails in the middle has emitted rows already; they come again."""

        class Interrupted(ReadLines):
            def records(self, lines: Any) -> Any:
                for record in super().records(lines):
                    if record.line == 3 and current().attempt == 1:
                        raise RuntimeError("stopped in the middle")
                    yield record

        source = tmp_path / "in.txt"
        source.write_text("one\ntwo\nthree\n")
        reader = Interrupted().set_error_handler(ErrorHandler("retry", retry_delay=0.1))
        flow = Flow("again")
        flow.add_routine(reader.set_config(path=str(source)), "read")
        flow.add_routine(Dedupe().set_config(key="number"), "once")
        flow.connect("read", "line", "once", "input")
        with simulated(0) as runtime:
            state = runtime.exec(flow, entry_params={})
            assert state.wait()
            found = [(output.event, output.data.get("text")) for output in state.outputs]
        assert sorted(found, key=str) == [
            ("done", None), ("duplicate", "one"), ("duplicate", "two"),
            ("output", "one"), ("output", "three"), ("output", "two"),
        ]  # fmt: skip

    @pytest.mark.parametrize("store", [None, MemoryStore()], ids=["in memory", "with a store"])
    def test_a_retried_reading_goes_on_behind_its_last_thousand(self, store: Any, tmp_path: Path) -> None:
        class Interrupted(ReadLines):
            def records(self, lines: Any) -> Any:
                for record in super().records(lines):
                    if record.line == 2_501 and current().attempt == 1:
                        raise RuntimeError("stopped in the middle")
                    yield record

        source = tmp_path / "in.txt"
        source.write_text("".join(f"{n}\n" for n in range(3_000)))
        reader = Interrupted().set_error_handler(ErrorHandler("retry", retry_delay=0.1))
        flow = Flow("again")
        flow.add_routine(reader.set_config(path=str(source)), "read")
        with SimulatedRuntime(0, store=store) as runtime:
            state = runtime.exec(flow, entry_params={})
            assert state.wait()
            lines = [output.data["text"] for output in state.outputs if output.event == "line"]
        numbers = range(3_000) if store else (*range(2_500), *range(2_000, 3_000))
        assert lines == [str(n) for n in numbers]
        assert state.outputs[-1].data["count"] == 3_000

    @pytest.mark.parametrize(
        "path", ["missing.csv", ".", "", None, 7, "../outside.csv", "/etc/passwd", "a\0b"]
    )
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
        assert path.read_bytes() == b'a,b\n1,"x,y"\n,\n'
        assert [data["payload"] for data in only("error", found)] == payloads[2:]

    def test_rows_that_come_at_once_all_stand_under_the_columns_of_the_first(self, tmp_path: Path) -> None:
        path = tmp_path / "out.csv"
        flow = Flow("burst", execution_strategy="sequential")
        flow.add_routine(Split().set_config(spread=True), "split")
        flow.add_routine(WriteCsv().set_config(path=str(path), columns=None, extra="ignore"), "write")
        flow.connect("split", "output", "write", "input")
        items = [{"b": 1, "a": 2}, {"a": 3}, {"c": 4, "b": 5}, {"b": 6, "a": 7}]
        with simulated(0) as runtime:
            state = runtime.exec(flow, entry_params={"items": items})
            assert state.wait()
        assert path.read_text().splitlines() == [
            "index,count,b,a", "0,4,1,2", "1,4,,3", "2,4,5,", "3,4,6,7",
        ]  # fmt: skip

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

    @pytest.mark.parametrize("there", ["b,a\n2,1\n", "b,a\n2,1", "\ufeffb,a\r\n2,1\r\n"])
    def test_rows_that_are_added_stand_under_the_columns_that_are_there(
        self, there: str, tmp_path: Path
    ) -> None:
        path = tmp_path / "out.csv"
        path.write_text(there, newline="")
        found = emitted(
            WriteCsv().set_config(path=str(path), existing="append"),
            [{"a": 3, "b": 4}, {"a": 5, "c": 6}],
        )
        assert path.read_text().removeprefix("\ufeff").splitlines() == ["b,a", "2,1", "4,3"]
        assert [data["reason"] for data in only("error", found)] == ["no column for 'c'"]

    def test_columns_other_than_those_that_are_there_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "out.csv"
        path.write_text("b,a\n2,1\n")
        flow = Flow("adding")
        config = {"path": str(path), "existing": "append", "columns": ["a", "b"]}
        flow.add_routine(WriteCsv().set_config(**config), "write")
        with simulated(0) as runtime:
            state = runtime.exec(flow, entry_params={"a": 3, "b": 4})
            assert state.wait()
            assert (state.status, "has the columns ['b', 'a']" in str(state.error)) == ("failed", True)
        assert path.read_text() == "b,a\n2,1\n"

    def test_lines_are_added_to_a_file_that_does_not_end_with_a_line_end(self, tmp_path: Path) -> None:
        path = tmp_path / "out.jsonl"
        path.write_text('{"n": 0}')
        emitted(WriteJsonl().set_config(path=str(path), existing="append"), [{"n": 1}])
        assert path.read_text() == '{"n": 0}\n{"n": 1}\n'

    def test_a_payload_that_is_refused_names_no_columns(self, tmp_path: Path) -> None:
        path = tmp_path / "out.csv"
        found = emitted(WriteCsv().set_config(path=str(path)), [{}, {"x": []}, {"a": 1}])
        assert path.read_text() == "a\n1\n"
        assert [data["payload"] for data in only("error", found)] == [{}, {"x": []}]

    def test_half_of_a_character_is_told_and_not_written(self, tmp_path: Path) -> None:
        for kind in (WriteJsonl, WriteCsv):
            path = tmp_path / kind.__name__
            found = emitted(kind().set_config(path=str(path)), [{"a": "x"}, {"a": "\ud800"}])
            assert [data["payload"] for data in only("error", found)] == [{"a": "\ud800"}]
            assert "x" in path.read_text()

    @pytest.mark.parametrize("existing", ["replace", "append"])
    def test_of_two_writers_of_one_path_the_second_is_refused_and_nothing_is_mixed(
        self, existing: str, tmp_path: Path
    ) -> None:
        path = tmp_path / "out.jsonl"
        path.write_text('{"n": 0}\n')
        first, second = (Draft.begin(path, append=existing == "append") for _ in range(2))
        first.write(b'{"n": 1}\n')
        second.write(b'{"n": 2}\n')
        first.finish()
        written = path.read_text()
        with pytest.raises(ExecutionError, match="was written by another program"):
            second.finish()
        assert path.read_text() == written
        assert second.temporary.read_bytes().endswith(b'{"n": 2}\n')

    def test_two_writers_of_one_path_in_one_flow_are_refused_by_name(self, tmp_path: Path) -> None:
        flow = Flow("two")
        flow.add_routine(WriteJsonl().set_config(path=str(tmp_path / "out")), "one")
        flow.add_routine(WriteCsv().set_config(path=str(tmp_path / "x" / ".." / "out")), "two")
        with simulated(0) as runtime:
            state = runtime.exec(flow, entry="one", entry_params={"n": 1})
            assert state.wait()
            assert state.status == "failed"
            assert "'two' writes" in str(state.error)
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize("before", [None, "as it was\n"])
    def test_a_flow_that_fails_in_the_middle_leaves_the_target_as_it_was(
        self, before: str | None, tmp_path: Path
    ) -> None:
        path = tmp_path / "out.jsonl"
        if before is not None:
            path.write_text(before)
        flow = Flow("failing")
        flow.add_routine(ReadLines().set_config(path=str(tmp_path / "in.txt")), "read")
        flow.add_routine(Picky(), "picky")
        flow.add_routine(WriteJsonl().set_config(path=str(path)), "write")
        flow.connect("read", "line", "picky", "input")
        flow.connect("picky", "output", "write", "input")
        (tmp_path / "in.txt").write_text("good\n" * 500 + "bad\n" + "good\n" * 500)
        with Runtime(thread_pool_size=2) as runtime:
            state = runtime.exec(flow, entry_params={})
            assert state.wait(60)
            assert state.status == "failed"
        assert (path.read_text() if path.exists() else None) == before
        assert {name for name in os.listdir(tmp_path) if name.endswith(".part")} >= set(
            os.listdir(tmp_path)
        ) - {"in.txt", "out.jsonl"}

    def test_a_folder_that_cannot_be_made_fails_the_job_and_names_it(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        flow = Flow("nowhere")
        flow.add_routine(WriteJsonl().set_config(path=str(tmp_path / "file" / "out.jsonl")), "write")
        with simulated(0) as runtime:
            state = runtime.exec(flow, entry_params={"n": 1})
            assert state.wait()
            assert state.status == "failed"
            assert str(tmp_path / "file") in str(state.error)

    def test_a_second_drain_adds_with_append_and_replaces_without(self, tmp_path: Path) -> None:
        for existing, content in (("append", "12"), ("replace", "2")):
            path = tmp_path / existing
            flow = Flow("twice")
            flow.add_routine(WriteJsonl().set_config(path=str(path), existing=existing), "write")
            with simulated(0) as runtime:
                runtime.exec(flow)
                for n in (1, 2):
                    runtime.post(flow, "write", "input", {"n": n})
                    assert runtime.wait_until_all_jobs_finished()
            assert path.read_text() == "".join(f'{{"n": {n}}}\n' for n in content)

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
    @pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
    @pytest.mark.parametrize("append", [False, True])
    def test_the_permissions_of_the_target_stay(self, append: bool, tmp_path: Path) -> None:
        path = tmp_path / "out"
        path.write_text("secret\n")
        path.chmod(0o600)
        draft = Draft.begin(path, append=append)
        assert draft.temporary.stat().st_mode & 0o777 == 0o600
        draft.write(b"more\n")
        draft.finish()
        assert path.stat().st_mode & 0o777 == 0o600

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

    @pytest.mark.parametrize("target", [None, b"of somebody else, and longer than the draft"])
    def test_a_draft_that_somebody_removed_is_never_made_up(
        self, target: bytes | None, tmp_path: Path
    ) -> None:
        path = tmp_path / "out"
        if target is not None:
            path.write_bytes(target)
        draft = Draft.begin(path, append=False)
        draft.write(b"one\n")
        draft.temporary.unlink()
        with pytest.raises(ExecutionError, match="is gone"):
            Draft.restored(draft.as_state()).write(b"two\n")
        assert (path.read_bytes() if path.exists() else None) == target


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
