"""Four years of daily weather in Seattle, checked, confirmed, added up and reported. Run it: make demo.

    read ── check ── confirm ── branch ──┬── totals ──┬── report
                                         └───storm────┘

read      emits one item for each line of the file, and waits while the slots behind it are full
check     makes a day of a line; a bad line goes to the dead letters, and the job goes on
confirm   asks a pretend station, which fails on the first of each month and is asked again
branch    sends every day to totals, and a storm to the report, too
totals    adds up months, 100 days at a time, in the state of the worker
report    runs once, when everything else has come to rest

With a store every step is written down: killed in the middle and started again with the same words, it goes on where
it was, and the report is the same. Run it: python examples/seattle_weather.py --store sqlite:///weather.db
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from routilux import ErrorHandler, ErrorStrategy, Flow, JobState, Routine, Runtime, current, routine
from routilux.activation_policies import batch_size_policy, custom_policy, immediate_policy

DATA = Path(__file__).parent / "data" / "seattle-weather.csv"
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip

# The file has no bad lines, so these come behind it.
DAMAGED = [
    "2012/02/30,0.0,10.0,3.9,2.1,sun",
    "2013/07/04,n/a,24.4,12.8,3.1,sun",
    "2014/11/05,-2.0,15.0,9.4,3.5,rain",
]


@routine
def read(path):
    """One item for each line below the header."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()[1:]
    current().job.set_data("days", len(lines))
    for number, line in enumerate(lines + DAMAGED, 2):
        yield {"number": number, "line": line}


class Check(Routine):
    """Makes a day of a line, or raises: then the item is set aside, with the reason."""

    def __init__(self):
        super().__init__()
        self.add_slot("line", max_queue_length=100)
        self.add_event("day")
        self.set_activation_policy(immediate_policy())
        self.set_error_handler(ErrorHandler(ErrorStrategy.SKIP))

    def logic(self, slot_data, policy_message, state):
        [item] = slot_data["line"]
        date, rain, high, low, wind, weather = item["line"].split(",")
        day = {"date": str(datetime.strptime(date, "%Y/%m/%d").date()), "weather": weather}
        day |= {"rain": float(rain), "high": float(high), "low": float(low), "wind": float(wind)}
        if day["rain"] < 0:
            raise ValueError(f"it cannot rain {rain} mm")
        self.emit("day", **day)


class Confirm(Routine):
    """Asks the station whether it has closed the record of a day. It takes its time, and can fail."""

    def __init__(self):
        super().__init__()
        self.add_slot("day", max_queue_length=50)  # the slowest step: what comes before it is held back here
        self.add_event("day")
        self.set_config(seconds=0.0015)
        self.set_activation_policy(immediate_policy())
        self.set_error_handler(
            ErrorHandler(
                ErrorStrategy.RETRY,
                max_retries=3,
                retry_delay=0.02,
                retryable_exceptions=ConnectionError,
            )
        )

    def logic(self, slot_data, policy_message, state):
        [day] = slot_data["day"]
        attempt = current().attempt
        ask_station(day["date"], attempt, self.get_config("seconds"))
        if attempt > 1:  # counted in the state, which a store keeps
            self.state.add("asked_again", attempt - 1)
        self.emit("day", **day)


def ask_station(date, attempt, seconds):
    """A stand-in for a service. It does not answer the first question about the first of a month."""
    time.sleep(seconds)
    if date.endswith("-01") and attempt == 1:
        raise ConnectionError(f"the station does not answer about {date}")


class Branch(Routine):
    def __init__(self):
        super().__init__()
        self.add_slot("day")
        self.add_event("day")
        self.add_event("storm")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data, policy_message, state):
        [day] = slot_data["day"]
        if day["wind"] > 8 and day["rain"] > 20:
            self.emit("storm", **day)
        self.emit("day", **day)


class Totals(Routine):
    """Adds up each month. What it remembers belongs to the worker, not to this object."""

    def __init__(self):
        super().__init__()
        self.add_slot("day")
        self.add_event("counted", ["days"])
        self.set_activation_policy(batch_size_policy(100))

    def logic(self, slot_data, policy_message, state):
        nothing = dict.fromkeys(("days", "rain", "high", "low", "wind"), 0)
        for day in slot_data["day"]:
            add(self.state.setdefault(day["date"][:7], dict(nothing)), day)
        done = sum(month["days"] for month in self.state.values())
        current().progress(done, current().job.get_data("days"))
        self.emit("counted", days=done)


def add(month, day):
    month["days"] += 1
    for key in ("rain", "high", "low", "wind"):
        month[key] += day[key]


class Report(Routine):
    """Runs once: its policy waits until the worker asks to release what would wait for ever."""

    def __init__(self):
        super().__init__()
        self.add_slot("storm")
        self.add_slot("counted")
        self.add_event("report", ["months", "storms"])
        self.set_activation_policy(custom_policy(at_the_end))

    def logic(self, slot_data, policy_message, state):
        self.emit("report", months=state.get_routine_state("totals"), storms=slot_data["storm"])


def at_the_end(slots, state):
    return slots.flushing


