"""A store of the format before is looked at as it is, and goes on where it is opened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from routilux import Runtime
from routilux.ports import NoteKey, Store
from routilux.store import check, examine, export, look_into, open_store, repair, restore
from routilux.store.postgres import PostgresStore
from routilux.store.sqlite import SqliteStore
from routilux.store.sqlite.schema import released
from routilux.testing.store_rows import changes, entry_row, item_row, job_row, key_row, letter_row, worker_row
from tests.durability.flows import Log, flow_of
from tests.waiting import SECONDS

BACK = """
DROP TABLE property, tombstone, command; DROP INDEX key_of_job, letter_of_jobs; CREATE SEQUENCE epoch;
DELETE FROM format WHERE version > 1
"""


@contextmanager
def old_store(url: str) -> Iterator[Store]:
    """A store that has format 1 when it is closed."""
    if url.startswith("sqlite"):
        with closing(SqliteStore(url.removeprefix("sqlite:///"), migrations=released()[:1])) as store:
            yield store
        return
    with closing(PostgresStore(url)) as store:
        yield store
    with psycopg.connect(url, autocommit=True) as connection:  # what came with format 2 is beside the rows
        connection.execute(BACK)


@pytest.fixture
def old_url(store_url: str) -> str:
    """The URL of a store of format 1 with rows of every kind."""
    flow = flow_of(Log())
    with old_store(store_url) as store:
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


MIGRATE_AND_DIE = """
import os, signal, sys
from routilux.store import open_store
from routilux.store.sqlite import schema

def some(script, usual=schema._statements):
    for at, statement in enumerate(usual(script)):
        if at == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        yield statement

schema._statements = some
open_store(sys.argv[1])
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is that of POSIX")
@pytest.mark.parametrize("statement", range(3))
def test_a_process_that_dies_while_it_migrates_leaves_the_format_before(
    tmp_path: Path, statement: int
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    with old_store(url) as store:
        store.write(changes(workers=[worker_row()]))
    ended = subprocess.run([sys.executable, "-c", MIGRATE_AND_DIE, url, str(statement)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert format_of(url).startswith("1")
    with closing(open_store(url)) as store:
        assert store.workers() == [worker_row()]
    assert check(url) == []
