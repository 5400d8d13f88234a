"""The small programs of `examples/`: each runs, does what it says, and is short enough to be read in one go."""

import runpy
import sys
import tempfile
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

SAID = {
    "approval": ["counted: True", "once more: False", "taxi: approved", "dinner: expired"],
    "fan_out": ["12 of 12", "12 of 12", "children: 12 for 12 texts"],
    "race": ["the file, by the good mirror", "nothing in time", "both: broken: out of order", "cut off: silent silent"],
    "saga": ["rome: 2 bookings", "cancelled: hotel", "cancelled: flight", "oslo: no car", "bookings that are left: 2"],
}
MOST_LINES = 80


@pytest.fixture(autouse=True)
def _room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the programs write is removed with the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def run(name: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return capsys.readouterr().out.splitlines()


def texts(folder: Path) -> Path:
    """Twelve small texts, so that the example does not count whatever lies in the checkout."""
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}.md").write_text(f"journal number {number}: " + "execution " * number)
    return folder


@pytest.mark.parametrize("name", ["approval", "race", "saga"])
def test_an_example_says_what_it_has_done(name: str, capsys: pytest.CaptureFixture[str]):
    """R18, R21, R27."""
    said = run(name, capsys)
    at = [next((place for place, line in enumerate(said) if line.startswith(wanted)), None) for wanted in SAID[name]]
    assert None not in at, said
    assert at == sorted(at, key=lambda place: place or 0), said


def test_a_parent_has_the_ends_of_all_its_children(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """R2, R31: and the second time it joins those that have ended."""
    monkeypatch.setattr(sys, "argv", ["fan_out.py", str(texts(tmp_path / "texts"))])
    said = run("fan_out", capsys)
    assert "('execution', 66)" in said[0]
    assert said[0] == said[2]
    assert [said[1], *said[3:]] == SAID["fan_out"]


def test_every_program_is_run_here():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == SAID.keys()


@pytest.mark.parametrize("name", SAID)
def test_an_example_is_short(name: str):
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) <= MOST_LINES
