"""A run in a store: it is known by the id of its worker, and can be resumed after any end."""

from __future__ import annotations

import os
import secrets
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from routilux import Flow, JobContext, Runtime, WorkerState
from routilux.cli.inputs import STDIN
from routilux.cli.outputs import retried_by
from routilux.cli.plan import Plan
from routilux.cli.stores import looked_into
from routilux.errors import InvalidValueError, nearest, shown
from routilux.ports import Store, WorkerRow, load

_MOST_SHOWN: Final = 5


class KeptRun:
    """The metadata of the worker say how the run was begun, so that it goes on without being told again.

    A line of the input is taken once: its number is the key of its job.
    """

    def __init__(self, store: Store, plan: Plan, target: tuple[str, str]) -> None:
        self._store = store
        self._on_flow_change = plan.on_flow_change
        self.run_id = plan.resume or plan.run_id or ""
        self.earlier: frozenset[str] = frozenset()
        """The ids of the jobs that the store had when the run was resumed."""
        self.taken = 0
        """How many of them had an item of the input."""
        self._begun = {
            "flow": os.path.abspath(plan.name) if os.path.isfile(plan.name) else plan.name,
            "input": plan.source if plan.source in (None, STDIN) else os.path.abspath(plan.source),
            "params": dict(plan.given),
            "entry": ".".join(target),
        }

    def start(self, runtime: Runtime, flow: Flow) -> WorkerState:
        jobs = [] if self._store.worker(self.run_id) is None else runtime.list_jobs(worker=self.run_id)
        self.earlier = frozenset(job.job_id for job in jobs)
        self.taken = sum(not retried_by(job) for job in jobs)
        state: WorkerState = runtime.exec(
            flow, worker_id=self.run_id, on_flow_change=self._on_flow_change, metadata=self._begun
        )
        return state

    def key(self, line: int) -> str:
        return f"{self.run_id}/{line}"

    def end(self, runtime: Runtime) -> bool:
        """End the run for good; False where something of it is left that can be gone on with."""
        if runtime.dead_letters(worker=self.run_id) or self._store.places(self.run_id):
            return False
        return runtime.stop(self.run_id)


class RetriedRun(KeptRun):
    """A run that is opened to put items back: only what comes of those is told, and the run can be resumed."""

    def start(self, runtime: Runtime, flow: Flow) -> WorkerState:
        state: WorkerState = runtime.exec(flow, worker_id=self.run_id, on_flow_change=self._on_flow_change)
        return state

    def end(self, runtime: Runtime) -> bool:
        return False


# -- beginning ---------------------------------------------------------------------------------------------


def named(store: Store, plan: Plan, flow: Flow) -> Plan:
    """The plan of a new run with an id that no other has."""
    if plan.run_id is None:
        return replace(plan, run_id=_fresh_id(store, flow))
    if store.worker(plan.run_id) is not None:
        raise InvalidValueError(
            f"--id {shown(plan.run_id)}: {store.name} has a run of this id; go on with it by --resume "
            f"{plan.run_id}, or give another id"
        )
    return plan


def _fresh_id(store: Store, flow: Flow) -> str:
    while True:
        run_id = f"{flow.flow_id}-{secrets.token_hex(3)}"
        if store.worker(run_id) is None:
            return run_id


# -- going on ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FoundRun:
    """A run that a store holds; ``jobs`` is there for one that has ended."""

    run_id: str
    ended: bool
    begun: Mapping[str, Any]
    jobs: tuple[JobContext, ...] = ()
    set_aside: tuple[str, ...] = ()
    """The ids of those of which something is set aside."""

    def go_on(self, plan: Plan, flow: Flow) -> Plan:
        """The plan with what the run was begun with, where the command line says nothing else."""
        if not self.begun:
            return replace(plan, idle=plan.source is None and not plan.given)
        params, source, entry = self.begun["params"], self.begun["input"], self.begun["entry"]
        if plan.entry is not None and ".".join(flow.resolve_entry(plan.entry)) != entry:
            raise InvalidValueError(
                f"--entry: run {self.run_id!r} was begun at {entry!r}, which cannot be changed; leave --entry away, or "
                "begin a run of its own without --resume"
            )
        if plan.given and _exactly(plan.given) != _exactly(params):  # as Python compares, 1 is True
            raise InvalidValueError(
                f"-p: run {self.run_id!r} was begun with {as_options(params) or 'no parameters'}, which cannot be "
                "changed; leave -p away, or begin a run of its own without --resume"
            )
        return replace(
            plan,
            given=params,
            source=plan.source or (None if source == STDIN else source),
            entry=entry,
            idle=source == STDIN and plan.source is None,
        )


def find_run(plan: Plan, flow: Flow) -> FoundRun | None:
    """The run that ``--resume`` names; InvalidValueError, with those that there are, where there is none."""
    if plan.resume is None or plan.store is None:
        return None
    with looked_into(plan.store) as (store, runtime):
        row = store.worker(plan.resume)
        if row is None:
            raise _no_run(store, plan.resume)
        if row.flow_id != flow.flow_id:
            raise InvalidValueError(
                f"--resume {shown(plan.resume)} is a run of flow {row.flow_id!r}, not of {flow.flow_id!r}; give the "
                "document of that flow"
            )
        ended = row.status == "stopped"
        jobs = runtime.list_jobs(worker=plan.resume) if ended else []
        letters = runtime.dead_letters(worker=plan.resume) if ended else []
        set_aside = tuple(job_id for letter in letters for job_id in letter.job_ids)
        return FoundRun(row.worker_id, ended, begun_of(row), tuple(jobs), set_aside)


def begun_of(row: WorkerRow) -> Mapping[str, Any]:
    """How a run was begun; empty if a program has started it."""
    from routilux.runtime.journal.rows import metadata_of  # comes with the store

    begun = metadata_of(load("codec")(), row)
    return begun if {"flow", "input", "params", "entry"} <= begun.keys() else {}


def _no_run(store: Store, given: str) -> InvalidValueError:
    rows = [row for row in store.workers() if row.kind == "worker"]
    close = nearest(given, [row.worker_id for row in rows])
    unfinished = [row for row in rows if row.status != "stopped"]
    told = f"the nearest are {', '.join(close)}" if close else "there is no run yet"
    listed = [_state_of(store, row) for row in unfinished[:_MOST_SHOWN]]
    more = f", and {len(unfinished) - _MOST_SHOWN:,} more" if len(unfinished) > _MOST_SHOWN else ""
    rest = f"; unfinished: {', '.join(listed)}{more}" if listed else "; none is unfinished"
    return InvalidValueError(f"--resume {shown(given)}: no such run in {store.name}; {told}{rest}")


def _state_of(store: Store, row: WorkerRow) -> str:
    jobs = store.jobs(worker_id=row.worker_id)
    done = sum(one.row.status not in ("pending", "running") for one in jobs)
    return f"{row.worker_id} ({done:,} of {len(jobs):,} items done)"


def _exactly(params: Mapping[str, Any]) -> str:
    import json  # slow to import, and few runs need it

    return json.dumps(params, sort_keys=True)


def as_options(params: Mapping[str, Any]) -> str:
    import json  # as above

    return " ".join(
        f"-p {shlex.quote(f'{key}={value}' if isinstance(value, str) else f'{key}:={json.dumps(value)}')}"
        for key, value in params.items()
    )
