"""Operating a store: check, export, restore, repair and prune it, cancel a job. Nothing here needs a runtime."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from routilux.errors import InvalidValueError, StoreCorruptError, StoreError, refused, unknown
from routilux.model.checks import checked_count, checked_duration
from routilux.ports import UNFINISHED, PropertyRow, Store, StoredJob, WorkerRow
from routilux.store.cancelling import cancellation
from routilux.store.exchange import AnyRow, from_lines, into, to_lines
from routilux.store.facts import Fact
from routilux.store.memory import OPEN_STATUSES
from routilux.store.references import Dangling, References
from routilux.store.urls import Address, address_of, open_store, part_of

_LONGEST = 1e12  # seconds
_MOST = 2**63 - 1
_AT_ONCE = 1_000  # rows that one transaction of prune() removes


class Problem(NamedTuple):
    """Something that a store has lost, or that is not as it was written."""

    message: str


class Repair(NamedTuple):
    """How many rows of each table were saved, and what was lost."""

    saved: dict[str, int]
    lost: list[Problem]


def check(url: str) -> list[Problem]:
    """All damage that there is; an empty list says that every page and every row is whole, and that nothing is missing
    that a row names. What is missing is looked for where everything can be read.

    Reads everything, and may be used while a runtime has the store open. Raises StoreError where there is nothing to
    look at: no database, one of another program or of a newer format.
    """
    address = address_of(url)
    found = [Problem(str(error)) for error in _operate(address).check(_target(address))]
    if found:
        return found
    return [Problem(f"{one.what}; repair() saves what is there") for one in _missing(address)]


def export(url: str, file: str | os.PathLike[str]) -> dict[str, int]:
    """Write every row into a file of JSON lines, as it was at one moment; returns how many there are of each table.

    The file appears when it is whole, and replaces one that was there, but none of the store itself: InvalidValueError.
    May be used while a runtime has the store open. Raises StoreCorruptError at the first row that cannot be read:
    ``repair`` first.
    """
    address, counts = address_of(url), Counter[str]()
    if address.path is not None and part_of(address, ".beside").is_part(address.path, Path(file)):
        raise refused(
            InvalidValueError, "export()", os.fspath(file), "a file that is none of the store itself",
            fix="it would replace what is stored; name another file",
        )  # fmt: skip
    _write_whole(Path(file), export_lines(url, counts))
    return dict(counts)


def export_lines(url: str, counts: Counter[str]) -> Iterator[str]:
    """The lines of an export, as they are read; how many there are of each table is counted meanwhile."""
    address = address_of(url)
    _operate(address).check_there(_target(address))  # before the first line
    return to_lines(_operate(address).rows(_target(address)), counts)


def read_export(file: str | os.PathLike[str]) -> Iterator[AnyRow]:
    """The rows in a file that ``export`` wrote. Raises StoreCorruptError, naming the line, if it is not whole, and
    StoreError if it cannot be read."""
    try:
        with open(file, encoding="utf-8") as lines:
            yield from from_lines(lines)
    except OSError as error:
        raise StoreError(f"the export {os.fspath(file)!r} cannot be read: {error}; check the path") from error
    except UnicodeDecodeError as error:
        raise StoreCorruptError(
            f"{os.fspath(file)!r} is no export: it is no text in UTF-8, {error}"
        ) from error


def restore(file: str | os.PathLike[str], url: str) -> dict[str, int]:
    """Put the rows of an export into a new store, of whatever kind; returns how many there are of each table.

    The file is read to its end before the store is made. Killed on the way it leaves a store that nobody can open, and
    that begins anew when this is called again.
    """
    for _ in read_export(file):
        pass
    return _fill("restore()", url, read_export(file))


def repair(url: str, new_url: str) -> Repair:
    """Save every row that can be read into a new store, and list what cannot, and what was missing and is made anew
    there or left out. The old store stays as it is.

    No runtime may have the old store open. Look at what was lost before the new store is used: an item that is lost is
    work that will not be done.
    """
    address = address_of(url)
    if _target(address) == _target(address_of(new_url)):
        raise refused(
            InvalidValueError, "repair()", new_url, "a store that does not exist yet", fix="name a new file"
        )

    def readable(lost: list[Problem]) -> Iterator[AnyRow]:
        for found in _operate(address).salvage(_target(address)):
            if isinstance(found, StoreCorruptError):
                lost.append(Problem(str(found)))
            elif not (isinstance(found, PropertyRow) and found.name == UNFINISHED):
                yield found

    references = References(readable([]))
    lost: list[Problem] = []
    saved = _fill("repair()", new_url, references.mended(readable(lost), time.time()))
    return Repair(saved, lost + [Problem(f"{one.what}: {one.mended}") for one in references.dangling()])


def prune(url: str, *, older_than: float = 3_600.0, keep_finished: int = 10_000) -> int:
    """Remove finished jobs that ended more than ``older_than`` seconds ago or are beyond the newest so many, expired
    idempotency keys, and stopped workers without jobs; returns how many rows that were. A job stays as long as items of
    it are stored, such as in a join, or a dead letter names it.

    A runtime that has the store open does this by itself, with limits of its own. In PostgreSQL this may be used beside
    it; where one has a SQLite store this raises StoreLockedError. The file of a SQLite store keeps its size, and uses
    the space again.
    """
    older_than = min(checked_duration("prune(older_than)", older_than), _LONGEST)
    checked_count("prune(keep_finished)", keep_finished, 0, _MOST)
    address = address_of(url)
    _operate(address).check_there(_target(address))
    removed, now = 0, time.time()
    store = open_store(url)
    try:
        while more := store.prune(
            now, finished_before=now - older_than, keep_finished=keep_finished, limit=_AT_ONCE
        ):
            removed += more
    finally:
        store.close()
    return removed


def cancel(url: str, target: str) -> list[str]:
    """Cancel a job, or a worker and all its jobs, in a store that no runtime has open: what is queued of them is gone.
    Returns the ids of the jobs that had not ended before. Where there is none nothing changes: a worker of which
    something was set aside can still take it back.

    Items that a job shares with others stay for those. Raises UnknownJobError, and StoreLockedError, naming the owner,
    where a runtime has the store or the worker: that one can cancel it.
    """
    address = address_of(url)
    _operate(address).check_there(_target(address))
    store = open_store(url)
    try:
        job, worker = store.job(target), store.worker(target)
        if job is None and worker is None:
            known = [one.row.job_id for one in store.jobs(limit=_AT_ONCE)]
            known += [row.worker_id for row in store.workers()]
            raise unknown(
                "job", target, known, where=f"and no worker of that id in {store.name}", job_id=target
            )
        return _cancel(store, job, worker)
    finally:
        store.close()


def _cancel(store: Store, job: StoredJob | None, worker: WorkerRow | None) -> list[str]:
    worker_id = job.row.worker_id if job is not None else worker.worker_id if worker is not None else ""
    store.claim(worker_id)
    owner = store.worker(worker_id)
    jobs = store.jobs(worker_id=worker_id, statuses=OPEN_STATUSES)
    if job is not None:
        jobs = [one for one in jobs if one.row.job_id == job.row.job_id]
        if owner is not None and owner.kind != "execution":
            owner = None  # a worker goes on without one of its jobs
    if owner is not None and owner.status == "stopped":
        owner = None
    if jobs:
        store.write(cancellation(store, worker_id, jobs, owner, time.time()))
    return [one.row.job_id for one in jobs]


def examine(url: str) -> Iterator[Fact]:
    """Everything that can be told about a store, or about the place where one is to be: whether it can be reached and
    written, who has it, its format, its space, its clock, and all damage. Changes nothing.
    """
    address, is_whole = address_of(url), False
    for fact in part_of(address, ".examine").examine(_target(address)):
        yield fact
        is_whole = fact.what == "contents" and fact.state == "ok"
    if is_whole:
        yield from (Fact("error", "missing", one.what) for one in _missing(address))


def _missing(address: Address) -> Iterator[Dangling]:
    return References(_operate(address).rows(_target(address))).dangling()


def _operate(address: Address) -> Any:
    return part_of(address, ".operate")


def _target(address: Address) -> Path | str:
    return address.url if address.path is None else Path(os.path.realpath(address.path))


def _fill(where: str, url: str, rows: Iterator[AnyRow]) -> dict[str, int]:
    address = address_of(url)
    part_of(address, "")  # its driver may be missing
    first = list(islice(rows, 1))  # before anything is made: what cannot be read at all fails here
    store = open_store(url, filling=where)
    try:
        return dict(into(store, chain(first, rows)))
    finally:
        store.close()


def _write_whole(file: Path, lines: Iterator[str]) -> None:
    """Two exports to one file write a part each, and the last one to end is there."""
    part = file.with_name(f"{file.name}.{uuid4().hex[:8]}.part")
    try:
        with open(part, "x", encoding="utf-8") as out:
            out.writelines(lines)
            out.flush()
            os.fsync(out.fileno())
        os.replace(part, file)
    except OSError as error:
        raise StoreError(f"the export to {file} cannot be written: {error}") from error
    finally:
        part.unlink(missing_ok=True)
