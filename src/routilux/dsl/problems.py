"""What is wrong with a document: every problem with its place, all of them in one error."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from routilux.errors import ConfigurationError, nearest, shown

LONGEST_VALUE = 80  # characters of a value in a message
_EXCERPT = 100
_MOST_PROBLEMS = 100
_WITH_NAMES = 20  # problems
_MOST_COMPARED = 200  # names


class Place(NamedTuple):
    """Line and column, from 1; 0 where there is no text, as in a dict."""

    line: int = 0
    column: int = 0


class Problem(NamedTuple):
    """``code`` is stable; ``path`` is the place in the document, as ``routines.fetch.class``."""

    code: str
    path: str
    message: str
    fix: str = ""
    nearest: tuple[str, ...] = ()
    file: str = ""
    line: int = 0
    column: int = 0
    excerpt: str = ""
    """The line of the text, and below it a caret."""

    def __str__(self) -> str:
        where = ":".join(filter(None, [self.file, str(self.line or ""), str(self.column or "")]))
        new = [name for name in self.nearest if name not in self.message]
        close = f"; nearest: {', '.join(self.nearest)}" if new else ""
        at = f"{self.path}: " if self.path else ""
        head = f"{where}: " if where else ""
        fix = f"\n    fix: {self.fix}" if self.fix else ""
        excerpt = f"\n{self.excerpt}" if self.excerpt else ""
        return f"{head}{at}{self.message}{close} [{self.code}]{excerpt}{fix}"


class DslError(ConfigurationError, ValueError):
    """A document that no flow can be made of; ``problems`` holds everything that was found."""

    problems: Sequence[Problem] = ()


class Report:
    """Collects the problems of one text."""

    def __init__(self, text: str = "", file: str = "") -> None:
        self._lines = text.split("\n") if text else []
        self._file = file
        self._problems: list[Problem] = []

    def add(
        self,
        code: str,
        place: Place,
        path: str,
        message: str,
        fix: str = "",
        near: Sequence[str] = (),
    ) -> None:
        """Take note of a problem; the hundredth ends it with :class:`DslError`."""
        visible = "".join(c if c.isprintable() else "·" for c in path)
        excerpt = self._excerpt(place)
        self._problems.append(Problem(code, visible, message, fix, tuple(near), self._file, *place, excerpt))
        if self.full:
            raise self.error()

    def near(self, name: object, known: Collection[str]) -> tuple[str, ...]:
        """The nearest names, for the first few problems: to compare is dear."""
        if len(self._problems) >= _WITH_NAMES:
            return ()
        names = list(known)
        if len(names) > _MOST_COMPARED:
            alike = [each for each in names if each[:1] == str(name)[:1]]
            names = (alike or names)[:_MOST_COMPARED]
        return tuple(shown(each, 60)[1:-1] for each in nearest(name, names))

    @property
    def full(self) -> bool:
        return len(self._problems) >= _MOST_PROBLEMS

    @property
    def codes(self) -> set[str]:
        return {problem.code for problem in self._problems}

    def raise_if_any(self) -> None:
        if self._problems:
            raise self.error()

    def error(self) -> DslError:
        problems = tuple(sorted(self._problems, key=lambda problem: (problem.line, problem.column)))
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        if self.full:
            count = f"{len(problems)} problems or more"
        listed = "\n".join(map(str, problems))
        return DslError(f"{self._file or 'document'}: {count}\n{listed}", problems=problems)

    def _excerpt(self, place: Place) -> str:
        if not 0 < place.line <= len(self._lines):
            return ""
        line = self._lines[place.line - 1].rstrip("\r")
        start = max(0, place.column - 1 - _EXCERPT // 2) if len(line) > _EXCERPT else 0
        cut = line[start : start + _EXCERPT]
        visible = "".join(character if character.isprintable() else "·" for character in cut)
        margin = f"{place.line:>5} | "
        return f"{margin}{visible}\n{' ' * (len(margin) + place.column - 1 - start)}^"


def value(given: object) -> str:
    """A value for a message, cut and escaped."""
    if given is None or given is True or given is False:
        return {None: "nothing", True: "true", False: "false"}[given]
    return shown(given, LONGEST_VALUE)
