"""The public face checks as it says: right uses without one error, wrong uses each with its own, in both checkers."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RIGHT = "tests/typing/right.py"
WRONG = "tests/typing/wrong.py"

CHECKERS = {
    "pyright": [sys.executable, "-m", "pyright", "--project", "pyproject.toml"],
    # Without its cache: with one, two test runs at a time would write it together.
    "mypy": [sys.executable, "-m", "mypy", "--no-error-summary", "--hide-error-context", "--cache-dir", "/dev/null"],
}
MARKS = {
    "pyright": re.compile(r"# pyright: ignore\[[\w, ]+\]"),
    "mypy": re.compile(r"# type: ignore\[[\w, -]+\]"),
}

# A known limit: lines of wrong.py that only pyright finds, by a piece of their text.
ONLY_PYRIGHT = ("idempotency_key=key_of_an_order", "match exit:")


def complaints(checker: str, *files: str) -> str:
    ran = subprocess.run([*CHECKERS[checker], *files], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode in (0, 1), ran.stdout + ran.stderr
    return "" if ran.returncode == 0 else ran.stdout


def lines_of(path: str) -> list[str]:
    return (ROOT / path).read_text(encoding="utf-8").splitlines()


def unmarked(folder: Path) -> str:
    """The wrong uses without their marks, so that what is found does not hang on a setting that a checker may lose."""
    path = folder / "unmarked.py"
    path.write_text("\n".join(re.sub(r"# (pyright|type): ignore\S.*", "", line) for line in lines_of(WRONG)))
    return str(path)


@pytest.mark.timeout(120)  # a checker starts cold, and is compiled code only in part
@pytest.mark.parametrize("checker", CHECKERS)
def test_right_uses_check_and_every_wrong_line_is_found_and_no_other(checker: str, tmp_path: Path):
    """None missing, none extra: a mark that ignores nothing is an error of its own, in both checkers.

    In one run of each, for most of what it costs is to read what the files import.
    """
    expected = {("unmarked", number) for number, line in enumerate(lines_of(WRONG), 1) if MARKS[checker].search(line)}
    said = complaints(checker, RIGHT, WRONG, unmarked(tmp_path))
    errors = re.findall(r"(\w+)\.py:(\d+)(?::\d+)?(?: -|:) error: (.*)", said)
    found = {(file, int(number)): error for file, number, error in errors}
    assert {place: error for place, error in found.items() if place not in expected} == {}
    assert expected - found.keys() == set()


def test_both_checkers_find_what_is_wrong():
    marked = [line for line in lines_of(WRONG) if any(mark.search(line) for mark in MARKS.values())]
    one_sided = [line for line in marked if not all(mark.search(line) for mark in MARKS.values())]
    assert len(marked) > 150
    assert [line for line in one_sided if not any(known in line for known in ONLY_PYRIGHT)] == []
    assert len(one_sided) == len(ONLY_PYRIGHT)


def test_right_uses_are_right_without_help():
    text = "\n".join(lines_of(RIGHT))
    assert "ignore[" not in text
    assert "cast(" not in text


@pytest.mark.timeout(120)
def test_every_type_of_the_public_face_is_known(tmp_path: Path):
    """For whoever checks against the installed package: nothing is left to a checker's inference."""
    # Away from the project, whose settings would be taken for the package's.
    ran = subprocess.run(
        [*CHECKERS["pyright"][:3], "--pythonpath", sys.executable, "--verifytypes", "perdure", "--ignoreexternal"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Type completeness score: 100%" in ran.stdout, ran.stdout
