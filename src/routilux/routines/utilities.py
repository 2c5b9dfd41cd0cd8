"""Built-in routines that look at what passes: logs, copies, counts, times."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from routilux import current
from routilux.activation_policies import ActivationPolicy
from routilux.routines.policies import Stamped
from routilux.routines.settings import (
    Configured,
    EachItem,
    Payload,
    SlotData,
    expression,
    found_in,
    key_of,
    key_text,
    setting,
)
from routilux.routines.table import Table
from routilux.routines.text import filled, template_parts

LEVELS = ("debug", "info", "warning", "error", "critical")


@dataclass
class LogConfig:
    message: str | None = setting(
        "a template such as 'order {id} has arrived'; without it, the payload",
        default=None,
        check=template_parts,
    )
    level: str = setting("how important it is", default="info", choices=LEVELS)
    max_length: int = setting("characters of a message at most", default=2_000, min=1)


class Log(EachItem[LogConfig]):
    """Writes a line to the log ``routilux.routine.<id>``, with the job's id, and hands the payload on."""

    config_type = LogConfig

    def treat(self, payload: Payload, state: Any) -> None:
        settings = self.settings
        text = repr(payload) if settings.message is None else filled(settings.message, payload)
        level = logging.getLevelNamesMapping()[settings.level.upper()]
        current().log.log(level, "%s", text[: settings.max_length])
        self.emit("output", **payload)


@dataclass
class TapConfig:
    name: str = setting("the type that the copies have in the output log", default="tap", min=1)
    fields: list[str] | None = setting("only these keys", default=None)
    every: int = setting("copy only every n-th payload", default=1, min=1)


class Tap(EachItem[TapConfig]):
    """Copies payloads to the execution's output handler and output log, and hands them on."""

    config_type = TapConfig

    def treat(self, payload: Payload, state: Any) -> None:
        settings = self.settings
        seen = self.memory(state).get("seen", 0)
        if seen % settings.every == 0:
            names = payload if settings.fields is None else settings.fields
            self.send_output(settings.name, **{name: found_in(payload, name) for name in names})
        self.remember(state, seen=seen + 1)
        self.emit("output", **payload)


@dataclass
class CountConfig:
    key: str | None = expression("what is counted on its own; without it, everything together", default=None)
    name: str = setting("the key that the count so far is put under", default="count", min=1)


class Count(EachItem[CountConfig]):
    """Numbers the payloads of each key: adds 1 to the first, 2 to the second."""

    config_type = CountConfig

    def treat(self, payload: Payload, state: Any) -> None:
        key = "all" if self.settings.key is None else key_text(key_of(self.settings.key, payload))
        counts = Table(self.memory(state).get("counts", ()))
        count = counts.get(key, 0) + 1
        counts.put(key, count)
        self.remember(state, counts=counts.as_state())
        self.emit("output", **{**payload, self.settings.name: count})


@dataclass
class TimingConfig:
    name: str = setting("the key that the times are put under", default="timing", min=1)


class Timing(Configured[TimingConfig]):
    """Adds how long a payload was on its way here, and how long after the one before it came, in seconds.

    The routine's state holds ``count``, ``total``, ``least`` and ``greatest`` of the first of the two.
    """

    config_type = TimingConfig

    def policy(self, settings: TimingConfig) -> ActivationPolicy:
        return Stamped()

    def logic(self, slot_data: SlotData, policy_message: Any, state: Any) -> None:
        now, time = policy_message
        memory = self.memory(state)
        waited = now - time
        before = memory.get("at")
        since = None if before is None else max(0.0, now - before)
        self.remember(
            state,
            at=now,
            count=memory.get("count", 0) + 1,
            total=memory.get("total", 0.0) + waited,
            least=min(waited, memory.get("least", waited)),
            greatest=max(waited, memory.get("greatest", waited)),
        )
        for payload in slot_data["input"]:
            self.emit("output", **{**payload, self.settings.name: {"waited": waited, "since_last": since}})


def _check_zone(name: str) -> None:
    if name != "UTC":
        try:
            ZoneInfo(name)
        except (KeyError, OSError):  # a folder of zones, for one, is no zone
            raise ValueError(f"no time zone {name!r}; write one such as 'Europe/Berlin'") from None


@dataclass
class ClockConfig:
    name: str = setting("the key that the time is put under", default="time", min=1)
    zone: str = setting("the time zone, such as 'Europe/Berlin'", default="UTC", check=_check_zone)
    style: str = setting(
        "text as in ISO 8601, seconds since 1970, or a date",
        default="iso",
        choices=("iso", "seconds", "date"),
    )


class Clock(EachItem[ClockConfig]):
    """Adds the time of day to the payload."""

    config_type = ClockConfig

    def treat(self, payload: Payload, state: Any) -> None:
        zone = UTC if self.settings.zone == "UTC" else ZoneInfo(self.settings.zone)
        moment = now(zone)
        match self.settings.style:
            case "seconds":
                value: Any = moment.timestamp()
            case "date":
                value = moment.date().isoformat()
            case _:
                value = moment.isoformat()
        self.emit("output", **{**payload, self.settings.name: value})


def now(zone: Any) -> datetime:
    return datetime.now(zone)
