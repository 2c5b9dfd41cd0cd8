"""The names that documents may use for routines and policies: registered, built in, or offered by plugins."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection, Iterator, Mapping
from threading import RLock
from typing import Any, NamedTuple, Self, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from routilux.dsl.names import checked_type_name
from routilux.dsl.plugins import POLICIES, ROUTINES, Plugins, warn
from routilux.dsl.prototypes import Prototype
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

    A package that is broken is named: in a warning where it is merely listed, in an error where it is asked for. The
    others are there all the same.

    :param plugins: whether the entry points ``routilux.routines`` and ``routilux.policies`` are read.
    """

    def __init__(self, *, plugins: bool = True) -> None:
        self._lock = RLock()
        self._reads_plugins = plugins
        self._types: dict[str, RoutineType] = {}
        self._policies: dict[str, PolicyFactory] = {}
        self._plugins: Plugins | None = None
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
        if name is not None and not isinstance(name, str):
            fix = "write @registry.routine() or @registry.routine('name')"
            raise refused(InvalidTypeError, "@registry.routine(name)", name, "text", fix=fix)

        def decorate(source: T) -> T:
            self.register(source, name, description=description)
            return source

        return decorate

    def register_prototype(
        self,
        name: str,
        base: str | type[Routine] | Routine,
        config: Mapping[str, Any] | None = None,
        *,
        description: str = "",
    ) -> Self:
        """Register a name for another routine type with a config of its own, which documents may override.

        :param base: the name of a registered type, a class, or a routine: what is made is then set up as that
            routine is now, with its config, policy, error handler, limits and logic.
        """
        self._refuse_taken(checked_type_name(name, "routine type"))
        if config is not None and not isinstance(config, Mapping):
            raise refused(InvalidTypeError, f"config of prototype {name!r}", config, "a mapping")
        kind = self._base_of(name, base)
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
        """Forget a name, registered or offered by a package; flows made with it stay as they are."""
        with self._lock:
            if name not in self:
                raise self._unknown(name)
            self._types.pop(name, None)
            if self._plugins is not None:
                self._plugins.forget(ROUTINES, name)
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

    def unregister_policy(self, name: str) -> Self:
        """Forget a policy, registered or offered by a package; the built-in ones stay."""
        with self._lock:
            if name in POLICY_NAMES:
                raise InvalidValueError(f"policy {name!r} is built in; register yours under another name")
            if name not in self.policy_names():
                raise unknown("activation policy", name, self.policy_names())
            self._policies.pop(name, None)
            if self._plugins is not None:
                self._plugins.forget(POLICIES, name)
        return self

    # -- looking up ----------------------------------------------------------------------------------------

    def get(self, name: str) -> RoutineType:
        """The routine type of a name; ``ConfigurationError`` naming the nearest ones if there is none."""
        with self._lock:
            self._find()
            if not isinstance(name, str) or name not in self:
                raise self._unknown(name)
            if name not in self._types:
                assert self._plugins is not None, "what is known and no type of ours, a package offers"
                offered = self._plugins.load(ROUTINES, name)
                where = f"routine type {name!r} of {self._plugins.origin(ROUTINES, name)}"
                self._types[name] = _routine_type(name, offered, "", where)
            return self._types[name]

    def types(self) -> list[RoutineType]:
        """All routine types, sorted by name; what a broken package offers is left out, with a ``RuntimeWarning``."""
        found = []
        for name in self.names():
            try:
                found.append(self.get(name))
            except ConfigurationError as error:
                warn(f"routine type {name!r} is left out: {error}")
        return found

    def create(self, name: str, /, **config: Any) -> Routine:
        """A new routine of a registered type."""
        made = self.get(name).create()
        return made.set_config(**config) if config else made

    def names(self) -> list[str]:
        """All names, sorted; nothing is imported for that."""
        with self._lock:
            self._find()
            return sorted({*self._types, *self._offered(ROUTINES)})

    def name_of(self, routine: Routine) -> str | None:
        """The name that a routine was made of, or that its class is registered as."""
        name = _made.get(routine)
        if name is not None and name in self and self.get(name).routine_class is type(routine):
            return name
        with self._lock:
            self._find()
            for each in self.names():
                if self._stands_for(each, type(routine)):
                    return each
        return None

    def policy(self, name: str) -> PolicyFactory:
        """What makes a registered policy; the built-in ones are not among them."""
        with self._lock:
            self._find()
            if not isinstance(name, str) or name not in {*self._policies, *self._offered(POLICIES)}:
                raise unknown("activation policy", name, self.policy_names())
            if name not in self._policies:
                assert self._plugins is not None, "what is known and no policy of ours, a package offers"
                self._policies[name] = self._plugins.load(POLICIES, name)
            return self._policies[name]

    def policy_names(self) -> list[str]:
        """All names that a document may use, the built-in ones among them; sorted."""
        with self._lock:
            self._find()
            return sorted({*POLICY_NAMES, *self._policies, *self._offered(POLICIES)})

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
        if self._reads_plugins:
            self._plugins = Plugins({ROUTINES: self._types, POLICIES: POLICY_NAMES})

    def _offered(self, group: str) -> Collection[str]:
        return self._plugins.names(group) if self._plugins is not None else ()

    def _base_of(self, name: str, base: object) -> RoutineType:
        if isinstance(base, str):
            return self.get(base)
        if not isinstance(base, Routine):
            return _routine_type(name, base, "")
        prototype = Prototype(base, f"prototype {name!r}")
        return RoutineType(name, prototype, type(base), prototype.config, _summary(type(base)))

    def _stands_for(self, name: str, kind: type[Routine]) -> bool:
        """Whether a name is that of a class, without importing a plugin that has nothing to do with it."""
        if name not in self._types and self._plugins is not None:
            if kind.__module__.partition(".")[0] not in self._plugins.modules(ROUTINES, name):
                return False
        try:
            found = self.get(name)
        except ConfigurationError:
            return False  # a broken neighbour; a caller that asks for it by name hears of that
        return found.factory is kind and not found.config

    def _refuse_taken(self, name: str) -> None:
        if name in self:
            raise _taken("routine type", name, self.names())

    def _unknown(self, name: object) -> ConfigurationError:
        fix = f"register it: RoutineRegistry.get_instance().register(cls, {shown(name)})"
        return unknown("routine type", name, self.names(), where="in the registry", fix=fix)


