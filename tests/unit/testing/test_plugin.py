"""The pytest plugin, in test runs of their own."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

import pytest

pytest_plugins = ["pytester"]

RACE = """
    import pytest
    from routilux import Flow, Routine, routine
    from routilux.activation_policies import immediate_policy

    @routine
    def source(n):
        return {"n": n}

    @routine
    def left(n):
        return {"side": "left"}

    @routine
    def right(n):
        return {"side": "right"}

    class Last(Routine):
        def __init__(self):
            super().__init__()
            self.add_slot("input")
            self.set_activation_policy(immediate_policy())

        def logic(self, slot_data, policy_message, state):
            state.update_routine_state("last", {"side": slot_data["input"][0]["side"]})

    def last_side(runtime):
        flow = Flow("race")
        for routine_id, made in {"source": source(), "left": left(), "right": right(), "last": Last()}.items():
            flow.add_routine(made, routine_id)
        for side in ("left", "right"):
            flow.connect("source", "output", side, "input")
            flow.connect(side, "output", "last", "input")
        state = runtime.exec(flow, entry_params={"n": 1})
        state.wait()
        return state.get_routine_state("last")["side"]
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    """Write a test file, run it, and return the result and all that was printed."""
    monkeypatch.delenv("CI", raising=False)  # there pytest says everything twice

    def run_file(text: str, *arguments: str, prelude: str = RACE, apart: bool = False):
        pytester.makepyfile(dedent(prelude) + dedent(text))
        start = pytester.runpytest_subprocess if apart else pytester.runpytest_inprocess
        result = start("-p", "no:randomly", "-p", "no:cacheprovider", "--strict-markers", *arguments)
        return result, "\n".join(result.outlines)

    return run_file


# -- the marker --------------------------------------------------------------------------------------------

ALL_SEEDS = """
    seen = []

    @pytest.mark.routilux(seeds=50)
    def test_sides(routilux_sim):
        seen.append((routilux_sim.seed, last_side(routilux_sim)))

    def test_all():
        assert [seed for seed, _ in seen] == list(range(50))
        assert {side for _, side in seen} == {"left", "right"}
"""


def test_a_marked_test_is_one_test_that_runs_with_every_seed(run) -> None:
    result, _ = run(ALL_SEEDS)
    result.assert_outcomes(passed=2)


FAILING = """
    from routilux.testing import SimulatedRuntime

    @pytest.mark.routilux(seeds=50)
    def test_the_order_is_that_of_seed_0(routilux_sim):
        print("seed is", routilux_sim.seed)
        with SimulatedRuntime(0) as first:
            assert last_side(routilux_sim) == last_side(first)
"""


def first_failing(run) -> int:
    result, text = run(FAILING)
    result.assert_outcomes(failed=1)
    [line] = [line for line in text.splitlines() if "the first to fail of 50" in line]
    seed = int(line.partition("simulated with seed ")[2].partition(",")[0])
    assert line.endswith(f"::test_the_order_is_that_of_seed_0' --routilux-seed={seed}")
    assert text.count("seed is ") == 1  # what the seeds before have printed is no part of this failure
    assert f"seed is {seed}" in text
    return seed


def test_the_first_seed_that_fails_is_named_and_ends_the_test(run) -> None:
    seed = first_failing(run)
    result, text = run(FAILING, f"--routilux-seed={seed}")
    result.assert_outcomes(failed=1)
    assert f"simulated with seed {seed}; this order again: pytest '" in text
    result, _ = run(FAILING, "--routilux-seed=0")
    result.assert_outcomes(passed=1)


def test_seeds_may_be_listed(run) -> None:
    text = """
        seen = []

        @pytest.mark.routilux(seeds=[7, 3], early_timers=0.5, interruption=0.0)
        def test_seeds(routilux_seed, routilux_sim):
            assert routilux_sim.seed == routilux_seed
            seen.append(routilux_seed)

        def test_all():
            assert seen == [7, 3]
    """
    run(text)[0].assert_outcomes(passed=2)


