"""For tests of flows, and of what is plugged into Routilux."""

from routilux.ports import Emission
from routilux.testing.simulated import SimulatedRuntime, SimulationStuck, simulated
from routilux.testing.tester import RoutineTester
from routilux.testing.tracing import Trace

__all__ = [
    "Emission",
    "RoutineTester",
    "SimulatedRuntime",
    "SimulationStuck",
    "Trace",
    "simulated",
]
