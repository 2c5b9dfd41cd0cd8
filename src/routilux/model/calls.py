"""Looking at the callables that users give: what can be passed to them, and whether they are async."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from routilux.errors import InvalidTypeError, shown
from routilux.model.item import Payload


def call_name(fn: object) -> str:
    """The name of a callable for messages."""
    return str(getattr(fn, "__qualname__", None) or type(fn).__qualname__)


def is_async(fn: object) -> bool:
    """Whether calling ``fn`` gives a coroutine, also of a partial or of an object with ``__call__``."""
    from inspect import iscoroutinefunction  # inspect is slow to import, and only needed once there is a flow

    return iscoroutinefunction(_called(fn))


def is_generator(fn: object) -> bool:
    """Whether calling ``fn`` gives a generator or an async generator, so that calling alone runs nothing."""
    from inspect import isasyncgenfunction, isgeneratorfunction

    return isgeneratorfunction(_called(fn)) or isasyncgenfunction(_called(fn))


def is_async_generator(fn: object) -> bool:
    """Whether calling ``fn`` gives an async generator."""
    from inspect import isasyncgenfunction

    return isasyncgenfunction(_called(fn))


def takes_three(fn: Callable[..., Any]) -> bool:
    """Whether ``fn`` can be called with three positional arguments."""
    from inspect import signature

    try:
        signature(fn).bind(None, None, None)
    except TypeError:
        return False
    except ValueError:
        return True  # written in C, and does not say
    return True


def parameters_of_constructor(kind: type) -> list[str]:
    """The parameters of a class's ``__init__`` without ``self``, ``*args`` and ``**kwargs``."""
    from inspect import Parameter, signature

    variadic = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    parameters = list(signature(kind.__init__).parameters.values())[1:]  # type: ignore[misc]
    return [parameter.name for parameter in parameters if parameter.kind not in variadic]


class ByName(NamedTuple):
    """How a payload becomes the arguments of a callable: by the names of its parameters."""

    fn: Callable[..., Any]
    where: str
    names: frozenset[str]
    required: frozenset[str]
    takes_all: bool
    whole: str | None
    """The parameter that gets the payload itself if the payload has no such key; ``""`` is by position."""

    def __call__(self, payload: Payload) -> Any:
        if self.whole is not None and self.whole not in payload:
            return self._with_whole(payload)
        if self.takes_all or payload.keys() <= self.names:
            arguments: Mapping[str, Any] = payload
        else:
            arguments = {key: value for key, value in payload.items() if key in self.names}
        if not self.required <= arguments.keys():
            raise self._missing(self.required - arguments.keys(), payload)
        return self.fn(**arguments)

    def _with_whole(self, payload: Payload) -> Any:
        if not self.whole:
            return self.fn(payload)
        others = payload if self.takes_all else {key: payload[key] for key in self.names & payload.keys()}
        if not self.required - {self.whole} <= others.keys():
            raise self._missing(self.required - {self.whole} - others.keys(), payload)
        return self.fn(**{**others, self.whole: payload})

    def _missing(self, names: frozenset[str], payload: Payload) -> InvalidTypeError:
        missing = ", ".join(map(repr, sorted(names)))
        return InvalidTypeError(
            f"{self.where} needs {missing}, and the payload has only {shown(sorted(map(str, payload)))}; "
            "emit it, rename with mapping= of the connection, or give the parameter a default"
        )


def by_name(fn: Callable[..., Any], where: str, *, whole_payload: bool) -> ByName:
    """Prepare calls of ``fn`` with payload keys as arguments.

    A ``**kwargs`` gets the rest. With ``whole_payload`` a parameter ``data`` that is no key of the payload
    gets the payload, if it is required or the only one; so does a callable without named parameters.
    """
    from inspect import Parameter, signature

    try:
        parameters = list(signature(fn).parameters.values())
    except ValueError:  # written in C, and does not say
        return ByName(fn, where, frozenset(), frozenset(), False, "")
    named = [p for p in parameters if p.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)]
    required = frozenset(p.name for p in named if p.default is Parameter.empty)
    takes_all = any(p.kind is Parameter.VAR_KEYWORD for p in parameters)
    if any(p.kind is Parameter.POSITIONAL_ONLY for p in parameters) and (named or not whole_payload):
        raise InvalidTypeError(
            f"{where} is called with payload keys as arguments, so it cannot have positional-only "
            "parameters; name its parameters after the keys, or use **kwargs"
        )
    positions = [p.name for p in parameters if p.kind is Parameter.VAR_POSITIONAL]
    if positions and not whole_payload and not takes_all:
        raise InvalidTypeError(
            f"{where} is called with payload keys as arguments, so *{positions[0]} would never get anything; "
            f"name its parameters after the keys, or use **{positions[0]}"
        )
    whole = None
    if whole_payload and parameters and not named and not takes_all:
        whole = ""
    elif whole_payload and ("data" in required or ([p.name for p in named] == ["data"] and not takes_all)):
        whole = "data"
    return ByName(fn, where, frozenset(p.name for p in named), required, takes_all, whole)


def _called(fn: object) -> Any:
    """What runs when ``fn`` is called: the function inside a partial, or the method ``__call__``."""
    while hasattr(fn, "func") and hasattr(fn, "keywords"):
        fn = fn.func
    if hasattr(fn, "__code__") or hasattr(fn, "__func__") or isinstance(fn, type):
        return fn
    return getattr(type(fn), "__call__", fn)  # noqa: B004 - the method itself is wanted
