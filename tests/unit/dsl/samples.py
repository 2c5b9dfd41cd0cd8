"""Routine types and documents that the tests of the DSL share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from routilux import Routine, routine
from routilux.activation_policies import immediate_policy
from routilux.dsl import RoutineRegistry


@dataclass
class Route:
    name: str
    when: str = field(default="True", metadata={"expression": True})


@dataclass
class BranchConfig:
    routes: list[Route] = field(default_factory=list, metadata={"doc": "where payloads go"})
    default: str = "default"


class Branch(Routine):
    """Events that depend on the config."""

    config_type = BranchConfig

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("input")
        self.set_activation_policy(immediate_policy())

    def config_changed(self) -> None:
        for route in self.get_config("routes"):
            name = route["name"] if isinstance(route, Mapping) else route.name
            if name not in self.events:
                self.add_event(name)

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        pass


@dataclass
class ReadConfig:
    path: str = field(metadata={"doc": "the file"})
    size: int = field(default=100, metadata={"min": 1, "max": 1000})
    mode: Literal["rows", "columns"] = "rows"


class Read(Routine):
    """Reads a file."""

    config_type = ReadConfig
    made = 0

    def __init__(self) -> None:
        super().__init__()
        Read.made += 1
        self.add_slot("path")
        self.add_event("row", ["date", "rain"])
        self.add_event("error")
        self.set_activation_policy(immediate_policy())

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        pass


class Anything(Routine):
    """Undeclared config, two slots, no policy."""

    def __init__(self) -> None:
        super().__init__()
        self.add_slot("left")
        self.add_slot("right", max_queue_length=50, on_full="drop_old")
        self.add_event("output")

    def logic(self, slot_data: Any, policy_message: Any, state: Any) -> None:
        pass


@routine
def work(**payload: Any) -> dict[str, Any]:
    """Hands on what it gets."""
    return payload


def registry() -> RoutineRegistry:
    made = RoutineRegistry(plugins=False)
    made.register(Read, "read").register(work).register(Branch, "choose").register(Anything, "any")
    return made.register_prototype("read_small", "read", {"size": 5})


GOOD = """\
version: 1
flow_id: weather
description: Storm days
execution:
  strategy: concurrent
  max_workers: 4
  timeout: 300.0
error_handler:
  strategy: retry
  retry_delay: 0.5
entry: read.path
routines:
  read:
    class: read
    description: "one: file"
    config:
      path: in.csv
    activation:
      policy: batch_size
      size: 2
    error_handler:
      strategy: skip
    concurrency: 3
    timeout: 2.5
    slots:
      path:
        max_queue_length: 5
        on_full: drop_old
  choose:
    class: choose
    config:
      routes:
        - name: storm
          when: wind > 8
  save:
    class: work
connections:
  - {from: read.row, to: choose.input, mapping: {date: day}}
  - {from: choose.storm, to: save.input}
"""

HEAD = "version: 1\nflow_id: x\nroutines:\n"