def test_a_test_without_a_marker_runs_once_with_the_first_seed_or_the_given_one(run) -> None:
    text = "def test_seed(routilux_sim):\n    assert routilux_sim.seed == 0\n"
    run(text)[0].assert_outcomes(passed=1)
    result, printed = run(text, "--routilux-seed=5")
    result.assert_outcomes(failed=1)
    assert "simulated with seed 5; this order again" in printed


FIXTURES = """
    log = []

    @pytest.fixture(scope="module", autouse=True)
    def module():
        log.append("module")
        yield
        assert log == ["module", *["up", "down"] * 4]
        print("the module is down")

    @pytest.fixture(params=["a", "b"])
    def own(request, routilux_sim):
        log.append("up")
        yield request.param, routilux_sim
        log.append("down")

    @pytest.mark.parametrize("n", [1])
    @pytest.mark.routilux(seeds=2)
    def test_it(own, n, tmp_path):
        assert not list(tmp_path.iterdir())
        (tmp_path / "file").touch()
        assert last_side(own[1]) in ("left", "right")
"""


def test_fixtures_of_a_test_are_made_for_each_seed_and_wider_ones_once(run) -> None:
    result, text = run(FIXTURES, "-s")
    result.assert_outcomes(passed=2)
    assert "the module is down" in text


def test_each_set_of_parameters_has_its_own_seeds(run) -> None:
    text = """
        @pytest.mark.parametrize("limit", [1, 9])
        @pytest.mark.routilux(seeds=3)
        def test_it(limit, routilux_sim):
            assert routilux_sim.seed < limit
    """
    result, printed = run(text)
    result.assert_outcomes(passed=1, failed=1)
    assert "simulated with seed 1, the first to fail of 3; this order again: pytest '" in printed
    assert "::test_it[1]' --routilux-seed=1" in printed


def test_wider_fixtures_end_when_a_seed_fails_that_is_not_the_last(run) -> None:
    text = """
        @pytest.fixture(scope="class")
        def wide():
            yield
            print("wide is down")
            raise ValueError("of the wide one")

        class TestIt:
            @pytest.mark.routilux(seeds=3)
            def test_it(self, wide, routilux_sim):
                assert routilux_sim.seed == 0

        def test_after():
            print("after")
    """
    result, printed = run(text, "-s")
    result.assert_outcomes(passed=1, failed=1, errors=1)
    assert printed.index("wide is down") < printed.index("after")
    assert "ValueError: of the wide one" in printed
    assert printed.count("the first to fail of 3") == 1


def test_a_failure_in_a_fixture_names_the_seed_too(run) -> None:
    text = """
        @pytest.fixture
        def before(routilux_sim):
            assert routilux_sim.seed != 2

        @pytest.fixture
        def after(routilux_sim):
            yield
            assert routilux_sim.seed != 1

        @pytest.mark.routilux(seeds=4)
        def test_before(before):
            pass

        @pytest.mark.routilux(seeds=4)
        def test_after(after):
            pass
    """
    result, printed = run(text)
    result.assert_outcomes(errors=2, passed=1)
    assert "seed 2, the first to fail of 4" in printed
    assert "seed 1, the first to fail of 4" in printed


def test_skips_and_expected_failures_are_told_as_such(run) -> None:
    text = """
        @pytest.mark.routilux(seeds=4)
        def test_skipped(routilux_sim):
            pytest.skip("not here")

        @pytest.mark.skip
        @pytest.mark.routilux(seeds=4)
        def test_skipped_by_mark(routilux_sim):
            pass

        @pytest.mark.xfail(strict=True)
        @pytest.mark.routilux(seeds=4)
        def test_fails_with_one_seed(routilux_sim):
            assert routilux_sim.seed != 2

        @pytest.mark.xfail(strict=False)
        @pytest.mark.routilux(seeds=4)
        def test_fails_with_none(routilux_sim):
            pass
    """
    run(text)[0].assert_outcomes(skipped=2, xfailed=1, xpassed=1)


