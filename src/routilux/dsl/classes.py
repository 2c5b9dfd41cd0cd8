"""From the text after ``class:`` to a routine type, without ever importing what the caller has not allowed."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import NamedTuple

from routilux.dsl.names import NAME
from routilux.dsl.problems import value
from routilux.dsl.registry import RoutineRegistry, RoutineType
from routilux.errors import ConfigurationError, InvalidTypeError, describe, refused
from routilux.model.routine import Routine


class Refusal(NamedTuple):
    code: str
    message: str
    fix: str = ""
    known: frozenset[str] = frozenset()


class Resolver:
    """Knows the registered names, and the packages from which dotted paths may be imported.

    Before ``importing`` is true, a dotted path that is allowed stands for a routine of which nothing is known.
    """

    def __init__(
        self, registry: RoutineRegistry, allow_imports: Iterable[str] = (), *, importing: bool
    ) -> None:
        if isinstance(allow_imports, (str, bytes)):
            raise refused(
                InvalidTypeError,
                "allow_imports",
                allow_imports,
                "a tuple of packages",
                fix="write ('mypkg',)",
            )
        self.registry = registry
        self._importing = importing
        self.allowed = tuple(tuple(name.split(".")) for name in allow_imports)
        self._names = frozenset(registry.names())
        self._found: dict[str, RoutineType | Refusal] = {}

    def resolve(self, name: object) -> RoutineType | Refusal:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            expected = "the name of a registered routine type, in ASCII, such as read_csv"
            given = ascii(name)[:80] if isinstance(name, str) else value(name)
            return Refusal("bad-class-name", f"expected {expected}, got {given}")
        if name not in self._found:
            self._found[name] = self._resolved(name)
        return self._found[name]

    def allows(self, dotted: str) -> bool:
        """Whether a dotted path lies in a package that may be imported; whole components count."""
        parts = tuple(dotted.split("."))
        return any(parts[: len(each)] == each and len(parts) > len(each) for each in self.allowed)

    def _resolved(self, name: str) -> RoutineType | Refusal:
        try:
            if name in self._names:
                return self.registry.get(name)
            if self.allows(name):
                return (
                    self._imported(name) if self._importing else RoutineType(name, Routine, Routine, {}, "")
                )
        except ConfigurationError as error:
            return Refusal("broken-class", str(error))
        fix = "name a registered one; register it with RoutineRegistry.get_instance().register(cls)"
        if "." in name and not self.allowed:
            fix = "register the class; a dotted path is imported only from packages in allow_imports"
        return Refusal("unknown-class", f"unknown routine type {value(name)}", fix, self._names)

    def _imported(self, dotted: str) -> RoutineType:
        module_name, _, attribute = dotted.rpartition(".")
        try:
            module = importlib.import_module(module_name)
        except Exception as error:  # the code of that module
            raise ConfigurationError(f"{module_name} cannot be imported: {describe(error)}") from error
        found = vars(module).get(attribute)
        if not (isinstance(found, type) and issubclass(found, Routine)):
            raise refused(InvalidTypeError, dotted, found, "a class of routines")
        return RoutineType(dotted, found, found, {}, "")
