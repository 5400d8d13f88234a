"""The other process of `verify_replay`: it imports the workflow, reruns one recording, and says what it has found.

It reads one JSON document from stdin and writes one to stdout. Nothing else gets through: what the module prints when
it is imported goes to stderr, which is shown if the process fails.

A workflow is found by the module and the name under which it lies there. `multiprocessing` finds functions in
the same way; that is not used, since it would pickle what it is to run.
"""

import functools
import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, cast

from perdure._definitions.workflow import WorkflowImplementation
from perdure.testing._rerun import Implementation, Recording, rerun

# Whether this is such a process. A module that verifies replays when it is imported would begin the next one, and so on.
is_replaying = False


class Place(NamedTuple):
    """Where a workflow lies: what another process can import it from."""

    module: str
    file: str
    # Dotted, where it lies in a class.
    attribute: str


def place_of(implementation: Implementation) -> Place | None:
    """Where another process finds a workflow; None: nowhere, as for one that was made inside a function."""
    # First where its function was written, then wherever somebody has given it a name.
    for module in dict.fromkeys([sys.modules.get(implementation.__module__), *list(sys.modules.values())]):
        file = getattr(module, "__file__", None)
        # A module of the same name that was replaced, or made by hand, is not what an import gives.
        if isinstance(module, ModuleType) and isinstance(file, str) and Path(file).is_file():
            attribute = _attribute(module, implementation)
            if attribute is not None:
                return Place(_importable_name(module), str(Path(file).absolute()), attribute)
    return None


def _attribute(module: ModuleType, implementation: Implementation) -> str | None:
    qualname = getattr(implementation, "__qualname__", "")
    for name in [qualname, *vars(module)]:
        if _is_copy(_lookup(module, name), implementation):
            return name
    return None


def _lookup(module: ModuleType, attribute: str) -> Any:
    parts = attribute.split(".")
    # From the dictionary: a module may load what it is asked for, and must not because of a search.
    return functools.reduce(lambda found, part: getattr(found, part, None), parts[1:], vars(module).get(parts[0]))


def _is_copy(found: object, implementation: Implementation) -> bool:
    """Whether it is this workflow, or was configured from it (`options`)."""
    return (
        isinstance(found, WorkflowImplementation)
        and cast("Implementation", found).name == implementation.name
        and getattr(cast("Any", found), "__wrapped__", None) is getattr(implementation, "__wrapped__", None)
    )


def _importable_name(module: ModuleType) -> str:
    """Its name; for a program that was started with `python -m`, the one that it can be imported by."""
    spec = getattr(module, "__spec__", None)
    return module.__name__ if module.__name__ != "__main__" or spec is None else spec.name


def load(place: Place) -> Implementation:
    """Import the module, and take the workflow from it.

    Raises:
        LookupError: It lies there no more.
    """
    found = _lookup(_load_module(place), place.attribute)
    if not isinstance(found, WorkflowImplementation):
        said = f"{place.file} has no workflow {place.attribute!r} when it is imported once more: {found!r}"
        raise LookupError(said)  # noqa: TRY004 - it is not there; what is there instead only tells why
    return cast("Implementation", found)


def _load_module(place: Place) -> ModuleType:
    if place.module == "__main__":
        # Under another name, so that its `if __name__ == "__main__":` does not run it; as multiprocessing calls it.
        module = _execute("__mp_main__", place.file)
        sys.modules["__main__"] = module
        return module
    try:
        module = importlib.import_module(place.module)
    except ModuleNotFoundError as error:
        # A test that pytest has loaded by its path. What is missing inside of the module is another matter.
        if error.name is None or not f"{place.module}.".startswith(f"{error.name}."):
            raise
        return _execute(place.module, place.file)
    return module if module.__file__ == place.file else _execute(place.module, place.file)


def _execute(name: str, file: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Before it runs: annotations are looked up in the module of this name.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Do what stdin says."""
    global is_replaying  # noqa: PLW0603 - what this process is for, from its beginning to its end
    is_replaying = True
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    asked = json.load(sys.stdin)
    end = rerun(Recording.from_plain(asked["recording"]), load(Place(*asked["place"])))
    with answers:
        json.dump(
            {"disagreement": None if end.disagreement is None else end.disagreement.to_plain(), "asked": end.asked},
            answers,
        )
