"""The front door: its names are sorted, there, and explained; every file says what it is."""

import ast
import types
from pathlib import Path

import pytest

import perdure

SOURCES = Path(perdure.__file__).parent
# Aliases and values have no docstring of their own.
CALLABLE = [name for name in perdure.__all__ if isinstance(getattr(perdure, name, None), type | types.FunctionType)]
MODULES = sorted(SOURCES.rglob("*.py"))


def test_the_public_names_are_sorted_and_each_stands_once():
    assert list(perdure.__all__) == sorted(set(perdure.__all__))


@pytest.mark.parametrize("name", perdure.__all__)
def test_a_public_name_is_there(name: str):
    assert getattr(perdure, name) is not None
    assert name in dir(perdure)


@pytest.mark.parametrize("name", CALLABLE)
def test_a_public_function_or_class_has_a_docstring_of_its_own(name: str):
    # Not inspect.getdoc, which finds the docstring of a base class.
    docstring = getattr(perdure, name).__doc__
    assert docstring
    assert docstring.strip()
    assert not docstring.startswith(f"{name}("), "the docstring that dataclass writes says nothing"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCES)))
def test_a_module_opens_with_its_role_in_one_sentence(path: Path):
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring, "the first line of a file says what it is"
    summary = docstring.split("\n\n")[0]
    assert summary.endswith((".", ":", "?")), f"the first sentence is not one: {summary!r}"
