"""The seams of Routilux on one page.

What lies above ``kernel`` and below the edges meets here and nowhere else: the runtime, the stores and the
monitoring know these contracts and not each other. ``load`` is the one place that names the implementations that
come with the package; each is imported when it is first used, which keeps ``import routilux`` light.
So do annotations that are no texts: ``NamedTuple`` compiles each text.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import Context
from typing import Any, NamedTuple, Protocol, TypeAlias

from routilux.errors import StoreError
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
    """The jobs that an item or an activation belongs to; looked up when it is asked for, not for every hop."""
    return tuple(member.job.job_id for member in account.members)


Record: TypeAlias = WorkerChanged | JobChanged | Emitted | Activated | Dropped


Row: TypeAlias = tuple[Any, ...]
"""A record that is not made yet: its class, then its fields. The hot path makes one of these for every hop."""


def record_of(row: Row) -> Record:
    record: Record = row[0]._make(row[1:])
    return record


class RowObserver(Protocol):
    """An observer that takes rows as they are and makes records when they are read. It must not raise."""

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

    It is to be called in ``context``, which is its own: ``context.run(logic, …)``, or
    ``create_task(…, context=context)``.
    There ``routilux.model.context.running`` holds ``activation``.
    """

    logic: Callable[..., Any]
    slot_data: Mapping[str, Sequence[Mapping[str, Any]]]
    message: Any
    state: Any
    activation: Any
    context: Context


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


# What a store keeps, row by row. ``bytes`` are the codec's and opaque to the store; times are seconds since the
# epoch. Texts may hold anything: nothing at all, quotes, U+0000, halves of surrogate pairs. Those of one key take at
# most ``model.checks.KEY_BYTES`` together, and one value 256 MiB.


class WorkerRow(NamedTuple):
    """``status`` is running or paused, or stopped for a worker that has ended for good; ``kind`` is worker or
    execution. Items of the worker have numbers below ``next_number``."""

    worker_id: str
    flow_id: str
    fingerprint: str
    kind: str
    status: str
    next_number: int
    updated_at: float
    data: bytes


class ItemRow(NamedTuple):
    """An item that waits in the slot ``place`` ("routine.slot"), or in an activation that has not ended.

    ``job_ids`` is a JSON list of the jobs that it belongs to.
    """

    worker_id: str
    place: str
    number: int
    job_ids: str
    source: str
    time: float
    data: bytes


class ItemKey(NamedTuple):
    worker_id: str
    place: str
    number: int


class NoteKey(NamedTuple):
    """Names one value of a worker: ``kind`` says what it is, ``owner`` whose, ``name`` which.

    A kind that begins with "job." belongs to the job of the id ``owner`` and goes with it; the same holds for entries.
    One that begins with "item." is an index of items at the place ``owner``.
    """

    worker_id: str
    kind: str
    owner: str
    name: str


class EntryRow(NamedTuple):
    """One entry of a list that only grows, in the order of ``number``: a log, a trace, the outputs of a job."""

    worker_id: str
    kind: str
    owner: str
    number: int
    data: bytes


class JobRow(NamedTuple):
    """A job; ``serial`` is its place in the order of posting within its worker, and what tells it from another job of
    the same id: neither it nor the worker ever changes.

    How many of its items are stored is counted beside it: see ``Changes.counts``.
    """

    job_id: str
    worker_id: str
    flow_id: str
    status: str
    serial: int
    created_at: float
    started_at: float | None
    completed_at: float | None
    data: bytes


PLAIN_JOB = b'{"metadata":{},"paused":false,"error":null,"outputs_dropped":0}'
"""``JobRow.data`` of a job of which there is nothing to say."""


class StoredJob(NamedTuple):
    """A job as it is read: the row, and how many items of it are stored."""

    row: JobRow
    items: int


class Tombstone(NamedTuple):
    """The row of a job that was pruned while an idempotency key named it."""

    row: JobRow


