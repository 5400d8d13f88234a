"""What arrives while an execution goes to sleep is not lost, at whatever moment it arrives: looked at one by one, not by luck."""

from collections import Counter
from collections.abc import Iterable

import pytest

from perdure._definitions.registration import Registration
from perdure._model.records import Answer, Commit, Receipt
from perdure._stores.sqlite.commit import Batch, Stand
from perdure.testing._simulation.case import Case, Fault
from perdure.testing._simulation.director import Commission, Plan
from perdure.testing._simulation.process import Process
from perdure.testing._simulation.simulate import Simulation, run_case
from perdure.testing._simulation.world import SECOND, World

from tests.simulation.moments import ARRIVALS, Moment, moments_of, play, worlds_of
from tests.simulation.programs import listener, program

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("name", ARRIVALS)
def test_what_arrives_at_any_moment_reaches_who_waits_for_it(name: str, processes: int):
    """I14, R18, R22, R29, R31, R48: at each failpoint from the start to the sleep, with and without a cache."""
    arrival, receipts = ARRIVALS[name], Counter[Receipt | None]()
    # With two processes the one world that evicts: a run costs twice as much, and `long` looks at the other one.
    for case in worlds_of(processes)[: 3 - processes]:
        for place in moments_of(arrival, case):
            found, world = play(arrival, Moment(place), case)
            assert found == [], f"{case}, {Moment(place)} ({world.passed[place]})"
            receipts[world.receipt] += 1
    # Otherwise it would mean little: nobody was there to be written to.
    assert receipts[Receipt.STORED] >= 10
    assert receipts[None] == 0


@pytest.mark.parametrize("name", ARRIVALS)
def test_what_arrives_where_a_process_ends_reaches_who_waits_for_it(name: str):
    """I14, I28, R18, R29, R31, R48: the process ends just when it has come."""
    arrival = ARRIVALS[name]
    case, _ = worlds_of(1)
    for place in moments_of(arrival, case):
        found, world = play(arrival, Moment(place, place), case)
        assert found == [], f"{case}, {Moment(place, place)} ({world.passed[place]})"
        assert world.ended_at.total() == 1


def test_a_wake_that_is_lost_is_noticed(monkeypatch: pytest.MonkeyPatch):
    """The control: mail that comes while the suspension is being written is lost, and that is found."""
    judge = Batch.judge

    def careless(self: Batch, one: Commit, stand: Stand) -> Answer:
        one.seen = 2**40
        return judge(self, one, stand)

    monkeypatch.setattr(Batch, "judge", careless)
    arrival = ARRIVALS["a completion"]
    case, _ = worlds_of(1)
    found = [sentence for place in moments_of(arrival, case) for sentence in play(arrival, Moment(place), case)[0]]
    assert any("no end" in sentence for sentence in found)


class _LostBirth(World):
    """Whoever bears the first execution hears nothing of its commit, and counts as dead before it asks again."""

    _deaf: Process | None = None
    _until = 0

    @property
    def happened(self) -> bool:
        return self._deaf is not None

    def ends_process_at(self, point: str) -> bool:
        if self._deaf is None and point == "commit.after" and self._is_just_born():
            self._deaf, self._until = self.running, self.now_us() + 4 * SECOND
            assert self._deaf is not None
            self._deaf.store.die()
            self.happens(Fault.USURP)
        return False

    def _is_just_born(self) -> bool:
        """Whether the program was born in the hands of who has started it, and nothing else has become of it yet."""
        born = self.history.executions[0].after if self.history.executions else None
        return born is not None and born.status == "RUNNING" and self.history.latest[born.execution_id] == born

    def is_lost(self) -> bool:
        return self.running is not None and self.running is self._deaf and self.now_us() < self._until


def test_a_birth_with_mail_may_be_in_other_hands_when_it_is_sent_again():
    """R42: its answer has no receipts then, and whoever has it sends the mail again. Found by reading a planted bug."""
    happened = 0
    for seed in range(12):
        worlds: list[_LostBirth] = []

        def make_world(case: Case, registrations: Iterable[Registration], worlds: list[_LostBirth] = worlds) -> World:
            worlds.append(_LostBirth(case, registrations))
            return worlds[0]

        case = Case(seed=seed, faults=frozenset({Fault.USURP, Fault.LOSE}), at_most=0, processes=2)
        told = Commission(workflow=program, args=(["told", "t", 1],))
        made = Plan(registrations=[program, listener], commissions=[told])
        assert run_case(case, made, lambda _: (), Simulation(), make_world=make_world) == []
        happened += worlds[0].happened
    assert happened >= 3
