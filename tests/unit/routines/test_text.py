"""The built-in routines for text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from routilux import ConfigurationError, Routine
from routilux.routines import ChangeCase, Clip, Extract, JoinText, RegexExtract, SplitText, Template
from tests.unit.routines.running import emitted, only, over_seeds, saved_in_the_middle

ANSWER = """Here is what I found:

```json
{"city": "Seattle", "days": [1, 2]}
```

and in YAML {not json}:

```yaml
city: Seattle
days: [1, 2]
```

```python
print("hello")
```
"""
FOUND = {"city": "Seattle", "days": [1, 2]}


@pytest.mark.parametrize(
    ("template", "payload", "text"),
    [
        ("Dear {customer.name},", {"customer": {"name": "Ada"}}, "Dear Ada,"),
        ("{{{n + 1}}}", {"n": 1}, "{2}"),
        ("{a}{b}", {"a": "x", "b": None}, "x"),
        ("plain", {}, "plain"),
        ("{'yes' if n else 'no'}", {"n": 0}, "no"),
    ],
)
def test_template(template: str, payload: Any, text: str) -> None:
    routine = Template().set_config(template=template, output="out")
    assert emitted(routine, [payload]) == [("output", {**payload, "out": text})]


@pytest.mark.parametrize(
    ("text", "length", "words", "clipped"),
    [
        ("short", 5, True, "short"),
        ("one two three", 9, True, "one two…"),
        ("one two three", 8, True, "one two…"),
        ("one two three", 7, True, "one…"),
        ("one two three", 7, False, "one tw…"),
        ("onetwothree", 4, True, "one…"),
        ("abc", 1, True, "…"),
    ],
)
def test_clip(text: str, length: int, words: bool, clipped: str) -> None:
    [(event, data)] = emitted(Clip().set_config(length=length, words=words), [{"text": text}])
    assert (event, data) == ("output", {"text": clipped, "clipped": text != clipped})
    assert len(clipped) <= length


@pytest.mark.parametrize(
    ("config", "text", "pieces"),
    [
        ({"size": 2}, "abcde", ["ab", "cd", "e"]),
        ({"size": 3, "overlap": 1}, "abcde", ["abc", "cde"]),
        ({"size": 3, "overlap": 2}, "ab", ["ab"]),
        ({"by": "words", "size": 2}, "a b  c", ["a b", "c"]),
        ({"by": "lines", "size": 1}, "a\nb", ["a", "b"]),
        ({"by": "paragraphs", "size": 1}, "a\nb\n\n\nc", ["a\nb", "c"]),
    ],
)
def test_split_text(config: Any, text: str, pieces: list[str]) -> None:
    found = emitted(SplitText().set_config(**config), [{"text": text, "id": 7}])
    assert found == [
        ("output", {"text": piece, "id": 7, "index": index, "count": len(pieces)})
        for index, piece in enumerate(pieces)
    ]


def test_split_text_of_nothing() -> None:
    assert emitted(SplitText(), [{"text": ""}]) == [("empty", {"text": ""})]


@pytest.mark.parametrize(
    ("config", "text", "found"),
    [
        ({"pattern": r"(?P<user>\w+)@(?P<host>\w+)"}, "to ada@home", [{"user": "ada", "host": "home"}]),
        ({"pattern": r"(\d+)-(\d+)"}, "1-2 3-4", [{"1": "1", "2": "2"}]),
        ({"pattern": r"\d", "all": True}, "1 2", [{"match": "1"}, {"match": "2"}]),
    ],
)
def test_regex_extract(config: Any, text: str, found: list[Any]) -> None:
    payload = {"text": text}
    expected = [("output", payload | groups) for groups in found]
    assert emitted(RegexExtract().set_config(**config), [payload]) == expected


def test_a_pattern_that_would_take_for_ever_elsewhere() -> None:
    payload = {"text": "a" * 50_000 + "!"}
    assert emitted(RegexExtract().set_config(pattern="^(a+)+$"), [payload]) == [("unmatched", payload)]


def test_text_that_no_file_could_hold_is_not_matched() -> None:
    [(event, data)] = emitted(RegexExtract().set_config(pattern="a"), [{"text": "ab\ud800"}])
    assert (event, data["payload"]) == ("error", {"text": "ab\ud800"})
    assert "half of a surrogate pair at character 3" in data["reason"]


@pytest.mark.parametrize(
    ("case", "text", "changed"),
    [
        ("lower", "Ab", "ab"),
        ("upper", "Ab", "AB"),
        ("title", "don't stop", "Don't Stop"),
        ("sentence", "hELLO you", "Hello you"),
        ("swap", "Ab", "aB"),
        ("snake", "HTTPServer name-2", "http_server_name_2"),
        ("kebab", "someName", "some-name"),
        ("camel", "some_name here", "someNameHere"),
        ("pascal", "some name", "SomeName"),
        ("camel", "", ""),
    ],
)
def test_change_case(case: str, text: str, changed: str) -> None:
    assert emitted(ChangeCase().set_config(case=case), [{"text": text}]) == [("output", {"text": changed})]


@pytest.mark.parametrize(
    ("config", "text", "values"),
    [
        ({"kind": "json", "all": True}, ANSWER, [FOUND, [1, 2]]),
        ({"kind": "json"}, 'so: {"a": {"b": 1}} it is', [{"a": {"b": 1}}]),
        ({"kind": "yaml"}, ANSWER, [FOUND]),
        ({"kind": "yaml"}, "a: 1", [{"a": 1}]),
        (
            {"kind": "yaml"},
            "country: no\nat: 1:30\nday: 2024-01-31\ncode: 010\noct: 0o10\nrate: 1e3\nup: .inf\n<<: {b: ~}",
            [
                {
                    "country": "no",
                    "at": "1:30",
                    "day": "2024-01-31",
                    "code": 10,
                    "oct": 8,
                    "rate": 1000.0,
                    "up": ".inf",
                    "<<": {"b": None},
                }
            ],
        ),
        ({"kind": "yaml"}, "yes: [true, 'true', \"1\", -2, .5]", [{"yes": [True, "true", "1", -2, 0.5]}]),
        ({"kind": "json"}, 'no: {"a": NaN}, yes: {"a": 1}', [{"a": 1}]),
        ({"kind": "code", "language": "Python"}, ANSWER, ['print("hello")']),
        ({"kind": "code", "all": True}, "```\none\n```\ntext\n```\ntwo", ["one", "two"]),
    ],
)
def test_extract(config: Any, text: str, values: list[Any]) -> None:
    found = emitted(Extract().set_config(**config), [{"text": text}])
    assert [data["value"] for data in only("output", found)] == values


@pytest.mark.parametrize("kind", ["json", "yaml", "code"])
def test_nothing_to_extract(kind: str) -> None:
    [(event, data)] = emitted(Extract().set_config(kind=kind), [{"text": "just words"}])
    assert (event, data["payload"]) == ("missing", {"text": "just words"})


@pytest.mark.parametrize(
    "text",
    [
        "a: &x [1]\nb: *x",
        "[" * 60 + "]" * 60,
        "a: !!python/object:os.system {}",
        "a: [",
        "a: !!binary aGk=",
        "a: !!timestamp 2024-01-31",
        "a: !!set {b}",
        "? [a]\n: b",
        "a: " + "9" * 5_000,
        "x" * 70_000,
    ],
)
def test_yaml_that_is_not_read(text: str) -> None:
    assert [event for event, _ in emitted(Extract().set_config(kind="yaml"), [{"text": text}])] == ["error"]


def test_json_of_many_brackets_is_given_up() -> None:
    [(event, _)] = emitted(Extract(), [{"text": "[" * 50_000}])
    assert event == "missing"


class TestJoinText:
    @over_seeds
    def test_on_drain_and_every_n(self, routilux_seed: int) -> None:
        routine = JoinText().set_config(separator="+", every=3)
        found = emitted(routine, [{"text": text} for text in "abcde"], seed=routilux_seed)
        assert found == [
            ("output", {"text": "a+b+c", "count": 3}),
            ("output", {"text": "d+e", "count": 2}),
        ]

    def test_what_is_no_text_or_too_much_is_told(self) -> None:
        found = emitted(JoinText().set_config(max_length=4), [{"text": text} for text in ("ab", 1, "c", "d")])
        assert [data["payload"]["text"] for data in only("error", found)] == [1, "d"]
        assert only("output", found) == [{"text": "ab\nc", "count": 2}]

    @pytest.mark.parametrize(("length", "fits"), [(4, False), (5, True)])
    def test_separators_count(self, length: int, fits: bool) -> None:
        found = emitted(JoinText().set_config(max_length=length), [{"text": "ab"}, {"text": "cd"}])
        assert only("output", found) == [{"text": "ab\ncd" if fits else "ab", "count": 1 + fits}]

    def test_what_is_held_is_saved(self, tmp_path: Path) -> None:
        letters = [{"text": text} for text in "abc"]
        found = saved_in_the_middle(JoinText, letters, [{"text": "d"}], tmp_path / "state")
        assert "\n".join(data["text"] for _, data in found) == "a\nb\nc\nd"


@pytest.mark.parametrize(
    "routine",
    [Clip().set_config(length=3), SplitText(), RegexExtract().set_config(pattern="a"),
     ChangeCase().set_config(case="lower"), Extract()],
)  # fmt: skip
@pytest.mark.parametrize("payload", [{}, {"text": 1}])
def test_a_payload_without_text_is_told(routine: Routine, payload: Any) -> None:
    [(event, data)] = emitted(type(routine)().set_config(**routine.config), [payload])
    assert (event, data["payload"]) == ("error", payload)
    assert "'text'" in data["reason"]


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (Template, {"template": "{n"}),
        (Template, {"template": "n}"}),
        (Template, {"template": "{n n}"}),
        (Clip, {"length": 0}),
        (SplitText, {"size": 2, "overlap": 2}),
        (SplitText, {"by": "sentence"}),
        (RegexExtract, {"pattern": "(?=a)"}),
        (RegexExtract, {"pattern": r"(a)\1"}),
        (RegexExtract, {"pattern": "("}),
        (ChangeCase, {"case": "spongebob"}),
        (Extract, {"kind": "xml"}),
        (JoinText, {"every": 0}),
    ],
)
def test_config_that_cannot_work_is_refused(kind: type[Routine], config: dict[str, Any]) -> None:
    routine = kind()
    with pytest.raises(ConfigurationError):
        routine.set_config(**config)
    assert dict(routine.config) == {}
