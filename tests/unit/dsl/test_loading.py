"""Documents that are right, and what is said about those that are not."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from routilux import Flow, Routine
from routilux.activation_policies import ActivationPolicy, BatchSizePolicy, batch_size_policy
from routilux.dsl import (
    DslError,
    Problem,
    RoutineRegistry,
    from_dict,
    load,
    loads_json,
    loads_yaml,
    yaml_reader,
)
from routilux.errors import InvalidTypeError, InvalidValueError
from tests.unit.dsl.samples import GOOD, HEAD, registry

REGISTRY = registry()


def problems(document: str, **options: Any) -> list[Problem]:
    with pytest.raises(DslError) as caught:
        loads_yaml(document, registry=REGISTRY, **options)
    return list(caught.value.problems)


def codes(document: str) -> list[tuple[str, str, int, int]]:
    return [(each.code, each.path, each.line, each.column) for each in problems(document)]


def test_everything_that_a_document_can_say() -> None:
    flow = loads_yaml(GOOD, registry=REGISTRY)
    read = flow.routines["read"]
    assert (flow.flow_id, flow.entry, flow.description()) == ("weather", ("read", "path"), "Storm days")
    assert (flow.execution_strategy, flow.max_workers, flow.execution_timeout) == ("concurrent", 4, 300.0)
    assert flow.error_handler is not None
    assert (str(flow.error_handler.strategy), flow.error_handler.retry_delay) == ("retry", 0.5)
    assert read.activation_policy == BatchSizePolicy(2)
    assert (read.concurrency, read.timeout, dict(read.config)) == (3, 2.5, {"path": "in.csv"})
    assert (read.slots["path"].max_queue_length, read.slots["path"].on_full) == (5, "drop_old")
    assert flow.description("read") == "one: file"
    assert list(flow.routines["choose"].events) == ["storm"]
    assert [str(each) for each in flow.connections] == [
        "read.row -> choose.input",
        "choose.storm -> save.input",
    ]
    assert flow.connections[0].mapping == {"date": "day"}


@pytest.mark.parametrize("strategy", ["strategy: skip, ", ""])
def test_a_setting_of_a_retry_without_a_retry_is_a_problem_at_its_place(strategy: str) -> None:
    handler = f"error_handler: {{{strategy}max_retries: 3}}"
    found = problems(f"version: 1\nflow_id: x\n{handler}\nroutines: {{a: {{class: work}}}}\n")
    assert [(each.code, each.path, each.line, each.column) for each in found] == [
        ("invalid-value", "error_handler.max_retries", 3, handler.index("3") + 1)
    ]
    assert "max_retries would have no effect" in found[0].message


def test_all_problems_at_once_each_at_its_place() -> None:
    document = textwrap.dedent("""\
        version: 2
        flow_id: x
        entri: a
        execution: {strategy: fast, timeout: 0}
        error_handler: {strategy: rety, max_retries: -1}
        routines:
          a: {class: raed}
          b: {class: read, config: {size: 0, siz: 1}}
          c: {class: work, concurrency: 0, activation: {policy: batch}}
          d: {class: work, slots: {inptu: {}, input: {on_full: x}}}
          e: {class: any}
        connections:
          - {from: d.outptu, to: d.input}
          - {from: d.input, to: c.output}
          - {from: z.output, to: d.input, mapping: [x]}
        """)
    assert codes(document) == [
        ("bad-version", "version", 1, 10),
        ("unknown-key", "entri", 3, 1),
        ("invalid-value", "execution.strategy", 4, 23),
        ("invalid-value", "execution.timeout", 4, 38),
        ("invalid-value", "error_handler.strategy", 5, 27),
        ("invalid-value", "error_handler.max_retries", 5, 46),
        ("unknown-class", "routines.a.class", 7, 14),
        ("config-missing", "routines.b.config.path", 8, 28),
        ("config-value", "routines.b.config.size", 8, 35),
        ("config-unknown", "routines.b.config.siz", 8, 38),
        ("invalid-value", "routines.c.concurrency", 9, 33),
        ("unknown-policy", "routines.c.activation.policy", 9, 57),
        ("unknown-slot", "routines.d.slots.inptu", 10, 28),
        ("invalid-value", "routines.d.slots.input.on_full", 10, 56),
        ("no-policy", "routines.e", 11, 3),
        ("unknown-event", "connections[0].from", 13, 12),
        ("swapped-ends", "connections[1].from", 14, 12),
        ("unknown-routine", "connections[2].from", 15, 12),
        ("wrong-type", "connections[2].mapping", 15, 44),
    ]


@pytest.mark.parametrize("key", ["strategy", "max_workers", "timeout"])
def test_nothing_is_no_setting_of_an_execution(key: str) -> None:
    document = f"version: 1\nflow_id: x\nexecution: {{{key}: null}}\nroutines: {{a: {{class: work}}}}\n"
    assert codes(document) == [("invalid-value", f"execution.{key}", 3, 15 + len(key))]


def test_a_problem_shows_the_line_a_caret_the_nearest_name_and_the_fix() -> None:
    (problem,) = problems(f"{HEAD}  a: {{class: raed, config: {{path: x}}}}\n", file="weather.flow.yaml")
    assert problem.nearest[0] == "read"
    assert str(problem).startswith(
        "weather.flow.yaml:4:14: routines.a.class: unknown routine type 'raed'; nearest: read"
    )
    assert problem.excerpt == ("    4 |   a: {class: raed, config: {path: x}}\n                     ^")
    assert "\n    fix: name a registered one" in str(problem)


def test_the_column_of_an_expression_error() -> None:
    (problem,) = problems(f'{HEAD}  a: {{class: choose, config: {{routes: [{{name: x, when: "a > "}}]}}}}\n')
    assert (problem.code, problem.path, problem.column) == (
        "bad-expression",
        "routines.a.config.routes[0].when",
        56,
    )
    assert "(column 4 of 'a > ')" in problem.message


def test_turned_round_ends_come_with_the_right_line() -> None:
    document = (
        f"{HEAD}  a: {{class: work}}\n  b: {{class: work}}\nconnections: [{{from: b.input, to: a.output}}]\n"
    )
    assert [each.fix for each in problems(document)] == ["write {from: a.output, to: b.input}"]


def test_a_duplicate_connection_and_a_mapping_that_cannot_be() -> None:
    document = f"{HEAD}  r: {{class: read, config: {{path: x}}}}\n  a: {{class: work}}\nconnections:\n" + (
        "- {from: r.row, to: a.input}\n" * 2 + "- {from: r.row, to: a.input, mapping: {rein: x}}\n"
    )
    assert codes(document) == [
        ("duplicate-name", "connections[1]", 8, 3),
        ("invalid-value", "connections[2]", 9, 3),
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"), ("y", "y"), ("N", "N"),
        ("true", True), ("True", True), ("FALSE", False), ("tRUE", "tRUE"),
        ("null", None), ("~", None), ("", None), ("Null", None), ("nULL", "nULL"),
        ("0o17", 15), ("017", 17), ("0x1F", 31), ("0b1", "0b1"), ("1_000", "1_000"), ("+12", 12), ("-0", 0),
        ("1:30", "1:30"), ("190:20:30", "190:20:30"), ("2024-01-01", "2024-01-01"),
        ("1.", 1.0), (".5", 0.5), ("1e3", 1000.0), ("1.5E-2", 0.015), ("1e", "1e"), (".", "."),
        ("'1'", "1"), ('"true"', "true"), ("!!str 1", "1"), ("!!float 1", 1.0), ("! 1", "1"), ("=", "="),
        ("9007199254740991", 2**53 - 1),
    ],
)  # fmt: skip
def test_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    flow = loads_yaml(f"{HEAD}  a:\n    class: work\n    config:\n      x: {text}\n", registry=REGISTRY)
    found = flow.routines["a"].config["x"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("tagged", ["!!int x", "!!int 1.5", "!!bool yes", "!!null 0", "!!float x", "!!map x"])
def test_a_core_tag_must_fit(tagged: str) -> None:
    assert codes(f"{HEAD}  a: {{class: work, config: {{x: {tagged}}}}}\n")[0][0] in ("bad-tag", "tag")


@pytest.mark.parametrize("key", ["1", "true", "null", "1.5", "~"])
def test_a_key_is_text(key: str) -> None:
    assert [code for code, *_ in codes(f"{HEAD}  a: {{class: work, config: {{{key}: 1}}}}\n")] == [
        "key-not-text"
    ]
    flow = loads_yaml(f"{HEAD}  a: {{class: work, config: {{'{key}': 1}}}}\n", registry=REGISTRY)
    assert list(flow.routines["a"].config) == [key]


def test_the_yaml_directive() -> None:
    document = f"---\n{HEAD}  a: {{class: work}}\n"
    assert loads_yaml(f"%YAML 1.2\n{document}", registry=REGISTRY).flow_id == "x"
    assert [code for code, *_ in codes(f"%YAML 1.1\n{document}")] == ["directive"]
    assert "directive" in [code for code, *_ in codes(f"%TAG ! !foo\n{document}")]
    assert codes(f"%FOO bar\n{document}")[0][0] in ("yaml-syntax", "directive")


def test_the_parser_in_python_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_reader, "_loader", yaml.SafeLoader)
    assert loads_yaml(GOOD, registry=REGISTRY).to_yaml(registry=REGISTRY) == GOOD
    for document, code in (
        ("[" * 5000, "too-deep"),
        ("a: &a [*a]", "anchor"),
        ("a: !!binary x", "tag"),
        ("a: 'x", "yaml-syntax"),
        ("%YAML 1.1\n---\na: 1", "directive"),
        ("a: 1\na: 2", "duplicate-key"),
    ):
        assert code in [each.code for each in problems(document)]


def test_line_ends_of_windows_are_fine() -> None:
    assert loads_yaml(GOOD.replace("\n", "\r\n"), registry=REGISTRY).flow_id == "weather"


# -- limits, from both sides -------------------------------------------------------------------------------


def nested(levels: int) -> str:
    return f"{HEAD}  a: {{class: work, config: {{x: {'[' * levels}{']' * levels}}}}}\n"


def test_depth() -> None:
    loads_yaml(nested(36), registry=REGISTRY)  # inside four mappings
    assert [code for code, *_ in codes(nested(37))] == ["too-deep"]


def test_size() -> None:
    document = f"{HEAD}  a: {{class: work}}\n#"
    full = document + "x" * (256 * 1024 - len(document))
    loads_yaml(full, registry=REGISTRY)
    assert [code for code, *_ in codes(full + "x")] == ["too-large"]
    with pytest.raises(DslError, match="more than 256 KiB"):
        loads_yaml((document + "ä" * 131_100).encode(), registry=REGISTRY)


def test_nodes() -> None:
    document = f"{HEAD}  a: {{class: work, config: {{x: [%s]}}}}\n"
    rest = 10_000 - 15
    loads_yaml(document % ",".join(["1"] * rest), registry=REGISTRY)
    assert [code for code, *_ in codes(document % ",".join(["1"] * (rest + 1)))] == ["too-many-nodes"]


def test_routines() -> None:
    document = HEAD + "".join(f"  r{n}: {{class: work}}\n" for n in range(2000))
    assert len(loads_yaml(document, registry=REGISTRY).routines) == 2000
    assert [code for code, *_ in codes(document + "  r: {class: work}\n")] == ["too-many-routines"]


def test_the_number_of_problems_is_bounded() -> None:
    document = HEAD + "  a: {class: work}\nconnections:\n" + "- {from: b.x, to: c.y}\n" * 1500
    assert len(problems(document)) == 100


# -- sources -----------------------------------------------------------------------------------------------


def test_a_file_by_its_suffix(tmp_path: Path) -> None:
    path = tmp_path / "weather.flow.yaml"
    path.write_text(GOOD)
    flow = load(path, registry=REGISTRY)
    flow.save(tmp_path / "weather.flow.json", registry=REGISTRY)
    assert Flow.load(tmp_path / "weather.flow.json", registry=REGISTRY).to_yaml(registry=REGISTRY) == GOOD
    assert sorted(each.name for each in tmp_path.iterdir()) == ["weather.flow.json", "weather.flow.yaml"]
    with pytest.raises(InvalidValueError, match=r"\*.flow.yaml or \*.flow.json"):
        load(tmp_path / "weather.txt", registry=REGISTRY)
    with pytest.raises(DslError, match="cannot be read"):
        load(tmp_path / "missing.yaml", registry=REGISTRY)
    (tmp_path / "bad.yaml").write_text("a: 'x")
    with pytest.raises(DslError) as caught:
        load(tmp_path / "bad.yaml", registry=REGISTRY)
    assert caught.value.problems[0].file == str(tmp_path / "bad.yaml")


def test_a_dict_with_what_no_document_holds() -> None:
    recursive: dict[str, Any] = {"version": 1}
    recursive["description"] = recursive
    for data, code in (
        ({"version": 1, "flow_id": {1, 2}}, "unsupported-value"),
        ({1: 2}, "key-not-text"),
        ({"a": float("nan")}, "number-out-of-range"),
        (recursive, "too-deep"),
        ({"a": list(range(20_000))}, "too-many-nodes"),
        ({"a": {str(n): n for n in range(20_000)}}, "too-many-nodes"),
    ):
        with pytest.raises(DslError) as caught:
            from_dict(data, registry=REGISTRY)
        assert code in {each.code for each in caught.value.problems}
    with pytest.raises(InvalidTypeError, match="expected a dict"):
        from_dict([], registry=REGISTRY)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="expected text or bytes"):
        loads_json(5, registry=REGISTRY)  # type: ignore[arg-type]


def test_what_a_class_raises_is_a_problem_of_the_document() -> None:
    class Fragile(Routine):
        def config_changed(self) -> None:
            raise RuntimeError("no disk")

    own = registry().register(Fragile, "fragile")
    with pytest.raises(DslError, match="class 'fragile' cannot be made: RuntimeError: no disk"):
        loads_yaml(f"{HEAD}  a: {{class: fragile}}\n", registry=own)


def test_a_registered_policy() -> None:
    class Every(ActivationPolicy):
        __slots__ = ("n",)
        name = "every"

        def __init__(self, n: int) -> None:
            if n < 1:
                raise ValueError("n is at least 1")
            self._init(n=n)

        def to_dict(self) -> dict[str, Any]:
            return {"policy": "every", "n": self.n}

    own = registry().register_policy("every", Every)
    document = HEAD + "  a:\n    class: work\n    activation:\n      policy: every\n      n: %s\n"
    flow = loads_yaml(document % 2, registry=own)
    assert flow.routines["a"].activation_policy == Every(2)
    assert flow.to_yaml(registry=own) == document % 2
    with pytest.raises(DslError, match="n is at least 1"):
        loads_yaml(document % 0, registry=own)
    with pytest.raises(DslError, match="no activation policy 'every'"):
        loads_yaml(document % 1, registry=REGISTRY)
    made = RoutineRegistry(plugins=False).register_policy("pairs", lambda: batch_size_policy(2))
    assert made.policy("pairs")() == BatchSizePolicy(2)


def test_dotted_paths_only_from_allowed_packages_and_only_after_the_rest_has_passed(tmp_path: Path) -> None:
    (tmp_path / "mypkg").mkdir()
    (tmp_path / "mypkg" / "__init__.py").write_text("print('imported mypkg')\n")
    (tmp_path / "mypkgs.py").write_text("print('imported mypkgs')\n")
    (tmp_path / "mypkg" / "work.py").write_text(
        "from routilux import routine\n@routine\ndef clean(**k): return k\nother = 5\n"
    )
    script = textwrap.dedent(f"""
        from routilux import Flow
        from routilux.dsl import DslError
        def attempt(name, *allowed, more=""):
            text = {HEAD!r} + "  a:\\n    class: " + name + "\\n" + more
            try:
                flow = Flow.from_yaml(text, allow_imports=allowed)
                assert flow.to_yaml(allow_imports=allowed) == text
                print(name, "ok")
            except DslError as error:
                print(name, *[each.code for each in error.problems])
        attempt("mypkg.work.clean")
        attempt("mypkgs.x", "mypkg")
        attempt("mypkg.work.clean", "mypkg.wo")
        attempt("mypkg.work.clean", "mypkg", more="conections: []\\n")
        attempt("mypkg.work.clean", "mypkg")
        attempt("mypkg.work.other", "mypkg")
        attempt("mypkg.work.missing", "mypkg")
        attempt("mypkg.missing.x", "mypkg")
        """)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "mypkg.work.clean unknown-class",
        "mypkgs.x unknown-class",
        "mypkg.work.clean unknown-class",
        "mypkg.work.clean unknown-key",
        "imported mypkg",
        "mypkg.work.clean ok",
        "mypkg.work.other broken-class",
        "mypkg.work.missing broken-class",
        "mypkg.missing.x broken-class",
    ]
    with pytest.raises(InvalidTypeError, match=r"write \('mypkg',\)"):
        loads_yaml(GOOD, registry=REGISTRY, allow_imports="mypkg")


def test_importing_routilux_imports_no_yaml() -> None:
    script = (
        "import sys, routilux, routilux.dsl; print('yaml' in sys.modules, 'routilux.routines' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


WEATHER = """\
version: 1
flow_id: seattle_weather
description: Storm days and monthly totals from daily observations
execution: {strategy: concurrent, timeout: 300}
error_handler: {strategy: retry, max_retries: 3, retry_delay: 0.5, retry_backoff: 2.0}
entry: read.path                     # routine.slot
routines:
  read:    {class: read_csv}
  check:   {class: validate, config: {schema: {type: object, required: [date, precipitation]}}}
  split:   {class: branch, config: {routes: [{name: storm, when: "wind > 8 and precipitation > 20"}], default: calm}}
  monthly: {class: reduce, config: {key: "date[0:7]", fields: {rain: {sum: precipitation}, hottest: {max: temp_max}}}}
  save:    {class: write_jsonl, config: {path: out/storms.jsonl}}
