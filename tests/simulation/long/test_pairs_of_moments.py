"""As `test_moments`, with a crash at every later moment: all pairs of where something arrives and where a process ends."""

import pytest

from tests.simulation.moments import ARRIVALS, Moment, moments_of, play, worlds_of
from tests.soak import scaled

# Some hundred runs each, of ten to twenty milliseconds.
pytestmark = pytest.mark.timeout(120)

# Every second place of a crash is looked at, with two processes every sixth; all of them if there is a night for it.
STEPS = {1: max(1, 2 // scaled(1)), 2: max(1, 6 // scaled(1))}


@pytest.mark.parametrize("processes", STEPS)
@pytest.mark.parametrize("name", ARRIVALS)
def test_what_arrives_before_a_process_ends_reaches_who_waits_for_it(name: str, processes: int):
    """I14, I28, R18, R29, R31, R48: whichever of them comes when."""
    arrival = ARRIVALS[name]
    case = worlds_of(processes)[processes - 1]
    pairs = 0
    for place in moments_of(arrival, case):
        ends = place
        while True:
            found, world = play(arrival, Moment(place, ends), case)
            assert found == [], f"{case}, {Moment(place, ends)} ({world.passed[place]})"
            # What has arrived changes the way: the last moment is the one behind which nothing is passed.
            if not world.ended_at:
                break
            ends, pairs = ends + STEPS[processes], pairs + 1
    assert pairs >= 40
