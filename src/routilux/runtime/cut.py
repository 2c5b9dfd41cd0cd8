"""A consistent cut through a worker, and a worker made from one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from routilux import tracebacks
from routilux.errors import DuplicateNameError, ExecutionTimeoutError, SerializationError
from routilux.kernel.account import Account, joined
from routilux.model.item import DeadLetter, Item, Output
from routilux.model.status import ExecutionStatus, JobStatus
from routilux.runtime import turns
from routilux.runtime.activation import LiveActivation
from routilux.runtime.job import JobContext
from routilux.runtime.state import begin_job

if TYPE_CHECKING:
    from routilux.runtime.worker import Worker

HOLD_SECONDS = 60.0
T = TypeVar("T")


def take(worker: Worker, use: Callable[[dict[str, Any]], T]) -> T:
    """Give everything that a worker is, as plain data, to ``use``, and return what it returns.

    A running worker is held meanwhile: the data is the worker's own, and logic changes it as soon as it goes on.
    """
    with worker.held_for_a_cut():
        if not worker.bell.wait_for(worker.resting, worker.engine.now() + HOLD_SECONDS):
            names = sorted({activation.mailbox.routine_id for activation in worker.running()})
            raise ExecutionTimeoutError(
                f"worker {worker.worker_id!r} cannot be cut: {', '.join(names)} still run after "
                f"{HOLD_SECONDS:.0f} s. Let them end, or call runtime.pause() first",
                worker_id=worker.worker_id,
            )
        return use(_body(worker))


def _body(worker: Worker) -> dict[str, Any]:
    state = worker.state
    jobs: dict[str, JobContext] = dict(worker.jobs)
    job = getattr(state, "job", None)
    if job is not None:
        jobs[job.job_id] = job
    mailboxes = {
        routine_id: _mailbox(worker, node.mailbox, jobs) for routine_id, node in worker.nodes.items()
    }
    return {
        "kind": "execution" if worker.one_shot else "worker",
        "worker_id": worker.worker_id,
        "flow_id": worker.flow.flow_id,
        "fingerprint": worker.flow.fingerprint(),
        "status": state.status.value,
        "routine_states": state.routine_states,
        "shared_data": dict(state.shared_data),
        "shared_log": list(state.shared_log),
        "metadata": dict(state.metadata),
        "output_log": [list(row) for row in state.output_log],
        "history": [[*row[:1], list(row[1]), *row[2:]] for row in state.execution_history],
        "jobs": [_job(job) for job in jobs.values()],
        "mailboxes": mailboxes,
        "dead_letters": [[*row[:5], list(row[5]), *row[6:]] for row in worker.letters],
        "next_number": worker.number(),
    }


def _mailbox(worker: Worker, mailbox: Any, jobs: dict[str, JobContext]) -> dict[str, Any]:
    items, again, merged = mailbox.snapshot()
    now = worker.engine.now()
    return {
        "items": [_item(item, now, jobs) for item in items],
        "retries": [
            {
                "items": [_item(item, now, jobs) for item in activation.batch],
                "attempt": activation.attempt,
                "message": activation.message,
                "remaining": max(0.0, worker.retries.get(activation, (now, None))[0] - now),
            }
            for activation in again
        ],
        "merged": merged,
    }


def _item(item: Item, now: float, jobs: dict[str, JobContext]) -> dict[str, Any]:
    number, slot, data, account, source, time = item
    members = [member.job for member in account.members]
    jobs.update({job.job_id: job for job in members})
    return {
        "number": number,
        "slot": slot,
        "data": data,
        "jobs": [job.job_id for job in members],
        "source": source,
        "age": now - time,
    }


def _job(job: JobContext) -> dict[str, Any]:
    return {
        "job_id": job.job_id,
        "status": job.status.value,
        "paused": job.paused,
        "metadata": job.metadata,
        "data": dict(job.data),
        "trace": job.trace_log,
        "outputs": [list(output) for output in job.outputs],
        "outputs_dropped": job.outputs_dropped,
        "error": None if job.error is None else tracebacks.kept(job.error),
        "errors": [tracebacks.kept(error) for error in job.errors],
        "errors_dropped": job.errors_dropped,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "completed_at": job.completed_at,
    }


# -- and back --------------------------------------------------------------------------------------------------


def check(body: Mapping[str, Any], flow: Any) -> None:
    """Refuse a snapshot that does not belong to this flow, before anything is changed."""
    if body["flow_id"] != flow.flow_id or body["fingerprint"] != flow.fingerprint():
        what = "has changed since" if body["flow_id"] == flow.flow_id else f"is not {body['flow_id']!r}"
        raise SerializationError(
            f"the saved state of worker {body['worker_id']!r} was made by flow {body['flow_id']!r}, and flow "
            f"{flow.flow_id!r} {what}. Resume it with the flow that made it, or start afresh",
            path="$.fingerprint",
        )


def check_jobs(body: Mapping[str, Any], known: Mapping[str, JobContext]) -> None:
    """Refuse a snapshot with the id of a job that goes on here, or that another worker has had."""
    for row in body["jobs"]:
        job = known.get(row["job_id"])
        if job is not None and (job.worker_id != body["worker_id"] or not job.finished):
            raise DuplicateNameError(
                f"job {job.job_id!r} of the saved worker {body['worker_id']!r} is known here as a job of worker "
                f"{job.worker_id!r}, which is {job.status}; resume the file in another runtime, or when that job is "
                "forgotten",
                worker_id=body["worker_id"],
                job_id=job.job_id,
            )


def restore(worker: Worker, body: Mapping[str, Any]) -> None:
    """Fill a new worker, which is held, from a snapshot."""
    worker.state.fill(body)
    worker.number = count(max(int(body["next_number"]), worker.engine.next_number)).__next__
    for row in body["dead_letters"]:
        worker.keep_letter(_restored_letter(row))
    jobs = {row["job_id"]: _restored_job(worker, row) for row in body["jobs"]}
    if worker.one_shot and body["jobs"]:
        begin_job(worker.state, jobs[body["jobs"][0]["job_id"]])
    for job in jobs.values():
        job.account.add()  # held open until everything of it is back
    for routine_id, saved in body["mailboxes"].items():
        mailbox = worker.nodes[routine_id].mailbox
        mailbox.merged.update(saved["merged"])
        for retry in saved["retries"]:
            _restore_retry(worker, mailbox, retry, jobs)
        for row in saved["items"]:
            _restore_item(worker, mailbox, row, jobs)
    for job in jobs.values():
        ended = job.account.remove()
        if ended:
            worker.at_rest(ended)
    if worker.one_shot and all(job.finished for job in jobs.values()):
        worker.close()


def _restored_letter(row: Sequence[Any]) -> DeadLetter:
    traceback = row[10] if len(row) > 10 else None  # older versions have kept none
    return DeadLetter._make((*row[:5], tuple(row[5]), *row[6:10], traceback))


def _restored_job(worker: Worker, row: Mapping[str, Any]) -> JobContext:
    status = JobStatus(row["status"])
    job = worker.engine.book.restored(worker, row["job_id"], row["metadata"])
    job.data.update(row["data"])
    for entry in row["trace"]:
        job.trace_again(entry)
    job.outputs.extend(Output(*output) for output in row["outputs"])
    job.outputs_dropped = row["outputs_dropped"]
    job.error = None if row["error"] is None else tracebacks.read_back(row["error"], job.job_id)
    job.errors.extend(tracebacks.read_back(error, job.job_id) for error in row["errors"])
    job.errors_dropped = row.get("errors_dropped", 0)
    job.created_at, job.started_at, job.completed_at = (
        row["created_at"],
        row["started_at"],
        row["completed_at"],
    )
    job.account.status = status
    job.account.begun = job.started_at is not None
    job.account.ended = job.account.halted = status in (JobStatus.FAILED, JobStatus.CANCELLED)
    job.account.pause(bool(row["paused"]))
    worker.engine.book.adopt(job)
    if status.finished:
        job.announce_end()
    else:
        worker.jobs[job.job_id] = job
    if worker.one_shot:
        worker.state.status = ExecutionStatus(status.value)
    return job


def _restore_item(worker: Worker, mailbox: Any, row: Mapping[str, Any], jobs: dict[str, JobContext]) -> None:
    item = _restored_item(worker, row, jobs)
    item[3].add()
    worker.put_in(mailbox, item)


def _restored_item(worker: Worker, row: Mapping[str, Any], jobs: dict[str, JobContext]) -> Item:
    account: Account = joined([jobs[job_id].account for job_id in row["jobs"]])
    time = worker.engine.now() - row["age"]
    return (row["number"], row["slot"], row["data"], account, row["source"], time)


def _restore_retry(worker: Worker, mailbox: Any, row: Mapping[str, Any], jobs: dict[str, JobContext]) -> None:
    batch = tuple(_restored_item(worker, item, jobs) for item in row["items"])
    for item in batch:
        item[3].add()
    account = joined([item[3] for item in batch])
    activation: LiveActivation = mailbox.restore_stalled(batch, account, row["attempt"], worker.engine.now())
    activation.message = row.get("message")
    turns.arm_retry(worker, activation, worker.engine.now() + row["remaining"])