class LetterRow(NamedTuple):
    """An item that was set aside. ``job_ids`` is a JSON list."""

    worker_id: str
    number: int
    flow_id: str
    place: str
    job_ids: str
    reason: str
    error: str | None
    time: float
    data: bytes


class KeyRow(NamedTuple):
    """An idempotency key: the same one on the same flow names the same job until ``expires_at``.

    ``digest`` stands for the slot, the payload and the metadata that it came with.
    """

    flow_id: str
    key: str
    worker_id: str
    job_id: str
    digest: str
    created_at: float
    expires_at: float


class PropertyRow(NamedTuple):
    """What holds for the store as a whole; see ``FLOOR`` and ``UNFINISHED``."""

    name: str
    value: str


FLOOR = "floor"
"""The property that says, in decimal digits, below which number the items of workers that were pruned had theirs.
``Store.prune`` raises it."""

UNFINISHED = "unfinished"
"""The property of a store that is being filled, and says with which call. Nobody opens it before that has ended."""


class Command(NamedTuple):
    """What a runtime asks of the one that runs a worker. ``data`` is the codec's."""

    command_id: str
    worker_id: str
    kind: str
    data: bytes


class Answer(NamedTuple):
    """What came of a command; ``data`` is the codec's."""

    command_id: str
    worker_id: str
    data: bytes


class Changes:
    """What one transaction writes: all of it or nothing.

    Within one transaction the order is: ``forgotten``, then everything else, where each row is written or removed
    once (``notes`` and ``properties`` with None are removed). ``workers`` and ``jobs`` replace the row of the same id;
    ``items``, ``entries``, ``letters`` and ``tombstones`` are new. ``counts`` is added to the number of stored items of
    a job, after ``jobs``. ``answers`` are those to commands of other runtimes: see :class:`Commands`.
    """

    __slots__ = (
        "answers", "counts", "entries", "forgotten", "items", "jobs", "keys", "letters", "notes", "properties",
        "redriven", "taken", "tombstones", "workers",
    )  # fmt: skip

    def __init__(self) -> None:
        self.forgotten: list[str] = []  # workers: with items, notes and entries, but not what belongs to jobs
        self.workers: dict[str, WorkerRow] = {}
        self.items: list[ItemRow] = []
        self.taken: list[ItemKey] = []  # items that have ended
        self.notes: dict[NoteKey, bytes | None] = {}
        self.entries: list[EntryRow] = []
        self.jobs: dict[str, JobRow] = {}
        self.counts: dict[str, int] = {}
        self.letters: list[LetterRow] = []
        self.redriven: list[tuple[str, int]] = []  # letters to remove: worker and item number
        self.keys: list[KeyRow] = []
        self.properties: dict[str, str | None] = {}
        self.tombstones: dict[str, JobRow] = {}
        self.answers: list[Answer] = []


FLIGHT_SEATS = 1_024


class FlightRecorder(Protocol):
    """Remembers what each thread runs, without a flush: a dead process leaves it behind, a dead machine does not.

    Who takes a seat pops it from ``free_seats``, and appends it again after :meth:`leave`; whoever else has the same
    recorder does so too.
    """

    free_seats: list[int]

    def enter(self, seat: int, text: str) -> None:
        """The thread in this seat, below ``FLIGHT_SEATS``, begins a text of at most 62 bytes; called for every
        activation."""

    def leave(self, seat: int) -> None: ...


class Death(Protocol):
    """Of a process that had the store open: ``texts`` is what its threads ran."""

    texts: Sequence[str]

    def clear(self, texts: Iterable[str]) -> None:
        """What there was to do about these is done; they are told no more, here or in another process."""


MOST_DUE = 1_000