def build_flow(seconds: float | None = None) -> Flow:
    """The flow; ``seconds`` is how long the station takes to answer."""
    flow = Flow("seattle_weather")
    for routine_id, step in {
        "read": read(),
        "check": Check(),
        "confirm": Confirm(),
        "branch": Branch(),
        "totals": Totals(),
        "report": Report(),
    }.items():
        flow.add_routine(step, routine_id)
    flow.connect("read", "output", "check", "line")
    flow.connect("check", "day", "confirm", "day")
    flow.connect("confirm", "day", "branch", "day")
    flow.connect("branch", "day", "totals", "day")
    flow.connect("branch", "storm", "report", "storm")
    flow.connect("totals", "counted", "report", "counted")
    if seconds is not None:
        flow.routines["confirm"].set_config(seconds=seconds)
    return flow


# -- what is shown ---------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] = ()) -> int:
    options = parser().parse_args(arguments)
    flow = build_flow()
    with Runtime(store=options.store) as runtime:
        state = runtime.exec(flow, entry_params={"path": str(DATA)}, job_id=options.store and options.job)
        watch(flow, state)
        if state.status != "completed":
            print(f"The flow has {state.status}: {state.error}", file=sys.stderr)
            return 1
        [report] = state.outputs
        print(text_of(**report.data))
        print(f"\nAsked again  {asked_again(state)} times, when the station failed")
        print("Set aside    ", end="")
        print("\n             ".join(map(reason_of, runtime.dead_letters(job=state.job_id))))
    return 0


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Four years of daily weather in Seattle, added up and reported."
    )
    parser.add_argument(
        "--store",
        metavar="URL",
        help="write every step there, such as sqlite:///weather.db, and go on from there",
    )
    parser.add_argument(
        "--job",
        metavar="ID",
        default="seattle-weather",
        help="the same execution again, in a store; default: %(default)s",
    )
    return parser


def watch(flow: Flow, state: JobState) -> None:
    """Draw the progress until the execution has ended: one moving line on a terminal, else a line a second."""
    moving = sys.stderr.isatty()
    while not state.wait(0.1 if moving else 1.0):
        if moving:
            print(f"\r{progress_of(flow, state)}\x1b[K", end="", file=sys.stderr, flush=True)
        else:
            print(progress_of(flow, state), file=sys.stderr, flush=True)
    if moving:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def progress_of(flow: Flow, state: JobState) -> str:
    done, total = state.progress or (0, None)
    share = done / total if total else 0.0
    bar = "#" * round(20 * share)
    queued = sum(flow.routines[name].stats(state)["queued"] for name in ("check", "confirm"))
    return f"[{bar:.<20}] {done:5,} of {total or 0:,} days, {queued:3} queued, {asked_again(state):2} asked again"


def asked_again(state: JobState) -> int:
    return state.get_routine_state("confirm", {"asked_again": 0})["asked_again"]


def text_of(months: dict[str, dict[str, float]], storms: list[dict]) -> str:
    years = sorted({month[:4] for month in months})
    days = sum(month["days"] for month in months.values())
    lines = [
        f"Weather in Seattle, {years[0]} to {years[-1]}: {days:,} days",
        "",
        f"{'':10}{'precipitation in mm':>{8 * len(years) + 8}}{'mean high':>12}{'low':>8}{'wind':>8}",
        f"{'':10}{''.join(f'{year:>8}' for year in years)}{'mean':>8}{'°C':>12}{'°C':>8}{'m/s':>8}",
    ]
    for number, name in enumerate(MONTHS, 1):
        lines.append(row(name, [months[f"{year}-{number:02}"] for year in years]))
    lines += [row("year", [whole_year(months, year) for year in years]), "", *facts(months, storms)]
    return "\n".join(lines)


def row(name: str, months: list[dict[str, float]]) -> str:
    days = sum(month["days"] for month in months)
    rain = "".join(f"{month['rain']:8,.1f}" for month in months)
    high, low, wind = (sum(month[key] for month in months) / days for key in ("high", "low", "wind"))
    mean = sum(month["rain"] for month in months) / len(months)
    return f"{name:10}{rain}{mean:8,.1f}{high:12.1f}{low:8.1f}{wind:8.1f}"


def whole_year(months, year):
    of_year = [month for name, month in months.items() if name.startswith(year)]
    return {key: sum(month[key] for month in of_year) for key in of_year[0]}


def facts(months, storms):
    def mean(name, key):
        return months[name][key] / months[name]["days"]

    hottest = max(months, key=lambda name: mean(name, "high"))
    coldest = min(months, key=lambda name: mean(name, "low"))
    wettest = max(months, key=lambda name: months[name]["rain"])
    yield f"Hottest      {hottest}, mean high {mean(hottest, 'high'):.1f} °C"
    yield f"Coldest      {coldest}, mean low {mean(coldest, 'low'):.1f} °C"
    yield f"Wettest      {wettest}, {months[wettest]['rain']:.1f} mm"
    for storm in storms:
        yield f"Storm        {storm['date']}, wind {storm['wind']} m/s, precipitation {storm['rain']} mm"


def reason_of(letter) -> str:
    return f"line {letter.data['number']:,}: {letter.error}"


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:  # the with block has stopped the runtime
        print("\nStopped.", file=sys.stderr)
        sys.exit(130)
