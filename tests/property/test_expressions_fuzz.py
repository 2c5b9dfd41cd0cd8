"""Whatever the text and the values are: a value or an `ExpressionError`, and no code of a value ever runs.

Two instruments watch. Traps are values of every shape whose special methods, and whose metaclass's, report
each call. An audit hook reports what the interpreter is asked for: opened files, imports, compiled code,
sockets. A hook cannot be removed, so the mutation run has a process of its own: this file, run as a script.
It also runs with a planted fault, to show that the instruments would see one.
"""

from __future__ import annotations

import argparse
import json
import keyword
import random
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from routilux import expressions
from routilux.expressions import ExpressionError, comparison, compiler, functions

PAYLOADS = Path(__file__).parents[1] / "data" / "expression_payloads.txt"
PLAIN = (dict, list, tuple, str, int, float, bool, type(None))

# ---- traps

_SPECIAL = """
getattribute getattr get call dir reduce reduce_ex sizeof format repr str bytes fspath enter exit
eq ne lt le gt ge hash bool len length_hint iter next reversed contains getitem missing
index int float complex round trunc floor ceil neg pos abs and rand or ror
add radd iadd sub rsub mul rmul truediv rtruediv floordiv rfloordiv mod rmod
"""
_OF_TYPES = "getattribute eq hash bool len iter contains getitem repr str call instancecheck subclasscheck"


