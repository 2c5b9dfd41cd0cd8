"""Strict JSON as a tree: duplicate keys, NaN and what else the standard library lets pass are problems here."""

from __future__ import annotations

import re
from json import JSONDecodeError, JSONDecoder
from typing import Any, Final, NoReturn

from routilux.dsl.nodes import MAX_INTEGER, Bad, Node, Tree
from routilux.dsl.problems import Place, Report, value
from routilux.dsl.text import place_of

_BLANK: Final = re.compile(r"[ \t\r\n]*")
_NUMBER: Final = re.compile(r"(-?(?:0|[1-9][0-9]*))(\.[0-9]+)?([eE][-+]?[0-9]+)?(?![0-9A-Za-z_.+-])")
_WORD: Final = re.compile(r"[A-Za-z_+\-.0-9]+")
_WORDS: Final = {"true": True, "false": False, "null": None}
_decode: Final = JSONDecoder().raw_decode  # only ever called at a quote
_MOST_DIGITS: Final = len(str(MAX_INTEGER)) + 1


def read_json(text: str, report: Report) -> Node:
    """The tree of a text; ``DslError`` if there is none. What can wait is in the report."""
    reader = _Reader(text, Tree(report))
    reader.read()
    assert reader.tree.root is not None
    return reader.tree.root


class _Reader:
    """A loop with a stack of the brackets that are open."""

    def __init__(self, text: str, tree: Tree) -> None:
        self.text, self.tree = text, tree
        self.at = 0
        self.line, self.line_start = 1, 0
        self.open: list[str] = []

    def read(self) -> None:
        self._value()
        while self.open:
            self._after_value()
        self._blanks()
        if self.at < len(self.text):
            self._stop("expected the end of the text after the value")

    def _value(self) -> None:
        """One value; of a list or mapping that is not empty only the beginning, up to its first value."""
        while True:
            self._blanks()
            sign, place = self.text[self.at : self.at + 1], self._place()
            if sign not in ("{", "["):
                self.tree.scalar(self._scalar(sign, place), place)
                return
            self.tree.open(dict if sign == "{" else list, place)
            self.at += 1
            self._blanks()
            closing = "}" if sign == "{" else "]"
            if self.text.startswith(closing, self.at):
                self.at += 1
                self.tree.close()
                return
            self.open.append(closing)
            if sign == "{":
                self._key()

    def _after_value(self) -> None:
        self._blanks()
        sign = self.text[self.at : self.at + 1]
        if sign == self.open[-1]:
            self.at += 1
            self.open.pop()
            self.tree.close()
        elif sign == ",":
            self.at += 1
            if self.open[-1] == "}":
                self._key()
            self._value()
        else:
            self._stop(f"expected ',' or {self.open[-1]!r}, got {self._found()}")

    def _key(self) -> None:
        self._blanks()
        place = self._place()
        if not self.text.startswith('"', self.at):
            self._stop(f"expected a key in double quotes, got {self._found()}")
        self.tree.scalar(self._string(), place)
        self._blanks()
        if not self.text.startswith(":", self.at):
            self._stop(f"expected ':' after the key, got {self._found()}")
        self.at += 1

    def _scalar(self, sign: str, place: Place) -> Any:
        if sign == '"':
            return self._string()
        number = _NUMBER.match(self.text, self.at)
        if number:
            self.at = number.end()
            return self._number(number, place)
        word = _WORD.match(self.text, self.at)
        if word is None or word[0] not in _WORDS:
            self._stop(f"expected a value, got {self._found()}")
        self.at = word.end()
        return _WORDS[word[0]]

    def _number(self, found: re.Match[str], place: Place) -> Any:
        whole, fraction, exponent = found.groups()
        if fraction or exponent:
            return float(found[0])
        if len(whole) > _MOST_DIGITS:
            self.tree.problem(
                "number-out-of-range", place, f"number out of range: {value(found[0])}", "quote it"
            )
            return Bad()
        return int(whole)

    def _string(self) -> str:
        try:
            text, self.at = _decode(self.text, self.at)
        except JSONDecodeError as error:
            self.at = error.pos
            self._stop(f"bad text: {error.msg}")
        return str(text)

    def _blanks(self) -> None:
        end = _BLANK.match(self.text, self.at).end()  # type: ignore[union-attr]
        count = self.text.count("\n", self.at, end)
        if count:
            self.line += count
            self.line_start = self.text.rindex("\n", self.at, end) + 1
        self.at = end

    def _place(self) -> Place:
        return Place(self.line, self.at - self.line_start + 1)

    def _found(self) -> str:
        word = _WORD.match(self.text, self.at)
        return (
            value(word[0] if word else self.text[self.at : self.at + 1])
            if self.at < len(self.text)
            else "the end"
        )

    def _stop(self, message: str) -> NoReturn:
        self.tree.stop("json-syntax", place_of(self.text, self.at), message)
