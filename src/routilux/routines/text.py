"""Built-in routines for text: make it, cut it, take it apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from routilux import ConfigurationError
from routilux.activation_policies import ActivationPolicy
from routilux.expressions import ExpressionError
from routilux.routines.formats import code_blocks, json_values, yaml_value
from routilux.routines.patterns import matches, pattern
from routilux.routines.policies import FLUSH, HoldLast
from routilux.routines.settings import (
    Configured,
    EachItem,
    Payload,
    SlotData,
    Unsuitable,
    compiled,
    expression,
    setting,
    text_in,
    value_of,
)

# -- template ----------------------------------------------------------------------------------------------


@lru_cache(maxsize=500)
def template_parts(text: str) -> tuple[tuple[str, str | None], ...]:
    """Pairs of a literal text and the expression behind it; ``{{`` and ``}}`` stand for braces."""
    parts, literal, position = list[tuple[str, str | None]](), "", 0
    while position < len(text):
        sign = text[position]
        if text[position : position + 2] in ("{{", "}}"):
            literal, position = literal + sign, position + 2
        elif sign == "}":
            raise ValueError(f"character {position + 1}: a '}}' that nothing opens; write '}}}}' for a brace")
        elif sign == "{":
            end = text.find("}", position)
            if end < 0:
                raise ValueError(
                    f"character {position + 1}: a '{{' that nothing closes; write '{{{{' for a brace"
                )
            inner = text[position + 1 : end]
            compiled(inner)
            parts.append((literal, inner))
            literal, position = "", end + 1
        else:
            literal, position = literal + sign, position + 1
    return (*parts, (literal, None))


def filled(text: str, payload: Payload) -> str:
    """A template with the values of a payload; text stays as it is, ``None`` is nothing."""
    pieces = []
    for literal, inner in template_parts(text):
        value = None if inner is None else value_of(inner, payload)
        pieces += [literal, "" if value is None else str(value)]
    return "".join(pieces)


@dataclass
class TemplateConfig:
    template: str = setting(
        "the text, with expressions in braces: 'Dear {customer.name}'", check=template_parts
    )
    output: str = setting("the key that the text is put under", default="text", min=1)


class Template(EachItem[TemplateConfig]):
    """Adds a text to the payload, made of a template and the payload's values."""

    config_type = TemplateConfig

    def treat(self, payload: Payload, state: Any) -> None:
        self.emit("output", **{**payload, self.settings.output: filled(self.settings.template, payload)})


# -- clip and split ----------------------------------------------------------------------------------------


@dataclass
class ClipConfig:
    length: int = setting("characters that are left at most, the ending included", min=1)
    field: str = setting("the key that holds the text", default="text", min=1)
    ending: str = setting("what shows that something was cut off", default="…")
    words: bool = setting("do not cut through a word, if one fits", default=True)


class Clip(EachItem[ClipConfig]):
    """Shortens a text; adds ``clipped``, which says whether it was too long."""

    config_type = ClipConfig

    def treat(self, payload: Payload, state: Any) -> None:
        settings = self.settings
        text = text_in(payload, settings.field)
        short = clipped(text, settings.length, settings.ending, settings.words)
        self.emit("output", **{**payload, settings.field: short, "clipped": short != text})


def clipped(text: str, length: int, ending: str, words: bool) -> str:
    if len(text) <= length:
        return text
    room = max(0, length - len(ending))
    short = text[:room]
    if words and not text[room : room + 1].isspace():
        end = max(short.rfind(" "), short.rfind("\n"), short.rfind("\t"))
        short = short[:end] if end > 0 else short
    return (short.rstrip() + ending)[:length]


@dataclass
class SplitTextConfig:
    by: str = setting(
        "what is counted, and never cut through",
        default="characters",
        choices=("characters", "words", "lines", "paragraphs"),
    )
    size: int = setting("how many of them are in a piece", default=1_000, min=1)
    overlap: int = setting("how many of them a piece repeats of the one before", default=0, min=0)
    field: str = setting("the key that holds the text", default="text", min=1)


