"""Rows of the store, and what they stand for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import Context
from functools import lru_cache, partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from routilux import tracebacks
from routilux.errors import PoisonItemError, SerializationError, StoreError, describe
from routilux.kernel.account import JobAccount
from routilux.model.item import DeadLetter, Output, Payload, SharedOutput, StoredForm
from routilux.model.status import JobStatus
from routilux.ports import PLAIN_JOB, Codec, ItemKey, JobRow, LetterRow, NoteKey, Store, StoredJob, WorkerRow
from routilux.runtime.job import JobContext
from routilux.runtime.journal.record import Record
from routilux.runtime.journal.state import DetachedJob

if TYPE_CHECKING:
    from routilux.kernel.account import Account
    from routilux.runtime.engine import Engine
    from routilux.runtime.journal.log import Journal
    from routilux.runtime.journal.state import JournaledJob
    from routilux.runtime.journal.worker import JournaledWorker

LeaveOut: TypeAlias = Callable[[BaseException], object]
Detached = TypeVar("Detached", bound=DetachedJob)
POISON_DEATHS = 3
_ALONE = "!"


def split_place(place: str) -> tuple[str, str]:
    """Slots have no dot in their names."""
    routine_id, _, slot = place.rpartition(".")
    return routine_id, slot


@lru_cache(maxsize=1024)
def _one(job_id: str) -> str:
    return json.dumps([job_id])


def job_ids_text(account: Account) -> str:
    members = account.members
    if len(members) == 1:
        return _one(members[0].job.job_id)
    return json.dumps([member.job.job_id for member in members])


def job_ids_of(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))


def metadata_of(codec: Codec, row: WorkerRow) -> Mapping[str, Any]:
    """What the worker of this row was started with."""
    form = metadata_form(row.data)
    return {} if form is None else codec.decode(form, f"metadata of worker {row.worker_id!r}")


def about_of(codec: Codec, row: WorkerRow) -> dict[str, Any]:
    """What the row of a worker says beside its columns and its metadata: no value of a user is read."""
    return parted(codec, row.data, "metadata", f"worker {row.worker_id!r}")[0]


def parted(codec: Codec, data: bytes, name: str, where: str) -> tuple[dict[str, Any], bytes]:
    """What :func:`with_member` has put together: an object of ours, and the form of the user's value in it."""
    plain = json.loads(data)
    value = plain.pop(name, None)
    return codec.decode(json.dumps(plain).encode(), where), _form(value)


def _form(plain: Any) -> bytes:
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode()


# -- jobs ------------------------------------------------------------------------------------------------------


def job_row(codec: Codec, job: JournaledJob, status: str, completed_at: float | None) -> JobRow:
    assert job.serial is not None  # it has one with its first row
    error = None if job.error is None else tracebacks.kept(job.error)
    return JobRow(
        job.job_id,
        job.worker_id,
        job.flow_id,
        status,
        job.serial,
        job.created_at,
        job.started_at,
        completed_at,
        _about_job(codec, job, error),
    )


def _about_job(codec: Codec, job: JournaledJob, error: str | None) -> bytes:
    paused = job.pause is not None and job.pause.on_record and job.final is None
    metadata = job.metadata_form
    if error is None and not (metadata or paused or job.outputs_dropped or job.errors_dropped):
        return PLAIN_JOB
    about = {
        "paused": paused,
        "error": error,
        "outputs_dropped": job.outputs_dropped,
        "errors_dropped": job.errors_dropped,
    }
    return with_metadata(codec.encode(about, f"job {job.job_id!r}"), metadata)


def with_metadata(about: bytes, metadata: bytes | None) -> bytes:
    """A JSON object with metadata as one more member, in their stored form."""
    return with_member(about, "metadata", metadata or b"{}")


def with_member(about: bytes, name: str, form: bytes) -> bytes:
    """A JSON object that has members, and this one more."""
    return b'{"%b":%b,%b' % (name.encode(), form, about[1:])


def metadata_form(about: bytes) -> bytes | None:
    """The stored form of the metadata in what :func:`with_metadata` gave; None for none. It reads no value."""
    if about.startswith(b'{"metadata":{},'):  # as for most jobs
        return None
    metadata = json.loads(about).get("metadata")
    return _form(metadata) if metadata else None


