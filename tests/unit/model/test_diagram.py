from __future__ import annotations

import re

from routilux.model.flow import Flow
from tests.unit.model.samples import Step, chain

HOSTILE = [
    'quo"te',
    "back\\slash\\",
    "<script>alert(1)</script>",
    "a]-->b",
    "`md`",
    "#35;",
    "%% c",
    "a;b{c}|d",
    "é 漢",
]


def test_mermaid() -> None:
    flow = chain("read", "write")
    flow.routines["write"].add_slot("output")
    flow.connect("read", "output", "write", "output")
    assert flow.to_mermaid() == (
        "flowchart LR\n"
        '    r0["read"]\n'
        '    r1["write"]\n'
        '    r0 -->|"output → input"| r1\n'
        '    r0 -->|"output"| r1\n'
    )


def test_dot() -> None:
    assert chain("read", "write").to_dot() == (
        'digraph "line" {\n'
        "    rankdir=LR;\n"
        "    node [shape=box];\n"
        '    r0 [label="read"];\n'
        '    r1 [label="write"];\n'
        '    r0 -> r1 [label="output → input"];\n'
        "}\n"
    )


def hostile_flow() -> Flow:
    flow = chain(*HOSTILE, flow_id='f"\\')
    step = Step()
    step.add_event('e"|')
    flow.add_routine(step, "last")
    flow.connect("last", 'e"|', HOSTILE[0], "input")
    return flow


def test_hostile_names_stay_inside_their_labels_in_mermaid() -> None:
    lines = hostile_flow().to_mermaid().splitlines()[1:]
    node, edge = r'    r\d+\["([^"]*)"\]', r'    r\d+ -->\|"([^"]*)"\| r\d+'
    labels = [match[1] for line in lines if (match := re.fullmatch(node, line) or re.fullmatch(edge, line))]
    assert len(labels) == len(lines)
    plain = [re.sub(r"#(\d+);", lambda code: chr(int(code[1])), label) for label in labels]
    assert plain[: len(HOSTILE) + 1] == [*HOSTILE, "last"]
    assert plain[-1] == 'e"| → input'
    assert not set("<>[]{}|\\`%()&").intersection("".join(labels))


def test_hostile_names_stay_inside_their_labels_in_dot() -> None:
    lines = hostile_flow().to_dot().splitlines()
    quoted = r'"((?:[^"\\]|\\["\\])*)"'
    assert re.fullmatch(rf"digraph {quoted} {{", lines[0])
    statement = rf"    (?:r\d+|r\d+ -> r\d+) \[label={quoted}\];"
    labels = [re.fullmatch(statement, line) for line in lines[3:-1]]
    plain = [re.sub(r"\\(.)", r"\1", match[1]) for match in labels if match]
    assert (len(plain), plain[: len(HOSTILE)]) == (len(lines) - 4, HOSTILE)


def test_a_notebook_gets_mermaid_with_text_to_fall_back_on() -> None:
    flow = hostile_flow()
    bundle = flow._repr_mimebundle_()
    assert bundle["text/vnd.mermaid"] == flow.to_mermaid()
    assert bundle["text/plain"] == repr(flow)
    assert bundle["text/html"].startswith("<pre>flowchart LR")
    assert "<script>" not in bundle["text/html"]