class SplitText(EachItem[SplitTextConfig]):
    """Emits the pieces of a text, each with the rest of the payload, its ``index`` and the ``count``."""

    config_type = SplitTextConfig

    def declare(self) -> None:
        super().declare()
        self.add_event("empty")

    def prepare(self, settings: SplitTextConfig) -> None:
        if settings.overlap >= settings.size:
            raise ConfigurationError(
                f"overlap {settings.overlap} of split_text must be less than size {settings.size}"
            )

    def treat(self, payload: Payload, state: Any) -> None:
        settings = self.settings
        units, glue = _units(text_in(payload, settings.field), settings.by)
        if not units:
            self.emit("empty", **payload)
            return
        step = settings.size - settings.overlap
        starts = range(0, max(1, len(units) - settings.overlap), step)
        for index, start in enumerate(starts):
            piece = glue.join(units[start : start + settings.size])
            self.emit("output", **{**payload, settings.field: piece, "index": index, "count": len(starts)})


def _units(text: str, by: str) -> tuple[str | list[str], str]:
    match by:
        case "words":
            return text.split(), " "
        case "lines":
            return text.splitlines(), "\n"
        case "paragraphs":
            return list(_paragraphs(text)), "\n\n"
        case _:
            return text, ""


def _paragraphs(text: str) -> Iterator[str]:
    lines: list[str] = []
    for line in [*text.splitlines(), ""]:
        if line.strip():
            lines.append(line)
        elif lines:
            yield "\n".join(lines)
            lines = []


# -- regex_extract -----------------------------------------------------------------------------------------


@dataclass
class RegexExtractConfig:
    pattern: str = setting(
        "what is looked for, in the syntax of RE2, with groups: `(?P<user>\\w+)@(?P<host>\\S+)`",
        check=pattern,
    )
    field: str = setting("the key that holds the text", default="text", min=1)
    all: bool = setting("emit every match on its own, and not only the first", default=False)


class RegexExtract(EachItem[RegexExtractConfig]):
    """Adds what the groups of a pattern match to the payload, in time linear in the text."""

    config_type = RegexExtractConfig

    def declare(self) -> None:
        super().declare()
        self.add_event("unmatched")

    def treat(self, payload: Payload, state: Any) -> None:
        settings = self.settings
        found = 0
        for groups in matches(settings.pattern, text_in(payload, settings.field)):
            found += 1
            self.emit("output", **{**payload, **groups})
            if not settings.all:
                break
        if not found:
            self.emit("unmatched", **payload)


# -- change_case -------------------------------------------------------------------------------------------

_BOUNDARY = re.compile(r"[^\W_]+")


def _words(text: str) -> list[str]:
    """The words of a text or of a name in any case: ``HTTPServer_name`` is http, server, name."""
    return [word.lower() for chunk in _BOUNDARY.findall(text) for word in _humps(chunk)]


def _humps(chunk: str) -> Iterator[str]:
    start = 0
    for at in range(1, len(chunk)):
        after_small = chunk[at].isupper() and not chunk[at - 1].isupper()
        before_small = chunk[at].isupper() and at + 1 < len(chunk) and chunk[at + 1].islower()
        if after_small or before_small:
            yield chunk[start:at]
            start = at
    yield chunk[start:]


def _camel(text: str) -> str:
    first, *rest = _words(text) or [""]
    return first + "".join(word.capitalize() for word in rest)


CASES: Mapping[str, Callable[[str], str]] = {
    "lower": str.lower,
    "upper": str.upper,
    "title": lambda text: " ".join(word.capitalize() for word in text.split(" ")),
    "sentence": lambda text: text[:1].upper() + text[1:].lower(),
    "swap": str.swapcase,
    "snake": lambda text: "_".join(_words(text)),
    "kebab": lambda text: "-".join(_words(text)),
    "camel": _camel,
    "pascal": lambda text: "".join(word.capitalize() for word in _words(text)),
}


@dataclass
class ChangeCaseConfig:
    case: str = setting("the case", choices=tuple(CASES))
    fields: list[str] = setting("the keys that hold the texts", default_factory=lambda: ["text"], min=1)


class ChangeCase(EachItem[ChangeCaseConfig]):
    """Writes texts of the payload in another case."""

    config_type = ChangeCaseConfig

    def treat(self, payload: Payload, state: Any) -> None:
        change = CASES[self.settings.case]
        changed = {name: change(text_in(payload, name)) for name in self.settings.fields}
        self.emit("output", **{**payload, **changed})


