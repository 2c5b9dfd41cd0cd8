"""A row that is missing is named by a check where any other row names it, and a repair makes a store that opens.

Rows that no other row names cannot be missed: states, logs and other entries, letters, keys, and the index of a join.
"""

from __future__ import annotations

import re
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from routilux import ErrorHandler, ErrorStrategy, Flow, Routine, Runtime
from routilux.activation_policies import immediate_policy
from routilux.ports import NoteKey
from routilux.store import check, export, look_into, open_store, read_export, repair
from routilux.testing.store_rows import changes
from tests.durability.behind import delete
from tests.durability.test_adopting import Fails, Joins, flow_of, is_to_run_again
from tests.waiting import SECONDS, eventually


class Refuses(Routine):
    def __init__(self) -> None:
        super().__init__()
        self.add_slot("in")
        self.set_activation_policy(immediate_policy())
        self.set_error_handler(ErrorHandler(ErrorStrategy.SKIP))

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        raise ValueError("never")


def flow(kind: type[Joins] = Joins) -> Flow:
    made = flow_of("ab", kind=kind)
    made.add_routine(Refuses(), "refuses")
    return made


@pytest.fixture
def rich_url(store_url: str) -> str:
    """The URL of a store with a retry, items that wait for partners, a letter, a key, states, and lists of jobs."""
    runtime = Runtime(store=store_url)
    worker = runtime.exec(flow(Fails), worker_id="w")
    worker.update_routine_state("r", {"kept": [1, 2]})
    worker.shared_data["shared"] = 1
    worker.shared_log.append("logged")
    runtime.post("f", "refuses", "in", {"n": 0}, job_id="refused").job_context.wait(SECONDS)
    job = runtime.post("f", "r", "a", {"n": 1}, job_id="first", idempotency_key="k").job_context
    job.set_data("of", "first")
    job.trace("noted")
    runtime.post("f", "r", "b", {"n": 2}, job_id="second")

    def notes() -> Counter[str]:
        with closing(look_into(store_url)) as store:
            return Counter(note.kind for note, _ in store.notes("w"))

    eventually(lambda: is_to_run_again(store_url))
    for n in range(3, 6):
        runtime.post("f", "r", "a", {"n": n}, job_id=f"waits {n}")
    runtime.shutdown(wait=False, timeout=SECONDS)
    with closing(open_store(store_url)) as store:
        (first, *_) = store.items("w", "r.a")
        store.write(changes(notes={NoteKey("w", "crash", "r.a", str(first.number)): b"1"}))
    assert notes().keys() >= {"activation", "once", "checkpoint", "crash", "state", "shared", "job.data"}
    assert check(store_url) == []
    return store_url


FIRST = "job_ids LIKE '%first%'"

CASES: dict[str, tuple[str, str, list[str]]] = {
    "worker": ("workers", "worker_id = 'w'", [r"worker 'w' is not there, and 5 items and .* of it are"]),
    "an item": ("items", "job_ids LIKE '%waits 4%'", ["job 'waits 4' has 0 items, and 1 are counted"]),
    "an item of an activation": (
        "items", FIRST,
        [
            "job 'first' has 0 items, and 1 are counted", "the note 'w' / 'activation' / 'r' / .* names item r.a / ",
            "the note 'w' / 'checkpoint' / ", "the note 'w' / 'once' / ", "the note 'w' / 'crash' / ",
        ],
    ),
    "a job": ("jobs", "job_id = 'waits 3'", ["job 'waits 3' is not there, and 1 items of it are"]),
    "a job with data": ("jobs", "job_id = 'first'", ["job 'first' is not there, and 1 items and .*notes"]),
    "a finished job": ("jobs", "job_id = 'refused'", ["job 'refused' is not there, and .* entries of it are"]),
    "all jobs": ("jobs", "TRUE", [f"job '{one}' is not there" for one in ("first", "second", "waits 3")]),
    "all items": ("items", "TRUE", ["job 'second' has 0 items, and 1 are counted", "names item"]),
}  # fmt: skip


