"""The statements in the page about PostgreSQL work, and the roles that it makes can do what it says."""

from __future__ import annotations

from contextlib import closing

import psycopg

from routilux.store.postgres import PostgresStore
from routilux.testing.store_rows import changes, item_row, worker_row
from tests.docs.document import ROOT, blocks_of
from tests.postgres.server import Server

PAGE = ROOT / "docs" / "howto" / "postgresql.md"


def test_the_statements_of_the_page_work_and_its_roles_can_do_what_it_says(postgres_server: Server) -> None:
    roles, *others = [
        block.text for block in blocks_of(PAGE.read_text(encoding="utf-8")) if block.language == "sql"
    ]
    url = postgres_server.url("routilux").replace("/postgres?", "/page?")
    with postgres_server.connect() as admin:
        admin.execute("CREATE DATABASE page")
        try:
            with closing(psycopg.connect(url, autocommit=True)) as connection:
                connection.execute(roles.encode())
                PostgresStore(url.replace("routilux@", "flows_owner@")).close()
                work_as_a_service(url.replace("routilux@", "flows@"))
                for statement in others:
                    connection.execute(statement.encode())
        finally:
            admin.execute("DROP DATABASE page")
            admin.execute("DROP ROLE flows")
            admin.execute("DROP ROLE flows_owner")


def work_as_a_service(url: str) -> None:
    with closing(PostgresStore(url)) as store:
        store.claim("w")
        store.write(changes(workers=[worker_row()], items=[item_row(1)]))
        assert store.tail("w", "parse.in") == 1
