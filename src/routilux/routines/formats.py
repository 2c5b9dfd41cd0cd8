"""JSON, YAML and code blocks in free text, such as a model's answer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

from routilux import ConfigurationError
from routilux.routines.settings import Unsuitable

LONGEST_YAML = 65_536
DEEPEST = 40


class Block(NamedTuple):
    language: str
    text: str


def code_blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a Markdown text; one that is not closed goes to the end."""
    fence, language, lines = "", "", list[str]()
    for line in text.splitlines():
        bare = line.strip()
        if not fence:
            marks = len(bare) - len(bare.lstrip("`"))
            if marks >= 3 and "`" not in bare[marks:]:
                fence, language, lines = "`" * marks, bare[marks:].strip(), []
        elif bare.startswith(fence) and not bare.strip("`"):
            yield Block(language.partition(" ")[0].lower(), "\n".join(lines))
            fence = ""
        else:
            lines.append(line)
    if fence:
        yield Block(language.partition(" ")[0].lower(), "\n".join(lines))


def json_values(text: str) -> Iterator[Any]:
    """The JSON objects and lists in a text, first those in code blocks. Linear: a start is tried once."""
    for block in code_blocks(text):
        if block.language in ("", "json"):
            value = _json(block.text)
            if value is not None:
                yield value
    yield from _embedded(text)


_STARTS = re.compile(r"[{\[]")  # a set of characters: nothing to go back over


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)
strict_json = _decoder.decode
"""The value of a JSON text, in which there is no NaN and no Infinity; ``ValueError`` if it is none."""
MOST_STARTS = 200


def _embedded(text: str) -> Iterator[Any]:
    position = 0
    for _ in range(MOST_STARTS):
        start = _STARTS.search(text, position)
        if start is None:
            return
        try:
            value, position = _decoder.raw_decode(text, start.start())
            yield value
        except (ValueError, RecursionError):
            position = start.start() + 1


def _json(text: str) -> Any:
    try:
        return strict_json(text)
    except (ValueError, RecursionError):
        return None


def yaml_value(text: str) -> Any:
    """The value of a YAML 1.2 text without aliases, which make small texts huge, and without tags."""
    try:
        import yaml
    except ImportError:
        raise ConfigurationError("YAML needs PyYAML; install routilux[routines]") from None
    if len(text) > LONGEST_YAML:
        raise Unsuitable(f"YAML of {len(text)} characters is longer than {LONGEST_YAML}")
    try:
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise Unsuitable(f"YAML is nested more than {DEEPEST} levels deep")
            if getattr(event, "anchor", None):
                raise Unsuitable("YAML has an anchor or an alias, which is not read")
        return yaml.load(text, _core_loader())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Unsuitable(f"no YAML: {error}"[:500]) from None


# The core schema, without what is no number in JSON either. ``no``, ``1:30`` and dates are text in it.
_CORE = "tag:yaml.org,2002:"
_SCALARS = {
    "null": re.compile(r"(null|Null|NULL|~|)\Z"),
    "bool": re.compile(r"(true|True|TRUE|false|False|FALSE)\Z"),
    "int": re.compile(r"([-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z"),
    "float": re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z"),
}
_READ: dict[str, Callable[[str], Any]] = {
    "null": lambda text: None,
    "bool": lambda text: text.lower() == "true",
    "int": lambda text: int(text, 0) if text[:2] in ("0o", "0x") else int(text),
    "float": float,
}


@cache
def _core_loader() -> Any:
    """A loader of PyYAML that knows the core schema of YAML 1.2 and nothing else."""
    import yaml

    known = {_CORE + "str", _CORE + "seq", _CORE + "map", None}
    made = yaml.SafeLoader.yaml_constructors
    loader: Any = type(
        "CoreLoader",
        (yaml.SafeLoader,),
        {"yaml_implicit_resolvers": {}, "yaml_constructors": {tag: made[tag] for tag in known}},
    )
    for name, wanted in _SCALARS.items():
        loader.add_implicit_resolver(_CORE + name, wanted, None)
        loader.add_constructor(_CORE + name, _constructor(_READ[name]))
    return loader


def _constructor(read: Callable[[str], Any]) -> Callable[[Any, Any], Any]:
    return lambda loader, node: read(loader.construct_scalar(node))