class Watch:
    """What the traps and the audit hook report while it is on."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []

    @contextmanager
    def __call__(self) -> Iterator[None]:
        self.seen.clear()
        self.on = True
        try:
            yield
        finally:
            self.on = False


watch = Watch()


def _trapped(base: type, name: str) -> Callable[..., Any]:
    inherited = getattr(base, name, None)

    def trap(self: Any, *arguments: Any, **keywords: Any) -> Any:
        if watch.on:
            watch.seen.append(
                f"{base.__name__} trap: {name}{arguments if name == '__getattribute__' else ''}"
            )
        if inherited is None:
            raise TypeError(f"trap without {name}")
        return inherited(self, *arguments, **keywords)

    return trap


def _traps_for(base: type, names: str) -> dict[str, Any]:
    return {f"__{name}__": _trapped(base, f"__{name}__") for name in names.split()}


TrapType = type("TrapType", (type,), _traps_for(type, _OF_TYPES))


def trap_class(base: type) -> Any:
    return TrapType(f"Trap_{base.__name__}", (base,), _traps_for(base, _SPECIAL))


def traps() -> list[Any]:
    """One value of a class of our own on each plain type, and on `object`."""
    seeds: list[tuple[type, tuple[Any, ...]]] = [
        (object, ()),
        (dict, ({"key": 1},)),
        (list, ([1, 2],)),
        (tuple, ((1, 2),)),
        (str, ("key",)),
        (int, (3,)),
        (float, (3.5,)),
        (Exception, ("key",)),
    ]
    return [trap_class(base)(*arguments) for base, arguments in seeds]


TRAPS = traps()
TRAP_IDS = frozenset(map(id, TRAPS))


def is_plain_or_handed_through(value: Any, depth: int = 0) -> bool:
    if id(value) in TRAP_IDS or depth > 50:
        return True
    if not any(type(value) is kind for kind in PLAIN):
        return False
    if type(value) is dict:
        return all(is_plain_or_handed_through(each, depth + 1) for each in value.values())
    return type(value) not in (list, tuple) or all(
        is_plain_or_handed_through(each, depth + 1) for each in value
    )


def outcome(text: str, values: dict[str, Any]) -> str | None:
    """How an evaluation ended, or None if it ended as it may not."""
    try:
        with watch():
            value = expressions.compile(text)(values)
    except ExpressionError as error:
        return "refused" if 1 <= error.column <= len(text) + 1 else None
    return "value" if is_plain_or_handed_through(value) else None


# ---- generated texts

NAMES = ["a", "b", "c", "d"]
_atoms = st.one_of(
    st.sampled_from(NAMES),
    st.integers(0, 50).map(str),
    st.floats(0, 50, allow_nan=False).map(repr),
    st.sampled_from(["'key'", "'a'", "'12'", "''", "'Ab c'", "None", "True", "False", "[]"]),
)
_operators = st.sampled_from(
    ["and", "or", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "+", "-", "*", "/", "//", "%"]
)
_shared_with_python = st.sampled_from(
    ["len", "int", "float", "str", "bool", "abs", "round", "min", "max", "sum", "any"]
)


def _larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, _operators, inner).map(lambda parts: "({} {} {})".format(*parts)),
        st.tuples(inner, inner, inner).map(lambda parts: "({} < {} < {})".format(*parts)),
        st.tuples(inner, inner, inner).map(lambda parts: "({} if {} else {})".format(*parts)),
        st.tuples(inner, inner).map(lambda parts: "{}[{}]".format(*parts)),
        st.tuples(inner, inner, inner).map(lambda parts: "{}[{}:{}]".format(*parts)),
        inner.map(lambda part: f"(not {part})"),
        inner.map(lambda part: f"(-{part})"),
        inner.map(lambda part: f"({part} is None)"),
        st.lists(inner, max_size=3).map(lambda parts: f"[{', '.join(parts)}]"),
        st.tuples(_shared_with_python, inner).map(lambda parts: "{}({})".format(*parts)),
        st.tuples(_shared_with_python, inner, inner).map(lambda parts: "{}({}, {})".format(*parts)),
    )


python_texts = st.recursive(_atoms, _larger, max_leaves=12)
own_texts = st.recursive(
    _atoms,
    lambda inner: st.one_of(
        _larger(inner),
        inner.map(lambda part: f"({part}).key"),
        st.tuples(st.sampled_from(sorted(functions.FUNCTIONS)), st.lists(inner, min_size=1, max_size=3)).map(
            lambda parts: f"{parts[0]}({', '.join(parts[1])})"
        ),
    ),
    max_leaves=12,
)

_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-50, 50),
    st.floats(),
    st.sampled_from(["", "a", "key", "12", "Ab c"]),
)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.sampled_from(["key", "a", "b"]), inner, max_size=3),
    )


plain_values = st.recursive(_scalars, _containers, max_leaves=6)
any_values = st.recursive(
    _scalars | st.sampled_from(range(len(TRAPS))).map(TRAPS.__getitem__), _containers, max_leaves=6
)
# Many texts have no value, and how many of the first ones is chance.
_checks = [HealthCheck.too_slow, HealthCheck.filter_too_much]
many = settings(max_examples=300, deadline=None, suppress_health_check=_checks)


@many
@given(text=st.text(max_size=60) | st.text("abdkey01. '\"()[]<>=+-*/%,:\\nand orinoif\n", max_size=60))
def test_any_text_is_compiled_or_refused(text: str) -> None:
    assert outcome(text, dict.fromkeys(NAMES, 1)) is not None


@many
@given(text=own_texts, values=st.fixed_dictionaries(dict.fromkeys(NAMES, any_values)))
def test_no_value_is_asked_for_anything_but_its_type(text: str, values: dict[str, Any]) -> None:
    assert outcome(text, values) is not None
    assert watch.seen == []


@many
@given(text=python_texts, values=st.fixed_dictionaries(dict.fromkeys(NAMES, plain_values)))
@example(text="(a < b < c)", values={"a": 1, "b": 2, "c": 3})
@example(text="(a in [a])", values={"a": float("nan")})
@example(text="str([a, b])", values={"a": {"key": (1,)}, "b": "it's"})
def test_what_has_a_value_has_the_value_that_python_gives(text: str, values: dict[str, Any]) -> None:
    try:
        value = expressions.compile(text)(values)
    except ExpressionError:
        assume(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = eval(text, dict(values))
    assert (type(value), repr(value)) == (type(expected), repr(expected))


@many
@given(st.text(max_size=6))
def test_a_name_reads_the_value_of_that_very_name(name: str) -> None:
    try:
        value = expressions.compile(name)({name: "found"})
    except ExpressionError:
        assert (
            not name.isidentifier() or name.startswith("__") or keyword.iskeyword(name) or not name.isascii()
        )
    else:
        assert value == "found" or not name.isidentifier() or keyword.iskeyword(name)


# ---- mutated texts, in a process of their own

HONEST = [
    "data.value > 10 and state.count < 3",
    "wind > 8 and precipitation > 20",
    "date[0:7]",
    "'red' in data.tags or data['key'] is not None",
    "round(sum([1, 2.5]) / len(data.tags), 2) if has(data.tags) else -1",
    "get(data, 'key', [1, 'a']) == state.rows[0]",
    "lower(strip(name)) + str(data) + 'x'",
    "not any([trap, data.trap]) and min(1, 2) <= max(data.rows) < 10 // 3 % 2",
    "contains(split(name, ','), 'a') and startswith(name, 'b')",
    "trap == data.trap or trap in [trap.key, -trap]",
    "[trap, name, len(data)]",
    "not trap or (1 if trap and trap else 2)",
    "data.key.key",
    "trap",
]
WORDS = r"""
and or not in is if else None True lambda for yield await import from exec eval getattr type object
data state trap key name tags rows len get has str int max split sum any __class__ __init__ __globals__
== != ** // := ... 0 1 -1 9999999999 1e308 0x1f 1_0 .5 'a' "b" f'{a}' b'' \\x00
trap trap.key data.trap trap[0] trap() [trap] (trap) trap+trap -trap trap<1 trap==trap
"""
PIECES = [*WORDS.split(), *"()[].,:+-*/%<>=!'\"\\_#@{}; \n\t\0\u202e\u1d49\uff47\xa0"]
TOKEN = re.compile(r"\w+|'[^']*'|[<>=!]=|//|\s+|.", re.DOTALL)


def mutated(text: str, others: list[str], chance: random.Random) -> str:
    """Some tokens exchanged, so that much of it is still an expression, and now and then some characters."""
    tokens = TOKEN.findall(text)
    for _ in range(chance.choice([0, 1, 1, 2, 3])):
        place = chance.randrange(len(tokens))
        other = TOKEN.findall(chance.choice(others))
        tokens[place] = chance.choice(
            ["", chance.choice(PIECES), chance.choice(other), tokens[place] * 2, f"({tokens[place]})", "trap"]
        )
    text = "".join(tokens)
    if chance.random() < 0.2:
        place = chance.randrange(len(text) + 1)
        text = text[:place] + chance.choice(PIECES) + text[place + chance.randint(0, 3) :]
    return text


def filled(trap: Any, chance: random.Random) -> dict[str, Any]:
    row = {
        "value": 12,
        "key": trap,
        "trap": trap,
        "tags": ["red", trap],
        "rows": [1, 2.5, 3],
        "nested": {"key": trap},
    }
    keyed = {trap_class(object)(): trap, "key": 1, 2: "two"}
    return {
        "data": chance.choice([row, keyed, trap]),
        "state": {"count": 2, "rows": [row, keyed]},
        "trap": trap,
        "name": chance.choice(["Ada,b", trap]),
        "wind": 9.5,
        "precipitation": 30.1,
        "date": "2012-01-31",
    }


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    # The parser is Python's: compiling the text to a tree is the one thing that is asked of the interpreter.
    if watch.on and event != "compile":
        watch.seen.append(f"audit: {event}")
    elif watch.on and arguments[1] != "<unknown>":
        watch.seen.append(f"audit: compile {arguments[1]}")


def run_mutations(seed: int, cases: int) -> dict[str, Any]:
    payloads = [
        json.loads(line.split("\t")[3]) for line in PAYLOADS.read_text("utf-8").splitlines() if line[0] != "#"
    ]
    bases = [*HONEST * 8, *(text for text in payloads if len(text) < 1_000)]
    chance = random.Random(seed)
    outcome("lenn(a) > 1", {})  # what is imported for the first message is imported now
    sys.addaudithook(_audit)
    ends = {"value": 0, "refused": 0}
    violations: list[str] = []
    for _ in range(cases):
        text, trap = mutated(chance.choice(bases), bases, chance), chance.choice([*TRAPS, *[7] * len(TRAPS)])
        values = filled(trap, chance)
        try:
            end = outcome(text, values)
        except BaseException as error:  # anything but an ExpressionError is what is looked for
            violations.append(f"{text!r}: {type(error).__name__} {watch.seen}")
            continue
        if end is None or watch.seen:
            violations.append(f"{text!r}: {watch.seen or 'a value that is not plain'}")
        else:
            ends[end] += 1
    return {"seed": seed, **ends, "violations": violations[:20]}


def _reads_attributes(self: Any, node: Any, _at: Any) -> Any:
    owner_of, key = self.build(node.value), node.attr
    return lambda values, steps: getattr(owner_of(values, steps), key, None)


def _opens_a_file(*_: Any) -> int:
    with open(__file__, encoding="utf-8"):
        return 0


def plant(fault: str) -> None:
    match fault:
        case "attribute":
            compiler._Compiler._attribute = _reads_attributes  # type: ignore[method-assign]
        case "truth":
            compiler.truth = lambda value, at: bool(value)  # type: ignore[attr-defined]
        case "equality":
            comparison.is_scalar = lambda value: True  # type: ignore[attr-defined]
        case "file":
            functions.FUNCTIONS["len"] = functions.Function("len(x)", 1, 1, _opens_a_file)
        case _:
            assert not fault


def mutation_run(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, __file__, *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    result: dict[str, Any] = json.loads(finished.stdout)
    return result


def test_mutated_texts_reach_nothing() -> None:
    result = mutation_run("--seed", "20240229", "--cases", "20000")
    assert result["violations"] == [], result
    assert min(result["value"], result["refused"]) > 500


@pytest.mark.parametrize(
    ("fault", "report"),
    [
        ("attribute", "object trap: __getattribute__"),
        ("truth", "trap: __bool__"),
        ("equality", "trap: __eq__"),
        ("file", "audit: open"),
    ],
)
def test_a_planted_fault_is_seen(fault: str, report: str) -> None:
    result = mutation_run("--seed", "1", "--cases", "1500", "--fault", fault)
    assert any(report in each for each in result["violations"]), result


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Evaluate mutated expressions on traps and print what was seen."
    )
    parser.add_argument("--seed", type=int, default=random.randrange(10**9))
    parser.add_argument("--cases", type=int, default=50_000)
    parser.add_argument("--fault", default="")
    arguments = parser.parse_args()
    plant(arguments.fault)
    print(json.dumps(run_mutations(arguments.seed, arguments.cases)))


if __name__ == "__main__":
    main()
