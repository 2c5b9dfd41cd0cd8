"""The pytest plugin: fixtures ``routilux_runtime`` and ``routilux_sim``, marker ``routilux(seeds=...)``.

It stands beside the package, because pytest imports it in every run, whether flows are tested there or not:
Routilux itself is imported when a fixture is first used. ``-p no:routilux`` leaves it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from _pytest.runner import pytest_runtest_teardown, runtestprotocol

if TYPE_CHECKING:
    from routilux import JobContext, Runtime
    from routilux.testing import SimulatedRuntime

_MARKER = (
    "routilux(seeds=1, **options): run a test that uses routilux_sim or routilux_seed once for each seed, which is a "
    "number (seeds 0 to n - 1) or a list, and stop at the first that fails; options go to SimulatedRuntime"
)
_OPTIONS = ("seeds", "interruption", "early_timers", "thread_pool_size", "max_queue_size", "debug")


class _Run(NamedTuple):
    """One run of a test with one of its seeds."""

    seed: int
    number: int
    of: int


_run = pytest.StashKey[_Run]()
_failed = pytest.StashKey[
    bool
]()  # whether an exception of any phase has ended this run; False or not there: none


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("routilux")
    text = "the one seed of simulated runtimes in this run: replays the order of events that a test has failed in"
    group.addoption("--routilux-seed", type=int, default=None, metavar="N", help=text)
    text = "seconds that what was started in routilux_runtime may take to end after the test"
    parser.addini("routilux_drain_seconds", text, default="10")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _MARKER)


# -- fixtures ----------------------------------------------------------------------------------------------


@pytest.fixture
def routilux_runtime(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    """A real ``Runtime``; after the test it is drained and shut down, and what does not end fails the test."""
    from routilux import Runtime

    seconds = _drain_seconds(request.config)
    runtime = Runtime(debug=True)
    yield runtime
    if request.node.stash.get(_failed, False):
        runtime.shutdown(wait=False)  # the test has failed already; what it left behind is no news
        return
    unfinished = [job for job in runtime.list_jobs() if not job.finished]
    if not runtime.shutdown(timeout=seconds):
        cancelled = [job for job in unfinished if job.status == "cancelled"]
        pytest.fail(_left_behind(runtime, cancelled, seconds), pytrace=False)


@pytest.fixture
def routilux_seed(request: pytest.FixtureRequest) -> int:
    """The seed of this run of the test: the marker's, or that of ``--routilux-seed``, or 0."""
    if _run not in request.node.stash:
        request.node.stash[_run] = _Run(request.config.getoption("routilux_seed") or 0, 1, 1)
    run: _Run = request.node.stash[_run]
    return run.seed


@pytest.fixture
def routilux_sim(request: pytest.FixtureRequest, routilux_seed: int) -> Iterator[SimulatedRuntime]:
    """A ``SimulatedRuntime`` in debug mode with the seed of this run and the options of the marker."""
    from routilux.testing import SimulatedRuntime

    marker = request.node.get_closest_marker("routilux")
    given = {} if marker is None else dict(marker.kwargs)
    given.pop("seeds", None)
    runtime = SimulatedRuntime(routilux_seed, **{"debug": True, **given})
    yield runtime
    runtime.shutdown(wait=False)


def _left_behind(runtime: Runtime, cancelled: list[JobContext], seconds: float) -> str:
    """What did not end in time, for people."""
    lines = [f"what the test has started in routilux_runtime did not end within {seconds:g} s:"]
    for one in runtime.list_running():
        jobs = ", ".join(one.job_ids)
        lines.append(
            f"  routine {one.routine_id!r} of flow {one.flow_id!r} still runs, for {one.seconds:.1f} s now ({jobs})"
        )
    lines += [
        f"  job {job.job_id!r} of flow {job.flow_id!r} had not ended, and was cancelled" for job in cancelled
    ]
    lines.append(
        "wait for it in the test, or stop it there: runtime.cancel(job), runtime.stop(worker, drain=False)"
    )
    return "\n".join(lines)


