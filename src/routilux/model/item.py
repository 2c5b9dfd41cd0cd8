"""What moves through a flow, and what comes out of it.

An item is a plain tuple, because one is made for every hop:

=====  ========  =================================================================================
index  name      what
=====  ========  =================================================================================
0      id        number, unique in the worker and rising in the order of emission
1      slot      name of the slot that it is for
2      data      the payload
3      job       the account of the job, or of the jobs, that it belongs to; opaque to the model
4      source    ``"routine.event"``, or ``"post"``
5      time      monotonic seconds when it was emitted or posted
=====  ========  =================================================================================
"""

from typing import Any, NamedTuple, TypeAlias

Payload: TypeAlias = dict[str, Any]
Item: TypeAlias = tuple[int, str, Payload, Any, str, float]


class Output(NamedTuple):
    """What a routine emitted on an event that nothing is connected to."""

    routine_id: str
    event: str
    data: Payload


class SharedOutput(Output):
    """An output of an activation on items of several jobs: each of them has it, with the same ``mark``.

    A store keeps it with each of the jobs; the mark tells that it is one output and not several that are equal.
    """

    mark: str

    @classmethod
    def of(cls, output: Output, mark: str) -> "SharedOutput":
        shared = cls(*output)
        shared.mark = mark
        return shared


class ParkedItem(NamedTuple):
    """An item that waits for items of others, and for which: ``"for a partner in ship.payment (id 2)"``."""

    routine_id: str
    slot: str
    data: Payload
    job_ids: tuple[str, ...]
    waits: str


NOTED = frozenset({"failed", "skipped", "job failed"})
"""Reasons of dead letters that come with an error which their jobs have."""


class StoredForm(dict[str, Any]):
    """A payload as it is stored, JSON, because it cannot be read here: a type in it is not registered, as ``error``
    says."""

    def __init__(self, form: Payload, error: Exception) -> None:
        super().__init__(form)
        self.error = error


class DeadLetter(NamedTuple):
    """An item that was set aside instead of being lost, and why. It can be looked at and put back. ``data`` is a
    :class:`StoredForm` where a type in it is not registered; it can be put back where that is.

    ``reason`` is one word, such as ``"failed"`` or ``"skipped"``; ``error`` is the text of the exception, if
    there was one, and ``traceback`` its traceback; ``time`` is in seconds since the epoch.
    """

    worker_id: str
    flow_id: str
    routine_id: str
    slot: str
    data: Payload
    job_ids: tuple[str, ...]
    reason: str
    error: str | None
    time: float
    item_id: int
    traceback: str | None = None
