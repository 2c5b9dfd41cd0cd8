"""From text to closures: each node of the tree that is on the list becomes a function of values and steps."""

from __future__ import annotations

import ast
import keyword
import operator
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from routilux.expressions.access import MISSING, element, find, holds, lacks, no_key, no_name, part
from routilux.expressions.calculation import add, calculation, negated
from routilux.expressions.comparison import equal, ordering, unequal
from routilux.expressions.functions import FUNCTIONS, Function
from routilux.expressions.limits import MAX_DEPTH, MAX_NODES
from routilux.expressions.plain import Operation, Steps, Value, bounded_number, truth
from routilux.expressions.problem import ExpressionError, Place, lines, shortened, suggestion
from routilux.expressions.scanner import scan

Run: TypeAlias = Callable[[dict[str, Value], Steps], Value]

_COMPARISONS: Final[dict[type[ast.cmpop], Operation]] = {
    ast.Eq: equal,
    ast.NotEq: unequal,
    ast.Lt: ordering(operator.lt),
    ast.LtE: ordering(operator.le),
    ast.Gt: ordering(operator.gt),
    ast.GtE: ordering(operator.ge),
    ast.In: holds,
    ast.NotIn: lacks,
}
_CALCULATIONS: Final[dict[type[ast.operator], Operation]] = {
    ast.Add: add,
    ast.Sub: calculation("subtract", operator.sub),
    ast.Mult: calculation("multiply", operator.mul),
    ast.Div: calculation("divide", operator.truediv),
    ast.FloorDiv: calculation("divide", operator.floordiv),
    ast.Mod: calculation("take the remainder of", operator.mod),
}
_LITERALS: Final = {"true": "True", "false": "False", "null": "None", "none": "None"}
_WORDS: Final = frozenset({"and", "or", "not", "in", "is", "if", "else", "None", "True", "False"})
_REFUSALS: Final[dict[type[ast.AST], tuple[str, str]]] = {
    ast.Lambda: ("a lambda", "write the rule as one expression"),
    ast.ListComp: ("a comprehension", "use the routines filter, map and reduce"),
    ast.GeneratorExp: ("a comprehension", "use the routines filter, map and reduce"),
    ast.Tuple: ("a tuple", "write a list: [a, b]"),
    ast.Starred: ("a starred value", "write the elements out"),
    ast.Await: ("await", "an expression is evaluated at once"),
    ast.Yield: ("yield", "an expression is evaluated at once"),
    ast.YieldFrom: ("yield", "an expression is evaluated at once"),
}


def compiled(text: str, known: frozenset[str] | None) -> tuple[frozenset[str], Run]:
    """The names that the text reads, and what evaluates it."""
    source = scan(text)
    compiler = _Compiler(text, source, known)
    run = compiler.build(_parsed(text, source))
    return frozenset(compiler.names), run


def _parsed(text: str, source: str) -> ast.expr:
    try:
        return ast.parse(source.strip(), mode="eval").body
    except SyntaxError as error:
        raise _syntax_error(text, source, error) from None
    except (ValueError, OverflowError, MemoryError, RecursionError) as error:
        problem = f"Python's parser refuses this: {type(error).__name__}"
        raise ExpressionError(problem, text, 1, "write a shorter expression") from None


def _syntax_error(text: str, source: str, error: SyntaxError) -> ExpressionError:
    if not error.offset:
        end = len(source.rstrip()) + 1
        return ExpressionError(
            "the expression ends too early", text, end, "add what follows, or take the end away"
        )
    column = min(error.offset + len(source) - len(source.lstrip()), len(text) + 1)
    return ExpressionError(f"this is not an expression: {error.msg}", text, column, _syntax_fix(text, column))


def _syntax_fix(text: str, column: int) -> str:
    word = text[column - 1 :].split(maxsplit=1)[:1]
    if word and keyword.iskeyword(word[0]) and word[0] not in _WORDS:
        return f"{word[0]} is a word of Python; for a key of that name: x[{word[0]!r}]"
    return "expected one expression, such as data.value > 10 and state.count < 3"


