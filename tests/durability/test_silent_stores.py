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
from threading import Event, Thread, get_ident
from typing import Any

import pytest

from routilux import Routine, Runtime, current
from routilux.activation_policies import immediate_policy
from routilux.errors import RuntimeClosedError, StoreError, StoreFullError, StoreUnknownError
from routilux.model.item import DeadLetter
from routilux.ports import Changes
from routilux.runtime.journal import committer, log
from routilux.runtime.journal.admission import Admission
from routilux.runtime.journal.record import Record
from routilux.runtime.waiting import ThreadSignal
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


def test_nothing_of_a_commit_that_was_not_answered_is_loaded_before_what_comes_before_it() -> None:
    """``b`` holds one item. ``a`` sends it two more: one has a place, one waits in the store, where the load for
    which there is room now must not find it first."""

    class Unanswered(Silent):
        asked = 0

        def write(self, changes: Changes) -> frozenset[int]:
            if self.mood == "lost":
                MemoryStore.write(self, changes)
            return super().write(changes)

        def settle(self) -> bool:
            self.asked += 1
            return self.mood == "well" or super().settle()

    begun, go, done = Event(), Event(), []

    class Sends(Copy):
        def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            if slot_data["input"][0]["n"]:
                store.mood = "lost"
            for n in slot_data["input"][0]["sends"]:
                self.emit("output", n=n)

    class Holds(Copy):
        def __init__(self) -> None:
            Routine.__init__(self)
            self.add_slot("input", max_queue_length=2, watermark=1.0)
            self.set_activation_policy(immediate_policy())

        def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
            begun.set()
            assert go.wait(SECONDS)
            done.append(slot_data["input"][0]["n"])

    store = Unanswered()
    flow = flow_of(Sends(), Holds())
    with Runtime(store=store, thread_pool_size=2) as runtime:
        runtime.exec(flow)
        runtime.post(flow, "0", "input", {"n": 0, "sends": [0, 1]})
        assert begun.wait(SECONDS)
        runtime.post(flow, "0", "input", {"n": 1, "sends": [2, 3]})
        eventually(lambda: store.lost)
        go.set()
        eventually(lambda: len(done) >= 2)
        before = store.asked
        eventually(lambda: store.asked > before + 1, "the committer has taken a whole step")
        store.mood = "well"
        assert runtime.wait_until_all_jobs_finished(timeout=SECONDS)
        assert done == [0, 1, 2, 3]


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


def cancelled_while_it_is_written(home: Home, then: Callable[[], None], **options: Any) -> list[str]:
    """The notes of an ``apost`` that is cancelled in the hands of the store."""
    home.store.mood = "hangs"

    async def main() -> list[str]:
        post = asyncio.ensure_future(home.runtime.apost(home.flow, "0", "input", {"n": 1}, **options))
        assert await asyncio.to_thread(home.store.hanging.wait, SECONDS)
        post.cancel()
        await asyncio.sleep(0)
        then()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await post
        return getattr(cancelled.value, "__notes__", [])

    return asyncio.run(main())


def test_a_cancelled_apost_says_that_the_store_did_not_answer_in_time(home: Home) -> None:
    (note,) = cancelled_while_it_is_written(home, lambda: None, timeout=SHORT)
    assert "has not answered yet whether it is written" in note
    home.recover()
    assert home.runtime.wait_until_all_jobs_finished(timeout=SECONDS)
    assert list(home.worker.shared_log) == [0, 1]


