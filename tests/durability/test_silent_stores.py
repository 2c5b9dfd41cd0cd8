"""A store that does not say what became of a commit, that does not answer, or that takes nothing any more.

Whatever it does, a call ends by its time-out and says what is known, ``shutdown()`` ends and wakes all who wait, and
what was acknowledged is there in the next runtime.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from threading import Event, Thread
from typing import Any

import pytest

from routilux import Runtime, current
from routilux.errors import RuntimeClosedError, StoreError, StoreFullError, StoreUnknownError
from routilux.ports import Changes
from routilux.runtime.journal import committer
from routilux.store.memory import MemoryStore
from tests.durability.flows import Copy, Log, flow_of
from tests.waiting import SECONDS, eventually

SHORT = 0.05  # a time-out that passes


class Silent(MemoryStore):
    """``mood``: "well", "full", "lost" (nobody knows what became of a commit), or "hangs" (no write returns)."""

    def __init__(self) -> None:
        super().__init__()
        self.mood = "well"
        self.lost: Changes | None = None  # what a commit had that was lost on the way
        self.hanging = Event()
        self.released = Event()

    def write(self, changes: Changes) -> frozenset[int]:
        if self.mood == "full":
            raise StoreFullError("no space left")
        if self.mood == "lost":
            self.lost = changes
            raise StoreUnknownError("the connection was lost")
        if self.mood == "hangs":
            self.hanging.set()
            assert self.released.wait(SECONDS)
        return super().write(changes)

    def settle(self) -> bool:
        if self.mood == "lost":
            raise StoreError("still no connection")
        return False


class Home:
    def __init__(self) -> None:
        self.store = Silent()
        self.runtime = Runtime(store=self.store, thread_pool_size=2)
        self.flow = flow_of(Copy(), Log())
        self.worker = self.runtime.exec(self.flow, worker_id="worker")
        self.post(0)
        assert self.runtime.wait_until_all_jobs_finished(timeout=SECONDS)

    def post(self, n: int, **options: Any) -> Any:
        return self.runtime.post(self.flow, "0", "input", {"n": n}, **options).job_context

    def become(self, mood: str) -> None:
        """From here on the store is silent, and a record is in its hands."""
        self.store.mood = mood
        with pytest.raises(StoreError):
            self.post(1, timeout=SHORT)

    def recover_writes(self) -> None:
        self.store.mood = "well"
        self.store.released.set()

    def recover(self) -> None:
        self.recover_writes()
        eventually(lambda: self.runtime.health().status == "ok", "the store takes records again")


@pytest.fixture
def home() -> Iterator[Home]:
    made = Home()
    yield made
    made.store.mood = "well"
    made.store.released.set()
    made.runtime.shutdown(wait=False)


def in_background(call: Callable[[], Any]) -> list[BaseException | str]:
    """What comes of a call, once it has come."""
    outcome: list[BaseException | str] = []

    def run() -> None:
        try:
            outcome.append(repr(call()))
        except BaseException as error:
            outcome.append(error)

    Thread(target=run, daemon=True).start()
    return outcome


CALLS: dict[str, Callable[[Home], Any]] = {
    "post": lambda home: home.post(2, timeout=SHORT),
    "post with a key": lambda home: home.post(2, timeout=SHORT, idempotency_key="key"),
    "apost": lambda home: asyncio.run(home.runtime.apost(home.flow, "0", "input", {"n": 2}, timeout=SHORT)),
    "pause of a worker": lambda home: home.runtime.pause(home.worker, timeout=SHORT),
    "apause": lambda home: asyncio.run(home.runtime.apause(home.worker, timeout=SHORT)),
    "stop": lambda home: home.runtime.stop(home.worker, timeout=SHORT),
    "stop without a drain": lambda home: home.runtime.stop(home.worker, drain=False, timeout=SHORT),
    "astop": lambda home: asyncio.run(home.runtime.astop(home.worker, timeout=SHORT)),
}
WITHOUT_TIMEOUT: dict[str, Callable[[Home], Any]] = {
    "post": lambda home: home.post(2),
    "pause": lambda home: home.runtime.pause(home.worker),
    "resume": lambda home: home.runtime.resume(home.worker),
    "cancel": lambda home: home.runtime.cancel(home.worker),
    "dead_letters": lambda home: home.runtime.dead_letters(),
    "list_jobs": lambda home: home.runtime.list_jobs(),
}


@pytest.mark.parametrize("mood", ["lost", "hangs", "full"])
@pytest.mark.parametrize("what", CALLS)
def test_a_call_ends_by_its_timeout_with_a_store_that_is_silent(home: Home, what: str, mood: str) -> None:
    home.become(mood)
    outcome = in_background(lambda: CALLS[what](home))
    eventually(lambda: outcome, f"{what} ends by its time-out")
    assert isinstance(outcome[0], StoreError) or outcome == ["False"]
    home.recover()
    assert home.runtime.wait_until_all_jobs_finished(timeout=SECONDS)


@pytest.mark.parametrize("mood", ["lost", "full"])
@pytest.mark.parametrize("what", WITHOUT_TIMEOUT)
def test_a_call_hears_that_the_store_takes_nothing_while_an_earlier_commit_is_unknown(
    home: Home, what: str, mood: str
) -> None:
    home.become(mood)
    outcome = in_background(lambda: WITHOUT_TIMEOUT[what](home))
    eventually(lambda: outcome, f"{what} hears it")
    assert isinstance(outcome[0], StoreError)
    assert not isinstance(outcome[0], StoreUnknownError), "nobody has seen it, so that much is known"


def test_a_post_that_is_withdrawn_at_its_timeout_was_not_accepted(home: Home) -> None:
    home.store.mood = "hangs"
    first = in_background(lambda: home.post(1, timeout=SHORT))
    assert home.store.hanging.wait(SECONDS)
    with pytest.raises(StoreError, match=r"within the time-out .*; nothing of it was accepted") as refused:
        home.post(2, timeout=SHORT)
    assert not isinstance(refused.value, StoreUnknownError)
    eventually(lambda: first, "the one that is being written ends too")
    assert isinstance(first[0], StoreUnknownError)
    home.recover()
    assert home.runtime.wait_until_all_jobs_finished(timeout=SECONDS)
    assert list(home.worker.shared_log) == [0, 1]


def test_a_post_that_was_left_open_is_accepted_once_with_its_key(home: Home) -> None:
    home.store.mood = "lost"
    with pytest.raises(StoreUnknownError, match="idempotency_key"):
        home.post(1, timeout=SHORT, idempotency_key="key")
    home.recover()
    home.post(1, idempotency_key="key")
    assert home.runtime.wait_until_all_jobs_finished(timeout=SECONDS)
    assert list(home.worker.shared_log) == [0, 1]


def test_a_pause_that_is_withdrawn_does_not_hold(home: Home) -> None:
    home.become("hangs")
    with pytest.raises(StoreError, match="the pause is withdrawn"):
        home.runtime.pause(home.worker, timeout=SHORT)
    home.recover()
    assert home.post(3).wait(SECONDS)
    assert home.worker.status == "running"


def test_a_pause_that_is_withdrawn_leaves_the_one_before_it(home: Home) -> None:
    home.store.mood = "hangs"
    first = in_background(lambda: home.runtime.pause(home.worker))
    assert home.store.hanging.wait(SECONDS)
    with pytest.raises(StoreError, match="the pause is withdrawn"):
        home.runtime.pause(home.worker, timeout=SHORT)
    home.recover_writes()
    eventually(lambda: first, "the first pause returns")
    assert first == ["None"]
    assert home.worker.status == "paused"
    waits = home.post(3)
    assert home.runtime.list_jobs(status="pending") == [waits]
    row = home.store.worker("worker")
    assert row is not None
    assert row.status == "paused"


def test_posts_hear_of_a_full_store_behind_more_records_than_a_batch_takes(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer, "BATCH_RECORDS", 2)
    home.store.mood = "full"
    for n in range(10):
        home.worker.shared_data[f"key {n}"] = n
    with pytest.raises(StoreFullError):
        home.post(1)
    home.recover()


@pytest.mark.parametrize("mood", ["lost", "hangs", "full"])
@pytest.mark.parametrize("options", [{"timeout": SHORT}, {"wait": False}, {"wait": False, "timeout": SHORT}])
def test_shutdown_ends_and_all_who_wait_are_told(home: Home, mood: str, options: dict[str, Any]) -> None:
    once = home.post(1)
    assert once.wait(SECONDS)
    if mood == "hangs":
        home.store.mood = mood
        posts = in_background(lambda: home.post(2))
        assert home.store.hanging.wait(SECONDS)
    else:
        home.become(mood)
        home.worker.shared_data["key"] = 1  # a record that is kept
        posts = in_background(lambda: home.post(2))
    waits = [
        in_background(lambda: home.runtime.wait_until_all_jobs_finished()),
        in_background(lambda: home.worker.wait()),
    ]
    ended = in_background(lambda: home.runtime.shutdown(**options))
    eventually(lambda: ended and posts and all(waits), "all calls end")
    assert ended == ["False"]
    assert isinstance(posts[0], (StoreError, RuntimeClosedError))
    with pytest.raises(RuntimeClosedError):
        home.post(3)


def test_shutdown_without_a_timeout_gives_a_store_up_that_takes_nothing(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer, "PATIENCE_SECONDS", 2 * committer.RETRY_SECONDS)
    home.become("full")
    home.worker.shared_data["key"] = 1
    ended = in_background(home.runtime.shutdown)
    eventually(lambda: ended, "shutdown() ends")
    assert ended == ["False"]


def test_logic_that_waits_for_a_silent_store_ends_with_the_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer, "PATIENCE_SECONDS", 2 * committer.RETRY_SECONDS)
    raised: list[BaseException] = []
    begun = Event()
    store = Silent()

    class Waits(Copy):
        def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            store.mood = "full"
            begun.set()
            try:
                current().once("call", lambda: 1)
            except BaseException as error:
                raised.append(error)
                raise

    runtime = Runtime(store=store, thread_pool_size=1)
    flow = flow_of(Waits(), Log())
    runtime.exec(flow, worker_id="worker")
    runtime.post(flow, "0", "input", {})
    assert begun.wait(SECONDS)
    ended = in_background(runtime.shutdown)
    eventually(lambda: ended and raised, "shutdown() and the logic end")
    assert ended == ["False"]
    assert isinstance(raised[0], StoreError)


FULL_DISK = """
    import resource, signal, sys, threading
    from routilux import Runtime
    from routilux.errors import StoreError
    from tests.durability.flows import Copy, Log, flow_of

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    runtime = Runtime(store=sys.argv[1], thread_pool_size=1)
    flow = flow_of(Copy(), Log())
    worker = runtime.exec(flow, worker_id="worker")
    runtime.pause(worker)
    acknowledged, payload = 0, "x" * 20_000
    runtime.post(flow, "0", "input", {"n": acknowledged, "payload": payload})
    acknowledged += 1
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), hard))
    try:
        while acknowledged < 10_000:
            runtime.post(flow, "0", "input", {"n": acknowledged, "payload": payload}, timeout=5)
            acknowledged += 1
    except StoreError as error:
        print(type(error).__name__, flush=True)
    for call in (
        lambda: runtime.post(flow, "0", "input", {"n": -1, "payload": payload}, timeout=1),
        lambda: runtime.pause(worker, timeout=1),
        lambda: runtime.stop(worker, drain=False, timeout=1),
    ):
        try:
            print("returned", call(), flush=True)
        except StoreError as error:
            print("refused", flush=True)
    print(acknowledged, runtime.shutdown(timeout=1), flush=True)
"""


@pytest.mark.parametrize("limit", [2 * 2**20, 4 * 2**20 + 12_345])
def test_on_a_disk_without_room_every_call_ends_and_nothing_acknowledged_is_lost(
    tmp_path: Path, limit: int
) -> None:
    url = f"sqlite:///{tmp_path / 's.db'}"
    program = [sys.executable, "-c", dedent(FULL_DISK), url, str(limit)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=2 * SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    acknowledged = int(done.stdout.splitlines()[-1].split()[0])
    assert acknowledged > 10
    with Runtime(store=url) as runtime:
        worker = runtime.exec(flow_of(Copy(), Log()), worker_id="worker")
        runtime.resume(worker)
        assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
        assert list(worker.shared_log)[:acknowledged] == list(range(acknowledged))