def messages(problems: list[Any]) -> str:
    return "\n".join(problem.message for problem in problems)


def rows_of(url: str, folder: Path) -> list[Any]:
    export(url, folder / "compared.jsonl")
    return list(read_export(folder / "compared.jsonl"))


def open_again(url: str) -> tuple[int, list[tuple[str, int]]]:
    """Open the store, have something done, and look at what the worker has logged and set aside."""
    with Runtime(store=url) as runtime:
        worker = runtime.exec(flow(), worker_id="w", on_flow_change="adopt")
        for letter in runtime.dead_letters():
            assert runtime.get_job(letter.job_ids[0]) is not None
        assert runtime.post("f", "src", "in", {"event": "a", "numbers": []}).job_context.wait(SECONDS)
        assert runtime.health().status == "ok"
        letters = sorted((letter.routine_id, letter.data["n"]) for letter in runtime.dead_letters())
        runtime.shutdown(wait=False, timeout=SECONDS)
        return len(worker.shared_log), letters


@pytest.mark.parametrize("case", CASES)
def test_what_is_missing_is_named_and_mended(rich_url: str, tmp_path: Path, case: str) -> None:
    table, where, expected = CASES[case]
    delete(rich_url, table, where)
    found = check(rich_url)
    for message in expected:
        assert re.search(message, messages(found)), messages(found)
    saved = f"sqlite:///{tmp_path}/saved.db"
    lost = repair(rich_url, saved).lost
    for message in expected:
        assert re.search(message, messages(lost)), messages(lost)
    assert len(lost) == len(found)
    assert check(saved) == []
    open_again(saved)
    assert check(saved) == []


def test_a_missing_count_is_named_and_mended(rich_url: str, tmp_path: Path) -> None:
    if rich_url.startswith("postgresql"):
        pytest.skip("a count is a part of its job there")
    delete(rich_url, "counts", "job_id = 'waits 3'")
    assert "job 'waits 3' has 1 items, and 0 are counted" in messages(check(rich_url))
    assert "counted anew" in messages(repair(rich_url, f"sqlite:///{tmp_path}/saved.db").lost)
    assert check(f"sqlite:///{tmp_path}/saved.db") == []


def test_the_items_of_a_job_that_is_made_anew_are_set_aside(rich_url: str, tmp_path: Path) -> None:
    delete(rich_url, "jobs", "job_id = 'waits 3'")
    repair(rich_url, f"sqlite:///{tmp_path}/saved.db")
    assert open_again(f"sqlite:///{tmp_path}/saved.db")[1] == [("r", 3), ("refuses", 0)]


def test_a_worker_that_is_made_anew_goes_on(rich_url: str, tmp_path: Path) -> None:
    delete(rich_url, "workers")
    assert "on_flow_change='adopt'" in messages(repair(rich_url, f"sqlite:///{tmp_path}/saved.db").lost)
    logged, letters = open_again(f"sqlite:///{tmp_path}/saved.db")
    assert (logged, letters) == (1, [("refuses", 0)])


def test_what_nothing_tells_the_flow_of_is_lost_and_told(store_url: str, tmp_path: Path) -> None:
    with closing(open_store(store_url)) as store:
        store.write(changes(notes={NoteKey("gone", "state", "r", '"a"'): b"1"}))
    assert "worker 'gone' is not there, and 1 notes of it are" in messages(check(store_url))
    lost = repair(store_url, f"sqlite:///{tmp_path}/saved.db").lost
    assert "nothing says of which flow it was: all of that is lost" in messages(lost)
    assert rows_of(f"sqlite:///{tmp_path}/saved.db", tmp_path) == []


def test_a_store_that_is_whole_is_repaired_into_the_same(rich_url: str, tmp_path: Path) -> None:
    assert repair(rich_url, f"sqlite:///{tmp_path}/saved.db").lost == []
    by_repr = [
        sorted(map(repr, rows_of(url, tmp_path))) for url in (rich_url, f"sqlite:///{tmp_path}/saved.db")
    ]
    assert by_repr[0] == by_repr[1]
