"""A store of the format before is looked at as it is, and goes on where it is opened."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from routilux import Runtime
from routilux.ports import NoteKey, Store
from routilux.store import check, examine, export, look_into, open_store, repair, restore
from routilux.store.postgres import PostgresStore, migrating
from routilux.store.postgres import statements as postgres_statements
from routilux.store.sqlite import SqliteStore
from routilux.store.sqlite.schema import released
from routilux.testing.store_rows import changes, entry_row, item_row, job_row, key_row, letter_row, worker_row
from tests.durability.flows import Log, flow_of
from tests.waiting import SECONDS


def open_old(url: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    """As a version that knew format 1 did."""
    if url.startswith("sqlite"):
        return SqliteStore(url.removeprefix("sqlite:///"), migrations=released()[:1])
    first = list(postgres_statements.migrations())[:1]
    with monkeypatch.context() as patch:
        patch.setattr(migrating, "migrations", lambda: iter(first))
        patch.setattr("routilux.store.postgres.store.check_finished", lambda connection, name: None)
        return PostgresStore(url)


@pytest.fixture
def old_url(store_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a store of format 1 with rows of every kind."""
    flow = flow_of(Log())
    with closing(open_old(store_url, monkeypatch)) as store:
        store.write(
            changes(
                workers=[
                    worker_row(flow_id="numbers", fingerprint=flow.fingerprint(), data=b'{"named":true}')
                ],
                items=[item_row(7, place="0.input", data=b'{"n":7}')],
                notes={NoteKey("w", "state", "0", '"kept"'): b"1"},
                entries=[
                    entry_row(0)._replace(data=b"1"),
                    entry_row(0, "job.trace", "j")._replace(data=b"{}"),
                ],
                jobs=[
                    job_row(
                        flow_id="numbers",
                        data=b'{"metadata":{},"paused":false,"error":null,"outputs_dropped":0}',
                    )
                ],
                counts={"j": 1},
                letters=[letter_row(3, flow_id="numbers", job_ids='["pruned"]')],
                keys=[key_row("k", "numbers", job_id="pruned", expires_at=9e9)],
            )
        )
    return store_url


def format_of(url: str) -> str:
    return next(fact.detail for fact in examine(url) if fact.what == "format")


def test_it_is_looked_at_without_being_changed(old_url: str, tmp_path: Path) -> None:
    assert check(old_url) == []
    counts = export(old_url, tmp_path / "rows.jsonl")
    assert counts == dict.fromkeys(("workers", "items", "notes", "jobs", "letters", "keys"), 1) | {
        "entries": 2
    }
    assert repair(old_url, f"sqlite:///{tmp_path}/saved.db").lost == []
    assert format_of(old_url) == "1; the next run brings it to 2"
    assert restore(tmp_path / "rows.jsonl", f"sqlite:///{tmp_path}/restored.db") == counts


def test_a_sqlite_store_is_looked_into_as_it_is(old_url: str) -> None:
    with closing(look_into(old_url)) as store:
        assert [store.properties(), store.job("pruned")] == [{}, None]
        assert [row.number for row in store.items("w", "0.input")] == [7]


def test_it_goes_on_where_it_is_opened(old_url: str) -> None:
    with Runtime(store=old_url) as runtime:
        worker = runtime.exec(flow_of(Log()), worker_id="w")
        assert runtime.wait_until_all_jobs_finished(SECONDS)
        assert list(worker.shared_log) == [1, 7]
        assert worker.get_routine_state("0") == {"kept": 1}
    assert format_of(old_url) == "2"
    with closing(open_store(old_url)) as store:
        assert store.properties() == {}
    assert check(old_url) == []


def test_an_export_of_the_format_before_is_restored(old_url: str, tmp_path: Path) -> None:
    export(old_url, tmp_path / "rows.jsonl")
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    lines[0] = '{"routilux_export":1}'
    (tmp_path / "old.jsonl").write_text("\n".join(lines) + "\n")
    restore(tmp_path / "old.jsonl", f"sqlite:///{tmp_path}/restored.db")
    assert check(f"sqlite:///{tmp_path}/restored.db") == []