@pytest.mark.parametrize(
    ("marker", "parameter", "message"),
    [
        ("(200)", "routilux_sim", "takes its options by name; write routilux(seeds=200)"),
        ("(seed=5)", "routilux_sim", "has no option 'seed'; the options are seeds, "),
        (
            "(seeds=0)",
            "routilux_sim",
            "at least 1, or a list of whole numbers that is not empty, got seeds=0",
        ),
        ("(seeds='12')", "routilux_sim", "got seeds='12'"),
        ("(seeds=[1, 'x'])", "routilux_sim", "got seeds=[1, 'x']"),
        ("(seeds=2)", "tmp_path", "uses neither routilux_sim nor routilux_seed"),
    ],
)
def test_a_marker_that_is_not_right_fails_its_test(run, marker: str, parameter: str, message: str) -> None:
    text = f"""
        @pytest.mark.routilux{marker}
        def test_it({parameter}):
            pass

        def test_other():
            pass
    """
    result, printed = run(text)
    result.assert_outcomes(errors=1, passed=1)
    assert message in printed


# -- fixtures ----------------------------------------------------------------------------------------------


def test_a_real_runtime_is_drained_after_the_test(run) -> None:
    text = """
        ended = []

        @routine
        def note(n):
            ended.append(n)

        def test_it(routilux_runtime):
            flow = Flow("f")
            flow.add_routine(note(), "note")
            routilux_runtime.exec(flow)
            for n in range(100):
                routilux_runtime.post(flow, "note", "input", {"n": n})

        def test_after():
            assert ended == list(range(100))
    """
    run(text)[0].assert_outcomes(passed=2)


STILL_RUNS = """
    import threading

    go_on, started = threading.Event(), threading.Event()

    @pytest.fixture(autouse=True, scope="module")
    def let_go():
        yield
        go_on.set()

    @routine
    def wait(n):
        started.set()
        go_on.wait()

    def test_it(routilux_runtime):
        flow = Flow("slow")
        flow.add_routine(wait(), "wait")
        routilux_runtime.exec(flow)
        routilux_runtime.post(flow, "wait", "input", {"n": 1}, job_id="first")
        routilux_runtime.post(flow, "wait", "input", {"n": 2}, job_id="second")
        assert started.wait(60)
"""


def test_what_does_not_end_after_the_test_is_named(run) -> None:
    result, text = run(STILL_RUNS, "-o", "routilux_drain_seconds=0.05")
    result.assert_outcomes(passed=1, errors=1)
    assert "did not end within 0.05 s:" in text
    assert "  routine 'wait' of flow 'slow' still runs, for " in text
    assert "s now (first)" in text
    assert "  job 'second' of flow 'slow' had not ended, and was cancelled" in text


def test_a_test_that_has_failed_does_not_wait_for_what_it_left_behind(run) -> None:
    result, text = run(STILL_RUNS + "        assert not started.is_set()\n        go_on.set()\n")
    result.assert_outcomes(failed=1)
    assert "did not end within" not in text


def test_the_time_to_drain_is_a_number(run) -> None:
    _, text = run(
        "def test_it(routilux_runtime):\n    pass\n", "-o", "routilux_drain_seconds=soon", apart=True
    )
    assert "routilux_drain_seconds is a number of seconds, got 'soon'" in text


# -- beside other plugins ----------------------------------------------------------------------------------


def test_with_xdist_the_seed_is_named_in_the_same_way(run) -> None:
    result, text = run(ALL_SEEDS + FAILING, "-n", "2", "--dist", "loadfile", apart=True)
    result.assert_outcomes(passed=2, failed=1)
    assert "the first to fail of 50; this order again: pytest '" in text


def test_it_can_be_left_out(run) -> None:
    result, text = run(FAILING, "-p", "no:routilux", apart=True)
    assert "'routilux' not found in `markers` configuration option" in text
    text = "def test_it():\n    pass\n"
    result, _ = run(text, "-p", "no:routilux", prelude="", apart=True)
    result.assert_outcomes(passed=1)


def test_a_run_that_does_not_use_it_does_not_import_routilux(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        "import sys\n\ndef test_it():\n    assert 'pytest_routilux' in sys.modules\n"
        "    assert 'routilux' not in sys.modules\n    assert 'asyncio' not in sys.modules\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:randomly",
        "-p",
        "no:xdist",
        "-p",
        "no:hypothesispytest",
    ]
    done = subprocess.run(command, cwd=pytester.path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
