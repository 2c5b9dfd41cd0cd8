"""What installed packages offer under the entry points ``routilux.routines`` and ``routilux.policies``.

A broken package is named in a warning or an error, and never stands in the way of the others.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from importlib.metadata import EntryPoint, distributions, entry_points
from typing import Any, Final

from routilux.dsl.names import is_type_name
from routilux.errors import (
    ConfigurationError,
    DuplicateNameError,
    InvalidTypeError,
    describe,
    refused,
    shown,
)

ROUTINES: Final = "routilux.routines"
POLICIES: Final = "routilux.policies"


class Plugins:
    """The names that packages offer, each with where it leads to; nothing is imported before :meth:`load`."""

    def __init__(self, taken: Mapping[str, Collection[str]]) -> None:
        """``taken`` has the built-in names of each group, which no package can offer again."""
        self._points: dict[str, dict[str, list[EntryPoint]]] = {ROUTINES: {}, POLICIES: {}}
        for point in _found():
            problem = _problem(point, taken[point.group])
            if problem:
                warn(f"{point.name!r} of {package(point)} is left out: {problem}")
            else:
                self._points[point.group].setdefault(point.name, []).append(point)

    def names(self, group: str) -> Collection[str]:
        return self._points[group].keys()

    def modules(self, group: str, name: str) -> set[str]:
        """The top-level packages that a name may lead to."""
        return {
            point.value.partition(":")[0].partition(".")[0] for point in self._points[group].get(name, ())
        }

    def origin(self, group: str, name: str) -> str:
        """The package that offers a name, in words."""
        return package(self._points[group][name][0])

    def forget(self, group: str, name: str) -> None:
        self._points[group].pop(name, None)

    def load(self, group: str, name: str) -> Callable[..., Any]:
        """What a name leads to; ``ConfigurationError`` naming the package if that cannot be had."""
        points = self._points[group][name]
        if len({point.value for point in points}) > 1:
            sources = ", ".join(f"{package(point)} ({point.value})" for point in points)
            raise DuplicateNameError(
                f"several packages offer {name!r} as {group}: {sources}; uninstall all but one of them"
            )
        try:
            found = points[0].load()
        except (Exception, SystemExit) as error:  # the code of a plugin
            raise ConfigurationError(
                f"{name!r} of {package(points[0])} ({points[0].value}) cannot be imported: "
                f"{describe(error)}; repair or uninstall that package"
            ) from error
        if not callable(found):
            where = f"entry point {name!r} of {package(points[0])}"
            raise refused(InvalidTypeError, where, found, "a class or a function")
        return found  # type: ignore[no-any-return]


def warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=3)


def package(point: EntryPoint) -> str:
    return f"package {shown(point.dist.name)}" if point.dist is not None else "an unknown package"


def _problem(point: EntryPoint, taken: Collection[str]) -> str:
    if not is_type_name(point.name):
        return "a document cannot write that name; names are ASCII letters, digits, '_' and '-'"
    return "that name is built in" if point.name in taken else ""


def _found() -> Iterable[EntryPoint]:
    try:
        return [point for group in (ROUTINES, POLICIES) for point in entry_points(group=group)]
    except Exception:  # noqa: BLE001 - one package with a damaged file makes the call for all of them fail
        return [point for point in _one_by_one() if point.group in (ROUTINES, POLICIES)]


def _one_by_one() -> Iterable[EntryPoint]:
    """The same, package by package: slower, and without those that cannot be read."""
    seen = set()
    for distribution in distributions():
        name = str(distribution.metadata["Name"])
        if name in seen:
            continue  # a package that is found twice: the first on the path counts
        seen.add(name)
        try:
            yield from distribution.entry_points
        except Exception as error:  # noqa: BLE001 - whatever a damaged file leads to
            warn(f"the entry points of package {name!r} are left out, they cannot be read: {describe(error)}")
