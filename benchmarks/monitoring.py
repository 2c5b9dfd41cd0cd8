"""What it costs to be watched: a pipeline with monitoring attached, against the same one without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from threading import Thread
from time import perf_counter
from typing import NamedTuple

from benchmarks.flows import STAGES, pipeline
from benchmarks.measure import in_turns
from benchmarks.row import Reach, Row, Size, compared
from routilux import Runtime

TITLE = "A hop with monitoring attached, pool of 1; reference: monitoring off"


class Scale(NamedTuple):
    messages: int
    rounds: int


# Many short runs of one thread: a difference of one percent has to be seen.
SCALES: dict[Size, Scale] = {"full": Scale(2_000, 101), "quick": Scale(2_000, 31), "tiny": Scale(50, 1)}

Watch = Callable[[Runtime], AbstractContextManager[object]]
Hop = Callable[[int], float]


def rows(size: Size) -> list[Row]:
    scale = SCALES[size]
    return [
        _row("off, to see the noise", hop_of(False, nobody), scale),
        _row("attached, nobody listens", hop_of(True, nobody), scale, Reach(1.02)),
        _row("one listener", hop_of(True, one_listener), scale, Reach(1.25)),
        _row("one listener, read by a thread", hop_of(True, one_reader), scale),
    ]


def _row(figure: str, watched: Hop, scale: Scale, reach: Reach | None = None) -> Row:
    runs = {
        "watched": partial(watched, scale.messages),
        "off": partial(hop_of(False, nobody), scale.messages),
    }
    costs = in_turns(runs, scale.rounds)
    return compared(figure, costs["watched"], costs["off"], reach)


def hop_of(attached: bool, watch: Watch) -> Hop:
    """Seconds per hop of so many messages, with or without monitoring and somebody who watches."""

    def hop(messages: int) -> float:
        flow = pipeline()
        with Runtime(thread_pool_size=1, enable_monitoring=attached) as runtime:
            runtime.exec(flow)
            with watch(runtime):
                start = perf_counter()
                runtime.post(flow, "source", "input", {"count": messages}).job_context.result()
                return (perf_counter() - start) / (messages * STAGES)

    return hop


def nobody(runtime: Runtime) -> AbstractContextManager[object]:
    return nullcontext()


@contextmanager
def one_listener(runtime: Runtime) -> Iterator[None]:
    """It takes nothing before the end: what the runtime itself spends."""
    with runtime.monitor.listen() as listener:
        yield
        assert listener.received > 0


@contextmanager
def one_reader(runtime: Runtime) -> Iterator[None]:
    """The records are taken as they come, by a thread that shares the interpreter with the pool."""
    with runtime.monitor.listen() as listener:
        reader = Thread(target=lambda: [None for _ in listener])
        reader.start()
        yield
    reader.join()
