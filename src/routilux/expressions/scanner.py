"""The lexical gate: what is not a token of the language never reaches Python's parser.

It exists because that parser does more than the language wants: it folds look-alike letters into ASCII names
(NFKC), warns about escapes and numerals, looks up names of characters, runs deep on nested brackets and reads
comments. After this gate a text consists of plain names, plain literals and known operators, with matching
brackets, and nothing else.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final, NamedTuple

from routilux.expressions.limits import MAX_CHARACTERS, MAX_DEPTH
from routilux.expressions.problem import ExpressionError, Place, shortened

# Control characters, line separators, half characters, and marks that make a text look like another one.
_HIDDEN: Final = re.compile(
    r"[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)

_TOKEN: Final = re.compile(
    r"""
      (?P<blank>    [ \t\r\n]+ )
    | (?P<number>   0[xX][0-9a-fA-F]+ | (?: [0-9]+(?:_[0-9]+)*\.?[0-9]* | \.[0-9]+ )(?: [eE][+-]?[0-9]+ )? )
    | (?P<name>     [^\W\d](?: \w | [^\x00-\x7f] )* )
    | (?P<text>     '(?: [^'\\\r\n] | \\. )*' | "(?: [^"\\\r\n] | \\. )*" )
    | (?P<refused>  \*\* | := | << | >> | -> | && | \|\| )
    | (?P<operator> == | != | <= | >= | // | [-+*/%<>()\[\],.:] )
    """,
    re.VERBOSE,
)
# Halves of surrogate pairs have no escape: such a text could not be written to any store.
_ESCAPE: Final = re.compile(
    r"""\\(?:[\\'"nrt]|x[0-9a-fA-F]{2}|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}|U(?!0000[dD][89a-fA-F])[0-9a-fA-F]{8})"""
)
_WORD: Final = re.compile(r"\w")
_BLANKS: Final = " \t\r\n"
_QUOTES: Final = "'\""
_BRACKETS: Final = {"(": ")", "[": "]"}

_STRAIGHT: Final = "write straight quotes"
_FIXES: Final = {
    "=": "write == to compare; an expression assigns nothing, and arguments have no names",
    ":=": "an expression assigns nothing",
    "**": "write a multiplication; powers are left out because they can grow without bound",
    "&&": "write and",
    "||": "write or",
    "&": "write and",
    "|": "write or",
    "!": "write not, or != to compare",
    "#": "leave comments out of the expression",
    ";": "write one expression",
    "{": "write a list [a, b] instead, and read values with .key or [key]",
    "$": "write the bare name",
    "\u201c": _STRAIGHT,
    "\u201d": _STRAIGHT,
    "\u2018": _STRAIGHT,
    "\u2019": _STRAIGHT,
    "'": "close the text with the same quote, on the same line",
    '"': "close the text with the same quote, on the same line",
}


class Token(NamedTuple):
    kind: str
    text: str
    start: int
    end: int


def scan(text: str) -> str:
    """The text with line breaks as blanks, in the same columns, or `ExpressionError`."""
    _check_characters(text)
    open_brackets: list[Token] = []
    for token in _tokens(text):
        if token.kind == "operator":
            _follow_bracket(token, open_brackets, text)
        else:
            _check_token(token, text)
    if open_brackets:
        last = open_brackets[-1]
        raise _error(f"this {last.text} is never closed", text, last.start, f"add a {_BRACKETS[last.text]}")
    return text.replace("\r", " ").replace("\n", " ")


def _check_characters(text: str) -> None:
    if len(text) > MAX_CHARACTERS:
        problem = f"an expression has at most {MAX_CHARACTERS:,} characters; this one has {len(text):,}"
        raise _error(problem, text, MAX_CHARACTERS, "move the rule into a routine of your own")
    hidden = _HIDDEN.search(text)
    if hidden:
        code = f"U+{ord(hidden[0]):04X}"
        fix = f"inside a text, write it as '\\u{ord(hidden[0]):04x}'"
        raise _error(f"the invisible character {code} is not allowed", text, hidden.start(), fix)
    if not text.strip(_BLANKS):
        raise _error("the expression is empty", text, 0, "write a condition such as data.value > 10")


def _tokens(text: str) -> Iterator[Token]:
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup == "refused":
            symbol = match[0] if match else text[position]
            raise _error(f"{symbol} is not part of the language", text, position, _FIXES.get(symbol, ""))
        position = match.end()
        yield Token(match.lastgroup or "", match[0], match.start(), position)


def _follow_bracket(token: Token, open_brackets: list[Token], text: str) -> None:
    if token.text in _BRACKETS:
        open_brackets.append(token)
        if len(open_brackets) > MAX_DEPTH:
            raise _error(
                f"brackets are nested deeper than {MAX_DEPTH}", text, token.start, "split the rule in two"
            )
    elif token.text in _BRACKETS.values() and (
        not open_brackets or _BRACKETS[open_brackets.pop().text] != token.text
    ):
        raise _error(f"this {token.text} closes nothing", text, token.start, "take it away or open it before")


def _check_token(token: Token, text: str) -> None:
    following = text[token.end : token.end + 1]
    if token.kind == "name":
        _check_name(token, following, text)
    elif token.kind == "number":
        _check_number(token, following, text)
    elif token.kind == "text":
        _check_text(token, text)


def _check_name(token: Token, following: str, text: str) -> None:
    name, start = token.text, token.start
    if name.startswith("__"):
        problem = f"the name {shortened(name)} is refused, as is every name with two leading underscores"
        raise _error(problem, text, start, f"for a key of that name: x[{shortened(name)}]")
    if not name.isidentifier():
        raise _error(
            f"{shortened(name)} is not a name", text, start, f"for a key of that name: x[{shortened(name)}]"
        )
    plain = unicodedata.normalize("NFKC", name)
    if name != plain:
        problem = f"the name {shortened(name)} is written with look-alike letters"
        raise _error(
            problem, text, start, f"write {shortened(plain)}, or for a key of that name: x[{shortened(name)}]"
        )
    if following and following in _QUOTES:
        problem = "texts with a prefix are not part of the language"
        raise _error(problem, text, start, "write the text without a letter in front of its quote")


def _check_number(token: Token, following: str, text: str) -> None:
    if following == "." or _WORD.match(following):
        problem = f"{shortened(token.text + following)} is neither a number nor a name"
        raise _error(problem, text, token.start, "write a blank after the number, or quote it if it is text")


def _check_text(token: Token, text: str) -> None:
    # In a triple quote Python would read other tokens than this gate; with a blank, a comma was forgotten.
    following = text[token.end :].lstrip(_BLANKS)
    if following and following[0] in _QUOTES:
        start = len(text) - len(following)
        raise _error("two texts stand side by side", text, start, "put + or a comma between them")
    rest = _ESCAPE.sub(lambda escape: "_" * len(escape[0]), token.text)
    unknown = rest.find("\\")
    if unknown >= 0:
        fix = r"escapes are \\ \' \" \n \r \t \xhh \uhhhh; write \\ for a backslash"
        raise _error(f"unknown escape {rest[unknown : unknown + 2]}", text, token.start + unknown, fix)


def _error(problem: str, text: str, position: int, fix: str) -> ExpressionError:
    return Place(text, position + 1).error(problem, fix)
