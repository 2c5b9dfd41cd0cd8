"""The config: environment, ``routilux.toml``, ``[tool.routilux]`` in pyproject.toml, in that order.

A flag on the command line goes before all of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from routilux.errors import InvalidTypeError, InvalidValueError, nearest, refused

PREFIX: Final = "ROUTILUX_"
FORMATS: Final = ("table", "json", "jsonl")
_TRUE: Final = ("1", "true", "yes", "on")
_FALSE: Final = ("0", "false", "no", "off")


@dataclass(frozen=True)
class Settings:
    """What the config says; ``sources`` tells by key where that stands."""

    threads: int | None = None
    timeout: float | None = None
    output: str | None = None
    store: str | None = None
    quiet: bool = False
    debug: bool = False
    modules: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


# -- values ------------------------------------------------------------------------------------------------


def _threads(where: str, value: Any) -> int:
    if type(value) is not int:
        raise refused(InvalidTypeError, where, value, "a whole number of threads")
    if not 1 <= value <= 1024:
        raise refused(InvalidValueError, where, value, "1 to 1024 threads")
    return value


def _timeout(where: str, value: Any) -> float:
    if type(value) not in (int, float):
        raise refused(InvalidTypeError, where, value, "a number of seconds")
    if not 0 < value < float("inf"):
        raise refused(InvalidValueError, where, value, "more than 0 seconds")
    return float(value)


def _output(where: str, value: Any) -> str:
    if value not in FORMATS:
        raise refused(InvalidValueError, where, value, f"one of {', '.join(FORMATS)}")
    return cast("str", value)


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise refused(InvalidTypeError, where, value, "text")
    return value


def _flag(where: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise refused(InvalidTypeError, where, value, "true or false")
    return value


def _modules(where: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise refused(InvalidTypeError, where, value, "a list of modules", fix='write ["mypkg"]')
    return tuple(value)


class Key(NamedTuple):
    """A key of the config: how its value is checked, and how text of the environment becomes one."""

    check: Callable[[str, Any], Any]
    parse: Callable[[str], Any]
    variable: str
    section: str = ""


def _number(text: str) -> Any:
    try:
        return float(text) if not text.strip().lstrip("+-").isdigit() else int(text)
    except ValueError:
        return text


def _switch(text: str) -> Any:
    known = {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False)}
    return known.get(text.lower(), text)


def _listed(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


KEYS: Final = {
    "threads": Key(_threads, _number, "THREADS"),
    "timeout": Key(_timeout, _number, "TIMEOUT"),
    "output": Key(_output, str, "OUTPUT"),
    "store": Key(_text, str, "STORE"),
    "quiet": Key(_flag, _switch, "QUIET"),
    "debug": Key(_flag, _switch, "DEBUG"),
    "modules": Key(_modules, _listed, "IMPORT", section="routines"),
}
VARIABLES: Final = {PREFIX + key.variable: name for name, key in KEYS.items()}


# -- reading -----------------------------------------------------------------------------------------------


def read_settings(folder: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """What holds in a folder, by default the current one; ConfigurationError for a value that cannot hold."""
    here = folder or Path()
    found: dict[str, tuple[Any, str]] = {}
    warnings: list[str] = []
    for table, name in (_pyproject(here / "pyproject.toml"), _own(here / "routilux.toml")):
        found |= _of_table(table, name, warnings)
    variables = os.environ if environment is None else environment
    found |= _of_environment(variables)
    for variable in sorted(name for name in variables if name.startswith(PREFIX) and name not in VARIABLES):
        close = nearest(variable, VARIABLES, 1)[0]
        warnings.append(f"environment: {variable} means nothing; the nearest is {close}")
    values = {name: value for name, (value, _) in found.items()}
    sources = {name: source for name, (_, source) in found.items()}
    return Settings(**values, sources=sources, warnings=tuple(warnings))


def _of_table(table: Mapping[str, Any], source: str, warnings: list[str]) -> dict[str, tuple[Any, str]]:
    found = {}
    for path, value in _flat(table):
        name = next((name for name, key in KEYS.items() if _path(name, key) == path), None)
        if name is None:
            close = ", ".join(nearest(path, (_path(*each) for each in KEYS.items()), 1))
            warnings.append(f"{source}: unknown key {path!r}; the nearest is {close!r}")
        else:
            found[name] = (KEYS[name].check(f"{path} in {source}", value), source)
    return found


def _path(name: str, key: Key) -> str:
    return f"{key.section}.{name}" if key.section else name


def _flat(table: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Keys with their section; a section that holds nothing we know still shows by its keys."""
    flat: list[tuple[str, Any]] = []
    for name, value in table.items():
        if isinstance(value, dict):
            flat += [(f"{name}.{inner}", each) for inner, each in value.items()]
        else:
            flat.append((name, value))
    return flat


def _of_environment(environment: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    found = {}
    for variable, name in VARIABLES.items():
        text = environment.get(variable, "")
        if text:
            found[name] = (KEYS[name].check(variable, KEYS[name].parse(text)), variable)
    return found


def _own(path: Path) -> tuple[Mapping[str, Any], str]:
    return _toml(path), path.name


def _pyproject(path: Path) -> tuple[Mapping[str, Any], str]:
    tool = _toml(path).get("tool", {})
    table = tool.get("routilux", {}) if isinstance(tool, dict) else {}
    where = f"[tool.routilux] of {path.name}"
    if not isinstance(table, dict):
        raise refused(InvalidTypeError, where, table, "a table")
    return table, where


def _toml(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InvalidValueError(f"{path.name} cannot be read: {error.strerror or error}") from error
    import tomllib  # not needed where there is no file

    try:
        return tomllib.loads(data.decode())
    except ValueError as error:
        raise InvalidValueError(f"{path.name} is no TOML: {error}; correct it") from error
