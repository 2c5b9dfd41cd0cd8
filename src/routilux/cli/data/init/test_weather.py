"""Runs the flow on its data and looks at what comes out. Run it: pytest"""

from pathlib import Path

from routilux import Flow, Runtime

HERE = Path(__file__).parent


def test_days_are_added_up_by_their_kind(routilux_runtime: Runtime) -> None:
    flow = Flow.load(HERE / "weather.flow.yaml")
    state = routilux_runtime.exec(flow, entry_params={"path": str(HERE / "data" / "weather.csv")})
    assert state.wait(timeout=10)
    assert state.status == "completed", state.error
    reports = {row.data["weather"]: row.data for row in state.outputs if row.routine_id == "report"}
    assert reports["snow"] == {"weather": "snow", "days": 1, "rain_mm": 4.1, "warmest": 4.4}
    assert sum(report["days"] for report in reports.values()) == 14
