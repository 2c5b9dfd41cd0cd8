"""Numbers and texts that users give: each refusal is a ``ConfigurationError`` that says where it was given."""

from __future__ import annotations

from collections.abc import Iterable

from routilux.errors import InvalidTypeError, InvalidValueError, refused

LONGEST_SECONDS = 1e9
KEY_BYTES = 2_600
ID_BYTES = 1_000  # so that two of them, and names beside them, make a key
"""What all texts of one key take together in a store, as UTF-8: an index of PostgreSQL holds no more."""


def checked_count(where: str, value: object, least: int, most: int | None = None) -> int:
    """Return a whole number in its range."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise refused(InvalidTypeError, where, value, "a whole number")
    if value < least or (most is not None and value > most):
        expected = f"{least} or more" if most is None else f"from {least} to {most}"
        raise refused(InvalidValueError, where, value, expected)
    return value


def checked_flag(where: str, value: object) -> bool:
    """Return True or False; what only looks like one, such as ``"no"``, is refused."""
    if not isinstance(value, bool):
        raise refused(InvalidTypeError, where, value, "True or False")
    return value


def checked_name_of(where: str, value: object, what: str) -> str:
    """Return an id or a name, which is text; for the object itself ``what`` says what to give instead."""
    if not isinstance(value, str):
        raise refused(InvalidTypeError, where, value, "text", fix=f"give {what}")
    return value


def checked_id(where: str, value: object) -> str:
    """Return the id of a worker or a job, which every store can keep."""
    if not isinstance(value, str) or not value or _stored_bytes(value) > ID_BYTES:
        raise refused(InvalidValueError, where, value, f"non-empty text of at most {ID_BYTES:,} bytes")
    return value


def check_key(where: str, given: object, key: Iterable[str]) -> None:
    """Refuse what would make a key longer than a store takes, whichever store it is. ``given`` is a part of it."""
    size = sum(map(_stored_bytes, key))
    if size > KEY_BYTES:
        raise refused(
            InvalidValueError,
            where,
            given,
            f"a text that takes at most {KEY_BYTES:,} bytes together with the ids that belong to it, not {size:,}",
            fix="shorten it, such as to a digest of it",
        )


def _stored_bytes(text: str) -> int:
    """At most: U+0000, U+0001 and halves of surrogate pairs are escaped where a database has no place for them."""
    return len(text.encode("utf-8", "backslashreplace")) + text.count("\0") + text.count("\1")


def check_methods(where: str, value: object, expected: str, *methods: str) -> None:
    """Refuse an object that lacks one of these methods: it would fail when it is first called."""
    missing = [name for name in methods if not callable(getattr(value, name, None))]
    if missing:
        raise refused(InvalidTypeError, where, value, f"{expected} with the method {missing[0]}()")


def checked_duration(where: str, value: object) -> float:
    """Return a number of seconds, 0 or more."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise refused(InvalidTypeError, where, value, "a number of seconds")
    if not value >= 0:  # not a number is not
        raise refused(InvalidValueError, where, value, "0 seconds or more")
    return value


def checked_timeout(timeout: object) -> float | None:
    """Return a time-out in seconds, 0 or more; None: as long as it takes."""
    return None if timeout is None else min(checked_duration("timeout", timeout), LONGEST_SECONDS)
