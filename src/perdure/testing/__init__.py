"""What tests of durable code need: the simulator, a clock set by hand, and the suite that every store must pass.

- ``simulate(workflow, payload, seeds=1000, check=…)``: many runs on the real engine, each with other faults.
- `perdure.testing.clock.ManualClock`: time that the test moves.
- `perdure.testing.failpoints`: crash, pause or fail the engine between two particular lines.
- `perdure.testing.conformance`: the suite for those who write a store.
"""

from perdure.testing._simulation import Fault, SimulatedExecution, SimulatedRun, Simulation, SimulationFailed, simulate

__all__ = ["Fault", "SimulatedExecution", "SimulatedRun", "Simulation", "SimulationFailed", "simulate"]
