"""What a process does to a runtime in the middle of things: signals, and forks."""

from __future__ import annotations

import sys
from _thread import start_new_thread
from collections.abc import Callable
from types import FrameType
from typing import Any

from routilux.errors import ForkedRuntimeError
from routilux.runtime.waiting import ThreadSignal

_STEPS = ("routilux.kernel.", "routilux.runtime.")
_STOPPERS = ("__exit__", "execute", "stop_open_runtimes")  # end what they have begun, and hold nothing
_MOMENT = 0.1  # seconds


def interrupts_itself() -> bool:
    """Whether a method of the runtime was called in the middle of another step of this library on this thread.

    So it is in the handler of a signal, and in an observer or a policy of the user. The step may hold locks,
    unless it is one that waits.
    """
    frame: FrameType | None = sys._getframe(2)  # the caller of the method that asks  # noqa: SLF001
    while frame is not None:
        module, step = frame.f_globals.get("__name__", ""), frame.f_code.co_name
        if module == __name__:
            return False  # on the thread that does it elsewhere
        if module.startswith(_STEPS) and step not in _STOPPERS:
            return not (module == ThreadSignal.__module__ and step == "wait")
        frame = frame.f_back
    return False


def elsewhere(call: Callable[[], bool]) -> bool:
    """Let another thread do it, which may need what this one holds until it goes on.

    False if it is not done after a moment; it goes on all the same.
    """
    done = ThreadSignal()
    answers: list[bool] = []

    def answer() -> None:
        answers.append(call())
        done.set()

    start_new_thread(answer, ())  # a Thread takes a lock to start, which this one may hold too
    done.wait(_MOMENT)
    return bool(answers and answers[0])


def forked(call: str) -> ForkedRuntimeError:
    return ForkedRuntimeError(
        f"{call}: this runtime was created before a fork and its threads live in the parent process only; "
        "create a Runtime in the child"
    )


class _Gone:
    """Stands in a forked child for what lives in the parent process only."""

    def __getattr__(self, name: str) -> Any:
        raise forked("this call")


GONE: Any = _Gone()