def test_a_cancelled_apost_says_that_its_commit_is_unknown(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(changes: Changes) -> frozenset[int]:
        home.store.hanging.set()
        assert home.store.released.wait(SECONDS)
        raise StoreUnknownError("the connection was lost")

    monkeypatch.setattr(home.store, "write", lose)

    def lost() -> None:
        home.store.mood = "lost"
        home.store.released.set()

    (note,) = cancelled_while_it_is_written(home, lost)
    assert "was lost during a commit" in note


@pytest.mark.parametrize("is_cancelled_in_the_store", [True, False])
def test_a_cancelled_apost_waits_until_its_job_is_cancelled_in_the_store(
    home: Home, monkeypatch: pytest.MonkeyPatch, is_cancelled_in_the_store: bool
) -> None:
    home.runtime.pause(home.worker)
    write, statuses = home.store.write, list[str]()

    def note(changes: Changes) -> frozenset[int]:
        taken = write(changes)
        statuses.extend(row.status for row in changes.jobs.values())
        if not is_cancelled_in_the_store:
            home.store.mood = "full"
        return taken

    monkeypatch.setattr(home.store, "write", note)
    notes = cancelled_while_it_is_written(home, home.recover_writes)
    if is_cancelled_in_the_store:
        assert (notes, "cancelled" in statuses) == ([], True)
    else:
        assert "had been accepted when it was cancelled" in notes[0]
        assert notes[0].endswith("is cancelled, which may not be written")


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[ThreadSignal], None]]:
    """What is in it is done once in place of the next wait of this thread, which Ctrl-C then ends."""
    steps: list[Callable[[ThreadSignal], None]] = []
    wait, me = ThreadSignal.wait, get_ident()

    def wait_or_not(signal: ThreadSignal, timeout: float | None, holds: Any = None) -> bool:
        if steps and get_ident() == me:
            steps.pop()(signal)
            raise KeyboardInterrupt
        return wait(signal, timeout, holds)

    monkeypatch.setattr(ThreadSignal, "wait", wait_or_not)
    return steps


def notes_of_ctrl_c(home: Home, **options: Any) -> list[str]:
    with pytest.raises(KeyboardInterrupt) as raised:
        home.post(2, **options)
    return getattr(raised.value, "__notes__", [])


def test_ctrl_c_withdraws_a_post_that_the_store_has_not_seen(
    home: Home, interrupted: list[Callable[[ThreadSignal], None]]
) -> None:
    home.store.mood = "hangs"
    first = in_background(lambda: home.post(1))
    assert home.store.hanging.wait(SECONDS)
    interrupted.append(lambda signal: None)
    assert notes_of_ctrl_c(home) == []
    home.recover_writes()
    eventually(lambda: first, "the first post returns")
    assert home.runtime.wait_until_all_jobs_finished(timeout=SECONDS)
    assert list(home.worker.shared_log) == [0, 1]


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({}, "accepted once only if it had an idempotency_key"),
        ({"idempotency_key": "two"}, "repeat the post with the same idempotency_key"),
    ],
)
def test_ctrl_c_says_that_a_post_is_just_being_written(
    home: Home, interrupted: list[Callable[[ThreadSignal], None]], options: dict[str, str], advice: str
) -> None:
    home.store.mood = "hangs"
    interrupted.append(lambda signal: eventually(home.store.hanging.is_set, "the store has it"))
    (note,) = notes_of_ctrl_c(home, **options)
    assert "has not answered yet whether it is written" in note
    assert advice in note
    home.recover()
    assert home.runtime.wait_until_all_jobs_finished(timeout=SECONDS)
    assert list(home.worker.shared_log) == [0, 2]


def test_ctrl_c_in_a_wait_for_what_is_being_written_speaks_of_no_post(
    home: Home, interrupted: list[Callable[[ThreadSignal], None]]
) -> None:
    home.store.mood = "hangs"
    first = in_background(lambda: home.post(1))
    assert home.store.hanging.wait(SECONDS)
    interrupted.append(lambda signal: None)
    with pytest.raises(KeyboardInterrupt) as raised:
        home.runtime.list_jobs()
    assert not [note for note in getattr(raised.value, "__notes__", []) if "post" in note]
    home.recover()
    eventually(lambda: first, "the first post returns")