def fill_job(
    codec: Codec, store: Store, job: JobContext, row: JobRow, leave_out: LeaveOut | None = None
) -> tuple[dict[str, Any], dict[str, int]]:
    """Give a job what its row and its lists remember; returns what the row says beside its columns, and the numbers
    that follow in those of its lists that have entries.

    ``leave_out`` is told of what cannot be read, such as a value of a type that is not registered any more; without it
    that raises.
    """
    where = f"job {row.job_id!r} in {store.name}"
    about = _read_about(codec, row.data, where, leave_out)
    job.metadata.update(about["metadata"])
    job.created_at, job.started_at, job.completed_at = row.created_at, row.started_at, row.completed_at
    job.outputs_dropped, job.errors_dropped = about["outputs_dropped"], about.get("errors_dropped", 0)
    if about["error"] is not None:
        job.error = tracebacks.read_back(about["error"], row.job_id)
    takers: dict[str, Callable[[Any], object]] = {
        "trace": job.trace_again,
        "output": lambda kept: job.add_output(kept if isinstance(kept, Output) else SharedOutput.of(*kept)),
        "error": lambda text: job.errors.append(tracebacks.read_back(text, row.job_id)),
    }
    following: dict[str, int] = {}
    for kind, take in takers.items():
        for entry in store.entries(row.worker_id, f"job.{kind}", row.job_id):
            following[kind] = entry.number + 1
            with left_out(leave_out):
                try:
                    take(codec.decode(entry.data, f"{kind} {entry.number} of {where}"))
                except BaseException as error:
                    if kind == "output":
                        job.unread = job.unread or describe(error)
                    raise
    return about, following


def _read_about(codec: Codec, data: bytes, where: str, leave_out: LeaveOut | None) -> dict[str, Any]:
    about: dict[str, Any]
    with left_out(leave_out):
        about = codec.decode(data, where)
        return about
    return {"metadata": {}, **parted(codec, data, "metadata", where)[0]}


@contextmanager
def left_out(leave_out: LeaveOut | None) -> Iterator[None]:
    """Reading a value may call code of registered types, which raises anything."""
    try:
        yield
    except BaseException as error:
        if leave_out is None or tracebacks.is_a(error, StoreError):
            raise
        leave_out(error)


def job_data(
    codec: Codec, store: Store, row: JobRow, leave_out: LeaveOut | None = None
) -> list[tuple[NoteKey, Any, bytes]]:
    """Its notes, their keys, and the forms of their values."""
    where = f"data of job {row.job_id!r} in {store.name}"
    data = []
    for note, form in store.notes_of_job(row.worker_id, row.job_id):
        if note.kind == "job.data":
            with left_out(leave_out):
                data.append((note, codec.decode(note.name.encode(), where), form))
    return data


def fill_detached(journal: Journal, job: DetachedJob, stored: StoredJob) -> None:
    """A job that does not live in this runtime becomes what was last written of it, whatever it was before."""
    codec, store, row, account = journal.codec, journal.store, stored.row, job.account
    leave_out = partial(_tell_left_out, journal.engine, row)
    job.clear()
    about, _ = fill_job(codec, store, job, row, leave_out)
    for _, key, form in job_data(codec, store, row, leave_out):
        with left_out(leave_out):
            job.data[key] = codec.decode(form, f"data of job {row.job_id!r} in {store.name}")
    job.freeze()
    account.status = JobStatus(row.status)
    account.ended = account.status in (JobStatus.FAILED, JobStatus.CANCELLED)  # it takes no more items
    if account.status is JobStatus.COMPLETED:
        account.parked = stored.items  # what is left of a completed job waits for items of others
    account.pause(about["paused"])


def _tell_left_out(engine: Engine, row: JobRow, error: BaseException) -> None:
    tell_left_out(engine, row.flow_id, f"job {row.job_id!r}", error)


def tell_left_out(engine: Engine, flow_id: str, what: str, error: BaseException) -> None:
    """Of many jobs with the same trouble only the first ones are told."""
    of_flow = f"of flow {flow_id!r}"
    engine.user_code_failed(
        f"reading {what} {of_flow}",
        error,
        "what cannot be read is left out here",
        alike=f"reading workers and jobs {of_flow}",
    )


