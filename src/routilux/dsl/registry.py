"""The names that documents may use for routines and policies: registered, built in, or offered by plugins."""

from __future__ import annotations

import importlib.util
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from threading import RLock
from typing import Any, Final, NamedTuple, Self, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from routilux.errors import (
    ConfigurationError,
    DuplicateNameError,
    InvalidTypeError,
    InvalidValueError,
    describe,
    refused,
    shown,
    unknown,
)
from routilux.model.calls import call_name, parameters_of_constructor
from routilux.model.policy import POLICY_NAMES, ActivationPolicy
from routilux.model.routine import Routine
from routilux.ports import load

RoutineFactory: TypeAlias = Callable[[], Routine]
PolicyFactory: TypeAlias = Callable[..., ActivationPolicy]
T = TypeVar("T", bound=type[Routine])

NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z_][A-Za-z0-9_-]*)*", re.ASCII)
ROUTINES: Final = "routilux.routines"
POLICIES: Final = "routilux.policies"
_LONGEST: Final = 100


class RoutineType(NamedTuple):
    """What a name stands for. ``config`` is what a prototype sets before anything else does."""

    name: str
    factory: RoutineFactory
    routine_class: type[Routine]
    config: Mapping[str, Any]
    description: str

    def create(self) -> Routine:
        routine = self.factory()
        if not isinstance(routine, Routine):
            where = f"what the factory of routine type {self.name!r} made"
            raise refused(InvalidTypeError, where, routine, "a routine")
        if self.config:
            routine.set_config(**self.config)
        _made[routine] = self.name
        return routine


_made: WeakKeyDictionary[Routine, str] = WeakKeyDictionary()


class RoutineRegistry:
    """Routine types by name. :meth:`get_instance` is what is used where none is given; others are as good.

    Built-in routines and entry points of installed packages are found on first use, each imported when it is
    first needed. A name stands for one thing only. Safe from any thread.

    :param plugins: whether the entry points ``routilux.routines`` and ``routilux.policies`` are read.
    """

    def __init__(self, *, plugins: bool = True) -> None:
        self._lock = RLock()
        self._plugins = plugins
        self._types: dict[str, RoutineType] = {}
        self._policies: dict[str, PolicyFactory] = {}
        self._offered: dict[str, dict[str, list[EntryPoint]]] = {ROUTINES: {}, POLICIES: {}}
        self._read = False

    @classmethod
    def get_instance(cls) -> RoutineRegistry:
        """The registry that is used where none is given; always the same one."""
        return _default

    # -- registering ---------------------------------------------------------------------------------------

    def register(
        self, source: type[Routine] | RoutineFactory, name: str | None = None, *, description: str = ""
    ) -> Self:
        """Register a class, a function decorated with ``@routine``, or a factory without parameters.

        :param name: the name of the class or factory if not given.
        """
        if name is None:
            name = getattr(source, "__name__", "")
        self._refuse_taken(checked_type_name(name, "routine type"))
        with self._lock:
            self._refuse_taken(name)
            self._types[name] = _routine_type(name, source, description)
        return self

    def routine(self, name: str | None = None, *, description: str = "") -> Callable[[T], T]:
        """As a decorator: ``@registry.routine("clean")`` above a class, or above ``@routine``."""

        def decorate(source: T) -> T:
            self.register(source, name, description=description)
            return source

        return decorate

    def register_prototype(
        self,
        name: str,
        base: str | type[Routine],
        config: Mapping[str, Any] | None = None,
        *,
        description: str = "",
    ) -> Self:
        """Register a name for another routine type with a config of its own, which documents may override."""
        self._refuse_taken(checked_type_name(name, "routine type"))
        kind = self.get(base) if isinstance(base, str) else _routine_type(name, base, "")
        prototype = kind._replace(
            name=name,
            config={**kind.config, **(config or {})},
            description=description or kind.description,
        )
        prototype.create()  # refuses a wrong config where it is written
        with self._lock:
            self._refuse_taken(name)
            self._types[name] = prototype
        return self

    def unregister(self, name: str) -> Self:
        """Forget a name that was registered; flows made with it stay as they are."""
        with self._lock:
            if name not in self._types:
                raise self._unknown(name)
            del self._types[name]
        return self

    def register_policy(self, name: str, factory: PolicyFactory) -> Self:
        """Register a policy that documents may name as ``activation: {policy: name, option: value}``.

        :param factory: called with the options by name; a subclass of ``ActivationPolicy``, say. To be written too,
            the policy's ``to_dict()`` must give ``{"policy": name}`` with these options.
        """
        checked_type_name(name, "policy")
        if not callable(factory):
            raise refused(InvalidTypeError, f"policy {name!r}", factory, "a class or a function")
        with self._lock:
            if name in self.policy_names():
                raise _taken("policy", name, self.policy_names())
            self._policies[name] = factory
        return self

    # -- looking up ----------------------------------------------------------------------------------------

    def get(self, name: str) -> RoutineType:
        """The routine type of a name; ``ConfigurationError`` naming the nearest ones if there is none."""
        with self._lock:
            self._find()
            if name in self._types:
                return self._types[name]
            if name not in self._offered[ROUTINES]:
                raise self._unknown(name)
            self._types[name] = _routine_type(name, self._imported(ROUTINES, name), "")
            return self._types[name]

    def create(self, name: str, /, **config: Any) -> Routine:
        """A new routine of a registered type."""
        made = self.get(name).create()
        return made.set_config(**config) if config else made

    def names(self) -> list[str]:
        """All names, sorted; nothing is imported for that."""
        with self._lock:
            self._find()
            return sorted(self._types.keys() | self._offered[ROUTINES].keys())

    def name_of(self, routine: Routine) -> str | None:
        """The name that a routine was made of, or that its class is registered as."""
        name = _made.get(routine)
        if name is not None and name in self and self.get(name).routine_class is type(routine):
            return name
        with self._lock:
            self._find()
            for each in self.names():
                if self._may_be(each, type(routine)):
                    kind = self.get(each)
                    if kind.factory is type(routine) and not kind.config:
                        return each
        return None

    def policy(self, name: str) -> PolicyFactory:
        """What makes a registered policy; the built-in ones are not among them."""
        with self._lock:
            self._find()
            if name in self._policies:
                return self._policies[name]
            if name not in self._offered[POLICIES]:
                raise unknown("activation policy", name, self.policy_names())
            self._policies[name] = self._imported(POLICIES, name)
            return self._policies[name]

    def policy_names(self) -> list[str]:
        """All names that a document may use, the built-in ones among them; sorted."""
        with self._lock:
            self._find()
            return sorted({*POLICY_NAMES, *self._policies, *self._offered[POLICIES]})

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def __repr__(self) -> str:
        return f"<RoutineRegistry {self.names()!r}>"

    # -- inside --------------------------------------------------------------------------------------------

    def _find(self) -> None:
        """Take in what comes with the package and what is installed; once."""
        if self._read:
            return
        self._read = True
        for name, source in _built_in().items():
            self._types.setdefault(name, _routine_type(name, source, ""))
        if not self._plugins:
            return
        taken: dict[str, Collection[str]] = {ROUTINES: self._types, POLICIES: POLICY_NAMES}
        for group, offered in self._offered.items():
            for point in entry_points(group=group):
                if point.name in taken[group]:
                    message = (
                        f"{point.name!r} of package {_package(point)} is left out: that name is built in"
                    )
                    warnings.warn(message, RuntimeWarning, stacklevel=2)
                else:
                    offered.setdefault(point.name, []).append(point)

    def _imported(self, group: str, name: str) -> Any:
        points = self._offered[group][name]
        if len({point.value for point in points}) > 1:
            sources = ", ".join(f"{_package(point)} ({point.value})" for point in points)
            raise DuplicateNameError(
                f"several packages offer {name!r} as {group}: {sources}; uninstall all but one of them"
            )
        try:
            found = points[0].load()
        except Exception as error:  # the code of a plugin
            raise ConfigurationError(
                f"{name!r} of package {_package(points[0])} ({points[0].value}) cannot be imported: "
                f"{describe(error)}; repair or uninstall that package"
            ) from error
        if not callable(found):
            where = f"entry point {name!r} of package {_package(points[0])}"
            raise refused(InvalidTypeError, where, found, "a class or a function")
        return found

    def _may_be(self, name: str, kind: type[Routine]) -> bool:
        """Whether a name can stand for a class, without importing a plugin that has nothing to do with it."""
        points = self._offered[ROUTINES].get(name, ())
        top = kind.__module__.partition(".")[0]
        return name in self._types or any(p.value.partition(":")[0].partition(".")[0] == top for p in points)

    def _refuse_taken(self, name: str) -> None:
        if name in self:
            raise _taken("routine type", name, self.names())

    def _unknown(self, name: object) -> ConfigurationError:
        fix = f"register it: RoutineRegistry.get_instance().register(cls, {shown(name)})"
        return unknown("routine type", name, self.names(), where="in the registry", fix=fix)


