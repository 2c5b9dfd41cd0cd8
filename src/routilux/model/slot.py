"""A named input of a routine, and how data that arrives there is merged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from routilux.errors import InvalidTypeError, InvalidValueError, refused, unknown
from routilux.model.item import Payload
from routilux.model.names import checked_name
from routilux.model.types import DataType, DeclaredType, data_type
from routilux.model.value import Frozen

if TYPE_CHECKING:
    from routilux.model.routine import Routine

Merge: TypeAlias = Callable[[Payload, Payload], Mapping[str, Any]]

MERGE_STRATEGIES: Final = ("queue", "override", "append")
ON_FULL: Final = ("block", "error", "drop_new", "drop_old")


class Slot(Frozen):
    """Declared by ``Routine.add_slot``. The queue itself lives in the worker.

    When ``max_queue_length`` items are queued, ``on_full`` says what becomes of the next one; producers that
    are held back go on when the queue has fallen to ``resume_length``.
    """

    __slots__ = (
        "data_type", "handler", "max_queue_length", "merge_strategy", "name", "on_full",
        "resume_length", "routine", "type", "watermark",
    )  # fmt: skip

    name: str
    routine: Routine
    handler: Callable[..., Any] | None
    merge_strategy: str | Merge
    max_queue_length: int
    watermark: float
    on_full: str
    resume_length: int
    type: DeclaredType | None
    data_type: DataType | None

    def __init__(
        self,
        name: str,
        routine: Routine,
        *,
        handler: Callable[..., Any] | None = None,
        merge_strategy: str | Merge = "queue",
        max_queue_length: int = 1000,
        watermark: float = 0.8,
        on_full: str = "block",
        type: DeclaredType | None = None,
    ) -> None:
        where = f"of slot {checked_name('slot', name)!r}"
        self._init(
            name=name,
            routine=routine,
            handler=_handler(where, handler),
            merge_strategy=_merge_strategy(where, merge_strategy),
            max_queue_length=_length(where, max_queue_length),
            watermark=_share(where, watermark),
            on_full=_on_full(where, on_full),
            type=type,
            data_type=None if type is None else data_type(type, f"type {where}"),
        )
        self._init(resume_length=_resume_length(self.max_queue_length, self.watermark))

    def set_limits(self, length: int | None, watermark: float | None, on_full: str | None) -> None:
        """Called by ``Routine.set_queue``, while no worker lives; the slot stays the same object."""
        where = f"of slot {self.name!r}"
        new_length = self.max_queue_length if length is None else _length(where, length)
        share = self.watermark if watermark is None else _share(where, watermark)
        self._init(
            max_queue_length=new_length,
            watermark=share,
            on_full=self.on_full if on_full is None else _on_full(where, on_full),
            resume_length=_resume_length(new_length, share),
        )

    @property
    def qualified_name(self) -> str:
        """``"routine.slot"``; the class stands for a routine that is in no flow yet."""
        return f"{self.routine.routine_id or type(self.routine).__name__}.{self.name}"

    @property
    def merges(self) -> bool:
        """Whether what arrives is merged with what arrived before."""
        return self.merge_strategy != "queue"

    def __repr__(self) -> str:
        return f"<Slot {self.qualified_name!r}>"


def merge(strategy: str | Merge, old: Payload, new: Payload) -> Payload:
    """What a slot holds after ``new`` has arrived on top of ``old``. Neither argument is changed."""
    if strategy == "queue":
        return dict(new)
    if strategy == "override":
        return {**old, **new}
    if strategy == "append":
        return old | {key: [*old.get(key, ()), value] for key, value in new.items()}
    assert callable(strategy)
    merged = strategy(dict(old), dict(new))
    if not isinstance(merged, Mapping):
        raise refused(
            InvalidTypeError, "the result of a merge strategy", merged, "a dict", fix="return the merged dict"
        )
    return dict(merged)


def _handler(where: str, handler: object) -> Any:
    if handler is not None and not callable(handler):
        raise refused(InvalidTypeError, f"handler {where}", handler, "a callable")
    return handler


def _merge_strategy(where: str, strategy: object) -> Any:
    if callable(strategy):
        return strategy
    if not isinstance(strategy, str):
        raise refused(
            InvalidTypeError, f"merge_strategy {where}", strategy, "a name or a callable (old, new) -> dict"
        )
    if strategy not in MERGE_STRATEGIES:
        raise unknown(
            "merge strategy", strategy, MERGE_STRATEGIES, where=where, fix="or give a callable (old, new)"
        )
    return strategy


def _length(where: str, length: object) -> int:
    if type(length) is not int:
        raise refused(InvalidTypeError, f"max_queue_length {where}", length, "a whole number of items")
    if length < 1:
        raise refused(InvalidValueError, f"max_queue_length {where}", length, "at least 1 item")
    return length


def _resume_length(length: int, watermark: float) -> int:
    return min(int(watermark * length), length - 1)


def _share(where: str, watermark: object) -> float:
    if isinstance(watermark, bool) or not isinstance(watermark, (int, float)):
        raise refused(InvalidTypeError, f"watermark {where}", watermark, "a number")
    if not 0 < watermark <= 1:
        raise refused(InvalidValueError, f"watermark {where}", watermark, "a share above 0 and up to 1")
    return float(watermark)


def _on_full(where: str, on_full: object) -> str:
    if not isinstance(on_full, str) or on_full not in ON_FULL:
        raise unknown("on_full", on_full, ON_FULL, where=where)
    return on_full
