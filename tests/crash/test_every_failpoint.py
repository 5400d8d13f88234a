"""A worker killed with SIGKILL at each failpoint there is, at its first, second and a later reach, and started again.

Promises 1 to 5 and 7; R4, R8, R9, R10, R11, R14, R16, R17, R38, R39, R41, R42, R50: the checker says which.
"""

import pytest

from perdure._failpoints import POINTS

from tests.crash.checker import repeats, violations
from tests.crash.ledger import Phase
from tests.crash.stage import Stage, some_of_each
from tests.crash.test_delivery import POINTS_OF_DELIVERY
from tests.crash.test_next_lives import POINTS_OF_EXPIRY, POINTS_OF_RENEWAL
from tests.crash.test_purge import POINTS_OF_PURGE
from tests.crash.worker import Work

# Up to ten processes of half a second each, on a machine that others use as well.
pytestmark = pytest.mark.timeout(90)

# What `some_of_each` does not come to: it sends no mail, has no deadline, begins no next life, and is not thirty days
# old. `test_delivery.py`, `test_next_lives.py` and `test_purge.py` kill a process at these.
OF_THE_STORE_ONLY = {
    *POINTS_OF_DELIVERY,
    *POINTS_OF_EXPIRY,
    *POINTS_OF_RENEWAL,
    *POINTS_OF_PURGE,
}
OF_THE_ENGINE = sorted(POINTS.keys() - OF_THE_STORE_ONLY)
# These need a dead worker for each reach.
OF_TAKE_OVERS = {"take_over.before", "take_over.after"}

# How often each is reached at least by what `some_of_each` gives, and a little less than that.
LATER = {"commit": 25, "acknowledge": 25, "turn": 50, "effect": 45, "load": 5, "claim": 5, "promote": 5, "take_over": 3}


def later(point: str) -> int:
    return LATER[point.partition(".")[0]]


def die_while_taking_over(stage: Stage, database: int, point: str, reach: int) -> list[Work]:
    """Die when the `reach`-th dead worker is taken over; the first one had its hands full when it died."""
    name = stage.databases[database].stem
    work = some_of_each(f"{name}/1")
    stage.run_until_it_dies(work, "effect.after", later("effect"), database=database)
    with stage.worker([], database=database, crash=(point, reach), tell=[point], stays=True) as heir:
        for number in range(2, reach + 1):
            heir.hear(lambda line: line.phase is Phase.REACHED)
            more = some_of_each(f"{name}/{number}", 1)
            # It may own nothing when it dies: its heir is quick.
            stage.run_until_it_dies(more, "commit.after", 1, database=database)
            work += more
        heir.end()
    stage.note_kill(heir)
    return work


def reaches_of(point: str) -> dict[str, int]:
    return {"first": 1, "second": 2, "later": later(point)}


@pytest.mark.parametrize("point", OF_THE_ENGINE)
def test_a_worker_killed_at_a_failpoint_loses_nothing_and_repeats_no_more_than_was_cut_off(tmp_path, point):
    """Each reach in a fresh database; then one process without failpoints finishes all three."""
    reaches = reaches_of(point)
    stage = Stage(tmp_path, reaches)
    work: list[Work] = []
    for database, (name, reach) in enumerate(reaches.items()):
        if point in OF_TAKE_OVERS:
            work += die_while_taking_over(stage, database, point, reach)
        else:
            work += some_of_each(name)
            stage.run_until_it_dies(some_of_each(name), point, reach, database=database)
    stage.run_until_it_ends(work)
    account = stage.account()
    assert violations(account) == []
    if point == "effect.after":
        assert repeats(account) >= len(reaches), "what was done and not recorded is done again"


@pytest.mark.parametrize("point", OF_THE_ENGINE)
def test_workers_killed_one_after_the_other_lose_nothing_either(tmp_path, point):
    """One database; each heir is killed while it inherits, keeps no kernel in memory, and begins new work too."""
    stage = Stage(tmp_path)
    work = some_of_each("one/0", 1)
    reaches = sorted(reaches_of(point).values(), reverse=True)
    if point in OF_TAKE_OVERS:
        # Whoever died before is taken over once, at the start.
        stage.run_until_it_dies(work, "effect.after", later("effect"))
        reaches = [1, 1]
    for life, reach in enumerate(reaches, start=1):
        work += some_of_each(f"one/{life}", 1)
        stage.run_until_it_dies(work, point, reach, cache=0)
    stage.run_until_it_ends(work, cache=0)
    assert violations(stage.account()) == []


def test_without_a_kill_nothing_is_repeated_and_no_outcome_is_unknown(tmp_path):
    """The control: the budget of the checker is zero here."""
    stage = Stage(tmp_path)
    stage.run_until_it_ends(some_of_each("one", 3))
    account = stage.account()
    assert violations(account) == []
    assert len(account.of(Phase.TOLD)) == len({line.execution_id for line in account.of(Phase.TOLD)})
