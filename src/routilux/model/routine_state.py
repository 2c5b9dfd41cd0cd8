"""What a routine remembers in one worker, as its logic sees it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any, Self

from routilux.errors import InvalidTypeError, refused, shown, unknown


class RoutineState(MutableMapping[Any, Any]):
    """A mapping that belongs to one routine in one worker: ``self.state`` in logic, and ``current().routine_state``.

    ::

        class Count(Routine):
            def logic(self, slot_data, policy_message, state):
                self.state.add("seen")
                self.state["last"] = slot_data["input"][0]["name"]

    In memory it holds the very objects that are assigned, and a change takes effect at once. With a store it holds
    copies, and what an activation changes takes effect when the activation has ended, or not at all.
    """

    __slots__ = ()
    _where: str  # names it in messages

    def __getattr__(self, name: str) -> Any:
        """Called for a name that is none of its own."""
        if name.startswith("_"):
            raise AttributeError(name)
        own = [other for other in dir(RoutineState) if not other.startswith("_")]
        fix = f"a key is read and assigned in brackets: [{name!r}]"
        raise AttributeError(str(unknown("attribute", name, own, where=f"of the {self._where}", fix=fix)))

    def __ior__(self, other: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> Self:
        """``self.state |= {"key": value}``: the same as :meth:`update`."""
        self.update(other)
        return self

    def copy(self) -> dict[Any, Any]:
        """A plain dict of what is there now."""
        return dict(self)

    @abstractmethod
    def add(self, key: Any, n: float = 1) -> None:
        """Add ``n`` to a number, 0 if there is none yet. No other activation can come in between.

        It tells nothing of the number, so that two activations that add at the same time need not know of each
        other; use :meth:`change` where the new number matters. Raises InvalidTypeError for what is no int or float.
        """

    @abstractmethod
    def change(self, key: Any, fn: Callable[[Any], Any], default: Any = None) -> Any:
        """Put ``fn(value)`` in the place of a value, ``fn(default)`` if there is none, and return what was put there.

        No other activation can come in between: if one does, ``fn`` is called again with what that one has left. So
        it should do nothing but compute.
        """


def checked_change(where: str, old: Any, new: Any) -> Any:
    """Return what takes the place of a value, or raise InvalidTypeError for None in the place of something.

    A function that changes a value in place returns None, and the value would be lost.
    """
    if new is None and old is not None:
        fix = "return the new value; to put None there, assign it: state[key] = None"
        raise refused(
            InvalidTypeError,
            f"what fn returned for {where}",
            new,
            f"what takes the place of {shown(old)}",
            fix=fix,
        )
    return new


def checked_number(where: str, value: Any) -> Any:
    """Return a number that can be added to, or raise InvalidTypeError."""
    if type(value) is not int and type(value) is not float:
        raise refused(
            InvalidTypeError, where, value, "an int or a float", fix="use change() for other values"
        )
    return value
