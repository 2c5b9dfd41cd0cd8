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

from routilux.errors import StoreDataError, StoreError, StoreLockedError
from routilux.ports import (
    FLOOR,
    Answer,
    Changes,
    Command,
    Commands,
    ItemKey,
    JobRow,
    NoteKey,
    Store,
    StoredJob,
    WorkerRow,
)
from routilux.store.memory import MemoryStore
from routilux.testing.store_rows import (
    NO_UNICODE,
    ODD_TEXTS,
    RandomChanges,
    changes,
    changes_of_texts,
    contents,
    entry_row,
    generation,
    item_row,
    job_row,
    key_of,
    key_row,
    letter_row,
    worker_row,
)

EVERY_BYTE = bytes(range(256))


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
        assert [store.workers(), store.jobs(), store.letters(), store.deaths()] == [[]] * 4
        assert [store.places("w"), store.notes("w")] == [[], []]
        assert [store.items("w", "parse.in"), store.entries("w", "log", "")] == [[], []]

    # -- commands ------------------------------------------------------------------------------------------

    @pytest.fixture
    def commands(self, store: Store) -> Commands:
        if store.commands is None:
            pytest.skip("this store has one runtime")
        return store.commands

    def test_commands_wait_in_their_order_until_they_are_answered(
        self, store: Store, commands: Commands
    ) -> None:
        asked = [Command(f"c{n}", f"w{n % 2}", "post", str(n).encode()) for n in range(4)]
        for command in (*asked, asked[0]):
            commands.ask(command)
        assert commands.due(["w0"]) == asked[::2]
        assert commands.due(["w1", "w0", "none"]) == asked
        assert commands.answers(["c0"]) == {}
        assert store.write(changes(answers=[Answer("c0", "w0", b"done")], items=[item_row(1, "w0")])) == set()
        assert commands.due(["w0", "w1"]) == asked[1:]
        assert commands.answers(["c0", "c1", "none"]) == {"c0": b"done"}
        commands.ask(asked[0])
        assert commands.due(["w0"]) == [asked[2]]
        commands.forget(["c0", "c1"])
        assert commands.answers(["c0"]) == {}
        assert commands.due(["w1"]) == asked[1::2]

    def test_a_command_is_either_answered_or_withdrawn(self, store: Store, commands: Commands) -> None:
        for name in ("withdrawn", "answered", "other"):
            commands.ask(Command(name, "w", "post", b"1"))
        assert commands.withdraw("withdrawn")
        assert not commands.withdraw("withdrawn")
        both = [Answer(name, "w", b"done") for name in ("withdrawn", "other")]
        assert store.write(changes(answers=both, items=[item_row(1)])) == {"withdrawn"}
        assert (store.items("w", "parse.in"), commands.answers(["other"])) == ([], {})
        assert store.write(changes(answers=[Answer("answered", "w", b"done")])) == set()
        assert store.write(changes(answers=[Answer("answered", "w", b"again")])) == {"answered"}
        assert not commands.withdraw("answered")
        assert commands.answers(["answered"]) == {"answered": b"done"}

    def test_who_listens_hears_of_commands_and_answers(self, store: Store, commands: Commands) -> None:
        heard = Event()
        end = commands.listen(heard.set)
        for act in (
            lambda: commands.ask(Command("c", "w", "post", b"1")),
            lambda: store.write(changes(answers=[Answer("c", "w", b"done")])),
        ):
            heard.clear()
            act()
            assert heard.wait(30)
        end()

    def test_it_is_known_whether_a_worker_is_run(self, store: Store, commands: Commands) -> None:
        assert commands.runner("w") is None
        store.claim("w")
        assert commands.runner("w")
        store.give_up("w")
        assert commands.runner("w") is None

    def test_it_can_be_run(self, store: Store) -> None:
        assert store.only_read is None

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
        assert [store.items("w", "parse.in"), store.notes("w"), store.entries("w", "log", "")] == [[], [], []]
        assert contents(store, ["w2"], [""]) == {**before, "workers": [worker_row("w2")]}

    def test_what_belongs_to_the_jobs_of_a_forgotten_worker_stays_with_them(self, store: Store) -> None:
        note, entry = NoteKey("w", "job.data", "j", '"a"'), entry_row(1, kind="job.output", owner="j")
        store.write(changes(workers=[worker_row()], jobs=[job_row("j")], notes={note: b"1"}, entries=[entry]))
        store.write(changes(forgotten=["w"], workers=[worker_row()]))
        assert store.notes_of_job("w", "j") == [(note, b"1")]
        assert store.entries("w", "job.output", "j") == [entry]

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
        assert [store.places("w"), store.notes("w")] == [[], []]

    # -- notes and entries ---------------------------------------------------------------------------------

    def test_notes_come_by_kind_owner_and_name(self, store: Store) -> None:
        names = ["", "a", "b", "é"]
        notes = [NoteKey("w", kind, owner, name) for kind in names for owner in names for name in names]
        values = {note: "/".join(note).encode() for note in notes}
        shuffled = Random(1).sample(notes, len(notes))
        store.write(changes(notes={note: values[note] for note in shuffled}))
        assert store.notes("w") == list(values.items())
        assert store.notes("w2") == []

    def test_notes_of_jobs_are_told_from_those_of_the_worker(self, store: Store) -> None:
        own = [NoteKey("w", kind, "j", "a") for kind in ("job", "job/", "jobs", "state")]
        of_jobs = [NoteKey("w", kind, "j", name) for kind in ("job.", "job.data") for name in ("a", "b")]
        others = [NoteKey("w", "job.data", "j2", "a"), NoteKey("w2", "job.data", "j", "a")]
        store.write(changes(notes=dict.fromkeys([*own, *of_jobs, *others], b"1")))
        assert [note for note, _ in store.notes("w", with_jobs=False)] == own
        assert [note for note, _ in store.notes_of_job("w", "j")] == of_jobs
        assert [note for note, _ in store.notes("w")] == sorted([*own, *of_jobs, others[0]])
        assert store.notes_of_job("w", "nobody") == []

    def test_notes_of_items_are_not_among_those_of_the_worker(self, store: Store) -> None:
        own = [NoteKey("w", kind, "parse.in", "a") for kind in ("item", "item/", "items")]
        of_items = [NoteKey("w", kind, "parse.in", "a") for kind in ("item.", "item.join")]
        store.write(changes(notes=dict.fromkeys([*own, *of_items], b"1")))
        assert [note for note, _ in store.notes("w", with_jobs=False)] == own
        assert [note for note, _ in store.notes("w")] == sorted([*own, *of_items])
        store.write(changes(forgotten=["w"]))
        assert store.notes("w") == []

    def test_notes_between_two_names_come_by_name_up_to_a_limit(self, store: Store) -> None:
        names = ["", "a", "a:1", "a:2", "a;", "b:1", "é"]
        notes = {NoteKey("w", "item.join", "parse.in", name): name.encode() for name in names}
        others = [
            NoteKey("w", "item.join", "b.in", "a:1"),
            NoteKey("w", "item", "parse.in", "a:1"),
            NoteKey("w2", "item.join", "parse.in", "a:1"),
        ]
        store.write(changes(notes={**dict.fromkeys(others, b""), **notes}))
        for after in ["", "a", "a:1", "a:15", "b", "é"]:
            for before in ["", "a", "a:2", "a;", "b", "~", "êa"]:
                for limit in (0, 1, 2, 50):
                    found = store.notes_between(
                        "w", "item.join", "parse.in", after=after, before=before, limit=limit
                    )
                    wanted = [line for line in notes.items() if after < line[0].name < before][:limit]
                    assert found == wanted, (after, before, limit)
        store.write(changes(notes={NoteKey("w", "item.join", "parse.in", "a:1"): None}))
        left = store.notes_between("w", "item.join", "parse.in", after="a", before="b", limit=9)
        assert [note.name for note, _ in left] == ["a:2", "a;"]

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
        store.write(changes(counts=dict.fromkeys(ids, -1)))
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
                    for has_items in (None, False, True):
                        wanted = [
                            StoredJob(row, counts.get(row.job_id, 0))
                            for row in rows
                            if worker_id in (None, row.worker_id)
                            and flow_id in (None, row.flow_id)
                            and (statuses is None or row.status in statuses)
                            and has_items in (None, row.job_id in counts)
                        ]
                        found = store.jobs(
                            worker_id=worker_id,
                            flow_id=flow_id,
                            statuses=statuses,
                            has_items=has_items,
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

    # -- ids of jobs ---------------------------------------------------------------------------------------

    def test_a_job_is_replaced_by_itself_only(self, store: Store) -> None:
        store.write(changes(jobs=[job_row("a", serial=3), job_row("b", serial=4)], counts={"a": 1}))
        before = contents(store, ["w", "v"], ["a", "b", "c"])
        for other in (job_row("a", serial=5), job_row("a", "v", serial=3)):
            conflicting = changes(
                workers=[worker_row("v")],
                items=[item_row(5, worker_id="v")],
                jobs=[job_row("c", serial=6), other, job_row("b", serial=4, status="running")],
                counts={"a": 1, "c": 1},
                keys=[key_row()],
            )
            assert store.write(conflicting) == frozenset({"a"})
            assert contents(store, ["w", "v"], ["a", "b", "c"]) == before
            assert store.key("orders", "k", 150.0) is None
        again = job_row("a", serial=3, status="completed", completed_at=1_700_000_001.0)
        assert store.write(changes(jobs=[again], counts={"a": -1})) == frozenset()
        assert store.job("a") == StoredJob(again, 0)

    def test_of_many_jobs_those_are_named_whose_ids_are_taken(self, store: Store) -> None:
        odd = [text for text in ODD_TEXTS if text]
        ids = [*(f"{n}" for n in range(1, 700)), *odd]
        store.write(changes(jobs=[job_row(job_id, serial=1) for job_id in ids[::2]]))
        taken = store.write(changes(jobs=[job_row(job_id, "v", serial=1) for job_id in ids]))
        assert taken == frozenset(ids[::2])
        assert store.jobs(worker_id="v") == []

    def test_keys_that_are_taken_come_before_jobs(self, store: Store) -> None:
        store.write(changes(jobs=[job_row("a", serial=3)], keys=[key_row("x")]))
        both = changes(jobs=[job_row("a", "v", serial=1)], keys=[key_row("w"), key_row("x")])
        assert store.write(both) == frozenset({1})

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
        store.write(changes(counts={"failed": -2}))
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
        assert [store.items("a", "parse.in"), store.notes("a"), store.entries("a", "log", "")] == [[], [], []]
        assert store.letters() == [letter_row(2, "a")]

    def test_a_job_is_not_pruned_while_an_item_is_stored_or_a_letter_names_it(self, store: Store) -> None:
        old = [
            job_row(id_, status=status, completed_at=1.0)
            for id_, status in [("a", "completed"), ("b", "cancelled"), ("c", "failed"), ("d", "completed")]
        ]
        store.write(
            changes(
                workers=[worker_row(status="stopped")],
                jobs=old,
                counts={"a": 1, "b": 2},
                items=[item_row(1, job_ids='["a", "b"]'), item_row(2, job_ids='["b"]')],
                letters=[letter_row(3, job_ids='["x", "c"]')],
            )
        )
        assert store.prune(50.0, finished_before=50.0, keep_finished=0, limit=1) == 1
        assert store.prune(50.0, finished_before=50.0, keep_finished=0, limit=1) == 0
        assert [job.row.job_id for job in store.jobs()] == ["a", "b", "c"]
        store.write(
            changes(
                taken=[key_of(item_row(1)), key_of(item_row(2))],
                counts={"a": -1, "b": -2},
                redriven=[("w", 3)],
            )
        )
        assert store.prune(50.0, finished_before=50.0, keep_finished=0, limit=100) == 4
        assert [store.jobs(), store.workers()] == [[], []]

    def test_a_job_that_a_key_names_is_known_until_the_key_expires(self, store: Store) -> None:
        row = job_row(status="failed", completed_at=1.0, data=b"why")
        store.write(
            changes(
                jobs=[row, job_row("unnamed", status="completed", completed_at=2.0)],
                entries=[entry_row(1, "job.trace", "j")],
                keys=[key_row("k"), key_row("l", expires_at=300.0)],
            )
        )
        assert store.prune(150.0, finished_before=50.0, keep_finished=0, limit=100) == 2
        assert [store.jobs(), store.entries("w", "job.trace", "j"), store.job("unnamed")] == [[], [], None]
        assert store.job("j") == StoredJob(row, 0)
        assert store.prune(250.0, finished_before=50.0, keep_finished=0, limit=100) == 1
        assert store.job("j") == StoredJob(row, 0)
        store.write(changes(keys=[key_row("l", job_id="next", created_at=400.0, expires_at=500.0)]))
        assert store.prune(450.0, finished_before=50.0, keep_finished=0, limit=100) == 1
        assert store.job("j") is None

    def test_a_job_that_is_posted_again_is_another_than_the_one_that_was_pruned(self, store: Store) -> None:
        for number in (1, 2):
            row = job_row(status="completed", completed_at=float(number), serial=number)
            store.write(changes(jobs=[row], keys=[key_row(f"{number}")]))
            assert store.job("j") == StoredJob(row, 0)
            assert store.prune(150.0, finished_before=50.0, keep_finished=0, limit=100) == 1
            assert store.job("j") == StoredJob(row, 0)

    def test_pruning_a_worker_keeps_the_floor_of_numbers(self, store: Store) -> None:
        store.write(changes(workers=[worker_row("a", next_number=70), worker_row("b", next_number=90)]))
        assert store.properties() == {}
        for worker_id, floor in (("a", "70"), ("b", "90")):
            stopped = worker_row(worker_id, status="stopped", next_number=int(floor))
            store.write(changes(workers=[stopped]))
            assert store.prune(50.0, finished_before=50.0, keep_finished=0, limit=100) == 1
            assert store.properties() == {FLOOR: floor}
        store.write(changes(workers=[worker_row("c", status="stopped", next_number=80)]))
        assert store.prune(50.0, finished_before=50.0, keep_finished=0, limit=100) == 1
        assert store.properties() == {FLOOR: "90"}

    # -- properties ----------------------------------------------------------------------------------------

    def test_a_property_is_kept_until_it_is_removed(self, store: Store) -> None:
        store.write(changes(properties={"one": "1", "two": "2"}))
        store.write(changes(properties={"one": None, "two": "3", "none": None}))
        assert store.properties() == {"two": "3"}

    # -- what cannot be written ----------------------------------------------------------------------------

    @pytest.mark.parametrize("kind", ["items", "entries", "letters"])
    @pytest.mark.parametrize("within", ["another", "the same"])
    def test_a_row_that_has_to_be_new_is_not_written_again(
        self, store: Store, kind: str, within: str
    ) -> None:
        row: Any = {"items": item_row(1), "entries": entry_row(1), "letters": letter_row(1)}[kind]
        others = {"jobs": [job_row("other")], "notes": {NoteKey("w", "state", "parse", "a"): b"1"}}
        if within == "another":
            store.write(changes(**{kind: [row]}))
        before = contents(store, ["w"], [""])
        with pytest.raises(StoreDataError):
            store.write(changes(**others, **{kind: [row] if within == "another" else [row, row]}))
        assert contents(store, ["w"], [""]) == before
        store.write(changes(**others))  # and the store goes on
        assert store.job("other") == StoredJob(job_row("other"), 0)

    # -- whatever a text or a value is ---------------------------------------------------------------------

    def odd_texts(self) -> list[str]:
        return [*ODD_TEXTS, "\x00", "a\x00b"] if self.keeps_nul else ODD_TEXTS

    def test_every_text_is_kept(self, store: Store) -> None:
        self._check_kept(store, self.odd_texts())

    def test_a_text_that_is_no_unicode_is_kept(self, store: Store) -> None:
        self._check_kept(store, [NO_UNICODE])

    def test_a_text_that_is_no_unicode_is_kept_beside_others(self, store: Store) -> None:
        notes = {NoteKey("w", "state", "r", name): b"1" for name in ("a", NO_UNICODE, "z")}
        store.write(changes(notes=notes, counts={NO_UNICODE: 1}, jobs=[job_row(NO_UNICODE)]))
        assert dict(store.notes("w")) == notes
        assert store.job(NO_UNICODE) == StoredJob(job_row(NO_UNICODE), 1)
        assert store.jobs(flow_id="orders", worker_id=NO_UNICODE) == []
        store.write(changes(notes={NoteKey("w", "state", "r", NO_UNICODE): None}, counts={NO_UNICODE: -1}))
        assert [note.name for note, _ in store.notes("w")] == ["a", "z"]
        assert store.job(NO_UNICODE) == StoredJob(job_row(NO_UNICODE), 0)

    def _check_kept(self, store: Store, texts: list[str]) -> None:
        store.write(changes_of_texts(texts))
        reference = MemoryStore()
        reference.write(changes_of_texts(texts))
        assert contents(store, texts, texts) == contents(reference, texts, texts)
        for text in texts:
            assert store.job(text) == reference.job(text)
            assert store.key(text, text, 150.0) == reference.key(text, text, 150.0)
            assert store.entries(text, text, text) == reference.entries(text, text, text)
            assert store.tail(text, text) == 1
            assert store.jobs(flow_id=text) == reference.jobs(flow_id=text)
            assert store.letters(job_id=text) == reference.letters(job_id=text)

    def test_every_text_can_be_removed(self, store: Store) -> None:
        texts = [*self.odd_texts(), NO_UNICODE]
        made = changes_of_texts(texts)
        store.write(made)
        store.write(
            changes(
                taken=[key_of(row) for row in made.items],
                notes=dict.fromkeys(made.notes),
                redriven=[(row.worker_id, row.number) for row in made.letters],
            )
        )
        assert [[store.places(text), store.notes(text)] for text in texts] == [[[], []]] * len(texts)
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
        writer = RandomChanges(random)
        ids, owners = ["a", "b", "c"], ["", "0", "1", "2", "3"]
        for step in range(30):
            if random.random() < 0.1:
                now, before, keep = float(step), random.uniform(0, step), random.randrange(6)
                pruned = [
                    one.prune(now, finished_before=before, keep_finished=keep, limit=1_000)
                    for one in (store, reference)
                ]
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
        store.write(generation(0))

        def write() -> None:
            try:
                for number in range(1, 60):
                    store.write(generation(number))
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
        texts = [*self.odd_texts(), NO_UNICODE]
        store.write(changes_of_texts(texts))
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
        assert again.deaths() == []
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


def _at_once(calls: list[Callable[[], None]]) -> None:
    """Run each on a thread of its own; raise what the first of them raised."""
    with ThreadPoolExecutor(len(calls)) as pool:
        for future in [pool.submit(call) for call in calls]:
            future.result()
