"""What goes into a run, and what is said about an input that cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from routilux import ConfigurationError
from routilux.cli.inputs import Item, check_input, items_of, parameters


def refusal(call: Any, *arguments: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        list(call(*arguments) or ())
    return str(caught.value)


class TestParameters:
    def test_an_equals_sign_is_text_and_a_colon_before_it_is_json(self) -> None:
        given = parameters(["city=Seattle", "n:=3", "tags:=[1, null]", "empty=", "text=a=b", "url=x:=y"])
        assert given == {
            "city": "Seattle",
            "n": 3,
            "tags": [1, None],
            "empty": "",
            "text": "a=b",
            "url": "x:=y",
        }

    def test_the_last_of_a_key_counts(self) -> None:
        assert parameters(["n:=1", "n=2"]) == {"n": "2"}

    @pytest.mark.parametrize("text", ["city", "=x", ":=1", ""])
    def test_without_key_or_sign_it_is_refused(self, text: str) -> None:
        assert refusal(parameters, [text]).startswith(f"-p: expected key=text or key:=json, got {text!r}")

    @pytest.mark.parametrize("text", ["Seattle", "{", "NaN", "", "[" * 100_000, "1" * 5_000])
    def test_wrong_json_is_refused_with_the_way_to_give_text(self, text: str) -> None:
        message = refusal(parameters, [f"n:={text}"])
        assert message.startswith("-p n:= takes JSON, got ")
        assert "for text write" in message

    def test_what_is_no_utf8_is_refused(self) -> None:
        assert "expected text in UTF-8" in refusal(parameters, ["n=\udcff"])


class TestInput:
    def items(self, folder: Path, data: bytes, **given: Any) -> list[Item]:
        (folder / "input").write_bytes(data)
        return list(items_of(str(folder / "input"), given))

    def test_without_a_source_the_parameters_are_the_one_item(self) -> None:
        assert list(items_of(None, {"n": 1})) == [Item(0, {"n": 1})]

    def test_each_line_of_json_lines_is_an_item_with_its_number(self, folder: Path) -> None:
        assert self.items(folder, b'{"n": 1}\n\n{"n": 2}') == [Item(1, {"n": 1}), Item(3, {"n": 2})]

    def test_an_object_over_several_lines_is_one_item(self, folder: Path) -> None:
        assert self.items(folder, b'{\n  "n": 1,\n\n  "m": [2]\n}\n') == [Item(1, {"n": 1, "m": [2]})]

    def test_parameters_go_before_keys_of_the_input(self, folder: Path) -> None:
        assert self.items(folder, b'{"n": 1, "m": 1}', n=2) == [Item(1, {"n": 2, "m": 1})]

    def test_a_byte_order_mark_is_passed_over(self, folder: Path) -> None:
        assert self.items(folder, b'\xef\xbb\xbf{"n": 1}') == [Item(1, {"n": 1})]

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "is empty; give a JSON object, or one on each line"),
            (b"\n \n", "is empty"),
            (b"[1]", ": expected one JSON object, or one on each line, got [1] (list)"),
            (
                b'{\n"n": x\n}',
                ": expected one JSON object, or one on each line: Expecting value at line 2, column 6",
            ),
            (b'\n\n{\n"n": x\n}', "Expecting value at line 4, column 6"),
            (
                b'{"n": 1}\n{"n": }',
                ", line 2: expected a JSON object on each line: Expecting value at column 7",
            ),
            (b'{"n": 1}\n\n7', ", line 3: expected a JSON object on each line, got 7 (int)"),
            (b'{"n": 1}\n{"n": NaN}', ", line 2: expected a JSON object on each line: NaN is no JSON"),
            (b'{"n": 1}\n{"n": "\xe9"}', ", line 2: not UTF-8 (byte 0xe9 at 8)"),
            (b"[" * 100_000, ": expected one JSON object, or one on each line"),
        ],
    )
    def test_what_is_wrong_is_said_with_its_line(self, data: bytes, message: str, folder: Path) -> None:
        assert message in refusal(self.items, folder, data)

    def test_items_before_a_bad_line_come_first(self, folder: Path) -> None:
        (folder / "input").write_bytes(b'{"n": 1}\nbad')
        assert next(items_of(str(folder / "input"), {})) == Item(1, {"n": 1})

    def test_an_input_that_cannot_be_opened_is_refused(self, folder: Path) -> None:
        (folder / "orders.jsonl").write_text("{}")
        assert refusal(check_input, "order.jsonl") == (
            "-i 'order.jsonl': no such file; did you mean orders.jsonl?"
        )
        assert refusal(check_input, ".") == "-i '.' is a directory; give a file of JSON or JSON Lines"
        assert refusal(check_input, "no/x").endswith("no such file; there is no folder 'no'")