class Commands(Protocol):
    """Asks whoever runs a worker to do something, and hears what came of it. Every method is safe from any thread.

    A command waits until it is answered, in the batch that has what it led to (``Changes.answers``), or withdrawn: one
    of the two happens. Whoever runs the worker next finds those that wait.
    """

    def runner(self, worker_id: str) -> str | None:
        """Who runs a worker at the moment, for people; None if it is free to be claimed."""

    def ask(self, command: Command) -> None:
        """The command is durable when this returns. Again, with the same id, it changes nothing."""

    def withdraw(self, command_id: str) -> bool:
        """True: it has not happened, and will not. False: it is answered."""

    def answers(self, command_ids: Sequence[str]) -> dict[str, bytes]:
        """The answers to those of these commands that have one."""

    def forget(self, command_ids: Sequence[str]) -> None:
        """Their answers have been heard."""

    def due(self, worker_ids: Sequence[str], known: Sequence[str] = ()) -> list[Command]:
        """The commands to these workers that wait, without those whose ids are ``known``; at most ``MOST_DUE``. Those
        of kind "post" come last, otherwise the oldest first."""

    def gone(self, command_ids: Sequence[str]) -> list[str]:
        """Those of these commands that are no more: withdrawn, or answered and forgotten."""

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake``, on any thread, when a command or an answer may have come; a second may pass before it is.
        Returns what ends that."""


OnLost: TypeAlias = Callable[[StoreError], None]
"""Told why a worker that was claimed is another's now."""


