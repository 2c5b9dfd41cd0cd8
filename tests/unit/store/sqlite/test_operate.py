"""Operating a store: by its URL, without a runtime, whatever state it is in."""

import json
import math
import os
import sys
from contextlib import closing
from random import Random

import pytest

from routilux.errors import (
    ConfigurationError,
    InvalidTypeError,
    InvalidValueError,
    StoreCorruptError,
    StoreError,
    StoreLockedError,
)
from routilux.store import Problem, check, export, open_store, prune, read_export, repair, restore
from routilux.store.sqlite import SqliteStore
from routilux.store.sqlite.beside import PARTS, beside
from routilux.testing.store_rows import (
    NO_UNICODE,
    ODD_TEXTS,
    changes,
    changes_of_texts,
    contents,
    item_row,
    job_row,
    key_row,
    worker_row,
)

TEXTS = [*ODD_TEXTS, NO_UNICODE]
ITEMS = [item_row(number, data=Random(number).randbytes(300)) for number in range(2_000)]


@pytest.fixture
def url(path):
    return f"sqlite:///{path}"


@pytest.fixture
def filled(path, url):
    """The URL of a closed store with rows of every kind."""
    with closing(SqliteStore(path)) as store:
        store.write(changes_of_texts(TEXTS))
        store.write(changes(workers=[worker_row()], items=ITEMS, jobs=[job_row()], counts={"j": len(ITEMS)}))
    return url


def read(url):
    with closing(open_store(url)) as store:
        return contents(store, [*TEXTS, "w"], [*TEXTS, "j"])


# -- URLs ------------------------------------------------------------------------------------------------------


def test_three_slashes_name_a_relative_path_and_four_an_absolute_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for url in ("sqlite:///a.db", f"sqlite:///{tmp_path}/a.db"):
        with closing(open_store(url)) as store:
            assert store.name == f"sqlite:///{tmp_path}/a.db"


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite://:memory:"])
def test_a_database_in_memory_is_refused(url):
    with pytest.raises(InvalidValueError, match="would outlive nothing: for that, leave the store out"):
        open_store(url)


def test_two_slashes_are_one_too_few():
    with pytest.raises(InvalidValueError, match=r"sqlite:///a\.db names a\.db in the current folder"):
        open_store("sqlite://a.db")


def test_the_nearest_kind_of_store_is_named():
    with pytest.raises(
        InvalidValueError, match=r"no kind of store 'postgre' in 'postgre://me:…@host/db'.*'postgres'"
    ):
        open_store("postgre://me:secret@host/db")


@pytest.mark.parametrize("url", ["", "a.db", "/abs/a.db", "sqlite:/a.db"])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(InvalidValueError, match=r"expected a URL, such as sqlite:///relative\.db"):
        open_store(url)


def test_a_path_object_is_no_url(path):
    with pytest.raises(InvalidTypeError, match="expected a URL"):
        open_store(path)


