"""What an idempotency key was used for, as a digest: no payload is kept for the sake of a key.

The digest follows the structure of a value and is the same in every process. An object whose structure is not known
here, such as a table of another library, is only the same as itself: the key then keeps a weak reference to it.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Mapping, Set
from dataclasses import fields
from datetime import datetime, time
from enum import Enum
from hashlib import blake2b
from typing import Any, NamedTuple

from routilux.errors import InvalidTypeError, describe, shown

SIZE = 12  # bytes of each part
VERSION = "2:"  # digests of older stores have no version, and stand for the payload alone
PARTS = {"slot": "for another slot", "payload": "with another payload", "metadata": "with other metadata"}
DEEPEST = 150  # containers within containers
LONGEST_INT = 2_000  # bits, written in decimals
LONGEST_STEP = 60  # characters of a key in a path
STEPS_SHOWN = 12
REMEMBERED = 32  # values in a container that is not walked through again where it comes again
_PLAIN = frozenset((str, int, float, bool, complex, type(None)))
EXACT_TEXTS = frozenset(
    {"datetime", "decimal", "fractions", "ipaddress", "pathlib", "pathlib._local", "uuid", "zoneinfo"}
)
"""Modules whose values say all that they are in their ``repr``."""


class Content(NamedTuple):
    """What is posted under a key: the digest of its slot, payload and metadata, and what is only the same as itself."""

    digest: str
    objects: tuple[weakref.ref[Any], ...] = ()

    def difference(self, other: Content) -> str | None:
        """How what ``other`` stands for differs, in the words of :data:`PARTS`; None if it is the same."""
        for at, words in enumerate(PARTS.values()):
            if self._part(at) != other._part(at):
                return words
        mine, theirs = [ref() for ref in self.objects], [ref() for ref in other.objects]
        same = len(mine) == len(theirs) and all(
            one is two and one is not None for one, two in zip(mine, theirs, strict=True)
        )
        return None if same else PARTS["payload"]

    def _part(self, at: int) -> str:
        start = len(VERSION) + at * 2 * SIZE
        return self.digest[start : start + 2 * SIZE]


def content_of(place: str, payload: Any, metadata: Any) -> Content:
    """Raises InvalidTypeError, naming the place in the payload, for what has no digest and no identity to go by."""
    walk = _Walk()
    parts = [walk.digest(place, "$"), walk.digest(payload, "$"), walk.digest(metadata, "metadata")]
    return Content(VERSION + b"".join(parts).hex(), tuple(map(weakref.ref, walk.objects)))


class _Path(NamedTuple):
    """Where a value is; written out for an error only."""

    before: _Path | str
    step: Any
    form: str = ".{}"

    def __str__(self) -> str:
        steps: list[str] = []
        at: _Path | str = self
        while isinstance(at, _Path):
            step = (
                at.step
                if type(at.step) is str and len(at.step) <= LONGEST_STEP
                else shown(at.step, LONGEST_STEP)
            )
            steps.append(at.form.format(step))
            at = at.before
        return f"{at}{''.join(reversed(steps[-STEPS_SHOWN:]))}{'…' if len(steps) > STEPS_SHOWN else ''}"


class _Walk:
    def __init__(self) -> None:
        # Which are only the same as themselves, in an order that is not that of dicts.
        self.objects: list[Any] = []
        self._inside: set[int] = set()  # ids of the containers that lie around the value that is looked at
        self._walked = 0  # values
        # By id: what was large, its digest, and how deep it was. What is shared is walked through once, not once per
        # way to it, of which there may be any number. The value is kept, so that its id is not used again.
        self._known: dict[int, tuple[Any, bytes, int]] = {}

    def digest(self, value: Any, path: _Path | str) -> bytes:
        try:
            return self._digest(value, path)
        except RecursionError:
            raise _not_digested(value, path, "is nested too deeply for the stack of its caller") from None

    def _digest(self, value: Any, path: _Path | str) -> bytes:
        try:
            kind = type(value)
            self._walked += 1
            if kind in _PLAIN:
                return _digest_of_plain(value, kind)
            if id(value) in self._inside:
                raise _not_digested(value, path, "contains itself")
            depth = len(self._inside)
            if depth >= DEEPEST:
                raise _not_digested(value, path, f"lies more than {DEEPEST} levels deep")
            known = self._known.get(id(value))
            if known is not None and depth <= known[2]:  # further down it may be too deep
                return known[1]
            walked, objects = self._walked, len(self.objects)
            self._inside.add(id(value))
            try:
                digest = self._digest_of_parts(value, kind, path)
            finally:
                self._inside.discard(id(value))
            if self._walked - walked >= REMEMBERED and len(self.objects) == objects:
                self._known[id(value)] = value, digest, depth
            return digest
        except (InvalidTypeError, RecursionError):
            raise
        except Exception as error:  # the classes of a user may raise anything
            raise _not_digested(value, path, f"cannot be read: {describe(error)}") from error

    def _digest_of_parts(self, value: Any, kind: type, path: _Path | str) -> bytes:
        if isinstance(value, Enum):
            name = value._name_ or repr(value._value_)  # a combination of flags may have no name
            return _hashed(_name(kind), name.encode())
        if isinstance(value, (str, int, float, complex)):
            return _digest_of_plain(value, kind)
        if isinstance(value, Mapping):
            pairs = [(path, key, _Path(path, key), item) for key, item in value.items()]
            return _hashed("mapping", *self._unordered(pairs))
        if isinstance(value, (list, tuple, deque)):
            items = [self._digest(item, _Path(path, at, "[{}]")) for at, item in enumerate(value)]
            return _hashed("list" if kind in (list, tuple) else _name(kind), *items)
        if isinstance(value, Set):
            return _hashed("set", *self._unordered([(path, item) for item in value]))
        if isinstance(value, range):
            return _hashed("range", repr((len(value), *value[:1], *value[1:2])).encode())
        if isinstance(value, (datetime, time)) and value.tzinfo is not None and kind.__module__ == "datetime":
            naive = repr(value.replace(tzinfo=None)).encode()
            return _hashed(_name(kind), naive, self._digest(value.tzinfo, _Path(path, "tzinfo")))
        return self._digest_of_object(value, kind, path)

    def _unordered(self, entries: list[tuple[Any, ...]]) -> list[bytes]:
        """The digests of entries that have no order, each of places and values; objects in them come in the order of
        the digests, and of where they are in memory."""
        found, before = [], self.objects
        for entry in entries:
            self.objects = []
            digest = b"".join(
                self._digest(value, path) for path, value in zip(entry[::2], entry[1::2], strict=True)
            )
            found.append((digest, self.objects))
        self.objects = before
        found.sort(key=lambda entry: (entry[0], [id(each) for each in entry[1]]))
        for _, objects in found:
            self.objects += objects
        return [digest for digest, _ in found]

    def _digest_of_object(self, value: Any, kind: type, path: _Path | str) -> bytes:
        if hasattr(kind, "__dataclass_fields__"):
            names = [field.name for field in fields(value) if field.compare]
            items = [self._digest(getattr(value, name, None), _Path(path, name)) for name in names]
            return _hashed(_name(kind), *items)
        if kind.__module__ in EXACT_TEXTS:
            return _hashed(_name(kind), repr(value).encode())
        data = _bytes_of(value, kind)
        if data is not None:
            return _hashed(*data)
        try:
            weakref.ref(value)
        except TypeError:
            raise _not_digested(
                value, path, "cannot be compared with what comes again under the key"
            ) from None
        self.objects.append(value)
        return _hashed("object", _name(kind).encode())


def _not_digested(value: Any, path: _Path | str, why: str) -> InvalidTypeError:
    return InvalidTypeError(
        f"a payload with an idempotency_key has {shown(value)} at {path}, a {_name(type(value))}, which {why}; give "
        "numbers, texts, lists, dicts or dataclasses, or post without a key"
    )


def _digest_of_plain(value: Any, kind: type) -> bytes:
    """Of a text, a number or None: as its built-in class shows it, whatever a class of the user does."""
    if isinstance(value, str):
        return _hashed("str", str.encode(value, "utf-8", "surrogatepass"))
    name = kind.__name__ if kind in _PLAIN else _name(kind)
    if isinstance(value, int) and int.bit_length(value) > LONGEST_INT:
        return _hashed(name, int.__format__(value, "x").encode())  # Python refuses to write it in decimals
    own: Any = next(
        (number for number in (bool, int, float, complex) if isinstance(value, number)), type(None)
    )
    return _hashed(name, own.__repr__(value).encode())


def _bytes_of(value: Any, kind: type) -> tuple[str, bytes, Any] | None:
    """What bytes, arrays and the like hold; None for what shows no plain memory."""
    dtype = getattr(value, "dtype", None)
    if dtype is not None:
        # A class on top of it may have more than its memory.
        if kind.__module__ != "numpy" or dtype.hasobject:
            return None
        return "array", f"{dtype} {value.shape}".encode(), value.tobytes()
    try:
        view = memoryview(value)
        if "O" in view.format or "P" in view.format:
            return None
        shape = f"{view.format} {view.shape}".encode()
        return "memory", shape, view.cast("B") if view.c_contiguous and view.nbytes else view.tobytes()
    except (TypeError, ValueError, BufferError):
        return None


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _hashed(kind: str, *parts: Any) -> bytes:
    """Of what the parts say one after the other; the caller sees to it that they can be told apart."""
    made = blake2b(kind.encode() + b"\0", digest_size=SIZE)
    for part in parts:
        made.update(part)
    return made.digest()
