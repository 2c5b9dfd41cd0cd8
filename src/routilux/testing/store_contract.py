"""What every store has to do, as tests.

::

    import pytest

    pytest.register_assert_rewrite("routilux.testing.store_contract")  # for readable failures

    from routilux.testing.store_contract import StoreContract

    class TestMyStore(StoreContract):
        def open_store(self):
            return MyStore()

Needs pytest. The store in memory is the reference: random changes have to leave both with the same contents.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from random import Random
from threading import Event
from typing import Any

import pytest

from routilux.errors import StoreError, StoreLockedError
from routilux.ports import (
    Changes,
    EntryRow,
    ItemKey,
    ItemRow,
    JobRow,
    KeyRow,
    LetterRow,
    NoteKey,
    Store,
    StoredJob,
    WorkerRow,
)
from routilux.store.memory import MemoryStore

EVERY_BYTE = bytes(range(256))

ODD_TEXTS = [
    "a", "A", "", " ", "0", "NULL", "None", "ünïcode 文字 🎉", "\uffff", "\U0010ffff", "line\nbreak\ttab", "x" * 2_000,
    "../../etc/passwd", "a/b\\c:d*?", "100%_", "%s {} $1 :a ?", "'; DROP TABLE workers; --", '"quoted"', "job.", "\\x00",
]  # fmt: skip


# -- rows with as little as a test wants to say ------------------------------------------------------------


def worker_row(worker_id: str = "w", **fields: Any) -> WorkerRow:
    row = WorkerRow(worker_id, "orders", "fingerprint", "worker", "running", 0, 1_700_000_000.25, b"{}")
    return row._replace(**fields)


def item_row(number: int, place: str = "parse.in", worker_id: str = "w", **fields: Any) -> ItemRow:
    row = ItemRow(worker_id, place, number, '["j"]', "load.out", 1_700_000_000.5, b'{"n":%d}' % number)
    return row._replace(**fields)


def entry_row(number: int, kind: str = "log", owner: str = "", worker_id: str = "w") -> EntryRow:
    return EntryRow(worker_id, kind, owner, number, b"entry %d" % number)


def job_row(job_id: str = "j", worker_id: str = "w", **fields: Any) -> JobRow:
    row = JobRow(job_id, worker_id, "orders", "pending", 0, 1_700_000_000.0, None, None, b"{}")
    return row._replace(**fields)


def letter_row(number: int, worker_id: str = "w", **fields: Any) -> LetterRow:
    row = LetterRow(worker_id, number, "orders", "parse.in", '["j"]', "failed", "ValueError: no", 5.0, b"{}")
    return row._replace(**fields)


def key_row(key: str = "k", flow_id: str = "orders", **fields: Any) -> KeyRow:
    row = KeyRow(flow_id, key, "w", "j", "digest", created_at=100.0, expires_at=200.0)
    return row._replace(**fields)


def key_of(row: ItemRow) -> ItemKey:
    return ItemKey(row.worker_id, row.place, row.number)


def changes(**parts: Any) -> Changes:
    """The changes with these parts; workers and jobs may be given as lists of rows."""
    made = Changes()
    for name, part in parts.items():
        setattr(made, name, _BY_ID[name](part) if name in _BY_ID and isinstance(part, list) else part)
    return made


_BY_ID: dict[str, Callable[[Any], Any]] = {
    "workers": lambda rows: {row.worker_id: row for row in rows},
    "jobs": lambda rows: {row.job_id: row for row in rows},
}


def contents(store: Store, worker_ids: list[str], owners: list[str]) -> dict[str, Any]:
    """All that a store gives about these workers; entries of the kinds "log" and "job.trace" of these owners."""
    return {
        "workers": store.workers(),
        "worker": [store.worker(worker_id) for worker_id in worker_ids],
        "places": [store.places(worker_id) for worker_id in worker_ids],
        "items": [store.items(id_, place) for id_ in worker_ids for place in store.places(id_)],
        "notes": [store.notes(worker_id) for worker_id in worker_ids],
        "entries": [
            store.entries(worker_id, kind, owner)
            for worker_id in worker_ids
            for kind in ("log", "job.trace")
            for owner in owners
        ],
        "jobs": store.jobs(),
        "letters": store.letters(),
    }


class StoreContract:
    """Subclass it and say how your store is opened: empty, and independent of the others."""

    keeps_nul = True
    """Whether a text may hold the character U+0000."""

    def open_store(self) -> Store:
        raise NotImplementedError

    def reopen_store(self, store: Store) -> Store | None:
        """Close the store, and open again what it has kept. None: it keeps nothing beyond ``close``."""
        return None

    @pytest.fixture
    def store(self) -> Iterator[Store]:
        store = self.open_store()
        yield store
        store.close()

    # -- nothing yet ---------------------------------------------------------------------------------------

    def test_an_empty_store_has_nothing(self, store: Store) -> None:
        assert store.worker("w") is None
        assert store.job("j") is None
        assert store.key("orders", "k", 0.0) is None
        assert store.tail("w", "parse.in") == -1
        assert store.items_of([ItemKey("w", "parse.in", 1)]) == []
        assert store.workers() == store.jobs() == store.letters() == store.suspects() == []
        assert store.places("w") == store.notes("w") == []
        assert store.items("w", "parse.in") == store.entries("w", "log", "") == []

    def test_it_has_a_name(self, store: Store) -> None:
        assert isinstance(store.name, str)
        assert store.name

    def test_no_changes_are_changes_too(self, store: Store) -> None:
        assert store.write(Changes()) == frozenset()

    def test_stores_are_independent(self, store: Store) -> None:
        store.write(changes(workers=[worker_row()]))
        other = self.open_store()
        assert other.workers() == []
        other.close()
        assert store.workers() == [worker_row()]

    # -- workers -------------------------------------------------------------------------------------------

    def test_a_worker_comes_back_as_it_was(self, store: Store) -> None:
        row = WorkerRow("w", "f", "1a2b", "execution", "paused", 2**62, 0.1 + 0.2, EVERY_BYTE)
        store.write(changes(workers=[row]))
        assert store.worker("w") == row
        assert store.workers() == [row]

    def test_a_worker_that_is_written_again_is_replaced_whole(self, store: Store) -> None:
        store.write(changes(workers=[worker_row(data=b"1", next_number=5), worker_row("v")]))
        store.write(changes(workers=[worker_row(data=b"2", status="stopped")]))
        assert store.workers() == [worker_row("v"), worker_row(data=b"2", status="stopped")]

    def test_workers_come_in_the_order_of_their_ids(self, store: Store) -> None:
        ids = ["b", "a", "B", "10", "9", "é", "z", "文", "🎉", ""]
        store.write(changes(workers=[worker_row(worker_id) for worker_id in ids]))
        assert [row.worker_id for row in store.workers()] == sorted(ids)

    def test_a_forgotten_worker_loses_items_notes_and_entries_but_not_jobs_and_letters(
        self, store: Store
    ) -> None:
        for worker_id in ("w", "w2"):
            store.write(
                changes(
                    workers=[worker_row(worker_id)],
                    items=[item_row(1, worker_id=worker_id), item_row(2, "b.in", worker_id)],
                    notes={NoteKey(worker_id, "state", "parse", ""): b"1"},
                    entries=[entry_row(1, worker_id=worker_id)],
                    jobs=[job_row(f"job of {worker_id}", worker_id)],
                    counts={f"job of {worker_id}": 2},
                    letters=[letter_row(3, worker_id)],
                )
            )
        before = contents(store, ["w2"], [""])
        store.write(changes(forgotten=["w", "nobody"]))
        assert contents(store, ["w"], [""])["places"] == [[]]
        assert store.worker("w") is None
        assert store.items("w", "parse.in") == store.notes("w") == store.entries("w", "log", "") == []
        assert contents(store, ["w2"], [""]) == {**before, "workers": [worker_row("w2")]}

    def test_forgetting_comes_first_so_that_a_worker_can_be_written_anew(self, store: Store) -> None:
        store.write(
            changes(
                workers=[worker_row(data=b"old")],
                items=[item_row(1), item_row(2)],
                notes={NoteKey("w", "state", "parse", ""): b"old", NoteKey("w", "state", "b", ""): b"old"},
                entries=[entry_row(1), entry_row(2)],
            )
        )
        store.write(
            changes(
                forgotten=["w"],
                workers=[worker_row(data=b"new")],
                items=[item_row(1, data=b"new")],
                notes={NoteKey("w", "state", "parse", ""): b"new"},
                entries=[entry_row(2)],
            )
        )
        assert store.worker("w") == worker_row(data=b"new")
        assert store.items("w", "parse.in") == [item_row(1, data=b"new")]
        assert store.notes("w") == [(NoteKey("w", "state", "parse", ""), b"new")]
        assert store.entries("w", "log", "") == [entry_row(2)]

    # -- items ---------------------------------------------------------------------------------------------

    def test_items_come_lowest_number_first(self, store: Store) -> None:
        store.write(changes(items=[item_row(9), item_row(2), item_row(100)]))
        store.write(changes(items=[item_row(10), item_row(0)]))
        assert store.items("w", "parse.in") == [item_row(number) for number in (0, 2, 9, 10, 100)]
        assert store.tail("w", "parse.in") == 100

    @pytest.mark.parametrize("after", [-1, 0, 2, 3, 9, 10])
    @pytest.mark.parametrize("limit", [None, 0, 1, 2, 50])
    def test_items_after_a_number_up_to_a_limit(self, store: Store, after: int, limit: int | None) -> None:
        numbers = [0, 2, 4, 6, 9]
        store.write(changes(items=[item_row(number) for number in numbers]))
        wanted = [number for number in numbers if number > after][:limit]
        assert store.items("w", "parse.in", after=after, limit=limit) == [item_row(n) for n in wanted]

    def test_places_do_not_mix(self, store: Store) -> None:
        rows = [item_row(1, "b.in"), item_row(2, "a.in"), item_row(3, "a.in", "w2"), item_row(4, "a.in ")]
        store.write(changes(items=rows))
        assert store.places("w") == ["a.in", "a.in ", "b.in"]
        assert store.places("w2") == ["a.in"]
        assert store.items("w", "a.in") == [rows[1]]
        assert store.tail("w", "a.in") == 2
        assert store.tail("w2", "b.in") == -1

    def test_taken_items_are_gone_and_others_are_not(self, store: Store) -> None:
        rows = [item_row(n, place) for place in ("a.in", "b.in") for n in range(1, 4)]
        store.write(changes(items=rows))
        store.write(
            changes(taken=[ItemKey("w", "a.in", 2), ItemKey("w", "b.in", 3), ItemKey("w", "c.in", 1)])
        )
        assert store.items("w", "a.in") == [rows[0], rows[2]]
        assert store.items("w", "b.in") == rows[3:5]
        assert (store.tail("w", "a.in"), store.tail("w", "b.in")) == (3, 2)
        store.write(changes(taken=[ItemKey("w", "a.in", 1), ItemKey("w", "a.in", 3)]))
        assert store.places("w") == ["b.in"]
        assert store.tail("w", "a.in") == -1

    def test_the_same_number_can_come_again_at_another_place_and_after_it_was_taken(
        self, store: Store
    ) -> None:
        store.write(changes(items=[item_row(1, "a.in")]))
        store.write(changes(taken=[ItemKey("w", "a.in", 1)], items=[item_row(1, "b.in")]))
        store.write(changes(items=[item_row(1, "a.in", data=b"again")]))
        assert store.items("w", "a.in") == [item_row(1, "a.in", data=b"again")]
        assert store.items("w", "b.in") == [item_row(1, "b.in")]

    def test_items_that_are_asked_for_come_in_the_order_of_asking(self, store: Store) -> None:
        rows = [item_row(n, place) for place in ("a.in", "b.in") for n in range(3)]
        store.write(changes(items=rows))
        asked = [rows[4], rows[0], rows[5], rows[1]]
        keys = [ItemKey("w", "a.in", 77), *map(key_of, asked), ItemKey("v", "a.in", 0)]
        assert store.items_of(keys) == asked
        assert store.items_of([]) == []

    def test_a_large_batch(self, store: Store) -> None:
        rows = [item_row(number, f"{number % 3}.in") for number in range(5_003)]
        store.write(changes(items=rows))
        assert store.items("w", "1.in") == rows[1::3]
        assert store.items_of([key_of(row) for row in reversed(rows)]) == rows[::-1]
        store.write(changes(taken=[key_of(row) for row in rows if row.number != 2_500]))
        assert [store.places("w"), store.items("w", "1.in")] == [["1.in"], [rows[2_500]]]

    @pytest.mark.parametrize("size", [1, 2, 3, 5, 15, 16, 17, 63, 64, 65, 255, 256, 257, 1_025])
    def test_every_size_of_a_batch(self, store: Store, size: int) -> None:
        rows = [item_row(number) for number in range(size)]
        notes = {NoteKey("w", "state", "parse", f"{n:05}"): b"%d" % n for n in range(size)}
        store.write(changes(items=rows, notes=notes, entries=[entry_row(n) for n in range(size)]))
        assert store.items("w", "parse.in") == rows
        assert store.notes("w") == list(notes.items())
        assert store.entries("w", "log", "") == [entry_row(n) for n in range(size)]
        store.write(changes(taken=[key_of(row) for row in rows], notes=dict.fromkeys(notes)))
        assert store.places("w") == store.notes("w") == []

    # -- notes and entries ---------------------------------------------------------------------------------

    def test_notes_come_by_kind_owner_and_name(self, store: Store) -> None:
        names = ["", "a", "b", "é"]
        notes = [NoteKey("w", kind, owner, name) for kind in names for owner in names for name in names]
        values = {note: "/".join(note).encode() for note in notes}
        shuffled = Random(1).sample(notes, len(notes))
        store.write(changes(notes={note: values[note] for note in shuffled}))
        assert store.notes("w") == list(values.items())
        assert store.notes("w2") == []

    def test_a_note_is_replaced_and_removed(self, store: Store) -> None:
        one, two = NoteKey("w", "state", "parse", "a"), NoteKey("w", "state", "parse", "b")
        store.write(changes(notes={one: b"1", two: b"1"}))
        store.write(changes(notes={one: b"", two: None, NoteKey("w", "state", "none", ""): None}))
        assert store.notes("w") == [(one, b"")]

    @pytest.mark.parametrize("newest", [None, 0, 1, 3, 4, 5])
    def test_entries_come_in_their_order_or_only_the_newest(self, store: Store, newest: int | None) -> None:
        for number in (1, 4, 2, 11):
            store.write(changes(entries=[entry_row(number), entry_row(number, "job.trace", "j")]))
        rows = [entry_row(number) for number in (1, 2, 4, 11)]
        wanted = rows if newest is None else rows[max(0, len(rows) - newest) :]
        assert store.entries("w", "log", "", newest=newest) == wanted
        assert store.entries("w", "job.trace", "j") == [entry_row(n, "job.trace", "j") for n in (1, 2, 4, 11)]
        assert store.entries("w", "log", "j") == store.entries("w2", "log", "") == []

    # -- jobs ----------------------------------------------------------------------------------------------

    def test_a_job_comes_back_as_it_was(self, store: Store) -> None:
        row = JobRow("j", "w", "f", "completed", 2**40, 1.1, 2.2, 3.3, EVERY_BYTE)
        other = JobRow("j2", "w", "f", "pending", 0, 1.5, None, None, b"")
        store.write(changes(jobs=[row, other]))
        assert store.job("j") == StoredJob(row, 0)
        assert store.jobs() == [StoredJob(row, 0), StoredJob(other, 0)]

    def test_counts_add_up_and_outlive_a_replaced_row(self, store: Store) -> None:
        store.write(changes(jobs=[job_row("j"), job_row("k")], counts={"j": 3, "k": 1}))
        store.write(changes(counts={"j": -1}))
        store.write(changes(jobs=[job_row("j", status="running")], counts={"j": 5, "k": -1}))
        assert store.job("j") == StoredJob(job_row("j", status="running"), 7)
        store.write(changes(jobs=[job_row("j", status="failed")]))
        assert store.jobs() == [StoredJob(job_row("j", status="failed"), 7), StoredJob(job_row("k"), 0)]

    def test_many_counts_at_once(self, store: Store) -> None:
        ids = [f"{n:04}" for n in range(700)]
        store.write(changes(jobs=[job_row(id_) for id_ in ids], counts={id_: int(id_) + 1 for id_ in ids}))
        store.write(changes(counts={id_: -1 for id_ in ids}))
        assert [(job.row.job_id, job.items) for job in store.jobs()] == [(id_, int(id_)) for id_ in ids]

    def test_jobs_are_chosen_by_worker_flow_status_and_items(self, store: Store) -> None:
        rows = [
            job_row(
                f"{worker}{flow}{status}{items}", worker, flow_id=flow, status=status, created_at=float(at)
            )
            for at, (worker, flow, status, items) in enumerate(_JOB_FIELDS)
        ]
        counts = {row.job_id: items for row, (*_, items) in zip(rows, _JOB_FIELDS, strict=True) if items}
        store.write(changes(jobs=rows, counts=counts))
        for worker_id in (None, "w", "v", "nobody"):
            for flow_id in (None, "f", "g"):
                for statuses in (None, (), ("failed",), ["pending", "running"]):
                    for without_items in (False, True):
                        wanted = [
                            StoredJob(row, counts.get(row.job_id, 0))
                            for row in rows
                            if worker_id in (None, row.worker_id)
                            and flow_id in (None, row.flow_id)
                            and (statuses is None or row.status in statuses)
                            and not (without_items and counts.get(row.job_id))
                        ]
                        found = store.jobs(
                            worker_id=worker_id,
                            flow_id=flow_id,
                            statuses=statuses,
                            without_items=without_items,
                        )
                        assert found == wanted

    @pytest.mark.parametrize("size", [1, 2, 3, 100])
    def test_jobs_are_read_page_by_page(self, store: Store, size: int) -> None:
        rows = [job_row(f"{n % 7}-{n}", created_at=float(n // 4)) for n in range(20)]
        store.write(changes(jobs=rows))
        rows.sort(key=lambda row: (row.created_at, row.job_id))
        read: list[JobRow] = []
        while page := store.jobs(after=(read[-1].created_at, read[-1].job_id) if read else None, limit=size):
            assert len(page) <= size
            read += [job.row for job in page]
        assert read == rows
        assert store.jobs(limit=0) == []

    # -- letters -------------------------------------------------------------------------------------------

    def test_letters_come_in_the_order_of_time_worker_and_number(self, store: Store) -> None:
        rows = [
            letter_row(1, "b", time=1.0), letter_row(1, "a", time=2.0), letter_row(2, "a", time=2.0, error=None),
            letter_row(0, "b", time=2.0), letter_row(9, "a", time=3.0, data=EVERY_BYTE),
        ]  # fmt: skip
        store.write(changes(letters=Random(2).sample(rows, len(rows))))
        assert store.letters() == rows
        assert store.letters(worker_id="a") == [rows[1], rows[2], rows[4]]
        assert store.letters(worker_id="nobody") == []

    def test_letters_of_a_job(self, store: Store) -> None:
        odd = ['"', "a\\", "[]", "é", "a", "aa", '","']
        rows = [
            letter_row(n, job_ids=json.dumps([text, "both"]), time=float(n)) for n, text in enumerate(odd)
        ]
        store.write(
            changes(letters=[*rows, letter_row(99, job_ids="[]"), letter_row(98, "v", job_ids='["both"]')])
        )
        for row, text in zip(rows, odd, strict=True):
            assert store.letters(job_id=text) == [row]
        assert store.letters(job_id="both", worker_id="w") == rows
        assert store.letters(job_id="nobody") == []

    def test_redriven_letters_are_gone(self, store: Store) -> None:
        store.write(changes(letters=[letter_row(1), letter_row(2), letter_row(1, "v")]))
        store.write(changes(redriven=[("w", 1), ("v", 2), ("nobody", 1)], items=[item_row(1)]))
        assert store.letters() == [letter_row(1, "v"), letter_row(2)]
        assert store.items("w", "parse.in") == [item_row(1)]

    # -- idempotency keys ----------------------------------------------------------------------------------

    def test_a_key_holds_until_it_expires(self, store: Store) -> None:
        assert store.write(changes(keys=[key_row()])) == frozenset()
        assert store.key("orders", "k", 199.9) == key_row()
        assert store.key("orders", "k", 200.0) is None
        assert store.key("other flow", "k", 150.0) is None
        assert store.key("orders", "other key", 150.0) is None

    def test_a_key_that_is_taken_stops_the_whole_write(self, store: Store) -> None:
        store.write(changes(keys=[key_row("b"), key_row("d")]))
        before = contents(store, ["w"], [""])
        conflicting = changes(
            keys=[key_row(key, job_id="new", created_at=150.0, expires_at=250.0) for key in "abcd"],
            forgotten=["w"],
            workers=[worker_row()],
            items=[item_row(1)],
            notes={NoteKey("w", "state", "parse", ""): b""},
            entries=[entry_row(1)],
            jobs=[job_row()],
            letters=[letter_row(2)],
        )
        assert store.write(conflicting) == frozenset({1, 3})
        assert contents(store, ["w"], [""]) == before
        assert [store.key("orders", key, 150.0) for key in "abcd"] == [None, key_row("b"), None, key_row("d")]

    def test_after_a_conflict_the_rest_can_be_written(self, store: Store) -> None:
        store.write(changes(keys=[key_row("b")]))
        assert store.write(changes(keys=[key_row("a"), key_row("b")])) == frozenset({1})
        assert store.write(changes(keys=[key_row("a")], jobs=[job_row()])) == frozenset()
        assert store.key("orders", "a", 150.0) == key_row("a")
        assert store.jobs() == [StoredJob(job_row(), 0)]

    def test_a_key_that_had_expired_is_given_anew(self, store: Store) -> None:
        store.write(changes(keys=[key_row()]))
        anew = key_row(job_id="j2", created_at=200.0, expires_at=300.0)
        assert store.write(changes(keys=[anew])) == frozenset()
        assert store.key("orders", "k", 250.0) == anew

    def test_a_key_belongs_to_its_flow(self, store: Store) -> None:
        store.write(changes(keys=[key_row()]))
        assert store.write(changes(keys=[key_row(flow_id="returns")])) == frozenset()
        assert store.write(changes(keys=[key_row(flow_id="")])) == frozenset()

    def test_many_keys_at_once(self, store: Store) -> None:
        store.write(changes(keys=[key_row(f"{n}") for n in range(0, 1_000, 2)]))
        taken = store.write(changes(keys=[key_row(f"{n}") for n in range(1_500)]))
        assert taken == frozenset(range(0, 1_000, 2))

    # -- pruning -------------------------------------------------------------------------------------------

    def test_pruning_removes_expired_keys(self, store: Store) -> None:
        store.write(changes(keys=[key_row("old"), key_row("new", expires_at=200.5)]))
        assert store.prune(200.0, finished_before=0.0, keep_finished=10, limit=10) == 1
        assert store.key("orders", "old", 150.0) is None
        assert store.key("orders", "new", 150.0) == key_row("new", expires_at=200.5)

    def test_pruning_removes_finished_jobs_with_their_notes_and_entries(self, store: Store) -> None:
        ended = {"completed": 10.0, "failed": 20.0, "cancelled": 30.0}
        jobs = [job_row(status, status=status, completed_at=at) for status, at in ended.items()]
        jobs += [job_row("pending"), job_row("running", status="running")]
        ids = [row.job_id for row in jobs]
        notes = {NoteKey("w", kind, id_, "n"): b"1" for kind in ("job", "job.data", "jobs") for id_ in ids}
        entries = [entry_row(n, kind, id_) for kind in ("log", "job.trace") for id_ in ids for n in (1, 2)]
        store.write(
            changes(workers=[worker_row()], jobs=jobs, notes=notes, entries=entries, counts={"failed": 2})
        )
        assert store.prune(50.0, finished_before=20.5, keep_finished=10, limit=10) == 2
        assert [job.row.job_id for job in store.jobs()] == ["cancelled", "pending", "running"]
        gone = ("completed", "failed")
        assert store.notes("w") == sorted(
            (note, value)
            for note, value in notes.items()
            if note.kind != "job.data" or note.owner not in gone
        )
        left = {id_: store.entries("w", "job.trace", id_) for id_ in ids}
        assert left == {
            id_: [e for e in entries if e[1:3] == ("job.trace", id_) and id_ not in gone] for id_ in ids
        }
        assert len([entry for id_ in ids for entry in store.entries("w", "log", id_)]) == 10

    def test_pruning_keeps_the_newest_finished_jobs(self, store: Store) -> None:
        jobs = [job_row(f"{n}", status="completed", completed_at=float(n // 2)) for n in range(8)]
        store.write(changes(jobs=[*jobs, job_row("open", created_at=0.0)]))
        assert store.prune(50.0, finished_before=0.0, keep_finished=3, limit=100) == 5
        assert [job.row.job_id for job in store.jobs()] == ["open", "5", "6", "7"]

    def test_pruning_takes_the_oldest_up_to_the_limit(self, store: Store) -> None:
        jobs = [job_row(f"{n}", status="failed", completed_at=float(10 - n)) for n in range(6)]
        store.write(changes(jobs=jobs))
        assert store.prune(50.0, finished_before=50.0, keep_finished=100, limit=4) == 4
        assert [job.row.job_id for job in store.jobs()] == ["0", "1"]
        assert store.prune(50.0, finished_before=50.0, keep_finished=100, limit=4) == 2
        assert store.prune(50.0, finished_before=50.0, keep_finished=100, limit=4) == 0

    def test_pruning_removes_stopped_workers_without_jobs(self, store: Store) -> None:
        states = {"a": "stopped", "b": "stopped", "c": "running", "d": "paused"}
        store.write(
            changes(
                workers=[worker_row(worker_id, status=status) for worker_id, status in states.items()],
                items=[item_row(1, worker_id="a")],
                notes={NoteKey("a", "state", "parse", ""): b""},
                entries=[entry_row(1, worker_id="a")],
                jobs=[job_row("of b", "b"), job_row("of c", "c", status="failed", completed_at=1.0)],
                letters=[letter_row(2, "a")],
            )
        )
        assert store.prune(50.0, finished_before=50.0, keep_finished=0, limit=100) == 2
        assert [row.worker_id for row in store.workers()] == ["b", "c", "d"]
        assert store.items("a", "parse.in") == store.notes("a") == store.entries("a", "log", "") == []
        assert store.letters() == [letter_row(2, "a")]

    # -- whatever a text or a value is ---------------------------------------------------------------------

    def odd_texts(self) -> list[str]:
        return [*ODD_TEXTS, "\x00", "a\x00b"] if self.keeps_nul else ODD_TEXTS

    def test_every_text_is_kept(self, store: Store) -> None:
        texts = self.odd_texts()
        store.write(_changes_of_texts(texts))
        reference = MemoryStore()
        reference.write(_changes_of_texts(texts))
        assert contents(store, texts, texts) == contents(reference, texts, texts)
        for text in texts:
            assert store.job(text) == reference.job(text)
            assert store.key(text, text, 150.0) == reference.key(text, text, 150.0)
            assert store.entries(text, text, text) == reference.entries(text, text, text)
            assert store.tail(text, text) == 1
            assert store.jobs(flow_id=text) == reference.jobs(flow_id=text)
            assert store.letters(job_id=text) == reference.letters(job_id=text)

    def test_every_text_can_be_removed(self, store: Store) -> None:
        texts = self.odd_texts()
        made = _changes_of_texts(texts)
        store.write(made)
        store.write(
            changes(
                taken=[key_of(row) for row in made.items],
                notes=dict.fromkeys(made.notes),
                redriven=[(row.worker_id, row.number) for row in made.letters],
            )
        )
        assert (
            [store.places(text) for text in texts]
            == [store.notes(text) for text in texts]
            == [[] for _ in texts]
        )
        assert store.letters() == []
        store.write(changes(forgotten=texts))
        assert store.workers() == []

    @pytest.mark.parametrize("data", [b"", EVERY_BYTE, b"\x00", bytes(3_000_000)], ids=len)
    def test_every_value_is_kept(self, store: Store, data: bytes) -> None:
        store.write(
            changes(
                workers=[worker_row(data=data)],
                items=[item_row(1, data=data)],
                notes={NoteKey("w", "state", "parse", ""): data},
                entries=[entry_row(1)._replace(data=data)],
                jobs=[job_row(data=data)],
                letters=[letter_row(1, data=data)],
            )
        )
        job = store.job("j")
        assert job is not None
        assert [store.workers()[0].data, store.items("w", "parse.in")[0].data, store.notes("w")[0][1]] == [
            data
        ] * 3
        assert [store.entries("w", "log", "")[0].data, job.row.data, store.letters()[0].data] == [data] * 3

    @pytest.mark.parametrize("seed", range(20))
    def test_random_changes_leave_what_they_leave_in_memory(self, store: Store, seed: int) -> None:
        random, reference = Random(seed), MemoryStore()
        writer = _RandomChanges(random)
        ids, owners = ["a", "b", "c"], ["", "0", "1", "2", "3"]
        for step in range(30):
            if random.random() < 0.1:
                limits = {"finished_before": random.uniform(0, step), "keep_finished": random.randrange(6)}
                now = float(step)
                pruned = [one.prune(now, **limits, limit=1_000) for one in (store, reference)]
                assert pruned[0] == pruned[1], f"seed {seed}, step {step}"
                writer.learn(reference)
            else:
                made = writer.next(step)
                written = [one.write(made) for one in (store, reference)]
                assert written[0] == written[1], f"seed {seed}, step {step}"
                if not written[0]:
                    writer.learn(reference)
            assert contents(store, ids, owners) == contents(reference, ids, owners), (
                f"seed {seed}, step {step}"
            )

    # -- threads -------------------------------------------------------------------------------------------

    def test_readers_see_whole_transactions_only(self, store: Store) -> None:
        done = Event()
        store.write(_generation(0))

        def write() -> None:
            try:
                for number in range(1, 60):
                    store.write(_generation(number))
            finally:
                done.set()

        def read() -> None:
            while not done.is_set():
                rows = store.items("w", "parse.in")
                assert len(rows) == 20
                assert len({row.data for row in rows}) == 1
                notes = store.notes("w")
                assert len(notes) == 20
                assert len({value for _, value in notes}) == 1
                assert len({job.row.data for job in store.jobs()}) == 1

        _at_once([write, read, read, read])
        assert store.items("w", "parse.in")[0].data == b"59"

    def test_what_was_written_is_read_at_once_by_every_thread(self, store: Store) -> None:
        with ThreadPoolExecutor(3) as pool:
            for number in range(30):
                store.write(changes(items=[item_row(number)]))
                tails = [pool.submit(store.tail, "w", "parse.in") for _ in range(3)]
                assert [tail.result() for tail in tails] == [number] * 3

    # -- ownership -----------------------------------------------------------------------------------------

    def test_a_worker_is_claimed_once(self, store: Store) -> None:
        store.claim("w")
        with pytest.raises(StoreLockedError, match="'w'") as refused:
            store.claim("w")
        assert refused.value.worker_id == "w"
        store.claim("w2")
        store.give_up("w")
        store.claim("w")

    def test_giving_up_what_was_not_claimed_is_nothing(self, store: Store) -> None:
        store.give_up("w")
        store.claim("w")

    def test_the_recorder_takes_notes_of_every_seat(self, store: Store) -> None:
        recorder = store.watch()
        if recorder is None:
            pytest.skip("this store has no place for a flight recorder")
        for seat in range(5):
            recorder.enter(seat, f"item {seat}")
        for seat in range(5):
            recorder.leave(seat)

    # -- the end -------------------------------------------------------------------------------------------

    def test_a_closed_store_says_so(self) -> None:
        store = self.open_store()
        store.write(changes(workers=[worker_row()]))
        store.close()
        store.close()
        calls: list[Callable[[], Any]] = [
            partial(store.write, Changes()),
            partial(store.worker, "w"),
            store.workers,
            partial(store.notes, "w"),
            partial(store.entries, "w", "log", ""),
            partial(store.items, "w", "parse.in"),
            partial(store.items_of, [ItemKey("w", "parse.in", 1)]),
            partial(store.tail, "w", "parse.in"),
            partial(store.places, "w"),
            partial(store.job, "j"),
            store.jobs,
            store.letters,
            partial(store.key, "orders", "k", 0.0),
            partial(store.prune, 0.0, finished_before=0.0, keep_finished=0, limit=1),
            partial(store.claim, "w"),
        ]
        for call in calls:
            with pytest.raises(StoreError, match="closed"):
                call()

    def test_what_was_written_is_there_after_closing_and_opening(self) -> None:
        store = self.open_store()
        texts = self.odd_texts()
        store.write(_changes_of_texts(texts))
        store.write(changes(taken=[ItemKey("a", "a", 1)], counts={"a": 3, "A": 4}))
        store.claim("a")
        before = contents(store, texts, texts)
        again = self.reopen_store(store)
        if again is None:
            pytest.skip("this store keeps nothing beyond close()")
        assert contents(again, texts, texts) == before
        assert [again.key(text, text, 150.0) for text in texts] == [
            key_row(text, text, job_id=text) for text in texts
        ]
        assert again.suspects() == []
        again.claim("a")
        again.write(changes(items=[item_row(2, "a", "a")]))
        assert again.tail("a", "a") == 2
        again.close()


_JOB_FIELDS = [
    (worker, flow, status, items)
    for worker in ("w", "v")
    for flow in ("f", "g")
    for status in ("pending", "running", "failed")
    for items in (0, 2)
]


def _changes_of_texts(texts: list[str]) -> Changes:
    """Every text in every field that holds a text."""
    return changes(
        workers=[WorkerRow(text, text, text, text, text, 1, 2.0, text.encode()) for text in texts],
        items=[ItemRow(text, text, 1, text, text, 2.0, text.encode()) for text in texts],
        notes={NoteKey(text, text, text, text): text.encode() for text in texts},
        entries=[EntryRow(text, text, text, 1, text.encode()) for text in texts],
        jobs=[JobRow(text, text, text, text, 1, 2.0, None, 3.0, text.encode()) for text in texts],
        letters=[
            LetterRow(text, 1, text, text, json.dumps([text]), text, text, 2.0, text.encode())
            for text in texts
        ],
        keys=[key_row(text, text, job_id=text) for text in texts],
    )


def _generation(number: int) -> Changes:
    """Replaces everything by rows that all hold the same number."""
    value = b"%d" % number
    return changes(
        taken=[ItemKey("w", "parse.in", number * 100 - 100 + n) for n in range(20 if number else 0)],
        items=[item_row(number * 100 + n, data=value) for n in range(20)],
        notes={NoteKey("w", "state", "parse", f"{n}"): value for n in range(20)},
        jobs=[job_row(f"{n}", data=value) for n in range(20)],
    )


_WORKERS_OF_JOBS = {"0": "a", "1": "b", "2": "c", "3": "b"}


class _RandomChanges:
    """Makes changes that fit what is there; knows only what the reference says."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._number = 0
        self._items: list[ItemKey] = []
        self._letters: list[tuple[str, int]] = []
        self._jobs: list[str] = []

    def learn(self, reference: Store) -> None:
        self._items = [
            key_of(row)
            for worker_id in "abc"
            for place in reference.places(worker_id)
            for row in reference.items(worker_id, place)
        ]
        self._letters = [(row.worker_id, row.number) for row in reference.letters()]
        self._jobs = [job.row.job_id for job in reference.jobs()]

    def next(self, step: int) -> Changes:
        random, made = self._random, Changes()
        made.forgotten = [worker_id for worker_id in "abc" if random.random() < 0.05]
        for worker_id in random.sample("abc", random.randrange(4)):
            made.workers[worker_id] = self._worker(worker_id, step)
        made.items = [self._item(step) for _ in range(random.randrange(12))]
        living = [key for key in self._items if key.worker_id not in made.forgotten]
        made.taken = random.sample(living, random.randrange(len(living) + 1))
        for _ in range(random.randrange(6)):
            made.notes[self._note()] = random.choice([None, random.randbytes(5), b""])
        made.entries = [self._entry() for _ in range(random.randrange(6))]
        made.jobs = {id_: self._job(id_, step) for id_ in random.sample("0123", random.randrange(4))}
        made.counts = {
            id_: random.randrange(-2, 5) for id_ in {*self._jobs, *made.jobs} if random.random() < 0.5
        }
        made.letters = [self._letter(step) for _ in range(random.randrange(3))]
        made.redriven = random.sample(self._letters, random.randrange(len(self._letters) + 1))
        for key in random.sample("xyz", random.choice([0, 0, 0, 1, 2])):
            made.keys.append(
                key_row(key, created_at=float(step), expires_at=float(step + random.randrange(1, 9)))
            )
        return made

    def _fresh(self) -> int:
        self._number += self._random.randrange(1, 4)
        return self._number

    def _worker(self, worker_id: str, step: int) -> WorkerRow:
        status = self._random.choice(["running", "paused", "stopped"])
        return worker_row(worker_id, status=status, updated_at=float(step), data=self._random.randbytes(9))

    def _item(self, step: int) -> ItemRow:
        place, worker_id = self._random.choice(["p.in", "q.in"]), self._random.choice("abc")
        return item_row(self._fresh(), place, worker_id, time=step / 7, data=self._random.randbytes(20))

    def _note(self) -> NoteKey:
        worker_id, kind, owner = self._place_of_values("state", "job.data")
        return NoteKey(worker_id, kind, owner, self._random.choice("mn"))

    def _entry(self) -> EntryRow:
        worker_id, kind, owner = self._place_of_values("log", "job.trace")
        return entry_row(self._fresh(), kind, owner, worker_id)

    def _place_of_values(self, of_worker: str, of_job: str) -> tuple[str, str, str]:
        """A worker, a kind and an owner; what belongs to a job is kept in the job's worker."""
        owner = self._random.choice(["", *"0123"])
        if owner and self._random.random() < 0.7:
            return _WORKERS_OF_JOBS[owner], of_job, owner
        return self._random.choice("abc"), of_worker, owner

    def _job(self, job_id: str, step: int) -> JobRow:
        status = self._random.choice(["pending", "running", "completed", "failed"])
        completed = None if status in ("pending", "running") else float(step)
        return job_row(
            job_id, _WORKERS_OF_JOBS[job_id], status=status, created_at=float(step), completed_at=completed
        )

    def _letter(self, step: int) -> LetterRow:
        ids = json.dumps(self._random.sample("0123", self._random.randrange(3)))
        return letter_row(self._fresh(), self._random.choice("abc"), job_ids=ids, time=float(step // 3))


def _at_once(calls: list[Callable[[], None]]) -> None:
    """Run each on a thread of its own; raise what the first of them raised."""
    with ThreadPoolExecutor(len(calls)) as pool:
        for future in [pool.submit(call) for call in calls]:
            future.result()
