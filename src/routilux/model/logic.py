"""The logic of a routine in the one form that is run: ``logic(slot_data, policy_message, state)``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from routilux.errors import InvalidTypeError, refused
from routilux.model.calls import by_name, call_name, is_async, is_generator, takes_three
from routilux.model.item import Payload

if TYPE_CHECKING:
    from routilux.model.slot import Slot

Logic: TypeAlias = Callable[..., Any]
SlotData: TypeAlias = Mapping[str, Sequence[Payload]]

EXPECTED = "logic(slot_data, policy_message, state)"


def logic_problem(fn: object, where: str) -> InvalidTypeError | None:
    """Why ``fn`` cannot be the logic of a routine, if it cannot."""
    if not callable(fn):
        return refused(InvalidTypeError, f"logic of {where}", fn, f"a callable {EXPECTED}")
    if not takes_three(fn):
        from inspect import Signature, signature

        parameters = signature(fn).parameters.values()
        declared = Signature([parameter.replace(annotation=Signature.empty) for parameter in parameters])
        return InvalidTypeError(
            f"logic of {where} is called by position as {EXPECTED}, but {call_name(fn)} is declared as "
            f"{call_name(fn)}{declared}; give it these three parameters, under any names"
        )
    if is_generator(fn):
        return InvalidTypeError(
            f"logic of {where} is a generator ({call_name(fn)}), so calling it would run nothing; "
            "call self.emit() instead of yield, or make it a routine with the @routine decorator"
        )
    return None


def logic_of_handlers(slots: Mapping[str, Slot]) -> Logic:
    """Logic that gives each payload to the handler of its slot, and returns what the last one has returned."""
    handlers = {name: slot.handler for name, slot in slots.items() if slot.handler is not None}
    calls = {
        name: by_name(handler, f"handler of slot {slots[name].qualified_name!r}", whole_payload=True)
        for name, handler in handlers.items()
    }
    asynchronous = {name for name, handler in handlers.items() if is_async(handler)}

    def call_handlers(slot_data: SlotData, policy_message: Any, state: Any) -> Any:
        result = None
        for slot, payloads in slot_data.items():
            call = calls[slot]
            for payload in payloads:
                result = call(payload)
        return result

    async def await_handlers(slot_data: SlotData, policy_message: Any, state: Any) -> Any:
        result = None
        for slot, payloads in slot_data.items():
            for payload in payloads:
                result = calls[slot](payload)
                if slot in asynchronous:
                    result = await result
        return result

    return await_handlers if asynchronous else call_handlers
