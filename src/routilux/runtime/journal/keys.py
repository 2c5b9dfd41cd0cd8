"""A digest of a join key: the same for equal keys, in every process.

Python's equality decides what is joined, and 1, 1.0 and True are equal. So numbers are digested by their hash, which
Python defines for all of them alike. Keys of other types share one digest: who looks for one compares what is found.
"""

from __future__ import annotations

from collections.abc import Hashable
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from hashlib import blake2b
from uuid import UUID

NUMBERS = (int, float, complex, Decimal, Fraction)


def digest_of(by: str, key: Hashable) -> str:
    """``by`` is what is joined by, so that notes of another join are never taken for those of this one."""
    text = f"{by}\0{_text(key)}".encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=12).hexdigest()


def _text(key: Hashable) -> str:
    if isinstance(key, str):
        return f"s{str.__str__(key)}"
    if isinstance(key, NUMBERS):
        return f"n{hash(key)}"
    if key is None:
        return "-"
    if isinstance(key, bytes):
        return f"b{key.hex()}"
    if type(key) is UUID:
        return f"u{key.hex}"
    if type(key) is date:
        return f"d{key.isoformat()}"
    if type(key) is datetime and key.tzinfo is None:
        return f"t{key.replace(fold=0).isoformat()}"
    if isinstance(key, tuple):
        return f"({','.join(str(len(part)) + part for part in map(_text, key))})"
    return "*"
