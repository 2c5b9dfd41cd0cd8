"""The ``@routine`` decorator: a function becomes a routine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, ClassVar, Self, overload

from routilux.errors import InvalidTypeError, InvalidValueError, refused
from routilux.model.calls import (
    ByName,
    by_name,
    call_name,
    is_async,
    is_async_generator,
    is_generator,
)
from routilux.model.logic import SlotData
from routilux.model.names import checked_name
from routilux.model.policy import ActivationPolicy, ImmediatePolicy
from routilux.model.recovery import ERROR_EVENT, ErrorHandler
from routilux.model.routine import Routine


class FunctionRoutine(Routine):
    """What ``@routine`` makes: slot ``input``, event ``output``, and the function as logic."""

    fn: ClassVar[Callable[..., Any]]
    """The function; call it to test it without a flow."""

    _call: ClassVar[ByName]
    _options: ClassVar[Mapping[str, Any]]

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.add_event("output")
        options = self._options
        self.set_activation_policy(options["policy"] or ImmediatePolicy())
        self.set_concurrency(options["concurrency"], by=options["concurrency_by"])
        self.set_timeout(options["timeout"])
        self.set_error_handler(options["error_handler"])

    def set_error_handler(self, handler: ErrorHandler | None) -> Self:
        """As of every routine; a handler with EMIT makes the event ``error``, which a function cannot declare."""
        super().set_error_handler(handler)
        if handler is not None and handler.emits and ERROR_EVENT not in self.events:
            self.add_event(ERROR_EVENT)
        return self

    def emit_mapping(self, result: object, verb: str) -> None:
        """Emit what the function gave; ``None`` is nothing to emit."""
        if result is None:
            return
        if not isinstance(result, Mapping) or not all(isinstance(key, str) for key in result):
            where = f"{call_name(self.fn)} {verb}"
            fix = "write {'result': value}, or None to emit nothing"
            raise refused(InvalidTypeError, where, result, "a mapping with text keys", fix=fix)
        self.emit("output", **result)


class _Plain(FunctionRoutine):
    def logic(self, slot_data: SlotData, policy_message: Any, state: Any) -> None:
        for payload in slot_data["input"]:
            self.emit_mapping(self._call(payload), "returned")


class _Generator(FunctionRoutine):
    def logic(self, slot_data: SlotData, policy_message: Any, state: Any) -> None:
        for payload in slot_data["input"]:
            for result in self._call(payload):
                self.emit_mapping(result, "yielded")


class _Async(FunctionRoutine):
    async def logic(self, slot_data: SlotData, policy_message: Any, state: Any) -> None:
        for payload in slot_data["input"]:
            self.emit_mapping(await self._call(payload), "returned")


class _AsyncGenerator(FunctionRoutine):
    async def logic(self, slot_data: SlotData, policy_message: Any, state: Any) -> None:
        for payload in slot_data["input"]:
            async for result in self._call(payload):
                self.emit_mapping(result, "yielded")


@overload
def routine(fn: Callable[..., Any], /) -> type[FunctionRoutine]: ...
@overload
def routine(
    *,
    name: str | None = None,
    policy: ActivationPolicy | None = None,
    concurrency: int = 1,
    concurrency_by: str | None = None,
    timeout: float | None = None,
    error_handler: ErrorHandler | None = None,
) -> Callable[[Callable[..., Any]], type[FunctionRoutine]]: ...
def routine(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    policy: ActivationPolicy | None = None,
    concurrency: int = 1,
    concurrency_by: str | None = None,
    timeout: float | None = None,
    error_handler: ErrorHandler | None = None,
) -> type[FunctionRoutine] | Callable[[Callable[..., Any]], type[FunctionRoutine]]:
    """Make a routine class of a function; plain, async, generator or async generator.

    Its parameters become keys of the payloads that arrive in slot ``input``, a parameter ``**kwargs`` gets
    the rest. A mapping that it returns, and each that it yields, is emitted on event ``output``.

    :param name: of the class; the function's if not given.
    :param policy: immediate if not given.
    :param concurrency_by: one activation at a time per value of this payload key; see
        :meth:`Routine.set_concurrency`.
    :param timeout: of one activation, in seconds.
    :param error_handler: with ``EMIT`` the routine also has the event ``error``.
    """
    options = {
        "policy": policy,
        "concurrency": concurrency,
        "concurrency_by": concurrency_by,
        "timeout": timeout,
        "error_handler": error_handler,
    }
    if fn is not None:
        return _routine_class(fn, name, options)
    return lambda fn: _routine_class(fn, name, options)


def _routine_class(
    fn: Callable[..., Any], name: str | None, options: Mapping[str, Any]
) -> type[FunctionRoutine]:
    if not callable(fn) or isinstance(fn, type):
        raise refused(InvalidTypeError, "@routine", fn, "a function", fix=_fix(fn))
    if _is_method(fn):
        fix = "make a subclass of Routine, or move the function out of its class"
        raise refused(InvalidTypeError, "@routine", fn, "a function, not a method", fix=fix)
    class_name = _own_name(fn) if name is None else checked_name("routine", name)
    body = {
        "__doc__": fn.__doc__,
        "__module__": fn.__module__,
        "__qualname__": class_name,
        "__wrapped__": staticmethod(fn),
        "fn": staticmethod(fn),
        "_call": by_name(fn, f"function {call_name(fn)}", whole_payload=False),
        "_options": options,
    }
    kind: type[FunctionRoutine] = type(class_name.rpartition(".")[2], (_kind_of(fn),), body)
    kind()  # refuses wrong options where they are written
    return kind


def _fix(given: object) -> str:
    if isinstance(given, type) and issubclass(given, Routine):
        return "a class of routines is one already, so leave the decorator out"
    if isinstance(given, type):
        return "put the decorator above a function; for a class, subclass Routine"
    return "write @routine or @routine(name=...)"


def _is_method(fn: Callable[..., Any]) -> bool:
    """Whether ``fn`` stands in the body of a class and waits for its object; a bound method does not."""
    outer = call_name(fn).rpartition(".")[0]
    if not isinstance(fn, FunctionType) or not outer or outer.endswith("<locals>"):
        return False
    return fn.__code__.co_varnames[:1] in (("self",), ("cls",))


def _own_name(fn: Callable[..., Any]) -> str:
    """Under which the class goes; what has none cannot be told apart in a flow."""
    name = getattr(fn, "__name__", "<none>")
    if name.startswith("<"):
        fix = "give it one: routine(name='double')(...)"
        raise refused(InvalidValueError, "@routine", fn, "a function with a name", fix=fix)
    return call_name(fn)


def _kind_of(fn: Callable[..., Any]) -> type[FunctionRoutine]:
    if is_async_generator(fn):
        return _AsyncGenerator
    if is_generator(fn):
        return _Generator
    return _Async if is_async(fn) else _Plain