def test_ctrl_c_cancels_a_job_that_is_just_written(
    home: Home, interrupted: list[Callable[[ThreadSignal], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "RELEASE_SECONDS", 0.0)
    home.runtime.pause(home.worker)

    def used_up(signal: ThreadSignal) -> None:
        assert signal._lock.acquire(timeout=SECONDS)

    interrupted.append(used_up)
    assert notes_of_ctrl_c(home) == []
    assert [job.status for job in home.runtime.list_jobs()][-1] == "cancelled"


def interrupts_behind(
    monkeypatch: pytest.MonkeyPatch, step: Callable[[Any], object]
) -> Callable[[Any, Record], None]:
    """Ctrl-C comes as soon as a post has handed its record over, and this has been done."""
    hand_over = Admission._hand_over

    def hand_over_and_interrupt(admission: Admission, record: Record) -> None:
        hand_over(admission, record)
        step(admission._worker.journal)
        raise KeyboardInterrupt

    monkeypatch.setattr(Admission, "_hand_over", hand_over_and_interrupt)
    return hand_over


def test_ctrl_c_just_when_a_post_is_handed_over_withdraws_it(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.store.mood = "hangs"
    first = in_background(lambda: home.post(1))
    assert home.store.hanging.wait(SECONDS)
    usual = interrupts_behind(monkeypatch, bool)
    assert notes_of_ctrl_c(home) == []
    monkeypatch.setattr(Admission, "_hand_over", usual)
    home.recover_writes()
    eventually(lambda: first, "the first post returns")
    home.post(3)
    assert home.runtime.wait_until_all_jobs_finished(timeout=SECONDS)
    assert list(home.worker.shared_log) == [0, 1, 3]
    assert [job.status for job in home.runtime.list_jobs()] == ["completed"] * 3


def test_ctrl_c_just_when_a_post_is_written_says_that_it_was_accepted(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_run(journal: Any) -> None:
        journal.wake()
        eventually(lambda: list(home.worker.shared_log) == [0, 2])

    interrupts_behind(monkeypatch, is_run)
    (note,) = notes_of_ctrl_c(home)
    assert "had been accepted when it was cancelled" in note
    assert home.runtime.wait_until_all_jobs_finished(timeout=SECONDS)
    assert [job.status for job in home.runtime.list_jobs()] == ["completed"] * 2


def letter_of(home: Home) -> DeadLetter:
    def fail(*_: Any) -> None:
        raise ValueError("planted")

    flow = flow_of(Copy(), flow_id="failing")
    flow.routines["0"].logic = fail  # type: ignore[method-assign]
    home.runtime.exec(flow, worker_id="failing")
    home.runtime.post(flow, "0", "input", {"n": 1})
    assert home.runtime.wait_until_all_jobs_finished(timeout=SECONDS)
    (letter,) = home.runtime.dead_letters()
    return letter


def test_a_redrive_ends_by_its_timeout_and_leaves_the_letter(home: Home) -> None:
    letter = letter_of(home)
    home.become("hangs")
    ended = in_background(lambda: home.runtime.redrive(letter, timeout=SHORT))
    eventually(lambda: ended, "it ends by its time-out")
    assert isinstance(ended[0], StoreError)
    home.recover()
    assert home.runtime.redrive(letter)


def test_a_letter_that_could_not_be_read_can_be_driven_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter, letters, reads = letter_of(home), home.store.letters, []

    def read(**options: Any) -> Any:
        reads.append(options)
        if len(reads) == 2:
            raise StoreError("planted")
        return letters(**options)

    monkeypatch.setattr(home.store, "letters", read)
    with pytest.raises(StoreError, match="planted"):
        home.runtime.redrive(letter)
    assert home.runtime.redrive(*home.runtime.dead_letters())


def test_a_letter_that_two_callers_have_is_taken_out_by_one(home: Home) -> None:
    letter = letter_of(home)
    kept = home.runtime._engine.workers["failing"].letters
    with kept.taken_out(letter) as first, kept.taken_out(letter) as second:
        assert (first, second) == (True, False)
    with kept.taken_out(letter) as third:
        assert third


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
