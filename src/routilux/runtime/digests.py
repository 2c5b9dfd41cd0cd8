"""What an idempotency key was used for, as a digest: no payload is kept for the sake of a key.

The digest follows the structure of a value and is the same in every process. An object whose structure is not known
here, such as a table of another library, is only the same as itself: the key then keeps a weak reference to it.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Set
from enum import Enum
from hashlib import blake2b
from typing import Any, NamedTuple

from routilux.errors import InvalidTypeError, shown

SIZE = 12  # bytes of each part
VERSION = "2:"  # digests of older stores have no version, and stand for the payload alone
PARTS = {"slot": "for another slot", "payload": "with another payload", "metadata": "with other metadata"}
EXACT_TEXTS = frozenset(
    {"datetime", "decimal", "fractions", "ipaddress", "pathlib", "pathlib._local", "uuid"}
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
    return Content(VERSION + b"".join(parts).hex(), tuple(walk.objects))


class _Walk:
    def __init__(self) -> None:
        self.objects: list[weakref.ref[Any]] = []

    def digest(self, value: Any, path: str) -> bytes:
        try:
            return self._digest(value, path)
        except RecursionError:
            raise InvalidTypeError(
                f"a payload with an idempotency_key is nested too deeply, or contains itself, at {path}; post a "
                "flatter one, or without a key"
            ) from None

    def _digest(self, value: Any, path: str) -> bytes:
        kind = type(value)
        if isinstance(value, Enum):
            return _hashed(_name(kind), value.name.encode())
        if value is None or isinstance(value, (int, float, complex)):
            return _hashed(kind.__name__, repr(value).encode())
        if isinstance(value, str):
            return _hashed("str", value.encode("utf-8", "surrogatepass"))
        if isinstance(value, Mapping):
            pairs = [
                self._digest(key, path) + self._digest(item, f"{path}.{key}") for key, item in value.items()
            ]
            return _hashed("mapping", *sorted(pairs))
        if isinstance(value, (list, tuple)):
            items = [self._digest(item, f"{path}[{at}]") for at, item in enumerate(value)]
            return _hashed("list" if kind in (list, tuple) else _name(kind), *items)
        if isinstance(value, Set):
            return _hashed("set", *sorted(self._digest(item, path) for item in value))
        return self._digest_of_object(value, path)

    def _digest_of_object(self, value: Any, path: str) -> bytes:
        kind = type(value)
        fields = getattr(kind, "__dataclass_fields__", None)
        if fields is not None:
            items = [self._digest(getattr(value, name, None), f"{path}.{name}") for name in fields]
            return _hashed(_name(kind), *items)
        if kind.__module__ in EXACT_TEXTS:
            return _hashed(_name(kind), repr(value).encode())
        data = _bytes_of(value)
        if data is not None:
            return _hashed(*data)
        try:
            self.objects.append(weakref.ref(value))
        except TypeError:
            raise InvalidTypeError(
                f"a payload with an idempotency_key has {shown(value)} at {path}, a {_name(kind)}, which cannot be "
                "compared with what comes again under the key; give numbers, texts, lists, dicts or dataclasses, or "
                "post without a key"
            ) from None
        return _hashed("object", _name(kind).encode())


def _bytes_of(value: Any) -> tuple[str, bytes, memoryview] | None:
    """What bytes, arrays and the like hold; None for what shows no plain memory."""
    try:
        view = memoryview(value)
        if "O" in view.format or "P" in view.format:
            return None
        shape = f"{view.format} {view.shape}".encode()
        return "memory", shape, view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
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
