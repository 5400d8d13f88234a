"""The program of one process: plants a bug into the product, then simulates until it is found.

Prints the line of the smallest case that shows it, and what is wrong with that; nothing, if it was not found.
"""

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

from tests.simulation.long.plants import PLANTS, Change

# That it is found is what counts; a bug that lets things go round in circles takes seconds a run.
FEW = 6


class _Loader(SourceFileLoader):
    """Loads a module with its bugs."""

    def __init__(self, name: str, path: str, changes: Sequence[Change]) -> None:
        super().__init__(name, path)
        self._changes = changes

    def exec_module(self, module: ModuleType) -> None:
        """Run the changed text."""
        assert self.path is not None
        source = self.get_data(self.path).decode()
        for change in self._changes:
            if source.count(change.text) != 1:
                raise SystemExit(
                    f"{change.module} has {source.count(change.text)} times {change.text!r}: plant it anew"
                )
            source = source.replace(change.text, change.instead)
        exec(compile(source, self.path, "exec"), module.__dict__)  # the source is ours


class _Finder(MetaPathFinder):
    """Finds the modules into which something is planted."""

    def __init__(self, changes: Sequence[Change]) -> None:
        self._changes = changes

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec of a changed module; None for every other."""
        changes = [change for change in self._changes if change.module == name]
        spec = PathFinder.find_spec(name, path) if changes else None
        if spec is None or spec.origin is None:
            return None
        return importlib.util.spec_from_loader(name, _Loader(name, spec.origin, changes), origin=spec.origin)


def main(plant: str, seeds: int) -> None:
    """Plant it, and look for it."""
    changes = PLANTS.get(plant, ())
    sys.meta_path.insert(0, _Finder(changes))
    from perdure.testing._simulation.simulate import SimulationFailed, cases_of, simulate_plans

    from tests.simulation.judge import judge
    from tests.simulation.programs import plan

    missing = {change.module for change in changes} - sys.modules.keys()
    assert not missing, f"{missing} was not imported"
    try:
        simulate_plans(plan, cases_of(seeds), judge, repeat="simulate_plans(plan, …", tries=FEW)
    except SimulationFailed as failed:
        print(failed)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
