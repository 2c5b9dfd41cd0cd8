"""Every row of tests/data/bad_dsl.md: what the document must be answered with, and that nothing was made of it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from routilux.dsl import DslError, loads_json, loads_yaml
from routilux.errors import ConfigurationError
from routilux.expressions import ExpressionError
from routilux.expressions import compile as compile_expression
from tests.unit.dsl.samples import HEAD, Read, registry

DATA = Path(__file__).parents[2] / "data"
ROWS = re.findall(r"^\| (D\d+) \|", (DATA / "bad_dsl.md").read_text(), re.MULTILINE)

REGISTRY = registry()


def one(body: str) -> str:
    """A document whose first routine is sound and whose second is ``body``."""
    return f"{HEAD}  first: {{class: read, config: {{path: x}}}}\n  bad: {body}\n"


def config(value: str) -> str:
    return one(f"{{class: work, config: {{x: {value}}}}}")


def wired(connection: str) -> str:
    return f"{HEAD}  a: {{class: work}}\n  b: {{class: work}}\nconnections:\n  - {connection}\n"


def named(name: str) -> str:
    return one(f"{{class: {name}}}")


def compiles(text: str) -> bool:
    """Whether an expression is refused only when it is evaluated, as one that reads a key that is not there."""
    try:
        compile_expression(text)
    except ExpressionError:
        return False
    return True


LAUGHS = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 10))
PAYLOADS = [
    json.loads(line.split("\t")[3])
    for line in (DATA / "expression_payloads.txt").read_text().splitlines()
    if line and not line.startswith("#")
]

CASES: dict[str, dict[str, list[str | bytes]]] = {
    "D01": {
        "tag": ['!!python/object/apply:os.system ["id"]', config('!!python/object/apply:os.system ["id"]')]
    },
    "D03": {"tag": [config("!!python/name:os.system x"), config("!!python/name:os.system ''")]},
    "D05": {
        "tag": [
            config("!!python/object/new:type {args: [z, [], {extend: !!python/name:exec ''}], listitems: x}"),
        ]
    },
    "D07": {
        "tag": [
            config(f"!!{tag}") for tag in ("binary aGk=", "set {a}", "omap [a: 1]", "timestamp 2024-01-01")
        ]
    },
    "D09": {"tag": [config("!Routine {}"), config("!x y"), one("!<tag:example.org,2024:x> {class: work}")]},
    "D11": {"unknown-class": [named("os.system")]},
    "D13": {"unknown-class": [named(f"builtins.{name}") for name in ("eval", "exec", "open")]},
    "D15": {"unknown-class": [named("antigravity.x"), named("this.x"), named("idlelib.run.main")]},
    "D17": {
        "unknown-class": [named("__main__.X")],
        "bad-class-name": [
            *map(
                named,
                (".relative.X", "..X", "a..b", "a.b.", '""', "1", "null", "[a]", "{a: b}", "true", "a b"),
            )
        ],
    },
    "D19": {
        "bad-class-name": [
            named(f'"{name}"') for name in ("ＭapRoutine", "wоrk", "wo\\u200drk", "wo\\u202erk")
        ]
    },
    "D21": {
        "code-not-accepted": [
            one("{class: work, logic: \"lambda x: __import__('os').system('id')\"}"),
            one('{class: work, logic: "def f(): pass"}'),
            one('{class: work, activation: "lambda s: True"}'),
            one('{class: work, activation: {policy: "lambda s: True"}}'),
        ]
    },
    "D23": {
        "bad-expression": [
            one(f"{{class: choose, config: {{routes: [{{name: x, when: {json.dumps(text)}}}]}}}}")
            for text in PAYLOADS
            if not compiles(text)
        ]
    },
    "D27": {"anchor": ["l0: &l0 [lol]\n" + LAUGHS]},
    "D29": {"alias": ["a: &a [*a]", "&x {self: *x}"]},
    "D31": {"too-deep": ["[" * 100_000, "{a: " * 60_000, "- " * 100_000, "[{a: " * 30_000]},
    "D35": {
        "number-out-of-range": [
            config("1" * 5000),
            config("1e999"),
            config("-1e999"),
            config("0x" + "f" * 10_000),
            config("9007199254740992"),
        ],
        "invalid-value": [
            one("{class: work, concurrency: 1e5}"),
            one(f"{{class: work, concurrency: {'1:59' * 1000}}}"),
        ],
    },
    "D37": {
        "too-large": [HEAD + "".join(f"  r{n}: {{class: work}}\n" for n in range(100_000))],
        "too-many-routines": [HEAD + "".join(f"  r{n}: {{class: work}}\n" for n in range(2001))],
        "too-many-nodes": [
            f"{HEAD}  a: {{class: work}}\nconnections:\n" + "- {from: a.output, to: a.input}\n" * 5000,
        ],
    },
    "D39": {
        "duplicate-key": [
            f"{HEAD}  a: {{class: work}}\nroutines:\n  b: {{class: work}}\n",
            f"{HEAD}  a: {{class: work}}\n  a: {{class: work}}\n",
            f'{HEAD}  "a": {{class: work}}\n  a: {{class: work}}\n',
        ]
    },
    "D41": {
        "yaml-syntax": ["version: 1\nroutines:\n\ta: {class: work}\n"],
        "mixed-line-ends": ["version: 1\r\nflow_id: x\nroutines: {}\r\n", "a: 1\rb: 2"],
        "bad-character": [
            "\ufeff" + one("{class: work}"),
            config('"\x00"'),
            config("a\u2028b"),
            config("\ud800"),
        ],
        "bad-encoding": [
            one("{class: work}").encode("utf-16"),
            config("ä").encode("latin-1"),
        ],
        "invalid-value": [f'{HEAD}  "a\\nb": {{class: work}}\n'],
        "bad-name": [
            f"{HEAD}  größe: {{class: work}}\n",
            "version: 1\nflow_id: größe\nroutines: {a: {class: work}}",
        ],
    },
    "D43": {"wrong-type": ["", "# nothing\n", "null", "42", "- a\n- b", "text", "~"]},
    "D45": {
        "yaml-syntax": [
            "a: 'x",
            "a: @b",
            "a: `b`",
            'a: "\\xZZ"',
            'a: "\\x"',
            "a: [",
            "a: b: c",
            config('"\\ud800"'),
        ]
    },
    "D47": {
        "unknown-routine": [wired("{from: c.output, to: b.input}"), wired("{from: a.output, to: B.input}")],
        "unknown-event": [wired("{from: a.outptu, to: b.input}")],
        "unknown-slot": [wired("{from: a.output, to: b.inptu}")],
        "swapped-ends": [wired("{from: b.input, to: a.output}")],
        "bad-end": [
            wired(f"{{from: {end}, to: b.input}}") for end in ("a.output.x.y", "a", '""', "1", "[a]", "a.")
        ],
        "missing-key": [wired("{from: a.output}"), wired("{to: a.output}")],
    },
    "D49": {"swapped-ends": [wired("{from: a.input, to: b.input}"), wired("{from: a.output, to: b.output}")]},
    "D51": {
        "batch-over-capacity": [
            one(
                "{class: work, activation: {policy: batch_size, size: 20}, slots: {input: {max_queue_length: 9}}}"
            )
        ]
    },
    "D55": {
        "tag": [config("!!timestamp 2024-01-01")],
        "number-out-of-range": [config(".nan"), config("-.inf")],
    },
    "D61": {"unknown-class": [named("shell"), named("process"), named("http")]},
}

# Rows about requests, about flows that a server holds already, and about a routine that does not exist here.
ELSEWHERE = {"D25", "D33", "D53", "D57", "D59", "D63"}


def test_every_row_is_here() -> None:
    assert len(ROWS) == 32
    assert set(ROWS) == CASES.keys() | ELSEWHERE


@pytest.mark.parametrize(
    ("code", "document"),
    [
        pytest.param(code, document, id=f"{row}-{code}-{number}")
        for row, by_code in CASES.items()
        for code, documents in by_code.items()
        for number, document in enumerate(documents)
    ],
)
def test_the_document_is_refused(code: str, document: str | bytes) -> None:
    modules, made = set(sys.modules), Read.made
    with pytest.raises(DslError) as caught:
        loads_yaml(document, registry=REGISTRY)
    error = caught.value
    assert isinstance(error, ConfigurationError)
    assert code in {problem.code for problem in error.problems}
    for problem in error.problems:
        assert problem.line >= 1
        assert problem.column >= 1
        assert len(problem.message) < 1000
        assert str(problem).replace("\n", "").isprintable()
    hostile = {"tag", "bad-class-name", "code-not-accepted", "anchor", "alias", "too-deep"}
    if code in hostile:
        assert Read.made == made, "an object was built"
    assert not {"antigravity", "this", "idlelib"} & (set(sys.modules) - modules)


def test_nearly_all_payloads_are_refused_as_text() -> None:
    assert len(CASES["D23"]["bad-expression"]) > 0.8 * len(PAYLOADS)


def test_text_is_never_expanded() -> None:
    flow = loads_yaml(config('"${HOME}/.ssh/id_rsa"'), registry=REGISTRY)
    assert flow.routines["bad"].config["x"] == "${HOME}/.ssh/id_rsa"


def test_what_comes_from_the_document_is_escaped_in_messages() -> None:
    document = one('{class: work, "evil\\e[31m\\nINFO all is well": 1}')
    with pytest.raises(DslError) as caught:
        loads_yaml(document, registry=REGISTRY)
    assert "\x1b" not in str(caught.value)
    assert "\nINFO" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "document"),
    [
        ("too-deep", "[" * 100_000),
        ("too-deep", '{"a":' * 50_000),
        ("json-syntax", "{" * 100_000),
        ("json-syntax", ""),
        ("json-syntax", '{"a": 1} x'),
        ("json-syntax", '{"a": 01}'),
        ("json-syntax", '{"a": .5}'),
        ("json-syntax", '{"a": 1,}'),
        ("json-syntax", "{'a': 1}"),
        ("json-syntax", '{"a": NaN}'),
        ("json-syntax", '{"a": Infinity}'),
        ("json-syntax", '{"a": "x\ty"}'),
        ("json-syntax", '{"a": 1} // no'),
        ("json-syntax", '{"a": "\\x41"}'),
        ("json-syntax", '{"a": "'),
        ("duplicate-key", '{"a": 1, "\\u0061": 2}'),
        ("number-out-of-range", '{"a": 1e999}'),
        ("number-out-of-range", '{"a": 9007199254740992}'),
        ("number-out-of-range", '{"a": ' + "1" * 5000 + "}"),
        ("bad-text", '{"a": "\\ud800"}'),
        ("bad-text", '{"\\ud800": 1}'),
        ("bad-character", '\ufeff{"a": 1}'),
        ("wrong-type", "[]"),
        ("wrong-type", "null"),
        ("too-large", '"' + "a" * 300_000 + '"'),
        ("too-many-nodes", "[" + "1," * 20_000 + "1]"),
    ],
)
def test_json_is_as_strict(code: str, document: str) -> None:
    with pytest.raises(DslError) as caught:
        loads_json(document, registry=REGISTRY)
    assert code in {problem.code for problem in caught.value.problems}