class Store(Protocol):
    """Keeps workers, their items, states and jobs. Every method is safe from any thread.

    Guarantees
        * ``write`` returns when everything in it is durable, and raises when nothing of it is: StoreFullError,
          StoreError; StoreDataError where the same changes could not be written later either. Only StoreUnknownError
          leaves open which; ``settle`` finds it out.
        * What was written is what every later read gives, in this process and in the next one that opens the store.
        * A row that was altered outside raises StoreCorruptError when it is read.
    """

    name: str
    """The store as users know it, such as its URL, without a password."""

    @property
    def only_read(self) -> StoreError | None:
        """Why nothing can be changed through this one, with who can; None for a store that can be run."""
        return None

    @property
    def commands(self) -> Commands | None:
        """How to reach workers that other runtimes run; None where there are no others, or no way to."""
        return None

    def write(self, changes: Changes) -> frozenset[int | str]:
        """Commit. Only one thread calls it at a time. Changes without rows ask whether rows could be added.

        A key of ``keys`` is taken by a row that had not expired when the new one was created, the id of a job by a row
        of another worker or serial. Where any is, nothing is written, and the positions of such keys are returned, or
        else the ids of such jobs, or of commands of ``answers`` that do not wait any more. An empty set says that
        everything is durable.
        """

    def keep_refused(self, changes: Changes, why: str) -> str:
        """Keep changes that can never be written, as text for people and outside of what ``write`` writes; returns
        where. Raises StoreError if that cannot be."""

    def settle(self) -> bool:
        """After StoreUnknownError: whether the last ``write`` is durable after all. Raises StoreError while that
        cannot be found out."""

    def worker(self, worker_id: str) -> WorkerRow | None: ...

    def workers(self) -> list[WorkerRow]:
        """In the order of their ids."""

    def notes(self, worker_id: str, *, with_jobs: bool = True) -> list[tuple[NoteKey, bytes]]:
        """The notes of a worker, ordered by kind, owner and name; all, or without those of its jobs and items."""

    def notes_of_job(self, worker_id: str, job_id: str) -> list[tuple[NoteKey, bytes]]:
        """The notes that belong to a job, ordered by kind and name. Takes no longer where there are many jobs."""

    def notes_between(
        self, worker_id: str, kind: str, owner: str, *, after: str, before: str, limit: int
    ) -> list[tuple[NoteKey, bytes]]:
        """The first so many notes of one kind and owner whose names lie between two, which are left out, by name.

        Takes no longer where there are many others. Names are compared by code points.
        """

    def entries(self, worker_id: str, kind: str, owner: str, *, newest: int | None = None) -> list[EntryRow]:
        """In their order; only the newest so many if asked for."""

    def items(
        self, worker_id: str, place: str, *, after: int = -1, limit: int | None = None
    ) -> list[ItemRow]:
        """The items at a place with higher numbers than ``after``, lowest first."""

    def items_of(self, keys: Sequence[ItemKey]) -> list[ItemRow]:
        """Those of these items that are there, in the order that was asked for."""

    def tail(self, worker_id: str, place: str) -> int:
        """The highest number of an item at a place; -1 if there is none. Takes no longer for a long queue."""

    def places(self, worker_id: str) -> list[str]:
        """Where the worker has items, in their order."""

    def job(self, job_id: str) -> StoredJob | None:
        """The job; one that was pruned is known as long as a key names it."""

    def jobs(
        self,
        *,
        worker_id: str | None = None,
        flow_id: str | None = None,
        statuses: Sequence[str] | None = None,
        has_items: bool | None = None,
        after: tuple[float, str] | None = None,
        limit: int | None = None,
    ) -> list[StoredJob]:
        """In the order of ``(created_at, job_id)``, beyond ``after`` if given. ``has_items``: only those of which
        items are stored, or only those without."""

    def letters(self, *, worker_id: str | None = None, job_id: str | None = None) -> list[LetterRow]:
        """In the order of time, worker and number."""

    def key(self, flow_id: str, key: str, now: float) -> KeyRow | None:
        """The key, unless it has expired at ``now``."""

    def properties(self) -> dict[str, str]:
        """What holds for the store as a whole, by name; see ``FLOOR`` and ``UNFINISHED``."""

    def prune(self, now: float, *, finished_before: float, keep_finished: int, limit: int) -> int:
        """Remove keys that have expired, and finished jobs that ended before a time or are beyond the newest so
        many, with their notes and entries, and the stopped workers that have no job left. At most ``limit`` rows of
        each; returns how many rows were removed. Not called while ``write`` runs.

        A job stays as long as items of it are stored or a letter names it. Where a key names it, its row stays as a
        :class:`Tombstone`.
        """

    def claim(self, worker_id: str) -> None:
        """From here on this process alone runs the worker. StoreLockedError, naming the owner, if it cannot."""

    def when_lost(self, worker_id: str, call: OnLost) -> None:
        """Call this, at most once and on any thread, when another process is found to have a worker that was claimed;
        not after it was given up. ``write`` refuses what is of it with StoreFencedError, naming it, until then."""

    def give_up(self, worker_id: str) -> None:
        """Others may run the worker."""

    def watch(self) -> FlightRecorder | None:
        """Where the threads of this process note what they run, the same for all runtimes; None if the store has no
        place for it."""

    def deaths(self) -> Sequence[Death]:
        """Those of processes that had the store open, as far as their texts have not been cleared: see ``watch``. Of
        each that can have died on this machine, until now."""

    def close(self) -> None:
        """Give back everything. What was written stays."""


_IMPLEMENTATIONS = {
    "log capture": "routilux.runtime.captured_logs:CAPTURE",
    "print capture": "routilux.runtime.captured_prints:CAPTURE",
    "async runner": "routilux.runtime.async_loop:AsyncLoop",
    "codec": "routilux.store.codec:JsonCodec",
    "built-in routines": "routilux.routines:BUILT_IN",
    "documents": "routilux.dsl.documents:documents",
    "monitor": "routilux.monitoring.feed:Feed",
    "journal": "routilux.runtime.journal.log:Journal",
    "journaled worker": "routilux.runtime.journal.opening:create",
    "opener": "routilux.runtime.journal.opening:Opener",
    "store of a URL": "routilux.store:open_store",
    "memory store": "routilux.store.memory:MemoryStore",
}


def load(name: str) -> Any:
    """Import the implementation that comes with the package under this name."""
    import importlib  # not before something is loaded

    module, _, attribute = _IMPLEMENTATIONS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


bind_documents(lambda: load("documents"))