def checked_type_name(name: object, kind: str) -> str:
    """Return the name if a document can use it."""
    where = f"name of a {kind}"
    if not isinstance(name, str):
        raise refused(InvalidTypeError, where, name, "text")
    if len(name) > _LONGEST or not NAME.fullmatch(name):
        expected = "letters, digits, '_' and '-', in ASCII, with dots between parts"
        raise refused(InvalidValueError, where, name, expected, fix="give a name such as 'read_csv'")
    return name


def _routine_type(name: str, source: object, description: str) -> RoutineType:
    where = f"routine type {name!r}"
    if not callable(source):
        raise refused(InvalidTypeError, where, source, "a class of routines, or a factory")
    if isinstance(source, type):
        if not issubclass(source, Routine):
            raise refused(InvalidTypeError, where, source, "a subclass of Routine, or a factory")
        parameters = parameters_of_constructor(source)
        if parameters:
            raise InvalidTypeError(
                f"{where}: {source.__name__}.__init__ has parameters {parameters}, and a document gives none; "
                f"take them from the config, or register a factory"
            )
        return RoutineType(name, source, source, {}, description or _summary(source))
    made = source()
    if not isinstance(made, Routine):
        raise refused(InvalidTypeError, f"{where}: what {call_name(source)}() made", made, "a routine")
    return RoutineType(name, source, type(made), {}, description or _summary(source) or _summary(type(made)))


def _summary(source: object) -> str:
    lines = (source.__dict__.get("__doc__") if isinstance(source, type) else source.__doc__) or ""
    return lines.strip().partition("\n")[0]


def _taken(kind: str, name: str, known: list[str]) -> DuplicateNameError:
    return DuplicateNameError(
        f"a {kind} {name!r} exists already; choose another name, or unregister that one first",
        known=tuple(known),
    )


def _package(point: EntryPoint) -> str:
    return shown(point.dist.name) if point.dist is not None else "an unknown package"


def _built_in() -> Mapping[str, type[Routine]]:
    """The built-in routines: those of ``routilux.routines``, if it is installed."""
    if importlib.util.find_spec("routilux.routines") is None:
        return {}
    routines: Mapping[str, type[Routine]] = load("built-in routines")
    return routines


_default = RoutineRegistry()
ObjectFactory = RoutineRegistry
