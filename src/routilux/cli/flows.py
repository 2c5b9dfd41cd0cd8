"""From what stands on the command line to a flow: a document, or the name of a registered flow."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from routilux import DslError, Flow, FlowRegistry
from routilux.errors import (
    ConfigurationError,
    FlowChangedError,
    InvalidValueError,
    StoreCorruptError,
    describe,
    nearest,
    shown,
)

SUFFIXES: Final = (".yaml", ".yml", ".json")
_MOST_DOCUMENTS: Final = 1_000


def import_modules(modules: Iterable[str]) -> None:
    """Import what registers routines and flows, from the current folder too; ConfigurationError if that fails."""
    for name in modules:
        here = os.getcwd()
        if here not in sys.path:
            sys.path.insert(0, here)
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise ConfigurationError(f"module {name!r} cannot be imported: {describe(error)}") from error
            raise ConfigurationError(
                f"no module {name!r} in {here} nor among what is installed; give a name such as mypkg or "
                "mypkg.routines, without .py"
            ) from error
        except Exception as error:  # user code
            raise ConfigurationError(f"module {name!r} cannot be imported: {describe(error)}") from error


def flow_named(name: str, modules: Iterable[str]) -> Flow:
    """The flow of a document, or the registered flow of that name.

    Raises DslError with all problems of a document, and ConfigurationError if there is nothing of that name.
    """
    allowed = tuple(modules)
    import_modules(allowed)
    path = Path(name)
    if not path.is_file():
        registry = FlowRegistry.get_instance()
        if name in registry:
            return registry.get(name)
        raise _missing(path, registry.list_flows())
    return Flow.load(path, allow_imports=allowed)


def hint_for(error: BaseException) -> str:
    """What the command line can do about an error that the library cannot know of; empty if nothing."""
    if isinstance(error, DslError) and any(problem.code == "unknown-class" for problem in error.problems):
        return "Routines of your own: --import MODULE, or [routines] modules in routilux.toml."
    if isinstance(error, FlowChangedError):
        return "On the command line that is --on-flow-change adopt."
    if isinstance(error, StoreCorruptError):
        return (
            "On the command line: 'routilux store check' lists all damage, 'routilux store repair NEW_URL' saves what "
            "can be read."
        )
    return ""


def documents_in(folder: Path) -> list[Path]:
    """The files ``*.flow.yaml``, ``*.flow.yml`` and ``*.flow.json`` of a folder and those below, sorted."""
    found: list[Path] = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(each for each in folders if not each.startswith(".") and each != "node_modules")
        found += [Path(place) / each for each in sorted(files) if is_document(each)]
        if len(found) >= _MOST_DOCUMENTS:
            break
    return found[:_MOST_DOCUMENTS]


def is_document(file: str) -> bool:
    return any(file.endswith(f".flow{suffix}") for suffix in SUFFIXES)


def _missing(path: Path, registered: list[str]) -> ConfigurationError:
    if path.is_dir():
        inside = [str(each) for each in documents_in(path)]
        return InvalidValueError(f"{shown(str(path))} is a directory, not a flow document; {_offer(inside)}")
    if path.exists():
        return InvalidValueError(f"{shown(str(path))} is no regular file; give a flow document")
    folder = path.parent if path.parent.is_dir() else Path()
    known = [str(each) for each in sorted(folder.iterdir()) if is_document(each.name)] + registered
    close = nearest(str(path), known)
    return InvalidValueError(f"no flow document and no registered flow {shown(str(path))}; {_offer(close)}")


def _offer(names: list[str]) -> str:
    if names:
        return f"did you mean {' or '.join(names[:3])}?"
    return "there is none here; 'routilux init' writes one"
