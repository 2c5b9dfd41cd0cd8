"""The seams of Routilux on one page.

What lies above ``kernel`` and below the edges meets here and nowhere else: the runtime, the stores and the
monitoring know these contracts and not each other. ``load`` is the one place that names the implementations that
come with the package; each is imported when it is first used, which keeps ``import routilux`` light.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from routilux.kernel.account import Account
from routilux.model.flow import Flow, bind_documents


class Clock(Protocol):
    """Time as the runtime sees it; a simulation gives its own."""

    def monotonic(self) -> float:
        """Seconds that never go back; durations, retries and time-outs are measured with it."""

    def time(self) -> float:
        """Seconds since the epoch; only shown to people, never used to decide."""


# -- Observer ----------------------------------------------------------------------------------------------


class WorkerChanged(NamedTuple):
    time: float
    worker_id: str
    flow_id: str
    status: str


class JobChanged(NamedTuple):
    """A job was accepted (pending), has started (running) or has ended."""

    time: float
    worker_id: str
    job_id: str
    status: str


class _Emitted(NamedTuple):
    time: float
    worker_id: str
    account: Account
    source: str
    target: str
    number: int


class Emitted(_Emitted):
    """An item is on its way into a slot; ``number`` is the item's number in its worker."""

    __slots__ = ()

    @property
    def job_ids(self) -> tuple[str, ...]:
        return job_ids_of(self.account)


class _Activated(NamedTuple):
    time: float
    worker_id: str
    account: Account
    routine_id: str
    attempt: int
    duration: float
    outcome: str


class Activated(_Activated):
    """An activation has ended: ``outcome`` is completed, failed, skipped or retried."""

    __slots__ = ()

    @property
    def job_ids(self) -> tuple[str, ...]:
        return job_ids_of(self.account)


class Dropped(NamedTuple):
    """An item did not go its way: a full slot of a dropping mode, a dead letter, a discarded result."""

    time: float
    worker_id: str
    job_ids: tuple[str, ...]
    target: str
    number: int
    reason: str


def job_ids_of(account: Account) -> tuple[str, ...]:
    """The jobs that an item or an activation belongs to; looked up when somebody asks, not for every hop."""
    return tuple(member.job.job_id for member in account.members)


Record: TypeAlias = WorkerChanged | JobChanged | Emitted | Activated | Dropped


Row: TypeAlias = tuple[Any, ...]
"""A record that is not made yet: its class, then its fields. The hot path makes one of these for every hop."""


def record_of(row: Row) -> Record:
    record: Record = row[0]._make(row[1:])
    return record


class RowObserver(Protocol):
    """An observer that takes rows as they are and makes records when somebody reads them. It must not raise."""

    def take_row(self, row: Row) -> object: ...


class Observer(Protocol):
    """Told what happened, in the order in which each thread did it; times are monotonic seconds.

    Called on the threads that do the work, without any lock. What it raises is logged and never changes an
    outcome; an observer that needs time should only take note here.
    """

    def record(self, record: Record) -> None: ...


# -- Tap ---------------------------------------------------------------------------------------------------


class Emission(NamedTuple):
    """One call of ``emit()``: the whole payload, before the mapping of any connection."""

    time: float
    worker_id: str
    job_ids: tuple[str, ...]
    routine_id: str
    event: str
    data: dict[str, Any]


class Tap(Protocol):
    """Shown what routines emit, with the payloads, whether anything is connected to the event or not.

    Called on the threads that do the work, without any lock, before an item is on its way: what it leads to comes
    after it. It must be fast and must not raise.
    """

    def watch(self, worker_id: str, flow: Flow) -> None:
        """Activations of this worker that start from now on are shown."""

    def note(self, emission: Emission) -> None: ...

    def take_back(self, emission: Emission) -> None:
        """The ``emit()`` of this emission, the very object, has raised."""


# -- Gate --------------------------------------------------------------------------------------------------


class Gate(Protocol):
    """Asked before an activation starts and before an item enters a slot, where a breakpoint is set.

    It can hold; it cannot drop. Both calls come without any lock and may take their time.
    """

    def holds_activation(
        self, worker_id: str, routine_id: str, slot_data: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> bool: ...

    def holds_item(self, worker_id: str, routine_id: str, slot: str, data: Mapping[str, Any]) -> bool: ...


# -- TaskRunner --------------------------------------------------------------------------------------------


class Task(NamedTuple):
    """The logic of one activation, ready to be called somewhere: ``logic(slot_data, message, state)``.

    ``activation`` is what ``routilux.model.context.running`` is to hold while the logic runs.
    """

    logic: Callable[..., Any]
    slot_data: Mapping[str, Sequence[Mapping[str, Any]]]
    message: Any
    state: Any
    activation: Any


class TaskRunner(Protocol):
    """Runs logic somewhere else than on a thread of the pool: an event loop, another process."""

    def start(self, task: Task, done: Callable[[BaseException | None], None]) -> Callable[[], None]:
        """Begin, and return at once; call ``done`` exactly once, from any thread. Returns a cancel function."""

    def close(self) -> None:
        """Begin nothing any more and give back threads and processes."""


# -- Codec and Store ---------------------------------------------------------------------------------------


class Codec(Protocol):
    """Payloads and states as readable JSON and back."""

    def encode(self, value: Any, where: str) -> bytes:
        """Raise SerializationError naming the place in the value, seen from ``where``."""

    def decode(self, data: bytes, where: str) -> Any: ...

    def checker(self, type_: Any) -> Callable[[Mapping[str, Any]], None]:
        """A function that raises TypeError, naming the place, for a payload that is not of this type."""


class Store(Protocol):
    """Keeps snapshots of workers, each under the worker's id; all-or-nothing, last write wins.

    A snapshot that ``put`` has accepted is what the next ``get`` gives, whatever happens in between. Safe for
    threads. Raises StoreError and its leaves.
    """

    def put(self, worker_id: str, snapshot: Mapping[str, Any]) -> None: ...

    def get(self, worker_id: str) -> dict[str, Any] | None: ...

    def worker_ids(self) -> list[str]: ...

    def delete(self, worker_id: str) -> None: ...

    def close(self) -> None: ...


_IMPLEMENTATIONS = {
    "async runner": "routilux.runtime.async_loop:AsyncLoop",
    "codec": "routilux.store.codec:JsonCodec",
    "built-in routines": "routilux.routines:BUILT_IN",
    "documents": "routilux.dsl.documents:documents",
    "monitor": "routilux.monitoring.feed:Feed",
    "memory store": "routilux.store.memory:MemoryStore",
}


def load(name: str) -> Any:
    """Import the implementation that comes with the package under this name."""
    module, _, attribute = _IMPLEMENTATIONS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


bind_documents(lambda: load("documents"))