def _routine_type(name: str, source: object, description: str, where: str = "") -> RoutineType:
    where = where or f"routine type {name!r}"
    if not callable(source):
        fix = f"write register_prototype({name!r}, routine)" if isinstance(source, Routine) else ""
        raise refused(InvalidTypeError, where, source, "a class of routines, or a factory", fix=fix)
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
    made = _made_by(source, where)
    if not isinstance(made, Routine):
        raise refused(InvalidTypeError, f"{where}: what {call_name(source)}() made", made, "a routine")
    return RoutineType(name, source, type(made), {}, description or _summary(source) or _summary(type(made)))


def _made_by(factory: Callable[[], object], where: str) -> object:
    try:
        return factory()
    except ConfigurationError:
        raise
    except Exception as error:  # the code of a factory
        raise InvalidValueError(
            f"{where}: its factory {call_name(factory)}() raised {describe(error)}; repair it, or give it no "
            "parameters if it has some"
        ) from error


def _summary(source: object) -> str:
    lines = (source.__dict__.get("__doc__") if isinstance(source, type) else source.__doc__) or ""
    return lines.strip().partition("\n")[0]


def _taken(kind: str, name: str, known: list[str]) -> DuplicateNameError:
    return DuplicateNameError(
        f"a {kind} {name!r} exists already; choose another name, or unregister that one first",
        known=tuple(known),
    )


def _built_in() -> Mapping[str, type[Routine]]:
    """The built-in routines: those of ``routilux.routines``, if it is installed."""
    if importlib.util.find_spec("routilux.routines") is None:
        return {}
    routines: Mapping[str, type[Routine]] = load("built-in routines")
    return routines


_default = RoutineRegistry()
ObjectFactory = RoutineRegistry
