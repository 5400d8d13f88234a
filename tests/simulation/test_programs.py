"""Random programs on the shipping engine, under seeded faults: a part of what `long` does, quick enough for every change."""

import os
import subprocess
import sys

import pytest

from perdure._failpoints import POINTS
from perdure.testing._simulation.case import Case, Fault
from perdure.testing._simulation.simulate import Simulation, cases_of, run_case, simulate_plans

from tests.simulation.judge import judge
from tests.simulation.programs import plan

SEEDS = 100
# Eight seconds on a quiet core.
pytestmark = pytest.mark.timeout(120)

# No mail is sent yet.
UNREACHED = {"deliver.before", "deliver.after"}


def test_random_programs_keep_every_promise():
    """Promises 1 to 5, 7: I1 to I11, I15, I16, I18, I23 to I25, I30 after every run."""
    done = simulate_plans(plan, cases_of(SEEDS), judge, repeat="simulate_plans(plan, …")
    # Otherwise all this would mean little.
    assert done.reached.keys() == POINTS.keys() - UNREACHED
    assert min(done.faults[fault] for fault in Fault if fault not in {Fault.SLOW, Fault.DEAF}) >= 20
    assert done.executions >= 2 * SEEDS
    assert done.attempts >= 10 * SEEDS


def _digest_of(seed: int) -> int:
    simulation = Simulation()
    case = Case.drawn(seed)
    assert run_case(case, plan(case), judge, simulation) == []
    return simulation.digest


def test_a_seed_gives_the_same_run_again():
    assert [_digest_of(seed) for seed in range(12)] == [_digest_of(seed) for seed in range(12)]


def test_a_seed_gives_the_same_run_in_another_process():
    """Not by the order of a set of strings, nor by an address."""
    program = (
        "from tests.simulation.test_programs import _digest_of; print([_digest_of(seed) for seed in range(30, 42)])"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(told) == 1


def test_the_line_of_a_case_is_the_case():
    for seed in range(50):
        case = Case.drawn(seed)
        assert Case.parsed(str(case)) == case