class _Compiler:
    """One pass over one tree: counts its nodes, gathers the names, and builds the closures."""

    def __init__(self, text: str, source: str, known: frozenset[str] | None) -> None:
        self.names: set[str] = set()
        self._text = text
        self._indent = len(source) - len(source.lstrip())
        self._bytes = source.strip().encode()
        self._known = known
        self._nodes = 0
        self._depth = 0
        self._builders: dict[type[ast.AST], Callable[[Any, Place], Run]] = {
            ast.Attribute: self._attribute,
            ast.BinOp: self._binary,
            ast.BoolOp: self._boolean,
            ast.Call: self._call,
            ast.Compare: self._comparison,
            ast.Constant: self._constant,
            ast.IfExp: self._conditional,
            ast.List: self._list,
            ast.Name: self._name,
            ast.Subscript: self._subscript,
            ast.UnaryOp: self._unary,
        }

    def build(self, node: ast.expr) -> Run:
        at = self._enter(node)
        builder = self._builders.get(type(node))
        if builder is None:
            what, fix = _REFUSALS.get(type(node), (type(node).__name__, ""))
            raise at.error(f"{what} is not part of the language", fix)
        run = builder(node, at)
        self._depth -= 1
        return run

    def _enter(self, node: ast.expr) -> Place:
        at = self._place(node.col_offset)
        self._nodes += 1
        self._depth += 1
        if self._nodes > MAX_NODES:
            raise at.error(f"the expression has more than {MAX_NODES} parts", "split it, or write a routine")
        if self._depth > MAX_DEPTH:
            raise at.error(
                f"the expression is nested deeper than {MAX_DEPTH}", "split it, or write a routine"
            )
        return at

    def _place(self, offset: int) -> Place:
        """The parser counts bytes of UTF-8 from the first character that is no blank."""
        return Place(self._text, self._indent + len(self._bytes[:offset].decode()) + 1)

    # ---- reading values

    def _constant(self, node: ast.Constant, at: Place) -> Run:
        value = node.value
        if type(value) is int or type(value) is float:
            bounded_number(value, at)
        elif value is not None and type(value) is not bool and type(value) is not str:
            raise at.error(f"a literal of type {type(value).__name__} is not part of the language")
        return lambda _values, _steps: value

    def _name(self, node: ast.Name, at: Place) -> Run:
        name = node.id
        self._admit_name(name, at)

        def read(values: dict[str, Value], _steps: Steps) -> Value:
            try:
                return values[name]
            except KeyError:
                raise no_name(name, values, at) from None

        return read

    def _admit_name(self, name: str, at: Place) -> None:
        if self._known is not None and name not in self._known:
            literal = _LITERALS.get(name.lower())
            call = f"to call the function: {FUNCTIONS[name].usage}" if name in FUNCTIONS else ""
            fix = f"write {literal}" if literal else lines(suggestion(name, sorted(self._known)), call)
            raise at.error(f"there is no value named {shortened(name)} here", fix)
        self.names.add(name)

    def _attribute(self, node: ast.Attribute, _at: Place) -> Run:
        owner_of, key, at = self.build(node.value), node.attr, self._key_place(node)

        def read(values: dict[str, Value], steps: Steps) -> Value:
            owner = owner_of(values, steps)
            if type(owner) is dict:
                try:
                    return owner[key]
                except KeyError:
                    pass
            raise no_key(owner, key, at)

        return read

    def _key_place(self, node: ast.Attribute) -> Place:
        at = self._place((node.end_col_offset or 0) - len(node.attr.encode()))
        if node.attr.startswith("_"):
            raise at.error(f"the key {shortened(node.attr)} is refused after a dot", f"write [{node.attr!r}]")
        return at

    def _subscript(self, node: ast.Subscript, _at: Place) -> Run:
        owner_of, at = self.build(node.value), self._place(node.slice.col_offset)
        if isinstance(node.slice, ast.Slice):
            return self._slice(owner_of, node.slice, at)
        key_of = self.build(node.slice)
        return lambda values, steps: element(owner_of(values, steps), key_of(values, steps), at)

    def _slice(self, owner_of: Run, node: ast.Slice, at: Place) -> Run:
        if node.step is not None:
            raise at.error("slices have no step", "write x[start:stop]")
        start_of = self.build(node.lower) if node.lower else _none
        stop_of = self.build(node.upper) if node.upper else _none
        return lambda values, steps: part(
            owner_of(values, steps), start_of(values, steps), stop_of(values, steps), steps, at
        )

    def _list(self, node: ast.List, _at: Place) -> Run:
        elements = tuple(map(self.build, node.elts))
        return lambda values, steps: [element_of(values, steps) for element_of in elements]

    # ---- operators

    def _boolean(self, node: ast.BoolOp, _at: Place) -> Run:
        *parts, last = [(self.build(each), self._place(each.col_offset)) for each in node.values]
        deciding = isinstance(node.op, ast.Or)
        first_parts, last_part = tuple(parts), last[0]

        def decide(values: dict[str, Value], steps: Steps) -> Value:
            for part_of, at in first_parts:
                value = part_of(values, steps)
                if (value if type(value) is bool else truth(value, at)) is deciding:
                    return value
            return last_part(values, steps)

        return decide

    def _unary(self, node: ast.UnaryOp, at: Place) -> Run:
        if not isinstance(node.op, ast.Not | ast.USub):
            raise at.error("a sign + is not part of the language", "leave it out")
        value_of, of = self.build(node.operand), self._place(node.operand.col_offset)
        if isinstance(node.op, ast.Not):
            return lambda values, steps: not truth(value_of(values, steps), of)
        return lambda values, steps: negated(value_of(values, steps), of)

    def _binary(self, node: ast.BinOp, at: Place) -> Run:
        calculate = _CALCULATIONS.get(type(node.op))
        if calculate is None:
            raise at.error(f"the operator {type(node.op).__name__} is not part of the language")
        if calculate is not add and (_is_text(node.left) or _is_text(node.right)):
            raise at.error("the only operator on text is +", "convert it with float(x) or int(x)")
        left_of, right_of = self.build(node.left), self.build(node.right)
        return lambda values, steps: calculate(left_of(values, steps), right_of(values, steps), steps, at)

    def _conditional(self, node: ast.IfExp, _at: Place) -> Run:
        test_of, at = self.build(node.test), self._place(node.test.col_offset)
        one, other = self.build(node.body), self.build(node.orelse)
        return lambda values, steps: (one if truth(test_of(values, steps), at) else other)(values, steps)

    def _comparison(self, node: ast.Compare, at: Place) -> Run:
        if any(isinstance(op, ast.Is | ast.IsNot) for op in node.ops):
            return self._identity(node, at)
        left_of = self.build(node.left)
        operations = [_COMPARISONS[type(op)] for op in node.ops]
        links = tuple(zip(operations, map(self.build, node.comparators), strict=True))
        if len(links) > 1:
            return _chain(left_of, links, at)
        compare, right_of = links[0]
        return lambda values, steps: compare(left_of(values, steps), right_of(values, steps), steps, at)

    def _identity(self, node: ast.Compare, at: Place) -> Run:
        right = node.comparators[0]
        if len(node.ops) > 1 or not isinstance(right, ast.Constant) or right.value is not None:
            raise at.error("is compares with None only", "write ==, or x is None")
        value_of, negative = self.build(node.left), isinstance(node.ops[0], ast.IsNot)
        return lambda values, steps: (value_of(values, steps) is None) is not negative

    # ---- functions

    def _call(self, node: ast.Call, at: Place) -> Run:
        name = _called_name(node, at)
        function = FUNCTIONS[name]
        _check_arguments(node, function, at)
        if name == "has" and len(node.args) == 1:
            probe = self._probe(node.args[0])
            return lambda values, steps: probe(values, steps) is not MISSING
        arguments, run = tuple(map(self.build, node.args)), function.run
        return lambda values, steps: run(at, steps, *[argument(values, steps) for argument in arguments])

    def _probe(self, node: ast.expr) -> Run:
        """What reads the path of `has(x.key)`, and gives `MISSING` where it ends."""
        at = self._enter(node)
        if isinstance(node, ast.Name):
            probe = self._probe_name(node.id, at)
        elif isinstance(node, ast.Attribute):
            probe = _probe_key(self._probe(node.value), node.attr, self._key_place(node))
        elif isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Slice):
            place = self._place(node.slice.col_offset)
            probe = _probe_element(self._probe(node.value), self.build(node.slice), place)
        else:
            raise at.error("has looks for a path", "write has(x.key), has(x[0]) or has(x, key)")
        self._depth -= 1
        return probe

    def _probe_name(self, name: str, at: Place) -> Run:
        self._admit_name(name, at)
        return lambda values, _steps: values.get(name, MISSING)


