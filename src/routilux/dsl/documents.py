"""Reading and writing flows: texts, files and plain dicts."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from routilux.dsl.building import flow_of
from routilux.dsl.json_reader import read_json
from routilux.dsl.nodes import MAX_BYTES, tree_of
from routilux.dsl.problems import Place, Report
from routilux.dsl.registry import RoutineRegistry
from routilux.dsl.text import checked_text
from routilux.dsl.writing import document_of, json_text, yaml_text
from routilux.errors import ConfigurationError, InvalidTypeError, InvalidValueError, refused
from routilux.model.flow import Flow
from routilux.model.routine import Routine

_YAML: Final = (".yaml", ".yml")
_JSON: Final = (".json",)


def create(name: str) -> Routine:
    """A new routine of a type in the default registry."""
    return RoutineRegistry.get_instance().create(name)


def loads_yaml(
    text: str | bytes,
    *,
    registry: RoutineRegistry | None = None,
    allow_imports: Iterable[str] = (),
    file: str = "",
) -> Flow:
    """The flow of a YAML document; ``DslError`` with all its problems if there is none.

    :param registry: where ``class:`` is looked up; the default registry if not given.
    :param allow_imports: packages, such as ``("mypkg",)``, from which classes may be named by dotted path.
    :param file: what problems call the document.
    """
    checked, report = checked_text(text, file)
    root = _yaml_reader().read_yaml(checked, report)
    return flow_of(root, report, registry or RoutineRegistry.get_instance(), allow_imports)


def loads_json(
    text: str | bytes,
    *,
    registry: RoutineRegistry | None = None,
    allow_imports: Iterable[str] = (),
    file: str = "",
) -> Flow:
    """As :func:`loads_yaml`, of JSON."""
    checked, report = checked_text(text, file)
    root = read_json(checked, report)
    return flow_of(root, report, registry or RoutineRegistry.get_instance(), allow_imports)


def from_dict(
    data: Mapping[str, Any],
    *,
    registry: RoutineRegistry | None = None,
    allow_imports: Iterable[str] = (),
    file: str = "",
) -> Flow:
    """As :func:`loads_yaml`, of plain data; problems name the path in it."""
    if not isinstance(data, Mapping):
        raise refused(InvalidTypeError, "document", data, "a dict")
    report = Report("", file)
    root = tree_of(data, report)
    return flow_of(root, report, registry or RoutineRegistry.get_instance(), allow_imports)


def load(
    path: str | os.PathLike[str],
    *,
    registry: RoutineRegistry | None = None,
    allow_imports: Iterable[str] = (),
) -> Flow:
    """The flow of a file ``*.yaml``, ``*.yml`` or ``*.json``."""
    file = Path(path)
    read = loads_yaml if _suffix(file) in _YAML else loads_json
    return read(_bytes_of(file), registry=registry, allow_imports=allow_imports, file=str(path))


def to_dict(
    flow: Flow, *, registry: RoutineRegistry | None = None, allow_imports: Iterable[str] = ()
) -> dict[str, Any]:
    """The document of a flow; ``SerializationError`` naming the routine if it has what only code can say.

    Keys stand in a fixed order, routines and connections in theirs.
    """
    return document_of(flow, registry or RoutineRegistry.get_instance(), allow_imports)


def dumps_yaml(
    flow: Flow, *, registry: RoutineRegistry | None = None, allow_imports: Iterable[str] = ()
) -> str:
    return yaml_text(to_dict(flow, registry=registry, allow_imports=allow_imports))


def dumps_json(
    flow: Flow, *, registry: RoutineRegistry | None = None, allow_imports: Iterable[str] = ()
) -> str:
    return json_text(to_dict(flow, registry=registry, allow_imports=allow_imports))


def save(
    flow: Flow,
    path: str | os.PathLike[str],
    *,
    registry: RoutineRegistry | None = None,
    allow_imports: Iterable[str] = (),
) -> None:
    """Write a file ``*.yaml``, ``*.yml`` or ``*.json``, whole or not at all."""
    file = Path(path)
    write = dumps_yaml if _suffix(file) in _YAML else dumps_json
    text = write(flow, registry=registry, allow_imports=allow_imports)
    new = file.with_name(f".{file.name}.{os.urandom(4).hex()}.new")
    try:
        new.write_bytes(text.encode())
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)


def _suffix(file: Path) -> str:
    suffix = file.suffix.lower()
    if suffix not in (*_YAML, *_JSON):
        fix = "name it *.flow.yaml or *.flow.json"
        raise refused(
            InvalidValueError, "file of a flow", str(file), "a file *.yaml, *.yml or *.json", fix=fix
        )
    return suffix


def _bytes_of(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_BYTES + 1)
    except OSError as error:
        report = Report("", str(file))
        message = f"cannot be read: {error.strerror or error}"
        report.add("unreadable-file", Place(), "", message, "correct the path, or its permissions")
        raise report.error() from error


def _yaml_reader() -> Any:
    try:
        return importlib.import_module("routilux.dsl.yaml_reader")
    except ModuleNotFoundError as error:
        if error.name != "yaml":
            raise
        raise ConfigurationError(
            "YAML needs the package PyYAML: pip install 'routilux[yaml]'; JSON does without it"
        ) from error


documents = sys.modules[__name__]
