"""What tests of durable code need: an engine that skips time, a simulator, and the suite that every store must pass.

- `TestEngine([…])`: the engine of production with a clock that skips idle time by itself, or is moved by `advance`.
- `VirtualClock`: its clock, for tests that share one or set it.
- `perdure_engine`: the fixture that makes them in pytest; its plugin is found by itself (`perdure.testing.plugin`).
- `export_execution` and `import_execution`: one execution as JSON Lines, out of production and into a test.
- `verify_replay(engine, execution_id)` and `replay_check(workflows, journals)`: does code fit what is recorded?
- `crash_everywhere(workflow, payload, check=…)`: one run for every place at which a process may die, killed there.
- `simulate(workflow, payload, seeds=1000, check=…)`: many runs on the real engine, each with other faults.
- `perdure.testing.clock.ManualClock`: time that only the test moves, for a store of one's own.
- `perdure.testing.failpoints`: crash, pause or fail the engine between two particular lines.
- `perdure.testing.conformance`: the suite for those who write a store.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perdure.testing._simulation import (
        Fault,
        SimulatedExecution,
        SimulatedRun,
        Simulation,
        SimulationFailed,
        simulate,
    )
    from perdure.testing.clock import VirtualClock
    from perdure.testing.crash import crash_everywhere
    from perdure.testing.engine import TestEngine
    from perdure.testing.plugin import EngineFactory
    from perdure.testing.replay import (
        ReplayCheckFailed,
        ReplayDifference,
        ReplayReport,
        VerifiedReplay,
        replay_check,
        verify_replay,
    )
    from perdure.testing.transfer import TransferError, export_execution, import_execution

__all__ = [
    "EngineFactory",
    "Fault",
    "ReplayCheckFailed",
    "ReplayDifference",
    "ReplayReport",
    "SimulatedExecution",
    "SimulatedRun",
    "Simulation",
    "SimulationFailed",
    "TestEngine",
    "TransferError",
    "VerifiedReplay",
    "VirtualClock",
    "crash_everywhere",
    "export_execution",
    "import_execution",
    "replay_check",
    "simulate",
    "verify_replay",
]

# Under this condition, or a type checker takes every misspelt import for Any.
if not TYPE_CHECKING:
    # Each is loaded when it is first asked for: pytest imports this package with its plugin whenever it starts, also
    # where no test has to do with durable code.
    _ROOMS = {
        "EngineFactory": "plugin",
        "Fault": "_simulation",
        "ReplayCheckFailed": "replay",
        "ReplayDifference": "replay",
        "ReplayReport": "replay",
        "SimulatedExecution": "_simulation",
        "SimulatedRun": "_simulation",
        "Simulation": "_simulation",
        "SimulationFailed": "_simulation",
        "TestEngine": "engine",
        "TransferError": "transfer",
        "VerifiedReplay": "replay",
        "VirtualClock": "clock",
        "crash_everywhere": "crash",
        "export_execution": "transfer",
        "import_execution": "transfer",
        "replay_check": "replay",
        "simulate": "_simulation",
        "verify_replay": "replay",
    }

    def __getattr__(name: str) -> object:
        if name not in _ROOMS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
        return found

    def __dir__() -> list[str]:
        return sorted(globals().keys() | _ROOMS.keys())
