"""The version is said in two places, which say the same."""

import tomllib
from pathlib import Path

import perdure


def test_the_package_says_the_version_that_is_released():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert perdure.__version__ == project["version"]


def test_names_outside_of_star_are_listed_for_help():
    """`from perdure import *` does not bring them, so the docstring is where they are found."""
    for name in ("sleep", "now", "random", "uuid4", "logger"):
        assert name not in perdure.__all__
        assert hasattr(perdure, name)
        assert f"- ``{name}" in perdure.__doc__