def test_a_missing_driver_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    for name in [name for name in sys.modules if name.startswith("routilux.store.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises((ConfigurationError, StoreError)) as refused:
        open_store("postgresql://me:secret@host/db")
    assert "secret" not in str(refused.value)


# -- check -----------------------------------------------------------------------------------------------------


def test_a_whole_store_has_no_problems(filled):
    assert check(filled) == []


def test_a_store_that_is_in_use_can_be_checked_and_exported(filled, path, tmp_path):
    with closing(SqliteStore(path)) as store:
        store.write(changes(items=[item_row(5_000)], counts={"j": 1}))
        assert check(filled) == []
        assert export(filled, tmp_path / "rows.jsonl")["items"] == len(ITEMS) + len(TEXTS) + 1
        store.write(changes(items=[item_row(5_001)]))


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("way", ["name", "link", "folder", "hard link"])
def test_an_export_replaces_no_file_of_the_store(filled, path, tmp_path, part, way):
    own = beside(path, part)
    file = tmp_path / "rows.jsonl"
    if way == "name":
        file = own
    elif way == "link":
        file.symlink_to(own)
    elif way == "folder":
        (tmp_path / "folder").symlink_to(path.parent)
        file = tmp_path / "folder" / own.name
    else:
        own.touch()
        file.hardlink_to(own)
    before = {one: one.read_bytes() for one in path.parent.iterdir() if one.is_file()}
    with pytest.raises(
        InvalidValueError, match=r"export\(\): expected a file that is none of the store itself"
    ):
        export(filled, file)
    assert {one: one.read_bytes() for one in path.parent.iterdir() if one.is_file()} == before


def test_an_export_does_not_replace_the_link_that_names_the_store(filled, path, tmp_path):
    link = tmp_path / "link.db"
    link.symlink_to(path)
    with pytest.raises(InvalidValueError, match="none of the store itself"):
        export(f"sqlite:///{link}", link)
    assert link.is_symlink()


def test_an_export_that_is_not_there_is_named(url, path, tmp_path):
    for file in (tmp_path / "missing.jsonl", tmp_path):
        with pytest.raises(StoreError, match=f"the export '{file}' cannot be read"):
            restore(file, url)
    assert not path.exists()


def test_an_export_that_is_no_text_is_refused(url, path, tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StoreCorruptError, match="is no export"):
        restore(tmp_path / "rows.jsonl", url)
    assert not path.exists()


def test_what_is_no_database_is_one_problem(url, path):
    path.write_bytes(b"no database" * 1_000)
    assert len(check(url)) == 1


def test_there_has_to_be_a_database(url, path):
    for call in (check, lambda url: export(url, path.with_name("rows"))):
        with pytest.raises(StoreError, match="there is no database at"):
            call(url)
    assert not path.exists()


def test_every_problem_is_listed(filled, path):
    damaged = [ITEMS[100], ITEMS[900], ITEMS[1_500]]
    for row in damaged:
        alter(path, row.data)
    assert check(filled) == [
        Problem(
            f"the item 'w' / 'parse.in' / {row.number} is not what was written: its checksum does not fit; the file "
            "was altered outside, or the disk is failing. routilux.store.check() lists all damage, repair() saves what "
            "can be read into a new database"
        )
        for row in damaged
    ]


def alter(path, data):
    """Change one byte in the middle of a value, where SQLite does not notice."""
    content = bytearray(path.read_bytes())
    at = content.index(data[:60]) + 30
    content[at] ^= 0xFF
    path.write_bytes(content)


# -- export and restore ----------------------------------------------------------------------------------------


def test_an_export_restores_the_same_store(filled, tmp_path):
    counts = export(filled, tmp_path / "rows.jsonl")
    new = f"sqlite:///{tmp_path}/new.db"
    assert restore(tmp_path / "rows.jsonl", new) == counts
    assert read(new) == read(filled)
    assert counts["items"] == len(ITEMS) + len(TEXTS)


def test_an_export_is_readable(url, path, tmp_path):
    with closing(SqliteStore(path)) as store:
        store.write(changes(items=[item_row(1, data=b'{"n": "\xc3\xa9"}'), item_row(2, data=b"\xff")]))
        store.write(changes(jobs=[job_row()], counts={"j": 2}))
    export(url, tmp_path / "rows.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    item = {
        "worker_id": "w",
        "place": "parse.in",
        "job_ids": '["j"]',
        "source": "load.out",
        "time": 1_700_000_000.5,
    }
    assert lines == [
        {"routilux_export": 2},
        {"table": "items", "row": {**item, "number": 1, "data": '{"n": "é"}'}},
        {"table": "items", "row": {**item, "number": 2, "data": {"base64": "/w=="}}},
        {"table": "jobs", "row": {**job_row()._asdict(), "data": "{}", "items": 2}},
        {"end": {"items": 2, "jobs": 1}},
    ]


NOT_WHOLE = {
    "no end": (lambda lines: lines[:-1], "the export is not whole"),
    "a row less": (lambda lines: lines[:5] + lines[6:], "the export is not whole"),
    "no beginning": (lambda lines: lines[1:], r"line 1 .* expected \{\"routilux_export\": 2\}"),
    "a row behind the end": (lambda lines: [*lines, lines[1]], "it comes after the end"),
    "a cut line": (lambda lines: [lines[0], lines[1][:-5], *lines[2:]], r"line 2 .* it is no JSON"),
    "no object": (lambda lines: [lines[0], "7", *lines[2:]], r"line 2 .* it is no JSON object"),
    "no such table": (
        lambda lines: [lines[0], '{"table": "itms", "row": {}}'],
        r"line 2 .* no row can be made",
    ),
    "no fields": (lambda lines: [lines[0], '{"table": "items", "row": {}}'], r"line 2 .* no row can be made"),
}


@pytest.mark.parametrize(("change", "message"), NOT_WHOLE.values(), ids=NOT_WHOLE)
def test_what_is_no_whole_export_makes_no_store(filled, tmp_path, change, message):
    file, new = tmp_path / "rows.jsonl", tmp_path / "new.db"
    export(filled, file)
    file.write_text("\n".join(change(file.read_text().splitlines())))
    with pytest.raises(StoreCorruptError, match=message):
        restore(file, f"sqlite:///{new}")
    assert not new.exists()
    with pytest.raises(StoreCorruptError, match=message):
        list(read_export(file))


def test_an_export_of_a_damaged_store_leaves_the_older_file(filled, path, tmp_path):
    (tmp_path / "rows.jsonl").write_text("older")
    alter(path, ITEMS[7].data)
    with pytest.raises(StoreCorruptError, match=r"'parse\.in' / 7 is not what was written"):
        export(filled, tmp_path / "rows.jsonl")
    assert (tmp_path / "rows.jsonl").read_text() == "older"
    assert not list(tmp_path.glob("*.part"))


def test_an_existing_store_is_not_written_over(filled, path, tmp_path):
    export(filled, tmp_path / "rows.jsonl")
    before = read(filled)
    for call in (lambda: restore(tmp_path / "rows.jsonl", filled), lambda: repair(filled, filled)):
        with pytest.raises(InvalidValueError, match="expected a store that does not exist yet"):
            call()
    assert read(filled) == before


# -- repair ----------------------------------------------------------------------------------------------------


def test_a_whole_store_is_repaired_into_the_same(filled, tmp_path):
    new = f"sqlite:///{tmp_path}/new.db"
    repaired = repair(filled, new)
    assert repaired.lost == []
    assert repaired.saved["items"] == len(ITEMS) + len(TEXTS)
    assert read(new) == read(filled)


def test_altered_rows_are_left_out_and_listed(filled, path, tmp_path):
    lost = {100, 101, 1_999}
    for number in lost:
        alter(path, ITEMS[number].data)
    before = path.read_bytes()
    repaired = repair(filled, f"sqlite:///{tmp_path}/new.db")
    assert len(repaired.lost) == len(lost) + 1  # and their job has fewer than are counted
    assert all(
        f"parse.in' / {number} " in repaired.lost[at].message for at, number in enumerate(sorted(lost))
    )
    assert path.read_bytes() == before
    with closing(open_store(f"sqlite:///{tmp_path}/new.db")) as store:
        assert store.items("w", "parse.in") == [row for row in ITEMS if row.number not in lost]
        assert store.job("j").items == len(ITEMS) - len(lost)  # counted anew


@pytest.mark.parametrize("numbers", [(3,), (1_000,), (1_990,), (300, 1_200), (10, 800, 801, 1_700)])
def test_pages_that_cannot_be_read_cost_only_their_rows(filled, path, tmp_path, numbers):
    content = bytearray(path.read_bytes())
    for start in {leaf_with(content, number) for number in numbers}:
        content[start : start + 4096] = os.urandom(4096)
    path.write_bytes(content)
    with pytest.raises(StoreCorruptError):
        SqliteStore(path)
    repaired = repair(filled, f"sqlite:///{tmp_path}/new.db")
    assert repaired.lost
    with closing(open_store(f"sqlite:///{tmp_path}/new.db")) as store:
        saved = store.items("w", "parse.in")
    assert set(saved) <= set(ITEMS)
    assert [row.number for row in saved] == sorted(row.number for row in saved)
    assert len(saved) >= len(ITEMS) - 40 * len(numbers)


def leaf_with(content, number):
    """Where the page starts that has this row, or one soon behind it, and no pages below."""
    while True:
        start = content.index(ITEMS[number].data[:60]) // 4096 * 4096
        if content[start] == 0x0A:
            return start
        number += 1


def test_a_history_that_is_too_short_is_repaired_and_the_loss_told(filled, path, tmp_path):
    kept = path.read_bytes()
    with closing(SqliteStore(path)) as store:
        store.write(changes(items=[item_row(9_000)]))
    path.write_bytes(kept)
    repaired = repair(filled, f"sqlite:///{tmp_path}/new.db")
    assert len(repaired.lost) == 1
    assert "its history ends at batch" in repaired.lost[0].message
    assert repaired.saved["items"] == len(ITEMS) + len(TEXTS)


def test_a_file_that_is_no_database_can_not_be_repaired(path, url, tmp_path):
    path.write_text("Dear diary, " * 1_000)
    with pytest.raises(StoreCorruptError, match="file is not a database"):
        repair(url, f"sqlite:///{tmp_path}/new.db")
    assert not (tmp_path / "new.db").exists()


def test_a_store_in_use_is_not_repaired(filled, path, tmp_path):
    with closing(SqliteStore(path)), pytest.raises(StoreLockedError, match="is in use by process"):
        repair(filled, f"sqlite:///{tmp_path}/new.db")
    assert not (tmp_path / "new.db").exists()


# -- prune -----------------------------------------------------------------------------------------------------


def test_pruning_goes_on_until_nothing_is_left_to_remove(path, url):
    jobs = [job_row(f"{n}", status="completed", completed_at=float(n)) for n in range(2_500)]
    with closing(SqliteStore(path)) as store:
        store.write(
            changes(workers=[worker_row(status="stopped"), worker_row("v")], jobs=jobs, keys=[key_row()])
        )
    assert prune(url) == 2_502
    with closing(SqliteStore(path)) as store:
        assert [store.jobs(), store.workers()] == [[], [worker_row("v")]]


def test_pruning_keeps_what_is_within_the_limits(path, url):
    jobs = [job_row(f"{n}", status="completed", completed_at=4e9) for n in range(20)]
    with closing(SqliteStore(path)) as store:
        store.write(changes(jobs=jobs))
    assert prune(url, keep_finished=15) == 5
    assert prune(url, keep_finished=15) == 0


@pytest.mark.parametrize(
    ("limits", "error", "message"),
    [
        ({"older_than": -1.0}, InvalidValueError, "expected 0 seconds or more, got -1.0"),
        ({"older_than": math.nan}, InvalidValueError, "expected 0 seconds or more, got nan"),
        ({"older_than": "1"}, InvalidTypeError, "expected a number of seconds, got '1'"),
        ({"older_than": None}, InvalidTypeError, "expected a number of seconds, got None"),
        ({"keep_finished": -5}, InvalidValueError, "expected from 0 to .*, got -5"),
        ({"keep_finished": 2**63}, InvalidValueError, "expected from 0 to"),
        ({"keep_finished": 1.5}, InvalidTypeError, "expected a whole number, got 1.5"),
        ({"keep_finished": True}, InvalidTypeError, "expected a whole number, got True"),
    ],
)
def test_what_is_no_limit_is_refused(url, path, limits, error, message):
    (name,) = limits
    with pytest.raises(error, match=rf"prune\({name}\): {message}"):
        prune(url, **limits)
    assert not path.exists()


@pytest.mark.parametrize("limits", [{"older_than": math.inf}, {"older_than": 10**400}])
def test_a_limit_that_no_job_reaches_removes_none(path, url, limits):
    with closing(SqliteStore(path)) as store:
        store.write(changes(jobs=[job_row(status="completed", completed_at=1.0)]))
    assert prune(url, **limits) == 0