def _called_name(node: ast.Call, at: Place) -> str:
    if not isinstance(node.func, ast.Name):
        raise at.error("values are not called", "call a function by its name: lower(x), not x.lower()")
    name = node.func.id
    if name not in FUNCTIONS:
        fix = lines(suggestion(name, sorted(FUNCTIONS)), f"functions: {' '.join(sorted(FUNCTIONS))}")
        raise at.error(f"there is no function {shortened(name)}", fix)
    return name


def _check_arguments(node: ast.Call, function: Function, at: Place) -> None:
    if node.keywords:
        raise at.error("arguments have no names", f"write {function.usage}")
    if not function.least <= len(node.args) <= function.most:
        raise at.error(
            f"the function takes other arguments than these {len(node.args)}", f"write {function.usage}"
        )


def _probe_key(probe_owner: Run, key: str, at: Place) -> Run:
    def probe(values: dict[str, Value], steps: Steps) -> Value:
        owner = probe_owner(values, steps)
        if owner is None or owner is MISSING:
            return MISSING
        if type(owner) is not dict:
            raise no_key(owner, key, at)
        return owner.get(key, MISSING)

    return probe


def _probe_element(probe_owner: Run, key_of: Run, at: Place) -> Run:
    def probe(values: dict[str, Value], steps: Steps) -> Value:
        owner = probe_owner(values, steps)
        return MISSING if owner is None or owner is MISSING else find(owner, key_of(values, steps), at)

    return probe


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is str


def _none(_values: dict[str, Value], _steps: Steps) -> None:
    return None


def _chain(left_of: Run, links: tuple[tuple[Operation, Run], ...], at: Place) -> Run:
    """`a < b < c`: each value is computed once, and none after the first link that fails."""

    def compare(values: dict[str, Value], steps: Steps) -> Value:
        left = left_of(values, steps)
        for operation, right_of in links:
            right = right_of(values, steps)
            if not operation(left, right, steps, at):
                return False
            left = right
        return True

    return compare
