"""Which store a URL names."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Literal, NamedTuple

from routilux.errors import (
    ConfigurationError,
    InvalidTypeError,
    InvalidValueError,
    StoreError,
    refused,
    unknown,
)
from routilux.ports import Store

Durability = Literal["full", "process"]

_FORMS = (
    "sqlite:///relative.db, sqlite:////absolute/path.db or postgresql://user@host/database"  # shown in errors
)
_PACKAGES = {
    "sqlite": "routilux.store.sqlite",
    "postgresql": "routilux.store.postgres",
    "postgres": "routilux.store.postgres",
}


# The password of a place ends at the last "@" before the path; that of a query, or of libpq's own form, at its end.
_IN_PLACE = re.compile(r"((?:^|//)[^:/@?]*):[^/?]*@")
_IN_QUERY = re.compile(r"(password\s*=\s*)[^&\s]*", re.IGNORECASE)


class Address(NamedTuple):
    """``path`` is the file of a SQLite URL; ``package`` has the store and what operates it."""

    url: str
    package: str
    path: Path | None


def address_of(url: str) -> Address:
    """Raises InvalidValueError for a URL that names no store, with the nearest that does."""
    if not isinstance(url, str):
        raise refused(InvalidTypeError, "store", url, f"a URL, such as {_FORMS}")
    scheme, colon, rest = url.partition("://")
    if not colon:
        raise refused(InvalidValueError, "store", without_password(url), f"a URL, such as {_FORMS}")
    if scheme not in _PACKAGES:
        raise unknown(
            "kind of store", scheme, _PACKAGES, where=f"in {without_password(url)!r}", fix=f"use {_FORMS}"
        )
    return Address(url, _PACKAGES[scheme], _path(url, rest) if scheme == "sqlite" else None)


def open_store(url: str, *, durability: Durability = "full", filling: str | None = None) -> Store:
    """The store that the URL names, ready for use; it is made if there is none.

    ``filling`` names the call that fills a new store, such as "restore()": until it removes the property
    ``ports.UNFINISHED`` nobody else can open it. What another such call has left unfinished is removed first.

    ``durability`` says what a committed transaction survives: "full" everything that the disk does, "process" the end
    of the process but not of the machine. Raises ConfigurationError for a URL or an installation that cannot work, and
    StoreError, StoreLockedError or StoreCorruptError for a store that cannot be opened.
    """
    address = address_of(url)
    if address.path is not None:
        store: Store = part_of(address, "").SqliteStore(address.path, durability, filling=filling)
    else:
        store = part_of(address, "").PostgresStore(url, durability=durability, filling=filling)
    return store


def look_into(url: str) -> Store:
    """The store that the URL names, to read and not to run: nothing can be claimed or written.

    One that a runtime has open can be looked into as well, and is not disturbed; ``Runtime(store=look_into(url))`` then
    lists and reads jobs as they are stored, ``health().status`` is ``"read-only"``, and what would change something
    raises StoreLockedError, naming the processes that run it, or StoreError where none does. Raises as ``open_store``,
    and StoreError where there is no store.
    """
    address = address_of(url)
    view: Store = part_of(address, ".looking").look_into(url if address.path is None else address.path)
    return view


def part_of(address: Address, module: str) -> ModuleType:
    """A module of the package that has the store; raises ConfigurationError if its extra is not installed."""
    try:
        return importlib.import_module(address.package + module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("routilux."):
            raise StoreError(
                f"{without_password(address.url)}: this version of Routilux has no {error.name}; "
                "use the tools of the database"
            ) from error
        raise ConfigurationError(
            f"{without_password(address.url)} needs the package {error.name}: pip install 'routilux[postgres]'"
        ) from error


def _path(url: str, rest: str) -> Path:
    if rest in ("", "/", "/:memory:") or rest.startswith(":memory:"):
        raise refused(
            InvalidValueError, "store", url, "the file of a SQLite database, as in sqlite:///routilux.db",
            fix="a database in memory would outlive nothing: for that, leave the store out",
        )  # fmt: skip
    if not rest.startswith("/"):
        raise refused(
            InvalidValueError, "store", url, "three slashes before a relative path, four before an absolute one",
            fix=f"sqlite:///{rest} names {rest} in the current folder",
        )  # fmt: skip
    return Path(rest[1:])


def without_password(url: object) -> str:
    """The URL for people and logs; what is no URL is shown as far as it can hold no password."""
    text = _IN_QUERY.sub(r"\1…", str(url))
    return _IN_PLACE.sub(r"\1:…@", text)
