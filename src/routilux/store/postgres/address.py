"""Where a store is: the URL that was given, taken apart once."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict

from routilux.errors import InvalidTypeError, InvalidValueError, refused

DEFAULT_SCHEMA: Final = "routilux"
_SCHEMES: Final = ("postgresql://", "postgres://")
_SEARCH_PATH: Final = re.compile(r"-c\s*search_path=\"?([^\s\",]+)")
_LONGEST_SCHEMA: Final = 63  # bytes; PostgreSQL cuts longer names off
# Where the URL says nothing else. A dead network is noticed after 20 seconds instead of 15 minutes.
_PARAMETERS: Final = {
    "application_name": "routilux",
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "2",
    "tcp_user_timeout": "20000",
}


class Address(NamedTuple):
    """``parameters`` are libpq's; ``name`` is the URL without what is secret."""

    parameters: dict[str, Any]
    schema: str
    name: str


def address_of(url: str, schema: str | None) -> Address:
    parameters = _parameters(url)
    chosen = schema if schema is not None else _schema_in(parameters) or DEFAULT_SCHEMA
    _check_schema(chosen)
    return Address({**_PARAMETERS, **parameters}, chosen, _name(parameters, chosen))


def _parameters(url: object) -> dict[str, Any]:
    """No message shows the URL, nor the complaint of the parser, which quotes it: a password may be anywhere in it."""
    if not isinstance(url, str):
        raise refused(
            InvalidTypeError, "PostgresStore(url)", url, "text such as 'postgresql://user@host/database'"
        )
    problem = "is not a URL of PostgreSQL"
    if url.startswith(_SCHEMES):
        try:
            return {name: value for name, value in conninfo_to_dict(url).items() if value is not None}
        except (psycopg.Error, UnicodeError):
            problem = "cannot be read as a URL of PostgreSQL"
    raise InvalidValueError(
        f"PostgresStore(url): what was given {problem} (it is not shown, because it may hold a password); expected "
        "postgresql://user:password@host:port/database, with special characters of each part percent-encoded"
    ) from None


def _schema_in(parameters: dict[str, Any]) -> str | None:
    found = _SEARCH_PATH.search(str(parameters.get("options", "")))
    return found[1] if found else None


def _check_schema(schema: object) -> None:
    if not isinstance(schema, str):
        raise refused(
            InvalidTypeError, "PostgresStore(schema=)", schema, "the name of a schema, which is text"
        )
    if (
        not schema
        or "\0" in schema
        or len(schema.encode(errors="replace")) > _LONGEST_SCHEMA
        or schema.startswith("pg_")
    ):
        expected = f"the name of a schema: 1 to {_LONGEST_SCHEMA} bytes, not beginning with pg_"
        raise refused(InvalidValueError, "PostgresStore(schema=)", schema, expected)


def _name(parameters: dict[str, Any], schema: str) -> str:
    user = f"{parameters['user']}@" if "user" in parameters else ""
    port = f":{parameters['port']}" if "port" in parameters else ""
    place = f"postgresql://{user}{parameters.get('host', '')}{port}/{parameters.get('dbname', '')}"
    return place if schema == DEFAULT_SCHEMA else f"{place} (schema {schema})"
