"""``routilux doctor``: what is installed, what is configured, and what is missing."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

import routilux
from routilux import ConfigurationError, RoutineRegistry
from routilux.cli.codes import DONE, FAILED
from routilux.cli.command import Call, command, import_option
from routilux.cli.flows import import_modules
from routilux.cli.screen import print_json, print_pairs
from routilux.cli.settings import KEYS
from routilux.cli.stores import store_option
from routilux.errors import StoreError
from routilux.store import examine, without_password

EXTRAS: Final = {
    "yaml": {"yaml": "PyYAML"},
    "routines": {"jsonschema": "jsonschema", "re2": "google-re2"},
    "cli": {"click": "click", "rich": "rich", "yaml": "PyYAML"},
    "postgres": {"psycopg": "psycopg"},
}

EXAMPLES = """
routilux doctor
routilux doctor --store sqlite:///orders.db
routilux doctor --json
"""


class Finding(NamedTuple):
    """``state`` is ok, missing (which may be meant), warning, or error."""

    state: str
    what: str
    detail: str


@command("doctor", EXAMPLES)
@store_option
@import_option
def doctor(call: Call, store: str | None, modules: tuple[str, ...]) -> int:
    """Check the installation: Python, extras, plugins, Graphviz, config, modules, and the store.

    The exit code is 1 if something is broken. What is only missing is named with the way to get it.
    """
    found = [
        *_installation(),
        *_extras(),
        _graphviz(),
        *_plugins(),
        *_config(call),
        *_modules(call, modules),
        *_store(store or call.settings.store),
    ]
    if call.as_json:
        print_json([each._asdict() for each in found])
    else:
        print_pairs((f"{each.state:8}{each.what}", each.detail) for each in found)
    return FAILED if any(each.state == "error" for each in found) else DONE


def _installation() -> Iterator[Finding]:
    place = str(Path(routilux.__file__).parent)
    yield Finding("ok", "routilux", f"{routilux.__version__} in {place}")
    yield Finding("ok", "python", f"{platform.python_version()} at {sys.executable}")


def _extras() -> Iterator[Finding]:
    for extra, modules in EXTRAS.items():
        missing = [package for module, package in modules.items() if find_spec(module) is None]
        if missing:
            fix = f"without {', '.join(missing)}; pip install 'routilux[{extra}]'"
            yield Finding("missing", f"extra {extra}", fix)
        else:
            yield Finding("ok", f"extra {extra}", ", ".join(_versioned(each) for each in modules.values()))


def _versioned(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package


def _graphviz() -> Finding:
    dot = shutil.which("dot")
    if dot is None:
        return Finding("missing", "graphviz", "no program dot; 'routilux graph --format svg' needs it")
    return Finding("ok", "graphviz", dot)


def _plugins() -> Iterator[Finding]:
    registry = RoutineRegistry.get_instance()
    names = registry.names()
    for name in names:
        try:
            registry.get(name)
        except ConfigurationError as error:
            yield Finding("error", f"routine {name}", str(error))
    yield Finding("ok", "routines", f"{len(names)} can be named in documents")


def _config(call: Call) -> Iterator[Finding]:
    settings = call.settings
    for name in KEYS:
        if name in settings.sources:
            value = getattr(settings, name)
            shown = without_password(value) if name == "store" else value
            yield Finding("ok", f"config {name}", f"{shown!r} from {settings.sources[name]}")
    if not settings.sources:
        yield Finding("ok", "config", "none in routilux.toml, pyproject.toml and the environment")
    for warning in settings.warnings:
        yield Finding("warning", "config", warning)


def _modules(call: Call, modules: tuple[str, ...]) -> Iterator[Finding]:
    for name in (*call.settings.modules, *modules):
        try:
            import_modules([name])
        except ConfigurationError as error:
            yield Finding("error", f"module {name}", str(error))
        else:
            yield Finding("ok", f"module {name}", str(getattr(sys.modules[name], "__file__", "")))


def _store(url: str | None) -> Iterator[Finding]:
    if url is None:
        return
    try:
        for fact in examine(url):
            yield Finding(fact.state, f"store {fact.what}", fact.detail)
    except (ConfigurationError, StoreError) as error:
        yield Finding("error", "store", str(error))
