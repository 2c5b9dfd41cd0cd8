"""A routine that stands for others like it."""

from __future__ import annotations

from typing import Any, Final

from routilux.errors import InvalidTypeError, InvalidValueError, refused
from routilux.model.calls import parameters_of_constructor
from routilux.model.routine import Routine
from routilux.model.slot import Slot

_LIMITS: Final = ("max_queue_length", "watermark", "on_full")


class Prototype:
    """Makes routines of the class of ``routine``, set up as that is now; its config comes separately."""

    def __init__(self, routine: Routine, where: str) -> None:
        self._class = type(routine)
        if parameters_of_constructor(self._class):
            raise refused(InvalidTypeError, where, routine, "a routine whose constructor has no parameters")
        self.config: dict[str, Any] = dict(routine.config)
        self._policy = routine.activation_policy
        self._error_handler = routine.error_handler
        self._concurrency, self._concurrency_by = routine.concurrency, routine.concurrency_by
        self._timeout = routine.timeout
        self._limits = {name: _limits(slot) for name, slot in routine.slots.items()}
        own = routine.own_logic
        self._logic = None if getattr(own, "__self__", None) is routine else own
        self._check(routine, where)

    def _check(self, routine: Routine, where: str) -> None:
        """Slots and events must come from the class and the config: they are declared by code."""
        made = self().set_config(**self.config)
        for kind, mine, declared in (
            ("slot", routine.slots, made.slots),
            ("event", routine.events, made.events),
        ):
            odd = sorted(mine.keys() ^ declared.keys())
            if odd:
                raise InvalidValueError(
                    f"{where}: {kind} {odd[0]!r} of {routine} is not declared by its class in the same way; declare it "
                    "in the constructor or in config_changed(), or register a factory"
                )

    def __call__(self) -> Routine:
        made = self._class()
        if self.config:
            made.set_config(**self.config)  # slots may depend on it
        if self._policy is not None:
            made.set_activation_policy(self._policy)
        made.set_error_handler(self._error_handler)
        made.set_concurrency(self._concurrency, by=self._concurrency_by)
        made.set_timeout(self._timeout)
        if self._logic is not None:
            made.set_logic(self._logic)
        for name, limits in self._limits.items():
            if name in made.slots and _limits(made.slots[name]) != limits:
                made.set_queue(name, **limits)
        return made


def _limits(slot: Slot) -> dict[str, Any]:
    return {name: getattr(slot, name) for name in _LIMITS}
