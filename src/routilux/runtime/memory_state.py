"""States of routines in workers in memory, and the mistakes with them that debug mode looks for."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from routilux.errors import shown
from routilux.model.context import running
from routilux.model.routine_state import RoutineState, checked_change, checked_number
from routilux.tracebacks import is_of_user

if TYPE_CHECKING:
    from threading import RLock

_NONE: Any = object()
ALL: Any = object()  # in place of a key: every one was read


class MemoryState(RoutineState):
    """A routine's state in a worker in memory: the objects themselves, changed at once."""

    __slots__ = ("_lock", "_routine_id", "_states")

    def __init__(self, states: dict[str, dict[str, Any]], routine_id: str, lock: RLock) -> None:
        self._states = states
        self._routine_id = routine_id
        self._lock = lock

    @property
    def _where(self) -> str:  # type: ignore[override]
        return f"state of routine {self._routine_id!r}"

    @property
    def _values(self) -> dict[Any, Any]:
        return self._states.get(self._routine_id, {})

    def __getitem__(self, key: Any) -> Any:
        return self._values[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        with self._lock:
            self._states.setdefault(self._routine_id, {})[key] = value

    def __delitem__(self, key: Any) -> None:
        with self._lock:
            del self._values[key]

    def __iter__(self) -> Iterator[Any]:
        with self._lock:
            return iter(list(self._values))

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        with self._lock:
            return repr(self._values)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        with self._lock:
            return self._states.setdefault(self._routine_id, {}).setdefault(key, default)

    def add(self, key: Any, n: float = 1) -> None:
        where = f"{self._where}[{shown(key)}]"
        checked_number(f"what is added to {where}", n)
        with self._lock:
            self[key] = checked_number(where, self._values.get(key, 0)) + n

    def change(self, key: Any, fn: Callable[[Any], Any], default: Any = None) -> Any:
        while True:  # user code runs outside the lock, so another caller may come in between
            before = self._values.get(key, _NONE)
            old = default if before is _NONE else before
            value = checked_change(f"{self._where}[{shown(key)}]", old, fn(old))
            with self._lock:
                if self._values.get(key, _NONE) is before:
                    self[key] = value
                    return value


class WatchedState(MemoryState):
    """The state of a routine whose activations overlap, in memory: warns of a value that is read and then assigned."""

    __slots__ = ()

    def __getitem__(self, key: Any) -> Any:
        note_read(key)
        return super().__getitem__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        look_at_writes((key,))
        super().__setitem__(key, value)

    def add(self, key: Any, n: float = 1) -> None:
        self._plainly().add(key, n)

    def change(self, key: Any, fn: Callable[[Any], Any], default: Any = None) -> Any:
        return self._plainly().change(key, fn, default)

    def _plainly(self) -> MemoryState:
        return MemoryState(self._states, self._routine_id, self._lock)


def watched(activation: Any) -> bool:
    """Whether a plain update of its routine's state can be lost, and debug mode is to say so."""
    if activation is None:
        return False
    worker = activation.node.worker
    return bool(worker.engine.debug and activation.mailbox.concurrency > 1 and not worker.journaled)


def note_read(key: Any) -> None:
    """Logic has read a key of its routine's state."""
    activation: Any = running.get()
    if activation.reads is None:
        activation.reads = set()
    activation.reads.add(key)


def look_at_read(state: Any, routine_id: str) -> None:
    """All of a routine's state is read."""
    activation = _own(state)
    if activation is not None and activation.mailbox.routine_id == routine_id and watched(activation):
        note_read(ALL)


def look_at_change(state: Any, routine_id: str, keys: Iterable[Any]) -> None:
    """These keys of a routine's state are about to be assigned."""
    activation = _own(state)
    if activation is None or not activation.debug:
        return
    own = activation.mailbox.routine_id
    if own == routine_id:
        if watched(activation):
            look_at_writes(keys)
        return
    _warn(
        f"routine {own!r} changes the state of routine {routine_id!r}. Each routine owns its own: write "
        "self.state[key] = value, or current().routine_state[key] = value in a function; what several routines change "
        "belongs into state.shared_data"
    )


def look_at_writes(keys: Iterable[Any]) -> None:
    activation: Any = running.get()
    read = activation.reads or ()
    lost = [key for key in keys if key in read or ALL in read]
    if lost:
        mailbox = activation.mailbox
        _warn(
            f"routine {mailbox.routine_id!r} reads {shown(lost[0])} of its state and then assigns it. Up to "
            f"{mailbox.concurrency} of its activations overlap, and what another one assigns in between is lost: use "
            f"self.state.add({shown(lost[0])}) or self.state.change({shown(lost[0])}, fn)"
        )


def _own(state: Any) -> Any:
    """The activation that runs here, if the state is its worker's."""
    activation: Any = running.get()
    return activation if activation is not None and activation.node.worker.state is state else None


def _warn(message: str) -> None:
    """A warning that stands at the line of the logic, however many calls of ours lie in between."""
    level, frame = 2, sys._getframe(1)  # noqa: SLF001
    while frame.f_back is not None and not is_of_user(frame.f_code.co_filename):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, RuntimeWarning, stacklevel=level)
