"""The gate: bugs that are planted into the product have to be found by the simulation, within a thousand seeds."""

import subprocess
import sys

import pytest

from tests.simulation.long.plants import PLANTS

SEEDS = 1_000

# A process of its own each; most bugs show within ten seeds, the shyest takes some hundred.
pytestmark = pytest.mark.timeout(180)


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_bug_is_found(plant: str, record_property):
    """A bug that is not found is a promise that nobody watches."""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.simulation.long.planted", plant, str(SEEDS)],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "To repeat it:" in ended.stdout, f"nobody has noticed that {plant}"
    record_property("found", ended.stdout)
    print(ended.stdout)


def test_nothing_is_found_where_nothing_is_planted():
    """The control: the same process without a bug."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.simulation.long.planted", "nothing", "30"],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
