"""Many more seeds than `test_programs`, and other ones in every run."""

import random

import pytest

from perdure._failpoints import POINTS
from perdure.testing._simulation.case import Fault
from perdure.testing._simulation.simulate import cases_of, simulate_plans

from tests.simulation.judge import judge
from tests.simulation.programs import plan
from tests.simulation.test_programs import UNREACHED
from tests.soak import scaled

SEEDS = scaled(60)

# Sixty runs take six seconds of one core.
pytestmark = pytest.mark.timeout(max(240, SEEDS))


@pytest.mark.parametrize("part", range(4))
def test_seeds_that_nobody_has_seen(part: int, record_property):
    """As `test_random_programs_keep_every_promise`, from a seed that is drawn anew; a failure prints its line."""
    first = random.randrange(10**9)
    done = simulate_plans(plan, cases_of(range(first, first + SEEDS)), judge, repeat="simulate_plans(plan, …")
    record_property("figures", str(done))
    print(done)
    print("ended at", dict(done.ended_at))
    assert done.reached.keys() == POINTS.keys() - UNREACHED
    assert min(done.reached[point] for point in done.reached) >= SEEDS // 25
    assert min(done.faults[fault] for fault in Fault if fault not in {Fault.SLOW, Fault.DEAF}) >= SEEDS // 2
