"""For tests of flows, and of what is plugged into Routilux."""

from routilux.testing.simulated import SimulatedRuntime, SimulationLimit, SimulationStuck, simulated

__all__ = ["SimulatedRuntime", "SimulationLimit", "SimulationStuck", "simulated"]