def new_detached(
    journal: Journal, kind: type[Detached], job_id: str, worker_id: str, flow_id: str
) -> Detached:
    """A job that does not live in this runtime, of which nothing is read yet."""
    driver = journal.engine.driver
    account = JobAccount(driver.lock(), context=Context())
    job = account.job = kind(job_id, worker_id, flow_id, account, driver)
    return job


def detached_job(journal: Journal, stored: StoredJob) -> JobContext:
    """A job that does not live in this runtime, as it was last written; an unfinished one is ``left``."""
    row = stored.row
    job = new_detached(journal, DetachedJob, row.job_id, row.worker_id, row.flow_id)
    fill_detached(journal, job, stored)
    if job.account.status.finished:
        job.announce_end()
    else:
        job.leave()
    return job


# -- items and letters -------------------------------------------------------------------------------------------


def letter_of(codec: Codec, row: LetterRow) -> DeadLetter:
    routine_id, slot = split_place(row.place)
    text, trace = (None, None) if row.error is None else tracebacks.parted(row.error)
    data: Payload
    try:
        data = codec.decode(row.data, f"dead letter {row.number} of worker {row.worker_id!r}")
    except SerializationError as error:
        data = StoredForm(json.loads(row.data), error)
    return DeadLetter(
        row.worker_id,
        row.flow_id,
        routine_id,
        slot,
        data,
        job_ids_of(row.job_ids),
        row.reason,
        text,
        row.time,
        row.number,
        trace,
    )


def poison(place: str, number: int, deaths: int, *, one_shot: bool) -> PoisonItemError:
    cure = (
        "run it again with runtime.exec() under another job_id"
        if one_shot
        else "put it back with runtime.redrive()"
    )
    return PoisonItemError(
        f"item {number} of slot {place!r} is set aside: the process has died {deaths} times while an activation ran "
        f"on it. Look at its data and at what the routine does with it, then {cure}",
        slot=place,
    )


# -- notes -------------------------------------------------------------------------------------------------------


def activation_note(worker_id: str, routine_id: str, key: str) -> NoteKey:
    return NoteKey(worker_id, "activation", routine_id, key)


def checkpoint_note(worker_id: str, routine_id: str, key: str) -> NoteKey:
    return NoteKey(worker_id, "checkpoint", routine_id, key)


def crash_note(worker_id: str, place: str, number: int) -> NoteKey:
    return NoteKey(worker_id, "crash", place, str(number))


def flight_prefix(worker_id: str, place: str) -> str:
    """What a flight recorder is told before the number of the item: short, however long the names are."""
    return blake2b(json.dumps([worker_id, place]).encode(), digest_size=16).hexdigest() + ":"


def flight_text(prefix: str, number: int, *, alone: bool) -> str:
    """Written for every activation; :func:`flight_key` reads it."""
    return f"{prefix}{number}{_ALONE}" if alone else f"{prefix}{number}"


def flight_key(worker_id: str, places: Mapping[str, str], text: str) -> ItemKey | None:
    """The item of this worker that a text names, by the places that have the prefixes; None if it is another's."""
    prefix, colon, number = text.rstrip(_ALONE).rpartition(":")
    place = places.get(prefix + colon)
    return None if place is None or not number.isdecimal() else ItemKey(worker_id, place, int(number))


def suspects_of(texts: Sequence[str]) -> list[str]:
    """What the death of a process is held against: all that it ran, or only what ran alone."""
    return [text for text in texts if text.endswith(_ALONE)] or list(texts)


def deaths_record(worker: JournaledWorker, deaths: Mapping[ItemKey, int]) -> Record:
    """So many deaths of processes more for these items of a worker."""
    journal = worker.journal
    before = dict(journal.store.notes(worker.worker_id, with_jobs=False))
    counted: dict[NoteKey, bytes | None] = {}
    for key, number in deaths.items():
        note = crash_note(*key)
        known = journal.codec.decode(before[note], "crash") if note in before else 0
        counted[note] = journal.codec.encode(known + number, "crash")
    record = Record(worker)
    record.notes = counted
    return record


def by_kind(notes: list[tuple[NoteKey, bytes]]) -> Mapping[str, list[tuple[NoteKey, bytes]]]:
    sorted_notes: dict[str, list[tuple[NoteKey, bytes]]] = {}
    for note, value in notes:
        sorted_notes.setdefault(note.kind, []).append((note, value))
    return sorted_notes
