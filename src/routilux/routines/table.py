"""Values by key, kept in a routine's state so that reading the state does not copy them.

A state copies dicts and lists when it is read, and hands tuples on as they are. Here the keys are spread over buckets,
each a tuple of pairs. To change a value makes its bucket and the row of buckets anew, so with n keys it costs about the
square root of n, and not n.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias
from zlib import crc32

Bucket: TypeAlias = tuple[tuple[str, Any], ...]
_FEWEST = 16


class Table:
    """Made of what a state holds, and given back to it by :meth:`as_state`. Values are replaced, never changed."""

    def __init__(self, buckets: Sequence[Bucket] = ()) -> None:
        self._buckets = list(buckets) or [()] * _FEWEST
        self._open: dict[int, dict[str, Any]] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return self._bucket_of(key).get(key, default)

    def put(self, key: str, value: Any) -> None:
        self._bucket_of(key)[key] = value

    def pop(self, key: str) -> Any:
        return self._bucket_of(key).pop(key)

    def values(self) -> Iterator[Any]:
        for number, bucket in enumerate(self._buckets):
            pairs = self._open[number].items() if number in self._open else bucket
            yield from (value for _, value in pairs)

    def as_state(self) -> tuple[Bucket, ...]:
        for number, pairs in self._open.items():
            self._buckets[number] = tuple(pairs.items())
        longest = max((len(pairs) for pairs in self._open.values()), default=0)
        self._open.clear()
        # The sum decides, so that keys which are made to meet in one bucket do not make the row grow.
        if longest > self._room and sum(map(len, self._buckets)) > self._room * len(self._buckets):
            self._spread_over(2 * len(self._buckets))
        return tuple(self._buckets)

    @property
    def _room(self) -> int:
        """How many pairs a bucket should have: few, because a row is copied faster than pairs are."""
        return max(_FEWEST, len(self._buckets) // 16)

    def _bucket_of(self, key: str) -> dict[str, Any]:
        number = _place(key, len(self._buckets))
        if number not in self._open:
            self._open[number] = dict(self._buckets[number])
        return self._open[number]

    def _spread_over(self, count: int) -> None:
        buckets: list[list[tuple[str, Any]]] = [[] for _ in range(count)]
        for bucket in self._buckets:
            for pair in bucket:
                buckets[_place(pair[0], count)].append(pair)
        self._buckets = list(map(tuple, buckets))


def _place(key: str, count: int) -> int:
    """The same in every process, which ``hash()`` of a text is not."""
    return crc32(key.encode("utf-8", "surrogatepass")) % count
