"""What is wrong with a place is found out when a store is opened there, and said without its password."""

from __future__ import annotations

import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg
import pytest

from routilux.errors import InvalidTypeError, InvalidValueError, StoreError, StoreLockedError
from routilux.store import look_into
from routilux.store.postgres import PostgresStore, reading
from routilux.store.postgres.address import address_of
from routilux.store.postgres.migrating import migrate
from routilux.store.postgres.statements import migrations
from routilux.testing.store_rows import changes, worker_row
from tests.postgres.conftest import OpenStore
from tests.postgres.server import Server

SECRET = "correct-horse"
SHAPE = """
SELECT table_name, column_name, data_type, collation_name, is_nullable, column_default
FROM information_schema.columns WHERE table_schema = current_schema() ORDER BY 1, 2
"""
INDEXES = (
    "SELECT replace(indexdef, schemaname, '') FROM pg_indexes WHERE schemaname = current_schema() ORDER BY 1"
)


# -- where it is -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "schema", "name"),
    [
        ("postgresql://ada:correct-horse@db:5433/flows", None, "postgresql://ada@db:5433/flows"),
        ("postgres://db/flows?password=correct-horse", None, "postgresql://db/flows"),
        ("postgresql://", None, "postgresql:///"),
        ("postgresql://db/flows", "tests", "postgresql://db/flows (schema tests)"),
        (
            "postgresql://db/flows?options=-csearch_path%3Dtests,public",
            None,
            "postgresql://db/flows (schema tests)",
        ),
        (
            "postgresql://db/flows?options=-csearch_path%3Dtests",
            "mine",
            "postgresql://db/flows (schema mine)",
        ),
    ],
)
def test_a_store_is_named_by_its_url_without_the_password(url: str, schema: str | None, name: str) -> None:
    assert address_of(url, schema).name == name


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://ada:{SECRET}@[db/flows",
        f"postgresql://db/flows?pasword={SECRET}",
        f"mysql://ada:{SECRET}@db/flows",
        f"host=db password={SECRET}",
    ],
)
def test_a_url_that_cannot_be_read_is_not_shown(url: str) -> None:
    with pytest.raises(
        InvalidValueError, match="expected postgresql://user:password@host:port/database"
    ) as refused:
        PostgresStore(url)
    assert SECRET not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"url": 7}, InvalidTypeError, "expected text such as 'postgresql://user@host/database', got 7"),
        ({"schema": ""}, InvalidValueError, "expected the name of a schema"),
        ({"schema": "x" * 64}, InvalidValueError, "1 to 63 bytes"),
        ({"schema": 7}, InvalidTypeError, "expected the name of a schema"),
        ({"durability": "most"}, InvalidValueError, 'expected "full" or "process", got \'most\''),
        ({"owner": ""}, InvalidTypeError, "expected a name"),
        ({"lease_seconds": 0}, InvalidValueError, "expected 0.1 to 3,600 seconds, got 0"),
        ({"lease_seconds": float("nan")}, InvalidValueError, "expected 0.1 to 3,600 seconds"),
        ({"lease_seconds": "10"}, InvalidTypeError, "expected a number of seconds, got '10'"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as refused:
        PostgresStore(**{"url": "postgresql://nowhere/x", **arguments})
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("part", "by", "message"),
    [
        ("/postgres?", "/nothing?", 'database "nothing" does not exist'),
        ("routilux:", "nobody-here:", 'role "nobody-here" does not exist'),
        ("routilux-pg-", "no-folder-", "is the server running"),
    ],
)
def test_a_place_without_a_store_is_reported_at_once(url: str, part: str, by: str, message: str) -> None:
    secret = url.replace("routilux@/", f"routilux:{SECRET}@/")
    with pytest.raises(StoreError, match="no connection: ") as refused:
        PostgresStore(secret.replace(part, by))
    assert message in str(refused.value)
    assert SECRET not in "".join(traceback.format_exception(refused.value))


def test_a_server_that_only_reads_is_refused(url: str) -> None:
    with pytest.raises(
        StoreError, match="the server only reads, as a standby does; open the store on the primary"
    ):
        PostgresStore(url + "%20-cdefault_transaction_read_only%3Don")


def test_a_database_that_is_not_utf8_is_refused(url: str, admin: Any) -> None:
    admin.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    try:
        with pytest.raises(StoreError, match="has the encoding LATIN1, and texts of Routilux need UTF8"):
            PostgresStore(url.replace("/postgres?", "/latin?"))
    finally:
        admin.execute("DROP DATABASE latin")


# -- its tables --------------------------------------------------------------------------------------------


def test_many_that_open_a_new_store_at_once_make_it_once(open_store: OpenStore, admin: Any) -> None:
    with ThreadPoolExecutor(6) as pool:
        stores = list(pool.map(lambda _: open_store(), range(6)))
    assert [store.workers() for store in stores] == [[]] * 6
    assert admin.execute("SELECT version FROM format").fetchall() == [(number,) for number, _ in migrations()]


def test_stores_in_two_schemas_do_not_meet(url: str, open_store: OpenStore, admin: Any) -> None:
    open_store().write(changes(workers=[worker_row()]))
    try:
        with closing(PostgresStore(url, schema='odd "name"')) as other:
            assert other.workers() == []
            other.claim("w")
    finally:
        admin.execute('DROP SCHEMA "odd ""name""" CASCADE')


