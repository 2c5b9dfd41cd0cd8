"""How work comes in: a job is made, counted, and its first item put into a slot, or nothing of it is accepted."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from routilux.errors import (
    ExecutionError,
    IdempotencyConflictError,
    InvalidTypeError,
    InvalidValueError,
    StateError,
    describe,
    refused,
    shown,
)
from routilux.kernel.account import JobAccount
from routilux.model.checks import check_key, checked_id
from routilux.model.context import running
from routilux.model.item import DeadLetter
from routilux.model.status import JobStatus
from routilux.ports import Answer, KeyRow
from routilux.runtime import waiting_for
from routilux.runtime.back_pressure import Poster, waits_to_create
from routilux.runtime.directory import job_ended
from routilux.runtime.job import JobContext, was_accepted
from routilux.runtime.state import WorkerState

if TYPE_CHECKING:
    from routilux.ports import Codec
    from routilux.runtime.book import JobBook
    from routilux.runtime.digests import Content
    from routilux.runtime.driver import Driver
    from routilux.runtime.engine import Engine
    from routilux.runtime.nodes import Node
    from routilux.runtime.waiting import Lines, Waits
    from routilux.runtime.worker import Worker

REMEMBERED_KEYS = 100_000


class Posted(NamedTuple):
    """What ``post`` returns: ``state, job = post(...)`` and ``post(...).job_id`` both work."""

    worker_state: WorkerState
    job_context: JobContext

    @property
    def job_id(self) -> str:
        return self.job_context.job_id

    @property
    def status(self) -> JobStatus:
        return self.job_context.status


class Post(NamedTuple):
    """One item that is to come in: where to, as what job, and how long it may wait.

    ``job_id``: of the job to join or to make; None makes one. ``lines``: of the event loop whose task posts, None for
    a thread. ``reply``: to the command by which another runtime asks for it.
    """

    worker: Worker
    node: Node
    slot: str
    payload: dict[str, Any]
    job_id: str | None
    metadata: Mapping[str, Any] | None
    deadline: float | None
    lines: Lines | None
    reply: Reply | None = None


class _KeyedPost:
    """A post with an idempotency key; the second caller waits until it is posted or refused.

    It keeps neither the payload nor the job, only what they were.
    """

    def __init__(self, content: Content) -> None:
        self.content = content
        self.refused = False
        self.state: WorkerState | None = None  # from when it is posted
        self.job_id = ""
        self._job: Callable[[], JobContext | None] = bool  # type: ignore[assignment]
        # Status, error, the times when it was created, started and completed, and how many outputs it had.
        self._ended: tuple[JobStatus, str | None, float, float | None, float | None, int] | None = None

    def posted_as(self, posted: Posted) -> None:
        job = posted.job_context
        self.job_id, self._job = job.job_id, weakref.ref(job)
        job.on_end(partial(self._note_end, job))
        self.state = posted.worker_state

    def _note_end(self, job: JobContext) -> None:
        error = None if job.error is None else describe(job.error)
        times = job.created_at, job.started_at, job.completed_at
        self._ended = (job.status, error, *times, len(job.outputs) + job.outputs_dropped)

    def job(self, driver: Driver) -> JobContext:
        """The job; if it is forgotten, how it ended."""
        return self._job() or self._remembered(driver)

    def _remembered(self, driver: Driver) -> JobContext:
        assert self.state is not None
        assert self._ended is not None  # else it is open, and in the book
        account = JobAccount(driver.lock())
        job = account.job = JobContext(self.job_id, self.state.worker_id, self.state.flow_id, account, driver)
        account.status, error, job.created_at, job.started_at, job.completed_at, job.outputs_dropped = (
            self._ended
        )
        job.error = None if error is None else ExecutionError(error, job_id=self.job_id)
        job.announce_end()
        return job


_Key: TypeAlias = tuple[str, str]
"""The id of a flow, and an idempotency key that was used on it."""


class Withdrawn(Exception):
    """The command that a post carries out waits no more: nothing of it was written."""


class Reply:
    """To a command that another runtime has asked: it is written in the record of what the command leads to."""

    is_handed_over = False  # in a record
    is_written = False

    def __init__(self, command_id: str, worker_id: str, codec: Codec) -> None:
        self.command_id = command_id
        self._worker_id = worker_id
        self._codec = codec

    def of(self, about: Mapping[str, Any]) -> Answer:
        """The answer, for a record that is handed over now."""
        data = self._codec.encode(dict(about), f"the answer to {self.command_id}")
        self.is_handed_over = True
        return Answer(self.command_id, self._worker_id, data)

    def written(self) -> None:
        self.is_written = True


class NameTaken(Exception):
    """An idempotency key, or the id of a job, came first from elsewhere: from another caller, or from another runtime
    that shares the store."""


class NoRoom(Exception):
    """Too many jobs are pending for one more, and the caller is not to wait here."""


class Posting:
    """Of one runtime; safe from any thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # The first post with a key, until it is posted or refused.
        self._under_way: dict[_Key, _KeyedPost] = {}
        self._keys: dict[_Key, _KeyedPost] = {}  # what was posted with a key, the oldest first
        self._keys_lock = engine.driver.lock()

    def post(
        self,
        worker: Worker,
        node: Node,
        slot: str,
        payload: dict[str, Any],
        job_id: str | None,
        metadata: Mapping[str, Any] | None,
        deadline: float | None,
        lines: Lines | None,
    ) -> Posted | Waits[Posted]:
        """A post without an idempotency key: a new job, or one more item of a job that this worker knows.

        It is posted when this returns, unless it has to wait for something first: then what that waits for. See
        :class:`Post` for the arguments; nearly every post needs none to be made.
        """
        created = None if job_id is not None else self._created_at_once(worker, None, metadata, lines)
        if created is None:
            return self._waits_to_post(Post(worker, node, slot, payload, job_id, metadata, deadline, lines))
        job = created[0]
        try:
            waits = worker.admit(node, slot, payload, job, deadline, lines)
        except BaseException as error:
            if not (isinstance(error, Exception) or was_accepted(error)) and job.account.posts:
                worker.refused(job)  # a Ctrl-C, before any of it was done
            raise
        if waits is not None:
            post = Post(worker, node, slot, payload, None, metadata, deadline, lines)
            return self._waits_to_enter(post, job, waits)
        if worker.closing or job.account.ended:
            self._look_after(worker, job)
        return Posted(worker.state, job)

    def carried_out(self, post: Post, idempotency_key: str | None) -> Waits[Posted]:
        """A post that another runtime asks for."""
        return self._waits_to_post(post) if idempotency_key is None else self.once(post, idempotency_key)

    def _waits_to_post(self, post: Post) -> Waits[Posted]:
        while True:
            job, _ = yield from self._job_of(post)
            try:
                return (yield from self._offered(post, job))
            except NameTaken:
                self._look_again(post)

    def _look_again(self, post: Post) -> None:
        """A name was taken in the store: of a given one is found there whose it is, and another id is made up."""
        if post.reply is not None:
            post.reply.is_handed_over = False
        if post.job_id is None:
            self._engine.book.draw_prefix()

    def _job_of(self, post: Post) -> Waits[tuple[JobContext, bool]]:
        """The job of a post, with the credit of its item; True beside it for a new one."""
        while True:
            job, new = None if post.job_id is None else self.known_job(post.worker, post.job_id), False
            if job is None:
                job, new = yield from self._new_job(post)
                if not new:
                    continue  # another caller has just made it, of whatever worker
            if new or job.account.join():
                return job, new
            yield from self._waits_to_be_taken_back(job)

    def _waits_to_enter(self, post: Post, job: JobContext, waits: Waits[None]) -> Waits[Posted]:
        try:
            yield from waits
        except NameTaken:
            self._look_again(post)
            return (yield from self._waits_to_post(post))
        self._look_after(post.worker, job)
        return Posted(post.worker.state, job)

    def once(self, post: Post, idempotency_key: str) -> Waits[Posted]:
        """The first post with a key makes the job; others wait for it and get the same."""
        if not isinstance(idempotency_key, str):
            raise refused(InvalidTypeError, "idempotency_key", idempotency_key, "text")
        if not idempotency_key:
            fix = "leave it out, or pass None, where a piece of work has no key"
            raise refused(
                InvalidValueError, "idempotency_key", idempotency_key, "text of 1 character or more", fix=fix
            )
        from routilux.runtime.digests import Content, content_of  # slow to import, and only keys need it

        if post.job_id is not None:
            checked_id("job_id", post.job_id)
        worker, payload, notes = post.worker, post.payload, dict(post.metadata or {})
        place = post.node.mailbox.slots[post.slot].qualified_name
        key = (worker.flow.flow_id, idempotency_key)
        check_key("idempotency_key", idempotency_key, key)
        stored_key = worker.key(idempotency_key, place, payload, notes)
        content = content_of(place, payload, notes) if stored_key is None else Content(stored_key.digest)
        mine = _KeyedPost(content)
        settle = partial(self._settle, key, mine, remembers=stored_key is None)  # else the store does
        try:
            try:
                while (first := self._first_with(key, mine)) is not mine:
                    if not (yield from self._waits_for_first(first, post)):
                        raise self._engine.book.full_error(
                            "the first post with this idempotency_key still waits for room"
                        )
                    if first.state is not None:
                        return self._same(first, content, key, post.job_id)
                    self._check_takes(worker)
                posted = yield from self._first(post, stored_key, mine)
                mine.posted_as(posted)
                return posted
            finally:
                settle()
        except BaseException:
            settle()  # a Ctrl-C may have come before the other had done it
            raise

    def _settle(self, key: _Key, mine: _KeyedPost, *, remembers: bool) -> None:
        """A post with a key is posted or refused, if it was the first one. May be repeated."""
        with self._keys_lock:
            mine.refused = mine.state is None
            if self._under_way.get(key) is mine:
                if not mine.refused and remembers:
                    self._keys[key] = mine
                    if len(self._keys) > REMEMBERED_KEYS:
                        del self._keys[next(iter(self._keys))]
                del self._under_way[key]
        self._engine.bell.ring()

    def _waits_for_first(self, first: _KeyedPost, post: Post) -> Waits[bool]:
        """Wait until it is known what becomes of the first post with a key; False at the deadline."""
        poster, bell = Poster(self._engine, None, post.lines), self._engine.bell

        def known() -> bool:
            if first.state is not None or first.refused:
                return True
            poster.check_goes_on()
            return False

        waits = bell.waits_for(known, post.deadline, holds=lambda: first.state is not None or first.refused)
        return (yield from poster.waits(waits, bell, room=False))

    def _first_with(self, key: _Key, mine: _KeyedPost) -> _KeyedPost:
        """The first post with this key, which is ``mine`` if no other has used it."""
        with self._keys_lock:
            return self._keys.get(key) or self._under_way.setdefault(key, mine)

    def _check_takes(self, worker: Worker) -> None:
        self._engine.check_open("post()")
        self._engine.directory.check_takes(worker)

    def _first(self, post: Post, key: KeyRow | None, mine: _KeyedPost) -> Waits[Posted]:
        """No caller here uses this key at the moment; the store may know it, from before or from elsewhere."""
        while True:
            known = None if key is None else post.worker.job_of_key(key, post.payload)
            if key is not None and known is not None:
                check_same_job((key.flow_id, key.key), known.job_id, post.job_id)
                return Posted(post.worker.state, known)
            job, new = yield from self._job_of(post)
            try:
                return (yield from self._offered(post, job, key=key))
            except NameTaken:
                self._look_again(post)
            except BaseException as error:
                accepted = job.account.posts > 0 if new else was_accepted(error)
                if key is None and accepted and not job.account.ended:
                    mine.posted_as(Posted(post.worker.state, job))
                raise

    def redrive(
        self, worker: Worker, node: Node, letter: DeadLetter, deadline: float | None
    ) -> Waits[Posted]:
        """A dead letter becomes an item of a new job, and is a dead letter no longer."""
        metadata = {"redriven_from": list(letter.job_ids)}
        post = Post(worker, node, letter.slot, dict(letter.data), None, metadata, deadline, None)
        while True:
            job, _ = yield from self._new_job(post)
            try:
                return (yield from self._offered(post, job, redriven=letter))
            except NameTaken:
                self._look_again(post)

    def _same(self, first: _KeyedPost, content: Content, key: _Key, job_id: str | None) -> Posted:
        how = first.content.difference(content)
        if how is not None:
            raise key_conflict(*key, first.job_id, how)
        check_same_job(key, first.job_id, job_id)
        assert first.state is not None
        return Posted(first.state, first.job(self._engine.driver))

    def begin(self, post: Post) -> Waits[JobContext]:
        """The job of a one-shot execution. Raises NameTaken.

        Waits while too many jobs are pending; for one whose id is given NoRoom is raised then, as whoever asks for the
        same one waits for this caller, and may be what a place among the pending ones depends on.
        """
        if post.job_id is None:
            job, _ = yield from self._new_job(post)
            return job
        created = self._created_at_once(post.worker, post.job_id, post.metadata, None)
        if created is None:
            raise NoRoom
        if not created[1]:
            raise NameTaken
        return created[0]

    def waits_for_room(self) -> Waits[None]:
        """Until one more job may be pending, which another caller may be faster to have."""
        book = self._engine.book
        self._check_may_wait(None)

        def has_room() -> bool:
            self._engine.check_open("exec()")
            return not book.crowded

        yield from waits_to_create(self._engine, has_room, None, None, lambda: _for_room(book))

    def offer_first(self, post: Post, job: JobContext) -> Waits[Posted]:
        """Put the first item of a one-shot execution into its slot."""
        return self._offered(post, job)

    def _new_job(self, post: Post) -> Waits[tuple[JobContext, bool]]:
        """See :meth:`JobBook.create`; waits while too many jobs are pending."""
        created = self._created_at_once(post.worker, post.job_id, post.metadata, post.lines)
        if created is not None:
            return created
        return (yield from self._waits_to_create(post))

    def _created_at_once(
        self, worker: Worker, job_id: str | None, metadata: Mapping[str, Any] | None, lines: Lines | None
    ) -> tuple[JobContext, bool] | None:
        """None if too many jobs are pending, or others of this event loop come first."""
        book = self._engine.book
        if lines is not None and book in lines.waiting:
            return None
        return book.create(worker, job_id, metadata)

    def _waits_to_create(self, post: Post) -> Waits[tuple[JobContext, bool]]:
        created: tuple[JobContext, bool] | None = None
        worker, lines, book = post.worker, post.lines, self._engine.book
        self._check_may_wait(lines)

        def create() -> bool:
            nonlocal created
            self._check_takes(worker)
            created = book.create(worker, post.job_id, post.metadata)
            return created is not None

        def about() -> str:
            return f"{_for_room(book)}: {waiting_for.report(worker)}"

        try:
            if not (yield from waits_to_create(self._engine, create, post.deadline, lines, about)):
                raise book.full_error("none started within the time-out")
        except BaseException:
            if created is not None and created[1]:
                worker.refused(created[0])
            raise
        assert created is not None
        return created

    def _check_may_wait(self, lines: Lines | None) -> None:
        outer: Any = running.get()
        if outer is not None and outer.node.worker.engine is self._engine:
            if lines is None and self._engine.driver.on_loop():
                raise self._engine.book.full_error("async logic waits for them in apost() only")

    def _offered(
        self, post: Post, job: JobContext, *, key: KeyRow | None = None, redriven: DeadLetter | None = None
    ) -> Waits[Posted]:
        """Put an item into its slot: the first of a new job, or one more of a job that it has joined."""
        worker, node, slot, payload, _, _, deadline, lines, reply = post
        waits = worker.admit(
            node, slot, payload, job, deadline, lines, key=key, redriven=redriven, reply=reply
        )
        if waits is not None:
            yield from waits
        self._look_after(worker, job)
        return Posted(worker.state, job)

    def _look_after(self, worker: Worker, job: JobContext) -> None:
        """Who stopped the worker or ended the job may have looked before the item was there. Raises if it cannot start
        any more, and no store keeps it."""
        if worker.stopped:
            worker.cancel_jobs()
        if job.account.ended:
            worker.sweep()
        lost = job.status in (JobStatus.PENDING, JobStatus.CANCELLED) and not job.account.begun
        if worker.closing and lost and not (worker.journaled or worker.one_shot):
            self._engine.directory.check_takes(worker)

    def known_job(self, worker: Worker, job_id: str) -> JobContext | None:
        checked_id("job_id", job_id)
        job = self._engine.book.jobs.get(job_id)
        if job is None or job.outlived_by(worker):
            job = worker.stored_job(job_id) or job
        if job is not None and not job.account.posts:
            return job  # it is being taken back, and cannot be joined
        if job is not None and (job.worker_id != worker.worker_id or job.account.ended):
            if job.account.ended:
                raise job_ended(job)
            what = f"belongs to worker {job.worker_id!r}"
            raise StateError(f"job {job_id!r} {what}; post with a new job_id, or with none", job_id=job_id)
        return job

    def _waits_to_be_taken_back(self, job: JobContext) -> Waits[bool]:
        """Wait until the id of a refused job is free; one that was cancelled keeps its own."""
        jobs = self._engine.book.jobs
        gone = lambda: jobs.get(job.job_id) is not job or job.account.posts > 0  # noqa: E731
        return (yield from self._engine.bell.waits_for(gone, None))


