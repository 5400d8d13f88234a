"""What the gate plants has to fit the product: told here within a second, not by the long tier."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.simulation.long.plants import PLANTS


@pytest.mark.parametrize("plant", PLANTS)
def test_the_text_that_a_plant_changes_is_there_once(plant: str):
    """A text that a refactoring has moved plants nothing: plant it anew."""
    for change in PLANTS[plant]:
        spec = find_spec(change.module)
        assert spec is not None
        assert spec.origin is not None
        assert Path(spec.origin).read_text().count(change.text) == 1, (change.module, change.text)
