"""The store of a command: which one, and what opens it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from routilux import Runtime
from routilux.cli.command import Call
from routilux.errors import InvalidValueError
from routilux.ports import Store
from routilux.store import look_into, open_store


def store_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """The option ``--store``."""
    return click.option(
        "--store", metavar="URL", help="The store, such as sqlite:///routilux.db; if not that of the config."
    )(function)


def store_of(call: Call, given: str | None, what: str) -> str:
    """The URL of the store that a command is about."""
    url = given or call.settings.store
    if url is None:
        raise InvalidValueError(
            f"{what} needs a store: --store sqlite:///routilux.db, the variable ROUTILUX_STORE, or "
            'store = "sqlite:///routilux.db" in routilux.toml'
        )
    return url


@contextmanager
def opened(url: str | None) -> Iterator[Store | None]:
    """An open store; None where there is to be none."""
    store = None if url is None else open_store(url)
    try:
        yield store
    finally:
        if store is not None:
            store.close()


@contextmanager
def looked_into(url: str) -> Iterator[tuple[Store, Runtime]]:
    """A store to read, even if another process has it open, and a runtime in which nothing of it runs."""
    store = look_into(url)
    try:
        with Runtime(thread_pool_size=1, store=store) as runtime:
            yield store, runtime
    finally:
        store.close()