def _for_room(book: JobBook) -> str:
    return (
        f"until fewer than max_queue_size={book.max_pending} jobs are pending, which a job is until its first "
        "activation begins"
    )


def key_conflict(flow_id: str, key: str, job_id: str, how: str) -> IdempotencyConflictError:
    return IdempotencyConflictError(
        f"idempotency_key {key!r} was used on flow {flow_id!r} before {how} (job {job_id!r}); a key names one piece of "
        "work, give the new one a key of its own",
        job_id=job_id,
    )


def check_same_job(key: _Key, job_id: str, given: str | None) -> None:
    """A post that repeats a key may name its job, and no other."""
    if given not in (None, job_id):
        raise key_conflict(*key, job_id, f"for another job than {given!r}")


def check_metadata(metadata: Any) -> None:
    if not isinstance(metadata, Mapping):
        raise refused(InvalidTypeError, "metadata", metadata, "a mapping of names to values")


def checked_payload(data: Any, what: str, *place: str) -> dict[str, Any]:
    """A copy, so that what the caller does with it afterwards does not show."""
    if type(data) is not dict and not isinstance(data, Mapping):
        raise InvalidTypeError(
            f"{what} {'.'.join(place)!r}: data is a mapping of names to values, "
            f"got {type(data).__name__}: {shown(data)}; write {{'value': ...}}"
        )
    payload = dict(data)
    for key in payload:
        if not isinstance(key, str):
            raise InvalidTypeError(
                f"{what} {'.'.join(place)!r}: the keys of data are text, got {type(key).__name__}: {shown(key)}"
            )
    return payload
