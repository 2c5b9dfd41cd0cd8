"""``routilux demo``: the weather flow that comes with the package, on four years of real data."""

from __future__ import annotations

from importlib.resources import as_file, files

from routilux import Flow
from routilux.cli.codes import DONE
from routilux.cli.command import Call, command
from routilux.cli.plan import Plan
from routilux.cli.run import run_plan
from routilux.cli.stores import store_option

EXAMPLES = """
routilux demo
routilux demo --store sqlite:///demo.db
routilux demo --json
"""

NEXT = """
That was four years of weather in Seattle (NOAA, public domain), read day by day
from a CSV file, through the flow in

  {document}

Try next
  routilux init hello          write a flow of your own, with data and a test
  routilux list routines       what a flow can be made of
  routilux graph hello/weather.flow.yaml
  routilux run --help"""


@command("demo", EXAMPLES)
@store_option
def demo(call: Call, store: str | None) -> int:
    """Run the weather flow that comes with Routilux: years, wettest months and storms of Seattle.

    With --store it is kept there; the store of the config is not used.
    """
    data = files("routilux.cli") / "data"
    with (
        as_file(data / "seattle_weather.flow.yaml") as document,
        as_file(data / "seattle-weather.csv") as days,
    ):
        output = "json" if call.as_json else "table"
        plan = Plan(
            str(document), given={"path": str(days)}, output=output, store=store, store_flag=store is not None
        )
        code = run_plan(call, plan, Flow.load(document))
        if code == DONE:
            call.say(NEXT.format(document=document))
    return code
