"""The format of a database: numbered migrations, each in one transaction, from whatever format it has."""

import shutil
import sqlite3
from contextlib import closing
from hashlib import sha256

import pytest

from routilux.errors import StoreCorruptError, StoreError
from routilux.store.sqlite import SqliteStore
from routilux.store.sqlite.schema import released, schema_of
from routilux.testing.store_rows import changes, changes_of_texts, contents, item_row

NEXT = (
    *released(),
    """
-- a format that only this test knows
CREATE TABLE extras (worker_id TEXT NOT NULL, text TEXT NOT NULL DEFAULT ';'); -- with a semicolon
INSERT INTO extras (worker_id) SELECT worker_id FROM workers;
""",
)


def schema(path):
    with closing(sqlite3.connect(path)) as connection:
        return schema_of(connection), connection.execute("PRAGMA user_version").fetchone()


def test_a_store_of_the_format_before_is_migrated_with_all_its_rows(path, opened, tmp_path):
    texts = ["a", "b", "é"]
    store = opened()
    store.write(changes_of_texts(texts))
    before = contents(store, texts, texts)
    store.close()
    store = opened(migrations=NEXT)
    assert contents(store, texts, texts) == before
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM extras").fetchall() == [(text, ";") for text in texts]

    opened(tmp_path / "new.db", migrations=NEXT).close()
    assert schema(path) == schema(tmp_path / "new.db")
    assert schema(path)[1] == (len(NEXT),)


def test_a_migration_that_fails_leaves_the_format_before(path, opened):
    opened().close()
    before = schema(path)
    with pytest.raises(StoreError, match="no such table: nowhere"):
        SqliteStore(path, migrations=(*NEXT, "CREATE TABLE more (a);\nINSERT INTO nowhere VALUES (1);"))
    assert schema(path) == before
    opened().write(changes(items=[item_row(1)]))


def test_a_newer_format_is_refused_and_left_alone(path, opened, tmp_path):
    opened(migrations=NEXT).close()
    shutil.copy(path, tmp_path / "kept")
    newest = len(released())
    with pytest.raises(StoreError, match=rf"has format {newest + 1}, and .* up to {newest}: .*newer version"):
        SqliteStore(path)
    assert path.read_bytes() == (tmp_path / "kept").read_bytes()


def test_tables_that_were_altered_are_found_at_open(path, opened):
    opened().close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP INDEX keys_by_expiry")
    with pytest.raises(StoreCorruptError, match="its tables are not those of format 2"):
        SqliteStore(path)


def test_every_released_migration_stays_as_it_was():
    """A released migration is part of the databases of users: it is added to, never changed."""
    digests = [sha256(script.encode()).hexdigest()[:16] for script in released()]
    assert digests == ["bc00558ce090d37a", "f8921e69e519b99c"]
