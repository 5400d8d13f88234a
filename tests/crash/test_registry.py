"""The list of failpoints and the source agree: every call names a listed point, every listed point is called."""

import ast
from pathlib import Path

import perdure
from perdure._failpoints import POINTS

from tests.crash import test_every_failpoint

SOURCE = Path(perdure.__file__).parent


def reaches_in(path: Path) -> list[ast.expr]:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return [call.args[0] for call in calls if _called(call.func) == "reach"]


def _called(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def test_every_call_names_a_listed_point_and_every_listed_point_is_called():
    """A name that is made up at runtime could not be checked, so there is none."""
    found = [argument for path in SOURCE.rglob("*.py") for argument in reaches_in(path)]
    assert all(isinstance(argument, ast.Constant) for argument in found), [ast.unparse(one) for one in found]
    assert {argument.value for argument in found} == POINTS.keys()


def test_a_process_is_killed_at_every_listed_point():
    """Coverage is the registry: a new point that no scenario reaches fails here or there."""
    assert {*test_every_failpoint.OF_THE_ENGINE, *test_every_failpoint.OF_THE_STORE_ONLY} == POINTS.keys()
