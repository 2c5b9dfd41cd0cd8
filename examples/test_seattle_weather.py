"""Tests of the weather flow, written as you would test a flow of your own. Run them: pytest examples

The routines one by one with a RoutineTester, then the flow on a few days: in many orders of events on a simulated
runtime, and once on real threads.
"""

from __future__ import annotations

import pytest

from examples import seattle_weather
from examples.seattle_weather import Branch, Check, Confirm, Totals
from routilux import Runtime
from routilux.testing import RoutineTester, SimulatedRuntime, Trace

HEADER = "date,precipitation,temp_max,temp_min,wind,weather"
DAYS = [
    "2014/01/10,2.5,9.4,4.4,3.9,rain",
    "2014/01/11,21.3,10.0,5.0,8.8,rain",
    "2014/02/01,0.0,8.9,-0.6,2.2,sun",
]
STORM = {"date": "2014-01-11", "weather": "rain", "rain": 21.3, "high": 10.0, "low": 5.0, "wind": 8.8}
CALM = {"date": "2014-02-01", "weather": "sun", "rain": 0.0, "high": 8.9, "low": -0.6, "wind": 2.2}


@pytest.fixture
def days(tmp_path):
    """A file with three days; reading it adds the three damaged lines."""
    path = tmp_path / "days.csv"
    path.write_text("\n".join([HEADER, *DAYS]) + "\n", encoding="utf-8")
    return str(path)


# -- the routines ----------------------------------------------------------------------------------------------


def test_a_line_becomes_a_day():
    with RoutineTester(Check) as tester:
        assert tester.call("line", {"number": 3, "line": DAYS[1]}) == [("day", STORM)]


def test_a_bad_line_is_set_aside_with_the_reason():
    with RoutineTester(Check) as tester:
        assert tester.call("line", {"number": 2, "line": "2014/01/10,-2.0,9.4,4.4,3.9,rain"}) == []
        [letter] = tester.runtime.dead_letters()
        assert (letter.data["number"], letter.error) == (2, "ValueError: it cannot rain -2.0 mm")


def test_the_station_is_asked_again_about_the_first_of_a_month():
    with RoutineTester(Confirm, {"seconds": 0}) as tester:
        assert tester.call("day", STORM) == [("day", STORM)]
        assert tester.now == 0
        assert tester.call("day", CALM) == [("day", CALM)]
        assert (tester.now, tester.routine.stats(tester.state)["retried"]) == (0.02, 1)


def test_a_storm_goes_both_ways():
    with RoutineTester(Branch) as tester:
        assert tester.call("day", STORM) == [("storm", STORM), ("day", STORM)]
        assert tester.call("day", CALM) == [("day", CALM)]


def test_months_add_up_over_batches():
    with RoutineTester(Totals, routine_id="totals") as tester:
        for _ in range(150):
            tester.post("day", STORM)
        tester.run()
        assert tester.emitted("counted") == [{"days": 100}]
        assert tester.drain() == [("counted", {"days": 150})]
        month = tester.state.get_routine_state("totals")["2014-01"]
        assert (month["days"], round(month["rain"], 1)) == (150, 3195.0)


# -- the flow --------------------------------------------------------------------------------------------------


@pytest.mark.routilux(seeds=50)
def test_the_report_does_not_depend_on_the_order_of_events(routilux_sim: SimulatedRuntime, days: str):
    trace = Trace(routilux_sim)
    state = routilux_sim.exec(seattle_weather.build_flow(seconds=0), entry_params={"path": days})
    state.wait()
    assert state.status == "completed", state.error
    assert trace.emitted("branch.storm") == [STORM]
    [report] = trace.emitted("report.report")
    assert report["storms"] == [STORM]
    assert {name: month["days"] for name, month in report["months"].items()} == {"2014-01": 2, "2014-02": 1}
    assert len(routilux_sim.dead_letters()) == len(seattle_weather.DAMAGED)


def test_it_runs_on_real_threads(routilux_runtime: Runtime, days: str):
    state = routilux_runtime.exec(seattle_weather.build_flow(seconds=0), entry_params={"path": days})
    assert state.wait(30)
    assert state.status == "completed", state.error
    assert [output.event for output in state.outputs] == ["report"]
