"""A simulator of the shipping engine: many worker processes in one, a virtual clock, and faults drawn from a seed.

Real are the kernel, the engine and the SQLite store (in memory). The world around them is not: time
jumps, chance is seeded, threads are none, and processes are event loops that can be left standing.
So a run of hours with a dozen crashes takes a tenth of a second, and a seed repeats it exactly.
"""

from perdure.testing._simulation.case import Fault
from perdure.testing._simulation.simulate import Simulation, SimulationFailed, simulate
from perdure.testing._simulation.told import SimulatedExecution, SimulatedRun

__all__ = ["Fault", "SimulatedExecution", "SimulatedRun", "Simulation", "SimulationFailed", "simulate"]