def test_steps_taken_one_by_one_end_where_all_at_once_end(postgres_server: Server) -> None:
    steps = [
        *migrations(),
        (1_000, b"ALTER TABLE job ADD COLUMN more text; CREATE INDEX job_more ON job (more)"),
    ]
    found = []
    for groups in ([steps], [steps[: at + 1] for at in range(len(steps))]):
        url = postgres_server.url()
        with closing(postgres_server.connect(postgres_server.schema_of(url))) as connection:
            for group in groups:
                migrate(connection, address_of(url, None), group)
            shape = [connection.execute(query).fetchall() for query in (SHAPE, INDEXES)]
            found.append((shape, connection.execute("SELECT version FROM format ORDER BY 1").fetchall()))
            connection.execute(f"DROP SCHEMA {postgres_server.schema_of(url)} CASCADE".encode())
    assert found[0] == found[1]
    assert len(found[0][0][0]) > 60


def test_a_step_keeps_what_is_stored(url: str, open_store: OpenStore, admin: Any) -> None:
    store = open_store()
    store.write(changes(workers=[worker_row()]))
    migrate(
        admin, address_of(url, None), [*migrations(), (1_000, b"ALTER TABLE worker ADD COLUMN more text")]
    )
    assert store.workers() == [worker_row()]


def test_a_step_that_fails_changes_nothing(url: str, open_store: OpenStore, admin: Any) -> None:
    open_store()
    before = admin.execute(SHAPE).fetchall()
    steps = [
        *migrations(),
        (1_000, b"ALTER TABLE job ADD COLUMN more text"),
        (1_001, b"ALTER TABLE nothing ADD x text"),
    ]
    with pytest.raises(psycopg.errors.UndefinedTable):
        migrate(admin, address_of(url, None), steps)
    assert admin.execute(SHAPE).fetchall() == before
    open_store()


def test_a_newer_format_is_refused(open_store: OpenStore, admin: Any) -> None:
    open_store().close()
    admin.execute("INSERT INTO format (version) VALUES (999)")
    with pytest.raises(
        StoreError, match=r"has format 999, and this version of Routilux knows .*; update Routilux"
    ):
        open_store()


def test_a_user_without_the_right_to_make_tables_can_use_a_store(
    postgres_server: Server, url: str, open_store: OpenStore, admin: Any
) -> None:
    schema = postgres_server.schema_of(url)
    plain_url = postgres_server.url(schema, user="plain")
    admin.execute("CREATE ROLE plain LOGIN")
    try:
        with pytest.raises(StoreError, match=r"permission denied .*; give this user the rights"):
            PostgresStore(plain_url)
        open_store().close()
        admin.execute(f"""
            GRANT USAGE ON SCHEMA {schema} TO plain;
            GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO plain;
            GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO plain;
        """)
        with closing(PostgresStore(plain_url)) as store:
            store.claim("w")
            store.write(changes(workers=[worker_row()]))
            assert store.settle() is True
            store.prune(0.0, finished_before=0.0, keep_finished=0, limit=1)
    finally:
        admin.execute("DROP OWNED BY plain; DROP ROLE plain")


def test_a_time_limit_for_statements_of_others_does_not_end_a_batch(
    url: str, open_store: OpenStore, admin: Any
) -> None:
    open_store().close()
    admin.execute(
        "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_sleep(0.05); RETURN NEW; END $$"
    )
    admin.execute("CREATE TRIGGER slowly BEFORE INSERT ON worker FOR EACH ROW EXECUTE FUNCTION slowly()")
    with closing(PostgresStore(f"{url}%20-cstatement_timeout%3D20")) as store:
        store.write(changes(workers=[worker_row()]))
        assert store.workers() == [worker_row()]


def test_looking_leaves_an_older_format_as_it_is(url: str, admin: Any) -> None:
    oldest, *_ = migrations()
    migrate(admin, address_of(url, None), [oldest])
    with closing(look_into(url)) as view:
        assert [view.job("j"), view.properties(), view.jobs(), view.key("f", "k", 0.0)] == [
            None,
            {},
            [],
            None,
        ]
    assert admin.execute("SELECT version FROM format").fetchall() == [(1,)]
    assert admin.execute("SELECT FROM owner").fetchall() == []


def test_a_view_writes_nothing_even_by_a_fault_of_its_own(
    url: str, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store().close()
    with closing(look_into(url)) as view:
        monkeypatch.setitem(reading._SQL, "workers", b"DELETE FROM worker")
        with pytest.raises(StoreError, match="read-only transaction"):
            view.workers()


def test_a_view_names_the_processes_that_have_the_store_open(url: str, open_store: OpenStore) -> None:
    open_store(owner="orders-1")
    open_store(owner="orders-2")
    with closing(look_into(url)) as view:
        for call in (
            lambda: view.claim("w"),
            lambda: view.write(changes(workers=[worker_row()])),
            lambda: view.prune(0.0, finished_before=0.0, keep_finished=0, limit=1),
            lambda: view.keep_refused(changes(workers=[worker_row()]), "why"),
        ):
            with pytest.raises(StoreLockedError, match=r"run by orders-1 .*, orders-2 .*; act there"):
                call()
        assert [view.write(changes()), view.commands, view.watch(), view.deaths()] == [
            frozenset(),
            None,
            None,
            [],
        ]
    assert "the store is closed" in str(view.only_read)