connections:
  - {from: read.row, to: check.input}
  - {from: check.valid, to: split.input}
  - {from: check.valid, to: monthly.input}
  - {from: split.storm, to: save.input, mapping: {date: day}}
"""


def test_a_document_of_built_in_routines() -> None:
    flow = Flow.from_yaml(WEATHER)
    assert flow.validate() == []
    text = flow.to_yaml()
    assert Flow.from_yaml(text).to_yaml() == text
    assert Flow.from_json(flow.to_json()).fingerprint() == flow.fingerprint()
    with pytest.raises(DslError) as caught:
        Flow.from_yaml(WEATHER.replace("wind > 8 and", "wind > and").replace("split.storm", "split.strom"))
    assert [each.code for each in caught.value.problems] == ["bad-expression"]  # its events are not known
    with pytest.raises(DslError, match="no event 'strom'"):
        Flow.from_yaml(WEATHER.replace("split.storm", "split.strom"))


def test_without_pyyaml_there_is_json() -> None:
    script = """
        import sys
        sys.modules["yaml"] = None
        from routilux import ConfigurationError, Flow
        flow = Flow.from_json('{"version": 1, "flow_id": "x", "routines": {"a": {"class": "log"}}}')
        print(len(flow.to_yaml()))
        try:
            Flow.from_yaml("a: 1")
        except ConfigurationError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "52",
        "YAML needs the package PyYAML: pip install 'routilux[yaml]'; JSON does without it",
    ]


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        (
            "{policy: batch_size, size: 0, age: -1, flush: 'no', agee: 1}",
            [
                ("invalid-value", "size", "expected at least 1 item, got 0 (int)"),
                ("invalid-value", "age", "expected 0 seconds or more, got -1 (int)"),
                ("invalid-type", "flush", "expected true or false, got 'no' (str)"),
                ("unknown-key", "agee", "unknown key 'agee'"),
            ],
        ),
        (
            "{policy: batch_size, age: true}",
            [
                ("missing-key", "", "'size' is missing"),
                (
                    "invalid-type",
                    "age",
                    "expected a number of seconds, got True (bool); "
                    "write flush: true for whether a drain releases the rest",
                ),
            ],
        ),
        (
            "{policy: all_slots_ready, by: 3, timeout: '60'}",
            [
                ("invalid-type", "by", 'expected "job" or a payload key, got 3 (int)'),
                ("invalid-type", "timeout", "expected a number of seconds, got '60' (str)"),
            ],
        ),
        ("{policy: immediate, n: 1}", [("unknown-key", "n", "unknown key 'n'")]),
    ],
)
def test_every_option_of_an_activation_is_looked_at_and_stands_at_its_own_place(
    activation: str, expected: list[tuple[str, str, str]]
) -> None:
    line = f"  a: {{class: work, activation: {activation}}}"
    found = problems(f"{HEAD}{line}\n")
    where = "routines.a.activation"
    assert sorted((each.code, each.path, each.message) for each in found) == sorted(
        (code, f"{where}.{key}".rstrip("."), message) for code, key, message in expected
    )
    for each in found:
        key = each.path.removeprefix(where).lstrip(".")
        begin = line.index(f"{key}: ", line.index("policy")) if key else line.index("{policy")
        at = begin if each.code in ("unknown-key", "missing-key") else begin + len(f"{key}: ")
        assert (each.line, each.column) == (HEAD.count("\n") + 1, at + 1), each


LANES = """\
version: 1
flow_id: x
routines:
  a: {{class: work, concurrency: {}}}
"""


@pytest.mark.parametrize(
    ("concurrency", "code", "path"),
    [
        ("{limit: 0, by: customer}", "invalid-value", "limit"),
        ("{limit: 20, by: 3}", "wrong-type", "by"),
        ("{limit: 20, by: ''}", "wrong-type", "by"),
        ("{limit: 20}", "missing-key", ""),
        ("{limit: 20, by: customer, key: x}", "unknown-key", "key"),
        ("{limit: 20, by: customer}, activation: {policy: batch_size, size: 2}", "invalid-value", ""),
    ],
)
def test_lanes_that_are_not_right(concurrency: str, code: str, path: str) -> None:
    place = ".".join(filter(None, ("routines.a.concurrency", path)))
    assert [each[:2] for each in codes(LANES.format(concurrency))] == [(code, place)]
