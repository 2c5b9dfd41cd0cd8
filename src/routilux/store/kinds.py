"""Values that plain JSON has no form for, each with its tag, and how they are written and read.

A value of such a kind becomes ``{"$type": tag, "value": ...}``. Writing gives what stands under ``value``,
which may again hold anything that has a form; reading takes it back and raises for what writing never gives.

Only exact types have a kind: a subclass could mean more than its base, and would come back as less.
"""

from __future__ import annotations

import re
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from types import ModuleType
from typing import Any, NamedTuple, TypeVar
from uuid import UUID


class Kind(NamedTuple):
    """``write`` gives what stands under "value", which is a ``form``; ``read`` takes it back."""

    tag: str
    form: type
    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


class Unfit(Exception):
    """A value that cannot be written or read. Collects on its way up where the value is."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.steps: list[tuple[Any, Any]] = []  # innermost first: the step down, and what it was taken in


READ_ERRORS = (ValueError, TypeError, LookupError, ArithmeticError, OSError)
"""What ``read`` raises for a wrong value: Decimal and ZoneInfo go beyond ValueError."""


def _base64(value: bytes) -> str:
    return b64encode(value).decode("ascii")


def _bytes(text: str) -> bytes:
    return b64decode(text, validate=True)


# -- numbers and text --------------------------------------------------------------------------------------

_SPECIAL_FLOATS = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}


def _write_complex(value: complex) -> list[float]:
    return [value.real, value.imag]


def _read_complex(parts: list[Any]) -> complex:
    real, imag = _all_of(float, parts)
    return complex(real, imag)


def _write_surrogates(value: str) -> str:
    return _base64(value.encode("utf-8", "surrogatepass"))


def _read_surrogates(text: str) -> str:
    return _bytes(text).decode("utf-8", "surrogatepass")


def _read_hex(text: str) -> int:
    return int(text, 16)  # not decimal: Python limits the digits of those


T = TypeVar("T")


def _all_of(kind: type[T], parts: list[Any]) -> list[T]:
    if any(type(part) is not kind for part in parts):
        raise ValueError(f"expected only {kind.__name__}")
    return parts


# -- dates and times ---------------------------------------------------------------------------------------

Moment = TypeVar("Moment", datetime, time)


def _write_moment(value: datetime | time) -> str:
    """As in RFC 9557, with the zone behind it: ``2024-10-27T02:30:00+01:00[Europe/Berlin][fold=1]``."""
    zone = value.tzinfo
    suffix = "" if zone is None or type(zone) is timezone else f"[{_zone_key(zone)}]"
    return value.isoformat() + suffix + ("[fold=1]" if value.fold else "")


def _zone_key(zone: Any) -> str:
    zoneinfo = sys.modules.get("zoneinfo")
    key = zone.key if zoneinfo is not None and type(zone) is zoneinfo.ZoneInfo else None
    if key is None:
        cls = type(zone)
        raise Unfit(
            f"its time zone is a {cls.__module__}.{cls.__qualname__}, which has no JSON form; "
            "use zoneinfo.ZoneInfo('...') or datetime.timezone"
        )
    return str(key)


def _moment_reader(cls: type[Moment]) -> Callable[[str], Moment]:
    def read(text: str) -> Moment:
        iso, *suffixes = text.split("[")
        value: Moment = cls.fromisoformat(iso)
        for suffix in suffixes:
            name = suffix.removesuffix("]")
            value = value.replace(fold=1) if name == "fold=1" else value.replace(tzinfo=_zone(name))
        return value

    return read


def _zone(key: str) -> Any:
    from zoneinfo import ZoneInfo  # only a store with zones pays for it

    return ZoneInfo(key)  # refuses what could leave the folder of zones


def _write_timedelta(value: timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


def _read_timedelta(parts: list[Any]) -> timedelta:
    days, seconds, microseconds = _all_of(int, parts)
    return timedelta(days, seconds, microseconds)


# -- containers --------------------------------------------------------------------------------------------


def write_pairs(value: dict[Any, Any]) -> list[list[Any]]:
    """A dict whose keys JSON cannot have."""
    return [[key, item] for key, item in dict.items(value)]


def _read_pairs(pairs: list[Any]) -> dict[Any, Any]:
    if any(type(pair) is not list or len(pair) != 2 for pair in pairs):
        raise ValueError("expected pairs of a key and a value")
    return dict(pairs)


# -- NumPy -------------------------------------------------------------------------------------------------

_DTYPE = re.compile(r"[<>|][a-zA-Z][0-9]*(\[[0-9]*[a-zA-Z]+\])?")


def numpy_kind(value: Any) -> Kind | None:
    """The kind of a NumPy array or scalar; None for anything else. Never imports NumPy."""
    numpy = sys.modules.get("numpy") if type(value).__module__ == "numpy" else None
    if numpy is None:
        return None
    if type(value) is numpy.ndarray:
        return ARRAY
    return SCALAR if isinstance(value, numpy.generic) else None


def _write_array(array: Any) -> dict[str, Any]:
    dtype = array.dtype
    if dtype.hasobject or dtype.names is not None or not _DTYPE.fullmatch(dtype.str):
        raise Unfit(
            f"a NumPy array of dtype {dtype} has no JSON form; turn it into lists, or into one array each"
        )
    return {"dtype": dtype.str, "shape": list(array.shape), "data": array.tobytes()}


def _read_array(parts: dict[str, Any]) -> Any:
    numpy = _loaded_numpy()
    dtype, shape, data = parts["dtype"], parts["shape"], parts["data"]
    if len(parts) != 3 or not _DTYPE.fullmatch(dtype) or type(data) is not bytes:
        raise ValueError("expected dtype, shape and data")
    array = numpy.frombuffer(data, dtype) if data else numpy.empty(0, dtype)
    return array.reshape(_all_of(int, shape)).copy()


def _write_scalar(scalar: Any) -> dict[str, Any]:
    numpy = _loaded_numpy()
    if scalar.dtype.kind in "US" and scalar[-1:] in ("\0", b"\0"):
        raise Unfit("NumPy text that ends with a zero character has no JSON form; turn it into str or bytes")
    return _write_array(numpy.asarray(scalar))


def _read_scalar(parts: dict[str, Any]) -> Any:
    array = _read_array(parts)
    if array.shape != ():
        raise ValueError("expected a single value")
    return array[()]


def _loaded_numpy() -> ModuleType:
    numpy = sys.modules.get("numpy")
    if numpy is None:
        raise Unfit("it is NumPy data, and reading imports nothing; import numpy first")
    return numpy


# -- all of them -------------------------------------------------------------------------------------------

PAIRS = Kind("dict", list, write_pairs, _read_pairs)
SURROGATES = Kind("str", str, _write_surrogates, _read_surrogates)
BIG_INT = Kind("int", str, hex, _read_hex)
SPECIAL_FLOAT = Kind("float", str, repr, _SPECIAL_FLOATS.__getitem__)
ARRAY = Kind("numpy.ndarray", dict, _write_array, _read_array)
SCALAR = Kind("numpy.generic", dict, _write_scalar, _read_scalar)

STANDARD: dict[type, Kind] = {
    datetime: Kind("datetime", str, _write_moment, _moment_reader(datetime)),
    time: Kind("time", str, _write_moment, _moment_reader(time)),
    date: Kind("date", str, date.isoformat, date.fromisoformat),
    timedelta: Kind("timedelta", list, _write_timedelta, _read_timedelta),
    Decimal: Kind("Decimal", str, str, Decimal),
    UUID: Kind("UUID", str, str, UUID),
    bytes: Kind("bytes", str, _base64, _bytes),
    complex: Kind("complex", list, _write_complex, _read_complex),
    tuple: Kind("tuple", list, list, tuple),
    set: Kind("set", list, list, set),
    frozenset: Kind("frozenset", list, list, frozenset),
}
"""What has a form of its own, by exact type."""

TAGS: dict[str, Kind] = {
    kind.tag: kind for kind in (PAIRS, SURROGATES, BIG_INT, SPECIAL_FLOAT, ARRAY, SCALAR, *STANDARD.values())
}