def _drain_seconds(config: pytest.Config) -> float:
    given = config.getini("routilux_drain_seconds")
    try:
        return float(given)
    except ValueError:
        raise pytest.UsageError(f"routilux_drain_seconds is a number of seconds, got {given!r}") from None


# -- the marker --------------------------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A marker that is not right fails its test."""
    marker = item.get_closest_marker("routilux")
    if marker is not None and (problem := _problem(marker, item)):
        pytest.fail(f"{item.nodeid}: marker routilux {problem}", pytrace=False)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run a marked test with one seed after the other, each with fresh fixtures; report the first that fails."""
    marker = item.get_closest_marker("routilux")
    if marker is None or _problem(marker, item):
        return None
    only = item.config.getoption("routilux_seed")
    seeds = _listed(marker) if only is None else [only]
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in _reports(item, nextitem, seeds):
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _reports(item: pytest.Item, nextitem: pytest.Item | None, seeds: list[int]) -> list[pytest.TestReport]:
    """The reports of the run that tells the most: the first that fails, else the last."""
    told: list[pytest.TestReport] = []
    seconds, shown = 0.0, 0
    for number, seed in enumerate(seeds, 1):
        item.stash[_run] = _Run(seed, number, len(seeds))
        item.stash[_failed] = False
        # Fixtures of a wider scope than the test stay, as if a sibling came next.
        reports = runtestprotocol(item, log=False, nextitem=item.parent)  # type: ignore[arg-type]
        seconds += sum(report.duration for report in reports if report.when == "call")
        captured = len(reports[-1].sections)
        for report in reports:
            # pytest adds what was captured to that of the runs before
            report.sections = report.sections[shown:]
        shown = captured
        told = reports
        if item.stash[_failed] or item.session.shouldstop:
            break
    for report in told:
        if report.when == "call":
            report.duration = seconds
    return told + _rest_of_teardown(item, nextitem)


def _rest_of_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> list[pytest.TestReport]:
    """Take down the wider fixtures that were kept; a report, which is of no seed, if that fails."""
    del item.stash[_run]
    call = pytest.CallInfo.from_call(lambda: pytest_runtest_teardown(item, nextitem), when="teardown")
    return [] if call.excinfo is None else [item.ihook.pytest_runtest_makereport(item=item, call=call)]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Say with a failure which seed it belongs to, and how to see it again."""
    if call.excinfo is None:
        return
    item.stash[_failed] = True
    run = item.stash.get(_run, None)
    if run is not None and not isinstance(call.excinfo.value, pytest.skip.Exception):
        call.excinfo.value.add_note(_how_to_replay(item, run))


def _how_to_replay(item: pytest.Item, run: _Run) -> str:
    which = f"seed {run.seed}" if run.of == 1 else f"seed {run.seed}, the first to fail of {run.of}"
    quoted = "'" + item.nodeid.replace("'", "'\\''") + "'"
    return f"simulated with {which}; this order again: pytest {quoted} --routilux-seed={run.seed}"


def _problem(marker: pytest.Mark, item: pytest.Item) -> str:
    """What is wrong with a marker, in words; empty if nothing is."""
    if marker.args:
        return f"takes its options by name; write routilux(seeds={marker.args[0]!r})"
    for key in marker.kwargs:
        if key not in _OPTIONS:
            return f"has no option {key!r}; the options are {', '.join(_OPTIONS)}"
    seeds = _listed(marker)
    if not seeds or not all(type(seed) is int for seed in seeds):
        given = marker.kwargs["seeds"]
        return f"takes seeds=n, at least 1, or a list of whole numbers that is not empty, got seeds={given!r}"
    if not {"routilux_seed", "routilux_sim"} & set(getattr(item, "fixturenames", ())):
        return (
            "is on a test that uses neither routilux_sim nor routilux_seed, so every run would be the same; take "
            "one of them as a parameter, in the test or in a fixture of it"
        )
    return ""


def _listed(marker: pytest.Mark) -> list[Any]:
    seeds = marker.kwargs.get("seeds", 1)
    if type(seeds) is int:
        return list(range(seeds))
    return list(seeds) if isinstance(seeds, Iterable) and not isinstance(seeds, str) else []
