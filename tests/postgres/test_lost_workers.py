"""Two runtimes on one database, one of which takes a worker over from the other."""

from __future__ import annotations

from threading import Event
from typing import Any

import pytest

from routilux import Flow, Routine, Runtime
from routilux.activation_policies import immediate_policy
from routilux.errors import StoreError, StoreFencedError, WorkerNotRunningError
from routilux.store.postgres import PostgresStore
from tests.postgres.conftest import OpenStore
from tests.postgres.server import Server
from tests.postgres.test_ownership import run_out
from tests.waiting import eventually


class Work(Routine):
    """Says that it has begun, and goes on when it may; ``done`` has what came to its end."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.set_activation_policy(immediate_policy())
        self.set_concurrency(4)
        self.begun, self.may_go_on, self.done = Event(), Event(), []

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        self.begun.set()
        self.may_go_on.wait(60)
        self.done.append(slot_data["input"][0]["n"])


def flow_of(flow_id: str) -> tuple[Flow, Work]:
    flow, work = Flow(flow_id), Work()
    flow.add_routine(work, "work")
    return flow, work


def test_the_worker_ends_in_the_one_and_goes_on_in_the_other(open_store: OpenStore, admin: Any) -> None:
    first_store, second_store = open_store(), open_store(owner="second")
    (flow, work), (other, other_work), (again, again_work) = flow_of("f"), flow_of("o"), flow_of("f")
    other_work.may_go_on.set()
    again_work.may_go_on.set()
    with Runtime(store=first_store, thread_pool_size=4) as first:
        worker = first.exec(flow, worker_id="w")
        first.exec(other, worker_id="o")
        jobs = [first.post(flow, "work", "input", {"n": n}).job_context for n in range(3)]
        assert work.begun.wait(60)
        run_out(admin)
        with Runtime(store=second_store) as second:
            second.exec(again, worker_id="w")
            for job in jobs:
                with pytest.raises(StoreFencedError, match="second"):
                    job.result(60)
            eventually(lambda: worker.status == "stopped")
            assert "'w' is run by second" in str(first.health().reason)
            work.may_go_on.set()
            eventually(lambda: not first.list_running())
            assert first.post(other, "work", "input", {"n": 0}).job_context.result(60) == []
            assert second.wait_until_all_jobs_finished(60)
            assert sorted(again_work.done) == [0, 1, 2]
            assert {job.status.value for job in second.list_jobs(worker="w")} == {"completed"}
        assert second_store.places("w") == []


def test_a_runtime_begins_whatever_others_hold(url: str, open_store: OpenStore) -> None:
    flow, _ = flow_of("f")
    with Runtime(store=open_store()) as first:
        first.exec(flow, worker_id="w")
        for store in (open_store(), PostgresStore(url)):
            with Runtime(store=store) as second:
                assert second.get_job("job") is None
            store.close()


def test_a_server_that_forgot_what_it_had_acknowledged_takes_nothing_that_rests_on_it(
    url: str, open_store: OpenStore, postgres_server: Server
) -> None:
    """The worker ends here, and goes on with what the store has: not with what only this process remembers."""
    store, (flow, work) = open_store(durability="process"), flow_of("f")
    work.may_go_on.set()
    with Runtime(store=store) as runtime:
        worker = runtime.exec(flow, worker_id="w")
        assert runtime.post(flow, "work", "input", {"n": 0}).job_context.wait(60)
        runtime.pause(worker)
        with postgres_server.setting("wal_writer_delay", "10s"):
            with postgres_server.connect() as admin:
                admin.execute("CHECKPOINT")
            runtime.post(flow, "work", "input", {"n": 1})
            postgres_server.stop("immediate")
            postgres_server.start()
        eventually(lambda: is_given_up(runtime, flow))
        eventually(lambda: "'w' has to be opened again" in str(runtime.health().reason))
        again = runtime.exec(flow, worker_id="w")
        runtime.resume(again)
        runtime.post(flow, "work", "input", {"n": 4})
        assert runtime.wait_until_all_jobs_finished(60)
        assert runtime.health().status == "ok"
    assert work.done in ([0, 4], [0, 1, 4])
    assert [job.items for job in store.jobs()] == [0] * len(work.done)


def is_given_up(runtime: Runtime, flow: Flow) -> bool:
    """The first post finds the connection lost."""
    try:
        runtime.post(flow, "work", "input", {"n": 3}, worker_id="w")
    except (StoreFencedError, WorkerNotRunningError):
        return True
    except StoreError:
        return False
    raise AssertionError("it was accepted, though what came before is forgotten")