# -- extract -----------------------------------------------------------------------------------------------


@dataclass
class ExtractConfig:
    kind: str = setting(
        "what is looked for: a JSON object or list, YAML, or code",
        default="json",
        choices=("json", "yaml", "code"),
    )
    language: str | None = setting("of code blocks, only those of this language", default=None, min=1)
    field: str = setting("the key that holds the text", default="text", min=1)
    output: str = setting("the key that what is found is put under", default="value", min=1)
    all: bool = setting("emit everything that is found, and not only the first", default=False)


class Extract(EachItem[ExtractConfig]):
    """Finds JSON, YAML or code blocks in free text, such as the answer of a language model."""

    config_type = ExtractConfig

    def declare(self) -> None:
        super().declare()
        self.add_event("missing", ["reason", "payload"])

    def treat(self, payload: Payload, state: Any) -> None:
        settings = self.settings
        count = 0
        for value in _found(settings, text_in(payload, settings.field)):
            count += 1
            self.emit("output", **{**payload, settings.output: value})
            if not settings.all:
                return
        if not count:
            self.emit("missing", reason=f"no {settings.kind} in {settings.field!r}", payload=payload)


def _found(settings: ExtractConfig, text: str) -> Iterator[Any]:
    if settings.kind == "json":
        yield from _without_repeats(json_values(text))
        return
    wanted = settings.language and settings.language.lower()
    blocks = list(code_blocks(text))
    if settings.kind == "code":
        yield from (block.text for block in blocks if wanted in (None, block.language))
        return
    texts = [block.text for block in blocks if block.language in ("yaml", "yml", "")] or [text]
    for each in texts:
        value = yaml_value(each)
        if isinstance(value, (dict, list)):
            yield value


def _without_repeats(values: Iterator[Any]) -> Iterator[Any]:
    """What stands in a code block is found in the text again."""
    seen: list[Any] = []
    for value in values:
        if value not in seen:
            seen.append(value)
            yield value


# -- join_text ---------------------------------------------------------------------------------------------


@dataclass
class JoinTextConfig:
    text: str = expression("the text of a payload", default="text")
    separator: str = setting("what stands between two texts", default="\n")
    every: int | None = setting("give a text after so many payloads", default=None, min=1)
    output: str = setting("the key that the text is put under", default="text", min=1)
    max_length: int = setting("characters that are held at most", default=1_000_000, min=1)


class JoinText(Configured[JoinTextConfig]):
    """Joins the texts of payloads to one, on drain, and before that after every n payloads."""

    config_type = JoinTextConfig

    def declare(self) -> None:
        super().declare()
        self.add_event("error", ["reason", "payload"])

    def policy(self, settings: JoinTextConfig) -> ActivationPolicy:
        return HoldLast()

    def logic(self, slot_data: SlotData, policy_message: Any, state: Any) -> None:
        settings, memory = self.settings, self.memory(state)
        count = memory.get("count", 0)
        pieces: list[str] = [memory["text"]] if count else []
        for payload in slot_data["input"]:
            try:
                pieces.append(self._next_piece(payload, pieces))
            except (ExpressionError, Unsuitable) as problem:
                self.reject(payload, problem)
                continue
            count += 1
            if count == settings.every:
                count = self._give(pieces, count)
        if policy_message == FLUSH and count:
            count = self._give(pieces, count)
        self.remember(state, text=settings.separator.join(pieces), count=count)

    def _give(self, pieces: list[str], count: int) -> int:
        """Emit what is held, and hold nothing."""
        self.emit("output", **{self.settings.output: self.settings.separator.join(pieces), "count": count})
        pieces.clear()
        return 0

    def _next_piece(self, payload: Payload, pieces: list[str]) -> str:
        settings = self.settings
        text = value_of(settings.text, payload)
        if not isinstance(text, str):
            raise Unsuitable(f"{settings.text!r} is {type(text).__name__}, not text")
        length = sum(map(len, pieces)) + len(settings.separator) * len(pieces) + len(text)
        if length > settings.max_length:
            raise Unsuitable(f"the joined text would be longer than {settings.max_length} characters")
        return text
