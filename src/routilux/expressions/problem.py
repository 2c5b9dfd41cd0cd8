"""What is wrong with an expression, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from routilux.errors import ConfigurationError, nearest, shown

_EXCERPT = 100
_LONGEST_NAME = 30


class ExpressionError(ConfigurationError, ValueError):
    """An expression that is refused, when it is compiled or while it is evaluated.

    `text` is the expression as it was given, `column` (from 1) counts its characters; `problem` and `fix` are
    the two halves of the message, for those who lay it out themselves.
    """

    def __init__(self, problem: str, text: str = "", column: int = 1, fix: str = "") -> None:
        head = f"{problem} (column {column})"
        message = "\n".join(filter(None, [head, *_pointed_excerpt(text, column), fix]))
        super().__init__(message, problem=problem, text=text, column=column, fix=fix)

    problem: str
    text: str
    column: int
    fix: str


@dataclass(frozen=True, slots=True)
class Place:
    """A position in an expression; what an operation needs in order to refuse."""

    text: str
    column: int

    def error(self, problem: str, fix: str = "") -> ExpressionError:
        return ExpressionError(problem, self.text, self.column, fix)


def suggestion(name: str, known: Sequence[str]) -> str:
    """The nearest names as a line of a message, or nothing; long names would be dear to compare."""
    short = [each for each in known if len(each) <= _LONGEST_NAME]
    return f"nearest: {', '.join(map(shortened, nearest(name[:_LONGEST_NAME], short)))}" if short else ""


def shortened(text: str) -> str:
    """A text, quoted and cut so that it fits into a message."""
    return shown(text[:50], 40)


def lines(*each: str) -> str:
    return "\n".join(filter(None, each))


def _pointed_excerpt(text: str, column: int) -> list[str]:
    start = max(0, column - 1 - _EXCERPT // 2) if len(text) > _EXCERPT else 0
    excerpt = text[start : start + _EXCERPT]
    visible = "".join(character if character.isprintable() else "·" for character in excerpt)
    return [f"    {visible}", f"    {' ' * (column - 1 - start)}^"] if text else []
