"""Rows of the store, and what they stand for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextvars import Context
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from routilux import tracebacks
from routilux.errors import PoisonItemError
from routilux.kernel.account import JobAccount
from routilux.model.item import DeadLetter, Output, Payload, SharedOutput
from routilux.model.status import JobStatus
from routilux.ports import PLAIN_JOB, Codec, ItemKey, JobRow, LetterRow, NoteKey, Store, StoredJob, WorkerRow
from routilux.runtime.job import JobContext
from routilux.runtime.journal.record import Record
from routilux.runtime.journal.state import DetachedJob

if TYPE_CHECKING:
    from routilux.kernel.account import Account
    from routilux.runtime.driver import Driver
    from routilux.runtime.journal.log import Journal
    from routilux.runtime.journal.state import JournaledJob

POISON_DEATHS = 3


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
    about: dict[str, Any] = codec.decode(row.data, f"worker {row.worker_id!r}")
    return about.get("metadata", {})  # type: ignore[no-any-return]


# -- jobs ------------------------------------------------------------------------------------------------------


def job_row(codec: Codec, job: JournaledJob, status: str, completed_at: float | None) -> JobRow:
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
    metadata = vars(job).get("metadata")  # a job has none until they are given or read
    if error is None and not (metadata or paused or job.outputs_dropped or job.errors_dropped):
        return PLAIN_JOB
    about = {
        "metadata": dict(metadata or {}),
        "paused": paused,
        "error": error,
        "outputs_dropped": job.outputs_dropped,
        "errors_dropped": job.errors_dropped,
    }
    return codec.encode(about, f"job {job.job_id!r}")


def fill_job(
    codec: Codec, store: Store, job: JobContext, row: JobRow
) -> tuple[dict[str, Any], dict[str, int]]:
    """Give a job what its row and its lists remember; returns what the row says beside its columns, and the numbers
    that follow in those of its lists that have entries."""
    where = f"job {row.job_id!r} in {store.name}"
    about: dict[str, Any] = codec.decode(row.data, where)
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
            take(codec.decode(entry.data, where))
            following[kind] = entry.number + 1
    return about, following


def job_data(codec: Codec, store: Store, row: JobRow) -> list[tuple[NoteKey, Any, Any]]:
    """Each with its note, key and value."""
    where = f"data of job {row.job_id!r} in {store.name}"
    return [
        (note, codec.decode(note.name.encode(), where), codec.decode(value, where))
        for note, value in store.notes_of_job(row.worker_id, row.job_id)
        if note.kind == "job.data"
    ]


def detached_job(codec: Codec, store: Store, driver: Driver, stored: StoredJob) -> JobContext:
    """A job that does not live in this runtime, as it was last written; an unfinished one is ``left``."""
    row = stored.row
    account = JobAccount(driver.lock(), context=Context())
    job = account.job = DetachedJob(row.job_id, row.worker_id, row.flow_id, account, driver)
    about, _ = fill_job(codec, store, job, row)
    job.data.update({key: value for _, key, value in job_data(codec, store, row)})
    job.freeze()
    account.status = JobStatus(row.status)
    if account.status is JobStatus.COMPLETED:
        account.parked = stored.items  # what is left of a completed job waits for items of others
    account.pause(about["paused"])
    if account.status.finished:
        job.announce_end()
    else:
        job.leave()
    return job


# -- items and letters -------------------------------------------------------------------------------------------


def letter_of(codec: Codec, row: LetterRow) -> DeadLetter:
    routine_id, slot = split_place(row.place)
    error, trace = (None, None) if row.error is None else tracebacks.parted(row.error)
    data: Payload = codec.decode(row.data, f"dead letter {row.number} of worker {row.worker_id!r}")
    return DeadLetter(
        row.worker_id,
        row.flow_id,
        routine_id,
        slot,
        data,
        job_ids_of(row.job_ids),
        row.reason,
        error,
        row.time,
        row.number,
        trace,
    )


def poison(place: str, number: int, deaths: int) -> PoisonItemError:
    return PoisonItemError(
        f"item {number} of slot {place!r} is set aside: the process has died {deaths} times while an activation ran "
        "on it. Look at its data and at what the routine does with it, then put it back with runtime.redrive()",
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
    """What a flight recorder is told before the number of the item; :func:`flight_text` completes it."""
    return f"[{json.dumps(worker_id)}, {json.dumps(place)}, "


def flight_text(prefix: str, number: int, *, alone: bool) -> str:
    """Short, because it is written for every activation; :func:`suspects_of` reads it."""
    return f"{prefix}{number}, 1]" if alone else f"{prefix}{number}]"


def suspects_of(texts: Iterable[str]) -> list[ItemKey]:
    """The items against which the death of a process is held: all that ran, or only one that ran alone."""
    beside: list[ItemKey] = []
    alone: list[ItemKey] = []
    for text in texts:
        try:
            worker_id, place, number, *by_itself = json.loads(text)
        except (ValueError, TypeError):
            continue  # it was cut
        (alone if by_itself else beside).append(ItemKey(worker_id, place, number))
    return alone or beside


def deaths_record(journal: Journal, keys: list[ItemKey]) -> Record | None:
    """One more death of the process for each of these items; None if there are none."""
    if not keys:
        return None
    counted: dict[NoteKey, bytes | None] = {}
    for worker_id in dict.fromkeys(key.worker_id for key in keys):
        notes = journal.store.notes(worker_id, with_jobs=False)
        before = {note: value for note, value in notes if note.kind == "crash"}
        for key in (key for key in keys if key.worker_id == worker_id):
            note = crash_note(*key)
            known = journal.codec.decode(before[note], "crash") if note in before else 0
            counted[note] = journal.codec.encode(known + 1, "crash")
    record = Record(None)
    record.notes = counted
    return record


def by_kind(notes: list[tuple[NoteKey, bytes]]) -> Mapping[str, list[tuple[NoteKey, bytes]]]:
    sorted_notes: dict[str, list[tuple[NoteKey, bytes]]] = {}
    for note, value in notes:
        sorted_notes.setdefault(note.kind, []).append((note, value))
    return sorted_notes
